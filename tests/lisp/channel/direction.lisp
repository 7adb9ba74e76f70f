;;;; direction - one thread at a time reads, one writes; who moves much does so at less cost.

(in-package :port/test)

(define-suite direction "Owners and residents of the directions of a socket.")

(defun counts-of (octets)
  "How often each octet is in the sequence OCTETS."
  (let ((counts (make-array 256 :initial-element 0)))
    (map nil (lambda (octet) (incf (aref counts octet))) octets)
    counts))

(defun read-bytes (socket &optional count)
  "COUNT octets of SOCKET, or all up to its end of file, read one by one: a list."
  (loop for octet = (and (or (null count) (<= 0 (decf count)))
                         (read-byte socket nil))
        while octet
        collect octet))

(defun channel-of (socket)
  (port::socket-connection socket))

(define-test direction.residents (:weather nil)
  "Who moves much becomes the resident; a second thread ends that, for good."
  (with-pair (a b)
    (let ((writer (in-thread (lambda ()
                               (dotimes (i 200000)
                                 (write-byte 7 a))
                               (finish-output a)
                               sb-thread:*current-thread*))))
      (is (= 100 (length (read-bytes b 100))))
      (is (eq sb-thread:*current-thread* (port::channel-input-resident (channel-of b))))
      (is (= 100 (length (join (in-thread (lambda () (read-bytes b 100)))))))
      (is (null (port::channel-input-resident (channel-of b))))
      (is (= 199800 (length (read-bytes b 199800))))
      (is (null (port::channel-input-resident (channel-of b))))
      (let ((thread (join writer)))
        (is (eq thread (port::channel-output-resident (channel-of a))))))))

(define-test direction.little-is-no-residence ()
  (with-pair (a b)
    (dotimes (i 100)
      (send-octets a "hello" 10)
      (is (string= "hello" (read-line b))))
    (is (null (port::channel-input-resident (channel-of b))))
    (is (null (port::channel-output-resident (channel-of a))))))

(define-test direction.a-second-reader (:behaviour 21 :limit 60)
  "Comes at any moment: each octet is read by one of them, once."
  (let ((state (sb-ext:seed-random-state (test-seed))))
    (dotimes (round (if (weather-p) 5 100))
      (with-pair (a b)
        (let* ((out (random-octets (amount 20000) state))
               (writer (in-thread (lambda () (write-octets a out) (close a))))
               (first (in-thread (lambda () (read-bytes b)))))
          (loop repeat (random 100000 state))
          (let ((in (append (read-bytes b) (join first))))
            (join writer)
            (is (equalp (counts-of out) (counts-of in)))))))))

(define-test direction.a-wait-for-it-has-limits (:behaviour (4 10))
  "Those of the call that waits, whatever holds for the one that is in it."
  (with-pair (a b)
    (let ((reader (start-blocked (lambda () (read-char b)))))
      (is (typep (failure-of (with-deadline (0.05) (read-line b))) 'timeout))
      (setf (socket-timeout b :input) 0.05)
      (is (typep (failure-of (read-byte b)) 'timeout))
      (send-octets a "x")
      (is (eql #\x (join reader)))
      (clog a)
      (let ((writer (start-blocked (lambda () (write-much a)))))
        (is (typep (failure-of (with-deadline (0.05) (write-line "x" a))) 'timeout))
        (close b :abort t)
        (is (typep (join writer) 'connection-lost)))
      (clear-output a))))

(define-test direction.a-second-writer (:behaviour 21 :limit 60)
  "Comes at any moment: each octet is written once, each thread's in their order."
  (let ((state (sb-ext:seed-random-state (test-seed))))
    (flet ((count-up (socket first)
             (dotimes (i (amount 70000))
               (write-byte (+ first (mod i 128)) socket))))
      (dotimes (round (if (weather-p) 2 10))
        (with-pair (a b)
          (let ((reader (in-thread (lambda () (everything b))))
                (writer (in-thread (lambda () (count-up a 0)))))
            (loop repeat (random 1000000 state))
            (count-up a 128)
            (join writer)
            (close a)
            (let ((next (vector 0 0)) (octets (join reader)))
              (is (= (* 2 (amount 70000)) (length octets)))
              (is (loop for octet across octets
                        for side = (ash octet -7)
                        always (= (mod octet 128) (mod (aref next side) 128))
                        do (incf (aref next side)))))))))))

(defun warm-up (a b)
  "Use B and A once: SBCL may be interrupted in many things, but not in finishing a class."
  (send-octets a "ab" 10 "c" 10)
  (is (eql 97 (read-byte b)))
  (is (eql #\b (read-char b)))
  (read-char b)
  (is (string= "c" (read-line b))))

(defun call-interrupted (function interrupt)
  "Call FUNCTION while this thread is interrupted by INTERRUPT, again each time that it has been;
the values of FUNCTION."
  (let* ((done nil)
         (self sb-thread:*current-thread*)
         (answered (sb-thread:make-semaphore))
         (interrupter (in-thread
                       (lambda ()
                         (loop until done
                               do (sb-thread:interrupt-thread
                                   self
                                   (lambda ()
                                     (unless done
                                       (funcall interrupt))
                                     (sb-thread:signal-semaphore answered)))
                                  (sb-thread:wait-on-semaphore answered))))))
    (unwind-protect (funcall function)
      (setf done t)
      (join interrupter))))

(defun read-interrupted (read)
  "What READ, a function that reads the next element, or NIL at the end, and does not block, reads
here and in interrupts of this thread until the end: a list, in no order."
  (let ((all '()))
    (flet ((read-one ()
             (let ((element (funcall read)))
               (when element
                 (sb-sys:without-interrupts (push element all))))))
      (call-interrupted (lambda () (loop while (read-one))) #'read-one))
    all))

(defun call-with-all-there (write read)
  "Call WRITE with a socket that has room for all that it writes, and then READ with the other end."
  (dotimes (round (if (weather-p) 1 10))
    (with-pair (a b :inet)
      (warm-up a b)
      (funcall write a)
      (close a)
      (funcall read b))))

(define-test direction.an-interrupt-that-reads (:behaviour 26 :limit 60)
  "The same thread reads what it is interrupted in reading: each octet is read once."
  (let ((out (random-octets (amount 100000) (sb-ext:seed-random-state (test-seed)))))
    (call-with-all-there
     (lambda (socket) (write-octets socket out))
     (lambda (socket)
       (is (equalp (counts-of out)
                   (counts-of (read-interrupted (lambda () (read-byte socket nil))))))))))

(define-test direction.characters-that-an-interrupt-reads (:behaviour 26 :limit 60)
  "The same, of characters of several octets."
  (let ((out (make-string (amount 50000))))
    (map-into out (let ((code #x100))
                    (lambda () (code-char (setf code (if (= code #x7ff) #x100 (1+ code)))))))
    (call-with-all-there
     (lambda (socket) (write-string out socket))
     (lambda (socket)
       (is (string= (sort (copy-seq out) #'char<)
                    (sort (coerce (read-interrupted (lambda () (read-char socket nil))) 'string)
                          #'char<)))))))

(define-test direction.lines-that-an-interrupt-reads (:behaviour 26 :limit 60)
  "The same, of lines: each is read once and whole."
  (let ((lines (loop for i below (amount 4000)
                     collect (format nil "this is line number ~6,'0D" i))))
    (call-with-all-there
     (lambda (socket)
       (dolist (line lines)
         (write-line line socket)))
     (lambda (socket)
       (is (equal lines (sort (read-interrupted (lambda () (read-line socket nil)))
                              #'string<)))))))

(define-test direction.an-interrupt-that-writes (:behaviour 26 :limit 60)
  "The same, of writing and flushing: each octet is written once."
  (with-pair (a b)
    (warm-up a b)
    (let ((reader (in-thread (lambda () (counts-of (everything b)))))
          (octets (fill (blank 100) 1)) (string (make-string 100 :initial-element #\Ā))
          (rounds (amount 20000)) (others 0))
      (call-interrupted (lambda ()
                          (dotimes (i rounds)
                            (write-byte 2 a)
                            (write-sequence octets a)
                            (write-string string a)))
                        (lambda ()
                          (incf others)
                          (write-char #\! a)
                          (finish-output a)))
      (close a)
      (let ((counts (join reader)))
        (is (= rounds (aref counts 2)))
        (is (= (* 100 rounds) (aref counts 1)))
        (is (= (* 100 rounds) (aref counts #xC4) (aref counts #x80)))
        (is (= others (aref counts (char-code #\!))))))))

(define-test direction.a-close-from-elsewhere (:behaviour 13 :limit 60)
  "Ends a resident's reading at any moment."
  (let ((state (sb-ext:seed-random-state (test-seed))))
    (dotimes (round (if (weather-p) 10 100))
      (with-pair (a b)
        (let ((writer (in-thread (lambda ()
                                   (failure-of (loop with octets = (blank 10000)
                                                     do (write-octets a octets))))))
              (reader (in-thread (lambda () (failure-of (loop (read-byte b)))))))
          (loop repeat (random 1000000 state))
          (close b)
          (is (typep (join reader) 'socket-closed))
          (is (typep (join writer) 'network)))))))

(define-test direction.without-fences ()
  "Where the system has none, there are no residents."
  (let ((fences port::*fences-p*))
    (unwind-protect
         (with-pair (a b)
           (setf port::*fences-p* nil)
           (let ((writer (in-thread (lambda ()
                                      (write-octets a (blank 5000))
                                      (finish-output a)))))
             (is (= 5000 (length (read-bytes b 5000))))
             (join writer))
           (is (null (port::channel-input-resident (channel-of b))))
           (is (null (port::channel-output-resident (channel-of a)))))
      (setf port::*fences-p* fences))))

;;; Moments that are hit with certainty: an interrupt that comes while a function is called

(defun call-interrupting (name function interrupt)
  "Call FUNCTION; when it first calls the function NAME, interrupt this thread by INTERRUPT before
and after that."
  (let ((left 1))
    (flet ((interrupt ()
             (sb-thread:interrupt-thread sb-thread:*current-thread* interrupt)))
      (sb-int:encapsulate name 'interrupting
                          (lambda (original &rest arguments)
                            (if (minusp (decf left))
                                (apply original arguments)
                                (progn (interrupt)
                                       (multiple-value-prog1 (apply original arguments)
                                         (interrupt))))))
      (unwind-protect (funcall function)
        (sb-int:unencapsulate name 'interrupting)))))

(defun fill-buffer (socket count)
  "Receive until COUNT octets are in the buffer of SOCKET."
  (let ((connection (channel-of socket)))
    (port::with-input (connection)
      (loop until (>= (port::buffered-input connection) count)
            do (port::fill-input connection port::+never+)))))

(defun settle (socket writer &rest octets)
  "Make this thread the resident reader of SOCKET, with OCTETS, written to WRITER, and many more
unread."
  (apply #'send-octets writer octets)
  (write-octets writer (blank 5000))
  (finish-output writer)
  (fill-buffer socket 5000)
  (let ((connection (channel-of socket)))
    (is (eq sb-thread:*current-thread* (port::channel-input-resident connection)))))

(define-test direction.an-interrupt-of-who-evicts (:weather nil)
  "An interrupt may use what its thread owns: it comes once no resident is inside any more."
  (with-pair (a b)
    (settle b a)
    (let ((seen '()) (connection (channel-of b)))
      (join (in-thread
             (lambda ()
               (call-interrupting
                'port::evict
                (lambda () (clear-input b))
                (lambda ()
                  (port::with-input (connection)
                    (push (port::channel-input-resident connection) seen)))))))
      (is (equal '(nil nil) seen)))))

(define-test direction.an-interrupt-that-fills-the-buffer (:behaviour 26 :weather nil)
  "Whoever has made room for output looks whether it is there still."
  (loop for (size write) in (list (list 1 (lambda (a) (write-byte 1 a)))
                                  (list 2 (lambda (a) (write-char #\é a))))
        do (with-pair (a b)
             (let ((reader (in-thread (lambda () (length (everything b))))) (written size))
               (flet ((fill-output ()
                        (loop for room = (- 65536 (nth-value 1 (buffered-octets a)))
                              while (plusp room)
                              do (write-octets a (blank (min room 30000)))
                                 (incf written (min room 30000)))))
                 (fill-output)
                 (call-interrupting 'port::make-output-room (lambda () (funcall write a))
                                    #'fill-output)
                 (close a)
                 (is (= (* 2 65536) (- written size)))
                 (is (= written (join reader))))))))

(define-test direction.a-format-set-within-a-line (:weather nil)
  "The line is read in the old format or in the new one."
  (loop for (old new line . expected)
          in '((:utf-8 (:utf-8 :eol :crlf) (97 98 13 10) "ab" #.(format nil "ab~C" #\Return))
               ((:utf-8 :eol :crlf) :utf-8 (97 98 13 10) "ab" #.(format nil "ab~C" #\Return))
               (:latin-1 :utf-8 (97 195 169 10)
                #.(map 'string #'code-char '(97 195 169)) #.(map 'string #'code-char '(97 233)))
               (:latin-1 :gbk (97 98 10) "ab"))
        do (with-pair (a b)
             (setf (stream-external-format b) old)
             (apply #'settle b a line)
             (is (member (call-interrupting 'port::line-there
                                            (lambda () (read-line b))
                                            (lambda () (setf (stream-external-format b) new)))
                         expected
                         :test #'string=)))))

(define-test direction.a-peek-that-is-thrown-out (:behaviour 11)
  "The character that it had found is there for the next read, and the one read before is not."
  (with-pair (a b)
    (setf (socket-timeout b :input) 5)
    (send-octets a "éab")
    (peek-octets b (blank 4))
    (let ((first t))
      (is (eq :out (catch 'out
                     (call-interrupting 'port::character-at-start
                                        (lambda () (peek-char nil b))
                                        (lambda ()
                                          (when (shiftf first nil)
                                            (throw 'out :out))))))))
    (is (char= #\é (read-char b)))
    (is (char= #\a (read-char b)))
    (is (typep (failure-of (with-deadline (0) (peek-char nil b))) 'timeout))
    (is (char= #\b (read-char b)))))

;;; The slow ways of UTF-16 find one character at a time; what becomes of it is part of that step.

(defun call-with-reader (b function &key (within 'port::character-at-start) throw)
  "Values: that of FUNCTION, or :OUT where THROW is true; the characters that interrupts have read
of B while it was WITHIN its first call of that."
  (let ((read '()) (thrown nil))
    (values (catch 'out
              (call-interrupting within function
                                 (lambda ()
                                   (unless thrown
                                     (push (read-char b) read)
                                     (when throw
                                       (setf thrown t)
                                       (throw 'out :out))))))
            (coerce (nreverse read) 'string))))

(defun settle-utf-16 (a b text)
  "Have TEXT of A in the buffer of B, both in UTF-16."
  (setf (socket-timeout b :input) 5
        (stream-external-format a) :utf-16le
        (stream-external-format b) :utf-16le)
  (write-string text a)
  (finish-output a)
  (fill-buffer b (* 2 (length text))))

(defun drained (a b)
  "All that is left of what A has sent to B."
  (socket-shutdown a :output)
  (with-output-to-string (all)
    (loop for character = (read-char b nil)
          while character
          do (write-char character all))))

(define-test direction.an-interrupt-that-reads-within-a-peek (:behaviour 11)
  "Each character is read once, whoever reads it."
  (with-pair (a b)
    (settle-utf-16 a b "abcdef")
    (multiple-value-bind (peeked read) (call-with-reader b (lambda () (peek-char nil b)))
      (is (member peeked '(#\a #\b #\c)))
      (is (string= "ab" read)))
    (is (string= "cdef" (drained a b)))))

(defun letters (&rest strings)
  "Those of STRINGS in alphabetical order."
  (sort (remove #\Newline (apply #'concatenate 'string strings)) #'char<))

(define-test direction.an-interrupt-that-reads-within-a-line (:behaviour 11)
  (loop for (call within) in `((,#'read-line port::character-at-start)
                               (,(lambda (b)
                                   (let ((string (make-string 3)))
                                     (subseq string 0 (read-sequence string b))))
                                port::take-characters))
        do (with-pair (a b)
             (settle-utf-16 a b (format nil "abc~%def~%"))
             (multiple-value-bind (line read)
                 (call-with-reader b (lambda () (funcall call b)) :within within)
               (is (= 2 (length read)))
               (is (string= "abcdef" (letters line read (drained a b))))))
           (with-pair (a b)
             (settle-utf-16 a b "abcdef")
             (multiple-value-bind (line read)
                 (call-with-reader b (lambda () (funcall call b)) :within within :throw t)
               (is (eq :out line))
               (is (= 1 (length read)))
               (is (string= (remove (char read 0) "abcdef") (drained a b)))))))

(define-test direction.an-interrupt-that-reads-as-a-character-is-taken-back (:weather nil)
  "It finds the character, or what follows it; what was taken back is never behind that."
  (with-pair (a b)
    (send-octets a "x")
    (is (char= #\x (read-char b)))      ; it is kept aside
    (send-octets a "yz")
    (fill-buffer b 2)
    (let ((read '()))
      (call-interrupting 'port::enlarge-input
                         (lambda () (unread-char #\x b))
                         (lambda () (push (read-char b) read)))
      (is (equal '(#\y #\x) read)))
    (is (char= #\z (read-char b)))))

(defun stack-left ()
  "Octets of the stack of this thread that are left."
  (- (sb-alien:extern-alien "thread_control_stack_size" sb-alien:unsigned)
     (sb-kernel::control-stack-usage)))

(defun call-deep (function)
  "Call FUNCTION where the stack has few octets left."
  (if (< (stack-left) 110000)
      (values (funcall function))
      (let ((value (call-deep function)))
        (values value))))

(define-test direction.the-end-of-the-stack (:weather nil)
  "Nobody is inside, with interrupts deferred, where calls can meet it."
  (with-pair (a b)
    (settle b a "one" 10 "two" 10)
    (write-octets a (blank 2000))
    (finish-output a)
    (is (eq sb-thread:*current-thread* (port::channel-output-resident (channel-of a))))
    (let ((inside '()))
      (flet ((note (original &rest arguments)
               (push sb-sys:*interrupts-enabled* inside)
               (apply original arguments)))
        (sb-int:encapsulate 'port::line-there 'noting #'note)
        (sb-int:encapsulate 'port::append-run 'noting #'note)
        (unwind-protect
             (progn
               (is (string= "one" (call-deep (lambda () (read-line b)))))
               (call-deep (lambda () (write-string "three" a)))
               (is (null inside))
               (is (string= "two" (read-line b)))
               (write-string "four" a)
               (is (not (null inside))))
          (sb-int:unencapsulate 'port::line-there 'noting)
          (sb-int:unencapsulate 'port::append-run 'noting))))))

(defun buffers (socket)
  "The sizes of the buffers that SOCKET has: for input, for output."
  (let ((connection (channel-of socket)))
    (list (length (port::connection-in connection)) (length (port::connection-out connection)))))

(define-test direction.nothing-takes-no-buffer ()
  "What has neither brought nor left an octet has left no buffer either."
  (do-pairs (a b)
    (setf (stream-external-format a) :ascii)
    (dolist (write (list (lambda () (write-string "" a))
                         (lambda () (write-string (coerce "" 'simple-base-string) a))
                         (lambda () (write-octets a (octets)))
                         (lambda () (failure-of (write-string (string (code-char 233)) a)))))
      (funcall write)
      (is (equal '(0 0) (buffers a))))
    (setf (socket-timeout b :input) 0.01)
    (dolist (read (list (lambda () (read-byte b)) (lambda () (read-char b))
                        (lambda () (read-line b)) (lambda () (read-octets b (blank 1)))
                        (lambda () (read-sequence (make-string 1) b))))
      (is (typep (failure-of (funcall read)) 'timeout))
      (is (equal '(0 0) (buffers b))))
    (is (null (read-char-no-hang b)))
    (is (equal '(0 0) (buffers b)))
    (socket-shutdown a :output)
    (dolist (read (list (lambda () (read-byte b nil)) (lambda () (read-char b nil))
                        (lambda () (read-line b nil)) (lambda () (read-octets b (blank 1)))
                        (lambda () (read-line-octets b (blank 1)))
                        (lambda () (peek-octets b (blank 1))) (lambda () (listen b))))
      (funcall read)
      (is (equal '(0 0) (buffers b))))))

(define-test direction.a-column-while-the-buffer-goes ()
  "Who asks for the column may find the end of one buffer and the octets of another."
  (with-pair (a b)
    (write-string "abc" a)
    (let ((connection (channel-of a)))
      (setf (port::connection-out connection) port::*no-octets*)
      (is (numberp (port::stream-line-column a)))
      (setf (port::connection-out-end connection) 0))))

(define-test direction.an-interrupt-that-reads-lines (:weather nil)
  "Each line is read once, whatever the call that is interrupted has found already."
  (flet ((check (name read interrupt)
           (with-pair (a b)
             (setf (stream-external-format b) '(:utf-8 :replacement #\?))
             (send-octets a 255 10 "b" 10 "c" 10 "d" 10)
             (fill-buffer b 8)
             (let* ((lines '())
                    (first (call-interrupting name
                                              (lambda () (funcall read b))
                                              (lambda () (push (funcall interrupt b) lines)))))
               (is (equal '("?" "b" "c" "d")
                          (sort (list* first (read-line b) lines) #'string<)) "~S" name))))
         (octet-line (socket)
           (let* ((line (blank 10)) (end (read-line-octets socket line)))
             (substitute #\? (code-char 255) (map 'string #'code-char (subseq line 0 end))))))
    (check 'port::decode-span #'read-line #'read-line)
    (check 'port::find-octet-line
           (lambda (b)
             (port::read-octet-line (channel-of b) (blank 10) 0 10)
             "?")
           #'octet-line)))
