;;;; rest - words that mean the same on every Lisp but SBCL, and those without a counterpart:
;;;; functions that fail; the tests that need them are named in tests/lisp/impl/unfit-ecl.lisp, and
;;;; leave themselves out on CLISP.

(in-package :port/words)

(defun sb-int:encapsulate (name type function)
  (let ((original (fdefinition name)))
    (setf (get name type) original
          (fdefinition name) (lambda (&rest arguments)
                               (apply function original arguments)))))

(defun sb-int:unencapsulate (name type)
  (setf (fdefinition name) (get name type)))

(defun sb-ext:symbol-global-value (symbol)
  (symbol-value symbol))

(defun (setf sb-ext:symbol-global-value) (value symbol)
  (setf (symbol-value symbol) value))

(defun sb-debug:print-backtrace (&key stream count)
  (declare (ignore count))
  (format stream "(no backtrace)"))

(defconstant sb-unix:sigterm 15)

(declaim (notinline number-of))
(defun number-of (name)
  (if name (fail-for-want-of name) 0))

(defmacro sb-alien:extern-alien (name type)
  (declare (ignore type))
  `(number-of ,name))

(dolist (word '(sb-ext:get-bytes-consed sb-ext:run-program sb-ext:process-error
                sb-ext:process-alive-p sb-ext:process-kill sb-ext:process-wait
                sb-ext:process-close sb-sys:make-fd-stream sb-sys:enable-interrupt
                sb-kernel:dynamic-usage
                sb-kernel::control-stack-usage
                sb-bsd-sockets:socket-make-stream sb-bsd-sockets:socket-bind
                sb-bsd-sockets:socket-listen sb-bsd-sockets:socket-connect
                sb-bsd-sockets:socket-name sb-bsd-sockets:socket-accept
                sb-bsd-sockets:socket-close))
  (let ((word word))
    (unless (fboundp word) ; ECL has sockets of its own by these names, which usocket uses
      (setf (fdefinition word) (lambda (&rest arguments)
                                 (declare (ignore arguments))
                                 (fail-for-want-of word))))))
