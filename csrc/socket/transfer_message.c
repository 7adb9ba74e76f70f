/* transfer_message - messages with what the system tells beside them, and the end of sequenced
 * packets (layer 2). Part of transfer; stands on os, status, handle, patience.
 *
 * A receive gives 0 for an empty packet and for the end of a connection alike. But a packet has a
 * time of arrival, where that was asked for (SO_TIMESTAMP, socket(7)), and the end has none.
 *
 * Invariant: of sequenced packets nothing is received before times are asked for, and a failure is
 * told after the packets that arrived before it. */
#include "transfer.h"

#include "base/os.h"
#include "libport.h"
#include "patience.h"

#include <errno.h>

/* A UDP socket is told of hosts that cannot be reached, which breaks no connection; the errors of
 * local sockets are those of a transfer. */
int64_t lport_transfer_message_failed(struct lport_slot *slot, int error) {
    enum lport_context context = slot->family == LPORT_LOCAL ? LPORT_IN_TRANSFER : LPORT_IN_GENERAL;
    return lport_transfer_note_broken(slot, lport_status_from_errno(context, error));
}

/* Sees to it that every packet that SLOT receives on FD has a time. 0 or a status. */
static int64_t ask_for_times(struct lport_slot *slot, int fd) {
    static const int on = 1;
    if (slot->kind != LPORT_SEQPACKET || (atomic_load(&slot->flags) & LPORT_SLOT_TIMED) != 0) {
        return 0;
    }
    if (lport_os.setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on) < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    atomic_fetch_or(&slot->flags, LPORT_SLOT_TIMED);
    return 0;
}

/* True if COUNT octets with MESSAGE are nothing but the end of what SLOT receives. */
static bool is_end(const struct lport_slot *slot, ssize_t count, const struct msghdr *message) {
    return count == 0 && (slot->kind == LPORT_STREAM ||
                          (slot->kind == LPORT_SEQPACKET && message->msg_controllen == 0));
}

static int64_t receive(struct lport_slot *slot, int fd, const struct msghdr *asked,
                       struct msghdr *message, int how) {
    ssize_t count;
    do {
        *message = *asked;
        count = lport_os.recvmsg(fd, message, how);
    } while (lport_patience_again(count, how));
    if (count < 0) {
        return lport_transfer_message_failed(slot, errno);
    }
    if (is_end(slot, count, message)) {
        int64_t broken = atomic_load(&slot->broken);
        return broken != 0 ? broken : lport_status_make(LPORT_END);
    }
    return count;
}

int64_t lport_transfer_receive_message(struct lport_slot *slot, int fd, struct msghdr *message,
                                       int how) {
    const struct msghdr asked = *message; /* a receive leaves other lengths in it */
    int64_t status = ask_for_times(slot, fd);
    if (status < 0) {
        return status;
    }
    int64_t result = receive(slot, fd, &asked, message, how);
    return lport_transfer_again(slot, result) ? receive(slot, fd, &asked, message, how) : result;
}
