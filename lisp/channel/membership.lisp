;;;; membership - which pollers a socket is in, and which of its members a poller has to look at:
;;;; whoever fills a buffer notes that here, and only those that were noted are looked at, so that a
;;;; wait does not depend on how many sockets are idle.
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
  (asked 0 :type (unsigned-byte 8))     ; the interest as the user has given it
  (interest 0 :type (unsigned-byte 8))  ; at present: none where an event of ONCE has been reported
  (once nil)
  (taken nil)                           ; from an event of ONCE to the next POLLER-MODIFY: the batch
                                        ; that has it
  (turn 0 :type (unsigned-byte 62))     ; that of the set, when events were asked for last
  (span +never+ :type moment)           ; after which without an event there is one of the flag
  (since 0 :type moment)                ; :TIMEOUT; counted from here
  (place 0 :type fixnum)                ; in the batch that reported it last
  (noted nil)                           ; in the list NOTED of the set
  (next nil))                           ; there

(defstruct (poll-set (:include channel) (:copier nil) (:predicate nil))
  "What is below a POLLER."
  (lock (%make-lock) :read-only t)      ; guards changes of ENTRIES, of BATCHES and of interests
  (entries (make-array 64 :initial-element nil) :type simple-vector) ; by place in the table
  (batches '() :type list)
  (noted nil)                           ; entries whose sockets may have buffered input
  (once nil)                            ; true if an entry is, or was
  (turn 0 :type (unsigned-byte 62))     ; how often events were asked for
  (round-at +never+ :type moment)       ; see poller-timeouts.lisp
  (waiting 0 :type (unsigned-byte 64))  ; threads that are in a wait, about
  (woken nil))                          ; POLLER-WAKE was called

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

(defun vector-with-place (vector place)
  "VECTOR, a simple vector, if it has the index PLACE; else a longer one that begins with its
elements and goes on with NILs."
  (declare (type simple-vector vector) (type fixnum place))
  (if (< place (length vector))
      vector
      (replace (make-array (* 2 (1+ place)) :initial-element nil) vector)))

(defun store-entry (set entry)
  "Put ENTRY into the vector of SET, which grows. With the lock held."
  (let* ((place (handle-place (channel-handle (entry-channel entry))))
         (entries (vector-with-place (poll-set-entries set) place)))
    (setf (svref entries place) entry
          (poll-set-entries set) entries)))

;;; The lock is that of the set, and a socket may be in several.

(defun join-members (entry)
  "From now on note ENTRY when the buffer of its socket is filled, until LEAVE-MEMBERS. What had
been buffered before, without a note, can be seen once this has returned."
  (let ((channel (entry-channel entry)))
    (change-atomically (members (channel-memberships channel))
      (cons entry members))
    ;; Whoever fills a buffer looks for members after that, without a barrier, but owns the
    ;; direction.
    (when (another-p (owner channel :input))
      (fence-threads))))

(defun leave-members (entry)
  (change-atomically (members (channel-memberships (entry-channel entry)))
    (remove entry members)))

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

;;; Buffered input

(declaim (inline note-buffered))
(defun note-buffered (connection)
  "The buffer of CONNECTION has been filled: see to it that its pollers look."
  (when (channel-memberships connection)
    (note-members connection)))

(defun note-members (channel)
  "To be called with interrupts deferred."
  (dolist (entry (channel-memberships channel))
    (note-entry entry)
    (let ((set (entry-set entry)))
      (when (and (plusp (poll-set-waiting set))
                 (logtest +lport-input+ (entry-interest entry)))
        (lport-poller-wake (channel-handle set))))))

(defun note-entry (entry)
  "Put ENTRY into the list of those to look at, once. To be called with interrupts deferred, as one
that has the mark and is not in the list would never be put there."
  (when (null (%compare-and-swap (entry-noted entry) nil t))
    (let ((set (entry-set entry)))
      (loop for head = (poll-set-noted set)
            do (setf (entry-next entry) head)
            until (eq head (%compare-and-swap (poll-set-noted set) head entry))))))

(defun clear-noted (entry)
  "ENTRY, taken from the list, may be put there again. Not by a plain store: the loads after it, of
how much is buffered, could be made before it, and miss what a thread has buffered that found ENTRY
still noted."
  (%compare-and-swap (entry-noted entry) t nil))

(defun take-noted (set)
  "The first of the entries of SET to look at, linked by ENTRY-NEXT; none is left there."
  (loop for head = (poll-set-noted set)
        until (eq head (%compare-and-swap (poll-set-noted set) head nil))
        finally (return head)))
