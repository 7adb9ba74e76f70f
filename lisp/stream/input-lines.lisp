;;;; input-lines - whole lines, decoded from the buffer of input.lisp.
;;;;
;;;; Where octet 10 can only be a line feed the line is looked for first, in the octets, and decoded
;;;; at once; else it is read character by character. Invariant: a line is taken from the buffer
;;;; only as a whole, and only if it is no longer than the format allows.

(in-package :port)

(defun find-newline (connection from)
  "The index of the first line feed at or behind index FROM of the buffer, or NIL."
  (declare (type connection connection) (type index from))
  (let ((end (connection-in-end connection)))
    (when (< from end)
      (let ((found (with-octets (pointer (connection-in connection) from end :in)
                     (the index (lport-text-find-line pointer (- end from))))))
        (when (< found (- end from))
          (+ from found))))))

(declaim (inline measure-line))
(defun measure-line (connection format start)
  "Look at the line that begins at index START of the buffer. Values: the index of its line feed, or
NIL; how many characters are before that, if all are free of errors; NIL where only decoding can
tell."
  (declare (type connection connection) (type text-format format) (type index start))
  (if (eq (text-format-codec format) :utf-8)
      (let ((end (connection-in-end connection)) (result -1))
        (declare (type (signed-byte 64) result))
        (when (< start end)
          (setf result (with-octets (pointer (connection-in connection) start end :in)
                         (lport-text-measure-line pointer (- end start)))))
        (if (minusp result)
            (values nil nil)
            (multiple-value-bind (octets characters) (unpack-progress result)
              (values (the index (+ start octets)) characters))))
      (let ((newline (find-newline connection start)))
        (values newline
                (and newline (not (foreign-p format)) (- newline start))))))

(defun decode-span (connection count string)
  "Decode the first COUNT octets of the buffer, all of which belong together, into STRING, which has
room for as many characters: how many they are; NIL if a handler has to be asked what stands for
some of them."
  (declare (type index count) (type characters string))
  (let* ((in (connection-in connection))
         (format (connection-format connection))
         (position (connection-in-start connection)) (end (+ position count))
         (length 0))
    (declare (type index length position end))
    (loop
      (multiple-value-bind (consumed produced)
          (decode format in position end string length (length string))
        (incf position consumed)
        (incf length produced))
      (when (= position end)
        (return length))
      (multiple-value-bind (character width) (wrong-or-cut-off format in position end)
        (setf character (or character (text-format-replacement format)))
        (when (null character)
          (return nil))
        (setf (schar string length) character)
        (incf length)
        (incf position (the index width))))))

(declaim (inline line-end))
(defun line-end (connection start stop)
  "Where the text ends of the line from START whose last octet is before STOP."
  (declare (type index start stop))
  (if (and (< start stop)
           (eq (text-format-eol (connection-format connection)) :crlf)
           (= 13 (aref (connection-in connection) (1- stop))))
      (1- stop)
      stop))

;;; Lines that are too long

(defun fail-long-line (connection limit)
  (fail-as 'line-too-long :read :line-too-long
           :socket (channel-socket connection) :octets 0
           :message "expected a line of at most ~D octet~:P" :arguments (list limit)))

(defun check-line (connection seen last-p)
  "Signal LINE-TOO-LONG if the next line, as far as it has come, has more octets than its format
allows. SEEN and LAST-P as of FIND-LINE."
  (let ((limit (text-format-line-limit (connection-format connection))))
    (when (> (buffered-input connection) limit)
      (let ((count (call-deferred
                     (or (values (find-line connection seen last-p))
                         ;; The last octet may be half of its end.
                         (let ((start (connection-in-start connection)))
                           (- (line-end connection start (connection-in-end connection))
                              start))))))
        (declare (type index count))
        (when (> count limit)
          (fail-long-line connection limit))))))

;;; Whole lines

(defun lines-of-octets-p (format)
  "True if nothing but octet 10 ends a line in FORMAT: neither the octets of another character nor
what stands for octets that are none."
  (and (text-format-ascii-p format)
       (not (eql (text-format-replacement format) #\Newline))))

(defun read-text-line (connection)
  "Values: the next line without its end, as a string; true if end of file ended it. Nothing is
taken from the buffer before the line is whole, so a line that times out is there for the next
call."
  (declare (type connection connection))
  (let ((line (or (take-line-there connection)
                  (with-input-now (connection)
                    (take-line-quickly connection)))))
    (if line
        (values line nil)
        (with-input (connection)
          (setf (connection-last-width connection) 0)
          (if (lines-of-octets-p (connection-format connection))
              (read-line-by-octets connection)
              (read-line-by-characters connection (begin-call connection :input)))))))

(defun line-there (connection)
  "How many octets the next line has before its line feed, and how many characters, packed; NIL if
the buffer has not all of it, or only decoding can tell, or it is too long. Allocates nothing."
  (declare (type connection connection))
  (let ((format (connection-format connection))
        (start (connection-in-start connection)))
    (when (text-format-ascii-p format)
      (multiple-value-bind (newline count) (measure-line connection format start)
        (declare (type (or null index) newline count))
        (when (and count (<= (- newline start) (text-format-line-limit format)))
          ;; A carriage return before the line feed is no character of the line.
          (let ((end (line-end connection start newline)))
            (declare (type index end))
            (pack-progress (- newline start) (- count (- newline end)))))))))

(defun take-measured-line (connection octets string)
  "Take the line of OCTETS, and its line feed, that LINE-THERE has found: STRING, which is as long,
with its characters; NIL if it is not free of errors, nothing taken. Allocates nothing."
  (declare (type connection connection) (type index octets) (type characters string)
           (inline decode))
  (let* ((start (connection-in-start connection))
         (newline (+ start octets))
         (end (line-end connection start newline)))
    (declare (type index newline end))
    (when (= (- end start)
             (the index (values (decode (connection-format connection) (connection-in connection)
                                        start end string 0 (length string)))))
      (setf (connection-in-start connection) (1+ newline)
            (connection-last-width connection) 0)
      string)))

(defconstant +long-line+ 16384
  "Octets beyond which the string of a line may be what exhausts the heap: SBCL's collector moves
what is smaller, and has ended the process before if there is no room for that.")

(defun take-line-quickly (connection)
  "The next line if the buffer has all of it and it is free of errors; else NIL, nothing taken. To
be called within WITH-INPUT-NOW."
  (declare (type connection connection))
  (let ((line (line-there connection)))
    (when line
      (multiple-value-bind (octets length) (unpack-progress line)
        (declare (type index octets length))
        (when (<= octets +long-line+) ; see TAKE-LONG-LINE
          (let ((string (take-measured-line connection octets
                                            (allocating (connection :input)
                                              (make-string length)))))
            (when string
              (release-idle-input connection)
              string)))))))

(defun take-line-there (connection)
  "As TAKE-LINE-QUICKLY, where this thread is the resident reader and more than the line is there.
In two steps, as the string is made in between; an interrupt that reads there is found by where the
stream stands, one that sets another format by that."
  (declare (type connection connection))
  (let* ((position (octets-read connection))
         (format (connection-format connection))
         (line (with-input-there (connection)
                 (line-there connection))))
    (when line
      (multiple-value-bind (octets length) (unpack-progress line)
        (let ((string (make-string length)))
          (with-input-there (connection)
            (when (and (= position (octets-read connection))
                       (eq format (connection-format connection))
                       (< (1+ octets) (buffered-input connection)))
              (take-measured-line connection octets string))))))))

(defun read-line-by-octets (connection)
  "READ-TEXT-LINE where a line ends with octet 10."
  (let ((seen 0) (ended nil))
    (multiple-value-bind (line limit)
        (filling (connection (begin-call connection :input)) (last-p)
          (let ((arrived (connection-octets-in connection)))
            (check-line connection seen last-p)
            (multiple-value-bind (line end-p)
                (if (> (buffered-input connection) +long-line+)
                    (take-long-line connection seen last-p)
                    (call-deferred (take-line connection seen last-p)))
              (setf seen arrived
                    ended end-p)
              line)))
      (if (stringp line)
          (values line ended)
          (read-line-by-characters connection limit)))))

(defun find-line (connection seen last-p)
  "Look for the next line, whose end is not before position SEEN of all that came; at LAST-P it is
all that is left. Values: how many octets it has; how many it has with its end; true if end of file
ends it. NIL: more octets are needed. To be called with interrupts deferred."
  (declare (type (unsigned-byte 62) seen))
  (let* ((start (connection-in-start connection))
         (newline (find-newline connection
                                (+ start (the index (max 0 (- seen (octets-read connection))))))))
    (cond (newline (values (- (line-end connection start newline) start)
                           (- (1+ newline) start)
                           nil))
          (last-p (values (buffered-input connection) (buffered-input connection) t)))))

(defun pass-line (connection width)
  "Take the line of WIDTH octets, its end among them. To be called with interrupts deferred."
  (declare (type index width))
  (incf (connection-in-start connection) width)
  (settle-input connection))

(defun trimmed (string length)
  (declare (type characters string) (type index length))
  (if (= length (length string)) string (subseq string 0 length)))

(defun take-line (connection seen last-p)
  "Take the next line, SEEN and LAST-P as of FIND-LINE. Values as READ-TEXT-LINE; NIL where more
octets are needed; T where a handler has to be asked for some of them. To be called with interrupts
deferred."
  (multiple-value-bind (count width ended) (find-line connection seen last-p)
    (when count
      (let* ((string (make-string count))
             (length (decode-span connection count string)))
        (when length
          (pass-line connection width))
        (values (if length (trimmed string length) t) ended)))))

(defun take-long-line (connection seen last-p)
  "As TAKE-LINE, where there is more than +LONG-LINE+. The peer decides how long the line is, and
SBCL takes heap exhaustion with interrupts deferred for a corruption of its own: so nothing is
allocated then, and the line is taken in steps. T too where an interrupt has read in between, or has
set another format."
  (let ((position (octets-read connection)) (format (connection-format connection)))
    (flet ((still-p ()
             (and (= position (octets-read connection))
                  (eq format (connection-format connection)))))
      (multiple-value-bind (count width ended)
          (call-deferred (find-line connection seen last-p))
        (when count
          (let* ((string (make-string count))
                 (length (call-deferred
                           (and (still-p) (decode-span connection count string))))
                 (line (and length (trimmed string length))))
            (values (if (call-deferred
                          (when (and line (still-p))
                            (pass-line connection width)
                            t))
                        line
                        t)
                    ended)))))))

(defun enlarged (vector)
  "A vector of twice the length that begins with the elements of VECTOR."
  (replace (make-array (* 2 (length vector)) :element-type (array-element-type vector)) vector))

(defun read-line-by-characters (connection limit)
  "READ-TEXT-LINE where octet 10 may be part of another character, or a handler is to be asked."
  (let ((line (make-string 80)) (length 0)
        (octets (octets-of-size 80)) (count 0) ; of what is in LINE
        (character nil) (done nil)
        (most (text-format-line-limit (connection-format connection))))
    (declare (type characters line) (type octets octets) (type index length count))
    (flet ((note (connection character width)
             (setf (schar line length) character)
             (incf length)
             (copy-unread connection octets count width)
             (incf count (the index width))
             (pass-character connection character width)))
      (declare (dynamic-extent #'note))
      (with-cleanup
           (loop
             (when (> count most)
               (fail-long-line connection most))
             (when (= length (length line))
               (setf line (enlarged line)))
             (when (< (- (length octets) count) +longest-character+)
               (setf octets (enlarged octets)))
             (multiple-value-setq (character limit)
               (next-character-by connection limit #'note))
             (let ((ended (eq character :eof)))
               (when (or ended (eql character #\Newline))
                 (return (multiple-value-prog1
                             (values (trimmed line (if ended length (1- length))) ended)
                           (setf done t))))))
        (if done
            (settle-input connection)
            (put-back connection octets 0 count))))))
