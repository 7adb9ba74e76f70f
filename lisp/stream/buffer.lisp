;;;; buffer - connections with buffers on both sides, and the pool that the buffers come from.
;;;;
;;;; A buffer of 64 KiB (where loopback transfers peak) is taken when there is something to put into
;;;; it and given back when it is empty, so an idle connection has none. Invariant: a buffer is
;;;; given back only by the thread that owns its direction, so no two connections ever share one.

(in-package :port)

(defconstant +buffer-size+ 65536)

(declaim (type octets *no-octets*))
(%defglobal *no-octets* (make-array 0 :element-type '(unsigned-byte 8)))

(declaim (inline copy-octets))
(defun copy-octets (to at from start end)
  "Copy FROM from START to END, all of which it has, into TO from AT on, where there is room. The
two may be the same."
  (declare (type octets to from) (type index at start end))
  (assert (and (<= start end (length from))
               (<= (+ at (- end start)) (length to))))
  (%copy-octets to at from start end))

;;; The pool: places that hold a free buffer or NIL. Each is taken and filled by compare-and-swap,
;;; so nothing is locked and nothing allocated; what finds no place is garbage. The first place is
;;; the one that is mostly right.

(defconstant +pool-size+ 64)

(declaim (type simple-vector *pool*))
(%defglobal *pool* (make-array +pool-size+ :initial-element nil))

(declaim (inline take-from give-to))
(defun take-from (place)
  "The buffer at PLACE of the pool, now the caller's, or NIL."
  (let ((buffer (svref (%global *pool*) place)))
    (when (and buffer (eq (%compare-and-swap (svref (%global *pool*) place) buffer nil) buffer))
      (the octets buffer))))

(defun give-to (place buffer)
  "True if PLACE of the pool was free; it has BUFFER then."
  (and (null (svref (%global *pool*) place))
       (null (%compare-and-swap (svref (%global *pool*) place) nil buffer))))

(defun search-buffer ()
  "A buffer from anywhere in the pool, or a new one."
  (dotimes (place +pool-size+ (make-array +buffer-size+ :element-type '(unsigned-byte 8)))
    (let ((buffer (take-from place)))
      (when buffer
        (return buffer)))))

(defun search-place (buffer)
  "Give BUFFER to any place of the pool."
  (dotimes (place +pool-size+)
    (when (give-to place buffer)
      (return))))

(declaim (inline take-buffer give-buffer))
(defun take-buffer ()
  "A buffer of +BUFFER-SIZE+ octets, contents undefined."
  (or (take-from 0) (search-buffer)))

(defmacro buffer-now ((connection direction))
  "As TAKE-BUFFER, within WITH-DIRECTION-NOW."
  `(or (take-from 0) (allocating (,connection ,direction) (search-buffer))))

(defun give-buffer (buffer)
  "Give back BUFFER, which nobody refers to any more. One of another size is left to the collector."
  (declare (type octets buffer))
  (when (= (length buffer) +buffer-size+)
    (unless (give-to 0 buffer)
      (search-place buffer))))

;;; Connections

(defstruct (connection (:include channel) (:copier nil) (:predicate nil)
                       (:constructor make-connection
                           (handle element-type format input-timeout output-timeout)))
  ;; Input: the octets from IN-START to IN-END have arrived and have not been read.
  (in (%global *no-octets*) :type octets)
  (in-start 0 :type index)
  (in-end 0 :type index)
  (last-width 0 :type index)            ; octets before IN-START that UNREAD-CHAR takes back
  ;; The character that UNREAD-CHAR takes back where its octets went with the buffer.
  (kept 0 :type (unsigned-byte 64))     ; they, the first one lowest
  (kept-width 0 :type index)
  (kept-position 0 :type (unsigned-byte 62)) ; OCTETS-READ when it had been read
  (octets-in 0 :type (unsigned-byte 62))
  (ended nil)                           ; the end of the peer's data has come
  ;; Output: the octets from OUT-START to OUT-END have been written and not yet been sent.
  (out (%global *no-octets*) :type octets)
  (out-start 0 :type index)
  (out-end 0 :type index)
  (taken 0 :type index)                 ; octets of the text that a call is writing, so far
  (output-shut nil)                     ; no more output: SOCKET-SHUTDOWN was here
  ;; T: it has TLS; a list: what its handshake has begun with; :AWAITED: that it is to begin with.
  (secure nil)
  (column 0 :type index)                ; where the octet at COUNTED is, see CURRENT-COLUMN
  (counted 0 :type index)               ; octets of the buffer before those of this format
  (octets-out 0 :type (unsigned-byte 62))
  (posted nil)                          ; what others have left for the writer, see output-posted
  (spare (%global *no-octets*) :type octets) ; the buffer that comes next where one has to be larger
  (client nil)                          ; of the service that it belongs to
  ;; Text
  (format *utf-8* :type text-format)
  (scratch (make-string 1) :type characters :read-only t)
  (element-type 'character))

(%seal connection)

(defmacro with-input ((connection) &body body)
  "Run BODY while this thread is the one reader of CONNECTION."
  `(with-direction (,connection :input) ,@body))

(defmacro with-output ((connection) &body body)
  "Run BODY while this thread is the one writer of CONNECTION, behind what others have posted."
  `(with-direction (,connection :output)
     (when (connection-posted ,connection)
       (call-deferred (append-posted ,connection)))
     ,@body))

(declaim (inline buffered-input pending-output))
(defun buffered-input (connection)
  "How many octets have arrived and have not been read."
  (- (connection-in-end connection) (connection-in-start connection)))

(defun pending-output (connection)
  "How many octets have been written and not yet been sent."
  (- (connection-out-end connection) (connection-out-start connection)))

(defun library-has-p (connection direction)
  "True if the library has some of what CONNECTION, which has TLS, has received. DIRECTION is
+LPORT-INPUT+: what a read finds; +LPORT-OUTPUT+: part of a message that is for TLS itself, the rest
of which has to come before anything can be sent."
  (declare (type connection connection))
  (let ((bits (lport-socket-buffered (connection-handle connection))))
    (declare (type (signed-byte 64) bits))
    (and (plusp bits)
         (logtest direction bits))))

(defun has-input-p (connection)
  "True if something that has arrived has not been read, in the buffer or in the library."
  (declare (type connection connection))
  (or (plusp (buffered-input connection))
      (and (connection-secure connection)
           (library-has-p connection +lport-input+))))

(defun holds-output-p (connection)
  "True if octets that were sent are held in the library, which hands them on where it can, or are
lost there: a send of none tells which."
  (declare (type connection connection))
  (and (connection-secure connection)
       (minusp (the (signed-byte 64)
                    (lport-socket-send (connection-handle connection) (null-pointer) 0)))))

(defun all-sent-p (connection)
  "True if nothing that was written is to be sent still."
  (and (zerop (pending-output connection))
       (null (connection-posted connection))
       (not (holds-output-p connection))))

(defun at-end-p (connection)
  "True if all of the peer's data has been read, and its end is known."
  (and (connection-ended connection) (zerop (buffered-input connection))))

(declaim (inline forget-input forget-output))
(defun forget-input (connection)
  "As DROP-INPUT. To be called with interrupts deferred."
  (let ((buffer (connection-in connection)))
    (setf (connection-in connection) (%global *no-octets*)
          (connection-in-start connection) 0
          (connection-in-end connection) 0
          (connection-last-width connection) 0)
    (give-buffer buffer)))

(defun forget-output (connection)
  "As DROP-OUTPUT. To be called with interrupts deferred."
  (let ((buffer (connection-out connection)))
    (setf (connection-out connection) (%global *no-octets*)
          (connection-out-start connection) 0
          (connection-out-end connection) 0
          (connection-counted connection) 0
          (connection-spare connection) (%global *no-octets*))
    (give-buffer buffer)))

(defun drop-input (connection)
  "Forget what has arrived and give back the buffer."
  (call-nowait (forget-input connection)))

(defun drop-output (connection)
  "Forget what has not been sent and give back the buffer."
  (call-nowait (forget-output connection)))
