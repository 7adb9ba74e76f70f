;;;; service-load - services at the limit of descriptors, in storms, and with ten thousand
;;;; connections. Where both ends do not fit into one process the other one is a companion.

(in-package :port/test)

(define-suite service-load "Services under load.")

(defun set-descriptor-limit (limit)
  "Set the soft limit of descriptors; returns the old one."
  (cffi:with-foreign-object (limits :uint64 2)
    (cffi:foreign-funcall "getrlimit" :int 7 :pointer limits :int)
    (prog1 (cffi:mem-aref limits :uint64 0)
      (setf (cffi:mem-aref limits :uint64 0) limit)
      (cffi:foreign-funcall "setrlimit" :int 7 :pointer limits :int))))

(defun process-seconds ()
  (/ (get-internal-run-time) internal-time-units-per-second 1.0))

(defun spend-descriptors (number until)
  "Connect to port NUMBER of this host until UNTIL is true, at the limit of descriptors: ends of
this process and of the service, until there is no descriptor left. Where the last one went to this
end, the service needs one that it does not get. Returns the clients."
  (let ((used (reduce #'max (open-descriptors)
                      :key (lambda (line) (parse-integer line :junk-allowed t)))))
    (loop for limit from (+ used 21) below (+ used 30)
          do (set-descriptor-limit limit)
          nconc (loop for socket = (handler-case (open-socket "127.0.0.1" number :timeout 1)
                                     (resource-exhausted () nil))
                      while socket collect socket)
          until (wait-until until 1))))

(define-test service.descriptor-limit (:behaviour 57 :limit 60)
  "At the limit of descriptors the service says so once, however long that lasts, does not spin, and
serves again; at the next time it says so again."
  (let ((conditions '()) (old (set-descriptor-limit 1000)))
    (set-descriptor-limit old)
    (with-service (server number #'echo-one-line :await-input t
                          :on-error (lambda (condition socket)
                                      (push (cons condition socket) conditions)))
      (is (equal "before" (ask-once number "before")))
      (dotimes (time 2)
        ;; The service's end of a connection before has gone: it would make room in the midst of it.
        (is-true (wait-until (lambda () (zerop (client-count server)))))
        (let ((sockets '()))
          (unwind-protect
               (progn
                 (setf sockets (spend-descriptors number (lambda ()
                                                           (> (length conditions) time))))
                 (let ((before (process-seconds)))
                   (sleep 0.5)
                   (is (< (- (process-seconds) before) 0.25) "it spins"))
                 (if (weather-p)
                     (is (<= (1+ time) (length conditions) 10))
                     (is (= (1+ time) (length conditions))))
                 (is (typep (car (first conditions)) 'resource-exhausted))
                 (is (typep (cdr (first conditions)) 'socket-server)))
            (set-descriptor-limit old)
            (mapc #'close sockets)))
        (is (equal "after" (with-deadline (10) (ask-once number "after"))))))))

(define-test service.no-thread-can-be-made (:weather nil)
  "A service that gets none of its threads says so, and listens nowhere."
  (let ((before (open-things)))
    (call-without-new-threads
     (lambda ()
       (is-failure (resource-exhausted :threads-exhausted "no thread could be made")
         (serve #'identity 0 :host "127.0.0.1"))))
    (is (null (leaks before)) "~A" (leaks before))))

(define-test service.descriptors-of-others (:behaviour 57 :limit 60 :weather nil)
  "A service that finds no descriptor serves once others have given some back, though no connection
of its own has ended."
  (let ((refused (sb-thread:make-semaphore)) (refused-p nil) (sockets '()) (others '()))
    (flet ((take (open)
             (handler-case (funcall open) (resource-exhausted () nil))))
      (with-service (server number #'echo-one-line :await-input t
                            :on-error (lambda (condition socket)
                                        (declare (ignore condition socket))
                                        (sb-thread:signal-semaphore refused)))
        (is (equal "before" (ask-once number "before")))
        (is-true (wait-until (lambda () (zerop (client-count server)))))
        (let ((old (set-descriptor-limit
                    (+ 100 (length (descriptor-entries "/proc/self/fd/"))))))
          (unwind-protect
               (progn
                 (loop for other = (take #'open-datagram-socket)
                       while other do (push other others))
                 ;; What the end of this process needs; the service then finds none left.
                 (loop until (or (null others)
                                 (setf refused-p (sb-thread:wait-on-semaphore
                                                  refused :timeout 0.2)))
                       do (close (pop others))
                          (let ((socket (take (lambda ()
                                                (open-socket "127.0.0.1" number :timeout 5)))))
                            (when socket (push socket sockets)))))
            (set-descriptor-limit old)
            (mapc #'close others)))
        (is-true refused-p)
        (is (equal "after" (with-deadline (10) (ask (first sockets) "after"))))
        (mapc #'close sockets)))))

(define-test service.storm (:limit 120)
  "Clients that reset at random moments leave the service serving, and nothing behind."
  (let ((state (sb-ext:seed-random-state 6)) (octets (octets-like (format nil "hello~%hel"))))
    (with-service (server number #'echo-one-line :threads 4 :timeout 5
                          :on-error (constantly nil))
      (let ((storm (loop repeat 3
                         collect (let ((state (make-random-state state)))
                                   (in-thread
                                    (lambda ()
                                      (dotimes (i 300)
                                        (let ((socket (open-socket "127.0.0.1" number :timeout 10)))
                                          (handler-case
                                              (progn
                                                (write-sequence octets socket
                                                                :end (random (length octets) state))
                                                (finish-output socket)
                                                (when (zerop (random 3 state))
                                                  (read-char-no-hang socket)))
                                            (connection-lost ()))
                                          (close socket :abort (plusp (random 4 state)))))))))))
        (mapc #'join storm))
      (is (equal "after" (ask-once number "after")))
      (is-true (wait-until (lambda () (zerop (client-count server))) 10)))))

;;; Ten thousand
;;;
;;; One end of each connection is in a companion.

(defun herd-size ()
  "How many connections make a herd here: 10,000, or the hundreds that the limit of descriptors
allows; then the test counts as skipped, although it checks the same of fewer."
  (let ((size (min 10000 (* 100 (floor (- (descriptor-limit) 500) 100)))))
    (when (< size 10000)
      (skip "only ~D connections: more descriptors are not allowed" size))
    size))

(defparameter *herd-forms*
  '((defvar *herd* '())
    (defvar *herd-lock* (sb-thread:make-mutex))
    (defun exchange (socket)
      (write-line "hello" socket)
      (finish-output socket)
      (equal "hello" (read-line socket nil)))
    ;; Dial COUNT times on each of THREADS threads; how many connections were served.
    (defun gather (port threads count)
      (flet ((dial ()
               (loop repeat count
                     count (let ((socket (open-socket "127.0.0.1" port :timeout 60
                                                                       :input-timeout 60)))
                             (sb-thread:with-mutex (*herd-lock*)
                               (push socket *herd*))
                             (exchange socket)))))
        (reduce #'+ (mapcar #'sb-thread:join-thread
                            (loop repeat threads collect (sb-thread:make-thread #'dial))))))
    ;; How many of all read the end of file and nothing before it.
    (defun scatter ()
      (prog1 (loop for socket in *herd*
                   count (null (handler-case (read-line socket nil)
                                 (network (condition) condition))))
        (mapc #'close *herd*)
        (setf *herd* '())))
    t)
  "What a companion that has a herd of clients is told first.")

(defmacro with-herd ((companion size) &body body)
  "Run BODY with COMPANION, which can GATHER and SCATTER a herd of SIZE clients."
  `(let ((,size (herd-size)))
     (with-companion (,companion :descriptors (+ ,size 500))
       (tell ,companion '(progn ,@(symbol-value '*herd-forms*)))
       ,@body)))

(defun is-refused-and-free (number)
  "Check that nobody listens on port NUMBER, and that somebody can again."
  (is (typep (failure-of (open-socket "127.0.0.1" number)) 'connection-refused))
  (with-socket-server (server number :host "127.0.0.1")
    (is (= number (port-of server)))))

(define-test service.ten-thousand-clients (:behaviour (15 58) :limit 180 :weather nil)
  "A hundred threads dial, ten serve: all are served and stay; the stop lets go of all, and the port
is free then."
  (with-herd (companion size)
    (with-service (server number #'echo-one-line :threads 10 :backlog 4096)
      (is (= size (tell companion `(gather ,number 100 ,(floor size 100)))))
      (is (= size (client-count server)))
      (is (<= (port::service-thread-count (service-of server)) 10))
      (multiple-value-bind (seconds ended) (seconds-of (lambda () (stop-server server)))
        (is-true ended)
        (is (< seconds 10) "~A s" seconds))
      (is (= size (tell companion '(scatter))))
      (is-refused-and-free number))))

(defun start-acceptors (count server sockets)
  "COUNT threads that accept from SERVER, echo a line and put the connection into the cell SOCKETS:
what ends each is its value."
  (loop repeat count
        collect (in-thread
                 (lambda ()
                   (failure-of
                     (loop (let ((socket (socket-accept server :input-timeout 60)))
                             (write-line (read-line socket) socket)
                             (finish-output socket)
                             (sb-ext:atomic-push socket (car sockets)))))))))

(defun is-ended-by (class threads)
  (dolist (thread threads)
    (let ((condition (join thread)))
      (is (typep condition class) "~A" condition))))

(define-test service.ten-thousand-accepted (:behaviour (6 15 58) :limit 180 :weather nil)
  "The same without a service: ten threads accept. With all of them open a deadline that has passed
ends the accepts, with a client in the queue too, who is accepted once it is cleared; and a close."
  (with-herd (companion size)
    (let* ((server (open-socket-server 0 :host "127.0.0.1" :backlog 4096))
           (number (port-of server))
           (sockets (list '()))
           (acceptors (start-acceptors 10 server sockets)))
      (is (= size (tell companion `(gather ,number 100 ,(floor size 100)))))
      (is-true (wait-until (lambda () (= size (length (car sockets))))))
      (setf (socket-deadline server :input) 0)
      (is-ended-by 'timeout acceptors)
      (with-open-socket (client "127.0.0.1" number)
        (is (typep (failure-of (socket-accept server)) 'timeout))
        (is (typep (failure-of (socket-accept server :wait 0)) 'timeout))
        (setf (socket-deadline server :input) nil)
        (with-open-stream (peer (socket-accept server))
          (is (eql (nth-value 3 (socket-host/port client)) (nth-value 1 (socket-host/port peer))))))
      (setf acceptors (loop repeat 10
                            collect (start-blocked (lambda () (socket-accept server)))))
      (close server)
      (is-ended-by 'socket-closed acceptors)
      (is-refused-and-free number)
      (mapc #'close (car sockets))
      (is (= size (tell companion '(scatter)))))))

;;; At the limit

(defparameter *limited-forms*
  '((defvar *conditions* '())
    (defun echo-one-line (socket)
      (let ((line (read-line socket nil)))
        (when line
          (write-line line socket)
          :again)))
    (defvar *gate* (sb-thread:make-semaphore :count 1000000)) ; closed by who takes all of it
    (defun note-condition (condition socket)
      (push (list (type-of condition) (type-of socket)) *conditions*)
      (sb-thread:wait-on-semaphore *gate*))
    (defvar *server* (serve #'echo-one-line 0 :host "127.0.0.1" :backlog 4096 :threads 4
                                              :await-input t :on-error 'note-condition))
    (defun port-number ()
      (nth-value 1 (socket-server-host/port (first (server-listeners *server*)))))
    (defun client-count ()
      (port::service-client-count (port::server-service *server*)))
    (defun exhaustions ()
      (count '(resource-exhausted socket-server) *conditions* :test #'equal))
    ;; The seconds of processor time that pass in half a second.
    (defun busy-seconds ()
      (let ((start (get-internal-run-time)))
        (sleep 0.5)
        (/ (- (get-internal-run-time) start) internal-time-units-per-second 1.0)))
    (port-number))
  "What a companion with a service that is to meet its limit of descriptors is told first.")

(defmacro with-limited-service ((companion number descriptors) &body body)
  "Run BODY with COMPANION, whose service at port NUMBER has DESCRIPTORS descriptors at the most."
  `(with-companion (,companion :descriptors ,descriptors)
     (let ((,number (tell ,companion '(progn ,@(symbol-value '*limited-forms*)))))
       ,@body)))

(define-test service.ten-thousand-at-the-limit (:behaviour 57 :limit 180 :weather nil)
  "At ten thousand connections no descriptor is left: the service says so, does not spin, passes
over connections that were reset in the queue, and serves all others once there is room."
  (let ((size (herd-size)) (sockets '()))
    (with-limited-service (companion number (+ size 50))
      (unwind-protect
           (progn
             (setf sockets (loop repeat (+ size 100 (floor size 25))
                                 collect (open-socket "127.0.0.1" number :timeout 60
                                                                         :input-timeout 60)))
             (is-true (wait-until (lambda () (plusp (tell companion '(exhaustions)))) 60))
             (is (< (tell companion '(busy-seconds)) 0.25) "it spins")
             (is (<= size (tell companion '(client-count)) (+ size 50)))
             ;; It looks again after each pause, and says it again only where one was let in. Later
             ;; each connection that ends lets one in, and there may be no room for the next.
             (is (<= 1 (tell companion '(exhaustions)) 5))
             ;; some of those that were accepted, and of those that wait in the queue
             (loop for (nil . rest) on sockets by (lambda (list) (nthcdr 4 list))
                   do (when rest (close (first rest) :abort t)))
             (dolist (socket (setf sockets (delete-if-not #'open-stream-p sockets)))
               (is (equal "served" (ask socket "served"))))
             (is-true (wait-until (lambda () (= (length sockets) (tell companion '(client-count))))
                                  20)))
        (mapc #'close sockets))
      (is-true (wait-until (lambda () (zerop (tell companion '(client-count)))) 20)))))

(define-test service.slow-hook (:behaviour 57 :limit 60 :weather nil)
  "While the hook is told of a failed accept and takes its time, others are served; it is told again
only after it has returned, and another connection was accepted."
  (with-limited-service (companion number 100)
    (with-open-socket (client "127.0.0.1" number :input-timeout 10)
      (is (equal "before" (ask client "before")))
      (tell companion '(sb-thread:try-semaphore *gate* (sb-thread:semaphore-count *gate*)))
      (let ((sockets (loop repeat 100 collect (open-socket "127.0.0.1" number :input-timeout 10))))
        (is-true (wait-until (lambda () (= 1 (tell companion '(exhaustions)))) 10))
        (dotimes (i 20)
          (is (equal "meanwhile" (ask client "meanwhile"))))
        ;; the listener is looked at again, in vain, and the hook is not told of it
        (tell companion '(busy-seconds))
        (is (= 1 (tell companion '(exhaustions))))
        (tell companion '(progn (sb-thread:signal-semaphore *gate*) t))
        (tell companion '(busy-seconds))
        (is (= 1 (tell companion '(exhaustions))))
        ;; Which lets others in, but not all; a wait may take a descriptor, too.
        (loop repeat 5 do (close (pop sockets)))
        (is-true (wait-until (lambda () (= 2 (tell companion '(exhaustions)))) 10))
        (tell companion '(progn (sb-thread:signal-semaphore *gate* 1000) t))
        (mapc #'close sockets))
      (is (equal "after" (ask client "after"))))
    (is (equal "after" (ask-once number "after")))))

(define-test service.process-ends (:limit 60)
  "A process with a service that runs, with a connection that waits and one that is served, ends at
once."
  (let ((clients '()))
    (multiple-value-bind (seconds value)
        (seconds-of
         (lambda ()
           (with-limited-service (companion number 100)
             (setf clients (loop repeat 2
                                 collect (open-socket "127.0.0.1" number :input-timeout 10)))
             (is (equal "x" (ask (first clients) "x")))
             (write-string "half a line" (second clients))
             (finish-output (second clients)))))
      (declare (ignore value))
      (is (< seconds 30) "~A s" seconds))
    (dolist (client clients)
      (is (null (handler-case (read-line client nil)
                  (connection-reset () nil))))
      (close client))))

(define-test service.process-ends-while-threads-are-made (:limit 60)
  "Who makes a thread just when the process ends does not keep it from ending."
  (is (< (seconds-of
          (lambda ()
            (with-companion (companion :descriptors 100)
              (is (eq t (tell companion
                              '(flet ((make-threads ()
                                       (port::call-deferred
                                         (loop while (port::start-thread (lambda ()) "short")))))
                                (sb-thread:make-thread #'make-threads)
                                (sb-thread:make-thread #'make-threads)
                                (sleep 0.1)
                                t)))))))
         30)))

(defun storm (number count state)
  "Dial COUNT times to port NUMBER, say part of something, and reset or close at a random moment: at
once, or together with the others that were kept, a hundred or so."
  (let ((kept '()) (octets (octets-like (format nil "hello~%hel"))))
    (flet ((end (socket)
             (close socket :abort (plusp (random 4 state)))))
      (loop repeat count
            do (let ((socket (open-socket "127.0.0.1" number :timeout 30)))
                 (handler-case
                     (progn
                       (write-sequence octets socket :end (random (1+ (length octets)) state))
                       (finish-output socket)
                       (when (zerop (random 3 state))
                         (read-char-no-hang socket)))
                   (connection-lost () nil))
                 (if (zerop (random 3 state))
                     (end socket)
                     (push socket kept))
                 (when (zerop (random 100 state))
                   (mapc #'end (shiftf kept '())))))
      (mapc #'end kept))))

(define-test service.storm-at-the-limit (:behaviour 57 :limit 120 :weather nil)
  "Ten thousand connects that reset at random moments, while the limit of descriptors is reached and
left again: the service, in a process of its own, serves, and has nothing more than before."
  (with-limited-service (companion number 150)
    (is (equal "before" (ask-once number "before")))
    (is-true (wait-until (lambda () (zerop (tell companion '(client-count))))))
    (let ((descriptors (descriptors-of companion))
          (sockets (tell companion '(port.ffi:lport-socket-count)))
          (state (sb-ext:seed-random-state (test-seed))))
      (mapc #'join (loop repeat 4
                         collect (let ((state (make-random-state state)))
                                   (random 100 state)
                                   (in-thread (lambda () (storm number 2500 state))))))
      (is (equal "after" (ask-once number "after")))
      (is-true (wait-until (lambda () (zerop (tell companion '(client-count)))) 20))
      (is (plusp (tell companion '(exhaustions))) "the limit was not reached")
      (is (= sockets (tell companion '(port.ffi:lport-socket-count))))
      (is (null (set-exclusive-or descriptors (descriptors-of companion) :test #'string=))))))

;;; Idle

(defun context-switches ()
  "How often the threads of this process have been put on and off a processor, all together."
  (loop for path in (directory "/proc/self/task/*/status" :resolve-symlinks nil)
        sum (loop for line in (rest (runs-of path))
                  sum (parse-integer line :start (1+ (position #\: line))))))

(defun used-memory ()
  (sb-ext:gc :full t)
  (sb-kernel:dynamic-usage))

(define-test service.many-idle-connections (:behaviour 46 :limit 180 :weather nil)
  "Ten thousand idle connections cost no thread and no wake-up, and any of them is served."
  (with-herd (companion size)
    (with-service (server number #'echo-one-line :threads 4 :await-input t :backlog 4096)
      (let ((memory (used-memory)))
        (is (= size (tell companion `(gather ,number 10 ,(floor size 10)))))
        (is (= size (client-count server)))
        (let ((more (- (used-memory) memory)))
          ;; and what the service itself takes, which shows where the herd is small
          (is (< more (+ (* 1024 size) 400000)) "~A octets for ~D" more size)))
      (is (<= (port::service-thread-count (service-of server)) 4))
      (sleep 0.1)                       ; the ticker falls asleep
      (let ((before (process-seconds)) (switches (context-switches)))
        (sleep 0.3)
        (is (< (- (process-seconds) before) 0.05))
        ;; this thread's own sleep, and what the system does with threads now and then
        (is (< (- (context-switches) switches) 10)))
      (is-true (tell companion '(loop for socket in *herd* by (lambda (list) (nthcdr 400 list))
                                      always (exchange socket))))
      (tell companion '(progn (mapc #'close *herd*) (setf *herd* '())))
      (is-true (wait-until (lambda () (zerop (client-count server))) 20)))))
