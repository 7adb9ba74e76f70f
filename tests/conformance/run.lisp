;;;; run - all checks on one library, and their report.

(in-package :port/conformance)

(defstruct (result (:copier nil) (:predicate nil))
  "What became of a check: :PASSED, :FAILED or :LEFT-OUT, and why."
  name outcome reason)

(defun call-with-pair (check)
  "Run CHECK on a new pair, which is closed afterwards."
  (multiple-value-bind (a b) (funcall (transport-make-pair *transport*))
    (unwind-protect (funcall (check-function check) a b)
      (close-both a b))))

(defun one-line (condition)
  "The report of CONDITION without its newlines and what they are followed by."
  (let ((text (let ((*print-pretty* nil)) (princ-to-string condition))) (space-p nil))
    (with-output-to-string (line)
      (loop for character across text
            do (if (member character '(#\Space #\Newline #\Tab #\Return))
                   (setf space-p t)
                   (progn (when space-p
                            (write-char #\Space line))
                          (write-char character line)
                          (setf space-p nil)))))))

(defun run-check (check limit)
  "Run CHECK on a new pair in a thread of its own, which may take LIMIT seconds; its RESULT."
  (let ((missing (remove-if (lambda (need)
                              (slot-value *transport* need))
                            (check-needs check))))
    (if missing
        (make-result :name (check-name check) :outcome :left-out
                     :reason (format nil "needs ~(~{~A~^, ~}~)" missing))
        (multiple-value-bind (value condition)
            (join (spawn (carrying (lambda () (call-with-pair check)))) limit)
          (declare (ignore value))
          (make-result :name (check-name check)
                       :outcome (if condition :failed :passed)
                       :reason (cond ((null condition) nil)
                                     ((eq condition :hangs)
                                      (format nil "has not ended after ~D s" limit))
                                     (t (one-line condition))))))))

(defun check-streams (make-pair &rest settings
                      &key (limit 30) only timeout-p closed-p broken-p set-deadline set-timeout
                        shut-down-output abort read-some seed amount)
  "Run the checks on connections of MAKE-PAIR, a function that returns two connected binary streams
as 2 values; return a list of RESULTs, see REPORT. The streams are used by READ-BYTE, READ-SEQUENCE,
WRITE-BYTE, WRITE-SEQUENCE, FINISH-OUTPUT and CLOSE, from several threads at once. What the library
can say and do besides, each a function or NIL:
TIMEOUT-P, CLOSED-P, BROKEN-P, of a condition: a limit of time passed; our side is closed; the peer
  is gone or has reset the connection;
SET-DEADLINE, of a stream, :INPUT or :OUTPUT, and the seconds from now after which all calls fail,
  not above 0 for now, NIL for never; effective on calls that are blocked;
SET-TIMEOUT, as SET-DEADLINE, of the seconds that each call may take;
SHUT-DOWN-OUTPUT, of a stream: the peer reads end of file, the other direction goes on;
ABORT, of a stream: close it with a reset;
READ-SOME, of a stream, a vector and a start index: store what is there, wait for the first octet;
  how many, 0 at end of file.
LIMIT: seconds that a check may take. ONLY: a list of names of checks, as strings. SEED: an integer,
for what is random. AMOUNT: octets of the large transfers (1048576)."
  (declare (ignore timeout-p closed-p broken-p set-deadline set-timeout shut-down-output abort
                   read-some seed amount))
  (let ((*transport* (apply #'make-transport :make-pair make-pair
                            (loop for (key value) on settings by #'cddr
                                  unless (member key '(:limit :only))
                                    collect key and collect value))))
    (loop for check in (reverse *checks*)
          when (or (null only) (member (check-name check) only :test #'string-equal))
            collect (run-check check limit))))

(defun all-passed-p (results)
  "True if no check of RESULTS failed."
  (and results (notany (lambda (result) (eq (result-outcome result) :failed)) results)))

(defun report (results &optional (stream *standard-output*))
  "Write a line for each of RESULTS to STREAM and one that counts them."
  (dolist (result results)
    (format stream "~(~A~): ~(~A~)~@[: ~A~]~%" (result-name result)
            (substitute #\Space #\- (string (result-outcome result))) (result-reason result)))
  (flet ((number-of (outcome)
           (count outcome results :key #'result-outcome)))
    (format stream "conformance: ~D passed, ~D failed, ~D left out~%"
            (number-of :passed) (number-of :failed) (number-of :left-out))))
