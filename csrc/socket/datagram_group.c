/* datagram_group - multicast: which groups a socket receives (layer 2), RFC 3678. Part of
 * datagram; stands on os, status, address, handle.
 *
 * The calls that do not depend on the family of the protocol are used, so one code serves IPv4 and
 * IPv6; an IPv6 socket may join IPv4 groups too, as one for both families has to. */
#include "address/address.h"
#include "base/os.h"
#include "handle.h"
#include "libport.h"

#include <errno.h>
#include <netinet/in.h>

/* The status of ERROR, which option NUMBER gave. Of a source to join that is joined already the
 * system says EADDRNOTAVAIL; of one to leave, EINVAL where the group is not joined at all. */
static int64_t failure_of(int number, int error) {
    if (error == EADDRNOTAVAIL && number == MCAST_JOIN_SOURCE_GROUP) {
        return lport_status_make(LPORT_ADDRESS_IN_USE);
    }
    if (error == EINVAL && number == MCAST_LEAVE_SOURCE_GROUP) {
        return lport_status_make(LPORT_ADDRESS_NOT_AVAILABLE);
    }
    return lport_status_from_errno(LPORT_IN_GENERAL, error);
}

/* Switches option NUMBER of LEVEL off on FD where the system has it, and returns 0 or -1. */
static int switch_off(int fd, int level, int number) {
    static const int off = 0;
    int result = lport_os.setsockopt(fd, level, number, &off, sizeof off);
    return result < 0 && errno == ENOPROTOOPT ? 0 : result;
}

/* Has FD, of FAMILY, hear of groups those that it has joined itself, and returns 0 or -1. Unless it
 * is told so, Linux hands to a socket on the wildcard whatever anybody on the host has joined, on
 * whichever interface (IP_MULTICAST_ALL, ip(7)). For IPv6 it can be told since 4.20. A socket of
 * IPv6 is for both, whichever it joins first. */
static int hear_own_alone(int fd, int32_t family) {
    int result = switch_off(fd, IPPROTO_IP, IP_MULTICAST_ALL);
    return result == 0 && family == LPORT_INET6 ? switch_off(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL)
                                                : result;
}

static int is_join(int number) {
    return number == MCAST_JOIN_GROUP || number == MCAST_JOIN_SOURCE_GROUP;
}

/* Runs option NUMBER, _JOIN or _LEAVE, on FD, of FAMILY. GROUP and SOURCE are addresses of one
 * family of IP. */
static int64_t change(int fd, int32_t family, int number, const uint8_t *group, int32_t interface,
                      const uint8_t *source) {
    struct group_source_req request = {.gsr_interface = (uint32_t)interface};
    struct group_req plain = {.gr_interface = (uint32_t)interface};
    int level = group[LPORT_AT_FAMILY] == LPORT_INET ? IPPROTO_IP : IPPROTO_IPV6;
    lport_address_to_kernel(group, 0, &request.gsr_group);
    if (source != NULL) {
        lport_address_to_kernel(source, 0, &request.gsr_source);
    }
    plain.gr_group = request.gsr_group;
    const void *value = source != NULL ? (const void *)&request : (const void *)&plain;
    socklen_t len = source != NULL ? sizeof request : sizeof plain;
    if ((!is_join(number) || hear_own_alone(fd, family) == 0) &&
        lport_os.setsockopt(fd, level, number, value, len) == 0) {
        return 0;
    }
    return failure_of(number, errno);
}

static int64_t change_on(int64_t socket, int number, const uint8_t *group, int32_t interface,
                         const uint8_t *source) {
    struct lport_slot *slot;
    uint8_t group_room[LPORT_ADDRESS_SIZE];
    uint8_t source_room[LPORT_ADDRESS_SIZE];
    group = lport_address_plain(group, group_room);
    source = source == NULL ? NULL : lport_address_plain(source, source_room);
    int32_t family = group[LPORT_AT_FAMILY];
    if ((family != LPORT_INET && family != LPORT_INET6) || interface < 0 ||
        (source != NULL && source[LPORT_AT_FAMILY] != family)) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t status = slot->family == LPORT_LOCAL || slot->kind != LPORT_DATAGRAM
                         ? lport_status_make(LPORT_NOT_SUPPORTED)
                         : change((int)fd, slot->family, number, group, interface, source);
    lport_handle_leave(slot);
    return status;
}

int64_t lport_datagram_join(int64_t socket, const uint8_t *group, int32_t interface,
                            const uint8_t *source) {
    int number = source != NULL ? MCAST_JOIN_SOURCE_GROUP : MCAST_JOIN_GROUP;
    return change_on(socket, number, group, interface, source);
}

int64_t lport_datagram_leave(int64_t socket, const uint8_t *group, int32_t interface,
                             const uint8_t *source) {
    int number = source != NULL ? MCAST_LEAVE_SOURCE_GROUP : MCAST_LEAVE_GROUP;
    return change_on(socket, number, group, interface, source);
}
