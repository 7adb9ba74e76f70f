;;;; hunchentoot - a web server and a client that know only usocket, on port.

(in-package :port/test)

(define-suite hunchentoot "The real hunchentoot and drakma.")

(defun page-of (request)
  "What the server answers: the length of what was posted, or as many letters as the address says."
  (let ((count (parse-integer (subseq (hunchentoot:script-name request) 1))))
    (if (eq :post (hunchentoot:request-method request))
        (princ-to-string (length (hunchentoot:raw-post-data :request request :force-binary t)))
        (make-string count :initial-element #\p))))

(defclass page-server (hunchentoot:acceptor) ()
  (:default-initargs :port 0 :address "127.0.0.1" :access-log-destination nil
                     :message-log-destination nil))

(defmethod hunchentoot:acceptor-dispatch-request ((server page-server) request)
  (page-of request))

(defun call-with-hunchentoot (options function)
  "Call FUNCTION with the port of a running server."
  (let ((server (hunchentoot:start (apply #'make-instance 'page-server options))))
    (unwind-protect (funcall function (hunchentoot:acceptor-port server))
      (hunchentoot:stop server))))

(defmacro with-hunchentoot ((port &rest options) &body body)
  `(call-with-hunchentoot (list ,@options) (lambda (,port) ,@body)))

(defun page-address (port count &optional (host "127.0.0.1"))
  (format nil "http://~A:~D/~D" host port count))

(defun fetch-page (port count &rest options)
  "Values of a request for COUNT letters, by drakma."
  (apply #'drakma:http-request (page-address port count) options))

(define-test hunchentoot.small-and-large-pages (:limit 60)
  (with-hunchentoot (port)
    (dolist (count (list 0 1 100 (amount 3000000)))
      (is (= count (length (fetch-page port count)))))
    (let ((count (amount 1000000)))
      (is (string= (princ-to-string count)
                   (fetch-page port 0 :method :post :content (blank count)))))))

(define-test hunchentoot.a-server-without-an-address-has-clients-over-ipv6 (:limit 60)
  (with-inet6 ()
    (with-hunchentoot (port :address nil)
      (dolist (host '("127.0.0.1" "[::1]"))
        (is (= 5 (length (drakma:http-request (page-address port 5 host)))))))))

(define-test hunchentoot.a-connection-is-kept (:limit 60)
  (with-hunchentoot (port)
    (let ((stream nil))
      (dotimes (count 5)
        (multiple-value-bind (page status headers uri kept) (fetch-page port count :close nil
                                                                                   :stream stream)
          (declare (ignore headers uri))
          (is (= 200 status))
          (is (= count (length page)))
          (setf stream kept)))
      (is-true stream)
      (close stream))))

(define-test hunchentoot.curl-gets-every-octet (:limit 60)
  "Over connections that the server closes at once after it has sent."
  (with-hunchentoot (port)
    (let ((count (amount 3000000)))
      (dotimes (i 5)
        (is (= count (length (uiop:run-program
                              (list "curl" "-s" "-S" "-0" "--max-time" "20"
                                    (page-address port count))
                              :output :string))))))))

(define-test hunchentoot.an-idle-connection-is-closed (:limit 60)
  "Its limits of time hold, and need not be the same."
  (with-hunchentoot (port :read-timeout 0.1 :write-timeout 5)
    (with-open-socket (client "127.0.0.1" port)
      (is (null (read-line client nil))))))

(define-test hunchentoot.nobody-there-is-refused (:limit 60)
  (let ((condition (nth-value 1 (ignore-errors (fetch-page (unused-port) 0)))))
    (is (typep condition 'usocket:connection-refused-error))
    (is-report condition "connect to 127.0.0.1 port" "connection refused")))
