;;;; client - connections to where somebody listens.

(in-package :port)

(defvar *connect-keywords* '()
  "The keywords of OPEN-SOCKET and its BIN.")

(defun open-socket (host port &rest options)
  "Connect to PORT of HOST and return a SOCKET, a stream of characters and octets.
HOST: a name, every address of which is tried; a literal IPv4 or IPv6 address; an integer ipaddr; an
address object; a list of literals and address objects, at least one, that are tried in that order.
PORT: 1 to 65535, or the name of a service. BIN, the historical third argument: true means octets
first of all, else characters; it is there if an odd number of arguments follows PORT.
TIMEOUT: seconds for names, every address and handshakes together (NIL: no limit). LOCAL-HOST and
LOCAL-PORT: the own end (NIL: the system picks); of a name the first address of each family. FAMILY:
:INET or :INET6, other addresses are left out (NIL: both). NODELAY: send small writes at once, see
tcp(7). KEEPALIVE: notice a peer that is gone for good. ELEMENT-TYPE: CHARACTER or (UNSIGNED-BYTE
8), as BIN. EXTERNAL-FORMAT: see STREAM-EXTERNAL-FORMAT. INPUT-TIMEOUT and OUTPUT-TIMEOUT: see
SOCKET-TIMEOUT.
OPTIONS: names of SOCKET-OPTIONS and values in pairs, a property list, set before the socket is
bound and connected, and after what the other keywords say, as :DEVICE, :MARK and :MAX-SEGMENT need
it. An address whose socket cannot have one of them is not tried: with :V6-ONLY no address of IPv4.
Conditions: CONNECT-ERROR with all attempts, RESOLVE-ERROR, TIMEOUT, ADDRESS-ERROR,
RESOURCE-EXHAUSTED; those of (SETF SOCKET-OPTION) where an option cannot be set. Where it is the own
end that is not to be had NETWORK-OPERATION is :BIND, host and port are those of that end, and
NETWORK-LOCAL and NETWORK-REMOTE tell both.
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
                               input-timeout output-timeout options)
  "OPEN-SOCKET with its arguments sorted out."
  (let ((settings (parse-settings :bin bin :element-type element-type
                                  :external-format external-format
                                  :input-timeout input-timeout :output-timeout output-timeout))
        (presets (parse-presets options)))
    (check-timeout timeout)
    (with-retry (host "connect" "host")
      (with-own-end-retry (local-host local-port)
        (let* ((target (dial-target host))
               (number (with-retry (port "connect" "port")
                         (port-designator port "tcp" :connect)))
               (family-number (family-designator family :connect))
               (limit (operation-deadline timeout))
               (own (find-origin local-host local-port family timeout))
               (flags (flags-of +lport-nodelay+ nodelay +lport-keepalive+ keepalive)))
          (when (listp target)
            (check-zones target host own)
            (setf target (addresses-of-family target family host)))
          (dial-to (lambda () (open-dial target number family-number own flags))
                   host port limit timeout settings :own own :presets presets))))))

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

;;; The own end

(defstruct (origin (:copier nil) (:predicate nil)
                   (:constructor make-origin (host port blocks)))
  "Where a connect is to come from: HOST and PORT, as the caller gave them, and what to bind to, one
block for each family; BLOCKS has at least one."
  (host nil :read-only t)
  (port nil :read-only t)
  (blocks '() :type list :read-only t))

(defun find-origin (host port family timeout)
  "The own end HOST and PORT, either of which may be NIL; NIL where both are. TIMEOUT, in seconds,
holds for the look-up of HOST."
  (when (or host port)
    (let ((number (local-port-number port "tcp")))
      (make-origin host port
                   (if host
                       (loop for address in (own-addresses host family timeout)
                             collect (address-block address number))
                       (list (make-block +lport-any+ number)))))))

(defun own-addresses (host family timeout)
  "The addresses that HOST, an own end, stands for: the first of each family."
  (flet ((family-of (address) (address-family (unmapped address))))
    (let ((addresses (with-deadline (timeout) (addresses-of host family :bind))))
      (unless (member family (list nil (family-of (first addresses))))
        (fail-as 'address-not-available :bind :address-not-available
                 :host host :message "expected an address of family ~S, got ~A"
                 :arguments (list family (first addresses))))
      (remove-duplicates addresses :key #'family-of :from-end t))))

(defun addresses-of (host family operation)
  "The addresses that HOST names, at least one. Restarts: those of RESOLVE."
  (with-retry (host "resolve the host" "host")
    (let ((target (host-designator host operation)))
      (cond ((address-p target)
             (check-zone target host operation)
             (list target))
            (t (resolve-name target family nil))))))

(defun one-address (host family operation)
  "The address that HOST names, the first where there are several. Restarts: those of RESOLVE."
  (first (addresses-of host family operation)))

;;; What is dialled

(defun dial-target (host)
  "What HOST stands for: a name, a string, or the list of the addresses to try."
  (typecase host
    (null (fail-type :connect :host host '(or host-designator cons)
                     "a host: a name, an address, an ipaddr or a list of addresses"))
    (cons (check-argument :connect host 'proper-list "a proper list of addresses")
     (mapcar #'listed-address host))
    (t (let ((target (host-designator host :connect)))
         (if (stringp target) target (list target))))))

(defun listed-address (host)
  "The address that HOST, in a list of them, is or spells. An integer is none here, as a list of
octets was not meant as many hosts."
  (check-argument :connect host '(or string address) "an address in a list of them")
  (let ((target (host-designator host :connect)))
    (if (stringp target)
        (fail-syntax :connect host "an address in a list of them")
        target)))

(defun check-zones (addresses host own)
  "As CHECK-ZONE for each of ADDRESSES, which HOST stands for, from OWN, an own end or NIL."
  (let ((zoned (and own (find-if #'plusp (origin-blocks own) :key #'block-scope))))
    (loop for address in addresses
          for given in (if (listp host) host (list host))
          do (check-zone address given :connect zoned))))

(defun addresses-of-family (addresses family host)
  "Those of ADDRESSES, given as HOST, that are of FAMILY, a keyword or NIL; signals HOST-NOT-FOUND
if none is."
  (or (remove-if-not (lambda (address) (member family (list nil (address-family address))))
                     addresses)
      (fail-as 'host-not-found :connect :host-not-found
               :host host :message "expected an address of family ~S, got ~{~A~^, ~}"
               :arguments (list family addresses))))

(defun in-a-row (blocks)
  "The octets of BLOCKS, a list of at least one, one after the other."
  (if (rest blocks)
      (loop with octets = (octets-of-size (* +lport-address-size+ (length blocks)))
            for block in blocks
            for at from 0 by +lport-address-size+
            do (replace octets block :start1 at)
            finally (return octets))
      (first blocks)))

(defun open-dial (target port family own flags)
  "Begin to connect to TARGET, a name or a list of addresses, from OWN, an own end or NIL: the dial,
or a status."
  (let* ((locals (and own (origin-blocks own)))
         (flags (logior flags (flags-of +lport-two-locals+ (rest locals)))))
    (with-optional-octets (local (and locals (in-a-row locals)))
      (if (stringp target)
          (with-text (name length target)
            (lport-dial-open name length port family local flags))
          (with-octets (addresses (in-a-row (loop for address in target
                                                  collect (address-block address port))))
            (lport-dial-open-addresses addresses (length target) +lport-stream+ local flags))))))

(defun open-path-dial (block kind)
  "Begin to connect to the local name in BLOCK: the dial, or a status."
  (with-octets (pointer block)
    (lport-dial-open-addresses pointer 1 kind (null-pointer) 0)))

;;; Driving a dial

(defun dial-to (open host port limit timeout settings
                &key own (kind :stream) (presets (make-presets)))
  "Open a dial with OPEN and step it until there is a connection, by LIMIT; the socket with SETTINGS
around it, which has PRESETS. The dial is closed on every exit, and the attempts that still go on
with it. HOST, PORT and TIMEOUT, as the caller gave them, OWN, an own end or NIL, and the attempts
are for the condition."
  (declare (type moment limit))
  (%close-lost)
  (let ((dial 0) (begun (lport-clock-now)) (socket nil) (kept nil)
        (seconds (limit-in-seconds timeout limit)))
    (labels ((failed (status)
               (or (preset-failure presets status :host host :port port)
                   (apply #'status-condition status
                          (append (facts-of-dial dial status own host port)
                                  (list :seconds (seconds-to-tell status seconds begun)
                                        :attempts (attempts-of dial own presets))))))
             (later ()
               (multiple-value-setq (limit seconds) (check-moment limit #'failed seconds))))
      (with-cleanup
           (progn
             (later)
             (call-deferred (setf dial (funcall open)))
             (when (minusp dial)
               (signal-failure (failed dial)))
             (let ((status (with-presets (pointer count presets)
                             (lport-dial-set dial pointer count))))
               (when (minusp status)
                 (signal-failure (failed status))))
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

(defun facts-of-dial (dial status own host port)
  "The operation of DIAL that came to STATUS, then the initargs that tell its ends: those of OWN, an
own end or NIL, or HOST and PORT."
  (let ((count (if (plusp dial) (lport-dial-count dial) 0)))
    (cond ((loop for index below count
                 when (= status (nth-value 1 (attempt-block dial index)))
                   return (facts-of-attempt dial index own host port)))
          ((and own
                (zerop count)
                (= (lport-status-kind status) +lport-address-not-available+))
           (list :connect :host host :port port
                 :message "no address of family ~{~S~^ or ~}, that of the own end ~A"
                 :arguments (list (mapcar #'block-family (origin-blocks own))
                                  (origin-host own))))
          (t (list :connect :host host :port port)))))

(defun facts-of-attempt (dial index own host port)
  "As FACTS-OF-DIAL, of attempt INDEX."
  (flet ((text (block)
           (endpoint-text (block-address block) (block-port block))))
    (multiple-value-bind (local failed) (block-from (place)
                                          (lport-dial-attempt-own dial index place))
      (if (plusp failed)
          (list :bind :host (origin-host own) :port (origin-port own)
                      :local (text local) :remote (text (attempt-block dial index)))
          (list :connect :host host :port port)))))

(defun attempts-of (dial own presets)
  "The failures of DIAL, from OWN with PRESETS, so far, a list of (address . condition) in the order
tried. An attempt that goes on has timed out, since nobody waits for it any longer."
  (when (plusp dial)
    (loop for index from 0 below (lport-dial-count dial)
          collect (attempt-of dial index own presets))))

(defun attempt-of (dial index own presets)
  (multiple-value-bind (block status) (attempt-block dial index)
    (let ((address (block-address block)))
      (cons address
            (or (preset-failure presets status)
                (apply #'status-condition
                       (if (= (lport-status-kind status) +lport-in-progress+)
                           (lport-status-make +lport-timed-out+)
                           status)
                       (facts-of-attempt dial index own
                                         (princ-to-string address) (block-port block))))))))

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
