/* Dials with a watch: many driven by one thread, beside sockets, and closed by another. */
#include "dialling.h"
#include "faults.h"
#include "libport.h"
#include "support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdbool.h>
#include <string.h>

/* The first wait of a process makes an eventfd that stays. */
static void set_up(void) {
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    wait_for(ends[0], LPORT_OUTPUT, soon());
    close_both(ends);
    dial_set_up();
}

TestSuite(dial_watch, .timeout = 30, .init = set_up);

static int64_t watch_of(int64_t dial) {
    int64_t watch = lport_dial_watch(dial, LPORT_NEVER);
    cr_assert_gt(watch, 0);
    return watch;
}

static bool is_due(int64_t watch) {
    return wait_for(watch, LPORT_INPUT, lport_clock_now()) > 0;
}

static void await(int64_t watch) {
    cr_assert_gt(wait_for(watch, LPORT_INPUT, soon()), 0);
}

static void check_goes_on(int64_t dial) {
    assert_kind(lport_dial_step(dial), LPORT_IN_PROGRESS);
}

/* Steps DIAL as its watch says until it is decided. */
static int64_t drive(int64_t dial, int64_t watch) {
    int64_t result = lport_dial_step(dial);
    while (kind(result) == LPORT_IN_PROGRESS) {
        await(watch);
        result = lport_dial_step(dial);
    }
    return result;
}

/* A dial whose name has no answer before the gate is opened; then it is TEXT. */
static int64_t open_gated(const char *text, int32_t port) {
    fake.gated = true;
    fake.texts[0] = text;
    return open_dial("slow.test", port);
}

/* ---- what is due, and when ------------------------------------------------------------------- */

Test(dial_watch, the_first_step_is_due_and_then_the_answer_of_the_resolver) {
    int64_t listener = listen_at("127.0.0.2", 0, -1);
    int64_t dial = open_gated("127.0.0.2", port_of(listener)), watch = watch_of(dial);
    cr_assert(is_due(watch));
    check_goes_on(dial);
    cr_assert(!is_due(watch));
    sem_post(&fake.gate);
    await(watch);
    int64_t socket = drive(dial, watch);
    check_peer(socket, "127.0.0.2", port_of(listener));
    cr_assert(is_due(watch), "what is decided stays so");
    cr_assert_eq(lport_dial_step(dial), socket);
    end_connected(dial, socket, listener);
}

Test(dial_watch, a_connection_is_due_when_the_other_side_has_taken_it) {
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int64_t dial = open_dial("127.0.0.1", port_of(silence.listener)), watch = watch_of(dial);
    check_goes_on(dial);
    cr_assert(!is_due(watch));
    break_silence(&silence);
    int64_t socket = drive(dial, watch);
    check_peer(socket, "127.0.0.1", port_of(silence.listener));
    end_connected(dial, socket, silence.listener);
}

Test(dial_watch, the_next_address_is_due_after_its_pause) {
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int64_t listener = listen_at("127.0.0.2", port_of(silence.listener), -1);
    fake.texts[0] = "127.0.0.1";
    fake.texts[1] = "127.0.0.2";
    int64_t dial = open_dial("two.test", port_of(listener)), watch = watch_of(dial);
    int64_t socket = drive(dial, watch);
    check_peer(socket, "127.0.0.2", port_of(listener));
    cr_assert_eq(lport_dial_count(dial), 2);
    end_silence(&silence);
    end_connected(dial, socket, listener);
}

Test(dial_watch, a_failure_is_due) {
    int64_t dial = open_dial("127.0.0.1", refusing_port()), watch = watch_of(dial);
    int64_t status = drive(dial, watch);
    assert_kind(status, LPORT_CONNECTION_REFUSED);
    cr_assert(is_due(watch));
    cr_assert_eq(lport_dial_step(dial), status);
    check_attempt(dial, 0, "127.0.0.1", LPORT_CONNECTION_REFUSED);
    lport_dial_close(dial);
    check_nothing_left();
}

Test(dial_watch, a_deadline_is_due_and_can_be_set_anew) {
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int64_t dial = open_dial("127.0.0.1", port_of(silence.listener)), watch = watch_of(dial);
    check_goes_on(dial);
    int64_t deadline = lport_clock_after(50 * MS);
    cr_assert_eq(lport_dial_watch(dial, deadline), watch, "there is one watch");
    await(watch);
    cr_assert_geq(lport_clock_now(), deadline);
    check_goes_on(dial);
    cr_assert(is_due(watch));
    cr_assert_eq(lport_dial_watch(dial, LPORT_NEVER), watch);
    cr_assert(!is_due(watch));
    lport_dial_close(dial);
    end_silence(&silence);
    check_nothing_left();
}

/* What a wait in POLLER by DEADLINE comes to. */
static int64_t events_of(int64_t poller, int64_t deadline) {
    int64_t events[8 * LPORT_EVENT_SIZE], turn = lport_poller_begin(poller);
    int64_t count = lport_poller_wait(poller, turn, events, 8, deadline, 0);
    lport_poller_end(poller, turn);
    return count;
}

Test(dial_watch, dials_in_a_poller_beside_a_socket) {
    static const int32_t backends[] = {LPORT_POLLER_EPOLL, LPORT_POLLER_POLL};
    for (size_t i = 0; i < COUNT_OF(backends); i++) {
        int64_t dials[3], ends[2];
        int64_t listener = listen_at("127.0.0.1", 0, -1), poller = lport_poller_open(backends[i]);
        make_connection(LPORT_INET, ends);
        cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_INPUT), 0);
        for (int j = 0; j < 3; j++) {
            dials[j] = open_gated("127.0.0.1", port_of(listener));
            cr_assert_eq(lport_poller_add(poller, watch_of(dials[j]), LPORT_INPUT), 0);
            check_goes_on(dials[j]);
        }
        assert_kind(events_of(poller, lport_clock_now()), LPORT_TIMED_OUT);
        sem_post(&fake.gate); /* one answer, as they ask for one name */
        for (int j = 0; j < 3; j++) {
            await(watch_of(dials[j]));
        }
        cr_assert_eq(events_of(poller, soon()), 3);
        for (int j = 0; j < 3; j++) {
            lport_dial_close(dials[j]);
        }
        close_both(ends);
        lport_socket_close(poller, 0);
        lport_socket_close(listener, 0);
        check_nothing_left();
    }
}

/* ---- closing --------------------------------------------------------------------------------- */

Test(dial_watch, each_of_the_two_is_closed_with_the_other) {
    for (int which = 0; which < 2; which++) {
        struct silence silence;
        keep_silent(&silence, "127.0.0.1", 0);
        int64_t dial = open_dial("127.0.0.1", port_of(silence.listener)), watch = watch_of(dial);
        check_goes_on(dial);
        cr_assert_eq(which == 0 ? lport_dial_close(dial) : lport_socket_close(watch, 0), 0);
        assert_kind(lport_dial_step(dial), LPORT_INVALID);
        assert_kind(lport_dial_close(dial), LPORT_INVALID);
        assert_kind(lport_dial_watch(dial, 0), LPORT_INVALID);
        assert_kind(lport_socket_close(watch, 0), LPORT_CLOSED);
        end_silence(&silence);
        check_nothing_left();
    }
}

static void *wait_for_watch(void *watch) {
    int64_t *place = watch;
    *place = wait_for(*place, LPORT_INPUT, soon());
    return NULL;
}

Test(dial_watch, a_close_by_another_thread_wakes_who_waits) {
    int64_t dial = open_gated("127.0.0.1", 9), watch = watch_of(dial), result = watch;
    pthread_t thread;
    check_goes_on(dial);
    cr_assert_eq(pthread_create(&thread, NULL, wait_for_watch, &result), 0);
    while (lport_wait_count() == 0) {
    }
    cr_assert_geq(lport_socket_close(watch, 0), 0);
    pthread_join(thread, NULL);
    assert_kind(result, LPORT_CLOSED);
    sem_post(&fake.gate);
    check_nothing_left();
}

static void *wait_for_dial(void *dial) {
    int64_t *place = dial;
    *place = lport_dial_wait(*place, soon());
    return NULL;
}

/* It ends as it would have, and the dial with it. */
Test(dial_watch, a_close_waits_for_who_is_in_the_dial) {
    int64_t dial = open_gated("127.0.0.1", 9), watch = watch_of(dial), result = dial;
    pthread_t thread;
    check_goes_on(dial);
    int64_t polls = (faults_watch(), faults_calls(CALL_PPOLL));
    cr_assert_eq(pthread_create(&thread, NULL, wait_for_dial, &result), 0);
    while (faults_calls(CALL_PPOLL) == polls) {
    }
    cr_assert_eq(lport_socket_close(watch, 0), 1, "another thread is in it");
    assert_kind(lport_dial_step(dial), LPORT_INVALID);
    sem_post(&fake.gate);
    pthread_join(thread, NULL);
    cr_assert_eq(result, 0);
    check_nothing_left();
}

static int use_in_child(void *dial) {
    int64_t handle = *(int64_t *)dial;
    bool useless = kind(lport_dial_step(handle)) == LPORT_INVALID &&
                   kind(lport_dial_watch(handle, 0)) == LPORT_INVALID;
    return useless && lport_dial_close(handle) == 0 ? 0 : 1;
}

Test(dial_watch, a_forked_child_can_only_close_it) {
    int64_t listener = listen_at("127.0.0.2", 0, -1);
    int64_t dial = open_gated("127.0.0.2", port_of(listener)), watch = watch_of(dial);
    check_goes_on(dial);
    cr_assert_eq(in_child(use_in_child, &dial), 0);
    cr_assert(!is_due(watch));
    sem_post(&fake.gate);
    int64_t socket = drive(dial, watch);
    check_peer(socket, "127.0.0.2", port_of(listener));
    end_connected(dial, socket, listener);
}

/* ---- what the system refuses ----------------------------------------------------------------- */

Test(dial_watch, what_cannot_be_had_leaves_the_dial_as_it_was) {
    static const enum call calls[] = {CALL_TIMERFD_CREATE, CALL_EPOLL_CREATE1, CALL_EPOLL_CTL};
    int64_t listener = listen_at("127.0.0.1", 0, -1);
    int64_t dial = open_dial("127.0.0.1", port_of(listener));
    for (size_t i = 0; i < COUNT_OF(calls); i++) {
        int descriptors = count_descriptors(NULL);
        faults_fail(calls[i], 1, 1, EMFILE);
        assert_kind(lport_dial_watch(dial, LPORT_NEVER), LPORT_DESCRIPTORS_EXHAUSTED);
        faults_resume();
        cr_assert_eq(count_descriptors(NULL), descriptors);
    }
    int64_t socket = finish_soon(dial);
    check_peer(socket, "127.0.0.1", port_of(listener));
    end_connected(dial, socket, listener);
}

/* A limit of epoll's is reached: it is looked at again, soon. */
Test(dial_watch, what_cannot_be_watched_is_looked_at_again) {
    int64_t listener = listen_at("127.0.0.2", 0, -1);
    int64_t dial = open_gated("127.0.0.2", port_of(listener)), watch = watch_of(dial);
    faults_fail(CALL_EPOLL_CTL, 1, INT64_MAX, ENOSPC);
    check_goes_on(dial);
    await(watch);
    check_goes_on(dial);
    sem_post(&fake.gate);
    int64_t socket = drive(dial, watch);
    faults_resume();
    check_peer(socket, "127.0.0.2", port_of(listener));
    end_connected(dial, socket, listener);
}

struct seen {
    int below, count;
};

static void check_close_on_exec(int fd, const char *what, void *data) {
    struct seen *seen = data;
    if (fd >= seen->below && (strstr(what, "timerfd") || strstr(what, "eventpoll"))) {
        seen->count++;
        cr_assert_neq(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0, "%s", what);
    }
}

Test(dial_watch, its_descriptors_are_close_on_exec) { /* behaviour 60 */
    struct seen seen = {.below = dup(0)};
    close(seen.below);
    int64_t dial = open_dial("127.0.0.1", 9);
    watch_of(dial);
    each_descriptor(check_close_on_exec, &seen);
    cr_assert_eq(seen.count, 2);
    lport_dial_close(dial);
    check_nothing_left();
}
