;;;; unfit-ecl - which tests cannot hold on ECL, and why.

(in-package :port/test)

(setf *unfit*
      '(("it runs programs by SBCL's own functions"
         "dns.real" "haproxy.real")))
