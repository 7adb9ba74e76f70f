;;;; local - sockets named by files, and pairs without a name; unix(7).

(in-package :port)

(defparameter *kind-numbers* `((:stream . ,+lport-stream+) (:datagram . ,+lport-datagram+)
                               (:seqpacket . ,+lport-seqpacket+))
  "The kinds of local sockets, each with the library's number.")

(defun kind-number (kind operation)
  "The library's number for KIND, an argument of OPERATION."
  (check-argument operation kind '(member :stream :datagram :seqpacket)
                  "a kind, :STREAM, :DATAGRAM or :SEQPACKET")
  (cdr (assoc kind *kind-numbers*)))

(defun open-unix-socket (path &rest settings
                         &key (kind :stream) bin timeout element-type external-format
                           input-timeout output-timeout options
                         &allow-other-keys)
  "Connect to the local socket at PATH and return a SOCKET. PATH: a string, the name that the system
has, where `@` in front makes it a Linux abstract name; or the pathname of a file. KIND: :STREAM; or
:SEQPACKET, a connection that keeps the boundaries of messages, or :DATAGRAM, which has an abstract
name that the system picks, so that it can be answered: then a DATAGRAM-SOCKET is returned.
TIMEOUT: seconds to wait while the server's queue is full (NIL: as long as it takes). BIN,
ELEMENT-TYPE and EXTERNAL-FORMAT (of a stream), INPUT-TIMEOUT, OUTPUT-TIMEOUT and OPTIONS as for
OPEN-SOCKET.
Conditions: PATH-NOT-FOUND, CONNECTION-REFUSED (nobody listens any more, or the file is no socket),
CONNECT-DENIED, TIMEOUT, ADDRESS-SYNTAX. Restarts: RETRY; USE-VALUE, another path; WAIT-LONGER.
Source: unix(7)."
  (declare (ignore bin element-type external-format input-timeout output-timeout))
  (check-own-keywords 'open-unix-socket :connect settings)
  (let ((settings (apply #'parse-settings (without-keys settings '(:kind :timeout :options))))
        (presets (parse-presets options))
        (number (kind-number kind :connect)))
    (check-timeout timeout)
    (with-retry (path "connect" "path")
      (let ((block (path-block path :connect)))
        (if (eq kind :datagram)
            (open-path-datagram block path settings presets)
            (dial-to (lambda () (open-path-dial block number))
                     path nil (operation-deadline timeout) timeout settings
                     :kind kind :presets presets))))))

(defun open-path-datagram (block path settings presets)
  "A datagram socket connected to the local name PATH, which is that in BLOCK."
  ;; Bound to no name, it gets an abstract one from the system.
  (opened-with presets
               (open-datagram (make-block +lport-local+) block 0 settings :local presets)
               :connect :host path))

(note-keywords 'open-unix-socket)

(defun open-unix-server (path &rest keywords
                         &key (kind :stream) backlog mode (unlink t) (external-format :utf-8)
                           proxy-protocol options
                         &allow-other-keys)
  "Listen on the local socket PATH and return a SOCKET-SERVER. PATH: a string, the name that the
system has, where `@` in front makes it a Linux abstract name; or the pathname of a file. KIND:
:STREAM; :SEQPACKET, whose connections are DATAGRAM-SOCKETs; or :DATAGRAM: then a DATAGRAM-SOCKET
that receives at PATH is returned. BACKLOG as for OPEN-SOCKET-SERVER.
MODE: the permission bits of the path, such as #o660 (NIL: what the umask says). UNLINK true: a
stale path, one that refuses connections, is removed first, a live one or another file never; and
the path is removed when the server is closed, if it is still the one that this process made.
EXTERNAL-FORMAT: that of the connections. PROXY-PROTOCOL as for OPEN-SOCKET-SERVER, for :STREAM.
OPTIONS as for OPEN-SOCKET, set before the bind; not all go over to connections of local sockets.
Conditions: ADDRESS-IN-USE, PATH-UNUSABLE, PERMISSION-DENIED, ADDRESS-SYNTAX. Restarts: RETRY;
USE-VALUE, another path. Source: unix(7)."
  (check-own-keywords 'open-unix-server :listen keywords)
  (check-backlog backlog)
  (check-argument :listen mode '(or null (integer 0 #o7777)) "permission bits, or NIL")
  (let ((number (kind-number kind :listen))
        (presets (parse-presets options)))
    (when (and proxy-protocol (not (eq kind :stream)))
      (fail-as 'not-supported :listen :not-supported :host path
               :message "expected :KIND :STREAM for PROXY-PROTOCOL, got ~S" :arguments (list kind)))
    (with-retry (path "listen" "path")
      (let ((block (path-block path :listen)))
        (flet ((bind ()
                 (with-octets (pointer block)
                   (with-presets (rows count presets)
                     (lport-local-listen pointer number (or backlog -1) (or mode -1)
                                         (flags-of +lport-unlink+ unlink) rows count)))))
          (if (eq kind :datagram)
              (receive-at-path #'bind path presets)
              (opened-with presets
                           (try-server #'bind
                                       (list :external-format external-format
                                             :proxy-protocol proxy-protocol)
                                       kind)
                           :listen :host path)))))))

(note-keywords 'open-unix-server)

(defun receive-at-path (bind path presets)
  "The datagram socket around the handle that BIND returns, which is that of PATH and has PRESETS."
  (opened-with presets
               (adopt-datagram bind (parse-settings) nil :local)
               :bind :host path))

(defun open-socket-pair (&rest settings
                         &key (kind :stream) bin element-type external-format
                           input-timeout output-timeout
                         &allow-other-keys)
  "Return 2 values: two SOCKETs that are connected with each other; for KIND :DATAGRAM or :SEQPACKET
(the default is :STREAM) two DATAGRAM-SOCKETs. BIN, ELEMENT-TYPE and EXTERNAL-FORMAT (of streams),
INPUT-TIMEOUT and OUTPUT-TIMEOUT as for OPEN-SOCKET, of both.
Conditions: RESOURCE-EXHAUSTED. Source: socketpair(2)."
  (declare (ignore bin element-type external-format input-timeout output-timeout))
  (check-own-keywords 'open-socket-pair :open settings)
  (%close-lost)
  (let ((pair (int64s-of-size 2))
        (number (kind-number kind :open))
        (settings (apply #'parse-settings (without-keys settings '(:kind))))
        (ends '()) (kept nil))
    (flet ((adopt-end (index)
             (push (adopt-handle (aref pair index)
                                 (lambda (handle)
                                   (make-link kind handle settings
                                              (asked-block handle #'lport-socket-peer))))
                   ends)))
      (with-cleanup
          (let ((status (call-deferred
                          (let ((status (with-int64s (pointer pair)
                                          (lport-socket-pair number pointer))))
                            (when (zerop status)
                              (adopt-end 0)
                              (adopt-end 1))
                            status))))
            (when (minusp status)
              (fail status :open))
            (setf kept t))
        (unless kept                    ; as in OPEN-ENDPOINT
          (dolist (end ends)
            (close end :abort t))
          (loop for handle across pair  ; of which one may have no object
                when (plusp handle)
                  do (lport-socket-close handle 0)))))
    (values-list (reverse ends))))

(note-keywords 'open-socket-pair)
