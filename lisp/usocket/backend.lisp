;;;; backend - from here on USOCKET makes its sockets by PORT.
;;;;
;;;; Sockets that usocket made before stay what they are. What usocket defines for all backends, its
;;;; macros, byte orders and the servers of usocket-server, is usocket's own.

(in-package #:port/usocket)

(defun with-port-second (function)
  "FUNCTION, which has the port as a keyword, with the port as its second argument."
  (lambda (host port &rest options)
    (apply function host :port port options)))

(defun install (name function)
  (setf (fdefinition name) function))

(defun install-opener (name function)
  "Let NAME be FUNCTION. Since 0.8.6 usocket has restarts around a function with the port as a
keyword, which are left as they are."
  (let ((internal (find-symbol (format nil "~A-INTERNAL" name) '#:usocket)))
    (if (and internal (fboundp internal))
        (install internal function)
        (install name (with-port-second function)))))

(install 'usocket::handle-condition #'handle-condition)
(install 'usocket:get-hosts-by-name #'hosts-by-name)
(install 'usocket::get-host-by-address #'host-by-address)
(install 'usocket:wait-for-input #'wait-for-input)
(install-opener 'usocket:socket-connect #'connect)
(install-opener 'usocket:socket-listen #'listen-at)

(setf usocket:*backend* :port)
