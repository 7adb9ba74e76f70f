/* poller: what is ready and when; every test with each backend. */
#include "base/os.h"
#include "poller/poller.h"
#include "polling.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/select.h>

TestSuite(poller, .timeout = 30);

static void note_descriptor(int fd, const char *what, void *known) {
    (void)what;
    FD_SET(fd, (fd_set *)known);
}

static void check_new_descriptor(int fd, const char *what, void *known) {
    int flags = fcntl(fd, F_GETFD); /* below 0: the one that the list was read by */
    cr_assert(FD_ISSET(fd, (fd_set *)known) || flags < 0 || (flags & FD_CLOEXEC) != 0, "%s", what);
}

/* Behaviour 60. */
POLLER_TEST(what_a_poller_has_is_close_on_exec) {
    fd_set known;
    FD_ZERO(&known);
    each_descriptor(note_descriptor, &known);
    int64_t poller = open_poller(backend), turn = lport_poller_begin(poller);
    cr_assert_geq(turn, 0);
    each_descriptor(check_new_descriptor, &known);
    cr_assert_eq(lport_poller_end(poller, turn), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

/* ---- what it reports ------------------------------------------------------------------------- */

POLLER_TEST(reports_what_is_ready_as_long_as_it_is) {
    int64_t ends[2], poller = open_poller(backend);
    make_connection(LPORT_INET, ends);
    cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_INPUT), 0);
    assert_quiet(poller);
    say(ends[1]);
    assert_ready(poller, ends[0], LPORT_INPUT);
    assert_ready(poller, ends[0], LPORT_INPUT);
    cr_assert_eq(lport_poller_modify(poller, ends[0], both), 0);
    assert_ready(poller, ends[0], both);
    hear(ends[0]);
    assert_ready(poller, ends[0], LPORT_OUTPUT);
    assert_kind(clog_up(ends[0]), LPORT_WOULD_BLOCK);
    assert_quiet(poller);
    say(ends[1]);
    assert_ready(poller, ends[0], LPORT_INPUT);
    cr_assert_eq(lport_poller_modify(poller, ends[0], LPORT_OUTPUT), 0);
    assert_quiet(poller);
    cr_assert_eq(lport_poller_remove(poller, ends[0]), 0);
    close_both(ends);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

POLLER_TEST(tells_an_end_of_file_from_an_error) {
    static const int32_t families[] = {LPORT_INET, LPORT_LOCAL, LPORT_INET6};
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ended[2], reset[2], poller = open_poller(backend);
        make_connection(families[i], ended);
        make_connection(families[i], reset);
        cr_assert_eq(lport_poller_add(poller, ended[0], LPORT_INPUT), 0);
        say(ended[1]);
        cr_assert_eq(lport_socket_shutdown(ended[1], LPORT_OUTPUT), 0);
        assert_ready(poller, ended[0], LPORT_INPUT | LPORT_ENDED);
        hear(ended[0]);
        assert_ready(poller, ended[0], LPORT_INPUT | LPORT_ENDED);
        cr_assert_eq(lport_poller_remove(poller, ended[0]), 0);
        if (families[i] != LPORT_LOCAL) {
            cr_assert_eq(lport_poller_add(poller, reset[0], both), 0);
            cr_assert_eq(lport_socket_close(reset[1], LPORT_RESET), 0);
            assert_ready(poller, reset[0], both | LPORT_FAILED);
        } else {
            cr_assert_eq(lport_socket_close(reset[1], 0), 0);
        }
        cr_assert_eq(lport_socket_close(reset[0], 0), 0);
        close_both(ended);
        cr_assert_eq(lport_socket_close(poller, 0), 0);
    }
}

SOCKET_TEST(poller, an_event_tells_of_the_directions_that_were_asked_for) {
    static const struct {
        int32_t interest;
        bool stuck; /* output waits for input */
        int32_t ready, flags;
    } rows[] = {
        {LPORT_INPUT, false, POLLIN, LPORT_INPUT},
        {LPORT_INPUT, false, POLLOUT, 0},
        {LPORT_INPUT, true, POLLIN, LPORT_INPUT},
        {LPORT_OUTPUT, false, POLLIN, 0},
        {LPORT_OUTPUT, false, POLLIN | POLLOUT, LPORT_OUTPUT},
        {LPORT_OUTPUT, true, POLLIN, LPORT_OUTPUT},
        {both, false, POLLIN, LPORT_INPUT},
        {both, true, POLLIN, both},
        {LPORT_INPUT, false, POLLERR, LPORT_FAILED | LPORT_INPUT},
        {LPORT_OUTPUT, false, POLLERR | POLLHUP, LPORT_FAILED | LPORT_OUTPUT},
        {LPORT_OUTPUT, true, POLLERR | POLLHUP, LPORT_FAILED | LPORT_OUTPUT},
        {both, false, POLLERR, LPORT_FAILED | both},
        {both, false, POLLHUP, LPORT_ENDED | both},
        {LPORT_OUTPUT, false, POLLHUP | POLLRDHUP | POLLIN, LPORT_ENDED | LPORT_OUTPUT},
        {LPORT_INPUT, false, POLLRDHUP, LPORT_ENDED | LPORT_INPUT},
        {LPORT_OUTPUT, false, POLLRDHUP, LPORT_ENDED},
        {both, false, POLLRDHUP, LPORT_ENDED | LPORT_INPUT},
        {both, true, POLLRDHUP | POLLIN, LPORT_ENDED | both},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        int64_t event[LPORT_EVENT_SIZE];
        struct lport_transport transport = {.stuck = rows[i].stuck};
        struct lport_slot slot = {.transport = &transport};
        struct lport_member member = {.slot = &slot, .socket = 5};
        int64_t number = lport_poller_number(&member, rows[i].interest);
        cr_assert_eq(lport_poller_event(number, (uint32_t)rows[i].ready, event), rows[i].flags != 0,
                     "row %zu", i);
        cr_assert_eq(event[0], 5);
        cr_assert_eq(event[1], rows[i].flags, "row %zu", i);
    }
}

POLLER_TEST(tells_who_waits_for_output_of_an_end_and_of_no_input) {
    int64_t ends[2], poller = open_poller(backend);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_OUTPUT), 0);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    assert_ready(poller, ends[0], LPORT_OUTPUT | LPORT_ENDED);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

/* A connection in POLLER that its peer has reset, of which the system has told. */
static int64_t add_broken(int64_t poller) {
    uint8_t octet;
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    cr_assert_eq(lport_poller_add(poller, ends[0], both), 0);
    cr_assert_eq(lport_socket_close(ends[1], LPORT_RESET), 0);
    assert_ready(poller, ends[0], both | LPORT_FAILED);
    assert_kind(undisturbed(lport_socket_receive(ends[0], &octet, 1, 0)), LPORT_CONNECTION_RESET);
    return ends[0];
}

/* The system tells of a reset once. */
POLLER_TEST(tells_a_reset_again_and_never_an_end) {
    int64_t poller = open_poller(backend), socket = add_broken(poller);
    assert_ready(poller, socket, both | LPORT_FAILED);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

/* Systems that tell of an error with everything that they tell. */
static int failing_epoll_wait(int epoll, struct epoll_event *events, int cap, int timeout) {
    int count = epoll_wait(epoll, events, cap, timeout);
    for (int i = 0; i < count; i++) {
        events[i].events |= events[i].data.u64 != 0 ? EPOLLERR : 0;
    }
    return count;
}

static int failing_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout) {
    int ready = ppoll(fds, count, timeout, NULL);
    for (nfds_t i = 1; i < count; i++) { /* the first is the wait's own */
        fds[i].revents |= fds[i].revents != 0 ? POLLERR : 0;
    }
    return ready;
}

/* A broken one, too: another error can have come since. */
POLLER_TEST(tells_an_error_that_the_system_tells_again) {
    int64_t poller = open_poller(backend), socket = add_broken(poller);
    faults_watch(); /* calls are replaced by our own */
    lport_os.epoll_wait = failing_epoll_wait;
    lport_os.ppoll = failing_ppoll;
    assert_ready(poller, socket, both | LPORT_FAILED);
    faults_resume();
    cr_assert_eq(lport_socket_close(socket, 0), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

/* The system calls such a socket writable, not readable, though the next receive tells the error.
 */
POLLER_TEST(reports_an_error_to_who_waits_for_input) {
    int64_t ends[2], poller = open_poller(backend);
    make_datagram_ends(ends);
    cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_INPUT), 0);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    say(ends[0]);
    assert_ready(poller, ends[0], LPORT_INPUT | LPORT_FAILED);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

/* A hangup has no place to be reported to; it must not spin. */
POLLER_TEST(says_nothing_of_a_socket_without_an_interest) {
    int64_t ends[2], poller = open_poller(backend);
    make_connection(LPORT_INET, ends);
    cr_assert_eq(lport_poller_add(poller, ends[0], 0), 0);
    say(ends[1]);
    cr_assert_eq(lport_socket_close(ends[1], LPORT_RESET), 0);
    assert_quiet(poller);
    cr_assert_eq(lport_poller_modify(poller, ends[0], LPORT_INPUT), 0);
    assert_ready(poller, ends[0], LPORT_INPUT | LPORT_FAILED);
    cr_assert_eq(lport_poller_modify(poller, ends[0], 0), 0);
    assert_quiet(poller);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

POLLER_TEST(reports_listeners_and_datagrams) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t datagrams[2], poller = open_poller(backend);
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    make_datagram_ends(datagrams);
    cr_assert_eq(lport_poller_add(poller, listener, LPORT_INPUT), 0);
    cr_assert_eq(lport_poller_add(poller, datagrams[0], LPORT_INPUT), 0);
    assert_quiet(poller);
    int64_t client = connect_to(address);
    assert_ready(poller, listener, LPORT_INPUT);
    int64_t server = accept_one(listener, soon());
    assert_quiet(poller);
    say(datagrams[1]);
    assert_ready(poller, datagrams[0], LPORT_INPUT);
    close_both(datagrams);
    close_both((int64_t[]){client, server});
    cr_assert_eq(lport_socket_close(listener, 0), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

POLLER_TEST(refuses_what_makes_no_sense) {
    int64_t ends[2], poller = open_poller(backend), other = open_poller(backend);
    struct event event;
    make_connection(LPORT_INET, ends);
    assert_kind(lport_poller_modify(poller, ends[0], LPORT_INPUT), LPORT_INVALID);
    assert_kind(lport_poller_remove(poller, ends[0]), LPORT_INVALID);
    assert_kind(lport_poller_add(poller, ends[0], LPORT_HANGUP), LPORT_INVALID);
    assert_kind(lport_poller_add(poller, ends[0], -1), LPORT_INVALID);
    assert_kind(lport_poller_add(poller, other, LPORT_INPUT), LPORT_INVALID);
    assert_kind(lport_poller_add(poller, poller, LPORT_INPUT), LPORT_INVALID);
    assert_kind(lport_poller_add(ends[0], ends[1], LPORT_INPUT), LPORT_INVALID);
    assert_kind(lport_poller_begin(ends[0]), LPORT_INVALID);
    assert_kind(lport_poller_wake(ends[0]), LPORT_INVALID);
    assert_kind(lport_poller_wait(poller, 0, (int64_t *)&event, 1, 0, 0), LPORT_INVALID);
    assert_kind(lport_poller_end(poller, 0), LPORT_INVALID);
    cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_INPUT), 0);
    assert_kind(lport_poller_add(poller, ends[0], LPORT_INPUT), LPORT_INVALID);
    cr_assert_eq(lport_poller_add(other, ends[0], LPORT_INPUT), 0); /* in two at once */
    int64_t turn = lport_poller_begin(poller);
    assert_kind(lport_poller_wait(poller, turn, (int64_t *)&event, 0, 0, 0), LPORT_INVALID);
    assert_kind(lport_poller_wait(poller, -1, (int64_t *)&event, 1, 0, 0), LPORT_INVALID);
    cr_assert_eq(lport_poller_end(poller, turn), 0);
    say(ends[1]);
    assert_ready(poller, ends[0], LPORT_INPUT);
    assert_ready(other, ends[0], LPORT_INPUT);
    close_both(ends);
    assert_kind(lport_poller_add(poller, ends[0], LPORT_INPUT), LPORT_CLOSED);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
    cr_assert_eq(lport_socket_close(other, 0), 0);
    assert_kind(lport_poller_add(poller, ends[0], LPORT_INPUT), LPORT_CLOSED);
    assert_kind(lport_poller_wake(poller), LPORT_CLOSED);
    assert_kind(take(poller, &event, 1, 0), LPORT_CLOSED);
}

/* Neither an integer that somebody makes up nor a wait of another kind is a turn; who takes one for
 * it does not let go of what the turns under way hold. */
POLLER_TEST(knows_what_is_no_turn_of_it) {
    struct event event;
    int64_t ends[2], poller = open_poller(backend), other = open_poller(LPORT_POLLER_POLL);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    int64_t turn = lport_poller_begin(poller), others = lport_poller_begin(other);
    int64_t of_socket = lport_wait_begin(ends[0], LPORT_INPUT),
            of_poller = lport_wait_begin(poller, 0);
    int64_t wrong[] = {77, INT64_MAX, others, of_socket, of_poller};
    for (int i = 0; i < 5; i++) {
        if (backend == LPORT_POLLER_POLL) {
            assert_kind(lport_poller_wait(poller, wrong[i], (int64_t *)&event, 1, 0, 0),
                        LPORT_INVALID);
        }
        assert_kind(lport_poller_end(poller, wrong[i]), LPORT_INVALID);
    }
    cr_assert_eq(lport_wait_end(of_socket), 0);
    cr_assert_eq(lport_wait_end(of_poller), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 1, "the turn holds it");
    assert_kind(lport_poller_wait(poller, turn, (int64_t *)&event, 1, 0, 0), LPORT_CLOSED);
    cr_assert_eq(lport_poller_end(poller, turn), 0);
    assert_kind(lport_poller_end(poller, turn), LPORT_INVALID);
    cr_assert_eq(lport_socket_gone(poller, 0), 0);
    cr_assert_eq(lport_poller_end(other, others), 0);
    cr_assert_eq(lport_socket_close(other, 0), 0);
    close_both(ends);
}

/* A second end of a turn takes nothing from the turn of somebody else. */
SOCKET_TEST(poller, ends_a_turn_of_poll_once) {
    int64_t poller = open_poller(LPORT_POLLER_POLL);
    int64_t first = lport_poller_begin(poller), second = lport_poller_begin(poller);
    cr_assert_eq(lport_poller_end(poller, first), 0);
    assert_kind(lport_poller_end(poller, first), LPORT_INVALID);
    cr_assert_eq(lport_socket_close(poller, 0), 1, "the second holds it");
    cr_assert_eq(lport_poller_end(poller, second), 0);
    cr_assert_eq(lport_socket_gone(poller, 0), 0);
}

/* ---- time ------------------------------------------------------------------------------------ */

static int64_t take_one(int64_t poller, int64_t deadline) {
    struct event event;
    return take(poller, &event, 1, deadline);
}

/* Behaviour 7. */
POLLER_TEST(deadlines_are_neither_early_nor_late) {
    static const int64_t spans[] = {1, 1000, 999999, MS, 1500000, 20 * MS, 100 * MS};
    struct event event;
    int64_t poller = open_poller(backend);
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
        assert_times_out(take_one, poller, spans[i], spans[i] + 500 * MS);
    }
    assert_kind(take(poller, &event, 1, INT64_MIN), LPORT_TIMED_OUT);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

static int asked_ms;

static int noting_epoll_wait(int epoll, struct epoll_event *events, int cap, int timeout_ms) {
    (void)epoll, (void)events, (void)cap;
    asked_ms = timeout_ms;
    errno = EINTR;
    return -1;
}

/* The system is asked in milliseconds; a wait is to be a millisecond late at most. */
SOCKET_TEST(poller, on_epoll_rounds_a_deadline_up_and_no_further) {
    struct event event;
    int64_t poller = open_poller(LPORT_POLLER_EPOLL), turn = lport_poller_begin(poller);
    faults_watch(); /* a call is replaced by its own */
    lport_os.epoll_wait = noting_epoll_wait;
    int64_t deadline = lport_clock_after(100 * MS), before = lport_clock_now();
    assert_kind(lport_poller_wait(poller, turn, (int64_t *)&event, 1, deadline, 1),
                LPORT_INTERRUPTED);
    int64_t after = lport_clock_now();
    cr_assert(asked_ms * MS >= deadline - after && asked_ms * MS < deadline - before + MS, "%d",
              asked_ms);
    assert_kind(lport_poller_wait(poller, turn, (int64_t *)&event, 1, LPORT_NEVER - 1, 1),
                LPORT_INTERRUPTED);
    cr_assert_eq(asked_ms, INT32_MAX);
    faults_clear();
    cr_assert_eq(lport_poller_end(poller, turn), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

static int early_epoll_wait(int epoll, struct epoll_event *events, int cap, int timeout_ms) {
    (void)epoll, (void)events, (void)cap, (void)timeout_ms;
    return 0;
}

/* As it does for want of milliseconds where a deadline is weeks away. */
SOCKET_TEST(poller, on_epoll_goes_on_where_the_system_ends_a_wait_early) {
    struct event event;
    int64_t poller = open_poller(LPORT_POLLER_EPOLL);
    faults_watch(); /* a call is replaced by its own */
    lport_os.epoll_wait = early_epoll_wait;
    int64_t deadline = lport_clock_after(5 * MS);
    assert_kind(take(poller, &event, 1, deadline), LPORT_TIMED_OUT);
    cr_assert_geq(lport_clock_now(), deadline);
    faults_clear();
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

static void on_signal(int number) {
    (void)number;
}

static int64_t interruptible(void *data) {
    struct taking *self = data;
    int64_t turn = lport_poller_begin(self->poller);
    int64_t result = lport_poller_wait(self->poller, turn, (int64_t *)self->events, 8, soon(), 1);
    lport_poller_end(self->poller, turn);
    return result;
}

/* Behaviour 12. */
POLLER_TEST(a_signal_surfaces_only_where_it_was_asked_for) {
    faults_watch(); /* nothing but the signal is to interrupt it */
    struct sigaction action = {.sa_handler = on_signal};
    struct task task;
    struct taking data = {.poller = open_poller(backend)};
    cr_assert_eq(sigaction(SIGUSR1, &action, NULL), 0);
    task_start(&task, interruptible, &data);
    task_until_asleep(&task, 0);
    cr_assert_eq(pthread_kill(task.thread, SIGUSR1), 0);
    assert_kind(task_join(&task), LPORT_INTERRUPTED);
    start_taking(&task, &data, backend);
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(pthread_kill(task.thread, SIGUSR1), 0);
        sched_yield();
    }
    cr_assert_eq(lport_poller_wake(data.poller), 0);
    cr_assert_eq(task_join(&task), 0);
    cr_assert_eq(lport_socket_close(data.poller, 0), 0);
}
