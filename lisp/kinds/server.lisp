;;;; server - listening sockets and the connections that they hand out.

(in-package :port)

(defvar *listen-keywords* '()
  "The keywords of OPEN-SOCKET-SERVER.")

(defun open-socket-server (&rest arguments)
  "Listen for connections and return a SOCKET-SERVER.
PORT: 1 to 65535 or the name of a service; NIL or 0: any free port, see SOCKET-SERVER-HOST/PORT. It
may be left out in front of the keywords. HOST: a name, a literal, an ipaddr or an address of this
machine (NIL or \"::\": every interface, IPv4 and IPv6 alike). A server is one socket: of a name it
listens on the first address alone, where SERVE listens on all of them. FAMILY: :INET, or :INET6,
which is IPv6 only (NIL: both). BACKLOG: how many connections the system queues while nobody accepts
\(NIL: the system's maximum). REUSE-ADDRESS: listen on a recently closed address. REUSE-PORT: share
the port with other sockets that ask for it too. NODELAY and KEEPALIVE, as for OPEN-SOCKET, are
inherited by the connections. EXTERNAL-FORMAT: that of the connections.
OPTIONS: as for OPEN-SOCKET, set before the bind, as :V6-ONLY and :FREE-BIND need it. The system
gives them to the connections, too, but for a few, such as :PRIORITY.
PROXY-PROTOCOL: T if each connection begins with a header of the PROXY protocol, version 1 or 2, as
HAProxy and other proxies send it: SOCKET-HOST/PORT then gives the client behind the proxy and the
end that it connected to, SOCKET-PROXY-HOST/PORT the proxy. The header has to come within 5 seconds
of the accept, or as many as PROXY-PROTOCOL, a number, says. It is never guessed (NIL: there is
none), and whoever can connect can claim to be anybody: let only the proxy reach the port.
Conditions: ADDRESS-IN-USE, PERMISSION-DENIED, ADDRESS-NOT-AVAILABLE, ADDRESS-SYNTAX, RESOLVE-ERROR,
RESOURCE-EXHAUSTED; those of (SETF SOCKET-OPTION) for OPTIONS. Restarts: RETRY; USE-VALUE, another
port or, where HOST stands for nothing or is
not of this machine, another host. Source: bind(2), listen(2); proxy-protocol.txt of HAProxy."
  (let ((options (listen-options arguments)))
    (apply #'listen-on (and (not (eq options arguments)) (first arguments))
           (check-keywords :listen options *listen-keywords*))))

(defun listen-options (arguments)
  "The keywords and values of ARGUMENTS of OPEN-SOCKET-SERVER: an odd number of them begins with the
port. An even one that does has a mistake in what follows the port, which is found there."
  (if (or (oddp (length arguments))
          (and arguments (not (keywordp (first arguments)))))
      (rest arguments)
      arguments))

(defun listen-on (port &key host family backlog (reuse-address t) reuse-port
                         (external-format :utf-8) (nodelay t) (keepalive t) proxy-protocol options)
  "OPEN-SOCKET-SERVER with its arguments sorted out."
  (check-backlog backlog)
  (let ((presets (parse-presets options)))
    (with-retry (port "listen" "port")
      (with-retry (host "listen" "host" 'address-not-available)
        (opened-with presets
                     (listen-at (listening-block host (or port 0) family)
                                :backlog backlog :reuse-address reuse-address
                                :reuse-port reuse-port :nodelay nodelay :keepalive keepalive
                                :external-format external-format :proxy-protocol proxy-protocol
                                :presets presets)
                     :listen :host host :port port)))))

(setf *listen-keywords* (keywords-of 'listen-on))

(check-calls 'open-socket-server #'listen-options *listen-keywords*)

(%show-lambda-list 'open-socket-server `(&optional ,@(%lambda-list 'listen-on)))

(defun check-backlog (backlog)
  (check-argument :listen backlog '(or null (unsigned-byte 31))
                  "a backlog, 0 to 2147483647 connections, or NIL"))

(defun listening-block (host port family &key (protocol "tcp") (operation :listen))
  "The block to listen on: HOST and PORT as the user gave them; no HOST: the wildcard of FAMILY."
  (let ((number (port-designator port protocol operation :minimum 0))
        (family-number (family-designator family operation)))
    (bound-block (and host
                      (own-address (one-address host family operation) family))
                 number family-number)))

(defun make-listener (handle kind settings parsed)
  "The server around HANDLE; KIND, SETTINGS, a plist, and the same PARSED are those of its
connections."
  (make-instance 'socket-server :channel (make-channel :handle handle)
                                :kind kind :settings settings :parsed parsed))

(defun try-server (listen settings &optional (kind :stream))
  "The server around the handle that LISTEN returns, or the status that it returns; SETTINGS, a
plist, are those of its connections, KIND is theirs."
  (let ((parsed (apply #'parse-settings settings)))
    (open-endpoint listen
                   (lambda (handle)
                     (make-listener handle kind settings parsed)))))

(defun listen-at (block &key backlog reuse-address reuse-port nodelay keepalive external-format
                          proxy-protocol presets)
  "The server that listens on BLOCK and has PRESETS, or the status why there is none. The other
keywords as of OPEN-SOCKET-SERVER, checked."
  (let ((flags (flags-of +lport-reuse-address+ reuse-address +lport-reuse-port+ reuse-port
                         +lport-nodelay+ nodelay +lport-keepalive+ keepalive)))
    (try-server (lambda ()
                  (with-octets (pointer block)
                    (with-presets (rows count presets)
                      (lport-socket-listen pointer (or backlog -1) flags rows count))))
                (list :external-format external-format :proxy-protocol proxy-protocol))))

(defun socket-accept (server &rest settings
                      &key bin wait element-type external-format input-timeout output-timeout
                      &allow-other-keys)
  "Take the next connection from the queue of SERVER, a SOCKET-SERVER, and return it as a SOCKET, of
a server of :KIND :SEQPACKET as a DATAGRAM-SOCKET; NIL when WAIT seconds pass without one. WAIT NIL:
wait as long as it takes; WAIT 0: take what is queued or return NIL.
The system queues connections whether or not somebody is in this call; several threads may be.
BIN true: octets first of all, else characters; ELEMENT-TYPE, EXTERNAL-FORMAT (that of the server),
INPUT-TIMEOUT and OUTPUT-TIMEOUT as for OPEN-SOCKET.
Of a server with PROXY-PROTOCOL the header of the connection is read here, and waited for whatever
WAIT says, within its own limit; if it is bad or late the connection is closed with a PROXY-ERROR,
and the call may be made again. So it is with a TIMEOUT if WITH-DEADLINE, or the deadline or the
timeout of the server, ends before.
Conditions: SOCKET-CLOSED, when SERVER is closed, by whomever; TIMEOUT, when a deadline or the
timeout of the server passes; RESOURCE-EXHAUSTED, the connection stays in the queue. Restart:
WAIT-LONGER.
Source: accept4(2)."
  (declare (ignore bin element-type external-format input-timeout output-timeout))
  (check-server server :accept)
  (check-own-keywords 'socket-accept :accept settings)
  (let ((own (without-keys settings '(:wait))))
    (accept-until server
                  (if wait (moment-after wait) +never+)
                  (if own
                      (apply #'parse-settings (append own (server-settings server)))
                      (server-parsed-settings server)))))

(note-keywords 'socket-accept)

(defun accept-now (server settings &optional prepare)
  "The next connection as a socket with SETTINGS, once PREPARE has been called with it; or the
status why there is none."
  (let ((handle (endpoint-handle server))
        (kind (server-kind server))
        (peer (make-block)))
    (open-endpoint (lambda ()
                     (with-octets (pointer peer)
                       (lport-socket-accept handle pointer)))
                   (lambda (handle)
                     (make-link kind handle settings peer))
                   prepare)))

(defun accept-until (server moment settings)
  "The next connection of SERVER with SETTINGS; NIL once MOMENT has passed without one."
  (let* ((channel (endpoint-channel server))
         (limit (call-limit channel :input))
         (span (settings-header-span settings))
         (prepare (and span (lambda (socket) (accept-header server socket span limit)))))
    (loop
      (check-open channel :accept)
      (setf limit (check-deadline channel :input :accept limit 0))
      (let ((result (accept-now server settings prepare)))
        (cond ((not (integerp result)) (return result))
              ((not (would-block-p result)) (fail-on channel result :accept))
              (t (setf limit (or (await-input-until moment channel :accept limit 0)
                                 (return nil)))))))))

(defun socket-server-close (server)
  "Close SERVER: nobody can connect any more, threads in SOCKET-ACCEPT get SOCKET-CLOSED at once,
and the port can be listened on again. Connections that were accepted stay open. Idempotent. Returns
T.
Source: close(2)."
  (check-server server :close)
  (close server))

(defun call-with-socket-server (function server)
  "Call FUNCTION with SERVER and close it on every exit. Returns the values of FUNCTION."
  (call-and-close function server))

(defmacro with-socket-server ((variable port &rest options) &body body)
  "Run BODY with VARIABLE bound to a SOCKET-SERVER on PORT (see OPEN-SOCKET-SERVER, which takes
OPTIONS), and close it on every exit. Returns the values of BODY."
  `(call-with-socket-server (lambda (,variable) ,@body)
                            (open-socket-server ,port ,@options)))
