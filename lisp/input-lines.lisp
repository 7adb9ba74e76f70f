;;;; input-lines - whole lines, decoded from the buffer of input.lisp.
;;;;
;;;; Where octet 10 can only be a line feed the line is looked for first, in the octets, and decoded
;;;; at once; else it is read character by character. Invariant: a line is taken from the buffer
;;;; only as a whole.

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

(defun decode-span (connection start end room)
  "The text of the octets START to END of the buffer, all of which belong to it, in ROOM, a string
or NIL, if that is large enough; NIL if a handler has to be asked what stands for some of them."
  (declare (type index start end) (type (or null characters) room))
  (let* ((in (connection-in connection))
         (format (connection-format connection))
         (string (if (and room (<= (- end start) (length room)))
                     room
                     (make-string (- end start))))
         (length 0) (position start))
    (declare (type index length position))
    (loop
      (multiple-value-bind (consumed produced)
          (decode format in position end string length (length string))
        (incf position consumed)
        (incf length produced))
      (when (= position end)
        (return (if (= length (length string)) string (subseq string 0 length))))
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
          (check-open connection :read)
          (setf (connection-last-width connection) 0)
          (if (lines-of-octets-p (connection-format connection))
              (read-line-by-octets connection)
              (read-line-by-characters connection (begin-call connection :input)))))))

(defun line-there (connection)
  "How many octets the next line has before its line feed, and how many characters, packed; NIL if
the buffer has not all of it, or only decoding can tell. Allocates nothing."
  (declare (type connection connection))
  (let ((format (connection-format connection))
        (start (connection-in-start connection)))
    (when (text-format-ascii-p format)
      (multiple-value-bind (newline count) (measure-line connection format start)
        (declare (type (or null index) newline count))
        (when count
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

(defun take-line-quickly (connection)
  "The next line if the buffer has all of it and it is free of errors; else NIL, nothing taken. To
be called within WITH-INPUT-NOW."
  (declare (type connection connection))
  (let ((line (line-there connection)))
    (when line
      (multiple-value-bind (octets length) (unpack-progress line)
        (declare (type index octets length))
        (when (<= octets +buffer-size+) ; see ROOM-FOR-LINE
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
  (let ((scanned 0) (position (octets-read connection)) (ended nil))
    (declare (type index scanned))
    (multiple-value-bind (line limit)
        (filling (connection (begin-call connection :input)) (last-p)
          (let ((room (room-for-line connection scanned last-p)))
            (call-deferred
              ;; Somebody was asked to wait longer, or interrupted this, and has read meanwhile.
              (unless (= position (octets-read connection))
                (setf scanned 0
                      position (octets-read connection)))
              (multiple-value-bind (line end-p) (take-line connection scanned last-p room)
                (setf scanned (buffered-input connection)
                      ended end-p)
                line))))
      (if (stringp line)
          (values line ended)
          (read-line-by-characters connection limit)))))

(defun read-line-by-characters (connection limit)
  "READ-TEXT-LINE where octet 10 may be part of another character, or a handler is to be asked."
  (let ((line (make-array 80 :element-type 'character :adjustable t :fill-pointer 0))
        (octets (make-array 80 :element-type '(unsigned-byte 8) :adjustable t :fill-pointer 0))
        (character nil) (done nil)
        (noted (octets-read connection)))
    (with-cleanup
         (loop
           (multiple-value-setq (character limit) (next-character-by connection limit))
           (when (member character '(:eof #\Newline))
             (setf done t)
             (return (values (coerce line 'characters) (eq character :eof))))
           (vector-push-extend character line)
           (call-deferred
             (note-octets connection octets)
             (setf noted (octets-read connection))))
      (unless done
        (put-back-all connection (coerce octets 'octets) noted)))))

(defun note-octets (connection octets)
  "Append to OCTETS, which grows, those of the character that was read last."
  (let ((end (connection-in-start connection)))
    (loop for index from (- end (connection-last-width connection)) below end
          do (vector-push-extend (aref (connection-in connection) index) octets))))

(defun room-for-line (connection scanned last-p)
  "A string for what TAKE-LINE is about to take where that is more than a buffer, which is for the
peer to say: where interrupts are deferred the Lisp takes the end of the memory for its own
corruption. NIL for less."
  (declare (type index scanned))
  (when (> (buffered-input connection) +buffer-size+)
    (let ((length (call-deferred
                    (let* ((start (connection-in-start connection))
                           (newline (find-newline connection (+ start scanned))))
                      (- (cond (newline)
                               (last-p (connection-in-end connection))
                               (t start))
                         start)))))
      (and (> length +buffer-size+) (make-string length)))))

(defun take-line (connection scanned last-p room)
  "Take the next line, whose end is not among the SCANNED octets that it begins with; at LAST-P all
that is left. Values as READ-TEXT-LINE; NIL where more octets are needed; T where a handler has to
be asked for some of them. ROOM as of DECODE-SPAN. To be called with interrupts deferred."
  (let* ((start (connection-in-start connection))
         (newline (find-newline connection (+ start scanned))))
    (when (or newline last-p)
      (let* ((stop (or newline (connection-in-end connection)))
             (end (if newline (line-end connection start stop) stop))
             (string (decode-span connection start end room)))
        (when string
          (setf (connection-in-start connection) (if newline (1+ stop) stop)
                (connection-last-width connection) 0)
          (release-idle-input connection))
        (values (or string t) (null newline))))))
