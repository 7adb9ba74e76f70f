/* patience - receives that wait a moment in the call itself (layer 2). Stands on os, handle.
 *
 * An answer that comes soon costs a poll and a receive where it is polled for, and one receive
 * where that waits; a system call costs about a tenth of a short round trip. Descriptors are
 * non-blocking from birth. The first patient receive makes its descriptor block, with a limit of
 * time by SO_RCVTIMEO, so that neither a close nor an interrupt waits for longer than that.
 *
 * Invariant: a descriptor that blocks is used only by calls that have MSG_DONTWAIT or are patient.
 * Before a call that has no such flag (sendfile, accept), or where somebody else may use the
 * descriptor, as after a fork, it stays or becomes non-blocking for good. One that blocks already
 * when its process forks keeps its mark in the child. */
#include "patience.h"

#include "base/os.h"
#include "libport.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>

/* True if a fork has shared what SLOT has. */
static bool is_shared(struct lport_slot *slot) {
    return atomic_load(&lport_handle_forks) != slot->forks;
}

/* Has a receive on FD that blocks end after NS at the most; 0: never. */
static int limit_receives(int fd, long ns) {
    struct timeval limit = {.tv_usec = ns / 1000};
    return lport_os.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

/* Makes FD block for at most LPORT_PATIENCE_NS; false if it cannot. The mark comes first: a child
 * that is forked from here on has it, and one that was forked before is seen in the count. */
static bool make_block(struct lport_slot *slot, int fd) {
    if (is_shared(slot) || limit_receives(fd, LPORT_PATIENCE_NS) < 0) {
        return false;
    }
    atomic_fetch_or(&slot->flags, LPORT_SLOT_BLOCKS);
    if (!is_shared(slot) && lport_os.fcntl(fd, F_SETFL, 0) == 0) {
        return true;
    }
    atomic_fetch_and(&slot->flags, ~(uint32_t)LPORT_SLOT_BLOCKS);
    limit_receives(fd, 0);
    return false;
}

/* Makes FD non-blocking again and then takes our limit away, which its new user may not want; in
 * that order, so that no receive of ours waits without a limit. */
static void end_blocking(struct lport_slot *slot, int fd) {
    lport_os.fcntl(fd, F_SETFL, O_NONBLOCK);
    limit_receives(fd, 0);
    atomic_fetch_and(&slot->flags, ~(uint32_t)LPORT_SLOT_BLOCKS);
}

/* Makes FD block, unless it never may; the flags of SLOT. A listener has no receive that could
 * wait, and accept(2) takes no flag that keeps it from waiting. */
static uint32_t begin(struct lport_slot *slot, int fd) {
    uint32_t never = LPORT_SLOT_NEVER_BLOCKS | LPORT_STATE_LISTENING;
    pthread_mutex_lock(&slot->lock);
    if ((atomic_load(&slot->flags) & never) != 0 || !make_block(slot, fd)) {
        atomic_fetch_or(&slot->flags, LPORT_SLOT_NEVER_BLOCKS);
    }
    uint32_t flags = atomic_load(&slot->flags);
    pthread_mutex_unlock(&slot->lock);
    return flags;
}

int lport_patience_flags(struct lport_slot *slot, int fd, bool patient) {
    if (!patient) {
        return MSG_DONTWAIT;
    }
    uint32_t flags = atomic_load(&slot->flags);
    if ((flags & (LPORT_SLOT_BLOCKS | LPORT_SLOT_NEVER_BLOCKS)) == 0) {
        flags = begin(slot, fd);
    }
    return (flags & LPORT_SLOT_BLOCKS) != 0 ? 0 : MSG_DONTWAIT;
}

bool lport_patience_again(ssize_t count, int how) {
    if (count >= 0 || errno != EINTR) {
        return false;
    }
    if ((how & MSG_DONTWAIT) != 0) {
        return true;
    }
    errno = EAGAIN;
    return false;
}

void lport_patience_end(struct lport_slot *slot, int fd) {
    if ((atomic_load(&slot->flags) & LPORT_SLOT_NEVER_BLOCKS) != 0) {
        return;
    }
    pthread_mutex_lock(&slot->lock);
    if ((atomic_load(&slot->flags) & LPORT_SLOT_BLOCKS) != 0) {
        end_blocking(slot, fd);
    }
    atomic_fetch_or(&slot->flags, LPORT_SLOT_NEVER_BLOCKS);
    pthread_mutex_unlock(&slot->lock);
}
