/* Names on helper threads: those that hang, and hold up no other; and those who ask the same at the
 * same time, who share one look-up. */
#include "resolving.h"
#include "support.h"

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* COUNT look-ups that hang, begun by now; their queries to QUERIES, or abandoned where that is
 * NULL. */
static void hang(int64_t *queries, int count) {
    shut_gate();
    for (int i = 0; i < count; i++) {
        int64_t query = ask_slow(0);
        sem_wait(&fake.entered);
        if (queries != NULL) {
            queries[i] = query;
        } else {
            lport_resolve_close(query);
        }
    }
    fake.gated = false;
}

static void check_answered(const int64_t *queries, int count) {
    for (int i = 0; i < count; i++) {
        cr_assert_eq(lport_resolve_wait(queries[i], lport_clock_after(10 * S)), 0, "%d", i);
        cr_assert_eq(lport_resolve_count(queries[i]), 3, "%d", i);
        lport_resolve_close(queries[i]);
    }
}

/* ---- names that hang ------------------------------------------------------------------------- */

Test(resolve, names_that_hang_hold_up_no_other) {
    enum { ABANDONED = 40, AWAITED = 64 };
    int64_t awaited[AWAITED];
    hang(NULL, ABANDONED);
    lport_resolve_close(asked("localhost", 0));
    hang(awaited, AWAITED);
    lport_resolve_close(asked("localhost", 0));
    cr_assert_eq(lport_resolve_pending(), ABANDONED + AWAITED);
    open_gate(ABANDONED + AWAITED);
    check_answered(awaited, AWAITED);
    settle(lport_resolve_pending, 0);
}

/* A program that never stops asking for names that hang makes no threads without end: what is one
 * too many waits for one of them to come back, until its deadline. */
Test(resolve, no_thread_is_made_above_the_bound_though_all_are_abandoned) {
    hang(NULL, MOST_THREADS);
    for (int i = 0; i < 100; i++) {
        lport_resolve_close(ask_slow(0));
    }
    cr_assert_eq(lport_resolve_threads(), MOST_THREADS);
    cr_assert_eq(lport_resolve_pending(), MOST_THREADS, "what was queued and closed is gone");
    int64_t queries[3] = {ask("one.test", 0), ask("one.test", 0), ask("other.test", 0)};
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(kind(lport_resolve_wait(queries[i], lport_clock_after(MS))), LPORT_TIMED_OUT);
    }
    lport_resolve_close(queries[0]); /* who asks the same is still in the queue */
    int before = fake.calls;
    open_gate(1);
    check_answered(queries + 1, 2);
    cr_assert_eq(fake.calls, before + 2);
    open_gate(MOST_THREADS - 1);
    settle(lport_resolve_pending, 0);
}

/* ---- those who ask the same ------------------------------------------------------------------ */

/* Each closed before the next is asked for, as when every one times out. */
Test(resolve, a_name_that_hangs_costs_one_thread_however_often_it_is_asked_for) {
    lport_resolver.join_ns = 60 * S;
    shut_gate();
    for (int i = 0; i < 100; i++) {
        int64_t query = ask("hangs.test", 0);
        if (i == 0) {
            sem_wait(&fake.entered);
        }
        cr_assert_eq(kind(lport_resolve_wait(query, lport_clock_now())), LPORT_TIMED_OUT);
        lport_resolve_close(query);
    }
    cr_assert_eq(lport_resolve_threads(), 1);
    cr_assert_eq(lport_resolve_pending(), 1);
    int64_t last = ask("hangs.test", 0);
    cr_assert_eq(lport_resolve_pending(), 1, "it is abandoned no more");
    open_gate(1);
    check_answered(&last, 1);
    cr_assert_eq(fake.calls, 1);
    settle(lport_resolve_pending, 0);
}

/* A packet may have been lost, or the network be another one. */
Test(resolve, a_look_up_that_began_too_long_ago_is_not_joined) {
    lport_resolver.join_ns = 0;
    int64_t queries[2];
    shut_gate();
    queries[0] = ask("hangs.test", 0);
    sem_wait(&fake.entered);
    fake.gated = false;
    queries[1] = ask("hangs.test", 0);
    check_answered(queries + 1, 1);
    open_gate(1);
    check_answered(queries, 1);
    cr_assert_eq(fake.calls, 2);
}

Test(resolve, an_answer_is_shared_by_who_asked_the_same_and_by_nobody_else) {
    enum { SAME = 4, OTHERS = 5 };
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t same[SAME];
    lport_resolver.join_ns = 60 * S;
    shut_gate();
    for (int i = 0; i < SAME; i++) {
        same[i] = ask("same.test", LPORT_ALIASES);
    }
    lport_address_parse("127.0.0.2", 9, 0, address);
    int64_t others[OTHERS] = {ask("other.test", LPORT_ALIASES), ask("same.test", 0),
                              lport_resolve_open("same.test", 9, LPORT_INET, LPORT_ALIASES),
                              lport_resolve_reverse(address)};
    address[8 + 3]++; /* 127.0.0.3 */
    others[4] = lport_resolve_reverse(address);
    for (int i = 0; i < 4; i++) { /* the fake holds up those that ask for a name */
        sem_wait(&fake.entered);
    }
    cr_assert_eq(lport_resolve_wait(others[3], lport_clock_after(10 * S)), 0);
    cr_assert_eq(lport_resolve_count(others[3]), 1);
    cr_assert_eq(lport_resolve_wait(others[4], lport_clock_after(10 * S)), 0);
    cr_assert_eq(kind(lport_resolve_count(others[4])), LPORT_HOST_NOT_FOUND);
    cr_assert_eq(sem_trywait(&fake.entered), -1);
    lport_resolve_close(same[0]); /* it was the first, and one between */
    lport_resolve_close(same[2]);
    open_gate(4);
    cr_assert_eq(lport_resolve_wait(others[2], lport_clock_after(10 * S)), 0);
    cr_assert_eq(lport_resolve_count(others[2]), 2);
    for (int i = 1; i < SAME; i += 2) { /* the last has the answer all the same */
        cr_assert_eq(lport_resolve_wait(same[i], lport_clock_after(10 * S)), 0);
        check_address(same[i], 2, "::1");
        check_name(same[i], 0, "many.test");
        check_name(same[i], 200, "alias-199");
        lport_resolve_close(same[i]);
    }
    for (int i = 0; i < OTHERS; i++) {
        lport_resolve_close(others[i]);
    }
    settle(lport_resolve_pending, 0);
    cr_assert_eq(fake.lists, 0);
}

static int64_t wait_for_ever(void *query) {
    return lport_resolve_wait(*(int64_t *)query, LPORT_NEVER);
}

/* Waits, events and closes are each query's own, though the look-up is one. */
Test(resolve, everybody_who_shares_an_answer_is_told) {
    struct task tasks[2];
    int64_t queries[3];
    struct pollfd fds[3];
    lport_resolver.join_ns = 60 * S;
    shut_gate();
    for (int i = 0; i < 3; i++) {
        queries[i] = ask("same.test", 0);
        fds[i] = (struct pollfd){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = POLLIN};
        lport_resolve_notify(queries[i], fds[i].fd);
    }
    sem_wait(&fake.entered);
    for (int i = 0; i < 2; i++) {
        task_start(&tasks[i], wait_for_ever, &queries[i]);
        task_until_asleep(&tasks[i], 0);
    }
    lport_resolve_close(queries[0]);
    cr_assert_eq(kind(task_join(&tasks[0])), LPORT_INVALID);
    cr_assert_eq(poll(fds, 3, 0), 0);
    open_gate(1);
    cr_assert_eq(task_join(&tasks[1]), 0);
    for (int i = 1; i < 3; i++) {
        cr_assert_eq(poll(&fds[i], 1, 10000), 1);
        cr_assert_eq(lport_resolve_close(queries[i]), 0);
    }
    cr_assert_eq(poll(fds, 1, 0), 0, "closed before the answer");
    for (int i = 0; i < 3; i++) {
        close(fds[i].fd);
    }
    cr_assert_eq(fake.calls, 1);
}
