/* Names on helper threads: waiting for answers and closing queries; the threads that answer. */
#include "base/pool.h"
#include "resolving.h"
#include "support.h"

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

Test(resolve, a_wait_ends_at_its_deadline_and_can_be_repeated) { /* behaviours 4, 50 */
    shut_gate();
    int64_t query = ask_slow(0);
    cr_assert_eq(kind(lport_resolve_count(query)), LPORT_IN_PROGRESS);
    assert_times_out(lport_resolve_wait, query, 100 * MS, 600 * MS);
    cr_assert_eq(kind(lport_resolve_wait(query, 0)), LPORT_TIMED_OUT);
    open_gate(1);
    cr_assert_eq(lport_resolve_wait(query, LPORT_NEVER), 0);
    cr_assert_eq(lport_resolve_wait(query, 0), 0);
    cr_assert_eq(lport_resolve_count(query), 3);
    lport_resolve_close(query);
}

Test(resolve, a_closed_query_is_stale_for_every_function) {
    uint8_t block[LPORT_ADDRESS_SIZE];
    int64_t query = asked("many.test", 0);
    lport_resolve_close(query);
    int64_t next = asked("many.test", 0); /* in the same memory */
    int64_t wrong[] = {query, 0, -1, INT64_MAX, next + 1};
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(kind(lport_resolve_wait(wrong[i], LPORT_NEVER)), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_count(wrong[i])), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_address(wrong[i], 0, block)), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_name(wrong[i], 0, NULL, 0)), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_notify(wrong[i], -1)), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_close(wrong[i])), LPORT_INVALID);
    }
    cr_assert_eq(lport_resolve_count(next), 3);
    lport_resolve_close(next);
}

/* One that was never opened, and the one that its memory could be taken for next. */
Test(resolve, no_integer_names_a_query_that_is_not_open) {
    int64_t query = asked("many.test", 0);
    lport_resolve_close(query);
    for (int64_t wrong = 0; wrong < 64; wrong++) {
        cr_assert_eq(kind(lport_resolve_close(wrong)), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_close(query + (wrong << LPORT_POOL_INDEX_BITS))),
                     LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_count(wrong)), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_wait(wrong, LPORT_NEVER)), LPORT_INVALID);
    }
    cr_assert_eq(lport_resolve_pending(), 0);
    int64_t first = asked("many.test", 0), second = asked("many.test", 0);
    cr_assert_neq(first, second);
    cr_assert_eq(lport_resolve_close(first), 0);
    cr_assert_eq(lport_resolve_close(second), 0);
}

Test(resolve, an_abandoned_query_comes_back_once_its_thread_does) {
    shut_gate();
    for (int i = 0; i < 5; i++) {
        int64_t query = ask_slow(LPORT_ALIASES);
        sem_wait(&fake.entered);
        cr_assert_eq(lport_resolve_close(query), 0);
    }
    cr_assert_eq(lport_resolve_pending(), 5);
    open_gate(5);
    settle(lport_resolve_pending, 0);
    cr_assert_eq(fake.lists, 0);
}

/* Their memory comes from the list of free ones, which is not the queue. */
Test(resolve, one_query_after_several_is_one) {
    int64_t queries[3];
    for (int i = 0; i < 3; i++) {
        queries[i] = ask("many.test", 0);
    }
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(lport_resolve_wait(queries[i], LPORT_NEVER), 0);
        lport_resolve_close(queries[i]);
    }
    for (int i = 0; i < 20; i++) {
        lport_resolve_close(asked("many.test", 0));
    }
    settle(lport_resolve_pending, 0);
    for (int i = 0; i < 3; i++) {
        queries[i] = ask("many.test", 0);
        cr_assert(i == 0 || queries[i] != queries[i - 1]);
    }
    settle(lport_resolve_pending, 3);
    for (int i = 0; i < 3; i++) {
        lport_resolve_close(queries[i]);
    }
    settle(lport_resolve_pending, 0);
}

Test(resolve, more_look_ups_than_threads_queue_up) {
    enum { MOST = MOST_THREADS, COUNT = MOST + 8 };
    int64_t queries[COUNT];
    lport_resolver.idle_ns = 60 * S;
    shut_gate();
    for (int i = 0; i < COUNT; i++) {
        queries[i] = ask_slow(0);
    }
    for (int i = 0; i < MOST; i++) {
        sem_wait(&fake.entered);
    }
    cr_assert_eq(lport_resolve_threads(), MOST);
    cr_assert_eq(sem_trywait(&fake.entered), -1);
    lport_resolve_close(queries[COUNT - 1]); /* the last in the queue, the first, one between */
    lport_resolve_close(queries[MOST]);
    lport_resolve_close(queries[MOST + 3]);
    cr_assert_eq(lport_resolve_pending(), COUNT - 3);
    queries[COUNT - 1] = ask_slow(0);
    open_gate(COUNT - 2);
    for (int i = 0; i < COUNT; i++) {
        if (i != MOST && i != MOST + 3) {
            cr_assert_eq(lport_resolve_wait(queries[i], lport_clock_after(10 * S)), 0, "%d", i);
            cr_assert_eq(lport_resolve_count(queries[i]), 3);
            lport_resolve_close(queries[i]);
        }
    }
    settle(lport_resolve_pending, 0);
    cr_assert_eq(lport_resolve_threads(), MOST);
    for (int i = 0; i < MOST; i++) { /* all of them have work again, whatever was closed before */
        queries[i] = ask_slow(0);
    }
    for (int i = 0; i < MOST + 6; i++) { /* six entered that were queued then */
        sem_wait(&fake.entered);
    }
    open_gate(MOST);
    for (int i = 0; i < MOST; i++) {
        cr_assert_eq(lport_resolve_wait(queries[i], LPORT_NEVER), 0);
        lport_resolve_close(queries[i]);
    }
}

/* COUNT queries that are all being answered at once. */
static void answer_at_once(int count) {
    int64_t queries[32];
    shut_gate();
    for (int i = 0; i < count; i++) {
        queries[i] = ask_slow(0);
    }
    for (int i = 0; i < count; i++) {
        sem_wait(&fake.entered);
    }
    open_gate(count);
    for (int i = 0; i < count; i++) {
        cr_assert_eq(lport_resolve_wait(queries[i], LPORT_NEVER), 0);
        lport_resolve_close(queries[i]);
    }
}

/* A thread that is idle is one query's, however many are asked for before it wakes. */
Test(resolve, no_query_waits_for_the_answer_of_another_while_threads_may_be_made) {
    lport_resolver.idle_ns = 60 * S;
    for (int count = 1; count <= 32; count++) {
        answer_at_once(count);
        cr_assert_eq(lport_resolve_threads(), count);
    }
}

static int detached, not_detached;

static int noting_thread(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                         void *argument) {
    int state;
    pthread_attr_getdetachstate(attributes, &state);
    detached += state == PTHREAD_CREATE_DETACHED;
    not_detached += state != PTHREAD_CREATE_DETACHED;
    return pthread_create(thread, attributes, body, argument);
}

/* Nobody joins it: what it has would stay for ever. */
Test(resolve, a_thread_that_ends_leaves_nothing) {
    lport_resolver.thread_create = noting_thread;
    answer_at_once(3);
    cr_assert_eq(detached, 3);
    cr_assert_eq(not_detached, 0);
}

Test(resolve, a_thread_is_used_again_and_ends_when_idle) {
    lport_resolver.idle_ns = 10 * S;
    for (int i = 0; i < 100; i++) {
        lport_resolve_close(asked("many.test", 0));
    }
    /* An answer is given with the lock held until its thread is idle. */
    cr_assert_eq(lport_resolve_threads(), 1);
    lport_resolver.idle_ns = MS;
    answer_at_once(1); /* it waits for the longer time still: give it work */
    settle(lport_resolve_threads, 0);
}

Test(resolve, every_signal_is_blocked_on_the_thread_and_none_here) {
    static const int signals[] = {SIGINT, SIGSEGV, SIGUSR1, SIGUSR2, SIGALRM, SIGPROF, SIGCHLD};
    sigset_t before, after;
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    lport_resolve_close(asked("many.test", 0));
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        cr_assert_eq(sigismember(&fake.blocked, signals[i]), 1, "%d", signals[i]);
        cr_assert_eq(sigismember(&after, signals[i]), sigismember(&before, signals[i]));
    }
}

Test(resolve, an_answer_makes_an_eventfd_readable) {
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct pollfd fd = {.fd = event, .events = POLLIN};
    uint64_t count;
    shut_gate();
    int64_t query = ask_slow(0);
    cr_assert_eq(lport_resolve_notify(query, event), 0);
    cr_assert_eq(poll(&fd, 1, 0), 0);
    open_gate(1);
    cr_assert_eq(poll(&fd, 1, 10000), 1);
    cr_assert_eq(lport_resolve_count(query), 3);
    cr_assert_eq(read(event, &count, sizeof count), sizeof count);
    cr_assert_eq(lport_resolve_notify(query, event), 0, "answered before: at once");
    cr_assert_eq(poll(&fd, 1, 0), 1);
    lport_resolve_close(query);
    cr_assert_eq(read(event, &count, sizeof count), sizeof count);
    query = ask_slow(0);
    lport_resolve_notify(query, event);
    sem_wait(&fake.entered);
    lport_resolve_notify(query, -1);
    open_gate(1);
    cr_assert_eq(lport_resolve_wait(query, LPORT_NEVER), 0);
    cr_assert_eq(poll(&fd, 1, 0), 0, "taken back");
    lport_resolve_close(query);
    close(event);
}

static void *wait_on(void *query) {
    static int64_t result;
    result = lport_resolve_wait(*(int64_t *)query, LPORT_NEVER);
    return &result;
}

Test(resolve, a_close_ends_a_wait_of_another_thread) {
    pthread_t thread;
    void *result;
    shut_gate();
    int64_t query = ask_slow(0);
    sem_wait(&fake.entered);
    pthread_create(&thread, NULL, wait_on, &query);
    lport_resolve_close(query); /* before, in or after the wait: it ends each time */
    pthread_join(thread, &result);
    cr_assert_eq(kind(*(int64_t *)result), LPORT_INVALID);
    open_gate(1);
    settle(lport_resolve_pending, 0);
}

static int64_t wait_for_ever(void *query) {
    return lport_resolve_wait(*(int64_t *)query, LPORT_NEVER);
}

Test(resolve, a_close_wakes_a_wait_that_sleeps) {
    struct task task;
    shut_gate();
    int64_t query = ask_slow(0);
    sem_wait(&fake.entered);
    task_start(&task, wait_for_ever, &query);
    task_until_asleep(&task, 0);
    lport_resolve_close(query);
    cr_assert_eq(kind(task_join(&task)), LPORT_INVALID);
    open_gate(1);
    settle(lport_resolve_pending, 0);
}

Test(resolve, a_wait_can_be_abandoned_at_any_moment) { /* behaviour 26 */
    shut_gate();
    int64_t query = ask_slow(0);
    sem_wait(&fake.entered);
    unwind_waits(lport_resolve_wait, query);
    open_gate(1);
    cr_assert_eq(lport_resolve_wait(query, lport_clock_after(10 * S)), 0);
    cr_assert_eq(lport_resolve_count(query), 3);
    lport_resolve_close(query);
    cr_assert_eq(lport_resolve_pending(), 0);
}
