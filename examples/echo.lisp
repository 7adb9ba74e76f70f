;;;; echo - sends back whatever it gets, RFC 862: the smallest service. A connection that says
;;;; nothing has no thread.

(defpackage :port-example/echo
  (:documentation "A server that echoes.")
  (:use :common-lisp)
  (:export #:start #:run))

(in-package :port-example/echo)

(defun echo (socket)
  "Send back what has come; be called again when there is more."
  (let* ((octets (make-array 4096 :element-type '(unsigned-byte 8)))
         (count (port:read-some socket octets)))
    (when (plusp count)
      (port:write-octets socket octets :end count)
      :again)))

(defun start (port &rest options &key &allow-other-keys)
  "Serve on PORT and return the server, for PORT:STOP-SERVER. OPTIONS as for PORT:SERVE."
  (apply #'port:serve #'echo port (append options (list :name "echo" :await-input t))))

(defun run (&key (port 7007))
  "Serve on PORT of this machine until the user interrupts."
  (port-example/run:until-interrupted (start port :host (port-example/run:loopback-hosts))
                                      "socat - TCP:localhost:~D" port))
