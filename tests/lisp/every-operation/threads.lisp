;;;; threads - many at once on the same sockets; signals and collections meanwhile.

(in-package :port/test)

(define-suite threads "Many threads, signals, collections.")

(defun start-threads (count function)
  "Start COUNT threads that call FUNCTION with their number."
  (loop for number below count
        collect (let ((number number))
                  (in-thread (lambda () (funcall function number))))))

(defun call-under-signals (function)
  "Call FUNCTION while this thread gets 1,000 signals a second and another one collects garbage; the
values of FUNCTION."
  (let* ((self sb-thread:*current-thread*)
         (done nil)
         (signals (in-thread (lambda ()
                               (loop until done
                                     do (sb-thread:interrupt-thread self (lambda ()))
                                        (sleep 0.001)))))
         (collections (in-thread (lambda ()
                                   (loop until done
                                         do (sb-ext:gc)
                                            (sleep 0.002))))))
    (unwind-protect (funcall function)
      (setf done t)
      (join signals)
      (join collections))))

(define-test threads.deadlines-under-signals (:behaviour 12 :limit 60)
  "No interruption surfaces, and no deadline is early or late."
  (do-pairs (a b)
    (call-under-signals
     (lambda ()
       (dolist (call (list (lambda () (read-line b)) (lambda () (read-octets b (blank 5)))
                           (lambda () (wait-for-stream b))))
         (multiple-value-bind (seconds condition)
             (seconds-of (lambda () (failure-of (with-deadline (0.2) (funcall call)))))
           (is (typep condition 'timeout) "~S" condition)
           (is (<= 0.2 seconds 2))))))
    (send-octets a "as ever" 10)
    (is (string= "as ever" (read-line b)))))

(define-test threads.transfers-under-signals (:behaviour 12 :limit 60)
  "Octets go out and come back, each once."
  (do-pairs (a b)
    (let ((echo (in-thread (lambda ()
                             (loop with room = (blank 4096)
                                   for count = (read-some b room)
                                   until (zerop count)
                                   do (write-octets b room :end count)
                                      (finish-output b))
                             (close b))))
          (out (random-octets (amount 300000) (sb-ext:seed-random-state (test-seed)))))
      (let ((writer (in-thread (lambda ()
                                 (write-octets a out)
                                 (socket-shutdown a :output)))))
        (is (equalp out (call-under-signals (lambda () (everything a)))))
        (join writer)
        (join echo)))))

(defun talk-tagged (number port)
  "Dial, send a line with NUMBER and read it back; true if it is the same."
  (with-open-socket (socket "127.0.0.1" port :timeout 10 :input-timeout 10)
    (format socket "~D~%" number)
    (finish-output socket)
    (eql number (parse-integer (read-line socket)))))

(defun echo-line-and-close (server)
  (let ((peer (socket-accept server)))
    (unwind-protect (progn (write-line (read-line peer) peer)
                           (finish-output peer))
      (close peer :abort nil))))

(define-test threads.no-octet-crosses (:behaviour 19 :limit 60)
  "Descriptors are closed and used again all the time, and every connection gets its own octets. (10
minutes of it: `make stress`.)"
  (let* ((server (open-socket-server 0 :host "127.0.0.1"))
         (port (port-of server))
         (end (+ (get-internal-real-time)
                 (* (if (weather-p) 2 10) internal-time-units-per-second)))
         (servers (start-threads 4 (lambda (number)
                                     (declare (ignore number))
                                     (handler-case (loop (echo-line-and-close server))
                                       (socket-closed () :closed)))))
         (movers (start-threads 2 (lambda (number)
                                    (declare (ignore number))
                                    (loop while (< (get-internal-real-time) end)
                                          do (multiple-value-bind (a b) (open-socket-pair)
                                               (close a)
                                               (close b))))))
         (dialers (start-threads 6 (lambda (number)
                                     (loop for round from 0
                                           while (< (get-internal-real-time) end)
                                           always (talk-tagged (+ (* 1000000 number) round)
                                                               port))))))
    (dolist (dialer dialers)
      (is-true (join dialer)))
    (mapc #'join movers)
    (close server)
    (dolist (thread servers)
      (is (eq :closed (join thread))))))

(define-test threads.a-hundred-of-each (:behaviour 20 :limit 60)
  "Reads, writes, deadlines and questions for names, 100 of each at once; then a round trip works."
  (do-pairs (a b)
    (let ((readers (start-threads 100 (lambda (number)
                                        (declare (ignore number))
                                        (read-byte b))))
          (others (append
                   (start-threads 100 (lambda (number)
                                        (write-byte (mod number 256) a)
                                        (finish-output a)))
                   (start-threads 100 (lambda (number)
                                        (setf (socket-deadline b :input) (+ 10 number)
                                              (socket-deadline a :output) (+ 10 number))))
                   (start-threads 100 (lambda (number)
                                        (declare (ignore number))
                                        (socket-host/port b)
                                        (socket-string a))))))
      (mapc #'join others)
      (is (equal (loop for number below 100 collect number)
                 (sort (mapcar #'join readers) #'<)))
      (setf (socket-deadline b :input) nil
            (socket-deadline a :output) nil)
      (send-octets a "there" 10)
      (is (string= "there" (read-line b)))
      (send-octets b "and back" 10)
      (is (string= "and back" (read-line a))))))

(define-test threads.thrown-out-of-a-connect (:behaviour (17 26))
  "A connect in progress has no object yet to be closed: a throw ends it and leaves nothing."
  (call-with-black-hole
   (lambda (port open)
     (declare (ignore open))
     (dolist (timeout '(nil 30))
       (let* ((before (lport-socket-count))
              (thread (in-thread (lambda ()
                                   (catch 'out
                                     (open-socket "127.0.0.1" port :timeout timeout))))))
         (is-true (wait-until (lambda () (> (lport-socket-count) before))))
         (sb-thread:interrupt-thread thread (lambda () (throw 'out :thrown)))
         (is (eq :thrown (join thread))))))))
