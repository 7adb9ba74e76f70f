;;;; package - the benchmarks: what they measure with, whom they compare, what they run.

(defpackage :port/bench
  (:documentation "Workloads over sockets, run by port, by other socket libraries of Lisp, by plain
C and by Python in turn, on one processor: against the same other side, a plain C process, or, in a
pair, each against itself.")
  (:use :common-lisp)
  (:export #:main))
