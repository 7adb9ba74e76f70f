/* poller_member - which socket is in which poller (layer 3), for poller.c. */
#ifndef LPORT_POLLER_MEMBER_H
#define LPORT_POLLER_MEMBER_H

#include "poller.h"

#include <stdbool.h>
#include <stdint.h>

/* True unless POLLER was made by the parent of this process, with whom it is shared: he would miss
 * what a child takes out, so the child leaves it alone. */
static inline bool lport_poller_is_own(const struct lport_poller *poller) {
    return poller->process == lport_handle_process;
}

/* These five with the lock of SLOT, or of the member's slot, held. Where the watches of SLOT point
 * to the member of POLLER; NULL where it has none. */
struct lport_watch **lport_member_find(struct lport_slot *slot, const struct lport_poller *poller);

/* [nowait] SOCKET, whose slot is SLOT, comes into POLLER with INTEREST. 0 or a status. */
int64_t lport_member_add(struct lport_poller *poller, struct lport_slot *slot, int64_t socket,
                         int32_t interest);

/* [nowait] The interest of MEMBER becomes INTEREST. 0, or a status and nothing has changed. */
int64_t lport_member_change(struct lport_poller *poller, struct lport_member *member,
                            int32_t interest);

/* [nowait] The interest of MEMBER becomes none. What it was, or a status and nothing has changed.
 */
int64_t lport_member_claim(struct lport_poller *poller, struct lport_member *member);

/* [nowait] Takes the member at PLACE in the watches of its slot out of POLLER. */
void lport_member_remove(struct lport_poller *poller, struct lport_watch **place);

/* [nowait] Takes every member out of POLLER. With no lock held. */
void lport_member_remove_all(struct lport_poller *poller);

#endif
