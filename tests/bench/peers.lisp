;;;; peers - who is compared: socket libraries of Lisp, and programs in other languages.
;;;;
;;;; Each library is a file with its class and its methods. Every library runs the same workloads,
;;;; on the streams that it makes; every connection has TCP_NODELAY set, as port sets it.

(in-package :port/bench)

(defclass peer ()
  ((name :initarg :name :reader peer-name)
   (title :initarg :title :reader peer-title))
  (:documentation "Somebody who can run workloads."))

(defgeneric open-link (peer port kind)
  (:documentation "Connect to PORT of 127.0.0.1 and return a link, whatever PEER takes for one.
KIND, :TEXT or :OCTETS: what it will be used for."))

(defconstant +backlog+ 128 "Connections that wait to be accepted, at most, as in peer.c.")

(defgeneric open-listener (peer kind)
  (:documentation "Listen on a free port of 127.0.0.1. Values: a listener, whatever PEER takes for
one; the port."))

(defgeneric accept-link (peer listener kind)
  (:documentation "Wait for a connection to LISTENER and return a link, as OPEN-LINK does."))

(defgeneric close-listener (peer listener)
  (:documentation "Close LISTENER."))

(defgeneric link-stream (peer link)
  (:documentation "The stream of LINK."))

(defgeneric close-link (peer link)
  (:documentation "Flush LINK and close it.")
  (:method (peer link)
    (close (link-stream peer link))))

(defgeneric receive-some (peer link octets)
  (:documentation "Receive what is there into OCTETS, past all buffers if PEER can; how many."))

(defgeneric can-run-p (peer workload)
  (:documentation "True if PEER has what the workload named WORKLOAD needs.")
  (:method (peer workload)
    (declare (ignore peer workload))
    t))

(defun pair-name-p (workload)
  "True if the workload named WORKLOAD is one in which a peer is both sides."
  (uiop:string-prefix-p "PAIR-" workload))

(defvar *peers* '() "Everybody, in the order of the columns.")

(defun add-peer (class name title)
  (setf *peers* (append *peers* (list (make-instance class :name name :title title)))))
