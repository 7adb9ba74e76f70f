;;;; checks - the checks by name, in the order they run. Each gets two connected streams, A and B.

(in-package :port/conformance)

(defstruct (check (:copier nil) (:predicate nil))
  name needs documentation function)

(defvar *checks* '() "All checks, the last one first.")

(defmacro define-check (name (&rest needs) documentation &body body)
  "Define check NAME, which needs the slots NEEDS of the transport. BODY sees A and B."
  `(progn
     (setf *checks* (remove ',name *checks* :key #'check-name))
     (push (make-check :name ',name :needs ',needs :documentation ,documentation
                       :function (lambda (a b) (declare (ignorable a b)) ,@body))
           *checks*)))

;;; Octets

(defconstant +little+ 20
  "Octets that any connection takes while nobody reads them, even where each costs a buffer.")

(define-check basic-transfer ()
    "Random octets in writes of 1 KiB arrive as they were sent, and then the end of file."
  (let ((all (random-octets (transport-amount *transport*) 1)))
    (ensure-same all
                 (second (together (lambda ()
                                     (loop for start from 0 below (length all) by 1024
                                           do (send a all start (min (length all)
                                                                     (+ start 1024))))
                                     (close a))
                                   (lambda () (everything b)))))))

(define-check ping-pong ()
    "1,000 octets one after the other go out and come back."
  (together (lambda ()
              (loop for octet = (read-byte b nil)
                    while octet
                    do (write-byte octet b)
                       (finish-output b)))
            (lambda ()
              (dotimes (step 1000)
                (write-byte (mod step 256) a)
                (finish-output a)
                (let ((octet (read-byte a)))
                  (ensure-that (= octet (mod step 256)) "step ~D brought ~D" step octet)))
              (close a))))

(define-check full-duplex ()
    "Both ways at once, in random pieces of up to 16,384 octets."
  (let ((one (random-octets (transport-amount *transport*) 2))
        (two (random-octets (transport-amount *transport*) 3)))
    (flet ((sending (stream octets salt)
             (lambda ()
               (loop with source = (random-source salt) and start = 0
                     while (< start (length octets))
                     do (let ((end (min (length octets) (+ start 1 (funcall source 16384)))))
                          (send stream octets start end)
                          (setf start end)))))
           (receiving (stream count salt)
             (lambda ()
               (loop with source = (random-source salt) and all = (octets count) and start = 0
                     while (< start count)
                     do (let* ((end (min count (+ start 1 (funcall source 16384))))
                               (stop (read-sequence all stream :start start :end end)))
                          (ensure-that (= stop end) "end of file after ~D octets" stop)
                          (setf start end))
                     finally (return all)))))
      (let ((outcomes (together (sending a one 4) (sending b two 5)
                                (receiving b (length one) 6) (receiving a (length two) 7))))
        (ensure-same one (third outcomes))
        (ensure-same two (fourth outcomes))))))

(define-check empty-transfers ()
    "Nothing read and nothing written is no end of file and no error."
  (send a (octets 0))
  (ensure-that (zerop (length (receive b 0))) "octets came from nowhere")
  (send a (random-octets 3 8))
  (ensure-same (random-octets 3 8) (receive b 3)))

(define-check some-octets (read-some)
    "What is there is given at once, and not waited for until the vector is full."
  (let ((room (octets 100)))
    (send a (random-octets 10 9))
    (loop with count = 0
          while (< count 10)
          do (let ((more (funcall (transport-read-some *transport*) b room count)))
               (ensure-that (plusp more) "end of file")
               (incf count more))
          finally (ensure-same (random-octets 10 9) (subseq room 0 count)))
    (close a)
    (ensure-that (zerop (funcall (transport-read-some *transport*) b room 0)) "no end of file")))

;;; Limits of time

(define-check past-read-deadline (timeout-p set-deadline)
    "A deadline in the past fails a read although octets are there; cleared, all of them are read."
  (send a (random-octets +little+ 10))
  (let ((first (receive b 1)))
    (sleep 0.01)
    (set-deadline b :input -1)
    (ensure-timeout (lambda () (read-byte b)))
    (ensure-timeout (lambda () (receive b 10)))
    (set-deadline b :output -1)
    (set-deadline b :output nil)
    (ensure-timeout (lambda () (read-byte b)))
    (set-deadline b :input nil)
    (ensure-same (random-octets +little+ 10)
                 (concatenate '(vector (unsigned-byte 8)) first (receive b (1- +little+))))))

(define-check past-write-deadline (timeout-p set-deadline)
    "A deadline in the past fails a write although there is room, and nothing of it arrives."
  (set-deadline a :output 0)
  (ensure-timeout (lambda () (send a (octets +little+))))
  (set-deadline a :output nil)
  (send a (random-octets +little+ 11))
  (close a)
  (ensure-same (random-octets +little+ 11) (everything b)))

(define-check present-deadline (timeout-p set-deadline)
    "A deadline that another thread sets to now wakes a blocked read and a blocked write."
  (together (lambda () (ensure-timeout (lambda () (read-byte b))))
            (soon-after (lambda () (set-deadline b :input 0))))
  (together (lambda () (ensure-timeout (lambda () (fill-up a))))
            (soon-after (lambda () (set-deadline a :output 0)) 0.3)))

(define-check future-deadline (timeout-p set-deadline)
    "A deadline of 100 ms ends a read and a write then, not before and not much later, and the
connection can be used afterwards."
  (flet ((in-time (stream direction function)
           (let ((start (seconds-now)))
             (set-deadline stream direction 0.1)
             (ensure-timeout function)
             (let ((seconds (- (seconds-now) start)))
               (ensure-that (<= 0.09 seconds 2) "a deadline of 0.1 s took ~,3F s" seconds)))))
    (in-time b :input (lambda () (read-byte b)))
    (in-time a :output (lambda () (fill-up a))))
  (set-deadline b :input nil)
  (send b (random-octets 5 12))
  (ensure-same (random-octets 5 12) (receive a 5)))

(define-check cleared-deadline (timeout-p set-deadline)
    "A deadline that is cleared before it passes never fires."
  (set-deadline b :input 0.15)
  (together (lambda () (ensure-same (random-octets 1 13) (receive b 1)))
            (soon-after (lambda ()
                          (set-deadline b :input nil)
                          (sleep 0.25)
                          (send a (random-octets 1 13))))))

(define-check directions-are-apart (timeout-p set-deadline)
    "A deadline for one direction leaves the other alone."
  (set-deadline a :input 0)
  (set-deadline b :output 0)
  (send a (random-octets +little+ 14))
  (ensure-same (random-octets +little+ 14) (receive b +little+)))

(define-check timeout-of-each-call (timeout-p set-timeout)
    "A timeout of each call ends it, and what arrived of the read is there for the next."
  (funcall (transport-set-timeout *transport*) b :input 0.05)
  (send a (random-octets +little+ 15) 0 15)
  (ensure-timeout (lambda () (receive b +little+)))
  (send a (random-octets +little+ 15) 15)
  (funcall (transport-set-timeout *transport*) b :input nil)
  (ensure-same (random-octets +little+ 15) (receive b +little+)))

(define-check deadline-is-total (timeout-p set-deadline)
    "Octets that trickle in do not stretch a deadline."
  (let ((start (seconds-now)) (done nil))
    (together (lambda ()
                (loop until done
                      do (send a (octets 1))
                         (sleep 0.02)))
              (lambda ()
                (set-deadline b :input 0.2)
                (unwind-protect (ensure-timeout (lambda () (receive b 100000)))
                  (setf done t))
                (let ((seconds (- (seconds-now) start)))
                  (ensure-that (< seconds 2) "a deadline of 0.2 s took ~,3F s" seconds))))))

(defun until-timeouts (count function)
  "Call FUNCTION until it has timed out COUNT times or the stream is ended; other errors are
failures."
  (loop with timeouts = 0
        while (< timeouts count)
        do (let ((condition (error-of function)))
             (cond ((null condition))
                   ((funcall (transport-timeout-p *transport*) condition) (incf timeouts))
                   (t (error condition))))))

(define-check racy-reads (timeout-p set-deadline)
    "10 threads read while their deadline is set again and again: only timeouts."
  (let ((done nil))
    (apply #'together
           (lambda ()
             (error-of (lambda ()
                         (loop until done
                               do (send a (octets 100))
                                  (sleep 0.002)))))
           (lambda ()
             (unwind-protect
                  (loop repeat 60
                        do (set-deadline b :input 0.003)
                           (sleep 0.005))
               (setf done t)
               (set-deadline a :output -1)
               (set-deadline b :input -1)))
           (loop repeat 10
                 collect (lambda ()
                           (until-timeouts 10 (lambda () (receive b 64))))))))

(define-check racy-writes (timeout-p set-deadline)
    "10 threads write while their deadline is set again and again: only timeouts."
  (let ((done nil))
    (flet ((reading ()
             (set-deadline b :input 10)
             (error-of (lambda ()
                         (loop until done
                               do (receive b 1000)))))
           (limiting ()
             (loop repeat 60
                   do (set-deadline a :output 0.003)
                      (sleep 0.005))
             (set-deadline a :output -1))
           (writing ()
             (until-timeouts 10 (lambda () (send a (octets 5000))))))
      (together #'reading
                #'limiting
                (lambda ()
                  (unwind-protect
                       (apply #'together (loop repeat 10 collect #'writing))
                    (setf done t)
                    (set-deadline b :input -1)))))))

;;; Closing

(define-check end-of-file-repeats ()
    "After the peer's end its octets, then end of file, as often as it is asked."
  (send a (octets 10))
  (close a)
  (ensure-that (= 10 (length (receive b 10))) "octets are missing")
  (dotimes (i 3)
    (ensure-that (end-of-file-p b) "no end of file")
    (ensure-that (zerop (length (receive b 10))) "octets after the end of file")))

(define-check close-again ()
    "Closing again and again is quiet."
  (dotimes (i 3)
    (close a))
  (close a :abort t))

(define-check use-after-close (closed-p)
    "What is done to a closed stream is an error that says so."
  (close a)
  (ensure-closed (lambda () (read-byte a)))
  (ensure-closed (lambda () (receive a 10)))
  (ensure-closed (lambda () (send a (octets 1))))
  (ensure-closed (lambda () (write-byte 1 a) (finish-output a))))

(define-check close-wakes-reads (closed-p)
    "Closing ends a read that is blocked in another thread, and not as an end of file."
  (together (lambda () (ensure-closed (lambda () (read-byte a))))
            (soon-after (lambda () (close a)))))

(define-check close-wakes-writes (closed-p)
    "Closing ends a write that is blocked in another thread."
  (together (lambda () (ensure-closed (lambda () (fill-up a))))
            (soon-after (lambda () (close a :abort t)) 0.3)))

(define-check close-beats-deadlines (closed-p set-deadline)
    "A close before the deadline is told as a close."
  (set-deadline a :input 5)
  (together (lambda () (ensure-closed (lambda () (read-byte a))))
            (soon-after (lambda () (close a)))))

(define-check dead-peer (broken-p)
    "Writing to a peer that is gone is an error before long, again and again."
  (close b)
  (ensure-broken (lambda () (fill-up a)))
  (ensure-broken (lambda () (fill-up a))))

(define-check reset (abort broken-p)
    "An aborted connection is an error at the peer, never an end of file, as often as it is asked."
  (funcall (transport-abort *transport*) a)
  (dotimes (i 3)
    (ensure-broken (lambda () (read-byte b)))))

(define-check half-close (shut-down-output)
    "After a shutdown of the output the peer reads all and then end of file, and can still send."
  (let ((all (random-octets (ceiling (transport-amount *transport*) 8) 16)))
    (flet ((finish (stream)
             (funcall (transport-shut-down-output *transport*) stream)))
      (together (lambda () (send a all) (finish a))
                (lambda () (ensure-same all (everything b)))))
    (ensure-that (end-of-file-p b) "no end of file")
    (send b (random-octets +little+ 17))
    (close b)
    (ensure-same (random-octets +little+ 17) (everything a))))

(define-check concurrent-methods (closed-p set-deadline)
    "20 each of reads, writes, deadlines and printing at once; then a close ends all of them."
  (let ((stop nil))
    (flet ((until-closed (function)
             (lambda ()
               (loop until stop
                     do (let ((condition (error-of function)))
                          (when (and condition
                                     (funcall (transport-closed-p *transport*) condition))
                            (return)))))))
      (apply #'together
             (soon-after (lambda ()
                           (close a :abort t)
                           (setf stop t))
                         0.3)
             (loop repeat 20
                   collect (until-closed (lambda () (receive a 1)))
                   collect (until-closed (lambda () (send a (octets 10))))
                   collect (until-closed (lambda ()
                                           (set-deadline a :input 1)
                                           (set-deadline a :output 1)
                                           (sleep 0.001)))
                   collect (until-closed (lambda () (princ-to-string a) (sleep 0.001))))))))
