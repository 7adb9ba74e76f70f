;;;; poller-timeouts - sockets in a poller that have had no event for as long as their TIMEOUT says.
;;;;
;;;; No list is kept of who is due when, which each event would change. There is a moment at which
;;;; somebody in a wait looks through all entries, the round, and finds who is due, and when the
;;;; next one will be. Invariants: no entry is due before the next round, but for a grain; so
;;;; whoever makes an entry due earlier makes the round earlier. And while threads wait there is one
;;;; that wakes for the round, or is about to look for it: it knew of the round when its wait began,
;;;; or is woken; and who leaves looks whether there is another, and wakes one if not.

(in-package :port)

(defparameter *round-grain* 10000000
  "Nanoseconds from one round to the next at the least, and so how late one may be.")

(defconstant +silent+ 32 "The bit of the flag :TIMEOUT, beside those that the library tells.")

(declaim (inline timed-p))
(defun timed-p (set)
  "True if there will be a round in SET."
  (/= +never+ (poll-set-round-at set)))

(defun due-at (entry)
  "The moment at which ENTRY will have been silent for too long."
  (if (entry-taken entry)
      +never+
      (min +never+ (+ (entry-since entry) (entry-span entry)))))

(defun begin-silence (set entry)
  "From now on ENTRY is silent, and there is a round in SET when it is due: true if that comes
earlier by this, and then TELL-OF-ROUND has to follow. With the lock held, and so that no round can
see ENTRY as it is now with a SINCE from before."
  (when (/= +never+ (entry-span entry))
    (setf (entry-since entry) (lport-clock-now))
    (let ((due (due-at entry)))
      (declare (type moment due))
      (when (< due (poll-set-round-at set))
        (setf (poll-set-round-at set) due)
        t))))

(defun tell-of-round (set)
  "The next round of SET comes earlier than whoever waits has known. Without the lock, as its
release comes between that and the look at who waits."
  (when (plusp (poll-set-waiting set))
    (lport-poller-wake (channel-handle set))))

(defun make-round (set now report)
  "Call REPORT with each entry of SET that is due NOW, and return when the next round is: after a
grain where some were due, as who was to be told of them may be unwound before that."
  (declare (type moment now) (type function report))
  (let ((next +never+))
    (declare (type moment next))
    (loop for entry across (poll-set-entries set)
          when entry
            do (let ((due (due-at entry)))
                 (declare (type moment due))
                 (when (<= due now)
                   (funcall report entry))
                 (setf next (min next due))))
    (if (= next +never+)
        +never+
        (max next (+ now *round-grain*)))))

(defun round-if-due (set report)
  "MAKE-ROUND, where it is time for that and no other thread has been faster."
  (let ((now (lport-clock-now)))
    (when (>= now (poll-set-round-at set))
      (%with-lock ((poll-set-lock set))
        (when (>= now (poll-set-round-at set))
          (setf (poll-set-round-at set) (make-round set now report)))))))
