;;;; model - random sequences of stream operations on both ends of a connection, beside a model that
;;;; is slow and simple: a list of the octets that were written and not read yet.
;;;;
;;;; A sequence follows from its number: where one fails the number is printed with what was done
;;;; up to then, and (model-sequence kind number) runs it again.

(in-package :port/test)

(define-suite models "Random operations beside a model.")

;;; Encodings: characters to lists of octets and back. What is decoded is a character, and how many
;;; octets it had; :BAD, and how many octets are malformed; or NIL: more have to come.

(defun utf-8-octets (code)
  (flet ((tail (shift) (logior #x80 (ldb (byte 6 shift) code))))
    (cond ((< code #x80) (list code))
          ((< code #x800) (list (logior #xC0 (ash code -6)) (tail 0)))
          ((< code #x10000) (list (logior #xE0 (ash code -12)) (tail 6) (tail 0)))
          (t (list (logior #xF0 (ash code -18)) (tail 12) (tail 6) (tail 0))))))

(defun utf-8-tails (first)
  "The bounds of each octet that has to follow FIRST, Table 3-7 of Unicode; :BAD if none can."
  (let ((any '(#x80 #xBF)))
    (cond ((< first #x80) '())
          ((<= #xC2 first #xDF) (list any))
          ((= first #xE0) (list '(#xA0 #xBF) any))
          ((= first #xED) (list '(#x80 #x9F) any))
          ((<= #xE1 first #xEF) (list any any))
          ((= first #xF0) (list '(#x90 #xBF) any any))
          ((<= #xF1 first #xF3) (list any any any))
          ((= first #xF4) (list '(#x80 #x8F) any any))
          (t :bad))))

(defun decode-utf-8 (octets)
  (let ((tails (utf-8-tails (first octets))))
    (if (eq tails :bad)
        (values :bad 1)
        (loop with code = (ldb (byte (if tails (- 6 (length tails)) 7) 0) (first octets))
              for width from 1
              for (low high) in tails
              for octet = (nth width octets)
              do (cond ((null octet) (return nil))
                       ((not (<= low octet high)) (return (values :bad width)))
                       (t (setf code (logior (ash code 6) (ldb (byte 6 0) octet)))))
              finally (return (values (code-char code) (1+ (length tails))))))))

(defun decode-utf-16le (octets)
  (flet ((unit (index)
           (let ((low (nth index octets)) (high (nth (1+ index) octets)))
             (and low high (logior low (ash high 8))))))
    (let ((first (unit 0)) (second (unit 2)))
      (cond ((null first) nil)
            ((not (<= #xD800 first #xDBFF)) (values (code-char first) 2))
            ((null second) nil)
            (t (values (code-char (+ #x10000 (ash (- first #xD800) 10) (- second #xDC00)))
                       4))))))

(defun utf-16le-octets (code)
  (flet ((unit (unit) (list (ldb (byte 8 0) unit) (ldb (byte 8 8) unit))))
    (if (< code #x10000)
        (unit code)
        (append (unit (logior #xD800 (ash (- code #x10000) -10)))
                (unit (logior #xDC00 (ldb (byte 10 0) (- code #x10000))))))))

(defun octet-below (limit)
  (lambda (code) (and (< code limit) (list code))))

(defun character-below (limit)
  (lambda (octets)
    (if (< (first octets) limit)
        (values (code-char (first octets)) 1)
        (values :bad 1))))

(defparameter *model-encodings*
  `((:utf-8 utf-8-octets decode-utf-8)
    (:latin-1 ,(octet-below 256) ,(character-below 256))
    (:ascii ,(octet-below 128) ,(character-below 128))
    (:utf-16le utf-16le-octets decode-utf-16le))
  "Rows (name, octets of a code or NIL, decoder of a list of octets).")

;;; The two ends of a connection

(defstruct party
  socket peer
  (unread '())                          ; octets, on their way to this party
  (ended nil)                           ; nothing else will come
  (encoding :utf-8) (eol :lf) (replacement nil)
  (last nil)                            ; (character . octets) that was read last, or NIL
  (column 0))                           ; of the output; NIL: not known

(defvar *state*)
(defparameter *shown* 12 "Steps of a sequence that failed that are printed.")
(defvar *done* '() "What was done in this sequence, the last first.")

(defun chance (count)
  "True once in COUNT times."
  (zerop (random count *state*)))

(defun pick (list)
  (nth (random (length list) *state*) list))

(defun random-size ()
  (random (case (random 40 *state*) (0 16000) ((1 2) 2000) (t 12)) *state*))

(defun note (&rest what)
  (push what *done*))

(defun check-same (expected got)
  (unless (equalp expected got)
    (error "expected ~S, got ~S" expected got)))

;;; What the model says

(defun encode (party character)
  "The octets of CHARACTER as PARTY writes it, or NIL."
  (let ((encoder (second (assoc (party-encoding party) *model-encodings*)))
        (code (char-code character)))
    (cond ((and (eql code 10) (eq (party-eol party) :crlf)) (list 13 10))
          ((funcall encoder code))
          ((party-replacement party)
           (funcall encoder (char-code (party-replacement party)))))))

(defun decode (party octets)
  "Values: the next character of OCTETS for PARTY; how many octets it has. NIL: none is there yet."
  (let ((decoder (third (assoc (party-encoding party) *model-encodings*))))
    (cond ((null octets) nil)
          ((and (eq (party-eol party) :crlf) (eql 13 (first octets))
                (or (rest octets) (not (party-ended party))))
           (case (second octets)
             ((nil) nil)
             (10 (values #\Newline 2))
             (t (values #\Return 1))))
          (t (multiple-value-bind (character width) (funcall decoder octets)
               (cond ((eq character :bad)
                      (values (or (party-replacement party) #\?) width))
                     (character (values character width))
                     ((party-ended party)
                      (values (or (party-replacement party) #\?) (length octets)))))))))

(defun decode-many (party &key (limit most-positive-fixnum) (until (constantly nil)))
  "Values: the characters that PARTY can read now, at most LIMIT, up to the first for which UNTIL is
true; how many octets they have; whether that one is among them."
  (loop with octets = (party-unread party)
        with width = 0
        for count from 0 below limit
        for (character more) = (multiple-value-list (decode party octets))
        while character
        collect character into characters
        do (setf octets (nthcdr more octets))
           (incf width more)
        when (funcall until character)
          do (return (values characters width t))
        finally (return (values characters width nil))))

(defun model-take (party width)
  "The next WIDTH octets for PARTY, which are read."
  (setf (party-last party) nil)
  (loop repeat width
        collect (pop (party-unread party))))

(defun model-write (party octets)
  "PARTY writes OCTETS, a list."
  (let ((peer (party-peer party)))
    (setf (party-unread peer) (append (party-unread peer) octets))))

(defun random-characters (party count &optional plain-p)
  "COUNT characters that PARTY can write; PLAIN-P: base characters."
  (loop repeat count
        collect (loop for character = (if (chance 7)
                                          (pick '(#\Newline #\Newline #\Newline #\Return))
                                          (code-char (pick '(97 98 32 9 127 #xE9 #xFF #x151 #x20AC
                                                             #x4E2D #xFFFD #x1D11E))))
                      when (and (encode party character)
                                (or (not plain-p) (< (char-code character) 128)))
                        return character)))

(defun write-model-text (party characters)
  (dolist (character characters)
    (model-write party (encode party character))
    (setf (party-column party)
          (cond ((char= character #\Newline) 0)
                ((party-column party) (1+ (party-column party)))))))

;;; Steps: functions of a party. One that cannot be done now does nothing.

(defvar *write-steps* '())
(defvar *read-steps* '())
(defparameter *octet-steps*
  '(step-read-byte step-read-octets step-read-some step-read-line-octets)
  "Those that could leave half a unit of UTF-16.")

(defmacro define-step ((name list) (party) &body body)
  `(progn
     (defun ,name (,party) ,@body)
     (pushnew ',name ,list)))

(defun string-of-kind (kind characters)
  "A string of KIND with CHARACTERS, between others; values: it and its bounds."
  (let ((text (append '(#\x #\y) characters '(#\z))) (end (+ 2 (length characters))))
    (values (ecase kind
              (:simple (coerce text '(simple-array character (*))))
              (:base (coerce text 'simple-base-string))
              (:adjustable (make-array (length text) :element-type 'character :adjustable t
                                                     :fill-pointer t :initial-contents text))
              (:displaced (make-array (length text)
                                      :element-type 'character :displaced-index-offset 3
                                      :displaced-to (coerce (append '(#\1 #\2 #\3) text)
                                                            '(simple-array character (*)))))
              (:list text)
              (:general (coerce text 'simple-vector)))
            2 end)))

(defun random-string (party kinds)
  "Values: a sequence of characters for PARTY, bounds in it, the list of what is between them."
  (let* ((kind (pick kinds)) (characters (random-characters party (random-size) (eq kind :base))))
    (note :text kind characters)
    (multiple-value-bind (text from to) (string-of-kind kind characters)
      (values text from to characters))))

(define-step (step-write-char *write-steps*) (party)
  (let ((characters (random-characters party 1)))
    (note 'write-char characters)
    (write-char (first characters) (party-socket party))
    (write-model-text party characters)))

(define-step (step-write-string *write-steps*) (party)
  (multiple-value-bind (text from to characters)
      (random-string party '(:simple :base :adjustable :displaced))
    (if (chance 2)
        (write-string text (party-socket party) :start from :end to)
        (write-sequence text (party-socket party) :start from :end to))
    (write-model-text party characters)))

(define-step (step-write-line *write-steps*) (party)
  (multiple-value-bind (text from to characters)
      (random-string party '(:simple :base :adjustable :displaced))
    (write-line text (party-socket party) :start from :end to)
    (write-model-text party (append characters '(#\Newline)))))

(define-step (step-write-elements *write-steps*) (party)
  (multiple-value-bind (text from to characters) (random-string party '(:list :general))
    (write-sequence text (party-socket party) :start from :end to)
    (write-model-text party characters)))

(define-step (step-format *write-steps*) (party)
  (let ((characters (random-characters party (random 8 *state*))))
    (note 'format characters)
    (format (party-socket party) "~A~%~D" (coerce characters 'string) 12)
    (write-model-text party (append characters '(#\Newline #\1 #\2)))))

(define-step (step-fresh-line *write-steps*) (party)
  (when (party-column party)
    (note 'fresh-line (party-column party))
    (check-same (plusp (party-column party)) (and (fresh-line (party-socket party)) t))
    (when (plusp (party-column party))
      (write-model-text party '(#\Newline)))))

(define-step (step-write-octets *write-steps*) (party)
  (let* ((octets (loop repeat (min 4000 (random-size))
                       collect (if (chance 3)
                                   (pick '(10 13 #xC3 #xE2 #x82 #xF0 #xFF))
                                   (random 256 *state*))))
         (vector (apply #'octets octets)))
    (unless (find :utf-16le (list party (party-peer party)) :key #'party-encoding)
      (note 'write-octets octets)
      (case (random 3 *state*)
        (0 (write-octets (party-socket party) vector))
        (1 (write-sequence vector (party-socket party)))
        (2 (dolist (octet octets)
             (write-byte octet (party-socket party)))))
      (model-write party octets)
      (when octets
        (setf (party-column party) nil)))))

(define-step (step-flush *write-steps*) (party)
  (note 'force-output)
  (force-output (party-socket party)))

(defun space-p (character)
  (find character '(#\Space #\Newline #\Tab #\Page #\Return)))

(define-step (step-read-char *read-steps*) (party)
  (multiple-value-bind (character width) (decode party (party-unread party))
    (note 'read-char)
    (cond (character
           (check-same character
                       (if (chance 2)
                           (read-char (party-socket party))
                           (read-char-no-hang (party-socket party))))
           (setf (party-last party) (cons character (model-take party width)))
           (when (chance 3)
             (step-unread-char party)))
          ((not (party-ended party))
           (check-same nil (read-char-no-hang (party-socket party)))))))

(define-step (step-unread-char *read-steps*) (party)
  (when (party-last party)
    (note 'unread-char)
    (destructuring-bind (character . octets) (party-last party)
      (unread-char character (party-socket party))
      (setf (party-unread party) (append octets (party-unread party))
            (party-last party) nil))))

(define-step (step-listen *read-steps*) (party)
  (note 'listen)
  (check-same (and (decode party (party-unread party)) t)
              (and (listen (party-socket party)) t)))

(define-step (step-peek-char *read-steps*) (party)
  (let ((wanted (pick (list nil t #\a #\Newline))))
    (multiple-value-bind (characters width found-p)
        (decode-many party :until (case wanted
                                    ((nil) (constantly t))
                                    ((t) (lambda (character) (not (space-p character))))
                                    (t (lambda (character) (eql character wanted)))))
      (declare (ignore width))
      (when found-p
        (note 'peek-char wanted)
        (check-same (first (last characters)) (peek-char wanted (party-socket party)))
        (model-take party (nth-value 1 (decode-many party :limit (1- (length characters)))))))))

(define-step (step-read-line *read-steps*) (party)
  (multiple-value-bind (characters width found-p)
      (decode-many party :until (lambda (character) (char= character #\Newline)))
    (when (or found-p (and (party-ended party) characters))
      (note 'read-line)
      (multiple-value-bind (line missing-newline-p) (read-line (party-socket party))
        (check-same (coerce (if found-p (butlast characters) characters) 'string) line)
        (check-same (not found-p) (and missing-newline-p t)))
      (model-take party width))))

(define-step (step-read-text *read-steps*) (party)
  (let ((kind (pick '(:simple :adjustable :displaced :list :general))))
    (multiple-value-bind (characters width) (decode-many party :limit (random-size))
      (note 'read-sequence kind (length characters))
      (multiple-value-bind (room from to)
          (string-of-kind kind (mapcar (constantly #\_) characters))
        (check-same to (read-sequence room (party-socket party) :start from :end to))
        (check-same (append '(#\x #\y) characters '(#\z)) (coerce room 'list)))
      (model-take party width))))

(define-step (step-read-byte *read-steps*) (party)
  (when (party-unread party)
    (note 'read-byte)
    (check-same (first (party-unread party)) (read-byte (party-socket party)))
    (model-take party 1)))

(defun is-prefix (count vector party)
  "Check that the first COUNT octets of VECTOR are the next for PARTY."
  (check-same (loop repeat count for octet in (party-unread party) collect octet)
              (coerce (subseq vector 0 count) 'list)))

(define-step (step-read-octets *read-steps*) (party)
  (let* ((count (min (random-size) (length (party-unread party)))) (room (blank (+ count 3)))
         (how (pick '(read-octets read-sequence peek-octets))))
    (note how count)
    (check-same count
                (ecase how
                  (read-octets (read-octets (party-socket party) room :end count))
                  (read-sequence (read-sequence room (party-socket party) :end count))
                  (peek-octets (peek-octets (party-socket party) room :end count))))
    (is-prefix count room party)
    (check-same '(0 0 0) (coerce (subseq room count) 'list))
    (model-take party (if (eq how 'peek-octets) 0 count))))

(define-step (step-read-some *read-steps*) (party)
  (let ((room (blank (1+ (random-size)))))
    (when (party-unread party)
      (note 'read-some (length room))
      (let ((count (read-some (party-socket party) room)))
        (check-same t (<= 1 count (min (length room) (length (party-unread party)))))
        (is-prefix count room party)
        (model-take party count)))))

(define-step (step-read-line-octets *read-steps*) (party)
  (let* ((room (blank (1+ (random-size)))) (unread (party-unread party))
         (newline (position 10 unread))
         (text (and newline
                    (if (and (eq (party-eol party) :crlf) (plusp newline)
                             (eql 13 (nth (1- newline) unread)))
                        (1- newline)
                        newline))))
    (cond ((and text (<= text (length room)))
           (note 'read-line-octets (length room))
           (check-same (list text :line)
                       (multiple-value-list (read-line-octets (party-socket party) room)))
           (is-prefix text room party)
           (model-take party (1+ newline)))
          ((>= (length unread) (+ 2 (length room)))
           (note 'read-line-octets (length room) :more)
           (check-same (list (length room) :more)
                       (multiple-value-list (read-line-octets (party-socket party) room)))
           (is-prefix (length room) room party)
           (model-take party (length room))))))

(define-step (step-buffered *read-steps*) (party)
  (multiple-value-bind (in out) (buffered-octets (party-socket party))
    (note 'buffered-octets)
    (check-same t (<= in (length (party-unread party))))
    (check-same t (<= out (length (party-unread (party-peer party)))))))

(defun change-format (party)
  "Give PARTY another external format, in the middle of whatever is under way."
  (let* ((encoding (pick (mapcar #'first *model-encodings*)))
         (eol (if (eq encoding :utf-16le) :lf (pick '(:lf :crlf))))
         (replacement (and (not (eq encoding :utf-16le)) (chance 3) #\*)))
    ;; octets that stand for anything are no UTF-16
    (unless (and (eq encoding :utf-16le) (party-unread party))
      (note 'format encoding eol replacement)
      (setf (stream-external-format (party-socket party))
            `(,encoding :eol ,eol ,@(and replacement `(:replacement ,replacement)))
            (party-encoding party) encoding
            (party-eol party) eol
            (party-replacement party) replacement
            (party-last party) nil))))

;;; Sequences

(defun step-once (party)
  (cond ((chance 25) (change-format party))
        ((and (chance 3) (< (length (party-unread (party-peer party))) 60000))
         (unless (and (eq :utf-16le (party-encoding (party-peer party)))
                      (not (eq :utf-16le (party-encoding party))))
           (funcall (pick *write-steps*) party)))
        (t (finish-output (party-socket (party-peer party)))
           (read-once party))))

(defun read-once (party)
  (let ((step (pick *read-steps*)))
    (when (or (not (eq :utf-16le (party-encoding party))) (not (member step *octet-steps*)))
      (funcall step party))))

(defun read-to-the-end (party)
  "The peer of PARTY ends its output: PARTY reads what is left, and then the end of the file."
  (let ((peer (party-peer party)) (socket (party-socket party)))
    (note 'socket-shutdown)
    (socket-shutdown (party-socket peer) :output)
    (setf (party-ended party) t)
    (loop while (party-unread party)
          do (read-once party))
    (check-same '(:eof :eof :eof 0)
                (list (read-char socket nil :eof) (read-line socket nil :eof)
                      (read-byte socket nil :eof) (read-octets socket (blank 1))))))

(defun model-sequence (kind number &key (steps 60))
  "Run the sequence with NUMBER over a pair of KIND: NIL, or a text that says what went wrong."
  (let ((*state* (sb-ext:seed-random-state number)) (*done* '()))
    (with-pair (a b kind)
      (let* ((one (make-party :socket a)) (other (make-party :socket b :peer one)))
        (setf (party-peer one) other)
        (handler-case
            (handler-bind ((decoding-error
                             (lambda (condition)
                               (declare (ignore condition))
                               (invoke-restart 'replace-character #\?))))
              (with-deadline (20)
                (dotimes (i steps)
                  (step-once (pick (list one other))))
                (read-to-the-end one)
                (read-to-the-end other))
              nil)
          (error (condition)
            (let ((*print-length* 40))
              (format nil "sequence ~D over ~A: ~A~%~{~S~%~}" number kind condition
                      (reverse (subseq *done* 0 (min *shown* (length *done*))))))))))))

(define-test model.streams (:limit 60 :weather nil)
  (loop for number from (test-seed)
        repeat 24
        do (dolist (kind *pair-kinds*)
             (let ((failure (model-sequence kind number)))
               (is (null failure) "~A" failure)))))
