;;;; buffer - connections with buffers on both sides, and the pool that the buffers come from.
;;;;
;;;; A buffer of 64 KiB (where loopback transfers peak) is taken when there is something to put into
;;;; it and given back when it is empty, so an idle connection has none. Invariant: a buffer is
;;;; given back only by the thread that owns its direction, so no two connections ever share one.

(in-package :port)

(deftype index () '(integer 0 #.(ash most-positive-fixnum -1)))

(defconstant +buffer-size+ 65536)

(%defglobal *no-octets* (make-array 0 :element-type '(unsigned-byte 8)))

;;; The pool: places that hold a free buffer or NIL. Each is taken and filled by compare-and-swap,
;;; so nothing is locked and nothing allocated; what finds no place is garbage.

(defconstant +pool-size+ 64)

(%defglobal *pool* (make-array +pool-size+ :initial-element nil))

(defun take-buffer ()
  "A buffer of +BUFFER-SIZE+ octets, contents undefined."
  (dotimes (i +pool-size+ (make-array +buffer-size+ :element-type '(unsigned-byte 8)))
    (let ((buffer (svref *pool* i)))
      (when (and buffer (eq (%compare-and-swap (svref *pool* i) buffer nil) buffer))
        (return (the octets buffer))))))

(defun give-buffer (buffer)
  "Give back BUFFER, which nobody refers to any more. One of another size is left to the collector."
  (declare (type octets buffer))
  (when (= (length buffer) +buffer-size+)
    (dotimes (i +pool-size+)
      (when (and (null (svref *pool* i))
                 (null (%compare-and-swap (svref *pool* i) nil buffer)))
        (return)))))

;;; Connections

(defstruct (connection (:include channel) (:copier nil) (:predicate nil))
  ;; Input: the octets from IN-START to IN-END have arrived and have not been read.
  (in *no-octets* :type octets)
  (in-start 0 :type index)
  (in-end 0 :type index)
  (last-width 0 :type index)            ; octets before IN-START that UNREAD-CHAR takes back
  ;; The character that UNREAD-CHAR takes back where its octets went with the buffer.
  (kept 0 :type (unsigned-byte 64))     ; they, the first one lowest
  (kept-width 0 :type index)
  (kept-position 0 :type (unsigned-byte 62)) ; OCTETS-READ when it had been read
  (octets-in 0 :type (unsigned-byte 62))
  ;; Output: the octets from OUT-START to OUT-END have been written and not yet been sent.
  (out *no-octets* :type octets)
  (out-start 0 :type index)
  (out-end 0 :type index)
  (taken 0 :type index)                 ; octets of the text that a call is writing, so far
  (output-shut nil)                     ; no more output: SOCKET-SHUTDOWN was here
  (column 0 :type index)                ; where the buffer begins, see CURRENT-COLUMN
  (octets-out 0 :type (unsigned-byte 62))
  ;; Text
  (format *utf-8* :type text-format)
  (scratch (make-string 1) :type characters :read-only t)
  (element-type 'character))

(defmacro with-input ((connection) &body body)
  "Run BODY while this thread is the one reader of CONNECTION."
  `(with-direction (,connection connection-input-owner :input) ,@body))

(defmacro with-output ((connection) &body body)
  "Run BODY while this thread is the one writer of CONNECTION."
  `(with-direction (,connection connection-output-owner :output) ,@body))

(declaim (inline buffered-input pending-output))
(defun buffered-input (connection)
  "How many octets have arrived and have not been read."
  (- (connection-in-end connection) (connection-in-start connection)))

(defun pending-output (connection)
  "How many octets have been written and not yet been sent."
  (- (connection-out-end connection) (connection-out-start connection)))

(defun drop-input (connection)
  "Forget what has arrived and give back the buffer."
  (call-nowait
    (let ((buffer (connection-in connection)))
      (setf (connection-in connection) *no-octets*
            (connection-in-start connection) 0
            (connection-in-end connection) 0
            (connection-last-width connection) 0)
      (give-buffer buffer))))

(defun drop-output (connection)
  "Forget what has not been sent and give back the buffer."
  (call-nowait
    (let ((buffer (connection-out connection)))
      (setf (connection-out connection) *no-octets*
            (connection-out-start connection) 0
            (connection-out-end connection) 0)
      (give-buffer buffer))))
