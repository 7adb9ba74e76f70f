;;;; tls - TLS on connections: whom it takes for whom, what ends a handshake, how a session ends.
;;;;
;;;; That sockets with TLS are streams like all others the tests of streams show, which run over
;;;; pairs of the kind :TLS, too.

(in-package :port/test)

(define-suite tls "TLS.")

(defun handshake-step (socket options)
  "Go on with the handshake of SOCKET: true once it is done, the condition that ended it, or NIL."
  (let ((condition (failure-of (when (apply #'agreeing-p socket options)
                                 (return-from handshake-step t)))))
    (is (typep condition '(or null network)))
    condition))

(defun client-options (host &rest more)
  (append more (list :context (client-context) :host host)))

(defun server-options (&optional (context (server-context)))
  (list :side :server :context context))

(defun handshake-outcome (socket options)
  "As HANDSHAKE-STEP; closes SOCKET where it has failed, by which all of the alert goes."
  (let ((outcome (handshake-step socket options)))
    (when (typep outcome 'condition)
      (failure-of (close socket)))
    outcome))

(defun come-to-terms (client server client-options server-options)
  "Shake hands in this thread. Values: what it has come to at either side: T, or the condition."
  (loop with one = nil and other = nil
        until (and one other)
        do (setf one (or one (handshake-outcome client client-options))
                 other (or other (handshake-outcome server server-options)))
        finally (return (values one other))))

(defmacro with-open-contexts ((&rest bindings) &body body)
  "Run BODY with contexts, which are closed afterwards."
  (if bindings
      `(let (,(first bindings))
         (unwind-protect (with-open-contexts ,(rest bindings) ,@body)
           (close ,(first (first bindings)))))
      `(progn ,@body)))

(defun outcome (client-options server-options)
  "What COME-TO-TERMS says of a new connection."
  (with-pair (client server :inet)
    (come-to-terms client server client-options server-options)))

;;; Contexts

(define-test tls.files-that-will-not-do ()
  "Each is named, with what is wrong with it."
  (flet ((file (name) (certificate-file name)))
    (loop for (class options . parts)
            in `((tls-error (:trust ,(file "none.pem")) "none.pem: no certificate")
                 (tls-error (:certificate ,(file "none.pem")) "none.pem: no certificate: ")
                 (tls-error (:certificate ,(file "server.pem"))
                            "server.pem: no private key without a passphrase: ")
                 (tls-error (:certificate ,(file "server.pem") :key ,(file "client.key"))
                            "server.pem with " "client.key: key values mismatch")
                 (tls-error (:certificate ,(file "server.pem") :key ,(file "locked.key"))
                            "locked.key: no private key without a passphrase: ")
                 (tls-error (:certificate ,(file "server.pem") :key ,(file "locked.key")
                             :passphrase "secrets")
                            "locked.key: no private key with this passphrase: ")
                 (tls-error (:trust "/dev/zero") "/dev/zero: not a regular file")
                 (tls-error (:certificate ,(file "server.pem") :key "/dev/zero")
                            "/dev/zero: not a regular file")
                 (network (:trust "/nowhere/a.pem") "/nowhere/a.pem: no such file")
                 (network (:certificate ,(file "")) ": is a directory")
                 (network (:trust (:system "/nowhere/a.pem")) "/nowhere/a.pem: no such file")
                 (network (:certificate "/nowhere/a.pem") "/nowhere/a.pem: no such file")
                 (network (:certificate ,(file "server.pem") :key "/nowhere/a.key")
                          "/nowhere/a.key: no such file"))
          do (let ((condition (failure-of (apply #'make-tls-context options))))
               (is (typep condition class) "~S: ~S" options condition)
               (is (not (typep condition 'usage-error)))
               (apply #'is-report condition "set up TLS failed: cannot use " parts)))))

(define-test tls.a-key-is-opened-by-its-passphrase ()
  "A string, or what a function returns whenever the files are read."
  (let ((said "secret") (asked 0))
    (flet ((context (passphrase)
             (make-tls-context :certificate (certificate-file "server.pem")
                               :key (certificate-file "locked.key") :passphrase passphrase))
           (ask ()
             (incf asked)
             said))
      (with-open-contexts ((text (context said)) (asking (context #'ask)))
        (dolist (context (list text asking))
          (is (eq t (outcome (client-options "good.test") (server-options context)))))
        (reload-tls-context text)
        (is (= 1 asked))
        (reload-tls-context asking)
        (is (= 2 asked))
        (setf said "changed")
        (is (typep (failure-of (reload-tls-context asking)) 'tls-error))
        (is (eq t (outcome (client-options "good.test") (server-options asking)))))
      (dolist (wrong (list 7 :secret (make-string 513 :initial-element (code-char 233))))
        (is-failure (usage-error :invalid "expected a passphrase")
          (context wrong))))))

(define-test tls.pathnames-name-files-too ()
  (with-open-contexts ((context (make-tls-context
                                 :certificate (checkout-file "build/tls/server.pem")
                                 :key (checkout-file "build/tls/server.key")
                                 :trust (list (checkout-file "build/tls/authority.pem")
                                              (checkout-file "build/tls/")))))
    (is (eq t (outcome (client-options "good.test") (server-options context))))))

(define-test tls.described ()
  (with-pair (client server :inet)
    (flet ((says-p (socket)
             (search "TLS: TLSv1." (with-output-to-string (stream) (describe socket stream)))))
      (is (not (says-p client)))
      (is (not (says-p server)))
      (come-to-terms client server (client-options "good.test") (server-options))
      (is (says-p client))
      (is (says-p server))
      (is (search "CN=server" (with-output-to-string (stream) (describe client stream))))
      (close client)
      (is (not (says-p client))))))

(define-test tls.a-context-that-is-closed ()
  "It starts no session, and those that it has started go on."
  (let ((context (make-server-context)))
    (is (search "both.pem" (princ-to-string context)))
    (is (not (search "closed" (princ-to-string context))))
    (is-true (tls-context-p context))
    (with-pair (client server :inet)
      (come-to-terms client server (client-options "good.test") (server-options context))
      (is (eq t (close context)))
      (is (null (close context)))
      (is (search "(closed)" (princ-to-string context)))
      (send-octets client "still there" 10)
      (is (equal "still there" (read-line server))))
    (with-pair (client server :inet)
      (is-failure (usage-error :closed "expected a context that is open")
        (start-tls server :side :server :context context))
      (is (eq :open (socket-state client))))))

(defun drop-contexts (count)
  "Make COUNT contexts and keep none: what the library has for them. On another thread, so that no
word of this stack looks like one."
  (join (in-thread (lambda ()
                     (loop repeat count
                           collect (port::context-handle (make-client-context)))))))

(define-test tls.contexts-that-nobody-refers-to-are-closed (:limit 60)
  "Once another is made; one that another shows by name is referred to."
  (let* ((handles (drop-contexts 50))
         (server (make-server-context :by-name (list (make-server-context)))))
    (is-true (wait-until (lambda ()
                           (sb-ext:gc :full t)
                           (close (make-client-context))
                           (loop for handle in handles
                                 always (minusp (port.ffi:lport-tls-context-verify
                                                 handle port.ffi:+lport-tls-verify-server+))))
                         20))
    (is (eq t (outcome (client-options "good.test") (server-options server))))
    (reload-tls-context server)
    (is (eq t (close server)))))

(define-test tls.wrong-arguments ()
  "All are told of before anything is sent, and leave the socket as it was."
  (dolist (options '((:trust 3) (:trust (3 . 4)) (:trust :sytem) (:verify :always)
                     (:versions ()) (:versions :tls-1.2) (:versions (:tls-1.1))
                     (:versions (:tls-1.3 :tls-1.2)) (:versions (:tls-1.2 :tls-1.2))
                     (:protocols "h2") (:protocols ("")) (:protocols ("a,b")) (:protocols (:h2))
                     (:protocols ("a b")) (:certificate 3) (:key "/nowhere/a.key")
                     (:passphrase "secret")))
    (is-mistyped (lambda () (apply #'make-tls-context options)) "set up TLS failed"))
  (is-mistyped (lambda ()
                 (make-tls-context :protocols (list (make-string 255 :initial-element #\a))))
               "at most 254")
  (with-pair (client server :inet)
    (dolist (options `((:host nil) (:host "") (:host ".") (:host 3.5) (:host :good)
                       (:host "good.test" :side :both) (:host "good.test" :timeout -1)
                       (:host "good.test" :context :default)
                       (:side :server :context nil)
                       (:side :server :context ,(server-context) :host "good.test")))
      (is-mistyped (lambda ()
                     (apply #'start-tls client (append options (list :context
                                                                     (client-context)))))
                   "expected"))
    (dolist (socket (list nil 3 "socket"))
      (is-mistyped (lambda () (start-tls socket :host "good.test")) "a SOCKET")
      (is-mistyped (lambda () (tls-info socket)) "a SOCKET")
      (is-mistyped (lambda () (tls-peer-certificate socket)) "a SOCKET"))
    (is (null (tls-info client)))
    (is (null (tls-peer-certificate client)))
    (is (eq :open (socket-state server)) "something was sent")
    (send-octets client "as it was" 10)
    (is (equal "as it was" (read-line server)))))

(define-test tls.a-name-longer-than-any ()
  (with-pair (client server :inet)
    (is-failure (usage-error :invalid)
      (apply #'start-tls client (client-options (make-string 300 :initial-element #\a))))
    (is (eq :open (socket-state server)))))

(define-test tls.not-twice ()
  (with-pair (client server :tls)
    (is-failure (usage-error :invalid "expected a socket without TLS")
      (apply #'start-tls client (client-options "good.test")))
    (send-octets client "one" 10)
    (is (equal "one" (read-line server)))))

(define-test tls.unknown-keywords ()
  (with-pair (client server :inet)
    (dolist (call (list (lambda () (start-tls client :hots "good.test"))
                        (lambda () (make-tls-context :hots "good.test"))
                        (lambda () (open-tls-socket "127.0.0.1" 9 :hots "good.test"))))
      (is-failure (usage-error :invalid "expected keywords among" "got :HOTS")
        (funcall call)))))

;;; Who is who

(define-test tls.both-sides-hear-of-a-name-that-does-not-fit ()
  "Both sides hear of what does not fit; which names fit is in tls-refusals.lisp."
  (loop for (host . good) in '(("good.test" . t) ("a.wild.test" . t) ("::1" . t)
                               ("good.test.evil.test") ("a.b.wild.test") ("127.0.0.2"))
        do (multiple-value-bind (client server) (outcome (client-options host) (server-options))
             (if good
                 (is (equal '(t t) (list client server)) "~A: ~A" host client)
                 (progn
                   (is (typep client 'certificate-error) "~A: ~A" host client)
                   (is-report client "handshake with 127.0.0.1:" "mismatch")
                   (is (typep server 'tls-error) "~A: ~A" host server)
                   (is (not (typep server 'certificate-error)))
                   (is-report server "alert"))))))

(define-test tls.certificates-that-are-not-good ()
  "Each is refused for its reason; who verifies nobody takes them all, by whatever name."
  (flet ((context (name)
           (apply #'make-tls-context (identity-of name))))
    (with-open-contexts ((expired (context "expired")) (stranger (context "stranger"))
                         (careless (make-client-context :verify nil)))
      (loop for (context reason) in `((,expired "expired") (,stranger "self"))
            do (let ((client (outcome (client-options "good.test") (server-options context))))
                 (is (typep client 'certificate-error))
                 (is-report client reason))
               (dolist (host '("good.test" "another.test" nil))
                 (is (eq t (outcome (list :context careless :host host)
                                    (server-options context))))))
      (with-open-contexts ((distrustful (make-tls-context
                                         :trust (certificate-file "stranger.pem"))))
        (is-report (outcome (list :context distrustful :host "good.test") (server-options))
                   "unable to get local issuer")))))

(defun dialogue (client-options server-options)
  "Values: what came of a handshake and of an octet that the server then sends, at the client; at
the server."
  (with-pair (client server :inet)
    (multiple-value-bind (one other) (come-to-terms client server client-options server-options)
      (when (eq t other)
        (send-octets server 7))
      (values (if (eq t one)
                  (or (failure-of (is (= 7 (read-byte client)))) t)
                  one)
              other))))

(define-test tls.certificates-of-clients ()
  "Who is asked for one, and has to have one, is as the server's context says. With TLS 1.3 a client
has done its part when it is refused, and hears of it when it reads."
  (with-open-contexts ((known (apply #'make-client-context (identity-of "client")))
                       (stranger (apply #'make-client-context (identity-of "stranger")))
                       (careless (make-server-context :verify nil))
                       (plain (make-server-context :verify t))
                       (given (make-server-context :verify :given))
                       (required (make-server-context :verify :required)))
    (loop for (server client good)
            in `((,careless ,known t) (,careless ,stranger t) (,careless ,(client-context) t)
                 (,plain ,known t) (,plain ,stranger t) (,plain ,(client-context) t)
                 (,given ,known t) (,given ,stranger nil) (,given ,(client-context) t)
                 (,required ,known t) (,required ,stranger nil)
                 (,required ,(client-context) nil))
          do (multiple-value-bind (one other)
                 (dialogue (list :context client :host "good.test") (server-options server))
               (cond (good (is (equal '(t t) (list one other)) "~A" other))
                     ;; an octet at a time, the alert of a server may be overtaken by its end
                     (t (is (typep one (if (weather-p) 'network 'tls-error)) "~A" one)
                        (is (typep other 'certificate-error) "~A" other)
                        (when (eq client (client-context))
                          (is-report other "certificate refused: none was shown"))))))))

(define-test tls.protocols-are-agreed-on ()
  (loop for (client server agreed)
          in '((("h2" "http/1.1") ("http/1.1" "h2") "http/1.1") (("h2") ("h2") "h2")
               (("h2") () nil) (() ("h2") nil) (("h2") ("http/1.1") :none))
        do (with-open-contexts ((ours (make-client-context :protocols client))
                                (theirs (make-server-context :protocols server)))
             (with-pair (a b :inet)
               (let ((outcomes (multiple-value-list
                                (come-to-terms a b (list :context ours :host "good.test")
                                        (server-options theirs)))))
                 (if (eq :none agreed)
                     (is (every (lambda (outcome) (typep outcome 'tls-error)) outcomes) "~S"
                         outcomes)
                     (dolist (socket (list a b))
                       (is (equal agreed (getf (tls-info socket) :protocol))))))))))

(define-test tls.versions ()
  (flet ((agreed (client server)
           (with-open-contexts ((ours (make-client-context :versions client))
                                (theirs (make-server-context :versions server)))
             (with-pair (a b :inet)
               (let ((outcome (come-to-terms a b (list :context ours :host "good.test")
                                      (server-options theirs))))
                 (if (eq t outcome)
                     (getf (tls-info b) :version)
                     (type-of outcome)))))))
    (is (equal "TLSv1.3" (agreed '(:tls-1.2 :tls-1.3) '(:tls-1.2 :tls-1.3))))
    (is (equal "TLSv1.2" (agreed '(:tls-1.2) '(:tls-1.2 :tls-1.3))))
    (is (equal "TLSv1.2" (agreed '(:tls-1.2 :tls-1.3) '(:tls-1.2))))
    (is (equal "TLSv1.3" (agreed '(:tls-1.2 :tls-1.3) '(:tls-1.3))))
    (is (subtypep (agreed '(:tls-1.2) '(:tls-1.3)) 'tls-error))))

(define-test tls.what-is-known-of-a-session ()
  (with-pair (client server :tls)
    (let ((info (tls-info client)))
      (is (equal "TLSv1.3" (getf info :version)))
      (is (search "TLS_" (getf info :cipher)))
      (is (equal "good.test" (getf info :server-name)))
      (is (search "CN=server" (getf info :subject)))
      (is (search "CN=authority of the tests" (getf info :issuer)))
      (is (char= #\Z (char (reverse (getf info :valid-until)) 0)))
      (is (null (getf info :protocol))))
    (let ((info (tls-info server)))
      (is (equal "good.test" (getf info :server-name)))
      (is (null (getf info :subject))))
    (is (equalp (uiop:run-program (list "openssl" "x509" "-outform" "DER" "-in"
                                        (certificate-file "server.pem"))
                                  :output (lambda (stream)
                                            (coerce (loop for octet = (read-byte stream nil)
                                                          while octet collect octet)
                                                    'vector))
                                  :element-type '(unsigned-byte 8))
                (tls-peer-certificate client)))
    (is (null (tls-peer-certificate server)))
    (close client)
    (is-failure (socket-closed :closed) (tls-info client))
    (is-failure (socket-closed :closed) (tls-peer-certificate client))))

;;; Time

(defun silent-handshake (client)
  (apply #'start-tls client (client-options "good.test")))

(define-test tls.a-server-that-never-answers ()
  "Every limit ends the handshake, and it goes on where the same call is made again."
  (with-pair (client server :inet)
    (flet ((times-out (function)
             (let ((condition (failure-of (funcall function))))
               (is (typep condition 'timeout) "~A" condition)
               (is (eq :handshake (network-operation condition))))))
      (times-out (lambda () (apply #'start-tls client (client-options "good.test"
                                                                      :timeout 0.01))))
      (times-out (lambda () (with-deadline (0.01) (silent-handshake client))))
      (setf (socket-timeout client :input) 0.01)
      (times-out (lambda () (silent-handshake client)))
      (setf (socket-timeout client :input) nil
            (socket-deadline client :input) 0.01)
      (times-out (lambda () (silent-handshake client)))
      (setf (socket-deadline client :input) nil)
      (let ((thread (start-blocked (lambda () (silent-handshake client)))))
        (setf (socket-deadline client :input) 0)
        (is (typep (join thread) 'timeout))
        (setf (socket-deadline client :input) nil))
      (is (equal '(t t) (multiple-value-list
                         (come-to-terms client server (client-options "good.test")
                                 (server-options)))))
      (send-octets client "after all" 10)
      (is (equal "after all" (read-line server))))))

(define-test tls.waiting-longer-for-a-handshake ()
  (with-pair (client server :inet)
    (let* ((timeouts 0)
           (other nil)
           (outcome (handler-bind ((timeout (lambda (condition)
                                              (when (= 2 (incf timeouts))
                                                (setf other (in-thread
                                                             (lambda ()
                                                               (apply #'start-tls server
                                                                      (server-options))))))
                                              (wait-longer (if (= 1 timeouts) 0.01 10)
                                                           condition))))
                      (apply #'start-tls client (client-options "good.test" :timeout 0.01)))))
      (is (eq client outcome))
      (is (= 2 timeouts))
      (is (eq server (join other))))))

(define-test tls.a-handshake-that-cannot-send-has-the-limits-of-output-too ()
  "What was written before goes first; whoever waits longer for it is not told of the same again."
  (with-pair (client server :inet)
    (stuff client server)
    (dolist (direction '(:output :input))
      (setf (socket-timeout client direction) 0.05)
      (multiple-value-bind (seconds count)
          (seconds-of (lambda ()
                        (let ((count 0))
                          (handler-case
                              (handler-bind ((timeout (lambda (condition)
                                                        (when (= 1 (incf count))
                                                          (wait-longer 0.2 condition)))))
                                (begin-as-client client))
                            (timeout () count)))))
        (is (eql 2 count) "~S: ~A" direction count)
        (is (<= 0.25 seconds 5) "~S: ~F s" direction seconds))
      (setf (socket-timeout client direction) nil))))

(define-test tls.closed-during-the-handshake ()
  (with-pair (client server :inet)
    (is-woken-by-close client (lambda () (silent-handshake client))))
  (with-pair (client server :inet)
    (is-woken-by-close server (lambda () (apply #'start-tls server (server-options))))))

(define-test tls.thrown-out-of-the-handshake ()
  "It goes on afterwards; and where it is not to go on, a close leaves nothing."
  (with-pair (client server :inet)
    (let* ((waits (lport-wait-count))
           (thread (start-blocked (lambda () (catch 'out (silent-handshake client))))))
      (sb-thread:interrupt-thread thread (lambda () (throw 'out :out)))
      (is (eq :out (join thread)))
      (is (= waits (lport-wait-count)))
      (is (eq t (come-to-terms client server (client-options "good.test") (server-options))))))
  (with-pair (client server :inet)
    (let ((thread (start-blocked (lambda () (catch 'out (silent-handshake client))))))
      (sb-thread:interrupt-thread thread (lambda () (throw 'out :out)))
      (join thread)
      (is (eq t (close client))))))

(define-test faults.tls-without-memory (:suite faults :faults t)
  "A session that there is no memory for has not begun, and can begin later."
  (with-pair (client server :inet)
    (faults-fail 1 +no-buffers+ :call "calloc" :count 1000000)
    (unwind-protect (is-failure (resource-exhausted :memory-exhausted)
                      (begin-as-client client))
      (faults-clear))
    (agree client server)
    (send-octets client "as ever" 10)
    (is (equal "as ever" (read-line server)))))

(define-test tls.nothing-is-said-before-the-handshake-is-done ()
  "Not under plain text either."
  (with-pair (client server :inet)
    (is (typep (failure-of (apply #'start-tls client (client-options "good.test" :timeout 0.01)))
               'timeout))
    (is (typep (failure-of (send-octets client "a secret")) 'network))
    (clear-output client)
    (is (eql 22 (read-byte server)) "a client hello")
    (setf (socket-timeout server :input) 0.05)
    (is (not (search (octets-like "secret")
                     (loop for octet = (handler-case (read-byte server) (timeout () nil))
                           while octet collect octet))))))

(define-test tls.threads-on-both-sides (:limit 60)
  "Both ways at once, each side on two threads, from the handshake on."
  (with-pair (client server :inet)
    (let* ((state (sb-ext:seed-random-state (test-seed)))
           (asked (random-octets (amount 3000000) state))
           (answered (random-octets (amount 2000000) state))
           (other (in-thread (lambda ()
                               (apply #'start-tls server (server-options))
                               (talk server answered)))))
      (apply #'start-tls client (client-options "good.test"))
      (is (equalp answered (talk client asked)))
      (is (equalp asked (join other))))))

;;; What is in the library, and what is for it alone

(defun hold-in-library (client server count)
  "Send COUNT octets as one record, of which SERVER takes the first, so that its buffer is empty."
  (send-octets client (make-string count :initial-element #\x))
  (is (= 1 (with-deadline (10) (read-some server (blank 1)))))
  (is (zerop (buffered-octets server))))

(define-test tls.octets-in-the-library-are-input ()
  "However one waits for them: the system knows nothing of them."
  (with-pair (client server :tls)
    (hold-in-library client server 3000)
    (is (eq :input (socket-state server)))
    (is-true (listen server))
    (is (eq server (first (wait-for-input server :timeout 5))))
    (is (equal (list server) (wait-for-input (list client server) :timeout 5)))
    (is-true (wait-for-stream server 5))
    (do-pollers (poller)
      (poller-add poller server)
      (is (equal `((,server nil :input)) (poller-wait poller :timeout 5)))
      (is (equal `((,server nil :input)) (poller-wait poller :timeout 5)))
      (poller-remove poller server))
    (let ((room (blank 2999)))
      (is (= 2999 (read-octets server room)))
      (is (every (lambda (octet) (= octet (char-code #\x))) room)))
    (is (eq :open (socket-state server)))
    (is (null (wait-for-input server :timeout 0)))))

(define-test tls.a-poller-hears-of-what-a-read-has-left ()
  "Also where the socket is in it already, and the read is another thread's."
  (do-pollers (poller)
    (with-pair (client server :tls)
      (poller-add poller server)
      (is (null (poller-wait poller :timeout 0)))
      (send-octets client "abcdefghij")
      (is (equal `((,server nil :input)) (poller-wait poller :timeout 5)))
      (is (= 1 (read-some server (blank 1))))
      (is (equal `((,server nil :input)) (poller-wait poller :timeout 5)))
      (is (= 9 (read-octets server (blank 9))))
      (is (null (poller-wait poller :timeout 0)))
      (poller-remove poller server))))

;;; A peer that does not read

(define-test tls.a-write-that-timed-out-loses-nothing (:limit 60)
  "The octets that it says it took come once, the rest when it is written; nothing is doubled."
  (with-pair (client server :tls)
    (setf (socket-option client :send-buffer) 4096
          (socket-option server :receive-buffer) 4096
          (socket-timeout client :output) 0.05)
    (let* ((octets (random-octets (amount 100000) (sb-ext:seed-random-state (test-seed))))
           (moved 0)
           (condition nil))
      (loop until (= moved (length octets))
            do (setf condition (failure-of (write-octets client octets :start moved)))
               (incf moved (if condition (network-octets condition) (- (length octets) moved)))
               (when condition
                 (return)))
      (unless (weather-p)               ; octet by octet no buffer is full in good time
        (is (typep condition 'timeout) "~A" condition))
      (setf (socket-timeout client :output) nil)
      (let ((reader (in-thread (lambda () (everything server)))))
        (write-octets client octets :start moved)
        (close client)
        (is (equalp octets (join reader)))))))

(define-test tls.a-blocked-write-is-woken-by-a-close (:limit 60 :weather nil)
  "At once. The close itself sends what was taken, and tells of it where that cannot be."
  (with-pair (client server :tls)
    (stuff client server)
    (let ((writer (start-blocked (lambda () (write-octets client (blank 200000))))))
      (multiple-value-bind (seconds condition)
          (seconds-of (lambda () (with-deadline (0.2) (failure-of (close client)))))
        (is (typep condition 'timeout) "~A" condition)
        (is (< seconds 2) "~F" seconds))
      (is (typep (join writer) 'socket-closed)))))

;;; The end

(define-test tls.an-end-that-is-told-is-the-end-of-file ()
  (with-pair (client server :tls)
    (send-octets client "last")
    (close client)
    (is (equal "last" (read-line server)))
    (dotimes (i 3)
      (is (null (read-byte server nil))))
    (is (eq :end-of-file (socket-state server)))))

(define-test tls.an-end-that-is-not-told-is-no-end-of-file ()
  "Somebody in between could have made it: it is an error each time, after all that had come."
  (with-pair (client server :tls)
    (send-octets client "half of")
    (cffi:foreign-funcall "shutdown" :int (socket-descriptor client) :int 1 :int)
    (is (equalp (octets-like "half of") (read-all-of 7 server)))
    (dotimes (i 3)
      (is-failure (connection-truncated :connection-truncated "read from") (read-byte server)))
    (is (eq :lost (socket-state server)))
    (is (typep (failure-of (read-line server)) 'connection-truncated))))

(define-test tls.an-abort-is-a-reset ()
  (with-pair (client server :tls)
    (close client :abort t)
    (dotimes (i 3)
      (is-failure (connection-reset :connection-reset) (read-byte server)))
    (is (typep (failure-of (loop (write-octets server (blank 1000)))) 'connection-lost))))

(define-test tls.a-body-that-is-left-early-aborts ()
  (with-socket-server (listener 0 :host "127.0.0.1")
    (let ((server nil))
      (catch 'out
        (with-open-socket (client "127.0.0.1" (port-of listener))
          (setf server (socket-accept listener))
          (come-to-terms client server (client-options "good.test") (server-options))
          (write-string "not sent" client)
          (throw 'out nil)))
      (with-open-stream (server server)
        (is-failure (connection-reset :connection-reset) (read-byte server))))))

(define-test tls.half-an-end ()
  "Who has ended its output reads on."
  (with-pair (client server :tls)
    (send-octets client "asked")
    (socket-shutdown client :output)
    (is (equalp (octets-like "asked") (everything server)))
    (is-failure (socket-closed :output-shut) (send-octets client 1))
    (send-octets server "answered")
    (close server)
    (is (equalp (octets-like "answered") (everything client)))
    (is (null (failure-of (close client))))))

(define-test tls.the-end-is-input-to-a-poller ()
  (do-pollers (poller)
    (with-pair (client server :tls)
      (poller-add poller server)
      (socket-shutdown client :output)
      (is (equal `((,server nil :input :end-of-file)) (poller-wait poller :timeout 5)))
      (is (null (read-byte server nil)))
      (is (equal `((,server nil :input :end-of-file)) (poller-wait poller :timeout 5))))
    (with-pair (client server :tls)
      (poller-add poller server)
      (send-octets client "ab")
      (socket-shutdown client :output)
      (is (equal `((,server nil :input)) (poller-wait poller :timeout 5)) "before it is input")
      (is (= 1 (read-some server (blank 1))))
      (is (equal `((,server nil :input)) (poller-wait poller :timeout 5)) "in the library")
      (is (= 1 (read-some server (blank 1))))
      (is (equal `((,server nil :input :end-of-file)) (poller-wait poller :timeout 5))))
    (with-pair (client server :tls)
      (poller-add poller server)
      (close client :abort t)
      (is (member :error (cddr (first (poller-wait poller :timeout 5)))))
      (is (typep (failure-of (read-byte server)) 'connection-reset)))))

(define-test tls.who-sends-and-closes-at-once-loses-nothing (:limit 60)
  (let ((octets (random-octets (amount 300000) (sb-ext:seed-random-state (test-seed)))))
    (dotimes (i 5)
      (with-pair (client server :tls)
        (let ((reader (in-thread (lambda () (everything server)))))
          (write-octets client octets)
          (close client)
          (is (equalp octets (join reader))))))))

(define-test tls.what-is-no-tls-is-told ()
  "At the handshake, and after it."
  (with-pair (client server :inet)
    (send-octets client "GET / HTTP/1.0" 13 10 13 10)
    (let ((condition (is-failure (tls-error :tls-failed "handshake with 127.0.0.1:")
                       (apply #'start-tls server (server-options)))))
      (is (not (typep condition 'certificate-error))))
    (is (typep (failure-of (apply #'start-tls server (server-options))) 'tls-error) "it stays so")
    (is (typep (failure-of (read-byte server)) 'network)))
  (with-pair (client server :tls)
    (cffi:with-foreign-string (text "no record of TLS at all")
      (cffi:foreign-funcall "send" :int (socket-descriptor client) :pointer text :size 23
                                   :int 0 :long))
    (dotimes (i 2)
      (is-failure (tls-error :tls-failed "read from 127.0.0.1:") (read-byte server)))
    (is (eq :lost (socket-state server)))))

;;; In the middle of a conversation

(define-test tls.started-in-the-middle-of-a-conversation ()
  "What was written before is sent first, as it is; formats stay."
  (with-pair (client server :inet)
    (setf (stream-external-format server) '(:latin-1 :eol :crlf))
    (send-octets client "STARTTLS" 13 10)
    (is (equal "STARTTLS" (read-line server)))
    (write-line "220 go ahead" server)  ; and nobody flushes it
    (is (null (handshake-step server (server-options))))
    (is (equal (format nil "220 go ahead~C" #\Return) (read-line client)))
    (is (equal '(t t) (multiple-value-list
                       (come-to-terms client server
                                      (client-options "good.test") (server-options)))))
    (send-octets client #xE9 13 10)
    (is (equal (string (code-char #xE9)) (read-line server)))))

(define-test tls.what-came-ahead-of-tls-is-not-said-under-it ()
  "A command that somebody in between has put behind the client's STARTTLS is taken for the
beginning of TLS, which it is not."
  (with-pair (client server :inet)
    (send-octets client "STARTTLS" 10 "MAIL FROM:<evil@test>" 10)
    (is (equal "STARTTLS" (read-line server)))
    (is-true (wait-for-stream server 10))
    (is (typep (failure-of (apply #'start-tls server (server-options))) 'tls-error))
    (is (typep (failure-of (read-line server)) 'network))))

(define-test tls.a-hello-that-was-read-ahead-is-used ()
  "A client that does not wait for the answer sends it right behind its command."
  (with-pair (client server :inet)
    (write-line "STARTTLS" client)
    (handshake-step client (client-options "good.test"))
    (is (equal "STARTTLS" (read-line server)))
    (peek-octets server (blank 100))
    (is (<= 100 (buffered-octets server)))
    (is (equal '(t t) (multiple-value-list
                       (come-to-terms client server
                                      (client-options "good.test") (server-options)))))
    (is (zerop (buffered-octets server)))
    (send-octets client "said under it" 10)
    (is (equal "said under it" (read-line server)))))

;;; Between sockets

(define-test tls.relayed (:limit 60)
  "Between one with TLS and one without, and between two with it."
  (let ((state (sb-ext:seed-random-state (test-seed))))
    (loop for (front back) in '((:tls :inet) (:local :tls) (:tls :tls))
          do (with-relay-ends (client one other server front back)
               (check-both-ways client one other server '(600000 400000) state)))))

(define-test tls.descriptors-are-not-passed ()
  "Of a local socket that is not what is wrong."
  (with-pair (client server :local)
    (come-to-terms client server (client-options "good.test") (server-options))
    (dolist (call (list (lambda () (send-descriptors client (list 0)))
                        (lambda () (receive-descriptors client 1))))
      (is-failure (not-supported :not-supported "expected a local socket without TLS, got #<SOCKET")
        (funcall call)))))

(define-test tls.a-file-is-sent (:limit 60)
  (let ((path (certificate-file "authority.pem")))
    (with-pair (client server :tls)
      (is (plusp (send-file client path)))
      (is (plusp (send-file client path :start 10)))
      (close client)
      (with-open-file (stream path :element-type '(unsigned-byte 8))
        (let ((octets (blank (file-length stream))))
          (read-sequence octets stream)
          (is (equalp (concatenate 'vector octets (subseq octets 10)) (everything server))))))))

;;; Connections that begin with it

(defun start-answering (server context)
  "A thread that accepts one connection of SERVER, begins TLS and echoes; its value is T, or the
condition."
  (in-thread (lambda ()
               (handler-case
                   (with-open-stream (socket (socket-accept server :wait 10))
                     (start-tls socket :side :server :context context)
                     (echo-lines socket)
                     t)
                 (network (condition) condition)))))

(define-test tls.opened ()
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((thread (start-answering server (server-context))))
      (with-open-stream (client (open-tls-socket "127.0.0.1" (port-of server)
                                                 :context (client-context) :timeout 10
                                                 :input-timeout 10 :external-format :latin-1))
        (is (eq :latin-1 (stream-external-format client)))
        (is (equal "one" (ask client "one")))
        (is (null (getf (tls-info client) :server-name)) "an address is no name to tell"))
      (is (eq t (join thread))))))

(define-test tls.opened-by-another-name ()
  (with-socket-server (server 0 :host "127.0.0.1")
    (flet ((try (name)
             (let ((thread (start-answering server (server-context))))
               (unwind-protect
                    (with-open-stream (client (open-tls-socket "127.0.0.1" (port-of server)
                                                               :context (client-context)
                                                               :server-name name))
                      (getf (tls-info client) :server-name))
                 (join thread)))))
      (is (equal "a.wild.test" (try "a.wild.test")))
      (is-failure (certificate-error :certificate-refused "mismatch") (try "bad.test")))))

(define-test tls.not-opened ()
  "A limit is over all of it, and what fails leaves nothing open."
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((before (lport-socket-count)))
      (multiple-value-bind (seconds condition)
          (seconds-of (lambda ()
                        (failure-of (open-tls-socket "127.0.0.1" (port-of server)
                                                     :context (client-context) :timeout 0.05))))
        (is (typep condition 'timeout) "~A" condition)
        (is (< seconds 2)))
      (is-mistyped (lambda () (open-tls-socket "127.0.0.1" (port-of server) :server-name nil))
                   "a HOST")
      (is-mistyped (lambda () (open-tls-socket "127.0.0.1" (port-of server) :context 3))
                   "a TLS-CONTEXT")
      (is-mistyped (lambda () (open-tls-socket "127.0.0.1" (port-of server) :timeout -1))
                   "seconds")
      (is-failure (connection-refused :connection-refused)
        (open-tls-socket "127.0.0.1" (unused-port) :context (client-context)))
      (is (= before (lport-socket-count))))
    (take-all server)))
