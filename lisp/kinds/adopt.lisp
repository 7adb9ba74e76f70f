;;;; adopt - sockets around descriptors that somebody else has made, and those that the system hands
;;;; over.

(in-package :port)

(defun fail-adoption (fd expected got)
  "Signal the USAGE-ERROR that FD is GOT, a text, where EXPECTED was EXPECTED, another."
  (fail-as 'usage-error :adopt :invalid
           :message "expected ~A, got descriptor ~D, which is ~A"
           :arguments (list expected fd got)))

(defun inspect-descriptor (fd)
  "Values: the family, the kind and the bits of the state of FD. Signals USAGE-ERROR for what is no
socket that could be adopted."
  (let* ((result (lport-descriptor-inspect fd))
         (errno (and (minusp result) (lport-status-errno result))))
    (cond ((not (minusp result))
           (values (the keyword (number-family (ldb (byte 8 0) result)))
                   (the keyword (car (rassoc (ldb (byte 8 8) result) *kind-numbers*)))
                   (ash result -16)))
          ((= (lport-status-kind result) +lport-not-supported+)
           (fail result :adopt
                 :message "expected a TCP, UDP or local socket, got descriptor ~D, which is a ~
                           socket of another kind"
                 :arguments (list fd)))
          ((/= (lport-status-kind result) +lport-invalid+)
           (fail result :adopt))
          (t (fail result :adopt
                   :message "expected a descriptor of an open socket, got ~D, which ~A"
                   :arguments (list fd (adoption-problem errno)))))))

(defun adoption-problem (errno)
  "What is the matter with a descriptor that failed with ERRNO, 0 for none of the system's."
  (case errno
    (0 "belongs to a socket of PORT already")
    (9 "is not open")               ; EBADF of errno(3)
    (t "is no socket")))

(defun check-found (fd wanted found what)
  "Signal unless WANTED, a keyword or NIL for any, is FOUND in FD. WHAT: \"family\" or \"kind\"."
  (unless (or (null wanted) (eq wanted found))
    (fail-adoption fd (format nil "a socket of ~A ~S" what wanted)
                   (format nil "of ~A ~S" what found))))

(defun state-text (state)
  (cond ((logtest state +lport-state-listening+) "listening")
        ((logtest state +lport-state-connected+) "connected")
        (t "neither connected nor listening")))

(defun check-state (fd listening kind state)
  "Signal unless a socket can be made of FD, which is of KIND and in STATE, and it listens as
LISTENING (T, NIL or :ANY) says."
  (let ((found (logtest state +lport-state-listening+)))
    (cond ((and (eq listening t) (not found))
           (fail-adoption fd "a listening socket" (state-text state)))
          ((and (null listening) found)
           (fail-adoption fd "a socket that does not listen" "listening"))
          ((and (zerop state) (not (eq kind :datagram)))
           (fail-adoption fd "a connected or listening socket" (state-text state))))))

(defun check-descriptor (fd family kind listening)
  "Values: the family, the kind and the state of FD, if it is what FAMILY, KIND and LISTENING say."
  (check-argument :adopt fd '(unsigned-byte 31) "a file descriptor, an integer")
  (check-argument :adopt family '(member nil :inet :inet6 :local)
                  "a family, :INET, :INET6, :LOCAL or NIL for any")
  (check-argument :adopt kind '(member nil :stream :datagram :seqpacket)
                  "a kind, :STREAM, :DATAGRAM, :SEQPACKET or NIL for any")
  (check-argument :adopt listening '(member t nil :any) "T, NIL or :ANY for LISTENING")
  (multiple-value-bind (found-family found-kind state) (inspect-descriptor fd)
    (check-found fd family found-family "family")
    (check-found fd kind found-kind "kind")
    (check-state fd listening found-kind state)
    (values found-family found-kind state)))

(defun check-proxied (fd kind state)
  "Signal unless the connections that come from FD, of KIND and in STATE, can begin with a header."
  (unless (and (eq kind :stream) (logtest state +lport-state-listening+))
    (fail-as 'not-supported :adopt :not-supported
             :message "expected a listening socket of kind :STREAM for PROXY-PROTOCOL, ~
                       got descriptor ~D, which is ~A and of kind ~S"
             :arguments (list fd (state-text state) kind))))

(defun make-adopted (handle family kind state settings parsed)
  "The object around HANDLE, of FAMILY and KIND and in STATE, with SETTINGS, a plist, and the same
PARSED."
  (let ((peer (asked-block handle #'lport-socket-peer)))
    (cond ((logtest state +lport-state-listening+)
           (make-listener handle kind settings parsed))
          ((eq kind :stream)
           (make-connected-socket handle parsed peer))
          (t (make-datagram-socket handle parsed peer (messages-family handle family)
                                   (logtest state +lport-state-packet-info+))))))

(defun messages-family (handle family)
  "The family of the messages of HANDLE, of FAMILY; NIL for IPv6 and IPv4 alike."
  (if (and (eq family :inet6)
           (zerop (lport-option-get handle (option-index (option-named :v6-only)))))
      nil
      family))

(defun adopt-checked (fd family kind state settings parsed)
  "The object around FD, of FAMILY and KIND and in STATE, with the stream keywords SETTINGS, a
plist, and the same PARSED."
  (opened (open-endpoint (lambda () (lport-descriptor-adopt fd))
                         (lambda (handle)
                           (make-adopted handle family kind state settings parsed)))
          :adopt))

(defun adopt-descriptor (fd &rest settings
                         &key family kind (listening :any) bin element-type external-format
                           input-timeout output-timeout proxy-protocol
                         &allow-other-keys)
  "Make a socket of the file descriptor FD, an integer that some other part of the program has
opened or inherited, and return it: a SOCKET if it is a connected stream, a SOCKET-SERVER if it
listens, a DATAGRAM-SOCKET if it is of messages. It is checked to be what FAMILY (:INET, :INET6,
:LOCAL; NIL: any), KIND (:STREAM, :DATAGRAM, :SEQPACKET; NIL: any) and LISTENING (T, NIL or :ANY)
say. BIN, ELEMENT-TYPE, EXTERNAL-FORMAT, INPUT-TIMEOUT and OUTPUT-TIMEOUT as for OPEN-SOCKET; of a
server they are those of its connections. PROXY-PROTOCOL as for OPEN-SOCKET-SERVER, of a listening
stream only. A UDP socket is as one opened with :PACKET-INFO if FD has IP_PKTINFO of ip(7), or
IPV6_RECVPKTINFO, on, as with PassPacketInfo of systemd.socket(5).
From then on FD is the socket's own, close-on-exec and non-blocking, and closed with it; after a
failure it is the caller's still, and unchanged.
Conditions: USAGE-ERROR for a descriptor that is closed, no socket, not as wanted, or that a socket
of PORT has already; NOT-SUPPORTED for one of another family or kind, and for PROXY-PROTOCOL of what
does not listen for streams. Source: fcntl(2), socket(7)."
  (declare (ignore bin element-type external-format input-timeout output-timeout))
  (check-own-keywords 'adopt-descriptor :adopt settings)
  (let ((settings (without-keys settings '(:family :kind :listening))))
    (multiple-value-bind (family kind state) (check-descriptor fd family kind listening)
      (when proxy-protocol
        (check-proxied fd kind state))
      (adopt-checked fd family kind state settings (apply #'parse-settings settings)))))

(note-keywords 'adopt-descriptor)

;;; What the system hands over

(defconstant +first-descriptor+ 3 "SD_LISTEN_FDS_START of sd_listen_fds(3).")

(defun activation-name (index)
  "The name of the descriptor INDEX that was handed over, \"\" for none."
  (text-from (pointer cap)
    (lport-activation-name index pointer cap)))

(defun activated-servers (&rest settings
                          &key bin element-type external-format input-timeout output-timeout
                          &allow-other-keys)
  "Return the sockets that the service manager has opened for this process and handed over, a list
in its order of SOCKET-SERVERs (DATAGRAM-SOCKETs for datagrams; a SOCKET for a service that gets its
connections one by one; SERVE takes neither), and as second value the list of their names, strings;
NIL and NIL if there are none. The keywords are those of the connections, as for OPEN-SOCKET. The
variables LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES are removed then, so a second call returns NIL
and no child takes them for its own. Call it before other threads are started that read the
environment.
Conditions: USAGE-ERROR, NOT-SUPPORTED if the variables or a descriptor are not what they should be;
nothing is taken then. Source: sd_listen_fds(3), systemd.socket(5)."
  (declare (ignore bin element-type external-format input-timeout output-timeout))
  (check-own-keywords 'activated-servers :adopt settings)
  (let ((count (lport-activation-count))
        (parsed (apply #'parse-settings settings))) ; before anything is taken
    (when (minusp count)
      (fail count :adopt :message "LISTEN_PID or LISTEN_FDS of the environment is not a number"))
    (let* ((names (loop for index below count collect (activation-name index)))
           (found (loop for index below count
                        for fd = (+ +first-descriptor+ index)
                        collect (cons fd (multiple-value-list
                                          (check-descriptor fd nil nil :any))))))
      (when found
        (lport-activation-forget))
      (values (loop for (fd family kind state) in found
                    collect (adopt-checked fd family kind state settings parsed))
              names))))

(note-keywords 'activated-servers)
