;;;; batch - many datagrams by one system call, into and out of buffers that are used again.
;;;;
;;;; A batch has places of one size in one vector, so nothing is copied between a receive and the
;;;; send of an answer, and nothing is consed. Invariant: the places below USED have messages, each
;;;; with its length and the address block of the end that it came from or goes to; where own ends
;;;; are known, too, OWNED is true, and OWNS has a block of each, of no family for none.

(in-package :port)

(defstruct (datagram-batch (:constructor %make-datagram-batch) (:copier nil))
  "Room for messages that SEND-BATCH and RECEIVE-BATCH move together. Made by MAKE-DATAGRAM-BATCH,
for one thread at a time."
  (octets (octets-of-size 0) :type octets :read-only t)
  (lengths (int64s-of-size 0) :type int64s :read-only t)
  (blocks (octets-of-size 0) :type octets :read-only t)
  (size 0 :type index :read-only t)
  (capacity 0 :type index :read-only t)
  (used 0 :type index)
  (owned nil)
  (owns (octets-of-size 0) :type octets)) ; of no size until there was need

(document-functions
 '((datagram-batch-p "Return true if OBJECT is a DATAGRAM-BATCH.")
   (datagram-batch-octets "Return the vector in which the messages of BATCH stand, see
BATCH-MESSAGE. Its contents may be read and changed.")
   (datagram-batch-size "Return how many octets each message of BATCH has room for.")
   (datagram-batch-capacity "Return how many messages BATCH has room for.")))

(defun datagram-batch-count (batch)
  "Return how many messages are in BATCH."
  (check-batch batch :batch)
  (datagram-batch-used batch))

(defmethod print-object ((batch datagram-batch) stream)
  (print-plainly batch stream
                 (plain-format "~D of ~D message~:P" (datagram-batch-count batch)
                               (datagram-batch-capacity batch))
                 :identity t))

(defun make-datagram-batch (capacity &rest options &key (size 2048) &allow-other-keys)
  "Return a DATAGRAM-BATCH with room for CAPACITY messages (1 to 65536) of SIZE octets each (1 to
65536). It is empty."
  (check-own-keywords 'make-datagram-batch :batch options)
  (check-argument :batch capacity '(integer 1 65536) "a number of messages from 1 to 65536")
  (check-argument :batch size '(integer 1 65536) "a number of octets from 1 to 65536")
  (%make-datagram-batch :octets (octets-of-size (* capacity size))
                        :lengths (int64s-of-size capacity)
                        :blocks (octets-of-size (* capacity +lport-address-size+))
                        :size size :capacity capacity))

(note-keywords 'make-datagram-batch)

(defparameter *kinds-for-batches* "a UDP socket or a local datagram socket"
  "What kinds of socket move batches.")

(defun check-batch (object operation)
  (check-argument operation object 'datagram-batch "a DATAGRAM-BATCH"))

(defun check-batch-index (batch index)
  (check-argument :batch index 'index "the index of a message")
  (unless (< index (datagram-batch-count batch))
    (fail-as 'usage-error :batch :invalid
             :message "expected the index of one of ~D message~:P, got ~D"
             :arguments (list (datagram-batch-count batch) index))))

(defun clear-batch (batch)
  "Forget the messages in BATCH; return it."
  (check-batch batch :batch)
  (setf (datagram-batch-used batch) 0
        (datagram-batch-owned batch) nil)
  batch)

(defun batch-message (batch index)
  "Return where message INDEX of BATCH stands, as 4 values: the vector, which is that of
DATAGRAM-BATCH-OCTETS, the index of its first octet in it, the index after its last one, and its
full length if it was cut off, else NIL."
  (check-batch-index batch index)
  (let* ((start (* index (datagram-batch-size batch)))
         (length (aref (datagram-batch-lengths batch) index))
         (stored (min length (datagram-batch-size batch))))
    (values (datagram-batch-octets batch) start (+ start stored)
            (and (> length stored) length))))

(defun batch-block (blocks index)
  "A copy of the address block of message INDEX among BLOCKS."
  (let ((start (* index +lport-address-size+)))
    (subseq blocks start (+ start +lport-address-size+))))

(defun batch-destination-block (batch index)
  (batch-block (datagram-batch-blocks batch) index))

(defun batch-own-block (batch index)
  "A copy of the block of the own end of message INDEX of BATCH, or NIL."
  (when (datagram-batch-owned batch)
    (let ((block (batch-block (datagram-batch-owns batch) index)))
      (and (block-family block) block))))

(defun batch-end (batch index)
  "Return the end that message INDEX of BATCH came from or goes to as 2 values: host, a string, and
port; NIL and NIL for that which the socket is connected to."
  (check-batch-index batch index)
  (let ((block (batch-destination-block batch index)))
    (if (block-family block)
        (host-and-port block)
        (values nil nil))))

(defun batch-own-end (batch index)
  "Return the address of this machine that message INDEX of BATCH was sent to, if it was received on
a socket opened with :PACKET-INFO, or goes from, and the name of the interface by which it came, 2
values as of SOCKET-RECEIVE; NIL for what is not known, or left to the system."
  (check-batch-index batch index)
  (let ((block (batch-own-block batch index)))
    (if block
        (own-values block)
        (values nil nil))))

(defun path-given-p (host port)
  "True if HOST and PORT, as users give them, are a path: a pathname, a string that no host can be,
or one with the 0 that BATCH-END has beside a path."
  (and (member port '(nil 0))
       (typecase host
         (pathname t)
         (string (if port
                     (null (literal-address host :batch))
                     (or (find #\/ host) (eql 0 (position #\@ host))))))))

(defun batch-destination (host port)
  "The block for HOST and PORT, as users give them; of no family where HOST is NIL."
  (cond ((path-given-p host port) (path-block host :batch))
        ((and (null host) port)
         (fail-as 'usage-error :batch :invalid
                  :port port :message "expected :HOST beside :PORT ~S" :arguments (list port)))
        ((null host) (make-block))
        ((null port)
         (fail-as 'usage-error :batch :invalid
                  :host host :message "expected :PORT beside :HOST ~S, or a path with a slash"
                  :arguments (list host)))
        (t (let ((number (port-designator port "udp" :batch))
                 (target (host-designator host :batch)))
             (address-block (if (address-p target)
                                (unmapped target)
                                (first (resolve target)))
                            number)))))

;;; Own ends

(defun ensure-owns (batch)
  "See to it that BATCH has room for own ends."
  (when (zerop (length (datagram-batch-owns batch)))
    (setf (datagram-batch-owns batch)
          (octets-of-size (* (datagram-batch-capacity batch) +lport-address-size+)))))

(defun put-own (batch index block)
  "Make BLOCK, or NIL, the own end of message INDEX of BATCH, which is added."
  (when (and block (not (datagram-batch-owned batch)))
    (ensure-owns batch)
    (fill (datagram-batch-owns batch) 0)
    (setf (datagram-batch-owned batch) t))
  (when (datagram-batch-owned batch)
    (replace (datagram-batch-owns batch) (or block (make-block))
             :start1 (* index +lport-address-size+))))

(defun batch-source (from destination)
  "The block for FROM, as the user gave it, of a message to DESTINATION, a block; NIL for NIL."
  (when from
    (let ((family (block-family destination)))
      (unless (member family '(:inet :inet6))
        (fail-as 'usage-error :batch :invalid :message "expected :FROM beside :HOST and :PORT"))
      (own-block from family :batch))))

(defun batch-add (batch octets &key (start 0) end host port from)
  "Add the OCTETS, a vector of (unsigned-byte 8), from index START below END (NIL: its length) to
BATCH as one more message, to HOST and PORT as of SOCKET-SEND (NIL: where the socket is connected
to). Without a PORT, HOST is the path of a local socket: a pathname, or a string with a slash, or of
an abstract one, with a leading @. FROM, beside HOST and PORT: as of SOCKET-SEND. Returns its index.
Conditions: USAGE-ERROR, BATCH is full or OCTETS have no room; ADDRESS-SYNTAX, RESOLVE-ERROR."
  (let ((index (datagram-batch-count batch))
        (size (datagram-batch-size batch)))
    (with-octets-of (vector first last) octets (start end) :batch
      (unless (and (< index (datagram-batch-capacity batch)) (<= (- last first) size))
        (fail-as 'usage-error :batch :invalid
                 :message "expected at most ~D message~:P of at most ~D octets, got number ~D of ~D"
                 :arguments (list (datagram-batch-capacity batch) size (1+ index) (- last first))))
      (let* ((destination (batch-destination host port))
             (source (batch-source from destination)))
        (replace (datagram-batch-blocks batch) destination
                 :start1 (* index +lport-address-size+))
        (put-own batch index source))
      (copy-octets (datagram-batch-octets batch) (* index size) vector first last)
      (setf (aref (datagram-batch-lengths batch) index) (- last first)
            (datagram-batch-used batch) (1+ index)))
    index))

;;; Moving

(defun batch-octets-moved (batch start end)
  "The octets of the messages of BATCH from START below END."
  (loop for index from start below end
        sum (min (datagram-batch-size batch)
                 (the index (aref (datagram-batch-lengths batch) index)))
          of-type index))

(declaim (inline move-batch))           ; so that no pointer is consed
(defun move-batch (move move-owned messenger batch start count owned)
  "Call MOVE, the library's function, for COUNT messages of BATCH from START, or if OWNED
MOVE-OWNED, the one that moves own ends, too: how many, or a status."
  (let ((size (datagram-batch-size batch)) (place (* start +lport-address-size+)))
    (with-octets (octets (datagram-batch-octets batch) (* start size))
      (with-int64s (lengths (datagram-batch-lengths batch) start)
        (with-octets (blocks (datagram-batch-blocks batch) place)
          (if owned
              (with-octets (owns (datagram-batch-owns batch) place)
                (funcall move-owned (channel-handle messenger) octets size lengths blocks owns
                         count))
              (funcall move (channel-handle messenger) octets size lengths blocks count)))))))

(defun send-batch-now (messenger batch start count)
  "Send COUNT messages of BATCH from START without blocking: how many, or a status, which is
LPORT-BACKLOG-FULL, as of a single message, where the receiver of a local name has no room."
  (call-deferred
    (let ((sent (move-batch #'lport-datagram-send-batch #'lport-datagram-send-batch-from
                            messenger batch start count
                            (datagram-batch-owned batch))))
      (when (plusp sent)
        (%add-atomically (messenger-octets-out messenger)
                         (batch-octets-moved batch start (+ start sent)))
        (setf (messenger-expecting messenger) t))
      (if (and (eq (messenger-family messenger) :local) (would-block-p sent))
          (lport-status-make +lport-backlog-full+)
          sent))))

(defun send-batch-part (messenger batch start end limit moved)
  "Send messages of BATCH from START below END, one of them at least. Values: how many; LIMIT, or a
later one that the user asked for. MOVED: how many were sent before."
  (labels ((facts ()
             (batch-facts batch start end))
           (again (status limit)
             (cond ((await-full-receiver messenger status limit moved #'facts))
                   ((parted-p messenger status)
                    (send-to-parted messenger batch start moved)
                    (return-from send-batch-part (values 1 limit))))))
    (declare (dynamic-extent #'facts))
    (trying (messenger :output :send limit
             :moved moved :facts #'facts :again #'again
             :fail (lambda (status) (fail-send-batch messenger status batch start end moved)))
      (if (= start end)
          0
          (send-batch-now messenger batch start (- end start))))))

(defun batch-facts (batch start end)
  "What a condition says of the end of the first of the messages from START below END of BATCH."
  (when (< start end)
    (multiple-value-bind (host port) (batch-end batch start)
      (list :host host :port (and (plusp (or port 0)) port)))))

(defun send-batch (socket batch &key (start 0) end)
  "Send the messages of BATCH from index START below END (NIL: all) over SOCKET, a DATAGRAM-SOCKET,
each to its end (after RECEIVE-BATCH: to whom it came from, and if that was on a socket with
:PACKET-INFO from the address that it was sent to, unless that is one of many), and return how many
that were. Several go by one system call; those that follow each other with one length and one end
go as one, which the system or the network card takes apart, and so fast (UDP_SEGMENT).
On a failure NETWORK-OCTETS tells how many messages were sent, not octets: who goes on does so from
START plus that, with the same message where NETWORK-HOST and NETWORK-PORT are another one's, as of
SOCKET-SEND. Conditions: those of SOCKET-SEND. Source: sendmmsg(2), udp(7)."
  (let* ((messenger (messenger-of socket :send))
         (end (check-batch-bounds batch start end))
         (limit (call-limit messenger :output))
         (sent start) (count 0))
    ;; Once for no messages, too, as a closed socket and a deadline that has passed are told of.
    (loop
      (multiple-value-setq (count limit)
        (send-batch-part messenger batch sent end limit (- sent start)))
      (incf sent count)
      (when (= sent end)
        (return (- end start))))))

(defun send-to-parted (messenger batch index moved)
  "Send message INDEX of BATCH, which the system knows no peer of MESSENGER for any more."
  (multiple-value-bind (octets start end) (batch-message batch index)
    (send-message messenger octets start end nil nil nil moved)))

(defun check-batch-end (messenger batch index moved)
  "Signal USAGE-ERROR if message INDEX of BATCH goes to a path, and those of MESSENGER to hosts, or
the reverse; HOST-NOT-FOUND if they go to hosts of another family."
  (let* ((block (batch-destination-block batch index))
         (family (block-family block))
         (wanted (messenger-family messenger))
         (local-p (eq wanted :local)))
    (cond ((null family))
          ((not (eq local-p (eq family :local)))
           (fail-as 'usage-error :send :invalid
                    :socket (channel-socket messenger) :octets moved
                    :message "expected messages to ~:[hosts and ports~;paths of local sockets~], ~
                              got number ~D to ~A"
                    :arguments (list local-p index (block-text block))))
          (t (apply #'check-family (block-address block) wanted :send
                    :socket (channel-socket messenger) :octets moved
                    (batch-facts batch index (1+ index)))))))

(defun check-batch-lengths (messenger batch start end moved)
  "Signal USAGE-ERROR if one of the messages of BATCH from START below END is not whole."
  (loop for index from start below end
        for length = (aref (datagram-batch-lengths batch) index)
        when (> length (datagram-batch-size batch))
          do (fail-as 'usage-error :send :invalid
                      :socket (channel-socket messenger) :octets moved
                      :message "expected messages of at most ~D octets, got number ~D, cut off ~
                                from ~D octets when it was received"
                      :arguments (list (datagram-batch-size batch) index length))))

(defun check-batch-source (messenger status batch index moved)
  "As CHECK-SOURCE, of message INDEX of BATCH."
  (let ((own (batch-own-block batch index)))
    (when own
      (apply #'check-source messenger status (own-values own)
             :octets moved (batch-facts batch index (1+ index))))))

(defun fail-send-batch (messenger status batch start end moved)
  "Signal what STATUS of sending the messages of BATCH from START below END says, the first of which
has met it, after MOVED of them were sent."
  (check-earlier messenger status :send moved)
  (check-batch-end messenger batch start moved)
  (check-batch-lengths messenger batch start end moved)
  (check-batch-source messenger status batch start moved)
  (apply #'fail-of-kind (channel-socket messenger) status :send *kinds-for-batches*
         :octets moved (batch-facts batch start end)))

(defun check-batch-bounds (batch start end)
  "END, or for NIL the count of BATCH. Signals USAGE-ERROR if BATCH is no batch, and if START and
END do not bound a part of it."
  (check-batch batch :send)
  (let ((end (or end (datagram-batch-count batch))))
    (unless (and (typep start 'index) (typep end 'index)
                 (<= start end (datagram-batch-count batch)))
      (fail-as 'usage-error :send :invalid
               :message "expected bounds among ~D message~:P, got ~S and ~S"
               :arguments (list (datagram-batch-count batch) start end)))
    end))

(defun receive-batch-now (messenger batch)
  "Receive what is there into BATCH without blocking: how many messages, or a status."
  (call-deferred
    (let ((count (move-batch #'lport-datagram-receive-batch #'lport-datagram-receive-batch-at
                             messenger batch 0 (datagram-batch-capacity batch)
                             (messenger-packet-info messenger))))
      (note-answer messenger count)
      (when (plusp count)
        (setf (datagram-batch-used batch) count
              (datagram-batch-owned batch) (messenger-packet-info messenger))
        (%add-atomically (messenger-octets-in messenger) (batch-octets-moved batch 0 count)))
      count)))

(defun receive-batch (socket batch &key wait)
  "Wait for messages on SOCKET, a DATAGRAM-SOCKET, put those that are there into BATCH in place of
what it had, at most as many as it has room for, and return how many: one or more; NIL, and BATCH is
as before, when WAIT seconds pass without one. WAIT NIL: wait as long as it takes; WAIT 0: take what
is there or return NIL. BATCH-MESSAGE and BATCH-END tell of each, and BATCH-OWN-END where SOCKET was
opened with :PACKET-INFO true. On a socket opened with :JOINED true BATCH has to have room for at
least 128 messages and 65536 octets; each 128 of them take what comes as one, so ten times that is
better. It pays where senders send as SEND-BATCH does or a network card joins what it gets; of
messages that come one by one a call gets fewer then, and costs more.
Conditions: those of SOCKET-RECEIVE; USAGE-ERROR, BATCH is too small for that; NOT-SUPPORTED, for
sequenced packets. Source: recvmmsg(2), UDP_GRO of udp(7)."
  (let ((messenger (messenger-of socket :receive)) (until (and wait (moment-after wait))))
    (check-batch batch :receive)
    (when (messenger-packet-info messenger)
      (ensure-owns batch))
    (values (trying (messenger :input :receive (call-limit messenger :input)
                     :until until
                     :fail (lambda (status) (fail-receive-batch messenger status batch)))
              (receive-batch-now messenger batch)))))

(defun fail-receive-batch (messenger status batch)
  "Signal what STATUS of receiving into BATCH says."
  (when (and (= (lport-status-kind status) +lport-invalid+) (zerop (lport-status-errno status)))
    (fail-as 'usage-error :receive :invalid
             :socket (channel-socket messenger)
             :message "expected room for at least 128 messages and 65536 octets, as messages may ~
                       come joined, got ~D of ~D"
             :arguments (list (datagram-batch-capacity batch) (datagram-batch-size batch))))
  (check-earlier messenger status :receive)
  (fail-of-kind (channel-socket messenger) status :receive *kinds-for-batches*))
