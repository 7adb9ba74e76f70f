;;;; example-servers - the servers of examples/ and the clients that they are for: socat, curl, wrk.

(in-package :port/test)

(define-suite example-servers "Echo, chat, HTTP, SOCKS.")

(defmacro with-example ((number start &rest arguments) &body body)
  "Run BODY with NUMBER, the port of the server that START, called with 0 and ARGUMENTS, returns."
  `(call-with-example (lambda (,number) ,@body)
                      (,start 0 ,@arguments :host "127.0.0.1")))

(defun call-with-example (function server)
  (unwind-protect (funcall function (port-of (first (server-listeners server))))
    (is-true (stop-server server :drain 0))))

(defun output-of (&rest command)
  "What COMMAND, strings, prints; its exit status."
  (multiple-value-bind (output error-output status)
      (uiop:run-program command :output :string :ignore-error-status t :external-format :latin-1)
    (declare (ignore error-output))
    (values output status)))

(defun installed-p (program)
  (zerop (nth-value 1 (output-of "sh" "-c" (format nil "command -v ~A" program)))))

;;; Echo

(define-test example-servers.echo ()
  "socat sends 200 kB and gets them back."
  (with-example (number port-example/echo:start)
    (let ((file (temporary-path)))
      (unwind-protect
           (progn
             (with-open-file (out file :direction :output :element-type '(unsigned-byte 8))
               (write-sequence (random-octets 200000 (sb-ext:seed-random-state 1)) out))
             (is (string= "" (output-of
                              "sh" "-c"
                              (format nil "socat -t 5 - TCP:127.0.0.1:~D <~A | cmp - ~:*~A"
                                      number file)))))
        (delete-file file)))))

;;; Chat

(defun start-socat (number)
  (uiop:launch-program (list "socat" "-t" "5" "-" (format nil "TCP:127.0.0.1:~D" number))
                       :input :stream :output :stream))

(defun say-to (process line)
  (write-line line (uiop:process-info-input process))
  (finish-output (uiop:process-info-input process)))

(defun hear (process)
  (read-line (uiop:process-info-output process) nil))

(defun end-process (process)
  (uiop:terminate-process process)
  (uiop:wait-process process)
  (uiop:close-streams process))

(define-test example-servers.chat ()
  "Two people with socat; a third one whose name is taken."
  (with-example (number port-example/chat:start)
    (let ((ann (start-socat number)) (bob (start-socat number)))
      (unwind-protect
           (progn
             (say-to ann "ann")
             (is (equal "* here is nobody else" (hear ann)))
             (say-to bob "bob")
             (is (equal "* here is one else" (hear bob)))
             (is (equal "* bob comes" (hear ann)))
             (say-to bob "hello")
             (is (equal "bob: hello" (hear ann)))
             (say-to ann "grüß dich")
             (is (equal "ann: grüß dich" (hear bob)))
             (with-open-socket (third "127.0.0.1" number :input-timeout 10)
               (is (equal "* there is a Bob already" (ask third "Bob")))
               (is (null (read-line third nil))))
             (close (uiop:process-info-input bob))
             (is (equal "* bob goes" (hear ann))))
        (end-process ann)
        (end-process bob)))))

(define-test example-servers.chat-deaf (:limit 60)
  "Who does not read is thrown out, and the others go on."
  (with-example (number port-example/chat:start)
    (with-open-socket (deaf "127.0.0.1" number :input-timeout 10)
      (with-open-socket (talker "127.0.0.1" number :input-timeout 20)
        (is (equal "* here is nobody else" (ask deaf "deaf")))
        (is (equal "* here is one else" (ask talker "talker")))
        (let ((line (make-string 4000 :initial-element #\x)))
          (loop repeat 15000
                until (wait-for-stream talker 0)
                do (write-line line talker)
                   (finish-output talker)))
        (is (equal "* deaf does not listen and was thrown out" (read-line talker)))))))

(define-test example-servers.chat-endless ()
  "Who says more than a line can hold is told so, and has to go."
  (with-example (number port-example/chat:start)
    (with-open-socket (talker "127.0.0.1" number :input-timeout 10)
      (is (equal "* here is nobody else" (ask talker "talker")))
      ;; one more than that: what came behind it would have the close reset the connection
      (write-string (make-string 4097 :initial-element #\x) talker)
      (finish-output talker)
      (is (equal "* expected lines of at most 4096 octets" (read-line talker nil))))))

;;; HTTP

(defun web-directory ()
  "A new directory with something to serve, and a secret beside it."
  (let* ((parent (uiop:ensure-directory-pathname (format nil "~A.d" (temporary-path))))
         (root (merge-pathnames "www/" parent)))
    (ensure-directories-exist (merge-pathnames "sub/" root))
    (flet ((write-file (name text directory)
             (with-open-file (out (merge-pathnames (uiop:parse-native-namestring name) directory)
                                  :direction :output :external-format uiop:*utf-8-external-format*)
               (write-string text out))))
      (write-file "index.html" "<p>index</p>" root)
      (write-file "a b[1].txt" "odd name" root)
      (write-file "grüße.txt" "hello" root)
      (write-file "index.html" "<p>sub</p>" (merge-pathnames "sub/" root))
      (write-file "secret" "secret" parent))
    (loop for (target name) in '(("../secret" "link") ("loop" "loop") ("nothing" "dangling"))
          do (uiop:run-program (list "ln" "-s" target (uiop:native-namestring
                                                       (merge-pathnames name root)))))
    (values root parent)))

(defmacro with-web ((number) &body body)
  "Run BODY with NUMBER, the port of an HTTP server of a WEB-DIRECTORY."
  (let ((root (gensym)) (parent (gensym)))
    `(multiple-value-bind (,root ,parent) (web-directory)
       (unwind-protect
            (with-example (,number port-example/http:start (port-example/http:files-of ,root))
              ,@body)
         (uiop:delete-directory-tree ,parent :validate t)))))

(defun curl (number path &rest options)
  (apply #'output-of "curl" "-s" "--path-as-is" "--max-time" "10"
         (append options (list (format nil "http://127.0.0.1:~D~A" number path)))))

(define-test example-servers.http-curl ()
  (with-web (number)
    (flet ((status (path &rest options)
             (apply #'curl number path "-o" "/dev/null" "-w" "%{http_code} %{content_type}"
                    options)))
      (is (string= "<p>index</p>" (curl number "/")))
      (is (string= "<p>index</p>" (curl number "/index.html?query=1")))
      (is (string= "odd name" (curl number "/a%20b%5B1%5D.txt")))
      (is (string= "hello" (curl number "/gr%C3%BC%C3%9Fe.txt")))
      (is (string= "<p>sub</p>" (curl number "/sub" "-L")))
      (is (string= "200 text/html; charset=utf-8" (status "/sub/")))
      (dolist (path '("/nothing" "/../secret" "/sub/../../secret" "/%2e%2e/secret" "/..%2fsecret"
                      "/link" "/loop" "/dangling" "//etc/passwd" "/index.html/" "/a%20b*"))
        (is (string= "404 text/plain; charset=utf-8" (status path)) path))
      (is (search "400" (status "/%zz")))
      (is (search "400" (status "/%00")))
      (is (search "400" (status "/%ff%fe")))
      (is (search "405" (status "/" "-d" "data")))
      (is (search "501" (status "/" "-X" "BREW")))
      (is (search "414" (status (format nil "/~A" (make-string 9000 :initial-element #\a)))))
      (is (search "431" (status "/" "-H" (format nil "X: ~A"
                                                 (make-string 9000 :initial-element #\a)))))
      (let ((head (curl number "/" "-I")))
        (dolist (part '("HTTP/1.1 200 OK" "Content-Length: 12" "Date: " " GMT"))
          (is (search part head)))))))

(defun http-exchange (number &rest lines)
  "What an HTTP server at port NUMBER answers to LINES, up to its end, as a list of lines."
  (with-open-socket (socket "127.0.0.1" number :input-timeout 10
                                               :external-format '(:latin-1 :eol :crlf))
    (dolist (line lines)
      (write-line line socket))
    (finish-output socket)
    (socket-shutdown socket :output)
    (loop for line = (read-line socket nil)
          while line
          collect line)))

(define-test example-servers.http-heads ()
  "Requests that are no good, line by line, and those at the edge that are."
  (with-example (number port-example/http:start 'port-example/http:hello)
    (loop for (status . lines)
            in '(("200 OK" "GET / HTTP/1.1" "Host: x" "")
                 ("200 OK" "" "GET / HTTP/1.1" "hOsT:x" "")
                 ("200 OK" "GET http://x/ HTTP/1.1" "Host: x" "")
                 ("200 OK" "GET http://x HTTP/1.1" "Host: x" "")
                 ("200 OK" "GET https://x/ HTTP/1.1" "Host: x" "")
                 ("200 OK" "GET / HTTP/1.0" "")
                 ("200 OK" "GET / HTTP/1.1" "Host: x" "Content-Length: 2" "" "")
                 ("404 Not Found" "GET /x HTTP/1.1" "Host: x" "")
                 ("400 Bad Request" "GET / HTTP/1.1" "")
                 ("400 Bad Request" "GET / HTTP/1.1" "Host: x" "Host: y" "")
                 ("400 Bad Request" "GET / HTTP/1.1" "Host : x" "")
                 ("400 Bad Request" "GET / HTTP/1.1" "Host: x" " folded" "")
                 ("400 Bad Request" "GET / HTTP/1.1" "Host: x" "no field" "")
                 ("400 Bad Request" "GET / HTTP/1.1" "Host: x" "Content-Length: -1" "")
                 ("400 Bad Request" "GET / HTTP/1.1" "Host: x" "Content-Length: 1"
                  "Content-Length: 2" "")
                 ("400 Bad Request" "GET / HTTP/1.1" "Host: x")
                 ("400 Bad Request" "GET  / HTTP/1.1" "Host: x" "")
                 ("400 Bad Request" "GET / HTTP/1.1 " "Host: x" "")
                 ("400 Bad Request" "GET x HTTP/1.1" "Host: x" "")
                 ("400 Bad Request" "GET /" "")
                 ("400 Bad Request" "nonsense" "")
                 ("413 Content Too Large" "GET / HTTP/1.1" "Host: x" "Content-Length: 99999999" "")
                 ("501 Not Implemented" "GET / HTTP/1.1" "Host: x" "Transfer-Encoding: chunked" "")
                 ("505 HTTP Version Not Supported" "GET / HTTP/2.0" "Host: x" ""))
          do (is (equal (format nil "HTTP/1.1 ~A" status)
                        (first (apply #'http-exchange number lines)))
                 "~S" lines))
    (is (equal "HTTP/1.1 431 Request Header Fields Too Large"
               (first (apply #'http-exchange number "GET / HTTP/1.1"
                             (append (loop repeat 101 collect "X: y") '(""))))))
    (is (member "Allow: GET, HEAD" (http-exchange number "PUT / HTTP/1.1" "Host: x" "")
                :test #'string=))))

(define-test example-servers.http-connections ()
  "Requests sent ahead are answered in order; connections are kept and closed as was asked."
  (with-example (number port-example/http:start 'port-example/http:hello)
    (flet ((statuses (&rest lines)
             (remove-if-not (lambda (line) (search "HTTP/1.1 " line))
                            (apply #'http-exchange number lines))))
      (is (equal '("HTTP/1.1 200 OK" "HTTP/1.1 404 Not Found" "HTTP/1.1 200 OK")
                 (statuses "GET / HTTP/1.1" "Host: x" "" "GET /x HTTP/1.1" "Host: x" ""
                           "HEAD / HTTP/1.1" "Host: x" "")))
      (is (equal '("HTTP/1.1 200 OK")
                 (statuses "GET / HTTP/1.1" "Host: x" "Connection: close" ""
                           "GET / HTTP/1.1" "Host: x" "")))
      (is (equal '("HTTP/1.1 200 OK") (statuses "GET / HTTP/1.0" "" "GET / HTTP/1.0" "")))
      (is (equal '("HTTP/1.1 200 OK" "HTTP/1.1 200 OK")
                 (statuses "GET / HTTP/1.0" "Connection: keep-alive" "" "GET / HTTP/1.0" "")))
      (is (equal '("HTTP/1.1 400 Bad Request")
                 (statuses "GET / HTTP/1.1" "" "GET / HTTP/1.1" "Host: x" ""))))
    (is (equal '("Connection: close")
               (remove-if-not (lambda (line) (search "Connection" line))
                              (http-exchange number "GET / HTTP/1.1" "Host: x"
                                             "Connection: foo, Close" ""))))))

(define-test example-servers.http-late-heads ()
  "A head that does not come to an end is answered with 408, however it trickles."
  (let ((seconds port-example/http:*head-seconds*))
    (setf port-example/http:*head-seconds* 0.2) ; seen by the threads of the service
    (unwind-protect
         (with-example (number port-example/http:start 'port-example/http:hello)
           (with-open-socket (socket "127.0.0.1" number :input-timeout 10
                                                        :external-format '(:latin-1 :eol :crlf))
             (write-string "GET / HT" socket)
             (finish-output socket)
             (is (equal "HTTP/1.1 408 Request Timeout" (read-line socket)))))
      (setf port-example/http:*head-seconds* seconds))))

(define-test example-servers.https-curl ()
  "By TLS, for a curl that trusts the authority, and for no other; a page of many records, too."
  (with-example (number port-example/http:start (port-example/http:files-of (checkout-file "docs/"))
                        :tls (port-example/http::identity-of
                              (checkout-file "build/tls/server.pem")
                              (checkout-file "build/tls/server.key")))
    (flet ((curl (authority &rest options)
             (apply #'output-of "curl" "-s" "--max-time" "10"
                    "--cacert" (certificate-file authority)
                    (format nil "https://127.0.0.1:~D/reference.md" number) options)))
      (is (string= (uiop:read-file-string (checkout-file "docs/reference.md")
                                          :external-format :latin-1)
                   (curl "authority.pem")))
      (is (string= "200 1.1" (curl "authority.pem" "-o" "/dev/null"
                                   "-w" "%{http_code} %{http_version}")))
      (is (eql 60 (nth-value 1 (curl "stranger.pem")))))))

(define-test example-servers.http-wrk ()
  "A short run of wrk: no failed request, no connection that breaks."
  (with-example (number port-example/http:start 'port-example/http:hello)
    (let ((output (output-of "wrk" "-t1" "-c64" "-d1"
                             (format nil "http://127.0.0.1:~D/" number))))
      (is (search "requests in" output) output)
      (is (null (search "Socket errors" output)) output)
      (is (null (search "Non-2xx" output)) output))))

;;; What ends them all

(defun threads-of (process)
  "The numbers that the system has for the threads of PROCESS, the main thread's first."
  (sort (mapcar (lambda (path) (parse-integer (first (last (pathname-directory path)))))
                (uiop:subdirectories (format nil "/proc/~D/task/" (uiop:process-info-pid process))))
        #'<))

(defun send-to-threads (signal process threads)
  "Send SIGNAL to THREADS, numbers, of PROCESS, one after the other; some may be gone by then."
  (dolist (thread threads)
    (cffi:foreign-funcall "tgkill" :int (uiop:process-info-pid process) :int thread :int signal
                                   :int)))

(define-test example-servers.sigterm (:limit 60 :weather nil) ; which is another process's
  "Whichever threads meet one, even all of them, the program stops its server and ends, well."
  (dolist (order (list #'identity #'reverse #'rest (lambda (threads) (list (second threads)))))
    (let* ((number (unused-port))
           (process (uiop:launch-program
                     (lisp-command
                      (append (loading (here))
                              (list "(let ((*standard-output* (make-broadcast-stream)))
                                       (asdf:load-system :port/examples))"
                                    (format nil "(port-example/echo:run :port ~D)" number))))
                     :output :stream :error-output :output)))
      (unwind-protect
           (progn
             (close (connect-patiently (lambda () (open-socket "127.0.0.1" number))))
             (is-true (loop for line = (read-line (uiop:process-info-output process) nil)
                            while line
                              thereis (search "Ctrl-C" line))) ; it waits now, or is about to
             (send-to-threads sb-unix:sigterm process (funcall order (threads-of process)))
             (is-true (wait-until (lambda () (not (uiop:process-alive-p process))) 10))
             (is (eql 0 (and (not (uiop:process-alive-p process))
                             (uiop:wait-process process)))))
        (when (uiop:process-alive-p process)
          (uiop:terminate-process process :urgent t))
        (uiop:wait-process process)
        (uiop:close-streams process)))))

;;; SOCKS

(defmacro with-socks ((number &rest targets) &body body)
  "Run BODY with NUMBER, the port of a SOCKS proxy to whatever is one of TARGETS."
  `(with-example (,number port-example/socks:start (port-example/socks:allowing ,@targets))
     ,@body))

(defun socks-request (number &key (command 1) (type 1) (host '(127 0 0 1)))
  "The octets of a greeting and a request for port NUMBER of HOST, sent at once."
  (apply #'octets (append (list 5 1 0 5 command 0 type) host
                          (list (ldb (byte 8 8) number) (ldb (byte 8 0) number)))))

(defun octets-back (number request)
  "What the proxy at port NUMBER sends for REQUEST, up to its end."
  (with-open-socket (socket "127.0.0.1" number :input-timeout 10)
    (write-octets socket request)
    (finish-output socket)
    (loop for octet = (read-byte socket nil)
          while octet
          collect octet)))

(define-test example-servers.socks-curl ()
  "curl gets a file by the name of the host and by its address, and is told what went wrong."
  (with-web (web)
    (with-socks (number "127.0.0.1")
      (flet ((get-by (way host &optional (port web))
               (multiple-value-list
                (output-of "curl" "-s" "--max-time" "10" way (format nil "127.0.0.1:~D" number)
                           "-w" "%{errormsg}" (format nil "http://~A:~D/" host port)))))
        (is (equal '("<p>index</p>" 0) (get-by "--socks5-hostname" "127.0.0.1")))
        (is (equal '("<p>index</p>" 0) (get-by "--socks5" "127.0.0.1")))
        (loop for (reply host port) in `((2 "127.0.0.2" ,web) (5 "127.0.0.1" ,(unused-port))
                                         (4 "nobody.invalid" 80))
              for (text status) = (get-by "--socks5-hostname" host port)
              do (is (eql 97 status))
                 (is (search (format nil "(~D)" reply) text) "~A: ~A" host text))))))

(defun reply-for-name (number name port)
  "What the proxy at port NUMBER replies to a request for PORT of NAME."
  (with-open-socket (socket "127.0.0.1" number :input-timeout 10)
    (write-octets socket (socks-request port :type 3 :host (list* (length name)
                                                                  (coerce name 'list))))
    (finish-output socket)
    (read-octets socket (blank 3) :whole t)
    (read-byte socket)))

(define-test example-servers.socks-names ()
  "Of the addresses of a name those that are allowed are dialled, and no others."
  (with-names ()
    (with-example (echo port-example/echo:start :host "127.0.0.3")
      (loop for (reply . targets) in '((0 "127.0.0.3") (0 :loopback) (5 "127.0.0.2")
                                       (2 "127.0.0.0/31") (2 :global :private))
            do (with-example (number port-example/socks:start
                                     (apply #'port-example/socks:allowing targets))
                 (is (eql reply (reply-for-name number (octets-like "many.test") echo))
                     "~S" targets))))))

(define-test example-servers.socks-requests ()
  "Requests that no connection comes of, and what each is told."
  (with-socks (number :loopback)
    (flet ((reply (number) (list 5 0 5 number 0 1 0 0 0 0 0 0)))
      (loop for (back request)
              in `((,(reply 2) ,(socks-request 80 :host '(192 0 2 1)))
                   (,(reply 2) ,(socks-request 80 :type 4 :host (loop repeat 16 collect 0)))
                   (,(reply 1) ,(socks-request 0))
                   (,(reply 1) ,(socks-request 80 :type 3 :host '(0)))
                   (,(reply 5) ,(socks-request (unused-port)))
                   (,(reply 7) ,(socks-request 80 :command 2))
                   (,(reply 8) ,(socks-request 80 :type 2))
                   ((5 255) ,(octets 5 0))
                   ((5 255) ,(octets 5 2 1 2))
                   (() ,(octets 4 1 0 80 127 0 0 1 0)))
            do (is (equal back (octets-back number request)) "~S" request)))))

(define-test example-servers.socks-refusals-arrive ()
  "Who has sent more than the proxy takes is told all the same, and not reset."
  (with-socks (number :loopback)
    (loop for (back request) in `(((5 255) ,(octets 5 1 2))
                                  ((5 0 5 8 0 1 0 0 0 0 0 0) ,(socks-request 80 :type 2)))
          do (is (equal back (octets-back number (concatenate '(vector (unsigned-byte 8)) request
                                                              (blank (amount 200000)))))))))

(define-test example-servers.socks-tunnel ()
  "What was sent along with the request arrives too, and the end of either side at the other."
  (with-example (echo port-example/echo:start)
    (with-socks (number :loopback)
      (with-open-socket (socket "127.0.0.1" number :input-timeout 10)
        (write-octets socket (socks-request echo))
        (write-line "at once" socket)
        (finish-output socket)
        (let ((replies (blank 12)))
          (read-octets socket replies :whole t)
          (is (equalp #(5 0 5 0 0 1 127 0 0 1) (subseq replies 0 10))))
        (is (equal "at once" (read-line socket)))
        (is (equal "later" (ask socket "later")))
        (socket-shutdown socket :output)
        (is (null (read-line socket nil)))))))

(define-test example-servers.socks-late ()
  "Who does not come to the end of his request is reset, however it trickles."
  (let ((seconds port-example/socks:*connect-seconds*))
    (setf port-example/socks:*connect-seconds* 0.2) ; seen by the threads of the service
    (unwind-protect
         (with-socks (number :loopback)
           (signals connection-lost
             (with-open-socket (socket "127.0.0.1" number)
               (write-octets socket (octets 5 255))
               (loop repeat 60
                     do (write-byte 2 socket)
                        (finish-output socket)
                        (sleep 0.05)))))
      (setf port-example/socks:*connect-seconds* seconds))))
