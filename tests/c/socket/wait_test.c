/* wait: begin, poll, end; what wakes a wait, and what it may be abandoned to. */
#include "address/address.h"
#include "base/os.h"
#include "socket/handle.h"
#include "socket/socket.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

#ifdef __has_feature
#define ADDRESS_SANITIZER __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZER 1
#else
#define ADDRESS_SANITIZER 0
#endif

TestSuite(wait, .timeout = 20);

#define MS INT64_C(1000000)

/* ---- close wakes ----------------------------------------------------------------------------- */

static int64_t receiving(void *data) {
    uint8_t octets[16];
    return receive_some(*(int64_t *)data, octets, sizeof octets, LPORT_NEVER);
}

static int64_t sending(void *data) {
    static uint8_t octets[65536];
    int64_t count;
    do {
        count = send_some(*(int64_t *)data, octets, sizeof octets, LPORT_NEVER);
    } while (count > 0);
    return count;
}

static int64_t accepting(void *data) {
    return accept_one(*(int64_t *)data, LPORT_NEVER);
}

static int64_t connecting(void *data) {
    return wait_for(*(int64_t *)data, LPORT_OUTPUT, LPORT_NEVER);
}

/* Closes SOCKET under a thread that is blocked in RUN, which nothing else would end; until all of
 * it is gone. */
static void assert_close_wakes(int64_t socket, int64_t (*run)(void *data)) {
    struct task task;
    int fd = (int)lport_socket_descriptor(socket);
    task_start(&task, run, &socket);
    task_until_asleep(&task, 1);
    int64_t before = lport_clock_now();
    cr_assert_geq(lport_socket_close(socket, 0), 0);
    assert_kind(task_join(&task), LPORT_CLOSED);
    cr_assert_lt(lport_clock_now() - before, 1000 * MS);
    cr_assert_eq(lport_socket_gone(socket, soon()), 0);
    cr_assert_eq(fcntl(fd, F_GETFD), -1);
}

static const int32_t families[] = {LPORT_INET, LPORT_LOCAL, LPORT_INET6};

/* Behaviour 13: closed, not an end of file. */
SOCKET_TEST(wait, close_wakes_a_blocked_read) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_connection(families[i], ends);
        assert_close_wakes(ends[0], receiving);
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    }
}

/* Behaviour 14. */
SOCKET_TEST(wait, close_wakes_a_write_on_a_clogged_connection) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_connection(families[i], ends);
        assert_kind(clog_up(ends[0]), LPORT_WOULD_BLOCK);
        assert_close_wakes(ends[0], sending);
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    }
}

/* Behaviours 15 and 54: then connects are refused, and the same address can be listened on at once,
 * with a connection of the old listener still open. */
SOCKET_TEST(wait, close_wakes_an_accept_and_frees_the_address_at_once) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        uint8_t address[LPORT_ADDRESS_SIZE];
        int64_t listener = listen_on_loopback(families[i], address);
        int64_t client = connect_to(address);
        int64_t server = accept_one(listener, soon());
        cr_assert(client > 0 && server > 0);
        assert_close_wakes(listener, accepting);
        assert_kind(connect_to(address), LPORT_CONNECTION_REFUSED);
        int64_t again = families[i] == LPORT_LOCAL
                            ? lport_local_listen(address, LPORT_STREAM, -1, -1, 0, NULL, 0)
                            : lport_socket_listen(address, -1, LPORT_REUSE_ADDRESS, NULL, 0);
        cr_assert_gt(again, 0, "cannot listen again: %lld", (long long)again);
        int64_t next = connect_to(address);
        cr_assert_gt(next, 0);
        cr_assert_eq(lport_socket_close(next, 0), 0);
        cr_assert_eq(lport_socket_close(again, 0), 0);
        cr_assert_eq(lport_socket_close(client, 0), 0);
        cr_assert_eq(lport_socket_close(server, 0), 0);
    }
}

/* Behaviour 16. */
SOCKET_TEST(wait, close_wakes_a_datagram_receive) {
    int64_t ends[2];
    make_datagram_ends(ends);
    assert_close_wakes(ends[0], receiving);
    assert_close_wakes(ends[1], receiving);
    cr_assert_eq(lport_socket_pair(LPORT_DATAGRAM, ends), 0);
    assert_close_wakes(ends[0], receiving);
    assert_close_wakes(ends[1], receiving);
}

/* Behaviour 17. A full queue of length 0 is a black hole: the connect gets no answer. */
SOCKET_TEST(wait, close_wakes_a_connect_in_progress) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    loopback(LPORT_INET, 0, address);
    int64_t listener = lport_socket_listen(address, 0, 0, NULL, 0);
    cr_assert_eq(lport_socket_name(listener, address), LPORT_INET);
    int64_t first = connect_to(address);
    cr_assert_eq(wait_for(listener, LPORT_INPUT, soon()), LPORT_INPUT, "the queue is not full yet");
    int64_t second = lport_socket_open(LPORT_INET, LPORT_STREAM, 0);
    assert_kind(lport_socket_connect_start(second, address), LPORT_IN_PROGRESS);
    assert_kind(lport_socket_connect_finish(second), LPORT_IN_PROGRESS);
    assert_close_wakes(second, connecting);
    cr_assert_eq(lport_socket_close(first, 0), 0);
    cr_assert_eq(lport_socket_close(listener, 0), 0);
}

/* Behaviour 13, for many on one socket. */
SOCKET_TEST(wait, close_wakes_every_wait_on_the_socket) {
    enum { WAITS = 600 }; /* more than one piece of the pool */
    static int64_t waits[WAITS];
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    for (int i = 0; i < WAITS; i++) {
        waits[i] = lport_wait_begin(ends[0], i % 2 == 0 ? LPORT_INPUT : 0);
        cr_assert_gt(waits[i], 0);
    }
    cr_assert_eq(lport_wait_count(), WAITS);
    cr_assert_eq(lport_socket_close(ends[0], 0), 1);
    for (int i = 0; i < WAITS; i++) {
        assert_kind(lport_wait_poll(waits[i], LPORT_NEVER, 0), LPORT_CLOSED);
        assert_kind(lport_socket_gone(ends[0], 0), LPORT_TIMED_OUT);
        cr_assert_eq(lport_wait_end(waits[i]), 0);
    }
    cr_assert_eq(lport_socket_gone(ends[0], 0), 0);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
}

/* ---- what a wait says ------------------------------------------------------------------------ */

SOCKET_TEST(wait, poll_says_which_directions_are_ready) {
    int64_t ends[2];
    uint8_t octet = 1;
    int32_t both = LPORT_INPUT | LPORT_OUTPUT;
    make_connection(LPORT_INET, ends);
    assert_kind(wait_for(ends[0], LPORT_INPUT, 0), LPORT_TIMED_OUT);
    cr_assert_eq(wait_for(ends[0], LPORT_OUTPUT, 0), LPORT_OUTPUT);
    cr_assert_eq(wait_for(ends[0], both, 0), LPORT_OUTPUT);
    cr_assert_eq(undisturbed(lport_socket_send(ends[1], &octet, 1)), 1);
    cr_assert_eq(wait_for(ends[0], LPORT_INPUT, soon()), LPORT_INPUT);
    cr_assert_eq(wait_for(ends[0], both, soon()), both);
    assert_kind(clog_up(ends[0]), LPORT_WOULD_BLOCK);
    assert_kind(wait_for(ends[0], LPORT_OUTPUT, 0), LPORT_TIMED_OUT);
    cr_assert_eq(wait_for(ends[0], both, 0), LPORT_INPUT);
    close_both(ends);
}

SOCKET_TEST(wait, poll_tells_of_a_reset_in_every_direction_that_was_asked_for) {
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    assert_kind(clog_up(ends[0]), LPORT_WOULD_BLOCK);
    cr_assert_eq(lport_socket_close(ends[1], LPORT_RESET), 0);
    int64_t ready = wait_for(ends[0], LPORT_OUTPUT, soon());
    cr_assert_eq(ready, LPORT_OUTPUT | LPORT_HANGUP, "%lld", (long long)ready);
    ready = wait_for(ends[0], LPORT_INPUT, soon());
    cr_assert_eq(ready, LPORT_INPUT | LPORT_HANGUP, "%lld", (long long)ready);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
}

/* The system calls such a socket neither readable nor, for who asks for input, anything but failed.
 */
SOCKET_TEST(wait, poll_tells_of_an_error_in_the_direction_that_was_asked_for) {
    int64_t ends[2];
    uint8_t octet = 1;
    make_datagram_ends(ends);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    cr_assert_eq(undisturbed(lport_socket_send(ends[0], &octet, 1)), 1);
    int64_t ready = wait_for(ends[0], LPORT_INPUT, soon());
    cr_assert_eq(ready, LPORT_INPUT | LPORT_HANGUP, "%lld", (long long)ready);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
}

SOCKET_TEST(wait, interests_outside_the_two_directions_are_refused) {
    int64_t ends[2];
    make_connection(LPORT_LOCAL, ends);
    static const int32_t wrong[] = {LPORT_HANGUP, LPORT_INPUT | LPORT_HANGUP, 8, -1, INT32_MIN};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_kind(lport_wait_begin(ends[0], wrong[i]), LPORT_INVALID);
    }
    close_both(ends);
}

static int64_t receive_octet(int64_t socket, int64_t deadline) {
    uint8_t octet;
    return receive_some(socket, &octet, 1, deadline);
}

/* Behaviour 4. */
SOCKET_TEST(wait, a_deadline_is_neither_early_nor_late) {
    int64_t ends[2];
    uint8_t octet = 5;
    make_connection(LPORT_INET, ends);
    assert_times_out(receive_octet, ends[0], 100 * MS, 1000 * MS);
    cr_assert_eq(undisturbed(lport_socket_send(ends[1], &octet, 1)), 1);
    cr_assert_eq(receive_some(ends[0], &octet, 1, soon()), 1);
    close_both(ends);
}

/* The manual: a deadline that has passed looks once. */
SOCKET_TEST(wait, a_deadline_in_the_past_still_looks) {
    static const int64_t past[] = {0, 1, -1, INT64_MIN};
    int64_t ends[2];
    uint8_t octet = 5;
    make_connection(LPORT_INET, ends);
    for (size_t i = 0; i < sizeof past / sizeof *past; i++) {
        assert_kind(wait_for(ends[0], LPORT_INPUT, past[i]), LPORT_TIMED_OUT);
        cr_assert_eq(wait_for(ends[0], LPORT_OUTPUT, past[i]), LPORT_OUTPUT);
    }
    cr_assert_eq(undisturbed(lport_socket_send(ends[1], &octet, 1)), 1);
    cr_assert_eq(wait_for(ends[0], LPORT_INPUT, soon()), LPORT_INPUT);
    cr_assert_eq(wait_for(ends[0], LPORT_INPUT, 0), LPORT_INPUT);
    close_both(ends);
}

/* ---- wake ------------------------------------------------------------------------------------ */

SOCKET_TEST(wait, wake_reaches_the_waits_of_its_interest_and_those_for_nothing) {
    static const int32_t interests[] = {0, LPORT_INPUT, LPORT_OUTPUT, LPORT_INPUT | LPORT_OUTPUT};
    static const struct {
        int32_t wake;
        int woken[4];
    } cases[] = {
        {0, {1, 0, 0, 0}},
        {LPORT_INPUT, {1, 1, 0, 1}},
        {LPORT_OUTPUT, {1, 0, 1, 1}},
        {LPORT_INPUT | LPORT_OUTPUT, {1, 1, 1, 1}},
    };
    int64_t ends[2], waits[4];
    make_connection(LPORT_INET, ends);
    assert_kind(clog_up(ends[0]), LPORT_WOULD_BLOCK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int count = 0;
        for (int j = 0; j < 4; j++) {
            waits[j] = lport_wait_begin(ends[0], interests[j]);
            count += cases[i].woken[j];
        }
        cr_assert_eq(lport_wait_wake(ends[0], cases[i].wake), count);
        for (int j = 0; j < 4; j++) {
            int64_t ready = lport_wait_poll(waits[j], 0, 0);
            assert_kind(ready, cases[i].woken[j] ? 0 : LPORT_TIMED_OUT);
            cr_assert(ready <= 0);
            cr_assert_eq(lport_wait_end(waits[j]), 0);
        }
        cr_assert_eq(lport_wait_wake(ends[0], LPORT_INPUT | LPORT_OUTPUT), 0);
    }
    close_both(ends);
}

static int64_t waiting_for_nothing(void *data) {
    return wait_for(*(int64_t *)data, 0, soon());
}

SOCKET_TEST(wait, wake_reaches_a_thread_that_sleeps) {
    int64_t ends[2];
    struct task tasks[2];
    make_connection(LPORT_INET, ends);
    for (int i = 0; i < 2; i++) {
        task_start(&tasks[i], waiting_for_nothing, &ends[0]);
    }
    for (int i = 0; i < 2; i++) {
        task_until_asleep(&tasks[i], 2);
    }
    cr_assert_eq(lport_wait_wake(ends[1], LPORT_INPUT | LPORT_OUTPUT), 0);
    cr_assert_eq(lport_wait_wake(ends[0], LPORT_INPUT), 2);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(task_join(&tasks[i]), 0);
    }
    close_both(ends);
}

SOCKET_TEST(wait, a_wait_for_nothing_does_not_see_the_socket) {
    int64_t ends[2];
    uint8_t octet = 1;
    make_connection(LPORT_INET, ends);
    int64_t wait = lport_wait_begin(ends[0], 0);
    cr_assert_eq(undisturbed(lport_socket_send(ends[1], &octet, 1)), 1);
    cr_assert_eq(lport_socket_close(ends[1], LPORT_RESET), 0);
    assert_kind(lport_wait_poll(wait, lport_clock_after(5 * MS), 0), LPORT_TIMED_OUT);
    cr_assert_eq(lport_wait_end(wait), 0);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
}

SOCKET_TEST(wait, what_wakes_a_wait_is_not_left_to_the_next_one) {
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    for (int i = 0; i < 100; i++) {
        int64_t wait = lport_wait_begin(ends[0], LPORT_INPUT);
        cr_assert_eq(lport_wait_wake(ends[0], LPORT_INPUT), 1);
        cr_assert_eq(lport_wait_wake(ends[0], LPORT_INPUT), 1);
        if (i % 2 == 0) {
            cr_assert_eq(lport_wait_poll(wait, LPORT_NEVER, 0), 0);
            cr_assert_eq(lport_wait_poll(wait, 0, 0), 0);
        }
        cr_assert_eq(lport_wait_end(wait), 0);
        assert_kind(wait_for(ends[0], LPORT_INPUT, 0), LPORT_TIMED_OUT);
    }
    close_both(ends);
}

SOCKET_TEST(wait, waits_may_end_in_any_order) {
    enum { WAITS = 30 };
    int64_t ends[2], waits[WAITS];
    make_connection(LPORT_INET, ends);
    for (int i = 0; i < WAITS; i++) {
        waits[i] = lport_wait_begin(ends[0], LPORT_INPUT);
    }
    for (int i = 0; i < WAITS; i++) {
        cr_assert_eq(lport_wait_count(), WAITS - i);
        cr_assert_eq(lport_wait_end(waits[i * 11 % WAITS]), 0); /* 11 does not divide 30 */
        cr_assert_eq(lport_wait_wake(ends[0], LPORT_INPUT), WAITS - i - 1);
    }
    close_both(ends);
}

SOCKET_TEST(wait, numbers_that_are_no_waits_are_refused) {
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    int64_t wait = lport_wait_begin(ends[0], LPORT_INPUT);
    const int64_t generation = 1 << LPORT_POOL_INDEX_BITS;
    const int64_t numbers[] = {0,         -1,        1,    wait + 1, wait + 1000, wait + generation,
                               INT64_MAX, INT64_MIN, -wait};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        assert_kind(lport_wait_poll(numbers[i], LPORT_NEVER, 0), LPORT_INVALID);
        assert_kind(lport_wait_end(numbers[i]), LPORT_INVALID);
    }
    cr_assert_eq(lport_wait_end(wait), 0);
    for (int i = 0; i < 3; i++) {
        assert_kind(lport_wait_end(wait), LPORT_INVALID);
        assert_kind(lport_wait_poll(wait, LPORT_NEVER, 0), LPORT_INVALID);
    }
    cr_assert_eq(lport_wait_count(), 0);
    close_both(ends);
}

/* ---- signals --------------------------------------------------------------------------------- */

static _Atomic int signals_seen;

static void see_signal(int number) {
    (void)number;
    atomic_fetch_add(&signals_seen, 1);
}

static void catch_signals(void) {
    struct sigaction action = {.sa_handler = see_signal, .sa_flags = SA_RESTART};
    cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
}

static struct {
    pthread_t target;
    atomic_bool stop;
} storm;

static int64_t storming(void *data) {
    (void)data;
    while (!atomic_load(&storm.stop)) {
        pthread_kill(storm.target, SIGUSR1);
        lport_os_poll(NULL, 0, lport_clock_after(200000));
    }
    return 0;
}

/* Behaviour 12: some thousands of signals a second move no deadline and surface nowhere. */
SOCKET_TEST(wait, signals_are_waited_out) {
    int64_t ends[2];
    struct task task;
    make_connection(LPORT_INET, ends);
    catch_signals();
    storm.target = pthread_self();
    task_start(&task, storming, NULL);
    int64_t limit = soon();
    do {
        assert_times_out(receive_octet, ends[0], 100 * MS, 1000 * MS);
        cr_assert_lt(lport_clock_now(), limit, "no signals come");
    } while (atomic_load(&signals_seen) <= 20);
    atomic_store(&storm.stop, true);
    task_join(&task);
    close_both(ends);
}

SOCKET_TEST(wait, a_signal_ends_a_wait_that_asks_for_it) {
    faults_watch(); /* nothing but the signal is to interrupt it */
    int64_t ends[2];
    struct task task;
    make_connection(LPORT_INET, ends);
    catch_signals();
    storm.target = pthread_self();
    task_start(&task, storming, NULL);
    int64_t wait = lport_wait_begin(ends[0], LPORT_INPUT);
    int64_t ready = lport_wait_poll(wait, LPORT_NEVER, 1);
    atomic_store(&storm.stop, true);
    task_join(&task);
    assert_kind(ready, LPORT_INTERRUPTED);
    assert_kind(lport_wait_poll(wait, 0, 1), LPORT_TIMED_OUT);
    cr_assert_eq(lport_wait_end(wait), 0);
    close_both(ends);
}

/* ---- abandoned ------------------------------------------------------------------------------- */

static int64_t abandoned_wait;

/* The address sanitizer does not follow a thread that is cancelled at any instruction: it takes the
 * frames that vanished for live ones. */
#define SKIP_UNDER_ADDRESS_SANITIZER()                                                             \
    do {                                                                                           \
        if (ADDRESS_SANITIZER) {                                                                   \
            cr_skip_test("asynchronous cancellation confuses the sanitizer itself");               \
        }                                                                                          \
    } while (0)

static int64_t waiting_to_be_cancelled(void *data) {
    int64_t result;
    (void)data;
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    result = lport_wait_poll(abandoned_wait, LPORT_NEVER, 0);
    pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, NULL);
    return result;
}

/* Design: a [waits] function may be abandoned at any instruction. What was begun can be ended by
 * anybody, and nothing is left. */
SOCKET_TEST(wait, a_thread_that_is_killed_in_a_poll_leaves_nothing) {
    SKIP_UNDER_ADDRESS_SANITIZER();
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    for (int i = 0; i < 300; i++) {
        struct task task;
        abandoned_wait = lport_wait_begin(ends[0], i % 3 == 0 ? 0 : LPORT_INPUT);
        cr_assert_gt(abandoned_wait, 0);
        task_start(&task, waiting_to_be_cancelled, NULL);
        if (i % 2 == 0) {
            task_until_asleep(&task, 1);
        }
        if (i % 5 == 0) { /* just waking up */
            cr_assert_eq(lport_wait_wake(ends[0], LPORT_INPUT), 1);
        }
        pthread_cancel(task.thread);
        task_join(&task);
        cr_assert_eq(lport_wait_end(abandoned_wait), 0);
        cr_assert_eq(lport_wait_count(), 0);
        assert_kind(wait_for(ends[0], LPORT_INPUT, 0), LPORT_TIMED_OUT);
    }
    close_both(ends);
}

/* The same for a socket that is closed meanwhile: it goes when the wait is ended. */
SOCKET_TEST(wait, a_socket_closed_under_a_killed_thread_goes_with_its_wait) {
    SKIP_UNDER_ADDRESS_SANITIZER();
    int64_t ends[2];
    struct task task;
    make_connection(LPORT_INET, ends);
    abandoned_wait = lport_wait_begin(ends[0], LPORT_INPUT);
    task_start(&task, waiting_to_be_cancelled, NULL);
    task_until_asleep(&task, 1);
    pthread_cancel(task.thread);
    task_join(&task);
    cr_assert_eq(lport_socket_close(ends[0], 0), 1);
    assert_kind(lport_socket_gone(ends[0], 0), LPORT_TIMED_OUT);
    assert_kind(lport_wait_poll(abandoned_wait, LPORT_NEVER, 0), LPORT_CLOSED);
    cr_assert_eq(lport_wait_end(abandoned_wait), 0);
    cr_assert_eq(lport_socket_gone(ends[0], 0), 0);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
}

static int64_t gone_to_be_cancelled(void *data) {
    int64_t result;
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    result = lport_socket_gone(*(int64_t *)data, LPORT_NEVER);
    pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, NULL);
    return result;
}

SOCKET_TEST(wait, a_thread_that_is_killed_while_it_waits_for_a_close_leaves_nothing) {
    int64_t ends[2];
    struct task task;
    make_connection(LPORT_INET, ends);
    int64_t wait = lport_wait_begin(ends[0], LPORT_INPUT);
    cr_assert_eq(lport_socket_close(ends[0], 0), 1);
    task_start(&task, gone_to_be_cancelled, &ends[0]);
    task_until_asleep(&task, 1);
    pthread_cancel(task.thread);
    task_join(&task);
    cr_assert_eq(lport_wait_end(wait), 0);
    cr_assert_eq(lport_socket_gone(ends[0], soon()), 0);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
}

/* ---- two at once ----------------------------------------------------------------------------- */

struct two {
    int64_t sockets[2];
    int32_t interests[2];
    int64_t deadline;
};

/* What lport_wait_poll2 says of new waits on both; or the status of one that did not begin. */
static int64_t wait_for_two(void *data) {
    const struct two *two = data;
    int64_t first = lport_wait_begin(two->sockets[0], two->interests[0]);
    if (first < 0) {
        return first;
    }
    int64_t second = lport_wait_begin(two->sockets[1], two->interests[1]);
    int64_t result = second;
    if (second > 0) {
        result = lport_wait_poll2(first, second, two->deadline, 0);
        lport_wait_end(second);
    }
    lport_wait_end(first);
    return result;
}

static void make_two(int64_t ends[2], int64_t others[2], struct two *two) {
    make_connection(LPORT_INET, ends);
    make_connection(LPORT_INET, others);
    *two = (struct two){{ends[0], others[0]}, {LPORT_INPUT, LPORT_INPUT}, soon()};
}

SOCKET_TEST(wait, of_two_it_is_told_which_is_ready) {
    int64_t ends[2], others[2];
    struct two two;
    make_two(ends, others, &two);
    two.interests[1] = LPORT_INPUT | LPORT_OUTPUT;
    cr_assert_eq(wait_for_two(&two), LPORT_OUTPUT * LPORT_SECOND_WAIT);
    cr_assert_eq(undisturbed(lport_socket_send(ends[1], (const uint8_t *)"x", 1)), 1);
    cr_assert_eq(wait_for(ends[0], LPORT_INPUT, soon()), LPORT_INPUT);
    cr_assert_eq(wait_for_two(&two), LPORT_INPUT + LPORT_OUTPUT * LPORT_SECOND_WAIT);
    two.interests[1] = LPORT_INPUT;
    cr_assert_eq(wait_for_two(&two), LPORT_INPUT);
    two.interests[0] = 0;
    two.deadline = lport_clock_after(5 * MS);
    assert_kind(wait_for_two(&two), LPORT_TIMED_OUT);
    cr_assert_eq(lport_socket_close(others[1], LPORT_RESET), 0);
    two.deadline = soon();
    cr_assert_eq(wait_for_two(&two), (LPORT_INPUT | LPORT_HANGUP) * LPORT_SECOND_WAIT);
    two.interests[1] = 0; /* and so it is not seen */
    two.deadline = lport_clock_after(5 * MS);
    assert_kind(wait_for_two(&two), LPORT_TIMED_OUT);
    cr_assert_eq(lport_socket_close(others[0], 0), 0);
    close_both(ends);
}

SOCKET_TEST(wait, of_two_each_can_be_woken_and_closed) {
    for (int which = 0; which < 2; which++) {
        int64_t ends[2], others[2];
        struct two two;
        struct task task;
        make_two(ends, others, &two);
        task_start(&task, wait_for_two, &two);
        task_until_asleep(&task, 2);
        cr_assert_eq(lport_wait_wake(two.sockets[which], LPORT_INPUT), 1);
        cr_assert_eq(task_join(&task), 0);
        task_start(&task, wait_for_two, &two);
        task_until_asleep(&task, 2);
        cr_assert_geq(lport_socket_close(two.sockets[which], 0), 0);
        assert_kind(task_join(&task), LPORT_CLOSED);
        assert_kind(wait_for_two(&two), LPORT_CLOSED);
        cr_assert_eq(lport_wait_count(), 0);
        cr_assert_eq(lport_socket_close(two.sockets[1 - which], 0), 0);
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
        cr_assert_eq(lport_socket_close(others[1], 0), 0);
    }
}

/* Behaviour 57. A wait that is held takes the eventfd that is in the pool. */
SOCKET_TEST(wait, of_two_each_does_without_a_descriptor) {
    for (int first = 1; first <= 2; first++) {
        int64_t ends[2], others[2];
        struct two two;
        struct task task;
        make_two(ends, others, &two);
        int64_t held[] = {lport_wait_begin(ends[1], 0), lport_wait_begin(ends[1], 0)};
        if (first == 2) {
            cr_assert_eq(lport_wait_end(held[1]), 0); /* the first of the two has this one's */
        }
        faults_fail(CALL_EVENTFD, 1, 2, EMFILE);
        two.deadline = lport_clock_after(30 * MS);
        assert_kind(wait_for_two(&two), LPORT_TIMED_OUT);
        cr_assert_geq(lport_clock_now(), two.deadline);
        two.deadline = soon();
        for (int which = 0; which < 2; which++) {
            faults_fail(CALL_EVENTFD, 1, 2, EMFILE);
            task_start(&task, wait_for_two, &two);
            task_until_asleep(&task, 3 - first + 2);
            cr_assert_eq(lport_wait_wake(two.sockets[which], LPORT_INPUT), 1);
            cr_assert_eq(task_join(&task), 0);
        }
        faults_fail(CALL_EVENTFD, 1, 2, EMFILE);
        cr_assert_eq(lport_socket_send(others[1], (const uint8_t *)"x", 1), 1);
        cr_assert_eq(wait_for_two(&two), LPORT_INPUT * LPORT_SECOND_WAIT);
        faults_watch();
        for (int i = 0; i < 3 - first; i++) {
            cr_assert_eq(lport_wait_end(held[i]), 0);
        }
        close_both(ends);
        close_both(others);
    }
}

/* ---- without resources ----------------------------------------------------------------------- */

SOCKET_TEST(wait, a_crowd_of_waits_keeps_few_descriptors) {
    enum { CROWD = 300, KEPT = 64 };
    int had = count_descriptors(EVENTFD);
    int64_t ends[2], waits[CROWD];
    make_connection(LPORT_INET, ends);
    for (int i = 0; i < CROWD; i++) {
        waits[i] = lport_wait_begin(ends[0], LPORT_INPUT);
        cr_assert_gt(waits[i], 0);
    }
    cr_assert_geq(count_descriptors(EVENTFD), CROWD);
    cr_assert_eq(lport_wait_wake(ends[0], LPORT_INPUT), CROWD);
    for (int i = 0; i < CROWD; i++) {
        cr_assert_eq(lport_wait_end(waits[i]), 0);
    }
    cr_assert_leq(count_descriptors(EVENTFD), had + KEPT);
    for (int i = 0; i <= KEPT; i++) { /* none of them is readable still */
        waits[i] = lport_wait_begin(ends[0], LPORT_INPUT);
        assert_kind(lport_wait_poll(waits[i], lport_clock_now(), 0), LPORT_TIMED_OUT);
    }
    for (int i = 0; i <= KEPT; i++) {
        cr_assert_eq(lport_wait_end(waits[i]), 0);
    }
    close_both(ends);
}

/* Behaviour 57. */
SOCKET_TEST(wait, a_wait_does_without_a_descriptor) {
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    /* No wait of this process has an eventfd but that of make_connection, if any: hold it. */
    int64_t held = lport_wait_begin(ends[0], LPORT_INPUT);
    int had = count_descriptors(EVENTFD);
    faults_fail(CALL_EVENTFD, 1, 2, EMFILE);
    int64_t wait = lport_wait_begin(ends[0], LPORT_INPUT);
    cr_assert(held > 0 && wait > 0);
    cr_assert_eq(count_descriptors(EVENTFD), had);
    cr_assert_eq(lport_wait_count(), 2);
    int64_t before = lport_clock_now();
    assert_kind(lport_wait_poll(wait, before + 30 * MS, 0), LPORT_TIMED_OUT);
    cr_assert_geq(lport_clock_now() - before, 30 * MS);
    cr_assert_eq(lport_wait_wake(ends[0], LPORT_INPUT), 2);
    cr_assert_eq(lport_wait_poll(wait, LPORT_NEVER, 0), 0);
    cr_assert_eq(lport_wait_poll(wait, LPORT_NEVER, 0), 0, "until the wait ends");
    cr_assert_eq(lport_wait_end(wait), 0);
    wait = lport_wait_begin(ends[0], LPORT_INPUT);
    assert_kind(lport_wait_poll(wait, 0, 0), LPORT_TIMED_OUT);
    cr_assert_eq(lport_socket_send(ends[1], (const uint8_t *)"x", 1), 1);
    cr_assert_eq(lport_wait_poll(wait, LPORT_NEVER, 0), LPORT_INPUT);
    cr_assert_eq(lport_wait_end(wait), 0);
    wait = lport_wait_begin(ends[0], LPORT_INPUT);
    cr_assert_eq(count_descriptors(EVENTFD), had + 1, "it has one as soon as there is one");
    cr_assert_eq(lport_wait_end(wait), 0);
    cr_assert_eq(lport_wait_end(held), 0);
    close_both(ends);
}

SOCKET_TEST(wait, closing_ends_a_wait_without_a_descriptor) {
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    int64_t held = lport_wait_begin(ends[1], LPORT_INPUT);
    faults_fail(CALL_EVENTFD, 1, 1, EMFILE);
    assert_close_wakes(ends[0], receiving);
    cr_assert_eq(lport_wait_end(held), 0);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
}

static int64_t begin_two(void *data) {
    int64_t *ends = data;
    int64_t first = lport_wait_begin(ends[0], LPORT_INPUT);
    if (first < 0) {
        return first;
    }
    int64_t second = lport_wait_begin(ends[0], LPORT_INPUT);
    lport_wait_end(first);
    return second < 0 ? second : lport_wait_end(second);
}

/* Behaviour 64. */
SOCKET_TEST(wait, a_wait_that_cannot_begin_leaves_nothing) {
    int64_t ends[2];
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    fail_every_call(begin_two, NULL, ends);
    faults_fail(CALL_CALLOC, 1, 1, ENOMEM);
    for (int i = 0; i < 300; i++) {
        cr_assert_eq(begin_two(ends), 0);
    }
    close_both(ends);
}

static int begin_without_memory(void *data) {
    faults_fail(CALL_CALLOC, 1, 1, ENOMEM); /* the first wait of all takes some */
    int64_t wait = 0;
    for (int i = 0; i < 300 && wait >= 0; i++) {
        wait = lport_wait_begin(*(int64_t *)data, LPORT_INPUT);
    }
    return lport_status_kind(wait) == LPORT_MEMORY_EXHAUSTED ? 0 : 1;
}

SOCKET_TEST(wait, a_wait_that_finds_no_memory_says_so) {
    int64_t ends[2];
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(in_child(begin_without_memory, ends), 0);
    close_both(ends);
}

SOCKET_TEST(wait, interrupted_reads_and_writes_of_the_eventfd_are_repeated) {
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    for (int i = 0; i < 3; i++) {
        int64_t wait = lport_wait_begin(ends[0], LPORT_INPUT);
        faults_fail(CALL_WRITE, 1, 2, EINTR);
        faults_fail(CALL_READ, 1, 2, EINTR);
        faults_fail(CALL_PPOLL, 1, 2, EINTR);
        cr_assert_eq(lport_wait_wake(ends[0], LPORT_INPUT), 1);
        cr_assert_eq(lport_wait_poll(wait, soon(), 0), 0);
        cr_assert_eq(lport_wait_end(wait), 0);
        assert_kind(wait_for(ends[0], LPORT_INPUT, 0), LPORT_TIMED_OUT);
    }
    close_both(ends);
}
