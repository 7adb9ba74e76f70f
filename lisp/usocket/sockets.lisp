;;;; sockets - usocket's three classes on sockets of PORT.

(in-package #:port/usocket)

(defclass connection (on-port usocket:stream-usocket) ())
(defclass listener (on-port usocket:stream-server-usocket) ())
(defclass messenger (on-port usocket:datagram-usocket) ())

;;; Streams

(defclass plain-stream (port:socket) ()
  (:documentation "A socket of PORT that CLOSE treats as other streams: :ABORT does not wait, and
resets no connection, since programs say it when all is sent."))

(defmethod close ((stream plain-stream) &key abort)
  (if abort
      (handler-case (port:with-deadline (0)
                      (call-next-method stream))
        (port:network () t))
      (call-next-method)))

(defun connection-of (socket)
  "The usocket of SOCKET, a connection of PORT, which is its own stream."
  (make-instance 'connection
                 :socket socket
                 :stream (if (typep socket 'port:socket)
                             (change-class socket 'plain-stream)
                             socket)))

(defun plain-element-type (element-type context)
  "The element type of PORT for ELEMENT-TYPE, which usocket leaves to the Lisp: a stream of PORT is
of characters and octets whatever it is."
  (cond ((member element-type '(nil :default)) 'character)
        ((subtypep element-type 'character) 'character)
        ((or (eq element-type 'unsigned-byte) (subtypep element-type '(unsigned-byte 8)))
         '(unsigned-byte 8))
        (t (error 'usocket:unsupported :feature (list :element-type element-type) :context context
                                       :minimum nil))))

;;; Connections

(defun seconds-until-internal (deadline)
  "The seconds until DEADLINE, a moment of GET-INTERNAL-REAL-TIME; 0 if that is past."
  (max 0 (/ (- deadline (get-internal-real-time)) internal-time-units-per-second)))

(defun set-limits (socket deadline read-timeout)
  "Let calls on SOCKET end at DEADLINE, a moment or NIL, reads after READ-TIMEOUT seconds or NIL."
  (when deadline
    (dolist (direction '(:input :output))
      (setf (port:socket-deadline socket direction) (seconds-until-internal deadline))))
  (when read-timeout
    (setf (port:socket-timeout socket :input) read-timeout)))

(defun time-left (timeout deadline)
  "TIMEOUT, or what is left until DEADLINE if that is less; NIL: neither holds."
  (let ((left (and deadline (seconds-until-internal deadline))))
    (if (and timeout left)
        (min timeout left)
        (or timeout left))))

(defun open-connection (host port &key element-type timeout nodelay local-host local-port)
  "A stream socket of PORT to PORT of HOST, or to the local socket HOST, a pathname."
  (if (pathnamep host)
      (port:open-unix-socket host :timeout timeout :element-type element-type)
      (port:open-socket (host-designator host) port
                        :element-type element-type :timeout timeout :nodelay (and nodelay t)
                        :local-host (host-designator local-host) :local-port local-port)))

(defun kept (socket function)
  "What FUNCTION makes of SOCKET, which is closed if that fails or is unwound."
  (let ((made nil))
    (unwind-protect (setf made (funcall function socket))
      (unless made
        (close socket)))))

(defparameter *timeout-of-reads* (uiop:version<= "0.8.7" usocket:*version*)
  "True where TIMEOUT is that of each read, too, unless READ-TIMEOUT is given.")

(defun connect (host &key port (protocol :stream) (element-type 'character)
                       timeout (connection-timeout timeout)
                       (read-timeout (and *timeout-of-reads* timeout)) deadline
                       (nodelay t) local-host local-port)
  "USOCKET:SOCKET-CONNECT with PORT as a keyword. TIMEOUT is that of the connect, names and all
addresses together; READ-TIMEOUT, in seconds, that of each read; DEADLINE, a moment of
GET-INTERNAL-REAL-TIME, that of all. NODELAY is T where nothing is said."
  (let ((element-type (plain-element-type element-type 'usocket:socket-connect))
        (timeout (time-left connection-timeout deadline)))
    (usocket:with-mapped-conditions (nil host)
      (ecase protocol
        (:stream
         (kept (open-connection host port :element-type element-type :nodelay nodelay
                                          :timeout timeout
                                          :local-host local-host :local-port local-port)
               (lambda (socket)
                 (set-limits socket deadline read-timeout)
                 (connection-of socket))))
        (:datagram
         (kept (port:with-deadline (timeout)
                 (open-messenger host port local-host local-port))
               (lambda (socket)
                 (set-limits socket deadline read-timeout)
                 (make-instance 'messenger :socket socket
                                           :connected-p (and host port t)))))))))

;;; Servers

(defun wildcard-p (host)
  (or (null host) (eq host usocket:*wildcard-host*)))

(defun listen-at (host &key port (reuseaddress t) (reuse-address reuseaddress) backlog
                         (element-type 'character))
  "USOCKET:SOCKET-LISTEN with PORT as a keyword. Where nothing is said the backlog is the system's
maximum, and an address that was just closed can be had. The wildcard is IPv4 and IPv6. HOST may
be the pathname of a local socket."
  (plain-element-type element-type 'usocket:socket-listen)
  (usocket:with-mapped-conditions (nil host)
    (make-instance
     'listener
     :element-type element-type
     :socket (if (pathnamep host)
                 (port:open-unix-server host :backlog backlog)
                 (port:open-socket-server port
                                          :host (and (not (wildcard-p host)) (host-designator host))
                                          :reuse-address (and reuse-address t)
                                          :backlog backlog)))))

(defmethod usocket:socket-accept ((server listener) &key element-type)
  (usocket:with-mapped-conditions (server)
    (connection-of (port:socket-accept
                    (usocket:socket server)
                    :element-type (plain-element-type
                                   (or element-type (usocket::element-type server))
                                   'usocket:socket-accept)))))

;;; Datagrams

(defun open-messenger (host port local-host local-port)
  "A datagram socket of PORT, connected to PORT of HOST if both are given."
  (if (and host port)
      (port:open-datagram-socket
       :remote-host (host-designator host) :remote-port port
       :host (host-designator local-host) :port local-port)
      (port:open-datagram-socket
       :host (and (not (wildcard-p local-host)) (host-designator local-host))
       :port local-port)))

(defmethod usocket:socket-send ((socket messenger) buffer length &key host port (offset 0))
  "LENGTH octets, or if that is NIL all, of BUFFER, of any element type, from OFFSET on."
  (usocket:with-mapped-conditions (socket host)
    (port:socket-send (usocket:socket socket) (coerce buffer '(vector (unsigned-byte 8)))
                      :start offset :end (and length (+ offset length))
                      :host (and host port (host-designator host))
                      :port (and host port))))

(defmethod usocket:socket-receive ((socket messenger) buffer length
                                   &key (element-type '(unsigned-byte 8)))
  "As 4 values BUFFER, or a new vector of LENGTH octets if that is NIL; octets stored, LENGTH or
what BUFFER has room for at most; host, a vector; port."
  (let ((buffer (or buffer (make-array length :element-type element-type))))
    (usocket:with-mapped-conditions (socket)
      (multiple-value-bind (count host port)
          (port:socket-receive (usocket:socket socket) buffer
                               :end (min (or length (length buffer)) (length buffer)))
        (values buffer count (address-vector host) port)))))

;;; Ends

(defmethod usocket:get-local-name ((socket on-port))
  (usocket:with-mapped-conditions (socket)
    (multiple-value-bind (remote-host remote-port host port)
        (port:socket-host/port (usocket:socket socket))
      (declare (ignore remote-host remote-port))
      (values (address-vector host) port))))

(defmethod usocket:get-local-name ((server listener))
  (usocket:with-mapped-conditions (server)
    (multiple-value-bind (host port) (port:socket-server-host/port (usocket:socket server))
      (values (address-vector host) port))))

(defmethod usocket:get-peer-name ((socket on-port))
  (usocket:with-mapped-conditions (socket)
    (multiple-value-bind (host port) (port:socket-host/port (usocket:socket socket))
      (values (address-vector host) port))))

(defmethod usocket:get-local-address ((socket on-port))
  (values (usocket:get-local-name socket)))

(defmethod usocket:get-local-port ((socket on-port))
  (nth-value 1 (usocket:get-local-name socket)))

(defmethod usocket:get-peer-address ((socket on-port))
  (values (usocket:get-peer-name socket)))

(defmethod usocket:get-peer-port ((socket on-port))
  (nth-value 1 (usocket:get-peer-name socket)))

;;; Closing

(defmethod usocket:socket-close ((socket on-port))
  (usocket:with-mapped-conditions (socket)
    (close (usocket:socket socket))))

(defmethod usocket:socket-close ((socket connection))
  "Closes what a program has put around the socket as its stream, such as TLS, which may have to
send something, and then the socket."
  (let ((stream (usocket:socket-stream socket)))
    (usocket:with-mapped-conditions (socket)
      (unwind-protect (close stream)
        (close (usocket:socket socket))))))

(defmethod usocket:socket-shutdown ((socket on-port) direction)
  (usocket:with-mapped-conditions (socket)
    (port:socket-shutdown (usocket:socket socket) direction)))
