;;;; service-close - the hook of a service that is told of each connection that has been closed.

(in-package :port/test)

(define-suite service-close "Services that tell of what is closed.")

(defun obey (socket)
  "Do what a line of SOCKET says: a function of a service that ends a connection in every way."
  (let ((line (read-line socket nil)))
    (cond ((or (null line) (equal line "return")) nil)
          ((equal line "fail") (error "as was asked"))
          ((equal line "abort") (sb-thread:abort-thread))
          ((equal line "close") (close socket) :again)
          (t (write-line line socket) :again))))

(defun call-hearing-of-closes (function arguments)
  "Call FUNCTION with a server that OBEYs, its port, and a function that returns the sockets that
the hook has been told of; each has to be closed, and told of by another thread than this one."
  (let ((heard (list nil)) (self sb-thread:*current-thread*))
    (flet ((hear (socket)
             (sb-ext:atomic-push (and (not (open-stream-p socket))
                                      (not (eq self sb-thread:*current-thread*))
                                      socket)
                                 (car heard))))
      (call-with-service (lambda (server number)
                           (funcall function server number (lambda () (car heard))))
                         #'obey
                         (list* :on-close #'hear :on-error (constantly nil) arguments)))))

(defmacro hearing-of-closes ((server number heard &rest arguments) &body body)
  "Run BODY with SERVER, a service made with ARGUMENTS, NUMBER, its port, and HEARD, a function."
  `(call-hearing-of-closes (lambda (,server ,number ,heard)
                             (declare (ignorable ,server))
                             (flet ((,heard () (funcall ,heard)))
                               ,@body))
                           (list ,@arguments)))

(defun parked-client (server number)
  "Values: a connection to SERVER, its only one, that waits for input; the socket of the service."
  (let ((own (open-socket "127.0.0.1" number :input-timeout 10)))
    (is (equal "x" (ask own "x")))
    (is-true (wait-until (lambda () (eq :parked (port::client-state (only-client server))))))
    (values own (port::client-socket (only-client server)))))

(define-test service.unwound-before-its-close (:behaviour 26)
  "A connection whose end is unwound just before that begins is aborted, and forgotten."
  (with-service (server number #'echo-one-line :on-close #'identity)
    (multiple-value-bind (own socket) (parked-client server number)
      (with-open-stream (own own)
        (let ((client (only-client server)) (left 1))
          (is-true (port::change-state client :parked :running))
          (unwind-protect
               (progn (sb-int:encapsulate 'port::local-block 'test
                                          (lambda (function &rest arguments)
                                            (if (minusp (decf left))
                                                (apply function arguments)
                                                (throw 'out nil))))
                      (catch 'out (port::end-client (service-of server) client nil)))
            (sb-int:unencapsulate 'port::local-block 'test))
          (is-false (open-stream-p socket))
          (is (typep (failure-of (read-line own)) 'connection-reset))
          (is (zerop (client-count server))))))))

(define-test service.tells-of-each-close (:limit 60)
  "Once for each connection, after it has been closed, whoever closed it and wherever it was."
  (dolist (threads '(1 4))
    (loop for (name which end . arguments)
            in '(("it has returned" first say "return")
                 ("it has failed" first say "fail")
                 ("its thread has ended" first say "abort")
                 ("it has closed" first say "close")
                 ("the client has ended" first close)
                 ("the client has reset" first close :abort t)
                 ("another has closed" second close)
                 ("another has reset" second close :abort t))
          do (hearing-of-closes (server number heard :threads threads)
               (multiple-value-bind (own socket) (parked-client server number)
                 (destructuring-bind (host port own-host own-port) (ends own)
                   (is (null (heard)))
                   (apply end (funcall which (list own socket)) arguments)
                   (is-true (wait-until #'heard) name)
                   (is (equal (list socket) (heard)) name)
                   (is (equal (list own-host own-port host port) (ends socket)) name)
                   (is (zerop (client-count server)) name)
                   (is (equal "y" (ask-once number "y")) name)
                   (is-true (wait-until (lambda () (= 2 (length (heard))))) name)
                   (is (not (member nil (heard))) name)
                   (close own :abort t)))))))

(define-test service.tells-of-the-silent (:limit 60)
  "One that a timeout ends is told of too, whether it ends a wait or a call of the function."
  (dolist (await '(nil t))
    (hearing-of-closes (server number heard :timeout 0.1 :await-input await)
      (with-open-socket (silent "127.0.0.1" number :input-timeout 10)
        (if await
            (is (null (read-line silent nil)))
            (is (typep (failure-of (read-line silent)) 'connection-reset)))
        (is-true (wait-until #'heard))
        (is (not (member nil (heard))))))))

(define-test service.tells-of-bad-headers ()
  "A connection whose header is bad, and which the function is never called with, is one as others."
  (hearing-of-closes (server number heard :proxy-protocol 10)
    (with-open-socket (bad "127.0.0.1" number :input-timeout 10)
      ;; The first octets tell that it is none, so the reset can meet the write of the others.
      (is (typep (failure-of (say bad "no header") (read-line bad)) 'connection-reset))
      (is-true (wait-until #'heard))
      (close bad :abort t))))           ; the rest of the line has nowhere to go

(define-test service.tells-before-it-has-stopped (:limit 60)
  "Once STOP-SERVER returns the hook has been told of all: those that the function was never called
with, those that waited, and those at work."
  (loop for (threads drain at-work) in '((1 0 0) (1 0.3 0) (4 0 2) (4 0.3 2))
        do (let ((heard nil) (clients '()))
             (hearing-of-closes (server number now :threads threads :await-input t)
               (setf heard #'now
                     clients (loop repeat 50
                                   collect (open-socket "127.0.0.1" number :input-timeout 10)))
               (loop for client in (rest clients)
                     for index from 1
                     do (is (equal "x" (ask client "x")))
                        (when (<= index at-work)
                          (write-string "half a line" client)
                          (finish-output client)))
               (is-true (wait-until (lambda () (= 50 (client-count server)))))
               (is-true (stop-server server :drain drain)))
             (is (= 50 (length (remove-duplicates (funcall heard)))))
             (is (not (member nil (funcall heard))))
             (dolist (client clients)
               (close client :abort t)))))

(define-test service.tells-of-a-close-while-it-stops (:limit 120)
  "One that another thread closes while the service stops is told of once."
  (dotimes (round 100)
    (let ((heard nil) (client nil) (closer nil))
      (hearing-of-closes (server number now)
        (multiple-value-bind (own socket) (parked-client server number)
          (setf client own
                heard #'now
                closer (in-thread (lambda ()
                                    (dotimes (i (* 100 round)) (now))
                                    (close socket))))
          (is-true (stop-server server))))
      (join closer)
      (is-true (wait-until heard))
      (is (= 1 (length (funcall heard))))
      (close client :abort t))))

(define-test service.tells-of-a-close-when-it-has-stopped ()
  "A thread that has begun to close a connection may come to tell of it once all others have ended."
  (let ((told (sb-thread:make-semaphore)))
    (with-service (server number #'obey :on-close (lambda (socket)
                                                    (declare (ignore socket))
                                                    (sb-thread:signal-semaphore told)))
      (with-open-stream (own (parked-client server number))
        (let ((client (only-client server)) (service (service-of server)))
          (is-true (port::change-state client :parked :closed)) ; as CLIENT-GONE does
          (is-true (stop-server server :drain 0))
          (port::forget-client service client)
          (is-true (sb-thread:wait-on-semaphore told :timeout 10)))))))

(define-test service.close-hook-that-fails ()
  "What it signals goes to the hook of errors, and the service goes on; it may stop the service."
  (let ((conditions (list nil)) (server nil) (stopped nil))
    (setf server (serve #'obey 0 :host "127.0.0.1" :threads 2
                                 :on-close (lambda (socket)
                                             (declare (ignore socket))
                                             (error "as was asked"))
                                 :on-error (lambda (condition socket)
                                             (sb-ext:atomic-push (list (princ-to-string condition)
                                                                       (open-stream-p socket))
                                                                 (car conditions)))))
    (dotimes (i 3)
      (is (equal "x" (ask-once (port-of (first (server-listeners server))) "x"))))
    (is-true (wait-until (lambda () (= 3 (length (car conditions))))))
    (is (equal '("as was asked" nil) (first (car conditions))))
    (is-true (stop-server server))
    (setf server (serve #'obey 0 :host "127.0.0.1" :threads 2
                                 :on-close (lambda (socket)
                                             (declare (ignore socket))
                                             (setf stopped (list (stop-server server))))))
    (is (equal "x" (ask-once (port-of (first (server-listeners server))) "x")))
    (is-true (wait-until (lambda () stopped)))
    (is (equal '(t) stopped))
    (is-true (stop-server server))))

(define-test service.slow-close-hook ()
  "A hook that takes its time has one thread; the others go on."
  (let ((gate (sb-thread:make-semaphore)) (inside (sb-thread:make-semaphore)))
    (with-service (server number #'obey :threads 2 :timeout 60
                                        :on-close (lambda (socket)
                                                    (declare (ignore socket))
                                                    (sb-thread:signal-semaphore inside)
                                                    (sb-thread:wait-on-semaphore gate)))
      (is (equal "x" (ask-once number "x")))
      (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
      (with-open-socket (other "127.0.0.1" number :input-timeout 10)
        (dotimes (i 10)
          (is (equal "y" (ask other "y")))))
      (sb-thread:signal-semaphore gate 10))))

;;; The connections that are open

(defun is-connected (server busy &rest clients)
  "Check that the connections of SERVER are those of CLIENTS, BUSY of which are with a thread; they
are the value, in the same order."
  (flet ((from-there (ends)
           (append (cddr ends) (subseq ends 0 2))))
    (multiple-value-bind (sockets count) (server-connections server)
      (let ((found (loop for client in clients
                         collect (find (from-there (ends client)) sockets
                                       :key #'ends :test #'equal))))
        (is (not (member nil found)))
        (is (= (length clients) (length sockets)))
        (is (= busy count))
        found))))

(define-test service.connections-are-those-that-are-open (:weather nil) ; in which one is not queued
  "Those at work, in the queue, and parked; whoever closes one from outside is told of by the hook
of closes, and by nobody else."
  (let ((inside (sb-thread:make-semaphore)) (gate (sb-thread:make-semaphore)) (heard (list nil))
        (text (make-string-output-stream)))
    (flet ((hear (socket)
             (sb-ext:atomic-push socket (car heard))))
      (call-with-errors-in
       text
       (lambda ()
         (with-service (server number (held-echo inside gate) :threads 1 :on-close #'hear)
           (is-connected server 0)
           (with-open-stream (parked (parked-client server number))
             (is-connected server 0 parked)
             (leave-queued server)
             (with-open-socket (busy "127.0.0.1" number :input-timeout 10)
               (with-open-socket (queued "127.0.0.1" number :input-timeout 10)
                 (say busy "wait")
                 (port::resume-listeners (service-of server))
                 (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
                 (let* ((clients (list parked busy queued))
                        (sockets (apply #'is-connected server 1 clients)))
                   (loop for (socket . others) on sockets
                         for (client . more) on clients
                         do (close socket)
                            (is (null (read-line client nil)))
                            (is (equal others
                                       (apply #'is-connected server (if (rest more) 1 0) more))))
                   (sb-thread:signal-semaphore gate)
                   (is-true (wait-until (lambda () (= 3 (length (car heard))))))
                   (is (null (set-difference sockets (car heard))))))))
           (is (equal "again" (ask-once number "again")))))))
    (is (equal "" (get-output-stream-string text)))))
