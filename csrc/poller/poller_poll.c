/* poller_poll - pollers on poll(2) (layer 3), see poller.h. For systems without anything better,
 * and for a poller that is used once: to add a socket is no system call.
 *
 * The poller keeps its members in two vectors, side by side. A turn is a wait (wait.c) on the
 * poller's own slot, with a copy of the vectors: poll writes into them and nothing may move under
 * it. A change of the vectors wakes the waits that have a copy, and they are begun anew.
 *
 * Invariant: place I of FDS is asked for by the number of MEMBERS[I], which has I as its place. */
#include "base/os.h"
#include "libport.h"
#include "poller.h"
#include "socket/wait.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

struct member_set {
    struct pollfd *fds;            /* fd below 0: no interest at present */
    struct lport_member **members; /* cap of each */
    uint32_t count, cap;
    _Atomic uint64_t changes;
    _Atomic uint32_t first; /* where the next wait begins to look, so that nobody is starved */
};

/* One allocation: this, then COUNT numbers of members, then 1 + COUNT pollfds, that of the wait
 * first. */
struct copy {
    uint64_t changes;
    uint32_t count;
    struct pollfd *fds;
    int64_t numbers[];
};

static int64_t poll_open(struct lport_poller *poller) {
    poller->data = lport_os.calloc(1, sizeof(struct member_set));
    return poller->data == NULL ? lport_status_make(LPORT_MEMORY_EXHAUSTED) : 0;
}

static void poll_close(struct lport_poller *poller) {
    struct member_set *set = poller->data;
    free(set->fds);
    free(set->members);
    free(set);
}

static void poll_wake(struct lport_poller *poller) {
    lport_wait_wake_slot(poller->slot, 0);
}

/* Room for twice as many. With the poller's lock held. */
static int64_t enlarge(struct member_set *set) {
    uint32_t cap = set->cap == 0 ? 8 : 2 * set->cap;
    struct pollfd *fds = lport_os.calloc(cap, sizeof *fds);
    struct lport_member **members = lport_os.calloc(cap, sizeof(struct lport_member *));
    if (fds == NULL || members == NULL) {
        free(fds);
        free(members);
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    if (set->count > 0) {
        memcpy(fds, set->fds, set->count * sizeof *fds);
        memcpy(members, set->members, set->count * sizeof(struct lport_member *));
    }
    free(set->fds);
    free(set->members);
    set->fds = fds;
    set->members = members;
    set->cap = cap;
    return 0;
}

static int64_t poll_add(struct lport_poller *poller, struct lport_member *member) {
    struct member_set *set = poller->data;
    int64_t status = 0;
    pthread_mutex_lock(&poller->lock);
    if (set->count == set->cap) {
        status = enlarge(set);
    }
    if (status == 0) {
        member->place = set->count++;
        set->members[member->place] = member;
        set->fds[member->place] = (struct pollfd){.fd = -1};
    }
    pthread_mutex_unlock(&poller->lock);
    return status;
}

static int64_t poll_change(struct lport_poller *poller, struct lport_member *member,
                           int32_t interest) {
    struct member_set *set = poller->data;
    int64_t number = lport_poller_number(member, interest);
    pthread_mutex_lock(&poller->lock);
    member->number = number;
    set->fds[member->place] = (struct pollfd){
        .fd = interest == 0 ? -1 : member->slot->fd,
        .events = (short)lport_poller_bits(number),
    };
    atomic_fetch_add(&set->changes, 1);
    pthread_mutex_unlock(&poller->lock);
    poll_wake(poller);
    return 0;
}

/* The last member moves to the place that becomes free. */
static void poll_remove(struct lport_poller *poller, struct lport_member *member) {
    struct member_set *set = poller->data;
    pthread_mutex_lock(&poller->lock);
    uint32_t last = --set->count;
    set->fds[member->place] = set->fds[last];
    set->members[member->place] = set->members[last];
    set->members[member->place]->place = member->place;
    atomic_fetch_add(&set->changes, 1);
    pthread_mutex_unlock(&poller->lock);
    poll_wake(poller);
}

/* A copy of the set of POLLER, its first descriptor left to the wait; NULL: no memory. */
static struct copy *copy_of(struct lport_poller *poller) {
    struct member_set *set = poller->data;
    pthread_mutex_lock(&poller->lock);
    size_t count = set->count;
    struct copy *copy = lport_os.calloc(1, sizeof *copy + count * sizeof(int64_t) +
                                               (count + 1) * sizeof(struct pollfd));
    if (copy != NULL) {
        copy->changes = atomic_load(&set->changes);
        copy->count = set->count;
        copy->fds = (struct pollfd *)(void *)(copy->numbers + count);
        for (size_t i = 0; i < count; i++) {
            copy->fds[i + 1] = set->fds[i];
            copy->numbers[i] = set->members[i]->number;
        }
    }
    pthread_mutex_unlock(&poller->lock);
    return copy;
}

/* The wait is linked before the copy is made: a change in between wakes it, for nothing. */
static int64_t poll_begin(struct lport_poller *poller, int64_t handle) {
    int64_t turn = lport_wait_begin(handle, 0);
    if (turn < 0) {
        return turn;
    }
    struct copy *copy = copy_of(poller);
    if (copy == NULL) {
        lport_wait_end(turn);
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    *lport_wait_data(turn, poller->slot) = copy;
    return turn;
}

/* Where the copy of TURN is; NULL where that is no turn of POLLER under way. */
static void **copy_place(struct lport_poller *poller, int64_t turn) {
    void **data = lport_wait_data(turn, poller->slot);
    return data == NULL || *data == NULL ? NULL : data;
}

static int64_t poll_end(struct lport_poller *poller, int64_t turn) {
    void **place = copy_place(poller, turn);
    if (place == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    free(*place);
    *place = NULL;
    return lport_wait_end(turn);
}

/* At most CAP events of COPY, from place FIRST on, around the end; how many. Where the next wait is
 * to begin into *NEXT. */
static int64_t collect(struct copy *copy, uint32_t first, int64_t *events, int32_t cap,
                       uint32_t *next) {
    int64_t count = 0;
    for (uint32_t i = 0; i < copy->count && count < cap; i++) {
        uint32_t place = (first + i) % copy->count;
        const struct pollfd *fd = &copy->fds[place + 1];
        *next = place + 1;
        if (fd->fd >= 0 && fd->revents != 0) {
            count += lport_poller_event(copy->numbers[place], (uint32_t)(fd->revents & 0xffff),
                                        events + LPORT_EVENT_SIZE * count);
        }
    }
    return count;
}

static int64_t poll_wait(struct lport_poller *poller, int64_t turn, int64_t *events, int32_t cap,
                         int64_t deadline) {
    struct member_set *set = poller->data;
    void **place = copy_place(poller, turn);
    if (place == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    struct copy *copy = *place;
    if (copy->changes != atomic_load(&set->changes)) {
        return lport_status_make(LPORT_WOULD_BLOCK);
    }
    int ready = lport_wait_with(turn, copy->fds, copy->count + 1, deadline);
    if (ready < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    if (ready == 0) {
        return lport_status_make(LPORT_TIMED_OUT);
    }
    uint32_t next = 0;
    int64_t count = collect(copy, atomic_load(&set->first), events, cap, &next);
    atomic_store(&set->first, next);
    /* Nothing but a wake, or descriptors that were closed meanwhile: this copy is of no use. */
    return count > 0 ? count : lport_status_make(LPORT_WOULD_BLOCK);
}

const struct lport_poller_backend lport_poller_on_poll = {
    .open = poll_open,
    .close = poll_close,
    .change = poll_change,
    .add = poll_add,
    .remove = poll_remove,
    .begin = poll_begin,
    .end = poll_end,
    .wait = poll_wait,
    .wake = poll_wake,
};
