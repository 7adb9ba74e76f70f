;;;; prefix - ranges of addresses, and what kind of address one is.
;;;;
;;;; Nothing here asks the network. An IPv4-mapped IPv6 address is the IPv4 address, and the zone of
;;;; an address counts for nothing.

(in-package :port)

(defstruct (address-prefix (:constructor %make-address-prefix (address length))
                           (:copier nil))
  "A range of addresses: those that begin with the same bits, as the addresses of a network do. It
prints as its text, such as 192.0.2.0/24, and EQUALP compares two. Made by PARSE-ADDRESS-PREFIX and
MAKE-ADDRESS-PREFIX."
  (address nil :type address :read-only t)
  (length 0 :type (integer 0 128) :read-only t))

(document-functions
 '((address-prefix-p "Return true if OBJECT is an ADDRESS-PREFIX.")
   (address-prefix-address "Return the first address of PREFIX, an address object.")
   (address-prefix-length "Return how many bits the addresses of PREFIX have in common: 0 to 32 for
IPv4, 0 to 128 for IPv6.")))

(defmethod print-object ((prefix address-prefix) stream)
  (print-as-text prefix stream
                 (plain-format "~A/~D" (address-prefix-address prefix)
                               (address-prefix-length prefix))))

;;; Making

(defun address-bits (address)
  (* 8 (length (address-octets address))))

(defun plain-address (host)
  "The address that HOST is or spells, none that maps another."
  (unmapped (ip-address host :address)))

(defun first-of-prefix (address length)
  "ADDRESS without its zone, and with its bits from LENGTH on cleared."
  (let ((octets (copy-seq (address-octets address))))
    (loop for index from 0 below (length octets)
          for bits = (max 0 (min 8 (- length (* 8 index))))
          do (setf (aref octets index) (logandc2 (aref octets index) (ash 255 (- bits)))))
    (%make-address (address-family address) octets)))

(defun plain-length (length address mapped)
  "How many bits of ADDRESS LENGTH says. MAPPED: it was given within an IPv6 address, of which
LENGTH may count the bits before it, too."
  (check-argument :address length
                  `(or (integer 0 ,(address-bits address)) ,@(and mapped '((integer 96 128))))
                  (format nil "a number of bits from 0 to ~D~:[~;, or from 96 to 128~]"
                          (address-bits address) mapped))
  (if (and mapped (> length 32)) (- length 96) length))

(defun make-address-prefix (address length)
  "Return the ADDRESS-PREFIX of LENGTH bits that ADDRESS, an address object, a string that is one or
an ipaddr, is in: for an address of an interface and the length beside it, that of its network.
LENGTH: 0 to 32 for IPv4, 0 to 128 for IPv6; for an IPv4-mapped address that of the IPv4 address, or
96 to 128, which is 96 more. Conditions: ADDRESS-SYNTAX, USAGE-ERROR."
  (let* ((given (ip-address address :address))
         (address (unmapped given))
         (length (plain-length length address (not (eq given address)))))
    (%make-address-prefix (first-of-prefix address length) length)))

(defun prefix-length (text bits)
  "The number that TEXT spells, if it is at most BITS, or NIL."
  (let ((number (spelled-port text)))
    (and number (<= number bits) number)))

(defun split-prefix (text)
  "Values: the address that TEXT, \"address/length\" or an address alone, begins with, and the
length."
  (let* ((slash (position #\/ text))
         (address (and (not (find-if (lambda (char) (find char "[%")) text))
                       (literal-address (subseq text 0 slash) :parse))))
    (unless address
      (fail-syntax :parse text (format nil "an IPv4 or IPv6 address, a slash and a number of bits, ~
                                            such as 192.0.2.0/24 or 2001:db8::/32")))
    (let ((bits (address-bits address)))
      (values address
              (cond ((null slash) bits)
                    ((prefix-length (subseq text (1+ slash)) bits))
                    (t (fail-syntax :parse text (format nil "a number of bits from 0 to ~D behind ~
                                                             the slash"
                                                        bits))))))))

(defun parse-address-prefix (text)
  "Parse TEXT, a string, and return the ADDRESS-PREFIX: an IPv4 or IPv6 address without brackets and
zone, a slash and a number of bits behind which the address has none set, such as \"10.0.0.0/8\" or
\"2001:db8::/32\" (RFC 4632 3.1, RFC 4291 2.3); or an address alone, which is a prefix of all its
bits. Of an IPv4-mapped address the number is that of IPv6: \"::ffff:10.0.0.0/104\" is 10.0.0.0/8.
Conditions: ADDRESS-SYNTAX."
  (check-text text)
  (multiple-value-bind (address length) (split-prefix text)
    (let ((first (first-of-prefix address length)) (plain (unmapped address)))
      (unless (equalp first address)
        (fail-syntax :parse text (format nil "~A/~D, or more bits" first length)))
      (if (eq plain address)
          (%make-address-prefix address length)
          (%make-address-prefix plain (- length 96))))))

;;; Asking

(defun address-in-prefix-p (address prefix)
  "Return true if ADDRESS, an address object, a string that is one or an ipaddr, is in PREFIX, an
ADDRESS-PREFIX. Conditions: ADDRESS-SYNTAX, a name for example; USAGE-ERROR."
  (check-argument :address prefix 'address-prefix
                  "an ADDRESS-PREFIX, as PARSE-ADDRESS-PREFIX returns it")
  (in-prefix-p (plain-address address) prefix))

(defun in-prefix-p (address prefix)
  (let ((octets (address-octets address))
        (first (address-octets (address-prefix-address prefix)))
        (length (address-prefix-length prefix)))
    (and (= (length octets) (length first))
         (multiple-value-bind (whole bits) (floor length 8)
           (and (not (mismatch octets first :end1 whole :end2 whole))
                (or (zerop bits)
                    (= (ash (aref octets whole) (- bits 8))
                       (ash (aref first whole) (- bits 8)))))))))

(defparameter *address-kinds*
  (loop for (kind . texts)
          in '((:unspecified "0.0.0.0/32" "::/128")
               (:loopback "127.0.0.0/8" "::1/128")
               (:link-local "169.254.0.0/16" "fe80::/10")
               (:private "10.0.0.0/8" "172.16.0.0/12" "192.168.0.0/16" "fc00::/7")
               (:shared "100.64.0.0/10")
               (:broadcast "255.255.255.255/32")
               (:multicast "224.0.0.0/4" "ff00::/8")
               (:documentation "192.0.2.0/24" "198.51.100.0/24" "203.0.113.0/24"
                "2001:db8::/32" "3fff::/20")
               (:benchmarking "198.18.0.0/15" "2001:2::/48")
               (:translated "64:ff9b::/96" "64:ff9b:1::/48" "2002::/16")
               (:global "192.0.0.9/32" "192.0.0.10/32" "2001:1::1/128" "2001:1::2/128"
                "2001:1::3/128" "2001:3::/32" "2001:4:112::/48" "2001:20::/28" "2001:30::/28")
               (:reserved "0.0.0.0/8" "192.0.0.0/24" "192.88.99.0/24" "240.0.0.0/4" "2001::/23")
               (:global "0.0.0.0/0" "2000::/3")
               (:reserved "::/0"))
        nconc (loop for text in texts
                    collect (cons (parse-address-prefix text) kind)))
  "Rows (prefix . kind), of which the first that an address is in tells: the special-purpose address
registries of IPv4 and IPv6 that RFC 6890 keeps.")

(defun address-kind (address)
  "Return what kind of address ADDRESS, an address object, a string that is one or an ipaddr, is, as
the registries of RFC 6890 say:
:UNSPECIFIED, 0.0.0.0 and ::; :LOOPBACK, of this host; :LINK-LOCAL, of one link; :PRIVATE, of a
private network (RFC 1918, RFC 4193); :SHARED, of a provider's translation (RFC 6598); :BROADCAST;
:MULTICAST, a group; :DOCUMENTATION, of examples; :BENCHMARKING; :TRANSLATED, an IPv4 address in the
form of IPv6 (RFC 6052, RFC 3056); :RESERVED; and :GLOBAL, which is all else. Who connects where a
stranger has told it to and means the network outside takes :GLOBAL alone. Of an IPv4-mapped address
it is the kind of the IPv4 address. Conditions: ADDRESS-SYNTAX."
  (let ((address (plain-address address)))
    (loop for (prefix . kind) in *address-kinds*
          when (in-prefix-p address prefix)
            return kind)))
