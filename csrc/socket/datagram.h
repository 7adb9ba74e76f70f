/* datagram - what adopt has to know of them too, and what the files of the module share (layer 2).
 * The exported part is in libport.h. */
#ifndef LPORT_DATAGRAM_H
#define LPORT_DATAGRAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum { LPORT_DATAGRAM_JOIN = 104 }; /* UDP_GRO of linux/udp.h */

/* What comes with a message: where it was sent to, the length of those that it was made of, and
 * what somebody may have asked for on an adopted descriptor, such as its time. */
union lport_datagram_rows {
    struct cmsghdr header; /* for its alignment */
    char octets[512];
};

/* Has the system tell of each message on SOCKET where it was sent to. 0 or a status. */
int64_t lport_datagram_ask_for_arrivals(int64_t socket);

/* Where MESSAGE, as it was received, was sent to, into OWN, as libport.h describes it. */
void lport_datagram_arrival_in(struct msghdr *message, uint8_t *own);

/* Makes ROW that which sends a message for ADDRESS from OWN, on an IPv6 socket if MAPPED: its
 * length with what follows it, or LPORT_INVALID for ends of two families. */
int64_t lport_datagram_put_own(struct cmsghdr *row, const uint8_t *own, const uint8_t *address,
                               bool mapped);

/* ERROR, which a message for ADDRESS that has an end of its own met: of an own end that is none of
 * this host the system says EINVAL or ENETUNREACH, as it says of other things. */
int lport_datagram_own_error(int error, const uint8_t *address);

#endif
