;;;; measure - rounds in which everybody runs a workload in turn, and the medians of what they took.

(in-package :port/bench)

(defstruct sample
  "Nanoseconds of one operation: by the wall clock, of the processor for the measured side and for
the other one, 0 where that is a thread of the same process and so in OWN; octets consed, NIL where
that is unknown."
  wall own other consed)

(defun sample-time (sample workload)
  "The nanoseconds of SAMPLE that count in WORKLOAD."
  (if (eq (workload-sides workload) :both)
      (+ (sample-own sample) (sample-other sample))
      (sample-own sample)))

;;; One run

(defgeneric run-once (peer workload count server)
  (:documentation "Let PEER do COUNT operations of WORKLOAD against SERVER: a sample."))

(defmethod run-once ((peer program-peer) workload count (server null))
  (destructuring-bind (wall own both)
      (run-program-peer peer (workload-name workload) count)
    (make-sample :wall wall :own own :other (- both own))))

(defmethod run-once ((peer program-peer) workload count server)
  (let* ((before (server-time server))
         (numbers (run-program-peer peer (workload-name workload) count (server-port server)))
         (other (- (server-time server) before)))
    (make-sample :wall (first numbers) :own (second numbers) :other (/ other count))))

(defmethod run-once ((peer peer) workload count (server null))
  (if (workload-prepare workload)
      (run-alone peer workload count)
      (run-as-pair peer workload count)))

(defconstant +warm-piece+ 4096 "Octets of a piece of memory that is touched.")

(defvar *garbage* nil "What WARM-MEMORY has made last.")

(defun warm-memory ()
  "Fill the memory in which young objects are made and collect it, so that no run pays for pages
that the process has never touched: a process pays for each of them once in its life, a run of a
hundred milliseconds would pay for nothing else."
  (loop repeat (ceiling (sb-ext:bytes-consed-between-gcs) +warm-piece+)
        do (setf *garbage* (make-array +warm-piece+ :element-type '(unsigned-byte 8))))
  (setf *garbage* nil)
  (sb-ext:gc))

(defun run-alone (peer workload count)
  (let ((link (funcall (workload-prepare workload) peer)))
    (sb-ext:gc :full t)
    (warm-memory)
    (unwind-protect (take-sample peer workload count (make-server) link)
      (funcall (workload-end workload) peer link))))

(defun run-as-pair (peer workload count)
  (call-with-own-server (lambda (server) (run-once peer workload count server))
                        (workload-serve workload) peer (workload-kind workload)
                        (if (workload-connects-p workload) count 1)))

(defmethod run-once ((peer peer) workload count server)
  (warm-memory)
  (if (workload-connects-p workload)
      (take-sample peer workload count server (server-port server))
      (let ((link (open-link peer (server-port server) (workload-kind workload))))
        (unwind-protect (take-sample peer workload count server link)
          (close-link peer link)))))

(defun take-sample (peer workload count server link)
  "The sample of COUNT operations of WORKLOAD on LINK, or by links to that port."
  (flet ((readings ()
           (list (clock-ns +wall-clock+) (clock-ns +own-clock+) (server-time server)
                 (sb-ext:get-bytes-consed))))
    (let ((before (readings)))
      (funcall (workload-loop workload) peer link count)
      (when (workload-connects-p workload)
        (settle server))
      (destructuring-bind (wall own other consed)
          (mapcar (lambda (after before) (/ (- after before) count)) (readings) before)
        (make-sample :wall wall :own own :other other :consed consed)))))

;;; Rounds

(defun median (numbers)
  (let ((sorted (sort (copy-list numbers) #'<)) (half (floor (length numbers) 2)))
    (if (oddp (length sorted))
        (nth half sorted)
        (/ (+ (nth (1- half) sorted) (nth half sorted)) 2))))

(defun budget-ns ()
  "How long one run may take, about."
  (* 1000000 (setting "BENCH_MS" (if (plusp (setting "BENCH_FULL" 0)) 800 150))))

(defun fitting-count (peer workload server)
  "How many operations of WORKLOAD fit into a run of PEER, which warms up to tell."
  (let* ((few (max 16 (floor (workload-count workload) 100)))
         (sample (run-once peer workload few server)))
    (max few (min (workload-count workload)
                  (* 16 (floor (budget-ns) (* 16 (max 1 (sample-wall sample)))))))))

(defun takes-part-p (peer workload)
  (and (can-run-p peer (workload-name workload))
       (or (null (workload-only workload))
           (member (peer-name peer) (workload-only workload)))))

(defun measure (workload rounds)
  "An alist of peers and their samples of WORKLOAD, in the order of the rounds."
  (let* ((server (and (workload-server workload) (server-of-kind (workload-server workload))))
         (peers (remove-if-not (lambda (peer) (takes-part-p peer workload)) *peers*))
         (counts (mapcar (lambda (peer) (fitting-count peer workload server)) peers))
         (samples (mapcar #'list peers)))
    (dotimes (round rounds samples)
      (loop for entry in samples
            for count in counts
            do (setf (rest entry)
                     (append (rest entry)
                             (list (run-once (first entry) workload count server))))))))
