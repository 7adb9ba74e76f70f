;;;; package - every exported name, by theme. Load order is reading order: see port.asd.

(defpackage :port.ffi
  (:documentation "The binding of libport.so: its functions under their own names, its constants
from its own manifest. The only package that knows CFFI. See csrc/libport.h for what they do.")
  (:use :common-lisp)
  (:export
   ;; finding the library
   #:library-error #:load-library #:library-pathname #:library-version
   ;; calling it
   #:octets #:int64s #:int64s-of-size #:with-octets #:with-int64s #:with-characters #:with-text
   #:%copy-octets #:text-from
   #:%at-image-start #:call-deferred #:call-nowait #:call-undisturbed
   #:with-waiting #:with-cleanup #:%piece-end
   #:null-pointer #:utf8-octets #:with-optional-octets #:close-descriptor
   ;; abi, status, clock, fence
   #:lport-version #:lport-abi #:lport-manifest
   #:lport-status-make #:lport-status-kind #:lport-status-errno #:lport-status-option
   #:lport-status-own
   #:lport-status-text
   #:lport-kind-name #:lport-kind-condition #:lport-clock-now #:lport-clock-after
   #:lport-fence #:lport-fence-prepare
   ;; address
   #:lport-address-parse #:lport-address-is-literal #:lport-address-print #:lport-port-parse
   #:lport-address-local #:lport-address-equal
   ;; proxy
   #:lport-proxy-parse #:lport-proxy-print
   ;; interface
   #:lport-interface-list #:lport-interface-index #:lport-interface-name #:lport-host-name
   ;; handle and wait
   #:lport-socket-close #:lport-socket-gone #:lport-socket-descriptor #:lport-socket-state
   #:lport-socket-count #:lport-wait-count
   #:lport-wait-begin #:lport-wait-poll #:lport-wait-poll2 #:lport-wait-end #:lport-wait-wake
   ;; socket, local, option
   #:lport-socket-listen #:lport-socket-accept #:lport-socket-pair #:lport-socket-shutdown
   #:lport-socket-name #:lport-socket-peer #:lport-local-listen
   #:lport-option-name #:lport-option-kind #:lport-option-unit #:lport-option-sockets
   #:lport-option-note #:lport-option-choice #:lport-option-access #:lport-option-get
   #:lport-option-set #:lport-option-get-text #:lport-option-set-text
   ;; those of every message and every piece, which are called with interrupts deferred already
   #:%lport-socket-receive #:%lport-socket-send #:%lport-socket-send2
   #:%lport-datagram-receive #:%lport-datagram-send
   #:%lport-datagram-receive-at #:%lport-datagram-send-from
   ;; datagram
   #:lport-datagram-open #:lport-datagram-send #:lport-datagram-receive #:lport-datagram-join
   #:lport-datagram-send-batch #:lport-datagram-receive-batch #:lport-datagram-undelivered
   #:lport-datagram-send-from #:lport-datagram-receive-at
   #:lport-datagram-send-batch-from #:lport-datagram-receive-batch-at
   #:lport-datagram-leave #:lport-local-credentials #:lport-local-send #:lport-local-receive
   #:lport-local-receive-from
   ;; info, adopt
   #:lport-info-name #:lport-info-kind #:lport-info-note #:lport-info-state #:lport-info-read
   #:lport-descriptor-inspect #:lport-descriptor-adopt #:lport-socket-detach
   #:lport-socket-detach-end #:lport-activation-count #:lport-activation-name
   #:lport-activation-forget
   ;; transfer, text
   #:lport-socket-receive #:lport-socket-send #:lport-socket-send2
   #:lport-socket-send-file #:lport-socket-buffered #:lport-socket-failure
   #:lport-text-find-line #:lport-text-last-line #:lport-text-measure-line
   #:lport-text-from-utf8
   #:lport-text-from-latin1 #:lport-text-from-ascii
   #:lport-text-from-ascii8 #:lport-text-utf8-problem #:lport-text-utf8-count
   #:lport-text-to-utf8 #:lport-text-to-latin1
   #:lport-text-to-ascii
   ;; poller
   #:lport-poller-open #:lport-poller-add #:lport-poller-modify #:lport-poller-claim
   #:lport-poller-remove
   #:lport-poller-begin #:lport-poller-wait #:lport-poller-end #:lport-poller-wake
   ;; resolve, dial
   #:lport-resolve-open #:lport-resolve-reverse #:lport-resolve-wait #:lport-resolve-count
   #:lport-resolve-address #:lport-resolve-name #:lport-resolve-close #:lport-service-find
   #:lport-service-list
   #:lport-dial-open #:lport-dial-open-addresses #:lport-dial-set #:lport-dial-step
   #:lport-dial-wait #:lport-dial-watch #:lport-dial-count #:lport-dial-attempt
   #:lport-dial-attempt-own #:lport-dial-close
   ;; tls
   #:lport-tls-context-open #:lport-tls-context-close #:lport-tls-context-trust
   #:lport-tls-context-revoked
   #:lport-tls-context-identity #:lport-tls-context-verify #:lport-tls-context-versions
   #:lport-tls-context-resume #:lport-tls-context-protocols #:lport-tls-context-problem
   #:lport-tls-context-offer #:lport-tls-context-replace
   #:lport-tls-start #:lport-tls-step #:lport-tls-text
   ;; constants
   #:+lport-abi+ #:+lport-never+ #:+lport-address-size+ #:+lport-proxy-size+ #:+lport-text-size+
   #:+lport-setting-size+
   #:+lport-text-scale+
   #:+lport-any+ #:+lport-local+ #:+lport-inet+ #:+lport-inet6+
   #:+lport-stream+ #:+lport-datagram+ #:+lport-seqpacket+
   #:+lport-input+ #:+lport-output+ #:+lport-hangup+
   #:+lport-ended+ #:+lport-failed+ #:+lport-poller-best+ #:+lport-poller-epoll+
   #:+lport-poller-poll+ #:+lport-event-size+ #:+lport-second-wait+ #:+lport-socket-index+
   #:+lport-nodelay+ #:+lport-keepalive+ #:+lport-reuse-address+ #:+lport-reuse-port+
   #:+lport-v6-only+ #:+lport-unlink+ #:+lport-broadcast+ #:+lport-joined+
   #:+lport-two-locals+ #:+lport-packet-info+
   #:+lport-peek+ #:+lport-patient+ #:+lport-patience-ns+ #:+lport-reset+
   #:+lport-aliases+ #:+lport-state-input-shut+ #:+lport-state-output-shut+
   #:+lport-state-broken+ #:+lport-state-listening+ #:+lport-state-connected+
   #:+lport-state-packet-info+
   #:+lport-would-block+ #:+lport-in-progress+ #:+lport-timed-out+ #:+lport-closed+
   #:+lport-connection-reset+ #:+lport-connection-refused+ #:+lport-not-connected+
   #:+lport-interrupted+ #:+lport-output-shut+ #:+lport-other+
   #:+lport-descriptors-exhausted+ #:+lport-backlog-full+ #:+lport-end+
   #:+lport-option-writable+ #:+lport-option-none+ #:+lport-invalid+ #:+lport-not-supported+
   #:+lport-address-syntax+ #:+lport-address-not-available+ #:+lport-address-in-use+
   #:+lport-service-not-found+
   #:+lport-tls-failed+ #:+lport-certificate-refused+
   #:+lport-tls-client+ #:+lport-tls-server+ #:+lport-tls-passphrase-max+
   #:+lport-tls-system+ #:+lport-tls-file+ #:+lport-tls-directory+
   #:+lport-tls-verify-nobody+ #:+lport-tls-verify-server+ #:+lport-tls-verify-given+
   #:+lport-tls-verify+
   #:+lport-tls-version+ #:+lport-tls-cipher+ #:+lport-tls-protocol+ #:+lport-tls-server-name+
   #:+lport-tls-problem+ #:+lport-tls-subject+ #:+lport-tls-issuer+ #:+lport-tls-valid-until+
   #:+lport-tls-certificate+ #:+lport-tls-resumed+))

(defpackage :port
  (:documentation "Sockets for Common Lisp: connected sockets are streams, failures are conditions
that say what happened, nothing hangs for ever and nothing is lost.")
  (:use :common-lisp :port.ffi)
  (:shadow #:stream-external-format)
  (:import-from #+sbcl :sb-gray #+(or ecl clisp) :gray
   #:fundamental-binary-input-stream #:fundamental-binary-output-stream
   #:fundamental-character-input-stream #:fundamental-character-output-stream
   #:stream-advance-to-column #:stream-clear-input #:stream-clear-output #:stream-finish-output
   #:stream-force-output #:stream-fresh-line #:stream-line-column #:stream-listen
   #:stream-peek-char #:stream-read-byte #:stream-read-char #:stream-read-char-no-hang
   #:stream-read-line #:stream-start-line-p #:stream-terpri
   #:stream-unread-char #:stream-write-byte #:stream-write-char #:stream-write-string
   ;; CLISP's take other arguments, see gray-clisp.lisp.
   #-clisp #:stream-read-sequence #-clisp #:stream-write-sequence)
  ;; connections
  (:export #:socket #:open-socket #:socket-host/port #:socket-string #:socket-shutdown
           #:lingering-close #:open-socket-pair #:with-open-socket #:call-with-open-socket
           #:pending-connection #:begin-connect #:finish-connect
           #:socket-descriptor #:adopt-descriptor #:detach-descriptor
           #:socket-datum #:socket-info #:socket-info-fields)
  ;; what is open
  (:export #:list-open-sockets #:print-open-sockets #:socket-entry #:socket-entry-p
           #:socket-entry-socket #:socket-entry-kind #:socket-entry-local #:socket-entry-remote
           #:socket-entry-received #:socket-entry-sent #:socket-entry-age)
  ;; options
  (:export #:socket-option #:socket-options)
  ;; interfaces
  (:export #:network-interfaces #:network-interface #:network-interface-p
           #:network-interface-name #:network-interface-index #:network-interface-mtu
           #:network-interface-flags #:network-interface-addresses #:network-interface-prefixes
           #:get-host-name)
  ;; servers
  (:export #:socket-server #:open-socket-server #:socket-accept #:socket-server-close
           #:socket-server-host/port #:with-socket-server #:call-with-socket-server
           #:activated-servers #:socket-proxy-host/port #:write-proxy-header)
  ;; datagrams
  (:export #:datagram-socket #:open-datagram-socket #:socket-send #:socket-receive
           #:with-datagram-socket #:call-with-datagram-socket
           #:join-multicast #:leave-multicast
           #:datagram-batch #:datagram-batch-p #:make-datagram-batch #:datagram-batch-octets
           #:datagram-batch-size #:datagram-batch-capacity #:datagram-batch-count #:clear-batch
           #:batch-add #:batch-message #:batch-end #:batch-own-end #:send-batch #:receive-batch)
  ;; local sockets
  (:export #:open-unix-socket #:open-unix-server
           #:socket-peer-credentials #:send-descriptors #:receive-descriptors)
  ;; streams
  (:export #:set-socket-stream-format #:stream-external-format #:socket-state
           #:wait-for-stream)
  ;; octets
  (:export #:read-octets #:read-some #:peek-octets #:read-line-octets #:write-octets
           #:buffered-octets #:send-file #:relay)
  ;; TLS
  (:export #:open-tls-socket #:start-tls #:tls-context #:tls-context-p #:make-tls-context
           #:reload-tls-context #:tls-info #:tls-peer-certificate)
  ;; many sockets at once
  (:export #:poller #:make-poller #:poller-add #:poller-modify #:poller-remove #:poller-wait
           #:poller-wake #:wait-for-input)
  ;; services
  (:export #:server #:serve #:stop-server #:wait-for-server #:server-listeners
           #:server-connections #:serve-connection #:client-left-p #:post)
  ;; time
  (:export #:with-deadline #:call-with-deadline #:current-deadline #:socket-timeout
           #:socket-deadline)
  ;; addresses
  (:export #:address #:address-p #:parse-address #:make-address
           #:address-family #:address-octets #:address-scope #:address-kind
           #:parse-endpoint #:endpoint-string
           #:address-prefix #:address-prefix-p #:parse-address-prefix #:make-address-prefix
           #:address-prefix-address #:address-prefix-length #:address-in-prefix-p
           #:ipaddr-to-dotted #:dotted-to-ipaddr #:ipaddr-closure)
  ;; names
  (:export #:resolve #:reverse-resolve #:resolve-host-ipaddr
           #:hostent #:hostent-p #:make-hostent #:hostent-name #:hostent-aliases
           #:hostent-addr-list #:hostent-addr-type
           #:socket-service-port #:servent #:servent-p #:make-servent #:servent-name
           #:servent-aliases #:servent-port #:servent-proto)
  ;; conditions
  (:export #:network #:net-proc #:net-host #:net-port #:net-mesg #:net-args
           #:network-operation #:network-code #:network-errno #:network-host #:network-port
           #:network-local #:network-remote #:network-attempts #:network-octets #:network-socket
           #:timeout #:timeout-time #:login #:net-path
           #:socket-closed
           #:connection-lost #:connection-reset #:connection-aborted #:connection-truncated
           #:tls-error #:certificate-error #:proxy-error
           #:connect-error #:connection-refused #:host-unreachable #:network-unreachable
           #:connect-denied #:connect-timed-out #:path-not-found
           #:address-error #:address-in-use #:address-not-available #:permission-denied
           #:address-syntax #:path-unusable
           #:resolve-error #:host-not-found #:resolver-try-again #:resolver-failure
           #:service-not-found
           #:resource-exhausted #:message-too-long #:not-supported #:usage-error
           #:text-error #:decoding-error #:encoding-error #:text-error-octets
           #:text-error-character #:text-error-position #:line-too-long #:library-error)
  ;; restarts
  (:export #:retry #:wait-longer #:replace-character))
