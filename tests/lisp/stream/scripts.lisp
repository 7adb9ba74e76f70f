;;;; scripts - random scripts of stream operations beside a model: octets that come in pieces of any
;;;; size are read in every way, texts and octets are written in every way.
;;;;
;;;; The model knows nothing of buffers, pieces and time. A failure prints the seed and the script.

(in-package :port/test)

(define-suite scripts "Random scripts beside a model.")

(defstruct (model (:copier nil) (:predicate nil))
  "The octets that are to be read and how far they were, or that were written; STEPS: what was done,
the last step first."
  (octets nil) (position 0) (encoding :utf-8) (eol :lf) (column 0) (steps '()))

(defun end-p (model)
  (= (model-position model) (length (model-octets model))))

;;; Characters as the model reads them

(defparameter *utf-8-forms*
  '((#x00 #x7F) (#xC2 #xDF (#x80 #xBF)) (#xE0 #xE0 (#xA0 #xBF) (#x80 #xBF))
    (#xE1 #xEC (#x80 #xBF) (#x80 #xBF)) (#xED #xED (#x80 #x9F) (#x80 #xBF))
    (#xEE #xEF (#x80 #xBF) (#x80 #xBF)) (#xF0 #xF0 (#x90 #xBF) (#x80 #xBF) (#x80 #xBF))
    (#xF1 #xF3 (#x80 #xBF) (#x80 #xBF) (#x80 #xBF)) (#xF4 #xF4 (#x80 #x8F) (#x80 #xBF) (#x80 #xBF)))
  "Table 3-7 of the Unicode Standard: ranges of a first octet and of those behind it.")

(defun utf-8-width (octets position)
  "Values: how many octets at POSITION belong together; true if they are a character."
  (let ((form (find-if (lambda (form) (<= (first form) (aref octets position) (second form)))
                       *utf-8-forms*)))
    (loop for (low high) in (cddr form)
          for width from 1
          for index = (+ position width)
          unless (and (< index (length octets)) (<= low (aref octets index) high))
            do (return (values width nil))
          finally (return (values (max 1 (1- (length form))) (and form t))))))

(defun utf-16-width (octets position)
  "As UTF-8-WIDTH, of big-endian UTF-16."
  (flet ((unit-p (index high)
           (and (< (1+ index) (length octets)) (= high (logand #xFC (aref octets index))))))
    (let ((left (- (length octets) position)))
      (cond ((< left 2) (values left nil))
            ((unit-p position #xDC) (values 2 nil))
            ((not (unit-p position #xD8)) (values 2 t))
            ((< left 4) (values left nil))
            ((unit-p (+ position 2) #xDC) (values 4 t))
            (t (values 2 nil))))))

(defun crlf-octets (model)
  "A carriage return and a line feed in the encoding of MODEL."
  (if (eq (model-encoding model) :utf-16be) (octets 0 13 0 10) (octets 13 10)))

(defun character-behind (model position)
  "Values: the character at POSITION, ? for what is none; where it ends."
  (let ((octets (model-octets model)))
    (if (and (eq (model-eol model) :crlf)
             (eql position (search (crlf-octets model) octets :start2 position)))
        (values #\Newline (+ position (length (crlf-octets model))))
        (multiple-value-bind (width character-p)
            (ecase (model-encoding model)
              (:utf-8 (utf-8-width octets position))
              (:utf-16be (utf-16-width octets position))
              (:latin-1 (values 1 t)))
          (let ((end (+ position width)))
            (values (if character-p
                        (char (babel:octets-to-string octets :start position :end end
                                                             :encoding (model-encoding model))
                              0)
                        #\?)
                    end))))))
;;; Steps of reading: functions of a socket, the model and a size. Values: what the socket gives and
;;; what the model does, lists. After a timeout a call is made again.

(defun persist (function)
  "The values of FUNCTION, a list, as soon as it does not time out."
  (loop
    (handler-case (return (multiple-value-list (funcall function)))
      (timeout () nil))))

(defun take (model)
  "The next character of MODEL, or :EOF."
  (if (end-p model)
      :eof
      (multiple-value-bind (character end) (character-behind model (model-position model))
        (setf (model-position model) end)
        character)))

(defun take-text (model count)
  "The next COUNT characters of MODEL, or fewer at its end, a list."
  (loop repeat count
        until (end-p model)
        collect (take model)))

(defun take-octets (model count)
  "The same with octets."
  (let* ((start (model-position model)) (end (min (length (model-octets model)) (+ start count))))
    (setf (model-position model) end)
    (coerce (subseq (model-octets model) start end) 'list)))

(defun step-character (socket model size)
  (declare (ignore size))
  (values (persist (lambda () (read-char socket nil :eof)))
          (list (take model))))

(defun step-back (socket model size)
  "A character is read and taken back; a look at what comes next changes nothing."
  (declare (ignore size))
  (let* ((start (model-position model))
         (got (persist (lambda () (read-char socket nil :eof)))))
    (when (characterp (first got))
      (listen socket)
      (unread-char (first got) socket))
    (multiple-value-prog1 (values (append got (persist (lambda () (peek-char nil socket nil :eof))))
                                  (let ((wanted (take model))) (list wanted wanted)))
      (setf (model-position model) start))))

(defun step-line (socket model size)
  (declare (ignore size))
  (let ((got (persist (lambda () (read-line socket nil :eof)))))
    (values got
            (if (end-p model)
                '(:eof t)
                (loop for character = (take model)
                      until (member character '(:eof #\Newline))
                      collect character into line
                      finally (return (list (coerce line 'string) (eq character :eof))))))))

(defun step-text (socket model size)
  "Into a string, a displaced one, or a list."
  (let* ((base (make-string (+ size 9)))
         (room (ecase (mod size 3)
                 (0 (subseq base 9))
                 (1 (make-array size :element-type 'character :displaced-to base
                                     :displaced-index-offset 4))
                 (2 (make-list size))))
         (end (first (persist (lambda () (read-sequence room socket))))))
    (values (coerce (subseq room 0 end) 'list) (take-text model size))))

(defun step-octets (socket model size)
  (let* ((room (blank size))
         (end (first (persist (lambda ()
                                (if (evenp size)
                                    (read-octets socket room)
                                    (read-sequence room socket)))))))
    (values (coerce (subseq room 0 end) 'list) (take-octets model size))))

(defun step-octets-ahead (socket model size)
  (let* ((room (blank size)) (start (model-position model))
         (end (first (persist (lambda () (peek-octets socket room))))))
    (multiple-value-prog1 (values (coerce (subseq room 0 end) 'list) (take-octets model size))
      (setf (model-position model) start))))

(defun step-octet (socket model size)
  (declare (ignore size))
  (values (persist (lambda () (read-byte socket nil :eof)))
          (if (end-p model) '(:eof) (take-octets model 1))))

(defun step-octet-line (socket model size)
  (let ((room (blank (1+ size))) (rest (subseq (model-octets model) (model-position model))))
    (destructuring-bind (end what) (persist (lambda () (read-line-octets socket room)))
      (let* ((newline (position 10 rest))
             (width (if (and newline (plusp newline) (= 13 (aref rest (1- newline)))
                             (eq (model-eol model) :crlf))
                        2
                        1))
             (length (if newline (- newline (1- width)) (length rest)))
             (wanted (cond ((> length (1+ size)) :more) (newline :line) (t :end-of-file))))
        (multiple-value-prog1 (values (list* what (coerce (subseq room 0 end) 'list))
                                      (list* wanted (take-octets model (min length (1+ size)))))
          (when (eq wanted :line)
            (take-octets model width)))))))

(defun step-format (socket model size)
  "Another encoding, or another end of lines."
  (setf (model-encoding model) (svref #(:utf-8 :latin-1 :utf-8 :utf-16be) (mod size 4))
        (model-eol model) (if (oddp (floor size 4)) :crlf :lf)
        (stream-external-format socket) (list (model-encoding model) :eol (model-eol model)
                                              :replacement #\?))
  (values '() '()))

(defparameter *reading-steps*
  #(step-character step-character step-back step-back step-back step-line step-text step-octets
    step-octets-ahead step-octet step-octet-line step-format))

;;; What is read

(defun any-size (state power)
  "Less than 4 to the POWER, mostly much less; as much as a buffer now and then."
  (if (zerop (random 50 state))
      (amount (+ 60000 (random 10000 state)))
      (random (expt 4 (1+ (random power state))) state)))

(defun any-text (state)
  (coerce (loop repeat (any-size state 5)
                collect (char "abc é€𝄞" (random 7 state)))
          'string))

(defun any-piece (state)
  "Octets of a text, a line's end, or what is none in UTF-8."
  (svref (vector (octets 10) (octets 13 10) (octets 13) (octets 0 10) (octets 0 13)
                 (octets 0 13 0 10) (octets #xD8 #x34 #xDC)
                 (octets #xE2 #x82) (octets #xF0 #x9F #x98) (octets #xC0 #x80)
                 (octets #xED #xA0 #x80) (octets #xF4 #x90 #x80 #x80) (octets 255)
                 (octets-like (any-text state)) (octets-like (any-text state)))
         (random 13 state)))

(defun any-octets (state)
  (apply #'concatenate '(vector (unsigned-byte 8))
         (loop repeat (random 60 state)
               collect (any-piece state))))

(defun send-in-pieces (socket octets state)
  "Send OCTETS in pieces of all sizes, and end the output."
  (loop with start = 0 and most = (expt 10 (1+ (random 4 state)))
        while (< start (length octets))
        do (let ((end (min (length octets)
                           (+ start 1 (random (max most (floor (length octets) 100)) state)))))
             (write-octets socket octets :start start :end end)
             (finish-output socket)
             ;; So that often all is read that has come.
             (when (or (= most 10) (zerop (random 4 state)))
               (sleep 0.0002))
             (setf start end)))
  (socket-shutdown socket :output))

;;; Scripts of reading

(defun run-step (step socket model size)
  "Do STEP; a text if SOCKET and MODEL differ, or NIL."
  (push (list step size (model-position model)) (model-steps model))
  (multiple-value-bind (got wanted) (funcall step socket model size)
    (unless (equal got wanted)
      (let ((*print-length* 30))
        (format nil "got ~S, wanted ~S, after ~S (step, size, position)" got wanted
                (reverse (model-steps model)))))))

(defun read-by-script (seed)
  "Read what comes in random steps: a text of how it went wrong, or NIL."
  (let* ((state (sb-ext:seed-random-state seed))
         (model (make-model :octets (any-octets state))))
    (with-pair (a b)
      (let ((sender (in-thread (lambda ()
                                 (send-in-pieces a (model-octets model)
                                                 (sb-ext:seed-random-state seed))))))
        (step-format b model 0)
        (setf (socket-timeout b :input) (svref #(nil 0 0.001) (random 3 state)))
        (prog1 (loop with steps-at-end = 0
                     until (= steps-at-end 5)
                     thereis (run-step (svref *reading-steps*
                                              (random (length *reading-steps*) state))
                                       b model (any-size state 2))
                     do (when (end-p model)
                          (incf steps-at-end)))
          (close b :abort t)
          (sb-thread:join-thread sender))))))

(define-test scripts.of-reading (:behaviour (11 43 44 45) :limit 60)
  (loop for seed from (test-seed)
        repeat (if (weather-p) 10 100)
        for failure = (read-by-script seed)
        do (is (null failure) "seed ~D: ~A" seed failure)
        until failure))

;;; Steps of writing: functions of a socket, the model, which gets the octets and the column, a text
;;; and a size.

(defun note-octets (model octets)
  (loop for octet across octets
        do (vector-push-extend octet (model-octets model))))

(defun note-text (model text)
  "Note that TEXT was written, ? for what has no octets."
  (loop for character across text
        do (setf (model-column model)
                 (if (char= character #\Newline) 0 (1+ (model-column model))))
           (note-octets model (cond ((and (char= character #\Newline) (eq :crlf (model-eol model)))
                                     (crlf-octets model))
                                    ((and (eq :latin-1 (model-encoding model))
                                          (> (char-code character) 255))
                                     (octets 63))
                                    (t
                                     (babel:string-to-octets (string character) :use-bom nil
                                                             :encoding (model-encoding model)))))))

(defun write-a-character (socket model text size)
  (declare (ignore size))
  (when (plusp (length text))
    (write-char (char text 0) socket)
    (note-text model (subseq text 0 1))))

(defun write-a-string (socket model text size)
  "A part of a string of some kind."
  (let ((start (floor (length text) 3))
        (string (case (mod size 4)
                  (0 (coerce (remove-if-not (lambda (char) (typep char 'base-char)) text)
                             'simple-base-string))
                  (1 (make-array (length text) :element-type 'character :displaced-to text))
                  (2 (make-array (length text) :element-type 'character :fill-pointer t
                                               :initial-contents text))
                  (3 text))))
    (setf start (min start (length string)))
    (if (evenp (floor size 4))
        (write-string string socket :start start)
        (write-sequence string socket :start start))
    (note-text model (subseq string start))))

(defun write-a-list (socket model text size)
  (declare (ignore size))
  (write-sequence (coerce text 'list) socket)
  (note-text model text))

(defun write-a-line (socket model text size)
  (declare (ignore size))
  (write-line text socket)
  (note-text model (format nil "~A~%" text)))

(defun write-some-octets (socket model text size)
  "Octets of ASCII, of which the column is known; not in UTF-16, where it would not be."
  (unless (eq :utf-16be (model-encoding model))
    (let ((octets (octets-like (remove-if (lambda (char) (> (char-code char) 127)) text))))
      (if (evenp size)
          (write-octets socket octets)
          (map nil (lambda (octet) (write-byte octet socket)) octets))
      (note-octets model octets)
      (incf (model-column model) (length octets)))))

(defun write-by-format (socket model text size)
  (declare (ignore text))
  (format socket "~&a~VT|~&" (mod size 100))
  (note-text model (format nil "~:[~%~;~]a~VA|~%" (zerop (model-column model))
                           (1- (max 2 (mod size 100))) "")))

(defun flush-what-is-there (socket model text size)
  (declare (ignore model text))
  (if (evenp size) (finish-output socket) (force-output socket)))

(defun write-in-another-format (socket model text size)
  (declare (ignore text))
  (step-format socket model size))

(defparameter *writing-steps*
  #(write-a-character write-a-character write-a-string write-a-string write-a-list write-a-line
    write-some-octets write-by-format flush-what-is-there write-in-another-format))

(defun write-by-script (seed)
  "Write in random steps: a text of how what was read, or the column, went wrong, or NIL."
  (let ((state (sb-ext:seed-random-state seed))
        (model (make-model :octets (make-array 100 :adjustable t :fill-pointer 0))))
    (with-pair (a b)
      (let ((reader (in-thread (lambda () (everything b)))))
        (step-format a model 0)
        (loop repeat (random 60 state)
              for step = (svref *writing-steps* (random (length *writing-steps*) state))
              for text = (any-text state)
              for size = (any-size state 5)
              do (push (list step (length text) size) (model-steps model))
                 (funcall step a model text size))
        (let ((column (sb-gray:stream-line-column a)))
          (close a)
          (unless (and (equalp (join reader) (model-octets model))
                       ;; Of a very long line not all is looked at.
                       (or (= column (model-column model)) (< 250 (model-column model))))
            (format nil "column ~D, wanted ~D, after ~S (step, length, size)" column
                    (model-column model) (reverse (model-steps model)))))))))

(define-test scripts.of-writing (:limit 60)
  (loop for seed from (test-seed)
        repeat (if (weather-p) 10 100)
        for failure = (write-by-script seed)
        do (is (null failure) "seed ~D: ~A" seed failure)
        until failure))
