/* socket: connecting, names, shutting down; descriptors, and calls that fail. */
#include "address/address.h"
#include "base/os.h"
#include "listening.h"
#include "socket/socket.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

TestSuite(socket, .timeout = 20);

/* ---- connecting ------------------------------------------------------------------------------ */

SOCKET_TEST(socket, a_connect_to_nobody_is_refused) {
    for (size_t i = 0; i < FAMILIES_HERE(inets); i++) {
        uint8_t address[LPORT_ADDRESS_SIZE];
        int64_t listener = listen_on_loopback(inets[i], address);
        assert_closes(listener);
        assert_kind(connect_to(address), LPORT_CONNECTION_REFUSED);
    }
    uint8_t address[LPORT_ADDRESS_SIZE];
    cr_assert_gt(lport_address_local("/nowhere/at/all", 15, address), 0);
    assert_kind(connect_to(address), LPORT_PATH_NOT_FOUND);
    cr_assert_gt(lport_address_local("@port-test-nobody", 17, address), 0);
    assert_kind(connect_to(address), LPORT_CONNECTION_REFUSED);
}

/* Behaviour 52: bind(p) and connect(p) on loopback reach themselves. */
SOCKET_TEST(socket, a_connection_to_itself_is_a_refused_one) {
    for (size_t i = 0; i < FAMILIES_HERE(inets); i++) {
        uint8_t address[LPORT_ADDRESS_SIZE];
        int64_t socket = lport_socket_open(inets[i], LPORT_STREAM, LPORT_REUSE_ADDRESS);
        loopback(inets[i], 0, address);
        cr_assert_eq(lport_socket_bind(socket, address), 0);
        cr_assert_eq(lport_socket_name(socket, address), inets[i]);
        int64_t status = lport_socket_connect_start(socket, address);
        while (lport_status_kind(status) == LPORT_IN_PROGRESS) {
            cr_assert_gt(wait_for(socket, LPORT_OUTPUT, soon()), 0);
            status = lport_socket_connect_finish(socket);
        }
        assert_kind(status, LPORT_CONNECTION_REFUSED);
        cr_assert_eq(lport_status_errno(status), 0);
        assert_closes(socket);
    }
}

static struct lport_os real;

static int connect_then_signal(int fd, const struct sockaddr *address, socklen_t len) {
    real.connect(fd, address, len);
    errno = EINTR;
    return -1;
}

/* Behaviour 52: an interrupted connect goes on and is waited for. */
SOCKET_TEST(socket, an_interrupted_connect_is_in_progress) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    int64_t socket = lport_socket_open(LPORT_INET, LPORT_STREAM, 0);
    real = lport_os;
    lport_os.connect = connect_then_signal;
    int64_t status = lport_socket_connect_start(socket, address);
    lport_os = real;
    assert_kind(status, LPORT_IN_PROGRESS);
    cr_assert_eq(wait_for(socket, LPORT_OUTPUT, soon()), LPORT_OUTPUT);
    cr_assert_eq(lport_socket_connect_finish(socket), 0);
    assert_closes(socket);
    assert_closes(listener);
}

SOCKET_TEST(socket, a_local_listener_whose_queue_is_full_is_tried_again_on_the_same_socket) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    char name[64];
    int len = snprintf(name, sizeof name, "@port-test-full-%d", (int)getpid());
    cr_assert_gt(lport_address_local(name, (size_t)len, address), 0);
    int64_t listener = lport_local_listen(address, LPORT_STREAM, 0, -1, 0, NULL, 0);
    int64_t first = connect_to(address);
    int64_t second = lport_socket_open(LPORT_LOCAL, LPORT_STREAM, 0);
    assert_kind(lport_socket_connect_start(second, address), LPORT_BACKLOG_FULL);
    assert_kind(lport_socket_connect_start(second, address), LPORT_BACKLOG_FULL);
    int64_t server = undisturbed(lport_socket_accept(listener, NULL));
    cr_assert_gt(server, 0);
    cr_assert_eq(lport_socket_connect_start(second, address), 0);
    assert_closes(server);
    assert_closes(first);
    assert_closes(second);
    assert_closes(listener);
}

SOCKET_TEST(socket, a_connect_keeps_the_local_address_that_was_bound) {
    uint8_t address[LPORT_ADDRESS_SIZE], own[LPORT_ADDRESS_SIZE], seen[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    int64_t socket = lport_socket_open(LPORT_INET, LPORT_STREAM, 0);
    cr_assert_gt(lport_address_parse("127.9.8.7", 9, 0, own), 0);
    cr_assert_eq(lport_socket_bind(socket, own), 0);
    cr_assert_eq(lport_socket_name(socket, own), LPORT_INET);
    assert_kind(lport_socket_connect_start(socket, address), LPORT_IN_PROGRESS);
    int64_t server = accept_one(listener, soon());
    cr_assert_eq(lport_socket_peer(server, seen), LPORT_INET);
    cr_assert_arr_eq(seen, own, LPORT_ADDRESS_SIZE);
    assert_closes(server);
    assert_closes(socket);
    assert_closes(listener);
}

/* ---- names ----------------------------------------------------------------------------------- */

SOCKET_TEST(socket, what_is_not_connected_has_no_peer) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    int64_t socket = lport_socket_open(LPORT_INET, LPORT_STREAM, 0);
    assert_kind(lport_socket_peer(listener, address), LPORT_NOT_CONNECTED);
    assert_kind(lport_socket_peer(socket, address), LPORT_NOT_CONNECTED);
    cr_assert_eq(lport_socket_name(socket, address), LPORT_INET);
    cr_assert_eq(lport_address_port(address), 0);
    assert_closes(socket);
    assert_closes(listener);
}

SOCKET_TEST(socket, local_pairs_have_no_names) {
    static const int32_t kinds[] = {LPORT_STREAM, LPORT_DATAGRAM, LPORT_SEQPACKET};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        uint8_t address[LPORT_ADDRESS_SIZE], octet = 3;
        int64_t ends[2];
        cr_assert_eq(lport_socket_pair(kinds[i], ends), 0);
        cr_assert_eq(lport_socket_name(ends[0], address), LPORT_LOCAL);
        cr_assert_eq(address[LPORT_AT_LENGTH], 0);
        cr_assert_eq(lport_socket_peer(ends[0], address), LPORT_LOCAL);
        cr_assert_eq(address[LPORT_AT_LENGTH], 0);
        for (int j = 0; j < 2; j++) {
            cr_assert_eq(undisturbed(lport_socket_send(ends[j], &octet, 1)), 1);
            cr_assert_eq(undisturbed(lport_socket_receive(ends[1 - j], &octet, 1, 0)), 1);
        }
        close_both(ends);
    }
    int64_t ends[2] = {-5, -5};
    for (int32_t kind = -1; kind < 9; kind++) {
        if (kind != LPORT_STREAM && kind != LPORT_DATAGRAM && kind != LPORT_SEQPACKET) {
            assert_kind(lport_socket_pair(kind, ends), LPORT_INVALID);
        }
    }
    cr_assert(ends[0] == -5 && ends[1] == -5);
}

/* ---- shutting down --------------------------------------------------------------------------- */

SOCKET_TEST(socket, shutdown_asks_for_a_direction_and_a_connection) {
    static const int32_t wrong[] = {0, LPORT_HANGUP, 7, 8, -1, INT32_MAX, INT32_MIN};
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_kind(lport_socket_shutdown(ends[0], wrong[i]), LPORT_INVALID);
    }
    cr_assert_eq(lport_socket_state(ends[0]), 0);
    close_both(ends);
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    assert_kind(lport_socket_shutdown(listener, LPORT_INPUT), LPORT_NOT_CONNECTED);
    int64_t client = connect_to(address);
    cr_assert_gt(client, 0, "a listener goes on after a shutdown that was refused");
    assert_closes(client);
    assert_closes(listener);
}

SOCKET_TEST(socket, a_shutdown_that_fails_is_told_and_shuts_nothing_down) {
    uint8_t octet = 1;
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    faults_fail(CALL_SHUTDOWN, 1, 1, ENOBUFS);
    assert_kind(lport_socket_shutdown(ends[0], LPORT_OUTPUT), LPORT_BUFFERS_EXHAUSTED);
    faults_clear();
    cr_assert_eq(lport_socket_state(ends[0]), 0);
    cr_assert_eq(send_all(ends[0], &octet, 1, soon()), 1);
    close_both(ends);
}

/* Behaviour 18: shut down three times. */
SOCKET_TEST(socket, shutting_down_again_is_quiet) {
    static const int32_t directions[] = {LPORT_INPUT, LPORT_OUTPUT, LPORT_INPUT | LPORT_OUTPUT};
    static const int32_t families[] = {LPORT_INET, LPORT_LOCAL, LPORT_INET6};
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        for (size_t j = 0; j < sizeof directions / sizeof *directions; j++) {
            int64_t ends[2];
            make_connection(families[i], ends);
            for (int k = 0; k < 3; k++) {
                cr_assert_eq(lport_socket_shutdown(ends[0], directions[j]), 0);
                cr_assert_eq(lport_socket_shutdown(ends[1], directions[j]), 0);
            }
            close_both(ends);
        }
    }
}

/* ---- descriptors ----------------------------------------------------------------------------- */

struct seen {
    int below, count;
};

static void check_flags(int fd, const char *what, void *data) {
    struct seen *seen = data;
    bool ours = strncmp(what, "socket:", 7) == 0 || strcmp(what, EVENTFD) == 0;
    if (!ours || fd < seen->below) {
        return;
    }
    seen->count++;
    cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC, "%d (%s) outlives exec", fd, what);
    cr_assert(fcntl(fd, F_GETFL) & O_NONBLOCK, "%d (%s) blocks", fd, what);
}

/* Behaviour 60. */
SOCKET_TEST(socket, every_descriptor_is_close_on_exec_and_non_blocking) {
    static const int32_t kinds[] = {LPORT_STREAM, LPORT_DATAGRAM, LPORT_SEQPACKET};
    int64_t sockets[32], waits[3], ends[2];
    uint8_t address[LPORT_ADDRESS_SIZE];
    int count = 0;
    struct seen seen = {.below = dup(0)};
    cr_assert_geq(seen.below, 0);
    close(seen.below);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(lport_socket_pair(kinds[i], &sockets[count]), 0);
        count += 2;
        sockets[count++] = lport_socket_open(LPORT_LOCAL, kinds[i], 0);
        cr_assert_gt(lport_address_local((const char *[]){"@pt1", "@pt2", "@pt3"}[i], 4, address),
                     0);
        sockets[count++] = lport_local_listen(address, kinds[i], 1, -1, 0, NULL, 0);
    }
    for (size_t i = 0; i < FAMILIES_HERE(inets); i++) {
        sockets[count++] = listen_on_loopback(inets[i], address);
        make_connection(inets[i], &sockets[count]);
        count += 2;
    }
    sockets[count++] = listen_at(LPORT_ANY, 0, 0);
    make_connection(LPORT_LOCAL, ends);
    for (int i = 0; i < 3; i++) {
        waits[i] = lport_wait_begin(ends[0], LPORT_INPUT);
    }
    each_descriptor(check_flags, &seen);
    cr_assert_eq(seen.count, count + 2 + 3);
    for (int i = 0; i < count; i++) {
        assert_closes(sockets[i]);
    }
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(lport_wait_end(waits[i]), 0);
    }
    close_both(ends);
}

/* ---- the n-th call fails --------------------------------------------------------------------- */

struct making {
    int32_t family, kind, flags;
    int64_t listener;
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t ends[2];
};

static int64_t make_open(void *data) {
    struct making *making = data;
    return lport_socket_open(making->family, making->kind, making->flags);
}

static int64_t make_listener(void *data) {
    struct making *making = data;
    return listen_at(making->family, 0, making->flags);
}

static int64_t make_accepted(void *data) {
    struct making *making = data;
    return lport_socket_accept(making->listener, NULL);
}

static int64_t make_pair(void *data) {
    struct making *making = data;
    making->ends[0] = making->ends[1] = 0;
    return lport_socket_pair(making->kind, making->ends);
}

static void close_made(void *data, int64_t socket) {
    (void)data;
    cr_assert_neq(socket, 0, "neither a socket nor a failure");
    if (socket > 0) {
        assert_closes(socket);
    }
}

static void close_pair(void *data, int64_t result) {
    struct making *making = data;
    if (result == 0) {
        cr_assert(making->ends[0] > 0 && making->ends[1] > 0, "neither a pair nor a failure");
        close_both(making->ends);
    }
}

/* Behaviour 64. */
SOCKET_TEST(socket, a_socket_that_cannot_be_made_leaves_nothing) {
    static const int32_t families[] = {LPORT_INET, LPORT_LOCAL, LPORT_INET6};
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        struct making making = {.family = families[i], .kind = LPORT_STREAM, .flags = 63};
        fail_every_call(make_open, close_made, &making);
        making.kind = LPORT_DATAGRAM;
        fail_every_call(make_open, close_made, &making);
    }
    assert_kind(lport_socket_open(LPORT_ANY, LPORT_STREAM, 0), LPORT_INVALID);
    assert_kind(lport_socket_open(LPORT_INET, 0, 0), LPORT_INVALID);
}

/* Behaviour 64. */
SOCKET_TEST(socket, a_listener_that_cannot_be_made_leaves_nothing) {
    static const int32_t families[] = {LPORT_ANY, LPORT_INET, LPORT_INET6};
    static const int32_t flags[] = {0, LPORT_REUSE_ADDRESS | LPORT_NODELAY | LPORT_KEEPALIVE, 31};
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
            struct making making = {.family = families[i], .flags = flags[j]};
            fail_every_call(make_listener, close_made, &making);
        }
    }
}

/* As where two have bound a port, and the other one listens (SO_REUSEADDR of socket(7)). */
SOCKET_TEST(socket, an_address_that_is_in_use_only_for_listening_is_told) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    loopback(LPORT_INET, 0, address);
    faults_fail(CALL_LISTEN, 1, 1, EADDRINUSE);
    assert_kind(lport_socket_listen(address, -1, 0, NULL, 0), LPORT_ADDRESS_IN_USE);
    faults_clear();
}

/* Behaviour 64: and the client is still there for the accept that succeeds. */
SOCKET_TEST(socket, an_accept_that_fails_leaves_the_client_in_the_queue) {
    struct making making;
    making.listener = listen_on_loopback(LPORT_INET, making.address);
    int64_t client = connect_to(making.address);
    fail_every_call(make_accepted, close_made, &making);
    assert_closes(client);
    assert_closes(making.listener);
}

/* Behaviour 64. */
SOCKET_TEST(socket, a_pair_that_cannot_be_made_leaves_nothing) {
    struct making making = {.kind = LPORT_SEQPACKET};
    fail_every_call(make_pair, close_pair, &making);
}

static int64_t make_connected(void *data) {
    struct making *making = data;
    return connect_to(making->address);
}

SOCKET_TEST(socket, a_connect_that_cannot_be_asked_about_has_failed) {
    int64_t socket = lport_socket_open(LPORT_INET, LPORT_STREAM, 0);
    static const enum call calls[] = {CALL_GETPEERNAME, CALL_GETSOCKOPT};
    for (size_t i = 0; i < COUNT_OF(calls); i++) {
        faults_fail(calls[i], 1, 1, ENOBUFS);
        assert_kind(lport_socket_connect_finish(socket), LPORT_BUFFERS_EXHAUSTED);
    }
    faults_resume();
    assert_closes(socket);
}

/* Behaviour 64. */
SOCKET_TEST(socket, a_connect_that_fails_leaves_nothing) {
    static const int32_t families[] = {LPORT_INET, LPORT_LOCAL, LPORT_INET6};
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        struct making making;
        making.listener = listen_on_loopback(families[i], making.address);
        fail_every_call(make_connected, close_made, &making);
        assert_closes(making.listener);
    }
}
