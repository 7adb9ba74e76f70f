;;;; tls - TLS with other programs at the other end: openssl, curl, node.

(in-package :port/test)

(define-suite tls-programs "TLS with other programs.")

(defun call-with-program (command function)
  "Call FUNCTION with the input and the output of the process of COMMAND, a list; it is ended then.
Its errors come with its output."
  (let ((process (uiop:launch-program command :input :stream :output :stream
                                              :error-output :output)))
    (unwind-protect (funcall function (uiop:process-info-input process)
                             (uiop:process-info-output process))
      (uiop:terminate-process process :urgent t)
      (uiop:wait-process process)
      (uiop:close-streams process))))

(defun openssl-server (&rest options)
  "The command of a server of OpenSSL with OPTIONS, at any port."
  (list* "openssl" "s_server" "-accept" "127.0.0.1:0" "-cert" (certificate-file "server.pem")
         "-key" (certificate-file "server.key") "-CAfile" (certificate-file "authority.pem")
         options))

(defun port-told (output)
  "The port that a server of OpenSSL tells in its OUTPUT."
  (loop for line = (read-line output)
        for colon = (and (eql 0 (search "ACCEPT " line)) (position #\: line :from-end t))
        when colon
          return (parse-integer line :start (1+ colon) :junk-allowed t)))

(defmacro with-openssl-server ((number output &rest options) &body body)
  "Run BODY with the port NUMBER of a server of OpenSSL, and its OUTPUT."
  (let ((input (gensym "INPUT")))
    `(call-with-program (openssl-server ,@options)
                        (lambda (,input ,output)
                          (declare (ignorable ,input))
                          (let ((,number (port-told ,output)))
                            ,@body)))))

(defun system-has-input-p (socket)
  "True if poll(2) says that SOCKET is ready for input."
  (cffi:with-foreign-object (row :uint64)
    (setf (cffi:mem-ref row :uint64) 0
          (cffi:mem-ref row :int32) (socket-descriptor socket)
          (cffi:mem-ref row :int16 4) 1)
    (= 1 (cffi:foreign-funcall "poll" :pointer row :unsigned-long 1 :int 0 :int))))

(define-test tls-programs.a-server-of-openssl (:limit 60)
  "Lines come back reversed, by either version."
  (loop for (option version) in '(("-tls1_2" "TLSv1.2") ("-tls1_3" "TLSv1.3"))
        do (with-openssl-server (number output option "-rev")
             (with-tls-client (client number)
               (is (equal version (getf (tls-info client) :version)))
               (is (equal "eno" (ask client "one")))
               (is (equal "owt" (ask client "two")))))))

(define-test faults.tls-connections (:suite faults :behaviour 64 :faults t)
  "The server is another process: the calls of one in this would fail as well."
  (with-openssl-server (number output "-rev")
    (check-every-call "a connection that begins with TLS"
                      (lambda ()
                        (list (open-tls-socket "127.0.0.1" number :context (client-context)
                                                                  :timeout 5))))))

(define-test tls-programs.tickets-are-no-input (:limit 60)
  "What the system reports, and is for TLS itself, is nothing for whoever waits."
  (with-openssl-server (number output "-tls1_3" "-rev")
    (dolist (wait (list (lambda (client)
                          (let ((found nil))
                            (do-pollers (poller)
                              (poller-add poller client)
                              (setf found (or found (poller-wait poller :timeout 0.02)))
                              (poller-remove poller client))
                            found))
                        (lambda (client) (wait-for-input client :timeout 0.02))
                        (lambda (client) (wait-for-stream client 0.02))
                        #'listen
                        #'read-char-no-hang
                        (lambda (client) (not (eq :open (socket-state client))))))
      (with-tls-client (client number)
        (is-true (wait-until (lambda () (system-has-input-p client))))
        (is-false (funcall wait client))
        (is (equal "eno" (ask client "one")))))))

(defun carry (from to until)
  "Hand on what comes out of FROM into TO, until the socket UNTIL has input."
  (let ((room (blank 16384)))
    (loop until (wait-for-input until :timeout 0.01)
          do (when (wait-for-input from :timeout 0)
               (write-octets to room :end (read-some from room))
               (finish-output to)))))

(defun read-record (socket)
  "The next record of TLS that comes out of SOCKET, as it is."
  (let* ((head (read-all-of 5 socket)) (body (+ (ash (aref head 3) 8) (aref head 4))))
    (concatenate '(simple-array (unsigned-byte 8) (*)) head (read-all-of body socket))))

(defun call-in-midst-of-ticket (function)
  "Call FUNCTION with a client that has TLS, a function that hands it the next record of a ticket,
which its certificate makes several of, and one that hands it three octets of the one after."
  (with-openssl-server (number output "-tls1_3" "-Verify" "1" "-max_send_frag" "512" "-rev")
    (with-open-contexts ((known (apply #'make-client-context (identity-of "client"))))
      (with-pair (client outside :local)
        (with-open-socket (wire "127.0.0.1" number :bin t :input-timeout 20)
          (let ((hands (in-thread (lambda ()
                                    (start-tls client :context known :host "127.0.0.1"
                                                      :timeout 20))))
                (record (blank 0)))
            (flet ((hand-on (&optional (end (length record)))
                     (write-octets outside record :end end)
                     (finish-output outside)
                     (setf record (subseq record end))))
              (carry outside wire wire)
              (carry wire outside outside)
              (join hands)
              (carry outside wire wire)
              (funcall function client
                       (lambda ()
                         (when (zerop (length record))
                           (setf record (read-record wire)))
                         (hand-on))
                       (lambda ()
                         (setf record (read-record wire))
                         (hand-on 3))))))))))

(define-test tls-programs.there-is-no-room-in-the-midst-of-a-message (:limit 60 :weather nil)
  "TLS sends nothing then, whatever the system has room for, and whatever part of the rest comes."
  (dolist (input '(nil t))
    (do-pollers (poller)
      (call-in-midst-of-ticket
       (lambda (client hand-record hand-three)
         (poller-add poller client :output t :input input)
         (is (equal `((,client nil :output)) (poller-wait poller :timeout 5)))
         (funcall hand-record)
         (is-false (listen client))
         (is (null (poller-wait poller :timeout 0.05)))
         (funcall hand-three)
         (is (null (poller-wait poller :timeout 0.05)))
         (loop repeat 5
               do (funcall hand-record)
               until (poller-wait poller :timeout 0.2))
         (is (equal `((,client nil :output)) (poller-wait poller :timeout 5))))))))

(define-test tls-programs.a-server-that-asks-for-a-certificate (:limit 60)
  (with-openssl-server (number output "-Verify" "1" "-verify_return_error" "-rev")
    (with-open-contexts ((known (make-client-context
                                 :certificate (certificate-file "client.pem")
                                 :key (certificate-file "client.key"))))
      (with-open-stream (client (open-tls-socket "127.0.0.1" number :context known
                                                                    :input-timeout 20))
        (is (equal "eno" (ask client "one")))))
    (is (typep (failure-of (with-tls-client (client number) (ask client "one"))) 'tls-error))))

(define-test tls-programs.sessions-of-openssl-are-resumed (:limit 60)
  "By a client of ours, whose server gives tickets of its own accord."
  (with-openssl-server (number output "-tls1_3" "-rev")
    (with-open-contexts ((context (make-client-context)))
      (loop for expected in '(nil t t)
            do (with-open-stream (client (open-tls-socket "127.0.0.1" number :context context
                                                                             :input-timeout 20))
                 (is (equal "eno" (ask client "one")))
                 (is (eq expected (getf (tls-info client) :resumed))))))))

(defun sent-by-openssl (number &rest options)
  "What a client of OpenSSL with OPTIONS tells, that sends a line to port NUMBER and waits for it."
  (call-with-program
   (list* "openssl" "s_client" "-tls1_3" "-no_ign_eof" "-CAfile" (certificate-file "authority.pem")
          "-connect" (format nil "127.0.0.1:~D" number) "-servername" "good.test" options)
   (lambda (input output)
     (write-line "one" input)
     (finish-output input)
     (let ((lines (loop for line = (read-line output nil)
                        while line collect line
                        until (equal line "one"))))
       (close input)
       (loop while (read-line output nil))
       lines))))

(define-test tls-programs.openssl-resumes-sessions-of-ours (:limit 60)
  (uiop:with-temporary-file (:pathname file)
    (with-open-contexts ((context (make-server-context)))
      (with-service (server number #'echo-one-line :tls context)
        (is (find "New, TLSv1.3" (sent-by-openssl number "-sess_out" (namestring file))
                  :test #'search))
        (is (find "Reused, TLSv1.3" (sent-by-openssl number "-sess_in" (namestring file))
                  :test #'search))))))

(define-test tls-programs.who-sends-and-closes-at-once-loses-nothing
    (:limit 60 :weather nil)            ; where a read finds nothing, what is there stays unread
  "Although tickets have come that nobody has read: a close with unread input would be a reset."
  (let ((text (map 'string (lambda (octet) (code-char (+ 97 (mod octet 26))))
                   (random-octets (amount 200000) (sb-ext:seed-random-state (test-seed))))))
    (dotimes (i 3)
      (with-openssl-server (number output "-tls1_3" "-naccept" "1")
        (with-tls-client (client number)
          (is-true (wait-until (lambda () (system-has-input-p client))))
          (write-line text client))
        (is (search text (uiop:slurp-stream-string output)))))))

(define-test tls-programs.a-client-of-openssl (:limit 60)
  "By either version, with a certificate and without; its end is an end of file."
  (with-open-contexts ((context (make-server-context :verify :given)))
    (loop for (option version) in '(("-tls1_2" "TLSv1.2") ("-tls1_3" "TLSv1.3"))
          do (dolist (subject '(nil "CN=client"))
               (with-socket-server (server 0 :host "127.0.0.1")
                 (let ((thread (in-thread
                                (lambda ()
                                  (with-open-stream (socket (socket-accept server :wait 20))
                                    (start-tls socket :side :server :context context :timeout 20)
                                    (setf (socket-timeout socket :input) 20)
                                    (echo-lines socket)
                                    (tls-info socket))))))
                   (call-with-program
                    (append (list "openssl" "s_client" "-quiet" "-no_ign_eof" option
                                  "-connect" (format nil "127.0.0.1:~D" (port-of server))
                                  "-servername" "a.wild.test" "-verify_return_error"
                                  "-CAfile" (certificate-file "authority.pem"))
                            (when subject
                              (list "-cert" (certificate-file "client.pem")
                                    "-key" (certificate-file "client.key"))))
                    (lambda (input output)
                      (write-line "one" input)
                      (finish-output input)
                      (is (loop for line = (read-line output nil)
                                while line
                                  thereis (equal line "one")))
                      (close input)
                      (loop while (read-line output nil))))
                   (let ((info (join thread)))
                     (is (equal version (getf info :version)))
                     (is (equal "a.wild.test" (getf info :server-name)))
                     (is (if subject
                             (search subject (getf info :subject))
                             (null (getf info :subject)))))))))))

;;; HTTPS

(defun answer-request (socket)
  "Answer one request with what it asks for, and wait for the next."
  (let ((line (read-line socket nil)))
    (when line
      (loop until (equal "" (read-line socket)))
      (let ((body (octets-like (format nil "~A~A" (second (uiop:split-string line))
                                       (make-string 50000 :initial-element #\x)))))
        (format socket "HTTP/1.1 200 OK~%Content-Length: ~D~%~%" (length body))
        (write-octets socket body))
      :again)))

(defun curl-securely (number &rest arguments)
  "Values: what curl says; its status."
  (multiple-value-bind (output errors status)
      (uiop:run-program (list* "curl" "-sS" "--max-time" "30" "--noproxy" "*"
                               "--cacert" (certificate-file "authority.pem")
                               "--resolve" (format nil "good.test:~D:127.0.0.1" number)
                               "--resolve" (format nil "bad.test:~D:127.0.0.1" number)
                               arguments)
                        :output :string :error-output nil :ignore-error-status t)
    (declare (ignore errors))
    (values output status)))

(define-test tls-programs.curl-keeps-its-connection (:limit 60)
  "Two requests by one connection, and the protocol that was agreed on."
  (let ((agreed '()))
    (with-open-contexts ((context (make-server-context :protocols '("http/1.1"))))
      (with-service (server number (lambda (socket)
                                     (pushnew (getf (tls-info socket) :protocol) agreed
                                              :test #'equal)
                                     (answer-request socket))
                            :tls context :external-format '(:utf-8 :eol :crlf))
        (let ((base (format nil "https://good.test:~D" number)))
          (multiple-value-bind (output status)
              (curl-securely number "-w" "(%{num_connects})" (format nil "~A/one" base)
                    (format nil "~A/two" base))
            (is (eql 0 status))
            (is (eql 0 (search "/onexxx" output)))
            (is (search "x(1)/twox" output))
            (is (search "x(0)" output))
            (is (= (+ 100000 14) (length output)))))
        (is (eql 60 (nth-value 1 (curl-securely number (format nil "https://bad.test:~D/" number))))
            "curl takes us for anybody")))
    (is (equal '("http/1.1") agreed))))

;;; Node

(defparameter *node-client*
  "const tls = require('tls'), fs = require('fs');
const [port, ca] = process.argv.slice(1);
const socket = tls.connect({host: '127.0.0.1', port: port, servername: 'good.test',
                            ca: fs.readFileSync(ca)},
                           () => socket.end('x'.repeat(300000) + '\\n'));
let got = 0;
socket.on('data', data => { got += data.length; });
socket.on('end', () => console.log(got, socket.getProtocol()));
socket.on('error', error => console.log(error.code));")

(define-test tls-programs.node (:limit 60)
  "It sends much, ends its output at once, and gets it all back."
  (if (not (installed-p "node"))
      (skip "node is not installed")
      (with-service (server number #'echo-one-line :tls (server-context)
                                                   :on-error (constantly nil))
        (is (equal "300001 TLSv1.3"
                   (uiop:run-program (list "node" "-e" *node-client* (princ-to-string number)
                                           (certificate-file "authority.pem"))
                                     :output '(:string :stripped t)))))))
