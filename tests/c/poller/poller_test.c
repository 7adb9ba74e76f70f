/* poller: what is ready, wakes, closing under it, many sockets, many threads; every test with each
 * backend. */
#include "socket/handle.h"
#include "base/os.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <unistd.h>

TestSuite(poller, .timeout = 30);

#define MS INT64_C(1000000)

static const int32_t both = LPORT_INPUT | LPORT_OUTPUT;

/* A test that is run with each backend. */
#define POLLER_TEST(name)                                                                          \
    static void name##_with(int32_t backend);                                                      \
    SOCKET_TEST(poller, name##_on_epoll) {                                                         \
        name##_with(LPORT_POLLER_EPOLL);                                                           \
    }                                                                                              \
    SOCKET_TEST(poller, name##_on_poll) {                                                          \
        name##_with(LPORT_POLLER_POLL);                                                            \
    }                                                                                              \
    static void name##_with(int32_t backend)

static int64_t open_poller(int32_t backend) {
    int64_t poller = lport_poller_open(backend);
    cr_assert_gt(poller, 0, "%s", kind_text(lport_status_kind(poller)));
    return poller;
}

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

struct event {
    int64_t socket, flags;
};

/* At most CAP events by DEADLINE: how many; 0: woken; or a status. */
static int64_t take(int64_t poller, struct event *events, int32_t cap, int64_t deadline) {
    int64_t result;
    do {
        int64_t turn = lport_poller_begin(poller);
        if (turn < 0) {
            return turn;
        }
        result = lport_poller_wait(poller, turn, (int64_t *)events, cap, deadline, 0);
        lport_poller_end(poller, turn);
    } while (lport_status_kind(result) == LPORT_WOULD_BLOCK);
    return result;
}

/* Nothing is ready. */
static void assert_quiet(int64_t poller) {
    struct event event;
    assert_kind(take(poller, &event, 1, 0), LPORT_TIMED_OUT);
}

/* The one socket that is ready is SOCKET, with FLAGS. */
static void assert_ready(int64_t poller, int64_t socket, int64_t flags) {
    struct event events[4];
    int64_t count = take(poller, events, 4, soon());
    cr_assert_eq(count, 1, "%lld", (long long)count);
    cr_assert_eq(events[0].socket, socket);
    cr_assert_eq(events[0].flags, flags, "%lld, not %lld", (long long)events[0].flags,
                 (long long)flags);
}

static void say(int64_t socket) {
    uint8_t octet = 7;
    cr_assert_eq(send_all(socket, &octet, 1, soon()), 1);
}

static void hear(int64_t socket) {
    uint8_t octet;
    cr_assert_eq(receive_some(socket, &octet, 1, soon()), 1);
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

/* The system tells of a reset once. */
POLLER_TEST(tells_a_reset_again_and_never_an_end) {
    uint8_t octet;
    int64_t ends[2], poller = open_poller(backend);
    make_connection(LPORT_INET, ends);
    cr_assert_eq(lport_poller_add(poller, ends[0], both), 0);
    cr_assert_eq(lport_socket_close(ends[1], LPORT_RESET), 0);
    assert_ready(poller, ends[0], both | LPORT_FAILED);
    assert_kind(undisturbed(lport_socket_receive(ends[0], &octet, 1, 0)), LPORT_CONNECTION_RESET);
    assert_ready(poller, ends[0], both | LPORT_FAILED);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
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

/* ---- closing under it ------------------------------------------------------------------------ */

/* The next socket gets the slot and the descriptor of the one that was closed; it is not in the
 * poller and never reported. The forked child that still shares the closed connection is what keeps
 * it in an epoll set that it was not taken out of. */
POLLER_TEST(forgets_a_socket_that_is_closed_elsewhere) {
    int64_t poller = open_poller(backend);
    for (int i = 0; i < 20; i++) {
        int64_t old[2], new[2];
        cr_assert_eq(lport_socket_pair(LPORT_STREAM, old), 0);
        int fd = (int)lport_socket_descriptor(old[0]);
        int copy = dup(fd);
        cr_assert_eq(lport_poller_add(poller, old[0], LPORT_INPUT), 0);
        say(old[1]);
        assert_ready(poller, old[0], LPORT_INPUT);
        cr_assert_eq(lport_socket_close(old[0], 0), 0);
        cr_assert_eq(lport_socket_pair(LPORT_STREAM, new), 0);
        cr_assert_eq((int)lport_socket_descriptor(new[0]), fd);
        cr_assert_eq(new[0] & LPORT_SOCKET_INDEX, old[0] & LPORT_SOCKET_INDEX);
        say(new[1]);
        assert_quiet(poller);
        assert_kind(lport_poller_modify(poller, new[0], both), LPORT_INVALID);
        close(copy);
        close_both(new);
        cr_assert_eq(lport_socket_close(old[1], 0), 0);
    }
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

/* What comes between the system's answer to a wait and the wait's own. */
static struct {
    struct lport_os os;
    int64_t socket; /* to be closed, once */
} meanwhile;

static void close_meanwhile(void) {
    int64_t socket = meanwhile.socket;
    meanwhile.socket = 0;
    lport_socket_close(socket, 0);
}

static int closing_epoll_wait(int epoll, struct epoll_event *events, int cap, int timeout_ms) {
    int found = meanwhile.os.epoll_wait(epoll, events, cap, timeout_ms);
    close_meanwhile();
    return found;
}

static int closing_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout) {
    int ready = meanwhile.os.ppoll(fds, count, timeout);
    close_meanwhile();
    return ready;
}

POLLER_TEST(says_nothing_of_a_socket_that_is_closed_before_the_wait_returns) {
    int64_t ends[2], poller = open_poller(backend);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_INPUT), 0);
    say(ends[1]);
    assert_ready(poller, ends[0], LPORT_INPUT);
    faults_watch(); /* calls are replaced by our own */
    meanwhile.os = lport_os;
    meanwhile.socket = ends[0];
    lport_os.epoll_wait = closing_epoll_wait;
    lport_os.ppoll = closing_ppoll;
    assert_quiet(poller);
    cr_assert_eq(meanwhile.socket, 0);
    lport_os = meanwhile.os;
    faults_resume();
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

struct taking {
    int64_t poller;
    struct event events[8];
};

static int64_t taking(void *data) {
    struct taking *self = data;
    return take(self->poller, self->events, 8, LPORT_NEVER); /* a deadline would hide a lost wake */
}

/* Whatever the backend, a thread that waits in a poller sleeps; poll's is counted as a wait. */
static void start_taking(struct task *task, struct taking *data, int32_t backend) {
    task_start(task, taking, data);
    task_until_asleep(task, backend == LPORT_POLLER_POLL ? 1 : 0);
}

POLLER_TEST(wakes_everybody_when_it_is_closed) {
    enum { THREADS = 5 };
    struct task tasks[THREADS];
    struct taking data[THREADS];
    int64_t ends[2], poller = open_poller(backend);
    make_connection(LPORT_INET, ends);
    cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_INPUT), 0);
    for (int i = 0; i < THREADS; i++) {
        data[i].poller = poller;
        start_taking(&tasks[i], &data[i], backend);
    }
    cr_assert_geq(lport_socket_close(poller, 0), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_kind(task_join(&tasks[i]), LPORT_CLOSED);
    }
    cr_assert_eq(lport_socket_gone(poller, soon()), 0);
    say(ends[1]); /* and what it held works on */
    hear(ends[0]);
    close_both(ends);
}

POLLER_TEST(a_wake_is_for_one_wait_and_is_kept_for_the_next) {
    struct task tasks[2];
    struct taking data[2];
    struct event event;
    int64_t ends[2], poller = open_poller(backend);
    make_connection(LPORT_INET, ends);
    cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_INPUT), 0);
    cr_assert_eq(lport_poller_wake(poller), 0);
    cr_assert_eq(lport_poller_wake(poller), 0);
    cr_assert_eq(take(poller, &event, 1, soon()), 0);
    assert_quiet(poller);
    for (int i = 0; i < 2; i++) {
        data[i].poller = poller;
        start_taking(&tasks[i], &data[i], backend);
    }
    cr_assert_eq(lport_poller_wake(poller), 0);
    say(ends[1]); /* ends the other one */
    int64_t results[2] = {task_join(&tasks[0]), task_join(&tasks[1])};
    cr_assert(results[0] + results[1] == 1 || results[0] + results[1] == 2, "%lld, %lld",
              (long long)results[0], (long long)results[1]);
    if (results[0] + results[1] == 2) { /* both saw the octet first: then the wake is still there */
        cr_assert_eq(take(poller, &event, 1, soon()), 0);
    }
    assert_ready(poller, ends[0], LPORT_INPUT);
    close_both(ends);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

static struct {
    struct lport_os os;
    int64_t poller;
    int calls; /* of epoll_wait */
} late;

static void write_late_signal(void) {
    static const uint64_t one = 1;
    int fd = (int)lport_socket_descriptor(late.poller);
    cr_assert_eq(late.os.write(fd, &one, sizeof one), (ssize_t)sizeof one);
}

static ssize_t no_write(int fd, const void *octets, size_t len) {
    (void)fd, (void)octets;
    return (ssize_t)len;
}

static int counting_epoll_wait(int epoll, struct epoll_event *events, int cap, int timeout_ms) {
    if (late.calls++ == 0) {
        write_late_signal();
    }
    return late.os.epoll_wait(epoll, events, cap, timeout_ms);
}

/* A wake may be got before its signal, which must keep nobody from sleeping then: not a wait that
 * begins after it, and not one under way. */
SOCKET_TEST(poller, on_epoll_takes_a_late_signal_away) {
    struct event event;
    late.poller = open_poller(LPORT_POLLER_EPOLL);
    faults_watch(); /* calls are replaced by our own */
    late.os = lport_os;
    lport_os.write = no_write;
    cr_assert_eq(lport_poller_wake(late.poller), 0);
    cr_assert_eq(take(late.poller, &event, 1, soon()), 0);
    write_late_signal();
    lport_os.epoll_wait = counting_epoll_wait;
    for (int i = 0; i < 2; i++) {
        late.calls = 1 - i; /* the first call writes another one */
        assert_kind(take(late.poller, &event, 1, lport_clock_after(20 * MS)), LPORT_TIMED_OUT);
        cr_assert_leq(late.calls, 5);
    }
    lport_os = late.os;
    faults_resume();
    cr_assert_eq(lport_socket_close(late.poller, 0), 0);
}

POLLER_TEST(obeys_changes_while_a_thread_waits) {
    struct task task;
    struct taking data = {.poller = open_poller(backend)};
    int64_t ends[2], other[2];
    make_connection(LPORT_INET, ends);
    make_connection(LPORT_INET, other);
    start_taking(&task, &data, backend);
    say(ends[1]);
    cr_assert_eq(lport_poller_add(data.poller, ends[0], LPORT_INPUT), 0);
    cr_assert_eq(task_join(&task), 1);
    cr_assert(data.events[0].socket == ends[0] && data.events[0].flags == LPORT_INPUT);
    cr_assert_eq(lport_poller_modify(data.poller, ends[0], 0), 0);
    cr_assert_eq(lport_poller_add(data.poller, other[0], LPORT_INPUT), 0);
    start_taking(&task, &data, backend);
    cr_assert_geq(lport_socket_close(ends[0], 0), 0); /* nobody's event */
    cr_assert_eq(lport_poller_modify(data.poller, other[0], both), 0);
    cr_assert_eq(task_join(&task), 1);
    cr_assert(data.events[0].socket == other[0] && data.events[0].flags == LPORT_OUTPUT);
    close_both(other);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    cr_assert_eq(lport_socket_close(data.poller, 0), 0);
}

/* No other thread, so nothing but the change itself can end the turn. */
POLLER_TEST(obeys_changes_between_the_beginning_of_a_turn_and_its_wait) {
    struct event event;
    int64_t ends[2], poller = open_poller(backend);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_INPUT), 0);
    say(ends[1]);
    for (int removed = 0; removed < 2; removed++) {
        int64_t turn = lport_poller_begin(poller);
        cr_assert_eq(removed ? lport_poller_remove(poller, ends[0])
                             : lport_poller_modify(poller, ends[0], 0),
                     0);
        assert_kind(lport_poller_wait(poller, turn, (int64_t *)&event, 1, 0, 0),
                    backend == LPORT_POLLER_POLL ? LPORT_WOULD_BLOCK : LPORT_TIMED_OUT);
        cr_assert_eq(lport_poller_end(poller, turn), 0);
        cr_assert(removed || lport_poller_modify(poller, ends[0], LPORT_INPUT) == 0);
    }
    close_both(ends);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
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

/* ---- many ------------------------------------------------------------------------------------ */

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

/* ---- failures and forks ---------------------------------------------------------------------- */

static int64_t open_with(void *data) {
    int64_t poller = lport_poller_open(*(int32_t *)data);
    cr_assert_neq(poller, 0, "neither a poller nor a failure");
    if (poller > 0) {
        lport_socket_close(poller, 0);
    }
    return poller;
}

struct adding {
    int64_t poller, socket;
};

static int64_t add_to(void *data) {
    struct adding *self = data;
    return lport_poller_add(self->poller, self->socket, LPORT_INPUT);
}

static void remove_from(void *data, int64_t result) {
    struct adding *self = data;
    int64_t status = lport_poller_remove(self->poller, self->socket);
    assert_kind(status, result < 0 ? LPORT_INVALID : 0);
}

/* The best poller works, although on epoll there is none, with a status of KIND. */
static void assert_best_is_poll(int32_t kind) {
    int64_t ends[2];
    assert_kind(lport_poller_open(LPORT_POLLER_EPOLL), kind);
    int64_t poller = open_poller(LPORT_POLLER_BEST);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_OUTPUT), 0);
    assert_ready(poller, ends[0], LPORT_OUTPUT);
    close_both(ends);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

/* A kernel without epoll. */
SOCKET_TEST(poller, the_best_is_poll_where_the_system_has_no_epoll) {
    faults_fail(CALL_EPOLL_CREATE1, 1, INT64_MAX, ENOSYS);
    assert_best_is_poll(LPORT_NOT_SUPPORTED);
    faults_clear();
}

SOCKET_TEST(poller, the_best_is_poll_where_a_filter_forbids_epoll) {
    forbid_call(SYS_epoll_create1);
    assert_best_is_poll(LPORT_PERMISSION_DENIED);
}

SOCKET_TEST(poller, the_best_is_poll_where_a_filter_forbids_the_wait_alone) {
    faults_fail(CALL_EPOLL_WAIT, 1, INT64_MAX, EPERM);
    assert_best_is_poll(LPORT_PERMISSION_DENIED);
    faults_clear();
}

SOCKET_TEST(poller, the_best_is_none_where_a_filter_forbids_what_each_needs) {
    forbid_call(SYS_eventfd2);
    for (int32_t backend = LPORT_POLLER_BEST; backend <= LPORT_POLLER_POLL; backend++) {
        assert_kind(lport_poller_open(backend), LPORT_PERMISSION_DENIED);
    }
}

/* Behaviour 64. */
SOCKET_TEST(poller, on_poll_without_memory_holds_nothing) {
    int64_t ends[2], poller = open_poller(LPORT_POLLER_POLL);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(lport_poller_end(poller, lport_poller_begin(poller)), 0);
    for (int64_t n = 1; n <= 3; n++) { /* the member, or what the poller has grown to */
        faults_fail(CALL_CALLOC, n, 1, ENOMEM);
        assert_kind(lport_poller_add(poller, ends[0], LPORT_OUTPUT), LPORT_MEMORY_EXHAUSTED);
    }
    faults_fail(CALL_CALLOC, 1, 1, ENOMEM);
    assert_kind(lport_poller_begin(poller), LPORT_MEMORY_EXHAUSTED);
    faults_resume();
    cr_assert_eq(lport_wait_count(), 0);
    close_both(ends);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

SOCKET_TEST(poller, the_best_is_not_poll_where_something_else_is_wrong) {
    faults_fail(CALL_EPOLL_CREATE1, 1, 1, EMFILE);
    assert_kind(lport_poller_open(LPORT_POLLER_BEST), LPORT_DESCRIPTORS_EXHAUSTED);
    faults_resume();
    assert_kind(lport_poller_open(LPORT_POLLER_BEST - 1), LPORT_INVALID);
    assert_kind(lport_poller_open(LPORT_POLLER_POLL + 1), LPORT_INVALID);
}

/* Behaviour 64. */
POLLER_TEST(any_failing_call_leaves_nothing_behind) {
    int64_t ends[2];
    fail_every_call(open_with, NULL, &backend);
    faults_fail(CALL_CALLOC, 1, INT64_MAX, ENOMEM);
    assert_kind(lport_poller_open(backend), LPORT_MEMORY_EXHAUSTED);
    faults_resume();
    struct adding adding = {.poller = open_poller(backend)};
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    adding.socket = ends[0];
    fail_every_call(add_to, remove_from, &adding);
    cr_assert_eq(lport_poller_add(adding.poller, ends[0], LPORT_INPUT), 0);
    faults_fail(CALL_ANY, 1, 1, ENOSPC);
    int64_t status = lport_poller_modify(adding.poller, ends[0], both);
    if (status < 0) { /* it failed, and the interest is as before */
        assert_kind(status, LPORT_BUFFERS_EXHAUSTED);
        faults_clear();
        assert_quiet(adding.poller);
    }
    faults_clear();
    close_both(ends);
    cr_assert_eq(lport_socket_close(adding.poller, 0), 0);
}

static int in_the_child(void *data) {
    struct adding *self = data;
    struct event event;
    bool right =
        lport_status_kind(take(self->poller, &event, 1, 0)) == LPORT_CLOSED &&
        lport_status_kind(lport_poller_add(self->poller, self->socket, 0)) == LPORT_CLOSED &&
        lport_socket_close(self->socket, 0) == 0 && lport_socket_close(self->poller, 0) == 0;
    return right ? 0 : 1;
}

static void count_eventpolls(int fd, const char *what, void *count) {
    (void)fd;
    *(int *)count += strcmp(what, "anon_inode:[eventpoll]") == 0;
}

static int close_in_the_child(void *poller) {
    int before = 0, after = 0;
    each_descriptor(count_eventpolls, &before);
    bool closed = lport_socket_close(*(int64_t *)poller, 0) == 0;
    each_descriptor(count_eventpolls, &after);
    return closed && after == before - 1 ? 0 : 1;
}

SOCKET_TEST(poller, on_epoll_gives_its_descriptor_back_in_a_forked_child_too) {
    int64_t poller = open_poller(LPORT_POLLER_EPOLL);
    cr_assert_eq(in_child(close_in_the_child, &poller), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

POLLER_TEST(a_forked_child_disturbs_nothing) {
    int64_t ends[2];
    struct adding adding = {.poller = open_poller(backend)};
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    adding.socket = ends[0];
    cr_assert_eq(lport_poller_add(adding.poller, ends[0], LPORT_INPUT), 0);
    cr_assert_eq(in_child(in_the_child, &adding), 0);
    say(ends[1]);
    assert_ready(adding.poller, ends[0], LPORT_INPUT);
    close_both(ends);
    cr_assert_eq(lport_socket_close(adding.poller, 0), 0);
}
