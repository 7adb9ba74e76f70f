;;;; port-bench - the benchmarks as a system; run.lisp loads it.

(defsystem "port-bench"
  :description "Workloads over sockets by port and by others, for comparison."
  :depends-on ("port" "usocket" (:require "sb-bsd-sockets"))
  :serial t
  :components ((:file "package")
               (:file "machine")
               (:file "servers")
               (:file "peers")
               (:file "peer-port")
               (:file "peer-sbcl")
               (:file "peer-usocket")
               (:file "peer-programs")
               (:file "workloads")
               (:file "measure")
               (:file "report")
               (:file "main")))
