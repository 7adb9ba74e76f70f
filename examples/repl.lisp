;;;; repl - what `make repl` says when it starts.

(in-package :cl-user)

(format t "~&port ~A is loaded. To begin with:

  (defparameter *server* (port:open-socket-server))
  (defparameter *number* (nth-value 1 (port:socket-server-host/port *server*)))
  (defparameter *client* (port:open-socket \"localhost\" *number*))
  (defparameter *peer* (port:socket-accept *server*))
  (format *client* \"hello~~%\") (finish-output *client*)
  (read-line *peer*)

(describe 'port:open-socket) and (apropos \"\" :port t) tell the rest; README.md has a longer
session.~2%"
        (asdf:component-version (asdf:find-system "port")))
