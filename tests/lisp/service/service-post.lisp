;;;; service-post - what is written to somebody else's connection without waiting for anybody.

(in-package :port/test)

(define-suite service-post "Posts to the connections of services.")

(defun connect-plainly (number)
  (open-socket "127.0.0.1" number :input-timeout 10))

(defun connect-secretly (number)
  (open-tls-socket "127.0.0.1" number :context (client-context) :timeout 20 :input-timeout 20))

(defun socket-beside (server connect number)
  "Values: a connection to SERVER, at port NUMBER, that CONNECT makes and that is an echo's; the
socket of the service."
  (let* ((before (server-connections server)) (own (funcall connect number)))
    (is (equal "hello" (string-right-trim '(#\Return) (ask own "hello"))))
    (is-true (wait-until (lambda () (null (nth-value 1 (busy-count server))))))
    (values own (first (set-difference (server-connections server) before)))))

(defun busy-count (server)
  "Values: how many connections of SERVER there are; how many of them are with a thread, or NIL."
  (multiple-value-bind (sockets busy) (server-connections server)
    (values (length sockets) (if (zerop busy) nil busy))))

(defun call-with-recipient (function connect handler arguments)
  "Call FUNCTION as WITH-READER runs its body."
  (call-with-service (lambda (server number)
                       (multiple-value-bind (own socket) (socket-beside server connect number)
                         (unwind-protect (funcall function server number own socket)
                           (close own :abort t))))
                     handler arguments))

(defmacro with-recipient ((server number own socket &key (connect ''connect-plainly)
                                                       (handler ''echo-one-line) arguments)
                          &body body)
  "Run BODY with SERVER, a service made with ARGUMENTS, NUMBER, its port, OWN, a connection to it
that waits, and SOCKET, the service's side of that."
  `(call-with-recipient (lambda (,server ,number ,own ,socket)
                          (declare (ignorable ,server ,number ,own ,socket))
                          ,@body)
                        ,connect ,handler (list ,@arguments)))

(defun kept-for (socket)
  "How many octets are kept for SOCKET."
  (port::pending-output (channel-of socket)))

(defun numbered-octets (count)
  "COUNT octets of which no part is like another at a near place."
  (let ((octets (blank count)))
    (dotimes (index count octets)
      (setf (aref octets index) (mod (+ index (floor index 251)) 256)))))

(defun post-until-full (socket piece)
  "Post PIECE to SOCKET until it is not taken; how often it was."
  (loop while (post socket piece)
        count t))

(defun reads-all-p (own pieces piece)
  "True if OWN reads PIECE so often as PIECES says."
  (let ((place (blank (length piece))))
    (loop repeat pieces
          always (and (= (length piece) (read-octets own place))
                      (equalp place piece)))))

(defun is-quick (function)
  "FUNCTION takes no time that anybody would call waiting; its value."
  (let* ((began (get-internal-real-time)) (value (funcall function)))
    (is (< (- (get-internal-real-time) began) (* 4 internal-time-units-per-second)))
    value))

(defun post-and-echo (socket)
  "Echo a line between two posts to the same SOCKET."
  (let ((line (read-line socket nil)))
    (when line
      (format socket "1 ~A~%" line)
      (post socket (format nil "2 ~A~%" line))
      (format socket "3 ~A~%" line)
      (post socket (octets-like (format nil "4 ~A~%" line)))
      :again)))

(define-test service-post.goes-out-in-the-order-of-the-writes ()
  (dolist (arguments (list '() (list :tls (server-context))))
    (with-service (server number #'post-and-echo :tls (getf arguments :tls))
      (with-open-stream (own (if arguments (connect-secretly number) (connect-plainly number)))
        (dolist (line '("once" "again"))
          (is (equal (format nil "1 ~A" line) (ask own line)))
          (loop for count from 2 to 4
                do (is (equal (format nil "~D ~A" count line) (read-line own)))))))))

(define-test service-post.counts-for-the-column ()
  "FRESH-LINE knows what was posted, also where the buffer had to grow for it."
  (let ((texts (list "x" (make-string 70000 :initial-element #\x))))
    (with-service (server number (lambda (socket)
                                   (dolist (text texts)
                                     (write-string "a" socket)
                                     (post socket text)
                                     (fresh-line socket)
                                     (post socket (format nil "b~%"))
                                     (fresh-line socket))))
      (with-open-socket (own "127.0.0.1" number :input-timeout 10)
        (dolist (text texts)
          (is (equal (format nil "a~A" text) (read-line own)))
          (is (equal "b" (read-line own))))
        (is (null (read-line own nil)))))))

(define-test service-post.reaches-who-waits ()
  "One that waits without a thread, and one whose function is blocked, waiting for it."
  (dolist (handler (list #'echo-one-line #'echo-lines))
    (with-service (server number handler :threads 4)
      (with-open-stream (own (connect-plainly number))
        (is (equal "a" (ask own "a")))
        (let ((socket (first (server-connections server))))
          (is-true (post socket (format nil "posted~%")))
          (is (equal "posted" (read-line own)))
          (is (equal "b" (ask own "b"))))))))

(defun is-held-up-by-nobody (connect arguments)
  "A client that reads nothing holds up neither who posts nor the others, and has all in the end."
  (call-with-recipient
   (lambda (server number own socket)
     (declare (ignore server))
     (let* ((piece (numbered-octets 10007))
            (taken (is-quick (lambda () (post-until-full socket piece)))))
       (is (> taken 100))
       (is (< 900000 (kept-for socket) 1048577))
       (with-open-stream (other (funcall connect number))
         (is (equal "beside" (ask other "beside")))
         (is-true (post socket "x" :limit 2000000))
         (is-true (reads-all-p own taken piece))
         (is (eql #\x (read-char own)))
         (is (equal "later" (ask own "later")))
         (is (equal "after" (ask other "after")))
         (is (zerop (kept-for socket)))
         (is (null (port::client-keeping (port::connection-client (channel-of socket))))))))
   connect #'echo-one-line (list* :threads 1 arguments)))

(define-test service-post.one-who-reads-nothing-holds-up-nobody (:limit 60 :weather nil)
  (is-held-up-by-nobody #'connect-plainly '()))

(define-test service-post.one-who-reads-nothing-over-tls (:limit 60 :weather nil)
  (is-held-up-by-nobody #'connect-secretly (list :tls (server-context))))

(define-test service-post.all-arrives (:limit 60)
  "Also where the system takes an octet at a time."
  (loop for (connect . arguments) in (list (list #'connect-plainly)
                                           (list #'connect-secretly :tls (server-context)))
        do (call-with-recipient
            (lambda (server number own socket)
              (declare (ignore server number))
              (let ((piece (numbered-octets 997)))
                (dotimes (count 20)
                  (is-true (post socket piece)))
                (is-true (reads-all-p own 20 piece))
                (is (equal "then" (ask own "then")))))
            connect #'echo-one-line (list* :threads 2 arguments))))

(define-test service-post.waits-for-the-handshake ()
  "What is posted to a connection that has not begun TLS is said under TLS, or not at all."
  (with-service (server number #'echo-lines :tls (server-context) :threads 2)
    (flet ((connect-and-post ()
             (let ((own (open-socket "127.0.0.1" number :input-timeout 10)))
               (is-true (wait-until (lambda () (server-connections server))))
               (is-true (post (first (server-connections server)) (format nil "early~%")))
               (is (null (post (first (server-connections server)) "" :limit 5)))
               own)))
      (with-open-stream (own (connect-and-post))
        (start-tls own :context (client-context) :host "127.0.0.1" :timeout 20)
        (is (equal "early" (read-line own)))
        (is (equal "then" (ask own "then"))))
      (is-true (wait-until (lambda () (null (server-connections server)))))
      (with-open-stream (own (connect-and-post))
        (socket-shutdown own :output)
        (is (null (handler-case (read-byte own nil)
                    (connection-lost () nil))))))))

(define-test service-post.holds-no-thread-when-the-function-returns (:weather nil)
  "What is posted to one that reads nothing, and what its function writes behind, takes no thread."
  (flet ((post-much (socket)
           (let ((line (read-line socket nil)))
             (when line
               (when (equal line "much")
                 (assert (post socket (numbered-octets 8000000) :limit 8000000)))
               (write-line line socket)
               :again))))
    (with-service (server number #'post-much :threads 1)
      (with-open-stream (own (connect-plainly number))
        (write-line "much" own)
        (finish-output own)
        (with-open-stream (other (connect-plainly number))
          (is (equal "quick" (ask other "quick"))))
        (is-true (reads-all-p own 1 (numbered-octets 8000000)))
        (is (equal "much" (read-line own)))))))

(define-test service-post.is-limited ()
  (with-recipient (server number own socket)
    (is (null (post socket "four" :limit 3)))
    (is (null (post socket (octets 1 2 3) :limit 2)))
    (is-true (post socket "four" :limit 4))
    (is-true (post socket "" :limit 4))
    (is-true (post socket (format nil "~%")))
    (is (equal "four" (read-line own)))))

(define-test service-post.to-a-closed-one-is-not-taken ()
  (with-recipient (server number own socket)
    (socket-shutdown socket :output)
    (is (null (post socket "no")))
    (is (null (read-line own nil)))
    (close socket)
    (is (null (post socket "no")))))

(define-test service-post.a-close-sends-it (:weather nil)
  "That at the end of the function, that of another thread, and that of the whole service."
  (dolist (end (list (lambda (server own socket)
                       (declare (ignore server socket))
                       (close-by-request own))
                     (lambda (server own socket)
                       (declare (ignore server own))
                       (close socket))
                     (lambda (server own socket)
                       (declare (ignore own socket))
                       (stop-server server))))
    (with-recipient (server number own socket :handler #'obey)
      (let* ((piece (numbered-octets 100003))
             (taken (post-until-full socket piece))
             (thread (in-thread (lambda () (funcall end server own socket)))))
        (is (plusp (kept-for socket)))
        (is-true (reads-all-p own taken piece))
        (is (null (read-line own nil)))
        (join thread)))))

(defun close-by-request (own)
  (write-line "return" own)
  (finish-output own))

(defun is-aborted-for-silence (handler busy)
  "One that takes nothing for the OUTPUT-TIMEOUT is aborted, and the hook is told why, once."
  (let ((told (sb-thread:make-semaphore)) (heard '()))
    (with-recipient (server number own socket
                  :handler handler
                  :arguments (:output-timeout 0.3 :threads 3
                              :on-error (lambda (condition socket)
                                          (push (cons condition socket) heard)
                                          (sb-thread:signal-semaphore told))))
      (when busy
        (write-line "wait" own)
        (finish-output own)
        (is-true (wait-until (lambda () (nth-value 1 (busy-count server))))))
      (post-until-full socket (blank 100000))
      (is (plusp (kept-for socket)))
      (is-true (sb-thread:wait-on-semaphore told :timeout 10))
      (is-true (wait-until (lambda () (zerop (client-count server)))))
      (is (= 1 (length heard)))
      (destructuring-bind (condition . about) (first heard)
        (is (eq about socket))
        (is (typep condition 'timeout))
        (is (eql 3/10 (rationalize (timeout-time condition)))))
      (is-false (open-stream-p socket))
      (is (null (post socket "no"))))))

(defun echo-and-wait (socket)
  "As ECHO-ONE-LINE; after the line `wait' it waits for another."
  (echo-one-line socket (lambda () (read-line socket))))

(define-test service-post.who-takes-nothing-is-aborted (:limit 60 :weather nil)
  "While it waits, and while its function is blocked."
  (is-aborted-for-silence #'echo-one-line nil)
  (is-aborted-for-silence #'echo-and-wait t))

(define-test service-post.who-reads-slowly-is-not-aborted (:limit 60 :weather nil)
  "What counts is that there is progress."
  (with-recipient (server number own socket :arguments (:output-timeout 1))
    (let* ((piece (numbered-octets 100003)) (taken (post-until-full socket piece)))
      (loop with place = (blank (length piece))
            with pause = (/ 2.5 taken)  ; longer than the timeout, all in all
            repeat taken
            do (sleep pause)
               (is (= (length piece) (read-octets own place)))
               (is (equalp place piece)))
      (is (equal "still here" (ask own "still here"))))))

(defun posted-lines (thread count)
  (loop for number below count
        collect (format nil "~D ~D ~A" thread number
                        (make-string (random 300) :initial-element (code-char (+ 97 thread))))))

(defun lines-by-thread (own count threads)
  "COUNT lines that OWN reads, by the number that each begins with, a vector of lists."
  (let ((lines (make-array threads :initial-element '())))
    (loop repeat count
          for line = (read-line own)
          do (push line (aref lines (parse-integer line :junk-allowed t))))
    (map 'vector #'reverse lines)))

(defun echo-by-one-write (socket)
  "As ECHO-ONE-LINE; WRITE-LINE would be two writes, between which another can come."
  (let ((line (read-line socket nil)))
    (when line
      (write-string (format nil "~A~%" line) socket)
      :again)))

(define-test service-post.lines-of-many-threads-are-whole (:limit 60)
  "And in the order of each, while the function writes lines of its own and large ones."
  (let ((count (if (weather-p) 10 400)) (sent (make-array 5)))
    (setf (aref sent 4) (list "4 large" (format nil "4 ~A" (make-string (* 100 count)
                                                                        :initial-element #\z))))
    (with-recipient (server number own socket :handler #'echo-by-one-write
                                              :arguments (:threads 3))
      (let ((threads (loop for thread below 4
                           do (setf (aref sent thread) (posted-lines thread count))
                           collect (let ((lines (aref sent thread)))
                                     (in-thread (lambda ()
                                                  (loop for line in lines
                                                        always (post socket (format nil "~A~%" line)
                                                                     :limit 100000000))))))))
        (dolist (line (aref sent 4))
          (write-line line own)
          (finish-output own))
        (let ((read (lines-by-thread own (+ 2 (* 4 count)) 5)))
          (is-true (every #'identity (mapcar #'join threads)))
          (dotimes (thread 5)
            (is (equal (aref sent thread) (aref read thread)))))))))

(define-test service-post.waits-for-no-writer (:limit 60 :weather nil)
  "While the function is blocked in a write what is posted is taken, and comes behind that write."
  (let ((large (numbered-octets 9000000)))
    (with-recipient (server number own socket
                  :handler (lambda (socket)
                             (echo-one-line socket (lambda () (write-octets socket large))))
                  :arguments (:threads 2))
      (write-line "wait" own)
      (finish-output own)
      (is-true (wait-until (lambda () (port::channel-output-owner (channel-of socket)))))
      (loop for number from 1 to 100
            do (is-true (is-quick (lambda () (post socket (format nil "~D~%" number))))))
      (is (null (post socket (blank 100) :limit 300)))
      (is-true (reads-all-p own 1 large))
      (let ((lines (loop repeat 101 collect (read-line own))))
        (is (equal (loop for number from 1 to 100 collect (princ-to-string number))
                   (remove "wait" lines :test #'equal)))
        (is (= 1 (count "wait" lines :test #'equal)))))))

(define-test service-post.goes-with-what-is-relayed ()
  (with-socket-server (target 0 :host "127.0.0.1")
    (with-service (server number (lambda (client)
                                   (with-open-socket (far "127.0.0.1" (port-of target))
                                     (relay client far))))
      (with-open-socket (own "127.0.0.1" number :input-timeout 10)
        (with-open-stream (far (socket-accept target))
          (is (equal "there" (progn (write-line "there" own)
                                    (finish-output own)
                                    (read-line far))))
          (is-true (post (first (server-connections server)) (format nil "posted~%")))
          (write-line "relayed" far)
          (finish-output far)
          (is (equal '("posted" "relayed") (list (read-line own) (read-line own))))
          (is-true (post (first (server-connections server)) (format nil "last~%")))
          (socket-shutdown own :output)
          (is (null (read-line far nil))))
        (is (equal "last" (read-line own)))
        (is (null (read-line own nil)))))))

(define-test service-post.is-in-the-format-of-the-socket ()
  (with-recipient (server number own socket
                :arguments (:external-format '(:latin-1 :eol :crlf :replacement #\?)))
    (is-true (post socket (format nil "h~Cllo ~C~%" (code-char 233) (code-char 8364))))
    (let ((place (blank 9)))
      (read-octets own place)
      (is (equalp place (octets 104 233 108 108 111 32 63 13 10)))))
  (with-recipient (server number own socket :arguments (:external-format :utf-8))
    (is-true (post socket (coerce (make-array 3 :element-type 'character :fill-pointer 2
                                                :initial-contents '(#\a #\Newline #\c))
                                  'string)))
    (is (equal "a" (read-line own)))
    (is-true (post socket (coerce (format nil "base~%") 'simple-base-string)))
    (is (equal "base" (read-line own)))
    (let ((text (format nil "~A~C" (make-string 5000 :initial-element (code-char 8364)) #\Newline)))
      (is-true (post socket text))
      (is (equal (string-right-trim '(#\Newline) text) (read-line own)))))
  (with-recipient (server number own socket :arguments (:external-format :ascii))
    (signals encoding-error (post socket (format nil "a~C~%" (code-char 233))))
    (handler-bind ((encoding-error (lambda (condition)
                                     (declare (ignore condition))
                                     (invoke-restart 'replace-character #\e))))
      (is-true (post socket (format nil "a~C~%" (code-char 233)))))
    (is (equal "ae" (read-line own)))))

(define-test service-post.bad-arguments ()
  (with-recipient (server number own socket)
    (is-failure (usage-error :invalid "expected a connection of SERVE") (post own "x"))
    (dolist (wrong (list nil 1 '(1 2) (vector 1 2) #\x))
      (is-mistyped (lambda () (post socket wrong)) "a string, or a vector"))
    (dolist (wrong (list nil -1 1.5 "1"))
      (is-mistyped (lambda () (post socket "x" :limit wrong)) "a number of octets"))
    (is-mistyped (lambda () (post 3 "x")) "a SOCKET")
    (signals usage-error (funcall 'post socket "x" :limits 3))))

(define-test service-post.unwound (:behaviour 26 :limit 60 :weather nil)
  "A thread that is unwound at any moment of a post has posted all of it or nothing, and leaves
nothing that is not sent."
  (with-recipient (server number own socket)
    (let* ((posted 0) (ready (sb-thread:make-semaphore)) (done nil)
           (thread (in-thread (lambda ()
                                (loop until done
                                      do (catch 'out
                                           (sb-thread:signal-semaphore ready)
                                           (loop (post socket (format nil "~D line~%" posted)
                                                       :limit 100000)
                                                 (incf posted))))))))
      (let ((reader (in-thread (lambda ()
                                 (loop for line = (read-line own)
                                       until (equal line "end")
                                       always (= (length line)
                                                 (+ 5 (position #\Space line))))))))
        (loop repeat 300
              do (sb-thread:wait-on-semaphore ready)
                 (sleep (random 0.001))
                 (sb-thread:interrupt-thread thread (lambda () (throw 'out nil))))
        (sb-thread:wait-on-semaphore ready)
        (setf done t)
        (sb-thread:interrupt-thread thread (lambda () (throw 'out nil)))
        (join thread)
        (is-true (wait-until (lambda () (post socket (format nil "end~%")))))
        (is-true (join reader))
        (is (zerop (kept-for socket)))))))

(defparameter *posts-beyond-the-heap*
  "(let* ((octets (make-array 20000000 :element-type '(unsigned-byte 8)))
          (told '())
          (server (port:serve (lambda (socket)
                                (let ((line (read-line socket nil)))
                                  (when line
                                    (if (string= line \"more\")
                                        (port:post socket octets :limit 100000000)
                                        (write-line line socket))
                                    :again)))
                              0 :host \"127.0.0.1\"
                              :on-error (lambda (condition socket)
                                          (declare (ignore socket))
                                          (push (typep condition 'storage-condition) told))))
          (listener (first (port:server-listeners server)))
          (number (nth-value 1 (port:socket-server-host/port listener))))
     (flet ((say (line)
              (let ((client (port:open-socket \"127.0.0.1\" number :input-timeout 20)))
                (write-line line client)
                (finish-output client)
                client)))
       (let ((readers-of-nothing (loop repeat 10 collect (say \"more\"))))
         (loop repeat 1000
               until told
               do (sleep 0.01))
         (print (list (read-line (say \"here\")) (and told (every #'identity told))))
         (dolist (client readers-of-nothing)
           (close client :abort t)))
       (port:stop-server server :drain 0)))"
  "A form that prints `(\"here\" T)`.")

(define-test service-post.beyond-the-heap (:limit 60 :weather nil)
  "Where there is no heap for what is posted, the function that posts it is told, and the service
goes on, also in a Lisp that ends where it takes something for a corruption, as one for scripts."
  (multiple-value-bind (output code)
      (run-lisp (append (loading (here)) (list *posts-beyond-the-heap*))
                :options '("--dynamic-space-size" "250MB" "--lose-on-corruption"))
    (is (= 0 code))
    (is (search "(\"here\" T)" output) "~A" output)))
