;;;; conditions - what PORT signals, as programs on usocket expect it.
;;;;
;;;; Each condition of usocket that has a cause in PORT gets a subclass here. It keeps the cause,
;;;; and so the host, the port and the system's number, and reports what the cause reports.

(defpackage #:port/usocket
  (:use #:common-lisp)
  (:documentation "PORT as a backend of usocket: programs that use USOCKET run on PORT, unchanged.")
  (:export #:on-port #:cause))

(in-package #:port/usocket)

(defclass on-port () ()
  (:documentation "A socket of usocket whose USOCKET:SOCKET is one of PORT."))

(define-condition mapped (error)
  ((cause :initarg :cause :reader cause))
  (:report (lambda (condition stream)
             (princ (cause condition) stream)))
  (:documentation "A condition of usocket that stands for one of PORT's; an error, which usocket's
NS-TRY-AGAIN-CONDITION is not."))

(setf (documentation 'cause 'function)
      "Return the condition of PORT, a PORT:NETWORK, that a condition of usocket stands for.")

(defmacro define-mapping (table &body rows)
  "Define for each of ROWS, (ours theirs), a subclass of THEIRS, a condition of usocket, and TABLE,
which gives its name for a condition of class OURS: the first row that fits."
  (flet ((name (theirs)
           (intern (symbol-name theirs))))
    `(progn
       ,@(loop for theirs in (remove-duplicates (mapcar #'second rows))
               collect `(define-condition ,(name theirs) (mapped ,theirs) ()))
       (defparameter ,table
         ',(loop for (ours theirs) in rows
                 collect (cons ours (name theirs)))
         "Conditions of PORT, those of usocket that stand for them."))))

(define-mapping *mapping*
  (port:timeout usocket:timeout-error)
  (port:socket-closed usocket:bad-file-descriptor-error)
  (port:connection-reset usocket:connection-reset-error)
  (port:connection-lost usocket:connection-aborted-error)
  (port:connection-refused usocket:connection-refused-error)
  (port:host-unreachable usocket:host-unreachable-error)
  (port:network-unreachable usocket:network-unreachable-error)
  (port:connect-timed-out usocket:timeout-error)
  (port:connect-denied usocket:operation-not-permitted-error)
  (port:permission-denied usocket:operation-not-permitted-error)
  (port:address-in-use usocket:address-in-use-error)
  (port:address-not-available usocket:address-not-available-error)
  (port:address-error usocket:invalid-argument-error)
  (port:usage-error usocket:invalid-argument-error)
  (port:host-not-found usocket:ns-host-not-found-error)
  ;; usocket called it so before 0.8.4
  (port:resolver-try-again #.(or (find-symbol "NS-TRY-AGAIN-ERROR" '#:usocket)
                                 'usocket:ns-try-again-condition))
  (port:resolve-error usocket:ns-no-recovery-error)
  (port:resource-exhausted usocket:no-buffers-error)
  (port:not-supported usocket:operation-not-supported-error)
  (port:network usocket:unknown-error))

(defun fail-mapped (cause socket host)
  "Signal the condition of usocket that stands for CAUSE, of SOCKET or of the look-up of HOST."
  (let ((class (cdr (assoc-if (lambda (ours) (typep cause ours)) *mapping*))))
    (cond ((subtypep class 'usocket:ns-condition)
           (error class :cause cause :host-or-ip host))
          ((subtypep class 'usocket:unknown-error)
           (error class :cause cause :socket socket
                        :real-error cause :errno (or (port:network-errno cause) 0)))
          (t (error class :cause cause :socket socket)))))

(defvar *handle-others* #'usocket::handle-condition
  "What usocket does with a condition that is not PORT's.")

(defun handle-condition (condition &optional socket host)
  "What WITH-MAPPED-CONDITIONS of usocket calls with each CONDITION. What is mapped passes as it is,
and so does, about a socket of PORT, what PORT does not signal: before 0.8.6 usocket makes an
UNKNOWN-ERROR of that."
  (typecase condition
    (port:network (fail-mapped condition socket host))
    (mapped nil)
    (t (unless (typep socket 'on-port)
         (funcall *handle-others* condition socket host)))))
