;;;; address - literals, address objects, and what may be given for a host, a port and a family.

(in-package :port/test)

(define-suite address "Addresses.")

(defun hex (octets)
  (format nil "~(~{~2,'0X~}~)" (coerce octets 'list)))

(define-test "address.vectors" (:behaviour 56)
  "Every literal of the table parses to its octets and prints as its canonical text, or is refused."
  (loop for (text family octets scope canonical) in (vectors "addresses")
        do (if (equal family "bad")
               (is-failure (address-syntax :address-syntax "parse" "expected") (parse-address text))
               (let ((address (parse-address text)))
                 (is (eq (intern (string-upcase family) :keyword) (address-family address)))
                 (is (equal octets (hex (address-octets address))))
                 (is (= (parse-integer scope) (address-scope address)))
                 (is (equal canonical (princ-to-string address)))))))

(define-test "address.object" ()
  "Address objects print as their text and compare by EQUALP."
  (let ((address (parse-address "[2001:DB8::1]")))
    (is-true (address-p address))
    (is-false (address-p "2001:db8::1"))
    (is (equal "2001:db8::1" (prin1-to-string address)))
    (is (equal "2001:db8::1" (princ-to-string address)))
    (is (equalp address (parse-address "2001:db8:0::1")))
    (is (not (equalp address (parse-address "2001:db8::2"))))
    (is (not (equalp (parse-address "fe80::1") (parse-address "fe80::1%4000000001"))))
    (let ((condition (handler-case (let ((*print-readably* t))
                                     (prin1 address (make-broadcast-stream)))
                       (print-not-readable (condition) condition))))
      (is (eq address (print-not-readable-object condition))))))

(define-test "address.octets" ()
  "An address is made of the octets that it has, whatever vector they are in, and keeps its own."
  (dolist (text '("127.0.0.1" "::1" "::ffff:192.0.2.1" "2001:db8::2" "fe80::1"
                  "fe80::1%4000000001" "ff02::fb%4000000001" "ff31::1%4000000001"))
    (let* ((address (parse-address text)) (octets (copy-seq (address-octets address)))
           (made (make-address octets :scope (address-scope address))))
      (is (equalp address made))
      (fill octets 7)
      (is (equalp address made))
      (is (equalp address (make-address (coerce (address-octets address) 'simple-vector)
                                        :scope (address-scope address))))))
  (dolist (octets (list #() #(1 2 3) (blank 15) (blank 17) #(1 2 3 256) #(1 2 3 -1) "1234" nil
                        '(127 0 0 1) 2130706433 (make-array '(2 2) :initial-element 1)))
    (let ((condition (is-failure (address-syntax :address-syntax "4 octets for IPv4, or 16" "got")
                       (make-address octets))))
      (is (typep condition 'type-error))
      (is (eq octets (type-error-datum condition)))
      (is (not (typep octets (type-error-expected-type condition))))
      (dolist (size '(4 16))
        (is (typep (blank size) (type-error-expected-type condition))))))
  (dolist (scope (list -1 (ash 1 32) 1.0 nil "eth0"))
    (let ((condition (failure-of (make-address #(127 0 0 1) :scope scope))))
      (is (typep condition 'type-error))
      (is (not (typep scope (type-error-expected-type condition))))
      (is (typep (1- (ash 1 32)) (type-error-expected-type condition))))))

(define-test "address.a-scope-is-of-a-link" ()
  "An address that is of more than one link, or of no interface at all, has none."
  (is-failure (address-syntax :address-syntax "expected the scope 0" "got 1")
    (make-address #(127 0 0 1) :scope 1))
  (flet ((scoped (octets)
           (failure-of (make-address octets :scope (1- (ash 1 32))))))
    (dolist (text '("2001:db8::2" "ff00::1" "ff03::1" "ff05::1" "fec0::1"))
      (is (typep (scoped (address-octets (parse-address text))) 'address-syntax) "~A" text))
    (dolist (octets '(#(254 128 0 1) #(255 2 0 1))) ; that begin as those of IPv6 do
      (is (typep (scoped octets) 'address-syntax) "~A" octets))
    (dolist (text '("fe80::1" "febf::1" "ff01::1" "ff02::1" "ff12::1"))
      (is (null (scoped (address-octets (parse-address text)))) "~A" text))))

(define-test "address.mistyped" ()
  "A wrong type is both ADDRESS-SYNTAX and TYPE-ERROR, and says what was expected."
  (dolist (datum (list nil 'localhost 1.0 -1 (ash 1 128) #(127 0 0 1) #\a))
    (let ((condition (is-failure (address-syntax :address-syntax "expected a host" "got")
                       (host-designator datum :connect))))
      (is (typep condition 'type-error))
      (is (eql datum (type-error-datum condition)))
      (is (not (typep datum (type-error-expected-type condition))))
      (dolist (good (list "a.test" (1- (ash 1 128)) (parse-address "::1")))
        (is (typep good (type-error-expected-type condition))))))
  (dolist (datum (list nil 'http 80.0 #\8))
    (let ((condition (is-failure (address-syntax :address-syntax "expected a port" "got")
                       (port-designator datum "tcp" :connect))))
      (is (typep condition 'type-error))
      (is (eql datum (type-error-datum condition)))
      (dolist (good '("http" 65535))
        (is (typep good (type-error-expected-type condition))))
      (dolist (bad (list datum 65536))
        (is (not (typep bad (type-error-expected-type condition)))))
      (is (search "ADDRESS-SYNTAX" (prin1-to-string condition)))))
  (is (typep (failure-of (parse-address 1)) 'type-error)))

(define-test "address.a-literal-that-is-none-is-told-what-was-expected" ()
  "What may have been a name only that it is no address."
  (loop for (text expected) in '(("127.1" "expected an IPv4 address, 4 decimal numbers")
                                 ("host.test" "expected an IPv4 or IPv6 address, got")
                                 ("10.0.0.1/8" "expected an IPv4 or IPv6 address, got")
                                 ("::1/64" "expected a host alone, without a scheme, a port or a")
                                 ("::g" "expected an IPv6 address without a port"))
        do (is-failure (address-syntax :address-syntax expected) (parse-address text))))

(define-test "address.host" (:behaviour 56)
  "A host is a name, a literal, an ipaddr or an address object; what can only be a literal has to be
one."
  (is (equal "localhost" (host-designator "localhost" :connect)))
  (is (equal "a.b.c.d" (host-designator "a.b.c.d" :connect)))
  (loop for (host text) in '(("127.0.0.1" "127.0.0.1") (2130706433 "127.0.0.1") (0 "0.0.0.0")
                             ("[::1]" "::1") (#.(1+ (ash 1 32)) "::1:0:1")
                             (#.(1- (ash 1 128)) "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
        do (is (equal text (princ-to-string (host-designator host :connect)))))
  (let ((address (parse-address "::1")))
    (is (eq address (host-designator address :connect))))
  (dolist (string (list (make-array 9 :element-type 'character :fill-pointer 9 :adjustable t
                                      :initial-contents "127.0.0.1")
                        (coerce "127.0.0.1" 'simple-base-string)))
    (is (equal "127.0.0.1" (princ-to-string (host-designator string :connect))))))

(define-test "address.what-is-no-host-is-told-what-was-expected" (:behaviour 56)
  (loop for (host expected)
          in `(("010.0.0.1" "4 decimal numbers") ("127.1" "4 decimal numbers")
               ("0x7f.1" "4 decimal numbers") ("2130706433" "4 decimal numbers")
               ("[::1" "an IPv6 address") ("[::1]:80" "without a port") ("::g" "an IPv6 address")
               ("localhost:80" "a host alone, without a port")
               ("192.0.2.1:80" "a host alone, without a port")
               ("http://localhost:80/" "a host alone, without a scheme")
               ("fe80::1%no-such-name-0" "zone") ("::1%1" "zone")
               ("" "the name or the address")
               (,(format nil "a~Cb" (code-char 0)) "without zero octets")
               (,(make-string 256 :initial-element #\a) "at most 255 octets")
               (,(make-string 128 :initial-element (code-char 228)) "at most 255 octets"))
        for condition = (is-failure (address-syntax :address-syntax "connect to" expected)
                          (host-designator host :connect))
        do (is (equal host (network-host condition)))
           (is (not (typep condition 'type-error))))
  (dolist (name (list (make-string 255 :initial-element #\a)
                      (concatenate 'string "a" (make-string 127 :initial-element #\ä))))
    (is (equal name (host-designator name :connect)))))

(define-test "address.no-characters" ()
  "Strings of what is no character are refused or passed on, and never another kind of error."
  (let ((text (string (code-char #xD800))))
    (handler-case (is (stringp (host-designator text :connect)))
      (address-syntax (condition) (is-report condition "connect")))))

(define-test "address.port-vectors" (:behaviour 56)
  "Every spelling of a port in the table is taken or refused."
  (loop for (text number) in (vectors "ports")
        do (if (equal number "bad")
               (unless (equal text "http")
                 (let ((condition (failure-of (port-designator text "tcp" :connect :minimum 0))))
                   (is (typep condition '(or address-syntax service-not-found))
                       "~S gives ~S" text condition)))
               (is (= (parse-integer number) (port-designator text "tcp" :listen :minimum 0))))))

(define-test "address.a-port-is-a-number-its-digits-or-a-service" (:behaviour 56)
  (is (= 80 (port-designator 80 "tcp" :connect)))
  (is (= 80 (port-designator "80" "tcp" :connect)))
  (is (= 0 (port-designator 0 "tcp" :listen :minimum 0)))
  (is (= 80 (port-designator "http" "tcp" :connect)))
  (dolist (name '("+http" "-http"))     ; meant as a number, perhaps, but never a service
    (is-failure (address-syntax :address-syntax "got" name)
      (port-designator name "tcp" :connect)))
  (is (= 514 (port-designator "syslog" "udp" :connect)))
  (dolist (name '("a!" "~a"))           ; of all that a name can have
    (is (typep (failure-of (port-designator name "tcp" :connect)) 'service-not-found)))
  (dolist (port (list 65536 -1 0 "0" "65536" "080x" "8x" "80 " "" " " "-" "+80"
                      "http " "ht tp" "hťtp" (format nil "http~C" (code-char 127))))
    (is-failure (address-syntax :address-syntax
                                "expected a port from 1 to 65535 or the name of a service, got")
      (port-designator port "tcp" :connect)))
  (is (= 65536 (network-port (failure-of (port-designator 65536 "tcp" :connect))))))

(define-test "address.service" ()
  "A name that no service has is SERVICE-NOT-FOUND, and so is one over another protocol."
  (is-failure (service-not-found :service-not-found "no-such-service" "tcp")
    (port-designator "no-such-service" "tcp" :connect))
  (is-failure (service-not-found :service-not-found "tftp" "over tcp")
    (port-designator "tftp" "tcp" :connect)))

(define-test "address.service-where-there-is-no-table" ()
  "As in many a container: it is not the name that is wrong."
  (is (not (search "no table" (princ-to-string (failure-of (port-designator "no-such-service" "tcp"
                                                                            :connect))))))
  (sb-int:encapsulate 'port::service-rows 'none (constantly '()))
  (unwind-protect
       (progn
         (is-failure (service-not-found :service-not-found "over tcp" "no table of services")
           (open-socket "127.0.0.1" "no-such-service"))
         (is-failure (service-not-found :service-not-found "no table of services")
           (socket-service-port "no-such-service" nil)))
    (sb-int:unencapsulate 'port::service-rows 'none)))

(define-test "address.a-family-is-one-of-two-or-nil" ()
  (is (equal '(0 4 6) (mapcar #'family-designator '(nil :inet :inet6))))
  (dolist (family '(:local :inet4 4 t "inet"))
    (is-failure (usage-error :invalid "expected a family, :INET, :INET6 or NIL")
      (family-designator family))))

(define-test "address.blocks" ()
  "An address goes into a block with its port and scope, and comes out again."
  (dolist (text '("127.0.0.1" "::1" "fe80::1%4000000001"))
    (let* ((address (parse-address text)) (block (address-block address 4660)))
      (is (= 120 (length block)))
      (is (equalp #(18 52) (subseq block 2 4)))
      (is (= 4660 (block-port block)))
      (is (equalp address (block-address block))))))

(define-test "address.local-names-go-into-blocks-and-back" ()
  (let ((block (octets-of-size 120)))
    (is (null (block-address block)))
    (replace block '(1 2) :end2 2)
    (replace block '(47 97) :start1 8)
    (let ((address (block-address block)))
      (is (eq :local (address-family address)))
      (is (equal "/a" (princ-to-string address)))
      (is (equal "/a" (endpoint-text address 0)))
      (is (equalp block (address-block address 0))))
    (replace block '(0 98) :start1 8)
    (is (equal "@b" (princ-to-string (block-address block))))
    (setf (aref block 1) 0)
    (is (equal "" (princ-to-string (block-address block))))))

(define-test "address.endpoint-text" (:behaviour 55)
  "Ends as text; IPv4-mapped ones that the system reports are plain IPv4."
  (loop for (text expected) in '(("127.0.0.1" "127.0.0.1:80") ("::1" "[::1]:80")
                                 ("::ffff:127.0.0.1" "127.0.0.1:80"))
        for block = (address-block (parse-address text) 80)
        do (is (equal expected (endpoint-text (block-address block) (block-port block)))))
  (is (eq :inet (address-family (block-address (address-block (parse-address "::ffff:1.2.3.4")
                                                              80)))))
  (dotimes (index 12)                   ; every octet of the prefix counts
    (let ((octets (copy-seq (address-octets (parse-address "::ffff:1.2.3.4")))))
      (setf (aref octets index) 1)
      (is (eq :inet6 (address-family (block-address (address-block (make-address octets) 80))))))))
