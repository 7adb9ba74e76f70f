;;;; service-threads - how the threads of a service find what to do: the leader, who waits in the
;;;; poller for all of them, the ticker, and those who serve; see service-clients.lisp.
;;;;
;;;; Invariant: while a service runs and not all of its threads are busy, one of them leads or is
;;;; about to; and whoever takes a client from the queue has seen to it that somebody else will look
;;;; for the next, if there is a thread left.

(in-package :port)

;;; Leading

(defun mute (service client)
  "CLIENT has input while it is with a thread: do not hear of it again before it is parked. It may
be parked just now."
  (when (change-state client :running :muted)
    (tell-poller service client)))

(defun input-there-p (client)
  "True if CLIENT has something to be read, an end or a failure. Never blocks."
  (loop for result of-type (signed-byte 64) = (wait-once (client-connection client)
                                                         +lport-input+ 0)
        unless (zerop result)
          return (or (plusp result) (/= (lport-status-kind result) +lport-timed-out+))))

(defun served-now-p (service client)
  "True if CLIENT, of which the leader's wait tells, is its own now, to be served. If it was parked
during that wait, it may be told of what had been read before."
  (and (or (/= (client-parked-in client) (service-turn service))
           (input-there-p client))
       (change-state client :parked :running)))

(defun hear-client (service client)
  "As SERVED-NOW-P; CLIENT is not heard of again while it is with a thread."
  (cond ((eq (client-state client) :parked) (served-now-p service client))
        (t (mute service client) nil)))

(defun hear-room (client flags)
  "Send what is kept for CLIENT if an event with FLAGS tells of room for it: true if it tells of no
more than that."
  (when (logtest +lport-output+ flags)
    (tend-output client)
    (not (logtest +lport-input+ flags))))

(defun hear-event (service handle flags)
  "Deal with an event with FLAGS of HANDLE, a client's or a listener's. Values: the clients that are
to be served now, linked, the first and the last; NIL and NIL for none."
  (let ((client (find-client service handle)))
    (if client
        (and (not (hear-room client flags)) (hear-client service client) (values client client))
        (let ((row (assoc handle (service-listeners service) :key #'endpoint-handle)))
          (and row (accept-clients service (car row) (cdr row)))))))

(defun hear-events (service batch count)
  "Deal with the COUNT events in BATCH. Values as of HEAR-EVENT, of all of them."
  (let ((first nil) (last nil))
    (loop for index from 0 below (* +lport-event-size+ count) by +lport-event-size+
          for handle of-type (unsigned-byte 62) = (aref (event-batch-numbers batch) index)
          for flags of-type (unsigned-byte 62) = (aref (event-batch-numbers batch) (1+ index))
          do (multiple-value-bind (from to) (hear-event service handle flags)
               (when from
                 (if last (setf (client-next last) from) (setf first from))
                 (setf last to))))
    (values first last)))

(defun lead (service batch)
  "Wait once for whatever happens, as the one thread that does, and put it into the queue."
  (incf (service-turn service))
  (let ((result (%interruptible
                  (wait-in-set (service-set service) batch
                               (min (service-sweep-at service) (service-resume-at service))))))
    (multiple-value-bind (first last) (hear-events service batch (max 0 result))
      (when first
        (%with-lock ((service-lock service))
          (append-clients service first last))))
    (look-at-clock service)
    (when (service-deserted service)
      (end-if-empty service))
    (when (consp (service-failure service))
      (tell-of-failure service))))

(defun let-threads-end (service)
  "Every thread looks at the queue for the last time. With the lock held; who leads is to be woken."
  (setf (service-ending service) t)
  (rouse-idlers service)
  (%condition-notify (service-tick-condition service)))

(defun end-if-empty (service)
  "Nobody can come any more: if nobody is here either, stop. To be called by the leader, who alone
accepts: so no connection is between its backlog and the table."
  (%with-lock ((service-lock service))
    (when (and (zerop (service-client-count service))
               (not (service-stopping service)))
      (setf (service-stopping service) t)
      (let-threads-end service)
      (%condition-broadcast (service-end-condition service)))))

(defun tell-of-failure (service)
  "Tell the hook of the failed accept that this thread has met as the leader. Somebody else leads
from now on, since the hook may take its time; it is told of no other such failure until it returns,
so that it has no more than one thread."
  (let ((failure (shiftf (service-failure service) :being-told)))
    (%with-lock ((service-lock service))
      (end-lead service)
      (unless (somebody-comes-p service)
        (wake-another service)))
    (unwind-protect (report-error service (car failure) (cdr failure))
      (setf (service-failure service) nil))))

(defun end-lead (service)
  "Nobody leads any more: who stops the service may wait for that. With the lock held."
  (setf (service-leader service) nil)
  (when (service-stopping service)
    (%condition-broadcast (service-end-condition service))))

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
  (cond ((service-idlers service)
         (rouse-idler service))
        ((service-ticker service)
         (setf (service-wanted service) t)
         (%condition-notify (service-tick-condition service)))))

(defun rouse-idler (service)
  "Let the thread that became idle last go on: what it needs is still near its processor. Each waits
on a condition of its own, since a queue of many wakes others for nothing. With the lock held."
  (let ((idler (pop (service-idlers service))))
    (decf (service-idle service))
    (incf (service-coming service))
    (setf (cdr idler) nil)
    (%condition-notify (car idler))))

(defun rouse-idlers (service)
  "With the lock held."
  (loop while (service-idlers service)
        do (rouse-idler service)))

(defun somebody-comes-p (service)
  "True if a thread is on its way to look for something to do."
  (or (> (service-coming service)
         (count-if-not #'%thread-alive-p (service-starting service)))
      (service-wanted service)))

(defun forget-stillborn (service)
  "Forget the threads that were killed before they began to work. With the lock held."
  (dolist (thread (service-starting service))
    (unless (%thread-alive-p thread)
      (setf (service-starting service) (remove thread (service-starting service))
            (service-threads service) (delete thread (service-threads service)))
      (decf (service-thread-count service))
      (decf (service-coming service)))))

(defun wake-another (service)
  "Let an idle thread look for something to do, or make one. With the lock held."
  (forget-stillborn service)
  (unless (and (zerop (service-idle service))
               (< (service-thread-count service) (service-thread-limit service))
               (add-thread service))
    (rouse-another service)))

;;; Whoever ends the process lets no thread be made any more and waits for all others to end: one
;;; that tried to make another would never do so. So a thread is being made, or the process is
;;; ending, but not both.

(%defglobal *thread-making* (%make-lock))
(%defglobal *process-ending* nil)

(defun note-process-end ()
  (%with-lock (*thread-making*)
    (setf *process-ending* t)))

(%at-exit 'note-process-end)

(defun start-thread (function name)
  "A new thread that calls FUNCTION; NIL once the process is about to end. Signals an ERROR where
the system has none."
  (%with-lock (*thread-making*)
    (unless *process-ending*
      (%make-thread function name))))

(defun add-thread (service)
  "True if another thread could be made: the service goes on with those it has where the system has
none, and while the process ends. With the lock held."
  (incf (service-thread-count service))
  (incf (service-coming service))
  (let ((thread (handler-case (start-thread (lambda () (work service))
                                            (format nil "~A ~D" (service-name service)
                                                    (incf (service-threads-made service))))
                  (error () nil))))
    (cond (thread (push thread (service-threads service))
                  (push thread (service-starting service)))
          (t (decf (service-thread-count service))
             (decf (service-coming service))
             nil))))

(defparameter *start-piece* 0.01
  "Seconds after which a thread that waits for another to begin looks if it has been killed.")

(defun await-successor (service)
  "This thread ends: if all that are left have still to begin, wait until one has, as one that is
killed before leaves nobody who would miss it. With the lock held."
  (loop while (and (service-starting service)
                   (= (service-thread-count service) (length (service-starting service))))
        do (%condition-wait (service-end-condition service) (service-lock service) *start-piece*)
           (forget-stillborn service)
           (when (and (zerop (service-thread-count service)) (work-left-p service))
             (add-thread service))))

(defun work-left-p (service)
  "True if there is, or may come, something to do for a thread. With the lock held."
  (or (service-first service) (not (service-ending service))))

(defun hand-over (service)
  "This thread is about to block: somebody else has to lead, and to serve the queue."
  (unless (or (service-leader service) (somebody-comes-p service))
    (%with-lock ((service-lock service))
      (unless (or (service-leader service) (somebody-comes-p service))
        (wake-another service)))))

(defparameter *tick* 0.002 "Seconds between two looks of the ticker.")
(defparameter *rare-tick* 0.01
  "The same where at least +MANY-TAKEN+ clients were taken from the queue since its last look. A
look takes the processor from those at work: every request of that moment is late.")
(defconstant +many-taken+ 16 "Clients.")
(defconstant +quiet-ticks+ 10 "Looks at nothing to do after which the ticker falls asleep.")
(defconstant +patient-ticks+ 5 "Looks without progress after which it helps although all are busy.")

(defun spare-processor-p (service)
  "True if fewer threads serve clients than there are processors. With the lock held."
  (< (- (service-thread-count service)
        (service-idle service)
        (if (service-ticker service) 1 0)
        (if (service-leader service) 1 0))
     (service-processors service)))

(defun help-needed-p (service still)
  "True if the queue or the poller waits for a thread. STILL: for how many ticks no client has been
taken from the queue. Where as many threads are at work as there are processors they may just have
to wait for one, and a thread more would only be in their way. With the lock held."
  (let ((spare (spare-processor-p service)))
    (or (service-wanted service)
        (if (service-first service)
            (or spare (>= still +patient-ticks+))
            (and (null (service-leader service))
                 (>= still (if spare 1 +patient-ticks+)))))))

(defun tick (service)
  "Be the ticker until help is needed or the service stops. With the lock held."
  (let ((quiet 0) (still 0) (progress (service-progress service)) (seconds *tick*))
    (declare (type fixnum quiet still progress))
    (setf (service-ticker service) (%current-thread))
    (loop until (or (service-ending service) (help-needed-p service still))
          do (cond ((or (service-first service) (null (service-leader service)))
                    (setf quiet 0))
                   (t (incf quiet)))
             (cond ((<= quiet +quiet-ticks+)
                    (%open-condition-wait (service-tick-condition service)
                                          (service-lock service)
                                          seconds))
                   (t (setf (service-ticker-asleep service) t)
                      (%open-condition-wait (service-tick-condition service)
                                            (service-lock service))
                      (setf (service-ticker-asleep service) nil
                            quiet 0)))
             (let ((taken (- (service-progress service) progress)))
               (incf progress taken)
               (setf still (if (zerop taken) (1+ still) 0)
                     seconds (if (>= taken +many-taken+) *rare-tick* *tick*))))
    (setf (service-ticker service) nil
          (service-wanted service) nil)))

(defun need-ticker (service)
  "This thread goes to serve a client: somebody has to tick. With the lock held."
  (cond ((service-ticker-asleep service)
         (setf (service-ticker-asleep service) nil)
         (%condition-notify (service-tick-condition service)))
        ((not (or (service-ticker service) (somebody-comes-p service)))
         (wake-another service))))

(defparameter *slow-pace* 30000
  "Nanoseconds for a client from which on it is worth to wake another thread for the next one, where
there is a processor for it.")

(defun worth-another-p (service)
  "True if another thread could begin now with what this one, which has taken a client, would come
to much later: those in the queue, or, if nobody leads, those that may come. With the lock held."
  (and (> (service-pace service) *slow-pace*)
       (or (service-first service)
           (and (null (service-leader service)) (> (service-client-count service) 1)))
       (spare-processor-p service)))

(defun take-client (service)
  "The first client of the queue, for this thread to serve. Somebody else looks for the next: now,
where that is worth it, else when it ticks. With the lock held."
  (let ((client (pop-client service)))
    (if (and (worth-another-p service) (not (somebody-comes-p service)))
        (wake-another service)
        (need-ticker service))
    client))

(defun rest-a-while (service)
  "Wait until there may be something to do: true, or NIL if there has been nothing for so long that
this thread is to end. With the lock held."
  (cond ((service-ticker service) (be-idle service))
        (t (tick service)
           t)))

(defparameter *idle-limit* 10
  "Seconds after which a thread that has nothing to do ends, but the leader and the ticker.")

(defun be-idle (service)
  "Wait until somebody says that there may be something to do: true, or NIL if nobody has for the
idle span. Whoever wakes the idle takes the last one first, so it is those that nobody needs who
wait so long. With the lock held."
  (let ((idler (cons (%make-condition) t)) (end (moment-in (service-idle-span service))))
    (push idler (service-idlers service))
    (incf (service-idle service))
    (unwind-protect
         (loop
           (%open-condition-wait (car idler) (service-lock service) (seconds-until end))
           (cond ((not (cdr idler)) (return t))
                 ((passed-p end) (return nil))))
      (cond ((cdr idler)
             (setf (service-idlers service) (delete idler (service-idlers service)))
             (decf (service-idle service)))
            (t (decf (service-coming service)))))))

(defun retire (service)
  "This thread, which nobody needs, ends. It is as if it had never been made from the moment on at
which it is no idler any more: whoever needs a thread makes another. With the lock held."
  (setf (service-threads service) (delete (%current-thread) (service-threads service)))
  (decf (service-thread-count service))
  (when (service-stopping service)
    (%condition-broadcast (service-end-condition service))))

(defun next-client (service batch)
  "The next client that this thread has to serve; NIL once there is nothing more to do, or was
nothing for long."
  (let ((self (%current-thread)))
    (loop
      (%with-open-lock ((service-lock service))
        (when (eq (service-leader service) self)
          (end-lead service))
        (cond ((service-first service) (return (take-client service)))
              ((service-ending service) (return nil))
              ((null (service-leader service)) (setf (service-leader service) self))
              ((not (rest-a-while service))
               (retire service)
               (return nil))))
      (when (eq (service-leader service) self)
        (lead service batch)))))

(defun close-text (client)
  "What the restart ABORT does to CLIENT."
  (let ((peer (nth-value 1 (socket-ends (client-socket client)))))
    (if (eq (client-state client) :closed)
        "Go on serving."
        (plain-format "Close this connection~@[ (peer ~A)~] and go on serving." peer))))

(defun serve-until-restart (service batch)
  "Serve clients; NIL once there is nothing more to do, true after a restart. These are there where
a client is served, whatever opens the debugger: an error, BREAK or *BREAK-ON-SIGNALS*. They are
established once for all clients, and so cost none of them anything."
  (flet ((serving-p (condition)
           (declare (ignore condition))
           *client*))
    (restart-case (loop for client = (next-client service batch)
                        while client
                        do (serve-in-time service client))
      (abort ()
        :test serving-p
        :report (lambda (stream) (write-string (close-text *client*) stream))
        t)
      (stop-server ()
        :test serving-p
        :report (lambda (stream) (format stream "Stop the service ~A." (service-name service)))
        (%interruptible (stop-server (make-instance 'server :service service)))
        t))))

(defun work (service)
  "What each thread of SERVICE does. Whoever ends it interrupts, at any moment, the function, a
flush or a wait, and nothing that would leave a client with nobody."
  (let ((batch (make-event-batch nil +first-batch+))
        (*before-wait* (lambda () (hand-over service))))
    (call-deferred
      (%with-lock ((service-lock service))
        (decf (service-coming service))
        (setf (service-starting service) (remove (%current-thread) (service-starting service)))
        (%condition-broadcast (service-end-condition service)))
      (unwind-protect
           (loop while (serve-until-restart service batch))
        (leave-service service)))))

(defconstant +slow+ 1000000 "Nanoseconds: what takes longer is slow, however long it takes.")

(defun serve-in-time (service client)
  "Serve CLIENT, and note how long that took."
  (let ((began (lport-clock-now)))
    (serve-client service client)
    (let ((took (min +slow+ (- (lport-clock-now) began))) (pace (service-pace service)))
      (declare (type fixnum took pace))
      (setf (service-pace service) (+ pace (ash (- took pace) -3))))))

(defun leave-service (service)
  "This thread ends; somebody else has its part, unless the service has stopped: a new thread where
the function has ended this one. One that has retired has none."
  (let ((self (%current-thread)))
    (%with-lock ((service-lock service))
      (unless (member self (service-threads service))
        (return-from leave-service))
      (when (eq (service-leader service) self)
        (end-lead service))
      (when (eq (service-ticker service) self)
        (setf (service-ticker service) nil
              (service-ticker-asleep service) nil
              (service-wanted service) nil))
      (setf (service-threads service) (delete self (service-threads service)))
      (decf (service-thread-count service))
      (when (service-stopping service)
        (%condition-broadcast (service-end-condition service)))
      (when (work-left-p service)
        (wake-another service)
        (await-successor service))
      (when (and (service-ending service) (zerop (service-thread-count service)))
        (close-set service)))))

(defun close-set (service)
  "Nobody waits in the poller of SERVICE any more."
  (lport-socket-close (channel-handle (service-set service)) 0))

;;; Serving

(defun park-or-end (service client)
  "Let CLIENT wait for input, but while the service stops. Of a header or a handshake that is not
whole all that has come has been read."
  (cond ((and (not (service-stopping service)) (park service client)))
        ((and (service-stopping service) (not (client-due-p client)))
         (end-or-serve service client))
        (t (end-client service client nil))))

(defun header-ready-p (client)
  "True once the PROXY header of CLIENT has been read: it is as others from then on. Signals
what READ-HEADER-NOW does, and PROXY-ERROR for one that is late."
  (let ((socket (client-socket client)))
    (cond ((read-header-now socket)
           (setf (client-header-span client) nil
                 (client-due client) +never+)
           t)
          ((passed-p (client-due client))
           (fail-late socket (client-header-span client))))))

(defparameter *tls-limit* 10
  "Seconds that a client may take for its handshake, from its first octets on.")

(defun shaken-hands-p (context client)
  "True once the handshake with CLIENT, by CONTEXT, is done; it begins here. As far as it can be had
without waiting for the client, who may take his time: signals what START-TLS does, and TIMEOUT for
one that is late."
  (let ((connection (client-connection client)))
    (unless (consp (connection-secure connection))
      (setf (client-due client) (moment-after *tls-limit*))
      (begin-session connection context :server nil))
    (loop for direction = (handshake-step connection)
          while (eq direction :output)
          do (%interruptible (await connection :output :handshake (client-due client) 0))
          finally (return (cond ((null direction)
                           (setf (client-due client) +never+)
                           (when (client-keeping client) ; what was posted before
                             (tend-output client))
                           t)
                                ((passed-p (client-due client))
                                 (fail-on connection (lport-status-make +lport-timed-out+)
                                          :handshake :seconds *tls-limit*)))))))

(defun introduced-p (service client)
  "True once all has come of CLIENT that comes before its function is called."
  (let ((tls (service-tls service)))
    (and (or (null (client-header-span client)) (header-ready-p client))
         (or (null tls)
             (eq t (connection-secure (client-connection client)))
             (client-given client)
             (shaken-hands-p tls client)))))

(defun begun-p (service client)
  "True unless a connection has to have input before its function is called, and CLIENT, whose first
turn it is, has none: what came before was all that it has sent, or nobody has looked."
  (not (and (service-await-input service)
            (or (service-tls service) (client-given client) (socket-link (client-socket client)))
            (not (has-input-p (client-connection client))))))

(defun called-in-vain-p (connection)
  "True if CONNECTION, which was ready for input, has none: what came was for TLS alone, and would
keep a thread that reads for as long as its peer likes."
  (and (zerop (buffered-input connection))
       (vain-p connection)))

(defun call-function (service client)
  "The value of the function for CLIENT; :AGAIN without calling it if it has not BEGUN, or has
nothing to be called for, and in place of :MORE if there is more already."
  (let ((first (shiftf (client-fresh client) nil)) (connection (client-connection client))
        (socket (client-socket client)))
    (note-arrival connection)           ; the poller has said so
    (if (if first
            (not (begun-p service client))
            (called-in-vain-p connection))
        :again
        (let* ((ended (connection-ended connection)) (at-end (at-end-p connection))
               (position (octets-read connection)) (arrived (connection-octets-in connection))
               (value (%interruptible (funcall (service-function service) socket))))
          (when (and (case value (:again at-end) (:more ended))
                     (not (channel-closing connection)))
            (fail-endless socket value))
          (case value
            (:again
             (when (and (not first)
                        (zerop (buffered-input connection))
                        (= position (octets-read connection)))
               (look-for-end connection))
             :again)
            (:more (if (more-came-p connection arrived) :again :more))
            (t value))))))

(defun look-for-end (connection)
  "Receive what the function, which has read nothing, has left in the system: it may be the end.
Where it has read there is no hurry, and what comes next may be for RECEIVE-DESCRIPTORS."
  (with-input-now (connection)
    (fill-input-quickly connection)))

(defun more-came-p (connection arrived)
  "True if there is more than the function has seen, which wants more; ARRIVED is what octets there
were before. If none have come since it may not have looked at all."
  (or (and (= arrived (connection-octets-in connection))
           (look-for-end connection))
      (connection-ended connection)     ; which it had not when the function was called
      (and (connection-secure connection)
           (library-has-p connection +lport-input+))))

(defun fail-endless (socket value)
  "Nothing comes of SOCKET any more, as the function could know, which has returned VALUE: it would
be called again at once, for ever."
  (fail-as 'usage-error :serve :invalid :socket socket
           :message "expected the function to return something else than ~S at the end of its ~
                     client"
           :arguments (list value)))

(defun settle (service client value)
  "The function has returned VALUE for CLIENT: close it, or let it wait, or serve it again at once."
  (let ((connection (client-connection client)))
    (cond ((client-stalled client) (fail-stalled client))
          ((not (member value '(:again :more)))
           (%interruptible (end-client service client nil)))
          ((progn (cond ((all-sent-p connection))
                        ;; What was posted goes first, and nobody waits for that.
                        ((client-keeping client) (tend-output client))
                        (t (%interruptible (flush-output connection))))
                  (and (eq value :again) (has-input-p connection)))
           (enqueue-client service client))
          ((zerop (buffered-input connection))
           (drop-input connection)
           (park-or-end service client))
          ;; A part of a request, which nobody needs a thread for.
          ((service-stopping service) (end-soon service client))
          (t (park-or-end service client)))))

(declaim (inline call-telling-errors))
(defun call-telling-errors (service client function)
  "Call FUNCTION up to the first serious condition that it signals, which the error hook is told."
  (declare (type function function))
  (block attempt
    (handler-bind ((serious-condition
                     (lambda (condition)
                       (report-error service (cause client condition) (client-socket client))
                       (return-from attempt))))
      (funcall function))))

(defun tell-of-close (service client)
  "Tell the hook that the connection of CLIENT has been closed."
  (call-telling-errors service client
                       (lambda ()
                         (%interruptible (funcall (service-on-close service)
                                                  (client-socket client))))))

(defun attend-to-client (service client)
  "Call the function on CLIENT; then park it or close it, and on every other exit abort it."
  (let ((mine t))
    (unwind-protect
         (call-telling-errors
          service client
          (lambda ()
            (cond ((client-stalled client) (fail-stalled client))
                  ((client-leaving client)
                   (%interruptible (end-cleanly service client)))
                  ((introduced-p service client)
                   (settle service client (call-function service client)))
                  (t (park-or-end service client)))
            (setf mine nil)))
      (unless (or (not mine) (eq (client-state client) :closed))
        (end-client service client t)))))

(defun serve-client (service client)
  "Do what the turn of CLIENT is for."
  (let ((*client* client))
    (if (eq (client-state client) :closed)
        (tell-of-close service client)
        (attend-to-client service client))))
