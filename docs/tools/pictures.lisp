;;;; pictures - the drawings of the guide: docs/pictures/*.sexp to SVG, for light and dark screens.
;;;;
;;;; A source is one form. (:sequence LANES ROW...) draws parties side by side and what happens
;;;; between them from top to bottom; a row is an event or (:row EVENT...), events at one height:
;;;;
;;;;     (:send FROM TO "label" &optional tone)    a message between lanes, which are counted from 0
;;;;     (:note LANE "text" &optional tone)        what happens in a lane; code begins with (
;;;;     (:queue LANE ("name"...) SIZE)            a queue of SIZE places beside a lane
;;;;     (:text "text")                            a word about all
;;;;
;;;; (:timeline (END STEP UNIT) ROW...) draws spans of time, a row each:
;;;;
;;;;     (:span "label" START END "text" &optional tone)
;;;;     (:text "text")
;;;;
;;;; Tones are :plain, :good and :bad.

(in-package :port-docs)

(defparameter *picture-width* 720)
(defparameter *row-height* 40)
(defparameter *picture-style* "
text { font: 14px system-ui, sans-serif; fill: #1f2328; }
text.code { font: 13px ui-monospace, 'DejaVu Sans Mono', monospace; }
text.head { font-weight: 600; }
text.aside { font-style: italic; fill: #59636e; }
.lane, .tick { stroke: #b1bac4; stroke-width: 1; }
.lane { stroke-dasharray: 4 4; }
.box { fill: #f6f8fa; stroke: #8c959f; }
.good { fill: #dafbe1; stroke: #2da44e; }
.bad { fill: #ffebe9; stroke: #d1242f; }
.empty { fill: none; stroke: #8c959f; stroke-dasharray: 3 3; }
.arrow { stroke: #0969da; stroke-width: 1.6; fill: none; }
.arrow.bad { stroke: #d1242f; }
.tip { fill: #0969da; }
.tip.bad { fill: #d1242f; stroke: none; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  text.aside { fill: #9198a1; }
  .lane, .tick { stroke: #3d444d; }
  .box { fill: #212830; stroke: #656c76; }
  .good { fill: #12361f; stroke: #2ea043; }
  .bad { fill: #4b1113; stroke: #f85149; }
  .empty { stroke: #656c76; }
  .arrow { stroke: #4493f8; } .tip { fill: #4493f8; }
  .arrow.bad { stroke: #f85149; } .tip.bad { fill: #f85149; }
}")

;;; Elements

(defun xml-text (text)
  (with-output-to-string (out)
    (loop for char across text
          do (case char
               (#\& (write-string "&amp;" out))
               (#\< (write-string "&lt;" out))
               (#\> (write-string "&gt;" out))
               (t (write-char char out))))))

(defun code-p (text)
  (prefix-p "(" text))

(defun text-width (text)
  "About how wide TEXT is drawn."
  (ceiling (* (length text) (if (code-p text) 7.9 7.4))))

(defun draw-text (out x y text &key (anchor "middle") class)
  (format out "<text x=\"~D\" y=\"~D\" text-anchor=\"~A\"~@[ class=\"~A\"~]>~A</text>~%"
          x y anchor (or class (and (code-p text) "code")) (xml-text text)))

(defun draw-box (out x y width height &key (class "box"))
  (format out "<rect x=\"~D\" y=\"~D\" width=\"~D\" height=\"~D\" rx=\"5\" class=\"~A\"/>~%"
          x y width height class))

(defun draw-line (out x1 y1 x2 y2 class)
  (format out "<line x1=\"~D\" y1=\"~D\" x2=\"~D\" y2=\"~D\" class=\"~A\"/>~%" x1 y1 x2 y2 class))

(defun draw-tip (out x y direction class)
  "The tip of an arrow at X, Y; DIRECTION is 1 to the right, -1 to the left."
  (let ((back (- x (* 9 direction))))
    (format out "<path d=\"M~D ~D L~D ~D L~D ~D Z\" class=\"tip~@[ ~A~]\"/>~%"
            x y back (- y 5) back (+ y 5) class)))

(defun tone-class (tone)
  (ecase tone
    ((nil :plain) "box")
    (:good "good")
    (:bad "bad")))

(defun draw-note (out x y text tone)
  (let ((width (+ 20 (text-width text))))
    (draw-box out (- x (floor width 2)) (- y 14) width 28 :class (tone-class tone))
    (draw-text out x (+ y 5) text)))

;;; Sequences

(defun lane-x (lane count)
  (floor (* *picture-width* (1+ (* 2 lane))) (* 2 count)))

(defun draw-send (out from to label tone y)
  (let ((direction (if (< from to) 1 -1)) (bad (and (eq tone :bad) "bad")))
    (draw-line out (+ from (* 4 direction)) y (- to (* 8 direction)) y
               (if bad "arrow bad" "arrow"))
    (draw-tip out (- to (* 2 direction)) y direction bad)
    (draw-text out (floor (+ from to) 2) (- y 7) label)))

(defun draw-queue (out x y names size)
  (let ((left (- x (floor (* 30 size) 2))))
    (dotimes (place size)
      (let ((name (nth place names)))
        (draw-box out (+ left (* 30 place)) (- y 13) 26 26 :class (if name "good" "empty"))
        (when name
          (draw-text out (+ left 13 (* 30 place)) (+ y 5) name))))))

(defun draw-event (out event y lanes)
  (flet ((x (lane) (lane-x lane lanes)))
    (destructuring-bind (kind . rest) event
      (ecase kind
        (:send (destructuring-bind (from to label &optional tone) rest
                 (draw-send out (x from) (x to) label tone y)))
        (:note (destructuring-bind (lane text &optional tone) rest
                 (draw-note out (x lane) y text tone)))
        (:queue (destructuring-bind (lane names size) rest
                  (draw-queue out (x lane) y names size)))
        (:text (draw-text out (floor *picture-width* 2) (+ y 5) (first rest) :class "aside"))))))

(defun draw-sequence (out lanes rows)
  "Draw it; the height."
  (let* ((count (length lanes)) (height (+ 70 (* *row-height* (length rows)))))
    (loop for lane from 0
          for name in lanes
          for x = (lane-x lane count)
          do (draw-line out x 46 x (- height 10) "lane")
             (draw-text out x 30 name :class "head"))
    (loop for row in rows
          for y from 74 by *row-height*
          do (dolist (event (if (eq (first row) :row) (rest row) (list row)))
               (draw-event out event y count)))
    height))

;;; Timelines

(defparameter *label-width* 150)

(defun draw-scale (out end step unit height)
  "Draw the scale; a function from time to place."
  (flet ((x (time)
           (+ *label-width*
              (floor (* time (- *picture-width* *label-width* 40)) end))))
    (loop for time from 0 to end by step
          do (draw-line out (x time) 40 (x time) (- height 10) "tick")
             (draw-text out (x time) 28 (format nil "~D~:[~; ~A~]" time (zerop time) unit)
                        :class "aside"))
    #'x))

(defun draw-span (out x y label start end text tone)
  (draw-text out 12 (+ y 5) label :anchor "start")
  (let* ((left (funcall x start)) (width (- (funcall x end) left))
         (inside-p (< (+ 16 (text-width text)) width)))
    (draw-box out left (- y 13) width 26 :class (tone-class tone))
    (if inside-p
        (draw-text out (+ left (floor width 2)) (+ y 5) text)
        (draw-text out (+ left width 8) (+ y 5) text :anchor "start"))))

(defun draw-timeline (out scale rows)
  "Draw it; the height."
  (destructuring-bind (end step unit) scale
    (let* ((height (+ 60 (* *row-height* (length rows))))
           (x (draw-scale out end step unit height)))
      (loop for (kind . rest) in rows
            for y from 66 by *row-height*
            do (ecase kind
                 (:span (destructuring-bind (label start end text &optional tone) rest
                          (draw-span out x y label start end text tone)))
                 (:text (draw-text out 12 (+ y 5) (first rest) :anchor "start" :class "aside"))))
      height)))

;;; Files

(defun picture-text (source)
  "The SVG for SOURCE, a form as above."
  (destructuring-bind (kind head . rows) source
    (let* ((height 0)
           (body (with-output-to-string (out)
                   (setf height (ecase kind
                                  (:sequence (draw-sequence out head rows))
                                  (:timeline (draw-timeline out head rows)))))))
      (format nil "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ~D ~D\" ~
width=\"~D\" height=\"~D\">~%<style>~A</style>~%~A</svg>~%"
              *picture-width* height *picture-width* height *picture-style* body))))

(defun pictures ()
  "A list of (name . text) of every picture."
  (loop for file in (uiop:directory-files (checkout-file "docs/pictures/") "*.sexp")
        collect (cons (format nil "docs/pictures/~A.svg" (pathname-name file))
                      (picture-text (uiop:read-file-form file)))))
