;;;; dns - the example of a DNS client against dnsmasq, and against servers that lie.

(in-package :port/test)

(define-suite dns "The DNS client of the examples.")

(defparameter *many-addresses* (loop for number from 1 to 60
                                     collect (format nil "192.0.2.~D" number)))

(defun free-port ()
  "A port of 127.0.0.1 that is free over UDP and TCP."
  (with-datagram-socket (socket :host "127.0.0.1")
    (handler-case (with-socket-server (server (own-port socket) :host "127.0.0.1")
                    (port-of server))
      (address-in-use () (free-port)))))

(defun write-hosts (path)
  (with-open-file (stream path :direction :output)
    (format stream "192.0.2.1 one.test~%2001:db8::1 one.test~%")
    (format stream "~{~A many.test~%~}" *many-addresses*)))

(defun dnsmasq-path ()
  (find-if #'probe-file '("/usr/sbin/dnsmasq" "/sbin/dnsmasq" "/usr/local/sbin/dnsmasq")))

(defun start-dnsmasq (number hosts)
  "The process of a name server at port NUMBER; NIL if it ended because the port was taken."
  (let ((process (sb-ext:run-program
                  (dnsmasq-path)
                  (list "--keep-in-foreground" "--log-facility=-" "--conf-file=/dev/null"
                        "--no-resolv" "--no-hosts" "--pid-file=" "--user=root" "--no-daemon"
                        "--bind-interfaces" "--listen-address=127.0.0.1"
                        (format nil "--port=~D" number)
                        (format nil "--addn-hosts=~A" hosts)
                        "--txt-record=text.test,one,two"
                        (format nil "--txt-record=long.test~{,~A~}"
                                (loop repeat 6 collect (make-string 200 :initial-element #\x))))
                  :wait nil :output nil :error :stream)))
    (if (loop for line = (read-line (sb-ext:process-error process) nil)
              while line
              thereis (search " names" line)) ; the last line before it serves
        process
        (progn (stop-process process) nil))))

(defun stop-process (process)
  (when (sb-ext:process-alive-p process)
    (sb-ext:process-kill process sb-unix:sigterm))
  (sb-ext:process-wait process)
  (sb-ext:process-close process))

(defmacro with-dnsmasq ((number) &body body)
  "Run BODY with a name server at port NUMBER of 127.0.0.1."
  `(call-with-dnsmasq (lambda (,number) ,@body)))

(defun call-with-dnsmasq (function)
  (let ((hosts (temporary-path)))
    (write-hosts hosts)
    (unwind-protect
         (loop repeat 5
               for number = (free-port)
               for process = (start-dnsmasq number hosts)
               when process
                 return (unwind-protect (funcall function number)
                          (stop-process process))
               finally (is (null t) "dnsmasq does not start"))
      (delete-file hosts))))

(define-test dns.real-server ()
  (with-dnsmasq (number)
    (flet ((lookup (name &optional (type :a))
             (port-example/dns:lookup name :type type :port number)))
      (is (equal '("192.0.2.1") (lookup "one.test")))
      (is (equal '("192.0.2.1") (lookup "ONE.test.")))
      (is (equal '("2001:db8::1") (lookup "one.test" :aaaa)))
      (is (equal '("onetwo") (lookup "text.test" :txt)))
      ;; more than fits into a datagram of 512 octets: followed over TCP
      (is (equal (sort (copy-list *many-addresses*) #'string<)
                 (sort (lookup "many.test") #'string<)))
      (is (= 1200 (length (first (lookup "long.test" :txt)))))
      (is (string= (format nil "2001:db8::1~%192.0.2.1~%")
                   (with-output-to-string (*standard-output*)
                     (port-example/dns:print-addresses "one.test" :port number))))
      (signals port-example/dns:dns-error (lookup "nobody.test"))
      (signals port-example/dns:dns-error (lookup "a..b")))))

(define-test dns.nobody-there (:behaviour 63)
  "Nobody answers: each attempt is refused at once, and the client says so."
  (multiple-value-bind (seconds condition)
      (let ((number (free-port)))
        (seconds-of (lambda ()
                      (handler-case (port-example/dns:lookup "one.test" :port number)
                        (port-example/dns:dns-error (condition) condition)))))
    (is (search "does not answer" (princ-to-string condition)))
    (is (< seconds 5))))

(defun answer-with (query &rest octets)
  "An answer to QUERY, a message, with one record for which OCTETS stand."
  (let ((answer (concatenate '(vector (unsigned-byte 8)) query octets)))
    (setf (aref answer 2) #x81
          (aref answer 7) 1)
    (coerce answer '(simple-array (unsigned-byte 8) (*)))))

(define-test dns.lies-are-passed-over (:behaviour 63)
  "A wrong number, another question, no answer at all; then the right one, and what is nonsense."
  (with-datagram-socket (server :host "127.0.0.1")
    (let ((record '(192 12 0 1 0 1 0 0 0 9 0 4)))
      (flet ((ask (&rest octets)
               (let ((client (in-thread (lambda ()
                                          (port-example/dns:lookup "a.test"
                                                                   :port (own-port server)))))
                     (room (make-array 512 :element-type '(unsigned-byte 8))))
                 (multiple-value-bind (count host number) (socket-receive server room)
                   (let* ((query (subseq room 0 count))
                          (right (apply #'answer-with query octets))
                          (other-id (copy-seq right)) (other-name (copy-seq right)))
                     (setf (aref other-id 0) (logxor 1 (aref other-id 0))
                           (aref other-name 13) (char-code #\b))
                     (dolist (message (list other-id other-name query (subseq right 0 5) right))
                       (socket-send server message :host host :port number))))
                 (join client))))
        (is (equal '("9.8.7.6") (apply #'ask (append record '(9 8 7 6)))))
        (signals port-example/dns:dns-error (apply #'ask record))
        (signals port-example/dns:dns-error (apply #'ask (subseq record 0 7)))))))
