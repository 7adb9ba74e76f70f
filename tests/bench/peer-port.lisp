;;;; peer-port - port itself.

(in-package :port/bench)

(defclass port-peer (peer) ())

(defmethod open-link ((peer port-peer) port kind)
  (declare (ignore kind))
  (port:open-socket "127.0.0.1" port))

(defmethod open-listener ((peer port-peer) kind)
  (declare (ignore kind))
  (let ((server (port:open-socket-server 0 :host "127.0.0.1" :backlog +backlog+)))
    (values server (nth-value 1 (port:socket-server-host/port server)))))

(defmethod accept-link ((peer port-peer) listener kind)
  (declare (ignore kind))
  (port:socket-accept listener))

(defmethod close-listener ((peer port-peer) listener)
  (port:socket-server-close listener))

(defmethod link-stream ((peer port-peer) link)
  link)

(defmethod receive-some ((peer port-peer) link octets)
  (port:read-some link octets))

(add-peer 'port-peer :port "port")
