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
      (apply #'connect-to #'dial-to host port :bin (check-bin (first options))
             (check-keywords :connect (rest options) *connect-keywords*))
      (apply #'connect-to #'dial-to host port
             (check-keywords :connect options *connect-keywords*))))

(defun check-bin (bin)
  "BIN, unless it is a keyword of OPEN-SOCKET, whose value has been forgotten."
  (let ((others (remove :bin *connect-keywords*)))
    (if (member bin others)
        (fail-argument :connect bin `(not (member ,@others)) "BIN or keywords and values in pairs")
        bin)))

(defun connect-to (dial host port &key timeout local-host local-port family (nodelay t)
                                    (keepalive t) bin element-type (external-format :utf-8)
                                    input-timeout output-timeout options)
  "OPEN-SOCKET with its arguments sorted out; DIAL is DIAL-TO, or a function of the same arguments."
  (declare (type function dial))
  (let ((settings (parse-settings :bin bin :element-type element-type
                                  :external-format external-format
                                  :input-timeout input-timeout :output-timeout output-timeout))
        (presets (parse-presets options)))
    (check-timeout timeout)
    (with-retry (host "connect" "host")
      ;; A connection from the one end to the other may exist already.
      (with-own-end-retry (local-host local-port address-not-available)
        (let* ((target (dial-target host))
               (number (with-retry (port "connect" "port")
                         (port-designator port "tcp" :connect)))
               (family-number (family-designator family :connect))
               (limit (operation-deadline timeout))
               (own (find-origin local-host local-port family timeout))
               (flags (flags-of +lport-nodelay+ nodelay +lport-keepalive+ keepalive)))
          (when (listp target)
            (check-zones target host own)
            (setf target (addresses-of-family target family host :connect)))
          (funcall dial (lambda () (open-dial target number family-number own flags))
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
