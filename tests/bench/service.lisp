;;;; service - services and pollers beside servers in plain C, Node and hunchentoot: a table of its
;;;; own, since what counts is requests in a second, and how late the slowest are.

(in-package :port/bench)

(defstruct server-row title unit c port others of-c more-than)
;; C, PORT: (number . 99th percentile or NIL); OTHERS: an alist of titles and such; numbers are
;; amounts in a second for requests, else nanoseconds. OF-C: goal for the ratio to C.

(defun call-with-programs (function commands)
  "Call FUNCTION with the ports that COMMANDS, servers, print, NIL for one that prints none."
  (let ((processes '()))
    (unwind-protect
         (progn
           (dolist (command commands)
             (push (uiop:launch-program command :output :stream :error-output nil) processes))
           (funcall function (mapcar #'printed-port (reverse processes))))
      (mapc #'end-process processes))))

;;; Requests, by wrk

(defun number-after (text output)
  "The number behind TEXT in OUTPUT, and what follows it up to the end of the line."
  (let* ((start (+ (search text output) (length text)))
         (from (position-if #'digit-char-p output :start start))
         (to (position-if-not (lambda (char) (or (digit-char-p char) (char= char #\.)))
                              output :start from)))
    (values (parse-decimal (subseq output from to))
            (string-trim " " (subseq output to (position #\Newline output :start to))))))

(defun wrk (port &rest options)
  "Values: requests in a second; the 99th percentile of the latency in microseconds."
  (let ((output (uiop:run-program
                 (append '("wrk" "-t1" "-c64" "--latency")
                         (list (format nil "-d~D" (if (plusp (setting "BENCH_FULL" 0)) 5 1)))
                         options
                         (list (format nil "http://127.0.0.1:~D/" port)))
                 :output :string)))
    (multiple-value-bind (late unit) (number-after " 99%" output)
      (values (number-after "Requests/sec:" output)
              (* late (or (cdr (assoc unit '(("us" . 1) ("ms" . 1000) ("s" . 1000000))
                                      :test #'string=))
                          (error "wrk measured no latency:~%~A" output)))))))

(defun rounds-of (rounds functions)
  "For each of FUNCTIONS the medians of what it returned in ROUNDS rounds, in which they take turns;
NIL for one that returns NIL."
  (let ((samples (loop repeat rounds collect (mapcar #'funcall functions))))
    (apply #'mapcar (lambda (&rest column)
                      (unless (member nil column)
                        (cons (median (mapcar #'car column))
                              (and (cdr (first column)) (median (mapcar #'cdr column))))))
           samples)))

(defun wrk-rounds (rounds commands &rest options)
  "For each of COMMANDS, servers, the medians of what wrk with OPTIONS measures, warmed up before."
  (flet ((run-of (port)
           (lambda ()
             (and port (multiple-value-call #'cons (apply #'wrk port options))))))
    (call-with-programs (lambda (ports)
                          (let ((runs (mapcar #'run-of ports)))
                            (mapc #'funcall runs)
                            (rounds-of rounds runs)))
                        commands)))

;;; What is compared: programs of their own, so that nobody pays for what is in this one's memory

(defun c-program (&rest words)
  (cons (project-file "build/bench/server") (mapcar #'princ-to-string words)))

(defun lisp-program (path &rest words)
  (list* sb-ext:*runtime-pathname* "--script" (project-file path)
         (mapcar #'princ-to-string words)))

(defun port-program (&rest words)
  (apply #'lisp-program "tests/bench/server-port.lisp" words))

(defun node-program ()
  (list "node" (project-file "tests/bench/server.js")))

(defun hunchentoot-program (system)
  (lisp-program "tests/bench/server-hunchentoot.lisp" system))

(defparameter *other-servers* '("Node" "hunchentoot" "hunchentoot on port")
  "The columns of the table for servers that are not of this project, and for one of them on port.")

(defun http-rows (rounds)
  (destructuring-bind (c port . others)
      (wrk-rounds rounds (list (c-program "http") (port-program "http") (node-program)
                               (hunchentoot-program "hunchentoot")
                               (hunchentoot-program "port/hunchentoot")))
    (list (make-server-row :title "HTTP requests on kept connections, 64 at once" :unit "1/s"
                           :c c :port port :of-c 3/4
                           :others (mapcar #'cons *other-servers* others)
                           :more-than '(("Node" . 1) ("hunchentoot" . 4))))))

(defparameter *closing-threads* 4)

(defun closing-rows (rounds)
  (destructuring-bind (c port)
      (wrk-rounds rounds
                  (list (c-program "closing" *closing-threads*)
                        (port-program "closing" *closing-threads*))
                  "-H" "Connection: close")
    (list (make-server-row :title (format nil "connections accepted, answered, closed; ~D threads"
                                          *closing-threads*)
                           :unit "1/s" :c c :port port :of-c (/ 1 1.05)))))

(defparameter *waits* 2000)

(defun wait-of (program sockets ready)
  "A function: the nanoseconds of one wait by PROGRAM for SOCKETS sockets, READY of which have
input."
  (lambda ()
    (list (parse-decimal (string-trim '(#\Newline)
                                      (uiop:run-program
                                       (funcall program "wait" sockets ready *waits*)
                                       :output :string))))))

(defun wait-rows (rounds)
  (loop for sockets in '(200 10100 19000)
        collect (destructuring-bind (c port)
                    (rounds-of rounds (list (wait-of #'c-program sockets 100)
                                            (wait-of #'port-program sockets 100)))
                  (make-server-row :title (format nil "a wait among ~D sockets, 100 with input"
                                                  sockets)
                                   :unit "ns" :c c :port port
                                   :of-c (and (= sockets 10100) 1.3)))))

;;; The table

(defun server-rows (part rounds)
  "The rows of the groups whose names have PART in them."
  (loop for (name function) in '(("http" http-rows) ("closing" closing-rows) ("wait" wait-rows))
        when (search part name)
          append (progn (format *error-output* "~&servers: ~A~%" name)
                        (finish-output *error-output*)
                        (funcall function rounds))))

(defun server-cell (entry)
  (if entry
      (format nil "~A~@[, 99 % within ~A us~]" (number-text (car entry))
              (and (cdr entry) (number-text (cdr entry))))
      "-"))

(defun over (number other)
  "NUMBER by OTHER; NIL where nothing was measured: on a busy machine a server may answer nothing in
its second."
  (and (plusp other) (/ number other)))

(defun server-ratios (row)
  "What the goals of ROW have come to."
  (let* ((c (server-row-c row)) (port (server-row-port row)) (goal (server-row-of-c row))
         (ratio (over (car port) (car c)))
         (more-p (string= (server-row-unit row) "1/s")))
    (format nil "~A~@[; 99 %: ~A~]~{; ~A~}"
            (goal-text ratio goal (and goal ratio (if more-p (>= ratio goal) (<= ratio goal))))
            (let ((late (and more-p (over (cdr port) (cdr c)))))
              (and late (goal-text late 2 (<= late 2))))
            (loop for (title . factor) in (server-row-more-than row)
                  for other = (cdr (assoc title (server-row-others row) :test #'string=))
                  for ratio = (and other (over (car port) (car other)))
                  for plain = (and ratio (over (car c) (car other)))
                  when ratio
                    collect (format nil "~A of ~A"
                                    (goal-text ratio factor (>= ratio factor)
                                               (and (< plain factor) plain))
                                    title)))))

(defun print-server-table (rows stream)
  (format stream "~&| servers and pollers | unit | port | plain C ~{| ~A ~}| port / C |~%~
                  |---|---|---|---~{|---~*~}|---|~%"
          *other-servers* *other-servers*)
  (dolist (row rows)
    (flet ((other (title)
             (server-cell (cdr (assoc title (server-row-others row) :test #'string=)))))
      (format stream "| ~A | ~A | ~A | ~A ~{| ~A ~}| ~A |~%"
              (server-row-title row) (server-row-unit row) (server-cell (server-row-port row))
              (server-cell (server-row-c row)) (mapcar #'other *other-servers*)
              (server-ratios row)))))
