;;;; address - address objects, the library's blocks of them, and their texts.
;;;;
;;;; Nothing here asks the network: literals are parsed and printed by the library. Invariant: an
;;;; address object never changes, so EQUALP compares two.

(in-package :port)

(declaim (inline octets-of-size))
(defun octets-of-size (size)
  (make-array size :element-type '(unsigned-byte 8) :initial-element 0))

(defstruct (address (:constructor %make-address (family octets &optional (scope 0)))
                    (:copier nil))
  "The address of a host, or the name of a local socket; it prints as its text, and EQUALP compares
two. Made by PARSE-ADDRESS, MAKE-ADDRESS and RESOLVE, taken wherever a host is."
  (family :inet :type (member :inet :inet6 :local) :read-only t)
  (octets (octets-of-size 0) :type octets :read-only t)
  (scope 0 :type (unsigned-byte 32) :read-only t))

(document-functions
 '((address-p "Return true if OBJECT is an address object.")
   (address-family "Return the family of ADDRESS: :INET, :INET6 or :LOCAL.")
   (address-octets "Return the octets of ADDRESS: 4 for :INET, 16 for :INET6, the name for :LOCAL
\(an abstract one begins with 0). The vector is ADDRESS's own and must not be changed.")
   (address-scope "Return the scope of ADDRESS, an IPv6 address of link-local scope: the index of
the interface (RFC 4007); 0 for none.")))

;;; Blocks: addresses with a port as the library takes them, see libport.h. What stands where in one
;;; is said here and nowhere else.

(defconstant +block-octets+ 8 "Where the octets of the address begin in a block.")

(defparameter *families* `((:inet . ,+lport-inet+) (:inet6 . ,+lport-inet6+)
                           (:local . ,+lport-local+))
  "The families, each with the library's number.")

(defun family-number (family)
  "The library's number for FAMILY, a keyword."
  (the (unsigned-byte 8) (cdr (assoc family *families*))))

(defun number-family (number)
  "The family that has NUMBER in the library, a keyword, or NIL."
  (car (rassoc number *families*)))

(declaim (inline put-number get-number)) ; a connect and an accept make several blocks
(defun put-number (number vector start size)
  "Put NUMBER into SIZE octets of VECTOR from START on, the most significant first."
  (declare (type octets vector) (type (mod 64) start size))
  (dotimes (index size vector)
    (setf (aref vector (+ start index)) (ldb (byte 8 (* 8 (- size index 1))) number))))

(defun get-number (vector start size)
  "The number in SIZE octets, at most 4, of VECTOR from START on, the most significant first."
  (declare (type octets vector) (type (mod 64) start) (type (integer 0 4) size))
  (let ((number 0))
    (declare (type (unsigned-byte 32) number))
    (dotimes (index size number)
      (setf number (logior (ash number 8) (aref vector (+ start index)))))))

(defun make-block (&optional (family-number +lport-any+) (port 0))
  "A fresh block of the wildcard of the family with FAMILY-NUMBER, with PORT; a local name that is
none."
  (declare (type (unsigned-byte 8) family-number) (type (unsigned-byte 16) port))
  (let ((block (octets-of-size +lport-address-size+)))
    (setf (aref block 0) family-number)
    (put-number port block 2 2)))

(defmacro block-from ((pointer) &body call)
  "Values: a fresh block, into which CALL, a call of the library, has written at POINTER; what that
returned."
  (let ((block (gensym "BLOCK")))
    `(let ((,block (make-block)))
       (values ,block (with-octets (,pointer ,block) ,@call)))))

(defun address-block (address port)
  "A fresh block of ADDRESS and PORT, an integer."
  (declare (type address address))
  (let ((block (make-block (family-number (address-family address)) port))
        (octets (address-octets address)))
    (when (eq (address-family address) :local)
      (setf (aref block 1) (length octets)))
    (put-number (address-scope address) block 4 4)
    (%copy-octets block +block-octets+ octets 0 (length octets))
    block))

(defun block-family (block)
  "The family in BLOCK, a keyword; NIL for none, and for the wildcard of all."
  (declare (type octets block))
  (number-family (aref block 0)))

(defun block-port (block)
  "The port in BLOCK."
  (get-number block 2 2))

(defun block-scope (block)
  "The index of the interface that the address in BLOCK is of, or 0."
  (get-number block 4 4))

(defun block-size (block &optional (family (block-family block)))
  "How many octets the address in BLOCK, which is of FAMILY, has."
  (declare (type octets block))
  (ecase family
    (:inet 4)
    (:inet6 16)
    (:local (aref block 1))))

(defun wildcard-p (block)
  "True if BLOCK is of no address in particular."
  (declare (type octets block))
  (loop for index from +block-octets+ below (length block)
        always (zerop (aref block index))))

(defun bound-p (block)
  "True if BLOCK is an end that was bound: it has a port, or is a local name."
  (plusp (if (eq :local (block-family block)) (block-size block) (block-port block))))

(defun literal-block-address (block)
  "The address in BLOCK as it stands there; NIL for one of no family."
  (declare (type octets block))
  (let ((family (block-family block)))
    (when family
      (let* ((size (block-size block family)) (octets (octets-of-size size)))
        (%copy-octets octets 0 block +block-octets+ (+ +block-octets+ size))
        (%make-address family octets (block-scope block))))))

(defun unmapped (address)
  "ADDRESS, or the IPv4 address that it maps (RFC 4291 2.5.5.2)."
  (let ((octets (and address (address-octets address))))
    (if (and address
             (eq (address-family address) :inet6)
             (zerop (get-number octets 0 4))
             (zerop (get-number octets 4 4))
             (= (get-number octets 8 4) #xFFFF))
        (%make-address :inet (subseq octets 12))
        address)))

(defun everywhere-p (address)
  "True if ADDRESS is ::, as which a socket shows itself that is for IPv4 and IPv6 alike."
  (and (eq (address-family address) :inet6)
       (every #'zerop (address-octets address))))

(defun block-address (block)
  "The address in BLOCK, which the system has filled in; an IPv4-mapped one as plain IPv4."
  (unmapped (literal-block-address block)))

;;; Zones

(defun link-local-p (address)
  "True if ADDRESS is in fe80::/10, RFC 4291 2.5.6: every link has these."
  (and (eq (address-family address) :inet6)
       (= #b1111111010 (ash (get-number (address-octets address) 0 2) -6))))

(defun zoned-p (address)
  "True if a zone can belong to ADDRESS: its scope, or as that of a group RFC 4291 2.7, is no wider
than a link."
  (or (link-local-p address)
      (let ((octets (address-octets address)))
        (and (eq (address-family address) :inet6)
             (= #xFF (aref octets 0))
             (<= 1 (logand 15 (aref octets 1)) 2)))))

;;; Text

(defun address-text (address)
  "The text of ADDRESS, as RFC 5952 says; the path of a local socket."
  (let ((block (address-block address 0)))
    (text-from (pointer cap)
      (with-octets (place block)
        (lport-address-print place pointer cap)))))

(defmethod print-object ((address address) stream)
  (print-as-text address stream (address-text address)))

(defun endpoint-text (address port)
  "The text of both: \"127.0.0.1:80\", \"[::1]:80\"; of a local socket its path alone."
  (ecase (address-family address)
    (:inet (format nil "~A:~D" (address-text address) port))
    (:inet6 (format nil "[~A]:~D" (address-text address) port))
    (:local (address-text address))))

(defun literal-address (text operation)
  "The address that TEXT, a string, spells, or NIL. Signals RESOURCE-EXHAUSTED of OPERATION, a
keyword, where the name of a zone could not be looked up."
  (multiple-value-bind (block family) (block-from (place)
                                        (with-text (pointer length text)
                                          (lport-address-parse pointer length 0 place)))
    (cond ((plusp family) (literal-block-address block))
          ((/= (lport-status-kind family) +lport-address-syntax+)
           (fail family operation :host text)))))

(defun literal-only-p (text)
  "True if TEXT can only have been meant as an address."
  (plusp (with-text (pointer length text)
           (lport-address-is-literal pointer length))))

(defparameter *literal-forms*
  '(("/" 1 "a host alone, without a scheme, a port or a path")
    ("%" 1
     "an IPv6 address of link-local scope with the zone of an interface, such as fe80::1%eth0")
    (":[]" 2 "an IPv6 address without a port, such as ::1 or 2001:db8::1")
    (":[]" 1 "a host alone, without a port")
    ("" 0 "an IPv4 address, 4 decimal numbers from 0 to 255 without leading zeros"))
  "Rows (characters count text): what a literal has to be if it has so many of the characters.")

(defun expected-literal (text)
  "What TEXT, which is no address, should have been."
  (loop for (characters count expected) in *literal-forms*
        when (<= count (count-if (lambda (char) (find char characters)) text))
          return expected))

(defun fail-syntax (operation host expected)
  "Signal ADDRESS-SYNTAX for HOST, which should have been EXPECTED, a text."
  (fail-as 'address-syntax operation :address-syntax
           :host host :message "expected ~A, got ~S" :arguments (list expected host)))

(defun fail-type (operation which datum type expected)
  "Signal ADDRESS-SYNTAX that is a TYPE-ERROR for DATUM, the :HOST or :PORT as WHICH says."
  (fail-as 'mistyped-address operation :address-syntax
           which datum :datum datum :expected-type type
           :message "expected ~A, got ~S" :arguments (list expected datum)))

(defun check-text (text)
  "Signal ADDRESS-SYNTAX that is a TYPE-ERROR if TEXT, which is to be parsed, is no string."
  (unless (stringp text)
    (fail-type :parse :host text 'string "a string")))

(defun parse-address (text)
  "Parse TEXT, a string that is an IPv4 or IPv6 address, and return the address object.
IPv4: 4 decimal octets, no leading zeros, no short forms. IPv6: RFC 4291, in brackets or not, with a
zone where the scope is link-local. Nothing is looked up but the name of a zone.
Conditions: ADDRESS-SYNTAX; RESOURCE-EXHAUSTED of a zone. Wraps lport_address_parse."
  (check-text text)
  (or (literal-address text :parse)
      (fail-syntax :parse text (if (literal-only-p text)
                                   (expected-literal text)
                                   "an IPv4 or IPv6 address"))))

(defun make-address (octets &key (scope 0))
  "Return the address object with OCTETS, a vector of 4 octets for IPv4 or of 16 for IPv6, the most
significant first, as protocols carry them; they are copied. SCOPE: of an IPv6 address of link-local
scope the index of its interface; else 0. Conditions: ADDRESS-SYNTAX."
  (let ((family (and (vectorp octets)
                     (every (lambda (octet) (typep octet '(unsigned-byte 8))) octets)
                     (case (length octets) (4 :inet) (16 :inet6)))))
    (unless family
      (fail-type :address :host octets
                 '(or (vector (unsigned-byte 8) 4) (vector (unsigned-byte 8) 16))
                 "4 octets for IPv4, or 16 for IPv6"))
    (unless (typep scope '(unsigned-byte 32))
      (fail-type :address :host scope '(unsigned-byte 32) "the index of an interface, or 0"))
    (let ((address (%make-address family (replace (octets-of-size (length octets)) octets) scope)))
      (unless (or (zerop scope) (zoned-p address))
        (fail-syntax :address scope "the scope 0 of an address that is not of link-local scope"))
      address)))
