/* transfer_error - the errors that the system queues, and the messages that they are of (layer 2).
 * Part of transfer; stands on os, status, address, handle.
 *
 * Where errors are queued (IP_RECVERR) each is reported to one call, whatever that has to do with
 * it, and the socket is ready until the queue is empty. Linux reports by one number that the next
 * error overwrites, and that a sendmmsg which has sent something loses; so what a call tells is the
 * first of the queue, where there is one, and not the number. Invariant: what leaves the queue is
 * told by the call that took it out, with the destination of the message, and by no other. */
#include "transfer.h"

#include "address/address.h"
#include "base/os.h"
#include "libport.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <string.h>

/* What this thread was told last of a message that could not be delivered. */
static _Thread_local struct {
    const struct lport_slot *slot; /* NULL: nothing */
    uint64_t generation;           /* of the slot's socket */
    uint8_t address[LPORT_ADDRESS_SIZE];
} undelivered;

static uint64_t generation_of(struct lport_slot *slot) {
    return atomic_load(&slot->state) >> 32;
}

/* Room for an error and what else may come with it, such as the time. */
union rows {
    struct cmsghdr header; /* for its alignment */
    char octets[512];
};

/* The error that MESSAGE, out of the queue, says the network has told; 0 for what the call that met
 * it was told itself, and for what is no error. */
static int error_in(struct msghdr *message) {
    struct sock_extended_err error = {0};
    for (struct cmsghdr *row = CMSG_FIRSTHDR(message); row != NULL;
         row = CMSG_NXTHDR(message, row)) {
        if ((row->cmsg_level == IPPROTO_IP && row->cmsg_type == IP_RECVERR) ||
            (row->cmsg_level == IPPROTO_IPV6 && row->cmsg_type == IPV6_RECVERR)) {
            memcpy(&error, CMSG_DATA(row), sizeof error);
        }
    }
    bool told = error.ee_origin == SO_EE_ORIGIN_ICMP || error.ee_origin == SO_EE_ORIGIN_ICMP6;
    return told ? (int)error.ee_errno : 0;
}

/* Takes the first out of the queue of SLOT; false where it is empty. Its error into *ERROR, as
 * error_in, and where the message went into ADDRESS. */
static bool take_queued(struct lport_slot *slot, int *error, uint8_t *address) {
    struct sockaddr_storage storage;
    union rows rows;
    struct msghdr message;
    ssize_t count;
    do {
        message = (struct msghdr){.msg_name = &storage,
                                  .msg_namelen = sizeof storage,
                                  .msg_control = &rows,
                                  .msg_controllen = sizeof rows};
        count = lport_os.recvmsg(slot->fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR);
    if (count < 0) {
        return false;
    }
    *error = error_in(&message);
    if (*error != 0 && lport_address_from_kernel(&storage, message.msg_namelen, address) < 0) {
        address[LPORT_AT_FAMILY] = LPORT_ANY;
    }
    return true;
}

int64_t lport_transfer_queued(struct lport_slot *slot, int64_t status) {
    uint8_t address[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    int error = 0;
    if (undelivered.slot == slot) {
        undelivered.slot = NULL;
    }
    while (error == 0) {
        if (!take_queued(slot, &error, address)) {
            return status;
        }
    }
    undelivered.slot = slot;
    undelivered.generation = generation_of(slot);
    memcpy(undelivered.address, address, sizeof address);
    return lport_status_from_errno(LPORT_IN_GENERAL, error);
}

int64_t lport_transfer_undelivered(struct lport_slot *slot, uint8_t *address) {
    if (undelivered.slot != slot || undelivered.generation != generation_of(slot)) {
        return LPORT_ANY;
    }
    undelivered.slot = NULL;
    memcpy(address, undelivered.address, LPORT_ADDRESS_SIZE);
    return address[LPORT_AT_FAMILY];
}
