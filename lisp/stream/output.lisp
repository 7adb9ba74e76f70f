;;;; output - the writing half of a connection: its buffer, octets into it, and its flush.
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
       (when (connection-posted ,connection)
         (allocating (,connection :output) (append-posted ,connection)))
       (unless (or (channel-closing ,connection) (connection-output-shut ,connection))
         ,@body))))

(defmacro with-output-there ((connection) &body body)
  "As WITH-OUTPUT-NOW for the resident writer of CONNECTION, of BODY as WITH-RESIDENCE wants it."
  `(with-residence (,connection :output (in-time-p ,connection :output))
     (unless (or (channel-closing ,connection) (connection-output-shut ,connection))
       ,@body)))

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
                                     (connection-out-start connection)
                                     (connection-out-end connection) :in)
                 (%lport-socket-send (connection-handle connection) pointer
                                     (pending-output connection)))))
    (declare (type (signed-byte 64) count))
    (when (plusp count)
      (note-sent connection count))
    count))

(defun send-pending (connection)
  "Send what is pending without blocking: the count, or a status."
  (call-deferred (send-all connection)))

(defun release-idle-output (connection)
  "Give back the buffer if nothing is in it: true if so. To look and to give is one step, as an
interrupt may write."
  (call-nowait
    (when (zerop (pending-output connection))
      (forget-output connection)
      t)))

(defun flush (connection &key (limit (call-limit connection :output)) closing taken (moved 0))
  "Send all that is pending; return how many octets, and LIMIT or a later one. TAKEN: what a
condition says of the call that needs the room; NIL: what the flush has sent, with MOVED octets
before."
  (declare (type moment limit) (type index moved))
  (let ((count 0))
    (declare (type index count))
    (loop until (and (release-idle-output connection) (not (holds-output-p connection)))
          do (multiple-value-setq (count limit)
               (trying (connection :output :write limit :moved (or taken moved) :closing closing)
                 (send-pending connection)))
             (incf moved count))
    (values moved limit)))

(declaim (inline flush-quickly))        ; into the few that flush
(defun flush-quickly (connection)
  "Send what is pending: T if the kernel took all of it at once, else how many octets it took. To be
called within WITH-OUTPUT-NOW."
  (declare (type connection connection))
  (let* ((pending (pending-output connection))
         (count (if (zerop pending) 0 (send-all connection))))
    (declare (type index pending) (type (signed-byte 64) count))
    (cond ((and (= count pending) (not (holds-output-p connection)))
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
  (call-deferred
    (when (zerop (length (connection-out connection))) ; an interrupt may have got one
      (setf (connection-out connection) (take-buffer))))
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
    (setf (connection-out connection) (buffer-now (connection :output))))
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
    (copy-octets (connection-out connection) at octets start end)
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
         (end (%piece-end start end))
         (count (with-octets (direct octets start end :in)
                  (if (zerop before)
                      (%lport-socket-send handle direct (- end start))
                      (with-octets (pending (connection-out connection)
                                            (connection-out-start connection)
                                            (connection-out-end connection) :in)
                        (%lport-socket-send2 handle pending before direct (- end start)))))))
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
