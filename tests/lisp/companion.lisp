;;;; companion - another Lisp with port in it that evaluates forms for a test: for what has to be in
;;;; a process of its own, or does not fit into one.

(in-package :port/test)

(defparameter *companion-forms*
  '("(defpackage :port/test (:use :common-lisp :port)
       (:shadowing-import-from :port #:stream-external-format))"
    "(in-package :port/test)"
    "(loop for form = (read *standard-input* nil :end)
           until (eq form :end)
           do (format t \"~S~%\" (eval form))
              (finish-output))")
  "What a companion evaluates once it has loaded port. Symbols are the same as in the tests.")

(defun start-companion (descriptors)
  "The process of a companion that may have DESCRIPTORS descriptors."
  (uiop:launch-program
   (append (list "sh" "-c" (format nil "ulimit -n ~D && exec \"$@\"" descriptors) "sh")
           (lisp-command (append (loading (here)) *companion-forms*)))
   :input :stream :output :stream :error-output nil))

(defun tell (companion form)
  "The value of FORM, which has to be one that can be read, in COMPANION."
  (let ((*package* (find-package :keyword)) (*print-pretty* nil)) ; every symbol with its package
    (format (uiop:process-info-input companion) "~S~%" form)
    (finish-output (uiop:process-info-input companion)))
  (read (uiop:process-info-output companion)))

(defun call-with-companion (function descriptors)
  (let ((companion (start-companion descriptors)))
    (unwind-protect
         (multiple-value-prog1 (funcall function companion)
           ;; Said, too: ECL closes its end of the input, and another one of it stays open.
           (format (uiop:process-info-input companion) "~S~%" :end)
           (close (uiop:process-info-input companion))
           (is (zerop (uiop:wait-process companion))))
      (when (uiop:process-alive-p companion)
        (uiop:terminate-process companion :urgent t))
      (uiop:wait-process companion)
      (uiop:close-streams companion))))

(defmacro with-companion ((companion &key descriptors) &body body)
  "Run BODY with COMPANION, a process that may have DESCRIPTORS descriptors; see TELL. It has to end
well after that."
  `(call-with-companion (lambda (,companion) ,@body) ,descriptors))

(defun descriptors-of (process)
  "What PROCESS has open, strings \"number target\"; as OPEN-DESCRIPTORS."
  (open-descriptors (format nil "/proc/~D/fd/" (uiop:process-info-pid process))))
