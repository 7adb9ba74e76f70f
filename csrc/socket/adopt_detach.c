/* adopt_detach - descriptors given away again: the reverse of adopt.c (layer 2). Stands on os,
 * status, handle, patience, socket.
 *
 * Invariant: whoever detaches a socket stays its user until it has the descriptor, and gets that
 * only once no other user is left; so no call of ours meets a descriptor that blocks, or that is
 * somebody else's. */
#include "base/os.h"
#include "handle.h"
#include "libport.h"
#include "patience.h"
#include "socket.h"

#include <errno.h>
#include <fcntl.h>

/* Takes O_NONBLOCK from FD; 0 or a status. */
static int64_t make_block(int fd) {
    int flags = lport_os.fcntl(fd, F_GETFL, 0);
    return flags < 0 || lport_os.fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0
               ? lport_status_from_errno(LPORT_IN_GENERAL, errno)
               : 0;
}

/* LPORT_NOT_SUPPORTED if the descriptor of SLOT alone is not all that there is of it; else 0. */
static int64_t look_for_more(struct lport_slot *slot) {
    return slot->retire != NULL || lport_handle_transport(slot) != NULL
               ? lport_status_make(LPORT_NOT_SUPPORTED)
               : 0;
}

/* Begins to detach SLOT, which the caller has entered; 0 or a status. */
static int64_t begin(struct lport_slot *slot, int fd) {
    int64_t status = look_for_more(slot);
    if (status < 0) {
        return status;
    }
    lport_patience_end(slot, fd);
    if (!lport_socket_begin_close(slot, 0)) {
        return lport_status_make(LPORT_CLOSED);
    }
    atomic_fetch_or(&slot->flags, LPORT_SLOT_DETACHING);
    return 0;
}

int64_t lport_socket_detach(int64_t socket) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t status = begin(slot, (int)fd);
    if (status < 0) {
        lport_handle_leave(slot);
    }
    return status;
}

/* The descriptor of SLOT, which blocks then and is the caller's; or a status. */
static int64_t take_descriptor(struct lport_slot *slot) {
    if (!lport_handle_is_alone(slot)) {
        return lport_status_make(LPORT_WOULD_BLOCK);
    }
    int64_t status = look_for_more(slot); /* a thread that has left by now may have begun TLS */
    status = status < 0 ? status : make_block(slot->fd);
    if (status < 0) {
        return status;
    }
    atomic_fetch_or(&slot->flags, LPORT_SLOT_DETACHED);
    return slot->fd;
}

int64_t lport_socket_detach_end(int64_t socket, int32_t keep) {
    struct lport_slot *slot = lport_handle_entered(socket);
    if (slot == NULL) {
        return lport_status_make(LPORT_CLOSED);
    }
    if ((atomic_load(&slot->flags) & LPORT_SLOT_DETACHING) == 0) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t result = keep != 0 ? take_descriptor(slot) : 0;
    if (result >= 0) {
        atomic_fetch_and(&slot->flags, ~(uint32_t)LPORT_SLOT_DETACHING);
        lport_handle_leave(slot);
    }
    return result;
}
