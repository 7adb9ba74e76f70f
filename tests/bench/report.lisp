;;;; report - the table of ratios, on the terminal and in docs/benchmarks.md.

(in-package :port/bench)

(defstruct result workload samples)     ; samples: what MEASURE returns

(defun samples-of (result name)
  "The samples of the peer called NAME, in the order of the rounds."
  (rest (find name (result-samples result) :key (lambda (entry) (peer-name (first entry))))))

(defun times-of (result name)
  (mapcar (lambda (sample) (sample-time sample (result-workload result)))
          (samples-of result name)))

(defun ratio-of (result name other)
  "The median over the rounds of NAME's time by OTHER's; NIL where one of them has none."
  (let ((times (times-of result name)) (others (times-of result other)))
    (when (and times others)
      (median (mapcar #'/ times others)))))

(defun time-of (result name)
  (let ((times (times-of result name)))
    (and times (median times))))

(defun consed-of (result name)
  (let ((consed (remove nil (mapcar #'sample-consed (samples-of result name)))))
    (and consed (median consed))))

;;; Cells

(defun number-text (number)
  "NUMBER in three digits or so; a dash for NIL."
  (cond ((null number) "-")
        ((< (abs number) 0.005) "0")
        ((< number 10) (format nil "~,2F" number))
        ((< number 100) (format nil "~,1F" number))
        (t (format nil "~D" (round number)))))

(defun goal-text (ratio goal met-p &optional plain)
  "RATIO with its GOAL, if there is one, and with PLAIN, that of plain C, if there is that."
  (cond ((or (null ratio) (null goal)) (number-text ratio))
        (t (format nil "~A (~A ~A~@[; plain C ~A~])" (number-text ratio)
                   (if met-p "meets" "misses") (number-text goal)
                   (and plain (number-text plain))))))

(defun of-c-text (result)
  (let ((ratio (ratio-of result :port :c)) (goal (workload-of-c (result-workload result))))
    (goal-text ratio goal (and ratio goal (<= ratio goal)))))

(defun of-sbcl-text (result)
  (let* ((ratio (ratio-of result :sbcl :port))
         (plain (ratio-of result :sbcl :c))
         (goal (workload-of-sbcl (result-workload result)))
         (met-p (and ratio goal (>= ratio goal))))
    (goal-text ratio goal met-p (and plain goal (not met-p) (< plain goal) plain))))

(defparameter *columns*
  `(("workload" ,(lambda (result) (workload-title (result-workload result))))
    ("unit" ,(lambda (result) (workload-unit (result-workload result))))
    ("port, ns" ,(lambda (result) (number-text (time-of result :port))))
    ("plain C, ns" ,(lambda (result) (number-text (time-of result :c))))
    ("port / C" of-c-text)
    ("sb-bsd-sockets / port" of-sbcl-text)
    ("usocket / port" ,(lambda (result) (number-text (ratio-of result :usocket :port))))
    ("cl+ssl / port" ,(lambda (result) (number-text (ratio-of result :cl+ssl :port))))
    ("Python / port" ,(lambda (result) (number-text (ratio-of result :python :port))))
    ("port conses" ,(lambda (result) (number-text (consed-of result :port))))
    ("sb-bsd-sockets conses" ,(lambda (result) (number-text (consed-of result :sbcl)))))
  "Rows (title function): the text in a column for a result.")

(defun row (result)
  (loop for (nil function) in *columns* collect (funcall function result)))

(defun print-table (results stream)
  "RESULTS as a table of Markdown with its columns in line."
  (let* ((rows (cons (mapcar #'first *columns*) (mapcar #'row results)))
         (widths (apply #'mapcar (lambda (&rest cells) (reduce #'max cells :key #'length)) rows)))
    (flet ((line (cells)
             (format stream "~{| ~VA ~}|~%" (mapcan #'list (copy-list widths) cells))))
      (line (first rows))
      (format stream "|~{~V,,,'-A|~}~%" (mapcan (lambda (width) (list (+ 2 width) ""))
                                                (copy-list widths)))
      (mapc #'line (rest rows)))))

;;; The document

(defparameter *preface* "# Benchmarks

Written by `make bench`; do not edit. Everybody runs each workload in turn, ~D rounds; a time is the
median of the rounds, a ratio the median of the ratios of each round.

- The other side is a plain C process (`tests/bench/peer.c`), the same for everybody, over TCP on
  127.0.0.1. Both sides are kept on one processor, so that a number does not depend on where the
  system puts them.
- \"pair\": both sides are the library that is measured, two threads of one process on one
  processor; for C, two threads with blocking calls. The other thread echoes what it reads, or
  accepts, reads to the end of the file and closes. Every connection has TCP_NODELAY set, and each
  library waits for input in its own way. The rows without \"pair\" show the client alone, and every
  switch from side to side is one between processes.
- Times are processor time, in nanoseconds of one unit: of both sides together for pairs, ping-pong
  and connect, else of the side that is measured, system calls included.
- \"port / C\" is port's time by that of plain C doing the same: for text it decodes to and encodes
  from UTF-32, line by line, without making strings; `read-char` and its kin are `getc` and `putc`,
  `format` is `fprintf`. \"X / port\": so many times the time of port does X take.
- sb-bsd-sockets: `socket-make-stream` with `:element-type :default :external-format :utf-8
  :buffering :full`; raw receive is `socket-receive`. usocket: its streams of characters or octets,
  as the workload needs. The Lisp libraries run the same loops over the same operators.
- Python: its sockets, `makefile` for lines and text.
- UDP: where a row says \"both ends\", and in all that go one way, both ends are in one thread, so
  that the calls are measured; else the other side is a plain C process. One way, 64 messages are
  sent, then received. port's batches are `send-batch` and `receive-batch`; C's are `sendmmsg` and
  `recvmmsg` where lengths differ, UDP_SEGMENT and `recvmmsg` where they do not, and UDP_SEGMENT and
  UDP_GRO where they are received joined.
- TLS: both ends are in one thread, over a pair of local sockets, and verify nobody. C's are
  OpenSSL's, on descriptors that block. cl+ssl's are its streams on descriptors, with the buffers
  that it has unless told otherwise, 2 KiB, which are its records too: larger ones cost it less
  where there is much to send. Python's are sockets of `ssl`.
- \"conses\": octets of Lisp memory that one unit allocates; a line that is read is a fresh string.
  Before each run the memory in which young objects are made is filled and collected once, as in a
  process that has run for a second: pages that were never touched cost more than all else here.
- \"meets\" and \"misses\" compare a ratio with the goal beside it. Where plain C would miss a goal
  against sb-bsd-sockets too, its ratio is there as well.

")

(defun print-facts (stream)
  (format stream "| machine | |~%|---|---|~%~:{| ~A | ~A |~%~}" (machine-facts))
  (terpri stream))

(defparameter *server-preface* "
Servers: `wrk` with 64 connections for a second a round, on the same processor as the server, so
both share it. Each server is a process of its own and is warmed up by such a second before the
rounds. port's (`tests/bench/server-port.lisp`) is the HTTP example, or the shortest function for a
connection that is closed; C's a loop on epoll, or threads that accept, with a fixed answer and no
check of the request (`tests/bench/server.c`). \"hunchentoot on port\" is that server by the
system `port/hunchentoot`, on sockets of port. Where plain C would miss a goal against another
server too, its ratio is there as well. Pollers: processor time of one wait that returns 100 events;
usocket's WAIT-FOR-INPUT is left out, because on SBCL it writes past a set of 1,024 descriptors and
corrupts the memory of the program.

")

(defun write-document (results rows rounds facts path)
  (with-open-file (stream path :direction :output :if-exists :supersede :external-format :utf-8)
    (format stream *preface* rounds)
    (write-string facts stream)
    (print-table results stream)
    (write-string *server-preface* stream)
    (print-server-table rows stream)))
