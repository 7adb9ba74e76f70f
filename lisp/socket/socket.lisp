;;;; socket - the classes that users see, how their objects are made, their ends, printing, limits.
;;;;
;;;; A socket is a Common Lisp stream over a connection; a socket-server is no stream, it only hands
;;;; them out. Invariant: an object of these classes exists only around a handle that was open when
;;;; it was made, and from then on the object, or the registry, closes that handle, once.

(in-package :port)

(defclass endpoint ()
  ((channel :initarg :channel :reader endpoint-channel :type channel)
   (local :initarg :local :accessor endpoint-local
          :documentation "The block of the own address, or NIL: not asked for yet.")
   (remote :initarg :remote :accessor endpoint-remote
           :documentation "The block of the peer's address, or NIL: it has none.")
   (born :initform (lport-clock-now) :reader endpoint-born)
   (datum :initform nil :accessor endpoint-datum :documentation "The user's, see SOCKET-DATUM."))
  (:default-initargs :local nil :remote nil)
  (:documentation "What every kind of socket is: a channel and its two ends."))

(defun endpoint-handle (endpoint)
  (channel-handle (endpoint-channel endpoint)))

(defclass socket (endpoint
                  fundamental-binary-input-stream fundamental-binary-output-stream
                  fundamental-character-input-stream fundamental-character-output-stream)
  ((channel :reader socket-connection)
   (link :initform nil :accessor socket-link
         :documentation "The blocks (remote . local) of the connection itself, where a header named
others, see proxy.lisp; or NIL."))
  (:documentation "A connected socket: a bivalent stream of characters and octets in any mixture.
Made by OPEN-SOCKET, SOCKET-ACCEPT, OPEN-UNIX-SOCKET and OPEN-SOCKET-PAIR; CLOSE closes it."))

(defclass socket-server (endpoint)
  ((pending :initform (list nil) :reader server-pending
            :documentation "A cell with the list of those not handed out yet, see proxy.lisp.")
   (settings :initarg :settings :reader server-settings
             :documentation "The stream keywords that its connections begin with, a plist.")
   (parsed :initarg :parsed :reader server-parsed-settings
           :documentation "The same, parsed.")
   (kind :initarg :kind :initform :stream :reader server-kind
         :documentation ":STREAM, or :SEQPACKET for one whose connections are of packets."))
  (:documentation "A listening socket. Made by OPEN-SOCKET-SERVER and OPEN-UNIX-SERVER;
SOCKET-ACCEPT takes connections from it; CLOSE and SOCKET-SERVER-CLOSE close it."))

(defclass datagram-socket (endpoint)
  ((channel :reader socket-messenger))
  (:documentation "A socket that keeps the boundaries of messages: UDP, local datagrams, sequenced
packets. No stream: SOCKET-SEND and SOCKET-RECEIVE move whole messages. Made by
OPEN-DATAGRAM-SOCKET, and, with a :KIND, by OPEN-UNIX-SOCKET, OPEN-UNIX-SERVER, SOCKET-ACCEPT and
OPEN-SOCKET-PAIR; CLOSE closes it."))

(defun check-socket (object operation)
  (check-argument operation object 'socket "a SOCKET"))

(defun check-server (object operation)
  (check-argument operation object 'socket-server "a SOCKET-SERVER"))

(defun check-endpoint (object operation)
  (check-argument operation object 'endpoint "a SOCKET, a DATAGRAM-SOCKET or a SOCKET-SERVER"))

(defun check-link (object operation)
  (check-argument operation object '(or socket datagram-socket) "a SOCKET or a DATAGRAM-SOCKET"))

(defconstant +no-such-call+ 38 "ENOSYS. What a kind of socket does not know is EOPNOTSUPP.")

(defun fail-of-kind (socket status operation expected &rest facts)
  "Signal the condition for STATUS of OPERATION on SOCKET. EXPECTED, a text, says what kind of
socket it should have been, unless the system knows the call for none."
  (if (and (= (lport-status-kind status) +lport-not-supported+)
           (/= (lport-status-errno status) +no-such-call+))
      (apply #'fail status operation :socket socket
                                     :message "expected ~A, got ~S"
                                     :arguments (list expected socket)
                                     facts)
      (apply #'fail status operation :socket socket facts)))

;;; Making

(defun adopt-handle (handle make)
  "The object that MAKE, called with HANDLE, makes around it. HANDLE is closed if that fails, and
when the object becomes garbage. To be called with interrupts deferred since HANDLE was got."
  (let ((done nil))
    (unwind-protect
         (let ((endpoint (funcall make handle)))
           (setf (channel-socket (endpoint-channel endpoint)) endpoint)
           (register-endpoint endpoint handle)
           (setf done t)
           endpoint)
      (unless done                      ; the heap may be exhausted anywhere here
        (lport-socket-close handle 0)))))

(defun open-endpoint (open make &optional prepare)
  "The object that MAKE, called with it, makes around the handle that OPEN returns; or its status.
Both are called with interrupts deferred. What has come meanwhile is let in before anybody has the
object: if that unwinds this, or PREPARE, a function of the object, does not return, it is closed."
  (declare (type function open make) (type (or null function) prepare))
  (%close-lost)
  (let ((kept nil))
    (with-waiting (made (let ((result (funcall open)))
                          (if (plusp result) (adopt-handle result make) result)))
        (progn
          (when (and prepare (not (integerp made)))
            (funcall prepare made))
          (setf kept t)
          made)
      (unless (or kept (integerp made))
        (close made :abort t)))))

(defun opened (result operation &rest facts)
  "RESULT, as of OPEN-ENDPOINT, if it is an object; signals what it says if it is the status of
OPERATION. FACTS as for FAIL."
  (if (integerp result)
      (apply #'fail result operation facts)
      result))

(defstruct (settings (:copier nil) (:predicate nil)
                     (:constructor make-settings
                         (element-type format input-timeout output-timeout header-span)))
  "What the stream keywords of a constructor say, checked and parsed, before anything is opened."
  (element-type 'character :read-only t)
  (format *utf-8* :type text-format :read-only t)
  (input-timeout +never+ :type moment :read-only t)
  (output-timeout +never+ :type moment :read-only t)
  (header-span nil :type (or null moment) :read-only t))

(defparameter *proxy-limit* 5
  "Seconds from the accept within which a header has to be there, if nothing else is said.")

(defun proxy-span (proxy-protocol)
  "The nanoseconds that PROXY-PROTOCOL, the keyword, gives a header; NIL where there is none."
  (check-argument :listen proxy-protocol '(or boolean (and seconds (not (real 0 0))))
                  "T, NIL or a number of seconds above 0 for PROXY-PROTOCOL")
  (when proxy-protocol
    (nanoseconds (if (eq proxy-protocol t) *proxy-limit* proxy-protocol))))

(defun parse-settings (&key bin element-type (external-format :utf-8) input-timeout output-timeout
                         proxy-protocol)
  "The settings that the stream keywords say. ELEMENT-TYPE wins over BIN."
  (make-settings (element-type-for bin element-type)
                 (parse-external-format external-format)
                 (span-of input-timeout)
                 (span-of output-timeout)
                 (proxy-span proxy-protocol)))

(defun make-connected-socket (handle settings remote)
  "The socket around HANDLE; REMOTE is the block of its peer. It is kept: after a reset the system
does not know it any more."
  (make-instance 'socket
                 :remote remote
                 :channel (make-connection handle
                                           (settings-element-type settings)
                                           (settings-format settings)
                                           (settings-input-timeout settings)
                                           (settings-output-timeout settings))))

(defun subtype-p (type of)
  "True if TYPE, any object, is a type specifier for a subtype of OF."
  (handler-case (values (subtypep type of))
    ((or error warning) () nil)))       ; it is none

(defun element-type-for (bin element-type)
  "CHARACTER or (UNSIGNED-BYTE 8): what a stream that is opened with these two is first of all."
  (cond (element-type (element-type-named element-type))
        (bin '(unsigned-byte 8))
        (t 'character)))

(defun element-type-named (element-type)
  "CHARACTER or (UNSIGNED-BYTE 8), as ELEMENT-TYPE says."
  (cond ((member element-type '((unsigned-byte 8) unsigned-byte :default) :test #'equal)
         '(unsigned-byte 8))
        ((subtype-p element-type nil) (fail-element-type element-type))
        ((subtype-p element-type 'character) 'character)
        ((and (subtype-p element-type '(unsigned-byte 8))
              (subtype-p '(unsigned-byte 8) element-type))
         '(unsigned-byte 8))
        (t (fail-element-type element-type))))

(defun fail-element-type (element-type)
  (fail-argument :element-type element-type '(member character (unsigned-byte 8))
                 "CHARACTER or (UNSIGNED-BYTE 8) as element type"))

(defun span-of (seconds)
  "SECONDS as a span in nanoseconds; NIL: no limit."
  (if seconds (nanoseconds (check-seconds seconds)) +never+))

;;; Ends

(defun asked-block (handle ask)
  "The address block that ASK, one of lport_socket_name and lport_socket_peer, gives of HANDLE; or
NIL."
  (declare (type function ask))
  (multiple-value-bind (block status) (block-from (place) (funcall ask handle place))
    (declare (type (signed-byte 64) status))
    (unless (minusp status)
      block)))

(defun peer-block (handle asked)
  "The block of the peer of HANDLE, which was connected to ASKED: that, unless it is a wildcard, for
which the system takes an address of this machine."
  (or (and (wildcard-p asked)
           (asked-block handle #'lport-socket-peer))
      asked))

(defun local-block (endpoint)
  "The block of the own end of ENDPOINT, or NIL. A datagram socket that was not bound may be by now:
the system binds it when it sends."
  (let ((known (endpoint-local endpoint)))
    (if (and known (or (bound-p known) (not (typep endpoint 'datagram-socket))))
        known
        (setf (endpoint-local endpoint)
              (or (asked-block (endpoint-handle endpoint) #'lport-socket-name)
                  known)))))

(defun block-text (block)
  "The end that BLOCK describes as text, such as \"127.0.0.1:80\"; NIL for none."
  (when block
    (let ((text (endpoint-text (block-address block) (block-port block))))
      (if (string= text "")             ; a local socket that was never bound
          "unnamed"
          text))))

(defmethod socket-ends ((endpoint endpoint))
  (values (block-text (local-block endpoint)) (block-text (endpoint-remote endpoint))))

(defun host-and-port (block)
  "Values: the host as a string and the port of the end that BLOCK describes; a path and 0 for a
local one."
  (if block
      (values (princ-to-string (block-address block)) (block-port block))
      (values "" 0)))

(defun remote-host-and-port (socket)
  "As HOST-AND-PORT of the peer; NIL and NIL for a datagram socket that has none."
  (if (or (endpoint-remote socket) (typep socket 'socket))
      (host-and-port (endpoint-remote socket))
      (values nil nil)))

(defun socket-host/port (socket)
  "Return both ends of SOCKET as 4 values: remote host, remote port, local host, local port.
Hosts are strings: numeric addresses, IPv4-mapped ones as plain IPv4; for a local socket its path
(\"\" for an unnamed end) and port 0. The remote end of a DATAGRAM-SOCKET that is not connected is
NIL and NIL. The ends of a closed socket are those it had, as far as they were known.
Source: getpeername(2), getsockname(2)."
  (check-link socket :name)
  (multiple-value-bind (remote-host remote-port) (remote-host-and-port socket)
    (multiple-value-bind (local-host local-port) (host-and-port (local-block socket))
      (values remote-host remote-port local-host local-port))))

(defun socket-server-host/port (server)
  "Return where SERVER listens as 2 values: local host (a string) and port; for a local server its
path and 0. Source: getsockname(2)."
  (check-server server :name)
  (host-and-port (local-block server)))

;;; Printing

(defun describe-ends (endpoint)
  "One line of text that names both ends of ENDPOINT and says if it is closed."
  (multiple-value-bind (local remote) (socket-ends endpoint)
    (plain-format "~{~A~^ ~}"
                  (append (when local (list "local:" local))
                          (when remote (list "peer:" remote))
                          (unless (endpoint-open-p endpoint) (list "(closed)"))))))

(defun endpoint-open-p (endpoint)
  "True until ENDPOINT is closed. One that was saved with an image is closed in every other
process."
  (let ((channel (endpoint-channel endpoint)))
    (not (or (channel-closing channel)
             (minusp (lport-socket-state (channel-handle channel)))))))

(defmethod print-object ((endpoint endpoint) stream)
  (print-plainly endpoint stream (describe-ends endpoint)))

(defun socket-string (socket)
  "Return one line that names both ends of SOCKET, of any kind, as printing it shows."
  (check-endpoint socket :name)
  (plain-text socket))

;;; What every kind has: a descriptor and limits of time

(defun socket-descriptor (socket)
  "Return the file descriptor of SOCKET, of any kind: an integer. It stays the
socket's own: do not close it, and do not keep it longer than the socket. Signals SOCKET-CLOSED."
  (check-endpoint socket :descriptor)
  (let ((result (lport-socket-descriptor (endpoint-handle socket))))
    (if (minusp result)
        (fail-on (endpoint-channel socket) result :descriptor)
        result)))

(defun socket-datum (socket)
  "Return the object that a user has put with SOCKET, of any kind, such as the state of what is said
on it; NIL at first. Settable, to any object, from any thread; PORT does not look at it. It stays
when SOCKET is closed."
  (check-endpoint socket :datum)
  (endpoint-datum socket))

(defun (setf socket-datum) (datum socket)
  (check-endpoint socket :datum)
  (setf (endpoint-datum socket) datum))

(defun check-direction (direction)
  (check-argument :limit direction 'direction "a direction, :INPUT or :OUTPUT"))

(defun socket-timeout (socket direction)
  "Return the seconds that each blocking call on SOCKET in DIRECTION (:INPUT or :OUTPUT) may take,
NIL for no limit. Settable: a non-negative real or NIL. A call that takes longer signals TIMEOUT;
the socket stays usable. With 0 a call does what can be done at once, and no more. On a
SOCKET-SERVER :INPUT is for SOCKET-ACCEPT. It is not for WAIT-FOR-STREAM, WAIT-FOR-INPUT,
POLLER-WAIT and RELAY, which have a timeout of their own."
  (check-endpoint socket :limit)
  (check-direction direction)
  (span-seconds (endpoint-channel socket) direction))

(defun (setf socket-timeout) (seconds socket direction)
  (check-endpoint socket :limit)
  (check-direction direction)
  (setf (channel-timeout (endpoint-channel socket) direction) (span-of seconds))
  seconds)

(defun socket-deadline (socket direction)
  "Return the seconds left until the moment by which every call on SOCKET in DIRECTION (:INPUT or
:OUTPUT) fails with TIMEOUT; NIL: there is none. Settable, from any thread and with effect on calls
that are already blocked, to the seconds from now; 0 or less: calls fail now; NIL: no deadline any
more. It is not for WAIT-FOR-INPUT and POLLER-WAIT, which may wait for others too. A connection of
SERVE that waits without a thread is closed when it passes, if it was set before the wait."
  (check-endpoint socket :limit)
  (check-direction direction)
  (seconds-until (channel-deadline (endpoint-channel socket) direction)))

(defun wake-pending (server)
  "Make the threads that wait for a header look at the deadline of SERVER."
  (dolist (socket (car (server-pending server)))
    (lport-wait-wake (endpoint-handle socket) +lport-input+)))

(defun (setf socket-deadline) (seconds socket direction)
  (check-endpoint socket :limit)
  (check-direction direction)
  (let ((seconds (if (and (realp seconds) (not (%nan-p seconds)))
                     (max 0 seconds)
                     seconds)))
    (set-deadline (endpoint-channel socket) direction (moment-after seconds) seconds))
  (when (typep socket 'socket-server)
    (wake-pending socket))
  seconds)
