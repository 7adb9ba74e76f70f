;;;; bindings - every function of libport.h, in its order; see there for what they do.
;;;;
;;;; Sockets, waits, queries, dials and results are 64-bit integers; octets and characters are passed
;;;; as pointers made by WITH-OCTETS and WITH-CHARACTERS. [nowait] functions are to be called inside
;;;; CALL-DEFERRED wherever an unwind between the call and the use of its result would lose something.

(in-package :port.ffi)

;;; Shorthand for the types of the manifest.
(cffi:defctype handle :int64)
(cffi:defctype result :int64)

(defmacro define-functions (&body rows)
  "Bind each row (\"c_name\" result-type (parameter type)...) under the name of C with hyphens."
  `(progn
     (declaim (inline ,@(mapcar #'lisp-name rows)))
     ,@(loop for row in rows
             for (c-name result . parameters) = row
             collect `(cffi:defcfun (,c-name ,(lisp-name row)) ,result ,@parameters))))

(define-functions
  ;; abi
  ("lport_version" :string)
  ("lport_abi" :int32)
  ("lport_manifest" :string)
  ;; status
  ("lport_status_make" result (kind :int32))
  ("lport_status_kind" :int32 (status result))
  ("lport_status_errno" :int32 (status result))
  ("lport_status_text" result (status result) (text :pointer) (cap :size))
  ("lport_kind_name" :string (kind :int32))
  ("lport_kind_condition" :string (kind :int32))
  ;; clock
  ("lport_clock_now" :int64)
  ("lport_clock_after" :int64 (ns :int64))
  ;; address
  ("lport_address_parse" result (text :pointer) (len :size) (port :int32) (address :pointer))
  ("lport_address_is_literal" result (text :pointer) (len :size))
  ("lport_address_print" result (address :pointer) (text :pointer) (cap :size))
  ("lport_port_parse" result (text :pointer) (len :size))
  ("lport_address_local" result (name :pointer) (len :size) (address :pointer))
  ("lport_address_equal" result (a :pointer) (b :pointer))
  ;; handle
  ("lport_socket_close" result (socket handle) (flags :int32))
  ("lport_socket_gone" result (socket handle) (deadline :int64))
  ("lport_socket_descriptor" result (socket handle))
  ("lport_socket_state" result (socket handle))
  ("lport_socket_count" result)
  ("lport_wait_count" result)
  ;; wait
  ("lport_wait_begin" result (socket handle) (interest :int32))
  ("lport_wait_poll" result (wait handle) (deadline :int64) (interruptible :int32))
  ("lport_wait_end" result (wait handle))
  ("lport_wait_wake" result (socket handle) (interest :int32))
  ;; socket
  ("lport_socket_listen" result (address :pointer) (backlog :int32) (flags :int32))
  ("lport_socket_accept" result (listener handle))
  ("lport_socket_pair" result (kind :int32) (pair :pointer))
  ("lport_socket_shutdown" result (socket handle) (direction :int32))
  ("lport_socket_name" result (socket handle) (address :pointer))
  ("lport_socket_peer" result (socket handle) (address :pointer))
  ;; local
  ("lport_local_listen" result (address :pointer) (kind :int32) (backlog :int32) (mode :int32)
                        (flags :int32))
  ;; option
  ("lport_option_name" :string (index :int32))
  ("lport_option_unit" :string (index :int32))
  ("lport_option_get" result (socket handle) (index :int32))
  ("lport_option_set" result (socket handle) (index :int32) (value :int64))
  ;; transfer
  ("lport_socket_receive" result (socket handle) (octets :pointer) (len :size) (flags :int32))
  ("lport_socket_send" result (socket handle) (octets :pointer) (len :size))
  ("lport_socket_send2" result (socket handle) (a :pointer) (a-len :size) (b :pointer)
                        (b-len :size))
  ;; text
  ("lport_text_find_line" result (octets :pointer) (len :size))
  ("lport_text_from_utf8" result (octets :pointer) (len :size) (chars :pointer) (cap :size))
  ("lport_text_from_latin1" result (octets :pointer) (len :size) (chars :pointer) (cap :size))
  ("lport_text_from_ascii" result (octets :pointer) (len :size) (chars :pointer) (cap :size))
  ("lport_text_from_ascii8" result (octets :pointer) (len :size) (chars :pointer) (cap :size))
  ("lport_text_utf8_problem" result (octets :pointer) (len :size))
  ("lport_text_to_utf8" result (chars :pointer) (len :size) (octets :pointer) (cap :size))
  ("lport_text_to_latin1" result (chars :pointer) (len :size) (octets :pointer) (cap :size))
  ("lport_text_to_ascii" result (chars :pointer) (len :size) (octets :pointer) (cap :size))
  ;; resolve
  ("lport_resolve_open" result (name :pointer) (len :size) (family :int32) (flags :int32))
  ("lport_resolve_reverse" result (address :pointer))
  ("lport_resolve_wait" result (query handle) (deadline :int64))
  ("lport_resolve_count" result (query handle))
  ("lport_resolve_address" result (query handle) (index :int32) (address :pointer))
  ("lport_resolve_name" result (query handle) (index :int32) (text :pointer) (cap :size))
  ("lport_resolve_close" result (query handle))
  ("lport_service_find" result (name :pointer) (name-len :size) (protocol :pointer)
                        (protocol-len :size) (text :pointer) (cap :size))
  ("lport_service_list" result (text :pointer) (cap :size))
  ;; dial
  ("lport_dial_open" result (name :pointer) (len :size) (port :int32) (family :int32)
                     (local :pointer) (flags :int32))
  ("lport_dial_open_addresses" result (addresses :pointer) (count :int32) (kind :int32)
                               (local :pointer) (flags :int32))
  ("lport_dial_step" result (dial handle))
  ("lport_dial_wait" result (dial handle) (deadline :int64))
  ("lport_dial_count" result (dial handle))
  ("lport_dial_attempt" result (dial handle) (index :int32) (address :pointer))
  ("lport_dial_close" result (dial handle)))

(defun library-version ()
  "The version of the C library in use, a string such as \"0.1.0\"."
  (lport-version))

;;; Constants: the numbers of the library that this file is compiled with. A library with other
;;; numbers has another ABI, and LOAD-LIBRARY refuses it.

(defmacro define-constants ()
  "Define +LPORT-X+ for every `constant LPORT_X n` of the manifest."
  `(progn
     ,@(loop for (kind name value) in (manifest-rows (lport-manifest))
             when (string= kind "constant")
               collect `(defconstant ,(intern (format nil "+~A+" (hyphenate name)) :port.ffi)
                          ,(parse-integer value)))))

(define-constants)
