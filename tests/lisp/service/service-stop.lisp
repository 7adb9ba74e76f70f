;;;; service-stop - stop-server: who is still served, who is let go of, and how.

(in-package :port/test)

(define-suite service-stop "Services that are stopped.")

(define-test service.stop-another-service ()
  "A function of one service stops another: all that has connections is waited for."
  (let* ((inner (serve #'echo-lines 0 :host "127.0.0.1"))
         (client (open-socket "127.0.0.1" (port-of (first (server-listeners inner))))))
    (is (equal "x" (ask client "x")))
    (with-service (outer number (lambda (socket)
                                  (read-line socket)
                                  (multiple-value-bind (seconds ended)
                                      (seconds-of (lambda () (stop-server inner :drain 0.2)))
                                    (format socket "~A ~A~%" ended (<= 0.2 seconds 4)))))
      (is (equal "T T" (ask-once number "stop"))))
    (close client :abort t)))

(define-test service.port-is-free-after-stop (:behaviour 15)
  "Stopping ends the wait for connections; then connects are refused, and the same port and path can
be listened on again."
  (let ((path (temporary-path)) (number 0))
    (dotimes (i 3)
      (let ((server (serve #'echo-one-line (list number path) :host "127.0.0.1")))
        (setf number (port-of (first (server-listeners server))))
        (with-open-socket (idle "127.0.0.1" number) ; closed by the service first: it is remembered
          (is (equal "x" (ask idle "x")))
          (is-true (stop-server server)))
        (is (typep (failure-of (open-socket "127.0.0.1" number)) 'connection-refused))
        (is (null (probe-file path)))))
    (unless (weather-p)                 ; in which the connection may have been reset
      (is-failure (address-in-use :address-in-use)
        (serve #'echo-one-line number :host "127.0.0.1" :reuse-address nil)))))

(define-test service.close-is-a-stop ()
  "CLOSE lets the function finish what it has; with :ABORT it does not."
  (dolist (abort '(nil t))
    (let* ((server (serve #'echo-lines 0 :host "127.0.0.1"))
           (socket (open-socket "127.0.0.1" (port-of (first (server-listeners server))))))
      (is (equal "x" (ask socket "x")))
      (let ((closer (in-thread (lambda () (close server :abort abort)))))
        (wait-until (lambda () (port::service-stopping (service-of server))))
        (unless abort
          (is (equal "y" (ask socket "y")))
          (close socket))
        (is-true (join closer)))
      (is-true (close server))
      (close socket :abort t))))

(define-test service.stop-closes-what-is-idle ()
  (let* ((server (serve #'echo-one-line 0 :host "127.0.0.1"))
         (number (port-of (first (server-listeners server))))
         (socket (open-socket "127.0.0.1" number)))
    (is (equal "x" (ask socket "x")))
    (multiple-value-bind (seconds ended) (seconds-of (lambda () (stop-server server)))
      (is-true ended)
      (is (< seconds 2)))
    (is (null (read-line socket nil)))
    (is (typep (failure-of (open-socket "127.0.0.1" number)) 'connection-refused))
    (close socket)))

(define-test service.stop-drains ()
  "A handler that is at work finishes within the drain; one that does not is cut off."
  (let* ((server (serve (lambda (socket)
                          (write-line (read-line socket) socket)
                          (finish-output socket)
                          (write-line (read-line socket) socket))
                        0 :host "127.0.0.1"))
         (number (port-of (first (server-listeners server))))
         (good (open-socket "127.0.0.1" number))
         (bad (open-socket "127.0.0.1" number)))
    (is (equal "1" (ask good "1")))
    (is (equal "1" (ask bad "1")))
    (let ((stopper (in-thread (lambda ()
                                (seconds-of (lambda () (stop-server server :drain 0.5)))))))
      (wait-until (lambda () (port::service-stopping (service-of server))))
      (is (equal "2" (ask good "2")))
      (is (null (read-line good nil)))
      (multiple-value-bind (seconds ended) (join stopper)
        (is-true ended)
        (is (<= 0.5 seconds 4)))
      (is (typep (failure-of (read-line bad)) 'connection-reset)))
    (close good)
    (close bad)))

(define-test service.stop-from-a-handler ()
  (let* ((server nil) (result :none)
         (handler (lambda (socket)
                    (let ((line (read-line socket nil)))
                      (when (equal line "stop")
                        (setf result (stop-server server :drain 1)))
                      (when line
                        (write-line line socket)
                        :again)))))
    (setf server (serve handler 0 :host "127.0.0.1"))
    (let* ((number (port-of (first (server-listeners server))))
           (idle (open-socket "127.0.0.1" number))
           (stopper (open-socket "127.0.0.1" number)))
      (is (equal "x" (ask idle "x")))
      (is (equal "stop" (ask stopper "stop")) "its own connection is left to it")
      (is (eq t result))
      (is (null (read-line idle nil)))
      (is (null (read-line stopper nil)))
      (is-true (stop-server server))
      (close idle)
      (close stopper))))

;;; Who is still served. A stop looks once whether something is there; in the weather there may seem
;;; to be nothing.

(defmacro with-slow-service ((server number busy gate &rest arguments) &body body)
  "Run BODY with SERVER, a service that echoes one line in each call, and NUMBER, its port; on the
line `wait' it signals BUSY and waits for GATE, semaphores, without a socket. Whoever stops it does
that in BODY."
  `(let* ((,gate (sb-thread:make-semaphore))
          (,busy (sb-thread:make-semaphore))
          (,server (serve (lambda (socket)
                            (echo-one-line socket
                                           (lambda ()
                                             (sb-thread:signal-semaphore ,busy)
                                             (sb-thread:wait-on-semaphore ,gate))))
                          0 :host "127.0.0.1" ,@arguments))
          (,number (port-of (first (server-listeners ,server)))))
     (unwind-protect (progn ,@body)
       (sb-thread:signal-semaphore ,gate 100)
       (is-true (stop-server ,server :drain 0)))))

(defun say (socket line)
  (write-line line socket)
  (finish-output socket))

(defun begin-to-stop (server &key (drain 10))
  "A thread that stops SERVER: its values are those of SECONDS-OF. The mark is set already."
  (prog1 (in-thread (lambda () (seconds-of (lambda () (stop-server server :drain drain)))))
    (is-true (wait-until (lambda () (port::service-stopping (service-of server)))))))

(defun is-answered-and-ended (socket &rest lines)
  "Check that SOCKET brings LINES and then its end."
  (dolist (line lines)
    (is (equal line (read-line socket nil))))
  (is (null (read-line socket nil))))

(defun leave-queued (server)
  "Let the connections that come from now on stay in the queues of the system."
  (port::pause-listeners (service-of server) (port::moment-in 3600000000000)))

(defun keep-busy (socket semaphore)
  "Let the one thread of a slow service be with SOCKET, so that nobody looks for input any more."
  (say socket "wait")
  (is-true (sb-thread:wait-on-semaphore semaphore :timeout 10)))

(define-test service.stop-from-several-handlers ()
  "Functions that stop their service at the same time do not wait for each other."
  (let ((server nil) (inside 0) (lock (sb-thread:make-mutex)))
    (flet ((stop (socket)
             (read-line socket)
             (sb-thread:with-mutex (lock) (incf inside))
             (wait-until (lambda () (= inside 3)) 10)
             (format socket "~A~%" (stop-server server :drain nil))))
      (setf server (serve #'stop 0 :host "127.0.0.1"))
      (let* ((number (port-of (first (server-listeners server))))
             (clients (loop repeat 3
                            collect (open-socket "127.0.0.1" number :input-timeout 10))))
        (dolist (client clients)
          (write-line "stop" client)
          (finish-output client))
        (dolist (client clients)
          (is (equal "T" (read-line client)))
          (is (null (read-line client nil)))
          (close client))
        (is-true (stop-server server))))))

(define-test service.stop-leaves-who-is-stopping ()
  "A stop without a drain aborts all connections but those whose functions are just stopping the
service themselves."
  (let ((inside (sb-thread:make-semaphore)) (gate (sb-thread:make-semaphore)) (server nil))
    (flet ((stop-or-stay (socket)
             (cond ((equal "stop" (read-line socket))
                    (format socket "~A~%" (stop-server server :drain nil)))
                   (t (sb-thread:signal-semaphore inside)
                      (sb-thread:wait-on-semaphore gate)))))
      (setf server (serve #'stop-or-stay 0 :host "127.0.0.1"))
      (let ((number (port-of (first (server-listeners server)))))
        (with-open-socket (other "127.0.0.1" number :input-timeout 10)
          (with-open-socket (own "127.0.0.1" number :input-timeout 10)
            (keep-busy other inside)
            (say own "stop")
            (is-true (wait-until (lambda () (port::service-stoppers (service-of server)))))
            (let ((stopping (begin-to-stop server :drain 0)))
              (is (typep (failure-of (read-line other)) 'connection-reset))
              (sb-thread:signal-semaphore gate)
              (is-true (nth-value 1 (join stopping))))
            (is-answered-and-ended own "T")))))))

(define-test service.stop-waits-again-for-who-has-stopped ()
  "A function that has stopped its service and goes on is one of those that are waited for."
  (let ((inside (sb-thread:make-semaphore)) (gate (sb-thread:make-semaphore)) (server nil))
    (flet ((stop-and-stay (socket)
             (read-line socket)
             (stop-server server :drain 0)
             (sb-thread:signal-semaphore inside)
             (sb-thread:wait-on-semaphore gate)))
      (setf server (serve #'stop-and-stay 0 :host "127.0.0.1"))
      (with-open-socket (own "127.0.0.1" (port-of (first (server-listeners server))))
        (keep-busy own inside)
        (let ((port::*close-limit* 0.1))
          (is (null (stop-server server :drain 0))))
        (sb-thread:signal-semaphore gate)
        (is-true (stop-server server))))))

(define-test service.stop-aborts-who-stops-another ()
  "To its own service a function that is just stopping another one is as any other."
  (with-holding-service (inner inner-number inside gate)
    (with-open-socket (held "127.0.0.1" inner-number)
      (keep-busy held inside)
      (let ((outer (serve (lambda (socket)
                            (read-line socket)
                            (stop-server inner :drain nil))
                          0 :host "127.0.0.1")))
        (with-open-socket (client "127.0.0.1" (port-of (first (server-listeners outer)))
                                  :input-timeout 10)
          (say client "stop")
          (is-true (wait-until (lambda () (port::service-ending (service-of inner)))))
          (let ((stopping (begin-to-stop outer :drain 0)))
            (is (typep (failure-of (read-line client)) 'connection-reset))
            (sb-thread:signal-semaphore gate)
            (is-true (nth-value 1 (join stopping)))))))))

(define-test service.stop-by-who-leads ()
  "An interrupt may stop the service on the very thread that waits for all of its connections."
  (let ((server (serve #'echo-one-line 0 :host "127.0.0.1"))
        (done (sb-thread:make-semaphore)) (result '()))
    (sb-thread:interrupt-thread
     (wait-until (lambda () (port::service-leader (service-of server))))
     (lambda ()
       (setf result (multiple-value-list (seconds-of (lambda () (stop-server server)))))
       (sb-thread:signal-semaphore done)))
    (is-true (sb-thread:wait-on-semaphore done :timeout 10))
    (destructuring-bind (seconds ended) result
      (is-true ended)
      (is (< seconds 2)))
    (is-true (stop-server server))))

(define-test service.stop-serves-what-is-queued (:weather nil)
  "Connections that the system has queued when the service stops are served, not reset; where the
client speaks first, one that has said nothing reads the end of file."
  (dolist (await '(nil t))
    (with-slow-service (server number waiting gate :await-input await)
      (leave-queued server)
      (let ((sockets (loop repeat 200 collect (open-socket "127.0.0.1" number :input-timeout 10))))
        (loop for socket in sockets
              do (say socket "queued"))
        (let ((silent (and await (open-socket "127.0.0.1" number :input-timeout 10)))
              (stopping (begin-to-stop server)))
          (dolist (socket sockets)
            (is-answered-and-ended socket "queued")
            (close socket))
          (when silent
            (is-answered-and-ended silent)
            (close silent))
          (multiple-value-bind (seconds ended) (join stopping)
            (is-true ended)
            (is (< seconds 8)))
          (is (typep (failure-of (open-socket "127.0.0.1" number)) 'connection-refused)))))))

(define-test service.stop-serves-what-has-arrived (:weather nil)
  "A connection between two requests whose next one has just arrived has its turn; one on which
nothing has, reads the end of file."
  (with-slow-service (server number waiting gate :threads 1)
    (let ((busy (open-socket "127.0.0.1" number :input-timeout 10))
          (late (open-socket "127.0.0.1" number :input-timeout 10))
          (idle (open-socket "127.0.0.1" number :input-timeout 10)))
      (dolist (socket (list busy late idle))
        (is (equal "x" (ask socket "x"))))
      (keep-busy busy waiting)
      (say late "late")
      (say busy "next")
      (let ((stopping (begin-to-stop server)))
        (is-answered-and-ended idle)
        (sb-thread:signal-semaphore gate)
        (is-answered-and-ended busy "wait" "next")
        (is-answered-and-ended late "late")
        (multiple-value-bind (seconds ended) (join stopping)
          (is-true ended)
          (is (< seconds 8))))
      (mapc #'close (list busy late idle)))))

(define-test service.stop-while-accepting ()
  "A connection that is just being accepted when the service stops is ended like the others."
  (let ((accepting (sb-thread:make-semaphore)) (gate (sb-thread:make-semaphore))
        (server (serve (lambda (socket) (read-line socket)) 0 :host "127.0.0.1")))
    (unwind-protect
         (progn
           (sb-int:encapsulate 'port::new-client 'test
                               (lambda (function &rest arguments)
                                 (sb-thread:signal-semaphore accepting)
                                 (sb-thread:wait-on-semaphore gate)
                                 (apply function arguments)))
           (with-open-socket (silent "127.0.0.1" (port-of (first (server-listeners server))))
             (is-true (sb-thread:wait-on-semaphore accepting :timeout 10))
             (let ((stopping (begin-to-stop server :drain 0)))
               (wait-until (lambda () (port::service-ending (service-of server))) 10)
               (sb-thread:signal-semaphore gate)
               (is-true (nth-value 1 (join stopping)))
               (is (typep (failure-of (read-line silent)) 'connection-reset)))))
      (sb-int:unencapsulate 'port::new-client 'test)
      (sb-thread:signal-semaphore gate 10)
      (stop-server server :drain 0))))

(define-test service.stop-without-drain (:weather nil)
  "Without a drain nobody has a turn: who waits is let go of, whatever has arrived."
  (with-slow-service (server number waiting gate :threads 1)
    (let ((busy (open-socket "127.0.0.1" number :input-timeout 10))
          (late (open-socket "127.0.0.1" number :input-timeout 10)))
      (is (equal "x" (ask busy "x")))
      (is (equal "x" (ask late "x")))
      (keep-busy busy waiting)
      (say late "late")
      (let ((stopping (begin-to-stop server :drain 0)))
        (is-answered-and-ended late)
        (is (typep (failure-of (read-line busy)) 'connection-reset))
        (sb-thread:signal-semaphore gate)
        (is-true (nth-value 1 (join stopping))))
      (mapc #'close (list busy late)))))

(define-test service.stop-ends-halves-of-headers (:weather nil)
  "Who has sent half a PROXY header when the service stops is not waited for. (In bad weather a part
of that can look as if it had not come yet, and a close with it unread is a reset.)"
  (let* ((server (serve #'echo-lines 0 :host "127.0.0.1" :proxy-protocol 20))
         (number (port-of (first (server-listeners server)))))
    (with-open-socket (half "127.0.0.1" number :input-timeout 10)
      (with-open-socket (silent "127.0.0.1" number :input-timeout 10)
        (write-string "PROXY TCP4" half)
        (finish-output half)
        (is-true (wait-until (lambda () (= 2 (client-count server)))))
        (multiple-value-bind (seconds ended) (seconds-of (lambda () (stop-server server :drain 10)))
          (is-true ended)
          (is (< seconds 8)))
        (is-answered-and-ended half)
        (is-answered-and-ended silent)))))

(define-test service.stop-leaves-the-deaf (:limit 60 :weather nil)
  "Who waits for input and does not read what others have sent him has no more time than the drain."
  (let* ((cell (list nil))
         (server (serve (keep-served cell) 0 :host "127.0.0.1"))
         (number (port-of (first (server-listeners server)))))
    (call-with-deaf-client
     (lambda (deaf)
       (declare (ignore deaf))
       (multiple-value-bind (seconds ended) (seconds-of (lambda () (stop-server server :drain 0.3)))
         (is-true ended)
         (is (<= 0.3 seconds 4))))
     number server cell)))

(define-test service.stop-sends-what-is-left ()
  "What others have written to a connection that waits, and not flushed, is sent; what the system
takes at once even without a drain."
  (dolist (drain (if (weather-p) '(5) '(5 0)))
    (let* ((cell (list nil))
           (server (serve (keep-served cell) 0 :host "127.0.0.1"))
           (number (port-of (first (server-listeners server)))))
      (with-open-socket (client "127.0.0.1" number :input-timeout 10)
        (is (equal "keep" (ask client "keep")))
        (is-true (wait-until (lambda () (eq :parked (port::client-state (only-client server))))))
        (write-line "late" (car cell))
        (is-true (stop-server server :drain drain))
        (is-answered-and-ended client "late")))))

(define-test service.stop-sends-to-who-reads-late (:weather nil)
  "What the system does not take at once of that is sent within the drain."
  (let* ((cell (list nil))
         (server (serve (keep-served cell) 0 :host "127.0.0.1"))
         (number (port-of (first (server-listeners server)))))
    (call-with-deaf-client
     (lambda (late)
       (let ((stopping (begin-to-stop server)) (octets (octets-of-size 65536)))
         (is-true (wait-until (lambda () (port::service-ending (service-of server)))))
         (let ((last (loop for count = (read-octets late octets)
                           until (zerop count)
                           sum (count (char-code #\x) octets :end count))))
           (is (plusp last))
           (is (zerop (mod last 5000)) "all of a text or none of it")) ; see FILL-THE-SYSTEM
         (is-true (nth-value 1 (join stopping)))))
     number server cell)))

(define-test service.a-clean-end-passes-over-what-has-come (:weather nil) ; it looks once
  "A client that speaks while what is left for it is sent reads that, and the end of file."
  (with-service (server number #'echo-one-line)
    (multiple-value-bind (own socket) (parked-client server number)
      (with-open-stream (own own)
        (let ((client (only-client server)))
          (is-true (port::change-state client :parked :running))
          (write-line "left" socket)
          (say own "late")
          (is-true (wait-until (lambda () (port::input-there-p client))))
          (port::end-cleanly (service-of server) client)
          (is-answered-and-ended own "left"))))))

;;; Hooks that take their time

(defun call-with-slow-hook (function handler &rest arguments)
  "Call FUNCTION with a server of HANDLER, its port, and a semaphore for which its hook of closes
waits once for each connection."
  (let ((gate (sb-thread:make-semaphore)))
    (call-with-service (lambda (server number)
                         (unwind-protect (funcall function server number gate)
                           (sb-thread:signal-semaphore gate 10)))
                       handler
                       (list* :on-close (lambda (socket)
                                          (declare (ignore socket))
                                          (sb-thread:wait-on-semaphore gate))
                              arguments))))

(define-test service.stop-aborts-while-a-hook-is-told ()
  "The thread that was the leader may be told of a close next; who stops the service does not wait
for that before it aborts the connections that are left."
  (let ((seen (sb-thread:make-semaphore)))
    (call-with-slow-hook
     (lambda (server number gate)
       (with-open-stream (parked (parked-client server number))
         (with-open-socket (served "127.0.0.1" number)
           (write-string "half a line" served)
           (finish-output served)
           (is-true (wait-until (lambda ()
                                  (let ((service (service-of server)))
                                    (and (= 2 (port::service-client-count service))
                                         (= 2 (port::service-thread-count service))
                                         (port::service-leader service))))))
           (let ((stop (in-thread (lambda ()
                                    (let ((port::*close-limit* 60))
                                      (stop-server server :drain 0))))))
             (is-true (sb-thread:wait-on-semaphore seen :timeout 10))
             (sb-thread:signal-semaphore gate 10)
             (is-true (join stop))))))
     #'echo-one-line :threads 2
     :on-error (lambda (condition socket)
                 (declare (ignore condition socket))
                 (sb-thread:signal-semaphore seen)))))

(define-test service.stop-leaves-a-hook-that-takes-its-time ()
  "However long the functions may take: once the last has returned what their closes are told to has
the usual time, and no more."
  (let ((inside (sb-thread:make-semaphore)) (go-on (sb-thread:make-semaphore)))
    (flet ((wait ()
             (sb-thread:signal-semaphore inside)
             (sb-thread:wait-on-semaphore go-on)))
      (call-with-slow-hook
       (lambda (server number gate)
         (declare (ignore gate))
         (with-open-socket (own "127.0.0.1" number)
           (say own "wait")
           (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
           (let ((stop (in-thread (lambda ()
                                    (let ((port::*close-limit* 0.1))
                                      (stop-server server :drain nil))))))
             (is-true (wait-until (lambda () (port::service-ending (service-of server)))))
             (sb-thread:signal-semaphore go-on)
             (is (null (join stop))))))
       (lambda (socket) (echo-one-line socket #'wait) nil)
       :threads 1))))

(define-test service.stop-within-a-stop ()
  "The end of a stop within another, as one that a signal makes, leaves the function to the outer
one."
  (let ((server nil))
    (flet ((stop (socket)
             (format socket "~{~A~^ ~}~%"
                     (multiple-value-list
                      (port::call-as-stopper
                       (service-of server)
                       (lambda ()
                         (values (stop-server server :drain 0)
                                 (port::others-p (service-of server))
                                 (port::threads-p (service-of server)))))))))
      (setf server (serve #'stop 0 :host "127.0.0.1"))
      (with-open-socket (client "127.0.0.1" (port-of (first (server-listeners server)))
                                :input-timeout 10)
        (is-answered-and-ended client "T NIL NIL"))
      (is-true (stop-server server)))))

(define-test service.stop-serves-what-is-left-behind (:weather nil)
  "A function that ends its thread while the service stops leaves those in the queue to another."
  (let ((gate (sb-thread:make-semaphore)) (inside (sb-thread:make-semaphore)))
    (let* ((server (serve (lambda (socket)
                            (let ((line (read-line socket)))
                              (when (equal line "abort")
                                (sb-thread:signal-semaphore inside)
                                (sb-thread:wait-on-semaphore gate)
                                (sb-thread:abort-thread))
                              (write-line line socket)))
                          0 :host "127.0.0.1" :threads 1))
           (number (port-of (first (server-listeners server))))
           (first (open-socket "127.0.0.1" number :input-timeout 10))
           (second (open-socket "127.0.0.1" number :input-timeout 10)))
      (say first "abort")
      (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
      (say second "x")
      (let ((stopping (begin-to-stop server)))
        (wait-until (lambda () (port::service-ending (service-of server))) 10)
        (sb-thread:signal-semaphore gate)
        (is-answered-and-ended second "x")
        (is-true (nth-value 1 (join stopping))))
      (close first)
      (close second))))

(defun stop-unwound-in (name server)
  "Stop SERVER and unwind that while it is in the function NAME, the first time."
  (let* ((inside (sb-thread:make-semaphore)) (interrupted (sb-thread:make-semaphore)) (met nil)
         (stopping (in-thread (lambda ()
                                (let ((self sb-thread:*current-thread*))
                                  (sb-int:encapsulate
                                   name 'test
                                   (lambda (function &rest arguments)
                                     (when (and (eq self sb-thread:*current-thread*)
                                                (not (shiftf met t)))
                                       (sb-thread:signal-semaphore inside)
                                       (sb-thread:wait-on-semaphore interrupted :timeout 10))
                                     (apply function arguments))))
                                (catch 'out (stop-server server))))))
    (unwind-protect
         (progn
           (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
           (sb-thread:interrupt-thread stopping (lambda () (throw 'out :unwound)))
           (sb-thread:signal-semaphore interrupted)
           (is (eq :unwound (join stopping))))
      (sb-int:unencapsulate name 'test))))

(define-test service.stop-unwound-leaves-nobody (:behaviour 26 :weather nil)
  "A connection that was just looked at or accepted for the last time is served or closed. (In bad
weather a queue can look as if it were empty.)"
  (dolist (name '(port::input-now-p port::new-client))
    (let* ((server (serve #'echo-one-line 0 :host "127.0.0.1" :await-input t))
           (number (port-of (first (server-listeners server)))))
      (when (eq name 'port::new-client)
        (leave-queued server))
      (with-open-socket (socket "127.0.0.1" number :input-timeout 10)
        (when (eq name 'port::input-now-p)
          (is-true (wait-until (lambda ()
                                 (let ((client (only-client server)))
                                   (and client (eq :parked (port::client-state client))))))))
        (stop-unwound-in name server)
        (is-answered-and-ended socket)
        (is-true (wait-until (lambda () (zerop (client-count server)))))
        (is-true (stop-server server :drain nil))))))

(define-test service.stop-unwound-as-it-begins-to-wait (:behaviour 26 :weather nil)
  "A function that is thrown out of its stop there has stopped being one that stops, once."
  (let ((counts '()) (server nil))
    (flet ((stop (socket)
             (catch 'out
               ;; so that what comes in the function is let in where that begins to wait
               (sb-sys:without-interrupts
                 (sb-sys:allow-with-interrupts
                   (call-interrupting 'port::own-client
                                      (lambda () (port::call-as-stopper (service-of server)
                                                                        (lambda () nil)))
                                      (lambda () (throw 'out nil))))))
             (push (port::client-stopping port::*client*) counts)
             (write-line "done" socket)))
      (setf server (serve #'stop 0 :host "127.0.0.1"))
      (with-open-socket (client "127.0.0.1" (port-of (first (server-listeners server)))
                                :input-timeout 10)
        (is-answered-and-ended client "done"))
      (is-true (stop-server server))
      (is (equal '(0) counts)))))

(define-test service.stop-unwound (:behaviour 26)
  "Who is thrown out of a stop before the threads are told leaves no service that can neither serve
nor end."
  (let* ((server (serve #'echo-one-line 0 :host "127.0.0.1"))
         (number (port-of (first (server-listeners server)))))
    (is (equal "x" (ask-once number "x")))
    (unwind-protect
         (progn (sb-int:encapsulate 'port::end-parked 'test
                                    (lambda (function &rest arguments)
                                      (declare (ignore function arguments))
                                      (throw 'out nil)))
                (catch 'out (stop-server server)))
      (sb-int:unencapsulate 'port::end-parked 'test))
    (is (typep (failure-of (open-socket "127.0.0.1" number)) 'connection-refused))
    (is-true (wait-until (lambda () (zerop (port::service-thread-count (service-of server))))))
    (is-true (stop-server server))))

(define-test service.stop-unwound-in-its-wait (:behaviour 26)
  "Where nobody waits for the threads any more the last of them leaves nothing open."
  (let ((inside (sb-thread:make-semaphore)) (gate (sb-thread:make-semaphore)))
    (flet ((wait ()
             (sb-thread:signal-semaphore inside)
             (sb-thread:wait-on-semaphore gate)))
      (let* ((server (serve (lambda (socket) (echo-one-line socket #'wait) nil) 0
                            :host "127.0.0.1"))
             (number (port-of (first (server-listeners server)))))
        (with-open-socket (own "127.0.0.1" number :input-timeout 10)
          (say own "wait")
          (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
          (let ((stopper (sb-thread:make-thread (lambda () (stop-server server :drain nil)))))
            (is-true (wait-until (lambda () (port::service-ending (service-of server)))))
            (sb-thread:terminate-thread stopper)
            (is-true (wait-until (lambda () (not (sb-thread:thread-alive-p stopper))))))
          (sb-thread:signal-semaphore gate)
          (is-answered-and-ended own "wait"))
        (is-true (wait-until (lambda () (null (what-is-left-in server)))))))))

;;; Waiting for the end

(define-test service.wait-for-its-end (:behaviour 4)
  "Whoever waits goes on when the last thread has ended, whoever has stopped the service; at once
where that has been before."
  (let* ((inside (sb-thread:make-semaphore)) (gate (sb-thread:make-semaphore))
         (server (serve (held-echo inside gate) 0 :host "127.0.0.1"))
         (waiter (in-thread (lambda () (wait-for-server server)))))
    (is (null (wait-for-server server :timeout 0)))
    (multiple-value-bind (seconds ended)
        (seconds-of (lambda () (with-deadline (60) (wait-for-server server :timeout 0.1))))
      (is (null ended))
      (is (<= 0.1 seconds 4)))
    (with-open-socket (busy "127.0.0.1" (port-of (first (server-listeners server))))
      (keep-busy busy inside)
      (let ((port::*close-limit* 0.1))
        (is (null (stop-server server :drain 0))))
      (is (null (wait-for-server server :timeout 0.1)))
      (is-true (sb-thread:thread-alive-p waiter))
      (sb-thread:signal-semaphore gate)
      (is (eq t (wait-for-server server :timeout 10)))
      (is (eq t (join waiter))))
    (is (eq t (wait-for-server server :timeout 0)))
    (is-true (stop-server server))))

(define-test service.wait-for-its-end-by-a-deadline (:behaviour (3 4))
  "The deadline of the thread that waits is a failure, and one can wait longer."
  (with-service (server number #'echo-lines)
    (let ((condition (is-failure (timeout :timed-out "wait failed: timed out (0.05 s)")
                       (with-deadline (0.05) (wait-for-server server :timeout 60)))))
      (is (eq :wait (network-operation condition)))
      (is (= 0.05 (timeout-time condition))))
    (is-failure (timeout :timed-out) (with-deadline (0) (wait-for-server server)))
    (let ((count 0))
      (is (null (handler-bind ((timeout (lambda (condition)
                                          (incf count)
                                          (wait-longer (and (< count 3) 0.05) condition))))
                  (with-deadline (0.05) (wait-for-server server :timeout 0.3)))))
      (is (= 3 count)))
    (signals type-error (wait-for-server server :timeout -1))
    (is-failure (usage-error :invalid "among :TIMEOUT") (wait-for-server server :wait 1))))

(define-test service.wait-for-its-end-by-itself ()
  "A function, or a hook, that waits for its own service would wait for ever; for another it may."
  (let ((reports '()) (server nil) (other (serve #'echo-lines 0 :host "127.0.0.1")))
    (flet ((wait (socket)
             (push (failure-of (wait-for-server server)) reports)
             (when (open-stream-p socket)
               (format socket "~A~%" (wait-for-server other :timeout 0)))))
      (setf server (serve #'wait 0 :host "127.0.0.1" :on-close #'wait))
      (with-open-socket (client "127.0.0.1" (port-of (first (server-listeners server)))
                                :input-timeout 10)
        (is-answered-and-ended client "NIL"))
      (is-true (wait-until (lambda () (rest reports))))
      (dolist (report reports)
        (is (typep report 'usage-error))
        (is-report report "wait failed: expected a thread that is none of the service's own"))
      (is-true (stop-server server))
      (is-true (stop-server other)))))

(defun waiting-thread (server)
  "A thread that is in WAIT-FOR-SERVER, and returns what that does or what is thrown to OUT."
  (let* ((inside (sb-thread:make-semaphore))
         (lock (port::service-lock (service-of server)))
         (thread (in-thread
                  (lambda ()
                    (let ((self sb-thread:*current-thread*))
                      (sb-int:encapsulate 'port::%condition-wait 'test
                                          (lambda (function &rest arguments)
                                            (when (eq self sb-thread:*current-thread*)
                                              (sb-thread:signal-semaphore inside))
                                            (apply function arguments))))
                    (catch 'out (wait-for-server server))))))
    (unwind-protect (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
      (sb-int:unencapsulate 'port::%condition-wait 'test))
    (port::%with-lock (lock))           ; which it gives up as it begins to wait
    thread))

(define-test service.wait-for-its-end-unwound (:behaviour 26)
  "What interrupts the wait may leave it, or stop the service."
  (let ((server (serve #'echo-lines 0 :host "127.0.0.1")) (stopped nil))
    (let ((thread (waiting-thread server)))
      (sb-thread:interrupt-thread thread (lambda () (throw 'out :unwound)))
      (is (eq :unwound (join thread))))
    (let ((thread (waiting-thread server)))
      (sb-thread:interrupt-thread thread (lambda () (setf stopped (stop-server server))))
      (is (eq t (join thread)))
      (is (eq t stopped)))))

(defun look-for-locks (found)
  "Interrupt each thread once as it begins to wait on a condition of a service, and put into the car
of FOUND, which is empty, the thread and what kept the interrupt from taking the lock, or NIL."
  (let ((seen (list '())))
    (sb-int:encapsulate
     'port::%condition-wait 'test
     (lambda (function condition lock &rest seconds)
       (let ((self sb-thread:*current-thread*))
         (unless (member self (car seen))
           (sb-ext:atomic-push self (car seen))
           (sb-thread:interrupt-thread
            self
            (lambda ()
              (let ((failure (handler-case (port::%with-lock (lock) nil)
                               (error (failure) failure))))
                (sb-ext:atomic-push (cons self failure) (car found))))))
         (apply function condition lock seconds))))))

(define-test service.what-interrupts-a-wait-finds-its-lock-free (:behaviour 26)
  "Who waits for the end of a service, and its threads with nothing to do: what interrupts them may
stop the service, or end the process, for which others have to have that lock."
  (let ((found (list '())) (server nil) (waiter nil))
    (look-for-locks found)
    (unwind-protect
         (progn
           (setf server (serve #'echo-one-line 0 :host "127.0.0.1")
                 waiter (in-thread (lambda () (wait-for-server server))))
           (is (equal "x" (ask-once (port-of (first (server-listeners server))) "x")))
           (is-true (wait-until (lambda ()
                                  (and (assoc waiter (car found)) (rest (car found))))))
           (is-true (stop-server server))
           (is-true (join waiter)))
      (sb-int:unencapsulate 'port::%condition-wait 'test))
    (is (null (remove nil (mapcar #'cdr (car found)))))))

(define-test service.ends-with-its-listeners (:behaviour 15)
  "Once they have been closed nobody new comes in; who is there is served to his end, and then the
service ends by itself."
  (let* ((path (temporary-path))
         (server (serve #'echo-one-line (list 0 path) :host "127.0.0.1" :threads 2))
         (listeners (server-listeners server)))
    (with-open-stream (parked (parked-client server (port-of (first listeners))))
      (close (second listeners))
      (with-open-socket (half "127.0.0.1" (port-of (first listeners)) :input-timeout 10)
        (write-string "begun " half)
        (finish-output half)
        (is-true (wait-until (lambda () (= 2 (client-count server)))))
        (close (first listeners))
        (is (null (wait-for-server server :timeout 0.1)))
        (dotimes (i 3)
          (is (equal "x" (ask parked "x"))))
        (is (equal "begun y" (ask half "y"))))
      (is (equal "x" (ask parked "x")))
      (is (null (wait-for-server server :timeout 0.1))))
    (is-true (wait-for-server server :timeout 10))
    (is (null (what-is-left-in server)))
    (is (search "stopped" (princ-to-string server)))
    (is-true (stop-server server))))

(define-test service.ends-with-the-listeners-that-others-serve-too ()
  "The one listener of two services, and of one that nobody is connected to."
  (let* ((listener (open-socket-server 0 :host "127.0.0.1"))
         (servers (list (serve #'echo-one-line listener) (serve #'echo-one-line listener))))
    (dolist (server servers)
      (is (null (wait-for-server server :timeout 0))))
    (close listener)
    (dolist (server servers)
      (is-true (wait-for-server server :timeout 10))
      (is (null (what-is-left-in server))))))

(define-test service.a-script-ends-with-its-service (:limit 60)
  "A program that waits for its service does not end before, and ends then."
  (let ((child (uiop:launch-program
                (lisp-command
                 (append (loading (here))
                         (list "(defvar *server*
                                  (port:serve (lambda (socket)
                                                (read-line socket)
                                                (port:stop-server *server*)
                                                (write-line \"stopped\" socket))
                                              0 :host \"127.0.0.1\"))"
                               "(progn (print (nth-value 1 (port:socket-server-host/port
                                                            (first (port:server-listeners
                                                                    *server*)))))
                                       (finish-output)
                                       (print (port:wait-for-server *server*)))")))
                :output :stream)))
    (unwind-protect
         (let ((output (uiop:process-info-output child)))
           (with-open-socket (client "127.0.0.1" (read output) :input-timeout 10)
             (is-true (uiop:process-alive-p child))
             (is (equal "stopped" (ask client "stop"))))
           (is (eq t (read output)))
           (is (eql 0 (uiop:wait-process child))))
      (when (uiop:process-alive-p child)
        (uiop:terminate-process child :urgent t))
      (uiop:wait-process child)
      (uiop:close-streams child))))
