;;;; usocket - programs on usocket, which run on port: what usocket promises, and what its users
;;;; suffer from and here no longer do.

(in-package :port/test)

(define-suite usocket "USOCKET with port below it.")

(defmacro with-usocket-pair ((client server &rest options) &body body)
  "Run BODY with CLIENT and SERVER bound to two connected sockets of usocket; OPTIONS are those of
the connect."
  (let ((listener (gensym "LISTENER")))
    `(usocket:with-socket-listener (,listener "127.0.0.1" 0)
       (usocket:with-connected-socket
           (,client (usocket:socket-connect "127.0.0.1" (usocket:get-local-port ,listener)
                                            ,@options))
         (usocket:with-connected-socket (,server (usocket:socket-accept ,listener))
           ,@body)))))

(defun usocket-line (socket)
  (read-line (usocket:socket-stream socket)))

(defun usocket-write (socket line)
  (write-line line (usocket:socket-stream socket))
  (finish-output (usocket:socket-stream socket)))

(defmacro is-mapped ((class cause &rest parts) &body body)
  "BODY fails with the condition CLASS of usocket, which has a CAUSE of port, and PARTS in its
report."
  (let ((condition (gensym "CONDITION")))
    `(let ((,condition (nth-value 1 (ignore-errors ,@body))))
       (is (typep ,condition ',class))
       (is (typep (port/usocket:cause ,condition) ',cause))
       (is-report ,condition ,@parts))))

;;; What usocket promises

(define-test usocket.the-backend-is-port ()
  (is (eq :port usocket:*backend*)))

(define-test usocket.every-host-of-usocket-is-taken ()
  "Strings, vectors and integers."
  (usocket:with-socket-listener (listener #(127 0 0 1) 0)
    (dolist (host (list "127.0.0.1" #(127 0 0 1) (octets 127 0 0 1) #x7F000001))
      (usocket:with-client-socket (client stream host (usocket:get-local-port listener))
        (is (equalp #(127 0 0 1) (usocket:get-peer-address client)))
        (is (typep client 'usocket:stream-usocket))
        (is (open-stream-p stream))
        (usocket:socket-close (usocket:socket-accept listener)))))
  (with-inet6 ()
    (usocket:with-socket-listener (listener "::1" 0)
      (dolist (host (list "::1" (usocket:ipv6-host-to-vector "::1")))
        (usocket:with-client-socket (client stream host (usocket:get-local-port listener))
          (is (= 16 (length (usocket:get-peer-address client))))
          (usocket:socket-close (usocket:socket-accept listener)))))))

(define-test usocket.the-wildcard-is-every-address ()
  "With IPv6, where there is some; clients over IPv4 have addresses of 4 octets."
  (usocket:with-socket-listener (listener usocket:*wildcard-host* usocket:*auto-port*)
    (dolist (host (available '("127.0.0.1" "::1")))
      (usocket:with-client-socket (client stream host (usocket:get-local-port listener))
        (usocket:with-connected-socket (server (usocket:socket-accept listener))
          (is (usocket:ip= host (usocket:get-peer-address server))))))))

(define-test usocket.both-ends-have-names ()
  (with-usocket-pair (client server :local-host "127.0.0.2")
    (is (equalp (multiple-value-list (usocket:get-local-name client))
                (multiple-value-list (usocket:get-peer-name server))))
    (is (equalp #(127 0 0 2) (usocket:get-local-address client)))
    (is (equalp #(127 0 0 1) (usocket:get-peer-address client)))
    (is (= (usocket:get-peer-port client) (usocket:get-local-port server)))))

(define-test usocket.element-types-are-taken ()
  "Octets and characters; what no stream of port has is refused before anything is opened."
  (dolist (type '(character base-char (unsigned-byte 8) unsigned-byte :default))
    (with-usocket-pair (client server :element-type type)
      (usocket-write server "text")
      (is (= (char-code #\t) (read-byte (usocket:socket-stream client))))
      (is (string= "ext" (usocket-line client)))))
  (signals usocket:unsupported
    (usocket:socket-connect "127.0.0.1" 1 :element-type '(unsigned-byte 32))))

(define-test usocket.a-wait-tells-who-is-ready ()
  (with-usocket-pair (client server)
    (is (null (usocket:wait-for-input server :timeout 0 :ready-only t)))
    (is (eq server (usocket:wait-for-input server :timeout 0)))
    (is (null (usocket:socket-state server)))
    (usocket-write client "a line")
    (multiple-value-bind (ready left)
        (usocket:wait-for-input (list client server) :timeout 10 :ready-only t)
      (is (equal (list server) ready))
      (is (<= 0 left 10)))
    (is (eq :read (usocket:socket-state server)))
    (is (null (usocket:socket-state client)))
    (usocket-line server)
    (multiple-value-bind (all left) (usocket:wait-for-input (list client server) :timeout 0.01)
      (is (equal (list client server) all))
      (is (null left)))
    (is (notany #'usocket:socket-state (list client server)))))

(define-test usocket.a-wait-list-loses-what-is-closed ()
  (with-usocket-pair (client server)
    (let ((list (usocket:make-wait-list (list client server))))
      (usocket-write client "a line")
      (is (equal (list server) (usocket:wait-for-input list :timeout 10 :ready-only t)))
      (usocket:remove-waiter list server)
      (is (null (usocket:wait-for-input list :timeout 0 :ready-only t)))
      (usocket:add-waiter list server)
      (usocket:socket-close client)
      (is (equal (list server) (usocket:wait-for-input list :timeout 10 :ready-only t))))))

(define-test usocket.a-wait-goes-on-without-what-is-closed ()
  "Whoever closes a socket takes it from its wait list, also under the thread that waits."
  (with-usocket-pair (client server)
    (with-usocket-pair (other peer)
      (let* ((list (usocket:make-wait-list (list peer server)))
             (thread (start-blocked (lambda ()
                                      (usocket:wait-for-input list :ready-only t)))))
        (usocket:socket-close peer)
        (usocket-write client "a line")
        (is (equal (list server) (join thread)))
        (usocket:socket-close server)
        (is (eq list (usocket:wait-for-input list)))
        (is (null (usocket:wait-for-input list :timeout 0 :ready-only t)))))
    (signals usocket:bad-file-descriptor-error
      (usocket:wait-for-input server :timeout 0))))

(define-test usocket.input-above-the-socket-is-ready ()
  "What a stream around the socket has read, as TLS does, is not in the socket any more."
  (with-usocket-pair (client server)
    (with-usocket-pair (other idle)
      (setf (usocket:socket-stream server)
            (make-concatenated-stream (make-string-input-stream "x")
                                      (usocket:socket-stream server)))
      (is (equal (list server)
                 (usocket:wait-for-input (list idle server) :timeout 10 :ready-only t)))
      (read-char (usocket:socket-stream server))
      (is (null (usocket:wait-for-input (list idle server) :timeout 0 :ready-only t))))))

(define-test usocket.buffered-input-is-ready ()
  (with-usocket-pair (client server)
    (usocket-write client (format nil "one~%two"))
    (usocket-line server)
    (is (equal (list server) (usocket:wait-for-input server :timeout 0 :ready-only t)))))

(define-test usocket.datagrams-go-both-ways ()
  (let ((server (usocket:socket-connect nil nil :protocol :datagram :local-host "127.0.0.1"
                                                :local-port 0)))
    (usocket:with-connected-socket (server server)
      (usocket:with-connected-socket
          (client (usocket:socket-connect "127.0.0.1" (usocket:get-local-port server)
                                          :protocol :datagram))
        (is (typep client 'usocket:datagram-usocket))
        (is (= 3 (usocket:socket-send client (vector 0 1 2 3 4) 3 :offset 1)))
        (is (equal (list server) (usocket:wait-for-input server :timeout 10 :ready-only t)))
        (multiple-value-bind (buffer count host port) (usocket:socket-receive server nil 10)
          (is (= 3 count))
          (is (equalp #(1 2 3) (subseq buffer 0 count)))
          (is (equalp #(127 0 0 1) host))
          (is (= port (usocket:get-local-port client)))
          (usocket:socket-send server (octets 9) 1 :host host :port port))
        (let ((own (blank 4)))
          (multiple-value-bind (buffer count) (usocket:socket-receive client own 4)
            (is (eq own buffer))
            (is (= 1 count))
            (is (= 9 (aref buffer 0)))))))))

(define-test usocket.a-buffer-without-a-length-is-a-whole-one ()
  "Both to send and to receive."
  (let ((server (usocket:socket-connect nil nil :protocol :datagram :local-host "127.0.0.1")))
    (usocket:with-connected-socket (server server)
      (usocket:with-connected-socket
          (client (usocket:socket-connect "127.0.0.1" (usocket:get-local-port server)
                                          :protocol :datagram))
        (is (= 3 (usocket:socket-send client (octets 1 2 3) nil)))
        (is (= 2 (usocket:socket-send client (vector 1 2 3) nil :offset 1)))
        (is (= 0 (usocket:socket-send client (octets 1 2 3) 0)))
        (loop for count in '(2 2 0)
              do (is (= count (nth-value 1 (usocket:socket-receive server (blank 2) nil)))))))))

(define-test usocket.a-deadline-is-for-datagrams-too ()
  (usocket:with-connected-socket
      (socket (usocket:socket-connect nil nil :protocol :datagram
                                              :deadline (+ (get-internal-real-time) 1)))
    (is-mapped (usocket:timeout-error timeout)
      (usocket:socket-receive socket nil 1))))

(define-test usocket.local-sockets-have-pathnames ()
  (let ((path (pathname (temporary-path))))
    (usocket:with-socket-listener (listener path 0)
      (usocket:with-client-socket (client stream path 0)
        (usocket:with-connected-socket (server (usocket:socket-accept listener))
          (usocket-write client "local")
          (is (string= "local" (usocket-line server)))
          (is (string= (namestring path) (usocket:get-peer-name client))))))
    (is (null (probe-file path)))))

(define-test usocket.options-by-either-name ()
  (with-usocket-pair (client server :nodelay nil)
    (is (null (usocket:socket-option client :tcp-nodelay)))
    (setf (usocket:socket-option client :tcp-no-delay) t)
    (is (eq t (usocket:socket-option client :nodelay)))
    (setf (usocket:socket-option client :receive-timeout) 2
          (usocket:socket-option client :send-timeout) 3)
    (is (= 2 (usocket:socket-option client :receive-timeout)))
    (is (= 3 (usocket:socket-option client :send-timeout)))
    (signals usocket:unimplemented
      (usocket:socket-option client :no-such))
    (signals usocket:unimplemented
      (setf (usocket:socket-option client :no-such) t))
    (signals type-error
      (usocket:socket-option client 'nodelay))
    (is-mapped (usocket:invalid-argument-error usage-error "-1")
      (setf (usocket:socket-option client :receive-timeout) -1))))

#+(or sbcl ecl)
(define-test usocket.the-options-of-the-system-are-those-of-port ()
  "Programs set them past usocket."
  (with-usocket-pair (client server)
    (setf (sb-bsd-sockets:sockopt-keep-alive (usocket:socket client)) nil)
    (is (null (usocket:socket-option client :keepalive)))
    (is (= (socket-descriptor (usocket:socket client))
           (sb-bsd-sockets:socket-file-descriptor (usocket:socket client))))))

(define-test usocket.a-deadline-is-internal-time ()
  (with-usocket-pair (client server :deadline (+ (get-internal-real-time)
                                                 (floor internal-time-units-per-second 20)))
    (is-mapped (usocket:timeout-error timeout)
      (usocket:with-mapped-conditions (client)
        (usocket-line client)))))

(define-test usocket.a-read-timeout-is-for-each-read ()
  (with-usocket-pair (client server :timeout 10 :read-timeout 0.05)
    (is-mapped (usocket:timeout-error timeout "read from 127.0.0.1")
      (usocket:with-mapped-conditions (client)
        (usocket-line client)))
    (usocket-write server "later")
    (is (string= "later" (usocket-line client)))))

(define-test usocket.a-connect-with-a-wrong-limit-leaves-nothing-open ()
  (usocket:with-socket-listener (listener "127.0.0.1" 0)
    (is-mapped (usocket:invalid-argument-error usage-error "-1")
      (usocket:socket-connect "127.0.0.1" (usocket:get-local-port listener) :read-timeout -1))
    (usocket:with-connected-socket (server (usocket:socket-accept listener))
      (is (null (read-line (usocket:socket-stream server) nil))))))

(define-test usocket.a-timeout-is-for-reads-as-in-this-usocket ()
  "Since 0.8.7 that of the connect is that of each read, too."
  (with-usocket-pair (client server :timeout 10)
    (is (eql (and (uiop:version<= "0.8.7" usocket:*version*) 10)
             (usocket:socket-option client :receive-timeout)))))

(define-test usocket.an-output-that-is-shut-down-is-an-end ()
  (with-usocket-pair (client server)
    (write-string "last" (usocket:socket-stream client))
    (usocket:socket-shutdown client :output)
    (is (equal '("last" t) (multiple-value-list (usocket-line server))))
    (usocket-write server "answer")
    (is (string= "answer" (usocket-line client)))))

(define-test usocket.names-have-vectors ()
  (with-names ()
    (let ((hosts (usocket:get-hosts-by-name "many.test")))
      (is (= (length (resolve "many.test")) (length hosts)))
      (is (apply #'<= (mapcar #'length hosts)))
      (is (= 4 (length (usocket:get-host-by-name "many.test")))))
    (is-mapped (usocket:ns-host-not-found-error host-not-found "nobody.test")
      (usocket:get-hosts-by-name "nobody.test"))))

(define-test usocket.closing-ends-an-accept ()
  (usocket:with-socket-listener (listener "127.0.0.1" 0)
    (let ((thread (start-blocked (lambda ()
                                   (usocket:with-mapped-conditions (listener)
                                     (usocket:socket-accept listener))))))
      (usocket:socket-close listener)
      (is (typep (join thread) 'usocket:bad-file-descriptor-error)))))

(define-test usocket.sockets-of-others-stay-what-they-are ()
  "A stream that is no socket of port, wrapped by a program itself."
  (let ((other (usocket::make-stream-socket :socket :theirs
                                            :stream (make-string-input-stream "x"))))
    (is (eq :theirs (usocket:socket other)))
    (with-usocket-pair (client server)
      (signals usocket:unsupported
        (usocket:wait-for-input (list client other) :timeout 0)))))

(define-test usocket.close-closes-what-is-around-the-socket ()
  "A stream that a program has made that of the socket, which may have output of its own."
  (with-usocket-pair (client server)
    (let ((around (make-two-way-stream (usocket:socket-stream client)
                                       (make-broadcast-stream))))
      (setf (usocket:socket-stream client) around)
      (usocket:socket-close client)
      (is (not (open-stream-p around)))
      (is (null (read-line (usocket:socket-stream server) nil))))))

(define-test usocket.every-failure-is-an-error ()
  "Also a name server that does not answer, of which usocket made a mere condition before 0.8.4."
  (dolist (row port/usocket::*mapping*)
    (is (subtypep (cdr row) 'error)))
  (let ((condition (nth-value 1 (ignore-errors
                                  (port/usocket::fail-mapped
                                   (make-condition 'network :errno 5) nil nil)))))
    (is (typep condition 'usocket:unknown-error))
    (is (= 5 (usocket::usocket-errno condition)))
    (is (typep (usocket::usocket-real-error condition) 'network))))

;;; What its users suffer from

(define-test usocket.refused-is-not-a-timeout ()
  (let ((number (unused-port)))
    (is (< (seconds-of
            (lambda ()
              (is-mapped (usocket:connection-refused-error connection-refused
                          "connect to 127.0.0.1 port" (princ-to-string number) "refused")
                (usocket:socket-connect "127.0.0.1" number :timeout 20))))
           5))))

(define-test usocket.close-sends-what-was-written ()
  (with-usocket-pair (client server)
    (write-line "not flushed by hand" (usocket:socket-stream client))
    (usocket:socket-close client)
    (is (string= "not flushed by hand" (usocket-line server)))))

(define-test usocket.abort-resets-nothing ()
  "Programs close so when all is sent: hunchentoot does, after each connection."
  (with-usocket-pair (client server)
    (usocket-write client "sent")
    (close (usocket:socket-stream client) :abort t)
    (is (string= "sent" (usocket-line server)))
    (is (eq :end (read-line (usocket:socket-stream server) nil :end)))))

(define-test usocket.abort-waits-for-nobody ()
  "The other side does not read, and what is written does not fit."
  (with-usocket-pair (client server)
    (setf (usocket:socket-option client :send-timeout) 0.05)
    (let ((stream (usocket:socket-stream client)) (piece (blank 65536)))
      (is (typep (failure-of (loop (write-sequence piece stream))) 'timeout))
      (is (< (seconds-of (lambda () (close stream :abort t))) 3))
      (is (not (open-stream-p stream))))))

(define-test usocket.close-wakes-who-reads ()
  (with-usocket-pair (client server)
    (let ((thread (start-blocked (lambda ()
                                   (usocket:with-mapped-conditions (client)
                                     (usocket-line client))))))
      (usocket:socket-close client)
      (is (typep (join thread) 'usocket:bad-file-descriptor-error)))))

(define-test usocket.a-reset-is-one ()
  (with-usocket-pair (client server)
    (setf (usocket:socket-option server :linger) 0)
    (usocket:socket-close server)
    (is-mapped (usocket:connection-reset-error connection-reset "reset by peer")
      (usocket:with-mapped-conditions (client)
        (usocket-line client)))))

(define-test usocket.a-mapped-condition-is-not-mapped-again ()
  (with-usocket-pair (client server)
    (is-mapped (usocket:connection-refused-error connection-refused)
      (usocket:with-mapped-conditions (server)
        (usocket:with-mapped-conditions (client)
          (usocket:socket-connect "127.0.0.1" (unused-port)))))))

(define-test usocket.high-descriptors (:limit 60)
  (if (< (descriptor-limit) 1500)
      (skip "there are no such descriptors here")
      (let ((fillers (loop repeat 700
                           nconc (multiple-value-list (open-socket-pair)))))
        (unwind-protect
             (with-usocket-pair (client server)
               (is (> (socket-descriptor (usocket:socket server)) 1024))
               (is (null (usocket:wait-for-input server :timeout 0.01 :ready-only t)))
               (usocket-write client "x")
               (is (equal (list server) (usocket:wait-for-input server :timeout 10 :ready-only t))))
          (mapc #'close fillers)))))

(define-test usocket.every-address-is-tried ()
  (with-names ()
    (dolist (address (available (resolve "many.test")))
      (usocket:with-socket-listener (listener (princ-to-string address) 0)
        (usocket:with-client-socket (client stream "many.test" (usocket:get-local-port listener)
                                            :timeout 10)
          (is (equalp (address-octets address) (usocket:get-peer-address client))))))))
