/* proxy - what the header of the PROXY protocol is made of, for who reads it and who writes it
 * (layer 1). The exported part is in libport.h. */
#ifndef LPORT_PROXY_H
#define LPORT_PROXY_H

#include <stdint.h>

enum {
    LPORT_PROXY_FIXED = 16, /* octets of version 2 before the addresses */
    LPORT_PROXY_AT_COMMAND = 12,
    LPORT_PROXY_AT_FAMILY = 13,
    LPORT_PROXY_AT_LENGTH = 14,
    LPORT_PROXY_LOCAL = 0x20, /* version 2 in the upper four bits */
    LPORT_PROXY_PROXY = 0x21,
    LPORT_PROXY_PATH = 108, /* octets of a local name */
};

#define LPORT_PROXY_LINE_START "PROXY "
#define LPORT_PROXY_SIGNATURE  "\r\n\r\n\0\r\nQUIT\n" /* with a zero octet in it */

#endif
