;;;; poller-events - waiting in a poller, and the events that a wait returns.
;;;;
;;;; A batch has the vector that the library writes into and the conses of the list that a wait
;;;; returns; so a wait conses nothing once its batch is large enough. Invariant: a batch is for one
;;;; thread in one poller.

(in-package :port)

(defconstant +first-batch+ 64 "Events that a wait returns at most, to begin with.")
(defconstant +largest-batch+ 512 "And at most.")

(defstruct (event-batch (:copier nil) (:predicate nil)
                  (:constructor make-event-batch
                      (thread size
                       &aux (numbers (int64s-of-size (* size +lport-event-size+)))
                         (entries (make-array size :initial-element nil))
                         (spine (fresh-spine size)))))
  (thread nil :read-only t)
  (size 0 :type fixnum :read-only t)
  (numbers nil :type int64s :read-only t)
  (entries nil :type simple-vector :read-only t)
  (spine nil :type simple-vector :read-only t)
  (count 0 :type fixnum)
  (room 0 :type fixnum)                 ; for so many of them: the SIZE, or the LIMIT of the wait
  (first 0 :type (mod 3))               ; which kind of events came first where room was short
  (held nil)                            ; its thread may have taken events, and was not told yet
  (turn 0 :type (unsigned-byte 62))     ; that of the set when the wait for the events began
  (until +never+ :type moment))         ; by then its thread looks for a round; see wait-in-set

(defun fresh-spine (size)
  "SIZE conses, each with an event, (socket data . flags), in it."
  (let ((spine (make-array size)))
    (dotimes (index size spine)
      (setf (svref spine index) (list (list* nil nil nil))))))

(defun event-batch-of (set)
  "The batch of this thread in SET: a new one the first time, or where the last wait filled it."
  (let* ((thread (%current-thread))
         (batch (find thread (poll-set-batches set) :key #'event-batch-thread :test #'eq)))
    (if (and batch (or (< (event-batch-count batch) (event-batch-size batch))
                       (= (event-batch-size batch) +largest-batch+)))
        batch
        (let ((new (make-event-batch thread (if batch
                                                (* 2 (event-batch-size batch))
                                                +first-batch+))))
          (%with-lock ((poll-set-lock set))
            (setf (poll-set-batches set)
                  (cons new (remove-if (lambda (old)
                                         (or (eq old batch)
                                             (not (%thread-alive-p (event-batch-thread old)))))
                                       (poll-set-batches set)))))
          new))))

;;; The flags of an event for each combination of bits; all events share them.
(declaim (type (simple-vector 64) *flag-lists*))
(%defglobal *flag-lists*
    (let ((lists (make-array 64)))
      (dotimes (bits 64 lists)
        (setf (svref lists bits)
              (loop for (bit flag) in `((,+lport-input+ :input) (,+lport-output+ :output)
                                        (,+lport-ended+ :end-of-file) (,+lport-failed+ :error)
                                        (,+silent+ :timeout))
                    when (logtest bit bits)
                      collect flag)))))

(defmacro store-new (place value)
  "Store VALUE into PLACE unless it is there: a look is cheaper than a store that the collector is
told of."
  (let ((new (gensym "NEW")))
    `(let ((,new ,value))
       (unless (eq ,new ,place)
         (setf ,place ,new)))))

(declaim (inline add-event))
(defun add-event (batch entry bits)
  "Make ENTRY with BITS the next event of BATCH, which has room. It is mostly what it was."
  (declare (type event-batch batch) (type entry entry) (type (unsigned-byte 6) bits))
  (let* ((count (event-batch-count batch))
         (event (car (svref (event-batch-spine batch) count)))
         (facts (cdr event)))
    (declare (type cons event facts))
    (store-new (car event) (entry-socket entry))
    (store-new (car facts) (entry-data entry))
    (store-new (cdr facts) (svref *flag-lists* bits))
    (store-new (svref (event-batch-entries batch) count) entry)
    (setf (entry-place entry) count
          (event-batch-count batch) (1+ count))))

(declaim (inline note-arrival))
(defun note-arrival (channel)
  "What CHANNEL expects is there, so the next operation need not wait before it looks."
  (when (channel-expecting channel)
    (setf (channel-expecting channel) nil)))

(declaim (inline true-bits))
(defun true-bits (entry bits)
  "BITS of an event of ENTRY, as they are for the user."
  (declare (type (unsigned-byte 5) bits))
  (let ((channel (entry-channel entry)))
    (if (and (typep channel 'connection)
             (connection-secure channel))
        (secure-bits entry bits)
        bits)))

(defun secure-bits (entry bits)
  "As TRUE-BITS, of one that has TLS: what is ready may be nothing for the user. To look takes what
has come out of the system, and may be all that a write has waited for."
  (declare (type (unsigned-byte 5) bits))
  (let ((channel (entry-channel entry)))
    (when (logtest +lport-input+ bits)
      (let ((arrived (arrived-octets channel)))
        (cond ((would-block-p arrived) (setf bits (logandc2 bits +lport-input+)))
              (t (call-nowait (note-entry entry))
                 (when (zerop arrived)
                   (setf bits (logior bits +lport-ended+)))))))
    (if (and (logtest +lport-output+ bits)
             (library-has-p channel +lport-output+)
             (progn (arrived-octets channel)
                    (library-has-p channel +lport-output+)))
        (logandc2 bits +lport-output+)
        bits)))

(declaim (inline reported-p full-p))
(defun reported-p (batch entry)
  "True if ENTRY has an event in BATCH; it is at the place that the entry tells."
  (let ((place (entry-place entry)))
    (and (< place (event-batch-count batch))
         (eq entry (svref (event-batch-entries batch) place)))))

(defun full-p (batch)
  (>= (event-batch-count batch) (event-batch-room batch)))

(defun add-flags (event bits)
  "Add the flags of BITS to those of EVENT."
  (let ((now (position (cddr event) *flag-lists* :test #'eq)))
    (store-new (cddr event) (svref *flag-lists* (logior now bits)))))

(declaim (inline report))
(defun report (batch entry bits)
  "Make BITS an event of ENTRY in BATCH, or part of the one that it has there; as far as there is
room."
  (cond ((reported-p batch entry)
         (add-flags (car (svref (event-batch-spine batch) (entry-place entry))) bits))
        ((not (full-p batch))
         (add-event batch entry bits))))

(defun add-system-events (set batch found)
  "The FOUND events in the numbers of BATCH, but for those of sockets that have left SET."
  (declare (type poll-set set) (type event-batch batch) (type index found))
  (let ((numbers (event-batch-numbers batch)) (entries (poll-set-entries set)))
    (loop for index of-type index from 0 below (* found +lport-event-size+) by +lport-event-size+
          do (let ((entry (entry-among entries (aref numbers index))))
               (when entry
                 (note-arrival (entry-channel entry))
                 (let ((bits (true-bits entry (logand 31 (aref numbers (1+ index))))))
                   (unless (zerop bits)
                     (report batch entry bits))))))))

(defun has-buffered-input-p (entry)
  (and (logtest +lport-input+ (entry-interest entry))
       (input-buffered-p (entry-channel entry))))

(defun buffered-bits (entry)
  "The bits of ENTRY, which has input. In the library that may be the end that TLS tells."
  (let ((channel (entry-channel entry)))
    (if (and (connection-secure channel)
             (library-has-p channel +lport-input+)
             (zerop (arrived-octets channel)))
        (logior +lport-input+ +lport-ended+)
        +lport-input+)))

(defun add-buffered-event (batch entry)
  (report batch entry (buffered-bits entry)))

(defun add-buffered-events (set batch)
  "Report the noted entries that have buffered input, and keep them noted as long as they have;
forget the others."
  (call-deferred                        ; or an unwind would forget those that are taken
    (loop for entry = (take-noted set) then next
          for next = (and entry (entry-next entry))
          while entry
          do (clear-noted entry)
             (when (has-buffered-input-p entry)
               (add-buffered-event batch entry)
               (note-entry entry)))))

(defun event-list (batch)
  "The events of BATCH as a list; NIL for none."
  (let ((spine (event-batch-spine batch)) (count (event-batch-count batch)))
    (unless (zerop count)
      (loop for index of-type fixnum from 0 below (1- count)
            for link = (svref spine index)
            do (store-new (cdr link) (svref spine (1+ index))))
      (setf (cdr (svref spine (1- count))) nil)
      (svref spine 0))))

(defun add-silent-events (set batch)
  "Report the entries of SET that have been silent for too long, as far as BATCH has room."
  (flet ((tell (entry)
           (unless (reported-p batch entry)
             (report batch entry +silent+))))
    (declare (dynamic-extent #'tell))
    (round-if-due set #'tell)))

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
