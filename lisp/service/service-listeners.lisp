;;;; service-listeners - where a service listens: what SERVE is told of ports and hosts, and the
;;;; listeners that this stands for.
;;;;
;;;; Invariant: of what is opened here all that is asked for is open in the end, or nothing. What
;;;; the caller has opened stays open.

(in-package :port)

(defun local-name-p (spec)
  "True if SPEC names a local socket."
  (or (pathnamep spec)
      (and (stringp spec) (plusp (length spec)) (find (char spec 0) "/@"))))

;;; Addresses

(defun listening-addresses (host family)
  "The addresses that HOST, as the user gave it, stands for, in order of preference; for no HOST a
list of NIL, the wildcard of FAMILY."
  (family-designator family :listen)
  (if (null host)
      '(nil)
      (with-retry (host "resolve the host" "host")
        (loop for address in (addresses-of host family :listen)
              collect (own-address address family)))))

(defun absent-p (status)
  "True if STATUS says that this machine has not the address, or nothing of its family."
  (member (lport-status-kind status) (list +lport-address-not-available+ +lport-not-supported+)))

(defun fail-to-listen (presets status host address port)
  "Signal STATUS, which ADDRESS gave, one of those of HOST, to a socket with PRESETS. HOST and PORT
are as the user gave them."
  (let ((facts (list :host host :port port)))
    (unless (or (null address) (not (stringp host)) (string= host (princ-to-string address)))
      (setf facts (list* :message "~A ~A" :arguments (list address (status-text status)) facts)))
    (apply #'opened-with presets status :listen facts)))

(defun listen-on-each (addresses listen fail)
  "Call LISTEN with each of ADDRESSES, those of a host, but for those that it returns the status of
because they are absent. If all are, or one fails in another way, call FAIL with status and
address."
  (let ((found nil))
    (loop for (address . others) on addresses
          for result = (funcall listen address)
          do (cond ((not (integerp result)) (setf found t))
                   ((not (and (absent-p result) (or found others)))
                    (funcall fail result address))))))

;;; Ports

(defun listen-beside (opened address number family options)
  "The server on ADDRESS that is among OPENED, conses of an address and a server, or else a new one,
or the status why there is none. Its port is that of OPENED, the first time NUMBER."
  (or (cdr (assoc address opened :test #'equalp))
      (let ((port (if opened
                      (nth-value 1 (socket-server-host/port (cdr (first opened))))
                      number)))
        (apply #'listen-at
               (bound-block address port (family-designator family :listen))
               options))))

(defun listen-on-hosts (hosts port number again family options)
  "New SOCKET-SERVERs on one port, NUMBER or, for 0, any free one, of the addresses of HOSTS, each
once; NIL if AGAIN is true and the port is free on the first and taken on another. HOSTS and PORT
are as the user gave them, OPTIONS as of LISTEN-AT."
  (let ((opened '()) (kept nil))
    (flet ((listen-there (address)
             (let ((result (listen-beside opened address number family options)))
               (cond ((not (integerp result))
                      (pushnew (cons address result) opened :key #'cdr))
                     ((and again opened
                           (= (lport-status-kind result) +lport-address-in-use+))
                      (return-from listen-on-hosts nil)))
               result)))
      (unwind-protect
           (dolist (host hosts (setf kept (reverse (mapcar #'cdr opened))))
             (with-retry (host "listen" "host" 'address-not-available)
               (listen-on-each (listening-addresses host family)
                               #'listen-there
                               (lambda (status address)
                                 (fail-to-listen (getf options :presets)
                                                 status host address port)))))
        (unless kept
          (mapc #'close (mapcar #'cdr opened)))))))

(defconstant +most-picks+ 16
  "How often the system picks a port at the most, until one is free on all addresses.")

(defun listen-on-port (port hosts family options)
  "New SOCKET-SERVERs on PORT of all addresses of HOSTS, in the order in which they were asked for."
  (with-retry (port "listen" "port")
    (let ((number (port-designator (or port 0) "tcp" :listen :minimum 0)))
      (loop for pick from 1
            thereis (listen-on-hosts hosts port number
                                     (and (zerop number) (< pick +most-picks+))
                                     family options)))))

;;; Specs

(defun check-listener (listener others)
  "Signal unless LISTENER, a socket that SERVE was given, is a server whose connections are streams
and none of OTHERS."
  (cond ((not (and (typep listener 'socket-server) (eq (server-kind listener) :stream)))
         (fail-as 'not-supported :serve :not-supported :socket listener
                  :message "expected a server of streams, got ~A" :arguments (list listener)))
        ((member listener others)
         (fail-as 'usage-error :serve :invalid :socket listener
                  :message "expected each server once, got ~A twice"
                  :arguments (list listener)))))

(defun open-listeners (specs hosts family options local-options)
  "Values: the SOCKET-SERVERs that SPECS ask for, each port on each of HOSTS; those of them that
were opened here. If one cannot be opened none is. For :NONE there are none."
  (loop for (spec . others) on specs
        when (typep spec 'endpoint)
          do (check-listener spec others))
  (let ((all '()) (own '()) (done nil))
    (unwind-protect
         (dolist (spec (remove :none specs) (progn (setf done t) (values (nreverse all) own)))
           (if (typep spec 'socket-server)
               (push spec all)
               (dolist (server (if (local-name-p spec)
                                   (list (apply #'open-unix-server spec local-options))
                                   (listen-on-port spec hosts family options)))
                 (push server own)
                 (push server all))))
      (unless done
        (mapc #'close own)))))
