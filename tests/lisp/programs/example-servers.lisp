;;;; example-servers - the servers of examples/ and the clients that they are for: socat, curl, wrk.

(in-package :port/test)

(define-suite example-servers "Echo, chat, HTTP.")

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

(define-test example-servers.http-wrk ()
  "A short run of wrk: no failed request, no connection that breaks."
  (with-example (number port-example/http:start 'port-example/http:hello)
    (let ((output (output-of "wrk" "-t1" "-c64" "-d1"
                             (format nil "http://127.0.0.1:~D/" number))))
      (is (search "requests in" output) output)
      (is (null (search "Socket errors" output)) output)
      (is (null (search "Non-2xx" output)) output))))
