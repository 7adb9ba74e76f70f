;;;; designators - what users may give for a host, a family and a port, and what it stands for.
;;;;
;;;; Nothing here asks the network: the name of a host is only checked for its form, that of a
;;;; service is looked up in the system's table. Invariant: whatever stands for nothing is signalled
;;;; before anything is opened, with what was expected.

(in-package :port)

(deftype host-designator ()
  "What can be given for a host: a name or a literal, an ipaddr, an address object."
  '(or string (unsigned-byte 128) address))

(deftype port-designator ()
  "What can be given for a port: a number, its digits, the name of a service."
  '(or string (unsigned-byte 16)))

;;; Hosts

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
        ((find-if (lambda (char) (or (<= (char-code char) 32) (= (char-code char) 127))) text)
         (fail-syntax operation text "a name without blanks and control characters"))
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

(defun ip-address (host operation)
  "The address object that HOST is or spells. Signals ADDRESS-SYNTAX of OPERATION, a keyword, for a
name and for the path of a local socket."
  (let ((address (host-designator host operation)))
    (if (and (address-p address) (not (eq (address-family address) :local)))
        address
        (fail-syntax operation host "an IPv4 or IPv6 address"))))

(defun check-zone (address host operation &optional own)
  "Signal ADDRESS-SYNTAX of OPERATION, a connect or a bind, if ADDRESS, which HOST is, is of
link-local scope and has no zone, unless OWN, the block of the own end, has one."
  (when (and (link-local-p address)
             (zerop (address-scope address))
             (or (null own) (zerop (block-scope own))))
    (fail-syntax operation host (expected-literal "%"))))

(defun family-designator (family &optional (operation :resolve))
  "The library's number for FAMILY: :INET, :INET6, or NIL for any. Signals USAGE-ERROR."
  (check-argument operation family '(member nil :inet :inet6)
                  "a family, :INET, :INET6 or NIL for any")
  (if family (family-number family) +lport-any+))

;;; Ports

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

(defun fail-service (name protocol operation table-p)
  "Signal SERVICE-NOT-FOUND for NAME over PROTOCOL (\"\" for any). TABLE-P: the system has a table."
  (fail-as 'service-not-found operation :service-not-found
           :port name
           :message "expected the name of a service~@[ over ~A~], got ~S~:[~;, and the system ~
                     has no table of services (/etc/services)~]"
           :arguments (list (and (string/= protocol "") protocol) name (not table-p))))

(defun service-port (name protocol operation minimum)
  "The port of service NAME. One that begins with a digit and is no service was meant as a number."
  (unless (service-name-p name)
    (fail-port name operation minimum))
  (multiple-value-bind (row table-p) (find-service-row name protocol operation)
    (cond (row (row-port row))
          ((digit-char-p (char name 0)) (fail-port name operation minimum))
          (t (fail-service name protocol operation table-p)))))

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

(defun socket-path (pathname)
  "The name that the system has for PATHNAME, which never is an abstract one; or NIL."
  (let ((path (native-path (merge-pathnames pathname))))
    (if (and path (string/= path "") (char= #\@ (char path 0)))
        (concatenate 'string "./" path)
        path)))

(defun path-block (path operation)
  "The block of the local name PATH: a string, where `@` in front makes it abstract, or a pathname."
  (let ((text (typecase path
                (string path)
                (pathname (or (socket-path path)
                              (fail-as 'address-syntax operation :address-syntax :host path
                                       :message "expected the pathname of one file, got ~S"
                                       :arguments (list path))))
                (t (fail-type operation :host path '(or string pathname)
                              "the path of a local socket, a string or a pathname")))))
    (multiple-value-bind (block status) (block-from (place)
                                          (with-text (name length text)
                                            (lport-address-local name length place)))
      (when (minusp status)
        (fail-as 'address-syntax operation :address-syntax :host path
                 :message "expected a path of 1 to 108 octets, of 2 at least with @ in ~
                           front, without a zero octet, got ~S, ~D octet~:P"
                 :arguments (list text (length (utf8-octets text)))))
      block)))
