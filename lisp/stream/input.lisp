;;;; input - the reading half of a connection: how its buffer is filled and emptied, octets.
;;;;
;;;; Invariant: what has arrived is either in the buffer or has been returned. A call that ends
;;;; early (a timeout, an error, an unwind) leaves or puts back all it had taken, and the same call,
;;;; made again, gets all of it.

(in-package :port)

;;; Filling the buffer

(defun find-input-room (connection)
  "Move what is unread to the front of the buffer, which is full, or double it, as it is full of one
long line."
  (unless (call-deferred
            (let* ((in (connection-in connection))
                   (keep (- (connection-in-start connection) (connection-last-width connection))))
              (when (plusp keep)
                (copy-octets in 0 in keep (connection-in-end connection))
                (decf (connection-in-start connection) keep)
                (decf (connection-in-end connection) keep)
                t)))
    ;; An interrupt may have emptied it by now.
    (enlarge-input connection (* 2 (max +buffer-size+ (length (connection-in connection)))) 0)))

(declaim (inline make-input-room))
(defun make-input-room (connection &key now)
  "See to it that there is room behind IN-END. NOW, a constant: within WITH-INPUT-NOW. To be called
with interrupts deferred."
  (let ((size (length (connection-in connection))))
    (cond ((zerop size)
           (setf (connection-in connection)
                 (if now (buffer-now (connection :input)) (take-buffer))))
          ((< (connection-in-end connection) size))
          (now (allocating (connection :input) (find-input-room connection)))
          (t (find-input-room connection)))))

(defun enlarge-input (connection size gap)
  "Give CONNECTION an input buffer of SIZE with GAP free octets before what is unread; of more where
an interrupt has filled it meanwhile."
  (declare (type index size gap))
  (loop until (move-input connection (make-array size :element-type '(unsigned-byte 8)) gap)
        do (setf size (* 2 size))))

(defun move-input (connection new gap)
  "Make NEW the input buffer of CONNECTION, with GAP free octets before what is unread; NIL where it
is too small."
  (declare (type octets new) (type index gap))
  (call-deferred
    (let* ((old (connection-in connection))
           (keep (- (connection-in-start connection) (connection-last-width connection)))
           (end (connection-in-end connection)))
      (when (<= (+ gap (- end keep)) (length new))
        (copy-octets new gap old keep end)
        (setf (connection-in connection) new)
        (incf (connection-in-start connection) (- gap keep))
        (incf (connection-in-end connection) (- gap keep))
        (give-buffer old)
        t))))

(defun note-rest (connection)
  "What the library has still of CONNECTION, which has TLS, no poller hears of by itself."
  (when (library-has-p connection +lport-input+)
    (note-buffered connection)))

(declaim (inline receive receive-behind))
(defun receive (connection octets start end &optional (flags 0))
  "Receive into OCTETS from START below END: the count, 0 for end of file, or a status. Without
blocking, or with what PATIENCE says for FLAGS.
To be called with interrupts deferred until the count is noted."
  (declare (type connection connection) (type octets octets) (type index start end)
           (type fixnum flags))
  (let* ((end (%piece-end start end))
         (count (with-octets (pointer octets start end :out)
                  (%lport-socket-receive (connection-handle connection) pointer (- end start)
                                         flags))))
    (declare (type (signed-byte 64) count))
    (note-answer connection count)
    (cond ((plusp count)
           (take-residence connection :input count)
           (incf (connection-octets-in connection) count)
           (when (connection-secure connection)
             (note-rest connection)))
          ((zerop count) (setf (connection-ended connection) t)))
    count))

(defun receive-behind (connection flags)
  "As RECEIVE-INTO-BUFFER, where there is room. To be called with interrupts deferred."
  (declare (type connection connection))
  (let* ((in (connection-in connection))
         (count (receive connection in (connection-in-end connection) (length in) flags)))
    (declare (type (signed-byte 64) count))
    (cond ((plusp count)
           (incf (connection-in-end connection) count)
           (note-buffered connection))
          (t (release-idle-input connection)))
    count))

(defun receive-into-buffer (connection &optional (flags 0))
  "Receive behind IN-END what fits: as RECEIVE."
  (call-deferred
    (make-input-room connection)
    (receive-behind connection flags)))

(defun release-idle-input (connection)
  "Give back the buffer if nothing is in it, not even a character that can be taken back. To look
and to give is one step, as an interrupt may fill it."
  (call-nowait
    (when (and (= (connection-in-start connection) (connection-in-end connection))
               (zerop (connection-last-width connection))
               (plusp (length (connection-in connection))))
      (forget-input connection))))

(defun settle-input (connection)
  "What was read last cannot be taken back: give back the buffer if nothing is in it."
  (setf (connection-last-width connection) 0)
  (release-idle-input connection))

(declaim (inline octets-read))
(defun octets-read (connection)
  "How many octets have been read, as a position in all that came."
  (- (connection-octets-in connection) (buffered-input connection)))

(defun keep-character (connection)
  "Keep aside the octets of the character that was read last, so that the buffer can go."
  (let ((width (connection-last-width connection)) (end (connection-in-end connection)))
    (setf (connection-kept connection)
          (loop for index from (- end width) below end
                for bit of-type (integer 0 64) from 0 by 8
                sum (ash (aref (connection-in connection) index) bit) of-type (unsigned-byte 64))
          (connection-kept-width connection) width
          (connection-kept-position connection) (octets-read connection))))

(defun kept-octets (connection)
  "The octets of the character that was read last and kept aside; NIL if something else was read
since."
  (when (and (plusp (connection-kept-width connection))
             (= (connection-kept-position connection) (octets-read connection)))
    (let ((octets (octets-of-size (connection-kept-width connection))))
      (dotimes (index (length octets) octets)
        (setf (aref octets index) (ldb (byte 8 (* 8 index)) (connection-kept connection)))))))

(declaim (inline release-emptied-input element-taken))
(defun release-emptied-input (connection)
  "Give back the buffer, so that an idle connection has none, if what was just taken has emptied it.
To be called with interrupts deferred."
  (when (= (connection-in-start connection) (connection-in-end connection))
    (when (plusp (connection-last-width connection))
      (keep-character connection))
    (forget-input connection)))

(defun element-taken (connection element)
  "ELEMENT, which was just taken, and may have emptied the buffer."
  (call-nowait (release-emptied-input connection))
  element)

(defun fill-input (connection limit &optional (moved 0))
  "Wait for more octets behind IN-END. Values: how many, 0 at end of file; LIMIT or a later one."
  (when (connection-expecting connection) ; it may take its time
    (release-idle-input connection))
  ;; Here, where interrupts are not deferred: the peer decides how much it grows, and SBCL takes
  ;; heap exhaustion with interrupts deferred for a corruption of its own, which may end the
  ;; process.
  (when (= (connection-in-end connection) (max 1 (length (connection-in connection))))
    (find-input-room connection))
  (receiving (connection :read limit :moved moved) (flags)
    (receive-into-buffer connection flags)))

(defmacro filling ((connection limit) (last-p) take)
  "Evaluate TAKE, a form that takes something out of the buffer, until it is true; wait for more
octets in between. At the end of file it has its last turn, with LAST-P true. Values: that of TAKE,
NIL where there was not enough; LIMIT or a later one."
  (let ((try (gensym "TAKE")))
    `(flet ((,try (,last-p)
              (declare (ignorable ,last-p))
              ,take))
       (declare (dynamic-extent #',try))
       (call-filling ,connection ,limit #',try))))

(defun call-filling (connection limit take)
  (declare (type function take) (type moment limit))
  (loop with last-p = nil
        do (let ((taken (funcall take last-p)))
             (when (or taken last-p)
               (return (values taken limit))))
           (multiple-value-bind (count later) (fill-input connection limit)
             (setf last-p (zerop count)
                   limit later))))

(defun fill-input-now (connection)
  "Take what is there without blocking: how many octets, 0 at end of file, NIL if there is nothing
yet."
  (check-open connection :read)
  (let ((count (receive-into-buffer connection)))
    (cond ((>= count 0) count)
          ((not (would-block-p count)) (fail-on connection count :read)))))

;;; In the buffer: what operations on one element try first, where this thread is the resident.

(defmacro with-input-there ((connection) &body body)
  "The value of BODY, as WITH-RESIDENCE wants it, which is not to take the last octet of the buffer;
NIL where this thread is not the resident reader of CONNECTION or a deadline has passed."
  `(with-residence (,connection :input (in-time-p ,connection :input)) ,@body))

(declaim (inline more-than-one-p))
(defun more-than-one-p (connection)
  "True if an octet can be taken and the buffer has one still."
  (> (buffered-input connection) 1))

;;; The fast path, without waiting: what every reading operation tries first. An operation that has
;;; all it needs in the buffer, or after one receive that does not block, is spared what a wait
;;; needs: the limit and the cleanup. Every failure is left to the slow path, which meets it again.

(defmacro with-input-now ((connection) &body body)
  "The value of BODY, short, never blocking and never signalling, if this thread can be the one
reader of CONNECTION at once and no deadline has passed; else NIL."
  `(when (in-time-p ,connection :input)
     (with-direction-now (,connection :input) ,@body)))

(defun fill-input-quickly (connection)
  "Receive behind IN-END if something may be there: true if it was. To be called within
WITH-INPUT-NOW."
  (declare (type connection connection))
  (positive (receiving-now (connection) (flags)
              (make-input-room connection :now t)
              (receive-behind connection flags))))

(defun receive-quickly (connection octets start end)
  "Receive into OCTETS from START below END if something may be there: how many octets, or NIL. To
be called within WITH-INPUT-NOW, where nothing is buffered."
  (declare (type connection connection))
  (positive (receiving-now (connection) (flags)
              (receive connection octets start end flags))))

(defun put-back (connection octets start end)
  "Put OCTETS from START to END before what is unread, unless a handler of this read has closed
CONNECTION. A character that was kept aside is no longer there to be taken back: the stream will
come to stand again where that was."
  (let ((count (- end start)))
    (when (and (plusp count) (not (channel-closing connection)))
      (setf (connection-last-width connection) 0)
      (enlarge-input connection
                     (max +buffer-size+ (+ count (buffered-input connection)))
                     count)
      (call-deferred
        (decf (connection-in-start connection) count)
        (copy-octets (connection-in connection) (connection-in-start connection)
                     octets start end)
        (setf (connection-kept-width connection) 0)
        (note-buffered connection)))))

;;; Octets

(declaim (inline next-octet))
(defun next-octet (connection)
  "Take the next octet out of the buffer; NIL: it is empty."
  (let ((start (connection-in-start connection)))
    (when (< start (connection-in-end connection))
      (setf (connection-last-width connection) 0
            (connection-in-start connection) (1+ start))
      (aref (connection-in connection) start))))

(defmacro element-now ((connection) take)
  "The value of TAKE, a form that takes an element out of the buffer and is NIL where there is none
in it, or no whole one; NIL if that needs a wait."
  (let ((element (gensym "ELEMENT")))
    `(or (with-input-there (,connection)
           (when (more-than-one-p ,connection)
             ,take))
         (with-input-now (,connection)
           (let ((,element (or ,take
                               (when (and (zerop (buffered-input ,connection))
                                          (fill-input-quickly ,connection))
                                 ,take))))
             (when ,element
               (release-emptied-input ,connection))
             ,element)))))

(declaim (inline read-octet))           ; into the one method that calls it
(defun read-octet (connection)
  "The next octet, or :EOF."
  (declare (type connection connection))
  (or (element-now (connection) (next-octet connection))
      (read-octet-slowly connection)))

(defun read-octet-slowly (connection)
  (with-input (connection)
    (let ((octet (filling (connection (begin-call connection :input)) (last-p)
                   (call-nowait (next-octet connection)))))
      (if octet
          (element-taken connection octet)
          :eof))))

(defun unread-octets (connection count)
  "A copy of the first COUNT unread octets."
  (let ((start (connection-in-start connection)))
    (subseq (connection-in connection) start (+ start count))))

(declaim (inline copy-unread))
(defun copy-unread (connection octets start count)
  "Copy the first COUNT unread octets into OCTETS from START."
  (declare (type octets octets) (type index start count))
  (let ((from (connection-in-start connection)))
    (copy-octets octets start (connection-in connection) from (+ from count))))

(declaim (inline octets-taken))
(defun octets-taken (connection count)
  "The first COUNT unread octets were taken: give back a buffer that this has emptied. To be called
with interrupts deferred."
  (declare (type index count))
  (let ((start (+ (connection-in-start connection) count)))
    (setf (connection-in-start connection) start
          (connection-last-width connection) 0)
    (when (and (plusp count) (= start (connection-in-end connection)))
      (forget-input connection))))

(defun take-octets (connection octets start end)
  "Move what is buffered into OCTETS from START below END, and give back a buffer that this empties;
how many. To be called with interrupts deferred."
  (declare (type connection connection) (type octets octets) (type index start end))
  (let* ((from (connection-in-start connection))
         (count (min (- end start) (- (connection-in-end connection) from))))
    (copy-unread connection octets start count)
    (octets-taken connection count)
    count))

(defconstant +direct-size+ 32768
  "A transfer of at least so many octets goes past the buffer.")

(defun read-octets-into (connection octets start end &optional whole)
  "Fill OCTETS from START to END; the index of the first that was not filled, END unless end of file
came. WHOLE true: then what came is unread again."
  (declare (type connection connection) (type octets octets) (type index start end))
  (let ((wanted (- end start)))
    (or (with-input-now (connection)
          (when (or (<= 1 wanted (buffered-input connection))
                    (and (zerop (buffered-input connection))
                         (< 0 wanted +direct-size+)
                         (fill-input-quickly connection)
                         (<= wanted (buffered-input connection))))
            (take-octets connection octets start end)
            end))
        (read-octets-slowly connection octets start end whole))))

(defun read-octets-slowly (connection octets start end whole)
  (declare (type octets octets) (type index start end))
  (with-input (connection)
    (let ((position start) (done nil) (count 0) (limit (begin-call connection :input)))
      (declare (type index position count) (type moment limit))
      (with-cleanup
           (loop
             (call-deferred
               (incf position (the index (take-octets connection octets position end))))
             (when (= position end)
               (setf done t)
               (return position))
             (multiple-value-setq (count limit)
               (if (>= (- end start) +direct-size+)
                   (receiving (connection :read limit :moved (- position start)) (flags)
                     (call-deferred
                       (let ((count (receive connection octets position end flags)))
                         (when (plusp count)
                           (incf position (the index count)))
                         count)))
                   (fill-input connection limit (- position start))))
             (when (zerop count)
               (setf done (not whole))
               (return position)))
        (release-idle-input connection)
        (unless done
          (put-back connection octets start position))))))

(defun read-available-octets (connection octets start end)
  "Store what is there into OCTETS from START below END, waiting for at least one octet unless START
is END.
How many; 0 at end of file."
  (declare (type connection connection) (type octets octets) (type index start end))
  (or (with-input-now (connection)
        (when (< start end)
          (if (plusp (buffered-input connection))
              (take-octets connection octets start end)
              (receive-quickly connection octets start end))))
      (with-input (connection)
        (let ((limit (begin-call connection :input)))
          (cond ((= start end) 0)
                ((plusp (buffered-input connection))
                 (call-deferred (take-octets connection octets start end)))
                (t (values (receiving (connection :read limit) (flags)
                             (call-deferred (receive connection octets start end flags))))))))))

;;; Without reading

(defun arrived-octets (connection)
  "What a receive would return now: how many octets, 1 at the most, 0 for the end of file, or a
status. Takes nothing, and owns nothing: another thread may read meanwhile."
  (let ((room (octets-of-size 1)))
    (declare (dynamic-extent room))
    (with-octets (pointer room 0 1 :out)
      (lport-socket-receive (channel-handle connection) pointer 1 +lport-peek+))))

(defun vain-p (connection)
  "True if CONNECTION, which the system says is ready for input, has none for its user: what had
come was for TLS itself."
  (declare (type connection connection))
  (and (connection-secure connection)
       (would-block-p (arrived-octets connection))))

(defun wait-for-octets (connection limit)
  "True when input or end of file is there or buffered, NIL once LIMIT has passed. Owns nothing:
another thread may read meanwhile, and then may get what was seen here."
  (loop
    (check-open connection :read)
    (when (plusp (buffered-input connection))
      (return t))
    (let ((result (wait-once connection +lport-input+
                             (min limit (connection-input-deadline connection)))))
      (cond ((plusp result) (unless (vain-p connection)
                              (return t)))
            ((zerop result))
            ((/= (lport-status-kind result) +lport-timed-out+)
             (fail-on connection result :read))
            ((>= (lport-clock-now) limit) (return nil))
            (t (check-limit connection :input :read +never+ 0))))))

(defun forget-arrived (connection)
  "Forget what is buffered, and receive what may be there: as FILL-INPUT-NOW. To be called within
WITH-INPUT."
  (setf (connection-in-start connection) (connection-in-end connection)
        (connection-last-width connection) 0)
  (fill-input-now connection))

(defun clear-arrived-input (connection)
  "Forget what is buffered and what the kernel has now."
  (with-input (connection)
    (check-open connection :read)
    (loop while (plusp (or (forget-arrived connection) 0)))
    (release-idle-input connection)))

(defun drain-input (connection limit count)
  "Forget what is buffered and what comes, until the end of file, which is true, or until LIMIT has
passed or more than COUNT octets have come, which is NIL. Signals TIMEOUT if another thread is
reading until LIMIT."
  (with-direction (connection :input limit)
    (let ((limit (min limit (channel-deadline connection :input)))
          (room (- count (buffered-input connection))))
      (loop
        (let ((came (forget-arrived connection)))
          (cond ((null came) (unless (wait-for-octets connection limit)
                               (return nil)))
                ((zerop came) (return t))
                ((or (minusp (decf room came)) (>= (lport-clock-now) limit))
                 (return nil))))))))
