;;;; clisp - what the words of names.lisp mean on CLISP, which has no threads: who makes one leaves
;;;; the test out.

(in-package :port/words)

(defun leave-out (reason)
  "End the test that is running; it is left out for REASON, a text. Outside of one it returns."
  (handler-case (throw :left-out reason)
    (control-error () nil)))

;;; Threads

(define-symbol-macro sb-thread:*current-thread* 'port::the-thread)

(defun sb-thread:make-thread (function &key name arguments)
  (declare (ignore function name arguments))
  (leave-out "CLISP has no threads"))

(defun sb-thread:interrupt-thread (thread function)
  (declare (ignore thread))
  (funcall function))

(define-condition sb-thread:interrupt-thread-error (error) ())

(defun sb-thread:list-all-threads ()
  (list sb-thread:*current-thread*))

(defun sb-thread:make-mutex (&key name)
  name)

(defmacro sb-thread:with-mutex ((lock) &body body)
  (declare (ignore lock))
  `(progn ,@body))

;;; A semaphore that nobody else can signal is waited for in vain.

(defun sb-thread:make-semaphore (&key (count 0))
  (list count))

(defun sb-thread:semaphore-count (semaphore)
  (first semaphore))

(defun sb-thread:signal-semaphore (semaphore &optional (count 1))
  (incf (first semaphore) count))

(defun sb-thread:try-semaphore (semaphore &optional (count 1))
  (when (>= (first semaphore) count)
    (decf (first semaphore) count)
    t))

(defun sb-thread:wait-on-semaphore (semaphore &key timeout)
  (declare (ignore timeout))
  (or (sb-thread:try-semaphore semaphore)
      (leave-out "CLISP has no threads")))

;;; Interrupts

(define-condition sb-ext:timeout (serious-condition) ())

(defmacro sb-ext:with-timeout (seconds &body body)
  (declare (ignore seconds body))
  `(leave-out "CLISP has no timers"))

(defmacro sb-sys:without-interrupts (&body body)
  `(port.ffi:call-deferred ,@body))

(defmacro sb-sys:allow-with-interrupts (&body body)
  `(progn ,@body))

(define-symbol-macro sb-sys:*interrupts-enabled* (not port.ffi::*deferred*))

;;; Places, memory, numbers

(defmacro sb-ext:atomic-incf (place &optional (number 1))
  `(port::%add-atomically ,place ,number))

(defmacro sb-ext:atomic-decf (place &optional (number 1))
  `(port::%add-atomically ,place (- ,number)))

(defmacro sb-ext:atomic-push (object place)
  `(push ,object ,place))

(defun sb-ext:gc (&key full)
  (declare (ignore full))
  (ext:gc))

(defun sb-ext:seed-random-state (seed)
  "A state that is the same for the same SEED: CLISP itself has none, so it is read."
  (let ((*random-state* (read-from-string
                         (format nil "#S(RANDOM-STATE #*~64,'0B)" (logxor seed #x5DEECE66D)))))
    (make-random-state nil)))

(defconstant sb-ext:double-float-positive-infinity most-positive-double-float)

(defun sb-kernel:make-double-float (high low)
  (declare (ignore high low))
  (leave-out "CLISP has no floats that are no numbers"))

(defun sb-kernel:make-single-float (bits)
  (declare (ignore bits))
  (leave-out "CLISP has no floats that are no numbers"))

;;; The rest

(defun sb-ext:exit (&key (code 0) abort)
  (declare (ignore abort))
  (ext:exit code))

(defun sb-ext:valid-type-specifier-p (object)
  (handler-case (progn (subtypep object t) t)
    (error () nil)))

(defun sb-introspect:function-lambda-list (name)
  (port::%lambda-list name))

(defun fail-for-want-of (word)
  (leave-out (format nil "it needs ~A, which only SBCL has" word)))
