;;;; describe - what DESCRIBE says of sockets and of conditions: the facts, instead of the slots
;;;; that hold them.

(in-package :port)

(defun write-facts (facts stream)
  "Write FACTS, a plist of names, strings, and values, a line each; those whose value is NIL are
left out."
  (loop for (name value) on facts by #'cddr
        when value
          do (format stream "  ~A: ~A~%" name value)))

(defun age-text (endpoint)
  (format nil "~,1F s ago" (seconds-since (endpoint-born endpoint))))

(defun limits-text (channel direction)
  "The timeout and the deadline of CHANNEL in DIRECTION in words, or NIL."
  (let ((timeout (span-seconds channel direction))
        (left (seconds-until (channel-deadline channel direction))))
    (when (or timeout left)
      (format nil "~@[~F s for each call~]~:[~;, ~]~@[~,1F s left for all calls~]"
              timeout (and timeout left) left))))

(defun endpoint-facts (endpoint)
  "What holds for every kind of socket."
  (multiple-value-bind (local remote) (socket-ends endpoint)
    (let ((channel (endpoint-channel endpoint)) (open-p (endpoint-open-p endpoint)))
      (list "state" (if open-p "open" "closed")
            "local end" local
            "peer" remote
            "descriptor" (and open-p (socket-descriptor endpoint))
            "opened" (age-text endpoint)
            "limit of input" (limits-text channel :input)
            "limit of output" (limits-text channel :output)))))

(defmethod describe-object ((endpoint endpoint) stream)
  "Say what ENDPOINT is, where its ends are, and what limits it has."
  (with-plain-printer ()
    (format stream "~S~%" endpoint)
    (write-facts (endpoint-facts endpoint) stream)
    (when (typep endpoint 'socket)
      (write-facts (list "element type" (prin1-to-string (stream-element-type endpoint))
                         "external format" (prin1-to-string (stream-external-format endpoint)))
                   stream))))

(defun shown-fact (fact)
  (and fact (prin1-to-string fact)))

(defmethod describe-object ((condition network) stream)
  "Say what CONDITION knows, by the names of its readers."
  (with-plain-printer ()
    (format stream "~S~%" condition)
    (write-facts (loop for reader in '(network-operation network-code network-errno network-host
                                       network-port network-local network-remote network-octets
                                       network-socket)
                       append (list (string-downcase reader)
                                    (shown-fact (funcall reader condition))))
                 stream)
    (loop for (address . failure) in (network-attempts condition)
          do (format stream "  tried ~A: ~A~%" address (reason-text failure)))))
