;;;; poller - readiness of many sockets: what is in a poller, and what of that has buffered input.
;;;;
;;;; The library knows which descriptors are ready; this file adds which sockets have input in a
;;;; buffer of ours. Whoever fills a buffer notes that, if the socket is in a poller, and only those
;;;; that were noted are looked at, so that a wait does not depend on how many sockets are idle.
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

;;; Failing

(defun closed-p (status)
  (= (lport-status-kind status) +lport-closed+))

(defun fail-of-set (set status)
  "Signal the condition for STATUS of SET. What is closed for the library, and was not closed here,
was made in another process, of which this one is a fork or a saved image."
  (fail-on set status :wait
           :message (and (closed-p status)
                         (if (channel-closing set)
                             "the poller is closed"
                             "the poller is another process's"))))

(defun check-set (set)
  "Signal SOCKET-CLOSED if SET is closed."
  (when (channel-closing set)
    (fail-of-set set (lport-status-make +lport-closed+))))

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
    (check-set set)
    (check-open channel :wait)
    (let ((status (add-entry set (make-entry :set set :socket socket :channel channel :data data
                                             :interest interest))))
      (when (minusp status)
        (fail-in set channel status "is in ~A already" poller)))
    socket))

(defun add-entry (set entry)
  "Add ENTRY to SET on both sides; the library's status."
  (let ((channel (entry-channel entry)) (status 0))
    (call-deferred
      (%with-lock ((poll-set-lock set))
        (setf status (lport-poller-add (channel-handle set) (channel-handle channel)
                                       (entry-interest entry)))
        (unless (minusp status)
          (store-entry set entry)
          (join-members entry)))
      (unless (minusp status)
        (when (or (minusp (lport-socket-state (channel-handle channel)))
                  (channel-closing set))
          (forget-entry entry))         ; closed just now, before it could see this
        (note-if-buffered channel)))
    status))

(defun fail-in (set channel status control &rest arguments)
  "Signal the condition for STATUS, which the library gave for CHANNEL in SET; of LPORT-INVALID
CONTROL and ARGUMENTS say the reason."
  (cond ((= (lport-status-kind status) +lport-invalid+)
         (fail-as 'usage-error :wait :invalid :socket (channel-socket channel)
                  :message "the socket ~?" :arguments (list control arguments)))
        ((and (closed-p status)
              (not (minusp (lport-socket-state (channel-handle channel)))))
         (fail-of-set set status))
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
    (check-set set)
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
    (call-deferred
      (%with-lock ((poll-set-lock set))
        (setf status (lport-poller-modify (channel-handle set) (channel-handle channel) interest))
        (unless (minusp status)
          (setf (entry-interest entry) interest)))
      (note-if-buffered channel))
    status))

(defun poller-remove (poller socket)
  "Take SOCKET out of POLLER: true if it was in it. It stays open. A wait under way in another
thread may still report it. Source: epoll_ctl(2)."
  (let* ((set (check-poller poller :wait))
         (channel (endpoint-channel (check-endpoint socket :wait)))
         (entry (find-entry set (channel-handle channel))))
    (when entry
      (call-deferred
        (lport-poller-remove (channel-handle set) (channel-handle channel))
        (forget-entry entry))
      t)))

;;; Buffered input

(defun note-members (channel)
  "To be called with interrupts deferred."
  (dolist (entry (channel-memberships channel))
    (note-entry entry)
    (let ((set (entry-set entry)))
      (when (and (plusp (poll-set-waiting set))
                 (logtest +lport-input+ (entry-interest entry)))
        (lport-poller-wake (channel-handle set))))))

(defun input-buffered-p (channel)
  (and (typep channel 'connection) (plusp (buffered-input channel))))

(defun note-if-buffered (channel)
  "To be called with interrupts deferred."
  (when (input-buffered-p channel)
    (note-members channel)))

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

;;; Waking and closing

(defun poller-wake (poller)
  "Make one POLLER-WAIT return NIL at once: one that is under way in another thread, or else the
next.
Several calls before that count as one. Never blocks. Returns NIL. Condition: SOCKET-CLOSED."
  (let ((set (check-poller poller :wait)))
    (check-set set)
    (setf (poll-set-woken set) t)
    (let ((status (lport-poller-wake (channel-handle set))))
      (when (minusp status)
        (fail-of-set set status)))
    nil))

(defmethod close ((poller poller) &key abort)
  "Wake whoever is in POLLER-WAIT, with SOCKET-CLOSED, and forget the sockets, which stay open."
  (declare (ignore abort))
  (let ((set (endpoint-channel poller)))
    (call-deferred
      (when (begin-close set)
        (close-handle set nil)
        (%closed-in-time poller)
        (loop for entry across (poll-set-entries set)
              when entry
                do (forget-entry entry))))
    t))
