;;;; reports - a condition as one line, for a log: OPERATION END failed: REASON (DETAILS). What is
;;;; not known is left out.

(in-package :port)

;;; Which end a line names

(defparameter *phrases*
  '((:connect "connect" "to" :given :remote)
    (:resolve "resolve" nil :host)
    (:parse "parse" nil :given)
    (:convert "convert" nil :given)
    (:address "make an address" "of" :given)
    (:service "look up" "service" :given)
    (:listen "listen" "on" :given :local)
    (:bind "bind" "to" :given :local)
    (:accept "accept" "on" :local :given)
    (:read "read" "from" :remote :given :local)
    (:write "write" "to" :remote :given :local)
    (:tls "set up TLS" nil)
    (:handshake "handshake" "with" :remote :given)
    (:proxy "PROXY header" "from" :remote :local)
    (:send "send" "to" :given :remote (:local "from"))
    (:receive "receive" "from" :remote (:local "on"))
    (:credentials "credentials" "of" :remote :local)
    (:batch "use a batch" "for" :given)
    (:join "join" nil :given (:local "on"))
    (:leave "leave" nil :given (:local "on"))
    (:relay "relay" "from" :remote :local)
    (:close "close" nil :remote :local :given)
    (:shutdown "shut down" nil :remote :local)
    (:wait "wait" "for" :remote :local)
    (:option "socket option" "on" :remote :local)
    (:limit "time limit" "of" :remote :local)
    (:element-type "set the element type" "of" :remote :local)
    (:external-format "set the external format" "of" :remote :local)
    (:format "set the stream format" "of" :remote :local)
    (:info "read what is known" "of" :remote :local)
    (:name "name the ends" "of" :remote :local)
    (:datum "find the datum" "of" :remote :local)
    (:descriptor "get the descriptor" "of" :remote :local)
    (:adopt "adopt a descriptor" nil)
    (:detach "detach the descriptor" "of" :remote :local)
    (:serve "serve" "on" :local :given)
    (:listeners "list the listeners" nil)
    (:connections "list the connections" nil)
    (:stop "stop the service" nil)
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
        ((and (consp fact) (%proper-list-p fact)) (list-text fact))
        (t (plain-text fact))))

(defun list-text (hosts)
  "\"192.0.2.1 (and 2 more)\" for HOSTS, those of one connect."
  (format nil "~A~@[ (and ~D more)~]" (plain-text (first hosts))
          (and (rest hosts) (length (rest hosts)))))

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
  "Why CONDITION came: its own words, else those of its code, or of its class where a program has
signalled it."
  (or (message-text condition)
      (words-of (network-code condition))
      (name-text condition)
      "unknown reason"))

(defun words-of (name)
  "The symbol NAME as words; NIL for NIL."
  (and name (substitute #\Space #\- (string-downcase name))))

(defconstant +most-attempts+ 16 "How many attempts a report lists.")

(defun at-own-end-p (condition)
  "True if CONDITION, of a connect, is of a bind that came before."
  (eq (network-operation condition) :bind))

(defun of-the-connect-p (condition)
  "True if CONDITION, of a connect, is what the system said of that itself: the own end was to be
had."
  (and (eq (network-operation condition) :connect) (network-errno condition) t))

(defun attempt-text (attempt condition)
  "\"192.0.2.1 connection refused\" for ATTEMPT; without the address if the caller gave just that
one. With the own end, \"192.0.2.1 from 127.0.0.1:80 address in use\", where that is what failed."
  (destructuring-bind (address . failure) attempt
    (let ((address (plain-text address))
          (reason (reason-text failure)))
      (cond ((at-own-end-p failure)
             (format nil "~A from ~A ~A" address (network-local failure) reason))
            ((equal address (host-text condition)) reason)
            (t (format nil "~A ~A" address reason))))))

(defun one-failure-p (condition)
  "True if CONDITION is of an own end, and the same for every attempt."
  (and (at-own-end-p condition)
       (every (lambda (attempt)
                (and (at-own-end-p (cdr attempt))
                     (eq (network-code (cdr attempt)) (network-code condition))))
              (network-attempts condition))))

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
    (cond ((or (null attempts) (equal attempts reason) (one-failure-p condition)) reason)
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

(defun low-port-p (condition)
  "True if the port in CONDITION is below 1024, or the name of a service, whose number is not known
here. A path has no port."
  (let ((port (network-port condition)))
    (if (integerp port)
        (< 0 port 1024)
        port)))

(defconstant +access-denied+ 13 "EACCES. What a firewall forbids is EPERM.")

(defun host-denied-p (condition)
  "True if the system itself denied something to do with a host: to send a broadcast from this
socket."
  (and (network-port condition)
       (eql (network-errno condition) +access-denied+)))

(defun unicast-denied-p (condition)
  "True if the socket whose connect was denied had been opened without :BROADCAST."
  (and (network-unicast condition) (host-denied-p condition)))

(defun beyond-ascii-p (condition)
  "True if the host in CONDITION is a string with a character that is not of ASCII."
  (let ((host (network-host condition)))
    (and (stringp host)
         (some (lambda (character) (> (char-code character) 127)) host))))

(defparameter *hints*
  '((:permission-denied (:listen :bind) low-port-p "ports below 1024 need a privilege")
    (:permission-denied (:send) host-denied-p "a broadcast needs :BROADCAST T")
    (:connect-denied (:connect) unicast-denied-p "a broadcast needs :BROADCAST T")
    (:host-not-found (:resolve :connect :listen :bind :send) beyond-ascii-p
     "a name with letters outside ASCII is expected in its IDNA form, xn--...")
    (:address-in-use (:join) identity "this socket has joined it already")
    (:address-not-available (:leave) identity "this socket has not joined it so"))
  "What to do about a permission that is missing, or a name that is not found, and what the system
means of a group: code, operations, predicate of the condition, text.")

(defun hint-text (condition)
  (loop for (code operations fits-p text) in *hints*
        when (and (eq code (network-code condition))
                  (member (network-operation condition) operations)
                  (funcall fits-p condition))
          return text))

(defun details-text (condition)
  "What else is known, in parentheses after a space; or \"\"."
  (format nil "~@[ (~{~A~^, ~})~]"
          (remove nil (list (hint-text condition) (octets-text condition)
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
      (words-of name))))

(defun bare-p (condition)
  "True if nothing is known of CONDITION but its class, which programs of 1999 do not know."
  (and (name-text condition)
       (notany (lambda (reader) (funcall reader condition))
               '(net-proc network-host network-port net-mesg))))

(defun historical-text (condition)
  "As programs of 1999 know it: [PROC] \"host\":port message."
  (plain-format "[~S] ~S:~D~@[ ~A~]~@[ [timeout ~A sec]~]"
                (net-proc condition) (net-host condition) (net-port condition)
                (or (with-plain-printer () (message-text condition)) (name-text condition))
                (and (typep condition 'timeout)
                     (typep (timeout-time condition) '(and real (not (real * 0))))
                     (timeout-time condition))))

(defun failure-text (condition)
  "The line for CONDITION, with no more of what is in it than fits there."
  (with-short-printer ()
    (safe-line (format nil "~A failed: ~A~A" (action-text condition) (why-text condition)
                       (details-text condition)))))

(defun report-failure (condition stream)
  "Write the line for CONDITION to STREAM. Without an operation a program made it: in the old way,
or of nothing but its class."
  (write-string (cond ((network-operation condition) (failure-text condition))
                      ((bare-p condition) (name-text condition))
                      (t (historical-text condition)))
                stream))

(defmethod print-object ((condition network) stream)
  "Print CONDITION under its public name with its report; without escape the report alone."
  (if *print-escape*
      (print-unreadable-object (condition stream)
        (write-string (plain-format "~S ~A" (public-name condition) condition) stream))
      (%next-report (report-failure condition stream))))
