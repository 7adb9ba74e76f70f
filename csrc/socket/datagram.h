/* datagram - for the other modules of messages (layer 2). The exported part is in libport.h. */
#ifndef LPORT_DATAGRAM_H
#define LPORT_DATAGRAM_H

#include "handle.h"

#include <sys/socket.h>
#include <sys/time.h>

enum { LPORT_DATAGRAM_JOIN = 104 }; /* UDP_GRO of linux/udp.h */

/* Room for what the next function asks the system to tell with a packet. */
enum { LPORT_DATAGRAM_ROWS = CMSG_SPACE(sizeof(struct timeval)) };

/* recvmsg(2) with the flags HOW, those of lport_patience_flags among them, on FD, the descriptor of
 * SLOT, of whatever kind: how many octets, and MESSAGE as the system leaves it; LPORT_END, or what
 * broke the connection, at its end; or another status. */
int64_t lport_datagram_receive_message(struct lport_slot *slot, int fd, struct msghdr *message,
                                       int how);

/* The status of a call that moves messages of SLOT and gave ERROR. */
int64_t lport_datagram_failed(struct lport_slot *slot, int error);

#endif
