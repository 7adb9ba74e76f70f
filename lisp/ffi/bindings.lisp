;;;; bindings - every function of libport.h, in its order; see there for what they do.
;;;;
;;;; Sockets, waits, queries, dials and results are 64-bit integers; octets and characters are
;;;; passed as pointers made by WITH-OCTETS and WITH-CHARACTERS. Each row has the tag of the header:
;;;; what is :NOWAIT is called with interrupts deferred, so that no unwind ever passes through it;
;;;; whoever has to keep what it returned makes the call inside a CALL-DEFERRED of his own. What is
;;;; called for every piece and message has a name with a % too, of the bare function, for there.

(in-package :port.ffi)

;;; Shorthand for the types of the manifest.
(cffi:defctype handle :int64)
(cffi:defctype result :int64)

(eval-when (:compile-toplevel :load-toplevel :execute)
  (defun binding (row)
    "The forms that bind ROW, (\"c_name\" tag result-type (parameter type)...)."
    (destructuring-bind (c-name tag result . parameters) row
      (let ((name (lisp-name c-name))
            (names (mapcar #'first parameters)))
        (ecase tag
          (:nowait (let ((raw (intern (concatenate 'string "%" (symbol-name name)) :port.ffi)))
                     `((declaim (inline ,raw ,name))
                       (%define-foreign (,c-name ,raw) ,result ,@parameters)
                       (defun ,name ,names
                         (call-nowait (,raw ,@names))))))
          (:waits `((declaim (inline ,name))
                    (%define-waiting (,c-name ,name) ,result ,@parameters)))
          (:pure `((declaim (inline ,name))
                   (%define-foreign (,c-name ,name) ,result ,@parameters))))))))

(defmacro define-functions (&body rows)
  "Bind the functions of ROWS under their names of C with hyphens. The library is loaded here, as it
has to have them."
  `(progn
     (eval-when (:compile-toplevel :load-toplevel :execute)
       (setf *function-names* ',(mapcar #'first rows))
       (load-library :build t))
     ,@(mapcan #'binding rows)))

(define-functions
  ;; abi
  ("lport_version" :pure :string)
  ("lport_abi" :pure :int32)
  ("lport_manifest" :pure :string)
  ;; status
  ("lport_status_make" :pure result (kind :int32))
  ("lport_status_kind" :pure :int32 (status result))
  ("lport_status_errno" :pure :int32 (status result))
  ("lport_status_option" :pure :int32 (status result))
  ("lport_status_own" :pure :int32 (status result))
  ("lport_status_text" :pure result (status result) (text :pointer) (cap :size))
  ("lport_kind_name" :pure :string (kind :int32))
  ("lport_kind_condition" :pure :string (kind :int32))
  ;; clock
  ("lport_clock_now" :pure :int64)
  ("lport_clock_after" :pure :int64 (ns :int64))
  ;; fence
  ("lport_fence_prepare" :nowait result)
  ("lport_fence" :nowait result)
  ;; address
  ("lport_address_parse" :nowait result (text :pointer) (len :size) (port :int32)
                         (address :pointer))
  ("lport_address_is_literal" :pure result (text :pointer) (len :size))
  ("lport_address_print" :nowait result (address :pointer) (text :pointer) (cap :size))
  ("lport_port_parse" :pure result (text :pointer) (len :size))
  ("lport_address_local" :pure result (name :pointer) (len :size) (address :pointer))
  ("lport_address_equal" :pure result (a :pointer) (b :pointer))
  ;; proxy
  ("lport_proxy_parse" :pure result (octets :pointer) (len :size) (source :pointer)
                       (destination :pointer))
  ("lport_proxy_print" :nowait result (version :int32) (source :pointer) (destination :pointer)
                       (octets :pointer) (cap :size))
  ;; interface
  ("lport_interface_list" :nowait result (text :pointer) (cap :size))
  ("lport_interface_index" :nowait result (name :pointer) (len :size))
  ("lport_interface_name" :nowait result (index :int32) (text :pointer) (cap :size))
  ("lport_host_name" :nowait result (text :pointer) (cap :size))
  ;; handle
  ("lport_socket_close" :nowait result (socket handle) (flags :int32))
  ("lport_socket_gone" :waits result (socket handle) (deadline :int64))
  ("lport_socket_descriptor" :nowait result (socket handle))
  ("lport_socket_state" :nowait result (socket handle))
  ("lport_socket_count" :nowait result)
  ("lport_wait_count" :nowait result)
  ;; wait
  ("lport_wait_begin" :nowait result (socket handle) (interest :int32))
  ("lport_wait_poll" :waits result (wait handle) (deadline :int64) (interruptible :int32))
  ("lport_wait_poll2" :waits result (first handle) (second handle) (deadline :int64)
                      (interruptible :int32))
  ("lport_wait_end" :nowait result (wait handle))
  ("lport_wait_wake" :nowait result (socket handle) (interest :int32))
  ;; socket
  ("lport_socket_listen" :nowait result (address :pointer) (backlog :int32) (flags :int32)
                         (settings :pointer) (count :int32))
  ("lport_socket_accept" :nowait result (listener handle) (peer :pointer))
  ("lport_socket_pair" :nowait result (kind :int32) (pair :pointer))
  ("lport_socket_shutdown" :nowait result (socket handle) (direction :int32))
  ("lport_socket_name" :nowait result (socket handle) (address :pointer))
  ("lport_socket_peer" :nowait result (socket handle) (address :pointer))
  ;; datagram
  ("lport_datagram_open" :nowait result (local :pointer) (remote :pointer) (flags :int32)
                         (settings :pointer) (count :int32))
  ("lport_datagram_send" :nowait result (socket handle) (octets :pointer) (len :size)
                         (address :pointer))
  ("lport_datagram_undelivered" :nowait result (socket handle) (address :pointer))
  ("lport_datagram_receive" :nowait result (socket handle) (octets :pointer) (len :size)
                            (sender :pointer) (flags :int32))
  ("lport_datagram_send_batch" :nowait result (socket handle) (octets :pointer) (room :size)
                               (lengths :pointer) (addresses :pointer) (count :int32))
  ("lport_datagram_receive_batch" :nowait result (socket handle) (octets :pointer) (room :size)
                                  (lengths :pointer) (senders :pointer) (count :int32))
  ("lport_datagram_send_from" :nowait result (socket handle) (octets :pointer) (len :size)
   (address :pointer) (own :pointer))
  ("lport_datagram_receive_at" :nowait result (socket handle) (octets :pointer) (len :size)
   (sender :pointer) (own :pointer) (flags :int32))
  ("lport_datagram_send_batch_from" :nowait result (socket handle) (octets :pointer) (room :size)
   (lengths :pointer) (addresses :pointer) (owns :pointer) (count :int32))
  ("lport_datagram_receive_batch_at" :nowait result (socket handle) (octets :pointer) (room :size)
   (lengths :pointer) (senders :pointer) (owns :pointer) (count :int32))
  ("lport_datagram_join" :nowait result (socket handle) (group :pointer) (interface :int32)
                         (source :pointer))
  ("lport_datagram_leave" :nowait result (socket handle) (group :pointer) (interface :int32)
                          (source :pointer))
  ;; local
  ("lport_local_listen" :nowait result (address :pointer) (kind :int32) (backlog :int32)
                        (mode :int32) (flags :int32) (settings :pointer) (count :int32))
  ("lport_local_credentials" :nowait result (socket handle) (identity :pointer))
  ("lport_local_send" :nowait result (socket handle) (octets :pointer) (len :size)
                      (descriptors :pointer) (count :int32))
  ("lport_local_receive" :nowait result (socket handle) (octets :pointer) (len :size)
                         (descriptors :pointer) (max :int32))
  ("lport_local_receive_from" :nowait result (socket handle) (octets :pointer) (len :size)
                              (sender :pointer) (identity :pointer))
  ;; option
  ("lport_option_name" :pure :string (index :int32))
  ("lport_option_kind" :pure :string (index :int32))
  ("lport_option_unit" :pure :string (index :int32))
  ("lport_option_sockets" :pure :string (index :int32))
  ("lport_option_note" :pure :string (index :int32))
  ("lport_option_choice" :pure :string (index :int32) (choice :int32))
  ("lport_option_access" :pure result (index :int32))
  ("lport_option_get" :nowait result (socket handle) (index :int32))
  ("lport_option_set" :nowait result (socket handle) (index :int32) (value :int64))
  ("lport_option_get_text" :nowait result (socket handle) (index :int32) (text :pointer)
                           (cap :size))
  ("lport_option_set_text" :nowait result (socket handle) (index :int32) (text :pointer)
                           (len :size))
  ;; info
  ("lport_info_name" :pure :string (index :int32))
  ("lport_info_kind" :pure :string (index :int32))
  ("lport_info_note" :pure :string (index :int32))
  ("lport_info_state" :pure :string (state :int64))
  ("lport_info_read" :nowait result (socket handle) (values :pointer) (count :int32))
  ;; adopt
  ("lport_descriptor_inspect" :nowait result (fd :int32))
  ("lport_descriptor_adopt" :nowait result (fd :int32))
  ("lport_socket_detach" :nowait result (socket handle))
  ("lport_socket_detach_end" :nowait result (socket handle) (keep :int32))
  ("lport_activation_count" :nowait result)
  ("lport_activation_name" :nowait result (index :int32) (text :pointer) (cap :size))
  ("lport_activation_forget" :nowait result)
  ;; transfer
  ("lport_socket_receive" :nowait result (socket handle) (octets :pointer) (len :size)
                          (flags :int32))
  ("lport_socket_send" :nowait result (socket handle) (octets :pointer) (len :size))
  ("lport_socket_send2" :nowait result (socket handle) (a :pointer) (a-len :size) (b :pointer)
                        (b-len :size))
  ("lport_socket_send_file" :nowait result (socket handle) (file :int32) (offset :int64)
                            (len :size))
  ("lport_socket_buffered" :nowait result (socket handle))
  ("lport_socket_failure" :nowait result (socket handle))
  ;; poller
  ("lport_poller_open" :nowait result (backend :int32))
  ("lport_poller_add" :nowait result (poller handle) (socket handle) (interest :int32))
  ("lport_poller_modify" :nowait result (poller handle) (socket handle) (interest :int32))
  ("lport_poller_claim" :nowait result (poller handle) (socket handle))
  ("lport_poller_remove" :nowait result (poller handle) (socket handle))
  ("lport_poller_begin" :nowait result (poller handle))
  ("lport_poller_wait" :waits result (poller handle) (turn handle) (events :pointer) (cap :int32)
                       (deadline :int64) (interruptible :int32))
  ("lport_poller_end" :nowait result (poller handle) (turn handle))
  ("lport_poller_wake" :nowait result (poller handle))
  ;; text
  ("lport_text_find_line" :pure result (octets :pointer) (len :size))
  ("lport_text_last_line" :pure result (octets :pointer) (len :size))
  ("lport_text_measure_line" :pure result (octets :pointer) (len :size))
  ("lport_text_from_utf8" :pure result (octets :pointer) (len :size) (chars :pointer) (cap :size))
  ("lport_text_from_latin1" :pure result (octets :pointer) (len :size) (chars :pointer) (cap :size))
  ("lport_text_from_ascii" :pure result (octets :pointer) (len :size) (chars :pointer) (cap :size))
  ("lport_text_from_ascii8" :pure result (octets :pointer) (len :size) (chars :pointer) (cap :size))
  ("lport_text_utf8_problem" :pure result (octets :pointer) (len :size))
  ("lport_text_utf8_count" :pure result (octets :pointer) (len :size))
  ("lport_text_to_utf8" :pure result (chars :pointer) (len :size) (octets :pointer) (cap :size))
  ("lport_text_to_latin1" :pure result (chars :pointer) (len :size) (octets :pointer) (cap :size))
  ("lport_text_to_ascii" :pure result (chars :pointer) (len :size) (octets :pointer) (cap :size))
  ;; resolve
  ("lport_resolve_open" :nowait result (name :pointer) (len :size) (family :int32) (flags :int32))
  ("lport_resolve_reverse" :nowait result (address :pointer))
  ("lport_resolve_wait" :waits result (query handle) (deadline :int64))
  ("lport_resolve_count" :nowait result (query handle))
  ("lport_resolve_address" :nowait result (query handle) (index :int32) (address :pointer))
  ("lport_resolve_name" :nowait result (query handle) (index :int32) (text :pointer) (cap :size))
  ("lport_resolve_close" :nowait result (query handle))
  ("lport_service_find" :nowait result (name :pointer) (name-len :size) (protocol :pointer)
                        (protocol-len :size) (text :pointer) (cap :size))
  ("lport_service_list" :nowait result (text :pointer) (cap :size))
  ;; dial
  ("lport_dial_open" :nowait result (name :pointer) (len :size) (port :int32) (family :int32)
                     (local :pointer) (flags :int32))
  ("lport_dial_open_addresses" :nowait result (addresses :pointer) (count :int32) (kind :int32)
                               (local :pointer) (flags :int32))
  ("lport_dial_set" :nowait result (dial handle) (settings :pointer) (count :int32))
  ("lport_dial_step" :nowait result (dial handle))
  ("lport_dial_wait" :waits result (dial handle) (deadline :int64))
  ("lport_dial_watch" :nowait result (dial handle) (deadline :int64))
  ("lport_dial_count" :nowait result (dial handle))
  ("lport_dial_attempt" :nowait result (dial handle) (index :int32) (address :pointer))
  ("lport_dial_attempt_own" :nowait result (dial handle) (index :int32) (local :pointer))
  ("lport_dial_close" :nowait result (dial handle))
  ;; tls
  ("lport_tls_context_open" :nowait result)
  ("lport_tls_context_close" :nowait result (context handle))
  ("lport_tls_context_trust" :nowait result (context handle) (source :int32) (path :pointer)
                             (len :size))
  ("lport_tls_context_revoked" :nowait result (context handle) (path :pointer) (len :size))
  ("lport_tls_context_identity" :nowait result (context handle) (chain :pointer) (chain-len :size)
                                (key :pointer) (key-len :size) (passphrase :pointer)
                                (passphrase-len :size))
  ("lport_tls_context_verify" :nowait result (context handle) (mode :int32))
  ("lport_tls_context_resume" :nowait result (context handle) (on :int32))
  ("lport_tls_context_versions" :nowait result (context handle) (lowest :int32) (highest :int32))
  ("lport_tls_context_protocols" :nowait result (context handle) (names :pointer) (len :size))
  ("lport_tls_context_offer" :nowait result (context handle) (other handle))
  ("lport_tls_context_replace" :nowait result (context handle) (by handle))
  ("lport_tls_context_problem" :nowait result (context handle) (text :pointer) (cap :size))
  ("lport_tls_start" :nowait result (socket handle) (context handle) (side :int32) (name :pointer)
                     (len :size) (early :pointer) (early-len :size))
  ("lport_tls_step" :nowait result (socket handle))
  ("lport_tls_text" :nowait result (socket handle) (what :int32) (text :pointer) (cap :size)))

(defun library-version ()
  "The version of the C library in use, a string such as \"0.1.0\"."
  (lport-version))

;;; Constants: the numbers of the library that this file is compiled with. A library with other
;;; numbers has another ABI, and LOAD-LIBRARY refuses it.

(defmacro define-constants ()
  "Define +LPORT-X+ for every `constant LPORT_X n` of the manifest."
  `(progn
     ;; The bindings above need not be there yet while this file is compiled.
     ,@(loop for (kind name value) in (manifest-rows (cffi:foreign-funcall "lport_manifest"
                                                                           :string))
             when (string= kind "constant")
               collect `(defconstant ,(intern (format nil "+~A+" (hyphenate name)) :port.ffi)
                          ,(parse-integer value)))))

(define-constants)
