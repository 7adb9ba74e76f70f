;;;; calling - octets, texts and the manifest: what the bindings and their callers share.

(in-package :port.ffi)

(deftype octets ()
  "A vector that the library can read and write in place."
  '(simple-array (unsigned-byte 8) (*)))

(deftype int64s ()
  "A vector of integers that the library can read and write in place."
  '(simple-array (signed-byte 64) (*)))

(declaim (inline int64s-of-size))
(defun int64s-of-size (size)
  (make-array size :element-type '(signed-byte 64) :initial-element 0))

(eval-when (:compile-toplevel :load-toplevel :execute)
  (defun hyphenate (c-name)
    "LPORT-SOCKET-CLOSE for \"lport_socket_close\"."
    (string-upcase (substitute #\- #\_ c-name)))

  (defun lisp-name (c-name)
    "The symbol for the C function C-NAME, a string."
    (intern (hyphenate c-name) :port.ffi))

  (defun manifest-rows (manifest)
    "The lines of MANIFEST, each as a list of its words: (\"constant\" \"LPORT_INET\" \"4\"), and
\(\"function\" ...) with the words of the prototype."
    (loop for line in (uiop:split-string manifest :separator '(#\Newline))
          unless (string= line "")
            collect (uiop:split-string line))))

(defun ascii-octets (text)
  "The octets of the string TEXT if all of it is ASCII, as names and addresses mostly are; else
NIL."
  (flet ((octets ()
           (let ((octets (make-array (length text) :element-type '(unsigned-byte 8))))
             (dotimes (index (length text) octets)
               (let ((code (char-code (char text index))))
                 (if (< code 128)
                     (setf (aref octets index) code)
                     (return nil)))))))
    (declare (inline octets))
    (if (typep text '(simple-array character (*))) ; as most are: compiled for it alone
        (octets)
        (octets))))

(defun utf8-octets (text)
  "The octets of the string TEXT in UTF-8."
  (or (ascii-octets text)
      (coerce (babel:string-to-octets text :encoding :utf-8) 'octets)))

(defun close-descriptor (fd)
  "Close FD, a descriptor that no socket of the library has."
  (cffi:foreign-funcall "close" :int fd :int))

(defmacro with-text ((pointer length text) &body body)
  "Run BODY, short and never blocking, with POINTER and LENGTH of the UTF-8 octets of the string
TEXT."
  (let ((octets (gensym "OCTETS")))
    `(let* ((,octets (utf8-octets ,text))
            (,length (length ,octets)))
       (with-octets (,pointer ,octets)
         ,@body))))

(declaim (inline null-pointer))         ; a pointer that is returned would be consed
(defun null-pointer ()
  "The pointer NULL, for functions that allow it."
  (%null-pointer))

(defmacro with-optional-octets ((pointer octets) &body body)
  "As WITH-OCTETS, but OCTETS may be NIL: then POINTER is NULL. BODY is one call."
  (let ((call (gensym "CALL")) (vector (gensym "OCTETS")))
    `(let ((,vector ,octets))
       (flet ((,call (,pointer) ,@body))
         (if ,vector
             (with-octets (place ,vector) (,call place))
             (,call (null-pointer)))))))

(defmacro text-from ((pointer cap) &body call)
  "The string that CALL, a call of a function that writes a text into POINTER with room for CAP
octets and returns its length, has written; below zero its status. CALL is made again where the room
was too small."
  `(call-with-text-buffer (lambda (,pointer ,cap) ,@call)))

(defun call-with-text-buffer (call &optional (cap 256))
  (let* ((octets (make-array cap :element-type '(unsigned-byte 8)))
         (length (with-octets (pointer octets)
                   (funcall call pointer cap))))
    (cond ((minusp length) length)
          ((> length cap) (call-with-text-buffer call length))
          (t (babel:octets-to-string octets :end length :encoding :utf-8 :errorp nil)))))
