/* libport.h - the sockets of `port`: one header, and it is the manual.
 *
 * libport does socket operations and the mapping of their errors for a language above it (Common
 * Lisp first). It keeps a table of sockets, hands out integers, and never blocks, prints, exits or
 * raises a signal except where this page says so.
 *
 * CONVENTIONS, said once
 *
 * Scalars and octets.  Arguments and results are integers and vectors of octets; no structure, no
 *   callback and no errno crosses this boundary, and no pointer is kept after a call has returned.
 *   A vector is a pointer and a length; the pointer may be NULL where the length is 0 or where the
 *   function says so. Any other has to lead to what it stands for: not every function looks for
 *   NULL. Text is a pointer and a length too and needs no terminator. What is written
 *   into a caller's `text` of `cap` octets is cut off there, is terminated with NUL if there is
 *   room, and the result is the full length: above `cap` it was cut off.
 *
 * Results.  Zero or more is a result; below zero is a status that packs a portable kind (LPORT_...
 *   below) with the system's own number. lport_status_kind and its neighbours take it apart. Every
 *   function may return LPORT_INVALID for an argument outside what it says, and may ignore a flag
 *   that means nothing to it. In the entries below a bare `0.` means "returns 0", and
 *   `LPORT_X: why` that this status is returned and why; `the exhausted ones` are the statuses
 *   LPORT_DESCRIPTORS_EXHAUSTED, LPORT_MEMORY_EXHAUSTED and LPORT_BUFFERS_EXHAUSTED.
 *
 * Sockets.  A socket is a positive integer below 2^62: a slot in the table, which its 24 lowest
 *   bits number, and its generation. No two that are open share a slot. An operation enters the
 *   slot, does its work, and leaves. lport_socket_close marks the slot and wakes whoever waits on
 *   it, and the last one to leave closes the descriptor. So a descriptor is never closed and reused
 *   while an operation is using it, and a stale or second close is LPORT_CLOSED, not an accident.
 *   Every function that takes a socket may return LPORT_CLOSED. Descriptors are close-on-exec and
 *   non-blocking from birth; one that has been received from with LPORT_PATIENT blocks, until
 *   lport_socket_descriptor gives it out or lport_socket_send_file uses it.
 *
 * Tags.  [nowait] may change state, lock, allocate, open and close; it never blocks, but for a
 *   moment where LPORT_PATIENT asks for it, and for a disk where it reads a file (one that is sent,
 *   the table of services). A caller whose threads can be interrupted (unwound, killed) has to
 *   defer interrupts for the length of the call. [waits] blocks until something happens or the
 *   deadline passes, and holds nothing: no lock, no memory, no descriptor; it may be abandoned at
 *   any instruction. [pure] reads and computes only.
 *
 * Deadlines  are absolute nanoseconds of lport_clock_now; LPORT_NEVER is none. A deadline that has
 *   passed makes a [waits] function look once and return LPORT_TIMED_OUT if there is nothing.
 *
 * Addresses  are blocks of LPORT_ADDRESS_SIZE octets, made and read by the functions below or
 *   directly:
 *          octet 0: family (LPORT_ANY LPORT_INET LPORT_INET6 LPORT_LOCAL)
 *          octet 1: length of a local name in octets, else 0
 *          octets 2-3: port, most significant first
 *          octets 4-7: scope of an IPv6 address (interface index), most significant first, else 0
 *          octets 8-: 4 or 16 octets of the address, or the local name. A local name that begins
 *            with a zero octet is a Linux abstract name; one of length 0 is unnamed; any other is a
 *            path, and has no zero octet.
 *
 * Settings  are options that a function sets on each socket that it makes, once it has made it:
 *   before it is bound, connected, or listens, and after what FLAGS say, which they may change.
 *   They are rows of LPORT_SETTING_SIZE octets, one after the other, in the order in which they are
 *   set. One that cannot be set makes the function fail with what lport_option_set says;
 *   lport_status_option tells which it was, and nothing is left behind. A row:
 *          octets 0-3: the option, as in lport_option_name, most significant first
 *          octets 4-7: of a text its length, most significant first
 *          octets 8-: a number of 8 octets, most significant first, or the text
 *
 * Forks.  After fork() a child may use and close the sockets it inherited. A plain close in one of
 *   the two processes sends nothing as long as the other has the socket open. The settings of a
 *   shared socket are shared too: if a child closes one with a time to linger, or with LPORT_RESET,
 *   SO_LINGER changes for the parent too, unless it has TLS. LPORT_PATIENT has no effect any more
 *   on a socket that was open at a fork, in both processes, unless it had been received from in
 *   that way before. Threads of the resolver do not cross a fork. If one thread forks while another
 *   is just opening or closing a socket, the child may inherit a descriptor that belongs to no
 *   socket, and keeps it until it ends or execs.
 */
#ifndef LIBPORT_H
#define LIBPORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LPORT_API __attribute__((visibility("default")))

/* Goes up with each change of this header that breaks a caller; a binding checks it. */
#define LPORT_ABI 1

/* ---- constants ------------------------------------------------------------------------------- */

#define LPORT_NEVER INT64_MAX /* the deadline that never passes */

#define LPORT_ADDRESS_SIZE 120 /* octets of an address block */
#define LPORT_PROXY_SIZE   232 /* octets of the longest header that lport_proxy_print makes */
#define LPORT_TEXT_SIZE    128 /* octets that hold the text of any address or status */
#define LPORT_SETTING_SIZE 24  /* octets of a setting */

/* Families */
enum {
    LPORT_ANY = 0,
    LPORT_LOCAL = 1,
    LPORT_INET = 4,
    LPORT_INET6 = 6,
};

/* Kinds of socket */
enum {
    LPORT_STREAM = 1,
    LPORT_DATAGRAM = 2,
    LPORT_SEQPACKET = 5,
};

/* Directions, and what to wait for; they add up */
enum {
    LPORT_INPUT = 1,
    LPORT_OUTPUT = 2,
    LPORT_HANGUP = 4,  /* only in results of lport_wait_poll: the peer closed or reset */
    LPORT_ENDED = 8,   /* only in events: the peer has ended its output */
    LPORT_FAILED = 16, /* in events and waits: the connection or the last operation failed */
};

/* Flags of the functions that make sockets; they add up */
enum {
    LPORT_NODELAY = 1,       /* TCP_NODELAY */
    LPORT_KEEPALIVE = 2,     /* SO_KEEPALIVE with 15 s idle, 15 s between probes, 9 probes */
    LPORT_REUSE_ADDRESS = 4, /* SO_REUSEADDR */
    LPORT_REUSE_PORT = 8,    /* SO_REUSEPORT */
    LPORT_V6_ONLY = 16,      /* IPV6_V6ONLY */
    LPORT_UNLINK = 32,       /* local names: remove a stale one first, and ours at the close */
    LPORT_BROADCAST = 64,    /* SO_BROADCAST */
    LPORT_JOINED = 128,      /* UDP_GRO: see lport_datagram_open */
    LPORT_TWO_LOCALS = 256,  /* see lport_dial_open */
    LPORT_PACKET_INFO = 512, /* IP_PKTINFO, IPV6_RECVPKTINFO: see lport_datagram_receive_at */
};

/* Flags of lport_socket_receive, lport_datagram_receive and lport_socket_close */
enum {
    LPORT_PEEK = 2,    /* receive: leave the octets where they are */
    LPORT_PATIENT = 4, /* receive: wait in the call itself, for LPORT_PATIENCE_NS at the most */
    LPORT_RESET = 1,   /* close: drop what was not sent, the peer sees a reset; of a local socket an
                        * end, unless what it sent was unread */
};

/* How long a receive with LPORT_PATIENT waits. A system whose clock ticks slowly makes it longer,
 * by two ticks at the most. */
#define LPORT_PATIENCE_NS 4000000

/* Backends of pollers */
enum {
    LPORT_POLLER_BEST = 0,  /* the best that the system has */
    LPORT_POLLER_EPOLL = 1, /* epoll(7): the cost of a wait depends on what is ready alone */
    LPORT_POLLER_POLL = 2,  /* poll(2): no system call to add a socket, a costly wait; everywhere */
};

#define LPORT_EVENT_SIZE   2        /* integers of an event */
#define LPORT_SECOND_WAIT  256      /* times the bits of the second of two waits */
#define LPORT_SOCKET_INDEX 16777215 /* the bits of a socket that are its place in the table */

/* Flags of lport_resolve_open */
enum {
    LPORT_ALIASES = 1, /* also ask for the canonical name and the aliases */
};

/* Bits of lport_socket_state */
enum {
    LPORT_STATE_INPUT_SHUT = 1,
    LPORT_STATE_OUTPUT_SHUT = 2,
    LPORT_STATE_BROKEN = 4,
    LPORT_STATE_LISTENING = 8,
    LPORT_STATE_CONNECTED = 16,   /* lport_descriptor_inspect only */
    LPORT_STATE_PACKET_INFO = 32, /* likewise */
};

/* Bits of lport_option_access */
enum {
    LPORT_OPTION_WRITABLE = 1,
    LPORT_OPTION_NONE = 2, /* LPORT_NEVER, or a text of length 0, is a value */
};

/* TLS: sides of a session, sources of trust, whom a context verifies, what lport_tls_text tells */
enum {
    LPORT_TLS_OFFERED_MAX = 64,      /* contexts that are offered to one */
    LPORT_TLS_PASSPHRASE_MAX = 1024, /* octets */
    LPORT_TLS_CLIENT = 1,
    LPORT_TLS_SERVER = 2,
    LPORT_TLS_SYSTEM = 0,
    LPORT_TLS_FILE = 1,
    LPORT_TLS_DIRECTORY = 2,
    LPORT_TLS_VERIFY_NOBODY = 0,
    LPORT_TLS_VERIFY_SERVER = 1,
    LPORT_TLS_VERIFY_GIVEN = 2,
    LPORT_TLS_VERIFY = 3,
    LPORT_TLS_VERSION = 1,
    LPORT_TLS_CIPHER = 2,
    LPORT_TLS_PROTOCOL = 3,
    LPORT_TLS_SERVER_NAME = 4,
    LPORT_TLS_PROBLEM = 5,
    LPORT_TLS_SUBJECT = 6,
    LPORT_TLS_ISSUER = 7,
    LPORT_TLS_VALID_UNTIL = 8,
    LPORT_TLS_CERTIFICATE = 9,
    LPORT_TLS_RESUMED = 10,
};

/* Kinds of status. The table in status.c gives each its name, its text and the condition that a
 * Lisp signals for it; lport_kind_name and its neighbours read it. */
enum {
    LPORT_OTHER = 1,           /* a number of the system that no row knows */
    LPORT_WOULD_BLOCK,         /* nothing there, no room: wait and try again */
    LPORT_IN_PROGRESS,         /* a connect or a query goes on */
    LPORT_INTERRUPTED,         /* a signal came; try again */
    LPORT_TIMED_OUT,           /* the deadline of the caller passed */
    LPORT_CLOSED,              /* closed on our side, or not a socket of ours */
    LPORT_OUTPUT_SHUT,         /* our side has shut down its output */
    LPORT_CONNECTION_LOST,     /* an established connection died in another way than the next two */
    LPORT_CONNECTION_RESET,    /* ECONNRESET, EPIPE */
    LPORT_CONNECTION_ABORTED,  /* ECONNABORTED */
    LPORT_CONNECT_FAILED,      /* a connect failed in another way than the next six */
    LPORT_CONNECTION_REFUSED,  /* ECONNREFUSED */
    LPORT_HOST_UNREACHABLE,    /* EHOSTUNREACH, EHOSTDOWN, ENONET */
    LPORT_NETWORK_UNREACHABLE, /* ENETUNREACH, ENETDOWN */
    LPORT_CONNECT_DENIED,      /* EACCES, EPERM of a connect: this system's, or by ICMPv6 */
    LPORT_CONNECT_TIMED_OUT,   /* ETIMEDOUT of a connect: the system gave up, not a deadline */
    LPORT_PATH_NOT_FOUND,      /* ENOENT, ENOTDIR of a connect to a local name */
    LPORT_BACKLOG_FULL,        /* EAGAIN of a connect to a local name: try again a little later */
    LPORT_ADDRESS_IN_USE,      /* EADDRINUSE */
    LPORT_ADDRESS_NOT_AVAILABLE, /* EADDRNOTAVAIL, ENODEV: no such interface */
    LPORT_PERMISSION_DENIED,     /* EACCES, EPERM, EROFS of a bind and of all else */
    LPORT_PATH_UNUSABLE,         /* ENOENT, ENOTDIR, ELOOP of a bind to a local name */
    LPORT_ADDRESS_SYNTAX,        /* text that is not an address, a port or a local name */
    LPORT_HOST_NOT_FOUND,        /* EAI_NONAME, EAI_NODATA, EAI_ADDRFAMILY */
    LPORT_RESOLVER_TRY_AGAIN,    /* EAI_AGAIN */
    LPORT_RESOLVER_FAILURE,      /* every other failure of the resolver */
    LPORT_SERVICE_NOT_FOUND,     /* no such service in the system's table */
    LPORT_DESCRIPTORS_EXHAUSTED, /* EMFILE, ENFILE */
    LPORT_MEMORY_EXHAUSTED,      /* ENOMEM */
    LPORT_BUFFERS_EXHAUSTED,     /* ENOBUFS, ENOSPC */
    LPORT_MESSAGE_TOO_LONG,      /* EMSGSIZE */
    LPORT_NOT_SUPPORTED, /* EAFNOSUPPORT, EOPNOTSUPP, ENOPROTOOPT ...: it does not exist here */
    LPORT_NOT_CONNECTED, /* ENOTCONN */
    LPORT_INVALID,       /* EINVAL, EBADF, ENOTSOCK ...: the call made no sense */
    LPORT_END,           /* sequenced packets: the peer has closed, and everything was received */
    LPORT_PROXY_SYNTAX,  /* octets that are no header of the PROXY protocol */
    LPORT_PATH_TAKEN,    /* EADDRINUSE of a bind to a path that a file holds which is no socket */
    LPORT_THREADS_EXHAUSTED,    /* a thread of the library's own could not be made */
    LPORT_CONNECTION_TRUNCATED, /* it ended before the peer had said that it would */
    LPORT_TLS_FAILED,           /* no TLS with this peer: no common version, an alert, no TLS */
    LPORT_CERTIFICATE_REFUSED,  /* the peer's certificate does not show that it is who it should */
    LPORT_KIND_END,
};

/* ---- abi: what this library is --------------------------------------------------------------- */

/* [pure] The version of the release, such as "0.1.0"; static, terminated. */
LPORT_API const char *lport_version(void);

/* [pure] LPORT_ABI as the library was built with. */
LPORT_API int32_t lport_abi(void);

/* [pure] Every exported function and constant, a line each, in the order of this header; static,
 * terminated. `function int64_t lport_clock_after(int64_t)` or `constant LPORT_INET 4`. A binding
 * reads the constants from here and needs no compiler. */
LPORT_API const char *lport_manifest(void);

/* ---- status: what went wrong ----------------------------------------------------------------- */

/* [pure] The status of KIND without a number, for a binding that finds a failure itself. That of
 * LPORT_INVALID where there is no such kind. */
LPORT_API int64_t lport_status_make(int32_t kind);

/* [pure] The kind of STATUS (LPORT_OTHER ...); 0 if STATUS is zero or more, that is, a result. */
LPORT_API int32_t lport_status_kind(int64_t status);

/* [pure] The errno in STATUS, or 0 where the failure has none. */
LPORT_API int32_t lport_status_errno(int64_t status);

/* [pure] The index of the option that could not be set, where STATUS is that of a setting; -1 for
 * every other status. */
LPORT_API int32_t lport_status_option(int64_t status);

/* [pure] 1 where STATUS is that of a function which binds and connects, lport_datagram_open, and it
 * was the bind that failed: the own end is not to be had. 0 for every other status. */
LPORT_API int32_t lport_status_own(int64_t status);

/* [pure] One short phrase in lower case for STATUS, such as "connection refused", into TEXT. For
 * LPORT_OTHER, LPORT_CONNECTION_LOST, LPORT_CONNECT_FAILED and LPORT_BUFFERS_EXHAUSTED the system's
 * own text (strerror). LPORT_INVALID: STATUS is a result. */
LPORT_API int64_t lport_status_text(int64_t status, char *text, size_t cap);

/* [pure] Of a kind from 1 to LPORT_KIND_END - 1: its name ("connection-refused"), and the name of
 * the condition class that a Lisp signals for it ("connection-refused", "resource-exhausted");
 * static, terminated. NULL for another number. */
LPORT_API const char *lport_kind_name(int32_t kind);
LPORT_API const char *lport_kind_condition(int32_t kind);

/* ---- clock ----------------------------------------------------------------------------------- */

/* [pure] Nanoseconds of CLOCK_MONOTONIC. */
LPORT_API int64_t lport_clock_now(void);

/* [pure] The deadline NS nanoseconds from now: LPORT_NEVER where the sum would pass it, the present
 * moment where NS is zero or less. */
LPORT_API int64_t lport_clock_after(int64_t ns);

/* ---- fence: for bindings with locks of their own --------------------------------------------- */

/* [nowait] Asks the system to permit lport_fence in this process; it may be called again. The first
 * call may take milliseconds. Returns 0. LPORT_NOT_SUPPORTED: the system has no such barrier. */
LPORT_API int64_t lport_fence_prepare(void);

/* [nowait] A full memory barrier in every running thread of this process; a thread that is not
 * running passes one before it runs again. So if one thread stores A and then loads B, without a
 * barrier of its own, and another stores B, calls this, and then loads A, at least one of the two
 * sees what the other stored. Returns 0. LPORT_NOT_SUPPORTED: not prepared. Source: membarrier(2).
 */
LPORT_API int64_t lport_fence(void);

/* ---- address: text to blocks and back; strict; only names of interfaces are looked up -------- */

/* [nowait] The address block of the literal TEXT with PORT (0-65535), into ADDRESS. IPv4: four
 * decimal octets, no leading zero, no short form. IPv6: RFC 4291, in brackets or not, with a zone
 * where the address is of link-local scope (`fe80::1%eth0`, `fe80::1%2`, RFC 4007); for its name
 * the system opens a descriptor meanwhile. Returns the family. LPORT_ADDRESS_SYNTAX: not a literal
 * (it may be a name). LPORT_DESCRIPTORS_EXHAUSTED and its kin: the name of the zone could not be
 * looked up. Source: netdevice(7). */
LPORT_API int64_t lport_address_parse(const char *text, size_t len, int32_t port, uint8_t *address);

/* [pure] True (1) if TEXT can only have been meant as a literal, so that looking it up as a name
 * would be wrong: digits and dots only, a colon, a bracket or a percent sign in it, or a number in
 * any form that inet_aton takes (0x7f.1). */
LPORT_API int64_t lport_address_is_literal(const char *text, size_t len);

/* [nowait] The text of ADDRESS without its port, RFC 5952 form, into TEXT; a local name as its
 * path, an abstract one with `@` for its leading zero; LPORT_ANY as `*`. For the name of a zone the
 * system opens a descriptor meanwhile; where it has none, or no interface has this index, the zone
 * is its number. Returns the length, at most LPORT_TEXT_SIZE - 1. Source: netdevice(7). */
LPORT_API int64_t lport_address_print(const uint8_t *address, char *text, size_t cap);

/* [pure] The port number that TEXT spells in decimal, 0 to 65535: digits only, no sign, no space,
 * no leading zero. LPORT_ADDRESS_SYNTAX: it does not. */
LPORT_API int64_t lport_port_parse(const char *text, size_t len);

/* [pure] The block of the local NAME, into ADDRESS; a name that begins with `@` is abstract.
 * Returns LPORT_LOCAL. LPORT_ADDRESS_SYNTAX: empty, more than 108 octets, or a zero octet in it. */
LPORT_API int64_t lport_address_local(const char *name, size_t len, uint8_t *address);

/* [pure] True (1) if both blocks name the same end, ports included. An IPv4-mapped IPv6 address is
 * the IPv4 address. */
LPORT_API int64_t lport_address_equal(const uint8_t *a, const uint8_t *b);

/* ---- proxy: the PROXY protocol, in which a proxy tells whom it speaks for -------------------- */

/* [pure] Reads a header of the PROXY protocol, version 1 or 2, from the LEN octets that a
 * connection has brought so far. Returns the length of the header in octets, once it is whole; what
 * stands behind them is the client's. 0: it is not whole yet, call again with more; a header has at
 * most 65551 octets. SOURCE and DESTINATION, address blocks, are then the client and the end that
 * it connected to, IPv4-mapped addresses as IPv4; LPORT_ANY where the header names none (LOCAL,
 * UNKNOWN, UNSPEC): the ends of the connection itself count. They are written only then. Of
 * the further fields of version 2 (TLVs) the checksum, PP2_TYPE_CRC32C, is checked where there is
 * one, but not of LOCAL, whose fields count for nothing; the others are skipped.
 * LPORT_PROXY_SYNTAX: this is no header, and none if more follows; or the checksum is not that of
 * the header. Source: proxy-protocol.txt of HAProxy, 2.1 and 2.2. */
LPORT_API int64_t lport_proxy_parse(const uint8_t *octets, size_t len, uint8_t *source,
                                    uint8_t *destination);

/* [nowait] The header by which a proxy tells a server, before all else that it sends there, for
 * whom it speaks: of VERSION 1, a line of text, or 2, in octets, into the CAP octets at OCTETS, cut
 * off there; its length, LPORT_PROXY_SIZE at the most. SOURCE and DESTINATION are the client and
 * the end that it connected to; where one is of IPv6, the other is said as one too. Both NULL or
 * LPORT_ANY: the proxy speaks for itself, as to see whether the server is there (UNKNOWN, LOCAL).
 * So says version 1 of local ends, which it cannot name. LPORT_INVALID: one is NULL alone, or local
 * alone; or VERSION is neither. Source: proxy-protocol.txt of HAProxy, 2.1 and 2.2. */
LPORT_API int64_t lport_proxy_print(int32_t version, const uint8_t *source,
                                    const uint8_t *destination, uint8_t *octets, size_t cap);

/* ---- interface: what this host has ----------------------------------------------------------- */

/* [nowait] Every interface of this host, a line each, into TEXT: index, name, MTU (0: unknown),
 * flags ("-": none) and then each address with the length of its prefix, between single spaces:
 * `1 lo 65536 up,running,loopback 127.0.0.1/8 ::1/128`. Returns the length that all of it needs.
 * Source: getifaddrs(3), netdevice(7). */
LPORT_API int64_t lport_interface_list(char *text, size_t cap);

/* [nowait] The index of the interface NAME; LPORT_ADDRESS_NOT_AVAILABLE: there is none;
 * LPORT_DESCRIPTORS_EXHAUSTED and its kin: the system could not look. And the name of the interface
 * INDEX into TEXT. Source: netdevice(7). */
LPORT_API int64_t lport_interface_index(const char *name, size_t len);
LPORT_API int64_t lport_interface_name(int32_t index, char *text, size_t cap);

/* [nowait] The name of this host, as its owner has set it, into TEXT. Source: gethostname(2). */
LPORT_API int64_t lport_host_name(char *text, size_t cap);

/* ---- handle: the table of sockets ------------------------------------------------------------ */

/* [nowait] Closes SOCKET: whoever waits on it gets LPORT_CLOSED, and so does every later call. The
 * last one to leave closes the descriptor and, for a local name bound with LPORT_UNLINK, removes
 * the name if it is still the one that this process made. FLAGS: 0 or LPORT_RESET. Returns 0: the
 * descriptor is gone; 1: another thread is just leaving, see the next function. LPORT_CLOSED: it
 * was closed before. Source: close(2), SO_LINGER. */
LPORT_API int64_t lport_socket_close(int64_t socket, int32_t flags);

/* [waits] Until the last user of a closed SOCKET has left and the descriptor is gone: 0; of one
 * that is being detached, until nobody is in it any more but who detaches it. LPORT_TIMED_OUT: not
 * yet. LPORT_INVALID: SOCKET is open. */
LPORT_API int64_t lport_socket_gone(int64_t socket, int64_t deadline);

/* [nowait] The descriptor of SOCKET, non-blocking, and without the SO_RCVTIMEO that LPORT_PATIENT
 * sets. It stays SOCKET's own: never close it. */
LPORT_API int64_t lport_socket_descriptor(int64_t socket);

/* [nowait] LPORT_STATE_ bits. */
LPORT_API int64_t lport_socket_state(int64_t socket);

/* [nowait] How many sockets are open; how many waits are under way. For tests and for leaks. */
LPORT_API int64_t lport_socket_count(void);
LPORT_API int64_t lport_wait_count(void);

/* ---- wait: until a socket is ready, a deadline passes, or somebody says so ------------------- */

/* [nowait] Begins a wait on SOCKET for INTEREST (LPORT_INPUT, LPORT_OUTPUT, LPORT_FAILED, which add
 * up, or 0: only for being woken). For LPORT_FAILED alone it is until the connection has failed,
 * whatever there is to receive: an end of the peer is no failure. Returns a wait, a positive
 * integer, which holds the socket's descriptor until lport_wait_end. Each wait belongs to one
 * thread. It is woken through an eventfd, which is pooled; where there is no descriptor for one,
 * within 4 milliseconds. LPORT_MEMORY_EXHAUSTED. */
LPORT_API int64_t lport_wait_begin(int64_t socket, int32_t interest);

/* [waits] Until the socket of WAIT is ready: the LPORT_INPUT, LPORT_OUTPUT, LPORT_HANGUP and, where
 * it was asked for, LPORT_FAILED bits that hold; lport_socket_failure tells what failed. 0: woken
 * by lport_wait_wake; end the wait and look again. LPORT_TIMED_OUT; LPORT_CLOSED: closed by
 * somebody. LPORT_INTERRUPTED: a signal came, only if INTERRUPTIBLE is not 0; else signals are
 * waited out. Source: poll(2). */
LPORT_API int64_t lport_wait_poll(int64_t wait, int64_t deadline, int32_t interruptible);

/* [waits] As lport_wait_poll, for whichever comes first of two waits, each with a socket and an
 * interest of its own: the bits of FIRST, and LPORT_SECOND_WAIT times those of SECOND. 0: one of
 * them was woken. LPORT_CLOSED: one of the sockets was closed. */
LPORT_API int64_t lport_wait_poll2(int64_t first, int64_t second, int64_t deadline,
                                   int32_t interruptible);

/* [nowait] Ends WAIT. Always, once, whatever happened in between. 0. */
LPORT_API int64_t lport_wait_end(int64_t wait);

/* [nowait] Wakes every wait on SOCKET that has any of INTEREST (a wait for neither direction is
 * always woken); returns how many. */
LPORT_API int64_t lport_wait_wake(int64_t socket, int32_t interest);

/* ---- socket: making, accepting, naming ------------------------------------------------------- */

/* [nowait] A listening stream socket on ADDRESS. Family LPORT_ANY: the wildcard, one IPv6 socket
 * that takes IPv4 too, or an IPv4 one where the system has no IPv6. An IPv6 address, `::` among
 * them, takes IPv6 alone; an IPv4-mapped one is the IPv4 address. Port 0: the system picks. For a
 * local name see lport_local_listen. BACKLOG 0 or more; below 0: the system's maximum. FLAGS:
 * LPORT_REUSE_ADDRESS _REUSE_PORT _V6_ONLY, and _NODELAY _KEEPALIVE, which connections inherit, as
 * most of COUNT settings at SETTINGS. Returns the socket. LPORT_ADDRESS_IN_USE,
 * LPORT_ADDRESS_NOT_AVAILABLE, LPORT_PERMISSION_DENIED, LPORT_NOT_SUPPORTED, and the exhausted
 * ones; then nothing is left behind. Source: socket(2) bind(2) listen(2). */
LPORT_API int64_t lport_socket_listen(const uint8_t *address, int32_t backlog, int32_t flags,
                                      const uint8_t *settings, int32_t count);

/* [nowait] The next connection in the queue of LISTENER, as a socket, and its peer's address into
 * PEER unless that is NULL (IPv4-mapped as IPv4). A connection that died while it waited is skipped
 * where the system says so; Linux mostly hands it out, and its first receive says so then.
 * LPORT_WOULD_BLOCK: none there. LPORT_DESCRIPTORS_EXHAUSTED and its kin: the connection stays in
 * the queue. Source: accept4(2). */
LPORT_API int64_t lport_socket_accept(int64_t listener, uint8_t *peer);

/* [nowait] Two connected local sockets of KIND (LPORT_STREAM, _DATAGRAM, _SEQPACKET) into PAIR.
 * Returns 0. Source: socketpair(2). */
LPORT_API int64_t lport_socket_pair(int32_t kind, int64_t *pair);

/* [nowait] Shuts down LPORT_INPUT, LPORT_OUTPUT or both. Output: the peer reads end of file once it
 * has read what was sent. Input: later calls to receive return end of file, whatever arrives
 * or has happened. Repeating it, or doing it after a reset, is quiet (0). LPORT_NOT_CONNECTED: a
 * listener.
 * Source: shutdown(2). */
LPORT_API int64_t lport_socket_shutdown(int64_t socket, int32_t direction);

/* [nowait] The address that SOCKET has, or its peer's, into ADDRESS; IPv4-mapped addresses as plain
 * IPv4. Returns the family. LPORT_NOT_CONNECTED. Source: getsockname(2), getpeername(2). */
LPORT_API int64_t lport_socket_name(int64_t socket, uint8_t *address);
LPORT_API int64_t lport_socket_peer(int64_t socket, uint8_t *address);

/* ---- datagram: sockets that keep the boundaries of messages -------------------------------------
 *
 * UDP sockets, local datagram sockets, and local sockets of sequenced packets: a message is sent
 * whole or not at all, and received by one call. Messages of no octets are messages. */

/* [nowait] A UDP socket, or a local datagram socket, with its own end at LOCAL and, unless REMOTE
 * is NULL, connected to REMOTE: then it sends there, receives only from there, and reports what
 * ICMP says of it. LOCAL: family LPORT_ANY is the wildcard of REMOTE's family; without a REMOTE it
 * is one IPv6 socket for IPv4 too, or an IPv4 one where the system has no IPv6. An IPv6 address,
 * `::` among them, is for IPv6 alone; IPv4-mapped addresses are IPv4. A local name of length 0 lets
 * the system pick an abstract one. FLAGS: LPORT_REUSE_ADDRESS _REUSE_PORT _V6_ONLY _BROADCAST
 * _PACKET_INFO _JOINED. The last lets the system hand over messages of one length from one sender
 * as one, where it knows how to, which lport_datagram_receive_batch takes apart; no other function
 * receives on such a socket. COUNT settings are at SETTINGS. LPORT_INVALID: LOCAL and REMOTE are of
 * different families. Else as lport_socket_listen, where lport_status_own tells that LOCAL is not
 * to be had, and what a connect may meet (LPORT_NETWORK_UNREACHABLE ...); nothing is left behind.
 * For a local name with a mode and without stale files see lport_local_listen. Source: socket(2)
 * bind(2) connect(2) udp(7). */
LPORT_API int64_t lport_datagram_open(const uint8_t *local, const uint8_t *remote, int32_t flags,
                                      const uint8_t *settings, int32_t count);

/* [nowait] Sends the LEN octets at OCTETS as one message, to ADDRESS, or where SOCKET is connected
 * to if that is NULL; LEN. LPORT_WOULD_BLOCK: wait for LPORT_OUTPUT. LPORT_BACKLOG_FULL: the
 * receiver of a local name has no room, which no wait tells: try again a little later.
 * LPORT_MESSAGE_TOO_LONG. LPORT_NOT_CONNECTED: ADDRESS is NULL, and it is not. Sequenced packets go
 * to their peer, whatever ADDRESS is. A connected socket, and any one with option `receive-errors`,
 * reports here or at a receive what ICMP said of an earlier message (LPORT_CONNECTION_REFUSED,
 * LPORT_HOST_UNREACHABLE ...), once; then this message was not sent, and the socket works on. See
 * lport_datagram_undelivered.
 * Source: send(2), sendto(2). */
LPORT_API int64_t lport_datagram_send(int64_t socket, const uint8_t *octets, size_t len,
                                      const uint8_t *address);

/* [nowait] Where the last call of this thread that failed on SOCKET, a send or a receive of
 * whatever kind, was told of an earlier message, to whomever: where that went, into ADDRESS.
 * Returns the family, LPORT_ANY where it is not known, and from the second time on. It is known
 * where the system queues what ICMP says, as option `receive-errors` asks for. There each call
 * tells of one message, and nothing else has happened; a call that has failed for a reason of its
 * own says so when it is made again. Source: MSG_ERRQUEUE of recvmsg(2), IP_RECVERR of ip(7). */
LPORT_API int64_t lport_datagram_undelivered(int64_t socket, uint8_t *address);

/* [nowait] Receives the next message, at most LEN octets of it, into OCTETS. Returns its full
 * length: above LEN it was cut off, and the rest is gone. Its sender's address goes into SENDER
 * unless that is NULL. FLAGS: LPORT_PEEK, LPORT_PATIENT (see lport_socket_receive).
 * LPORT_WOULD_BLOCK. LPORT_END: of sequenced packets, end of file. LPORT_NOT_SUPPORTED: opened with
 * LPORT_JOINED, or adopted with UDP_GRO on. Failures of a connected socket as above.
 * Source: recv(2), recvfrom(2) with MSG_TRUNC. */
LPORT_API int64_t lport_datagram_receive(int64_t socket, uint8_t *octets, size_t len,
                                         uint8_t *sender, int32_t flags);

/* [nowait] Sends COUNT messages, at least one: message I is LENGTHS[I] octets, at most ROOM, at
 * OCTETS + I * ROOM, and goes to the address block at ADDRESSES + I * LPORT_ADDRESS_SIZE, or where
 * SOCKET is connected to if that has family LPORT_ANY. Returns how many were sent, the first ones;
 * a status is what the first met, as of lport_datagram_send (of a full receiver of a local name
 * LPORT_WOULD_BLOCK). Messages of one length for one address that follow each other are handed over
 * as one, where the system knows how to. LPORT_NOT_SUPPORTED: not a datagram socket.
 * Source: sendmmsg(2), UDP_SEGMENT of udp(7). */
LPORT_API int64_t lport_datagram_send_batch(int64_t socket, const uint8_t *octets, size_t room,
                                            const int64_t *lengths, const uint8_t *addresses,
                                            int32_t count);

/* [nowait] Receives the messages that are there, at most COUNT, at least one, in the same places:
 * full lengths into LENGTHS (above ROOM: it was cut off), senders into SENDERS. Returns how many;
 * else as lport_datagram_receive. On a socket with LPORT_JOINED there has to be a place for
 * whatever comes as one: COUNT at least 128 and COUNT * ROOM at least 65536, else LPORT_INVALID;
 * the more of that, the more comes by one system call. Source: recvmmsg(2) with MSG_TRUNC, UDP_GRO
 * of udp(7). */
LPORT_API int64_t lport_datagram_receive_batch(int64_t socket, uint8_t *octets, size_t room,
                                               int64_t *lengths, uint8_t *senders, int32_t count);

/* [nowait] The first sends as lport_datagram_send, from the end OWN, whatever SOCKET is bound to,
 * by the way that the routes say. The second receives as lport_datagram_receive, and tells in OWN
 * which of the addresses of this host the message was sent to, if SOCKET was opened with
 * LPORT_PACKET_INFO: else its family is LPORT_ANY. OWN is an address block with port 0; its octets
 * 4-7 are the index of the interface by which the message came, of IPv4, too (of which a send makes
 * use for a link-local address alone); octet 1 is 1 where the address is one of many, a group or a
 * broadcast address, from which nothing can be sent, else 0. Neither ADDRESS nor SENDER may be
 * NULL. LPORT_ADDRESS_NOT_AVAILABLE: OWN is no address of this host, or one of many. LPORT_INVALID:
 * OWN and ADDRESS are of different families. LPORT_NOT_SUPPORTED: not a UDP socket. Source:
 * IP_PKTINFO of ip(7), IPV6_PKTINFO of RFC 3542. */
LPORT_API int64_t lport_datagram_send_from(int64_t socket, const uint8_t *octets, size_t len,
                                           const uint8_t *address, const uint8_t *own);
LPORT_API int64_t lport_datagram_receive_at(int64_t socket, uint8_t *octets, size_t len,
                                            uint8_t *sender, uint8_t *own, int32_t flags);

/* [nowait] As lport_datagram_send_batch and _receive_batch, with an own end of each message at OWNS
 * + I * LPORT_ADDRESS_SIZE; OWNS may be NULL. A message is sent from where the system picks if its
 * own end has family LPORT_ANY or is one of many: what was received can be sent back as it stands.
 * LPORT_ADDRESS_NOT_AVAILABLE and LPORT_INVALID as above. */
LPORT_API int64_t lport_datagram_send_batch_from(int64_t socket, const uint8_t *octets, size_t room,
                                                 const int64_t *lengths, const uint8_t *addresses,
                                                 const uint8_t *owns, int32_t count);
LPORT_API int64_t lport_datagram_receive_batch_at(int64_t socket, uint8_t *octets, size_t room,
                                                  int64_t *lengths, uint8_t *senders, uint8_t *owns,
                                                  int32_t count);

/* [nowait] Receives on SOCKET, a UDP one, what is sent to GROUP, a multicast address, on the
 * interface of index INTERFACE (0: the system picks by its routes); with a SOURCE, unless that is
 * NULL, only what comes from there, and further sources may be joined. An IPv6 socket may join IPv4
 * groups. IPv4-mapped addresses are IPv4, and a zone in GROUP counts for nothing. From the first
 * join on SOCKET hears no group of either family that only others on the host have joined.
 * Returns 0.
 * LPORT_ADDRESS_IN_USE: it is joined already. LPORT_ADDRESS_NOT_AVAILABLE: no such interface.
 * LPORT_BUFFERS_EXHAUSTED: too many groups. LPORT_NOT_SUPPORTED: not a UDP socket, or one of IPv4
 * only and a GROUP of IPv6. The second ends it; LPORT_ADDRESS_NOT_AVAILABLE: it was not joined.
 * Source: ip(7) (IP_MULTICAST_ALL), RFC 3678 (MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP). */
LPORT_API int64_t lport_datagram_join(int64_t socket, const uint8_t *group, int32_t interface,
                                      const uint8_t *source);
LPORT_API int64_t lport_datagram_leave(int64_t socket, const uint8_t *group, int32_t interface,
                                       const uint8_t *source);

/* ---- local: sockets named by files ----------------------------------------------------------- */

/* [nowait] A listening socket of KIND (LPORT_STREAM, LPORT_SEQPACKET), or a bound one
 * (LPORT_DATAGRAM), on the local name ADDRESS. MODE: permission bits for the path, or below 0 for
 * what the umask says. With LPORT_UNLINK in FLAGS a stale path (a socket that refuses connections)
 * is removed first, a live one and other files never. COUNT settings are at SETTINGS.
 * LPORT_ADDRESS_IN_USE, LPORT_PATH_TAKEN,
 * LPORT_PATH_UNUSABLE, LPORT_PERMISSION_DENIED ...; LPORT_DESCRIPTORS_EXHAUSTED and its kin, also
 * where it could not be looked whether a path is stale; nothing is left behind. (Of two that start
 * at the same moment on one stale path, one may take it from the other, whose file it finds where
 * it found the stale one.) Source: unix(7). */
LPORT_API int64_t lport_local_listen(const uint8_t *address, int32_t kind, int32_t backlog,
                                     int32_t mode, int32_t flags, const uint8_t *settings,
                                     int32_t count);

/* [nowait] Who is at the other end of SOCKET, a local one: process, user and group, as they were
 * when it connected, or made the pair, into the three numbers of IDENTITY. Returns 0.
 * LPORT_NOT_CONNECTED. LPORT_NOT_SUPPORTED: not a local socket. Source: SO_PEERCRED, unix(7). */
LPORT_API int64_t lport_local_credentials(int64_t socket, int64_t *identity);

/* [nowait] Sends the LEN octets at OCTETS, at least one on a stream, and with the first of them
 * copies of the COUNT (1 to 253) DESCRIPTORS, which stay the caller's. Returns how many octets were
 * sent, on a stream perhaps fewer. LPORT_WOULD_BLOCK: nothing was sent. LPORT_INVALID: one of them
 * is no descriptor. LPORT_NOT_SUPPORTED: not a local socket. Source: sendmsg(2), SCM_RIGHTS. */
LPORT_API int64_t lport_local_send(int64_t socket, const uint8_t *octets, size_t len,
                                   const int64_t *descriptors, int32_t count);

/* [nowait] Receives at most LEN octets (of a message; at least one of a stream) into OCTETS, and
 * the descriptors that came with them into DESCRIPTORS, which has MAX elements; those left over are
 * set to -1. They are close-on-exec and the caller's to close; descriptors above MAX are closed.
 * Those that this process cannot have, because it is at the limit of its descriptors, are lost, and
 * their places are -1. Returns how many octets; what a message has above LEN is gone. LPORT_END:
 * end of file. LPORT_WOULD_BLOCK. With a status no descriptor has come, whatever DESCRIPTORS has
 * then. Source: recvmsg(2) with MSG_CMSG_CLOEXEC. */
LPORT_API int64_t lport_local_receive(int64_t socket, uint8_t *octets, size_t len,
                                      int64_t *descriptors, int32_t max);

/* [nowait] As lport_datagram_receive, of messages on local sockets, and tells who has sent this
 * one: process, real user and real group, as they were then, into the three numbers of IDENTITY, if
 * option `pass-credentials` is on: else -1 thrice. Of a message that came before it was on they are
 * 0 and the user and group that the system has for nobody, 65534. Descriptors that come with it are
 * closed. No LPORT_PEEK and no LPORT_PATIENT. LPORT_NOT_SUPPORTED: not a local socket.
 * Source: recvmsg(2), SCM_CREDENTIALS of unix(7). */
LPORT_API int64_t lport_local_receive_from(int64_t socket, uint8_t *octets, size_t len,
                                           uint8_t *sender, int64_t *identity);

/* ---- option: one table of names -------------------------------------------------------------- */

/* A value is a number of zero or more; LPORT_NEVER stands for none where the option has that. A
 * boolean is 0 or 1; an integer a count of its unit; a time is in nanoseconds, which the system
 * rounds up to its unit; a choice is a place in its list, lport_option_choice; an interface is its
 * index, lport_interface_index. A text is no number: the functions with `text` in their names have
 * it, and one of length 0 is none. */

/* [pure] Of option INDEX (0, 1, ...): its name, such as "nodelay"; its kind, as above; its unit,
 * such as "octets", or "" for none; the sockets that it is for, such as "TCP"; a sentence on what
 * it does, with its source; static, terminated. NULL past the last. Source: socket(7), ip(7),
 * ipv6(7), tcp(7), unix(7). */
LPORT_API const char *lport_option_name(int32_t index);
LPORT_API const char *lport_option_kind(int32_t index);
LPORT_API const char *lport_option_unit(int32_t index);
LPORT_API const char *lport_option_sockets(int32_t index);
LPORT_API const char *lport_option_note(int32_t index);

/* [pure] What value CHOICE (0, 1, ...) of option INDEX stands for, such as "stream"; NULL past the
 * last, and for an option of another kind. */
LPORT_API const char *lport_option_choice(int32_t index, int32_t choice);

/* [pure] LPORT_OPTION_ bits of option INDEX. LPORT_INVALID: past the last. */
LPORT_API int64_t lport_option_access(int32_t index);

/* [nowait] The value of option INDEX of SOCKET. LPORT_NOT_SUPPORTED: not this kind of socket;
 * LPORT_NOT_CONNECTED; LPORT_OTHER: the system's value has no place in the list.
 * Source: getsockopt(2). */
LPORT_API int64_t lport_option_get(int64_t socket, int32_t index);

/* [nowait] Sets it; 0. Of an IPv6 socket that is not v6-only it is set for IPv4 too, which the
 * system keeps apart, and has to be what both take. LPORT_INVALID: out of range, or an option that
 * can only be read; then nothing has changed. LPORT_PERMISSION_DENIED;
 * LPORT_ADDRESS_NOT_AVAILABLE: no such interface, or it has no address of the socket's family.
 * Source: setsockopt(2). */
LPORT_API int64_t lport_option_set(int64_t socket, int32_t index, int64_t value);

/* [nowait] The same for options whose kind is text. LPORT_INVALID: a zero octet in it, or longer
 * than any name can be (15 octets). */
LPORT_API int64_t lport_option_get_text(int64_t socket, int32_t index, char *text, size_t cap);
LPORT_API int64_t lport_option_set_text(int64_t socket, int32_t index, const char *text,
                                        size_t len);

/* ---- info: what the system knows of a socket ------------------------------------------------- */

/* [pure] Of field INDEX (0, 1, ...): its name, such as "rtt"; its kind: "count", "octets", "time"
 * (nanoseconds), "rate" (octets a second) or "state"; a sentence on it; static, terminated. NULL
 * past the last. */
LPORT_API const char *lport_info_name(int32_t index);
LPORT_API const char *lport_info_kind(int32_t index);
LPORT_API const char *lport_info_note(int32_t index);

/* [pure] The name of STATE, the value of a field of that kind, such as "established"; or NULL. */
LPORT_API const char *lport_info_state(int64_t state);

/* [nowait] The first COUNT fields of SOCKET into VALUES; LPORT_NEVER for one that this system does
 * not tell of such a socket: most are of TCP connections and listeners, those of memory, and what
 * was dropped, of any. Returns how many fields there are. LPORT_NOT_SUPPORTED: a poller.
 * Source: getsockopt(2), TCP_INFO of tcp(7), SO_MEMINFO. */
LPORT_API int64_t lport_info_read(int64_t socket, int64_t *values, int32_t count);

/* ---- adopt: descriptors that somebody else has made ------------------------------------------ */

/* [nowait] What the descriptor FD is: family + 256 * kind + 65536 * state, where state has
 * LPORT_STATE_LISTENING and LPORT_STATE_CONNECTED, and LPORT_STATE_PACKET_INFO of a UDP socket that
 * has IP_PKTINFO or IPV6_RECVPKTINFO on. LPORT_INVALID with the system's number: it is
 * closed (EBADF) or no socket (ENOTSOCK); without one: it belongs to a socket of this library.
 * LPORT_NOT_SUPPORTED: a socket of another family or kind. Source: socket(7), getpeername(2). */
LPORT_API int64_t lport_descriptor_inspect(int32_t fd);

/* [nowait] Makes FD a socket here, close-on-exec and non-blocking; FD is the socket's own from then
 * on. (Non-blocking holds for every process that shares it: fcntl(2).) With LPORT_STATE_PACKET_INFO
 * it is as one opened with LPORT_PACKET_INFO. Statuses as above, and
 * LPORT_MEMORY_EXHAUSTED; then FD is the caller's still, and as it was. */
LPORT_API int64_t lport_descriptor_adopt(int32_t fd);

/* [nowait] The reverse, begun: closes SOCKET as lport_socket_close does, but for the descriptor,
 * which waits for the next function, that has to be called: 0. LPORT_NOT_SUPPORTED: SOCKET has TLS,
 * or is a poller; it is as before. LPORT_CLOSED: it was closed before. */
LPORT_API int64_t lport_socket_detach(int64_t socket);

/* [nowait] Ends what the function above has begun, for its caller alone. With KEEP 1 the
 * descriptor, the caller's from then on: it blocks, has no limit of ours to that, is close-on-exec
 * still, and the path of a listener stays. LPORT_WOULD_BLOCK: somebody is leaving SOCKET still, see
 * lport_socket_gone; any other status: the system could not make it block; either way it has not
 * ended. With KEEP 0 closes the descriptor, once the last one has left: 0. LPORT_CLOSED: nothing
 * has begun, or in the parent of this process. LPORT_INVALID: another thread is just closing
 * SOCKET. Source: fcntl(2). */
LPORT_API int64_t lport_socket_detach_end(int64_t socket, int32_t keep);

/* [nowait] How many descriptors the system has handed over to this process, from 3 on: LISTEN_FDS
 * if LISTEN_PID names this process, else 0. LPORT_INVALID: these variables have no numbers in them.
 * Source: sd_listen_fds(3). */
LPORT_API int64_t lport_activation_count(void);

/* [nowait] The name that LISTEN_FDNAMES gives the descriptor 3 + INDEX, into TEXT; a text of length
 * 0 where it gives none. LPORT_INVALID: there are not so many. */
LPORT_API int64_t lport_activation_name(int32_t index, char *text, size_t cap);

/* [nowait] Removes the variables, so that no child takes them for its own. Only while no other
 * thread reads the environment, as for unsetenv(3). 0. */
LPORT_API int64_t lport_activation_forget(void);

/* ---- transfer: octets in and out ------------------------------------------------------------- */

/* [nowait] Receives at most LEN octets into OCTETS; how many. 0 with LEN above 0 is end of file,
 * and it repeats. LPORT_WOULD_BLOCK. LPORT_CONNECTION_RESET and its kin: the connection is broken;
 * that is remembered and returned by every later call, but only after what arrived before has been
 * read. FLAGS: 0, LPORT_PEEK, LPORT_PATIENT. With LPORT_PATIENT, meant for an answer that comes
 * soon, it waits up to LPORT_PATIENCE_NS, which saves the system call of a wait, and returns
 * LPORT_WOULD_BLOCK then or as soon as a signal comes; a close by another thread has to wait so
 * long too. Source: recv(2). */
LPORT_API int64_t lport_socket_receive(int64_t socket, uint8_t *octets, size_t len, int32_t flags);

/* [nowait] Sends at most LEN octets; how many the system took. LPORT_WOULD_BLOCK: no room now.
 * LPORT_OUTPUT_SHUT after a shutdown of ours. LPORT_CONNECTION_RESET and its kin as above.
 * LPORT_NOT_CONNECTED: a listener. No SIGPIPE. Source: send(2) with MSG_NOSIGNAL. */
LPORT_API int64_t lport_socket_send(int64_t socket, const uint8_t *octets, size_t len);

/* [nowait] The same for two pieces in one system call: first all of A, then B. Source: sendmsg(2).
 */
LPORT_API int64_t lport_socket_send2(int64_t socket, const uint8_t *a, size_t a_len,
                                     const uint8_t *b, size_t b_len);

/* [nowait] Sends at most LEN octets, and no more than 1 MiB, of FILE, the descriptor of a regular
 * file, from OFFSET on, without a copy in this process where the system can; how many the system
 * took; 0 with LEN above 0: the file ends at OFFSET or before. The file's own position is neither
 * used nor moved. Stream sockets only: LPORT_NOT_SUPPORTED. LPORT_INVALID: OFFSET is below 0, FILE
 * is not open for reading or has no offsets (a pipe, a socket). LPORT_OTHER with the system's
 * number: the file cannot be read. Else as lport_socket_send; no SIGPIPE. A disk that is slow is
 * waited for. Source: sendfile(2). */
LPORT_API int64_t lport_socket_send_file(int64_t socket, int32_t file, int64_t offset, size_t len);

/* [nowait] What is in this process of what SOCKET has received, LPORT_INPUT and LPORT_OUTPUT or 0:
 * INPUT: a receive finds octets, or what ended them, without asking the system, which then does not
 * tell that there is input: part of a record of TLS. The waits above know of that, a poller does
 * not. OUTPUT: part of a message that is for TLS itself, before the rest of which nothing can be
 * sent: waits and pollers for LPORT_OUTPUT wait for that rest, and a call may find that it has not
 * come yet. */
LPORT_API int64_t lport_socket_buffered(int64_t socket);

/* [nowait] What has broken the connection of SOCKET, also while what arrived before is still to be
 * received: LPORT_CONNECTION_RESET and its kin, which later calls return too, as above. 0: nothing
 * has, or none but a reset by a peer that had ended its output: what it sent is whole then, and can
 * be received to its end; only a send tells of that. LPORT_NOT_SUPPORTED: a datagram socket.
 * Source: SO_ERROR of socket(7). */
LPORT_API int64_t lport_socket_failure(int64_t socket);

/* ---- poller: readiness of many sockets ---------------------------------------------------------
 *
 * A poller is a socket of the table (lport_socket_close closes it and wakes whoever waits in it;
 * lport_socket_gone, lport_socket_count) that holds other sockets, each with an interest. It is
 * level-triggered: a socket is reported as long as it is ready. Every function may be called from
 * several threads at once. A socket that is closed, by whomever, has left the poller when its close
 * returns, and no event ever names it again; events name sockets, not descriptors, so the next
 * socket with its descriptor or its place in the table is never taken for it. After a fork the
 * child has no pollers: each is LPORT_CLOSED there, and may be closed. */

/* [nowait] A new poller with BACKEND, LPORT_POLLER_ (_BEST: epoll where there is one, and no filter
 * of system calls forbids it). Returns the poller. LPORT_NOT_SUPPORTED: the system has no such
 * backend. LPORT_PERMISSION_DENIED: a filter forbids it. The exhausted ones.
 * Source: epoll_create1(2), eventfd(2), seccomp(2). */
LPORT_API int64_t lport_poller_open(int32_t backend);

/* [nowait] Puts SOCKET into POLLER with INTEREST: LPORT_INPUT, LPORT_OUTPUT, both, or 0 for none at
 * present. 0. LPORT_INVALID: it is in already, or is a poller. The exhausted ones
 * (LPORT_BUFFERS_EXHAUSTED: /proc/sys/fs/epoll/max_user_watches). Source: epoll_ctl(2). */
LPORT_API int64_t lport_poller_add(int64_t poller, int64_t socket, int32_t interest);

/* [nowait] Gives SOCKET, in POLLER, another INTEREST; waits under way obey it. 0. LPORT_INVALID: it
 * is not in. */
LPORT_API int64_t lport_poller_modify(int64_t poller, int64_t socket, int32_t interest);

/* [nowait] Leaves SOCKET, in POLLER, without interest until lport_poller_modify, and returns the
 * interest that it had: so of several threads that a wait told of one socket, the one for which
 * this is not 0 has it for itself. LPORT_INVALID: it is not in. */
LPORT_API int64_t lport_poller_claim(int64_t poller, int64_t socket);

/* [nowait] Takes SOCKET out of POLLER; a wait under way in another thread may still report it. 0.
 * LPORT_INVALID: it is not in. */
LPORT_API int64_t lport_poller_remove(int64_t poller, int64_t socket);

/* [nowait] Begins a wait in POLLER. Returns a turn, 0 or more, for the next two functions; it
 * belongs to one thread. The exhausted ones. */
LPORT_API int64_t lport_poller_begin(int64_t poller);

/* [waits] Until sockets of POLLER are ready: how many events are in EVENTS, which has room for CAP
 * of them (1 or more). An event is LPORT_EVENT_SIZE integers: the socket; the LPORT_INPUT and
 * LPORT_OUTPUT of its interest that hold, LPORT_ENDED where the peer has ended its output (there
 * may be input before it; an end that TLS tells of is LPORT_INPUT and no more), LPORT_FAILED where
 * the connection failed (the next call tells how; every direction of the interest then holds too).
 * What finds no room is reported by the next wait, and nobody is starved. 0: woken by
 * lport_poller_wake. LPORT_WOULD_BLOCK: what the poller holds may have changed; end the turn and
 * begin another. LPORT_TIMED_OUT, by itself at most a millisecond late. LPORT_CLOSED: POLLER is
 * closed. LPORT_INTERRUPTED: a signal came, only if INTERRUPTIBLE is not 0. Source: epoll_wait(2),
 * poll(2). */
LPORT_API int64_t lport_poller_wait(int64_t poller, int64_t turn, int64_t *events, int32_t cap,
                                    int64_t deadline, int32_t interruptible);

/* [nowait] Ends TURN. Always, once, whatever happened in between. 0. */
LPORT_API int64_t lport_poller_end(int64_t poller, int64_t turn);

/* [nowait] Makes one wait in POLLER return 0: one that is under way, or else the next. Several
 * before that count as one. 0. Source: eventfd(2). */
LPORT_API int64_t lport_poller_wake(int64_t poller);

/* ---- text: octets to characters and back ----------------------------------------------------- */

/* Characters are UTF-32 code points in host order. The decoders and encoders stop at the end of
 * their input, when their output is full, or before what they cannot convert. They return consumed
 * * LPORT_TEXT_SCALE + produced in elements of input and of output; both stay below 2^31 however
 * long the vectors are. */
#define LPORT_TEXT_SCALE 2147483648 /* 2^31 */

/* [pure] The index of the first line feed in OCTETS, or LEN where there is none. */
LPORT_API int64_t lport_text_find_line(const uint8_t *octets, size_t len);

/* [pure] The index behind the last line feed in OCTETS, or 0 where there is none. */
LPORT_API int64_t lport_text_last_line(const uint8_t *octets, size_t len);

/* [pure] The line that OCTETS, which are UTF-8, begin with: consumed, its octets without the line
 * feed; produced, its characters, as lport_text_utf8_count counts them. LPORT_WOULD_BLOCK: there is
 * no line feed. */
LPORT_API int64_t lport_text_measure_line(const uint8_t *octets, size_t len);

/* [pure] Decode OCTETS to CHARS. UTF-8 is validated as RFC 3629 says: no overlong form, no
 * surrogate, nothing above U+10FFFF is ever written. The `8` forms write one octet per character
 * (base strings) and stop before what needs more than 7 bits. */
LPORT_API int64_t lport_text_from_utf8(const uint8_t *octets, size_t len, uint32_t *chars,
                                       size_t cap);
LPORT_API int64_t lport_text_from_latin1(const uint8_t *octets, size_t len, uint32_t *chars,
                                         size_t cap);
LPORT_API int64_t lport_text_from_ascii(const uint8_t *octets, size_t len, uint32_t *chars,
                                        size_t cap);
LPORT_API int64_t lport_text_from_ascii8(const uint8_t *octets, size_t len, uint8_t *chars,
                                         size_t cap);

/* [pure] Why lport_text_from_utf8 stopped at the beginning of OCTETS: 0, they are a beginning that
 * more octets could complete (or there are none); above 0, they begin with that many octets (1 to
 * 3) that no octets could complete, to be replaced by one U+FFFD (Unicode 3.9, maximal subparts);
 * below 0, they begin with a whole character of -n octets. */
LPORT_API int64_t lport_text_utf8_problem(const uint8_t *octets, size_t len);

/* [pure] How many characters OCTETS, which are UTF-8, are: the octets that begin one. Of what is
 * not UTF-8 the result says nothing. It takes a fraction of the time of decoding. */
LPORT_API int64_t lport_text_utf8_count(const uint8_t *octets, size_t len);

/* [pure] Encode CHARS. UTF-8 stops before surrogates and numbers above U+10FFFF, Latin-1 before
 * characters above U+00FF, ASCII before those above U+007F. */
LPORT_API int64_t lport_text_to_utf8(const uint32_t *chars, size_t len, uint8_t *octets,
                                     size_t cap);
LPORT_API int64_t lport_text_to_latin1(const uint32_t *chars, size_t len, uint8_t *octets,
                                       size_t cap);
LPORT_API int64_t lport_text_to_ascii(const uint32_t *chars, size_t len, uint8_t *octets,
                                      size_t cap);

/* ---- resolve: names ------------------------------------------------------------------------- */

/* [nowait] Asks the system for the addresses of NAME in FAMILY (LPORT_ANY, _INET, _INET6), on a
 * thread of the library with every signal blocked. Returns a query, a positive integer, to be
 * closed. Never for literals: LPORT_INVALID. FLAGS: 0 or LPORT_ALIASES. LPORT_ADDRESS_SYNTAX:
 * empty, longer than 255 octets, or a zero octet in it. LPORT_THREADS_EXHAUSTED: there is no such
 * thread and none could be made. LPORT_MEMORY_EXHAUSTED. Up to 256 look-ups are at work at a time,
 * those counted that were abandoned and that the system has not given up yet; further ones wait in
 * a queue, in order. A query that asks the same as one in the queue, or as one at work for less
 * than a second, shares its answer. NAME is passed on as it is; name servers know letters outside
 * ASCII in their IDNA form, xn--... Source: getaddrinfo(3) without AI_ADDRCONFIG. */
LPORT_API int64_t lport_resolve_open(const char *name, size_t len, int32_t family, int32_t flags);

/* [nowait] Asks for the names of ADDRESS, of IPv4 or IPv6; an IPv4-mapped one is the IPv4 address.
 * Else as lport_resolve_open. Source: getnameinfo(3) with NI_NAMEREQD,
 * gethostbyaddr_r(3). */
LPORT_API int64_t lport_resolve_reverse(const uint8_t *address);

/* [waits] Until QUERY has its answer (0) or the deadline passes (LPORT_TIMED_OUT). */
LPORT_API int64_t lport_resolve_wait(int64_t query, int64_t deadline);

/* [nowait] How many addresses the answer has; LPORT_IN_PROGRESS: none yet; LPORT_HOST_NOT_FOUND,
 * LPORT_RESOLVER_TRY_AGAIN, LPORT_RESOLVER_FAILURE: it failed. LPORT_DESCRIPTORS_EXHAUSTED,
 * LPORT_MEMORY_EXHAUSTED: it could not even ask. */
LPORT_API int64_t lport_resolve_count(int64_t query);

/* [nowait] Address INDEX of the answer, in the resolver's order, port 0, into ADDRESS. Returns the
 * family. */
LPORT_API int64_t lport_resolve_address(int64_t query, int32_t index, uint8_t *address);

/* [nowait] Name INDEX of the answer into TEXT: 0 is the canonical one, then the aliases.
 * LPORT_INVALID: there are not so many. */
LPORT_API int64_t lport_resolve_name(int64_t query, int32_t index, char *text, size_t cap);

/* [nowait] Forgets QUERY, answered or not. A look-up at work that nobody asks for any more is
 * abandoned to its thread, as nothing ends getaddrinfo(3); one in the queue is dropped. 0. */
LPORT_API int64_t lport_resolve_close(int64_t query);

/* [nowait] The system's row for service NAME and PROTOCOL ("tcp", "udp") into TEXT in the form of
 * services(5): `http 80/tcp www`. PROTOCOL of length 0: any. NAME in digits: by number.
 * Returns the length of the row. LPORT_SERVICE_NOT_FOUND; LPORT_DESCRIPTORS_EXHAUSTED and
 * LPORT_MEMORY_EXHAUSTED: the table could not be read. Source: getservent(3). */
LPORT_API int64_t lport_service_find(const char *name, size_t name_len, const char *protocol,
                                     size_t protocol_len, char *text, size_t cap);

/* [nowait] Every row of the table, a line each, into TEXT; the length that all of it needs.
 * Fails as lport_service_find does where the table could not be read. LPORT_NOT_SUPPORTED: the C
 * library can only be asked for one row. */
LPORT_API int64_t lport_service_list(char *text, size_t cap);

/* ---- dial: a connection to a name, whichever of its addresses answers ------------------------ */

/* [nowait] Begins to connect to NAME (a literal, or a name, which is looked up) at PORT (1-65535)
 * over FAMILY (LPORT_ANY, _INET, _INET6), from the address LOCAL (NULL: the system picks; its
 * family may be LPORT_ANY to give only a port). FLAGS: LPORT_NODELAY, LPORT_KEEPALIVE;
 * LPORT_TWO_LOCALS: LOCAL is two blocks one after the other, and an attempt is made from the first
 * that is of its family. An address of a family of which there is no own end is left out; if that
 * is all of them the first step fails with LPORT_ADDRESS_NOT_AVAILABLE, without an attempt.
 * Attempts follow RFC 8305: where the answer for both families takes longer than 250 ms, each is
 * asked for by itself, too, and what comes first is tried first. Returns a dial, a positive
 * integer, to be closed; it belongs to one thread. IPv4-mapped addresses, that of LOCAL too, are
 * IPv4. LPORT_ADDRESS_SYNTAX: NAME can only be a literal and is not one, or PORT is none.
 * LPORT_DESCRIPTORS_EXHAUSTED. Else, where NAME has a zone, what lport_address_parse says of that,
 * and, where it is a name, what lport_resolve_open says. A literal of another family than FAMILY is
 * reported by the first step: LPORT_HOST_NOT_FOUND. */
LPORT_API int64_t lport_dial_open(const char *name, size_t len, int32_t port, int32_t family,
                                  const uint8_t *local, int32_t flags);

/* [nowait] The same to COUNT address blocks one after the other in ADDRESSES, ports included (0 or
 * more; none of them makes the first step fail with LPORT_HOST_NOT_FOUND). They are tried in the
 * order given: the families of a name take turns, those of a list do not. Local names too; KIND as
 * in lport_local_listen, LPORT_STREAM otherwise. An attempt at a local name whose backlog is full
 * is made again, a little later each time, as long as DIAL is open. Where LOCAL is a path, the file
 * of an attempt that does not win goes with it, and that of the winner stays. */
LPORT_API int64_t lport_dial_open_addresses(const uint8_t *addresses, int32_t count, int32_t kind,
                                            const uint8_t *local, int32_t flags);

/* [nowait] Gives every attempt of DIAL the COUNT settings at SETTINGS; once, before the first step.
 * An attempt whose socket cannot have one of them has failed with that, and sends nothing; others
 * go on, so with an option for IPv6 alone only addresses of IPv6 are reached. 0.
 * LPORT_MEMORY_EXHAUSTED. LPORT_INVALID: it has some. */
LPORT_API int64_t lport_dial_set(int64_t dial, const uint8_t *settings, int32_t count);

/* [nowait] Does what can be done now. Returns the connected socket, which is the caller's from here
 * on; LPORT_IN_PROGRESS: wait and step again; or the failure that tells most once every address has
 * failed, or that of the resolver. */
LPORT_API int64_t lport_dial_step(int64_t dial);

/* [waits] Until a step is worth taking (0) or the deadline passes (LPORT_TIMED_OUT). */
LPORT_API int64_t lport_dial_wait(int64_t dial, int64_t deadline);

/* [nowait] A handle that a step of DIAL is due when it is ready for LPORT_INPUT: by
 * lport_wait_begin, or in a poller, beside sockets; so that one thread can drive many dials. It is
 * ready at DEADLINE too (LPORT_NEVER: not for that). A step makes it unready. Returns the handle,
 * the same for the same dial, whose deadline the later call sets anew. From the first call on any
 * thread may close DIAL, by closing either of the two: that wakes whoever waits for the handle, and
 * the other is closed with it, once the functions that other threads are in have returned
 * (lport_dial_wait too, which that does not wake). What stands of lport_socket_close holds; it is
 * no socket otherwise. A forked child can only close it. LPORT_NOT_SUPPORTED: the system has no
 * epoll. LPORT_PERMISSION_DENIED: a filter forbids it. The exhausted ones. LPORT_INVALID: DIAL is
 * closed. Source: epoll(7), timerfd_create(2). */
LPORT_API int64_t lport_dial_watch(int64_t dial, int64_t deadline);

/* [nowait] How many addresses have been tried, those that go on included. */
LPORT_API int64_t lport_dial_count(int64_t dial);

/* [nowait] Attempt INDEX, in the order tried: its address into ADDRESS; returns its failure, or
 * LPORT_IN_PROGRESS, or 0 if it was the one that connected. */
LPORT_API int64_t lport_dial_attempt(int64_t dial, int32_t index, uint8_t *address);

/* [nowait] 1 if attempt INDEX failed at its own end, and LOCAL has that then, in the family of the
 * attempt: nothing could be bound to it, and nobody was asked for a connection. 0: it did not. */
LPORT_API int64_t lport_dial_attempt_own(int64_t dial, int32_t index, uint8_t *local);

/* [nowait] Closes DIAL: attempts that go on are closed, a query is abandoned. 0. */
LPORT_API int64_t lport_dial_close(int64_t dial);

/* ---- tls: TLS 1.2 and 1.3 on connections -------------------------------------------------------
 *
 * A context says whom its sessions trust and who they are; a session is TLS on one connection, from
 * lport_tls_start until that is closed. In between the handshake is driven by lport_tls_step, and
 * after it octets are moved by lport_socket_receive, lport_socket_send and their neighbours, whose
 * entries hold with these additions:
 *
 * - lport_socket_send returns octets that have been taken; some may be held in the process still.
 *   With LEN 0 it hands them on: 0, once nothing is held, or LPORT_WOULD_BLOCK: wait for
 *   LPORT_OUTPUT and call it again.
 * - lport_socket_shutdown of LPORT_OUTPUT tells the peer of the end (close_notify), and may return
 *   LPORT_WOULD_BLOCK: the same. A plain close tells nothing.
 * - lport_socket_receive: 0 is the end that the peer has told of; LPORT_CONNECTION_TRUNCATED: the
 *   connection ended without. LPORT_TLS_FAILED: what came is no TLS, or an alert. LPORT_PATIENT is
 *   ignored. What is ready for LPORT_INPUT may turn out to be nothing for the user:
 *   LPORT_WOULD_BLOCK.
 * - Before the handshake is done: LPORT_NOT_CONNECTED.
 *
 * After fork() one of the two processes goes on with a session, and the other closes the socket and
 * does nothing else with it: two that send would use the same keys for different octets. A close of
 * the socket tells the peer of nothing; in the child LPORT_RESET is ignored where the session began
 * before the fork, so that nothing of the connection changes for the parent.
 *
 * What has failed is returned by every later call; a problem's text tells more. OpenSSL 3, its
 * libssl.so.3, is loaded by the first context: LPORT_NOT_SUPPORTED: it is not to be had. Source:
 * RFC 8446, RFC 5246; SSL_read(3ssl), SSL_write(3ssl), SSL_get_error(3ssl). */

/* [nowait] A context that trusts nobody, has no certificate and verifies servers; a positive
 * integer, to be closed. LPORT_NOT_SUPPORTED: see above. LPORT_DESCRIPTORS_EXHAUSTED: it cannot be
 * loaded now. LPORT_MEMORY_EXHAUSTED. */
LPORT_API int64_t lport_tls_context_open(void);

/* [nowait] Closes CONTEXT; sessions that were started with it go on. 0. LPORT_CLOSED: it names
 * none; so do the functions below. */
LPORT_API int64_t lport_tls_context_close(int64_t context);

/* The functions that change CONTEXT: not while another thread changes it too, starts a session of
 * it or is in the handshake of one. They return 0; LPORT_INVALID: a path that is empty, too long or
 * has a zero octet in it, or another argument outside what is said; LPORT_OTHER,
 * LPORT_PERMISSION_DENIED and their kin, with the system's number: a file could not be read;
 * LPORT_TLS_FAILED: what is in it will not do, or it is no regular file (to open a pipe could block
 * for ever), and lport_tls_context_problem says why. Files are read during the call. */

/* [nowait] Trusts, besides those it does, who is in SOURCE, or is certified by who is:
 * LPORT_TLS_SYSTEM, the authorities that this system trusts, without a path; LPORT_TLS_FILE, those
 * in the file at PATH, PEM; LPORT_TLS_DIRECTORY, those in the directory at PATH, as
 * openssl-rehash(1) makes it. Source: SSL_CTX_load_verify_locations(3ssl). */
LPORT_API int64_t lport_tls_context_trust(int64_t context, int32_t source, const char *path,
                                          size_t len);

/* [nowait] Takes no certificate that is in a list of the file at PATH, certificate revocation
 * lists, PEM. Once there is such a file, the issuer of each certificate of a chain has to have a
 * list in one of them, signed by him and not past its next update; so the chain has to go on to one
 * that certifies itself. Source: RFC 5280 5, X509_VERIFY_PARAM_set_flags(3ssl). */
LPORT_API int64_t lport_tls_context_revoked(int64_t context, const char *path, size_t len);

/* [nowait] Sessions show the certificate chain in the file at CHAIN, the own one first, and no more
 * than that has; its private key is in the file at KEY; both PEM, and they may be one file.
 * PASSPHRASE, LPORT_TLS_PASSPHRASE_MAX octets at the most, opens the key where it needs one; of
 * length 0: it needs none, or the call is LPORT_TLS_FAILED. It is not kept. Source:
 * SSL_CTX_use_certificate_chain_file(3ssl). */
LPORT_API int64_t lport_tls_context_identity(int64_t context, const char *chain, size_t chain_len,
                                             const char *key, size_t key_len,
                                             const char *passphrase, size_t passphrase_len);

/* [nowait] Whose certificate has to be good: MODE is LPORT_TLS_VERIFY_NOBODY;
 * LPORT_TLS_VERIFY_SERVER, that of a server, as it is where nothing is said; at a server also that
 * of a client which shows one, LPORT_TLS_VERIFY_GIVEN; LPORT_TLS_VERIFY: and it has to show one.
 * Source: SSL_set_verify(3ssl). */
LPORT_API int64_t lport_tls_context_verify(int64_t context, int32_t mode);

/* [nowait] Whether sessions of TLS 1.3 are resumed, as they are where nothing is said: ON is not 0.
 * Then a server that verifies no clients gives each one a ticket with the first octets it sends
 * him; and a client that expects a NAME keeps what it is given, 128 sessions at the most, in
 * memory, until CONTEXT is changed or closed, and resumes the latest of that name, at the same
 * port, within the hour, each once: that handshake needs no certificate, and a third of the time.
 * Of a session that is resumed lport_tls_text tells what the one before was shown. A server
 * remembers the latest 4,096, some 5 MB. What ended without either side's close_notify is not
 * resumed, nor is TLS 1.2. Source: RFC 8446 2.2, 4.6.1. */
LPORT_API int64_t lport_tls_context_resume(int64_t context, int32_t on);

/* [nowait] Versions from TLS 1.LOWEST to TLS 1.HIGHEST, 2 or 3 each; both, if nothing is said. */
LPORT_API int64_t lport_tls_context_versions(int64_t context, int32_t lowest, int32_t highest);

/* [nowait] The protocols above TLS that sessions speak, the best first: NAMES with commas in
 * between ("h2,http/1.1"), 254 octets at the most; none where LEN is 0. A server takes the first
 * of its own that the client has; where it has none of them the handshake fails. Source:
 * RFC 7301. */
LPORT_API int64_t lport_tls_context_protocols(int64_t context, const char *names, size_t len);

/* [nowait] Sessions of CONTEXT at a server show the certificate of OTHER, a context too, to a
 * client that asks for a name which that is for. Of several that were offered it is the first;
 * CONTEXT's own is for clients that ask for another name, or none. All else is of CONTEXT. One that
 * has been closed is shown no more. LPORT_INVALID: OTHER has no certificate, or
 * LPORT_TLS_OFFERED_MAX are offered already. Source: RFC 6066 3, X509_check_host(3ssl). */
LPORT_API int64_t lport_tls_context_offer(int64_t context, int64_t other);

/* [nowait] CONTEXT is from here on what BY was, for sessions that are started from now on, and BY
 * is closed; any thread may start one meanwhile. LPORT_INVALID: they are the same. */
LPORT_API int64_t lport_tls_context_replace(int64_t context, int64_t by);

/* [nowait] What OpenSSL said when a change of CONTEXT was LPORT_TLS_FAILED last, into TEXT; its
 * length. */
LPORT_API int64_t lport_tls_context_problem(int64_t context, char *text, size_t cap);

/* [nowait] Puts a session of CONTEXT on SOCKET, a connected stream socket; nothing is sent yet.
 * SIDE is LPORT_TLS_CLIENT or LPORT_TLS_SERVER. NAME, at a client, is whom it expects: a host's
 * name, which the server is told, or an address, which is not told; a server's certificate that is
 * verified has to be for it. With LEN 0 it may be for anybody. EARLY: octets that have been
 * received of SOCKET and are the beginning of TLS. 0, and SOCKET has TLS for good. LPORT_INVALID:
 * it has already, NAME has a zero octet in it or is longer than 255, or SIDE is none.
 * LPORT_ADDRESS_SYNTAX: NAME is none. LPORT_CLOSED: SOCKET or CONTEXT. LPORT_NOT_SUPPORTED: SOCKET
 * is of messages. LPORT_NOT_CONNECTED: a listener. LPORT_MEMORY_EXHAUSTED. Source:
 * SSL_set1_host(3ssl), RFC 6066 3. */
LPORT_API int64_t lport_tls_start(int64_t socket, int64_t context, int32_t side, const char *name,
                                  size_t len, const uint8_t *early, size_t early_len);

/* [nowait] Goes on with the handshake of SOCKET as far as that can be done now. 0: it is done;
 * LPORT_INPUT or LPORT_OUTPUT: wait for that and step again. LPORT_CERTIFICATE_REFUSED;
 * LPORT_TLS_FAILED; LPORT_CONNECTION_TRUNCATED: the peer has left; LPORT_CONNECTION_RESET and its
 * kin; LPORT_NOT_CONNECTED: SOCKET has no TLS. Source: SSL_do_handshake(3ssl). */
LPORT_API int64_t lport_tls_step(int64_t socket);

/* [nowait] What is known of the session of SOCKET, into TEXT; its length, 0 where there is nothing
 * to tell. WHAT is LPORT_TLS_VERSION ("TLSv1.3"); LPORT_TLS_CIPHER ("TLS_AES_256_GCM_SHA384");
 * LPORT_TLS_PROTOCOL, the protocol above that was agreed on; LPORT_TLS_SERVER_NAME, the name that
 * the client asked for; LPORT_TLS_PROBLEM, why it failed ("certificate has expired"); and of the
 * peer's certificate LPORT_TLS_SUBJECT and LPORT_TLS_ISSUER (RFC 2253), LPORT_TLS_VALID_UNTIL
 * ("2027-01-31T12:00:00Z"), and LPORT_TLS_CERTIFICATE, which is no text but octets, its DER; where
 * CAP is less than its length nothing is written of that; LPORT_TLS_RESUMED, "yes" of a session
 * that was resumed. Before the handshake is done, or where it has failed, only
 * LPORT_TLS_SERVER_NAME and LPORT_TLS_PROBLEM are known: a certificate is nobody's before the peer
 * has shown that it has the key. LPORT_NOT_CONNECTED: SOCKET has no TLS. */
LPORT_API int64_t lport_tls_text(int64_t socket, int32_t what, char *text, size_t cap);

#ifdef __cplusplus
}
#endif

#endif
