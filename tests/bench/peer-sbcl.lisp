;;;; peer-sbcl - sb-bsd-sockets with a stream as bivalent as those of port.

(in-package :port/bench)

(defclass sbcl-peer (peer) ())

(defun make-sbcl-socket ()
  (make-instance 'sb-bsd-sockets:inet-socket :type :stream :protocol :tcp))

(defun sbcl-link (socket)
  "The link of SOCKET, connected: it and its stream."
  (cons socket
        (sb-bsd-sockets:socket-make-stream socket :input t :output t :buffering :full
                                                  :element-type :default
                                                  :external-format :utf-8)))

(defmethod open-link ((peer sbcl-peer) port kind)
  (declare (ignore kind))
  (let ((socket (make-sbcl-socket)))
    (setf (sb-bsd-sockets:sockopt-tcp-nodelay socket) t)
    (sb-bsd-sockets:socket-connect socket #(127 0 0 1) port)
    (sbcl-link socket)))

(defmethod open-listener ((peer sbcl-peer) kind)
  (declare (ignore kind))
  (let ((listener (make-sbcl-socket)))
    (sb-bsd-sockets:socket-bind listener #(127 0 0 1) 0)
    (sb-bsd-sockets:socket-listen listener +backlog+)
    (values listener (nth-value 1 (sb-bsd-sockets:socket-name listener)))))

(defmethod accept-link ((peer sbcl-peer) listener kind)
  (declare (ignore kind))
  (let ((socket (sb-bsd-sockets:socket-accept listener)))
    (setf (sb-bsd-sockets:sockopt-tcp-nodelay socket) t)
    (sbcl-link socket)))

(defmethod close-listener ((peer sbcl-peer) listener)
  (sb-bsd-sockets:socket-close listener))

(defmethod link-stream ((peer sbcl-peer) link)
  (cdr link))

(defmethod receive-some ((peer sbcl-peer) link octets)
  (nth-value 1 (sb-bsd-sockets:socket-receive (car link) octets nil)))

(add-peer 'sbcl-peer :sbcl "sb-bsd-sockets")
