;;;; printing - text that is the same whatever the printer is told, and that fits on a line of a
;;;; log: what callers gave is printed with its control characters spelled out.

(in-package :port)

;;; Text that is the same whatever the printer is told

(defmacro with-plain-printer (() &body body)
  "Run BODY with the printer as it usually is, but for *PACKAGE* and for what it takes to escape."
  `(let ((*print-array* t) (*print-base* 10) (*print-case* :upcase) (*print-circle* nil)
         (*print-gensym* t) (*print-length* nil) (*print-level* nil) (*print-lines* nil)
         (*print-pretty* nil) (*print-radix* nil) (*print-readably* nil)
         (*read-default-float-format* 'single-float))
     ,@body))

(defmacro with-short-printer (() &body body)
  "As WITH-PLAIN-PRINTER, for a line: of what is long or deep there is the beginning."
  `(with-plain-printer ()
     (let ((*print-length* 20) (*print-level* 4))
       ,@body)))

(defun plain-text (object)
  "OBJECT as PRINC shows it."
  (with-plain-printer ()
    (if (stringp object) object (princ-to-string object))))

(defun plain-format (control &rest arguments)
  "The text that FORMAT makes of CONTROL and ARGUMENTS. Methods of PRINT-OBJECT write it as a whole:
a part that is printed for itself would be given a label where *PRINT-CIRCLE* is true."
  (with-plain-printer ()
    (apply #'format nil control arguments)))

(defun print-plainly (object stream text &key identity)
  "What a method of PRINT-OBJECT does: print OBJECT unreadably as its type and TEXT. What the
language has for that prints the type in lower case on some Lisps."
  (print-unreadable-object (object stream :identity identity)
    (write-string (plain-format (if *print-escape* "~S ~A" "~A ~A") (type-of object) text)
                  stream)))

(defun print-as-text (object stream text)
  "What a method of PRINT-OBJECT does for OBJECT that prints as TEXT, with and without escape."
  (if *print-readably*
      (error 'print-not-readable :object object)
      (write-string text stream)))

;;; Safe text

(defconstant +longest-report+ 2000 "Characters of a report; more are cut off.")

(defun harmless-p (char)
  "True if CHAR can stand in a line of a log as it is."
  (let ((code (char-code char)))
    (not (or (< code 32)
             (<= 127 code 159)
             (<= #x2028 code #x202E)    ; separators of lines, and what turns the direction
             (<= #x2066 code #x2069)
             (<= #xD800 code #xDFFF)))))

(defun write-harmless (char stream)
  (case char
    (#\Newline (write-string "\\n" stream))
    (#\Return (write-string "\\r" stream))
    (#\Tab (write-string "\\t" stream))
    (t (if (harmless-p char)
           (write-char char stream)
           (format stream "\\x~2,'0X" (char-code char))))))

(defun safe-line (text)
  "TEXT on one line and of bounded length."
  (let ((end (min (length text) +longest-report+)))
    (if (and (= end (length text)) (every #'harmless-p text))
        text
        (with-output-to-string (stream)
          (loop for index below end
                do (write-harmless (char text index) stream))
          (when (< end (length text)) (write-string "..." stream))))))
