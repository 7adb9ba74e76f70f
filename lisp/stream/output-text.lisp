;;;; output-text - characters and strings, encoded into the buffer of output.lisp.
;;;;
;;;; Invariant: as there. A newline is written as the format has it, and TAKEN of the connection is
;;;; how many octets of the text that a call writes have been taken so far.

(in-package :port)

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
;;; the socket meanwhile. After every such call the state is looked at anew.

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

(defun written-octets (connection character)
  "The octets of CHARACTER, a newline as a line's end, in the format that CONNECTION has now; NIL if
it has none."
  (let ((format (connection-format connection)))
    (if (and (char= character #\Newline) (eq (text-format-eol format) :crlf))
        (text-format-line-end format)
        (encode-character format character))))

(defun octets-for (character connection taken)
  "The octets that stand for CHARACTER, which has none in the format of CONNECTION: those of the
format's replacement, if that has some, or else of what the restart REPLACE-CHARACTER of the
ENCODING-ERROR says, which tells how many octets of the call were TAKEN."
  (let ((replacement (text-format-replacement (connection-format connection))))
    (or (and replacement (written-octets connection replacement))
        (let ((asked (ask-for-encodable character connection taken)))
          ;; In the format that holds now: a handler may have set another.
          (or (written-octets connection asked)
              (fail-as 'usage-error :write :invalid
                       :socket (channel-socket connection) :octets taken
                       :message "expected a character for REPLACE-CHARACTER that has octets in ~
                                 ~S, got ~S"
                       :arguments (list (text-format-name (connection-format connection))
                                        asked)))))))

(defun ask-for-encodable (character connection taken)
  "The character to write for CHARACTER, which has no octets in the format of CONNECTION, as the
restart REPLACE-CHARACTER says."
  (signalling (failure 'encoding-error :write :no-octets
                       :socket (channel-socket connection)
                       :character character :octets taken
                       :message "~A has no octets for ~S"
                       :arguments (list (text-format-name (connection-format connection))
                                        character))
    (replace-character (&optional (replacement #\?))
      :report "Write another character in its place."
      :interactive (lambda ()
                     (read-a-character (lambda (new) (written-octets connection new))))
      (check-replacement :write replacement))))

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
                                        (octets-for (schar string position) connection
                                                    (connection-taken connection))
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
             (setf limit (append-text-octets connection (text-format-line-end format) limit))
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
        (let ((string (make-string 1 :initial-element character)))
          (declare (dynamic-extent string))
          (write-characters-from connection string 0 1))))
  character)

(defun character-octets (connection character)
  "The octets that stand for CHARACTER in the format of CONNECTION, before anything is written."
  (or (written-octets connection character)
      (octets-for character connection 0)))
