/* dial_attempt - one address of a dial and what becomes of it (layer 3), for dial.c.
 *
 * An attempt owns its socket from its start to its end, and nobody else knows that socket. */
#ifndef LPORT_DIAL_ATTEMPT_H
#define LPORT_DIAL_ATTEMPT_H

#include "address/address.h"
#include "socket/option.h"

#include <stdbool.h>
#include <stdint.h>

enum { LPORT_ATTEMPT_LOCALS = 2 }; /* IPv4 and IPv6 */

/* What the attempts of one dial have in common. */
struct lport_attempt_plan {
    int32_t kind, flags;
    /* The own ends; of no family and no port: the system's choice. An attempt has the first one
     * that suits its address. */
    uint8_t locals[LPORT_ATTEMPT_LOCALS][LPORT_ADDRESS_SIZE];
    struct lport_settings settings;
};

struct lport_attempt {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t socket;   /* 0: none */
    int64_t status;   /* LPORT_IN_PROGRESS, the failure, or 0 for the winner */
    int64_t retry_at; /* the backlog was full: try again then; else LPORT_NEVER */
    int64_t retry_in; /* the next pause */
    int32_t redials;
    bool unbound; /* its failure is that of the bind to its own end */
};

/* Makes ATTEMPT one on ADDRESS, port included, that has not begun. */
void lport_attempt_init(struct lport_attempt *attempt, const uint8_t *address);

/* The own end of PLAN for ADDRESS; NULL: there is none from which it can be dialled. */
const uint8_t *lport_attempt_own(const struct lport_attempt_plan *plan, const uint8_t *address);

/* [nowait] Begins ATTEMPT; looks how it went, once its socket is ready; tries it again, once its
 * pause is over. 0: connected; LPORT_IN_PROGRESS; or the failure, and then nothing is closed yet.
 * NOW is what the clock says. */
int64_t lport_attempt_start(struct lport_attempt *attempt, const struct lport_attempt_plan *plan,
                            int64_t now);
int64_t lport_attempt_look(struct lport_attempt *attempt, const struct lport_attempt_plan *plan,
                           int64_t now);
int64_t lport_attempt_retry(struct lport_attempt *attempt, const struct lport_attempt_plan *plan,
                            int64_t now);

/* [nowait] Closes the socket of ATTEMPT, if it has one, with the FLAGS of lport_socket_close. */
void lport_attempt_close(struct lport_attempt *attempt, int32_t flags);

/* The descriptor to poll for ATTEMPT. */
int lport_attempt_descriptor(const struct lport_attempt *attempt);

#endif
