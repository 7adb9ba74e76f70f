;;;; documents - the examples of README and guide, run chapter by chapter.

(in-package :port/test)

(define-suite documents "The documents.")

(defparameter *documents*
  `("README.md" "docs/guide.md" ,@(port-docs:chapters-of-guide) "docs/coming-from.md"
    "docs/other-languages.md")
  "The documents whose examples are run, in the order in which they are read.")

(defun call-with-own-names (function argument)
  "The value of FUNCTION, called with ARGUMENT; the names that examples choose at random are others
than those of a run beside this."
  (let ((*random-state* (make-random-state t)))
    (funcall function argument)))

(defun fitting-chapters (document)
  "The chapters of DOCUMENT that are not about another Lisp."
  (remove-if (lambda (chapter)
               (member (port-docs:chapter-title chapter) *unfit-chapters* :test #'string=))
             (port-docs:chapters document)))

(define-test "documents.examples" (:limit 120 :weather nil) ; what one call gives is shown
  "Each example does what the document says it does, and each chapter closes what it opens."
  (dolist (document *documents*)
    (is (not (null (port-docs:chapters document))) "~A has no examples" document)
    (dolist (chapter (fitting-chapters document))
      (call-checking-leaks
       (lambda ()
         (let ((problem (call-with-own-names #'port-docs:run-chapter chapter)))
           (is (null problem) "~A" problem)))))))

(define-test "documents.session" (:limit 120 :weather nil)
  "Who types all of them into one Lisp meets nothing of an earlier chapter in a later one."
  (let ((problem (call-with-own-names #'port-docs:run-session
                                      (mapcan #'fitting-chapters (copy-list *documents*)))))
    (is (null problem) "~A" problem)))

;;; The service that the guide builds, as the program of its own that it ends as

(defun definitions (document title)
  "The texts of the functions in the chapter TITLE of DOCUMENT, and of the table that they share."
  (let ((chapter (find title (port-docs:chapters document)
                       :key #'port-docs:chapter-title :test #'string=)))
    (remove-if-not (lambda (text)
                     (or (eql 0 (search "(defun " text)) (eql 0 (search "(defvar *notes*" text))))
                   (port-docs:forms chapter))))

(define-test "documents.service" (:limit 90)
  "Under the real systemd-socket-activate; SIGTERM lets the request that has begun be answered."
  (let* ((number (unused-port))
         (process (uiop:launch-program
                   (append (list "systemd-socket-activate" "-l" (format nil "127.0.0.1:~D" number))
                           (lisp-command (append (loading (here))
                                                 (definitions "docs/guide/services.md" "Services")
                                                 '("(main)"))))
                   :output nil :error-output nil)))
    (unwind-protect
         (with-open-stream (client (connect-patiently
                                    (lambda () (open-socket "127.0.0.1" number))))
           (setf (socket-timeout client :input) 60)
           (write-string "get " client)
           (finish-output client)
           (with-open-socket (other "127.0.0.1" number :input-timeout 60)
             (is (equal "noted" (ask other "set milk two bottles")))) ; by now both have begun
           (uiop:terminate-process process)
           (is-true (wait-until (lambda () (typep (failure-of (close (open-socket "127.0.0.1"
                                                                                  number)))
                                                  'connection-refused))
                                10))
           (is (equal "two bottles" (ask client "milk")))
           (is (null (read-line client nil)))
           (is (zerop (uiop:wait-process process))))
      (when (uiop:process-alive-p process)
        (uiop:terminate-process process :urgent t))
      (uiop:wait-process process)
      (uiop:close-streams process))))

(define-test "documents.complete" ()
  "Each exported name is documented and stands under a theme of lisp/package.lisp."
  (is (null (port-docs:undocumented))))

(define-test "documents.manual-introductions" ()
  "What the header says of a family, under its rule, is on its page."
  (loop with families = 0
        for (line nil first) on (port-docs::file-lines "csrc/libport.h")
        when (and (port-docs::rule-p line) (not (search "*/" line)))
          do (let* ((family (port-docs::family-of-rule line))
                    (page (format nil "docs/man/~A.3" (port-docs::page-name family))))
               (incf families)
               (is (member (port-docs::roff-text (subseq first 3)) (port-docs::file-lines page)
                           :test #'string=)
                   "~A does not say ~S" page first))
        finally (is (plusp families))))
