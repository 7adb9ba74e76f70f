/* handle - the table of sockets (layer 2). Stands on os, status, clock, pool; what a close does
 * besides is in socket.c.
 *
 * Invariant: a descriptor is closed exactly once, by the last user to leave its slot after the
 * closing mark was set, or given away by that user, and the slot's generation changes before the
 * slot can be used again. So between enter and leave the descriptor is that of the socket that was
 * entered, whatever others do. */
#include "handle.h"

#include "base/os.h"
#include "libport.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CLOSING (UINT64_C(1) << 31)
#define USERS   (CLOSING - 1)

enum { STATE_BITS = LPORT_SLOT_RESET - 1 }; /* the LPORT_STATE_ bits stand below LPORT_SLOT_ ones */

uint32_t lport_handle_process;
_Atomic uint32_t lport_handle_forks;

static uint32_t first_generation;  /* of this process's slots, see choose_generation */
static _Atomic int64_t open_count; /* published and not yet marked closing */

static void prepare_slot(void *object) {
    struct lport_slot *slot = object;
    pthread_mutex_init(&slot->lock, NULL);
    atomic_store(&slot->state, (uint64_t)first_generation << 32 | CLOSING);
}

static struct lport_pool slots = LPORT_POOL(struct lport_slot, prepare_slot);

static uint64_t generation_of(uint64_t state) {
    return state >> 32;
}

static struct lport_slot *slot_at(uint32_t index) {
    return lport_pool_at(&slots, index);
}

/* The slot of SOCKET, whatever its generation; NULL where there was never one. Generation 0 is that
 * of slots never used, which have no closing mark yet. */
static struct lport_slot *slot_of(int64_t socket) {
    int64_t generation = lport_pool_generation(socket);
    return generation <= 0 || generation > UINT32_MAX ? NULL : slot_at(lport_pool_index(socket));
}

static uint64_t generation_in(int64_t socket) {
    return (uint64_t)lport_pool_generation(socket);
}

void lport_handle_release(struct lport_slot *slot) {
    pthread_mutex_lock(&slots.lock);
    lport_pool_give_back(&slots, slot);
    pthread_mutex_unlock(&slots.lock);
}

int64_t lport_handle_publish(struct lport_slot *slot, int fd, int32_t family, int32_t kind) {
    uint64_t generation = generation_of(atomic_load(&slot->state));
    slot->fd = fd;
    slot->family = family;
    slot->kind = kind;
    slot->forks = atomic_load(&lport_handle_forks);
    pthread_mutex_lock(&slot->lock);
    slot->waiters = NULL;
    slot->watches = NULL; /* a poller that ends may still look for its member here */
    pthread_mutex_unlock(&slot->lock);
    slot->owner = NULL;
    slot->retire = NULL;
    atomic_store(&slot->transport, NULL);
    atomic_store(&slot->flags, 0);
    atomic_store(&slot->broken, 0);
    atomic_fetch_add(&open_count, 1);
    atomic_store(&slot->state, generation << 32);
    return (int64_t)(generation << LPORT_POOL_INDEX_BITS | slot->pooled.index);
}

int64_t lport_handle_enter(int64_t socket, struct lport_slot **slot) {
    struct lport_slot *found = slot_of(socket);
    if (found == NULL) {
        return lport_status_make(LPORT_CLOSED);
    }
    uint64_t state = atomic_load_explicit(&found->state, memory_order_acquire);
    do {
        if (generation_of(state) != generation_in(socket) || (state & CLOSING) != 0) {
            return lport_status_make(LPORT_CLOSED);
        }
    } while (!atomic_compare_exchange_weak(&found->state, &state, state + 1));
    *slot = found;
    return found->fd;
}

struct lport_slot *lport_handle_entered(int64_t socket) {
    struct lport_slot *slot = slot_of(socket);
    if (slot == NULL) {
        return NULL;
    }
    uint64_t state = atomic_load(&slot->state);
    return generation_of(state) == generation_in(socket) && (state & USERS) != 0 ? slot : NULL;
}

static bool is_open(int64_t socket) {
    struct lport_slot *slot = slot_of(socket);
    if (slot == NULL) {
        return false;
    }
    uint64_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
    return generation_of(state) == generation_in(socket) && (state & CLOSING) == 0;
}

bool lport_handle_is_broken(int64_t socket) {
    struct lport_slot *slot = slot_of(socket);
    /* In this order: where it is open still, the flags were its own. */
    return slot != NULL && (atomic_load(&slot->flags) & LPORT_STATE_BROKEN) != 0 && is_open(socket);
}

int64_t lport_handle_drop_closed(int64_t *records, size_t size, int64_t count) {
    int64_t left = 0;
    for (int64_t i = 0; i < count; i++) {
        const int64_t *record = records + (size_t)i * size;
        if (is_open(record[0])) {
            if (left != i) {
                memcpy(records + (size_t)left * size, record, size * sizeof *record);
            }
            left++;
        }
    }
    return left;
}

/* A slot that is free, or reserved and not yet published, has the closing mark and no user. */
static bool has_descriptor(struct lport_slot *slot) {
    uint64_t state = atomic_load(&slot->state);
    return (state & CLOSING) == 0 || (state & USERS) != 0;
}

bool lport_handle_has(int fd) {
    bool found = false;
    pthread_mutex_lock(&slots.lock);
    for (uint32_t index = 0; index < slots.used && !found; index++) {
        struct lport_slot *slot = slot_at(index);
        found = has_descriptor(slot) && slot->fd == fd;
    }
    pthread_mutex_unlock(&slots.lock);
    return found;
}

bool lport_handle_attach(struct lport_slot *slot, struct lport_transport *transport) {
    struct lport_transport *none = NULL;
    return atomic_compare_exchange_strong(&slot->transport, &none, transport);
}

bool lport_handle_is_closing(struct lport_slot *slot) {
    return (atomic_load(&slot->state) & CLOSING) != 0;
}

/* Removes the name that SLOT made, unless somebody has put another file there, or a parent made it.
 */
static void remove_made_path(struct lport_slot *slot) {
    struct lport_made_path *made = slot->made_path;
    struct stat now;
    if (made != NULL && made->maker == getpid() && lport_os.lstat(made->path, &now) == 0 &&
        now.st_dev == made->device && now.st_ino == made->inode) {
        lport_os.unlink(made->path);
    }
}

/* True if close(2) of FD would block until a time to linger has passed. */
static bool would_linger(int fd) {
    struct linger linger = {0};
    socklen_t len = sizeof linger;
    return lport_os.getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) < 0 ||
           (linger.l_onoff && linger.l_linger > 0);
}

/* Sees to it that close(2) of the descriptor of SLOT resets the connection, if that was asked for,
 * and that it does not block. A connection whose transport is a parent's is left as it is: that its
 * close is a reset would hold for the parent too. Nothing is lost where a time to linger is taken
 * away: Linux sends the rest after that time as it does without one. */
static void prepare_close(struct lport_slot *slot) {
    uint32_t flags = atomic_load(&slot->flags);
    if ((flags & LPORT_SLOT_DETACHING) != 0) {
        return; /* in a child: the parent is giving it away as it is */
    }
    bool resets = (flags & (LPORT_SLOT_RESET | LPORT_SLOT_PARENTS)) == LPORT_SLOT_RESET;
    struct linger linger = {.l_onoff = resets, .l_linger = 0};
    if (linger.l_onoff || ((flags & LPORT_SLOT_LINGERS) != 0 && would_linger(slot->fd))) {
        lport_os.setsockopt(slot->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    }
}

static void free_transport(struct lport_slot *slot) {
    struct lport_transport *transport = atomic_exchange(&slot->transport, NULL);
    if (transport != NULL) {
        transport->calls->free(transport);
    }
}

static void close_descriptor(struct lport_slot *slot) {
    prepare_close(slot);
    remove_made_path(slot);
    if (slot->retire != NULL) {
        slot->retire(slot);
    }
    free_transport(slot);
    lport_os.close(slot->fd); /* EINTR too means closed on Linux: never twice */
}

static void wake_awaiting(struct lport_slot *slot) {
    atomic_fetch_add(&slot->epoch, 1);
    if (atomic_load(&slot->awaited)) {
        lport_os_wake_word((uint32_t *)&slot->epoch);
    }
}

/* Closes the descriptor of SLOT, which nobody uses any more, unless it was given away, and frees
 * the slot. */
static void close_slot(struct lport_slot *slot) {
    if ((atomic_load(&slot->flags) & LPORT_SLOT_DETACHED) == 0) {
        close_descriptor(slot);
    }
    free(slot->made_path);
    slot->made_path = NULL;
    uint64_t generation = (generation_of(atomic_load(&slot->state)) + 1) & UINT32_MAX;
    atomic_store(&slot->state, (generation == 0 ? 1 : generation) << 32 | CLOSING);
    wake_awaiting(slot);
    lport_handle_release(slot);
}

/* The slot may be another socket's by the time that its flags are looked at: then at the worst
 * somebody is woken who looks again. */
void lport_handle_leave(struct lport_slot *slot) {
    uint64_t before = atomic_fetch_sub(&slot->state, 1);
    if ((before & CLOSING) == 0) {
        return;
    }
    if ((before & USERS) == 1) {
        close_slot(slot);
    } else if ((before & USERS) == 2 && (atomic_load(&slot->flags) & LPORT_SLOT_DETACHING) != 0) {
        wake_awaiting(slot);
    }
}

bool lport_handle_is_alone(struct lport_slot *slot) {
    return (atomic_load(&slot->state) & (CLOSING | USERS)) == (CLOSING | 1);
}

/* ---- forks: in the child the thread that forked goes on alone -------------------------------- */

static void before_fork(void) {
    pthread_mutex_lock(&slots.lock);
    atomic_fetch_add(&lport_handle_forks, 1);
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&slots.lock);
}

/* The other threads do not exist in the child, so they are taken out of the count of SLOT's users.
 * A slot that the last of them would have closed as it left is closed here, once every lock is
 * free.
 */
static void forget_other_threads(struct lport_slot *slot) {
    uint64_t state = atomic_load(&slot->state);
    atomic_store(&slot->state, state & ~USERS);
    if ((state & CLOSING) != 0 && (state & USERS) != 0) {
        close_slot(slot);
    }
}

static void tell_transport_of_fork(struct lport_slot *slot) {
    struct lport_transport *transport = lport_handle_transport(slot);
    if (transport != NULL) {
        atomic_fetch_or(&slot->flags, LPORT_SLOT_PARENTS);
        transport->calls->forked(transport);
    }
}

static void after_fork_in_child(void) {
    lport_handle_process++;
    pthread_mutex_init(&slots.lock, NULL);
    for (uint32_t index = 0; index < slots.used; index++) {
        pthread_mutex_init(&slot_at(index)->lock, NULL);
        slot_at(index)->waiters = NULL;
        tell_transport_of_fork(slot_at(index));
    }
    for (uint32_t index = 0; index < slots.used; index++) {
        forget_other_threads(slot_at(index));
    }
}

/* A saved Lisp image may hold sockets of the process that saved it. Generations begin at a number
 * taken from the clock, so that those sockets are stale here and name none of this process's. */
static void choose_generation(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    first_generation =
        ((uint32_t)now.tv_sec << 12 | (uint32_t)(now.tv_nsec >> 18)) & (UINT32_MAX >> 1);
    first_generation += first_generation == 0;
}

static void prepare_table(void) {
    choose_generation();
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

int64_t lport_handle_reserve(struct lport_slot **slot) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare_table);
    pthread_mutex_lock(&slots.lock);
    *slot = lport_pool_take(&slots);
    pthread_mutex_unlock(&slots.lock);
    return *slot == NULL ? lport_status_make(LPORT_MEMORY_EXHAUSTED) : 0;
}

bool lport_handle_mark_closing(struct lport_slot *slot, int32_t flags) {
    if ((atomic_fetch_or(&slot->state, CLOSING) & CLOSING) != 0) {
        return false;
    }
    atomic_fetch_or(&slot->flags, (flags & LPORT_RESET) != 0 ? LPORT_SLOT_RESET : 0);
    atomic_fetch_sub(&open_count, 1);
    return true;
}

/* A watch that comes later looks at the mark, under the same lock. */
void lport_handle_tell_watches(struct lport_slot *slot) {
    pthread_mutex_lock(&slot->lock);
    while (slot->watches != NULL) {
        struct lport_watch *watch = slot->watches;
        slot->watches = watch->next;
        watch->closing(watch, slot);
    }
    pthread_mutex_unlock(&slot->lock);
}

void lport_handle_tell_changed(struct lport_slot *slot) {
    pthread_mutex_lock(&slot->lock);
    for (struct lport_watch *watch = slot->watches; watch != NULL; watch = watch->next) {
        if (watch->changed != NULL) {
            watch->changed(watch, slot);
        }
    }
    pthread_mutex_unlock(&slot->lock);
}

bool lport_handle_is_gone(struct lport_slot *slot, int64_t socket) {
    return generation_of(atomic_load(&slot->state)) != generation_in(socket);
}

/* AWAITED is raised for good: a wait that is abandoned must not leave it wrong, and a slot in which
 * somebody has waited once costs a system call at each close from then on. */
int64_t lport_socket_gone(int64_t socket, int64_t deadline) {
    struct lport_slot *slot = slot_of(socket);
    if (slot == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    atomic_store(&slot->awaited, true);
    for (;;) {
        uint32_t epoch = atomic_load(&slot->epoch);
        uint64_t state = atomic_load(&slot->state);
        if (generation_of(state) != generation_in(socket)) {
            return 0;
        }
        if ((state & CLOSING) == 0) {
            return lport_status_make(LPORT_INVALID);
        }
        if ((state & USERS) == 1 && (atomic_load(&slot->flags) & LPORT_SLOT_DETACHING) != 0) {
            return 0;
        }
        if (lport_clock_now() >= deadline) {
            return lport_status_make(LPORT_TIMED_OUT);
        }
        lport_os_wait_word((uint32_t *)&slot->epoch, epoch, deadline);
    }
}

int64_t lport_socket_state(int64_t socket) {
    struct lport_slot *slot;
    int64_t entered = lport_handle_enter(socket, &slot);
    if (entered < 0) {
        return entered;
    }
    uint32_t flags = atomic_load(&slot->flags) & STATE_BITS;
    lport_handle_leave(slot);
    return flags;
}

int64_t lport_socket_count(void) {
    return atomic_load(&open_count);
}
