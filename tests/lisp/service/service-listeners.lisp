;;;; service-listeners - where a service listens: names with several addresses, and one port for
;;;; all of them.

(in-package :port/test)

(define-suite service-listeners "Where services listen.")

(defun call-encapsulated (name wrapper function)
  "Call FUNCTION while WRAPPER, a function of the function NAME and its arguments, stands for that."
  (unwind-protect (progn (sb-int:encapsulate name 'test wrapper)
                         (funcall function))
    (sb-int:unencapsulate name 'test)))

(defmacro with-addresses ((&rest texts) &body body)
  "Run BODY while every name has the addresses TEXTS, in this order."
  `(call-encapsulated 'port::resolve-name
                      (lambda (resolve &rest arguments)
                        (declare (ignore resolve arguments))
                        (mapcar #'parse-address (list ,@texts)))
                      (lambda () ,@body)))

(defun where (server)
  "What SERVER listens on: the hosts, and the ports, each once."
  (let ((listeners (server-listeners server)))
    (values (mapcar #'socket-server-host/port listeners)
            (remove-duplicates (mapcar #'port-of listeners)))))

(defun hosts-served (port &rest options)
  "The hosts that SERVE listens on for PORT and OPTIONS."
  (let ((server (apply #'serve #'echo-lines port options)))
    (prog1 (where server)
      (is-true (stop-server server)))))

(define-test service.listens-on-each-address-of-a-name (:behaviour 55)
  "Whichever of them a client tries first."
  (with-names ()
    (let ((expected (available (texts (resolve "many.test")))))
      (is (< 1 (length expected)))
      (let ((server (serve #'echo-one-line 0 :host "many.test")))
        (multiple-value-bind (hosts ports) (where server)
          (is (equal expected hosts))
          (is (= 1 (length ports)))
          (dolist (host (list* "many.test" hosts))
            (with-open-socket (client host (first ports) :input-timeout 10)
              (is (equal "x" (ask client "x"))))))
        (is-true (stop-server server)))
      (is (equal (remove "::1" expected :test #'string=)
                 (hosts-served 0 :host "many.test" :family :inet))))))

(define-test service.listens-on-an-address-once ()
  (with-addresses ("127.0.0.2" "::ffff:127.0.0.2" "127.0.0.3")
    (is (equal '("127.0.0.1" "127.0.0.2" "127.0.0.3")
               (hosts-served 0 :host '("127.0.0.1" "two.test" "127.0.0.3" "127.0.0.1")))))
  (is (equal (hosts-served 0) (hosts-served 0 :host '("::" nil "0:0::0")))))

(define-test service.leaves-out-addresses-that-are-not-there ()
  "Those of a name that this machine has not, or whose family it has not, as long as one is left."
  (with-addresses ("192.0.2.77" "127.0.0.1" "192.0.2.78")
    (is (equal '("127.0.0.1") (hosts-served 0 :host "some.test"))))
  (call-encapsulated
   'port::listen-at
   (lambda (listen block &rest options)
     (if (eq :inet6 (address-family (block-address block)))
         (status "not-supported")
         (apply listen block options)))
   (lambda ()
     (dolist (host '("::1" "six.test"))
       (with-addresses ("::1")
         (is-failure (not-supported :not-supported) (serve #'echo-lines 0 :host host))))
     (with-addresses ("::1" "127.0.0.1")
       (is (equal '("127.0.0.1") (hosts-served 0 :host "usual.test"))))
     (with-addresses ("127.0.0.1" "::1")
       (is (equal '("127.0.0.1") (hosts-served 0 :host "usual.test"))))))
  (with-addresses ("192.0.2.77" "192.0.2.78")
    (is-failure (address-not-available :address-not-available
                                       "listen on gone.test port 0 failed: 192.0.2.78 ")
      (serve #'echo-lines 0 :host '("127.0.0.1" "gone.test")))
    (handler-bind ((address-not-available (lambda (condition) (use-value "127.0.0.1" condition))))
      (is (equal '("127.0.0.2" "127.0.0.1")
                 (hosts-served 0 :host '("127.0.0.2" "gone.test")))))))

(define-test service.a-port-that-is-taken-on-one-address ()
  "Nothing is left open on the others; another port is one for all of them."
  (with-addresses ("127.0.0.2" "127.0.0.1")
    (with-socket-server (taken 0 :host "127.0.0.1")
      (let ((number (port-of taken)))
        (is-failure (address-in-use :address-in-use
                                    (format nil "listen on two.test port ~D failed: 127.0.0.1 "
                                            number))
          (serve #'echo-lines number :host "two.test"))
        (close (open-socket-server number :host "127.0.0.2"))
        (handler-bind ((address-in-use (lambda (condition) (use-value 0 condition))))
          (let ((server (serve #'echo-lines number :host "two.test")))
            (multiple-value-bind (hosts ports) (where server)
              (is (equal '("127.0.0.2" "127.0.0.1") hosts))
              (is (= 1 (length ports)))
              (is (/= number (first ports))))
            (is-true (stop-server server))))))))

(define-test service.any-port-is-one-for-all-hosts (:behaviour 54)
  "And another for each time that one is asked for."
  (let* ((hosts (available '("127.0.0.1" "127.0.0.2" "::1")))
         (server (serve #'echo-lines '(0 nil) :host hosts)))
    (multiple-value-bind (all ports) (where server)
      (is (equal (append hosts hosts) all))
      (is (= 2 (length ports))))
    (is-true (stop-server server))))

(defun call-taking-ports (count function)
  "Call FUNCTION while, COUNT times, the port that the system has picked for one address is taken on
the next before the service has it."
  (let ((takers '()))
    (unwind-protect
         (call-encapsulated
          'port::listen-at
          (lambda (listen block &rest options)
            (when (and (plusp (block-port block)) (< (length takers) count))
              (push (apply listen block options) takers)) ; a status: it is another process's
            (apply listen block options))
          function)
      (mapc #'close (remove-if #'integerp takers)))
    (length takers)))

(define-test service.begins-anew-where-any-port-is-taken ()
  (let ((hosts '("127.0.0.1" "127.0.0.2")))
    (is (= 3 (call-taking-ports 3 (lambda ()
                                    (let ((server (serve #'echo-lines 0 :host hosts)))
                                      (multiple-value-bind (all ports) (where server)
                                        (is (equal hosts all))
                                        (is (= 1 (length ports))))
                                      (is-true (stop-server server)))))))
    (is (= port::+most-picks+
           (call-taking-ports 1000 (lambda ()
                                     (is-failure (address-in-use :address-in-use
                                                                 "listen on 127.0.0.2 port 0")
                                       (serve #'echo-lines 0 :host hosts))))))))

(define-test service.leaves-paths-that-it-is-to-leave ()
  "One that is not to be removed is there after the end, and in the way of the next, unless that
may remove it."
  (let ((path (temporary-path)))
    (flet ((stop-with (&rest options)
             (is-true (stop-server (apply #'serve #'echo-lines path options)))))
      (stop-with :unlink nil)
      (is-true (probe-file path))
      (is-failure (address-in-use :address-in-use) (serve #'echo-lines path :unlink nil))
      (stop-with)
      (is-false (probe-file path)))))

(define-test service.listens-with-servers-of-streams-alone ()
  "Whatever else it is given, such as what ACTIVATED-SERVERS may return, is told before anything is
opened."
  (let ((path (temporary-path)) (connected (multiple-value-list (open-socket-pair))))
    (close (open-unix-server path :unlink nil))
    (dolist (socket (list* (open-datagram-socket :host "127.0.0.1")
                           (open-unix-server (format nil "@port-packets-~D" (process-id))
                                             :kind :seqpacket)
                           connected))
      (is (eq socket (network-socket
                      (is-failure (not-supported :not-supported
                                                 (format nil "of streams, got ~A" socket))
                        (serve #'echo-lines (list path socket))))))
      (is-true (port::endpoint-open-p socket))
      (close socket))
    (is-true (probe-file path))
    (delete-file path)))
