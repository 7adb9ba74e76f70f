;;;; browser - a real browser, Chromium, and the HTTP example. It is too large to be installed for
;;;; every run: `make test-browser' installs it; elsewhere the test counts as skipped without it.

(in-package :port/test)

(define-suite browser "Chromium.")

(defparameter *page* "<!doctype html>
<html><head><link rel=stylesheet href=style.css></head>
<body><p id=out>nothing</p><img id=picture src=picture.svg><script src=script.js></script></body>
</html>")

(defparameter *script* "
async function run() {
    const many = [];
    for (let i = 0; i < 30; i++)
        many.push(fetch('number.json?' + i).then(answer => answer.json()));
    const sum = (await Promise.all(many)).reduce((a, b) => a + b);
    const head = await fetch('grüße.txt', {method: 'HEAD'});
    const none = await fetch('nothing');
    const post = await fetch('number.json', {method: 'POST', body: 'x'.repeat(1000)});
    const sub = await fetch('sub');
    const long = await (await fetch('long.txt')).text();
    const out = document.getElementById('out');
    out.textContent = ['sum', sum, 'head', head.status, head.headers.get('content-length'),
        'none', none.status, 'post', post.status, 'sub', new URL(sub.url).pathname,
        'long', long.length, 'style', getComputedStyle(out).textIndent,
        'picture', document.getElementById('picture').naturalWidth].join(' ');
}
window.onload = run;
"
  "Requests at once and one after the other, redirected and refused; what the page shows then.")

(defun page-directory (root)
  "Put into the directory ROOT what the page needs."
  (loop for (name text)
          in `(("page.html" ,*page*) ("script.js" ,*script*) ("number.json" "7")
               ("style.css" "p { text-indent: 17px }")
               ("picture.svg" "<svg xmlns='http://www.w3.org/2000/svg' width='20' height='9'/>")
               ("long.txt" ,(make-string 3000000 :initial-element #\x)))
        do (with-open-file (out (merge-pathnames name root) :direction :output
                                                            :external-format :utf-8)
             (write-string text out))))

(defun dom-of (url directory)
  "The page at URL as Chromium, with DIRECTORY for its own files, has it once its script has run."
  (output-of "env" "-u" "LD_PRELOAD" "timeout" "-k" "5" "90" "chromium"
             "--headless" "--no-sandbox" "--disable-gpu" "--disable-quic" "--no-first-run"
             "--disable-background-networking" "--disable-component-update" "--disable-sync"
             (format nil "--user-data-dir=~A" directory)
             "--virtual-time-budget=10000" "--dump-dom" url))

(define-test browser.page (:limit 120 :weather nil)
  "A page with its style, its picture, and a script that makes requests of its own."
  (if (not (installed-p "chromium"))
      (skip "chromium is not installed; make test-browser does that")
      (multiple-value-bind (root parent) (web-directory)
        (page-directory root)
        (unwind-protect
             (let* ((errors '())
                    (dom (with-example (number port-example/http:start
                                               (port-example/http:files-of root)
                                               :on-error (lambda (condition socket)
                                                           (declare (ignore socket))
                                                           (push condition errors)))
                           (dom-of (format nil "http://127.0.0.1:~D/page.html" number)
                                   (uiop:native-namestring (merge-pathnames "browser/" parent))))))
               (is (search (format nil "sum 210 head 200 5 none 404 post 405 sub /sub/ ~
                                        long 3000000 style 17px picture 20<")
                           dom)
                   "~A" dom)
               ;; a browser that ends may reset what it has open
               (is (every (lambda (condition) (typep condition 'connection-lost)) errors)
                   "~A" errors))
          (uiop:delete-directory-tree parent :validate t)))))
