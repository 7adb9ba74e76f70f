;;;; impl-clisp - what only CLISP can say: the same names as in impl-sbcl.lisp, which has what each
;;;; is for. There are no threads: what is said of other threads is true of none.
;;;;
;;;; The collector moves everything, and nothing can be pinned. So a pointer is to memory of C: what
;;;; a call reads is copied there before the call, and what it has written is copied back after it.

(in-package :port.ffi)

(defun %load-shared-object (path)
  "Load the shared object PATH into this process, for all that is looked up later."
  (let ((now-and-global #x102))
    (when (cffi:null-pointer-p (cffi:foreign-funcall "dlopen" :string path :int now-and-global
                                                              :pointer))
      (error "~A cannot be loaded." path))))

(defun %at-image-start (function-name)
  "Call the function named FUNCTION-NAME whenever a saved image starts, after those that were named
before."
  (unless (member function-name custom:*init-hooks*)
    (setf custom:*init-hooks* (append custom:*init-hooks* (list function-name)))))

(defun %runtime-directory ()
  "The directory of the running executable, or NIL."
  (let ((file (ignore-errors (truename "/proc/self/exe"))))
    (and file (directory-namestring file))))

;;; Interrupts. The only ones are those of SIGINT. CLISP notes that one has come and lets it in
;;; where it evaluates, reads or prints, and half a second later (SIGALRM) wherever the program is.
;;; To defer them is to hold the two signals back.

(defconstant +sigint+ 2)
(defconstant +sigalrm+ 14)

(ffi:def-call-out change-signal-mask (:name "pthread_sigmask") (:language :stdc)
  (:library :default)
  (:arguments (how ffi:int) (set ffi:c-pointer) (old ffi:c-pointer))
  (:return-type ffi:int))

(defun make-signal-set ()
  "The two signals as a sigset_t, which has a bit for each."
  (let ((set (ffi:foreign-address (ffi:allocate-shallow 'ffi:uint8 :count 128))))
    (dotimes (index 128)
      (setf (ffi:memory-as set 'ffi:uint8 index) 0))
    (dolist (signal (list +sigint+ +sigalrm+) set)
      (multiple-value-bind (index bit) (floor (1- signal) 8)
        (incf (ffi:memory-as set 'ffi:uint8 index) (ash 1 bit))))))

(defvar *signal-set* (make-signal-set))

(defun renew-signal-set ()
  (setf *signal-set* (make-signal-set)))

(%at-image-start 'renew-signal-set)

(defvar *deferred* nil
  "True while interrupts are deferred.")

(declaim (inline hold-signals release-signals))
(defun hold-signals ()
  (change-signal-mask 0 *signal-set* nil))

(defun release-signals ()
  (change-signal-mask 1 *signal-set* nil))

(defmacro call-deferred (&body body)
  "Run BODY, short and never blocking but within %INTERRUPTIBLE, with interrupts deferred until it
is done."
  (let ((outer (gensym "DEFERRED")))
    `(let ((,outer *deferred*))
       (unless ,outer
         (hold-signals))
       (unwind-protect (let ((*deferred* t)) ,@body)
         (unless ,outer
           (release-signals))))))

(defmacro call-nowait (&body body)
  "As CALL-DEFERRED, for a BODY that besides never signals and never leaves but by its end, such as
a call of a function tagged [nowait]."
  `(call-deferred ,@body))

(defmacro call-undisturbed (&body body)
  "As CALL-NOWAIT, for a BODY that besides allocates nothing."
  `(call-deferred ,@body))

(defmacro with-local-interrupts ((outer) form)
  "Run FORM with interrupts deferred if OUTER, and let in else; they are deferred before and after."
  `(progn
     (unless ,outer
       (release-signals))
     (unwind-protect (let ((*deferred* ,outer)) ,form)
       (hold-signals))))

(defmacro with-waiting ((variable acquire) wait &body release)
  "Bind VARIABLE to the value of ACQUIRE, run WAIT, which may block, then RELEASE, and return the
values of WAIT. Interrupts can unwind only WAIT: what ACQUIRE has got is always released, once."
  (let ((outer (gensym "DEFERRED")))
    `(let ((,outer *deferred*))
       (call-deferred
         (let ((,variable ,acquire))
           (unwind-protect (with-local-interrupts (,outer) ,wait)
             ,@release))))))

(defmacro with-cleanup (form &body cleanup)
  "As UNWIND-PROTECT, but no interrupt can unwind CLEANUP or come before it."
  (let ((outer (gensym "DEFERRED")))
    `(let ((,outer *deferred*))
       (call-deferred
         (unwind-protect (with-local-interrupts (,outer) ,form)
           ,@cleanup)))))

(defun let-interrupts-in ()
  "Let in what has come, if interrupts are not deferred."
  (unless *deferred*
    (eval nil)))

;;; Memory of C: blocks of one size are kept, others are freed.

(defconstant +block-size+ 65536)

(defstruct (memory (:copier nil) (:predicate nil))
  (pointer nil :read-only t)
  (address 0 :type (unsigned-byte 64) :read-only t)
  (size 0 :type fixnum :read-only t))

(defvar *blocks* '()
  "Blocks of +BLOCK-SIZE+ that nobody uses.")

(defun forget-blocks ()
  (setf *blocks* '()))

(%at-image-start 'forget-blocks)

(defun allocate-memory (size)
  (let ((pointer (ffi:foreign-address (ffi:allocate-shallow 'ffi:uint8 :count size))))
    (make-memory :pointer pointer
                 :address (ffi:foreign-address-unsigned pointer)
                 :size size)))

(defun take-memory (size)
  "Memory for SIZE octets or more."
  (if (<= size +block-size+)
      (or (pop *blocks*) (allocate-memory +block-size+))
      (allocate-memory size)))

(defun give-memory (memory)
  (if (= (memory-size memory) +block-size+)
      (push memory *blocks*)
      (ffi:foreign-free (memory-pointer memory))))

;;; Copying octets. CLISP itself has only whole vectors for that, and makes a new one of what it
;;; reads, at 10 us and 10 us for each KiB. memcpy(3) on the octets of the vector takes half a
;;; microsecond: nothing is allocated between ADDRESS-OF and the end of the call, and nothing comes
;;; in between, so that the collector cannot move the vector meanwhile.

(ffi:def-call-out copy-memory (:name "memcpy") (:language :stdc) (:library :default)
  (:arguments (to ffi:uint64) (from ffi:uint64) (count ffi:uint64))
  (:return-type nil))

(defun octets-offset-of (vector memory)
  "How far behind what ADDRESS-OF says of VECTOR its octets are; NIL if they do not begin within as
many as half of them. Nothing behind them is looked at."
  (let ((room (length vector)))
    (when (typep (sys::address-of vector) 'fixnum)
      (copy-memory (memory-address memory) (sys::address-of vector) room)
      (search vector (ffi:memory-as (memory-pointer memory)
                                    (vector 'ffi:c-array 'ffi:uint8 room))
              :end1 (floor room 2)))))

(defun find-octets-offset ()
  "As OCTETS-OFFSET-OF, if it is the same for vectors of any length."
  (let ((memory (take-memory +block-size+)))
    (unwind-protect
         (let ((offsets (loop for length in '(64 65 100 5000)
                              for vector = (make-array length :element-type '(unsigned-byte 8))
                              do (dotimes (index length)
                                   (setf (aref vector index) (mod (* 89 (1+ index)) 251)))
                              collect (octets-offset-of vector memory))))
           (and (every #'eql offsets (rest offsets))
                (first offsets)))
      (give-memory memory))))

(defvar *octets-offset* (find-octets-offset)
  "How far behind what ADDRESS-OF says of a simple vector of octets these are; NIL if that is not
known of this CLISP.")

(defun copy-octets-in (vector start end memory)
  "Copy VECTOR from START to END to MEMORY."
  (declare (type fixnum start end))
  (cond ((= start end))
        (*octets-offset*
         (copy-memory (memory-address memory)
                      (+ (sys::address-of vector) *octets-offset* start)
                      (- end start)))
        (t (setf (ffi:memory-as (memory-pointer memory)
                                (vector 'ffi:c-array 'ffi:uint8 (- end start)))
                 (subseq vector start end)))))

(defun copy-octets-out (vector start end memory)
  "Copy MEMORY to VECTOR from START to END."
  (declare (type fixnum start end))
  (cond ((= start end))
        (*octets-offset*
         (copy-memory (+ (sys::address-of vector) *octets-offset* start)
                      (memory-address memory)
                      (- end start)))
        (t (replace vector (ffi:memory-as (memory-pointer memory)
                                          (vector 'ffi:c-array 'ffi:uint8 (- end start)))
                    :start1 start))))

;;; Characters go through their UTF-32.

(defvar *utf-32* (let ((memory (take-memory 4)))
                   (setf (ffi:memory-as (memory-pointer memory) 'ffi:uint32) 1)
                   (prog1 (if (= 1 (ffi:memory-as (memory-pointer memory) 'ffi:uint8))
                              charset:unicode-32-little-endian
                              charset:unicode-32-big-endian)
                     (give-memory memory))))

(defvar *scratch* nil
  "A vector of +BLOCK-SIZE+ octets, or NIL while somebody uses it.")

(defun copy-characters-in (string start end memory)
  (let ((octets (ext:convert-string-to-bytes string *utf-32* :start start :end end)))
    (copy-octets-in octets 0 (length octets) memory)))

(defun copy-characters-out (string start end memory)
  (let* ((size (* 4 (- end start)))
         (kept (shiftf *scratch* nil))
         (octets (if (and kept (<= size +block-size+))
                     kept
                     (make-array (max size +block-size+) :element-type '(unsigned-byte 8)))))
    (copy-octets-out octets 0 size memory)
    (replace string (ext:convert-string-from-bytes octets *utf-32* :end size) :start1 start)
    (setf *scratch* octets)))

(defun copy-int64s-in (vector start end memory)
  (loop for index from start below end
        for place from 0 by 8
        do (setf (ffi:memory-as (memory-pointer memory) 'ffi:sint64 place) (svref vector index))))

(defun copy-int64s-out (vector start end memory)
  (loop for index from start below end
        for place from 0 by 8
        do (setf (svref vector index) (ffi:memory-as (memory-pointer memory) 'ffi:sint64 place))))

;;; Pointers

(eval-when (:compile-toplevel :load-toplevel :execute)
  (defun copied (way count-p body copy-out vector start end memory)
    "The form that runs BODY and copies what it has written, as WAY and COUNT-P say."
    (cond ((eq way :in) `(progn ,@body))
          ((and (eq way :out) count-p)
           `(multiple-value-bind (first second) (progn ,@body)
              (let ((count (or second first)))
                (when (plusp count)
                  (,copy-out ,vector ,start (min ,end (+ ,start count)) ,memory)))
              (values first second)))
          (t `(multiple-value-prog1 (progn ,@body)
                (,copy-out ,vector ,start ,end ,memory))))))

(defmacro with-memory-for ((pointer vector start end way) (width copy-in copy-out count-p)
                           &body body)
  (let ((place (gensym "VECTOR")) (first (gensym "START")) (last (gensym "END"))
        (memory (gensym "MEMORY")))
    `(let* ((,place ,vector)
            (,first ,start)
            (,last ,(or end `(length ,place)))
            (,memory (take-memory (* ,width (- ,last ,first)))))
       (unwind-protect
            (let ((,pointer (memory-pointer ,memory)))
              ,@(unless (eq way :out)
                  `((,copy-in ,place ,first ,last ,memory)))
              ,(copied way count-p body copy-out place first last memory))
         (give-memory ,memory)))))

(defmacro with-octets ((pointer octets &optional (start 0) end (way :both)) &body body)
  "Run BODY, short and never blocking, with POINTER to a copy of OCTETS, a (simple-array
(unsigned-byte 8) (*)), from START to END (NIL: its end). WAY: :IN, BODY reads it; :OUT, it writes
it, and its last value is how many octets that were, or is not above 0; :BOTH."
  `(with-memory-for (,pointer ,octets ,start ,end ,way)
       (1 copy-octets-in copy-octets-out t)
     ,@body))

(defmacro with-characters ((pointer string &optional (start 0) end (way :both)) &body body)
  "As WITH-OCTETS, for a (simple-array character (*)): POINTER is to UTF-32 in host order."
  `(with-memory-for (,pointer ,string ,start ,end ,way)
       (4 copy-characters-in copy-characters-out t)
     ,@body))

(defmacro with-int64s ((pointer vector &optional (start 0) end (way :both)) &body body)
  "As WITH-OCTETS, for a (simple-array (signed-byte 64) (*)); what BODY, which may block, writes is
copied whatever it returns."
  `(with-memory-for (,pointer ,vector ,start ,end ,way)
       (8 copy-int64s-in copy-int64s-out nil)
     ,@body))

(defmacro %piece-end (start end &optional (room '+block-size+))
  "The end of the part, from START on, that one call of the library gets of the elements up to END:
at most ROOM of them."
  `(min ,end (+ ,start ,room)))

(defmacro %null-pointer ()
  "The pointer NULL."
  nil)

;;; Foreign functions

(eval-when (:compile-toplevel :load-toplevel :execute)
  (defun c-type (type)
    "What CLISP calls TYPE, one of the bindings."
    (ecase type
      ((:int64 handle result) 'ffi:sint64)
      (:int32 'ffi:sint32)
      (:size 'ffi:uint64)
      (:pointer 'ffi:c-pointer)
      (:string 'ffi:c-string))))

(defmacro %define-foreign ((c-name name) result &rest parameters)
  "Define NAME as the function C-NAME of the library, with PARAMETERS, (name type)..., and a RESULT
of that type."
  `(ffi:def-call-out ,name (:name ,c-name) (:language :stdc) (:library :default)
     (:arguments ,@(loop for (parameter type) in parameters
                         collect (list parameter (c-type type))))
     (:return-type ,(c-type result))))

(defparameter *piece* 100000000
  "Nanoseconds after which a call that waits comes back to let interrupts in.")

(defmacro %define-waiting ((c-name name) result &rest parameters)
  "As %DEFINE-FOREIGN, for a function tagged [waits], which has a deadline among its PARAMETERS. No
interrupt comes in while it waits, so it waits in pieces."
  (let ((raw (intern (concatenate 'string "%" (symbol-name name)) :port.ffi))
        (names (mapcar #'first parameters)))
    `(progn
       (%define-foreign (,c-name ,raw) ,result ,@parameters)
       (defun ,name ,names
         (loop
           (let* ((now (lport-clock-now))
                  (last-p (<= (- deadline now) *piece*))
                  (result (let ((deadline (if last-p deadline (+ now *piece*))))
                            (,raw ,@names))))
             (let-interrupts-in)
             (when (or last-p (not (timed-out-p result)))
               (return result))))))))

(defun timed-out-p (status)
  (= (lport-status-kind status) (symbol-value '+lport-timed-out+))) ; that is defined later

(in-package :port)

;;; Threads: there is one.

(defun %threads-p ()
  "True if there can be threads."
  nil)

(defmacro %current-thread ()
  "The running thread, as an object to compare with EQ."
  ''the-thread)

(defmacro %yield ()
  '(progn))

(defmacro %stack-room-p ()
  "True: CLISP ends a stack at a place of its own."
  t)

(defmacro %compiler-barrier ()
  '(progn))

(defmacro %release-barrier ()
  '(progn))

(defmacro %acquire-barrier ()
  '(progn))

(defun %make-lock ()
  nil)

(defmacro %with-lock ((lock) &body body)
  "Run BODY, short and never blocking, with interrupts deferred."
  (declare (ignore lock))
  `(call-deferred ,@body))

(defmacro %with-open-lock ((lock &optional (wait (gensym "WAIT"))) &body body)
  (let ((place (gensym "LOCK")))
    `(let ((,place ,lock))
       (flet ((,wait (condition &optional seconds)
                (%condition-wait condition ,place seconds)))
         (declare (ignorable #',wait))
         ,@body))))

(defmacro %interruptible (&body body)
  "Within CALL-DEFERRED, and nothing else that defers interrupts: let them in while BODY, which may
block, runs."
  `(port.ffi::with-local-interrupts (nil) (progn ,@body)))

(defun %make-condition ()
  nil)

(defun %condition-wait (condition lock &optional seconds)
  (declare (ignore condition lock seconds))
  (error "Nobody else could notify it."))

(defun %open-condition-wait (condition lock &optional seconds)
  (%condition-wait condition lock seconds))

(defun %condition-notify (condition)
  condition)

(defun %condition-broadcast (condition)
  condition)

(defun %processor-count ()
  1)

(defun %at-exit (function-name)
  "Call the function named FUNCTION-NAME when this process begins to end."
  (pushnew function-name custom:*fini-hooks*))

(defun %make-thread (function name)
  (declare (ignore function))
  (error "No thread ~A: CLISP has none." name))

(defmacro %compare-and-swap (place old new)
  "Put NEW into PLACE if it holds OLD (EQ); the value that PLACE had."
  (let ((value (gensym "VALUE")))
    `(let ((,value ,place))
       (when (eq ,value ,old)
         (setf ,place ,new))
       ,value)))

(defmacro %add-atomically (place number)
  "Add NUMBER to PLACE; the value that it had."
  (let ((value (gensym "VALUE")))
    `(let ((,value ,place))
       (setf ,place (+ ,value ,number))
       ,value)))

(defun %thread-alive-p (thread)
  (declare (ignore thread))
  nil)

;;; Objects

(defvar *lost* '()
  "The handles whose endpoints have become garbage. A finalizer runs wherever memory is allocated,
in the middle of a foreign call too, where another foreign call would spoil the first.")

(defun %close-when-garbage (endpoint handle)
  "Close HANDLE, by %CLOSE-LOST, after ENDPOINT, which is around it, has become garbage."
  (ext:finalize endpoint (lambda (endpoint)
                           (declare (ignore endpoint))
                           (push handle *lost*))))

(defun %close-lost ()
  "Close what has become garbage: another endpoint is about to be made."
  (loop while *lost*
        do (lport-socket-close (pop *lost*) 0)))

(defun %closed-in-time (endpoint)
  "CLISP cannot take a finalizer back: what is closed already is closed once more, which does
nothing."
  endpoint)

(defun %weak-pointer (object)
  "An object that leads to OBJECT and does not keep it from becoming garbage."
  (ext:make-weak-pointer object))

(defun %weak-pointer-value (pointer)
  "What POINTER leads to, or NIL if it has become garbage."
  (values (ext:weak-pointer-value pointer)))

;;; CLISP makes no floats that are no numbers, and no infinity.

(defun %nan-p (number)
  (declare (ignore number))
  nil)

(defun %infinity-p (number)
  (declare (ignore number))
  nil)

(defmacro %rationalize (number)
  "A simple rational that NUMBER is as exact as."
  `(rationalize ,number))

(defmacro %next-report (report)
  "Within a method of PRINT-OBJECT for a condition whose class has REPORT, a form: print its report.
On CLISP the method is in the place of what :REPORT has defined."
  report)

;;; What a function says of itself

(defun %document-function (name text)
  "Make TEXT the docstring of the function NAME, which may be an accessor."
  (setf (documentation name 'function) text))

(defun %lambda-list (name)
  "The argument list of function NAME, as %SHOW-LAMBDA-LIST has it, or as it was defined."
  (if (symbolp name)
      (get name 'lambda-list (ext:arglist name))
      (ext:arglist name)))

(defun %show-lambda-list (name lambda-list)
  "Make LAMBDA-LIST that of function NAME, which sorts its arguments out by itself; CLISP shows its
own."
  (setf (get name 'lambda-list) lambda-list))

;;; Streams: what is generic here is told in gray-clisp.lisp.

(defmacro %define-two-way (class)
  "CLISP knows the directions of the streams of CLASS, and takes all of such classes for interactive
ones."
  (declare (ignore class))
  '(progn))

(defmacro %line-read (form)
  "What STREAM-READ-LINE returns where the values of FORM are the line, empty where there is none,
and true if end of file ended it."
  form)

(defun %stream-descriptor (stream)
  "The descriptor of STREAM, an open file stream."
  (values (ext:stream-handles stream)))

(defun %regular-file-size (file)
  "How many octets FILE, an open file stream or the system's name of a file, has; :SPECIAL if it is
no regular file, NIL if there is none."
  (let ((facts (ignore-errors
                (posix:file-stat (if (streamp file) (%stream-descriptor file) file)))))
    (cond ((null facts) nil)
          ((member :freg (posix:file-stat-mode facts)) (posix:file-stat-size facts))
          (t :special))))

(defmacro %replace (sequence other &rest bounds)
  "As REPLACE: signals an ERROR where SEQUENCE cannot hold what OTHER has."
  `(replace ,sequence ,other ,@bounds))

(defgeneric stream-read-sequence (stream sequence &optional start end)
  (:documentation "As the generic function of that name elsewhere; CLISP's own has others in its
place, see gray-clisp.lisp."))

(defgeneric stream-write-sequence (stream sequence &optional start end)
  (:documentation "As STREAM-READ-SEQUENCE."))
