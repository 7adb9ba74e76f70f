;;;; talk - conversations whose octets say which connection they belong to.
;;;;
;;;; A client sends its number, 4 octets, and then pieces; the server sends each octet back. Octet N
;;;; of a conversation is a function of its number and N, so both sides see at once when one comes
;;;; from elsewhere.

(in-package :port/stress)

(defvar *last-number* (make-counter))

(defun new-number ()
  (logand #xFFFFFFFF (1+ (sb-ext:atomic-incf (counter-value *last-number*)))))

(declaim (inline tagged))
(defun tagged (number position)
  "Octet POSITION of conversation NUMBER."
  (declare (type (unsigned-byte 32) number) (type (unsigned-byte 31) position))
  (logand 255 (ash (logand #xFFFFFFFF (* (logxor number #x9E3779B9) (+ position 12345))) -11)))

(defun octets (count)
  (make-array count :element-type '(unsigned-byte 8)))

(defun fill-tagged (octets number position)
  (declare (type (simple-array (unsigned-byte 8) (*)) octets))
  (dotimes (index (length octets) octets)
    (setf (aref octets index) (tagged number (+ position index)))))

(defun check-tagged (octets count number position side)
  "Note it if one of the first COUNT of OCTETS is not of conversation NUMBER."
  (declare (type (simple-array (unsigned-byte 8) (*)) octets))
  (note :octets count)
  (dotimes (index count t)
    (unless (= (aref octets index) (tagged number (+ position index)))
      (note :crossed)
      (surprise "~A: octet ~D of conversation ~D is another's" side (+ position index) number)
      (return nil))))

(defun read-number (socket)
  "The number that the conversation begins with, or NIL where it ends before."
  (let ((octets (octets 4)))
    (when (= 4 (read-sequence octets socket))
      (loop with number = 0
            for octet across octets
            do (setf number (logior (ash number 8) octet))
            finally (return number)))))

(defun write-number (number socket)
  (loop for shift from 24 downto 0 by 8
        do (write-byte (logand 255 (ash number (- shift))) socket)))

(defun answer (socket)
  "The server's side: send back what comes until the client ends."
  (let ((number (read-number socket)) (room (octets 4096)) (position 0))
    (when number
      (loop for count = (read-some socket room)
            until (zerop count)
            do (check-tagged room count number position "server")
               (incf position count)
               (write-sequence room socket :end count)
               (finish-output socket)))))

(defun converse (socket state pieces)
  "The client's side: PIECES pieces of random length there and back."
  (let ((number (new-number)) (position 0))
    (write-number number socket)
    (loop repeat pieces
          do (let* ((sent (fill-tagged (octets (1+ (random 3000 state))) number position))
                    (received (octets (length sent))))
               (write-sequence sent socket)
               (finish-output socket)
               (unless (= (length sent) (read-sequence received socket))
                 (return nil))
               (unless (check-tagged received (length sent) number position "client")
                 (return nil))
               (incf position (length sent)))
          finally (return t))))
