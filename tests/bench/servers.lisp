;;;; servers - the other side of a workload: plain C processes, the same for everybody; or a thread
;;;; of this Lisp, which serves with the library that is measured.
;;;;
;;;; A process is started when it is first needed, takes one client after the other, and is stopped
;;;; at the end of the run.

(in-package :port/bench)

(defstruct server
  process thread                        ; one of them
  port
  clock)                                ; of the process

(defparameter *server-commands*
  '((:echo "echo-server" "1000000000")
    (:sink "sink" "1000000000")
    (:datagram-echo "datagram-echo-server")
    (:octets "source" "0" "octets" "1000000000")
    (:ascii "source" "0" "ascii" "1000000000")
    (:mixed "source" "0" "mixed" "1000000000"))
  "Rows (kind argument...): how the program of peer.c is asked to be a server of KIND.")

(defvar *servers* '() "An alist of the kinds and the servers that run.")

(defun project-file (path)
  "The native name of PATH, relative to the directory of port.asd."
  (uiop:native-namestring (asdf:system-relative-pathname "port" path)))

(defun peer-program ()
  (project-file "build/bench/peer"))

(defun printed-port (process)
  "The port that PROCESS, a server, prints; NIL if it ends without one."
  (let ((line (read-line (uiop:process-info-output process) nil)))
    (and line (parse-integer line))))

(defun end-process (process)
  (uiop:terminate-process process :urgent t)
  (uiop:wait-process process)
  (uiop:close-streams process))

(defun start-server (kind)
  (let ((process (uiop:launch-program (cons (peer-program) (rest (assoc kind *server-commands*)))
                                      :output :stream)))
    (make-server :process process
                 :port (or (printed-port process) (error "the server ~(~A~) did not start" kind))
                 :clock (process-clock (uiop:process-info-pid process)))))

(defun server-of-kind (kind)
  (or (cdr (assoc kind *servers*))
      (let ((server (start-server kind)))
        (push (cons kind server) *servers*)
        server)))

(defun server-time (server)
  "The processor time of SERVER beside that of this process, in nanoseconds."
  (if (server-clock server) (clock-ns (server-clock server)) 0))

(defun settle (server)
  "Wait until SERVER, if it is a thread, has served all its connections."
  (when (server-thread server)
    (sb-thread:join-thread (server-thread server))))

(defun call-with-own-server (function serve peer kind connections)
  "Call FUNCTION with a server that accepts CONNECTIONS by PEER and calls SERVE with the stream of
each; it is through with them when this returns."
  (multiple-value-bind (listener port) (open-listener peer kind)
    (flet ((run ()
             (dotimes (i connections)
               (let ((link (accept-link peer listener kind)))
                 (funcall serve (link-stream peer link))
                 (close-link peer link)))))
      (unwind-protect
           (let ((server (make-server :port port :thread (sb-thread:make-thread #'run))))
             (multiple-value-prog1 (funcall function server)
               (settle server)))
        (close-listener peer listener)))))

(defun stop-servers ()
  (loop for (nil . server) in *servers*
        do (end-process (server-process server)))
  (setf *servers* '()))

(defun lines-of-kind (kind)
  "The lines that a server of KIND sends, a vector of strings."
  (coerce (uiop:run-program (list (peer-program) "text" (string-downcase kind))
                            :output :lines :external-format :utf-8)
          'simple-vector))
