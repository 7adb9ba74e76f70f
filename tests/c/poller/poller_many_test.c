/* poller: many sockets, many threads. */
#include "polling.h"
#include "support.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

/* Descriptors far above the 1,024 of select; what finds no room comes with the next wait, each once
 * before any comes again. */
POLLER_TEST(holds_thousands_and_starves_nobody) {
    enum { PAIRS = 4000, READY = 700, CAP = 64 };
    static int64_t ends[PAIRS][2];
    static uint8_t seen[PAIRS];
    static struct event events[CAP];
    NEED_DESCRIPTORS(2 * READY + 100);
    int room = (descriptors_allowed() - 100) / 2;
    int pairs = room < PAIRS ? room : PAIRS;
    int found = 0;
    int64_t poller = open_poller(backend);
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < pairs; i++) {
        cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends[i]), 0);
        cr_assert_eq(lport_poller_add(poller, ends[i][0], LPORT_INPUT), 0);
    }
    for (int i = 0; i < READY; i++) {
        say(ends[i * (pairs / READY)][1]);
    }
    for (int rounds = 0; found < READY && rounds < 4 * READY / CAP; rounds++) {
        int64_t count = take(poller, events, CAP, soon());
        cr_assert(count > 0 && count <= CAP, "%lld", (long long)count);
        for (int64_t e = 0; e < count; e++) {
            int i = 0;
            while (ends[i][0] != events[e].socket) {
                i++;
            }
            found += seen[i] == 0;
            seen[i] = 1;
        }
    }
    cr_assert_eq(found, READY);
    for (int i = 0; i < pairs; i++) {
        close_both(ends[i]);
    }
    assert_quiet(poller);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

/* Threads that take what is ready and hear it, against one that closes and opens sockets, sends and
 * wakes: an event is always of a socket that was in the poller, and no octet is heard twice. */
enum { HEARERS = 4, PLACES = 16, ROUNDS = 3000 };

static struct {
    int64_t poller;
    atomic_bool stop;
    _Atomic int64_t heard;
} shared;

static int64_t hearing(void *data) {
    (void)data;
    while (!atomic_load(&shared.stop)) {
        struct event events[4];
        int64_t count = take(shared.poller, events, 4, soon());
        if (count < 0) {
            return count;
        }
        for (int64_t i = 0; i < count; i++) {
            uint8_t octet;
            int64_t got = lport_socket_receive(events[i].socket, &octet, 1, 0);
            if (got == 1) {
                atomic_fetch_add(&shared.heard, 1);
            } else if (got >= 0 || (lport_status_kind(got) != LPORT_WOULD_BLOCK &&
                                    lport_status_kind(got) != LPORT_CLOSED)) {
                return -1000000 + got;
            }
        }
    }
    return 0;
}

POLLER_TEST(many_threads_share_one_poller) {
    struct task tasks[HEARERS];
    int64_t ends[PLACES][2], said = 0;
    shared.poller = open_poller(backend);
    atomic_store(&shared.stop, false);
    atomic_store(&shared.heard, 0);
    for (int i = 0; i < HEARERS; i++) {
        task_start(&tasks[i], hearing, NULL);
    }
    for (int i = 0; i < PLACES; i++) {
        cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends[i]), 0);
        cr_assert_eq(lport_poller_add(shared.poller, ends[i][0], LPORT_INPUT), 0);
    }
    for (int round = 0; round < ROUNDS; round++) {
        int i = round % PLACES;
        if (round % 7 == 0) { /* nobody has spoken into it since it was heard */
            int64_t limit = soon();
            while (atomic_load(&shared.heard) < said) {
                cr_assert_lt(lport_clock_now(), limit, "%lld of %lld heard",
                             (long long)atomic_load(&shared.heard), (long long)said);
                sched_yield();
            }
            cr_assert_geq(lport_socket_close(ends[i][0], 0), 0);
            cr_assert_geq(lport_socket_close(ends[i][1], 0), 0);
            cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends[i]), 0);
            cr_assert_eq(lport_poller_add(shared.poller, ends[i][0], LPORT_INPUT), 0);
        }
        say(ends[i][1]);
        said++;
        cr_assert_eq(lport_poller_wake(shared.poller), 0);
    }
    int64_t limit = soon();
    while (atomic_load(&shared.heard) < said && lport_clock_now() < limit) {
        sched_yield();
    }
    atomic_store(&shared.stop, true);
    cr_assert_geq(lport_socket_close(shared.poller, 0), 0);
    for (int i = 0; i < HEARERS; i++) {
        int64_t result = task_join(&tasks[i]);
        cr_assert(result == 0 || lport_status_kind(result) == LPORT_CLOSED, "%lld",
                  (long long)result);
    }
    cr_assert_eq(atomic_load(&shared.heard), said);
    cr_assert_eq(lport_socket_gone(shared.poller, soon()), 0);
    for (int i = 0; i < PLACES; i++) {
        for (int end = 0; end < 2; end++) { /* a hearer may just be leaving one */
            cr_assert_geq(lport_socket_close(ends[i][end], 0), 0);
            cr_assert_eq(lport_socket_gone(ends[i][end], soon()), 0);
        }
    }
}
