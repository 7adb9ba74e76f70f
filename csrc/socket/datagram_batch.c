/* datagram_batch - many messages by one system call (layer 2). Part of datagram; stands on os,
 * status, address, handle, transfer.
 *
 * Messages of one length for one destination that follow each other go to the kernel as one, which
 * takes it apart again (UDP_SEGMENT, udp(7)): that is five times as fast as one by one, where
 * sendmmsg alone gains a fifth. The other way round a socket that was opened for it gets them as
 * one too (UDP_GRO), which halves the cost of both ends; of messages that come singly it gets fewer
 * by one call, so that is for the user to choose. Invariant: what comes out are the messages that
 * went in, in their order, and a count tells how many, whatever way they went. */
#include "address/address.h"
#include "base/os.h"
#include "datagram.h"
#include "handle.h"
#include "libport.h"
#include "transfer.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/uio.h>

enum {
    PIECE = 64,           /* messages that one system call is given, and that go as one at most:
                           * UDP_MAX_SEGMENTS of the oldest kernels that have it */
    TOGETHER_MAX = 65000, /* octets of messages that go as one: a datagram with its headers */
    SEGMENT_OPTION = 103, /* UDP_SEGMENT of linux/udp.h */
    JOINED_MAX = 128,     /* UDP_MAX_SEGMENTS: messages that come as one, at most */
    DATAGRAM_MAX = 65536, /* room for any datagram */
};

/* The messages of a call, as libport.h describes them. */
struct batch {
    uint8_t *octets;
    size_t room;
    int64_t *lengths;
    uint8_t *addresses;
    uint8_t *owns; /* or NULL */
    int32_t count;
};

static uint8_t *address_at(const struct batch *batch, int32_t index) {
    return batch->addresses + (size_t)index * LPORT_ADDRESS_SIZE;
}

/* Where message INDEX was sent to, or is sent from; NULL where that is not said. */
static uint8_t *own_at(const struct batch *batch, int32_t index) {
    return batch->owns == NULL ? NULL : batch->owns + (size_t)index * LPORT_ADDRESS_SIZE;
}

union control {
    struct cmsghdr header; /* for its alignment */
    char octets[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

/* What one system call is given: groups of messages, each a message to the kernel. */
struct piece {
    struct mmsghdr groups[PIECE];
    struct iovec pieces[PIECE];
    struct sockaddr_storage ends[PIECE];
    union control controls[PIECE];
    int32_t sizes[PIECE]; /* messages in each group */
    int32_t group_count, used;
};

/* ---- sending --------------------------------------------------------------------------------- */

/* True if messages A and B of BATCH have the same ends. */
static bool same_ends(const struct batch *batch, int32_t a, int32_t b) {
    return memcmp(address_at(batch, a), address_at(batch, b), LPORT_ADDRESS_SIZE) == 0 &&
           (batch->owns == NULL ||
            memcmp(own_at(batch, a), own_at(batch, b), LPORT_ADDRESS_SIZE) == 0);
}

/* How many messages of BATCH from FIRST below END can go as one. Only the last of them may be
 * shorter, and none of them empty but one that goes alone. */
static int32_t together(const struct batch *batch, int32_t first, int32_t end) {
    int64_t length = batch->lengths[first], total = length;
    int32_t next = first + 1;
    while (next < end && batch->lengths[next - 1] == length) {
        total += batch->lengths[next];
        if (batch->lengths[next] > length || batch->lengths[next] == 0 || total > TOGETHER_MAX ||
            !same_ends(batch, first, next)) {
            break;
        }
        next++;
    }
    return next - first;
}

/* Tells the kernel to take GROUP apart into messages of LENGTH. */
static void ask_for_segments(struct msghdr *group, union control *control, int64_t length) {
    uint16_t size = (uint16_t)length;
    control->header.cmsg_level = IPPROTO_UDP;
    control->header.cmsg_type = SEGMENT_OPTION;
    control->header.cmsg_len = CMSG_LEN(sizeof size);
    memcpy(CMSG_DATA(&control->header), &size, sizeof size);
    group->msg_controllen = CMSG_SPACE(sizeof size);
}

/* True if messages go from OWN, and not from where the system picks: so do answers to what was sent
 * to many. */
static bool is_source(const uint8_t *own) {
    return own != NULL && own[LPORT_AT_FAMILY] != LPORT_ANY && own[LPORT_AT_LENGTH] == 0;
}

/* Has GROUP, for ADDRESS, go from OWN, if there is one. 0 or a status. */
static int64_t ask_for_own(struct msghdr *group, union control *control, const uint8_t *own,
                           const uint8_t *address, bool mapped) {
    if (!is_source(own)) {
        return 0;
    }
    struct cmsghdr *row = (struct cmsghdr *)(void *)(control->octets + group->msg_controllen);
    int64_t length = lport_datagram_put_own(row, own, address, mapped);
    group->msg_controllen += length > 0 ? (size_t)length : 0;
    return length < 0 ? length : 0;
}

/* Adds the COUNT messages of BATCH from FIRST to PIECE as one group; 0 or a status. */
static int64_t add_group(struct piece *piece, const struct batch *batch, int32_t first,
                         int32_t count, bool mapped) {
    int32_t index = piece->group_count;
    struct msghdr *group = &piece->groups[index].msg_hdr;
    const uint8_t *address = address_at(batch, first);
    memset(group, 0, sizeof *group);
    if (address[LPORT_AT_FAMILY] != LPORT_ANY) {
        int64_t size = lport_address_to_kernel(address, mapped, &piece->ends[index]);
        if (size < 0) {
            return size;
        }
        group->msg_name = &piece->ends[index];
        group->msg_namelen = (socklen_t)size;
    }
    group->msg_iov = &piece->pieces[piece->used];
    group->msg_iovlen = (size_t)count;
    for (int32_t i = first; i < first + count; i++) {
        piece->pieces[piece->used++] =
            (struct iovec){batch->octets + (size_t)i * batch->room, (size_t)batch->lengths[i]};
    }
    memset(&piece->controls[index], 0, sizeof piece->controls[index]);
    if (count > 1) {
        ask_for_segments(group, &piece->controls[index], batch->lengths[first]);
    }
    int64_t status =
        ask_for_own(group, &piece->controls[index], own_at(batch, first), address, mapped);
    if (status < 0) {
        return status;
    }
    group->msg_control = group->msg_controllen > 0 ? &piece->controls[index] : NULL;
    piece->sizes[piece->group_count++] = count;
    return 0;
}

/* Puts the next messages of BATCH from FIRST into PIECE, in groups if JOINED; 0, or what is wrong
 * with the first of them. */
static int64_t fill_piece(struct piece *piece, const struct batch *batch, int32_t first,
                          bool joined, bool mapped) {
    int32_t left = batch->count - first;
    int32_t end = first + (left < PIECE ? left : PIECE);
    piece->group_count = piece->used = 0;
    while (first < end) {
        int32_t count = joined ? together(batch, first, end) : 1;
        int64_t status = add_group(piece, batch, first, count, mapped);
        if (status < 0) {
            return piece->group_count > 0 ? 0 : status;
        }
        first += count;
    }
    return 0;
}

/* Errors by which systems, routes and devices say that they do not take messages apart. */
static bool is_refusal_to_segment(int error) {
    return error == EINVAL || error == EIO || error == EMSGSIZE || error == EOPNOTSUPP;
}

/* Sends messages of BATCH from FIRST: how many, 0 to be called again, or the status of the first.
 */
static int64_t send_piece(struct lport_slot *slot, int fd, const struct batch *batch,
                          int32_t first) {
    struct piece piece;
    int64_t messages = 0;
    bool joined =
        slot->family != LPORT_LOCAL && (atomic_load(&slot->flags) & LPORT_SLOT_UNJOINED) == 0;
    int64_t status = fill_piece(&piece, batch, first, joined, slot->family == LPORT_INET6);
    if (status < 0) {
        return status;
    }
    int sent;
    do {
        sent = lport_os.sendmmsg(fd, piece.groups, (unsigned)piece.group_count,
                                 MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0 && piece.sizes[0] > 1 && is_refusal_to_segment(errno)) {
        atomic_fetch_or(&slot->flags, LPORT_SLOT_UNJOINED);
        return 0; /* again, and this time nothing is joined */
    }
    if (sent < 0) {
        return lport_transfer_message_failed(
            slot, is_source(own_at(batch, first))
                      ? lport_datagram_own_error(errno, address_at(batch, first))
                      : errno);
    }
    if (sent < piece.group_count && (atomic_load(&slot->flags) & LPORT_SLOT_QUEUES) != 0) {
        atomic_fetch_or(&slot->flags, LPORT_SLOT_UNTOLD); /* it does not say why it ended there */
    }
    for (int i = 0; i < sent; i++) {
        messages += piece.sizes[i];
    }
    return messages;
}

/* True if the arguments of a call describe a batch. */
static bool is_batch(const struct batch *batch, bool sending) {
    for (int32_t i = 0; sending && i < batch->count; i++) {
        if (batch->lengths[i] < 0 || (uint64_t)batch->lengths[i] > batch->room) {
            return false;
        }
    }
    return batch->count > 0;
}

/* Moves pieces of a batch, or all of it: how many messages, or why none. */
typedef int64_t move_piece(struct lport_slot *slot, int fd, const struct batch *batch,
                           int32_t first);
typedef int64_t move_all(struct lport_slot *slot, int fd, const struct batch *batch);

/* Runs MOVE until it has moved all messages of BATCH or fewer than it was given. */
static int64_t in_pieces(struct lport_slot *slot, int fd, const struct batch *batch,
                         move_piece *move) {
    int64_t result = 0;
    int32_t done = 0;
    while (result >= 0 && done < batch->count) {
        result = move(slot, fd, batch, done);
        done += result > 0 ? (int32_t)result : 0;
        if (done % PIECE != 0) {
            break;
        }
    }
    return done > 0 ? done : result;
}

static int64_t send_all(struct lport_slot *slot, int fd, const struct batch *batch) {
    return in_pieces(slot, fd, batch, send_piece);
}

/* Runs MOVE for BATCH on SOCKET, unless the slot FORBIDS it. */
static int64_t move_batch(int64_t socket, const struct batch *batch, move_all *move,
                          int64_t (*forbids)(struct lport_slot *slot)) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t result =
        slot->kind != LPORT_DATAGRAM ? lport_status_make(LPORT_NOT_SUPPORTED) : forbids(slot);
    if (result == 0) {
        result = move(slot, (int)fd, batch);
    }
    lport_handle_leave(slot);
    return result;
}

int64_t lport_datagram_send_batch(int64_t socket, const uint8_t *octets, size_t room,
                                  const int64_t *lengths, const uint8_t *addresses, int32_t count) {
    return lport_datagram_send_batch_from(socket, octets, room, lengths, addresses, NULL, count);
}

int64_t lport_datagram_send_batch_from(int64_t socket, const uint8_t *octets, size_t room,
                                       const int64_t *lengths, const uint8_t *addresses,
                                       const uint8_t *owns, int32_t count) {
    /* The kernel's structures are not const, though sendmmsg only reads what they point to. */
    struct batch batch = {(uint8_t *)(uintptr_t)octets,  room,
                          (int64_t *)(uintptr_t)lengths, (uint8_t *)(uintptr_t)addresses,
                          (uint8_t *)(uintptr_t)owns,    count};
    return is_batch(&batch, true) ? move_batch(socket, &batch, send_all, lport_transfer_forbidden)
                                  : lport_status_make(LPORT_INVALID);
}

/* ---- receiving ------------------------------------------------------------------------------- */

/* Receives what is there for the first COUNT groups of PIECE: for how many, or why none. */
static int64_t receive_groups(struct lport_slot *slot, int fd, struct piece *piece, int32_t count) {
    int got;
    do {
        got = lport_os.recvmmsg(fd, piece->groups, (unsigned)count, MSG_TRUNC | MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    return got >= 0 ? got : lport_transfer_message_failed(slot, errno);
}

/* Offers the LEN octets at OCTETS for what comes as group INDEX of PIECE. No room for more is
 * offered: descriptors that come with a message of a local socket are closed by the system then. */
static void offer(struct piece *piece, int32_t index, uint8_t *octets, size_t len) {
    piece->pieces[index] = (struct iovec){octets, len};
    piece->groups[index].msg_hdr = (struct msghdr){.msg_name = &piece->ends[index],
                                                   .msg_namelen = sizeof piece->ends[index],
                                                   .msg_iov = &piece->pieces[index],
                                                   .msg_iovlen = 1};
}

/* Offers ROWS for what comes with that. */
static void offer_rows(struct piece *piece, int32_t index, union lport_datagram_rows *rows) {
    piece->groups[index].msg_hdr.msg_control = rows;
    piece->groups[index].msg_hdr.msg_controllen = sizeof *rows;
}

static uint8_t *place(const struct batch *batch, int32_t index) {
    return batch->octets + (size_t)index * batch->room;
}

/* Receives messages into BATCH from FIRST: how many, or why none. */
static int64_t receive_piece(struct lport_slot *slot, int fd, const struct batch *batch,
                             int32_t first) {
    struct piece piece;
    int32_t left = batch->count - first;
    int32_t count = left < PIECE ? left : PIECE;
    union lport_datagram_rows rows[PIECE];
    for (int32_t i = 0; i < count; i++) {
        offer(&piece, i, place(batch, first + i), batch->room);
        if (batch->owns != NULL) {
            offer_rows(&piece, i, &rows[i]);
        }
    }
    int64_t got = receive_groups(slot, fd, &piece, count);
    for (int i = 0; i < got; i++) {
        batch->lengths[first + i] = piece.groups[i].msg_len;
        lport_address_from_kernel(&piece.ends[i], piece.groups[i].msg_hdr.msg_namelen,
                                  address_at(batch, first + i));
        if (batch->owns != NULL) {
            lport_datagram_arrival_in(&piece.groups[i].msg_hdr, own_at(batch, first + i));
        }
    }
    return got;
}

/* ---- receiving what comes joined ---------------------------------------------------------------
 *
 * The places of a batch are received into as regions, each with room for whatever comes as one;
 * then the messages in a region go to their places. A region begins at or behind the places that
 * its messages go to. */

/* How many places of BATCH a region is; 0: a batch that small takes none. */
static int32_t region_of(const struct batch *batch) {
    size_t places = batch->room == 0 ? 0 : (DATAGRAM_MAX + batch->room - 1) / batch->room;
    places = places < JOINED_MAX ? JOINED_MAX : places;
    return batch->room > 0 && places <= (size_t)batch->count ? (int32_t)places : 0;
}

/* The length of the messages in MESSAGE, of LENGTH octets in all; the last may be shorter. */
static int64_t segment_of(struct msghdr *message, int64_t length) {
    int size = 0;
    for (struct cmsghdr *row = CMSG_FIRSTHDR(message); row != NULL;
         row = CMSG_NXTHDR(message, row)) {
        if (row->cmsg_level == IPPROTO_UDP && row->cmsg_type == LPORT_DATAGRAM_JOIN) {
            memcpy(&size, CMSG_DATA(row), sizeof size);
        }
    }
    return size > 0 ? size : length;
}

/* Moves the COUNT messages of SEGMENT octets each that follow each other from place FROM on, of
 * LENGTH in all, to a place each; their lengths stand at LENGTHS. From the end on where places are
 * larger than messages, else from the beginning, so that none is overwritten before it has moved.
 */
static void spread(const struct batch *batch, int32_t from, int32_t count, int64_t segment,
                   const int64_t *lengths) {
    bool backwards = (size_t)segment <= batch->room;
    for (int32_t i = 0; i < count; i++) {
        int32_t index = backwards ? count - 1 - i : i;
        size_t stored = (size_t)lengths[index] < batch->room ? (size_t)lengths[index] : batch->room;
        memmove(place(batch, from + index), place(batch, from) + (size_t)index * (size_t)segment,
                stored);
    }
}

/* Moves the messages in the COUNT places from FROM on down to those from TO on. */
static void move_down(const struct batch *batch, int32_t from, int32_t to, int32_t count) {
    for (int32_t i = 0; i < count && from != to; i++) {
        size_t length = (size_t)batch->lengths[to + i];
        memmove(place(batch, to + i), place(batch, from + i),
                length < batch->room ? length : batch->room);
    }
}

/* Makes the messages of BATCH from place TO on of what has come as one, LENGTH octets, to place
 * FROM; how many they are. */
static int32_t take_apart(const struct batch *batch, int32_t from, int32_t to,
                          struct msghdr *message, int64_t length) {
    int64_t segment = segment_of(message, length);
    int32_t count = length == 0 ? 1 : (int32_t)((length + segment - 1) / segment);
    uint8_t *sender = address_at(batch, to), *own = own_at(batch, to);
    if (count > batch->count - from) {
        count = batch->count - from; /* more than JOINED_MAX, which no system does */
    }
    lport_address_from_kernel(message->msg_name, message->msg_namelen, sender);
    if (own != NULL) {
        lport_datagram_arrival_in(message, own);
    }
    for (int32_t i = 0; i < count; i++) {
        int64_t left = length - i * segment;
        batch->lengths[to + i] = left < segment ? left : segment;
        memmove(address_at(batch, to + i), sender, LPORT_ADDRESS_SIZE);
        if (own != NULL) {
            memmove(own_at(batch, to + i), own, LPORT_ADDRESS_SIZE);
        }
    }
    spread(batch, from, count, segment, batch->lengths + to);
    move_down(batch, from, to, count);
    return count;
}

/* Receives into regions of BATCH from FIRST, as many as there are up to PIECE: how many messages, 0
 * where no region is left, or why none. *FULL: there may be more. */
static int64_t receive_regions(struct lport_slot *slot, int fd, const struct batch *batch,
                               int32_t first, bool *full) {
    struct piece piece;
    union lport_datagram_rows rows[PIECE];
    int32_t region = region_of(batch), done = first;
    int32_t count = (batch->count - first) / region;
    count = count < PIECE ? count : PIECE;
    for (int32_t i = 0; i < count; i++) {
        offer(&piece, i, place(batch, first + i * region), (size_t)region * batch->room);
        if (slot->family != LPORT_LOCAL) { /* whose messages are never joined */
            offer_rows(&piece, i, &rows[i]);
        }
    }
    int64_t got = count == 0 ? 0 : receive_groups(slot, fd, &piece, count);
    for (int i = 0; i < got; i++) {
        done += take_apart(batch, first + i * region, done, &piece.groups[i].msg_hdr,
                           piece.groups[i].msg_len);
    }
    *full = got == count;
    return got < 0 ? got : done - first;
}

/* Receives what comes joined into BATCH: how many messages, or why none. */
static int64_t receive_joined(struct lport_slot *slot, int fd, const struct batch *batch) {
    int64_t result = 1;
    int32_t done = 0;
    bool full = true;
    if (region_of(batch) == 0) {
        return lport_status_make(LPORT_INVALID);
    }
    while (result > 0 && full) {
        result = receive_regions(slot, fd, batch, done, &full);
        done += result > 0 ? (int32_t)result : 0;
    }
    return done > 0 ? done : result;
}

static int64_t receive_all(struct lport_slot *slot, int fd, const struct batch *batch) {
    return (atomic_load(&slot->flags) & LPORT_SLOT_JOINED) != 0
               ? receive_joined(slot, fd, batch)
               : in_pieces(slot, fd, batch, receive_piece);
}

int64_t lport_datagram_receive_batch(int64_t socket, uint8_t *octets, size_t room, int64_t *lengths,
                                     uint8_t *senders, int32_t count) {
    return lport_datagram_receive_batch_at(socket, octets, room, lengths, senders, NULL, count);
}

int64_t lport_datagram_receive_batch_at(int64_t socket, uint8_t *octets, size_t room,
                                        int64_t *lengths, uint8_t *senders, uint8_t *owns,
                                        int32_t count) {
    struct batch batch = {octets, room, lengths, senders, owns, count};
    return is_batch(&batch, false) ? move_batch(socket, &batch, receive_all, lport_transfer_ended)
                                   : lport_status_make(LPORT_INVALID);
}
