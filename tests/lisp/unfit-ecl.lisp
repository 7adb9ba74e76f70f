;;;; unfit-ecl - which tests cannot hold on ECL, and why, and what the others have to know of it.

(in-package :port/test)

;;; Signalling a condition takes a hundred times as long, and the compiler goes by way of C.
(setf *slowness* 5)

;;; A process that was run leaves what its input and output were to the collector.
(setf *not-ours* (list* "/dev/null" "pipe:" *not-ours*))

(setf *unfit*
      '(("it counts what is consed by a function of SBCL"
         "stream.no-consing-per-octet" "batch.no-consing" "datagram.no-consing"
         "octets.nothing-consed" "poller.consing")
        ("it measures memory by a function of SBCL"
         "stream.an-idle-one-is-small" "service.many-idle-connections")
        ("it runs programs by functions of SBCL"
         "dns.real-server" "haproxy.drain")
        ("what it tests is another process, of SBCL"
         "library.missing-or-wrong" "library.another-version" "library.directory-with-a-space"
         "library.read-only-sources" "library.moved-executable" "octets.vectors-beyond-an-int"
         "service.several-processes" "service.ten-thousand-at-the-limit" "service.slow-hook"
         "service.process-ends" "service.process-ends-while-threads-are-made"
         "service.storm-at-the-limit" "adopt.systemd-activation" "documents.service")
        ("it is about SBCL's own sockets" "conformance.of-another-library")
        ("ECL has no pathname for a file of such a name" "arguments.native-names")))
