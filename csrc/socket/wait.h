/* wait - what closes and pollers need of waits (layer 2). The exported part is in libport.h.
 */
#ifndef LPORT_WAIT_H
#define LPORT_WAIT_H

#include "handle.h"

#include <poll.h>
#include <stdint.h>

/* [nowait] Wakes the waits on SLOT that have any of INTEREST, and those for nothing; how many. */
int64_t lport_wait_wake_slot(struct lport_slot *slot, int32_t interest);

/* [waits] As lport_os_poll; the first of FDS is for WAIT, under way, which fills it: its revents
 * are not 0 once it has been woken. */
int lport_wait_with(int64_t wait, struct pollfd *fds, nfds_t count, int64_t deadline);

/* A place for what belongs to WAIT, under way on SLOT, NULL when it begins; whoever fills it
 * empties it before the end. NULL: no such wait. */
void **lport_wait_data(int64_t wait, const struct lport_slot *slot);

#endif
