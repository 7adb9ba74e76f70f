;;;; peer-port - port itself.

(in-package :port/bench)

(defclass port-peer (peer) ())

(defmethod open-link ((peer port-peer) port kind)
  (declare (ignore kind))
  (port:open-socket "127.0.0.1" port))

(defmethod link-stream ((peer port-peer) link)
  link)

(defmethod receive-some ((peer port-peer) link octets)
  (port:read-some link octets))

(add-peer 'port-peer :port "port")
