;;;; service - SERVE, STOP-SERVER and WAIT-FOR-SERVER, and the SERVER between them. How it works is
;;;; told in service-clients.lisp.
;;;;
;;;; Invariant: a SERVER exists only once its listeners are open and it has a thread; where that
;;;; fails nothing is left open. Whoever stops it sets a mark first, and looks then for what to end
;;;; or to serve; a second mark, once all that is in the queue, lets the threads end. A thread that
;;;; is unwound while it stops the service leaves no client that it has taken with nobody.

(in-package :port)

(defclass server ()
  ((service :initarg :service :reader server-service :type service))
  (:documentation "A running service. Made by SERVE; STOP-SERVER stops it, WAIT-FOR-SERVER waits for
its end."))

(defun service-state-text (service)
  (cond ((not (service-stopping service))
         (if (service-paused service) "serving, accepts no more for now" "serving"))
        ((plusp (service-thread-count service)) "stopping")
        (t "stopped")))

(defmethod print-object ((server server) stream)
  (let ((service (server-service server)))
    (print-plainly server stream
                   (plain-format "~A~{ ~A~}, ~D connection~:P~@[ (~A)~]"
                                 (service-name service)
                                 (mapcar (lambda (listener) (nth-value 0 (socket-ends listener)))
                                         (server-listeners server))
                                 (service-client-count service)
                                 (and (service-stopping service) (service-state-text service)))
                   :identity t)))

(defun check-service (object operation)
  (server-service (check-argument operation object 'server "a SERVER, as SERVE returns it")))

(defun server-listeners (server)
  "Return the SOCKET-SERVERs of SERVER, as SERVE returned it, a list in the order in which they were
asked for; see SOCKET-SERVER-HOST/PORT. They are closed once the service has been stopped."
  (mapcar #'car (service-listeners (check-service server :listeners))))

(defun server-connections (server)
  "Return the SOCKETs of SERVER, as SERVE returned it, that are open connections of the service now,
whether its function is at work on them or they wait: a new list, in no order. Second value: how
many of them are with a thread. It is a snapshot: others may have come and gone by the time that it
is looked at. Who only looks may ask each for its SOCKET-HOST/PORT or SOCKET-INFO; what is read or
written belongs to the function. CLOSE ends one, from any thread: its wait, or the call of the
function, which gets SOCKET-CLOSED; then the service forgets it, and its ON-CLOSE is told."
  (let ((service (check-service server :connections)) (sockets '()) (busy 0))
    (flet ((open-p (client)
             (not (or (eq (client-state client) :closed)
                      (channel-closing (client-connection client))))))
      (%with-lock ((service-lock service))
        (loop for client across (service-clients service)
              when (and client (open-p client))
                do (push (client-socket client) sockets)
                   (unless (eq (client-state client) :parked)
                     (incf busy)))
        (loop for client = (service-first service) then (client-next client)
              while client
              when (open-p client)
                do (decf busy))))
    (values sockets busy)))

;;; Starting

(defun given (&rest plist)
  "PLIST without the keys whose values are NIL."
  (loop for (key value) on plist by #'cddr
        when value
          collect key and collect value))

(defun serve (function port &rest keywords
              &key host (threads 64) max-connections backlog (name "service") timeout on-error
                on-close await-input tls proxy-protocol family (reuse-address t) reuse-port mode
                (unlink t) (nodelay t) (keepalive t) (external-format :utf-8) bin element-type
                (input-timeout timeout) (output-timeout timeout) options
              &allow-other-keys)
  "Listen on PORT, call FUNCTION with the SOCKET of each connection, on threads of the service,
close it when FUNCTION returns, and return a SERVER at once; STOP-SERVER stops it.
PORT: as for OPEN-SOCKET-SERVER (NIL or 0: any free one, see SERVER-LISTENERS); a pathname, or a
string that begins with / or @: a local socket; a SOCKET-SERVER of streams, such as one of
ACTIVATED-SERVERS, which is closed with the service, and left open where this fails; or a list of
these; or :NONE: it listens nowhere, and SERVE-CONNECTION gives it its connections.
HOST: as for OPEN-SOCKET-SERVER, or a list. It listens on each address of a name, once, but for
those that this machine has not, as long as it has one. A port is the same on all hosts and
addresses, also one that the system picks.
FUNCTION gets one argument and may block; what it writes is flushed when it returns. If it returns
:AGAIN the connection is kept: it waits without a thread until it has input, its end or a failure,
and then FUNCTION is called with it again, at once if there is buffered input. One that returns
:AGAIN at the end of its client, which nothing can come after, has failed with a USAGE-ERROR. So few
threads hold many idle connections; a server for a protocol with requests serves one request in each
call. If it returns :MORE, what has come is not all of a request, and the connection waits in the
same way until more has come than the function has seen, or the end, after which :MORE is a
USAGE-ERROR; once the service stops it is closed. Such a function reads with an INPUT-TIMEOUT of 0.
With AWAIT-INPUT true a new connection waits for its first input as after :AGAIN; that is for
protocols in which the client speaks first. A symbol, here and for the hooks below, is the function
that it names when it is called: what is defined anew holds for the services that are running.
THREADS: how many there are at the most (64); they are made as they are needed, and those that have
had nothing to do for 10 seconds end, but for two. A connection that finds none waits its turn; one
whose client is silent while FUNCTION reads has one until TIMEOUT.
MAX-CONNECTIONS: how many connections are open at the most (NIL: as many as there are descriptors);
the others stay in the system's queue, see BACKLOG. NAME: a string that the names of the threads
begin with, and the lines that tell of errors.
TIMEOUT: seconds that a connection may be idle (NIL: no limit): it is the INPUT-TIMEOUT and the
OUTPUT-TIMEOUT of its socket, if these are not given, and a connection that waits for input so long
is closed. So is one that waits beyond the SOCKET-DEADLINE for :INPUT that its socket has when
FUNCTION returns: a limit for this connection alone, or for a request that comes in pieces.
ON-ERROR: a function of a condition and a socket, called on the thread and in the dynamic context
where FUNCTION signalled a serious condition; the connection is aborted after that and the service
goes on. It is also called where a connection cannot be accepted (RESOURCE-EXHAUSTED), with the
SOCKET-SERVER; the service waits until there is room, and does not call it again for that before it
has returned and another connection was accepted. NIL: a line to *ERROR-OUTPUT*, none where the
client went away or was silent. What ON-ERROR signals itself is a line there, too. Where one of
these functions opens the debugger there are the restarts ABORT, which closes the connection and
goes on serving, and STOP-SERVER.
ON-CLOSE: a function of a socket, called once for each connection that was accepted, after it has
been closed, by whomever: when FUNCTION has returned or failed, after TIMEOUT, by another thread, by
STOP-SERVER; also where FUNCTION was never called on it. It runs on a thread of the service, after
the last call of FUNCTION on that socket. What it signals goes to ON-ERROR. NIL: nothing is called.
TLS: a TLS-CONTEXT with a certificate: every connection begins with the handshake, which waits for
the client without a thread, and has to be done within 10 seconds from the client's first octets on;
then FUNCTION is called. A handshake that fails is an error as of FUNCTION. NIL: no TLS, but
FUNCTION may call START-TLS.
PROXY-PROTOCOL: as for OPEN-SOCKET-SERVER, for all listeners; the header comes before TLS. A
connection waits for it without a thread, and FUNCTION is called once it has been read. If it is bad
or late the connection is aborted, and ON-ERROR gets the PROXY-ERROR.
FAMILY, BACKLOG, REUSE-ADDRESS, REUSE-PORT (several processes on one port), NODELAY, KEEPALIVE and
OPTIONS, for each listener that is opened here, as for OPEN-SOCKET-SERVER; MODE and UNLINK as
for OPEN-UNIX-SERVER; EXTERNAL-FORMAT, BIN, ELEMENT-TYPE, INPUT-TIMEOUT, OUTPUT-TIMEOUT as for
SOCKET-ACCEPT.
Once all its listeners have been closed, by whomever, the service ends with its last connection.
Conditions: those of OPEN-SOCKET-SERVER and OPEN-UNIX-SERVER, before any thread is made;
NOT-SUPPORTED, before anything is opened, for a socket that is no server of streams, and on a Lisp
without threads."
  (check-own-keywords 'serve :serve keywords)
  (check-argument :serve function 'callable "a function of a socket")
  (check-argument :serve on-error '(or null callable) "a function of a condition and a socket")
  (check-argument :serve on-close '(or null callable) "a function of a socket")
  (check-argument :serve port '(or atom proper-list) "a proper list of ports")
  (check-argument :serve host '(or atom proper-list) "a proper list of hosts")
  (check-argument :serve threads '(integer 1 10000) "a number of threads, 1 to 10000")
  (check-argument :serve max-connections '(or null (integer 1)) "1 or more connections, or NIL")
  (check-argument :serve name 'string "a name, a string")
  (check-argument :serve tls '(or null tls-context) "a TLS-CONTEXT, or NIL")
  (when tls
    (check-identity tls))
  (check-backlog backlog)
  (check-threads)
  (let* ((span (span-of timeout))
         (presets (parse-presets options))
         (settings (append (when (get-properties keywords '(:external-format)) ; else a server's own
                             (list :external-format external-format))
                           (given :proxy-protocol proxy-protocol :bin bin
                                  :element-type element-type :input-timeout input-timeout
                                  :output-timeout output-timeout)))
         (parsed (apply #'parse-settings settings))) ; before anything is opened
    (multiple-value-bind (listeners own)
        (open-listeners (if (consp port) port (list port))
                        (if (consp host) host (list host))
                        family
                        (list :backlog backlog :reuse-address reuse-address :reuse-port reuse-port
                              :nodelay nodelay :keepalive keepalive
                              :external-format external-format :presets presets)
                        (list :backlog backlog :mode mode :unlink unlink
                              :external-format external-format
                              :options options))
      (start-service
       (lambda (set)
         (make-service :function function
                       :on-error (or on-error (lambda (condition socket)
                                                (log-error name condition socket)))
                       :on-close on-close
                       :name name :thread-limit threads :connection-limit max-connections
                       :timeout span :await-input await-input :tls tls :set set
                       :settings parsed
                       :processors (%processor-count) :idle-span (nanoseconds *idle-limit*)
                       :listeners (listeners-with-settings listeners settings)))
       listeners own))))

(note-keywords 'serve)

(defun check-threads ()
  "Signal NOT-SUPPORTED where this Lisp has no threads."
  (unless (%threads-p)
    (fail-as 'not-supported :serve :not-supported
             :message "expected a Lisp with threads, got ~A; POLLER-WAIT does without"
             :arguments (list (lisp-implementation-type)))))

(defun listeners-with-settings (listeners settings)
  "A list of (listener . settings) for LISTENERS: those of their connections, parsed, which are
SETTINGS, a plist, and what each has of its own beside them."
  (loop for listener in listeners
        for own = (server-settings listener)
        collect (cons listener (apply #'parse-settings (append settings own)))))

(defun start-service (make listeners own)
  "The SERVER of the service that MAKE returns, called with its poll-set, for LISTENERS, once it has
a thread. If that fails, or is unwound before anybody has the SERVER, OWN, those that nobody else
knows, are closed."
  (let ((result 0) (service nil) (kept nil))
    (with-cleanup
        (progn
          (call-deferred (setf result (lport-poller-open +lport-poller-best+)))
          (when (minusp result)
            (fail result :serve))
          (let ((new (funcall make (make-poll-set :handle result))))
            (dolist (listener listeners)
              (let ((status (lport-poller-add result
                                              (endpoint-handle listener)
                                              +lport-input+)))
                (when (minusp status)
                  (fail status :serve :socket listener)))
              (note-listener new listener))
            (call-deferred
              (%with-lock ((service-lock new))
                (add-thread new))
              (when (plusp (service-thread-count new))
                (setf service new))))
          (unless service
            (fail-as 'resource-exhausted :serve :threads-exhausted
                     :message "no thread could be made"))
          (prog1 (make-instance 'server :service service)
            (setf kept t)))
      (cond (kept)
            (service (take-down service own))
            (t (mapc #'close own)
               (when (plusp result)
                 (lport-socket-close result 0)))))))

(defun take-down (service own)
  "Nobody gets SERVICE, which has just begun: it stops, and of its listeners OWN are closed."
  (setf (service-listeners service)
        (remove-if-not (lambda (row) (member (car row) own)) (service-listeners service)))
  (stop-server (make-instance 'server :service service) :drain 0))

;;; Stopping

(defun begin-stop (service)
  "Set the mark; true for the first caller."
  (%with-lock ((service-lock service))
    (unless (service-stopping service)
      (setf (service-stopping service) t))))

(defconstant +last-batches+ 64
  "Batches that are taken from the backlog of a listener at the most before it is closed.")

(defun accept-last (service until)
  "Take what is in the backlogs of the listeners, by UNTIL, to be served: a close would reset it."
  (loop for (listener . settings) in (service-listeners service)
        do (loop repeat +last-batches+
                 until (passed-p until)
                 until (zerop (accept-into-queue service listener settings)))))

(defun accept-into-queue (service listener settings)
  "Take what is in the backlog of LISTENER, at most a batch, to be served; how many."
  (call-deferred
    (multiple-value-bind (first last count) (accept-clients service listener settings)
      (when first
        (%with-lock ((service-lock service))
          (append-clients service first last)))
      count)))

(defun end-parked (service until)
  "Close the connections that wait for input; those that have some have their turn, unless UNTIL has
passed."
  (do-parked service
    (lambda (client)
      (call-deferred
        (when (change-state client :parked :running)
          (if (and (not (passed-p until)) (input-now-p client))
              (enqueue-client service client)
              (end-soon service client)))))))

(defun end-threads (service)
  "Every thread looks at the queue for the last time."
  (%with-lock ((service-lock service))
    (let-threads-end service))
  (lport-poller-wake (channel-handle (service-set service))))

;;; A function may stop its own service. Its connection and its thread are left to it, by others
;;; that stop the service at the same time too: else each would wait for the other.

(defun own-client (service)
  "The client of SERVICE that this thread has, or NIL. With the lock held."
  (and *client* (eq *client* (find-client service (client-handle *client*))) *client*))

(defun call-as-stopper (service function)
  "Call FUNCTION, which waits for the end of SERVICE, so that nobody else waits for this thread."
  (let ((thread nil) (client nil))
    (flet ((note (stopping)
             (%with-lock ((service-lock service))
               (when client
                 (incf (client-stopping client) (if stopping 1 -1)))
               (when thread
                 (if stopping
                     (push thread (service-stoppers service))
                     (setf (service-stoppers service)
                           (remove thread (service-stoppers service) :count 1)))
                 (%condition-broadcast (service-end-condition service))))))
      (%with-lock ((service-lock service))
        (setf client (own-client service)
              thread (find (%current-thread) (service-threads service))))
      (with-waiting (noted (progn (note t) t))
          (funcall function)
        (when noted
          (note nil))))))

(defun stopping-p (client)
  "True if CLIENT, one or NIL, has a function that is just stopping its service."
  (and client (plusp (client-stopping client))))

(defun leader-p (service)
  "True if there is a leader that is not just stopping SERVICE: it may have accepted a connection
that is no client yet. With the lock held."
  (let ((leader (service-leader service)))
    (and leader (not (member leader (service-stoppers service))))))

(defun others-p (service)
  "True if there is a client whose function is not just stopping SERVICE. With the lock held."
  (> (service-client-count service)
     (count-if #'stopping-p (service-clients service))))

(defun threads-p (service)
  "True if there is a thread that is not just stopping SERVICE. With the lock held."
  (forget-stillborn service)
  (> (service-thread-count service)
     (length (remove-duplicates (service-stoppers service)))))

(defun wait-for-end (service predicate moment)
  "Wait until PREDICATE is false of SERVICE: true if it is by MOMENT."
  (declare (type function predicate) (type moment moment))
  (%with-open-lock ((service-lock service) wait)
    (loop
      (unless (funcall predicate service)
        (return t))
      (let ((seconds (seconds-until moment)))
        (when (eql seconds 0.0d0)
          (return nil))
        (when (service-starting service) ; one that is killed now tells nobody
          (setf seconds (sooner seconds *start-piece*)))
        (wait (service-end-condition service) seconds)))))

(defun abort-clients (service)
  "Close the connections under the functions that have them, but those that are stopping SERVICE."
  (loop for client across (service-clients service)
        unless (or (null client) (stopping-p client))
          do (close (client-socket client) :abort t)))

(defun stop-server (server &rest options &key (drain 5) &allow-other-keys)
  "Stop SERVER, as SERVE returned it: take the connections that the system has queued, close the
listeners, so that connects are refused; give those that wait and have input their turn, and close
the others that wait, so that their peers read the end of file; let the function finish with all
that it has, and with those that wait their turn, for DRAIN seconds (NIL: as long as it takes; 0:
not at all, then what is queued is reset); then abort the connections that are left, on which the
function gets SOCKET-CLOSED. Returns true when every thread of the service has ended; NIL when one
is still computing 5 seconds after its connection was aborted. WITH-DEADLINE does not end it sooner.
It may be called more than once, and by the function itself, whose own connection and thread are
then left to it.
Local paths are removed, as UNLINK says. Nobody has to connect for any of this. CLOSE does the same,
with :ABORT T as with a DRAIN of 0."
  (check-own-keywords 'stop-server :stop options)
  (let ((service (check-service server :stop))
        (until (moment-after drain)))
    (with-waiting (first-p (begin-stop service))
        (when first-p
          (accept-last service until)
          (mapc #'close (server-listeners server))
          (end-parked service until))
      (when first-p                     ; or an unwind would leave half a service
        (mapc #'close (server-listeners server))
        (end-threads service)))
    (call-as-stopper
     service
     (lambda ()
       (wait-for-end service #'leader-p (moment-after *close-limit*))
       (unless (wait-for-end service #'others-p until)
         (abort-clients service))
       (prog1 (wait-for-end service #'threads-p (moment-after *close-limit*))
         (call-deferred (close-set service)))))))

(note-keywords 'stop-server)

;;; Waiting for the end

(defun running-p (service)
  "True until every thread of SERVICE has ended, those that stop it too. With the lock held."
  (forget-stillborn service)
  (not (and (service-ending service) (zerop (service-thread-count service)))))

(defun check-stranger (service)
  "Signal a USAGE-ERROR on a thread of SERVICE, which would wait for itself."
  (when (%with-lock ((service-lock service))
          (member (%current-thread) (service-threads service)))
    (fail-as 'usage-error :wait :invalid
             :message "expected a thread that is none of the service's own, which would wait for ~
                       itself; STOP-SERVER may be called there")))

(defun wait-for-server (server &rest options &key timeout &allow-other-keys)
  "Wait until SERVER, as SERVE returned it, has stopped, and return true: until STOP-SERVER or CLOSE
has been called, by any thread, or all its listeners have been closed and its last connection has
ended, and every thread of it has ended. NIL when TIMEOUT seconds (NIL: no limit) pass before. It
stops nothing itself. A program whose main thread does nothing else ends with its service.
Conditions: TIMEOUT, when the deadline of WITH-DEADLINE passes; USAGE-ERROR on a thread of the
service, which would wait for itself. Restart: WAIT-LONGER."
  (check-own-keywords 'wait-for-server :wait options)
  (let ((service (check-service server :wait))
        (until (moment-after timeout))
        (limit *deadline*)
        (seconds *deadline-seconds*))
    (check-stranger service)
    (announce-wait)
    (flet ((failed (status)
             (status-condition status :wait :seconds seconds)))
      (loop
        (multiple-value-setq (limit seconds) (check-moment limit #'failed seconds))
        (cond ((wait-for-end service #'running-p (min until limit)) (return t))
              ((passed-p until) (return nil)))))))

(note-keywords 'wait-for-server)

(defmethod close ((server server) &key abort)
  (if abort
      (stop-server server :drain 0)
      (stop-server server)))
