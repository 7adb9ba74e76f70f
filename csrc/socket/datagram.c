/* datagram - sockets that keep the boundaries of messages (layer 2): UDP, local datagrams,
 * sequenced packets. Stands on os, status, address, handle, local, patience, socket, transfer.
 *
 * Invariant: a call moves one whole message or nothing. What is wrong with a message, or with the
 * host it was for, is told once and never kept: only sequenced packets are a connection that can
 * break. */
#include "datagram.h"

#include "address/address.h"
#include "base/os.h"
#include "handle.h"
#include "libport.h"
#include "local.h"
#include "patience.h"
#include "socket.h"
#include "transfer.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

/* ---- making ---------------------------------------------------------------------------------- */

/* Asks for messages joined. A system that does not know how to delivers them one by one. */
static void ask_for_joined(int64_t socket) {
    static const int on = 1;
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd >= 0) {
        atomic_fetch_or(&slot->flags, LPORT_SLOT_JOINED);
        if (slot->family != LPORT_LOCAL) {
            lport_os.setsockopt((int)fd, IPPROTO_UDP, LPORT_DATAGRAM_JOIN, &on, sizeof on);
        }
        lport_handle_leave(slot);
    }
}

/* More messages than a receive buffer has room for: the bound where a peer sends without a pause.
 */
enum { MOST_FORGOTTEN = 65536 };

/* Takes whatever has come to SOCKET, and drops it. 0 or a status. (A filter that is attached before
 * the bind would let nothing in, but the system compiles it anew for every socket, which takes
 * several times as long as all the rest.) */
static int64_t forget_messages(int64_t socket) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    ssize_t got = 0;
    for (int i = 0; i < MOST_FORGOTTEN && (got >= 0 || errno == EINTR); i++) {
        got = lport_os.recv((int)fd, NULL, 0, MSG_DONTWAIT);
    }
    int64_t status =
        got < 0 && errno != EAGAIN ? lport_status_from_errno(LPORT_IN_GENERAL, errno) : 0;
    lport_handle_leave(slot);
    return status;
}

/* Gives SOCKET its ends, REMOTE unless that is NULL. 0 or a status. Between bind and connect it
 * receives from anybody, so what has come by then is dropped. Not for a local socket, whose sender
 * has been told that its message arrived. */
static int64_t set_ends(int64_t socket, int32_t family, const uint8_t *local,
                        const uint8_t *remote) {
    int64_t status = lport_status_of_own_end(lport_local_bind(socket, local));
    if (status == 0 && remote != NULL) {
        status = lport_socket_connect_start(socket, remote);
    }
    return status == 0 && remote != NULL && family != LPORT_LOCAL ? forget_messages(socket)
                                                                  : status;
}

/* A datagram socket of FAMILY, or a status and nothing left behind. To ask for joined messages
 * comes last: those that have arrived by then are just not joined. But none must have arrived that
 * does not tell where it was sent to. */
static int64_t open_in(int32_t family, const uint8_t *local, const uint8_t *remote, int32_t flags,
                       const struct lport_settings *settings) {
    uint8_t room[LPORT_ADDRESS_SIZE];
    int64_t socket = lport_socket_open_with(family, LPORT_DATAGRAM, flags, settings);
    if (socket < 0) {
        return socket;
    }
    int64_t status = (flags & LPORT_PACKET_INFO) != 0 ? lport_datagram_ask_for_arrivals(socket) : 0;
    if (status == 0) {
        status = set_ends(socket, family, lport_address_in_family(local, family, room), remote);
    }
    if (status < 0) {
        lport_socket_close(socket, 0);
        return status;
    }
    if (family == LPORT_LOCAL) {
        lport_local_keep(socket);
    }
    if ((flags & LPORT_JOINED) != 0) {
        ask_for_joined(socket);
    }
    return socket;
}

int64_t lport_datagram_open(const uint8_t *local, const uint8_t *remote, int32_t flags,
                            const uint8_t *settings, int32_t count) {
    struct lport_settings all = {settings, count};
    uint8_t own_room[LPORT_ADDRESS_SIZE], room[LPORT_ADDRESS_SIZE];
    local = lport_address_plain(local, own_room);
    remote = remote == NULL ? NULL : lport_address_plain(remote, room);
    int32_t family = local[LPORT_AT_FAMILY];
    int32_t remote_family = remote == NULL ? family : remote[LPORT_AT_FAMILY];
    if (remote != NULL &&
        (remote_family == LPORT_ANY || (family != LPORT_ANY && family != remote_family))) {
        return lport_status_make(LPORT_INVALID);
    }
    if (remote_family != LPORT_ANY) {
        return open_in(remote_family, local, remote,
                       flags | (remote_family == LPORT_INET6 ? LPORT_V6_ONLY : 0), &all);
    }
    int64_t socket = open_in(LPORT_INET6, local, NULL, flags, &all);
    return lport_socket_lacks_inet6(socket) ? open_in(LPORT_INET, local, NULL, flags, &all)
                                            : socket;
}

/* ---- sending --------------------------------------------------------------------------------- */

static int64_t send_connected(struct lport_slot *slot, int fd, const uint8_t *octets, size_t len) {
    ssize_t count = lport_transfer_send(fd, octets, len);
    return count < 0 ? lport_transfer_message_failed(slot, errno) : count;
}

/* poll(2) says that a local socket is writable while the receiver of a name has no room. */
static int64_t send_to(struct lport_slot *slot, int fd, const uint8_t *octets, size_t len,
                       const uint8_t *address) {
    struct sockaddr_storage storage;
    ssize_t count;
    int64_t size = lport_address_to_kernel(address, slot->family == LPORT_INET6, &storage);
    if (size < 0) {
        return size;
    }
    do {
        count = lport_os.sendto(fd, octets, len, MSG_NOSIGNAL | MSG_DONTWAIT,
                                (struct sockaddr *)&storage, (socklen_t)size);
    } while (count < 0 && errno == EINTR);
    if (count < 0 && errno == EAGAIN && slot->family == LPORT_LOCAL) {
        return lport_status_make(LPORT_BACKLOG_FULL);
    }
    return count < 0 ? lport_transfer_message_failed(slot, errno) : count;
}

int64_t lport_datagram_send(int64_t socket, const uint8_t *octets, size_t len,
                            const uint8_t *address) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t result = slot->kind == LPORT_STREAM ? lport_status_make(LPORT_INVALID)
                                                : lport_transfer_forbidden(slot);
    if (result == 0) {
        result = address == NULL ? send_connected(slot, (int)fd, octets, len)
                                 : send_to(slot, (int)fd, octets, len, address);
    }
    lport_handle_leave(slot);
    return result;
}

int64_t lport_datagram_undelivered(int64_t socket, uint8_t *address) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t family = lport_transfer_undelivered(slot, address);
    lport_handle_leave(slot);
    return family;
}

/* ---- receiving ------------------------------------------------------------------------------- */

static int64_t receive_connected(struct lport_slot *slot, int fd, uint8_t *octets, size_t len,
                                 int flags) {
    ssize_t count;
    do {
        count = lport_os.recv(fd, octets, len, flags);
    } while (lport_patience_again(count, flags));
    return count < 0 ? lport_transfer_message_failed(slot, errno) : count;
}

static int64_t receive_from(struct lport_slot *slot, int fd, uint8_t *octets, size_t len,
                            uint8_t *sender, int flags) {
    struct sockaddr_storage storage;
    socklen_t size;
    ssize_t count;
    do {
        size = sizeof storage;
        count = lport_os.recvfrom(fd, octets, len, flags, (struct sockaddr *)&storage, &size);
    } while (lport_patience_again(count, flags));
    if (count < 0) {
        return lport_transfer_message_failed(slot, errno);
    }
    int64_t family = lport_address_from_kernel(&storage, size, sender);
    return family < 0 ? family : count;
}

static int64_t receive_packet(struct lport_slot *slot, int fd, uint8_t *octets, size_t len,
                              uint8_t *sender, int flags) {
    struct sockaddr_storage storage;
    struct iovec piece = {octets, len};
    union {
        struct cmsghdr header; /* for its alignment */
        char octets[LPORT_TRANSFER_ROWS];
    } control;
    struct msghdr message = {.msg_name = &storage,
                             .msg_namelen = sizeof storage,
                             .msg_iov = &piece,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    int64_t count = lport_transfer_receive_message(slot, fd, &message, flags);
    if (count >= 0 && sender != NULL) {
        lport_address_from_kernel(&storage, message.msg_namelen, sender);
    }
    return count;
}

static int64_t receive_message(struct lport_slot *slot, int fd, uint8_t *octets, size_t len,
                               uint8_t *sender, int32_t flags) {
    if (slot->kind == LPORT_STREAM) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t ended = lport_transfer_ended(slot);
    if (ended != 0) {
        return ended;
    }
    if ((atomic_load(&slot->flags) & LPORT_SLOT_JOINED) != 0) {
        return lport_status_make(LPORT_NOT_SUPPORTED); /* one message is not what would come */
    }
    int how = MSG_TRUNC | lport_patience_flags(slot, fd, (flags & LPORT_PATIENT) != 0) |
              ((flags & LPORT_PEEK) != 0 ? MSG_PEEK : 0);
    if (slot->kind == LPORT_SEQPACKET) {
        return receive_packet(slot, fd, octets, len, sender, how);
    }
    return sender == NULL ? receive_connected(slot, fd, octets, len, how)
                          : receive_from(slot, fd, octets, len, sender, how);
}

int64_t lport_datagram_receive(int64_t socket, uint8_t *octets, size_t len, uint8_t *sender,
                               int32_t flags) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t result = receive_message(slot, (int)fd, octets, len, sender, flags);
    lport_handle_leave(slot);
    return result;
}
