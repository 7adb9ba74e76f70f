;;;; resolver - names to addresses and back. The names are those of tests/vectors/hosts.

(in-package :port/test)

(define-suite resolver "The resolver.")

(defun texts (addresses)
  (mapcar #'princ-to-string addresses))

(define-test "resolve.literals" ()
  "Literals, ipaddrs and addresses come back as they are, whatever the deadline: nothing is asked."
  (loop for (host text) in `(("127.0.0.1" "127.0.0.1") ("[::1]" "::1") (2130706433 "127.0.0.1")
                             (,(parse-address "::1") "::1"))
        do (is (equal (list text) (texts (resolve host :timeout 0)))))
  (is (equal '("127.0.0.1") (texts (resolve "127.0.0.1" :family :inet)))))

(define-test "resolve.literal-of-other-family" ()
  (is-failure (host-not-found :host-not-found "expected an address of family :INET6, got 127.0.0.1")
    (resolve "127.0.0.1" :family :inet6))
  (is-failure (host-not-found :host-not-found) (resolve "::1" :family :inet)))

(define-test "resolve.a-mapped-literal-is-of-either-family" ()
  "As getaddrinfo has it."
  (loop for (family text) in '((nil "::ffff:127.0.0.1") (:inet6 "::ffff:127.0.0.1")
                               (:inet "127.0.0.1"))
        do (is (equal (list text) (texts (resolve "::ffff:127.0.0.1" :family family))))))

(define-test "resolve.arguments-that-are-none-are-refused" (:behaviour (9 56))
  (is-failure (address-syntax :address-syntax "resolve 127.1 failed: expected") (resolve "127.1"))
  (is-failure (usage-error :invalid "family") (resolve "one.test" :family :ipv4))
  (is-failure (usage-error :invalid "family") (resolve "127.0.0.1" :family :ipv4))
  (is (typep (failure-of (resolve nil)) 'type-error))
  (dolist (timeout '(-1 "1" t))
    (signals type-error (resolve "one.test" :timeout timeout))))

(define-test "resolve.a-name-has-each-of-its-addresses-once" (:behaviour 48)
  "Every address of a name, in the resolver's order, once each."
  (with-names ()
    (is (equal '("127.0.0.1") (texts (resolve "one.test"))))
    (is (equal '("::1") (texts (resolve "six.test"))))
    (let ((all (texts (resolve "many.test"))))
      (is (equal '("127.0.0.2" "127.0.0.3" "::1") (sort (copy-list all) #'string<)))
      (is (equal (remove "::1" all :test #'equal) (texts (resolve "many.test" :family :inet))))
      (is (equal '("::1") (texts (resolve "many.test" :family :inet6)))))))

(define-test "resolve.a-name-that-nobody-has-is-told" (:behaviour 62)
  (with-names ()
    (let ((condition (is-failure (host-not-found :host-not-found
                                                 "resolve nosuch.invalid failed: host not found")
                       (resolve "nosuch.invalid"))))
      (is (equal '(:resolve "nosuch.invalid" nil)
                 (list (network-operation condition) (network-host condition)
                       (network-port condition))))
      (is (< 0 (port::network-seconds condition) 60))) ; after how long
    (is-failure (host-not-found :host-not-found) (resolve "one.test" :family :inet6))
    (is-failure (host-not-found :host-not-found "IDNA") (resolve "bücher.invalid"))))

(define-test "resolve.timeout" (:behaviour (1 9 50))
  "A deadline that has passed is a TIMEOUT that tells the limit; a huge one is none."
  (let ((condition (is-failure (timeout :timed-out "resolve one.test failed: timed out")
                     (with-deadline (0) (resolve "one.test" :timeout 5)))))
    (is (eq :resolve (network-operation condition)))
    (is (= 0 (timeout-time condition))))
  (is-failure (timeout :timed-out)
    (call-with-deadline 0 (lambda () (reverse-resolve "127.0.0.4" :timeout nil))))
  (is (= 0 (timeout-time (failure-of (with-deadline (9) (resolve "one.test" :timeout 0))))))
  (is (= 1/1000000000 (timeout-time (failure-of (resolve "one.test" :timeout 1/1000000000)))))
  (is (= 1/1000000000 (timeout-time (failure-of (with-deadline (1/1000000000)
                                                  (resolve "one.test" :timeout 9))))))
  (with-names ()
    (is (equal '("127.0.0.1") (texts (resolve "one.test" :timeout (expt 10 40)))))))

(define-test "resolve.nothing-is-asked-once-the-limit-has-passed" ()
  (let ((asked nil))
    (flet ((open-query ()
             (setf asked t)
             (funcall (port::opener "one.test" 0 0))))
      (is-failure (timeout :timed-out) (port::call-with-answer #'open-query "one.test" 0 #'list))
      (is (null asked))
      (with-names ()
        (port::call-with-answer #'open-query "one.test" nil #'list)
        (is-true asked)))))

(define-test "resolve.goes-on-where-it-was-after-wait-longer" ()
  (with-names ()
    (let ((asked 0))
      (flet ((wait-longer-once (condition)
               (incf asked)
               (when (= 1 asked)
                 (wait-longer 10 condition))))
        (handler-bind ((timeout #'wait-longer-once))
          (is (consp (resolve "many.test" :timeout 0)))
          (setf asked 0)
          (is (stringp (reverse-resolve "127.0.0.1" :timeout 0)))
          (setf asked 0)
          (is (consp (with-deadline (0) (resolve "many.test"))))
          (is (= 1 asked)))))))

(define-test "resolve.wait-longer-and-its-seconds" ()
  "The condition tells those that were given last."
  (with-names ()
    (let ((given '(0 10)) (told '()))
      (handler-bind ((timeout (lambda (condition)
                                (push (timeout-time condition) told)
                                (wait-longer (pop given) condition))))
        (is (consp (resolve "many.test" :timeout 1/1000000000))))
      (is (equal '(0 1/1000000000) told)))))

(define-test "resolve.restarts" ()
  "USE-VALUE resolves another host; RETRY asks again, with a timeout of its own."
  (is (equal '("127.0.0.1")
             (handler-bind ((network (lambda (condition)
                                       (declare (ignore condition))
                                       (invoke-restart 'use-value "127.0.0.1"))))
               (texts (resolve "127.1")))))
  (let ((failures 0))
    (is-failure (timeout :timed-out)
      (handler-bind ((timeout (lambda (condition)
                                (declare (ignore condition))
                                (when (< (incf failures) 3)
                                  (invoke-restart 'retry)))))
        (with-deadline (0) (resolve "one.test"))))
    (is (= 3 failures)))
  (with-names ()
    (is (equal "four.test" (handler-bind ((resolve-error (lambda (condition)
                                                           (use-value "127.0.0.4" condition))))
                             (reverse-resolve "127.9.9.9"))))))

(define-test "resolve.reverse" ()
  "The name of an address, whatever form it is given in."
  (with-names ()
    (is (equal "four.test" (reverse-resolve "127.0.0.4")))
    (is (equal "four.test" (reverse-resolve (parse-address "127.0.0.4"))))
    (is (equal "four.test" (reverse-resolve (dotted-to-ipaddr "127.0.0.4"))))
    ;; The system's name server is asked; there may be none.
    (let ((failure (failure-of (reverse-resolve "127.9.9.9"))))
      (is (typep failure '(or host-not-found resolver-try-again)))
      (is-report failure "resolve 127.9.9.9 failed: "))))

(define-test "resolve.reverse-arguments" ()
  (is-failure (address-syntax :address-syntax "expected an IPv4 or IPv6 address")
    (reverse-resolve "one.test"))
  (is-failure (address-syntax :address-syntax) (reverse-resolve "127.1"))
  (is-failure (address-syntax :address-syntax "expected an IPv4 or IPv6 address")
    (reverse-resolve (port::%make-address :local (octets-like "/x"))))
  (is (typep (failure-of (reverse-resolve :localhost)) 'type-error))
  (is-failure (timeout :timed-out) (reverse-resolve "127.0.0.4" :timeout 0)))

(defun place-in (handle)
  "The place that HANDLE, a query or a dial, has in the library's table: where nothing is left open
one that was used before."
  (ldb (byte 20 0) handle))

(defun query-place ()
  (port::call-with-query (port::opener "one.test" 0 0) #'place-in))

(define-test "resolve.unwound" (:behaviour 26 :limit 60)
  "A throw out of a query at any moment leaves nothing behind."
  (with-names ()
    (let ((place (query-place)))
      (dotimes (round 300)
        (catch 'out
          (resolve-until-thrown)))
      (is (> 100 (- (query-place) place))))))

(defun resolve-until-thrown ()
  "Resolve again and again until another thread makes this one throw to OUT."
  (let* ((here sb-thread:*current-thread*)
         (thrower (in-thread (lambda ()
                               (sleep (random 0.0005))
                               (sb-thread:interrupt-thread here
                                                           (lambda () (throw 'out nil)))))))
    (unwind-protect (loop (resolve "one.test"))
      (sb-sys:without-interrupts
        (join thrower)))))

(define-test "resolve.threads" (:behaviour 20)
  "Many threads at once each get their own answer."
  (with-names ()
    (let* ((names '(("one.test" "127.0.0.1") ("four.test" "127.0.0.4") ("six.test" "::1")))
           (threads (loop repeat 10
                          append (loop for (name text) in names
                                       collect (let ((name name) (text text))
                                                 (in-thread
                                                  (lambda ()
                                                    (equal (list text)
                                                           (texts (resolve name))))))))))
      (is (every #'identity (mapcar #'join threads))))))

(define-test "resolve.host-as-given" ()
  "A condition has the host as the caller gave it, were it a literal, a number or a pathname."
  (dolist (host (list "::1" "[::1]" (parse-address "::1") 1))
    (destructuring-bind (family other) (if (eql host 1) '(:inet6 :inet) '(:inet :inet6))
      (dolist (call (list (lambda () (resolve host :family family))
                          (lambda () (open-socket host 1 :family family))
                          (lambda () (open-socket "127.0.0.1" 1 :local-host host :family family))
                          (lambda () (open-socket-server 0 :host host :family family))
                          (lambda () (open-datagram-socket :host host :family family))
                          (lambda () (open-datagram-socket :remote-host host :remote-port 1
                                                           :family family))))
        (is (eq host (network-host (is-failure (host-not-found
                                                :host-not-found
                                                (format nil "of family ~S, got" family)
                                                (format nil "of family ~S" other))
                                     (funcall call))))))))
  (with-datagram-socket (socket :family :inet)
    (let ((host "::1"))
      (is (eq host (network-host (failure-of (socket-send socket (octets 1)
                                                          :host host :port 1)))))))
  (with-names ()
    (dolist (host (list "192.0.2.77" #xC000024D (parse-address "192.0.2.77")))
      (is (eq host (network-host (failure-of (reverse-resolve host)))))
      (is (eq host (network-host (failure-of (resolve-host-ipaddr host)))))))
  (let ((path (make-pathname :name (make-string 200 :initial-element #\a))))
    (is (eq path (network-host (is-failure (address-syntax :address-syntax "1 to 108 octets")
                                 (open-unix-socket path)))))))
