;;;; multicast - the groups that a datagram socket receives; RFC 1112, RFC 3678.
;;;;
;;;; What a socket sends to a group goes out as its options say: :MULTICAST-TTL,
;;;; :MULTICAST-INTERFACE, :MULTICAST-LOOP.

(in-package :port)

(defun group-p (address)
  "True if ADDRESS is that of a group: 224.0.0.0/4, ff00::/8."
  (let ((first (aref (address-octets address) 0)))
    (case (address-family address)
      (:inet (<= 224 first 239))
      (:inet6 (= first 255)))))

(defun group-address (group operation)
  (let ((target (host-designator group operation)))
    (if (and (address-p target) (group-p target))
        target
        (fail-syntax operation group
                     (format nil "the address of a group, 224.0.0.0 to 239.255.255.255, or one of ~
                                  IPv6 that begins with ff")))))

(defun source-address (source group operation)
  "The address of SOURCE, a host, in the family of GROUP."
  (let ((target (host-designator source operation))
        (family (address-family group)))
    (first (if (address-p target)
               (check-family (unmapped target) family operation :host source)
               (resolve target :family family)))))

(defun group-interface (interface group address operation)
  "The index of INTERFACE, or of the zone of ADDRESS, which GROUP is; 0 for neither. Signals
USAGE-ERROR where they contradict each other."
  (let ((zone (address-scope address)))
    (if (null interface)
        zone
        (let ((number (interface-number interface operation)))
          (unless (or (zerop zone) (= zone number))
            (fail-as 'usage-error operation :invalid :host group
                     :message "expected the interface that the zone of the group says, got ~S"
                     :arguments (list interface)))
          number))))

(defun change-membership (change socket group interface source operation)
  "Call CHANGE, the library's function to join or to leave, for SOCKET."
  (check-datagram-socket socket operation)
  (let* ((address (group-address group operation))
         (block (address-block address 0))
         (from (and source (address-block (source-address source address operation) 0)))
         (number (group-interface interface group address operation))
         (channel (endpoint-channel socket)))
    (check-open channel operation)
    ;; The system lets a socket of IPv6 only join groups of IPv4, and then delivers nothing.
    (let ((status (if (member (messenger-family channel) (list nil (address-family address)))
                      (with-octets (pointer block)
                        (with-optional-octets (sender from)
                          (funcall change (channel-handle channel) pointer number sender)))
                      (lport-status-make +lport-not-supported+))))
      (when (minusp status)
        (fail-of-kind socket status operation
                      (format nil "a UDP socket of family ~S or of both"
                              (address-family address))
                      :host group)))))

(defun join-multicast (socket group &rest options &key interface source &allow-other-keys)
  "Receive on SOCKET, a DATAGRAM-SOCKET of UDP, what is sent to GROUP and to the port of SOCKET.
GROUP: a multicast address of IPv4 or IPv6, a string or an address object. INTERFACE: the name or
the index of the one to listen on (NIL: that of GROUP's zone, or the system picks by its routes).
SOURCE: a host; only what it sends is received, and several may be joined one by one (NIL: whoever
sends). A socket that several programs on one host receive with is opened with :REUSE-ADDRESS, its
port given, and no :HOST. From the first join on SOCKET receives no group that only others on this
host have joined, as Linux would have it (IP_MULTICAST_ALL). But of a group of IPv6 that it has
joined it receives, too, what comes by another INTERFACE on which others have: Linux looks at the
group alone. Option :DEVICE keeps it to the one, :PACKET-INFO tells which it was. Returns NIL.
Conditions: ADDRESS-IN-USE, it is joined already; ADDRESS-NOT-AVAILABLE, no such interface;
ADDRESS-SYNTAX; USAGE-ERROR, INTERFACE is another one than the zone's; RESOURCE-EXHAUSTED;
NOT-SUPPORTED. Source: ip(7), ipv6(7), RFC 3678."
  (check-own-keywords 'join-multicast :join options)
  (change-membership #'lport-datagram-join socket group interface source :join))

(note-keywords 'join-multicast)

(defun leave-multicast (socket group &rest options &key interface source &allow-other-keys)
  "Receive no longer on SOCKET what is sent to GROUP: the end of what JOIN-MULTICAST with the same
arguments has begun. Closing SOCKET does it too. Returns NIL.
Conditions: ADDRESS-NOT-AVAILABLE, it is not joined; as for JOIN-MULTICAST. Source: RFC 3678."
  (check-own-keywords 'leave-multicast :leave options)
  (change-membership #'lport-datagram-leave socket group interface source :leave))

(note-keywords 'leave-multicast)
