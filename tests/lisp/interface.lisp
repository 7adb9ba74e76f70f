;;;; interface - what this host has.

(in-package :port/test)

(define-suite interfaces "Interfaces and the host's name.")

(define-test interface.loopback ()
  (let* ((all (network-interfaces))
         (loopback (find "lo" all :key #'network-interface-name :test #'string=)))
    (is (every #'network-interface-p all))
    (is (apply #'< (mapcar #'network-interface-index all)))
    (is (typep loopback 'network-interface))
    (is (plusp (network-interface-index loopback)))
    (is (< 1000 (network-interface-mtu loopback)))
    (is (subsetp '(:up :loopback) (network-interface-flags loopback)))
    (is (member (parse-address "127.0.0.1") (network-interface-addresses loopback)
                :test #'equalp))
    (is (= 8 (cdr (assoc (parse-address "127.0.0.1")
                         (mapcar #'cons (network-interface-addresses loopback)
                                 (network-interface-prefixes loopback))
                         :test #'equalp))))
    (is (search "lo 127.0.0.1/8" (princ-to-string loopback)))))

(define-test interface.every-address-can-be-listened-on ()
  "But for those of interfaces that are down: their addresses are nobody's."
  (dolist (interface (network-interfaces))
    (when (member :up (network-interface-flags interface))
      (dolist (address (network-interface-addresses interface))
        (with-socket-server (server 0 :host address)
          (is (string= (princ-to-string address) (socket-server-host/port server))))))))

(define-test interface.rows ()
  "What the library says of an interface, in words."
  (let ((interface (port::parse-interface "7 tun/0 0 - 10.0.0.1/32 fe80::1/64")))
    (is (equal '(7 "tun/0" 0 () ("10.0.0.1" "fe80::1") (32 64))
               (list (network-interface-index interface) (network-interface-name interface)
                     (network-interface-mtu interface) (network-interface-flags interface)
                     (texts (network-interface-addresses interface))
                     (network-interface-prefixes interface)))))
  (is (eql #x7fffffff (port::interface-text #x7fffffff)) "there is none of that index"))

(define-test interface.host-name ()
  (is (string= (string-trim '(#\Newline) (uiop:run-program "uname -n" :output :string))
               (get-host-name))))
