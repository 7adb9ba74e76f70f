;;;; relay - octets handed both ways between two sockets until both directions have ended: what a
;;;; proxy and a tunnel do.
;;;;
;;;; A flow is one of the directions. It receives into the input buffer of its one socket and sends
;;;; out of that on its other, by turns, and waits only where it can do neither: so no more is kept
;;;; than a buffer, and a flow that waits holds up no other. Invariant: an octet that has arrived is
;;;; in that buffer until the system has taken it for the other socket; whatever ends the call, the
;;;; same call, made again, goes on there.

(in-package :port)

(defstruct (flow (:copier nil) (:predicate nil)
                 (:constructor make-flow (from to)))
  (from nil :type connection :read-only t)
  (to nil :type connection :read-only t)
  (count 0 :type (unsigned-byte 62))    ; octets of FROM that the system has taken for TO
  (drained nil)                         ; FROM has nothing more until it is ready for input
  (full nil)                            ; TO has no room until it is ready for output
  (over nil))                           ; the end of FROM has been handed on

(defstruct (exchange (:copier nil) (:predicate nil)
                     (:constructor make-exchange
                         (one other timeout
                          &aux (flows (list (make-flow one other) (make-flow other one)))
                            (span (span-of timeout)))))
  "A relay under way."
  (one nil :type connection :read-only t)
  (other nil :type connection :read-only t)
  (flows '() :type list :read-only t)
  (timeout nil :read-only t)
  (span +never+ :type moment :read-only t)
  (limit *deadline* :type moment)       ; by when the call has to end
  (limit-seconds *deadline-seconds*)    ; which were given for that
  (moved t)                             ; something has, since the last wait
  (idle-limit +never+ :type moment)     ; by when something has to
  (idle-seconds nil))                   ; which were given for that

;;; What a flow is at

(declaim (inline to-send-p))
(defun to-send-p (flow)
  "True if there is something to send: what was read ahead, or written before, too."
  (or (plusp (buffered-input (flow-from flow)))
      (not (all-sent-p (flow-to flow)))))

(declaim (inline flow-at))
(defun flow-at (flow)
  "Values: the connection that the next step of FLOW is on, and in which direction."
  (if (to-send-p flow)
      (values (flow-to flow) :output)
      (values (flow-from flow) :input)))

(defmacro do-flows-at ((flow connection direction exchange) &body body)
  "Run BODY for each FLOW of EXCHANGE that is not over, and where it is at."
  `(dolist (,flow (exchange-flows ,exchange))
     (unless (flow-over ,flow)
       (multiple-value-bind (,connection ,direction) (flow-at ,flow)
         ,@body))))

(defun octets-relayed (exchange)
  "How many octets have been handed on, both ways together."
  (loop for flow in (exchange-flows exchange)
        sum (flow-count flow) of-type (unsigned-byte 62)))

;;; Steps, which do not wait

(defun send-arrived (from to)
  "Send what TO has to send, and behind it what FROM has to be read: how many octets of FROM went,
or a status. To be called with interrupts deferred until the count is noted."
  (declare (type connection from to))
  (append-posted to)
  (let ((count (send-with-pending to (connection-in from)
                                  (connection-in-start from) (connection-in-end from))))
    (declare (type (signed-byte 64) count))
    (when (plusp count)
      (octets-taken from count)
      (setf (connection-column to) +no-column+))
    (release-idle-output to)
    count))

(defun send-step (exchange flow)
  "Send what there is: true if something went."
  (let* ((to (flow-to flow))
         (count (call-deferred
                  (let ((count (send-arrived (flow-from flow) to)))
                    (declare (type (signed-byte 64) count))
                    (when (plusp count)
                      (incf (flow-count flow) count))
                    count))))
    (declare (type (signed-byte 64) count))
    (cond ((>= count 0)
           (setf (flow-full flow) (to-send-p flow))
           t)
          ((would-block-p count)
           (setf (flow-full flow) t)
           nil)
          (t (fail-on to count :write :octets (octets-relayed exchange))))))

(defun receive-step (exchange flow)
  "Receive what is there into the buffer, which is empty: true if something, or the end, was."
  (let* ((from (flow-from flow))
         (count (receive-into-buffer from)))
    (declare (type (signed-byte 64) count))
    (cond ((>= count 0)
           ;; Where there was room for more, there was no more.
           (setf (flow-drained flow) (< (connection-in-end from) (length (connection-in from))))
           t)
          ((would-block-p count)
           (setf (flow-drained flow) t)
           nil)
          (t (fail-on from count :read :octets (octets-relayed exchange))))))

(defun end-step (flow)
  "Hand on the end of file: true if it went. That of TLS needs room, as octets do."
  (let ((to (flow-to flow)))
    (cond ((end-told-p to)
           (shut-down-output to)
           (setf (flow-over flow) t))
          (t (setf (flow-full flow) t)
             nil))))

(defun advance (exchange flow)
  "Do the next step of FLOW, if it has not to be waited for: true if that moved something."
  (multiple-value-bind (connection direction) (flow-at flow)
    (check-deadline connection direction (operation-of direction) +never+
                    (octets-relayed exchange))
    (cond ((eq direction :output) (unless (flow-full flow)
                                    (send-step exchange flow)))
          ((connection-ended connection) (end-step flow))
          (t (unless (flow-drained flow)
               (receive-step exchange flow))))))

;;; Waiting

(defun watched (flow bits)
  "BITS, of what is waited for of the sender of FLOW, or where that is nothing, its loss: while the
receiver has no room, nothing else would tell of that. An end has told that more does not come."
  (if (and (zerop bits) (not (connection-ended (flow-from flow))))
      +lport-failed+
      bits))

(defun interests (exchange)
  "Values: the bits of what is waited for of the one connection, and of the other. Each flow is
asked once: with TLS, who asks hands on what is held, so that a second answer may be another, and a
flow that was at neither place when that place was looked at would be waited for at none."
  (let ((one 0) (other 0))
    (declare (type (unsigned-byte 8) one other))
    (do-flows-at (flow at direction exchange)
      (if (eq at (exchange-one exchange))
          (setf one (logior one (interest direction)))
          (setf other (logior other (interest direction)))))
    (destructuring-bind (there back) (exchange-flows exchange)
      (values (watched there one) (watched back other)))))

(defun wait-until-moment (exchange)
  "The moment until which a wait may last, now that it has begun."
  (if (or (channel-closing (exchange-one exchange)) (channel-closing (exchange-other exchange)))
      0
      (let ((moment (min (exchange-limit exchange) (exchange-idle-limit exchange))))
        (declare (type moment moment))
        (do-flows-at (flow at direction exchange)
          (setf moment (min moment (channel-deadline at direction))))
        moment)))

(defun begin-idle (exchange)
  "From now on nothing moves: TIMEOUT begins, unless it is running."
  (when (shiftf (exchange-moved exchange) nil)
    (unless (= +never+ (exchange-span exchange))
      (setf (exchange-idle-limit exchange) (moment-in (exchange-span exchange))
            (exchange-idle-seconds exchange) (exchange-timeout exchange)))))

(defun more-time (exchange seconds)
  "Signal TIMEOUT, after SECONDS. Values: the later limit that WAIT-LONGER gave, and its seconds."
  (signal-timeout (status-condition (lport-status-make +lport-timed-out+) :relay
                                    :socket (channel-socket (exchange-one exchange))
                                    :octets (octets-relayed exchange)
                                    :seconds seconds)))

(defun check-exchange (exchange)
  "Signal SOCKET-CLOSED if a socket is closed, TIMEOUT if the time for the call, or for nothing to
move, is up."
  (check-open (exchange-one exchange) :relay (octets-relayed exchange))
  (check-open (exchange-other exchange) :relay (octets-relayed exchange))
  (when (passed-p (exchange-limit exchange))
    (setf (values (exchange-limit exchange) (exchange-limit-seconds exchange))
          (more-time exchange (exchange-limit-seconds exchange))))
  (when (and (not (exchange-moved exchange)) (passed-p (exchange-idle-limit exchange)))
    (setf (values (exchange-idle-limit exchange) (exchange-idle-seconds exchange))
          (more-time exchange (exchange-idle-seconds exchange)))))

(defun note-ready (flow from-bits to-bits)
  (when (logtest +lport-input+ from-bits)
    (setf (flow-drained flow) nil))
  (when (logtest +lport-output+ to-bits)
    (setf (flow-full flow) nil)))

(defun check-lost (exchange connection)
  "Signal CONNECTION-LOST if that is what has become of CONNECTION."
  (let ((status (lport-socket-failure (channel-handle connection))))
    (when (minusp status)
      (fail-on connection status :relay :octets (octets-relayed exchange)))))

(defun note-both-ready (exchange result)
  "Let the flows go on that RESULT, of lport_wait_poll2, says can. Where none can, it is the loss of
a sender that has ended the wait."
  (declare (type (unsigned-byte 16) result))
  (destructuring-bind (there back) (exchange-flows exchange)
    (multiple-value-bind (other one) (floor result +lport-second-wait+)
      (cond ((logtest (logior +lport-input+ +lport-output+) (logior one other))
             (note-ready there one other)
             (note-ready back other one))
            (t (check-lost exchange (flow-from (if (logtest +lport-failed+ one)
                                                   there
                                                   back))))))))

(defun await-flows (exchange)
  "Wait until one of the flows can go on, or somebody has closed a socket or set its deadline."
  (let ((one (exchange-one exchange)) (other (exchange-other exchange)))
    (announce-wait)
    (begin-idle exchange)
    (let ((result (multiple-value-bind (of-one of-other) (interests exchange)
                    (wait-for-two one of-one other of-other (wait-until-moment exchange)))))
      (declare (type (signed-byte 64) result))
      (cond ((plusp result) (note-both-ready exchange result))
            ((zerop result))            ; woken: look again
            ((= (lport-status-kind result) +lport-timed-out+))
            (t (fail-on (if (minusp (lport-socket-state (channel-handle other))) other one)
                        result :relay :octets (octets-relayed exchange)))))))

;;; All of it

(defun run-exchange (exchange)
  (loop
    (check-exchange exchange)
    (let ((moved nil))
      (dolist (flow (exchange-flows exchange))
        (when (and (not (flow-over flow)) (advance exchange flow))
          (setf moved t)))
      (cond ((every #'flow-over (exchange-flows exchange)) (return))
            (moved (setf (exchange-moved exchange) t))
            (t (await-flows exchange))))))

(defun owning-limit (exchange connection direction)
  "The moment until which to wait for another thread that has DIRECTION of CONNECTION."
  (let ((limit (moment-in (exchange-span exchange))))
    (cond ((< limit *deadline*)
           (note-granted connection direction limit (exchange-timeout exchange))
           limit)
          (t *deadline*))))

(defmacro with-both-directions ((connection exchange) &body body)
  "Run BODY while this thread owns both directions of CONNECTION."
  `(with-direction (,connection :input (owning-limit ,exchange ,connection :input))
     (with-direction (,connection :output (owning-limit ,exchange ,connection :output))
       ,@body)))

(defun run-owning (exchange)
  "Run EXCHANGE while this thread has all directions of its sockets. The order in which it takes
them is the same for all, so that two threads do not wait for each other."
  (let* ((one (exchange-one exchange))
         (other (exchange-other exchange))
         (one-first-p (< (channel-handle one) (channel-handle other)))
         (first (if one-first-p one other))
         (second (if one-first-p other one)))
    (with-both-directions (first exchange)
      (with-both-directions (second exchange)
        (run-exchange exchange)))))

(defun relay (one other &rest options &key timeout &allow-other-keys)
  "Hand octets from ONE, a SOCKET, to OTHER, another, and back, until both have ended. Returns two
values: how many octets of ONE went to OTHER, how many of OTHER to ONE. Both ways are served at once
in this thread; who receives slowly slows down who sends to him, and not the other way. What has
been read ahead of a socket goes first, and before it what has been written to one and not been
sent. The end of file of each is handed on as by SOCKET-SHUTDOWN, once all before it has been sent,
and the other way goes on. Both stay open: the caller closes them.
TIMEOUT (seconds; NIL: no limit) is the longest time in which nothing moves, either way; the
timeouts of the sockets are not for this call, their deadlines are. Another thread ends it at once
by CLOSE of either, with or without :ABORT; what reads, writes or shuts down the output waits. After
a call that has not returned, whatever ended it, what has arrived and could not be sent is there to
be read, so that the same call, made again, goes on.
Conditions: TIMEOUT; SOCKET-CLOSED, when one of them is closed, by whomever, or something comes for
one whose output has been shut down; CONNECTION-LOST, of the one that NETWORK-SOCKET tells, the
other can be used. Who is lost before it has ended is so at once, also while nothing can be sent to
the other: what came of it and waits for room goes no further. NETWORK-OCTETS is how many octets
went, both ways together.
Restart: WAIT-LONGER. Source: recv(2), send(2), shutdown(2), poll(2)."
  (check-own-keywords 'relay :relay options)
  (check-socket one :relay)
  (check-socket other :relay)
  (when (eq one other)
    (fail-argument :relay other `(not (eql ,one)) "two different sockets"))
  (let ((exchange (make-exchange (socket-connection one) (socket-connection other) timeout)))
    (run-owning exchange)
    (values-list (mapcar #'flow-count (exchange-flows exchange)))))

(note-keywords 'relay)
