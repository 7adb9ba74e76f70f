;;;; documents - the examples of README and guide, run chapter by chapter.

(in-package :port/test)

(define-suite documents "The documents.")

(defparameter *documents* '("README.md" "docs/guide.md" "docs/coming-from.md")
  "The documents whose examples are run, if they are there.")

(define-test "documents.examples" (:limit 120 :weather nil)
  "Each example does what the document says it does, and each chapter closes what it opens."
  (dolist (document *documents*)
    (let ((chapters (port-docs:chapters document)))
      (is (not (null chapters)) "~A has no examples" document)
      (dolist (chapter chapters)
        (call-checking-leaks
         (lambda ()
           (let ((problem (port-docs:run-chapter chapter)))
             (is (null problem) "~A" problem))))))))

(define-test "documents.complete" ()
  "Each exported name is documented and stands under a theme of lisp/package.lisp."
  (is (null (port-docs:undocumented))))
