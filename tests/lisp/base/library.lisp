;;;; library - finding, building and checking libport.so; images; descriptors of every kind.

(in-package :port/test)

(define-suite library "The C library from the side of Lisp.")

(defun lisp-command (forms &optional options)
  "The command, a list of strings, of a fresh SBCL that evaluates FORMS, strings. OPTIONS: more for
its runtime. It is the SBCL that `make` was told to test."
  (append (list (or (uiop:getenvp "SBCL") "sbcl") "--noinform")
          options
          (list "--non-interactive" "--no-userinit" "--no-sysinit")
          (loop for form in forms
                collect "--eval" collect form)))

(defun run-lisp (forms &key environment directory options)
  "Run FORMS, strings, in a fresh SBCL with OPTIONS; values: what it printed, its exit code."
  (multiple-value-bind (output error-output code)
      (uiop:run-program (append (list "env") environment (lisp-command forms options))
                        :output :string :error-output :output :ignore-error-status t
                        :directory directory)
    (declare (ignore error-output))
    (values output code)))

(defun loading (directory)
  "The forms that load port from DIRECTORY, a native name."
  (list "(require :asdf)"
        (format nil "(push (uiop:parse-native-namestring ~S) asdf:*central-registry*)" directory)
        "(let ((*standard-output* (make-broadcast-stream))) (asdf:load-system :port))"))

(defun here ()
  (uiop:native-namestring (checkout-file "")))

(defparameter *round-trip*
  "(port:with-socket-server (s 0 :host \"127.0.0.1\")
     (port:with-open-socket (c \"127.0.0.1\" (nth-value 1 (port:socket-server-host/port s)))
       (let ((p (port:socket-accept s)))
         (write-line (string-downcase \"ROUND TRIP\") p)
         (close p)
         (princ (read-line c)))))"
  "A form that prints `round trip` if sockets work; a backtrace that shows it has no such text.")

(define-test library.missing-or-wrong (:weather nil :limit 400) ; looks for it elsewhere
  (uiop:with-temporary-file (:pathname other)
    (dolist (path (list "/nowhere/libport.so.1" "/lib/x86_64-linux-gnu/libc.so.6"
                        (uiop:native-namestring other)))
      (multiple-value-bind (output code)
          (run-lisp (loading (here)) :environment (list (format nil "PORT_LIBRARY=~A" path)))
        (is (/= 0 code))
        (is (search "libport.so.1 with ABI" output))
        (is (search path output))
        (is (search "make" output))))))

(defun call-with-variable (name value function)
  "Call FUNCTION while the environment variable NAME is VALUE."
  (let ((old (uiop:getenvp name)))
    (setf (uiop:getenv name) value)
    (unwind-protect (funcall function)
      (if old
          (setf (uiop:getenv name) old)
          (cffi:foreign-funcall "unsetenv" :string name :int)))))

(define-test library.error-names-every-place ()
  (let ((condition (call-with-variable "PORT_LIBRARY" "/nowhere/libport.so.1"
                                       (lambda ()
                                         (let ((port.ffi::*library-pathname* nil))
                                           (handler-case (progn (port.ffi:load-library) nil)
                                             (library-error (condition) condition)))))))
    (is (typep condition 'library-error))
    (is (search "/nowhere/libport.so.1: not there" (princ-to-string condition)))))

(defun loading-library-that-is (c-source)
  "What loading port prints, and its exit code, where its library is made of C-SOURCE."
  (uiop:with-temporary-file (:pathname source :type "c")
    (let ((library (concatenate 'string (uiop:native-namestring source) ".so")))
      (with-open-file (out source :direction :output :if-exists :supersede)
        (write-line c-source out))
      (uiop:run-program (list "cc" "-shared" "-o" library (uiop:native-namestring source)))
      (unwind-protect
           (run-lisp (loading (here)) :environment (list (format nil "PORT_LIBRARY=~A" library)))
        (delete-file library)))))

(define-test library.another-version (:weather nil :limit 400) ; looks for it elsewhere
  (let ((output (loading-library-that-is "int lport_abi(void) { return 999; }")))
    (is (search "ABI is 999" output))
    (is (search "ABI 1" output))))

(define-test library.of-the-same-abi-without-a-function (:weather nil :limit 400)
  "It is refused, and not found out by the first call."
  (multiple-value-bind (output code)
      (loading-library-that-is "int lport_abi(void) { return 1; }
                                const char *lport_version(void) { return \"0\"; }")
    (is (/= 0 code))
    (is (search "it is older than this PORT: it has no lport_manifest" output) "~A" output)))

(define-test library.a-process-keeps-the-one-it-has ()
  "Its sockets are in it; whoever loads port again, from wherever, gets it or an error."
  (let ((loaded (port.ffi:library-pathname)))
    (with-socket-server (server 0)
      (call-with-variable "PORT_LIBRARY" "/nowhere/libport.so.1" #'port.ffi:load-library)
      (is (equal loaded (port.ffi:library-pathname)))
      (is (plusp (port-of server))))
    (let ((condition (let ((port.ffi::*function-names* '("lport_abi" "lport_newer")))
                       (handler-case (progn (port.ffi:load-library) nil)
                         (library-error (condition) condition)))))
      (is (search "it has no lport_newer; this process has loaded it"
                  (princ-to-string condition))
          "~A" condition))))

(defun cache-beside (directory)
  "The name of a directory beside DIRECTORY that ASDF takes for no pattern."
  (format nil "~A cache" (remove-if (lambda (char) (find char "[*?"))
                                    (string-right-trim "/" directory))))

(defun call-with-copy (function &optional (name "port test"))
  "Call FUNCTION with the native name of a copy of the sources in a directory with a space in its
name, which begins with NAME."
  (let ((directory (format nil "~A~A ~D ~D/"
                           (uiop:native-namestring (uiop:temporary-directory))
                           name (process-id) (incf *path-count*))))
    (ensure-directories-exist (uiop:parse-native-namestring directory))
    (unwind-protect
         (progn
           (uiop:run-program
            (append (list "cp" "-r")
                    (loop for name in '("csrc" "lisp" "port.asd" "Makefile" "version.sexp")
                          collect (uiop:native-namestring (checkout-file name)))
                    (list directory)))
           (funcall function directory))
      (uiop:run-program (list "chmod" "-R" "u+w" directory))
      (uiop:run-program (list "rm" "-rf" directory (cache-beside directory))))))

(defun cache-environment (directory)
  "Compiled files of the run go beside DIRECTORY, which may be read-only."
  (list (format nil "XDG_CACHE_HOME=~A" (cache-beside directory))))

(define-test library.compiled-under-any-printer-and-policy (:weather nil :limit 400)
  "What port is made of has the same names, and knows its keywords, whatever *PRINT-CASE* and its
kin are while it is compiled, and the policy, as somebody's initialization file may set them."
  (let ((cache (format nil "~Aport printer ~D/" (uiop:native-namestring (uiop:temporary-directory))
                       (process-id))))
    (unwind-protect
         (let ((output (run-lisp
                        (append '("(require :asdf)"
                                  "(mapc #'asdf:load-system '(:cffi :babel))"
                                  "(setf *print-case* :downcase *print-length* 1 *print-level* 1)"
                                  "(proclaim '(optimize (speed 3) (safety 0) (debug 0)))")
                                (loading (here))
                                (list *round-trip*
                                      "(dolist (package '(:port :port.ffi))
                                         (do-symbols (name package)
                                           (when (and (some #'lower-case-p (symbol-name name))
                                                      (or (fboundp name) (find-class name nil)))
                                             (format t \"misnamed: ~S\" name))))"))
                        :environment (list (format nil "XDG_CACHE_HOME=~A" cache)))))
           (is (search "round trip" output) "~A" output)
           (is (not (search "misnamed" output)) "~A" output))
      (uiop:run-program (list "rm" "-rf" cache)))))

(define-test library.directory-with-a-space (:weather nil :limit 600) ; looks for it elsewhere
  (call-with-copy
   (lambda (directory)
     (let ((output (run-lisp (append (loading directory) (list *round-trip*))
                             :environment (cache-environment directory))))
       (is (search "round trip" output) "~A" output)
       (is (probe-file (uiop:parse-native-namestring
                        (concatenate 'string directory "build/libport.so.1"))))))))

(define-test library.directory-with-characters-of-make-and-of-patterns
    (:weather nil :limit 600)
  "What make takes for a variable, and Lisp for a pattern, is a name: of the sources, and of where
an executable lies."
  (call-with-copy
   (lambda (directory)
     (let ((library (concatenate 'string directory "build/libport.so.1"))
           (program (concatenate 'string directory "program")))
       (run-lisp (append (loading directory)
                         (list (format nil "(defun main () ~A (finish-output) (sb-ext:exit))"
                                       *round-trip*)
                               (format nil *save* program)))
                 :environment (cache-environment directory))
       (is (probe-file (uiop:parse-native-namestring library)))
       ;; now the library lies beside the executable
       (uiop:run-program (list "mv" library directory))
       (let ((output (uiop:run-program (list program) :output :string :error-output :output
                                                      :ignore-error-status t)))
         (is (search "round trip" output) "~A" output))))
   "port $test [*?"))

(define-test library.make-loads-its-own-checkout (:weather nil :limit 400)
  "Whatever other one ASDF finds first."
  (call-with-copy
   (lambda (other)
     (let ((output (uiop:run-program
                    (list "env" (format nil "CL_SOURCE_REGISTRY=~A:" other)
                          "make" "-s" "-C" (here) "repl" "PACKAGES=")
                    :input (make-string-input-stream
                            "(princ (asdf:system-source-directory \"port\"))")
                    :output :string :error-output :output :ignore-error-status t)))
       (is (search (here) output) "~A" output)
       (is (not (search other output)) "~A" output)))))

(define-test library.read-only-sources (:weather nil :limit 600) ; looks for it elsewhere
  (call-with-copy
   (lambda (directory)
     (uiop:run-program (list "chmod" "-R" "a-w" directory))
     (if (zerop (cffi:foreign-funcall "access" :string directory :int 2 :int))
         ;; root may write anywhere: an unwritable tree is one that the system mounts so
         (skip "this user may write to read-only directories")
         (let ((output (run-lisp (append (loading directory) (list *round-trip*))
                                 :environment (cache-environment directory))))
           (is (search "round trip" output) "~A" output)
           (multiple-value-bind (output error-output code)
               (uiop:run-program (list "make" "-s" "-C" directory "test")
                                 :output :string :error-output :output :ignore-error-status t)
             (declare (ignore error-output))
             (is (/= 0 code))
             (is (search "cannot be written to" output) "~A" output)))))))

(defun touch (pathname &optional (seconds 0))
  "Have PATHNAME be there, changed last SECONDS after now."
  (ensure-directories-exist pathname)
  (uiop:run-program (list "touch" "-d" (format nil "now ~@D seconds" seconds)
                          (uiop:native-namestring pathname))))

(define-test library.built-in-the-cache-since-the-sources-changed (:weather nil)
  "It is taken, and not the older one of who could write into the sources."
  (call-with-copy
   (lambda (directory)
     (let* ((port.ffi::*source-directory* (uiop:parse-native-namestring directory))
            (build (port.ffi::in-build-directory))
            (cache (port.ffi::in-cache)))
       (unwind-protect
            (progn
              (touch build -60)
              (touch cache 60)
              (is (equal cache (first (port.ffi::places))))
              (touch build 30)
              (is (equal build (first (port.ffi::places)))))
         (uiop:delete-directory-tree (uiop:pathname-directory-pathname cache)
                                     :validate t :if-does-not-exist :ignore))))))

(defparameter *main*
  "(defun main ()
     ~A
     (princ (handler-case (port:socket-accept *old*)
              (port:socket-closed () \" old closed\")))
     (princ (handler-case (list (read-char *buffered*) (listen *buffered*))
              (port:socket-closed () \" nothing buffered\")))
     (princ *old*)
     (finish-output)
     (sb-ext:exit))"
  "What the saved program does, around a form.")

(defparameter *save*
  "(sb-ext:save-lisp-and-die (sb-ext:parse-native-namestring ~S)
                             :executable t :toplevel #'main)")

(define-test library.moved-executable (:weather nil :limit 600) ; looks for it elsewhere
  "A saved image that was moved finds the library again, and the old image's sockets are closed in
it."
  (call-with-copy
   (lambda (directory)
     (let ((program (concatenate 'string directory "program"))
           (moved (concatenate 'string directory "elsewhere")))
       (run-lisp (append (loading directory)
                         (list "(defvar *old* (port:open-socket-server))"
                               "(defvar *buffered*
                                  (multiple-value-bind (a b) (port:open-socket-pair)
                                    (write-line \"hello\" a)
                                    (finish-output a)
                                    (read-char b)
                                    b))"
                               (format nil *main* *round-trip*)
                               (format nil *save* program)))
                 :environment (cache-environment directory))
       (uiop:run-program (list "mv" program moved))
       (let ((output (uiop:run-program (list moved) :output :string :error-output :output
                                                    :ignore-error-status t)))
         (is (search "round trip" output) "~A" output)
         (is (search "old closed" output) "~A" output)
         (is (search "nothing buffered" output) "~A" output)
         (is (search "(closed)" output) "~A" output))
       ;; moved away from its sources: the library lies beside the executable
       (uiop:run-program (list "mv" (concatenate 'string directory "build/libport.so.1") directory))
       (let ((output (uiop:run-program (list moved) :output :string :error-output :output
                                                    :ignore-error-status t)))
         (is (search "round trip" output) "~A" output))))))

(define-test library.one-file-of-all-systems (:weather nil :limit 400) ; looks for it elsewhere
  "Such as a program is delivered in: it is loaded where ASDF does not know of port."
  (let* ((file (run-lisp
                (append (loading (here))
                        '("(let ((*standard-output* (make-broadcast-stream)))
                             (asdf:operate 'asdf:monolithic-compile-bundle-op :port))"
                          "(princ (uiop:native-namestring
                                   (first (asdf:output-files 'asdf:monolithic-compile-bundle-op
                                                             :port))))"))))
         (output (run-lisp (list "(require :asdf)" (format nil "(load ~S)" file) *round-trip*)
                           :environment '("CL_SOURCE_REGISTRY=(:source-registry
                                           :ignore-inherited-configuration)"))))
    (is (search "round trip" output) "~A" output)))

(define-test library.descriptors-are-close-on-exec (:behaviour 60)
  (with-pair (a b :inet)
    (with-pair (c d)
      (with-socket-server (server 0)
        (let ((child (uiop:run-program (list "ls" "-l" "/proc/self/fd") :output :string)))
          (is (null (search "socket:" child)) "~A" child)
          (dolist (endpoint (list a b c d server))
            (let* ((info (uiop:read-file-string (format nil "/proc/self/fdinfo/~D"
                                                        (socket-descriptor endpoint))))
                   (flags (parse-integer info :start (+ 6 (search "flags:" info))
                                              :radix 8 :junk-allowed t)))
              (is (logtest #o2000000 flags)))))))))

(define-test library.hundred-thousand-connections (:limit 400)
  "Opened and closed in one process: no descriptor, no memory left behind."
  (with-socket-server (server 0 :host "127.0.0.1")
    (let ((number (port-of server)))
      (flet ((rounds (count)
               (loop repeat count
                     do (let ((client (open-socket "127.0.0.1" number))
                              (peer (socket-accept server)))
                          ;; the client aborts, so that its port does not stay in TIME_WAIT
                          (close client :abort t)
                          (close peer))))
             (resident ()
               (sb-ext:gc :full t)
               (let ((status (uiop:read-file-string "/proc/self/statm")))
                 (* 4096 (parse-integer status :start (position #\Space status)
                                               :junk-allowed t)))))
        (rounds 2000)
        (let ((sockets (lport-socket-count))
              (descriptors (length (open-descriptors)))
              (memory (resident)))
          (rounds (amount 98000))
          (is (= sockets (lport-socket-count)))
          (is (= descriptors (length (open-descriptors))))
          (is (< (- (resident) memory) 30000000)))))))

(define-test library.a-change-is-compiled-into-all-that-follows ()
  "Every file depends on the one before it, and that one is loaded here: ASDF does not look through
one that is left out."
  (dolist (system '("port" "port/examples" "port/docs" "port/conformance" "port/test"))
    (let ((loaded (asdf:required-components system :other-systems nil))
          (parts (asdf:component-children (asdf:find-system system))))
      (loop for (before after) on parts
            do (is (member before loaded) "~A is left out" before)
               (when after
                 (is (member (asdf:component-name before)
                             (asdf:component-sideway-dependencies after)
                             :test #'equal)
                     "~A does not depend on ~A" after before))))))

(define-test library.another-lisp ()
  "Where there is no file of primitives for the Lisp the definition says so at once, and is not
loaded."
  (let ((*features* (set-difference *features* '(:sbcl :ecl :clisp)))
        (*package* (find-package :asdf-user))
        (*error-output* (make-broadcast-stream)))  ; SBCL says there where in the file it was
    (handler-case (progn (load (checkout-file "port.asd"))
                         (fiveam:fail "port.asd was loaded"))
      (simple-error (condition)
        (is (search (format nil "does not run on ~A" (lisp-implementation-type))
                    (princ-to-string condition)))
        (is (search "impl-sbcl.lisp" (princ-to-string condition)))))))
