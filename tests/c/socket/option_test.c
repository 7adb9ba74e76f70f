/* option: what is set and read again, number by number. */
#include "address/address.h"
#include "base/os.h"
#include "setting.h"
#include "socket/socket.h"
#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

TestSuite(option, .timeout = 10);

/* ---- numbers --------------------------------------------------------------------------------- */

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
    assert_kind(set(socket, "linger", INT32_MAX * SECOND + 1), LPORT_INVALID);
    cr_assert_eq(get(socket, "linger"), LPORT_NEVER);
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

/* ---- errors ---------------------------------------------------------------------------------- */

/* Sends to a port that nobody has, so that an error waits for SOCKET. */
static void meet_refusal(int64_t socket, const uint8_t *nobody) {
    cr_assert_eq(lport_datagram_send(socket, (const uint8_t *)"x", 1, nobody), 1);
    cr_assert_gt(wait_for(socket, LPORT_INPUT, soon()), 0);
}

/* Each way to come upon the error, by number. The last one has read it before, as an option, which
 * does not say of whom it is. */
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

/* The last failure on SOCKET was of a message to ADDRESS, which is told once. */
static void assert_was_for(int64_t socket, const uint8_t *address) {
    uint8_t at[LPORT_ADDRESS_SIZE];
    cr_assert_eq(lport_datagram_undelivered(socket, at), address[LPORT_AT_FAMILY]);
    cr_assert_eq(lport_address_equal(at, address), 1);
    cr_assert_eq(lport_datagram_undelivered(socket, at), LPORT_ANY);
}

/* The system keeps a copy of each error, and the socket looks ready as long as it has one. */
static void assert_reported_once(int64_t socket, const uint8_t *nobody) {
    for (int way = 0; way < WAYS; way++) {
        meet_refusal(socket, nobody);
        assert_kind(meet_again(socket, nobody, way), LPORT_CONNECTION_REFUSED);
        assert_was_for(socket, nobody);
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
        int64_t gone = lport_datagram_open(own, NULL, 0, NULL, 0);
        cr_assert_eq(lport_socket_name(gone, nobody), families[i]);
        int64_t socket = lport_datagram_open(own, NULL, 0, NULL, 0);
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

/* A closed port, and one that SOCKET receives on. */
static int64_t open_beside_nobody(int32_t family, uint8_t *nobody, uint8_t *somebody) {
    loopback(family, 0, nobody);
    memcpy(somebody, nobody, LPORT_ADDRESS_SIZE);
    int64_t gone = lport_datagram_open(nobody, NULL, 0, NULL, 0);
    int64_t socket = lport_datagram_open(somebody, NULL, 0, NULL, 0);
    cr_assert_eq(lport_socket_name(gone, nobody), family);
    cr_assert_eq(lport_socket_name(socket, somebody), family);
    cr_assert_eq(lport_socket_close(gone, 0), 0);
    return socket;
}

static int64_t send_octet(int64_t socket, const uint8_t *address) {
    return lport_datagram_send(socket, (const uint8_t *)"x", 1, address);
}

/* Opens an unconnected socket that is told of errors, for both families where there are two. */
static int64_t open_told(void) {
    uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    int64_t socket = lport_datagram_open(any, NULL, 0, NULL, 0);
    cr_assert_eq(set(socket, "receive-errors", 1), 0);
    return socket;
}

SOCKET_TEST(option, an_error_is_told_with_the_destination_of_its_message) {
    static const int32_t families[] = {LPORT_INET, LPORT_INET6};
    faults_watch();
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        uint8_t nobody[LPORT_ADDRESS_SIZE], somebody[LPORT_ADDRESS_SIZE], octet;
        int64_t other = open_beside_nobody(families[i], nobody, somebody), socket = open_told();
        meet_refusal(socket, nobody);
        assert_kind(send_octet(socket, somebody), LPORT_CONNECTION_REFUSED);
        assert_was_for(socket, nobody);
        assert_kind(lport_datagram_receive(other, &octet, 1, NULL, 0), LPORT_WOULD_BLOCK);
        cr_assert_eq(send_octet(socket, somebody), 1);
        cr_assert_eq(lport_datagram_undelivered(socket, nobody), LPORT_ANY);
        cr_assert_eq(lport_socket_close(other, 0), 0);
        cr_assert_eq(lport_socket_close(socket, 0), 0);
    }
    faults_resume();
}

/* It says so itself the next time, when the earlier message has been told of. */
SOCKET_TEST(option, a_failure_of_its_own_comes_after_that_of_an_earlier_message) {
    static uint8_t most[65508];
    uint8_t nobody[LPORT_ADDRESS_SIZE], somebody[LPORT_ADDRESS_SIZE], at[LPORT_ADDRESS_SIZE];
    faults_watch();
    int64_t other = open_beside_nobody(LPORT_INET, nobody, somebody), socket = open_told();
    meet_refusal(socket, nobody);
    assert_kind(lport_datagram_send(socket, most, sizeof most, somebody), LPORT_CONNECTION_REFUSED);
    assert_kind(lport_datagram_send(socket, most, sizeof most, somebody), LPORT_MESSAGE_TOO_LONG);
    cr_assert_eq(lport_datagram_undelivered(socket, at), LPORT_ANY);
    cr_assert_eq(lport_socket_close(other, 0), 0);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
    faults_resume();
}

/* The system takes the first message of a batch, and forgets why it did not take the second. */
SOCKET_TEST(option, an_error_in_the_middle_of_a_batch_is_told) {
    uint8_t ends[2][LPORT_ADDRESS_SIZE], octets[2] = {1, 2};
    int64_t lengths[2] = {1, 1};
    faults_watch();
    int64_t other = open_beside_nobody(LPORT_INET, ends[0], ends[1]), socket = open_told();
    int64_t sent = lport_datagram_send_batch(socket, octets, 1, lengths, ends[0], 2);
    if (sent == 1) { /* ICMP may also come later */
        assert_kind(lport_datagram_send_batch(socket, octets, 1, lengths, ends[1], 1),
                    LPORT_CONNECTION_REFUSED);
        assert_was_for(socket, ends[0]);
        cr_assert_eq(lport_datagram_send_batch(socket, octets, 1, lengths, ends[1], 1), 1);
    }
    cr_assert_eq(lport_socket_close(other, 0), 0);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
    faults_resume();
}

/* ---- texts ----------------------------------------------------------------------------------- */

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
    assert_kind(lport_option_set_text(socket, index_of("nodelay"), "1111", 4), LPORT_INVALID);
    cr_assert_eq(get(socket, "nodelay"), 0);
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

/* ---- interfaces, both families --------------------------------------------------------------- */

/* What IPv4 has at NUMBER, as the system says. */
static int64_t inet_number(int64_t socket, int number) {
    int value = -1;
    socklen_t len = sizeof value;
    int fd = (int)lport_socket_descriptor(socket);
    cr_assert_eq(getsockopt(fd, IPPROTO_IP, number, &value, &len), 0);
    return value;
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

/* ---- the rest -------------------------------------------------------------------------------- */

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
