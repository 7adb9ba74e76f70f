;;;; exports - what PORT exports, by the themes of lisp/package.lisp, and what each name is.

(in-package :port-docs)

;;; Themes: the comments in front of the clauses of DEFPACKAGE PORT

(defun names-in (line)
  "The symbols of PORT that LINE mentions as #:name."
  (loop for start = (search "#:" line) then (search "#:" line :start2 end)
        for end = (and start
                       (or (position-if (lambda (char) (find char " )")) line :start start)
                           (length line)))
        while start
        collect (let ((name (string-upcase (subseq line (+ start 2) end))))
                  (or (find-symbol name :port)
                      (error "lisp/package.lisp exports ~A, which PORT does not have." name)))))

(defun themes ()
  "The list of (title . symbols) that the clauses of package PORT make, in their order."
  (let ((themes '()) (inside nil) (exporting nil))
    (dolist (line (file-lines "lisp/package.lisp"))
      (cond ((prefix-p "(defpackage " line)
             (setf inside (prefix-p "(defpackage :port" line)
                   inside (and inside (not (find #\. line)))))
            ((not inside))
            ((prefix-p "  ;; " line)
             (push (list (string-capitalize (subseq line 5) :end 1)) themes)
             (setf exporting nil)))
      (when (and inside themes)
        (when (prefix-p "  (:export" line)
          (setf exporting t))
        (when exporting
          (setf (rest (first themes)) (append (rest (first themes)) (names-in line))))))
    (reverse themes)))

(defun public-symbol-p (symbol)
  (and (eq (symbol-package symbol) (find-package :port))
       (eq :external (nth-value 1 (find-symbol (symbol-name symbol) :port)))))

(defun class-named (symbol)
  (find-class symbol nil))

;;; What a symbol names

(defun restart-name-p (symbol)
  "True if SYMBOL is in the theme of the restarts."
  (member symbol (rest (assoc "Restarts" (themes) :test #'string=))))

(defun kind-of-operator (symbol)
  (cond ((restart-name-p symbol) "Restart, and function that invokes it")
        ((macro-function symbol) "Macro")
        ((typep (fdefinition symbol) 'generic-function) "Generic function")
        (t "Function")))

(defun kind-of-type (symbol)
  (let ((class (class-named symbol)))
    (cond ((null class) "Type")
          ((subtypep class 'condition) "Condition")
          ((typep class 'structure-class) "Structure")
          (t "Class"))))

(defun setf-function-p (symbol)
  (fboundp `(setf ,symbol)))

(defun places-of (symbol)
  "What SYMBOL names: a list of (kind type-for-DOCUMENTATION)."
  (append (when (fboundp symbol) `((,(kind-of-operator symbol) function)))
          (when (boundp symbol) `(("Variable" variable)))
          (when (or (class-named symbol) (sb-ext:valid-type-specifier-p symbol))
            `((,(kind-of-type symbol) type)))))

(defun undocumented ()
  "The exported symbols that have no place in a theme, name nothing, or lack a docstring."
  (let ((placed (mapcan #'rest (themes))) (missing '()))
    (do-external-symbols (symbol :port (sort missing #'string<))
      (unless (and (member symbol placed)
                   (places-of symbol)
                   (loop for (nil type) in (places-of symbol)
                         always (documentation symbol type)))
        (push symbol missing)))))

;;; Argument lists

(defun without-packages (object)
  "OBJECT of an argument list with its symbols, but for keywords, as what prints without a package."
  (typecase object
    (cons (cons (without-packages (car object)) (without-packages (cdr object))))
    ((or null keyword) object)
    (symbol (make-symbol (symbol-name object)))
    (t object)))

(defun shown (object)
  "OBJECT of an argument list as the reference shows it."
  (let ((*print-case* :downcase) (*print-pretty* nil) (*print-gensym* nil))
    (prin1-to-string (without-packages object))))

(defun lambda-list-of (symbol)
  (sb-introspect:function-lambda-list symbol))

(defun wrapped-call (words)
  "The list WORDS as lines of at most 88 characters, a call of the first."
  (let ((lines '()) (line (format nil "(~A" (first words)))
        (indent (min 20 (+ 2 (length (first words))))))
    (dolist (word (rest words))
      (when (> (+ (length line) 1 (length word)) 88)
        (push line lines)
        (setf line (make-string (1- indent) :initial-element #\Space)))
      (setf line (format nil "~A ~A" line word)))
    (join-lines (reverse (cons (format nil "~A)" line) lines)))))

(defun call-of (symbol)
  "How SYMBOL, an operator, is called."
  (wrapped-call (mapcar #'shown (cons symbol (lambda-list-of symbol)))))

(defun parameters-of (symbol)
  "The names of the parameters of SYMBOL, in upper case."
  (let ((names '()))
    (labels ((walk (object)
               (cond ((consp object) (walk (car object)) (walk (cdr object)))
                     ((and object (symbolp object)) (push (symbol-name object) names)))))
      (when (fboundp symbol)
        (walk (lambda-list-of symbol))))
    names))

;;; Conditions

(defun class-name< (a b)
  (string< (class-name a) (class-name b)))

(defun public-subclasses (name)
  "The names of the exported classes right below NAME; those that are not exported are looked
through."
  (sort (remove-duplicates
         (loop for class in (sb-mop:class-direct-subclasses (find-class name))
               for below = (class-name class)
               if (public-symbol-p below)
                 collect below
               else
                 append (public-subclasses below)))
        #'string<))

(defun public-superclasses (name)
  "The names of the classes right above NAME that users know."
  (remove-duplicates
   (loop for class in (sb-mop:class-direct-superclasses (find-class name))
         for above = (class-name class)
         if (or (public-symbol-p above)
                (eq (symbol-package above) (find-package :common-lisp)))
           collect above
         else
           append (public-superclasses above))
   :from-end t))
