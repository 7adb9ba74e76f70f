;;;; port - sockets for Common Lisp. (asdf:load-system "port") is all a user types: it builds the C
;;;; library when that is missing or older than its sources, see lisp/ffi/library.lisp.
;;;;
;;;; Files that a Lisp does not need are left out by the reader, not by :IF-FEATURE: in a serial row
;;;; ASDF counts such a file as a dependency still, and then does not compile what follows it again
;;;; when a file before it has changed.

#-(or sbcl ecl clisp)
(error "port does not run on ~A ~A yet, only on SBCL, ECL and CLISP. What is missing is a file lisp/impl/impl-LISP.lisp ~
        that defines for this Lisp what lisp/impl/impl-sbcl.lisp defines for SBCL."
       (lisp-implementation-type) (lisp-implementation-version))

#+(and sbcl (not 64-bit))
(error "port does not run on SBCL for ~A, only where fixnums have 62 bits: moments and counts are 64-bit integers."
       (machine-type))

(defsystem "port"
  :description "Sockets that behave: connected sockets are streams, failures are conditions that say
what happened, nothing hangs for ever and nothing is lost."
  :version (:read-file-form "version.sexp")
  :author "the port authors"
  :license "MIT"
  :depends-on ("cffi" "babel")
  ;; Functions are asked for their argument lists, which SBCL forgets where DEBUG is 0.
  #+sbcl :around-compile
  #+sbcl (lambda (compile)
           (let ((least (or (rest (assoc 'debug (sb-ext:restrict-compiler-policy))) 0)))
             (sb-ext:restrict-compiler-policy 'debug (max 1 least))
             (unwind-protect (funcall compile)
               (sb-ext:restrict-compiler-policy 'debug least))))
  :pathname "lisp/"
  :serial t
  :components ((:file "package")
               (:module "impl"
                :serial t
                :components (#+sbcl (:file "impl-sbcl")
                             #+ecl (:file "impl-ecl")
                             #+clisp (:file "impl-clisp")
                             #+(or ecl clisp) (:file "impl-standard")))
               (:module "ffi"
                :serial t
                :components ((:file "calling")
                             (:file "library")
                             (:file "bindings")))
               (:module "base"
                :serial t
                :components ((:file "printing")
                             (:file "conditions")
                             (:file "reports")
                             (:file "failures")
                             (:file "arguments")
                             (:file "restarts")
                             (:file "deadline")))
               (:module "address"
                :serial t
                :components ((:file "address")
                             (:file "servents")
                             (:file "designators")
                             (:file "endpoint")
                             (:file "prefix")
                             (:file "interface")
                             (:file "resolver")))
               (:module "channel"
                :serial t
                :components ((:file "channel")
                             (:file "blocking")
                             (:file "direction")
                             (:file "membership")))
               (:module "text"
                :serial t
                :components ((:file "text")
                             (:file "text-tables")
                             (:file "text-babel")))
               (:module "stream"
                :serial t
                :components ((:file "buffer")
                             (:file "input")
                             (:file "input-characters")
                             (:file "input-lines")
                             (:file "input-strings")
                             (:file "column")
                             (:file "output")
                             (:file "output-text")
                             (:file "output-posted")))
               (:module "socket"
                :serial t
                :components ((:file "registry")
                             (:file "socket")
                             (:file "closing")
                             (:file "option")
                             (:file "gray")
                             #+clisp (:file "gray-clisp")
                             (:file "octets")
                             (:file "relay")))
               (:module "kinds"
                :serial t
                :components ((:file "ends")
                             (:file "dial")
                             (:file "client")
                             (:file "pending")
                             (:file "tls-context")
                             (:file "tls")
                             (:file "proxy")
                             (:file "server")
                             (:file "message")
                             (:file "datagram")
                             (:file "arrival")
                             (:file "multicast")
                             (:file "batch")
                             (:file "local")
                             (:file "local-pass")
                             (:file "adopt")
                             (:file "detach")
                             (:file "info")))
               (:module "poller"
                :serial t
                :components ((:file "poller-timeouts")
                             (:file "poller")
                             (:file "poller-events")
                             (:file "poller-wait")
                             (:file "wait-for-input")))
               (:module "service"
                :serial t
                :components ((:file "service-clients")
                             (:file "service-posting")
                             (:file "service-threads")
                             (:file "service-listeners")
                             (:file "service")
                             (:file "service-given")))
               (:file "clocc")
               (:file "describe"))
  :in-order-to ((test-op (test-op "port/test"))))

(defsystem "port/usocket"
  :description "Programs that use usocket run on port, unchanged: load this before, or after, them."
  :depends-on ("port" "usocket")
  :pathname "lisp/usocket/"
  :serial t
  :components ((:file "conditions")
               (:file "addresses")
               (:file "sockets")
               (:file "options")
               (:file "waiting")
               (:file "backend")))

(defsystem "port/hunchentoot"
  :description "The web server hunchentoot on port, with its limits of time."
  :depends-on ("port/usocket" "hunchentoot")
  :pathname "lisp/usocket/"
  :components ((:file "hunchentoot")))

(defsystem "port/words"
  :description "The words of SBCL that tests, checks and tools use, on other Lisps."
  :depends-on ("port" (:feature :ecl (:require "sb-bsd-sockets")))
  :pathname "tests/words/"
  :serial t
  :components ((:file "names")
               #+ecl (:file "ecl")
               #+clisp (:file "clisp")
               (:file "rest")))

(defsystem "port/examples"
  :description "Small programs on port, and the session that `make demo` runs."
  :depends-on ("port" "bordeaux-threads")
  :pathname "examples/"
  :serial t
  :components ((:file "run")
               (:file "file-server")
               (:file "echo")
               (:file "chat")
               (:file "http")
               (:file "socks")
               (:file "dns")
               (:file "demo")))

(defsystem "port/docs"
  :description "Runs the examples of the documents and writes what is generated: `make docs`."
  :depends-on ("port" (:feature :sbcl (:require "sb-introspect")) (:feature (:not :sbcl) "port/words"))
  :pathname "docs/tools/"
  :serial t
  :components ((:file "package")
               (:file "examples")
               (:file "links")
               (:file "exports")
               (:file "reference")
               (:file "header")
               (:file "manual")
               (:file "pictures")
               (:file "main")))

(defsystem "port/conformance"
  :description "Checks that any library of connected streams can run on itself."
  :depends-on ((:feature (:not :sbcl) "port/words"))
  :pathname "tests/conformance/"
  :serial t
  :components ((:file "package")
               (:file "threads")
               (:file "transport")
               (:file "checks")
               (:file "run")))

(defsystem "port/test"
  :description "The tests of port from the Lisp side; `make test` runs them with those of C."
  :depends-on ("port" "port/examples" "port/conformance" "port/docs" "fiveam" "port/usocket"
               (:feature :sbcl "port/hunchentoot") (:feature :sbcl "drakma")
               (:feature :sbcl (:require "sb-bsd-sockets")))
  :pathname "tests/lisp/"
  :serial t
  :components ((:file "package")
               #+ecl (:file "impl/unfit-ecl")
               #+clisp (:file "impl/unfit-clisp")
               (:file "vectors")
               (:file "pairs")
               (:file "companion")
               (:module "base"
                :serial t
                :components ((:file "library")
                             (:file "conditions")
                             (:file "deadline")))
               (:module "address"
                :serial t
                :components ((:file "address")
                             (:file "endpoint")
                             (:file "prefix")
                             (:file "resolver")
                             (:file "interface")))
               (:module "channel"
                :serial t
                :components ((:file "direction")
                             (:file "patience")))
               (:module "stream"
                :serial t
                :components ((:file "stream")
                             (:file "text-errors")
                             (:file "columns")
                             (:file "encodings")
                             (:file "octets")
                             (:file "scripts")))
               (:module "kinds"
                :serial t
                :components ((:file "client")
                             (:file "pending")
                             (:file "server")
                             (:file "datagram")
                             (:file "message")
                             (:file "arrival")
                             (:file "multicast")
                             (:file "batch")
                             (:file "local")
                             (:file "local-pass")
                             (:file "adopt")
                             (:file "detach")
                             (:file "info")))
               (:module "socket"
                :serial t
                :components ((:file "closing")
                             (:file "option")
                             (:file "relay")))
               (:module "poller"
                :serial t
                :components ((:file "poller")
                             (:file "poller-once")
                             (:file "poller-timeouts")))
               (:module "service"
                :serial t
                :components ((:file "service")
                             (:file "service-threads")
                             (:file "service-listeners")
                             (:file "service-stop")
                             (:file "service-close")
                             (:file "service-given")
                             (:file "service-more")
                             (:file "service-post")
                             (:file "service-load")
                             (:file "proxy")))
               (:module "every-operation"
                :serial t
                :components ((:file "arguments")
                             (:file "threads")
                             (:file "blocking")
                             (:file "unwinding")
                             (:file "faults")))
               (:module "tls"
                :serial t
                :components ((:file "tls")
                             (:file "tls-names")
                             (:file "tls-refusals")
                             (:file "tls-held")
                             (:file "tls-resume")
                             (:file "service-tls")))
               (:module "usocket"
                :components ((:file "usocket")))
               (:file "clocc")
               (:file "describe")
               (:module "programs"
                :serial t
                :components ((:file "peers")
                             (:file "dns")
                             (:file "haproxy")
                             (:file "examples")
                             (:file "example-servers")
                             (:file "browser")
                             (:file "conformance")
                             (:file "tls")
                             #+sbcl (:file "hunchentoot")))
               (:module "docs"
                :serial t
                :components ((:file "documentation")
                             (:file "documents")))
               #+clisp (:file "impl/clisp")
               #+ecl (:file "impl/ecl"))
  :perform (test-op (operation system)
             (declare (ignore operation system))
             (unless (uiop:symbol-call :port/test :run-all)
               (error "A test of port failed; see above."))))

(defsystem "port/stress"
  :description "Port under signals, collections, throws and closes at random moments: `make stress`."
  :depends-on ("port" (:feature :sbcl (:require "sb-posix")))
  :pathname "tests/stress/"
  :serial t
  :components ((:file "package")
               (:file "counts")
               (:file "talk")
               (:file "places")
               (:file "roles")
               (:file "main")))

(defsystem "port/bench"
  :description "Workloads over sockets by port and by others, for comparison: `make bench`."
  :depends-on ("port" "usocket" "cl+ssl" (:feature :sbcl (:require "sb-bsd-sockets")))
  :pathname "tests/bench/"
  :serial t
  :components ((:file "package")
               (:file "machine")
               (:file "servers")
               (:file "peers")
               (:file "peer-port")
               (:file "peer-sbcl")
               (:file "peer-usocket")
               (:file "peer-cl+ssl")
               (:file "peer-programs")
               (:file "datagram")
               (:file "tls")
               (:file "workloads")
               (:file "measure")
               (:file "report")
               (:file "service")
               (:file "main")))
