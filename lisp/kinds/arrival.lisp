;;;; arrival - which of the addresses of this host a message over UDP was sent to, and from which
;;;; one an answer goes.
;;;;
;;;; A server on the wildcard is asked at any of them, and the system would answer from the one that
;;;; its routes say; who asked then does not know the answer for one. Invariant: what is remembered
;;;; is an END, as in message.lisp; for a message that comes as the last one did nothing is
;;;; allocated.

(in-package :port)

(defstruct (arrival (:include end) (:constructor make-arrival (block host interface))
                    (:copier nil) (:predicate nil))
  "An own end that a message came to. Its BLOCK is one of the library, with the index of the
interface in it."
  (interface nil :read-only t))

(defun plain-own-block (block)
  "BLOCK, an own end as the library tells it, as an address block."
  (let ((plain (subseq block 0)))
    (setf (aref plain 1) 0)
    (unless (zoned-p (literal-block-address plain))
      (put-number 0 plain 4 4))
    plain))

(defun own-values (block)
  "Values: the host, a string, and the name of the interface that BLOCK, an own end as the library
tells it, says; NIL and NIL for none."
  (if (block-family block)
      (values (host-and-port (plain-own-block block))
              (let ((index (block-scope block)))
                (and (plusp index) (interface-text index))))
      (values nil nil)))

(defconstant +own-octets+ 24 "Octets of a block that an own end can differ in.")

(defun same-own-p (a b)
  (declare (type octets a b))
  (dotimes (index +own-octets+ t)
    (unless (= (aref a index) (aref b index))
      (return nil))))

(defun arrival-of (messenger block)
  "The arrival for BLOCK, which the system has filled in and which will be filled again."
  (let ((known (messenger-arrival messenger)))
    (if (and known (same-own-p (end-block known) block))
        known
        (multiple-value-bind (host interface) (own-values block)
          (setf (messenger-arrival messenger)
                (make-arrival (copy-seq block) host interface))))))

;;; Receiving

(defun receive-arrival-now (messenger octets start end block own flags)
  "As RECEIVE-NOW; where the message was sent to goes into OWN."
  (declare (type octets octets block own) (type index start end) (type fixnum flags))
  (let ((room (- end start)))
    (call-nowait
      (message-received messenger
                        (with-octets (pointer octets start end :out)
                          (with-octets (sender block)
                            (with-octets (arrival own)
                              (%lport-datagram-receive-at (channel-handle messenger) pointer room
                                                          sender arrival flags))))
                        room))))

(defun receive-arrival (messenger octets start end until)
  "What SOCKET-RECEIVE returns on a socket with :PACKET-INFO; UNTIL is the moment of its WAIT."
  (let ((block (make-array +lport-address-size+ :element-type '(unsigned-byte 8)))
        (own (make-array +lport-address-size+ :element-type '(unsigned-byte 8))))
    (declare (dynamic-extent block own))
    (let ((length (receiving (messenger :receive (call-limit messenger :input)
                              :until until
                              :fail (lambda (status) (fail-receive messenger status)))
                      (flags)
                    (receive-arrival-now messenger octets start end block own flags))))
      (when length
        (multiple-value-bind (count host port full)
            (message-values messenger block length (- end start))
          (let ((arrival (arrival-of messenger own)))
            (values count host port full (end-host arrival) (arrival-interface arrival))))))))

;;; Sending

(defun literal-own-address (host operation)
  "The address that HOST, an own end as the user gave it, is or spells."
  (let ((address (host-designator host operation)))
    (unless (address-p address)
      (fail-as 'address-syntax operation :address-syntax
               :message "expected an address of this machine, and no name, as :FROM, got ~S"
               :arguments (list host)))
    (check-zone address host operation)
    (unmapped address)))

(defun own-block (host family operation)
  "The block of HOST, an own end as the user gave it, for a message to an address of FAMILY."
  (let ((address (literal-own-address host operation)))
    (unless (eq (address-family address) family)
      (fail-as 'usage-error operation :invalid
               :message "expected :FROM of family ~S, as :HOST is, got ~A"
               :arguments (list family address)))
    (address-block address 0)))

(defun check-from (messenger host)
  "Signal USAGE-ERROR if messages of MESSENGER to HOST cannot go from an own end of their own."
  (when (or (messenger-peer messenger) (eq (messenger-family messenger) :local) (null host))
    (fail-destination messenger "expected :FROM beside :HOST and :PORT, on a UDP socket that is ~
                                 not connected")))

(defun source-end (messenger from family)
  "The end that FROM, as the user gave it, is, for a message to an address of FAMILY."
  (let ((arrival (messenger-arrival messenger)) (source (messenger-source messenger)))
    (cond ((and arrival (end-of-p arrival from 0) (eq (block-family (end-block arrival)) family))
           arrival)
          ((and source (end-of-p source from 0) (eq (block-family (end-block source)) family))
           source)
          (t (setf (messenger-source messenger)
                   (make-end (own-block from family :send)
                             (if (stringp from) (copy-seq from) from)
                             0))))))

(defun send-from-now (messenger octets start end block own)
  "As SEND-NOW, from OWN."
  (declare (type octets octets block own) (type index start end))
  (call-nowait
    (message-sent messenger
                  (with-octets (pointer octets start end :in)
                    (with-octets (address block 0 nil :in)
                      (with-octets (source own 0 nil :in)
                        (%lport-datagram-send-from (channel-handle messenger) pointer (- end start)
                                                   address source)))))))

(defun check-source (messenger status from &rest facts)
  "Signal ADDRESS-NOT-AVAILABLE, with FACTS in it, if that is what STATUS says of a message from
FROM, as the user gave it."
  (when (= (lport-status-kind status) +lport-address-not-available+)
    (apply #'fail-on messenger status :send
           :message "expected an address of this machine alone as :FROM, got ~A"
           :arguments (list from)
           facts)))

(defun send-message-from (messenger octets start end block host port from)
  "As SEND-MESSAGE, from FROM, as the user gave it."
  (let ((own (end-block (source-end messenger from (block-family block))))
        (facts (list :host host :port port)))
    (declare (dynamic-extent facts))
    (values (trying (messenger :output :send (call-limit messenger :output)
                     :facts facts
                     :fail (lambda (status)
                             (check-earlier messenger status :send)
                             (apply #'check-source messenger status from facts)
                             (apply #'fail-on messenger status :send facts)))
              (send-from-now messenger octets start end block own)))))
