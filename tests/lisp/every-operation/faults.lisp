;;;; faults - what is left when the system says no: every constructor with each of its system calls
;;;; failing in turn. These tests run where the library is build/faults/libport.so.1: in
;;;; `make test-faults`.

(in-package :port/test)

(define-suite faults "Single system calls that fail, and constructors.")

(defconstant +no-buffers+ 105 "ENOBUFS, which no call of a constructor is asked to bear.")

(defun call-with-fault (number function)
  "Call FUNCTION while its system call of that NUMBER fails. Values: what it returned, or NIL; the
NETWORK that it signalled, or NIL; how many calls failed."
  (let ((value nil) (condition nil))
    (faults-fail number +no-buffers+)
    (unwind-protect
         (setf condition (failure-of (setf value (funcall function))))
      (setf number (faults-struck))
      (faults-clear))
    (values value condition number)))

(defun check-every-call (name make)
  "Behaviour 64: MAKE, which returns a list of what it opened, with its n-th call failing, for every
n until no call is left to fail. A failure is a NETWORK with a report and leaves nothing open."
  (loop for number from 1 to 200
        for before = (open-things)
        do (multiple-value-bind (made condition struck) (call-with-fault number make)
             (cond (condition
                    (is (plusp struck) "~A, call ~D: failed without a fault: ~A"
                        name number condition)
                    (is-report condition))
                   (t (is (and made (notany #'null made)) "~A, call ~D: nothing was made or said"
                          name number)
                      (mapc #'close made)))
             (is (null (leaks before)) "~A, call ~D: ~A" name number (leaks before))
             (when (zerop struck)
               (is (> number 1) "~A: no system call was made" name)
               (return)))
        finally (is (> 0 number) "~A never succeeds" name)))

(define-test faults.servers (:behaviour 64 :faults t)
  (check-every-call "a TCP server" (lambda () (list (open-socket-server 0))))
  (check-every-call "a TCP server with options"
                    (lambda () (list (open-socket-server 0 :options '(:device "lo" :ttl 9)))))
  (check-every-call "an IPv4 server" (lambda ()
                                       (list (open-socket-server 0 :host "127.0.0.1"))))
  (when (inet6-p)
    (check-every-call "an IPv6 server"
                      (lambda () (list (open-socket-server 0 :host "::1" :family :inet6))))))

(define-test faults.local-servers (:behaviour 64 :faults t)
  (check-every-call "a local server"
                    (lambda () (list (open-unix-server (temporary-path) :mode #o600))))
  (let ((path (temporary-path)))
    (check-every-call "a local server on a stale path"
                      (lambda ()
                        (make-stale-path path)
                        (list (open-unix-server path))))
    (uiop:delete-file-if-exists path)))

(defun make-stale-path (path)
  "A name at PATH, on which nobody listens, without a system call that is counted."
  (uiop:delete-file-if-exists path)
  (uiop:run-program (list "perl" "-MIO::Socket::UNIX" "-e"
                          "IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 1) or die" path)))

(define-test faults.connections (:behaviour 64 :faults t)
  (dolist (host (available '("127.0.0.1" "::1")))
    (with-socket-server (server 0 :host host)
      (check-every-call host (lambda ()
                               (list (open-socket host (port-of server) :timeout 5
                                                                        :options '(:ttl 9)))))
      (check-every-call "a pending connection"
                        (lambda ()
                          (let ((pending (begin-connect host (port-of server) :timeout 5)))
                            (unwind-protect (list (finish-connect pending))
                              (close pending)))))
      (take-all server)))
  (let ((path (temporary-path)))
    (with-open-stream (server (open-unix-server path))
      (check-every-call "a local connection" (lambda () (list (open-unix-socket path))))
      (take-all server))))

(define-test faults.names (:behaviour 64 :faults t)
  (with-names ()
    (with-socket-server (server 0)
      (check-every-call "a name"
                        (lambda ()
                          (list (open-socket "many.test" (port-of server) :timeout 5))))
      (take-all server))))

(define-test faults.accepts (:behaviour 64 :faults t)
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((clients (loop repeat 12 collect (open-socket "127.0.0.1" (port-of server)))))
      (check-every-call "an accept" (lambda () (list (socket-accept server :wait 5))))
      (mapc #'close clients)
      (take-all server))))

(define-test faults.pairs (:behaviour 64 :faults t)
  (check-every-call "a pair" (lambda () (multiple-value-list (open-socket-pair)))))

(define-test faults.out-of-memory (:faults t)
  "Where the system has no memory, constructors say so and nothing is left."
  (with-names ()
    (faults-fail 1 +no-buffers+ :call "calloc" :count 1000000)
    (unwind-protect
         (dolist (call (list (lambda () (open-socket "many.test" 9 :timeout 5))
                             (lambda () (resolve "many.test" :timeout 5))
                             (lambda () (reverse-resolve "127.0.0.1" :timeout 5))))
           (is (typep (failure-of (funcall call)) 'resource-exhausted)))
      (faults-clear))))

(define-test faults.waiting-out-of-memory (:faults t)
  "Where there is no memory to wait for a socket too, WAIT-FOR-INPUT says so and does not wait
without it."
  (with-pair (a b)
    (send-octets b 1)
    (loop for number from 1 to 20
          do (faults-fail number +no-buffers+ :call "calloc")
             (multiple-value-bind (outcome struck)
                 (unwind-protect (values (handler-case (wait-for-input (list a) :timeout 5)
                                           (resource-exhausted () :exhausted))
                                         (faults-struck))
                   (faults-clear))
               (is (equal (if (zerop struck) (list a) :exhausted) outcome))
               (when (zerop struck)
                 (return))))))

(define-test faults.descriptor-limit (:behaviour 57 :faults t)
  "At the descriptor limit an accept says so; the client stays in the queue, and is served later."
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((client (open-socket "127.0.0.1" (port-of server))))
      (faults-fail 1 24 :call "accept4" :count 3) ; EMFILE
      (unwind-protect
           (dotimes (i 3)
             (is (typep (failure-of (socket-accept server :wait 1)) 'resource-exhausted)))
        (faults-clear))
      (let ((peer (socket-accept server :wait 5)))
        (is (typep peer 'socket))
        (close peer))
      (close client))))

(defun count-event-descriptors ()
  (loop for entry in (descriptor-entries "/proc/self/fd/")
        count (search "[eventfd]" (or (link-target (uiop:native-namestring entry)) ""))))

(define-test faults.waits-without-descriptors (:behaviour 57 :faults t :limit 60)
  "Where no descriptor is left, the sockets that there are wait, are served and are closed."
  (with-socket-server (server 0 :host "127.0.0.1")
    (let* ((before (lport-wait-count))
           (count (+ 10 (count-event-descriptors))) ; more waits than have descriptors
           (clients (loop repeat count collect (open-socket "127.0.0.1" (port-of server))))
           (peers (loop repeat count collect (socket-accept server :wait 5))))
      (faults-fail 1 24 :call "eventfd" :count 1000000) ; EMFILE
      (unwind-protect
           (let ((readers (loop for peer in peers
                                collect (let ((peer peer))
                                          (in-thread (lambda () (read-line peer)))))))
             (is-true (wait-until (lambda () (= (lport-wait-count) (+ before count))) 10))
             (is (plusp (faults-struck)))
             (mapc #'close (nthcdr 5 peers))
             (dolist (client (subseq clients 0 5))
               (write-line "served" client)
               (finish-output client))
             (loop for reader in readers and number from 0
                   do (if (< number 5)
                          (is (equal "served" (join reader)))
                          (is (typep (failure-of (join reader)) 'socket-closed))))
             (is (typep (failure-of (with-deadline (0.02) (read-line (first clients))))
                        'timeout)))
        (faults-clear))
      (mapc #'close clients)
      (mapc #'close peers))))

(define-test faults.aborted-clients (:behaviour 57 :faults t)
  "Connections that were aborted in the queue are passed over."
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((client (open-socket "127.0.0.1" (port-of server))))
      (faults-fail 1 103 :call "accept4" :count 3) ; ECONNABORTED
      (unwind-protect
           (let ((peer (socket-accept server :wait 5)))
             (is (typep peer 'socket))
             (close peer))
        (faults-clear))
      (close client))))

(define-test faults.calls-that-the-system-has-not (:faults t)
  "A filter of system calls is not blamed on the kind of the socket."
  (with-datagram-socket (socket :host "127.0.0.1")
    (let ((batch (make-datagram-batch 1)))
      (batch-add batch (blank 1) :host "127.0.0.1" :port (nth-value 3 (socket-host/port socket)))
      (flet ((report-of (call function)
               (faults-fail 1 38 :call call) ; ENOSYS
               (unwind-protect (is-failure (not-supported :not-supported "failed: not supported")
                                 (funcall function))
                 (faults-clear))))
        (report-of "sendmmsg" (lambda () (send-batch socket batch)))
        (report-of "recvmmsg" (lambda () (receive-batch socket batch)))
        (report-of "any" (lambda () (socket-receive socket (blank 1))))))))

(define-test faults.options-that-fail-for-another-reason (:faults t)
  "What the system says is blamed on a value only where one was set, and could be the reason."
  (with-pair (a b :inet)
    (flet ((check (errno function)
             (faults-fail 1 errno)
             (let ((failure (unwind-protect (failure-of (funcall function))
                              (faults-clear))))
               (is (typep failure 'network))
               (is (not (search "expected" (princ-to-string failure))) "~A" failure)
               (is (not (search "take" (princ-to-string failure))) "~A" failure))))
      (dolist (errno '(22 71 99))       ; EINVAL, EPROTO, EADDRNOTAVAIL
        (dolist (name '(:congestion-control :send-buffer))
          (check errno (lambda () (socket-option a name)))))
      (check 71 (lambda () (setf (socket-option a :send-buffer) 5000))))))

(define-test faults.a-remote-end-that-is-not-available (:faults t)
  "Of what is wrong with that another own end would change nothing."
  (with-socket-server (server 0 :host "127.0.0.1")
    (dolist (connect (list (lambda ()
                             (open-socket "127.0.0.1" (port-of server) :local-host "127.0.0.1"))
                           (lambda ()
                             (open-datagram-socket :host "127.0.0.1" :port (unused-port)
                                                   :remote-host "127.0.0.1" :remote-port 9))))
      (faults-fail 1 99 :call "connect") ; EADDRNOTAVAIL
      (unwind-protect
           (is (equal '("Try again to connect." "Use another host.") (offered connect)))
        (faults-clear)))))
