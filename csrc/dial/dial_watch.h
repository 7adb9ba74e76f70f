/* dial_watch - a handle that is ready when a step of a dial is due (layer 3). Part of dial. */
#ifndef LPORT_DIAL_WATCH_H
#define LPORT_DIAL_WATCH_H

#include "socket/handle.h"

#include <poll.h>
#include <stdint.h>

struct lport_dial_watch {
    int64_t handle; /* 0: there is none */
    struct lport_slot *slot;
    int timer;        /* a timerfd */
    uint32_t process; /* lport_handle_process of the one that made it: the set is not a child's */
    int64_t deadline; /* it is ready then, whatever the dial does */
};

/* [nowait] Makes WATCH, whose slot has OWNER and RETIRE. Nothing is in it yet. 0 or a status. */
int64_t lport_dial_watch_open(struct lport_dial_watch *watch, void *owner,
                              void (*retire)(struct lport_slot *slot));

/* [nowait] Closes what WATCH has besides its slot: by RETIRE. */
void lport_dial_watch_retire(struct lport_dial_watch *watch);

/* [nowait] Between these two the COUNT descriptors of FDS are in WATCH, with their events: it is
 * ready when one of them is, and at WAKE_AT. Its slot has been entered. */
void lport_dial_watch_put(struct lport_dial_watch *watch, const struct pollfd *fds, nfds_t count,
                          int64_t wake_at);
void lport_dial_watch_take(struct lport_dial_watch *watch, const struct pollfd *fds, nfds_t count);

#endif
