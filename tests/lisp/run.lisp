;;;; run - load the system and its tests from the checkout around this file, run them, and end with
;;;; 0 if all is well. The last line says how many tests there were. PORT_TEST=part runs those named
;;;; so; PORT_TEST_HALF=0 or 1 every second one; with `none' there it only compiles, see halves.

(require #-clisp :asdf #+clisp "asdf")

(defun load-silently (system)
  "Load SYSTEM; what the compiler says is printed only if that fails, and then the process ends."
  (let ((said (make-string-output-stream)))
    (handler-case (let ((*standard-output* said) (*error-output* said))
                    (asdf:load-system system))
      (error (condition)
        (format *error-output* "~A~%~A: ~A~%" (get-output-stream-string said) system condition)
        (finish-output *error-output*)
        (uiop:quit 1)))))

;; Other people's systems may warn, ours not.
(mapc #'load-silently '("cffi" "babel" "fiveam" "usocket" #+sbcl "hunchentoot" #+sbcl "drakma"))
;; CLISP warns of matters of style, and of the order of clauses in LOOP.
(setf uiop:*compile-file-warnings-behaviour* #-clisp :error #+clisp :ignore
      uiop:*compile-file-failure-behaviour* #-clisp :error #+clisp :ignore)
(push (truename (merge-pathnames "../../" (uiop:pathname-directory-pathname *load-truename*)))
      asdf:*central-registry*)
(load-silently "port/test")

(uiop:quit (if (or (equal (uiop:getenv "PORT_TEST_HALF") "none")
                   (uiop:symbol-call :port/test :run-all))
               0
               1))
