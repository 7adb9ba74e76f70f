/* address - blocks, texts and the kernel's socket addresses (layer 1). No I/O. */
#ifndef LPORT_ADDRESS_H
#define LPORT_ADDRESS_H

#include "libport.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { /* offsets in an address block, as libport.h describes it */
       LPORT_AT_FAMILY = 0,
       LPORT_AT_LENGTH = 1,
       LPORT_AT_PORT = 2,
       LPORT_AT_SCOPE = 4,
       LPORT_AT_OCTETS = 8,
};

enum { LPORT_LOCAL_MAX = 108 }; /* octets of a local name; a path has a terminator besides */

int32_t lport_address_port(const uint8_t *address);
void lport_address_set_port(uint8_t *address, int32_t port);

void lport_address_set_scope(uint8_t *address, uint32_t scope);

/* Makes ADDRESS the block of FAMILY with the LEN octets at OCTETS and PORT, no scope. */
void lport_address_set(uint8_t *address, int32_t family, const uint8_t *octets, size_t len,
                       int32_t port);

/* Makes ADDRESS, if it is IPv4-mapped, the IPv4 address that it maps. True if it was. */
bool lport_address_unmap(uint8_t *address);

/* ADDRESS, or, if it is IPv4-mapped, the IPv4 address that it maps, in ROOM. */
const uint8_t *lport_address_plain(const uint8_t *address, uint8_t room[LPORT_ADDRESS_SIZE]);

/* ADDRESS, or, if it is of no family, the wildcard of FAMILY with its port, in ROOM. */
const uint8_t *lport_address_in_family(const uint8_t *address, int32_t family,
                                       uint8_t room[LPORT_ADDRESS_SIZE]);

/* The kernel's form of ADDRESS into STORAGE; its length, or LPORT_INVALID. LPORT_ANY becomes the
 * IPv6 wildcard. Where MAPPED is true an IPv4 address becomes an IPv4-mapped IPv6 one, else that
 * becomes the IPv4 address. */
int64_t lport_address_to_kernel(const uint8_t *address, bool mapped,
                                struct sockaddr_storage *storage);

/* The block of the kernel's LEN octets at STORAGE into ADDRESS, IPv4-mapped as IPv4; the family, or
 * LPORT_INVALID for a family that has no block. */
int64_t lport_address_from_kernel(const struct sockaddr_storage *storage, socklen_t len,
                                  uint8_t *address);

#endif
