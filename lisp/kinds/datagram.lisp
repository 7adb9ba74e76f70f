;;;; datagram - sockets that keep the boundaries of messages: how UDP sockets are opened, and how
;;;; objects are made around handles of all kinds; message.lisp has what they do.

(in-package :port)

(defun make-datagram-socket (handle settings remote family &optional packet-info)
  "The datagram socket around HANDLE, for messages of FAMILY; REMOTE is the block of its peer, or
NIL. PACKET-INFO true: it is told where messages were sent to."
  (make-instance 'datagram-socket
                 :remote remote
                 :channel (make-messenger :handle handle
                                          :family family
                                          :packet-info packet-info
                                          :peer (and remote (block-end remote))
                                          :input-timeout (settings-input-timeout settings)
                                          :output-timeout (settings-output-timeout settings))))

(defun adopt-datagram (open settings remote family &optional packet-info)
  "The datagram socket around the handle that OPEN returns, or its status."
  (open-endpoint open
                 (lambda (handle)
                   (make-datagram-socket handle settings
                                         (and remote (peer-block handle remote)) family
                                         packet-info))))

(defun open-datagram (local remote flags settings family presets)
  "A datagram socket with the blocks LOCAL and REMOTE (or NIL) for its ends, and with PRESETS, or a
status."
  (adopt-datagram (lambda ()
                    (with-octets (own local)
                      (with-optional-octets (peer remote)
                        (with-presets (rows count presets)
                          (lport-datagram-open own peer flags rows count)))))
                  settings remote family (logtest +lport-packet-info+ flags)))

(defun open-datagram-socket (&rest keywords
                             &key host port remote-host remote-port family broadcast
                               reuse-address reuse-port joined packet-info input-timeout
                               output-timeout options
                             &allow-other-keys)
  "Open a UDP socket and return it, a DATAGRAM-SOCKET.
HOST and PORT are its own end: an address of this machine (NIL or \"::\": every one), and 1 to 65535
or the name of a service (NIL or 0: any free port, see SOCKET-HOST/PORT). Without a remote end it
sends to whom SOCKET-SEND says and receives from everybody; without HOST over IPv4 and IPv6 alike,
unless FAMILY, :INET or :INET6, chooses one. With REMOTE-HOST and REMOTE-PORT it is connected: it
sends there, receives only from there, and reports CONNECTION-REFUSED and its kin when the other
side says so (ICMP), once, at the next send or receive, and works on; HOST-UNREACHABLE and
NETWORK-UNREACHABLE mostly with the option :RECEIVE-ERRORS alone.
BROADCAST true: may send to broadcast addresses. REUSE-ADDRESS, REUSE-PORT: share the port with
sockets that do so too, as receivers of multicast do. JOINED true: only RECEIVE-BATCH receives on
it, and the system may hand over to that as one what came from one sender in messages of one length
(UDP_GRO), for half the time a message; see there. PACKET-INFO true: SOCKET-RECEIVE and
RECEIVE-BATCH also tell which address of this machine each message was sent to (IP_PKTINFO), which a
server without HOST answers from. INPUT-TIMEOUT, OUTPUT-TIMEOUT: see SOCKET-TIMEOUT. OPTIONS: as for
OPEN-SOCKET, set before the bind.
Conditions: ADDRESS-IN-USE, ADDRESS-NOT-AVAILABLE, PERMISSION-DENIED, ADDRESS-SYNTAX, RESOLVE-ERROR,
NETWORK-UNREACHABLE, USAGE-ERROR, RESOURCE-EXHAUSTED; those of (SETF SOCKET-OPTION) for OPTIONS.
Where it is the own end beside a remote one that is not to be had, they tell it as of OPEN-SOCKET.
Restarts: RETRY; USE-VALUE, another remote host or, without one, another port; where REMOTE-PORT,
HOST or PORT is what is wrong, another one of that. Source: socket(2), bind(2), connect(2), udp(7)."
  (check-own-keywords 'open-datagram-socket :open keywords)
  (let ((presets (parse-presets options))
        (settings (parse-settings :input-timeout input-timeout :output-timeout output-timeout))
        (flags (flags-of +lport-broadcast+ broadcast +lport-reuse-address+ reuse-address
                         +lport-reuse-port+ reuse-port +lport-joined+ joined
                         +lport-packet-info+ packet-info)))
    (check-remote-end remote-host remote-port)
    (if remote-host
        (with-retry (remote-host "connect" "host")
          (with-own-end-retry (host port)
            (open-connected (udp-origin host port family)
                            remote-host remote-port flags settings presets)))
        (with-retry (port "bind" "port")
          (with-retry (host "bind" "host" 'address-not-available)
            (open-bound (own-end host port family) host port flags settings presets))))))

(note-keywords 'open-datagram-socket)

(defun check-remote-end (host port)
  (unless (eq (null host) (null port))
    (fail-as 'usage-error :connect :invalid
             :host host :port port
             :message "expected :REMOTE-HOST and :REMOTE-PORT, or neither of them")))

(defun own-end (host port family)
  "The block to bind to: HOST and PORT as the user gave them; no HOST: the wildcard of FAMILY."
  (listening-block host (or port 0) family :protocol "udp" :operation :bind))

(defun udp-origin (host port family)
  "The own end of a socket that is connected: HOST and PORT as the user gave them, NIL for none."
  (make-origin host port (list (own-end host (local-port-number port "udp") family))))

(defun open-bound (local host port flags settings presets)
  (opened-with presets
               (open-datagram local nil flags settings (block-family local) presets)
               :bind :host host :port port))

(defun open-connected (own host port flags settings presets)
  "A socket connected to the first address of HOST to which there is a way from OWN, an own end."
  (let ((local (first (origin-blocks own)))
        (number (with-retry (port "connect" "port")
                  (port-designator port "udp" :connect)))
        (failures '()))
    (dolist (address (remote-addresses own host port))
      (let* ((block (address-block address number))
             (socket (open-datagram local block flags settings (address-family address)
                                    presets)))
        (unless (integerp socket)
          (return-from open-connected socket))
        (push (cons block socket) failures)))
    (fail-connected (reverse failures) own host port flags presets)))

(defun fail-connected (failures own host port flags presets)
  "Signal what the first of FAILURES, each (block . status), says of a connect from OWN to HOST and
PORT."
  (destructuring-bind (block . status) (first failures)
    (apply #'opened-with presets status
           (append (facts-of-connect status own block host port)
                   (list :attempts (loop for (block . status) in failures
                                         collect (attempt-at block status own presets))
                         :unicast (not (logtest +lport-broadcast+ flags)))))))

(defun attempt-at (block status own presets)
  "(address . condition) of the attempt from OWN to BLOCK, with PRESETS, that came to STATUS."
  (let ((address (block-address block)))
    (cons address
          (or (preset-failure presets status)
              (apply #'status-condition status
                     (facts-of-connect status own block
                                       (princ-to-string address) (block-port block)))))))

(defun facts-of-connect (status own block host port)
  "The operation of an attempt from OWN to BLOCK that came to STATUS, then the initargs that tell
its ends: those of OWN, or HOST and PORT."
  (if (= 1 (lport-status-own status))
      (own-end-facts own (block-in-family (first (origin-blocks own)) block) block)
      (list :connect :host host :port port)))

(defun block-in-family (local remote)
  "LOCAL, an own end, or where that is the wildcard of no family, that of the family of REMOTE."
  (if (block-family local)
      local
      (make-block (family-number (block-family remote)) (block-port local))))

(defun remote-addresses (own host port)
  "The addresses of HOST, at least one, to which there is a way from OWN, an own end; PORT is for
conditions."
  (let* ((local (first (origin-blocks own)))
         (target (host-designator host :connect))
         (family (block-family local)))
    (cond ((stringp target) (resolve-name target family nil))
          (t (check-zone target host :connect local)
             (check-own-family (unmapped target) family own host port)))))

(defun check-own-family (address family own host port)
  "A list of ADDRESS, which HOST and PORT stand for, if it is of FAMILY, that of OWN, or NIL for
any; where an own end has been asked for, a connect of TCP says the same."
  (cond ((or (null (origin-host own)) (member family (list nil (address-family address))))
         (check-family address family :connect :host host))
        (t (apply #'fail-as 'address-not-available :connect :address-not-available
                  :host host :port port (family-facts own)))))

(defun call-with-datagram-socket (function socket)
  "Call FUNCTION with SOCKET and close it on every exit. Returns the values of FUNCTION."
  (call-and-close function socket))

(defmacro with-datagram-socket ((variable &rest options) &body body)
  "Run BODY with VARIABLE bound to a datagram socket (see OPEN-DATAGRAM-SOCKET, which takes
OPTIONS), and close it on every exit. Returns the values of BODY."
  `(call-with-datagram-socket (lambda (,variable) ,@body)
                              (open-datagram-socket ,@options)))

(defun make-link (kind handle settings remote)
  "The socket of KIND, one of those that are connected, around HANDLE."
  (if (eq kind :stream)
      (make-connected-socket handle settings remote)
      (make-datagram-socket handle settings remote :local)))
