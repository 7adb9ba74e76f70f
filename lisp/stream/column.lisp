;;;; column - where on its line the next character will stand, for FRESH-LINE and ~T.
;;;;
;;;; Nobody counts while writing: who asks counts back from the end of the buffer of output.lisp.
;;;; Invariant: a buffer that has been sent leaves its column behind, as does what goes past it, and
;;;; a format that ends.

(in-package :port)

(defconstant +longest-count+ 1024 "Octets that are looked at for a column at the most.")

(defconstant +no-column+ (ash +largest-index+ -1) ; an INDEX, and far below the last one
  "From here on a column is unknown: so is what was sent last, and no line feed came since.")

(defconstant +few+ 8 "Octets up to which a loop is faster than the library.")

(declaim (inline count-few-characters))
(defun count-few-characters (utf-8-p octets start end column)
  "The column behind OCTETS from START to END, which begin at COLUMN, in a format of the library, in
UTF-8 or in one with an octet for each character."
  (declare (type octets octets) (type index start end column))
  (loop for index of-type fixnum from start below end
        for octet = (aref octets index)
        do (cond ((= octet 10) (setf column 0))
                 ((not (and utf-8-p (= #x80 (logand octet #xC0)))) (incf column))))
  column)

(declaim (inline column-behind current-column))
(defun column-behind (format octets start end column)
  "The column behind OCTETS from START to END in FORMAT, which begin at COLUMN: characters since the
last line feed."
  (declare (type text-format format) (type octets octets) (type index start end column))
  (cond ((foreign-p format)
         (foreign-column (text-format-charset format) octets start end column))
        ((and (< start end) (= 10 (aref octets (1- end)))) ; as most of what is sent ends
         0)
        ((> (- end start) +few+)
         (count-characters (eq (text-format-codec format) :utf-8) octets start end column))
        (t (count-few-characters (eq (text-format-codec format) :utf-8)
                                 octets start end column))))

(defun count-characters (utf-8-p octets start end column)
  "As COUNT-FEW-CHARACTERS, of more."
  (declare (type octets octets) (type index start end column))
  (let* ((from (max start (- end +longest-count+)))
         (line (+ from (the index (with-octets (pointer octets from end :in)
                                    (lport-text-last-line pointer (- end from)))))))
    (declare (type index line))
    (+ (if utf-8-p
           (the index (with-octets (pointer octets line end :in)
                        (lport-text-utf8-count pointer (- end line))))
           (- end line))
       (if (= line start) column 0))))

(defun behind-newline (charset octets start end)
  "The index behind the last newline in OCTETS from START to END, where a unit of CHARSET ends; NIL
if there is none. No other character of any charset has its octets at such a place."
  (declare (type octets octets) (type index start end))
  (loop with unit of-type (integer 1 4) = (charset-unit charset)
        with newline of-type octets = (charset-newline charset)
        for stop of-type index from end downto (+ start unit) by unit
        when (loop for octet across newline
                   for index of-type index from (- stop unit)
                   always (= octet (aref octets index)))
          return stop))

(defun foreign-column (charset octets start end column)
  "As COLUMN-BEHIND, of very many octets from some way before END. Text ends at END, but need not
begin at START, in front of it may be octets that are no units of CHARSET."
  (declare (type octets octets) (type index start end column))
  (let* ((from (max start (- end +buffer-size+)))
         (line (behind-newline charset octets from end))
         (rest (mod (- end (or line from)) (charset-unit charset)))
         (count (loop with position of-type index = (+ (or line from) rest)
                      while (< position end)
                      do (incf position (lead-width charset octets position))
                      count t)))
    (declare (type index count))
    (+ count
       (if (zerop rest) 0 1)
       (if (or line (> from start)) 0 column))))

(defun current-column (connection)
  "The column at which the next character will stand."
  (declare (type connection connection))
  (let* ((out (connection-out connection))
         ;; Whoever asks need not be the writer, and the buffer may be another one by now.
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

(defun note-passed (connection octets start end column)
  "Note that OCTETS from START to END, which began at COLUMN, have gone past the buffer, in which
nothing is left."
  (declare (type connection connection) (type octets octets) (type index start end column))
  (setf (connection-column connection)
        (column-behind (connection-format connection) octets start end column)))
