/* local_pass - what only local sockets can carry (layer 2), unix(7): who the peer is, or the sender
 * of a message, and descriptors. Part of local; stands on os, status, address, handle, transfer.
 *
 * Invariant: a descriptor that has arrived is close-on-exec, and is either given to the caller or
 * closed. */
#include "address/address.h"
#include "base/os.h"
#include "handle.h"
#include "libport.h"
#include "transfer.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/uio.h>

enum { DESCRIPTORS_MAX = 253 }; /* SCM_MAX_FD, unix(7) */

/* What may come before descriptors: what tells a packet from the end, and the sender, where a user
 * has asked for it (SO_PASSCRED). */
enum { OTHER_ROWS = LPORT_TRANSFER_ROWS + CMSG_SPACE(sizeof(struct ucred)) };

union control {
    struct cmsghdr header; /* for its alignment */
    char octets[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int)) + OTHER_ROWS];
};

/* Enters SOCKET if it is a local one: its descriptor, or a status and not entered. */
static int64_t enter_local(int64_t socket, struct lport_slot **slot) {
    int64_t fd = lport_handle_enter(socket, slot);
    if (fd >= 0 && (*slot)->family != LPORT_LOCAL) {
        lport_handle_leave(*slot);
        return lport_status_make(LPORT_NOT_SUPPORTED);
    }
    return fd;
}

/* ---- credentials ----------------------------------------------------------------------------- */

/* A socket that is not connected has a peer without a process, SO_PEERCRED of unix(7). */
static int64_t peer_of(int fd, int64_t *identity) {
    struct ucred peer;
    socklen_t len = sizeof peer;
    if (lport_os.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    if (peer.pid == 0 && peer.uid == (uid_t)-1) {
        return lport_status_make(LPORT_NOT_CONNECTED);
    }
    identity[0] = peer.pid;
    identity[1] = peer.uid;
    identity[2] = peer.gid;
    return 0;
}

int64_t lport_local_credentials(int64_t socket, int64_t *identity) {
    struct lport_slot *slot;
    int64_t fd = enter_local(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t status = peer_of((int)fd, identity);
    lport_handle_leave(slot);
    return status;
}

/* ---- descriptors ----------------------------------------------------------------------------- */

/* Makes CONTROL the message that carries COUNT DESCRIPTORS; its length. */
static size_t put_descriptors(union control *control, const int64_t *descriptors, int32_t count) {
    size_t size = (size_t)count * sizeof(int);
    memset(control, 0, sizeof *control);
    control->header.cmsg_level = SOL_SOCKET;
    control->header.cmsg_type = SCM_RIGHTS;
    control->header.cmsg_len = CMSG_LEN(size);
    for (int32_t i = 0; i < count; i++) {
        int fd = (int)descriptors[i];
        memcpy(CMSG_DATA(&control->header) + (size_t)i * sizeof fd, &fd, sizeof fd);
    }
    return CMSG_SPACE(size);
}

/* Octets that go past a transport would be none of its own. */
static int64_t forbidden_by_transport(struct lport_slot *slot) {
    return lport_handle_transport(slot) != NULL ? lport_status_make(LPORT_NOT_SUPPORTED) : 0;
}

static int64_t send_with(struct lport_slot *slot, int fd, const uint8_t *octets, size_t len,
                         const int64_t *descriptors, int32_t count) {
    union control control;
    struct iovec piece = {(void *)(uintptr_t)octets, len}; /* only read */
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control};
    message.msg_controllen = put_descriptors(&control, descriptors, count);
    return lport_transfer_sent(slot, lport_transfer_send_message(fd, &message));
}

/* True if each of COUNT DESCRIPTORS is a number that one can have; the system sees an int only. */
static bool are_descriptors(const int64_t *descriptors, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        if (descriptors[i] < 0 || descriptors[i] > INT_MAX) {
            return false;
        }
    }
    return true;
}

int64_t lport_local_send(int64_t socket, const uint8_t *octets, size_t len,
                         const int64_t *descriptors, int32_t count) {
    struct lport_slot *slot;
    if (count < 1 || count > DESCRIPTORS_MAX || !are_descriptors(descriptors, count)) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t fd = enter_local(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t result = slot->kind == LPORT_STREAM && len == 0 ? lport_status_make(LPORT_INVALID)
                                                            : lport_transfer_forbidden(slot);
    result = result == 0 ? forbidden_by_transport(slot) : result;
    if (result == 0) {
        result = send_with(slot, (int)fd, octets, len, descriptors, count);
    }
    lport_handle_leave(slot);
    return result;
}

/* Puts the descriptors of ROW into DESCRIPTORS from KEPT below MAX, and closes the others; how many
 * are there then. */
static int32_t take_row(const struct cmsghdr *row, int64_t *descriptors, int32_t kept,
                        int32_t max) {
    size_t count = (row->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(row) + i * sizeof fd, sizeof fd);
        if (kept < max) {
            descriptors[kept++] = fd;
        } else {
            lport_os.close(fd);
        }
    }
    return kept;
}

static void take_identity(const struct cmsghdr *row, int64_t *identity) {
    struct ucred sender;
    memcpy(&sender, CMSG_DATA(row), sizeof sender);
    identity[0] = sender.pid;
    identity[1] = sender.uid;
    identity[2] = sender.gid;
}

/* What a message is received into. SENDER and IDENTITY may be NULL: they are not asked for. */
struct parcel {
    uint8_t *octets;
    size_t len;
    uint8_t *sender;
    int64_t *descriptors;
    int32_t max;
    int64_t *identity;
};

/* Puts the descriptors that came with MESSAGE into those of PARCEL, and -1 into the rest of them;
 * its sender into the identity, or -1 where the system does not tell. */
static void take_rows(struct msghdr *message, const struct parcel *parcel) {
    int32_t kept = 0;
    if (parcel->identity != NULL) {
        parcel->identity[0] = parcel->identity[1] = parcel->identity[2] = -1;
    }
    for (struct cmsghdr *row = CMSG_FIRSTHDR(message); row != NULL;
         row = CMSG_NXTHDR(message, row)) {
        if (row->cmsg_level == SOL_SOCKET && row->cmsg_type == SCM_RIGHTS) {
            kept = take_row(row, parcel->descriptors, kept, parcel->max);
        } else if (row->cmsg_level == SOL_SOCKET && row->cmsg_type == SCM_CREDENTIALS &&
                   parcel->identity != NULL) {
            take_identity(row, parcel->identity);
        }
    }
    while (kept < parcel->max) {
        parcel->descriptors[kept++] = -1;
    }
}

/* Room for MAX descriptors: what finds none the kernel drops, and what finds some of the room for
 * other rows is closed here. */
static size_t room_for(int32_t max) {
    size_t count = (size_t)(max < DESCRIPTORS_MAX ? max : DESCRIPTORS_MAX);
    return OTHER_ROWS + CMSG_SPACE(count * sizeof(int));
}

static int64_t receive_parcel(struct lport_slot *slot, int fd, const struct parcel *parcel,
                              int how) {
    union control control;
    struct sockaddr_storage storage;
    struct iovec piece = {parcel->octets, parcel->len};
    struct msghdr message = {.msg_iov = &piece,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = room_for(parcel->max)};
    if (parcel->sender != NULL) {
        message.msg_name = &storage;
        message.msg_namelen = sizeof storage;
    }
    int64_t count =
        lport_transfer_receive_message(slot, fd, &message, how | MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (count >= 0) {
        take_rows(&message, parcel);
        if (parcel->sender != NULL) {
            lport_address_from_kernel(&storage, message.msg_namelen, parcel->sender);
        }
    }
    return count;
}

int64_t lport_local_receive(int64_t socket, uint8_t *octets, size_t len, int64_t *descriptors,
                            int32_t max) {
    struct lport_slot *slot;
    if (max < 0) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t fd = enter_local(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t result = slot->kind == LPORT_STREAM && len == 0 ? lport_status_make(LPORT_INVALID) : 0;
    result = result == 0 ? lport_transfer_ended(slot) : result;
    result = result == 0 ? forbidden_by_transport(slot) : result;
    if (result == 0) {
        struct parcel parcel = {
            .octets = octets, .len = len, .descriptors = descriptors, .max = max};
        result = receive_parcel(slot, (int)fd, &parcel, 0);
    }
    lport_handle_leave(slot);
    return result;
}

int64_t lport_local_receive_from(int64_t socket, uint8_t *octets, size_t len, uint8_t *sender,
                                 int64_t *identity) {
    struct lport_slot *slot;
    int64_t fd = enter_local(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t result =
        slot->kind == LPORT_STREAM ? lport_status_make(LPORT_INVALID) : lport_transfer_ended(slot);
    if (result == 0) {
        struct parcel parcel = {
            .octets = octets, .len = len, .sender = sender, .identity = identity};
        result = receive_parcel(slot, (int)fd, &parcel, MSG_TRUNC);
    }
    lport_handle_leave(slot);
    return result;
}
