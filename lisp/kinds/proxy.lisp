;;;; proxy - the header of the PROXY protocol that a proxy puts in front of a connection, and that
;;;; names the client behind it: read by servers, written by proxies.
;;;;
;;;; Only the connections of a server that was told so begin with one, it is never guessed: anybody
;;;; could name whom he likes in it. Invariant: exactly the header is taken, what stands behind it
;;;; stays in the buffer; and who gets a socket of such a server gets one whose header was read.

(in-package :port)

;;; When there is no good header

(defun header-failure (socket code &rest facts)
  "Signal the PROXY-ERROR by CODE for the connection of SOCKET; FACTS as for FAIL-AS."
  (apply #'fail-as 'proxy-error :proxy code
         :socket socket :octets (buffered-input (socket-connection socket)) facts))

(defun fail-late (socket span)
  (header-failure socket :timed-out
                  :message "no whole header in time" :seconds (/ span +second+)))

(defun fail-malformed (socket status)
  (let* ((connection (socket-connection socket))
         (start (connection-in-start connection))
         (octets (subseq (connection-in connection) start
                         (min (+ start 40) (connection-in-end connection)))))
    (header-failure socket (status-code status)
                    :message "expected a header of the PROXY protocol, got ~S"
                    :arguments (list (map 'string #'code-char octets)))))

(defun fail-broken (socket status)
  "For STATUS of a receive: 0 at the end, else below 0."
  (if (zerop status)
      (header-failure socket :connection-truncated :message "the connection ended in it")
      (header-failure socket (status-code status) :errno (status-errno status)
                      :message "~A" :arguments (list (status-text status)))))

;;; Reading it

(defun set-ends (socket source destination)
  "The ends of SOCKET are those in the blocks SOURCE and DESTINATION, unless they are of no family;
those of the connection itself are kept."
  (setf (socket-link socket) (cons (endpoint-remote socket) (local-block socket)))
  (when (block-family source)
    (setf (endpoint-remote socket) source
          (endpoint-local socket) destination)))

(defun take-header (socket)
  "True if a whole header stood at the beginning of what SOCKET has buffered: it is taken. Signals
PROXY-ERROR if what stands there cannot become one."
  (let* ((connection (socket-connection socket))
         (source (make-block))
         (destination (make-block))
         (result (with-octets (octets (connection-in connection) (connection-in-start connection)
                                      (connection-in-end connection) :in)
                   (with-octets (from source)
                     (with-octets (to destination)
                       (lport-proxy-parse octets (buffered-input connection) from to))))))
    (cond ((minusp result) (fail-malformed socket result))
          ((plusp result)
           (call-deferred
             (incf (connection-in-start connection) result)
             (decf (connection-octets-in connection) result))
           (set-ends socket source destination)
           (release-idle-input connection)
           t))))

(defun read-header-now (socket)
  "Take the header of SOCKET, which no other thread has yet, as far as it is there: true if it is
whole. Never blocks. Signals PROXY-ERROR; SOCKET-CLOSED, when SOCKET is closed, by whomever."
  (let ((connection (socket-connection socket)))
    (loop
      (when (and (plusp (buffered-input connection)) (take-header socket))
        (return t))
      (let ((count (receive-into-buffer connection)))
        (cond ((plusp count))
              ((and (minusp count) (would-block-p count))
               (release-idle-input connection)
               (return nil))
              (t (check-open connection :proxy)
                 (fail-broken socket count)))))))

(defun await-header (socket channel span limit)
  "Take the header of SOCKET, waiting for it for SPAN at the most. LIMIT, or the deadline of
CHANNEL, the server's, is a TIMEOUT if it passes before."
  (declare (type moment limit))
  (let ((connection (socket-connection socket)) (end (moment-in span)))
    (loop until (read-header-now socket)
          do (check-open connection :proxy)
             (setf limit (or (await-input-until end connection :proxy limit
                                                (buffered-input connection) channel)
                             (fail-late socket span))))))

;;; A thread in SOCKET-ACCEPT waits on a connection that nobody else has, by the limits of the
;;; server. Who closes the server, or sets its deadline, finds the connection among the server's
;;; pending ones, and wakes that thread.

(defun accept-header (server socket span limit)
  "Take the header of SOCKET, which SERVER has just accepted, within SPAN, by LIMIT and by SERVER's
deadline."
  (let ((channel (endpoint-channel server)) (cell (server-pending server)))
    (unwind-protect
         (progn
           (change-atomically (pending (car cell)) (cons socket pending))
           (check-open channel :accept)
           (handler-case (await-header socket channel span limit)
             (socket-closed () (fail-closed channel :accept))))
      (change-atomically (pending (car cell)) (remove socket pending)))))

;;; Writing it

(defun print-header (version client)
  "The octets of a header of VERSION for CLIENT, a SOCKET, or NIL for nobody."
  (let* ((header (octets-of-size +lport-proxy-size+))
         (nobody (make-block))
         (length (with-octets (source (or (and client (endpoint-remote client)) nobody))
                   (with-octets (destination (or (and client (local-block client)) nobody))
                     (with-octets (pointer header 0 nil :out)
                       (lport-proxy-print version source destination pointer (length header)))))))
    (when (minusp length)
      (fail length :proxy :socket client))
    (subseq header 0 length)))

(defun write-proxy-header (socket client &key (version 2))
  "Write to SOCKET, the connection of a proxy to a server that expects it (:PROXY-PROTOCOL of our
own), the header of the PROXY protocol that says for whom the proxy speaks, before all else, TLS
too; return SOCKET. CLIENT: the connection, a SOCKET, with whoever that is: its ends, as of
SOCKET-HOST/PORT, are told, so that they go on through several proxies; NIL: the proxy speaks for
itself, as to see if the server is there. VERSION: 2, in octets, or 1, a line, which of a local
CLIENT says nothing. The header stays in the buffer until a flush, so that it goes with what comes
next. Conditions: USAGE-ERROR where something was written to SOCKET before or it has TLS;
SOCKET-CLOSED, TIMEOUT, CONNECTION-LOST. Source: proxy-protocol.txt of HAProxy."
  (check-socket socket :proxy)
  (when client
    (check-socket client :proxy))
  (check-argument :proxy version '(member 1 2) "version 1 or 2")
  (let ((connection (socket-connection socket)))
    (with-output (connection)
      (check-open connection :proxy)
      (when (or (connection-secure connection)
                (plusp (+ (connection-octets-out connection) (pending-output connection))))
        (fail-as 'usage-error :proxy :invalid :socket socket
                 :message "expected a connection to which nothing has been written, and ~
                           without TLS"))
      (write-octets socket (print-header version client))))
  socket)

;;; What the user may ask

(defun socket-proxy-host/port (socket)
  "Return the ends of the connection itself if SOCKET, a SOCKET, began with a header of the PROXY
protocol (see OPEN-SOCKET-SERVER), as 4 values: host and port of the proxy, host and port of the own
end, as of SOCKET-HOST/PORT, which gives those that the header named. They are the same where it
named none, as when the proxy itself connects, to see if the server is there. NIL if there was no
header."
  (check-socket socket :name)
  (let ((link (socket-link socket)))
    (when link
      (multiple-value-call #'values (host-and-port (car link)) (host-and-port (cdr link))))))
