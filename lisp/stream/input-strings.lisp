;;;; input-strings - strings of a given length, decoded from the buffer of input.lisp.
;;;;
;;;; Invariant: what a call that ends early has decoded is spelled again in the octets that it came
;;;; in; those that its characters do not tell are kept as long as the call lasts.

(in-package :port)

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
    (let ((position start) (done nil) (odd '()) (character nil)
          (limit (begin-call connection :input)))
      (declare (type index position))
      (flet ((note (connection character width)
               (setf (schar string position) character)
               (let ((octets (odd-octets connection string position width)))
                 (when octets
                   (push (list* position (1+ position) octets) odd)))
               (incf position)
               (pass-character connection character width)))
        (declare (dynamic-extent #'note))
        (with-cleanup
             (loop
               (when (plusp (buffered-input connection))
                 (call-deferred
                   (multiple-value-bind (count octets)
                       (take-characters connection string position end)
                     (declare (type index count))
                     (when octets
                       (push (list* position (+ position count) octets) odd))
                     (incf position count))))
               (when (= position end)
                 (setf done t)
                 (return (values position odd)))
               ;; What stopped the run: nothing buffered, a character cut off, an error, a line's
               ;; end.
               (multiple-value-setq (character limit)
                 (next-character-by connection limit #'note))
               (when (eq character :eof)
                 (setf done t)
                 (return (values position odd))))
          (if done
              (settle-input connection)
              (put-back-text connection string start position odd)))))))

;;; The way back

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

(defun odd-octets (connection string position width)
  "The first WIDTH unread octets, which the character at POSITION of STRING was just read from, if
SPELL gives others; else NIL."
  (let ((first (connection-in-start connection)) (code (char-code (schar string position))))
    (unless (and (= width 1) (/= code 10) (< code 128)
                 (= code (aref (connection-in connection) first)))
      (let ((octets (unread-octets connection width)))
        (unless (equalp octets (spell connection string position (1+ position)))
          octets)))))

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
      (let ((newline-p (and crlf-p (char= (schar string position) #\Newline)))
            (width (return-width format)))
        (when newline-p
          (replace octets (text-format-line-end format) :start1 length :end2 width)
          (incf length width))
        (multiple-value-bind (consumed produced)
            (encode format string position (if crlf-p (1+ position) end)
                    octets length (length octets))
          (when (zerop consumed)
            (setf (aref octets length) (char-code #\?)
                  consumed 1
                  produced 1))
          (incf position consumed)
          (incf length produced))))))
