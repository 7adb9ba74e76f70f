/* dial - a connection to a name or to one of several addresses (layer 3). Stands on os, status,
 * clock, address, pool, handle, socket and on dial_attempts, dial_names, dial_watch. See libport.h.
 *
 * A dial has its addresses when it is opened, or asks the resolver for them. What lport_dial_step
 * does is: take what the resolver has answered, then do a step of the attempts, which write down
 * what to wait for. lport_dial_wait polls what was written down and changes nothing but
 * the results of that poll.
 *
 * A dial belongs to one thread. It comes from a pool, so that dialling a literal allocates nothing.
 * One with a watch can be closed by any: whoever uses it enters the slot of its watch, and it ends
 * with the last one to leave that.
 *
 * Invariant: what a dial polls is what the attempts have written down and, while its names are
 * pending, their event behind it, for which the attempts keep room once there are some. Once it has
 * its outcome every step returns that, and nothing of it runs any more. */
#include "address/address.h"
#include "base/os.h"
#include "base/pool.h"
#include "base/status.h"
#include "dial_attempts.h"
#include "dial_names.h"
#include "dial_watch.h"
#include "libport.h"
#include "socket/socket.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

struct dial {
    struct lport_pooled pooled; /* first, see pool.h */
    int64_t outcome;            /* LPORT_IN_PROGRESS, then what every step returns */
    int32_t port;
    int64_t wake_at;               /* the next step is due then, or with what is polled */
    struct lport_dial_watch watch; /* its handle changes while the pool is locked, see enter_any */
    struct lport_dial_names names;
    struct lport_attempts attempts;
};

static struct lport_pool dials = LPORT_POOL(struct dial, NULL);

/* ---- dials as integers ----------------------------------------------------------------------- */

/* True as long as DIAL has no outcome. */
static bool goes_on(const struct dial *dial) {
    return lport_status_is(dial->outcome, LPORT_IN_PROGRESS);
}

static void lock_pool(void) {
    pthread_mutex_lock(&dials.lock);
}

static void unlock_pool(void) {
    pthread_mutex_unlock(&dials.lock);
}

/* The resolver's events belong to the parent, too, and tell the child nothing: the next step of
 * every dial is worth taking. */
static void after_fork_in_child(void) {
    for (uint32_t index = 0; index < dials.used; index++) {
        struct dial *dial = lport_pool_at(&dials, index);
        dial->wake_at = INT64_MIN;
    }
    unlock_pool();
}

/* A child of fork() must not find the pool locked by a thread that it does not have. */
static void prepare_pool(void) {
    pthread_atfork(lock_pool, unlock_pool, after_fork_in_child);
}

/* A dial with nothing in it that nothing names yet, or NULL. */
static struct dial *take_dial(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare_pool);
    lock_pool();
    struct dial *dial = lport_pool_take(&dials);
    if (dial != NULL) {
        dial->watch.handle = 0;
    }
    unlock_pool();
    if (dial != NULL) {
        dial->outcome = lport_status_make(LPORT_IN_PROGRESS);
        lport_names_init(&dial->names);
        dial->wake_at = INT64_MIN; /* the first step is always worth taking */
    }
    return dial;
}

static void give_back_dial(struct dial *dial) {
    lport_attempts_free(&dial->attempts);
    lock_pool();
    lport_pool_give_back(&dials, dial);
    unlock_pool();
}

/* The open dial that HANDLE names, entered, or NULL. One that ends keeps the handle of its watch,
 * and loses its name before it is taken again: so while it has a name nobody comes in who is not
 * counted in the slot of its watch. */
static struct dial *enter_any(int64_t handle) {
    struct lport_slot *slot;
    lock_pool();
    struct dial *dial = lport_pool_find(&dials, handle);
    if (dial != NULL && dial->watch.handle != 0 &&
        lport_handle_enter(dial->watch.handle, &slot) < 0) {
        dial = NULL; /* it is just being closed */
    }
    unlock_pool();
    return dial;
}

/* Leaves DIAL, which ends with that if it was closed meanwhile. */
static void leave_dial(struct dial *dial) {
    if (dial->watch.handle != 0) {
        lport_handle_leave(dial->watch.slot);
    }
}

/* The same, but for one whose watch is a parent's. */
static struct dial *enter_dial(int64_t handle) {
    struct dial *dial = enter_any(handle);
    if (dial != NULL && dial->watch.handle != 0 && dial->watch.process != lport_handle_process) {
        leave_dial(dial);
        return NULL;
    }
    return dial;
}

/* ---- the addresses --------------------------------------------------------------------------- */

/* Gives DIAL the COUNT addresses at ADDRESSES, port included, whose order is the caller's. 0 or a
 * status. */
static int64_t take_addresses(struct dial *dial, const uint8_t *addresses, int32_t count) {
    int64_t status = lport_attempts_reserve(&dial->attempts, count);
    if (status < 0) {
        return status;
    }
    dial->attempts.in_order = true;
    for (int32_t i = 0; i < count; i++) {
        lport_attempts_add(&dial->attempts, addresses + (size_t)i * LPORT_ADDRESS_SIZE);
    }
    dial->outcome = lport_attempts_all_added(&dial->attempts, count);
    return 0;
}

/* ---- exported -------------------------------------------------------------------------------- */

/* A dial whose attempts have sockets of KIND and FLAGS and the own end LOCAL, into *DIAL. 0 or a
 * status. */
static int64_t begin(int32_t kind, const uint8_t *local, int32_t flags, struct dial **dial) {
    bool two = (flags & LPORT_TWO_LOCALS) != 0;
    if ((flags & ~(LPORT_NODELAY | LPORT_KEEPALIVE | LPORT_TWO_LOCALS)) != 0 ||
        (two && local == NULL)) {
        return lport_status_make(LPORT_INVALID);
    }
    *dial = take_dial();
    if (*dial == NULL) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    lport_attempts_init(&(*dial)->attempts, kind, flags, local);
    return 0;
}

/* DIAL as an integer if STATUS is 0; else STATUS, and DIAL is given back. */
static int64_t name_dial(struct dial *dial, int64_t status) {
    if (status < 0) {
        give_back_dial(dial);
        return status;
    }
    return lport_pool_name(dial);
}

int64_t lport_dial_open(const char *name, size_t len, int32_t port, int32_t family,
                        const uint8_t *local, int32_t flags) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    struct dial *dial;
    if (port < 1 || port > 65535) {
        return lport_status_make(LPORT_ADDRESS_SYNTAX);
    }
    if (family != LPORT_ANY && family != LPORT_INET && family != LPORT_INET6) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t parsed = lport_address_parse(name, len, port, address);
    if (parsed < 0 && lport_address_is_literal(name, len)) {
        return parsed;
    }
    int64_t status = begin(LPORT_STREAM, local, flags, &dial);
    if (status < 0) {
        return status;
    }
    dial->port = port;
    if (parsed < 0) {
        return name_dial(dial, lport_names_ask(&dial->names, name, len, family));
    }
    /* What the resolver says to a literal of another family (EAI_ADDRFAMILY): the host has no
     * address of that one. */
    return name_dial(dial, take_addresses(dial, address, family == LPORT_ANY || family == parsed));
}

/* 0 if ADDRESS can be dialled with KIND, or a status. */
static int64_t check_address(const uint8_t *address, int32_t kind) {
    int32_t family = address[LPORT_AT_FAMILY];
    if (family == LPORT_LOCAL) {
        return 0;
    }
    if ((family != LPORT_INET && family != LPORT_INET6) || kind != LPORT_STREAM) {
        return lport_status_make(LPORT_INVALID);
    }
    return lport_address_port(address) > 0 ? 0 : lport_status_make(LPORT_ADDRESS_SYNTAX);
}

int64_t lport_dial_open_addresses(const uint8_t *addresses, int32_t count, int32_t kind,
                                  const uint8_t *local, int32_t flags) {
    struct dial *dial;
    int64_t status = 0;
    if (count < 0 || (kind != LPORT_STREAM && kind != LPORT_DATAGRAM && kind != LPORT_SEQPACKET)) {
        return lport_status_make(LPORT_INVALID);
    }
    for (int32_t i = 0; status == 0 && i < count; i++) {
        status = check_address(addresses + (size_t)i * LPORT_ADDRESS_SIZE, kind);
    }
    if (status == 0) {
        status = begin(kind, local, flags, &dial);
    }
    return status < 0 ? status : name_dial(dial, take_addresses(dial, addresses, count));
}

/* What DIAL waits for, as its latest step has written it down: descriptors into *FDS, their count.
 */
static nfds_t awaited(struct dial *dial, struct pollfd **fds) {
    nfds_t names = lport_names_pending(&dial->names);
    bool alone = names != 0 && dial->attempts.race.count == 0;
    *fds = alone ? &dial->names.event : dial->attempts.fds;
    return dial->attempts.polling + names;
}

static void put_into_watch(struct dial *dial) {
    struct pollfd *fds;
    nfds_t count = awaited(dial, &fds);
    lport_dial_watch_put(&dial->watch, fds, goes_on(dial) ? count : 0, dial->wake_at);
}

static void take_from_watch(struct dial *dial) {
    struct pollfd *fds;
    nfds_t count = awaited(dial, &fds);
    lport_dial_watch_take(&dial->watch, fds, goes_on(dial) ? count : 0);
}

int64_t lport_dial_set(int64_t handle, const uint8_t *settings, int32_t count) {
    struct dial *dial = enter_dial(handle);
    if (dial == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = lport_attempts_set(&dial->attempts, settings, count);
    leave_dial(dial);
    return status;
}

/* The attempts of DIAL have written down what to wait for, if there are some: so are its names. */
static void prepare_wait(struct dial *dial) {
    struct lport_attempts *attempts = &dial->attempts;
    dial->wake_at = dial->names.again_at;
    if (attempts->race.count > 0) {
        attempts->fds[attempts->polling] = dial->names.event;
        dial->wake_at = attempts->wake_at < dial->wake_at ? attempts->wake_at : dial->wake_at;
    }
}

/* Takes what there is to take: the outcome of DIAL. */
static int64_t step(struct dial *dial) {
    int64_t now = lport_clock_now();
    if (lport_names_pending(&dial->names)) {
        dial->outcome = lport_names_step(&dial->names, &dial->attempts, dial->port);
    }
    if (goes_on(dial) && dial->attempts.race.count > 0) {
        dial->outcome = lport_attempts_step(&dial->attempts, now);
    }
    if (goes_on(dial)) {
        prepare_wait(dial);
    } else {
        lport_names_drop(&dial->names);
        dial->wake_at = INT64_MIN; /* no reason to wait for a step that is decided */
    }
    return dial->outcome;
}

int64_t lport_dial_step(int64_t handle) {
    struct dial *dial = enter_dial(handle);
    if (dial == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    bool watched = dial->watch.handle != 0;
    if (watched) {
        take_from_watch(dial);
    }
    int64_t outcome = step(dial);
    if (watched) {
        put_into_watch(dial);
    }
    leave_dial(dial);
    return outcome;
}

/* As lport_os_poll of what DIAL waits for. */
static int poll_dial(struct dial *dial, int64_t deadline) {
    struct pollfd *fds;
    nfds_t count = awaited(dial, &fds);
    return lport_os_poll(fds, count, deadline);
}

static int64_t wait_for(struct dial *dial, int64_t deadline) {
    for (;;) {
        if (dial->wake_at <= lport_clock_now()) {
            return 0;
        }
        int64_t until = dial->wake_at < deadline ? dial->wake_at : deadline;
        int ready = poll_dial(dial, until);
        if (ready > 0 || (ready == 0 && until == dial->wake_at)) {
            return 0;
        }
        if (ready == 0) {
            return lport_status_make(LPORT_TIMED_OUT);
        }
        if (errno != EINTR) {
            return lport_status_from_errno(LPORT_IN_GENERAL, errno);
        }
    }
}

int64_t lport_dial_wait(int64_t handle, int64_t deadline) {
    struct dial *dial = enter_dial(handle);
    if (dial == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = wait_for(dial, deadline);
    leave_dial(dial);
    return status;
}

/* Ends DIAL, which nobody else is in, and gives it back. */
static void end_dial(struct dial *dial) {
    if (goes_on(dial)) {
        lport_attempts_stop(&dial->attempts);
    }
    lport_names_drop(&dial->names);
    lport_pool_unname(dial);
    give_back_dial(dial);
}

static void retire(struct lport_slot *slot) {
    struct dial *dial = slot->owner;
    lport_dial_watch_retire(&dial->watch);
    end_dial(dial);
}

/* Gives DIAL its watch, if it has none. 0 or a status. */
static int64_t make_watch(struct dial *dial) {
    struct lport_dial_watch watch;
    if (dial->watch.handle != 0) {
        return 0;
    }
    int64_t status = lport_dial_watch_open(&watch, dial, retire);
    if (status == 0) {
        struct lport_slot *slot;
        lport_handle_enter(watch.handle, &slot); /* as whoever is in a dial that has one */
        lock_pool();
        dial->watch = watch;
        unlock_pool();
    }
    return status;
}

int64_t lport_dial_watch(int64_t handle, int64_t deadline) {
    struct dial *dial = enter_dial(handle);
    if (dial == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t result = make_watch(dial);
    if (result == 0) {
        take_from_watch(dial);
        dial->watch.deadline = deadline;
        put_into_watch(dial);
        result = dial->watch.handle;
    }
    leave_dial(dial);
    return result;
}

int64_t lport_dial_count(int64_t handle) {
    struct dial *dial = enter_dial(handle);
    if (dial == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int32_t tried = dial->attempts.tried;
    leave_dial(dial);
    return tried;
}

static int64_t tell_attempt(struct dial *dial, int32_t index, uint8_t *address) {
    if (index < 0 || index >= dial->attempts.tried) {
        return lport_status_make(LPORT_INVALID);
    }
    const struct lport_attempt *attempt = lport_attempts_at(&dial->attempts, index);
    memcpy(address, attempt->address, LPORT_ADDRESS_SIZE);
    return attempt->status;
}

int64_t lport_dial_attempt(int64_t handle, int32_t index, uint8_t *address) {
    struct dial *dial = enter_dial(handle);
    if (dial == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = tell_attempt(dial, index, address);
    leave_dial(dial);
    return status;
}

static int64_t tell_attempt_own(struct dial *dial, int32_t index, uint8_t *local) {
    uint8_t room[LPORT_ADDRESS_SIZE];
    if (index < 0 || index >= dial->attempts.tried) {
        return lport_status_make(LPORT_INVALID);
    }
    const struct lport_attempt *attempt = lport_attempts_at(&dial->attempts, index);
    if (!attempt->unbound) {
        return 0;
    }
    const uint8_t *own = lport_attempt_own(&dial->attempts.plan, attempt->address);
    own = lport_address_in_family(own, attempt->address[LPORT_AT_FAMILY], room);
    memcpy(local, own, LPORT_ADDRESS_SIZE);
    return 1;
}

int64_t lport_dial_attempt_own(int64_t handle, int32_t index, uint8_t *local) {
    struct dial *dial = enter_dial(handle);
    if (dial == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t result = tell_attempt_own(dial, index, local);
    leave_dial(dial);
    return result;
}

int64_t lport_dial_close(int64_t handle) {
    struct dial *dial = enter_any(handle);
    if (dial == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    if (dial->watch.handle != 0) {
        lport_socket_begin_close(dial->watch.slot, 0);
        leave_dial(dial); /* whoever leaves last ends it */
    } else {
        end_dial(dial);
    }
    return 0;
}
