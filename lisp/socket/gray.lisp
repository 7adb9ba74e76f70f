;;;; gray - the stream operations of Common Lisp on sockets: thin methods over input and output.
;;;;
;;;; The methods are those of the implementation's own generic functions. Whole sequences of simple
;;;; octet vectors and strings go to the engine as they are; every other sequence through a copy, so
;;;; that a call that ends early has lost nothing.

(in-package :port)

;;; A reader would dispatch once more, and SLOT-VALUE would look up where the slot is.

(defmacro connection-of (socket)
  "The connection of SOCKET, the argument of the method around."
  (let ((connection (gensym "CONNECTION")))
    `(let ((,connection (%slot-of socket channel ,socket)))
       (if (typep ,connection 'connection)
           ,connection
           (the connection (socket-connection ,socket))))))

;;; What it is

(%define-two-way socket)

(defmethod open-stream-p ((socket socket))
  (endpoint-open-p socket))

(defmethod stream-element-type ((socket socket))
  (connection-element-type (connection-of socket)))

;;; Elements

(defmethod stream-read-char ((socket socket))
  (read-character (connection-of socket)))

(defmethod stream-unread-char ((socket socket) character)
  (declare (ignore character))
  (unread-character (connection-of socket)))

(defmethod stream-peek-char ((socket socket))
  (peek-character (connection-of socket)))

(defmethod stream-read-char-no-hang ((socket socket))
  (read-character-now (connection-of socket)))

(defmethod stream-listen ((socket socket))
  (input-ready-p (connection-of socket)))

(defmethod stream-read-byte ((socket socket))
  (read-octet (connection-of socket)))

(defmethod stream-write-char ((socket socket) character)
  (write-character (connection-of socket) character))

(declaim (inline check-octet))
(defun check-octet (object)
  (unless (typep object '(unsigned-byte 8))
    (error 'type-error :datum object :expected-type '(unsigned-byte 8))))

(defmethod stream-write-byte ((socket socket) octet)
  (check-octet octet)
  (write-octet (connection-of socket) octet))

;;; Lines and strings

(defmethod stream-read-line ((socket socket))
  (%line-read (read-text-line (connection-of socket))))

(defmethod stream-write-string ((socket socket) string &optional (start 0) end)
  (if (and (typep string 'characters) (typep start 'index) (typep end 'index)
           (<= start end (length string)))
      (write-characters-from (connection-of socket) string start end)
      (%with-vector (vector from to) (string start end)
        (write-string-from (connection-of socket) vector from to)))
  string)

(defun write-string-from (connection string start end)
  "Write the characters START to END of STRING, a simple string of any kind."
  (etypecase string
    (characters (write-characters-from connection string start end))
    (base-characters (write-base-characters-from connection string start end))))

(defmethod stream-terpri ((socket socket))
  (write-character (connection-of socket) #\Newline)
  nil)

(defmethod stream-fresh-line ((socket socket))
  (check-open (connection-of socket) :write)
  (unless (stream-start-line-p socket)
    (stream-terpri socket)
    t))

(defmethod stream-line-column ((socket socket))
  (let ((column (current-column (connection-of socket))))
    (and (< column +no-column+) column)))

(defmethod stream-start-line-p ((socket socket))
  (zerop (current-column (connection-of socket))))

;;; Sequences

(defmethod stream-read-sequence ((socket socket) sequence &optional (start 0) end)
  (let ((connection (connection-of socket)))
    (if (listp sequence)
        (read-through-copy connection sequence start (list-end sequence start end)
                           (connection-element-type connection))
        (%with-vector (vector from to) (sequence start end)
          (+ start (- (read-vector connection vector from to) from))))))

(defun read-vector (connection vector start end)
  "Fill VECTOR, simple and of any kind, from START to END; the index of the first not filled."
  (typecase vector
    (octets (read-octets-into connection vector start end))
    (characters (read-characters-into connection vector start end))
    (string (read-through-copy connection vector start end 'character))
    (simple-vector (read-through-copy connection vector start end
                                      (connection-element-type connection)))
    (vector (check-argument :read (array-element-type vector) '(satisfies integer-type-p)
                            "elements that hold octets or characters")
            (read-through-copy connection vector start end '(unsigned-byte 8)))))

(defun integer-type-p (type)
  (subtypep type 'integer))

(defun list-end (list start end)
  "END, or the length of LIST; signals a TYPE-ERROR for bounds outside."
  (let ((length (length list)))
    (check-argument :sequence start `(integer 0 ,length) "an index within the list")
    (if end
        (check-argument :sequence end `(integer ,start ,length) "an end within the list")
        length)))

(defun read-through-copy (connection sequence start end element-type)
  "Fill SEQUENCE from START to END with elements of ELEMENT-TYPE; the index of the first not filled.
Elements that SEQUENCE cannot hold stay unread."
  (let* ((text-p (eq element-type 'character))
         (copy (if text-p
                   (make-string (- end start))
                   (make-array (- end start) :element-type '(unsigned-byte 8))))
         (done nil))
    (multiple-value-bind (count odd)
        (if text-p
            (read-characters-into connection copy 0 (- end start))
            (read-octets-into connection copy 0 (- end start)))
      (with-cleanup
          (progn (%replace sequence copy :start1 start :end2 count)
                 (setf done t))
        (unless done
          (with-input (connection)
            (if text-p
                (put-back-text connection copy 0 count odd)
                (put-back connection copy 0 count)))))
      (+ start count))))

(defmethod stream-write-sequence ((socket socket) sequence &optional (start 0) end)
  (let ((connection (connection-of socket)))
    (if (listp sequence)
        (write-elements connection (coerce sequence 'simple-vector)
                        start (list-end sequence start end))
        (%with-vector (vector from to) (sequence start end)
          (typecase vector
            (octets (write-octets-from connection vector from to))
            (string (write-string-from connection vector from to))
            (t (write-elements connection vector from to))))))
  sequence)

(defun write-elements (connection vector start end)
  "Write the characters and octets, in any mixture, START to END of VECTOR, as one piece: a wrong
element is found before anything is written. Where all are characters they are written as a string
is, so that what NETWORK-OCTETS tells of a failure ends with one of them."
  (let ((string (string-of-elements vector start end)))
    (if string
        (write-string-from connection string 0 (length string))
        (let ((octets (make-array (- end start) :element-type '(unsigned-byte 8)
                                                :adjustable t :fill-pointer 0)))
          (loop for index from start below end
                do (append-element (aref vector index) octets connection))
          (write-octets-from connection (coerce octets 'octets) 0 (length octets))))))

(defun string-of-elements (vector start end)
  "The elements START to END of VECTOR as a string; NIL unless all are characters. REPLACE of CLISP
loses its place in VECTOR where the string moves, to get room for wider characters."
  (loop with string = (make-string (- end start))
        for index from start below end
        for element = (aref vector index)
        always (characterp element)
        do (setf (char string (- index start)) element)
        finally (return string)))

(defun append-element (element octets connection)
  "Append what stands for ELEMENT, a character or an octet, to OCTETS, which grows."
  (cond ((not (characterp element))
         (check-octet element)
         (vector-push-extend element octets))
        ((let ((code (char-code element)))
           (and (< code 128) (single-octet-p code (connection-format connection))))
         (vector-push-extend (char-code element) octets))
        (t (loop for octet across (character-octets connection element)
                 do (vector-push-extend octet octets)))))

;;; Buffers

(defmethod stream-finish-output ((socket socket))
  (flush-output (connection-of socket)))

;; Nobody in the background would send later what was left behind here, and a dialogue would hang.
(defmethod stream-force-output ((socket socket))
  (flush-output (connection-of socket)))

(defmethod stream-clear-output ((socket socket))
  (clear-pending-output (connection-of socket))
  nil)

(defmethod stream-clear-input ((socket socket))
  (clear-arrived-input (connection-of socket))
  nil)

;;; Formats

(defgeneric stream-external-format (stream)
  (:documentation "Return the external format of STREAM. Of a SOCKET it is :UTF-8, :LATIN-1, :ASCII
or another encoding that babel knows, or a list of one with :EOL (:LF or :CRLF, which is two
characters in that encoding), :LINE-LIMIT (how many octets a line may have that READ-LINE reads,
without its end; a longer one is a LINE-TOO-LONG; NIL: as many as there is memory for) and
:REPLACEMENT (a character that is read for octets that are none, and written for a character that
has none); it is settable in mid-stream: what has been read or written stays as it was. :UTF-16,
:UTF-32 and :UCS-2, which name no order of octets, are big-endian; a byte order mark is looked for
in none, but is read as the character U+FEFF, and none is written unless as that. Of other streams
as in Common Lisp.")
  (:method (stream)
    (common-lisp:stream-external-format stream))
  (:method ((socket socket))
    (unparse-external-format (connection-format (socket-connection socket)))))

(defgeneric (setf stream-external-format) (format stream)
  (:documentation "Set the external format of STREAM, a SOCKET. See STREAM-EXTERNAL-FORMAT.")
  (:method (format (socket socket))
    (let ((connection (socket-connection socket)) (parsed (parse-external-format format)))
      (count-column connection)
      (setf (connection-format connection) parsed))
    format))

(defun set-socket-stream-format (socket format)
  "Switch SOCKET to FORMAT, CHARACTER (or :TEXT) or (UNSIGNED-BYTE 8) (or :BINARY), in mid-stream.
Sockets are bivalent, so this only says what STREAM-ELEMENT-TYPE is and what READ-SEQUENCE puts into
a list or a general vector. Returns FORMAT."
  (check-socket socket :format)
  (setf (connection-element-type (socket-connection socket))
        (case format
          (:text 'character)
          (:binary '(unsigned-byte 8))
          (t (element-type-named format))))
  format)

;;; What is there

(defun socket-state (socket)
  "Return how it stands with SOCKET, a SOCKET, as far as is known here and now: :INPUT, there is
something to read, buffered or not; :OPEN, nothing is there, and nothing speaks against the
connection; :END-OF-FILE, all has been read, and the other side has ended its output; :LOST, the
connection has broken, and all that had arrived has been read; :CLOSED, SOCKET is closed. Nothing is
taken, nothing is waited for, and no limit of time counts. A connection that has been kept for later
is fit to be used while it is :OPEN; that it was does not say that it still is when it is used.
Source: recv(2), MSG_PEEK."
  (check-socket socket :read)
  (let ((connection (socket-connection socket)))
    (cond ((not (endpoint-open-p socket)) :closed)
          ((plusp (buffered-input connection)) :input)
          (t (state-of connection (arrived-octets connection))))))

(defun state-of (connection result)
  "What RESULT, of ARRIVED-OCTETS, says of CONNECTION."
  (cond ((plusp result) :input)
        ((zerop result) :end-of-file)
        ((would-block-p result) :open)
        ((= (lport-status-kind result) +lport-not-connected+) :open) ; its handshake goes on
        (t (let ((class (status-class result)))
             (cond ((eq class 'socket-closed) :closed)
                   ((subtypep class '(or connection-lost tls-error)) :lost)
                   (t (fail-on connection result :read)))))))

(defun wait-for-stream (stream &optional timeout)
  "Wait until STREAM, a SOCKET, has input, buffered or not, or its end of file, and return true;
return NIL when TIMEOUT seconds (NIL: no limit) pass without. Conditions: TIMEOUT when a deadline
passes first, SOCKET-CLOSED. Source: poll(2)."
  (check-socket stream :wait)
  (let ((connection (socket-connection stream))
        (until (moment-after timeout))
        (limit *deadline*))
    (check-open connection :read)
    (loop
      (setf limit (check-limit connection :input :read limit 0))
      (cond ((wait-for-octets connection (min until limit)) (return t))
            ((>= (lport-clock-now) until) (return nil))))))
