;;;; dns - a small client of the domain name system, RFC 1035: what UDP is for, and when TCP is.
;;;;
;;;;     (port-example/dns:lookup "www.example.org" :server "192.0.2.53")
;;;;     => ("192.0.2.80" "192.0.2.81")
;;;;
;;;; A question goes out in one datagram. It is asked again when no answer comes. An answer counts
;;;; if it has the number of the question and the question itself in it; what else arrives is passed
;;;; over, since anybody can send a datagram. An answer that was cut off is asked for over TCP.

(defpackage :port-example/dns
  (:documentation "A client of the domain name system.")
  (:use :common-lisp)
  (:export #:lookup #:print-addresses #:dns-error))

(in-package :port-example/dns)

(deftype octets () '(simple-array (unsigned-byte 8) (*)))

(define-condition dns-error (error)
  ((reason :initarg :reason :reader dns-error-reason)
   (name :initarg :name :reader dns-error-name))
  (:documentation "The server has answered, but not with what was asked for.")
  (:report (lambda (condition stream)
             (format stream "look-up of ~A failed: ~A" (dns-error-name condition)
                     (dns-error-reason condition)))))

(defvar *name* nil "The name that is being looked up, for conditions.")

(defun fail (control &rest arguments)
  (error 'dns-error :name *name* :reason (apply #'format nil control arguments)))

;;; Messages

(defparameter *types* '((:a . 1) (:txt . 16) (:aaaa . 28))
  "The types of records that can be asked for.")

(defconstant +internet+ 1 "The class of all of them.")
(defconstant +header-size+ 12)
(defconstant +recursion-desired+ #x0100)

(defun type-number (type)
  (or (cdr (assoc type *types*))
      (fail "expected a type among ~{~S~^ ~}, got ~S" (mapcar #'car *types*) type)))

(defun number-octets (number)
  "NUMBER in 2 octets."
  (list (ldb (byte 8 8) number) (ldb (byte 8 0) number)))

(defun number-at (message position)
  "The number in 2 octets at POSITION."
  (check-bounds message position 2)
  (+ (ash (aref message position) 8) (aref message (1+ position))))

(defun check-bounds (message position size)
  (unless (<= (+ position size) (length message))
    (fail "the answer ends too early")))

(defun labels-of (name)
  "The labels of NAME, a string, as lists of their octets, each after its length."
  (loop for label in (uiop:split-string (string-right-trim "." name) :separator ".")
        unless (<= 1 (length label) 63)
          do (fail "expected labels of 1 to 63 characters")
        append (cons (length label) (map 'list #'char-code label))))

(defun question (name type)
  "The question for records of TYPE of NAME, a list of octets."
  (unless (every (lambda (char) (< 32 (char-code char) 127)) name)
    (fail "expected a name of ASCII characters without blanks"))
  (append (labels-of name) (list 0) (number-octets (type-number type))
          (number-octets +internet+)))

(defun make-query (id question)
  "The message that asks QUESTION, with the number ID."
  (coerce (append (number-octets id) (number-octets +recursion-desired+)
                  (number-octets 1) (number-octets 0) (number-octets 0) (number-octets 0)
                  question)
          'octets))

(defun answer-p (message query)
  "True if MESSAGE is an answer to QUERY: its number, its question, whatever case its letters are
in."
  (let ((size (length query)))
    (flet ((same-p (start end)
             (every (lambda (a b) (char-equal (code-char a) (code-char b)))
                    (subseq message start end) (subseq query start end))))
      (and (>= (length message) size)
           (same-p 0 2)
           (logbitp 7 (aref message 2))
           (= 1 (number-at message 4))
           (same-p +header-size+ size)))))

(defun truncated-p (message)
  (logbitp 1 (aref message 2)))

;;; Answers

(defparameter *refusals*
  '((1 . "the server does not understand the question") (2 . "the server failed")
    (3 . "there is no such name") (4 . "the server does not know such questions")
    (5 . "the server refuses to answer"))
  "What the codes of a header say.")

(defun check-code (message)
  (let ((code (ldb (byte 4 0) (aref message 3))))
    (unless (zerop code)
      (fail "~A" (or (cdr (assoc code *refusals*)) (format nil "code ~D" code))))))

(defun skip-name (message position)
  "The position after the name at POSITION: labels up to an empty one, or to a pointer."
  (loop
    (check-bounds message position 1)
    (let ((length (aref message position)))
      (cond ((zerop length) (return (1+ position)))
            ((= #b11 (ldb (byte 2 6) length)) (return (+ position 2)))
            (t (incf position (1+ length)))))))

(defun address-text (octets size)
  "The text of the address that OCTETS, SIZE of them, are."
  (unless (= (length octets) size)
    (fail "an address of ~D octets" (length octets)))
  (princ-to-string (port:make-address octets)))

(defun text-text (octets)
  "The text in the OCTETS of a record of type TXT: strings, each after its length."
  (with-output-to-string (stream)
    (loop with position = 0
          while (< position (length octets))
          do (let ((end (+ position 1 (aref octets position))))
               (check-bounds octets position (- end position))
               (loop for index from (1+ position) below end
                     do (write-char (code-char (aref octets index)) stream))
               (setf position end)))))

(defun record-text (type octets)
  (ecase type
    (:a (address-text octets 4))
    (:aaaa (address-text octets 16))
    (:txt (text-text octets))))

(defun records (message query type)
  "The texts of the records of TYPE in MESSAGE, the answer to QUERY. Others, such as the names that
a name stands for, are passed over."
  (check-code message)
  (loop with position = (length query)
        repeat (number-at message 6)
        for start = (skip-name message position)
        for size = (progn (check-bounds message start 10)
                          (number-at message (+ start 8)))
        for end = (+ start 10 size)
        do (check-bounds message start (- end start))
           (setf position end)
        when (and (= (type-number type) (number-at message start))
                  (= +internet+ (number-at message (+ start 2))))
          collect (record-text type (subseq message (+ start 10) end))))

;;; Asking

(defparameter *attempt-seconds* 2 "How long a datagram is waited for before it is sent again.")
(defparameter *attempts* 3)

(defun receive-answer (socket query)
  "The next message on SOCKET that answers QUERY; NIL once the time is up, or when nobody is there."
  (let ((octets (make-array 65535 :element-type '(unsigned-byte 8))))
    (handler-case
        (port:with-deadline (*attempt-seconds*)
          (loop for count = (port:socket-receive socket octets)
                for message = (subseq octets 0 count)
                when (answer-p message query)
                  return message))
      ((or port:timeout port:connection-refused) () nil))))

(defun ask-over-udp (query server port)
  "The answer of SERVER to QUERY, or NIL if there is none after some attempts."
  (port:with-datagram-socket (socket :remote-host server :remote-port port)
    (loop repeat *attempts*
          do (handler-case (port:socket-send socket query)
               ;; what the other side said of an earlier attempt
               (port:connection-refused () nil))
          thereis (receive-answer socket query))))

(defun ask-over-tcp (query server port)
  "The answer of SERVER to QUERY over TCP, where each message follows its length."
  (port:with-open-socket (socket server port :bin t :timeout 10 :input-timeout 10)
    (write-sequence (number-octets (length query)) socket)
    (write-sequence query socket)
    (finish-output socket)
    (let ((message (read-octets socket (number-at (read-octets socket 2) 0))))
      (unless (answer-p message query)
        (fail "an answer to another question"))
      message)))

(defun read-octets (socket count)
  (let ((octets (make-array count :element-type '(unsigned-byte 8))))
    (check-bounds (subseq octets 0 (read-sequence octets socket)) 0 count)
    octets))

(defvar *ids* (make-random-state t))

(defun lookup (name &key (type :a) (server "127.0.0.1") (port 53))
  "Ask SERVER at PORT for the records of NAME of TYPE, :A, :AAAA or :TXT. Returns a list of their
texts, such as \"192.0.2.1\"; they are in no particular order.
Signals DNS-ERROR when the server says no or nonsense, and what PORT signals when it is not
reached."
  (let* ((*name* name)
         (query (make-query (random 65536 *ids*) (question name type)))
         (answer (or (ask-over-udp query server port)
                     (fail "~A port ~A does not answer" server port))))
    (records (if (truncated-p answer)
                 (ask-over-tcp query server port)
                 answer)
             query type)))

(defun print-addresses (name &rest options &key server port)
  "Print the addresses of NAME, one a line, those of IPv6 first. OPTIONS as for LOOKUP."
  (declare (ignore server port))
  (dolist (type '(:aaaa :a))
    (format t "~{~A~%~}" (apply #'lookup name :type type options))))
