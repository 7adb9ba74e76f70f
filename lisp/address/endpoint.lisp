;;;; endpoint - a host and a port in one text, as people write them into settings and logs.
;;;;
;;;; Nothing here asks the network, see designators.lisp.

(in-package :port)

(defun fail-endpoint (text)
  (fail-syntax :parse text "a host and a port, such as localhost:80, 192.0.2.1:80 or [::1]:80"))

(defun split-endpoint (text)
  "Values: what of TEXT is the host, in its brackets where it has some; what is the port, or NIL. An
IPv6 address without brackets has no port."
  (let ((colon (position #\: text :from-end t)))
    (cond ((or (null colon) (literal-address text :parse)) (values text nil))
          ((and (find #\: text :end colon)
                (not (and (char= #\[ (char text 0)) (char= #\] (char text (1- colon))))))
           (fail-endpoint text))
          (t (values (subseq text 0 colon) (subseq text (1+ colon)))))))

(defun parse-endpoint (text &key default-port)
  "Parse TEXT, a string with a host and a port (the form of RFC 3986 3.2), and return both: a string
and an integer, as OPEN-SOCKET and its kin take them. The port is a number from 0 to 65535 or the
name of a service. An IPv6 address has to be in brackets, which the host that is returned has not.
Without a host, as in \":80\", NIL: all addresses, of a server. DEFAULT-PORT: the port, a number or
the name of a service, where TEXT has none, and then the brackets may be left out too; where it is
NIL that is an error.
  (parse-endpoint \"[::1]:8080\") => \"::1\", 8080
  (parse-endpoint \"host.test\" :default-port \"https\") => \"host.test\", 443
Conditions: ADDRESS-SYNTAX, SERVICE-NOT-FOUND."
  (check-text text)
  (flet ((number (port) (port-designator port "" :parse :minimum 0)))
    (let ((default (and default-port (number default-port))))
      (multiple-value-bind (host port) (split-endpoint text)
        (values (and (string/= host "") (princ-to-string (host-designator host :parse)))
                (cond (port (number port))
                      (default)
                      (t (fail-endpoint text))))))))

(defun endpoint-string (host port)
  "Return the text of HOST and PORT that PARSE-ENDPOINT takes apart: \"localhost:80\", \"[::1]:80\",
or \":80\" where HOST is NIL. HOST: a name, an address or an ipaddr; PORT: a number from 0 to 65535
or the name of a service. Conditions: ADDRESS-SYNTAX, SERVICE-NOT-FOUND."
  (let ((host (and host (host-designator host :address)))
        (port (port-designator port "" :address :minimum 0)))
    (if (address-p host)
        (endpoint-text host port)
        (format nil "~@[~A~]:~D" host port))))
