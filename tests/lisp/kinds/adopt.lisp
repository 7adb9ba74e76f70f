;;;; adopt - descriptors that somebody else has made, and those that systemd hands over.

(in-package :port/test)

(define-suite adopt "Adopted descriptors.")

(defun duplicate (socket)
  "A descriptor of our own for what SOCKET is."
  (cffi:foreign-funcall "dup" :int (socket-descriptor socket) :int))

(defun close-descriptor (fd)
  (cffi:foreign-funcall "close" :int fd :int))

(defun plain-descriptor (domain type)
  "A new descriptor as socket(2) makes it."
  (cffi:foreign-funcall "socket" :int domain :int type :int 0 :int))

(defmacro with-duplicate ((fd socket) &body body)
  "Run BODY with FD bound to a duplicate of SOCKET's descriptor, which BODY must not close."
  `(let ((,fd (duplicate ,socket)))
     (unwind-protect (progn ,@body)
       (is (zerop (close-descriptor ,fd)) "the descriptor was not left to the caller"))))

(define-test adopt.a-connected-stream-becomes-a-socket (:behaviour 61)
  (do-pairs (a b *plain-kinds*)
    (let ((adopted (adopt-descriptor (duplicate a) :external-format :latin-1 :input-timeout 5)))
      (is (typep adopted 'socket))
      (is (eq :latin-1 (stream-external-format adopted)))
      (is (= 5 (socket-timeout adopted :input)))
      (is (string= (socket-string a) (socket-string adopted)))
      (send-octets b "to the adopted" 10)
      (is (string= "to the adopted" (read-line adopted)))
      (send-octets adopted "and back" 10)
      (is (string= "and back" (read-line b)))
      (close adopted))))

(define-test adopt.a-listening-socket-becomes-a-server (:behaviour 61)
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((adopted (adopt-descriptor (duplicate server) :family :inet :kind :stream :listening t
                                                        :bin t)))
      (is (typep adopted 'socket-server))
      (is (= (port-of server) (port-of adopted)))
      (let ((client (open-socket "127.0.0.1" (port-of server)))
            (peer (socket-accept adopted :wait 5)))
        (is (equal '(unsigned-byte 8) (stream-element-type peer)))
        (close client)
        (close peer))
      (close adopted))))

(define-test adopt.a-socket-of-messages-becomes-a-datagram-socket (:behaviour 61)
  (with-datagram-socket (udp :host "127.0.0.1")
    (let ((adopted (adopt-descriptor (duplicate udp) :kind :datagram))
          (octets (octets 1 2 3)))
      (is (typep adopted 'datagram-socket))
      (multiple-value-bind (remote-host remote-port host port) (socket-host/port udp)
        (declare (ignore remote-host remote-port))
        (socket-send adopted octets :host host :port port))
      (is (= 3 (socket-receive udp (make-array 9 :element-type '(unsigned-byte 8)))))
      (close adopted)))
  (dolist (kind '(:datagram :seqpacket))
    (multiple-value-bind (a b) (open-socket-pair :kind kind)
      (let ((adopted (adopt-descriptor (duplicate a) :family :local :kind kind)))
        (socket-send adopted (octets 7))
        (is (= 1 (socket-receive b (make-array 9 :element-type '(unsigned-byte 8)))))
        (mapc #'close (list a b adopted))))))

(define-test adopt.bound-by-its-first-message (:behaviour (61 54))
  "The system binds a socket that sends: its own end is asked for until it has one, and told after
the close too."
  (with-datagram-socket (receiver :host "127.0.0.1")
    (let ((adopted (adopt-descriptor (plain-descriptor 2 2)))) ; AF_INET, SOCK_DGRAM
      (is (= 0 (own-port adopted)))
      (send-message adopted "x" :host "127.0.0.1" :port (own-port receiver))
      (let ((port (nth-value 2 (received receiver))))
        (is (= port (own-port adopted)))
        (close adopted)
        (is (= port (own-port adopted))))))
  (let ((never (adopt-descriptor (plain-descriptor 2 2))))
    (close never)
    (is (equal '("0.0.0.0" 0) (cddr (multiple-value-list (socket-host/port never)))))))

(define-test adopt.datagrams-of-both-families (:behaviour 61)
  "One of IPv6 that is not for IPv6 only sends to both, any other to its own."
  (dolist (host (available '("127.0.0.1" "::1")))
    (with-datagram-socket (receiver :host host)
      (with-datagram-socket (both)
        (let ((adopted (adopt-descriptor (duplicate both))))
          (send-message adopted "x" :host host :port (own-port receiver))
          (is (string= "x" (received receiver)))
          (close adopted)))
      (with-datagram-socket (one :family :inet6)
        (let ((adopted (adopt-descriptor (duplicate one))))
          (if (string= host "::1")
              (is (= 1 (send-message adopted "x" :host host :port (own-port receiver))))
              (is-failure (host-not-found :host-not-found "an address of family :INET6")
                (send-message adopted "x" :host host :port (own-port receiver))))
          (close adopted)))
      (with-datagram-socket (one :family :inet)
        (let ((adopted (adopt-descriptor (duplicate one))))
          (is-failure (host-not-found :host-not-found "an address of family :INET")
            (send-message adopted "x" :host "::1" :port (own-port receiver)))
          (close adopted))))))

(define-test adopt.close-on-exec (:behaviour 60)
  "dup(2) gives a descriptor without it; once adopted it has it, and so have those of every other
way to a socket."
  (flet ((is-so (&rest sockets)
           (dolist (socket sockets)
             (is (close-on-exec-p (socket-descriptor socket)) "~A" socket))))
    (with-socket-server (server 0 :host "127.0.0.1")
      (let ((fd (duplicate server)))
        (is (not (close-on-exec-p fd)))
        (let ((adopted (adopt-descriptor fd)))
          (is-so server adopted)
          (close adopted))))
    (do-pairs (a b)
      (is-so a b))
    (with-datagram-socket (udp :host "127.0.0.1")
      (is-so udp))
    (let* ((path (temporary-path))
           (server (open-unix-server path))
           (client (open-unix-socket path))
           (peer (socket-accept server :wait 5)))
      (is-so server client peer)
      (mapc #'close (list client peer server)))))

(define-test adopt.what-is-no-socket-is-refused (:behaviour 61)
  (cffi:with-foreign-object (fds :int 2)
    (cffi:foreign-funcall "pipe" :pointer fds :int)
    (let ((fd (cffi:mem-aref fds :int 0)))
      (is-failure (usage-error :invalid (format nil "got ~D, which is no socket" fd))
        (adopt-descriptor fd))
      (is (zerop (close-descriptor fd)))
      (is (zerop (close-descriptor (cffi:mem-aref fds :int 1))))
      (is-failure (usage-error :invalid "is not open") (adopt-descriptor fd))))
  (dolist (fd (list 1000000 (1- (expt 2 31))))
    (is-failure (usage-error :invalid "is not open") (adopt-descriptor fd)))
  (let ((fd (plain-descriptor 16 3)))   ; AF_NETLINK, SOCK_RAW
    (is-failure (not-supported :not-supported (format nil "descriptor ~D, which is a socket" fd))
      (adopt-descriptor fd))
    (is (zerop (close-descriptor fd))))
  (dolist (argument (list -1 nil "3" 1.5 (expt 2 31)))
    (signals type-error (adopt-descriptor argument))
    (signals usage-error (adopt-descriptor argument))))

(define-test adopt.not-as-wanted (:behaviour 61)
  (with-socket-server (server 0 :host "127.0.0.1")
    (with-duplicate (fd server)
      (is-failure (usage-error :invalid "a socket of family :INET6" "of family :INET")
        (adopt-descriptor fd :family :inet6))
      (is-failure (usage-error :invalid "a socket of kind :DATAGRAM" "of kind :STREAM")
        (adopt-descriptor fd :kind :datagram))
      (is-failure (usage-error :invalid "that does not listen" "which is listening")
        (adopt-descriptor fd :listening nil))
      (signals type-error (adopt-descriptor fd :family :ipx))
      (signals type-error (adopt-descriptor fd :kind :raw))
      (signals type-error (adopt-descriptor fd :listening 1))
      (signals usage-error (adopt-descriptor fd :element-type 'bit))
      (is (not (close-on-exec-p fd)))))
  (with-pair (a b :inet)
    (with-duplicate (fd a)
      (is-failure (usage-error :invalid "a listening socket" "which is connected")
        (adopt-descriptor fd :listening t)))
    (let ((adopted (adopt-descriptor (duplicate a) :listening nil)))
      (is (typep adopted 'socket))
      (close adopted)))
  (let ((fd (plain-descriptor 2 1)))    ; AF_INET, SOCK_STREAM
    (is-failure (usage-error :invalid "neither connected nor listening") (adopt-descriptor fd))
    (is (zerop (close-descriptor fd)))))

(define-test adopt.one-owner (:behaviour 61)
  "A second socket around the same descriptor would close somebody else's one day."
  (with-pair (a b)
    (is-failure (usage-error :invalid "belongs to a socket of PORT already")
      (adopt-descriptor (socket-descriptor a)))
    (send-octets a "x")
    (is (char= #\x (read-char b)))))

;;; systemd

(defparameter *activated-program*
  "(multiple-value-bind (servers names) (port:activated-servers)
     (loop for server in servers
           for name in names
           do (let ((socket (port:socket-accept server :wait 20)))
                (format socket \"~A ~A ~A~%\" name (type-of server)
                        (null (port:activated-servers)))
                (close socket)
                (close server))))"
  "Serves one client of each server that was handed over.")

(defun connect-patiently (open)
  "What OPEN returns, once somebody listens."
  (wait-until (lambda () (handler-case (funcall open) (connect-error () nil))) 10))

(define-test adopt.systemd-activation (:behaviour 61 :limit 90)
  "A TCP and a local server handed over by the real systemd-socket-activate."
  (let* ((number (unused-port))
         (path (temporary-path))
         (process (uiop:launch-program
                   (append (list "systemd-socket-activate" "-l" (format nil "127.0.0.1:~D" number)
                                 "-l" path "--fdname=web:control")
                           (lisp-command (append (loading (here)) (list *activated-program*))))
                   :output nil :error-output nil)))
    (unwind-protect
         (let ((web (connect-patiently (lambda () (open-socket "127.0.0.1" number))))
               (control (connect-patiently (lambda () (open-unix-socket path)))))
           (setf (socket-timeout web :input) 60
                 (socket-timeout control :input) 60)
           (is (string= "web SOCKET-SERVER T" (read-line web)))
           (is (string= "control SOCKET-SERVER T" (read-line control)))
           (close web)
           (close control)
           (is (zerop (uiop:wait-process process))))
      (when (uiop:process-alive-p process)
        (uiop:terminate-process process :urgent t))
      (uiop:wait-process process)
      (uiop:close-streams process)
      (uiop:delete-file-if-exists path))))

(define-test adopt.activation-that-is-none (:behaviour 61)
  (is (equal '(nil nil) (multiple-value-list (activated-servers))))
  (flet ((with-variables (pid count function)
           (call-with-variable
            "LISTEN_PID" pid
            (lambda () (call-with-variable "LISTEN_FDS" count function)))))
    (with-variables "1" "1"
      (lambda () (is (null (activated-servers)))))
    (with-variables (princ-to-string (process-id)) "many"
      (lambda ()
        (is-failure (usage-error :invalid "LISTEN_FDS" "not a number") (activated-servers))))
    ;; keywords that are none: the variables are still there
    (with-variables (princ-to-string (process-id)) "0"
      (lambda ()
        (is (typep (failure-of (activated-servers :external-format :no-such)) 'not-supported))
        (is (string= "0" (uiop:getenv "LISTEN_FDS")))))
    ;; more than there are: nothing is taken
    (with-variables (princ-to-string (process-id)) "100000"
      (lambda ()
        (signals usage-error (activated-servers))
        (is (string= "100000" (uiop:getenv "LISTEN_FDS")))))))
