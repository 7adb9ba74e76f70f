;;;; service-given - connections that a service is given: those that the program has opened itself,
;;;; or got from others.

(in-package :port/test)

(define-suite service-given "Connections that services are given.")

(defun call-with-callers (count function)
  "Call FUNCTION with COUNT sockets that nobody serves yet, and their other ends; close those."
  (let ((pairs (loop repeat count
                     collect (multiple-value-list (open-socket-pair :input-timeout 10)))))
    (unwind-protect (funcall function (mapcar #'first pairs) (mapcar #'second pairs))
      (dolist (pair pairs)
        (close (second pair) :abort t)))))

(defmacro with-callers ((count own others) &body body)
  "Run BODY with OWN, COUNT sockets for a service, and OTHERS, what they are connected with."
  `(call-with-callers ,count (lambda (,own ,others) ,@body)))

(defmacro with-caller ((own other) &body body)
  "Run BODY with OWN, a socket for a service, and OTHER, what it is connected with."
  `(with-callers (1 owns others)
     (let ((,own (first owns)) (,other (first others)))
       ,@body)))

(define-test service.serves-what-it-is-given ()
  "Whatever connection it is, wherever it comes from, as one that it has accepted."
  (dolist (await '(nil t))
    (dolist (handler (list #'echo-lines #'echo-one-line))
      (with-service (server number handler :await-input await)
        (with-socket-server (home 0 :host "127.0.0.1")
          (let* ((dialled (open-socket "127.0.0.1" (port-of home)))
                 (other (socket-accept home :input-timeout 10)))
            (is (eq dialled (serve-connection server dialled)))
            (with-open-stream (other other)
              (is (equal "one" (ask other "one")))
              (is (equal "two" (ask other "two")))
              (is (equal (list dialled) (server-connections server))))
            (is-true (wait-until (lambda () (not (open-stream-p dialled)))))))
        (with-caller (own other)
          (serve-connection server (adopt-descriptor (detach-descriptor own)))
          (is (equal "one" (ask other "one"))))))))

(define-test service.listens-nowhere ()
  "Where it is given its connections."
  (with-open-stream (server (serve #'echo-one-line :none))
    (is (null (server-listeners server)))
    (is (search "service, 0 connections" (princ-to-string server)))
    (with-caller (own other)
      (serve-connection server own)
      (is (equal "one" (ask other "one"))))))

(define-test service.given-what-was-read-ahead ()
  "What is in the buffers of the socket is not lost, and is input that there is."
  (with-open-stream (server (serve #'echo-one-line :none :await-input t))
    (with-caller (own other)
      (format other "first~%second~%third~%")
      (finish-output other)
      (is (equal "first" (read-line own)))
      (write-line "welcome" own)
      (serve-connection server own)
      (is (equal '("welcome" "second" "third")
                 (loop repeat 3 collect (read-line other)))))))

(define-test service.given-before-its-input ()
  "With AWAIT-INPUT the function is not called before there is some, nor where there is an end, but
once."
  (let ((calls 0))
    (with-open-stream (server (serve (lambda (socket) (incf calls) (echo-one-line socket)) :none
                                     :await-input t))
      (with-caller (own other)
        (serve-connection server own)
        (is-true (wait-until (lambda () (= 1 (parked-count server)))))
        (is (zerop calls))
        (is (equal "x" (ask other "x")))
        (is (= 1 calls))))))

(define-test service.given-from-many-threads (:limit 60)
  "At the same time, while others are accepted: each is served, and none is left."
  (with-service (server number #'echo-one-line :threads 4)
    (flet ((give-and-ask (give)
             (loop for i below 50
                   collect (if (and give (evenp i))
                               (with-caller (own other)
                                 (serve-connection server own)
                                 (ask other "x"))
                               (ask-once number "x")))))
      (dolist (thread (loop for give in '(t t t nil)
                            collect (let ((give give))
                                      (in-thread (lambda () (give-and-ask give))))))
        (is (equal (make-list 50 :initial-element "x") (join thread)))))
    (is-true (wait-until (lambda () (zerop (client-count server)))))))

(define-test service.given-by-its-own-function ()
  "Also where it has one thread alone, which gives it."
  (let ((server nil) (left '()))
    (with-callers (1 owns others)
      (setf left owns)
      (with-service (it number (lambda (socket)
                                 (when left
                                   (serve-connection server (pop left)))
                                 (echo-one-line socket))
                        :threads 1 :await-input t)
        (setf server it)
        (is (equal "x" (ask-once number "x")))
        (is (equal "y" (ask (first others) "y")))))))

(define-test service.given-no-more-than-it-may-have ()
  "At the limit it takes none, and what was to be given is as it was; there is room again when one
ends."
  (with-callers (3 owns others)
    (with-open-stream (server (serve #'echo-one-line :none :max-connections 2 :name "agent"))
      (mapc (lambda (own) (serve-connection server own)) (butlast owns))
      (let* ((last (third owns))
             (failure (is-failure (resource-exhausted :connections-exhausted
                                                      "the service agent has 2 connections")
                        (serve-connection server last))))
        (is (eq last (network-socket failure)))
        (is (null (socket-timeout last :output)))
        (close (first others))
        (is-true (wait-until (lambda () (= 1 (client-count server)))))
        (serve-connection server last)
        (is (equal "x" (ask (third others) "x")))))))

(define-test service.given-while-it-accepts-at-its-limit (:limit 60)
  "There are never more than the limit says, whoever comes how."
  (let ((most 0) (lock (sb-thread:make-mutex)) (server nil))
    (flet ((echo-counted (socket)
             (let ((count (client-count server)))
               (sb-thread:with-mutex (lock)
                 (setf most (max most count))))
             (echo-one-line socket))
           (come (number)
             (loop repeat 60
                   collect (ask-once number "x")))
           (give ()
             (with-caller (own other)
               (handler-case (serve-connection server own)
                 (resource-exhausted () (close own) :refused)
                 (:no-error (socket)
                   (declare (ignore socket))
                   (ask other "x"))))))
      (with-service (it number #'echo-counted :threads 4 :max-connections 3 :await-input t)
        (setf server it)
        (let ((comers (loop repeat 3 collect (in-thread (lambda () (come number)))))
              (givers (loop repeat 2
                            collect (in-thread (lambda () (loop repeat 200 collect (give)))))))
          (dolist (comer comers)
            (is (equal (make-list 60 :initial-element "x") (join comer))))
          (is (= 400 (count-if (lambda (answer) (member answer '("x" :refused) :test #'equal))
                               (mapcan #'join givers))))
          (is-true (wait-until (lambda () (equal "x" (give)))) "there is room again"))
        (is (<= most 3))))))

(define-test service.given-what-it-cannot-have ()
  "What is closed, what is a connection of a service, and what is no connection."
  (with-open-stream (server (serve #'echo-one-line :none :name "agent"))
    (with-caller (own other)
      (serve-connection server own)
      (is (equal "x" (ask other "x")))
      (is-failure (usage-error :invalid "of no service, got one of agent")
        (serve-connection server own))
      (is (equal "y" (ask other "y")))
      (close own)
      (is (eq own (network-socket (is-failure (socket-closed :closed)
                                    (serve-connection server own)))))
      (signals type-error (serve-connection server "socket"))
      (signals type-error (serve-connection own server)))
    (with-open-stream (listener (open-socket-server 0 :host "127.0.0.1"))
      (signals type-error (serve-connection server listener)))))

(define-test service.given-once-among-many-threads ()
  "Of several that give the same one, to this service or to that, one does."
  (with-open-stream (one (serve #'echo-one-line :none))
    (with-open-stream (two (serve #'echo-one-line :none))
      (dotimes (i 20)
        (with-caller (own other)
          (let ((givers (loop for server in (list one two one two)
                              collect (let ((server server))
                                        (in-thread (lambda ()
                                                     (handler-case (serve-connection server own)
                                                       (usage-error () nil))))))))
            (is (= 1 (count own (mapcar #'join givers))))
            (is (equal "x" (ask other "x")))))))))

(define-test service.given-to-one-that-has-stopped ()
  "It takes nothing, and what was to be given is still the caller's."
  (let ((server (serve #'echo-one-line :none :name "agent")))
    (is-true (stop-server server))
    (with-caller (own other)
      (is (null (network-socket (is-failure (socket-closed :closed "agent has been stopped")
                                  (serve-connection server own)))))
      (say own "mine")
      (is (equal "mine" (read-line other)))
      (close own))))

(define-test service.given-while-it-stops (:limit 60)
  "What was given before the stop is served or ended, what comes after is refused, and nothing is
left."
  (loop repeat 20
        do (let* ((server (serve #'echo-one-line :none :threads 4))
                  (begun (sb-thread:make-semaphore))
                  (giver (in-thread
                          (lambda ()
                            (loop for count from 0
                                  do (multiple-value-bind (own other)
                                         (open-socket-pair :input-timeout 10)
                                       (with-open-stream (other other)
                                         (handler-case (serve-connection server own)
                                           (socket-closed ()
                                             (close own)
                                             (return count)))
                                         (sb-thread:signal-semaphore begun)
                                         (handler-case (ask other "x")
                                           (network () nil)))))))))
             (is-true (loop repeat 3
                            always (sb-thread:wait-on-semaphore begun :timeout 10)))
             (is-true (stop-server server))
             (is (<= 3 (join giver)))
             (is (null (what-is-left-in server)) "~S" (what-is-left-in server)))))

(define-test service.stop-drains-what-it-was-given ()
  "A request that is being served is served to its end; who waits reads the end of file."
  (let ((inside (sb-thread:make-semaphore)) (gate (sb-thread:make-semaphore)))
    (with-callers (2 owns others)
      (let ((server (serve (held-echo inside gate) :none :await-input t)))
        (dolist (own owns)
          (serve-connection server own))
        (say (first others) "wait")
        (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
        (is-true (wait-until (lambda () (= 1 (parked-count server)))))
        (let ((stop (begin-to-stop server)))
          (is (null (read-line (second others) nil)))
          (sb-thread:signal-semaphore gate)
          (is-answered-and-ended (first others) "wait")
          (is-true (join stop)))))))

(define-test service.what-it-was-given-may-be-idle-no-longer-than-others ()
  "And the hook is told of its end; timeouts of its own it keeps."
  (let ((closed (sb-thread:make-semaphore)))
    (with-open-stream (server (serve #'echo-one-line :none
                                     :timeout 0.3
                                     :on-close (lambda (socket)
                                                 (declare (ignore socket))
                                                 (sb-thread:signal-semaphore closed))))
      (with-caller (own other)
        (setf (socket-timeout own :input) 7)
        (serve-connection server own)
        (is (eql 7 (socket-timeout own :input)))
        (is (eql 3/10 (socket-timeout own :output)))
        (is (equal "x" (ask other "x")))
        (is (null (read-line other nil)))
        (is-true (sb-thread:wait-on-semaphore closed :timeout 10))
        (is-false (open-stream-p own))))))

(define-test service.errors-of-what-it-was-given ()
  "They are told with the socket, and end it alone; who posts to it is heard."
  (let ((told '()))
    (with-open-stream (server (serve (lambda (socket)
                                       (when (equal "fail" (read-line socket))
                                         (error "as was asked"))
                                       :again)
                                     :none
                                     :on-error (lambda (condition socket)
                                                 (push (cons (princ-to-string condition) socket)
                                                       told))))
      (with-caller (own other)
        (serve-connection server own)
        (is-true (post own (format nil "posted~%")))
        (is (equal "posted" (read-line other)))
        (say other "fail")
        (is (null (read-line other nil)))
        (is (equal (list (cons "as was asked" own)) told))))))
