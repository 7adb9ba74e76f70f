;;;; transport - what the checks are told about a library: how it makes, limits, ends connections.

(in-package :port/conformance)

(defstruct (transport (:copier nil) (:predicate nil))
  (make-pair nil :type function :read-only t)
  (timeout-p nil :read-only t)
  (closed-p nil :read-only t)
  (broken-p nil :read-only t)
  (set-deadline nil :read-only t)
  (set-timeout nil :read-only t)
  (shut-down-output nil :read-only t)
  (abort nil :read-only t)
  (read-some nil :read-only t)
  (seed 1 :read-only t)
  (amount 1048576 :read-only t))

(defvar *transport* nil "The one that is checked.")

(define-condition check-failed (error)
  ((reason :initarg :reason :reader failed-reason))
  (:report (lambda (condition stream) (write-string (failed-reason condition) stream)))
  (:documentation "A check does not hold."))

(defun ensure-that (true reason &rest arguments)
  "Fail the check with REASON, a format control, unless TRUE."
  (unless true
    (error 'check-failed :reason (apply #'format nil reason arguments))))

;;; Octets

(defun octets (count)
  (make-array count :element-type '(unsigned-byte 8) :initial-element 0))

(defun random-source (salt)
  "A function of N that gives numbers below N, the same ones for the same seed and SALT."
  (let ((state (logand #xFFFFFFFFFFFFFFFF (+ (* salt 7919) (transport-seed *transport*)))))
    (lambda (n)
      (setf state (logand #xFFFFFFFFFFFFFFFF
                          (+ (* state 6364136223846793005) 1442695040888963407)))
      (mod (ash state -33) n))))

(defun random-octets (count salt)
  (let ((source (random-source salt)))
    (map-into (octets count) (lambda () (funcall source 256)))))

(defun send (stream octets &optional (start 0) (end (length octets)))
  (write-sequence octets stream :start start :end end)
  (finish-output stream))

(defun receive (stream count)
  "The next COUNT octets, fewer at end of file."
  (let* ((room (octets count))
         (end (read-sequence room stream)))
    (subseq room 0 end)))

(defun everything (stream)
  "All octets up to the end of file."
  (loop for piece = (receive stream 16384)
        collect piece into pieces
        until (< (length piece) 16384)
        finally (return (apply #'concatenate '(vector (unsigned-byte 8)) pieces))))

(defun ensure-same (expected got)
  (ensure-that (= (length expected) (length got))
               "~D octets came of ~D" (length got) (length expected))
  (let ((place (mismatch expected got)))
    (ensure-that (null place) "octet ~D is ~D, not ~D" place (and place (aref got place))
                 (and place (aref expected place)))))

;;; Limits of time, ends

(defun set-deadline (stream direction seconds)
  (funcall (transport-set-deadline *transport*) stream direction seconds))

(defun error-of (function)
  "The error that ends FUNCTION, or NIL."
  (handler-case (progn (funcall function) nil)
    (check-failed (condition) (error condition))
    (error (condition) condition)))

(defun ensure-error (function predicate what)
  "FUNCTION has to end with an error for which the transport's PREDICATE, if it gave one, is true."
  (let ((condition (error-of function))
        (test (funcall predicate *transport*)))
    (ensure-that condition "no error where ~A was expected" what)
    (ensure-that (or (null test) (funcall test condition))
                 "~A was expected, not ~S: ~A" what (type-of condition) condition)))

(defun ensure-timeout (function)
  (ensure-error function #'transport-timeout-p "a timeout"))

(defun ensure-closed (function)
  (ensure-error function #'transport-closed-p "that the stream is closed"))

(defun ensure-broken (function)
  (ensure-error function #'transport-broken-p "that the connection is broken"))

(defun end-of-file-p (stream)
  (eq :eof (read-byte stream nil :eof)))

(defun fill-up (stream)
  "Write without end; only an error ends it."
  (loop with piece = (octets 65536)
        do (send stream piece)))

(defun close-both (a b)
  (dolist (stream (list a b))
    (handler-case (if (transport-abort *transport*)
                      (funcall (transport-abort *transport*) stream)
                      (close stream :abort t))
      (error ()))))

;;; Threads

(defun carrying (function)
  "FUNCTION for a thread that is to see the same transport as this one."
  (let ((transport *transport*))
    (lambda ()
      (let ((*transport* transport))
        (funcall function)))))

(defun together (&rest functions)
  "Call each of FUNCTIONS in a thread of its own; the list of their values, once all have ended. The
first error of any is signalled here."
  (let* ((threads (mapcar #'spawn (mapcar #'carrying functions)))
         (outcomes (loop for thread in threads
                         collect (multiple-value-list (join thread))))
         (failed (find-if #'second outcomes)))
    (when failed
      (error (second failed)))
    (mapcar #'first outcomes)))

(defun soon-after (function &optional (seconds 0.05))
  "A function that waits SECONDS, so that another thread has come to block, and calls FUNCTION."
  (lambda ()
    (sleep seconds)
    (funcall function)))
