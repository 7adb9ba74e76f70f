;;;; restarts - ways on for the user: to try again, or with another value; and functions that invoke
;;;; a restart by name, as the standard has USE-VALUE and CONTINUE.

(in-package :port)

(defun ask (control &rest arguments)
  "Ask at *QUERY-IO* what CONTROL and ARGUMENTS say."
  (fresh-line *query-io*)
  (apply #'format *query-io* control arguments)
  (finish-output *query-io*))

(defun without-quotes (line)
  "What LINE has between quotes, where it is the text of a string of Lisp, and else LINE."
  (let ((last (1- (length line))))
    (if (and (plusp last) (char= #\" (char line 0) (char line last)))
        (subseq line 1 last)
        line)))

(defun read-new-value (what)
  "Ask for a line at *QUERY-IO* that replaces WHAT, a string; a list of it, as restarts take
arguments. No host, port or path has quotes around it: they are those of who types what he would
write in a program."
  (ask "New ~A: " what)
  (list (without-quotes (read-line *query-io*))))

;;; An operation that can be tried again only says so. The restarts are established where a failure
;;; is signalled, and associated with its condition, so an operation that succeeds does not pay for
;;; them. They belong to one call, the innermost that the condition can be about, so that there is
;;; one of each name. An operation that a handler calls is no part of the one that has failed.

(declaim (inline make-retriable))
(defstruct (retriable (:copier nil) (:predicate nil)
                      (:constructor make-retriable (again doing what for)))
  "A call of CALL-WITH-RETRY-RESTARTS, and how to make it again: AGAIN, a function of the value."
  (again nil :type function :read-only t)
  (doing nil :read-only t)
  (what nil :read-only t)
  (for nil :read-only t))

(defvar *retriable* '()
  "What this thread is in that can be tried again, the innermost first.")

(defun call-with-retry-restarts (function value &optional (doing "it") (what "value") (for t))
  "Return the values of FUNCTION, called with VALUE. When it fails the restarts RETRY, which calls
it again, and USE-VALUE, which calls it with another value, are there. DOING, a string, says in
their reports what is done (\"resolve example.org\"), WHAT what another value would be (\"host\").
FOR, a type, says which conditions are about the value; others are left to the call around this
one."
  (declare (type function function))
  (loop
    (block attempt
      (flet ((again (&optional (new value))
               (setf value new)
               (return-from attempt)))
        (let ((*retriable* (cons (make-retriable #'again doing what for) *retriable*)))
          (return-from call-with-retry-restarts (funcall function value)))))))

(defun signal-with-retry (condition call function)
  "Call FUNCTION, which signals CONDITION, with the restart RETRY of CALL, a RETRIABLE."
  (restart-case (with-condition-restarts condition (list (find-restart 'retry))
                  (funcall function))
    (retry ()
      :report (lambda (stream)
                (format stream "Try again to ~A." (safe-line (retriable-doing call))))
      (funcall (retriable-again call)))))

(defun signal-retriable (condition call function)
  "Call FUNCTION, which signals CONDITION, with the restarts of CALL, a RETRIABLE. An option that
cannot be set is not for want of another host or port."
  (if (eq (network-operation condition) :option)
      (signal-with-retry condition call function)
      (restart-case (with-condition-restarts condition (list (find-restart 'use-value))
                      (signal-with-retry condition call function))
        (use-value (new)
          :report (lambda (stream) (format stream "Use another ~A." (retriable-what call)))
          :interactive (lambda () (read-new-value (retriable-what call)))
          (funcall (retriable-again call) new)))))

(defun call-with-restarts-for (condition function)
  "Call FUNCTION, which signals CONDITION, with the restarts of what can be tried again."
  (let ((call (find-if (lambda (call) (typep condition (retriable-for call))) *retriable*))
        (*retriable* '()))
    (if call
        (signal-retriable condition call function)
        (funcall function))))

(defmacro with-retry ((variable doing what &optional (for t)) &body body)
  "Run BODY with VARIABLE, which has a value already; see CALL-WITH-RETRY-RESTARTS."
  `(call-with-retry-restarts (lambda (,variable) ,@body) ,variable ,doing ,what ,for))

(defmacro with-own-end-retry ((host port &optional at-connect) &body body)
  "Run BODY, which connects, with HOST and PORT, variables that have the own end as it was given, or
NIL: where that end is not to be had, the one or the other can be replaced. AT-CONNECT, a type, says
which failures of the connect itself can be about PORT, too."
  (let ((connect (gensym "CONNECT")))
    `(flet ((,connect (,host ,port) ,@body))
       (if (or ,host ,port)
           (with-retry (,port "connect" "local port"
                              (and ,port '(and (or address-in-use address-not-available
                                                   permission-denied)
                                               (or ,at-connect
                                                   (not (satisfies of-the-connect-p))))))
             (with-retry (,host "connect" "local host"
                                (and ,host '(and address-not-available
                                                 (not (satisfies of-the-connect-p)))))
               (,connect ,host ,port)))
           (,connect nil nil)))))

;;; By name

(defun invoke-if-there (name condition &rest arguments)
  "Invoke the restart NAME that is there for CONDITION (NIL: for any); NIL if there is none."
  (let ((restart (find-restart name condition)))
    (when restart
      (apply #'invoke-restart restart arguments))))

(defun retry (&optional condition)
  "Invoke the restart RETRY: do what failed once more, with the same arguments. It is there while a
connect, a listen or a look-up has failed. CONDITION: what was signalled (NIL: any).
Returns NIL if there is no such restart, as CONTINUE does."
  (invoke-if-there 'retry condition))

(defun wait-longer (&optional seconds condition)
  "Invoke the restart WAIT-LONGER: the call that has timed out goes on where it was, for SECONDS
from now (a non-negative real; NIL: as long as it takes). It is there while a TIMEOUT is signalled.
CONDITION: what was signalled (NIL: any). Returns NIL if there is no such restart."
  (invoke-if-there 'wait-longer condition seconds))

(defun replace-character (&optional (character nil character-p) condition)
  "Invoke the restart REPLACE-CHARACTER: read or write CHARACTER in place of what does not convert,
and go on. Without CHARACTER: U+FFFD for octets that came, a question mark for a character that has
no octets; one that is given and has none either is a USAGE-ERROR. It is there while a
DECODING-ERROR or an ENCODING-ERROR is signalled. CONDITION: what was signalled (NIL: any). Returns
NIL if there is no such restart."
  (if character-p
      (invoke-if-there 'replace-character condition character)
      (invoke-if-there 'replace-character condition)))
