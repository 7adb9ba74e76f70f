/* poller - readiness of many sockets (layer 3). Stands on os, status, handle, wait; the system is
 * asked by a backend: poller_epoll.c, poller_poll.c.
 *
 * A poller is a socket's kin: it has a slot in the table of handles, whose descriptor is the
 * eventfd that wakes its waits. Which sockets are in it is kept by poller_member.c.
 *
 * Invariant: an event carries the socket it was asked for, generation and all, and is dropped where
 * that has been closed; so it is never another socket's. */
#include "poller.h"

#include "base/os.h"
#include "libport.h"
#include "poller_member.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>

enum { KIND_POLLER = 1000 }; /* the kind of a poller's slot; no socket has it */

static const struct lport_poller_backend *backend_of(int32_t number) {
    switch (number) {
#ifdef __linux__
    case LPORT_POLLER_BEST:
    case LPORT_POLLER_EPOLL:
        return &lport_poller_on_epoll;
#else
    case LPORT_POLLER_BEST:
#endif
    case LPORT_POLLER_POLL:
        return &lport_poller_on_poll;
    default:
        return NULL;
    }
}

/* ---- events ---------------------------------------------------------------------------------- */

/* Above the socket: the interest, and a mark where output waits for input. */
enum { INTEREST_SHIFT = 60, STUCK = 4 };

int64_t lport_poller_number(const struct lport_member *member, int32_t interest) {
    bool stuck = (interest & LPORT_OUTPUT) != 0 && lport_handle_is_stuck(member->slot);
    return (int64_t)(interest | (stuck ? STUCK : 0)) << INTEREST_SHIFT | member->socket;
}

static int32_t wants_of(int64_t number) {
    return (int32_t)(number >> INTEREST_SHIFT);
}

/* As a wait asks, see wait.c. */
uint32_t lport_poller_bits(int64_t number) {
    int32_t wants = wants_of(number);
    bool stuck = (wants & STUCK) != 0;
    uint32_t bits = (wants & LPORT_INPUT) != 0 || stuck ? POLLIN : 0;
#ifdef POLLRDHUP
    bits |= (wants & LPORT_INPUT) != 0 ? POLLRDHUP : 0;
#endif
    return bits | ((wants & LPORT_OUTPUT) != 0 && !stuck ? POLLOUT : 0);
}

/* An error makes every direction ready: the next call on the socket tells what it is. A hangup of
 * both directions without an error is the end that both sides have made. */
static int32_t event_flags(int32_t wants, uint32_t ready) {
    int32_t interest = wants & (LPORT_INPUT | LPORT_OUTPUT);
    int32_t flags = 0;
    if ((ready & POLLERR) != 0) {
        flags = LPORT_FAILED | interest;
    } else if ((ready & POLLHUP) != 0) {
        flags = LPORT_ENDED | interest;
    }
#ifdef POLLRDHUP
    else if ((ready & POLLRDHUP) != 0) {
        flags = LPORT_ENDED | (interest & LPORT_INPUT);
    }
#endif
    int32_t by_input = (wants & STUCK) != 0 ? interest : interest & LPORT_INPUT;
    flags |= (ready & POLLIN) != 0 ? by_input : 0;
    flags |= (ready & POLLOUT) != 0 ? interest & LPORT_OUTPUT : 0;
    return flags;
}

int32_t lport_poller_event(int64_t number, uint32_t ready, int64_t *event) {
    int32_t flags = event_flags(wants_of(number), ready);
    event[0] = number & ((INT64_C(1) << INTEREST_SHIFT) - 1);
    event[1] = flags;
    return flags != 0;
}

/* The system reports a reset once; from then on it reports an end of that connection. So the end of
 * a connection that is known to be broken is made a failure again. */
static void tell_the_broken(int64_t *events, int64_t count) {
    for (int64_t *event = events; event < events + count * LPORT_EVENT_SIZE;
         event += LPORT_EVENT_SIZE) {
        if ((event[1] & LPORT_ENDED) != 0 && lport_handle_is_broken(event[0])) {
            event[1] ^= LPORT_ENDED | LPORT_FAILED;
        }
    }
}

/* ---- waking ---------------------------------------------------------------------------------- */

void lport_poller_signal(struct lport_poller *poller) {
    lport_os_signal(poller->slot->fd);
}

/* True for the one wait that takes the wake that was asked for. SIGNALLED: this wait may have been
 * ended by the eventfd, which is drained then even if another wait has taken the wake already.
 * lport_poller_wake sets the mark first and then signals, so the signal is taken first here. */
static bool take_wake(struct lport_poller *poller, bool signalled) {
    if (!atomic_load(&poller->wanted) && !signalled) {
        return false;
    }
    lport_os_unsignal(poller->slot->fd);
    if (lport_handle_is_closing(poller->slot)) {
        lport_poller_signal(poller); /* this one is for every wait */
    }
    return atomic_exchange(&poller->wanted, false);
}

/* ---- the end of a poller --------------------------------------------------------------------- */

static void poller_closing(struct lport_watch *watch, struct lport_slot *slot) {
    struct lport_poller *poller = slot->owner;
    (void)watch;
    if (lport_poller_is_own(poller)) {
        lport_poller_signal(poller);
    }
}

static void free_poller(struct lport_poller *poller) {
    pthread_mutex_destroy(&poller->lock);
    free(poller);
}

/* The last one has left POLLER. In the child of a fork its members belong to sockets that may be
 * gone, and its lock to nobody: what is left there stays. */
static void retire(struct lport_slot *slot) {
    struct lport_poller *poller = slot->owner;
    if (!lport_poller_is_own(poller)) {
        if (poller->descriptor >= 0) {
            lport_os.close(poller->descriptor);
        }
        return;
    }
    lport_member_remove_all(poller);
    poller->backend->close(poller);
    free_poller(poller);
}

/* ---- exported -------------------------------------------------------------------------------- */

/* A new poller without a slot; NULL: no memory. */
static struct lport_poller *new_poller(const struct lport_poller_backend *backend) {
    struct lport_poller *poller = lport_os.calloc(1, sizeof *poller);
    if (poller != NULL) {
        poller->backend = backend;
        poller->watch.closing = poller_closing;
        poller->process = lport_handle_process;
        poller->descriptor = -1;
        pthread_mutex_init(&poller->lock, NULL);
    }
    return poller;
}

/* Gives POLLER its slot, in which the descriptor is. */
static int64_t publish(struct lport_poller *poller) {
    struct lport_slot *slot = poller->slot;
    int64_t handle = lport_handle_publish(slot, slot->fd, LPORT_ANY, KIND_POLLER);
    pthread_mutex_lock(&slot->lock);
    slot->owner = poller;
    slot->retire = retire;
    slot->watches = &poller->watch;
    pthread_mutex_unlock(&slot->lock);
    return handle;
}

/* Makes the descriptor in the slot of POLLER and what its backend needs. 0 or a status. */
static int64_t equip(struct lport_poller *poller) {
    int event = lport_os.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    poller->slot->fd = event; /* the backend may want it */
    int64_t status = poller->backend->open(poller);
    if (status < 0) {
        lport_os.close(event);
    }
    return status;
}

static int64_t open_with(const struct lport_poller_backend *backend) {
    struct lport_poller *poller = new_poller(backend);
    if (poller == NULL) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    int64_t status = lport_handle_reserve(&poller->slot);
    if (status < 0) {
        goto free_poller;
    }
    status = equip(poller);
    if (status < 0) {
        goto release_slot;
    }
    return publish(poller);

release_slot:
    lport_handle_release(poller->slot);
free_poller:
    free_poller(poller);
    return status;
}

/* True if STATUS says that the library knows a backend and the system does not have it, or does not
 * give it to this process: of itself none fails with EPERM, a filter of system calls does. */
static bool is_withheld(int64_t status) {
    return lport_status_kind(status) == LPORT_NOT_SUPPORTED || lport_status_errno(status) == EPERM;
}

int64_t lport_poller_open(int32_t number) {
    const struct lport_poller_backend *backend = backend_of(number);
    if (backend == NULL) {
        return lport_status_make(number < LPORT_POLLER_BEST || number > LPORT_POLLER_POLL
                                     ? LPORT_INVALID
                                     : LPORT_NOT_SUPPORTED);
    }
    int64_t poller = open_with(backend);
    return number == LPORT_POLLER_BEST && is_withheld(poller) ? open_with(&lport_poller_on_poll)
                                                              : poller;
}

/* Enters the slot of POLLER: 0 and the poller into *ENTERED, or a status. */
static int64_t enter(int64_t poller, struct lport_poller **entered) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(poller, &slot);
    if (fd < 0) {
        return fd;
    }
    if (slot->kind != KIND_POLLER) {
        lport_handle_leave(slot);
        return lport_status_make(LPORT_INVALID);
    }
    *entered = slot->owner;
    if (!lport_poller_is_own(*entered)) {
        lport_handle_leave(slot);
        return lport_status_make(LPORT_CLOSED);
    }
    return 0;
}

enum action { ADD, MODIFY, CLAIM, REMOVE };

/* Does ACTION on the membership of SLOT, which is that of SOCKET, in POLLER. */
static int64_t act(enum action action, struct lport_poller *poller, struct lport_slot *slot,
                   int64_t socket, int32_t interest) {
    int64_t status = 0;
    pthread_mutex_lock(&slot->lock);
    struct lport_watch **place = lport_member_find(slot, poller);
    if (lport_handle_is_closing(slot)) {
        status = lport_status_make(LPORT_CLOSED);
    } else if ((action == ADD) != (place == NULL) || slot->kind == KIND_POLLER) {
        status = lport_status_make(LPORT_INVALID);
    } else if (action == ADD) {
        status = lport_member_add(poller, slot, socket, interest);
    } else if (action == MODIFY) {
        status = lport_member_change(poller, (struct lport_member *)*place, interest);
    } else if (action == CLAIM) {
        status = lport_member_claim(poller, (struct lport_member *)*place);
    } else {
        lport_member_remove(poller, place);
    }
    pthread_mutex_unlock(&slot->lock);
    return status;
}

static int64_t enter_and_act(enum action action, int64_t poller, int64_t socket, int32_t interest) {
    struct lport_poller *entered;
    struct lport_slot *slot;
    if ((interest & ~(LPORT_INPUT | LPORT_OUTPUT)) != 0) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = enter(poller, &entered);
    if (status < 0) {
        return status;
    }
    int64_t fd = lport_handle_enter(socket, &slot);
    status = fd;
    if (fd >= 0) {
        status = act(action, entered, slot, socket, interest);
        lport_handle_leave(slot);
    }
    lport_handle_leave(entered->slot);
    return status;
}

int64_t lport_poller_add(int64_t poller, int64_t socket, int32_t interest) {
    return enter_and_act(ADD, poller, socket, interest);
}

int64_t lport_poller_modify(int64_t poller, int64_t socket, int32_t interest) {
    return enter_and_act(MODIFY, poller, socket, interest);
}

int64_t lport_poller_claim(int64_t poller, int64_t socket) {
    return enter_and_act(CLAIM, poller, socket, 0);
}

int64_t lport_poller_remove(int64_t poller, int64_t socket) {
    return enter_and_act(REMOVE, poller, socket, 0);
}

int64_t lport_poller_begin(int64_t poller) {
    struct lport_poller *entered;
    int64_t status = enter(poller, &entered);
    if (status < 0) {
        return status;
    }
    int64_t turn = entered->backend->begin(entered, poller);
    if (turn < 0) {
        lport_handle_leave(entered->slot);
    }
    return turn;
}

/* The poller that the caller, who has begun a turn, is in; or NULL. */
static struct lport_poller *entered_poller(int64_t poller) {
    struct lport_slot *slot = lport_handle_entered(poller);
    return slot == NULL || slot->kind != KIND_POLLER ? NULL : slot->owner;
}

/* Waits once: how many events of sockets that are open; else what the backend says. */
static int64_t wait_once(struct lport_poller *poller, int64_t turn, int64_t *events, int32_t cap,
                         int64_t deadline) {
    int64_t result = poller->backend->wait(poller, turn, events, cap, deadline);
    if (result > 0) {
        result = lport_handle_drop_closed(events, LPORT_EVENT_SIZE, result);
        tell_the_broken(events, result);
    }
    return result;
}

int64_t lport_poller_wait(int64_t poller, int64_t turn, int64_t *events, int32_t cap,
                          int64_t deadline, int32_t interruptible) {
    struct lport_poller *entered = entered_poller(poller);
    int64_t result = 0;
    bool signalled = false;
    if (entered == NULL || turn < 0 || cap < 1) {
        return lport_status_make(LPORT_INVALID);
    }
    for (;;) {
        if (lport_handle_is_closing(entered->slot)) {
            return lport_status_make(LPORT_CLOSED);
        }
        if (take_wake(entered, signalled)) {
            return 0;
        }
        if (result < 0) {
            return result;
        }
        result = wait_once(entered, turn, events, cap, deadline);
        if (result > 0) {
            return result;
        }
        signalled = result == 0;
        if (lport_status_kind(result) == LPORT_INTERRUPTED && interruptible == 0) {
            result = 0;
        }
    }
}

int64_t lport_poller_end(int64_t poller, int64_t turn) {
    struct lport_poller *entered = entered_poller(poller);
    if (entered == NULL || turn < 0) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = entered->backend->end(entered, turn);
    if (status == 0) {
        lport_handle_leave(entered->slot);
    }
    return status;
}

int64_t lport_poller_wake(int64_t poller) {
    struct lport_poller *entered;
    int64_t status = enter(poller, &entered);
    if (status < 0) {
        return status;
    }
    atomic_store(&entered->wanted, true);
    /* Whether or not the mark was set: who took its signal may have been unwound before the mark.
     */
    entered->backend->wake(entered);
    lport_handle_leave(entered->slot);
    return 0;
}
