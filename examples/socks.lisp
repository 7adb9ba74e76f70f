;;;; socks - a SOCKS5 proxy, RFC 1928: CONNECT to addresses and names, without authentication.
;;;;
;;;;     (defvar *server* (port-example/socks:start 1080 (port-example/socks:allowing :global)))
;;;;     (port:stop-server *server* :drain 60)
;;;;
;;;; A tunnel has a thread, which is in PORT:RELAY, for as long as it lasts. Invariant: no client
;;;; is connected with an address that is not allowed. A name is looked up once: what is dialled are
;;;; the addresses that were looked at, and not the name, which may have others by then.

(defpackage :port-example/socks
  (:documentation "A SOCKS5 proxy.")
  (:use :common-lisp)
  (:export #:start #:allowing #:run #:*connect-seconds*))

(in-package :port-example/socks)

(defparameter *connect-seconds* 20 "How long a request may take, and the connect that it asks for.")
(defparameter *idle-seconds* 600 "How long nothing may move in a tunnel.")

(defparameter *replies*
  '((port:connect-denied . 2) (port:network-unreachable . 3) (port:host-unreachable . 4)
    (port:resolve-error . 4) (port:connection-refused . 5) (port:connect-timed-out . 6)
    (port:timeout . 6) (port:network . 1))
  "What a client is told when a connect has failed, RFC 1928, 6: the first that fits.")

(define-condition refusal (error)
  ((reply :initarg :reply :reader refusal-reply))
  (:documentation "A request that ends with a reply, one of RFC 1928, 6, and no connection."))

(defun refuse (reply)
  (error 'refusal :reply reply))

;;; Connecting

(defun allowing (&rest targets)
  "A function of an address object that is true if that is one of TARGETS: keywords, as those of
PORT:ADDRESS-KIND, and prefixes, strings such as \"10.0.0.0/8\"."
  (let ((prefixes (mapcar #'port:parse-address-prefix (remove-if #'keywordp targets))))
    (lambda (address)
      (or (member (port:address-kind address) targets)
          (some (lambda (prefix) (port:address-in-prefix-p address prefix)) prefixes)))))

(defun dial (host port allowed-p)
  "A connection to PORT of HOST, at one of its addresses for which ALLOWED-P is true."
  (handler-case
      (port:open-socket (or (remove-if-not allowed-p (port:resolve host)) (refuse 2)) port)
    (port:network (condition)
      (refuse (cdr (assoc condition *replies* :test #'typep))))))

;;; Requests and replies

(defun octets-from (client count)
  "The next COUNT octets of CLIENT, which has to send all of them."
  (let ((octets (make-array count :element-type '(unsigned-byte 8))))
    (port:read-octets client octets :whole :rest)
    octets))

(defun counted-octets (client)
  "The octets of CLIENT whose number is in the one before them."
  (octets-from client (aref (octets-from client 1) 0)))

(defun greet (client)
  "True if CLIENT speaks SOCKS5 and offers method 0, no authentication; tell it which method it is."
  (when (= 5 (aref (octets-from client 1) 0))
    (let ((method (or (find 0 (counted-octets client)) 255)))
      (write-sequence (vector 5 method) client)
      (finish-output client)
      (zerop method))))

(defun read-host (client type)
  "The host in a request of CLIENT, an address object or a name, as TYPE says."
  (case type
    ((1 4) (port:make-address (octets-from client (if (= type 1) 4 16))))
    (3 (map 'string #'code-char (counted-octets client)))
    (t (refuse 8))))

(defun read-request (client)
  "Values: the host and the port that CLIENT is to be connected with."
  (let* ((head (octets-from client 4))  ; version, command, 0, type of the host
         (host (read-host client (aref head 3)))
         (port (octets-from client 2)))
    (unless (= 1 (aref head 1))         ; CONNECT
      (refuse 7))
    (values host (+ (* 256 (aref port 0)) (aref port 1)))))

(defun write-reply (client reply &optional (host "0.0.0.0") (port 0))
  "Tell CLIENT what became of its request. HOST and PORT: our end of the connection to its target."
  (let ((octets (port:address-octets (port:parse-address host))))
    (write-sequence (vector 5 reply 0 (if (= 4 (length octets)) 1 4)) client)
    (write-sequence octets client)
    (write-sequence (vector (ldb (byte 8 8) port) (ldb (byte 8 0) port)) client)))

;;; Serving

(defun target-of (client allowed-p)
  "A connection to where CLIENT asks for; NIL if it does not even get to ask."
  (port:with-deadline (*connect-seconds*)
    (when (greet client)
      (multiple-value-bind (host port) (read-request client)
        (dial host port allowed-p)))))

(defun tunnel (client target)
  "Hand on what CLIENT and TARGET say until both have ended; the reply goes first."
  (apply #'write-reply client 0 (nthcdr 2 (multiple-value-list (port:socket-host/port target))))
  (port:relay client target :timeout *idle-seconds*))

(defun answer (client allowed-p)
  "Connect CLIENT as it asks, or tell it why not; it may have sent more already, so that its close
lingers."
  (handler-case
      (let ((target (target-of client allowed-p)))
        (if target
            (port:call-with-open-socket (lambda (target) (tunnel client target)) target)
            (port:lingering-close client)))
    (refusal (refusal)
      (write-reply client (refusal-reply refusal))
      (port:lingering-close client))))

(defun start (port allowed-p &rest options &key &allow-other-keys)
  "Serve SOCKS5 on PORT and return the server, for PORT:STOP-SERVER. ALLOWED-P: a function of an
address object, true if clients may be connected with it. OPTIONS: further keywords for PORT:SERVE."
  (apply #'port:serve (lambda (client) (answer client allowed-p)) port
         (append options (list :name "socks" :await-input t :timeout *connect-seconds*
                               :threads 1000))))

(defun run (&key (port 1080))
  "Serve on PORT of this machine, to whatever it can reach, until the user interrupts."
  (port-example/run:until-interrupted
   (start port (allowing :loopback :private :global) :host (port-example/run:loopback-hosts))
   "curl --socks5-hostname localhost:~D http://..." port))
