;;;; poller-timeouts - sockets in a poller with a :TIMEOUT: events for those that are silent.

(in-package :port/test)

(define-suite silence "Sockets in a poller that are silent for too long.")

(defun timed (function)
  "Values: what FUNCTION returns, and how many seconds it took."
  (let ((begun (port.ffi:lport-clock-now)))
    (values (funcall function) (port::seconds-since begun))))

(defun next-silence (poller)
  "Values: a copy of the next events, which are no others, and how many seconds they took."
  (timed (lambda () (copy-tree (poller-wait poller :timeout 20)))))

(define-test silence.is-told-of-again-and-again ()
  (do-pollers (poller)
    (with-pair (a b)
      (poller-add poller a :timeout 0.05 :data 'a)
      (poller-add poller b)
      (loop repeat 3
            do (multiple-value-bind (events seconds) (next-silence poller)
                 (is (equal `((,a a :timeout)) events))
                 (is (>= seconds 0.04)))) ; the one before it may have come late
      (poller-modify poller a :timeout nil)
      (is (null (poller-wait poller :timeout 0.15)))
      (poller-modify poller a :timeout 0)
      (is (equal `((,a a :timeout)) (poller-wait poller :timeout 20)))
      (poller-modify poller a :timeout 1/20 :data 'b)
      (is (equal `((,a b :timeout)) (poller-wait poller :timeout 20))))))

(define-test silence.is-counted-from-the-last-event ()
  "Or POLLER-MODIFY."
  (do-pollers (poller)
    (with-pair (a b)
      (poller-add poller a :timeout 0.1)
      (let ((last (port.ffi:lport-clock-now)) (silent 0) (spoken 0))
        (loop until (and (>= silent 2) (>= spoken 5))
              for turn from 0
              do (when (< spoken 5)
                   (if (evenp turn)
                       (send-octets b 1)
                       (setf last (port.ffi:lport-clock-now)
                             a (poller-modify poller a))))
                 (loop for (nil nil . flags) in (poller-wait poller :timeout 0.03)
                       do (cond ((member :timeout flags)
                                 (is (equal '(:timeout) flags))
                                 (is (>= (port::seconds-since last) 0.1))
                                 (incf silent))
                                (t (is (= 1 (read-byte a)))
                                   (incf spoken)))
                          (setf last (port.ffi:lport-clock-now))))))))

(define-test silence.whoever-waits-is-told-of-it ()
  "A wait that began before the socket came, or before its limit was made shorter."
  (do-pollers (poller)
    (with-pair (a b)
      (flet ((waiting ()
               (prog1 (in-thread (lambda () (copy-tree (poller-wait poller :timeout 20))))
                 (is-true (wait-until (lambda ()
                                        (plusp (port::poll-set-waiting
                                                (port::endpoint-channel poller)))))))))
        (let ((waiter (waiting)))
          (poller-add poller a :timeout 0.02)
          (is (equal `((,a nil :timeout)) (join waiter))))
        (poller-modify poller a :timeout 1000)
        (let ((waiter (waiting)))
          (poller-modify poller a :timeout 0.02)
          (is (equal `((,a nil :timeout)) (join waiter)))))
      (is-true b))))

(define-test silence.is-not-counted-from-before ()
  "A round just after a socket was added, or reported of once and modified, finds it silent since
then, not for ever."
  (with-poller (poller)
    (with-pair (a b)
      (with-pair (c d)
        (flet ((events-within (function)
                 (let ((events '()))
                   (unwind-protect
                        (progn (sb-int:encapsulate
                                'port::note-if-buffered 'test
                                (lambda (original &rest arguments)
                                  (sleep 0.02) ; the next round is due
                                  (setf events (copy-tree (events-now poller)))
                                  (apply original arguments)))
                               (funcall function))
                     (sb-int:unencapsulate 'port::note-if-buffered 'test))
                   events)))
          (poller-add poller c :timeout 0 :data 'c)
          (is (equal `((,c c :timeout))
                     (events-within (lambda () (poller-add poller a :once t :timeout 0.2)))))
          (send-octets b 1)
          (is-true (wait-until (lambda () (find a (events-now poller) :key #'first))))
          (sleep 0.2)
          (is (= 1 (read-byte a)))
          (is (equal `((,c c :timeout))
                     (events-within (lambda () (poller-modify poller a)))))
          (is-true d))))))

(define-test silence.of-many (:limit 60)
  "Each is told of once, whatever the others do, and what has left is not."
  (with-poller (poller)
    (let ((pairs (loop repeat 200 collect (multiple-value-list (make-pair :local))))
          (told '()))
      (loop for (a b) in pairs
            do (poller-add poller a :timeout 0.05)
               (poller-add poller b))
      (close (first (first pairs)))
      (poller-remove poller (first (second pairs)))
      (loop while (< (length told) 198)
            do (loop for (socket nil . flags) in (poller-wait poller :timeout 20)
                     do (cond ((equal '(:timeout) flags)
                               (poller-modify poller socket :timeout nil)
                               (push socket told))
                              (t (is (eq socket (second (first pairs))))
                                 (poller-remove poller socket)))))
      (is (null (set-exclusive-or told (mapcar #'first (cddr pairs)))))
      (is (null (poller-wait poller :timeout 0.1)))
      (loop for pair in pairs
            do (mapc #'close pair)))))

(define-test silence.of-once ()
  "A socket that a thread deals with is not silent; whom it is told of has it as after any event."
  (do-pollers (poller)
    (with-pair (a b)
      (poller-add poller a :once t :timeout 0.03)
      (send-octets b 1)
      (is (equal `((,a nil :input)) (poller-wait poller :timeout 20)))
      (is (null (poller-wait poller :timeout 0.1)))
      (is (= 1 (read-byte a)))
      (poller-modify poller a)
      (is (equal `((,a nil :timeout)) (poller-wait poller :timeout 20)))
      (send-octets b 1)
      (is (null (poller-wait poller :timeout 0.1)))
      (poller-modify poller a :input nil)
      (is (equal `((,a nil :timeout)) (poller-wait poller :timeout 20)) "no interest but this"))))

(define-test silence.what-makes-no-sense-is-refused ()
  (with-poller (poller)
    (with-pair (a b)
      (dolist (timeout '(-1 "1" :never))
        (signals type-error (poller-add poller a :timeout timeout)))
      (poller-add poller a)
      (signals type-error (poller-modify poller a :timeout -1))
      (is (null (poller-wait poller :timeout 0)))
      (is-true b))))

(define-test silence.consing (:behaviour 47)
  "Events with limits of time cons no more than others."
  (with-poller (poller)
    (with-pair (a b)
      (poller-add poller a :timeout 100)
      (send-octets b 1)
      (flet ((wait-some (count)
               (dotimes (i count)
                 (poller-wait poller))))
        (wait-some 10)
        (let ((consed (octets-consed (lambda () (wait-some 2000)))))
          (is (< consed 65536) "~D octets for 2,000 events" consed))))))
