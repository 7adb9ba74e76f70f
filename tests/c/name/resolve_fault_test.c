/* Names on helper threads: forks, and what there is none of: threads, memory. */
#include "resolving.h"
#include "support.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* In a child: the COUNT QUERIES of the parent have failed, and new ones are answered. 0 if so. */
static int child_of_fork(const int64_t *queries, int count) {
    fake.gated = false;
    for (int i = 0; i < count; i++) {
        if (lport_resolve_wait(queries[i], LPORT_NEVER) != 0 ||
            kind(lport_resolve_count(queries[i])) != LPORT_RESOLVER_TRY_AGAIN ||
            lport_resolve_close(queries[i]) != 0) {
            return 1;
        }
    }
    if (lport_resolve_pending() != 0) {
        return 4;
    }
    int64_t query = lport_resolve_open("many.test", 9, LPORT_ANY, LPORT_ALIASES);
    if (lport_resolve_wait(query, lport_clock_after(10 * S)) != 0) {
        return 2;
    }
    return lport_resolve_count(query) == 3 ? 0 : 3;
}

Test(resolve, a_child_of_fork_can_resolve) {
    int status;
    shut_gate();
    int64_t first[3];
    for (int i = 0; i < 3; i++) { /* three threads, one of them idle when we fork */
        first[i] = ask_slow(0);
    }
    for (int i = 0; i < 3; i++) {
        sem_wait(&fake.entered);
    }
    open_gate(3);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(lport_resolve_wait(first[i], LPORT_NEVER), 0);
        lport_resolve_close(first[i]);
    }
    int64_t abandoned = ask_slow(0);
    int64_t queries[2] = {ask("same.test", 0), ask("same.test", 0)};
    sem_wait(&fake.entered);
    sem_wait(&fake.entered);
    lport_resolve_close(abandoned);
    pid_t child = fork();
    if (child == 0) {
        _exit(child_of_fork(queries, 2));
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 0);
    open_gate(2);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(lport_resolve_wait(queries[i], LPORT_NEVER), 0);
        cr_assert_eq(lport_resolve_count(queries[i]), 3, "the parent's own is not touched");
        lport_resolve_close(queries[i]);
    }
    settle(lport_resolve_pending, 0);
}

/* Returns which query was not answered, 0 if all were. */
static int ask_again_and_again(void *unused) {
    (void)unused;
    for (int i = 1; i <= 10; i++) {
        int64_t query = lport_resolve_open("many.test", 9, LPORT_ANY, 0);
        if (lport_resolve_wait(query, lport_clock_after(10 * S)) != 0) {
            return i;
        }
        lport_resolve_close(query);
    }
    return 0;
}

/* What the child's threads wait on has no memory of the threads that waited there at the fork: one
 * of those would be woken instead. The answer of a query is given with the lock held until its
 * thread is idle. */
Test(resolve, a_child_of_fork_wakes_its_own_threads) {
    lport_resolver.idle_ns = 60 * S;
    shut_gate();
    int64_t queries[3];
    for (int i = 0; i < 3; i++) {
        queries[i] = ask_slow(0);
        sem_wait(&fake.entered);
    }
    open_gate(3);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(lport_resolve_wait(queries[i], LPORT_NEVER), 0);
        lport_resolve_close(queries[i]);
    }
    fake.gated = false;
    cr_assert_eq(in_child(ask_again_and_again, NULL), 0);
}

/* As ask_again_and_again, and nothing else is asked: the parent's QUERY has failed. */
static int ask_nothing_else(void *query) {
    int before = atomic_load(&fake.calls);
    int which = ask_again_and_again(NULL);
    bool failed = kind(lport_resolve_count(*(int64_t *)query)) == LPORT_RESOLVER_TRY_AGAIN;
    return which != 0 ? which : failed && atomic_load(&fake.calls) == before + 10 ? 0 : 11;
}

/* What the parent's queue held is not the child's to wait behind, nor to answer. */
Test(resolve, a_child_of_fork_has_a_queue_of_its_own) {
    enum { COUNT = MOST_THREADS + 2 };
    int64_t queries[COUNT];
    shut_gate();
    for (int i = 0; i < COUNT; i++) {
        queries[i] = ask_slow(0);
    }
    for (int i = 0; i < MOST_THREADS; i++) {
        sem_wait(&fake.entered);
    }
    fake.gated = false;
    cr_assert_eq(in_child(ask_nothing_else, &queries[COUNT - 1]), 0);
    open_gate(MOST_THREADS);
    for (int i = 0; i < COUNT; i++) {
        cr_assert_eq(lport_resolve_wait(queries[i], LPORT_NEVER), 0);
        lport_resolve_close(queries[i]);
    }
}

static int count_pending(void *unused) {
    (void)unused;
    return (int)lport_resolve_pending();
}

Test(resolve, a_child_of_fork_gets_back_no_query_that_was_given_back) {
    shut_gate();
    int64_t query = ask_slow(0);
    sem_wait(&fake.entered);
    cr_assert_eq(lport_resolve_close(query), 0);
    open_gate(1);
    settle(lport_resolve_pending, 0);
    cr_assert_eq(in_child(count_pending, NULL), 0);
}

static int do_nothing(void *unused) {
    (void)unused;
    return 0;
}

/* Whoever polls the event would find it readable, and no answer, for as long as there is none. */
Test(resolve, a_child_of_fork_does_not_tell_its_parent_of_an_answer) {
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct pollfd fd = {.fd = event, .events = POLLIN};
    shut_gate();
    int64_t query = ask_slow(0);
    cr_assert_eq(lport_resolve_notify(query, event), 0);
    cr_assert_eq(in_child(do_nothing, NULL), 0);
    cr_assert_eq(poll(&fd, 1, 0), 0);
    open_gate(1);
    cr_assert_eq(poll(&fd, 1, 10000), 1);
    lport_resolve_close(query);
    close(event);
}

static int no_thread(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                     void *argument) {
    (void)thread, (void)attributes, (void)body, (void)argument;
    return EAGAIN;
}

static size_t stack_size;

static int noting_stack(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                        void *argument) {
    pthread_attr_getstacksize(attributes, &stack_size);
    return pthread_create(thread, attributes, body, argument);
}

/* Thread-local variables are on the stack, those of the program as well, and so is what the modules
 * of the system's resolver need. */
Test(resolve, a_thread_has_the_stack_that_every_thread_has) {
    pthread_attr_t usual;
    size_t usual_size = 0;
    cr_assert_eq(pthread_getattr_default_np(&usual), 0);
    cr_assert_eq(pthread_attr_getstacksize(&usual, &usual_size), 0);
    pthread_attr_destroy(&usual);
    lport_resolver.thread_create = noting_stack;
    lport_resolve_close(asked("many.test", 0));
    lport_resolver.thread_create = pthread_create;
    cr_assert_eq(stack_size, usual_size);
}

Test(resolve, without_a_thread_nothing_is_left_behind) {
    lport_resolver.thread_create = no_thread;
    cr_assert_eq(kind(lport_resolve_open("many.test", 9, LPORT_ANY, 0)), LPORT_THREADS_EXHAUSTED);
    cr_assert_eq(lport_resolve_pending(), 0);
    lport_resolver.thread_create = pthread_create;
    shut_gate();
    int64_t first = ask_slow(0);
    sem_wait(&fake.entered);
    lport_resolver.thread_create = no_thread;
    int64_t second = ask_slow(0); /* the one thread will come to it */
    open_gate(2);
    cr_assert_eq(lport_resolve_wait(second, lport_clock_after(10 * S)), 0);
    lport_resolve_close(first);
    lport_resolve_close(second);
    cr_assert_eq(lport_resolve_pending(), 0);
    lport_resolver.thread_create = pthread_create;
    fake.gated = false;
    lport_resolve_close(asked("many.test", 0));
    cr_assert_eq(lport_resolve_threads(), 1, "what failed is not in the queue");
}

/* From here on N allocations go well, and no more. */
static void allow_allocations(int n) {
    faults_clear();
    faults_fail(CALL_CALLOC, n + 1, INT32_MAX, ENOMEM);
}

Test(resolve, every_allocation_may_fail) { /* behaviour 64 */
    int whole = 0;
    for (int n = 0; n < 20; n++) {
        allow_allocations(n);
        int64_t query = lport_resolve_open("many.test", 9, LPORT_ANY, LPORT_ALIASES);
        if (query < 0) {
            cr_assert_eq(kind(query), LPORT_MEMORY_EXHAUSTED);
            continue;
        }
        cr_assert_eq(lport_resolve_wait(query, lport_clock_after(10 * S)), 0);
        int64_t count = lport_resolve_count(query);
        cr_assert(count == 3 || kind(count) == LPORT_MEMORY_EXHAUSTED, "%d", n);
        whole += count == 3;
        lport_resolve_close(query);
        cr_assert_eq(fake.lists, 0);
        cr_assert_eq(lport_resolve_pending(), 0);
    }
    cr_assert(whole > 0 && whole < 20);
}

Test(resolve, every_allocation_for_the_names_of_an_address_may_fail) { /* behaviour 64 */
    uint8_t address[LPORT_ADDRESS_SIZE];
    int whole = 0, n = 0;
    cr_assert_eq(lport_address_parse("127.0.0.2", 9, 0, address), LPORT_INET);
    for (; n < 20; n++) {
        allow_allocations(n);
        int64_t query = lport_resolve_reverse(address);
        if (query < 0) {
            cr_assert_eq(kind(query), LPORT_MEMORY_EXHAUSTED);
            continue;
        }
        cr_assert_eq(lport_resolve_wait(query, lport_clock_after(10 * S)), 0);
        int64_t count = lport_resolve_count(query);
        cr_assert(count == 1 || kind(count) == LPORT_MEMORY_EXHAUSTED, "%d", n);
        whole += count == 1;
        lport_resolve_close(query);
    }
    cr_assert(whole > 0 && whole < n);
}
