;;;; package - the stress program: everything at once, for a while, and counts at the end.
;;;;
;;;; Two kinds of threads use port. Steady ones dial, serve, talk and close, and nothing may
;;;; surprise them; every octet that they exchange says to which connection it belongs. Victims do
;;;; the same and are thrown out, timed out by SB-EXT:WITH-TIMEOUT, or killed, at random moments.
;;;; Meanwhile others collect garbage, send signals, reuse descriptors, and close what belongs to
;;;; threads that are blocked. Nothing may be left at the end, nothing may hang, no octet may be on
;;;; the wrong connection.

(defpackage :port/stress
  (:documentation "Port under everything at once.")
  (:use :common-lisp :port)
  (:shadowing-import-from :port #:stream-external-format)
  (:import-from :port.ffi #:lport-socket-count #:lport-wait-count #:lport-clock-now)
  (:export #:run))
