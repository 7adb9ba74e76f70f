/* option: one table of names, and the flags of the functions that make sockets. */
#include "option.h"

#include "address.h"
#include "os.h"
#include "socket.h"
#include "support.h"

#include <errno.h>
#include <string.h>

TestSuite(option, .timeout = 10);

enum { TCP4 = 1, TCP6 = 2, UDP4 = 4, UDP6 = 8, LOCAL = 16, TCP = TCP4 | TCP6, IP = 15, ALL = 31 };

/* What the manual and the guide promise, apart from the table that it is tested against. */
static const struct {
    const char *name, *unit;
    int kinds;      /* of socket it is for */
    int64_t sample; /* a value that can be set and is read again; -1: read-only */
} promised[] = {
    {"nodelay", "boolean", TCP, 1},
    {"keepalive", "boolean", TCP, 1},
    {"keepalive-idle", "seconds", TCP, 77},
    {"keepalive-interval", "seconds", TCP, 7},
    {"keepalive-count", "count", TCP, 5},
    {"reuse-address", "boolean", IP, 1},
    {"reuse-port", "boolean", IP, 1},
    {"v6-only", "boolean", TCP6 | UDP6, 1},
    {"receive-buffer", "octets", ALL, 20000},
    {"send-buffer", "octets", ALL, 20000},
    {"type", "number", ALL, -1},
    {"error", "number", ALL, -1},
    {"accepting", "boolean", ALL, -1},
};

enum { PROMISED = sizeof promised / sizeof *promised };

static int32_t index_of(const char *name) {
    for (int32_t i = 0; lport_option_name(i) != NULL; i++) {
        if (strcmp(lport_option_name(i), name) == 0) {
            return i;
        }
    }
    cr_assert_fail("no option %s", name);
    return -1;
}

static int64_t get(int64_t socket, const char *name) {
    return lport_option_get(socket, index_of(name));
}

static int64_t set(int64_t socket, const char *name, int64_t value) {
    return lport_option_set(socket, index_of(name), value);
}

static const struct {
    int bit;
    int32_t family, kind;
} sorts[] = {
    {TCP4, LPORT_INET, LPORT_STREAM},      {TCP6, LPORT_INET6, LPORT_STREAM},
    {UDP4, LPORT_INET, LPORT_DATAGRAM},    {UDP6, LPORT_INET6, LPORT_DATAGRAM},
    {LOCAL, LPORT_LOCAL, LPORT_STREAM},    {LOCAL, LPORT_LOCAL, LPORT_DATAGRAM},
    {LOCAL, LPORT_LOCAL, LPORT_SEQPACKET},
};

enum { SORTS = sizeof sorts / sizeof *sorts };

static int64_t open_sort(int sort, int32_t flags) {
    int64_t socket = lport_socket_open(sorts[sort].family, sorts[sort].kind, flags);
    cr_assert_gt(socket, 0);
    return socket;
}

SOCKET_TEST(option, names_are_different_and_end) {
    static const char *units[] = {"boolean",      "octets", "seconds",
                                  "milliseconds", "count",  "number"};
    int32_t count = 0;
    for (; lport_option_name(count) != NULL; count++) {
        int known = 0;
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
            known += strcmp(lport_option_unit(count), units[i]) == 0;
        }
        cr_assert_eq(known, 1, "%s", lport_option_name(count));
        cr_assert_eq(index_of(lport_option_name(count)), count);
    }
    cr_assert_geq(count, PROMISED);
    static const int32_t outside[] = {-1, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        cr_assert_null(lport_option_name(outside[i]));
        cr_assert_null(lport_option_unit(outside[i]));
    }
    cr_assert_null(lport_option_unit(count));
}

SOCKET_TEST(option, each_has_its_unit) {
    for (int i = 0; i < PROMISED; i++) {
        cr_assert_str_eq(lport_option_unit(index_of(promised[i].name)), promised[i].unit);
    }
}

/* Sets option I on SOCKET to its sample and reads it again. */
static void assert_takes_its_sample(int i, int64_t socket) {
    int buffer = strcmp(promised[i].unit, "octets") == 0;
    cr_assert_eq(set(socket, promised[i].name, promised[i].sample), 0, "%s", promised[i].name);
    int64_t now = get(socket, promised[i].name);
    if (buffer) { /* the kernel doubles what it is given, for its own use */
        cr_assert(now >= promised[i].sample && now <= 4 * promised[i].sample);
    } else {
        cr_assert_eq(now, promised[i].sample, "%s is %lld", promised[i].name, (long long)now);
    }
}

SOCKET_TEST(option, each_is_for_its_kinds_of_socket_and_no_others) {
    for (int sort = 0; sort < SORTS; sort++) {
        int64_t socket = open_sort(sort, 0);
        for (int i = 0; i < PROMISED; i++) {
            if ((promised[i].kinds & sorts[sort].bit) == 0) {
                assert_kind(get(socket, promised[i].name), LPORT_NOT_SUPPORTED);
                assert_kind(set(socket, promised[i].name, 1), LPORT_NOT_SUPPORTED);
            } else if (promised[i].sample < 0) {
                cr_assert_geq(get(socket, promised[i].name), 0);
                assert_kind(set(socket, promised[i].name, 1), LPORT_INVALID);
            } else {
                assert_takes_its_sample(i, socket);
            }
        }
        cr_assert_eq(lport_socket_close(socket, 0), 0);
    }
}

SOCKET_TEST(option, booleans_go_off_again) {
    static const char *names[] = {"nodelay", "keepalive", "reuse-address", "reuse-port"};
    int64_t socket = open_sort(0, 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cr_assert_eq(get(socket, names[i]), 0);
        cr_assert_eq(set(socket, names[i], 1), 0);
        cr_assert_eq(get(socket, names[i]), 1);
        cr_assert_eq(set(socket, names[i], 0), 0);
        cr_assert_eq(get(socket, names[i]), 0);
    }
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

SOCKET_TEST(option, values_out_of_range_are_refused_and_change_nothing) {
    static const int64_t wrong[] = {-1, INT64_MIN, INT64_C(1) << 31, INT64_C(1) << 32, INT64_MAX};
    int64_t socket = open_sort(0, LPORT_KEEPALIVE);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_kind(set(socket, "keepalive-idle", wrong[i]), LPORT_INVALID);
        assert_kind(set(socket, "nodelay", wrong[i]), LPORT_INVALID);
    }
    assert_kind(set(socket, "keepalive-idle", 0), LPORT_INVALID);
    assert_kind(set(socket, "keepalive-idle", 32768), LPORT_INVALID);
    assert_kind(set(socket, "keepalive-count", 128), LPORT_INVALID);
    cr_assert_eq(get(socket, "keepalive-idle"), 15);
    cr_assert_eq(get(socket, "nodelay"), 0);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

SOCKET_TEST(option, numbers_that_are_no_options_are_refused) {
    static const int32_t outside[] = {-1, 1000, INT32_MIN, INT32_MAX};
    int64_t socket = open_sort(0, 0);
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        assert_kind(lport_option_get(socket, outside[i]), LPORT_INVALID);
        assert_kind(lport_option_set(socket, outside[i], 1), LPORT_INVALID);
    }
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

SOCKET_TEST(option, those_that_tell_of_the_socket_tell_the_truth) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    int64_t socket = open_sort(0, 0), datagram = open_sort(2, 0);
    cr_assert_eq(get(listener, "accepting"), 1);
    cr_assert_eq(get(socket, "accepting"), 0);
    cr_assert_eq(get(socket, "type"), LPORT_STREAM);
    cr_assert_eq(get(datagram, "type"), 2); /* SOCK_DGRAM is 2 everywhere but on MIPS */
    cr_assert_eq(get(socket, "error"), 0);
    cr_assert_eq(lport_socket_close(listener, 0), 0);
    int64_t status = lport_socket_connect_start(socket, address);
    assert_kind(status, LPORT_IN_PROGRESS);
    cr_assert_gt(wait_for(socket, LPORT_OUTPUT, soon()), 0);
    cr_assert_eq(get(socket, "error"), ECONNREFUSED);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
    cr_assert_eq(lport_socket_close(datagram, 0), 0);
}

/* ---- flags ----------------------------------------------------------------------------------- */

SOCKET_TEST(option, flags_set_what_they_say) {
    for (int sort = 0; sort < 2; sort++) {
        int64_t plain = open_sort(sort, 0);
        int64_t dressed = open_sort(sort, LPORT_NODELAY | LPORT_KEEPALIVE | LPORT_REUSE_ADDRESS |
                                              LPORT_REUSE_PORT);
        cr_assert_eq(get(dressed, "nodelay"), 1);
        cr_assert_eq(get(dressed, "keepalive"), 1);
        cr_assert_eq(get(dressed, "keepalive-idle"), 15);
        cr_assert_eq(get(dressed, "keepalive-interval"), 15);
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
    faults_watch();
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
    int64_t listener = lport_socket_listen(address, -1, LPORT_NODELAY | LPORT_KEEPALIVE);
    cr_assert_gt(lport_socket_name(listener, address), 0);
    loopback(LPORT_INET, lport_address_port(address), address);
    int64_t client = connect_to(address);
    faults_watch();
    int64_t server = lport_socket_accept(listener, NULL);
    cr_assert_eq(faults_calls(CALL_ANY), 1, "an accept is one system call");
    cr_assert_gt(server, 0);
    cr_assert_eq(get(server, "nodelay"), 1);
    cr_assert_eq(get(server, "keepalive"), 1);
    cr_assert_eq(get(server, "keepalive-idle"), 15);
    cr_assert_eq(get(server, "keepalive-interval"), 15);
    cr_assert_eq(get(server, "keepalive-count"), 9);
    cr_assert_eq(lport_socket_close(server, 0), 0);
    cr_assert_eq(lport_socket_close(client, 0), 0);
    cr_assert_eq(lport_socket_close(listener, 0), 0);
}

/* Behaviour 64. */
SOCKET_TEST(option, a_failure_of_the_system_is_a_status) {
    int64_t socket = open_sort(0, 0);
    faults_fail(CALL_GETSOCKOPT, 1, 1, ENOBUFS);
    assert_kind(get(socket, "nodelay"), LPORT_BUFFERS_EXHAUSTED);
    faults_fail(CALL_SETSOCKOPT, 1, 1, ENOPROTOOPT);
    assert_kind(set(socket, "nodelay", 1), LPORT_NOT_SUPPORTED);
    faults_clear();
    cr_assert_eq(get(socket, "nodelay"), 0);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}
