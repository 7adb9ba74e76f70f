/* transfer_file: files onto connections, by the system and where it cannot, without a signal. */
#include "base/os.h"
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

TestSuite(transfer_file, .timeout = 20);

enum { SIZE = 3000000 };

static const int32_t inets[] = {LPORT_INET, LPORT_INET6};
static const int32_t families[] = {LPORT_INET, LPORT_LOCAL, LPORT_INET6};

/* SIZE octets that fill makes, to be freed. (No vectors of the program: the sanitizer for leaks
 * looks through all of those after each test.) */
static uint8_t *make_octets(void) {
    uint8_t *octets = calloc(1, SIZE);
    cr_assert_not_null(octets);
    fill(octets, SIZE, 1);
    return octets;
}

/* The descriptor of a new file without a name, of these octets. */
static int make_file(void) {
    uint8_t *octets = make_octets();
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(octets, 1, SIZE, file), SIZE);
    cr_assert_eq(fflush(file), 0);
    free(octets);
    int fd = dup(fileno(file));
    (void)fclose(file);
    return fd;
}

/* Sends the file's octets from START on; the offset at its end. */
static int64_t send_rest(int64_t socket, int file, int64_t start) {
    int64_t offset = start, count;
    do {
        count = lport_socket_send_file(socket, file, offset, SIZE);
        if (lport_status_kind(count) == LPORT_WOULD_BLOCK) {
            count = wait_for(socket, LPORT_OUTPUT, soon());
        } else if (count >= 0) {
            offset += count;
        }
    } while (count > 0);
    return count < 0 ? count : offset;
}

struct arrival {
    int64_t socket;
    uint8_t octets[SIZE + 1];
};

static int64_t receive_until_end(void *data) {
    struct arrival *arrival = data;
    return receive_all(arrival->socket, arrival->octets, sizeof arrival->octets, soon());
}

static void assert_arrives(const int64_t ends[2], int file) {
    struct arrival *arrival = calloc(1, sizeof *arrival);
    uint8_t *octets = make_octets();
    struct task reader;
    size_t len = amount(SIZE);
    cr_assert_not_null(arrival);
    arrival->socket = ends[1];
    task_start(&reader, receive_until_end, arrival);
    cr_assert_eq(send_rest(ends[0], file, (int64_t)(SIZE - len)), SIZE);
    cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_OUTPUT), 0);
    cr_assert_eq(task_join(&reader), (int64_t)len);
    cr_assert_eq(memcmp(octets + SIZE - len, arrival->octets, len), 0);
    free(octets);
    free(arrival);
}

SOCKET_TEST(transfer_file, a_whole_file_arrives) {
    int file = make_file();
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_connection(families[i], ends);
        assert_arrives(ends, file);
        close_both(ends);
    }
    cr_assert_eq(lseek(file, 0, SEEK_CUR), SIZE, "the file's position is its own");
    close(file);
}

SOCKET_TEST(transfer_file, what_the_system_cannot_send_is_read) {
    static const int errors[] = {EINVAL, ENOSYS, EOPNOTSUPP, EPERM};
    int file = make_file();
    for (int i = 0; i < 4; i++) {
        int64_t ends[2];
        make_connection(LPORT_INET, ends);
        faults_fail(CALL_SENDFILE, 1, INT64_MAX, errors[i]);
        assert_arrives(ends, file);
        cr_assert_gt(faults_calls(CALL_PREAD), (int64_t)(amount(SIZE) >> 15));
        faults_clear();
        close_both(ends);
    }
    close(file);
}

SOCKET_TEST(transfer_file, what_a_filter_does_not_let_be_sent_is_read) {
    int64_t ends[2];
    int file = make_file();
    make_connection(LPORT_LOCAL, ends);
    forbid_call(SYS_sendfile);
    assert_arrives(ends, file);
    close_both(ends);
    close(file);
}

SOCKET_TEST(transfer_file, what_may_not_be_read_or_sent_either_is_told) {
    static const enum call calls[] = {CALL_PREAD, CALL_SEND};
    int64_t ends[2];
    int file = make_file();
    make_connection(LPORT_LOCAL, ends);
    forbid_call(SYS_sendfile);
    for (int i = 0; i < 2; i++) {
        faults_fail(calls[i], 1, 1, EPERM);
        int64_t status = lport_socket_send_file(ends[0], file, 0, 10);
        faults_clear();
        cr_assert_lt(status, 0);
        cr_assert_eq(lport_status_errno(status), EPERM);
    }
    close_both(ends);
    close(file);
}

SOCKET_TEST(transfer_file, a_part_and_the_end) {
    uint8_t octets[16], expected[16];
    int64_t ends[2];
    int file = make_file();
    make_connection(LPORT_INET, ends);
    cr_assert_eq(undisturbed(lport_socket_send_file(ends[0], file, 0, 0)), 0);
    size_t len = faults_most(10);
    cr_assert_eq(undisturbed(lport_socket_send_file(ends[0], file, 0, 10)), (int64_t)len);
    cr_assert_eq(receive_all(ends[1], octets, len, soon()), (int64_t)len);
    fill(expected, sizeof expected, 1);
    cr_assert_arr_eq(octets, expected, len);
    cr_assert_eq(undisturbed(lport_socket_send_file(ends[0], file, SIZE - 3, 10)),
                 (int64_t)faults_most(3));
    cr_assert_eq(undisturbed(lport_socket_send_file(ends[0], file, SIZE, 10)), 0);
    cr_assert_eq(undisturbed(lport_socket_send_file(ends[0], file, INT64_C(1) << 40, 10)), 0);
    close_both(ends);
    close(file);
}

SOCKET_TEST(transfer_file, a_last_octet_that_is_read_is_sent) {
    uint8_t last, *octets = make_octets();
    int64_t ends[2];
    int file = make_file();
    make_connection(LPORT_INET, ends);
    faults_fail(CALL_SENDFILE, 1, INT64_MAX, EINVAL);
    cr_assert_eq(lport_socket_send_file(ends[0], file, SIZE - 1, 10), 1);
    faults_resume();
    cr_assert_eq(receive_all(ends[1], &last, 1, soon()), 1);
    cr_assert_eq(last, octets[SIZE - 1]);
    free(octets);
    close_both(ends);
    close(file);
}

static size_t asked_len;

static ssize_t noting_sendfile(int fd, int file, off_t *offset, size_t len) {
    (void)fd, (void)file, (void)offset;
    asked_len = len;
    errno = EAGAIN;
    return -1;
}

/* A call has to end soon, however much the connection has room for. */
SOCKET_TEST(transfer_file, a_call_sends_no_more_than_a_mebibyte) {
    int64_t ends[2];
    int file = make_file();
    make_connection(LPORT_INET, ends);
    faults_watch(); /* a call is replaced by its own */
    lport_os.sendfile = noting_sendfile;
    assert_kind(lport_socket_send_file(ends[0], file, 0, SIZE), LPORT_WOULD_BLOCK);
    cr_assert_eq(asked_len, 1 << 20);
    faults_clear();
    close_both(ends);
    close(file);
}

/* Whether the system sends the file or it is read. */
SOCKET_TEST(transfer_file, an_interruption_is_over_with_the_next_call) {
    int64_t ends[2];
    int file = make_file();
    make_connection(LPORT_INET, ends);
    for (int reading = 0; reading < 2; reading++) {
        static const int64_t offsets[] = {0, SIZE};
        for (int i = 0; i < 2; i++) {
            faults_fail(CALL_SENDFILE, 1, reading ? INT64_MAX : 1, reading ? ENOSYS : EINTR);
            faults_fail(CALL_PREAD, 1, 1, EINTR);
            faults_fail(CALL_SEND, 1, 1, EINTR);
            cr_assert_eq(lport_socket_send_file(ends[0], file, offsets[i], 10), i == 0 ? 10 : 0);
        }
    }
    faults_resume();
    close_both(ends);
    close(file);
}

SOCKET_TEST(transfer_file, bad_arguments) {
    int64_t ends[2];
    int pipe_ends[2];
    int file = make_file();
    make_connection(LPORT_INET, ends);
    assert_kind(undisturbed(lport_socket_send_file(ends[0], file, -1, 10)), LPORT_INVALID);
    assert_kind(undisturbed(lport_socket_send_file(ends[0], -1, 0, 10)), LPORT_INVALID);
    cr_assert_eq(pipe(pipe_ends), 0);
    cr_assert_lt(undisturbed(lport_socket_send_file(ends[0], pipe_ends[0], 0, 10)), 0);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_OUTPUT), 0);
    assert_kind(undisturbed(lport_socket_send_file(ends[0], file, 0, 10)), LPORT_OUTPUT_SHUT);
    close_both(ends);
    make_datagram_ends(ends);
    assert_kind(undisturbed(lport_socket_send_file(ends[0], file, 0, 10)), LPORT_NOT_SUPPORTED);
    close_both(ends);
    close(file);
}

SOCKET_TEST(transfer_file, a_file_that_cannot_be_read) {
    int64_t ends[2];
    int file = make_file();
    make_connection(LPORT_INET, ends);
    faults_fail(CALL_SENDFILE, 1, 1, EIO);
    int64_t status = lport_socket_send_file(ends[0], file, 0, 10);
    assert_kind(status, LPORT_OTHER);
    cr_assert_eq(lport_status_errno(status), EIO);
    cr_assert_eq(lport_socket_send_file(ends[0], file, 0, 10), 10, "the connection is as it was");
    close_both(ends);
    close(file);
}

/* Whether the system sends the file or it is read. */
SOCKET_TEST(transfer_file, no_offset_is_too_large_and_what_has_none_is_no_file) {
    static const int64_t offsets[] = {INT64_C(1) << 62, INT64_MAX - 5, INT64_MAX};
    int64_t ends[2];
    int fds[2];
    int file = make_file();
    cr_assert_eq(pipe(fds), 0);
    make_connection(LPORT_INET, ends);
    for (int reading = 0; reading < 2; reading++) {
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(undisturbed(lport_socket_send_file(ends[0], file, offsets[i], 10)), 0);
            assert_kind(undisturbed(lport_socket_send_file(ends[0], fds[0], offsets[i], 10)),
                        LPORT_INVALID);
        }
        faults_fail(CALL_SENDFILE, 1, INT64_MAX, ENOSYS);
    }
    faults_resume();
    close_both(ends);
    close(fds[0]);
    close(fds[1]);
    close(file);
}

static _Atomic int signals;

static void count_signal(int number) {
    (void)number;
    atomic_fetch_add(&signals, 1);
}

static bool pipe_is_pending(void) {
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGPIPE) == 1;
}

SOCKET_TEST(transfer_file, the_signals_that_are_held_back_are_those_of_before) {
    sigset_t before, after;
    int64_t ends[2];
    int file = make_file();
    make_connection(LPORT_INET, ends);
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    cr_assert_eq(undisturbed(lport_socket_send_file(ends[0], file, 0, 1)), 1);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int number = 1; number < NSIG; number++) {
        cr_assert_eq(sigismember(&after, number), sigismember(&before, number), "%d", number);
    }
    close_both(ends);
    close(file);
}

/* The peer is gone: a status each time, and no signal, whoever asked for it and blocks it or not.
 */
SOCKET_TEST(transfer_file, no_signal_for_a_broken_connection) {
    struct sigaction count = {.sa_handler = count_signal}, before;
    int file = make_file();
    sigaction(SIGPIPE, &count, &before);
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2], status;
        make_connection(families[i], ends);
        cr_assert_eq(lport_socket_close(ends[1], LPORT_RESET), 0);
        do {
            status = undisturbed(lport_socket_send_file(ends[0], file, 0, 10));
        } while (status >= 0);
        assert_kind(status, LPORT_CONNECTION_RESET);
        assert_kind(undisturbed(lport_socket_send_file(ends[0], file, 0, 10)),
                    LPORT_CONNECTION_RESET);
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    }
    cr_assert_eq(signals, 0);
    cr_assert_not(pipe_is_pending());
    sigaction(SIGPIPE, &before, NULL);
    close(file);
}

/* A peer that has closed answers the first part of a piece with a reset. The system, which comes to
 * the next part then, reports the first as sent and raises the signal all the same. */
SOCKET_TEST(transfer_file, no_signal_for_a_connection_that_breaks_half_way) {
    struct sigaction count = {.sa_handler = count_signal}, before;
    int file = make_file();
    signals = 0;
    sigaction(SIGPIPE, &count, &before);
    for (size_t i = 0; i < FAMILIES_HERE(inets); i++) {
        int64_t ends[2];
        make_connection(inets[i], ends);
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
        cr_assert_eq(wait_for(ends[0], LPORT_INPUT, soon()), LPORT_INPUT);
        assert_kind(send_rest(ends[0], file, 0), LPORT_CONNECTION_RESET);
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    }
    cr_assert_eq(signals, 0);
    cr_assert_not(pipe_is_pending());
    sigaction(SIGPIPE, &before, NULL);
    close(file);
}

/* Looking for the signal leaves what the system said of the connection. */
SOCKET_TEST(transfer_file, a_broken_connection_without_a_signal_is_told) {
    int64_t ends[2];
    int file = make_file();
    make_connection(LPORT_INET, ends);
    faults_fail(CALL_SENDFILE, 1, 1, EPIPE);
    assert_kind(lport_socket_send_file(ends[0], file, 0, 10), LPORT_CONNECTION_RESET);
    faults_resume();
    close_both(ends);
    close(file);
}

/* A signal that somebody else has sent before is not ours to take. */
SOCKET_TEST(transfer_file, a_pending_signal_stays) {
    struct sigaction count = {.sa_handler = count_signal}, before;
    sigset_t broken_pipe;
    int64_t ends[2], status;
    int file = make_file();
    signals = 0;
    sigaction(SIGPIPE, &count, &before);
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, NULL);
    pthread_kill(pthread_self(), SIGPIPE);
    make_connection(LPORT_LOCAL, ends);
    cr_assert_eq(lport_socket_close(ends[1], LPORT_RESET), 0);
    do {
        status = undisturbed(lport_socket_send_file(ends[0], file, 0, 10));
    } while (status >= 0);
    cr_assert(pipe_is_pending());
    pthread_sigmask(SIG_UNBLOCK, &broken_pipe, NULL);
    cr_assert_eq(signals, 1);
    sigaction(SIGPIPE, &before, NULL);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    close(file);
}
