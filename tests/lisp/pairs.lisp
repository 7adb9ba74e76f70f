;;;; pairs - connected pairs of every kind, threads that block, peers that trickle: for the other
;;;; files.

(in-package :port/test)

;;; A machine may have no IPv6: many containers have none.

(defvar *inet6* :unknown)

(defun inet6-p ()
  "True if this machine has an address of IPv6, ::1."
  (when (eq *inet6* :unknown)
    (let ((failure (failure-of (close (open-datagram-socket :host "::1")))))
      (check-type failure (or null address-not-available not-supported))
      (setf *inet6* (null failure))))
  *inet6*)

(defun needs-inet6-p (what)
  "True if WHAT, a host, a kind of socket such as :UDP6 or a list of such, is of IPv6."
  (typecase what
    (string (find #\: what))
    (address (eq :inet6 (address-family what)))
    (list (some #'needs-inet6-p what))
    (symbol (eql #\6 (char (reverse (string what)) 0)))))

(defun available (list)
  "Those of LIST that this machine has: all but, where there is no IPv6, those that need it."
  (if (inet6-p)
      list
      (remove-if #'needs-inet6-p list)))

(defmacro with-inet6 (() &body body)
  "Run BODY if this machine has IPv6; else count the test as skipped."
  `(if (inet6-p)
       (progn ,@body)
       (skip "this machine has no IPv6")))

;;; Pairs

(defparameter *pair-kinds* (available '(:local :inet :inet6 :tls))
  "The kinds of connection that a test of streams runs over.")

(defparameter *plain-kinds* (remove :tls *pair-kinds*)
  "Those where what the system says of a connection, and nothing else, holds for its user.")

(defun port-of (server)
  (nth-value 1 (socket-server-host/port server)))

(defun take-all (server)
  "Accept and close what is in the queue of SERVER."
  (loop for peer = (socket-accept server :wait 0)
        while peer
        do (close peer)))

(defun unused-port ()
  "A port of 127.0.0.1 on which nobody listens."
  (with-socket-server (server 0 :host "127.0.0.1")
    (port-of server)))

(defun tcp-pair (host settings)
  "Values: a client connected over HOST with SETTINGS, and what its server accepted."
  (with-socket-server (server 0 :host host)
    (let ((client (apply #'open-socket host (nth-value 1 (socket-server-host/port server))
                         settings)))
      (values client (socket-accept server :wait 5)))))

;;; TLS, with the certificates of tests/tls/certificates

(defun certificate-file (name)
  "The file NAME among the certificates of the tests, a string."
  (uiop:native-namestring (checkout-file (format nil "build/tls/~A" name))))

(defun identity-of (name)
  "The options of a context that has the certificate NAME of the tests, and its key."
  (list :certificate (certificate-file (format nil "~A.pem" name))
        :key (certificate-file (format nil "~A.key" name))))

(defun make-client-context (&rest options)
  "A context that trusts the authority of the tests."
  (apply #'make-tls-context (append options (list :trust (certificate-file "authority.pem")))))

(defun make-server-context (&rest options)
  "A context with the certificate of good.test and of 127.0.0.1."
  (apply #'make-tls-context (append options (list :certificate (certificate-file "both.pem")
                                                  :trust (certificate-file "authority.pem")))))

(defvar *client-context* nil)
(defvar *server-context* nil)

(defun client-context ()
  "The context that clients have where a test does not care; it is never closed."
  (or *client-context* (setf *client-context* (make-client-context))))

(defun server-context ()
  (or *server-context* (setf *server-context* (make-server-context))))

(defun agreeing-p (socket &rest options)
  "Go on with the handshake of SOCKET as far as that goes without waiting: true once it is done."
  (let ((timeout (socket-timeout socket :input)))
    (setf (socket-timeout socket :input) 0)
    (unwind-protect (handler-case (apply #'start-tls socket options)
                      (timeout () nil))
      (setf (socket-timeout socket :input) timeout))))

(defun agree (client server &key (client-options (list :context (client-context)
                                                       :host "good.test"))
                              (server-options (list :context (server-context))))
  "Begin TLS between CLIENT and SERVER, in this thread."
  (loop with client-done = nil and server-done = nil
        until (and client-done server-done)
        do (setf client-done (or client-done (apply #'agreeing-p client client-options))
                 server-done (or server-done (apply #'agreeing-p server :side :server
                                                                        server-options)))))

(defun tls-pair (settings &rest options)
  "As TCP-PAIR, with TLS, begun by AGREE with OPTIONS."
  (multiple-value-bind (client server) (tcp-pair "127.0.0.1" settings)
    (let ((done nil))
      (unwind-protect
           (progn (in-fair-weather () (apply #'agree client server options))
                  (setf done t)
                  (values client server))
        (unless done
          (close client :abort t)
          (close server :abort t))))))

(defun make-pair (kind &rest settings)
  "Values: two connected sockets of KIND."
  (ecase kind
    (:local (open-socket-pair))
    (:inet (tcp-pair "127.0.0.1" settings))
    (:inet6 (tcp-pair "::1" settings))
    (:tls (tls-pair settings))))

(defun call-with-pair (kind function)
  "Call FUNCTION with a pair of KIND; what it leaves open is aborted."
  (multiple-value-bind (a b) (make-pair kind)
    (unwind-protect (funcall function a b)
      (close a :abort t)
      (close b :abort t))))

(defmacro with-pair ((a b &optional (kind :local)) &body body)
  "Run BODY with A and B bound to two connected sockets."
  `(call-with-pair ,kind (lambda (,a ,b) (declare (ignorable ,a ,b)) ,@body)))

(defun kinds-by-call ()
  "Those where one call moves MOST octets: in bad weather a record of TLS still comes as one."
  (if (weather-p) *plain-kinds* *pair-kinds*))

(defmacro do-pairs ((a b &optional (kinds '*pair-kinds*)) &body body)
  "Run BODY for a connected pair of each kind."
  (let ((kind (gensym "KIND")))
    `(dolist (,kind ,kinds)
       (with-pair (,a ,b ,kind) ,@body))))

(defun octets (&rest list)
  (make-array (length list) :element-type '(unsigned-byte 8) :initial-contents list))

(defun blank (size)
  (make-array size :element-type '(unsigned-byte 8) :initial-element 0))

(defun octets-like (text)
  "The octets of TEXT in UTF-8."
  (coerce (babel:string-to-octets text :encoding :utf-8) '(simple-array (unsigned-byte 8) (*))))

(defun random-octets (count state)
  (let ((octets (make-array count :element-type '(unsigned-byte 8))))
    (map-into octets (lambda () (random 256 state)))))

(defun send-octets (socket &rest octets)
  "Write OCTETS, octets and strings, and flush."
  (dolist (piece octets)
    (if (integerp piece)
        (write-byte piece socket)
        (write-string piece socket)))
  (finish-output socket))

(defun everything (socket)
  "The octets of SOCKET up to its end of file."
  (let ((all (make-array 0 :element-type '(unsigned-byte 8) :adjustable t :fill-pointer t)))
    (loop for octet = (read-byte socket nil)
          while octet
          do (vector-push-extend octet all))
    (coerce all '(simple-array (unsigned-byte 8) (*)))))

(defun echo-lines (socket)
  "Echo line after line until the end."
  (loop for line = (read-line socket nil)
        while line
        do (write-line line socket)
           (finish-output socket)))

(defun until-stuck (socket write)
  "Call WRITE until the system takes nothing more of SOCKET: three calls in a row have to time out
with nothing moved, since one may do so on a machine that is busy elsewhere. In fair weather: octet
by octet no buffer is full in good time."
  (setf (socket-timeout socket :output) 0.005)
  (in-fair-weather ()
    (loop with idle = 0
          until (= idle 3)
          do (let ((failure (failure-of (funcall write))))
               (setf idle (if (and failure (member (network-octets failure) '(nil 0)))
                              (1+ idle)
                              0)))))
  (setf (socket-timeout socket :output) nil))

(defun clog (socket)
  "Write to SOCKET until the system takes no more, and forget what it has not taken."
  (let ((piece (blank 65536)))
    (until-stuck socket (lambda () (write-octets socket piece))))
  (clear-output socket))

(defun start-blocked (function)
  "Start a thread that calls FUNCTION, which blocks on a socket, and return it once it does. The
thread's value is that of FUNCTION, or the condition that ended it."
  (let* ((before (lport-wait-count))
         (thread (in-thread (lambda ()
                              (handler-case (funcall function)
                                (error (condition) condition))))))
    (is-true (wait-until (lambda () (> (lport-wait-count) before))))
    thread))

;;; What a filter of system calls forbids, seccomp(2), with EPERM, as old container runtimes do. It
;;; is for one thread, and for ever.

(defparameter *call-numbers*
  '(:epoll-create #+x86-64 291 #+arm64 20 :send-file #+x86-64 40 #+arm64 71)
  "The numbers of system calls on this machine, by name.")

(defun filter-row (code yes no value)
  "A row of a program of seccomp(2): a number of 64 bits, whose octets are in the machine's order."
  (logior code (ash yes 16) (ash no 24) (ash value 32)))

(defun forbid-call (name)
  "From here on the call NAME fails with EPERM in this thread."
  (let ((rows (list (filter-row #x20 0 0 0) ; its number
                    (filter-row #x15 0 1 (getf *call-numbers* name))
                    (filter-row #x06 0 0 #x50001)
                    (filter-row #x06 0 0 #x7FFF0000))))
    (cffi:with-foreign-objects ((program :uint64 4) (filter :uint64 2))
      (loop for row in rows
            for index from 0
            do (setf (cffi:mem-aref program :uint64 index) row))
      (setf (cffi:mem-ref filter :uint64) (length rows)
            (cffi:mem-ref filter :pointer 8) program)
      (flet ((control (option value pointer)
               (assert (zerop (cffi:foreign-funcall "prctl" :int option :unsigned-long value
                                                            :pointer pointer :unsigned-long 0
                                                            :unsigned-long 0 :int)))))
        (control 38 1 (cffi:null-pointer)) ; PR_SET_NO_NEW_PRIVS
        (control 22 2 filter)))))          ; PR_SET_SECCOMP, a filter

(defun seconds-of (function)
  "Values: how long FUNCTION took, in seconds; its value."
  (let* ((start (lport-clock-now))
         (value (funcall function)))
    (values (/ (- (lport-clock-now) start) 1000000000.0) value)))

(defun median-seconds (count function)
  "The middle one of COUNT times that FUNCTION, which returns seconds, tells: the machine may be
busy at one or the other."
  (nth (floor count 2) (sort (loop repeat count collect (funcall function)) #'<)))

(defun at-best (enough function)
  "The least that FUNCTION, which returns seconds, tells: it is called until that is below ENOUGH,
ten times at the most. A machine that pauses or is busy makes any single one long."
  (loop repeat 10
        minimize (funcall function) into best
        until (< best enough)
        finally (return best)))

(defun write-much (socket)
  "Write more to SOCKET than any buffer of the system takes."
  (write-sequence (make-array 50000000 :element-type '(unsigned-byte 8)) socket)
  :written)

(defvar *path-count* 0)

(defun temporary-path ()
  "A path in the directory for temporary files at which there is nothing."
  (format nil "~Aport-test-~D-~D.sock" (uiop:native-namestring (uiop:temporary-directory))
          (process-id) (incf *path-count*)))

(defun permissions (path)
  "The permission bits of PATH, octal digits."
  (uiop:run-program (list "stat" "-c" "%a" path) :output '(:string :stripped t)))

(defun process-id ()
  (cffi:foreign-funcall "getpid" :int))
