;;;; peer-programs - plain C (peer.c) and Python (peer.py): programs that measure themselves.

(in-package :port/bench)

(defclass program-peer (peer)
  ((command :initarg :command :reader peer-command :documentation "A list of strings."))
  (:documentation "A program that takes a workload, a count and a port (none: it is both sides), and
prints a line: the workload, nanoseconds of one operation by the wall clock, by the processor time
of the measured side, and, if it can be both sides, by that of the whole program."))

(defun run-program-peer (peer workload count &optional port)
  "The numbers that the program of PEER prints, a list."
  (let ((line (uiop:run-program (append (peer-command peer)
                                        (list (string-downcase workload) (princ-to-string count))
                                        (and port (list (princ-to-string port))))
                                :output :string :error-output :interactive)))
    (mapcar #'parse-decimal (rest (uiop:split-string (string-trim '(#\Newline) line))))))

(defun parse-decimal (text)
  "The number that TEXT, digits with a point in it, spells."
  (let ((point (or (position #\. text) (length text))))
    (+ (parse-integer text :end point)
       (if (< (1+ point) (length text))
           (/ (parse-integer text :start (1+ point)) (expt 10 (- (length text) point 1)))
           0))))

(defclass c-peer (program-peer) ()
  (:default-initargs :command (list (peer-program))))

(defclass python-peer (program-peer) ()
  (:default-initargs
   ;; The interpreter itself, so that no wrapper is measured.
   :command (list (or (first-line "python3" "-c" "import sys; print(sys.executable)") "python3")
                  (project-file "tests/bench/peer.py"))))

(defmethod can-run-p ((peer python-peer) workload)
  "It is one side only."
  (not (pair-name-p workload)))

(add-peer 'c-peer :c "plain C")
(when (first-line "python3" "--version")
  (add-peer 'python-peer :python "Python"))
