;;;; options - USOCKET:SOCKET-OPTION for every option of PORT, by usocket's names or by PORT's.

(in-package #:port/usocket)

(defparameter *option-names*
  '((:tcp-nodelay . :nodelay)
    (:tcp-no-delay . :nodelay)
    (:tcp-keepalive . :keepalive))
  "Names of options in usocket, and in PORT where they differ.")

(defparameter *limits* '((:receive-timeout . :input) (:send-timeout . :output))
  "Options of usocket that are limits of time in PORT, in seconds, for a direction.")

(defun plain-option (name)
  (or (cdr (assoc name *option-names*)) name))

(defun read-option (socket name)
  (usocket:with-mapped-conditions (socket)
    (let ((direction (cdr (assoc name *limits*))) (socket (usocket:socket socket)))
      (if direction
          (port:socket-timeout socket direction)
          (port:socket-option socket (plain-option name))))))

(defun write-option (value socket name)
  (usocket:with-mapped-conditions (socket)
    (let ((direction (cdr (assoc name *limits*))) (socket (usocket:socket socket)))
      (if direction
          (setf (port:socket-timeout socket direction) value)
          (setf (port:socket-option socket (plain-option name)) value)))))

;;; usocket has methods for each of its names on its own classes, and those of the socket's class
;;; come first.

(defmethod usocket:socket-option ((socket on-port) (name symbol) &key)
  (read-option socket name))

(defmethod (setf usocket:socket-option) (value (socket on-port) (name symbol) &key)
  (write-option value socket name))
