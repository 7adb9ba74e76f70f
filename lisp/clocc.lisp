;;;; clocc - the historical names that are not elsewhere: integers for addresses, host and service
;;;; entries. Interface of CLOCC's PORT, 1999 to 2008.

(in-package :port)

;;; Integers

(defun ipaddr-to-dotted (ipaddr)
  "Return the IPv4 address IPADDR, an integer below 2^32, as a dotted string such as \"127.0.0.1\".
Conditions: ADDRESS-SYNTAX that is a TYPE-ERROR too for anything else."
  (unless (typep ipaddr '(unsigned-byte 32))
    (fail-type :convert :host ipaddr '(unsigned-byte 32) "an integer below 2^32"))
  (address-text (integer-address ipaddr)))

(defun dotted-to-ipaddr (dotted)
  "Return the integer for DOTTED, a string of 4 decimal octets with dots: no octal, no short forms.
Conditions: ADDRESS-SYNTAX; it is a TYPE-ERROR too if DOTTED is no string."
  (let ((address (parse-address dotted)))
    (if (eq (address-family address) :inet)
        (get-number (address-octets address) 0 4)
        (fail-syntax :parse dotted (expected-literal "")))))

;;; Hosts

(defstruct hostent
  "A host entry, see gethostbyname(3): what is known of a host."
  (name "" :type string)
  (aliases '() :type list)
  (addr-list '() :type list)
  (addr-type 2 :type fixnum))

(document-functions
 '((make-hostent "Make a hostent of :NAME, :ALIASES, :ADDR-LIST and :ADDR-TYPE.")
   (hostent-p "Return true if OBJECT is a hostent.")
   (hostent-name "Return the canonical name of the host, a string.")
   (hostent-aliases "Return the other names of the host, a list of strings.")
   (hostent-addr-list "Return every address of the host in order of preference, a list of strings.")
   (hostent-addr-type "Return the historical number for the family of the first address: 2 for IPv4,
10 for IPv6.")))

(defun addr-type (addresses)
  "AF_INET or AF_INET6 as numbered of old, for the first of ADDRESSES."
  (if (eq (address-family (first addresses)) :inet6) 10 2))

(defun hostent-of (names addresses)
  "The entry of a host with NAMES, strings, and ADDRESSES, address objects."
  (make-hostent :name (first names)
                :aliases (remove (first names) (rest names) :test #'string-equal)
                :addr-list (mapcar #'address-text addresses)
                :addr-type (addr-type addresses)))

(defun name-hostent (name)
  "The entry of the host called NAME."
  (call-with-answer (opener name +lport-any+ +lport-aliases+) name nil
                    (lambda (query count)
                      (hostent-of (answer-names query) (answer-addresses query count)))))

(defun resolve-host-ipaddr (host)
  "Look HOST up and return its HOSTENT: names and every address.
HOST: a name; or a literal, an integer ipaddr or an address object, which is looked up in reverse.
Conditions: HOST-NOT-FOUND, RESOLVER-TRY-AGAIN, RESOLVER-FAILURE, RESOURCE-EXHAUSTED,
ADDRESS-SYNTAX, TIMEOUT of WITH-DEADLINE. Restarts: RETRY; USE-VALUE, another host.
See gethostbyname(3), gethostbyaddr(3)."
  (with-retry (host "look the host up" "host")
    (let ((target (host-designator host :resolve)))
      (if (stringp target)
          (name-hostent target)
          (let ((address (ip-address target :resolve)))
            (hostent-of (names-of address host nil) (list address)))))))

(defun related-hosts (hostent)
  "Every name and address in HOSTENT."
  (cons (hostent-name hostent)
        (append (hostent-aliases hostent) (hostent-addr-list hostent))))

(defun related-hostent (host)
  "The HOSTENT of HOST, or NIL if nobody knows it or it is no host: an alias may lead nowhere."
  (handler-case (resolve-host-ipaddr host)
    ((or resolve-error address-syntax) () nil)))

(defun ipaddr-closure (address)
  "Look up ADDRESS, a host as of RESOLVE-HOST-IPADDR, and every name and address that this brings
up. Values: a hash table from each HOSTENT to the list of hosts that led to it; one from each host
to its HOSTENT; both by EQUALP. What cannot be looked up on the way is left out.
Conditions: those of RESOLVE-HOST-IPADDR for ADDRESS itself; TIMEOUT of WITH-DEADLINE.
Restarts: RETRY; USE-VALUE, another host."
  (let ((hosts (make-hash-table :test 'equalp))
        (entries (make-hash-table :test 'equalp))
        (unknown '())
        (pending '()))
    (flet ((note (host entry)
             (setf (gethash host entries) entry
                   pending (append pending (related-hosts entry)))
             (push host (gethash entry hosts))))
      (note address (resolve-host-ipaddr address))
      (loop while pending
            do (let ((host (pop pending)))
                 (unless (or (gethash host entries) (member host unknown :test #'string-equal))
                   (let ((entry (related-hostent host)))
                     (if entry (note host entry) (push host unknown)))))))
    (values hosts entries)))

;;; Services

(defstruct servent
  "A service entry, see getservbyname(3)."
  (name "" :type string)
  (aliases '() :type list)
  (port -1 :type fixnum)
  (proto :tcp :type symbol))

(document-functions
 '((make-servent "Make a servent of :NAME, :ALIASES, :PORT and :PROTO.")
   (servent-p "Return true if OBJECT is a servent.")
   (servent-name "Return the official name of the service, a string in lower case.")
   (servent-aliases "Return the other names of the service, a list of strings in lower case.")
   (servent-port "Return the port of the service, an integer.")
   (servent-proto "Return the protocol of the service, a keyword such as :TCP.")))

(defun row-servent (row)
  "The entry that ROW of services(5) describes."
  (destructuring-bind (name place &rest aliases) (words row)
    (declare (ignore place))
    (make-servent :name (string-downcase name)
                  :aliases (mapcar #'string-downcase aliases)
                  :port (row-port row)
                  :proto (intern (string-upcase (row-protocol row)) :keyword))))

(defun find-servent (service protocol)
  "The entry for SERVICE, as the user gave it, over PROTOCOL, a string (\"\" for any)."
  (multiple-value-bind (row table-p)
      (find-service-row (service-text service) protocol :service service)
    (if row
        (row-servent row)
        (fail-service service protocol :service table-p))))

(defun socket-service-port (&optional service (protocol "tcp"))
  "Return the SERVENT of SERVICE over PROTOCOL, or, if SERVICE is NIL, the list of all, over
whatever protocol. SERVICE: a name or an alias, a string or a symbol in whatever case; or the number
of a port. PROTOCOL: a string or a symbol such as \"udp\"; NIL: any.
Conditions: SERVICE-NOT-FOUND; RESOURCE-EXHAUSTED: the table could not be read; ADDRESS-SYNTAX for
what is no name. Restarts: USE-VALUE, another service; RETRY. Wraps getservent(3)."
  (check-argument :service protocol '(or string symbol)
                  "the name of a protocol, a string or a symbol, or NIL for any")
  (if (null service)
      (mapcar #'row-servent (service-rows :service))
      (with-retry (service "look the service up" "service")
        (find-servent service (string-downcase (or protocol ""))))))

(defun service-text (service)
  "SERVICE, the number of a port or a string designator, as a string."
  (typecase service
    ((unsigned-byte 16) (format nil "~D" service))
    (integer (fail-port service :service 0))
    ((or string symbol character)
     (if (string= service "") (fail-port service :service 0) (string service)))
    (t (fail-type :service :port service 'port-designator "the name of a service"))))
