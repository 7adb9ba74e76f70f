;;;; addresses - hosts of usocket, which are strings, vectors and integers, for those of PORT.

(in-package #:port/usocket)

(defun host-designator (host)
  "What PORT takes for HOST of usocket: a string, a vector of 4 or 16 octets, an integer, or NIL."
  (if (and (vectorp host) (not (stringp host)))
      (port:make-address host)
      host))

(defun address-vector (host)
  "The octets of HOST, a string that is an address; the name of a local socket as it is."
  (and host
       (handler-case (port:address-octets (port:parse-address host))
         (port:address-syntax () host))))

(defun hosts-by-name (name)
  "The addresses of NAME as vectors, those of IPv4 first, as usocket has them."
  (usocket:with-mapped-conditions (nil name)
    (stable-sort (mapcar #'port:address-octets (port:resolve (host-designator name)))
                 #'< :key #'length)))

(defun host-by-address (address)
  "The name of ADDRESS, a host of usocket."
  (usocket:with-mapped-conditions (nil address)
    (port:reverse-resolve (host-designator address))))
