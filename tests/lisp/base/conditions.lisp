;;;; conditions - the tree, the facts, the one line of text, restarts.

(in-package :port/test)

(define-suite conditions "Conditions.")

(defparameter *tree*
  '((network error)
    (timeout network) (login network) (net-path network) (socket-closed network)
    (connection-lost network stream-error) (connection-reset connection-lost)
    (proxy-error network)
    (connection-aborted connection-lost) (connection-truncated connection-lost)
    (connect-error network) (connection-refused connect-error) (host-unreachable connect-error)
    (network-unreachable connect-error) (connect-denied connect-error)
    (connect-timed-out connect-error) (path-not-found connect-error net-path)
    (address-error network) (address-in-use address-error) (address-not-available address-error)
    (permission-denied address-error) (path-unusable address-error net-path)
    (address-syntax address-error)
    (resolve-error network) (host-not-found resolve-error) (resolver-try-again resolve-error)
    (resolver-failure resolve-error) (service-not-found resolve-error)
    (resource-exhausted network) (message-too-long network) (not-supported network)
    (usage-error network)
    (text-error network stream-error) (decoding-error text-error) (encoding-error text-error))
  "Rows (class superclass...): the contract.")

(defun status (name)
  "The status of the kind called NAME in kinds.tsv."
  (lport-status-make (1+ (position name (vectors "kinds") :key #'first :test #'string=))))

(define-test "conditions.classes-have-their-superclasses" ()
  (loop for (class . superclasses) in *tree*
        do (dolist (superclass superclasses)
             (is (subtypep class superclass) "~S is no ~S" class superclass))))

(define-test "conditions.kinds" (:behaviour 62)
  "Every kind of status has the class and the code that the table says."
  (let ((rows (vectors "kinds")))
    (is (null (lport-kind-name (1+ (length rows)))))
    (loop for (name class text) in rows
          for kind from 1
          for condition = (status-condition (lport-status-make kind) :connect)
          do (is (eq (find-symbol (string-upcase class) :port) (type-of condition))
                 "~A gives ~S" name (type-of condition))
             (is (eq (intern (string-upcase name) :keyword) (network-code condition)))
             (is (null (network-errno condition)))
             (is-report condition (format nil "connect failed: ~A" text)))))

(define-test "conditions.unknown-number" ()
  "A status with the system's number keeps it; an unknown one names it."
  (let ((condition (failure-of (fail (- (lport-status-make 1) 3999) :read))))
    (is (eq 'network (type-of condition)))
    (is (eq :errno-3999 (network-code condition)))
    (is (eql 3999 (network-errno condition)))
    (is-report condition "read failed: unknown error 3999")))

(define-test "conditions.facts" (:behaviour 62)
  "What is known of a failure can be read."
  (let ((condition (failure-of
                     (fail (status "connection-reset") :write
                           :host "h" :port 80 :local "127.0.0.1:1" :remote "127.0.0.1:80"
                           :octets 17 :seconds 2 :socket :not-a-stream))))
    (is (typep condition 'connection-reset))
    (is (equal '(:write :connection-reset nil "h" 80 "127.0.0.1:1" "127.0.0.1:80" () 17
                 :not-a-stream)
               (mapcar (lambda (reader) (funcall reader condition))
                       '(network-operation network-code network-errno network-host network-port
                         network-local network-remote network-attempts network-octets
                         network-socket))))
    (is (equal '(:write "h" 80)
               (list (net-proc condition) (net-host condition) (net-port condition))))
    (is (equal "connection reset by peer"
               (apply #'format nil (net-mesg condition) (net-args condition))))
    (is (null (stream-error-stream condition)))))

(define-test "conditions.defaults" ()
  "Unknown facts are NIL; in the shape of old they are \"\" and 0."
  (let ((condition (failure-of (fail (status "timed-out") :read))))
    (is (every (lambda (reader) (null (funcall reader condition)))
               '(network-errno network-host network-port network-local network-remote
                 network-attempts network-octets network-socket)))
    (is (equal '("" 0 0) (list (net-host condition) (net-port condition)
                               (timeout-time condition)))))
  (is (equal "127.0.0.1" (net-host (failure-of (fail (status "closed") :connect
                                                     :host (parse-address "127.0.0.1"))))))
  (is (= 0 (net-port (failure-of (fail (status "closed") :connect :port "http"))))))

(define-test "conditions.a-timeout-tells-its-seconds" ()
  (let ((condition (failure-of (fail (status "timed-out") :read :seconds 1/4
                                                                :remote "127.0.0.1:80"))))
    (is (typep condition 'timeout))
    (is (= 1/4 (timeout-time condition)))
    (is-report condition "read from 127.0.0.1:80 failed: timed out (0.25 s)")))

;;; What really fails

(defun check-real-failure (class operation function &rest parts)
  "Check that FUNCTION fails with CLASS in OPERATION, with a code and the ends that PARTS name."
  (let ((condition (failure-of (funcall function))))
    (is (typep condition class) "~S: ~S" class condition)
    (is (eq operation (network-operation condition)) "~S in ~S" condition
        (network-operation condition))
    (is (keywordp (network-code condition)))
    (apply #'is-report condition parts)))

(define-test "conditions.of-ends" (:behaviour 62)
  "Failures of making something name the end that was given."
  (let ((number (unused-port)) (path (temporary-path)))
    (check-real-failure 'connection-refused :connect (lambda () (open-socket "127.0.0.1" number))
                        "127.0.0.1" (princ-to-string number))
    (check-real-failure 'path-not-found :connect (lambda () (open-unix-socket path)) path)
    (with-socket-server (server 0 :host "127.0.0.1")
      (let ((port (port-of server)))
        (check-real-failure 'address-in-use :listen
                            (lambda () (open-socket-server port :host "127.0.0.1"))
                            "127.0.0.1" (princ-to-string port))
        (check-real-failure 'timeout :accept (lambda () (with-deadline (0) (socket-accept server)))
                            (format nil "127.0.0.1:~D" port))))
    (with-names ()
      (check-real-failure 'host-not-found :resolve (lambda () (resolve "nobody.invalid"))
                          "nobody.invalid"))))

(define-test "conditions.of-connections" (:behaviour 62)
  "Failures of talking name both ends, as addresses, and the socket."
  (flet ((check (class operation function)
           (with-pair (a b :inet)
             (let ((peer (format nil "127.0.0.1:~D" (nth-value 1 (socket-host/port a))))
                   (own (format nil "127.0.0.1:~D" (nth-value 3 (socket-host/port a)))))
               (check-real-failure class operation
                                   (lambda ()
                                     (handler-bind ((network
                                                      (lambda (condition)
                                                        (is (eq a (network-socket condition)))
                                                        (is (equal peer (network-remote condition)))
                                                        (is (equal own
                                                                   (network-local condition))))))
                                       (funcall function a b)))
                                   peer)))))
    (check 'timeout :read (lambda (a b) (declare (ignore b)) (with-deadline (0) (read-char a))))
    (check 'timeout :write (lambda (a b)
                             (declare (ignore b))
                             (write-char #\x a)
                             (with-deadline (0) (finish-output a))))
    (check 'connection-reset :read (lambda (a b) (close b :abort t) (read-char a)))
    (check 'connection-reset :write (lambda (a b)
                                      (close b :abort t)
                                      (loop (send-octets a "x"))))
    (check 'decoding-error :read (lambda (a b) (send-octets b 255 10) (read-line a)))
    (check 'socket-closed :write (lambda (a b)
                                   (declare (ignore b))
                                   (socket-shutdown a :output)
                                   (write-char #\x a)))))

;;; On streams

(define-test "conditions.stream-error" ()
  "On a socket that is a stream every condition is a STREAM-ERROR and prints under its public name."
  (let ((stream (make-broadcast-stream)))
    (loop for (class) in *tree*
          for condition = (failure-of (fail-as class :read :code :socket stream))
          do (is (typep condition class))
             (is (typep condition 'stream-error))
             (is (eq stream (stream-error-stream condition)) "~S has not its stream" class)
             (is (eq stream (network-socket condition)))
             (is (search (format nil "~A read failed" class) (prin1-to-string condition))
                 "~S" condition))))

(define-test "conditions.no-stream" ()
  "Without a stream only what is one by its class is a STREAM-ERROR, and it has none."
  (loop for (class) in *tree*
        for condition = (failure-of (fail-as class :read :code))
        do (is (eq class (type-of condition)))
           (when (typep condition 'stream-error)
             (is (null (stream-error-stream condition))))))

;;; Reports

(defun report-of (class operation code &rest facts)
  (princ-to-string (failure-of (apply #'fail-as class operation code facts))))

(defun attempts (&rest rows)
  "Attempts of ROWS, an address and the name of a kind each."
  (loop for (address kind) in rows
        collect (cons (parse-address address) (status-condition (status kind) :connect))))

(define-test "conditions.report-ends" ()
  (loop for (expected . arguments)
          in '(("connect to example.org port 443 failed: connection refused"
                connection-refused :connect :connection-refused :host "example.org" :port 443)
               ("connect to /run/x.sock failed: path not found"
                path-not-found :connect :path-not-found :host "/run/x.sock")
               ("read from [::1]:80 failed: connection reset (17 octets moved)"
                connection-reset :read :connection-reset :remote "[::1]:80" :octets 17)
               ("write to 127.0.0.1:80 failed: connection reset (1 octet moved)"
                connection-reset :write :connection-reset :remote "127.0.0.1:80" :octets 1)
               ("listen on port http failed: address in use"
                address-in-use :listen :address-in-use :port "http")
               ("listen on ::1 port 80 failed: address in use"
                address-in-use :listen :address-in-use :host "::1" :port 80)
               ("accept on 127.0.0.1:80 failed: descriptors exhausted"
                resource-exhausted :accept :descriptors-exhausted :local "127.0.0.1:80")
               ("resolve nosuch.invalid failed: host not found"
                host-not-found :resolve :host-not-found :host "nosuch.invalid" :port 80)
               ("connect to \"\" port 80 failed: address syntax"
                address-syntax :connect :address-syntax :host "" :port 80)
               ("read failed: closed" socket-closed :read :closed)
               ("join multicast on 127.0.0.1:80 failed: not supported"
                not-supported :join-multicast :not-supported :local "127.0.0.1:80")
               ("read from h failed: 1 of 2"
                network :read :other :host "h" :message "~D of ~D" :arguments (1 2)))
        do (is (equal expected (apply #'report-of arguments)))))

(define-test "conditions.report-privilege" ()
  (is (equal "listen on port 80 failed: permission denied (ports below 1024 need a privilege)"
             (report-of 'permission-denied :listen :permission-denied :port 80)))
  (is (equal "bind to ::1 port 69 failed: permission denied (ports below 1024 need a privilege)"
             (report-of 'permission-denied :bind :permission-denied :host "::1" :port 69)))
  (dolist (port '(1 1023 "http"))
    (is (search "privilege" (report-of 'permission-denied :listen :permission-denied
                                       :port port))))
  (dolist (port '(0 1024 nil))
    (is (not (search "privilege" (report-of 'permission-denied :listen :permission-denied
                                            :port port)))))
  (is (not (search "privilege" (report-of 'permission-denied :write :permission-denied
                                          :port 80)))))

(define-test "conditions.report-of-a-name-beyond-ascii" ()
  (let ((hint "expected in its IDNA form, xn--"))
    (dolist (operation '(:resolve :connect :listen))
      (is (search hint (report-of 'host-not-found operation :host-not-found :host "bücher.test")))
      (is (not (search hint (report-of 'host-not-found operation :host-not-found
                                       :host "xn--bcher-kva.test")))))
    (is (not (search hint (report-of 'host-not-found :resolve :host-not-found
                                     :host (parse-address "::1")))))
    (is (not (search hint (report-of 'resolver-try-again :resolve :resolver-try-again
                                     :host "bücher.test"))))))

(define-test "conditions.report-broadcast" ()
  "It is a hint for EACCES, 13, of a message to a host: EPERM, 1, is what a firewall says, and the
path of a local socket has permissions of its own."
  (is (equal "send to ::1 port 9 failed: permission denied (a broadcast needs :BROADCAST T)"
             (report-of 'permission-denied :send :permission-denied
                        :host "::1" :port 9 :errno 13)))
  (dolist (facts '((:host "::1" :port 9 :errno 1)
                   (:host "/run/path" :errno 13)))
    (is (not (search "broadcast" (apply #'report-of 'permission-denied :send :permission-denied
                                        facts)
                     :test #'char-equal)))))

(define-test "conditions.report-denied-connect" ()
  "A broadcast is denied to a socket that has not asked for it with EACCES, 13."
  (loop for (hint . facts) in '(("(a broadcast needs :BROADCAST T)" :errno 13 :unicast t)
                                (nil :errno 1 :unicast t)
                                (nil :errno 13))
        do (is (equal (format nil "connect to ::1 port 9 failed: connect denied~@[ ~A~]" hint)
                      (apply #'report-of 'connect-denied :connect :connect-denied
                             :host "::1" :port 9 facts)))))

(define-test "conditions.report-attempts" (:behaviour (51 62))
  "All addresses and their errors are in the line."
  (let ((two (attempts '("2001:db8::1" "network-unreachable")
                       '("192.0.2.1" "connection-refused"))))
    (is (equal (format nil "connect to example.org port 443 failed: 2001:db8::1 network ~
                            unreachable; 192.0.2.1 connection refused (0.25 s)")
               (report-of 'connection-refused :connect :connection-refused
                          :host "example.org" :port 443 :seconds 0.25 :attempts two)))
    (is (equal (format nil "connect to h port 1 failed: timed out; 2001:db8::1 network ~
                            unreachable; 192.0.2.1 connection refused (5 s)")
               (report-of 'timeout :connect :timed-out :host "h" :port 1 :seconds 5
                                                       :attempts two))))
  (is (equal "connect to 192.0.2.1 port 1 failed: connection refused"
             (report-of 'connection-refused :connect :connection-refused
                        :host "192.0.2.1" :port 1
                        :attempts (attempts '("192.0.2.1" "connection-refused")))))
  (is (equal "connect to example.org port 1 failed: 192.0.2.1 connection refused"
             (report-of 'connection-refused :connect :connection-refused
                        :host "example.org" :port 1
                        :attempts (attempts '("192.0.2.1" "connection-refused"))))
      "the one address of a name is told"))

(define-test "conditions.report-many-attempts" ()
  "A line has an end: of 1,000 attempts the first are listed and the others counted."
  (let ((many (loop repeat 1000
                    append (attempts '("192.0.2.1" "connection-refused")))))
    (is (search "; and 984 more" (report-of 'connection-refused :connect :connection-refused
                                            :host "h" :port 1 :attempts many)))))

(define-test "conditions.report-without-a-reason" ()
  (is (equal "read failed: unknown reason"
             (princ-to-string (make-condition 'network :operation :read)))))

(define-test "conditions.report-seconds" ()
  (loop for (seconds . text) in '((0 . "") (0.0001 . "") (0.001 . " (0.001 s)") (1 . " (1 s)")
                                  (1/3 . " (0.333 s)") (10 . " (10 s)") (0.5d0 . " (0.5 s)")
                                  (1e20 . " (more than 1000000000 s)"))
        do (is (equal (format nil "read failed: timed out~A" text)
                      (report-of 'timeout :read :timed-out :seconds seconds)))))

(define-test "conditions.report-safe" ()
  "What callers gave stays on one line, whatever is in it and however long it is."
  (let ((host (format nil "a~Cb~Cc~Cd~Ce" #\Newline #\Return (code-char 27) (code-char #x202E))))
    (is (equal "connect to a\\nb\\rc\\x1Bd\\x202Ee failed: x"
               (report-of 'network :connect :x :host host))))
  (loop for (first last) in '((0 31) (127 159) (#x2028 #x202E) (#x2066 #x2069) (#xD800 #xDFFF))
        do (is (equal '(t nil nil t)
                      (mapcar (lambda (code) (and (port::harmless-p (code-char code)) t))
                              (list (max 32 (1- first)) first last (1+ last))))
               "~X" first))
  (let ((report (report-of 'network :connect :x
                           :host (make-string 100000 :initial-element #\a))))
    (is (> 3000 (length report)))
    (is (eql (- (length report) 3) (search "..." report)) "it says that there is more"))
  (let ((*print-readably* t) (*print-base* 2) (*print-pretty* t) (*print-right-margin* 10))
    (is (equal "listen on port 80 failed: address in use"
               (report-of 'address-in-use :listen :address-in-use :port 80)))))

(define-test "conditions.text-errors" ()
  (let ((condition (failure-of
                     (fail-as 'decoding-error :read :invalid-octets
                              :text-octets #(195 40) :position 17
                              :message "expected ~A, got octets~{ ~2,'0X~}"
                              :arguments '(:utf-8 (195 40))))))
    (is (equalp #(195 40) (text-error-octets condition)))
    (is (= 17 (text-error-position condition)))
    (is (null (text-error-character condition)))
    (is-report condition "read failed: expected UTF-8, got octets C3 28"))
  (let ((condition (failure-of (fail-as 'encoding-error :write :no-octets :character #\a))))
    (is (char= #\a (text-error-character condition)))
    ;; who handles any TEXT-ERROR may ask for everything
    (is (null (text-error-octets condition)))
    (is (null (text-error-position condition)))
    (is-report condition "write failed: no octets")))

;;; The printer

(defmacro with-odd-printer (() &body body)
  "Run BODY with every variable of the printer that matters at something that it seldom is."
  `(let ((*print-base* 2) (*print-radix* t) (*print-circle* t) (*print-length* 1) (*print-level* 1)
         (*print-lines* 1) (*print-pretty* t) (*print-right-margin* 10) (*print-case* :capitalize)
         (*print-gensym* nil) (*print-array* nil) (*read-default-float-format* 'double-float))
     ,@body))

(defun oddly-printed (object)
  (with-odd-printer () (princ-to-string object)))

(define-test "conditions.report-printer" ()
  "A report is the same whatever the printer is told."
  (let ((same (list 3 0.5 #(1 2) :key)))
    (is (equal "wait failed: expected 10 T (1 (2 (3))), got (3 0.5 #(1 2) KEY) (2 octets moved)"
               (oddly-printed (failure-of (fail-as 'network :wait :x :octets 2
                                                   :message "expected ~S ~S ~S, got ~A"
                                                   :arguments (list 10 t '(1 (2 (3))) same)))))))
  (is (equal "[LIST] \"h\":17 of 10 10 [timeout 3 sec]"
             (oddly-printed (make-condition 'timeout :proc 'list :host "h" :port 17
                                                     :mesg "of ~A ~S" :args '(10 10) :time 3))))
  (is (equal "[(1 (2 (3 (4 (5))) #:X) #(6))] \"\":0"
             (oddly-printed (make-condition 'network
                                            :proc `(1 (2 (3 (4 (5))) ,(make-symbol "X"))
                                                      ,(vector 6))))))
  (is (equal "wait failed: expected a text, got (1 (2 (3 (4 #))))"
             (oddly-printed (failure-of (check-argument :wait '(1 (2 (3 (4 (5))))) 'string
                                                        "a text"))))
      "a line has not all that is deep"))

(define-test "conditions.report-of-the-unreadable" ()
  "A condition that has what cannot be read back, and itself, has a report."
  (let ((*print-readably* t) (circle (list 1)))
    (setf (rest circle) circle)
    (is-failure (usage-error :invalid "got #<")
      (check-argument :wait (make-hash-table) 'string "a string"))
    (is-failure (usage-error :invalid "got (1 1 1")
      (check-argument :wait circle 'string "a string")))
  (let ((condition (failure-of (fail-as 'timeout :read :timed-out :seconds 3)))
        (*package* (find-package :port)))
    (is (equal "#<TIMEOUT read failed: timed out (3 s)>"
               (let ((*print-circle* t) (*print-base* 2) (*print-radix* t))
                 (prin1-to-string condition))))))

;;; Programs of 1999

(define-condition old-failure (network) ()
  (:report (lambda (condition stream)
             (format stream "old ~A" (net-host condition)))))

(define-condition failure-of-mine (network) ())

(define-test "conditions.historical" ()
  "The initargs, defaults, readers and reports of CLOCC."
  (let ((condition (make-condition 'network :proc 'list :host "h" :port 7 :mesg "~a" :args '(1))))
    (is (equal "[LIST] \"h\":7 1" (princ-to-string condition)))
    (is (equal '(list "h" 7 "~a" (1))
               (list (net-proc condition) (net-host condition) (net-port condition)
                     (net-mesg condition) (net-args condition)))))
  (is (equal "[NIL] \"\":0" (princ-to-string (make-condition 'network))))
  (is (equal "[NIL] \"\":0" (princ-to-string (make-condition 'login))))
  (is (equal "[NIL] \"\":0" (princ-to-string (make-condition 'timeout))))
  (is (equal "[NIL] \"\":0" (princ-to-string (make-condition 'timeout :time nil))))
  (is (equal "[NIL] \"\":0 [timeout 3 sec]"
             (princ-to-string (make-condition 'timeout :time 3))))
  (is (equal "[NIL] \"\":0" (princ-to-string (make-condition 'net-path))))
  (is (equal "[LIST] \"h\":7 connection refused"
             (princ-to-string (make-condition 'connection-refused :proc 'list :host "h" :port 7))))
  (is (equal '(nil nil) (let ((condition (make-condition 'network)))
                          (list (net-mesg condition) (net-args condition)))))
  (is (equal "old h" (princ-to-string (make-condition 'old-failure :host "h"))))
  ;; a class that they do not have, signalled by a program with nothing to tell
  (is (equal "connection truncated" (princ-to-string (make-condition 'connection-truncated))))
  (is (equal "[NIL] \"\":0 early" (princ-to-string (make-condition 'connection-truncated
                                                                   :mesg "early"))))
  (is (equal "read failed: connection truncated"
             (princ-to-string (make-condition 'connection-truncated :operation :read))))
  (is (equal "read failed: unknown reason"
             (princ-to-string (make-condition 'failure-of-mine :operation :read))))
  ;; the name of a class of somebody else's says nothing
  (is (equal "[NIL] \"h\":0" (princ-to-string (make-condition 'failure-of-mine :host "h")))))

(define-test "conditions.historical-unformattable" ()
  "Words that are no format control for the arguments, such as a reply of a peer, are shown as they
stand."
  (loop for (control . arguments) in '(("550 ~joe: no such file") ("~A and ~A" 1) ("~"))
        do (is (equal (format nil "[LIST] \"h\":21 ~A" control)
                      (princ-to-string (make-condition 'net-path :proc 'list :host "h" :port 21
                                                                 :mesg control
                                                                 :args arguments))))))

;;; Restarts

(define-test "conditions.restarts-of-their-own" ()
  "A restart is for the condition that it is there for, not for one whose handler has met another."
  (loop for (class prepare fail go-on) in
        (list (list 'timeout
                    (lambda (a b) (declare (ignore b)) (setf (socket-timeout a :input) 0.001))
                    #'read-char
                    (lambda (condition) (wait-longer 5 condition)))
              (list 'decoding-error
                    (lambda (a b) (declare (ignore a)) (send-octets b 255))
                    #'read-char
                    (lambda (condition) (replace-character #\! condition)))
              (list 'encoding-error
                    (lambda (a b)
                      (declare (ignore b))
                      (setf (stream-external-format a) :ascii))
                    (lambda (a) (write-char #\€ a))
                    (lambda (condition) (replace-character #\! condition))))
        do (with-pair (a b)
             (with-pair (c d)
               (funcall prepare a b)
               (funcall prepare c d)
               (let ((met '()))
                 (handler-bind ((network
                                  (lambda (outer)
                                    (handler-bind ((network (lambda (inner)
                                                              (push (network-socket inner) met)
                                                              (send-octets b "x")
                                                              (funcall go-on outer))))
                                      (funcall fail c)))))
                   (funcall fail a))
                 (is (equal (list c) met) "~S" class))))))

(define-test "conditions.retry" ()
  "RETRY calls again with the same value, USE-VALUE with another; both as often as needed."
  (let ((calls '()))
    (is (equal '(3 :done)
               (handler-bind ((network (lambda (condition)
                                         (declare (ignore condition))
                                         (if (evenp (length calls))
                                             (invoke-restart 'use-value (length calls))
                                             (invoke-restart 'retry)))))
                 (multiple-value-list
                  (call-with-retry-restarts
                   (lambda (value)
                     (push value calls)
                     (if (< (length calls) 4) (fail-as 'network :connect :x) (values 3 :done)))
                   0)))))
    (is (equal '(0 0 2 2) (reverse calls)))))

(define-test "conditions.retry-is-not-of-what-a-handler-calls" ()
  "Another failure, of what a handler does about the first, has not the restarts of that."
  (let ((found '()))
    (flet ((note-restarts (condition)
             (push (list (network-code condition) (and (find-restart 'retry condition) t)
                         (and (find-restart 'use-value condition) t))
                   found)))
      (signals network
        (call-with-retry-restarts
         (lambda (value)
           (declare (ignore value))
           (handler-bind ((network (lambda (outer)
                                     (note-restarts outer)
                                     (failure-of
                                       (handler-bind ((network #'note-restarts))
                                         (fail-as 'network :read :inner))))))
             (fail-as 'network :connect :outer)))
         0)))
    (is (equal '((:outer t t) (:inner nil nil)) (reverse found)))))

(define-test "conditions.retry-interactively" ()
  "USE-VALUE asks for a line, which is the new value; the reports say what is done."
  (let ((value "a") (asked (make-string-output-stream)))
    (flet ((restart-named (name condition)
             (find-restart name condition)))
      (handler-bind ((network
                       (lambda (condition)
                         (is (equal "Try again to resolve it."
                                    (princ-to-string (restart-named 'retry condition))))
                         (is (equal "Use another host."
                                    (princ-to-string (restart-named 'use-value condition))))
                         (with-input-from-string (in (format nil "b c~%"))
                           (let ((*query-io* (make-two-way-stream in asked)))
                             (write-string "before" *query-io*)
                             (invoke-restart-interactively
                              (restart-named 'use-value condition)))))))
        (is (equal "b c" (with-retry (value "resolve it" "host")
                           (if (equal value "a") (fail-as 'network :resolve :x) value))))
        (is (equal (format nil "before~%New host: ") (get-output-stream-string asked)))))))

(define-test "conditions.a-new-value-may-be-typed-with-quotes" ()
  "As a string is in a program. A quote at one end alone belongs to the value."
  (flet ((typed (line)
           (with-input-from-string (in (format nil "~A~%" line))
             (let ((*query-io* (make-two-way-stream in (make-broadcast-stream))))
               (first (port::read-new-value "host"))))))
    (is (equal "b c" (typed "\"b c\"")))
    (is (equal "\"b" (typed "\"b")))
    (is (equal "\"" (typed "\"")))
    (is (equal "" (typed "\"\"")))
    (is (equal "" (typed "")))))
