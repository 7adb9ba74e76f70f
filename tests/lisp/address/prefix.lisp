;;;; prefix - ranges of addresses, and kinds of addresses.

(in-package :port/test)

(define-suite prefix "Ranges of addresses, and kinds of addresses.")

(define-test "prefix.parses-and-prints" ()
  (loop for (text address length canonical)
          in '(("10.0.0.0/8" "10.0.0.0" 8) ("0.0.0.0/0" "0.0.0.0" 0) ("192.0.2.1/32" "192.0.2.1" 32)
               ("192.0.2.1" "192.0.2.1" 32 "192.0.2.1/32") ("::/0" "::" 0)
               ("2001:DB8::/32" "2001:db8::" 32 "2001:db8::/32") ("::1" "::1" 128 "::1/128")
               ("172.16.0.0/12" "172.16.0.0" 12) ("fe80::/10" "fe80::" 10)
               ("::ffff:10.0.0.0/104" "10.0.0.0" 8 "10.0.0.0/8"))
        for prefix = (parse-address-prefix text)
        do (is-true (address-prefix-p prefix))
           (is (equalp (parse-address address) (address-prefix-address prefix)))
           (is (= length (address-prefix-length prefix)))
           (is (equal (or canonical text) (princ-to-string prefix)))
           (is (equalp prefix (parse-address-prefix (or canonical text)))))
  (is-false (address-prefix-p "10.0.0.0/8"))
  (is (not (equalp (parse-address-prefix "10.0.0.0/8") (parse-address-prefix "10.0.0.0/9"))))
  (signals print-not-readable
    (let ((*print-readably* t))
      (prin1 (parse-address-prefix "::/0") (make-broadcast-stream)))))

(define-test "prefix.what-is-none-is-told-what-was-expected" ()
  (loop for (text expected)
          in '(("10.0.0.1/8" "expected 10.0.0.0/8, or more bits")
               ("10.0.0.128/24" "expected 10.0.0.0/24, or more bits")
               ("2001:db8::1/127" "expected 2001:db8::/127, or more bits")
               ("10.0.0.0/33" "bits from 0 to 32") ("::/129" "bits from 0 to 128")
               ("10.0.0.0/" "bits from 0 to 32") ("10.0.0.0/-1" "bits from 0 to 32")
               ("10.0.0.0/8/8" "bits from 0 to 32") ("10.0.0.0/255.0.0.0" "bits from 0 to 32")
               ("a.test/8" "a slash and a number of bits") ("/8" "a slash and a number of bits")
               ("10/8" "a slash and a number of bits") ("" "a slash and a number of bits")
               ("[::]/0" "a slash and a number of bits")
               ("fe80::%4000000001/10" "a slash and a number of bits"))
        do (is-failure (address-syntax :address-syntax "parse" expected "got")
             (parse-address-prefix text)))
  (is (typep (failure-of (parse-address-prefix 10)) 'type-error)))

(define-test "prefix.of-an-address-and-a-length-is-its-network" ()
  (loop for (address length expected)
          in `(("192.168.5.77" 23 "192.168.4.0/23") ("192.168.5.77" 0 "0.0.0.0/0")
               ("192.168.5.77" 32 "192.168.5.77/32") (,(parse-address "fe80::1:2%4000000001") 64
                                                      "fe80::/64")
               ("2001:db8::ffff" 125 "2001:db8::fff8/125") (2130706433 8 "127.0.0.0/8")
               ("::ffff:10.1.2.3" 8 "10.0.0.0/8") ("::ffff:10.1.2.3" 104 "10.0.0.0/8")
               ("::ffff:10.1.2.3" 96 "0.0.0.0/0") ("::ffff:10.1.2.3" 128 "10.1.2.3/32"))
        do (is (equal expected (princ-to-string (make-address-prefix address length)))))
  (loop for (address length) in '(("10.0.0.1" 33) ("::1" 129) ("10.0.0.1" -1) ("10.0.0.1" nil)
                                  ("10.0.0.1" "8"))
        do (is-failure (usage-error :invalid "expected a number of bits from 0 to" "got")
             (make-address-prefix address length)))
  (dolist (length '(33 95 129))
    (is-failure (usage-error :invalid "bits from 0 to 32, or from 96 to 128, got")
      (make-address-prefix "::ffff:10.0.0.1" length)))
  (is-failure (address-syntax :address-syntax "expected an IPv4 or IPv6 address" "localhost")
    (make-address-prefix "localhost" 8)))

(define-test "prefix.of-a-mapped-address-and-of-its-text-is-the-same" ()
  (loop for length from 96 to 128
        for prefix = (make-address-prefix "::ffff:10.1.2.3" length)
        do (is (equalp prefix
                       (parse-address-prefix (format nil "::ffff:~A/~D"
                                                     (address-prefix-address prefix) length))))))

(define-test "prefix.of-an-interface-contains-its-address" ()
  (dolist (interface (network-interfaces))
    (loop for address in (network-interface-addresses interface)
          for length in (network-interface-prefixes interface)
          do (is-true (address-in-prefix-p address (make-address-prefix address length))))))

(define-test "prefix.contains-what-begins-with-its-bits" ()
  "At every length, the first and the last address are in it, and those beside it are not."
  (flet ((address (number family)
           (make-address (let ((octets (blank (if (eq family :inet) 4 16))))
                           (loop for index downfrom (1- (length octets)) to 0
                                 for shift from 0 by 8
                                 do (setf (aref octets index) (ldb (byte 8 shift) number)))
                           octets))))
    (loop for (family bits) in '((:inet 32) (:inet6 128))
          for number = (ldb (byte bits 0) #xC0A8A5A5DEADBEEF0123456789ABCDEF)
          do (loop for length from 0 to bits
                   for size = (ash 1 (- bits length))
                   for first = (* size (floor number size))
                   for prefix = (make-address-prefix (address number family) length)
                   do (is (equalp (address first family) (address-prefix-address prefix)))
                      (is-true (address-in-prefix-p (address number family) prefix))
                      (is-true (address-in-prefix-p (address first family) prefix))
                      (is-true (address-in-prefix-p (address (+ first size -1) family) prefix))
                      (when (plusp length)
                        (is-false (address-in-prefix-p (address (1- first) family) prefix))
                        (is-false (address-in-prefix-p (address (+ first size) family)
                                                       prefix))))))
  (let ((prefix (parse-address-prefix "10.0.0.0/8")))
    (dolist (address (list "10.1.2.3" "::ffff:10.1.2.3" (parse-address "10.0.0.0") 167772161))
      (is-true (address-in-prefix-p address prefix)))
    (dolist (address '("11.0.0.0" "::1" "a00::"))
      (is-false (address-in-prefix-p address prefix)))
    (is-failure (address-syntax :address-syntax "expected an IPv4 or IPv6 address")
      (address-in-prefix-p "localhost" prefix)))
  (is-true (address-in-prefix-p "fe80::1%4000000001" (parse-address-prefix "fe80::/10")))
  (is-failure (usage-error :invalid
               "expected an ADDRESS-PREFIX, as PARSE-ADDRESS-PREFIX returns it, got")
    (address-in-prefix-p "10.0.0.1" "10.0.0.0/8")))

(define-test "prefix.kinds-of-addresses" ()
  "The first and the last of each range, and what is beside it."
  (loop for (kind . texts)
          in '((:unspecified "0.0.0.0" "::")
               (:loopback "127.0.0.0" "127.255.255.255" "::1" "::ffff:127.0.0.1")
               (:link-local "169.254.0.0" "169.254.255.255" "fe80::1%4000000001" "febf::")
               (:private "10.0.0.0" "10.255.255.255" "172.16.0.0" "172.31.255.255" "192.168.0.0"
                "192.168.255.255" "fc00::" "fdff::")
               (:shared "100.64.0.0" "100.127.255.255")
               (:broadcast "255.255.255.255")
               (:multicast "224.0.0.0" "239.255.255.255" "ff00::" "ffff::")
               (:documentation "192.0.2.0" "198.51.100.255" "203.0.113.7" "2001:db8::" "3fff::"
                "3fff:fff::")
               (:benchmarking "198.18.0.0" "198.19.255.255" "2001:2::")
               (:translated "64:ff9b::" "64:ff9b::7f00:1" "64:ff9b:1::" "2002:7f00:1::")
               (:reserved "0.0.0.1" "0.255.255.255" "192.0.0.0" "192.0.0.8" "192.88.99.1"
                "240.0.0.0" "255.255.255.254" "::2" "100::" "1fff::" "2001::" "2001:1::" "2001:1::4"
                "2001:4::" "2001:4:113::" "2001:1f::" "2001:40::" "2001:1ff::" "4000::" "5f00::"
                "fbff::" "fe00::" "fec0::")
               (:global "1.0.0.0" "9.255.255.255" "11.0.0.0" "100.63.255.255" "100.128.0.0"
                "126.255.255.255" "128.0.0.0" "169.253.255.255" "169.255.0.0" "172.15.255.255"
                "172.32.0.0" "192.0.0.9" "192.0.0.10" "192.0.1.0" "192.167.255.255" "192.169.0.0"
                "198.17.255.255" "198.20.0.0" "223.255.255.255" "2001:200::" "2003::" "3ffe::"
                "3fff:1000::" "::ffff:8.8.8.8" "2001:1::1" "2001:1::3" "2001:3::"
                "2001:3:ffff::" "2001:4:112::" "2001:20::" "2001:2f:ffff::" "2001:30::"
                "2001:3f:ffff::"))
        do (dolist (text texts)
             (is (eq kind (address-kind text)) "~A is ~S" text (address-kind text))))
  (is (eq :loopback (address-kind 2130706433)))
  (is (eq :loopback (address-kind (parse-address "::1"))))
  (is-failure (address-syntax :address-syntax "expected an IPv4 or IPv6 address" "localhost")
    (address-kind "localhost")))

(defun last-address (prefix)
  "The last address in PREFIX."
  (let ((octets (copy-seq (address-octets (address-prefix-address prefix)))))
    (loop for bit from (address-prefix-length prefix) below (* 8 (length octets))
          for (index place) = (multiple-value-list (floor bit 8))
          do (setf (ldb (byte 1 (- 7 place)) (aref octets index)) 1))
    (make-address octets)))

(define-test "prefix.the-registry-says-which-are-global" ()
  "The rows of the special-purpose address registries of IANA, IPv4 and IPv6, of July 2026, by what
they say to \"globally reachable\"; no answer is no. What is translated is another matter."
  (loop for (global-p . rows)
          in '((t "192.0.0.9" "192.0.0.10" "192.31.196.0/24" "192.52.193.0/24" "192.175.48.0/24"
                "2001:1::1" "2001:1::2" "2001:1::3" "2001:3::/32" "2001:4:112::/48" "2001:20::/28"
                "2001:30::/28" "2620:4f:8000::/48")
               (nil "0.0.0.0/8" "0.0.0.0" "10.0.0.0/8" "100.64.0.0/10" "127.0.0.0/8"
                "169.254.0.0/16" "172.16.0.0/12" "192.0.0.0/24" "192.0.0.0/29" "192.0.0.8"
                "192.0.0.170" "192.0.0.171" "192.0.2.0/24" "192.88.99.0/24" "192.88.99.2"
                "192.168.0.0/16" "198.18.0.0/15" "198.51.100.0/24" "203.0.113.0/24" "240.0.0.0/4"
                "255.255.255.255" "::1" "::" "64:ff9b:1::/48" "100::/64" "100:0:0:1::/64"
                "2001::/23" "2001::/32" "2001:2::/48" "2001:10::/28" "2001:db8::/32" "2002::/16"
                "3fff::/20" "5f00::/16" "fc00::/7" "fe80::/10"))
        do (loop for row in rows
                 for prefix = (parse-address-prefix row)
                 do (dolist (address (list (address-prefix-address prefix) (last-address prefix)))
                      (is (eq global-p (eq :global (address-kind address)))
                          "~A of ~A is ~S" address row (address-kind address))))))
