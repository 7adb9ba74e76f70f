;;;; local-pass - what only local sockets can carry: who the peer is, who has sent a message, and
;;;; file descriptors; unix(7).
;;;;
;;;; Invariant: octets that were read ahead are never passed over: descriptors come with octets of
;;;; the stream, and are received with them or not at all.

(in-package :port)

(defun socket-peer-credentials (socket)
  "Return who is at the other end of SOCKET, a connected local SOCKET or DATAGRAM-SOCKET, as 3
values: the ids of its process, user and group, as they were when it connected, listened, or made
the pair. The system vouches for them.
Conditions: NOT-SUPPORTED, it is no local socket; USAGE-ERROR, it is not connected; SOCKET-CLOSED.
Source: SO_PEERCRED, unix(7)."
  (check-link socket :credentials)
  (let* ((numbers (int64s-of-size 3))
         (channel (endpoint-channel socket))
         (status (with-int64s (pointer numbers)
                   (lport-local-credentials (channel-handle channel) pointer))))
    (when (minusp status)
      (fail-of-kind socket status :credentials "a local socket"))
    (values (aref numbers 0) (aref numbers 1) (aref numbers 2))))

;;; The sender of a message

(defun receive-from-now (messenger octets start end block numbers)
  "As RECEIVE-NOW; who has sent the message goes into NUMBERS."
  (call-deferred
    (let ((length (with-octets (pointer octets start end)
                    (with-octets (sender block)
                      (with-int64s (identity numbers)
                        (lport-local-receive-from (channel-handle messenger) pointer
                                                  (- end start) sender identity))))))
      (when (>= length 0)
        (note-received messenger (min length (- end start))))
      length)))

(defun receive-from (messenger octets start end until)
  "What SOCKET-RECEIVE returns with CREDENTIALS; UNTIL is the moment of its WAIT."
  (let* ((block (make-block))
         (numbers (int64s-of-size 3))
         (length (trying (messenger :input :receive (call-limit messenger :input)
                          :until until
                          :fail (lambda (status) (fail-passing messenger status :receive)))
                   (receive-from-now messenger octets start end block numbers))))
    (when length
      (multiple-value-call #'values
        (message-values messenger block length (- end start))
        (values-list (map 'list (lambda (number) (unless (minusp number) number)) numbers))))))

;;; Sending descriptors

(defconstant +most-descriptors+ 253 "Descriptors that one message carries, unix(7).")

(defun descriptor-vector (descriptors)
  "The numbers of DESCRIPTORS, a list of integers and sockets, as the library takes them."
  (check-argument :send descriptors 'proper-list "a proper list of file descriptors")
  (unless (<= 1 (length descriptors) +most-descriptors+)
    (fail-as 'usage-error :send :invalid
             :message "expected 1 to ~D file descriptors, got ~D"
             :arguments (list +most-descriptors+ (length descriptors))))
  (let ((numbers (int64s-of-size (length descriptors))))
    (loop for descriptor in descriptors
          for index from 0
          do (setf (aref numbers index)
                   (if (typep descriptor 'endpoint)
                       (socket-descriptor descriptor)
                       (check-argument :send descriptor '(unsigned-byte 31)
                                       "a file descriptor or a socket"))))
    numbers))

(defun fail-passing (channel status operation)
  "Signal what STATUS of passing descriptors over CHANNEL says: END-OF-FILE, or its own condition."
  (cond ((= (lport-status-kind status) +lport-end+)
         (error 'end-of-file :stream (channel-socket channel)))
        ((and (eq operation :send) (= (lport-status-kind status) +lport-invalid+))
         (fail status operation :socket (channel-socket channel)
                                :message "expected file descriptors that are open"))
        ((and (typep channel 'messenger) (parted-p channel status))
         (fail-parted channel 0))
        (t (fail-of-kind (channel-socket channel) status operation
                         (if (and (typep channel 'connection) (connection-secure channel))
                             "a local socket without TLS"
                             "a local socket")))))

(defun pass-octets (channel octets descriptors limit)
  "Send OCTETS with DESCRIPTORS, a vector of numbers. Values: how many octets were sent; LIMIT, or a
later one."
  (trying (channel :output :send limit
           :fail (lambda (status) (fail-passing channel status :send)))
    (call-deferred
      (let ((sent (with-octets (pointer octets)
                    (with-int64s (numbers descriptors)
                      (lport-local-send (channel-handle channel) pointer (length octets)
                                        numbers (length descriptors))))))
        (when (plusp sent)
          (note-octets-passed channel sent))
        sent))))

(defun note-octets-passed (channel count)
  "COUNT octets have been sent past the buffer of CHANNEL."
  (if (typep channel 'messenger)
      (%add-atomically (messenger-octets-out channel) count)
      (incf (connection-octets-out channel) count)))

(defun pass-over-stream (connection octets descriptors)
  "Send what is pending, then OCTETS, the first of them with DESCRIPTORS, all within one limit."
  (let ((limit (call-limit connection :output)) (position 0) (count 0) (end (length octets)))
    (with-cleanup
        (progn
          (setf limit (nth-value 1 (flush connection :limit limit :taken 0)))
          (multiple-value-setq (position limit)
            (pass-octets connection octets descriptors limit))
          (loop while (< position end)
                do (multiple-value-setq (count limit)
                     (trying (connection :output :write limit :moved position)
                       (call-deferred
                         (let ((count (send-with-pending connection octets position end)))
                           (when (plusp count)
                             (incf position count))
                           count))))))
      (note-passed connection octets 0 position (connection-column connection)))))

(defun send-descriptors (socket fds &rest options
                         &key (octets (octets-of-size 1)) &allow-other-keys)
  "Send FDS, a list of 1 to 253 file descriptors (integers, or sockets, of which the descriptor is
meant), over SOCKET, a connected local SOCKET or DATAGRAM-SOCKET; return how many octets were sent
with them: all. OCTETS: a vector of (unsigned-byte 8) to send with them (one zero octet), at least
one on a stream, which is flushed first. The peer gets copies that are its own; those here stay open
and stay the caller's. On a failure NETWORK-OCTETS tells how many of OCTETS were sent; the
descriptors went with the first of them.
Conditions: those of a write; USAGE-ERROR, one of FDS is not open; RESOURCE-EXHAUSTED;
NOT-SUPPORTED, it is no local socket. Source: sendmsg(2), SCM_RIGHTS of unix(7)."
  (check-own-keywords 'send-descriptors :send options)
  (check-link socket :send)
  (check-octets octets :send)
  (let ((numbers (descriptor-vector fds))
        (octets (coerce octets 'octets))
        (channel (endpoint-channel socket)))
    (cond ((not (typep socket 'socket))
           (pass-octets channel octets numbers (call-limit channel :output)))
          ((zerop (length octets))
           (fail-as 'usage-error :send :invalid
                    :socket socket :message "expected at least one octet on a stream, got none"))
          (t (with-output (channel)
               (pass-over-stream channel octets numbers))))
    (length octets)))

(note-keywords 'send-descriptors)

;;; Receiving descriptors

(defconstant +most-octets+ 65536 "Octets of a message with descriptors that are received.")

(defun received-descriptors (numbers max)
  "The descriptors in NUMBERS, a list."
  (loop for number across numbers
        repeat max
        until (minusp number)
        collect number))

(defun receive-descriptors (socket max)
  "Wait for octets on SOCKET, a connected local SOCKET or DATAGRAM-SOCKET, and return 2 values: the
file descriptors that came with them, a list of at most MAX integers, which may be empty; the
octets, a vector, at most 65536. The descriptors are close-on-exec and the caller's to close, or to
make sockets of; those above MAX are closed.
Of a stream the octets are those that follow what has been read. What has arrived before may have
been read ahead, and the descriptors with it have been closed then: so this is a USAGE-ERROR while
there are unread octets in the stream's buffer. At the end the standard END-OF-FILE is signalled.
Conditions: those of a read; NOT-SUPPORTED, it is no local socket.
Source: recvmsg(2), SCM_RIGHTS of unix(7)."
  (check-link socket :receive)
  (check-argument :receive max '(integer 0 1000000) "a number of descriptors")
  (let ((channel (endpoint-channel socket)) (fds '()) (kept nil))
    (flet ((receive ()
             (receive-with-descriptors channel max (lambda (received)
                                                     (setf fds received)))))
      (with-cleanup
          (let ((octets (if (typep socket 'socket)
                            (with-input (channel)
                              (check-nothing-buffered channel)
                              (receive))
                            (receive))))
            (setf kept t)
            (values fds octets))
        (unless kept                    ; nobody has their numbers
          (mapc #'close-descriptor fds))))))

(defun check-nothing-buffered (connection)
  (unless (zerop (buffered-input connection))
    (fail-as 'usage-error :receive :invalid
             :socket (channel-socket connection)
             :message "expected that all that has arrived was read, ~D octets are unread"
             :arguments (list (buffered-input connection)))))

(defun receive-with-descriptors (channel max note)
  "The octets that come next; NOTE is called with the list of descriptors that came with them, with
interrupts deferred since they came."
  (declare (type function note))
  (let* ((octets (octets-of-size +most-octets+))
         (numbers (int64s-of-size (max 1 max)))
         (count (trying (channel :input :receive (call-limit channel :input)
                         :fail (lambda (status) (fail-passing channel status :receive)))
                  (call-deferred
                    (let ((count (with-octets (pointer octets)
                                   (with-int64s (descriptors numbers)
                                     (lport-local-receive (channel-handle channel) pointer
                                                          (length octets) descriptors max)))))
                      (when (>= count 0)
                        (funcall note (received-descriptors numbers max))
                        (note-received channel count))
                      count)))))
    (subseq octets 0 count)))

(defun note-received (channel count)
  "COUNT octets have come past the buffer of CHANNEL."
  (if (typep channel 'messenger)
      (%add-atomically (messenger-octets-in channel) count)
      (incf (connection-octets-in channel) count)))
