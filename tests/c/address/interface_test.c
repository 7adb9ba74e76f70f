/* interface: what this host has. */
#include "address/interface.h"

#include "base/os.h"
#include "knowing.h"
#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

TestSuite(interface, .timeout = 10);

/* TEXT is names of flags with commas between them, "up" among them. */
static void assert_flags(const char *text) {
    static const char *const known[] = {"up",        "running",   "loopback",    "point-to-point",
                                        "broadcast", "multicast", "promiscuous", "no-arp"};
    char copy[64], *rest = NULL;
    bool up = false;
    (void)snprintf(copy, sizeof copy, "%s", text);
    for (char *flag = strtok_r(copy, ",", &rest); flag; flag = strtok_r(NULL, ",", &rest)) {
        size_t i = 0;
        while (i < sizeof known / sizeof *known && strcmp(flag, known[i]) != 0) {
            i++;
        }
        cr_assert_lt(i, sizeof known / sizeof *known, "%s of %s", flag, text);
        up = up || i == 0;
    }
    cr_assert(up, "%s", text);
}

SOCKET_TEST(interface, the_list_has_the_loopback_and_its_addresses) {
    char text[8192], start[64];
    int64_t len = lport_interface_list(text, sizeof text);
    cr_assert(len > 0 && len < (int64_t)sizeof text);
    cr_assert_eq(text[len - 1], '\n');
    (void)snprintf(start, sizeof start, "%u lo ", if_nametoindex("lo"));
    const char *line = strstr(text, start);
    cr_assert_not_null(line, "no line begins %s: %s", start, text);
    size_t line_len = strcspn(line, "\n");
    unsigned int index, mtu;
    char name[32], flags[64], first[64];
    cr_assert_eq(sscanf(line, "%u %31s %u %63s %63s", &index, name, &mtu, flags, first), 5);
    cr_assert_gt(mtu, 1000u);
    cr_assert_str_eq(first, "127.0.0.1/8");
    cr_assert_not_null(strstr(flags, "loopback"));
    assert_flags(flags);
    cr_assert_eq(memmem(line, line_len, " ::1/128", 8) != NULL, have_inet6());
    cr_assert_null(strstr(text, "  "), "%s", text);
    cr_assert_null(strstr(text, " \n"), "%s", text);
}

static int count_of(const char *text, char c) {
    int count = 0;
    for (; *text != '\0'; text++) {
        count += *text == c;
    }
    return count;
}

SOCKET_TEST(interface, each_interface_and_each_address_stands_there_once) {
    char text[8192];
    struct ifaddrs *all = NULL;
    struct if_nameindex *interfaces = if_nameindex();
    int lines = 0, addresses = 0;
    cr_assert(interfaces != NULL && getifaddrs(&all) == 0);
    for (struct if_nameindex *at = interfaces; at->if_index != 0; at++) {
        lines++;
    }
    for (struct ifaddrs *at = all; at != NULL; at = at->ifa_next) {
        int family = at->ifa_addr == NULL ? AF_UNSPEC : at->ifa_addr->sa_family;
        addresses += family == AF_INET || family == AF_INET6;
    }
    freeifaddrs(all);
    if_freenameindex(interfaces);
    cr_assert_geq(lport_interface_list(text, sizeof text), 0);
    cr_assert_eq(count_of(text, '\n'), lines, "%s", text);
    cr_assert_eq(count_of(text, '/'), addresses, "%s", text);
}

/* As libport.h says of every text. */
SOCKET_TEST(interface, texts_are_cut_off_at_their_room) {
    char text[8192], cut[10], whole[10];
    int64_t len = lport_interface_list(text, sizeof text);
    cr_assert_eq(lport_interface_list(NULL, 0), len);
    memset(cut, '?', sizeof cut);
    cr_assert_eq(lport_interface_list(cut, 7), len);
    cr_assert_arr_eq(cut, text, 7);
    cr_assert_arr_eq(cut + 7, "???", 3);
    cr_assert_eq(lport_interface_name((int32_t)if_nametoindex("lo"), whole, sizeof whole), 2);
    cr_assert_str_eq(whole, "lo");
    len = lport_host_name(text, sizeof text);
    cr_assert_eq(lport_host_name(cut, 1), len);
    cr_assert_eq(cut[0], text[0]);
}

SOCKET_TEST(interface, names_and_indices_belong_together) {
    char name[32];
    int64_t index = lport_interface_index("lo", 2);
    cr_assert_eq(index, if_nametoindex("lo"));
    cr_assert_eq(lport_interface_name((int32_t)index, name, sizeof name), 2);
    cr_assert_str_eq(name, "lo");
    static const struct {
        const char *name;
        size_t len;
    } none[] = {{NULL, 0},
                {"lo", 1},
                {"lo", 3},
                {"no-such-one", 11},
                {"much-longer-than-any", 20},
                {"sixteen-octets--", 16}};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        errno = EMFILE; /* from something else */
        assert_kind(lport_interface_index(none[i].name, none[i].len), LPORT_ADDRESS_NOT_AVAILABLE);
    }
    static const int32_t nobody[] = {0, -1, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof nobody / sizeof *nobody; i++) {
        assert_kind(lport_interface_name(nobody[i], name, sizeof name),
                    LPORT_ADDRESS_NOT_AVAILABLE);
    }
}

SOCKET_TEST(interface, addresses_are_found_in_both_directions) {
    uint32_t address = 0;
    int32_t index = (int32_t)lport_interface_index("lo", 2);
    cr_assert_eq(lport_interface_inet(index, &address), 0);
    cr_assert_eq(address, htonl(INADDR_LOOPBACK));
    cr_assert_eq(lport_interface_with(address), index);
    assert_kind(lport_interface_with(inet_addr("192.0.2.1")), LPORT_ADDRESS_NOT_AVAILABLE);
    assert_kind(lport_interface_inet(1000000, &address), LPORT_ADDRESS_NOT_AVAILABLE);
}

/* The addresses of lo have a label of it for their name (ip-address(8)). */
static int labelling_getifaddrs(struct ifaddrs **list) {
    static char label[] = "lo:1";
    int result = getifaddrs(list);
    for (struct ifaddrs *at = result == 0 ? *list : NULL; at != NULL; at = at->ifa_next) {
        if (at->ifa_addr != NULL && at->ifa_addr->sa_family == AF_INET &&
            strcmp(at->ifa_name, "lo") == 0) {
            at->ifa_name = label;
        }
    }
    return result;
}

SOCKET_TEST(interface, a_label_is_a_name_of_its_interface) {
    char plain[8192], text[8192];
    uint32_t address = 0;
    int32_t index = (int32_t)lport_interface_index("lo", 2);
    cr_assert_gt(lport_interface_list(plain, sizeof plain), 0);
    faults_watch(); /* a call is replaced by our own */
    lport_os.getifaddrs = labelling_getifaddrs;
    cr_assert_gt(lport_interface_list(text, sizeof text), 0);
    cr_assert_eq(lport_interface_inet(index, &address), 0);
    cr_assert_eq(lport_interface_with(htonl(INADDR_LOOPBACK)), index);
    faults_resume();
    cr_assert_str_eq(text, plain);
    cr_assert_eq(address, htonl(INADDR_LOOPBACK));
}

/* Does CHANGE with the row of lo of FAMILY in the system's list. */
static void change_row(struct ifaddrs *list, int family, void (*change)(struct ifaddrs *row)) {
    for (struct ifaddrs *at = list; at != NULL; at = at->ifa_next) {
        if (at->ifa_addr != NULL && at->ifa_addr->sa_family == family &&
            strcmp(at->ifa_name, "lo") == 0) {
            change(at);
        }
    }
}

static void give_to_l(struct ifaddrs *row) {
    static char other[] = "l";
    row->ifa_name = other;
}

static void take_address(struct ifaddrs *row) {
    row->ifa_addr = NULL;
}

static void take_flags(struct ifaddrs *row) {
    row->ifa_flags = 0;
}

static int prefixed_getifaddrs(struct ifaddrs **list) {
    int result = getifaddrs(list);
    if (result == 0) {
        change_row(*list, AF_INET, give_to_l);
    }
    return result;
}

static int bare_getifaddrs(struct ifaddrs **list) {
    int result = getifaddrs(list);
    if (result == 0) {
        change_row(*list, AF_INET, take_address);
        change_row(*list, AF_PACKET, take_flags);
    }
    return result;
}

/* The flags in the line of lo, which has an MTU in front of them, in the list TEXT. */
static const char *flags_of_lo(const char *text) {
    const char *mtu = strstr(text, " lo ") + strlen(" lo ");
    return strchr(mtu, ' ') + 1;
}

/* Another interface's name begins as its own does; rows may lack an address (getifaddrs(3)), and an
 * interface that is down has no flag. */
SOCKET_TEST(interface, an_interface_has_only_what_is_its_own) {
    int (*const lists[])(struct ifaddrs **) = {prefixed_getifaddrs, bare_getifaddrs};
    int32_t index = (int32_t)lport_interface_index("lo", 2);
    for (size_t i = 0; i < COUNT_OF(lists); i++) {
        char text[8192];
        uint32_t address;
        faults_watch(); /* a call is replaced by our own */
        lport_os.getifaddrs = lists[i];
        cr_assert_gt(lport_interface_list(text, sizeof text), 0);
        int64_t inet = lport_interface_inet(index, &address);
        int64_t with = lport_interface_with(htonl(INADDR_LOOPBACK));
        faults_resume();
        cr_assert_null(strstr(text, "127.0.0.1/8"), "%s", text);
        assert_kind(inet, LPORT_ADDRESS_NOT_AVAILABLE);
        assert_kind(with, LPORT_ADDRESS_NOT_AVAILABLE);
        cr_assert_eq(*flags_of_lo(text) == '-', i == 1, "%s", text);
    }
}

/* The row of the link of lo, which comes before the others, becomes one of 127.0.0.9. */
static void make_inet(struct ifaddrs *row) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(0x7f000009)}};
    memcpy(row->ifa_addr, &in, sizeof in);
}

static int two_getifaddrs(struct ifaddrs **list) {
    int result = getifaddrs(list);
    if (result == 0) {
        change_row(*list, AF_PACKET, make_inet);
    }
    return result;
}

SOCKET_TEST(interface, its_first_address_is_the_one_of_an_interface) {
    uint32_t address = 0;
    int32_t index = (int32_t)lport_interface_index("lo", 2);
    faults_watch(); /* a call is replaced by our own */
    lport_os.getifaddrs = two_getifaddrs;
    cr_assert_eq(lport_interface_inet(index, &address), 0);
    faults_resume();
    cr_assert_eq(address, htonl(0x7f000009));
}

SOCKET_TEST(interface, the_address_of_another_is_none_of_an_interface) {
    uint32_t address;
    (void)snprintf(known_interface, sizeof known_interface, "no-such-one");
    faults_watch(); /* a call is replaced by our own */
    lport_os.ioctl = knowing_ioctl;
    assert_kind(lport_interface_inet(7, &address), LPORT_ADDRESS_NOT_AVAILABLE);
    faults_resume();
}

/* The system would cut off what is too long, and end it at a zero octet. */
SOCKET_TEST(interface, the_system_is_asked_for_whole_names_only) {
    static const struct {
        const char *name;
        size_t len;
    } none[] = {{"", 0}, {"sixteen-octets--", 16}, {"much-longer-than-any", 20}, {"lo\0o", 4}};
    faults_watch(); /* a call is replaced by our own */
    lport_os.ioctl = knowing_ioctl;
    cr_assert_eq(lport_interface_index("fifteen-octets-", 15), 7);
    for (size_t i = 0; i < COUNT_OF(none); i++) {
        assert_kind(lport_interface_index(none[i].name, none[i].len), LPORT_ADDRESS_NOT_AVAILABLE);
    }
    faults_resume();
}

static int spoiling_close(int fd) {
    int result = close(fd);
    errno = EBADF;
    return result;
}

SOCKET_TEST(interface, the_failure_told_is_that_of_the_question) {
    faults_fail(CALL_IOCTL, 1, 1, ENOMEM);
    lport_os.close = spoiling_close;
    assert_kind(lport_interface_index("lo", 2), LPORT_MEMORY_EXHAUSTED);
    faults_resume();
}

static int strict_socket(int domain, int type, int protocol) {
    cr_assert((type & SOCK_CLOEXEC) != 0);
    return socket(domain, type, protocol);
}

/* Behaviour 60: a program that another thread starts at that moment does not get it. */
SOCKET_TEST(interface, what_the_system_is_asked_with_is_close_on_exec) {
    static const char zoned[] = "fe80::1%lo";
    uint8_t address[LPORT_ADDRESS_SIZE];
    char text[LPORT_TEXT_SIZE];
    faults_watch(); /* a call is replaced by our own */
    lport_os.socket = strict_socket;
    cr_assert_gt(lport_interface_index("lo", 2), 0);
    cr_assert_gt(lport_interface_list(NULL, 0), 0);
    cr_assert_eq(lport_address_parse(zoned, strlen(zoned), 80, address), LPORT_INET6);
    cr_assert_eq(lport_address_print(address, text, sizeof text), (int64_t)strlen(zoned));
    faults_resume();
}

SOCKET_TEST(interface, the_host_has_its_name) {
    char name[256] = "", text[256];
    cr_assert_eq(gethostname(name, sizeof name - 1), 0);
    cr_assert_eq(lport_host_name(text, sizeof text), (int64_t)strlen(name));
    cr_assert_str_eq(text, name);
}

static struct rlimit descriptors;

/* Lets the list have its rows, and no descriptor more. */
static int last_getifaddrs(struct ifaddrs **list) {
    int result = getifaddrs(list);
    struct rlimit low = {.rlim_cur = 0, .rlim_max = descriptors.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    return result;
}

SOCKET_TEST(interface, a_list_at_the_descriptor_limit_has_its_indices) {
    char whole[8192], text[8192];
    cr_assert_gt(lport_interface_list(whole, sizeof whole), 0);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &descriptors), 0);
    faults_watch();
    lport_os.getifaddrs = last_getifaddrs;
    int64_t len = lport_interface_list(text, sizeof text);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &descriptors), 0);
    faults_resume();
    cr_assert_gt(len, 0);
    for (char *at = whole, *other = text; *at != '\0'; at = strchr(at, '\n') + 1) {
        cr_assert_eq(strtol(at, NULL, 10), strtol(other, NULL, 10), "%s, not %s", text, whole);
        other = strchr(other, '\n') + 1;
    }
}

/* Behaviour 57. The system has no descriptor to ask with: that is not to say that nothing is there.
 */
SOCKET_TEST(interface, one_that_cannot_be_asked_for_at_the_descriptor_limit_is_no_missing_one) {
    static const char zoned[] = "fe80::1%lo";
    uint8_t address[LPORT_ADDRESS_SIZE];
    uint32_t inet;
    char name[16];
    int32_t index = (int32_t)lport_interface_index("lo", 2);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &descriptors), 0);
    struct rlimit low = {.rlim_cur = 0, .rlim_max = descriptors.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    int64_t statuses[] = {
        lport_interface_index("lo", 2),
        lport_interface_name(index, name, sizeof name),
        lport_interface_inet(index, &inet),
        lport_address_parse(zoned, strlen(zoned), 80, address),
        lport_dial_open(zoned, strlen(zoned), 80, LPORT_ANY, NULL, 0),
    };
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &descriptors), 0);
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        assert_kind(statuses[i], LPORT_DESCRIPTORS_EXHAUSTED);
    }
    cr_assert_eq(lport_interface_index("lo", 2), index);
    cr_assert_eq(lport_address_parse(zoned, strlen(zoned), 80, address), LPORT_INET6);
}

/* Behaviour 64. */
SOCKET_TEST(interface, a_failure_of_the_system_is_a_status) {
    char text[256];
    uint32_t address;
    faults_fail(CALL_SOCKET, 1, 1, EMFILE);
    assert_kind(lport_interface_list(text, sizeof text), LPORT_DESCRIPTORS_EXHAUSTED);
    faults_fail(CALL_GETIFADDRS, 1, 3, ENOMEM);
    assert_kind(lport_interface_list(text, sizeof text), LPORT_MEMORY_EXHAUSTED);
    assert_kind(lport_interface_inet(1, &address), LPORT_MEMORY_EXHAUSTED);
    assert_kind(lport_interface_with(htonl(INADDR_LOOPBACK)), LPORT_MEMORY_EXHAUSTED);
    faults_fail(CALL_GETHOSTNAME, 1, 1, EPERM);
    assert_kind(lport_host_name(text, sizeof text), LPORT_PERMISSION_DENIED);
    /* an interface that has gone while it was asked about */
    faults_fail(CALL_IOCTL, 1, 1000, ENODEV);
    cr_assert_gt(lport_interface_list(text, sizeof text), 0);
    cr_assert_not_null(strstr(text, " lo 0 "));
}
