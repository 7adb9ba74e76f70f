/* address_block - the parts of an address block, for the files of this folder alone (layer 1).
 *
 * Invariant: a block is written whole or not at all, and every octet of it that has no meaning is
 * 0. */
#ifndef LPORT_ADDRESS_BLOCK_H
#define LPORT_ADDRESS_BLOCK_H

#include "address.h"
#include "libport.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

enum {
    INET_OCTETS = 4,
    INET6_OCTETS = 16,
    INET6_GROUPS = 8,
    MAPPED_PREFIX = 12, /* octets before the IPv4 address in an IPv4-mapped one, RFC 4291 2.5.5.2 */
    PORT_MAX = 65535,
    LOCAL_AT = offsetof(struct sockaddr_un, sun_path),
};

_Static_assert(LPORT_LOCAL_MAX == sizeof(((struct sockaddr_un *)0)->sun_path),
               "a local name is as long as the kernel has room for");
_Static_assert(LPORT_LOCAL_MAX <= LPORT_ADDRESS_SIZE - LPORT_AT_OCTETS,
               "a block holds any local name");

static const uint8_t mapped_prefix[MAPPED_PREFIX] = {[10] = 0xff, [11] = 0xff};

static inline uint32_t get_scope(const uint8_t *address) {
    const uint8_t *at = address + LPORT_AT_SCOPE;
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void set_scope(uint8_t *address, uint32_t scope) {
    for (int i = 0; i < 4; i++) {
        address[LPORT_AT_SCOPE + i] = (uint8_t)(scope >> (24 - 8 * i) & 0xff);
    }
}

/* Makes ADDRESS the block of FAMILY with the LEN octets at OCTETS, port 0, no scope. */
static inline void set_block(uint8_t *address, int32_t family, const void *octets, size_t len) {
    memset(address, 0, LPORT_ADDRESS_SIZE);
    address[LPORT_AT_FAMILY] = (uint8_t)family;
    if (len > 0) {
        memcpy(address + LPORT_AT_OCTETS, octets, len);
    }
    if (family == LPORT_LOCAL) {
        address[LPORT_AT_LENGTH] = (uint8_t)len;
    }
}

static inline bool is_mapped(const uint8_t *octets) {
    return memcmp(octets, mapped_prefix, MAPPED_PREFIX) == 0;
}

/* The octets of ADDRESS, of IPv4 or IPv6, as one of IPv6 has them. */
static inline void copy_mapped(const uint8_t *address, uint8_t octets[INET6_OCTETS]) {
    if (address[LPORT_AT_FAMILY] == LPORT_INET) {
        memcpy(octets, mapped_prefix, MAPPED_PREFIX);
        memcpy(octets + MAPPED_PREFIX, address + LPORT_AT_OCTETS, INET_OCTETS);
    } else {
        memcpy(octets, address + LPORT_AT_OCTETS, INET6_OCTETS);
    }
}

/* True if the local name in ADDRESS is unnamed, abstract, or a path to its end: of one with a zero
 * octet in it the system would take the part before. */
static inline bool is_local_name(const uint8_t *address) {
    size_t len = address[LPORT_AT_LENGTH];
    const uint8_t *name = address + LPORT_AT_OCTETS;
    return len == 0 || name[0] == '\0' || memchr(name, '\0', len) == NULL;
}

/* True if ADDRESS is a block at all. */
static inline bool is_block(const uint8_t *address) {
    switch (address[LPORT_AT_FAMILY]) {
    case LPORT_ANY:
    case LPORT_INET:
    case LPORT_INET6:
        return true;
    case LPORT_LOCAL:
        return address[LPORT_AT_LENGTH] <= LPORT_LOCAL_MAX && is_local_name(address);
    default:
        return false;
    }
}

#endif
