;;;; impl-standard - what has to be said in the standard's own words on Lisps that have no better
;;;; ones: ECL and CLISP.

(in-package :port)

(defmacro %defglobal (name value)
  "Define NAME as a variable that is never bound, only set; its VALUE is computed once, at load
time."
  `(defvar ,name ,value))

(defmacro %global (name)
  "The value of NAME, a variable of %DEFGLOBAL that is never set."
  name)

(defmacro %copy-octets (to at from start end)
  "Copy FROM from START to END into TO from AT on, all of them variables whose bounds are right."
  `(replace ,to ,from :start1 ,at :start2 ,start :end2 ,end))

(defmacro %seal (&rest structures)
  "No structure includes one of STRUCTURES; no use is made of that here."
  (declare (ignore structures))
  '(progn))

(defmacro %slot-of (class slot instance)
  "What INSTANCE, of CLASS or a subclass, has as SLOT."
  (declare (ignore class))
  `(slot-value ,instance ',slot))

(defun %after-collections (function)
  "Nobody tells of collections here; see %CLOSE-WHEN-GARBAGE."
  (declare (ignore function)))

(defun %proper-list-p (object)
  "True if OBJECT is a list that has an end, which is NIL."
  (and (listp object)
       (handler-case (and (list-length object) t) ; NIL of a circle
         (type-error () nil))))

;;; A vector with a fill pointer, an adjustable or a displaced one has no simple one under it, so it
;;; goes through a copy, and back.

(defun call-with-copy (sequence start end function)
  "Call FUNCTION with a simple copy of SEQUENCE from START to END, its bounds 0 and its length; what
is in the copy afterwards is in SEQUENCE, however that ends. Its values."
  (let* ((length (- end start))
         (copy (make-array length :element-type (array-element-type sequence))))
    (replace copy sequence :start2 start :end2 end)
    (with-cleanup (funcall function copy 0 length)
      (replace sequence copy :start1 start :end1 end))))

(defun check-vector-bounds (sequence start end)
  "END, or the length of SEQUENCE; signals a TYPE-ERROR for bounds outside."
  (check-type sequence vector)
  (let* ((length (length sequence)) (end (or end length)))
    (unless (typep end `(integer 0 ,length))
      (error 'type-error :datum end :expected-type `(integer 0 ,length)))
    (unless (typep start `(integer 0 ,end))
      (error 'type-error :datum start :expected-type `(integer 0 ,end)))
    end))

(defmacro %with-vector ((vector start end) (sequence sequence-start sequence-end) &body body)
  "Run BODY with VECTOR bound to a simple vector in place of SEQUENCE, a vector of any kind, and
START and END to the bounds in it; the bounds are checked. END NIL means the length (the fill
pointer)."
  (let ((run (gensym "BODY")) (given (gensym "SEQUENCE"))
        (first (gensym "START")) (last (gensym "END")))
    `(let* ((,given ,sequence) (,first ,sequence-start)
            (,last (check-vector-bounds ,given ,first ,sequence-end)))
       (flet ((,run (,vector ,start ,end) ,@body))
         (if (typep ,given '(simple-array * (*)))
             (,run ,given ,first ,last)
             (call-with-copy ,given ,first ,last #',run))))))
