;;;; registry - every open socket, held weakly, by the number of its slot in the library's table; so
;;;; what nobody refers to any more is found, and closed.
;;;;
;;;; Entering a socket is a weak pointer and a store, and nothing has to be taken out: a slot is in
;;;; use by one open socket at most, and the next one overwrites the entry. Invariant: an entry
;;;; whose socket is open is the one in that slot; others are stale and passed over.

(in-package :port)

(defconstant +chunk-bits+ 12 "The vector of slots grows by chunks of so many bits.")

(%defglobal *registry*
    (make-array (ash (1+ +lport-socket-index+) (- +chunk-bits+)) :initial-element nil))

(defun registry-chunk (number)
  "Chunk NUMBER of the registry, made when it is first asked for."
  (or (svref *registry* number)
      (let ((chunk (make-array (ash 1 +chunk-bits+) :initial-element nil)))
        (or (%compare-and-swap (svref *registry* number) nil chunk)
            chunk))))

(defun register-endpoint (endpoint handle)
  "Enter ENDPOINT, which is around HANDLE: once it is garbage HANDLE is closed. Takes no lock."
  (declare (type (unsigned-byte 62) handle))
  (%close-when-garbage endpoint handle)
  (let ((place (handle-place handle)))
    (setf (svref (registry-chunk (ash place (- +chunk-bits+))) (ldb (byte +chunk-bits+ 0) place))
          (cons (%weak-pointer endpoint) handle))))

(declaim (inline entry-endpoint))
(defun entry-endpoint (entry)
  "The endpoint of ENTRY, or NIL if it has become garbage."
  (%weak-pointer-value (car entry)))

(defun registered-endpoints ()
  "The endpoints that were entered, have not been overwritten and are not garbage; some may be
closed."
  (loop for chunk across *registry*
        when chunk
          nconc (loop for entry across chunk
                      for endpoint = (and entry (entry-endpoint entry))
                      when endpoint
                        collect endpoint)))

;;; Garbage

(defun close-if-lost (chunk place)
  "Close the handle of the entry at PLACE of CHUNK if its endpoint has become garbage, and take it
out. What was closed in time is closed once more, which does nothing."
  (declare (type simple-vector chunk) (type (unsigned-byte 32) place))
  (let ((entry (svref chunk place)))
    (when (and entry
               (null (entry-endpoint entry))
               ;; Unless the slot, and so the place, is another's by now.
               (eq entry (%compare-and-swap (svref chunk place) entry nil)))
      (lport-socket-close (cdr entry) 0))))

(defun close-lost-endpoints ()
  "Close what nobody refers to any more. A finalizer for each socket would cost as much as all its
other objects together."
  (loop for chunk across *registry*
        when chunk
          do (dotimes (place (ash 1 +chunk-bits+))
               (close-if-lost chunk place))))

(%after-collections 'close-lost-endpoints)

;;; Images

(defun close-stale-endpoints ()
  "In an image that starts: the sockets of the process that saved it are closed, and what was
buffered is gone with them."
  (dolist (endpoint (registered-endpoints))
    (let ((channel (endpoint-channel endpoint)))
      (setf (channel-closing channel) t)
      (when (typep channel 'connection)
        (drop-input channel)
        (drop-output channel))))
  (fill *registry* nil))                ; their handles can be those of others here

(%at-image-start 'close-stale-endpoints)
