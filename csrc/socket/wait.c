/* wait - wait for one socket until a deadline: begin, poll, end (layer 2). Stands on os, status,
 * clock, pool, handle.
 *
 * A wait is a user of its slot, so the descriptor it polls cannot be closed or reused under it. Its
 * eventfd is how close and lport_wait_wake reach it. Waits are pooled, and their memory is never
 * freed, so that a stale one is recognised by its generation. Their eventfds are used again, but
 * only some are kept for that, so that a crowd of waits does not hold descriptors once it is over.
 * A wait for which there was no descriptor does without: it looks for its wake every few
 * milliseconds, so that a program at its limit goes on with the sockets it has.
 *
 * Invariant: a wait is woken only under the lock of the slot it is linked to, and only once, its
 * eventfd written last; after it has been unlinked under that lock nobody touches it any more. */
#include "base/os.h"
#include "handle.h"
#include "libport.h"
#include "wait.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/eventfd.h>

struct lport_waiter {
    struct lport_pooled pooled;           /* first, see pool.h */
    struct lport_waiter *next, *previous; /* in the slot's list */
    struct lport_slot *slot;
    int event; /* eventfd, non-blocking; -1: there was no descriptor for it */
    uint32_t interest;
    atomic_bool woken;
    void *data; /* see lport_wait_data */
};

/* Eventfds that no wait has, none of them readable. Guarded by the lock of the pool. */
static struct {
    int count;
    int events[64];
} spare;

/* Nanoseconds from look to look of a wait without an eventfd. */
#define SLICE INT64_C(4000000)

static void prepare_waiter(void *object) {
    struct lport_waiter *waiter = object;
    waiter->event = -1;
}

static struct lport_pool waiters = LPORT_POOL(struct lport_waiter, prepare_waiter);

/* The wait under way that the integer WAIT names, or NULL. */
static struct lport_waiter *waiter_of(int64_t wait) {
    return lport_pool_find(&waiters, wait);
}

/* ---- eventfds, with the lock of the pool held ------------------------------------------------ */

/* An eventfd, or -1. */
static int take_event(void) {
    return spare.count > 0 ? spare.events[--spare.count]
                           : lport_os.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static void give_back_event(int event) {
    if (event >= 0 && spare.count < (int)(sizeof spare.events / sizeof *spare.events)) {
        spare.events[spare.count++] = event;
    } else if (event >= 0) {
        lport_os.close(event);
    }
}

/* ---- forks ----------------------------------------------------------------------------------- */

/* The eventfds are shared with the parent, whose threads wait on them: the child closes them all
 * and begins anew with its pool. Only the generations stay, so that old waits stay stale. */

static void before_fork(void) {
    pthread_mutex_lock(&waiters.lock);
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&waiters.lock);
}

static void after_fork_in_child(void) {
    for (uint32_t index = 0; index < waiters.used; index++) {
        struct lport_waiter *waiter = lport_pool_at(&waiters, index);
        if (waiter->event >= 0) {
            lport_os.close(waiter->event);
            waiter->event = -1;
        }
    }
    while (spare.count > 0) {
        lport_os.close(take_event());
    }
    lport_pool_take_back(&waiters);
}

static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* ---- waits ----------------------------------------------------------------------------------- */

/* A wait that nothing names yet, or NULL. */
static struct lport_waiter *take_waiter(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&waiters.lock);
    struct lport_waiter *waiter = lport_pool_take(&waiters);
    if (waiter != NULL) {
        waiter->event = take_event();
    }
    pthread_mutex_unlock(&waiters.lock);
    return waiter;
}

static void give_back_waiter(struct lport_waiter *waiter) {
    pthread_mutex_lock(&waiters.lock);
    lport_pool_unname(waiter);
    give_back_event(waiter->event);
    waiter->event = -1;
    lport_pool_give_back(&waiters, waiter);
    pthread_mutex_unlock(&waiters.lock);
}

static void link_waiter(struct lport_slot *slot, struct lport_waiter *waiter) {
    pthread_mutex_lock(&slot->lock);
    waiter->previous = NULL;
    waiter->next = slot->waiters;
    if (waiter->next != NULL) {
        waiter->next->previous = waiter;
    }
    slot->waiters = waiter;
    pthread_mutex_unlock(&slot->lock);
}

static void unlink_waiter(struct lport_slot *slot, struct lport_waiter *waiter) {
    pthread_mutex_lock(&slot->lock);
    if (waiter->previous != NULL) {
        waiter->previous->next = waiter->next;
    } else {
        slot->waiters = waiter->next;
    }
    if (waiter->next != NULL) {
        waiter->next->previous = waiter->previous;
    }
    pthread_mutex_unlock(&slot->lock);
}

/* The directions among what a wait is for. */
enum { DIRECTIONS = LPORT_INPUT | LPORT_OUTPUT };

int64_t lport_wait_begin(int64_t socket, int32_t interest) {
    struct lport_slot *slot;
    if ((interest & ~(DIRECTIONS | LPORT_FAILED)) != 0) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = lport_handle_enter(socket, &slot);
    if (status < 0) {
        return status;
    }
    struct lport_waiter *waiter = take_waiter();
    if (waiter == NULL) {
        lport_handle_leave(slot);
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    waiter->slot = slot;
    waiter->interest = (uint32_t)interest;
    atomic_store(&waiter->woken, false);
    waiter->data = NULL;
    /* Linked first, looked at the closing mark later (in poll): close marks first and goes through
     * the list later, so one of the two sees the other. */
    link_waiter(slot, waiter);
    return lport_pool_name(waiter);
}

/* What poll(2) is to look for: input, too, in the place of output that waits for that. */
static short events_for(const struct lport_waiter *waiter) {
    bool stuck = lport_handle_is_stuck(waiter->slot);
    bool input = (waiter->interest & LPORT_INPUT) != 0;
    bool output = (waiter->interest & LPORT_OUTPUT) != 0;
    return (short)((input || (output && stuck) ? POLLIN : 0) | (output && !stuck ? POLLOUT : 0));
}

/* What poll(2) said of a socket in FD, as LPORT_ bits. Errors and hangups make every direction
 * ready: the next call on it tells which it was. */
static int64_t ready_bits(const struct pollfd *fd, uint32_t interest) {
    int64_t bits = 0;
    if ((fd->revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) {
        bits |= LPORT_HANGUP | (interest & DIRECTIONS);
    }
    if ((fd->revents & POLLERR) != 0) {
        bits |= interest & LPORT_FAILED;
    }
    if ((fd->revents & POLLIN) != 0) {
        bits |= (fd->events & POLLOUT) != 0 ? LPORT_INPUT : interest & DIRECTIONS;
    }
    if ((fd->revents & POLLOUT) != 0) {
        bits |= LPORT_OUTPUT;
    }
    return bits;
}

/* Several waits are polled at once: the eventfd of each is in every second place of a vector, its
 * socket behind it. */

enum { MOST_WAITS = 2 };

struct waits {
    struct lport_waiter *waiters[MOST_WAITS];
    int count;
    bool hung[MOST_WAITS]; /* it is for a failure, and its peer has ended without one: none comes */
};

/* The bits that hold of WAITER and that the system does not know of: its transport has input, or it
 * has told of the failure before, which it does once. */
static int64_t known_bits(const struct lport_waiter *waiter) {
    struct lport_transport *transport = lport_handle_transport(waiter->slot);
    bool ready = transport != NULL && atomic_load(&transport->ready);
    bool failed = atomic_load(&waiter->slot->broken) != 0;
    return waiter->interest & ((ready ? LPORT_INPUT : 0) | (failed ? LPORT_FAILED : 0));
}

/* True if one of WAITS that has no eventfd has been woken; its place in FDS says so then. */
static bool note_woken(const struct waits *waits, struct pollfd *fds) {
    bool woken = false;
    for (int i = 0; i < waits->count; i++) {
        const struct lport_waiter *waiter = waits->waiters[i];
        if (waiter->event < 0 && atomic_load(&waiter->woken)) {
            fds[2 * i].revents = POLLIN;
            woken = true;
        }
    }
    return woken;
}

/* poll(2) where a wait has no eventfd: in slices. */
static int poll_in_slices(const struct waits *waits, struct pollfd *fds, nfds_t count,
                          int64_t deadline) {
    for (;;) {
        bool woken = note_woken(waits, fds);
        int64_t slice = woken ? 0 : lport_clock_now() + SLICE;
        int64_t until = slice < deadline ? slice : deadline;
        int ready = lport_os_poll(fds, count, until);
        if (ready >= 0 && note_woken(waits, fds)) {
            return ready + 1;
        }
        if (ready != 0 || until == deadline) {
            return ready;
        }
    }
}

static int poll_with(const struct waits *waits, struct pollfd *fds, nfds_t count,
                     int64_t deadline) {
    bool slices = false;
    for (int i = 0; i < waits->count; i++) {
        int event = waits->waiters[i]->event;
        fds[2 * i] = (struct pollfd){.fd = event, .events = POLLIN}; /* below 0: left out */
        slices = slices || event < 0;
    }
    return slices ? poll_in_slices(waits, fds, count, deadline)
                  : lport_os_poll(fds, count, deadline);
}

int lport_wait_with(int64_t wait, struct pollfd *fds, nfds_t count, int64_t deadline) {
    struct waits waits = {.waiters = {waiter_of(wait)}, .count = 1};
    return poll_with(&waits, fds, count, deadline);
}

static bool any_closing(const struct waits *waits) {
    bool closing = false;
    for (int i = 0; i < waits->count; i++) {
        closing = closing || lport_handle_is_closing(waits->waiters[i]->slot);
    }
    return closing;
}

/* What poll(2) said in FDS, where it said something, of WAITS. */
static int64_t outcome(const struct waits *waits, const struct pollfd *fds) {
    int64_t bits = 0;
    bool woken = false;
    for (int i = waits->count - 1; i >= 0; i--) {
        bits =
            bits * LPORT_SECOND_WAIT + (ready_bits(&fds[2 * i + 1], waits->waiters[i]->interest) |
                                        known_bits(waits->waiters[i]));
        woken = woken || fds[2 * i].revents != 0;
    }
    if (woken) {
        return any_closing(waits) ? lport_status_make(LPORT_CLOSED) : 0;
    }
    return bits;
}

/* What poll(2) is to look for, into FDS; true if it need not be waited for. A wait for nothing is
 * for its wake alone, and one that has hung for no more than that: a hangup of the socket would end
 * it at once. */
static bool look_for(const struct waits *waits, struct pollfd *fds) {
    bool there = false;
    for (int i = 0; i < waits->count; i++) {
        const struct lport_waiter *waiter = waits->waiters[i];
        fds[2 * i + 1] = (struct pollfd){
            .fd = waiter->interest == 0 || waits->hung[i] ? -1 : waiter->slot->fd,
            .events = events_for(waiter),
        };
        there = there || known_bits(waiter) != 0;
    }
    return there;
}

/* Notes which of WAITS have hung, as poll(2) said in FDS; how many. */
static int note_hung(struct waits *waits, const struct pollfd *fds) {
    int count = 0;
    for (int i = 0; i < waits->count; i++) {
        if (waits->waiters[i]->interest == LPORT_FAILED && fds[2 * i + 1].revents == POLLHUP) {
            waits->hung[i] = true;
            count++;
        }
    }
    return count;
}

static int64_t poll_waits(struct waits *waits, int64_t deadline, int32_t interruptible) {
    for (int i = 0; i < waits->count; i++) {
        if (waits->waiters[i] == NULL) {
            return lport_status_make(LPORT_INVALID);
        }
    }
    for (;;) {
        struct pollfd fds[2 * MOST_WAITS];
        bool there = look_for(waits, fds);
        if (any_closing(waits)) {
            return lport_status_make(LPORT_CLOSED);
        }
        int ready = poll_with(waits, fds, 2 * (nfds_t)waits->count, there ? 0 : deadline);
        if (ready < 0 && (errno != EINTR || interruptible != 0)) {
            return lport_status_from_errno(LPORT_IN_GENERAL, errno);
        }
        if (ready == 0 && !there) {
            return lport_status_make(LPORT_TIMED_OUT);
        }
        if (ready >= 0 && (there || ready > note_hung(waits, fds))) {
            return outcome(waits, fds);
        }
    }
}

int64_t lport_wait_poll(int64_t wait, int64_t deadline, int32_t interruptible) {
    struct waits waits = {.waiters = {waiter_of(wait)}, .count = 1};
    return poll_waits(&waits, deadline, interruptible);
}

int64_t lport_wait_poll2(int64_t first, int64_t second, int64_t deadline, int32_t interruptible) {
    struct waits waits = {.waiters = {waiter_of(first), waiter_of(second)}, .count = 2};
    return poll_waits(&waits, deadline, interruptible);
}

int64_t lport_wait_end(int64_t wait) {
    struct lport_waiter *waiter = waiter_of(wait);
    if (waiter == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    struct lport_slot *slot = waiter->slot;
    unlink_waiter(slot, waiter);
    if (atomic_load(&waiter->woken) && waiter->event >= 0) {
        lport_os_unsignal(waiter->event);
    }
    give_back_waiter(waiter);
    lport_handle_leave(slot);
    return 0;
}

/* Makes the eventfd of WAITER readable. With the lock of its slot held. */
static void wake_waiter(struct lport_waiter *waiter) {
    if (!atomic_exchange(&waiter->woken, true) && waiter->event >= 0) {
        lport_os_signal(waiter->event);
    }
}

int64_t lport_wait_wake_slot(struct lport_slot *slot, int32_t interest) {
    int64_t woken = 0;
    pthread_mutex_lock(&slot->lock);
    for (struct lport_waiter *waiter = slot->waiters; waiter != NULL; waiter = waiter->next) {
        if ((waiter->interest & DIRECTIONS) == 0 || (waiter->interest & (uint32_t)interest) != 0) {
            wake_waiter(waiter);
            woken++;
        }
    }
    pthread_mutex_unlock(&slot->lock);
    return woken;
}

int64_t lport_wait_wake(int64_t socket, int32_t interest) {
    struct lport_slot *slot;
    int64_t entered = lport_handle_enter(socket, &slot);
    if (entered < 0) {
        return entered;
    }
    int64_t woken = lport_wait_wake_slot(slot, interest);
    lport_handle_leave(slot);
    return woken;
}

void **lport_wait_data(int64_t wait, const struct lport_slot *slot) {
    struct lport_waiter *waiter = waiter_of(wait);
    return waiter == NULL || waiter->slot != slot ? NULL : &waiter->data;
}

int64_t lport_wait_count(void) {
    return lport_pool_taken(&waiters);
}
