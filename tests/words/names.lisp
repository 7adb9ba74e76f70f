;;;; names - the words of SBCL that the tests, the checks and the tools use: on other Lisps packages
;;;; of those names have them, so that the files of the tests are the same on all. What they mean is
;;;; in ecl.lisp and clisp.lisp, and in rest.lisp what has no counterpart.

(defpackage :port/words
  (:documentation "What the words stand for.")
  (:use :common-lisp))

(in-package :port/words)

(eval-when (:compile-toplevel :load-toplevel :execute)
  (defparameter *words*
    '((:sb-thread "*CURRENT-THREAD*" "MAKE-THREAD" "JOIN-THREAD" "THREAD-ALIVE-P" "THREAD-NAME"
       "THREAD-YIELD" "LIST-ALL-THREADS" "INTERRUPT-THREAD" "TERMINATE-THREAD" "ABORT-THREAD"
       "INTERRUPT-THREAD-ERROR" "MAKE-MUTEX" "WITH-MUTEX" "MAKE-SEMAPHORE" "SIGNAL-SEMAPHORE"
       "WAIT-ON-SEMAPHORE" "TRY-SEMAPHORE" "SEMAPHORE-COUNT")
      (:sb-ext "SEED-RANDOM-STATE" "GC" "EXIT" "WITH-TIMEOUT" "TIMEOUT" "ATOMIC-INCF" "ATOMIC-DECF"
       "ATOMIC-PUSH" "SYMBOL-GLOBAL-VALUE" "VALID-TYPE-SPECIFIER-P" "GET-BYTES-CONSED"
       "DOUBLE-FLOAT-POSITIVE-INFINITY" "RUN-PROGRAM" "PROCESS-ERROR" "PROCESS-ALIVE-P"
       "PROCESS-KILL" "PROCESS-WAIT" "PROCESS-CLOSE")
      (:sb-sys "WITHOUT-INTERRUPTS" "ALLOW-WITH-INTERRUPTS" "*INTERRUPTS-ENABLED*" "MAKE-FD-STREAM"
               "ENABLE-INTERRUPT")
      (:sb-int "ENCAPSULATE" "UNENCAPSULATE")
      (:sb-kernel "MAKE-SINGLE-FLOAT" "MAKE-DOUBLE-FLOAT" "DYNAMIC-USAGE" "CONTROL-STACK-USAGE")
      (:sb-alien "EXTERN-ALIEN" "UNSIGNED")
      (:sb-unix "SIGTERM")
      (:sb-debug "PRINT-BACKTRACE")
      (:sb-introspect "FUNCTION-LAMBDA-LIST")
      (:sb-bsd-sockets "INET-SOCKET" "SOCKET-MAKE-STREAM" "SOCKET-BIND" "SOCKET-LISTEN"
       "SOCKET-CONNECT" "SOCKET-NAME" "SOCKET-ACCEPT" "SOCKET-CLOSE"))
    "The packages of SBCL and what of them is used.")

  (loop for (package . names) in *words*
        do (unless (find-package package)
             (make-package package :use '()))
           (loop for name in names
                 do (export (intern name package) package)))

  (defun lend-words (package from)
    "Make PACKAGE one that exports what FROM does."
    (unless (find-package package)
      (make-package package :use '()))
    (do-external-symbols (symbol from)
      (when symbol
        (import symbol package)
        (export symbol package))))

  (lend-words :sb-gray :gray)
  (lend-words :sb-mop :clos))
