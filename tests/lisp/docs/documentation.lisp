;;;; documentation - each exported name is something, is documented, and occurs in a test.

(in-package :port/test)

(define-suite documentation "The package as a whole.")

(defparameter *restart-names* '(retry wait-longer replace-character)
  "Exported names of restarts: the language has no place for their documentation.")

(defun exported ()
  "The symbols that PORT exports, in alphabetical order."
  (let ((symbols '()))
    (do-external-symbols (symbol :port (sort symbols #'string<))
      (push symbol symbols))))

(defun places (symbol)
  "What SYMBOL names, as arguments for DOCUMENTATION: a list of (name type)."
  (append (when (fboundp symbol) `((,symbol function)))
          (when (fboundp `(setf ,symbol)) `(((setf ,symbol) function)))
          (when (boundp symbol) `((,symbol variable)))
          (when (or (find-class symbol nil) (sb-ext:valid-type-specifier-p symbol))
            `((,symbol type)))))

(defun documented-p (symbol)
  "True if everything that SYMBOL names has a docstring. A SETF function may share that of its
reader."
  (loop for (name type) in (places symbol)
        always (or (documentation name type)
                   (and (consp name) (documentation symbol type)))))

(define-test "documentation.names" ()
  "Each exported symbol names something, or is a restart."
  (dolist (symbol (exported))
    (is (or (places symbol) (member symbol *restart-names*)) "~A names nothing" symbol)))

(define-test "documentation.docstrings" ()
  "Each exported name has a docstring of lines that fit."
  (dolist (symbol (exported))
    (is (documented-p symbol) "~A has no docstring" symbol)
    (loop for (name type) in (places symbol)
          for text = (documentation name type)
          when text
            do (is (every (lambda (line) (<= (length line) 100)) (lines text))
                   "a line of the docstring of ~A is too long" name)
               (is (upper-case-p (char text 0)) "the docstring of ~A begins ~S" name
                   (subseq text 0 (min 10 (length text)))))))

(defun lines (text)
  (uiop:split-string text :separator '(#\Newline)))

;;; Tested

(defun constituent-p (char)
  (or (alphanumericp char) (find char "-/*+%")))

(defun words-in (text)
  "The names in TEXT, in upper case, as keys of a table."
  (let ((table (make-hash-table :test 'equal)))
    (loop for start = (position-if #'constituent-p text)
            then (position-if #'constituent-p text :start end)
          for end = (and start
                         (or (position-if-not #'constituent-p text :start start) (length text)))
          while start
          do (setf (gethash (string-upcase (subseq text start end)) table) t))
    table))

(defun text-of-tests ()
  "The text of all tests but this file."
  (format nil "~{~A~%~}"
          (loop for file in (directory (merge-pathnames "**/*.lisp" (checkout-file "tests/lisp/")))
                unless (equal (pathname-name file) "documentation")
                  collect (uiop:read-file-string file))))

(define-test "documentation.tested" ()
  "Each exported name occurs in a test."
  (let ((words (words-in (text-of-tests))))
    (flet ((tested-p (symbol)
             (gethash (symbol-name symbol) words)))
      (let ((untested (remove-if #'tested-p (exported))))
        (is (null untested) "in no test:~{ ~A~}" untested)))))
