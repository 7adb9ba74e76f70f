/* option: the flags of the functions that make sockets. */
#include "address/address.h"
#include "base/os.h"
#include "setting.h"
#include "socket/socket.h"
#include "support.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

static struct {
    struct lport_os os;
    int level, name;
    int value; /* that the latest call with these two gave */
} noted;

static int noting_setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
    if (level == noted.level && name == noted.name) {
        memcpy(&noted.value, value, sizeof noted.value);
    }
    return noted.os.setsockopt(fd, level, name, value, len);
}

/* What a new socket has by itself is a setting of the system, often the same. */
SOCKET_TEST(option, flags_hold_whatever_the_system_begins_with) {
    static const struct {
        int sort, flags, level, name, value;
    } rows[] = {
        {0, LPORT_KEEPALIVE, IPPROTO_TCP, TCP_KEEPCNT, 9}, /* net.ipv4.tcp_keepalive_probes */
        {1, 0, IPPROTO_IPV6, IPV6_V6ONLY, 0},              /* net.ipv6.bindv6only */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        faults_watch(); /* a call is replaced by our own */
        noted.os = lport_os;
        noted.level = rows[i].level;
        noted.name = rows[i].name;
        noted.value = -1;
        lport_os.setsockopt = noting_setsockopt;
        int64_t socket = open_sort(rows[i].sort, rows[i].flags);
        lport_os = noted.os;
        faults_resume();
        cr_assert_eq(noted.value, rows[i].value, "row %zu", i);
        cr_assert_eq(lport_socket_close(socket, 0), 0);
    }
}

/* Behaviour 64: of a socket that has not all that was asked for nobody would know. */
SOCKET_TEST(option, a_flag_that_cannot_be_set_is_no_socket) {
    NEED_INET6();
    for (int64_t n = 1; n <= 7; n++) { /* four of them for _KEEPALIVE, the last for IPv6 */
        faults_fail(CALL_SETSOCKOPT, n, 1, ENOBUFS);
        int64_t status = lport_socket_open(LPORT_INET6, LPORT_STREAM,
                                           LPORT_NODELAY | LPORT_KEEPALIVE | LPORT_REUSE_ADDRESS);
        faults_clear();
        assert_kind(status, LPORT_BUFFERS_EXHAUSTED);
    }
}

SOCKET_TEST(option, flags_set_what_they_say) {
    for (int sort = 0; sort < 2; sort++) {
        int64_t plain = open_sort(sort, 0);
        int64_t dressed = open_sort(sort, LPORT_NODELAY | LPORT_KEEPALIVE | LPORT_REUSE_ADDRESS |
                                              LPORT_REUSE_PORT);
        cr_assert_eq(get(dressed, "nodelay"), 1);
        cr_assert_eq(get(dressed, "keepalive"), 1);
        cr_assert_eq(get(dressed, "keepalive-idle"), 15 * SECOND);
        cr_assert_eq(get(dressed, "keepalive-interval"), 15 * SECOND);
        cr_assert_eq(get(dressed, "keepalive-count"), 9);
        cr_assert_eq(get(dressed, "reuse-address"), 1);
        cr_assert_eq(get(dressed, "reuse-port"), 1);
        cr_assert_eq(get(plain, "nodelay") + get(plain, "keepalive"), 0);
        cr_assert_eq(get(plain, "reuse-address") + get(plain, "reuse-port"), 0);
        cr_assert_eq(lport_socket_close(plain, 0), 0);
        cr_assert_eq(lport_socket_close(dressed, 0), 0);
    }
    int64_t both = open_sort(1, 0), six = open_sort(1, LPORT_V6_ONLY);
    cr_assert_eq(get(both, "v6-only"), 0);
    cr_assert_eq(get(six, "v6-only"), 1);
    cr_assert_eq(lport_socket_close(both, 0), 0);
    cr_assert_eq(lport_socket_close(six, 0), 0);
}

SOCKET_TEST(option, flags_that_mean_nothing_to_a_socket_are_passed_over) {
    faults_watch(); /* calls are counted */
    for (int sort = 4; sort < SORTS; sort++) {
        int64_t calls = faults_calls(CALL_SETSOCKOPT);
        int64_t socket = open_sort(sort, 63);
        cr_assert_eq(faults_calls(CALL_SETSOCKOPT), calls);
        cr_assert_eq(lport_socket_close(socket, 0), 0);
    }
}

/* Design: options are set once, on the listener, and inherited. */
SOCKET_TEST(option, connections_inherit_the_listeners_options) {
    uint8_t address[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    int64_t listener = lport_socket_listen(address, -1, LPORT_NODELAY | LPORT_KEEPALIVE, NULL, 0);
    cr_assert_gt(lport_socket_name(listener, address), 0);
    loopback(LPORT_INET, lport_address_port(address), address);
    int64_t client = connect_to(address);
    cr_assert_eq(wait_for(listener, LPORT_INPUT, soon()), LPORT_INPUT);
    faults_watch(); /* calls are counted */
    int64_t server = lport_socket_accept(listener, NULL);
    cr_assert_eq(faults_calls(CALL_ANY), 1, "an accept is one system call");
    cr_assert_gt(server, 0);
    cr_assert_eq(get(server, "nodelay"), 1);
    cr_assert_eq(get(server, "keepalive"), 1);
    cr_assert_eq(get(server, "keepalive-idle"), 15 * SECOND);
    cr_assert_eq(get(server, "keepalive-interval"), 15 * SECOND);
    cr_assert_eq(get(server, "keepalive-count"), 9);
    cr_assert_eq(lport_socket_close(server, 0), 0);
    cr_assert_eq(lport_socket_close(client, 0), 0);
    cr_assert_eq(lport_socket_close(listener, 0), 0);
}
