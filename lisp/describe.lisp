;;;; describe - what DESCRIBE says of sockets, pollers, services and conditions: the facts, instead
;;;; of the slots that hold them.

(in-package :port)

(defun write-facts (object facts stream)
  "Write a line for OBJECT, and FACTS, a plist of names, strings, and values, a line each; those
whose value is NIL are left out."
  (format stream "~S~%" object)
  (loop for (name value) on facts by #'cddr
        when value
          do (format stream "  ~A: ~A~%" name value)))

(defconstant +some+ 20 "Of how many sockets each has a line.")

(defun write-some (sockets stream)
  "Write the first of SOCKETS, a list, to STREAM, and how many more there are."
  (loop for socket in sockets
        repeat +some+
        do (format stream "  ~S~%" socket))
  (let ((more (- (length sockets) +some+)))
    (when (plusp more)
      (format stream "  and ~D more~%" more))))

(defun age-text (endpoint)
  (format nil "~,1F s ago" (seconds-since (endpoint-born endpoint))))

(defun limits-text (channel direction)
  "The timeout and the deadline of CHANNEL in DIRECTION in words, or NIL."
  (let ((timeout (span-seconds channel direction))
        (left (seconds-until (channel-deadline channel direction))))
    (when (or timeout left)
      (format nil "~@[~F s for each call~]~:[~;, ~]~@[~,1F s left for all calls~]"
              timeout (and timeout left) left))))

(defun endpoint-state-text (endpoint)
  "The state of ENDPOINT in words: whether it is open, and what of a connection is over."
  (if (endpoint-open-p endpoint)
      (let ((bits (lport-socket-state (endpoint-handle endpoint))))
        (format nil "open~:[~;, broken~]~:[~;, input shut down~]~:[~;, output shut down~]"
                (logtest bits +lport-state-broken+)
                (logtest bits +lport-state-input-shut+)
                (logtest bits +lport-state-output-shut+)))
      "closed"))

(defun endpoint-facts (endpoint)
  "What holds for every kind of socket."
  (multiple-value-bind (local remote) (socket-ends endpoint)
    (let ((channel (endpoint-channel endpoint)) (open-p (endpoint-open-p endpoint)))
      (list "state" (endpoint-state-text endpoint)
            "local end" local
            "peer" remote
            "descriptor" (and open-p (socket-descriptor endpoint))
            "opened" (age-text endpoint)
            "limit of input" (limits-text channel :input)
            "limit of output" (limits-text channel :output)))))

(defun tls-text (socket)
  "What SOCKET and the other side have agreed on in words, or NIL."
  (when (endpoint-open-p socket)
    (destructuring-bind (&key version cipher protocol subject &allow-other-keys) (tls-info socket)
      (when version
        (format nil "~A, ~A~@[, ~A~]~@[, with ~A~]" version cipher protocol subject)))))

(defun stream-facts (socket)
  "What holds besides for SOCKET, a SOCKET."
  (multiple-value-bind (unread unsent) (buffered-octets socket)
    (list "element type" (prin1-to-string (stream-element-type socket))
          "external format" (prin1-to-string (stream-external-format socket))
          "octets in the buffers" (format nil "~D unread, ~D unsent" unread unsent)
          "TLS" (tls-text socket))))

(defmethod describe-object ((endpoint endpoint) stream)
  "Say what ENDPOINT is, where its ends are, and what limits it has."
  (with-plain-printer ()
    (write-facts endpoint
                 (append (endpoint-facts endpoint)
                         (when (typep endpoint 'socket) (stream-facts endpoint)))
                 stream)))

(defmethod describe-object ((pending pending-connection) stream)
  "Say where PENDING goes, and what it has tried."
  (let ((dialling (pending-dialling pending)))
    (with-plain-printer ()
      (write-facts pending
                   (list "state" (if (channel-closing (endpoint-channel pending)) "closed" "open")
                         "begun" (format nil "~,1F s ago" (seconds-since (dialling-begun dialling)))
                         "limit" (let ((left (seconds-until (dialling-limit dialling))))
                                   (and left (format nil "~,1F s left" left)))
                         "addresses tried" (max 0 (lport-dial-count (dialling-dial dialling))))
                   stream))))

(defmethod describe-object ((poller poller) stream)
  "Say how many sockets are in POLLER, and how many threads wait in it."
  (let ((set (endpoint-channel poller)))
    (with-plain-printer ()
      (write-facts poller
                   (list "state" (if (channel-closing set) "closed" "open")
                         "threads that wait" (poll-set-waiting set))
                   stream)
      (write-some (loop for entry across (poll-set-entries set)
                        when entry
                          collect (entry-socket entry))
                  stream))))

(defmethod describe-object ((server server) stream)
  "Say what SERVER listens on, how many connections it has, and what its threads do."
  (let ((service (server-service server)))
    (with-plain-printer ()
      (write-facts server
                   (list "state" (service-state-text service)
                         "connections" (format nil "~D~@[ of ~D~]" (service-client-count service)
                                               (service-connection-limit service))
                         "threads" (format nil "~D of ~D, ~D idle" (service-thread-count service)
                                           (service-thread-limit service) (service-idle service))
                         "idle peers" (let ((timeout (service-timeout service)))
                                        (unless (= timeout +never+)
                                          (format nil "closed after ~,3F s" (in-seconds timeout)))))
                   stream)
      (write-some (server-listeners server) stream))))

(defun shown-fact (fact)
  (and fact (prin1-to-string fact)))

(defmethod describe-object ((condition network) stream)
  "Say what CONDITION knows, by the names of its readers."
  (with-plain-printer ()
    (write-facts condition
                 (loop for reader in '(network-operation network-code network-errno network-host
                                       network-port network-local network-remote network-octets
                                       network-socket)
                       append (list (string-downcase reader)
                                    (shown-fact (funcall reader condition))))
                 stream)
    (loop for (address . failure) in (network-attempts condition)
          do (format stream "  tried ~A: ~A~%" address (reason-text failure)))))
