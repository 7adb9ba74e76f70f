;;;; counts - what happened how often, and what must not have happened.

(in-package :port/stress)

(defstruct (counter (:copier nil) (:predicate nil))
  (value 0 :type sb-ext:word))

(defparameter *names*
  '(:dialled :accepted :served :posted :octets :crossed :refused :reset-while-dialling
    :reset-by-server :ended-early :stormed :pairs :closed-under-users :thrown-out :killed
    :left-to-the-collector
    :timed-out-from-outside :timed-out-too-late :collections :signals-sent :signals
    :out-of-ports :surprises)
  "What is counted, in the order of the report.")

(dolist (name *names*)
  (setf (get name 'counter) (make-counter)))

(defun counter (name)
  "The counter of NAME, found without a lock: interruptions count too."
  (get name 'counter))

(defun note (name &optional (delta 1))
  (sb-ext:atomic-incf (counter-value (counter name)) delta))

(defun count-of (name)
  (counter-value (counter name)))

;;; What must not be

(defvar *surprises* '() "Lines that say what went wrong, the last one first.")

(defun surprise (control &rest arguments)
  "Note that something happened that must not."
  (note :surprises)
  (let ((line (apply #'format nil control arguments)))
    (sb-ext:atomic-push line (symbol-value '*surprises*))))

;;; How long a close takes to reach who is blocked

(defvar *wake-ups* '() "Nanoseconds, of the quiet phase.")
(defvar *loaded-wake-ups* '() "Those while everything else runs.")

(defun percentile (numbers percent)
  "The least of NUMBERS that PERCENT of them do not exceed."
  (let ((sorted (sort (copy-list numbers) #'<)))
    (if sorted
        (nth (min (1- (length sorted)) (floor (* percent (length sorted)) 100)) sorted)
        0)))

(defun report-wake-ups (label numbers)
  (format t "~A: ~D closes, until the blocked thread had its condition: median ~,3F ms, ~
             99 % within ~,3F ms, longest ~,3F ms~%"
          label (length numbers)
          (/ (percentile numbers 50) 1d6) (/ (percentile numbers 99) 1d6)
          (/ (percentile numbers 100) 1d6)))
