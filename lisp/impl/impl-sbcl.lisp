;;;; impl-sbcl - what only SBCL can say: the primitives whose names begin with %.
;;;;
;;;; A port to another Lisp is another file that defines the same names; besides the imports in
;;;; package.lisp nothing else in lisp/ differs between Lisps.

(in-package :port.ffi)

(defun %load-shared-object (path)
  "Load the shared object PATH into this process. It is left out of saved images, which find it
again when they start: a recorded path that is gone would keep them from starting."
  (sb-alien:load-shared-object (sb-ext:parse-native-namestring path) :dont-save t))

(defun %at-image-start (function-name)
  "Call the function named FUNCTION-NAME whenever a saved image starts, after those that were named
before."
  (unless (member function-name sb-ext:*init-hooks*)
    (setf sb-ext:*init-hooks* (append sb-ext:*init-hooks* (list function-name)))))

(defun %runtime-directory ()
  "The directory of the running executable, or NIL."
  (and sb-ext:*runtime-pathname*
       (sb-ext:native-namestring (make-pathname :name nil :type nil :version nil
                                                :defaults sb-ext:*runtime-pathname*))))

(defmacro call-deferred (&body body)
  "Run BODY, short and never blocking but within %INTERRUPTIBLE, with interrupts of this thread
deferred until it is done: waiting for a lock, or a hook of the collector, lets none in either."
  `(sb-sys:without-interrupts ,@body))

(defmacro let-in-pending (enabled)
  "Let in the interrupts that have come since ENABLED said whether they may."
  `(when (and ,enabled sb-sys:*interrupt-pending*)
     (sb-unix::receive-pending-interrupt)))

(defmacro call-nowait (&body body)
  "As CALL-DEFERRED, for a BODY that besides never signals and never leaves but by its end, such as
a call of a function tagged [nowait]: it is spared the UNWIND-PROTECT, which costs more than all
else."
  (let ((enabled (gensym "ENABLED")))
    `(let ((,enabled sb-sys:*interrupts-enabled*))
       (multiple-value-prog1 (let ((sb-sys:*interrupts-enabled* nil)
                                   ;; nor may the collector's hooks let them in
                                   (sb-sys:*allow-with-interrupts* nil))
                               ,@body)
         (let-in-pending ,enabled)))))

(defmacro call-undisturbed (&body body)
  "As CALL-NOWAIT, for a BODY that besides allocates nothing: heap exhaustion cannot unwind it, and
no hook of the collector runs within it. So the variable that defers interrupts can be set and set
back, which costs less than to bind it."
  (let ((enabled (gensym "ENABLED")))
    `(let ((,enabled sb-sys:*interrupts-enabled*))
       (setf sb-sys:*interrupts-enabled* nil)
       (multiple-value-prog1 (progn ,@body)
         (setf sb-sys:*interrupts-enabled* ,enabled)
         (let-in-pending ,enabled)))))

(defmacro with-waiting ((variable acquire) wait &body release)
  "Bind VARIABLE to the value of ACQUIRE, run WAIT, which may block, then RELEASE, and return the
values of WAIT. Interrupts can unwind only WAIT: what ACQUIRE has got is always released, once."
  `(sb-sys:without-interrupts
     (let ((,variable ,acquire))
       (unwind-protect (sb-sys:with-local-interrupts ,wait)
         ,@release))))

(defmacro with-cleanup (form &body cleanup)
  "As UNWIND-PROTECT, but no interrupt can unwind CLEANUP or come before it."
  `(sb-sys:without-interrupts
     (unwind-protect (sb-sys:with-local-interrupts ,form)
       ,@cleanup)))

(defmacro with-octets ((pointer octets &optional (start 0) end way) &body body)
  "Run BODY, short and never blocking, with POINTER to element START of OCTETS, a (simple-array
(unsigned-byte 8) (*)) that does not move meanwhile. END and WAY are for Lisps that have to copy
them, see impl-clisp.lisp."
  (declare (ignore end way))
  (let ((vector (gensym "OCTETS")))
    `(let ((,vector ,octets))
       (declare (type octets ,vector))
       (sb-sys:with-pinned-objects (,vector)
         (let ((,pointer (sb-sys:sap+ (sb-sys:vector-sap ,vector) ,start)))
           ,@body)))))

(defmacro with-characters ((pointer string &optional (start 0) end way) &body body)
  "As WITH-OCTETS, for a (simple-array character (*)): POINTER is to UTF-32 in host order."
  (declare (ignore end way))
  (let ((vector (gensym "STRING")))
    `(let ((,vector ,string))
       (declare (type (simple-array character (*)) ,vector))
       (sb-sys:with-pinned-objects (,vector)
         (let ((,pointer (sb-sys:sap+ (sb-sys:vector-sap ,vector) (* 4 ,start))))
           ,@body)))))

(defmacro with-int64s ((pointer vector &optional (start 0) end way) &body body)
  "Run BODY with POINTER to element START of VECTOR, a (simple-array (signed-byte 64) (*)) that does
not move meanwhile. BODY may block if what it points to is only written to."
  (declare (ignore end way))
  (let ((place (gensym "VECTOR")))
    `(let ((,place ,vector))
       (declare (type int64s ,place))
       (sb-sys:with-pinned-objects (,place)
         (let ((,pointer (sb-sys:sap+ (sb-sys:vector-sap ,place) (* 8 ,start))))
           ,@body)))))

(defmacro %piece-end (start end &optional room)
  "The end of the part, from START on, that one call of the library gets of the elements up to END:
all of them. A Lisp that has to copy them gives it fewer, at most ROOM."
  (declare (ignore start room))
  end)

(defmacro %null-pointer ()
  "The pointer NULL."
  '(cffi:null-pointer))

(defmacro %define-foreign ((c-name name) result &rest parameters)
  "Define NAME as the function C-NAME of the library, with PARAMETERS, (name type)..., and a RESULT
of that type. It is short, and mostly called with interrupts deferred, so it is spared what only a
debugger needs that looks at it from within."
  `(defun ,name ,(mapcar #'first parameters)
     (declare (optimize (sb-c::alien-funcall-saves-fp-and-pc 0)))
     (cffi:foreign-funcall ,c-name ,@(mapcan #'reverse (copy-tree parameters)) ,result)))

(declaim (inline %memmove))
(%define-foreign ("memmove" %memmove) :void (to :pointer) (from :pointer) (size :size))

(defmacro %copy-octets (to at from start end)
  "Copy FROM from START to END into TO from AT on, all of them variables whose bounds are right.
REPLACE takes three times as long, and ten times for a few octets."
  `(with-octets (target ,to ,at)
     (with-octets (source ,from ,start)
       (%memmove target source (- ,end ,start)))))

(defmacro %define-waiting ((c-name name) result &rest parameters)
  "As %DEFINE-FOREIGN, for a function tagged [waits]."
  `(cffi:defcfun (,c-name ,name) ,result ,@parameters))

(in-package :port)

;;; Threads

(defun %threads-p ()
  "True if there can be threads."
  t)

(defmacro %defglobal (name value)
  "Define NAME as a variable that is never bound, only set; its VALUE is computed once, at load
time."
  `(sb-ext:define-load-time-global ,name ,value))

(defmacro %global (name)
  "The value that NAME, a variable of %DEFGLOBAL that is never set, has when this is loaded: a
constant of the code, so that neither the variable nor its type is looked at."
  `(load-time-value ,name t))

(defmacro %seal (&rest structures)
  "No structure includes one of STRUCTURES, and none ever will, which makes their type tests
cheaper."
  `(declaim (sb-ext:freeze-type ,@structures)))

(declaim (inline %current-thread))
(defun %current-thread ()
  "The running thread, as an object to compare with EQ."
  sb-thread:*current-thread*)

(declaim (inline %yield))
(defun %yield ()
  "Let other threads run first."
  (sb-thread:thread-yield))

(defconstant +stack-room+ 131072
  "Octets before the end of the stack: what is guarded, and what a call of the library needs.")

(declaim (inline %stack-room-p))
(defun %stack-room-p ()
  "True if there is stack enough for calls of the library: to run out of it would unwind them."
  ;; On x86-64 it grows downward.
  #+x86-64 (sb-sys:sap> (sb-kernel:current-sp)
                        (sb-sys:sap+ (sb-int:descriptor-sap sb-vm:*control-stack-start*)
                                     +stack-room+))
  #-x86-64 (sb-sys:sap< (sb-kernel:current-sp)
                        (sb-sys:sap+ (sb-int:descriptor-sap sb-vm:*control-stack-end*)
                                     (- +stack-room+))))

(defmacro %compiler-barrier ()
  "Loads after this are made anew, as another thread may have made a barrier for this one."
  '(sb-thread:barrier (:compiler)))

(defmacro %release-barrier ()
  "Whoever sees a store that is made after this sees everything that was done before it."
  '(progn (sb-thread:barrier (:read))
          (sb-thread:barrier (:write))))

(defmacro %acquire-barrier ()
  "What is loaded after this is no older than what was loaded before it."
  '(sb-thread:barrier (:read)))

(defun %make-lock ()
  (sb-thread:make-mutex :name "port"))

(defmacro %with-lock ((lock) &body body)
  "Run BODY, short and never blocking, while this thread has LOCK, with its interrupts deferred."
  `(sb-sys:without-interrupts
     (sb-thread:with-mutex (,lock) ,@body)))

(defmacro %with-open-lock ((lock &optional (wait (gensym "WAIT"))) &body body)
  "As %WITH-LOCK, but BODY may call WAIT, which is %CONDITION-WAIT on LOCK with a condition and
seconds. Interrupts are let in while that has given LOCK up, where they are around this, and may
unwind it; never while this thread has LOCK, as they may want it, or something that whoever has it
waits for."
  (let ((place (gensym "LOCK")))
    `(let ((,place ,lock))
       (sb-sys:without-interrupts
         (flet ((,wait (condition &optional seconds)
                  (sb-sys:allow-with-interrupts (%condition-wait condition ,place seconds))))
           (declare (ignorable #',wait))
           (sb-thread:with-mutex (,place) ,@body))))))

(defmacro %interruptible (&body body)
  "Within CALL-DEFERRED, and nothing else that defers interrupts: let them in while BODY, which may
block, runs."
  `(let ((sb-sys:*allow-with-interrupts* t))
     (sb-sys:with-interrupts ,@body)))

(defun %make-condition ()
  (sb-thread:make-waitqueue))

(defun %condition-wait (condition lock &optional seconds)
  "Give LOCK up until CONDITION is notified or SECONDS (NIL: no limit) have passed, or for no
reason; this thread has it afterwards, in the cleanup of one that is unwound too."
  (unwind-protect (sb-thread:condition-wait condition lock :timeout seconds)
    ;; A wait that timed out, or was unwound, may come back without the lock.
    (unless (sb-thread:holding-mutex-p lock)
      (call-deferred (sb-thread:grab-mutex lock)))))

(defun %open-condition-wait (condition lock &optional seconds)
  "As %CONDITION-WAIT, within CALL-DEFERRED, and nothing else that defers interrupts: let them in
while LOCK is given up, and only then."
  (let ((sb-sys:*allow-with-interrupts* t))
    (%condition-wait condition lock seconds)))

(defun %condition-notify (condition)
  "Let one thread that waits on CONDITION go on. The caller has the lock."
  (sb-thread:condition-notify condition))

(defun %condition-broadcast (condition)
  (sb-thread:condition-broadcast condition))

(defun %processor-count ()
  "How many processors this process may use."
  (let* ((size 128) (set (make-array size :element-type '(unsigned-byte 8) :initial-element 0)))
    (sb-sys:with-pinned-objects (set)
      (sb-alien:alien-funcall
       (sb-alien:extern-alien "sched_getaffinity"
                              (function sb-alien:int sb-alien:int sb-alien:size-t
                                        sb-sys:system-area-pointer))
       0 size (sb-sys:vector-sap set)))
    (max 1 (reduce #'+ set :key #'logcount))))

(defun %at-exit (function-name)
  "Call the function named FUNCTION-NAME when this process begins to end, its other threads still
running."
  (pushnew function-name sb-ext:*exit-hooks*))

(defun %make-thread (function name)
  "A new thread that calls FUNCTION. Signals an ERROR where the system has none."
  (sb-thread:make-thread function :name name))

(defmacro %compare-and-swap (place old new)
  "Put NEW into PLACE if it holds OLD (EQ), atomically; the value that PLACE had."
  `(sb-ext:compare-and-swap ,place ,old ,new))

(defmacro %add-atomically (place number)
  "Add NUMBER to PLACE, a slot of type (unsigned-byte 64) in a structure."
  `(sb-ext:atomic-incf ,place ,number))

(defun %thread-alive-p (thread)
  (and thread (sb-thread:thread-alive-p thread)))

;;; Objects

(defun %after-collections (function)
  "Call FUNCTION, a name, after each collection of garbage, in whatever thread."
  (pushnew function sb-ext:*after-gc-hooks*))

(defmacro %close-when-garbage (endpoint handle)
  "ENDPOINT, which is around HANDLE, is in the registry: that is looked through after collections."
  (declare (ignore endpoint handle))
  nil)

(defmacro %close-lost ()
  "Nothing is left to be closed here."
  nil)

(defmacro %closed-in-time (endpoint)
  "What the registry finds of ENDPOINT, which is closed, does no harm."
  (declare (ignore endpoint))
  nil)

(declaim (inline %weak-pointer %weak-pointer-value))
(defun %weak-pointer (object)
  "An object that leads to OBJECT and does not keep it from becoming garbage."
  (sb-ext:make-weak-pointer object))

(defun %weak-pointer-value (pointer)
  "What POINTER leads to, or NIL if it has become garbage."
  (values (sb-ext:weak-pointer-value pointer)))

(defun %nan-p (number)
  "True if NUMBER is a float that is not a number."
  (and (floatp number) (sb-ext:float-nan-p number)))

(defun %infinity-p (number)
  (and (floatp number) (sb-ext:float-infinity-p number)))

(defmacro %rationalize (number)
  "A simple rational that NUMBER is as exact as."
  `(rationalize ,number))

(defun %proper-list-p (object)
  "True if OBJECT is a list that has an end, which is NIL."
  (sb-int:proper-list-p object))

(defun slot-location (class slot)
  "Where the instances of the class named CLASS, which is defined, have SLOT."
  (let ((class (find-class class)))
    (sb-mop:finalize-inheritance class)
    (sb-mop:slot-definition-location
     (find slot (sb-mop:class-slots class) :key #'sb-mop:slot-definition-name))))

(defmacro %slot-of (class slot instance)
  "What INSTANCE, of CLASS or a subclass, has where the instances of CLASS itself have SLOT. A
subclass can have it elsewhere."
  `(sb-mop:standard-instance-access ,instance
                                    (load-time-value (slot-location ',class ',slot) t)))

(defmacro %next-report (report)
  "Print the report of a condition, in a method of PRINT-OBJECT: its class has REPORT, a form."
  (declare (ignore report))
  '(call-next-method))

;;; What a function says of itself

(defun %document-function (name text)
  "Make TEXT the docstring of the function NAME, which may be an accessor."
  (setf (documentation name 'function) text))

(defun %lambda-list (name)
  "The argument list of function NAME as DESCRIBE and editors show it."
  (sb-kernel:%fun-lambda-list (fdefinition name)))

(defun %show-lambda-list (name lambda-list)
  "Make DESCRIBE and editors show LAMBDA-LIST for function NAME, which sorts its arguments out by
itself; how it is called does not change."
  (setf (sb-kernel:%fun-lambda-list (fdefinition name)) lambda-list))

;;; Streams

(defmacro %define-two-way (class)
  "Define what is asked of the streams of CLASS: they are of both directions and not interactive."
  `(progn
     (defmethod input-stream-p ((stream ,class)) t)
     (defmethod output-stream-p ((stream ,class)) t)
     (defmethod interactive-stream-p ((stream ,class)) nil)))

(defmacro %line-read (form)
  "What STREAM-READ-LINE returns where the values of FORM are the line, empty where there is none,
and true if end of file ended it."
  form)

(defun %stream-descriptor (stream)
  "The descriptor of STREAM, an open file stream."
  (sb-sys:fd-stream-fd stream))

(defun %regular-file-size (file)
  "How many octets FILE, an open file stream or the system's name of a file, has; :SPECIAL if it is
no regular file, NIL if there is none."
  (multiple-value-bind (ok device inode mode links user group type size)
      (if (streamp file)
          (sb-unix:unix-fstat (%stream-descriptor file))
          (sb-unix:unix-stat file))
    (declare (ignore device inode links user group type))
    (cond ((not ok) nil)
          ((= #o100000 (logand #o170000 mode)) size)
          (t :special))))

(defmacro %replace (sequence other &rest bounds)
  "As REPLACE: signals an ERROR where SEQUENCE cannot hold what OTHER has."
  `(replace ,sequence ,other ,@bounds))

(defmacro %with-vector ((vector start end) (sequence sequence-start sequence-end) &body body)
  "Run BODY with VECTOR bound to the simple vector under SEQUENCE, a vector of any kind, and START
and END to the bounds in it; the bounds are checked. END NIL means the length (the fill pointer)."
  `(sb-kernel:with-array-data ((,vector ,sequence)
                               (,start ,sequence-start)
                               (,end ,sequence-end)
                               :check-fill-pointer t)
     ,@body))
