;;;; service-threads - how the threads of a service find what to do, and how they are replaced when
;;;; they end.

(in-package :port/test)

(define-suite service-threads "Threads of services.")

(define-test service.blocking-handlers-do-not-block-others ()
  "A handler that blocks, in a socket or elsewhere, holds up nobody while there are threads."
  (let ((gate (sb-thread:make-semaphore)))
    (with-service (server number (lambda (socket)
                                   (echo-one-line socket
                                                  (lambda () (sb-thread:wait-on-semaphore gate)))
                                   nil)
                          :threads 8)
      (let ((blocked (loop repeat 4 collect (open-socket "127.0.0.1" number)))
            (silent (loop repeat 2 collect (open-socket "127.0.0.1" number))))
        (dolist (socket blocked)
          (write-line "wait" socket)
          (finish-output socket))
        (dotimes (i 10)
          (is (equal "quick" (ask-once number "quick"))))
        (sb-thread:signal-semaphore gate 4)
        (dolist (socket blocked)
          (is (equal "wait" (read-line socket)))
          (close socket))
        (mapc #'close silent)))))

(define-test service.who-is-about-to-block-hands-over ()
  "Where a function waits for its client somebody else is to lead at once, and not only after the
next tick."
  (let ((handed (sb-thread:make-semaphore)))
    (unwind-protect
         (progn
           (sb-int:encapsulate 'port::hand-over 'test
                               (lambda (function service)
                                 (sb-thread:signal-semaphore handed)
                                 (funcall function service)))
           (with-service (server number #'echo-lines)
             (with-open-socket (client "127.0.0.1" number)
               (is-true (sb-thread:wait-on-semaphore handed :timeout 10)))))
      (sb-int:unencapsulate 'port::hand-over 'test))))

(define-test service.no-call-without-input ()
  "What a leader was told of a connection before it was read from, and waits for input again, is no
input."
  (with-service (server number #'echo-one-line :await-input t)
    (with-open-socket (socket "127.0.0.1" number :input-timeout 10)
      (let ((client (wait-until (lambda () (only-client server)))) (service (service-of server)))
        (wait-until (lambda () (eq :parked (port::client-state client))))
        (setf (port::client-parked-in client) (port::service-turn service))
        (is-false (port::hear-client service client))
        (is (eq :parked (port::client-state client)))
        (is (equal "one" (ask socket "one")))))))

(define-test service.no-event-of-another ()
  "What a leader was told of a connection that is gone is not of the one that has its place now."
  (with-service (server number #'echo-one-line)
    (with-open-stream (own (parked-client server number))
      (let* ((client (only-client server)) (handle (port::client-handle client)))
        (flet ((found (handle)
                 (funcall 'port::find-client (service-of server) handle)))
          (is (eq client (found handle)))
          (is (null (found (logxor handle (1+ port::+lport-socket-index+))))))))))

(define-test service.events-of-nobody-between-others ()
  "What a leader is told of sockets that are gone takes none of the clients that it is told of
before and after that out of the line."
  (with-service (server number #'echo-one-line)
    (with-open-socket (one "127.0.0.1" number :input-timeout 10)
      (with-open-socket (two "127.0.0.1" number :input-timeout 10)
        (is (equal "x" (ask one "x")))
        (is (equal "x" (ask two "x")))
        (let* ((service (service-of server)) (batch (port::make-event-batch nil 4))
               (clients (remove nil (coerce (port::service-clients service) 'list))))
          (is-true (wait-until (lambda ()
                                 (loop for client in clients
                                       always (eq :parked (port::client-state client))))))
          (loop for client in clients
                for index from 0 by (* 2 port::+lport-event-size+)
                do (setf (port::client-parked-in client) 0 ; in a wait that is long over
                         (aref (port::event-batch-numbers batch) index)
                         (port::client-handle client)))
          (multiple-value-bind (first last) (port::hear-events service batch 4)
            (is (eq (first clients) first))
            (is (eq (second clients) (port::client-next first)))
            (is (eq (second clients) last)))
          (setf (port::client-next (first clients)) nil)
          (dolist (client clients)
            (is-true (port::park service client))))
        (is (equal "y" (ask one "y")))
        (is (equal "y" (ask two "y")))))))

(define-test service.input-that-waits-for-its-function-wakes-nobody (:weather nil)
  "While a function takes its time and more arrives for it the leader sleeps."
  (with-holding-service (server number inside gate)
    (with-open-stream (own (parked-client server number))
      (say own "wait")
      (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
      (say own "more")
      (is-true (wait-until (lambda () (eq :muted (port::client-state (only-client server))))))
      (let ((turn (port::service-turn (service-of server))))
        (sleep 0.1)
        (is (< (- (port::service-turn (service-of server)) turn) 20) "it spins"))
      (sb-thread:signal-semaphore gate)
      (is (equal "wait" (read-line own)))
      (is (equal "more" (read-line own))))))

(define-test service.looks-after-others-again-after-a-rest ()
  "The ticker sleeps while there is nothing to do; a function that takes its time wakes it."
  (with-holding-service (server number inside gate :threads 2)
    (with-open-stream (own (parked-client server number))
      (is-true (wait-until (lambda () (port::service-ticker-asleep (service-of server)))))
      (say own "wait")
      (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
      (unwind-protect (is (equal "x" (ask-once number "x")))
        (sb-thread:signal-semaphore gate))
      (is (equal "wait" (read-line own))))))

(define-test service.rests-again-after-a-hand-over ()
  "Who was called to lead for one that blocks sleeps once there is nothing to do again."
  (with-service (server number #'echo-one-line :threads 2)
    (with-open-stream (own (parked-client server number))
      (flet ((rests-p ()
               (wait-until (lambda () (port::service-ticker-asleep (service-of server))))))
        (is-true (rests-p))
        (write-string "par" own)
        (finish-output own)
        (is (equal "x" (ask-once number "x")))
        (is (equal "part" (ask own "t")))
        (is-true (rests-p))))))

(define-test service.slow-among-quick ()
  "A function that takes its time, among so many quick ones that the ticker looks seldom, holds up
none of them."
  (let ((gate (sb-thread:make-semaphore)))
    (with-service (server number (lambda (socket)
                                   (echo-one-line socket
                                                  (lambda () (sb-thread:wait-on-semaphore gate))))
                          :threads 4 :await-input t)
      (let ((slow (loop repeat 2 collect (open-socket "127.0.0.1" number :input-timeout 10))))
        (with-open-socket (quick "127.0.0.1" number :input-timeout 10)
          (dolist (socket slow)
            (dotimes (i 500)
              (ask quick "quick"))
            (write-line "wait" socket)
            (finish-output socket)
            (dotimes (i 500)
              (is (equal "quick" (ask quick "quick"))))))
        (sb-thread:signal-semaphore gate 2)
        (dolist (socket slow)
          (is (equal "wait" (read-line socket)))
          (close socket))))))

(defun call-without-ticks (function)
  "Call FUNCTION; services that are made meanwhile take this machine for one of two processors, and
their tickers do not look."
  (let ((tick port::*tick*) (rare port::*rare-tick*))
    (unwind-protect
         (progn (sb-int:encapsulate 'port::%processor-count 'test (constantly 2))
                (setf port::*tick* 1000
                      port::*rare-tick* 1000)
                (funcall function))
      (setf port::*tick* tick
            port::*rare-tick* rare)
      (sb-int:unencapsulate 'port::%processor-count 'test))))

(defun call-without-new-threads (function)
  "Call FUNCTION; services can make no threads meanwhile."
  (sb-int:encapsulate 'port::%make-thread 'none
                      (lambda (original &rest arguments)
                        (declare (ignore original arguments))
                        (error "no thread")))
  (unwind-protect (funcall function)
    (sb-int:unencapsulate 'port::%make-thread 'none)))

(defun check-quick-beside-slow (call)
  "A client is answered while another's function, known to be slow, is at work. What is done
meanwhile is called by CALL."
  (let ((waits (sb-thread:make-semaphore)) (gate (sb-thread:make-semaphore)))
    (with-service (server number (lambda (socket)
                                   (flet ((wait ()
                                            (sb-thread:signal-semaphore waits)
                                            (sb-thread:wait-on-semaphore gate)))
                                     (echo-one-line socket #'wait)))
                          :await-input t)
      (with-open-socket (slow "127.0.0.1" number :input-timeout 10)
        (with-open-socket (quick "127.0.0.1" number :input-timeout 10)
          (let ((ask (in-thread (lambda () (ask slow "wait")))))
            (sb-thread:wait-on-semaphore waits)
            (sleep 0.005)               ; that is slow
            (sb-thread:signal-semaphore gate)
            (is (equal "wait" (join ask))))
          (is-true (wait-until (lambda ()
                                 (and (port::service-leader (service-of server))
                                      (port::service-ticker (service-of server))))))
          (funcall call (lambda ()
                          (write-line "wait" slow)
                          (finish-output slow)
                          (dotimes (i 3)
                            (is (equal "quick" (ask quick "quick"))))))
          (sb-thread:signal-semaphore gate)
          (is (equal "wait" (read-line slow))))))))

(define-test service.slow-ones-have-a-processor-each ()
  "Where calls are known to take their time, and there is a processor, another thread looks for more
as soon as one has something to serve: one that is made for it, or where none can be, the ticker."
  (dolist (call (list #'funcall #'call-without-new-threads))
    (call-without-ticks (lambda () (check-quick-beside-slow call)))))

(define-test service.threads-are-bounded ()
  (let ((now (list 0)) (most 0))
    (with-service (server number (lambda (socket)
                                   (setf most (max most (1+ (sb-ext:atomic-incf (car now)))))
                                   (read-line socket nil)
                                   (sb-ext:atomic-decf (car now))
                                   (write-line "done" socket))
                          :threads 3)
      (let ((sockets (loop repeat 12 collect (open-socket "127.0.0.1" number))))
        (dolist (socket sockets)
          (is (equal "done" (ask socket "go")))
          (close socket))
        (is (<= 1 most 3))
        (is (<= (port::service-thread-count (service-of server)) 3))))))

;;; Threads that end

(define-test service.function-ends-its-thread ()
  "The connection is aborted and another thread has the place of the one that is gone."
  (with-service (server number (lambda (socket)
                                 (let ((line (read-line socket)))
                                   (when (equal line "abort") (sb-thread:abort-thread))
                                   (write-line line socket)))
                        :threads 1)
    (dotimes (i 3)
      (is (typep (failure-of (ask-once number "abort")) 'connection-reset))
      (is (equal "fine" (ask-once number "fine"))))
    (is (= 1 (port::service-thread-count (service-of server))))))

(defun thread-count (server)
  (port::service-thread-count (service-of server)))

(defun threads-named (name)
  "The threads that run and whose names begin with NAME."
  (remove-if-not (lambda (thread)
                   (eql 0 (search name (string (sb-thread:thread-name thread)))))
                 (sb-thread:list-all-threads)))

(defmacro with-idle-limit ((seconds) &body body)
  "Run BODY; the threads of services that it makes end when they had nothing to do for SECONDS."
  `(let ((port::*idle-limit* ,seconds))
     ,@body))

(defun hold-threads (number count inside)
  "COUNT connections to a held echo on NUMBER that have a thread each."
  (let ((clients (loop repeat count collect (open-socket "127.0.0.1" number :input-timeout 10))))
    (dolist (client clients)
      (say client "wait"))
    (is-true (loop repeat count
                   always (sb-thread:wait-on-semaphore inside :timeout 10)))
    clients))

(define-test service.threads-of-a-burst-end ()
  "When they have had nothing to do for long, but for two, and others come when they are needed."
  (with-idle-limit (0.1)
    (with-holding-service (server number inside gate :threads 10 :name "a burst")
      (loop repeat 2
            do (let ((clients (hold-threads number 8 inside)))
                 (is (<= 8 (thread-count server) 10))
                 (sb-thread:signal-semaphore gate 8)
                 (dolist (client clients)
                   (is (equal "wait" (read-line client)))
                   (close client)))
               (is-true (wait-until (lambda () (= 2 (thread-count server)))))
               (is-true (wait-until (lambda () (= 2 (length (threads-named "a burst"))))))
               (is (equal "x" (ask-once number "x")))))))

(define-test service.idle-threads-do-not-end-at-once ()
  "Not before they had nothing to do for as long as it is said."
  (with-idle-limit (1000)
    (with-holding-service (server number inside gate :threads 8)
      (let ((clients (hold-threads number 6 inside)))
        (sb-thread:signal-semaphore gate 6)
        (mapc #'read-line clients)
        (is-true (wait-until (lambda () (<= 4 (port::service-idle (service-of server))))))
        (sleep 0.2)
        (is (<= 6 (thread-count server)))
        (mapc #'close clients)))))

(define-test service.busy-threads-do-not-end ()
  "One that computes, or waits for its client, is not idle, however long that takes."
  (with-idle-limit (0.05)
    (with-holding-service (server number inside gate :threads 8)
      (let ((clients (hold-threads number 6 inside)))
        (sleep 0.2)
        (is (<= 6 (thread-count server)))
        (sb-thread:signal-semaphore gate 6)
        (dolist (client clients)
          (is (equal "wait" (read-line client)))
          (close client))))))

(define-test service.nobody-is-lost-while-threads-end (:limit 60)
  "Where threads end just when others are needed each client is served, and those of one burst after
the other are no more in the end than of one."
  (with-idle-limit (0.002)
    (with-service (server number (lambda (socket)
                                   (echo-one-line socket (lambda () (sleep 0.01))))
                          :threads 16 :name "many bursts")
      (let ((clients (loop repeat 8 collect (open-socket "127.0.0.1" number :input-timeout 10)))
            (state (sb-ext:seed-random-state 7)))
        (loop repeat 100
              do (dolist (client clients)
                   (say client "wait"))
                 (dolist (client clients)
                   (is (equal "wait" (read-line client)))
                   (sleep (random 0.0005 state)))
                 (sleep (random 0.004 state)))
        (mapc #'close clients))
      (is-true (wait-until (lambda () (= 2 (thread-count server)))))
      (is-true (wait-until (lambda () (= 2 (length (threads-named "many bursts"))))))
      (is (< 40 (port::service-threads-made (service-of server)))))))

(define-test service.stopped-while-threads-end (:limit 60)
  "A stop waits for those that are just ending, and for no others."
  (with-idle-limit (0.001)
    (loop repeat 30
          do (let* ((server (serve #'echo-one-line 0 :host "127.0.0.1" :threads 16 :name "in stop"))
                    (number (port-of (first (server-listeners server))))
                    (clients (loop repeat 6
                                   collect (in-thread (lambda ()
                                                        (loop repeat 40
                                                              do (ask-once number "x")))))))
               (sleep 0.01)
               (is-true (stop-server server))
               (dolist (client clients)
                 (handler-case (join client)
                   (network () nil)))
               (is (null (what-is-left-in server)) "~S" (what-is-left-in server))
               (is-true (wait-until (lambda () (null (threads-named "in stop")))))))))

(defun call-with-stillborn-threads (function)
  "Call FUNCTION while the threads of services are killed before they begin to work, with a
semaphore that counts them."
  (let ((killed (sb-thread:make-semaphore)))
    (unwind-protect
         (progn (sb-int:encapsulate 'port::work 'test
                                    (lambda (work service)
                                      (declare (ignore work service))
                                      (sb-thread:signal-semaphore killed)
                                      (sb-thread:abort-thread)))
                (funcall function killed))
      (sb-int:unencapsulate 'port::work 'test))))

(defun await-stillborn (server killed)
  "Wait until another thread of SERVER has been killed before it began, and is dead: one that is
dying still looks as if it came."
  (is-true (sb-thread:wait-on-semaphore killed :timeout 10))
  (is-true (wait-until (lambda ()
                         (notany #'sb-thread:thread-alive-p
                                 (port::service-starting (service-of server)))))))

(define-test service.killed-before-they-began (:limit 60)
  "Nobody waits for a thread that is killed before it has begun, neither clients nor who stops."
  (dolist (go-on '(t nil))
    (with-holding-service (server number inside gate :threads 2)
      (wait-until (lambda () (port::service-leader (service-of server))))
      (with-open-stream (slow (call-with-stillborn-threads
                               (lambda (killed)
                                 (let ((socket (open-socket "127.0.0.1" number
                                                            :input-timeout 10)))
                                   (say socket "wait")
                                   (await-stillborn server killed)
                                   socket))))
        (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
        (sb-thread:signal-semaphore gate)
        (is (equal "wait" (read-line slow nil)))
        (when go-on
          (say slow "wait")
          (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
          (is (equal "x" (ask-once number "x")))
          (sb-thread:signal-semaphore gate)
          (is (equal "wait" (read-line slow nil))))))))

(define-test service.killed-before-the-stop ()
  "Who stops does not wait for a thread that was killed before it began, where no other would miss
it."
  (with-service (server number #'echo-one-line :threads 2)
    (let ((service (service-of server)))
      (is-true (wait-until (lambda () (port::service-leader service))))
      (call-with-stillborn-threads (lambda (killed)
                                     (port::%with-lock ((port::service-lock service))
                                       (port::add-thread service))
                                     (await-stillborn server killed))))))

(define-test service.killed-while-idle (:behaviour 26)
  "Threads that are killed while they have nothing to do are missed by nobody."
  (with-holding-service (server number inside gate :threads 4)
    (let ((service (service-of server))
          (clients (loop repeat 3 collect (open-socket "127.0.0.1" number :input-timeout 10))))
      (dolist (client clients)
        (say client "wait"))
      (is-true (sb-thread:wait-on-semaphore inside :n 3 :timeout 10))
      (sb-thread:signal-semaphore gate 3)
      (is-true (wait-until (lambda () (= 2 (port::service-idle service)))))
      (dolist (thread (copy-list (port::service-threads service)))
        (unless (member thread (list (port::service-leader service)
                                     (port::service-ticker service)))
          (sb-thread:terminate-thread thread)))
      (is (equal "x" (ask-once number "x")))
      (mapc #'close clients))))

(define-test service.killed-while-it-looks-after-others (:behaviour 26)
  "The thread that leads, or ticks, and is killed has a successor."
  (dolist (part '(port::service-leader port::service-ticker))
    (with-holding-service (server number inside gate :threads 2)
      (with-open-stream (own (parked-client server number))
        (let ((service (service-of server)))
          (is-true (wait-until (lambda ()
                                 (and (port::service-leader service)
                                      (port::service-ticker-asleep service)))))
          (let ((thread (funcall part service)))
            (sb-thread:terminate-thread thread)
            (is-true (wait-until (lambda () (not (sb-thread:thread-alive-p thread)))))))
        (is (equal "x" (ask own "x")))
        (say own "wait")
        (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
        (unwind-protect (is (equal "y" (ask-once number "y")))
          (sb-thread:signal-semaphore gate))
        (is (equal "wait" (read-line own)))))))

(define-test service.killed-with-its-successor (:behaviour 26)
  "A thread that ends sees to it that there is another, also where that is killed before it begins."
  (with-service (server number (lambda (socket)
                                 (let ((line (read-line socket nil)))
                                   (when (equal line "abort") (sb-thread:abort-thread))
                                   (when line (write-line line socket))))
                        :threads 1)
    (is-true (wait-until (lambda () (port::service-leader (service-of server)))))
    (with-open-socket (own "127.0.0.1" number)
      (call-with-stillborn-threads (lambda (killed)
                                     (say own "abort")
                                     (is-true (sb-thread:wait-on-semaphore killed :timeout 10)))))
    (is (equal "fine" (ask-once number "fine")))))

(define-test service.killed-threads (:behaviour 26 :limit 60)
  "Who ends the thread of a function, and comes too late for it, leaves no connection with nobody
and no service without a leader."
  (let ((last nil) (stop nil) (late 0) (state (sb-ext:seed-random-state 8)))
    (with-service (server number (lambda (socket)
                                   (setf last sb-thread:*current-thread*)
                                   (echo-one-line socket))
                          :threads 3)
      (let ((clients (loop repeat 4
                           collect (in-thread
                                    (lambda ()
                                      (loop until stop
                                            do (handler-case (ask-once number "x")
                                                 (timeout () (incf late))
                                                 (network () nil))))))))
        (loop with killed = nil
              repeat 500
              do (when (wait-until (lambda () (not (eq last killed))))
                   (setf killed last)
                   (sleep (random 0.002 state))
                   (handler-case (sb-thread:terminate-thread killed)
                     (sb-thread:interrupt-thread-error () nil))))
        (setf stop t)
        (mapc #'join clients))
      (is (zerop late))
      (is-true (wait-until (lambda () (zerop (client-count server)))))
      (is (equal "x" (ask-once number "x")))
      (is (<= 1 (port::service-thread-count (service-of server)) 3)))))
