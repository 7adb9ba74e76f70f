;;;; servents - the system's table of services, services(5): its rows, such as "http 80/tcp www".
;;;; (What SERVE runs is in service.lisp.)

(in-package :port)

;;; Rows

(defun words (line)
  "The words of LINE, between single or repeated spaces and tabs."
  (flet ((blank-p (char)
           (member char '(#\Space #\Tab))))
    (loop for end = 0 then (or (position-if #'blank-p line :start start) (length line))
          for start = (position-if-not #'blank-p line :start end)
          while start
          collect (subseq line start (position-if #'blank-p line :start start)))))

(defun row-port (row)
  "The port in ROW, such as \"http 80/tcp www\"."
  (values (parse-integer (second (words row)) :junk-allowed t)))

(defun row-protocol (row)
  "The protocol in ROW, a string."
  (let ((place (second (words row))))
    (subseq place (1+ (position #\/ place)))))

(defun row-of-p (row name protocol)
  "True if ROW is for the service NAME over PROTOCOL (\"\" for any), in whatever case."
  (destructuring-bind (official place &rest aliases) (words row)
    (declare (ignore place))
    (and (or (string= protocol "") (string-equal protocol (row-protocol row)))
         (member name (cons official aliases) :test #'string-equal))))

;;; The table

(defun service-row (name protocol operation given)
  "The row of services(5) for NAME over PROTOCOL (\"\" for any), a string; NIL if there is none.
Signals RESOURCE-EXHAUSTED of OPERATION on GIVEN where the table could not be read."
  (let ((row (text-from (pointer cap)
               (with-text (service service-length name)
                 (with-text (way way-length protocol)
                   (lport-service-find service service-length way way-length pointer cap))))))
    (cond ((stringp row) row)
          ((/= (lport-status-kind row) +lport-service-not-found+)
           (fail row operation :port given)))))

(defun service-rows (operation)
  "Every row of the table, a list. Signals RESOURCE-EXHAUSTED of OPERATION where it could not be
read."
  (let ((table (text-from (pointer cap)
                 (lport-service-list pointer cap))))
    (unless (stringp table)
      (fail table operation))
    (with-input-from-string (rows table)
      (loop for row = (read-line rows nil)
            while row
            collect row))))

(defun find-service-row (name protocol operation &optional (given name))
  "As SERVICE-ROW; what the system does not find is searched for in whatever case. GIVEN is what the
user gave for NAME. Second value, where there is none: true if the system has a table at all."
  (or (service-row name protocol operation given)
      (let ((rows (service-rows operation)))
        (values (find-if (lambda (row) (row-of-p row name protocol)) rows) (consp rows)))))
