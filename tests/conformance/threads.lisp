;;;; threads - the few words about threads that the checks need.

(in-package :port/conformance)

(defun spawn (function)
  "Start a thread that calls FUNCTION; see JOIN."
  (sb-thread:make-thread
   (lambda ()
     (handler-case (list nil (funcall function))
       (error (condition) (list condition nil))))
   :name "conformance"))

(defun join (thread &optional seconds)
  "Values: what THREAD returned; the error that ended it, :HANGS if it has not ended after SECONDS."
  (let ((outcome (sb-thread:join-thread thread :default :none :timeout seconds)))
    (if (eq outcome :none)
        (values nil :hangs)
        (values (second outcome) (first outcome)))))

(defun seconds-now ()
  (/ (get-internal-real-time) internal-time-units-per-second))
