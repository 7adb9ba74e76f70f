/* proxy_print - writes the header that a proxy puts in front of a connection's octets (layer 1).
 * Part of proxy; stands on status, sink and address. */
#include "address_block.h"
#include "base/sink.h"
#include "base/status.h"
#include "libport.h"
#include "proxy.h"

#include <stdbool.h>
#include <string.h>

/* Both ends as they are said: in one family. */
struct ends {
    int32_t family;
    uint8_t source[LPORT_ADDRESS_SIZE], destination[LPORT_ADDRESS_SIZE];
};

static bool is_inet(const uint8_t *address) {
    return address[LPORT_AT_FAMILY] == LPORT_INET || address[LPORT_AT_FAMILY] == LPORT_INET6;
}

/* ADDRESS as one of IPv6, without a zone, which means nothing to another host. */
static void map(uint8_t *address) {
    uint8_t octets[INET6_OCTETS];
    copy_mapped(address, octets);
    lport_address_set(address, LPORT_INET6, octets, INET6_OCTETS, lport_address_port(address));
}

/* False: they are no ends, or of kinds that no header has together. */
static bool take_ends(const uint8_t *source, const uint8_t *destination, struct ends *ends) {
    if (!is_block(source) || !is_block(destination)) {
        return false;
    }
    memcpy(ends->source, source, LPORT_ADDRESS_SIZE);
    memcpy(ends->destination, destination, LPORT_ADDRESS_SIZE);
    if (!is_inet(source) || !is_inet(destination)) {
        ends->family = source[LPORT_AT_FAMILY];
        return source[LPORT_AT_FAMILY] == destination[LPORT_AT_FAMILY] && !is_inet(source);
    }
    lport_address_unmap(ends->source);
    lport_address_unmap(ends->destination);
    ends->family = LPORT_INET;
    if (ends->source[LPORT_AT_FAMILY] != LPORT_INET ||
        ends->destination[LPORT_AT_FAMILY] != LPORT_INET) {
        ends->family = LPORT_INET6;
        map(ends->source);
        map(ends->destination);
    }
    return true;
}

/* ---- version 1 ------------------------------------------------------------------------------- */

static void put_host(struct lport_sink *sink, const uint8_t *address) {
    char text[LPORT_TEXT_SIZE];
    lport_sink_put(sink, " ");
    (void)lport_address_print(address, text, sizeof text);
    lport_sink_put(sink, text);
}

static void put_port(struct lport_sink *sink, const uint8_t *address) {
    lport_sink_put(sink, " ");
    lport_sink_number(sink, (uint32_t)lport_address_port(address));
}

/* Of local ends it cannot tell. */
static void print_line(const struct ends *ends, struct lport_sink *sink) {
    bool known = ends->family == LPORT_INET || ends->family == LPORT_INET6;
    lport_sink_put(sink, LPORT_PROXY_LINE_START);
    lport_sink_put(sink, !known ? "UNKNOWN" : ends->family == LPORT_INET ? "TCP4" : "TCP6");
    if (known) {
        put_host(sink, ends->source);
        put_host(sink, ends->destination);
        put_port(sink, ends->source);
        put_port(sink, ends->destination);
    }
    lport_sink_put(sink, "\r\n");
}

/* ---- version 2 ------------------------------------------------------------------------------- */

static void put_number(struct lport_sink *sink, int32_t number) {
    const char octets[] = {(char)(number >> 8), (char)(number & 0xff)};
    lport_sink_octets(sink, octets, sizeof octets);
}

/* The octets of ADDRESS, zeros behind them until they are SIZE. */
static void put_octets(struct lport_sink *sink, const uint8_t *address, size_t size) {
    char octets[LPORT_PROXY_PATH] = {0};
    size_t len = address[LPORT_AT_FAMILY] == LPORT_LOCAL ? address[LPORT_AT_LENGTH] : size;
    memcpy(octets, address + LPORT_AT_OCTETS, len < size ? len : size);
    lport_sink_octets(sink, octets, size);
}

/* What the octet for families says of streams of FAMILY, and the SIZE of an address of it. */
static char family_code(int32_t family, size_t *size) {
    switch (family) {
    case LPORT_INET:
        *size = INET_OCTETS;
        return 0x11;
    case LPORT_INET6:
        *size = INET6_OCTETS;
        return 0x21;
    case LPORT_LOCAL:
        *size = LPORT_PROXY_PATH;
        return 0x31;
    default:
        *size = 0;
        return 0x00;
    }
}

static void print_binary(const struct ends *ends, struct lport_sink *sink) {
    size_t size;
    char family = family_code(ends->family, &size);
    char command = size == 0 ? LPORT_PROXY_LOCAL : LPORT_PROXY_PROXY;
    bool ports = size > 0 && ends->family != LPORT_LOCAL;
    lport_sink_octets(sink, LPORT_PROXY_SIGNATURE, sizeof LPORT_PROXY_SIGNATURE - 1);
    lport_sink_octets(sink, &command, 1);
    lport_sink_octets(sink, &family, 1);
    put_number(sink, (int32_t)(2 * size + (ports ? 4 : 0)));
    put_octets(sink, ends->source, size);
    put_octets(sink, ends->destination, size);
    if (ports) {
        put_number(sink, lport_address_port(ends->source));
        put_number(sink, lport_address_port(ends->destination));
    }
}

/* ---- both ------------------------------------------------------------------------------------ */

int64_t lport_proxy_print(int32_t version, const uint8_t *source, const uint8_t *destination,
                          uint8_t *octets, size_t cap) {
    struct ends ends = {.family = LPORT_ANY};
    struct lport_sink sink = {(char *)octets, cap, 0};
    if ((version != 1 && version != 2) || (octets == NULL && cap > 0) ||
        (source == NULL) != (destination == NULL) ||
        (source != NULL && !take_ends(source, destination, &ends))) {
        return lport_status_make(LPORT_INVALID);
    }
    if (version == 1) {
        print_line(&ends, &sink);
    } else {
        print_binary(&ends, &sink);
    }
    return (int64_t)sink.len;
}
