;;;; machine - the clocks that the benchmarks read, and what the machine is.

(in-package :port/bench)

(deftype octets () '(simple-array (unsigned-byte 8) (*)))

(defconstant +wall-clock+ 1 "CLOCK_MONOTONIC.")
(defconstant +own-clock+ 2 "CLOCK_PROCESS_CPUTIME_ID: every thread of this process.")

(defun process-clock (pid)
  "The processor clock of process PID, clock_getcpuclockid(3)."
  (logior (ash (lognot pid) 3) 2))

(defun clock-ns (clock)
  "What CLOCK, a clockid_t, shows, in nanoseconds."
  (cffi:with-foreign-object (time :int64 2)
    (unless (zerop (cffi:foreign-funcall "clock_gettime" :int clock :pointer time :int))
      (error "clock_gettime(~D) failed" clock))
    (+ (* 1000000000 (cffi:mem-aref time :int64 0)) (cffi:mem-aref time :int64 1))))

(defun setting (name default)
  "The integer in environment variable NAME, or DEFAULT."
  (let ((text (uiop:getenv name)))
    (if (and text (string/= text "")) (parse-integer text) default)))

(defun file-line (path prefix)
  "What follows PREFIX in the first line of the file PATH that begins with it; NIL: there is none."
  (with-open-file (stream path :if-does-not-exist nil)
    (when stream
      (loop for line = (read-line stream nil)
            while line
            when (uiop:string-prefix-p prefix line)
              return (string-trim '(#\Space #\Tab #\:) (subseq line (length prefix)))))))

(defun first-line (&rest command)
  "The first line that COMMAND prints, or NIL where there is no such command."
  (ignore-errors (first (uiop:run-program command :output :lines))))

(defun machine-facts ()
  "Rows (what value) about where the run takes place."
  `(("processor" ,(or (file-line "/proc/cpuinfo" "model name") (machine-type)))
    ("processors" ,(first-line "getconf" "_NPROCESSORS_ONLN"))
    ("kernel" ,(file-line "/proc/sys/kernel/osrelease" ""))
    ("system" ,(string-trim "\"" (or (file-line "/etc/os-release" "PRETTY_NAME=") "unknown")))
    ("Lisp" ,(format nil "~A ~A" (lisp-implementation-type) (lisp-implementation-version)))
    ("C" ,(first-line "cc" "--version"))
    ("usocket" ,(asdf:component-version (asdf:find-system "usocket")))
    ("cl+ssl" ,(or (first-line "dpkg-query" "-W" "-f" "${Version}" "cl-plus-ssl") "unknown"))
    ("OpenSSL" ,(first-line "openssl" "version"))
    ("Python" ,(or (first-line "python3" "--version") "none"))
    ("load when it began" ,(file-line "/proc/loadavg" ""))))
