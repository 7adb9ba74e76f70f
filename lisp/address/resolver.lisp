;;;; resolver - names to addresses and back, through the library's threads; no literal ever gets
;;;; there.
;;;;
;;;; Invariant: a query is closed on every exit, and while its answer is waited for nothing else is
;;;; held.

(in-package :port)

;;; Queries

(defun call-with-query (open answer)
  "Return the values of ANSWER, called with the query that OPEN begins, or with the status below 0
why there is none; the query is closed on every exit. ANSWER may block."
  (with-waiting (query (funcall open)) (funcall answer query)
    (when (plusp query)
      (lport-resolve-close query))))

(defun answer-count (query)
  "How many addresses QUERY, which has its answer, has in it; or the status below 0 that it is."
  (if (minusp query)
      query
      (lport-resolve-count query)))

(defun await-answer-until (query limit later)
  "Wait until QUERY, if it is one, has its answer; when LIMIT passes, LATER, a function, gives
another one."
  (declare (type moment limit) (type function later))
  (loop until (or (minusp query)
                  (/= (lport-status-kind (lport-resolve-wait query limit)) +lport-timed-out+))
        do (setf limit (funcall later))))

(defun answer-address (query index)
  "Address INDEX of the answer of QUERY."
  (block-address (block-from (place)
                   (lport-resolve-address query index place))))

(defun answer-addresses (query count)
  (loop for index below count
        collect (answer-address query index)))

(defun answer-names (query)
  "The names in the answer of QUERY, which was asked for some: the canonical one, then the aliases."
  (loop for index from 0
        for name = (text-from (pointer cap)
                     (lport-resolve-name query index pointer cap))
        while (stringp name)
        collect name))

(defun resolve-failure (status host begun seconds)
  "The condition for STATUS of HOST, with SECONDS, of the limit, if that has passed, else with those
since BEGUN."
  (status-condition status :resolve
                    :host host
                    :seconds (seconds-to-tell status seconds begun)))

(defun call-with-answer (open host timeout function)
  "Return the values of FUNCTION, called with a query that OPEN has begun and the number of
addresses in its answer. Conditions name HOST; TIMEOUT as in RESOLVE. Once the limit has passed
nothing is asked, even if the answer would come at once."
  (let* ((limit (operation-deadline timeout))
         (seconds (limit-in-seconds timeout limit))
         (begun (lport-clock-now)))
    (labels ((failed (status)
               (resolve-failure status host begun seconds))
             (later ()
               (multiple-value-setq (limit seconds) (check-moment limit #'failed seconds))
               limit))
      (loop while (passed-p limit)
            do (later))
      (call-with-query open
                       (lambda (query)
                         (await-answer-until query limit #'later)
                         (let ((count (answer-count query)))
                           (if (minusp count)
                               (signal-failure (failed count))
                               (funcall function query count))))))))

(defun opener (name family flags)
  "A function that begins to look NAME up; FAMILY and FLAGS are numbers of the library."
  (lambda ()
    (with-text (pointer length name)
      (lport-resolve-open pointer length family flags))))

(defun reverse-opener (address)
  "A function that begins to look the names of ADDRESS up."
  (let ((block (address-block address 0)))
    (lambda ()
      (with-octets (pointer block)
        (lport-resolve-reverse pointer)))))

;;; Names to addresses

(defun fail-family (addresses family operation &rest facts)
  "Signal the HOST-NOT-FOUND of OPERATION, a keyword, that ADDRESSES, a list, are of another family
than FAMILY, with FACTS in it."
  (apply #'fail-as 'host-not-found operation :host-not-found
         :message "expected an address of family ~S, got ~{~A~^, ~} of family ~S"
         :arguments (list family addresses (address-family (unmapped (first addresses))))
         facts))

(defun check-family (address family operation &rest facts)
  "A list of ADDRESS; signals what FAIL-FAMILY does if it is not of FAMILY, or NIL for any."
  (if (member family (list nil (address-family address)))
      (list address)
      (apply #'fail-family (list address) family operation facts)))

(defun resolve-name (name family timeout)
  (call-with-answer (opener name (family-designator family) 0) name timeout #'answer-addresses))

(defun resolve-once (host family timeout)
  (family-designator family)
  (check-timeout timeout)
  (let ((target (host-designator host :resolve)))
    (if (address-p target)
        (check-family (if (eq family :inet) (unmapped target) target) family :resolve :host host)
        (resolve-name target family timeout))))

(defun resolve (host &rest options &key family timeout &allow-other-keys)
  "Look HOST up and return the list of its address objects, in order of preference.
HOST: a name; a literal, an integer ipaddr or an address object comes back as it is, without a
query; letters outside ASCII in its IDNA form, xn--... FAMILY: :INET, for which an IPv4-mapped
literal is the IPv4 address, :INET6, or NIL for both.
TIMEOUT: seconds, a non-negative real; NIL: no limit but that of WITH-DEADLINE.
Up to 256 names are looked up at a time; what a timeout has abandoned counts until the system gives
it up, and more wait their turn. Who asks the same as another did less than a second before, and has
no answer yet, shares that one's.
Conditions: HOST-NOT-FOUND, RESOLVER-TRY-AGAIN, RESOLVER-FAILURE, RESOURCE-EXHAUSTED,
ADDRESS-SYNTAX, TIMEOUT. Restarts: RETRY; USE-VALUE, another host; WAIT-LONGER.
Wraps getaddrinfo(3)."
  (check-own-keywords 'resolve :resolve options)
  (with-retry (host "resolve the host" "host")
    (resolve-once host family timeout)))

(note-keywords 'resolve)

;;; Addresses to names

(defun names-of (address host timeout)
  "The names of ADDRESS, an address object of a host, which was given as HOST: the canonical one,
then the aliases."
  (call-with-answer (reverse-opener address) host timeout
                    (lambda (query count)
                      (declare (ignore count))
                      (answer-names query))))

(defun reverse-resolve (address &rest options &key timeout &allow-other-keys)
  "Look ADDRESS up and return the name of its host, a string.
ADDRESS: an address object, a literal, or an integer ipaddr. TIMEOUT: seconds, a non-negative real;
NIL: no limit but that of WITH-DEADLINE.
Conditions: HOST-NOT-FOUND, RESOLVER-TRY-AGAIN, RESOLVER-FAILURE, RESOURCE-EXHAUSTED,
ADDRESS-SYNTAX, TIMEOUT.
Restarts: RETRY; USE-VALUE, another address; WAIT-LONGER. Wraps getnameinfo(3)."
  (check-own-keywords 'reverse-resolve :resolve options)
  (with-retry (address "look the address up" "address")
    (first (names-of (ip-address address :resolve) address timeout))))

(note-keywords 'reverse-resolve)
