;;;; run - load port and the benchmarks from the checkout around this file, run them, and end with
;;;; 0 if all went through. See main.lisp for what the environment can ask for.

(require :asdf)

(defun end-badly (&rest what)
  "Print WHAT, a line each, and end with 1."
  (format *error-output* "~&~{~A~%~}" what)
  (finish-output *error-output*)
  (uiop:quit 1))

(defun load-silently (system)
  "Load SYSTEM; what the compiler says is printed only if that fails."
  (let* ((said (make-string-output-stream))
         (failure (handler-case (let ((*standard-output* said) (*error-output* said))
                                  (asdf:load-system system)
                                  nil)
                    (error (condition) condition))))
    (when failure
      (end-badly (get-output-stream-string said) system failure))))

(push (truename (merge-pathnames "../../" (uiop:pathname-directory-pathname *load-truename*)))
      asdf:*central-registry*)
(load-silently "port/bench")
(handler-case (uiop:symbol-call :port/bench :main)
  (error (condition) (end-badly condition)))
