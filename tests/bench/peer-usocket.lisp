;;;; peer-usocket - usocket, with the element type that fits the workload, as its users give it.

(in-package :port/bench)

(defclass usocket-peer (peer) ())

(defun usocket-element-type (kind)
  (if (eq kind :text) 'character '(unsigned-byte 8)))

(defmethod open-link ((peer usocket-peer) port kind)
  (usocket:socket-connect "127.0.0.1" port
                          :nodelay t :element-type (usocket-element-type kind)))

(defmethod open-listener ((peer usocket-peer) kind)
  (let ((listener (usocket:socket-listen "127.0.0.1" 0
                                         :backlog +backlog+
                                         :element-type (usocket-element-type kind))))
    (values listener (usocket:get-local-port listener))))

(defmethod accept-link ((peer usocket-peer) listener kind)
  (declare (ignore kind))
  (let ((link (usocket:socket-accept listener)))
    (setf (usocket:socket-option link :tcp-nodelay) t)
    link))

(defmethod close-listener ((peer usocket-peer) listener)
  (usocket:socket-close listener))

(defmethod link-stream ((peer usocket-peer) link)
  (usocket:socket-stream link))

(defmethod close-link ((peer usocket-peer) link)
  (finish-output (usocket:socket-stream link))
  (usocket:socket-close link))

(defmethod can-run-p ((peer usocket-peer) workload)
  "It receives past its streams only from datagram sockets."
  (not (eq workload 'read-some)))

(add-peer 'usocket-peer :usocket "usocket")
