/* interface - the interfaces of the network, their addresses, and the name of this host (layer 1).
 * Stands on os, status, sink, address. See libport.h.
 *
 * Invariant: what the system lends for a list (getifaddrs, a descriptor for its questions) is given
 * back before the function returns. */
#include "interface.h"

#include "address.h"
#include "base/os.h"
#include "base/sink.h"
#include "base/status.h"
#include "libport.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

enum { HOST_NAME_OCTETS = 256 /* HOST_NAME_MAX is 64 here, POSIX permits 255 */ };

static const struct {
    unsigned int bit;
    const char *name;
} flags[] = {
    {IFF_UP, "up"},
    {IFF_RUNNING, "running"},
    {IFF_LOOPBACK, "loopback"},
    {IFF_POINTOPOINT, "point-to-point"},
    {IFF_BROADCAST, "broadcast"},
    {IFF_MULTICAST, "multicast"},
    {IFF_PROMISC, "promiscuous"},
    {IFF_NOARP, "no-arp"},
};

static void put_flags(struct lport_sink *sink, unsigned int bits) {
    const char *separator = "";
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if ((bits & flags[i].bit) != 0) {
            lport_sink_put(sink, separator);
            lport_sink_put(sink, flags[i].name);
            separator = ",";
        }
    }
    lport_sink_put(sink, *separator == '\0' ? "-" : "");
}

static socklen_t size_of(const struct sockaddr *address) {
    return address->sa_family == AF_INET    ? sizeof(struct sockaddr_in)
           : address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                            : 0;
}

/* The bits of a mask. */
static uint32_t prefix_of(const struct sockaddr *mask, int family) {
    const uint8_t *octets = family == AF_INET
                                ? (const uint8_t *)&((const struct sockaddr_in *)mask)->sin_addr
                                : ((const struct sockaddr_in6 *)mask)->sin6_addr.s6_addr;
    uint32_t bits = 0;
    for (size_t i = 0; i < (family == AF_INET ? 4u : 16u); i++) {
        bits += (uint32_t)__builtin_popcount(octets[i]);
    }
    return bits;
}

/* ` 127.0.0.1/8` */
static void put_address(struct lport_sink *sink, const struct ifaddrs *entry) {
    struct sockaddr_storage storage;
    uint8_t block[LPORT_ADDRESS_SIZE];
    char text[LPORT_TEXT_SIZE];
    socklen_t len = size_of(entry->ifa_addr);
    memset(&storage, 0, sizeof storage);
    memcpy(&storage, entry->ifa_addr, len);
    if (lport_address_from_kernel(&storage, len, block) < 0 ||
        lport_address_print(block, text, sizeof text) < 0) {
        return;
    }
    lport_sink_put(sink, " ");
    lport_sink_put(sink, text);
    if (entry->ifa_netmask != NULL) {
        lport_sink_put(sink, "/");
        lport_sink_number(sink, prefix_of(entry->ifa_netmask, entry->ifa_addr->sa_family));
    }
}

/* True if ENTRY belongs to interface NAME: a label, such as eth0:1, is a name of the same one. */
static bool is_of(const struct ifaddrs *entry, const char *name) {
    size_t len = strcspn(entry->ifa_name, ":");
    return strlen(name) == len && memcmp(entry->ifa_name, name, len) == 0;
}

static void put_addresses(struct lport_sink *sink, const struct ifaddrs *all, const char *name) {
    for (const struct ifaddrs *entry = all; entry != NULL; entry = entry->ifa_next) {
        if (entry->ifa_addr != NULL && size_of(entry->ifa_addr) != 0 && is_of(entry, name)) {
            put_address(sink, entry);
        }
    }
}

/* The MTU of interface NAME, netdevice(7); 0 where it is gone by now. */
static uint32_t mtu_of(int fd, const char *name) {
    struct ifreq request;
    memset(&request, 0, sizeof request);
    lport_sink_copy(name, request.ifr_name, sizeof request.ifr_name - 1);
    return lport_os.ioctl(fd, SIOCGIFMTU, &request) == 0 ? (uint32_t)request.ifr_mtu : 0;
}

/* `1 lo 65536 up,running,loopback 127.0.0.1/8 ::1/128`; LINK is its row of the link layer, of which
 * each interface has one. */
static void put_interface(struct lport_sink *sink, int fd, const struct ifaddrs *link,
                          const struct ifaddrs *all) {
    struct sockaddr_ll layer;
    memcpy(&layer, link->ifa_addr, sizeof layer);
    lport_sink_number(sink, (uint32_t)layer.sll_ifindex);
    lport_sink_put(sink, " ");
    lport_sink_put(sink, link->ifa_name);
    lport_sink_put(sink, " ");
    lport_sink_number(sink, mtu_of(fd, link->ifa_name));
    lport_sink_put(sink, " ");
    put_flags(sink, link->ifa_flags);
    put_addresses(sink, all, link->ifa_name);
    lport_sink_put(sink, "\n");
}

int64_t lport_interface_list(char *text, size_t cap) {
    struct lport_sink sink = {.text = text, .cap = cap};
    struct ifaddrs *all = NULL;
    int64_t status = 0;
    int fd = lport_os.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    if (lport_os.getifaddrs(&all) < 0) {
        status = lport_status_from_errno(LPORT_IN_GENERAL, errno);
        goto close_fd;
    }
    lport_sink_put(&sink, "");
    for (const struct ifaddrs *entry = all; entry != NULL; entry = entry->ifa_next) {
        if (entry->ifa_addr != NULL && entry->ifa_addr->sa_family == AF_PACKET) {
            put_interface(&sink, fd, entry, all);
        }
    }
    freeifaddrs(all);
close_fd:
    lport_os.close(fd);
    return status < 0 ? status : (int64_t)sink.len;
}

int64_t lport_interface_index(const char *name, size_t len) {
    unsigned int index = lport_os_interface_index(name, len);
    return index > 0 ? (int64_t)index : lport_status_missing(LPORT_ADDRESS_NOT_AVAILABLE, errno);
}

int64_t lport_interface_name(int32_t index, char *text, size_t cap) {
    char name[IF_NAMESIZE];
    if (index <= 0) {
        return lport_status_make(LPORT_ADDRESS_NOT_AVAILABLE);
    }
    if (lport_os_interface_name((unsigned int)index, name) == NULL) {
        return lport_status_missing(LPORT_ADDRESS_NOT_AVAILABLE, errno);
    }
    return lport_sink_copy(name, text, cap);
}

/* The IPv4 address of ENTRY, or 0. */
static uint32_t inet_of(const struct ifaddrs *entry) {
    struct sockaddr_in in;
    if (entry->ifa_addr == NULL || entry->ifa_addr->sa_family != AF_INET) {
        return 0;
    }
    memcpy(&in, entry->ifa_addr, sizeof in);
    return in.sin_addr.s_addr;
}

/* The first entry with an IPv4 address that is ADDRESS, if that is not 0, and of the interface
 * NAME, if that is not NULL: its address into FOUND; the index of its interface, or a status. */
static int64_t find_inet(uint32_t address, const char *name, uint32_t *found) {
    struct ifaddrs *all = NULL;
    int64_t status = lport_status_make(LPORT_ADDRESS_NOT_AVAILABLE);
    if (lport_os.getifaddrs(&all) < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    for (const struct ifaddrs *entry = all; entry != NULL && status < 0; entry = entry->ifa_next) {
        uint32_t own = inet_of(entry);
        if (own != 0 && (address == 0 || own == address) && (name == NULL || is_of(entry, name))) {
            status = lport_interface_index(entry->ifa_name, strcspn(entry->ifa_name, ":"));
            *found = own;
        }
    }
    freeifaddrs(all);
    return status;
}

int64_t lport_interface_with(uint32_t address) {
    uint32_t found;
    return find_inet(address, NULL, &found);
}

int64_t lport_interface_inet(int32_t index, uint32_t *address) {
    char name[IF_NAMESIZE];
    if (lport_os_interface_name((unsigned int)index, name) == NULL) {
        return lport_status_missing(LPORT_ADDRESS_NOT_AVAILABLE, errno);
    }
    int64_t status = find_inet(0, name, address);
    return status < 0 ? status : 0;
}

int64_t lport_host_name(char *text, size_t cap) {
    char name[HOST_NAME_OCTETS] = {0};
    if (lport_os.gethostname(name, sizeof name - 1) < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    return lport_sink_copy(name, text, cap);
}
