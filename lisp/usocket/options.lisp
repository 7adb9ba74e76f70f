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
  (let ((direction (cdr (assoc name *limits*))))
    (if direction
        (port:socket-timeout socket direction)
        (port:socket-option socket (plain-option name)))))

(defun write-option (value socket name)
  (let ((direction (cdr (assoc name *limits*))))
    (if direction
        (setf (port:socket-timeout socket direction) value)
        (setf (port:socket-option socket (plain-option name)) value))))

(defun option-p (name)
  "True if NAME is an option here; what others come to is for usocket to say."
  (or (assoc name *limits*)
      (find (plain-option name) (port:socket-options)
            :key (lambda (option) (getf option :name)))))

;;; usocket has methods for each of its names on its own classes, and those of the socket's class
;;; come first.

(defmethod usocket:socket-option ((socket on-port) (name symbol) &key)
  (if (option-p name)
      (usocket:with-mapped-conditions (socket)
        (read-option (usocket:socket socket) name))
      (call-next-method)))

(defmethod (setf usocket:socket-option) (value (socket on-port) (name symbol) &key)
  (if (option-p name)
      (usocket:with-mapped-conditions (socket)
        (write-option value (usocket:socket socket) name))
      (call-next-method)))

;;; Programs ask the system's sockets for their descriptor, or for options, which ask for that.

#+(or sbcl ecl)
(macrolet ((define (&rest classes)
             `(progn
                ,@(loop for class in classes
                        collect `(defmethod sb-bsd-sockets:socket-file-descriptor ((socket ,class))
                                   (port:socket-descriptor socket))))))
  (define port:socket port:socket-server port:datagram-socket))
