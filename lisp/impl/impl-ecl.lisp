;;;; impl-ecl - what only ECL can say: the same names as in impl-sbcl.lisp, which has what each is
;;;; for. It needs the native compiler, as the forms of C in it do.
;;;;
;;;; The collector moves nothing, so a pointer into a vector is the address, a fixnum, and no object
;;;; is made for it; what is pointed to has to be referred to as long as that is used.

;;; The functions CLOSE, STREAM-ELEMENT-TYPE, INPUT-STREAM-P, OUTPUT-STREAM-P and OPEN-STREAM-P have
;;; to be generic: those that ECL begins with ask generic functions of other names, but CLOSE does
;;; not pass :ABORT on.
(eval-when (:compile-toplevel :load-toplevel :execute)
  (gray::redefine-cl-functions))

(in-package :port.ffi)

(ffi:clines "#include <dlfcn.h>"
            "#include <errno.h>"
            "#include <limits.h>"
            "#include <stdint.h>"
            "#include <string.h>"
            "#include <time.h>"
            "#include <unistd.h>"
            "#include <linux/futex.h>"
            "#include <sys/stat.h>"
            "#include <sys/syscall.h>")

(defun %load-shared-object (path)
  "Load the shared object PATH into this process, for all that is loaded later."
  (let ((file (concatenate 'base-string path (string (code-char 0)))))
    (unless (ffi:c-inline (file) (:object) :bool
                          "dlopen((char*)(#0)->base_string.self, RTLD_NOW | RTLD_GLOBAL) != NULL"
                          :one-liner t :side-effects t)
      (error "~A cannot be loaded." path))))

(defun %at-image-start (function-name)
  "ECL saves no images."
  function-name)

(defun %runtime-directory ()
  "The directory of the running executable, or NIL."
  (let ((file (ignore-errors (truename "/proc/self/exe"))))
    (and file (directory-namestring file))))

;;; Interrupts

(defmacro call-deferred (&body body)
  "Run BODY, short and never blocking but within %INTERRUPTIBLE, with interrupts of this thread
deferred until it is done."
  `(mp:without-interrupts ,@body))

(defmacro call-nowait (&body body)
  "As CALL-DEFERRED, for a BODY that besides never signals and never leaves but by its end, such as
a call of a function tagged [nowait]."
  `(mp:without-interrupts ,@body))

(defmacro call-undisturbed (&body body)
  "As CALL-NOWAIT, for a BODY that besides allocates nothing."
  `(mp:without-interrupts ,@body))

(defmacro with-waiting ((variable acquire) wait &body release)
  "Bind VARIABLE to the value of ACQUIRE, run WAIT, which may block, then RELEASE, and return the
values of WAIT. Interrupts can unwind only WAIT: what ACQUIRE has got is always released, once."
  `(mp:without-interrupts
     (let ((,variable ,acquire))
       (unwind-protect (mp:with-local-interrupts ,wait)
         ,@release))))

(defmacro with-cleanup (form &body cleanup)
  "As UNWIND-PROTECT, but no interrupt can unwind CLEANUP or come before it."
  `(mp:without-interrupts
     (unwind-protect (mp:with-local-interrupts ,form)
       ,@cleanup)))

;;; Foreign functions and memory

(defmacro keeping ((object) &body body)
  "Run BODY, for which OBJECT, a variable, has to be there to the end."
  `(multiple-value-prog1 (progn ,@body)
     (ffi:c-inline (,object) (:object) :void
                   "__asm__ __volatile__ (\"\" : : \"r\" (#0) : \"memory\")"
                   :one-liner t :side-effects t)))

(defmacro with-address ((pointer vector type start width) &body body)
  "Run BODY with POINTER to element START of VECTOR, whose elements, of WIDTH octets, are of TYPE."
  (let ((place (gensym "VECTOR")))
    `(let ((,place ,vector))
       (declare (type ,type ,place))
       (keeping (,place)
         (let ((,pointer (ffi:c-inline (,place ,start) (:object :fixnum) :fixnum
                                       ,(format nil "(cl_fixnum)((#0)->vector.self.b8 + ~D*(#1))"
                                                width)
                                       :one-liner t :side-effects nil)))
           (declare (type fixnum ,pointer))
           ,@body)))))

(defmacro with-octets ((pointer octets &optional (start 0) end way) &body body)
  "Run BODY, short and never blocking, with POINTER to element START of OCTETS, a (simple-array
(unsigned-byte 8) (*))."
  (declare (ignore end way))
  `(with-address (,pointer ,octets octets ,start 1) ,@body))

(defmacro with-characters ((pointer string &optional (start 0) end way) &body body)
  "As WITH-OCTETS, for a (simple-array character (*)): POINTER is to UTF-32 in host order."
  (declare (ignore end way))
  `(with-address (,pointer ,string (simple-array character (*)) ,start 4) ,@body))

(defmacro with-int64s ((pointer vector &optional (start 0) end way) &body body)
  "Run BODY with POINTER to element START of VECTOR, a (simple-array (signed-byte 64) (*)). BODY may
block if what it points to is only written to."
  (declare (ignore end way))
  `(with-address (,pointer ,vector int64s ,start 8) ,@body))

(defmacro %piece-end (start end &optional room)
  "The end of the part, from START on, that one call of the library gets of the elements up to END:
all of them. A Lisp that has to copy them gives it fewer, at most ROOM."
  (declare (ignore start room))
  end)

(defmacro %null-pointer ()
  "The pointer NULL."
  0)

(defun text-at (address)
  "The text in UTF-8 at ADDRESS, which ends with a zero; NIL for NULL."
  (unless (zerop address)
    (let* ((length (ffi:c-inline (address) (:fixnum) :fixnum "strlen((char*)(#0))" :one-liner t))
           (octets (make-array length :element-type '(unsigned-byte 8))))
      (with-octets (pointer octets)
        (ffi:c-inline (pointer address length) (:fixnum :fixnum :fixnum) :void
                      "memcpy((char*)(#0), (char*)(#1), #2)" :one-liner t :side-effects t))
      (babel:octets-to-string octets :encoding :utf-8))))

(eval-when (:compile-toplevel :load-toplevel :execute)
  (defun c-type (type)
    "Values: how C-INLINE calls TYPE, one of the bindings; how C does."
    (ecase type
      ((:int64 handle result) (values :int64-t "int64_t"))
      (:int32 (values :int32-t "int32_t"))
      (:size (values :uint64-t "size_t"))
      ((:pointer :string) (values :fixnum "void *")))))

(defmacro %define-foreign ((c-name name) result &rest parameters)
  "Define NAME as the function C-NAME of the library, with PARAMETERS, (name type)..., and a RESULT
of that type. It is looked up by its name when it is first called: a call by name costs a hundred
times what one of an address does."
  (multiple-value-bind (result-type c-result) (c-type result)
    (let* ((names (mapcar #'first parameters))
           (types (mapcar #'second parameters))
           (call `(ffi:c-inline
                   ,names ,(mapcar (lambda (type) (values (c-type type))) types) ,result-type
                   ,(format nil "{ static ~A (*function)(~{~A~^, ~}) = NULL;
  if (function == NULL)
    function = (~@*~A (*)(~{~A~^, ~}))dlsym(NULL, \"~A\");
  @(return 0) = ~:[~;(cl_fixnum)~](*function)(~{~A~^, ~}); }"
                            c-result
                            (or (mapcar (lambda (type) (nth-value 1 (c-type type))) types)
                                '("void"))
                            c-name
                            (member result '(:pointer :string))
                            (loop for index from 0 below (length names)
                                  for place = (format nil "#~36R" index)
                                  collect (if (eq (nth index types) :pointer)
                                              (format nil "(void *)(~(~A~))" place)
                                              (format nil "(~(~A~))" place))))
                   :one-liner nil :side-effects t)))
      `(defun ,name ,names
         ,(if (eq result :string) `(text-at ,call) call)))))

(defmacro %define-waiting ((c-name name) result &rest parameters)
  "As %DEFINE-FOREIGN, for a function tagged [waits]."
  `(%define-foreign (,c-name ,name) ,result ,@parameters))

(in-package :port)

;;; Threads

(defun %threads-p ()
  "True if there can be threads."
  t)

(defmacro %current-thread ()
  "The running thread, as an object to compare with EQ."
  'mp:*current-process*)

(defmacro %yield ()
  "Let other threads run first."
  '(mp:process-yield))

(defconstant +stack-room+ 131072
  "Octets before the end of the stack: what is guarded, and what a call of the library needs.")

(declaim (inline %stack-room-p))
(defun %stack-room-p ()
  "True if there is stack enough for calls of the library: to run out of it would unwind them."
  ;; It grows downward.
  (> (the fixnum (ffi:c-inline () () :fixnum
                               "(char*)__builtin_frame_address(0) - ecl_process_env()->cs_limit"
                               :one-liner t :side-effects nil))
     +stack-room+))

(defmacro %fence (order)
  "A fence of C11 of ORDER, a name."
  `(ffi:c-inline () () :void ,(format nil "__atomic_thread_fence(~A)" order)
                 :one-liner t :side-effects t))

(defmacro %compiler-barrier ()
  "Loads after this are made anew, as another thread may have made a barrier for this one."
  '(ffi:c-inline () () :void "__asm__ __volatile__ (\"\" : : : \"memory\")"
                 :one-liner t :side-effects t))

(defmacro %release-barrier ()
  "Whoever sees a store that is made after this sees everything that was done before it."
  '(%fence "__ATOMIC_RELEASE"))

(defmacro %acquire-barrier ()
  "What is loaded after this is no older than what was loaded before it."
  '(%fence "__ATOMIC_ACQUIRE"))

(defun %make-lock ()
  (mp:make-lock :name "port"))

(defmacro %with-lock ((lock) &body body)
  "Run BODY, short and never blocking, while this thread has LOCK, with its interrupts deferred."
  `(mp:without-interrupts
     (mp:with-lock (,lock) ,@body)))

(defmacro %with-open-lock ((lock &optional (wait (gensym "WAIT"))) &body body)
  "As %WITH-LOCK, but BODY may call WAIT, which is %CONDITION-WAIT on LOCK with a condition and
seconds, and interrupts may unwind it."
  (let ((place (gensym "LOCK")))
    `(let ((,place ,lock))
       (flet ((,wait (condition &optional seconds)
                (%condition-wait condition ,place seconds)))
         (declare (ignorable #',wait))
         (mp:with-lock (,place) ,@body)))))

(defmacro %interruptible (&body body)
  "Within CALL-DEFERRED, and nothing else that defers interrupts: let them in while BODY, which may
block, runs."
  `(let ((si:*allow-with-interrupts* t))
     (mp:with-interrupts ,@body)))

;;; A wait on one of ECL's own conditions has no limit of time. So a condition is a number that each
;;; notification changes; who waits sleeps in the system until it is no longer what it was while he
;;; had the lock, see futex(2).

(deftype condition-word () '(simple-array (unsigned-byte 32) (1)))

(defun %make-condition ()
  (make-array 1 :element-type '(unsigned-byte 32) :initial-element 0))

(defun sleep-on (condition value nanoseconds)
  "Sleep until somebody wakes CONDITION, for NANOSECONDS (below zero: no limit) at the most, or for
no reason; not at all unless it has VALUE."
  (declare (type condition-word condition) (type (unsigned-byte 32) value)
           (type (signed-byte 64) nanoseconds))
  (ffi:c-inline (condition value nanoseconds) (:object :uint32-t :int64-t) :void "{
  struct timespec limit = { (#2) / 1000000000, (#2) % 1000000000 };
  syscall(SYS_futex, (#0)->vector.self.b32, FUTEX_WAIT_PRIVATE, #1, (#2) < 0 ? NULL : &limit,
          NULL, 0); }" :one-liner nil :side-effects t)
  nil)

(defun wake (condition count)
  "Let COUNT threads go on that sleep on CONDITION."
  (declare (type condition-word condition) (type (signed-byte 32) count))
  (setf (aref condition 0) (ldb (byte 32 0) (1+ (aref condition 0))))
  (ffi:c-inline (condition count) (:object :int32-t) :void
                "syscall(SYS_futex, (#0)->vector.self.b32, FUTEX_WAKE_PRIVATE, #1, NULL, NULL, 0)"
                :one-liner t :side-effects t)
  nil)

(defun %condition-wait (condition lock &optional seconds)
  "Give LOCK up until CONDITION is notified or SECONDS (NIL: no limit) have passed, or for no
reason; this thread has it afterwards, in the cleanup of one that is unwound too."
  (let ((value (aref (the condition-word condition) 0)))
    (port.ffi:with-cleanup
        (progn
          (call-deferred (mp:giveup-lock lock))
          (sleep-on condition value (if seconds (round (* seconds 1000000000)) -1)))
      (unless (mp:holding-lock-p lock)
        (mp:get-lock lock)))))

(defun %open-condition-wait (condition lock &optional seconds)
  "As %CONDITION-WAIT, within CALL-DEFERRED, and nothing else that defers interrupts: let them in."
  (%interruptible (%condition-wait condition lock seconds)))

(defun %condition-notify (condition)
  "Let one thread that waits on CONDITION go on. The caller has the lock."
  (wake condition 1))

(defun %condition-broadcast (condition)
  (wake condition 2147483647))

(defun %processor-count ()
  "How many processors this process may use."
  (let* ((size 128) (set (make-array size :element-type '(unsigned-byte 8) :initial-element 0)))
    (with-octets (pointer set)
      (ffi:c-inline (pointer size) (:fixnum :fixnum) :void
                    "syscall(SYS_sched_getaffinity, 0, #1, (void *)(#0))"
                    :one-liner t :side-effects t))
    (max 1 (reduce #'+ set :key #'logcount))))

(defun %at-exit (function-name)
  "Call the function named FUNCTION-NAME when this process begins to end."
  (pushnew function-name si:*exit-hooks*))

(defun %make-thread (function name)
  "A new thread that calls FUNCTION. Signals an ERROR where the system has none."
  (mp:process-run-function name function))

(defmacro %compare-and-swap (place old new)
  "Put NEW into PLACE if it holds OLD (EQ), atomically; the value that PLACE had."
  `(mp:compare-and-swap ,place ,old ,new))

(defmacro %add-atomically ((accessor object) number)
  "Add NUMBER to the place (ACCESSOR OBJECT), a slot of type (unsigned-byte 64) in a structure."
  (let ((instance (gensym "OBJECT")) (more (gensym "NUMBER")) (old (gensym "OLD")))
    `(let ((,instance ,object) (,more ,number))
       (loop for ,old = (,accessor ,instance)
             until (eq ,old (mp:compare-and-swap (,accessor ,instance) ,old (+ ,old ,more)))
             finally (return ,old)))))

(defun %thread-alive-p (thread)
  (and thread (mp:process-active-p thread)))

;;; Objects

(defun %close-when-garbage (endpoint handle)
  "Close HANDLE some time after ENDPOINT, which is around it, has become garbage."
  (ext:set-finalizer endpoint (lambda (endpoint)
                                (declare (ignore endpoint))
                                (lport-socket-close handle 0))))

(defmacro %close-lost ()
  "Nothing is left to be closed here."
  nil)

(defun %closed-in-time (endpoint)
  "ENDPOINT is closed: nothing has to be done once it is garbage, and what it leads to is garbage
with it."
  (ext:set-finalizer endpoint nil))

(defun %weak-pointer (object)
  "An object that leads to OBJECT and does not keep it from becoming garbage."
  (ext:make-weak-pointer object))

(defun %weak-pointer-value (pointer)
  "What POINTER leads to, or NIL if it has become garbage."
  (values (ext:weak-pointer-value pointer)))

(defun %nan-p (number)
  "True if NUMBER is a float that is not a number."
  (and (floatp number) (ext:float-nan-p number)))

(defun %infinity-p (number)
  (and (floatp number) (ext:float-infinity-p number)))

(defun simplest-between (low high)
  "The rational with the smallest denominator from LOW, not negative, to HIGH."
  (let ((whole (floor low)))
    (cond ((= whole low) whole)
          ((< whole (floor high)) (1+ whole))
          (t (+ whole (/ (simplest-between (/ (- high whole)) (/ (- low whole)))))))))

(defun %rationalize (number)
  "A simple rational that NUMBER, not negative, is as exact as; ECL's own function makes the one
that the float is."
  (if (floatp number)
      (multiple-value-bind (mantissa exponent) (integer-decode-float number)
        (if (or (zerop mantissa) (not (minusp exponent)))
            (rational number)
            (let ((half (expt 2 (1- exponent))))
              (simplest-between (* half (1- (* 2 mantissa))) (* half (1+ (* 2 mantissa)))))))
      (rational number)))

(defmacro %next-report (report)
  "Print the report of a condition, in a method of PRINT-OBJECT: its class has REPORT, a form."
  (declare (ignore report))
  '(call-next-method))

;;; What a function says of itself

(defun %document-function (name text)
  "Make TEXT the docstring of the function NAME, which may be an accessor. ECL itself would keep it
under the name of a function object, and those of accessors have none."
  (ext:annotate name 'documentation 'function text))

(defun %lambda-list (name)
  "The argument list of function NAME as DESCRIBE and editors show it."
  (values (ext:function-lambda-list name)))

(defun %show-lambda-list (name lambda-list)
  "Make DESCRIBE and editors show LAMBDA-LIST for function NAME, which sorts its arguments out by
itself; how it is called does not change."
  (ext:annotate name :lambda-list nil lambda-list))

;;; Streams

(defmacro %define-two-way (class)
  "Define what is asked of the streams of CLASS: they are of both directions and not interactive."
  `(progn
     (defmethod input-stream-p ((stream ,class)) t)
     (defmethod output-stream-p ((stream ,class)) t)
     (defmethod gray::stream-interactive-p ((stream ,class)) nil)))

(defmacro %line-read (form)
  "What STREAM-READ-LINE returns where the values of FORM are the line, empty where there is none,
and true if end of file ended it: where there is none, NIL in its place."
  `(multiple-value-bind (line last-p) ,form
     (values (unless (and last-p (zerop (length line))) line) last-p)))

(defun %stream-descriptor (stream)
  "The descriptor of STREAM, an open file stream."
  (si:file-stream-fd stream))

(defun %regular-file-size (file)
  "How many octets FILE, an open file stream or the system's name of a file, has; :SPECIAL if it is
no regular file, NIL if there is none."
  (let ((size (if (streamp file)
                  (let ((descriptor (%stream-descriptor file)))
                    (ffi:c-inline (descriptor) (:int) :int64-t "{
  struct stat facts;
  @(return 0) = fstat(#0, &facts) != 0 ? -1 : S_ISREG(facts.st_mode) ? facts.st_size : -2; }"
                                  :one-liner nil :side-effects t))
                  (with-octets (name (utf8-octets (concatenate 'string file
                                                               (string (code-char 0)))))
                    (ffi:c-inline (name) (:fixnum) :int64-t "{
  struct stat facts;
  int status = stat((char *)(#0), &facts);
  @(return 0) = status != 0 ? -1 : S_ISREG(facts.st_mode) ? facts.st_size : -2; }"
                                  :one-liner nil :side-effects t)))))
    (case size
      (-1 nil)
      (-2 :special)
      (t size))))

(defun %replace (sequence other &rest bounds &key (start1 0) end1 (start2 0) end2)
  "As REPLACE: signals an ERROR where SEQUENCE cannot hold what OTHER has. Of a character ECL itself
would put into a base string what of its code one octet holds."
  (when (typep sequence 'base-string)
    (loop repeat (min (- (or end1 (length sequence)) start1) (- (or end2 (length other)) start2))
          for index from start2
          do (unless (typep (elt other index) 'base-char)
               (error 'type-error :datum (elt other index) :expected-type 'base-char))))
  (apply #'replace sequence other bounds))
