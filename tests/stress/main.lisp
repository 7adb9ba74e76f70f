;;;; main - start all roles, wait, end them, look what is left, report.

(in-package :port/stress)

(defun descriptors ()
  "How many descriptors are open, but for eventfds, which the library keeps in a pool."
  (loop for entry in (directory "/proc/self/fd/*" :resolve-symlinks nil)
        count (let ((target (ignore-errors (sb-posix:readlink entry))))
                (and target (not (search "eventfd" target))))))

(defun open-things ()
  (list (lport-socket-count) (lport-wait-count) (descriptors)))

(defun until (predicate seconds)
  "Wait until PREDICATE is true, or SECONDS have passed by the clock: each of the many signals makes
a sleep longer than it was meant."
  (loop with end = (+ (get-internal-real-time) (* seconds internal-time-units-per-second))
        until (or (funcall predicate)
                  (>= (get-internal-real-time) end))
        do (sleep 0.05)))

(defun start-all (places)
  "All other threads, a list."
  (let ((all '()))
    (flet ((start (count name function)
             (loop repeat count
                   do (push (role name function) all))))
      (loop for place across places
            do (let ((place place))
                 (start 2 "client" (lambda (state) (talk-steadily place state)))
                 (start 1 "storm" (lambda (state) (storm place state)))))
      (start 1 "closer" #'close-a-served-one)
      (start 2 "pairs" #'reuse-descriptors)
      (start 4 "tormentor" (lambda (state) (torment places state)))
      (start 1 "collector" #'collect-garbage)
      (start 1 "signals" #'send-signals)
      (start 1 "wake-ups" (lambda (state)
                            (declare (ignore state))
                            (push (time-a-wake-up) *loaded-wake-ups*)
                            (sleep 0.05))))
    all))

(defun start-servers (places)
  "The threads that clients wait for, a list."
  (flet ((start (name function)
           (role name function (lambda () *servers-stop*))))
    (cons (start "poster" #'post-what-there-is)
          (loop for place across places
                when (place-take place)
                  append (let ((place place))
                           (loop repeat 4
                                 collect (start "server" (lambda (state)
                                                           (declare (ignore state))
                                                           (serve-one place)))))))))

(defun end-all (threads)
  "Wait for THREADS, which have been told to end."
  (dolist (thread threads)
    (sb-thread:join-thread thread :default nil :timeout (* 2 *patience*))
    (when (sb-thread:thread-alive-p thread)
      (surprise "thread ~A hangs" (sb-thread:thread-name thread)))))

(defun look-what-is-left (before)
  "Everything that was opened has to be gone, by its close or, where a victim was thrown out of it
before it had a name for it, after a collection."
  (fill *served* nil)
  (until (lambda ()
           (sb-ext:gc :full t)
           (every #'<= (open-things) before))
         10)
  (loop for name in '("sockets" "waits" "descriptors")
        for now in (open-things)
        for then in before
        do (when (> now then)
             (surprise "~D ~A are left" (- now then) name))))

(defun report (seconds)
  (format t "~&stress: ~D s~%" seconds)
  (loop for name in *names*
        do (format t "  ~22A ~12D~%" (string-downcase name) (count-of name)))
  (report-wake-ups "quiet" *wake-ups*)
  (report-wake-ups "under stress" *loaded-wake-ups*)
  (loop for line in (reverse *surprises*)
        repeat 20
        do (format t "SURPRISE ~A~%" line))
  (format t "stress: ~D surprise~:P~%" (count-of :surprises))
  (finish-output))

(defun run (&key (seconds 60))
  "Run everything for SECONDS; print counts; true if nothing happened that must not."
  (let ((before (progn (time-a-wake-up) (open-things))))
    (setf *wake-ups* (loop repeat 200 collect (time-a-wake-up)))
    (when (> (percentile *wake-ups* 99) 10000000)
      (surprise "a close takes more than 10 ms to reach a blocked thread"))
    (let* ((places (all-places))
           (servers (start-servers places))
           (others (start-all places)))
      (until (constantly nil) seconds)
      (setf *stop* t)
      (end-all others)
      (setf *servers-stop* t)
      (end-all servers)
      (map nil (lambda (place) (funcall (place-end place))) places)
      (look-what-is-left before)
      (report seconds)
      (zerop (count-of :surprises)))))
