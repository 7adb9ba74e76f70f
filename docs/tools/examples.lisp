;;;; examples - the Lisp in a document is run, and what comes of it is compared with what the
;;;; document says.
;;;;
;;;; A chapter is what stands under a heading of the second level; in the guide, whose chapters are
;;;; files of their own, under one of the first. Its blocks ```lisp are read and evaluated in order,
;;;; in a package of the chapter's own, so that the blocks of a chapter share what they define and
;;;; chapters share nothing; and all of them once more in one package, as who reads on types them.
;;;; After a form, comments say what it does:
;;;;
;;;;     ;=> value     a value, as the REPL prints it; one such line for each value that matters
;;;;     ;-> line      a line that the form prints
;;;;     ;!> report    it signals a condition that prints so, as the debugger shows it
;;;;
;;;; A form without such comments has to return. Ports that the system picks and times that pass
;;;; differ from run to run: a number from 32768 to 65535 in the document stands for whatever number
;;;; of that range comes, the same for the same within a chapter. (Different ones may stand for one:
;;;; the system can pick a port again as soon as nobody has it.) And `...` stands for any text.

(in-package :port-docs)

;;; Reading a document

(defstruct (chapter (:copier nil) (:predicate nil))
  (document "" :type string :read-only t)
  (title "" :type string :read-only t)
  (blocks '() :type list))              ; (line-number . lines) of each block, in order

(defun fence-p (line)
  (prefix-p "```" line))

(defun chapter-of-guide-p (document)
  (prefix-p "docs/guide/" document))

(defun chapters (document)
  "The chapters of DOCUMENT, the name of a Markdown file of the checkout, that have Lisp in them."
  (let ((chapters (list (make-chapter :document document :title "Beginning")))
        (heading (if (chapter-of-guide-p document) "# " "## "))
        (block nil) (kind nil))
    (loop for line in (file-lines document)
          for number from 1
          do (cond ((and kind (fence-p line))
                    (when (equal kind "lisp")
                      (push (cons (car block) (reverse (cdr block)))
                            (chapter-blocks (first chapters))))
                    (setf kind nil))
                   (kind (push line (cdr block)))
                   ((fence-p line)
                    (setf kind (after-prefix "```" line) block (list (1+ number))))
                   ((prefix-p heading line)
                    (push (make-chapter :document document :title (after-prefix heading line))
                          chapters))))
    (loop for chapter in (reverse chapters)
          when (chapter-blocks chapter)
            do (setf (chapter-blocks chapter) (reverse (chapter-blocks chapter)))
            and collect chapter)))

;;; Reading a block: forms, and what is expected of each

(defstruct (example (:copier nil) (:predicate nil))
  (line 0 :type integer :read-only t)
  (text "" :type string :read-only t)
  (values '() :type list)
  (output '() :type list)
  (report nil))

(defun note-expectation (example line)
  "Add what LINE, a comment, says to EXAMPLE; false if it says nothing."
  (flet ((expected (prefix)
           (let ((text (after-prefix prefix line)))
             (and text (string-left-trim " " text)))))
    (let ((value (expected ";=>")) (output (after-prefix ";->" line)) (report (expected ";!>")))
      (cond (value (push value (example-values example)))
            (output (push (if (prefix-p " " output) (subseq output 1) output)
                          (example-output example)))
            (report (setf (example-report example) report))))))

(defun complete-p (text)
  "True if TEXT is a whole form by its parentheses, as the reader of the standard syntax sees them."
  (handler-case (let ((*read-suppress* t))
                  (read-from-string text)
                  t)
    (end-of-file () nil)))

(defun examples (block)
  "The examples in BLOCK, (line-number . lines)."
  (let ((examples '()) (pending '()) (start 0))
    (loop for line in (cdr block)
          for number from (car block)
          do (cond (pending
                    (push line pending))
                   ((and examples (note-expectation (first examples) line)))
                   ((not (or (blank-p line) (prefix-p ";" line)))
                    (setf pending (list line) start number)))
             (when (and pending (complete-p (join-lines (reverse pending))))
               (push (make-example :line start :text (join-lines (reverse pending))) examples)
               (setf pending '())))
    (when pending
      (push (make-example :line start :text (join-lines (reverse pending))) examples))
    (dolist (example examples (nreverse examples))
      (setf (example-values example) (reverse (example-values example))
            (example-output example) (reverse (example-output example))))))

(defun forms (chapter)
  "The texts of the forms in CHAPTER, in order."
  (loop for block in (chapter-blocks chapter)
        append (mapcar #'example-text (examples block))))

;;; Comparing

(defvar *numbers*)
(setf (documentation '*numbers* 'variable)
      "From a port in the chapter to the one that came for it, a list of (document . run).")

(defun picked-port-p (digits)
  "True if DIGITS spell a port that the system could have picked."
  (and (= (length digits) 5) (<= 32768 (parse-integer digits) 65535)))

(defun same-number-p (expected actual)
  "True if the port ACTUAL, digits, can stand for EXPECTED, now and before."
  (let ((known (assoc expected *numbers* :test #'string=)))
    (if known
        (string= (cdr known) actual)
        (push (cons expected actual) *numbers*))))

(defun digits-end (text start)
  (or (position-if-not #'digit-char-p text :start start) (length text)))

(defun matches-p (expected actual &optional (i 0) (j 0))
  "True if ACTUAL from J on is what EXPECTED from I on stands for."
  (cond ((= i (length expected)) (= j (length actual)))
        ((eql (search "..." expected :start2 i) i)
         (loop for next from j to (length actual)
                 thereis (matches-p expected actual (+ i 3) next)))
        ((= j (length actual)) nil)
        ((and (digit-char-p (char expected i)) (digit-char-p (char actual j)))
         (let* ((i-end (digits-end expected i)) (j-end (digits-end actual j))
                (wanted (subseq expected i i-end)) (given (subseq actual j j-end)))
           (and (or (string= wanted given)
                    (and (picked-port-p wanted) (picked-port-p given)
                         (same-number-p wanted given)))
                (matches-p expected actual i-end j-end))))
        (t (and (char= (char expected i) (char actual j))
                (matches-p expected actual (1+ i) (1+ j))))))

(defun without-time (line)
  "LINE without the time at its end that a report has where a failure took some."
  (let ((start (search " (" line :from-end t)))
    (if (and start (uiop:string-suffix-p line " s)"))
        (subseq line 0 start)
        line)))

(defun same-line-p (expected actual)
  "True if ACTUAL is what EXPECTED stands for, and took a time or none where EXPECTED has none."
  (or (matches-p expected actual)
      (matches-p expected (without-time actual))))

(defun compare-lines (what expected actual)
  "NIL if the lines ACTUAL are those EXPECTED; else a text."
  (unless (and (= (length expected) (length actual))
               (every #'same-line-p expected actual))
    (format nil "expected ~A:~%~{    ~A~%~}and got:~%~{    ~A~%~}" what expected actual)))

;;; Running

(defun printed (value)
  "VALUE as the REPL prints it."
  (let ((*print-pretty* nil))
    (prin1-to-string value)))

(defun output-lines (text)
  "The lines of TEXT, without a last empty one."
  (let ((lines (uiop:split-string text :separator '(#\Newline))))
    (if (equal (car (last lines)) "") (butlast lines) lines)))

(defun compare-values (example values)
  "Values that EXAMPLE does not mention may be any, unless it mentions none of several."
  (let ((expected (example-values example)))
    (when expected
      (compare-lines "the values" expected
                     (loop for value in values
                           repeat (length expected)
                           collect (printed value))))))

(defun only-form (text)
  "The form in TEXT, after which there may be a comment."
  (multiple-value-bind (form end) (read-from-string text)
    (let ((rest (string-left-trim " " (subseq text end))))
      (unless (or (string= rest "") (prefix-p ";" rest))
        (error "One form a line, please; there is more: ~A" rest)))
    form))

(defun run-example (example)
  "Run EXAMPLE; NIL if it does what it says, else a text."
  (let ((values '()) (report nil) (form nil))
    (let* ((*error-output* (make-broadcast-stream)) ; where the compiler notes what comes later
           (output (with-output-to-string (*standard-output*)
                     (handler-case
                         (progn (setf form (only-form (example-text example)))
                                (setf values (multiple-value-list (eval form))))
                       (error (condition) (setf report (princ-to-string condition)))))))
      (or (compare-lines "a condition" (and (example-report example)
                                            (list (example-report example)))
                         (and report (uiop:split-string report :separator '(#\Newline))))
          (compare-lines "printed lines" (example-output example) (output-lines output))
          (compare-values example values)))))

(defun explain (chapter example problem)
  (format nil "~A:~D, in ~S:~%~A~%~A" (chapter-document chapter) (example-line example)
          (chapter-title chapter) (example-text example) problem))

(defun call-in-chapter-package (function)
  "Call FUNCTION in a fresh package, as one meets in a REPL that has loaded nothing else."
  (let* ((package (make-package (symbol-name (gensym "CHAPTER")) :use '(:common-lisp)))
         (*package* package))
    (unwind-protect (funcall function)
      (delete-package package))))

(defun run-here (chapter)
  "As RUN-CHAPTER, in the package that is current."
  (let ((*numbers* '()))
    (handler-bind ((warning #'muffle-warning))
      (dolist (block (chapter-blocks chapter))
        (dolist (example (examples block))
          (let ((problem (run-example example)))
            (when problem
              (return-from run-here (explain chapter example problem)))))))))

(defun run-chapter (chapter)
  "Run the examples of CHAPTER up to the first that is not as the document says: NIL, or a text that
explains."
  (call-in-chapter-package (lambda () (run-here chapter))))

(defun run-session (chapters)
  "As RUN-CHAPTER for all of CHAPTERS, one after the other in one package, as they are typed by who
reads on."
  (call-in-chapter-package (lambda () (some #'run-here chapters))))
