;;;; ends - where a connection is to come from, and where it is to go: what the user says, checked
;;;; and looked up before anything is opened.

(in-package :port)

;;; The own end

(defun own-address (address family)
  "ADDRESS, asked for in FAMILY, as an own end; NIL for the wildcard of both families, which :: is
without a FAMILY."
  (unless (and (null family) (everywhere-p address))
    address))

(defun bound-block (address number family-number)
  "The block of ADDRESS, or for NIL of the wildcard of the family with FAMILY-NUMBER, and of port
NUMBER."
  (if address
      (address-block address number)
      (make-block family-number number)))

(defun local-port-number (port protocol)
  "The number of PORT, as the user gave it, the own port of a connect over PROTOCOL; 0 for NIL."
  (with-retry (port "connect" "local port")
    (port-designator (or port 0) protocol :bind :minimum 0)))

(defstruct (origin (:copier nil) (:predicate nil)
                   (:constructor make-origin (host port blocks)))
  "Where a connect is to come from: HOST and PORT, as the caller gave them, and what to bind to, one
block for each family; BLOCKS has at least one."
  (host nil :read-only t)
  (port nil :read-only t)
  (blocks '() :type list :read-only t))

(defun find-origin (host port family timeout)
  "The own end HOST and PORT, either of which may be NIL; NIL where both are. TIMEOUT, in seconds,
holds for the look-up of HOST."
  (when (or host port)
    (let ((number (local-port-number port "tcp")))
      (make-origin host port
                   (if host
                       (loop for address in (own-addresses host family timeout)
                             collect (bound-block (own-address address family) number
                                                  +lport-any+))
                       (list (make-block +lport-any+ number)))))))

(defun own-addresses (host family timeout)
  "The addresses that HOST, an own end, stands for: the first of each family."
  (remove-duplicates (with-deadline (timeout) (addresses-of host family :bind))
                     :key #'address-family :from-end t))

(defun own-end-facts (own local remote)
  "The operation of what failed at OWN, an own end, which is in the block LOCAL, on the way to the
one in REMOTE, and then the initargs that tell both."
  (list :bind :host (origin-host own) :port (origin-port own)
              :local (block-text local) :remote (block-text remote)))

(defun family-facts (own)
  "What a condition says of a host that has no address of the families of OWN, an own end: a plist
of facts."
  (list :message "no address of family ~{~S~^ or ~}, that of the own end ~A"
        :arguments (list (mapcar #'block-family (origin-blocks own)) (origin-host own))))

(defun addresses-of-family (addresses family host operation)
  "Those of ADDRESSES, given as HOST, that are of FAMILY, a keyword or NIL for any; signals what
FAIL-FAMILY does if none is."
  (or (remove-if-not (lambda (address)
                       (member family (list nil (address-family (unmapped address)))))
                     addresses)
      (fail-family addresses family operation :host host)))

(defun addresses-of (host family operation)
  "The addresses of FAMILY, or NIL for any, that HOST names, at least one. Restarts: those of
RESOLVE."
  (with-retry (host "resolve the host" "host")
    (let ((target (host-designator host operation)))
      (when (address-p target)
        (check-zone target host operation))
      (addresses-of-family (mapcar #'unmapped (if (address-p target)
                                                  (list target)
                                                  (resolve-name target family nil)))
                           family host operation))))

(defun one-address (host family operation)
  "The address that HOST names, the first where there are several. Restarts: those of RESOLVE."
  (first (addresses-of host family operation)))

;;; What is dialled

(defun dial-target (host)
  "What HOST stands for: a name, a string, or the list of the addresses to try."
  (typecase host
    (null (fail-type :connect :host host '(or host-designator cons)
                     "a host: a name, an address, an ipaddr or a list of addresses"))
    (cons (check-argument :connect host 'proper-list "a proper list of addresses")
     (mapcar #'listed-address host))
    (t (let ((target (host-designator host :connect)))
         (if (stringp target) target (list target))))))

(defun listed-address (host)
  "The address that HOST, in a list of them, is or spells. An integer is none here, as a list of
octets was not meant as many hosts."
  (check-argument :connect host '(or string address) "an address in a list of them")
  (let ((target (host-designator host :connect)))
    (if (stringp target)
        (fail-syntax :connect host "an address in a list of them")
        target)))

(defun check-zones (addresses host own)
  "As CHECK-ZONE for each of ADDRESSES, which HOST stands for, from OWN, an own end or NIL."
  (let ((zoned (and own (find-if #'plusp (origin-blocks own) :key #'block-scope))))
    (loop for address in addresses
          for given in (if (listp host) host (list host))
          do (check-zone address given :connect zoned))))
