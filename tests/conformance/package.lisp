;;;; package - checks that any library of connected streams can run on itself; nothing here knows
;;;; PORT.
;;;;
;;;; (check-streams (lambda () ...two connected binary streams...) :timeout-p ... :set-deadline ...)
;;;; runs them all and reports by name. What a library cannot do it leaves out: the checks that need
;;;; it are then not run, and the report says which.
;;;;
;;;; What is checked is what Go's golang.org/x/net/nettest and trio's trio.testing check of their
;;;; streams. What needs SBCL is in threads.lisp.

(defpackage :port/conformance
  (:documentation "Checks of connected streams, for any library that makes them.")
  (:use :common-lisp)
  (:export #:check-streams #:report #:all-passed-p
           #:result #:result-name #:result-outcome #:result-reason))
