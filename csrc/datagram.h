/* datagram - for the other modules of messages (layer 2). The exported part is in libport.h. */
#ifndef LPORT_DATAGRAM_H
#define LPORT_DATAGRAM_H

#include "handle.h"

enum { LPORT_DATAGRAM_JOIN = 104 }; /* UDP_GRO of linux/udp.h */

/* Sees to it that every packet that SLOT, of sequenced packets, receives on FD has a time: then a
 * message without one is the end. 0 or a status. */
int64_t lport_datagram_ask_for_times(struct lport_slot *slot, int fd);

/* The status of a call that moves messages of SLOT and gave ERROR. */
int64_t lport_datagram_failed(struct lport_slot *slot, int error);

#endif
