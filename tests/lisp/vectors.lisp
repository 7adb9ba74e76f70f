;;;; vectors - the tables of tests/vectors, which the tests of C read too. See README.md there for
;;;; their form.

(in-package :port/test)

(define-suite vectors "The tables that both sides read.")

(defparameter *escapes*
  (list (cons #\t (code-char 9)) (cons #\n (code-char 10)) (cons #\r (code-char 13))
        (cons #\0 (code-char 0)) (cons #\\ #\\))
  "What may follow a backslash, and what it stands for.")

(defun unescaped (field)
  "FIELD with its escapes replaced."
  (with-output-to-string (out)
    (with-input-from-string (in field)
      (loop for char = (read-char in nil)
            while char
            do (write-char (if (char= char #\\) (escaped-char (read-char in nil) field) char)
                           out)))))

(defun escaped-char (char field)
  (or (cdr (assoc char *escapes*))
      (error "~S has a backslash before ~S." field char)))

(defun fields (line)
  "The fields of LINE, a list of strings."
  (mapcar #'unescaped (uiop:split-string line :separator '(#\Tab))))

(defun vectors (name)
  "The rows of tests/vectors/NAME.tsv, each a list of strings."
  (with-open-file (in (checkout-file (format nil "tests/vectors/~A.tsv" name))
                      :external-format uiop:*utf-8-external-format*)
    (loop for line = (read-line in nil)
          while line
          unless (or (string= line "") (char= (char line 0) #\#))
            collect (fields line))))

(define-test "vectors.form" ()
  "Fields, escapes and empty fields as README.md says."
  (is (equal '("a" "" "b ") (fields (format nil "a~C~Cb " #\Tab #\Tab))))
  (is (equal (list (format nil "8~C0" (code-char 0))) (fields "8\\00")))
  (is (equal (list (format nil "a~Cb\\n" (code-char 9))) (fields "a\\tb\\\\n")))
  (signals error (fields "\\x")))

(define-test "vectors.files" ()
  "Each table has rows, and each row at most 8 fields."
  (let ((files (uiop:directory-files (checkout-file "tests/vectors/") "*.tsv")))
    (is (<= 4 (length files)))
    (dolist (file files)
      (let ((rows (vectors (pathname-name file))))
        (is (plusp (length rows)) "~A is empty" file)
        (is (every (lambda (row) (<= 1 (length row) 8)) rows) "~A has a row too long" file)))))
