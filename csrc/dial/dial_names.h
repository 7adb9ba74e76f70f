/* dial_names - the name of a dial, looked up (layer 3). Part of dial. */
#ifndef LPORT_DIAL_NAMES_H
#define LPORT_DIAL_NAMES_H

#include "dial_attempts.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LPORT_DIAL_QUERIES = 3 }; /* for all addresses, for those of IPv6, for those of IPv4 */

struct lport_dial_names {
    int64_t queries[LPORT_DIAL_QUERIES]; /* 0: not open */
    struct pollfd event; /* an eventfd that answers are written to; fd -1: no more come */
    int64_t again_at;    /* when to ask for each family by itself; LPORT_NEVER: not, or done */
    int64_t found;       /* addresses that were told */
    int64_t failure;     /* of the question for all; or 0 */
    size_t len;
    char name[256];
};

/* NAMES without a question. */
void lport_names_init(struct lport_dial_names *names);

/* [nowait] Begins to ask for the addresses of FAMILY of the LEN octets at NAME. 0 or a status. */
int64_t lport_names_ask(struct lport_dial_names *names, const char *name, size_t len,
                        int32_t family);

/* True while there may be more answers. */
bool lport_names_pending(const struct lport_dial_names *names);

/* [nowait] Adds what has been answered to ATTEMPTS, with PORT: LPORT_IN_PROGRESS while there may be
 * more, else what lport_attempts_all_added says, or the failure. NAMES are pending. */
int64_t lport_names_step(struct lport_dial_names *names, struct lport_attempts *attempts,
                         int32_t port);

/* [nowait] Asks no longer. */
void lport_names_drop(struct lport_dial_names *names);

#endif
