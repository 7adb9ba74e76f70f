;;;; poller - readiness of many sockets: making pollers, and putting sockets into them. The library
;;;; knows which descriptors are ready; which sockets have input in a buffer of ours is noted in
;;;; channel/membership.lisp.

(in-package :port)

(defclass poller ()
  ((channel :initarg :channel :reader endpoint-channel :type poll-set))
  (:documentation "A set of sockets, each with the directions and a datum of the user's, that says
which of them are ready: level-triggered, without a limit of descriptors, usable from several
threads. Made by MAKE-POLLER; CLOSE closes it, not what is in it."))

(defmethod print-object ((poller poller) stream)
  (let ((set (endpoint-channel poller)))
    (print-plainly poller stream
                   (plain-format "~D socket~:P~@[ (closed)~]"
                                 (count nil (poll-set-entries set) :test-not #'eq)
                                 (channel-closing set))
                   :identity t)))

(defun check-poller (object operation)
  (check-argument operation object 'poller "a POLLER")
  (endpoint-channel object))

(defun check-pollable (object operation)
  (check-argument operation object '(or endpoint pending-connection)
                  "a SOCKET, a DATAGRAM-SOCKET, a SOCKET-SERVER or a PENDING-CONNECTION"))

(defun make-poller ()
  "Return a new POLLER, without sockets. It is to be closed by CLOSE; a thread that is in
POLLER-WAIT then gets SOCKET-CLOSED. Conditions: RESOURCE-EXHAUSTED. Source: epoll_create1(2)."
  (make-poller-with +lport-poller-best+))

(defun make-poller-with (backend)
  "A poller on BACKEND, one of the numbers +LPORT-POLLER-...+."
  (opened (open-endpoint (lambda () (lport-poller-open backend))
                         (lambda (handle)
                           (make-instance 'poller :channel (make-poll-set :handle handle))))
          :open))

;;; Failing

(defun closed-p (status)
  (= (lport-status-kind status) +lport-closed+))

(defun fail-of-set (set status)
  "Signal the condition for STATUS of SET. What is closed for the library, and was not closed here,
was made in another process, of which this one is a fork or a saved image."
  (fail-on set status :wait
           :message (and (closed-p status)
                         (if (channel-closing set)
                             "the poller is closed"
                             "the poller is another process's"))))

(defun check-set (set)
  "Signal SOCKET-CLOSED if SET is closed."
  (when (channel-closing set)
    (fail-of-set set (lport-status-make +lport-closed+))))

;;; What is in them

(defun interest-bits (input output)
  (logior (if input +lport-input+ 0) (if output +lport-output+ 0)))

(defun poller-add (poller socket &key (output nil) (input (not output)) once timeout data)
  "Put SOCKET, of any kind, or a PENDING-CONNECTION, into POLLER, and return it. INPUT true (the
default unless OUTPUT is given): report when there is input, buffered or not, a connection to
accept, or end of file, or FINISH-CONNECT is worth a call; OUTPUT true: when there is room to write;
neither: nothing for now, see POLLER-MODIFY. ONCE true: an event is reported to one thread, and no
other until that, or whoever has dealt with the socket, calls POLLER-MODIFY: so threads that share
POLLER do not meet in a socket. TIMEOUT: how many seconds may pass without an event of SOCKET, and
again after each, or after POLLER-MODIFY, before there is one with the flag :TIMEOUT; NIL: any
number. DATA, any object, comes with its events. The poller keeps SOCKET from becoming garbage until
POLLER-REMOVE, or until it is closed, by whomever: then it leaves by itself.
Conditions: USAGE-ERROR, SOCKET is in POLLER already; SOCKET-CLOSED; RESOURCE-EXHAUSTED.
Source: epoll_ctl(2)."
  (let ((set (check-poller poller :wait))
        (channel (endpoint-channel (check-pollable socket :wait)))
        (interest (interest-bits input output))
        (span (span-of timeout)))
    (check-set set)
    (check-open channel :wait)
    (let ((status (add-entry set (make-entry :set set :socket socket :channel channel :data data
                                             :asked interest :interest interest
                                             :once (and once t) :span span))))
      (when (minusp status)
        (fail-in set channel status "is in ~A already" poller)))
    socket))

(defun add-entry (set entry)
  "Add ENTRY to SET on both sides; the library's status."
  (let ((channel (entry-channel entry)) (status 0) (sooner nil))
    (call-deferred
      (%with-lock ((poll-set-lock set))
        (setf status (lport-poller-add (channel-handle set) (channel-handle channel)
                                       (entry-interest entry)))
        (unless (minusp status)
          (note-once set entry)
          (setf (entry-turn entry) (incf (poll-set-turn set))
                sooner (begin-silence set entry))
          (store-entry set entry)
          (join-members entry)))
      (unless (minusp status)
        (when (or (minusp (lport-socket-state (channel-handle channel)))
                  (channel-closing set))
          (forget-entry entry))         ; closed just now, before it could see this
        (note-if-buffered channel)
        (when sooner
          (tell-of-round set))))
    status))

(defun fail-in (set channel status control &rest arguments)
  "Signal the condition for STATUS, which the library gave for CHANNEL in SET; of LPORT-INVALID
CONTROL and ARGUMENTS say the reason."
  (cond ((= (lport-status-kind status) +lport-invalid+)
         (fail-as 'usage-error :wait :invalid :socket (channel-socket channel)
                  :message "the socket ~?" :arguments (list control arguments)))
        ((and (closed-p status)
              (not (minusp (lport-socket-state (channel-handle channel)))))
         (fail-of-set set status))
        (t (fail-on channel status :wait))))

(defun note-once (set entry)
  "From now on what a wait in SET finds may have to be claimed, if ENTRY wants that."
  (when (entry-once entry)
    (setf (poll-set-once set) t)))

(defun poller-modify (poller socket &key (input nil input-p) (output nil output-p)
                                      (once nil once-p) (timeout nil timeout-p)
                                      (data nil data-p))
  "Change what POLLER reports of SOCKET, which is in it: INPUT, OUTPUT, ONCE, TIMEOUT and DATA as of
POLLER-ADD; each that is not given stays as it was given last. With ONCE the next event is waited
for from here on, and TIMEOUT counts from here. Waits under way in other threads obey it. Returns
SOCKET. Conditions: USAGE-ERROR, SOCKET is not in POLLER; SOCKET-CLOSED; RESOURCE-EXHAUSTED, and
then nothing has changed. Source: epoll_ctl(2)."
  (let* ((set (check-poller poller :wait))
         (channel (endpoint-channel (check-pollable socket :wait)))
         (entry (find-entry set (channel-handle channel)))
         (span (span-of timeout))
         (status (lport-status-make +lport-invalid+)))
    (check-set set)
    (check-open channel :wait)
    (flet ((changes ()
             (let ((asked (entry-asked entry)))
               (values (interest-bits (if input-p input (logtest asked +lport-input+))
                                      (if output-p output (logtest asked +lport-output+)))
                       (if once-p (and once t) (entry-once entry))
                       (if timeout-p span (entry-span entry))
                       (if data-p data (entry-data entry))))))
      (declare (dynamic-extent #'changes))
      (when entry
        (setf status (change-entry entry #'changes))))
    (when (minusp status)
      (fail-in set channel status "is not in ~A" poller))
    socket))

(defmacro with-entry ((entry set handle) &body body)
  "The value of BODY, with the lock of SET, which ENTRY is of, and HANDLE, that of its socket; what
the library would say, where ENTRY has left meanwhile. To be called with interrupts deferred."
  (let ((place (gensym "ENTRY")))
    `(let* ((,place ,entry)
            (,set (entry-set ,place))
            (,handle (channel-handle (entry-channel ,place))))
       (%with-lock ((poll-set-lock ,set))
         (if (eq ,place (find-entry ,set ,handle))
             (progn ,@body)
             (lport-status-make (if (or (channel-closing ,set)
                                        (channel-closing (entry-channel ,place)))
                                    +lport-closed+
                                    +lport-invalid+)))))))

(defun ask-for-events (set entry handle interest)
  "Let the library report INTEREST of ENTRY in SET, to whomever it may be; its status. With the lock
held."
  (let ((status (lport-poller-modify (channel-handle set) handle interest)))
    (unless (minusp status)
      (setf (entry-interest entry) interest
            (entry-taken entry) nil
            (entry-turn entry) (incf (poll-set-turn set))))
    status))

(defmacro asking ((entry set handle sooner) &body body)
  "As WITH-ENTRY, of a BODY that asks for events and sets SOONER to what BEGIN-SILENCE says."
  (let ((place (gensym "ENTRY")))
    `(let ((,place ,entry) (,sooner nil))
       (prog1 (with-entry (,place ,set ,handle) ,@body)
         (note-if-buffered (entry-channel ,place))
         (when ,sooner
           (tell-of-round (entry-set ,place)))))))

(defun change-entry (entry changes)
  "Give ENTRY the interest, ONCE, span and datum that CHANGES returns, which is called with the lock
held; the library's status, and if that is one, nothing has changed."
  (declare (type function changes))
  (call-deferred
    (asking (entry set handle sooner)
      (multiple-value-bind (interest once span data) (funcall changes)
        (let* ((old-data (shiftf (entry-data entry) data)) ; these first: an event may come at once
               (old-once (shiftf (entry-once entry) once))
               (status (progn (note-once set entry)
                              (ask-for-events set entry handle interest))))
          (if (minusp status)
              (setf (entry-data entry) old-data
                    (entry-once entry) old-once)
              (setf (entry-asked entry) interest
                    (entry-span entry) span
                    sooner (begin-silence set entry)))
          status)))))

(defun poller-remove (poller socket)
  "Take SOCKET out of POLLER: true if it was in it. It stays open. A wait under way in another
thread may still report it. Source: epoll_ctl(2)."
  (let* ((set (check-poller poller :wait))
         (channel (endpoint-channel (check-pollable socket :wait)))
         (entry (find-entry set (channel-handle channel))))
    (when entry
      (call-deferred
        (lport-poller-remove (channel-handle set) (channel-handle channel))
        (forget-entry entry))
      t)))

(defun input-buffered-p (channel)
  (and (typep channel 'connection) (has-input-p channel)))

(defun note-if-buffered (channel)
  "To be called with interrupts deferred."
  (when (input-buffered-p channel)
    (note-members channel)))

;;; Waking and closing

(defun poller-wake (poller)
  "Make one POLLER-WAIT return NIL at once: one that is under way in another thread, or else the
next.
Several calls before that count as one. Never blocks. Returns NIL. Condition: SOCKET-CLOSED."
  (let ((set (check-poller poller :wait)))
    (check-set set)
    (setf (poll-set-woken set) t)
    (let ((status (lport-poller-wake (channel-handle set))))
      (when (minusp status)
        (fail-of-set set status)))
    nil))

(defmethod close ((poller poller) &key abort)
  "Wake whoever is in POLLER-WAIT, with SOCKET-CLOSED, and forget the sockets, which stay open."
  (declare (ignore abort))
  (let ((set (endpoint-channel poller)))
    (call-deferred
      (when (begin-close set)
        (close-handle set nil)
        (%closed-in-time poller)
        (loop for entry across (poll-set-entries set)
              when entry
                do (forget-entry entry))))
    t))
