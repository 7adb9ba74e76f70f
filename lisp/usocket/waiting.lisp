;;;; waiting - USOCKET:WAIT-FOR-INPUT without a limit on descriptors.

(in-package #:port/usocket)

(defvar *wait-for-others* #'usocket:wait-for-input
  "WAIT-FOR-INPUT for sockets that are not PORT's.")

(defun sockets-of (sockets)
  "SOCKETS, a wait list of usocket, a list or one socket, as a list."
  (cond ((usocket::wait-list-p sockets) (usocket::wait-list-waiters sockets))
        ((listp sockets) sockets)
        (t (list sockets))))

(defun input-above-p (socket)
  "True if SOCKET's stream is one that a program has put around it, such as TLS, and has input."
  (and (typep socket 'connection)
       (not (eq (usocket:socket-stream socket) (usocket:socket socket)))
       (listen (usocket:socket-stream socket))))

(defun note-ready (sockets above ready)
  "Set the state of each of SOCKETS: :READ if it is in ABOVE, or its socket in READY, a list in the
same order. True if there is one."
  (loop for socket in sockets
        for ready-p = (and ready (eq (usocket:socket socket) (first ready)))
        do (when ready-p
             (pop ready))
           (setf (usocket::state socket)
                 (and (or ready-p (member socket above)) :read))
        count (usocket::state socket) into count
        finally (return (plusp count))))

(defun seconds-left (timeout start)
  "What is left of TIMEOUT seconds since START, a moment of GET-INTERNAL-REAL-TIME; NIL: nothing."
  (when timeout
    (let ((left (- timeout (/ (- (get-internal-real-time) start)
                              internal-time-units-per-second))))
      (and (plusp left) left))))

(defun wait-once (sockets timeout)
  "Wait TIMEOUT seconds at most until some of SOCKETS are ready, and note which: true if one is."
  (let ((above (remove-if-not #'input-above-p sockets)))
    (note-ready sockets above (port:wait-for-input (mapcar #'usocket:socket sockets)
                                                   :timeout (if above 0 timeout)))))

(defun wait-for-ready (designator timeout start)
  "Wait until some sockets of DESIGNATOR are ready, at most TIMEOUT seconds since START: true if one
is. What another thread closes meanwhile leaves its wait list, and the wait goes on without it."
  (loop for left = timeout then (and timeout (or (seconds-left timeout start) 0))
        for sockets = (sockets-of designator)
        while sockets
        do (handler-case (return (wait-once sockets left))
             (port:socket-closed (condition)
               (when (subsetp sockets (sockets-of designator))
                 (error condition))))))

(defun wait-for-ours (designator timeout ready-only)
  (let* ((start (get-internal-real-time))
         (ready-p (usocket:with-mapped-conditions ()
                    (wait-for-ready designator timeout start))))
    (values (if ready-only
                (remove nil (sockets-of designator) :key #'usocket:socket-state)
                designator)
            ;; Nothing is left if nothing is ready, whatever the clock says: that of SBCL is coarse.
            (and ready-p (seconds-left timeout start)))))

(defun wait-for-input (designator &key timeout ready-only)
  "USOCKET:WAIT-FOR-INPUT. Where there is nothing to wait for it takes TIMEOUT, also for a wait list
that has become empty, for which usocket returns at once, or fails, as the Lisp has it."
  (let* ((sockets (sockets-of designator))
         (ours (count-if (lambda (socket) (typep socket 'on-port)) sockets)))
    (cond ((null sockets)
           (sleep (or timeout 0))
           (if ready-only nil designator))
          ((zerop ours)
           (funcall *wait-for-others* designator :timeout timeout :ready-only ready-only))
          ((= ours (length sockets))
           (wait-for-ours designator timeout ready-only))
          (t (error 'usocket:unsupported
                    :feature "a wait for sockets of port and of another backend together"
                    :context 'usocket:wait-for-input :minimum nil)))))
