;;;; closing - CLOSE of every kind of socket, with the flush before it, and SOCKET-SHUTDOWN.
;;;;
;;;; Invariant: the first close of a socket closes its handle, whatever its flush meets and whatever
;;;; unwinds it; a later one does nothing, or, with ABORT, cuts that flush short.

(in-package :port)

(defparameter *close-limit* 5
  "Seconds that a CLOSE without another limit takes at most for its flush.")

(defun call-within-close-limit (function connection)
  "Call FUNCTION with the moment until which it may write to CONNECTION, by *CLOSE-LIMIT* where
there is no other limit."
  (declare (type function function))
  (let ((limit (min (call-limit connection :output) (channel-deadline connection :output))))
    (if (= limit +never+)
        (with-deadline (*close-limit*)
          (funcall function *deadline*))
        (funcall function limit))))

(defun finish-output-side (connection abort)
  "Flush unless ABORT, and give back the buffer; within *CLOSE-LIMIT* where there is no other."
  (unless (finish-output-now connection abort)
    (call-within-close-limit (lambda (limit) (finish-output-by connection abort limit))
                             connection)))

(defun finish-output-now (connection abort)
  "Give back the buffer if nothing has to be sent and no thread is just writing: true if so."
  (with-direction-now (connection :output)
    (when (or abort (and (zerop (pending-output connection))
                         (null (connection-posted connection))
                         (not (connection-secure connection))))
      (forget-output connection)
      t)))

(defun finish-output-by (connection abort limit)
  "Flush unless ABORT, and give back the buffer. A thread that is just writing is waited for, until
LIMIT: it meets SOCKET-CLOSED at its next step."
  (loop until (or (finish-output-if-free connection abort limit)
                  abort)
        do (setf limit (await-free connection :output :close limit))))

(defun await-free (connection direction operation limit)
  "Wait a moment for the thread that has DIRECTION of CONNECTION, which is being closed: LIMIT, or a
later one that the user asked for."
  (cond ((>= (lport-clock-now) limit)
         (fail-timed-out connection direction operation limit 0))
        (t (setf (channel-contended connection) t)
           (wait-once connection 0 (min limit (moment-in *contended-piece*)))
           limit)))

(defun finish-sending (connection limit)
  "Send what is left by LIMIT, and tell the end where it has to be told."
  (unless (all-sent-p connection)
    (call-deferred (append-posted connection))
    (flush connection :limit limit :closing t))
  (when (eq t (connection-secure connection))
    (tell-end connection :close limit :closing t)))

(defun tell-end (connection operation limit &key closing)
  "Tell the other side of CONNECTION, which has TLS, that no more comes."
  (unless (connection-output-shut connection)
    (trying (connection :output operation limit :closing closing)
      (lport-socket-shutdown (channel-handle connection) +lport-output+))))

(defun end-told-p (connection)
  "True unless CONNECTION has TLS and the end of it is not taken at once."
  (or (not (eq t (connection-secure connection)))
      (connection-output-shut connection)
      (not (would-block-p (lport-socket-shutdown (channel-handle connection) +lport-output+)))))

(defun finish-output-if-free (connection abort limit)
  "Flush by LIMIT unless ABORT, and give back the buffer; NIL if another thread is just writing."
  (with-free-direction (connection :output)
    (with-cleanup
        (unless abort
          (finish-sending connection limit))
      (drop-output connection))
    t))

(defun finish-input-side (connection)
  "Give back the input buffer, if no thread is just reading."
  (or (with-direction-now (connection :input)
        (forget-input connection)
        t)
      (with-free-direction (connection :input) ; this thread is reading, further out
        (drop-input connection))))

(defvar *remember-ends* t
  "False where nobody is expected to ask a closed socket for its own end: a system call less.")

(defun close-endpoint (endpoint reset flush)
  "Close ENDPOINT, with a reset if RESET; call FLUSH before, which may wait. Whatever FLUSH does,
and whoever unwinds it, the handle is closed once."
  (let ((channel (endpoint-channel endpoint)) (left-p t))
    ;; Asked for while it can be, so that a closed socket still says what it was.
    (when (and *remember-ends* (not (channel-closing channel)))
      (local-block endpoint))
    (with-waiting (first-p (begin-close channel))
        (cond (first-p (funcall flush))
              ;; The flush of another thread's close ends too.
              (reset (close-handle channel t)))
      (when first-p
        (setf left-p (close-handle channel reset))
        (tell-closed endpoint)))
    (unless left-p
      (wait-until-left channel))
    t))

(defun tell-closed (endpoint)
  "The handle of ENDPOINT is closed: tell whoever has to know."
  (let ((channel (endpoint-channel endpoint)))
    (leave-pollers channel)
    (when (channel-keeper channel)
      (funcall (the function (channel-keeper channel))))
    (%closed-in-time endpoint)))

(defun call-and-close (function endpoint)
  "Call FUNCTION with ENDPOINT and close that on every exit: flush on a normal one, abort on a
non-local one, also where an interrupt unwinds that close before it has begun. The values of
FUNCTION."
  (let ((closed nil))
    (with-cleanup (multiple-value-prog1 (funcall function endpoint)
                    (close endpoint)
                    (setf closed t))
      (unless closed
        (close endpoint :abort t)))))

(defun close-pending (server)
  "Close the connections that SERVER, closed, has accepted and not handed out yet."
  (dolist (socket (car (server-pending server)))
    (close socket :abort t)))

(defmethod close ((server socket-server) &key abort)
  (declare (ignore abort))
  (prog1 (close-endpoint server nil (lambda ()))
    (close-pending server)))

(defmethod close ((socket datagram-socket) &key abort)
  (declare (ignore abort))
  (close-endpoint socket nil (lambda ())))

(defmethod close ((socket socket) &key abort)
  "Flush within the limit that applies, else *CLOSE-LIMIT*, and close; ABORT: reset, without a
flush; in a forked child, of a socket whose TLS its parent has begun: nothing is sent or reset. What
could not be sent is a condition, after the descriptor is gone. A close of a socket that another
thread is just closing returns at once; with ABORT that ends the flush of the other one, which
signals SOCKET-CLOSED."
  (let ((connection (socket-connection socket)))
    (unwind-protect
         (close-endpoint socket abort (lambda () (finish-output-side connection abort)))
      (finish-input-side connection))))

;;; Lingering

(defun lingering-close (socket &key (timeout 2) (limit 1048576))
  "Close SOCKET, a SOCKET, so that the other side can read all that was written, whatever it is
still sending; return true if it has read to the end and has ended, too. A plain CLOSE of a
connection with unread input is a reset, by which the other side can lose what was written before.
This flushes, ends the output as SOCKET-SHUTDOWN does, and forgets what comes until the end of file;
after TIMEOUT seconds (NIL: no limit but those that hold anyway), or when more than LIMIT octets
have come (NIL: any number), or if the connection is lost, it closes all the same and returns NIL. A
closed SOCKET is left alone. No other thread should be at work on it: this waits for who is reading,
for TIMEOUT, and for who is writing or in RELAY as long as for its own flush.
Conditions: those of CLOSE. Source: RFC 9112 9.6; shutdown(2)."
  (check-socket socket :close)
  (check-timeout timeout)
  (check-argument :close limit '(or null (integer 0)) "a number of octets, 0 or more, or NIL")
  (when (open-stream-p socket)
    (let ((ended nil))
      (call-and-close (lambda (socket)
                        (setf ended (linger (socket-connection socket) timeout limit)))
                      socket)
      ended)))

(defun linger (connection timeout limit)
  "End the output of CONNECTION and drop its input: true once the end of file has come, NIL if
TIMEOUT, also while another thread is reading, LIMIT or the loss of the connection came before."
  (call-within-close-limit (lambda (moment)
                             (declare (ignore moment))
                             (shut-down-output connection))
                           connection)
  (handler-case (drain-input connection (min *deadline* (moment-after timeout))
                             (or limit most-positive-fixnum))
    ((or connection-lost timeout) () nil)))

;;; Shutting down

(defun socket-shutdown (socket direction)
  "Shut down SOCKET in DIRECTION: :OUTPUT flushes first, then the peer reads end of file once it has
read everything; :INPUT makes reads here give end of file, whatever arrives; :IO both. :OUTPUT waits
for another thread that is writing or in RELAY, as a write does: for ever, where neither a timeout
nor a deadline is set. Repeating it and doing it after a reset is quiet. SOCKET may also be a
DATAGRAM-SOCKET that is connected. Returns NIL. Conditions: those of a write, SOCKET-CLOSED,
USAGE-ERROR. Source: shutdown(2)."
  (check-link socket :shutdown)
  (check-argument :shutdown direction '(member :input :output :io)
                  "a direction, :INPUT, :OUTPUT or :IO")
  (check-open (endpoint-channel socket) :shutdown)
  (if (typep socket 'socket)
      (shut-down-stream (socket-connection socket) direction)
      (shut-down-messages socket direction))
  nil)

(defun shut-down-stream (connection direction)
  (unless (eq direction :input)
    (shut-down-output connection))
  (unless (eq direction :output)
    (shut-down-with connection +lport-input+)
    (finish-input-side connection)))

(defun shut-down-messages (socket direction)
  (unless (endpoint-remote socket)
    (fail-as 'usage-error :shutdown :not-connected
             :socket socket :message "expected a socket that is connected, got ~A"
             :arguments (list socket)))
  (shut-down-with (endpoint-channel socket)
                  (ecase direction
                    (:input +lport-input+)
                    (:output +lport-output+)
                    (:io (logior +lport-input+ +lport-output+)))))

(defun shut-down-with (connection direction)
  (let ((status (lport-socket-shutdown (channel-handle connection) direction)))
    (when (minusp status)
      (fail-on connection status :shutdown))))

(defun shut-down-output (connection)
  (with-output (connection)
    (unless (connection-output-shut connection)
      (flush connection)
      (if (connection-secure connection)
          (tell-end connection :shutdown (call-limit connection :output))
          (shut-down-with connection +lport-output+))
      (setf (connection-output-shut connection) t))))
