/* datagram_group: multicast, joined, heard, left; nothing leaves the host. */
#include "address/address.h"
#include "support.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(datagram_group, .timeout = 10);

struct family {
    int32_t family;
    const char *group;  /* RFC 5771: source-specific groups are 232/8; RFC 4607: ff3x::/96 */
    const char *source; /* from where senders send */
    const char *other;  /* somebody else */
    int32_t interface;
};

/* The loopback interface has no route for groups of IPv6, so another one is taken, with a group of
 * interface-local scope, which never leaves the host (RFC 4291 2.7). */
static struct family families[] = {
    {LPORT_INET, "232.1.2.3", "127.0.0.1", "127.0.0.9", 0},
    {LPORT_INET6, "ff31::8000:1234", NULL, "::9", 0},
};

static void parse(const char *text, int32_t port, uint8_t *address) {
    cr_assert_gt(lport_address_parse(text, strlen(text), port, address), 0);
}

static int32_t loopback_interface(void) {
    int64_t index = lport_interface_index("lo", 2);
    cr_assert_gt(index, 0);
    return (int32_t)index;
}

/* The interface of LINE of lport_interface_list if groups of IPv6 have a way there: its address,
 * global, is kept in TEXT. */
static int take_inet6(char *line, char *text, size_t cap) {
    char *rest = NULL;
    int32_t index = (int32_t)strtol(strtok_r(line, " ", &rest), NULL, 10);
    strtok_r(NULL, " ", &rest);
    strtok_r(NULL, " ", &rest);
    char *flags = strtok_r(NULL, " ", &rest);
    if (flags == NULL || strstr(flags, "up") == NULL || strstr(flags, "loopback") != NULL) {
        return 0;
    }
    for (char *word; (word = strtok_r(NULL, " ", &rest)) != NULL;) {
        if (strchr(word, ':') != NULL && strncmp(word, "fe80", 4) != 0) {
            snprintf(text, cap, "%.*s", (int)strcspn(word, "/"), word);
            families[1].source = text;
            families[1].interface = index;
            return 1;
        }
    }
    return 0;
}

/* Finds the interfaces to use; how many of the families can be tried. */
static int find_interfaces(void) {
    static char list[16384], text[LPORT_TEXT_SIZE];
    char *rest = NULL;
    families[0].interface = loopback_interface();
    cr_assert_gt(lport_interface_list(list, sizeof list - 1), 0);
    for (char *line = strtok_r(list, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        if (take_inet6(line, text, sizeof text)) {
            return 2;
        }
    }
    return 1;
}

static void set_option(int64_t socket, const char *name, int64_t value) {
    for (int32_t i = 0; lport_option_name(i) != NULL; i++) {
        if (strcmp(lport_option_name(i), name) == 0) {
            cr_assert_eq(lport_option_set(socket, i, value), 0, "%s", name);
            return;
        }
    }
    cr_assert_fail("no option %s", name);
}

/* A socket on the wildcard of FAMILY; its port into *PORT. */
static int64_t open_receiver(int32_t family, int32_t *port) {
    uint8_t any[LPORT_ADDRESS_SIZE] = {(uint8_t)family};
    int64_t socket = lport_datagram_open(any, NULL, 0, NULL, 0);
    cr_assert_gt(socket, 0);
    cr_assert_gt(lport_socket_name(socket, any), 0);
    *port = lport_address_port(any);
    return socket;
}

/* One that sends from the source of FAMILY, to groups on its interface. */
static int64_t open_sender(const struct family *family) {
    uint8_t own[LPORT_ADDRESS_SIZE];
    parse(family->source, 0, own);
    int64_t socket = lport_datagram_open(own, NULL, 0, NULL, 0);
    cr_assert_gt(socket, 0);
    set_option(socket, "multicast-interface", family->interface);
    return socket;
}

/* Whether what SENDER sends to GROUP gets to RECEIVER: a message to its own address comes after. */
static int hears(int64_t receiver, int64_t sender, const struct family *family,
                 const uint8_t *group) {
    uint8_t own[LPORT_ADDRESS_SIZE], octet[2] = {0};
    int heard = 0;
    parse(family->source, lport_address_port(group), own);
    cr_assert_eq(undisturbed(lport_datagram_send(sender, (const uint8_t *)"g", 1, group)), 1);
    cr_assert_eq(undisturbed(lport_datagram_send(sender, (const uint8_t *)"o", 1, own)), 1);
    while (octet[0] != 'o') {
        cr_assert_gt(wait_for(receiver, LPORT_INPUT, soon()), 0);
        cr_assert_eq(undisturbed(lport_datagram_receive(receiver, octet, 2, NULL, 0)), 1);
        heard += octet[0] == 'g';
    }
    return heard;
}

/* RECEIVER on PORT, of any family, joins and leaves the group of FAMILY. */
static void join_and_leave(int64_t receiver, int32_t port, const struct family *family) {
    uint8_t group[LPORT_ADDRESS_SIZE], source[LPORT_ADDRESS_SIZE], other[LPORT_ADDRESS_SIZE];
    int32_t at = family->interface;
    int64_t sender = open_sender(family);
    parse(family->group, port, group);
    parse(family->source, 0, source);
    parse(family->other, 0, other);
    cr_assert_eq(hears(receiver, sender, family, group), 0);

    cr_assert_eq(lport_datagram_join(receiver, group, at, NULL), 0);
    assert_kind(lport_datagram_join(receiver, group, at, NULL), LPORT_ADDRESS_IN_USE);
    cr_assert_eq(hears(receiver, sender, family, group), 1);
    cr_assert_eq(lport_datagram_leave(receiver, group, at, NULL), 0);
    assert_kind(lport_datagram_leave(receiver, group, at, NULL), LPORT_ADDRESS_NOT_AVAILABLE);
    assert_kind(lport_datagram_leave(receiver, group, at, source), LPORT_ADDRESS_NOT_AVAILABLE);

    cr_assert_eq(lport_datagram_join(receiver, group, at, other), 0);
    cr_assert_eq(hears(receiver, sender, family, group), 0, "from another source");
    cr_assert_eq(lport_datagram_join(receiver, group, at, source), 0);
    assert_kind(lport_datagram_join(receiver, group, at, source), LPORT_ADDRESS_IN_USE);
    cr_assert_eq(hears(receiver, sender, family, group), 1);
    cr_assert_eq(lport_datagram_leave(receiver, group, at, source), 0);
    cr_assert_eq(hears(receiver, sender, family, group), 0);
    cr_assert_eq(lport_datagram_leave(receiver, group, at, other), 0);
    cr_assert_eq(lport_socket_close(sender, 0), 0);
}

SOCKET_TEST(datagram_group, groups_are_joined_heard_and_left) {
    int count = find_interfaces();
    for (int i = 0; i < count; i++) {
        int32_t port;
        int64_t receiver = open_receiver(families[i].family, &port);
        join_and_leave(receiver, port, &families[i]);
        cr_assert_eq(lport_socket_close(receiver, 0), 0);
    }
}

/* Each of the two names the same group and source, mapped or not. */
SOCKET_TEST(datagram_group, a_mapped_group_is_the_ipv4_one) {
    static const int32_t of[] = {LPORT_INET, LPORT_ANY};
    uint8_t group[2][LPORT_ADDRESS_SIZE], source[2][LPORT_ADDRESS_SIZE];
    int32_t at = loopback_interface(), port;
    parse("232.1.2.6", 0, group[0]);
    parse("::ffff:232.1.2.6", 0, group[1]);
    parse("127.0.0.1", 0, source[0]);
    parse("::ffff:127.0.0.1", 0, source[1]);
    for (int i = 0; i < 2; i++) {
        int64_t socket = open_receiver(of[i], &port);
        cr_assert_eq(lport_datagram_join(socket, group[1], at, NULL), 0);
        assert_kind(lport_datagram_join(socket, group[0], at, NULL), LPORT_ADDRESS_IN_USE);
        cr_assert_eq(lport_datagram_leave(socket, group[1], at, NULL), 0);
        cr_assert_eq(lport_datagram_join(socket, group[0], at, source[1]), 0);
        assert_kind(lport_datagram_join(socket, group[1], at, source[0]), LPORT_ADDRESS_IN_USE);
        cr_assert_eq(lport_datagram_leave(socket, group[1], at, source[0]), 0);
        cr_assert_eq(lport_socket_close(socket, 0), 0);
    }
}

SOCKET_TEST(datagram_group, a_socket_for_both_families_joins_both) {
    int32_t port;
    static const char *const groups[] = {"232.1.2.5", "ff31::8000:1236"}; /* of this test alone */
    int count = find_interfaces();
    int64_t receiver = open_receiver(LPORT_ANY, &port);
    for (int i = 0; i < count; i++) {
        struct family family = families[i];
        family.group = groups[i];
        join_and_leave(receiver, port, &family);
    }
    cr_assert_eq(lport_socket_close(receiver, 0), 0);
}

/* Unless told otherwise Linux goes on to hand it a group that it has left, for its neighbour. */
SOCKET_TEST(datagram_group, what_only_a_neighbour_has_joined_is_not_heard) {
    static const char *const groups[] = {"232.1.2.4", "ff31::8000:1235"}; /* of this test alone */
    int count = find_interfaces();
    for (int i = 0; i < count; i++) {
        const struct family *family = &families[i];
        uint8_t group[LPORT_ADDRESS_SIZE];
        int32_t port, neighbours;
        int64_t receiver = open_receiver(family->family, &port), sender = open_sender(family);
        int64_t neighbour = open_receiver(family->family, &neighbours);
        parse(groups[i], port, group);
        cr_assert_eq(lport_datagram_join(neighbour, group, family->interface, NULL), 0);
        cr_assert_eq(lport_datagram_join(receiver, group, family->interface, NULL), 0);
        cr_assert_eq(hears(receiver, sender, family, group), 1);
        cr_assert_eq(lport_datagram_leave(receiver, group, family->interface, NULL), 0);
        cr_assert_eq(hears(receiver, sender, family, group), 0);
        cr_assert_eq(lport_socket_close(receiver, 0), 0);
        cr_assert_eq(lport_socket_close(sender, 0), 0);
        cr_assert_eq(lport_socket_close(neighbour, 0), 0);
    }
}

/* Whether SOCKET, of both families, hears groups of LEVEL that only others have joined. */
static int hears_all(int64_t socket, int level, int number) {
    int value = -1;
    socklen_t len = sizeof value;
    cr_assert_eq(getsockopt((int)lport_socket_descriptor(socket), level, number, &value, &len), 0);
    return value;
}

/* The system is asked: groups of IPv6 go nowhere where there is but the loopback interface. */
SOCKET_TEST(datagram_group, a_group_of_one_family_brings_none_of_the_other) {
    static const char *const groups[] = {"232.1.2.8", "ff31::8000:1238"};
    if (!have_inet6()) {
        return;
    }
    for (int i = 0; i < 2; i++) {
        uint8_t group[LPORT_ADDRESS_SIZE];
        int32_t port;
        int64_t socket = open_receiver(LPORT_ANY, &port);
        parse(groups[i], 0, group);
        cr_assert_eq(hears_all(socket, IPPROTO_IPV6, IPV6_MULTICAST_ALL), 1);
        cr_assert_eq(lport_datagram_join(socket, group, loopback_interface(), NULL), 0);
        cr_assert_eq(hears_all(socket, IPPROTO_IPV6, IPV6_MULTICAST_ALL), 0, "%s", groups[i]);
        cr_assert_eq(hears_all(socket, IPPROTO_IP, IP_MULTICAST_ALL), 0, "%s", groups[i]);
        cr_assert_eq(lport_socket_close(socket, 0), 0);
    }
}

SOCKET_TEST(datagram_group, what_cannot_be_joined) {
    uint8_t group[LPORT_ADDRESS_SIZE], six[LPORT_ADDRESS_SIZE];
    uint8_t source[LPORT_ADDRESS_SIZE], no_group[LPORT_ADDRESS_SIZE] = {0};
    int32_t port, lo = loopback_interface();
    int64_t receiver = open_receiver(LPORT_INET, &port);
    parse("232.1.2.7", 0, group);
    parse("ff31::8000:1237", 0, six);
    assert_kind(lport_datagram_join(receiver, group, 1000000, NULL), LPORT_ADDRESS_NOT_AVAILABLE);
    assert_kind(lport_datagram_join(receiver, group, -1, NULL), LPORT_INVALID);
    int64_t picked = lport_datagram_join(receiver, group, 0, NULL); /* if a route leads there */
    assert_kind(picked, picked < 0 ? LPORT_ADDRESS_NOT_AVAILABLE : 0);
    assert_kind(lport_datagram_join(receiver, group, lo, six), LPORT_INVALID);
    assert_kind(lport_datagram_join(receiver, six, lo, NULL), LPORT_NOT_SUPPORTED);
    assert_kind(lport_datagram_join(receiver, no_group, lo, NULL), LPORT_INVALID);
    loopback(LPORT_INET, 0, no_group);
    assert_kind(lport_datagram_join(receiver, no_group, lo, NULL), LPORT_INVALID);
    loopback(LPORT_INET, 0, source);
    for (int64_t call = 1; call <= 2; call++) {
        faults_fail(CALL_SETSOCKOPT, call, 1, ENOBUFS);
        assert_kind(lport_datagram_join(receiver, group, lo, NULL), LPORT_BUFFERS_EXHAUSTED);
        faults_fail(CALL_SETSOCKOPT, call, 1, ENOBUFS);
        assert_kind(lport_datagram_join(receiver, group, lo, source), LPORT_BUFFERS_EXHAUSTED);
    }
    faults_fail(CALL_SETSOCKOPT, 1, 1, ENOBUFS);
    assert_kind(lport_datagram_leave(receiver, group, lo, source), LPORT_BUFFERS_EXHAUSTED);
    faults_fail(CALL_SETSOCKOPT, 1, 1, ENOPROTOOPT); /* a system that joins, and no more */
    cr_assert_eq(lport_datagram_join(receiver, group, lo, NULL), 0);
    faults_resume();
    cr_assert_eq(lport_socket_close(receiver, 0), 0);
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    assert_kind(lport_datagram_join(ends[0], group, lo, NULL), LPORT_NOT_SUPPORTED);
    close_both(ends);
}
