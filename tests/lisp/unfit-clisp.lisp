;;;; unfit-clisp - which tests cannot hold on CLISP, and why. Those that make a thread are not named
;;;; here: they are left out where they do, see tests/words/clisp.lisp.

(in-package :port/test)

(setf *slowness* 5
      *watchdog-p* nil)

(setf *unfit* '())
