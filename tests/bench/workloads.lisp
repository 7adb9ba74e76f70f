;;;; workloads - what is measured: a table, and for each kind of operation the loop that does it.
;;;;
;;;; A loop is the same code for every library. It gets its peer, an open link and the number of
;;;; operations, and checks that it has got what was sent.

(in-package :port/bench)

(defconstant +piece+ 65536 "Octets of a piece of bulk data.")
(defconstant +file+ (ash 1 20) "Octets of a file.")
(defconstant +line+ 80 "Characters of a line.")
(defconstant +text+ 16 "Thousands of characters of a string that is read at once.")

(defstruct workload
  name                                  ; as peer.c and peer.py call it
  title unit
  server                                ; the kind of the other side; NIL: the same library, which
  serve                                 ; calls this with the stream of each connection
  (kind :text)
  (sides :own)                          ; whose time counts: the measured side's or that of :BOTH
  connects-p                            ; true if LOOP opens links of its own, to a port
  (count 0)                             ; of operations, at most
  only                                  ; names of peers, where only these have it
  prepare                               ; where there is no other side: makes for a peer what LOOP
  end                                   ; gets for a link, and ends it
  loop                                  ; a function of peer, link and count
  of-c                                  ; goal: time at most so many times that of plain C
  of-sbcl)                              ; goal: at least so many times as fast as sb-bsd-sockets

;;; Loops over round trips and connections

(defun missing (what)
  (error "~A are missing" what))

(defun octets-of (size)
  (make-array size :element-type '(unsigned-byte 8) :initial-element 97))

(defun ping-octet (peer link count)
  (let ((stream (link-stream peer link)))
    (dotimes (i count)
      (write-byte 97 stream)
      (finish-output stream)
      (unless (= 97 (read-byte stream)) (missing "octets")))))

(defun ping-octet-limited (peer link count)
  "As PING-OCTET, with every limit of time that port has: what they cost shows beside that."
  (let ((stream (link-stream peer link)))
    (setf (port:socket-timeout stream :input) 60
          (port:socket-timeout stream :output) 60
          (port:socket-deadline stream :input) 600
          (port:socket-deadline stream :output) 600)
    (port:with-deadline (600)
      (ping-octet peer link count))))

(defun ping-octets (peer link count)
  (let ((stream (link-stream peer link)) (octets (octets-of 64)))
    (dotimes (i count)
      (write-sequence octets stream)
      (finish-output stream)
      (unless (= 64 (read-sequence octets stream)) (missing "octets")))))

(defun connect-send-close (peer port count)
  (let ((octets (octets-of 64)))
    (dotimes (i count)
      (let ((link (open-link peer port :octets)))
        (write-sequence octets (link-stream peer link))
        (close-link peer link)))))

;;; What the other side does, where it is the same library

(defun echo-octet (stream)
  (loop for octet = (read-byte stream nil)
        while octet
        do (write-byte octet stream)
           (finish-output stream)))

(defun echo-octets (stream)
  (let ((octets (octets-of 64)))
    (loop while (= 64 (read-sequence octets stream))
          do (write-sequence octets stream)
             (finish-output stream))))

(defun swallow (stream)
  "Read up to the end of the file, into a vector with room to spare for what CONNECT-SEND-CLOSE
sends."
  (let ((octets (octets-of 128)))
    (loop while (= (length octets) (read-sequence octets stream)))))

;;; Loops over lines, text and octets

(defun read-lines (peer link count)
  (let ((stream (link-stream peer link)) (characters 0))
    (declare (type fixnum characters))
    (dotimes (i count)
      (incf characters (length (the string (read-line stream)))))
    (unless (= characters (* count +line+)) (missing "characters"))))

(defun write-lines-of (kind)
  (let ((lines (lines-of-kind kind)))
    (lambda (peer link count)
      (let ((stream (link-stream peer link)) (length (length lines)) (next 0))
        (declare (type fixnum next))
        (dotimes (i count)
          (write-line (svref lines next) stream)
          (setf next (if (= next (1- length)) 0 (1+ next))))
        (finish-output stream)))))

(defun read-text (peer link count)
  (let ((stream (link-stream peer link)) (string (make-string (* 1000 +text+))))
    (dotimes (i (floor count +text+))
      (unless (= (length string) (read-sequence string stream)) (missing "characters")))))

(defun read-octets (peer link count)
  (let ((stream (link-stream peer link)) (octets (octets-of +piece+)))
    (dotimes (i count)
      (unless (= +piece+ (read-sequence octets stream)) (missing "octets")))))

(defun write-octets (peer link count)
  (let ((stream (link-stream peer link)) (octets (octets-of +piece+)))
    (dotimes (i count)
      (write-sequence octets stream))
    (finish-output stream)))

(defun read-line-octets (peer link count)
  (let ((octets (octets-of 100)) (length 0))
    (declare (type fixnum length))
    (dotimes (i count)
      (incf length (the fixnum (port:read-line-octets (link-stream peer link) octets))))
    (unless (= length (* count +line+)) (missing "octets"))))

(defun send-file (peer link count)
  (uiop:with-temporary-file (:pathname path :stream file :element-type '(unsigned-byte 8))
    (write-sequence (octets-of +file+) file)
    (finish-output file)
    (with-open-file (stream path :element-type '(unsigned-byte 8))
      (dotimes (i count)
        (unless (= +file+ (port:send-file (link-stream peer link) stream)) (missing "octets"))))))

(defun read-some (peer link count)
  (let ((octets (octets-of +piece+)) (left (* count +piece+)))
    (declare (type fixnum left))
    (loop while (plusp left)
          do (let ((received (receive-some peer link octets)))
               (declare (type fixnum received))
               (when (zerop received) (missing "octets"))
               (decf left received)))))

(defun format-lines (peer link count)
  (let ((stream (link-stream peer link)))
    (dotimes (i count)
      (format stream "~A: ~D of ~D~%" "progress" i count))
    (finish-output stream)))

(defun read-characters (peer link count)
  (let ((stream (link-stream peer link)))
    (dotimes (i count)
      (read-char stream))))

(defun read-bytes (peer link count)
  (let ((stream (link-stream peer link)))
    (dotimes (i count)
      (read-byte stream))))

(defun write-characters (peer link count)
  (let ((stream (link-stream peer link)))
    (dotimes (i count)
      (write-char #\a stream))
    (finish-output stream)))

(defun write-bytes (peer link count)
  (let ((stream (link-stream peer link)))
    (dotimes (i count)
      (write-byte 97 stream))
    (finish-output stream)))

;;; Readiness: many local sockets in one poller, both ends of each pair

(defstruct crowd
  (poller (port:make-poller))
  (ends #() :type simple-vector))       ; of pair I: 2 I and 2 I + 1

(defun crowd-of (size)
  "A function that makes a crowd of SIZE sockets."
  (lambda (peer)
    (declare (ignore peer))
    (let ((crowd (make-crowd :ends (make-array size))))
      (loop for index from 0 below size by 2
            do (setf (values (svref (crowd-ends crowd) index) (svref (crowd-ends crowd) (1+ index)))
                     (port:open-socket-pair)))
      (loop for end across (crowd-ends crowd)
            for index from 0
            do (port:poller-add (crowd-poller crowd) end :data index))
      crowd)))

(defun end-crowd (peer crowd)
  (declare (ignore peer))
  (map nil (lambda (end) (close end :abort t)) (crowd-ends crowd))
  (close (crowd-poller crowd)))

(defun make-ready (crowd index)
  (let ((end (svref (crowd-ends crowd) (logxor index 1))))
    (write-byte 120 end)
    (finish-output end)))

(defun take-event (peer crowd count)
  (declare (ignore peer))
  (let ((poller (crowd-poller crowd)) (size (length (crowd-ends crowd))))
    (dotimes (i count)
      (make-ready crowd (mod (* i 7919) size))
      (unless (= 120 (read-byte (first (first (port:poller-wait poller))))) (missing "octets")))))

;;; The table

(defun workload-table ()
  "Rows for MAKE-WORKLOAD. A function of no arguments under :LOOP-MAKER makes the loop."
  `((pingpong1 "ping-pong of 1 octet" "round trip" :echo ping-octet 20000
               :kind :octets :sides :both :of-c 1.03 :of-sbcl 1)
    (pingpong1-limited "the same, with deadlines and timeouts" "round trip" :echo
                       ping-octet-limited 20000 :kind :octets :sides :both :only (:port :c))
    (pingpong64 "ping-pong of 64 octets" "round trip" :echo ping-octets 20000
                :kind :octets :sides :both :of-c 1.03 :of-sbcl 1)
    (connect-send-close "connect, send 64 octets, close" "connection" :sink connect-send-close 5000
                        :kind :octets :sides :both :connects-p t)
    (pair-pingpong1 "pair: ping-pong of 1 octet" "round trip" nil ping-octet 20000
                    :serve echo-octet :kind :octets :sides :both :of-c 1.05 :of-sbcl 1)
    (pair-pingpong64 "pair: ping-pong of 64 octets" "round trip" nil ping-octets 20000
                     :serve echo-octets :kind :octets :sides :both :of-c 1.03 :of-sbcl 1)
    (pair-connect "pair: connect, send 64 octets, close" "connection" nil connect-send-close 5000
                  :serve swallow :kind :octets :sides :both :connects-p t :of-c 1.1)
    (read-line-ascii "`read-line`, 80 ASCII characters" "line" :ascii read-lines 1000000
                     :of-c 1.8 :of-sbcl 7)
    (read-line-mixed "`read-line`, 80 characters of mixed scripts" "line" :mixed read-lines 400000
                     :of-c 0.8 :of-sbcl 4)
    (write-line-ascii "`write-line`, 80 ASCII characters" "line" :sink ,(write-lines-of :ascii)
                      1000000 :of-c 1.6 :of-sbcl 3)
    (write-line-mixed "`write-line`, 80 characters of mixed scripts" "line" :sink
                      ,(write-lines-of :mixed) 400000 :of-c 0.4 :of-sbcl 3)
    (read-text-ascii "`read-sequence` into a string, ASCII" "1000 characters" :ascii
                     read-text 100000 :of-sbcl 20)
    (read-text-mixed "`read-sequence` into a string, mixed scripts" "1000 characters" :mixed
                     read-text 40000 :of-sbcl 20)
    (read-octets "`read-sequence` of octets" "64 KiB" :octets read-octets ,(bulk-count)
                 :kind :octets :of-c 1.05 :of-sbcl 1.5)
    (write-octets "`write-sequence` of octets" "64 KiB" :sink write-octets ,(bulk-count)
                  :kind :octets :of-c 1.1 :of-sbcl 1)
    (send-file "`send-file`" "1 MiB" :sink send-file 2048 :kind :octets :only (:port :c :python))
    (read-line-octets "`read-line-octets`, 80 ASCII characters" "line" :ascii read-line-octets
                      1000000 :kind :octets :only (:port))
    (read-some "raw receive into a vector" "64 KiB" :octets read-some ,(bulk-count)
               :kind :octets :of-c 1.05 :of-sbcl 50)
    (format "`format` of a short line" "line" :sink format-lines 200000 :of-sbcl 1)
    (read-char "`read-char`" "character" :ascii read-characters 10000000 :of-sbcl 1)
    (read-byte "`read-byte`" "octet" :ascii read-bytes 10000000 :kind :octets :of-sbcl 1)
    (write-char "`write-char`" "character" :sink write-characters 10000000 :of-sbcl 1)
    (write-byte "`write-byte`" "octet" :sink write-bytes 10000000 :kind :octets :of-sbcl 1)
    (event-100 "poller: an event of 100 sockets" "event" nil take-event 100000
               :prepare ,(crowd-of 100) :end end-crowd :only (:port :c))
    (event-19000 "poller: an event of 19,000 sockets" "event" nil take-event 100000
                 :prepare ,(crowd-of 19000) :end end-crowd :only (:port :c))
    (tls-ping "TLS: round trip of 64 octets, both ends" "round trip" nil ping-secure-ends 50000
              :prepare open-secure-ends :end close-secure-ends :only (:port :c :cl+ssl :python))
    (tls-octets "TLS: octets one way, both ends" "64 KiB" nil pass-secure-octets 4096
                :prepare open-secure-ends :end close-secure-ends
                :only (:port :c :cl+ssl :python))
    (datagram-echo "UDP: round trip of 64 octets" "round trip" :datagram-echo ping-server 20000
                   :sides :both :connects-p t :of-c 1.03 :of-sbcl 1.15)
    (datagram-ends "UDP: round trip of 64 octets, both ends" "round trip" nil ping-ends 100000
                   :prepare open-ends :end close-ends :of-c 1.03 :of-sbcl 1.15)
    (datagram-single "UDP: 1200 octets one way" "message" nil pass-messages 100000
                     :prepare large-ends :end close-ends)
    (datagram-batch-mixed "UDP: batches of 64, lengths differ" "message" nil pass-batches 200000
                          :prepare ,(batch-ends 1) :end close-ends :only (:port :c))
    (datagram-batch "UDP: batches of 64, 1200 octets" "message" nil pass-batches 400000
                    :prepare ,(batch-ends 0) :end close-ends :only (:port :c))
    (datagram-batch-joined "UDP: the same, received joined" "message" nil pass-batches 400000
                           :prepare ,(batch-ends 0 :joined t :capacity 1024)
                           :end close-ends :only (:port :c))))

(defun bulk-count ()
  "Pieces in 256 MiB, or in 1 GiB with BENCH_FULL."
  (if (plusp (setting "BENCH_FULL" 0)) 16384 4096))

(defun workloads (part)
  "The workloads whose names have PART in them."
  (loop for (name title unit server loop count . more) in (workload-table)
        when (search part (string-downcase name))
          collect (apply #'make-workload :name name :title title :unit unit :server server
                                         :loop (coerce loop 'function) :count count more)))
