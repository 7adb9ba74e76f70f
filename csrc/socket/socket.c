/* socket - create, close, bind, listen, accept, connect, shut down, name (layer 2).
 *
 * Stands on os, status, address, handle, wait, patience, option. Invariant: a function that fails
 * leaves no descriptor and no slot behind; the slot is reserved before the descriptor is made. */
#include "socket.h"

#include "address/address.h"
#include "base/os.h"
#include "handle.h"
#include "libport.h"
#include "patience.h"
#include "wait.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

enum { MAXIMUM_BACKLOG = 65535 }; /* listen(2) cuts it to net.core.somaxconn */

/* A number of libport.h, and the system's for the same. */
struct pair {
    int32_t ours;
    int systems;
};

enum { ROWS = 3 }; /* of each table */

static const struct pair families[ROWS] = {
    {LPORT_INET, AF_INET}, {LPORT_INET6, AF_INET6}, {LPORT_LOCAL, AF_UNIX}};

static const struct pair kinds[ROWS] = {
    {LPORT_STREAM, SOCK_STREAM}, {LPORT_DATAGRAM, SOCK_DGRAM}, {LPORT_SEQPACKET, SOCK_SEQPACKET}};

static int systems_number(const struct pair rows[ROWS], int32_t ours) {
    for (int i = 0; i < ROWS; i++) {
        if (rows[i].ours == ours) {
            return rows[i].systems;
        }
    }
    return -1;
}

static int32_t our_number(const struct pair rows[ROWS], int systems) {
    for (int i = 0; i < ROWS; i++) {
        if (rows[i].systems == systems) {
            return rows[i].ours;
        }
    }
    return 0;
}

int32_t lport_socket_family(int domain) {
    return our_number(families, domain);
}

int32_t lport_socket_kind(int type) {
    return our_number(kinds, type);
}

int64_t lport_socket_open(int32_t family, int32_t kind, int32_t flags) {
    struct lport_slot *slot;
    int domain = systems_number(families, family);
    int type = systems_number(kinds, kind);
    if (domain < 0 || type < 0) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = lport_handle_reserve(&slot);
    if (status < 0) {
        return status;
    }
    int fd = lport_os.socket(domain, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        status = lport_status_from_errno(LPORT_IN_GENERAL, errno);
        goto release_slot;
    }
    status = lport_option_apply(fd, family, kind, flags);
    if (status < 0) {
        goto close_fd;
    }
    return lport_handle_publish(slot, fd, family, kind);

close_fd:
    lport_os.close(fd);
release_slot:
    lport_handle_release(slot);
    return status;
}

int64_t lport_socket_open_with(int32_t family, int32_t kind, int32_t flags,
                               const struct lport_settings *settings) {
    int64_t socket = lport_socket_open(family, kind, flags);
    if (socket < 0) {
        return socket;
    }
    int64_t status = lport_option_set_all(socket, settings);
    if (status < 0) {
        lport_socket_close(socket, 0);
        return status;
    }
    return socket;
}

bool lport_socket_begin_close(struct lport_slot *slot, int32_t flags) {
    if (!lport_handle_mark_closing(slot, flags)) {
        return false;
    }
    lport_wait_wake_slot(slot, LPORT_INPUT | LPORT_OUTPUT);
    lport_handle_tell_watches(slot);
    return true;
}

int64_t lport_socket_close(int64_t socket, int32_t flags) {
    struct lport_slot *slot;
    int64_t entered = lport_handle_enter(socket, &slot);
    if (entered < 0) {
        return entered;
    }
    bool first = lport_socket_begin_close(slot, flags);
    lport_handle_leave(slot);
    if (!first) {
        return lport_status_make(LPORT_CLOSED);
    }
    return lport_handle_is_gone(slot, socket) ? 0 : 1;
}

int64_t lport_socket_descriptor(int64_t socket) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd >= 0) {
        lport_patience_end(slot, (int)fd);
        lport_handle_leave(slot);
    }
    return fd;
}

/* Runs CALL (bind, connect) with the kernel's form of ADDRESS on SOCKET; 0 or a status for CONTEXT.
 */
static int64_t call_with_address(int64_t socket, const uint8_t *address, enum lport_context context,
                                 int (*call)(int, const struct sockaddr *, socklen_t)) {
    struct lport_slot *slot;
    struct sockaddr_storage storage;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    bool mapped = slot->family == LPORT_INET6;
    int64_t status = lport_address_to_kernel(address, mapped, &storage);
    if (status > 0) {
        int result = call((int)fd, (const struct sockaddr *)&storage, (socklen_t)status);
        status = result < 0 ? lport_status_from_errno(context, errno) : 0;
    }
    lport_handle_leave(slot);
    return status;
}

int64_t lport_socket_bind(int64_t socket, const uint8_t *address) {
    return call_with_address(socket, address, LPORT_IN_BIND, lport_os.bind);
}

int64_t lport_socket_connect_start(int64_t socket, const uint8_t *address) {
    return call_with_address(socket, address, LPORT_IN_CONNECT, lport_os.connect);
}

/* bind(p) and connect(p) on loopback connect to themselves, and the kernel may choose the
 * destination's own number as source port: TCP's simultaneous open (RFC 9293, 3.5). */
static bool connected_to_itself(int fd, const struct sockaddr_storage *peer, socklen_t peer_len) {
    struct sockaddr_storage own;
    socklen_t own_len = sizeof own;
    return lport_os.getsockname(fd, (struct sockaddr *)&own, &own_len) == 0 &&
           own_len == peer_len && memcmp(&own, peer, own_len) == 0;
}

/* Asks for the peer first: who has one is connected, and the error is asked for only where there is
 * none. */
static int64_t connect_result(int fd, int32_t family) {
    int error = 0;
    socklen_t error_len = sizeof error;
    struct sockaddr_storage peer;
    socklen_t peer_len = sizeof peer;
    if (lport_os.getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0) {
        return family != LPORT_LOCAL && connected_to_itself(fd, &peer, peer_len)
                   ? lport_status_make(LPORT_CONNECTION_REFUSED)
                   : 0;
    }
    if (errno != ENOTCONN ||
        lport_os.getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_len) < 0) {
        error = errno;
    }
    return error == 0 ? lport_status_make(LPORT_IN_PROGRESS)
                      : lport_status_from_errno(LPORT_IN_CONNECT, error);
}

int64_t lport_socket_connect_finish(int64_t socket) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t status = connect_result((int)fd, slot->family);
    lport_handle_leave(slot);
    return status;
}

int64_t lport_socket_start_listening(int64_t socket, int32_t backlog) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t status = 0;
    if (lport_os.listen((int)fd, backlog < 0 ? MAXIMUM_BACKLOG : backlog) < 0) {
        status = lport_status_from_errno(LPORT_IN_BIND, errno);
    } else {
        atomic_fetch_or(&slot->flags, LPORT_STATE_LISTENING);
    }
    lport_handle_leave(slot);
    return status;
}

/* A listener of FAMILY on ADDRESS, or a status and nothing left behind. */
static int64_t listen_on(int32_t family, const uint8_t *address, int32_t backlog, int32_t flags,
                         const struct lport_settings *settings) {
    int64_t socket = lport_socket_open_with(family, LPORT_STREAM, flags, settings);
    if (socket < 0) {
        return socket;
    }
    int64_t status = lport_socket_bind(socket, address);
    if (status == 0) {
        status = lport_socket_start_listening(socket, backlog);
    }
    if (status < 0) {
        lport_socket_close(socket, 0);
        return status;
    }
    return socket;
}

bool lport_socket_lacks_inet6(int64_t status) {
    int32_t kind = lport_status_kind(status);
    return lport_status_option(status) < 0 &&
           (kind == LPORT_NOT_SUPPORTED || kind == LPORT_ADDRESS_NOT_AVAILABLE);
}

int64_t lport_socket_listen(const uint8_t *address, int32_t backlog, int32_t flags,
                            const uint8_t *settings, int32_t count) {
    uint8_t room[LPORT_ADDRESS_SIZE];
    struct lport_settings all = {settings, count};
    address = lport_address_plain(address, room);
    int32_t family = address[LPORT_AT_FAMILY];
    if (family == LPORT_LOCAL) {
        return lport_status_make(LPORT_INVALID);
    }
    if (family != LPORT_ANY) {
        return listen_on(family, address, backlog,
                         flags | (family == LPORT_INET6 ? LPORT_V6_ONLY : 0), &all);
    }
    int64_t socket = listen_on(LPORT_INET6, address, backlog, flags, &all);
    if (!lport_socket_lacks_inet6(socket)) {
        return socket;
    }
    address = lport_address_in_family(address, LPORT_INET, room);
    return listen_on(LPORT_INET, address, backlog, flags, &all);
}

/* Errors of accept4(2) that speak of the connection it took from the queue, not of the listener:
 * the next one may be well. */
static bool is_lost_connection(int error) {
    switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENOPROTOOPT:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET:
    case EPERM: /* a firewall's rule */
    case ETIMEDOUT:
        return true;
    default:
        return false;
    }
}

/* The next connection that lives, as a descriptor, its peer's address into PEER unless that is
 * NULL; below zero with errno. It gives up after more losses than a queue holds: then it is not the
 * connections that fail (EPERM of a seccomp filter). */
static int accept_next(int listener, uint8_t *peer) {
    struct sockaddr_storage storage;
    socklen_t len;
    int fd;
    int tries = 0;
    do {
        len = sizeof storage;
        memset(&storage, 0, sizeof storage);
        fd = lport_os.accept4(listener, (struct sockaddr *)&storage, &len,
                              SOCK_CLOEXEC | SOCK_NONBLOCK);
    } while (fd < 0 && is_lost_connection(errno) && ++tries <= MAXIMUM_BACKLOG);
    if (fd >= 0 && peer != NULL) {
        lport_address_from_kernel(&storage, len, peer);
    }
    return fd;
}

int64_t lport_socket_accept(int64_t listener, uint8_t *peer) {
    struct lport_slot *from, *slot;
    int64_t fd = lport_handle_enter(listener, &from);
    if (fd < 0) {
        return fd;
    }
    int64_t status = lport_handle_reserve(&slot);
    if (status < 0) {
        goto leave;
    }
    int accepted = accept_next((int)fd, peer);
    if (accepted < 0) {
        status = lport_status_from_errno(LPORT_IN_GENERAL, errno);
        lport_handle_release(slot);
        goto leave;
    }
    status = lport_handle_publish(slot, accepted, from->family, from->kind);
    atomic_fetch_or(&slot->flags, atomic_load(&from->flags) & LPORT_SLOT_LINGERS); /* inherited */
leave:
    lport_handle_leave(from);
    return status;
}

int64_t lport_socket_pair(int32_t kind, int64_t *pair) {
    struct lport_slot *first, *second;
    int fds[2];
    int type = systems_number(kinds, kind);
    if (type < 0) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = lport_handle_reserve(&first);
    if (status < 0) {
        return status;
    }
    status = lport_handle_reserve(&second);
    if (status < 0) {
        goto release_first;
    }
    if (lport_os.socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0) {
        status = lport_status_from_errno(LPORT_IN_GENERAL, errno);
        goto release_second;
    }
    pair[0] = lport_handle_publish(first, fds[0], LPORT_LOCAL, kind);
    pair[1] = lport_handle_publish(second, fds[1], LPORT_LOCAL, kind);
    return 0;

release_second:
    lport_handle_release(second);
release_first:
    lport_handle_release(first);
    return status;
}

static int how_of(int32_t direction) {
    static const int how[] = {
        [LPORT_INPUT] = SHUT_RD,
        [LPORT_OUTPUT] = SHUT_WR,
        [LPORT_INPUT | LPORT_OUTPUT] = SHUT_RDWR,
    };
    return how[direction];
}

/* ENOTCONN: reset or shut down before, so it is as it should be. */
static int64_t shut_down_descriptor(int fd, int32_t direction) {
    return lport_os.shutdown(fd, how_of(direction)) < 0 && errno != ENOTCONN
               ? lport_status_from_errno(LPORT_IN_GENERAL, errno)
               : 0;
}

/* The end of output is the transport's, where there is one: it may have to answer its peer still.
 */
static int64_t shut_down(struct lport_slot *slot, int fd, int32_t direction) {
    struct lport_transport *transport = lport_handle_transport(slot);
    if ((atomic_load(&slot->flags) & LPORT_STATE_LISTENING) != 0) {
        return lport_status_make(LPORT_NOT_CONNECTED);
    }
    int64_t status = 0;
    if (transport != NULL && (direction & LPORT_OUTPUT) != 0) {
        status = transport->calls->end(transport, slot, fd);
    }
    if (status == 0 && (transport == NULL || direction != LPORT_OUTPUT)) {
        status = shut_down_descriptor(fd, direction);
    }
    return status;
}

int64_t lport_socket_shutdown(int64_t socket, int32_t direction) {
    struct lport_slot *slot;
    if (direction < LPORT_INPUT || direction > (LPORT_INPUT | LPORT_OUTPUT)) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    uint32_t marks = ((direction & LPORT_INPUT) != 0 ? LPORT_STATE_INPUT_SHUT : 0) |
                     ((direction & LPORT_OUTPUT) != 0 ? LPORT_STATE_OUTPUT_SHUT : 0);
    int64_t status = shut_down(slot, (int)fd, direction);
    if (status == 0) {
        atomic_fetch_or(&slot->flags, marks);
    }
    lport_handle_leave(slot);
    return status;
}

/* Runs CALL (getsockname, getpeername) on SOCKET and gives its answer as a block. */
static int64_t name_with(int64_t socket, uint8_t *address,
                         int (*call)(int, struct sockaddr *, socklen_t *)) {
    struct lport_slot *slot;
    struct sockaddr_storage storage;
    socklen_t len = sizeof storage;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t status;
    memset(&storage, 0, sizeof storage);
    if (call((int)fd, (struct sockaddr *)&storage, &len) < 0) {
        status = lport_status_from_errno(LPORT_IN_GENERAL, errno);
    } else {
        status = lport_address_from_kernel(&storage, len, address);
    }
    lport_handle_leave(slot);
    return status;
}

int64_t lport_socket_name(int64_t socket, uint8_t *address) {
    return name_with(socket, address, lport_os.getsockname);
}

int64_t lport_socket_peer(int64_t socket, uint8_t *address) {
    return name_with(socket, address, lport_os.getpeername);
}
