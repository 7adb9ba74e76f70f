;;;; clisp - what only CLISP does: without threads, with copies, and with interrupts that come in
;;;; between the pieces of a wait.

(in-package :port/test)

(define-suite clisp "What is of CLISP alone")

(define-test "clisp.serve-is-not-supported" ()
  "Nothing is opened before that is said."
  (let ((server (open-socket-server 0 :host "127.0.0.1")))
    (is-failure (not-supported :not-supported "threads" "CLISP")
      (funcall (get 'serve 'without-threads) #'identity server))
    (is (null (socket-accept server :wait 0)))
    (close server)))

(define-test "clisp.octets-are-copied" ()
  "By memcpy(3) where CLISP tells the place of a vector, and by its own functions where not."
  (is (integerp port.ffi::*octets-offset*))
  (dolist (offset (list port.ffi::*octets-offset* nil))
    (let ((port.ffi::*octets-offset* offset)
          (all (random-octets 70000 (sb-ext:seed-random-state 5)))
          (got (make-array 70010 :element-type '(unsigned-byte 8) :initial-element 77)))
      (with-pair (a b)
        (write-octets a all :start 3)
        (close a)
        (is (= 69998 (read-sequence got b :start 1)))
        (is (= 77 (aref got 0) (aref got 69998)))
        (is (equalp (subseq all 3) (subseq got 1 69998)))))))

(define-test "clisp.octets-at-once" ()
  "The operations on octets that are CLISP's own take what is there, and wait for none."
  (let ((room (make-array 5 :element-type '(unsigned-byte 8) :initial-element 9)))
    (with-pair (a b)
      (is (null (ext:read-byte-lookahead b)))
      (is (ext:read-byte-will-hang-p b))
      (is (null (ext:read-byte-no-hang b)))
      (is (= 1 (ext:read-byte-sequence room b :start 1 :no-hang t)))
      (send-octets a 1 2 3)
      (is (eq t (ext:read-byte-lookahead b)))
      (is (not (ext:read-byte-will-hang-p b)))
      (is (= 1 (ext:read-byte-no-hang b)))
      (is (= 3 (ext:read-byte-sequence room b :start 1 :no-hang t)))
      (is (equalp (octets 9 2 3 9 9) room))
      (ext:write-byte-sequence (octets 4 5 6) a :start 1)
      (finish-output a)
      (is (= 2 (ext:read-byte-sequence room b :interactive t)))
      (is (equalp (octets 5 6 3 9 9) room))
      (close a)
      (is (eq :eof (ext:read-byte-lookahead b)))
      (is (eq :eof (ext:read-byte-no-hang b nil :eof)))
      (is (= 0 (ext:read-byte-sequence room b))))))

(define-test "clisp.an-interrupt-ends-a-wait" ()
  "And nothing is lost by it."
  (with-pair (a b)
    (ext:run-shell-command (format nil "(sleep 0.2; kill -INT ~D) &" (sys::process-id)))
    (is (eq :interrupted (handler-case (with-deadline (15) (read-line b))
                           (sys::simple-interrupt-condition () :interrupted))))
    (write-line "all of it" a)
    (finish-output a)
    (is (string= "all of it" (read-line b)))))
