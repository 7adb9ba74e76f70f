/* Dials to one address, and the waits for them. */
#include "address/address.h"
#include "base/os.h"
#include "base/pool.h"
#include "dialling.h"
#include "faults.h"
#include "libport.h"
#include "name/resolve.h"
#include "socket/socket.h"
#include "support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

DIAL_SUITE(dial);

static int64_t calls_that_cost(void) {
    return faults_calls(CALL_PPOLL) + faults_calls(CALL_EVENTFD) + faults_calls(CALL_CALLOC);
}

Test(dial, a_literal_connects_in_one_step_and_costs_nothing_else) {
    static const char *const texts[] = {"127.0.0.1", "::1", "[::1]"};
    for (int i = 0; i < (have_inet6() ? 3 : 1); i++) {
        int64_t listener = listen_at(texts[i], 0, -1);
        for (int round = 0; round < 2; round++) { /* the first fills the pools */
            faults_watch();
            int64_t calls = calls_that_cost();
            int64_t dial = open_dial(texts[i], port_of(listener));
            int64_t socket = lport_dial_step(dial);
            calls = calls_that_cost() - calls;
            cr_assert(round == 0 || calls == 0, "%lld polls, eventfds and allocations",
                      (long long)calls);
            check_peer(socket, texts[i], port_of(listener));
            cr_assert_eq(lport_dial_wait(dial, 0), 0);
            cr_assert_eq(lport_dial_step(dial), socket);
            cr_assert_eq(lport_dial_count(dial), 1);
            cr_assert_eq(lport_dial_close(dial), 0);
            cr_assert_eq(lport_socket_close(socket, 0), 0, "it was the caller's");
        }
        lport_socket_close(listener, 0);
    }
    cr_assert_eq(fake.calls, 0);
    cr_assert_eq(lport_resolve_threads(), 0);
    check_nothing_left();
}

static int64_t dial_what_refuses(void *data) {
    (void)data;
    int64_t begin = lport_clock_now();
    int64_t dial = open_dial("127.0.0.1", refusing_port());
    int64_t status = finish_soon(dial);
    cr_assert_eq(kind(status), LPORT_CONNECTION_REFUSED);
    cr_assert_eq(lport_status_errno(status), ECONNREFUSED);
    int64_t took = lport_clock_now() - begin;
    cr_assert_eq(lport_dial_step(dial), status, "it repeats");
    check_attempt(dial, 0, "127.0.0.1", LPORT_CONNECTION_REFUSED);
    lport_dial_close(dial);
    check_nothing_left();
    return took;
}

Test(dial, a_refused_literal_fails_at_once) {
    cr_assert_lt(at_best(dial_what_refuses, NULL, 200 * MS), 200 * MS);
}

Test(dial, a_silent_address_is_timed_out_and_can_be_waited_for_again) { /* behaviours 4, 50 */
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int64_t dial = open_dial("127.0.0.1", port_of(silence.listener));
    assert_times_out(finish, dial, 100 * MS, 600 * MS);
    check_attempt(dial, 0, "127.0.0.1", LPORT_IN_PROGRESS);
    break_silence(&silence);
    int64_t socket = finish(dial, lport_clock_after(15 * S)); /* the kernel tries again after 1 s */
    check_peer(socket, "127.0.0.1", port_of(silence.listener));
    lport_socket_close(socket, 0);
    lport_dial_close(dial);
    end_silence(&silence);
    check_nothing_left();
}

/* A connect that is not there at once is polled for, and its descriptor is still nobody else's. */
Test(dial, a_connection_that_was_waited_for_can_be_patient) {
    uint8_t octet;
    block at;
    int64_t listener = listen_on_loopback(LPORT_INET, at);
    int64_t dial = lport_dial_open_addresses(at, 1, LPORT_STREAM, NULL, 0);
    faults_fail(CALL_GETPEERNAME, 1, 1, ENOTCONN);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    int64_t socket = finish_soon(dial);
    cr_assert_gt(socket, 0);
    int64_t calls_before = faults_calls(CALL_FCNTL);
    cr_assert_eq(kind(lport_socket_receive(socket, &octet, 1, LPORT_PATIENT)), LPORT_WOULD_BLOCK);
    cr_assert_eq(faults_calls(CALL_FCNTL), calls_before + 1, "it is made to block");
    faults_resume();
    lport_socket_close(socket, 0);
    lport_socket_close(listener, 0);
    lport_dial_close(dial);
    check_nothing_left();
}

Test(dial, two_at_once_are_two) {
    int64_t listeners[2], dials[2], sockets[2];
    for (int i = 0; i < 2; i++) {
        listeners[i] = listen_at("127.0.0.1", 0, -1);
        dials[i] = open_dial("127.0.0.1", port_of(listeners[i]));
    }
    for (int i = 0; i < 2; i++) {
        sockets[i] = finish_soon(dials[i]);
        check_peer(sockets[i], "127.0.0.1", port_of(listeners[i]));
        lport_dial_close(dials[i]);
    }
    for (int i = 0; i < 2; i++) {
        lport_socket_close(sockets[i], 0);
        lport_socket_close(listeners[i], 0);
    }
    check_nothing_left();
}

/* The second is made in the memory of the first. */
Test(dial, nothing_is_left_to_a_dial_by_one_that_was_given_up) {
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    for (int i = 0; i < 2; i++) {
        block tried;
        int64_t dial = open_dial("127.0.0.1", port_of(silence.listener));
        cr_assert_eq(lport_dial_wait(dial, 0), 0);
        cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
        check_attempt(dial, 0, "127.0.0.1", LPORT_IN_PROGRESS);
        cr_assert_eq(kind(lport_dial_attempt(dial, -1, tried)), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_attempt(dial, 1, tried)), LPORT_INVALID);
        lport_dial_close(dial);
    }
    end_silence(&silence);
    check_nothing_left();
}

Test(dial, a_deadline_in_the_past_looks_once) { /* behaviour 1 */
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int64_t dial = open_dial("127.0.0.1", port_of(silence.listener));
    cr_assert_eq(lport_dial_wait(dial, 0), 0, "the first step is always worth it");
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    cr_assert_eq(kind(lport_dial_wait(dial, 0)), LPORT_TIMED_OUT);
    cr_assert_eq(lport_dial_close(dial), 0);
    end_silence(&silence);
    check_nothing_left();
}

Test(dial, what_cannot_be_dialled_is_refused_at_the_opening) { /* behaviour 56 */
    static const char *const bad[] = {"010.0.0.1", "127.1", "[::1", "1.2.3.4.5",
                                      "0x7f.1",    "",      "::x"};
    static const int32_t ports[] = {0, -1, 65536, INT32_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_assert_eq(kind(lport_dial_open(bad[i], strlen(bad[i]), 80, LPORT_ANY, NULL, 0)),
                     LPORT_ADDRESS_SYNTAX, "%s", bad[i]);
    }
    for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
        cr_assert_eq(kind(lport_dial_open("::1", 3, ports[i], LPORT_ANY, NULL, 0)),
                     LPORT_ADDRESS_SYNTAX);
    }
    cr_assert_eq(kind(lport_dial_open("a\0b", 3, 80, LPORT_ANY, NULL, 0)), LPORT_ADDRESS_SYNTAX);
    cr_assert_eq(kind(lport_dial_open("::1", 3, 80, LPORT_LOCAL, NULL, 0)), LPORT_INVALID);
    cr_assert_eq(kind(lport_dial_open("::1", 3, 80, LPORT_ANY, NULL, 64)), LPORT_INVALID);
    block address;
    parse("127.0.0.1", 80, address);
    cr_assert_eq(kind(lport_dial_open_addresses(address, -1, LPORT_STREAM, NULL, 0)),
                 LPORT_INVALID);
    cr_assert_eq(kind(lport_dial_open_addresses(address, 1, LPORT_DATAGRAM, NULL, 0)),
                 LPORT_INVALID);
    cr_assert_eq(kind(lport_dial_open_addresses(address, 1, 77, NULL, 0)), LPORT_INVALID);
    block two[2];
    parse("127.0.0.1", 0, two[0]);
    parse("127.0.0.1", 80, two[1]);
    cr_assert_eq(kind(lport_dial_open_addresses(two[0], 2, LPORT_STREAM, NULL, 0)),
                 LPORT_ADDRESS_SYNTAX);
    lport_address_local("@name", 5, two[0]);
    cr_assert_eq(kind(lport_dial_open_addresses(two[0], 1, 77, NULL, 0)), LPORT_INVALID);
    lport_address_set_port(address, 0);
    cr_assert_eq(kind(lport_dial_open_addresses(address, 1, LPORT_STREAM, NULL, 0)),
                 LPORT_ADDRESS_SYNTAX);
    address[0] = 77;
    cr_assert_eq(kind(lport_dial_open_addresses(address, 1, LPORT_STREAM, NULL, 0)), LPORT_INVALID);
    check_nothing_left();
}

Test(dial, the_first_port_and_the_last_can_be_dialled) {
    static const int32_t ports[] = {1, 65535};
    for (size_t i = 0; i < COUNT_OF(ports); i++) {
        int64_t dial = open_dial("127.0.0.1", ports[i]);
        cr_assert_gt(dial, 0);
        lport_dial_close(dial);
    }
    check_nothing_left();
}

Test(dial, its_memory_comes_back_from_one_that_is_closed_and_one_that_cannot_be_opened) {
    int64_t first = open_dial("127.0.0.1", 1);
    lport_dial_close(first);
    faults_fail(CALL_EVENTFD, 1, 1, EMFILE); /* what is to tell of the answer */
    cr_assert_eq(kind(lport_dial_open("one.test", 8, 1, LPORT_ANY, NULL, 0)),
                 LPORT_DESCRIPTORS_EXHAUSTED);
    block two[2];
    parse("127.0.0.1", 1, two[0]);
    parse("127.0.0.2", 1, two[1]);
    faults_fail(CALL_CALLOC, 1, 1, ENOMEM);
    cr_assert_eq(kind(lport_dial_open_addresses(two[0], 2, LPORT_STREAM, NULL, 0)),
                 LPORT_MEMORY_EXHAUSTED);
    faults_resume();
    int64_t next = open_dial("127.0.0.1", 1);
    cr_assert_eq(lport_pool_index(next), lport_pool_index(first));
    lport_dial_close(next);
    check_nothing_left();
}

Test(dial, a_closed_dial_is_stale_for_every_function) {
    block address;
    int64_t dial = open_dial("127.0.0.1", 1);
    lport_dial_close(dial);
    int64_t next = open_dial("127.0.0.1", 1); /* in the same memory */
    int64_t wrong[] = {dial, 0, -1, INT64_MAX, next + 1, next + 1000};
    for (int i = 0; i < 6; i++) {
        cr_assert_eq(kind(lport_dial_step(wrong[i])), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_wait(wrong[i], LPORT_NEVER)), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_count(wrong[i])), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_attempt(wrong[i], 0, address)), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_close(wrong[i])), LPORT_INVALID);
    }
    cr_assert_eq(kind(lport_dial_attempt(next, 0, address)), LPORT_INVALID);
    cr_assert_eq(lport_dial_count(next), 0);
    lport_dial_close(next);
    check_nothing_left();
}

/* One that was never opened, whose memory says that descriptor 0 is its own, and the one that its
 * memory could be taken for next. */
Test(dial, no_integer_names_a_dial_that_is_not_open) {
    int64_t dial = open_dial("127.0.0.1", 1);
    int input = open("/dev/null", O_RDONLY);
    cr_assert_eq(dup2(input, 0), 0);
    lport_dial_close(dial);
    for (int64_t wrong = 0; wrong < 16; wrong++) {
        cr_assert_eq(kind(lport_dial_count(wrong)), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_step(wrong)), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_close(wrong)), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_close(dial + (wrong << LPORT_POOL_INDEX_BITS))),
                     LPORT_INVALID);
    }
    cr_assert_geq(fcntl(0, F_GETFD), 0, "nobody has closed it");
    if (input != 0) {
        close(input);
    }
    check_nothing_left();
}

/* ---- waiting --------------------------------------------------------------------------------- */

Test(dial, signals_are_waited_out) { /* behaviours 12, 52 */
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int64_t dial = open_dial("127.0.0.1", port_of(silence.listener));
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    faults_fail(CALL_PPOLL, 1, 1000, EINTR);
    int64_t begin = lport_clock_now();
    cr_assert_eq(kind(lport_dial_wait(dial, begin + 50 * MS)), LPORT_TIMED_OUT);
    cr_assert_geq(lport_clock_now() - begin, 50 * MS);
    cr_assert_eq(faults_struck(), 1000);
    faults_fail(CALL_PPOLL, 1, 1000, EINTR); /* in a step, too: nothing has failed */
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    cr_assert_eq(faults_struck(), 1001);
    faults_resume();
    lport_dial_close(dial);
    end_silence(&silence);
    check_nothing_left();
}

Test(dial, a_wait_that_the_system_refuses_has_failed) {
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int64_t dial = open_dial("127.0.0.1", port_of(silence.listener));
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    faults_fail(CALL_PPOLL, 1, 1, ENOMEM);
    cr_assert_eq(kind(lport_dial_wait(dial, soon())), LPORT_MEMORY_EXHAUSTED);
    faults_resume();
    lport_dial_close(dial);
    end_silence(&silence);
    check_nothing_left();
}

/* What cannot be told from a poll is looked at. */
Test(dial, a_step_without_a_poll_finds_the_connection) {
    block at;
    int64_t listener = listen_on_loopback(LPORT_INET, at), deadline = soon(), socket;
    int64_t dial = lport_dial_open_addresses(at, 1, LPORT_STREAM, NULL, 0);
    faults_fail(CALL_GETPEERNAME, 1, 1, ENOTCONN);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    faults_fail(CALL_PPOLL, 1, INT64_MAX, EINTR);
    do {
        socket = lport_dial_step(dial);
    } while (kind(socket) == LPORT_IN_PROGRESS && lport_clock_now() < deadline);
    faults_resume();
    cr_assert_gt(socket, 0);
    end_connected(dial, socket, listener);
}

Test(dial, a_wait_can_be_abandoned_at_any_moment) { /* behaviour 26 */
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int64_t dial = open_dial("127.0.0.1", port_of(silence.listener));
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    unwind_waits(lport_dial_wait, dial);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    cr_assert_eq(kind(lport_dial_wait(dial, lport_clock_after(10 * MS))), LPORT_TIMED_OUT);
    lport_dial_close(dial);
    end_silence(&silence);
    check_nothing_left();
}

struct waiting {
    int64_t wait, result;
};

static void *wait_for_socket(void *argument) {
    struct waiting *waiting = argument;
    waiting->result = lport_wait_poll(waiting->wait, LPORT_NEVER, 0);
    return NULL;
}

Test(dial, a_close_wakes_a_connect_in_progress) { /* behaviour 17, for sockets */
    struct silence silence;
    struct waiting waiting;
    pthread_t thread;
    block address;
    keep_silent(&silence, "127.0.0.1", 0);
    lport_socket_name(silence.listener, address);
    int64_t socket = start_connect(address);
    cr_assert_eq(kind(lport_socket_connect_finish(socket)), LPORT_IN_PROGRESS);
    waiting.wait = lport_wait_begin(socket, LPORT_OUTPUT);
    pthread_create(&thread, NULL, wait_for_socket, &waiting);
    int64_t begin = lport_clock_now();
    cr_assert_eq(lport_socket_close(socket, 0), 1);
    pthread_join(thread, NULL);
    cr_assert_lt(lport_clock_now() - begin, 1 * S);
    cr_assert_eq(kind(waiting.result), LPORT_CLOSED);
    cr_assert_eq(kind(lport_socket_connect_finish(socket)), LPORT_CLOSED);
    lport_wait_end(waiting.wait);
    cr_assert_eq(lport_socket_gone(socket, 0), 0);
    end_silence(&silence);
    check_nothing_left();
}
