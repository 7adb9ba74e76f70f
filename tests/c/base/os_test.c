/* os: the table of system calls, polling until a deadline, words to wait on. */
#include "base/os.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(os, .timeout = 10);

#define MS INT64_C(1000000)

SOCKET_TEST(os, every_entry_of_the_table_is_there) {
    void *entries[sizeof lport_os / sizeof(void *)];
    memcpy(entries, &lport_os, sizeof lport_os);
    cr_assert_eq(sizeof entries / sizeof *entries, CALL_END - 1);
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        cr_assert_not_null(entries[i], "entry %zu", i);
    }
}

/* What a poll that is not interrupted tells. */
static int poll_uninterrupted(struct pollfd *fd, nfds_t count, int64_t deadline) {
    int ready;
    do {
        ready = lport_os_poll(fd, count, deadline);
    } while (ready < 0 && errno == EINTR);
    return ready;
}

/* Behaviour 7: no early return, whatever the timeout is. */
SOCKET_TEST(os, a_poll_for_nothing_ends_at_its_deadline_and_not_before) {
    static const int64_t timeouts[] = {0, 1, 999, 1001, 50 * 1000, MS, MS + 1, 33 * MS, 120 * MS};
    for (size_t i = 0; i < sizeof timeouts / sizeof *timeouts; i++) {
        int64_t deadline = lport_clock_after(timeouts[i]);
        cr_assert_eq(poll_uninterrupted(NULL, 0, deadline), 0);
        cr_assert_geq(lport_clock_now(), deadline);
        cr_assert_lt(lport_clock_now(), deadline + 2000 * MS);
    }
}

static int early_polls;

static int early_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout) {
    (void)fds, (void)count, (void)timeout;
    early_polls++;
    return 0;
}

/* Behaviour 7: a system that rounds down must not make a wait end early. */
SOCKET_TEST(os, a_poll_that_the_system_ends_early_goes_on) {
    struct lport_os real = lport_os;
    int64_t deadline = lport_clock_after(MS);
    lport_os.ppoll = early_ppoll;
    int ready = lport_os_poll(NULL, 0, deadline);
    lport_os = real;
    cr_assert_eq(ready, 0);
    cr_assert_gt(early_polls, 1);
    cr_assert_geq(lport_clock_now(), deadline);
}

/* Behaviour 7: no busy loop. */
SOCKET_TEST(os, a_poll_sleeps_in_few_calls) {
    faults_watch(); /* calls are counted */
    cr_assert_eq(lport_os_poll(NULL, 0, lport_clock_after(50 * MS)), 0);
    cr_assert_leq(faults_calls(CALL_PPOLL), 3);
}

/* Stops this process 100 ms from now, for 1.1 s; the process that does it. */
static pid_t stop_self_later(void) {
    pid_t self = getpid(), other = fork();
    if (other == 0) {
        usleep(100 * 1000);
        kill(self, SIGSTOP);
        usleep(1100 * 1000);
        kill(self, SIGCONT);
        _exit(0);
    }
    return other;
}

/* Behaviour 7: the time in which the process was stopped counts, too. */
SOCKET_TEST(os, a_poll_that_was_stopped_ends_at_its_deadline) {
    pid_t other = stop_self_later();
    cr_assert_gt(other, 0);
    int64_t deadline = lport_clock_after(1000 * MS);
    cr_assert_eq(poll_uninterrupted(NULL, 0, deadline), 0);
    cr_assert_geq(lport_clock_now(), deadline);
    cr_assert_lt(lport_clock_now(), deadline + 700 * MS); /* not after 900 ms more */
    cr_assert_eq(waitpid(other, NULL, 0), other);
}

SOCKET_TEST(os, a_poll_after_its_deadline_looks_once) {
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    struct pollfd fd = {.fd = ends[0], .events = POLLIN};
    cr_assert_eq(poll_uninterrupted(&fd, 1, lport_clock_now() - MS), 0);
    cr_assert_eq(poll_uninterrupted(&fd, 1, INT64_MIN), 0);
    cr_assert_eq(write(ends[1], "x", 1), 1);
    cr_assert_eq(poll_uninterrupted(&fd, 1, lport_clock_now() - MS), 1);
    cr_assert_eq(poll_uninterrupted(&fd, 1, INT64_MIN), 1);
    cr_assert_eq(fd.revents, POLLIN);
    close(ends[0]);
    close(ends[1]);
}

static struct timespec seen_timeout;
static bool seen_null;

static int noting_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout) {
    (void)fds, (void)count;
    seen_null = timeout == NULL;
    seen_timeout = timeout == NULL ? (struct timespec){0} : *timeout;
    return 1;
}

/* Behaviour 9: huge timeouts do not overflow, and the deadline that never passes is none. */
SOCKET_TEST(os, far_deadlines_are_far_and_never_is_no_timeout) {
    struct lport_os real = lport_os;
    lport_os.ppoll = noting_ppoll;
    int never = lport_os_poll(NULL, 0, LPORT_NEVER);
    bool never_null = seen_null;
    int far = lport_os_poll(NULL, 0, LPORT_NEVER - 1);
    lport_os = real;
    cr_assert(never == 1 && never_null);
    cr_assert(far == 1 && !seen_null);
    cr_assert_gt(seen_timeout.tv_sec, INT64_C(200) * 365 * 86400);
    cr_assert(seen_timeout.tv_nsec >= 0 && seen_timeout.tv_nsec < 1000000000);
}

SOCKET_TEST(os, an_interrupted_poll_says_so) {
    faults_fail(CALL_PPOLL, 1, 1, EINTR);
    cr_assert_eq(lport_os_poll(NULL, 0, soon()), -1);
    cr_assert_eq(errno, EINTR);
}

SOCKET_TEST(os, a_word_that_differs_is_not_waited_for) {
    uint32_t word = 2;
    int64_t deadline = soon();
    lport_os_wait_word(&word, 1, LPORT_NEVER);
    lport_os_wait_word(&word, 1, deadline);
    cr_assert_lt(lport_clock_now(), deadline);
}

SOCKET_TEST(os, a_wait_for_a_word_ends_at_its_deadline) {
    uint32_t word = 1;
    int64_t deadline = lport_clock_after(20 * MS);
    while (lport_clock_now() < deadline) {
        lport_os_wait_word(&word, 1, deadline);
    }
    lport_os_wait_word(&word, 1, lport_clock_now() - MS);
    lport_os_wait_word(&word, 1, INT64_MIN);
    cr_assert_lt(lport_clock_now(), deadline + 2000 * MS);
}

/* Behaviour 7: no busy loop. */
SOCKET_TEST(os, a_wait_for_a_word_sleeps_in_few_calls) {
    uint32_t word = 1;
    int calls = 0;
    for (int64_t deadline = lport_clock_after(50 * MS); lport_clock_now() < deadline; calls++) {
        lport_os_wait_word(&word, 1, deadline);
    }
    cr_assert_leq(calls, 3);
}

static int64_t until_word_changes(void *data) {
    uint32_t *word = data;
    while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == 1) {
        lport_os_wait_word(word, 1, LPORT_NEVER);
    }
    return 7;
}

SOCKET_TEST(os, waking_a_word_wakes_all_who_wait_and_keeps_errno) {
    static uint32_t word = 1;
    struct task tasks[3];
    for (int i = 0; i < 3; i++) {
        task_start(&tasks[i], until_word_changes, &word);
    }
    for (int i = 0; i < 3; i++) {
        task_until_asleep(&tasks[i], 0);
    }
    __atomic_store_n(&word, 2, __ATOMIC_RELEASE);
    errno = EXDEV;
    lport_os_wake_word(&word);
    cr_assert_eq(errno, EXDEV);
    lport_os_wake_word((void *)((uint8_t *)&word + 1)); /* no word can be there: the system fails */
    cr_assert_eq(errno, EXDEV);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(task_join(&tasks[i]), 7);
    }
}

/* Only an interrupted call is repeated. */
SOCKET_TEST(os, a_signal_that_cannot_be_given_is_given_up) {
    faults_fail(CALL_WRITE, 1, 1000, EAGAIN);
    int64_t before = faults_calls(CALL_WRITE);
    lport_os_signal(-1);
    cr_assert_eq(faults_calls(CALL_WRITE) - before, 1);
    faults_fail(CALL_READ, 1, 1000, EBADF);
    before = faults_calls(CALL_READ);
    lport_os_unsignal(-1);
    cr_assert_eq(faults_calls(CALL_READ) - before, 1);
    faults_resume();
}

/* The injector itself: a test that trusts it has to be able to. */
SOCKET_TEST(os, faults_strike_the_calls_they_are_told_to) {
    faults_fail(CALL_SOCKET, 2, 2, EACCES);
    int first = lport_os.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(first, 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(lport_os.socket(AF_UNIX, SOCK_STREAM, 0), -1);
        cr_assert_eq(errno, EACCES);
    }
    int last = lport_os.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(last, 0);
    cr_assert_eq(faults_calls(CALL_SOCKET), 4);
    cr_assert_eq(faults_calls(CALL_ANY), 4);
    cr_assert_eq(faults_struck(), 2);
    faults_fail(CALL_CLOSE, 1, 1, EINTR);
    cr_assert_eq(lport_os.close(first), -1);
    cr_assert_eq(fcntl(first, F_GETFD), -1);
    cr_assert_eq(lport_os.close(last), 0);
}
