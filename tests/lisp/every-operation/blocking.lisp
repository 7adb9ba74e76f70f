;;;; blocking - every call that blocks, over every kind of socket that has it: closed by another
;;;; thread, ended by every limit of time, thrown out, told to wait longer.
;;;;
;;;; A new operation that can block gets a row, and with it all the tests.

(in-package :port/test)

(define-suite blocking "Every call that blocks, in every way to end it.")

;;; Kinds: what blocks, and its peer

(defun packet-pair ()
  (open-socket-pair :kind :seqpacket))

(defun message-pair ()
  (open-socket-pair :kind :datagram))

(defun udp-pair (host)
  "Values: a socket without a peer, and one that is connected to it."
  (let ((server (open-datagram-socket :host host)))
    (values server (open-datagram-socket :remote-host host :remote-port (own-port server)))))

(defparameter *makers*
  (list :udp (lambda () (udp-pair "127.0.0.1"))
        :udp6 (lambda () (udp-pair "::1"))
        :udp-connected (lambda () (multiple-value-bind (server client) (udp-pair "127.0.0.1")
                                    (send-message client "where I am")
                                    (multiple-value-bind (text host port) (received server)
                                      (declare (ignore text))
                                      (close client)
                                      (values (open-datagram-socket :port port :host host
                                                                    :remote-host host
                                                                    :remote-port (own-port server))
                                              server))))
        :messages #'message-pair
        :packets #'packet-pair
        :server (lambda () (open-socket-server 0 :host "127.0.0.1"))
        :server6 (lambda () (open-socket-server 0 :host "::1"))
        :any-server (lambda () (open-socket-server 0))
        :local-server (lambda () (open-unix-server (temporary-path)))
        :packet-server (lambda () (open-unix-server (temporary-path) :kind :seqpacket)))
  "A plist from a kind that is none of *PAIR-KINDS* to a function that makes it: its value blocks,
and a second one, if there is one, is its peer.")

(defun make-ends (kind)
  (if (member kind *pair-kinds*)
      (make-pair kind)
      (funcall (getf *makers* kind))))

;;; Rows

(defparameter *messenger-kinds* (available '(:udp :udp6 :udp-connected :messages :packets)))
(defparameter *server-kinds*
  (available '(:server :server6 :any-server :local-server :packet-server)))

(defstruct (row (:copier nil) (:predicate nil))
  "CALL, a function of the socket, blocks in DIRECTION once PREPARE has been called with it and its
peer; RELEASE, called with both, lets it end. TIMEOUT-P: SOCKET-TIMEOUT limits it too."
  name kinds direction call prepare release (timeout-p t))

(defun rows (direction kinds release prepare &rest calls)
  "A row for each of CALLS, a list (name function) with options."
  (loop for (name call . options) in calls
        collect (apply #'make-row :name name :kinds kinds :direction direction :call call
                                  :release release :prepare prepare options)))

(defun feed (socket peer)
  (declare (ignore socket))
  (send-octets peer "0123456789" 10))

(defun end-peer (socket peer)
  (declare (ignore socket))
  (socket-shutdown peer :output))

(defun swallow (socket peer)
  "Read all that comes to PEER until SOCKET is closed, on a thread that nobody waits for."
  (setf (socket-option socket :send-buffer) 1000000)
  (let ((room (blank 65536)))
    (in-thread (lambda () (loop until (zerop (read-some peer room)))))))

(defun stuff (socket peer)
  "See to it that the system takes nothing more, and that there is much in the buffer."
  (setf (socket-option socket :send-buffer) 4096
        (socket-option peer :receive-buffer) 4096)
  (until-stuck socket (lambda () (write-octets socket (blank 40000))))
  (write-octets socket (blank 30000)))

(defun stuff-messages (socket peer)
  (declare (ignore peer))
  (until-stuck socket (lambda () (send-message socket "one of many"))))

(defun swallow-messages (socket peer)
  (declare (ignore socket))
  (in-thread (lambda () (loop (received peer)))))

(defun dial-in (server peer)
  "Connect to SERVER and leave at once: it is accepted all the same."
  (declare (ignore peer))
  (multiple-value-bind (host port) (socket-server-host/port server)
    (cond ((plusp port) (close (open-socket (cond ((string/= host "::") host)
                                                   ((inet6-p) "::1")
                                                   (t "127.0.0.1")) port)))
          ((eq :seqpacket (port::server-kind server))
           (close (open-unix-socket host :kind :seqpacket)))
          (t (close (open-unix-socket host))))))

(defun answer-message (socket peer)
  (if (nth-value 1 (socket-host/port peer))
      (send-message peer "a message")
      (multiple-value-bind (remote-host remote-port host port) (socket-host/port socket)
        (declare (ignore remote-host remote-port))
        (send-message peer "a message" :host host :port port))))

(defun pass-descriptor (socket peer)
  (declare (ignore socket))
  (send-descriptors peer (list peer)))

(defun close-received (fds)
  (mapc (lambda (fd) (cffi:foreign-funcall "close" :int fd :int)) fds))

(defun send-one-batched (socket)
  (let ((batch (make-datagram-batch 1)))
    (batch-add batch (octets-like "one more"))
    (send-batch socket batch)))

(defun a-file-of (socket)
  (send-file socket "/proc/self/status"))

(defun relay-to-nobody (socket)
  "RELAY between SOCKET and one from which nothing comes."
  (with-pair (other server)
    (socket-shutdown server :output)
    (relay socket other)))

(defun overfill (socket write)
  "Call WRITE, which writes an octet, a little more often than the buffer of SOCKET has room for."
  (loop repeat (- (+ port::+buffer-size+ 10) (nth-value 1 (buffered-octets socket)))
        do (funcall write)))

(defparameter *begun-kinds* (remove :local *plain-kinds*)
  "Those on which the first words of TLS find room for each of their octets alone, in bad weather.")

(defun begin-as-client (socket)
  (start-tls socket :context (client-context) :host "good.test"))

(defun begin-as-server (socket)
  (start-tls socket :context (server-context) :side :server))

(defun answering (begin)
  "A function that lets the peer of a socket BEGIN, on a thread that nobody waits for."
  (lambda (socket peer)
    (declare (ignore socket))
    (in-thread (lambda () (funcall begin peer)))))

(defparameter *reading-rows*
  (append
   (rows :input *pair-kinds* #'feed nil
         (list "read-char" #'read-char)
         (list "peek-char" (lambda (socket) (peek-char nil socket)))
         (list "read-byte" #'read-byte)
         (list "read-line" #'read-line)
         (list "read" #'read)
         (list "read-sequence of octets" (lambda (socket) (read-sequence (octets 0 0 0) socket)))
         (list "read-sequence of text" (lambda (socket) (read-sequence (make-string 3) socket)))
         (list "read-sequence of a list" (lambda (socket) (read-sequence (list 0 0 0) socket)))
         (list "read-octets" (lambda (socket) (read-octets socket (octets 0 0 0))))
         (list "read-some" (lambda (socket) (read-some socket (octets 0 0 0))))
         (list "peek-octets" (lambda (socket) (peek-octets socket (octets 0 0 0))))
         (list "read-line-octets" (lambda (socket) (read-line-octets socket (blank 20))))
         (list "wait-for-stream" #'wait-for-stream :timeout-p nil))
   (rows :input *pair-kinds* #'end-peer nil
         (list "relay" #'relay-to-nobody :timeout-p nil))
   (rows :input *begun-kinds* (answering #'begin-as-server) nil
         (list "start-tls of a client" #'begin-as-client))
   (rows :input *begun-kinds* (answering #'begin-as-client) nil
         (list "start-tls of a server" #'begin-as-server))
   (rows :input '(:local) #'pass-descriptor nil
         (list "receive-descriptors" (lambda (socket)
                                       (close-received (receive-descriptors socket 1)))))
   (rows :input *messenger-kinds* #'answer-message nil
         (list "socket-receive" (lambda (socket) (socket-receive socket (blank 20)))))
   (rows :input (remove :packets *messenger-kinds*) #'answer-message nil
         (list "receive-batch" (lambda (socket) (receive-batch socket (make-datagram-batch 3)))))
   (rows :input *server-kinds* #'dial-in nil
         (list "socket-accept" (lambda (server) (close (socket-accept server)))))))

(defparameter *writing-rows*
  (append
   (rows :output *pair-kinds* #'swallow #'stuff
         (list "write-sequence of octets" (lambda (socket)
                                            (write-sequence (blank 200000) socket)))
         (list "write-sequence of text" (lambda (socket)
                                          (write-sequence (make-string 200000) socket)))
         (list "write-string" (lambda (socket) (write-string (make-string 200000) socket)))
         (list "write-char" (lambda (socket) (overfill socket (lambda () (write-char #\x socket)))))
         (list "write-byte" (lambda (socket) (overfill socket (lambda () (write-byte 1 socket)))))
         (list "format" (lambda (socket) (format socket "~100000D" 1)))
         (list "write-octets" (lambda (socket) (write-octets socket (blank 200000))))
         (list "send-file" #'a-file-of)
         (list "finish-output" #'finish-output)
         (list "force-output" #'force-output)
         (list "socket-shutdown" (lambda (socket) (socket-shutdown socket :output))))
   (rows :output '(:local) #'swallow #'stuff
         (list "send-descriptors" (lambda (socket) (send-descriptors socket (list socket)))))
   (rows :output '(:messages :packets) #'swallow-messages #'stuff-messages
         (list "socket-send" (lambda (socket) (send-message socket "one more")))
         (list "send-descriptors" (lambda (socket) (send-descriptors socket (list socket)))))
   (rows :output '(:messages) #'swallow-messages #'stuff-messages
         (list "send-batch" #'send-one-batched))))

(defmacro with-blocked-row ((row kind socket peer) &body body)
  "Run BODY with SOCKET of KIND, made ready for ROW, and its PEER."
  `(call-with-ends ,row ,kind (lambda (,socket ,peer) (declare (ignorable ,peer)) ,@body)))

(defun call-with-ends (row kind function)
  (multiple-value-bind (socket peer) (make-ends kind)
    (unwind-protect
         (progn (when (row-prepare row)
                  (funcall (row-prepare row) socket peer))
                (funcall function socket peer))
      (close socket :abort t)
      (when peer
        (close peer :abort t))
      (when (weather-p)
        (faults-clear)))))

(defun release (row socket peer)
  "Let the call of ROW end. If it writes, the weather is fair from here until the ends are closed:
what was held up would go octet by octet."
  (when (and (weather-p) (eq :output (row-direction row)))
    (faults-watch))
  (funcall (row-release row) socket peer))

(defmacro do-rows ((row kind rows) &body body)
  `(dolist (,row ,rows)
     (dolist (,kind (row-kinds ,row))
       ,@body)))

(defun call-row (row socket)
  (funcall (row-call row) socket))

(defun label (row kind)
  (format nil "~A over ~(~A~)" (row-name row) kind))

;;; Closed

(defun check-closing (rows)
  (do-rows (row kind rows)
    (with-blocked-row (row kind socket peer)
      (let ((thread (start-blocked (lambda () (call-row row socket)))))
        (multiple-value-bind (seconds outcome)
            (seconds-of (lambda ()
                          (close socket :abort t)
                          (join thread)))
          (is (typep outcome 'socket-closed) "~A: ~A" (label row kind) outcome)
          (is (< seconds 1) "~A: ~F s" (label row kind) seconds))))))

(defun check-detaching (rows)
  "What goes for a close goes for a detach, which waits until they have left. TLS has none."
  (do-rows (row kind rows)
    (unless (or (eq kind :tls) (search "start-tls" (row-name row)))
      (with-blocked-row (row kind socket peer)
        (let ((thread (start-blocked (lambda () (call-row row socket)))))
          (multiple-value-bind (seconds fd)
              (seconds-of (lambda () (detach-descriptor socket)))
            (is (zerop (close-descriptor fd)) "~A" (label row kind))
            (is (< seconds 1) "~A: ~F s" (label row kind) seconds))
          (is (typep (join thread) 'socket-closed) "~A" (label row kind)))))))

(define-test blocking.detached-while-reading ()
  (check-detaching *reading-rows*))

(define-test blocking.closed-while-reading (:behaviour (13 15 16))
  (check-closing *reading-rows*))

(define-test blocking.closed-while-writing (:behaviour 14 :limit 60)
  (check-closing *writing-rows*))

;;; Out of time

(defparameter *span* 1/100)

(defun call-limited (row limit socket)
  "Call ROW on SOCKET under LIMIT, and take it away again."
  (ecase limit
    (:with-deadline (with-deadline (*span*) (call-row row socket)))
    (:deadline (setf (socket-deadline socket (row-direction row)) *span*)
     (unwind-protect (call-row row socket)
       (setf (socket-deadline socket (row-direction row)) nil)))
    (:timeout (setf (socket-timeout socket (row-direction row)) *span*)
     (unwind-protect (call-row row socket)
       (setf (socket-timeout socket (row-direction row)) nil)))))

(defun limits-of (row)
  (if (row-timeout-p row) '(:with-deadline :deadline :timeout) '(:with-deadline :deadline)))

(defun check-limits (rows)
  "Each limit ends each call, and tells its span; the socket works on."
  (do-rows (row kind rows)
    (with-blocked-row (row kind socket peer)
      (dolist (limit (limits-of row))
        (let ((condition (failure-of (call-limited row limit socket))))
          (is (typep condition 'timeout) "~A, ~A: ~A" (label row kind) limit condition)
          (when (typep condition 'timeout)
            (is (= *span* (timeout-time condition)) "~A, ~A: ~A s" (label row kind) limit
                (timeout-time condition)))
          (is (eq (row-direction row)
                  (if (member (network-operation condition) '(:write :send :close))
                      :output
                      :input)))))
      (release row socket peer)
      (is (null (failure-of (with-deadline (10) (call-row row socket))))
          "~A cannot be used any more" (label row kind)))))

(define-test blocking.out-of-time-while-reading (:behaviour (4 10 11))
  (check-limits *reading-rows*))

(define-test blocking.out-of-time-while-writing (:behaviour (4 11) :limit 60)
  (check-limits *writing-rows*))

(defun check-deadlines-from-elsewhere (rows)
  (do-rows (row kind rows)
    (with-blocked-row (row kind socket peer)
      (let ((thread (start-blocked (lambda () (call-row row socket)))))
        (multiple-value-bind (seconds outcome)
            (seconds-of (lambda ()
                          (setf (socket-deadline socket (row-direction row)) 0)
                          (join thread)))
          (is (typep outcome 'timeout) "~A: ~A" (label row kind) outcome)
          (is (< seconds 1) "~A: ~F s" (label row kind) seconds))))))

(define-test blocking.deadline-from-elsewhere-while-reading (:behaviour 3)
  (check-deadlines-from-elsewhere *reading-rows*))

(define-test blocking.deadline-from-elsewhere-while-writing (:behaviour 3 :limit 60)
  (check-deadlines-from-elsewhere *writing-rows*))

;;; Told to wait longer

(defun release-elsewhere (row socket peer)
  "Release ROW on a thread that the deadline of this one does not concern."
  (join (in-thread (lambda () (release row socket peer)))))

(defun call-waiting-longer (row limit socket release)
  "Call ROW on SOCKET under LIMIT; at the second timeout call RELEASE. Each time wait longer."
  (let ((timeouts 0))
    (handler-bind ((timeout (lambda (condition)
                              (when (= 2 (incf timeouts))
                                (funcall release))
                              (wait-longer (if (= 1 timeouts) *span* 10) condition))))
      (call-limited row limit socket))
    timeouts))

(defun check-waiting-longer (rows)
  (do-rows (row kind rows)
    (dolist (limit (limits-of row))
      (with-blocked-row (row kind socket peer)
        (let ((timeouts 0))
          (is (null (failure-of (setf timeouts (call-waiting-longer
                                                row limit socket
                                                (lambda ()
                                                  (release-elsewhere row socket peer))))))
              "~A, ~A" (label row kind) limit)
          ;; Some calls are several that end, and begin again, one after the other.
          (is (<= 2 timeouts) "~A, ~A: ~D timeouts" (label row kind) limit timeouts))))))

(define-test blocking.waiting-longer-to-read ()
  (check-waiting-longer *reading-rows*))

(define-test blocking.waiting-longer-to-write (:limit 60)
  (check-waiting-longer *writing-rows*))

;;; Thrown out

(defun check-throws (rows)
  "A throw through a blocked call ends its wait, and the socket works on."
  (do-rows (row kind rows)
    (with-blocked-row (row kind socket peer)
      (let* ((waits (lport-wait-count))
             (thread (start-blocked (lambda ()
                                      (catch 'out
                                        (call-row row socket))))))
        (sb-thread:interrupt-thread thread (lambda () (throw 'out :thrown)))
        (is (eq :thrown (join thread)) "~A" (label row kind))
        (is (= waits (lport-wait-count)) "~A" (label row kind))
        (release row socket peer)
        (is (null (failure-of (with-deadline (10) (call-row row socket))))
            "~A cannot be used any more" (label row kind))))))

(define-test blocking.thrown-out-while-reading (:behaviour 26)
  (check-throws *reading-rows*))

(define-test blocking.thrown-out-while-writing (:behaviour 26 :limit 60)
  (check-throws *writing-rows*))

;;; What conditions say

(define-test blocking.a-timeout-has-the-facts-of-its-call (:behaviour 62)
  "Of one that waits as of one that never began to; a plist, or a function that makes one."
  (with-pair (a b)
    (clog a)
    (let ((connection (channel-of a)) (facts '(:host "there" :port 9)))
      (dolist (facts (list facts (lambda () facts)))
        (dolist (span (list 0 (floor port::+second+ 50)))
          (let ((condition (failure-of
                             (port::trying (connection :output :send (port::moment-in span)
                                            :moved 3 :facts facts)
                               (lport-status-make port.ffi:+lport-would-block+)))))
            (is (typep condition 'timeout))
            (is (equal '("there" 9 3) (list (network-host condition) (network-port condition)
                                            (network-octets condition))))))))))

;;; A close that flushes

(define-test blocking.abort-ends-a-close-that-flushes (:behaviour 23)
  (do-pairs (a b)
    (stuff a b)
    (let ((closer (start-blocked (lambda () (close a)))))
      (is (eq t (close a)) "a second close does not wait for the first")
      (is-true (sb-thread:thread-alive-p closer))
      (multiple-value-bind (seconds outcome)
          (seconds-of (lambda ()
                        (close a :abort t)
                        (join closer)))
        (is (typep outcome 'socket-closed) "~S" outcome)
        (is (< seconds 1)))
      (is (typep (failure-of (socket-descriptor a)) 'socket-closed)))))
