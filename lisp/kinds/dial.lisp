;;;; dial - a dial of the library from Lisp: opened, driven until it has a connection, and what it
;;;; tells of its attempts. What a thread does not wait for is in pending.lisp.
;;;;
;;;; Invariant: a dial is closed on every exit, and with it whatever it has not handed out.

(in-package :port)

;;; Opening one

(defun in-a-row (blocks)
  "The octets of BLOCKS, a list of at least one, one after the other."
  (if (rest blocks)
      (loop with octets = (octets-of-size (* +lport-address-size+ (length blocks)))
            for block in blocks
            for at from 0 by +lport-address-size+
            do (replace octets block :start1 at)
            finally (return octets))
      (first blocks)))

(defun open-dial (target port family own flags)
  "Begin to connect to TARGET, a name or a list of addresses, from OWN, an own end or NIL: the dial,
or a status."
  (let* ((locals (and own (origin-blocks own)))
         (flags (logior flags (flags-of +lport-two-locals+ (rest locals)))))
    (with-optional-octets (local (and locals (in-a-row locals)))
      (if (stringp target)
          (with-text (name length target)
            (lport-dial-open name length port family local flags))
          (with-octets (addresses (in-a-row (loop for address in target
                                                  collect (address-block address port))))
            (lport-dial-open-addresses addresses (length target) +lport-stream+ local flags))))))

(defun open-path-dial (block kind)
  "Begin to connect to the local name in BLOCK: the dial, or a status."
  (with-octets (pointer block)
    (lport-dial-open-addresses pointer 1 kind (null-pointer) 0)))

;;; Driving a dial

(defstruct (dialling (:copier nil) (:predicate nil))
  "A dial of the library, and what the user has said for it."
  (dial 0 :type (signed-byte 64))       ; or the status why there is none
  (host nil :read-only t)               ; these three as the user gave them, for conditions
  (port nil :read-only t)
  (seconds nil)
  (limit +never+ :type moment)
  (own nil :read-only t)                ; an own end or NIL
  (kind :stream :read-only t)
  (settings nil :read-only t)
  (presets *no-presets* :read-only t)
  (begun (lport-clock-now) :read-only t))

(defun dial-condition (dialling status)
  "The condition for STATUS, to which DIALLING has come."
  (let ((dial (dialling-dial dialling)) (own (dialling-own dialling))
        (host (dialling-host dialling)) (port (dialling-port dialling))
        (presets (dialling-presets dialling)))
    (or (preset-failure presets status :host host :port port)
        (apply #'status-condition status
               (append (facts-of-dial dial status own host port)
                       (list :seconds (seconds-to-tell status (dialling-seconds dialling)
                                                       (dialling-begun dialling))
                             :attempts (attempts-of dial own presets)))))))

(defun check-dial-time (dialling)
  "Signal TIMEOUT if the limit of DIALLING has passed; it has a later one if the user asked for it."
  (setf (values (dialling-limit dialling) (dialling-seconds dialling))
        (check-moment (dialling-limit dialling)
                      (lambda (status) (dial-condition dialling status))
                      (dialling-seconds dialling))))

(defun begin-dial (dialling open)
  "Open the dial of DIALLING with OPEN, a function."
  (declare (type function open))
  (flet ((check (status)
           (when (minusp status)
             (signal-failure (dial-condition dialling status)))))
    (call-deferred
      (setf (dialling-dial dialling) (funcall open)))
    (check (dialling-dial dialling))
    (check (with-presets (rows count (dialling-presets dialling))
             (lport-dial-set (dialling-dial dialling) rows count)))))

(defun step-dial (dialling)
  "Do what can be done now: the socket, once there is a connection, or a status. To be called with
interrupts deferred; not again once it has made a socket."
  (let* ((dial (dialling-dial dialling))
         (result (lport-dial-step dial)))
    (if (plusp result)
        (adopt-handle result (lambda (handle)
                               (make-link (dialling-kind dialling) handle
                                          (dialling-settings dialling)
                                          (peer-block handle (reached dial)))))
        result)))

(defun in-progress-p (status)
  (= (lport-status-kind status) +lport-in-progress+))

(defun end-dial (dialling)
  "Close what still goes on of DIALLING."
  (when (plusp (dialling-dial dialling))
    (lport-dial-close (shiftf (dialling-dial dialling) 0))))

(defun dial-to (open host port limit timeout settings
                &key own (kind :stream) (presets *no-presets*))
  "Open a dial with OPEN and step it until there is a connection, by LIMIT; the socket with SETTINGS
around it, which has PRESETS. The dial is closed on every exit, and the attempts that still go on
with it. HOST, PORT and TIMEOUT, as the caller gave them, OWN, an own end or NIL, and the attempts
are for the condition."
  (%close-lost)
  (let ((dialling (make-dialling :host host :port port :limit limit
                                 :seconds (limit-in-seconds timeout limit)
                                 :own own :kind kind :settings settings :presets presets))
        (socket nil) (kept nil))
    (with-cleanup
         (progn
           (check-dial-time dialling)
           (begin-dial dialling open)
           (loop
             (let ((status 0))
               (call-deferred
                 (let ((result (step-dial dialling)))
                   (cond ((integerp result) (setf status result))
                         (t (setf socket result)
                            (end-dial dialling)))))
               (cond (socket (setf kept t)
                             (return socket))
                     ((in-progress-p status)
                      (lport-dial-wait (dialling-dial dialling) (dialling-limit dialling))
                      (check-dial-time dialling))
                     (t (signal-failure (dial-condition dialling status)))))))
      (end-dial dialling)
      (unless (or kept (null socket)) ; an interrupt that has come meanwhile has unwound this
        (close socket :abort t)))))

(defun attempt-block (dial index)
  "Values: the address block of attempt INDEX of DIAL; its status."
  (block-from (place)
    (lport-dial-attempt dial index place)))

(defun reached (dial)
  "The block of the address that DIAL has reached."
  (loop for index from (1- (lport-dial-count dial)) downto 0
        do (multiple-value-bind (block status) (attempt-block dial index)
             (when (zerop status)
               (return block)))))

(defun facts-of-dial (dial status own host port)
  "The operation of DIAL that came to STATUS, then the initargs that tell its ends: those of OWN, an
own end or NIL, or HOST and PORT."
  (let ((count (if (plusp dial) (lport-dial-count dial) 0)))
    (cond ((loop for index below count
                 when (= status (nth-value 1 (attempt-block dial index)))
                   return (facts-of-attempt dial index own host port)))
          ((and own
                (zerop count)
                (= (lport-status-kind status) +lport-address-not-available+))
           (list* :connect :host host :port port (family-facts own)))
          (t (list :connect :host host :port port)))))

(defun facts-of-attempt (dial index own host port)
  "As FACTS-OF-DIAL, of attempt INDEX."
  (multiple-value-bind (local failed) (block-from (place)
                                        (lport-dial-attempt-own dial index place))
    (if (plusp failed)
        (own-end-facts own local (attempt-block dial index))
        (list :connect :host host :port port))))

(defun attempts-of (dial own presets)
  "The failures of DIAL, from OWN with PRESETS, so far, a list of (address . condition) in the order
tried. An attempt that goes on has timed out, since nobody waits for it any longer."
  (when (plusp dial)
    (loop for index from 0 below (lport-dial-count dial)
          collect (attempt-of dial index own presets))))

(defun attempt-of (dial index own presets)
  (multiple-value-bind (block status) (attempt-block dial index)
    (let ((address (block-address block)))
      (cons address
            (or (preset-failure presets status)
                (apply #'status-condition
                       (if (= (lport-status-kind status) +lport-in-progress+)
                           (lport-status-make +lport-timed-out+)
                           status)
                       (facts-of-attempt dial index own
                                         (princ-to-string address) (block-port block))))))))
