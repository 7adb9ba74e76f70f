;;;; poller-wait - waiting in a poller, by as many threads as like to.
;;;;
;;;; A wait asks the library, which may be undone by an unwind at any moment, and only then takes
;;;; what it returns. Invariant: what a thread has taken and was not told of is given back; and a
;;;; thread that leaves leaves nothing undone that others wait for.

(in-package :port)

;;; Leaving

(defun sure-of-round-p (set)
  "True if a thread looks for the next round of SET in time."
  (let ((round-at (poll-set-round-at set)))
    (declare (type moment round-at))
    (loop for batch in (poll-set-batches set)
            thereis (<= (the moment (event-batch-until batch)) round-at))))

(defun leave-round (set batch)
  "The thread of BATCH leaves POLLER-WAIT, if it has not yet, and does not look for the next round
of SET any more. The lock is for its barrier: of two that leave at a time one at least sees that the
other does."
  (when (/= +never+ (event-batch-until batch))
    (call-deferred
      (setf (event-batch-until batch) +never+)
      (when (and (timed-p set)
                 (plusp (poll-set-waiting set))
                 (not (%with-lock ((poll-set-lock set))
                        (sure-of-round-p set))))
        (lport-poller-wake (channel-handle set))))))

;;; Who is told of an event has it: that of ONCE nobody else is told of, and a TIMEOUT begins anew.
;;; This comes last of all, when nothing can come in between but an unwind: so that nothing is lost,
;;; that gives back what was claimed.

(defun claim-entry (entry batch)
  "Take its event from ENTRY for BATCH: true if that has it, and no other one. Not one that may be
from before events were asked for: it may have been dealt with; one that is not is reported again.
To be called with interrupts deferred."
  (eq t (with-entry (entry set handle)
          (unless (or (entry-taken entry)
                      (> (entry-turn entry) (event-batch-turn batch)))
            (setf (entry-taken entry) batch
                  (entry-interest entry) 0)
            (not (minusp (lport-poller-claim (channel-handle set) handle)))))))

(defun give-back-entry (entry batch)
  "If BATCH has taken the event of ENTRY it is for anybody. To be called with interrupts deferred."
  (asking (entry set handle sooner)
    (when (eq batch (entry-taken entry))
      (ask-for-events set entry handle (entry-asked entry))
      (setf sooner (begin-silence set entry)))))

(defun take-events (set batch)
  "Leave in BATCH what this thread is told of. What is buffered in a socket that is left for others
is not: who was woken for that was this thread."
  (let ((spine (event-batch-spine batch)) (entries (event-batch-entries batch)) (kept 0)
        (now (lport-clock-now)))
    (declare (type index kept))
    (setf (event-batch-held batch) t)
    (dotimes (index (event-batch-count batch))
      (let ((entry (svref entries index)))
        (when (or (not (entry-once entry)) (claim-entry entry batch))
          (setf (entry-since entry) now)
          (rotatef (svref entries kept) (svref entries index))
          (rotatef (svref spine kept) (svref spine index))
          (incf kept))))
    (when (and (< kept (shiftf (event-batch-count batch) kept))
               (poll-set-noted set)
               (plusp (poll-set-waiting set)))
      (lport-poller-wake (channel-handle set)))))

(defun give-back-events (batch)
  "What this thread has claimed and not been told of is for anybody."
  (setf (event-batch-held batch) nil)
  (loop for index below (event-batch-count batch)
        do (give-back-entry (svref (event-batch-entries batch) index) batch)))

(defun events-taken (set batch)
  "As EVENT-LIST, of what this thread is told of in BATCH, which is held until POLLER-WAIT returns.
It leaves here, as no interrupts may be deferred after that: they would come when nobody would give
back what they take away."
  (call-deferred
    (take-events set batch)
    (let ((events (event-list batch)))
      (when events
        (leave-round set batch))
      events)))

;;; Waiting

(defun wait-in-set (set batch deadline &optional (room (event-batch-size batch)))
  "One wait in SET until DEADLINE; one that does not block where there may be buffered input, or a
POLLER-WAKE whose wait was unwound: what lport_poller_wait says. It counts itself as waiting and
then looks for noted entries; whoever notes an entry then looks for threads that wait: so one of the
two sees the other. So it is with the next round, and until it knows of that it does not count as
one that looks for it."
  (declare (type moment deadline))
  (let ((handle (channel-handle set)))
    (with-waiting (turn (progn (setf (event-batch-until batch) +never+)
                               (%add-atomically (poll-set-waiting set) 1)
                               (lport-poller-begin handle)))
        (if (minusp turn)
            turn
            (with-int64s (pointer (event-batch-numbers batch) 0 nil :out)
              (lport-poller-wait handle turn pointer room
                                 (if (or (poll-set-noted set) (poll-set-woken set))
                                     0
                                     (setf (event-batch-until batch)
                                           (min deadline (poll-set-round-at set))))
                                 0)))
      (setf (event-batch-until batch) 0) ; it will look at once, or leave
      (%add-atomically (poll-set-waiting set) -1)
      (unless (minusp turn)
        (lport-poller-end handle turn)))))

(defun poller-wait (poller &key timeout limit)
  "Wait until sockets in POLLER are ready and return their events, a list of (SOCKET DATA . FLAGS);
NIL when TIMEOUT seconds (NIL: no limit) pass without one, or POLLER-WAKE is called: then the second
value is true. FLAGS are some of :INPUT, :OUTPUT (of those that POLLER reports of it), :END-OF-FILE
(the peer has ended its output; there may be input before it, but where TLS alone tells of the end
this is known once all that was before it has been read), :ERROR (the connection failed; the next
operation signals how) and :TIMEOUT (there was no event for as long as POLLER-ADD was told).
Level-triggered: what is ready and not dealt with is reported again, to other threads in this call
too, so that one of several may find that there is nothing any more; unless the socket is in POLLER
with ONCE, see POLLER-ADD. At most LIMIT events come at once, or 512 if that is NIL; the others come
next time, and nobody is passed over for ever. Threads that share sockets of ONCE, and may be long
with one, do well with a LIMIT of 1: no other can take what they have been told of. The list and
what is in it, but for the socket and the datum, belong to POLLER and are used again by this
thread's next POLLER-WAIT in it, which therefore conses nothing; copy what you keep.
Half a character that has come is input too, and is ready as long as it is left in the buffer: who
does not wait for its other half takes octets, with READ-SOME.
Conditions: SOCKET-CLOSED, when POLLER is closed, by whomever; TIMEOUT, when the deadline of
WITH-DEADLINE passes. Restart: WAIT-LONGER. Source: epoll_wait(2)."
  (check-argument :wait limit '(or null (integer 1)) "a number of events, 1 or more, or NIL")
  (let* ((set (check-poller poller :wait))
         (batch (event-batch-of set))
         (size (event-batch-size batch))
         (until (moment-after timeout)))
    (unwind-protect (multiple-value-prog1 (wait-for-events set batch until
                                                           (if limit (min limit size) size))
                      (setf (event-batch-held batch) nil))
      (leave-round set batch)
      (when (event-batch-held batch)
        (call-deferred (give-back-events batch))))))

(defun wait-for-events (set batch until room)
  "POLLER-WAIT with the moment UNTIL, for as many events as there is ROOM."
  (declare (type moment until) (type fixnum room))
  (let ((limit *deadline*))
    (declare (type moment limit))
    (loop
      (check-set set)
      (setf limit (check-limit set :input :wait limit 0))
      (let ((result (next-events set batch (min until limit) room)))
        (declare (type (signed-byte 64) result))
        (cond ((and (zerop result) (woken-p set)) (return (values nil t)))
              ((plusp (event-batch-count batch))
               (let ((events (if (or (poll-set-once set) (timed-p set))
                                 (events-taken set batch)
                                 (event-list batch))))
                 (when events
                   (return events))))
              ((>= result 0))           ; of sockets that have left meanwhile, or for a buffer
              ((= (lport-status-kind result) +lport-would-block+))
              ((/= (lport-status-kind result) +lport-timed-out+)
               (fail-of-set set result))
              ((woken-p set) (return (values nil t)))
              ((>= (lport-clock-now) until) (return (values nil nil))))))))

(defun next-events (set batch deadline room)
  "Wait once until DEADLINE and put what there is into BATCH, as far as there is ROOM; the library's
result. Where that is short each kind of events comes first in its turn."
  (declare (type fixnum room))
  (let* ((turn (poll-set-turn set))
         (result (wait-in-set set batch deadline room))
         (first (if (< room (event-batch-size batch))
                    (setf (event-batch-first batch) (mod (1+ (event-batch-first batch)) 3))
                    0)))
    (declare (type (signed-byte 64) result))
    ;; Now, as an interrupt may have used it during the wait.
    (setf (event-batch-count batch) 0
          (event-batch-room batch) room
          (event-batch-turn batch) turn)
    (dotimes (kind 3)
      (ecase (mod (+ first kind) 3)
        (0 (when (plusp result)
             (add-system-events set batch result)))
        (1 (when (poll-set-noted set)
             (add-buffered-events set batch)))
        (2 (when (timed-p set)
             (add-silent-events set batch)))))
    result))

(defun woken-p (set)
  "True for the one that a POLLER-WAKE is for. A wake can also be for buffered input, or for a round
that comes earlier, of which LEAVE-ROUND tells another thread."
  (when (eq t (%compare-and-swap (poll-set-woken set) t nil))
    (when (poll-set-noted set)
      (lport-poller-wake (channel-handle set)))
    t))
