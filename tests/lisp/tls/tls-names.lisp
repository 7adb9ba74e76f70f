;;;; tls-names - a server that is several, by the names that its clients ask for; contexts that are
;;;; read anew.

(in-package :port/test)

(define-suite tls-names "TLS: names that are asked for, and files that change.")

(defun subject-shown (server name)
  "The subject that a client, which expects NAME, is shown by a server of the context SERVER, or the
condition that it meets."
  (with-pair (client other :inet)
    (let ((outcome (come-to-terms client other (client-options name) (server-options server))))
      (if (eq outcome t)
          (getf (tls-info client) :subject)
          outcome))))

(define-test tls-names.a-client-is-shown-the-certificate-for-the-name-that-it-asks-for ()
  (with-open-contexts ((other (apply #'make-tls-context (identity-of "client")))
                       (server (make-server-context :by-name (list other))))
    (is (equal "CN=client,O=port" (subject-shown server "client.test")))
    (is (equal "CN=server,O=port" (subject-shown server "good.test")))
    (is (equal "CN=server,O=port" (subject-shown server "127.0.0.1")))
    (is (typep (subject-shown server "elsewhere.test") 'certificate-error))))

(define-test tls-names.clients-are-verified-by-the-context-of-the-service ()
  "Whatever certificate they are shown: whom that one's context trusts is nobody here."
  (with-open-contexts ((other (apply #'make-tls-context :verify nil
                                     :trust (certificate-file "stranger.pem")
                                     (identity-of "client")))
                       (server (make-server-context :verify :required :by-name (list other)))
                       (known (apply #'make-client-context (identity-of "server")))
                       (stranger (apply #'make-client-context (identity-of "stranger"))))
    (dolist (name '("client.test" "good.test"))
      (loop for (client . good) in `((,known . t) (,stranger . nil) (,(client-context) . nil))
            do (let ((outcome (nth-value 1 (dialogue (list :context client :host name)
                                                     (server-options server)))))
                 (if good
                     (is (eq t outcome) "~A" outcome)
                     (is (typep outcome 'certificate-error) "~A" outcome)))))))

(define-test tls-names.what-cannot-be-shown-by-name ()
  (with-open-contexts ((bare (make-client-context)) (closed (make-server-context)))
    (close closed)
    (dolist (wrong (list bare closed "server.pem" nil))
      (is (typep (failure-of (make-server-context :by-name (list wrong))) 'usage-error)))
    (is (typep (failure-of (make-server-context :by-name bare)) 'usage-error))
    (is (typep (failure-of (make-server-context :by-name (make-list 65 :initial-element bare)))
               'usage-error))))

(defun call-with-identity-files (function)
  "Call FUNCTION with the names of two files, and a function that puts a certificate, by its name,
and its key there."
  (uiop:with-temporary-file (:pathname chain)
    (uiop:with-temporary-file (:pathname key)
      (flet ((put (name)
               (uiop:copy-file (certificate-file (concatenate 'string name ".pem")) chain)
               (uiop:copy-file (certificate-file (concatenate 'string name ".key")) key)))
        (funcall function (namestring chain) (namestring key) #'put)))))

(define-test tls-names.a-context-is-read-anew ()
  "A running service has it at once; who is connected goes on."
  (call-with-identity-files
   (lambda (chain key put)
     (funcall put "server")
     (with-open-contexts ((server (make-tls-context :certificate chain :key key)))
       (with-pair (client other :inet)
         (is (eq t (come-to-terms client other
                                  (client-options "good.test") (server-options server))))
         (funcall put "client")
         (is (equal "CN=server,O=port" (subject-shown server "good.test")))
         (is (eq server (reload-tls-context server)))
         (is (equal "CN=client,O=port" (subject-shown server "client.test")))
         (is (typep (subject-shown server "good.test") 'certificate-error))
         (write-line "as before" client)
         (finish-output client)
         (is (string= "as before" (read-line other))))))))

(defun call-with-two-readings (function)
  "Call FUNCTION with a context that reads files anew, a function that does so, and what puts others
there. The former takes a function that is called within, before the files are read."
  (call-with-identity-files
   (lambda (chain key put)
     (funcall put "server")
     (let ((within nil))
       (with-open-contexts ((server (make-tls-context
                                     :certificate chain :key key :trust '()
                                     :passphrase (lambda ()
                                                   (let ((call (shiftf within nil)))
                                                     (when call
                                                       (funcall call)))
                                                   "not needed"))))
         (funcall function server
                  (lambda (call)
                    (setf within call)
                    (reload-tls-context server))
                  put))))))

(define-test tls-names.what-was-begun-last-to-read-a-context-anew-holds ()
  "Whichever is done first: it has the newer files."
  (call-with-two-readings
   (lambda (server reload put)
     (is (eq server (funcall reload (lambda ()
                                      (funcall put "client")
                                      (is (eq server (reload-tls-context server)))
                                      (funcall put "server")))))
     (is (equal "CN=client,O=port" (subject-shown server "client.test")))
     (reload-tls-context server)
     (is (equal "CN=server,O=port" (subject-shown server "good.test"))))))

(define-test tls-names.what-could-not-be-read-anew-is-not-in-the-way-of-what-could ()
  (call-with-two-readings
   (lambda (server reload put)
     (funcall reload (lambda ()
                       (uiop:copy-file (certificate-file "none.pem")
                                       (port::tls-context-certificate server))
                       (is (typep (failure-of (reload-tls-context server)) 'tls-error))
                       (funcall put "client")))
     (is (equal "CN=client,O=port" (subject-shown server "client.test"))))))

(define-test tls-names.what-was-closed-is-shown-no-more-and-not-in-the-way ()
  "Of a context that has it in BY-NAME, which can be read anew all the same."
  (call-with-identity-files
   (lambda (chain key put)
     (funcall put "server")
     (with-open-contexts ((other (apply #'make-tls-context (identity-of "client")))
                          (server (make-tls-context :certificate chain :key key
                                                    :by-name (list other))))
       (is (equal "CN=client,O=port" (subject-shown server "client.test")))
       (close other)
       (is (typep (subject-shown server "client.test") 'certificate-error))
       (funcall put "rsa")
       (is (eq server (reload-tls-context server)))
       (is (equal "CN=rsa,O=port" (subject-shown server "rsa.test")))
       (is (typep (subject-shown server "client.test") 'certificate-error))))))

(define-test tls-names.a-context-that-is-closed-while-it-is-read-anew-says-so ()
  (let* ((context nil)
         (passphrase (lambda ()
                       (when context
                         (close context))
                       "secret")))
    (setf context (make-tls-context :certificate (certificate-file "server.pem")
                                    :key (certificate-file "locked.key")
                                    :passphrase passphrase :trust '()))
    (is (typep (failure-of (reload-tls-context context)) 'usage-error))
    (is (not (close context)))))

(define-test tls-names.a-context-whose-files-will-not-do-stays-as-it-was ()
  (call-with-identity-files
   (lambda (chain key put)
     (funcall put "server")
     (with-open-contexts ((server (make-tls-context :certificate chain :key key)))
       (uiop:copy-file (certificate-file "none.pem") chain)
       (is (typep (failure-of (reload-tls-context server)) 'tls-error))
       (uiop:delete-file-if-exists chain)
       (is (typep (failure-of (reload-tls-context server)) 'network))
       (is (equal "CN=server,O=port" (subject-shown server "good.test")))
       (close server)
       (is (typep (failure-of (reload-tls-context server)) 'usage-error))
       (is (typep (failure-of (reload-tls-context chain)) 'usage-error))))))

(define-test tls-names.the-context-of-clients-that-give-none-is-read-anew ()
  (let ((context (reload-tls-context)))
    (is-true (tls-context-p context))
    (is (eq context (reload-tls-context)))
    (with-pair (client server :inet)
      (is (typep (come-to-terms client server (list :host "good.test") (server-options))
                 'certificate-error)))))

(define-test tls-names.clients-that-give-no-context-share-one ()
  "Threads that are the first at the same time, too: a reload without an argument is for all."
  (let ((former (sb-ext:symbol-global-value 'port::*client-context*)))
    (unwind-protect
         (progn
           (setf (sb-ext:symbol-global-value 'port::*client-context*) nil)
           (let ((contexts (mapcar #'join (loop repeat 8
                                                collect (in-thread #'port::client-context)))))
             (is (= 1 (length (remove-duplicates contexts))))
             (is (eq (first contexts) (reload-tls-context)))))
      (setf (sb-ext:symbol-global-value 'port::*client-context*) former))))
