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

(defgeneric message-calls (peer)
  (:documentation "Values: the function that sends, of an end, octets, how many of them, and the
host, as the other one tells it, and the port to send to (host NIL: where the end is connected to);
the function that receives, of an end and the octets to receive into: the length of the message, its
sender's host and port. They are looked up once, so that no loop pays for more than the library."))

;;; The libraries

(defgeneric set-receive-buffer (end octets)
  (:documentation "Ask for a receive buffer of so many OCTETS for END.")
  (:method ((end port:datagram-socket) octets)
    (setf (port:socket-option end :receive-buffer) octets))
  (:method ((end sb-bsd-sockets:socket) octets)
    (setf (sb-bsd-sockets:sockopt-receive-buffer end) octets))
  (:method ((end usocket:usocket) octets)
    (set-receive-buffer (usocket:socket end) octets)))

(defmethod open-end :around (peer port)
  "Everybody's buffers are as large."
  (declare (ignore port))
  (let ((end (call-next-method)))
    (set-receive-buffer end +receive-buffer+)
    end))

(defmethod open-end ((peer port-peer) port)
  (port:open-datagram-socket :host "127.0.0.1" :remote-host (and port "127.0.0.1")
                             :remote-port port))

(defmethod end-port ((peer port-peer) end)
  (nth-value 3 (port:socket-host/port end)))

(defmethod close-end ((peer port-peer) end)
  (close end))

(defmethod message-calls ((peer port-peer))
  (values #'send-by-port #'port:socket-receive))

(defun send-by-port (end octets length host port)
  (port:socket-send end octets :end length :host host :port port))

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

(defmethod message-calls ((peer sbcl-peer))
  (values #'send-by-sbcl #'receive-by-sbcl))

(defun send-by-sbcl (end octets length host port)
  (if host
      (sb-bsd-sockets:socket-send end octets length :address (list host port))
      (sb-bsd-sockets:socket-send end octets length)))

(defun receive-by-sbcl (end octets)
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

(defmethod message-calls ((peer usocket-peer))
  (values #'send-by-usocket #'receive-by-usocket))

(defun send-by-usocket (end octets length host port)
  (if host
      (usocket:socket-send end octets length :host host :port port)
      (usocket:socket-send end octets length)))

(defun receive-by-usocket (end octets)
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
    (multiple-value-bind (send receive) (message-calls peer)
      (declare (type function send receive))
      (dotimes (i count)
        (funcall send end octets length nil nil)
        (funcall answer)
        (unless (eql length (funcall receive end octets)) (missing "octets"))))))

(defun ping-server (peer port count)
  (let ((end (open-end peer port)))
    (ping-messages peer end (octets-of 64) count (lambda ()))
    (close-end peer end)))

(defun ping-ends (peer ends count)
  (let ((receiver (ends-receiver ends)) (octets (octets-of 64)))
    (multiple-value-bind (send receive) (message-calls peer)
      (declare (type function send receive))
      (flet ((answer ()
               (multiple-value-bind (length host port) (funcall receive receiver octets)
                 (funcall send receiver octets length host port))))
        (declare (dynamic-extent #'answer))
        (ping-messages peer (ends-sender ends) (ends-octets ends) count #'answer)))))

(defun pass-messages (peer ends count)
  (let* ((octets (ends-octets ends)) (length (length octets)))
    (multiple-value-bind (send receive) (message-calls peer)
      (declare (type function send receive))
      (dotimes (i (floor count +many+))
        (dotimes (i +many+)
          (funcall send (ends-sender ends) octets length nil nil))
        (dotimes (i +many+)
          (unless (eql length (funcall receive (ends-receiver ends) octets))
            (missing "octets")))))))

(defun pass-batches (peer ends count)
  (declare (ignore peer))
  (let ((out (ends-out ends)) (in (ends-in ends)))
    (dotimes (i (floor count +many+))
      (port:send-batch (ends-sender ends) out)
      (let ((left +many+))
        (declare (type fixnum left))
        (loop while (plusp left)
              do (decf left (the fixnum (port:receive-batch (ends-receiver ends) in))))))))
