;;;; manual - pages of section 3 for the families of C functions and libport(7), from
;;;; csrc/libport.h, in the macros of man(7).

(in-package :port-docs)

(defun manual-source ()
  "What stands at the foot of each page."
  (format nil "libport ~A" (asdf:component-version (asdf:find-system "port"))))

;;; Text

(defun roff-text (text)
  "TEXT with what groff would take for itself escaped."
  (with-output-to-string (out)
    (loop for char across text
          for start-p = t then (char= previous #\Newline)
          for previous = char
          do (case char
               (#\\ (write-string "\\e" out))
               (#\- (write-string "\\-" out))
               (#\` (write-string "\\(ga" out))
               (#\~ (write-string "\\(ti" out))
               (#\^ (write-string "\\(ha" out))
               ((#\. #\')
                (when start-p (write-string "\\&" out))
                (write-char char out))
               (t (write-char char out))))))

(defconstant +row-indent+ 9 "Blanks in front of the rows of a list in a comment.")

(defun row-p (line)
  "True if LINE begins a row of a list."
  (or (prefix-p "- " line)
      (eql +row-indent+ (position #\Space line :test #'char/=))))

(defun write-filled (text out)
  "Write TEXT for filling; a row of a list begins a line."
  (dolist (line (uiop:split-string text :separator '(#\Newline)))
    (when (row-p line)
      (format out ".br~%"))
    (unless (blank-p line)
      (format out "~A~%" (roff-text (string-left-trim " " line))))))

(defun run-in-end (paragraph)
  "Where the words end that PARAGRAPH begins with as a heading, before two spaces; or NIL."
  (let ((end (search "  " paragraph)) (line (position #\Newline paragraph)))
    (and end (< 0 end (or line (length paragraph))) end)))

(defun write-paragraph (paragraph out)
  (let ((end (run-in-end paragraph)))
    (format out ".PP~%")
    (when end
      (format out ".B \"~A\"~%" (roff-text (subseq paragraph 0 end))))
    (write-filled (if end (string-left-trim " " (subseq paragraph end)) paragraph) out)))

(defun write-head (name section what out)
  (format out ".\\\" Made from csrc/libport.h by `make docs`: do not edit.~%~
.TH ~:@(~A~) ~A \"\" \"~A\" \"~A\"~%.SH NAME~%"
          name section (manual-source) what))

;;; A family

(defun page-name (family)
  (format nil "lport_~A" (family-name family)))

(defun family-purpose (family)
  (if (string= (family-title family) "")
      (format nil "the ~A of libport" (family-name family))
      (family-title family)))

(defun break-declaration (declaration)
  "Values: the part of DECLARATION before its parameters, and the parameters, a list."
  (let ((open (position #\( declaration)))
    (values (subseq declaration 0 (1+ open))
            (mapcar (lambda (text) (string-trim " " text))
                    (uiop:split-string (subseq declaration (1+ open)
                                               (position #\) declaration :from-end t))
                                       :separator ",")))))

(defun declaration-lines (declaration)
  "DECLARATION as lines of at most 76 characters."
  (multiple-value-bind (head parameters) (break-declaration declaration)
    (let ((lines '()) (line head))
      (loop for (parameter . more) on parameters
            for piece = (format nil "~A~:[);~;,~]" parameter more)
            do (when (and (> (+ (length line) 1 (length piece)) 76)
                          (string/= line head))
                 (push line lines)
                 (setf line "      "))
               (setf line (format nil (if (string= line head) "~A~A" "~A ~A") line piece)))
      (reverse (cons line lines)))))

(defun write-declaration (declaration out)
  (format out "~{~A~%~}" (mapcar #'roff-text (declaration-lines declaration))))

(defun tag-text (comment)
  "Values: the tag that COMMENT begins with; what follows it."
  (let ((end (1+ (tag-end comment))))
    (values (subseq comment 0 end) (string-left-trim " " (subseq comment end)))))

(defun write-functions (names comment out)
  "Write the entry of the functions NAMES, which share COMMENT."
  (multiple-value-bind (tag text) (tag-text comment)
    (format out ".TP~%.BR ~{~A~^ \", \" ~} \" ~A\"~%"
            (mapcar (lambda (name) (format nil "~A ()" (roff-text name))) names)
            (roff-text tag))
    (write-filled text out)))

(defun grouped-functions (functions)
  "FUNCTIONS, items, grouped by the comment that they share: a list of (comment . names)."
  (let ((groups '()))
    (loop for (nil name nil comment) in functions
          do (if (and groups (eq comment (car (first groups))))
                 (push name (cdr (first groups)))
                 (push (list comment name) groups)))
    (loop for (comment . names) in (reverse groups)
          do (unless comment
               (error "csrc/libport.h: ~A has no comment with a tag." (first names)))
          collect (cons comment (reverse names)))))

(defun write-constants (lines out)
  (format out ".PP~%.nf~%~{~A~%~}.fi~%"
          (mapcar (lambda (line) (roff-text (string-trim " " line))) lines)))

(defun write-notes (family out)
  (loop for (kind content) in (family-items family)
        do (case kind
             (:note (dolist (paragraph (paragraphs-of content))
                      (write-paragraph paragraph out)))
             (:constants (write-constants content out)))))

(defun see-also (names)
  (format nil "~{.BR ~A~^ ,~%~}~%"
          (loop for (name section) in names
                collect (format nil "~A (~A)" (roff-text name) section))))

(defun family-page (family)
  "The manual page of FAMILY."
  (let ((functions (functions-of family)))
    (with-output-to-string (out)
      (write-head (page-name family) 3 "Functions of libport" out)
      (format out "~{~A~^, ~} \\- ~A~%.SH SYNOPSIS~%.nf~%.B #include <libport.h>~%.PP~%"
              (mapcar (lambda (item) (roff-text (second item))) functions)
              (roff-text (family-purpose family)))
      (dolist (item functions)
        (write-declaration (third item) out))
      (format out ".fi~%.PP~%Compile and link with \\fBpkg\\-config \\-\\-cflags \\-\\-libs ~
libport\\fR.~%.SH DESCRIPTION~%")
      (write-notes family out)
      (loop for (comment . names) in (grouped-functions functions)
            do (write-functions names comment out))
      (format out ".SH SEE ALSO~%~A" (see-also '(("libport" 7)))))))

;;; libport(7)

(defun overview-page (families)
  "libport(7): the introduction of the header, its constants, and the list of the other pages."
  (destructuring-bind (title . paragraphs) (header-introduction)
    (with-output-to-string (out)
      (write-head "libport" 7 "Conventions of libport" out)
      (format out "libport \\- ~A~%.SH DESCRIPTION~%"
              (roff-text (subseq title (+ 3 (search " - " title)))))
      (dolist (paragraph paragraphs)
        (if (prefix-p "CONVENTIONS" paragraph)
            (format out ".SH CONVENTIONS~%")
            (write-paragraph paragraph out)))
      (format out ".SH PAGES~%")
      (dolist (family families)
        (format out ".TP~%.BR ~A (3)~%~A~%" (roff-text (page-name family))
                (roff-text (family-purpose family))))
      (format out ".SH CONSTANTS~%")
      (dolist (family (header-families))
        (unless (functions-of family)
          (write-notes family out)))
      (format out ".SH SEE ALSO~%~A"
              (see-also (append (loop for family in families
                                      collect (list (page-name family) 3))
                                '(("socket" 2) ("poll" 2) ("tcp" 7) ("unix" 7))))))))

(defun manual-pages ()
  "A list of (name . text) of every manual page."
  (let ((families (remove-if-not #'functions-of (header-families))))
    (cons (cons "docs/man/libport.7" (overview-page families))
          (loop for family in families
                collect (cons (format nil "docs/man/~A.3" (page-name family))
                              (family-page family))))))
