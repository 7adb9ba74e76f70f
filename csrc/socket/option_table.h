/* option_table - the rows of the table of options, for option.c (layer 2). */
#ifndef LPORT_OPTION_TABLE_H
#define LPORT_OPTION_TABLE_H

#include <stdint.h>

/* Sockets that an option may be for; they add up. */
enum {
    LOCAL = 1,
    TCP4 = 2,
    TCP6 = 4,
    UDP4 = 8,
    UDP6 = 16,
    TCP = TCP4 | TCP6,
    UDP = UDP4 | UDP6,
    IP6 = TCP6 | UDP6,
    IP = TCP | UDP,
    ALL = IP | LOCAL,
};

enum shape { BOOLEAN, INTEGER, TIME, LINGER, CHOICE, INTERFACE, TEXT };

/* A value of an enumeration; the last row has no name. */
struct choice {
    int number;
    const char *name;
};

/* Where the system keeps a value. Level 0 is IPPROTO_IP: the number says if there is one. */
struct place {
    int level, number;
};

enum {
    READ_ONLY = 1,
    HAS_NONE = 2,
    QUEUES_ERRORS = 4, /* as of LPORT_SLOT_QUEUES */
    IS_OCTET = 8,      /* 0 to 255: IPv4 would take the lowest octet of more */
};

struct lport_option {
    const char *name;
    const char *unit;
    enum shape shape;
    int sockets;
    int flags;
    int none;         /* with HAS_NONE: the system's number for none */
    struct place at;  /* of every socket; but where AT6 is given, of IPv4 alone */
    struct place at6; /* of IPv6 sockets */
    const struct choice *choices;
    const char *note;
};

/* Row INDEX, or NULL past the last. */
const struct lport_option *lport_option_row(int32_t index);

#endif
