;;;; text - external formats: a codec, what ends a line, what replaces what cannot be converted.
;;;;
;;;; A codec is a row of two C functions: octets to UTF-32 and back. They convert runs, stop exactly
;;;; before what they cannot convert, and leave the rest to PROBLEM here.

(in-package :port)

(defstruct (text-format (:copier nil))
  (name :utf-8 :type (member :utf-8 :latin-1 :ascii) :read-only t)
  (eol :lf :type (member :lf :crlf) :read-only t)
  (replacement nil :type (or null character) :read-only t))

(defparameter *encodings*
  '((:utf-8 :utf-8 :utf8 :default)
    (:latin-1 :latin-1 :latin1 :iso-8859-1)
    (:ascii :ascii :us-ascii))
  "The encodings: each by its name and then everything it may be called.")

(defun encoding-named (designator)
  (or (first (find-if (lambda (row) (member designator (rest row))) *encodings*))
      (fail-as 'not-supported :external-format :not-supported
               :message "expected an external format among ~{~S~^ ~}, alone or in a list with ~
                         :EOL and :REPLACEMENT, got ~S"
               :arguments (list (mapcar #'first *encodings*) designator))))

(%defglobal *utf-8* (make-text-format))

(defun parse-external-format (designator)
  "The text format for DESIGNATOR: a keyword, a list (keyword &key eol replacement), or :DEFAULT."
  (if (member designator '(:utf-8 :default))
      *utf-8*
      (make-parsed-format designator)))

(defun make-parsed-format (designator)
  (destructuring-bind (name &key (eol :lf) replacement)
      (if (consp designator) designator (list designator))
    (unless (and (member eol '(:lf :crlf))
                 (typep replacement '(or null character (string 1))))
      (fail-as 'usage-error :external-format :invalid
               :message "expected :EOL :LF or :CRLF and :REPLACEMENT a character, got ~S"
               :arguments (list designator)))
    (make-text-format :name (encoding-named name)
                      :eol eol
                      :replacement (and replacement (character replacement)))))

(defun unparse-external-format (format)
  "The designator that gives FORMAT: a keyword where everything else is as usual."
  (let ((options (append (unless (eq (text-format-eol format) :lf)
                           (list :eol (text-format-eol format)))
                         (when (text-format-replacement format)
                           (list :replacement (text-format-replacement format))))))
    (if options
        (cons (text-format-name format) options)
        (text-format-name format))))

(deftype characters () '(simple-array character (*)))

(defmacro unpack-progress (call)
  "The two counts, consumed and produced, that CALL of a codec function of C returns as one."
  (let ((progress (gensym "PROGRESS")))
    `(let ((,progress ,call))
       (declare (type (unsigned-byte 62) ,progress))
       (values (ash ,progress -31) (ldb (byte 31 0) ,progress)))))

(defun decode (format octets start end string from to)
  "Convert octets START to END of OCTETS into STRING from FROM up to TO.
Values: octets consumed, characters produced. It stops at either end or before what is no
character."
  (declare (type octets octets) (type characters string) (type fixnum start end from to))
  (with-octets (source octets start)
    (with-characters (target string from)
      (ecase (text-format-name format)
        (:utf-8 (unpack-progress
                 (lport-text-from-utf8 source (- end start) target (- to from))))
        (:latin-1 (unpack-progress
                   (lport-text-from-latin1 source (- end start) target (- to from))))
        (:ascii (unpack-progress
                 (lport-text-from-ascii source (- end start) target (- to from))))))))

(defun encode (format string from to octets start end)
  "Convert the characters FROM to TO of STRING into OCTETS from START up to END.
Values: characters consumed, octets produced. It stops at either end or before what has no octets."
  (declare (type octets octets) (type characters string) (type fixnum start end from to))
  (with-characters (source string from)
    (with-octets (target octets start)
      (ecase (text-format-name format)
        (:utf-8 (unpack-progress
                 (lport-text-to-utf8 source (- to from) target (- end start))))
        (:latin-1 (unpack-progress
                   (lport-text-to-latin1 source (- to from) target (- end start))))
        (:ascii (unpack-progress
                 (lport-text-to-ascii source (- to from) target (- end start))))))))

(defun problem (format octets start end)
  "What is the matter at START of OCTETS, where DECODE stopped before END: NIL, more octets may
complete a character; else the number of octets that are none."
  (declare (type octets octets) (type fixnum start end))
  (if (eq (text-format-name format) :utf-8)
      (let ((count (with-octets (source octets start)
                     (lport-text-utf8-problem source (- end start)))))
        (if (plusp count) count nil))
      1))

(defun character-for (format octets channel position)
  "The character that stands for OCTETS, which are none in FORMAT: the format's replacement, or what
the restart REPLACE-CHARACTER of the DECODING-ERROR says."
  (or (text-format-replacement format)
      (restart-case (fail-as 'decoding-error :read :invalid-octets
                             :socket (channel-socket channel) :text-octets octets
                             :position position
                             :message "expected ~A, got octets~{ ~2,'0X~}"
                             :arguments (list (text-format-name format) (coerce octets 'list)))
        (replace-character (&optional (character (code-char #xFFFD)))
          :report "Read another character in place of the octets."
          :interactive read-a-character
          character))))

(defun octets-for (format character channel)
  "The octets that stand for CHARACTER, which has none in FORMAT: those of the format's replacement,
or of what the restart REPLACE-CHARACTER of the ENCODING-ERROR says."
  (let ((string (make-string 1 :initial-element
                             (or (text-format-replacement format)
                                 (ask-for-encodable format character channel))))
        (octets (make-array 4 :element-type '(unsigned-byte 8))))
    (multiple-value-bind (consumed produced) (encode format string 0 1 octets 0 4)
      (if (= consumed 1)
          (subseq octets 0 produced)
          (octets-for (make-text-format :name (text-format-name format))
                      (char string 0) channel)))))

(defun ask-for-encodable (format character channel)
  (restart-case (fail-as 'encoding-error :write :no-octets
                         :socket (channel-socket channel) :character character
                         :message "~A has no octets for ~S"
                         :arguments (list (text-format-name format) character))
    (replace-character (&optional (replacement #\?))
      :report "Write another character in its place."
      :interactive read-a-character
      replacement)))

(defun read-a-character ()
  (format *query-io* "A character: ")
  (list (char (read-line *query-io*) 0)))
