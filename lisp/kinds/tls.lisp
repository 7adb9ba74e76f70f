;;;; tls - TLS on a connection that is there, and connections that begin with it.
;;;;
;;;; The library keeps TLS below the handle of a socket, so every operation on one with TLS is that
;;;; on one without. What differs is told by the mark SECURE of a connection: octets that were taken
;;;; may be held there still, and what is ready may be nothing for the user.

(in-package :port)

;;; Sessions

(defun host-name-p (object)
  "True if OBJECT is a name as DNS has it, in which what is not ASCII is spelled \"xn--\"."
  (and (stringp object)
       (plusp (length object))
       (char/= #\. (char object 0))
       (every (lambda (character) (< (char-code character) 128)) object)))

(defun expected-name (host)
  "HOST, whom a client expects, as TLS has it: a name, without the dot that may end it, or the text
of an address; NIL for none."
  (typecase host
    (null nil)
    ((satisfies host-name-p) (string-right-trim "." host))
    (address (princ-to-string host))
    ((unsigned-byte 128) (princ-to-string (integer-address host)))
    (t (fail-argument :tls host '(or null (satisfies host-name-p) address (unsigned-byte 128))
                      "the name, in ASCII, or the address of a host"))))

(defun check-tls (context side host)
  "Values: CONTEXT, or the default, and the name that SIDE expects. Signals what is wrong with these
arguments of START-TLS."
  (check-argument :tls side '(member :client :server) "a side, :CLIENT or :SERVER")
  (check-argument :tls context (if (eq side :client) '(or null tls-context) 'tls-context)
                  "a TLS-CONTEXT")
  (check-argument :tls host (if (eq side :client) t 'null) "no HOST at a server")
  (when (eq side :server)
    (check-identity context))
  (let ((context (or context (client-context))))
    (unless (or host (eq side :server) (null (tls-context-verify context)))
      (fail-argument :tls host '(or string address (unsigned-byte 128))
                     "a HOST that the server has to be, or a context with :VERIFY NIL"))
    (context-handle context)            ; is it open?
    (values context (expected-name host))))

(defun start-session (connection handle side name)
  "What lport_tls_start says."
  (with-text (text length name)
    (with-octets (early (connection-in connection) (connection-in-start connection)
                        (connection-in-end connection) :in)
      (lport-tls-start (connection-handle connection) handle
                       (ecase side
                         (:client +lport-tls-client+)
                         (:server +lport-tls-server+))
                       text length early (buffered-input connection)))))

(defun begin-session (connection context side name)
  "Put a session of CONTEXT on CONNECTION. What was read ahead is the beginning of TLS."
  (let* ((handle (context-handle context))
         (status (call-deferred
                   (let ((status (start-session connection handle side (or name ""))))
                     (unless (minusp status)
                       (forget-input connection)
                       (setf (connection-secure connection) (list context side name)))
                     status))))
    (when (minusp status)
      (fail-on connection status :handshake))))

(defun check-begun (socket context side name)
  "Signal a USAGE-ERROR if the handshake that was left on SOCKET is another one: it would not show
what this call has to be shown."
  (unless (equal (connection-secure (socket-connection socket)) (list context side name))
    (fail-as 'usage-error :handshake :invalid :socket socket
             :message "expected the arguments of the handshake that has begun, got others")))

(defun handshake-step (connection)
  "Go on with the handshake of CONNECTION as far as that can be done now: the direction that it
waits for, or NIL once it is done."
  (let ((result (call-deferred
                  (let ((result (lport-tls-step (connection-handle connection))))
                    (when (zerop result)
                      (setf (connection-secure connection) t
                            (connection-expecting connection) nil))
                    result))))
    (cond ((zerop result) nil)
          ((minusp result) (fail-on connection result :handshake))
          ((= result +lport-output+) :output)
          (t :input))))

(defun later-limits (later limit output-limit)
  "Values: LIMIT and OUTPUT-LIMIT; LATER in the place of either that is sooner, where the user has
asked for that after the sooner one of them."
  (declare (type moment later limit output-limit))
  (if (> later (min limit output-limit))
      (values (max later limit) (max later output-limit))
      (values limit output-limit)))

(defun shake-hands (connection limit output-limit)
  "Drive the handshake of CONNECTION until it is done, by LIMIT; what waits to be sent waits by
OUTPUT-LIMIT too."
  (declare (type moment limit output-limit))
  (loop
    (check-open connection :handshake)
    (setf limit (check-deadline connection :input :handshake limit 0))
    (ecase (handshake-step connection)
      ((nil) (return))
      (:input (setf limit (await connection :input :handshake limit 0)))
      (:output (multiple-value-setq (limit output-limit)
                 (later-limits (await connection :output :handshake (min limit output-limit) 0)
                               limit output-limit))))))

(defun secure (socket context side name)
  "Begin TLS on SOCKET, or go on with a handshake that was left."
  (let ((connection (socket-connection socket)))
    (with-input (connection)
      (with-output (connection)
        (check-writable connection)
        (let ((limit (call-limit connection :input))
              (output-limit (call-limit connection :output)))
          (cond ((connection-secure connection) (check-begun socket context side name))
                (t (multiple-value-setq (limit output-limit)
                     (later-limits (nth-value 1 (flush connection
                                                       :limit (min limit output-limit)))
                                   limit output-limit))
                   (begin-session connection context side name)))
          (shake-hands connection limit output-limit))))))

(defun start-tls (socket &rest options &key context (side :client) host timeout &allow-other-keys)
  "Make all that is said on SOCKET, a connected one, from here on TLS, and return SOCKET once both
sides have agreed: it is the same stream as before. What was written before is sent first, as it is;
what the other side has sent and has not been read is taken for the beginning of TLS, never for what
was said under it. SIDE: :CLIENT, or :SERVER for the one that waits for the other to begin. CONTEXT:
a TLS-CONTEXT; a server's has a certificate; NIL, at a client, is one that trusts whom this machine
trusts. HOST, at a client: whom to expect, a name or an address, which the certificate of the server
has to be for; the server is told a name. Only where CONTEXT verifies nobody it may be NIL. TIMEOUT:
seconds for the handshake (NIL: the timeouts and deadlines of SOCKET that hold anyway).
A handshake that has timed out goes on where the same call is made again; one that has failed is
final, and then SOCKET is good for nothing but to be closed. The end that the other side tells of is
end of file; one that comes without, as somebody in between could make it, is CONNECTION-TRUNCATED.
Conditions: CERTIFICATE-ERROR, the other side is not shown to be HOST; TLS-ERROR; TIMEOUT;
CONNECTION-LOST; USAGE-ERROR where SOCKET has TLS already, or has begun it by another call.
Restart: WAIT-LONGER. Source: RFC 8446, RFC 9525, SSL_do_handshake(3ssl)."
  (check-own-keywords 'start-tls :tls options)
  (check-socket socket :handshake)
  (check-timeout timeout)
  (check-open (socket-connection socket) :handshake)
  (when (eq t (connection-secure (socket-connection socket)))
    (fail-as 'usage-error :handshake :invalid :socket socket
             :message "expected a socket without TLS, got one that has it"))
  (multiple-value-bind (context name) (check-tls context side host)
    (with-deadline (timeout)
      (secure socket context side name)))
  socket)

(note-keywords 'start-tls)

;;; Connections that begin with it

(defparameter *tls-keywords* (list* :context :server-name *connect-keywords*)
  "The keywords of OPEN-TLS-SOCKET.")

(defun open-tls-socket (host port &rest options &key context (server-name host) timeout
                                                  &allow-other-keys)
  "Connect to PORT of HOST as OPEN-SOCKET does, begin TLS as START-TLS does, and return the SOCKET.
CONTEXT: a TLS-CONTEXT; NIL: one that trusts whom this machine trusts. SERVER-NAME: whom to expect,
a name or an address, if that is not HOST; NIL only where CONTEXT verifies nobody. TIMEOUT: seconds
for all of it (NIL: no limit). The other keywords are those of OPEN-SOCKET.
Conditions: those of OPEN-SOCKET, none of whose restarts is there during the handshake, and of
START-TLS; the connection is closed then. Source: RFC 8446, RFC 9525."
  (check-keywords :connect options *tls-keywords*)
  (check-timeout timeout)
  (check-tls context :client server-name)
  (with-deadline (timeout)
    (let ((socket (apply #'open-socket host port
                         (without-keys options '(:context :server-name :timeout))))
          (done nil))
      (with-cleanup
          (progn
            (start-tls socket :context context :host server-name)
            (setf done t)
            socket)
        (unless done
          (close socket :abort t))))))

(setf (get 'open-tls-socket 'keywords) *tls-keywords*)
(check-calls 'open-tls-socket #'cddr *tls-keywords*)

;;; What a session is

(defparameter *tls-texts*
  `((:version . ,+lport-tls-version+) (:cipher . ,+lport-tls-cipher+)
    (:protocol . ,+lport-tls-protocol+) (:server-name . ,+lport-tls-server-name+)
    (:subject . ,+lport-tls-subject+) (:issuer . ,+lport-tls-issuer+)
    (:valid-until . ,+lport-tls-valid-until+)))

(defun tls-info (socket)
  "Return what SOCKET and the other side have agreed on, a property list of strings: :VERSION, such
as \"TLSv1.3\"; :CIPHER; :PROTOCOL, the one above TLS; :SERVER-NAME, that the client has asked for;
and of the certificate that the other side has shown :SUBJECT, :ISSUER (as RFC 2253 has them) and
:VALID-UNTIL, such as \"2027-01-31T12:00:00Z\". :RESUMED is T where the session goes on with what
one before it has agreed on; the certificate was shown then. What there is not is left out. NIL:
SOCKET has no TLS, or its handshake is not done.
Conditions: SOCKET-CLOSED. Source: SSL_get_version(3ssl), RFC 5280."
  (check-socket socket :info)
  (check-open (socket-connection socket) :info)
  (when (eq t (connection-secure (socket-connection socket)))
    (flet ((text (what)
             (session-text (endpoint-handle socket) what)))
      (append (loop for (name . what) in *tls-texts*
                    for text = (text what)
                    unless (string= text "")
                      collect name and collect text)
              (unless (string= (text +lport-tls-resumed+) "")
                '(:resumed t))))))

(defun tls-peer-certificate (socket)
  "Return the certificate that the other side of SOCKET has shown, and that it has the key of, a
vector of octets, DER; NIL: it has shown none, SOCKET has no TLS, or its handshake is not done. It
has been verified as far as the context says. Conditions: SOCKET-CLOSED. Source: RFC 5280,
SSL_get1_peer_certificate(3ssl)."
  (check-socket socket :info)
  (check-open (socket-connection socket) :info)
  (flet ((certificate (octets)
           (with-octets (pointer octets 0 nil :out)
             (lport-tls-text (endpoint-handle socket) +lport-tls-certificate+ pointer
                             (length octets)))))
    (let ((length (certificate (octets-of-size 0))))
      (when (plusp length)
        (let ((octets (octets-of-size length)))
          (certificate octets)
          octets)))))
