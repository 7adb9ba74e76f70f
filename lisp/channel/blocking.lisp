;;;; blocking - how every operation blocks: with a limit of time, woken by whoever closes the socket
;;;; or sets its deadline.
;;;;
;;;; A blocking operation is always: try; if it would block, wait until the socket is ready, the
;;;; operation's limit has passed, or somebody has woken it; try again. Invariant: no interrupt
;;;; comes between a try and the change of state that goes with it, and nothing is held during a
;;;; wait but the wait itself, which is ended on every exit.

(in-package :port)

;;; Limits

(declaim (inline check-deadline))
(defun check-deadline (channel direction operation limit octets &optional facts)
  "Return LIMIT, or a later one that the user asked for; signal TIMEOUT if a deadline has passed,
whatever there is to read or room to write. A timeout is for calls that block: who has tried, and
would, looks at LIMIT itself."
  (if (endless-p channel direction)
      limit
      (check-deadlines channel direction operation limit octets facts)))

(defun check-deadlines (channel direction operation limit octets facts)
  (declare (type moment limit))
  (let ((deadline (min (channel-deadline channel direction)
                       ;; A limit beyond it is one that the user has asked for since.
                       (if (<= limit *deadline*) *deadline* +never+))))
    (if (passed-p deadline)
        (fail-timed-out channel direction operation limit octets :facts facts)
        limit)))

(defun check-limit (channel direction operation limit octets &key (about channel) facts)
  "Return LIMIT, or a later one that the user asked for; signal TIMEOUT, of OPERATION on ABOUT and
with FACTS in it, if it has passed, or the deadline of CHANNEL."
  (declare (type moment limit))
  (let ((deadline (channel-deadline channel direction)))
    (if (and (= limit +never+) (= deadline +never+))
        limit
        (if (>= (lport-clock-now) (min limit deadline))
            (fail-timed-out channel direction operation limit octets
                            :about about :facts facts)
            limit))))

(defun begin-call (channel direction)
  "As CALL-LIMIT; signals SOCKET-CLOSED where it is, and TIMEOUT if a deadline has passed, whatever
is buffered."
  (check-open channel (operation-of direction))
  (let ((limit (call-limit channel direction)))
    (if (in-time-p channel direction)
        limit
        (fail-timed-out channel direction (operation-of direction) limit 0))))

;;; Waiting

(defvar *before-wait* nil
  "A function that this thread calls when it is about to block, or NIL; see service-threads.lisp.")

(declaim (inline announce-wait))
(defun announce-wait ()
  (when *before-wait*
    (funcall (the function *before-wait*))))

(defmacro with-wait ((wait channel interest) &body body)
  "The value of BODY, with WAIT bound to a wait of the library that has begun; or the status why
there was none."
  `(with-waiting (,wait (lport-wait-begin (channel-handle ,channel) ,interest))
       (if (plusp ,wait)
           (progn ,@body)
           ,wait)
     (when (plusp ,wait)
       (lport-wait-end ,wait))))

(defmacro wait-once (channel interest deadline)
  "One wait: what lport_wait_poll says, or the status why there was none. DEADLINE is a form that is
evaluated once the wait has begun, so that whoever changes what is in it also wakes the wait."
  (let ((wait (gensym "WAIT")))
    `(with-wait (,wait ,channel ,interest)
       (lport-wait-poll ,wait ,deadline 0))))

(defmacro wait-for-two (first first-interest second second-interest deadline)
  "As WAIT-ONCE, for whichever of two channels comes first: what lport_wait_poll2 says."
  (let ((wait (gensym "WAIT")) (other (gensym "WAIT")))
    `(with-wait (,wait ,first ,first-interest)
       (with-wait (,other ,second ,second-interest)
         (lport-wait-poll2 ,wait ,other ,deadline 0)))))

(defun await (channel direction operation limit octets &key closing facts)
  "Wait until CHANNEL is ready in DIRECTION; return LIMIT or a later one. Signals TIMEOUT after
LIMIT or the socket's own deadline, SOCKET-CLOSED when somebody closes it; CLOSING is true for the
closer himself.
OCTETS, moved so far by the call, and FACTS are for the condition."
  (declare (type moment limit))
  (announce-wait)
  (loop
    (unless closing
      (check-open channel operation octets))
    (let ((result (wait-once channel (interest direction)
                             (cond (closing limit)
                                   ((channel-closing channel) 0)
                                   (t (min limit (channel-deadline channel direction)))))))
      (cond ((plusp result) (return limit))
            ((zerop result))            ; woken: look again
            ((/= (lport-status-kind result) +lport-timed-out+)
             (apply #'fail-on channel result operation :octets octets (facts-of facts)))
            ;; A deadline that was set anew meanwhile is no reason to end.
            ((>= (lport-clock-now) (min limit (channel-deadline channel direction)))
             (return (fail-timed-out channel direction operation limit octets
                                     :facts facts)))))))

(defun await-input-until (moment about operation limit octets &optional (channel about))
  "Wait once for input on ABOUT, a channel, by the limits of CHANNEL: LIMIT, or a later one that the
user asked for, if there may be some; NIL if MOMENT has passed, and no limit before it. Signals what
AWAIT does."
  (declare (type moment moment limit))
  (announce-wait)
  (let ((result (wait-once about +lport-input+
                           (min limit moment (channel-input-deadline channel)))))
    (cond ((>= result 0) limit)
          ((/= (lport-status-kind result) +lport-timed-out+)
           (fail-on about result operation :octets octets))
          ((or (< (min limit (channel-input-deadline channel)) moment)
               (< (lport-clock-now) moment)) ; the deadline was set anew meanwhile
           (check-limit channel :input operation limit octets :about about)))))

(defun await-input-if-time (moment channel operation limit octets)
  "As AWAIT-INPUT-UNTIL, without a look at CHANNEL where MOMENT has passed already."
  (declare (type moment moment))
  (and (not (passed-p moment))
       (await-input-until moment channel operation limit octets)))

;;; Answers
;;;
;;; After something was sent, or a receive has found nothing, what is received next is not there
;;; yet: the system call that would only say so is saved. Where the answer came soon the last time,
;;; the receive itself blocks for it; else a wait comes first. (To yield the processor instead would
;;; be cheaper still while no other process wants it; where one does, a deadline scheduler, as Linux
;;; has, lets whoever yields wait for milliseconds.)

(defparameter *soon* 1000000
  "Nanoseconds within which an answer comes soon.")

(declaim (type moment *patience-room*))
(defparameter *patience-room* (* 10 +lport-patience-ns+)
  "Nanoseconds that have to be left for a receive that waits in the call itself: it can come back
late by its own time.")

(defmacro patience ((channel) room-p)
  "The flags for the next receive of CHANNEL: where what is to be received is an answer that is not
there yet, the last one came soon, and ROOM-P says that the call has time, the receive itself waits
for it, for some milliseconds, which saves a system call; a close, a new deadline and an interrupt
have to wait so long too. Not for a thread that has to do something before it blocks."
  `(if (and (channel-patient ,channel)
            (channel-expecting ,channel)
            (null *before-wait*)
            ,room-p)
       +lport-patient+
       0))

(declaim (inline leaves-room-p))
(defun leaves-room-p (limit)
  "True if there is time for patience before LIMIT."
  (declare (type moment limit))
  (or (= limit +never+) (beyond-patience-p limit)))

(defun beyond-patience-p (limit)
  (declare (type moment limit))
  (> limit (moment-in *patience-room*)))

(defun await-answer (channel operation limit octets)
  "Wait for input, as AWAIT. Notes whether it came soon."
  (declare (type channel channel))
  (let ((began (lport-clock-now)))
    (prog1 (await channel :input operation limit octets)
      (setf (channel-patient channel) (< (- (lport-clock-now) began) *soon*)))))

(defmacro receiving-now ((channel) (flags) &body attempt)
  "The value of ATTEMPT, forms that receive with FLAGS, a count or a status; NIL where nothing can
be there yet, or CHANNEL is closed. What a call tries before it works out its limit."
  `(unless (channel-closing ,channel)
     (let ((,flags (patience (,channel)
                     (and (> (channel-input-timeout ,channel) *patience-room*)
                          (leaves-room-p (min *deadline* (channel-input-deadline ,channel)))))))
       (unless (and (channel-expecting ,channel) (zerop ,flags))
         ,@attempt))))

(declaim (inline positive))
(defun positive (count)
  "COUNT, which may be NIL, if it is more than 0; else NIL."
  (declare (type (or null (signed-byte 64)) count))
  (and count (plusp count) count))

(declaim (inline note-answer))
(defun note-answer (channel status)
  "Note what STATUS of a receive, a count or a failure, says of the next one."
  (declare (type (signed-byte 64) status))
  (if (plusp status)
      (setf (channel-expecting channel) nil)
      (setf (channel-expecting channel) (and (minusp status) (would-block-p status))
            (channel-patient channel) nil)))

;;; Trying

(eval-when (:compile-toplevel :load-toplevel :execute)
  (defun call-with-closures (call arguments &rest closures)
    "The form that calls the function CALL with ARGUMENTS and then, for each of CLOSURES, with a
function that is not allocated: (parameters form), or NIL for NIL."
    (let ((names (loop for closure in closures
                       collect (and closure (gensym "CLOSURE")))))
      `(flet ,(loop for name in names
                    for (parameters form) in closures
                    when name
                      collect `(,name ,parameters ,form))
         (declare (dynamic-extent ,@(loop for name in names
                                          when name
                                            collect `#',name)))
         (,call ,@arguments ,@(loop for name in names
                                    collect (and name `#',name))))))

  (defun closure-of (function &rest parameters)
    "What CALL-WITH-CLOSURES takes for FUNCTION, a form of a function of PARAMETERS, or NIL."
    (and function (list parameters `(funcall ,function ,@parameters)))))

(defmacro trying ((channel direction operation limit
                   &key (moved 0) facts closing until again fail)
                  attempt)
  "Make ATTEMPT, a form that does not block, until it has a count; wait in between. Values: the
count; LIMIT, or a later one that the user asked for. MOVED, how many the call has moved before, and
FACTS, a plist or a function that makes one, are for conditions; CLOSING: the caller is the one who
closes. UNTIL, a moment, for input: the count is NIL once that has passed and there is none. AGAIN,
a function of a status and LIMIT, is asked about every status but \"would block\": it
returns the limit with which ATTEMPT is to be made once more, having waited as that needs, or NIL
where it has failed; then FAIL, a function of the status, signals the condition (NIL: FAIL-ON
does)."
  (call-with-closures 'call-trying
                      (list channel direction operation limit moved facts closing until)
                      (list '() attempt)
                      (closure-of again (gensym "STATUS") (gensym "LIMIT"))
                      (closure-of fail (gensym "STATUS"))))

(defun call-trying (channel direction operation limit moved facts closing until
                    attempt again fail)
  (declare (type channel channel) (type function attempt) (type (or null function) again fail)
           (type moment limit) (type (or null moment) until))
  (loop
    (unless closing
      (check-open channel operation moved)
      (setf limit (check-deadline channel direction operation limit moved facts)))
    (let ((count (funcall attempt)))
      (declare (type (signed-byte 64) count))
      (cond ((>= count 0) (return (values count limit)))
            ((and until (would-block-p count))
             (setf limit (or (await-input-if-time until channel operation limit moved)
                             (return nil))))
            ((would-block-p count)
             (setf limit (await channel direction operation limit moved
                                :closing closing :facts facts)))
            ((let ((later (and again (funcall again count limit))))
               (when later
                 (setf limit later))))
            (fail (funcall fail count))
            (t (apply #'fail-on channel count operation :octets moved (facts-of facts)))))))

(defmacro receiving ((channel operation limit &key (moved 0) until fail) (flags) attempt)
  "As TRYING, for input that ATTEMPT receives with FLAGS: where none can be there yet the wait is
before it, or in it, as PATIENCE says; but with UNTIL ATTEMPT is made in any case."
  (call-with-closures 'call-receiving (list channel operation limit moved until)
                      (list (list flags) attempt)
                      (closure-of fail (gensym "STATUS"))))

(defun call-receiving (channel operation limit moved until attempt fail)
  (declare (type channel channel) (type function attempt) (type (or null function) fail)
           (type moment limit) (type (or null moment) until))
  (loop
    (check-open channel operation moved)
    (setf limit (check-deadline channel :input operation limit moved))
    (let ((flags (patience (channel)
                   (leaves-room-p (min limit (or until +never+)
                                       (channel-input-deadline channel))))))
      (when (and (channel-expecting channel) (zerop flags) (null until))
        (setf limit (await-answer channel operation limit moved)))
      (let ((count (funcall attempt flags)))
        (declare (type (signed-byte 64) count))
        (cond ((>= count 0) (return (values count limit)))
              ((and until (would-block-p count))
               (setf limit (or (await-input-if-time until channel operation limit moved)
                               (return nil))))
              ((would-block-p count))   ; NOTE-ANSWER has noted that it has to come first
              (fail (funcall fail count))
              (t (fail-on channel count operation :octets moved)))))))
