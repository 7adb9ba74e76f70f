;;;; reference - docs/reference.md, from the docstrings of PORT.
;;;;
;;;; A docstring is turned into Markdown word by word: exported names become links, what the
;;;; standard defines becomes code, parameters become italic. The sentences that begin with
;;;; Conditions, Restarts, Source or Wraps become paragraphs of their own.

(in-package :port-docs)

;;; Words

(defun constituent-p (char)
  (or (alphanumericp char) (find char "-/*+&%")))

(defun shouted-p (word)
  "True if WORD is written as docstrings write names: in upper case."
  (and (> (length word) 1)
       (find-if #'alpha-char-p word)
       (string= word (string-upcase word))))

(defun link (symbol)
  (format nil "[`~(~A~)`](#~A)" symbol (anchor (symbol-name symbol))))

(defun port-symbol (word)
  (let ((symbol (find-symbol word :port)))
    (and symbol (public-symbol-p symbol) symbol)))

(defun standard-symbol-p (word)
  (eq :external (nth-value 1 (find-symbol word :common-lisp))))

(defun plural-of (word)
  "The exported symbol of which WORD is a plural, such as SOCKETs; or NIL."
  (let ((end (1- (length word))))
    (and (> end 1) (char= #\s (char word end)) (shouted-p (subseq word 0 end))
         (port-symbol (subseq word 0 end)))))

(defun condition-name-p (word)
  (let ((class (class-named (port-symbol word))))
    (and class (subtypep class 'condition))))

(defun marked-word (word parameters own condition-p)
  "WORD of a docstring as Markdown. PARAMETERS are those of the operator OWN; CONDITION-P is true
where conditions are listed, so that TIMEOUT there is the condition."
  (let ((symbol (port-symbol word)) (parameter-p (member word parameters :test #'string=)))
    (cond ((member word '("T" "NIL") :test #'string=) (format nil "`~(~A~)`" word))
          ((plural-of word)
           (format nil "~As" (link (plural-of word))))
          ((not (shouted-p word)) word)
          ((and parameter-p (not (and condition-p (condition-name-p word))))
           (format nil "*~(~A~)*" word))
          ((eq symbol own) (format nil "`~(~A~)`" word))
          (symbol (link symbol))
          ((standard-symbol-p word) (format nil "`~(~A~)`" word))
          (t word))))

(defun keyword-word (word)
  (if (shouted-p (subseq word 1)) (format nil "`~(~A~)`" word) word))

(defun escaped (char)
  "CHAR as Markdown shows it."
  (if (find char "*_<>[]`|\\") (format nil "\\~C" char) (string char)))

(defun token-end (text start)
  (or (position-if-not #'constituent-p text :start start) (length text)))

(defun keyword-end (text start)
  "As TOKEN-END, of a keyword, in which a dot may be before a digit."
  (let* ((end (token-end text start)) (next (1+ end)))
    (if (and (< next (length text)) (char= #\. (char text end)) (digit-char-p (char text next)))
        (keyword-end text next)
        end)))

(defun quoted-end (text start)
  "Where the quoted text that begins at START of TEXT ends; NIL if it does not."
  (let ((end (position #\" text :start (1+ start))))
    (and end (1+ end))))

(defun marked-up (text parameters own)
  "TEXT of a docstring as Markdown, see MARKED-WORD."
  (with-output-to-string (out)
    (let ((start 0) (condition-p nil))
      (loop while (< start (length text))
            do (let ((char (char text start)) (end (1+ start)))
                 (cond ((and (find char ":#") (< end (length text))
                             (constituent-p (char text end)))
                        (setf end (keyword-end text end))
                        (write-string (keyword-word (subseq text start end)) out))
                       ((constituent-p char)
                        (setf end (token-end text start))
                        (let ((word (subseq text start end)))
                          (when (member word '("Conditions" "Signals") :test #'string=)
                            (setf condition-p t))
                          (write-string (marked-word word parameters own condition-p) out)))
                       ((and (char= char #\") (quoted-end text start))
                        (setf end (quoted-end text start))
                        (format out "`~A`" (subseq text start end)))
                       ((char= char #\`)
                        (setf end (1+ (or (position #\` text :start (1+ start)) start)))
                        (write-string (subseq text start end) out))
                       (t (when (char= char #\.)
                            (setf condition-p nil))
                          (write-string (escaped char) out)))
                 (setf start end))))))

;;; Docstrings

(defparameter *labels* '("Conditions:" "Restarts:" "Restart:" "Source:" "Wraps ")
  "What begins a paragraph of its own in a docstring.")

(defun sentence-start-p (text position)
  "True if a sentence can begin at POSITION of TEXT."
  (or (zerop position)
      (char= #\Newline (char text (1- position)))
      (and (>= position 2) (string= ". " text :start2 (- position 2) :end2 position))))

(defun label-at (text position)
  (and (sentence-start-p text position)
       (find-if (lambda (label) (prefix-p label (subseq text position))) *labels*)))

(defun paragraphs (text)
  "The parts of TEXT, a docstring: a list of (label . text), the label of the first is NIL."
  (let ((starts (loop for position from 1 below (length text)
                      when (label-at text position)
                        collect position)))
    (loop for start in (cons 0 starts)
          for end in (append starts (list (length text)))
          for label = (label-at text start)
          collect (cons label
                        (string-trim '(#\Space #\Newline)
                                     (subseq text (+ start (length label)) end))))))

(defun write-docstring (text symbol out)
  (loop for (label . part) in (paragraphs text)
        for marked = (marked-up (if (member label '("Conditions:") :test #'equal)
                                    (concatenate 'string "Conditions: " part)
                                    part)
                                (parameters-of symbol) symbol)
        do (format out "~%~@[**~A** ~]~A~%"
                   (and label (string-right-trim " " label))
                   (if (equal label "Conditions:") (subseq marked 12) marked))))

;;; Entries

(defun write-type-facts (symbol out)
  "What is above the class SYMBOL, and what is below it."
  (when (class-named symbol)
    (let ((above (remove-if (lambda (name) (member name '(t structure-object standard-object)))
                            (public-superclasses symbol)))
          (below (public-subclasses symbol)))
      (flet ((names (symbols)
               (mapcar (lambda (name)
                         (if (public-symbol-p name) (link name) (format nil "`~(~A~)`" name)))
                       symbols)))
        (when above
          (format out "~%A kind of ~{~A~#[~; and ~:;, ~]~}.~%" (names above)))
        (when below
          (format out "~%Kinds of it: ~{~A~^, ~}.~%" (names below)))))))

(defun write-entry (symbol out)
  (format out "~%### ~A~%" (string-downcase symbol))
  (loop for (kind type) in (places-of symbol)
        for operator-p = (eq type 'function)
        do (format out "~%*~A.*~%" kind)
           (when operator-p
             (format out "~%```text~%~A~%~@[~A~%~]```~%" (call-of symbol)
                     (and (setf-function-p symbol)
                          (wrapped-call (list "setf" (call-of symbol) "new-value")))))
           (write-docstring (documentation symbol type) symbol out)
           (unless operator-p
             (write-type-facts symbol out)))
  (when (eq symbol 'port:socket-options)
    (write-options out)))

(defun write-tree (name depth out)
  (format out "~V@T- ~A~%" (* 2 depth) (link name))
  (dolist (below (public-subclasses name))
    (write-tree below (1+ depth) out)))

;;; The table of options

(defun option-values (row)
  "What ROW of the table of options takes, in words."
  (destructuring-bind (&key kind unit none choices &allow-other-keys) row
    (format nil "~A~@[, ~A~]~:[~; or `nil`~]"
            (if choices
                (format nil "~{`~(~S~)`~^, ~}" choices)
                (ecase kind
                  (:boolean "`t` or `nil`")
                  (:integer "integer")
                  (:time "seconds")
                  (:interface "name of an interface")
                  (:text "string")))
            (and unit (if (eq kind :time) (format nil "in steps of ~A" unit) unit))
            none)))

(defun write-options (out)
  "Write what SOCKET-OPTIONS returns as a table."
  (format out "~%| name | value | for | |~%|---|---|---|---|~%")
  (dolist (row (port:socket-options))
    (destructuring-bind (&key name sockets writable note &allow-other-keys) row
      (format out "| `~(~S~)` | ~A | ~A | ~A~:[ Can only be read.~;~] |~%"
              name (option-values row) sockets note writable))))

;;; The page

(defun write-contents (themes out)
  (loop for (title . symbols) in themes
        do (format out "- [~A](#~A): ~{~A~^, ~}~%" title (anchor title)
                   (mapcar #'link symbols))))

(defun reference-page ()
  "The text of docs/reference.md."
  (let ((themes (themes)))
    (with-output-to-string (out)
      (format out "# Reference~2%~
Everything that package `PORT` exports, made from its docstrings by `make docs`: do not edit it ~
here.~%The [guide](guide.md) tells how the parts belong together. In argument lists and in the ~
text what~%the caller gives stands in *italics*.~2%")
      (write-contents themes out)
      (loop for (title . symbols) in themes
            do (format out "~%## ~A~%" title)
               (when (member 'port:network symbols)
                 (format out "~%The tree of conditions; a condition with two parents stands under ~
both.~2%")
                 (write-tree 'port:network 0 out))
               (dolist (symbol symbols)
                 (write-entry symbol out))))))
