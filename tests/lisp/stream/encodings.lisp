;;;; encodings - text in the encodings that babel knows: each there and back, and octets that are
;;;; none.

(in-package :port/test)

(define-suite encodings "The encodings of babel.")

(defun some-characters ()
  "A string with all of the first 1024 characters, and some of all the others."
  (coerce (append (loop for code below 1024 collect (code-char code))
                  (loop for code from 1024 below #x10000 by 61 collect (code-char code))
                  (loop for code from #x10000 below char-code-limit by 9973
                        collect (code-char code)))
          'string))

(defun read-text (socket count)
  (let ((text (make-string count)))
    (subseq text 0 (read-sequence text socket))))

(define-test encodings.there-and-back (:limit 60 :weather nil)
  "What can be written reads as it was, whatever babel's tables say; all else is an error. It is too
much for octets that come one by one, of which other tests have some."
  (dolist (name (babel:list-character-encodings))
    (with-pair (a b)
      (setf (stream-external-format a) name
            (stream-external-format b) name)
      ;; Each is written once: REMOVE-IF may ask twice.
      (let ((text (coerce (loop for character across (some-characters)
                                unless (failure-of (write-char character a))
                                  collect character)
                          'string)))
        (is (<= 96 (length text)) "~S writes ~D characters" name (length text))
        (finish-output a)
        (is (string= text (read-text b (length text))) "~S reads other characters" name)
        (is (= 0 (buffered-octets b)))))))

(define-test encodings.each-character-is-looked-up-once (:limit 10 :weather nil)
  "Of some encodings babel searches a table from its beginning: a tenth of a millisecond each time."
  (with-pair (a b)
    (setf (stream-external-format a) :gbk
          (stream-external-format b) :gbk)
    (let* ((text (make-string 300000 :initial-element #\LATIN_SMALL_LETTER_E_WITH_ACUTE))
           (writer (in-thread (lambda () (write-string text a) (finish-output a))))
           (copy (make-string (length text))))
      (is (= (length text) (read-sequence copy b)))
      (is (string= text copy))
      (join writer))))

(define-test encodings.each-octet (:weather nil)
  "Where an octet is a character, what it reads as is written as an octet that reads the same."
  (dolist (name '(:cp437 :cp1251 :cp1252 :koi8-r :koi8-u :koi8-ru :ebcdic-us :iso-8859-3
                  :iso-8859-10 :iso-8859-15))
    (with-pair (a b)
      (setf (stream-external-format a) (list name :replacement (code-char 0))
            (stream-external-format b) name)
      (dotimes (octet 256)
        (write-byte octet b))
      (finish-output b)
      (let ((text (read-text a 256)))
        (write-string text b)
        (finish-output b)
        (is (string= text (read-text a 256)))))))

(define-test encodings.known-octets ()
  (loop for (format text . octets) in '((:gbk "中文a" #xD6 #xD0 #xCE #xC4 97)
                                        (:gbk "座亍亟齄" #xD7 #xF9 #xD8 #xA1 #xD8 #xBD #xF7 #xFE)
                                        (:gbk "丂龥…﨎﨩" #x81 #x40 #xFD #x9B #xA1 #xAD
                                         #xFE #x42 #xFE #x4F)
                                        (:eucjp "日a" #xC6 #xFC 97)
                                        (:eucjp "é丂" #x8F #xAB #xB1 #x8F #xB0 #xA1)
                                        (:cp932 "日a" #x93 #xFA 97)
                                        (:cp437 "éa" #x82 97)
                                        (:cp1252 "€a" #x80 97)
                                        (:koi8-r "Жa" #xF6 97)
                                        (:utf-16le "𝄞a" #x34 #xD8 #x1E #xDD 97 0)
                                        (:ucs-4 "a" 0 0 0 97)
                                        (:utf-8b "𝄞a" #xF0 #x9D #x84 #x9E 97)
                                        (:ebcdic-us "a" #x81))
        do (with-pair (a b)
             (setf (stream-external-format a) format
                   (stream-external-format b) format)
             (write-string text a)
             (finish-output a)
             (is (equalp (apply #'octets octets)
                         (let ((room (blank (length octets))))
                           (read-sequence room b)
                           room)))
             (write-octets a (apply #'octets octets))
             (finish-output a)
             (is (string= text (read-text b (length text)))))))

(define-test encodings.lines-are-as-long-as-their-characters (:behaviour 44)
  "Also where a line is in the buffer as a whole, and its octets do not tell."
  (loop for (format text) in '((:utf-8b "é𝄞") (:eucjp "日a本") (:gbk "中文") (:cp932 "日") (:cp1252 "€"))
        do (with-pair (a b)
             (setf (stream-external-format a) format
                   (stream-external-format b) format)
             (dotimes (line 3)
               (write-line text a))
             (finish-output a)
             (dotimes (line 3)
               (is (string= text (read-line b)) "~S" format)))))

(define-test encodings.crlf (:behaviour 44)
  "In every encoding a line's end is both characters, written at once and read as one."
  (dolist (name (babel:list-character-encodings))
    (with-pair (a b)
      (setf (stream-external-format a) (list name :eol :crlf)
            (stream-external-format b) (list name :eol :crlf))
      (destructuring-bind (name . options) (stream-external-format a)
        (is (equal '(:eol :crlf) options))
        (format a "a~%b~%~%")
        (finish-output a)
        (is (string= "a" (read-line b)) "~S" name)
        (is (string= (format nil "b~%") (read-text b 2)) "~S" name)
        (is (char= #\Newline (read-char b)) "~S" name)
        (unread-char #\Newline b)
        (let ((line-end (babel:string-to-octets (coerce '(#\Return #\Newline) 'string)
                                                :encoding name :use-bom nil)))
          (is (equalp line-end (let ((room (blank (length line-end))))
                                 (read-octets b room)
                                 room))
              "~S" name))))))

(define-test encodings.crlf-in-pieces (:behaviour 44)
  "An octet at a time, and with carriage returns that begin no line's end."
  (let* ((crlf (coerce '(#\Return #\Newline) 'string))
         (text (format nil "a~A~C~Ab~Cc~C" crlf #\Return crlf #\Return #\Return)))
    (dolist (name '(:utf-16le :utf-16be :utf-32le :utf-32be :ucs-2le :ebcdic-us :gbk))
      (with-pair (a b)
        (setf (stream-external-format b) (list name :eol :crlf))
        (let ((octets (babel:string-to-octets text :encoding name :use-bom nil)) (got '()))
          (loop for octet across octets
                do (send-octets a octet)
                   (loop for character = (read-char-no-hang b)
                         while character
                         do (push character got)))
          (close a)
          (is (equal (coerce (format nil "a~%~C~%b~Cc~C" #\Return #\Return #\Return) 'list)
                     (append (reverse got) (coerce (everything-as-text b) 'list)))
              "~S" name))))))

(define-test encodings.crlf-that-times-out (:behaviour 11)
  "A line, or a string, that is cut off within its end is there for the next call, as it came."
  (dolist (name '(:utf-16le :utf-32be :ebcdic-us))
    (dolist (read (list #'read-line (lambda (socket) (read-text socket 3))))
      (with-pair (a b)
        (setf (stream-external-format b) (list name :eol :crlf)
              (socket-timeout b :input) 0.05)
        (flet ((octets-of (text)
                 (babel:string-to-octets text :encoding name :use-bom nil)))
          (let ((end (octets-of (coerce '(#\Return #\Newline) 'string))))
            (write-octets a (octets-of "ab"))
            (write-octets a end :end (1- (length end)))
            (finish-output a)
            (is (typep (failure-of (funcall read b)) 'timeout) "~S" name)
            (setf (socket-timeout b :input) 5)
            (write-octets a end :start (1- (length end)))
            (finish-output a)
            (is (member (funcall read b) (list "ab" (format nil "ab~%")) :test #'equal)
                "~S" name)))))))

(define-test encodings.byte-order-marks ()
  "They are characters as others are, and without an order in its name an encoding is big-endian."
  (with-pair (a b)
    (setf (stream-external-format a) :utf-16)
    (is (eq :utf-16be (stream-external-format a)))
    (write-octets b (octets #xFE #xFF 0 97))
    (finish-output b)
    (is (equal (list (code-char #xFEFF) #\a) (list (read-char a) (read-char a))))
    (write-string "a" a)
    (close a)
    (is (equalp (octets 0 97) (everything b)))))

(defparameter *wrong-octets*
  '((:ascii "a??b" 97 #xC3 #xA9 98)
    (:cp1252 "a?bc" 97 #x81 98 99)
    (:gbk "a?b?中c" 97 #x80 98 #xFF #xD6 #xD0 99)
    (:gbk "? a?中" #xD6 #x20 97 #xFE #xFE #xD6 #xD0)
    (:gbk "??a" #x81 #xFF 97)
    (:eucjp "?a?日" #x8F #xA1 97 #x80 #xC6 #xFC)
    (:eucjp "?日" #x8F #xA1 #xA1 #xC6 #xFC)
    (:cp932 "? a?A日" #x81 #x20 97 #xEB #x41 #x93 #xFA)
    (:utf-16le "?ab" 0 #xDC 97 0 98 0)
    (:utf-16le "?a" 0 #xD8 97 0)
    (:utf-16be "a?b" 0 97 #xD8 0 0 98)
    (:utf-16be "??b" #xD8 0 #xD8 0 0 98)
    (:utf-32le "a?b" 97 0 0 0 0 0 17 0 98 0 0 0)
    (:utf-32be "?b" 0 0 #xD8 0 0 0 0 98)
    (:iso-8859-8 "a?b" 97 #xFF 98))
  "Lists of a format, the text and its octets, where ? stands for what is none.")

(defun line-in-pieces (socket)
  (coerce (loop for character = (read-char socket)
                until (char= character #\Newline)
                collect character)
          'string))

(define-test encodings.wrong-octets (:behaviour 43)
  "Each is replaced, and nothing beside it, in every way to read."
  (loop for (format text . wrong) in *wrong-octets*
        do (dolist (read (list #'read-line #'line-in-pieces
                               (lambda (socket)
                                 (prog1 (read-text socket (length text)) (read-char socket)))))
             (with-pair (a b)
               (setf (stream-external-format a) format
                     (stream-external-format b) (list format :replacement #\?))
               (write-octets a (apply #'octets wrong))
               (terpri a)
               (finish-output a)
               (is (string= text (funcall read b)) "~S" format)
               (is (= 0 (buffered-octets b)))))))

(define-test encodings.wrong-octets-are-told (:behaviour 43)
  (loop for (format octets . rest) in '((:cp1252 (#x81) 98 99 10)
                                        (:gbk (#xD6) 32 97)
                                        (:gbk (#xFE #xFE) 32)
                                        (:gbk (#xD7 #xFA) 97)
                                        (:gbk (#xFE) #x50)
                                        (:ebcdic-international (#x41) #x81)
                                        (:utf-16le (0 #xDC) 97 0)
                                        (:utf-32be (0 17 0 0) 0 0 0 98))
        do (with-pair (a b)
             (setf (stream-external-format b) format)
             (write-octets a (apply #'octets (append octets rest)))
             (finish-output a)
             (is (equalp (apply #'octets octets)
                         (text-error-octets (is-failure (decoding-error :invalid-octets)
                                              (read-char b))))))))

(define-test encodings.nothing-is-waited-for (:behaviour 43)
  "An octet that can never be one is told without a look at what may follow it; what can be one
waits."
  (loop for (format waiting . wrong) in '((:cp1252 () #x81)
                                          (:gbk (#xD6) #x80)
                                          (:eucjp (#x8F #xA1) #x8F 32)
                                          (:cp932 (#x81) #xFD)
                                          (:utf-16be (#xD8 0) #xDC 0)
                                          (:utf-32le (0 #xD8 0) 0 #xD8 0 0)
                                          (:utf-8b (#xE2 #x82) #xFF))
        do (with-pair (a b)
             (setf (stream-external-format b) (list format :replacement #\?)
                   (socket-timeout b :input) 5)
             (write-octets a (apply #'octets wrong))
             (finish-output a)
             (is (char= (if (eq format :utf-8b) (code-char #xDCFF) #\?) (read-char b)))
             (when waiting
               (in-fair-weather () (clear-input b))
               (write-octets a (apply #'octets waiting))
               (finish-output a)
               (wait-for-stream b)
               (is (null (read-char-no-hang b)))))))

(defun everything-as-text (socket)
  (coerce (loop for character = (read-char socket nil)
                while character
                collect character)
          'string))

(define-test encodings.utf-8b-of-each-octet ()
  "Each octet that is no character comes back as it came."
  (with-pair (a b)
    (setf (stream-external-format a) :utf-8b
          (stream-external-format b) :utf-8b)
    (loop for octet from 128 to 255
          do (write-octets a (octets octet 97))
             (finish-output a)
             (let ((character (read-char b)))
               (is (= (+ #xDC00 octet) (char-code character)))
               (is (char= #\a (read-char b)))
               (write-char character b)
               (finish-output b)
               (is (= octet (read-byte a)))))))

(define-test encodings.utf-8b-loses-nothing (:behaviour 43)
  "What the end of the file or of a line cuts off stands for itself too, in every way to read."
  (loop for (wrong . end) in '(((#xE2 #x82)) ((#xF0 #x9F #x98)) ((#xE2 #x82) 10) ((97 #xC3) 10))
        do (dolist (format '(:utf-8b (:utf-8b :replacement #\?)))
             (dolist (read (list #'read-line #'everything-as-text))
               (with-pair (a b)
                 (setf (stream-external-format b) format)
                 (write-octets a (apply #'octets (append wrong end)))
                 (close a)
                 (is (equal (loop for octet in wrong
                                  collect (if (< octet 128) octet (+ #xDC00 octet)))
                            (map 'list #'char-code
                                 (remove #\Newline (values (funcall read b)))))
                     "~S ~S" format wrong))))))
