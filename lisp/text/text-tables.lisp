;;;; text-tables - what babel's tables say of one character; where they are wrong, what they should
;;;; say.
;;;;
;;;; Babel's decoders say neither how many octets a character takes nor whether more octets would
;;;; help, some look beyond the end that they are given, and its encoders write other characters for
;;;; some that they do not have. So they are asked for one character at a time, whose octets are in
;;;; a vector of their own.

(in-package :port)

(defun babel-character (name octets)
  "The character that all of OCTETS are in encoding NAME, or NIL."
  (if (and (eq name :gbk) (= 2 (length octets)))
      (gbk-character octets)
      (table-character name octets)))

(defun table-character (name octets)
  "As BABEL-CHARACTER, as babel's own tables have it."
  (let ((text (handler-case (babel:octets-to-string octets :encoding name :errorp t)
                ((or babel-encodings:character-coding-error
                  type-error)           ; of its tables, where they have no entry
                  ()
                  nil))))
    (when (and text (= 1 (length text)) (not (nothing-p name octets (char-code (char text 0)))))
      (char text 0))))

(defun nothing-p (name octets code)
  "True if OCTETS, which babel reads as CODE in encoding NAME, stand for nothing there."
  (case name
    ((:utf-16le :utf-16be :ucs-2le :ucs-2be) nil)
    ((:utf-32le :utf-32be) (<= #xD800 code #xDFFF))
    (:ebcdic-international (= code #xFFFF))
    ;; What is for users to define babel reads as some of the others.
    (:gbk (and (= 2 (length octets))
               (<= #xA1 (aref octets 1))
               (or (<= #xAA (aref octets 0) #xAF) (<= #xF8 (aref octets 0)))))
    (t (= code #xFFFD))))

(defun babel-octets (name character)
  "What babel writes for CHARACTER in encoding NAME, or NIL."
  (case name
    (:gbk (gbk-octets character))
    (:eucjp (eucjp-octets character))
    (t (table-octets name character))))

(defun table-octets (name character)
  "As BABEL-OCTETS, as babel's own tables have it."
  (handler-case (babel:string-to-octets (string character) :encoding name :errorp t :use-bom nil)
    ((or babel-encodings:character-coding-error type-error) () nil)))

;;; GBK: the last five places of row D7 have no character. Babel's table leaves the places out, so
;;; that it has what is behind them, the 3008 characters up to the end of row F7, five places too
;;; early. The last 21 characters, from FD9C on, it has not: there it reads those of another part.

(defconstant +gbk-hole+ 89 "The first of the five places, counted from D7A1.")

(defparameter *gbk-last* (map 'string #'code-char
                              '(#xF92C #xF979 #xF995 #xF9E7 #xF9F1 #xFA0C #xFA0D #xFA0E #xFA0F
                                #xFA11 #xFA13 #xFA14 #xFA18 #xFA1F #xFA20 #xFA21 #xFA23 #xFA24
                                #xFA27 #xFA28 #xFA29))
  "The characters at FD9C to FDA0 and FE40 to FE4F.")

(defparameter *gbk-lacks* (if (eql (code-char #x5345)
                                   (table-character :gbk (coerce #(#xD8 #xA1) 'octets)))
                              5
                              0)
  "How many places babel's table leaves out; none, should it be mended one day.")

(defun gbk-place (octets)
  "Which place OCTETS, two, are, counted from D7A1; NIL where babel's table is right."
  (let ((high (aref octets 0)) (low (aref octets 1)))
    (when (and (<= #xD7 high #xF7) (<= #xA1 low))
      (+ (* 94 (- high #xD7)) (- low #xA1)))))

(defun gbk-pair (place)
  "The octets of PLACE."
  (multiple-value-bind (high low) (floor place 94)
    (coerce (list (+ #xD7 high) (+ #xA1 low)) 'octets)))

(defun gbk-last-place (octets)
  "Which of the places from FD9C on OCTETS, two, are; NIL for none."
  (let ((high (aref octets 0)) (low (aref octets 1)))
    (cond ((and (= high #xFD) (<= #x9C low #xA0)) (- low #x9C))
          ((and (= high #xFE) (<= #x40 low #xA0)) (+ 5 (- low #x40))))))

(defun gbk-last-pair (place)
  (coerce (if (< place 5) (list #xFD (+ #x9C place)) (list #xFE (+ #x40 (- place 5)))) 'octets))

(defun gbk-character (octets)
  "As BABEL-CHARACTER, of the two OCTETS."
  (let ((place (gbk-place octets)) (last-place (gbk-last-place octets)))
    (cond (last-place (when (< last-place (length *gbk-last*))
                        (char *gbk-last* last-place)))
          ((or (null place) (< place +gbk-hole+)) (table-character :gbk octets))
          ((>= place (+ +gbk-hole+ 5))
           (table-character :gbk (gbk-pair (- place *gbk-lacks*)))))))

(defun gbk-octets (character)
  "As BABEL-OCTETS, of CHARACTER."
  (let* ((last-place (position character *gbk-last*))
         (octets (if last-place (gbk-last-pair last-place) (table-octets :gbk character)))
         (place (and (= 2 (length octets)) (gbk-place octets))))
    (if (and place (>= place +gbk-hole+))
        (gbk-pair (+ place *gbk-lacks*))
        octets)))

;;; EUC-JP: babel reads the characters of three octets, and cannot write them.

(defvar *eucjp-long* nil
  "A table from those characters to their octets; NIL before it was asked for.")

(defun eucjp-octets (character)
  "As BABEL-OCTETS, of CHARACTER."
  (or (table-octets :eucjp character)
      (values (gethash character (or *eucjp-long*
                                     (setf *eucjp-long* (long-characters)))))))

(defun long-characters ()
  "A table from each character that has three octets in EUC-JP to these."
  (let ((table (make-hash-table)))
    (loop for high from #xA1 to #xFE
          do (loop for low from #xA1 to #xFE
                   for octets = (coerce (list #x8F high low) 'octets)
                   for character = (table-character :eucjp octets)
                   when character
                     do (setf (gethash character table) octets)))
    table))
