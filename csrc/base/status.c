/* status - kinds, and the system's numbers mapped to them (layer 0). Stands on sink.
 * See libport.h.
 *
 * A status is -(own << 48 | option << 32 | kind << 24 | domain << 16 | number). The domain says
 * whose number it is: an errno, or an EAI_ code without its sign. The option is an index from 1 on,
 * 0 for none. Own is 1 where it is the own end that failed, else 0.
 *
 * Invariant: every kind has one row in `kinds`, and no number of the system gets its meaning
 * anywhere but in `errnos`, `gais` and `hosts`. */
#include "status.h"

#include "libport.h"
#include "sink.h"

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { DOMAIN_SYSTEM = 0, DOMAIN_RESOLVER = 1 };

enum {
    NUMBER_BITS = 16,
    NUMBER_MAX = 0xffff,
    KIND_SHIFT = 24,
    KIND_MASK = 0xff,
    OPTION_SHIFT = 32,
    OPTION_MAX = 0xffff,
    OWN_SHIFT = 48,
    CONTEXTS = LPORT_IN_TCP + 1
};

struct kind {
    const char *name;
    const char *condition;
    const char *text;
};

static const struct kind kinds[LPORT_KIND_END] = {
    [LPORT_OTHER] = {"other", "network", "system error"},
    [LPORT_WOULD_BLOCK] = {"would-block", "network", "operation would block"},
    [LPORT_IN_PROGRESS] = {"in-progress", "network", "operation in progress"},
    [LPORT_INTERRUPTED] = {"interrupted", "network", "interrupted by a signal"},
    [LPORT_TIMED_OUT] = {"timed-out", "timeout", "timed out"},
    [LPORT_CLOSED] = {"closed", "socket-closed", "socket closed"},
    [LPORT_OUTPUT_SHUT] = {"output-shut", "socket-closed", "output was shut down"},
    [LPORT_CONNECTION_LOST] = {"connection-lost", "connection-lost", "connection lost"},
    [LPORT_CONNECTION_RESET] = {"connection-reset", "connection-reset", "connection reset by peer"},
    [LPORT_CONNECTION_ABORTED] = {"connection-aborted", "connection-aborted", "connection aborted"},
    [LPORT_CONNECT_FAILED] = {"connect-failed", "connect-error", "connect failed"},
    [LPORT_CONNECTION_REFUSED] = {"connection-refused", "connection-refused", "connection refused"},
    [LPORT_HOST_UNREACHABLE] = {"host-unreachable", "host-unreachable", "host unreachable"},
    [LPORT_NETWORK_UNREACHABLE] = {"network-unreachable", "network-unreachable",
                                   "network unreachable"},
    [LPORT_CONNECT_DENIED] = {"connect-denied", "connect-denied", "connect denied"},
    [LPORT_CONNECT_TIMED_OUT] = {"connect-timed-out", "connect-timed-out",
                                 "no answer to the connect"},
    [LPORT_PATH_NOT_FOUND] = {"path-not-found", "path-not-found", "no socket at this path"},
    [LPORT_BACKLOG_FULL] = {"backlog-full", "resource-exhausted", "listener's backlog is full"},
    [LPORT_ADDRESS_IN_USE] = {"address-in-use", "address-in-use", "address in use"},
    [LPORT_ADDRESS_NOT_AVAILABLE] = {"address-not-available", "address-not-available",
                                     "address not available"},
    [LPORT_PERMISSION_DENIED] = {"permission-denied", "permission-denied", "permission denied"},
    [LPORT_PATH_UNUSABLE] = {"path-unusable", "path-unusable", "path cannot hold a socket"},
    [LPORT_ADDRESS_SYNTAX] = {"address-syntax", "address-syntax", "not an address"},
    [LPORT_HOST_NOT_FOUND] = {"host-not-found", "host-not-found", "host not found"},
    [LPORT_RESOLVER_TRY_AGAIN] = {"resolver-try-again", "resolver-try-again",
                                  "name server did not answer"},
    [LPORT_RESOLVER_FAILURE] = {"resolver-failure", "resolver-failure", "name resolution failed"},
    [LPORT_SERVICE_NOT_FOUND] = {"service-not-found", "service-not-found", "service not found"},
    [LPORT_DESCRIPTORS_EXHAUSTED] = {"descriptors-exhausted", "resource-exhausted",
                                     "too many open files"},
    [LPORT_MEMORY_EXHAUSTED] = {"memory-exhausted", "resource-exhausted", "out of memory"},
    [LPORT_BUFFERS_EXHAUSTED] = {"buffers-exhausted", "resource-exhausted", "out of buffer space"},
    [LPORT_MESSAGE_TOO_LONG] = {"message-too-long", "message-too-long", "message too long"},
    [LPORT_NOT_SUPPORTED] = {"not-supported", "not-supported", "not supported"},
    [LPORT_NOT_CONNECTED] = {"not-connected", "usage-error", "not connected"},
    [LPORT_INVALID] = {"invalid", "usage-error", "invalid argument"},
    [LPORT_END] = {"end-of-file", "network", "end of file"},
    [LPORT_PROXY_SYNTAX] = {"proxy-syntax", "proxy-error", "not a header of the PROXY protocol"},
    [LPORT_PATH_TAKEN] = {"path-taken", "address-in-use", "a file that is no socket is there"},
    [LPORT_THREADS_EXHAUSTED] = {"threads-exhausted", "resource-exhausted",
                                 "no thread could be made"},
    [LPORT_CONNECTION_TRUNCATED] = {"connection-truncated", "connection-truncated",
                                    "connection ended early"},
    [LPORT_TLS_FAILED] = {"tls-failed", "tls-error", "TLS failed"},
    [LPORT_CERTIFICATE_REFUSED] = {"certificate-refused", "certificate-error",
                                   "certificate refused"},
};

/* ---- numbers of the system ------------------------------------------------------------------- */

struct errno_row {
    int number;
    int32_t kinds[CONTEXTS]; /* in the order of the contexts */
};

#define EVERYWHERE(kind)                                                                           \
    { kind, kind, kind, kind, kind }

/* Numbers that are equal on this system (EAGAIN and EWOULDBLOCK) share a meaning in every row. */
static const struct errno_row errnos[] = {
    {EAGAIN,
     {LPORT_WOULD_BLOCK, LPORT_BACKLOG_FULL, LPORT_WOULD_BLOCK, LPORT_WOULD_BLOCK,
      LPORT_WOULD_BLOCK}},
    {EWOULDBLOCK,
     {LPORT_WOULD_BLOCK, LPORT_BACKLOG_FULL, LPORT_WOULD_BLOCK, LPORT_WOULD_BLOCK,
      LPORT_WOULD_BLOCK}},
    {EINPROGRESS, EVERYWHERE(LPORT_IN_PROGRESS)},
    {EALREADY, EVERYWHERE(LPORT_IN_PROGRESS)},
    /* A connect that a signal interrupts goes on in the kernel. */
    {EINTR,
     {LPORT_INTERRUPTED, LPORT_IN_PROGRESS, LPORT_INTERRUPTED, LPORT_INTERRUPTED,
      LPORT_INTERRUPTED}},

    {EPIPE,
     {LPORT_CONNECTION_RESET, LPORT_CONNECT_FAILED, LPORT_CONNECTION_RESET, LPORT_CONNECTION_RESET,
      LPORT_CONNECTION_RESET}},
    /* There was no connection yet that could have been reset: the peer would not have us. */
    {ECONNRESET,
     {LPORT_CONNECTION_RESET, LPORT_CONNECTION_REFUSED, LPORT_CONNECTION_RESET,
      LPORT_CONNECTION_RESET, LPORT_CONNECTION_RESET}},
    {ECONNABORTED,
     {LPORT_CONNECTION_ABORTED, LPORT_CONNECT_FAILED, LPORT_CONNECTION_ABORTED,
      LPORT_CONNECTION_ABORTED, LPORT_CONNECTION_ABORTED}},
    {ENETRESET,
     {LPORT_CONNECTION_LOST, LPORT_CONNECT_FAILED, LPORT_CONNECTION_LOST, LPORT_CONNECTION_LOST,
      LPORT_CONNECTION_LOST}},
    {ETIMEDOUT,
     {LPORT_OTHER, LPORT_CONNECT_TIMED_OUT, LPORT_OTHER, LPORT_CONNECTION_LOST,
      LPORT_CONNECTION_LOST}},
    /* On a datagram socket too, where it tells of an ICMP message. When the system gives up a
     * connection of TCP it says what ICMP has said last, as a firewall does that rejects what
     * belongs to it: that is no refusal, and no missing permission of the call. Source:
     * icmp_err_convert and icmpv6_err_convert of Linux. */
    {ECONNREFUSED,
     {LPORT_CONNECTION_REFUSED, LPORT_CONNECTION_REFUSED, LPORT_CONNECTION_REFUSED,
      LPORT_CONNECTION_REFUSED, LPORT_CONNECTION_LOST}},
    {EPROTO, {LPORT_OTHER, LPORT_CONNECT_FAILED, LPORT_OTHER, LPORT_OTHER, LPORT_CONNECTION_LOST}},
    {EHOSTUNREACH,
     {LPORT_HOST_UNREACHABLE, LPORT_HOST_UNREACHABLE, LPORT_HOST_UNREACHABLE, LPORT_CONNECTION_LOST,
      LPORT_CONNECTION_LOST}},
    {EHOSTDOWN,
     {LPORT_HOST_UNREACHABLE, LPORT_HOST_UNREACHABLE, LPORT_HOST_UNREACHABLE, LPORT_CONNECTION_LOST,
      LPORT_CONNECTION_LOST}},
    {ENONET,
     {LPORT_HOST_UNREACHABLE, LPORT_HOST_UNREACHABLE, LPORT_HOST_UNREACHABLE, LPORT_CONNECTION_LOST,
      LPORT_CONNECTION_LOST}},
    {ENETUNREACH,
     {LPORT_NETWORK_UNREACHABLE, LPORT_NETWORK_UNREACHABLE, LPORT_NETWORK_UNREACHABLE,
      LPORT_CONNECTION_LOST, LPORT_CONNECTION_LOST}},
    {ENETDOWN,
     {LPORT_NETWORK_UNREACHABLE, LPORT_NETWORK_UNREACHABLE, LPORT_NETWORK_UNREACHABLE,
      LPORT_CONNECTION_LOST, LPORT_CONNECTION_LOST}},

    {EACCES,
     {LPORT_PERMISSION_DENIED, LPORT_CONNECT_DENIED, LPORT_PERMISSION_DENIED,
      LPORT_PERMISSION_DENIED, LPORT_CONNECTION_LOST}},
    {EPERM,
     {LPORT_PERMISSION_DENIED, LPORT_CONNECT_DENIED, LPORT_PERMISSION_DENIED,
      LPORT_PERMISSION_DENIED, LPORT_PERMISSION_DENIED}},
    {EROFS,
     {LPORT_PERMISSION_DENIED, LPORT_CONNECT_FAILED, LPORT_PERMISSION_DENIED,
      LPORT_PERMISSION_DENIED, LPORT_PERMISSION_DENIED}},
    /* A datagram sent to a local name looks its path up as a connect does. */
    {ENOENT,
     {LPORT_OTHER, LPORT_PATH_NOT_FOUND, LPORT_PATH_UNUSABLE, LPORT_PATH_NOT_FOUND,
      LPORT_PATH_NOT_FOUND}},
    {ENOTDIR,
     {LPORT_OTHER, LPORT_PATH_NOT_FOUND, LPORT_PATH_UNUSABLE, LPORT_PATH_NOT_FOUND,
      LPORT_PATH_NOT_FOUND}},
    {ELOOP, {LPORT_OTHER, LPORT_CONNECT_FAILED, LPORT_PATH_UNUSABLE, LPORT_OTHER, LPORT_OTHER}},
    {EADDRINUSE, EVERYWHERE(LPORT_ADDRESS_IN_USE)},
    {EADDRNOTAVAIL, EVERYWHERE(LPORT_ADDRESS_NOT_AVAILABLE)},
    /* No such interface; of a file that is sent it says something else. */
    {ENODEV,
     {LPORT_ADDRESS_NOT_AVAILABLE, LPORT_ADDRESS_NOT_AVAILABLE, LPORT_ADDRESS_NOT_AVAILABLE,
      LPORT_OTHER, LPORT_OTHER}},

    {EMFILE, EVERYWHERE(LPORT_DESCRIPTORS_EXHAUSTED)},
    {ENFILE, EVERYWHERE(LPORT_DESCRIPTORS_EXHAUSTED)},
    /* unix(7): too many descriptors are on their way through local sockets. */
    {ETOOMANYREFS, EVERYWHERE(LPORT_DESCRIPTORS_EXHAUSTED)},
    {ENOMEM, EVERYWHERE(LPORT_MEMORY_EXHAUSTED)},
    {ENOBUFS, EVERYWHERE(LPORT_BUFFERS_EXHAUSTED)},
    {ENOSPC, EVERYWHERE(LPORT_BUFFERS_EXHAUSTED)},
    {EMSGSIZE, EVERYWHERE(LPORT_MESSAGE_TOO_LONG)},

    {EAFNOSUPPORT, EVERYWHERE(LPORT_NOT_SUPPORTED)},
    {EPFNOSUPPORT, EVERYWHERE(LPORT_NOT_SUPPORTED)},
    /* Of a connect and a connection these two are what ICMP says, of a route and of a host that
     * does not speak the protocol: the next address may be well. */
    {EOPNOTSUPP,
     {LPORT_NOT_SUPPORTED, LPORT_CONNECT_FAILED, LPORT_NOT_SUPPORTED, LPORT_NOT_SUPPORTED,
      LPORT_CONNECTION_LOST}},
    {ENOTSUP,
     {LPORT_NOT_SUPPORTED, LPORT_CONNECT_FAILED, LPORT_NOT_SUPPORTED, LPORT_NOT_SUPPORTED,
      LPORT_CONNECTION_LOST}},
    {ENOPROTOOPT,
     {LPORT_NOT_SUPPORTED, LPORT_CONNECT_FAILED, LPORT_NOT_SUPPORTED, LPORT_NOT_SUPPORTED,
      LPORT_CONNECTION_LOST}},
    {EPROTONOSUPPORT, EVERYWHERE(LPORT_NOT_SUPPORTED)},
    {ESOCKTNOSUPPORT, EVERYWHERE(LPORT_NOT_SUPPORTED)},
    {ENOSYS, EVERYWHERE(LPORT_NOT_SUPPORTED)},
    /* unix(7): the listener of a local name is of another kind. */
    {EPROTOTYPE,
     {LPORT_NOT_SUPPORTED, LPORT_CONNECT_FAILED, LPORT_NOT_SUPPORTED, LPORT_NOT_SUPPORTED,
      LPORT_NOT_SUPPORTED}},

    {ENOTCONN, EVERYWHERE(LPORT_NOT_CONNECTED)},
    {EDESTADDRREQ, EVERYWHERE(LPORT_NOT_CONNECTED)},
    {EISCONN, EVERYWHERE(LPORT_INVALID)},
    {EINVAL, EVERYWHERE(LPORT_INVALID)},
    {EBADF, EVERYWHERE(LPORT_INVALID)},
    {ENOTSOCK, EVERYWHERE(LPORT_INVALID)},
    {EFAULT, EVERYWHERE(LPORT_INVALID)},
    {EDOM, EVERYWHERE(LPORT_INVALID)},
};

static const int32_t unknown_errno[CONTEXTS] = {
    LPORT_OTHER, LPORT_CONNECT_FAILED, LPORT_OTHER, LPORT_OTHER, LPORT_OTHER,
};

struct code_row {
    int code;
    int32_t kind;
};

static const struct code_row gais[] = {
    {EAI_NONAME, LPORT_HOST_NOT_FOUND},
#ifdef EAI_NODATA
    {EAI_NODATA, LPORT_HOST_NOT_FOUND},
#endif
#ifdef EAI_ADDRFAMILY
    {EAI_ADDRFAMILY, LPORT_HOST_NOT_FOUND},
#endif
    {EAI_AGAIN, LPORT_RESOLVER_TRY_AGAIN},
};

/* Two numbers of an h_errno that some C libraries (musl) neither have nor give. */
#ifndef NETDB_INTERNAL
enum { NETDB_INTERNAL = -1, NETDB_SUCCESS = 0 };
#endif

/* Some resolvers find nothing and give no reason: not there. */
static const struct code_row hosts[] = {
    {NETDB_SUCCESS, LPORT_HOST_NOT_FOUND},
    {HOST_NOT_FOUND, LPORT_HOST_NOT_FOUND},
    {NO_DATA, LPORT_HOST_NOT_FOUND},
    {TRY_AGAIN, LPORT_RESOLVER_TRY_AGAIN},
};

/* ---- packing --------------------------------------------------------------------------------- */

/* A number that does not fit is left out: the kind still says the truth. */
static int64_t pack(int32_t kind, int domain, int number) {
    int64_t kept = number >= 0 && number <= NUMBER_MAX ? number : 0;
    return -((int64_t)kind << KIND_SHIFT | (int64_t)domain << NUMBER_BITS | kept);
}

/* STATUS without its sign, or 0 if it is a result or nothing that pack makes. */
static uint64_t unpack(int64_t status) {
    uint64_t bits = status < 0 ? 0 - (uint64_t)status : 0;
    uint64_t kind = bits >> KIND_SHIFT & KIND_MASK;
    bool whole = bits >> OWN_SHIFT <= 1;
    return whole && kind > 0 && kind < LPORT_KIND_END ? bits : 0;
}

int64_t lport_status_make(int32_t kind) {
    return pack(kind > 0 && kind < LPORT_KIND_END ? kind : LPORT_INVALID, DOMAIN_SYSTEM, 0);
}

int64_t lport_status_from_errno(enum lport_context context, int errno_value) {
    int32_t kind = unknown_errno[context];
    for (size_t i = 0; i < sizeof errnos / sizeof errnos[0]; i++) {
        if (errnos[i].number == errno_value) {
            kind = errnos[i].kinds[context];
            break;
        }
    }
    return pack(kind, DOMAIN_SYSTEM, errno_value);
}

int64_t lport_status_exhausted(int errno_value) {
    int64_t status = lport_status_from_errno(LPORT_IN_GENERAL, errno_value);
    return lport_status_is(status, LPORT_DESCRIPTORS_EXHAUSTED) ||
                   lport_status_is(status, LPORT_MEMORY_EXHAUSTED)
               ? status
               : 0;
}

int64_t lport_status_missing(int32_t kind, int errno_value) {
    int64_t status = lport_status_exhausted(errno_value);
    return status < 0 ? status : lport_status_make(kind);
}

static int32_t find_code(const struct code_row *rows, size_t count, int code) {
    for (size_t i = 0; i < count; i++) {
        if (rows[i].code == code) {
            return rows[i].kind;
        }
    }
    return LPORT_RESOLVER_FAILURE;
}

int64_t lport_status_from_gai(int gai, int errno_value) {
    if (gai == EAI_SYSTEM) {
        return pack(LPORT_RESOLVER_FAILURE, DOMAIN_SYSTEM, errno_value);
    }
    int32_t kind = find_code(gais, sizeof gais / sizeof gais[0], gai);
    return pack(kind, DOMAIN_RESOLVER, gai < 0 ? -gai : gai);
}

/* An h_errno is not an EAI_ code: its number is not kept. */
int64_t lport_status_from_host(int host, int errno_value) {
    if (host == NETDB_INTERNAL) {
        return pack(LPORT_RESOLVER_FAILURE, DOMAIN_SYSTEM, errno_value);
    }
    return pack(find_code(hosts, sizeof hosts / sizeof hosts[0], host), DOMAIN_RESOLVER, 0);
}

/* An index that does not fit is left out, as a number is. */
int64_t lport_status_of_option(int64_t status, int32_t index) {
    bool fits = unpack(status) != 0 && index >= 0 && index < OPTION_MAX;
    return fits ? status - ((int64_t)index + 1) * ((int64_t)1 << OPTION_SHIFT) : status;
}

int64_t lport_status_of_own_end(int64_t status) {
    bool marked = unpack(status) == 0 || lport_status_own(status);
    return marked ? status : status - (INT64_C(1) << OWN_SHIFT);
}

/* ---- taking apart ---------------------------------------------------------------------------- */

/* A negative number that is no status of ours is still a failure: it counts as LPORT_OTHER. */
int32_t lport_status_kind(int64_t status) {
    if (status >= 0) {
        return 0;
    }
    uint64_t bits = unpack(status);
    return bits ? (int32_t)(bits >> KIND_SHIFT & KIND_MASK) : LPORT_OTHER;
}

bool lport_status_is(int64_t status, int32_t kind) {
    return lport_status_kind(status) == kind;
}

int32_t lport_status_errno(int64_t status) {
    uint64_t bits = unpack(status);
    int domain = (int)(bits >> NUMBER_BITS & 0xff);
    return domain == DOMAIN_SYSTEM ? (int32_t)(bits & NUMBER_MAX) : 0;
}

int32_t lport_status_option(int64_t status) {
    return (int32_t)(unpack(status) >> OPTION_SHIFT & OPTION_MAX) - 1;
}

int32_t lport_status_own(int64_t status) {
    return (int32_t)(unpack(status) >> OWN_SHIFT);
}

/* The system's text for NUMBER into TEXT, safe with threads; false if there is none. */
static bool errno_text(int number, char *text, size_t cap) {
#ifdef __GLIBC__
    const char *source = strerrordesc_np(number);
    if (source != NULL) {
        (void)lport_sink_copy(source, text, cap);
    }
    return source != NULL;
#else
    return strerror_r(number, text, cap) == 0;
#endif
}

/* SOURCE with its first letter in lower case, if that begins a word and not an abbreviation. */
static int64_t put_phrase(const char *source, char *text, size_t cap) {
    int64_t len = lport_sink_copy(source, text, cap);
    if (cap > 0 && source[0] >= 'A' && source[0] <= 'Z' && source[1] >= 'a' && source[1] <= 'z') {
        text[0] = (char)(source[0] - 'A' + 'a');
    }
    return len;
}

/* True if KIND stands for numbers that say different things. */
static bool is_general(int32_t kind) {
    return kind == LPORT_OTHER || kind == LPORT_CONNECTION_LOST || kind == LPORT_CONNECT_FAILED ||
           kind == LPORT_BUFFERS_EXHAUSTED;
}

int64_t lport_status_text(int64_t status, char *text, size_t cap) {
    char room[LPORT_TEXT_SIZE];
    int32_t kind = lport_status_kind(status);
    int number = lport_status_errno(status);
    if (kind == 0 || (text == NULL && cap > 0)) {
        return lport_status_make(LPORT_INVALID);
    }
    if (number == 0 || !is_general(kind)) {
        return lport_sink_copy(kinds[kind].text, text, cap);
    }
    if (!errno_text(number, room, sizeof room)) {
        (void)snprintf(room, sizeof room, "unknown error %d", number);
    }
    return put_phrase(room, text, cap);
}

static const struct kind *find_kind(int32_t kind) {
    return kind > 0 && kind < LPORT_KIND_END ? &kinds[kind] : NULL;
}

const char *lport_kind_name(int32_t kind) {
    const struct kind *row = find_kind(kind);
    return row ? row->name : NULL;
}

const char *lport_kind_condition(int32_t kind) {
    const struct kind *row = find_kind(kind);
    return row ? row->condition : NULL;
}
