;;;; peer-cl+ssl - cl+ssl, which has TLS over the sockets of others, and nothing else.

(in-package :port/bench)

(defclass cl+ssl-peer (peer) ())

(defmethod can-run-p ((peer cl+ssl-peer) workload)
  (uiop:string-prefix-p "TLS-" workload))

(add-peer 'cl+ssl-peer :cl+ssl "cl+ssl")
