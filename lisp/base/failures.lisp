;;;; failures - the ways to make and to signal a condition: from a status of the library, or of a
;;;; class by name.

(in-package :port)

;;; Making and signalling

(defun signalled-class (class socket)
  "The class to signal for CLASS, a name, when it concerns SOCKET."
  (if (streamp socket)
      (gethash class *stream-classes* class)
      class))

(defun more-initargs (class socket seconds)
  "The initargs that only some classes have."
  (append (when (and (streamp socket) (subtypep class 'stream-error)) (list :stream socket))
          (when (and seconds (subtypep class 'timeout)) (list :time seconds))))

(defun without-keys (plist keys)
  (loop for (key value) on plist by #'cddr
        unless (member key keys)
          collect key and collect value))

(defgeneric socket-ends (object)
  (:documentation "Values: the texts of the local and the remote end of OBJECT; NIL where unknown,
and for an object that is no socket of PORT.")
  (:method (object)
    (declare (ignore object))
    (values nil nil)))

(defun ends-of (socket)
  "The initargs that name both ends of SOCKET; none for NIL."
  (when socket
    (multiple-value-bind (local remote) (socket-ends socket)
      (list :local local :remote remote))))

(defun failure (class operation code &rest facts &key socket seconds message arguments
                &allow-other-keys)
  "The condition of CLASS, a name, for the failure of OPERATION by CODE, both keywords. FACTS are
the initargs of NETWORK and CLASS; MESSAGE with ARGUMENTS formats the reason, NIL for the words of
CODE."
  (let ((class (signalled-class class socket)))
    (apply #'make-condition class
           :operation operation :proc operation :code code :mesg message :args arguments
           (append (more-initargs class socket seconds)
                   (without-keys facts '(:message :arguments))
                   (ends-of socket)))))

(defun signal-failure (condition)
  "Signal CONDITION, an error; never return."
  (call-with-restarts-for condition (lambda () (error condition))))

(defmacro signalling (condition &body clauses)
  "Signal CONDITION, an error, with the restarts in CLAUSES, as of RESTART-CASE, which are those of
no other condition. The values of the restart that a handler invokes."
  (let ((place (gensym "CONDITION")))
    `(let ((,place ,condition))
       (call-with-restarts-for ,place (lambda ()
                                        (restart-case (error ,place) ,@clauses))))))

(defun fail-as (class operation code &rest facts &key &allow-other-keys)
  "Signal the condition that FAILURE makes of the same arguments; never return."
  (signal-failure (apply #'failure class operation code facts)))

;;; What the library says

(defun kind-row (kind)
  "(code . class) of KIND, as the library says."
  (flet ((symbol-for (name package)
           (intern (string-upcase name) package)))
    (cons (symbol-for (lport-kind-name kind) :keyword)
          (symbol-for (lport-kind-condition kind) :port))))

(defvar *kinds*
  (coerce (cons '(:other . network) (loop for kind from 1
                                          while (lport-kind-name kind)
                                          collect (kind-row kind)))
          'simple-vector)
  "From the number of a kind to (code . class), for all that the library knows.")

(defun status-errno (status)
  "The system's number in STATUS, or NIL."
  (let ((errno (lport-status-errno status)))
    (unless (zerop errno) errno)))

(defun status-code (status)
  "The keyword for STATUS: of its kind, or :ERRNO-123 where no kind knows the number."
  (let ((errno (status-errno status))
        (code (car (svref *kinds* (lport-status-kind status)))))
    (if (and errno (eq code :other))
        (values (intern (format nil "ERRNO-~D" errno) :keyword))
        code)))

(defun status-class (status)
  "The name of the class of conditions for STATUS."
  (cdr (svref *kinds* (lport-status-kind status))))

(defun status-text (status)
  "The library's phrase for STATUS."
  (text-from (pointer cap) (lport-status-text status pointer cap)))

(defun status-condition (status operation &rest facts &key message arguments &allow-other-keys)
  "The condition for STATUS, a result below 0 of the library, that OPERATION, a keyword, met. FACTS
as of FAILURE; without a MESSAGE the library's own phrase is the reason."
  (apply #'failure (status-class status) operation (status-code status)
         :errno (status-errno status)
         :message (or message "~A")
         :arguments (if message arguments (list (status-text status)))
         (without-keys facts '(:message :arguments))))

(defun fail (status operation &rest facts &key &allow-other-keys)
  "Signal the condition that STATUS-CONDITION makes of the same arguments; never return."
  (signal-failure (apply #'status-condition status operation facts)))
