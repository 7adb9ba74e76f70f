;;;; examples - the programs of examples/, run as a user runs them.

(in-package :port/test)

(define-suite examples "The examples.")

(define-test examples.demo (:weather nil :limit 60) ; its files take a minute octet by octet
  (let* ((status nil)
         (output (with-output-to-string (*standard-output*)
                   (setf status (port-example/demo:run)))))
    (is (eql 0 status) "~A" output)
    (is (null (search "WRONG" output)))))
