/* transfer - what every way of moving octets has to know of a connection (layer 2). The exported
 * part is in libport.h. */
#ifndef LPORT_TRANSFER_H
#define LPORT_TRANSFER_H

#include "handle.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/time.h>

/* Returns STATUS, of a call on SLOT that receives or sends, and remembers it in SLOT if it says
 * that the connection is dead. Every such call that failed has to come here: where the system has
 * queued an error it is that which is returned. */
int64_t lport_transfer_note_broken(struct lport_slot *slot, int64_t status);

/* Takes the first error that the system has queued for SLOT: its status; STATUS where there is
 * none. The second tells where the message went that this thread was told of so last: its address
 * into ADDRESS and the family, once; LPORT_ANY: it is not known. */
int64_t lport_transfer_queued(struct lport_slot *slot, int64_t status);
int64_t lport_transfer_undelivered(struct lport_slot *slot, uint8_t *address);

/* True if a receive on SLOT that gave RESULT is to be made once more: of packets the system tells
 * that the connection is dead, once, before it gives what had arrived earlier. */
bool lport_transfer_again(struct lport_slot *slot, int64_t result);

/* What forbids to receive messages on SLOT: LPORT_END where its input is shut, or 0. */
int64_t lport_transfer_ended(struct lport_slot *slot);

/* What forbids to send on SLOT: a status, or 0. */
int64_t lport_transfer_forbidden(struct lport_slot *slot);

/* What lport_socket_receive does on FD, the descriptor of SLOT, past a transport. */
int64_t lport_transfer_receive(struct lport_slot *slot, int fd, uint8_t *octets, size_t len,
                               int32_t flags);

/* send(2) and sendmsg(2) on FD, which neither block nor raise a signal, made again where one
 * interrupts them. */
ssize_t lport_transfer_send(int fd, const void *octets, size_t len);
ssize_t lport_transfer_send_message(int fd, const struct msghdr *message);

/* What a call of the system says that sent COUNT octets on SLOT, or -1 and an errno: COUNT, or a
 * status, remembered where it says that the connection is dead. */
int64_t lport_transfer_sent(struct lport_slot *slot, ssize_t count);

/* The status of a call that moves messages of SLOT and gave ERROR. */
int64_t lport_transfer_message_failed(struct lport_slot *slot, int error);

/* Room for what the next function asks the system to tell with a packet. */
enum { LPORT_TRANSFER_ROWS = CMSG_SPACE(sizeof(struct timeval)) };

/* recvmsg(2) with the flags HOW, those of lport_patience_flags among them, on FD, the descriptor of
 * SLOT, of whatever kind: how many octets, and MESSAGE as the system leaves it; LPORT_END, or what
 * broke the connection, at its end; or another status. */
int64_t lport_transfer_receive_message(struct lport_slot *slot, int fd, struct msghdr *message,
                                       int how);

#endif
