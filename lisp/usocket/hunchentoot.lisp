;;;; hunchentoot - its limits of time on sockets of PORT, which it sets in the streams of each Lisp.

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
