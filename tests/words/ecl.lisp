;;;; ecl - what the words of names.lisp mean on ECL: threads and semaphores, random states,
;;;; collections.

(in-package :port/words)

;;; Threads. One that returned has :RETURNED before its results, one that was unwound has nothing.
;;; ECL keeps them with the thread. A weak table would not do: from ECL 23.9 to 24.5 an entry of it
;;; that is garbage hides others that are not.

(define-symbol-macro sb-thread:*current-thread* mp:*current-process*)

(defun sb-thread:make-thread (function &key name arguments)
  (mp:process-run-function (or name "test")
                           (lambda ()
                             (values :returned
                                     (multiple-value-list
                                      (apply function (if (listp arguments)
                                                          arguments
                                                          (list arguments))))))))

(defun sb-thread:thread-alive-p (thread)
  (mp:process-active-p thread))

(defun ended-p (thread seconds)
  "True once THREAD has ended; NIL after SECONDS, or never if that is NIL."
  (loop with end = (and seconds (+ (get-internal-real-time)
                                   (* seconds internal-time-units-per-second)))
        while (mp:process-active-p thread)
        do (when (and end (> (get-internal-real-time) end))
             (return nil))
           (sleep 0.001)
        finally (return t)))

(defun sb-thread:join-thread (thread &key (default nil default-p) timeout)
  (let ((ended-p (ended-p thread timeout)))
    (multiple-value-bind (way results) (and ended-p (mp:process-join thread))
      (cond ((eq way :returned) (values-list results))
            (default-p default)
            (ended-p (error "~A has ended without a value." thread))
            (t (error "~A has not ended within ~A s." thread timeout))))))

(defun sb-thread:thread-name (thread)
  (mp:process-name thread))

(defun sb-thread:thread-yield ()
  (mp:process-yield))

(defun sb-thread:list-all-threads ()
  (mp:all-processes))

(define-condition sb-thread:interrupt-thread-error (error) ())

(defun sb-thread:interrupt-thread (thread function)
  (handler-case (mp:interrupt-process thread function)
    (error () (error 'sb-thread:interrupt-thread-error))))

(defun sb-thread:terminate-thread (thread)
  (handler-case (mp:process-kill thread)
    (error () (error 'sb-thread:interrupt-thread-error))))

(defun sb-thread:abort-thread ()
  (mp:exit-process))

(defun sb-thread:make-mutex (&key name)
  (mp:make-lock :name name))

(defmacro sb-thread:with-mutex ((lock) &body body)
  `(mp:with-lock (,lock) ,@body))

;;; Semaphores that can be waited for with a limit of time

(defstruct semaphore
  (lock (port::%make-lock)) (condition (port::%make-condition)) (count 0))

(defun sb-thread:make-semaphore (&key (count 0))
  (make-semaphore :count count))

(defun sb-thread:semaphore-count (semaphore)
  (semaphore-count semaphore))

(defun sb-thread:signal-semaphore (semaphore &optional (count 1))
  (port::%with-lock ((semaphore-lock semaphore))
    (incf (semaphore-count semaphore) count)
    (port::%condition-broadcast (semaphore-condition semaphore))))

(defun sb-thread:try-semaphore (semaphore &optional (count 1))
  (port::%with-lock ((semaphore-lock semaphore))
    (when (>= (semaphore-count semaphore) count)
      (decf (semaphore-count semaphore) count)
      t)))

(defun sb-thread:wait-on-semaphore (semaphore &key timeout)
  (let ((end (and timeout (+ (get-internal-real-time)
                             (* timeout internal-time-units-per-second)))))
    (port::%with-open-lock ((semaphore-lock semaphore))
      (loop while (zerop (semaphore-count semaphore))
            do (let ((left (and end (/ (- end (get-internal-real-time))
                                       internal-time-units-per-second))))
                 (when (and left (<= left 0))
                   (return-from sb-thread:wait-on-semaphore nil))
                 (port::%condition-wait (semaphore-condition semaphore)
                                        (semaphore-lock semaphore)
                                        left)))
      (decf (semaphore-count semaphore))
      t)))

;;; Interrupts

(define-condition sb-ext:timeout (serious-condition) ())

(defun call-with-timeout (seconds function)
  "Call FUNCTION; after SECONDS a thread of its own interrupts it with a TIMEOUT."
  (let ((target mp:*current-process*) (done nil) (lock (mp:make-lock :name "timeout")))
    (mp:process-run-function
     "timeout"
     (lambda ()
       (loop repeat (ceiling seconds 1/100) ; it is not to be there long after the end
             until done
             do (sleep (min seconds 0.01)))
       (mp:with-lock (lock)
         (unless done
           (mp:interrupt-process target
                                 (lambda ()
                                   (unless done
                                     (setf done t)
                                     (error 'sb-ext:timeout))))))))
    (unwind-protect (funcall function)
      (mp:with-lock (lock)
        (setf done t)))))

(defmacro sb-ext:with-timeout (seconds &body body)
  `(call-with-timeout ,seconds (lambda () ,@body)))

(defmacro sb-sys:without-interrupts (&body body)
  `(mp:without-interrupts ,@body))

(defmacro sb-sys:allow-with-interrupts (&body body)
  `(mp:allow-with-interrupts ,@body))

(define-symbol-macro sb-sys:*interrupts-enabled* ext:*interrupts-enabled*)

;;; Atomic operations, memory, numbers

(defmacro sb-ext:atomic-incf (place &optional (number 1))
  `(mp:atomic-incf ,place ,number))

(defmacro sb-ext:atomic-decf (place &optional (number 1))
  `(mp:atomic-decf ,place ,number))

(defmacro sb-ext:atomic-push (object place)
  `(mp:atomic-push ,object ,place))

(defun sb-ext:gc (&key full)
  (ext:gc (and full t)))

(defun sb-ext:seed-random-state (seed)
  (make-random-state seed))

(defconstant sb-ext:double-float-positive-infinity ext:double-float-positive-infinity)

(defun sb-kernel:make-double-float (high low)
  (let ((bits (logior (ash (ldb (byte 32 0) high) 32) low)))
    (ffi:c-inline (bits) (:uint64-t) :double "{
  union { uint64_t bits; double number; } both = { #0 };
  @(return 0) = both.number; }" :one-liner nil)))

(defun sb-kernel:make-single-float (bits)
  (ffi:c-inline (bits) (:uint32-t) :float "{
  union { uint32_t bits; float number; } both = { #0 };
  @(return 0) = both.number; }" :one-liner nil))

;;; The rest

(defun sb-ext:exit (&key (code 0) abort)
  (declare (ignore abort))
  (cffi:foreign-funcall "_exit" :int code :void))

(defun sb-ext:valid-type-specifier-p (object)
  (handler-case (progn (subtypep object t)
                       (and (symbolp object)
                            (or (find-class object nil)
                                (si:get-sysprop object 'si::deftype-definition))
                            t))
    (error () nil)))

(defun sb-introspect:function-lambda-list (name)
  (values (ext:function-lambda-list name)))

(defun fail-for-want-of (word)
  (error "~S: only SBCL has it." word))
