/* poller_epoll - pollers on epoll(7) (layer 3), see poller.h. Linux only.
 *
 * The epoll set has the poller's eventfd, with 0 as its number, and each member that has an
 * interest, with its own: so a wait finds all it needs in the event itself and touches nothing that
 * another thread changes.
 *
 * Invariant: a socket is taken out of the set before its descriptor is closed; closing alone would
 * leave it there as long as a forked child shares it. */
#ifdef __linux__

#include "base/os.h"
#include "libport.h"
#include "poller.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>

enum { EVENTS_MAX = 512 }; /* that one wait takes from the system */

_Static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLERR == POLLERR &&
                   EPOLLHUP == POLLHUP && EPOLLRDHUP == POLLRDHUP,
               "epoll and poll share their bits on Linux");

/* True if EPOLL can be waited on: a filter may know only the newer calls for that. */
static bool may_wait(int epoll) {
    struct epoll_event none;
    return lport_os.epoll_wait(epoll, &none, 1, 0) >= 0 || errno == EINTR;
}

static int64_t epoll_open(struct lport_poller *poller) {
    struct epoll_event waking = {.events = EPOLLIN, .data.u64 = 0};
    int epoll = lport_os.epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    if (lport_os.epoll_ctl(epoll, EPOLL_CTL_ADD, poller->slot->fd, &waking) < 0 ||
        !may_wait(epoll)) {
        int64_t status = lport_status_from_errno(LPORT_IN_GENERAL, errno);
        lport_os.close(epoll);
        return status;
    }
    poller->descriptor = epoll;
    return 0;
}

static void epoll_close(struct lport_poller *poller) {
    lport_os.close(poller->descriptor);
}

static int64_t epoll_add(struct lport_poller *poller, struct lport_member *member) {
    (void)poller;
    (void)member;
    return 0; /* in the set only while it has an interest: hangups are reported without one */
}

static int64_t epoll_change(struct lport_poller *poller, struct lport_member *member,
                            int32_t interest) {
    int64_t number = lport_poller_number(member, interest);
    struct epoll_event event = {
        .events = lport_poller_bits(number),
        .data.u64 = (uint64_t)number,
    };
    if (interest == 0 && member->interest == 0) {
        return 0;
    }
    int operation = member->interest == 0 ? EPOLL_CTL_ADD
                    : interest == 0       ? EPOLL_CTL_DEL
                                          : EPOLL_CTL_MOD;
    if (lport_os.epoll_ctl(poller->descriptor, operation, member->slot->fd, &event) < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    return 0;
}

static void epoll_remove(struct lport_poller *poller, struct lport_member *member) {
    epoll_change(poller, member, 0);
}

static int64_t epoll_begin(struct lport_poller *poller, int64_t handle) {
    (void)poller;
    (void)handle;
    return 0;
}

static int64_t epoll_end(struct lport_poller *poller, int64_t turn) {
    (void)poller;
    return turn == 0 ? 0 : lport_status_make(LPORT_INVALID);
}

/* Milliseconds until DEADLINE, rounded up; -1 for never. */
static int milliseconds_until(int64_t deadline) {
    if (deadline == LPORT_NEVER) {
        return -1;
    }
    int64_t now = lport_clock_now();
    int64_t ms = deadline <= now ? 0 : (deadline - now - 1) / 1000000 + 1;
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

static int64_t epoll_wait_once(struct lport_poller *poller, int64_t turn, int64_t *events,
                               int32_t cap, int64_t deadline) {
    struct epoll_event ready[EVENTS_MAX];
    int64_t count = 0;
    (void)turn;
    int found = lport_os.epoll_wait(poller->descriptor, ready, cap < EVENTS_MAX ? cap : EVENTS_MAX,
                                    milliseconds_until(deadline));
    if (found < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    if (found == 0) {
        return lport_clock_now() < deadline ? 0 : lport_status_make(LPORT_TIMED_OUT);
    }
    for (int i = 0; i < found; i++) {
        count += lport_poller_event((int64_t)ready[i].data.u64, ready[i].events,
                                    events + LPORT_EVENT_SIZE * count);
    }
    return count;
}

const struct lport_poller_backend lport_poller_on_epoll = {
    .open = epoll_open,
    .close = epoll_close,
    .change = epoll_change,
    .add = epoll_add,
    .remove = epoll_remove,
    .begin = epoll_begin,
    .end = epoll_end,
    .wait = epoll_wait_once,
    .wake = lport_poller_signal,
};

#endif

typedef int lport_poller_epoll_is_not_empty; /* ISO C wants something in a file */
