;;;; run - what `make echo`, `make chat`, `make http`, `make socks` and `make demo` share.

(defpackage :port-example/run
  (:use :common-lisp)
  (:export #:loopback-hosts #:until-interrupted))

(in-package :port-example/run)

(defun loopback-hosts ()
  "The hosts under which this machine reaches itself: 127.0.0.1 and, unless it has no IPv6, ::1."
  (let ((own (mapcan (lambda (interface)
                       (mapcar #'princ-to-string (port:network-interface-addresses interface)))
                     (port:network-interfaces))))
    (remove-if-not (lambda (host) (member host own :test #'string=)) '("127.0.0.1" "::1"))))

(defun until-interrupted (server control &rest arguments)
  "Print how SERVER can be reached, CONTROL with ARGUMENTS, and let it serve until the user
interrupts this thread, or it is ended, or somebody else has stopped SERVER; then stop it."
  (format t "~&~?~%Ctrl-C ends it.~%" control arguments)
  (finish-output)
  (unwind-protect
       (handler-case (port:wait-for-server server)
         (#+sbcl sb-sys:interactive-interrupt #-sbcl serious-condition () nil))
    (port:stop-server server :drain 1)))
