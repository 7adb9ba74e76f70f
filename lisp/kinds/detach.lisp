;;;; detach - descriptors that are given away: the reverse of adopt.lisp.
;;;;
;;;; Invariant: a descriptor is given to the caller or closed, never both and never neither,
;;;; whatever fails or unwinds the call; and no octet that has arrived is passed over.

(in-package :port)

(defun check-detachable (socket)
  "Signal unless all that there is of SOCKET goes with its descriptor."
  (check-endpoint socket :detach)
  (check-open (endpoint-channel socket) :detach)
  (when (typep socket 'socket)
    (check-without-tls socket)
    (check-all-read socket)))

(defun check-without-tls (socket)
  (when (connection-secure (socket-connection socket))
    (fail-as 'usage-error :detach :invalid
             :socket socket
             :message "expected a socket without TLS, as the keys do not go with a descriptor, ~
                       got one that has it")))

(defun check-all-read (socket)
  (let ((count (buffered-input (socket-connection socket))))
    (unless (zerop count)
      (fail-as 'usage-error :detach :invalid
               :socket socket
               :message "expected that all that has arrived was read, ~D octet~:P ~:*~
                         ~[are~;is~:;are~] in the buffer: to be taken by READ-OCTETS before"
               :arguments (list count)))))

(defun unread-if-free (connection)
  "A list of the octets that CONNECTION, which is being closed, has in its buffer, or of NIL for
none; NIL if another thread is just reading."
  (with-free-direction (connection :input)
    (let ((count (buffered-input connection)))
      (list (when (plusp count)
              (let ((octets (octets-of-size count)))
                (call-deferred (take-octets connection octets 0 count))
                octets))))))

(defun finish-both-sides (connection limit)
  "Flush by LIMIT and wait for other threads, each of which meets SOCKET-CLOSED at its next step.
The octets that one of them has received and not taken, or NIL."
  (unless (finish-output-now connection nil)
    (finish-output-by connection nil limit))
  (loop for unread = (unread-if-free connection)
        until unread
        do (setf limit (await-free connection :input :detach limit))
        finally (return (first unread))))

(defun take-descriptor (channel limit note)
  "Call NOTE with the descriptor of CHANNEL, which is being detached, once the last thread has left
it, by LIMIT; with interrupts deferred, as nobody else has it then."
  (declare (type function note))
  (let ((handle (channel-handle channel)))
    (loop
      (lport-socket-gone handle limit)
      (let ((result (call-deferred
                      (let ((result (lport-socket-detach-end handle 1)))
                        (unless (minusp result)
                          (funcall note result))
                        result))))
        (cond ((not (minusp result)) (return))
              ((not (would-block-p result)) (fail-on channel result :detach))
              ((>= (lport-clock-now) limit)
               (setf limit (fail-timed-out channel :output :detach limit 0))))))))

(defun detach-handle (channel finished)
  "Begin to detach the handle of CHANNEL, or close it unless FINISHED: 0, or the status why not. A
thread may have begun TLS since it was looked at."
  (let ((status (if finished
                    (lport-socket-detach (channel-handle channel))
                    (lport-status-make +lport-closed+))))
    (when (minusp status)
      (close-handle channel nil))
    status))

(defun detach-by (endpoint limit)
  "What DETACH-DESCRIPTOR returns of ENDPOINT, which is done by LIMIT."
  (let ((channel (endpoint-channel endpoint))
        (finished nil) (unread nil) (status nil) (fd nil) (given nil))
    (local-block endpoint)              ; asked for while it can be
    (with-cleanup
        (progn
          (with-waiting (first-p (begin-close channel))
              (progn
                (unless first-p
                  (fail-closed channel :detach))
                (when (typep endpoint 'socket)
                  (setf unread (finish-both-sides channel limit)))
                (setf finished t))
            (when first-p
              (setf status (detach-handle channel finished))
              (tell-closed endpoint)))
          (if (minusp status)
              (fail-on channel status :detach)
              (take-descriptor channel limit (lambda (taken) (setf fd taken))))
          (setf given t)
          (values fd unread))
      (cond (given)
            (fd (close-descriptor fd))
            ((eql status 0) (lport-socket-detach-end (channel-handle channel) 0))))))

(defgeneric forget-rest (endpoint)
  (:documentation "Give up what ENDPOINT, which has lost its descriptor, has besides.")
  (:method ((socket socket))
    (finish-input-side (socket-connection socket)))
  (:method ((server socket-server))
    (close-pending server))
  (:method ((socket datagram-socket))))

(defun detach-descriptor (socket)
  "Take its file descriptor from SOCKET, of any kind, and return it, an integer that belongs to the
caller from then on: the reverse of ADOPT-DESCRIPTOR, for a program that is started with it, or for
another library. SOCKET is closed then, but the connection is not, nor told anything. What was
written is sent before, within the limits of CLOSE. The descriptor blocks, as most programs expect
(so it does in every process that shares it), and is close-on-exec still, which concerns its number,
and not the copies that a program gets for its standard input and output; where a child is to
inherit the number: fcntl(fd, F_SETFD, 0).
What has arrived in the buffer of SOCKET does not go with a descriptor. So this is a USAGE-ERROR
while there are unread octets in it (BUFFERED-OCTETS), and SOCKET is as before; READ-OCTETS takes
them. Where another thread was reading and has just got some, they are the second value, a vector of
octets; else that is NIL.
Threads that are blocked on SOCKET get SOCKET-CLOSED, and the descriptor is returned once the last
one has left. Pollers forget it, and so does the service that a connection is of; a service all of
whose listeners are detached ends as if they had been closed. The path of a local server stays.
Conditions: USAGE-ERROR, also where SOCKET has TLS, whose keys are in this process; SOCKET-CLOSED,
it was closed before; those of CLOSE: what could not be sent, or who did not leave in time, TIMEOUT;
SOCKET is closed then, as a CLOSE would leave it. Source: fcntl(2)."
  (check-detachable socket)
  (call-within-close-limit (lambda (limit)
                             (unwind-protect (detach-by socket limit)
                               (unless (endpoint-open-p socket)
                                 (forget-rest socket))))
                           (endpoint-channel socket)))
