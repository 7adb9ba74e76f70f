/* option: settings, which a socket has from its beginning. */
#include "address/address.h"
#include "base/os.h"
#include "listening.h"
#include "setting.h"
#include "socket/socket.h"
#include "support.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum { OPENERS = 5 };

/* A socket with the COUNT settings at ROWS by one function after the other: listeners, of both
 * families and of IPv4; datagram sockets; a local one. */
static int64_t open_with(int opener, const uint8_t *rows, int32_t count) {
    uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_ANY}, inet[LPORT_ADDRESS_SIZE];
    uint8_t name[LPORT_ADDRESS_SIZE];
    loopback(LPORT_INET, 0, inet);
    cr_assert_gt(lport_address_local("@settings", 9, name), 0);
    switch (opener) {
    case 0:
        return lport_socket_listen(any, -1, 0, rows, count);
    case 1:
        return lport_socket_listen(inet, -1, LPORT_NODELAY, rows, count);
    case 2:
        return lport_datagram_open(any, NULL, 0, rows, count);
    case 3:
        return lport_datagram_open(inet, NULL, 0, rows, count);
    default:
        return lport_local_listen(name, LPORT_STREAM, -1, -1, 0, rows, count);
    }
}

SOCKET_TEST(option, settings_are_set_in_their_order_by_whatever_opens_a_socket) {
    uint8_t rows[3][LPORT_SETTING_SIZE];
    put_setting(rows[0], "priority", 5);
    put_setting(rows[1], "receive-low-water", 17);
    put_setting(rows[2], "priority", 3);
    for (int opener = 0; opener < OPENERS; opener++) {
        int64_t socket = open_with(opener, rows[0], 3);
        cr_assert_gt(socket, 0, "%d", opener);
        cr_assert_eq(get(socket, "priority"), 3, "%d", opener);
        cr_assert_eq(get(socket, "receive-low-water"), 17, "%d", opener);
        cr_assert_eq(lport_socket_close(socket, 0), 0);
        socket = open_with(opener, rows[0], 1);
        cr_assert_eq(get(socket, "priority"), 5, "%d", opener);
        cr_assert_eq(lport_socket_close(socket, 0), 0);
    }
}

SOCKET_TEST(option, settings_come_after_flags_and_go_over_to_connections) {
    uint8_t rows[2][LPORT_SETTING_SIZE], address[LPORT_ADDRESS_SIZE];
    char text[16] = "";
    put_setting(rows[0], "nodelay", 0);
    put_text_setting(rows[1], "congestion-control", "reno", 4);
    int64_t listener = open_with(1, rows[0], 2);
    cr_assert_eq(lport_socket_name(listener, address), LPORT_INET);
    int64_t client = connect_to(address);
    int64_t server = accept_one(listener, soon());
    cr_assert_eq(get(listener, "nodelay"), 0);
    cr_assert_eq(get(server, "nodelay"), 0);
    cr_assert_eq(lport_option_get_text(server, index_of("congestion-control"), text, sizeof text),
                 4);
    cr_assert_str_eq(text, "reno");
    assert_closes(server);
    assert_closes(client);
    assert_closes(listener);
}

/* Where a failure can say so, it names the option, and comes before anything is bound. */
SOCKET_TEST(option, a_setting_that_cannot_be_set_is_told_and_nothing_is_bound) {
    static const struct {
        const char *name, *text;
        int64_t value;
        int32_t kind;
    } bad[] = {
        {"ttl", NULL, -1, LPORT_INVALID},
        {"receive-low-water", NULL, INT64_C(1) << 31, LPORT_INVALID},
        {"type", NULL, 0, LPORT_INVALID},
        {"device", NULL, 0, 0},
        {"device", "no-such-0", 9, LPORT_ADDRESS_NOT_AVAILABLE},
        {"device", "lo\0x", 4, LPORT_INVALID},
        {"device", "sixteen-octets--", 16, LPORT_INVALID},
        {"device", "sixteen-octets--", INT64_C(0xffffffff), LPORT_INVALID},
    };
    uint8_t rows[2][LPORT_SETTING_SIZE];
    put_setting(rows[0], "priority", 5);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        int32_t index = index_of(bad[i].name);
        if (bad[i].text != NULL) {
            put_text_setting(rows[1], bad[i].name, bad[i].text, (size_t)bad[i].value);
        } else {
            put_setting(rows[1], bad[i].name, bad[i].value);
        }
        for (int opener = 0; opener < OPENERS; opener++) {
            bool apart = opener == OPENERS - 1 && strcmp(bad[i].name, "type") != 0 &&
                         strcmp(bad[i].name, "receive-low-water") != 0; /* not of local sockets */
            faults_watch();
            int64_t status = open_with(opener, rows[0], 2);
            int64_t binds = faults_calls(CALL_BIND);
            faults_resume();
            if (bad[i].kind == 0 && !apart) { /* no device is one that may be set */
                cr_assert_eq(lport_socket_close(status, 0), 0);
                continue;
            }
            assert_kind(status, apart ? LPORT_NOT_SUPPORTED : bad[i].kind);
            cr_assert_eq(lport_status_option(status), index, "%s", bad[i].name);
            cr_assert_eq(binds, 0);
        }
    }
    memset(rows[1], 0xff, LPORT_SETTING_SIZE);
    assert_kind(open_with(0, rows[1], 1), LPORT_INVALID);
}

static int64_t open_numbered(void *data) {
    uint8_t rows[2][LPORT_SETTING_SIZE];
    put_setting(rows[0], "priority", 5);
    put_setting(rows[1], "linger", SECOND);
    return open_with(*(int *)data, rows[0], 2);
}

static void close_opened(void *data, int64_t result) {
    (void)data;
    if (result > 0) {
        cr_assert_eq(lport_socket_close(result, 0), 0);
    }
}

/* Behaviour 64. */
SOCKET_TEST(option, a_socket_with_settings_that_cannot_be_made_leaves_nothing) {
    for (int opener = 0; opener < OPENERS; opener++) {
        fail_every_call(open_numbered, close_opened, &opener);
    }
}

/* A listener of IPv4 alone, as where there is no IPv6, would have lost the half of its clients. */
SOCKET_TEST(option, a_setting_that_ipv6_does_not_have_is_no_reason_for_ipv4_alone) {
    NEED_INET6();
    static const int32_t errors[] = {ENOPROTOOPT, EADDRNOTAVAIL};
    static const int32_t kinds[] = {LPORT_NOT_SUPPORTED, LPORT_ADDRESS_NOT_AVAILABLE};
    uint8_t row[LPORT_SETTING_SIZE];
    put_setting(row, "priority", 5);
    for (int opener = 0; opener <= 2; opener += 2) {
        for (int i = 0; i < 2; i++) {
            faults_fail(CALL_SETSOCKOPT, 2, 1, errors[i]); /* the first is v6-only, of every one */
            int64_t status = open_with(opener, row, 1);
            faults_clear();
            assert_kind(status, kinds[i]);
            cr_assert_eq(lport_status_option(status), index_of("priority"));
        }
    }
}

SOCKET_TEST(option, v6_only_leaves_the_port_to_ipv4) {
    NEED_INET6();
    uint8_t row[LPORT_SETTING_SIZE], any[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    put_setting(row, "v6-only", 1);
    int64_t narrow, wide;
    do { /* until a port is free for both */
        wide = lport_socket_listen(any, -1, 0, row, 1);
        cr_assert_gt(wide, 0);
        narrow = listen_at(LPORT_INET, port_of(wide), 0);
    } while (lport_status_kind(narrow) == LPORT_ADDRESS_IN_USE && lport_socket_close(wide, 0) == 0);
    cr_assert_gt(narrow, 0);
    assert_closes(narrow);
    assert_closes(wide);
    put_setting(row, "v6-only", 0); /* an address of IPv6 alone, but for this */
    any[LPORT_AT_FAMILY] = LPORT_INET6;
    wide = lport_socket_listen(any, -1, 0, row, 1);
    assert_kind(listen_at(LPORT_INET, port_of(wide), 0), LPORT_ADDRESS_IN_USE);
    assert_closes(wide);
}

SOCKET_TEST(option, free_bind_takes_an_address_that_is_not_here) {
    static const char *const texts[] = {"192.0.2.1", "2001:db8::1"};
    uint8_t row[LPORT_SETTING_SIZE], address[LPORT_ADDRESS_SIZE], name[LPORT_ADDRESS_SIZE];
    put_setting(row, "free-bind", 1);
    for (size_t i = 0; i < FAMILIES_HERE(inets); i++) {
        cr_assert_gt(lport_address_parse(texts[i], strlen(texts[i]), 0, address), 0);
        int64_t listener = lport_socket_listen(address, -1, 0, row, 1);
        cr_assert_eq(lport_socket_name(listener, name), inets[i]);
        int64_t receiver = lport_datagram_open(address, NULL, 0, row, 1);
        cr_assert_eq(lport_socket_name(receiver, name), inets[i]);
        assert_closes(listener);
        assert_closes(receiver);
    }
}

/* ---- protocols ------------------------------------------------------------------------------- */

static int protocol;
static int (*plain_getsockopt)(int, int, int, void *, socklen_t *);

static int other_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    if (level == SOL_SOCKET && name == SO_PROTOCOL) {
        memcpy(value, &protocol, sizeof protocol);
        return 0;
    }
    return plain_getsockopt(fd, level, name, value, len);
}

SOCKET_TEST(option, multipath_tcp_has_a_name_and_what_has_none_is_no_error_of_the_system) {
    int64_t socket = open_sort(0, 0);
    faults_watch(); /* a call is replaced by our own */
    plain_getsockopt = lport_os.getsockopt;
    lport_os.getsockopt = other_getsockopt;
    protocol = 262;
    int64_t place = get(socket, "protocol");
    protocol = 263;
    int64_t status = get(socket, "protocol");
    faults_resume();
    cr_assert_str_eq(lport_option_choice(index_of("protocol"), (int32_t)place), "mptcp");
    assert_kind(status, LPORT_OTHER);
    cr_assert_eq(lport_status_errno(status), 0);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}
