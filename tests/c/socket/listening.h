/* listening - what the tests of sockets share: listeners on the wildcard of a family. */
#ifndef LISTENING_H
#define LISTENING_H

#include "address/address.h"
#include "libport.h"

#include <criterion/criterion.h>
#include <stdint.h>

static const int32_t inets[] = {LPORT_INET, LPORT_INET6};

/* A listener on the wildcard of FAMILY at PORT, 0 for any, or a status. */
static inline int64_t listen_at(int32_t family, int32_t port, int32_t flags) {
    uint8_t address[LPORT_ADDRESS_SIZE] = {(uint8_t)family};
    lport_address_set_port(address, port);
    return lport_socket_listen(address, -1, flags, NULL, 0);
}

static inline int32_t port_of(int64_t socket) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    cr_assert_gt(lport_socket_name(socket, address), 0);
    return lport_address_port(address);
}

#endif
