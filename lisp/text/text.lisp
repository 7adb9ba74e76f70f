;;;; text - external formats: a codec, what ends a line and how long one may be, what replaces what
;;;; cannot be converted.
;;;;
;;;; The codecs of UTF-8, Latin-1 and ASCII are the library's: octets to UTF-32 and back. They
;;;; convert runs, stop exactly before what they cannot convert, and leave the rest to PROBLEM here.
;;;; Every other encoding that babel knows goes through it, slowly, by the same rules, see
;;;; text-babel.lisp.

(in-package :port)

(eval-when (:compile-toplevel :load-toplevel :execute)
  (defconstant +largest-index+ (ash most-positive-fixnum -1)
    "The sum of two indices is a fixnum."))

(deftype index () `(integer 0 ,+largest-index+))

(defconstant +no-line-limit+ +largest-index+ "The longest line there can be.")

(%defglobal *line-end* (coerce #(13 10) 'octets))

(defstruct (text-format (:copier nil))
  (name :utf-8 :type keyword :read-only t)
  (codec :utf-8 :type (member :utf-8 :latin-1 :ascii :babel) :read-only t)
  (charset nil :read-only t)            ; of a codec of babel, see text-babel.lisp
  (ascii-p t :read-only t)              ; octets below 128 are ASCII, and a line feed is octet 10
  (eol :lf :type (member :lf :crlf) :read-only t)
  (line-end *line-end* :type octets :read-only t) ; of :CRLF: both characters
  (line-limit +no-line-limit+ :type index :read-only t) ; octets of a line that is read
  (replacement nil :type (or null character) :read-only t))

(defparameter *encodings*
  '((:utf-8 :utf-8 :utf8 :default)
    (:latin-1 :latin-1 :latin1 :iso-8859-1)
    (:ascii :ascii :us-ascii)
    ;; without an order of octets: big-endian, RFC 2781
    (:utf-16be :utf-16) (:utf-32be :utf-32 :ucs-4) (:ucs-2be :ucs-2))
  "The encodings that have other names here than for babel: each by its name and then everything it
may be called.")

(defparameter *format-keywords* '(:eol :line-limit :replacement)
  "What a list may say beside the encoding.")

(defparameter *format-words* "alone or in a list with :EOL, :LINE-LIMIT and :REPLACEMENT"
  "How an encoding may stand in an external format, for reports.")

(defun babel-name (designator)
  "Babel's own name for the encoding DESIGNATOR, which may be one of its aliases; NIL for none."
  (let ((aliases (lambda (name)
                   (babel-encodings:enc-aliases (babel-encodings:get-character-encoding name)))))
    (find-if (lambda (name) (or (eq name designator) (member designator (funcall aliases name))))
             (babel:list-character-encodings))))

(defun encoding-named (designator)
  "Values: the name of the encoding that DESIGNATOR names; its codec."
  (let ((own (first (find-if (lambda (row) (member designator (rest row))) *encodings*))))
    (cond ((member own '(:utf-8 :latin-1 :ascii)) (values own own))
          (own (values own :babel))
          ((babel-name designator) (values (babel-name designator) :babel))
          (t (fail-as 'not-supported :external-format :not-supported
                      :message "expected an external format among ~{~S~^ ~} and those of babel, ~
                                ~A, got ~S"
                      :arguments (list (mapcar #'first *encodings*) *format-words*
                                       designator))))))

(defun ascii-encoding-p (name)
  "True if the encoding NAME of babel has ASCII in its lower half."
  (equalp #(97 10) (babel:string-to-octets (coerce '(#\a #\Newline) 'string) :encoding name)))

(%defglobal *utf-8* (make-text-format))

(declaim (inline foreign-p))
(defun foreign-p (format)
  "True if FORMAT is one of babel's. The one that is mostly used is not looked into."
  (declare (type text-format format))
  (and (not (eq format (%global *utf-8*)))
       (eq (text-format-codec format) :babel)))

(defun parse-external-format (designator)
  "The text format for DESIGNATOR: a keyword, a list of one and *FORMAT-KEYWORDS* with values, or
:DEFAULT."
  (if (member designator '(:utf-8 :default))
      *utf-8*
      (apply #'make-parsed-format designator
             (if (consp designator) (check-format-list designator) (list designator)))))

(defun check-format-list (designator)
  "DESIGNATOR, if it is an encoding with keywords that there are and their values."
  (check-argument :external-format designator '(cons t property-list)
                  (format nil "an encoding, ~A and their values" *format-words*))
  (check-keywords :external-format (rest designator) *format-keywords*)
  designator)

(defun make-parsed-format (designator name &key (eol :lf) line-limit replacement)
  "The text format for the parts of DESIGNATOR."
  (multiple-value-bind (name codec) (encoding-named name)
    (unless (and (member eol '(:lf :crlf))
                 (typep line-limit '(or null (and index (integer 1))))
                 (typep replacement '(or null character (string 1))))
      (fail-as 'usage-error :external-format :invalid
               :message "expected :EOL :LF or :CRLF, :LINE-LIMIT a number of octets above 0 and ~
                         :REPLACEMENT a character, got ~S"
               :arguments (list designator)))
    (let ((charset (and (eq codec :babel) (charset-named name))))
      (make-text-format :name name :codec codec :charset charset
                        :ascii-p (or (null charset) (ascii-encoding-p name))
                        :eol eol
                        :line-end (if (and charset (eq eol :crlf))
                                      (foreign-line-end charset)
                                      *line-end*)
                        :line-limit (or line-limit +no-line-limit+)
                        :replacement (and replacement (character replacement))))))

(declaim (inline return-width))
(defun return-width (format)
  "How many octets of the line's end of FORMAT, of :CRLF, are the carriage return: half of them, as
both characters are one code unit in every encoding."
  (ash (length (text-format-line-end format)) -1))

(defun unparse-external-format (format)
  "The designator that gives FORMAT: a keyword where everything else is as usual."
  (let ((options (append (unless (eq (text-format-eol format) :lf)
                           (list :eol (text-format-eol format)))
                         (unless (= (text-format-line-limit format) +no-line-limit+)
                           (list :line-limit (text-format-line-limit format)))
                         (when (text-format-replacement format)
                           (list :replacement (text-format-replacement format))))))
    (if options
        (cons (text-format-name format) options)
        (text-format-name format))))

(defconstant +longest-character+ 8 "Octets that hold any character in any encoding.")

(deftype characters () '(simple-array character (*)))

(deftype base-characters () 'simple-base-string)

(declaim (inline unpack-progress pack-progress))
(defun unpack-progress (progress)
  "Values: the two counts in PROGRESS, consumed and produced, which a codec function of C returns as
one integer."
  (declare (type (unsigned-byte 62) progress))
  (values (ash progress -31) (ldb (byte 31 0) progress)))

(defun pack-progress (consumed produced)
  "The two counts as UNPACK-PROGRESS takes them."
  (declare (type (unsigned-byte 31) consumed produced))
  (logior (ash consumed 31) produced))

;; Where each line counts they are asked for inline.
(declaim (inline decode encode))

(defun decode (format octets start end string from to)
  "Convert octets START to END of OCTETS into STRING from FROM up to TO.
Values: octets consumed, characters produced. It stops at either end or before what is no
character."
  (declare (type octets octets) (type characters string) (type fixnum start end from to))
  (macrolet ((by (function)
               `(let ((end (%piece-end start end (* 4 (- to from))))) ; of four octets each, at most
                  (with-octets (source octets start end :in)
                    (with-characters (target string from to :out)
                      (unpack-progress (,function source (- end start) target (- to from))))))))
    (ecase (text-format-codec format)
      (:utf-8 (by lport-text-from-utf8))
      (:latin-1 (by lport-text-from-latin1))
      (:ascii (by lport-text-from-ascii))
      (:babel (decode-foreign (text-format-charset format) octets start end string from to)))))

(defun encode (format string from to octets start end)
  "Convert the characters FROM to TO of STRING into OCTETS from START up to END.
Values: characters consumed, octets produced. It stops at either end or before what has no octets."
  (declare (type octets octets) (type characters string) (type fixnum start end from to))
  (macrolet ((by (function)
               `(let ((to (%piece-end from to (- end start)))) ; of an octet each, at least
                  (with-characters (source string from to :in)
                    (with-octets (target octets start end :out)
                      (unpack-progress (,function source (- to from) target (- end start))))))))
    (ecase (text-format-codec format)
      (:utf-8 (by lport-text-to-utf8))
      (:latin-1 (by lport-text-to-latin1))
      (:ascii (by lport-text-to-ascii))
      (:babel (encode-foreign (text-format-charset format) string from to octets start end)))))

(declaim (notinline decode encode))

(defun problem (format octets start end)
  "What is the matter at START of OCTETS, where DECODE stopped before END: NIL, more octets may
complete a character; else how many octets are invalid, as they begin no character."
  (declare (type octets octets) (type fixnum start end))
  (ecase (text-format-codec format)
    (:utf-8 (let ((count (with-octets (source octets start end :in)
                           (lport-text-utf8-problem source (- end start)))))
              (if (plusp count) count nil)))
    ((:latin-1 :ascii) 1)
    (:babel (nth-value 1 (foreign-character (text-format-charset format) octets start end)))))

(defun wrong-or-cut-off (format octets start end)
  "What is at START of OCTETS, where DECODE stopped, if nothing more comes after END. Values: NIL
where octets are invalid, or cut off; a character where the encoding gives an invalid octet one,
UTF-8B; how many octets that is."
  (declare (type octets octets) (type fixnum start end))
  (let* ((wrong (problem format octets start end))
         (charset (text-format-charset format))
         (character (and charset (not wrong) (cut-off-character charset octets start))))
    (values character (cond (wrong) (character 1) (t (- end start))))))

;;; What cannot be converted

(defun character-for (format octets channel position)
  "The character to read for OCTETS, which are invalid in FORMAT: the format's replacement, or what
the restart REPLACE-CHARACTER of the DECODING-ERROR says."
  (or (text-format-replacement format)
      (signalling (failure 'decoding-error :read :invalid-octets
                           :socket (channel-socket channel) :text-octets octets
                           :position position
                           :message "expected ~A, got octets~{ ~2,'0X~}"
                           :arguments (list (text-format-name format) (coerce octets 'list)))
        (replace-character (&optional (character (code-char #xFFFD)))
          :report "Read another character in place of the octets."
          :interactive read-a-character
          (check-replacement :read character)))))

(defun encode-character (format character)
  "The octets of CHARACTER in FORMAT; NIL if it has none."
  (let ((string (make-string 1 :initial-element character))
        (octets (octets-of-size +longest-character+)))
    (multiple-value-bind (consumed produced)
        (encode format string 0 1 octets 0 +longest-character+)
      (and (= consumed 1) (subseq octets 0 produced)))))

(defun read-a-character (&optional (fits-p (constantly t)))
  "Ask for a line with one character on it, for which FITS-P is true: a list of that; NIL for an
empty line, which means the usual one."
  (loop
    (ask "A character (nothing: the usual one): ")
    (let ((line (read-line *query-io*)))
      (when (and (<= (length line) 1) (every fits-p line))
        (return (coerce line 'list))))))

(defun check-replacement (operation character)
  (check-argument operation character 'character "a character for REPLACE-CHARACTER"))
