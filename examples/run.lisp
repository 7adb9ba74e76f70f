;;;; run - what `make echo`, `make chat` and `make http` share.

(defpackage :port-example/run
  (:use :common-lisp)
  (:export #:until-interrupted))

(in-package :port-example/run)

(defun until-interrupted (server control &rest arguments)
  "Print how SERVER can be reached, CONTROL with ARGUMENTS, and let it serve until the user
interrupts this thread, or it is ended; then stop it."
  (format t "~&~?~%Ctrl-C ends it.~%" control arguments)
  (finish-output)
  (unwind-protect
       (handler-case (loop (sleep 3600))
         (#+sbcl sb-sys:interactive-interrupt #-sbcl serious-condition () nil))
    (port:stop-server server :drain 1)))
