;;;; server-port - what server.c does, by port, in a Lisp of its own as the others are: an HTTP/1.1
;;;; server with one answer, threads that answer and close, and the cost of a wait for many sockets.
;;;;
;;;; usage: sbcl --script server-port.lisp http | closing THREADS
;;;;                                         prints its port and serves until it is killed
;;;;        sbcl --script server-port.lisp wait SOCKETS READY COUNT
;;;;                                         prints the nanoseconds of processor time of one
;;;;                                         POLLER-WAIT

(require :asdf)
(let ((*standard-output* (make-broadcast-stream)) (*error-output* (make-broadcast-stream)))
  (push (truename (merge-pathnames "../../" (uiop:pathname-directory-pathname *load-truename*)))
        asdf:*central-registry*)
  (asdf:load-system "port/examples"))

(defpackage :port/server
  (:use :common-lisp))

(in-package :port/server)

(deftype octets () '(simple-array (unsigned-byte 8) (*)))

(defun http ()
  (port-example/http:start 0 'port-example/http:hello :host "127.0.0.1"))

;;; Answered and closed

(declaim (type octets *closing-answer*))
(defparameter *closing-answer*
  (coerce (babel:string-to-octets
           (format nil "HTTP/1.1 200 OK~C~%Content-Type: text/plain; charset=utf-8~:*~C~%~
                        Connection: close~:*~C~%Content-Length: 13~:*~C~%~:*~C~%hello, world~%"
                   #\Return)
           :encoding :utf-8)
          'octets))

(defun answer-once (socket)
  "Answer whatever comes as the HTTP example does, and close."
  (let ((room (make-array 4096 :element-type '(unsigned-byte 8))))
    (declare (dynamic-extent room))
    (when (plusp (port:read-some socket room))
      (port:write-octets socket *closing-answer*)
      nil)))

(defun closing (threads)
  (port:serve #'answer-once 0 :host "127.0.0.1" :threads threads))

;;; Waits for many

(defun open-many (poller sockets ready)
  "Put SOCKETS sockets, pairs of which both ends wait, into POLLER, and return them; READY of them
have input."
  (loop for index from 0 below (floor sockets 2)
        nconc (let ((pair (multiple-value-list (port:open-socket-pair))))
                (dolist (socket pair pair)
                  (port:poller-add poller socket)
                  (when (and (< index ready) (eq socket (first pair)))
                    (write-byte 1 socket)
                    (finish-output socket))))))

(defun wait-for-many (sockets ready count)
  "The nanoseconds that one of COUNT waits takes."
  (let* ((poller (port:make-poller)) (all (open-many poller sockets ready)))
    (dotimes (i 10)                     ; nothing that grows does so below
      (port:poller-wait poller))
    (let ((start (get-internal-run-time)))
      (dotimes (i count)
        (unless (= ready (length (port:poller-wait poller)))
          (error "expected ~D events" ready)))
      (prog1 (/ (* (- (get-internal-run-time) start)
                   (floor 1000000000 internal-time-units-per-second))
                count)
        (mapc #'close all)))))

;;; What is asked for

(defun serve-until-killed (server)
  (format t "~D~%" (nth-value 1 (port:socket-server-host/port
                                 (first (port:server-listeners server)))))
  (finish-output)
  (loop (sleep 3600)))

(defun main (what &rest numbers)
  (let ((numbers (mapcar #'parse-integer numbers)))
    (cond ((string= what "http") (serve-until-killed (http)))
          ((string= what "closing") (serve-until-killed (apply #'closing numbers)))
          ((string= what "wait") (format t "~,1F~%" (apply #'wait-for-many numbers)))
          (t (error "usage: server-port.lisp http | closing THREADS | wait SOCKETS READY COUNT")))))

(apply #'main (uiop:command-line-arguments))
