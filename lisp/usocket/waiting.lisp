;;;; waiting - USOCKET:WAIT-FOR-INPUT without a limit on descriptors.

(in-package #:port/usocket)

(defvar *wait-for-others* #'usocket:wait-for-input
  "WAIT-FOR-INPUT for sockets that are not PORT's.")

(defun sockets-of (sockets)
  "SOCKETS, a wait list of usocket, a list or one socket, as a list."
  (cond ((usocket::wait-list-p sockets) (usocket::wait-list-waiters sockets))
        ((listp sockets) sockets)
        (t (list sockets))))

(defun note-ready (sockets ready)
  "Set the state of each of SOCKETS: :READ if its socket is in READY, a list in the same order."
  (dolist (socket sockets)
    (setf (usocket::state socket)
          (when (and ready (eq (usocket:socket socket) (first ready)))
            (pop ready)
            :read))))

(defun seconds-left (timeout start)
  "What is left of TIMEOUT seconds since START, a moment of GET-INTERNAL-REAL-TIME; NIL: nothing."
  (when timeout
    (let ((left (- timeout (/ (- (get-internal-real-time) start)
                              internal-time-units-per-second))))
      (and (plusp left) left))))

(defun wait-for-ours (designator sockets timeout ready-only)
  (let ((start (get-internal-real-time)))
    (usocket:with-mapped-conditions ()
      (note-ready sockets (port:wait-for-input (mapcar #'usocket:socket sockets)
                                               :timeout timeout)))
    (values (if ready-only
                (remove nil sockets :key #'usocket:socket-state)
                designator)
            (seconds-left timeout start))))

(defun wait-for-input (designator &key timeout ready-only)
  "USOCKET:WAIT-FOR-INPUT."
  (let* ((sockets (sockets-of designator))
         (ours (count-if (lambda (socket) (typep socket 'on-port)) sockets)))
    (cond ((zerop ours)
           (funcall *wait-for-others* designator :timeout timeout :ready-only ready-only))
          ((= ours (length sockets))
           (wait-for-ours designator sockets timeout ready-only))
          (t (error 'usocket:unsupported
                    :feature "a wait for sockets of port and of another backend together"
                    :context 'usocket:wait-for-input :minimum nil)))))
