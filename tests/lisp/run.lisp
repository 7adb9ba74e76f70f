;;;; run - load the system and its tests from the checkout around this file, run them, and end with 0 if
;;;; all is well. The last line says how many tests there were. PORT_TEST=part runs those named so.

(require :asdf)
(setf *compile-verbose* nil)

(let* ((here (or *load-truename* *default-pathname-defaults*))
       (definition (merge-pathnames "../../port.asd" here)))
  (asdf:load-asd (truename definition))
  (handler-bind ((warning #'muffle-warning))
    (let ((*standard-output* (make-broadcast-stream)))
      (asdf:load-system "fiveam")))
  (asdf:load-system "port/test"))

(uiop:quit (if (uiop:symbol-call :port/test :run-all) 0 1))
