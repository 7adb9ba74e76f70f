;;;; deadline - seconds to absolute moments, and the one that is in force for this thread.
;;;;
;;;; Inside the library a deadline is an integer, nanoseconds of LPORT-CLOCK-NOW; +NEVER+ stands for
;;;; none. (That is 146 years after the start of the clock: the LPORT_NEVER of C would be a bignum.)
;;;; Users give seconds. Whatever waits takes the earliest of the deadlines that concern it.

(in-package :port)

(eval-when (:compile-toplevel :load-toplevel :execute)
  (defconstant +never+ (1- (ash 1 62)) "The moment that does not come, and the span without end."))

(defconstant +second+ 1000000000 "Nanoseconds.")

(deftype moment ()
  "A deadline: nanoseconds of the monotonic clock, at most +NEVER+. A span of them too."
  `(integer 0 ,+never+))

(deftype seconds ()
  "What users give for a span of time: a real number that is not negative and is a number."
  '(and real (satisfies seconds-p)))

(defun seconds-p (object)
  "True if OBJECT is a span of time: a real, not negative, not a NaN; infinity is a span."
  (and (realp object) (not (%nan-p object)) (not (minusp object))))

(declaim (type moment *deadline*))
(defvar *deadline* +never+
  "The moment by which every operation of this thread has to end; see WITH-DEADLINE.")

(defvar *deadline-seconds* nil
  "The seconds that were given for *DEADLINE*, for conditions; NIL where there is none.")

(declaim (inline passed-p))
(defun passed-p (moment)
  "True if MOMENT has come; for +NEVER+ the clock is not asked."
  (declare (type moment moment))
  (and (/= moment +never+) (>= (lport-clock-now) moment)))

(defun check-seconds (seconds)
  "SECONDS if it is a span of time; else a TYPE-ERROR."
  (check-argument :limit seconds 'seconds "a number of seconds, not negative, or NIL"))

(defun check-timeout (seconds)
  "Check SECONDS, a limit of time or NIL, of a call that may end before it has to look at it."
  (when seconds
    (check-seconds seconds)))

(defun nanoseconds (seconds)
  "SECONDS in nanoseconds, rounded up, at most +NEVER+."
  (cond ((typep seconds '(integer 0 1000000000)) (* seconds +second+)) ; the usual ones, quickly
        ((or (%infinity-p seconds) (>= seconds (/ +never+ +second+))) +never+)
        ;; %RATIONALIZE: 0.1 is meant as 1/10, not as the float next to it.
        (t (values (ceiling (* (%rationalize seconds) +second+))))))

(defun moment-in (span)
  "The moment SPAN nanoseconds from now."
  (declare (type moment span))
  (min +never+ (+ (lport-clock-now) span)))

(defun moment-after (seconds)
  "The moment SECONDS from now; never for NIL."
  (if (null seconds)
      +never+
      (moment-in (nanoseconds (check-seconds seconds)))))

(defun operation-deadline (timeout)
  "The moment by which an operation with TIMEOUT (seconds or NIL) that starts now has to end."
  (min (moment-after timeout) *deadline*))

(defun in-seconds (span)
  "SPAN, nanoseconds, in seconds, a double float."
  (/ span (float +second+ 1d0)))

(defun seconds-until (moment)
  "The seconds from now until MOMENT, not below 0; NIL for never."
  (unless (= moment +never+)
    (in-seconds (max 0 (- moment (lport-clock-now))))))

(defun seconds-since (moment)
  "The seconds from MOMENT until now."
  (in-seconds (- (lport-clock-now) moment)))

(defun limit-in-seconds (timeout limit)
  "The seconds that were given for LIMIT of an operation with TIMEOUT (NIL: none), for a condition;
NIL for no limit."
  (if (= limit *deadline*) *deadline-seconds* timeout))

(defun seconds-to-tell (status seconds begun)
  "The seconds that a condition for STATUS tells: SECONDS, those of the limit, if that has passed,
else those since BEGUN."
  (if (= (lport-status-kind status) +lport-timed-out+)
      seconds
      (seconds-since begun)))

(defun sooner (seconds others)
  "The lesser of SECONDS and OTHERS, each of which may be NIL for no limit."
  (if (and seconds others) (min seconds others) (or seconds others)))

(defun call-with-deadline (seconds function)
  "Call FUNCTION; every operation of PORT inside ends within SECONDS from now (a non-negative real;
NIL: no limit). See WITH-DEADLINE. Returns the values of FUNCTION."
  (let ((moment (moment-after seconds)))
    (if (< moment *deadline*)
        (let ((*deadline* moment) (*deadline-seconds* seconds))
          (funcall function))
        (funcall function))))

(defmacro with-deadline ((seconds) &body body)
  "Run BODY; every operation of PORT inside it ends within SECONDS from now: names, connects, reads,
writes, and the flush of a close. What might wait and begins later fails at once, with nothing
moved. SECONDS is a non-negative real; NIL means no limit; of nested ones the earlier counts. An
operation that has not ended by then signals TIMEOUT. It is for this thread: one that BODY makes has
no limit. STOP-SERVER has its DRAIN instead. CURRENT-DEADLINE tells what is left.
Returns the values of BODY."
  `(call-with-deadline ,seconds (lambda () ,@body)))

(defun current-deadline ()
  "Return the seconds that are left until the deadline of WITH-DEADLINE which holds here, for this
thread: 0.0d0 once it has passed; NIL: there is none. It is for what waits within BODY and is not of
PORT, such as a queue's condition variable."
  (seconds-until *deadline*))

;;; When a moment has passed

(defun signal-timeout (condition)
  "Signal CONDITION, a TIMEOUT. Its restart WAIT-LONGER returns as values the new limit, a moment,
and the seconds that were given for it."
  (signalling condition
    (wait-longer (&optional seconds)
      :report "Wait longer; asks for how many seconds."
      :interactive read-seconds
      (values (moment-after seconds) seconds))))

(defun check-moment (limit failure &optional seconds)
  "Values: LIMIT of something that is no socket yet, and SECONDS, which were given for it; or, if it
has passed, a later one that the user asked for, and those given for that. FAILURE, a function of a
status, makes the TIMEOUT to signal."
  (declare (type moment limit) (type function failure))
  (if (passed-p limit)
      (signal-timeout (funcall failure (lport-status-make +lport-timed-out+)))
      (values limit seconds)))

(defun read-seconds ()
  "Ask for a line with a number of seconds, or NIL, on it: a list of that."
  (loop
    (ask "Seconds to wait (NIL: for ever): ")
    (let ((answer (object-on-line (read-line *query-io*))))
      (when (typep answer '(or null seconds))
        (return (list answer))))))

(defun object-on-line (line)
  "The first object on LINE in the syntax of the standard; :NONE where there is none."
  (handler-case (with-standard-io-syntax
                  (let ((*read-eval* nil))
                    (values (read-from-string line))))
    ((or stream-error arithmetic-error) () :none)))
