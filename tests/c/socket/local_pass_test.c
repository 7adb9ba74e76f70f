/* local_pass: who the peer is, and descriptors that are passed. */
#include "base/os.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(local_pass, .timeout = 10);

static const int32_t kinds[] = {LPORT_STREAM, LPORT_DATAGRAM, LPORT_SEQPACKET};

enum { KINDS = sizeof kinds / sizeof *kinds, MANY = 253 };

SOCKET_TEST(local_pass, the_peer_is_this_process) {
    int64_t ends[2];
    make_connection(LPORT_LOCAL, ends);
    for (int i = 0; i < 2; i++) {
        int64_t identity[] = {-7, -7, -7, -7};
        cr_assert_eq(lport_local_credentials(ends[i], identity), 0);
        cr_assert_eq(identity[0], getpid());
        cr_assert_eq(identity[1], geteuid());
        cr_assert_eq(identity[2], getegid());
        cr_assert_eq(identity[3], -7);
    }
    int64_t identity[3];
    close_both(ends);
    uint8_t unnamed[LPORT_ADDRESS_SIZE] = {LPORT_LOCAL};
    int64_t alone = lport_datagram_open(unnamed, NULL, 0, NULL, 0);
    assert_kind(lport_local_credentials(alone, identity), LPORT_NOT_CONNECTED);
    cr_assert_eq(lport_socket_close(alone, 0), 0);
    make_connection(LPORT_INET, ends);
    assert_kind(lport_local_credentials(ends[0], identity), LPORT_NOT_SUPPORTED);
    close_both(ends);
}

/* ---- senders --------------------------------------------------------------------------------- */

static void tell_senders(int64_t socket) {
    int fd = (int)lport_socket_descriptor(socket), on = 1;
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
}

static void assert_sender(const int64_t *identity, int64_t pid, int64_t uid, int64_t gid) {
    cr_assert_eq(identity[0], pid);
    cr_assert_eq(identity[1], uid);
    cr_assert_eq(identity[2], gid);
}

/* A child sends on its end and ends: the message is from it, and not from who made the pair. */
SOCKET_TEST(local_pass, the_sender_of_a_message_is_who_sent_it) {
    for (int k = 1; k < KINDS; k++) {
        int64_t ends[2], identity[3];
        uint8_t octets[8] = {0}, sender[LPORT_ADDRESS_SIZE];
        cr_assert_eq(lport_socket_pair(kinds[k], ends), 0);
        tell_senders(ends[1]);
        int fd = (int)lport_socket_descriptor(ends[0]), state;
        pid_t child = fork();
        if (child == 0) {
            _exit(send(fd, "abc", 3, 0) == 3 ? 0 : 1);
        }
        cr_assert_eq(waitpid(child, &state, 0), child);
        cr_assert_eq(state, 0);
        cr_assert_eq(undisturbed(lport_local_receive_from(ends[1], octets, 8, sender, identity)),
                     3);
        cr_assert_eq(memcmp(octets, "abc", 4), 0);
        cr_assert_eq(sender[0], LPORT_LOCAL);
        cr_assert_eq(sender[1], 0);
        assert_sender(identity, child, getuid(), getgid());
        close_both(ends);
    }
}

/* The name of the sender, a message cut off, one without octets, and the end. */
SOCKET_TEST(local_pass, a_message_with_its_sender_is_received_like_any_other) {
    uint8_t octets[8] = {0}, own[LPORT_ADDRESS_SIZE], from[LPORT_ADDRESS_SIZE],
            sender[LPORT_ADDRESS_SIZE], unnamed[LPORT_ADDRESS_SIZE] = {LPORT_LOCAL};
    int64_t ends[2], identity[3];
    ends[0] = lport_datagram_open(unnamed, NULL, 0, NULL, 0);
    ends[1] = lport_datagram_open(unnamed, NULL, 0, NULL, 0);
    cr_assert(ends[0] > 0 && ends[1] > 0);
    tell_senders(ends[1]);
    cr_assert_eq(lport_socket_name(ends[0], from), LPORT_LOCAL);
    cr_assert_eq(lport_socket_name(ends[1], own), LPORT_LOCAL);
    assert_kind(undisturbed(lport_local_receive_from(ends[1], octets, 8, sender, identity)),
                LPORT_WOULD_BLOCK);
    static const size_t lengths[] = {0, 3, 8, 20};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t sent[20] = "01234567890123456789";
        int64_t len = (int64_t)lengths[i];
        cr_assert_eq(undisturbed(lport_datagram_send(ends[0], sent, lengths[i], own)), len);
        cr_assert_eq(undisturbed(lport_local_receive_from(ends[1], octets, 8, sender, identity)),
                     len);
        cr_assert_eq(memcmp(octets, sent, lengths[i] < 8 ? lengths[i] : 8), 0);
        cr_assert_eq(lport_address_equal(sender, from), 1);
        assert_sender(identity, getpid(), getuid(), getgid());
    }
    close_both(ends);
    cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, ends), 0);
    tell_senders(ends[1]);
    cr_assert_eq(undisturbed(lport_socket_send(ends[0], octets, 0)), 0);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    cr_assert_eq(undisturbed(lport_local_receive_from(ends[1], octets, 8, NULL, identity)), 0);
    assert_sender(identity, getpid(), getuid(), getgid());
    assert_kind(undisturbed(lport_local_receive_from(ends[1], octets, 8, NULL, identity)),
                LPORT_END);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
}

SOCKET_TEST(local_pass, a_sender_that_the_system_does_not_tell_is_nobody) {
    int64_t ends[2], identity[3];
    uint8_t octet = 1;
    cr_assert_eq(lport_socket_pair(LPORT_DATAGRAM, ends), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(undisturbed(lport_socket_send(ends[0], &octet, 1)), 1);
    }
    cr_assert_eq(undisturbed(lport_local_receive_from(ends[1], &octet, 1, NULL, identity)), 1);
    assert_sender(identity, -1, -1, -1);
    tell_senders(ends[1]);
    cr_assert_eq(undisturbed(lport_local_receive_from(ends[1], &octet, 1, NULL, identity)), 1);
    assert_sender(identity, 0, 65534, 65534);
    close_both(ends);
}

/* With a packet comes its time, which is nobody either. */
SOCKET_TEST(local_pass, nobody_is_the_sender_of_a_packet_that_is_not_told) {
    int64_t ends[2], identity[3];
    uint8_t octet = 1;
    cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, ends), 0);
    assert_kind(undisturbed(lport_local_receive_from(ends[1], &octet, 1, NULL, identity)),
                LPORT_WOULD_BLOCK);
    cr_assert_eq(undisturbed(lport_socket_send(ends[0], &octet, 1)), 1);
    cr_assert_eq(undisturbed(lport_local_receive_from(ends[1], &octet, 1, NULL, identity)), 1);
    assert_sender(identity, -1, -1, -1);
    close_both(ends);
}

/* The counts of the test show that the descriptors are closed, whatever room is left for them. */
SOCKET_TEST(local_pass, descriptors_that_come_with_a_sender_are_closed) {
    for (int asked = 0; asked < 2; asked++) {
        for (int32_t count = 1; count < 12; count++) {
            int64_t ends[2], identity[3], sent[12] = {0};
            uint8_t octet = 1;
            cr_assert_eq(lport_socket_pair(LPORT_DATAGRAM, ends), 0);
            if (asked) {
                tell_senders(ends[1]);
            }
            cr_assert_eq(undisturbed(lport_local_send(ends[0], &octet, 1, sent, count)), 1);
            cr_assert_eq(undisturbed(lport_local_receive_from(ends[1], &octet, 1, NULL, identity)),
                         1);
            cr_assert_eq(identity[0], asked ? getpid() : -1);
            close_both(ends);
        }
    }
}

SOCKET_TEST(local_pass, what_has_no_messages_with_senders) {
    int64_t ends[2], identity[3];
    uint8_t octet = 1;
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    assert_kind(lport_local_receive_from(ends[0], &octet, 1, NULL, identity), LPORT_INVALID);
    close_both(ends);
    make_connection(LPORT_INET, ends);
    assert_kind(lport_local_receive_from(ends[0], &octet, 1, NULL, identity), LPORT_NOT_SUPPORTED);
    close_both(ends);
    cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, ends), 0);
    cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_INPUT), 0);
    assert_kind(lport_local_receive_from(ends[0], &octet, 1, NULL, identity), LPORT_END);
    close_both(ends);
}

/* ---- descriptors ----------------------------------------------------------------------------- */

/* COUNT descriptors of pipes that can be read, their other ends closed. */
static void open_pipes(int64_t *fds, int count) {
    for (int i = 0; i < count; i++) {
        int ends[2];
        cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
        close(ends[1]);
        fds[i] = ends[0];
    }
}

static void close_all(const int64_t *fds, int count) {
    for (int i = 0; i < count; i++) {
        cr_assert_eq(close((int)fds[i]), 0);
    }
}

/* What has been received is close-on-exec (behaviour 60), and works. */
static void assert_received(const int64_t *fds, int count) {
    char octet;
    for (int i = 0; i < count; i++) {
        cr_assert_geq(fds[i], 0);
        cr_assert(fcntl((int)fds[i], F_GETFD) & FD_CLOEXEC, "behaviour 60");
        cr_assert_eq(read((int)fds[i], &octet, 1), 0);
    }
}

/* Behaviour 60: fewer than there is room for, as many, and more, which are closed: the counts of
 * the test show it. */
SOCKET_TEST(local_pass, descriptors_arrive_and_surplus_ones_are_closed) {
    static const int rows[][2] = {{1, 1}, {1, 4},       {3, 3},    {5, 2},   {5, 0},
                                  {2, 1}, {MANY, MANY}, {MANY, 7}, {4, 1000}};
    for (int k = 0; k < KINDS; k++) {
        int64_t ends[2];
        int64_t len = kinds[k] == LPORT_STREAM ? (int64_t)faults_most(3) : 3;
        cr_assert_eq(lport_socket_pair(kinds[k], ends), 0);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            int64_t sent[MANY], got[1000];
            int kept = rows[i][0] < rows[i][1] ? rows[i][0] : rows[i][1];
            uint8_t octets[8] = {0};
            open_pipes(sent, rows[i][0]);
            cr_assert_eq(
                undisturbed(lport_local_send(ends[0], (const uint8_t *)"abc", 3, sent, rows[i][0])),
                len);
            close_all(sent, rows[i][0]);
            cr_assert_eq(undisturbed(lport_local_receive(ends[1], octets, 8, got, rows[i][1])),
                         len);
            cr_assert_eq(memcmp(octets, "abc", (size_t)len), 0);
            cr_assert_eq(octets[len], 0);
            assert_received(got, kept);
            for (int j = kept; j < rows[i][1]; j++) {
                cr_assert_eq(got[j], -1);
            }
            close_all(got, kept);
        }
        close_both(ends);
    }
}

SOCKET_TEST(local_pass, descriptors_arrive_beside_the_sender_that_somebody_asked_for) {
    for (int k = 0; k < KINDS; k++) {
        static const int on = 1;
        int64_t ends[2], sent[2], got[2];
        uint8_t octet = 1;
        cr_assert_eq(lport_socket_pair(kinds[k], ends), 0);
        int fd = (int)lport_socket_descriptor(ends[1]);
        cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
        open_pipes(sent, 2);
        cr_assert_eq(undisturbed(lport_local_send(ends[0], &octet, 1, sent, 2)), 1);
        close_all(sent, 2);
        cr_assert_eq(undisturbed(lport_local_receive(ends[1], &octet, 1, got, 2)), 1);
        assert_received(got, 2);
        close_all(got, 2);
        close_both(ends);
    }
}

/* Messages without descriptors, without octets, and the end. */
SOCKET_TEST(local_pass, what_comes_without_descriptors) {
    uint8_t octets[8];
    int64_t fds[2], zero = 0;
    for (int k = 0; k < KINDS; k++) {
        int64_t ends[2];
        bool stream = kinds[k] == LPORT_STREAM;
        cr_assert_eq(lport_socket_pair(kinds[k], ends), 0);
        assert_kind(undisturbed(lport_local_receive(ends[1], octets, 8, fds, 2)),
                    LPORT_WOULD_BLOCK);
        cr_assert_eq(undisturbed(lport_socket_send(ends[0], (const uint8_t *)"x", 1)), 1);
        cr_assert_eq(undisturbed(lport_local_receive(ends[1], octets, 8, fds, 2)), 1);
        cr_assert_eq(fds[0], -1);
        if (stream) {
            assert_kind(undisturbed(lport_local_send(ends[0], octets, 0, &zero, 1)), LPORT_INVALID);
            assert_kind(lport_local_receive(ends[1], octets, 0, fds, 2), LPORT_INVALID);
        } else {
            cr_assert_eq(undisturbed(lport_local_send(ends[0], octets, 0, &zero, 1)), 0);
            cr_assert_eq(undisturbed(lport_local_receive(ends[1], octets, 0, fds, 2)), 0);
            cr_assert_eq(fds[1], -1);
            cr_assert_eq(close((int)fds[0]), 0);
            cr_assert_eq(undisturbed(lport_socket_send(ends[0], octets, 0)), 0);
            cr_assert_eq(undisturbed(lport_local_receive(ends[1], octets, 8, fds, 2)), 0);
        }
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
        if (kinds[k] != LPORT_DATAGRAM) {
            assert_kind(undisturbed(lport_local_receive(ends[1], octets, 8, fds, 2)), LPORT_END);
            assert_kind(undisturbed(lport_local_receive(ends[1], octets, 8, fds, 2)), LPORT_END);
        }
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    }
}

SOCKET_TEST(local_pass, what_cannot_be_passed) {
    /* Some would be descriptors if they were cut to an int. */
    static const int64_t numbers[] = {-1, INT64_C(1) << 32, -(INT64_C(1) << 32), INT64_MIN};
    int64_t ends[2], fds[MANY + 1] = {0}, none = 1000000;
    uint8_t octet = 0;
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    assert_kind(undisturbed(lport_local_send(ends[0], &octet, 1, &none, 1)), LPORT_INVALID);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int64_t two[2] = {0, numbers[i]};
        assert_kind(undisturbed(lport_local_send(ends[0], &octet, 1, two, 2)), LPORT_INVALID);
    }
    assert_kind(lport_local_send(ends[0], &octet, 1, fds, 0), LPORT_INVALID);
    assert_kind(lport_local_send(ends[0], &octet, 1, fds, MANY + 1), LPORT_INVALID);
    assert_kind(lport_local_receive(ends[0], &octet, 1, fds, -1), LPORT_INVALID);
    cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_OUTPUT), 0);
    assert_kind(undisturbed(lport_local_send(ends[0], &octet, 1, fds, 1)), LPORT_OUTPUT_SHUT);
    cr_assert_eq(lport_socket_shutdown(ends[1], LPORT_INPUT), 0);
    assert_kind(undisturbed(lport_local_receive(ends[1], &octet, 1, fds, 1)), LPORT_END);
    cr_assert_eq(undisturbed(lport_socket_send(ends[1], &octet, 1)), 1);
    cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_INPUT), 0);
    assert_kind(undisturbed(lport_local_receive(ends[0], &octet, 1, fds, 1)), LPORT_END);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    make_connection(LPORT_INET, ends);
    assert_kind(undisturbed(lport_local_send(ends[0], &octet, 1, fds, 1)), LPORT_NOT_SUPPORTED);
    assert_kind(undisturbed(lport_local_receive(ends[0], &octet, 1, fds, 1)), LPORT_NOT_SUPPORTED);
    close_both(ends);
}

/* Behaviour 64: the calls that may fail, one after the other; nothing that came is left open. */
SOCKET_TEST(local_pass, failures_are_told) {
    int64_t ends[2], zero = 0, got[1];
    uint8_t octet = 1;
    cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, ends), 0);
    faults_fail(CALL_SENDMSG, 1, 2, EINTR);
    cr_assert_eq(lport_local_send(ends[0], &octet, 1, &zero, 1), 1);
    faults_fail(CALL_SENDMSG, 1, 1, ETOOMANYREFS);
    assert_kind(lport_local_send(ends[0], &octet, 1, &zero, 1), LPORT_DESCRIPTORS_EXHAUSTED);
    faults_fail(CALL_SETSOCKOPT, 1, 1, ENOMEM);
    assert_kind(lport_local_receive(ends[1], &octet, 1, got, 1), LPORT_MEMORY_EXHAUSTED);
    faults_fail(CALL_RECVMSG, 1, 2, ECONNRESET);
    assert_kind(lport_local_receive(ends[1], &octet, 1, got, 1), LPORT_CONNECTION_RESET);
    faults_fail(CALL_RECVMSG, 1, 2, EINTR);
    cr_assert_eq(lport_local_receive(ends[1], &octet, 1, got, 1), 1);
    cr_assert_eq(close((int)got[0]), 0);
    int64_t identity[3];
    cr_assert_eq(lport_local_send(ends[0], &octet, 1, &zero, 1), 1);
    faults_fail(CALL_RECVMSG, 1, 2, EINTR);
    cr_assert_eq(lport_local_receive_from(ends[1], &octet, 1, NULL, identity), 1);
    faults_fail(CALL_RECVMSG, 1, 1, ENOMEM);
    assert_kind(lport_local_receive_from(ends[1], &octet, 1, NULL, identity),
                LPORT_MEMORY_EXHAUSTED);
    faults_fail(CALL_GETSOCKOPT, 1, 1, ENOMEM);
    assert_kind(lport_local_credentials(ends[0], identity), LPORT_MEMORY_EXHAUSTED);
    close_both(ends);
}

/* Behaviour 32: the system tells of the reset of a connection of packets first. */
SOCKET_TEST(local_pass, descriptors_that_came_before_a_reset_are_received_before_it) {
    int64_t ends[2], zero = 0, got[1];
    uint8_t octet = 1;
    cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, ends), 0);
    cr_assert_eq(undisturbed(lport_local_send(ends[0], &octet, 1, &zero, 1)), 1);
    cr_assert_eq(undisturbed(lport_local_send(ends[1], &octet, 1, &zero, 1)), 1);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    cr_assert_eq(undisturbed(lport_local_receive(ends[0], &octet, 1, got, 1)), 1);
    cr_assert_eq(close((int)got[0]), 0);
    assert_kind(undisturbed(lport_local_receive(ends[0], &octet, 1, got, 1)),
                LPORT_CONNECTION_RESET);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
}
