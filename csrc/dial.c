/* dial - a connection to a name or to one of several addresses (layer 3). Stands on race, resolve,
 * socket, local and os. See libport.h.
 *
 * What lport_dial_step does is: take the answer of the resolver, look at the attempts that are
 * ready, do what the race says, write down what to wait for. lport_dial_wait polls what was written
 * down and changes nothing but the results of that poll.
 *
 * A dial belongs to one thread. Its memory comes from a pool and is never unmapped, so that a stale
 * dial is recognised by its generation, and so that dialling a literal allocates nothing.
 *
 * Which failure tells most, once every address has failed: want of resources here, since no other
 * can be believed beside it and it passes; then the one whose packets came farthest: the host
 * answered (refused; a reset counts as that), something on the way did (denied, host unreachable),
 * nobody did (timed out), nothing left this machine (network unreachable, then what is wrong with
 * our own address). Among equals the first.
 *
 * Invariant: an attempt owns its socket from its start to its end, and nobody else knows that
 * socket; the winner's goes to the caller, every other is closed where its attempt ends. */
#include "address.h"
#include "handle.h"
#include "libport.h"
#include "local.h"
#include "os.h"
#include "race.h"
#include "resolve.h"
#include "socket.h"
#include "status.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

enum {
    MAX_REDIALS = 2, /* after a connection to itself, see socket.h */
    INDEX_BITS = 20, /* a dial is generation << INDEX_BITS | index */
    CHUNK_BITS = 4,
    CHUNK_DIALS = 1 << CHUNK_BITS,
};

#define BACKLOG_FIRST                                                                              \
    INT64_C(1000000) /* ns before a full backlog is tried again; doubles up to                     \
                      */
#define BACKLOG_LAST INT64_C(50000000)

/* One address of the dial and what became of it. */
struct attempt {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t socket;   /* 0: none */
    int64_t status;   /* LPORT_IN_PROGRESS, the failure, or 0 for the winner */
    int64_t retry_at; /* the backlog was full: try again then; else LPORT_NEVER */
    int64_t retry_in; /* the next pause */
    int32_t redials;
};

/* The arrays of a dial to so many addresses. */
struct arrays {
    struct attempt *attempts;
    struct pollfd *fds;               /* [0] is the resolver's event, then the attempts that run */
    int32_t *polled;                  /* the attempt that each of fds belongs to, or -1 */
    int32_t *order;                   /* attempts in the order tried */
    struct lport_race_entry *entries; /* the race's */
};

/* What a dial to one address needs; it is part of every dial, so that a literal allocates nothing.
 */
struct single {
    struct attempt attempt;
    struct pollfd fds[2];
    int32_t polled[2];
    int32_t order;
    struct lport_race_entry entry;
};

struct dial {
    _Atomic uint32_t generation; /* odd while open */
    uint32_t index;
    struct dial *next; /* in the list of free ones */
    int64_t outcome;   /* LPORT_IN_PROGRESS, then what every step returns */
    int64_t query;     /* 0: none, or answered */
    int event;         /* eventfd that the answer of the query is written to, or -1 */
    int32_t port, kind, flags;
    int binds; /* LOCAL is to be bound */
    uint8_t local[LPORT_ADDRESS_SIZE];
    struct lport_race race;
    struct arrays arrays;
    void *memory; /* of the arrays, or NULL where they are those of `single` */
    int32_t tried;
    nfds_t polling; /* fds in use */
    int64_t wake_at;
    struct single single;
};

static struct {
    pthread_mutex_t lock; /* guards free and used */
    struct dial *free;
    uint32_t used;
    _Atomic(struct dial *) chunks[1 << (INDEX_BITS - CHUNK_BITS)];
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int is(int64_t status, int32_t kind) {
    return lport_status_kind(status) == kind;
}

/* ---- dials as integers ------------------------------------------------------------------------
 */

static struct dial *dial_at(uint32_t index) {
    struct dial *chunk =
        atomic_load_explicit(&pool.chunks[index >> CHUNK_BITS], memory_order_acquire);
    return chunk == NULL ? NULL : &chunk[index & (CHUNK_DIALS - 1)];
}

/* The open dial that HANDLE names, or NULL. */
static struct dial *dial_of(int64_t handle) {
    if (handle <= 0 || (handle >> INDEX_BITS) > UINT32_MAX) {
        return NULL;
    }
    struct dial *dial = dial_at((uint32_t)handle & ((UINT32_C(1) << INDEX_BITS) - 1));
    uint32_t generation = (uint32_t)(handle >> INDEX_BITS);
    return dial != NULL && generation % 2 == 1 && atomic_load(&dial->generation) == generation
               ? dial
               : NULL;
}

/* A dial that was never used, or NULL. With the lock held. */
static struct dial *fresh_dial(void) {
    uint32_t index = pool.used;
    if (index >= UINT32_C(1) << INDEX_BITS) {
        return NULL;
    }
    if (dial_at(index) == NULL) {
        struct dial *chunk = lport_os.calloc(CHUNK_DIALS, sizeof *chunk);
        if (chunk == NULL) {
            return NULL;
        }
        atomic_store_explicit(&pool.chunks[index >> CHUNK_BITS], chunk, memory_order_release);
    }
    pool.used = index + 1;
    struct dial *dial = dial_at(index);
    dial->index = index;
    return dial;
}

static void lock_pool(void) {
    pthread_mutex_lock(&pool.lock);
}

static void unlock_pool(void) {
    pthread_mutex_unlock(&pool.lock);
}

/* The resolver's events belong to the parent, too, and tell the child nothing: the next step of
 * every dial is worth taking. */
static void after_fork_in_child(void) {
    for (uint32_t index = 0; index < pool.used; index++) {
        dial_at(index)->wake_at = INT64_MIN;
    }
    unlock_pool();
}

/* A child of fork() must not find the pool locked by a thread that it does not have. */
static void prepare_pool(void) {
    pthread_atfork(lock_pool, unlock_pool, after_fork_in_child);
}

/* An open dial with nothing in it, or NULL. */
static struct dial *take_dial(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare_pool);
    lock_pool();
    struct dial *dial = pool.free;
    if (dial != NULL) {
        pool.free = dial->next;
    } else {
        dial = fresh_dial();
    }
    unlock_pool();
    if (dial != NULL) {
        atomic_fetch_add(&dial->generation, 1);
        dial->outcome = lport_status_make(LPORT_IN_PROGRESS);
        dial->query = 0;
        dial->event = -1;
        dial->binds = 0;
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
    atomic_fetch_add(&dial->generation, 1);
    lock_pool();
    dial->next = pool.free;
    pool.free = dial;
    unlock_pool();
}

static int64_t handle_of(struct dial *dial) {
    return (int64_t)atomic_load(&dial->generation) << INDEX_BITS | dial->index;
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
    arrays.attempts = (struct attempt *)(void *)memory;
    arrays.fds = (struct pollfd *)(void *)(arrays.attempts + count);
    arrays.polled = (int32_t *)(void *)(arrays.fds + count + 1);
    arrays.order = arrays.polled + count + 1;
    arrays.entries = (struct lport_race_entry *)(void *)(arrays.order + count);
    dial->memory = memory;
    use_arrays(dial, &arrays, cap);
    return 0;
}

/* True if ADDRESS can be dialled from what DIAL has to bind. */
static int suits_local(const struct dial *dial, const uint8_t *address) {
    int32_t local = dial->local[LPORT_AT_FAMILY];
    return !dial->binds || local == LPORT_ANY || local == address[LPORT_AT_FAMILY];
}

/* Adds ADDRESS, port included. There is room for it. */
static void add_address(struct dial *dial, const uint8_t *address) {
    int32_t index = lport_race_arrived(&dial->race, address[LPORT_AT_FAMILY]);
    struct attempt *attempt = &dial->arrays.attempts[index];
    memcpy(attempt->address, address, LPORT_ADDRESS_SIZE);
    attempt->socket = 0;
    attempt->status = lport_status_make(LPORT_IN_PROGRESS);
    attempt->retry_at = LPORT_NEVER;
    attempt->retry_in = BACKLOG_FIRST;
    attempt->redials = 0;
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
    if (is(count, LPORT_IN_PROGRESS)) {
        return;
    }
    int64_t status = count < 0 ? count : make_room(dial, (int32_t)count);
    for (int32_t i = 0; status == 0 && i < count; i++) {
        lport_resolve_address(dial->query, i, address);
        lport_address_set_port(address, dial->port);
        if (suits_local(dial, address)) {
            add_address(dial, address);
        }
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

static void close_attempt(struct attempt *attempt, int32_t flags) {
    if (attempt->socket != 0) {
        lport_socket_close(attempt->socket, flags);
        attempt->socket = 0;
    }
    attempt->retry_at = LPORT_NEVER;
}

static void end_attempt(struct dial *dial, int32_t index, int64_t status) {
    struct attempt *attempt = &dial->arrays.attempts[index];
    if (status == 0) { /* another may have won: the race will tell */
        lport_race_connected(&dial->race, index);
    } else {
        attempt->status = status;
        close_attempt(attempt, 0);
        lport_race_failed(&dial->race, index);
    }
}

/* Opens the socket of ATTEMPT and binds it as the caller asked. 0 or a status. */
static int64_t open_socket(struct dial *dial, struct attempt *attempt) {
    uint8_t wildcard[LPORT_ADDRESS_SIZE] = {attempt->address[LPORT_AT_FAMILY]};
    const uint8_t *local = dial->local;
    int32_t flags = dial->flags;
    if (dial->binds && lport_address_port(local) != 0) {
        /* Several attempts share the one port, and so do earlier connections in TIME_WAIT. */
        flags |= LPORT_REUSE_ADDRESS;
    }
    int64_t socket = lport_socket_open(attempt->address[LPORT_AT_FAMILY], dial->kind, flags);
    if (socket < 0) {
        return socket;
    }
    attempt->socket = socket;
    if (!dial->binds) {
        return 0;
    }
    if (local[LPORT_AT_FAMILY] == LPORT_ANY) {
        lport_address_set_port(wildcard, lport_address_port(local));
        local = wildcard;
    }
    return lport_local_bind(socket, local);
}

/* Connects the socket of ATTEMPT, and looks at once how it went: on loopback the connection is
 * there when the call returns, and nobody should have to wait for it. */
static int64_t connect_socket(struct attempt *attempt, int64_t now) {
    int64_t status = lport_socket_connect_start(attempt->socket, attempt->address);
    attempt->retry_at = LPORT_NEVER;
    if (is(status, LPORT_BACKLOG_FULL)) {
        attempt->retry_at = now + attempt->retry_in;
        attempt->retry_in =
            attempt->retry_in < BACKLOG_LAST / 2 ? attempt->retry_in * 2 : BACKLOG_LAST;
        return lport_status_make(LPORT_IN_PROGRESS);
    }
    return status == 0 || is(status, LPORT_IN_PROGRESS)
               ? lport_socket_connect_finish(attempt->socket)
               : status;
}

/* True if STATUS says that ATTEMPT was connected to itself and may be made anew: not where the
 * caller gave the port that makes it so, and not for ever. Such a connection is dropped with a
 * reset: an end in order would leave the port it took in TIME_WAIT. */
static int redial(struct dial *dial, struct attempt *attempt, int64_t status) {
    if (!is(status, LPORT_CONNECTION_REFUSED) || lport_status_errno(status) != 0) {
        return 0;
    }
    close_attempt(attempt, LPORT_RESET);
    int chosen = dial->binds && lport_address_port(dial->local) != 0;
    return !chosen && attempt->redials++ < MAX_REDIALS;
}

/* Takes note of STATUS, with which attempt INDEX has come back, and begins it anew as long as it
 * comes back connected to itself. */
static void settle(struct dial *dial, int32_t index, int64_t status, int64_t now) {
    struct attempt *attempt = &dial->arrays.attempts[index];
    while (redial(dial, attempt, status)) {
        status = open_socket(dial, attempt);
        if (status == 0) {
            status = connect_socket(attempt, now);
        }
    }
    if (!is(status, LPORT_IN_PROGRESS)) {
        end_attempt(dial, index, status);
    }
}

static void start_attempt(struct dial *dial, int32_t index, int64_t now) {
    struct attempt *attempt = &dial->arrays.attempts[index];
    dial->arrays.order[dial->tried++] = index;
    int64_t status = open_socket(dial, attempt);
    settle(dial, index, status == 0 ? connect_socket(attempt, now) : status, now);
}

/* Looks at the attempts that were written down by the latest step: who has an end, whose pause is
 * over. */
static void look_at_attempts(struct dial *dial, int64_t now) {
    int all = dial->polling > 0 && lport_os_poll(dial->arrays.fds, dial->polling, 0) < 0;
    for (nfds_t i = 0; i < dial->polling; i++) {
        int32_t index = dial->arrays.polled[i];
        if (index >= 0 && (all || dial->arrays.fds[i].revents != 0)) {
            struct attempt *attempt = &dial->arrays.attempts[index];
            settle(dial, index, lport_socket_connect_finish(attempt->socket), now);
        }
    }
    for (int32_t i = 0; i < dial->tried; i++) {
        int32_t index = dial->arrays.order[i];
        struct attempt *attempt = &dial->arrays.attempts[index];
        if (attempt->retry_at <= now) {
            settle(dial, index, connect_socket(attempt, now), now);
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
        struct attempt *attempt = action.index >= 0 ? &dial->arrays.attempts[action.index] : NULL;
        switch (action.verb) {
        case LPORT_RACE_START:
            start_attempt(dial, action.index, now);
            break;
        case LPORT_RACE_CANCEL:
            close_attempt(attempt, 0);
            break;
        case LPORT_RACE_WAIT:
            dial->wake_at = action.until;
            return;
        case LPORT_RACE_DONE:
            if (dial->binds) {
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
    if (is(dial->outcome, LPORT_IN_PROGRESS)) {
        run_race(dial, INT64_MIN);
    }
}

static void poll_for(struct dial *dial, int fd, short events, int32_t index) {
    dial->arrays.fds[dial->polling] = (struct pollfd){.fd = fd, .events = events};
    dial->arrays.polled[dial->polling] = index;
    dial->polling++;
}

/* The descriptor of SOCKET, which nobody else knows. (lport_socket_descriptor would keep the winner
 * from ever being received from with LPORT_PATIENT.) */
static int descriptor_of(int64_t socket) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd >= 0) {
        lport_handle_leave(slot);
    }
    return (int)fd;
}

/* Writes down what to wait for: descriptors, and the end of the earliest pause. */
static void prepare_wait(struct dial *dial) {
    dial->polling = 0;
    if (dial->query != 0) {
        poll_for(dial, dial->event, POLLIN, -1);
    }
    for (int32_t i = 0; i < dial->tried; i++) {
        int32_t index = dial->arrays.order[i];
        const struct attempt *attempt = &dial->arrays.attempts[index];
        if (attempt->retry_at != LPORT_NEVER) {
            dial->wake_at = attempt->retry_at < dial->wake_at ? attempt->retry_at : dial->wake_at;
        } else if (attempt->socket != 0) {
            poll_for(dial, descriptor_of(attempt->socket), POLLOUT, index);
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
    (*dial)->kind = kind;
    (*dial)->flags = flags;
    if (local != NULL) {
        memcpy((*dial)->local, local, LPORT_ADDRESS_SIZE);
        (*dial)->binds = local[LPORT_AT_FAMILY] != LPORT_ANY || lport_address_port(local) != 0;
    }
    return 0;
}

static int64_t open_literal(struct dial *dial, const uint8_t *address, int32_t family) {
    /* What the resolver says to it (EAI_ADDRFAMILY): the host has no address of that family. */
    int64_t found = family == LPORT_ANY || family == address[LPORT_AT_FAMILY];
    int64_t status = make_room(dial, 1);
    if (status == 0 && found && suits_local(dial, address)) {
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
        return lport_status_make(LPORT_ADDRESS_SYNTAX);
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
    return handle_of(dial);
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
        if (suits_local(dial, address)) {
            add_address(dial, address);
        }
    }
    all_added(dial, count);
    return handle_of(dial);
}

int64_t lport_dial_step(int64_t handle) {
    struct dial *dial = dial_of(handle);
    if (dial == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t now = lport_clock_now();
    if (is(dial->outcome, LPORT_IN_PROGRESS) && dial->query != 0) {
        take_answer(dial);
    }
    if (is(dial->outcome, LPORT_IN_PROGRESS)) {
        look_at_attempts(dial, now);
        run_race(dial, now);
    }
    dial->polling = 0;
    dial->wake_at = is(dial->outcome, LPORT_IN_PROGRESS) ? dial->wake_at : INT64_MIN;
    if (is(dial->outcome, LPORT_IN_PROGRESS)) {
        prepare_wait(dial);
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
    const struct attempt *attempt = &dial->arrays.attempts[dial->arrays.order[index]];
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
    give_back_dial(dial);
    return 0;
}
