;;;; peers - what users of other libraries suffer from, one test a row: here it does not happen.

(in-package :port/test)

(define-suite peers "Cases that other libraries get wrong.")

(define-test peers.refused-is-not-a-timeout ()
  "usocket: with a connect timeout a refused connection is reported as a timeout, after all of it."
  (multiple-value-bind (seconds condition)
      (let ((number (unused-port)))
        (seconds-of (lambda () (failure-of (open-socket "127.0.0.1" number :timeout 20)))))
    (is (typep condition 'connection-refused))
    (is (not (typep condition 'timeout)))
    (is (< seconds 1))))

(define-test peers.local-host-is-ours ()
  "usocket: :local-host connects to the local address in place of the remote one."
  (with-socket-server (server 0 :host "127.0.0.1")
    (with-open-socket (client "127.0.0.1" (port-of server) :local-host "127.0.0.2")
      (multiple-value-bind (host port local-host) (socket-host/port client)
        (declare (ignore port))
        (is (string= "127.0.0.1" host))
        (is (string= "127.0.0.2" local-host))))))

(define-test peers.close-sends-what-was-written ()
  "usocket: closing a socket throws away output that was not flushed."
  (with-pair (a b :inet)
    (write-line "not flushed by hand" a)
    (close a)
    (is (string= "not flushed by hand" (read-line b)))))

(define-test peers.close-wakes-everybody ()
  "usocket, sb-bsd-sockets: closing wakes no thread that reads, accepts or waits."
  (with-pair (a b :inet)
    (is-woken-by-close b (lambda () (wait-for-stream b))))
  (let ((server (open-socket-server)))
    (is-woken-by-close server (lambda () (socket-accept server :wait 60)))))

(define-test peers.write-timeouts-work ()
  "usocket on SBCL: write timeouts do nothing."
  (with-pair (a b :inet)
    (setf (socket-timeout a :output) 0.1)
    (is (typep (failure-of (loop (write-sequence (make-array 65536 :element-type '(unsigned-byte 8))
                                                 a)))
               'timeout))))

(define-test peers.high-descriptors (:limit 60)
  "usocket: waiting on a descriptor of 1024 or more is an error, or corrupts the image."
  (if (< (descriptor-limit) 1500)
      (skip "there are no such descriptors here")
      (let ((fillers (loop repeat 700
                           nconc (multiple-value-list (open-socket-pair)))))
        (unwind-protect
             (with-pair (a b :inet)
               (is (> (socket-descriptor a) 1024))
               (is (null (wait-for-stream b 0.01)))
               (send-octets a "x")
               (is (wait-for-stream b 5))
               (is (char= #\x (read-char b))))
          (mapc #'close fillers)))))

(define-test peers.failures-are-of-this-library ()
  "usocket, SBCL: a reset while reading is an implementation's own error, a deadline not even that."
  (with-pair (a b :inet)
    (setf (socket-timeout b :input) 0.01)
    (is (typep (failure-of (read-char b)) '(and timeout error)))
    (close a :abort t)
    (is (typep (failure-of (read-char b)) '(and connection-reset error)))))

(define-test peers.dropped-sockets-are-closed (:limit 60)
  "usocket: 120 dropped sockets and two collections later, 120 descriptors are still open."
  (let ((before (length (open-descriptors))))
    (drop-sockets 60)
    (is (wait-until (lambda ()
                      (sb-ext:gc :full t)
                      (<= (length (open-descriptors)) before))
                    20))))

(define-test peers.every-address-is-tried ()
  "usocket, sb-bsd-sockets, IOLib: only one address of a name is tried."
  (with-names ()
    (dolist (address (available (resolve "many.test")))
      (with-socket-server (server 0 :host address)
        (with-open-socket (client "many.test" (port-of server) :timeout 10)
          (is (string= (princ-to-string address) (socket-host/port client))))))))

(define-test peers.literals-ask-nobody ()
  "usocket: every connect to \"127.0.0.1\" calls the resolver. Its threads would show here."
  (flet ((threads ()
           (length (directory "/proc/self/task/*/" :resolve-symlinks nil))))
    (with-socket-server (server 0 :host "127.0.0.1")
      (let ((before (threads)))
        (dotimes (i 20)
          (close (open-socket "127.0.0.1" (port-of server)))
          (resolve "127.0.0.1"))
        (is (<= (threads) before))))))

(define-test peers.a-connected-socket-is-connected ()
  "IOLib: `connect :wait` returns an unconnected socket, and streams have no timeouts."
  (with-socket-server (server 0 :host "127.0.0.1")
    (with-open-socket (client "127.0.0.1" (port-of server) :timeout 5 :input-timeout 0.05)
      (is (= (port-of server) (nth-value 1 (socket-host/port client))))
      (is (typep (failure-of (read-line client)) 'timeout)))))

(define-test peers.errors-say-what-happened (:behaviour 62)
  "usocket: an error says \"Condition X was signalled\" without host, port, errno."
  (let* ((number (unused-port))
         (condition (failure-of (open-socket "127.0.0.1" number))))
    (is-report condition "connect to 127.0.0.1 port" (princ-to-string number)
               "connection refused")
    (is (integerp (network-errno condition)))
    (is (eq :connection-refused (network-code condition))))
  (with-pair (a b :inet)
    (close a :abort t)
    (let ((condition (failure-of (read-char b))))
      (is-report condition "read from 127.0.0.1:" "connection reset")
      (is (search "127.0.0.1:" (network-local condition)))
      (is (search "127.0.0.1:" (network-remote condition))))))
