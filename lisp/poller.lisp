;;;; poller - readiness of many sockets: what is in a poller, waiting, events; WAIT-FOR-INPUT.
;;;;
;;;; The library knows which descriptors are ready; this file adds which sockets have input in a
;;;; buffer of ours. Whoever fills a buffer notes that, if the socket is in a poller, and only those
;;;; that were noted are looked at, so that a wait does not depend on how many sockets are idle.
;;;; WAIT-FOR-INPUT hears of buffers in the same way, by entries that last as long as it does.
;;;;
;;;; Invariant: an entry is found by its handle, generation and all; so an event is never taken for
;;;; one of another socket that has got the same place in the table.

(in-package :port)

(defstruct (entry (:copier nil) (:predicate nil))
  "A socket in a poller."
  (set nil :read-only t)
  (socket nil :read-only t)
  (channel nil :type channel :read-only t)
  (data nil)
  (interest 0 :type (unsigned-byte 8))
  (place 0 :type fixnum)                ; in the batch that reported it last
  (noted nil)                           ; in the list NOTED of the set
  (next nil))                           ; there

(defstruct (poll-set (:include channel) (:copier nil) (:predicate nil))
  "What is below a POLLER."
  (lock (%make-lock) :read-only t)      ; guards changes of ENTRIES and BATCHES
  (entries (make-array 64 :initial-element nil) :type simple-vector) ; by place in the table
  (batches '() :type list)
  (noted nil)                           ; entries whose sockets may have buffered input
  (waiting 0 :type (unsigned-byte 64))  ; threads that are in a wait, about
  (woken nil))                          ; POLLER-WAKE was called

(defclass poller ()
  ((channel :initarg :channel :reader endpoint-channel :type poll-set))
  (:documentation "A set of sockets, each with the directions and a datum of the user's, that says
which of them are ready: level-triggered, without a limit of descriptors, usable from several
threads. Made by MAKE-POLLER; CLOSE closes it, not what is in it."))

(defmethod print-object ((poller poller) stream)
  (let ((set (endpoint-channel poller)))
    (print-plainly poller stream
                   (plain-format "~D socket~:P~@[ (closed)~]"
                                 (count nil (poll-set-entries set) :test-not #'eq)
                                 (channel-closing set))
                   :identity t)))

(defun check-poller (object operation)
  (check-argument operation object 'poller "a POLLER")
  (endpoint-channel object))

(defun make-poller ()
  "Return a new POLLER, without sockets. It is to be closed by CLOSE; a thread that is in
POLLER-WAIT then gets SOCKET-CLOSED. Conditions: RESOURCE-EXHAUSTED. Source: epoll_create1(2)."
  (make-poller-with +lport-poller-best+))

(defun make-poller-with (backend)
  "A poller on BACKEND, one of the numbers +LPORT-POLLER-...+."
  (opened (open-endpoint (lambda () (lport-poller-open backend))
                         (lambda (handle)
                           (make-instance 'poller :channel (make-poll-set :handle handle))))
          :open))

;;; Entries

(declaim (inline handle-place entry-among find-entry))
(defun handle-place (handle)
  "The place in the library's table that the socket of HANDLE has, and no other open one."
  (declare (type (unsigned-byte 62) handle))
  (logand handle +lport-socket-index+))

(defun entry-among (entries handle)
  "The entry of the socket with HANDLE in ENTRIES, those of a set, or NIL."
  (declare (type simple-vector entries) (type (unsigned-byte 62) handle))
  (let ((place (handle-place handle)))
    (when (< place (length entries))
      (let ((entry (svref entries place)))
        (when (and entry (= handle (channel-handle (entry-channel entry))))
          entry)))))

(defun find-entry (set handle)
  "The entry of the socket with HANDLE in SET, or NIL."
  (entry-among (poll-set-entries set) handle))

;;; The lock is that of the set, and a socket may be in several.

(defun join-members (entry)
  "Let ENTRY be noted when the buffer of its socket is filled, until LEAVE-MEMBERS. What has been
buffered without its being noted is seen from here on."
  (let ((channel (entry-channel entry)))
    (change-atomically (members (channel-memberships channel))
      (cons entry members))
    ;; Who fills a buffer looks for members behind it without a fence, but owns the direction.
    (unless (member (owner channel :input) (list nil (%current-thread)))
      (fence-threads))))

(defun leave-members (entry)
  (change-atomically (members (channel-memberships (entry-channel entry)))
    (remove entry members)))

(defun store-entry (set entry)
  "Put ENTRY into the vector of SET, which grows. With the lock held."
  (let* ((entries (poll-set-entries set))
         (place (handle-place (channel-handle (entry-channel entry)))))
    (when (>= place (length entries))
      (let ((new (make-array (* 2 (1+ place)) :initial-element nil)))
        (replace new entries)
        (setf entries new)))
    (setf (svref entries place) entry
          (poll-set-entries set) entries)))

(defun forget-entry (entry)
  "Take ENTRY out of its set, as far as this side of the boundary goes."
  (let ((set (entry-set entry)) (channel (entry-channel entry)))
    (%with-lock ((poll-set-lock set))
      (when (eq entry (find-entry set (channel-handle channel)))
        (setf (svref (poll-set-entries set) (handle-place (channel-handle channel))) nil))
      (leave-members entry)
      (setf (entry-interest entry) 0))))

(defun leave-pollers (channel)
  "CHANNEL has been closed, and the library has taken it out of its pollers."
  (loop for entry = (first (channel-memberships channel)) ; others take theirs out meanwhile
        while entry
        do (forget-entry entry)))

(defun interest-bits (input output)
  (logior (if input +lport-input+ 0) (if output +lport-output+ 0)))

(defun poller-add (poller socket &key (output nil) (input (not output)) data)
  "Put SOCKET, of any kind, into POLLER, and return SOCKET. INPUT true (the default unless OUTPUT is
given): report when there is input, buffered or not, a connection to accept, or end of file; OUTPUT
true: when there is room to write; neither: nothing for now, see POLLER-MODIFY. DATA, any object,
comes with its events. The poller keeps SOCKET from becoming garbage until POLLER-REMOVE, or until
it is closed, by whomever: then it leaves by itself. Conditions: USAGE-ERROR, SOCKET is in POLLER
already; SOCKET-CLOSED; RESOURCE-EXHAUSTED. Source: epoll_ctl(2)."
  (let ((set (check-poller poller :wait))
        (channel (endpoint-channel (check-endpoint socket :wait)))
        (interest (interest-bits input output)))
    (check-open set :wait)
    (check-open channel :wait)
    (let ((status (add-entry set (make-entry :set set :socket socket :channel channel :data data
                                             :interest interest))))
      (when (minusp status)
        (fail-in set channel status "is in ~A already" poller)))
    socket))

(defun add-entry (set entry)
  "Add ENTRY to SET on both sides; the library's status."
  (let ((channel (entry-channel entry)) (status 0))
    (%with-lock ((poll-set-lock set))
      (setf status (lport-poller-add (channel-handle set) (channel-handle channel)
                                     (entry-interest entry)))
      (unless (minusp status)
        (store-entry set entry)
        (join-members entry)))
    (unless (minusp status)
      (when (or (minusp (lport-socket-state (channel-handle channel)))
                (channel-closing set))
        (forget-entry entry))           ; closed just now, before it could see this
      (note-if-buffered channel))
    status))

(defun fail-in (set channel status control &rest arguments)
  "Signal the condition for STATUS, which the library gave for CHANNEL in SET; of LPORT-INVALID
CONTROL and ARGUMENTS say the reason."
  (cond ((= (lport-status-kind status) +lport-invalid+)
         (fail-as 'usage-error :wait :invalid :socket (channel-socket channel)
                  :message "the socket ~?" :arguments (list control arguments)))
        ((channel-closing set) (fail-closed set :wait))
        (t (fail-on channel status :wait))))

(defun poller-modify (poller socket &key (input nil input-p) (output nil output-p)
                                      (data nil data-p))
  "Change what POLLER reports of SOCKET, which is in it: INPUT, OUTPUT and DATA as of POLLER-ADD;
each that is not given stays as it is. Waits under way in other threads obey it. Returns SOCKET.
Conditions: USAGE-ERROR, SOCKET is not in POLLER; SOCKET-CLOSED. Source: epoll_ctl(2)."
  (let* ((set (check-poller poller :wait))
         (channel (endpoint-channel (check-endpoint socket :wait)))
         (entry (find-entry set (channel-handle channel)))
         (status (lport-status-make +lport-invalid+)))
    (check-open set :wait)
    (check-open channel :wait)
    (when entry
      (let* ((now (entry-interest entry))
             (new (interest-bits (if input-p input (logtest now +lport-input+))
                                 (if output-p output (logtest now +lport-output+)))))
        (setf status (change-entry set entry new))
        (when data-p
          (setf (entry-data entry) data))))
    (when (minusp status)
      (fail-in set channel status "is not in ~A" poller))
    socket))

(defun change-entry (set entry interest)
  (let ((channel (entry-channel entry)) (status 0))
    (%with-lock ((poll-set-lock set))
      (setf status (lport-poller-modify (channel-handle set) (channel-handle channel) interest))
      (unless (minusp status)
        (setf (entry-interest entry) interest)))
    (note-if-buffered channel)
    status))

(defun poller-remove (poller socket)
  "Take SOCKET out of POLLER: true if it was in it. It stays open. A wait under way in another
thread may still report it. Source: epoll_ctl(2)."
  (let* ((set (check-poller poller :wait))
         (channel (endpoint-channel (check-endpoint socket :wait)))
         (entry (find-entry set (channel-handle channel))))
    (when entry
      (lport-poller-remove (channel-handle set) (channel-handle channel))
      (forget-entry entry)
      t)))

;;; Buffered input

(defun note-members (channel)
  (dolist (entry (channel-memberships channel))
    (note-entry entry)
    (let ((set (entry-set entry)))
      (when (and (plusp (poll-set-waiting set))
                 (logtest +lport-input+ (entry-interest entry)))
        (lport-poller-wake (channel-handle set))))))

(defun note-if-buffered (channel)
  (when (and (typep channel 'connection) (plusp (buffered-input channel)))
    (note-members channel)))

(defun note-entry (entry)
  "Put ENTRY into the list of those to look at, once."
  (when (null (%compare-and-swap (entry-noted entry) nil t))
    (let ((set (entry-set entry)))
      (loop for head = (poll-set-noted set)
            do (setf (entry-next entry) head)
            until (eq head (%compare-and-swap (poll-set-noted set) head entry))))))

(defun let-note (entry)
  "ENTRY, taken from the list, may be put there again. By no plain store: what is looked at behind
it, how much is buffered, could be older than what somebody has buffered who found ENTRY noted
still."
  (%compare-and-swap (entry-noted entry) t nil))

(defun take-noted (set)
  "The first of the entries of SET to look at, linked by ENTRY-NEXT; none is left there."
  (loop for head = (poll-set-noted set)
        until (eq head (%compare-and-swap (poll-set-noted set) head nil))
        finally (return head)))

;;; Events
;;;
;;; A batch has the vector that the library writes into and the conses of the list that a wait
;;; returns, for one thread in one poller; so a wait conses nothing once its batch is large enough.

(defconstant +first-batch+ 64 "Events that a wait returns at most, to begin with.")
(defconstant +largest-batch+ 512 "And at most.")

(defstruct (batch (:copier nil) (:predicate nil)
                  (:constructor make-batch
                      (thread size
                       &aux (numbers (int64s-of-size (* size +lport-event-size+)))
                         (entries (make-array size :initial-element nil))
                         (spine (fresh-spine size)))))
  (thread nil :read-only t)
  (size 0 :type fixnum :read-only t)
  (numbers nil :type int64s :read-only t)
  (entries nil :type simple-vector :read-only t)
  (spine nil :type simple-vector :read-only t)
  (count 0 :type fixnum))

(defun fresh-spine (size)
  "SIZE conses, each with an event, (socket data . flags), in it."
  (let ((spine (make-array size)))
    (dotimes (index size spine)
      (setf (svref spine index) (list (list* nil nil nil))))))

(defun batch-of (set)
  "The batch of this thread in SET: a new one the first time, or where the last wait filled it."
  (let* ((thread (%current-thread))
         (batch (find thread (poll-set-batches set) :key #'batch-thread :test #'eq)))
    (if (and batch (or (< (batch-count batch) (batch-size batch))
                       (= (batch-size batch) +largest-batch+)))
        batch
        (let ((new (make-batch thread (if batch (* 2 (batch-size batch)) +first-batch+))))
          (%with-lock ((poll-set-lock set))
            (setf (poll-set-batches set)
                  (cons new (remove-if (lambda (old)
                                         (or (eq old batch)
                                             (not (%thread-alive-p (batch-thread old)))))
                                       (poll-set-batches set)))))
          new))))

;;; The flags of an event for each combination of bits; all events share them.
(declaim (type (simple-vector 32) *flag-lists*))
(%defglobal *flag-lists*
    (let ((lists (make-array 32)))
      (dotimes (bits 32 lists)
        (setf (svref lists bits)
              (loop for (bit flag) in `((,+lport-input+ :input) (,+lport-output+ :output)
                                        (,+lport-ended+ :end-of-file) (,+lport-failed+ :error))
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
  (declare (type batch batch) (type entry entry) (type (unsigned-byte 5) bits))
  (let* ((count (batch-count batch))
         (event (car (svref (batch-spine batch) count)))
         (facts (cdr event)))
    (declare (type cons event facts))
    (store-new (car event) (entry-socket entry))
    (store-new (car facts) (entry-data entry))
    (store-new (cdr facts) (svref *flag-lists* bits))
    (store-new (svref (batch-entries batch) count) entry)
    (setf (entry-place entry) count
          (batch-count batch) (1+ count))))

(declaim (inline note-arrival))
(defun note-arrival (channel)
  "What CHANNEL expects is there, so the next operation need not wait before it looks."
  (when (channel-expecting channel)
    (setf (channel-expecting channel) nil)))

(defun add-system-events (set batch found)
  "The FOUND events in the numbers of BATCH, but for those of sockets that have left SET."
  (declare (type poll-set set) (type batch batch) (type index found))
  (let ((numbers (batch-numbers batch)) (entries (poll-set-entries set)))
    (loop for index of-type index from 0 below (* found +lport-event-size+) by +lport-event-size+
          do (let ((entry (entry-among entries (aref numbers index))))
               (when entry
                 (note-arrival (entry-channel entry))
                 (add-event batch entry (logand 31 (aref numbers (1+ index)))))))))

(defun reported-p (batch entry)
  "True if ENTRY has an event in BATCH; it is at the place that the entry tells."
  (let ((place (entry-place entry)))
    (and (< place (batch-count batch))
         (eq entry (svref (batch-entries batch) place)))))

(defun has-buffered-input-p (entry)
  (let ((channel (entry-channel entry)))
    (and (logtest +lport-input+ (entry-interest entry))
         (typep channel 'connection)
         (plusp (buffered-input channel)))))

(defun add-buffered-event (batch entry)
  "Report that ENTRY has input; false where BATCH has no room."
  (cond ((reported-p batch entry)
         (let ((event (car (svref (batch-spine batch) (entry-place entry)))))
           (unless (member :input (cddr event))
             (setf (cddr event) (cons :input (cddr event))))
           t))
        ((< (batch-count batch) (batch-size batch))
         (add-event batch entry +lport-input+)
         t)))

(defun add-buffered-events (set batch)
  "Report the noted entries that have buffered input, and keep them noted as long as they have;
forget the others."
  (loop for entry = (take-noted set) then next
        while entry
        for next = (entry-next entry)
        do (let-note entry)
           (when (has-buffered-input-p entry)
             (add-buffered-event batch entry)
             (note-entry entry))))

(defun event-list (batch)
  "The events of BATCH as a list; NIL for none."
  (let ((spine (batch-spine batch)) (count (batch-count batch)))
    (unless (zerop count)
      (loop for index of-type fixnum from 0 below (1- count)
            for link = (svref spine index)
            do (store-new (cdr link) (svref spine (1+ index))))
      (setf (cdr (svref spine (1- count))) nil)
      (svref spine 0))))

;;; Waiting

(defun wait-in-set (set batch deadline)
  "One wait in SET until DEADLINE, none where there may be buffered input: what lport_poller_wait
says. It counts as waiting first and looks for noted entries then; whoever notes one looks then for
threads that wait: so one of the two sees the other."
  (declare (type moment deadline))
  (let ((handle (channel-handle set)))
    (with-waiting (turn (progn (%add-atomically (poll-set-waiting set) 1)
                               (lport-poller-begin handle)))
        (if (minusp turn)
            turn
            (with-int64s (pointer (batch-numbers batch))
              (lport-poller-wait handle turn pointer (batch-size batch)
                                 (if (poll-set-noted set) 0 deadline) 0)))
      (%add-atomically (poll-set-waiting set) -1)
      (unless (minusp turn)
        (lport-poller-end handle turn)))))

(defun poller-wait (poller &key timeout)
  "Wait until sockets in POLLER are ready and return their events, a list of (SOCKET DATA . FLAGS);
NIL when TIMEOUT seconds (NIL: no limit) pass without one, or POLLER-WAKE is called: then the second
value is true. FLAGS are some of :INPUT, :OUTPUT (of those that POLLER reports of it), :END-OF-FILE
(the peer has ended its output; there may be input before it) and :ERROR (the connection failed; the
next operation signals how).
Level-triggered: what is ready and not dealt with is reported again, to other threads in this call
too, so that one of several may find that there is nothing any more. At most 512 events come at
once; the others come next time. The list and what is in it, but for the socket and the datum,
belong to POLLER and are used again by this thread's next POLLER-WAIT in it, which therefore conses
nothing; copy what you keep.
Conditions: SOCKET-CLOSED, when POLLER is closed, by whomever; TIMEOUT, when the deadline of
WITH-DEADLINE passes. Restart: WAIT-LONGER. Source: epoll_wait(2)."
  (let ((set (check-poller poller :wait)))
    (wait-for-events set (batch-of set) (moment-after timeout))))

(defun wait-for-events (set batch until)
  "POLLER-WAIT with the moment UNTIL."
  (declare (type moment until))
  (let ((limit *deadline*))
    (declare (type moment limit))
    (loop
      (check-open set :wait)
      (setf limit (check-limit set :input :wait limit 0))
      (let ((result (next-events set batch (min until limit))))
        (declare (type (signed-byte 64) result))
        (cond ((and (zerop result) (woken-p set)) (return (values nil t)))
              ((plusp (batch-count batch)) (return (event-list batch)))
              ((>= result 0))           ; of sockets that have left meanwhile, or for a buffer
              ((= (lport-status-kind result) +lport-would-block+))
              ((/= (lport-status-kind result) +lport-timed-out+)
               (fail-on set result :wait))
              ((>= (lport-clock-now) until) (return (values nil nil))))))))

(defun next-events (set batch deadline)
  "Wait once until DEADLINE and put what there is into BATCH; the library's result."
  (let ((result (wait-in-set set batch deadline)))
    (declare (type (signed-byte 64) result))
    (setf (batch-count batch) 0)        ; now, as an interrupt may have used it during the wait
    (when (plusp result)
      (add-system-events set batch result))
    (when (poll-set-noted set)
      (add-buffered-events set batch))
    result))

(defun woken-p (set)
  "True for the one that a POLLER-WAKE is for. A wake can also be for buffered input."
  (when (eq t (%compare-and-swap (poll-set-woken set) t nil))
    (when (poll-set-noted set)
      (lport-poller-wake (channel-handle set)))
    t))

(defun poller-wake (poller)
  "Make one POLLER-WAIT return NIL at once: one that is under way in another thread, or else the
next.
Several calls before that count as one. Never blocks. Returns NIL. Condition: SOCKET-CLOSED."
  (let ((set (check-poller poller :wait)))
    (check-open set :wait)
    (setf (poll-set-woken set) t)
    (lport-poller-wake (channel-handle set))
    nil))

(defmethod close ((poller poller) &key abort)
  "Wake whoever is in POLLER-WAIT, with SOCKET-CLOSED, and forget the sockets, which stay open."
  (declare (ignore abort))
  (let ((set (endpoint-channel poller)))
    (call-deferred
      (when (begin-close set)
        (close-handle set nil)
        (%cancel-finalization poller)
        (loop for entry across (poll-set-entries set)
              when entry
                do (forget-entry entry))))
    t))

;;; Once

(defun wait-for-input (sockets &key timeout)
  "Wait until one or more of SOCKETS, a list (or one socket), have input, buffered or not, a
connection to accept, or end of file, and return those, a list in the order of SOCKETS; NIL when
TIMEOUT seconds (NIL: no limit) pass without. There is no limit on descriptors or their number; for
many sockets again and again a POLLER is cheaper. Conditions: TIMEOUT, when the deadline of
WITH-DEADLINE passes; SOCKET-CLOSED, when one of them is closed; RESOURCE-EXHAUSTED. Source:
poll(2)."
  (let ((sockets (if (listp sockets) sockets (list sockets))))
    (check-argument :wait sockets 'proper-list "a proper list of sockets")
    (dolist (socket sockets)
      (check-open (endpoint-channel (check-endpoint socket :wait)) :wait))
    (unless (or timeout (< *deadline* +never+))
      (check-argument :wait sockets 'cons "a socket, as there is no limit of time"))
    (with-waiting (handle (lport-poller-open +lport-poller-poll+))
        (if (minusp handle)
            (fail handle :wait)
            (wait-among sockets handle (moment-after timeout)))
      (when (plusp handle)
        (lport-socket-close handle 0)))))

(defun wait-among (sockets handle until)
  "WAIT-FOR-INPUT with the moment UNTIL in the library's poller HANDLE."
  (let* ((set (make-poll-set :handle handle))
         (entries (mapcar (lambda (socket)
                            (make-entry :set set :socket socket :channel (endpoint-channel socket)
                                        :interest +lport-input+))
                          sockets)))
    (with-cleanup
        (progn
          (dolist (entry entries)
            (join-members entry)
            (add-once handle (entry-channel entry)))
          (wait-in-turns sockets set until))
      (mapc #'leave-members entries))))

(defun add-once (handle channel)
  "Put CHANNEL, which may be closed, into the library's poller HANDLE, unless it is there."
  (let ((status (lport-poller-add handle (channel-handle channel) +lport-input+)))
    (unless (or (>= status 0)
                (member (lport-status-kind status) (list +lport-invalid+ +lport-closed+)))
      (fail-on channel status :wait))))

(defun wait-in-turns (sockets set until)
  "Wait in SET, in which SOCKETS are, until UNTIL: those that are ready."
  (declare (type moment until))
  (let ((batch (make-batch nil (max 1 (length sockets))))
        (limit *deadline*))
    (loop
      (dolist (socket sockets)
        (check-open (endpoint-channel socket) :wait))
      (setf limit (check-limit set :input :wait limit 0))
      (forget-noted set)
      (let* ((buffered (some #'buffered-socket-p sockets))
             (result (wait-in-set set batch (if buffered 0 (min until limit)))))
        (cond ((or buffered (plusp result))
               (return (ready-among sockets (batch-numbers batch) (max 0 result))))
              ((or (zerop result) (= (lport-status-kind result) +lport-would-block+)))
              ((/= (lport-status-kind result) +lport-timed-out+)
               (fail result :wait))
              ((>= (lport-clock-now) until) (return nil)))))))

(defun forget-noted (set)
  "What is noted in SET from here on has been buffered since."
  (loop for entry = (take-noted set) then next
        while entry
        for next = (entry-next entry)
        do (let-note entry)))

(defun buffered-socket-p (socket)
  (let ((channel (endpoint-channel socket)))
    (and (typep channel 'connection) (plusp (buffered-input channel)))))

(defun ready-among (sockets numbers count)
  "Those of SOCKETS that have buffered input or are in one of the COUNT events in NUMBERS."
  (let ((ready (make-hash-table)))
    (dotimes (index count)
      (setf (gethash (aref numbers (* index +lport-event-size+)) ready) t))
    (remove-if-not (lambda (socket)
                     (or (buffered-socket-p socket)
                         (gethash (endpoint-handle socket) ready)))
                   sockets)))
