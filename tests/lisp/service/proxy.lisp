;;;; proxy - servers whose connections begin with a header of the PROXY protocol. What is a header
;;;; is tested in C over the whole of proxy.tsv; here, what comes of it.

(in-package :port/test)

(define-suite proxy "The PROXY protocol.")

(defun from-hex (digits)
  (coerce (loop for start from 0 below (length digits) by 2
                collect (parse-integer digits :start start :end (+ start 2) :radix 16))
          '(vector (unsigned-byte 8))))

(defun header-octets (form text)
  "The octets that FORM and TEXT, the first fields of a row of proxy.tsv, spell."
  (cond ((string= form "text") (octets-like text))
        ((string= form "hex") (from-hex text))
        (t (from-hex (concatenate 'string "0d0a0d0a000d0a515549540a" text)))))

(defun proxy-rows (verdict)
  "(octets client destination) of the rows of proxy.tsv with VERDICT, a string."
  (loop for (form text found . ends) in (vectors "proxy")
        when (string= found verdict)
          collect (cons (header-octets form text) ends)))

(defparameter *header* (format nil "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443~C~C"
                               #\Return #\Newline))

(defparameter *header-ends* '("192.0.2.1" 56324 "198.51.100.2" 443))

(defun ends (socket)
  (multiple-value-list (socket-host/port socket)))

(defun proxy-ends (socket)
  (multiple-value-list (socket-proxy-host/port socket)))

(defun end-words (host port)
  "HOST and PORT as proxy.tsv has them."
  (if (zerop (length host))
      ""
      (format nil "~A~:[ ~D~;~*~]" host (find (char host 0) "/@") port)))

(defun call-with-proxied (server function)
  "Call FUNCTION with a function that opens a connection to SERVER and sends it octets and strings:
it returns the connection."
  (let ((opened '()))
    (unwind-protect
         (funcall function
                  (lambda (&rest pieces)
                    (let ((socket (open-socket "127.0.0.1" (port-of server) :input-timeout 10)))
                      (push socket opened)
                      (dolist (piece pieces socket)
                        (write-sequence piece socket)
                        (finish-output socket)))))
      (dolist (socket opened)
        (close socket :abort t))
      (close server))))

(defmacro with-proxied ((server send &key (proxy-protocol t)) &body body)
  "Run BODY with SERVER, which expects headers, and SEND, which connects and sends what it gets."
  `(let ((,server (open-socket-server 0 :host "127.0.0.1" :proxy-protocol ,proxy-protocol)))
     (call-with-proxied ,server (lambda (,send)
                                  (flet ((,send (&rest pieces) (apply ,send pieces)))
                                    (declare (ignorable #',send))
                                    ,@body)))))

(define-test proxy.good-headers ()
  "The ends are those of the header, or those of the connection where it names none; what follows is
the client's."
  (with-proxied (server send)
    (loop for (octets client destination) in (proxy-rows "good")
          do (let ((own (send octets "hello" '(#\Newline))))
               (with-open-stream (socket (socket-accept server))
                 (is (equal "hello" (read-line socket)))
                 (destructuring-bind (host port own-host own-port) (ends socket)
                   (if (and (string= client "") (string= destination ""))
                       (is (equal (ends socket) (proxy-ends socket)))
                       (progn (is (equal client (end-words host port)))
                              (is (equal destination (end-words own-host own-port))))))
                 (destructuring-bind (host port own-host own-port) (ends own)
                   (is (equal (list own-host own-port host port) (proxy-ends socket)))))))))

(define-test proxy.bad-headers ()
  "A bad header is a PROXY-ERROR, the connection is gone, and the server goes on."
  (with-proxied (server send)
    (loop for (octets) in (proxy-rows "bad")
          do (let ((peer (send octets)))
               (is-failure (proxy-error :proxy-syntax "PROXY header from 127.0.0.1:" "expected")
                 (socket-accept server))
               (is (typep (failure-of (read-byte peer nil)) 'connection-reset))))
    (unless (weather-p)                 ; in which the first octet is enough
      (let ((long (format nil "HELO~{ ~D~}" (loop for i below 40 collect i))))
        (dolist (text (list "HELO" long))
          (send text)
          (is-failure (proxy-error :proxy-syntax
                                   (format nil "got ~S (" (subseq text 0 (min 40 (length text)))))
            (socket-accept server)))))
    (send *header*)
    (with-open-stream (socket (socket-accept server))
      (is (equal *header-ends* (ends socket))))))

(define-test proxy.a-connection-that-ends-in-its-header-is-refused ()
  (with-proxied (server send)
    (loop for (octets) in (proxy-rows "more")
          do (close (send octets))
             (is-failure (proxy-error :connection-truncated "the connection ended in it")
               (socket-accept server)))
    (close (send "PROXY") :abort t)
    (is (member (network-code (failure-of (socket-accept server)))
                '(:connection-reset :connection-truncated)))
    (let* ((peer (send "PROXY"))
           (accepting (start-blocked (lambda () (socket-accept server)))))
      (is-true (wait-until (lambda () (car (port::server-pending server)))))
      (close peer :abort t)
      (let ((condition (join accepting)))
        (is (typep condition 'proxy-error))
        (is (eq :connection-reset (network-code condition)))
        (is (eql 104 (network-errno condition))) ; ECONNRESET of errno(3)
        (is-report condition "connection reset")))))

(define-test proxy.any-split (:behaviour 43)
  "An octet at a time, and what comes later is the client's."
  (with-proxied (server send)
    (let* ((peer (send "P"))
           (accepting (start-blocked (lambda () (socket-accept server)))))
      (loop for char across (subseq *header* 1)
            do (write-char char peer)
               (finish-output peer))
      (write-line "later" peer)
      (finish-output peer)
      (with-open-stream (socket (join accepting))
        (is (equal *header-ends* (ends socket)))
        (is (equal "later" (read-line socket)))))))

(define-test proxy.late-headers (:behaviour 10)
  "A header that is late, also one that keeps coming, ends within its limit."
  (with-proxied (server send :proxy-protocol 1/5)
    (send "PROXY TCP4 ")
    (multiple-value-bind (seconds condition)
        (seconds-of (lambda () (failure-of (socket-accept server :wait 0))))
      (is (typep condition 'proxy-error))
      (is (eq :timed-out (network-code condition)))
      (is-report condition "no whole header in time" "11 octets moved" "0.2 s")
      (is (<= 0.19 seconds 2)))))

(define-test proxy.deadlines (:behaviour 10)
  "A deadline that passes while a header is waited for is a TIMEOUT as anywhere: the connection is
gone and the server goes on, or the wait does."
  (with-proxied (server send)
    (let ((peer (send "PROXY TCP4 ")))
      (let ((condition (is-failure (timeout :timed-out "PROXY header from 127.0.0.1:"
                                            "11 octets moved" "0.5 s")
                         (with-deadline (1/2) (socket-accept server)))))
        (is (= 1/2 (timeout-time condition))))
      (is (typep (failure-of (read-byte peer nil)) 'connection-reset)))
    (let ((peer (send (subseq *header* 0 20))))
      (handler-bind ((timeout (lambda (condition)
                                (join (in-thread ; which has no deadline
                                       (lambda ()
                                         (write-string *header* peer :start 20)
                                         (finish-output peer))))
                                (wait-longer 10 condition))))
        (with-open-stream (socket (with-deadline (1/10) (socket-accept server)))
          (is (equal *header-ends* (ends socket))))))))

(defun is-header-timeout (server peer function)
  "Check that FUNCTION, which accepts PEER from SERVER, signals a TIMEOUT by 1/5, its connection is
closed, and SERVER accepts the next one once it has no limit any more."
  (let ((condition (is-failure (timeout :timed-out "PROXY header from 127.0.0.1:"
                                        "11 octets moved" "0.2 s")
                     (funcall function))))
    (is (= 1/5 (timeout-time condition)))
    (is (typep (network-socket condition) 'socket)))
  (is (typep (failure-of (read-byte peer nil)) 'connection-reset))
  (setf (socket-timeout server :input) nil
        (socket-deadline server :input) nil))

(defun is-accepted (server)
  "Check that SERVER accepts a connection that has a header."
  (with-open-stream (socket (socket-accept server))
    (is (equal *header-ends* (ends socket)))))

(define-test proxy.limits-of-the-server (:behaviour 10)
  "The timeout and the deadline of a server end its wait for a header too, and it goes on."
  (with-proxied (server send)
    (dolist (limit (list (lambda () (setf (socket-timeout server :input) 1/5))
                         (lambda () (setf (socket-deadline server :input) 1/5))))
      (let ((peer (send "PROXY TCP4 ")))
        (is-header-timeout server peer (lambda ()
                                         (funcall limit)
                                         (socket-accept server))))
      (send *header*)
      (is-accepted server))))

(define-test proxy.a-deadline-set-during-the-wait (:behaviour 3)
  "A deadline of the server ends a wait for a header that is under way, and moves its end."
  (with-proxied (server send :proxy-protocol 600)
    (let* ((peer (send "PROXY TCP4 "))
           (accepting (start-blocked (lambda () (socket-accept server)))))
      (is-true (wait-until (lambda () (car (port::server-pending server)))))
      (setf (socket-deadline server :input) 500)
      (setf (socket-deadline server :input) 1/5)
      (is-header-timeout server peer (lambda () (error (join accepting)))))
    (send *header*)
    (is-accepted server)))

(define-test proxy.no-limit-for-what-is-there (:behaviour 6)
  "A header that is there is taken whatever the timeout; a deadline that has passed leaves the
connection in the queue."
  (with-proxied (server send)
    (send *header*)
    (setf (socket-timeout server :input) 0
          (socket-deadline server :input) 0)
    (is (typep (failure-of (socket-accept server)) 'timeout))
    (setf (socket-deadline server :input) nil)
    (is-accepted server)))

(define-test proxy.waiting-longer-for-the-server ()
  "Who waits longer than a deadline or the timeout of the server says gets the header."
  (dolist (limit (list (lambda (server) (setf (socket-timeout server :input) 1/100))
                       (lambda (server) (setf (socket-deadline server :input) 1/100))))
    (with-proxied (server send)
      (let ((peer (send "PROXY TCP4 ")) (timeouts 0))
        (funcall limit server)
        (handler-bind ((timeout (lambda (condition)
                                  (when (and (= 1 (incf timeouts))
                                             (eq :proxy (network-operation condition)))
                                    (write-string *header* peer :start 11)
                                    (finish-output peer))
                                  (wait-longer 20 condition))))
          (is-accepted server))
        (is (= 1 timeouts))))))

(define-test proxy.waiting-longer-for-a-connection ()
  "Who waits longer for a connection than a deadline says does so for its header too."
  (with-proxied (server send)
    (let ((peers '()) (timeouts 0))
      (handler-bind ((timeout (lambda (condition)
                                (incf timeouts)
                                (join (in-thread (lambda ()
                                                   (push (send "PROXY TCP4 ") peers))))
                                (in-thread (lambda ()
                                             (wait-until (lambda ()
                                                           (car (port::server-pending server))))
                                             (write-string *header* (first peers) :start 11)
                                             (finish-output (first peers))))
                                (wait-longer 20 condition))))
        (with-open-stream (socket (with-deadline (0) (socket-accept server)))
          (is (equal *header-ends* (ends socket)))
          (is (= 1 timeouts)))))))

(define-test proxy.a-server-that-is-closed-between-two-waits (:behaviour 13)
  "A wait for a header that finds its connection closed says what one that is woken by that does."
  (with-proxied (server send)
    (send "PROXY TCP4 ")
    (is-failure (socket-closed :closed "accept on")
      (handler-bind ((timeout (lambda (condition)
                                (close server)
                                (wait-longer 10 condition))))
        (with-deadline (1/100) (socket-accept server))))))

(define-test proxy.a-server-that-is-closed-as-it-accepts (:behaviour 15)
  "A connection that was just accepted then has no time for its header."
  (with-proxied (server send)
    (let ((peer (send "PROXY ")))
      (unwind-protect
           (progn
             (sb-int:encapsulate 'port::accept-header 'test
                                 (lambda (function server &rest arguments)
                                   (close server)
                                   (apply function server arguments)))
             (is-failure (socket-closed :closed "accept on") (socket-accept server)))
        (sb-int:unencapsulate 'port::accept-header 'test))
      (is (typep (failure-of (read-byte peer nil)) 'connection-reset)))))

(define-test proxy.a-deadline-beyond-the-limit-of-a-header ()
  "The earlier one counts, also where the deadline was moved."
  (with-proxied (server send :proxy-protocol 1/5)
    (send)
    (is-failure (proxy-error :timed-out "no whole header in time")
      (with-deadline (10) (socket-accept server)))
    (send)
    (is-failure (proxy-error :timed-out "no whole header in time")
      (handler-bind ((timeout (lambda (condition) (wait-longer 10 condition))))
        (with-deadline (1/100) (socket-accept server))))))

(define-test proxy.never-guessed ()
  "Who did not ask for headers gets them as they are."
  (with-proxied (server send :proxy-protocol nil)
    (let ((own (send *header*)))
      (with-open-stream (socket (socket-accept server))
        (is (equal (string-right-trim '(#\Newline) *header*) (read-line socket)))
        (is (eql (fourth (ends own)) (second (ends socket))))
        (is (equal '(nil) (proxy-ends socket)))))))

(define-test proxy.close-wakes-accept (:behaviour 15)
  "A close of the server ends an accept that waits for a header."
  (with-proxied (server send)
    (let* ((peer (send "PROXY "))
           (accepting (start-blocked (lambda () (socket-accept server)))))
      (is-true (wait-until (lambda () (car (port::server-pending server)))))
      (close server)
      (is (typep (join accepting) 'socket-closed))
      (is (typep (failure-of (read-byte peer nil)) 'connection-reset)))))

(define-test proxy.unwinding (:behaviour 26)
  "Who is thrown out of an accept that waits for a header leaves nothing open."
  (with-proxied (server send)
    (dotimes (i 20)
      (send "PROXY ")
      (is (eq :out (handler-case (sb-ext:with-timeout 0.01 (socket-accept server))
                     (sb-ext:timeout () :out)))))
    (is (null (car (port::server-pending server))))))

(define-test proxy.errors-of-text-count-from-after-the-header ()
  "Errors of the text count from behind the header."
  (with-proxied (server send)
    (send *header* (octets 97 255 10))
    (with-open-stream (socket (socket-accept server))
      (let ((condition (failure-of (read-line socket))))
        (is (typep condition 'decoding-error))
        (is (eql 1 (text-error-position condition)))))))

(define-test proxy.a-local-server-reads-headers-too ()
  (let ((path (temporary-path)))
    (with-open-stream (server (open-unix-server path :proxy-protocol t))
      (with-open-stream (client (open-unix-socket path))
        (send-octets client *header* "hello" 10)
        (with-open-stream (socket (socket-accept server))
          (is (equal *header-ends* (ends socket)))
          (is (equal (list "" 0 path 0) (proxy-ends socket)))
          (is (equal "hello" (read-line socket))))))))

(define-test proxy.limits-that-are-none-are-refused ()
  (dolist (wrong (list 0 -1 "yes" :v2))
    (is-failure (usage-error :invalid "PROXY-PROTOCOL")
      (open-socket-server 0 :proxy-protocol wrong))
    (is-failure (usage-error :invalid "PROXY-PROTOCOL")
      (serve #'identity 0 :proxy-protocol wrong)))
  (let ((path (temporary-path)))
    (is-failure (not-supported :not-supported path ":STREAM")
      (open-unix-server path :kind :seqpacket :proxy-protocol t)))
  (is-failure (usage-error :invalid)
    (socket-proxy-host/port :socket)))

(define-test proxy.written ()
  "A server reads of the client of a proxy what that one finds, through a second proxy too; and
where it speaks for itself, the ends of the connection."
  (with-socket-server (front 0 :host "127.0.0.1")
    (with-socket-server (back 0 :host "127.0.0.1" :proxy-protocol t)
      (flet ((handed-on (client version)
               (with-open-socket (out "127.0.0.1" (port-of back))
                 (is (eq out (write-proxy-header out client :version version)))
                 (write-line "hello" out)
                 (finish-output out)
                 (let ((in (socket-accept back)))
                   (is (equal "hello" (read-line in)))
                   (is (equal (destructuring-bind (host port own-host own-port) (ends out)
                                (list own-host own-port host port)) (proxy-ends in)))
                   in))))
        (with-open-socket (peer "127.0.0.1" (port-of front))
          (with-open-stream (client (socket-accept front))
            (dolist (version '(1 2))
              (with-open-stream (once (handed-on client version))
                (is (equal (ends client) (ends once)))
                (with-open-stream (twice (handed-on once version))
                  (is (equal (ends client) (ends twice)))))
              (with-open-stream (nobody (handed-on nil version))
                (is (equal (proxy-ends nobody) (ends nobody)))))))))))

(define-test proxy.written-for-a-local-client ()
  "Of which a line says nothing."
  (with-pair (client peer :local)
    (with-socket-server (back 0 :host "127.0.0.1" :proxy-protocol t)
      (loop for (version . told) in '((1 . nil) (2 . t))
            do (with-open-socket (out "127.0.0.1" (port-of back))
                 (finish-output (write-proxy-header out client :version version))
                 (with-open-stream (in (socket-accept back))
                   (is (eq told (not (equal (ends in) (proxy-ends in)))))))))))

(define-test proxy.what-cannot-be-written ()
  (with-pair (a b :inet)
    (dolist (wrong '(0 3 "2" nil))
      (is-failure (usage-error :invalid "version 1 or 2") (write-proxy-header a b :version wrong)))
    (write-char #\x a)
    (is-failure (usage-error :invalid "nothing has been written") (write-proxy-header a b))
    (finish-output a)
    (is-failure (usage-error :invalid "nothing has been written") (write-proxy-header a nil))
    (close b)
    (is-failure (socket-closed :closed) (write-proxy-header b a)))
  (with-pair (client server :tls)
    (is-failure (usage-error :invalid "without TLS") (write-proxy-header client server))))

(define-test proxy.adopted (:behaviour 61)
  "A listening descriptor that is adopted can expect headers; what has no connections cannot, and is
left to the caller."
  (with-socket-server (server 0 :host "127.0.0.1")
    (with-open-stream (adopted (adopt-descriptor (duplicate server) :proxy-protocol t))
      (with-open-socket (peer "127.0.0.1" (port-of server))
        (send-octets peer *header* "hello" 10)
        (with-open-stream (socket (socket-accept adopted))
          (is (equal *header-ends* (ends socket)))
          (is (equal "hello" (read-line socket)))
          (is (not (equal '(nil) (proxy-ends socket)))))))
    (with-duplicate (fd server)
      (is-failure (usage-error :invalid "PROXY-PROTOCOL")
        (adopt-descriptor fd :proxy-protocol 0))))
  (with-pair (a b :inet)
    (with-duplicate (fd a)
      (is-failure (not-supported :not-supported "PROXY-PROTOCOL" "which is connected")
        (adopt-descriptor fd :proxy-protocol t))))
  (with-open-stream (packets (open-unix-server (temporary-path) :kind :seqpacket))
    (with-duplicate (fd packets)
      (is-failure (not-supported :not-supported "PROXY-PROTOCOL"
                                  "which is listening and of kind :SEQPACKET")
        (adopt-descriptor fd :proxy-protocol t)))))

;;; Services

(defun tell-ends (socket)
  "A service: for each line the ends of SOCKET."
  (when (read-line socket nil)
    (format socket "~{~A ~}~%" (ends socket))
    :again))

(defun ask-behind (number header)
  "What the service on port NUMBER answers to a line behind HEADER."
  (with-open-socket (socket "127.0.0.1" number :input-timeout 10)
    (write-string header socket)
    (ask socket "who?")))

(define-test proxy.a-service-knows-the-client-behind-the-proxy ()
  (dolist (await '(nil t))
    (with-service (server number #'tell-ends :proxy-protocol t :await-input await)
      (dotimes (i 3)
        (is (equal "192.0.2.1 56324 198.51.100.2 443 " (ask-behind number *header*)))))))

(define-test proxy.service-speaks-first ()
  "Without :AWAIT-INPUT a header is all that a proxy has to send."
  (with-service (server number (lambda (socket) (format socket "hello ~A~%" (first (ends socket))))
                        :proxy-protocol t)
    (with-open-socket (socket "127.0.0.1" number :input-timeout 10)
      (write-string *header* socket)
      (finish-output socket)
      (is (equal "hello 192.0.2.1" (read-line socket))))))

(define-test proxy.service-awaits-input ()
  "With :AWAIT-INPUT it is the client's input that is waited for, not the proxy's."
  (let ((called nil))
    (with-service (server number (lambda (socket) (setf called t) (tell-ends socket))
                          :proxy-protocol t :await-input t)
      (with-open-socket (socket "127.0.0.1" number :input-timeout 10)
        (write-string *header* socket)
        (finish-output socket)
        ;; Another connection is served after the header of this one has been.
        (is (search "192.0.2.1" (ask-behind number *header*)))
        (setf called nil)
        (is (search "192.0.2.1" (ask-behind number *header*)))
        (is-true called)
        (is (search "198.51.100.2" (ask socket "who?")))))
    (setf called nil)
    (with-service (server number (lambda (socket) (declare (ignore socket)) (setf called t))
                          :proxy-protocol t :await-input t)
      (with-open-socket (socket "127.0.0.1" number)
        (write-string *header* socket)
        (finish-output socket)
        (is-true (wait-until (lambda ()
                               (let ((client (find-if #'identity
                                                      (port::service-clients
                                                       (service-of server)))))
                                 (and client (null (port::client-header-span client)))))))
        (is (null called))))))

(define-test proxy.service-errors (:limit 30)
  "Bad and late headers reach the hook and end their connection, not the service."
  (let ((codes '()))
    (with-service (server number #'tell-ends
                          :proxy-protocol 1/4
                          :on-error (lambda (condition socket)
                                      (when (and (typep condition 'proxy-error)
                                                 (eq socket (network-socket condition)))
                                        (push (network-code condition) codes))))
      (is (typep (failure-of (ask-behind number (format nil "GET / HTTP/1.0~%")))
                 'connection-reset))
      (with-open-socket (socket "127.0.0.1" number)
        (write-string "PROXY " socket))
      (with-open-socket (socket "127.0.0.1" number :input-timeout 10)
        (write-string "PROXY " socket)
        (finish-output socket)
        (is (typep (failure-of (read-line socket)) 'connection-reset)))
      (is-true (wait-until (lambda () (= 3 (length codes)))))
      (is (equal '(:proxy-syntax :connection-truncated :timed-out) (reverse codes)))
      (is (search "192.0.2.1" (ask-behind number *header*)))
      (is-true (wait-until (lambda () (zerop (client-count server))))))))

(define-test proxy.slow-proxies-stall-nobody ()
  "Headers that do not come, or not whole, take no thread: one thread serves the others."
  (with-service (server number #'tell-ends :proxy-protocol 5 :threads 1)
    (let ((slow (loop repeat 20 collect (open-socket "127.0.0.1" number :input-timeout 10))))
      (loop for socket in (nthcdr 10 slow)
            do (write-string *header* socket :end 20)
               (finish-output socket))
      (let ((seconds (seconds-of (lambda ()
                                   (dotimes (i 10)
                                     (is (search "192.0.2.1" (ask-behind number *header*))))))))
        (is (< seconds 3)))
      (loop for socket in (nthcdr 10 slow)
            do (write-string *header* socket :start 20)
               (is (search "192.0.2.1" (ask socket "who?"))))
      (mapc #'close slow))))

(define-test proxy.service-of-a-given-server ()
  "A server that was opened with the keyword brings it along, and the service may add it."
  (loop for (own added) in '((t nil) (nil t))
        do (let* ((listener (open-socket-server 0 :host "127.0.0.1" :proxy-protocol own))
                  (number (port-of listener))
                  (server (serve #'tell-ends listener :proxy-protocol added)))
             (is (search "192.0.2.1" (ask-behind number *header*)))
             (is-true (stop-server server :drain 0)))))
