/* dial_names - the name of a dial, looked up (layer 3). Part of dial; stands on os, status, clock,
 * address, resolve and on dial_attempts. See dial_names.h.
 *
 * One question is for all addresses, and the system answers it in the order that its configuration
 * prefers. It waits for both families, though, and some name servers never answer to one of them:
 * so where the answer takes its time each family is asked for by itself, too, and what comes first
 * is tried first (RFC 8305, section 3). What comes later joins it.
 *
 * Invariant: an address is added once, whichever answer it is in. */
#include "dial_names.h"

#include "address/address.h"
#include "base/os.h"
#include "base/status.h"
#include "libport.h"
#include "name/resolve.h"
#include "race.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>

enum { ALL, INET6, INET }; /* places in QUERIES */

/* With so many threads of the resolver no family is asked for by itself: names that hang would take
 * three each. */
enum { BUSY = 128 };

void lport_names_init(struct lport_dial_names *names) {
    memset(names->queries, 0, sizeof names->queries);
    names->event = (struct pollfd){.fd = -1, .events = POLLIN};
    names->again_at = LPORT_NEVER;
    names->found = 0;
    names->failure = 0;
}

bool lport_names_pending(const struct lport_dial_names *names) {
    return names->event.fd >= 0;
}

static void close_query(struct lport_dial_names *names, int which) {
    if (names->queries[which] != 0) {
        lport_resolve_close(names->queries[which]);
        names->queries[which] = 0;
    }
}

void lport_names_drop(struct lport_dial_names *names) {
    for (int which = 0; which < LPORT_DIAL_QUERIES; which++) {
        close_query(names, which);
    }
    if (names->event.fd >= 0) {
        lport_os.close(names->event.fd);
        names->event.fd = -1;
    }
    names->again_at = LPORT_NEVER;
}

/* Opens query WHICH, for FAMILY. 0 or a status. */
static int64_t open_query(struct lport_dial_names *names, int which, int32_t family) {
    int64_t query = lport_resolve_open(names->name, names->len, family, 0);
    if (query < 0) {
        return query;
    }
    names->queries[which] = query;
    return lport_resolve_notify(query, names->event.fd);
}

int64_t lport_names_ask(struct lport_dial_names *names, const char *name, size_t len,
                        int32_t family) {
    names->len = len < sizeof names->name ? len : sizeof names->name; /* or it is no name */
    memcpy(names->name, name, names->len);
    names->event.fd = lport_os.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (names->event.fd < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    int64_t status = open_query(names, ALL, family);
    if (status < 0) {
        lport_names_drop(names);
    } else if (family == LPORT_ANY) {
        names->again_at = lport_clock_after(LPORT_RACE_DELAY);
    }
    return status;
}

/* Asks for each family by itself. What cannot be asked is not missed: the first question is still
 * open. */
static void ask_again(struct lport_dial_names *names) {
    names->again_at = LPORT_NEVER;
    if (lport_resolve_threads() < BUSY) {
        (void)open_query(names, INET6, LPORT_INET6);
        (void)open_query(names, INET, LPORT_INET);
    }
}

/* Adds the COUNT addresses of QUERY to ATTEMPTS. 0 or a status. */
static int64_t add_found(struct lport_dial_names *names, int64_t query, int32_t count,
                         struct lport_attempts *attempts, int32_t port) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t status = lport_attempts_reserve(attempts, count);
    for (int32_t i = 0; status == 0 && i < count; i++) {
        lport_resolve_address(query, i, address);
        lport_address_set_port(address, port);
        if (!lport_attempts_has(attempts, address)) {
            lport_attempts_add(attempts, address);
        }
        names->found++;
    }
    return status;
}

static bool is_open(const struct lport_dial_names *names, int which) {
    return names->queries[which] != 0;
}

/* Takes the answer to query WHICH, if it is open and answered: 0, or the failure. */
static int64_t take_answer(struct lport_dial_names *names, int which,
                           struct lport_attempts *attempts, int32_t port) {
    int64_t query = names->queries[which];
    int64_t count = is_open(names, which) ? lport_resolve_count(query) : 0;
    if (!is_open(names, which) || lport_status_is(count, LPORT_IN_PROGRESS)) {
        return 0;
    }
    int64_t status = count < 0 ? count : add_found(names, query, (int32_t)count, attempts, port);
    close_query(names, which);
    return status;
}

/* True if nothing is to be waited for any more. A family by itself may answer yet where the
 * question for all has failed for another reason than that there is no such name. */
static bool is_over(const struct lport_dial_names *names, bool asked) {
    bool more = is_open(names, INET6) || is_open(names, INET);
    if (is_open(names, ALL)) {
        return asked && !more && names->found > 0;
    }
    return !more || names->failure == 0 || lport_status_is(names->failure, LPORT_HOST_NOT_FOUND);
}

int64_t lport_names_step(struct lport_dial_names *names, struct lport_attempts *attempts,
                         int32_t port) {
    bool asked = is_open(names, INET6) || is_open(names, INET);
    lport_os_unsignal(names->event.fd);
    if (is_open(names, ALL)) {
        names->failure = take_answer(names, ALL, attempts, port);
    }
    for (int which = INET6; which <= INET; which++) {
        (void)take_answer(names, which, attempts, port); /* a failure is not the last word */
    }
    if (is_over(names, asked)) {
        lport_names_drop(names);
        return names->found == 0 && names->failure < 0
                   ? names->failure
                   : lport_attempts_all_added(attempts, names->found);
    }
    if (names->again_at <= lport_clock_now()) {
        ask_again(names);
    }
    return lport_status_make(LPORT_IN_PROGRESS);
}
