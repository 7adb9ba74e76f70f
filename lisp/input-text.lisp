;;;; input-text - characters, lines and strings, decoded from the buffer of input.lisp.
;;;;
;;;; Invariant: as there. What is decoded is taken from the buffer only when it can be returned, or
;;;; goes back, in the octets that it came in, if the call ends early.

(in-package :port)

;;; Characters

(declaim (inline plain-character))
(defun plain-character (connection)
  "The next character if it is a buffered one of ASCII that needs no look at what follows; else
NIL."
  (let ((start (connection-in-start connection)))
    (when (< start (connection-in-end connection))
      (let ((octet (aref (connection-in connection) start)))
        (when (and (< octet 128) (/= octet 13)
                   (text-format-ascii-p (connection-format connection)))
          (setf (connection-in-start connection) (1+ start)
                (connection-last-width connection) 1)
          (code-char octet))))))

(defun next-character (connection)
  "The next character, or :EOF. The caller owns the direction."
  (values (next-character-by connection (begin-call connection :input))))

(defun next-character-by (connection limit)
  "The next character, or :EOF, waiting until LIMIT for as many octets as are needed. Values: the
character or :EOF; LIMIT or a later one."
  (check-open connection :read)
  (setf (connection-last-width connection) 0)
  (let ((count 1))
    (loop
      (let ((character (take-character connection (zerop count))))
        (when character
          (return (values character limit))))
      (when (zerop count)
        (return (values :eof limit)))
      (multiple-value-setq (count limit) (fill-input connection limit)))))

;;; Octets that are no character are where the stream stands while a handler is asked about them, in
;;; every call: what it reads is gone, the character that it names is what the call gets in their
;;; place, and the call goes on with what is there then.
;;;
;;; An interrupt may read too, so that what is found and what is taken are one step.

(defun take-character (connection last-p)
  "Take the character that the unread octets begin with; NIL where more octets are needed. LAST-P as
for CHARACTER-AT-START."
  (multiple-value-bind (character wrong position)
      (call-deferred
        (multiple-value-bind (character width) (character-at-start connection last-p)
          (if character
              (skip-character connection width)
              (setf width (and width (unread-octets connection width))))
          (values character width (octets-read connection))))
    (cond (character)
          (wrong (character-for-octets connection wrong position)))))

(defun skip-character (connection width)
  "The character of WIDTH octets that the unread ones begin with has been read."
  (incf (connection-in-start connection) width)
  (setf (connection-last-width connection) width))

(defun unread-octets (connection count)
  "A copy of the first COUNT unread octets."
  (let ((start (connection-in-start connection)))
    (subseq (connection-in connection) start (+ start count))))

(defun character-for-octets (connection octets position)
  "Take OCTETS, which are none and are unread at POSITION; the character for them."
  ;; What the handler has read last cannot be taken back as if this call had read it.
  (let ((character (with-cleanup
                       (character-for (connection-format connection) octets connection position)
                     (setf (connection-last-width connection) 0))))
    (call-deferred
      ;; A handler that has read has taken the octets itself.
      (when (= position (octets-read connection))
        (skip-character connection (length octets))))
    character))

(defun character-at-start (connection last-p)
  "The character that the unread octets begin with, and its width; NIL and how many octets are none;
NIL alone where more octets are needed. LAST-P: there are no more; then what is cut off is none, and
NIL alone means that there is nothing. To be called with interrupts deferred."
  (let* ((in (connection-in connection))
         (start (connection-in-start connection))
         (end (connection-in-end connection))
         (format (connection-format connection))
         (scratch (connection-scratch connection)))
    (cond ((= start end) nil)
          ((carriage-return-p connection)
           (cond ((< (1+ start) end)
                  (if (= (aref in (1+ start)) 10)
                      (values #\Newline 2)
                      (values #\Return 1)))
                 (last-p (values #\Return 1))))
          (t
           (multiple-value-bind (consumed produced) (decode format in start end scratch 0 1)
             (cond ((= produced 1) (values (schar scratch 0) consumed))
                   (last-p (wrong-or-cut-off format in start end))
                   (t (values nil (problem format in start end)))))))))

(defun carriage-return-p (connection)
  "True if the next octet is a carriage return that may be the first half of a line's end."
  (and (eq (text-format-eol (connection-format connection)) :crlf)
       (= 13 (aref (connection-in connection) (connection-in-start connection)))))

(declaim (inline read-character))
(defun read-character (connection)
  "The next character, or :EOF."
  (declare (type connection connection))
  (or (with-input-there (connection)
        (when (more-than-one-p connection)
          (plain-character connection)))
      (with-input-now (connection)
        (let ((character (or (plain-character connection)
                             (when (and (zerop (buffered-input connection))
                                        (fill-input-quickly connection))
                               (plain-character connection)))))
          (when character
            (element-taken connection character))))
      (read-character-slowly connection)))

(defun read-character-slowly (connection)
  (with-input (connection)
    (element-taken connection (next-character connection))))

(declaim (inline take-back))
(defun take-back (connection)
  "Make unread again what the last character took."
  (decf (connection-in-start connection) (connection-last-width connection))
  (note-buffered connection)
  (setf (connection-last-width connection) 0
        (connection-kept-width connection) 0))

(defun unread-character (connection)
  "Take back the character that was read last. It is an error if that is not what happened last."
  (declare (type connection connection))
  (or (with-direction-now (connection :input)
        (when (plusp (connection-last-width connection))
          (take-back connection)
          t))
      (with-input (connection)
        (check-open connection :read)
        (let ((kept (kept-octets connection)))
          (cond ((plusp (connection-last-width connection))
                 (call-deferred (take-back connection)))
                (kept (put-back connection kept 0 (length kept)))
                (t (fail-as 'usage-error :read :invalid
                            :socket (channel-socket connection)
                            :message "UNREAD-CHAR: the last operation on the socket was not ~
                                      READ-CHAR"))))))
  nil)

(defun peek-character (connection)
  "The next character, which stays where it is, or :EOF."
  (declare (type connection connection))
  (or (with-input-now (connection)
        (let ((character (plain-character connection)))
          (when character
            (take-back connection)
            character)))
      (with-input (connection)
        (let ((position (octets-read connection)) (done nil))
          (with-cleanup
              (prog1 (next-character connection)
                (setf done t))
            ;; Nothing is to be taken back where a handler has read the octets of a replacement, nor
            ;; where the call was unwound before it had taken something.
            (let ((width (connection-last-width connection)))
              (when (and (plusp width)
                         (or done (= (octets-read connection) (+ position width))))
                (take-back connection))))))))

(defun read-character-now (connection)
  "The next character if it is there, NIL if it is not or another thread is just reading, :EOF at
end of file. Never blocks."
  (declare (type connection connection))
  (or (with-input-now (connection)
        (let ((character (plain-character connection)))
          (when character
            (element-taken connection character))))
      (read-character-now-slowly connection)))

(defun read-character-now-slowly (connection)
  (with-free-direction (connection :input)
    (check-open connection :read)
    (begin-call connection :input)
    (loop with last-p = nil
          do (let ((character (take-character connection last-p)))
               (when character
                 (return (element-taken connection character))))
             (when last-p
               (return :eof))
             (case (fill-input-now connection)
               ((nil) (return nil))
               (0 (setf last-p t))))))

(defun input-ready-p (connection)
  "True if a character or, for a binary stream, an octet can be read without blocking; false at end
of file, as LISTEN wants it, and while another thread is just reading. Never blocks."
  (with-free-direction (connection :input)
    (check-open connection :read)
    (loop with last-p = nil
          do (when (call-deferred (next-element-there-p connection last-p))
               (return t))
             (when last-p
               (return nil))
             (case (fill-input-now connection)
               ((nil) (return nil))
               (0 (setf last-p t))))))

(defun next-element-there-p (connection last-p)
  "True if the unread octets begin with an element. To be called with interrupts deferred."
  (let ((in (connection-in connection))
        (start (connection-in-start connection))
        (end (connection-in-end connection))
        (format (connection-format connection)))
    (cond ((= start end) nil)
          ((or last-p (not (eq (connection-element-type connection) 'character))) t)
          ((carriage-return-p connection) (< (1+ start) end))
          (t (multiple-value-bind (consumed produced)
                 (decode format in start end (connection-scratch connection) 0 1)
               (declare (ignore consumed))
               (or (= produced 1)
                   (and (problem format in start end) t)))))))

;;; Lines

(defun find-newline (connection from)
  "The index of the first line feed at or behind index FROM of the buffer, or NIL."
  (declare (type connection connection) (type index from))
  (let ((end (connection-in-end connection)))
    (when (< from end)
      (let ((found (with-octets (pointer (connection-in connection) from)
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
          (setf result (with-octets (pointer (connection-in connection) start)
                         (lport-text-measure-line pointer (- end start)))))
        (if (minusp result)
            (values nil nil)
            (multiple-value-bind (octets characters) (unpack-progress result)
              (values (the index (+ start octets)) characters))))
      (let ((newline (find-newline connection start)))
        (values newline
                (and newline (not (foreign-p format)) (- newline start))))))

(defun decode-span (connection start end)
  "The text of the octets START to END of the buffer, all of which belong to it; NIL if a handler
has to be asked what stands for some of them."
  (let* ((in (connection-in connection))
         (format (connection-format connection))
         (string (make-string (- end start)))
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
        (let ((string (take-measured-line connection octets (make-string length))))
          (when string
            (release-idle-input connection)
            string))))))

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
  (let ((limit (begin-call connection :input)) (scanned 0) (count 1)
        (position (octets-read connection)))
    (declare (type index scanned))
    (loop
      (multiple-value-bind (line last-p)
          (call-deferred
            ;; Somebody was asked to wait longer, or interrupted this, and has read meanwhile.
            (unless (= position (octets-read connection))
              (setf scanned 0
                    position (octets-read connection)))
            (multiple-value-prog1 (take-line connection scanned (zerop count))
              (setf scanned (buffered-input connection))))
        (cond ((stringp line) (return (values line last-p)))
              (line (return (read-line-by-characters connection limit)))))
      (multiple-value-setq (count limit) (fill-input connection limit)))))

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

(defun put-back-text (connection string start end odd)
  "Put the characters START to END of STRING before what is unread, in the octets that spell them.
ODD, a list of (from to . octets), the last one first: characters that came from other octets."
  (let ((octets (spell-with connection string start end odd)))
    (put-back connection octets 0 (length octets))))

(defun spell-with (connection string start end odd)
  "As SPELL, with the octets of ODD, see PUT-BACK-TEXT, where they differ."
  (let ((pieces '()))
    (loop for (from to . octets) in (reverse odd)
          when (< from end)
            do (push (spell connection string start from) pieces)
               (push octets pieces)
               (setf start to))
    (push (spell connection string start end) pieces)
    (let ((all (octets-of-size (reduce #'+ pieces :key #'length))) (at 0))
      (dolist (piece (nreverse pieces) all)
        (replace all (the octets piece) :start1 at)
        (incf at (length piece))))))

(defun odd-octets (connection string position)
  "The octets that the character at POSITION of STRING was just read from, if SPELL gives others;
else NIL."
  (let* ((in (connection-in connection))
         (width (connection-last-width connection))
         (end (connection-in-start connection))
         (code (char-code (schar string position))))
    (unless (and (= width 1) (/= code 10) (< code 128) (= code (aref in (1- end))))
      (let ((octets (subseq in (- end width) end)))
        (unless (equalp octets (spell connection string position (1+ position)))
          octets)))))

(defun take-line (connection scanned last-p)
  "Take the next line, whose end is not among the SCANNED octets that it begins with; at LAST-P all
that is left. Values as READ-TEXT-LINE; NIL where more octets are needed; T where a handler has to
be asked for some of them. To be called with interrupts deferred."
  (let* ((start (connection-in-start connection))
         (newline (find-newline connection (+ start scanned))))
    (when (or newline last-p)
      (let* ((stop (or newline (connection-in-end connection)))
             (end (if newline (line-end connection start stop) stop))
             (string (decode-span connection start end)))
        (when string
          (setf (connection-in-start connection) (if newline (1+ stop) stop)
                (connection-last-width connection) 0)
          (release-idle-input connection))
        (values (or string t) (null newline))))))

;;; Strings

(defun take-characters (connection string start end)
  "Decode what is buffered into STRING from START below END, as far as it goes without a line's end
of two octets, an error or more octets. Values: how many characters; their octets, where SPELL may
give others, as some encodings have two of a character."
  (let ((format (connection-format connection)) (from (connection-in-start connection)))
    (if (eq (text-format-eol format) :crlf)
        0
        (multiple-value-bind (consumed produced)
            (decode format (connection-in connection) from (connection-in-end connection)
                    string start end)
          (setf (connection-in-start connection) (+ from consumed)
                (connection-last-width connection) 0)
          (values produced
                  (and (plusp produced) (foreign-p format)
                       (subseq (connection-in connection) from (+ from consumed))))))))

(defun read-characters-into (connection string start end)
  "Fill STRING from START to END. Values: the index of the first that was not filled, END unless end
of file came; what PUT-BACK-TEXT has to know of them.
What a call that ends early had read goes back into the buffer in the octets that it came in."
  (declare (type characters string) (type index start end))
  (with-input (connection)
    (check-open connection :read)
    (let ((position start) (done nil) (odd '()) (character nil)
          (limit (begin-call connection :input))
          (noted (octets-read connection)))
      (declare (type index position))
      (with-cleanup
           (loop
             (when (plusp (buffered-input connection))
               (call-deferred
                 (multiple-value-bind (count octets)
                     (take-characters connection string position end)
                   (declare (type index count))
                   (when octets
                     (push (list* position (+ position count) octets) odd))
                   (incf position count))
                 (setf noted (octets-read connection))))
             (when (= position end)
               (setf done t)
               (return (values position odd)))
             ;; What stopped the run: nothing buffered, a character cut off, an error, a line's end.
             (multiple-value-setq (character limit) (next-character-by connection limit))
             (when (eq character :eof)
               (setf done t)
               (return (values position odd)))
             (setf (schar string position) character)
             (let ((octets (odd-octets connection string position)))
               (when octets
                 (push (list* position (1+ position) octets) odd)))
             (call-deferred
               (incf position)
               (setf noted (octets-read connection))))
        (cond (done
               (setf (connection-last-width connection) 0)
               (release-idle-input connection))
              (t (put-back-all connection (spell-with connection string start position odd)
                               noted)))))))

(defun put-back-all (connection octets noted)
  "Put back OCTETS, and the character behind them, if the call was unwound when it had taken that
one and not yet noted it. NOTED: OCTETS-READ when it noted something last."
  (let ((width (connection-last-width connection)))
    (when (= width (- (octets-read connection) noted))
      (decf (connection-in-start connection) width)))
  (put-back connection octets 0 (length octets)))

(defun spell (connection string start end)
  "The octets that read as the characters START to END of STRING in the format of CONNECTION. A
character that came from a replacement and has no octets is spelled with a question mark."
  (let* ((format (connection-format connection))
         (octets (octets-of-size (* (1+ +longest-character+) (- end start))))
         (crlf-p (eq (text-format-eol format) :crlf))
         (length 0) (position start))
    (declare (type index length position))
    (loop
      (when (= position end)
        (return (subseq octets 0 length)))
      (let ((newline-p (and crlf-p (char= (schar string position) #\Newline))))
        (when newline-p
          (setf (aref octets length) 13)
          (incf length))
        (multiple-value-bind (consumed produced)
            (encode format string position (if crlf-p (1+ position) end)
                    octets length (length octets))
          (when (and (zerop consumed) (not newline-p))
            (setf (aref octets length) (char-code #\?)
                  consumed 1
                  produced 1))
          (incf position consumed)
          (incf length produced))))))
