/* datagram_arrival - which of the addresses of this host a message was sent to, and from which one
 * an answer goes (layer 2): IP_PKTINFO of ip(7), IPV6_PKTINFO of RFC 3542. Part of datagram; stands
 * on os, status, address, handle, patience, transfer.
 *
 * Invariant: of the interface only a link-local address makes use, which needs one: any other way
 * out is that of the routes, whichever way the question came in. */
#include "address/address.h"
#include "base/os.h"
#include "datagram.h"
#include "handle.h"
#include "libport.h"
#include "patience.h"
#include "transfer.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

/* ---- asking ---------------------------------------------------------------------------------- */

/* Of messages over IPv4 an IPv6 socket is told by both levels, and only IPv4's says which are for
 * many. */
int64_t lport_datagram_ask_for_arrivals(int64_t socket) {
    static const int on = 1;
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t status = 0;
    if (slot->family == LPORT_LOCAL) {
        status = lport_status_make(LPORT_INVALID);
    } else if (lport_os.setsockopt((int)fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) < 0 ||
               (slot->family == LPORT_INET6 &&
                lport_os.setsockopt((int)fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on) < 0)) {
        status = lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    lport_handle_leave(slot);
    return status;
}

/* ---- what comes with a message --------------------------------------------------------------- */

static void from_inet(const struct in_pktinfo *info, uint8_t *own) {
    lport_address_set(own, LPORT_INET, (const uint8_t *)&info->ipi_addr, sizeof info->ipi_addr, 0);
    lport_address_set_scope(own, (uint32_t)info->ipi_ifindex);
    own[LPORT_AT_LENGTH] = info->ipi_addr.s_addr != info->ipi_spec_dst.s_addr;
}

static void from_inet6(const struct in6_pktinfo *info, uint8_t *own) {
    lport_address_set(own, LPORT_INET6, info->ipi6_addr.s6_addr, sizeof info->ipi6_addr, 0);
    lport_address_set_scope(own, info->ipi6_ifindex);
    own[LPORT_AT_LENGTH] = IN6_IS_ADDR_MULTICAST(&info->ipi6_addr);
}

void lport_datagram_arrival_in(struct msghdr *message, uint8_t *own) {
    struct in_pktinfo inet;
    struct in6_pktinfo inet6;
    memset(own, 0, LPORT_ADDRESS_SIZE);
    for (struct cmsghdr *row = CMSG_FIRSTHDR(message); row != NULL;
         row = CMSG_NXTHDR(message, row)) {
        if (row->cmsg_level == IPPROTO_IP && row->cmsg_type == IP_PKTINFO) {
            memcpy(&inet, CMSG_DATA(row), sizeof inet);
            from_inet(&inet, own);
        } else if (row->cmsg_level == IPPROTO_IPV6 && row->cmsg_type == IPV6_PKTINFO) {
            memcpy(&inet6, CMSG_DATA(row), sizeof inet6);
            if (!IN6_IS_ADDR_V4MAPPED(&inet6.ipi6_addr)) {
                from_inet6(&inet6, own);
            }
        }
    }
}

static size_t put_inet(struct cmsghdr *row, const uint8_t *own) {
    struct in_pktinfo info = {0};
    memcpy(&info.ipi_spec_dst, own + LPORT_AT_OCTETS, sizeof info.ipi_spec_dst);
    row->cmsg_level = IPPROTO_IP;
    row->cmsg_type = IP_PKTINFO;
    row->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(row), &info, sizeof info);
    return CMSG_SPACE(sizeof info);
}

static size_t put_inet6(struct cmsghdr *row, const uint8_t *own) {
    struct in6_pktinfo info = {0};
    struct sockaddr_storage storage;
    struct sockaddr_in6 end;
    lport_address_to_kernel(own, true, &storage);
    memcpy(&end, &storage, sizeof end);
    info.ipi6_addr = end.sin6_addr;
    if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) {
        info.ipi6_ifindex = end.sin6_scope_id;
    }
    row->cmsg_level = IPPROTO_IPV6;
    row->cmsg_type = IPV6_PKTINFO;
    row->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(row), &info, sizeof info);
    return CMSG_SPACE(sizeof info);
}

/* True if ADDRESS is of IPv4, in whatever clothes. */
static bool is_inet(const uint8_t *address) {
    uint8_t room[LPORT_ADDRESS_SIZE];
    return lport_address_plain(address, room)[LPORT_AT_FAMILY] == LPORT_INET;
}

static bool is_internet(const uint8_t *address) {
    return address[LPORT_AT_FAMILY] == LPORT_INET || address[LPORT_AT_FAMILY] == LPORT_INET6;
}

int64_t lport_datagram_put_own(struct cmsghdr *row, const uint8_t *own, const uint8_t *address,
                               bool mapped) {
    uint8_t room[LPORT_ADDRESS_SIZE];
    if (!is_internet(own) || !is_internet(address) || is_inet(own) != is_inet(address)) {
        return lport_status_make(LPORT_INVALID);
    }
    return (int64_t)(mapped ? put_inet6(row, own) : put_inet(row, lport_address_plain(own, room)));
}

/* True if there is a way to ADDRESS from where the system picks. */
static bool has_way(const uint8_t *address) {
    struct sockaddr_storage storage;
    int64_t size = lport_address_to_kernel(address, false, &storage);
    int fd = size < 0 ? -1 : lport_os.socket(storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    bool found = lport_os.connect(fd, (struct sockaddr *)&storage, (socklen_t)size) == 0;
    lport_os.close(fd);
    return found;
}

int lport_datagram_own_error(int error, const uint8_t *address) {
    bool doubtful = (error == EINVAL && lport_address_port(address) != 0) ||
                    (error == ENETUNREACH && is_inet(address));
    return doubtful && has_way(address) ? EADDRNOTAVAIL : error;
}

/* ---- sending --------------------------------------------------------------------------------- */

static int64_t send_from(struct lport_slot *slot, int fd, struct iovec *piece,
                         const uint8_t *address, const uint8_t *own) {
    struct sockaddr_storage storage;
    union lport_datagram_rows rows = {0};
    bool mapped = slot->family == LPORT_INET6;
    int64_t size = lport_address_to_kernel(address, mapped, &storage);
    int64_t length = lport_datagram_put_own(&rows.header, own, address, mapped);
    if (size < 0 || length < 0) {
        return size < 0 ? size : length;
    }
    struct msghdr message = {.msg_name = &storage,
                             .msg_namelen = (socklen_t)size,
                             .msg_iov = piece,
                             .msg_iovlen = 1,
                             .msg_control = &rows,
                             .msg_controllen = (size_t)length};
    ssize_t count = lport_transfer_send_message(fd, &message);
    return count >= 0
               ? count
               : lport_transfer_message_failed(slot, lport_datagram_own_error(errno, address));
}

/* Enters SOCKET if it is one of UDP: its descriptor, or a status and not entered. */
static int64_t enter_udp(int64_t socket, struct lport_slot **slot) {
    int64_t fd = lport_handle_enter(socket, slot);
    if (fd >= 0 && ((*slot)->kind != LPORT_DATAGRAM || (*slot)->family == LPORT_LOCAL)) {
        lport_handle_leave(*slot);
        return lport_status_make(LPORT_NOT_SUPPORTED);
    }
    return fd;
}

int64_t lport_datagram_send_from(int64_t socket, const uint8_t *octets, size_t len,
                                 const uint8_t *address, const uint8_t *own) {
    struct lport_slot *slot;
    /* iov_base is not const, though sendmsg only reads it. */
    struct iovec piece = {(void *)(uintptr_t)octets, len};
    int64_t fd = enter_udp(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t result = lport_transfer_forbidden(slot);
    if (result == 0 && own[LPORT_AT_LENGTH] != 0 && is_internet(own)) {
        result = lport_status_from_errno(LPORT_IN_GENERAL, EADDRNOTAVAIL);
    }
    if (result == 0) {
        result = send_from(slot, (int)fd, &piece, address, own);
    }
    lport_handle_leave(slot);
    return result;
}

/* ---- receiving ------------------------------------------------------------------------------- */

static int64_t receive_at(struct lport_slot *slot, int fd, struct iovec *piece, uint8_t *sender,
                          uint8_t *own, int how) {
    struct sockaddr_storage storage;
    union lport_datagram_rows rows;
    struct msghdr message = {.msg_name = &storage,
                             .msg_namelen = sizeof storage,
                             .msg_iov = piece,
                             .msg_iovlen = 1,
                             .msg_control = &rows,
                             .msg_controllen = sizeof rows};
    int64_t count = lport_transfer_receive_message(slot, fd, &message, how);
    if (count >= 0) {
        lport_address_from_kernel(&storage, message.msg_namelen, sender);
        lport_datagram_arrival_in(&message, own);
    }
    return count;
}

int64_t lport_datagram_receive_at(int64_t socket, uint8_t *octets, size_t len, uint8_t *sender,
                                  uint8_t *own, int32_t flags) {
    struct lport_slot *slot;
    struct iovec piece = {octets, len};
    int64_t fd = enter_udp(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t result = lport_transfer_ended(slot);
    if (result == 0 && (atomic_load(&slot->flags) & LPORT_SLOT_JOINED) != 0) {
        result = lport_status_make(LPORT_NOT_SUPPORTED);
    }
    if (result == 0) {
        int how = MSG_TRUNC | lport_patience_flags(slot, (int)fd, (flags & LPORT_PATIENT) != 0) |
                  ((flags & LPORT_PEEK) != 0 ? MSG_PEEK : 0);
        result = receive_at(slot, (int)fd, &piece, sender, own, how);
    }
    lport_handle_leave(slot);
    return result;
}
