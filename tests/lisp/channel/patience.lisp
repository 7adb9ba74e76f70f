;;;; patience - a read that waits for its answer in the call itself ends as every other one does.

(in-package :port/test)

(define-suite patience "Reads of answers that come soon.")

(defun converse (socket count)
  "Ask COUNT times what comes back at once, so that SOCKET expects its answers soon; the last one."
  (loop repeat count
        for line = (progn (write-line "soon" socket)
                          (finish-output socket)
                          (read-line socket))
        finally (return line)))

(defmacro with-echoed ((socket &optional (kind :inet)) &body body)
  "Run BODY with SOCKET to which something echoes lines until BODY closes it."
  `(with-pair (,socket end ,kind)
     (let ((thread (in-thread (lambda () (echo-lines end)))))
       ,@body
       (close ,socket)
       (join thread))))

(define-test patience.round-trips (:behaviour 38)
  (dolist (kind *pair-kinds*)
    (with-pair (a b kind)
      (let ((thread (in-thread (lambda () (echo-lines b)))))
        (is (string= "soon" (converse a (amount 1000))))
        (socket-shutdown a :output)
        (join thread)))))

(define-test patience.what-does-not-wait (:behaviour 46)
  "LISTEN and READ-CHAR-NO-HANG do not wait for an answer that is expected soon."
  (with-echoed (a)
    (converse a 20)
    (is (null (listen a)))
    (is (null (read-char-no-hang a)))
    (is (string= "soon" (converse a 1)))))

(define-test patience.ended-by-close (:behaviour 13)
  (with-echoed (a)
    (converse a 20)
    (let* ((failure nil)
           (thread (start-blocked (lambda () (setf failure (failure-of (read-char a)))))))
      (close a)
      (join thread)
      (is (typep failure 'socket-closed)))))

(define-test patience.ended-by-a-deadline (:behaviour 3)
  (with-echoed (a)
    (converse a 20)
    (is (typep (failure-of (with-deadline (1/10) (read-char a))) 'timeout))
    (converse a 20)
    (setf (socket-timeout a :input) 1/10)
    (is (typep (failure-of (read-char a)) 'timeout))
    (setf (socket-timeout a :input) nil)
    (converse a 20)
    (let* ((failure nil)
           (thread (start-blocked (lambda () (setf failure (failure-of (read-char a)))))))
      (setf (socket-deadline a :input) 0)
      (join thread)
      (is (typep failure 'timeout)))
    (setf (socket-deadline a :input) nil)
    (is (string= "soon" (converse a 1)))))

(define-test patience.ended-by-a-reset (:behaviour 31)
  (with-pair (a b :inet)
    (let ((thread (in-thread (lambda () (dotimes (i 20) (read-char b) (write-char #\x b)
                                          (finish-output b))))))
      (dotimes (i 20)
        (write-char #\x a)
        (finish-output a)
        (read-char a))
      (join thread))
    (close b :abort t)
    (is (typep (failure-of (read-char a)) 'connection-reset))
    (is (typep (failure-of (read-char a)) 'connection-reset))))
