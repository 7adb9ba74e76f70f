;;;; output-posted - what others than the writer put behind what a connection has written, without
;;;; ever waiting; see POST in service/service-posting.lisp.
;;;;
;;;; It goes into the buffer of output.lisp, which grows beyond its usual size for it. While another
;;;; thread has the direction, and may be blocked, it waits in POSTED of the connection. Invariant:
;;;; whoever takes the direction to write puts what is in POSTED into the buffer first; so what was
;;;; posted goes out before what is written later, and never within what one call writes.

(in-package :port)

;;; A buffer that grows
;;;
;;; How much is kept is up to the program, and SBCL takes heap exhaustion with interrupts deferred
;;; for a corruption of its own, which may end the process. So who posts makes the vector, SPARE,
;;; where interrupts are let in; it is too small only if others have posted at that moment.

(defun same-buffer-p (connection need)
  "True if the buffer for NEED octets, with what is pending, is the one that there is: where it pays
to move them to its start."
  (declare (type index need))
  (and (<= need (length (connection-out connection)))
       (<= (pending-output connection) (connection-out-start connection))))

(defun next-buffer (connection need)
  "The buffer for NEED octets, with what is pending."
  (declare (type index need))
  (cond ((same-buffer-p connection need) (connection-out connection))
        ((<= need +buffer-size+) (take-buffer))
        (t (let ((spare (shiftf (connection-spare connection) (%global *no-octets*))))
             (if (<= need (length spare))
                 spare
                 (octets-of-size (* 2 need)))))))

(defun grows-within-p (connection count)
  "True if GROW-OUTPUT-ROOM for COUNT octets has to make no vector."
  (declare (type index count))
  (or (<= count (output-room connection))
      (let ((need (+ (pending-output connection) count)))
        (or (same-buffer-p connection need)
            (<= need +buffer-size+)
            (<= need (length (connection-spare connection)))))))

(defun move-pending (connection buffer)
  "Move what is pending to the start of BUFFER, the one from now on."
  (declare (type octets buffer))
  (let* ((out (connection-out connection))
         (start (connection-out-start connection))
         (end (connection-out-end connection))
         (counted (connection-counted connection)))
    (when (< counted start)
      (note-passed connection out counted start (connection-column connection)))
    (copy-octets buffer 0 out start end)
    (setf (connection-counted connection) (max 0 (- counted start))
          (connection-out connection) buffer
          (connection-out-start connection) 0
          (connection-out-end connection) (- end start))
    (unless (eq buffer out)
      (give-buffer out))))

(defun grow-output-room (connection count)
  "See to it that there is room for COUNT octets, without sending any. To be called by the owner of
the direction, with interrupts deferred."
  (declare (type index count))
  (unless (<= count (output-room connection))
    (move-pending connection (next-buffer connection (+ (pending-output connection) count)))))

;;; POSTED is a list, the last first, of (total . octets): of how many there are from there on.

(declaim (inline posted-total))
(defun posted-total (posted)
  "How many octets are in POSTED, as of a connection."
  (the index (if posted (car (first posted)) 0)))

(defun make-spare (connection count)
  "See to it that there will be room for COUNT octets behind what is posted. To be called by who
posts them, with interrupts let in: the connection may be another thread's."
  (declare (type index count))
  (let ((need (+ (max 0 (pending-output connection))
                 (posted-total (connection-posted connection))
                 count)))
    (unless (or (<= need +buffer-size+)
                (<= need (length (connection-spare connection))))
      (setf (connection-spare connection) (octets-of-size (* 2 need))))))

(defun leave-posted (connection octets)
  "Leave OCTETS, which nobody changes any more, to whoever has the direction or takes it next."
  (declare (type octets octets))
  (change-atomically (posted (connection-posted connection))
    (acons (+ (posted-total posted) (length octets)) octets posted)))

(declaim (inline shaking-hands-p))
(defun shaking-hands-p (connection)
  "True if CONNECTION will have TLS once a handshake is done: nothing that was posted may go out
before, as it would not be secret."
  (not (member (connection-secure connection) '(nil t))))

(defun append-posted (connection)
  "Put what others have left into the buffer, unless it has to wait for a handshake. To be called by
the owner of the direction, with interrupts deferred."
  (loop for posted = (connection-posted connection)
        while (and posted (not (shaking-hands-p connection)))
        do (grow-output-room connection (posted-total posted))
           (when (eq posted (%compare-and-swap (connection-posted connection) posted nil))
             (loop for (nil . octets) in (reverse posted)
                   do (append-octets connection octets 0 (length (the octets octets)))))))

;;; Text

(defun longer-octets (octets end count)
  "OCTETS, or a longer vector with the same up to END, in which there is room for COUNT more."
  (declare (type octets octets) (type index end count))
  (if (<= count (- (length octets) end))
      octets
      (replace (octets-of-size (* 2 (+ end count))) octets :end2 end)))

(defun posted-text (connection string)
  "Values: a vector that begins with the octets of STRING in the format of CONNECTION; how many they
are. Signals what a write does where a character has none."
  (declare (type characters string))
  (let* ((format (connection-format connection))
         (crlf (eq (text-format-eol format) :crlf))
         (octets (octets-of-size (+ (length string) +longest-character+)))
         (end 0) (position 0))
    (declare (type octets octets) (type index end position))
    (loop
      (let ((stop (or (and crlf (position #\Newline string :start position)) (length string))))
        (declare (type index stop))
        (setf octets (longer-octets octets end +longest-character+))
        (multiple-value-bind (consumed produced)
            (encode format string position stop octets end (length octets))
          (incf position (the index consumed))
          (incf end (the index produced)))
        (cond ((= position (length string)) (return (values octets end)))
              ;; It stopped at the end of a line, or before what has no octets; not for room.
              ((or (= position stop) (>= (- (length octets) end) +longest-character+))
               (let ((written (character-octets connection (schar string position))))
                 (declare (type octets written))
                 (setf octets (longer-octets octets end (length written)))
                 (replace octets written :start1 end)
                 (incf end (length written))
                 (incf position))))))))

;;; Sending

(defconstant +quick-sends+ 16 "System calls that one look makes at the most.")

(defun failed-p (status)
  "True if STATUS of a send says that there is no use in another."
  (declare (type (signed-byte 64) status))
  (and (minusp status) (not (would-block-p status))))

(defun send-some (connection)
  "Send what goes at once of what is pending: T if all is sent, NIL if the system has no room,
:FAILED if it will never have. To be called within WITH-DIRECTION-NOW."
  (loop repeat +quick-sends+
        do (when (zerop (pending-output connection))
             (let ((held (if (connection-secure connection)
                             (lport-socket-send (connection-handle connection) (null-pointer) 0)
                             0)))
               (return (cond ((failed-p held) :failed)
                             ((minusp held) nil)
                             (t (forget-output connection) t)))))
           (let ((count (send-all connection)))
             (declare (type (signed-byte 64) count))
             (when (minusp count)
               (return (and (failed-p count) :failed))))))

(defun not-to-send-p (connection)
  "True if nothing can be sent, or not before a handshake is done."
  (or (channel-closing connection)
      (connection-output-shut connection)
      (shaking-hands-p connection)))

(defun send-kept (connection)
  "Send what goes at once of what is kept. :SENT, all of it; :LEFT, the system has no room; :ASIDE,
it cannot be sent, or not now; NIL, another thread has the direction, or this one, further out."
  (with-direction-now (connection :output)
    (allocating (connection :output)
      (progn
        (append-posted connection)
        (if (not-to-send-p connection)
            :aside
            (ecase (send-some connection)
              ((t) :sent)
              ((nil) :left)
              (:failed :aside)))))))

;;; Taking

(defun beyond-p (connection count limit)
  "True if COUNT octets more would be more than LIMIT that are kept."
  (> (+ (pending-output connection) (posted-total (connection-posted connection)) count) limit))

(defun keep-now (connection octets start end limit)
  "Put OCTETS from START to END behind what is pending: T; :REFUSED where that would be beyond LIMIT
or CONNECTION has no output any more; :SPARE where a larger buffer has to be made first; NIL where
another thread has the direction, or a handshake comes first."
  (declare (type octets octets) (type index start end))
  (with-direction-now (connection :output)
    (allocating (connection :output)
      (progn
        ;; Many write: there is no use in a resident.
        (setf (channel-shared connection) t)
        (if (grows-within-p connection (posted-total (connection-posted connection)))
            (keep-behind connection octets start end limit)
            :spare)))))

(defun keep-behind (connection octets start end limit)
  "KEEP-NOW by the owner of the direction, where there is room for what is posted."
  (declare (type octets octets) (type index start end))
  (let ((count (- end start)))
    (append-posted connection)
    (when (and (beyond-p connection count limit) (not (not-to-send-p connection)))
      (send-some connection))
    (cond ((or (channel-closing connection)
               (connection-output-shut connection)
               (beyond-p connection count limit))
           :refused)
          ((shaking-hands-p connection) nil)
          ((grows-within-p connection count)
           (grow-output-room connection count)
           (append-octets connection octets start end)
           t)
          (t :spare))))

(defun keep-aside (connection count copy limit)
  "As KEEP-NOW of COUNT octets, for whoever can put them there later: T or :REFUSED. COPY: they, in
a vector that nobody changes; NIL: it is to be made, :COPY."
  (declare (type (or null octets) copy))
  (cond ((or (channel-closing connection)
             (connection-output-shut connection)
             (beyond-p connection count limit))
         :refused)
        (copy
         (leave-posted connection copy)
         t)
        (t :copy)))

(defun left-to-owner-p (connection)
  "True if another thread has the direction of output and calls RELIEF of CONNECTION when it leaves
it; false if the direction is free."
  (setf (channel-contended connection) t)
  (fence-threads)                       ; it leaves and looks for the mark without a barrier
  (and (owner connection :output) t))
