;;;; tls-held - octets that TLS has taken and the system has not: nobody forgets them.

(in-package :port/test)

(define-suite tls-held "TLS: output that the library holds.")

(defun call-with-narrow-pair (function)
  "Call FUNCTION with both ends of a connection with TLS, on which the system takes little at once."
  (with-contexts (client server)
    (with-pair (a b :local)
      (dolist (socket (list a b))
        (setf (socket-option socket :send-buffer) 4096))
      (let ((thread (in-thread (lambda () (start-tls b :context server :side :server :timeout 5)))))
        (start-tls a :context client :host "good.test" :timeout 5)
        (join thread))
      (funcall function a b))))

(defun fill-narrow (socket)
  "Write to SOCKET until the library holds some of it."
  (setf (socket-timeout socket :output) 0)
  (loop until (failure-of (write-octets socket (blank 65536))))
  (setf (socket-timeout socket :output) nil))

(define-test tls-held.what-is-lost-is-told-by-a-flush ()
  (call-with-narrow-pair
   (lambda (a b)
     (fill-narrow a)
     (close b :abort t)
     (signals connection-lost (finish-output a))
     (signals connection-lost (close a)))))

(define-test tls-held.what-is-lost-is-told-by-a-close ()
  (call-with-narrow-pair
   (lambda (a b)
     (fill-narrow a)
     (close b :abort t)
     (signals connection-lost (close a)))))

(define-test tls-held.a-file-that-was-sent-is-not-held (:limit 60)
  (let ((path (temporary-path)) (size (amount 131072)))
    (unwind-protect
         (progn
           (with-open-file (stream path :direction :output :element-type '(unsigned-byte 8))
             (write-sequence (blank size) stream))
           (call-with-narrow-pair
            (lambda (a b)
              (let ((sender (in-thread (lambda () (send-file a path)))))
                (setf (socket-timeout b :input) 5)
                (is (= size (read-octets b (blank size))))
                (is (= size (join sender)))))))
      (delete-file path))))

;;; In one call no more than 256 KiB go: a peer that is as fast would keep it from its deadline.

(define-test tls-held.a-call-lets-others-have-their-say (:limit 60)
  (call-with-narrow-pair
   (lambda (a b)
     (let* ((size (amount 4000000)) (room (blank size)) (left size)
            (writer (in-thread (lambda ()
                                 (write-octets a (blank size))
                                 (finish-output a)))))
       (loop while (plusp left)
             do (let ((count (read-some b room)))
                  (is (<= 1 count 262144))
                  (decf left count)))
       (join writer)
       (is (zerop left))))))

(defun relay-what-is-there (one other)
  "Relay until nothing moves; true if the call saw that itself, and did not have to be ended."
  (let ((start (get-internal-real-time)))
    (handler-case (with-deadline (5) (relay one other :timeout 0))
      (timeout () (< (- (get-internal-real-time) start) (* 4 internal-time-units-per-second))))))

(define-test tls-held.an-end-that-has-no-room-does-not-hold-up-the-other-way-of-a-relay
    (:limit 60 :weather nil)            ; octet by octet no message goes into its buffer
  "After some count of messages there is room for all of them and not for the end."
  (loop for count from 1 to 12
        do (call-with-narrow-pair
            (lambda (a b)
              (with-pair (one other :local)
                (loop repeat count
                      do (write-octets one (blank 400))
                         (finish-output one)
                         (is (relay-what-is-there other a)))
                (socket-shutdown one :output)
                (send-octets b "answer" 10)
                (is (relay-what-is-there other a) "held up after ~D messages" count)
                (is (string= "answer" (read-line one)))
                (close b :abort t))))))

(define-test tls-held.a-service-that-waits-for-more-has-sent-all ()
  (let ((size (amount 131072)))
    (with-contexts (client server)
      (let ((service (serve (lambda (socket)
                              (when (read-line socket nil)
                                (write-octets socket (blank size))
                                :again))
                            0 :host "127.0.0.1" :tls server :options '(:send-buffer 4096))))
        (unwind-protect
             (with-open-socket (socket "127.0.0.1" (port-of (first (server-listeners service)))
                                       :input-timeout 5)
               (start-tls socket :context client :host "127.0.0.1")
               (loop repeat 3
                     do (format socket "more~%")
                        (finish-output socket)
                        (is (= size (read-octets socket (blank size))))))
          (stop-server service))))))

;;; What is ready may be part of a record: in bad weather it would be nothing else

(defun echo-lines-again (socket)
  (let ((line (read-line socket nil)))
    (when line
      (write-line line socket)
      :again)))

(defun call-with-tapped-client (function context port)
  "Call FUNCTION with a client of PORT that has TLS and, in plain sockets, the two ends of a gap in
its connection: nothing crosses it but what FUNCTION carries over."
  (with-pair (inside outside :local)
    (with-open-socket (wire "127.0.0.1" port :bin t)
      (let ((relay (in-thread (lambda ()
                                (handler-case (relay outside wire :timeout 0.5)
                                  (timeout () t))))))
        (start-tls inside :context context :host "127.0.0.1" :timeout 5)
        (join relay))
      (funcall function inside outside wire))))

(define-test tls-held.part-of-a-record-keeps-no-thread-of-a-service (:weather nil)
  (with-contexts (client server)
    (let* ((service (serve #'echo-lines-again 0 :host "127.0.0.1" :tls server :threads 1
                                                :await-input t))
           (port (port-of (first (server-listeners service)))))
      (unwind-protect
           (call-with-tapped-client
            (lambda (inside outside wire)
              (format inside "slow~%")
              (finish-output inside)
              (let* ((record (blank 1000)) (end (read-some outside record)))
                (write-octets wire record :end 3)
                (finish-output wire)
                (with-open-socket (other "127.0.0.1" port :input-timeout 5)
                  (start-tls other :context client :host "127.0.0.1" :timeout 5)
                  (format other "quick~%")
                  (finish-output other)
                  (is (string= "quick" (read-line other))))
                (write-octets wire record :start 3 :end end)
                (finish-output wire)
                (setf (socket-timeout wire :input) 5)
                (loop until (wait-for-stream inside 0.01) ; the answer may come in pieces
                      do (write-octets outside record :end (read-some wire record))
                         (finish-output outside))
                (is (string= "slow" (read-line inside)))))
            client port)
        (stop-server service)))))

(define-test tls-held.part-of-a-record-is-not-ready (:weather nil)
  "What was read ahead with the record before is less than one: nobody is told that there is input."
  (with-contexts (client server)
    (with-socket-server (listener 0)
      (let ((peer nil))
        (call-with-tapped-client
         (lambda (inside outside wire)
           (let ((far (join peer)) (records (blank 1000)) (one (blank 10)))
             (with-open-stream (far far)
               (write-octets inside one)
               (finish-output inside)
               (let* ((first (read-some outside records))
                      (end (progn (write-octets inside one)
                                  (finish-output inside)
                                  (+ first (read-some outside records :start first)))))
                 (write-octets wire records :end (+ first 3))
                 (finish-output wire)
                 (is (wait-for-stream far 5))
                 (is (= 10 (read-some far one)))
                 (is (null (wait-for-input (list far) :timeout 0)))
                 (is (not (listen far)))
                 (write-octets wire records :start (+ first 3) :end end)
                 (finish-output wire)
                 (is (equal (list far) (wait-for-input (list far) :timeout 5)))
                 (is (= 10 (read-some far one)))
                 (is (null (wait-for-input (list far) :timeout 0)))))))
         client
         (progn (setf peer (in-thread (lambda ()
                                        (start-tls (socket-accept listener :wait 5)
                                                   :context server :side :server :timeout 5))))
                (port-of listener)))))))
