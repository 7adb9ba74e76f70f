;;;; http - a small HTTP/1.1 server, RFC 9110 and 9112, on PORT:SERVE: GET and HEAD, the files of a
;;;; directory or whatever a function answers, connections that are kept and requests sent ahead.
;;;;
;;;;     (defvar *server* (port-example/http:start 8080 (port-example/http:files-of "/srv/www/")))
;;;;     (port:stop-server *server*)
;;;;
;;;; With :tls it is HTTPS; nothing else knows of it.
;;;;
;;;; The function of the service answers one request and returns :AGAIN, so that a connection has a
;;;; thread only while it has a request. Heads are read and written as octets. Invariant: a response
;;;; has exactly the octets that its Content-Length says, or the connection is aborted; and what
;;;; stands behind a request that could not be understood is never taken for another request.

(defpackage :port-example/http
  (:documentation "A small HTTP/1.1 server.")
  (:use :common-lisp)
  (:export #:start #:files-of #:hello #:run #:*head-seconds*))

(in-package :port-example/http)

(deftype octets () '(simple-array (unsigned-byte 8) (*)))

(defconstant +line-room+ 8192 "Octets that a line of a head may have.")
(defconstant +fields-limit+ 100 "Fields that a head may have.")
(defconstant +body-limit+ 65536 "Octets of a request's body that are read, to be passed over.")
(defparameter *head-seconds* 20 "How long a head may take from its first octet on.")
(defparameter *idle-seconds* 60 "How long a connection may be idle.")

(defun octets-of (text)
  (coerce (babel:string-to-octets text :encoding :utf-8) 'octets))

(define-condition refusal (error)
  ((status :initarg :status :reader refusal-status))
  (:documentation "A request that cannot be answered; the connection is closed after the status."))

(defun refuse (status)
  (error 'refusal :status status))

;;; Statuses, types, dates

(defun status-table (&rest rows)
  (loop with table = (make-hash-table)
        for (status reason) in rows
        do (setf (gethash status table)
                 (cons (octets-of (format nil "HTTP/1.1 ~D ~A" status reason))
                       (octets-of (format nil "~D ~A~%" status reason))))
        finally (return table)))

(defparameter *statuses*
  (status-table '(200 "OK") '(301 "Moved Permanently") '(400 "Bad Request") '(404 "Not Found")
                '(405 "Method Not Allowed") '(408 "Request Timeout")
                '(413 "Content Too Large") '(414 "URI Too Long")
                '(431 "Request Header Fields Too Large")
                '(501 "Not Implemented") '(505 "HTTP Version Not Supported"))
  "For each status the status line without its end, and a body that says the same.")

(defparameter *types*
  '(("html" . "text/html; charset=utf-8") ("htm" . "text/html; charset=utf-8")
    ("txt" . "text/plain; charset=utf-8") ("md" . "text/plain; charset=utf-8")
    ("lisp" . "text/plain; charset=utf-8") ("css" . "text/css") ("js" . "text/javascript")
    ("json" . "application/json") ("svg" . "image/svg+xml") ("png" . "image/png")
    ("jpg" . "image/jpeg") ("gif" . "image/gif") ("ico" . "image/x-icon")
    ("pdf" . "application/pdf") ("wasm" . "application/wasm"))
  "Content types by the type of a file.")

(defparameter *text* "text/plain; charset=utf-8")

(defun type-of-file (path)
  (or (cdr (assoc (pathname-type path) *types* :test #'equalp)) "application/octet-stream"))

(defun date-field (universal-time)
  "The Date field for UNIVERSAL-TIME, as those below; RFC 9110, 5.6.7."
  (multiple-value-bind (second minute hour day month year weekday)
      (decode-universal-time universal-time 0)
    (octets-of (format nil "~C~CDate: ~A, ~2,'0D ~A ~D ~2,'0D:~2,'0D:~2,'0D GMT"
                       #\Return #\Linefeed
                       (nth weekday '("Mon" "Tue" "Wed" "Thu" "Fri" "Sat" "Sun"))
                       day
                       (nth (1- month) '("Jan" "Feb" "Mar" "Apr" "May" "Jun" "Jul" "Aug" "Sep"
                                         "Oct" "Nov" "Dec"))
                       year hour minute second))))

(defvar *date* (cons 0 (octets-of ""))
  "The second that was written last, and its field; replaced as a whole.")

(defun current-date-field ()
  (let ((now (get-universal-time)) (date *date*))
    (if (= now (car date))
        (cdr date)
        (cdr (setf *date* (cons now (date-field now)))))))

;;; Reading a request

(defstruct request
  method path
  (minor 1)                             ; of the version
  (keep nil)                            ; the connection stays open
  (hosts 0)                             ; Host fields
  (body 0))                             ; octets of its body; NIL: in chunks

(defun next-line (socket line status)
  "Read a line into LINE, octets; the index of its end, or NIL at the end of the connection. STATUS:
that of one that is too long."
  (multiple-value-bind (end what) (port:read-line-octets socket line)
    (case what
      (:line end)
      (:more (refuse status))
      (t (if (zerop end) nil (refuse 400))))))

(defun text-from (line start end)
  "The octets of LINE from START to END as a string; each has to be one that can be seen, or a space
or a tab."
  (declare (type octets line) (type fixnum start end))
  (let ((text (make-string (- end start))))
    (loop for index from start below end
          for octet = (aref line index)
          do (unless (or (<= 32 octet 126) (= octet 9) (>= octet 128))
               (refuse 400))
             (setf (schar text (- index start)) (code-char octet)))
    text))

(defun read-request (socket)
  "The next request of SOCKET, or NIL if there is none."
  (let ((line (make-array +line-room+ :element-type '(unsigned-byte 8))))
    (declare (dynamic-extent line))
    (let ((end (next-line socket line 414)))
      (when (eql end 0)                 ; one empty line may precede it, RFC 9112, 2.2
        (setf end (next-line socket line 414)))
      (when end
        (let ((request (parse-request-line line end)))
          (read-fields socket line request)
          (check-request request)
          (skip-body socket request line)
          request)))))

(defun octet-position (octet line start end)
  "The index of the first OCTET in LINE from START to END, or NIL."
  (declare (type octets line) (type fixnum start end) (type (unsigned-byte 8) octet))
  (loop for index of-type fixnum from start below end
        when (= octet (aref line index))
          return index))

(defun parse-request-line (line end)
  "The request that begins with LINE up to END: a method, a target, a version."
  (declare (type octets line) (type fixnum end))
  (let* ((first (or (octet-position 32 line 0 end) (refuse 400)))
         (second (or (octet-position 32 line (1+ first) end) (refuse 400)))
         (minor (parse-version line (1+ second) end)))
    (unless (< 0 first (1- second))
      (refuse 400))
    (make-request :method (text-from line 0 first) :minor minor :keep (plusp minor)
                  :path (parse-target (text-from line (1+ first) second)))))

(defun parse-version (line start end)
  "The minor version that LINE from START to END names."
  (declare (type octets line) (type fixnum start end))
  (flet ((digit (index) (digit-char-p (code-char (aref line index)))))
    (unless (and (= (- end start) 8)
                 (loop for character across "HTTP/"
                       for index from start
                       always (= (char-code character) (aref line index)))
                 (digit (+ start 5)) (= 46 (aref line (+ start 6))) (digit (+ start 7)))
      (refuse 400))
    (unless (= 1 (digit (+ start 5)))
      (refuse 505))
    (digit (+ start 7))))

(defun host-start (target)
  "Where the host is in TARGET, `http://host/path' or `https://host/path'; NIL: it has none."
  (declare (type (simple-array character (*)) target))
  (loop for scheme in '("http://" "https://")
        for length = (length scheme)
        when (and (> (length target) length) (string-equal scheme target :end2 length))
          return length))

(defun parse-target (target)
  "The path that TARGET names, decoded, without a query; one with a host in it too. NIL: none."
  (declare (type (simple-array character (*)) target))
  (let* ((host (host-start target))
         (start (if host (or (position #\/ target :start host) (length target)) 0))
         (end (or (position #\? target :start start) (length target))))
    (cond ((= start end) "/")
          ((char= #\/ (char target start)) (decode-path target start end))
          ((string= target "*") nil)
          (t (refuse 400)))))

(defun decode-path (target start end)
  "TARGET from START to END with the octets that stand for %XX, which are UTF-8."
  (declare (type (simple-array character (*)) target))
  (if (not (find #\% target :start start :end end))
      (subseq target start end)
      (let ((octets (make-array 0 :element-type '(unsigned-byte 8) :fill-pointer t
                                  :adjustable t)))
        (loop with index = start
              while (< index end)
              do (let ((character (char target index)))
                   (cond ((char/= character #\%)
                          (vector-push-extend (char-code character) octets)
                          (incf index))
                         (t (vector-push-extend (escaped-octet target (1+ index) end) octets)
                            (incf index 3)))))
        (handler-case (babel:octets-to-string octets :encoding :utf-8 :errorp t)
          (babel:character-decoding-error () (refuse 400))))))

(defun escaped-octet (target start end)
  "The octet of two hexadecimal digits at START; 0 would end a name in the file system."
  (let ((high (and (<= (+ start 2) end) (digit-char-p (char target start) 16)))
        (low (and (<= (+ start 2) end) (digit-char-p (char target (1+ start)) 16))))
    (if (and high low (plusp (+ high low)))
        (+ (* 16 high) low)
        (refuse 400))))

;;; Fields

(defun name-p (name line end)
  "True if LINE up to END is NAME, a string in lower case."
  (declare (type octets line) (type fixnum end) (type simple-string name))
  (and (= end (length name))
       (loop for index of-type fixnum from 0 below end
             for octet = (aref line index)
             always (= (char-code (schar name index))
                       (if (<= 65 octet 90) (+ octet 32) octet)))))

(declaim (type simple-bit-vector *token-octets*))
(defparameter *token-octets*
  (let ((table (make-array 256 :element-type 'bit :initial-element 0)))
    (loop for octet from 33 to 126
          unless (find (code-char octet) "\"(),/:;<=>?@[\\]{}")
            do (setf (aref table octet) 1))
    table)
  "1 for each octet that may be part of the name of a field, RFC 9110, 5.6.2.")

(defun token-p (line end)
  "True if LINE up to END can be the name of a field."
  (declare (type octets line) (type fixnum end))
  (and (plusp end)
       (loop for index of-type fixnum from 0 below end
             always (= 1 (aref *token-octets* (aref line index))))))

(defun read-fields (socket line request)
  "Read the fields of REQUEST, up to the empty line."
  (declare (type octets line))
  (loop for count of-type fixnum from 1
        for end = (or (next-line socket line 431) (refuse 400))
        until (zerop end)
        do (let ((colon (or (octet-position 58 line 0 end) 0)))
             (when (> count +fields-limit+)
               (refuse 431))
             (unless (token-p line colon)
               (refuse 400))            ; a space before the colon, a folded line: RFC 9112, 5
             (note-field request line colon end))))

(defun note-field (request line colon end)
  "Keep in REQUEST what the field in LINE up to END, with its colon at COLON, says."
  (flet ((value () (string-trim '(#\Space #\Tab) (text-from line (1+ colon) end))))
    (cond ((name-p "host" line colon) (incf (request-hosts request)))
          ((name-p "connection" line colon) (note-connection request (value)))
          ((name-p "content-length" line colon) (note-length request (value)))
          ((name-p "transfer-encoding" line colon) (setf (request-body request) nil)))))

(defun note-connection (request value)
  (dolist (option (uiop:split-string value :separator ", "))
    (cond ((string-equal option "close") (setf (request-keep request) :never))
          ((and (string-equal option "keep-alive") (null (request-keep request)))
           (setf (request-keep request) t)))))

(defun note-length (request value)
  (unless (and (< 0 (length value) 19) (every #'digit-char-p value) (eql 0 (request-body request)))
    (refuse 400))
  (setf (request-body request) (parse-integer value)))

(defun check-request (request)
  "Refuse REQUEST where it has no Host as it should, or is not for this server."
  (when (eq :never (request-keep request))
    (setf (request-keep request) nil))
  (unless (<= (if (plusp (request-minor request)) 1 0) (request-hosts request) 1)
    (refuse 400))
  (let ((method (request-method request)))
    (cond ((member method '("GET" "HEAD") :test #'string=))
          ((member method '("POST" "PUT" "DELETE" "PATCH" "OPTIONS" "CONNECT" "TRACE")
                   :test #'string=)
           (refuse 405))
          (t (refuse 501))))
  (unless (request-path request)
    (refuse 400)))

(defun skip-body (socket request room)
  "Pass over the body of REQUEST, which means nothing here, by way of ROOM."
  (declare (type octets room))
  (let ((left (or (request-body request) (refuse 501))))
    (when (> left +body-limit+)
      (refuse 413))
    (loop while (plusp left)
          do (let ((count (port:read-some socket room :end (min left (length room)))))
               (when (zerop count)
                 (refuse 400))
               (decf left count)))))

;;; Answering

(defun write-decimal (socket number)
  (declare (type (unsigned-byte 62) number))
  (let ((digits (make-array 20 :element-type '(unsigned-byte 8))) (start 20))
    (declare (dynamic-extent digits))
    (loop (multiple-value-bind (rest digit) (floor number 10)
            (setf (aref digits (decf start)) (+ 48 digit)
                  number rest))
          (when (zerop number)
            (return)))
    (port:write-octets socket digits :start start)))

(defun line (text)
  "The octets of TEXT as another line of a head, with the end of the line before it, so that a head
takes as few calls as can be."
  (octets-of (format nil "~C~C~A" #\Return #\Linefeed text)))

(defparameter *length-field* (line "Content-Length: "))
(defparameter *type-field* (line "Content-Type: "))
(defparameter *closing-field* (line "Connection: close"))
(defparameter *keeping-field* (line "Connection: keep-alive"))
(defparameter *head-end* (line (coerce '(#\Return #\Linefeed) 'string)))

(defun write-field (socket name value)
  (port:write-octets socket name)
  (write-string value socket))

(defun write-head (socket status type length keep &optional name value)
  "Write the head of a response with STATUS and a body of TYPE with LENGTH octets. KEEP: NIL if the
connection is closed after it; :SAID if the client has to be told that it is not. NAME and VALUE:
another field."
  (port:write-octets socket (car (gethash status *statuses*)))
  (port:write-octets socket (current-date-field))
  (write-field socket *type-field* type)
  (port:write-octets socket *length-field*)
  (write-decimal socket length)
  (when name
    (write-field socket name value))
  (case keep
    ((nil) (port:write-octets socket *closing-field*))
    (:said (port:write-octets socket *keeping-field*)))
  (port:write-octets socket *head-end*))

(defparameter *allow-field* (line "Allow: "))
(defparameter *location-field* (line "Location: "))

(defun write-status (socket status keep body-p &optional name value)
  "Write a response that says STATUS in its body too."
  (let ((body (cdr (gethash status *statuses*))))
    (write-head socket status *text* (length body) keep name value)
    (when body-p
      (port:write-octets socket body))))

(defun open-file (path)
  "A stream of the octets of the file PATH; NIL if it cannot be opened, as a link to nothing or one
that nobody may read."
  (handler-case (open path :element-type '(unsigned-byte 8))
    (file-error () nil)))

(defun write-body (socket keep body-p body type)
  "Write a response with BODY, octets, a string, or the pathname of a file."
  (etypecase body
    (string (write-body socket keep body-p (octets-of body) type))
    (octets
     (write-head socket 200 type (length body) keep)
     (when body-p
       (port:write-octets socket body)))
    (pathname
     (let ((file (open-file body)))
       (if (null file)
           (write-status socket 404 keep body-p)
           (with-open-stream (file file)
             (let ((length (file-length file)))
               (write-head socket 200 (or type (type-of-file body)) length keep)
               (when (and body-p (/= length (port:send-file socket file :end length)))
                 (error "~A has become shorter while it was sent" body)))))))))

(defun respond (socket request handler)
  "Answer REQUEST with what HANDLER says."
  (let ((keep (and (request-keep request) (if (plusp (request-minor request)) t :said)))
        (body-p (string= "GET" (request-method request))))
    (multiple-value-bind (body type) (funcall handler (request-path request))
      (case body
        ((nil) (write-status socket 404 keep body-p))
        (:moved (write-status socket 301 keep body-p *location-field* type))
        (t (write-body socket keep body-p body (or type (and (stringp body) *text*))))))
    keep))

(defun answer (socket handler)
  "Answer one request of SOCKET; :AGAIN if the connection is to be kept. Else its close lingers, as
the client may still be sending: RFC 9112, 9.6."
  (handler-case
      (let ((request (handler-case (port:with-deadline (*head-seconds*) (read-request socket))
                       (port:timeout () (refuse 408)))))
        (cond ((null request) nil)
              ((respond socket request handler) :again)
              (t (port:lingering-close socket))))
    (refusal (refusal)
      (write-status socket (refusal-status refusal) nil t
                    (and (= 405 (refusal-status refusal)) *allow-field*) "GET, HEAD")
      (port:lingering-close socket))))

;;; What is served

(defun hello (path)
  "A handler: one short text at the root."
  (when (string= path "/")
    (values (load-time-value (octets-of (format nil "hello, world~%"))) *text*)))

(defun files-of (directory)
  "A handler: the files of DIRECTORY and below it, index.html where a directory is asked for."
  (let ((root (truename (uiop:ensure-directory-pathname directory))))
    (lambda (path) (file-at root path))))

(defun plain-name-p (name)
  "True if NAME, a part of a path, can be no way out of a directory."
  (not (or (string= name ".") (string= name "..") (find #\Nul name) (find #\/ name))))

(defun existing (pathname)
  "PATHNAME without links if there is such a file; NIL, too, where the Lisp takes it for a pattern."
  (handler-case (probe-file pathname)
    (file-error () nil)))

(defun file-at (root path)
  "The file of directory ROOT that PATH, a string that begins with /, names: a pathname, or NIL; or
:MOVED and the path with a / at its end, where it is a directory. Links that lead out of ROOT are
not followed."
  (let* ((names (rest (uiop:split-string path :separator "/")))
         (relative (and (every #'plain-name-p names)
                        (not (find "" (butlast names) :test #'string=))
                        (uiop:parse-native-namestring
                         (format nil "~A~:[~;index.html~]" (subseq path 1)
                                 (string= "" (first (last names)))))))
         (file (and relative (existing (merge-pathnames relative root)))))
    (cond ((null file) nil)
          ((not (uiop:subpathp file root)) nil)
          ((uiop:directory-pathname-p file) (values :moved (format nil "~A/" path)))
          (t file))))

;;; Starting

(defun start (port handler &rest options &key &allow-other-keys)
  "Serve HTTP on PORT and return the server, for PORT:STOP-SERVER. HANDLER: a function of a path, a
string that begins with /, decoded; it returns a body, which is a string, octets or the pathname of
a file, and its content type; or NIL if there is nothing. OPTIONS: further keywords for PORT:SERVE,
such as :TLS."
  (let ((server (apply #'port:serve (lambda (socket) (answer socket handler)) port
                       (append options (list :name "http" :timeout *idle-seconds* :await-input t
                                             :external-format '(:latin-1 :eol :crlf))))))
    ;; A client speaks first: the system keeps it for a second until it does.
    (when (integerp port)
      (dolist (listener (port:server-listeners server))
        (setf (port:socket-option listener :defer-accept) 1)))
    server))

(defun identity-of (certificate key)
  "What :TLS is, for the files CERTIFICATE and KEY; NIL without a certificate."
  (when certificate
    (port:make-tls-context :certificate certificate :key key :protocols '("http/1.1"))))

(defun run (&key (port 8080) (directory ".") certificate (key certificate))
  "Serve the files of DIRECTORY on PORT of this machine until the user interrupts: by HTTPS, where
there is a CERTIFICATE, a file, whose private key is in the file KEY."
  (port-example/run:until-interrupted
   (start port (files-of directory) :host (port-example/run:loopback-hosts)
                                    :tls (identity-of certificate key))
   "http~:[~;s~]://localhost:~D/" certificate port))
