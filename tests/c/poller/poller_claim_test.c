/* poller: an interest that the thread which deals with a socket takes away, and gives back. */
#include "polling.h"
#include "support.h"

#include <stdatomic.h>

POLLER_TEST(a_claimed_socket_is_not_reported_until_it_has_an_interest_again) {
    int64_t ends[2], poller = open_poller(backend);
    make_connection(LPORT_INET, ends);
    cr_assert_eq(lport_poller_add(poller, ends[0], both), 0);
    say(ends[1]);
    assert_ready(poller, ends[0], both);
    cr_assert_eq(lport_poller_claim(poller, ends[0]), both);
    cr_assert_eq(lport_poller_claim(poller, ends[0]), 0);
    assert_quiet(poller);
    cr_assert_eq(lport_poller_modify(poller, ends[0], LPORT_INPUT), 0);
    assert_ready(poller, ends[0], LPORT_INPUT);
    cr_assert_eq(lport_poller_claim(poller, ends[0]), LPORT_INPUT);
    cr_assert_eq(lport_socket_close(ends[1], LPORT_RESET), 0);
    assert_quiet(poller);
    cr_assert_eq(lport_poller_remove(poller, ends[0]), 0);
    assert_kind(lport_poller_claim(poller, ends[0]), LPORT_INVALID);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    assert_kind(lport_poller_claim(poller, ends[0]), LPORT_CLOSED);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

/* ---- many threads ---------------------------------------------------------------------------- */

enum { PAIRS = 6, WORKERS = 4, EACH = 200 };

static struct {
    int64_t poller, ends[PAIRS][2];
    atomic_int busy[PAIRS]; /* threads that deal with it now */
    atomic_int heard, doubled, told;
} work;

static int pair_of(int64_t socket) {
    int i = 0;
    while (work.ends[i][0] != socket) {
        i++;
    }
    return i;
}

/* Deals with SOCKET if nobody else does: hears one octet, and says it back. There is none where
 * another thread has dealt with it since it was reported. */
static int64_t deal(int64_t socket) {
    uint8_t octet;
    int i = pair_of(socket);
    atomic_fetch_add(&work.told, 1);
    int64_t interest = lport_poller_claim(work.poller, socket);
    if (interest <= 0) {
        return interest;
    }
    atomic_fetch_add(&work.doubled, atomic_fetch_add(&work.busy[i], 1) > 0);
    int64_t count = lport_socket_receive(socket, &octet, 1, 0);
    if (count == 1) {
        atomic_fetch_add(&work.heard, 1);
        count = send_all(socket, &octet, 1, soon());
    }
    atomic_fetch_sub(&work.busy[i], 1);
    int64_t status = lport_poller_modify(work.poller, socket, (int32_t)interest);
    return count == 1 || lport_status_kind(count) == LPORT_WOULD_BLOCK ? status : count;
}

/* Until the poller is closed. */
static int64_t work_on(void *data) {
    struct event events[PAIRS];
    (void)data;
    int64_t status = 0;
    while (status >= 0) {
        status = take(work.poller, events, PAIRS, LPORT_NEVER);
        for (int64_t count = status, i = 0; i < count && status >= 0; i++) {
            status = deal(events[i].socket);
        }
    }
    return lport_status_kind(status) == LPORT_CLOSED ? 0 : status;
}

/* Each octet is answered, and no thread has a socket that another deals with. */
POLLER_TEST(of_several_threads_one_has_a_socket_that_it_claims) {
    struct task workers[WORKERS];
    work.poller = open_poller(backend);
    for (int i = 0; i < PAIRS; i++) {
        cr_assert_eq(lport_socket_pair(LPORT_STREAM, work.ends[i]), 0);
        cr_assert_eq(lport_poller_add(work.poller, work.ends[i][0], LPORT_INPUT), 0);
    }
    for (int i = 0; i < WORKERS; i++) {
        task_start(&workers[i], work_on, NULL);
    }
    for (int turn = 0; turn < EACH; turn++) {
        for (int i = 0; i < PAIRS; i++) {
            say(work.ends[i][1]);
        }
        for (int i = 0; i < PAIRS; i++) {
            hear(work.ends[i][1]);
        }
    }
    cr_assert_geq(lport_socket_close(work.poller, 0), 0);
    for (int i = 0; i < WORKERS; i++) {
        cr_assert_eq(task_join(&workers[i]), 0);
    }
    cr_assert_eq(atomic_load(&work.heard), PAIRS * EACH);
    cr_assert_geq(atomic_load(&work.told), PAIRS * EACH);
    cr_assert_eq(atomic_load(&work.doubled), 0);
    for (int i = 0; i < PAIRS; i++) {
        close_both(work.ends[i]);
    }
}
