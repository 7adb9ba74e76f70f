/* datagram - what adopt has to know of them too (layer 2). The exported part is in libport.h. */
#ifndef LPORT_DATAGRAM_H
#define LPORT_DATAGRAM_H

enum { LPORT_DATAGRAM_JOIN = 104 }; /* UDP_GRO of linux/udp.h */

#endif
