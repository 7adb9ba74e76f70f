;;;; output - the writing half of a connection: octets and characters into one buffer, and its
;;;; flush.
;;;;
;;;; Invariant: an octet that was written is in the buffer, or the kernel has it, or the call that
;;;; wrote it has not returned; a flush that ends early keeps what is left and is simply repeated.

(in-package :port)

(defun check-writable (connection &optional (octets 0))
  "Signal if our side has been closed or its output shut down. OCTETS: moved so far by the call."
  (check-open connection :write octets)
  (when (connection-output-shut connection)
    (fail-on connection (lport-status-make +lport-output-shut+) :write :octets octets)))

;;; Without waiting, as in input.lisp: what every writing operation tries first.

(defmacro with-output-now ((connection) &body body)
  "The value of BODY, short, never blocking and never signalling, if this thread can be the one
writer of CONNECTION at once, nothing forbids to write and no deadline has passed; else NIL."
  `(when (in-time-p ,connection :output)
     (with-direction-now (,connection :output)
       (unless (or (channel-closing ,connection) (connection-output-shut ,connection))
         ,@body))))

(defmacro with-output-there ((connection) &body body)
  "As WITH-OUTPUT-NOW for the resident writer of CONNECTION, of BODY as WITH-RESIDENCE wants it."
  `(when (in-time-p ,connection :output)
     (with-residence (,connection :output)
       (unless (or (channel-closing ,connection) (connection-output-shut ,connection))
         ,@body))))

;;; The column, for FRESH-LINE and ~T
;;;
;;; Nobody counts while writing: who asks counts back from the end of the buffer, and a buffer that
;;; has been sent leaves its column behind, as does what goes past it, and a format that ends.

(defconstant +longest-count+ 1024 "Octets that are looked at for a column at the most.")

(defconstant +no-column+ (ash 1 59)     ; an INDEX wherever fixnums have 62 bits
  "A column from here on is none: what was sent last is not known, and no line feed came since.")

(declaim (inline column-behind current-column))
(defun column-behind (format octets start end column)
  "The column behind OCTETS from START to END in FORMAT, which begin at COLUMN: characters since the
last line feed."
  (declare (type text-format format) (type octets octets) (type index start end column))
  (if (foreign-p format)
      (foreign-column (text-format-charset format) octets start end column)
      (let ((from (max start (- end +longest-count+)))
            (count 0) (continuations 0)
            (line-p nil))
        (declare (type index from count continuations))
        (loop for index of-type fixnum from (1- end) downto from
              for octet = (aref octets index)
              until (setf line-p (= octet 10))
              do (incf count)
                 (when (= #x80 (logand octet #xC0))
                   (incf continuations)))
        (- (+ count (if (or line-p (> from start)) 0 column))
           (if (and (plusp continuations) (eq (text-format-codec format) :utf-8))
               continuations
               0)))))

(defun foreign-column (charset octets start end column)
  "As COLUMN-BEHIND, from START on, as only there a character is sure to begin; of very many octets
from some way before END."
  (declare (type octets octets) (type index start end column))
  (let* ((newline (charset-newline charset))
         (skipped (* 4 (floor (max 0 (- end start +buffer-size+)) 4)))
         (position (+ start skipped)))
    (declare (type octets newline) (type index position))
    (when (plusp skipped)
      (setf column 0))
    (loop while (<= (+ position (charset-unit charset)) end)
          do (cond ((loop for octet across newline
                          for index of-type index from position
                          always (= octet (aref octets index)))
                    (setf column 0)
                    (incf position (length newline)))
                   (t (incf column)
                      (incf position (lead-width charset octets position)))))
    column))

(defun current-column (connection)
  "The column at which the next character will stand."
  (declare (type connection connection))
  (let* ((out (connection-out connection))
         ;; Who asks need not be the writer, and the buffer may be another one by now.
         (end (min (connection-out-end connection) (length out))))
    (column-behind (connection-format connection) out
                   (min (connection-counted connection) end) end
                   (connection-column connection))))

(defun count-column (connection)
  "Count what is pending, in the format that it was written in: another one is about to be set."
  (declare (type connection connection))
  (when (plusp (pending-output connection))
    (with-free-direction (connection :output)
      (call-deferred
        (setf (connection-column connection) (current-column connection)
              (connection-counted connection) (connection-out-end connection))))))

(defun long-line-p (octets start end)
  "True if OCTETS from START to END end with a line that is longer than what is counted."
  (declare (type octets octets) (type index start end))
  (and (> (- end start) +longest-count+)
       (= +longest-count+ (the index (with-octets (pointer octets (- end +longest-count+))
                                       (lport-text-find-line pointer +longest-count+))))))

(defun note-passed (connection octets start end column)
  "Note that OCTETS from START to END, which began at COLUMN, have gone past the buffer, in which
nothing is left."
  (declare (type connection connection) (type octets octets) (type index start end column))
  (let ((format (connection-format connection)))
    (setf (connection-column connection)
          ;; The library is faster with octets that are no text.
          (if (and (not (foreign-p format)) (long-line-p octets start end))
              +longest-count+
              (column-behind format octets start end column)))))

;;; Sending

(declaim (inline note-sent send-all))
(defun note-sent (connection count)
  "COUNT octets are on their way, those that were pending first; how many came from elsewhere."
  (let* ((pending (pending-output connection))
         (own (min count pending)))
    (take-residence connection :output count)
    (incf (connection-octets-out connection) count)
    (setf (connection-expecting connection) t)
    (cond ((zerop own))
          ((= own pending)
           (setf (connection-column connection) (current-column connection)
                 (connection-out-start connection) 0
                 (connection-out-end connection) 0
                 (connection-counted connection) 0))
          (t (incf (connection-out-start connection) own)))
    (- count own)))

(defun send-all (connection)
  "As SEND-PENDING. To be called with interrupts deferred."
  (declare (type connection connection))
  (let ((count (with-octets (pointer (connection-out connection)
                                     (connection-out-start connection))
                 (lport-socket-send (connection-handle connection) pointer
                                    (pending-output connection)))))
    (declare (type (signed-byte 64) count))
    (when (plusp count)
      (note-sent connection count))
    count))

(defun send-pending (connection)
  "Send what is pending without blocking: the count, or a status."
  (call-deferred (send-all connection)))

(defun flush (connection &key (limit (call-limit connection :output)) closing taken (moved 0))
  "Send all that is pending; return how many octets, and LIMIT or a later one. TAKEN: what a
condition says of the call that needs the room; NIL: what the flush has sent, with MOVED octets
before."
  (declare (type moment limit) (type index moved))
  (let ((count 0))
    (declare (type index count))
    (loop while (plusp (pending-output connection))
          do (multiple-value-setq (count limit)
               (trying (connection :output :write limit :moved (or taken moved) :closing closing)
                 (send-pending connection)))
             (incf moved count))
    (when (plusp (length (connection-out connection)))
      (drop-output connection))
    (values moved limit)))

(defun flush-quickly (connection)
  "Send what is pending: T if the kernel took all of it at once, else how many octets it took. To be
called within WITH-OUTPUT-NOW."
  (declare (type connection connection))
  (let* ((pending (pending-output connection))
         (count (if (zerop pending) 0 (send-all connection))))
    (declare (type index pending) (type (signed-byte 64) count))
    (cond ((= count pending)
           (forget-output connection)
           t)
          (t (max 0 count)))))

(defun flush-output (connection)
  (declare (type connection connection))
  (let ((sent (with-output-now (connection)
                (flush-quickly connection))))
    (unless (eq sent t)
      (with-output (connection)
        (check-writable connection)
        (flush connection :moved (or sent 0)))))
  nil)

(defun clear-pending-output (connection)
  "Forget what has not been sent."
  (with-output (connection)
    (check-open connection :write)
    (call-deferred
      (if (<= (connection-counted connection) (connection-out-start connection))
          (note-passed connection (connection-out connection)
                       (connection-counted connection) (connection-out-start connection)
                       (connection-column connection))
          (setf (connection-column connection) +no-column+)) ; that of something not sent
      (forget-output connection))))

;;; Room

(declaim (inline output-room))
(defun output-room (connection)
  (- (length (connection-out connection)) (connection-out-end connection)))

(defun make-output-room (connection limit &optional (count 1) (taken 0))
  "See to it that there is room for COUNT octets: take a buffer, send what is in it. LIMIT or a
later one. TAKEN: octets of the call so far, for a condition."
  (declare (type index count))
  (when (< 0 (length (connection-out connection)) (+ (connection-out-end connection) count))
    (setf limit (nth-value 1 (flush connection :limit limit :taken taken))))
  (when (zerop (length (connection-out connection)))
    (call-deferred (setf (connection-out connection) (take-buffer))))
  limit)

;;; Octets

(declaim (inline append-octet))
(defun append-octet (connection octet)
  (let ((end (connection-out-end connection)))
    (setf (aref (connection-out connection) end) octet
          (connection-out-end connection) (1+ end))))

(declaim (inline room-now-p))
(defun room-now-p (connection count)
  "True if COUNT octets find room without anything being sent: in the buffer, or in one that is
taken for them."
  (declare (type index count))
  (when (and (zerop (length (connection-out connection))) (<= 1 count +buffer-size+))
    (setf (connection-out connection) (take-buffer)))
  (<= count (the index (output-room connection))))

(declaim (inline write-octet))          ; into the few that write one element
(defun write-octet (connection octet)
  (declare (type connection connection) (type (unsigned-byte 8) octet))
  (or (with-output-there (connection)
        (when (plusp (output-room connection))
          (append-octet connection octet)
          t))
      (with-output-now (connection)
        (when (room-now-p connection 1)
          (append-octet connection octet)
          t))
      (write-octet-slowly connection octet))
  octet)

(defun write-octet-slowly (connection octet)
  (with-output (connection)
    (check-writable connection)
    (let ((limit (begin-call connection :output)))
      (loop
        (setf limit (make-output-room connection limit))
        (when (call-nowait
                (when (plusp (output-room connection))
                  (append-octet connection octet)
                  t))
          (return))))))

(defun append-octets (connection octets start end)
  "Copy OCTETS from START to END, for which there is room, into the buffer."
  (declare (type octets octets) (type index start end))
  (let ((at (connection-out-end connection)))
    (replace (connection-out connection) octets :start1 at :start2 start :end2 end)
    (setf (connection-out-end connection) (+ at (- end start)))))

(defun append-if-room (connection octets start end)
  "APPEND-OCTETS, if there is room still: an interrupt may have written, or taken the buffer away.
True if there was."
  (declare (type octets octets) (type index start end))
  (call-nowait
    (when (<= (- end start) (output-room connection))
      (append-octets connection octets start end)
      t)))

(defun send-with-pending (connection octets start end)
  "Send what is pending and then OCTETS from START to END, without blocking. How many of OCTETS
went, or a status. To be called with interrupts deferred until the count is noted."
  (declare (type octets octets) (type index start end))
  (let* ((handle (connection-handle connection))
         (before (pending-output connection))
         (count (with-octets (direct octets start)
                  (if (zerop before)
                      (lport-socket-send handle direct (- end start))
                      (with-octets (pending (connection-out connection)
                                            (connection-out-start connection))
                        (lport-socket-send2 handle pending before direct (- end start)))))))
    (if (minusp count)
        count
        (note-sent connection count))))

(defun write-octets-from (connection octets start end)
  "Write OCTETS from START to END. Large pieces go to the kernel past the buffer, behind what is
pending.
On a failure NETWORK-OCTETS tells how many of OCTETS were taken, by the buffer or the kernel."
  (declare (type connection connection) (type octets octets) (type index start end))
  (or (with-output-now (connection)
        (when (and (< (- end start) +direct-size+) (room-now-p connection (- end start)))
          (append-octets connection octets start end)
          t))
      (write-octets-slowly connection octets start end)))

(defun write-octets-slowly (connection octets start end)
  (declare (type octets octets) (type index start end))
  (with-output (connection)
    (check-writable connection)
    (let ((position start) (noted start) (count 0) (limit (begin-call connection :output)))
      (declare (type index position noted count) (type moment limit))
      (flet ((note-direct ()            ; once, and before anything comes behind
               (when (< noted position)
                 (note-passed connection octets noted position (connection-column connection))
                 (setf noted position))))
        (with-cleanup
            (loop
              (let ((left (- end position)))
                (cond ((zerop left) (return))
                      ((and (< left +direct-size+)
                            (or (<= left (output-room connection))
                                (zerop (pending-output connection)))
                            ;; A buffer does not begin within a character, as the column is
                            ;; counted from there.
                            (or (= position start)
                                (not (foreign-p (connection-format connection)))))
                       (note-direct)
                       (setf limit (make-output-room connection limit 1 (- position start)))
                       (when (append-if-room connection octets position end)
                         (return)))
                      (t
                       (multiple-value-setq (count limit)
                         (trying (connection :output :write limit :moved (- position start))
                           (call-deferred
                             (let ((count (send-with-pending connection octets position end)))
                               (when (plusp count)
                                 (incf position (the index count)))
                               count))))))))
          (note-direct))))))

;;; Characters

(%defglobal *line-end* (coerce #(13 10) 'octets))

(defun encode-run (connection string start end)
  "Encode the characters START to END of STRING behind what is pending, as many as go; how many."
  (declare (type characters string) (type index start end))
  (call-deferred
    (multiple-value-bind (consumed produced)
        (encode (connection-format connection) string start end
                (connection-out connection) (connection-out-end connection)
                (length (connection-out connection)))
      (incf (connection-out-end connection) produced)
      (incf (connection-taken connection) produced)
      consumed)))

(defun make-text-room (connection limit)
  "Room for any character. LIMIT or a later one."
  (make-output-room connection limit +longest-character+ (connection-taken connection)))

;;; A flush can fail and a character can have no octets: both ask handlers, which may do anything to
;;; the socket meanwhile. Behind every such call the state is looked at anew.

(defun append-text-octets (connection octets limit)
  "Put OCTETS behind what is pending as part of the text. LIMIT or a later one."
  (declare (type octets octets))
  (check-writable connection (connection-taken connection))
  (loop
    (setf limit (make-output-room connection limit (length octets) (connection-taken connection)))
    (when (append-if-room connection octets 0 (length octets))
      (return)))
  (incf (connection-taken connection) (length octets))
  limit)

(defun written-octets (format character)
  "As ENCODE-CHARACTER, but a newline is a line's end as FORMAT has it."
  (if (and (char= character #\Newline) (eq (text-format-eol format) :crlf))
      (values *line-end* t)
      (encode-character format character)))

(defun octets-for (character connection)
  "The octets that stand for CHARACTER, which has none in the format of CONNECTION: those of the
format's replacement, or of what the restart REPLACE-CHARACTER of the ENCODING-ERROR says. What has
no octets either is asked about in its turn."
  (let ((replacement (or (text-format-replacement (connection-format connection))
                         (ask-for-encodable (connection-format connection) character
                                            connection))))
    (loop
      ;; In the format that holds now: a handler may have set another.
      (let ((format (connection-format connection)))
        (multiple-value-bind (octets encoded-p) (written-octets format replacement)
          (when encoded-p
            (return octets)))
        (setf replacement (ask-for-encodable format replacement connection))))))

(defun write-run (connection string start end limit)
  "Write the characters START to END of STRING as they are, or as far as a handler leaves the format
as it is. Values: LIMIT or a later one; the index of the first that was not written."
  (declare (type characters string) (type index start end) (type moment limit))
  (let ((position start) (format (connection-format connection)))
    (declare (type index position))
    (loop
      (setf limit (make-text-room connection limit))
      (unless (eq format (connection-format connection))
        (return (values limit position)))
      (incf position (the index (encode-run connection string position end)))
      (when (= position end)
        (return (values limit position)))
      ;; It stopped although there is room for any character: this one has no octets.
      (when (>= (output-room connection) +longest-character+)
        (setf limit (append-text-octets connection
                                        (octets-for (schar string position) connection)
                                        limit))
        (incf position)))))

(defun write-text (connection string start end limit)
  "Write the characters START to END of STRING, each newline as the format has it."
  (declare (type characters string) (type index start end) (type moment limit))
  (loop
    (let* ((format (connection-format connection))
           (newline (and (eq (text-format-eol format) :crlf)
                         (position #\Newline string :start start :end end))))
      (multiple-value-setq (limit start)
        (write-run connection string start (or newline end) limit))
      (cond ((= start end) (return))
            ((and (eql start newline) (eq format (connection-format connection)))
             (setf limit (append-text-octets connection *line-end* limit))
             (incf start))))))

(defun write-characters-from (connection string start end)
  "Write the characters START to END of STRING in the format of CONNECTION. On a failure
NETWORK-OCTETS tells how many octets of them were taken, by the buffer or the kernel."
  (declare (type connection connection) (type characters string) (type index start end))
  (or (let ((room (* 4 (- end start))))
        (or (with-output-there (connection)
              (when (<= room (output-room connection))
                (append-run connection string start end)))
            (with-output-now (connection)
              (when (and (< room +buffer-size+) (room-now-p connection room))
                (append-run connection string start end)))))
      (with-output (connection)
        (check-writable connection)
        ;; A handler that writes is a call within this one.
        (let ((outer (shiftf (connection-taken connection) 0)))
          (with-cleanup
              (write-text connection string start end (begin-call connection :output))
            (setf (connection-taken connection) outer)
            (when (zerop (pending-output connection))
              (forget-output connection)))))))

(defconstant +short-run+ 32 "Characters up to which a loop is cheaper than a call of the codec.")

(defmacro append-plain (string type)
  "The loop of APPEND-PLAIN-CHARACTERS for STRING, of TYPE."
  `(loop for index of-type index from start below end
         for place of-type index from (connection-out-end connection)
         for code = (char-code (schar (the ,type ,string) index))
         always (and (< code 128) (or (/= code 10) newline-p))
         do (setf (aref out place) code)))

(defun append-plain-characters (connection string start end)
  "Copy the characters START to END of STRING, for which there is room, into the buffer, if each is
written as its own code: true if so; else nothing is written."
  (declare (type connection connection) (type index start end))
  (let* ((out (connection-out connection))
         (format (connection-format connection))
         (newline-p (eq (text-format-eol format) :lf)))
    (when (and (text-format-ascii-p format)
               (etypecase string
                 (characters (append-plain string characters))
                 (base-characters (append-plain string base-characters))))
      (incf (connection-out-end connection) (- end start))
      t)))

(defun append-run (connection string start end)
  "Encode the characters START to END of STRING, for which there is room whatever they are, into the
buffer if all of them have octets: true if so; else nothing is written. Allocates nothing."
  (declare (type connection connection) (type characters string) (type index start end)
           (inline encode))
  (let ((format (connection-format connection)) (length (- end start)))
    (or (and (<= length +short-run+)
             (append-plain-characters connection string start end))
        (and (not (foreign-p format))
             (or (eq (text-format-eol format) :lf)
                 (not (find #\Newline string :start start :end end)))
             (let ((at (connection-out-end connection)))
               (multiple-value-bind (consumed produced)
                   (encode format string start end
                           (connection-out connection) at (length (connection-out connection)))
                 (when (= consumed length)
                   (setf (connection-out-end connection) (+ at produced))
                   t)))))))

(defun write-base-characters-from (connection string start end)
  "As WRITE-CHARACTERS-FROM, of a simple base string, whose characters are ASCII."
  (declare (type connection connection) (type base-characters string) (type index start end))
  (or (with-output-there (connection)
        (when (<= (- end start) (output-room connection))
          (append-plain-characters connection string start end)))
      (with-output-now (connection)
        (and (< (- end start) +direct-size+)
             (room-now-p connection (- end start))
             (append-plain-characters connection string start end)))
      (let ((copy (make-string (- end start))))
        (replace copy string :start2 start :end2 end)
        (write-characters-from connection copy 0 (length copy)))))

(declaim (inline single-octet-p))
(defun single-octet-p (code format)
  "True if CODE, below 128, is written as itself."
  (and (text-format-ascii-p format)
       (or (/= code 10) (eq (text-format-eol format) :lf))))

(declaim (inline write-character))      ; into the two methods that call it
(defun write-character (connection character)
  "Write CHARACTER; plain ASCII straight into the buffer."
  (declare (type connection connection) (type character character))
  (let ((code (char-code character)))
    (if (and (< code 128) (single-octet-p code (connection-format connection)))
        (write-octet connection code)
        (write-characters-from connection (make-string 1 :initial-element character) 0 1)))
  character)

(defun character-octets (connection character)
  "The octets that stand for CHARACTER in the format of CONNECTION."
  (multiple-value-bind (octets encoded-p)
      (written-octets (connection-format connection) character)
    (if encoded-p
        octets
        (octets-for character connection))))
