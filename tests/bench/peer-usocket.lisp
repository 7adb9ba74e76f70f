;;;; peer-usocket - usocket, with the element type that fits the workload, as its users give it.

(in-package :port/bench)

(defclass usocket-peer (peer) ())

(defmethod open-link ((peer usocket-peer) port kind)
  (usocket:socket-connect "127.0.0.1" port
                          :nodelay t
                          :element-type (if (eq kind :text) 'character '(unsigned-byte 8))))

(defmethod link-stream ((peer usocket-peer) link)
  (usocket:socket-stream link))

(defmethod close-link ((peer usocket-peer) link)
  (finish-output (usocket:socket-stream link))
  (usocket:socket-close link))

(defmethod can-run-p ((peer usocket-peer) workload)
  "It receives past its streams only from datagram sockets."
  (not (eq workload 'read-some)))

(add-peer 'usocket-peer :usocket "usocket")
