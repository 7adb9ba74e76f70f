/* dial_attempts - the addresses of a dial, tried as the race says (layer 3), for dial.c.
 *
 *     lport_attempts_init(&attempts, kind, flags, local);
 *     lport_attempts_set(&attempts, settings, count);  or not
 *     lport_attempts_reserve(&attempts, cap);      once it is known how many addresses there are
 *     lport_attempts_add(&attempts, address);      once per address, in the order of preference
 *     lport_attempts_all_added(&attempts, found);  no more will come
 *     lport_attempts_step(&attempts, now) until it says how all of it ended; in between wait for
 *     what it has written down.
 *
 * Whoever has attempts has them to himself. */
#ifndef LPORT_DIAL_ATTEMPTS_H
#define LPORT_DIAL_ATTEMPTS_H

#include "dial_attempt.h"
#include "race.h"

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

/* What one address needs, in the order in which what many addresses need lies in memory. */
struct lport_attempt_room {
    struct lport_attempt attempt;
    struct pollfd fd;
    int32_t polled, order;
    struct lport_race_entry entry;
};

struct lport_attempts {
    struct lport_attempt_plan plan;
    struct lport_race race;
    bool in_order;             /* of the addresses; else the families take turns */
    struct lport_attempt *all; /* by the race's index */
    int32_t *order;            /* indexes of those that have been tried, as they were */
    int32_t tried;             /* how many */

    /* What to wait for, as the latest step has written it down. */
    struct pollfd *fds;
    nfds_t polling;  /* fds in use */
    int32_t *polled; /* the index of the attempt that each of them belongs to */
    int64_t wake_at; /* the next step is due then, whatever the descriptors say */

    struct lport_attempt_room one[2]; /* so that a dial to one address allocates nothing */
    void *memory;                     /* the room for more of them, or NULL */
    uint8_t *settings;                /* those of the plan, or NULL */
};

/* Makes ATTEMPTS those with sockets of KIND and FLAGS, from the own end LOCAL (NULL: any), or the
 * two that are there with LPORT_TWO_LOCALS; there is no address yet and no room for one. */
void lport_attempts_init(struct lport_attempts *attempts, int32_t kind, int32_t flags,
                         const uint8_t *local);

/* [nowait] Gives them a copy of COUNT settings, once. 0, LPORT_INVALID or LPORT_MEMORY_EXHAUSTED.
 */
int64_t lport_attempts_set(struct lport_attempts *attempts, const uint8_t *settings, int32_t count);

/* [nowait] Makes room for MORE addresses than there are, and for a descriptor of the caller's
 * behind the FDS in use. 0 or LPORT_MEMORY_EXHAUSTED. */
int64_t lport_attempts_reserve(struct lport_attempts *attempts, int32_t more);

/* True if ADDRESS, port included, has been added. */
bool lport_attempts_has(const struct lport_attempts *attempts, const uint8_t *address);

/* Adds ADDRESS, port included, if it can be dialled from the own end. There is room for it. */
void lport_attempts_add(struct lport_attempts *attempts, const uint8_t *address);

/* Every address has been added that can be, of FOUND that there were. LPORT_IN_PROGRESS, or the
 * failure where there is none to try. */
int64_t lport_attempts_all_added(struct lport_attempts *attempts, int64_t found);

/* [nowait] Looks at the attempts that are ready, does what the race says at the time NOW, writes
 * down what to wait for. LPORT_IN_PROGRESS; the connected socket, which is the caller's; or the
 * failure that tells most. Not to be called again after one of these. */
int64_t lport_attempts_step(struct lport_attempts *attempts, int64_t now);

/* The attempt that was tried at place INDEX, from 0 on and below TRIED. */
const struct lport_attempt *lport_attempts_at(const struct lport_attempts *attempts, int32_t index);

/* [nowait] Closes what runs. Not after an end of lport_attempts_step. */
void lport_attempts_stop(struct lport_attempts *attempts);

/* [nowait] Frees the room. */
void lport_attempts_free(struct lport_attempts *attempts);

#endif
