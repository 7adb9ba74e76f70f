;;;; server-hunchentoot - what services are compared with: hunchentoot with one answer, in a Lisp of
;;;; its own. Prints its port and serves until it is killed.
;;;;
;;;; usage: sbcl --script server-hunchentoot.lisp hunchentoot | port/hunchentoot

(require :asdf)
(let ((*standard-output* (make-broadcast-stream)) (*error-output* (make-broadcast-stream)))
  (push (truename (merge-pathnames "../../" (uiop:pathname-directory-pathname *load-truename*)))
        asdf:*central-registry*)
  (handler-bind ((warning #'muffle-warning))
    (asdf:load-system (first (uiop:command-line-arguments)))))

(defvar *acceptor*
  (make-instance (uiop:find-symbol* '#:easy-acceptor '#:hunchentoot)
                 :address "127.0.0.1" :port 0
                 :access-log-destination nil :message-log-destination nil))
(setf (symbol-value (uiop:find-symbol* '#:*dispatch-table* '#:hunchentoot))
      (list (constantly (lambda ()
                          (funcall (fdefinition `(setf ,(uiop:find-symbol* '#:content-type*
                                                                           '#:hunchentoot)))
                                   "text/plain; charset=utf-8")
                          (format nil "hello, world~%")))))
(uiop:symbol-call '#:hunchentoot '#:start *acceptor*)
(format t "~D~%" (uiop:symbol-call '#:hunchentoot '#:acceptor-port *acceptor*))
(finish-output)
(loop (sleep 3600))
