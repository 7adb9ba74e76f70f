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
