;;;; service-posting - POST: to write to a connection of a service and never wait for it; and how
;;;; what the system does not take at once is kept, and sent by and by.
;;;;
;;;; What is kept is in the buffer of the connection, see stream/output-posted.lisp, so whoever
;;;; writes or closes sends it first. While there is some the poller of the service is asked for
;;;; room too, and the leader sends. Where another thread has the direction, and may be blocked in
;;;; it, the poller is not asked: that thread looks when it leaves it. Invariant: whoever changes
;;;; what the interest in the poller depends on, STATE or KEEPING of a client, tells the poller
;;;; after that; whoever appends to what is kept looks at KEEPING after that, and whoever ends
;;;; KEEPING looks then whether something is left.

(in-package :port)

;;; The poller

(defun client-interest (client)
  "What the poller is to be asked of CLIENT."
  (logior (if (eq (client-state client) :muted) 0 +lport-input+)
          (if (eq t (client-keeping client)) +lport-output+ 0)))

(defun tell-poller (service client)
  "Ask the poller what is to be asked of CLIENT, which others may change meanwhile: false if it
cannot be asked. One that is not in the poller yet gets into it."
  (let ((poller (channel-handle (service-set service))) (own (client-handle client)))
    (loop for interest = (client-interest client)
          for status = (lport-poller-modify poller own interest)
          do (when (and (minusp status)
                        (/= (lport-status-kind status) +lport-closed+)
                        (minusp (lport-poller-add poller own interest))
                        ;; Unless another thread has just added it.
                        (minusp (lport-poller-modify poller own interest)))
               (return nil))
             (when (and (minusp status) (= (lport-status-kind status) +lport-closed+))
               (return nil))
          until (= interest (client-interest client))
          finally (return t))))

(defun enter-poller (service client)
  "As TELL-POLLER, for one that mostly is not in the poller yet."
  (let ((interest (client-interest client)))
    (if (minusp (lport-poller-add (channel-handle (service-set service)) (client-handle client)
                                  interest))
        (tell-poller service client)
        (or (= interest (client-interest client))
            (tell-poller service client)))))

;;; Keeping

(defun change-keeping (client new)
  "What KEEPING of CLIENT was; it is NEW. A barrier, too."
  (loop for old = (client-keeping client)
        until (eq old (%compare-and-swap (client-keeping client) old new))
        finally (return old)))

(defun kept-until (client)
  "The moment by which some of what is kept for CLIENT has to be sent."
  (let ((span (channel-output-timeout (client-connection client))))
    (if (= span +never+)
        +never+
        (min +never+ (+ (client-kept-since client) span)))))

(defun note-kept (client)
  "The wait for room begins for CLIENT, or some was sent."
  (setf (client-kept-at client) (connection-octets-out (client-connection client))
        (client-kept-since client) (lport-clock-now)))

(defun keep-on (client)
  "Let the leader send what is kept for CLIENT when there is room."
  (let ((service (client-service client)))
    (unless (and (eq t (client-keeping client))
                 (= (client-kept-at client) (connection-octets-out (client-connection client))))
      (note-kept client))
    (unless (eq t (change-keeping client t))
      (tell-poller service client))
    (let ((end (kept-until client)))
      (unless (= end +never+)
        (setf (service-impatient service) t)
        (expect-sweep service end)))))

(defun stop-keeping (client new)
  "The leader has nothing to send for CLIENT any more; KEEPING is NEW."
  (when (eq t (change-keeping client new))
    (tell-poller (client-service client) client)))

(defun leave-to-owner (client)
  "Let the thread that has the direction of output look after what is kept for CLIENT, when it
leaves it: true unless it has left it already."
  (let ((connection (client-connection client)))
    (stop-keeping client :aside)
    (setf (channel-relief connection) (lambda () (tend-output client)))
    (left-to-owner-p connection)))

(defconstant +looks+ 8 "Looks at a direction that is now free and now taken.")

(defun tend-output (client)
  "Send what goes at once of what is kept for CLIENT, and see to it that somebody looks after the
rest. Never blocks. To be called with interrupts deferred."
  (let ((connection (client-connection client)))
    (loop repeat +looks+
          do (ecase (send-kept connection)
               (:left (return (keep-on client)))
               (:aside (return (stop-keeping client :aside)))
               (:sent (stop-keeping client nil)
                (when (all-sent-p connection)
                  (return)))
               ((nil) (when (leave-to-owner client)
                        (return))))
          finally (keep-on client))))   ; the leader looks again

;;; A peer that reads nothing

(defun sweep-kept (service now)
  "Abort the connections that have taken nothing of what is kept for them for too long by NOW; the
moment at which to look again."
  (declare (type moment now))
  (let ((next +never+))
    (declare (type moment next))
    (loop for client across (service-clients service)
          when (and client (eq t (client-keeping client)))
            do (unless (= (client-kept-at client)
                          (connection-octets-out (client-connection client)))
                 (note-kept client))
               (let ((end (kept-until client)))
                 (cond ((< now end) (setf next (min next (max end (+ now +due-grain+)))))
                       (t (abort-stalled service client)))))
    next))

(defun abort-stalled (service client)
  "The peer of CLIENT has read nothing for too long: a thread of the service tells the hook."
  (setf (client-stalled client) t)
  (stop-keeping client :aside)
  (if (change-state client :parked :running)
      (enqueue-client service client)
      ;; Its thread, which may be blocked, meets SOCKET-CLOSED.
      (close (client-socket client) :abort t)))

(defun stall-facts (client)
  (list :seconds (span-seconds (client-connection client) :output)))

(defun stall-condition (client)
  "The TIMEOUT that CLIENT was aborted for."
  (apply #'status-condition (lport-status-make +lport-timed-out+) :write
         :socket (client-socket client) (stall-facts client)))

(defun fail-stalled (client)
  "Signal the TIMEOUT that CLIENT is aborted for."
  (apply #'fail-on (client-connection client) (lport-status-make +lport-timed-out+) :write
         (stall-facts client)))

(defun cause (client condition)
  "CONDITION, which a turn of CLIENT has signalled, or what is behind it."
  (if (and (client-stalled client) (typep condition 'socket-closed)
           (eq (network-socket condition) (client-socket client)))
      (stall-condition client)
      condition))

;;; Posting

(defun keep-octets (client octets start end copy limit)
  "What KEEP-NOW or else KEEP-ASIDE says of OCTETS from START to END; what is taken is looked after.
To be called with interrupts deferred."
  (let* ((connection (client-connection client))
         (kept (keep-now connection octets start end limit))
         (result (or kept (keep-aside connection (- end start) copy limit))))
    ;; The leader may just be ending that, and looks then for what was appended before.
    (when (and (eq result t)
               (not (and kept (eq t (%compare-and-swap (client-keeping client) t t)))))
      (tend-output client))
    result))

(defun post-octets (client octets start end limit)
  "Post OCTETS from START to END to CLIENT: true if they are taken. What has to be made for them is
made with interrupts let in, see output-posted.lisp."
  (declare (type octets octets) (type index start end))
  (let ((connection (client-connection client)) (copy nil))
    (loop
      (ecase (call-deferred (keep-octets client octets start end copy limit))
        ((t) (return t))
        (:refused (return nil))
        (:spare (make-spare connection (- end start)))
        (:copy
         (make-spare connection (- end start))
         (setf copy (subseq octets start end)))))))

(defun check-client (socket)
  "The client of a service that SOCKET is; signals a USAGE-ERROR if it is none."
  (or (connection-client (socket-connection socket))
      (fail-as 'usage-error :write :invalid :socket socket
               :message "expected a connection of SERVE, whose service sends what is kept, got ~A"
               :arguments (list socket))))

(defun post (socket data &rest options &key (limit 1048576) &allow-other-keys)
  "Write DATA to SOCKET, a connection of SERVE, from any thread, without waiting for its other side
or for who else is writing; return true once DATA is taken. It goes out behind what was written or
posted before, as a whole: nothing that others write comes in between, nor does it come within what
one WRITE-STRING or WRITE-OCTETS of theirs writes. It may between two, such as WRITE-LINE and FORMAT
make; so to a connection that others post to, let its function post as well. DATA: a string, in the
external format of SOCKET, or a vector of octets.
What the system does not take at once is kept, and the service sends it when there is room, while
the connection waits for input, and while its function is at work on it. What the function writes
later comes behind, and is kept as well if it is not sent when the function returns. A write that
finds no room in the buffer, FINISH-OUTPUT and CLOSE, also that at the end of the function, send
what is kept first, within their own limits. LIMIT: how many octets may be kept for SOCKET, with
what its function has written and not sent.
Returns NIL, and has taken nothing, if that would be more than LIMIT, or if SOCKET is closed or its
output shut down; to close it is then up to the caller. That the connection is lost is told to
the function. A connection that takes nothing of what is kept for as long as the :OUTPUT of its
SOCKET-TIMEOUT is aborted, and ON-ERROR of the service gets the TIMEOUT.
While another thread is blocked in a write to SOCKET, what is posted waits for that; during RELAY,
for what that hands on next, or its end.
Conditions: ENCODING-ERROR; USAGE-ERROR where SOCKET is no connection of SERVE. Restarts:
REPLACE-CHARACTER."
  (check-own-keywords 'post :write options)
  (check-socket socket :write)
  (check-argument :write data '(or string (vector (unsigned-byte 8)))
                  "a string, or a vector whose element type is (unsigned-byte 8)")
  (check-argument :write limit '(integer 0) "a number of octets, 0 or more")
  (let ((client (check-client socket)))
    (if (stringp data)
        (multiple-value-bind (octets end)
            (posted-text (client-connection client) (coerce data 'characters))
          (post-octets client octets 0 end limit))
        (with-octets-of (octets start end) data (0 (length data)) :write
          (post-octets client octets start end limit)))))

(note-keywords 'post)
