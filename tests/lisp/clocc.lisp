;;;; clocc - the historical names for addresses, hosts and services.

(in-package :port/test)

(define-suite clocc "The interface of 1999.")

(defun find-external-symbol (name package)
  "The symbol called NAME that PACKAGE exports, or NIL."
  (multiple-value-bind (symbol status) (find-symbol name package)
    (and (eq status :external) symbol)))

(define-test "clocc.names-in-common" ()
  "Who uses PORT beside what CL-USER uses has to choose between no other names than the guide says."
  (dolist (package (package-use-list :common-lisp-user))
    (do-external-symbols (symbol :port)
      (is (or (member (find-external-symbol (symbol-name symbol) package) (list nil symbol))
              (member symbol '(retry stream-external-format timeout)))
          "~S is a name of ~A too" symbol (package-name package)))))

(defparameter *names-of-its-other-files*
  '(#:*lock-package-bindings* #:*logical-hosts-definitions* #:+eof+ #:+month-names+
    #:+threads-p+ #:+time-zones+ #:+week-days+ #:all-processes #:arglist #:case-error #:chdir
    #:class-slot-initargs #:class-slot-list #:close-pipe #:code #:compiled-file-p #:compose
    #:compose-all #:compose-f #:compose-safe #:current-process #:current-time
    #:default-directory #:defconst #:defcustom #:defsubst #:eof-p #:finalize #:gc #:get-lock
    #:get-package-lock #:getenv #:giveup-lock #:interrupt-process #:kill-process
    #:load-logical-host #:load-logical-host-def #:logical-host-p #:make-lock #:make-process
    #:map-in #:maybe-y-or-n-p #:mk-arr #:mkdir #:not-implemented #:package-lock-bind
    #:package-lock-unbind #:pathname-ensure-name #:pipe-input #:pipe-output #:probe-directory
    #:process-active-p #:process-name #:process-wait #:process-wait-with-timeout
    #:process-whostate #:process-yield #:processp #:quit #:remove-plist #:required-argument
    #:restart-process #:restore-package-lock #:rmdir #:run-prog #:safe-truename
    #:set-package-lock #:show-processes #:string->tz #:string-tokens
    #:structure-boa-constructors #:structure-copier #:structure-keyword-constructor
    #:structure-predicate #:structure-slots #:sysinfo #:tz->string #:un-unspecific
    #:unlock-package #:variable-not-special #:variable-special-p #:with-gensyms #:with-lock
    #:with-open-pipe #:with-timeout #:with-timeout-f #:without-scheduling #:y-or-n-p-timeout)
  "What the files of CLOCC's PORT beside net.lisp define.")

(define-test "clocc.room-for-its-other-files" ()
  "They can be loaded over this package, as old programs do: PORT defines nothing of their names."
  (dolist (name *names-of-its-other-files*)
    (let ((symbol (find-symbol (symbol-name name) :port)))
      (is (or (null symbol)
              (not (or (fboundp symbol) (boundp symbol) (find-class symbol nil))))
          "~S is defined in PORT" symbol))))

(define-test "clocc.ipaddr" (:behaviour 56)
  "Integers and dotted strings; no octal and no short forms."
  (loop for (dotted ipaddr) in '(("0.0.0.0" 0) ("127.0.0.1" 2130706433)
                                 ("255.255.255.255" 4294967295) ("1.2.3.4" 16909060))
        do (is (= ipaddr (dotted-to-ipaddr dotted)))
           (is (equal dotted (ipaddr-to-dotted ipaddr))))
  (dolist (text '("010.0.0.1" "127.1" "1.2.3.256" "1.2.3.4.5" "" "localhost" "::1" " 1.2.3.4"))
    (is-failure (address-syntax :address-syntax "expected an IP") (dotted-to-ipaddr text)))
  (dolist (datum (list -1 4294967296 nil "127.0.0.1" 1.0))
    (let ((condition (failure-of (ipaddr-to-dotted datum))))
      (is (typep condition '(and address-syntax type-error)))
      (is (not (typep datum (type-error-expected-type condition))))
      (is (typep 4294967295 (type-error-expected-type condition)))))
  (is (typep (failure-of (dotted-to-ipaddr 1)) '(and address-syntax type-error))))

;;; Hosts

(define-test "clocc.hostent" ()
  (let ((entry (make-hostent :name "a" :aliases '("b") :addr-list '("1.2.3.4"))))
    (is-true (hostent-p entry))
    (is (equal '("a" ("b") ("1.2.3.4") 2)
               (list (hostent-name entry) (hostent-aliases entry) (hostent-addr-list entry)
                     (hostent-addr-type entry))))))

(define-test "clocc.resolve-host-ipaddr" ()
  "A name brings all its addresses, in the order of RESOLVE, and its aliases."
  (with-names ()
    (let ((entry (resolve-host-ipaddr "many.test")))
      (is (equal "many.test" (hostent-name entry)))
      (is (equal (texts (resolve "many.test")) (hostent-addr-list entry))))
    (is (equal '("four.test" ("quattro.test") ("127.0.0.4") 2)
               (let ((entry (resolve-host-ipaddr "four.test")))
                 (list (hostent-name entry) (hostent-aliases entry) (hostent-addr-list entry)
                       (hostent-addr-type entry)))))
    (is (= 10 (hostent-addr-type (resolve-host-ipaddr "six.test"))))))

(define-test "clocc.aliases-are-other-names" ()
  "The canonical name is none of them, in whatever case the system has it there."
  (is (equal '("Quattro.test")
             (hostent-aliases (port::hostent-of '("four.test" "FOUR.test" "Quattro.test")
                                                (list (parse-address "127.0.0.4")))))))

(define-test "clocc.resolve-host-ipaddr-reverse" ()
  "A numeric host is looked up in reverse."
  (with-names ()
    (dolist (host (list "127.0.0.4" (dotted-to-ipaddr "127.0.0.4") (parse-address "127.0.0.4")))
      (let ((entry (resolve-host-ipaddr host)))
        (is (equal "four.test" (hostent-name entry)))
        (is (equal '("quattro.test") (hostent-aliases entry)))
        (is (equal '("127.0.0.4") (hostent-addr-list entry)))))
    (is-failure (host-not-found :host-not-found "127.9.9.9") (resolve-host-ipaddr "127.9.9.9"))
    (is-failure (host-not-found :host-not-found) (resolve-host-ipaddr "nosuch.invalid")))
  (is-failure (address-syntax :address-syntax) (resolve-host-ipaddr "127.1"))
  (is-failure (timeout :timed-out) (with-deadline (0) (resolve-host-ipaddr "one.test"))))

(define-test "clocc.resolve-host-ipaddr-restarts" ()
  "RETRY asks again, USE-VALUE asks for another host."
  (with-names ()
    (let ((asked '()))
      (is (equal "four.test"
                 (hostent-name
                  (handler-bind ((host-not-found (lambda (condition)
                                                   (push (network-host condition) asked)
                                                   (if (rest asked)
                                                       (use-value "four.test" condition)
                                                       (retry condition)))))
                    (resolve-host-ipaddr "nosuch.invalid")))))
      (is (equal '("nosuch.invalid" "nosuch.invalid") asked)))))

(define-test "clocc.ipaddr-closure" ()
  "The tables lead from hosts to entries and back; it ends although names lead back to where it
began."
  (with-names ()
    (multiple-value-bind (hosts entries) (ipaddr-closure "127.0.0.4")
      (is (equalp (resolve-host-ipaddr "127.0.0.4") (gethash "127.0.0.4" entries)))
      (is (equal "four.test" (hostent-name (gethash "FOUR.test" entries))))
      (is-true (gethash "quattro.test" entries))
      (loop for host being the hash-keys of entries using (hash-value entry)
            do (is (member host (gethash entry hosts) :test #'equalp)))
      (is (member "127.0.0.4" (gethash (resolve-host-ipaddr "four.test") hosts)
                  :test #'equal)
          "one entry is another that says the same"))))

(define-test "clocc.ipaddr-closure-asks-once" ()
  "For what nobody knows too, in whatever case it is named."
  (let ((asked '()))
    (sb-int:encapsulate 'resolve-host-ipaddr 'test
                        (lambda (resolve host)
                          (declare (ignore resolve))
                          (push host asked)
                          (if (equal host "known.test")
                              (make-hostent :name host :aliases '("gone.test" "Gone.test"))
                              (fail-as 'host-not-found :resolve :host-not-found :host host))))
    (unwind-protect
         (is (equal '("known.test") (loop for host being the hash-keys
                                            of (nth-value 1 (ipaddr-closure "known.test"))
                                          collect host)))
      (sb-int:unencapsulate 'resolve-host-ipaddr 'test))
    (is (equal '("known.test" "gone.test") (reverse asked)))))

(define-test "clocc.ipaddr-closure-gaps" ()
  "What cannot be looked up on the way is left out; a failure of the argument itself is signalled."
  (is (null (related-hostent "127.1")))
  (is-failure (timeout :timed-out) (with-deadline (0) (related-hostent "one.test")))
  (with-names ()
    (is (null (related-hostent "nosuch.invalid")))
    (is-true (gethash "127.0.0.9" (nth-value 1 (ipaddr-closure "dead.test"))))
    (is-failure (host-not-found :host-not-found "nosuch.invalid")
      (ipaddr-closure "nosuch.invalid")))
  (is-failure (timeout :timed-out) (with-deadline (0) (ipaddr-closure "one.test"))))

;;; Services

(define-test "clocc.servent" ()
  (let ((entry (make-servent :name "a" :aliases '("b") :port 7 :proto :udp)))
    (is-true (servent-p entry))
    (is (equal '("a" ("b") 7 :udp)
               (list (servent-name entry) (servent-aliases entry) (servent-port entry)
                     (servent-proto entry))))))

(define-test "clocc.socket-service-port" ()
  "A service by name, alias or number, in whatever case; ports are integers, protocols keywords."
  (flet ((facts (entry)
           (list (servent-name entry) (servent-port entry) (servent-proto entry))))
    (is (equal '("http" 80 :tcp) (facts (socket-service-port "http"))))
    (is (equal '("http" 80 :tcp) (facts (socket-service-port "WWW"))))
    (is (equal '("http" 80 :tcp) (facts (socket-service-port :http :tcp))))
    (is (equal '("http" 80 :tcp) (facts (socket-service-port 80))))
    (is (equal '("domain" 53 :udp) (facts (socket-service-port "domain" "udp"))))
    (is (= 53 (servent-port (socket-service-port "domain" nil))))
    (is (= 69 (servent-port (socket-service-port "tftp" nil))))
    (is (= 69 (servent-port (socket-service-port "TFTP" nil))))
    (is (typep (failure-of (socket-service-port "tftp")) 'service-not-found) "UDP by default")
    (is (member "www" (servent-aliases (socket-service-port "http")) :test #'equal))
    (is (= 80 (servent-port (let ((*print-base* 16)) (socket-service-port 80)))))))

(define-test "clocc.servents-are-in-lower-case" ()
  "However the system's table has them."
  (let ((entry (port::row-servent "Web 80/TCP WWW Http")))
    (is (equal "web" (servent-name entry)))
    (is (equal '("www" "http") (servent-aliases entry)))
    (is (equal '(80 :tcp) (list (servent-port entry) (servent-proto entry))))))

(define-test "clocc.services-at-the-descriptor-limit" (:behaviour 57)
  "A table that could not be opened is neither empty nor without the service that is asked for."
  (flet ((at-the-limit (function)
           (let ((old (set-descriptor-limit 0)))
             (unwind-protect (failure-of (funcall function))
               (set-descriptor-limit old)))))
    (dolist (failure (list (at-the-limit (lambda () (socket-service-port)))
                           (at-the-limit (lambda () (socket-service-port "http")))
                           (at-the-limit (lambda () (open-socket "127.0.0.1" "http")))))
      (is (typep failure 'resource-exhausted))
      (is (search "too many open files" (princ-to-string failure))))
    (is (equal "http" (network-port (at-the-limit (lambda () (socket-service-port "http"))))))))

(define-test "clocc.socket-service-port-fails" ()
  (is-failure (service-not-found :service-not-found "look up service port no-such-service failed")
    (socket-service-port "no-such-service"))
  (is-failure (service-not-found :service-not-found "over xtp")
    (socket-service-port "syslog" "xtp"))
  (dolist (service '(70000 -1 ""))
    (is-failure (address-syntax :address-syntax "expected a port from 0 to 65535 or the name")
      (socket-service-port service)))
  (is-failure (service-not-found :service-not-found "port ~ failed") (socket-service-port #\~))
  (dolist (service '(:no-such-service 0))
    (is (eql service (network-port (is-failure (service-not-found :service-not-found
                                                (format nil "got ~S" service))
                                     (socket-service-port service))))))
  (is (typep (failure-of (socket-service-port 1.5)) '(and address-syntax type-error)))
  (is (= 80 (servent-port (handler-bind ((network (lambda (condition)
                                                    (declare (ignore condition))
                                                    (invoke-restart 'use-value "http"))))
                            (socket-service-port "no-such-service"))))))

(define-test "clocc.all-services" ()
  "Without a service the whole table comes, and each of its rows is found again."
  (let ((all (socket-service-port)))
    (is (< 10 (length all)))
    (is (every #'servent-p all))
    (dolist (entry (subseq all 0 10))
      (is (= (servent-port entry)
             (servent-port (socket-service-port (servent-name entry) (servent-proto entry))))))))
