;;;; ecl - what only ECL has to be asked: whether the words of tests/words/ecl.lisp mean what they
;;;; do elsewhere.

(in-package :port/test)

(define-suite ecl "What is of ECL alone")

(define-test "ecl.threads-have-their-values-to-the-end" (:limit 60)
  "Whatever other threads become garbage meanwhile."
  (let ((kept (loop for number below 600
                    for thread = (let ((number number))
                                   (in-thread (lambda () (values number (list number)))))
                    when (zerop (mod number 10))
                      collect (cons number thread))))
    (sb-ext:gc :full t)
    (loop for (number . thread) in kept
          do (is (equal (list number (list number)) (multiple-value-list (join thread)))))))

(define-test "ecl.threads-without-a-value" ()
  "One that is unwound has none; one that has not ended has none yet, and keeps its own."
  (let ((unwound (sb-thread:make-thread (lambda () (sb-thread:abort-thread)))))
    (is (eq :none (sb-thread:join-thread unwound :default :none)))
    (signals error (sb-thread:join-thread unwound)))
  (let* ((go-on (sb-thread:make-semaphore))
         (thread (sb-thread:make-thread (lambda ()
                                          (sb-thread:wait-on-semaphore go-on)
                                          :some))))
    (is (eq :none (sb-thread:join-thread thread :default :none :timeout 0)))
    (sb-thread:signal-semaphore go-on)
    (is (eq :some (sb-thread:join-thread thread)))))
