;;;; channel - what every socket has below its class: the handle, the limits of time, the places
;;;; that threads share, closing.
;;;;
;;;; Invariant: whoever changes what a blocked thread looks at, a deadline or the mark of a close,
;;;; stores it first and wakes that thread then.

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
  (relief nil)                          ; a function to call when it was contended, or NIL
  (input-resident nil)
  (input-inside nil)
  (output-resident nil)
  (output-inside nil)
  (shared nil)
  (memberships '() :type list)          ; in pollers, see membership.lisp
  ;; Limits of time: spans of each blocking call, and moments for all calls.
  (input-timeout +never+ :type moment)
  (output-timeout +never+ :type moment)
  (input-deadline +never+ :type moment)
  (output-deadline +never+ :type moment)
  (input-deadline-seconds nil)          ; as given for the deadlines, for conditions
  (output-deadline-seconds nil)
  (input-granted '() :type list)        ; what a call was given: (moment . seconds), the last first
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
  "What WAIT-LONGER, or a timeout of their own, has given to calls in DIRECTION, a list of (moment .
seconds)."
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

(defun tls-status-p (status)
  (<= +lport-tls-failed+ (lport-status-kind status) +lport-certificate-refused+))

(defun session-text (handle what)
  "The text that the library has of WHAT; \"\" for none, and where there is no session."
  (let ((text (text-from (pointer cap) (lport-tls-text handle what pointer cap))))
    (if (stringp text) text "")))

(defun tls-facts (channel status)
  "What a condition for STATUS says of CHANNEL, if STATUS is of TLS: a plist of facts for FAIL."
  (when (tls-status-p status)
    (let ((problem (session-text (channel-handle channel) +lport-tls-problem+)))
      (unless (string= problem "")
        (list :message "~A: ~A" :arguments (list (status-text status) problem))))))

(defun fail-on (channel status operation &rest facts &key (octets 0) &allow-other-keys)
  "Signal the condition for STATUS of OPERATION on CHANNEL, with FACTS in it."
  (apply #'fail status operation :socket (channel-socket channel) :octets octets
         (append facts (tls-facts channel status))))

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
WITH-DEADLINE, WAIT-LONGER, a timeout of the call, or that of the socket."
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

(defconstant +granted+ 16
  "How many limits that calls were given are remembered, as several calls may be given some.")

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

;;; Places that several threads change

(defmacro change-atomically ((value place) new)
  "PLACE becomes NEW, a form in which VALUE is what it was. The subforms of PLACE and NEW may be
evaluated more than once."
  `(loop for ,value = ,place
         until (eq ,value (%compare-and-swap ,place ,value ,new))))

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
