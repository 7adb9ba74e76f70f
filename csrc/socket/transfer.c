/* transfer - octets in and out of sockets (layer 2). Stands on os, status, handle,
 * patience.
 *
 * Invariant: a connection that broke once stays broken. The kernel tells of a reset once and then
 * pretends an end of file; the status is kept in the slot, and whoever comes later gets it again.
 * What had arrived before is still read first. */
#include "transfer.h"

#include "base/os.h"
#include "libport.h"
#include "patience.h"

#include <errno.h>
#include <sys/uio.h>

/* True if STATUS says that the connection is dead. */
static bool is_broken(int64_t status) {
    int32_t kind = lport_status_kind(status);
    return kind == LPORT_CONNECTION_LOST || kind == LPORT_CONNECTION_RESET ||
           kind == LPORT_CONNECTION_ABORTED;
}

/* The status of ERROR, which a call that moves octets on SLOT gave. */
static int64_t failure_of(const struct lport_slot *slot, int error) {
    bool tcp = slot->kind == LPORT_STREAM && slot->family != LPORT_LOCAL;
    return lport_status_from_errno(tcp ? LPORT_IN_TCP : LPORT_IN_TRANSFER, error);
}

bool lport_transfer_again(struct lport_slot *slot, int64_t result) {
    return slot->kind == LPORT_SEQPACKET && is_broken(result);
}

int64_t lport_transfer_note_broken(struct lport_slot *slot, int64_t status) {
    if (status < 0 && (atomic_load(&slot->flags) & LPORT_SLOT_QUEUES) != 0) {
        status = lport_transfer_queued(slot, status);
    }
    if (is_broken(status) && slot->kind != LPORT_DATAGRAM) {
        int64_t none = 0;
        atomic_compare_exchange_strong(&slot->broken, &none, status);
        atomic_fetch_or(&slot->flags, LPORT_STATE_BROKEN);
    }
    return status;
}

/* The result of recv(2) on FD, or a status. */
static int64_t receive_from(struct lport_slot *slot, int fd, uint8_t *octets, size_t len,
                            int32_t flags) {
    ssize_t count;
    int how = lport_patience_flags(slot, fd, (flags & LPORT_PATIENT) != 0);
    if ((flags & LPORT_PEEK) != 0) {
        how |= MSG_PEEK;
    }
    do {
        count = lport_os.recv(fd, octets, len, how);
    } while (lport_patience_again(count, how));
    if (count > 0) {
        return count;
    }
    int64_t status = count < 0 ? failure_of(slot, errno) : 0;
    int64_t broken = atomic_load(&slot->broken);
    if (slot->family == LPORT_LOCAL && lport_status_kind(status) == LPORT_WOULD_BLOCK) {
        return status; /* EPIPE of a peer that shut down its input only: more can come from it */
    }
    return broken != 0 ? broken : lport_transfer_note_broken(slot, status);
}

int64_t lport_transfer_receive(struct lport_slot *slot, int fd, uint8_t *octets, size_t len,
                               int32_t flags) {
    int64_t result = receive_from(slot, fd, octets, len, flags);
    return lport_transfer_again(slot, result) ? receive_from(slot, fd, octets, len, flags) : result;
}

/* What one call moves through a transport at the most: a peer that is as fast could keep it for as
 * long as there is room, while a caller that waits for nobody hears of no deadline. */
enum { THROUGH_MAX = 1 << 18 };

static size_t length_through(size_t len) {
    return len < THROUGH_MAX ? len : THROUGH_MAX;
}

/* What is received through a transport comes from it alone, which does not wait. */
static int64_t receive_through(struct lport_transport *transport, struct lport_slot *slot, int fd,
                               uint8_t *octets, size_t len, int32_t flags) {
    return transport->calls->receive(transport, slot, fd, octets, length_through(len),
                                     (flags & LPORT_PEEK) != 0);
}

int64_t lport_socket_receive(int64_t socket, uint8_t *octets, size_t len, int32_t flags) {
    struct lport_slot *slot;
    int64_t result = 0;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    uint32_t not_now = atomic_load(&slot->flags) & (LPORT_STATE_INPUT_SHUT | LPORT_SLOT_JOINED);
    if ((not_now & LPORT_SLOT_JOINED) != 0) {
        result = lport_status_make(LPORT_NOT_SUPPORTED); /* what would come is several messages */
    } else if (len > 0 && not_now == 0) {
        struct lport_transport *transport = lport_handle_transport(slot);
        result = transport == NULL ? lport_transfer_receive(slot, (int)fd, octets, len, flags)
                                   : receive_through(transport, slot, (int)fd, octets, len, flags);
    }
    lport_handle_leave(slot);
    return result;
}

int64_t lport_transfer_ended(struct lport_slot *slot) {
    return (atomic_load(&slot->flags) & LPORT_STATE_INPUT_SHUT) != 0 ? lport_status_make(LPORT_END)
                                                                     : 0;
}

/* The system says EPIPE of a listener, as if it had been a connection. */
int64_t lport_transfer_forbidden(struct lport_slot *slot) {
    uint32_t flags = atomic_load(&slot->flags);
    if ((flags & (LPORT_STATE_OUTPUT_SHUT | LPORT_STATE_LISTENING)) != 0) {
        return lport_status_make((flags & LPORT_STATE_LISTENING) != 0 ? LPORT_NOT_CONNECTED
                                                                      : LPORT_OUTPUT_SHUT);
    }
    if ((flags & LPORT_SLOT_UNTOLD) != 0) {
        atomic_fetch_and(&slot->flags, ~(uint32_t)LPORT_SLOT_UNTOLD);
        return lport_transfer_queued(slot, 0);
    }
    return atomic_load(&slot->broken);
}

ssize_t lport_transfer_send(int fd, const void *octets, size_t len) {
    ssize_t count;
    do {
        count = lport_os.send(fd, octets, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR);
    return count;
}

ssize_t lport_transfer_send_message(int fd, const struct msghdr *message) {
    ssize_t count;
    do {
        count = lport_os.sendmsg(fd, message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR);
    return count;
}

int64_t lport_transfer_sent(struct lport_slot *slot, ssize_t count) {
    return count >= 0 ? count : lport_transfer_note_broken(slot, failure_of(slot, errno));
}

int64_t lport_socket_buffered(int64_t socket) {
    struct lport_slot *slot;
    int64_t entered = lport_handle_enter(socket, &slot);
    if (entered < 0) {
        return entered;
    }
    struct lport_transport *transport = lport_handle_transport(slot);
    bool ready = transport != NULL && atomic_load(&transport->ready);
    bool stuck = lport_handle_is_stuck(slot);
    lport_handle_leave(slot);
    return (ready ? LPORT_INPUT : 0) | (stuck ? LPORT_OUTPUT : 0);
}

/* The error that the system has for FD and tells once; 0 for none, and where it cannot be asked
 * now. EPIPE is none: TCP says that of a reset behind an end of the peer. What it sent is whole and
 * can be received, its end, too, and a send says EPIPE all the same. */
static int take_error(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    bool taken = lport_os.getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0;
    return taken && error != EPIPE ? error : 0;
}

static int64_t failure_in(struct lport_slot *slot, int fd) {
    if (slot->kind == LPORT_DATAGRAM) {
        return lport_status_make(LPORT_NOT_SUPPORTED); /* it is of a message, and no other's */
    }
    int64_t broken = atomic_load(&slot->broken);
    int error = broken == 0 ? take_error(fd) : 0;
    return error == 0 ? broken : lport_transfer_note_broken(slot, failure_of(slot, error));
}

int64_t lport_socket_failure(int64_t socket) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t status = failure_in(slot, (int)fd);
    lport_handle_leave(slot);
    return status;
}

int64_t lport_socket_send(int64_t socket, const uint8_t *octets, size_t len) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    struct lport_transport *transport = lport_handle_transport(slot);
    /* What a transport holds was taken before anything forbade to send. */
    int64_t result = transport != NULL && len == 0 ? 0 : lport_transfer_forbidden(slot);
    if (result == 0 && transport != NULL) {
        result = transport->calls->send(transport, slot, (int)fd, octets, length_through(len));
    } else if (result == 0 && (len > 0 || slot->kind != LPORT_STREAM)) {
        result = lport_transfer_sent(slot, lport_transfer_send((int)fd, octets, len));
    }
    lport_handle_leave(slot);
    return result;
}

/* Sends through TRANSPORT the octets at A, and those at B behind them. */
static int64_t send2_through(struct lport_transport *transport, struct lport_slot *slot, int fd,
                             const struct iovec *a, const struct iovec *b) {
    size_t a_len = length_through(a->iov_len), b_len = length_through(b->iov_len);
    int64_t first = transport->calls->send(transport, slot, fd, a->iov_base, a_len);
    if (first < 0 || (size_t)first < a->iov_len || b->iov_len == 0) {
        return first;
    }
    int64_t second = transport->calls->send(transport, slot, fd, b->iov_base, b_len);
    if (second < 0) {
        return first > 0 ? first : second;
    }
    return first + second;
}

int64_t lport_socket_send2(int64_t socket, const uint8_t *a, size_t a_len, const uint8_t *b,
                           size_t b_len) {
    struct lport_slot *slot;
    /* iov_base is not const, though sendmsg only reads it. */
    struct iovec pieces[2] = {{(void *)(uintptr_t)a, a_len}, {(void *)(uintptr_t)b, b_len}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    struct lport_transport *transport = lport_handle_transport(slot);
    int64_t result = lport_transfer_forbidden(slot);
    if (result == 0 && transport != NULL) {
        result = send2_through(transport, slot, (int)fd, &pieces[0], &pieces[1]);
    } else if (result == 0 && (a_len > 0 || b_len > 0 || slot->kind != LPORT_STREAM)) {
        result = lport_transfer_sent(slot, lport_transfer_send_message((int)fd, &message));
    }
    lport_handle_leave(slot);
    return result;
}
