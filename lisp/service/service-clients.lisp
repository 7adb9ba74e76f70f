;;;; service-clients - the connections of a service: where each is, and where they come from.
;;;;
;;;; A connection is either with a thread, which runs the user's function on it, or it waits: in the
;;;; queue of those that are ready to be served, or parked in a poller until it has input. (What the
;;;; system queues for a listener is called its backlog.) The threads are a leader and followers:
;;;; one at a time, the leader, waits in that poller, for all of them and for the listeners; what it
;;;; finds goes into the queue, and then it serves from the queue like the others. So a request that
;;;; is answered at once costs no switch of threads. When a function blocks in an operation on a
;;;; socket, another thread is woken to lead; when it computes, one of the idle threads, the ticker,
;;;; which looks every few milliseconds, notices that nothing goes on, and takes over. An idle
;;;; service has one thread in the poller and no ticks.
;;;;
;;;; Invariant: a client's STATE changes by compare-and-swap only, and whoever changes it from
;;;; :PARKED to another has the client; so a connection is with one thread at a time, and closed by
;;;; one.

(in-package :port)

(defstruct (client (:copier nil) (:predicate nil)
                   (:constructor make-client (service socket connection header-span due)))
  "A connection of a service."
  (service nil :read-only t)
  (socket nil :read-only t)
  (connection nil :type connection :read-only t) ; of the socket
  ;; :RUNNING, with a thread or in the queue; :MUTED, the same, its interest in the poller
  ;; being off; :PARKED; :CLOSED, and in the queue once more where a hook is to be told of it.
  (state :running :type symbol)
  (since 0 :type moment)                ; when it was parked, where there is a timeout
  (parked-in -1 :type fixnum)           ; the TURN of the service at that time; below 0: never
  (fresh t)                             ; the function has not been called on it yet
  (given nil)                           ; it was not accepted, see service-given.lisp
  (header-span nil)                     ; its PROXY header has not been read yet, see proxy.lisp
  (due +never+ :type moment)            ; when that, or its handshake, has to be there
  (stopping 0 :type fixnum)             ; calls of STOP-SERVER that its function is in; guarded as
                                        ; the service
  (leaving nil)                         ; it is closed when its turn comes, see END-IN-TURN
  ;; Of output that is kept, see service-posting.lisp: T, the poller tells when there is room;
  ;; :ASIDE, somebody else looks for it, or nobody can.
  (keeping nil)
  (kept-since 0 :type moment)           ; when some of it was sent last, or it began
  (kept-at 0 :type (unsigned-byte 62))  ; what had been sent of all by then
  (stalled nil)                         ; too long ago: it is aborted
  (next nil))                           ; in the queue

(defstruct (service (:copier nil) (:predicate nil))
  "What is below a SERVER."
  (function nil :type (or function symbol) :read-only t)
  (on-error nil :type (or function symbol) :read-only t)
  (on-close nil :type (or function symbol) :read-only t)
  (name "service" :read-only t)
  (thread-limit 1 :type fixnum :read-only t)
  (connection-limit nil :read-only t)
  (timeout +never+ :type moment :read-only t)
  (await-input nil :read-only t)
  (tls nil :type (or null tls-context) :read-only t)
  (set nil :type poll-set :read-only t)
  (listeners '() :type list)            ; (socket-server . settings of its connections)
  (settings nil :type (or null settings) :read-only t) ; of its connections, as far as it is told
  (processors 1 :type fixnum :read-only t)
  (idle-span +never+ :type moment :read-only t) ; after which an idle thread ends
  ;; All that follows is guarded by LOCK, unless it says otherwise.
  (lock (%make-lock) :read-only t)
  (tick-condition (%make-condition) :read-only t)
  (end-condition (%make-condition) :read-only t)
  (clients (make-array 64 :initial-element nil) :type simple-vector) ; by place in the table
  (client-count 0 :type fixnum)
  (accepting 0 :type fixnum)            ; threads that may just add some, where there is a limit
  (first nil)                           ; of the queue
  (last nil)
  (progress 0 :type fixnum)             ; clients taken from the queue
  (pace 0 :type fixnum)                 ; nanoseconds that one takes, about; without the lock
  (threads '() :type list)
  (thread-count 0 :type fixnum)         ; with those that are just being made
  (threads-made 0 :type fixnum)         ; since it began, for their names
  (starting '() :type list)             ; threads made that have not begun to WORK
  (idle 0 :type fixnum)                 ; threads that have nothing to do, and
  (idlers '() :type list)               ; what they wait on, the last one first
  (coming 0 :type fixnum)               ; threads made or woken that have not looked yet
  (leader nil)                          ; a thread, or NIL; read without the lock as a hint
  (turn 0 :type fixnum)                 ; waits of the leaders so far; theirs, without the lock
  (ticker nil)
  (ticker-asleep nil)
  (wanted nil)                          ; the ticker is to help
  (deserted nil)                        ; all listeners are closed; without the lock
  (paused nil)                          ; the listeners are not looked at
  (resume-at +never+ :type moment)      ; when they are again, whatever happens
  (impatient nil)                       ; output that is kept has a limit of time; set once
  (sweep-at +never+ :type moment)       ; when the parked are next looked at for their timeouts
  (stoppers '() :type list)             ; those of its threads that are in STOP-SERVER
  (stopping nil)                        ; set once; read without the lock; nobody parks any more
  (ending nil)                          ; set once, after that: threads end with the queue
  (failure nil)                         ; of an accept, see ACCEPT-FAILED; without the lock
  (refusal nil))                        ; the status of that, until one succeeds; the leader's

(defvar *client* nil
  "The client that this thread's function has, within a service.")

;;; The queue; with the lock held

(defun append-clients (service first last)
  "Put the clients from FIRST to LAST, linked, at the end of the queue."
  (if (service-last service)
      (setf (client-next (service-last service)) first)
      (setf (service-first service) first))
  (setf (service-last service) last))

(defun pop-client (service)
  "The first client of the queue, which is not empty."
  (let ((client (service-first service)))
    (setf (service-first service) (client-next client)
          (client-next client) nil)
    (when (null (service-first service))
      (setf (service-last service) nil))
    (incf (service-progress service))
    client))

(defun enqueue-client (service client)
  "Put CLIENT into the queue; the calling thread looks there next."
  (%with-lock ((service-lock service))
    (append-clients service client client)))

;;; The table of clients

(defun client-handle (client)
  (channel-handle (client-connection client)))

(defun enter-client (service client)
  "With the lock held."
  (let* ((place (handle-place (client-handle client)))
         (clients (vector-with-place (service-clients service) place)))
    (setf (svref clients place) client
          (service-clients service) clients)
    (incf (service-client-count service))))

(defun add-client (service client)
  (%with-lock ((service-lock service))
    (enter-client service client)))

(defun remove-client (service client)
  "CLIENT has been closed. Its place in the table may have gone to another already. Where a hook is
to be told it goes into the queue for that, so that it is a thread of the service that calls it."
  (%with-lock ((service-lock service))
    (let ((place (handle-place (client-handle client))) (clients (service-clients service)))
      (when (eq client (svref clients place))
        (setf (svref clients place) nil))
      (decf (service-client-count service))
      (when (service-on-close service)
        (append-clients service client client)
        (when (zerop (service-thread-count service)) ; the service has just stopped
          (add-thread service)))
      (when (service-deserted service)
        (lport-poller-wake (channel-handle (service-set service))))
      (when (service-stopping service)
        (%condition-broadcast (service-end-condition service))))))

(declaim (inline find-client))
(defun find-client (service handle)
  (declare (type (unsigned-byte 62) handle))
  (let ((clients (service-clients service)) (place (handle-place handle)))
    (when (< place (length clients))
      (let ((client (svref clients place)))
        (when (and client (= handle (client-handle client)))
          client)))))

(declaim (inline change-state))
(defun change-state (client old new)
  "True if the state of CLIENT was OLD; then it is NEW."
  (eq old (%compare-and-swap (client-state client) old new)))

;;; Ending connections

(defun report-error (service condition socket)
  "Call the hook. What it signals itself is not allowed to end the service; a line says it."
  (handler-case (%interruptible (funcall (service-on-error service) condition socket))
    (serious-condition (failure) (log-hook-failure (service-name service) failure condition))))

;;; A stream of the system, as *ERROR-OUTPUT* mostly is, is not made for several threads at once: of
;;; what they write some is torn, and some comes twice. So one thread at a time writes a line.

(%defglobal *teller-lock* (%make-lock))
(%defglobal *teller-done* (%make-condition))
(%defglobal *teller* nil)               ; the thread that writes; guarded by the lock

(defun become-teller ()
  "Wait until no other thread writes a line: true if this one has become the one that does, and was
not before. To be called with interrupts deferred, which are let in while it waits."
  (%with-lock (*teller-lock*)
    (loop while (another-p *teller*)
          do (%open-condition-wait *teller-done* *teller-lock*))
    (unless *teller*
      (setf *teller* (%current-thread)))))

(defun tell (line)
  "Write LINE to *ERROR-OUTPUT*, at once and as a whole."
  (with-waiting (became (become-teller))
      (progn (format *error-output* "~&~A~%" line)
             (finish-output *error-output*))
    (when became
      (%with-lock (*teller-lock*)
        (setf *teller* nil)
        (%condition-notify *teller-done*)))))

(defun log-hook-failure (name failure condition)
  "A line that the hook of the service NAME, told of CONDITION, has signalled FAILURE. Their own
reports may be what fails, so they are named by their classes."
  (handler-case
      (with-plain-printer ()
        (tell (format nil "~A: the error hook, told of ~S, signalled ~S."
                      (safe-line name) (type-of condition) (type-of failure))))
    (stream-error () nil)))

(defun error-line (name condition socket)
  "One line of bounded length for CONDITION, of whatever class, and SOCKET of the service NAME."
  (with-short-printer ()
    (safe-line (format nil "~A: ~A: ~A" name socket condition))))

(defun client-left-p (condition socket)
  "Return true if CONDITION, which ON-ERROR of SERVE is told of with SOCKET, says no more than that
the peer of SOCKET went away or was silent for too long: its connection was lost, or ended where
more was to come; a TIMEOUT passed; there was no TLS in common, or no header of the PROXY protocol
in time; or SOCKET was closed here. A service without an ON-ERROR of yours writes no line then.
NIL for all else: for errors of the program, for octets that make no sense, and for what befell
another socket or stream of the function, such as the target of a proxy."
  (typecase condition
    (proxy-error (not (eq (network-code condition) :proxy-syntax)))
    ((or timeout connection-lost tls-error socket-closed) (eq socket (network-socket condition)))
    (end-of-file (eq socket (stream-error-stream condition)))))

(defun log-error (name condition socket)
  "The hook of a service, NAME, that has none: a line for each error, but none for clients that went
away or were silent for too long."
  (unless (client-left-p condition socket)
    (tell (error-line name condition socket))))

(defun end-client (service client abort)
  "Close the connection of CLIENT, which is this thread's, and forget it, whoever unwinds this."
  (let ((socket (client-socket client)) (*remember-ends* (service-on-close service)))
    (with-cleanup
        (handler-case (close socket :abort abort)
          (network (condition) (report-error service (cause client condition) socket)))
      (unless (channel-closing (client-connection client)) ; this was unwound before it began
        (close socket :abort t))
      (setf (client-state client) :closed)
      (forget-client service client))))

(defun input-now-p (client)
  "True if CLIENT, which is this thread's, has input that nobody has read. Never blocks."
  (let ((connection (client-connection client)))
    (or (plusp (buffered-input connection))
        (plusp (the (signed-byte 64) (receive-into-buffer connection))))))

(defconstant +last-looks+ 16 "Buffers of input that are passed over at the end of a connection.")

(defun end-in-turn (service client)
  "Let CLIENT, which is this thread's and has output left, be closed when its turn comes: the flush
may take its time, and the calling thread has others to look after."
  (setf (client-leaving client) t)
  (enqueue-client service client))

(defun output-left-p (client)
  "True if CLIENT, which is this thread's, was parked and is to be closed, has output, somebody
else's, that the system does not take at once."
  (let ((connection (client-connection client)))
    (not (and (or (all-sent-p connection)
                  (eq t (with-output-now (connection) (flush-quickly connection))))
              (end-told-p connection)))))

(defun end-cleanly (service client)
  "Close the connection of CLIENT, which is this thread's, so that its peer reads an end of file: a
close with unread input would reset it, so what comes in this moment is passed over."
  (let ((connection (client-connection client)))
    (when (all-sent-p connection)
      (lport-socket-shutdown (channel-handle connection) +lport-output+))
    (loop repeat +last-looks+
          while (input-now-p client)
          do (drop-input connection))
    (end-client service client nil)))

(defun end-soon (service client)
  "As END-CLEANLY, in its turn if there is output that takes its time."
  (if (output-left-p client)
      (end-in-turn service client)
      (end-cleanly service client)))

(defun end-or-serve (service client)
  "The service stops, and CLIENT, which is this thread's, would wait for input: it has its turn if
there is some already; else it is closed."
  (if (input-now-p client)
      (enqueue-client service client)
      (end-soon service client)))

(defun forget-client (service client)
  "The connection of CLIENT has been closed."
  (remove-client service client)
  (when (service-paused service)
    (resume-listeners service)))

(defun client-gone (service client)
  "Somebody has closed the connection of CLIENT. While it is parked nobody else would find out; a
thread that has it will, and PARK looks whether it is closed."
  (when (change-state client :parked :closed)
    (forget-client service client)
    (when (service-on-close service)
      (lport-poller-wake (channel-handle (service-set service))))))

;;; Listeners

(defun note-listener (service listener)
  "See to it that SERVICE hears of it when LISTENER is closed, as does whoever else had it before."
  (let* ((channel (endpoint-channel listener)) (before (channel-keeper channel)))
    (flet ((gone ()
             (when before
               (funcall (the function before)))
             (listener-gone service)))
      (setf (channel-keeper channel) #'gone)
      (when (channel-closing channel)
        (listener-gone service)))))

(defun listener-gone (service)
  "A listener has been closed: the leader looks whether that was the last, and who is still here."
  (unless (find-if-not #'channel-closing (service-listeners service)
                       :key (lambda (row) (endpoint-channel (car row))))
    (setf (service-deserted service) t)
    (lport-poller-wake (channel-handle (service-set service)))))

(defun set-listeners-interest (service interest)
  "With the lock held."
  (loop for (listener) in (service-listeners service)
        do (lport-poller-modify (channel-handle (service-set service))
                                (endpoint-handle listener)
                                interest)))

(defun pause-listeners (service moment)
  "Leave new connections in the backlogs until MOMENT, or until a connection ends. If
MOMENT is never, that is because there is no room: one that has ended just now has made some."
  (%with-lock ((service-lock service))
    (unless (and (= moment +never+) (room-p service))
      (setf (service-paused service) t
            (service-resume-at service) moment)
      (set-listeners-interest service 0))))

(defun room-p (service)
  (let ((limit (service-connection-limit service)))
    (or (null limit) (< (service-client-count service) limit))))

(defun resume-listeners (service)
  (%with-lock ((service-lock service))
    (when (and (service-paused service) (room-p service) (not (service-stopping service)))
      (setf (service-paused service) nil
            (service-resume-at service) +never+)
      (set-listeners-interest service +lport-input+))))

(defparameter *exhaustion-pause* 200000000
  "Nanoseconds after which a service that found no descriptor or no memory for a connection looks
again, if none of its own has ended before.")

(defun accept-clients (service listener settings)
  "Take what is in the backlog of LISTENER, at most a batch. Values: the clients that are to be
served now, linked, the first and the last, or NIL and NIL; how many were taken."
  (flet ((note (change)
           (%with-lock ((service-lock service))
             (incf (service-accepting service) change))))
    (cond ((service-connection-limit service)
           (note 1)
           (unwind-protect (accept-batch service listener settings)
             (note -1)))
          (t (accept-batch service listener settings)))))

(defun accept-batch (service listener settings)
  "ACCEPT-CLIENTS, while no client comes in another way where there is a limit."
  (let ((first nil) (last nil) (count 0))
    (declare (type fixnum count))
    (loop repeat +first-batch+
          while (room-p service)
          do (let ((result (accept-now listener settings)))
               (unless (typep result 'socket)
                 (unless (would-block-p result)
                   (accept-failed service listener result))
                 (return))
               (incf count)
               (setf (service-refusal service) nil)
               (let ((client (new-client service result settings)))
                 (add-client service client)
                 (keep-client service client)
                 (cond ((not (or (service-await-input service)
                                 (service-tls service)
                                 (client-header-span client)))
                        (if last (setf (client-next last) client) (setf first client))
                        (setf last client))
                       ((not (park service client))
                        (end-or-serve service client)))))
          finally (unless (room-p service)
                    (pause-listeners service +never+)))
    (values first last count)))

(defun keep-client (service client)
  "Let SERVICE hear of it when somebody closes the connection of CLIENT."
  (setf (channel-keeper (client-connection client))
        (lambda () (client-gone service client))))

(declaim (inline client-due-p))
(defun client-due-p (client)
  "True while a header or a handshake is expected of CLIENT by some moment."
  (/= (client-due client) +never+))

(defun new-client (service socket settings)
  "The client of SERVICE for SOCKET, just accepted with SETTINGS."
  (let ((span (settings-header-span settings)) (connection (socket-connection socket)))
    (when (service-tls service)
      (setf (connection-secure connection) :awaited)) ; what is posted from now on has to wait
    (setf (connection-client connection)
          (make-client service socket connection
                       span (if span (moment-in span) +never+)))))

(defun accept-failed (service listener status)
  "LISTENER could not accept: wait, and see to it that the hook is told, unless it has been told of
just that since an accept succeeded, or is being told of such a failure; nothing of that for a
listener that was closed."
  (unless (or (service-stopping service) (= (lport-status-kind status) +lport-closed+))
    (pause-listeners service (moment-in *exhaustion-pause*))
    (unless (or (service-failure service) (eql status (service-refusal service)))
      (setf (service-refusal service) status
            (service-failure service)
            (cons (status-condition status :accept :socket listener) listener)))))

;;; Parking

(defun park (service client)
  "Let CLIENT, which is this thread's and has nothing buffered that could be served, wait for input
in the poller. False if it cannot: it is still this thread's then."
  (let ((end +never+) (first (minusp (client-parked-in client))))
    (when (/= (service-timeout service) +never+)
      (setf (client-since client) (lport-clock-now)))
    (setf end (park-end service client)
          (client-parked-in client) (service-turn service))
    (cond (first
           (setf (client-state client) :parked)
           (unless (enter-poller service client)
             (return-from park (not (change-state client :parked :running)))))
          ((change-state client :running :parked))
          (t (setf (client-state client) :parked)
             (unless (tell-poller service client)
               (return-from park (not (change-state client :parked :running))))))
    ;; Now that a sweep would find it; it may be another thread's already.
    (expect-sweep service end)
    ;; Whoever stops the service, or closes the connection, sets a mark first and looks then for
    ;; what is parked.
    (not (and (or (service-stopping service)
                  (channel-closing (client-connection client)))
              (change-state client :parked :running)))))

(defun park-end (service client)
  "The moment at which CLIENT, which is parked or about to be, has waited for too long."
  (let ((timeout (service-timeout service)))
    (if (client-due-p client)
        (client-due client)
        (min (if (= timeout +never+)
                 +never+
                 (+ (client-since client) timeout))
             (channel-input-deadline (client-connection client))))))

(defun sweep-by (service moment)
  "The parked are looked at by MOMENT, or before: true if that is sooner than it was."
  (declare (type moment moment))
  (when (< moment (service-sweep-at service))
    (%with-lock ((service-lock service))
      (when (< moment (service-sweep-at service))
        (setf (service-sweep-at service) moment)))))

(defun expect-sweep (service moment)
  "Something is to be looked at by MOMENT, unless something earlier is."
  (when (and (sweep-by service moment)
             (not (eq (service-leader service) (%current-thread))))
    (lport-poller-wake (channel-handle (service-set service)))))

(defun do-parked (service function)
  "Call FUNCTION with each client that is parked just now."
  (loop for client across (service-clients service)
        when (and client (eq (client-state client) :parked))
          do (funcall function client)))

(defun end-silent (service client)
  "CLIENT, which is this thread's, has waited for too long."
  (cond ((client-due-p client)
         (enqueue-client service client)) ; where that is signalled
        ((output-left-p client) (end-in-turn service client))
        (t (end-client service client nil))))

(defconstant +due-grain+ 50000000
  "Nanoseconds between two looks for what is due, at the least.")

(defun due-soon-p (client)
  "True if CLIENT, which is parked, has a limit of its own, which may be shorter than that of its
service by far."
  (or (client-due-p client)
      (/= +never+ (channel-input-deadline (client-connection client)))))

(defun sweep (service now)
  "End the parked clients that have been silent for too long by NOW; know when to look again."
  (declare (type moment now))
  (let ((grain (floor (service-timeout service) 16)) (next +never+))
    (declare (type moment grain next))
    (setf (service-sweep-at service) +never+)
    (do-parked service
      (lambda (client)
        (let ((end (park-end service client)))
          (declare (type moment end))
          (cond ((< now end)
                 (setf next (min next (max end (+ now (if (due-soon-p client)
                                                          +due-grain+
                                                          grain))))))
                ((change-state client :parked :running)
                 (end-silent service client))))))
    (when (service-impatient service)
      (setf next (min next (sweep-kept service now))))
    (sweep-by service next)))
