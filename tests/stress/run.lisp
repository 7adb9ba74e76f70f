;;;; run - `make stress`: $SECONDS of it, 60 unless told otherwise; ends with 0 if all is well.

(push (truename (merge-pathnames "../../" (uiop:pathname-directory-pathname *load-truename*)))
      asdf:*central-registry*)
(let ((*standard-output* (make-broadcast-stream)) (*error-output* (make-broadcast-stream)))
  (asdf:load-system "port/stress"))

(defun late-timeout-p (condition)
  "True if CONDITION is that of a WITH-TIMEOUT that this thread, a victim, was thrown out of: SBCL
runs what a timer has begun to ask for after the form has been left, too."
  (and (typep condition 'sb-ext:timeout)
       (string= "victim" (sb-thread:thread-name sb-thread:*current-thread*))))

(defun end-badly (condition hook)
  "What no thread handles ends the run, and is said."
  (declare (ignore hook))
  (when (late-timeout-p condition)
    (uiop:symbol-call :port/stress :note :timed-out-too-late)
    (sb-thread:abort-thread))
  (format sb-sys:*stderr* "~&stress: in ~A: ~A~%" (sb-thread:thread-name sb-thread:*current-thread*)
          condition)
  (sb-debug:print-backtrace :stream sb-sys:*stderr* :count 60)
  (finish-output sb-sys:*stderr*)
  (sb-ext:exit :code 1 :abort t))

(sb-ext:disable-debugger)
(setf sb-ext:*invoke-debugger-hook* #'end-badly)
;; SBCL warns of each timer that finds its thread dead, which is what happens to victims.
(setf *error-output* (make-broadcast-stream))
(let ((seconds (parse-integer (or (uiop:getenvp "STRESS_SECONDS") "60"))))
  (uiop:quit (if (uiop:symbol-call :port/stress :run :seconds seconds) 0 1)))
