/* poller: what others do while a thread waits, or just before: closes, wakes, changes. */
#include "base/os.h"
#include "polling.h"
#include "support.h"

#include <unistd.h>

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
