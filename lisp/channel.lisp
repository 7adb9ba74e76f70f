;;;; channel - what every socket has below its class: the handle, the limits of time, waiting,
;;;; closing.
;;;;
;;;; A blocking operation is always: try; if it would block, wait until the socket is ready, the
;;;; operation's limit has passed, or somebody has woken it; try again. Invariant: no interrupt
;;;; comes between a try and the change of state that goes with it, and nothing is held during a
;;;; wait but the wait itself, which is ended on every exit.

(in-package :port)

(defstruct (channel (:copier nil) (:predicate nil))
  ;; What each operation looks at is together, as all of it is cold after a switch of threads.
  (handle 0 :type (unsigned-byte 62) :read-only t)
  (closing nil)                         ; true from the beginning of a close
  (expecting nil)                       ; what is received next has to come first, see PATIENCE
  (patient nil)                         ; it came soon, the last time
  ;; Which thread has which direction, see direction.lisp.
  (input-owner nil)
  (output-owner nil)
  (contended nil)
  (input-resident nil)
  (input-inside nil)
  (output-resident nil)
  (output-inside nil)
  (shared nil)
  (memberships '() :type list)          ; in pollers, see poller.lisp
  ;; Limits of time: spans of each blocking call, and moments for all calls.
  (input-timeout +never+ :type moment)
  (output-timeout +never+ :type moment)
  (input-deadline +never+ :type moment)
  (output-deadline +never+ :type moment)
  (input-deadline-seconds nil)          ; as given for the deadlines, for conditions
  (output-deadline-seconds nil)
  (input-granted '() :type list)        ; what WAIT-LONGER gave: (moment . seconds), the last first
  (output-granted '() :type list)
  (socket nil)                          ; the object users see, for conditions
  (keeper nil))                         ; a function to call once it is closed, or NIL

(deftype direction () '(member :input :output))

(declaim (inline interest))
(defun interest (direction)
  (if (eq direction :input) +lport-input+ +lport-output+))

(defun operation-of (direction)
  "The network-operation of a blocked transfer in DIRECTION."
  (if (eq direction :input) :read :write))

;;; Limits

(declaim (inline channel-deadline channel-timeout))
(defun channel-deadline (channel direction)
  (if (eq direction :input) (channel-input-deadline channel) (channel-output-deadline channel)))

(defun channel-timeout (channel direction)
  (if (eq direction :input) (channel-input-timeout channel) (channel-output-timeout channel)))

(defun set-deadline (channel direction moment seconds)
  "Set the deadline, which SECONDS was given for, and make whoever is blocked in DIRECTION look at
it."
  (if (eq direction :input)
      (setf (channel-input-deadline-seconds channel) seconds
            (channel-input-deadline channel) moment)
      (setf (channel-output-deadline-seconds channel) seconds
            (channel-output-deadline channel) moment))
  (lport-wait-wake (channel-handle channel) (interest direction))
  moment)

(defun (setf channel-timeout) (span channel direction)
  (if (eq direction :input)
      (setf (channel-input-timeout channel) span)
      (setf (channel-output-timeout channel) span)))

(defun channel-granted (channel direction)
  "What WAIT-LONGER has given to calls in DIRECTION, a list of (moment . seconds)."
  (if (eq direction :input) (channel-input-granted channel) (channel-output-granted channel)))

(defun (setf channel-granted) (granted channel direction)
  (if (eq direction :input)
      (setf (channel-input-granted channel) granted)
      (setf (channel-output-granted channel) granted)))

(declaim (inline call-limit))
(defun call-limit (channel direction)
  "The moment by which a call in DIRECTION that starts now has to end, but for the socket's
deadline, which can change while the call is blocked."
  (declare (type channel channel))
  (let ((timeout (channel-timeout channel direction)))
    (if (= timeout +never+)
        *deadline*
        (timeout-limit timeout))))

(defun timeout-limit (timeout)
  (declare (type moment timeout))
  (min *deadline* (moment-in timeout)))

;;; Where neither this thread nor the socket has a deadline, nobody looks at the clock before there
;;; is something to wait for: a timeout begins with the wait.

(declaim (inline endless-p in-time-p))
(defun endless-p (channel direction)
  "True if neither this thread nor CHANNEL has a deadline for calls in DIRECTION."
  (declare (type channel channel))
  (and (= *deadline* +never+) (= (channel-deadline channel direction) +never+)))

(defun in-time-p (channel direction)
  "True if no deadline forbids a call in DIRECTION that starts now."
  (or (endless-p channel direction)
      (before-deadlines-p channel direction)))

(defun before-deadlines-p (channel direction)
  (declare (type channel channel))
  (not (passed-p (min *deadline* (channel-deadline channel direction)))))

;;; Failing

(declaim (inline would-block-p))
(defun would-block-p (status)
  (= (lport-status-kind status) +lport-would-block+))

(defun fail-on (channel status operation &rest facts &key (octets 0) &allow-other-keys)
  "Signal the condition for STATUS of OPERATION on CHANNEL, with FACTS in it."
  (apply #'fail status operation :socket (channel-socket channel) :octets octets facts))

(defun facts-of (facts)
  "The plist FACTS, or the one that it makes: nobody has to know what only a failure tells."
  (if (functionp facts) (funcall facts) facts))

(declaim (inline check-open))
(defun check-open (channel operation &optional (octets 0))
  (when (channel-closing channel)
    (fail-closed channel operation octets)))

(defun fail-closed (channel operation &optional (octets 0))
  (fail-on channel (lport-status-make +lport-closed+) operation :octets octets))

(defun fired-seconds (channel direction limit)
  "The seconds that were given for what ended a call with LIMIT in DIRECTION: the socket's deadline,
WITH-DEADLINE, WAIT-LONGER, or the timeout."
  (cond ((< (channel-deadline channel direction) limit)
         (if (eq direction :input)
             (channel-input-deadline-seconds channel)
             (channel-output-deadline-seconds channel)))
        ((= limit *deadline*) *deadline-seconds*)
        (t (let ((granted (assoc limit (channel-granted channel direction))))
             (if granted
                 (cdr granted)
                 (span-seconds channel direction))))))

(defun span-seconds (channel direction)
  "The timeout of CHANNEL in DIRECTION in seconds, or NIL."
  (let ((span (channel-timeout channel direction)))
    (unless (= span +never+)
      (/ span +second+))))

(defun signal-timeout (condition)
  "Signal CONDITION, a TIMEOUT. Its restart WAIT-LONGER returns as values the new limit, a moment,
and the seconds that were given for it."
  (signalling condition
    (wait-longer (&optional seconds)
      :report "Wait longer; asks for how many seconds."
      :interactive read-seconds
      (values (moment-after seconds) seconds))))

(defconstant +granted+ 16
  "How many limits that WAIT-LONGER gave are remembered, as several calls may be given some.")

(defun note-granted (channel direction limit seconds)
  (let ((granted (channel-granted channel direction)))
    (setf (channel-granted channel direction)
          (acons limit seconds (if (< (length granted) +granted+) granted (butlast granted))))))

(defun fail-timed-out (channel direction operation limit octets &key (about channel) facts)
  "Signal the TIMEOUT of a limit of CHANNEL, which ended an operation on ABOUT, a channel, with
FACTS in it. Its restart WAIT-LONGER returns the new limit for this call: a moment."
  (let ((deadline (channel-deadline channel direction)))
    (multiple-value-bind (limit seconds)
        (signal-timeout (apply #'status-condition (lport-status-make +lport-timed-out+) operation
                               :socket (channel-socket about) :octets octets
                               :seconds (fired-seconds channel direction limit)
                               (facts-of facts)))
      (note-granted channel direction limit seconds)
      ;; A deadline of the socket that has passed would end the call again at once.
      (when (<= deadline (lport-clock-now))
        (set-deadline channel direction limit seconds))
      limit)))

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

;;; Waiting

(defvar *before-wait* nil
  "A function that this thread calls when it is about to block, or NIL; see service-threads.lisp.")

(declaim (inline announce-wait))
(defun announce-wait ()
  (when *before-wait*
    (funcall (the function *before-wait*))))

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
  "As CALL-LIMIT; signals TIMEOUT if a deadline has passed, whatever is buffered."
  (let ((limit (call-limit channel direction)))
    (if (in-time-p channel direction)
        limit
        (fail-timed-out channel direction (operation-of direction) limit 0))))

(defmacro wait-once (channel interest deadline)
  "One wait: what lport_wait_poll says, or the status why there was none. DEADLINE is a form that is
evaluated once the wait has begun, so that whoever changes what is in it also wakes the wait."
  (let ((wait (gensym "WAIT")))
    `(with-waiting (,wait (lport-wait-begin (channel-handle ,channel) ,interest))
         (if (plusp ,wait)
             (lport-wait-poll ,wait ,deadline 0)
             ,wait)
       (when (plusp ,wait)
         (lport-wait-end ,wait)))))

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
            ((>= (lport-clock-now) (min limit (if closing
                                                  limit
                                                  (channel-deadline channel direction))))
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
                   &key (moved 0) facts closing again fail)
                  attempt)
  "Make ATTEMPT, a form that does not block, until it has a count; wait in between. Values: the
count; LIMIT, or a later one that the user asked for. MOVED, how many the call has moved before, and
FACTS, a plist or a function that makes one, are for conditions; CLOSING: the caller is the one who
closes. AGAIN, a function of a status and LIMIT, is asked about every status but \"would block\": it
returns the limit with which ATTEMPT is to be made once more, having waited as that needs, or NIL
where it has failed; then FAIL, a function of the status, signals the condition (NIL: FAIL-ON
does)."
  (call-with-closures 'call-trying (list channel direction operation limit moved facts closing)
                      (list '() attempt)
                      (closure-of again (gensym "STATUS") (gensym "LIMIT"))
                      (closure-of fail (gensym "STATUS"))))

(defun call-trying (channel direction operation limit moved facts closing attempt again fail)
  (declare (type channel channel) (type function attempt) (type (or null function) again fail)
           (type moment limit))
  (loop
    (unless closing
      (check-open channel operation moved)
      (setf limit (check-deadline channel direction operation limit moved facts)))
    (let ((count (funcall attempt)))
      (declare (type (signed-byte 64) count))
      (cond ((>= count 0) (return (values count limit)))
            ((would-block-p count)
             (setf limit (await channel direction operation limit moved
                                :closing closing :facts facts)))
            ((let ((later (and again (funcall again count limit))))
               (when later
                 (setf limit later))))
            (fail (funcall fail count))
            (t (apply #'fail-on channel count operation :octets moved (facts-of facts)))))))

(defmacro receiving ((channel operation limit &key (moved 0) fail) (flags) attempt)
  "As TRYING, for input that ATTEMPT receives with FLAGS: where none can be there yet the wait is
before it, or in it, as PATIENCE says."
  (call-with-closures 'call-receiving (list channel operation limit moved)
                      (list (list flags) attempt)
                      (closure-of fail (gensym "STATUS"))))

(defun call-receiving (channel operation limit moved attempt fail)
  (declare (type channel channel) (type function attempt) (type (or null function) fail)
           (type moment limit))
  (loop
    (check-open channel operation moved)
    (setf limit (check-deadline channel :input operation limit moved))
    (let ((flags (patience (channel)
                   (leaves-room-p (min limit (channel-input-deadline channel))))))
      (when (and (channel-expecting channel) (zerop flags))
        (setf limit (await-answer channel operation limit moved)))
      (let ((count (funcall attempt flags)))
        (declare (type (signed-byte 64) count))
        (cond ((>= count 0) (return (values count limit)))
              ((would-block-p count))   ; NOTE-ANSWER has noted that it has to come first
              (fail (funcall fail count))
              (t (fail-on channel count operation :octets moved)))))))

;;; Places that several threads change

(defmacro change-atomically ((value place) new)
  "PLACE becomes NEW, a form in which VALUE is what it was. The subforms of PLACE and NEW may be
evaluated more than once."
  `(loop for ,value = ,place
         until (eq ,value (%compare-and-swap ,place ,value ,new))))

;;; Pollers

(declaim (inline note-buffered))
(defun note-buffered (connection)
  "The buffer of CONNECTION has been filled: see to it that its pollers look."
  (when (channel-memberships connection)
    (note-members connection)))

;;; Closing

(defparameter *leaving-nanoseconds* 50000000
  "How long a close waits for other threads to leave the socket that it has just closed.")

(defun begin-close (channel)
  "Mark CHANNEL as closing and wake whoever is blocked on it: true for the first caller."
  (when (null (%compare-and-swap (channel-closing channel) nil t))
    (lport-wait-wake (channel-handle channel) (logior +lport-input+ +lport-output+))
    t))

(defun close-handle (channel reset)
  "Close the handle of CHANNEL, with a reset if RESET: true if the descriptor is gone, NIL if
another thread is just leaving it."
  (/= 1 (lport-socket-close (channel-handle channel) (if reset +lport-reset+ 0))))

(defun wait-until-left (channel)
  "Wait a moment for the descriptor of CHANNEL, closed, to be gone. A thread that is still inside
later than that closes it as it leaves."
  (lport-socket-gone (channel-handle channel) (moment-in *leaving-nanoseconds*)))
