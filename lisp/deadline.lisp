;;;; deadline - seconds to absolute moments, and the one that is in force for this thread.
;;;;
;;;; Inside the library a deadline is an integer: nanoseconds of LPORT-CLOCK-NOW, +LPORT-NEVER+ for
;;;; none. Users give seconds. Whatever waits takes the earliest of the deadlines that concern it.

(in-package :port)

(deftype moment ()
  "A deadline: nanoseconds of the monotonic clock, at most +LPORT-NEVER+."
  '(signed-byte 64))

(deftype seconds ()
  "What users give for a span of time: a real number that is not negative and is a number."
  '(and real (satisfies seconds-p)))

(defun seconds-p (object)
  "True if OBJECT is a span of time: a real, not negative, not a NaN; infinity is a span."
  (and (realp object) (not (%nan-p object)) (not (minusp object))))

(declaim (type moment *deadline*))
(defvar *deadline* +lport-never+
  "The moment by which every operation of this thread has to end; see WITH-DEADLINE.")

(defun check-seconds (seconds)
  "SECONDS if it is a span of time; else a TYPE-ERROR."
  (unless (seconds-p seconds)
    (error 'type-error :datum seconds :expected-type 'seconds))
  seconds)

(defun nanoseconds (seconds)
  "SECONDS in nanoseconds, rounded up, at most +LPORT-NEVER+."
  (if (or (%infinity-p seconds) (>= seconds (/ +lport-never+ 1000000000)))
      +lport-never+
      (values (ceiling (* (rational seconds) 1000000000)))))

(defun moment-after (seconds)
  "The moment SECONDS from now; never for NIL."
  (if (null seconds)
      +lport-never+
      (lport-clock-after (nanoseconds (check-seconds seconds)))))

(defun operation-deadline (timeout)
  "The moment by which an operation with TIMEOUT (seconds or NIL) that starts now has to end."
  (min (moment-after timeout) *deadline*))

(defun seconds-until (moment)
  "The seconds from now until MOMENT, not below 0; NIL for never."
  (unless (= moment +lport-never+)
    (/ (max 0 (- moment (lport-clock-now))) 1000000000.0d0)))

(defun call-with-deadline (seconds function)
  "Call FUNCTION; every operation of PORT inside ends within SECONDS from now (a non-negative real; NIL:
no limit). See WITH-DEADLINE. Returns the values of FUNCTION."
  (let ((*deadline* (min *deadline* (moment-after seconds))))
    (funcall function)))

(defmacro with-deadline ((seconds) &body body)
  "Run BODY; every operation of PORT inside it ends within SECONDS from now: names, connects, reads,
writes, and the flush of a close. SECONDS is a non-negative real; NIL means no limit; of nested ones
the earlier counts. An operation that has not ended by then signals TIMEOUT.
Returns the values of BODY."
  `(call-with-deadline ,seconds (lambda () ,@body)))
