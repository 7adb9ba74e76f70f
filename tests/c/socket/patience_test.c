/* patience: receives that wait a moment in the call itself. */
#include "base/os.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

TestSuite(patience, .timeout = 20);

static const int32_t families[] = {LPORT_INET, LPORT_LOCAL, LPORT_INET6};

static int64_t receive_patiently(int64_t socket, uint8_t *octets, size_t len) {
    return lport_socket_receive(socket, octets, len, LPORT_PATIENT);
}

/* What comes later than a receive is patient is waited for again: the octet, or how it ended. */
static int64_t receive_late(void *data) {
    uint8_t octet;
    int64_t result;
    do {
        result = receive_patiently(*(int64_t *)data, &octet, 1);
    } while (lport_status_kind(result) == LPORT_WOULD_BLOCK);
    return result == 1 ? octet : result;
}

/* Makes ENDS, of which the first is asleep in a patient receive on the thread of TASK. */
static void start_receiving(struct task *task, int32_t family, int64_t ends[2]) {
    make_connection(family, ends);
    task_start(task, receive_late, &ends[0]);
    task_until_asleep(task, 0);
}

SOCKET_TEST(patience, a_patient_receive_waits_for_what_comes) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        struct task task;
        int64_t ends[2];
        start_receiving(&task, families[i], ends);
        cr_assert_eq(send_all(ends[1], (const uint8_t *)"x", 1, soon()), 1);
        cr_assert_eq(task_join(&task), 'x');
        close_both(ends);
    }
}

static int64_t receive_nothing(void *socket) {
    uint8_t octet;
    int64_t began = lport_clock_now();
    assert_kind(receive_patiently(*(int64_t *)socket, &octet, 1), LPORT_WOULD_BLOCK);
    return lport_clock_now() - began;
}

SOCKET_TEST(patience, it_comes_back_soon_where_nothing_comes) {
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    cr_assert_lt(at_best(receive_nothing, &ends[0], 1000000000), 1000000000);
    close_both(ends);
}

/* Patience is no peek. */
SOCKET_TEST(patience, what_is_received_is_taken) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        uint8_t octet;
        int64_t ends[2];
        make_connection(families[i], ends);
        cr_assert_eq(send_all(ends[1], (const uint8_t *)"xy", 2, soon()), 2);
        cr_assert_eq(receive_late(&ends[0]), 'x');
        cr_assert_eq(receive_late(&ends[0]), 'y');
        assert_kind(receive_patiently(ends[0], &octet, 1), LPORT_WOULD_BLOCK);
        close_both(ends);
    }
}

/* It may be there to end more than the call. */
SOCKET_TEST(patience, a_signal_ends_it) {
    uint8_t octet;
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    faults_watch();
    assert_kind(receive_patiently(ends[0], &octet, 1), LPORT_WOULD_BLOCK);
    int64_t calls = faults_calls(CALL_RECV);
    faults_fail(CALL_RECV, 1, 1, EINTR);
    assert_kind(receive_patiently(ends[0], &octet, 1), LPORT_WOULD_BLOCK);
    cr_assert_eq(faults_calls(CALL_RECV) - calls, 1);
    faults_resume();
    close_both(ends);
}

SOCKET_TEST(patience, a_half_closed_connection_is_waited_for_too) {
    uint8_t octet;
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_OUTPUT), 0);
    faults_watch();
    assert_kind(receive_patiently(ends[0], &octet, 1), LPORT_WOULD_BLOCK);
    cr_assert_eq(faults_calls(CALL_FCNTL), 1, "it is made to block");
    faults_resume();
    close_both(ends);
}

SOCKET_TEST(patience, a_peek_waits_for_nothing_unless_it_is_patient) {
    uint8_t octet;
    int64_t ends[2];
    faults_watch();
    make_connection(LPORT_INET, ends);
    assert_kind(lport_socket_receive(ends[0], &octet, 1, LPORT_PEEK), LPORT_WOULD_BLOCK);
    close_both(ends);
    make_datagram_ends(ends);
    assert_kind(lport_datagram_receive(ends[0], &octet, 1, NULL, LPORT_PEEK), LPORT_WOULD_BLOCK);
    cr_assert_eq(faults_calls(CALL_FCNTL), 0, "nothing is made to block");
    close_both(ends);
    faults_resume();
}

/* Behaviour 13. */
SOCKET_TEST(patience, a_close_by_another_thread_ends_it) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        struct task task;
        int64_t ends[2];
        start_receiving(&task, families[i], ends);
        cr_assert_geq(lport_socket_close(ends[0], 0), 0);
        assert_kind(task_join(&task), LPORT_CLOSED);
        cr_assert_eq(lport_socket_gone(ends[0], soon()), 0);
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    }
}

SOCKET_TEST(patience, end_of_file_and_a_reset_end_it) {
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    cr_assert_eq(receive_late(&ends[0]), 0);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);

    make_connection(LPORT_INET, ends);
    cr_assert_eq(lport_socket_close(ends[1], LPORT_RESET), 0);
    assert_kind(receive_late(&ends[0]), LPORT_CONNECTION_RESET);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
}

/* A descriptor that blocks must not make any other call block. */
SOCKET_TEST(patience, every_other_call_still_does_not_block) {
    faults_watch();
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        uint8_t octet;
        int64_t descriptors[1];
        int64_t ends[2];
        make_connection(families[i], ends);
        assert_kind(receive_patiently(ends[0], &octet, 1), LPORT_WOULD_BLOCK);
        assert_kind(lport_socket_receive(ends[0], &octet, 1, 0), LPORT_WOULD_BLOCK);
        assert_kind(lport_socket_receive(ends[0], &octet, 1, LPORT_PEEK), LPORT_WOULD_BLOCK);
        if (families[i] == LPORT_LOCAL) {
            assert_kind(lport_local_receive(ends[0], &octet, 1, descriptors, 1), LPORT_WOULD_BLOCK);
        }
        assert_kind(clog_up(ends[0]), LPORT_WOULD_BLOCK);
        assert_kind(lport_socket_send2(ends[0], &octet, 1, &octet, 1), LPORT_WOULD_BLOCK);
        close_both(ends);
    }
    faults_resume();
}

/* sendfile(2) has no flag for that. */
SOCKET_TEST(patience, a_file_that_is_sent_does_not_block_either) {
    uint8_t octets[4096] = {0};
    int64_t ends[2], sent;
    char path[] = "/tmp/port-patience-XXXXXX";
    int file = mkstemp(path);
    cr_assert_geq(file, 0);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(write(file, octets, sizeof octets), (ssize_t)sizeof octets);
    make_connection(LPORT_INET, ends);
    assert_kind(receive_patiently(ends[0], octets, 1), LPORT_WOULD_BLOCK);
    while ((sent = lport_socket_send_file(ends[0], file, 0, sizeof octets)) > 0) {
    }
    assert_kind(sent, LPORT_WOULD_BLOCK);
    assert_kind(receive_patiently(ends[0], octets, 1), LPORT_WOULD_BLOCK);
    close(file);
    close_both(ends);
}

SOCKET_TEST(patience, a_descriptor_that_is_given_out_does_not_block_and_stays_so) {
    uint8_t octet;
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    assert_kind(receive_patiently(ends[0], &octet, 1), LPORT_WOULD_BLOCK);
    int fd = (int)lport_socket_descriptor(ends[0]);
    cr_assert_geq(fd, 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_neq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
        assert_kind(receive_patiently(ends[0], &octet, 1), LPORT_WOULD_BLOCK);
    }
    cr_assert_eq(fcntl(fd, F_SETFL, 0), 0); /* by whoever has it: no limit would end a wait */
    assert_kind(receive_patiently(ends[0], &octet, 1), LPORT_WOULD_BLOCK);
    close_both(ends);
}

static int has_limit(int fd) {
    struct timeval limit;
    socklen_t len = sizeof limit;
    cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &len), 0);
    return limit.tv_sec != 0 || limit.tv_usec != 0;
}

static int nothing(void *data) {
    (void)data;
    return 0;
}

/* Another program that gets it and has it block would be told after 4 ms that nothing is there. */
SOCKET_TEST(patience, a_descriptor_that_is_given_out_has_no_limit_of_ours) {
    uint8_t octet;
    int64_t ends[2];
    enum { NEVER, BEFORE, AFTER, TIMES };
    for (int forked = NEVER; forked < TIMES; forked++) {
        make_connection(LPORT_LOCAL, ends);
        cr_assert(forked != BEFORE || in_child(nothing, NULL) == 0);
        assert_kind(receive_patiently(ends[0], &octet, 1), LPORT_WOULD_BLOCK);
        cr_assert(forked != AFTER || in_child(nothing, NULL) == 0);
        cr_assert(!has_limit((int)lport_socket_descriptor(ends[0])), "forked: %d", forked);
        close_both(ends);
    }
    make_connection(LPORT_LOCAL, ends);
    faults_watch();
    faults_fail(CALL_FCNTL, 1, 1, EPERM);
    assert_kind(receive_patiently(ends[0], &octet, 1), LPORT_WOULD_BLOCK);
    faults_resume();
    cr_assert(!has_limit((int)lport_socket_descriptor(ends[0])), "it could not be made to block");
    close_both(ends);
}

/* True if FD, by whomever it was changed, does not block. */
static int is_non_blocking(int fd) {
    return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
}

static int receive_in_child(void *data) {
    uint8_t octet;
    return lport_status_kind(receive_patiently(*(int64_t *)data, &octet, 1)) == LPORT_WOULD_BLOCK
               ? 0
               : 1;
}

/* Whether it blocks is one and the same for both, and neither would learn of it. */
SOCKET_TEST(patience, what_a_fork_has_shared_never_blocks) {
    uint8_t octet;
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    cr_assert_eq(in_child(receive_in_child, &ends[0]), 0);
    cr_assert(is_non_blocking((int)lport_socket_descriptor(ends[0])), "the child's receive");
    faults_watch();
    assert_kind(receive_patiently(ends[1], &octet, 1), LPORT_WOULD_BLOCK);
    cr_assert_eq(faults_calls(CALL_FCNTL), 0, "the parent's");
    close_both(ends);
    make_connection(LPORT_INET, ends);
    assert_kind(receive_patiently(ends[0], &octet, 1), LPORT_WOULD_BLOCK);
    cr_assert_eq(faults_calls(CALL_FCNTL), 1, "what comes after the fork is not shared");
    faults_resume();
    close_both(ends);
}

static struct {
    int (*fcntl)(int fd, int command, int argument);
    int64_t socket;
    int child; /* how it ended */
} forking;

static int end_in_child(void *data) {
    (void)data;
    lport_os.fcntl = forking.fcntl;
    return is_non_blocking((int)lport_socket_descriptor(forking.socket)) ? 0 : 1;
}

static int fcntl_and_fork(int fd, int command, int argument) {
    int result = forking.fcntl(fd, command, argument);
    forking.child = in_child(end_in_child, NULL);
    return result;
}

SOCKET_TEST(patience, a_child_that_is_forked_in_between_knows_what_blocks) {
    uint8_t octet;
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    forking.socket = ends[0];
    forking.child = -1;
    forking.fcntl = lport_os.fcntl;
    lport_os.fcntl = fcntl_and_fork;
    assert_kind(receive_patiently(ends[0], &octet, 1), LPORT_WOULD_BLOCK);
    lport_os.fcntl = forking.fcntl;
    cr_assert_eq(forking.child, 0);
    close_both(ends);
}

SOCKET_TEST(patience, a_listener_never_blocks) {
    uint8_t octet, address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    faults_watch();
    cr_assert_lt(receive_patiently(listener, &octet, 1), 0);
    cr_assert_eq(faults_calls(CALL_FCNTL), 0);
    faults_resume();
    cr_assert_eq(lport_socket_close(listener, 0), 0);
}

/* A system that cannot limit a receive: then it does not wait. */
SOCKET_TEST(patience, without_a_limit_of_the_system_nothing_waits) {
    uint8_t octet;
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    faults_fail(CALL_SETSOCKOPT, 1, 1, ENOPROTOOPT);
    assert_kind(receive_patiently(ends[0], &octet, 1), LPORT_WOULD_BLOCK);
    faults_resume();
    cr_assert_neq(fcntl((int)lport_socket_descriptor(ends[0]), F_GETFL) & O_NONBLOCK, 0);
    close_both(ends);
}

/* ---- messages -------------------------------------------------------------------------------- */

enum { UDP = LPORT_STREAM }; /* beside the kinds of local pairs */

static const int32_t kinds[] = {UDP, LPORT_DATAGRAM, LPORT_SEQPACKET};

enum { KINDS = sizeof kinds / sizeof *kinds };

/* A local pair of KIND, or two UDP sockets, of which the second is connected to the first. */
static void make_messengers(int32_t kind, int64_t ends[2]) {
    uint8_t at[LPORT_ADDRESS_SIZE], own[LPORT_ADDRESS_SIZE];
    if (kind != UDP) {
        cr_assert_eq(lport_socket_pair(kind, ends), 0);
        return;
    }
    loopback(LPORT_INET, 0, own);
    ends[0] = lport_datagram_open(own, NULL, 0, NULL, 0);
    cr_assert_gt(ends[0], 0);
    cr_assert_eq(lport_socket_name(ends[0], at), LPORT_INET);
    ends[1] = lport_datagram_open(own, at, 0, NULL, 0);
    cr_assert_gt(ends[1], 0);
}

static int64_t receive_message_patiently(int64_t socket, uint8_t *octet) {
    uint8_t sender[LPORT_ADDRESS_SIZE];
    return lport_datagram_receive(socket, octet, 1, sender, LPORT_PATIENT);
}

static int64_t receive_message_late(void *data) {
    uint8_t octet;
    int64_t result;
    do {
        result = receive_message_patiently(*(int64_t *)data, &octet);
    } while (lport_status_kind(result) == LPORT_WOULD_BLOCK);
    return result == 1 ? octet : result;
}

/* Behaviours 13, 63. */
SOCKET_TEST(patience, a_message_is_waited_for_and_a_close_ends_the_wait) {
    for (int i = 0; i < KINDS; i++) {
        struct task task;
        int64_t ends[2];
        make_messengers(kinds[i], ends);
        task_start(&task, receive_message_late, &ends[0]);
        task_until_asleep(&task, 0);
        cr_assert_eq(undisturbed(lport_datagram_send(ends[1], (const uint8_t *)"x", 1, NULL)), 1);
        cr_assert_eq(task_join(&task), 'x');
        task_start(&task, receive_message_late, &ends[0]);
        task_until_asleep(&task, 0);
        cr_assert_geq(lport_socket_close(ends[0], 0), 0);
        assert_kind(task_join(&task), LPORT_CLOSED);
        cr_assert_eq(lport_socket_gone(ends[0], soon()), 0);
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    }
}

SOCKET_TEST(patience, a_message_that_is_received_is_taken) {
    for (int i = 0; i < KINDS; i++) {
        uint8_t octet;
        int64_t ends[2];
        make_messengers(kinds[i], ends);
        cr_assert_eq(undisturbed(lport_datagram_send(ends[1], (const uint8_t *)"x", 1, NULL)), 1);
        cr_assert_eq(undisturbed(lport_datagram_send(ends[1], (const uint8_t *)"y", 1, NULL)), 1);
        cr_assert_eq(receive_message_late(&ends[0]), 'x');
        cr_assert_eq(receive_message_late(&ends[0]), 'y');
        assert_kind(receive_message_patiently(ends[0], &octet), LPORT_WOULD_BLOCK);
        close_both(ends);
    }
}

SOCKET_TEST(patience, every_other_call_for_messages_still_does_not_block) {
    faults_watch();
    for (int i = 0; i < KINDS; i++) {
        uint8_t octet, senders[LPORT_ADDRESS_SIZE];
        int64_t ends[2], length, sent;
        make_messengers(kinds[i], ends);
        for (int end = 0; end < 2; end++) {
            assert_kind(receive_message_patiently(ends[end], &octet), LPORT_WOULD_BLOCK);
        }
        assert_kind(lport_datagram_receive(ends[0], &octet, 1, NULL, 0), LPORT_WOULD_BLOCK);
        assert_kind(lport_datagram_receive(ends[0], &octet, 1, senders, LPORT_PEEK),
                    LPORT_WOULD_BLOCK);
        if (kinds[i] != LPORT_SEQPACKET) {
            assert_kind(lport_datagram_receive_batch(ends[0], &octet, 1, &length, senders, 1),
                        LPORT_WOULD_BLOCK);
        }
        if (kinds[i] != UDP) { /* which never lacks room */
            do {
                sent = lport_datagram_send(ends[0], &octet, 1, NULL);
            } while (sent == 1);
            assert_kind(sent, LPORT_WOULD_BLOCK);
        }
        close_both(ends);
    }
    faults_resume();
}

/* The system holds senders back where a receiver of a name has no room. */
SOCKET_TEST(patience, a_message_for_a_name_without_room_is_not_waited_for) {
    uint8_t octet = 1, unnamed[LPORT_ADDRESS_SIZE] = {LPORT_LOCAL}, at[LPORT_ADDRESS_SIZE];
    int64_t length = 1, sent;
    faults_watch();
    cr_assert_eq(lport_address_local("@patience-without-room", 22, at), LPORT_LOCAL);
    int64_t server = lport_datagram_open(at, NULL, 0, NULL, 0);
    int64_t client = lport_datagram_open(unnamed, NULL, 0, NULL, 0);
    cr_assert(server > 0 && client > 0);
    assert_kind(receive_message_patiently(client, &octet), LPORT_WOULD_BLOCK);
    do {
        sent = lport_datagram_send(client, &octet, 1, at);
    } while (sent == 1);
    assert_kind(sent, LPORT_BACKLOG_FULL);
    cr_assert_lt(lport_datagram_send_batch(client, &octet, 1, &length, at, 1), 0);
    faults_resume();
    cr_assert_eq(lport_socket_close(server, 0), 0);
    cr_assert_eq(lport_socket_close(client, 0), 0);
}

/* Behaviour 61: whoever else has it need not expect that it blocks. */
SOCKET_TEST(patience, what_was_adopted_never_blocks) {
    uint8_t octet;
    int fds[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    int64_t socket = lport_descriptor_adopt(fds[0]);
    cr_assert_gt(socket, 0);
    assert_kind(receive_patiently(socket, &octet, 1), LPORT_WOULD_BLOCK);
    cr_assert((fcntl(fds[0], F_GETFL) & O_NONBLOCK) != 0);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
    close(fds[1]);
}

/* ---- what the system is asked for ------------------------------------------------------------ */

/* Receives go through here: how many, and the flags that all of them had. */
static struct {
    struct lport_os os;
    int calls, flags;
} asked;

static void note(int flags) {
    asked.calls++;
    asked.flags &= flags;
}

static ssize_t noted_recv(int fd, void *octets, size_t len, int flags) {
    note(flags);
    return asked.os.recv(fd, octets, len, flags);
}

static ssize_t noted_recvfrom(int fd, void *octets, size_t len, int flags, struct sockaddr *address,
                              socklen_t *address_len) {
    note(flags);
    return asked.os.recvfrom(fd, octets, len, flags, address, address_len);
}

static ssize_t noted_recvmsg(int fd, struct msghdr *message, int flags) {
    note(flags);
    return asked.os.recvmsg(fd, message, flags);
}

static int noted_recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags) {
    note(flags);
    return asked.os.recvmmsg(fd, messages, count, flags);
}

/* What the limit of a descriptor that blocks would hide: a receive that is not patient would take
 * as long as one that is. */
SOCKET_TEST(patience, no_other_receive_waits_even_that_long) {
    uint8_t octet, sender[LPORT_ADDRESS_SIZE];
    int64_t stream[2], udp[2], packets[2], descriptor, length;
    make_connection(LPORT_LOCAL, stream);
    make_messengers(UDP, udp);
    make_messengers(LPORT_SEQPACKET, packets);
    faults_watch();
    assert_kind(receive_patiently(stream[0], &octet, 1), LPORT_WOULD_BLOCK);
    assert_kind(receive_message_patiently(udp[0], &octet), LPORT_WOULD_BLOCK);
    assert_kind(receive_message_patiently(packets[0], &octet), LPORT_WOULD_BLOCK);
    asked.os = lport_os;
    asked.flags = ~0;
    lport_os.recv = noted_recv;
    lport_os.recvfrom = noted_recvfrom;
    lport_os.recvmsg = noted_recvmsg;
    lport_os.recvmmsg = noted_recvmmsg;
    assert_kind(lport_socket_receive(stream[0], &octet, 1, 0), LPORT_WOULD_BLOCK);
    assert_kind(lport_local_receive(stream[0], &octet, 1, &descriptor, 1), LPORT_WOULD_BLOCK);
    assert_kind(lport_datagram_receive(udp[0], &octet, 1, NULL, 0), LPORT_WOULD_BLOCK);
    assert_kind(lport_datagram_receive(udp[0], &octet, 1, sender, 0), LPORT_WOULD_BLOCK);
    assert_kind(lport_datagram_receive(packets[0], &octet, 1, sender, 0), LPORT_WOULD_BLOCK);
    assert_kind(lport_datagram_receive_batch(udp[0], &octet, 1, &length, sender, 1),
                LPORT_WOULD_BLOCK);
    lport_os = asked.os;
    faults_resume();
    cr_assert_eq(asked.calls, 6);
    cr_assert_neq(asked.flags & MSG_DONTWAIT, 0);
    close_both(stream);
    close_both(udp);
    close_both(packets);
}
