(in-package :port-docs)
(defun pictures () '())
