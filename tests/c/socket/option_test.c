/* option: one table of names, and the flags of the functions that make sockets. */
#include "socket/option.h"

#include "address/address.h"
#include "base/os.h"
#include "socket/socket.h"
#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

TestSuite(option, .timeout = 10);

enum {
    TCP4 = 1,
    TCP6 = 2,
    UDP4 = 4,
    UDP6 = 8,
    LOCAL = 16,
    TCP = TCP4 | TCP6,
    UDP = UDP4 | UDP6,
    IP = 15,
    ALL = 31,
};

#define SECOND INT64_C(1000000000)

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

/* What IPv4 has at NUMBER, as the system says. */
static int64_t inet_number(int64_t socket, int number) {
    int value = -1;
    socklen_t len = sizeof value;
    int fd = (int)lport_socket_descriptor(socket);
    cr_assert_eq(getsockopt(fd, IPPROTO_IP, number, &value, &len), 0);
    return value;
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

SOCKET_TEST(option, times_are_rounded_up) {
    int64_t socket = open_sort(0, 0);
    cr_assert_eq(set(socket, "keepalive-idle", 1), 0);
    cr_assert_eq(get(socket, "keepalive-idle"), SECOND);
    cr_assert_eq(set(socket, "keepalive-idle", SECOND + 1), 0);
    cr_assert_eq(get(socket, "keepalive-idle"), 2 * SECOND);
    cr_assert_eq(set(socket, "user-timeout", 1000001), 0);
    cr_assert_eq(get(socket, "user-timeout"), 2000000);
    cr_assert_eq(set(socket, "linger", 1), 0);
    cr_assert_eq(get(socket, "linger"), SECOND);
    cr_assert_eq(set(socket, "linger", 0), 0);
    cr_assert_eq(get(socket, "linger"), 0);
    assert_kind(set(socket, "user-timeout", 0), LPORT_INVALID); /* to the system that is none */
    assert_kind(set(socket, "linger", -1), LPORT_INVALID);
    assert_kind(set(socket, "linger", LPORT_NEVER - 1), LPORT_INVALID);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

/* Sends to a port that nobody has, so that an error waits for SOCKET. */
static void meet_refusal(int64_t socket, const uint8_t *nobody) {
    cr_assert_eq(lport_datagram_send(socket, (const uint8_t *)"x", 1, nobody), 1);
    cr_assert_gt(wait_for(socket, LPORT_INPUT, soon()), 0);
}

/* Each way to come upon the error, by number; the last one sees that it is gone already. */
static int64_t meet_again(int64_t socket, const uint8_t *nobody, int way) {
    uint8_t octet, sender[LPORT_ADDRESS_SIZE];
    int64_t length = 1;
    switch (way) {
    case 0:
        return lport_datagram_receive(socket, &octet, 1, sender, 0);
    case 1:
        return lport_datagram_receive(socket, &octet, 1, NULL, LPORT_PATIENT);
    case 2:
        return lport_datagram_receive_batch(socket, &octet, 1, &length, sender, 1);
    case 3:
        return lport_socket_receive(socket, &octet, 1, 0);
    case 4:
        return lport_datagram_send(socket, &octet, 1, nobody);
    case 5:
        return lport_datagram_send_batch(socket, &octet, 1, &length, nobody, 1);
    default:
        cr_assert_eq(get(socket, "error"), ECONNREFUSED);
        return lport_datagram_receive(socket, &octet, 1, NULL, 0);
    }
}

enum { WAYS = 7 };

/* The system keeps a copy of each error, and the socket looks ready as long as it has one. */
static void assert_reported_once(int64_t socket, const uint8_t *nobody) {
    for (int way = 0; way < WAYS; way++) {
        meet_refusal(socket, nobody);
        assert_kind(meet_again(socket, nobody, way),
                    way < WAYS - 1 ? LPORT_CONNECTION_REFUSED : LPORT_WOULD_BLOCK);
        assert_kind(wait_for(socket, LPORT_INPUT, lport_clock_after(SECOND / 100)),
                    LPORT_TIMED_OUT);
    }
}

SOCKET_TEST(option, an_error_that_was_reported_wakes_nobody_again) {
    static const int32_t families[] = {LPORT_INET, LPORT_INET6};
    faults_watch(); /* a refusal is met by the very call that a test makes */
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        uint8_t own[LPORT_ADDRESS_SIZE], nobody[LPORT_ADDRESS_SIZE];
        loopback(families[i], 0, own);
        int64_t gone = lport_datagram_open(own, NULL, 0);
        cr_assert_eq(lport_socket_name(gone, nobody), families[i]);
        int64_t socket = lport_datagram_open(own, NULL, 0);
        cr_assert_eq(lport_socket_close(gone, 0), 0);
        cr_assert_eq(set(socket, "receive-errors", 1), 0);
        assert_reported_once(socket, nobody);
        int fd = dup((int)lport_socket_descriptor(socket));
        cr_assert_eq(lport_socket_close(socket, 0), 0);
        socket = lport_descriptor_adopt(fd);
        assert_reported_once(socket, nobody);
        cr_assert_eq(lport_socket_close(socket, 0), 0);
    }
    faults_resume();
}

enum made_by { DIALLED, ACCEPTED, ACCEPTED_LATE, ADOPTED, MADE };

/* Makes a connection whose first end, made by HOW, has 30 seconds to linger. */
static void make_lingering(enum made_by how, int64_t ends[2]) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    if (how == ACCEPTED || how == ACCEPTED_LATE) {
        cr_assert_eq(set(listener, "linger", 30 * SECOND), 0);
    }
    ends[1] = connect_to(address);
    if (how == ACCEPTED_LATE) { /* what waits in the queue has it */
        cr_assert_gt(wait_for(listener, LPORT_INPUT, soon()), 0);
        cr_assert_eq(set(listener, "linger", LPORT_NEVER), 0);
    }
    ends[0] = accept_one(listener, soon());
    if (how == ADOPTED) {
        struct linger linger = {.l_onoff = 1, .l_linger = 30};
        int fd = dup((int)lport_socket_descriptor(ends[0]));
        cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
        ends[0] = lport_descriptor_adopt(fd);
    } else if (how == DIALLED) {
        int64_t accepted = ends[0];
        ends[0] = ends[1];
        ends[1] = accepted;
        cr_assert_eq(set(ends[0], "linger", 30 * SECOND), 0);
    }
    cr_assert_eq(get(ends[0], "linger"), 30 * SECOND);
    cr_assert_eq(lport_socket_close(listener, 0), 0);
}

/* The system's own close would block here until the peer has read. */
SOCKET_TEST(option, a_close_with_a_time_to_linger_does_not_block) {
    static uint8_t octets[65536];
    for (enum made_by how = DIALLED; how < MADE; how++) {
        int64_t ends[2], got;
        make_lingering(how, ends);
        assert_kind(clog_up(ends[0]), LPORT_WOULD_BLOCK);
        int64_t begin = lport_clock_now();
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
        cr_assert_lt(lport_clock_now() - begin, 5 * SECOND);
        int32_t weather = faults_watch(); /* megabytes do not come octet by octet */
        do {
            got = receive_some(ends[1], octets, sizeof octets, soon());
        } while (got > 0);
        if (weather) {
            faults_resume();
        }
        cr_assert_eq(got, 0, "the rest has not come");
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    }
}

/* What is set last counts. */
SOCKET_TEST(option, a_close_resets_after_a_time_to_linger_became_0) {
    uint8_t octet;
    int64_t ends[2];
    make_lingering(DIALLED, ends);
    cr_assert_eq(set(ends[0], "linger", 0), 0);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    assert_kind(receive_some(ends[1], &octet, 1, soon()), LPORT_CONNECTION_RESET);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
}

SOCKET_TEST(option, an_accepted_connection_resets_by_the_time_to_linger_that_it_has) {
    uint8_t octet, address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    cr_assert_eq(set(listener, "linger", 30 * SECOND), 0);
    cr_assert_eq(set(listener, "linger", 0), 0);
    int64_t ends[2] = {connect_to(address), 0};
    ends[1] = accept_one(listener, soon());
    cr_assert_eq(get(ends[1], "linger"), 0);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    assert_kind(receive_some(ends[0], &octet, 1, soon()), LPORT_CONNECTION_RESET);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    cr_assert_eq(lport_socket_close(listener, 0), 0);
}

SOCKET_TEST(option, texts_are_set_and_read_again) {
    char text[64] = "";
    int64_t socket = open_sort(0, 0);
    int32_t device = index_of("device"), algorithm = index_of("congestion-control");
    cr_assert_eq(lport_option_get_text(socket, device, text, sizeof text), 0);
    cr_assert_eq(lport_option_set_text(socket, device, "lo", 2), 0);
    cr_assert_eq(lport_option_get_text(socket, device, text, sizeof text), 2);
    cr_assert_str_eq(text, "lo");
    cr_assert_eq(lport_option_get_text(socket, device, NULL, 0), 2);
    cr_assert_eq(lport_option_set_text(socket, algorithm, "reno", 4), 0);
    cr_assert_eq(lport_option_get_text(socket, algorithm, text, sizeof text), 4);
    cr_assert_str_eq(text, "reno");
    assert_kind(lport_option_set_text(socket, algorithm, "", 0), LPORT_INVALID);
    cr_assert_lt(lport_option_set_text(socket, algorithm, "nobodys", 7), 0);
    cr_assert_lt(lport_option_set_text(socket, device, "no-such-device", 14), 0);
    memset(text, 'x', sizeof text);
    assert_kind(lport_option_set_text(socket, device, text, sizeof text), LPORT_INVALID);
    assert_kind(lport_option_set_text(socket, index_of("nodelay"), "1", 1), LPORT_INVALID);
    assert_kind(lport_option_get_text(socket, index_of("nodelay"), text, 1), LPORT_INVALID);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

/* The system takes what stands before a zero octet for all of it. */
SOCKET_TEST(option, a_text_with_a_zero_octet_is_refused_and_changes_nothing) {
    char text[64] = "";
    int64_t socket = open_sort(0, 0);
    int32_t device = index_of("device"), algorithm = index_of("congestion-control");
    cr_assert_eq(lport_option_set_text(socket, algorithm, "reno", 4), 0);
    assert_kind(lport_option_set_text(socket, algorithm, "cubic\0", 6), LPORT_INVALID);
    assert_kind(lport_option_set_text(socket, algorithm, "reno\0x", 6), LPORT_INVALID);
    cr_assert_eq(lport_option_get_text(socket, algorithm, text, sizeof text), 4);
    cr_assert_str_eq(text, "reno");
    assert_kind(lport_option_set_text(socket, device, "lo\0x", 4), LPORT_INVALID);
    assert_kind(lport_option_set_text(socket, device, "\0", 1), LPORT_INVALID);
    cr_assert_eq(lport_option_get_text(socket, device, text, sizeof text), 0);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

/* The system binds to the interface that the first 15 octets name. */
SOCKET_TEST(option, a_text_that_is_longer_than_any_name_never_gets_to_the_system) {
    int64_t socket = open_sort(0, 0);
    int32_t device = index_of("device"), algorithm = index_of("congestion-control");
    faults_watch();
    assert_kind(lport_option_set_text(socket, device, "sixteen-octets--", 16), LPORT_INVALID);
    assert_kind(lport_option_set_text(socket, algorithm, "sixteen-octets--", 16), LPORT_INVALID);
    cr_assert_eq(faults_calls(CALL_SETSOCKOPT), 0);
    assert_kind(lport_option_set_text(socket, device, "fifteen-octets-", 15),
                LPORT_ADDRESS_NOT_AVAILABLE);
    cr_assert_eq(faults_calls(CALL_SETSOCKOPT), 1);
    faults_resume();
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

SOCKET_TEST(option, an_interface_is_set_taken_back_and_may_be_missing) {
    for (int sort = 2; sort < 4; sort++) {
        int64_t socket = open_sort(sort, 0);
        cr_assert_eq(get(socket, "multicast-interface"), LPORT_NEVER);
        cr_assert_eq(set(socket, "multicast-interface", 1), 0);
        cr_assert_eq(get(socket, "multicast-interface"), 1);
        assert_kind(set(socket, "multicast-interface", 1000000), LPORT_ADDRESS_NOT_AVAILABLE);
        assert_kind(set(socket, "multicast-interface", 0), LPORT_INVALID);
        assert_kind(set(socket, "multicast-interface", -1), LPORT_INVALID);
        assert_kind(set(socket, "multicast-interface", (INT64_C(1) << 32) + 1), LPORT_INVALID);
        cr_assert_eq(get(socket, "multicast-interface"), 1);
        cr_assert_eq(set(socket, "multicast-interface", LPORT_NEVER), 0);
        cr_assert_eq(get(socket, "multicast-interface"), LPORT_NEVER);
        cr_assert_eq(lport_socket_close(socket, 0), 0);
    }
}

/* Linux sends IPv4 by IPv4's settings from an IPv6 socket, too. */
SOCKET_TEST(option, a_socket_of_both_families_sends_both_by_one_value) {
    static const struct {
        const char *name;
        int number;
        int64_t value;
        int kinds;
    } rows[] = {
        {"ttl", IP_TTL, 7, IP},
        {"hop-limit", IP_TTL, 8, IP},
        {"type-of-service", IP_TOS, 0x28, IP},
        {"traffic-class", IP_TOS, 0x48, IP},
        {"mtu-discovery", IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP},
        {"receive-errors", IP_RECVERR, 1, UDP},
        {"multicast-ttl", IP_MULTICAST_TTL, 9, UDP},
        {"multicast-loop", IP_MULTICAST_LOOP, 0, UDP},
    };
    for (int sort = 1; sort < 4; sort += 2) {
        int64_t both = open_sort(sort, 0), one = open_sort(sort, LPORT_V6_ONLY);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            if ((rows[i].kinds & sorts[sort].bit) != 0) {
                int64_t old = inet_number(one, rows[i].number);
                cr_assert_eq(set(both, rows[i].name, rows[i].value), 0, "%s", rows[i].name);
                cr_assert_eq(inet_number(both, rows[i].number), rows[i].value, "%s", rows[i].name);
                cr_assert_eq(set(one, rows[i].name, rows[i].value), 0, "%s", rows[i].name);
                cr_assert_eq(inet_number(one, rows[i].number), old, "%s", rows[i].name);
            }
        }
        assert_kind(set(both, "ttl", 0), LPORT_INVALID); /* IPv6 alone would take it */
        cr_assert_eq(get(both, "ttl"), 8);
        cr_assert_eq(inet_number(both, IP_TTL), 8);
        cr_assert_eq(lport_socket_close(both, 0), 0);
        cr_assert_eq(lport_socket_close(one, 0), 0);
    }
}

SOCKET_TEST(option, a_socket_of_both_families_sends_both_to_groups_by_one_interface) {
    int64_t socket = open_sort(3, 0);
    cr_assert_eq(set(socket, "multicast-interface", 1), 0);
    cr_assert_eq((uint32_t)inet_number(socket, IP_MULTICAST_IF), htonl(INADDR_LOOPBACK));
    cr_assert_eq(set(socket, "multicast-interface", LPORT_NEVER), 0);
    cr_assert_eq(inet_number(socket, IP_MULTICAST_IF), 0);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

static int inet6_getifaddrs(struct ifaddrs **list) {
    int result = getifaddrs(list);
    for (struct ifaddrs *at = result == 0 ? *list : NULL; at != NULL; at = at->ifa_next) {
        if (at->ifa_addr != NULL && at->ifa_addr->sa_family == AF_INET) {
            at->ifa_addr = NULL;
        }
    }
    return result;
}

/* IPv4 then goes the way that the system picks. */
SOCKET_TEST(option, a_socket_of_both_families_sends_to_groups_by_an_interface_without_inet) {
    int64_t both = open_sort(3, 0), inet = open_sort(2, 0);
    faults_watch(); /* a call is replaced by our own */
    lport_os.getifaddrs = inet6_getifaddrs;
    cr_assert_eq(set(both, "multicast-interface", 1), 0);
    cr_assert_eq(get(both, "multicast-interface"), 1);
    cr_assert_eq(inet_number(both, IP_MULTICAST_IF), 0);
    assert_kind(set(inet, "multicast-interface", 1), LPORT_ADDRESS_NOT_AVAILABLE);
    faults_resume();
    cr_assert_eq(lport_socket_close(both, 0), 0);
    cr_assert_eq(lport_socket_close(inet, 0), 0);
}

SOCKET_TEST(option, a_connection_has_an_mtu_and_a_segment) {
    static const int32_t families[] = {LPORT_INET, LPORT_INET6};
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        int64_t alone = open_sort((int)i, 0);
        make_connection(families[i], ends);
        cr_assert_gt(get(ends[0], "mtu"), 1000);
        cr_assert_gt(get(ends[0], "max-segment"), 500);
        assert_kind(get(alone, "mtu"), LPORT_NOT_CONNECTED);
        assert_kind(set(alone, "mtu", 1500), LPORT_INVALID);
        cr_assert_eq(set(alone, "max-segment", 1000), 0);
        cr_assert_gt(get(alone, "max-segment"), 0);
        cr_assert_eq(lport_socket_close(alone, 0), 0);
        close_both(ends);
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

SOCKET_TEST(option, values_out_of_range_are_refused_and_change_nothing) {
    static const int64_t wrong[] = {-1, INT64_MIN, (INT64_C(1) << 31) * SECOND, INT64_MAX};
    int64_t socket = open_sort(0, LPORT_KEEPALIVE);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_kind(set(socket, "keepalive-idle", wrong[i]), LPORT_INVALID);
        assert_kind(set(socket, "nodelay", wrong[i]), LPORT_INVALID);
    }
    assert_kind(set(socket, "nodelay", 2), LPORT_INVALID);
    assert_kind(set(socket, "mtu-discovery", 6), LPORT_INVALID);
    assert_kind(set(socket, "ttl", 256), LPORT_INVALID);
    assert_kind(set(socket, "keepalive-idle", 0), LPORT_INVALID);
    assert_kind(set(socket, "keepalive-idle", 32768 * SECOND), LPORT_INVALID);
    assert_kind(set(socket, "keepalive-count", 128), LPORT_INVALID);
    cr_assert_eq(get(socket, "keepalive-idle"), 15 * SECOND);
    cr_assert_eq(get(socket, "nodelay"), 0);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

/* IPv4 would take the lowest octet. */
SOCKET_TEST(option, what_is_more_than_an_octet_is_no_type_of_service) {
    static const char *const names[] = {"type-of-service", "traffic-class"};
    static const int64_t wrong[] = {256, 0x128, INT32_MAX};
    for (int sort = 0; sort < 4; sort++) {
        int64_t socket = open_sort(sort, 0);
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            const char *name = names[i % 2];
            cr_assert_eq(set(socket, name, 0x28), 0);
            assert_kind(set(socket, name, wrong[i]), LPORT_INVALID);
            cr_assert_eq(get(socket, name), 0x28);
        }
        cr_assert_eq(lport_socket_close(socket, 0), 0);
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

static void assert_chosen(int64_t socket, const char *name, const char *choice) {
    int64_t place = get(socket, name);
    cr_assert_str_eq(lport_option_choice(index_of(name), (int32_t)place), choice);
}

SOCKET_TEST(option, those_that_tell_of_the_socket_tell_the_truth) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    int64_t socket = open_sort(0, 0), datagram = open_sort(2, 0);
    cr_assert_eq(get(listener, "accepting"), 1);
    cr_assert_eq(get(socket, "accepting"), 0);
    assert_chosen(socket, "type", "stream");
    assert_chosen(datagram, "type", "datagram");
    assert_chosen(socket, "domain", "inet");
    assert_chosen(socket, "protocol", "tcp");
    assert_chosen(datagram, "protocol", "udp");
    cr_assert_eq(get(socket, "error"), LPORT_NEVER);
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
    int64_t listener = lport_socket_listen(address, -1, LPORT_NODELAY | LPORT_KEEPALIVE);
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
