;;;; links - where the links of the documents lead: to a file of the checkout and, if they say so,
;;;; to a heading in it.

(in-package :port-docs)

(defun anchor (heading)
  "What a link calls HEADING, a text, by."
  (substitute #\- #\Space
              (remove-if-not (lambda (char) (or (alphanumericp char) (find char " -_")))
                             (string-downcase heading))))

(defun text-lines (document)
  "The lines of DOCUMENT, a list of (number . line), without those of its blocks of code."
  (let ((code nil))
    (loop for line in (file-lines document)
          for number from 1
          if (fence-p line)
            do (setf code (not code))
          else unless code
            collect (cons number line))))

(defun anchors (document)
  "The anchors of the headings of DOCUMENT."
  (loop for (nil . line) in (text-lines document)
        when (prefix-p "#" line)
          collect (anchor (string-left-trim "# " line))))

(defun links-in (line)
  "The targets of the links in LINE, in order."
  (loop for start = (search "](" line) then (search "](" line :start2 end)
        for end = (and start (position #\) line :start start))
        while end
        collect (subseq line (+ start 2) end)))

(defun links (document)
  "The links of DOCUMENT within the checkout: a list of (line-number file anchor), where the name
FILE is seen from the checkout and ANCHOR is NIL for the whole file."
  (loop for (number . line) in (text-lines document)
        append (loop for target in (links-in line)
                     for (file anchor) = (uiop:split-string target :separator "#")
                     unless (search "://" target)
                       collect (list number
                                     (if (string= file "")
                                         document
                                         (resolved-name file document))
                                     anchor))))

(defun resolved-name (file document)
  "The name of FILE, which DOCUMENT names, seen from the checkout."
  (let ((folders (butlast (uiop:split-string document :separator "/"))))
    (dolist (part (uiop:split-string file :separator "/") (format nil "~{~A~^/~}" folders))
      (setf folders (if (string= part "..")
                        (butlast folders)
                        (append folders (list part)))))))

(defun documents ()
  "The names of the documents of the checkout, seen from there."
  (loop for folder in '("" "docs/" "docs/guide/")
        append (loop for file in (uiop:directory-files (checkout-file folder) "*.md")
                     collect (format nil "~A~A" folder (file-namestring file)))))

(defun chapters-of-guide ()
  "The documents that are the chapters of the guide, in the order of its contents."
  (loop for (nil file) in (links "docs/guide.md")
        when (chapter-of-guide-p file)
          collect file))

(defun broken-link-p (link)
  (destructuring-bind (line file anchor) link
    (declare (ignore line))
    (or (null (probe-file (checkout-file file)))
        (and anchor (not (member anchor (anchors file) :test #'string=))))))

(defun broken-links ()
  "The links of all documents that lead nowhere: a list of (document line-number file anchor)."
  (loop for document in (documents)
        append (loop for link in (links document)
                     when (broken-link-p link)
                       collect (cons document link))))

(defun lost-chapters ()
  "The names of the chapters that the contents of the guide do not have, and of those whose last
link is not the next in the contents."
  (let ((chapters (chapters-of-guide)))
    (append (remove-if (lambda (document)
                         (or (not (chapter-of-guide-p document))
                             (member document chapters :test #'string=)))
                       (documents))
            (loop for (chapter next) on chapters
                  unless (or (null next)
                             (equal next (second (first (last (links chapter))))))
                    collect chapter))))
