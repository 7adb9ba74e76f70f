;;;; tls - octets through TLS, both ends in one thread, as in peer_tls.c: what is measured is the
;;;; calls, no switch from side to side.

(in-package :port/bench)

(defun secure-file (name)
  (project-file (concatenate 'string "build/tls/" name)))

(defun open-secure-ends (peer)
  "A pair of the streams of two local sockets with TLS between them."
  (declare (ignore peer))
  (multiple-value-bind (client server) (port:open-socket-pair)
    (let* ((context (port:make-tls-context :certificate (secure-file "server.pem")
                                           :key (secure-file "server.key")
                                           :verify nil))
           (thread (sb-thread:make-thread
                    (lambda () (port:start-tls server :side :server :context context)))))
      (port:start-tls client :context context)
      (sb-thread:join-thread thread)
      (close context)
      (cons client server))))

(defun close-secure-ends (peer ends)
  (declare (ignore peer))
  (close (car ends) :abort t)
  (close (cdr ends) :abort t))

(defun pass-secure (from to octets)
  (write-sequence octets from)
  (finish-output from)
  (unless (= (length octets) (read-sequence octets to)) (missing "octets")))

(defun ping-secure-ends (peer ends count)
  (declare (ignore peer))
  (let ((octets (octets-of 64)))
    (dotimes (i count)
      (pass-secure (car ends) (cdr ends) octets)
      (pass-secure (cdr ends) (car ends) octets))))

(defun pass-secure-octets (peer ends count)
  (declare (ignore peer))
  (let ((octets (octets-of +piece+)))
    (dotimes (i count)
      (pass-secure (car ends) (cdr ends) octets))))
