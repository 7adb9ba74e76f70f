/* adopt: descriptors that somebody else has made, behaviours 60 and 61. */
#include "address/address.h"
#include "base/os.h"
#include "base/pool.h"
#include "socket/socket.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

TestSuite(adopt, .timeout = 10);

static int64_t inspected(int32_t family, int32_t kind, int32_t state) {
    return family | kind << 8 | state << 16;
}

static int plain_socket(int domain, int type) {
    int fd = socket(domain, type, 0);
    cr_assert_geq(fd, 0);
    return fd;
}

/* The flags of FD: both words of fcntl(2). */
static int64_t flags_of(int fd) {
    return (int64_t)fcntl(fd, F_GETFD) << 32 | fcntl(fd, F_GETFL);
}

SOCKET_TEST(adopt, a_descriptor_is_seen_for_what_it_is) {
    static const struct {
        int domain, type;
        int32_t family, kind;
    } sorts[] = {
        {AF_INET, SOCK_STREAM, LPORT_INET, LPORT_STREAM},
        {AF_INET6, SOCK_STREAM, LPORT_INET6, LPORT_STREAM},
        {AF_INET, SOCK_DGRAM, LPORT_INET, LPORT_DATAGRAM},
        {AF_INET6, SOCK_DGRAM, LPORT_INET6, LPORT_DATAGRAM},
        {AF_UNIX, SOCK_STREAM, LPORT_LOCAL, LPORT_STREAM},
        {AF_UNIX, SOCK_DGRAM, LPORT_LOCAL, LPORT_DATAGRAM},
        {AF_UNIX, SOCK_SEQPACKET, LPORT_LOCAL, LPORT_SEQPACKET},
    };
    for (size_t i = 0; i < sizeof sorts / sizeof *sorts; i++) {
        int fd = plain_socket(sorts[i].domain, sorts[i].type), fds[2];
        int64_t before = flags_of(fd);
        cr_assert_eq(lport_descriptor_inspect(fd), inspected(sorts[i].family, sorts[i].kind, 0));
        cr_assert_eq(flags_of(fd), before);
        close(fd);
        if (sorts[i].domain == AF_UNIX) {
            cr_assert_eq(socketpair(AF_UNIX, sorts[i].type, 0, fds), 0);
            cr_assert_eq(lport_descriptor_inspect(fds[0]),
                         inspected(LPORT_LOCAL, sorts[i].kind, LPORT_STATE_CONNECTED));
            close(fds[0]);
            close(fds[1]);
        }
    }
    int fd = plain_socket(AF_INET, SOCK_STREAM);
    cr_assert_eq(listen(fd, 1), 0);
    cr_assert_eq(lport_descriptor_inspect(fd),
                 inspected(LPORT_INET, LPORT_STREAM, LPORT_STATE_LISTENING));
    close(fd);
}

SOCKET_TEST(adopt, one_that_is_told_where_messages_go_is_seen_to_be) {
    static const struct {
        int domain, type, level, name;
        int32_t state;
    } sorts[] = {
        {AF_INET, SOCK_DGRAM, IPPROTO_IP, IP_PKTINFO, LPORT_STATE_PACKET_INFO},
        {AF_INET6, SOCK_DGRAM, IPPROTO_IP, IP_PKTINFO, LPORT_STATE_PACKET_INFO},
        {AF_INET6, SOCK_DGRAM, IPPROTO_IPV6, IPV6_RECVPKTINFO, LPORT_STATE_PACKET_INFO},
        {AF_INET, SOCK_STREAM, IPPROTO_IP, IP_PKTINFO, 0},
    };
    for (size_t i = 0; i < COUNT_OF(sorts); i++) {
        int on = 1, inet = 0;
        socklen_t len = sizeof inet;
        int fd = plain_socket(sorts[i].domain, sorts[i].type);
        cr_assert_eq(setsockopt(fd, sorts[i].level, sorts[i].name, &on, sizeof on), 0);
        cr_assert_eq(lport_descriptor_inspect(fd) >> 16, sorts[i].state, "row %zu", i);
        int64_t socket = lport_descriptor_adopt(fd);
        cr_assert_eq(getsockopt(fd, IPPROTO_IP, IP_PKTINFO, &inet, &len), 0);
        cr_assert_eq(inet, 1, "row %zu: of IPv4, too", i);
        assert_closes(socket);
    }
}

/* Behaviours 60 and 61. */
SOCKET_TEST(adopt, an_adopted_listener_and_its_client_work) {
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    uint8_t address[LPORT_ADDRESS_SIZE];
    int server = plain_socket(AF_INET, SOCK_STREAM);
    cr_assert_eq(bind(server, (struct sockaddr *)&any, sizeof any), 0);
    cr_assert_eq(listen(server, 5), 0);
    int64_t listener = lport_descriptor_adopt(server);
    cr_assert_gt(listener, 0);
    cr_assert_eq(lport_socket_descriptor(listener), server);
    cr_assert_eq(lport_socket_state(listener), LPORT_STATE_LISTENING);
    cr_assert((fcntl(server, F_GETFD) & FD_CLOEXEC) != 0);
    cr_assert((fcntl(server, F_GETFL) & O_NONBLOCK) != 0);
    cr_assert_eq(lport_socket_name(listener, address), LPORT_INET);
    int64_t ends[2] = {connect_to(address), 0};
    ends[1] = accept_one(listener, soon());
    cr_assert_gt(ends[1], 0);
    cr_assert_eq(send_all(ends[0], (const uint8_t *)"to", 2, soon()), 2);
    uint8_t octets[2];
    cr_assert_eq(receive_all(ends[1], octets, 2, soon()), 2);
    close_both(ends);
    cr_assert_eq(lport_socket_close(listener, 0), 0);
    cr_assert_eq(fcntl(server, F_GETFD), -1);
}

/* Behaviour 61. */
SOCKET_TEST(adopt, what_is_no_socket_stays_the_callers_as_it_was) {
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    int64_t before = flags_of(fds[0]);
    assert_kind(lport_descriptor_inspect(fds[0]), LPORT_INVALID);
    int64_t status = lport_descriptor_adopt(fds[0]);
    assert_kind(status, LPORT_INVALID);
    cr_assert_eq(lport_status_errno(status), ENOTSOCK);
    cr_assert_eq(flags_of(fds[0]), before);
    close(fds[0]);
    close(fds[1]);
    const int closed[] = {fds[0], -1, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++) {
        status = lport_descriptor_adopt(closed[i]);
        assert_kind(status, LPORT_INVALID);
        cr_assert_eq(lport_status_errno(status), EBADF);
    }
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    assert_kind(lport_descriptor_adopt(fd), LPORT_NOT_SUPPORTED);
    close(fd);
    fd = plain_socket(AF_NETLINK, SOCK_DGRAM); /* a kind of ours, but no family */
    assert_kind(lport_descriptor_adopt(fd), LPORT_NOT_SUPPORTED);
    close(fd);
}

/* Behaviour 61: two owners would close it twice. */
SOCKET_TEST(adopt, a_descriptor_has_one_owner) {
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    int fd = (int)lport_socket_descriptor(ends[0]);
    int64_t status = lport_descriptor_adopt(fd);
    assert_kind(status, LPORT_INVALID);
    cr_assert_eq(lport_status_errno(status), 0);
    assert_kind(lport_descriptor_inspect(fd), LPORT_INVALID);
    close_both(ends);
    int again = plain_socket(AF_INET, SOCK_STREAM); /* most likely the same number */
    int64_t socket = lport_descriptor_adopt(again);
    cr_assert_gt(socket, 0);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

enum { CONTESTED = 200, ROUNDS = 20 };

static struct {
    int fds[CONTESTED];
    int64_t sockets[2][CONTESTED]; /* what each thread got */
    pthread_barrier_t barrier;
} contest;

static int64_t adopt_each(void *data) {
    int64_t *sockets = data;
    pthread_barrier_wait(&contest.barrier);
    for (int i = 0; i < CONTESTED; i++) {
        sockets[i] = lport_descriptor_adopt(contest.fds[i]);
    }
    return 0;
}

/* Behaviour 61: also where two ask at once. */
SOCKET_TEST(adopt, of_two_threads_one_becomes_the_owner) {
    pthread_barrier_init(&contest.barrier, NULL, 2);
    for (int round = 0; round < ROUNDS; round++) {
        struct task tasks[2];
        for (int i = 0; i < CONTESTED; i++) {
            contest.fds[i] = plain_socket(AF_UNIX, SOCK_STREAM);
        }
        for (int i = 0; i < 2; i++) {
            task_start(&tasks[i], adopt_each, contest.sockets[i]);
        }
        for (int i = 0; i < 2; i++) {
            task_join(&tasks[i]);
        }
        for (int i = 0; i < CONTESTED; i++) {
            int winner = contest.sockets[0][i] > 0 ? 0 : 1;
            assert_kind(contest.sockets[1 - winner][i], LPORT_INVALID);
            cr_assert_eq(lport_socket_close(contest.sockets[winner][i], 0), 0);
        }
    }
    pthread_barrier_destroy(&contest.barrier);
}

static struct {
    struct lport_os os;
    int fd, child; /* how it ended */
} forking;

static int adopt_in_child(void *data) {
    (void)data;
    lport_os = forking.os;
    return lport_descriptor_adopt(forking.fd) > 0 ? 0 : 1;
}

static int fork_and_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    lport_os = forking.os;
    forking.child = in_child(adopt_in_child, NULL);
    return forking.os.getsockopt(fd, level, name, value, len);
}

/* Behaviour 61: a child has no thread that would let go of what keeps others from adopting. */
SOCKET_TEST(adopt, a_child_that_is_forked_in_between_can_adopt) {
    int fd = plain_socket(AF_UNIX, SOCK_STREAM);
    forking.fd = plain_socket(AF_UNIX, SOCK_STREAM);
    forking.child = -1;
    forking.os = lport_os;
    lport_os.getsockopt = fork_and_getsockopt;
    int64_t socket = lport_descriptor_adopt(fd);
    cr_assert_gt(socket, 0);
    cr_assert_eq(forking.child, 0);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
    close(forking.fd);
}

static int64_t adopt(void *data) {
    return lport_descriptor_adopt(*(int *)data);
}

SOCKET_TEST(adopt, a_descriptor_keeps_the_other_flags_that_it_has) {
    int fd = plain_socket(AF_INET, SOCK_DGRAM);
    cr_assert_eq(fcntl(fd, F_SETFL, O_ASYNC), 0);
    int before = fcntl(fd, F_GETFL);
    cr_assert((before & O_ASYNC) != 0);
    int64_t socket = adopt(&fd);
    cr_assert_gt(socket, 0);
    cr_assert_eq(fcntl(fd, F_GETFL), before | O_NONBLOCK);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

/* Behaviour 31: the system tells it once, and then pretends an end of file. */
SOCKET_TEST(adopt, a_connect_that_was_refused_is_so_for_ever) {
    uint8_t address[LPORT_ADDRESS_SIZE], octet;
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    memcpy(&in.sin_port, address + LPORT_AT_PORT, sizeof in.sin_port);
    assert_closes(listener);
    int fd = plain_socket(AF_INET, SOCK_STREAM);
    cr_assert_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&in, sizeof in), -1);
    cr_assert_eq(errno, EINPROGRESS);
    int64_t socket = adopt(&fd);
    cr_assert_gt(socket, 0);
    for (int i = 0; i < 3; i++) {
        int64_t status = receive_some(socket, &octet, 1, soon());
        assert_kind(status, LPORT_CONNECTION_LOST);
        cr_assert_eq(lport_status_errno(status), ECONNREFUSED);
        cr_assert_eq(send_some(socket, &octet, 1, soon()), status);
    }
    cr_assert_eq(lport_socket_state(socket), LPORT_STATE_BROKEN);
    assert_closes(socket);
}

/* Behaviours 61 and 64. */
SOCKET_TEST(adopt, a_failure_of_the_system_leaves_the_descriptor_as_it_was) {
    int fd = plain_socket(AF_INET, SOCK_STREAM);
    int64_t before = flags_of(fd);
    for (int64_t n = 1;; n++) {
        faults_fail(CALL_ANY, n, 1, ENOBUFS);
        int64_t socket = adopt(&fd);
        int64_t struck = faults_struck();
        faults_clear();
        if (socket > 0 && struck == 0) {
            cr_assert_gt(n, 5);
            cr_assert_eq(lport_socket_close(socket, 0), 0);
            return;
        }
        if (socket > 0) { /* the peer's name could not be asked for: then it has none */
            cr_assert_eq(lport_socket_close(socket, 0), 0);
            fd = plain_socket(AF_INET, SOCK_STREAM);
            continue;
        }
        cr_assert_eq(flags_of(fd), before, "call %lld", (long long)n);
        cr_assert_lt(n, 50);
    }
}

/* Behaviour 61: nothing is taken for an answer that is none. */
SOCKET_TEST(adopt, questions_that_the_system_does_not_answer_are_failures) {
    static const struct {
        enum call call;
        int64_t count;
    } questions[] = {{CALL_GETSOCKOPT, 4}, {CALL_FCNTL, 4}};
    int fd = plain_socket(AF_INET, SOCK_STREAM);
    int64_t first = lport_socket_open(LPORT_INET, LPORT_STREAM, 0);
    assert_closes(first);
    for (size_t i = 0; i < COUNT_OF(questions); i++) {
        for (int64_t n = 1; n <= questions[i].count; n++) {
            faults_fail(questions[i].call, n, 1, ENOBUFS);
            cr_assert_eq(lport_status_errno(lport_descriptor_adopt(fd)), ENOBUFS, "call %lld",
                         (long long)n);
            faults_clear();
        }
    }
    faults_resume();
    int64_t socket = lport_descriptor_adopt(fd);
    cr_assert_eq(lport_pool_index(socket), lport_pool_index(first), "each gives back its slot");
    assert_closes(socket);
}

/* ---- what the system hands over -------------------------------------------------------------- */

static void hand_over(const char *pid, const char *count, const char *names) {
    char own[16];
    (void)snprintf(own, sizeof own, "%d", (int)getpid());
    cr_assert_eq(setenv("LISTEN_PID", pid != NULL ? pid : own, 1), 0);
    cr_assert_eq(setenv("LISTEN_FDS", count, 1), 0);
    cr_assert_eq(names != NULL ? setenv("LISTEN_FDNAMES", names, 1) : unsetenv("LISTEN_FDNAMES"),
                 0);
}

/* Behaviour 61. */
SOCKET_TEST(adopt, descriptors_are_counted_if_they_are_for_this_process) {
    cr_assert_eq(lport_activation_count(), 0);
    hand_over(NULL, "3", NULL);
    cr_assert_eq(lport_activation_count(), 3);
    hand_over("1", "3", NULL);
    cr_assert_eq(lport_activation_count(), 0);
    static const char *wrong[] = {
        "", "x", "-1", " 1", "1 ", "3000000000", "99999999999999999999", "18446744073709551619"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        hand_over(NULL, wrong[i], NULL);
        assert_kind(lport_activation_count(), LPORT_INVALID);
        hand_over(wrong[i], "1", NULL);
        assert_kind(lport_activation_count(), LPORT_INVALID);
    }
    hand_over(NULL, "2147483647", "one");
    cr_assert_eq(lport_activation_count(), INT32_MAX);
    hand_over(NULL, "2147483648", "one");
    assert_kind(lport_activation_count(), LPORT_INVALID);
    hand_over(NULL, "1", "one");
    cr_assert_eq(unsetenv("LISTEN_FDS"), 0);
    cr_assert_eq(lport_activation_count(), 0);
    hand_over(NULL, "1", "one");
    cr_assert_eq(unsetenv("LISTEN_PID"), 0);
    cr_assert_eq(lport_activation_count(), 0);
    hand_over(NULL, "1", "one");
    cr_assert_eq(lport_activation_forget(), 0);
    cr_assert_null(getenv("LISTEN_PID"));
    cr_assert_null(getenv("LISTEN_FDS"));
    cr_assert_null(getenv("LISTEN_FDNAMES"));
    cr_assert_eq(lport_activation_count(), 0);
}

SOCKET_TEST(adopt, descriptors_have_names) {
    char text[32];
    hand_over(NULL, "4", "web:admin::");
    static const char *names[] = {"web", "admin", "", ""};
    for (int32_t i = 0; i < 4; i++) {
        cr_assert_eq(lport_activation_name(i, text, sizeof text), (int64_t)strlen(names[i]));
        cr_assert_str_eq(text, names[i]);
    }
    assert_kind(lport_activation_name(4, text, sizeof text), LPORT_INVALID);
    assert_kind(lport_activation_name(-1, text, sizeof text), LPORT_INVALID);
    hand_over(NULL, "3", "one");
    cr_assert_eq(lport_activation_name(2, text, sizeof text), 0);
    hand_over(NULL, "1", NULL);
    cr_assert_eq(lport_activation_name(0, text, sizeof text), 0);
    hand_over("1", "1", "one");
    assert_kind(lport_activation_name(0, text, sizeof text), LPORT_INVALID);
    cr_assert_eq(lport_activation_forget(), 0);
}
