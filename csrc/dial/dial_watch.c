/* dial_watch - a handle that is ready when a step of a dial is due (layer 3). Part of dial; stands
 * on os, status, clock, handle. See dial_watch.h.
 *
 * It is an epoll set, itself a descriptor that can be waited for, in a slot of the table of
 * sockets: so whatever waits for sockets waits for dials, and a close from elsewhere wakes it. In
 * it are a timer and, from one step to the next, the descriptors that the dial waits for.
 *
 * Invariant: a descriptor is in the set only between two steps, so none is closed while it is
 * there: closing alone would leave it there as long as a forked child shares it. */
#include "dial_watch.h"

#include "base/os.h"
#include "base/status.h"
#include "libport.h"

#include <errno.h>

#ifdef __linux__
#include <sys/timerfd.h>

enum { KIND_DIAL = 1001 }; /* the kind of its slot; no socket has it, and no poller */

/* After so many ns a step is due where a descriptor could not be put into the set. */
#define LOOK_AGAIN INT64_C(10000000)

#define NS_PER_S INT64_C(1000000000)

/* A set with TIMER in it: its descriptor, or -1 with errno. */
static int open_set(int timer) {
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = lport_os.epoll_create1(EPOLL_CLOEXEC);
    if (epoll >= 0 && lport_os.epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event) < 0) {
        int error = errno;
        lport_os.close(epoll);
        errno = error;
        return -1;
    }
    return epoll;
}

int64_t lport_dial_watch_open(struct lport_dial_watch *watch, void *owner,
                              void (*retire)(struct lport_slot *slot)) {
    struct lport_slot *slot;
    int64_t status = lport_handle_reserve(&slot);
    if (status < 0) {
        return status;
    }
    int timer = lport_os.timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (timer < 0) {
        status = lport_status_from_errno(LPORT_IN_GENERAL, errno);
        goto release_slot;
    }
    int epoll = open_set(timer);
    if (epoll < 0) {
        status = lport_status_from_errno(LPORT_IN_GENERAL, errno);
        goto close_timer;
    }
    *watch = (struct lport_dial_watch){
        .handle = lport_handle_publish(slot, epoll, LPORT_ANY, KIND_DIAL),
        .slot = slot,
        .timer = timer,
        .process = lport_handle_process,
        .deadline = LPORT_NEVER,
    };
    slot->owner = owner;
    slot->retire = retire;
    return 0;

close_timer:
    lport_os.close(timer);
release_slot:
    lport_handle_release(slot);
    return status;
}

void lport_dial_watch_retire(struct lport_dial_watch *watch) {
    lport_os.close(watch->timer);
}

/* Has the timer of WATCH be ready from MOMENT on; a time of 0 would be never. */
static void set_timer(const struct lport_dial_watch *watch, int64_t moment) {
    struct itimerspec at = {{0, 0}, {0, 0}};
    if (moment != LPORT_NEVER) {
        moment = moment > 0 ? moment : 1;
        at.it_value.tv_sec = moment / NS_PER_S;
        at.it_value.tv_nsec = moment % NS_PER_S;
    }
    lport_os.timerfd_settime(watch->timer, TFD_TIMER_ABSTIME, &at, NULL);
}

void lport_dial_watch_put(struct lport_dial_watch *watch, const struct pollfd *fds, nfds_t count,
                          int64_t wake_at) {
    int64_t moment = wake_at < watch->deadline ? wake_at : watch->deadline;
    for (nfds_t i = 0; i < count; i++) {
        struct epoll_event event = {.events = (uint32_t)fds[i].events}; /* poll has the same bits */
        if (lport_os.epoll_ctl(watch->slot->fd, EPOLL_CTL_ADD, fds[i].fd, &event) < 0) {
            int64_t again = lport_clock_after(LOOK_AGAIN);
            moment = again < moment ? again : moment;
        }
    }
    set_timer(watch, moment);
}

void lport_dial_watch_take(struct lport_dial_watch *watch, const struct pollfd *fds, nfds_t count) {
    struct epoll_event none = {0};
    for (nfds_t i = 0; i < count; i++) {
        lport_os.epoll_ctl(watch->slot->fd, EPOLL_CTL_DEL, fds[i].fd, &none);
    }
}
#else
int64_t lport_dial_watch_open(struct lport_dial_watch *watch, void *owner,
                              void (*retire)(struct lport_slot *slot)) {
    (void)watch;
    (void)owner;
    (void)retire;
    return lport_status_make(LPORT_NOT_SUPPORTED);
}

void lport_dial_watch_retire(struct lport_dial_watch *watch) {
    (void)watch;
}

void lport_dial_watch_put(struct lport_dial_watch *watch, const struct pollfd *fds, nfds_t count,
                          int64_t wake_at) {
    (void)watch;
    (void)fds;
    (void)count;
    (void)wake_at;
}

void lport_dial_watch_take(struct lport_dial_watch *watch, const struct pollfd *fds, nfds_t count) {
    (void)watch;
    (void)fds;
    (void)count;
}
#endif
