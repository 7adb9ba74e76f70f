/* dial - a connection to a name or to one of several addresses (layer 3). Stands on os, status,
 * clock, address, pool, handle, local, resolve, race. See libport.h.
 *
 * What lport_dial_step does is: take the answer of the resolver, look at the attempts that are
 * ready, do what the race says, write down what to wait for. lport_dial_wait polls what was written
 * down and changes nothing but the results of that poll.
 *
 * A dial belongs to one thread. It comes from a pool, so that dialling a literal allocates nothing.
 *
 * Which failure tells most, once every address has failed: want of resources here, since no other
 * can be believed beside it and it passes; then the one whose packets came farthest: the host
 * answered (refused; a reset counts as that), something on the way did (denied, host unreachable),
 * nobody did (timed out), nothing left this machine (network unreachable, then what is wrong with
 * our own address). Among equals the first.
 *
 * Invariant: an attempt has its socket to itself from its start to its end, see dial_attempt.h; the
 * winner's goes to the caller, every other is closed where its attempt ends. */
#include "address.h"
#include "dial_attempt.h"
#include "libport.h"
#include "local.h"
#include "os.h"
#include "pool.h"
#include "race.h"
#include "resolve.h"
#include "status.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

/* The arrays of a dial to so many addresses. */
struct arrays {
    struct lport_attempt *attempts;
    struct pollfd *fds;               /* [0] is the resolver's event, then the attempts that run */
    int32_t *polled;                  /* the attempt that each of fds belongs to, or -1 */
    int32_t *order;                   /* attempts in the order tried */
    struct lport_race_entry *entries; /* the race's */
};

/* What a dial to one address needs; it is part of every dial, so that a literal allocates nothing.
 */
struct single {
    struct lport_attempt attempt;
    struct pollfd fds[2];
    int32_t polled[2];
    int32_t order;
    struct lport_race_entry entry;
};

struct dial {
    struct lport_pooled pooled; /* first, see pool.h */
    int64_t outcome;            /* LPORT_IN_PROGRESS, then what every step returns */
    int64_t query;              /* 0: none, or answered */
    int event;                  /* eventfd that the answer of the query is written to, or -1 */
    int32_t port;
    struct lport_attempt_plan plan;
    struct lport_race race;
    struct arrays arrays;
    void *memory; /* of the arrays, or NULL where they are those of `single` */
    int32_t tried;
    nfds_t polling; /* fds in use */
    int64_t wake_at;
    struct single single;
};

static struct lport_pool dials = LPORT_POOL(struct dial, NULL);

/* ---- dials as integers ------------------------------------------------------------------------
 */

/* The open dial that HANDLE names, or NULL. */
static struct dial *dial_of(int64_t handle) {
    return lport_pool_find(&dials, handle);
}

/* True as long as DIAL has no outcome. */
static int goes_on(const struct dial *dial) {
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
    unlock_pool();
    if (dial != NULL) {
        dial->outcome = lport_status_make(LPORT_IN_PROGRESS);
        dial->query = 0;
        dial->event = -1;
        dial->memory = NULL;
        dial->tried = 0;
        dial->polling = 0;
        dial->wake_at = INT64_MIN; /* the first step is always worth taking */
        lport_race_init(&dial->race, NULL, 0);
    }
    return dial;
}

static void give_back_dial(struct dial *dial) {
    free(dial->memory);
    lock_pool();
    lport_pool_give_back(&dials, dial);
    unlock_pool();
}

/* ---- the addresses ----------------------------------------------------------------------------
 */

static void use_arrays(struct dial *dial, const struct arrays *arrays, int32_t cap) {
    dial->arrays = *arrays;
    lport_race_init(&dial->race, arrays->entries, cap);
}

/* Makes room for CAP addresses in DIAL, which has none. 0 or LPORT_MEMORY_EXHAUSTED. The arrays lie
 * in one piece of memory, ordered by what they have to be aligned to. */
static int64_t make_room(struct dial *dial, int32_t cap) {
    struct single *single = &dial->single;
    size_t count = cap > 0 ? (size_t)cap : 0;
    if (count <= 1) {
        struct arrays small = {&single->attempt, single->fds, single->polled, &single->order,
                               &single->entry};
        use_arrays(dial, &small, 1);
        return 0;
    }
    uint8_t *memory = lport_os.calloc(count + 1, sizeof *single);
    if (memory == NULL) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    struct arrays arrays;
    arrays.attempts = (struct lport_attempt *)(void *)memory;
    arrays.fds = (struct pollfd *)(void *)(arrays.attempts + count);
    arrays.polled = (int32_t *)(void *)(arrays.fds + count + 1);
    arrays.order = arrays.polled + count + 1;
    arrays.entries = (struct lport_race_entry *)(void *)(arrays.order + count);
    dial->memory = memory;
    use_arrays(dial, &arrays, cap);
    return 0;
}

/* Adds ADDRESS, port included, if it can be dialled from the own end. There is room for it. */
static void add_address(struct dial *dial, const uint8_t *address) {
    if (lport_attempt_suits(&dial->plan, address)) {
        int32_t index = lport_race_arrived(&dial->race, address[LPORT_AT_FAMILY]);
        lport_attempt_init(&dial->arrays.attempts[index], address);
    }
}

/* Every address is known: the dial is decided if there is none to try, of FOUND that there were. */
static void all_added(struct dial *dial, int64_t found) {
    lport_race_all_arrived(&dial->race);
    if (dial->race.count == 0) {
        dial->outcome =
            lport_status_make(found > 0 ? LPORT_ADDRESS_NOT_AVAILABLE : LPORT_HOST_NOT_FOUND);
    }
}

static void drop_query(struct dial *dial) {
    if (dial->query != 0) {
        lport_resolve_close(dial->query);
        dial->query = 0;
    }
    if (dial->event >= 0) {
        lport_os.close(dial->event);
        dial->event = -1;
    }
}

/* Takes the answer of the resolver if it is there. */
static void take_answer(struct dial *dial) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t count = lport_resolve_count(dial->query);
    if (lport_status_is(count, LPORT_IN_PROGRESS)) {
        return;
    }
    int64_t status = count < 0 ? count : make_room(dial, (int32_t)count);
    for (int32_t i = 0; status == 0 && i < count; i++) {
        lport_resolve_address(dial->query, i, address);
        lport_address_set_port(address, dial->port);
        add_address(dial, address);
    }
    drop_query(dial);
    dial->polling = 0; /* what was written down was the event, and the arrays are others now */
    if (status < 0) {
        dial->outcome = status;
    } else {
        all_added(dial, count);
    }
}

/* ---- the attempts -----------------------------------------------------------------------------
 */

/* Takes note of STATUS, with which attempt INDEX has come back. */
static void settle(struct dial *dial, int32_t index, int64_t status) {
    struct lport_attempt *attempt = &dial->arrays.attempts[index];
    if (status == 0) { /* another may have won: the race will tell */
        lport_race_connected(&dial->race, index);
    } else if (!lport_status_is(status, LPORT_IN_PROGRESS)) {
        attempt->status = status;
        lport_attempt_close(attempt, 0);
        lport_race_failed(&dial->race, index);
    }
}

static void start_attempt(struct dial *dial, int32_t index, int64_t now) {
    dial->arrays.order[dial->tried++] = index;
    settle(dial, index, lport_attempt_start(&dial->arrays.attempts[index], &dial->plan, now));
}

/* Looks at the attempts that were written down by the latest step: who has an end, whose pause is
 * over. */
static void look_at_attempts(struct dial *dial, int64_t now) {
    struct lport_attempt *attempts = dial->arrays.attempts;
    int all = dial->polling > 0 && lport_os_poll(dial->arrays.fds, dial->polling, 0) < 0;
    for (nfds_t i = 0; i < dial->polling; i++) {
        int32_t index = dial->arrays.polled[i];
        if (index >= 0 && (all || dial->arrays.fds[i].revents != 0)) {
            settle(dial, index, lport_attempt_look(&attempts[index], &dial->plan, now));
        }
    }
    for (int32_t i = 0; i < dial->tried; i++) {
        int32_t index = dial->arrays.order[i];
        if (attempts[index].retry_at <= now) {
            settle(dial, index, lport_attempt_retry(&attempts[index], &dial->plan, now));
        }
    }
}

/* ---- the race ---------------------------------------------------------------------------------
 */

/* How much a failure of KIND tells; the more the higher. */
static int weight(int32_t kind) {
    static const uint8_t weights[LPORT_KIND_END] = {
        [LPORT_DESCRIPTORS_EXHAUSTED] = 8, [LPORT_MEMORY_EXHAUSTED] = 8,
        [LPORT_BUFFERS_EXHAUSTED] = 8,     [LPORT_CONNECTION_REFUSED] = 7,
        [LPORT_PATH_NOT_FOUND] = 7,        [LPORT_CONNECT_DENIED] = 6,
        [LPORT_HOST_UNREACHABLE] = 5,      [LPORT_CONNECT_TIMED_OUT] = 4,
        [LPORT_NETWORK_UNREACHABLE] = 3,   [LPORT_ADDRESS_IN_USE] = 2,
        [LPORT_PERMISSION_DENIED] = 2,     [LPORT_ADDRESS_NOT_AVAILABLE] = 2,
        [LPORT_PATH_UNUSABLE] = 2,         [LPORT_CONNECT_FAILED] = 1,
    };
    return weights[kind];
}

static int64_t most_telling_failure(const struct dial *dial) {
    int64_t most = lport_status_make(LPORT_CONNECT_FAILED);
    int most_weight = -1;
    for (int32_t i = 0; i < dial->tried; i++) {
        int64_t status = dial->arrays.attempts[dial->arrays.order[i]].status;
        if (weight(lport_status_kind(status)) > most_weight) {
            most = status;
            most_weight = weight(lport_status_kind(status));
        }
    }
    return most;
}

/* Does what the race says, until it says to wait or is over. */
static void run_race(struct dial *dial, int64_t now) {
    for (;;) {
        struct lport_race_action action = lport_race_next(&dial->race, now);
        struct lport_attempt *attempt =
            action.index >= 0 ? &dial->arrays.attempts[action.index] : NULL;
        switch (action.verb) {
        case LPORT_RACE_START:
            start_attempt(dial, action.index, now);
            break;
        case LPORT_RACE_CANCEL:
            lport_attempt_close(attempt, 0);
            break;
        case LPORT_RACE_WAIT:
            dial->wake_at = action.until;
            return;
        case LPORT_RACE_DONE:
            if (lport_attempt_binds(&dial->plan)) {
                lport_local_keep(attempt->socket);
            }
            dial->outcome = attempt->socket;
            attempt->status = 0;
            attempt->socket = 0;
            return;
        case LPORT_RACE_FAILED:
            dial->outcome = most_telling_failure(dial);
            return;
        case LPORT_RACE_STOPPED:
            return;
        }
    }
}

/* Stops the race and closes what runs. */
static void stop_race(struct dial *dial) {
    lport_race_stop(&dial->race);
    if (goes_on(dial)) {
        run_race(dial, INT64_MIN);
    }
}

static void poll_for(struct dial *dial, int fd, short events, int32_t index) {
    dial->arrays.fds[dial->polling] = (struct pollfd){.fd = fd, .events = events};
    dial->arrays.polled[dial->polling] = index;
    dial->polling++;
}

/* Writes down what to wait for: descriptors, and the end of the earliest pause. */
static void prepare_wait(struct dial *dial) {
    dial->polling = 0;
    if (dial->query != 0) {
        poll_for(dial, dial->event, POLLIN, -1);
    }
    for (int32_t i = 0; i < dial->tried; i++) {
        int32_t index = dial->arrays.order[i];
        const struct lport_attempt *attempt = &dial->arrays.attempts[index];
        if (attempt->retry_at != LPORT_NEVER) {
            dial->wake_at = attempt->retry_at < dial->wake_at ? attempt->retry_at : dial->wake_at;
        } else if (attempt->socket != 0) {
            poll_for(dial, lport_attempt_descriptor(attempt), POLLOUT, index);
        }
    }
}

/* ---- exported ---------------------------------------------------------------------------------
 */

/* A dial with what its attempts have in common, into *DIAL. 0 or a status. */
static int64_t begin(int32_t kind, const uint8_t *local, int32_t flags, struct dial **dial) {
    if ((flags & ~(LPORT_NODELAY | LPORT_KEEPALIVE)) != 0) {
        return lport_status_make(LPORT_INVALID);
    }
    *dial = take_dial();
    if (*dial == NULL) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    (*dial)->plan = (struct lport_attempt_plan){.kind = kind, .flags = flags};
    if (local != NULL) {
        memcpy((*dial)->plan.local, local, LPORT_ADDRESS_SIZE);
    }
    return 0;
}

static int64_t open_literal(struct dial *dial, const uint8_t *address, int32_t family) {
    /* What the resolver says to it (EAI_ADDRFAMILY): the host has no address of that family. */
    int64_t found = family == LPORT_ANY || family == address[LPORT_AT_FAMILY];
    int64_t status = make_room(dial, 1);
    if (status == 0 && found) {
        add_address(dial, address);
    }
    all_added(dial, found);
    return status;
}

static int64_t open_name(struct dial *dial, const char *name, size_t len, int32_t family) {
    int64_t status = make_room(dial, 0); /* for the event */
    if (status < 0) {
        return status;
    }
    dial->event = lport_os.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (dial->event < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    int64_t query = lport_resolve_open(name, len, family, 0);
    if (query < 0) {
        drop_query(dial);
        return query;
    }
    dial->query = query;
    lport_resolve_notify(query, dial->event);
    return 0;
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
    status = parsed > 0 ? open_literal(dial, address, family) : open_name(dial, name, len, family);
    if (status < 0) {
        give_back_dial(dial);
        return status;
    }
    return lport_pool_name(dial);
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
    if (status < 0) {
        return status;
    }
    status = make_room(dial, count);
    if (status < 0) {
        give_back_dial(dial);
        return status;
    }
    for (int32_t i = 0; i < count; i++) {
        const uint8_t *address = addresses + (size_t)i * LPORT_ADDRESS_SIZE;
        add_address(dial, address);
    }
    all_added(dial, count);
    return lport_pool_name(dial);
}

int64_t lport_dial_step(int64_t handle) {
    struct dial *dial = dial_of(handle);
    if (dial == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t now = lport_clock_now();
    if (goes_on(dial) && dial->query != 0) {
        take_answer(dial);
    }
    if (goes_on(dial)) {
        look_at_attempts(dial, now);
        run_race(dial, now);
    }
    if (goes_on(dial)) {
        prepare_wait(dial);
    } else {
        dial->wake_at = INT64_MIN; /* no reason to wait for a step that is decided */
    }
    return dial->outcome;
}

int64_t lport_dial_wait(int64_t handle, int64_t deadline) {
    struct dial *dial = dial_of(handle);
    if (dial == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    for (;;) {
        if (dial->wake_at <= lport_clock_now()) {
            return 0;
        }
        int64_t until = dial->wake_at < deadline ? dial->wake_at : deadline;
        int ready = lport_os_poll(dial->arrays.fds, dial->polling, until);
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

int64_t lport_dial_count(int64_t handle) {
    struct dial *dial = dial_of(handle);
    return dial == NULL ? lport_status_make(LPORT_INVALID) : dial->tried;
}

int64_t lport_dial_attempt(int64_t handle, int32_t index, uint8_t *address) {
    struct dial *dial = dial_of(handle);
    if (dial == NULL || index < 0 || index >= dial->tried) {
        return lport_status_make(LPORT_INVALID);
    }
    const struct lport_attempt *attempt = &dial->arrays.attempts[dial->arrays.order[index]];
    memcpy(address, attempt->address, LPORT_ADDRESS_SIZE);
    return attempt->status;
}

int64_t lport_dial_close(int64_t handle) {
    struct dial *dial = dial_of(handle);
    if (dial == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    stop_race(dial);
    drop_query(dial);
    lport_pool_unname(dial);
    give_back_dial(dial);
    return 0;
}
