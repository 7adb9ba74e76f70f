;;;; tls - TLS on a connection that is there, and connections that begin with it.
;;;;
;;;; The library keeps TLS below the handle of a socket, so every operation on one with TLS is that
;;;; on one without. What differs is told by the mark SECURE of a connection: octets that were taken
;;;; may be held there still, and what is ready may be nothing for the user.

(in-package :port)

;;; Contexts

(defstruct (tls-context (:copier nil)
                        (:constructor new-tls-context (plan certificate trust verify)))
  "Whom sessions of TLS trust, and who they are: what MAKE-TLS-CONTEXT returns. CLOSE closes it;
sessions that were started with it go on."
  (plan nil :type list :read-only t)    ; functions of a handle that make it what it is
  (certificate nil :read-only t)        ; as they were given
  (trust nil :read-only t)
  (verify t :type symbol :read-only t)
  (handle 0 :type (signed-byte 64))     ; in the library; 0: none yet, below 0: closed
  (image nil))                          ; the *IMAGE* that HANDLE belongs to

(document-functions '((tls-context-p "Return true if OBJECT is a TLS-CONTEXT.")))

(defun check-identity (context)
  "Signal a USAGE-ERROR unless CONTEXT is open and has a certificate, as that of a server has to."
  (unless (tls-context-certificate context)
    (fail-argument :tls context '(and tls-context (satisfies tls-context-certificate))
                   "a context with a certificate"))
  (context-handle context))

(defvar *image* (list nil)
  "Another object in each process that an image is started in.")

(defun renew-image ()
  (setf *image* (list nil)))

(%at-image-start 'renew-image)

(defmethod print-object ((context tls-context) stream)
  (print-plainly context stream
                 (plain-format "~@[certificate: ~A ~]trust: ~A~:[~; (closed)~]"
                               (tls-context-certificate context)
                               (tls-context-trust context)
                               (minusp (tls-context-handle context)))))

(defun context-problem (handle)
  (text-from (pointer cap) (lport-tls-context-problem handle pointer cap)))

(defun fail-context (handle status subject)
  "Signal what STATUS says of HANDLE, a context of the library, that SUBJECT, a text, is to be used
for."
  (let ((problem (context-problem handle)))
    (fail status :tls :message "cannot use ~A: ~A"
                      :arguments (list subject (if (tls-status-p status)
                                                   problem
                                                   (status-text status))))))

(defmacro planned ((handle subject) call)
  "A function that makes CALL with HANDLE, and signals what it says of SUBJECT, a text."
  (let ((status (gensym "STATUS")))
    `(lambda (,handle)
       (let ((,status ,call))
         (when (minusp ,status)
           (fail-context ,handle ,status ,subject))))))

(defun file-argument (file expected)
  "The name that the system has for FILE, absolute."
  (or (and (typep file '(or pathname string)) (native-file-name file))
      (fail-argument :tls file '(or pathname string) expected)))

(defun plan-trust (source)
  "The function that makes a context trust SOURCE: :SYSTEM, or a file or a directory."
  (if (eq source :system)
      (planned (handle "what this system trusts")
        (lport-tls-context-trust handle +lport-tls-system+ (null-pointer) 0))
      (let* ((name (file-argument source "a file or a directory to trust, or :SYSTEM"))
             (kind (if (uiop:directory-exists-p (uiop:parse-native-namestring name))
                       +lport-tls-directory+
                       +lport-tls-file+)))
        (planned (handle name)
          (with-text (pointer length name)
            (lport-tls-context-trust handle kind pointer length))))))

(defun plan-identity (certificate key)
  (let ((chain-name (file-argument certificate "a file with a certificate"))
        (key-name (file-argument key "a file with a private key")))
    (planned (handle (if (string= chain-name key-name)
                         chain-name
                         (plain-format "~A with ~A" chain-name key-name)))
      (with-text (chain chain-length chain-name)
        (with-text (key key-length key-name)
          (lport-tls-context-identity handle chain chain-length key key-length))))))

(defparameter *tls-verify*
  `((nil . ,+lport-tls-verify-nobody+) (t . ,+lport-tls-verify-server+)
    (:given . ,+lport-tls-verify-given+) (:required . ,+lport-tls-verify+)))

(defun plan-verify (verify)
  (let ((row (assoc verify *tls-verify*)))
    (unless row
      (fail-argument :tls verify `(member ,@(mapcar #'car *tls-verify*))
                     "T, NIL, :GIVEN or :REQUIRED for VERIFY"))
    (planned (handle "this VERIFY")
      (lport-tls-context-verify handle (cdr row)))))

(defun plan-offer (other)
  "The function that makes a context show the certificate of OTHER by name."
  (check-argument :tls other 'tls-context "a TLS-CONTEXT")
  (check-identity other)
  (planned (handle "this BY-NAME")
    (lport-tls-context-offer handle (context-handle other))))

(deftype protocol-name ()
  '(satisfies protocol-name-p))

(defun protocol-name-p (object)
  (and (stringp object)
       (plusp (length object))
       (every (lambda (character) (and (char<= #\! character #\~) (char/= character #\,)))
              object)))

(defun plan-protocols (protocols)
  (check-argument :tls protocols 'proper-list "a list of names of protocols")
  (dolist (name protocols)
    (check-argument :tls name 'protocol-name "the name of a protocol, such as \"h2\""))
  (let ((text (plain-format "~{~A~^,~}" protocols)))
    (check-argument :tls (length text) '(integer 0 254) "at most 254 octets of names of protocols")
    (planned (handle text)
      (with-text (pointer length text)
        (lport-tls-context-protocols handle pointer length)))))

(defun plan-versions (versions)
  (flet ((minor (version)
           (ecase version (:tls-1.2 2) (:tls-1.3 3))))
    (check-argument :tls versions '(cons (member :tls-1.2 :tls-1.3)
                                    (or null (cons (eql :tls-1.3) null)))
                    "a list of :TLS-1.2, :TLS-1.3 or both, in this order")
    (planned (handle "these versions")
      (lport-tls-context-versions handle (minor (first versions))
                                  (minor (first (last versions)))))))

(defun make-tls-context (&rest options &key certificate (key certificate) (trust :system)
                                         (verify t) protocols (versions '(:tls-1.2 :tls-1.3))
                                         by-name
                         &allow-other-keys)
  "Return a TLS-CONTEXT, for OPEN-TLS-SOCKET, START-TLS and SERVE, at clients and servers, as often
as one likes. Files are read here.
CERTIFICATE: the file, PEM, of the certificate to show, and of those that lead from it to one that
the other side trusts; a server needs one. KEY: the file of its private key, PEM, without a
passphrase; if nothing is said it is in that of the CERTIFICATE.
TRUST: by whom the certificates have to be certified that are to be good: :SYSTEM, the authorities
that this machine trusts; a file of certificates, PEM; a directory of them, as openssl-rehash(1)
makes it; or a list of these. VERIFY: T, a client verifies its server, and a server asks no client
for a certificate; :GIVEN, a server asks, and the certificate of a client that shows one has to be
good; :REQUIRED, and it has to show one; NIL: nobody is verified, so that anybody in between can
read and change all that is said.
PROTOCOLS: names of those above TLS that are spoken, the best first, as (\"h2\" \"http/1.1\"); see
TLS-INFO for the one that was agreed on. VERSIONS: a list of :TLS-1.2 and :TLS-1.3.
BY-NAME: a list of other contexts with certificates, 64 at the most: where a client asks for a name
a server shows that of the first which is for it, else its own. Nothing else is taken of them.
Conditions: TLS-ERROR, for a file in which something else is; NETWORK for one that cannot be read;
NOT-SUPPORTED where OpenSSL 3 (libssl.so.3), which does this work, is not to be had; USAGE-ERROR.
Source: SSL_CTX_new(3ssl), RFC 7301."
  (check-own-keywords 'make-tls-context :tls options)
  (let* ((sources (if (listp trust) trust (list trust)))
         (context (new-tls-context
                   (append (mapcar #'plan-trust (check-argument :tls sources 'proper-list
                                                                "a list of what to trust"))
                           (when (or certificate key)
                             (list (plan-identity certificate key)))
                           (list (plan-verify verify)
                                 (plan-protocols protocols)
                                 (plan-versions versions))
                           (mapcar #'plan-offer (check-argument :tls by-name 'proper-list
                                                                "a list of contexts")))
                   certificate trust verify)))
    (context-handle context)
    context))

(note-keywords 'make-tls-context)

(defun call-with-planned (function context)
  "Call FUNCTION with what CONTEXT is by its plan, a new handle, which is closed unless FUNCTION
returns true."
  (declare (type function function))
  (let ((kept nil))
    (with-waiting (handle (lport-tls-context-open))
        (progn
          (when (minusp handle)
            (fail handle :tls :message "TLS needs OpenSSL 3, its libssl.so.3: ~A"
                              :arguments (list (status-text handle))))
          (dolist (step (tls-context-plan context))
            (funcall (the function step) handle))
          (setf kept (funcall function handle)))
      (unless (or kept (minusp handle))
        (lport-tls-context-close handle)))))

(defun renew-context (context)
  "Make what the library has for CONTEXT."
  (call-with-planned (lambda (handle)
                       (setf (tls-context-handle context) handle
                             (tls-context-image context) *image*))
                     context))

(defun context-handle (context)
  "What the library has for CONTEXT, made anew in the process of an image that was saved."
  (when (minusp (tls-context-handle context))
    (fail-as 'usage-error :tls :closed :message "expected a context that is open, got ~A"
                                       :arguments (list context)))
  (unless (eq (tls-context-image context) *image*)
    (renew-context context))
  (tls-context-handle context))

(defun reload-tls-context (context)
  "Read the files of CONTEXT, a TLS-CONTEXT, anew, as after a certificate was renewed, and return
CONTEXT: handshakes that begin from now on, those of running services too, are by what is in them.
Who is connected goes on with what was agreed on. Where a file will not do nothing is changed.
Conditions: those of MAKE-TLS-CONTEXT."
  (check-argument :tls context 'tls-context "a TLS-CONTEXT")
  (let ((old (context-handle context)))
    (call-with-planned (lambda (handle)
                         (not (minusp (lport-tls-context-replace old handle))))
                       context))
  context)

(defmethod close ((context tls-context) &key abort)
  "Close CONTEXT: true the first time. Sessions that were started with it go on."
  (declare (ignore abort))
  (let ((handle (shiftf (tls-context-handle context) -1)))
    (unless (minusp handle)
      (when (eq (tls-context-image context) *image*)
        (lport-tls-context-close handle))
      t)))

(defvar *client-context* nil
  "The context of clients that give none, once there has been one.")

(defun client-context ()
  (or *client-context*
      (setf *client-context* (make-tls-context))))

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
  "Values: the handle of CONTEXT, or of the default, and the name that SIDE expects. Signals what is
wrong with these arguments of START-TLS."
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
    (values (context-handle context) (expected-name host))))

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

(defun begin-session (connection handle side name)
  "Put a session of the context HANDLE on CONNECTION. What was read ahead is the beginning of TLS."
  (let ((status (call-deferred
                  (let ((status (start-session connection handle side (or name ""))))
                    (unless (minusp status)
                      (forget-input connection)
                      (setf (connection-secure connection) (list handle side name)
                            (connection-patient connection) nil))
                    status))))
    (when (minusp status)
      (fail-on connection status :handshake))))

(defun check-begun (socket handle side name)
  "Signal a USAGE-ERROR if the handshake that was left on SOCKET is another one: it would not show
what this call has to be shown."
  (unless (equal (connection-secure (socket-connection socket)) (list handle side name))
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

(defun secure (socket handle side name)
  "Begin TLS on SOCKET, or go on with a handshake that was left."
  (let ((connection (socket-connection socket)))
    (with-input (connection)
      (with-output (connection)
        (check-writable connection)
        (let ((limit (call-limit connection :input))
              (output-limit (call-limit connection :output)))
          (cond ((connection-secure connection) (check-begun socket handle side name))
                (t (multiple-value-setq (limit output-limit)
                     (later-limits (nth-value 1 (flush connection
                                                       :limit (min limit output-limit)))
                                   limit output-limit))
                   (begin-session connection handle side name)))
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
  (multiple-value-bind (handle name) (check-tls context side host)
    (with-deadline (timeout)
      (secure socket handle side name)))
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
:VALID-UNTIL, such as \"2027-01-31T12:00:00Z\". What there is not is left out. NIL: SOCKET has no
TLS, or its handshake is not done.
Conditions: SOCKET-CLOSED. Source: SSL_get_version(3ssl), RFC 5280."
  (check-socket socket :info)
  (check-open (socket-connection socket) :info)
  (when (eq t (connection-secure (socket-connection socket)))
    (loop for (name . what) in *tls-texts*
          for text = (session-text (endpoint-handle socket) what)
          unless (string= text "")
            collect name and collect text)))

(defun tls-peer-certificate (socket)
  "Return the certificate that the other side of SOCKET has shown, a vector of octets, DER; NIL: it
has shown none, or SOCKET has no TLS. It has been verified as far as the context says. Conditions:
SOCKET-CLOSED. Source: RFC 5280, SSL_get1_peer_certificate(3ssl)."
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
