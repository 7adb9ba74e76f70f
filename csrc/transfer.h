/* transfer - what every way of moving octets has to know of a connection (layer 2). The exported
 * part is in libport.h. */
#ifndef LPORT_TRANSFER_H
#define LPORT_TRANSFER_H

#include "handle.h"

/* Remembers STATUS if it says that the connection of SLOT is dead; returns it. */
int64_t lport_transfer_note_broken(struct lport_slot *slot, int64_t status);

/* What forbids to send on SLOT: a status, or 0. */
int64_t lport_transfer_forbidden(struct lport_slot *slot);

#endif
