;;;; tls-context - whom sessions of TLS trust, and who they are.
;;;;
;;;; A context keeps the plan that it was made by, as functions that change what the library has for
;;;; it: so it can be made anew, when its files have changed and in the process of a saved image.
;;;; Invariant: one that cannot be made as it was asked for is not made, and what was there stays.

(in-package :port)

(defstruct (tls-context (:copier nil)
                        (:constructor new-tls-context (plan certificate trust verify)))
  "Whom sessions of TLS trust, and who they are: what MAKE-TLS-CONTEXT returns. CLOSE closes it, as
being garbage does; sessions that were started with it go on."
  (plan nil :type list :read-only t)    ; functions of a handle that make it what it is
  (certificate nil :read-only t)        ; as they were given
  (trust nil :read-only t)
  (verify t :type symbol :read-only t)
  (handle 0 :type (signed-byte 64))     ; in the library; 0: none yet, below 0: closed
  (image nil)                           ; the *IMAGE* that HANDLE belongs to
  (begun 0 :type (unsigned-byte 64))    ; how often to read it anew was begun
  (taken 0 :type (unsigned-byte 64)))   ; which of these it is by; with *CONTEXTS-LOCK*

(document-functions '((tls-context-p "Return true if OBJECT is a TLS-CONTEXT.")))

(defun check-identity (context)
  "Signal a USAGE-ERROR unless CONTEXT is open and has a certificate, as that of a server has to."
  (unless (tls-context-certificate context)
    (fail-argument :tls context '(and tls-context (satisfies tls-context-certificate))
                   "a context with a certificate"))
  (context-handle context))

(defvar *image* (list nil)
  "Another object in each process that an image is started in.")

(%defglobal *contexts* '())             ; conses of a weak pointer to one and its handle
(%defglobal *contexts-lock* (%make-lock))

(defun renew-image ()
  (setf *image* (list nil)
        *contexts* '()))

(%at-image-start 'renew-image)

(defmethod print-object ((context tls-context) stream)
  (print-plainly context stream
                 (plain-format "~@[certificate: ~A ~]trust: ~A~:[~; (closed)~]"
                               (tls-context-certificate context)
                               (tls-context-trust context)
                               (minusp (tls-context-handle context)))))

(defun context-problem (handle)
  (text-from (pointer cap) (lport-tls-context-problem handle pointer cap)))

(defun fail-context (handle status subject)
  "Signal what STATUS says of HANDLE, a context of the library, that SUBJECT, a text, is to be used
for."
  (fail status :tls :message "cannot use ~A: ~A"
                    :arguments (list subject (if (tls-status-p status)
                                                 (context-problem handle)
                                                 (status-text status)))))

(defmacro planned ((handle subject) call)
  "A function that makes CALL with HANDLE, and signals what it says of SUBJECT, a text."
  (let ((status (gensym "STATUS")))
    `(lambda (,handle)
       (let ((,status ,call))
         (when (minusp ,status)
           (fail-context ,handle ,status ,subject))))))

(defun file-argument (file expected)
  "The name that the system has for FILE, absolute."
  (or (and (typep file '(or pathname string)) (native-file-name file))
      (fail-argument :tls file '(or pathname string) expected)))

(defun plan-trust (source)
  "The function that makes a context trust SOURCE: :SYSTEM, or a file or a directory."
  (if (eq source :system)
      (planned (handle "what this system trusts")
        (lport-tls-context-trust handle +lport-tls-system+ (null-pointer) 0))
      (let* ((name (file-argument source "a file or a directory to trust, or :SYSTEM"))
             (kind (if (uiop:directory-exists-p (uiop:parse-native-namestring name))
                       +lport-tls-directory+
                       +lport-tls-file+)))
        (planned (handle name)
          (with-text (pointer length name)
            (lport-tls-context-trust handle kind pointer length))))))

(defun plan-revoked (file)
  "The function that gives a context the lists in FILE."
  (let ((name (file-argument file "a file of certificate revocation lists")))
    (planned (handle name)
      (with-text (pointer length name)
        (lport-tls-context-revoked handle pointer length)))))

(defun given-passphrase (passphrase)
  "The text that PASSPHRASE is, or that it returns."
  (let ((text (or (if (functionp passphrase) (funcall passphrase) passphrase) "")))
    (unless (and (stringp text) (<= (length (utf8-octets text)) +lport-tls-passphrase-max+))
      ;; What is wrong with it can be said without it: reports are logged.
      (fail-as 'usage-error :tls :invalid
               :message "expected a passphrase, a string of at most ~D octets, or a function that ~
                         returns one"
               :arguments (list +lport-tls-passphrase-max+)))
    text))

(defun plan-identity (certificate key passphrase)
  (let ((chain-name (file-argument certificate "a file with a certificate"))
        (key-name (file-argument key "a file with a private key")))
    (planned (handle (if (string= chain-name key-name)
                         chain-name
                         (plain-format "~A with ~A" chain-name key-name)))
      (let ((given (given-passphrase passphrase)))
        (with-text (chain chain-length chain-name)
          (with-text (key key-length key-name)
            (with-text (text length given)
              (lport-tls-context-identity handle chain chain-length key key-length
                                          text length))))))))

(defparameter *tls-verify*
  `((nil . ,+lport-tls-verify-nobody+) (t . ,+lport-tls-verify-server+)
    (:given . ,+lport-tls-verify-given+) (:required . ,+lport-tls-verify+)))

(defun plan-verify (verify)
  (let ((row (assoc verify *tls-verify*)))
    (unless row
      (fail-argument :tls verify `(member ,@(mapcar #'car *tls-verify*))
                     "T, NIL, :GIVEN or :REQUIRED for VERIFY"))
    (planned (handle "this VERIFY")
      (lport-tls-context-verify handle (cdr row)))))

(defun plan-resume (resume)
  (check-argument :tls resume 'boolean "T or NIL for RESUME")
  (planned (handle "this RESUME")
    (lport-tls-context-resume handle (if resume 1 0))))

(defun plan-offer (other)
  "The function that makes a context show the certificate of OTHER by name, until that is closed."
  (check-argument :tls other 'tls-context "a TLS-CONTEXT")
  (check-identity other)
  (planned (handle "this BY-NAME")
    (offer-unless-closed handle other)))

(defun offer-unless-closed (handle other)
  "What the library says when OTHER is offered to HANDLE; 0 where OTHER is closed, which handshakes
leave out, too: who withdraws one certificate wants the others renewed all the same."
  (let* ((offered (open-context-handle other))
         (status (if offered (lport-tls-context-offer handle offered) 0)))
    (if (= (lport-status-kind status) +lport-closed+)
        0
        status)))

(deftype protocol-name ()
  '(satisfies protocol-name-p))

(defun protocol-name-p (object)
  (and (stringp object)
       (plusp (length object))
       (every (lambda (character) (and (char<= #\! character #\~) (char/= character #\,)))
              object)))

(defun plan-protocols (protocols)
  (check-argument :tls protocols 'proper-list "a list of names of protocols")
  (dolist (name protocols)
    (check-argument :tls name 'protocol-name "the name of a protocol, such as \"h2\""))
  (let ((text (plain-format "~{~A~^,~}" protocols)))
    (check-argument :tls (length text) '(integer 0 254) "at most 254 octets of names of protocols")
    (planned (handle text)
      (with-text (pointer length text)
        (lport-tls-context-protocols handle pointer length)))))

(defun plan-versions (versions)
  (flet ((minor (version)
           (ecase version (:tls-1.2 2) (:tls-1.3 3))))
    (check-argument :tls versions '(cons (member :tls-1.2 :tls-1.3)
                                    (or null (cons (eql :tls-1.3) null)))
                    "a list of :TLS-1.2, :TLS-1.3 or both, in this order")
    (planned (handle "these versions")
      (lport-tls-context-versions handle (minor (first versions))
                                  (minor (first (last versions)))))))

(defun make-tls-context (&rest options &key certificate (key certificate) passphrase
                                         (trust :system) (verify t) revoked protocols
                                         (versions '(:tls-1.2 :tls-1.3)) (resume t) by-name
                         &allow-other-keys)
  "Return a TLS-CONTEXT, for OPEN-TLS-SOCKET, START-TLS and SERVE, at clients and servers, as often
as one likes. Files are read here.
CERTIFICATE: the file, PEM, of the certificate to show, and of those that lead from it to one that
the other side trusts; a server needs one. KEY: the file of its private key, PEM; if nothing is said
it is in that of the CERTIFICATE. PASSPHRASE: what opens the KEY, a string, which the context keeps,
or a function without arguments that returns it whenever the files are read; NIL: it is not locked.
TRUST: whose certificates are good, and by whom others have to be certified: :SYSTEM, the
authorities that this machine trusts; a file of certificates, PEM; a directory of them, as
openssl-rehash(1) makes it; or a list of these, which may be empty. VERIFY: T, a client verifies its
server, and a server asks no client for a certificate; :GIVEN, a server asks, and the certificate of
a client that shows one has to be good; :REQUIRED, and it has to show one; NIL: nobody is verified,
so that anybody in between can read and change all that is said. REVOKED: a file of certificate
revocation lists, PEM, or a list of such files: no certificate that is in one of them is good, and
no other either, once there is such a file, unless its issuer, and that of each above it, has a list
there that is not past its next update; then trust goes on up to one in TRUST that certifies itself.
Where nobody is verified, see VERIFY, the lists are not looked at.
PROTOCOLS: names of those above TLS that are spoken, the best first, as (\"h2\" \"http/1.1\"); see
TLS-INFO for the one that was agreed on. VERSIONS: a list of :TLS-1.2 and :TLS-1.3. RESUME: T, a
client that comes back within the hour goes on, in TLS 1.3, with what it has agreed on with this
server before, where that takes part and verifies no clients: the handshake is several times cheaper
and shows no certificate; NIL: each handshake is a whole one.
BY-NAME: a list of other contexts with certificates, 64 at the most: where a client asks for a name
a server shows that of the first which is for it, else its own; one that has been closed it shows no
more. Nothing else is taken of them.
Conditions: TLS-ERROR, for a file in which something else is, or that is no regular file, as a pipe
is none, from which nothing could be read again; NETWORK for one that cannot be read;
NOT-SUPPORTED where OpenSSL 3 (libssl.so.3), which does this work, is not to be had; USAGE-ERROR.
Source: SSL_CTX_new(3ssl), RFC 5280 5, RFC 7301, RFC 8446 2.2."
  (check-own-keywords 'make-tls-context :tls options)
  (let* ((sources (if (listp trust) trust (list trust)))
         (lists (if (listp revoked) revoked (list revoked)))
         (context (new-tls-context
                   (append (mapcar #'plan-trust (check-argument :tls sources 'proper-list
                                                                "a list of what to trust"))
                           (when (or certificate key passphrase)
                             (list (plan-identity certificate key passphrase)))
                           (mapcar #'plan-revoked (check-argument :tls lists 'proper-list
                                                                  "a list of files"))
                           (list (plan-verify verify)
                                 (plan-resume resume)
                                 (plan-protocols protocols)
                                 (plan-versions versions))
                           (mapcar #'plan-offer (check-argument :tls by-name 'proper-list
                                                                "a list of contexts")))
                   certificate trust verify)))
    (context-handle context)
    context))

(note-keywords 'make-tls-context)

(defun call-with-planned (function context)
  "Call FUNCTION with what CONTEXT is by its plan, a new handle, which is closed unless FUNCTION
returns true; return what FUNCTION does. FUNCTION, a short one, runs with interrupts deferred."
  (declare (type function function))
  (let ((kept nil))
    (with-waiting (handle (lport-tls-context-open))
        (progn
          (when (minusp handle)
            (fail handle :tls :message "TLS needs OpenSSL 3, its libssl.so.3: ~A"
                              :arguments (list (status-text handle))))
          (dolist (step (tls-context-plan context))
            (funcall (the function step) handle))
          (call-deferred (setf kept (funcall function handle))))
      (unless (or kept (minusp handle))
        (lport-tls-context-close handle)))))

(defun register-context (context handle)
  "Enter CONTEXT, which is around HANDLE; close what the library has for those that have become
garbage since another was entered. What was closed before is closed once more, which does nothing."
  (%with-lock (*contexts-lock*)
    (dolist (entry (shiftf *contexts* (list (cons (%weak-pointer context) handle))))
      (if (%weak-pointer-value (car entry))
          (push entry *contexts*)
          (lport-tls-context-close (cdr entry))))))

(defun renew-context (context)
  "Make what the library has for CONTEXT."
  (call-with-planned (lambda (handle)
                       (setf (tls-context-handle context) handle
                             (tls-context-image context) *image*)
                       (register-context context handle)
                       t)
                     context))

(defun open-context-handle (context)
  "What the library has for CONTEXT, made anew in the process of an image that was saved; NIL: it is
closed."
  (unless (minusp (tls-context-handle context))
    (unless (eq (tls-context-image context) *image*)
      (renew-context context))
    (let ((handle (tls-context-handle context)))
      (unless (minusp handle)
        handle))))

(defun context-handle (context)
  "As OPEN-CONTEXT-HANDLE, of one that has to be open."
  (or (open-context-handle context)
      (fail-as 'usage-error :tls :closed :message "expected a context that is open, got ~A"
                                         :arguments (list context))))

(defvar *client-context* nil
  "The context of clients that give none, once there has been one.")

(defun client-context ()
  "The one context of all clients that give none: of threads that make it at a time, the first's."
  (or *client-context*
      (let ((made (make-tls-context)))
        (%with-lock (*contexts-lock*)
          (or *client-context*
              (setf *client-context* made))))))

(defun begin-turn (context)
  "The number of a reading anew of CONTEXT, which begins."
  (1+ (%add-atomically (tls-context-begun context) 1)))

(defun take-turn (context handle by turn)
  "Make HANDLE, which the library has for CONTEXT, what BY is, as TURN has read it: true if that is
so. A turn that began later and is done has newer files."
  (%with-lock (*contexts-lock*)
    (when (and (> turn (tls-context-taken context))
               (not (minusp (lport-tls-context-replace handle by))))
      (setf (tls-context-taken context) turn))))

(defun reload-tls-context (&optional (context (client-context)))
  "Read the files of CONTEXT, a TLS-CONTEXT, anew, as after a certificate was renewed, and return
CONTEXT; it is that of the clients which give none if nothing is said. Handshakes that begin from
now on, those of running services too, are by what is in them. Who is connected goes on with what
was agreed on. Where a file will not do nothing is changed. Of several calls at a time that which
began last and had no failure holds. Conditions: those of MAKE-TLS-CONTEXT."
  (check-argument :tls context 'tls-context "a TLS-CONTEXT")
  (let ((old (context-handle context))
        (turn (begin-turn context)))
    (unless (call-with-planned (lambda (handle) (take-turn context old handle turn))
                               context)
      (context-handle context)))        ; it was closed meanwhile, unless it is newer already
  context)

(defmethod close ((context tls-context) &key abort)
  "Close CONTEXT: true the first time. Sessions that were started with it go on."
  (declare (ignore abort))
  (let ((handle (shiftf (tls-context-handle context) -1)))
    (unless (minusp handle)
      (when (eq (tls-context-image context) *image*)
        (lport-tls-context-close handle))
      t)))
