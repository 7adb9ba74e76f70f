/* interface - interfaces of the network, for the modules above (layer 1). The exported part is in
 * libport.h. */
#ifndef LPORT_INTERFACE_H
#define LPORT_INTERFACE_H

#include <stdint.h>

/* [nowait] The index of the first interface that has the IPv4 ADDRESS (network order);
 * LPORT_ADDRESS_NOT_AVAILABLE: none. */
int64_t lport_interface_with(uint32_t address);

/* [nowait] The first IPv4 address of interface INDEX (network order) into ADDRESS; 0, or
 * LPORT_ADDRESS_NOT_AVAILABLE. */
int64_t lport_interface_inet(int32_t index, uint32_t *address);

#endif
