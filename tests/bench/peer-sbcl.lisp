;;;; peer-sbcl - sb-bsd-sockets with a stream as bivalent as those of port.

(in-package :port/bench)

(defclass sbcl-peer (peer) ())

(defmethod open-link ((peer sbcl-peer) port kind)
  (declare (ignore kind))
  (let ((socket (make-instance 'sb-bsd-sockets:inet-socket :type :stream :protocol :tcp)))
    (setf (sb-bsd-sockets:sockopt-tcp-nodelay socket) t)
    (sb-bsd-sockets:socket-connect socket #(127 0 0 1) port)
    (cons socket
          (sb-bsd-sockets:socket-make-stream socket :input t :output t :buffering :full
                                                    :element-type :default
                                                    :external-format :utf-8))))

(defmethod link-stream ((peer sbcl-peer) link)
  (cdr link))

(defmethod receive-some ((peer sbcl-peer) link octets)
  (nth-value 1 (sb-bsd-sockets:socket-receive (car link) octets nil)))

(add-peer 'sbcl-peer :sbcl "sb-bsd-sockets")
