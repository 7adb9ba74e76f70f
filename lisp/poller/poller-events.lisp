;;;; poller-events - the events that a wait in a poller returns.
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
           (unless (or (reported-p batch entry) (full-p batch))
             (add-event batch entry +silent+))))
    (declare (dynamic-extent #'tell))
    (round-if-due set #'tell)))
