;;;; package - the tools that run the examples of the documents and write the reference, the manual
;;;; pages and the pictures. They stand on package PORT and on the files of the checkout, and
;;;; nothing in PORT stands on them.

(defpackage :port-docs
  (:documentation "Runs the examples in the documents; writes what is generated under docs/.")
  (:use :common-lisp)
  (:export #:chapters #:chapter-title #:forms #:run-chapter #:run-session #:chapters-of-guide
           #:undocumented #:stale-files #:write-files #:check))

(in-package :port-docs)

(defun checkout-file (name)
  "The file NAME of the checkout, a pathname."
  (asdf:system-relative-pathname "port" name))

(defun file-lines (name)
  "The lines of the file NAME of the checkout."
  (uiop:read-file-lines (checkout-file name) :external-format uiop:*utf-8-external-format*))

(defun prefix-p (prefix text)
  (let ((end (mismatch prefix text)))
    (or (null end) (= end (length prefix)))))

(defun after-prefix (prefix text)
  "What follows PREFIX in TEXT, without blanks on the right; NIL if TEXT does not begin with it."
  (when (prefix-p prefix text)
    (string-right-trim " " (subseq text (length prefix)))))

(defun join-lines (lines)
  (format nil "~{~A~^~%~}" lines))

(defun blank-p (line)
  (every (lambda (char) (char= char #\Space)) line))
