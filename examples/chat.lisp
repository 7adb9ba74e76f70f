;;;; chat - a room: what one says all the others hear. The first line of a client is its name.
;;;;
;;;; Clients wait without a thread until they say something. What is said is posted, so nobody waits
;;;; for whoever does not read it; he is thrown out when too much is kept for him.
;;;; Invariant: who is in the room is connected; everybody there hears every line whole, and the
;;;; lines of one client in their order.

(defpackage :port-example/chat
  (:documentation "A chat server.")
  (:use :common-lisp)
  (:shadow #:room)
  (:export #:start #:run))

(in-package :port-example/chat)

(defconstant +line-limit+ 4096 "Octets that a line may have.")

(defstruct (room (:constructor make-room ()))
  (lock (bordeaux-threads:make-lock "room"))
  (members '()))                        ; (socket . name)

(defun all-members (room)
  (bordeaux-threads:with-lock-held ((room-lock room))
    (room-members room)))

(defun name-of (room socket)
  (cdr (assoc socket (all-members room))))

(defun enter (room socket name)
  "True if nobody in ROOM has NAME yet: it is that of SOCKET from now on."
  (bordeaux-threads:with-lock-held ((room-lock room))
    (unless (find name (room-members room) :key #'cdr :test #'string-equal)
      (push (cons socket name) (room-members room)))))

(defun leave (room socket)
  "SOCKET has gone, or is thrown out: its name, if it had one."
  (bordeaux-threads:with-lock-held ((room-lock room))
    (let ((member (assoc socket (room-members room))))
      (setf (room-members room) (remove member (room-members room)))
      (cdr member))))

(defun tell-others (room socket control &rest arguments)
  "Send a line to all in ROOM but SOCKET."
  (let ((line (format nil "~?~%" control arguments)))
    (loop for (other) in (all-members room)
          unless (or (eq other socket) (port:post other line))
            do (throw-out room other))))

(defun throw-out (room socket)
  (let ((name (leave room socket)))
    (close socket :abort t)
    (when name
      (tell-others room socket "* ~A does not listen and was thrown out" name))))

(defun welcome (room socket name)
  "The first line of SOCKET was NAME: false if it cannot have it."
  (cond ((or (string= name "") (> (length name) 30) (not (every #'graphic-char-p name)))
         (port:post socket (format nil "* expected a name~%"))
         nil)
        ((not (enter room socket name))
         (port:post socket (format nil "* there is a ~A already~%" name))
         nil)
        (t (tell-others room socket "* ~A comes" name) ; first: who comes later is not to hear it
           (port:post socket (format nil "* here ~[is nobody~;is one~:;are ~:*~D~] else~%"
                                     (1- (length (all-members room)))))
           t)))

(defun listen-to (room socket)
  "Take one line of SOCKET; :AGAIN unless it leaves."
  (let ((name (name-of room socket))
        (line (handler-case (read-line socket nil)
                (port:line-too-long ()
                  (port:post socket (format nil "* expected lines of at most ~D octets~%"
                                            +line-limit+))
                  nil)
                (port:network () nil))))
    (cond ((null line) nil)
          (name
           (tell-others room socket "~A: ~A" name (string-right-trim '(#\Return) line))
           :again)
          ((welcome room socket (string-trim '(#\Space #\Return) line)) :again))))

(defun say-farewell (room socket)
  "SOCKET has been closed, by whomever; who was thrown out has left already."
  (let ((name (leave room socket)))
    (when name
      (tell-others room socket "* ~A goes" name))))

(defun start (port &rest options &key &allow-other-keys)
  "Open a room on PORT and return the server, for PORT:STOP-SERVER. OPTIONS as for PORT:SERVE."
  (let ((room (make-room)))
    (apply #'port:serve (lambda (socket) (listen-to room socket)) port
           (append options
                   (list :name "chat" :on-close (lambda (socket) (say-farewell room socket))
                         :await-input t :output-timeout 60 :input-timeout 60
                         :external-format `(:utf-8 :line-limit ,+line-limit+
                                                   :replacement #\?))))))

(defun run (&key (port 7008))
  "Open a room on PORT of this machine until the user interrupts."
  (port-example/run:until-interrupted (start port :host (port-example/run:loopback-hosts))
                                      "socat - TCP:localhost:~D" port))
