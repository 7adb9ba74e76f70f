/* wait - what the poller on poll(2) needs of a wait (layer 2). The exported part is in libport.h.
 */
#ifndef LPORT_WAIT_H
#define LPORT_WAIT_H

#include "handle.h"

#include <poll.h>
#include <stdint.h>

/* [waits] As lport_os_poll; the first of FDS is for WAIT, under way, which fills it: its revents
 * are not 0 once it has been woken. */
int lport_wait_with(int64_t wait, struct pollfd *fds, nfds_t count, int64_t deadline);

/* A place for what belongs to WAIT, under way on SLOT, NULL when it begins; whoever fills it
 * empties it before the end. NULL: no such wait. */
void **lport_wait_data(int64_t wait, const struct lport_slot *slot);

#endif
