;;;; wait-for-input - one wait for several sockets.
;;;;
;;;; It is a wait in a poller of the library that lasts as long as the call, and hears of buffers by
;;;; entries, as other pollers do; see poller.lisp.

(in-package :port)

(defun wait-for-input (sockets &key timeout)
  "Wait until one or more of SOCKETS, a list (or one socket), have input, buffered or not, a
connection to accept, or end of file, or are PENDING-CONNECTIONs worth a FINISH-CONNECT, and return
those, a list in the order of SOCKETS; NIL when TIMEOUT seconds (NIL: no limit) pass without. There
is no limit on descriptors or their number; for many sockets again and again a POLLER is cheaper.
Half a character is input, see POLLER-WAIT.
Conditions: TIMEOUT, when the deadline of WITH-DEADLINE passes; SOCKET-CLOSED, when one of them is
closed; RESOURCE-EXHAUSTED. Source: poll(2)."
  (let ((sockets (if (listp sockets) sockets (list sockets))))
    (check-argument :wait sockets 'proper-list "a proper list of sockets")
    (dolist (socket sockets)
      (check-open (endpoint-channel (check-pollable socket :wait)) :wait))
    (unless (or timeout (< *deadline* +never+))
      (check-argument :wait sockets 'cons "a socket, as there is no limit of time"))
    (with-waiting (handle (lport-poller-open +lport-poller-poll+))
        (if (minusp handle)
            (fail handle :wait)
            (wait-among sockets handle (moment-after timeout)))
      (when (plusp handle)
        (lport-socket-close handle 0)))))

(defun wait-among (sockets handle until)
  "WAIT-FOR-INPUT with the moment UNTIL in the library's poller HANDLE."
  (let* ((set (make-poll-set :handle handle))
         (entries (mapcar (lambda (socket)
                            (make-entry :set set :socket socket :channel (endpoint-channel socket)
                                        :interest +lport-input+))
                          sockets)))
    (with-cleanup
        (progn
          (dolist (entry entries)
            (join-members entry)
            (add-once handle (entry-channel entry)))
          (wait-in-turns sockets set until))
      (mapc #'leave-members entries))))

(defun add-once (handle channel)
  "Put CHANNEL, which may be closed, into the library's poller HANDLE, unless it is there."
  (let ((status (lport-poller-add handle (channel-handle channel) +lport-input+)))
    (unless (or (>= status 0)
                (member (lport-status-kind status) (list +lport-invalid+ +lport-closed+)))
      (fail-on channel status :wait))))

(defun wait-in-turns (sockets set until)
  "Wait in SET, in which SOCKETS are, until UNTIL: those that are ready."
  (declare (type moment until))
  (let ((batch (make-event-batch nil (max 1 (length sockets))))
        (limit *deadline*))
    (loop
      (dolist (socket sockets)
        (check-open (endpoint-channel socket) :wait))
      (setf limit (check-limit set :input :wait limit 0))
      (forget-noted set)
      (let* ((buffered (some #'buffered-socket-p sockets))
             (result (wait-in-set set batch (if buffered 0 (min until limit)))))
        (cond ((or buffered (plusp result))
               (let ((ready (ready-among sockets (event-batch-numbers batch) (max 0 result))))
                 (when ready
                   (return ready))))
              ((or (zerop result) (= (lport-status-kind result) +lport-would-block+)))
              ((/= (lport-status-kind result) +lport-timed-out+)
               (fail result :wait))
              ((>= (lport-clock-now) until) (return nil)))))))

(defun forget-noted (set)
  "What is noted in SET from here on has been buffered since."
  (loop for entry = (take-noted set) then next
        for next = (and entry (entry-next entry))
        while entry
        do (clear-noted entry)))

(defun buffered-socket-p (socket)
  (input-buffered-p (endpoint-channel socket)))

(defun vain-socket-p (socket)
  (let ((channel (endpoint-channel socket)))
    (and (typep channel 'connection) (vain-p channel))))

(defun ready-among (sockets numbers count)
  "Those of SOCKETS that have buffered input or are in one of the COUNT events in NUMBERS."
  (let ((ready (make-hash-table)))
    (dotimes (index count)
      (setf (gethash (aref numbers (* index +lport-event-size+)) ready) t))
    (remove-if-not (lambda (socket)
                     (or (buffered-socket-p socket)
                         (and (gethash (endpoint-handle socket) ready)
                              (not (vain-socket-p socket)))))
                   sockets)))
