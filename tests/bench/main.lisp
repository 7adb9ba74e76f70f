;;;; main - a run: what the environment asks for, from the first server to the document.
;;;;
;;;; BENCH=part runs the workloads that have it in their names, and writes no document.
;;;; BENCH_ROUNDS (5); BENCH_FULL=1: 1 GiB of octets, longer runs; BENCH_MS: how long a run is.

(in-package :port/bench)

(defun measure-all (workloads rounds)
  "The results of WORKLOADS; says on the terminal how far it is."
  (loop for workload in workloads
        for number from 1
        do (format *error-output* "~&~D/~D ~(~A~)~%" number (length workloads)
                   (workload-name workload))
           (finish-output *error-output*)
        collect (make-result :workload workload :samples (measure workload rounds))))

(defun main ()
  "Run what BENCH names, print the table, and write the document if that was everything."
  (let* ((part (or (uiop:getenv "BENCH") ""))
         (rounds (setting "BENCH_ROUNDS" 5))
         (facts (with-output-to-string (stream) (print-facts stream)))
         (results (unwind-protect (measure-all (workloads part) rounds)
                    (stop-servers)))
         (rows (server-rows part rounds)))
    (when (null (or results rows))
      (error "no workload has ~S in its name" part))
    (when results
      (print-table results *standard-output*))
    (when rows
      (print-server-table rows *standard-output*))
    (when (string= part "")
      (write-document results rows rounds facts (project-file "docs/benchmarks.md")))))
