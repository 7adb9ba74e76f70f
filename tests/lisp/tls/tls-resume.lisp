;;;; tls-resume - clients that come back, and go on with what was agreed on before.

(in-package :port/test)

(define-suite tls-resume "TLS: sessions that are resumed.")

(defun resumed-p (number context)
  "True if a client with CONTEXT resumes a session with the server at port NUMBER, which echoes."
  (with-open-stream (client (open-tls-socket "127.0.0.1" number :context context :timeout 20
                                                                :server-name "good.test"
                                                                :input-timeout 20))
    (assert (equal "hello" (ask client "hello")))
    (getf (tls-info client) :resumed)))

(defun each-time-p (number context)
  "RESUMED-P of three connections, one after the other."
  (loop repeat 3 collect (resumed-p number context)))

(define-test tls-resume.a-client-that-comes-back ()
  "Both sides find it so, and what was shown the first time is known."
  (with-open-contexts ((ours (make-client-context)) (theirs (make-server-context)))
    (with-service (server number (lambda (socket)
                                   (format socket "~:[new~;resumed~]~%"
                                           (getf (tls-info socket) :resumed)))
                          :tls theirs)
      (dolist (expected '("new" "resumed" "resumed"))
        (with-open-stream (client (open-tls-socket "127.0.0.1" number :context ours
                                                                      :server-name "good.test"
                                                                      :input-timeout 20))
          (is (equal expected (read-line client)))
          (is (null (read-line client nil)))
          (let ((info (tls-info client)))
            (is (eq (equal expected "resumed") (getf info :resumed)))
            (is (equal "CN=server,O=port" (getf info :subject)))
            (is (equal "good.test" (getf info :server-name))))
          (is-true (tls-peer-certificate client)))))))

(define-test tls-resume.many-at-a-time (:limit 60)
  "Each brings a ticket for the next."
  (with-open-contexts ((ours (make-client-context)) (theirs (make-server-context)))
    (with-service (server number #'echo-one-line :tls theirs :threads 4)
      (let ((threads (loop repeat 8
                           collect (in-thread (lambda ()
                                                (loop repeat 6
                                                      count (resumed-p number ours)))))))
        (is (<= 40 (reduce #'+ (mapcar #'join threads))))))))

(define-test tls-resume.either-side-can-do-without ()
  (loop for (client server) in '((nil t) (t nil))
        do (with-open-contexts ((ours (make-client-context :resume client))
                                (theirs (make-server-context :resume server)))
             (with-service (server number #'echo-one-line :tls theirs)
               (is (equal '(nil nil nil) (each-time-p number ours)))))))

(define-test tls-resume.clients-that-are-verified-show-their-certificate-each-time ()
  (with-open-contexts ((ours (apply #'make-client-context (identity-of "client")))
                       (theirs (make-server-context :verify :required)))
    (with-service (server number (lambda (socket)
                                   (assert (equal "CN=client,O=port"
                                                  (getf (tls-info socket) :subject)))
                                   (echo-one-line socket))
                          :tls theirs)
      (is (equal '(nil nil nil) (each-time-p number ours))))))

(define-test tls-resume.a-context-that-is-read-anew-begins-anew ()
  (with-open-contexts ((ours (make-client-context)) (theirs (make-server-context)))
    (with-service (server number #'echo-one-line :tls theirs)
      (dolist (context (list ours theirs))
        (is-true (second (each-time-p number ours)))
        (reload-tls-context context)
        (is (equal '(nil t t) (each-time-p number ours)))))))

(define-test tls-resume.what-resume-may-be ()
  (dolist (wrong '(1 :yes "no"))
    (is-failure (usage-error :invalid "T or NIL for RESUME")
      (make-tls-context :trust '() :resume wrong))))
