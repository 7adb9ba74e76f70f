;;;; haproxy - the real HAProxy in front of two processes: who is behind it, and how one of the two
;;;; is taken out, and put back, while clients go on.

(in-package :port/test)

(define-suite haproxy "Services behind HAProxy.")

(defparameter *haproxy-configuration* "
global
    stats socket ~A level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend front
    bind fd@0
    default_backend back
backend back
    server a 127.0.0.1:~D send-proxy check inter 200ms
    server b 127.0.0.1:~D send-proxy-v2 check inter 200ms
"
  "With the admin's socket and the ports of both servers. The listener is given to it.")

(defun start-haproxy (configuration listener)
  "The process of HAProxy that accepts from LISTENER, its descriptor 0, which -q would close."
  (let ((input (sb-sys:make-fd-stream (socket-descriptor listener) :input t :buffering :none)))
    (sb-ext:run-program "/usr/sbin/haproxy" (list "-db" "-f" configuration)
                        :wait nil :input input :output nil :error nil)))

(defun call-with-haproxy (function a b)
  "Call FUNCTION with the port of HAProxy, before the ports A and B, and the path of its admin."
  (let ((configuration (temporary-path)) (admin (temporary-path)) (process nil))
    (with-socket-server (listener 0 :host "127.0.0.1")
      (unwind-protect
           (progn
             (with-open-file (stream configuration :direction :output)
               (format stream *haproxy-configuration* admin a b))
             (setf process (start-haproxy configuration listener))
             (funcall function (port-of listener) admin))
        (when process
          (stop-process process))
        (uiop:delete-file-if-exists configuration)
        (uiop:delete-file-if-exists admin)))))

(defun command (admin text)
  "What HAProxy, whose admin is at the path ADMIN, answers to the command TEXT: a list of lines."
  (with-open-stream (socket (connect-patiently (lambda () (open-unix-socket admin))))
    (setf (socket-timeout socket :input) 10)
    (write-line text socket)
    (finish-output socket)
    (loop for line = (read-line socket nil)
          while line collect line)))

(defun sessions (admin server)
  "How many sessions HAProxy has with SERVER, those that it has just begun included."
  (loop for line in (command admin "show stat")
        for fields = (uiop:split-string line :separator ",")
        when (and (equal (first fields) "back") (equal (second fields) server))
          return (parse-integer (fifth fields))))

;;; The two servers: one in this process, one in another. Each answers a line with its name and what
;;; it holds for the client's end.

(defun answer-client (name socket)
  (when (read-line socket nil)
    (multiple-value-bind (host port) (socket-host/port socket)
      (format socket "~A ~A ~A~%" name host port))
    :again))

(defparameter *other-process*
  "(let ((server (port:serve (lambda (socket)
                               (when (read-line socket nil)
                                 (multiple-value-bind (host port) (port:socket-host/port socket)
                                   (format socket \"b ~A ~A~%\" host port))
                                 :again))
                             0 :host \"127.0.0.1\" :proxy-protocol t)))
     (format t \"~&port ~D~%\" (nth-value 1 (port:socket-server-host/port
                                           (first (port:server-listeners server)))))
     (finish-output)
     (read-line *standard-input* nil)
     (format t \"~A~%\" (port:stop-server server))
     (finish-output))")

(defun call-with-other-process (function)
  "Call FUNCTION with the port of a service in another process, which then is told to stop."
  (let ((process (uiop:launch-program
                  (lisp-command (append (loading (here)) (list *other-process*)))
                  :input :stream :output :stream :error-output nil)))
    (unwind-protect
         (let ((output (uiop:process-info-output process)))
           (funcall function (parse-integer (loop for line = (read-line output)
                                                  when (eql 0 (search "port " line))
                                                    return (subseq line 5))))
           (close (uiop:process-info-input process))
           (is (equal "T" (read-line output))))
      (when (uiop:process-alive-p process)
        (uiop:terminate-process process))
      (uiop:wait-process process)
      (uiop:close-streams process))))

(defun ask-in-front (number)
  "The name of the server that HAProxy, at port NUMBER, had answer; NIL if its answer is not as it
should be."
  (with-open-socket (socket "127.0.0.1" number :timeout 10 :input-timeout 10)
    (let ((name (ask socket "who?")))
      (multiple-value-bind (host port own-host own-port) (socket-host/port socket)
        (declare (ignore host port))
        (and name
             (string= (subseq name 1) (format nil " ~A ~D" own-host own-port))
             (subseq name 0 1))))))

(defun start-asking (number stop)
  "A thread that asks at port NUMBER until (car STOP), ten times at least, or in vain: its value is
the list of the names, at its end what went wrong."
  (in-thread (lambda ()
               (loop for asked from 0
                     until (and (car stop) (>= asked 10))
                     for name = (handler-case (ask-in-front number)
                                  (error (condition) condition))
                     collect name
                     while (stringp name)))))

(define-test haproxy.drain (:limit 120 :weather nil) ; its checks have limits of time of their own
  "Both versions of the header name the client; a server is drained, replaced and put back while
clients ask all the time, and none of them notices. HAProxy's own checks are no errors."
  (let* ((errors '()) (checked nil)
         (start (lambda (name port)
                  (serve (lambda (socket) (answer-client name socket)) port
                         :host "127.0.0.1" :proxy-protocol t
                         :on-error (lambda (condition socket)
                                     ;; A check sends a header that names nobody, and resets.
                                     (if (and (typep condition 'connection-reset)
                                              (equal (ends socket) (proxy-ends socket)))
                                         (setf checked t)
                                         (push condition errors))))))
         (a (funcall start "a" 0))
         (a-port (port-of (first (server-listeners a))))
         (stop (list nil)) (threads '()))
    (unwind-protect
         (call-with-other-process
          (lambda (b-port)
            (call-with-haproxy
             (lambda (number admin)
               (flet ((names (count)
                        (loop repeat count collect (ask-in-front number))))
                 (is-true (wait-until (lambda () (equal '("a" "b") (sort (names 2) #'string<))) 10))
                 (let ((names (names 20)))
                   (is (= 10 (count "a" names :test #'equal)))
                   (is (= 10 (count "b" names :test #'equal))))
                 (setf threads (loop repeat 4 collect (start-asking number stop)))
                 ;; a is taken out ...
                 (command admin "set server back/a state drain")
                 (is-true (wait-until (lambda () (eql 0 (sessions admin "a"))) 10))
                 (is-true (stop-server a))
                 (is (equal '("b") (remove-duplicates (names 20) :test #'equal)))
                 ;; ... and another is put in its place
                 (setf a (funcall start "A" a-port))
                 (command admin "set server back/a state ready")
                 (is-true (wait-until (lambda () (equal '("A" "b") (sort (names 2) #'string<))) 10))
                 (setf (car stop) t)
                 (dolist (thread threads)
                   (let ((answers (join thread)))
                     (is (<= 10 (length answers)))
                     (is (subsetp answers '("a" "b" "A") :test #'equal) "~A" answers)))
                 (is-true (wait-until (lambda () checked)))
                 (is (null errors) "~A" errors)))
             a-port b-port)))
      (setf (car stop) t)
      (stop-server a :drain 0))))
