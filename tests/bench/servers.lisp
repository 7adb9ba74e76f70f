;;;; servers - the other side of every workload: plain C processes, the same for everybody.
;;;;
;;;; A server is started when it is first needed, takes one client after the other, and is stopped
;;;; at the end of the run.

(in-package :port/bench)

(defstruct server process port clock)

(defparameter *server-commands*
  '((:echo "echo-server" "1000000000")
    (:sink "sink" "1000000000")
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

(defun start-server (kind)
  (let ((process (uiop:launch-program (cons (peer-program) (rest (assoc kind *server-commands*)))
                                      :output :stream)))
    (make-server :process process
                 :port (parse-integer (read-line (uiop:process-info-output process)))
                 :clock (process-clock (uiop:process-info-pid process)))))

(defun server-of-kind (kind)
  (or (cdr (assoc kind *servers*))
      (let ((server (start-server kind)))
        (push (cons kind server) *servers*)
        server)))

(defun stop-servers ()
  (loop for (nil . server) in *servers*
        do (uiop:terminate-process (server-process server))
           (uiop:wait-process (server-process server)))
  (setf *servers* '()))

(defun lines-of-kind (kind)
  "The lines that a server of KIND sends, a vector of strings."
  (coerce (uiop:run-program (list (peer-program) "text" (string-downcase kind))
                            :output :lines :external-format :utf-8)
          'simple-vector))
