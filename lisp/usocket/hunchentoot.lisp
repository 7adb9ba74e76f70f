;;;; hunchentoot - its limits of time on sockets of PORT, which it sets in the streams of each Lisp,
;;;; and the names of its clients over IPv6, which on other sockets it has none of.

(in-package #:port/usocket)

(defvar *set-timeouts-of-others* #'hunchentoot::set-timeouts
  "What hunchentoot does with a socket that is not PORT's.")

(defun set-timeouts (socket read-timeout write-timeout)
  "HUNCHENTOOT::SET-TIMEOUTS: seconds or NIL each, which need not be the same."
  (if (typep socket 'on-port)
      (setf (usocket:socket-option socket :receive-timeout) read-timeout
            (usocket:socket-option socket :send-timeout) write-timeout)
      (funcall *set-timeouts-of-others* socket read-timeout write-timeout)))

(install 'hunchentoot::set-timeouts #'set-timeouts)

(defun end-as-string (address port)
  (values (usocket:host-to-hostname address) port))

(defun get-peer-address-and-port (socket)
  (multiple-value-call #'end-as-string (usocket:get-peer-name socket)))

(defun get-local-address-and-port (socket)
  (multiple-value-call #'end-as-string (usocket:get-local-name socket)))

(install 'hunchentoot::get-peer-address-and-port #'get-peer-address-and-port)
(install 'hunchentoot::get-local-address-and-port #'get-local-address-and-port)
