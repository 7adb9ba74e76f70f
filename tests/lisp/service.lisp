;;;; service - serve and stop-server.

(in-package :port/test)

(define-suite service "Services.")

(defun call-with-service (function handler arguments)
  "Call FUNCTION with a server of HANDLER and the port it listens on; stop it."
  (let ((server (apply #'serve handler 0 (append arguments (list :host "127.0.0.1")))))
    (unwind-protect (funcall function server (port-of (first (server-listeners server))))
      (is-true (stop-server server :drain 0)))))

(defmacro with-service ((server number handler &rest arguments) &body body)
  "Run BODY with SERVER, a service of HANDLER, and NUMBER, its port."
  `(call-with-service (lambda (,server ,number) (declare (ignorable ,server ,number)) ,@body)
                      ,handler (list ,@arguments)))

(defun echo-one-line (socket &optional wait)
  "Echo one line and wait for the next without a thread. Before the line `wait' is echoed the
function WAIT is called."
  (let ((line (read-line socket nil)))
    (when line
      (when (and wait (equal line "wait"))
        (funcall wait))
      (write-line line socket)
      :again)))

(defun ask (socket text)
  (write-line text socket)
  (finish-output socket)
  (read-line socket nil))

(defun ask-once (number text)
  (with-open-socket (socket "127.0.0.1" number :timeout 10 :input-timeout 10)
    (ask socket text)))

(defun service-of (server)
  (port::server-service server))

(defun client-count (server)
  (port::service-client-count (service-of server)))

(define-test service.echo ()
  (dolist (handler (list #'echo-lines #'echo-one-line 'echo-one-line))
    (dolist (await '(nil t))
      (with-service (server number handler :await-input await)
        (dotimes (i 3)
          (with-open-socket (socket "127.0.0.1" number)
            (is (equal "one" (ask socket "one")))
            (is (equal "two" (ask socket "two")))))))))

(define-test service.symbols-name-what-is-defined-now ()
  "The function, and the hooks, that are defined anew hold for the connections that are there."
  (let ((answer (make-symbol "ANSWER")) (report (make-symbol "REPORT")) (part (make-symbol "PART"))
        (told (sb-thread:make-semaphore)) (said '()))
    (flet ((answer-with (text)
             (setf (fdefinition answer) (lambda (socket)
                                          (when (equal "fail" (read-line socket))
                                            (error "As it was asked."))
                                          (write-line text socket)
                                          :again)))
           (hooks-say (word)
             (setf (fdefinition report) (lambda (condition socket)
                                          (declare (ignore condition socket))
                                          (push word said))
                   (fdefinition part) (lambda (socket)
                                        (declare (ignore socket))
                                        (push word said)
                                        (sb-thread:signal-semaphore told)))))
      (answer-with "old")
      (hooks-say :old)
      (with-service (server number answer :on-error report :on-close part)
        (with-open-socket (socket "127.0.0.1" number :input-timeout 10)
          (is (equal "old" (ask socket "which?")))
          (answer-with "new")
          (is (equal "new" (ask socket "which?")))
          (hooks-say :new)
          (signals connection-reset (ask socket "fail")))
        (sb-thread:wait-on-semaphore told)
        (is (equal '(:new :new) said))))))

(define-test service.a-function-may-speak-first ()
  (with-service (server number (lambda (socket) (write-line "hello" socket)))
    (with-open-socket (socket "127.0.0.1" number)
      (is (equal "hello" (read-line socket)))
      (is (null (read-line socket nil)) "and closed"))))

(define-test service.pipelined ()
  "Requests that have arrived together are served one after the other, from the buffer too."
  (with-service (server number #'echo-one-line :await-input t)
    (with-open-socket (socket "127.0.0.1" number :input-timeout 10)
      (dotimes (i 100) (format socket "line ~D~%" i))
      (finish-output socket)
      (dotimes (i 100)
        (is (equal (format nil "line ~D" i) (read-line socket)))))))

(define-test service.many-clients (:behaviour 58 :limit 60)
  (with-service (server number #'echo-one-line :threads 4)
    (let ((dialers (loop for dialer below 10
                         collect (let ((dialer dialer))
                                   (in-thread
                                    (lambda ()
                                      (loop for i below 10
                                            collect (ask-once number
                                                              (format nil "~D ~D" dialer i)))))))))
      (loop for thread in dialers
            for dialer from 0
            do (is (equal (loop for i below 10 collect (format nil "~D ~D" dialer i))
                          (join thread)))))
    (is-true (wait-until (lambda () (zerop (client-count server)))))))

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

(define-test service.errors-are-isolated ()
  (let ((seen '()))
    (with-service (server number (lambda (socket)
                                   (let ((line (read-line socket)))
                                     (when (equal line "fail") (error "as was asked"))
                                     (write-line line socket)))
                          :on-error (lambda (condition socket)
                                      (push (cons (princ-to-string condition) socket) seen)))
      (is (typep (failure-of (ask-once number "fail")) 'connection-reset))
      (is (equal "fine" (ask-once number "fine")))
      (is-true (wait-until (lambda () seen)))
      (is (equal "as was asked" (car (first seen))))
      (is (typep (cdr (first seen)) 'socket))
      (is-true (wait-until (lambda () (zerop (client-count server))))))))

(define-test service.again-at-the-end ()
  "A function that never ends a connection is told so once its client has ended, whether it reads or
not; what came without a line's end before that is served."
  (loop for (function sent) in `((,(lambda (socket) (read-line socket nil) :again) "line~%part")
                                 (,(constantly :again) ""))
        do (let ((calls 0) (seen '()))
             (with-service (server number (lambda (socket)
                                            (incf calls)
                                            (funcall function socket))
                                   :threads 1
                                   :on-error (lambda (condition socket)
                                               (declare (ignore socket))
                                               (push condition seen)))
               (with-open-socket (client "127.0.0.1" number :input-timeout 10)
                 (format client sent)
                 (socket-shutdown client :output)
                 (is (typep (failure-of (read-line client)) 'connection-reset))
                 (is-true (wait-until (lambda () (zerop (client-count server)))))
                 (is (<= 3 calls 20))   ; in bad weather the end is not found at once
                 (is (= 1 (length seen)))
                 (is (typep (first seen) 'usage-error))
                 (is-report (first seen) "serve on 127.0.0.1:" ":AGAIN at the end"))))))

(define-test service.again-of-a-socket-that-was-closed ()
  "A function may close its socket itself, whatever it returns then."
  (let ((seen '()))
    (with-service (server number (lambda (socket)
                                   (unless (read-line socket nil)
                                     (close socket))
                                   :again)
                          :on-error (lambda (condition socket)
                                      (declare (ignore socket))
                                      (push condition seen)))
      (with-open-socket (client "127.0.0.1" number :input-timeout 10)
        (write-string "part" client)
        (socket-shutdown client :output)
        (is (eq :eof (read-char client nil :eof)))
        (is-true (wait-until (lambda () (zerop (client-count server)))))))
    (is (null seen) "~A" seen)))

(define-test service.again-reads-nothing-ahead (:weather nil) ; what one call takes is looked at
  "Where there is input still, no more is received when the function returns."
  (let ((gate (sb-thread:make-semaphore)) (buffered '()))
    (with-service (server number (lambda (socket)
                                   (push (buffered-octets socket) buffered)
                                   (ecase (length buffered)
                                     (1 (write-char (read-char socket) socket)
                                      :again)
                                     (2 (sb-thread:wait-on-semaphore gate)
                                      :again)
                                     (3 (write-line (read-line socket) socket))))
                          :await-input t)
      (with-open-socket (client "127.0.0.1" number :input-timeout 10)
        (write-string "abc" client)
        (finish-output client)
        (is (char= #\a (read-char client)))
        (write-line "def" client)
        (finish-output client)
        (sb-thread:signal-semaphore gate)
        (is (equal "bcdef" (read-line client)))
        (is (equal '(2 2 0) buffered))))))

(define-test service.descriptors-behind-the-last-request (:weather nil) ; as above
  "What comes behind a request that was there already is not received before the function asks."
  (let ((gate (sb-thread:make-semaphore)) (calls 0) (path (temporary-path)))
    (flet ((answer (socket)
             (ecase (incf calls)
               ((1 2) (write-line (read-line socket) socket)
                (when (= calls 2)
                  (sb-thread:wait-on-semaphore gate))
                :again)
               (3 (let ((fds (receive-descriptors socket 1)))
                    (mapc #'close-descriptor fds)
                    (format socket "~D~%" (length fds)))))))
      (with-open-stream (server (serve #'answer (pathname path)))
        (with-open-stream (client (open-unix-socket path :input-timeout 10))
          (format client "one~%two~%")
          (finish-output client)
          (is (equal "one" (read-line client)))
          (send-descriptors client '(0))
          (sb-thread:signal-semaphore gate)
          (is (equal "two" (read-line client)))
          (is (equal "1" (read-line client))))))))

(define-test service.default-hook ()
  "Errors are told on *error-output*, peers that leave are not."
  (let ((text (make-string-output-stream)))
    (let ((*error-output* text))
      (port::log-error (make-condition 'simple-error :format-control "odd") "socket")
      (dolist (condition (list (make-condition 'connection-reset)
                               (make-condition 'end-of-file :stream *standard-input*)
                               (make-condition 'timeout) (make-condition 'socket-closed)
                               (make-condition 'proxy-error :code :timed-out)
                               (make-condition 'proxy-error :code :connection-truncated)))
        (port::log-error condition "socket"))
      (port::log-error (make-condition 'proxy-error :operation :proxy :code :proxy-syntax)
                       "socket"))
    (is (equal (format nil "socket: odd~%socket: PROXY header failed: proxy syntax~%")
               (get-output-stream-string text)))))

(define-test service.a-close-that-fails-is-told ()
  "What a function has written, and cannot be sent any more, is an error of its connection."
  (let ((seen '()))
    (with-service (server number (lambda (socket)
                                   (write-line "hello" socket)
                                   (finish-output socket)
                                   (wait-for-stream socket 5)
                                   (write-line "lost" socket))
                          :on-error (lambda (condition socket)
                                      (push (list condition socket) seen)))
      (let ((client (open-socket "127.0.0.1" number)))
        (is (equal "hello" (read-line client)))
        (close client :abort t))
      (is-true (wait-until (lambda () seen)))
      (is (typep (first (first seen)) 'connection-lost))
      (is (typep (second (first seen)) 'socket))
      (is-true (wait-until (lambda () (zerop (client-count server))))))))

(define-test service.default-hook-is-a-line ()
  "Whatever the condition reports: no line more, and none without end."
  (let ((text (make-string-output-stream)))
    (let ((*error-output* text))
      (let ((report (format nil "a~%b~Cc" (code-char 27))))
        (port::log-error (make-condition 'simple-error :format-control "~A"
                                                       :format-arguments (list report))
                         "socket"))
      (is (equal (format nil "socket: a\\nb\\x1Bc~%") (get-output-stream-string text)))
      (port::log-error (make-condition 'type-error :datum (make-list 100000 :initial-element 1)
                                                   :expected-type 'string)
                       (make-string 100000 :initial-element #\s))
      (is (> 3000 (length (get-output-stream-string text)))))))

(define-condition serious-of-mine (serious-condition) ())

(define-condition silent-condition (error) ()
  (:report (lambda (condition stream)
             (declare (ignore condition stream))
             (error "no report"))))

(defun call-with-errors-in (text function)
  "Call FUNCTION while what other threads write to *ERROR-OUTPUT* goes to the stream TEXT."
  (let ((old (sb-ext:symbol-global-value '*error-output*)))
    (unwind-protect (progn (setf (sb-ext:symbol-global-value '*error-output*) text)
                           (funcall function))
      (setf (sb-ext:symbol-global-value '*error-output*) old))))

(define-test service.hook-fails ()
  "A hook that signals, or a condition without a report, ends nothing and is told by a line."
  (dolist (hook (list nil (lambda (condition socket)
                            (declare (ignore condition socket))
                            (error 'silent-condition))
                      (lambda (condition socket)
                        (declare (ignore condition socket))
                        (error 'serious-of-mine))))
    (let ((text (make-string-output-stream)))
      (flet ((answer (socket)
               (unless (equal "fine" (read-line socket))
                 (error 'silent-condition))
               (write-line "fine" socket)))
        (call-with-errors-in text
                             (lambda ()
                               (with-service (server number #'answer :on-error hook)
                                 (is (null (ignore-errors (ask-once number "odd"))))
                                 (is (equal "fine" (ask-once number "fine")))
                                 (is-true (wait-until (lambda ()
                                                        (zerop (client-count server)))))))))
      (let ((lines (get-output-stream-string text)))
        (is (search "SILENT-CONDITION" lines) "~A" lines)
        (is (= 1 (count #\Newline lines)) "~A" lines)))))

(define-test service.idle-timeout (:behaviour 4)
  "Connections that are silent for too long are closed, parked or not; others are not."
  (dolist (handler (list #'echo-lines #'echo-one-line))
    (with-service (server number handler :timeout 1 :await-input t)
      (with-open-socket (silent "127.0.0.1" number)
        (with-open-socket (lively "127.0.0.1" number)
          (is (equal "x" (ask silent "x")))
          (multiple-value-bind (seconds line)
              (seconds-of (lambda ()
                            (loop repeat 100
                                  do (is (equal "y" (ask lively "y")))
                                     (when (wait-for-stream silent 0.05)
                                       (return)))
                            (handler-case (read-line silent nil :end)
                              (connection-reset () :end))))
            (is (eq :end line))
            (is (<= 0.9 seconds 5) "~A s" seconds)))))))

(define-test service.connections-above-the-limit-wait ()
  (with-service (server number #'echo-lines :max-connections 2)
    (let ((first (open-socket "127.0.0.1" number))
          (second (open-socket "127.0.0.1" number))
          (third (open-socket "127.0.0.1" number)))
      (is (equal "1" (ask first "1")))
      (is (equal "2" (ask second "2")))
      (write-line "3" third)
      (finish-output third)
      (is-false (wait-for-stream third 0.1))
      (is (= 2 (client-count server)))
      (close first)
      (is (equal "3" (with-deadline (5) (read-line third))))
      (close second)
      (close third))))

(define-test service.listeners ()
  "IPv4, IPv6, a local path, an abstract name and a server that was there, in one service."
  (let* ((path (temporary-path))
         (hosts (available '("127.0.0.1" "::1")))
         (own (open-socket-server 0 :host "127.0.0.1"))
         (server (serve #'echo-lines (list 0 own (pathname path)
                                           (format nil "@port-test-~D" (process-id)))
                        :host hosts :mode #o600))
         (listeners (server-listeners server)))
    (is (= (+ 3 (length hosts)) (length listeners)))
    (is (string= "600" (permissions path)))
    (is (equal hosts (mapcar (lambda (listener) (nth-value 0 (socket-server-host/port listener)))
                             (subseq listeners 0 (length hosts)))))
    (is (eq own (nth (length hosts) listeners)))
    (dolist (listener listeners)
      (multiple-value-bind (host port) (socket-server-host/port listener)
        (let ((socket (if (zerop port) (open-unix-socket host) (open-socket host port))))
          (is (equal "hello" (ask socket "hello")))
          (close socket))))
    (is (search "service" (princ-to-string server)))
    (is (search (format nil ":~D" (port-of own)) (princ-to-string server)) "no end of its own")
    (is-true (stop-server server))
    (is-true (stop-server server))
    (is (search "stopped" (princ-to-string server)))
    (is (null (probe-file path)))
    (is-failure (socket-closed :closed) (socket-accept own :wait 0))))

(define-test service.settings ()
  "What SERVE is told of listeners and connections is what they have."
  (flet ((facts (socket)
           (format socket "~{~S~^ ~}~%"
                   (list* (socket-timeout socket :input) (socket-timeout socket :output)
                          (stream-external-format socket) (stream-element-type socket)
                          (mapcar (lambda (name) (socket-option socket name))
                                  '(:domain :nodelay :keepalive))))))
    (loop for (facts . settings)
            in '(("NIL NIL :UTF-8 CHARACTER :INET T T")
                 ("9 9 :LATIN-1 CHARACTER :INET NIL T"
                  :timeout 9 :external-format :latin-1 :nodelay nil)
                 ("9 3 :UTF-8 (UNSIGNED-BYTE 8) :INET T NIL"
                  :timeout 9 :output-timeout 3 :bin t :keepalive nil)
                 ("4 NIL :UTF-8 CHARACTER :INET T T" :input-timeout 4))
          do (let ((server (apply #'serve #'facts 0 :host "127.0.0.1" settings)))
               (with-open-socket (socket "127.0.0.1" (port-of (first (server-listeners server))))
                 (is (equal facts (read-line socket)) "~S" settings))
               (is-true (stop-server server)))))
  (let ((server (serve #'echo-lines 0 :family :inet6)))
    (is (equal "::" (socket-server-host/port (first (server-listeners server)))))
    (is (eq t (socket-option (first (server-listeners server)) :v6-only)))
    (is-true (stop-server server))))

(define-test service.reuse-port ()
  "Two services on one port, as two processes would have."
  (with-service (first number (lambda (socket) (write-line "1" socket)) :reuse-port t)
    (let ((second (serve (lambda (socket) (write-line "2" socket)) number
                         :host "127.0.0.1" :reuse-port t)))
      (let ((answers (loop repeat 40
                           collect (with-open-socket (socket "127.0.0.1" number)
                                     (read-line socket)))))
        (is (member "1" answers :test #'equal))
        (is (member "2" answers :test #'equal)))
      (is-true (stop-server second)))))

(define-test service.several-processes (:limit 60)
  "Another process serves the same port; when this one stops, it alone does."
  (with-service (first number (lambda (socket) (write-line "here" socket)) :reuse-port t)
    (let ((child (uiop:launch-program
                  (lisp-command
                   (append (loading (here))
                           (list (format nil "(port:serve (lambda (socket)
                                                (write-line \"there\" socket))
                                              ~D :host \"127.0.0.1\" :reuse-port t)" number)
                                 "(progn (write-line \"serving\") (finish-output) (read-line))")))
                  :input :stream :output :stream)))
      (flet ((answers ()
               (loop repeat 40
                     collect (with-open-socket (socket "127.0.0.1" number :timeout 10)
                               (read-line socket)))))
        (unwind-protect
             (progn
               (is (equal "serving" (read-line (uiop:process-info-output child) nil)))
               (let ((answers (answers)))
                 (is (member "here" answers :test #'equal))
                 (is (member "there" answers :test #'equal)))
               (is-true (stop-server first))
               (is (equal '("there") (remove-duplicates (answers) :test #'equal))))
          (uiop:terminate-process child :urgent t)
          (uiop:wait-process child)
          (uiop:close-streams child))))))

(define-test service.arguments-that-are-none-are-refused ()
  (signals type-error (serve "function" 0))
  (signals type-error (serve #'echo-lines 0 :threads 0))
  (signals type-error (serve #'echo-lines 0 :max-connections 0))
  (signals type-error (serve #'echo-lines 0 :timeout -1))
  (signals type-error (serve #'echo-lines 0 :on-error 5))
  (signals type-error (serve #'echo-lines 0 :name :echo))
  (signals type-error (serve #'echo-lines "@port-test-nobody" :backlog -1))
  (let ((packets (open-unix-server (format nil "@port-packets-~D" (process-id))
                                   :kind :seqpacket)))
    (is-failure (not-supported :not-supported) (serve #'echo-lines packets))
    (close packets))
  (signals type-error (stop-server "server"))
  (with-socket-server (taken 0 :host "127.0.0.1")
    (is-failure (address-in-use :address-in-use)
      (serve #'echo-lines (list 0 (port-of taken)) :host "127.0.0.1"))))

;;; Connections and threads that end in other ways

(define-test service.failure-leaves-servers-of-others ()
  "A server that was opened before stays its owner's where there is no service in the end."
  (with-socket-server (server 0 :host "127.0.0.1")
    (is (typep (failure-of (serve #'echo-lines (list server "bad port"))) 'network))
    (is (typep (failure-of (serve #'echo-lines (list server server))) 'usage-error))
    (is (typep (nth-value 1 (ignore-errors (serve 'no-such-function server))) 'error))
    (is (null (socket-accept server :wait 0)))
    ;; nor is anything left of what was opened for the service itself
    (let ((other (open-socket-server 0 :host "127.0.0.1")))
      (close other)
      (is-failure (socket-closed :closed) (serve #'echo-lines (list 0 server other)))
      (is (null (socket-accept server :wait 0))))))

(define-test service.closed-by-others ()
  "A connection that waits, closed by another thread, leaves the service, as does one that the
function closes although it asks to be called again."
  (let ((sockets '()))
    (with-service (server number (lambda (socket)
                                   (let ((line (read-line socket nil)))
                                     (push socket sockets)
                                     (when line
                                       (write-line line socket)
                                       (when (equal line "close")
                                         (close socket))
                                       :again)))
                          :max-connections 1)
      (dotimes (i 3)
        (with-open-socket (socket "127.0.0.1" number :input-timeout 10)
          (is (equal "x" (ask socket "x")))
          (is-true (wait-until (lambda ()
                                 (eq :parked (port::client-state (only-client server))))))
          (close (first sockets))
          (is (null (read-line socket nil))))
        (is-true (wait-until (lambda () (zerop (client-count server)))))
        (with-open-socket (socket "127.0.0.1" number :input-timeout 10)
          (is (equal "x" (ask socket "x")))
          (is (equal "close" (ask socket "close")))
          (is (null (read-line socket nil))))
        (is-true (wait-until (lambda () (zerop (client-count server)))))))))

(defun only-client (server)
  (find nil (port::service-clients (service-of server)) :test-not #'eq))

(define-test service.no-pause-with-room ()
  "A connection that ended just before the listeners are paused for want of room is not missed."
  (with-service (server number #'echo-lines :max-connections 1)
    (port::pause-listeners (service-of server) port::+never+)
    (is-false (port::service-paused (service-of server)))
    (is (equal "x" (ask-once number "x")))))

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

;;; A connection that waits, with output that its peer does not read

(defun fill-the-system (socket)
  "Write into SOCKET, of a service, until the system takes no more and some of it is left."
  (setf (socket-option socket :send-buffer) 8192 ; so that it does not grow later
        (socket-timeout socket :output) 0.1)
  (is (typep (failure-of (write-octets socket (octets-of-size 10000000))) 'timeout))
  (is (typep (failure-of (loop (write-string (make-string 5000 :initial-element #\x) socket)
                               (finish-output socket)))
             'timeout))
  (is (plusp (port::pending-output (port::socket-connection socket))))
  (setf (socket-timeout socket :output) 60))

(defun keep-served (cell)
  "A function for a service that echoes lines and puts the socket that says `keep' into CELL."
  (lambda (socket)
    (let ((line (read-line socket nil)))
      (when (equal line "keep")
        (setf (car cell) socket))
      (when line
        (write-line line socket)
        :again))))

(defun call-with-deaf-client (function number server cell)
  "Call FUNCTION while a client of SERVER is parked that does not read what others have sent it."
  (with-open-socket (deaf "127.0.0.1" number :input-timeout 10)
    (setf (socket-option deaf :receive-buffer) 4096)
    (is (equal "keep" (ask deaf "keep")))
    (is-true (wait-until (lambda () (eq :parked (port::client-state (only-client server))))))
    (fill-the-system (car cell))
    (funcall function)
    (close deaf :abort t)))

(define-test service.silent-and-deaf (:limit 60 :weather nil)
  "Nobody waits for the flush of a connection that was silent for too long."
  (let ((cell (list nil)))
    (with-service (server number (keep-served cell) :timeout 1)
      (call-with-deaf-client
       (lambda ()
         (is-true (wait-until (lambda () (not (open-stream-p (car cell)))) 10))
         (dotimes (i 3)
           (is (> 2 (seconds-of (lambda () (is (equal "x" (ask-once number "x"))))))))
         (is-true (stop-server server :drain 0)))
       number server cell))))

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

(define-test service.killed-before-they-began (:limit 60)
  "Nobody waits for a thread that is killed before it has begun, neither clients nor who stops."
  (dolist (go-on '(t nil))
    (let ((inside (sb-thread:make-semaphore)) (gate (sb-thread:make-semaphore)))
      (flet ((wait ()
               (sb-thread:signal-semaphore inside)
               (sb-thread:wait-on-semaphore gate)))
        (with-service (server number (lambda (socket) (echo-one-line socket #'wait)) :threads 2)
          (wait-until (lambda () (port::service-leader (service-of server))))
          (with-open-stream (slow (call-with-stillborn-threads
                                   (lambda (killed)
                                     (let ((socket (open-socket "127.0.0.1" number
                                                                :input-timeout 10)))
                                       (say socket "wait")
                                       (sb-thread:wait-on-semaphore killed :timeout 10)
                                       socket))))
            (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
            (sb-thread:signal-semaphore gate)
            (is (equal "wait" (read-line slow nil)))
            (when go-on
              (say slow "wait")
              (is-true (sb-thread:wait-on-semaphore inside :timeout 10))
              (is (equal "x" (ask-once number "x")))
              (sb-thread:signal-semaphore gate)
              (is (equal "wait" (read-line slow nil))))))))))

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
