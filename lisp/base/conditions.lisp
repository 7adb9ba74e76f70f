;;;; conditions - what can go wrong: the tree of conditions, and their facts.
;;;;
;;;; One table makes the tree. A condition that is signalled on a socket that is a stream is a
;;;; STREAM-ERROR too: where its class is none, an internal subclass of it is signalled that is one,
;;;; and that prints under the name of the public class.

(in-package :port)

;;; The root, and what old programs make themselves

(define-condition network (error)
  ((operation :initarg :operation :initform nil :reader network-operation)
   (code :initarg :code :initform nil :reader network-code)
   (errno :initarg :errno :initform nil :reader network-errno)
   (host :initarg :host :initform nil :reader network-host)
   (port :initarg :port :initform nil :reader network-port)
   (local :initarg :local :initform nil :reader network-local)
   (remote :initarg :remote :initform nil :reader network-remote)
   (attempts :initarg :attempts :initform '() :reader network-attempts)
   (octets :initarg :octets :initform nil :reader network-octets)
   (socket :initarg :socket :initform nil :reader network-socket)
   (seconds :initarg :seconds :initform nil :reader network-seconds)
   (proc :initarg :proc :initform nil :reader net-proc)
   (mesg :initarg :mesg :initform nil :reader net-mesg)
   (args :initarg :args :initform '() :reader net-args)
   (unicast :initarg :unicast :initform nil :reader network-unicast)) ; see reports.lisp
  (:documentation "A failure of an operation of PORT: the root of the tree, with the facts in it.
Initargs of 1999 that still work: :PROC :HOST :PORT :MESG :ARGS.")
  (:report (lambda (condition stream) (report-failure condition stream))))

;;; The tree

(eval-when (:compile-toplevel :load-toplevel :execute)
  (defun stream-class-name (name)
    "The name of the internal class for NAME on a stream."
    (intern (concatenate 'string (symbol-name name) "-ON-STREAM") :port)))

(defvar *stream-classes* (make-hash-table :test 'eq)
  "From the name of a class to that of its subclass which is a STREAM-ERROR.")

(defvar *public-names* (make-hash-table :test 'eq)
  "From the name of an internal class to the public name that it prints under.")

(defun on-stream-p (superclasses)
  "True if a class with SUPERCLASSES is a STREAM-ERROR without more ado."
  (some (lambda (class) (subtypep class 'stream-error)) superclasses))

(defmacro define-public (name superclasses slots documentation)
  "Define condition NAME; where a direct superclass is STREAM-ERROR it may be without a stream."
  `(define-condition ,name ,superclasses ,slots
     ,@(when (member 'stream-error superclasses) '((:default-initargs :stream nil)))
     (:documentation ,documentation)))

(defmacro define-on-stream (name)
  "Define the internal class for NAME on a stream, unless NAME is a STREAM-ERROR already."
  (let ((internal (stream-class-name name)))
    `(unless (on-stream-p '(,name))
       (define-condition ,internal (,name stream-error) ()
         (:default-initargs :stream nil))
       (setf (gethash ',name *stream-classes*) ',internal
             (gethash ',internal *public-names*) ',name))))

(defmacro define-conditions (&body rows)
  "Define a condition for each row (name superclasses documentation slot...), and its class on a
stream."
  `(progn
     ,@(loop for (name superclasses documentation . slots) in rows
             collect `(define-public ,name ,superclasses ,slots ,documentation)
             collect `(define-on-stream ,name))))

(define-on-stream network)

(define-conditions
  ;; of 1999
  (timeout (network)
   "A timeout or deadline of ours passed. The socket stays usable and no octet is lost: the same
call may be made again. Restart: WAIT-LONGER."
   (time :initarg :time :initform 0 :reader timeout-time))
  (login (network)
   "A peer refused a login. PORT itself never signals it; it is there for the programs that do.")
  (net-path (network)
   "The path of a local socket is not what it should be. Programs may signal it themselves.")
  ;; an established connection
  (socket-closed (network)
   "Our side of the socket is closed, or its output is shut down.")
  (connection-lost (network stream-error)
   "An established connection died. It stays dead: every later operation signals this again, but for
one that has all it needs in what arrived before.")
  (connection-reset (connection-lost)
   "The peer reset the connection, or no longer takes what is sent (ECONNRESET, EPIPE).")
  (connection-aborted (connection-lost)
   "The system aborted the connection (ECONNABORTED).")
  (connection-truncated (connection-lost)
   "The peer's data ended where its protocol does not allow it.")
  (tls-error (network)
   "The other side and this one have no TLS in common, or what comes is none, or not what was sent.
It stays so: every later operation signals this again.")
  (certificate-error (tls-error)
   "The other side has shown a certificate that does not prove that it is who it should be: of
another name, expired, or certified by nobody who is trusted; or none where it has to show one. The
report says which.")
  (proxy-error (network)
   "A connection that should have begun with a header of the PROXY protocol did not, or not in time.
It is closed; whoever accepts goes on. NETWORK-CODE says what came instead: :PROXY-SYNTAX for other
octets, :TIMED-OUT, :CONNECTION-TRUNCATED for an end, :CONNECTION-RESET.")
  ;; nobody could be reached
  (connect-error (network)
   "Nobody could be reached; NETWORK-ATTEMPTS lists every address tried and why it failed.
Restarts: RETRY, USE-VALUE.")
  (connection-refused (connect-error)
   "Nobody listens there (ECONNREFUSED). Also what a datagram socket reports of an ICMP message.")
  (host-unreachable (connect-error)
   "No way to the host (EHOSTUNREACH).")
  (network-unreachable (connect-error)
   "No way to the network of the host (ENETUNREACH).")
  (connect-denied (connect-error)
   "The system does not allow this connect, or a firewall on the way of IPv6 (EACCES, EPERM).")
  (connect-timed-out (connect-error)
   "The system gave the connect up (ETIMEDOUT). A limit of ours that passes is a TIMEOUT instead.")
  (path-not-found (connect-error net-path)
   "There is no socket at the path of a local socket.")
  ;; our own address or its text
  (address-error (network)
   "Something is wrong with our own address, or with the text of one.")
  (address-in-use (address-error)
   "Another socket has the address (EADDRINUSE). Restarts of a listen: RETRY, USE-VALUE.")
  (address-not-available (address-error)
   "The address is none of this machine; of a connect, there is no own address or port for it
\(EADDRNOTAVAIL).")
  (permission-denied (address-error)
   "The system does not allow it (EACCES, EPERM, EROFS).")
  (path-unusable (address-error net-path)
   "The path cannot hold a local socket: its directory is not there, or is no directory.")
  (address-syntax (address-error)
   "What was given is not an address, a host, a port or a local name. Of a wrong type it is a
TYPE-ERROR too.")
  ;; names
  (resolve-error (network)
   "A name could not be looked up. Restarts: RETRY, USE-VALUE.")
  (host-not-found (resolve-error)
   "The name, or the address, is known to nobody, or has no address of the family asked for.")
  (resolver-try-again (resolve-error)
   "The name servers did not answer; they may do so later.")
  (resolver-failure (resolve-error)
   "The system's resolver failed.")
  (service-not-found (resolve-error)
   "The system's table has no service of that name.")
  ;; the rest
  (resource-exhausted (network)
   "Descriptors, memory or buffers are used up: what an accept loop waits out.")
  (message-too-long (network)
   "A datagram is longer than the system sends (EMSGSIZE).")
  (not-supported (network)
   "The operation does not exist here, or not for this kind of socket.")
  (usage-error (network)
   "The call made no sense.")
  ;; text
  (text-error (network stream-error)
   "Octets and characters do not convert."
   (text-octets :initarg :text-octets :initform nil :reader text-error-octets)
   (position :initarg :position :initform nil :reader text-error-position)
   (character :initarg :character :initform nil :reader text-error-character))
  (decoding-error (text-error)
   "Octets that came are no character in the external format. Restart: REPLACE-CHARACTER.")
  (encoding-error (text-error)
   "A character has no octets in the external format. Restart: REPLACE-CHARACTER.")
  (line-too-long (network stream-error)
   "A line that is being read has more octets than the :LINE-LIMIT of the external format allows.
It stays unread: the same call signals this again, and octets, or characters, of it can be read."))

(define-condition mistyped-address (address-syntax type-error) ()
  (:documentation "A host, an address or a port of the wrong type."))
(setf (gethash 'mistyped-address *public-names*) 'address-syntax)

(define-condition mistyped-argument (usage-error type-error) ()
  (:documentation "Another argument of the wrong type."))
(setf (gethash 'mistyped-argument *public-names*) 'usage-error)

(define-condition unknown-keyword (usage-error program-error) ()
  (:documentation "A keyword that an operator does not have, which CLHS 3.5.1.4 has for a
PROGRAM-ERROR."))
(setf (gethash 'unknown-keyword *public-names*) 'usage-error)

;;; Facts in the shape of 1999

(defun net-host (condition)
  "Return the host in CONDITION, a NETWORK, as a string; \"\" where there is none."
  (let ((host (network-host condition)))
    (cond ((null host) "")
          ((and (consp host) (%proper-list-p host)) (list-text host))
          (t (plain-text host)))))

(defun net-port (condition)
  "Return the port in CONDITION, a NETWORK, as an integer; 0 where there is none or only a service."
  (let ((port (network-port condition)))
    (if (integerp port) port 0)))

(defun document-functions (rows)
  "Give each function of ROWS, (name docstring), its docstring: readers have no place for one."
  (loop for (name documentation) in rows
        do (%document-function name documentation)))

(document-functions
 '((network-operation "Return the operation that failed, a keyword such as :CONNECT or :READ; NIL in
a condition that a program made itself.")
   (network-code "Return the keyword that names the cause, such as :CONNECTION-REFUSED; :ERRNO-123
for a number of the system that PORT has no name for.")
   (network-errno "Return the system's number for the failure, an integer, or NIL.")
   (network-host "Return the host as the caller gave it, or NIL.")
   (network-port "Return the port as the caller gave it, a number or a service, or NIL.")
   (network-local "Return our end, a string such as \"127.0.0.1:80\" or \"[::1]:80\", or NIL.")
   (network-remote "Return the peer's end, a string as of NETWORK-LOCAL, or NIL.")
   (network-attempts "Return the list of (address . condition) of a connect, in the order tried.")
   (network-octets "Return how many octets were moved before the failure; NIL where none could be.
Those that a read had moved are unread again.")
   (network-socket "Return the socket of the failure, or NIL.")
   (net-proc "Return the operation that failed, a symbol.")
   (net-mesg "Return the format control of the text that says what failed, or NIL.")
   (net-args "Return the list of arguments of NET-MESG.")
   (timeout-time "Return the limit that passed, in seconds, a non-negative real; 0 where unknown.")
   (text-error-octets "Return the vector of octets that are no character; NIL of an
ENCODING-ERROR.")
   (text-error-position "Return the position of the first offending octet in the stream, from 0; NIL
where it is unknown, and of an ENCODING-ERROR.")
   (text-error-character "Return the character that has no octets; NIL of a DECODING-ERROR.")))
