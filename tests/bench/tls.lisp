;;;; tls - octets through TLS, both ends in one thread, as in peer_tls.c: what is measured is the
;;;; calls, no switch from side to side. A loop is the same code for every library.

(in-package :port/bench)

(defgeneric secure-end (peer socket side)
  (:documentation "Begin TLS by PEER on SOCKET, a local socket of port's, as SIDE, :CLIENT or
:SERVER, with nobody verified, and return the stream of it."))

;;; The libraries

(defun secure-file (name)
  (project-file (concatenate 'string "build/tls/" name)))

(defmethod secure-end ((peer port-peer) socket side)
  (let ((context (port:make-tls-context :certificate (secure-file "server.pem")
                                        :key (secure-file "server.key")
                                        :verify nil)))
    (port:start-tls socket :side side :context context)
    (close context)
    socket))

(defmethod secure-end ((peer cl+ssl-peer) socket (side (eql :client)))
  (cl+ssl:make-ssl-client-stream (port:socket-descriptor socket) :verify nil))

(defmethod secure-end ((peer cl+ssl-peer) socket (side (eql :server)))
  (cl+ssl:make-ssl-server-stream (port:socket-descriptor socket)
                                 :certificate (secure-file "server.pem")
                                 :key (secure-file "server.key")))

;;; Two ends

(defun open-secure-ends (peer)
  "A list: two streams with TLS by PEER between them; the two local sockets that are below."
  (multiple-value-bind (client server) (port:open-socket-pair)
    (let* ((thread (sb-thread:make-thread (lambda () (secure-end peer server :server))))
           (stream (secure-end peer client :client)))
      (list stream (sb-thread:join-thread thread) client server))))

(defun close-secure-ends (peer ends)
  "Both streams before what is below: cl+ssl takes leave of the other side, which has to be there."
  (declare (ignore peer))
  (dolist (end ends)
    (close end :abort t)))

;;; Loops

(defun pass-secure (from to octets)
  (write-sequence octets from)
  (finish-output from)
  (unless (= (length octets) (read-sequence octets to)) (missing "octets")))

(defun ping-secure-ends (peer ends count)
  (declare (ignore peer))
  (destructuring-bind (client server &rest below) ends
    (declare (ignore below))
    (let ((octets (octets-of 64)))
      (dotimes (i count)
        (pass-secure client server octets)
        (pass-secure server client octets)))))

(defun pass-secure-octets (peer ends count)
  (declare (ignore peer))
  (let ((octets (octets-of +piece+)))
    (dotimes (i count)
      (pass-secure (first ends) (second ends) octets))))
