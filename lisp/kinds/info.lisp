;;;; info - what is open, and what the system knows of a connection.

(in-package :port)

;;; Connections

(defvar *info-fields*
  (loop for index from 0
        for name = (lport-info-name index)
        while name
        collect (list :name (keyword-for name)
                      :kind (keyword-for (lport-info-kind index))
                      :note (lport-info-note index)))
  "The fields of SOCKET-INFO in the library's order, plists.")

(defun socket-info-fields ()
  "Return what SOCKET-INFO may tell, a list of plists: :NAME, a keyword; :KIND, one of :COUNT,
:OCTETS, :TIME (seconds), :RATE (octets a second) and :STATE (a keyword); :NOTE, a sentence."
  (mapcar #'copy-list *info-fields*))

(defun info-value (kind value)
  "VALUE of a field of KIND as users see it."
  (case kind
    (:time (in-seconds value))
    (:state (let ((name (lport-info-state value)))
              (if name (keyword-for name) value)))
    (t value)))

(defun socket-info (socket)
  "Return what the system knows of SOCKET, as a plist. Of a TCP connection or server: :STATE, such
as :ESTABLISHED; :RTT, the round trip time in seconds; :RETRANSMITS; the windows :CONGESTION-WINDOW
(in segments), :SEND-WINDOW and :RECEIVE-WINDOW (in octets), and more. Of every socket:
:RECEIVE-MEMORY, what is not read yet, with all that the system needs for it (what a local stream
has not read is the :SEND-MEMORY of its peer); :RECEIVE-MEMORY-LIMIT; :DROPPED, how many messages
came and found no room. See SOCKET-INFO-FIELDS. What this system does not tell is left out.
Condition: SOCKET-CLOSED. Source: TCP_INFO of tcp(7), SO_MEMINFO."
  (check-endpoint socket :info)
  (let* ((count (length *info-fields*))
         (values (int64s-of-size count))
         (status (with-int64s (pointer values)
                   (lport-info-read (endpoint-handle socket) pointer count))))
    (when (minusp status)
      (fail-on (endpoint-channel socket) status :info))
    (loop for field in *info-fields*
          for value across values
          unless (= value +lport-never+)
            collect (getf field :name) and
            collect (info-value (getf field :kind) value))))

;;; What is open

(defstruct (socket-entry (:constructor make-socket-entry
                             (socket kind local remote received sent age))
                         (:copier nil))
  "A row of LIST-OPEN-SOCKETS: a socket as it was at that moment."
  (socket nil :read-only t)
  (kind :tcp :type keyword :read-only t)
  (local nil :type (or null string) :read-only t)
  (remote nil :type (or null string) :read-only t)
  (received nil :type (or null unsigned-byte) :read-only t)
  (sent nil :type (or null unsigned-byte) :read-only t)
  (age 0 :type real :read-only t))

(document-functions
 '((socket-entry-p "Return true if OBJECT is a SOCKET-ENTRY.")
   (socket-entry-socket "Return the socket of ENTRY, of whatever class.")
   (socket-entry-kind "Return the kind of socket of ENTRY, one of :TCP, :TCP-SERVER, :LOCAL,
:LOCAL-SERVER, :UDP, :LOCAL-DATAGRAM, :LOCAL-SEQPACKET and
:LOCAL-SEQPACKET-SERVER.")
   (socket-entry-local "Return the own end in ENTRY, a string such as \"127.0.0.1:80\", or NIL.")
   (socket-entry-remote "Return the peer's end in ENTRY, a string, or NIL.")
   (socket-entry-received "Return how many octets had come in ENTRY; NIL where nobody counts.")
   (socket-entry-sent "Return how many octets had been sent in ENTRY; NIL where nobody counts.")
   (socket-entry-age "Return how long the socket of ENTRY had been open, in seconds.")))

(defun octets-text-of (count)
  "COUNT, or what stands for a NIL."
  (if count (format nil "~D" count) "-"))

(defun socket-entry-row (entry)
  "The texts of ENTRY, as a table shows them."
  (list (string-downcase (socket-entry-kind entry))
        (or (socket-entry-local entry) "-")
        (or (socket-entry-remote entry) "-")
        (octets-text-of (socket-entry-received entry))
        (octets-text-of (socket-entry-sent entry))
        (format nil "~,1F" (socket-entry-age entry))))

(defmethod print-object ((entry socket-entry) stream)
  (print-plainly entry stream (apply #'plain-format "~A ~A peer ~A, ~A octets in, ~A out, ~A s"
                                     (socket-entry-row entry))))

(defparameter *endpoint-kinds*
  '((:stream :inet :tcp :tcp-server) (:stream :inet6 :tcp :tcp-server)
    (:stream :local :local :local-server)
    (:datagram :inet :udp) (:datagram :inet6 :udp) (:datagram :local :local-datagram)
    (:seqpacket :local :local-seqpacket :local-seqpacket-server))
  "Rows (type domain kind kind-of-server).")

(defun endpoint-kind (endpoint)
  "The kind of ENDPOINT, see SOCKET-ENTRY-KIND."
  (destructuring-bind (kind &optional server)
      (cddr (find-if (lambda (row)
                       (and (eq (first row) (socket-option endpoint :type))
                            (eq (second row) (socket-option endpoint :domain))))
                     *endpoint-kinds*))
    (if (typep endpoint 'socket-server) server kind)))

(defun octets-counted (endpoint)
  "Values: octets received and sent by ENDPOINT, NIL and NIL for what does not count them."
  (let ((channel (endpoint-channel endpoint)))
    (typecase channel
      (connection (values (connection-octets-in channel) (connection-octets-out channel)))
      (messenger (values (messenger-octets-in channel) (messenger-octets-out channel)))
      (t (values nil nil)))))

(defun socket-entry-of (endpoint now)
  "The entry for ENDPOINT at the moment NOW; NIL if it is closed, or closes meanwhile, or if its
descriptor is no socket any more, as somebody else has closed it."
  (handler-case
      (when (endpoint-open-p endpoint)
        (let ((kind (endpoint-kind endpoint)))
          (multiple-value-bind (local remote) (socket-ends endpoint)
            (multiple-value-bind (received sent) (octets-counted endpoint)
              (make-socket-entry endpoint kind local remote received sent
                                 (in-seconds (- now (endpoint-born endpoint))))))))
    (network () nil)))

(defun list-open-sockets ()
  "Return what sockets of this library are open now, a list of SOCKET-ENTRYs, the oldest first: each
has the socket, its kind, its ends, how many octets came and went, and its age. A socket that nobody
refers to any more is listed until it is collected. See PRINT-OPEN-SOCKETS."
  (let* ((endpoints (registered-endpoints))
         (now (lport-clock-now)))
    (sort (loop for endpoint in endpoints
                for entry = (and (typep endpoint 'endpoint) ; pollers have handles too
                                 (socket-entry-of endpoint now))
                when entry
                  collect entry)
          #'> :key #'socket-entry-age)))

(defun print-open-sockets (&optional (stream *standard-output*))
  "Print LIST-OPEN-SOCKETS to STREAM as a table, a line for each socket under a line of headings.
Returns how many there are."
  (check-argument :write stream '(or (eql t) (and stream (satisfies output-stream-p)))
                  "an output stream")
  (let* ((rows (mapcar #'socket-entry-row (list-open-sockets)))
         (table (cons '("kind" "local end" "peer" "octets in" "octets out" "seconds") rows))
         (widths (apply #'mapcar (lambda (&rest column) (reduce #'max column :key #'length))
                        table)))
    (dolist (row table (length rows))
      (format stream "~&~{~V@<~A~>  ~V@<~A~>  ~V@<~A~>  ~V@A  ~V@A  ~V@A~}~%"
              (mapcan #'list widths row)))))
