/* Dials from an own address, in one family, and to themselves. */
#include "address/address.h"
#include "base/os.h"
#include "dialling.h"
#include "faults.h"
#include "libport.h"
#include "support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <string.h>

DIAL_SUITE(dial_own);

/* Dials NAME at PORT from LOCAL ("" for none, "*" for any family), its port LOCAL_PORT. */
static int64_t dial_from(const char *name, int32_t port, int32_t family, const char *local,
                         int32_t local_port) {
    block own = {LPORT_ANY};
    if (strcmp(local, "*") == 0) {
        lport_address_set_port(own, local_port);
    } else if (*local != 0) {
        parse(local, local_port, own);
    }
    int64_t dial = lport_dial_open(name, strlen(name), port, family, *local != 0 ? own : NULL, 0);
    cr_assert_gt(dial, 0);
    return dial;
}

Test(dial_own, local_address_and_family_in_every_combination) { /* behaviour 53 */
    NEED_INET6();
    static const struct {
        const char *name;
        int32_t family;
        const char *local;
        const char *expected; /* the peer, or NULL with a failure */
        int32_t failure;
    } rows[] = {
        {"127.0.0.1", LPORT_ANY, "", "127.0.0.1", 0},
        {"127.0.0.1", LPORT_INET, "", "127.0.0.1", 0},
        {"127.0.0.1", LPORT_INET6, "", NULL, LPORT_HOST_NOT_FOUND},
        {"127.0.0.1", LPORT_ANY, "127.0.0.7", "127.0.0.1", 0},
        {"127.0.0.1", LPORT_INET, "127.0.0.7", "127.0.0.1", 0},
        {"127.0.0.1", LPORT_ANY, "::1", NULL, LPORT_ADDRESS_NOT_AVAILABLE},
        {"127.0.0.1", LPORT_ANY, "*", "127.0.0.1", 0},
        {"127.0.0.1", LPORT_ANY, "198.51.100.1", NULL, LPORT_ADDRESS_NOT_AVAILABLE},
        {"::1", LPORT_ANY, "", "::1", 0},
        {"::1", LPORT_INET6, "::1", "::1", 0},
        {"::1", LPORT_INET, "", NULL, LPORT_HOST_NOT_FOUND},
        {"::1", LPORT_ANY, "127.0.0.7", NULL, LPORT_ADDRESS_NOT_AVAILABLE},
        {"::1", LPORT_ANY, "*", "::1", 0},
        {"both.test", LPORT_ANY, "", "::1", 0},
        {"both.test", LPORT_INET, "", "127.0.0.1", 0},
        {"both.test", LPORT_INET6, "", "::1", 0},
        {"both.test", LPORT_ANY, "127.0.0.7", "127.0.0.1", 0},
        {"both.test", LPORT_ANY, "::1", "::1", 0},
        {"both.test", LPORT_ANY, "*", "::1", 0},
        {"both.test", LPORT_INET, "127.0.0.7", "127.0.0.1", 0},
        {"both.test", LPORT_INET, "::1", NULL, LPORT_ADDRESS_NOT_AVAILABLE},
        /* IPv4-mapped addresses are IPv4. */
        {"127.0.0.1", LPORT_ANY, "::ffff:127.0.0.7", "127.0.0.1", 0},
        {"::ffff:127.0.0.1", LPORT_ANY, "127.0.0.7", "127.0.0.1", 0},
        {"::ffff:127.0.0.1", LPORT_ANY, "::ffff:127.0.0.7", "127.0.0.1", 0},
    };
    int64_t wide, narrow;
    int32_t port;
    do { /* until a port is free for both */
        block here;
        wide = listen_at("::1", 0, -1);
        port = port_of(wide);
        parse("127.0.0.1", port, here);
        narrow = lport_socket_listen(here, -1, LPORT_REUSE_ADDRESS, NULL, 0);
    } while (kind(narrow) == LPORT_ADDRESS_IN_USE && lport_socket_close(wide, 0) == 0);
    cr_assert_gt(narrow, 0);
    fake.texts[0] = "::1";
    fake.texts[1] = "127.0.0.1";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int32_t own_port = strcmp(rows[i].local, "*") == 0 ? refusing_port() : 0;
        int64_t dial = dial_from(rows[i].name, port, rows[i].family, rows[i].local, own_port);
        int64_t socket = finish_soon(dial);
        lport_dial_close(dial);
        if (rows[i].expected == NULL) {
            cr_assert_eq(kind(socket), rows[i].failure, "row %zu", i);
            continue;
        }
        block own, expected;
        check_peer(socket, rows[i].expected, port);
        lport_socket_name(socket, own);
        if (own_port != 0) {
            cr_assert_eq(lport_address_port(own), own_port, "row %zu", i);
        } else if (*rows[i].local != 0) {
            parse(rows[i].local, lport_address_port(own), expected);
            lport_address_unmap(expected);
            cr_assert_arr_eq(own, expected, LPORT_ADDRESS_SIZE, "row %zu", i);
        }
        lport_socket_close(socket, LPORT_RESET);
    }
    lport_socket_close(wide, 0);
    lport_socket_close(narrow, 0);
    check_nothing_left();
}

Test(dial_own, an_own_end_for_each_family) {
    NEED_INET6();
    uint8_t own[2 * LPORT_ADDRESS_SIZE];
    fake.texts[0] = "::1";
    fake.texts[1] = "127.0.0.1";
    parse("::1", 0, own);
    parse("::ffff:127.0.0.7", 0, own + LPORT_ADDRESS_SIZE);
    for (int i = 0; i < 2; i++) {
        int64_t listener = listen_at(fake.texts[i], 0, -1);
        int64_t dial = lport_dial_open("both.test", 9, port_of(listener), LPORT_ANY, own,
                                       LPORT_NODELAY | LPORT_TWO_LOCALS);
        cr_assert_gt(dial, 0);
        int64_t socket = finish_soon(dial);
        block at, expected;
        check_peer(socket, fake.texts[i], port_of(listener));
        lport_socket_name(socket, at);
        parse(i == 0 ? "::1" : "127.0.0.7", lport_address_port(at), expected);
        cr_assert_arr_eq(at, expected, LPORT_ADDRESS_SIZE);
        end_connected(dial, socket, listener);
    }
    cr_assert_eq(kind(lport_dial_open("both.test", 9, 1, LPORT_ANY, NULL, LPORT_TWO_LOCALS)),
                 LPORT_INVALID);
    check_nothing_left();
}

/* ATTEMPT of DIAL has failed at its own end, and that is EXPECTED at PORT. */
static void check_own_failure(int64_t dial, int32_t attempt, const char *expected, int32_t port) {
    block own, at;
    parse(expected, port, at);
    cr_assert_eq(lport_dial_attempt_own(dial, attempt, own), 1);
    cr_assert_arr_eq(own, at, LPORT_ADDRESS_SIZE);
}

Test(dial_own, an_attempt_tells_whether_its_own_end_failed) {
    block own;
    int64_t listener = listen_at("127.0.0.7", 0, -1);
    int32_t taken = port_of(listener);
    fake.texts[0] = "127.0.0.2";
    fake.texts[1] = have_inet6() ? "::1" : "127.0.0.3";
    int64_t dial = dial_from("127.0.0.1", refusing_port(), LPORT_ANY, "127.0.0.7", taken);
    cr_assert_eq(kind(finish_soon(dial)), LPORT_ADDRESS_IN_USE);
    check_own_failure(dial, 0, "127.0.0.7", taken);
    cr_assert_eq(kind(lport_dial_attempt_own(dial, 1, own)), LPORT_INVALID);
    lport_dial_close(dial);

    int64_t wide = lport_socket_listen((block){LPORT_ANY}, -1, 0, NULL, 0);
    dial = dial_from("both.test", refusing_port(), LPORT_ANY, "*", port_of(wide));
    cr_assert_eq(kind(finish_soon(dial)), LPORT_ADDRESS_IN_USE);
    check_own_failure(dial, 0, "0.0.0.0", port_of(wide));
    check_own_failure(dial, 1, have_inet6() ? "::" : "0.0.0.0", port_of(wide));
    lport_dial_close(dial);

    dial = dial_from("127.0.0.1", refusing_port(), LPORT_ANY, "127.0.0.7", 0);
    cr_assert_eq(kind(finish_soon(dial)), LPORT_CONNECTION_REFUSED);
    cr_assert_eq(lport_dial_attempt_own(dial, 0, own), 0);
    lport_dial_close(dial);
    lport_socket_close(wide, 0);
    lport_socket_close(listener, 0);
    check_nothing_left();
}

Test(dial_own, several_attempts_share_one_local_port) {
    static const char *const texts[] = {"127.0.0.2", "127.0.0.3", NULL};
    uint8_t addresses[2 * LPORT_ADDRESS_SIZE];
    block own = {LPORT_ANY};
    struct silence silence;
    keep_silent(&silence, texts[0], 0);
    int64_t listener = listen_at(texts[1], 0, -1);
    parse(texts[0], port_of(silence.listener), addresses);
    parse(texts[1], port_of(listener), addresses + LPORT_ADDRESS_SIZE);
    lport_address_set_port(own, refusing_port());
    int64_t dial = lport_dial_open_addresses(addresses, 2, LPORT_STREAM, own, 0);
    int64_t socket = finish_soon(dial);
    check_peer(socket, texts[1], port_of(listener));
    cr_assert_eq(port_of(socket), lport_address_port(own));
    lport_dial_close(dial);
    lport_socket_close(socket, LPORT_RESET);
    lport_socket_close(listener, 0);
    end_silence(&silence);
    check_nothing_left();
}

static int32_t bound_port; /* what the latest bind has taken */

static int noting_bind(int fd, const struct sockaddr *address, socklen_t len) {
    struct sockaddr_in6 own; /* its port is where that of IPv4 is */
    socklen_t own_len = sizeof own;
    int result = before.os.bind(fd, address, len);
    cr_assert_eq(before.os.getsockname(fd, (struct sockaddr *)&own, &own_len), 0);
    bound_port = ntohs(own.sin6_port);
    return result;
}

static int ignorant_setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
    if (level == IPPROTO_IP) {
        errno = ENOPROTOOPT;
        return -1;
    }
    return before.os.setsockopt(fd, level, name, value, len);
}

/* A bind that took a port took it for one connection, however many peers there are. */
Test(dial_own, the_bind_of_an_address_takes_no_port) {
    static const char *const hosts[] = {"127.0.0.1", "::1"};
    faults_watch();
    for (int i = 0; i < (have_inet6() ? 2 : 1); i++) {
        int64_t listener = listen_at(hosts[i], 0, -1);
        for (int old = 0; old <= 1; old++) { /* a kernel that has no such option */
            int32_t own_port = refusing_port();
            for (int given = 0; given <= 1; given++) {
                lport_os.bind = noting_bind;
                lport_os.setsockopt = old ? ignorant_setsockopt : before.os.setsockopt;
                int64_t dial = dial_from(hosts[i], port_of(listener), LPORT_ANY, hosts[i],
                                         given ? own_port : 0);
                int64_t socket = finish_soon(dial);
                lport_os = before.os;
                check_peer(socket, hosts[i], port_of(listener));
                if (given || !old) {
                    cr_assert_eq(bound_port, given ? own_port : 0);
                }
                cr_assert_gt(port_of(socket), 0);
                lport_dial_close(dial);
                lport_socket_close(socket, LPORT_RESET);
            }
        }
        lport_socket_close(listener, 0);
    }
    check_nothing_left();
}

/* ---- connections to itself ------------------------------------------------------------------- */

Test(dial_own, a_connection_to_itself_is_a_refusal) { /* behaviour 52 */
    int32_t port = refusing_port();
    int64_t dial = dial_from("127.0.0.1", port, LPORT_ANY, "127.0.0.1", port);
    int64_t status = finish_soon(dial);
    cr_assert_eq(kind(status), LPORT_CONNECTION_REFUSED);
    cr_assert_eq(lport_status_errno(status), 0);
    cr_assert_eq(lport_dial_count(dial), 1);
    lport_dial_close(dial);
    block address;
    parse("127.0.0.1", port, address);
    release_ports();
    int64_t listener = lport_socket_listen(address, 0, 0, NULL, 0);
    cr_assert_gt(listener, 0, "the port is not left in TIME_WAIT");
    lport_socket_close(listener, 0);
    check_nothing_left();
}

static atomic_int selves; /* so many connects will look as if they were to themselves */

static int mirrored_getsockname(int fd, struct sockaddr *address, socklen_t *len) {
    return atomic_fetch_sub(&selves, 1) > 0 ? before.os.getpeername(fd, address, len)
                                            : before.os.getsockname(fd, address, len);
}

Test(dial_own, an_address_that_connects_to_itself_is_dialled_twice_more) { /* behaviour 52 */
    int64_t listener = listen_at("127.0.0.1", 0, -1);
    int32_t port = port_of(listener);
    for (int times = 0; times <= 4; times++) {
        int64_t dial = open_dial("127.0.0.1", port);
        lport_os.getsockname = mirrored_getsockname;
        selves = times;
        int64_t result = finish_soon(dial);
        cr_assert_eq(times - (selves > 0 ? selves : 0), times < 3 ? times : 3);
        lport_os.getsockname = before.os.getsockname;
        cr_assert_eq(lport_dial_count(dial), 1);
        lport_dial_close(dial);
        if (times <= 2) {
            check_peer(result, "127.0.0.1", port);
            lport_socket_close(result, 0);
        } else {
            cr_assert_eq(kind(result), LPORT_CONNECTION_REFUSED);
        }
    }
    lport_socket_close(listener, 0);
    check_nothing_left();
}
