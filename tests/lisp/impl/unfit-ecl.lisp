;;;; unfit-ecl - which tests cannot hold on ECL, and why, and what the others have to know of it.

(in-package :port/test)

;;; Signalling a condition takes a hundred times as long, and the compiler goes by way of C.
(setf *slowness* 5)

;;; A process that was run leaves what its input and output were to the collector, and DIRECTORY,
;;; where a descriptor is closed meanwhile, the directory of descriptors.
(setf *not-ours* (list* "/dev/null" "pipe:" "/fd" *not-ours*))

(setf *unfit*
      '(("it counts what is consed by a function of SBCL"
         "stream.no-consing-per-element" "batch.no-consing" "message.no-consing"
         "message.no-consing-where-nothing-has-come"
         "arrival.no-consing" "octets.nothing-consed" "poller.consing" "once.consing"
         "silence.consing" "relay.nothing-consed")
        ("it measures memory by a function of SBCL"
         "stream.an-idle-one-is-small" "service.many-idle-connections")
        ("it runs programs by functions of SBCL"
         "dns.real-server" "haproxy.drain"
         "detach.a-program-has-it-for-its-input-and-output")
        ("what it tests is another process, of SBCL"
         "library.missing-or-wrong" "library.another-version" "library.directory-with-a-space"
         "library.directory-with-characters-of-make-and-of-patterns"
         "library.read-only-sources" "library.moved-executable"
         "library.compiled-under-any-printer-and-policy"
         "library.make-loads-its-own-checkout" "octets.vectors-beyond-an-int"
         "service.several-processes" "service.a-script-ends-with-its-service"
         "service.ten-thousand-at-the-limit" "service.slow-hook"
         "service.process-ends" "service.process-ends-while-threads-are-made"
         "service.storm-at-the-limit" "adopt.systemd-activation" "documents.service"
         "example-servers.sigterm")
        ("ECL promises nothing of threads that are killed"
         "service.killed-before-they-began" "service.killed-before-the-stop"
         "service.killed-while-idle")
        ("ECL calls what is in the same file directly, so that nothing can be put in between"
         "poller.closed-while-joined" "service.stop-while-accepting"
         "service.killed-with-its-successor" "service.who-is-about-to-block-hands-over"
         "octets.peeked-although-an-interrupt-reads" "address.service-where-there-is-no-table"
         "unwinding.a-connection-that-begins-with-tls"
         "detach.what-another-thread-has-just-received"
         "clocc.ipaddr-closure-asks-once")
        ("what the macro WITH-OUTPUT is made of ECL compiles, and does not interpret"
         "stream.no-buffer-is-held-by-one-that-has-flushed")
        ("an interrupt of a wait is let in once that has its lock again"
         "service.wait-for-its-end-unwound"
         "service.what-interrupts-a-wait-finds-its-lock-free")
        ("it is about SBCL's own sockets" "conformance.of-another-library")
        ("ECL has no pathname for a file of such a name" "arguments.native-names")
        ("the input of a program that ECL runs does not end when it is closed"
         "example-servers.chat" "tls-programs.a-client-of-openssl"
         "tls-programs.openssl-resumes-sessions-of-ours")
        ("it looks at the stack by functions of SBCL" "direction.the-end-of-the-stack")
        ;; Where an interrupt comes while something is allocated, ECL 21.2.1 lets it in afterwards
        ;; although they are deferred; a thread that interrupts itself is interrupted at once.
        ("ECL lets interrupts in where they are deferred"
         "direction.an-interrupt-that-reads" "direction.characters-that-an-interrupt-reads"
         "direction.lines-that-an-interrupt-reads" "direction.an-interrupt-that-writes"
         "direction.an-interrupt-that-reads-lines" "direction.an-interrupt-of-who-evicts"
         "direction.an-interrupt-that-fills-the-buffer"
         "direction.a-format-set-within-a-line" "direction.a-peek-that-is-thrown-out"
         "direction.an-interrupt-that-reads-within-a-peek"
         "direction.an-interrupt-that-reads-within-a-line"
         "direction.an-interrupt-that-reads-as-a-character-is-taken-back"
         "service.killed-threads" "service.stop-unwound-leaves-nobody"
         "service.stop-unwound-as-it-begins-to-wait"
         "unwinding.ten-thousand-blows" "unwinding.what-was-just-made"
         "unwinding.what-was-just-received" "unwinding.zones"
         "relay.thrown-out-again-and-again-nothing-is-lost"
         "relay.thrown-out-between-two-steps"
         "unwinding.events-of-buffered-input" "unwinding.events-of-once"
         "unwinding.events-of-silence" "unwinding.buffered-input-of-who-joins"
         "unwinding.what-leaves-a-poller" "unwinding.a-wake"
         "unwinding.a-close-that-has-not-begun" "unwinding.a-service-that-has-just-begun"
         "unwinding.a-service-that-has-a-client-already"
         "unwinding.a-file-that-was-just-opened" "unwinding.an-interrupt-that-writes-anywhere"
         "unwinding.the-end-of-the-memory-in-a-long-line"
         "unwinding.the-end-of-the-memory-in-a-line-that-is-there")))

(setf *unfit-chapters* '("Checking a library of streams"))
