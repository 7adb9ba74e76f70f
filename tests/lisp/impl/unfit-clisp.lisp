;;;; unfit-clisp - which tests cannot hold on CLISP, and why. Those that make a thread, or a
;;;; service, are not named here: they are left out where they do, see tests/words/clisp.lisp.

(in-package :port/test)

(setf *slowness* 5
      *watchdog-p* nil)

(sb-int:encapsulate 'serve 'without-threads
                    (lambda (serve &rest arguments)
                      (handler-bind ((not-supported
                                       (lambda (condition)
                                         (when (eq :serve (network-operation condition))
                                           (port/words::leave-out "CLISP has no threads")))))
                        (apply serve arguments))))

(setf *unfit*
      '(("what it tests is another process, of SBCL"
         "library.missing-or-wrong" "library.another-version" "library.directory-with-a-space"
         "library.directory-with-characters-of-make-and-of-patterns"
         "library.read-only-sources" "library.moved-executable"
         "library.compiled-under-any-printer-and-policy"
         "library.make-loads-its-own-checkout" "octets.vectors-beyond-an-int"
         "service.several-processes" "service.a-script-ends-with-its-service"
         "service.ten-thousand-at-the-limit" "service.slow-hook"
         "service.process-ends" "service.process-ends-while-threads-are-made"
         "service.storm-at-the-limit" "adopt.systemd-activation" "documents.service"
         "example-servers.sigterm"
         "service.ten-thousand-clients" "service.ten-thousand-accepted"
         "service.many-idle-connections")
        ("CLISP has no threads" "examples.demo")
        ("CLISP has other names for encodings of files" "browser.page" "tls-programs.node")
        ("UIOP has no LAUNCH-PROGRAM on CLISP"
         "detach.a-program-has-it-for-its-input-and-output"
         "tls-programs.a-server-of-openssl" "tls-programs.tickets-are-no-input"
         "tls-programs.a-server-that-asks-for-a-certificate"
         "tls-programs.sessions-of-openssl-are-resumed"
         "tls-programs.who-sends-and-closes-at-once-loses-nothing"
         "tls-programs.there-is-no-room-in-the-midst-of-a-message")
        ("CLISP has no floats that are no numbers" "deadline.what-is-a-span")
        ("CLISP has no vectors of floats" "client.wrong-arguments")
        ("what it puts in between is compiled inline" "direction.an-interrupt-that-reads-lines")
        ("an interrupt that a test makes is not held back here"
         "direction.an-interrupt-that-reads-within-a-line"
         "direction.an-interrupt-that-reads-as-a-character-is-taken-back"
         "relay.thrown-out-between-two-steps"
         "unwinding.what-was-just-made" "unwinding.what-was-just-received"
         "unwinding.what-is-just-detached"
         "unwinding.events-of-buffered-input" "unwinding.events-of-once"
         "unwinding.events-of-silence" "unwinding.buffered-input-of-who-joins"
         "unwinding.what-leaves-a-poller" "unwinding.a-wake"
         "unwinding.a-close-that-has-not-begun" "unwinding.a-service-that-has-just-begun"
         "unwinding.a-file-that-was-just-opened" "unwinding.an-interrupt-that-writes-anywhere"
         "unwinding.the-end-of-the-memory-in-a-long-line"
         "unwinding.the-end-of-the-memory-in-a-line-that-is-there")
        ("DIRECTORY of CLISP has other keywords" "peers.literals-ask-nobody")
        ("EXT of CLISP, which CL-USER uses, has sockets of its own" "clocc.names-in-common")
        ("CLISP opens no file twice, and positions none behind its end"
         "octets.files-from-streams" "octets.files-from-streams-with-output"
         "octets.files-that-cannot-be-sent" "octets.a-file-sent-to-nobody-tells-how-much-went"
         "octets.files-beyond-4-gib")
        ("CLISP has no pathname for a file of such a name" "arguments.native-names")
        ("FRESH-LINE of CLISP asks for the column alone" "closing.fresh-line-on-a-closed-one")
        ("READ-CHAR-NO-HANG of CLISP looks first, and then reads as READ-CHAR"
         "text-errors.handlers-in-a-read-at-once")
        ("CLISP labels what it prints itself"
         "describe.socket" "describe.condition" "describe.printer")
        ("CLISP keeps no docstring of a compiled accessor of a structure"
         "documentation.docstrings" "documents.complete")
        ("CLISP prints hash tables readably" "conditions.report-of-the-unreadable")
        ("to CLISP every character is a base-char" "stream.what-has-no-room-stays-as-it-was")
        ("to CLISP the streams of all such classes are interactive" "stream.not-interactive")))

(setf *unfit-chapters* '("Threads" "Services" "Growing past one machine"
                         "Checking a library of streams"))
