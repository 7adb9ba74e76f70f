;;;; arguments - bad input: what is checked before anything is done, and how it is told what was
;;;; expected.

(in-package :port)

(defun fail-argument (operation datum type expected)
  (fail-as 'mistyped-argument operation :invalid
           :datum datum :expected-type type
           :message "expected ~A, got ~S" :arguments (list expected datum)))

(declaim (inline check-argument))       ; so that TYPE is known where it is tested
(defun check-argument (operation datum type expected)
  "Return DATUM if it is of TYPE; else signal a USAGE-ERROR that is a TYPE-ERROR too. EXPECTED, a
text, says what an argument of OPERATION should have been."
  (if (typep datum type)
      datum
      (fail-argument operation datum type expected)))

(defun flags-of (&rest bits-and-conditions)
  "The sum of the bits in BITS-AND-CONDITIONS, a plist, whose conditions are true."
  (loop for (bit condition) on bits-and-conditions by #'cddr
        when condition
          sum bit))

(defun callable-p (object)
  "True if OBJECT is a function, or a symbol that names one."
  (or (functionp object)
      (and (symbolp object)
           (fboundp object)
           (not (macro-function object))
           (not (special-operator-p object)))))

(deftype callable ()
  '(satisfies callable-p))

(deftype proper-list ()
  '(satisfies %proper-list-p))

(defun property-list-p (object)
  "True if OBJECT is a proper list of pairs."
  (and (%proper-list-p object) (evenp (length object))))

(deftype property-list ()
  '(satisfies property-list-p))

(defun check-bounds (operation vector start end)
  "Signal a USAGE-ERROR that is a TYPE-ERROR too unless START and END, or NIL, bound a part of
VECTOR, an argument of OPERATION."
  (let* ((length (length vector))
         (type `(integer 0 ,length))
         (start-p (typep start type))
         (end-type `(or null (integer ,start ,length))))
    (unless (and start-p (typep end end-type))
      (fail-as 'mistyped-argument operation :invalid
               :datum (if start-p end start)
               :expected-type (if start-p end-type type)
               :message "expected bounds in a vector of ~D element~:P, got ~S and ~S"
               :arguments (list length start end)))))

(defun keywords-of (function)
  "The keywords that FUNCTION, a name, takes: a list in alphabetical order."
  (sort (loop for parameter in (rest (member '&key (%lambda-list function)))
              unless (member parameter lambda-list-keywords)
                collect (intern (string (if (consp parameter) (first parameter) parameter))
                                :keyword))
        #'string<))

(defparameter *keywords-expected* "expected keywords among~{ ~S~}, got ~S"
  "What is said of a keyword that is none of a list.")

(defun check-keywords (operation plist allowed)
  "Return PLIST, the keyword arguments of OPERATION, if ALLOWED, a list, has each keyword; else
signal a USAGE-ERROR that is a PROGRAM-ERROR too and lists ALLOWED."
  (loop with others-p = (and (evenp (length plist)) (getf plist :allow-other-keys))
        for (key) on plist by #'cddr
        unless (or (member key allowed) others-p)
          do (fail-as 'unknown-keyword operation :invalid
                      :message *keywords-expected*
                      :arguments (list allowed key)))
  plist)

;;; A call with such a keyword is told of when it is compiled, too

(define-condition unknown-keyword-warning (style-warning simple-condition) ()
  (:documentation "A call that will signal an UNKNOWN-KEYWORD has been compiled."))

(defun warn-of-keywords (function arguments allowed)
  "Warn of each keyword among ARGUMENTS, the keywords and values of a form that calls FUNCTION, a
name, that ALLOWED does not have."
  (unless (member :allow-other-keys arguments)
    (loop for (key) on arguments by #'cddr
          when (and (keywordp key) (not (member key allowed)))
            do (warn 'unknown-keyword-warning
                     :format-control "~S: ~?"
                     :format-arguments (list function *keywords-expected* (list allowed key))))))

(defun check-calls (function keyword-part allowed)
  "Let the compiler warn of calls of FUNCTION, a name, with a keyword that ALLOWED does not have.
KEYWORD-PART, a function of the forms of the arguments, returns those of the keywords and values."
  (declare (type function keyword-part))
  (setf (compiler-macro-function function)
        (lambda (form environment)
          (declare (ignore environment))
          (when (and (eq (first form) function) (%proper-list-p form))
            (warn-of-keywords function (funcall keyword-part (rest form)) allowed))
          form)))

(defun show-keywords (name)
  "Make DESCRIBE and editors show the argument list of function NAME without its &REST and
&ALLOW-OTHER-KEYS, where its keywords say all."
  (%show-lambda-list name (loop with rest = (remove '&allow-other-keys (%lambda-list name))
                                while rest
                                if (eq (first rest) '&rest)
                                  do (setf rest (cddr rest))
                                else
                                  collect (pop rest))))

(defun note-keywords (function)
  "Let CHECK-OWN-KEYWORDS know the keywords of FUNCTION, a name, whose lambda list ends with
&ALLOW-OTHER-KEYS so that it checks them itself; editors and the compiler see those that it has."
  (let ((others (position-if (lambda (parameter) (member parameter '(&rest &key)))
                             (%lambda-list function)))
        (keywords (keywords-of function)))
    (setf (get function 'keywords) keywords)
    (check-calls function (lambda (arguments) (nthcdr others arguments)) keywords)
    (show-keywords function)))

(defun check-own-keywords (function operation plist)
  "As CHECK-KEYWORDS, with what FUNCTION, a name, takes."
  (check-keywords operation plist (get function 'keywords)))
