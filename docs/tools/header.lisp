;;;; header - csrc/libport.h taken apart: its introduction, its constants, and its families of
;;;; functions, each function with its comment and its declaration.
;;;;
;;;; The form it relies on: a line `/* ---- NAME: TITLE ----` begins a family; a comment that begins
;;;; with a tag in brackets describes the declarations that follow it; any other comment between
;;;; families is a note of the family.

(in-package :port-docs)

(defstruct (family (:copier nil) (:predicate nil))
  (name "" :type string :read-only t)
  (title "" :type string :read-only t)
  (items '() :type list))               ; each (:note text), (:constant text) or (:function ...)

(defun rule-p (line)
  (prefix-p "/* ---- " line))

(defun rule-title (line)
  "The words of LINE, a rule, without its dashes."
  (string-right-trim " -" (string-right-trim "*/" (subseq line 8))))

(defun family-of-rule (line)
  "The family that LINE begins: `clock`, or `clock: what it is`."
  (let* ((title (rule-title line)) (colon (position #\: title)))
    (make-family :name (subseq title 0 colon)
                 :title (if colon (string-left-trim " " (subseq title (1+ colon))) ""))))

(defun comment-text (lines)
  "The text in LINES, a comment of C, a string with the line breaks it has there."
  (let ((texts (loop for line in lines
                     collect (string-right-trim
                              " " (cond ((prefix-p "/* " line) (subseq line 3))
                                        ((prefix-p " * " line) (subseq line 3))
                                        ((member line '("/*" " *" " */" "*/") :test #'string=)
                                         "")
                                        (t line))))))
    (let* ((text (string-right-trim '(#\Space #\Newline) (join-lines texts)))
           (end (search "*/" text :from-end t)))
      (string-trim '(#\Space #\Newline) (if end (subseq text 0 end) text)))))

(defun take-until (predicate lines)
  "Values: the beginning of LINES up to and with the first line that satisfies PREDICATE; the rest."
  (let ((end (position-if predicate lines)))
    (if end
        (values (subseq lines 0 (1+ end)) (nthcdr (1+ end) lines))
        (error "csrc/libport.h: what begins with ~S does not end." (first lines)))))

(defun ending-with (suffix)
  (lambda (line) (uiop:string-suffix-p (string-right-trim " " line) suffix)))

(defun containing (part)
  (lambda (line) (search part line)))

(defun declaration-text (lines)
  "The declaration in LINES without what only compilers need."
  (let ((text (format nil "~{~A~^ ~}" (mapcar (lambda (line) (string-trim " " line)) lines))))
    (string-right-trim ";" (after-prefix "LPORT_API " text))))

(defun declared-name (declaration)
  "The name of the function in DECLARATION."
  (let ((start (search "lport_" declaration)))
    (subseq declaration start (position #\( declaration))))

(defun tag-end (text)
  "Where the tag in brackets that TEXT begins with ends, or NIL."
  (and (prefix-p "[" text) (position #\] text)))

(defun parse-item (lines pending)
  "The next item of LINES. Values: the item or NIL; the rest of LINES; the comment that the next
declaration belongs to, of which PENDING is the one so far."
  (let ((line (first lines)))
    (cond ((prefix-p "/*" line)
           (multiple-value-bind (comment rest) (take-until (containing "*/") lines)
             (let ((text (comment-text comment)))
               (cond ((tag-end text) (values nil rest text))
                     ((string= text "") (values nil rest nil))
                     (t (values (list :note text) rest nil))))))
          ((prefix-p "enum" line)
           (multiple-value-bind (body rest) (take-until (ending-with "};") lines)
             (values (list :constants (butlast (rest body))) rest nil)))
          ((prefix-p "#define LPORT_" line)
           (values (unless (search "LPORT_API " line) (list :constants (list (subseq line 8))))
                   (rest lines) nil))
          ((prefix-p "LPORT_API " line)
           (multiple-value-bind (body rest) (take-until (ending-with ";") lines)
             (let ((declaration (declaration-text body)))
               (values (list :function (declared-name declaration) declaration pending)
                       rest pending))))
          (t (values nil (rest lines) pending)))))

(defun parse-family (family lines)
  "Fill FAMILY from LINES up to the next rule; returns what is left of LINES."
  (let ((pending nil) (item nil))
    (loop until (or (null lines) (rule-p (first lines)) (prefix-p "#ifdef" (first lines)))
          do (multiple-value-setq (item lines pending) (parse-item lines pending))
             (when item
               (push item (family-items family))))
    (setf (family-items family) (reverse (family-items family)))
    lines))

(defun rule-rest (lines)
  "LINES after the rule that they begin with: what its comment goes on with is one of its own."
  (if (search "*/" (first lines))
      (rest lines)
      (cons "/*" (rest lines))))

(defun header-families ()
  "The families of csrc/libport.h, in its order; the first one has the constants."
  (let ((lines (member-if #'rule-p (file-lines "csrc/libport.h"))))
    (loop while (and lines (rule-p (first lines)))
          collect (let ((family (family-of-rule (first lines))))
                    (setf lines (parse-family family (rule-rest lines)))
                    family))))

(defun paragraphs-of (text)
  "The parts of TEXT that empty lines separate."
  (loop for start = 0 then (+ end 2)
        for end = (search (format nil "~%~%") text :start2 start)
        collect (subseq text start end)
        while end))

(defun header-introduction ()
  "The comment at the top of csrc/libport.h, a list of paragraphs."
  (paragraphs-of (comment-text (take-until (containing "*/") (file-lines "csrc/libport.h")))))

(defun functions-of (family)
  (remove :function (family-items family) :key #'first :test-not #'eq))
