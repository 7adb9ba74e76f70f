;;;; poller-once - sockets that are in a poller with :ONCE: an event is one thread's, until that has
;;;; dealt with it.

(in-package :port/test)

(define-suite once "Events that one thread gets.")

(define-test once.not-reported-again-until-modified ()
  (do-pollers (poller)
    (do-pairs (a b)
      (poller-add poller a :once t :data 'a)
      (send-octets b 1)
      (is (equal `((,a a :input)) (poller-wait poller :timeout 5)))
      (is (null (poller-wait poller :timeout 0.01)))
      (is (eq a (poller-modify poller a)))
      (is (equal `((,a a :input)) (poller-wait poller :timeout 5)) "it was not read")
      (poller-modify poller a :output t :data 'b)
      (is (equal `((,a b :input :output)) (poller-wait poller :timeout 5)))
      (is (= 1 (read-byte a)))
      (poller-modify poller a)
      (is (equal `((,a b :output)) (poller-wait poller :timeout 5)) "what was asked for last")
      (is (null (events-now poller)))
      (poller-remove poller a))))

(define-test once.can-be-changed ()
  (do-pollers (poller)
    (with-pair (a b)
      (poller-add poller a)
      (send-octets b 1)
      (is (equal `((,a nil :input)) (poller-wait poller :timeout 5)))
      (poller-modify poller a :once t)
      (is (equal `((,a nil :input)) (poller-wait poller :timeout 5)))
      (is (null (events-now poller)))
      (poller-modify poller a :once nil)
      (loop repeat 2
            do (is (equal `((,a nil :input)) (poller-wait poller :timeout 5)))))))

(define-test once.beside-others ()
  "What is not of ONCE is reported as ever, whatever comes beside it."
  (do-pollers (poller)
    (with-pair (a b)
      (with-pair (c d)
        (poller-add poller a :once t)
        (poller-add poller c)
        (send-octets b 1)
        (send-octets d 1)
        (is-true (wait-until (lambda () (equal `((,c nil :input)) (events-now poller)))))
        (poller-modify poller a)
        (is (null (set-exclusive-or (list a c) (mapcar #'first (events-now poller)))))
        (is (equal `((,c nil :input)) (events-now poller)))))))

(define-test once.buffered-input (:weather nil) ; one read has to take all octets
  "What a stream has buffered is reported once, and once more when that was asked for."
  (do-pollers (poller)
    (with-pair (a b)
      (poller-add poller a :once t)
      (send-octets b 1 2 3)
      (is (equal `((,a nil :input)) (poller-wait poller :timeout 5)))
      (is (= 1 (read-byte a)))
      (is (null (poller-wait poller :timeout 0.01)))
      (poller-modify poller a)
      (is (equal `((,a nil :input)) (poller-wait poller :timeout 5)))
      (is (= 2 (read-byte a)))
      (is (= 3 (read-byte a)))
      (poller-modify poller a)
      (is (null (poller-wait poller :timeout 0.01))))))

(define-test once.connections-to-accept ()
  (do-pollers (poller)
    (with-socket-server (server 0 :host "127.0.0.1")
      (poller-add poller server :once t)
      (with-open-socket (client "127.0.0.1" (port-of server) :timeout 5)
        (declare (ignorable client))
        (is (equal `((,server nil :input)) (poller-wait poller :timeout 5)))
        (is (null (events-now poller)))
        (close (socket-accept server :wait 5))
        (poller-modify poller server)
        (is (null (events-now poller)))))))

(define-test once.no-more-than-the-limit ()
  "What a thread has no room for is another's."
  (do-pollers (poller)
    (with-pair (a b)
      (with-pair (c d)
        (poller-add poller a :once t)
        (poller-add poller c :once t)
        (send-octets b 1)
        (send-octets d 1)
        (flet ((one ()
                 (mapcar #'first (poller-wait poller :timeout 5 :limit 1))))
          (let ((here (one)) (there (join (in-thread #'one))))
            (is (= 1 (length here) (length there)))
            (is (null (set-exclusive-or (list a c) (append here there))))
            (is (null (events-now poller)))))))))

(define-test once.what-has-left ()
  "A socket that was reported can leave the poller, be closed, and come in anew."
  (do-pollers (poller)
    (with-pair (a b)
      (poller-add poller a :once t)
      (send-octets b 1)
      (is (equal `((,a nil :input)) (poller-wait poller :timeout 5)))
      (is-true (poller-remove poller a))
      (is-failure (usage-error :invalid "is not in")
        (poller-modify poller a))
      (poller-add poller a :data 'new)
      (loop repeat 2
            do (is (equal `((,a new :input)) (poller-wait poller :timeout 5))))
      (close a)
      (is-failure (socket-closed :closed "closed")
        (poller-modify poller a)))))

(define-test once.what-was-dealt-with-meanwhile ()
  "Another thread can have had the event, and have asked for the next one, before this one is told:
then there is only what has come since."
  (do-pollers (poller)
    (with-pair (a b)
      (poller-add poller a :once t)
      (flet ((events-after (count)
               (let ((first t))
                 (unwind-protect
                      (progn (sb-int:encapsulate
                              'port::wait-in-set 'test
                              (lambda (function &rest arguments)
                                (multiple-value-prog1 (apply function arguments)
                                  (when (shiftf first nil)
                                    (join (in-thread
                                           (lambda ()
                                             (poller-wait poller :timeout 5)
                                             (loop repeat count do (read-byte a))
                                             (poller-modify poller a))))))))
                             (poller-wait poller :timeout 0.1))
                   (sb-int:unencapsulate 'port::wait-in-set 'test)))))
        (send-octets b 1 2 3)
        (is (equal `((,a nil :input)) (events-after 2)))
        (is (null (events-now poller)))
        (is (= 3 (read-byte a)))
        (send-octets b 4)
        (poller-modify poller a)
        (is (null (events-after 1)))))))

(define-test once.for-one-from-the-first-moment (:limit 60)
  "POLLER-MODIFY that asks for the events of ONCE, while others wait."
  (do-pollers (poller)
    (with-pair (a b)
      (send-octets b 1)
      (poller-add poller a :input nil)
      (let* ((told (list 0))
             (waiters (loop repeat 3
                            collect (in-thread
                                     (lambda ()
                                       (handler-case
                                           (loop (when (poller-wait poller)
                                                   (sb-ext:atomic-incf (car told))))
                                         (socket-closed () :closed)))))))
        (loop for turn from 1 to 500
              do (poller-modify poller a :input t :once t)
                 (is-true (wait-until (lambda () (>= (car told) turn))))
                 (poller-modify poller a :input nil :once nil))
        (is (= 500 (car told)))
        (close poller)
        (dolist (waiter waiters)
          (is (eq :closed (join waiter))))))))

(define-test once.many-threads (:limit 60)
  "No thread meets another in a socket, and all that comes is read, buffered or not."
  (do-pollers (poller)
    (let* ((pairs (loop repeat 8 collect (multiple-value-list (make-pair :local))))
           (heard (list 0))
           (met nil)
           (readers
             (loop repeat 4
                   collect (in-thread
                            (lambda ()
                              (handler-case
                                  (loop
                                    (loop for (socket busy) in (poller-wait poller)
                                          do (unless (zerop (sb-ext:atomic-incf (car busy)))
                                               (setf met t))
                                             (when (read-char-no-hang socket)
                                               (sb-ext:atomic-incf (car heard)))
                                             (sb-ext:atomic-decf (car busy))
                                             (poller-modify poller socket)))
                                (socket-closed () :closed)))))))
      (loop for (a) in pairs
            do (poller-add poller a :once t :data (list 0)))
      (loop repeat 100
            do (loop for (nil b) in pairs do (send-octets b 65 66)))
      (is-true (wait-until (lambda () (= 1600 (car heard))) 20))
      (is-false met)
      (end-readers poller readers pairs))))

(define-test once.consing (:behaviour 47)
  "A wait, and POLLER-MODIFY after it, cons nothing."
  (with-poller (poller)
    (with-pair (a b)
      (poller-add poller a :once t)
      (send-octets b 1)
      (flet ((wait-some (count)
               (dotimes (i count)
                 (poller-wait poller)
                 (poller-modify poller a))))
        (wait-some 10)
        (let ((consed (octets-consed (lambda () (wait-some 2000)))))
          (is (< consed 65536) "~D octets for 2,000 events" consed))))))
