;;;; unwinding - threads that are thrown out of dial, accept, read and close at random moments: what
;;;; they had opened is closed, or can be. (For as long as one likes: `make stress`.)

(in-package :port/test)

(define-suite unwinding "Unwound at random moments.")

(defstruct (blow (:copier nil) (:predicate nil))
  "STEP: what a thread is at; STRUCK: what it was at when it was struck; HELD: the sockets that it
had names for."
  step struck (held '()))

(defvar *blow* nil "The blow that is to fall on this thread.")

(defun begin-step (step)
  (setf (blow-step *blow*) step))

(defun note-blow ()
  "Unwinding has steps too: what counts is the one that is left."
  (setf (blow-struck *blow*) (blow-step *blow*)))

(defun hold (socket)
  (push socket (blow-held *blow*))
  socket)

(defun talk-once (number server)
  "Dial, accept, read, time out, close."
  (setf (blow-held *blow*) '())
  (begin-step :dial)
  (handler-case
      (with-open-socket (client "127.0.0.1" number :timeout 5)
        (hold client)
        (begin-step :accept)
        (let ((peer (hold (socket-accept server :wait 5))))
          (unwind-protect
               (progn (send-octets peer "x")
                      (begin-step :read)
                      (setf (socket-timeout client :input) 0.0001)
                      (loop repeat 2 do (read-char client)))
            (begin-step :close)
            (close peer :abort t))))
    (network () nil)))

;;; Three kinds of blows

(defun strike-from-outside (blow talk seconds strike)
  "Call TALK again and again on a thread, which STRIKE, called in it after SECONDS, ends."
  (let* ((inside nil)
         (thread (sb-thread:make-thread (lambda ()
                                          (let ((*blow* blow))
                                            (catch 'out
                                              (setf inside t)
                                              (loop (funcall talk))))))))
    (loop until inside
          do (sb-thread:thread-yield))
    (sleep seconds)
    (sb-thread:interrupt-thread thread (lambda ()
                                         (note-blow)
                                         (funcall strike)))
    (sb-thread:join-thread thread :default nil)))

(defun throw-out (blow talk seconds)
  (strike-from-outside blow talk seconds
                       (lambda ()
                         (throw 'out nil))))

(defun kill (blow talk seconds)
  (strike-from-outside blow talk seconds #'sb-thread:abort-thread))

(defun time-out (blow talk seconds)
  (let ((*blow* blow))
    (handler-case
        (handler-bind ((sb-ext:timeout (lambda (condition)
                                         (declare (ignore condition))
                                         (note-blow))))
          (sb-ext:with-timeout seconds
            (loop (funcall talk))))
      (sb-ext:timeout () nil))))

(defun strike-often (count talk server)
  "Strike TALK, which accepts from SERVER, by all three kinds in turn, COUNT times. Values: a plist
from each step to how often it was struck; the sockets that could not be closed afterwards."
  (let ((state (sb-ext:seed-random-state (test-seed))) (steps '()) (stuck '()))
    (dotimes (round count)
      (let ((blow (make-blow)))
        (funcall (svref #(throw-out time-out kill) (mod round 3))
                 blow talk (/ (1+ (random 500 state)) 1000000))
        (incf (getf steps (blow-struck blow) 0))
        (setf stuck (nconc (delete-if #'closed-for-good-p (blow-held blow)) stuck))
        (take-all server)                ; dead clients, which nobody could read from
        (when (zerop (mod round 1000))   ; what was struck before it had a name
          (sb-ext:gc :full t))))
    (values steps stuck)))

(defun closed-for-good-p (socket)
  (and (eq t (close socket :abort t))
       (not (open-stream-p socket))
       (typep (failure-of (socket-descriptor socket)) 'socket-closed)))

(define-test unwinding.ten-thousand-blows (:behaviour 26 :limit 120)
  "No descriptor, no handle, no wait is left, and everything can be closed."
  (with-socket-server (server 0 :host "127.0.0.1")
    (let* ((number (port-of server))
           (count (amount 10000))
           (talk (lambda () (talk-once number server)))
           (before (open-things)))
      ;; undisturbed: what the Lisp compiles at the first use it compiles here
      (let ((*blow* (make-blow)))
        (funcall talk))
      (multiple-value-bind (steps stuck) (strike-often count talk server)
        (is (null stuck) "cannot be closed: ~A" stuck)
        (unless (weather-p)             ; in bad weather nearly all of the time goes to one
          (dolist (step '(:dial :accept :read :close))
            (is (<= (floor count 50) (getf steps step 0)) "of ~D blows: ~S" count steps))))
      (take-all server)
      (is (wait-until (lambda ()
                        (sb-ext:gc :full t)
                        (null (leaks before)))
                      10)
          "~A" (leaks before)))))

;;; At the moment of the making, with certainty; nothing is left for the collector.

(defun opening-ways (server)
  "Functions that open something, one of them by taking a connection from SERVER."
  (let ((number (port-of server)) (path (temporary-path)))
    (list (lambda () (open-socket "127.0.0.1" number))
          (lambda () (begin-connect "127.0.0.1" number))
          (lambda () (socket-accept server))
          (lambda () (open-socket-server 0))
          (lambda () (open-unix-server path))
          (lambda () (open-datagram-socket :host "127.0.0.1"))
          (lambda () (open-socket-pair))
          (lambda () (open-socket-pair :kind :datagram))
          (lambda () (make-poller))
          (lambda () (adopt-descriptor (duplicate server))))))

(define-test unwinding.what-was-just-made (:behaviour 26 :weather nil)
  "An interrupt that comes while a socket is made, and unwinds, leaves nothing open."
  (with-socket-server (server 0 :host "127.0.0.1")
    (dolist (way (opening-ways server))
      (with-open-socket (client "127.0.0.1" (port-of server)) ; for who accepts
        (mapc #'close (multiple-value-list (funcall way))) ; what is compiled at the first use is
        (take-all server)
        (with-open-socket (client "127.0.0.1" (port-of server))
          (let ((before (open-things)) (armed t))
            (is (eq :out (catch 'out
                           (call-interrupting 'port::register-endpoint way
                                              (lambda ()
                                                (when (shiftf armed nil)
                                                  (throw 'out :out)))))))
            (is (null (leaks before)) "~A" (leaks before)))))
      (take-all server))))

(define-test unwinding.what-was-just-received (:behaviour 26 :weather nil)
  "An interrupt that comes while descriptors are received, and unwinds, leaves none of them open."
  (do-local-pairs (a b)
    (send-descriptors a '(0 0))
    (let ((before (open-things)))
      (is (eq :out (catch 'out
                     (call-interrupting 'port::received-descriptors
                                        (lambda () (receive-descriptors b 2))
                                        (lambda () (throw 'out :out))))))
      (is (null (leaks before)) "~A" (leaks before)))
    (send-descriptors a '(0))
    (is (= 0 (system-call "close" (first (receive-descriptors b 1)))))))

(define-test unwinding.what-is-just-detached (:behaviour 26 :weather nil)
  "An interrupt that comes while a descriptor is detached, and unwinds, leaves it with its socket or
closed."
  (loop for (name . nths) in '((port::check-all-read 1 2) (port::finish-both-sides 1 2)
                               (port::detach-handle 1) (port::take-descriptor 1 2))
        do (dolist (nth nths)
             (let ((before (open-things)))
               (with-pair (a b)
                 (is (eq :out (throw-at name nth (lambda () (detach-descriptor a)))) "~A ~D" name
                     nth)
                 (when (open-stream-p a)
                   (is (eq name 'port::check-all-read))
                   (close a))
                 (is (eq :end (read-line b nil :end)) "~A ~D" name nth))
               (is (null (leaks before)) "~A ~D: ~A" name nth (leaks before))))))

(define-test unwinding.zones (:behaviour 26)
  "The system opens a descriptor to look up the zone of an address, and the zone's name."
  (let* ((index (network-interface-index (first (network-interfaces))))
         (text (format nil "fe80::1%~D" index))
         (before (progn (princ-to-string (parse-address text)) (open-things))))
    (dotimes (round 100)
      (throw-out (make-blow) (lambda () (parse-address (princ-to-string (parse-address text))))
                 (/ round 100000)))
    (is (null (leaks before)) "~A" (leaks before))))

;;; Between two steps of one call, with certainty

(defun throw-at (name nth function)
  "Call FUNCTION and throw it out of its first call of the function NAME: as that begins, NTH 1, or
has returned, NTH 2. Interrupts that are deferred there come later. :OUT if it was thrown out."
  (let ((count 0))
    (catch 'out
      (call-interrupting name function (lambda ()
                                         (when (= nth (incf count))
                                           (throw 'out :out)))))))

(define-test unwinding.events-of-buffered-input (:behaviour 26 :weather nil)
  "A wait that is thrown out while it looks at what is buffered forgets nothing of it."
  (with-pair (a b)
    (with-pair (c d)
      (with-poller (poller)
        (send-octets a 1)
        (send-octets c 1)
        (fill-buffer b 1)
        (fill-buffer d 1)
        (poller-add poller b)
        (poller-add poller d)
        (flet ((ready ()
                 (mapcar #'first (poller-wait poller :timeout 5))))
          (dolist (name '(port::add-buffered-event port::note-entry))
            (dolist (nth '(1 2))
              (is (eq :out (throw-at name nth #'ready)))
              (is (null (set-exclusive-or (list b d) (ready))) "~A ~D" name nth))))))))

(define-test unwinding.events-of-once (:behaviour 26 :weather nil)
  "What a wait that is thrown out has claimed is for the next one."
  (with-pair (a b)
    (with-pair (c d)
      (with-poller (poller)
        (send-octets a 1)
        (send-octets c 1)
        (fill-buffer d 1)
        (poller-add poller b :once t)
        (poller-add poller d :once t)
        (flet ((ready ()
                 (mapcar #'first (poller-wait poller :timeout 5))))
          (dolist (name '(port::claim-entry port::event-list))
            (is (eq :out (throw-at name 1 #'ready)))
            (is (null (set-exclusive-or (list b d) (ready))) "~A" name)
            (is (null (poller-wait poller :timeout 0)))
            (poller-modify poller b)
            (poller-modify poller d)))))))

(define-test unwinding.events-of-silence (:behaviour 26 :weather nil)
  "What a wait that is thrown out has found silent the next one finds silent."
  (with-pair (a b)
    (with-poller (poller)
      (poller-add poller a :timeout 0.01)
      (dolist (name '(port::make-round port::event-list))
        (is (eq :out (throw-at name 1 (lambda () (poller-wait poller :timeout 20)))))
        (is (equal `((,a nil :timeout)) (poller-wait poller :timeout 20)) "~A" name))
      (is-true b))))

(define-test unwinding.buffered-input-of-who-joins (:behaviour 26 :weather nil)
  "An addition to a poller that is thrown out is made as a whole, or not at all."
  (dolist (name '(port::note-members port::note-entry))
    (with-pair (a b)
      (with-poller (poller)
        (send-octets a 1)
        (fill-buffer b 1)
        (is (eq :out (throw-at name 1 (lambda () (poller-add poller b)))))
        (is (eq b (first (first (poller-wait poller :timeout 0)))) "~A" name)))))

(define-test unwinding.what-leaves-a-poller (:behaviour 26 :weather nil)
  "It has left on both sides, or on none."
  (with-pair (a b)
    (with-poller (poller)
      (poller-add poller b)
      (is (eq :out (throw-at 'port::forget-entry 1 (lambda () (poller-remove poller b)))))
      (is (not (poller-remove poller b)))
      (poller-add poller b)
      (is (poller-remove poller b)))))

(define-test unwinding.a-wake (:behaviour 26 :weather nil)
  "A wake that a wait had got when it was thrown out is there for the next one, once."
  (with-poller (poller)
    (flet ((look ()
             (multiple-value-list (poller-wait poller :timeout 0))))
      (poller-wake poller)
      (is (eq :out (throw-at 'port::wait-in-set 2 #'look)))
      (is (equal '(nil t) (look)))
      (is (equal '(nil nil) (look))))))

(define-test unwinding.a-close-that-has-not-begun (:behaviour 26 :weather nil)
  "The forms that close do so although an interrupt unwinds the close."
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((before (open-things)) (number (port-of server)) (armed nil))
      (flet ((strike (function)
               (setf armed nil)
               (is (eq :out (catch 'out
                              (call-interrupting 'port::close-endpoint function
                                                 (lambda ()
                                                   (when (shiftf armed nil)
                                                     (throw 'out :out)))))))
               (take-all server)
               (is (null (leaks before)) "~A" (leaks before))))
        (strike (lambda ()
                  (with-open-socket (socket "127.0.0.1" number)
                    (setf armed (streamp socket)))))
        (strike (lambda ()
                  (with-socket-server (other 0 :host "127.0.0.1")
                    (setf armed (and other t)))))
        (strike (lambda ()
                  (with-datagram-socket (socket :host "127.0.0.1")
                    (setf armed (and socket t)))))))))

(define-test unwinding.a-service-that-has-just-begun (:behaviour 26 :weather nil)
  "Nobody knows it, so it ends: its threads, and the listeners that it opened."
  (with-socket-server (given 0 :host "127.0.0.1")
    (let ((before (open-things)) (threads (sb-thread:list-all-threads)))
      (is (eq :out (throw-at 'port::add-thread 2
                             (lambda () (serve #'read-line (list 0 given) :host "127.0.0.1")))))
      (is (wait-until (lambda ()
                        (null (set-difference (sb-thread:list-all-threads) threads)))))
      (is (null (leaks before)) "~A" (leaks before))
      (is (null (socket-accept given :wait 0)) "a server that was given is open still"))))

(define-test unwinding.a-service-that-has-a-client-already (:behaviour 26 :weather nil)
  "Who is thrown out of SERVE does not wait for what a function does with a client."
  (let ((inside (sb-thread:make-semaphore)) (client nil) (began nil))
    (flet ((throw-out (listener)
             (setf client (open-socket "127.0.0.1" (port-of listener) :input-timeout 10))
             (sb-thread:wait-on-semaphore inside :timeout 10)
             (setf began (lport-clock-now))
             (throw 'out :out)))
      (sb-int:encapsulate 'port::add-thread 'throw
                          (lambda (add service)
                            (sb-int:unencapsulate 'port::add-thread 'throw)
                            (prog1 (funcall add service)
                              (let ((listener (caar (port::service-listeners service))))
                                ;; which comes once interrupts are not deferred any more
                                (sb-thread:interrupt-thread sb-thread:*current-thread*
                                                            (lambda () (throw-out listener)))))))
      (is (eq :out (catch 'out
                     (serve (lambda (socket)
                              (sb-thread:signal-semaphore inside)
                              (read-line socket))
                            0 :host "127.0.0.1" :on-error (constantly nil)))))
      (is (< (- (lport-clock-now) began) 3000000000))
      (is (typep (failure-of (read-byte client)) 'connection-reset))
      (close client))))

(define-test unwinding.a-file-that-was-just-opened (:behaviour 26 :weather nil)
  (uiop:with-temporary-file (:pathname path)
    (with-pair (a b)
      (let ((before (open-things)))
        (dolist (nth '(1 2))
          (is (eq :out (throw-at 'open nth (lambda () (send-file a path)))))
          (is (null (leaks before)) "~A" (leaks before)))))))

(define-test unwinding.a-connection-that-begins-with-tls (:behaviour 26 :weather nil)
  "Nobody knows it before its handshake is done, so it is closed; one that was there goes on."
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((before (open-things)) (number (port-of server)))
      (loop for (name nth) in '((port::begin-session 1) (port::begin-session 2)
                                (port::shake-hands 1))
            do (is (eq :out (throw-at name nth (lambda ()
                                                 (open-tls-socket "127.0.0.1" number
                                                                  :context (client-context))))))
               (take-all server)
               (is (null (leaks before)) "~A ~D: ~A" name nth (leaks before))
               (with-pair (client peer :inet)
                 (is (eq :out (throw-at name nth (lambda () (begin-as-client client)))))
                 (agree client peer)
                 (send-octets client "as ever" 10)
                 (is (equal "as ever" (read-line peer))))))))

(define-test unwinding.an-interrupt-that-writes-anywhere (:weather nil)
  "Whatever a flush is at when an interrupt writes: all is sent."
  (dolist (name '(port::call-trying port::send-pending port::drop-output))
    (with-pair (a b)
      (let ((connection (channel-of a)) (written 1))
        (setf (socket-deadline b :input) 5)
        (write-byte 1 a)
        (call-interrupting name
                           (lambda ()
                             (port::with-output (connection)
                               (port::flush connection)))
                           (lambda ()
                             (write-byte (incf written) a)))
        (finish-output a)
        (loop for octet from 1 to written
              do (is (eql octet (read-byte b)) "~A" name))))))

;;; Where the memory ends

(defun call-without-memory (name function)
  "Call FUNCTION while the function NAME finds that the memory has ended; true if it was told so."
  (sb-int:encapsulate name 'exhausted (lambda (original &rest arguments)
                                        (declare (ignore original arguments))
                                        (error 'storage-condition)))
  (unwind-protect (handler-case (progn (funcall function) nil)
                    (storage-condition () t))
    (sb-int:unencapsulate name 'exhausted)))

(define-test unwinding.the-end-of-the-memory-while-something-is-made (:weather nil)
  (with-socket-server (server 0 :host "127.0.0.1")
    (dolist (way (opening-ways server))
      (with-open-socket (client "127.0.0.1" (port-of server)) ; for who accepts
        (let ((before (open-things)))
          (is (call-without-memory 'port::register-endpoint way))
          (is (null (leaks before)) "~A" (leaks before))))
      (take-all server))))

(define-test unwinding.the-end-of-the-memory-where-a-buffer-is-taken (:weather nil)
  "Other threads can read and write then."
  (with-pair (a b)
    (flet ((without-buffers (function)
             (fill port::*pool* nil)
             (is (call-without-memory 'port::search-buffer function))))
      (without-buffers (lambda () (write-char #\a a)))
      (without-buffers (lambda () (write-string "a" a)))
      (without-buffers (lambda () (write-octets a (blank 1))))
      (send-octets a 98 10 99 100)
      (without-buffers (lambda () (read-char b)))
      (without-buffers (lambda () (read-octets b (blank 1))))
      (is (equal "b" (join (in-thread (lambda ()
                                        (setf (socket-deadline a :output) 5
                                              (socket-deadline b :input) 5)
                                        (write-char #\d a)
                                        (finish-output a)
                                        (read-line b)))))))))

(define-test unwinding.the-end-of-the-memory-in-a-long-line (:weather nil)
  "Nothing that a peer can make as large as it likes is allocated where interrupts are deferred:
SBCL takes the end of the memory there for a corruption of its own."
  (with-pair (a b)
    (let ((line (make-string 300000 :initial-element #\x)) (connection (channel-of b)))
      (flet ((buffer-size ()
               (length (port::connection-in connection))))
        (let ((writer (in-thread (lambda () (write-line line a) (finish-output a)))))
          (dolist (call (list (lambda () (read-line b))
                              (lambda () (peek-octets b (blank 100000)))))
            (let ((size (progn (fill-buffer b 65536) (buffer-size))))
              (is (eq :out (throw-at 'port::enlarge-input 1 call)))
              (is (= size (buffer-size)) "it has grown before the interrupt came")))
          (is (equal line (read-line b)))
          (join writer))))))

(defun is-made-with-interrupts-let-in (size format width more end)
  "The string of a line of SIZE octets and END in FORMAT is, and where there is no room for it the
line is there for the next call. It has SIZE by WIDTH characters and MORE."
  (with-pair (a b)
    (setf (stream-external-format b) format)
    (let ((line nil)
          (writer (in-thread (lambda ()
                               (write-octets a (blank size))
                               (write-octets a (coerce end '(vector (unsigned-byte 8))))
                               (finish-output a)))))
      (handler-bind ((decoding-error (lambda (condition)
                                       (declare (ignore condition))
                                       (replace-character #\?))))
        (flet ((look ()
                 (setf line (read-line b))))
          (is (eq :out (throw-at 'port::trimmed 1 #'look)) "~S ~D" format size)
          (is-true (call-without-memory 'port::trimmed #'look) "~S ~D" format size)
          (is (null line))
          (look)
          (is (= (+ more (/ size width)) (length line)) "~S ~D" format size)))
      (join writer))))

(define-test unwinding.the-end-of-the-memory-in-a-line-that-is-there (:weather nil)
  "Its string is made with interrupts let in, whatever the line is made of, and also where all of it
is in a buffer of the usual size."
  (loop for (format width more . end) in '((:utf-8 1 1 195 169 10) (:utf-8 1 1 200 10)
                                           ((:utf-8 :eol :crlf) 1 0 13 10) (:latin-1 1 0 10)
                                           (:utf-16le 2 0 10 0))
        do (dolist (size '(200000 60000))
             (is-made-with-interrupts-let-in size format width more end))))

;;; Where the buffer is not what it was

(define-test unwinding.a-buffer-that-is-emptied-and-filled (:weather nil)
  "Interrupts may empty a buffer that is about to grow, and fill another one before it has grown."
  (with-pair (a b)
    (let ((connection (channel-of b)) (count 0))
      (send-octets a 7)
      (sb-int:encapsulate 'port::move-input 'filling
                          (lambda (original &rest arguments)
                            (fill-buffer b 1)
                            (if (= 100 (incf count))
                                (throw 'stuck :stuck)
                                (apply original arguments))))
      (unwind-protect
           (is (not (eq :stuck (catch 'stuck
                                 (port::find-input-room connection)))))
        (sb-int:unencapsulate 'port::move-input 'filling))
      (is (eql 7 (read-byte b))))))
