;;;; service - SERVE: many connections on few threads, until STOP-SERVER.
;;;;
;;;; A connection is either with a thread, which runs the user's function on it, or it waits: in the
;;;; line for a thread, or parked in a poller until it has input. One of the threads at a time, the
;;;; leader, waits in that poller, for all of them and for the listeners; what it finds goes into
;;;; the line, and then it serves from the line like the others. So a request that is answered at
;;;; once costs no switch of threads. When a function blocks in an operation on a socket, another
;;;; thread is woken to lead; when it computes, one of the idle threads, the ticker, notices that
;;;; nothing goes on, and takes over. An idle service has one thread in the poller and no ticks.
;;;;
;;;; Invariant: a client's STATE changes by compare-and-swap only, and who changes it from :PARKED
;;;; to another has the client; so a connection is with one thread at a time, and closed by one.

(in-package :port)

(defstruct (client (:copier nil) (:predicate nil))
  "A connection of a service."
  (socket nil :type socket :read-only t)
  ;; :RUNNING, with a thread or in the line; :MUTED, the same, its interest in the poller being
  ;; off; :PARKED; :CLOSED.
  (state :running :type symbol)
  (watched nil)                         ; it has been put into the poller
  (since 0 :type moment)                ; when it was parked, where there is a timeout
  (fresh t)                             ; the function has not been called on it yet
  (header-span nil)                     ; its PROXY header has not been read yet, see proxy.lisp
  (header-end +never+ :type moment)     ; and has to be by then
  (next nil))                           ; in the line

(defstruct (service (:copier nil) (:predicate nil))
  "What is below a SERVER."
  (function nil :type function :read-only t)
  (on-error nil :type function :read-only t)
  (name "service" :read-only t)
  (thread-limit 1 :type fixnum :read-only t)
  (connection-limit nil :read-only t)
  (timeout +never+ :type moment :read-only t)
  (await-input nil :read-only t)
  (set nil :type poll-set :read-only t)
  (listeners '() :type list)            ; (socket-server . settings of its connections)
  (processors 1 :type fixnum :read-only t)
  ;; All that follows is guarded by LOCK, unless it says otherwise.
  (lock (%make-lock) :read-only t)
  (idle-condition (%make-condition) :read-only t)
  (tick-condition (%make-condition) :read-only t)
  (end-condition (%make-condition) :read-only t)
  (clients (make-array 64 :initial-element nil) :type simple-vector) ; by place in the table
  (client-count 0 :type fixnum)
  (first nil)                           ; of the line
  (last nil)
  (progress 0 :type fixnum)             ; clients taken from the line
  (threads '() :type list)
  (thread-count 0 :type fixnum)         ; with those that are just being made
  (idle 0 :type fixnum)                 ; threads that wait on IDLE-CONDITION
  (leader nil)                          ; a thread, or NIL; read without the lock as a hint
  (ticker nil)
  (ticker-asleep nil)
  (wanted nil)                          ; the ticker is to help
  (paused nil)                          ; the listeners are not looked at
  (resume-at +never+ :type moment)      ; when they are again, whatever happens
  (sweep-at +never+ :type moment)       ; when the parked are next looked at for their timeouts
  (stopping nil)                        ; set once; read without the lock
  (stopped nil))

(defvar *client* nil
  "The client that this thread's function has, within a service.")

(defclass server ()
  ((service :initarg :service :reader server-service :type service))
  (:documentation "A running service. Made by SERVE; STOP-SERVER stops it."))

(defmethod print-object ((server server) stream)
  (print-unreadable-object (server stream :type t :identity t)
    (let ((service (server-service server)))
      (format stream "~A~{ ~A~}, ~D connection~:P~@[ (stopped)~]"
              (service-name service)
              (mapcar (lambda (listener) (nth-value 0 (socket-ends listener)))
                      (server-listeners server))
              (service-client-count service) (service-stopping service)))))

(defun check-service (object)
  (server-service (check-argument :serve object 'server "a SERVER, as SERVE returns it")))

(defun server-listeners (server)
  "Return the SOCKET-SERVERs of SERVER, as SERVE returned it, a list in the order in which they were
asked for; see SOCKET-SERVER-HOST/PORT. They are closed once the service has been stopped."
  (mapcar #'car (service-listeners (check-service server))))

;;; The line; with the lock held

(defun append-clients (service first last)
  "Put the clients from FIRST to LAST, linked, at the end of the line."
  (if (service-last service)
      (setf (client-next (service-last service)) first)
      (setf (service-first service) first))
  (setf (service-last service) last))

(defun pop-client (service)
  "The first client of the line, which is not empty."
  (let ((client (service-first service)))
    (setf (service-first service) (client-next client)
          (client-next client) nil)
    (when (null (service-first service))
      (setf (service-last service) nil))
    (incf (service-progress service))
    client))

(defun line-up (service client)
  "Put CLIENT into the line; the calling thread looks there next."
  (%with-lock ((service-lock service))
    (append-clients service client client)))

;;; The table of clients

(defun client-handle (client)
  (channel-handle (socket-connection (client-socket client))))

(defun add-client (service client)
  (let ((place (handle-place (client-handle client))))
    (%with-lock ((service-lock service))
      (let ((clients (service-clients service)))
        (when (>= place (length clients))
          (let ((new (make-array (* 2 (1+ place)) :initial-element nil)))
            (setf (service-clients service) (replace new clients)
                  clients new)))
        (setf (svref clients place) client)
        (incf (service-client-count service))))))

(defun remove-client (service client)
  "CLIENT has been closed. Its place in the table may have gone to another already."
  (%with-lock ((service-lock service))
    (let ((place (handle-place (client-handle client))) (clients (service-clients service)))
      (when (eq client (svref clients place))
        (setf (svref clients place) nil))
      (decf (service-client-count service))
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
  "Call the hook. What it signals itself is not allowed to end the service."
  (handler-case (funcall (service-on-error service) condition socket)
    (serious-condition () nil)))

(defun log-error (condition socket)
  "The hook of a service that has none: a line for each error, but none for peers that went away or
were silent for too long."
  (unless (or (typep condition '(or end-of-file connection-lost timeout socket-closed))
              (and (typep condition 'proxy-error)
                   (not (eq (network-code condition) :proxy-syntax))))
    (format *error-output* "~&~A: ~A~%" socket condition)
    (finish-output *error-output*)))

(defun end-client (service client abort)
  "Close the connection of CLIENT, which is this thread's, and forget it."
  (setf (client-state client) :closed)
  (let ((socket (client-socket client)))
    (handler-case (close socket :abort abort)
      (network (condition) (report-error service condition socket))))
  (remove-client service client)
  (when (service-paused service)
    (resume-listeners service)))

;;; Listeners

(defun set-listeners-interest (service interest)
  "With the lock held."
  (loop for (listener) in (service-listeners service)
        do (lport-poller-modify (channel-handle (service-set service))
                                (channel-handle (endpoint-channel listener))
                                interest)))

(defun pause-listeners (service moment)
  "Leave new connections in the queues of the system until MOMENT, or until a connection ends."
  (%with-lock ((service-lock service))
    (setf (service-paused service) t
          (service-resume-at service) moment)
    (set-listeners-interest service 0)))

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
  "Take what is in the queue of LISTENER, at most a batch. The clients that are to be served now,
linked: the first and the last; or NIL."
  (let ((first nil) (last nil))
    (loop repeat +first-batch+
          while (room-p service)
          do (let ((result (accept-now listener settings)))
               (unless (typep result 'socket)
                 (unless (would-block-p result)
                   (accept-failed service listener result))
                 (return))
               (let ((client (new-client result settings)))
                 (add-client service client)
                 (cond ((not (or (service-await-input service) (client-header-span client)))
                        (if last (setf (client-next last) client) (setf first client))
                        (setf last client))
                       ((not (park service client))
                        (end-client service client nil)))))
          finally (unless (room-p service)
                    (pause-listeners service +never+)))
    (values first last)))

(defun new-client (socket settings)
  "The client for SOCKET, just accepted with SETTINGS."
  (let ((span (settings-header-span settings)))
    (make-client :socket socket :header-span span
                 :header-end (if span (moment-in span) +never+))))

(defun accept-failed (service listener status)
  "LISTENER could not accept: wait, and say so; unless it was closed."
  (unless (or (service-stopping service) (= (lport-status-kind status) +lport-closed+))
    (pause-listeners service (moment-in *exhaustion-pause*))
    (report-error service (status-condition status :accept :socket listener) listener)))

;;; Parking

(defun park (service client)
  "Let CLIENT, which is this thread's and has nothing buffered that could be served, wait for input
in the poller. False if it cannot: it is still this thread's then."
  (let ((handle (channel-handle (service-set service))) (own (client-handle client)) (end +never+))
    (when (/= (service-timeout service) +never+)
      (setf (client-since client) (lport-clock-now)))
    (setf end (park-end service client))
    (cond ((not (client-watched client))
           (setf (client-watched client) t
                 (client-state client) :parked)
           (when (minusp (lport-poller-add handle own +lport-input+))
             (return-from park (not (change-state client :parked :running)))))
          ((change-state client :running :parked))
          (t (setf (client-state client) :parked)
             (when (minusp (lport-poller-modify handle own +lport-input+))
               (return-from park (not (change-state client :parked :running))))))
    ;; Now that a sweep would find it; it may be another thread's already.
    (expect-sweep service end)
    ;; Who stops the service sets the mark first and looks for parked clients then.
    (not (and (service-stopping service) (change-state client :parked :running)))))

(defun park-end (service client)
  "The moment at which CLIENT, which is parked or about to be, has waited for too long."
  (let ((timeout (service-timeout service)))
    (cond ((client-header-span client) (client-header-end client))
          ((= timeout +never+) +never+)
          (t (min +never+ (+ (client-since client) timeout))))))

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
  (if (client-header-span client)
      (line-up service client)          ; what its header was to be is told where errors are
      (end-client service client nil)))

(defconstant +header-grain+ 50000000
  "Nanoseconds between two looks for headers that are late, at the least.")

(defun sweep (service now)
  "End the parked clients that have been silent for too long by NOW; know when to look again."
  (let ((grain (floor (service-timeout service) 16)) (next +never+))
    (declare (type moment now grain next))
    (setf (service-sweep-at service) +never+)
    (do-parked service
      (lambda (client)
        (let ((end (park-end service client)))
          (declare (type moment end))
          (cond ((< now end)
                 (setf next (min next (max end (+ now (if (client-header-span client)
                                                          +header-grain+
                                                          grain))))))
                ((change-state client :parked :running)
                 (end-silent service client))))))
    (sweep-by service next)))

;;; Leading

(defun unmute (service client)
  (lport-poller-modify (channel-handle (service-set service)) (client-handle client)
                       +lport-input+))

(defun mute (service client)
  "CLIENT has input while it is with a thread: do not hear of it again before it is parked. It may
be parked just now."
  (lport-poller-modify (channel-handle (service-set service)) (client-handle client) 0)
  (unless (change-state client :running :muted)
    (when (eq (client-state client) :parked)
      (unmute service client))))

(defun lead (service batch)
  "Wait once for whatever happens, as the one thread that does, and put it into the line."
  (let* ((set (service-set service))
         (result (wait-in-set set batch (min (service-sweep-at service)
                                             (service-resume-at service))))
         (first nil) (last nil))
    (flet ((line (from to)
             (when from
               (if last (setf (client-next last) from) (setf first from))
               (setf last to))))
      (loop for index from 0 below (* +lport-event-size+ (max 0 result)) by +lport-event-size+
            for handle of-type (unsigned-byte 62) = (aref (batch-numbers batch) index)
            for client = (find-client service handle)
            do (cond ((null client)
                      (let ((row (assoc handle (service-listeners service)
                                        :key (lambda (listener)
                                               (channel-handle (endpoint-channel listener))))))
                        (when row
                          (multiple-value-call #'line
                            (accept-clients service (car row) (cdr row))))))
                     ((change-state client :parked :running)
                      (line client client))
                     (t (mute service client)))))
    (look-at-clock service)
    (when first
      (%with-lock ((service-lock service))
        (append-clients service first last)))))

(defun look-at-clock (service)
  (let ((next (min (service-sweep-at service) (service-resume-at service))))
    (unless (= next +never+)
      (let ((now (lport-clock-now)))
        (when (>= now (service-resume-at service))
          (resume-listeners service))
        (when (>= now (service-sweep-at service))
          (sweep service now))))))

;;; Threads

(defun rouse-another (service)
  "Let an idle thread, or else the ticker, look for something to do. With the lock held."
  (cond ((plusp (service-idle service))
         (%condition-notify (service-idle-condition service)))
        ((service-ticker service)
         (setf (service-wanted service) t)
         (%condition-notify (service-tick-condition service)))))

(defun wake-another (service)
  "Let an idle thread look for something to do, or make one. With the lock held."
  (if (and (zerop (service-idle service))
           (< (service-thread-count service) (service-thread-limit service)))
      (add-thread service)
      (rouse-another service)))

(defun add-thread (service)
  "With the lock held. Without memory for another thread the service goes on with those it has."
  (incf (service-thread-count service))
  (handler-case
      (push (%make-thread (lambda () (work service))
                          (format nil "~A ~D" (service-name service)
                                  (service-thread-count service)))
            (service-threads service))
    (error () (decf (service-thread-count service)))))

(defun hand-over (service)
  "This thread is about to block: somebody else has to lead, and to serve the line."
  (when (null (service-leader service))
    (%with-lock ((service-lock service))
      (when (null (service-leader service))
        (wake-another service)))))

(defparameter *tick* 0.002 "Seconds between two looks of the ticker.")
(defconstant +quiet-ticks+ 10 "Looks at nothing to do after which the ticker falls asleep.")

(defun help-needed-p (service progress)
  "True if the line or the poller waits for a thread. PROGRESS: what it was one tick before. With
the lock held."
  (let ((stuck (= progress (service-progress service))))
    (or (service-wanted service)
        (if (service-first service)
            (or stuck
                (< (- (service-thread-count service) (service-idle service) 1)
                   (service-processors service)))
            (and stuck (null (service-leader service)))))))

(defun tick (service)
  "Be the ticker until help is needed or the service stops. With the lock held."
  (let ((quiet 0) (progress -1))
    (declare (type fixnum quiet))
    (setf (service-ticker service) (%current-thread)
          (service-wanted service) nil)
    (loop until (or (service-stopping service) (help-needed-p service progress))
          do (setf progress (service-progress service))
             (if (and (service-leader service) (null (service-first service)))
                 (incf quiet)
                 (setf quiet 0))
             (cond ((< quiet +quiet-ticks+)
                    (%condition-wait (service-tick-condition service) (service-lock service)
                                     *tick*))
                   (t (setf (service-ticker-asleep service) t)
                      (%condition-wait (service-tick-condition service) (service-lock service))
                      (setf (service-ticker-asleep service) nil
                            quiet 0))))
    (setf (service-ticker service) nil)))

(defun need-ticker (service)
  "This thread goes to serve a client: somebody has to tick. With the lock held."
  (cond ((service-ticker-asleep service)
         (%condition-notify (service-tick-condition service)))
        ((service-ticker service))
        ((or (plusp (service-idle service))
             (< (service-thread-count service) (service-thread-limit service)))
         (wake-another service))))

(defun rest-a-while (service)
  "Wait until there may be something to do. With the lock held."
  (if (service-ticker service)
      (progn (incf (service-idle service))
             (unwind-protect
                  (%condition-wait (service-idle-condition service) (service-lock service))
               (decf (service-idle service))))
      (tick service)))

(defun next-client (service batch)
  "The next client that this thread has to serve; NIL once there is nothing more to do."
  (let ((self (%current-thread)))
    (loop
      (%with-open-lock ((service-lock service))
        (when (eq (service-leader service) self)
          (setf (service-leader service) nil))
        (cond ((service-first service)
               (need-ticker service)
               (return (pop-client service)))
              ((service-stopping service) (return nil))
              ((null (service-leader service)) (setf (service-leader service) self))
              (t (rest-a-while service))))
      (when (eq (service-leader service) self)
        (lead service batch)))))

(defun work (service)
  "What each thread of SERVICE does."
  (let ((batch (make-batch nil +first-batch+))
        (*before-wait* (lambda () (hand-over service))))
    (unwind-protect
         (loop for client = (next-client service batch)
               while client
               do (serve-client service client))
      (leave-service service))))

(defun leave-service (service)
  "This thread ends; somebody else has its part, unless the service stops. It makes no thread: it
may be ending because the process does."
  (let ((self (%current-thread)))
    (%with-lock ((service-lock service))
      (when (eq (service-leader service) self) (setf (service-leader service) nil))
      (when (eq (service-ticker service) self)
        (setf (service-ticker service) nil
              (service-ticker-asleep service) nil))
      (setf (service-threads service) (delete self (service-threads service)))
      (decf (service-thread-count service))
      (cond ((service-stopping service)
             (%condition-broadcast (service-end-condition service))
             (%condition-broadcast (service-idle-condition service)))
            (t (rouse-another service))))))

;;; Serving

(defun park-or-end (service client)
  (unless (and (not (service-stopping service)) (park service client))
    (end-client service client nil)))

(defun header-ready-p (client)
  "True once the PROXY header of CLIENT has been read: it is as others from then on. Signals
PROXY-ERROR."
  (let ((socket (client-socket client)))
    (cond ((read-header-now socket) (setf (client-header-span client) nil) t)
          ((passed-p (client-header-end client))
           (fail-late socket (client-header-span client))))))

(defun call-function (service client)
  "The value of the function for CLIENT; :AGAIN without calling it if a connection has to have input
first, and the header was all that has come."
  (let ((first (shiftf (client-fresh client) nil)) (socket (client-socket client)))
    (if (and first (service-await-input service) (socket-link socket)
             (zerop (buffered-input (socket-connection socket))))
        :again
        (funcall (service-function service) socket))))

(defun settle (service client value)
  "The function has returned VALUE for CLIENT: close it, or let it wait, or serve it again at once."
  (let ((connection (socket-connection (client-socket client))))
    (cond ((not (eq value :again))
           (end-client service client nil))
          ((progn (unless (zerop (pending-output connection))
                    (flush-output connection))
                  (plusp (buffered-input connection)))
           (line-up service client))
          (t (drop-input connection)
             (park-or-end service client)))))

(defun serve-client (service client)
  "Call the function on CLIENT; then park it or close it, and on every other exit abort it."
  (let ((mine t))
    (unwind-protect
         (let ((*client* client))
           (block attempt
             (handler-bind ((serious-condition
                              (lambda (condition)
                                (report-error service condition (client-socket client))
                                (return-from attempt))))
               (if (or (null (client-header-span client)) (header-ready-p client))
                   (settle service client (call-function service client))
                   (park-or-end service client))
               (setf mine nil))))
      (when mine
        (end-client service client t)))))

;;; Starting

(defun local-name-p (spec)
  "True if SPEC names a local socket."
  (or (pathnamep spec)
      (and (stringp spec) (plusp (length spec)) (find (char spec 0) "/@"))))

(defun open-listener (spec host keywords local-keywords)
  "A new SOCKET-SERVER as SPEC, a port or a local name, asks for."
  (if (local-name-p spec)
      (apply #'open-unix-server spec local-keywords)
      (apply #'open-socket-server spec :host host keywords)))

(defun check-listener (server)
  "SERVER, a SOCKET-SERVER, if its connections are streams."
  (if (eq (server-kind server) :stream)
      server
      (fail-as 'not-supported :serve :not-supported :socket server
               :message "expected a server of streams, got ~A" :arguments (list server))))

(defun open-listeners (specs hosts keywords local-keywords)
  "The SOCKET-SERVERs that SPECS ask for, each port on each of HOSTS. If one cannot be opened none
is."
  (let ((all '()) (own '()) (done nil))
    (unwind-protect
         (dolist (spec specs (progn (setf done t) (nreverse all)))
           (if (typep spec 'socket-server)
               (push (check-listener spec) all)
               (dolist (host (if (local-name-p spec) '(nil) hosts))
                 (push (open-listener spec host keywords local-keywords) own)
                 (push (first own) all))))
      (unless done
        (mapc #'close own)))))

(defun given (&rest plist)
  "PLIST without the keys whose values are NIL."
  (loop for (key value) on plist by #'cddr
        when value
          collect key and collect value))

(defun serve (function port
              &key host (threads 64) max-connections backlog (name "service") timeout on-error
                await-input proxy-protocol family (reuse-address t) reuse-port mode (nodelay t)
                (keepalive t)
                (external-format :utf-8) bin element-type
                (input-timeout timeout) (output-timeout timeout))
  "Listen on PORT, call FUNCTION with the SOCKET of each connection, on threads of the service,
close it when FUNCTION returns, and return a SERVER at once; STOP-SERVER stops it.
PORT: as for OPEN-SOCKET-SERVER (NIL or 0: any free one, see SERVER-LISTENERS); a pathname, or a
string that begins with / or @: a local socket; a SOCKET-SERVER, such as one of ACTIVATED-SERVERS,
which is closed with the service; or a list of these. HOST: as for OPEN-SOCKET-SERVER, or a list.
FUNCTION gets one argument and may block; what it writes is flushed when it returns. If it returns
:AGAIN the connection is kept: it waits without a thread until it has input, its end or a failure,
and then FUNCTION is called with it again, at once if there is buffered input. So few threads hold
many idle connections; a server for a protocol with requests serves one request in each call. With
AWAIT-INPUT true a new connection waits for its first input in the same way; that is for protocols
in which the client speaks first.
THREADS: how many there are at the most (64); they are made as they are needed. A connection that
finds none waits in a line. MAX-CONNECTIONS: how many connections are open at the most (NIL: as many
as there are descriptors); the others stay in the system's queue, see BACKLOG. NAME: a string that
the names of the threads begin with.
TIMEOUT: seconds that a connection may be idle (NIL: no limit): it is the INPUT-TIMEOUT and the
OUTPUT-TIMEOUT of its socket, if these are not given, and a connection that waits for input so long
is closed.
ON-ERROR: a function of a condition and a socket, called on the thread and in the dynamic context
where FUNCTION signalled a serious condition; the connection is aborted after that and the service
goes on. It is also called where a connection cannot be accepted (RESOURCE-EXHAUSTED), with the
SOCKET-SERVER; the service waits until there is room. NIL: a line to *ERROR-OUTPUT*, none for peers
that went away or were silent.
PROXY-PROTOCOL: as for OPEN-SOCKET-SERVER, for all listeners. A connection waits for its header
without a thread, and FUNCTION is called once that has been read. If it is bad or late the
connection is aborted, and ON-ERROR gets the PROXY-ERROR.
FAMILY, BACKLOG, REUSE-ADDRESS, REUSE-PORT (several processes on one port), NODELAY, KEEPALIVE as
for OPEN-SOCKET-SERVER; MODE as for OPEN-UNIX-SERVER; EXTERNAL-FORMAT, BIN, ELEMENT-TYPE,
INPUT-TIMEOUT, OUTPUT-TIMEOUT as for SOCKET-ACCEPT.
Conditions: those of OPEN-SOCKET-SERVER and OPEN-UNIX-SERVER, before any thread is made."
  (check-argument :serve function '(or function symbol) "a function of a socket")
  (check-argument :serve on-error '(or function symbol) "a function of a condition and a socket")
  (check-argument :serve threads '(integer 1 10000) "a number of threads, 1 to 10000")
  (check-argument :serve max-connections '(or null (integer 1)) "a number of connections, or NIL")
  (check-argument :serve name 'string "a name, a string")
  (let* ((span (span-of timeout))
         (settings (append (given :proxy-protocol proxy-protocol :bin bin :element-type element-type
                                  :input-timeout input-timeout :output-timeout output-timeout)))
         (checked (apply #'parse-settings :external-format external-format settings))
         (listeners (open-listeners
                     (if (consp port) port (list port))
                     (if (consp host) host (list host))
                     (list :backlog backlog :family family :reuse-address reuse-address
                           :reuse-port reuse-port :nodelay nodelay :keepalive keepalive
                           :external-format external-format)
                     (list :backlog backlog :mode mode :external-format external-format))))
    (declare (ignore checked))
    (start-service
     (lambda (set)
       (make-service :function (coerce function 'function)
                     :on-error (coerce (or on-error #'log-error) 'function)
                     :name name :thread-limit threads :connection-limit max-connections
                     :timeout span :await-input await-input :set set
                     :processors (%processor-count)
                     :listeners (loop for listener in listeners
                                      collect (cons listener
                                                    (apply #'parse-settings
                                                           (append settings
                                                                   (server-settings
                                                                    listener)))))))
     listeners)))

(defun start-service (make listeners)
  "The SERVER of the service that MAKE returns, called with its poll-set, once it has a thread. If
that fails LISTENERS are closed."
  (let ((result 0) (done nil))
    (with-cleanup
        (progn
          (call-deferred (setf result (lport-poller-open +lport-poller-best+)))
          (when (minusp result)
            (fail result :listen))
          (let ((service (funcall make (make-poll-set :handle result))))
            (dolist (listener listeners)
              (let ((status (lport-poller-add result
                                              (channel-handle (endpoint-channel listener))
                                              +lport-input+)))
                (when (minusp status)
                  (fail status :listen))))
            (%with-lock ((service-lock service))
              (add-thread service))
            (when (zerop (service-thread-count service))
              (fail-as 'resource-exhausted :serve :memory-exhausted
                       :message "no thread could be made"))
            (setf done t)
            (make-instance 'server :service service)))
      (unless done
        (mapc #'close listeners)
        (when (plusp result)
          (lport-socket-close result 0))))))

;;; Stopping

(defun begin-stop (service)
  "Set the mark; true for the first caller."
  (%with-lock ((service-lock service))
    (unless (service-stopping service)
      (setf (service-stopping service) t))))

(defun rouse-threads (service)
  "Every thread looks at the mark."
  (%with-lock ((service-lock service))
    (%condition-broadcast (service-idle-condition service))
    (%condition-notify (service-tick-condition service)))
  (lport-poller-wake (channel-handle (service-set service))))

(defun end-parked (service)
  (do-parked service
    (lambda (client)
      (when (change-state client :parked :running)
        (end-client service client nil)))))

(defun others-p (service)
  "True if there is a client but that of this thread. With the lock held."
  (> (service-client-count service) (if *client* 1 0)))

(defun threads-p (service)
  "True if there is a thread but this one. With the lock held."
  (> (service-thread-count service)
     (if (member (%current-thread) (service-threads service)) 1 0)))

(defun wait-for-end (service predicate moment)
  "Wait until PREDICATE is false of SERVICE: true if it is by MOMENT."
  (declare (type function predicate) (type moment moment))
  (%with-open-lock ((service-lock service))
    (loop
      (unless (funcall predicate service)
        (return t))
      (let ((seconds (seconds-until moment)))
        (when (eql seconds 0.0d0)
          (return nil))
        (%condition-wait (service-end-condition service) (service-lock service) seconds)))))

(defun abort-clients (service)
  "Close the connections of all other threads under them."
  (loop for client across (service-clients service)
        when (and client (not (eq client *client*)))
          do (close (client-socket client) :abort t)))

(defun stop-server (server &key (drain 5))
  "Stop SERVER, as SERVE returned it: close its listeners, so that connects are refused at once;
close the connections that wait for input; let the function finish with the others for DRAIN seconds
(NIL: as long as it takes; 0: not at all), and give those in the line to it; then abort the
connections that are left, on which the function gets SOCKET-CLOSED. Returns true when every thread
of the service has ended; NIL when one is still computing 5 seconds after its connection was
aborted. It may be called more than once, and by the function itself, whose own connection and
thread are then left to it.
Local paths are unlinked. Nobody has to connect for any of this."
  (let ((service (check-service server))
        (until (moment-after drain)))
    (when (begin-stop service)
      (mapc #'close (server-listeners server))
      (rouse-threads service)
      (end-parked service))
    (unless (wait-for-end service #'others-p until)
      (abort-clients service))
    (prog1 (wait-for-end service #'threads-p (moment-after *close-limit*))
      (call-deferred (lport-socket-close (channel-handle (service-set service)) 0)))))
