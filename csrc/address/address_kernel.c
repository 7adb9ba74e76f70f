/* address_kernel - address blocks and the kernel's socket addresses (layer 1). Stands on status.
 * See address.h.
 *
 * Invariant: what goes to the kernel is a whole block in the kernel's own form; what comes from it
 * is a whole block, or LPORT_INVALID and nothing written. */
#include "address_block.h"
#include "base/status.h"

#include <netinet/in.h>
#include <stdbool.h>

static int64_t to_inet(const uint8_t *address, struct sockaddr_storage *storage) {
    struct sockaddr_in in = {.sin_family = AF_INET};
    in.sin_port = htons((uint16_t)lport_address_port(address));
    memcpy(&in.sin_addr, address + LPORT_AT_OCTETS, INET_OCTETS);
    memcpy(storage, &in, sizeof in);
    return sizeof in;
}

static int64_t to_inet6(const uint8_t *address, struct sockaddr_storage *storage) {
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    uint8_t *octets = in6.sin6_addr.s6_addr;
    in6.sin6_port = htons((uint16_t)lport_address_port(address));
    if (address[LPORT_AT_FAMILY] != LPORT_ANY) {
        copy_mapped(address, octets);
    }
    if (address[LPORT_AT_FAMILY] == LPORT_INET6) {
        in6.sin6_scope_id = get_scope(address);
    }
    memcpy(storage, &in6, sizeof in6);
    return sizeof in6;
}

/* A path has a terminator where there is room; an abstract name is all of its length, unix(7). */
static int64_t to_local(const uint8_t *address, struct sockaddr_storage *storage) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t len = address[LPORT_AT_LENGTH];
    bool path = len > 0 && address[LPORT_AT_OCTETS] != '\0';
    memcpy(un.sun_path, address + LPORT_AT_OCTETS, len);
    memcpy(storage, &un, sizeof un);
    return (int64_t)(LOCAL_AT + len + (path && len < LPORT_LOCAL_MAX ? 1 : 0));
}

int64_t lport_address_to_kernel(const uint8_t *address, bool mapped,
                                struct sockaddr_storage *storage) {
    uint8_t room[LPORT_ADDRESS_SIZE];
    if (!is_block(address)) {
        return lport_status_make(LPORT_INVALID);
    }
    memset(storage, 0, sizeof *storage);
    if (!mapped) {
        address = lport_address_plain(address, room);
    }
    if (address[LPORT_AT_FAMILY] == LPORT_LOCAL) {
        return to_local(address, storage);
    }
    if (address[LPORT_AT_FAMILY] == LPORT_INET && !mapped) {
        return to_inet(address, storage);
    }
    return to_inet6(address, storage);
}

static int64_t from_inet(const struct sockaddr_storage *storage, uint8_t *address) {
    struct sockaddr_in in;
    memcpy(&in, storage, sizeof in);
    lport_address_set(address, LPORT_INET, (const uint8_t *)&in.sin_addr, INET_OCTETS,
                      ntohs(in.sin_port));
    return LPORT_INET;
}

static int64_t from_inet6(const struct sockaddr_storage *storage, uint8_t *address) {
    struct sockaddr_in6 in6;
    memcpy(&in6, storage, sizeof in6);
    lport_address_set(address, LPORT_INET6, in6.sin6_addr.s6_addr, INET6_OCTETS,
                      ntohs(in6.sin6_port));
    if (lport_address_unmap(address)) {
        return LPORT_INET;
    }
    set_scope(address, in6.sin6_scope_id);
    return LPORT_INET6;
}

/* The kernel reports one octet more than it has room for when a path fills sun_path: LEN counts the
 * terminator that it could not store there (unix(7), BUGS). */
static int64_t from_local(const struct sockaddr_storage *storage, size_t len, uint8_t *address) {
    const char *name = (const char *)storage + LOCAL_AT;
    size_t used = len > LOCAL_AT ? len - LOCAL_AT : 0;
    if (used > sizeof *storage - LOCAL_AT) {
        return lport_status_make(LPORT_INVALID);
    }
    if (used > 0 && name[0] != '\0') {
        used = strnlen(name, used);
    }
    if (used > LPORT_LOCAL_MAX) {
        return lport_status_make(LPORT_INVALID);
    }
    set_block(address, LPORT_LOCAL, name, used);
    return LPORT_LOCAL;
}

int64_t lport_address_from_kernel(const struct sockaddr_storage *storage, socklen_t len,
                                  uint8_t *address) {
    if (len == 0) { /* recvmsg(2) from a local socket without a name; no other family lacks one */
        return from_local(storage, 0, address);
    }
    if (len < LOCAL_AT) {
        return lport_status_make(LPORT_INVALID);
    }
    if (storage->ss_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
        return from_inet(storage, address);
    }
    if (storage->ss_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
        return from_inet6(storage, address);
    }
    if (storage->ss_family == AF_UNIX) {
        return from_local(storage, len, address);
    }
    return lport_status_make(LPORT_INVALID);
}
