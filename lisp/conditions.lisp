;;;; conditions - what can go wrong: the tree of conditions, their facts, and the ways to signal
;;;; them.
;;;;
;;;; One table makes the tree. A condition that is signalled on a socket that is a stream is a
;;;; STREAM-ERROR too: where its class is none, an internal subclass of it is signalled that is one,
;;;; and that prints under the name of the public class.
;;;;
;;;; A condition prints as one line, for a log: OPERATION END failed: REASON (DETAILS). What is not
;;;; known is left out; what callers gave is printed with its control characters spelled out.

(in-package :port)

;;; Text that is the same whatever the printer is told

(defmacro with-plain-printer (() &body body)
  "Run BODY with the printer as it usually is, but for *PACKAGE* and for what it takes to escape."
  `(let ((*print-array* t) (*print-base* 10) (*print-case* :upcase) (*print-circle* nil)
         (*print-gensym* t) (*print-length* nil) (*print-level* nil) (*print-lines* nil)
         (*print-pretty* nil) (*print-radix* nil) (*print-readably* nil)
         (*read-default-float-format* 'single-float))
     ,@body))

(defmacro with-short-printer (() &body body)
  "As WITH-PLAIN-PRINTER, for a line: of what is long or deep there is the beginning."
  `(with-plain-printer ()
     (let ((*print-length* 20) (*print-level* 4))
       ,@body)))

(defun plain-text (object)
  "OBJECT as PRINC shows it."
  (with-plain-printer ()
    (if (stringp object) object (princ-to-string object))))

(defun plain-format (control &rest arguments)
  "The text that FORMAT makes of CONTROL and ARGUMENTS. Methods of PRINT-OBJECT write it as a whole:
a part that is printed for itself would be given a label where *PRINT-CIRCLE* is true."
  (with-plain-printer ()
    (apply #'format nil control arguments)))

(defun print-plainly (object stream text &key identity)
  "What a method of PRINT-OBJECT does: print OBJECT unreadably as its type and TEXT. What the
language has for that prints the type in lower case on some Lisps."
  (print-unreadable-object (object stream :identity identity)
    (write-string (plain-format (if *print-escape* "~S ~A" "~A ~A") (type-of object) text)
                  stream)))

;;; Safe text

(defconstant +longest-report+ 2000 "Characters of a report; more are cut off.")

(defun harmless-p (char)
  "True if CHAR can stand in a line of a log as it is."
  (let ((code (char-code char)))
    (not (or (< code 32)
             (<= 127 code 159)
             (<= #x2028 code #x202E)    ; separators of lines, and what turns the direction
             (<= #x2066 code #x2069)
             (<= #xD800 code #xDFFF)))))

(defun write-harmless (char stream)
  (case char
    (#\Newline (write-string "\\n" stream))
    (#\Return (write-string "\\r" stream))
    (#\Tab (write-string "\\t" stream))
    (t (if (harmless-p char)
           (write-char char stream)
           (format stream "\\x~2,'0X" (char-code char))))))

(defun safe-line (text)
  "TEXT on one line and of bounded length."
  (let ((end (min (length text) +longest-report+)))
    (if (and (= end (length text)) (every #'harmless-p text))
        text
        (with-output-to-string (stream)
          (loop for index below end
                do (write-harmless (char text index) stream))
          (when (< end (length text)) (write-string "..." stream))))))

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
   (args :initarg :args :initform '() :reader net-args))
  (:documentation "A failure of an operation of PORT: the root of the tree, with the facts in it.
Initargs of 1999 that still work: :PROC :HOST :PORT :MESG :ARGS.")
  (:report (lambda (condition stream) (report-failure condition stream))))

;;; The tree

(eval-when (:compile-toplevel :load-toplevel :execute)
  (defun stream-class-name (name)
    "The name of the internal class for NAME on a stream."
    (intern (format nil "~A-ON-STREAM" name) :port)))

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
   "An established connection died. It stays dead: every later operation signals this again.")
  (connection-reset (connection-lost)
   "The peer reset the connection, or no longer takes what is sent (ECONNRESET, EPIPE).")
  (connection-aborted (connection-lost)
   "The system aborted the connection (ECONNABORTED).")
  (connection-truncated (connection-lost)
   "The peer's data ended where its protocol does not allow it.")
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
   "The system does not allow this connect (EACCES, EPERM).")
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
   "The address is none of this machine (EADDRNOTAVAIL).")
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
   "The name, or the address, is known to nobody.")
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
   "Octets and characters do not convert.")
  (decoding-error (text-error)
   "Octets that came are no character in the external format. Restart: REPLACE-CHARACTER."
   (text-octets :initarg :text-octets :initform nil :reader text-error-octets)
   (position :initarg :position :initform nil :reader text-error-position))
  (encoding-error (text-error)
   "A character has no octets in the external format. Restart: REPLACE-CHARACTER."
   (character :initarg :character :initform nil :reader text-error-character)))

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
    (if (null host) "" (plain-text host))))

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
   (network-octets "Return how many octets were moved before the failure; NIL where none could be.")
   (network-socket "Return the socket of the failure, or NIL.")
   (net-proc "Return the operation that failed, a symbol.")
   (net-mesg "Return the format control of the text that says what failed, or NIL.")
   (net-args "Return the list of arguments of NET-MESG.")
   (timeout-time "Return the limit that passed, in seconds, a non-negative real; 0 where unknown.")
   (text-error-octets "Return the vector of octets that are no character.")
   (text-error-position "Return the position of the first offending octet in the stream, from 0; NIL
where it is unknown.")
   (text-error-character "Return the character that has no octets.")))

;;; Which end a line names

(defparameter *phrases*
  '((:connect "connect" "to" :given :remote)
    (:resolve "resolve" nil :host)
    (:parse "parse" nil :given)
    (:service "look up" "service" :given)
    (:listen "listen" "on" :given :local)
    (:bind "bind" "to" :given :local)
    (:accept "accept" "on" :local :given)
    (:read "read" "from" :remote :given :local)
    (:write "write" "to" :remote :given :local)
    (:handshake "handshake" "with" :remote :given)
    (:proxy "PROXY header" "from" :remote :local)
    (:send "send" "to" :given :remote (:local "from"))
    (:receive "receive" "on" :local :remote)
    (:credentials "credentials" "of" :remote :local)
    (:join "join" nil :given)
    (:leave "leave" nil :given)
    (:close "close" nil :remote :local :given)
    (:shutdown "shut down" nil :remote :local)
    (:wait "wait" "for" :remote :local)
    (:option "socket option" "on" :remote :local)
    (:info "read what is known" "of" :remote :local)
    (:adopt "adopt a descriptor" nil)
    (:interfaces "list the interfaces" nil)
    (:host-name "read the host's name" nil))
  "Rows (operation verb preposition end...): the first of the ends that is known is named, with a
preposition of its own where it is a list.")

(defun phrase (operation)
  "The row of *PHRASES* for OPERATION, made up for one that has none."
  (or (assoc operation *phrases*)
      (list operation (substitute #\Space #\- (string-downcase operation)) "on"
            :remote :given :local)))

(defun fact-text (fact)
  "FACT, a host or a port, as a line shows it, or NIL."
  (cond ((null fact) nil)
        ((equal fact "") "\"\"")
        (t (plain-text fact))))

(defun host-text (condition)
  "The host in CONDITION as a line shows it, or NIL."
  (fact-text (network-host condition)))

(defun given-text (condition)
  "Host and port as the caller gave them, or NIL."
  (let ((host (host-text condition))
        (port (fact-text (network-port condition))))
    (when (or host port)
      (format nil "~@[~A~]~:[~; ~]~@[port ~A~]" host (and host port) port))))

(defun end-text (end condition)
  "The text of END, a keyword of *PHRASES*, or NIL."
  (ecase end
    (:given (given-text condition))
    (:host (host-text condition))
    (:local (network-local condition))
    (:remote (network-remote condition))))

(defun action-text (condition)
  "What was done, with the end that is known: \"read from 127.0.0.1:80\"."
  (destructuring-bind (verb preposition &rest ends) (rest (phrase (network-operation condition)))
    (loop for end in ends
          for (name own) = (if (listp end) end (list end preposition))
          for text = (end-text name condition)
          when text
            return (format nil "~A~@[ ~A~] ~A" verb own text)
          finally (return verb))))

;;; Why

(defun message-text (condition)
  "The words that CONDITION was made with, or NIL; as they stand where they are no format control
for its arguments, since old programs put there what a peer has said."
  (let ((control (net-mesg condition)))
    (and control
         (handler-case (apply #'format nil control (net-args condition))
           (error () (plain-text control))))))

(defun reason-text (condition)
  "Why CONDITION came: its own words, else those of its code."
  (or (message-text condition)
      (substitute #\Space #\- (string-downcase (or (network-code condition) "unknown reason")))))

(defconstant +most-attempts+ 16 "How many attempts a report lists.")

(defun attempt-text (attempt condition)
  "\"192.0.2.1 connection refused\" for ATTEMPT; without the address if the caller gave just that
one."
  (destructuring-bind (address . failure) attempt
    (let ((address (plain-text address))
          (reason (reason-text failure)))
      (if (and (null (rest (network-attempts condition)))
               (equal address (host-text condition)))
          reason
          (format nil "~A ~A" address reason)))))

(defun attempts-text (condition)
  "Every attempt and why it failed, or NIL."
  (let* ((attempts (network-attempts condition))
         (more (- (length attempts) +most-attempts+)))
    (when attempts
      (format nil "~{~A~^; ~}~@[; and ~D more~]"
              (loop for attempt in attempts
                    repeat +most-attempts+
                    collect (attempt-text attempt condition))
              (and (plusp more) more)))))

(defun why-text (condition)
  "The reason; for a connect every attempt, and before them what is no failure of any of them."
  (let ((reason (reason-text condition)) (attempts (attempts-text condition)))
    (cond ((or (null attempts) (equal attempts reason)) reason)
          ((typep condition 'connect-error) attempts)
          (t (format nil "~A; ~A" reason attempts)))))

;;; Details

(defun seconds-text (condition)
  (let ((seconds (network-seconds condition)))
    (cond ((or (null seconds) (< seconds 1/2000)) nil)
          ((< seconds 1000000000)
           (format nil "~A s" (string-right-trim "." (string-right-trim
                                                      "0" (format nil "~,3F" seconds)))))
          (t "more than 1000000000 s"))))

(defun octets-text (condition)
  "What was moved: octets, or of a batch messages."
  (let ((octets (network-octets condition)))
    (when (and octets (plusp octets))
      (format nil "~D ~:[octet~;message~]~2:*~P moved" octets
              (eq (network-operation condition) :send)))))

(defun privilege-text (condition)
  (when (and (eq (network-operation condition) :listen)
             (eq (network-code condition) :permission-denied)
             (< 0 (net-port condition) 1024))
    "ports below 1024 need a privilege"))

(defun details-text (condition)
  "What else is known, in parentheses after a space; or \"\"."
  (format nil "~@[ (~{~A~^, ~})~]"
          (remove nil (list (privilege-text condition) (octets-text condition)
                            (seconds-text condition)))))

;;; Reports

(defun public-name (condition)
  "The name of the class of CONDITION that users see."
  (let ((name (type-of condition)))
    (gethash name *public-names* name)))

(defun name-text (condition)
  "The name of the class of CONDITION as words, or NIL where programs of 1999 know another text."
  (let ((name (public-name condition)))
    (unless (or (member name '(network timeout login net-path))
                (not (eq (symbol-package name) (symbol-package 'network))))
      (substitute #\Space #\- (string-downcase name)))))

(defun historical-text (condition)
  "As programs of 1999 know it: [PROC] \"host\":port message."
  (plain-format "[~S] ~S:~D~@[ ~A~]~@[ [timeout ~A sec]~]"
                (net-proc condition) (net-host condition) (net-port condition)
                (or (with-plain-printer () (message-text condition)) (name-text condition))
                (and (typep condition 'timeout) (plusp (timeout-time condition))
                     (timeout-time condition))))

(defun failure-text (condition)
  "The line for CONDITION, with no more of what is in it than fits there."
  (with-short-printer ()
    (safe-line (format nil "~A failed: ~A~A" (action-text condition) (why-text condition)
                       (details-text condition)))))

(defun report-failure (condition stream)
  "Write the line for CONDITION to STREAM. Without an operation a program made it in the old way."
  (write-string (if (network-operation condition)
                    (failure-text condition)
                    (historical-text condition))
                stream))

(defmethod print-object ((condition network) stream)
  "Print CONDITION under its public name with its report; without escape the report alone."
  (if *print-escape*
      (print-unreadable-object (condition stream)
        (write-string (plain-format "~S ~A" (public-name condition) condition) stream))
      (call-next-method)))

;;; Making and signalling

(defun signalled-class (class socket)
  "The class to signal for CLASS, a name, when it concerns SOCKET."
  (if (streamp socket)
      (gethash class *stream-classes* class)
      class))

(defun more-initargs (class socket seconds)
  "The initargs that only some classes have."
  (append (when (and (streamp socket) (subtypep class 'stream-error)) (list :stream socket))
          (when (and seconds (subtypep class 'timeout)) (list :time seconds))))

(defun without-keys (plist keys)
  (loop for (key value) on plist by #'cddr
        unless (member key keys)
          collect key and collect value))

(defun ends-of (socket)
  "The initargs that name both ends of SOCKET; none for NIL."
  (when socket
    (multiple-value-bind (local remote) (socket-ends socket)
      (list :local local :remote remote))))

(defun failure (class operation code &rest facts &key socket seconds message arguments
                &allow-other-keys)
  "The condition of CLASS, a name, for the failure of OPERATION by CODE, both keywords. FACTS are
the initargs of NETWORK and CLASS; MESSAGE with ARGUMENTS formats the reason, NIL for the words of
CODE."
  (let ((class (signalled-class class socket)))
    (apply #'make-condition class
           :operation operation :proc operation :code code :mesg message :args arguments
           (append (more-initargs class socket seconds)
                   (without-keys facts '(:message :arguments))
                   (ends-of socket)))))

(defun fail-as (class operation code &rest facts &key &allow-other-keys)
  "Signal the condition that FAILURE makes of the same arguments; never return."
  (error (apply #'failure class operation code facts)))

(defun fail-argument (operation datum type expected)
  (fail-as 'mistyped-argument operation :invalid
           :datum datum :expected-type type
           :message "expected ~A, got ~S" :arguments (list expected datum)))

(declaim (inline check-argument))       ; so that TYPE is known where it is tested
(defun check-argument (operation datum type expected)
  "Return DATUM if it is of TYPE; else signal a USAGE-ERROR that is a TYPE-ERROR too. EXPECTED, a
text, says what an argument of OPERATION should have been."
  (if (typep datum type)
      datum
      (fail-argument operation datum type expected)))

(defun callable-p (object)
  "True if OBJECT is a function, or a symbol that names one."
  (or (functionp object)
      (and (symbolp object)
           (fboundp object)
           (not (macro-function object))
           (not (special-operator-p object)))))

(deftype callable ()
  '(satisfies callable-p))

(deftype proper-list ()
  '(satisfies %proper-list-p))

(defun check-bounds (operation vector start end)
  "Signal a USAGE-ERROR that is a TYPE-ERROR too unless START and END, or NIL, bound a part of
VECTOR, an argument of OPERATION."
  (let ((length (length vector)))
    (unless (and (typep start `(integer 0 ,length))
                 (typep end `(or null (integer ,start ,length))))
      (fail-as 'mistyped-argument operation :invalid
               :datum (if (typep start `(integer 0 ,length)) end start)
               :expected-type `(integer 0 ,length)
               :message "expected bounds in a vector of ~D element~:P, got ~S and ~S"
               :arguments (list length start end)))))

(defun keywords-of (function)
  "The keywords that FUNCTION, a name, takes: a list in alphabetical order."
  (sort (loop for parameter in (rest (member '&key (%lambda-list function)))
              unless (member parameter lambda-list-keywords)
                collect (intern (string (if (consp parameter) (first parameter) parameter))
                                :keyword))
        #'string<))

(defun check-keywords (operation plist allowed)
  "Return PLIST, the keyword arguments of OPERATION, if ALLOWED, a list, has each keyword; else
signal a USAGE-ERROR that is a PROGRAM-ERROR too and lists ALLOWED."
  (loop for (key) on plist by #'cddr
        unless (or (member key allowed) (getf plist :allow-other-keys))
          do (fail-as 'unknown-keyword operation :invalid
                      :message "expected keywords among~{ ~S~}, got ~S"
                      :arguments (list allowed key)))
  plist)

(defun show-keywords (name)
  "Make DESCRIBE and editors show the argument list of function NAME without its &REST and
&ALLOW-OTHER-KEYS, where its keywords say all."
  (%show-lambda-list name (loop with rest = (remove '&allow-other-keys (%lambda-list name))
                                while rest
                                if (eq (first rest) '&rest)
                                  do (setf rest (cddr rest))
                                else
                                  collect (pop rest))))

(defun note-keywords (function)
  "Let CHECK-OWN-KEYWORDS know the keywords of FUNCTION, a name, whose lambda list ends with
&ALLOW-OTHER-KEYS so that it checks them itself; editors see those that it has."
  (setf (get function 'keywords) (keywords-of function))
  (show-keywords function))

(defun check-own-keywords (function operation plist)
  "As CHECK-KEYWORDS, with what FUNCTION, a name, takes."
  (check-keywords operation plist (get function 'keywords)))

(defun kind-row (kind)
  "(code . class) of KIND, as the library says."
  (flet ((symbol-for (name package)
           (intern (string-upcase name) package)))
    (cons (symbol-for (lport-kind-name kind) :keyword)
          (symbol-for (lport-kind-condition kind) :port))))

(defvar *kinds*
  (coerce (cons '(:other . network) (loop for kind from 1 below +lport-kind-end+
                                          collect (kind-row kind)))
          'simple-vector)
  "From the number of a kind to (code . class).")

(defun status-errno (status)
  "The system's number in STATUS, or NIL."
  (let ((errno (lport-status-errno status)))
    (unless (zerop errno) errno)))

(defun status-code (status)
  "The keyword for STATUS: of its kind, or :ERRNO-123 where no kind knows the number."
  (let ((errno (status-errno status))
        (code (car (svref *kinds* (lport-status-kind status)))))
    (if (and errno (eq code :other))
        (values (intern (format nil "ERRNO-~D" errno) :keyword))
        code)))

(defun status-text (status)
  "The library's phrase for STATUS."
  (text-from (pointer cap) (lport-status-text status pointer cap)))

(defun status-condition (status operation &rest facts &key message arguments &allow-other-keys)
  "The condition for STATUS, a result below 0 of the library, that OPERATION, a keyword, met. FACTS
as of FAILURE; without a MESSAGE the library's own phrase is the reason."
  (apply #'failure (cdr (svref *kinds* (lport-status-kind status))) operation (status-code status)
         :errno (status-errno status)
         :message (or message "~A")
         :arguments (if message arguments (list (status-text status)))
         (without-keys facts '(:message :arguments))))

(defun fail (status operation &rest facts &key &allow-other-keys)
  "Signal the condition that STATUS-CONDITION makes of the same arguments; never return."
  (error (apply #'status-condition status operation facts)))

;;; Restarts

(defun ask (control &rest arguments)
  "Ask at *QUERY-IO* what CONTROL and ARGUMENTS say."
  (fresh-line *query-io*)
  (apply #'format *query-io* control arguments)
  (finish-output *query-io*))

(defun read-new-value (what)
  "Ask for a line at *QUERY-IO* that replaces WHAT, a string; a list of it, as restarts take
arguments."
  (ask "New ~A: " what)
  (list (read-line *query-io*)))

(defun call-with-retry-restarts (function value &key (doing "it") (what "value"))
  "Return the values of FUNCTION, called with VALUE. While it fails the restarts RETRY, which calls
it again, and USE-VALUE, which calls it with another value, are there. DOING, a string, says in
their reports what is done (\"resolve example.org\"), WHAT what another value would be (\"host\")."
  (loop
    (restart-case (return (funcall function value))
      (retry ()
        :report (lambda (stream) (format stream "Try again to ~A." (safe-line doing))))
      (use-value (new)
        :report (lambda (stream) (format stream "Use another ~A." what))
        :interactive (lambda () (read-new-value what))
        (setf value new)))))

(defmacro with-retry ((variable doing what) &body body)
  "Run BODY with VARIABLE, which has a value already; see CALL-WITH-RETRY-RESTARTS."
  `(call-with-retry-restarts (lambda (,variable) ,@body) ,variable :doing ,doing :what ,what))

;;; Restarts by name, as the standard has USE-VALUE and CONTINUE

(defun invoke-if-there (name condition &rest arguments)
  "Invoke the restart NAME that is there for CONDITION (NIL: for any); NIL if there is none."
  (let ((restart (find-restart name condition)))
    (when restart
      (apply #'invoke-restart restart arguments))))

(defun retry (&optional condition)
  "Invoke the restart RETRY: do what failed once more, with the same arguments. It is there while a
connect, a listen or a look-up has failed. CONDITION: what was signalled (NIL: any).
Returns NIL if there is no such restart, as CONTINUE does."
  (invoke-if-there 'retry condition))

(defun wait-longer (&optional seconds condition)
  "Invoke the restart WAIT-LONGER: the call that has timed out goes on where it was, for SECONDS
from now (a non-negative real; NIL: as long as it takes). It is there while a TIMEOUT is signalled.
CONDITION: what was signalled (NIL: any). Returns NIL if there is no such restart."
  (invoke-if-there 'wait-longer condition seconds))

(defun replace-character (&optional (character nil character-p) condition)
  "Invoke the restart REPLACE-CHARACTER: read or write CHARACTER in place of what does not convert,
and go on. Without CHARACTER: U+FFFD for octets that came, a question mark for a character that has
no octets. It is there while a DECODING-ERROR or an ENCODING-ERROR is signalled. CONDITION: what was
signalled (NIL: any). Returns NIL if there is no such restart."
  (if character-p
      (invoke-if-there 'replace-character condition character)
      (invoke-if-there 'replace-character condition)))
