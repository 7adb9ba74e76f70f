;;;; client - open-socket: whom it reaches, what it refuses, how its failures look.

(in-package :port/test)

(define-suite client "Connections.")

(defun call-with-black-hole (function &optional (host "127.0.0.1"))
  "Call FUNCTION with a port of HOST whose queue is full: connects to it hang, until a function that
is the second argument is called."
  (with-socket-server (server 0 :host host :backlog 0)
    (let ((fillers (loop repeat 3
                         for filler = (handler-case
                                          (open-socket host (port-of server) :timeout 0.2)
                                        (timeout () nil))
                         while filler
                         collect filler)))
      (unwind-protect (funcall function (port-of server)
                               (lambda () (take-all server)))
        (dolist (filler fillers)
          (close filler :abort t))))))

(define-test client.reaches-both-families ()
  (with-socket-server (server 0)
    (dolist (host (available '("127.0.0.1" "::1" "[::1]" 2130706433 "localhost")))
      (with-open-socket (client host (port-of server))
        (let ((peer (socket-accept server :wait 5)))
          (send-octets client "hello" 10)
          (is (string= "hello" (read-line peer)))
          (close peer))))))

(define-test client.peer-of-a-wildcard (:behaviour 62)
  "What listens everywhere is reached at an address of this machine, and that is the peer."
  (with-socket-server (server 0)
    (loop for (wildcard address) in (available '(("0.0.0.0" "127.0.0.1") ("::" "::1")))
          do (with-open-socket (client wildcard (port-of server))
               (is (equal (list address (port-of server))
                          (subseq (multiple-value-list (socket-host/port client)) 0 2)))
               (close (socket-accept server :wait 5))))))

(define-test client.old-argument-and-keywords ()
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((number (port-of server)))
      (loop for (type . arguments) in '((character) (character nil) ((unsigned-byte 8) t)
                                        ((unsigned-byte 8) t :timeout 5) (character :timeout 5)
                                        ((unsigned-byte 8) :element-type (unsigned-byte 8))
                                        ((unsigned-byte 8) :bin) ; true, as any keyword of old
                                        (character t :element-type character))
            do (let ((client (apply #'open-socket "127.0.0.1" number arguments)))
                 (is (equal type (stream-element-type client)))
                 (close client)))
      (signals program-error (open-socket "127.0.0.1" number :no-such-keyword 1))
      (signals usage-error (open-socket "127.0.0.1" number :family :ipx))
      (signals usage-error (open-socket "127.0.0.1" number :element-type 'float))
      (signals not-supported (open-socket "127.0.0.1" number :external-format :ebcdic)))))

(define-test client.refused-at-once ()
  (let* ((number (unused-port))
         (start (get-internal-real-time))
         (condition (is-failure (connection-refused :connection-refused
                                                    "127.0.0.1" "connection refused")
                      (open-socket "127.0.0.1" number :timeout 20))))
    (is (< (- (get-internal-real-time) start) internal-time-units-per-second))
    (is (eq :connect (network-operation condition)))
    (is (equal "127.0.0.1" (network-host condition)))
    (is (eql number (network-port condition)))
    (is (integerp (network-errno condition)))
    (is (= 1 (length (network-attempts condition))))
    (is (string= "127.0.0.1" (princ-to-string (car (first (network-attempts condition))))))
    (is (typep (cdr (first (network-attempts condition))) 'connection-refused))
    (is (eql number (network-port (cdr (first (network-attempts condition))))))))

(define-test client.ends-that-are-none-are-refused-and-leave-nothing (:behaviour 56)
  (let ((before (lport-socket-count)))
    (is-failure (address-syntax :address-syntax "connect to port \"\" failed")
      (open-socket "127.0.0.1" ""))
    (dolist (port '(0 65536 -1 " 80" "080x" "80x" "" 1.5 nil))
      (let ((condition (failure-of (open-socket "127.0.0.1" port))))
        (is (typep condition '(or address-syntax service-not-found))
            "port ~S: ~S" port condition)))
    (dolist (host '("010.0.0.1" "127.1" "[::1" "::1]" "1.2.3.4.5" "" "1.2.3.4%lo" :localhost nil))
      (is (typep (failure-of (open-socket host 80)) 'address-syntax) "host ~S" host))
    (is (typep (failure-of (open-socket :localhost 80)) 'type-error))
    (is-failure (address-syntax :address-syntax "from 1 to 65535" "65536")
      (open-socket "127.0.0.1" 65536))
    (is (= before (lport-socket-count)))))

(define-test client.every-address-of-a-name-is-tried (:behaviour 51)
  (with-names ()
    (is-failure (host-not-found :host-not-found "nobody.invalid")
      (open-socket "nobody.invalid" 80))
    (let ((last (car (last (available (resolve "many.test"))))))
      (with-socket-server (server 0 :host last)
        (with-open-socket (client "many.test" (port-of server) :timeout 10)
          (is (string= (princ-to-string last) (socket-host/port client))))))
    (let* ((number (unused-port))
           (condition (failure-of (open-socket "many.test" number :timeout 10))))
      (is (typep condition 'connect-error))
      (is-report condition "connect to many.test port")
      (is (null (set-exclusive-or (mapcar #'princ-to-string (resolve "many.test"))
                                  (mapcar (lambda (attempt) (princ-to-string (car attempt)))
                                          (network-attempts condition))
                                  :test #'string=)))
      (loop for (address . failure) in (network-attempts condition)
            do (is (typep failure (if (available (list address))
                                      'connection-refused
                                      'address-not-available))
                   "~A: ~A" address failure)
               (is-report condition (princ-to-string address))))))

(define-test client.timeout-is-total (:behaviour 50)
  (call-with-black-hole
   (lambda (port open)
     (declare (ignore open))
     (multiple-value-bind (seconds condition)
         (seconds-of (lambda () (failure-of (open-socket "127.0.0.1" port :timeout 0.2))))
       (is (typep condition 'timeout))
       (is (not (typep condition 'connect-error)))
       (is (<= 0.2 seconds 2))
       (is (= 0.2 (timeout-time condition)))
       (is (= 1 (length (network-attempts condition))))
       ;; nobody waits any longer for what still went on
       (is (typep (cdr (first (network-attempts condition))) 'timeout))))))

(define-test client.a-timeout-tells-its-limit ()
  "The seconds that were given, not those that passed; of WITH-DEADLINE where that was the earlier;
those of WAIT-LONGER once they were asked for."
  (call-with-black-hole
   (lambda (port open)
     (declare (ignore open))
     (flet ((told (&rest options)
              (timeout-time (failure-of (apply #'open-socket "127.0.0.1" port options)))))
       (is (eql 0 (told :timeout 0)))
       (is (eql 1/50 (told :timeout 1/50)))
       (is (eql 1/50 (with-deadline (9) (told :timeout 1/50))))
       (is (eql 1/50 (with-deadline (1/50) (told :timeout 9))))
       (is (eql 0 (with-deadline (0) (told))))
       (let ((given '(1/50 1/40)) (told '()))
         (flet ((wait-longer-twice (condition)
                  (push (timeout-time condition) told)
                  (when given
                    (wait-longer (pop given) condition))))
           (is (typep (failure-of (handler-bind ((timeout #'wait-longer-twice))
                                    (open-socket "127.0.0.1" port :timeout 0)))
                      'timeout)))
         (is (equal '(1/40 1/50 0) told))))))
  (is (eql 0 (timeout-time (failure-of (open-unix-socket "@nobody" :timeout 0))))))

(define-test client.the-first-of-several-at-last (:behaviour 51)
  "An address that answers when all others have refused is the one that was reached."
  (with-names ()
    (let ((first (first (resolve "many.test"))))
      (call-with-black-hole
       (lambda (port open)
         (let ((dialer (in-thread (lambda () (open-socket "many.test" port :timeout 15)))))
           (sleep 0.7)                  ; an attempt each quarter of a second, RFC 8305
           (funcall open)
           (let ((client (join dialer)))
             (is (string= (princ-to-string first) (socket-host/port client)))
             (close client :abort t))))
       first))))

(define-test client.leaves-no-dial ()
  (flet ((place ()
           (let ((dial (port::open-dial (list (parse-address "127.0.0.1")) 9
                                        port.ffi:+lport-any+ nil 0)))
             (prog1 (place-in dial)
               (port.ffi:lport-dial-close dial)))))
    (let ((number (unused-port)) (before (place)))
      (dotimes (i 500)
        (failure-of (open-socket "127.0.0.1" number)))
      (is (> 250 (- (place) before))))))

(define-test client.timeout-is-for-the-own-name-too (:behaviour 50)
  (is-failure (timeout :timed-out "resolve nobody.invalid failed: timed out")
    (open-socket "127.0.0.1" 1 :local-host "nobody.invalid" :timeout 0))
  (is-failure (host-not-found :host-not-found)
    (open-socket "127.0.0.1" 1 :local-host "nobody.invalid" :timeout 10)))

(define-test client.wait-longer-while-connecting ()
  (call-with-black-hole
   (lambda (port open)
     (declare (ignore open))
     (let ((asked 0))
       (is (typep (failure-of
                    (handler-bind ((timeout (lambda (condition)
                                              (declare (ignore condition))
                                              (when (< (incf asked) 3)
                                                (invoke-restart 'wait-longer 0.05)))))
                      (open-socket "127.0.0.1" port :timeout 0.05)))
                  'timeout))
       (is (= 3 asked))))))

(define-test client.binds-to-the-own-end-that-is-given (:behaviour 53)
  (with-socket-server (server 0)
    (let ((own (unused-port)))
      (with-open-socket (client "127.0.0.1" (port-of server)
                                :local-host "127.0.0.3" :local-port own)
        (multiple-value-bind (host port local-host local-port) (socket-host/port client)
          (is (string= "127.0.0.1" host))
          (is (= (port-of server) port))
          (is (string= "127.0.0.3" local-host))
          (is (= own local-port)))))
    (with-open-socket (client "127.0.0.1" (port-of server) :local-port 0)
      (is (plusp (nth-value 3 (socket-host/port client)))))
    (with-open-socket (client "localhost" (port-of server) :family :inet)
      (is (string= "127.0.0.1" (socket-host/port client))))
    (is (typep (failure-of (open-socket "127.0.0.1" (port-of server) :local-host "192.0.2.77"))
               'address-not-available))
    (is (typep (failure-of (open-socket "127.0.0.1" (port-of server) :local-host "::1"))
               'network))))

(define-test client.an-own-end-of-all-addresses-is-of-either-family ()
  "As UDP sockets and servers have it, and as a server shows itself."
  (flet ((connect-from-everywhere (host)
           (with-socket-server (server 0 :host host)
             (dolist (number (list nil (unused-port)))
               (with-open-socket (client host (port-of server)
                                         :local-host "::" :local-port number)
                 (is (equal host (nth-value 2 (socket-host/port client))))
                 (when number
                   (is (= number (own-port client)))))))))
    (connect-from-everywhere "127.0.0.1")
    (with-inet6 ()
      (connect-from-everywhere "::1")))
  (is (typep (failure-of (open-socket "127.0.0.1" 80 :local-host "::" :family :inet6))
             'host-not-found)))

(define-test client.restarts ()
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((tries 0))
      (handler-bind ((network (lambda (condition)
                                (declare (ignore condition))
                                (if (= 1 (incf tries))
                                    (invoke-restart 'retry)
                                    (invoke-restart 'use-value "127.0.0.1")))))
        (close (open-socket "127.0.0.9" (port-of server) :timeout 5)))
      (is (= 2 tries)))))

(define-test client.another-port ()
  "USE-VALUE asks for what was wrong: here the port."
  (with-socket-server (server 0 :host "127.0.0.1")
    (handler-bind ((service-not-found (lambda (condition)
                                        (declare (ignore condition))
                                        (invoke-restart 'use-value (port-of server)))))
      (close (open-socket "127.0.0.1" "no-such-service")))))

(defun offered (function)
  "The reports of the restarts that the failure of FUNCTION offers, a list."
  (block nil
    (handler-bind ((network (lambda (condition)
                              (return (loop for restart in (compute-restarts condition)
                                            when (member (restart-name restart)
                                                         '(retry use-value wait-longer))
                                              collect (princ-to-string restart))))))
      (funcall function)
      nil)))

(define-test client.restarts-of-each-failure ()
  "There is one way to try again, and one for another value: of what is wrong."
  (with-socket-server (taken 0 :host "127.0.0.1")
    (with-datagram-socket (busy :host "127.0.0.1")
      (loop with longer = "Wait longer; asks for how many seconds."
            for (doing what form more) in
            `(("connect" "host" (open-socket "127.0.0.1" ,(unused-port)))
              ("connect" "host" (open-socket "nobody.invalid" 80))
              ("connect" "host" (open-socket "1.2.3" 80))
              ("connect" "host" (open-socket "127.0.0.1" 80 :timeout 0) ,longer)
              ("connect" "local host" (open-socket "127.0.0.1" 80 :local-host "192.0.2.77"))
              ("connect" "local host" (open-socket "127.0.0.1" 80 :local-host "192.0.2.77"
                                                                  :local-port ,(unused-port)))
              ("connect" "local host" (open-socket "::1" 80 :local-host "127.0.0.1"))
              ("resolve the host" "host" (open-socket "::1" 80 :local-host "127.0.0.1"
                                                               :family :inet6))
              ("resolve the host" "host" (open-socket-server 0 :host "127.0.0.1" :family :inet6))
              ("resolve the host" "host" (open-datagram-socket :host "127.0.0.1" :family :inet6))
              ("connect" "local port" (open-socket "127.0.0.1" 80 :local-host "127.0.0.1"
                                                                  :local-port ,(port-of taken)))
              ("connect" "host" (open-socket '("127.0.0.1" "nobody.invalid") 80))
              ("connect" "port" (open-socket "127.0.0.1" "no-such-service"))
              ("connect" "local port" (open-socket "127.0.0.1" 80 :local-port "no-such-service"))
              ("resolve the host" "host" (open-socket "127.0.0.1" 80 :local-host "1.2.3"))
              ("resolve the host" "host" (open-socket "127.0.0.1" 80
                                                      :local-host "nobody.invalid"))
              ("resolve the host" "host" (open-socket "127.0.0.1" 80
                                                      :local-host "nobody.invalid" :timeout 0)
                                  ,longer)
              ("listen" "port" (open-socket-server ,(port-of taken) :host "127.0.0.1"))
              ("listen" "port" (open-socket-server "no-such-service"))
              ("listen" "port" (serve identity "no-such-service"))
              ("listen" "host" (open-socket-server 0 :host "192.0.2.77"))
              ("listen" "host" (serve identity 0 :host "192.0.2.77"))
              ("resolve the host" "host" (open-socket-server 0 :host "nobody.invalid"))
              ("resolve the host" "host" (open-socket-server 0 :host "1.2.3"))
              ("resolve the host" "host" (resolve "nobody.invalid"))
              ("resolve the host" "host" (resolve "nobody.invalid" :timeout 0) ,longer)
              ("look the address up" "address" (reverse-resolve "nobody.invalid"))
              ("listen" "path" (open-unix-server "/nowhere/at/all"))
              ("listen" "path" (open-unix-server "/nowhere/at/all" :kind :datagram))
              ("connect" "path" (open-unix-socket "/nowhere/at/all"))
              ("connect" "path" (open-unix-socket "/nowhere/at/all" :kind :datagram))
              ("bind" "port" (open-datagram-socket :host "127.0.0.1" :port ,(own-port busy)))
              ("bind" "host" (open-datagram-socket :host "192.0.2.77"))
              ("connect" "local host" (open-datagram-socket :host "192.0.2.77"
                                                            :remote-host "127.0.0.1"
                                                            :remote-port 9))
              ("connect" "local host" (open-datagram-socket :host "127.0.0.1"
                                                            :remote-host "::1"
                                                            :remote-port 9))
              ("connect" "local port" (open-datagram-socket :host "127.0.0.1"
                                                            :port ,(own-port busy)
                                                            :remote-host "127.0.0.1"
                                                            :remote-port 9))
              ("connect" "local port" (open-datagram-socket :port "no-such-service"
                                                            :remote-host "127.0.0.1"
                                                            :remote-port 9))
              ("resolve the host" "host" (open-datagram-socket :host "nobody.invalid"))
              ("connect" "host" (open-datagram-socket :remote-host "nobody.invalid"
                                                      :remote-port 9))
              ("connect" "port" (open-datagram-socket :remote-host "127.0.0.1"
                                                      :remote-port "no-such-service"))
              ("send" "host" (send-message ,busy "x" :host "::1" :port 9))
              ("send" "host" (send-message ,busy "x" :host "1.2.3" :port 9))
              ("resolve the host" "host" (send-message ,busy "x" :host "nobody.invalid" :port 9))
              ("send" "port" (send-message ,busy "x" :host "127.0.0.1" :port "no-such-service"))
              ("send" "port" (send-message ,busy "x" :host "127.0.0.1" :port 70000)))
            do (is (equal (append (and more (list more))
                                  (list (format nil "Try again to ~A." doing)
                                        (format nil "Use another ~A." what)))
                          (offered (lambda () (apply (first form) (rest form)))))
                   "~S: ~S" form (offered (lambda () (apply (first form) (rest form)))))))))

(define-test client.another-value-of-what-is-wrong ()
  (with-socket-server (server 0 :host "127.0.0.1")
    (dolist (wrong '("1.2.3" "nobody.invalid" "192.0.2.77"))
      (handler-bind ((network (lambda (condition) (use-value "127.0.0.5" condition))))
        (with-open-socket (client "127.0.0.1" (port-of server) :local-host wrong)
          (is (equal "127.0.0.5" (third (multiple-value-list (socket-host/port client))))))))))

(define-test client.another-value-without-a-condition ()
  "It is for what fails just now."
  (with-socket-server (server 0 :host "127.0.0.9")
    (handler-bind ((address-not-available (lambda (condition)
                                            (declare (ignore condition))
                                            (use-value "127.0.0.7")))
                   (connection-refused (lambda (condition)
                                         (declare (ignore condition))
                                         (ignore-errors (open-socket "127.0.0.2" 1))
                                         (use-value "127.0.0.9"))))
      (with-open-socket (client "127.0.0.1" (port-of server) :local-host "192.0.2.77")
        (is (equal '("127.0.0.9" "127.0.0.7")
                   (destructuring-bind (host port own own-port)
                       (multiple-value-list (socket-host/port client))
                     (declare (ignore port own-port))
                     (list host own))))))))

(define-test client.a-privileged-port-of-its-own ()
  (with-socket-server (server 0 :host "127.0.0.1")
    (with-datagram-socket (peer :host "127.0.0.1")
      (loop for (line . call)
              in (list (list* "bind to port 81 failed: permission denied (ports below 1024"
                              (lambda ()
                                (open-socket "127.0.0.1" (port-of server) :local-port 81)))
                       (list* "bind to port 81 failed: permission denied (ports below 1024"
                              (lambda ()
                                (open-datagram-socket :port 81 :remote-host "127.0.0.1"
                                                      :remote-port (own-port peer)))))
            for result = (handler-case (funcall call)
                           (network (condition) condition))
            do (cond ((typep result 'network)
                      (is (typep result 'permission-denied))
                      (is-report result line))
                     (t (close result)
                        (skip "this user may open privileged ports")))))))

(define-test client.another-value-of-a-privileged-port ()
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((denied nil))
      (handler-bind ((permission-denied (lambda (condition)
                                          (unless (shiftf denied t)
                                            (use-value 0 condition)))))
        (with-open-socket (client "127.0.0.1" (port-of server) :local-port 81)
          (if denied
              (is (<= 1024 (own-port client)))
              (skip "this user may open privileged ports")))))))

(define-test client.another-value-of-each ()
  "Each restart is for the condition that it is invoked with: here three, one after the other."
  (with-socket-server (server 0 :host "127.0.0.9")
    (handler-bind ((address-not-available (lambda (condition) (use-value "127.0.0.7" condition)))
                   (address-in-use (lambda (condition) (use-value 0 condition)))
                   (connection-refused (lambda (condition) (use-value "127.0.0.9" condition))))
      (with-socket-server (taken 0 :host "127.0.0.7")
        (with-open-socket (client "127.0.0.1" (port-of server)
                                  :local-host "192.0.2.77" :local-port (port-of taken))
          (is (equal '("127.0.0.9" "127.0.0.7")
                     (loop for host in (multiple-value-list (socket-host/port client)) by #'cddr
                           collect host)))))
      (with-socket-server (other 0 :host "192.0.2.77")
        (is (equal "127.0.0.7" (socket-server-host/port other)))))))

(define-test client.the-part-of-its-own-end-that-is-wrong ()
  "Of the host and the port that were given it is the one that the failure can be about: of a bind,
or of the connect itself, where ends that do not go together have no number of the system."
  (flet ((part (host port class operation errno)
           (second (offered (lambda ()
                              (port::with-own-end-retry (host port address-not-available)
                                (fail-as class operation :other
                                         :host host :port port :errno errno)))))))
    (loop for (class operation errno host port part)
            in '((address-not-available :bind 99 "h" 9 "Use another local host.")
                 (address-in-use :bind 98 "h" 9 "Use another local port.")
                 (permission-denied :bind 13 "h" 9 "Use another local port.")
                 (address-not-available :bind 99 nil 9 "Use another local port.")
                 (address-not-available :bind 99 "h" nil "Use another local host.")
                 (address-not-available :connect nil "h" 9 "Use another local host.")
                 (address-not-available :connect 99 "h" 9 "Use another local port.")
                 (address-not-available :connect 99 "h" nil nil)
                 (address-in-use :bind 98 "h" nil nil)
                 (connection-refused :connect 111 "h" 9 nil)
                 (address-in-use :bind 98 nil nil nil))
          do (is (equal part (part host port class operation errno))
                 "~S ~S ~S ~S" class operation host port))))

(define-test client.an-own-port-that-is-connected-there-already ()
  (with-socket-server (server 0 :host "127.0.0.1")
    (with-open-socket (client "127.0.0.1" (port-of server))
      (flet ((connect ()
               (open-socket "127.0.0.1" (port-of server)
                            :local-host "127.0.0.1" :local-port (own-port client))))
        (is (equal "Use another local port." (second (offered #'connect))))))))

(define-test client.restarts-within-a-handler ()
  "A handler that tries something else meanwhile still has the restarts of what it handles."
  (with-socket-server (server 0 :host "127.0.0.9")
    (flet ((connect (host) (open-socket host (port-of server))))
      (let ((inner '()))
        (handler-bind ((connection-refused
                         (lambda (outer)
                           (handler-bind ((connection-refused
                                            (lambda (condition)
                                              (push (network-host condition) inner)
                                              (use-value "127.0.0.9" outer))))
                             (connect "127.0.0.2")))))
          (with-open-socket (client "127.0.0.1" (port-of server))
            (is (equal "127.0.0.9" (socket-host/port client)))))
        (is (equal '("127.0.0.2") inner))))))

(define-test client.wrong-arguments ()
  "Of the wrong type: a USAGE-ERROR of one line that is a TYPE-ERROR too."
  (with-pair (a b)
    (dolist (call (list (lambda () (open-socket "127.0.0.1" 1 :timeout -1))
                        (lambda () (open-socket "127.0.0.1" 1 :timeout))
                        (lambda () (open-socket-server 0 :backlog -1))
                        (lambda () (setf (socket-timeout a :input) :soon))
                        (lambda () (socket-timeout a :io))
                        (lambda () (socket-deadline 3 :input))
                        (lambda () (socket-shutdown a :everything))
                        (lambda () (socket-accept a))
                        (lambda () (socket-host/port "a"))
                        (lambda () (wait-for-stream 7))
                        (lambda () (with-deadline (-1) nil))
                        (lambda () (read-sequence (make-array 3 :element-type 'double-float) a))))
      (let ((condition (failure-of (funcall call))))
        (is (typep condition '(and usage-error type-error)) "got ~S" condition)
        (is-report condition "expected" "got")))))

(define-test client.with-open-socket ()
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((kept nil))
      (is (equal '(1 2) (multiple-value-list
                         (with-open-socket (client "127.0.0.1" (port-of server))
                           (setf kept client)
                           (write-string "flushed" client)
                           (values 1 2)))))
      (is (not (open-stream-p kept)))
      (let ((peer (socket-accept server)))
        (is (equalp (octets-like "flushed") (everything peer)))
        (close peer))
      (catch 'out
        (with-open-socket (client "127.0.0.1" (port-of server))
          (write-string "dropped" client)
          (throw 'out nil)))
      (let ((peer (socket-accept server)))
        (is (typep (failure-of (everything peer)) 'connection-reset))
        (close peer)))))

(define-test client.prints-both-ends-closed-too ()
  (with-pair (a b :inet)
    (multiple-value-bind (host port local-host local-port) (socket-host/port a)
      (is (search (format nil "local: ~A:~D peer: ~A:~D" local-host local-port host port)
                  (socket-string a)))
      (is (string= (socket-string a) (princ-to-string a)))
      (close a)
      (is (search "(closed)" (socket-string a)))
      (is (search host (socket-string a))))
    ;; the own end, too, which nobody has asked for before
    (close b)
    (is (= (nth-value 1 (socket-host/port a)) (nth-value 3 (socket-host/port b)))))
  (with-pair (a b)
    (is (search "unnamed" (socket-string a)))))

(define-test client.functions-under-the-forms ()
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((other (call-with-socket-server #'identity (open-socket-server 0 :host "127.0.0.1"))))
      (is (typep (failure-of (socket-accept other)) 'socket-closed)))
    (let ((client (call-with-open-socket #'identity (open-socket "127.0.0.1" (port-of server)))))
      (is (not (open-stream-p client))))
    (close (socket-accept server))
    (is (typep (failure-of (call-with-deadline 0.05 (lambda () (socket-accept server))))
               'timeout))))

(define-test client.unknown-keywords ()
  (is-failure (usage-error :invalid "among :BIN" ":TIMEOUT, got :TIME-OUT")
    (apply #'open-socket "127.0.0.1" 80 '(:time-out 5)))
  (signals program-error (apply #'open-socket "127.0.0.1" 80 t '(:time-out 5)))
  ;; as CLHS 3.4.1.4.1 says
  (signals connection-refused
    (open-socket "127.0.0.1" (unused-port) :time-out 5 :allow-other-keys t)))

(define-test client.literal-of-other-family ()
  "A literal of the family that was not asked for is told as that, not as a host that nobody knows."
  (is-failure (host-not-found :host-not-found "connect to 127.0.0.1"
                              "expected an address of family :INET6, got 127.0.0.1")
    (open-socket "127.0.0.1" 1 :family :inet6))
  (with-socket-server (server 0 :host "127.0.0.1")
    (is (eq t (close (handler-bind ((host-not-found
                                      (lambda (condition) (use-value "localhost" condition))))
                       (open-socket "::1" (port-of server) :family :inet)))))))

(defun warnings-of (form)
  "The texts of what is warned of when FORM, a call, is compiled."
  (let ((texts '()))
    (handler-bind ((style-warning (lambda (warning)
                                    (push (princ-to-string warning) texts)
                                    (muffle-warning warning))))
      (compile nil `(lambda (key) (declare (ignorable key)) ,form)))
    texts))

(define-test client.keywords-when-compiled ()
  "The compiler warns of a keyword that will be refused, wherever the keywords begin."
  (loop for (form . got) in '(((open-socket "host" 80 :time-out 5) . ":TIME-OUT")
                              ((open-socket "host" 80 t :time-out 5) . ":TIME-OUT")
                              ((with-open-socket (s "host" 80 :hots 1) (close s)) . ":HOTS")
                              ((open-socket-server :port 80) . ":PORT")
                              ((open-socket-server 80 :time-out 5) . ":TIME-OUT")
                              ((open-socket-server key :time-out 5) . ":TIME-OUT")
                              ((activated-servers :time-out 5) . ":TIME-OUT")
                              ((serve 'identity 0 :host nil :thread 5) . ":THREAD"))
        do (let ((texts (warnings-of form)))
             (is (= 1 (length texts)) "~S" form)
             (is (search "expected keywords among :" (first texts)))
             (is (search (format nil "got ~A" got) (first texts)))))
  (dolist (form '((open-socket "host" 80 :bin t) (open-socket "host" 80 t :timeout 5)
                  (open-socket "host" 80 key 5) (open-socket-server) (open-socket-server 80)
                  (open-socket-server :host "host") (open-socket-server key :host "host")
                  (open-socket "host" 80 :time-out 5 :allow-other-keys t)
                  (funcall #'open-socket "host" 80 :timeout 5) (stop-server key :drain nil)))
    (is (null (warnings-of form)) "~S" form)))

(define-test client.unknown-keywords-of-all ()
  "Every operator with keywords names those that it has, before it has opened anything."
  (with-socket-server (server 0 :host "127.0.0.1")
    (loop for (known . call) in `((":WAIT" socket-accept ,server)
                                  (":HOST" open-socket-server 0)
                                  (":TIMEOUT" open-unix-socket "@port-test-nobody")
                                  (":UNLINK" open-unix-server "@port-test-nobody")
                                  (":KIND" open-socket-pair)
                                  (":BROADCAST" open-datagram-socket)
                                  (":LISTENING" adopt-descriptor ,(socket-descriptor server))
                                  (":BIN" activated-servers)
                                  (":AWAIT-INPUT" serve identity 0)
                                  (":DRAIN" stop-server nil)
                                  (":FAMILY" resolve "127.0.0.1")
                                  (":TIMEOUT" reverse-resolve "127.0.0.1")
                                  (":OCTETS" send-descriptors nil (0))
                                  (":SOURCE" join-multicast nil "239.0.0.1")
                                  (":SOURCE" leave-multicast nil "239.0.0.1")
                                  (":SIZE" make-datagram-batch 1))
          do (let ((failure (is-failure (usage-error :invalid "expected keywords among" known
                                                     "got :TIME-OUT")
                              (apply (first call) (append (rest call) '(:time-out 5))))))
               (is (typep failure 'program-error) "~S" call))))
  (multiple-value-bind (a b) (open-socket-pair :time-out 5 :allow-other-keys t)
    (close a)
    (close b)))

;;; Own ends

(defun families-of (text)
  "The family of the literal TEXT; :ANY for none."
  (if text (address-family (parse-address text)) :any))

(defun agree-p (&rest families)
  "True if those of FAMILIES that are not :ANY are the same."
  (null (rest (remove-duplicates (remove :any families)))))

(defun unused-port-but (ports)
  "An unused port that is none of PORTS: from those something may still be on its way out."
  (loop for port = (unused-port)
        unless (member port ports)
          return port))

(define-test client.local-ends (:behaviour 53)
  "Every combination of target, family, own host and own port: it connects from there where all of
them agree, and fails for a reason where they do not."
  (let ((own-ports '()))
    (with-socket-server (server 0)
      (dolist (target (available '("127.0.0.1" "::1")))
        (dolist (family '(nil :inet :inet6))
          (dolist (local (available '(nil "127.0.0.1" "127.0.0.2" "::1" "0.0.0.0" "::")))
            (push (unused-port-but own-ports) own-ports)
            (dolist (own-port (list nil (first own-ports)))
              (check-own-end server target family local own-port))))))))

(defun check-own-end (server target family local own-port)
  (flet ((connect ()
           (with-open-socket (client target (port-of server)
                                     :family family :local-host local
                                     :local-port own-port :timeout 10)
             (nthcdr 2 (multiple-value-list (socket-host/port client))))))
    (if (agree-p (families-of target)
                 (or family :any)
                 (if (or family (not (equal "::" local))) ; that is both families
                     (families-of local)
                     :any))
        (destructuring-bind (host port) (connect)
          (is (string= (if (member local '(nil "0.0.0.0" "::") :test #'equal) target local) host))
          (is (if own-port (= own-port port) (plusp port))))
        (is (typep (failure-of (connect))
                   '(or connect-error address-error resolve-error not-supported usage-error))
            "~S ~S ~S ~S" target family local own-port))))

;;; What fails at the own end is told of that, with both ends.

(defun is-own-failure (class line host port local remote condition)
  "Check that CONDITION, of CLASS, with the report LINE, is of the own end HOST and PORT, that is
LOCAL, of a connect to REMOTE."
  (is (typep condition class) "~S" condition)
  (is (equal (list :bind host port local remote)
             (list (network-operation condition) (network-host condition) (network-port condition)
                   (network-local condition) (network-remote condition))))
  (is-report condition line))

(define-test client.local-ends-that-are-not-ours (:behaviour (53 62))
  (with-socket-server (server 0 :host "127.0.0.1")
    (let* ((number (port-of server)) (remote (format nil "127.0.0.1:~D" number)))
      (loop for (class line host port local)
              in `((address-not-available "bind to 192.0.2.9 failed: address not available"
                                          "192.0.2.9" nil "192.0.2.9:0")
                   (address-in-use ,(format nil "bind to 127.0.0.1 port ~D failed: address in use"
                                            number)
                                   "127.0.0.1" ,number ,remote)
                   (address-in-use ,(format nil "bind to port ~D failed: address in use" number)
                                   nil ,number ,(format nil "0.0.0.0:~D" number)))
            do (let ((condition (failure-of (open-socket "127.0.0.1" number
                                                         :local-host host :local-port port))))
                 (is-own-failure class line host port local remote condition)
                 (is (= 1 (length (network-attempts condition))))
                 (destructuring-bind (address . failure) (first (network-attempts condition))
                   (is (equal "127.0.0.1" (princ-to-string address)))
                   (is-own-failure class line host port local remote failure)))))))

(define-test client.local-end-of-some-attempts (:behaviour (51 53))
  "The own port is taken at an address of one family, so that it is free for the other one; or at
all of them."
  (when (available '("::1"))
    (with-socket-server (server 0 :host "::1" :reuse-address nil)
      (let ((condition (failure-of (open-socket '("::1" "127.0.0.2") (unused-port)
                                                :local-port (port-of server)))))
        (is (typep condition 'connection-refused))
        (is (equal '(:bind :connect)
                   (loop for (nil . failure) in (network-attempts condition)
                         collect (network-operation failure))))
        (is-report condition (format nil "failed: ::1 from [::]:~D address in use; 127.0.0.2 ~
                                          connection refused"
                                     (port-of server))))))
  (with-socket-server (server 0)
    (let ((condition (failure-of (open-socket '("127.0.0.1" "127.0.0.2") (unused-port)
                                              :local-port (port-of server)))))
      (is (= 2 (length (network-attempts condition))))
      (is-report condition (format nil "bind to port ~D failed: address in use" (port-of server)))
      (is (not (find #\; (princ-to-string condition)))))))

(define-test client.local-end-of-another-family (:behaviour 53)
  (is-failure (address-not-available :address-not-available
                                     "connect to ::1 port 80 failed: no address of family :INET, "
                                     "that of the own end 127.0.0.1")
    (open-socket "::1" 80 :local-host "127.0.0.1"))
  (is-failure (host-not-found :host-not-found
                              "bind to 127.0.0.1 failed: expected an address of family :INET6, got "
                              "127.0.0.1 of family :INET")
    (open-socket "::1" 80 :local-host "127.0.0.1" :family :inet6))
  (with-names ()
    (is-failure (address-not-available :address-not-available
                                       "connect to one.test port 80 failed: no address of family "
                                       ":INET6, that of the own end six.test")
      (open-socket "one.test" 80 :local-host "six.test"))))

(define-test client.a-mapped-address-is-of-ipv4 (:behaviour 53)
  (with-socket-server (server 0 :host "127.0.0.1")
    (flet ((connect (family)
             (open-socket "::ffff:127.0.0.1" (port-of server) :family family)))
      (close (connect :inet))
      (is-failure (host-not-found :host-not-found "expected an address of family :INET6, got "
                                                  "::ffff:127.0.0.1 of family :INET")
        (connect :inet6)))))

(define-test client.local-host-by-name-is-for-each-family (:behaviour 53)
  (with-names ()
    (with-socket-server (server 0)
      (loop for (host . own) in (available '(("127.0.0.1" "127.0.0.2" "127.0.0.3") ("::1" "::1")))
            do (with-open-socket (client host (port-of server) :local-host "many.test" :timeout 10)
                 (is (member (nth-value 2 (socket-host/port client)) own :test #'string=)))))))

;;; Lists of addresses

(define-test client.a-list-of-addresses (:behaviour 51)
  "They are tried in the order given, whatever their families are."
  (with-socket-server (server 0 :host "127.0.0.1")
    (dolist (hosts (list '("127.0.0.1")
                         '("127.0.0.2" "127.0.0.1")
                         (list "::1" (parse-address "127.0.0.2") "127.0.0.1")
                         (resolve "127.0.0.1")))
      (with-open-socket (client hosts (port-of server))
        (is (equal "127.0.0.1" (socket-host/port client)))))
    (with-open-socket (client '("::1" "127.0.0.1") (port-of server)
                              :family :inet :local-host "127.0.0.7")
      (is (equal '("127.0.0.1" "127.0.0.7")
                 (loop for host in (multiple-value-list (socket-host/port client)) by #'cddr
                       collect host)))))
  (let* ((hosts '("127.0.0.2" "127.0.0.3" "::1" "127.0.0.4"))
         (number (unused-port))
         (condition (failure-of (open-socket hosts number))))
    (is (typep condition 'connection-refused))
    (is (eq hosts (network-host condition)))
    (is (equal "127.0.0.2 (and 3 more)" (net-host condition)))
    (is (equal hosts (loop for (address) in (network-attempts condition)
                           collect (princ-to-string address))))
    (is-report condition (format nil "connect to 127.0.0.2 (and 3 more) port ~D failed: ~
                                      127.0.0.2 connection refused; 127.0.0.3" number))
    (is-failure (connection-refused :connection-refused
                                    (format nil "connect to 127.0.0.2 port ~D failed: ~
                                                 connection refused" number))
      (open-socket '("127.0.0.2") number))))

(define-test client.a-list-that-cannot-be-dialled (:behaviour 56)
  (let ((before (lport-socket-count)))
    (is (typep (is-failure (address-syntax :address-syntax "or a list of addresses, got NIL")
                 (open-socket '() 80))
               'type-error))
    (is-failure (address-syntax :address-syntax
                                "connect to nobody.invalid failed: expected an address in a list")
      (open-socket '("127.0.0.1" "nobody.invalid") 80))
    (is-failure (address-syntax :address-syntax "connect to 1.2.3 failed: expected an IPv4 address")
      (open-socket '("127.0.0.1" "1.2.3") 80))
    (is-failure (address-syntax :address-syntax "connect to fe80::1 failed" "the zone")
      (open-socket '("127.0.0.1" "fe80::1") 80))
    (is-failure (host-not-found :host-not-found
                                "expected an address of family :INET6, got 127.0.0.1, 127.0.0.2 of "
                                "family :INET")
      (open-socket '("127.0.0.1" "127.0.0.2") 80 :family :inet6))
    (let ((circular (list "127.0.0.1")))
      (dolist (hosts (list '("127.0.0.1" . "::1") (setf (cdr circular) circular)
                           '("127.0.0.1" nil) '(("127.0.0.1")) '(127 0 0 1)))
        (is (typep (is-failure (usage-error :invalid "expected a" "got") (open-socket hosts 80))
                   'type-error))))
    (is (= before (lport-socket-count)))))

(define-test client.another-list ()
  (with-socket-server (server 0 :host "127.0.0.1")
    (handler-bind ((connection-refused (lambda (condition)
                                         (use-value '("127.0.0.3" "127.0.0.1") condition))))
      (close (open-socket '("127.0.0.2" "127.0.0.3") (port-of server))))))
