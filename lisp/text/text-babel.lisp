;;;; text-babel - the encodings that babel knows, a character at a time, by the rules of text.lisp.
;;;; To ask babel takes a microsecond, and where a table has to be searched from its beginning more
;;;; than a hundred; so it is asked but once.
;;;;
;;;; Invariant: babel sees exactly the octets of one character, see text-tables.lisp, and what it
;;;; encodes counts only if it reads back as the same character.

(in-package :port)

;;; What was found

(deftype pages ()
  "A table with 65536 places: by the high octet NIL, or a vector by the low one."
  '(simple-vector 256))

(declaim (inline make-pages))
(defun make-pages ()
  (make-array 256 :initial-element nil))

(defmacro remembered ((pages high low) form)
  "The value of FORM, which is the same whoever asks: what was found before at HIGH and LOW of
PAGES, or found now and remembered. Two threads that look for the same at once find the same."
  (let ((page (gensym "PAGE")) (found (gensym "FOUND")))
    `(let* ((,page (or (svref ,pages ,high)
                       (setf (svref ,pages ,high) (make-array 256 :initial-element :unknown))))
            (,found (svref ,page ,low)))
       (if (eq ,found :unknown)
           (setf (svref ,page ,low) ,form)
           ,found))))

;;; Charsets

(defstruct (charset (:copier nil) (:predicate nil))
  (name nil :type keyword :read-only t)
  (unit 1 :type (integer 1 4) :read-only t) ; octets of a code unit
  (newline #() :type simple-array)      ; its octets
  ;; Of one where each octet is a character: those that the octets stand for, and the other way.
  (characters nil :type (or null simple-vector) :read-only t)
  (octets nil :type (or null hash-table) :read-only t)
  ;; Of the others what was found for characters, by their code, and for octets: one, as if a zero
  ;; stood before it, which no character of two begins with where some have one; or two.
  (found-octets (make-pages) :type pages :read-only t)
  (found-characters (make-pages) :type pages :read-only t))

(defvar *charsets* '()
  "Those that were asked for, by their names.")

(defun charset-named (name)
  "The charset for babel's encoding NAME."
  (or (cdr (assoc name *charsets*))
      (let ((charset (make-charset-named name)))
        (setf (charset-newline charset) (foreign-octets charset #\Newline))
        ;; Of two that are made at once one may be lost, and is made again later.
        (setf *charsets* (acons name charset *charsets*))
        charset)))

(defun make-charset-named (name)
  (let* ((encoding (babel-encodings:get-character-encoding name))
         (unit (floor (babel-encodings:enc-code-unit-size encoding) 8)))
    (if (= 1 unit (babel-encodings:enc-max-units-per-char encoding))
        (let ((characters (single-characters name)))
          (make-charset :name name :characters characters :octets (inverse characters)))
        (make-charset :name name :unit unit))))

(defun single-characters (name)
  "What each octet is in encoding NAME: a vector of characters, and NIL where an octet is none."
  (let ((characters (make-array 256)) (octets (octets-of-size 1)))
    (dotimes (octet 256 characters)
      (setf (aref octets 0) octet
            (svref characters octet) (babel-character name octets)))))

(defun inverse (characters)
  "A table from each of CHARACTERS to its octet, as a vector."
  (let ((table (make-hash-table)))
    (loop for octet from 255 downto 0
          for character = (svref characters octet)
          when character
            do (setf (gethash character table)
                     (make-array 1 :element-type '(unsigned-byte 8) :initial-element octet)))
    table))

;;; Decoding

(defun lead-width (charset octets start)
  "How many octets the character at START of OCTETS has, as far as its first unit tells."
  (let ((lead (aref octets start)))
    (case (charset-name charset)
      (:gbk (if (<= #x81 lead #xFE) 2 1))
      (:cp932 (if (or (<= #x81 lead #x9F) (<= #xE0 lead #xFC)) 2 1))
      (:eucjp (cond ((= lead #x8F) 3)
                    ((or (= lead #x8E) (<= #xA1 lead #xFE)) 2)
                    (t 1)))
      (:utf-8b (cond ((< lead #xC2) 1) ((< lead #xE0) 2) ((< lead #xF0) 3) (t 4)))
      (:utf-16be (if (= #xD8 (logand #xFC lead)) 4 2))
      (:utf-16le (if (= #xD8 (logand #xFC (aref octets (1+ start)))) 4 2))
      (t (charset-unit charset)))))

(defun follows-p (charset octets index)
  "True if the unit at INDEX of OCTETS can be one behind the first of a character."
  (let ((octet (aref octets index)))
    (case (charset-name charset)
      ((:gbk :cp932) (and (<= #x40 octet #xFE) (/= octet #x7F)))
      (:eucjp (<= #xA1 octet #xFE))
      (:utf-16be (= #xDC (logand #xFC octet)))
      (:utf-16le (= #xDC (logand #xFC (aref octets (1+ index))))))))

(defun foreign-character (charset octets start end)
  "Values: the character that OCTETS have at START, which is before END, or NIL; how many octets it
is, or are none: NIL where those before END are too few to tell."
  (declare (type octets octets) (type index start end))
  (cond ((charset-characters charset)
         (values (svref (charset-characters charset) (aref octets start)) 1))
        ((eq (charset-name charset) :utf-8b) (utf-8b-character octets start end))
        ((<= (+ start (charset-unit charset)) end)
         (let* ((unit (charset-unit charset))
                (stop (+ start (lead-width charset octets start)))
                (wrong (loop for index from (+ start unit) to (- (min stop end) unit) by unit
                             unless (follows-p charset octets index)
                               return index)))
           (cond (wrong (values nil (- wrong start)))
                 ((<= stop end) (whole-character charset octets start stop)))))))

(defun character-of (charset octets start stop)
  "The character that the octets START to STOP are together, or NIL."
  (declare (type octets octets) (type index start stop))
  (flet ((ask ()
           (babel-character (charset-name charset) (subseq octets start stop))))
    (case (- stop start)
      (1 (remembered ((charset-found-characters charset) 0 (aref octets start))
           (ask)))
      (2 (remembered ((charset-found-characters charset)
                      (aref octets start) (aref octets (1+ start)))
           (ask)))
      (t (ask)))))

(defun whole-character (charset octets start stop)
  "As FOREIGN-CHARACTER, of the octets START to STOP, which can only belong together. Where they are
none, an octet of ASCII among them still is one."
  (let ((character (character-of charset octets start stop)))
    (values character
            (- (or (and (null character) (= 1 (charset-unit charset))
                        (position-if (lambda (octet) (< octet 128)) octets
                                     :start (1+ start) :end stop))
                   stop)
               start))))

(defun decode-foreign (charset octets start end string from to)
  "As DECODE, for CHARSET."
  (let ((position start) (index from))
    (loop while (and (< index to) (< position end))
          do (multiple-value-bind (character width)
                 (foreign-character charset octets position end)
               (unless character
                 (return))
               (setf (schar string index) character)
               (incf index)
               (incf position width)))
    (values (- position start) (- index from))))

;;; Encoding

(defun foreign-octets (charset character)
  "The octets of CHARACTER in CHARSET, or NIL."
  (cond ((charset-octets charset) (values (gethash character (charset-octets charset))))
        ((eq (charset-name charset) :utf-8b) (utf-8b-octets character))
        ((> (char-code character) #xFFFF) (checked-octets charset character))
        (t (multiple-value-bind (high low) (floor (char-code character) 256)
             (remembered ((charset-found-octets charset) high low)
               (checked-octets charset character))))))

(defun checked-octets (charset character)
  "What babel writes for CHARACTER in CHARSET if that reads back as the same, or NIL."
  (let ((octets (babel-octets (charset-name charset) character)))
    (and octets
         (eql character (babel-character (charset-name charset) octets))
         octets)))

(defun foreign-line-end (charset)
  "The octets of a carriage return and a line feed in CHARSET."
  (concatenate 'octets (foreign-octets charset #\Return) (charset-newline charset)))

(defun encode-foreign (charset string from to octets start end)
  "As ENCODE, for CHARSET."
  (let ((index from) (position start))
    (loop while (< index to)
          do (let ((spelled (foreign-octets charset (schar string index))))
               (when (or (null spelled) (> (+ position (length spelled)) end))
                 (return))
               (replace octets spelled :start1 position)
               (incf position (length spelled))
               (incf index)))
    (values (- index from) (- position start))))

;;; UTF-8B: UTF-8 in which each invalid octet is read as a character of its own

(defconstant +utf-8b-octets+ #xDC00 "The code of the character for an octet is so much higher.")

(defun utf-8b-octet (octet)
  "The character for OCTET, which is invalid in UTF-8."
  (code-char (+ +utf-8b-octets+ octet)))

(defun cut-off-character (charset octets start)
  "The character that the octet at START of OCTETS is by itself where nothing completes it, or NIL."
  (and (eq (charset-name charset) :utf-8b) (utf-8b-octet (aref octets start))))

(defun utf-8b-character (octets start end)
  (let ((string (make-string 1)))
    (multiple-value-bind (consumed produced) (decode *utf-8* octets start end string 0 1)
      (cond ((= produced 1) (values (char string 0) consumed))
            ((problem *utf-8* octets start end)
             (values (utf-8b-octet (aref octets start)) 1))))))

(defun utf-8b-octets (character)
  (let ((octet (- (char-code character) +utf-8b-octets+)))
    (if (<= 128 octet 255)
        (make-array 1 :element-type '(unsigned-byte 8) :initial-element octet)
        (encode-character *utf-8* character))))
