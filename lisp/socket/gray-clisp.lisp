;;;; gray-clisp - the generic functions that only CLISP has: what its READ-SEQUENCE and its own
;;;; operations on octets and on what is there at once ask.

(in-package :port)

(defun octet-ready-p (connection)
  "True if reading an octet does not block: one is there, or the end of file."
  (wait-for-octets connection 0))

;;; Sequences

(defmethod gray:stream-read-char-sequence ((socket socket) sequence &optional (start 0) end)
  (stream-read-sequence socket sequence start end))

(defmethod gray:stream-write-char-sequence ((socket socket) sequence &optional (start 0) end)
  (if (stringp sequence)
      (stream-write-string socket sequence start end)
      (stream-write-sequence socket sequence start end)))

(defmethod gray:stream-read-byte-sequence ((socket socket) sequence
                                           &optional (start 0) end no-hang interactive)
  (cond ((and no-hang (not (octet-ready-p (connection-of socket)))) start)
        ((or no-hang interactive)
         (let* ((end (or end (length sequence)))
                (octets (octets-of-size (- end start)))
                (count (read-some socket octets)))
           (replace sequence octets :start1 start :end2 count)
           (+ start count)))
        (t (stream-read-sequence socket sequence start end))))

(defmethod gray:stream-write-byte-sequence ((socket socket) sequence
                                            &optional (start 0) end no-hang interactive)
  (declare (ignore no-hang interactive))
  (stream-write-sequence socket sequence start end)
  (values sequence (or end (length sequence))))

;;; What is there at once

(defmethod gray:stream-read-char-will-hang-p ((socket socket))
  (let ((connection (connection-of socket)))
    (not (or (input-ready-p connection)
             (and (zerop (buffered-input connection)) ; the end of the file
                  (octet-ready-p connection))))))

(defmethod gray:stream-read-byte-lookahead ((socket socket))
  (cond ((not (octet-ready-p (connection-of socket))) nil)
        ((zerop (peek-octets socket (octets-of-size 1))) :eof)
        (t t)))

(defmethod gray:stream-read-byte-will-hang-p ((socket socket))
  (not (octet-ready-p (connection-of socket))))

(defmethod gray:stream-read-byte-no-hang ((socket socket))
  (let ((connection (connection-of socket)))
    (when (octet-ready-p connection)
      (read-octet connection))))
