/* socket: listening and accepting. */
#include "address/address.h"
#include "listening.h"
#include "socket/socket.h"
#include "support.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- listening ------------------------------------------------------------------------------- */

/* Behaviour 54. */
SOCKET_TEST(socket, port_0_becomes_a_real_one_and_is_then_taken) {
    for (size_t i = 0; i < FAMILIES_HERE(inets); i++) {
        uint8_t address[LPORT_ADDRESS_SIZE];
        int64_t listener = listen_on_loopback(inets[i], address);
        cr_assert_gt(lport_address_port(address), 0);
        assert_kind(lport_socket_listen(address, -1, LPORT_REUSE_ADDRESS, NULL, 0),
                    LPORT_ADDRESS_IN_USE);
        assert_kind(lport_socket_listen(address, -1, 0, NULL, 0), LPORT_ADDRESS_IN_USE);
        assert_closes(listener);
    }
}

/* Behaviour 54: the side that closes first keeps TIME_WAIT; the port can be listened on all the
 * same, and at once. */
SOCKET_TEST(socket, a_port_with_connections_in_time_wait_can_be_listened_on) {
    for (size_t i = 0; i < FAMILIES_HERE(inets); i++) {
        uint8_t address[LPORT_ADDRESS_SIZE], octet;
        int64_t listener = listen_on_loopback(inets[i], address);
        int64_t client = connect_to(address);
        int64_t server = accept_one(listener, soon());
        assert_closes(server);
        cr_assert_eq(receive_some(client, &octet, 1, soon()), 0);
        assert_closes(client);
        assert_closes(listener);
        assert_kind(lport_socket_listen(address, -1, 0, NULL, 0),
                    LPORT_ADDRESS_IN_USE); /* it is there */
        listener = lport_socket_listen(address, -1, LPORT_REUSE_ADDRESS, NULL, 0);
        cr_assert_gt(listener, 0, "%lld", (long long)listener);
        assert_closes(listener);
    }
}

SOCKET_TEST(socket, reuse_port_lets_two_listeners_share) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    loopback(LPORT_INET, 0, address);
    int64_t first = lport_socket_listen(address, -1, LPORT_REUSE_PORT, NULL, 0);
    lport_address_set_port(address, port_of(first));
    int64_t second = lport_socket_listen(address, -1, LPORT_REUSE_PORT, NULL, 0);
    cr_assert(first > 0 && second > 0);
    assert_closes(first);
    assert_closes(second);
}

SOCKET_TEST(socket, addresses_that_cannot_be_listened_on_are_refused) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    cr_assert_gt(lport_address_parse("192.0.2.1", 9, 0, address), 0);
    assert_kind(lport_socket_listen(address, -1, 0, NULL, 0), LPORT_ADDRESS_NOT_AVAILABLE);
    cr_assert_gt(lport_address_parse("2001:db8::1", 11, 0, address), 0);
    assert_kind(lport_socket_listen(address, -1, 0, NULL, 0), LPORT_ADDRESS_NOT_AVAILABLE);
    cr_assert_gt(lport_address_local("@x", 2, address), 0);
    assert_kind(lport_socket_listen(address, -1, 0, NULL, 0), LPORT_INVALID);
    for (int family = 0; family < 256; family++) {
        if (family != LPORT_ANY && family != LPORT_INET && family != LPORT_INET6) {
            assert_kind(listen_at(family, 0, 0), LPORT_INVALID);
        }
    }
}

/* Behaviour 55: one listener for both, and a peer of IPv4 is shown as one. */
SOCKET_TEST(socket, the_wildcard_takes_both_families_and_shows_each_peer_as_what_it_is) {
    int64_t listener = listen_at(LPORT_ANY, 0, LPORT_REUSE_ADDRESS);
    cr_assert_gt(listener, 0);
    for (size_t i = 0; i < FAMILIES_HERE(inets); i++) {
        uint8_t address[LPORT_ADDRESS_SIZE], peer[LPORT_ADDRESS_SIZE], name[LPORT_ADDRESS_SIZE];
        loopback(inets[i], port_of(listener), address);
        int64_t client = connect_to(address);
        int64_t server = accept_one(listener, soon());
        cr_assert(client > 0 && server > 0);
        cr_assert_eq(lport_socket_peer(server, peer), inets[i]);
        cr_assert_eq(lport_socket_name(client, name), inets[i]);
        cr_assert_arr_eq(peer, name, LPORT_ADDRESS_SIZE);
        cr_assert_eq(lport_socket_name(server, name), inets[i]);
        cr_assert_eq(lport_socket_peer(client, peer), inets[i]);
        cr_assert_arr_eq(peer, name, LPORT_ADDRESS_SIZE);
        cr_assert_arr_eq(name, address, LPORT_ADDRESS_SIZE);
        assert_closes(client);
        assert_closes(server);
    }
    assert_closes(listener);
}

/* Behaviour 55. */
SOCKET_TEST(socket, a_dual_stack_listener_conflicts_with_both_families) {
    int64_t both = listen_at(LPORT_ANY, 0, LPORT_REUSE_ADDRESS);
    int32_t port = port_of(both);
    assert_kind(listen_at(LPORT_INET, port, LPORT_REUSE_ADDRESS), LPORT_ADDRESS_IN_USE);
    assert_kind(listen_at(LPORT_INET6, port, LPORT_REUSE_ADDRESS), LPORT_ADDRESS_IN_USE);
    assert_kind(listen_at(LPORT_ANY, port, LPORT_REUSE_ADDRESS), LPORT_ADDRESS_IN_USE);
    assert_closes(both);
    int64_t four = listen_at(LPORT_INET, 0, LPORT_REUSE_ADDRESS);
    assert_kind(listen_at(LPORT_ANY, port_of(four), LPORT_REUSE_ADDRESS), LPORT_ADDRESS_IN_USE);
    int64_t six = listen_at(LPORT_INET6, port_of(four), LPORT_REUSE_ADDRESS);
    cr_assert_gt(six, 0, "IPv6 alone and IPv4 alone do not conflict: %lld", (long long)six);
    assert_closes(four);
    assert_closes(six);
}

/* A listener whose port is free of IPv4, and is kept so by HOLDER, which is bound to it. A listener
 * of both families has none. */
static int64_t listen_without_inet(int32_t family, int32_t flags, int *holder) {
    for (int i = 0; i < 20; i++) { /* others may have the port of the one family and of the other */
        int64_t listener = listen_at(family, 0, flags);
        cr_assert_gt(listener, 0);
        struct sockaddr_in own = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port_of(listener)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        *holder = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (bind(*holder, (const struct sockaddr *)&own, sizeof own) == 0) {
            return listener;
        }
        close(*holder);
        assert_closes(listener);
    }
    cr_assert_fail("no port of IPv6 is free of IPv4");
    return 0;
}

/* Behaviour 55. */
SOCKET_TEST(socket, ipv6_listeners_are_ipv6_only) {
    static const struct {
        int32_t family, flags;
    } rows[] = {{LPORT_INET6, LPORT_REUSE_ADDRESS},
                {LPORT_ANY, LPORT_REUSE_ADDRESS | LPORT_V6_ONLY}};
    uint8_t address[LPORT_ADDRESS_SIZE];
    NEED_INET6();
    for (int i = 0; i < 2; i++) {
        int holder;
        int64_t listener = listen_without_inet(rows[i].family, rows[i].flags, &holder);
        loopback(LPORT_INET, port_of(listener), address);
        assert_kind(connect_to(address), LPORT_CONNECTION_REFUSED);
        loopback(LPORT_INET6, port_of(listener), address);
        int64_t client = connect_to(address);
        cr_assert_gt(client, 0);
        assert_closes(client);
        assert_closes(listener);
        close(holder);
    }
}

/* An IPv6 socket for IPv6 alone, as which they would be opened, takes no IPv4-mapped address. */
SOCKET_TEST(socket, a_mapped_address_is_listened_on_as_the_ipv4_one) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    cr_assert_eq(lport_address_parse("::ffff:127.0.0.1", 16, 0, address), LPORT_INET6);
    int64_t listener = lport_socket_listen(address, -1, 0, NULL, 0);
    cr_assert_gt(listener, 0, "%lld", (long long)listener);
    cr_assert_eq(lport_socket_name(listener, address), LPORT_INET);
    int64_t client = connect_to(address);
    cr_assert_gt(client, 0);
    assert_closes(client);
    assert_closes(listener);
}

/* The manual: an IPv4 one where the system has no IPv6. */
SOCKET_TEST(socket, without_ipv6_the_wildcard_is_ipv4) {
    static const struct {
        enum call call;
        int error;
    } lacks[] = {{CALL_SOCKET, EAFNOSUPPORT}, {CALL_BIND, EADDRNOTAVAIL}};
    for (size_t i = 0; i < sizeof lacks / sizeof *lacks; i++) {
        uint8_t address[LPORT_ADDRESS_SIZE];
        faults_fail(lacks[i].call, 1, 1, lacks[i].error);
        int64_t listener = listen_at(LPORT_ANY, 0, 0);
        faults_clear();
        cr_assert_gt(listener, 0);
        cr_assert_eq(lport_socket_name(listener, address), LPORT_INET);
        lport_address_set_port(address, 0);
        cr_assert_arr_eq(address + LPORT_AT_OCTETS, ((uint8_t[4]){0}), 4);
        assert_closes(listener);
    }
}

/* ---- accepting ------------------------------------------------------------------------------- */

SOCKET_TEST(socket, accept_takes_the_queue_in_order_and_then_would_block) {
    uint8_t address[LPORT_ADDRESS_SIZE], peer[LPORT_ADDRESS_SIZE], name[LPORT_ADDRESS_SIZE];
    int64_t clients[5];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    assert_kind(undisturbed(lport_socket_accept(listener, NULL)), LPORT_WOULD_BLOCK);
    for (int i = 0; i < 5; i++) {
        clients[i] = connect_to(address);
    }
    for (int i = 0; i < 5; i++) {
        int64_t server = accept_one(listener, soon());
        cr_assert_gt(server, 0);
        cr_assert_eq(lport_socket_peer(server, peer), LPORT_INET);
        cr_assert_eq(lport_socket_name(clients[i], name), LPORT_INET);
        cr_assert_arr_eq(peer, name, LPORT_ADDRESS_SIZE);
        assert_closes(server);
        assert_closes(clients[i]);
    }
    assert_kind(undisturbed(lport_socket_accept(listener, NULL)), LPORT_WOULD_BLOCK);
    assert_closes(listener);
}

SOCKET_TEST(socket, only_listeners_accept) {
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    assert_kind(undisturbed(lport_socket_accept(ends[0], NULL)), LPORT_INVALID);
    close_both(ends);
    make_datagram_ends(ends);
    assert_kind(undisturbed(lport_socket_accept(ends[0], NULL)), LPORT_NOT_SUPPORTED);
    close_both(ends);
}

/* Behaviour 57: what died in the queue is skipped; signals too. */
SOCKET_TEST(socket, accept_skips_connections_that_were_aborted) {
    static const int errors[] = {ECONNABORTED, EPROTO, ENETDOWN, ENOPROTOOPT,
                                 EHOSTDOWN,    ENONET, EINTR,    EHOSTUNREACH,
                                 ENETUNREACH,  EPERM,  ETIMEDOUT};
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        int64_t client = connect_to(address);
        cr_assert_eq(wait_for(listener, LPORT_INPUT, soon()), LPORT_INPUT);
        faults_fail(CALL_ACCEPT4, 1, 3, errors[i]);
        int64_t server = lport_socket_accept(listener, NULL);
        cr_assert_gt(server, 0, "errno %d: %lld", errors[i], (long long)server);
        faults_clear();
        faults_fail(CALL_ACCEPT4, 1, 3, errors[i]);
        assert_kind(lport_socket_accept(listener, NULL), LPORT_WOULD_BLOCK);
        faults_clear();
        assert_closes(server);
        assert_closes(client);
    }
    assert_closes(listener);
}

/* Behaviour 55 too: of the wildcard, a peer of IPv4 is one. */
SOCKET_TEST(socket, accept_tells_the_peer) {
    static const int32_t listeners[] = {LPORT_ANY, LPORT_INET, LPORT_LOCAL, LPORT_INET6};
    for (size_t i = 0; i < FAMILIES_HERE(listeners); i++) {
        uint8_t address[LPORT_ADDRESS_SIZE], told[LPORT_ADDRESS_SIZE], name[LPORT_ADDRESS_SIZE];
        int64_t listener = listen_on_loopback(listeners[i], address);
        int64_t client = connect_to(address);
        memset(told, 0xee, sizeof told);
        assert_kind(undisturbed(lport_socket_accept(client, told)), LPORT_INVALID);
        cr_assert_eq(told[0], 0xee, "a failure writes nothing");
        cr_assert_eq(wait_for(listener, LPORT_INPUT, soon()), LPORT_INPUT);
        faults_fail(CALL_ACCEPT4, 1, 2, ECONNABORTED);
        int64_t server = lport_socket_accept(listener, told);
        faults_clear();
        cr_assert_gt(server, 0);
        cr_assert_gt(lport_socket_name(client, name), 0);
        cr_assert_arr_eq(told, name, LPORT_ADDRESS_SIZE);
        assert_closes(server);
        assert_closes(client);
        assert_closes(listener);
    }
}

/* Behaviour 57: a client that is gone before the accept does no harm. */
SOCKET_TEST(socket, accept_after_the_client_has_reset_is_a_connection_or_none) {
    uint8_t address[LPORT_ADDRESS_SIZE], octet;
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    int64_t client = connect_to(address);
    cr_assert_eq(lport_socket_close(client, LPORT_RESET), 0);
    int64_t server = undisturbed(lport_socket_accept(listener, NULL));
    if (server > 0) {
        assert_kind(receive_some(server, &octet, 1, soon()), LPORT_CONNECTION_RESET);
        assert_closes(server);
    } else {
        assert_kind(server, LPORT_WOULD_BLOCK);
    }
    assert_closes(listener);
}

/* A system that refuses every accept (seccomp, say) must not make it spin. */
SOCKET_TEST(socket, accept_gives_up_when_nothing_but_errors_comes) {
    static const int errors[] = {EPERM, ECONNABORTED, EINTR};
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        faults_fail(CALL_ACCEPT4, 1, INT64_MAX, errors[i]);
        cr_assert_lt(lport_socket_accept(listener, NULL), 0);
        faults_clear();
    }
    assert_closes(listener);
}

/* Behaviour 57: at the limit a status, at once; the client stays in the queue and is served when
 * there is room. */
SOCKET_TEST(socket, accept_at_the_descriptor_limit_loses_nobody) {
    struct rlimit limit, low;
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    int64_t client = connect_to(address);
    int64_t statuses[20];
    cr_assert_eq(wait_for(listener, LPORT_INPUT, soon()), LPORT_INPUT);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    for (int i = 0; i < 20; i++) {
        statuses[i] = undisturbed(lport_socket_accept(listener, NULL));
    }
    int64_t opened = lport_socket_open(LPORT_INET, LPORT_STREAM, 0);
    int64_t listening = lport_socket_listen(address, -1, 0, NULL, 0);
    int64_t count = lport_socket_count();
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (int i = 0; i < 20; i++) {
        assert_kind(statuses[i], LPORT_DESCRIPTORS_EXHAUSTED);
    }
    assert_kind(opened, LPORT_DESCRIPTORS_EXHAUSTED);
    assert_kind(listening, LPORT_DESCRIPTORS_EXHAUSTED);
    cr_assert_eq(count, 2);
    cr_assert_eq(wait_for(listener, LPORT_INPUT, 0), LPORT_INPUT);
    int64_t server = undisturbed(lport_socket_accept(listener, NULL));
    cr_assert_gt(server, 0);
    assert_closes(server);
    assert_closes(client);
    assert_closes(listener);
}

enum { ACCEPTERS = 10, DIALLERS = 10, DIALS = 10 };

static struct {
    int64_t listener;
    uint8_t address[LPORT_ADDRESS_SIZE];
    _Atomic int served;
} crowd;

static int64_t serve_until_closed(void *data) {
    (void)data;
    for (;;) {
        uint8_t octet;
        int64_t server = accept_one(crowd.listener, soon());
        if (server < 0) {
            return server;
        }
        if (receive_some(server, &octet, 1, soon()) == 1 &&
            send_some(server, &octet, 1, soon()) == 1) {
            atomic_fetch_add(&crowd.served, 1);
        }
        lport_socket_close(server, 0);
    }
}

static int64_t dial_and_talk(void *data) {
    int64_t well = 0;
    for (int i = 0; i < DIALS; i++) {
        uint8_t sent = (uint8_t)((intptr_t)data * DIALS + i), received = 0;
        int64_t client = connect_to(crowd.address);
        if (client > 0 && send_some(client, &sent, 1, soon()) == 1 &&
            receive_some(client, &received, 1, soon()) == 1 && received == sent) {
            well++;
        }
        lport_socket_close(client, 0);
    }
    return well;
}

/* Behaviour 58. */
SOCKET_TEST(socket, ten_threads_serve_a_hundred_clients_and_all_end_at_the_close) {
    static const int32_t families[] = {LPORT_INET, LPORT_LOCAL};
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        struct task accepters[ACCEPTERS], diallers[DIALLERS];
        crowd.listener = listen_on_loopback(families[i], crowd.address);
        atomic_store(&crowd.served, 0);
        for (int j = 0; j < ACCEPTERS; j++) {
            task_start(&accepters[j], serve_until_closed, NULL);
        }
        for (int j = 0; j < DIALLERS; j++) {
            task_start(&diallers[j], dial_and_talk, (void *)(intptr_t)j);
        }
        for (int j = 0; j < DIALLERS; j++) {
            cr_assert_eq(task_join(&diallers[j]), DIALS);
        }
        cr_assert_geq(lport_socket_close(crowd.listener, 0), 0);
        for (int j = 0; j < ACCEPTERS; j++) {
            assert_kind(task_join(&accepters[j]), LPORT_CLOSED);
        }
        cr_assert_eq(atomic_load(&crowd.served), DIALLERS * DIALS);
        cr_assert_eq(lport_socket_gone(crowd.listener, soon()), 0);
    }
}
