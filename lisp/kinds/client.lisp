;;;; client - connections to where somebody listens.

(in-package :port)

(defvar *connect-keywords* '()
  "The keywords of OPEN-SOCKET and its BIN.")

(defun open-socket (host port &rest options)
  "Connect to PORT of HOST and return a SOCKET, a stream of characters and octets.
HOST: a name, every address of which is tried; a literal IPv4 or IPv6 address; an integer ipaddr; an
address object. PORT: 1 to 65535, or the name of a service. BIN, the historical third argument: true
means octets first of all, else characters; it is there if an odd number of arguments follows PORT.
TIMEOUT: seconds for names, every address and handshakes together (NIL: no limit). LOCAL-HOST and
LOCAL-PORT: the own end (NIL: the system picks). FAMILY: :INET or :INET6 (NIL: both). NODELAY: send
small writes at once, see tcp(7). KEEPALIVE: notice a peer that is gone for good. ELEMENT-TYPE:
CHARACTER or (UNSIGNED-BYTE 8), as BIN. EXTERNAL-FORMAT: see STREAM-EXTERNAL-FORMAT. INPUT-TIMEOUT
and OUTPUT-TIMEOUT: see SOCKET-TIMEOUT.
Conditions: CONNECT-ERROR with all attempts, RESOLVE-ERROR, TIMEOUT, ADDRESS-ERROR,
RESOURCE-EXHAUSTED.
Restarts: RETRY; USE-VALUE, another host or, where PORT, LOCAL-HOST or LOCAL-PORT is what is wrong,
another one of that; WAIT-LONGER. Source: socket(2), connect(2), RFC 8305."
  (if (oddp (length options))
      (apply #'connect-to host port :bin (check-bin (first options))
             (check-keywords :connect (rest options) *connect-keywords*))
      (apply #'connect-to host port
             (check-keywords :connect options *connect-keywords*))))

(defun check-bin (bin)
  "BIN, unless it is a keyword of OPEN-SOCKET, whose value has been forgotten."
  (let ((others (remove :bin *connect-keywords*)))
    (if (member bin others)
        (fail-argument :connect bin `(not (member ,@others)) "BIN or keywords and values in pairs")
        bin)))

(defun connect-to (host port &key timeout local-host local-port family (nodelay t) (keepalive t)
                               bin element-type (external-format :utf-8)
                               input-timeout output-timeout)
  "OPEN-SOCKET with its arguments sorted out."
  (let ((settings (parse-settings :bin bin :element-type element-type
                                  :external-format external-format
                                  :input-timeout input-timeout :output-timeout output-timeout)))
    (check-timeout timeout)
    (with-retry (host "connect" "host")
      (with-own-end-retry (local-host local-port)
        (let ((target (host-designator host :connect))
              (number (with-retry (port "connect" "port")
                        (port-designator port "tcp" :connect)))
              (family-number (family-designator family :connect))
              (limit (operation-deadline timeout))
              (local (local-end local-host local-port family timeout))
              (flags (flags-of +lport-nodelay+ nodelay +lport-keepalive+ keepalive)))
          (when (address-p target)
            (check-zone target host :connect local)
            (check-family target family host :connect))
          (dial-to (lambda () (open-dial target number family-number local flags))
                   host port limit timeout settings))))))

(setf *connect-keywords* (keywords-of 'connect-to))

(check-calls 'open-socket
             (lambda (arguments)
               (let ((options (cddr arguments)))
                 (if (oddp (length options)) (rest options) options)))
             *connect-keywords*)

(%show-lambda-list 'open-socket
                   `(host port &optional bin
                          ,@(remove 'bin (member '&key (%lambda-list 'connect-to)))))

(defun local-port-number (port protocol)
  "The number of PORT, as the user gave it, the own port of a connect over PROTOCOL; 0 for NIL."
  (with-retry (port "connect" "local port")
    (port-designator (or port 0) protocol :bind :minimum 0)))

(defun local-end (host port family timeout)
  "The block to bind to for the own end HOST and PORT, either of which may be NIL; NIL where both
are. TIMEOUT, in seconds, holds for the look-up of HOST."
  (when (or host port)
    (let ((number (local-port-number port "tcp")))
      (if host
          (address-block (with-deadline (timeout) (one-address host family :bind)) number)
          (make-block +lport-any+ number)))))

(defun one-address (host family operation)
  "The address that HOST names, the first where there are several. Restarts: those of RESOLVE."
  (with-retry (host "resolve the host" "host")
    (let ((target (host-designator host operation)))
      (cond ((address-p target)
             (check-zone target host operation)
             target)
            (t (first (resolve-name target family nil)))))))

(defun open-dial (target port family local flags)
  "Begin to connect to TARGET, a name or an address: the dial, or a status."
  (with-optional-octets (own local)
    (cond ((stringp target)
           (with-text (name length target)
             (lport-dial-open name length port family own flags)))
          (t (with-octets (address (address-block target port))
               (lport-dial-open-addresses address 1 +lport-stream+ own flags))))))

(defun open-path-dial (block kind)
  "Begin to connect to the local name in BLOCK: the dial, or a status."
  (with-octets (pointer block)
    (lport-dial-open-addresses pointer 1 kind (null-pointer) 0)))

;;; Driving a dial

(defun dial-to (open host port limit timeout settings &optional (kind :stream))
  "Open a dial with OPEN and step it until there is a connection, by LIMIT; the socket with SETTINGS
around it. The dial is closed on every exit, and the attempts that still go on with it. HOST, PORT
and TIMEOUT, as the caller gave them, and the attempts are for the condition."
  (declare (type moment limit))
  (%close-lost)
  (let ((dial 0) (begun (lport-clock-now)) (socket nil) (kept nil)
        (seconds (limit-in-seconds timeout limit)))
    (labels ((failed (status)
               (status-condition status :connect
                                 :host host :port port
                                 :seconds (seconds-to-tell status seconds begun)
                                 :attempts (attempts-of dial)))
             (later ()
               (multiple-value-setq (limit seconds) (check-moment limit #'failed seconds))))
      (with-cleanup
           (progn
             (later)
             (call-deferred (setf dial (funcall open)))
             (when (minusp dial)
               (signal-failure (failed dial)))
             (loop
               (let ((result 0))
                 (call-deferred
                   (setf result (lport-dial-step dial))
                   (when (plusp result)
                     (setf socket (adopt-handle result
                                                (lambda (handle)
                                                  (make-link kind handle settings
                                                             (peer-block handle (reached dial))))))
                     (lport-dial-close (shiftf dial 0))))
                 (cond (socket (setf kept t)
                               (return socket))
                       ((= (lport-status-kind result) +lport-in-progress+)
                        (lport-dial-wait dial limit)
                        (later))
                       (t (signal-failure (failed result)))))))
        (when (plusp dial)
          (lport-dial-close dial))
        (unless (or kept (null socket)) ; an interrupt that has come meanwhile has unwound this
          (close socket :abort t))))))

(defun attempt-block (dial index)
  "Values: the address block of attempt INDEX of DIAL; its status."
  (block-from (place)
    (lport-dial-attempt dial index place)))

(defun reached (dial)
  "The block of the address that DIAL has reached."
  (loop for index from (1- (lport-dial-count dial)) downto 0
        do (multiple-value-bind (block status) (attempt-block dial index)
             (when (zerop status)
               (return block)))))

(defun attempts-of (dial)
  "The failures of DIAL so far, a list of (address . condition) in the order tried. An attempt that
goes on has timed out, since nobody waits for it any longer."
  (when (plusp dial)
    (loop for index from 0 below (lport-dial-count dial)
          collect (attempt-of dial index))))

(defun attempt-of (dial index)
  (multiple-value-bind (block status) (attempt-block dial index)
    (let ((address (block-address block)))
      (cons address
            (status-condition (if (= (lport-status-kind status) +lport-in-progress+)
                                  (lport-status-make +lport-timed-out+)
                                  status)
                              :connect
                              :host (princ-to-string address) :port (block-port block))))))

;;; Forms that close

(defun call-with-open-socket (function socket)
  "Call FUNCTION with SOCKET and close it on every exit: flush on a normal one, abort on a non-local
one.
Returns the values of FUNCTION. Conditions: those of CLOSE."
  (call-and-close function socket))

(defmacro with-open-socket ((variable host port &rest options) &body body)
  "Run BODY with VARIABLE bound to a SOCKET connected to PORT of HOST (see OPEN-SOCKET, which takes
OPTIONS), and close it on every exit: flush on a normal one, abort on a non-local one. Returns the
values of BODY."
  `(call-with-open-socket (lambda (,variable) ,@body)
                          (open-socket ,host ,port ,@options)))
