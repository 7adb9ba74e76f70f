;;;; direction - one thread at a time reads from a socket, one writes to it.
;;;;
;;;; Each direction of a channel has a lock of its own, which is recursive: the place that holds the
;;;; thread that owns it, or NIL. So a thread that is unwound can tell in its cleanup whether it had
;;;; the lock, and a handler that runs on the owner's stack may use the socket again. Taking it
;;;; costs one compare-and-swap, giving it back a plain store.
;;;;
;;;; A compare-and-swap costs more than all else that an operation on one element does. So the lock
;;;; can be biased towards a thread that moves much, the resident of its direction, which goes in
;;;; and out by two plain stores. Another thread that takes the lock revokes the bias first: it
;;;; evicts the resident, by a memory barrier in every thread of the process, membarrier(2).
;;;; Invariant: who has taken the owner's place has seen that no resident but itself is inside, and
;;;; that none comes in before it gives the place back.

(in-package :port)

(defmacro owner (channel direction)
  "The place of the owner of DIRECTION, :INPUT or :OUTPUT: a thread or NIL."
  (ecase direction
    (:input `(channel-input-owner ,channel))
    (:output `(channel-output-owner ,channel))))

(defmacro resident (channel direction)
  "The place of the resident of DIRECTION: a thread or NIL. Only the owner sets it."
  (ecase direction
    (:input `(channel-input-resident ,channel))
    (:output `(channel-output-resident ,channel))))

(defmacro inside (channel direction)
  "True while the resident of DIRECTION is inside. Only the resident sets it."
  (ecase direction
    (:input `(channel-input-inside ,channel))
    (:output `(channel-output-inside ,channel))))

;;; Owners

(declaim (inline another-p))
(defun another-p (thread)
  "True if THREAD, from one of these places, is a thread and not this one."
  (not (or (null thread) (eq thread (%current-thread)))))

(defmacro take-direction (channel direction)
  "Take the place of the owner of DIRECTION for this thread: true if it was free. To be called with
interrupts deferred: an interrupt that finds this thread the owner may use the socket, and one that
unwinds it gives the place back, so neither may come while a resident is inside still."
  `(when (null (%compare-and-swap (owner ,channel ,direction) nil (%current-thread)))
     (when (another-p (resident ,channel ,direction))
       (end-residence ,channel ,direction))
     t))

(defmacro leave-direction (channel direction)
  "Give back the place of the owner, which this thread has, and wake whoever waits for it."
  `(progn (%release-barrier)
          (setf (owner ,channel ,direction) nil)
          (when (channel-contended ,channel)
            (release-contended ,channel))))

(defmacro with-direction ((channel direction &optional limit) &body body)
  "Run BODY while this thread owns DIRECTION. Waits for other threads until the deadline of CHANNEL
or LIMIT, a form that is evaluated where it has to; without one, within the limits of time that hold
for CHANNEL."
  (let ((place (gensym "CHANNEL")) (run (gensym "BODY")))
    `(let ((,place ,channel))
       (flet ((,run () ,@body))
         (declare (dynamic-extent #',run))
         (if (eq (owner ,place ,direction) (%current-thread))
             (,run)
             (with-cleanup
                  (progn
                    (unless (call-nowait (take-direction ,place ,direction))
                      (take-contended ,place ,direction
                                      (lambda () (call-nowait (take-direction ,place ,direction)))
                                      (lambda () (owner ,place ,direction))
                                      ,@(and limit (list limit))))
                    (,run))
               (when (eq (owner ,place ,direction) (%current-thread))
                 (leave-direction ,place ,direction))))))))

(defparameter *contended-piece* 5000000
  "Nanoseconds after which a thread that waits for a direction looks again, woken or not.")

(defun take-contended (channel direction take owner
                       &optional (limit (call-limit channel direction)))
  "Call TAKE until it is true, waiting in between to be woken by RELEASE-CONTENDED, until LIMIT. The
owner stores and then looks at the mark CONTENDED without a fence, so it can miss a mark set at that
moment: a wait is therefore cut into pieces."
  (declare (type moment limit) (type function take owner))
  (loop
    (check-open channel (operation-of direction))
    (setf limit (check-limit channel direction (operation-of direction) limit 0)
          (channel-contended channel) t)
    (when (funcall take)
      (return))
    (when (funcall owner)
      (wait-once channel 0 (min limit
                                (channel-deadline channel direction)
                                (moment-in *contended-piece*))))))

(defun release-contended (channel)
  "A direction that others wait for is free. The mark is cleared before anybody looks for it again."
  (setf (channel-contended channel) nil)
  (lport-wait-wake (channel-handle channel) 0)
  (when (channel-relief channel)
    (funcall (the function (channel-relief channel)))))

(defmacro with-free-direction ((channel direction) &body body)
  "Run BODY while this thread owns DIRECTION, if it is free or this thread's own already; the value
of BODY, or NIL where another thread has it."
  (let ((place (gensym "CHANNEL")))
    `(let ((,place ,channel))
       (if (eq (owner ,place ,direction) (%current-thread))
           (progn ,@body)
           (with-cleanup
               (when (call-nowait (take-direction ,place ,direction))
                 ,@body)
             (when (eq (owner ,place ,direction) (%current-thread))
               (leave-direction ,place ,direction)))))))

(defmacro with-direction-now ((channel direction) &body body)
  "Run BODY, short, never blocking and never signalling, with interrupts deferred, if nobody owns
DIRECTION; its value, or NIL. This is what a call can afford that finds all it needs. What
allocates is within ALLOCATING."
  (let ((place (gensym "CHANNEL")))
    `(let ((,place ,channel))
       (call-nowait
         (when (and (%stack-room-p) (take-direction ,place ,direction))
           (prog1 (progn ,@body)
             (leave-direction ,place ,direction)))))))

(defmacro allocating ((channel direction) form)
  "Within WITH-DIRECTION-NOW the value of FORM, which allocates: if the heap is exhausted, which
unwinds it, the place of the owner is given back."
  (let ((place (gensym "CHANNEL")) (done (gensym "DONE")))
    `(let ((,place ,channel) (,done nil))
       (unwind-protect (prog1 ,form
                         (setf ,done t))
         (unless ,done
           (leave-direction ,place ,direction))))))

;;; Residents

(%defglobal *fences-p* nil)             ; true if the system has what EVICT needs

(defun look-for-fences ()
  (setf *fences-p* (zerop (lport-fence-prepare))))

(look-for-fences)
(%at-image-start 'look-for-fences)

(defconstant +much+ 1024
  "Octets of one system call from which on a thread is worth to be the resident.")

(defmacro take-residence (channel direction count)
  "Make this thread, which owns DIRECTION and has moved COUNT octets, the resident if that is much.
After one has had to leave, there is none any more."
  `(when (and (>= ,count +much+)
              (null (resident ,channel ,direction))
              (not (channel-shared ,channel))
              *fences-p*)
     (setf (resident ,channel ,direction) (%current-thread))))

(defmacro with-residence ((channel direction ready) &body body)
  "Run BODY, short, that neither blocks nor signals nor allocates, if this thread is the resident of
DIRECTION and does not own it, and READY is true, a form that only a resident pays for; its value,
or NIL."
  (let ((place (gensym "CHANNEL")))
    `(let ((,place ,channel))
       (when (and (eq (resident ,place ,direction) (%current-thread))
                  ,ready
                  (%stack-room-p))
         (call-undisturbed
           (setf (inside ,place ,direction) t)
           ;; Whoever has ended the residence since has made a fence for us here.
           (%compiler-barrier)
           (prog1 (when (and (eq (resident ,place ,direction) (%current-thread))
                             (null (owner ,place ,direction)))
                    ,@body)
             (%release-barrier)
             (setf (inside ,place ,direction) nil)))))))

(defmacro end-residence (channel direction)
  "End the residence of another thread in DIRECTION, which this thread owns: if it is inside now,
once it is out."
  `(flet ((end () (setf (resident ,channel ,direction) nil))
          (inside-p () (inside ,channel ,direction)))
     (declare (dynamic-extent #'end #'inside-p))
     (evict ,channel #'end #'inside-p)))

(defun fence-threads ()
  "A memory barrier in every thread: what each has stored so far can be seen here, and what it loads
from now on is no older than what this thread has stored."
  (unless (zerop (lport-fence))         ; not to be had: what was stored is seen in a moment too
    (sleep 1/1000)))

(defun evict (channel end inside)
  (declare (type function end inside))
  (setf (channel-shared channel) t)
  (funcall end)
  (fence-threads)
  (loop for look from 1
        while (funcall inside)
        do (if (< look 100)
               (%yield)
               (sleep 1/10000)))        ; a yield does not give it the processor
  (%acquire-barrier))
