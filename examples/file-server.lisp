;;;; file-server - the files of a directory over HTTP/1.0, in the style of the old Cookbook chapter:
;;;; open-socket-server, socket-accept, read-line, format, close. One client at a time; those who
;;;; come meanwhile wait in the backlog, and none is lost.

(defpackage :port-example/file-server
  (:use :common-lisp)
  (:export #:serve-files))

(in-package :port-example/file-server)

(defun serve-files (server directory &key tls)
  "Answer the clients of SERVER with the files of DIRECTORY until somebody closes SERVER. TLS: a
context, by which all of it is said under TLS, or NIL."
  (handler-case
      (loop (answer (port:socket-accept server) directory tls))
    (port:socket-closed () nil)))

(defun answer (client directory tls)
  "Read one request from CLIENT, answer it, close."
  (handler-case
      (port:with-deadline (10)
        (when tls
          (port:start-tls client :side :server :context tls))
        (let ((path (requested-path client)))
          (if path
              (send-file-of directory path client)
              (send-head client "400 Bad Request" 0)))
        (close client))
    ;; The client's trouble is not ours: go on to the next one.
    ((or port:network end-of-file) (condition)
      (format *error-output* "~&a client left: ~A~%" condition)
      (close client :abort t))))

(defun requested-path (client)
  "The path of the request line `GET /path HTTP/1.0`; the head that follows it is read and passed
over."
  (let* ((line (read-request-line client))
         (start (mismatch "GET /" line))
         (end (position #\Space line :start (or start 0))))
    (loop until (string= "" (read-request-line client)))
    (when (eql start 5)
      (subseq line start end))))

(defun read-request-line (client)
  (string-right-trim '(#\Return) (read-line client)))

(defun send-head (client status length)
  (format client "HTTP/1.0 ~A~C~%Content-Length: ~D~C~%~C~%"
          status #\Return length #\Return #\Return))

(defun send-file-of (directory path client)
  "Send the file PATH of DIRECTORY or below it to CLIENT."
  (let ((file (and (plusp (length path))
                   (char/= #\/ (char path 0))
                   (not (search ".." path))
                   (probe-file (merge-pathnames (uiop:parse-native-namestring path) directory)))))
    (if (null file)
        (send-head client "404 Not Found" 0)
        (with-open-file (in file :element-type '(unsigned-byte 8))
          (send-head client "200 OK" (file-length in))
          (copy-octets in client)))))

(defun copy-octets (from to)
  (loop with buffer = (make-array 65536 :element-type '(unsigned-byte 8))
        for count = (read-sequence buffer from)
        while (plusp count)
        do (write-sequence buffer to :end count)))
