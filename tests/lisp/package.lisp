;;;; package - the package of the tests, how a test is defined and run, and helpers for all files.
;;;;
;;;; Each test runs under a watchdog, and afterwards nothing may be open that was not open before. A
;;;; file of tests has a suite of its name. The words of SBCL that are used here and in other files
;;;; mean the same on ECL and CLISP, see tests/words/names.lisp.

(defpackage :port/test
  (:documentation "The tests of PORT from the Lisp side.")
  (:use :common-lisp :port)
  (:shadowing-import-from :port #:stream-external-format)
  (:import-from :fiveam #:is #:is-true #:is-false #:pass #:skip #:signals #:finishes)
  ;; internals that are tested by themselves
  (:import-from :port
   #:check-argument #:fail #:fail-as #:status-condition
   #:call-with-retry-restarts #:with-retry
   #:address-block #:block-address #:block-port #:endpoint-text #:host-designator
   #:port-designator #:family-designator #:octets-of-size #:related-hostent)
  (:import-from :port.ffi
   #:lport-socket-count #:lport-wait-count #:lport-clock-now #:lport-status-make #:lport-kind-name)
  (:export #:run-all))

(in-package :port/test)

;;; What differs between Lisps, see unfit-ecl.lisp and unfit-clisp.lisp

(defvar *slowness* 1
  "How many times longer than the limit of a test says it may take on this Lisp.")

(defvar *watchdog-p* t
  "False where there is no thread that could watch another.")

;;; What is open

(defun link-target (path)
  "Where the symbolic link PATH, a string, points; NIL if it is gone."
  (cffi:with-foreign-object (room :char 256)
    (let ((length (cffi:foreign-funcall "readlink" :string path :pointer room :size 255 :long)))
      (unless (minusp length)
        (values (cffi:foreign-string-to-lisp room :count length))))))

(defun descriptor-entries (directory)
  "The entries of DIRECTORY. The function of that name stumbles over one that another thread closes
meanwhile."
  #-clisp (loop
            (handler-case (return (directory (concatenate 'string directory "*")
                                             :resolve-symlinks nil))
              ((or type-error file-error) () nil)))
  ;; That of CLISP follows links.
  #+clisp (loop for number below 4096
                for path = (format nil "~A~D" directory number)
                when (link-target path)
                  collect (uiop:parse-native-namestring path)))

(defvar *not-ours* '("[eventfd]" "tests/vectors/hosts")
  "Parts of the names of what may be open without being left behind: the library pools event
descriptors, and waits are counted by it; nss_wrapper keeps the hosts file open.")

(defun open-descriptors (&optional (directory "/proc/self/fd/"))
  "What the process that DIRECTORY is of has open, a list of strings \"number target\", but for what
is not ours."
  (loop for entry in (descriptor-entries directory)
        for path = (uiop:native-namestring entry)
        for target = (link-target path)
        unless (or (null target)
                   (some (lambda (part) (search part target)) *not-ours*))
          collect (format nil "~A ~A" (file-namestring path) target)))

(defun runs-of (status)
  "What the file STATUS of a thread, in its folder in /proc, tells of it: the state and how often it
was put on a processor and off it, a list of lines; NIL if it has ended."
  (with-open-file (stream status :if-does-not-exist nil)
    (when stream
      (loop for line = (read-line stream nil)
            while line
            when (or (search "State:" line) (search "ctxt_switches:" line))
              collect line))))

(defun open-things ()
  "A list of what tests must not leave behind: sockets, waits, descriptors."
  (list (lport-socket-count) (lport-wait-count) (open-descriptors)))

(defun leaks (before)
  "A text that says what is open now and was not BEFORE, or NIL."
  (destructuring-bind (sockets waits descriptors) (open-things)
    (let ((more-sockets (- sockets (first before)))
          (more-waits (- waits (second before)))
          (more (set-difference descriptors (third before) :test #'string=)))
      (when (or (plusp more-sockets) (plusp more-waits) more)
        (format nil "left open: ~D socket~:P, ~D wait~:P, descriptors~{ ~A~^,~}"
                more-sockets more-waits more)))))

(defun wait-until (predicate &optional (seconds 10))
  "The value of PREDICATE as soon as it is true, or NIL after SECONDS, by which time it hangs: for
what another thread is about to do and tells nobody."
  (loop with end = (+ (get-internal-real-time) (* seconds internal-time-units-per-second))
        for value = (funcall predicate)
        until (or value (> (get-internal-real-time) end))
        do (sleep 0.005)
        finally (return value)))

(defun call-checking-leaks (function)
  "Call FUNCTION; then everything that it opened has to be closed."
  (let ((before (open-things)))
    (funcall function)
    (is (wait-until (lambda () (null (leaks before))) (* 10 *slowness*)) "~A" (leaks before))))

;;; Watchdog

(defun print-thread (thread)
  "Print the backtrace of THREAD, if it can still be interrupted."
  (let ((text nil) (done (sb-thread:make-semaphore)))
    (handler-case
        (sb-thread:interrupt-thread
         thread
         (lambda ()
           (setf text (with-output-to-string (stream)
                        (sb-debug:print-backtrace :stream stream :count 50)))
           (sb-thread:signal-semaphore done)))
      (sb-thread:interrupt-thread-error () nil))
    (sb-thread:wait-on-semaphore done :timeout 2)
    (format *error-output* "~&~%Thread ~A:~%~A~%" (sb-thread:thread-name thread)
            (or text "(cannot be interrupted)"))))

(defun stop-hanging (name seconds)
  "Say that test NAME hangs, and where, and end the process with a failure."
  (format *error-output* "~&Test ~A has not ended after ~D s.~%" name seconds)
  (mapc #'print-thread (remove sb-thread:*current-thread* (sb-thread:list-all-threads)))
  (finish-output *error-output*)
  (sb-ext:exit :code 1 :abort t))

(defun call-with-watchdog (name seconds function)
  "Call FUNCTION for test NAME; the process ends if it takes longer than SECONDS."
  (if *watchdog-p*
      (call-watched name seconds function)
      (funcall function)))

(defun call-watched (name seconds function)
  (let* ((done (sb-thread:make-semaphore))
         (error-output *error-output*)
         (watcher (sb-thread:make-thread
                   (lambda ()
                     (unless (sb-thread:wait-on-semaphore done :timeout seconds)
                       (let ((*error-output* error-output))
                         (stop-hanging name seconds))))
                   :name "watchdog")))
    (unwind-protect (funcall function)
      (sb-thread:signal-semaphore done)
      (sb-thread:join-thread watcher :default nil))))

;;; Faults, see tests/faults/faults.h

(defun faults-p ()
  "True if the library is the one whose system calls can be made to fail."
  (and (cffi:foreign-symbol-pointer "faults_fail") t))

(defun weather-p ()
  "True while calls are cut to an octet and a third fails, by $PORT_FAULTS."
  (and (faults-p)
       (/= 0 (cffi:foreign-funcall "faults_everywhere" :int32))))

(defun faults-fail (first errno &key (call "any") (count 1))
  "Make the FIRST-th system call from now, of the kind CALL (a name that faults_call knows), and
those after it up to COUNT fail with ERRNO."
  (cffi:foreign-funcall "faults_fail"
                        :int32 (cffi:foreign-funcall "faults_call" :string call :int32)
                        :int64 first :int64 count :int32 errno :void))

(defun faults-struck ()
  (cffi:foreign-funcall "faults_struck" :int64))

(defun faults-clear ()
  (cffi:foreign-funcall "faults_resume" :void))

(defun faults-watch ()
  "No faults from here on but those that are asked for, until FAULTS-CLEAR; true if this ends those
of $PORT_FAULTS."
  (/= 0 (cffi:foreign-funcall "faults_watch" :int32)))

(defun call-in-fair-weather (function)
  "Call FUNCTION while no call fails but for its own reasons: for what a test makes ready."
  (if (and (faults-p) (faults-watch))
      (unwind-protect (funcall function)
        (faults-clear))
      (funcall function)))

(defmacro in-fair-weather (() &body body)
  `(call-in-fair-weather (lambda () ,@body)))

(defun most (count)
  "How many of COUNT octets one call moves at the most."
  (if (faults-p)
      (cffi:foreign-funcall "faults_most" :size count :size)
      count))

(defun at-once (function)
  "The value of FUNCTION, which does not wait; where it may see nothing of what is there, the first
that is true."
  (if (weather-p)
      (wait-until function)
      (funcall function)))

(defun amount (count)
  "COUNT octets to transfer, or fewer where each costs several system calls."
  (if (weather-p) (ceiling count 64) count))

(defun octets-consed (function)
  "How many octets of Lisp memory a call of FUNCTION takes: the least of three calls, as what
another thread takes, or a collection counts, in the midst of one is not its own."
  (loop repeat 3
        minimize (let ((before (sb-ext:get-bytes-consed)))
                   (funcall function)
                   (- (sb-ext:get-bytes-consed) before))))

(defun test-seed ()
  "A number for what is random: that of $PORT_TEST_SEED, or 1."
  (parse-integer (or (uiop:getenvp "PORT_TEST_SEED") "1")))

;;; Tests

(defvar *tests* '()
  "The names of all tests, the last one first.")

(defmacro define-suite (name documentation)
  "Begin the suite NAME, a symbol: the tests of a file."
  `(fiveam:def-suite* ,name :description ,documentation))

(defun test-name (name)
  (if (stringp name) (intern name :port/test) name))

(defun test-description (behaviour body)
  "The docstring that BODY begins with, after the numbers of BEHAVIOUR, one or a list."
  (format nil "~@[Behaviour ~{~D~^, ~}. ~]~@[~A~]"
          (if (listp behaviour) behaviour (list behaviour))
          (and (stringp (first body)) (rest body) (first body))))

(defmacro define-test (name (&key suite behaviour (limit 20) faults (weather t)) &body body)
  "Define test NAME, a symbol or a string, in SUITE or the one of the file. BEHAVIOUR: the number of
the behaviour that it holds, or a list of them. It may take LIMIT seconds and must close what it
opens. FAULTS: it needs the library that can fail on demand. WEATHER NIL: it makes no sense while
every call is cut to an octet and a third fails."
  (let ((name (test-name name)))
    `(progn
       (pushnew ',name *tests*)
       (setf (get ',name 'faults) ,faults
             (get ',name 'weather) ,weather)
       (fiveam:test (,name ,@(when suite `(:suite ,suite)))
         ,(test-description behaviour body)
         (call-with-watchdog ',name (* *slowness* (if (weather-p) (* 4 ,limit) ,limit))
                             (lambda ()
                               (call-checking-leaks (lambda () ,@body))))))))

(defun run-quietly (name)
  "The results of test NAME, a list."
  (let ((fiveam:*test-dribble* (make-broadcast-stream))
        (*print-pretty* nil)
        (*print-length* 20))
    (fiveam:run name)))

(defvar *unfit* '()
  "Which tests cannot hold on this Lisp: a list of (reason . names).")

(defvar *unfit-chapters* '()
  "The titles of the chapters of documents that are about another Lisp.")

(defun why-unfit (name)
  "Why test NAME cannot hold on this Lisp, a text, or NIL."
  (first (find-if (lambda (row) (member name (rest row) :test #'string-equal)) *unfit*)))

(defun run-and-explain (name)
  "Run test NAME; :PASSED, :FAILED after a report, or :SKIPPED, after one too where it is this Lisp
that does not fit."
  (if (why-unfit name)
      (progn (format t "~&~A: left out: ~A~%" name (why-unfit name))
             :skipped)
      (run-alone name)))

(defun run-alone (name)
  "As RUN-AND-EXPLAIN, for a test that fits, as far as one can tell before it is run."
  (let ((results (catch :left-out (run-quietly name))))
    (if (stringp results)
        (progn (format t "~&~A: left out: ~A~%" name results)
               :skipped)
        (explain-results name results))))

(defun explain-results (name results)
  "As RUN-AND-EXPLAIN, for a test with RESULTS."
  (multiple-value-bind (passed failed skipped) (fiveam:results-status results)
    (declare (ignore failed))
    (cond ((not passed)
           (let ((fiveam:*test-dribble* *standard-output*) (*print-length* 20))
             (format t "~&~A:~%" name)
             (fiveam:explain! results))
           :failed)
          (skipped :skipped)
          (t :passed))))

(defun half-of (tests)
  "Every second of TESTS, from that on which $PORT_TEST_HALF tells, if it does."
  (let ((half (uiop:getenvp "PORT_TEST_HALF")))
    (if half
        (loop for test in tests
              for index from (parse-integer half)
              when (evenp index)
                collect test)
        tests)))

(defun chosen-tests ()
  "The names of the tests to run, in order: all that make sense here, or of them those whose name
has the text of $PORT_TEST in it."
  (let ((part (or (uiop:getenvp "PORT_TEST") "")))
    (half-of (remove-if-not (lambda (name)
                              (and (search part (symbol-name name) :test #'char-equal)
                                   (or (faults-p) (not (get name 'faults)))
                                   (or (not (weather-p)) (get name 'weather))))
                            (reverse *tests*)))))

(defun run-all ()
  "Run every test; print the failures, and as last line how many there were. True if all is well."
  (let* ((outcomes (mapcar #'run-and-explain (chosen-tests)))
         (failed (count :failed outcomes))
         (skipped (count :skipped outcomes)))
    (format t "~&lisp: ~D passed, ~D failed~[~:;, ~:*~D skipped~]~%"
            (count :passed outcomes) failed skipped)
    (finish-output)
    (and outcomes (zerop failed))))

;;; Helpers

(defun checkout-file (name)
  "The file NAME of the checkout, a pathname."
  (asdf:system-relative-pathname "port" name))

(defmacro failure-of (&body body)
  "The NETWORK condition that BODY signals, or NIL if it returns."
  `(handler-case (progn ,@body nil)
     (network (condition) condition)))

(defmacro is-failure ((class code &rest parts) &body body)
  "Check that BODY signals CLASS with CODE, a keyword, that it knows its operation, and that its
report has each of PARTS in it. Returns the condition."
  (let ((condition (gensym "CONDITION")))
    `(let ((,condition (failure-of ,@body)))
       (is (typep ,condition ',class) "expected ~S, got ~S" ',class ,condition)
       (when (typep ,condition 'network)
         (is (eq ,code (network-code ,condition)))
         (is (keywordp (network-operation ,condition)) "no operation: ~A" ,condition)
         (is-report ,condition ,@parts))
       ,condition)))

(defun is-report (condition &rest parts)
  "Check that the report of CONDITION is one line that has PARTS, strings, in it."
  (let ((line (princ-to-string condition)))
    (is (not (find #\Newline line)) "not one line: ~S" line)
    (dolist (part parts)
      (is (search part line) "expected ~S in ~S" part line))))

(defun in-thread (function)
  "Start a thread that calls FUNCTION; end it with JOIN. An error in it ends the thread alone."
  (sb-thread:make-thread
   (lambda ()
     (handler-case (cons nil (multiple-value-list (funcall function)))
       (error (condition) (list condition))))))

(defun join (thread)
  "The values of THREAD, or the error that ended it."
  (destructuring-bind (condition . results) (sb-thread:join-thread thread)
    (if condition
        (error condition)
        (values-list results))))

(defun names-p ()
  "True if the names of tests/vectors/hosts resolve, as they do in `make test`."
  (uiop:getenvp "NSS_WRAPPER_HOSTS"))

(defmacro with-names (() &body body)
  "Run BODY if the names of tests/vectors/hosts resolve; else count the test as skipped."
  `(if (names-p)
       (progn ,@body)
       (skip "the names of tests/vectors/hosts do not resolve here")))
