;;;; service-more - requests that come in pieces, for which nobody waits, and connections with a
;;;; limit of their own.

(in-package :port/test)

(defun echo-whole-line (socket &optional (called #'identity))
  "Echo one line of SOCKET, whose :INPUT-TIMEOUT is 0, once it is there. CALLED is called first."
  (funcall called socket)
  (handler-case (let ((line (read-line socket nil)))
                  (when line
                    (write-line line socket)
                    :again))
    (timeout () :more)))

(defun counting-calls (function)
  "Values: a function for a service that calls FUNCTION; one that tells how often."
  (let ((calls 0) (lock (sb-thread:make-mutex)))
    (values (lambda (socket)
              (sb-thread:with-mutex (lock) (incf calls))
              (funcall function socket))
            (lambda () (sb-thread:with-mutex (lock) calls)))))

(defun send-now (socket text)
  (write-string text socket)
  (finish-output socket))

(defun call-with-clients (count connect function)
  "Call FUNCTION with COUNT connections that CONNECT returns."
  (let ((clients '()))
    (unwind-protect (progn (loop repeat count do (push (funcall connect) clients))
                           (funcall function clients))
      (dolist (client clients)
        (close client :abort t)))))

(defun parked-count (server)
  (count-if (lambda (client) (and client (eq :parked (port::client-state client))))
            (port::service-clients (service-of server))))

(defun is-served-beside-halves (server calls connect)
  "Clients of SERVER that have sent half of a line keep no thread, and have their answer once the
rest has come."
  (call-with-clients
   20 connect
   (lambda (slow)
     (dolist (client slow)
       (send-now client "half"))
     (is-true (wait-until (lambda () (= 20 (parked-count server)))))
     (call-with-clients 1 connect
                        (lambda (clients)
                          (is (equal "quick" (ask (first clients) "quick")))))
     (is-true (wait-until (lambda () (>= (funcall calls) 21))))
     (dolist (client slow)
       (is (equal "half and half" (ask client " and half"))))
     ;; In bad weather a line comes in more pieces, and a look finds nothing more often.
     (is (<= 41 (funcall calls) 2000)))))

(define-test service.half-a-request-keeps-no-thread ()
  (multiple-value-bind (function calls) (counting-calls #'echo-whole-line)
    (with-service (server number function :threads 1 :input-timeout 0)
      (is-served-beside-halves server calls
                               (lambda ()
                                 (open-socket "127.0.0.1" number :input-timeout 10))))))

(define-test service.half-a-request-is-not-asked-for-again (:weather nil) ; calls are counted
  "The function is called for what comes, and not for what it has seen."
  (multiple-value-bind (function calls) (counting-calls #'echo-whole-line)
    (with-service (server number function :input-timeout 0 :await-input t)
      (with-open-socket (client "127.0.0.1" number :input-timeout 10)
        (loop for piece in '("a" "b" "c")
              for count from 1
              do (send-now client piece)
                 (is-true (wait-until (lambda () (= count (funcall calls)))))
                 (is-true (wait-until (lambda () (= 1 (parked-count server))))))
        (is (equal "abcd" (ask client "d")))
        (is (= 4 (funcall calls)))))))

(define-test service.more-of-who-has-not-looked ()
  "A function that wants more, and has received nothing, is told of what there is, once."
  (multiple-value-bind (function calls)
      (counting-calls (lambda (socket)
                        (cond ((eq :end-of-file (socket-state socket)) nil)
                              ((< (buffered-octets socket) 6) :more)
                              (t (write-line (read-line socket) socket)
                                 :again))))
    (with-service (server number function)
      (with-open-socket (client "127.0.0.1" number :input-timeout 10)
        (send-now client "abc")
        (is-true (wait-until (lambda () (= 1 (parked-count server)))))
        (is (equal "abcde" (ask client "de")))
        (is (<= (funcall calls) 100))))))

(define-test service.more-at-the-end ()
  "What came before the end is served; who wants more then is told that nothing comes."
  (let ((seen '()))
    (with-service (server number (lambda (socket) (echo-whole-line socket)) :input-timeout 0)
      (with-open-socket (client "127.0.0.1" number :input-timeout 10)
        (send-now client "part")
        (is-true (wait-until (lambda () (= 1 (parked-count server)))))
        (socket-shutdown client :output)
        (is (equal "part" (read-line client)))
        (is (null (read-line client nil)))))
    (with-service (server number (constantly :more)
                          :on-error (lambda (condition socket)
                                      (declare (ignore socket))
                                      (push condition seen)))
      (with-open-socket (client "127.0.0.1" number :input-timeout 10)
        (send-now client "part")
        (socket-shutdown client :output)
        (is (typep (failure-of (read-line client)) 'connection-reset))
        (is-true (wait-until (lambda () (zerop (client-count server)))))
        (is (= 1 (length seen)))
        (is (typep (first seen) 'usage-error))
        (is-report (first seen) "serve on 127.0.0.1:" ":MORE at the end")))))

(define-test service.half-a-request-does-not-hold-up-the-stop ()
  (with-service (server number #'echo-whole-line :input-timeout 0)
    (with-open-socket (client "127.0.0.1" number :input-timeout 10)
      (send-now client "half")
      (is-true (wait-until (lambda () (and (= 1 (parked-count server))
                                           (plusp (port::buffered-input
                                                   (port::client-connection
                                                    (only-client server))))))))
      (multiple-value-bind (seconds stopped-p)
          (seconds-of (lambda () (stop-server server :drain 60)))
        (is-true stopped-p)
        (is (<= seconds 10)))
      (is (null (read-line client nil))))))

(define-test service.waits-until-the-deadline-of-a-socket ()
  "A connection that has a deadline for its input waits until then, whatever the service allows, and
others as long as before; one that is taken back is none."
  (dolist (timeout '(nil 1000))
    (let ((closed (sb-thread:make-semaphore)))
      (flet ((answer (socket)
               (setf (socket-deadline socket :input) nil)
               (let ((line (read-line socket nil)))
                 (when line
                   (write-line line socket)
                   (when (equal line "soon")
                     (setf (socket-deadline socket :input) 0.2))
                   :again))))
        (with-service (server number #'answer :timeout timeout
                              :on-close (lambda (socket)
                                          (declare (ignore socket))
                                          (sb-thread:signal-semaphore closed)))
          (with-open-socket (patient "127.0.0.1" number :input-timeout 10)
            (is (equal "x" (ask patient "x")))
            (with-open-socket (hasty "127.0.0.1" number :input-timeout 10)
              (is (equal "soon" (ask hasty "soon")))
              (is (equal "later" (ask hasty "later")))
              (is (equal "soon" (ask hasty "soon")))
              (multiple-value-bind (seconds line) (seconds-of (lambda () (read-line hasty nil)))
                (is (null line))
                (is (<= 0.1 seconds 5) "~A s" seconds)))
            (is-true (sb-thread:wait-on-semaphore closed :timeout 10))
            (is (equal "y" (ask patient "y")))))))))

(define-test service.half-a-request-by-a-deadline ()
  "Who never sends the rest is let go of in time, though octets of it come now and then."
  (with-service (server number (lambda (socket)
                                 (unless (socket-deadline socket :input)
                                   (setf (socket-deadline socket :input) 0.3))
                                 (echo-whole-line socket))
                        :input-timeout 0 :await-input t)
    (with-open-socket (client "127.0.0.1" number :input-timeout 10)
      (let ((seconds (seconds-of (lambda ()
                                   (is-true
                                    (wait-until
                                     (lambda ()
                                       (send-now client "x")
                                       (wait-for-stream client 0.05))))))))
        (is (<= 0.2 seconds 8) "~A s" seconds))
      (is (member (handler-case (read-line client nil)
                    (connection-lost () :lost))
                  '(nil :lost))))))
