;;;; arguments - what is given and makes no sense: each is told apart at the edge, in words.

(in-package :port/test)

(define-suite arguments "Arguments that make no sense.")

(defun is-mistyped (function &rest parts)
  "Check that FUNCTION signals a USAGE-ERROR that is a TYPE-ERROR too, whose report has PARTS.
Returns the condition."
  (let ((failure (apply #'is-usage-failure function parts)))
    (is (typep failure 'type-error) "no TYPE-ERROR: ~S" failure)
    failure))

(defun is-of-another-type (failure)
  "Check that the datum of FAILURE, a TYPE-ERROR, is not of the type that it expects."
  (is (not (typep (type-error-datum failure) (type-error-expected-type failure)))))

(defun is-usage-failure (function &rest parts)
  (let ((failure (is-failure (usage-error :invalid "expected" "got") (funcall function))))
    (when failure
      (apply #'is-report failure parts))
    failure))

(defparameter *improper-formats*
  '((:utf-8 . :eol) (:utf-8 :eol) (:utf-8 :eol . :lf) (:utf-8 :eol :lf :replacement)
    #1=(:utf-8 . #1#))
  "What is no encoding with keywords and values.")

(define-test arguments.external-format ()
  (with-pair (a b)
    (dolist (format *improper-formats*)
      (is-of-another-type (is-mistyped (lambda () (setf (stream-external-format a) format))
                                       ":EOL, :LINE-LIMIT and :REPLACEMENT"))
      (is-mistyped (lambda () (open-socket "127.0.0.1" 1 :external-format format)) ":EOL"))
    (is (typep (is-usage-failure (lambda () (setf (stream-external-format a) '(:utf-8 :foo 3)))
                                 "keywords among :EOL :LINE-LIMIT :REPLACEMENT" "got :FOO")
               'program-error))
    (is-usage-failure (lambda () (open-socket-server 0 :external-format '(:utf-8 :foo 3))) ":FOO")
    (dolist (limit '(0 -1 2.5 :many #.(expt 2 62)))
      (is-usage-failure (lambda ()
                          (setf (stream-external-format a) `(:utf-8 :line-limit ,limit)))
                        ":LINE-LIMIT a number of octets above 0"))
    (dolist (replacement '("" "ab" 63))
      (is-usage-failure (lambda ()
                          (setf (stream-external-format a) `(:utf-8 :replacement ,replacement)))
                        ":REPLACEMENT a character"))
    (is (eq :utf-8 (stream-external-format a)))))

(deftype octet-of-mine ()
  '(integer 0 255))

(define-test arguments.element-type ()
  (with-pair (a b)
    (dolist (type '("x" 3 foo (foo) (mod "x") (unsigned-byte . 8) (member . 3) (values t) *
                    (signed-byte 8) (unsigned-byte 16) (mod 255) t (and character integer)))
      (is-mistyped (lambda () (set-socket-stream-format a type)) "CHARACTER or (UNSIGNED-BYTE 8)")
      (is-mistyped (lambda () (open-socket "127.0.0.1" 1 :element-type type)) "element type"))
    (is-mistyped (lambda () (set-socket-stream-format a nil)) "CHARACTER or (UNSIGNED-BYTE 8)")
    (is (eq 'character (stream-element-type a)))
    (dolist (type '((mod 256) (integer 0 255) octet-of-mine (unsigned-byte 8) :default))
      (set-socket-stream-format a type)
      (is (equal '(unsigned-byte 8) (stream-element-type a)) "~S" type))
    (dolist (type `(base-char standard-char ,(find-class 'character) character))
      (set-socket-stream-format a type)
      (is (eq 'character (stream-element-type a)) "~S" type))
    (is (eq :binary (set-socket-stream-format a :binary)))
    (is (equal '(unsigned-byte 8) (stream-element-type a)))
    (is (eq :text (set-socket-stream-format a :text)))
    (is (eq 'character (stream-element-type a)))))

(define-test arguments.sockets-of-another-class ()
  "A socket that an operator is not for is a wrong argument like any other, and nothing happens."
  (with-socket-server (server 0 :host "127.0.0.1")
    (with-datagram-socket (messages :host "127.0.0.1")
      (with-pair (a b :inet)
        (let ((batch (make-datagram-batch 1)) (room (blank 1)))
          (loop for (expected . calls)
                  in `(("a SOCKET, got"
                        (read-octets ,server ,room) (read-some ,server ,room)
                        (peek-octets ,messages ,room) (read-line-octets ,messages ,room)
                        (write-octets ,messages ,room) (buffered-octets ,server)
                        (send-file ,server "/etc/hosts") (wait-for-stream ,server)
                        (relay ,server ,a) (relay ,a ,messages)
                        (socket-state ,server)
                        (set-socket-stream-format ,server :text)
                        (socket-proxy-host/port ,server)
                        (write-proxy-header ,server nil) (write-proxy-header ,a ,server)
                        (start-tls ,server) (tls-info ,messages) (tls-peer-certificate ,server))
                       ("a TLS-CONTEXT, got"
                        (reload-tls-context ,a) (start-tls ,a :context ,batch)
                        (open-tls-socket "127.0.0.1" 9 :context ,a)
                        (make-tls-context :by-name (,server)))
                       ("a TLS-CONTEXT, or NIL, got"
                        (serve echo-lines 0 :tls ,a))
                       ("a SOCKET-SERVER, got"
                        (socket-accept ,a) (socket-server-close ,a) (socket-server-close ,messages)
                        (socket-server-host/port ,a))
                       ("a SOCKET or a DATAGRAM-SOCKET, got"
                        (socket-host/port ,server) (socket-shutdown ,server :io)
                        (socket-peer-credentials ,server) (send-descriptors ,server (0))
                        (receive-descriptors ,server 1))
                       ("a DATAGRAM-SOCKET, got"
                        (socket-send ,a ,room) (socket-receive ,a ,room) (send-batch ,a ,batch)
                        (receive-batch ,a ,batch) (join-multicast ,a "239.0.0.1")
                        (leave-multicast ,server "239.0.0.1"))
                       ("a SOCKET, a DATAGRAM-SOCKET or a SOCKET-SERVER, got"
                        (socket-info ,room) (socket-string ,room) (socket-descriptor ,room)
                        (detach-descriptor ,room) (socket-datum ,batch)
                        (,#'(setf socket-datum) 1 ,room)
                        (socket-option ,batch :nodelay)
                        (socket-timeout ,batch :input) (socket-deadline ,room :output)
                        (,#'(setf socket-option) t ,batch :nodelay)
                        (,#'(setf socket-timeout) 1 ,batch :input)
                        (,#'(setf socket-deadline) 1 ,room :output))
                       ("a SOCKET, a DATAGRAM-SOCKET, a SOCKET-SERVER or a PENDING-CONNECTION, got"
                        (wait-for-input ,room :timeout 0))
                       ("a PENDING-CONNECTION, got"
                        (finish-connect ,a))
                       ("a DATAGRAM-BATCH, got"
                        (send-batch ,messages ,a) (receive-batch ,messages ,room)
                        (clear-batch ,a) (datagram-batch-count ,a) (batch-message ,a 0)
                        (batch-end ,room 0) (batch-add ,a ,room)))
                do (dolist (call calls)
                     (is-mistyped (lambda () (apply (first call) (rest call))) expected)))
          (is (every #'port::endpoint-open-p (list a b server messages))))))))

(define-test arguments.octets-that-are-none ()
  (with-pair (a b)
    (with-datagram-socket (messages :remote-host "127.0.0.1" :remote-port 9)
      (let ((batch (make-datagram-batch 1)))
        (dolist (call `((read-octets ,a) (read-some ,a) (peek-octets ,a) (read-line-octets ,a)
                        (write-octets ,a) (socket-send ,messages) (socket-receive ,messages)
                        (batch-add ,batch)))
          (dolist (wrong (list "text" '(1 2) (vector 1 2) nil))
            (is-mistyped (lambda () (funcall (first call) (second call) wrong))
                         "(unsigned-byte 8)")))))))

(define-test arguments.kinds-and-families ()
  "A kind or a family that does not exist at all is no argument, and those that exist are listed."
  (dolist (kind '(:streem :packets nil "stream" 1))
    (dolist (call (list (lambda () (open-unix-socket "/x" :kind kind))
                        (lambda () (open-unix-server "/x" :kind kind))
                        (lambda () (open-socket-pair :kind kind))))
      (is-of-another-type (is-mistyped call ":STREAM, :DATAGRAM or :SEQPACKET"
                                       (format nil "got ~S" kind)))))
  (dolist (family '(:ipx :local t "inet" 4))
    (dolist (call (list (lambda () (open-socket "127.0.0.1" 1 :family family))
                        (lambda () (open-socket-server 0 :family family))
                        (lambda () (open-datagram-socket :family family))
                        (lambda () (resolve "127.0.0.1" :family family))))
      (is-of-another-type (is-mistyped call ":INET, :INET6 or NIL"
                                       (format nil "got ~S" family))))))

(define-test arguments.phrases ()
  "A report begins with what was asked for."
  (with-datagram-socket (messages :host "127.0.0.1")
    (let ((batch (make-datagram-batch 1)))
      (loop for (phrase . calls) in
            `(("stop the service" (stop-server 3) (stop-server 3 :drains 1))
              ("list the listeners" (server-listeners 3))
              ("list the connections" (server-connections 3))
              ("wait" (wait-for-server 3))
              ("name the ends" (socket-string 3) (socket-host/port 3) (socket-server-host/port 3)
                               (socket-proxy-host/port 3))
              ("get the descriptor" (socket-descriptor 3))
              ("set the stream format" (set-socket-stream-format 3 :text))
              ("use a batch" (make-datagram-batch 0) (clear-batch 3) (batch-message ,batch 1))
              ("use a batch for port 9" (batch-add ,batch ,(octets 1) :port 9))
              ("send" (send-batch ,messages ,batch :start 2))
              ("set up TLS" (make-tls-context :verify 3) (make-tls-context :key "/etc/hosts")
                            (reload-tls-context 3) (open-tls-socket "127.0.0.1" 9 :context 3))
              ("handshake" (start-tls 3) (start-tls ,messages))
              ("convert -1" (ipaddr-to-dotted -1))
              ("make an address of 3" (make-address 3))
              ("join 3" (join-multicast ,messages 3)))
            do (dolist (call calls)
                 (let ((line (princ-to-string (failure-of (apply (first call) (rest call))))))
                   (is (eql 0 (search (format nil "~A failed: expected" phrase) line))
                       "~S: ~A" call line))))
      (close messages)
      (is-failure (socket-closed :closed "get the descriptor of 127.0.0.1:")
        (socket-descriptor messages))
      (is-failure (socket-closed :closed "join on 127.0.0.1:")
        (join-multicast messages "239.0.0.1")))))

(define-test arguments.protocol ()
  (is-mistyped (lambda () (socket-service-port "http" 3)) "protocol" "got 3"))

(define-test arguments.replacement (:behaviour 43)
  "What is no character replaces nothing, and nothing of the text is lost."
  (dolist (replacement '(nil "*" 42))
    (with-pair (a b)
      (write-sequence #(97 255 98 10) a)
      (finish-output a)
      (dolist (read (list #'read-line
                          (lambda (socket) (read-sequence (make-string 3) socket))
                          (lambda (socket) (read-char socket) (read-char socket))))
        (is-mistyped (lambda ()
                       (replacing (decoding-error replacement)
                         (funcall read b)))
                     "a character" (format nil "got ~S" replacement)))
      (close a)
      (is (equalp #(255 98 10) (everything b))))
    (with-pair (a b)
      (setf (stream-external-format a) :ascii)
      (dolist (write (list (lambda () (write-char #\é a)) (lambda () (write-line "é" a))
                           (lambda () (write-sequence '(#\é) a))))
        (is-mistyped (lambda ()
                       (replacing (encoding-error replacement)
                         (funcall write)))
                     "a character")))))

(define-test arguments.limits-that-nobody-waits-for (:behaviour 9)
  "A limit of a call that ends at once is looked at all the same."
  (dolist (timeout '(-1 "1" t))
    (is-mistyped (lambda () (resolve "127.0.0.1" :timeout timeout)) "seconds")
    (is-mistyped (lambda () (open-unix-socket "@port-test-nobody" :kind :datagram :timeout timeout))
                 "seconds")))

(define-test arguments.function ()
  (dolist (function '(nil no-function-of-this-name when if "f"))
    (is-mistyped (lambda () (serve function 0)) "a function of a socket"))
  (dolist (function '(no-function-of-this-name when "f"))
    (is-mistyped (lambda () (serve 'echo-lines 0 :on-error function)) "of a condition")))

(define-test arguments.improper-lists ()
  (is-mistyped (lambda () (serve 'echo-lines '(0 . 1))) "list of ports")
  (is-mistyped (lambda () (serve 'echo-lines 0 :host '("127.0.0.1" . "::1"))) "list of hosts")
  (with-pair (a b)
    (is-mistyped (lambda () (send-descriptors a '(0 . 1))) "list of file descriptors" "(0 . 1)")
    (is-mistyped (lambda () (wait-for-input (list* a b))) "list of sockets")
    (is (null (wait-for-input (list a b) :timeout 0)))))

(define-test arguments.nothing-to-wait-for ()
  "No socket and no limit would be a wait for ever."
  (is-mistyped (lambda () (wait-for-input '())) "a socket, as there is no limit of time")
  (is (null (wait-for-input '() :timeout 0)))
  (is (typep (failure-of (with-deadline (0.01) (wait-for-input '()))) 'timeout)))

(define-test arguments.stream-of-table ()
  (dolist (stream (list 3 nil "x" (make-string-input-stream "")))
    (is-mistyped (lambda () (print-open-sockets stream)) "an output stream")))

(defun no-number ()
  "A float that is none."
  (sb-kernel:make-single-float #x7fc00000))

(define-test arguments.no-number ()
  "A float that is no number is of the wrong type like others, whatever the kind of the option."
  (with-pair (a b :inet)
    (dolist (option (socket-options))
      (when (getf option :writable)
        (is-mistyped (lambda () (setf (socket-option a (getf option :name)) (no-number)))
                     (prin1-to-string (getf option :name))))))
  (signals connection-refused (open-socket "127.0.0.1" (unused-port) (no-number))))

(defun is-no-address (function &rest parts)
  (apply #'is-report (is-failure (address-syntax :address-syntax) (funcall function)) parts))

(defun is-no-file (function &rest parts)
  (is-of-another-type (apply #'is-mistyped function parts)))

(define-test arguments.paths ()
  "Pathnames that name no single file, and strings that no file can have for a name."
  (with-pair (a b)
    (dolist (path (list #p"/tmp/*.sock" (make-pathname :type "sock")))
      (is-no-address (lambda () (open-unix-server path)) "the pathname of one file")
      (is-no-address (lambda () (open-unix-socket path)) "the pathname of one file"))
    (dolist (path (list #p"*.txt" #p"/tmp/**/x" (format nil "/dev/null~Cx" (code-char 0))))
      (is-no-file (lambda () (send-file a path)) "the name of one file"))
    (dolist (path (list "/dev/zero" #p"/dev/zero" "/etc/"))
      (is-no-file (lambda () (send-file a path)) "a regular file" (format nil "~S" path)))
    (with-open-file (stream "/dev/zero" :element-type '(unsigned-byte 8))
      (is-no-file (lambda () (send-file a stream)) "a regular file" "/dev/zero"))
    (dolist (stream (list (make-string-input-stream "abc") (make-broadcast-stream) b))
      (is-no-file (lambda () (send-file a stream)) "an open stream of a file"))
    (with-open-file (stream "/dev/null" :direction :output :if-exists :append)
      (is-no-file (lambda () (send-file a stream)) "an open input stream" "/dev/null"))
    (is-no-file (lambda () (send-file a (open "/etc/hosts" :direction :probe)))
                "an open input stream" "/etc/hosts")
    (let ((pipe (temporary-path)))
      (uiop:run-program (list "mkfifo" pipe))
      (unwind-protect
           (is-no-file (lambda () (send-file a pipe)) "a regular file" pipe) ; at once
        (delete-file pipe)))
    (signals file-error (send-file a "/x/[x].txt"))
    (is (null (wait-for-input b :timeout 0)))))

(define-test arguments.native-names ()
  "A string is the name that the system has, whatever Lisp takes its characters for."
  (let* ((name (format nil "~A-[x]*?.txt" (temporary-path)))
         (pathname (uiop:parse-native-namestring name)))
    (with-open-file (out pathname :direction :output)
      (write-string "abc" out))
    (unwind-protect
         (with-pair (a b)
           (is (= 3 (send-file a name)))
           (is (= 3 (send-file a pathname)))
           (close a)
           (is (equalp (octets-like "abcabc") (everything b))))
      (delete-file pathname))))

(define-test arguments.link-local ()
  "An address of link-local scope needs a zone to connect to it, or to bind to it; that of the own
end will do."
  (let ((host "fe80::1"))
    (flet ((check (own)
             (port::check-zone (parse-address host) host :connect
                               (address-block (parse-address own) 0))))
      (is (null (check "fe80::2%4000000001")))
      (is-failure (address-syntax :address-syntax) (check "::1"))))
  (dolist (call (list (lambda () (open-socket "fe80::1" 80))
                      (lambda () (open-socket (parse-address "febf::1") 80))
                      (lambda () (open-socket "::1" 80 :local-host "fe80::1"))
                      (lambda () (open-socket-server 0 :host "fe80::1"))
                      (lambda () (open-datagram-socket :host "fe80::1"))
                      (lambda () (open-datagram-socket :remote-host "fe80::1" :remote-port 9))))
    (is-no-address call "with the zone of an interface, such as fe80::1%eth0"))
  ;; a zone that is there, and another network
  (is (not (typep (failure-of (open-socket "fe80::1%lo" (unused-port))) 'address-syntax)))
  (is (not (typep (failure-of (open-socket "::1" (unused-port))) 'address-syntax))))

(define-test arguments.services ()
  "A service is found in whatever case, by a connect as by a look-up."
  (dolist (name '("HTTP" "Http" "WWW"))
    (is (= 80 (servent-port (socket-service-port name)) (port-designator name "tcp" :connect))))
  (is-failure (service-not-found :service-not-found) (port-designator "TFTP" "tcp" :connect)))
