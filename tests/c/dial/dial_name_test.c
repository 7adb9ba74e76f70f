/* Dials to names, which a resolver has to answer first; forks meanwhile. */
#include "base/os.h"
#include "dialling.h"
#include "faults.h"
#include "libport.h"
#include "support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <sched.h>
#include <semaphore.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <unistd.h>

DIAL_SUITE(dial_name);

Test(dial_name, a_name_connects_to_the_first_address_that_answers) {
    int64_t listener = listen_at("127.0.0.3", 0, -1);
    fake.texts[0] = "127.0.0.2";
    fake.texts[1] = "::1";
    fake.texts[2] = "127.0.0.3";
    int64_t dial = open_dial("many.test", port_of(listener));
    int64_t socket = finish_soon(dial);
    check_peer(socket, "127.0.0.3", port_of(listener));
    cr_assert_eq(lport_dial_count(dial), 3);
    check_attempt(dial, 1, "::1", refusal_of_inet6());
    end_connected(dial, socket, listener);
}

Test(dial_name, a_name_with_one_address) {
    int64_t listener = listen_at("127.0.0.2", 0, -1);
    fake.texts[0] = "127.0.0.2";
    int64_t dial = open_dial("one.test", port_of(listener));
    int64_t socket = finish_soon(dial);
    check_peer(socket, "127.0.0.2", port_of(listener));
    end_connected(dial, socket, listener);
}

/* The answer is there and the connection is not: the query is over, whatever comes next. */
Test(dial_name, a_name_whose_address_takes_its_time) {
    int64_t listener = listen_at("127.0.0.2", 0, -1);
    fake.texts[0] = "127.0.0.2";
    faults_fail(CALL_GETPEERNAME, 1, 2, ENOTCONN);
    int64_t dial = open_dial("one.test", port_of(listener));
    int64_t socket = finish_soon(dial);
    cr_assert_eq(faults_struck(), 2);
    faults_resume();
    check_peer(socket, "127.0.0.2", port_of(listener));
    end_connected(dial, socket, listener);
}

/* There is no attempt yet whose descriptor a step could look at. */
Test(dial_name, while_a_name_is_asked_for_a_step_polls_nothing) {
    int64_t listener = listen_at("127.0.0.2", 0, -1);
    fake.gated = true;
    fake.texts[0] = "127.0.0.2";
    int64_t dial = open_dial("slow.test", port_of(listener));
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    faults_fail(CALL_PPOLL, 1, 1, ENOMEM);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    cr_assert_eq(faults_struck(), 0);
    faults_resume();
    cr_assert_eq(lport_dial_count(dial), 0);
    sem_post(&fake.gate);
    int64_t socket = finish_soon(dial);
    check_peer(socket, "127.0.0.2", port_of(listener));
    end_connected(dial, socket, listener);
}

/* ---- a family without an answer -------------------------------------------------------------- */

/* Lets the look-ups end that wait at the gate, COUNT of them. */
static void open_gate(int count) {
    while (count-- > 0) {
        sem_post(&fake.gate);
    }
}

static int64_t dial_with_a_silent_family(void *data) {
    int64_t begin = lport_clock_now(), listener = listen_at("127.0.0.2", 0, -1);
    int64_t dial = open_dial("half.test", port_of(listener));
    int64_t socket = finish_soon(dial);
    int64_t took = lport_clock_now() - begin;
    (void)data;
    check_peer(socket, "127.0.0.2", port_of(listener));
    lport_dial_close(dial);
    open_gate(2); /* for all, for IPv6 */
    lport_socket_close(socket, 0);
    lport_socket_close(listener, 0);
    check_nothing_left();
    return took;
}

/* Behaviour 51, and RFC 8305, section 3: servers that answer to A and never to AAAA. */
Test(dial_name, a_family_without_an_answer_does_not_hold_up_the_other) {
    fake.silent = AF_INET6;
    fake.texts[0] = "127.0.0.2";
    cr_assert_lt(at_best(dial_with_a_silent_family, NULL, 1 * S), 1 * S);
}

Test(dial_name, addresses_that_come_later_are_tried_too) {
    NEED_INET6();
    int64_t listener = listen_at("::1", 0, -1);
    fake.silent = AF_INET6;
    fake.texts[0] = "127.0.0.3"; /* where nobody listens */
    fake.texts[1] = "::1";
    int64_t dial = open_dial("half.test", port_of(listener));
    assert_kind(lport_dial_step(dial), LPORT_IN_PROGRESS);
    while (lport_dial_count(dial) == 0) {
        cr_assert_eq(lport_dial_wait(dial, soon()), 0);
        assert_kind(lport_dial_step(dial), LPORT_IN_PROGRESS);
    }
    check_attempt(dial, 0, "127.0.0.3", LPORT_CONNECTION_REFUSED);
    faults_watch();
    assert_kind(lport_dial_wait(dial, lport_clock_after(50 * MS)), LPORT_TIMED_OUT);
    faults_resume();
    open_gate(2);
    int64_t socket = finish_soon(dial);
    check_peer(socket, "::1", port_of(listener));
    cr_assert_eq(lport_dial_count(dial), 2, "the answer for all has the first one again");
    end_connected(dial, socket, listener);
}

Test(dial_name, no_answer_that_is_late_is_the_failure_of_all) {
    fake.gated = true;
    fake.result = EAI_AGAIN;
    int64_t dial = open_dial("late.test", 9);
    while (atomic_load(&fake.calls) < 3) {
        assert_kind(lport_dial_step(dial), LPORT_IN_PROGRESS);
        (void)lport_dial_wait(dial, lport_clock_after(20 * MS));
    }
    open_gate(3);
    assert_kind(finish_soon(dial), LPORT_RESOLVER_TRY_AGAIN);
    lport_dial_close(dial);
    check_nothing_left();
}

static void check_asks_once(int32_t family) {
    fake.gated = true;
    fake.texts[0] = "127.0.0.2";
    int64_t dial = lport_dial_open("slow.test", 9, 9, family, NULL, 0);
    cr_assert_gt(dial, 0);
    assert_kind(lport_dial_step(dial), LPORT_IN_PROGRESS);
    assert_kind(finish(dial, lport_clock_after(400 * MS)), LPORT_TIMED_OUT);
    cr_assert_eq(atomic_load(&fake.calls), 1);
    lport_dial_close(dial);
    open_gate(1);
    check_nothing_left();
}

Test(dial_name, who_wants_one_family_asks_for_that_alone) {
    check_asks_once(LPORT_INET);
}

Test(dial_name, a_quick_answer_is_asked_for_once) {
    int64_t listener = listen_at("127.0.0.2", 0, -1);
    fake.texts[0] = "127.0.0.2";
    int64_t dial = open_dial("one.test", port_of(listener));
    int64_t socket = finish_soon(dial);
    cr_assert_eq(atomic_load(&fake.calls), 1);
    end_connected(dial, socket, listener);
}

/* ---- descriptors ----------------------------------------------------------------------------- */

/* As a program without a standard input gets it. */
Test(dial_name, descriptor_0_may_tell_of_the_answer) {
    int64_t listener = listen_at("127.0.0.2", 0, -1);
    int input = dup(0);
    close(0);
    fake.texts[0] = "127.0.0.2";
    int64_t dial = open_dial("one.test", port_of(listener));
    cr_assert_geq(fcntl(0, F_GETFD), 0);
    int64_t socket = finish_soon(dial);
    check_peer(socket, "127.0.0.2", port_of(listener));
    lport_dial_close(dial);
    lport_socket_close(socket, 0);
    lport_socket_close(listener, 0);
    cr_assert_eq(fcntl(0, F_GETFD), -1);
    cr_assert_eq(dup2(input, 0), 0);
    close(input);
    check_nothing_left();
}

/* What was waited for before the answer is no descriptor of the attempts. */
Test(dial_name, a_name_with_several_addresses_needs_no_standard_input) {
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int input = dup(0);
    close(0);
    fake.gated = true;
    fake.texts[0] = "127.0.0.1";
    fake.texts[1] = "127.0.0.2";
    int64_t dial = open_dial("two.test", port_of(silence.listener));
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    sem_post(&fake.gate);
    cr_assert_eq(lport_dial_wait(dial, lport_clock_after(10 * S)), 0);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    check_attempt(dial, 0, "127.0.0.1", LPORT_IN_PROGRESS);
    lport_dial_close(dial);
    cr_assert_eq(dup2(input, 0), 0);
    close(input);
    end_silence(&silence);
    check_nothing_left();
}

static int strict_eventfd(unsigned int value, int flags) {
    cr_assert((flags & EFD_CLOEXEC) != 0);
    return before.os.eventfd(value, flags);
}

Test(dial_name, what_tells_of_the_answer_is_close_on_exec) { /* behaviour 60 */
    fake.texts[0] = "127.0.0.1";
    lport_os.eventfd = strict_eventfd;
    lport_dial_close(open_dial("one.test", 80));
    check_nothing_left();
}

Test(dial_name, a_name_that_is_not_found) {
    fake.result = EAI_NONAME;
    int64_t dial = open_dial("no.test", 80);
    cr_assert_eq(kind(finish_soon(dial)), LPORT_HOST_NOT_FOUND);
    cr_assert_eq(lport_dial_count(dial), 0);
    lport_dial_close(dial);
    check_nothing_left();
}

Test(dial_name, a_dial_that_is_decided_is_not_waited_for) {
    fake.gated = true;
    fake.result = EAI_NONAME;
    int64_t dial = open_dial("slow.test", 80);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    sem_post(&fake.gate);
    cr_assert_eq(kind(finish_soon(dial)), LPORT_HOST_NOT_FOUND);
    cr_assert_eq(lport_dial_wait(dial, lport_clock_after(10 * S)), 0);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_HOST_NOT_FOUND);
    lport_dial_close(dial);
    check_nothing_left();
}

Test(dial_name, one_deadline_covers_the_resolver_too) { /* behaviour 50 */
    fake.gated = true;
    fake.texts[0] = "127.0.0.1";
    int64_t dial = open_dial("slow.test", 80);
    assert_times_out(finish, dial, 100 * MS, 600 * MS);
    cr_assert_eq(lport_dial_count(dial), 0);
    cr_assert_eq(lport_dial_close(dial), 0);
    cr_assert_eq(count_descriptors(NULL), before.descriptors, "the eventfd goes with the dial");
    sem_post(&fake.gate); /* the answer comes after all: to nobody */
    check_nothing_left();
}

Test(dial_name, an_answer_that_races_with_the_close_hurts_nobody) { /* behaviour 26 */
    fake.gated = true;
    fake.texts[0] = "127.0.0.1";
    for (int i = 0; i < 300; i++) {
        int64_t dial = open_dial("slow.test", 80);
        lport_dial_step(dial);
        sem_post(&fake.gate);
        for (int j = 0; j < i % 7; j++) {
            sched_yield();
        }
        lport_dial_close(dial);
    }
    for (int i = 0; i < 300; i++) { /* for those whose query was dropped from the queue: spare */
        sem_post(&fake.gate);
    }
    check_nothing_left();
}

/* A dial whose name the resolver is just looking up, until the gate is opened. */
static int64_t open_dial_that_waits(void) {
    fake.gated = true;
    fake.texts[0] = "127.0.0.1";
    int64_t dial = open_dial("slow.test", 80);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    sem_wait(&fake.entered);
    return dial;
}

static int finish_in_child(void *dial) {
    return kind(finish_soon(*(int64_t *)dial)) == LPORT_RESOLVER_TRY_AGAIN ? 0 : 1;
}

/* The event on which the parent waits for the answer is the child's too. */
Test(dial_name, a_fork_wakes_no_dial_of_the_parent) {
    faults_watch(); /* a wait that is disturbed ends early */
    int64_t dial = open_dial_that_waits();
    cr_assert_eq(in_child(finish_in_child, &dial), 0);
    cr_assert_eq(kind(lport_dial_wait(dial, lport_clock_after(50 * MS))), LPORT_TIMED_OUT);
    sem_post(&fake.gate);
    cr_assert_eq(lport_dial_wait(dial, lport_clock_after(10 * S)), 0);
    lport_dial_close(dial);
    check_nothing_left();
}

static int wait_in_child(void *dial) {
    return lport_dial_wait(*(int64_t *)dial, lport_clock_after(10 * S)) == 0 ? 0 : 1;
}

/* Nobody answers the child's queries any more: a wait for that would be one for ever. */
Test(dial_name, a_child_of_fork_does_not_wait_for_an_answer_to_its_parent) {
    int64_t dial = open_dial_that_waits();
    cr_assert_eq(in_child(wait_in_child, &dial), 0);
    sem_post(&fake.gate);
    lport_dial_close(dial);
    check_nothing_left();
}

static int dial_in_child(void *port) {
    int64_t dial = lport_dial_open("127.0.0.1", 9, *(int32_t *)port, LPORT_ANY, NULL, 0);
    return dial > 0 && finish_soon(dial) > 0 ? 0 : 1;
}

Test(dial_name, a_child_of_fork_can_dial) {
    int64_t listener = listen_at("127.0.0.1", 0, -1);
    int32_t port = port_of(listener);
    lport_dial_close(open_dial("127.0.0.1", port)); /* who has dialled is who sees to the fork */
    cr_assert_eq(in_child(dial_in_child, &port), 0);
    lport_socket_close(listener, 0);
    check_nothing_left();
}
