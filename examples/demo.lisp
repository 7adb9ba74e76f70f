;;;; demo - what `make demo` runs: a file server in the old style, clients over IPv4, IPv6, a local
;;;; socket and TLS, the errors a newcomer meets, and a name with several addresses. Ends by itself;
;;;; exit status 0 only if everything was as it should be.

(defpackage :port-example/demo
  (:use :common-lisp)
  (:import-from :port-example/file-server #:serve-files)
  (:import-from :port-example/run #:loopback-hosts)
  (:export #:run))

(in-package :port-example/demo)

(defvar *failures* 0 "What was not as it should be.")

(defun say (control &rest arguments)
  (format t "~&~?~%" control arguments)
  (finish-output))

(defun title (text)
  (say "~%== ~A" text))

(defun expect (true-p control &rest arguments)
  "Say what was seen, and count it unless TRUE-P."
  (say "  ~:[WRONG~;ok   ~] ~?" true-p control arguments)
  (unless true-p
    (incf *failures*)))

;;; Fetching

(defun octets-of (file)
  (with-open-file (in file :element-type '(unsigned-byte 8))
    (let ((octets (make-array (file-length in) :element-type '(unsigned-byte 8))))
      (read-sequence octets in)
      octets)))

(defun fetch (socket name)
  "GET NAME over SOCKET, text for the head and octets for the body on the same stream."
  (format socket "GET /~A HTTP/1.0~C~%~C~%" name #\Return #\Return)
  (finish-output socket)
  (let ((status (read-line socket)) (length 0))
    (loop for line = (string-right-trim '(#\Return) (read-line socket))
          until (string= line "")
          do (when (eql 0 (search "Content-Length: " line))
               (setf length (parse-integer line :start 16))))
    (let* ((body (make-array length :element-type '(unsigned-byte 8)))
           (count (read-sequence body socket)))
      (values (subseq body 0 count) (string-right-trim '(#\Return) status)))))

(defun fetch-with-curl (arguments)
  "The octets that curl ARGUMENTS prints; NIL if it fails."
  (uiop:with-temporary-file (:pathname file)
    (multiple-value-bind (output error-output code)
        (uiop:run-program (append (list "curl" "-s" "-S" "-f" "-o" (uiop:native-namestring file)
                                        "--noproxy" "*")
                                  arguments)
                          :ignore-error-status t :output :string :error-output :string)
      (declare (ignore output))
      (if (zerop code)
          (octets-of file)
          (say "  curl: ~A" error-output)))))

(defun compare (who where file octets directory)
  (expect (and octets (equalp octets (octets-of (merge-pathnames file directory))))
          "~A fetched ~A over ~A: ~:D octets, the same as on disk"
          who file where (length octets)))

(defun serving (server directory function &key tls)
  "Call FUNCTION while a thread serves DIRECTORY on SERVER, under TLS if that is a context; closing
the server ends the thread. Say what the server has said of its clients."
  (let* ((said (make-string-output-stream))
         (thread (bt:make-thread (lambda ()
                                   (let ((*error-output* said))
                                     (serve-files server directory :tls tls))))))
    (unwind-protect (funcall function)
      (close server)
      (bt:join-thread thread)
      (format t "~{~&  the server: ~A~%~}"
              (remove "" (uiop:split-string (get-output-stream-string said) :separator '(#\Newline))
                      :test #'string=)))))

(defun inet6-p ()
  "True if this machine has IPv6."
  (member "::1" (loopback-hosts) :test #'string=))

(defun show-files (files directory)
  (title "A file server in the old style: open-socket-server, socket-accept, read-line, format,
close")
  (let* ((server (port:open-socket-server))
         (number (nth-value 1 (port:socket-server-host/port server))))
    (say "  ~A" server)
    (unless (inet6-p)
      (say "  This machine has no IPv6, so it is shown over IPv4 alone."))
    (serving server directory
             (lambda ()
               (dolist (host (loopback-hosts))
                 (dolist (file files)
                   (port:with-open-socket (socket host number)
                     (compare "Lisp" host file (fetch socket file) directory))
                   (compare "curl" host file
                            (fetch-with-curl (list (format nil "http://~:[~A~;[~A]~]:~D/~A"
                                                           (find #\: host) host number file)))
                            directory))))))
  (uiop:call-with-temporary-file
   (lambda (path)
     (let ((path (concatenate 'string (uiop:native-namestring path) ".sock")))
       (serving (port:open-unix-server path) directory
                (lambda ()
                  (dolist (file files)
                    (with-open-stream (socket (port:open-unix-socket path))
                      (compare "Lisp" "a local socket" file (fetch socket file) directory))
                    (compare "curl" "a local socket" file
                             (fetch-with-curl
                              (list "--unix-socket" path
                                    (format nil "http://localhost/~A" file)))
                             directory))))
       (expect (not (probe-file path)) "the path of the local socket is gone with its server")))
   :want-stream-p nil))

;;; Errors

(defun show-error (type function)
  "Call FUNCTION, which has to signal TYPE, and show how it is reported."
  (let ((condition (handler-case (progn (funcall function) nil)
                     (port:network (condition) condition))))
    (expect (typep condition type) "~A" condition)))

(defun show-errors ()
  (title "What goes wrong, as it is reported")
  (show-error 'port:connection-refused
              (lambda () (port:open-socket "127.0.0.1" (unused-port))))
  (port:with-socket-server (server 0 :host "127.0.0.1")
    (show-error 'port:address-in-use
                (lambda ()
                  (port:open-socket-server (nth-value 1 (port:socket-server-host/port server))
                                           :host "127.0.0.1"))))
  (show-privileged)
  (show-error 'port:host-not-found (lambda () (port:open-socket "nobody.invalid" 80)))
  (show-error 'port:address-syntax (lambda () (port:open-socket "127.0.0.1" 65536)))
  (show-error 'port:address-syntax (lambda () (port:open-socket "127.1" 80)))
  (show-error 'port:path-not-found (lambda () (port:open-unix-socket "/nowhere/at-all.sock"))))

(defun unused-port ()
  "A port that the system has just given out and taken back."
  (port:with-socket-server (server 0 :host "127.0.0.1")
    (nth-value 1 (port:socket-server-host/port server))))

(defun show-privileged ()
  "Ports below 1024 are refused, unless whoever runs this may open them."
  (let ((server (handler-case (port:open-socket-server 81 :host "127.0.0.1")
                  (port:permission-denied (condition)
                    (expect t "~A" condition)
                    nil)
                  (port:address-in-use (condition)
                    (expect t "~A" condition)
                    nil))))
    (when server
      (close server)
      (say "  ok    port 81 can be opened here: this user may open privileged ports"))))

;;; TLS

(defun certificate-file (name)
  (uiop:native-namestring
   (asdf:system-relative-pathname "port" (concatenate 'string "build/tls/" name))))

(defun show-tls (files directory)
  (title "The same under TLS: start-tls after socket-accept, open-tls-socket")
  (let* ((server (port:open-socket-server 0 :host "127.0.0.1"))
         (number (nth-value 1 (port:socket-server-host/port server)))
         (authority (certificate-file "authority.pem"))
         (trusting (port:make-tls-context :trust authority)))
    (serving server directory
             (lambda ()
               (dolist (file files)
                 (with-open-stream (socket (port:open-tls-socket "127.0.0.1" number
                                                                 :context trusting))
                   (compare "Lisp" (getf (port:tls-info socket) :version) file
                            (fetch socket file) directory))
                 (compare "curl" "HTTPS" file
                          (fetch-with-curl (list "--cacert" authority
                                                 (format nil "https://127.0.0.1:~D/~A"
                                                         number file)))
                          directory))
               ;; The authority of these certificates is none that this machine trusts.
               (show-error 'port:certificate-error
                           (lambda () (port:open-tls-socket "127.0.0.1" number))))
             :tls (port:make-tls-context :certificate (certificate-file "server.pem")
                                         :key (certificate-file "server.key")))))

;;; Names

(defun show-names ()
  (title "A name with several addresses")
  (let* ((name (or (uiop:getenvp "PORT_DEMO_NAME") "localhost"))
         (addresses (port:resolve name))
         (last (find-if (lambda (address)
                          (or (inet6-p) (eq :inet (port:address-family address))))
                        addresses :from-end t)))
    (expect (plusp (length addresses)) "~A is ~{~A~^, ~}" name addresses)
    (port:with-socket-server (server 0 :host last)
      (let ((number (nth-value 1 (port:socket-server-host/port server))))
        (port:with-open-socket (socket name number :timeout 10)
          (expect (string= (princ-to-string last) (port:socket-host/port socket))
                  "only one of them listens, and open-socket finds it: ~A" socket))))
    (show-error 'port:connect-error (lambda () (port:open-socket name (unused-port))))))

(defparameter *files* '("README.md" "csrc/libport.h" "build/libport.so.1")
  "What is fetched, of this checkout.")

(defun run ()
  "The whole session with the files of this checkout; the exit status."
  (setf *failures* 0)
  (say "port ~A, library ~A" (asdf:component-version (asdf:find-system "port"))
       (port.ffi:library-version))
  (show-files *files* (asdf:system-source-directory "port"))
  (show-tls *files* (asdf:system-source-directory "port"))
  (show-errors)
  (show-names)
  (title (if (zerop *failures*) "all as it should be" "something was wrong"))
  (if (zerop *failures*) 0 1))
