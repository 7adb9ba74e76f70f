;;;; message - what a datagram socket keeps, and how messages go and come, one by one; in batch.lisp
;;;; many of them by one call.
;;;;
;;;; Nothing is buffered here, so several threads may send and receive at once, and each message
;;;; goes to one of them. Invariant: what a socket remembers between calls (its last sender, the
;;;; last place it sent to) is an object that never changes, so that whoever looks at it sees it
;;;; whole; a call that meets the same end again allocates nothing.

(in-package :port)

(defstruct (end (:constructor make-end (block host port)) (:copier nil) (:predicate nil))
  "An end of messages: its address block, and the host and the port that users see or gave."
  (block (octets-of-size 0) :type octets :read-only t)
  (host nil :read-only t)
  (port 0 :read-only t))

(defstruct (messenger (:include channel) (:copier nil) (:predicate nil))
  "The channel of a datagram socket."
  (family nil :type (member nil :inet :inet6 :local) :read-only t) ; of its peers; NIL: both
  (peer nil :type (or null end) :read-only t) ; the end that it is connected to
  (sender nil :type (or null end))      ; of the last message
  (destination nil :type (or null end)) ; of the last message sent to a literal
  (packet-info nil :read-only t)        ; true if it is told where messages were sent to
  (arrival nil :type (or null end))     ; where the last one was sent to, see arrival.lisp
  (source nil :type (or null end))      ; from where the last one went that said so
  (octets-in 0 :type (unsigned-byte 64))
  (octets-out 0 :type (unsigned-byte 64)))

(defun check-datagram-socket (object operation)
  (check-argument operation object 'datagram-socket "a DATAGRAM-SOCKET"))

;;; Each message pays for this. A reader of one class is the cheapest way that there is from an
;;; object to what is in it; asked of anything else it says NIL.

(defmethod no-applicable-method ((reader (eql #'socket-messenger)) &rest arguments)
  (declare (ignore arguments))
  nil)

(declaim (inline messenger-of))
(defun messenger-of (object operation)
  "The channel of OBJECT; signals USAGE-ERROR unless it is a datagram socket."
  (or (socket-messenger object)
      (check-datagram-socket object operation)))

(defun block-end (block)
  "The end that BLOCK describes."
  (multiple-value-bind (host port) (host-and-port block)
    (make-end block host port)))

;;; Where a message goes

(defun end-of-p (end host port)
  "True if END is what HOST and PORT, as a user gives them, stand for: it was made of the same."
  (let ((known (end-host end)))
    (and (eql port (end-port end))
         (or (and (eq host known) (or (stringp host) (address-p host)))
             (and (stringp host) (stringp known) (string= host known))))))

(defun destination-block (messenger host port)
  "The block that HOST and PORT stand for."
  (let ((sender (messenger-sender messenger))
        (destination (messenger-destination messenger)))
    (cond ((and sender (end-of-p sender host port))
           (end-block sender))
          ((and destination (end-of-p destination host port))
           (end-block destination))
          (t (new-destination-block messenger host port)))))

(defun look-up-seconds (messenger)
  "The seconds that MESSENGER, which is to send, has for the look-up of a name; NIL: no limit."
  (sooner (span-seconds messenger :output)
          (seconds-until (channel-deadline messenger :output))))

(defun new-destination-block (messenger host port)
  "As DESTINATION-BLOCK; what needed no look-up is remembered."
  (if (eq (messenger-family messenger) :local)
      (remember-destination messenger (path-block host :send) host 0)
      (with-retry (port "send" "port")
        (let ((number (port-designator port "udp" :send)))
          (with-retry (host "send" "host")
            (let ((target (host-designator host :send)))
              (if (address-p target)
                  (remember-destination messenger
                                        (address-block (address-for messenger target host port)
                                                       number)
                                        host port)
                  (address-block (looked-up-for messenger target) number))))))))

(defun address-for (messenger address host port)
  "ADDRESS, which HOST and PORT stand for, if it is of the family of MESSENGER."
  (first (check-family (unmapped address) (messenger-family messenger) :send
                       :socket (channel-socket messenger) :host host :port port)))

(defun looked-up-for (messenger name)
  "The first address that NAME has for MESSENGER."
  (first (resolve name :family (messenger-family messenger)
                       :timeout (look-up-seconds messenger))))

(defun remember-destination (messenger block host port)
  "BLOCK; what HOST and PORT are of strings is copied, as their owner may change it."
  (flet ((kept (designator)
           (if (stringp designator) (copy-seq designator) designator)))
    (setf (messenger-destination messenger) (make-end block (kept host) (kept port))))
  block)

(defun check-destination (messenger host port)
  "See to it that it is known where a message for HOST and PORT goes."
  (let ((local-p (eq (messenger-family messenger) :local)))
    (cond ((and (null host) port)
           (fail-destination messenger "expected :HOST beside :PORT ~S" port))
          ((and (null host) (null (messenger-peer messenger)))
           (fail-destination messenger "expected ~:[:HOST and :PORT~;the path of a :HOST~], as ~
                                        the socket is not connected" local-p))
          ((and host (null port) (not local-p))
           (fail-destination messenger "expected :PORT beside :HOST ~S" host)))))

(defun fail-destination (messenger message &rest arguments)
  (fail-as 'usage-error :send :invalid
           :socket (channel-socket messenger) :message message :arguments arguments))

;;; What became of an earlier message

(defun undelivered-end (messenger)
  "Values: host and port that the earlier message was for of which the failure is that this thread
has just met on MESSENGER; NIL where that is not known, or of none."
  (multiple-value-bind (block family)
      (block-from (pointer)
        (lport-datagram-undelivered (channel-handle messenger) pointer))
    (when (plusp family)
      (host-and-port block))))

(defun check-earlier (messenger status operation &optional (octets 0))
  "Signal what STATUS, which OPERATION on MESSENGER has just met, says, if it is of an earlier
message whose end is known. OCTETS: how many were moved before."
  (multiple-value-bind (host port) (undelivered-end messenger)
    (when host
      (apply #'fail-on messenger status operation
             :octets octets :host host :port port
             (when (eq operation :receive)
               (list :message "~A, of a message to ~A port ~D"
                     :arguments (list (status-text status) host port)))))))

(defun fail-message (messenger status operation &rest facts &key (octets 0) &allow-other-keys)
  "As FAIL-ON; of an earlier message with its end in place of that in FACTS."
  (check-earlier messenger status operation octets)
  (apply #'fail-on messenger status operation facts))

;;; Sending

(defparameter *full-receiver-piece* 1000000
  "Nanoseconds after which a send to a local name whose receiver has no room is tried again: nothing
tells when it has.")

(defun await-full-receiver (messenger status limit sent &optional facts)
  "Where STATUS says that the receiver of a local name has no room, wait a moment for it: LIMIT, or
a later one that the user asked for; NIL for another status. Signals TIMEOUT with SENT and FACTS if
LIMIT has passed."
  (declare (type moment limit))
  (when (= (lport-status-kind status) +lport-backlog-full+)
    (let ((limit (check-limit messenger :output :send limit sent :facts facts)))
      (declare (type moment limit))
      (wait-once messenger 0 (min limit (channel-deadline messenger :output)
                                  (moment-in *full-receiver-piece*)))
      limit)))

(declaim (inline message-sent))
(defun message-sent (messenger count)
  "COUNT, of a send, or a status; octets that were sent are counted, and an answer is expected."
  (declare (type (signed-byte 64) count))
  (when (>= count 0)
    (%add-atomically (messenger-octets-out messenger) count)
    (setf (messenger-expecting messenger) t))
  count)

(declaim (inline send-now))             ; into those two that call it
(defun send-now (messenger octets start end block)
  "Send OCTETS from START to END as one message to BLOCK, or NIL, without blocking: the count or a
status."
  (declare (type octets octets) (type index start end))
  (call-nowait
    (message-sent messenger
                  (with-octets (pointer octets start end :in)
                    (if block
                        (with-octets (address block 0 nil :in)
                          (%lport-datagram-send (channel-handle messenger) pointer (- end start)
                                                address))
                        (%lport-datagram-send (channel-handle messenger) pointer (- end start)
                                              (null-pointer)))))))

(defun parted-p (messenger status)
  "True if STATUS of a send to the peer of MESSENGER, a local one, says that there is none: the
system forgets a peer that has been closed when it refuses the first message for it."
  (and (messenger-peer messenger)
       (eq (messenger-family messenger) :local)
       (= (lport-status-kind status) +lport-not-connected+)))

(defun fail-parted (messenger moved)
  "Signal what the first message for a peer that was closed has met, after MOVED were sent."
  (fail-on messenger (lport-status-make +lport-connection-refused+) :send :octets moved))

(defun peer-path-block (messenger)
  "The block of the peer of MESSENGER, a local one, if that has a name, which may be another
socket's by now; else NIL."
  (let ((block (end-block (messenger-peer messenger))))
    (and (bound-p block) block)))

(defun send-message (messenger octets start end block host port &optional (moved 0))
  "Send OCTETS from START to END as one message to BLOCK, which HOST and PORT are, or NIL: how many.
MOVED: what a condition says was sent before."
  (declare (type messenger messenger))
  (let ((result (and (in-time-p messenger :output)
                     (not (channel-closing messenger))
                     (send-now messenger octets start end block))))
    (cond ((typep result 'index) result)
          ((or (null result) (repeatable-p messenger result))
           (send-message-slowly messenger octets start end block host port moved))
          (t (fail-message messenger result :send :octets moved :host host :port port)))))

(defun repeatable-p (messenger status)
  "True if STATUS, of a send, says nothing that another attempt would not say again."
  (or (would-block-p status)
      (= (lport-status-kind status) +lport-backlog-full+)
      (parted-p messenger status)))

(defun send-message-slowly (messenger octets start end block host port moved)
  "As SEND-MESSAGE, waiting for room where there is none."
  (let ((facts (list :host host :port port)))
    (declare (dynamic-extent facts))
    (flet ((again (status limit)
             (cond ((await-full-receiver messenger status limit moved facts))
                   ((and (null block) (parted-p messenger status))
                    (setf block (or (peer-path-block messenger)
                                    (fail-parted messenger moved)))
                    limit))))
      (values (trying (messenger :output :send (call-limit messenger :output)
                       :moved moved :facts facts :again #'again
                       :fail (lambda (status)
                               (apply #'fail-message messenger status :send
                                      :octets moved facts)))
                (send-now messenger octets start end block))))))

(defun socket-send (socket octets &key (start 0) end host port from)
  "Send OCTETS, a vector of (unsigned-byte 8), from index START below END (NIL: its length) as one
message, and return how many octets that were: all. SOCKET: a DATAGRAM-SOCKET. HOST and PORT: where
to, a host as for OPEN-SOCKET and a port or a service, or the path of a local socket; NIL: where
SOCKET is connected to. A name is looked up at each call, its first address is taken. Sequenced
packets go to their one peer, whatever HOST is.
FROM, beside HOST: the address of this machine that the message comes from, a string or an address
object, such as the fifth value of SOCKET-RECEIVE on a socket with :PACKET-INFO (NIL: what SOCKET is
bound to, or else what the system picks by its routes). By the interface of that address leaves what
is for a group of IPv4, unless option :MULTICAST-INTERFACE says another one.
A message of no octets is one. That it was sent says nothing about its arrival.
Conditions: MESSAGE-TOO-LONG; CONNECTION-REFUSED, HOST-UNREACHABLE and their kin, what is known by
now of an earlier message, or, of a local name, of this one: this message was not sent, and SOCKET
works on; PATH-NOT-FOUND; TIMEOUT; SOCKET-CLOSED; of sequenced packets CONNECTION-LOST.
An unconnected socket is told of earlier messages only with the option :RECEIVE-ERRORS. Then
NETWORK-HOST and NETWORK-PORT are where that message went, which may be another host than this one
is for: who sends to many sends this message again.
With FROM: ADDRESS-NOT-AVAILABLE, this machine has no such address, or it is that of a group or of
a broadcast; USAGE-ERROR, HOST is of another family.
Where HOST or PORT cannot be told or looked up, or HOST is of another family than SOCKET:
ADDRESS-SYNTAX, RESOLVE-ERROR. Restarts of that: RETRY; USE-VALUE, another host or port.
Source: send(2), sendto(2)."
  (let ((messenger (messenger-of socket :send)))
    (check-destination messenger host port)
    (when from
      (check-from messenger host))
    (with-octets-of (vector first last) octets (start end) :send
      (let ((block (and host (destination-block messenger host (or port 0)))))
        (if from
            (send-message-from messenger vector first last block host port from)
            (send-message messenger vector first last block host port))))))

;;; Receiving

(defun sender-end (messenger block)
  "The end for BLOCK, which the system has filled in and which will be filled again."
  (let ((known (messenger-sender messenger)))
    (if (and known (= 1 (with-octets (new block)
                          (with-octets (old (end-block known))
                            (lport-address-equal new old)))))
        known
        (setf (messenger-sender messenger) (block-end (copy-seq block))))))

(declaim (inline message-received))
(defun message-received (messenger length room)
  "LENGTH, of a message that was received into ROOM octets, or a status; what was stored is
counted."
  (declare (type (signed-byte 64) length) (type index room))
  (note-answer messenger length)
  (when (>= length 0)
    (%add-atomically (messenger-octets-in messenger) (min length room)))
  length)

(declaim (inline receive-now))          ; likewise
(defun receive-now (messenger octets start end block flags)
  "Receive a message into OCTETS from START below END, and its sender into BLOCK if there is no
peer, without blocking, or with what PATIENCE says for FLAGS: its full length, or a status."
  (declare (type octets octets block) (type index start end) (type fixnum flags))
  (let ((room (- end start)))
    (call-nowait
      (message-received messenger
                        (with-octets (pointer octets start end :out)
                          (if (messenger-peer messenger)
                              (%lport-datagram-receive (channel-handle messenger) pointer room
                                                       (null-pointer) flags)
                              (with-octets (sender block)
                                (%lport-datagram-receive (channel-handle messenger) pointer room
                                                         sender flags))))
                        room))))

(defun fail-receive (messenger status)
  "Signal what STATUS of a receive says: END-OF-FILE, or its own condition."
  (let ((kind (lport-status-kind status)))
    (cond ((= kind +lport-end+) (error 'end-of-file :stream (channel-socket messenger)))
          ((and (= kind +lport-not-supported+) (zerop (lport-status-errno status)))
           (fail-as 'usage-error :receive :invalid
                    :socket (channel-socket messenger)
                    :message "expected a call of RECEIVE-BATCH, as messages may come joined"))
          (t (fail-message messenger status :receive)))))

(declaim (inline message-values))
(defun message-values (messenger block length room)
  "What SOCKET-RECEIVE returns of a message of LENGTH octets, for which there was ROOM, from BLOCK."
  (declare (type index length room))
  (let ((sender (or (messenger-peer messenger) (sender-end messenger block))))
    (values (min length room) (end-host sender) (end-port sender)
            (and (> length room) length))))

(defun receive-message (messenger octets start end until)
  (declare (type messenger messenger) (type index start end))
  (let* ((block (make-array +lport-address-size+ :element-type '(unsigned-byte 8)))
         (result (and (null until)
                      (in-time-p messenger :input)
                      (receiving-now (messenger) (flags)
                        (receive-now messenger octets start end block flags))))
         (length (cond ((typep result 'index) result)
                       ((or (null result) (would-block-p result))
                        (receive-message-slowly messenger octets start end block until))
                       (t (fail-receive messenger result)))))
    (declare (dynamic-extent block))
    (and length
         (message-values messenger block length (- end start)))))

(defun receive-message-slowly (messenger octets start end block until)
  "As RECEIVE-NOW, but waits for a message, until UNTIL, if that is a moment, and NIL then; and
signals what a status says."
  (values (receiving (messenger :receive (call-limit messenger :input)
                      :until until
                      :fail (lambda (status) (fail-receive messenger status)))
              (flags)
            (receive-now messenger octets start end block flags))))

(defun socket-receive (socket octets &key (start 0) end credentials wait)
  "Wait for the next message, store it into OCTETS, a vector of (unsigned-byte 8), from index START
below END (NIL: its length), and return 4 values: how many octets were stored; its sender's host, a
string, and port (of a local socket the path, \"\" for an unnamed one, and 0); its full length if
that is more and the rest was cut off, else NIL. The string is not to be changed. NIL when WAIT
seconds pass without one. WAIT NIL: wait as long as it takes; WAIT 0: take what is there or return
NIL, which a loop over a poller does until there is no more.
On a socket opened with :PACKET-INFO, or adopted with it, return 2 values more: the address that the
message was sent to, a string, and the name of the interface by which it came. The first is FROM for
an answer, unless it is a group or a broadcast address, from which nothing can be sent.
CREDENTIALS true, of a local socket: return 3 values more, the ids of the process that has sent this
message and of its real user and group, for which the system vouches, if option :PASS-CREDENTIALS of
SOCKET is on; else NIL thrice. A message that came before it was on is from process 0, and user and
group 65534, nobody. Descriptors that come with a message are closed, with and without CREDENTIALS.
SOCKET: a DATAGRAM-SOCKET. A message of no octets is 0, and no end of file; the end of a connection
of sequenced packets is the standard END-OF-FILE. Of several threads in this call each gets a
message of its own.
Conditions: TIMEOUT, when a deadline or the timeout of SOCKET passes, if WAIT does not end first;
SOCKET-CLOSED, when SOCKET is closed, by whomever; CONNECTION-REFUSED,
HOST-UNREACHABLE, MESSAGE-TOO-LONG and their kin, when a connected socket, or one with the option
:RECEIVE-ERRORS, is told so of an earlier message, with the host and port that it went to in the
latter case: it works on; of sequenced packets CONNECTION-LOST; NOT-SUPPORTED, CREDENTIALS of a
socket that is not local.
Restart: WAIT-LONGER. Source: recv(2), recvfrom(2), SCM_CREDENTIALS of unix(7)."
  (let ((messenger (messenger-of socket :receive)) (until (and wait (moment-after wait))))
    (with-octets-of (vector from to) octets (start end) :receive
      (cond (credentials (receive-from messenger vector from to until))
            ((messenger-packet-info messenger) (receive-arrival messenger vector from to until))
            (t (receive-message messenger vector from to until))))))
