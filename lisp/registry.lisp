;;;; registry - every open socket, held weakly, by the number of its slot in the library's table.
;;;;
;;;; Entering a socket is a weak pointer and a store, and nothing has to be taken out: a slot is in
;;;; use by one open socket at most, and the next one overwrites the entry. Invariant: an entry
;;;; whose socket is open is the one in that slot; others are stale and passed over.

(in-package :port)

(defconstant +slot-bits+ 24 "Of a handle: they number its slot, see libport.h.")
(defconstant +chunk-bits+ 12 "The vector of slots grows by chunks of so many bits.")

(%defglobal *registry*
    (make-array (ash 1 (- +slot-bits+ +chunk-bits+)) :initial-element nil))

(defun registry-chunk (number)
  "Chunk NUMBER of the registry, made when it is first asked for."
  (or (svref *registry* number)
      (let ((chunk (make-array (ash 1 +chunk-bits+) :initial-element nil)))
        (or (%compare-and-swap (svref *registry* number) nil chunk)
            chunk))))

(defun register-endpoint (endpoint handle)
  "Enter ENDPOINT, which is around HANDLE. Takes no lock."
  (declare (type (unsigned-byte 62) handle))
  (let ((slot (ldb (byte +slot-bits+ 0) handle)))
    (setf (svref (registry-chunk (ash slot (- +chunk-bits+))) (ldb (byte +chunk-bits+ 0) slot))
          (%weak-pointer endpoint))))

(defun registered-endpoints ()
  "The endpoints that were entered, have not been overwritten and are not garbage; some may be
closed."
  (loop for chunk across *registry*
        when chunk
          nconc (loop for pointer across chunk
                      for endpoint = (and pointer (%weak-pointer-value pointer))
                      when endpoint
                        collect endpoint)))

(defun close-stale-endpoints ()
  "In an image that starts: the sockets of the process that saved it are closed, and what was
buffered is gone with them."
  (dolist (endpoint (registered-endpoints))
    (let ((channel (endpoint-channel endpoint)))
      (setf (channel-closing channel) t)
      (when (typep channel 'connection)
        (drop-input channel)
        (drop-output channel)))))

(%at-image-start 'close-stale-endpoints)
