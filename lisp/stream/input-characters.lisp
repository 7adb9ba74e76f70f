;;;; input-characters - characters one by one, decoded from the buffer of input.lisp.
;;;;
;;;; Invariant: as there. What is decoded is taken from the buffer only when it can be returned, or
;;;; goes back, in the octets that it came in, if the call ends early. That holds for lines and
;;;; strings too, input-lines.lisp and input-strings.lisp.

(in-package :port)

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

(defun next-character (connection keep)
  "The next character, or :EOF. The caller owns the direction. KEEP as of TAKE-CHARACTER."
  (values (next-character-by connection (begin-call connection :input) keep)))

(defun next-character-by (connection limit keep)
  "The next character, or :EOF, waiting until LIMIT for as many octets as are needed. Values: the
character or :EOF; LIMIT or a later one. KEEP as of TAKE-CHARACTER."
  (setf (connection-last-width connection) 0)
  (multiple-value-bind (character limit) (filling (connection limit) (last-p)
                                           (take-character connection last-p keep))
    (values (or character :eof) limit)))

;;; Invalid octets are still unread while a handler is asked what to read for them, in every call.
;;; If the handler reads from the stream, what it has read is gone; the character that it names is
;;; what the call gets, and the call goes on where the stream stands then.
;;;
;;; An interrupt may read too, so finding a character and taking it are one step, with interrupts
;;; deferred.

(defun take-character (connection last-p keep)
  "The character that the unread octets begin with; NIL where more octets are needed. LAST-P as for
CHARACTER-AT-START. What becomes of it is for KEEP: a function of CONNECTION, the character and how
many octets it has, 0 where a handler has read them, which is called with interrupts deferred."
  (declare (type function keep))
  (multiple-value-bind (character wrong position)
      (call-deferred
        (multiple-value-bind (character width) (character-at-start connection last-p)
          (if character
              (funcall keep connection character width)
              (setf width (and width (unread-octets connection width))))
          (values character width (octets-read connection))))
    (cond (character)
          (wrong (character-for-octets connection wrong position keep)))))

(defun pass-character (connection character width)
  "CHARACTER, of WIDTH octets, has been read: see TAKE-CHARACTER."
  (declare (ignore character))
  (incf (connection-in-start connection) width)
  (setf (connection-last-width connection) width))

(defun leave-character (connection character width)
  "CHARACTER stays where it is, and what was read before it cannot be taken back any more: see
TAKE-CHARACTER."
  (declare (ignore character width))
  (setf (connection-kept-width connection) 0))

(defun character-for-octets (connection octets position keep)
  "The character for OCTETS, which are invalid and unread at POSITION. KEEP as of TAKE-CHARACTER."
  (declare (type function keep))
  ;; What the handler has read last cannot be taken back as if this call had read it.
  (let ((character (with-cleanup
                       (character-for (connection-format connection) octets connection position)
                     (setf (connection-last-width connection) 0))))
    (call-deferred
      (funcall keep connection character
               (if (= position (octets-read connection)) (length octets) 0)))
    character))

(defun character-at-start (connection last-p)
  "Values: the character that the unread octets begin with, and its width; NIL and how many octets
are invalid; NIL alone where more octets are needed. LAST-P: there are no more; then a character
that is cut off is invalid, and NIL alone means that nothing is left. To be called with interrupts
deferred."
  (let* ((in (connection-in connection))
         (start (connection-in-start connection))
         (end (connection-in-end connection))
         (format (connection-format connection))
         (scratch (connection-scratch connection)))
    (cond ((= start end) nil)
          ((carriage-return-p connection) (character-of-return connection last-p))
          (t
           (multiple-value-bind (consumed produced) (decode format in start end scratch 0 1)
             (cond ((= produced 1) (values (schar scratch 0) consumed))
                   (last-p (wrong-or-cut-off format in start end))
                   (t (values nil (problem format in start end)))))))))

(defun line-end-there (connection)
  "How many octets of a line's end of two characters the unread octets begin with."
  (let ((in (connection-in connection))
        (line-end (text-format-line-end (connection-format connection))))
    (declare (type octets in line-end))
    (loop for octet across line-end
          for index of-type index from (connection-in-start connection)
            below (connection-in-end connection)
          while (= octet (aref in index))
          count t)))

(defun carriage-return-p (connection)
  "True if the unread octets begin with a carriage return that may be the first half of a line's
end."
  (let ((format (connection-format connection)))
    (and (eq (text-format-eol format) :crlf)
         (>= (line-end-there connection) (return-width format)))))

(defun character-of-return (connection last-p)
  "As CHARACTER-AT-START, where CARRIAGE-RETURN-P."
  (let ((there (line-end-there connection)) (format (connection-format connection)))
    (cond ((= there (length (text-format-line-end format))) (values #\Newline there))
          ((or last-p (< there (buffered-input connection)))
           (values #\Return (return-width format))))))

(declaim (inline read-character))
(defun read-character (connection)
  "The next character, or :EOF."
  (declare (type connection connection))
  (or (element-now (connection) (plain-character connection))
      (read-character-slowly connection)))

(defun read-character-slowly (connection)
  (with-input (connection)
    (element-taken connection (next-character connection #'pass-character))))

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
        ;; In one step, as an interrupt may read.
        (unless (call-deferred
                  (let ((kept (kept-octets connection)))
                    (cond ((plusp (connection-last-width connection))
                           (take-back connection)
                           t)
                          (kept
                           (put-back connection kept 0 (length kept))
                           t))))
          (fail-as 'usage-error :read :invalid
                   :socket (channel-socket connection)
                   :message "UNREAD-CHAR: the last operation on the socket was not READ-CHAR"))))
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
        (next-character connection #'leave-character))))

(defun read-character-now (connection)
  "The next character if it is there, NIL if it is not or another thread is just reading, :EOF at
end of file. Never blocks."
  (declare (type connection connection))
  (or (with-input-now (connection)
        (let ((character (plain-character connection)))
          (when character
            (release-emptied-input connection))
          character))
      (read-character-now-slowly connection)))

(defun read-character-now-slowly (connection)
  (with-free-direction (connection :input)
    (begin-call connection :input)
    (loop with last-p = nil
          do (let ((character (take-character connection last-p #'pass-character)))
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
          ((carriage-return-p connection) (and (character-of-return connection nil) t))
          (t (multiple-value-bind (consumed produced)
                 (decode format in start end (connection-scratch connection) 0 1)
               (declare (ignore consumed))
               (or (= produced 1)
                   (and (problem format in start end) t)))))))
