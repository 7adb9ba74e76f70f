;;;; service-tls - services whose connections begin with TLS.

(in-package :port/test)

(define-suite service-tls "Services with TLS.")

(defun call-with-tls-client (number function)
  (with-open-stream (client (open-tls-socket "127.0.0.1" number :context (client-context)
                                                                :timeout 20 :input-timeout 20))
    (funcall function client)))

(defmacro with-tls-client ((client number) &body body)
  "Run BODY with CLIENT, a connection with TLS to port NUMBER."
  `(call-with-tls-client ,number (lambda (,client) ,@body)))

(define-test service-tls.many-clients (:limit 60)
  "Each is served in turn, again and again, with the handshake first and buffered input too."
  (dolist (await '(nil t))
    (with-service (server number #'echo-one-line :tls (server-context) :await-input await
                                                 :threads 4)
      (let ((threads (loop repeat 12
                           collect (in-thread
                                    (lambda ()
                                      (with-tls-client (client number)
                                        (loop for count below 5
                                              for line = (format nil "line ~D" count)
                                              always (equal line (ask client line)))))))))
        (is (every #'identity (mapcar #'join threads)))))))

(define-test service-tls.idle-connections-have-no-thread ()
  "Several lines that come as one record are served one by one all the same."
  (with-service (server number #'echo-one-line :tls (server-context) :threads 1)
    (with-tls-client (idle number)
      (is (equal "first" (ask idle "first")))
      (with-tls-client (client number)
        (format client "one~%two~%three~%")
        (finish-output client)
        (is (equal '("one" "two" "three") (loop repeat 3 collect (read-line client)))))
      (is (equal "second" (ask idle "second"))))))

(define-test service-tls.a-server-may-speak-first ()
  (with-service (server number (lambda (socket) (write-line "hello" socket))
                        :tls (server-context))
    (with-tls-client (client number)
      (is (equal "hello" (read-line client)))
      (is (null (read-line client nil))))))

(defun call-hearing-of-failures (function)
  "Call FUNCTION with the port of a service and a function that waits for the next condition that
ON-ERROR of it gets."
  (let ((told (sb-thread:make-semaphore)) (heard (list nil)))
    (with-service (server number #'echo-one-line
                          :tls (server-context)
                          :on-error (lambda (condition socket)
                                      (declare (ignore socket))
                                      (push condition (car heard))
                                      (sb-thread:signal-semaphore told)))
      (funcall function number (lambda ()
                                 (is-true (sb-thread:wait-on-semaphore told :timeout 20))
                                 (first (car heard))))
      (with-tls-client (client number)
        (is (equal "as before" (ask client "as before")))))))

(define-test service-tls.a-client-without-tls ()
  "It is told of, and is not served; the others are."
  (call-hearing-of-failures
   (lambda (number next-failure)
     (with-open-socket (client "127.0.0.1" number :input-timeout 20)
       ;; the first octets are enough for the server, which may be gone before the last
       (is (typep (failure-of (send-octets client "GET / HTTP/1.0" 13 10 13 10)
                              (loop while (read-byte client nil)))
                  '(or null connection-lost)))
       (close client :abort t)          ; or it would say again that they do not go
       (let ((condition (funcall next-failure)))
         (is (typep condition 'tls-error) "~A" condition)
         (is (eq :handshake (network-operation condition))))))))

(define-test service-tls.a-client-that-refuses-the-server ()
  (call-hearing-of-failures
   (lambda (number next-failure)
     (is-failure (certificate-error :certificate-refused "mismatch")
       (open-tls-socket "127.0.0.1" number :context (client-context) :server-name "bad.test"))
     ;; an octet at a time, the alert of a client may be overtaken by its end
     (is (typep (funcall next-failure) (if (weather-p)
                                           'network
                                           '(and tls-error (not certificate-error))))))))

(define-test service-tls.a-client-that-leaves-in-the-handshake ()
  (call-hearing-of-failures
   (lambda (number next-failure)
     (with-open-socket (client "127.0.0.1" number)
       (send-octets client 22 3 1))
     (is (typep (funcall next-failure) 'network)))))

(define-test service-tls.a-client-that-never-speaks ()
  "It takes no thread, and is closed after the TIMEOUT of the service."
  (with-service (server number #'echo-one-line :tls (server-context) :threads 1
                                               :timeout (if (weather-p) 2 0.2))
    (with-open-socket (silent "127.0.0.1" number :input-timeout 20)
      (with-tls-client (client number)
        (is (equal "served" (ask client "served"))))
      (is (typep (failure-of (is (null (read-byte silent nil)))) '(or null connection-lost))))))

(define-test service-tls.a-client-that-stops-in-the-handshake ()
  "The limit of a handshake ends it."
  (let ((limit port::*tls-limit*))
    (unwind-protect
         (progn
           (setf port::*tls-limit* 0.1)
           (call-hearing-of-failures
            (lambda (number next-failure)
              (with-open-socket (client "127.0.0.1" number :input-timeout 20)
                (send-octets client 22 3 1)
                (is (typep (funcall next-failure) 'timeout)))
              (setf port::*tls-limit* 20))))
      (setf port::*tls-limit* limit))))

(define-test service-tls.a-client-that-takes-its-time-for-the-handshake-has-no-thread ()
  "Octet by octet, while others are served; then it is served, too."
  (with-service (server number #'echo-one-line :tls (server-context) :threads 1)
    (with-pair (slow between :local)
      (with-open-socket (client "127.0.0.1" number :input-timeout 20)
        (is (null (handshake-step slow (client-options "good.test"))))
        (loop for octet = (and (listen between) (read-byte between))
              for count from 0
              while octet
              do (write-byte octet client)
                 (finish-output client)
                 (when (member count '(0 4 5 100))
                   (with-tls-client (other number)
                     (is (equal "meanwhile" (ask other "meanwhile"))))))
        (let ((relay (in-thread (lambda () (relay between client)))))
          (apply #'start-tls slow (client-options "good.test"))
          (is (equal "late" (ask slow "late")))
          (socket-shutdown slow :output)
          (is (null (read-line slow nil)))
          (close slow :abort t)
          (join relay))))))

(define-test service-tls.stopped ()
  "Who is being served is served to the end; who waits is told of an end, and not cut off."
  (with-holding-service (server number inside gate :tls (server-context))
    (with-tls-client (idle number)
      (is (equal "one" (ask idle "one")))
      (with-tls-client (busy number)
        (write-line "wait" busy)
        (finish-output busy)
        (sb-thread:wait-on-semaphore inside)
        (let ((stop (in-thread (lambda () (stop-server server :drain 20)))))
          (is (null (read-line idle nil)))
          (sb-thread:signal-semaphore gate)
          (is (equal "wait" (read-line busy)))
          (is (null (read-line busy nil)))
          (is (eq t (join stop))))))))

(define-test service-tls.wrong-arguments ()
  (is-mistyped (lambda () (serve #'echo-one-line 0 :tls t)) "a TLS-CONTEXT, or NIL")
  (is (typep (failure-of (serve #'echo-one-line 0 :tls (client-context))) 'usage-error))
  (let ((context (make-server-context)))
    (close context)
    (is-failure (usage-error :closed) (serve #'echo-one-line 0 :tls context))))

(define-test service-tls.started-by-the-function ()
  "As SMTP does: after a command, in plain text."
  (with-service (server number (lambda (socket)
                                 (let ((line (read-line socket nil)))
                                   (cond ((equal line "STARTTLS")
                                          (write-line "go ahead" socket)
                                          (start-tls socket :side :server
                                                            :context (server-context))
                                          :again)
                                         (line (write-line line socket)
                                               :again)))))
    (with-open-socket (client "127.0.0.1" number :input-timeout 20)
      (is (equal "plain" (ask client "plain")))
      (is (equal "go ahead" (ask client "STARTTLS")))
      (start-tls client :context (client-context) :host "good.test")
      (is (equal "secret" (ask client "secret"))))))

(define-test service-tls.half-a-request-keeps-no-thread ()
  (multiple-value-bind (function calls) (counting-calls #'echo-whole-line)
    (with-service (server number function :tls (server-context) :threads 1 :input-timeout 0)
      (is-served-beside-halves server calls
                               (lambda ()
                                 (open-tls-socket "127.0.0.1" number :context (client-context)
                                                                     :timeout 20
                                                                     :input-timeout 20))))))

(defun echo-and-change-over (socket changing)
  "Echo one line of SOCKET, whose :INPUT-TIMEOUT is 0; after the line `tls' all is TLS. CHANGING, a
table of sockets, has those whose handshake is under way."
  (flet ((change-over ()
           (handler-case (progn (start-tls socket :side :server :context (server-context))
                                (remhash socket changing)
                                :again)
             (timeout () :more))))
    (cond ((gethash socket changing) (change-over))
          (t (let ((line (handler-case (read-line socket nil :end)
                           (timeout () nil))))
               (cond ((null line) :more)
                     ((stringp line)
                      (write-line line socket)
                      (cond ((equal line "tls")
                             (setf (gethash socket changing) t)
                             (change-over))
                            (t :again)))))))))

(define-test service-tls.a-handshake-in-the-middle-keeps-no-thread ()
  "The function begins it, returns :MORE while it waits for the client, and goes on with it then."
  (let ((changing (make-hash-table :synchronized t)))
    (multiple-value-bind (function calls)
        (counting-calls (lambda (socket) (echo-and-change-over socket changing)))
      (with-service (server number function :threads 1 :input-timeout 0)
        (call-with-clients
         5 (lambda () (open-socket "127.0.0.1" number :input-timeout 20))
         (lambda (clients)
           (dolist (client clients)
             (is (equal "tls" (ask client "tls"))))
           (is-true (wait-until (lambda () (= 5 (parked-count server)))))
           (dolist (client clients)
             (start-tls client :context (client-context) :host "127.0.0.1" :timeout 20)
             (is (equal "under TLS" (ask client "under TLS"))))
           (is (zerop (hash-table-count changing)))
           (is (<= (funcall calls) 2000))))))))

(define-test service-tls.given-as-it-is (:limit 60)
  "A connection that a service is given has the TLS that it has already, or none, and begins with no
header, whatever those begin with that it accepts."
  (loop for options in `((:tls ,(server-context))
                         (:tls ,(server-context) :await-input t)
                         (:proxy-protocol t)
                         (:proxy-protocol t :await-input t))
        do (let ((server (apply #'serve #'echo-one-line 0 :host "127.0.0.1" options)))
             (do-pairs (other own)
               (serve-connection server own)
               (is (equal "first" (ask other "first")))
               (is (equal "second" (ask other "second"))))
             (is-true (stop-server server))
             (is (null (what-is-left-in server)) "~S" (what-is-left-in server)))))
