;;;; places - where servers listen, how to dial them, and what ends them: servers with threads of
;;;; their own, and services.
;;;;
;;;; The services answer as the servers do, each in its own way: a connection at a time, in turns
;;;; between which it waits without a thread, by posts of another thread, over TLS, through a relay.

(in-package :port/stress)

(defparameter *patience* 20
  "Seconds that one step of a steady thread may take; longer is a hang.")

(defvar *served* (make-array 64 :initial-element nil)
  "Sockets that are being served, for those who close them.")

(defun explain-silence (peer condition)
  "A server has waited too long: that is a surprise if there is something to read. If not, the
client is a victim that was thrown out before it had a name for its socket, and the collection that
finds it has still to come."
  (if (and (eq :read (network-operation condition)) (not (wait-for-stream peer 0)))
      (note :left-to-the-collector)
      (surprise "server hangs: ~A" condition)))

(defstruct (place (:copier nil) (:predicate nil))
  "Its name, and functions of no arguments: DIAL is a new connection; TAKE the next one of its
server, or NIL, is NIL where a service takes them; END closes everything."
  name dial take end)

(defun port-of (server)
  (nth-value 1 (socket-server-host/port server)))

(defun server-place (name server dial)
  (make-place :name name
              :dial dial
              :take (lambda () (socket-accept server :wait 0.2))
              :end (lambda ()
                     (loop for peer = (socket-accept server :wait 0) ; left by victims
                           while peer
                           do (close peer))
                     (close server))))

(defun tcp-place (host)
  (let ((server (open-socket-server 0 :host host)))
    (server-place host server (lambda () (open-socket host (port-of server))))))

(defun local-place ()
  (let ((path (format nil "@port-stress-~D" (sb-unix:unix-getpid))))
    (server-place "local" (open-unix-server path) (lambda () (open-unix-socket path)))))

;;; Services

(defun note-end (condition socket)
  "What a function of a service has failed with, on SOCKET."
  (typecase condition
    (timeout (explain-silence socket condition))
    (network (note :ended-early))
    (t (surprise "service: ~A" condition))))

(defun service-place (name function &key (dial #'open-socket) tls)
  "A service NAME that calls FUNCTION with each connection; DIAL is a function of host and port."
  (let* ((service (serve (lambda (peer)
                           (setf (svref *served* (random 64)) peer)
                           (with-deadline (*patience*) (funcall function peer)))
                         0 :host "127.0.0.1" :name name :timeout *patience* :tls tls
                           :on-error #'note-end
                           :on-close (lambda (peer)
                                       (declare (ignore peer))
                                       (note :served))))
         (port (port-of (first (server-listeners service)))))
    (make-place :name name
                :dial (lambda () (funcall dial "127.0.0.1" port))
                :end (lambda ()
                       (unless (stop-server service :drain 1)
                         (surprise "the service ~A does not stop" name))))))

(defun answer-in-turns (peer send)
  "Answer what has come and wait for more without a thread; SEND is a function of PEER and octets."
  (let ((conversation (or (socket-datum peer)
                          (let ((number (read-number peer)))
                            (setf (socket-datum peer) (and number (cons number 0))))))
        (room (octets 4096)))
    (when conversation
      (destructuring-bind (number . position) conversation
        (let ((count (read-some peer room)))
          (check-tagged room count number position "service")
          (incf (cdr conversation) count)
          (when (plusp count)
            (funcall send peer (subseq room 0 count))
            :again))))))

(defvar *to-post* '() "What is to be posted, (socket . octets), the last first.")

(defun hand-to-poster (peer octets)
  (sb-ext:atomic-push (cons peer octets) (symbol-value '*to-post*)))

(defun post-what-there-is (state)
  "What a connection cannot take any more belongs to a client that has gone."
  (declare (ignore state))
  (loop for (peer . octets) in (nreverse (loop for all = *to-post*
                                               when (eq all (sb-ext:compare-and-swap
                                                             (symbol-value '*to-post*) all '()))
                                                 return all))
        do (if (post peer octets)
               (note :posted)
               (close peer :abort t)))
  (sleep 0.001))

(defun relay-to (place peer)
  (let ((target (funcall (place-dial place))))
    (unwind-protect (relay peer target :timeout *patience*)
      (close target :abort t))))

(defun connect-in-two (host port)
  (finish-connect (begin-connect host port)))

(defun tls-dial ()
  "A function that connects by TLS, and the context of a service for it."
  (flet ((context (&rest options)
           (apply #'make-tls-context
                  (loop for (key file) on options by #'cddr
                        append (list key (namestring (asdf:system-relative-pathname
                                                      "port" (format nil "build/tls/~A" file))))))))
    (let ((trusting (context :trust "authority.pem")))
      (values (lambda (host port) (open-tls-socket host port :context trusting))
              (context :certificate "both.pem")))))

(defun write-back (peer octets)
  (write-octets peer octets))

(defun all-places ()
  "Everywhere that clients go, a vector."
  (flet ((in-turns (send)
           (lambda (peer) (answer-in-turns peer send))))
    (let ((inner (tcp-place "127.0.0.1")))
      (multiple-value-bind (dial tls) (tls-dial)
        (vector inner
                (tcp-place "::1")
                (local-place)
                (service-place "whole" #'answer :dial #'connect-in-two)
                (service-place "in turns" (in-turns #'write-back))
                (service-place "posts" (in-turns #'hand-to-poster))
                (service-place "TLS" (in-turns #'write-back) :dial dial :tls tls)
                (service-place "relay" (lambda (peer) (relay-to inner peer))))))))
