;;;; interface - the interfaces of the network that this host has, and its name.

(in-package :port)

(defstruct (network-interface (:constructor make-network-interface
                                  (name index mtu flags addresses prefixes))
                              (:copier nil))
  "An interface of the network of this host, as it was when NETWORK-INTERFACES was called."
  (name "" :type string :read-only t)
  (index 0 :type (unsigned-byte 31) :read-only t)
  (mtu 0 :type (unsigned-byte 32) :read-only t)
  (flags '() :type list :read-only t)
  (addresses '() :type list :read-only t)
  (prefixes '() :type list :read-only t))

(document-functions
 '((network-interface-p "Return true if OBJECT is a NETWORK-INTERFACE.")
   (network-interface-name "Return the name of INTERFACE, a string such as \"eth0\".")
   (network-interface-index "Return the index of INTERFACE, an integer, which is also the scope of
its link-local addresses.")
   (network-interface-mtu "Return the MTU of INTERFACE in octets; 0 where it is not known.")
   (network-interface-flags "Return what INTERFACE is, a list of keywords among :UP :RUNNING
:LOOPBACK :POINT-TO-POINT :BROADCAST :MULTICAST :PROMISCUOUS :NO-ARP.")
   (network-interface-addresses "Return the address objects of INTERFACE, a list.")
   (network-interface-prefixes "Return the lengths in bits of the networks of the addresses of
INTERFACE, a list in the order of NETWORK-INTERFACE-ADDRESSES.")))

(defmethod print-object ((interface network-interface) stream)
  (print-plainly interface stream
                 (plain-format "~A~:{ ~A/~D~}" (network-interface-name interface)
                               (mapcar #'list (network-interface-addresses interface)
                                       (network-interface-prefixes interface)))))

(defun keyword-for (name)
  "The keyword for NAME, a string in lower case that the library has for it."
  (values (intern (string-upcase name) :keyword)))

(defun parse-flags (text)
  "The keywords in TEXT, names between commas; \"-\" for none."
  (unless (string= text "-")
    (mapcar #'keyword-for (uiop:split-string text :separator ","))))

(defun parse-interface (line)
  "The interface that LINE of lport_interface_list describes."
  (destructuring-bind (index name mtu flags . addresses) (words line)
    (flet ((slash (text) (position #\/ text)))
      (make-network-interface
       name (parse-integer index) (parse-integer mtu) (parse-flags flags)
       (loop for text in addresses
             collect (literal-address (subseq text 0 (slash text)) :interfaces))
       (loop for text in addresses
             collect (parse-integer text :start (1+ (slash text))))))))

(defun network-interfaces ()
  "Return the interfaces of the network of this host, a list of NETWORK-INTERFACEs in the order of
their indices, those that are down included. Conditions: RESOURCE-EXHAUSTED.
Source: getifaddrs(3), netdevice(7)."
  (let ((text (text-from (pointer cap)
                (lport-interface-list pointer cap))))
    (if (integerp text)
        (fail text :interfaces)
        (sort (loop for line in (uiop:split-string text :separator '(#\Newline))
                    unless (string= line "")
                      collect (parse-interface line))
              #'< :key #'network-interface-index))))

(defun interface-number (designator operation)
  "The index of the interface that DESIGNATOR, a name or an index, says. Signals
ADDRESS-NOT-AVAILABLE of OPERATION, a keyword, for a name that none has; RESOURCE-EXHAUSTED where
it could not be looked up."
  (check-argument operation designator '(or string (unsigned-byte 31))
                  "an interface, its name or its index")
  (if (integerp designator)
      designator
      (let ((index (with-text (name length designator)
                     (lport-interface-index name length))))
        (cond ((plusp index) index)
              ((/= (lport-status-kind index) +lport-address-not-available+)
               (fail index operation))
              (t (fail index operation
                       :message "expected the name of an interface among ~{~S~^ ~}, got ~S"
                       :arguments (list (mapcar #'network-interface-name (network-interfaces))
                                        designator)))))))

(defun interface-text (index)
  "The name of the interface INDEX, or INDEX where there is none any more."
  (let ((name (text-from (pointer cap)
                (lport-interface-name index pointer cap))))
    (if (stringp name) name index)))

(defun get-host-name ()
  "Return the name of this host, a string, as its owner has set it. Source: gethostname(2)."
  (let ((name (text-from (pointer cap)
                (lport-host-name pointer cap))))
    (if (integerp name)
        (fail name :host-name)
        name)))
