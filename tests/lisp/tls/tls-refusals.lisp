;;;; tls-refusals - whom TLS takes for whom it expects, and what it does not go on with.

(in-package :port/test)

(define-suite tls-refusals "TLS: whom a client takes for its server.")

(defmacro with-contexts ((client server &optional (certificate "server")) &body body)
  "Run BODY with CLIENT, a context that trusts the authority of the tests, and SERVER, one that
shows CERTIFICATE."
  `(with-open-contexts ((,client (make-client-context))
                        (,server (apply #'make-tls-context (identity-of ,certificate))))
     ,@body))

(defun meet (client server host)
  "What comes of a client that expects HOST at a server: T, or the condition that the client met."
  (with-pair (a b :local)
    (let* ((thread (in-thread (lambda ()
                                (failure-of (start-tls b :context server :side :server
                                                         :timeout 5)))))
           (failure (failure-of (start-tls a :context client :host host :timeout 5))))
      (when failure                     ; the server need not wait
        (close a :abort t))
      (join thread)
      (or failure t))))

(define-test tls-refusals.a-server-is-for-its-names-and-addresses (:limit 60)
  (with-contexts (client server)
    (dolist (host (list "good.test" "GOOD.test" "good.test." "any.wild.test" "127.0.0.1" "::1"
                        "[::1]" "::ffff:127.0.0.1" #x7f000001 (parse-address "127.0.0.1")
                        (parse-address "::1")))
      (is (eq t (meet client server host)) "~A was refused" host))
    (dolist (host (list "other.test" "wild.test" "two.labels.wild.test" "server" "127.0.0.2" "::2"
                        " good.test" #x7f000002 (parse-address "127.0.0.2")))
      (is (typep (meet client server host) 'certificate-error) "~A was not refused" host))))

(define-test tls-refusals.the-subject-is-no-name ()
  "RFC 9525 6.3: a name is one of the alternative names, or none."
  (with-contexts (client server "subject")
    (is (typep (meet client server "good.test") 'certificate-error))))

(define-test tls-refusals.what-is-no-name-expects-nobody ()
  "OpenSSL would check none of them, or take all the names below one that begins with a dot."
  (with-contexts (client server)
    (with-pair (a b :local)
      (dolist (host (list "" "." ".test" ".wild.test"))
        (is (typep (failure-of (start-tls a :context client :host host)) 'usage-error)
            "~S was taken for a name" host)
        (signals usage-error (open-tls-socket "127.0.0.1" 9 :context client :server-name host)))
      (is (not (listen b))))))

(define-test tls-refusals.a-handshake-that-was-left-is-not-gone-on-with-by-another-call ()
  "It would be shown what the first call wanted to see, not what this one does."
  (with-contexts (client server)
    (let ((nobody (make-tls-context :verify nil)))
      (with-pair (a b :local)
        (signals timeout (start-tls a :context nobody :timeout 0))
        (signals usage-error (start-tls a :context client :host "good.test" :timeout 5))
        (signals usage-error (start-tls a :context nobody :host "good.test" :timeout 5))
        (signals usage-error (start-tls a :context server :side :server :timeout 5))
        (let ((thread (in-thread (lambda ()
                                   (start-tls b :context server :side :server :timeout 5)))))
          (is (eq a (start-tls a :context nobody :timeout 5)))
          (join thread)))
      (close nobody))))

(defun revoked-by (name)
  (certificate-file (format nil "~A.crl" name)))

(define-test tls-refusals.what-was-revoked ()
  "A list has to be there for whoever is shown, and not to have ended."
  (loop for (certificate lists . words)
          in `(("revoked" () . t)
               ("revoked" ,(revoked-by "authority") "certificate revoked")
               ("server" ,(revoked-by "authority") . t)
               ("server" ,(pathname (revoked-by "authority")) . t)
               ("server" ,(revoked-by "stale") "CRL has expired")
               ("server" ,(list (revoked-by "stale") (revoked-by "authority")) . t)
               ("server" ,(list (revoked-by "stranger")) "unable to get certificate CRL"))
        do (with-open-contexts ((client (make-client-context :revoked lists))
                                (server (apply #'make-tls-context (identity-of certificate))))
             (let ((outcome (meet client server "good.test")))
               (cond ((eq words t) (is (eq t outcome) "~A was refused by ~S" certificate lists))
                     (t (is (typep outcome 'certificate-error))
                        (apply #'is-report outcome words)))))))

(define-test tls-refusals.lists-are-read-anew ()
  (uiop:with-temporary-file (:pathname list)
    (flet ((put (name)
             (uiop:copy-file (revoked-by name) list)))
      (put "stale")
      (with-open-contexts ((client (make-client-context :revoked list))
                           (server (make-server-context)))
        (is (typep (meet client server "good.test") 'certificate-error))
        (put "authority")
        (is (typep (meet client server "good.test") 'certificate-error) "not before it is read")
        (reload-tls-context client)
        (is (eq t (meet client server "good.test")))))))

(define-test tls-refusals.what-is-no-list ()
  (is-report (is-failure (tls-error :tls-failed "cannot use ")
               (make-tls-context :revoked (certificate-file "none.pem")))
             "none.pem")
  (is-failure (usage-error :invalid "expected a file of certificate revocation lists, got 7")
    (make-tls-context :revoked 7))
  (is-failure (usage-error :invalid "expected a list of files")
    (make-tls-context :revoked '("a" . "b"))))
