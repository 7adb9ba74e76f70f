;;;; roles - what the threads do.

(in-package :port/stress)

(defvar *stop* nil "True when all but the servers are to end.")
(defvar *servers-stop* nil "True when they are, too.")

(defconstant +connection-reset-by-peer+ 104 "ECONNRESET of Linux.")

(defun role (name function &optional (ended-p (lambda () *stop*)))
  "Start a thread that calls FUNCTION again and again with a random state, until ENDED-P. An error
that is none of the game is a surprise."
  (let ((state (sb-ext:seed-random-state (sxhash (format nil "~A ~A" name (new-number))))))
    (sb-thread:make-thread
     (lambda ()
       (loop until (funcall ended-p)
             do (handler-case (funcall function state)
                  (error (condition)
                    (surprise "~A: ~A" name condition)))))
     :name name)))

;;; Servers

(defun serve-one (place)
  "Take the next connection of PLACE and answer it."
  (let ((peer (funcall (place-take place))))
    (when peer
      (note :accepted)
      (setf (svref *served* (random 64)) peer)
      (unwind-protect
           (handler-case (with-deadline (*patience*) (answer peer))
             (timeout (condition) (explain-silence peer condition))
             (network () (note :ended-early)))
        (handler-case (close peer)
          (timeout (condition) (surprise "close hangs: ~A" condition))
          (network () (note :ended-early)))))))

(defun close-a-served-one (state)
  "Close a socket under the thread that uses it."
  (let ((socket (svref *served* (random 64 state))))
    (when socket
      (handler-case (close socket :abort (zerop (random 2 state)))
        (network () nil))
      (note :closed-under-users))
    (sleep (/ (random 20.0 state) 1000))))

;;; Steady clients

(defun call-steadily (name function)
  "Call FUNCTION; its connection may be closed by the other side, and nothing else may happen."
  (handler-case (with-deadline (*patience*) (funcall function))
    (timeout (condition) (surprise "~A hangs: ~A" name condition))
    (connection-lost () (note :reset-by-server))
    (end-of-file () (note :reset-by-server))
    (connect-error (condition)
      ;; A server that is closed with a reset right after its accept can be faster than the client
      ;; looks whether it is connected: the system then says ECONNRESET.
      (cond ((eql +connection-reset-by-peer+ (network-errno condition))
             (note :reset-while-dialling))
            (t (note :refused)
               (surprise "~A: ~A, errno ~A" name condition (network-errno condition)))))
    (address-not-available () (note :out-of-ports) (sleep 0.1))))

(defun talk-steadily (place state)
  (call-steadily (format nil "client of ~A" (place-name place))
                 (lambda ()
                   (let ((socket (funcall (place-dial place))))
                     (note :dialled)
                     (unwind-protect (converse socket state (1+ (random 5 state)))
                       (close socket :abort (zerop (random 4 state)))))))
  (sleep (/ (random 20.0 state) 1000)))

(defun storm (place state)
  "Connect and reset, again and again."
  (call-steadily (format nil "storm at ~A" (place-name place))
                 (lambda ()
                   (loop repeat 20
                         do (close (funcall (place-dial place)) :abort t)
                            (note :stormed))))
  (sleep (/ (random 100.0 state) 1000)))

(defun reuse-descriptors (state)
  "Keep the numbers of descriptors moving."
  (call-steadily "pairs"
                 (lambda ()
                   (let ((pairs (loop repeat (1+ (random 8 state))
                                      collect (multiple-value-list (open-socket-pair))))
                         (number (new-number)))
                     (loop for (a b) in pairs
                           for sent = (fill-tagged (octets 50) number 0)
                           for received = (octets 50)
                           do (write-sequence sent a)
                              (close a)
                              (check-tagged received (read-sequence received b) number 0 "pair")
                              (close b)
                              (note :pairs)))))
  (sleep 0.005))

;;; Victims

(defvar *inside* nil "True while the thread may be thrown out.")

(defun talk-carelessly (place state)
  "As a steady client, but for how it ends."
  (handler-case
      (let ((socket (funcall (place-dial place))))
        (unwind-protect (converse socket state (1+ (random 5 state)))
          (close socket :abort t)))
    (network () nil)
    (end-of-file () nil)))

(defun talk-under-timeout (place state)
  "As TALK-CARELESSLY, timed out from outside after a random time."
  (handler-case (sb-ext:with-timeout (/ (1+ (random 3000 state)) 1000000)
                  (talk-carelessly place state))
    (sb-ext:timeout () (note :timed-out-from-outside))))

(defun accept-own (place state)
  "Accept from a server of its own and close it."
  (declare (ignore place))
  (handler-case
      (with-socket-server (server 0 :host "127.0.0.1")
        (with-open-socket (client "127.0.0.1" (nth-value 1 (socket-server-host/port server)))
          (let ((peer (socket-accept server :wait 1)))
            (when peer
              (setf (socket-timeout peer :input) (/ (random 2000 state) 1000000))
              (unwind-protect (read-line peer)
                (close peer))))))
    (network () nil)
    (end-of-file () nil)))

(defun start-victim (places state)
  "A thread that talks in every way until it is thrown out or killed."
  (let ((state (make-random-state state)))
    (sb-thread:make-thread
     (lambda ()
       (catch 'out
         (let ((*inside* t))
           (loop until *stop*
                 do (let ((place (aref places (random (length places) state))))
                      (case (random 3 state)
                        (0 (talk-carelessly place state))
                        (1 (talk-under-timeout place state))
                        (2 (accept-own place state))))))))
     :name "victim")))

(defun strike (victim state)
  "Throw VICTIM out of what it does, or kill it, after a random moment."
  (sleep (/ (random 3.0 state) 1000))
  (handler-case
      (if (zerop (random 2 state))
          (progn (sb-thread:interrupt-thread victim (lambda ()
                                                      (when *inside* (throw 'out nil))))
                 (note :thrown-out))
          (progn (sb-thread:terminate-thread victim)
                 (note :killed)))
    (sb-thread:interrupt-thread-error () nil)))

(defun strike-until-it-ends (victim state)
  "A throw may find the victim not yet inside, or lose against a timeout that comes while the victim
unwinds: then it is repeated."
  (loop repeat (* 10 *patience*)
        do (strike victim state)
           (sb-thread:join-thread victim :default nil :timeout 0.1)
        while (sb-thread:thread-alive-p victim)
        finally (when (sb-thread:thread-alive-p victim)
                  (surprise "a victim does not end"))))

(defun torment (places state)
  (strike-until-it-ends (start-victim places state) state))

;;; Weather

(defun collect-garbage (state)
  (sb-ext:gc :gen (if (zerop (random 20 state)) 2 0))
  (note :collections)
  (sleep 0.05))

(defun send-signals (state)
  "1,000 signals a second, each to a thread at random."
  (let ((threads (sb-thread:list-all-threads)))
    (loop repeat 20
          do (let ((thread (nth (random (length threads) state) threads)))
               (unless (eq thread sb-thread:*current-thread*)
                 (handler-case
                     (progn (sb-thread:interrupt-thread thread (lambda () (note :signals)))
                            (note :signals-sent))
                   (sb-thread:interrupt-thread-error () nil))))
             (sleep 0.001))))

;;; Closing, and who is blocked

(defun time-a-wake-up ()
  "Nanoseconds from the call of CLOSE until a thread blocked in a read has its condition."
  (multiple-value-bind (a b) (open-socket-pair)
    (let* ((woken 0)
           (waits (lport-wait-count))
           (thread (sb-thread:make-thread
                    (lambda ()
                      (handler-case (read-byte a)
                        (socket-closed () (setf woken (lport-clock-now)))))
                    :name "blocked")))
      (loop repeat 2000
            while (<= (lport-wait-count) waits)
            do (sleep 0.0005))
      (let ((begun (lport-clock-now)))
        (close a)
        (sb-thread:join-thread thread)
        (close b)
        (if (plusp woken)
            (- woken begun)
            (progn (surprise "a close was not told as SOCKET-CLOSED") 0))))))
