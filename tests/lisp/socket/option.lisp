;;;; option - socket-option on every kind of socket, and the table of options.

(in-package :port/test)

(define-suite options "Options of sockets.")

(defparameter *samples*
  '((:reuse-address t nil) (:reuse-port t nil) (:free-bind t nil) (:receive-low-water 17 1)
    (:linger 3 1/2 0 nil) (:device "lo") (:dont-route t nil) (:priority 5 0) (:incoming-cpu 0 nil)
    (:ttl 7 64) (:hop-limit 8 64) (:type-of-service #x28 0) (:traffic-class #x48 0)
    (:mtu-discovery :always :never :route) (:nodelay nil t) (:cork t nil) (:quick-ack t)
    (:keepalive nil t) (:keepalive-idle 77 1.5) (:keepalive-interval 7) (:keepalive-count 5)
    (:user-timeout 3/2 0.25 nil) (:defer-accept 3 nil) (:orphan-timeout 11) (:syn-count 3)
    (:window-clamp 65536) (:not-sent-low-water 16384 nil) (:fast-open 5)
    (:congestion-control "reno") (:oob-inline t nil) (:v6-only t) (:pass-credentials t nil))
  "Rows (option value...): what it can be set to, and then is, times rounded up.")

(defun read-back (value option)
  "What OPTION is after it was set to VALUE."
  (let ((row (find option (socket-options) :key (lambda (row) (getf row :name)))))
    (if (and (eq (getf row :kind) :time) value)
        (if (equal (getf row :unit) "seconds")
            (ceiling value)
            (/ (ceiling (* (rationalize value) 1000)) 1000))
        value)))

(defun check-samples (socket &rest except)
  "Set on SOCKET and read again each of *SAMPLES* but those named EXCEPT, which depend on its state;
the names of those that it does not have, in alphabetical order."
  (sort (loop for (name . values) in *samples*
              for failure = (and (not (member name except))
                                 (failure-of (set-and-read socket name values)))
              when failure
                do (is (typep failure 'not-supported) "~S: ~A" name failure)
                and collect name)
        #'string<))

(defun set-and-read (socket name values)
  (dolist (value values)
    (setf (socket-option socket name) value)
    (is (equal (read-back value name) (socket-option socket name))
        "~S of ~A set to ~S is ~S" name socket value (socket-option socket name))))

(define-test option.written-and-read ()
  "On each kind of socket every option that is for it; the others say for which they are."
  (with-socket-server (server 0 :host "127.0.0.1")
    (is (equal '(:pass-credentials :v6-only) (check-samples server))))
  (with-pair (a b :inet)
    (is (equal '(:pass-credentials :v6-only) (check-samples a :fast-open))))
  (with-pair (a b :local)
    (is (equal (sort (mapcar #'first (remove-if (lambda (name)
                                                  (member name '(:receive-low-water :linger
                                                                 :priority :incoming-cpu
                                                                 :pass-credentials)))
                                                *samples* :key #'first))
                     #'string<)
               (check-samples a)))
    (is (eq a (network-socket (is-failure (not-supported :not-supported
                                                         ":NODELAY is an option of TCP sockets")
                                (socket-option a :nodelay)))))
    (let ((report (princ-to-string (is-failure (not-supported :not-supported)
                                     (setf (socket-option a :ttl) 5)))))
      (is (search ":TTL is an option of TCP and UDP" report))
      (is (not (search "UDP sockets" report)) "~A" report))))

(define-test option.written-and-read-of-inet6 ()
  (with-inet6 ()
    (with-socket-server (server 0 :host "::1")
      (is (equal '(:pass-credentials) (check-samples server :v6-only)))
      (is (eq t (socket-option server :v6-only)))
      (is-failure (usage-error :invalid "does not take NIL for :V6-ONLY")
        (setf (socket-option server :v6-only) nil)))
    (with-pair (a b :inet6)
      (is (equal '(:pass-credentials) (check-samples a :fast-open :v6-only))))
    (let ((*samples* (append *datagram-samples* *samples*)))
      (with-datagram-socket (socket :host "::1")
        (is (equal '() (set-exclusive-or (list* :pass-credentials *options-of-tcp*)
                                         (check-samples socket :v6-only))))))))

(defparameter *datagram-samples*
  '((:broadcast t nil) (:receive-errors t nil) (:multicast-ttl 5 1) (:multicast-loop nil t)
    (:multicast-interface "lo" nil))
  "As *SAMPLES*, for UDP alone.")

(defparameter *options-of-tcp*
  '(:congestion-control :cork :defer-accept :fast-open :keepalive :keepalive-count :keepalive-idle
    :keepalive-interval :nodelay :not-sent-low-water :oob-inline :orphan-timeout :quick-ack
    :syn-count :user-timeout :window-clamp)
  "Names in *SAMPLES* that UDP sockets do not have.")

(define-test option.written-and-read-of-datagrams ()
  (let ((*samples* (append *datagram-samples* *samples*)))
    (with-udp (server client)
      (dolist (socket (list server client))
        (is (equal '() (set-exclusive-or (list* :pass-credentials :v6-only *options-of-tcp*)
                                         (check-samples socket))))))))

(define-test option.what-a-socket-is ()
  (flet ((facts (socket)
           (mapcar (lambda (name) (socket-option socket name))
                   '(:type :domain :protocol :accepting :error))))
    (with-socket-server (server 0 :host "127.0.0.1")
      (is (equal '(:stream :inet :tcp t nil) (facts server))))
    (when (inet6-p)
      (with-pair (a b :inet6)
        (is (equal '(:stream :inet6 :tcp nil nil) (facts a)))))
    (with-pair (a b :inet)
      (is (< 1000 (socket-option a :mtu)))
      (is (< 500 (socket-option a :max-segment)))
      (is (null (socket-option a :device))))
    (with-pair (a b :local)
      (is (equal '(:stream :local :default nil nil) (facts a))))))

(define-test option.mtu-of-a-way-that-is-known ()
  "Of no way before a connect, and of none that DEVICE has made the system forget, until one sends."
  (flet ((is-unknown (socket)
           (is-failure (usage-error :not-connected "expected a connected socket for :MTU"
                                    "has sent since")
             (socket-option socket :mtu))))
    (with-udp (server client)
      (is-unknown server)
      (setf (socket-option server :device) "lo")
      (is-unknown server)
      (is (< 1000 (socket-option client :mtu)))
      (setf (socket-option client :device) "lo")
      (is-unknown client)
      (send-message client "x")
      (is (< 1000 (socket-option client :mtu))))))

(define-test option.buffers ()
  "The system doubles what it is given."
  (do-pairs (a b)
    (dolist (name '(:receive-buffer :send-buffer))
      (setf (socket-option a name) 20000)
      (is (<= 20000 (socket-option a name) 80000)))))

(define-test option.defaults-of-connections ()
  "What open-socket and open-socket-server promise."
  (with-pair (a b :inet)
    (dolist (socket (list a b))
      (is (equal '(t t 15 15 9)
                 (mapcar (lambda (name) (socket-option socket name))
                         '(:nodelay :keepalive :keepalive-idle :keepalive-interval
                           :keepalive-count)))))))

(define-test option.linger-zero-resets ()
  (with-pair (a b :inet)
    (setf (socket-option a :linger) 0)
    (close a)
    (is (typep (failure-of (read-char b)) 'connection-reset))))

(define-test option.linger-does-not-block ()
  "A close with a time to linger leaves what is on its way to the system, as one without."
  (with-pair (a b :inet)
    (setf (socket-option a :linger) 30
          (socket-option b :receive-buffer) 4096) ; so that much waits to be acknowledged
    (write-sequence (blank 200000) a)
    (is (< (seconds-of (lambda () (close a))) 5))
    (is (= 200000 (length (everything b))))))

(define-test option.names-and-values-that-are-none-are-refused ()
  (with-pair (a b :inet)
    (dolist (name '(:no-such-option nil "nodelay" 17))
      (let ((failure (is-failure (usage-error :invalid ":NODELAY" ":TTL") (socket-option a name))))
        (is-report failure (prin1-to-string name))
        (is (eql name (type-error-datum failure)))
        (is (typep :nodelay (type-error-expected-type failure)))
        (is (not (typep name (type-error-expected-type failure)))))
      (signals usage-error (setf (socket-option a name) t)))
    (loop for (name value . parts)
            in '((:nodelay 1 "T or NIL" ":NODELAY" "1") (:ttl "far" "number of hops" "\"far\"")
                 (:ttl -1 "from 0 to 2147483647") (:send-buffer #x80000000 "to 2147483647")
                 (:ttl 1.5 "number") (:ttl nil "number")
                 (:keepalive-idle -1 "seconds") (:keepalive-idle :long "seconds")
                 (:keepalive-idle nil "seconds") (:user-timeout "x" "seconds" "or NIL")
                 (:mtu-discovery :sometimes ":PROBE" ":SOMETIMES")
                 (:congestion-control :reno "string"))
          do (apply #'is-report
                    (is-failure (usage-error :invalid) (setf (socket-option a name) value))
                    parts)
             (signals type-error (setf (socket-option a name) value)))
    (dolist (name '(:type :error :mtu :accepting))
      (is-failure (usage-error :invalid (format nil "~S can only be read" name) "127.0.0.1")
        (setf (socket-option a name) 1)))
    (is-failure (usage-error :invalid "1000 hops for :TTL" "127.0.0.1")
      (setf (socket-option a :ttl) 1000))
    (is-failure (usage-error :invalid "100000 seconds for :KEEPALIVE-IDLE")
      (setf (socket-option a :keepalive-idle) 100000))
    (is-failure (usage-error :invalid "10000000 seconds for :USER-TIMEOUT")
      (setf (socket-option a :user-timeout) 10000000))
    (let ((failure (is-failure (usage-error :invalid "the system does not take" "\"nobodys\"")
                     (setf (socket-option a :congestion-control) "nobodys"))))
      (is (eq a (network-socket failure)))
      (is (= 2 (network-errno failure)))) ; ENOENT
    (is-failure (address-not-available :address-not-available "127.0.0.1"
                                       "expected an interface that exists for :DEVICE"
                                       "\"no-such-0\"")
      (setf (socket-option a :device) "no-such-0"))
    (is (= 15 (socket-option a :keepalive-idle)))
    (is (equal '(nil 2) (list (setf (socket-option a :nodelay) nil)
                              (setf (socket-option a :keepalive-idle) 2))))
    (close a)
    (is-failure (socket-closed :closed) (socket-option a :nodelay))
    (is-failure (socket-closed :closed) (setf (socket-option a :nodelay) t))
    (is-failure (socket-closed :closed) (setf (socket-option a :congestion-control) "reno")))
  (with-datagram-socket (socket)
    (dolist (index (list 0 (ash 1 31))) ; NIL is for none
      (is-failure (usage-error :invalid "expected the name or the index of an interface or NIL")
        (setf (socket-option socket :multicast-interface) index)))
    (is (typep (failure-of (setf (socket-option socket :multicast-interface) (1- (ash 1 31))))
               'address-not-available))
    (is (null (setf (socket-option socket :device) nil)))
    (is (eql (1- (ash 1 31)) (setf (socket-option socket :receive-buffer) (1- (ash 1 31))))))
  (signals type-error (socket-option "no socket" :nodelay))
  (signals usage-error (setf (socket-option *standard-output* :nodelay) t)))

(define-test option.table ()
  "The reference can be printed from the table."
  (let ((rows (socket-options)))
    (is (< 40 (length rows)))
    (loop for (name writable none) in '((:nodelay t nil) (:user-timeout t t) (:type nil nil))
          for row = (find name rows :key (lambda (row) (getf row :name)))
          do (is (equal (list writable none) (list (getf row :writable) (getf row :none)))))
    (is (= (length rows)
           (length (remove-duplicates (mapcar (lambda (row) (getf row :name)) rows)))))
    (dolist (row rows)
      (destructuring-bind (&key name kind unit sockets writable none choices note) row
        (is (keywordp name))
        (is (member kind '(:boolean :integer :time :choice :interface :text)))
        (is (typep unit '(or null string)))
        (is (plusp (length sockets)))
        (is (typep (list writable none) '(cons boolean (cons boolean))))
        (is (eq (eq kind :choice) (and choices (every #'keywordp choices) t)))
        (is (search (if (search "name for" note) "name for" "(") note))))))

(define-test option.before-the-connect ()
  "What has no effect on a connection that is there has one on the socket that connects."
  (with-socket-server (server 0 :host "127.0.0.1" :options '(:ttl 77 :nodelay nil))
    (let ((port (port-of server)))
      (with-open-socket (client "127.0.0.1" port)
        (with-open-stream (peer (socket-accept server))
          (is (< 700 (socket-option client :max-segment)))
          (is (null (socket-option peer :nodelay))) ; the listener's, which is set after its keyword
          (is (= 77 (socket-option peer :ttl)))))
      (with-open-socket (client "127.0.0.1" port
                                :options '(:max-segment 700 :device "lo" :keepalive-idle 3/2
                                           :nodelay nil :mtu-discovery :always :nodelay t))
        (with-open-stream (peer (socket-accept server))
          (is (>= 700 (socket-option client :max-segment)))
          (is (>= 700 (socket-option peer :max-segment)))
          (is (equal '("lo" 2 nil :always)
                     (mapcar (lambda (name) (socket-option client name))
                             '(:device :keepalive-idle :nodelay :mtu-discovery)))))))))

(define-test option.before-the-bind ()
  (dolist (host (available '("192.0.2.1" "2001:db8::1")))
    (with-socket-server (server 0 :host host :options '(:free-bind t))
      (is (equal host (socket-server-host/port server))))
    (with-datagram-socket (socket :host host :options '(:free-bind t))
      (is (equal host (nth-value 2 (socket-host/port socket))))))
  (with-inet6 ()
    (with-socket-server (server 0 :options '(:v6-only t))
      (close (open-socket "::1" (port-of server)))
      (is (typep (failure-of (open-socket "127.0.0.1" (port-of server))) 'connection-refused)))
    (with-datagram-socket (socket :options '(:v6-only t))
      (is (eq t (socket-option socket :v6-only))))))

(define-test option.before-anything-else-of-local-sockets ()
  (let ((path (temporary-path)))
    (dolist (kind '(:stream :seqpacket :datagram))
      (with-open-stream (server (open-unix-server path :kind kind :options '(:priority 4)))
        (let ((client (open-unix-socket path :kind kind :options '(:priority 5))))
          (is (= 4 (socket-option server :priority)))
          (is (= 5 (socket-option client :priority)))
          (close client)))
      (is (not (probe-file path))))))

(defun openers ()
  "Functions of OPTIONS that open each kind of socket, with ends that are not to be had: what is
said of the options comes before."
  (list (lambda (options) (open-socket "nobody.invalid" 1 :options options))
        (lambda (options) (open-socket-server 0 :host "192.0.2.1" :options options))
        (lambda (options) (open-datagram-socket :host "192.0.2.1" :options options))
        (lambda (options)
          (open-datagram-socket :remote-host "nobody.invalid" :remote-port 1 :options options))
        (lambda (options) (open-unix-socket "/no-such/socket" :options options))
        (lambda (options) (open-unix-server "/no-such/socket" :options options))))

(define-test option.those-to-begin-with-are-checked-before-anything-is-opened ()
  (loop for (options . parts)
          in '(((:no-such-option t) ":NODELAY" ":NO-SUCH-OPTION") ((:priority) "in pairs")
               ((:priority 5 . 7) "in pairs") (:priority "in pairs")
               ((:priority 5 :linger :long) "seconds" "or NIL" ":LINGER" ":LONG")
               ((:device 5) "a string") ((:type :stream) ":TYPE can only be read"))
        do (dolist (open (openers))
             (apply #'is-report
                    (is-failure (usage-error :invalid "socket option failed")
                      (funcall open options))
                    parts)))
  (is-failure (usage-error :invalid "T or NIL")
    (serve #'identity 0 :options '(:free-bind 1)))
  (is-failure (address-not-available :address-not-available "the name of an interface" "no-such-0")
    (open-socket "nobody.invalid" 1 :options '(:multicast-interface "no-such-0"))))

(define-test option.those-that-cannot-be-had-are-told-as-when-they-are-set ()
  "And nothing is left, and nothing was sent."
  (with-socket-server (server 0 :host "127.0.0.1")
    (loop with port = (port-of server)
          for (class code part . options)
            in '((not-supported :not-supported ":V6-ONLY is an option of IPv6 sockets" :v6-only t)
                 (not-supported :not-supported ":BROADCAST is an option of UDP" :broadcast nil)
                 (usage-error :invalid "the system does not take 1000 hops for :TTL" :ttl 1000)
                 (usage-error :invalid "take \"nobodys\" for :CONGESTION-CONTROL"
                  :congestion-control "nobodys")
                 (usage-error :invalid "take \"a-name-that-is-as-long-as-none-can-be\" for :DEVICE"
                  :device "a-name-that-is-as-long-as-none-can-be")
                 (address-not-available :address-not-available
                  "expected an interface that exists for :DEVICE, got \"no-such-0\""
                  :device "no-such-0"))
          do (dolist (open (list (lambda () (open-socket "127.0.0.1" port :options options))
                                 (lambda () (open-socket-server 0 :host "127.0.0.1"
                                                                  :options options))
                                 (lambda () (serve #'identity 0 :host "127.0.0.1"
                                                                :options options))))
               (let ((failure (failure-of (funcall open))))
                 (is (typep failure class) "~S: ~A" options failure)
                 (is (eq code (network-code failure)))
                 (is-report failure part)
                 (is (eq :option (network-operation failure))))))
    (is (null (socket-accept server :wait 0))))
  (dolist (arguments '(() (:remote-host "127.0.0.1" :remote-port 9)))
    (is-failure (not-supported :not-supported ":NODELAY is an option of TCP sockets")
      (apply #'open-datagram-socket :options '(:nodelay t) arguments)))
  (let ((path (temporary-path)))
    (is-failure (not-supported :not-supported ":TTL is an option of TCP and UDP")
      (open-unix-server path :options '(:ttl 5)))
    (is (not (probe-file path)))))

(define-test option.addresses-whose-sockets-cannot-have-one-are-no-attempts-of-others ()
  "With one that is for IPv6 alone a name is reached over IPv6, and what it met is told of each."
  (with-names ()
    (with-inet6 ()
      (with-socket-server (server 0)
        (with-open-socket (client "many.test" (port-of server) :options '(:v6-only t))
          (is (equal "::1" (socket-host/port client)))))
      (let ((failure (failure-of (open-socket "many.test" (unused-port)
                                              :options '(:v6-only t)))))
        (is (typep failure 'connection-refused))
        (is-report failure "::1 connection refused"
                   "127.0.0.2 :V6-ONLY is an option of IPv6 sockets")))))

(define-test option.that-cannot-be-set-is-not-for-want-of-another-host-or-port ()
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((options '(:device "no-such")))
      (loop for (doing . call)
              in (list (list "connect" 'open-socket "127.0.0.1" (port-of server))
                       (list "connect" 'open-socket "127.0.0.1" (port-of server)
                             :local-host "127.0.0.1" :local-port (unused-port))
                       (list "listen" 'open-socket-server 0 :host "127.0.0.1")
                       (list "bind" 'open-datagram-socket :host "127.0.0.1")
                       (list "connect" 'open-datagram-socket :host "127.0.0.1" :port (unused-port)
                                       :remote-host "127.0.0.1" :remote-port 9))
            do (is (equal (list (format nil "Try again to ~A." doing))
                          (offered (lambda () (apply (first call)
                                                     (append (rest call)
                                                             (list :options options)))))))))))

(define-test option.that-a-privilege-is-missing-for (:faults t)
  "The condition is that of the option, whichever call of the system has said it."
  (let ((failures (loop for number from 1 to 12
                        do (faults-fail number 1) ; EPERM
                        when (unwind-protect
                                  (failure-of
                                    (close (open-socket-server 0 :host "127.0.0.1"
                                                                 :options '(:priority 5))))
                               (faults-clear))
                          collect it)))
    (is (find-if (lambda (failure)
                   (and (typep failure 'permission-denied)
                        (equal "socket option failed: :PRIORITY: permission denied"
                               (princ-to-string failure))))
                 failures))))

(define-test option.a-protocol-without-a-name ()
  "UDP-Lite, which is no protocol of ours; and Multipath TCP, which has a name."
  (loop for (type protocol) in '((1 262) (2 136))
        for fd = (cffi:foreign-funcall "socket" :int 2 :int type :int protocol :int)
        do (unless (minusp fd)          ; this system does not have it
             (when (= protocol 262)
               (cffi:foreign-funcall "listen" :int fd :int 1 :int))
             (with-open-stream (socket (adopt-descriptor fd))
               (if (= protocol 262)
                   (is (eq :mptcp (socket-option socket :protocol)))
                   (is-failure (network :other ":PROTOCOL is none of :DEFAULT :TCP :UDP :MPTCP")
                     (socket-option socket :protocol)))))))
