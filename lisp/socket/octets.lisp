;;;; octets - octets by the vector: plain functions, for programs that cannot afford a generic call,
;;;; and files sent past the memory of the program.
;;;;
;;;; They share the buffers with the stream operations, so both can be mixed at will. None allocates
;;;; anything where the vectors are simple.

(in-package :port)

(declaim (inline check-octets))
(defun check-octets (octets operation)
  (check-argument operation octets '(vector (unsigned-byte 8))
                  "a vector whose element type is (unsigned-byte 8)"))

(defmacro with-octets-of ((vector start end) octets (from to) operation &body body)
  "Run BODY with VECTOR bound to the simple vector under OCTETS, an argument of OPERATION, and START
and END to the bounds in it of the part from FROM to TO. A simple vector is not asked what it is."
  (let ((run (gensym "BODY")))
    `(flet ((,run (,vector ,start ,end)
              (declare (type octets ,vector) (type index ,start ,end))
              ,@body))
       (declare (dynamic-extent #',run))
       (if (and (typep ,octets 'octets)
                (typep ,from 'index)
                (<= ,from (the index (if (typep ,to 'index) ,to (length ,octets)))
                    (length ,octets))
                (typep ,to '(or null index)))
           (,run ,octets ,from (or ,to (length ,octets)))
           (progn
             (check-octets ,octets ,operation)
             (check-bounds ,operation ,octets ,from ,to)
             (%with-vector (simple from to) (,octets ,from ,to)
               (,run simple from to)))))))

;;; Reading

(defun fail-short (socket octets wanted whole)
  "Signal that the end of file came after OCTETS of the WANTED ones; WHOLE as of READ-OCTETS."
  (if (and (zerop octets) (eq whole t))
      (error 'end-of-file :stream socket)
      (fail-as 'connection-truncated :read :connection-truncated
               :socket socket :octets octets
               :message "expected ~D octet~:P before the end" :arguments (list wanted))))

(defun read-octets (socket octets &key (start 0) end whole)
  "Fill OCTETS, a vector of (unsigned-byte 8), from index START to END (NIL: its length) with octets
of SOCKET, waiting for all of them. Returns the index of the first that was not filled: END, or less
at end of file. A call that ends early leaves all the octets for the next one. As READ-SEQUENCE,
without a generic call.
WHOLE, for messages of a known length: NIL, as above; T, an end of file before END is signalled, as
END-OF-FILE where it came before the first octet, between two messages, and else as
CONNECTION-TRUNCATED with NETWORK-OCTETS, how many came, which are unread again; :REST, what is read
is the rest of a message that has begun, and its end of file always CONNECTION-TRUNCATED.
Conditions: TIMEOUT, SOCKET-CLOSED, CONNECTION-LOST; with WHOLE also END-OF-FILE. Source: recv(2)."
  (check-socket socket :read)
  (check-argument :read whole '(member nil t :rest) "T, NIL or :REST for WHOLE")
  (with-octets-of (vector from to) octets (start end) :read
    (let ((position (read-octets-into (socket-connection socket) vector from to whole)))
      (when (and whole (< position to))
        (fail-short socket (- position from) (- to from) whole))
      (+ start (- position from)))))

(defun read-some (socket octets &key (start 0) end)
  "Store into OCTETS, a vector of (unsigned-byte 8), from index START below END (NIL: its length)
the octets that are there, waiting until there is at least one. Returns how many; 0 at end of file,
or when START is END. Conditions: TIMEOUT, SOCKET-CLOSED, CONNECTION-LOST. Source: recv(2)."
  (check-socket socket :read)
  (with-octets-of (vector from to) octets (start end) :read
    (read-available-octets (socket-connection socket) vector from to)))

(defun await-buffered (connection count)
  "Wait until COUNT octets are buffered, or all that come before end of file; how many of them are."
  (declare (type connection connection) (type index count))
  (values (filling (connection (begin-call connection :input)) (last-p)
            (when (or last-p (>= (buffered-input connection) count))
              (min count (buffered-input connection))))))

(defun copy-if-buffered (connection octets start count)
  "COPY-UNREAD, if COUNT octets are buffered still, as an interrupt may have read: true if so."
  (declare (type index count))
  (call-deferred
    (when (<= count (buffered-input connection))
      (copy-unread connection octets start count)
      t)))

(defun peek-octets (socket octets &key (start 0) end)
  "As READ-OCTETS, but the octets stay unread: the next operation gets them again. They are kept in
the buffer of SOCKET, which grows where they are more than 64 KiB."
  (check-socket socket :read)
  (with-octets-of (vector from to) octets (start end) :read
    (let ((connection (socket-connection socket)))
      (with-input (connection)
        (loop for count = (await-buffered connection (- to from))
              until (copy-if-buffered connection vector from count)
              finally (return (+ start count)))))))

(defun buffered-octets (socket)
  "Two values: how many octets of SOCKET have arrived in its buffer and are unread, how many have
been written to its buffer and are not sent. What the system has buffered is not counted."
  (check-socket socket :read)
  (let ((connection (socket-connection socket)))
    (values (buffered-input connection) (pending-output connection))))

;;; Lines of octets

(defun find-octet-line (connection room at-end)
  "Look for the line that the buffer begins with, of at most ROOM octets without its end. Values:
how many octets it has; how many its end has; :LINE, :END-OF-FILE, or :MORE where ROOM octets are
only a part of it. NIL: more octets have to come, which is what AT-END rules out."
  (declare (type connection connection) (type index room))
  (let* ((start (connection-in-start connection))
         (newline (find-newline connection start))
         (end (and newline (line-end connection start newline)))
         (buffered (buffered-input connection)))
    (declare (type index start buffered))
    (cond ((and end (<= (- end start) room))
           (values (- end start) (- (1+ newline) end) :line))
          ;; Two octets more could have been a line's end.
          ((or (>= buffered (+ room 2)) (and at-end (> buffered room)))
           (values room 0 :more))
          (at-end (values buffered 0 :end-of-file)))))

(defun take-octet-line (connection octets start end at-end)
  "Move the line that the buffer begins with into OCTETS. Values as READ-LINE-OCTETS; NIL as
FIND-OCTET-LINE."
  (declare (type octets octets) (type index start end))
  (call-deferred
    (multiple-value-bind (count width what) (find-octet-line connection (- end start) at-end)
      (when count
        (copy-unread connection octets start count)
        (pass-line connection (+ count width))
        (values (+ start count) what)))))

(defun read-octet-line (connection octets start end)
  (declare (type connection connection))
  (with-input (connection)
    (let ((position nil) (what nil))
      (filling (connection (begin-call connection :input)) (last-p)
        (multiple-value-setq (position what)
          (take-octet-line connection octets start end last-p)))
      (values position what))))

(defun read-line-octets (socket octets &key (start 0) end)
  "Store the next line of SOCKET, up to the octet 10, into OCTETS, a vector of (unsigned-byte 8),
from index START below END (NIL: its length), without its end; where the external format of SOCKET
has :EOL :CRLF an octet 13 before the 10 belongs to the end. Values: the index behind the last octet
stored; :LINE, or :END-OF-FILE where that came first (the line is what there was, often nothing), or
:MORE where the line is longer than that: the next call gets its next part. Nothing is taken before
the line is whole, so a call that ends early has lost nothing. Conditions: TIMEOUT, SOCKET-CLOSED,
CONNECTION-LOST; USAGE-ERROR where there is no room for an octet."
  (check-socket socket :read)
  (with-octets-of (vector from to) octets (start end) :read
    (check-argument :read (- to from) '(integer 1) "room for at least one octet")
    (let ((connection (socket-connection socket)) (position nil) (what nil))
      (with-input-now (connection)
        (multiple-value-setq (position what) (take-octet-line connection vector from to nil)))
      (unless position
        (multiple-value-setq (position what) (read-octet-line connection vector from to)))
      (values (+ start (- position from)) what))))

;;; Writing

(defun write-octets (socket octets &key (start 0) end)
  "Write OCTETS, a vector of (unsigned-byte 8), from index START to END (NIL: its length) to SOCKET;
return OCTETS. What is short stays in the buffer until a flush (FINISH-OUTPUT, a close); what is
long goes to the system at once, behind that. On a failure NETWORK-OCTETS of the condition tells
how many octets were taken. Conditions: TIMEOUT, SOCKET-CLOSED, CONNECTION-LOST. As WRITE-SEQUENCE,
without a generic call. Source: send(2)."
  (check-socket socket :write)
  (with-octets-of (vector from to) octets (start end) :write
    (write-octets-from (socket-connection socket) vector from to))
  octets)

;;; Files

(defconstant +file-piece+ (ash 1 20) "Octets that one call of the library sends at the most.")

(defun send-file (socket file &key (start 0) end)
  "Send the octets START to END (NIL: its end when the call begins) of FILE to SOCKET, behind what
was written before, past the memory of this program; return how many there were, which is less than
asked for where the file has become shorter meanwhile. FILE: a pathname, or a string, the name that
the system has, of a regular file, or an open input stream of one, whose position is neither used
nor moved, and whose own buffered output, if there is any, is written first. Behind the file the
column is not known: FRESH-LINE begins a line.
On a failure NETWORK-OCTETS of the condition tells how many octets of FILE the system took.
Conditions: FILE-ERROR and USAGE-ERROR (bounds outside of the file), before anything is sent;
TIMEOUT, SOCKET-CLOSED, CONNECTION-LOST. Source: sendfile(2)."
  (check-socket socket :write)
  (check-argument :write start '(integer 0 #.most-positive-fixnum) "an offset in octets")
  (check-argument :write end '(or null (integer 0 #.most-positive-fixnum))
                  "an offset in octets, or NIL for the end of the file")
  (check-argument :write file '(or string pathname file-stream)
                  "a pathname, a string that names a file, or an open stream of a file")
  (if (streamp file)
      (send-file-stream socket file file start end)
      (send-named-file socket (one-file file) file start end)))

(defun send-named-file (socket pathname file start end)
  "SEND-FILE of the file PATHNAME; FILE is what the caller gave. No interrupt comes while it is
opened, as the system's descriptor has no owner yet; if that fails it is tried once more, with
interrupts, to signal why."
  (let ((stream nil))
    (flet ((open-it ()
             (open pathname :element-type '(unsigned-byte 8))))
      (with-cleanup
          (progn
            (call-deferred
              (setf stream (handler-case (open-it)
                             (file-error () nil))))
            (unless stream
              (setf stream (open-it)))
            (send-file-stream socket stream file start end))
        (when stream
          (close stream))))))

(defun file-pathname (file)
  "The pathname of FILE, a pathname or a string as the system has it; NIL where it can be no name."
  (if (pathnamep file)
      file
      (and (not (find (code-char 0) file)) (uiop:parse-native-namestring file))))

(defun native-file-name (file)
  "The name that the system has for FILE, a pathname or a string; NIL where it names no single
file."
  (let ((pathname (file-pathname file)))
    (and pathname (native-path (merge-pathnames pathname)))))

(defun regular-file-p (object)
  "True if OBJECT is, names, or is open on a regular file."
  (let ((file (typecase object
                (file-stream (and (open-stream-p object) object))
                ((or pathname string) (native-file-name object)))))
    (and file (typep (%regular-file-size file) 'unsigned-byte))))

(defun fail-irregular (file &optional (expected "a regular file"))
  (fail-argument :write file '(satisfies regular-file-p) expected))

(defun one-file (file)
  "The pathname of FILE, a pathname or a string as the system has it, if it can name one file, and
is not that of a pipe or a device, which an open could wait for."
  (let ((native (native-file-name file)))
    (cond ((null native) (fail-irregular file "the name of one file"))
          ((eq :special (%regular-file-size native)) (fail-irregular file))
          (t (file-pathname file)))))

(defun send-file-stream (socket stream file start end)
  "SEND-FILE of STREAM; FILE is what the caller gave."
  (check-argument :write stream '(and (satisfies open-stream-p) (satisfies input-stream-p))
                  "an open input stream")
  (when (output-stream-p stream)
    (finish-output stream))
  (let ((descriptor (%stream-descriptor stream))
        (size (%regular-file-size stream)))
    (unless (typep size 'fixnum)
      (fail-irregular file))
    ;; Files that the system makes up while they are read say that they are empty.
    (when (plusp size)
      (check-argument :write start `(integer 0 ,size) "an offset within the file")
      (check-argument :write (or end start) `(integer ,start ,size) "an end within the file"))
    (send-octets-of-file (socket-connection socket) descriptor start
                         (or end (and (plusp size) size)))))

(defun send-octets-of-file (connection descriptor start end)
  "Send the octets START to END (NIL: until no more come) of the file DESCRIPTOR; how many."
  (declare (type connection connection) (type fixnum start) (type (or null fixnum) end))
  (with-output (connection)
    (check-writable connection)
    (let ((position start) (count 1) (limit (begin-call connection :output)))
      (declare (type fixnum position count) (type moment limit))
      (setf limit (nth-value 1 (flush connection :limit limit :taken 0)))
      (loop until (or (zerop count) (eql position end))
            do (multiple-value-setq (count limit)
                 (trying (connection :output :write limit :moved (- position start))
                   (call-deferred
                     (let ((count (lport-socket-send-file
                                   (connection-handle connection) descriptor position
                                   (if end (min +file-piece+ (- end position)) +file-piece+))))
                       (when (plusp count)
                         (note-sent connection count)
                         (setf (connection-column connection) +no-column+)
                         (incf position count))
                       count)))))
      (flush connection :limit limit :taken (- position start)) ; what TLS holds of it
      (- position start))))
