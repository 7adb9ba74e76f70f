/* option - socket options as one table (layer 2). Stands on os, status, handle.
 *
 * Invariant: a name, its level, its number, its unit and the families it is for stand in one row,
 * and nowhere else. */
#include "option.h"

#include "handle.h"
#include "libport.h"
#include "os.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>

enum { LOCAL = 1, INET = 2, INET6 = 4, EVERY = LOCAL | INET | INET6, TCP = 8 };

struct option {
    const char *name;
    const char *unit;
    int level, number;
    int families; /* which it is for, and TCP: stream sockets only */
    int read_only;
};

static const struct option options[] = {
    {"nodelay", "boolean", IPPROTO_TCP, TCP_NODELAY, INET | INET6 | TCP, 0},
    {"keepalive", "boolean", SOL_SOCKET, SO_KEEPALIVE, INET | INET6 | TCP, 0},
    {"keepalive-idle", "seconds", IPPROTO_TCP, TCP_KEEPIDLE, INET | INET6 | TCP, 0},
    {"keepalive-interval", "seconds", IPPROTO_TCP, TCP_KEEPINTVL, INET | INET6 | TCP, 0},
    {"keepalive-count", "count", IPPROTO_TCP, TCP_KEEPCNT, INET | INET6 | TCP, 0},
    {"reuse-address", "boolean", SOL_SOCKET, SO_REUSEADDR, INET | INET6, 0},
    {"reuse-port", "boolean", SOL_SOCKET, SO_REUSEPORT, INET | INET6, 0},
    {"v6-only", "boolean", IPPROTO_IPV6, IPV6_V6ONLY, INET6, 0},
    {"receive-buffer", "octets", SOL_SOCKET, SO_RCVBUF, EVERY, 0},
    {"send-buffer", "octets", SOL_SOCKET, SO_SNDBUF, EVERY, 0},
    {"type", "number", SOL_SOCKET, SO_TYPE, EVERY, 1},
    {"error", "number", SOL_SOCKET, SO_ERROR, EVERY, 1},
    {"accepting", "boolean", SOL_SOCKET, SO_ACCEPTCONN, EVERY, 1},
};

enum { OPTION_COUNT = sizeof options / sizeof options[0] };

static int bit_of(int32_t family) {
    return family == LPORT_INET ? INET : family == LPORT_INET6 ? INET6 : LOCAL;
}

static int is_for(const struct option *option, int32_t family, int32_t kind) {
    return (option->families & bit_of(family)) != 0 &&
           ((option->families & TCP) == 0 || kind == LPORT_STREAM);
}

const char *lport_option_name(int32_t index) {
    return index >= 0 && index < OPTION_COUNT ? options[index].name : NULL;
}

const char *lport_option_unit(int32_t index) {
    return index >= 0 && index < OPTION_COUNT ? options[index].unit : NULL;
}

/* Enters SOCKET to read or write option INDEX: its descriptor, or a status and not entered. */
static int64_t enter_for(int64_t socket, int32_t index, struct lport_slot **slot) {
    if (index < 0 || index >= OPTION_COUNT) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t fd = lport_handle_enter(socket, slot);
    if (fd >= 0 && !is_for(&options[index], (*slot)->family, (*slot)->kind)) {
        lport_handle_leave(*slot);
        return lport_status_make(LPORT_NOT_SUPPORTED);
    }
    return fd;
}

int64_t lport_option_get(int64_t socket, int32_t index) {
    struct lport_slot *slot;
    int value = 0;
    socklen_t len = sizeof value;
    int64_t fd = enter_for(socket, index, &slot);
    if (fd < 0) {
        return fd;
    }
    const struct option *option = &options[index];
    int64_t result = lport_os.getsockopt((int)fd, option->level, option->number, &value, &len) < 0
                         ? lport_status_from_errno(LPORT_IN_GENERAL, errno)
                         : value;
    lport_handle_leave(slot);
    return result;
}

int64_t lport_option_set(int64_t socket, int32_t index, int64_t value) {
    struct lport_slot *slot;
    int64_t fd = enter_for(socket, index, &slot);
    if (fd < 0) {
        return fd;
    }
    const struct option *option = &options[index];
    int number = (int)value;
    int64_t status = 0;
    if (option->read_only || value < 0 || value > INT32_MAX) {
        status = lport_status_make(LPORT_INVALID);
    } else if (lport_os.setsockopt((int)fd, option->level, option->number, &number, sizeof number) <
               0) {
        status = lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    lport_handle_leave(slot);
    return status;
}

/* What each flag of libport.h sets. */
static const struct {
    int32_t flag;
    int level, number, value;
    int families;
} settings[] = {
    {LPORT_NODELAY, IPPROTO_TCP, TCP_NODELAY, 1, INET | INET6 | TCP},
    {LPORT_KEEPALIVE, SOL_SOCKET, SO_KEEPALIVE, 1, INET | INET6 | TCP},
    {LPORT_KEEPALIVE, IPPROTO_TCP, TCP_KEEPIDLE, 15, INET | INET6 | TCP},
    {LPORT_KEEPALIVE, IPPROTO_TCP, TCP_KEEPINTVL, 15, INET | INET6 | TCP},
    {LPORT_KEEPALIVE, IPPROTO_TCP, TCP_KEEPCNT, 9, INET | INET6 | TCP},
    {LPORT_REUSE_ADDRESS, SOL_SOCKET, SO_REUSEADDR, 1, INET | INET6},
    {LPORT_REUSE_PORT, SOL_SOCKET, SO_REUSEPORT, 1, INET | INET6},
};

int64_t lport_option_apply(int fd, int32_t family, int32_t kind, int32_t flags) {
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        int wanted = (flags & settings[i].flag) != 0 &&
                     (settings[i].families & bit_of(family)) != 0 &&
                     ((settings[i].families & TCP) == 0 || kind == LPORT_STREAM);
        if (wanted && lport_os.setsockopt(fd, settings[i].level, settings[i].number,
                                          &settings[i].value, sizeof settings[i].value) < 0) {
            return lport_status_from_errno(LPORT_IN_GENERAL, errno);
        }
    }
    /* Written either way: what a new IPv6 socket does by itself is a setting of the system
     * (net.ipv6.bindv6only). */
    int only = (flags & LPORT_V6_ONLY) != 0;
    if (family == LPORT_INET6 &&
        lport_os.setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only) < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    return 0;
}
