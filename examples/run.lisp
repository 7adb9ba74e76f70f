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

;;; SBCL ends the process on SIGTERM in whichever thread the signal happens to meet. A second one,
;;; such as `timeout' sends to the group beside that to its child, may meet another thread: that one
;;; waits in SB-EXT:EXIT for the first to be through, and the first waits for it, for a minute, and
;;; for ever where it is the thread of the finalizers. So it is the main thread that ends the
;;; process, and once.

#+sbcl
(defvar *ending* nil
  "True once the main thread has begun to end the process.")

#+sbcl
(defun end-once ()
  "To be called by the main thread alone."
  (unless (shiftf *ending* t)
    (sb-ext:exit)))

#+sbcl
(defun note-termination (signal info context)
  "Let the main thread end the process, whichever has met the SIGTERM."
  (declare (ignore signal info context))
  (sb-thread:interrupt-thread (sb-thread:main-thread) #'end-once))

(defun until-interrupted (server control &rest arguments)
  "Print how SERVER can be reached, CONTROL with ARGUMENTS, and let it serve until the user
interrupts this thread, or SIGTERM ends the process, or somebody else has stopped SERVER; then stop
it."
  #+sbcl (sb-sys:enable-interrupt sb-unix:sigterm #'note-termination)
  (format t "~&~?~%Ctrl-C ends it.~%" control arguments)
  (finish-output)
  (unwind-protect
       (handler-case (port:wait-for-server server)
         (#+sbcl sb-sys:interactive-interrupt #-sbcl serious-condition () nil))
    (port:stop-server server :drain 1)))
