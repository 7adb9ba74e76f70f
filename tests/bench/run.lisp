;;;; run - load port and the benchmarks from the checkout around this file, run them, and end with 0 if
;;;; all went through. See main.lisp for what the environment can ask for.

(require :asdf)
(require :sb-bsd-sockets)

(asdf:load-asd (truename (merge-pathnames "../../port.asd" *load-truename*)))

(asdf:defsystem "port-bench"
  :depends-on ("port" "usocket")
  :pathname #.(directory-namestring (or *load-truename* *compile-file-truename*))
  :serial t
  :components ((:file "package")
               (:file "machine")
               (:file "servers")
               (:file "peers")
               (:file "peer-port")
               (:file "peer-sbcl")
               (:file "peer-usocket")
               (:file "peer-programs")
               (:file "workloads")
               (:file "measure")
               (:file "report")
               (:file "main")))

(let ((said (make-string-output-stream)))
  (handler-case (let ((*standard-output* said) (*error-output* said))
                  (asdf:load-system "port-bench"))
    (error (condition)
      (format *error-output* "~A~%~A~%" (get-output-stream-string said) condition)
      (uiop:quit 1))))

(handler-case (uiop:symbol-call :port/bench :main)
  (error (condition)
    (format *error-output* "bench: ~A~%" condition)
    (uiop:quit 1)))
(uiop:quit 0)
