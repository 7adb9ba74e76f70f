;;;; service - services and pollers beside servers in plain C, Node and hunchentoot: a table of its
;;;; own, since what counts is requests in a second, and how late the slowest are.

(in-package :port/bench)

(defstruct server-row title unit c port others of-c more-than)
;; C, PORT: (number . 99th percentile or NIL); OTHERS: an alist of titles and such; numbers are
;; amounts in a second for requests, else nanoseconds. OF-C: goal for the ratio to C.

(defun with-program-server (function &rest command)
  "Call FUNCTION with the port that COMMAND, a server, prints; NIL if it prints none."
  (let* ((process (uiop:launch-program command :output :stream :error-output nil))
         (line (read-line (uiop:process-info-output process) nil)))
    (unwind-protect (and line (funcall function (parse-integer line)))
      (uiop:terminate-process process :urgent t)
      (uiop:wait-process process)
      (uiop:close-streams process))))

(defun with-port-server (function start)
  "Call FUNCTION with the port of the service that START returns."
  (let ((server (funcall start)))
    (unwind-protect
         (funcall function (nth-value 1 (port:socket-server-host/port
                                         (first (port:server-listeners server)))))
      (port:stop-server server :drain 0))))

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

(defun wrk-of (start &rest options)
  "A function of no arguments that runs wrk against what START, called with a function, serves."
  (lambda ()
    (funcall start (lambda (port)
                     (multiple-value-bind (requests late) (apply #'wrk port options)
                       (cons requests late))))))

(defun program-starter (&rest command)
  (lambda (function) (apply #'with-program-server function command)))

(defun rounds-of (rounds functions)
  "For each of FUNCTIONS the medians of what it returned in ROUNDS rounds, in which they take turns;
NIL for one that returns NIL."
  (let ((samples (loop repeat rounds collect (mapcar #'funcall functions))))
    (apply #'mapcar (lambda (&rest column)
                      (unless (member nil column)
                        (cons (median (mapcar #'car column))
                              (and (cdr (first column)) (median (mapcar #'cdr column))))))
           samples)))

;;; Answered and closed

(defparameter *closing-answer*
  (babel:string-to-octets
   (format nil "HTTP/1.1 200 OK~C~%Content-Type: text/plain; charset=utf-8~:*~C~%~
                Connection: close~:*~C~%Content-Length: 13~:*~C~%~:*~C~%hello, world~%"
           #\Return)
   :encoding :utf-8))

(defun answer-once (socket)
  "Answer whatever comes as the HTTP example does, and close."
  (let ((room (octets-of 4096)))
    (when (plusp (port:read-some socket room))
      (port:write-octets socket *closing-answer*)
      nil)))

(defparameter *closing-threads* 4)

(defun http-rows (rounds)
  (destructuring-bind (c port node hunchentoot)
      (rounds-of rounds
                 (list (wrk-of (program-starter (server-program) "http"))
                       (wrk-of (lambda (function)
                                 (with-port-server
                                     function
                                   (lambda ()
                                     (port-example/http:start 0 'port-example/http:hello
                                                              :host "127.0.0.1")))))
                       (wrk-of (program-starter "node" (project-file "tests/bench/server.js")))
                       (wrk-of (program-starter
                                "sbcl" "--script"
                                (project-file "tests/bench/server-hunchentoot.lisp")))))
    (list (make-server-row :title "HTTP requests on kept connections, 64 at once" :unit "1/s"
                           :c c :port port :of-c 3/4
                           :others `(("Node" . ,node) ("hunchentoot" . ,hunchentoot))
                           :more-than '(("Node" . 1) ("hunchentoot" . 4))))))

(defun closing-rows (rounds)
  (destructuring-bind (c port)
      (rounds-of rounds
                 (list (wrk-of (program-starter (server-program) "closing"
                                                (princ-to-string *closing-threads*))
                               "-H" "Connection: close")
                       (wrk-of (lambda (function)
                                 (with-port-server
                                     function
                                   (lambda ()
                                     (port:serve #'answer-once 0 :host "127.0.0.1"
                                                                 :threads *closing-threads*))))
                               "-H" "Connection: close")))
    (list (make-server-row :title (format nil "connections accepted, answered, closed; ~D threads"
                                          *closing-threads*)
                           :unit "1/s" :c c :port port :of-c (/ 1 1.05)))))

;;; Waits for many

(defparameter *waits* 2000)

(defun port-wait (sockets ready)
  "A function: the nanoseconds of one POLLER-WAIT for SOCKETS sockets, READY of which have input."
  (lambda ()
    (let ((poller (port:make-poller)) (all '()))
      (unwind-protect
           (progn
             (dotimes (i (floor sockets 2)) ; both ends wait
               (multiple-value-bind (a b) (port:open-socket-pair)
                 (push a all)
                 (push b all)
                 (port:poller-add poller a)
                 (port:poller-add poller b)
                 (when (< i ready)
                   (write-byte 1 b)
                   (finish-output b))))
             (dotimes (i 10)
               (port:poller-wait poller))
             (let ((start (clock-ns +own-clock+)))
               (dotimes (i *waits*)
                 (unless (= ready (length (port:poller-wait poller))) (missing "events")))
               (list (/ (- (clock-ns +own-clock+) start) *waits*))))
        (close poller)
        (dolist (socket all)
          (close socket :abort t))))))

(defun c-wait (sockets ready)
  (lambda ()
    (list (parse-decimal
           (string-trim '(#\Newline)
                        (uiop:run-program (mapcar #'princ-to-string
                                                  (list (server-program) "wait" sockets ready
                                                        *waits*))
                                          :output :string))))))

(defun wait-rows (rounds)
  (loop for sockets in '(200 10100 19000)
        collect (destructuring-bind (c port)
                    (rounds-of rounds (list (c-wait sockets 100) (port-wait sockets 100)))
                  (make-server-row :title (format nil "a wait among ~D sockets, 100 with input"
                                                  sockets)
                                   :unit "ns" :c c :port port
                                   :of-c (and (= sockets 10100) 1.3)))))

;;; The table

(defun server-program ()
  (project-file "build/bench/server"))

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
                  when ratio
                    collect (format nil "~A of ~A" (goal-text ratio factor (>= ratio factor))
                                    title)))))

(defun print-server-table (rows stream)
  (format stream "~&| servers and pollers | unit | port | plain C | Node | hunchentoot ~
                  | port / C |~%~
                  |---|---|---|---|---|---|---|~%")
  (dolist (row rows)
    (flet ((other (title)
             (server-cell (cdr (assoc title (server-row-others row) :test #'string=)))))
      (format stream "| ~A | ~A | ~A | ~A | ~A | ~A | ~A |~%"
              (server-row-title row) (server-row-unit row) (server-cell (server-row-port row))
              (server-cell (server-row-c row)) (other "Node") (other "hunchentoot")
              (server-ratios row)))))
