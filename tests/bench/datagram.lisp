;;;; datagram - messages over UDP: round trips; many in one direction, one by one and in batches.
;;;;
;;;; Where there is no server both ends are in one thread, as in peer_datagram.c: what is measured
;;;; is the calls, no switch from side to side. A loop is the same code for every library but for
;;;; batches, which only port and C have.

(in-package :port/bench)

(defconstant +many+ 64 "Messages of a batch.")
(defconstant +message+ 1200 "Octets of each.")
(defconstant +receive-buffer+ (ash 1 20) "Octets of a receive buffer, so that a batch fits.")

(defgeneric open-end (peer port)
  (:documentation "A UDP socket on 127.0.0.1, connected to PORT there; NIL: to nobody."))

(defgeneric end-port (peer end)
  (:documentation "The port of END."))

(defgeneric close-end (peer end)
  (:documentation "Close END."))

(defgeneric send-message (peer end octets length host port)
  (:documentation "Send LENGTH of OCTETS to HOST, as RECEIVE-MESSAGE tells it, and PORT; HOST NIL:
where END is connected to."))

(defgeneric receive-message (peer end octets)
  (:documentation "Receive a message into OCTETS. Values: its length; the sender's host and port."))

;;; The libraries

(defun descriptor-of (end)
  "The descriptor of END, a socket of any of the libraries."
  (etypecase end
    (port:datagram-socket (port:socket-descriptor end))
    (sb-bsd-sockets:socket (sb-bsd-sockets:socket-file-descriptor end))
    (usocket:usocket (descriptor-of (usocket:socket end)))))

(defmethod open-end :around (peer port)
  "Everybody's buffers are as large."
  (declare (ignore port))
  (let ((end (call-next-method)))
    (cffi:with-foreign-object (size :int)
      (setf (cffi:mem-ref size :int) +receive-buffer+)
      (unless (zerop (cffi:foreign-funcall "setsockopt" :int (descriptor-of end)
                                           :int 1 :int 8 :pointer size :uint32 4 :int))
        (error "SO_RCVBUF failed")))
    end))

(defmethod open-end ((peer port-peer) port)
  (port:open-datagram-socket :host "127.0.0.1" :remote-host (and port "127.0.0.1")
                             :remote-port port))

(defmethod end-port ((peer port-peer) end)
  (nth-value 3 (port:socket-host/port end)))

(defmethod close-end ((peer port-peer) end)
  (close end))

(defmethod send-message ((peer port-peer) end octets length host port)
  (port:socket-send end octets :end length :host host :port port))

(defmethod receive-message ((peer port-peer) end octets)
  (port:socket-receive end octets))

(defmethod open-end ((peer sbcl-peer) port)
  (let ((end (make-instance 'sb-bsd-sockets:inet-socket :type :datagram :protocol :udp)))
    (sb-bsd-sockets:socket-bind end #(127 0 0 1) 0)
    (when port
      (sb-bsd-sockets:socket-connect end #(127 0 0 1) port))
    end))

(defmethod end-port ((peer sbcl-peer) end)
  (nth-value 1 (sb-bsd-sockets:socket-name end)))

(defmethod close-end ((peer sbcl-peer) end)
  (sb-bsd-sockets:socket-close end))

(defmethod send-message ((peer sbcl-peer) end octets length host port)
  (if host
      (sb-bsd-sockets:socket-send end octets length :address (list host port))
      (sb-bsd-sockets:socket-send end octets length)))

(defmethod receive-message ((peer sbcl-peer) end octets)
  (multiple-value-bind (octets length host port)
      (sb-bsd-sockets:socket-receive end octets nil :element-type '(unsigned-byte 8))
    (declare (ignore octets))
    (values length host port)))

(defmethod open-end ((peer usocket-peer) port)
  (usocket:socket-connect (and port "127.0.0.1") port
                          :protocol :datagram :element-type '(unsigned-byte 8)
                          :local-host "127.0.0.1" :local-port 0))

(defmethod end-port ((peer usocket-peer) end)
  (usocket:get-local-port end))

(defmethod close-end ((peer usocket-peer) end)
  (usocket:socket-close end))

(defmethod send-message ((peer usocket-peer) end octets length host port)
  (if host
      (usocket:socket-send end octets length :host host :port port)
      (usocket:socket-send end octets length)))

(defmethod receive-message ((peer usocket-peer) end octets)
  (multiple-value-bind (octets length host port)
      (usocket:socket-receive end octets (length octets))
    (declare (ignore octets))
    (values length host port)))

;;; Two ends

(defstruct ends
  sender receiver
  (octets (octets-of 64))
  (out nil)                             ; batches
  (in nil))

(defun open-ends (peer &optional joined)
  "Ends for PEER; a receiver that is JOINED is port's."
  (let* ((receiver (if joined
                       (port:open-datagram-socket :host "127.0.0.1" :joined t)
                       (open-end peer nil))))
    (make-ends :receiver receiver :sender (open-end peer (end-port peer receiver)))))

(defun large-ends (peer)
  (let ((ends (open-ends peer)))
    (setf (ends-octets ends) (octets-of +message+))
    ends))

(defun batch-ends (step &key joined (capacity +many+))
  "A function that makes ends with a batch of messages, each STEP octets shorter than the one before
it, and one to receive into, with room for CAPACITY."
  (lambda (peer)
    (let ((ends (open-ends peer joined)) (out (port:make-datagram-batch +many+)))
      (dotimes (i +many+)
        (port:batch-add out (octets-of (- +message+ (* i step)))))
      (setf (ends-out ends) out
            (ends-in ends) (port:make-datagram-batch capacity))
      ends)))

(defun close-ends (peer ends)
  (close-end peer (ends-sender ends))
  (close-end peer (ends-receiver ends)))

;;; Loops

(defun ping-messages (peer end octets count answer)
  "COUNT round trips of OCTETS over END; ANSWER is called where the other side is in this thread."
  (declare (type function answer) (type octets octets))
  (let ((length (length octets)))
    (dotimes (i count)
      (send-message peer end octets length nil nil)
      (funcall answer)
      (unless (eql length (receive-message peer end octets)) (missing "octets")))))

(defun ping-server (peer port count)
  (let ((end (open-end peer port)))
    (ping-messages peer end (octets-of 64) count (constantly nil))
    (close-end peer end)))

(defun ping-ends (peer ends count)
  (let ((receiver (ends-receiver ends)) (octets (octets-of 64)))
    (flet ((answer ()
             (multiple-value-bind (length host port) (receive-message peer receiver octets)
               (send-message peer receiver octets length host port))))
      (declare (dynamic-extent #'answer))
      (ping-messages peer (ends-sender ends) (ends-octets ends) count #'answer))))

(defun pass-messages (peer ends count)
  (let* ((octets (ends-octets ends)) (length (length octets)))
    (dotimes (i (floor count +many+))
      (dotimes (i +many+)
        (send-message peer (ends-sender ends) octets length nil nil))
      (dotimes (i +many+)
        (unless (eql length (receive-message peer (ends-receiver ends) octets))
          (missing "octets"))))))

(defun pass-batches (peer ends count)
  (declare (ignore peer))
  (let ((out (ends-out ends)) (in (ends-in ends)))
    (dotimes (i (floor count +many+))
      (port:send-batch (ends-sender ends) out)
      (let ((left +many+))
        (declare (type fixnum left))
        (loop while (plusp left)
              do (decf left (the fixnum (port:receive-batch (ends-receiver ends) in))))))))
