;;;; address - address objects, and what users may give for a host, a port and a family.
;;;;
;;;; Nothing here asks the network: literals are parsed and printed by the library, names are only
;;;; checked for their form. Invariant: an address object never changes, so EQUALP compares two.

(in-package :port)

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

(deftype host-designator ()
  "What can be given for a host: a name or a literal, an ipaddr, an address object."
  '(or string (unsigned-byte 128) address))

(deftype port-designator ()
  "What can be given for a port: a number, its digits, the name of a service."
  '(or string (unsigned-byte 16)))

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

(defun put-number (number vector start size)
  "Put NUMBER into SIZE octets of VECTOR from START on, the most significant first."
  (dotimes (index size vector)
    (setf (aref vector (+ start index)) (ldb (byte 8 (* 8 (- size index 1))) number))))

(defun get-number (vector start size)
  "The number in SIZE octets of VECTOR from START on, the most significant first."
  (let ((number 0))
    (dotimes (index size number)
      (setf number (logior (ash number 8) (aref vector (+ start index)))))))

(defun make-block (&optional (family-number +lport-any+) (port 0))
  "A fresh block of the wildcard of the family with FAMILY-NUMBER, with PORT; a local name that is
none."
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
  (let ((block (make-block (family-number (address-family address)) port))
        (octets (address-octets address)))
    (when (eq (address-family address) :local)
      (setf (aref block 1) (length octets)))
    (put-number (address-scope address) block 4 4)
    (replace block octets :start1 +block-octets+)))

(defun block-family (block)
  "The family in BLOCK, a keyword; NIL for none, and for the wildcard of all."
  (number-family (aref block 0)))

(defun block-port (block)
  "The port in BLOCK."
  (get-number block 2 2))

(defun block-scope (block)
  "The index of the interface that the address in BLOCK is of, or 0."
  (get-number block 4 4))

(defun block-size (block)
  "How many octets the address in BLOCK, which has a family, has."
  (ecase (block-family block)
    (:inet 4)
    (:inet6 16)
    (:local (aref block 1))))

(defun wildcard-p (block)
  "True if BLOCK is of no address in particular."
  (not (find-if #'plusp block :start +block-octets+)))

(defun bound-p (block)
  "True if BLOCK is an end that was bound: it has a port, or is a local name."
  (plusp (if (eq :local (block-family block)) (block-size block) (block-port block))))

(defun literal-block-address (block)
  "The address in BLOCK as it stands there; NIL for one of no family."
  (when (block-family block)
    (%make-address (block-family block)
                   (subseq block +block-octets+ (+ +block-octets+ (block-size block)))
                   (block-scope block))))

(defun unmapped (address)
  "ADDRESS, or the IPv4 address that it maps (RFC 4291 2.5.5.2)."
  (let ((octets (and address (address-octets address))))
    (if (and address
             (eq (address-family address) :inet6)
             (= (get-number octets 0 12) #xFFFF))
        (%make-address :inet (subseq octets 12))
        address)))

(defun block-address (block)
  "The address in BLOCK, which the system has filled in; an IPv4-mapped one as plain IPv4."
  (unmapped (literal-block-address block)))

;;; Text

(defun address-text (address)
  "The text of ADDRESS, as RFC 5952 says; the path of a local socket."
  (let ((block (address-block address 0)))
    (text-from (pointer cap)
      (with-octets (place block)
        (lport-address-print place pointer cap)))))

(defmethod print-object ((address address) stream)
  "Print the text of ADDRESS, with and without escape."
  (if *print-readably*
      (error 'print-not-readable :object address)
      (write-string (address-text address) stream)))

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

(defun parse-address (text)
  "Parse TEXT, a string that is an IPv4 or IPv6 address, and return the address object.
IPv4: 4 decimal octets, no leading zeros, no short forms. IPv6: RFC 4291, in brackets or not, with a
zone where the scope is link-local. Nothing is looked up but the name of a zone.
Conditions: ADDRESS-SYNTAX; RESOURCE-EXHAUSTED of a zone. Wraps lport_address_parse."
  (unless (stringp text)
    (fail-type :parse :host text 'string "a string"))
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
      (fail-type :parse :host octets
                 '(or (vector (unsigned-byte 8) 4) (vector (unsigned-byte 8) 16))
                 "4 octets for IPv4, or 16 for IPv6"))
    (unless (typep scope '(unsigned-byte 32))
      (fail-type :parse :host scope '(unsigned-byte 32) "the index of an interface, or 0"))
    (let ((address (%make-address family (replace (octets-of-size (length octets)) octets) scope)))
      (unless (or (zerop scope) (zoned-p address))
        (fail-syntax :parse scope "the scope 0 of an address that is not of link-local scope"))
      address)))

;;; Designators

(defun integer-address (integer)
  "The address for INTEGER, an ipaddr: IPv4 below 2^32, else IPv6."
  (if (typep integer '(unsigned-byte 32))
      (%make-address :inet (put-number integer (octets-of-size 4) 0 4))
      (%make-address :inet6 (put-number integer (octets-of-size 16) 0 16))))

(defconstant +longest-name+ 255 "Octets of the longest name of a host, RFC 1035 2.3.4.")

(defun octets-in (text)
  "How many octets TEXT has in UTF-8."
  (with-text (pointer length text)
    pointer
    length))

(defun host-name (text operation)
  "TEXT if it has the form of a name."
  (cond ((string= text "")
         (fail-syntax operation text "the name or the address of a host"))
        ((find (code-char 0) text)
         (fail-syntax operation text "a name without zero octets"))
        ((> (octets-in text) +longest-name+)
         (fail-syntax operation text (format nil "a name of at most ~D octets" +longest-name+)))
        (t text)))

(defun host-designator (host operation)
  "The address object that HOST is or spells, or the name, a string, that it is. Signals
ADDRESS-SYNTAX of OPERATION, a keyword, for what is neither; then it is a TYPE-ERROR too if the type
is wrong."
  (typecase host
    (address host)
    ((unsigned-byte 128) (integer-address host))
    (string (cond ((literal-address host operation))
                  ((literal-only-p host) (fail-syntax operation host (expected-literal host)))
                  (t (host-name host operation))))
    (t (fail-type operation :host host 'host-designator
                  "a host: a name, an address or an ipaddr"))))

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

(defun check-zone (address host operation &optional own)
  "Signal ADDRESS-SYNTAX of OPERATION, a connect or a bind, if ADDRESS, which HOST is, is of
link-local scope and has no zone, unless OWN, the block of the own end, has one."
  (when (and (link-local-p address)
             (zerop (address-scope address))
             (or (null own) (zerop (block-scope own))))
    (fail-syntax operation host (expected-literal "%"))))

(defun family-designator (family &optional (operation :resolve))
  "The library's number for FAMILY: :INET, :INET6, or NIL for any. Signals USAGE-ERROR."
  (case family
    ((nil) +lport-any+)
    ((:inet :inet6) (family-number family))
    (t (fail-as 'usage-error operation :invalid
                :message "expected :INET, :INET6 or NIL for the family, got ~S"
                :arguments (list family)))))

;;; Ports and services

(defun service-row (name protocol operation)
  "The row of services(5) for NAME over PROTOCOL (\"\" for any), a string; NIL if there is none.
Signals RESOURCE-EXHAUSTED of OPERATION where the table could not be read."
  (let ((row (text-from (pointer cap)
               (with-text (service service-length name)
                 (with-text (way way-length protocol)
                   (lport-service-find service service-length way way-length pointer cap))))))
    (cond ((stringp row) row)
          ((/= (lport-status-kind row) +lport-service-not-found+)
           (fail row operation :port name)))))

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

(defun service-name-p (text)
  "True if TEXT has the form of a service's name: ASCII, no blanks, and a letter in it."
  (and (every (lambda (char) (< 32 (char-code char) 127)) text)
       (find-if #'alpha-char-p text)
       (not (find (char text 0) "+-"))))

(defun fail-port (port operation minimum)
  "Signal ADDRESS-SYNTAX for PORT."
  (fail-as 'address-syntax operation :address-syntax
           :port port
           :message "expected a port from ~D to 65535 or the name of a service, got ~S"
           :arguments (list minimum port)))

(defun service-port (name protocol operation minimum)
  "The port of service NAME. One that begins with a digit and is no service was meant as a number."
  (let ((row (if (service-name-p name)
                 (service-row name protocol operation)
                 (fail-port name operation minimum))))
    (cond (row (row-port row))
          ((listed-port name protocol operation))
          ((digit-char-p (char name 0)) (fail-port name operation minimum))
          (t (fail-as 'service-not-found operation :service-not-found
                      :port name :message "expected the name of a service over ~A, got ~S"
                      :arguments (list protocol name))))))

(defun spelled-port (text)
  "The number that TEXT spells in decimal digits, 0 to 65535, or NIL."
  (let ((number (with-text (pointer length text)
                  (lport-port-parse pointer length))))
    (unless (minusp number) number)))

(defun port-designator (port protocol operation &key (minimum 1))
  "The number of PORT, an integer, its digits, or the name of a service over PROTOCOL, a string.
Signals ADDRESS-SYNTAX of OPERATION, a keyword, for a number that is not from MINIMUM to 65535 and
for other text, SERVICE-NOT-FOUND for a name that the system's table does not have."
  (let ((number (typecase port
                  (integer port)
                  (string (or (spelled-port port)
                              (service-port port protocol operation minimum)))
                  (t (fail-type operation :port port 'port-designator
                                "a port: a number or the name of a service")))))
    (if (<= minimum number 65535)
        number
        (fail-port port operation minimum))))

;;; Paths

(defun native-path (pathname)
  "The name that the system has for PATHNAME, a string; NIL where it names no single file."
  (handler-case (uiop:native-namestring pathname)
    (error () nil)))                    ; wild, without a name, or of an unknown logical host
