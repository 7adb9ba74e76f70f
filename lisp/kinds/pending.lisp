;;;; pending - connections that nobody waits for: begun, watched by pollers, called off, finished.
;;;;
;;;; A dial is driven by whoever is in FINISH-CONNECT, one thread at a time. Its watch is a handle
;;;; like those of sockets, so waits, pollers, a close from elsewhere and the collector treat it as
;;;; one. Invariant: the socket that a dial has made is in MADE until somebody takes it, to hand it
;;;; out or to close it; whoever closes a pending connection sets the mark first and looks there
;;;; then, and who puts it there looks for the mark after that.

(in-package :port)

(defclass pending-connection ()
  ((channel :initarg :channel :reader endpoint-channel :type channel)
   (dialling :initarg :dialling :reader pending-dialling :type dialling)
   (made :initform (list nil) :reader pending-made :documentation "A cell: the socket, or NIL.")
   (failed :initform nil :accessor pending-failed-p))
  (:documentation "A connect that has begun and that no thread has to wait for. Made by
BEGIN-CONNECT; FINISH-CONNECT makes a SOCKET of it, CLOSE, from any thread, calls it off. A poller
and WAIT-FOR-INPUT take it as they take sockets."))

(defun pending-target (pending)
  "A plist for conditions: where PENDING goes."
  (let ((dialling (pending-dialling pending)))
    (list :host (dialling-host dialling) :port (dialling-port dialling))))

(defmethod print-object ((pending pending-connection) stream)
  (destructuring-bind (&key host port) (pending-target pending)
    (print-plainly pending stream
                   (plain-format "to ~A port ~A~:[~; (closed)~]" host port
                                 (channel-closing (endpoint-channel pending)))
                   :identity t)))

;;; The socket that it has become

(defun take-made (pending)
  "The socket of PENDING, which is the caller's from here on, or NIL."
  (let ((cell (pending-made pending)))
    (loop for made = (car cell)
          until (eq made (%compare-and-swap (car cell) made nil))
          finally (return made))))

(defun discard-made (pending)
  (let ((made (take-made pending)))
    (when made
      (close made :abort t))))

(defun step-pending (pending)
  "Do what can be done now: NIL once there is a socket, else a status. To be called with interrupts
deferred."
  (let ((cell (pending-made pending)))
    (unless (car cell)
      (let ((result (step-dial (pending-dialling pending))))
        (if (integerp result)
            result
            (progn (setf (car cell) result)
                   nil))))))

(defmethod close ((pending pending-connection) &key abort)
  "Call it off: nothing of it is left, and who is in FINISH-CONNECT gets SOCKET-CLOSED."
  (declare (ignore abort))
  (let ((channel (endpoint-channel pending)))
    (call-deferred
      (when (begin-close channel)
        (close-handle channel nil)
        (tell-closed pending)))
    (discard-made pending)
    t))

;;; Beginning

(defun begin-connect (host port &rest options)
  "Begin to connect to PORT of HOST and return a PENDING-CONNECTION at once; FINISH-CONNECT makes a
SOCKET of it. HOST, PORT and OPTIONS are those of OPEN-SOCKET, BIN as a keyword. TIMEOUT is for
names, addresses and all; WITH-DEADLINE is for the calls of FINISH-CONNECT. Names are looked up
meanwhile, too, but for those of LOCAL-HOST, which are waited for here.
POLLER-ADD and WAIT-FOR-INPUT take what this returns: it has :INPUT when FINISH-CONNECT is worth a
call with a WAIT of 0, because of a connection, a failure, a limit that has passed, or another
address to be tried. Nothing goes on without these calls. CLOSE, from any thread, calls it off; what
nobody refers to any more is closed as sockets are. What the connect comes to, a refusal too, is
told by FINISH-CONNECT.
Conditions: ADDRESS-ERROR, USAGE-ERROR; RESOLVE-ERROR and TIMEOUT of LOCAL-HOST; RESOURCE-EXHAUSTED;
NOT-SUPPORTED where the system has no epoll. Source: connect(2), RFC 8305, epoll(7)."
  (apply #'connect-to #'begin-pending host port
         (check-keywords :connect options *connect-keywords*)))

(check-calls 'begin-connect #'cddr *connect-keywords*)
(%show-lambda-list 'begin-connect `(host port ,@(member '&key (%lambda-list 'connect-to))))

(defun begin-pending (open host port limit timeout settings &key own (presets *no-presets*))
  "As DIAL-TO, without a wait: the pending connection. LIMIT is that of this call alone."
  (declare (ignore limit))
  (let ((dialling (make-dialling :host host :port port :limit (moment-after timeout)
                                 :seconds timeout :own own :settings settings :presets presets))
        (pending nil))
    (with-cleanup
        (progn
          (begin-dial dialling open)
          (setf pending (opened (open-pending dialling) :connect :host host :port port)))
      (unless pending
        (end-dial dialling)))))

(defun watch-dial (dialling)
  "The handle that is ready when there is something to do for DIALLING, or a status."
  (lport-dial-watch (dialling-dial dialling) (dialling-limit dialling)))

(defun open-pending (dialling)
  "A pending connection around DIALLING, whose first step has been made, or a status."
  (open-endpoint (lambda () (watch-dial dialling))
                 (lambda (handle)
                   (make-instance 'pending-connection :channel (make-channel :handle handle)
                                                      :dialling dialling))
                 (lambda (pending)
                   (call-deferred (step-pending pending)))))

;;; Finishing

(defun finish-connect (pending &key wait)
  "Return the SOCKET that PENDING, as BEGIN-CONNECT returned it, has become; NIL when WAIT seconds
pass without one. WAIT NIL: wait as long as it takes, within the limits of time; WAIT 0: do what can
be done now. Once it has returned the SOCKET, or signalled what has become of the connect, its
TIMEOUT included, PENDING is closed; a deadline of WITH-DEADLINE ends this call alone, which can be
made again. One thread at a time is in here, others wait for it. For TLS give the SOCKET to
START-TLS.
Conditions: those of OPEN-SOCKET; SOCKET-CLOSED, when PENDING is closed, by whomever. Restart:
WAIT-LONGER. Source: connect(2), RFC 8305."
  (check-argument :connect pending 'pending-connection "a PENDING-CONNECTION")
  (let ((moment (moment-after wait)) (channel (endpoint-channel pending)) (done nil) (socket nil))
    (with-direction (channel :input)
      (with-cleanup (setf done (await-outcome pending channel moment))
        (when done
          (setf socket (take-made pending)))
        (when (or done (pending-failed-p pending))
          (close pending))))
    (when (and done (null socket))      ; closed in this moment
      (fail-pending-closed pending channel))
    socket))

(defun fail-pending-closed (pending channel)
  (discard-made pending)
  (apply #'fail-on channel (lport-status-make +lport-closed+) :connect (pending-target pending)))

(defun check-pending-open (pending channel)
  (when (channel-closing channel)
    (fail-pending-closed pending channel)))

(defun await-outcome (pending channel moment)
  "True once there is a socket; NIL when MOMENT has passed without."
  (declare (type moment moment))
  (let ((dialling (pending-dialling pending)) (limit (call-limit channel :input)))
    (loop
      (check-pending-open pending channel)
      (setf limit (check-deadline channel :input :connect limit 0 (pending-target pending)))
      (let ((status (call-deferred (step-pending pending))))
        (check-pending-open pending channel)
        (cond ((null status) (return t))
              ((not (in-progress-p status)) (fail-pending pending status))
              ((passed-p (dialling-limit dialling)) (extend-pending pending))
              ((passed-p moment) (return nil))
              (t (await-step pending channel (min limit moment))))))))

(defun fail-pending (pending status)
  "Signal what PENDING has come to, STATUS. The library knows the dials of this process alone."
  (when (= (lport-status-kind status) +lport-invalid+)
    (apply #'fail (lport-status-make +lport-closed+) :connect
           :socket pending :message "the connect is another process's" (pending-target pending)))
  (setf (pending-failed-p pending) t)
  (signal-failure (dial-condition (pending-dialling pending) status)))

(defun extend-pending (pending)
  "Signal TIMEOUT, as the limit of PENDING has passed; it goes on if the user asks for more time."
  (let ((dialling (pending-dialling pending)))
    (setf (pending-failed-p pending) t)
    (check-dial-time dialling)
    (setf (pending-failed-p pending) nil)
    (watch-dial dialling)))

(defun await-step (pending channel limit)
  "Wait until a step of PENDING is worth taking, or LIMIT."
  (declare (type moment limit))
  (announce-wait)
  (let ((status (wait-once channel +lport-input+
                           (min limit (channel-input-deadline channel)))))
    (unless (or (>= status 0)
                (channel-closing channel)
                (= (lport-status-kind status) +lport-timed-out+))
      (apply #'fail-on channel status :connect (pending-target pending)))))
