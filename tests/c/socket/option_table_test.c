/* option: the table of names, kinds, units and sockets that each is for. */
#include "setting.h"
#include "support.h"

#include <stdbool.h>
#include <string.h>

/* In the place of samples. */
enum {
    READ_ONLY = -1,
    TEXTUAL = -2,
    PRIVILEGED = -3,  /* may be set by some users */
    UNCONNECTED = -4, /* has a value of its own only on a connection */
};

/* What the manual promises, apart from the table that it is tested against. */
static const struct {
    const char *name, *kind, *unit;
    int kinds;      /* of socket it is for */
    int64_t sample; /* a value that can be set and is read again; READ_ONLY, TEXTUAL */
} promised[] = {
    {"type", "choice", "", ALL, READ_ONLY},
    {"domain", "choice", "", ALL, READ_ONLY},
    {"protocol", "choice", "", ALL, READ_ONLY},
    {"accepting", "boolean", "", ALL, READ_ONLY},
    {"error", "integer", "", ALL, READ_ONLY},
    {"reuse-address", "boolean", "", IP, 1},
    {"reuse-port", "boolean", "", IP, 1},
    {"v6-only", "boolean", "", TCP6 | UDP6, 1},
    {"free-bind", "boolean", "", IP, 1},
    {"transparent", "boolean", "", IP, PRIVILEGED},
    {"receive-buffer", "integer", "octets", ALL, 20000},
    {"send-buffer", "integer", "octets", ALL, 20000},
    {"receive-low-water", "integer", "octets", ALL, 17},
    {"send-low-water", "integer", "octets", ALL, READ_ONLY},
    {"linger", "time", "seconds", ALL, 3 * SECOND},
    {"device", "text", "", IP, TEXTUAL},
    {"dont-route", "boolean", "", IP, 1},
    {"priority", "integer", "", ALL, 5},
    {"mark", "integer", "", ALL, PRIVILEGED},
    {"incoming-cpu", "integer", "processor", ALL, 0},
    {"ttl", "integer", "hops", IP, 7},
    {"hop-limit", "integer", "hops", IP, 8},
    {"type-of-service", "integer", "", IP, 0x28},
    {"traffic-class", "integer", "", IP, 0x48},
    {"mtu-discovery", "choice", "", IP, 2},
    {"mtu", "integer", "octets", IP, UNCONNECTED},
    {"broadcast", "boolean", "", UDP, 1},
    {"receive-errors", "boolean", "", UDP, 1},
    {"multicast-ttl", "integer", "hops", UDP, 9},
    {"multicast-loop", "boolean", "", UDP, 0},
    {"multicast-interface", "interface", "", UDP, 1},
    {"nodelay", "boolean", "", TCP, 1},
    {"cork", "boolean", "", TCP, 1},
    {"quick-ack", "boolean", "", TCP, 0},
    {"keepalive", "boolean", "", TCP, 1},
    {"keepalive-idle", "time", "seconds", TCP, 77 * SECOND},
    {"keepalive-interval", "time", "seconds", TCP, 7 * SECOND},
    {"keepalive-count", "integer", "probes", TCP, 5},
    {"user-timeout", "time", "milliseconds", TCP, 1500 * SECOND / 1000},
    {"defer-accept", "time", "seconds", TCP, 3 * SECOND},
    {"orphan-timeout", "time", "seconds", TCP, 11 * SECOND},
    {"syn-count", "integer", "segments", TCP, 3},
    {"max-segment", "integer", "octets", TCP, UNCONNECTED},
    {"window-clamp", "integer", "octets", TCP, 65536},
    {"not-sent-low-water", "integer", "octets", TCP, 16384},
    {"fast-open", "integer", "connections", TCP, 5},
    {"congestion-control", "text", "", TCP, TEXTUAL},
    {"oob-inline", "boolean", "", TCP, 1},
    {"debug", "boolean", "", ALL, PRIVILEGED},
    {"pass-credentials", "boolean", "", LOCAL, 1},
};

enum { PROMISED = sizeof promised / sizeof *promised };

SOCKET_TEST(option, names_are_different_and_end) {
    int32_t count = 0;
    for (; lport_option_name(count) != NULL; count++) {
        cr_assert_eq(index_of(lport_option_name(count)), count);
        cr_assert_not_null(lport_option_sockets(count));
        cr_assert_not_null(strchr(lport_option_note(count), '.'));
        cr_assert_geq(lport_option_access(count), 0);
        cr_assert_eq(lport_option_choice(count, 0) != NULL,
                     strcmp(lport_option_kind(count), "choice") == 0);
    }
    cr_assert_eq(count, PROMISED);
    const int32_t outside[] = {-1, count, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        cr_assert_null(lport_option_name(outside[i]));
        cr_assert_null(lport_option_kind(outside[i]));
        cr_assert_null(lport_option_unit(outside[i]));
        cr_assert_null(lport_option_sockets(outside[i]));
        cr_assert_null(lport_option_note(outside[i]));
        cr_assert_null(lport_option_choice(outside[i], 0));
        assert_kind(lport_option_access(outside[i]), LPORT_INVALID);
    }
}

SOCKET_TEST(option, each_has_its_kind_and_unit) {
    for (int i = 0; i < PROMISED; i++) {
        int32_t index = index_of(promised[i].name);
        cr_assert_str_eq(lport_option_kind(index), promised[i].kind, "%s", promised[i].name);
        cr_assert_str_eq(lport_option_unit(index), promised[i].unit, "%s", promised[i].name);
    }
}

SOCKET_TEST(option, each_says_which_sockets_it_is_for) {
    static const struct {
        const char *name, *sockets;
    } rows[] = {
        {"type", "every socket"}, {"ttl", "TCP and UDP"}, {"nodelay", "TCP"},
        {"multicast-ttl", "UDP"}, {"v6-only", "IPv6"},    {"pass-credentials", "local sockets"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert_str_eq(lport_option_sockets(index_of(rows[i].name)), rows[i].sockets);
    }
}

SOCKET_TEST(option, choices_have_names_and_end) {
    static const char *types[] = {"stream", "datagram", "seqpacket"};
    int32_t index = index_of("type");
    for (int32_t i = 0; i < 3; i++) {
        cr_assert_str_eq(lport_option_choice(index, i), types[i]);
    }
    static const int32_t outside[] = {-1, 3, 4, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        cr_assert_null(lport_option_choice(index, outside[i]));
    }
}

/* Sets option I on SOCKET to its sample and reads it again. */
static void assert_takes_its_sample(int i, int64_t socket) {
    bool buffer = strstr(promised[i].name, "-buffer") != NULL;
    cr_assert_eq(set(socket, promised[i].name, promised[i].sample), 0, "%s", promised[i].name);
    int64_t now = get(socket, promised[i].name);
    if (buffer) { /* the kernel doubles what it is given, for its own use */
        cr_assert(now >= promised[i].sample && now <= 4 * promised[i].sample);
    } else {
        cr_assert_eq(now, promised[i].sample, "%s is %lld", promised[i].name, (long long)now);
    }
}

/* A privilege may be there, or not. */
static void assert_takes_it_or_is_denied(int i, int64_t socket) {
    int64_t status = set(socket, promised[i].name, 1);
    if (status < 0) {
        assert_kind(status, LPORT_PERMISSION_DENIED);
    }
    cr_assert_eq(get(socket, promised[i].name), status < 0 ? 0 : 1);
}

static void check_option(int i, int64_t socket) {
    char text[64];
    const char *name = promised[i].name;
    switch (promised[i].sample) {
    case READ_ONLY:
        cr_assert_geq(get(socket, name), 0, "%s", name);
        assert_kind(set(socket, name, 1), LPORT_INVALID);
        break;
    case TEXTUAL:
        assert_kind(get(socket, name), LPORT_INVALID);
        assert_kind(set(socket, name, 1), LPORT_INVALID);
        cr_assert_geq(lport_option_get_text(socket, index_of(name), text, sizeof text), 0);
        break;
    case PRIVILEGED:
        assert_takes_it_or_is_denied(i, socket);
        break;
    case UNCONNECTED:
        break;
    default:
        assert_takes_its_sample(i, socket);
    }
}

SOCKET_TEST(option, each_is_for_its_kinds_of_socket_and_no_others) {
    for (int sort = 0; sort < SORTS; sort++) {
        int64_t socket = open_sort(sort, 0);
        for (int i = 0; i < PROMISED; i++) {
            if ((promised[i].kinds & sorts[sort].bit) != 0) {
                check_option(i, socket);
                continue;
            }
            assert_kind(get(socket, promised[i].name), LPORT_NOT_SUPPORTED);
            assert_kind(set(socket, promised[i].name, 1), LPORT_NOT_SUPPORTED);
        }
        cr_assert_eq(lport_socket_close(socket, 0), 0);
    }
}

SOCKET_TEST(option, those_with_none_take_it_and_tell_it) {
    int64_t socket = open_sort(0, 0);
    for (int32_t i = 0; lport_option_name(i) != NULL; i++) {
        const char *name = lport_option_name(i);
        int64_t access = lport_option_access(i);
        bool textual = strcmp(lport_option_kind(i), "text") == 0;
        if ((access & LPORT_OPTION_WRITABLE) == 0 || textual || strstr(name, "multicast") != NULL ||
            lport_status_kind(lport_option_get(socket, i)) == LPORT_NOT_SUPPORTED) {
            continue;
        }
        if ((access & LPORT_OPTION_NONE) == 0) {
            assert_kind(lport_option_set(socket, i, LPORT_NEVER), LPORT_INVALID);
            continue;
        }
        cr_assert_eq(lport_option_set(socket, i, LPORT_NEVER), 0, "%s", name);
        cr_assert_eq(lport_option_get(socket, i), LPORT_NEVER, "%s", name);
    }
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

Test(option, each_says_whether_it_can_be_set_and_be_none) {
    static const struct {
        const char *name;
        int64_t access;
    } rows[] = {{"type", 0},
                {"keepalive", LPORT_OPTION_WRITABLE},
                {"linger", LPORT_OPTION_WRITABLE | LPORT_OPTION_NONE},
                {"user-timeout", LPORT_OPTION_WRITABLE | LPORT_OPTION_NONE}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert_eq(lport_option_access(index_of(rows[i].name)), rows[i].access, "%s",
                     rows[i].name);
    }
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
