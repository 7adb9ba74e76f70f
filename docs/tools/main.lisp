;;;; main - what `make docs` writes and what the checks look at.

(in-package :port-docs)

(defun generated-files ()
  "A list of (name . text) of every generated file of the checkout."
  (append (list (cons "docs/reference.md" (reference-page)))
          (manual-pages)
          (pictures)))

(defun file-text (name)
  "The text of the file NAME of the checkout; NIL if there is none."
  (let ((file (probe-file (checkout-file name))))
    (and file (uiop:read-file-string file :external-format uiop:*utf-8-external-format*))))

(defun generated-names-on-disk ()
  "The names of the files that stand where generated ones do."
  (loop for (directory pattern) in '(("docs/man/" "*.*") ("docs/pictures/" "*.svg"))
        append (loop for file in (uiop:directory-files (checkout-file directory) pattern)
                     collect (format nil "~A~A" directory (file-namestring file)))))

(defun stale-files ()
  "The names of the generated files that are missing, are not what `make docs` would write, or
should not be there."
  (let ((files (generated-files)))
    (append (loop for (name . text) in files
                  unless (equal text (file-text name))
                    collect name)
            (set-difference (generated-names-on-disk) (mapcar #'car files) :test #'string=))))

(defun write-text (name text)
  (with-open-file (out (ensure-directories-exist (checkout-file name))
                       :direction :output :if-exists :supersede
                       :external-format uiop:*utf-8-external-format*)
    (write-string text out)))

(defun write-files ()
  "Write every generated file that is stale, and remove what should not be there; the names."
  (let ((files (generated-files)))
    (dolist (name (stale-files))
      (let ((text (cdr (assoc name files :test #'string=))))
        (if text
            (write-text name text)
            (delete-file (checkout-file name))))
      (format t "~A~%" name))))

(defun check ()
  "Print what is undocumented, stale or leads nowhere; true if nothing is."
  (let ((undocumented (undocumented)) (stale (stale-files))
        (broken (broken-links)) (lost (lost-chapters)))
    (format t "~{~A: exported, but without a docstring or a theme in lisp/package.lisp~%~}"
            undocumented)
    (format t "~{~A is stale: run `make docs`~%~}" stale)
    (format t "~:{~A:~D: no ~A~@[#~A~]~%~}" broken)
    (format t "~{~A is not in the contents of the guide, or does not lead on to the next there~%~}"
            lost)
    (not (or undocumented stale broken lost))))
