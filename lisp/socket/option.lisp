;;;; option - the options of sockets, by name, as the library's one table has them.
;;;;
;;;; Invariant: what an option is, its kind, its unit and the sockets it is for, is the table's to
;;;; say (csrc/socket/option_table.c); here is only what each kind of value looks like in Lisp.

(in-package :port)

(defstruct (option (:copier nil) (:predicate nil))
  "A row of the table."
  (index 0 :type (signed-byte 32) :read-only t)
  (name nil :type keyword :read-only t)
  (kind nil :type keyword :read-only t)
  (unit nil :type (or null string) :read-only t)
  (sockets "" :type string :read-only t)
  (writable nil :type boolean :read-only t)
  (none nil :type boolean :read-only t)
  (choices '() :type list :read-only t)
  (note "" :type string :read-only t))

(defun option-choices-of (index)
  "The values of option INDEX, if it is an enumeration: keywords in the library's order."
  (loop for choice from 0
        for name = (lport-option-choice index choice)
        while name
        collect (keyword-for name)))

(defun option-at (index)
  "Row INDEX of the table, or NIL past the last."
  (let ((name (lport-option-name index)))
    (when name
      (let ((unit (lport-option-unit index)) (access (lport-option-access index)))
        (make-option :index index
                     :name (keyword-for name)
                     :kind (keyword-for (lport-option-kind index))
                     :unit (if (string= unit "") nil unit)
                     :sockets (lport-option-sockets index)
                     :writable (logtest access +lport-option-writable+)
                     :none (logtest access +lport-option-none+)
                     :choices (option-choices-of index)
                     :note (lport-option-note index))))))

(defvar *options*
  (let ((table (make-hash-table :test 'eq)))
    (loop for index from 0
          for option = (option-at index)
          while option
          do (setf (gethash (option-name option) table) option))
    table)
  "From the name of an option to its row.")

(defun all-options ()
  "Every row, in the library's order."
  (sort (loop for option being the hash-values of *options* collect option)
        #'< :key #'option-index))

(defun option-named (name)
  "The row of option NAME; signals a USAGE-ERROR that lists them all if there is none."
  (or (gethash name *options*)
      (fail-as 'mistyped-argument :option :invalid
               :datum name :expected-type `(member ,@(mapcar #'option-name (all-options)))
               :message "expected one of the options~{ ~S~}, got ~S"
               :arguments (list (sort (mapcar #'option-name (all-options)) #'string<) name))))

(defun socket-options ()
  "Return what options there are for SOCKET-OPTION, a list of plists in the order of the table:
:NAME, a keyword; :KIND, one of :BOOLEAN, :INTEGER, :TIME, :CHOICE, :INTERFACE and :TEXT; :UNIT, a
string, or NIL for none; of a time it is the step that the system rounds up to; :SOCKETS, which it
is for, a string; :WRITABLE, NIL if it can only be read; :NONE, true if NIL is a value; :CHOICES,
the values of an enumeration, keywords; :NOTE, a sentence on what it does, with its source."
  (loop for option in (all-options)
        collect (list :name (option-name option)
                      :kind (option-kind option)
                      :unit (option-unit option)
                      :sockets (option-sockets option)
                      :writable (option-writable option)
                      :none (option-none option)
                      :choices (copy-list (option-choices option))
                      :note (option-note option))))

;;; Values

(defun plain-value-type (option)
  "Values: the type of what OPTION may be set to, but for NIL as none; a text that says it."
  (ecase (option-kind option)
    (:boolean (values 'boolean "T or NIL"))
    (:integer (values '(unsigned-byte 31)
                      (format nil "a number~@[ of ~A~] from 0 to ~D"
                              (option-unit option) #x7fffffff)))
    (:time (values 'seconds "a number of seconds, 0 or more,"))
    (:choice (values `(member ,@(option-choices option))
                     (format nil "one of~{ ~S~}" (option-choices option))))
    (:interface (values '(or string (integer 1 #x7fffffff))
                        "the name or the index of an interface"))
    (:text (values 'string "a string"))))

(defun check-option-value (option value)
  "VALUE, if it is one that OPTION may have; else signal a USAGE-ERROR that is a TYPE-ERROR."
  (multiple-value-bind (type text) (plain-value-type option)
    (let ((type (if (option-none option) `(or null ,type) type)))
      ;; What is no number is of none of these types, and TYPEP may compare it with numbers.
      (if (and (not (%nan-p value)) (typep value type))
          value
          (fail-argument :option value type
                         (format nil "~A~:[~; or NIL~] for the option ~S"
                                 text (option-none option) (option-name option)))))))

(defun encode-option-value (option value)
  "VALUE as the library takes it for OPTION: an integer, or a string for a text."
  (let ((kind (option-kind option)))
    (cond ((eq kind :text) (or value ""))
          ((eq kind :boolean) (if value 1 0))
          ((null value) +lport-never+)
          (t (ecase kind
               (:integer value)
               (:time (nanoseconds value))
               (:choice (position value (option-choices option)))
               (:interface (interface-number value :option)))))))

(defun decode-option-value (option value)
  "VALUE, which the library gave for OPTION, as users see it."
  (let ((kind (option-kind option)))
    (cond ((eq kind :text) (if (string= value "") nil value))
          ((= value +lport-never+) nil)
          (t (ecase kind
               (:boolean (/= value 0))
               (:integer value)
               (:time (/ value +second+))
               (:choice (nth value (option-choices option)))
               (:interface (interface-text value)))))))

;;; Reading and writing

(defun option-failure (option status value &rest facts)
  "The condition for STATUS of OPTION; VALUE, a list, has what it was set to, if anything. FACTS as
of STATUS-CONDITION."
  (let ((name (option-name option))
        (code (lport-status-kind status)))
    (flet ((condition-with (message &rest arguments)
             (apply #'status-condition status :option :message message :arguments arguments facts)))
      (cond ((= code +lport-not-supported+)
             (condition-with "~S is an option of ~A~:[ sockets~;~]" name (option-sockets option)
                             (find #\Space (option-sockets option))))
            ((and value (= code +lport-invalid+))
             (condition-with "the system does not take ~S~@[ ~A~] for ~S here"
                             (first value)
                             (if (eq (option-kind option) :time) "seconds" (option-unit option))
                             name))
            ((and value (= code +lport-address-not-available+))
             (condition-with "expected an interface that exists for ~S, got ~S"
                             name (first value)))
            ;; To the system what has no way is not connected, even one whose way it forgot.
            ((= code +lport-not-connected+)
             (condition-with "expected a connected socket for ~S, and one that has sent since an ~
                              option changed its way, if one did" name))
            ;; A name of what there is not, an algorithm.
            ((and value (eq (option-kind option) :text) (= code +lport-other+))
             (apply #'failure 'usage-error :option :invalid
                    :errno (status-errno status)
                    :message "the system does not take ~S for ~S here, ~A"
                    :arguments (list (first value) name (status-text status))
                    facts))
            ;; What the system has is a number that the table does not know.
            ((and (eq (option-kind option) :choice) (= code +lport-other+)
                  (null (status-errno status)))
             (condition-with "~S is none of~{ ~S~}" name (option-choices option)))
            (t (condition-with "~S: ~A" name (status-text status)))))))

(defun fail-option (socket option status &rest value)
  "Signal the condition for STATUS of OPTION of SOCKET; VALUE, if it is given, is what it was set
to."
  (signal-failure (option-failure option status value :socket socket)))

(defun read-option (handle option)
  "The value of OPTION as the library has it; or a status."
  (let ((index (option-index option)))
    (if (eq (option-kind option) :text)
        (text-from (pointer cap)
          (lport-option-get-text handle index pointer cap))
        (lport-option-get handle index))))

(defun write-option (handle option value)
  "Set OPTION to VALUE, in the library's form: a status."
  (let ((index (option-index option)))
    (if (stringp value)
        (with-text (pointer length value)
          (lport-option-set-text handle index pointer length))
        (lport-option-set handle index value))))

(defun socket-option (socket name)
  "Return the value of option NAME, a keyword such as :NODELAY or :RECEIVE-BUFFER, of SOCKET, of
whatever kind. Settable, with effect at once; what has to be there before a socket is bound or
connected is given to OPEN-SOCKET and its kin as OPTIONS. SOCKET-OPTIONS lists the names. By the
kind of the option the value is T or NIL; an integer in the unit of the option; seconds, a
non-negative real (a rational when read); a keyword; the name of an interface, settable to an index
too; a string. Where the option can have none, that is NIL. What is set on a socket for IPv4 and
IPv6 holds for both. The system may round what it is given, times upwards, and doubles the sizes of
buffers.
Conditions: USAGE-ERROR for a name that no option has, which lists them, for a value of a wrong type
or out of range, and for an option that can only be read; NOT-SUPPORTED for one of other kinds of
socket; ADDRESS-NOT-AVAILABLE for an interface that does not exist; PERMISSION-DENIED;
SOCKET-CLOSED. Source: getsockopt(2), setsockopt(2)."
  (check-endpoint socket :option)
  (let* ((option (option-named name))
         (value (read-option (endpoint-handle socket) option)))
    (if (and (integerp value) (minusp value))
        (fail-option socket option value)
        (decode-option-value option value))))

(defun writable-option (name &optional socket)
  "The row of option NAME, of SOCKET, which is to be set."
  (let ((option (option-named name)))
    (if (option-writable option)
        option
        (fail-as 'usage-error :option :invalid :socket socket
                 :message "~S can only be read" :arguments (list name)))))

(defun (setf socket-option) (value socket name)
  (check-endpoint socket :option)
  (let ((option (writable-option name socket)))
    (check-option-value option value)
    (let ((status (write-option (endpoint-handle socket) option
                                (encode-option-value option value))))
      (if (minusp status)
          (fail-option socket option status value)
          value))))

;;; Options that a socket has from its beginning

(defstruct (presets (:copier nil) (:predicate nil))
  "What each socket that is opened has set before anything else is done with it."
  (values '() :type list :read-only t)  ; (option . value), in the order in which they are set
  (rows (octets-of-size 0) :type octets :read-only t)) ; the same for the library

(defun preset-row (option value)
  "OPTION and VALUE, in the library's form, as a row of settings."
  (let ((row (octets-of-size +lport-setting-size+)))
    (put-number (option-index option) row 0 4)
    (if (stringp value)
        (let ((text (utf8-octets value)))
          (put-number (length text) row 4 4)
          (replace row text :start1 8))
        (put-number value row 8 8))))

(defvar *no-presets* (make-presets))

(defun parse-presets (plist)
  "The presets that PLIST, of names of options and values, asks for, checked before anything is
opened; the first of several values of a name counts."
  (if plist
      (parse-some-presets plist)
      *no-presets*))

(defun parse-some-presets (plist)
  "As PARSE-PRESETS, of a PLIST that is not empty."
  (check-argument :option plist 'property-list "names of options and values in pairs")
  (let ((values (loop for (name value) on plist by #'cddr
                      for option = (writable-option name)
                      unless (member option seen)
                        collect option into seen
                        and collect (cons option (check-option-value option value)))))
    (make-presets :values values
                  :rows (apply #'concatenate 'octets
                               (loop for (option . value) in values
                                     collect (preset-row option
                                                         (encode-option-value option value)))))))

(defmacro with-presets ((pointer count presets) &body body)
  "Run BODY, short and never blocking, with POINTER to the COUNT settings that PRESETS are."
  (let ((place (gensym "PRESETS")))
    `(let* ((,place ,presets)
            (,count (length (presets-values ,place))))
       (with-octets (,pointer (presets-rows ,place) 0 nil :in)
         ,@body))))

(defun preset-failure (presets status &rest facts)
  "The condition for STATUS if it is that of one of PRESETS; else NIL."
  (let* ((index (lport-status-option status))
         (row (and (>= index 0)
                   (find index (presets-values presets)
                         :key (lambda (row) (option-index (car row)))))))
    (and row (apply #'option-failure (car row) status (list (cdr row)) facts))))

(defun opened-with (presets result operation &rest facts)
  "As OPENED, of a socket that has PRESETS."
  (let ((failure (and (integerp result)
                      (apply #'preset-failure presets result
                             (without-keys facts '(:attempts :unicast))))))
    (if failure
        (signal-failure failure)
        (apply #'opened result operation facts))))
