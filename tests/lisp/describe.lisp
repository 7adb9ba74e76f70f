;;;; describe - what DESCRIBE says of sockets and conditions, and the argument lists that editors
;;;; show.

(in-package :port/test)

(define-suite describe "At the REPL.")

(defun description (object)
  "What DESCRIBE says of OBJECT, from its first line on."
  (string-left-trim '(#\Newline) (with-output-to-string (stream)
                                   (describe object stream))))

(define-test "describe.socket" ()
  "The facts of a socket, open and closed, of every kind."
  (with-socket-server (server 0 :host "127.0.0.1")
    (let* ((client (open-socket "127.0.0.1" (port-of server) :input-timeout 3/2))
           (open (description client))
           (number (princ-to-string (port-of server))))
      (dolist (part (list "state: open" "local end: 127.0.0.1:" number "descriptor: "
                          "limit of input: 1.5 s for each call" "external format: :UTF-8"))
        (is (search part open) "no ~S in ~A" part open))
      (is (not (search "limit of output" open)))
      (is (eql 0 (search (prin1-to-string client) open)) "~A" open)
      (setf (socket-deadline client :input) 100 (socket-timeout client :input) nil)
      (is (search " s left for all calls" (description client)))
      (close client)
      (is (search "state: closed" (description client)))
      (is (not (search "descriptor" (description client))))
      (is (search "state: open" (description server)))
      (is (search (format nil "local end: 127.0.0.1:~A" number) (description server))))))

(define-test "describe.state-of-a-connection" ()
  "What is over, and what stands in the buffers."
  (flet ((says (socket &rest parts)
           (let ((text (description socket)))
             (dolist (part parts)
               (is (search part text) "no ~S in ~A" part text)))))
    (with-pair (a b :inet)
      (send-octets b 1 2 3)
      (read-octets a (octets 0))
      (write-byte 1 a)
      (says a (format nil "state: open~%") "2 unread, 1 unsent")
      (socket-shutdown a :output)
      (says a "state: open, output shut down" "2 unread, 0 unsent")
      (close b :abort t)
      (failure-of (loop (read-byte a)))
      (says a "state: open, broken")
      (close a)
      (says a (format nil "state: closed~%")))))

(define-test "describe.poller" ()
  "The first sockets that are in it."
  (let ((poller (make-poller)))
    (with-pair (a b)
      (poller-add poller a)
      (let ((text (description poller)))
        (is (search (prin1-to-string poller) text) "~A" text)
        (is (search (prin1-to-string a) text) "~A" text)
        (is (not (search "more" text)) "~A" text)))
    (let ((sockets (loop repeat 11 append (multiple-value-list (open-socket-pair)))))
      (dolist (socket sockets)
        (poller-add poller socket))
      (is (search "and 2 more" (description poller)))
      (mapc #'close sockets))
    (close poller)
    (is (search "state: closed" (description poller)))))

(define-test "describe.service" ()
  "What it listens on, how many it serves, and whether it does."
  (let* ((server (serve #'read-line 0 :host "127.0.0.1" :timeout 3/2 :max-connections 7))
         (text (description server)))
    (dolist (part (list "state: serving" "connections: 0 of 7" " of 64, " "closed after 1.500 s"
                        (prin1-to-string (first (server-listeners server)))))
      (is (search part text) "no ~S in ~A" part text))
    (stop-server server)
    (is (search "state: stopped" (description server)))))

(define-test "describe.condition" ()
  "The facts of a condition under the names of their readers, and every attempt."
  (let ((text (description (failure-of (open-socket "127.0.0.1" (unused-port))))))
    (dolist (part '("network-operation: :CONNECT" "network-code: :CONNECTION-REFUSED"
                    "network-host: \"127.0.0.1\"" "tried 127.0.0.1: connection refused"))
      (is (search part text) "no ~S in ~A" part text))
    (is (not (search "network-socket" text)))
    (is (search "connection refused" (subseq text 0 (position #\Newline text))))))

(define-test "describe.argument-lists" ()
  "Where the keywords are known neither &REST nor &ALLOW-OTHER-KEYS is shown."
  (dolist (name '(open-socket open-socket-server socket-accept open-unix-socket open-unix-server
                  open-socket-pair open-datagram-socket adopt-descriptor activated-servers))
    (let ((list (sb-introspect:function-lambda-list name)))
      (is (member '&key list) "~A: ~S" name list)
      (is (null (intersection '(&rest &allow-other-keys) list)) "~A: ~S" name list)))
  (is (equal "TIMEOUT" (symbol-name (nth 5 (sb-introspect:function-lambda-list 'open-socket))))))

(define-test "describe.restarts" ()
  "The functions that invoke restarts do nothing where there is none, and go on where there is."
  (is (null (retry)))
  (is (null (wait-longer 1)))
  (is (null (replace-character #\?)))
  (with-pair (a b)
    (let ((times 0))
      (setf (socket-timeout a :input) 0.05)
      (is (equal "late"
                 (handler-bind ((timeout (lambda (condition)
                                           (incf times)
                                           (send-octets b (format nil "late~%"))
                                           (wait-longer 5 condition))))
                   (read-line a))))
      (is (= 1 times)))
    (setf (stream-external-format b) :ascii)
    (is (equal "a+b" (handler-bind ((encoding-error (lambda (condition)
                                                      (replace-character #\+ condition))))
                       (write-line (format nil "a~Cb" (code-char 233)) b)
                       (finish-output b)
                       (read-line a)))))
  (let ((servers '()))
    (let ((port (unused-port)))
      (close (handler-bind ((connection-refused
                              (lambda (condition)
                                (push (open-socket-server port :host "127.0.0.1") servers)
                                (retry condition))))
               (open-socket "127.0.0.1" port))))
    (mapc #'close servers)
    (is (= 1 (length servers)))))

(define-test "describe.printer" ()
  "What printing and describing show is the same whatever the printer is told."
  (let ((usual nil))
    (flet ((same-p (object)
             (setf usual (let ((*print-pretty* nil)) (princ-to-string object)))
             (let ((*print-base* 2) (*print-radix* t) (*print-circle* t) (*print-pretty* t)
                   (*print-right-margin* 1000))
               (is (equal usual (princ-to-string object))))))
      (with-pair (a b :local)
        (same-p a)
        (is (equal usual (let ((*print-circle* t) (*print-readably* t)) (socket-string a))))
        (is (not (search "#1" (let ((*print-circle* t)) (princ-to-string (list a b))))))
        (let ((*print-base* 2) (*print-radix* t) (*print-circle* t))
          (is (search (format nil "descriptor: ~D~%" (socket-descriptor a)) (description a)))))
      (mapc #'same-p (network-interfaces))
      (with-socket-server (server 0 :host "127.0.0.1")
        (mapc (lambda (entry) (is (not (search "#" (subseq (prin1-to-string entry) 2)))))
              (let ((*print-circle* t)) (list-open-sockets)))
        (same-p server)
        (let ((poller (make-poller)))
          (unwind-protect (same-p poller)
            (close poller))))
      (same-p (make-datagram-batch 3)))))

;;; Restarts that ask at the terminal, which is a socket here

(defun answered (class name answers function)
  "Values: what FUNCTION returns where CLASS is met by the restart NAME and the user gives ANSWERS,
lines; the questions that he has seen."
  (with-pair (terminal user :inet) ; a local one has room for some hundred pieces
    (send-octets user answers)
    (let ((value (handler-bind
                     ((network (lambda (condition)
                                 (when (typep condition class)
                                   (let ((*query-io* terminal))
                                     (invoke-restart-interactively
                                      (find-restart name condition)))))))
                   (funcall function))))
      (multiple-value-bind (unread unsent) (buffered-octets terminal)
        (declare (ignore unread))
        (is (= 0 unsent) "asked what nobody has seen"))
      (close terminal)
      (values value (babel:octets-to-string (everything user))))))

(define-test "describe.restarts-that-ask" ()
  "The question is there before the answer is read; an answer that is none is asked for again."
  (with-pair (a b)
    (write-sequence #(97 255 254 10) b)
    (finish-output b)
    (is (equal (format nil "a?~C" (code-char #xFFFD))
               (answered 'decoding-error 'replace-character (format nil "no~%?~%~%")
                         (lambda () (read-line a)))))
    (setf (stream-external-format b) :ascii)
    (multiple-value-bind (value asked)
        (answered 'encoding-error 'replace-character (format nil "~%")
                  (lambda () (write-line "é" b) (finish-output b) (read-line a)))
      (is (equal "?" value))
      (is (search "A character" asked)))
    (setf (socket-timeout a :input) 1/50)
    (flet ((late-line ()
             (handler-bind ((timeout (lambda (condition)
                                       (declare (ignore condition))
                                       (send-octets b (format nil "late~%")))))
               (read-line a))))
      (multiple-value-bind (value asked)
          (answered 'timeout 'wait-longer (format nil "soon~%~%)~%(~%-1~%1/0~%5~%") #'late-line)
        (is (equal "late" value))
        (is (= 7 (loop for at = (search "Seconds to wait" asked)
                         then (search "Seconds to wait" asked :start2 (1+ at))
                       while at count t))))
      (let ((*package* (find-package :keyword))) ; where NIL is another symbol
        (is (equal "late" (answered 'timeout 'wait-longer (format nil "nil~%") #'late-line)))))))
