;;;; service-given - connections that a service has not accepted, but was given: those that the
;;;; program has opened itself, as one that calls home does, or that others have handed over.
;;;;
;;;; Invariant: a socket is the service's from the moment on at which it is in the table, or it is
;;;; the caller's still, and nothing of it has changed; there are never more than the limit says.

(in-package :port)

(defun lend-timeouts (connection settings)
  "Let CONNECTION have the timeouts of SETTINGS in the directions in which it has none."
  (flet ((lend (direction span)
           (when (= +never+ (channel-timeout connection direction))
             (setf (channel-timeout connection direction) span))))
    (lend :input (settings-input-timeout settings))
    (lend :output (settings-output-timeout settings))))

(defun claim-client (service client)
  "Make CLIENT, around a socket that was given, one of SERVICE, to be served next: T; or why not.
:ACCEPTING says that this is not known yet. With the lock held."
  (let ((connection (client-connection client)))
    (cond ((service-stopping service) :stopped)
          ((channel-closing connection) :closed)
          ((plusp (service-accepting service)) :accepting)
          ((not (room-p service)) :full)
          ((%compare-and-swap (connection-client connection) nil client) :member)
          (t (lend-timeouts connection (service-settings service))
             (keep-client service client)
             (enter-client service client)
             (append-clients service client client)
             t))))

(defun take-client-in (service client)
  "As CLAIM-CLIENT, once it is known; a thread looks for CLIENT then."
  (loop
    (let ((answer (%with-lock ((service-lock service))
                    (let ((answer (claim-client service client)))
                      (when (eq answer t)
                        (call-for service))
                      answer))))
      (if (eq answer :accepting)
          (%yield)                      ; that takes the leader a batch of calls that never block
          (return answer)))))

(defun call-for (service)
  "Another thread than one of those that were just at it has put a client into the queue. With the
lock held."
  (cond ((service-leader service)
         (lport-poller-wake (channel-handle (service-set service))))
        ((not (somebody-comes-p service))
         (rouse-another service))))

(defun fail-to-take (service socket answer)
  "Signal ANSWER, as of TAKE-CLIENT-IN, why SOCKET is not one of SERVICE."
  (ecase answer
    (:closed (fail-closed (socket-connection socket) :serve))
    (:stopped (fail-as 'socket-closed :serve :closed
                       :message "expected a service that goes on, ~A has been stopped"
                       :arguments (list (service-name service))))
    (:full (fail-as 'resource-exhausted :serve :connections-exhausted :socket socket
                    :message "the service ~A has ~D connection~:P, and takes no more"
                    :arguments (list (service-name service) (service-connection-limit service))))
    (:member (fail-as 'usage-error :serve :invalid :socket socket
                      :message "expected a connection of no service, got one of ~A"
                      :arguments (list (service-name (client-service
                                                      (connection-client
                                                       (socket-connection socket)))))))))

(defun serve-connection (server socket)
  "Give SOCKET, a connected SOCKET that was opened, adopted or accepted elsewhere, to SERVER, as
SERVE returned it, and return SOCKET at once: the service serves it from here on like one that it
has accepted. It counts as one of MAX-CONNECTIONS, FUNCTION is called with it, or waits for its
input first as AWAIT-INPUT says, the hooks are told of it, STOP-SERVER drains it, and it is closed
in the end. Whoever gave it may POST to it and close it, as others do, and neither read nor write.
It is served as it is, with the external format that it has, what was read ahead and what waits to
be flushed: no header of the PROXY protocol is expected of it, and no handshake, though the service
has TLS: that is said before, by START-TLS, or by FUNCTION. In a direction in which it has no
SOCKET-TIMEOUT it gets that of the service; it may be idle for as long as TIMEOUT says.
Any thread may call this, a function of the service, too. It never waits: where there are as many as
MAX-CONNECTIONS already it fails, and SOCKET is still the caller's, as after the other conditions.
Conditions: RESOURCE-EXHAUSTED at MAX-CONNECTIONS; SOCKET-CLOSED where SOCKET is closed, or SERVER
has been stopped, of which NETWORK-SOCKET is NIL; USAGE-ERROR where SOCKET is a connection of a
service already."
  (let* ((service (check-service server :serve))
         (connection (socket-connection (check-socket socket :serve)))
         (client (make-client service socket connection nil +never+)))
    (setf (client-given client) t)
    (let ((answer (take-client-in service client)))
      (unless (eq answer t)
        (fail-to-take service socket answer)))
    socket))
