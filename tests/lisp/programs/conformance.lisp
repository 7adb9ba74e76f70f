;;;; conformance - the checks of port/conformance on our own streams, of every kind.

(in-package :port/test)

(define-suite conformance "What any library of streams should hold.")

(defun conformance-of (kind)
  "The results of all checks on connections of KIND."
  (port/conformance:check-streams
   (lambda () (make-pair kind))
   :timeout-p (lambda (condition) (typep condition 'timeout))
   :closed-p (lambda (condition) (typep condition 'socket-closed))
   :broken-p (lambda (condition) (typep condition 'connection-lost))
   :set-deadline (lambda (socket direction seconds)
                   (setf (socket-deadline socket direction) seconds))
   :set-timeout (lambda (socket direction seconds)
                  (setf (socket-timeout socket direction) seconds))
   :shut-down-output (lambda (socket) (socket-shutdown socket :output))
   :abort (unless (eq kind :local)      ; where nothing is reset
            (lambda (socket) (close socket :abort t)))
   :read-some (lambda (socket octets start) (read-some socket octets :start start))
   :seed (test-seed)
   :amount (amount 1048576)))

(defun is-conforming (kind left-out)
  "Check that every check passes on connections of KIND, but for those in LEFT-OUT."
  (dolist (result (conformance-of kind))
    (let ((name (port/conformance:result-name result)))
      (is (eq (if (member name left-out :test #'string-equal) :left-out :passed)
              (port/conformance:result-outcome result))
          "~A over ~A: ~A (seed ~D)" name kind (port/conformance:result-reason result)
          (test-seed)))))

(define-test conformance.inet (:behaviour (1 2 3 4 5 10 13 14 18 20 27 28 31 33 37 38 39) :limit 90)
  (is-conforming :inet '()))

(define-test conformance.inet6 (:behaviour (1 2 3 4 5 10 13 14 18 20 27 28 31 33 37 38 39)
                                :limit 90)
  (with-inet6 ()
    (is-conforming :inet6 '())))

(define-test conformance.local (:behaviour (1 2 3 4 5 10 13 14 18 20 27 28 33 37 38 39) :limit 90)
  (is-conforming :local '("reset")))

(define-test conformance.tls (:behaviour (1 2 3 4 5 10 13 14 18 20 27 28 31 33 37 38 39) :limit 90)
  (is-conforming :tls '()))

(defun careless-pair ()
  "Two connected streams of a library that flips an octet now and then and knows no limits."
  (multiple-value-bind (a b) (open-socket-pair)
    (values a (make-instance 'careless :over b))))

(defclass careless (sb-gray:fundamental-binary-input-stream)
  ((over :initarg :over :reader careless-over) (count :initform 0 :accessor careless-count)))

(defmethod sb-gray:stream-read-byte ((stream careless))
  (let ((octet (read-byte (careless-over stream) nil :eof)))
    (cond ((eq octet :eof) :eof)
          ((= 1000 (incf (careless-count stream))) (logxor octet 1))
          (t octet))))

(defmethod stream-element-type ((stream careless))
  '(unsigned-byte 8))

(defmethod close ((stream careless) &key abort)
  (close (careless-over stream) :abort abort))

(define-test conformance.finds-faults ()
  "The checks can fail: a stream that is wrong in one octet is found, and what it lacks is said."
  (let ((results (port/conformance:check-streams #'careless-pair :amount 4096
                                                 :only '("basic-transfer" "half-close"))))
    (is (equal '(:failed :left-out)
               (mapcar #'port/conformance:result-outcome results)))
    (is (not (port/conformance:all-passed-p results)))
    (let ((report (with-output-to-string (stream)
                    (port/conformance:report results stream))))
      (is (search "basic-transfer: failed: octet 999 is " report))
      (is (search "half-close: left out: needs shut-down-output" report))
      (is (search "0 passed, 1 failed, 1 left out" report)))))

;;; Another library

(defun sbcl-stream (socket)
  (sb-bsd-sockets:socket-make-stream socket :input t :output t :element-type '(unsigned-byte 8)))

(defun sbcl-pair ()
  "Two connected streams of SBCL's own sockets."
  (flet ((new () (make-instance 'sb-bsd-sockets:inet-socket :type :stream :protocol :tcp)))
    (let ((listener (new)) (client (new)))
      (sb-bsd-sockets:socket-bind listener #(127 0 0 1) 0)
      (sb-bsd-sockets:socket-listen listener 1)
      (sb-bsd-sockets:socket-connect client #(127 0 0 1)
                                     (nth-value 1 (sb-bsd-sockets:socket-name listener)))
      (let ((server (sb-bsd-sockets:socket-accept listener)))
        (sb-bsd-sockets:socket-close listener)
        (values (sbcl-stream client) (sbcl-stream server))))))

(define-test conformance.of-another-library (:weather nil) ; which makes no calls of ours
  "SBCL's own streams transfer well. What they do when closed is no error of a stream: that is
reported by name, on one line, and nothing is signalled."
  (let* ((results (port/conformance:check-streams
                   #'sbcl-pair :amount 65536
                   :closed-p (lambda (condition) (typep condition 'stream-error))
                   :only '("basic-transfer" "ping-pong" "full-duplex" "end-of-file-repeats"
                           "half-close" "use-after-close")))
         (report (with-output-to-string (stream)
                   (port/conformance:report results stream))))
    (is (equal '(("basic-transfer" . :passed) ("ping-pong" . :passed) ("full-duplex" . :passed)
                 ("end-of-file-repeats" . :passed) ("use-after-close" . :failed)
                 ("half-close" . :left-out))
               (loop for result in results
                     collect (cons (string-downcase (port/conformance:result-name result))
                                   (port/conformance:result-outcome result)))))
    (is (= 7 (count #\Newline report)) "~A" report)))
