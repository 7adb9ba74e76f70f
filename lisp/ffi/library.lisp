;;;; library - find libport.so.1, build it where it is missing or old, check it, load it.
;;;;
;;;; Places, in this order; the first library that is there and fits is taken:
;;;;   1. $PORT_LIBRARY (a file); when it is set no other place is looked at
;;;;   2. build/ beside port.asd
;;;;   3. the cache of compiled files, for source trees that cannot be written to
;;;;   4. the directory of the running executable
;;;;   5. libport.so.1 wherever the system's loader finds it
;;;; Loading the system builds 2 or 3 with make, and takes 3 first where only that is newer than the
;;;; sources; a saved image that starts only looks. A process keeps the library that it has loaded,
;;;; whose table has its sockets: port loaded again, from another checkout too, goes on with that
;;;; one or says why it cannot.

(in-package :port.ffi)

(defparameter *library-name* "libport.so.1"
  "The SONAME of the library: the 1 is its ABI.")

(defparameter *expected-abi* 1
  "The LPORT_ABI that bindings.lisp is written for.")

(defvar *function-names* '()
  "The names of the functions that are bound, strings: what a library has to have.")

(defparameter *source-directory* (if (asdf:find-system "port" nil)
                                     (asdf:system-source-directory "port")
                                     '#.(asdf:system-source-directory "port"))
  "Where port.asd is; where it was, if this is loaded from a file of many systems and ASDF does not
know of port.")

(defvar *library-pathname* nil
  "What this process has loaded: a pathname, or a string for one that the system's loader found; NIL
before.")

(define-condition library-error (error)
  ((wanted :initarg :wanted :initform *expected-abi* :reader library-error-wanted)
   (findings :initarg :findings :initform '() :reader library-error-findings))
  (:documentation "No library that fits was found: what was looked for, where, what was there.")
  (:report (lambda (condition stream)
             (format stream "PORT needs its C library ~A with ABI ~D and found none that fits:~
                             ~:{~%  ~A: ~A~}~
                             ~%Run `make` in the sources of port (they were in ~A), ~
                             put the file beside the executable, install it, or set PORT_LIBRARY."
                     *library-name* (library-error-wanted condition)
                     (library-error-findings condition)
                     (uiop:native-namestring *source-directory*)))))

(defun library-pathname ()
  "The C library in use: a pathname, or a string for a name that the system's loader looked up."
  *library-pathname*)

;;; Looking into a file without binding to it

(defconstant +rtld-lazy+ 1 "RTLD_LAZY of dlopen(3), with RTLD_LOCAL, which is 0.")

(defun non-null (pointer)
  (unless (cffi:null-pointer-p pointer) pointer))

(defun dl-error ()
  (or (cffi:foreign-funcall "dlerror" :string) "no reason given"))

(defun object-misfit (object)
  "NIL if OBJECT, what dlopen returned, is a library that fits; else a text that says why not."
  (flet ((address (name)
           (non-null (cffi:foreign-funcall "dlsym" :pointer object :string name :pointer))))
    (let* ((function (address "lport_abi"))
           (abi (and function (cffi:foreign-funcall-pointer function () :int32)))
           (missing (find-if-not #'address *function-names*)))
      (cond ((null abi) "it is another library: it has no lport_abi")
            ((/= abi *expected-abi*) (format nil "its ABI is ~D" abi))
            (missing (format nil "it is older than this PORT: it has no ~A" missing))))))

(defun misfit (path)
  "NIL if the library at PATH, a native name, fits; else a text that says why it does not. It is
opened apart from the process's own symbols, so that one that does not fit cannot be in the way."
  (let ((object (non-null (cffi:foreign-funcall "dlopen" :string path :int +rtld-lazy+
                                                :pointer))))
    (if (null object)
        (dl-error)
        (multiple-value-prog1 (object-misfit object)
          (cffi:foreign-funcall "dlclose" :pointer object :int)))))

;;; Places

(defun in-build-directory ()
  (merge-pathnames (concatenate 'string "build/" *library-name*) *source-directory*))

(defun in-cache ()
  (asdf:apply-output-translations (in-build-directory)))

(defun beside-executable ()
  (let ((directory (%runtime-directory)))
    (when directory
      (merge-pathnames *library-name* (uiop:parse-native-namestring directory
                                                                    :ensure-directory t)))))

(defun built-places ()
  "Where builds put the library. Where nobody can build in the sources any more, what is there may
be older than they are, and that in the cache is not."
  (let ((build (in-build-directory)) (cache (in-cache)))
    (if (and (fresh-p cache) (not (fresh-p build)))
        (list cache build)
        (list build cache))))

(defun places ()
  "The places to look at, in order, each a pathname; a string is for the system's loader."
  (let ((chosen (uiop:getenvp "PORT_LIBRARY")))
    (if chosen
        (list (merge-pathnames (uiop:parse-native-namestring chosen) (uiop:getcwd)))
        (append (built-places) (remove nil (list (beside-executable))) (list *library-name*)))))

(defun native-name (place)
  (if (pathnamep place) (uiop:native-namestring place) place))

(defun find-library ()
  "The first place whose library fits; and as second value, where there is none, what was found at
each as a list of (place text)."
  (let ((findings '()))
    (dolist (place (places) (values nil (nreverse findings)))
      (let ((reason (if (and (pathnamep place) (not (probe-file place)))
                        "not there"
                        (misfit (native-name place)))))
        (if reason
            (push (list (native-name place) reason) findings)
            (return place))))))

;;; Building

(defun sources ()
  "What the library is made of."
  (let ((directory (merge-pathnames "csrc/" *source-directory*)))
    (list* (merge-pathnames "Makefile" *source-directory*)
           (merge-pathnames "version.sexp" *source-directory*)
           (loop for folder in (cons directory (uiop:subdirectories directory))
                 append (uiop:directory-files folder "*.*")))))

(defun fresh-p (file)
  "True if FILE exists and no source is newer."
  (and (probe-file file)
       (let ((written (file-write-date file)))
         (notany (lambda (source) (> (file-write-date source) written)) (sources)))))

(defun writable-p (directory)
  (zerop (cffi:foreign-funcall "access" :string (uiop:native-namestring directory) :int 2 :int)))

(defun make-library (file)
  "Run make so that FILE is the library; T, or NIL and what make said, or why it could not be run."
  (handler-case
      (multiple-value-bind (output error-output code)
          (uiop:run-program (list "make" "-s" "-C" (uiop:native-namestring *source-directory*)
                                  "library"
                                  (format nil "OUT=~A" (make-text (directory-name file))))
                            :output :string :error-output :output :ignore-error-status t)
        (declare (ignore error-output))
        (if (zerop code)
            t
            (values nil output)))
    (error (condition)                  ; of whatever class: UIOP's differ between Lisps
      (values nil (format nil "make could not be run: ~A" condition)))))

(defun directory-name (file)
  "The native name of the directory of FILE, without a slash at its end."
  (string-right-trim "/" (uiop:native-namestring (uiop:pathname-directory-pathname file))))

(defun make-text (text)
  "TEXT as make has to be given it: a dollar begins the name of a variable."
  (uiop:frob-substrings text '("$") "$$"))

(defun build-library ()
  "Build the library where it belongs unless it is there and fresh, or there are no sources. A build
that fails is no error yet: another place may have a library that fits. What make said, or NIL."
  (unless (or (uiop:getenvp "PORT_LIBRARY")
              (not (probe-file (merge-pathnames "csrc/libport.h" *source-directory*)))
              (fresh-p (in-build-directory)))
    (let ((file (if (writable-p *source-directory*) (in-build-directory) (in-cache))))
      (unless (fresh-p file)
        (multiple-value-bind (built output) (make-library file)
          (unless built
            (format nil "make failed:~%~A" output)))))))

;;; Loading

(defun check-loaded ()
  "Signal LIBRARY-ERROR unless the library that this process has fits."
  (let* ((name (native-name *library-pathname*))
         (reason (misfit name)))
    (when reason
      (error 'library-error
             :findings (list (list name (format nil "~A; this process has loaded it and keeps ~
                                                     it: start a new Lisp" reason)))))))

(defun find-and-load (build)
  (let ((failure (and build (build-library))))
    (multiple-value-bind (place findings) (find-library)
      (unless place
        (error 'library-error
               :findings (append findings
                                 (and failure (list (list "building it" failure))))))
      (when failure
        (warn "PORT could not build its C library and loads ~A, which is older than its
sources.~%~A"
              place failure))
      (%load-shared-object (native-name place))
      (setf *library-pathname* place))))

(defun load-library (&key build)
  "Load the C library from the first place where one fits; build it first if BUILD is true. Where
this process has loaded one, look only if it fits.
Signals LIBRARY-ERROR, which says where it looked and what was there."
  (if *library-pathname*
      (check-loaded)
      (find-and-load build)))

(defun reload-library ()
  "Load the library again in an image that starts. Its table of sockets is empty: every socket of
the image that was saved is closed."
  (setf *library-pathname* nil)
  (load-library))

(%at-image-start 'reload-library)
