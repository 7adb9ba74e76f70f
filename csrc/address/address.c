/* address - blocks and their texts (layer 1). Stands on status and sink, and on os for the
 * names of zones. See libport.h.
 *
 * Nothing here uses inet_aton, inet_pton or inet_ntop: between them they take short forms and print
 * an IPv4 tail where RFC 5952 asks for none.
 *
 * Invariant: a block is written whole or not at all, and every octet of it that has no meaning is
 * 0. */
#include "address_block.h"

#include "base/os.h"
#include "base/sink.h"
#include "base/status.h"
#include "libport.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/un.h>

/* ---- blocks ---------------------------------------------------------------------------------- */

int32_t lport_address_port(const uint8_t *address) {
    return address[LPORT_AT_PORT] << 8 | address[LPORT_AT_PORT + 1];
}

void lport_address_set_port(uint8_t *address, int32_t port) {
    address[LPORT_AT_PORT] = (uint8_t)(port >> 8 & 0xff);
    address[LPORT_AT_PORT + 1] = (uint8_t)(port & 0xff);
}

void lport_address_set_scope(uint8_t *address, uint32_t scope) {
    set_scope(address, scope);
}

void lport_address_set(uint8_t *address, int32_t family, const uint8_t *octets, size_t len,
                       int32_t port) {
    set_block(address, family, octets, len);
    lport_address_set_port(address, port);
}

bool lport_address_unmap(uint8_t *address) {
    uint8_t inet[INET_OCTETS];
    const uint8_t *octets = address + LPORT_AT_OCTETS;
    if (address[LPORT_AT_FAMILY] != LPORT_INET6 || !is_mapped(octets)) {
        return false;
    }
    memcpy(inet, octets + MAPPED_PREFIX, INET_OCTETS);
    lport_address_set(address, LPORT_INET, inet, INET_OCTETS, lport_address_port(address));
    return true;
}

const uint8_t *lport_address_plain(const uint8_t *address, uint8_t room[LPORT_ADDRESS_SIZE]) {
    if (address[LPORT_AT_FAMILY] != LPORT_INET6) {
        return address;
    }
    memcpy(room, address, LPORT_ADDRESS_SIZE);
    return lport_address_unmap(room) ? room : address;
}

const uint8_t *lport_address_in_family(const uint8_t *address, int32_t family,
                                       uint8_t room[LPORT_ADDRESS_SIZE]) {
    if (address[LPORT_AT_FAMILY] != LPORT_ANY) {
        return address;
    }
    lport_address_set(room, family, NULL, 0, lport_address_port(address));
    return room;
}

/* Zones of link-local and interface-local scope; those of wider scope have no use for one. */
static bool has_zone(const uint8_t *octets) {
    if (octets[0] == 0xfe) {
        return (octets[1] & 0xc0) == 0x80;
    }
    int multicast_scope = octets[1] & 0x0f;
    return octets[0] == 0xff && (multicast_scope == 1 || multicast_scope == 2);
}

/* ---- numbers --------------------------------------------------------------------------------- */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* The value of hexadecimal digit C, or -1. */
static int hex_value(char c) {
    if (is_digit(c)) {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

/* The number up to MAX that all of TEXT spells in decimal without a leading zero; -1 if it does
 * not. */
static int64_t parse_decimal(const char *text, size_t len, int64_t max) {
    if (len == 0 || (len > 1 && text[0] == '0')) {
        return -1;
    }
    int64_t value = 0;
    for (size_t i = 0; i < len; i++) {
        if (!is_digit(text[i])) {
            return -1;
        }
        value = value * 10 + (text[i] - '0');
        if (value > max) {
            return -1;
        }
    }
    return value;
}

/* The number that all of TEXT spells in one to four hexadecimal digits; -1 if it does not. */
static int32_t parse_group(const char *text, size_t len) {
    if (len == 0 || len > 4) {
        return -1;
    }
    int32_t value = 0;
    for (size_t i = 0; i < len; i++) {
        int digit = hex_value(text[i]);
        if (digit < 0) {
            return -1;
        }
        value = value << 4 | digit;
    }
    return value;
}

/* The octets of TEXT before the first C, or LEN where there is none. */
static size_t span(const char *text, size_t len, char c) {
    const char *found = len > 0 ? memchr(text, c, len) : NULL;
    return found ? (size_t)(found - text) : len;
}

/* ---- literals -------------------------------------------------------------------------------- */

static bool parse_inet(const char *text, size_t len, uint8_t octets[INET_OCTETS]) {
    size_t at = 0;
    for (int i = 0; i < INET_OCTETS; i++) {
        size_t digits = span(text + at, len - at, '.');
        int64_t value = parse_decimal(text + at, digits, 255);
        bool last = at + digits == len;
        if (value < 0 || last != (i == INET_OCTETS - 1)) {
            return false;
        }
        octets[i] = (uint8_t)value;
        at += digits + 1;
    }
    return true;
}

/* What has been read of an IPv6 literal. */
struct groups {
    uint8_t octets[INET6_OCTETS];
    size_t used; /* octets read */
    size_t gap;  /* how many of them stand before the `::`; INET6_OCTETS + 1: none yet */
};

enum { NO_GAP = INET6_OCTETS + 1 };

/* Adds TOKEN, what stands between two colons: a group, or at the end of the literal (LAST) a dotted
 * IPv4 address. */
static bool add_token(struct groups *groups, const char *token, size_t len, bool last) {
    uint8_t *room = groups->octets + groups->used;
    size_t left = INET6_OCTETS - groups->used;
    if (last && left >= INET_OCTETS && parse_inet(token, len, room)) {
        groups->used += INET_OCTETS;
        return true;
    }
    int32_t value = parse_group(token, len);
    if (value < 0 || left < 2) {
        return false;
    }
    room[0] = (uint8_t)(value >> 8);
    room[1] = (uint8_t)(value & 0xff);
    groups->used += 2;
    return true;
}

/* Puts the zeros in that `::` stands for: one group or more, RFC 4291 2.2. */
static bool fill_gap(struct groups *groups) {
    if (groups->gap == NO_GAP) {
        return groups->used == INET6_OCTETS;
    }
    if (groups->used == INET6_OCTETS) {
        return false;
    }
    size_t tail = groups->used - groups->gap;
    size_t zeros = INET6_OCTETS - groups->used;
    uint8_t *gap = groups->octets + groups->gap;
    memmove(gap + zeros, gap, tail);
    memset(gap, 0, zeros);
    return true;
}

static bool parse_inet6(const char *text, size_t len, uint8_t octets[INET6_OCTETS]) {
    struct groups groups = {.gap = NO_GAP};
    size_t at = 0;
    if (len >= 2 && text[0] == ':' && text[1] == ':') {
        groups.gap = 0;
        at = 2;
    }
    while (at < len) {
        size_t digits = span(text + at, len - at, ':');
        bool last = at + digits == len;
        if (!add_token(&groups, text + at, digits, last)) {
            return false;
        }
        at += digits + 1;
        if (last) {
            break;
        }
        if (at == len) {
            return false; /* one colon at the end */
        }
        if (text[at] == ':') {
            if (groups.gap != NO_GAP) {
                return false;
            }
            groups.gap = groups.used;
            at++;
        }
    }
    if (!fill_gap(&groups)) {
        return false;
    }
    memcpy(octets, groups.octets, INET6_OCTETS);
    return true;
}

/* True if NAME can stand for an interface behind a `%` and be read back: one that looks like a
 * number or like the end of a bracketed address cannot. No interface has a colon in its name, but
 * the system finds `eth0` for `eth0:80`, as it once had aliases. */
static bool is_zone_name(const char *name, size_t len) {
    bool digits = true;
    for (size_t i = 0; i < len; i++) {
        if (strchr("%[]:", name[i]) != NULL) {
            return false;
        }
        digits = digits && is_digit(name[i]);
    }
    return !digits;
}

/* The index of the interface that ZONE names or numbers, or a status. */
static int64_t parse_zone(const char *zone, size_t len) {
    int64_t number = parse_decimal(zone, len, UINT32_MAX);
    if (number > 0) {
        return number;
    }
    if (!is_zone_name(zone, len)) {
        return lport_status_make(LPORT_ADDRESS_SYNTAX);
    }
    unsigned int index = lport_os_interface_index(zone, len);
    return index > 0 ? (int64_t)index : lport_status_missing(LPORT_ADDRESS_SYNTAX, errno);
}

/* IPv6 with a zone where there is a `%`, and no brackets any more: its scope, 0 without a zone, or
 * a status. */
static int64_t parse_scoped(const char *text, size_t len, uint8_t octets[INET6_OCTETS]) {
    size_t plain = span(text, len, '%');
    if (!parse_inet6(text, plain, octets) || (plain < len && !has_zone(octets))) {
        return lport_status_make(LPORT_ADDRESS_SYNTAX);
    }
    return plain == len ? 0 : parse_zone(text + plain + 1, len - plain - 1);
}

int64_t lport_address_parse(const char *text, size_t len, int32_t port, uint8_t *address) {
    uint8_t octets[INET6_OCTETS];
    if ((text == NULL && len > 0) || address == NULL || port < 0 || port > PORT_MAX) {
        return lport_status_make(LPORT_INVALID);
    }
    if (len == 0) {
        return lport_status_make(LPORT_ADDRESS_SYNTAX);
    }
    if (parse_inet(text, len, octets)) {
        lport_address_set(address, LPORT_INET, octets, INET_OCTETS, port);
        return LPORT_INET;
    }
    bool bracketed = text[0] == '[' && text[len - 1] == ']';
    int64_t scope = parse_scoped(bracketed ? text + 1 : text, bracketed ? len - 2 : len, octets);
    if (scope < 0) {
        return scope;
    }
    lport_address_set(address, LPORT_INET6, octets, INET6_OCTETS, port);
    set_scope(address, (uint32_t)scope);
    return LPORT_INET6;
}

/* True if TEXT is a number as inet_aton takes one, of any size: digits, or 0x and hexadecimal ones.
 */
static bool is_aton_number(const char *text, size_t len) {
    bool hex = len > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    for (size_t i = hex ? 2 : 0; i < len; i++) {
        if (hex ? hex_value(text[i]) < 0 : !is_digit(text[i])) {
            return false;
        }
    }
    return len > 0;
}

/* True if TEXT is one to four of these numbers with dots between them. */
static bool is_aton_form(const char *text, size_t len) {
    size_t at = 0;
    for (int parts = 0; parts < INET_OCTETS; parts++) {
        size_t digits = span(text + at, len - at, '.');
        if (!is_aton_number(text + at, digits)) {
            return false;
        }
        at += digits + 1;
        if (at > len) {
            return true;
        }
    }
    return false;
}

int64_t lport_address_is_literal(const char *text, size_t len) {
    bool dotted = len > 0;
    if (text == NULL && len > 0) {
        return lport_status_make(LPORT_INVALID);
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i] != '\0' && strchr(":[]%", text[i]) != NULL) {
            return 1;
        }
        dotted = dotted && (is_digit(text[i]) || text[i] == '.');
    }
    return dotted || (len > 0 && is_aton_form(text, len));
}

/* ---- texts ----------------------------------------------------------------------------------- */

static void put_group(struct lport_sink *sink, int group) {
    int shift = 12;
    while (shift > 0 && group >> shift == 0) {
        shift -= 4;
    }
    for (; shift >= 0; shift -= 4) {
        lport_sink_octets(sink, &"0123456789abcdef"[group >> shift & 0xf], 1);
    }
}

static void put_inet(struct lport_sink *sink, const uint8_t *octets) {
    for (int i = 0; i < INET_OCTETS; i++) {
        if (i > 0) {
            lport_sink_put(sink, ".");
        }
        lport_sink_number(sink, octets[i]);
    }
}

/* The longest run of two or more zero GROUPS, the first of them on a tie (RFC 5952 4.2): where it
 * begins; its length in RUN, 0 if there is none. */
static int find_zeros(const int groups[INET6_GROUPS], int *run) {
    int best = 0;
    int zeros = 0;
    *run = 0;
    for (int i = 0; i < INET6_GROUPS; i++) {
        zeros = groups[i] == 0 ? zeros + 1 : 0;
        if (zeros >= 2 && zeros > *run) {
            *run = zeros;
            best = i + 1 - zeros;
        }
    }
    return best;
}

static void put_inet6(struct lport_sink *sink, const uint8_t *octets) {
    int groups[INET6_GROUPS];
    int run;
    if (is_mapped(octets)) {
        lport_sink_put(sink, "::ffff:");
        put_inet(sink, octets + MAPPED_PREFIX);
        return;
    }
    for (size_t i = 0; i < INET6_GROUPS; i++) {
        groups[i] = octets[2 * i] << 8 | octets[2 * i + 1];
    }
    int zeros = find_zeros(groups, &run);
    for (int i = 0; i < INET6_GROUPS; i++) {
        if (run > 0 && i == zeros) {
            lport_sink_put(sink, "::");
            i += run - 1;
            continue;
        }
        if (i > 0 && i != zeros + run) { /* behind a group, not behind the `::` */
            lport_sink_put(sink, ":");
        }
        put_group(sink, groups[i]);
    }
}

/* The zone by name, or by number where no interface has this index or its name would not read back.
 */
static void put_zone(struct lport_sink *sink, uint32_t scope) {
    char name[IF_NAMESIZE];
    if (scope == 0) {
        return;
    }
    lport_sink_put(sink, "%");
    if (lport_os_interface_name(scope, name) != NULL && is_zone_name(name, strlen(name))) {
        lport_sink_put(sink, name);
    } else {
        lport_sink_number(sink, scope);
    }
}

static void put_local(struct lport_sink *sink, const uint8_t *name, size_t len) {
    if (len > 0) {
        lport_sink_octets(sink, name[0] == '\0' ? "@" : (const char *)name, 1);
        lport_sink_octets(sink, (const char *)name + 1, len - 1);
    }
}

int64_t lport_address_print(const uint8_t *address, char *text, size_t cap) {
    struct lport_sink sink = {.text = text, .cap = cap};
    if (address == NULL || (text == NULL && cap > 0) || !is_block(address)) {
        return lport_status_make(LPORT_INVALID);
    }
    const uint8_t *octets = address + LPORT_AT_OCTETS;
    lport_sink_put(&sink, ""); /* an unnamed end has a text, too */
    switch (address[LPORT_AT_FAMILY]) {
    case LPORT_INET:
        put_inet(&sink, octets);
        break;
    case LPORT_INET6:
        put_inet6(&sink, octets);
        put_zone(&sink, get_scope(address));
        break;
    case LPORT_LOCAL:
        put_local(&sink, octets, address[LPORT_AT_LENGTH]);
        break;
    default: /* LPORT_ANY */
        lport_sink_put(&sink, "*");
    }
    return (int64_t)sink.len;
}

int64_t lport_port_parse(const char *text, size_t len) {
    if (text == NULL && len > 0) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t port = parse_decimal(text, len, PORT_MAX);
    return port >= 0 ? port : lport_status_make(LPORT_ADDRESS_SYNTAX);
}

int64_t lport_address_local(const char *name, size_t len, uint8_t *address) {
    if ((name == NULL && len > 0) || address == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    if (len == 0 || len > LPORT_LOCAL_MAX || memchr(name, '\0', len) != NULL) {
        return lport_status_make(LPORT_ADDRESS_SYNTAX);
    }
    if (name[0] == '@' && len == 1) {
        return lport_status_make(LPORT_ADDRESS_SYNTAX);
    }
    set_block(address, LPORT_LOCAL, name, len);
    if (name[0] == '@') {
        address[LPORT_AT_OCTETS] = '\0';
    }
    return LPORT_LOCAL;
}

/* ---- comparing ------------------------------------------------------------------------------- */

/* The IPv4 octets in ADDRESS, IPv4-mapped ones too; NULL if there are none. */
static const uint8_t *inet_octets(const uint8_t *address) {
    const uint8_t *octets = address + LPORT_AT_OCTETS;
    if (address[LPORT_AT_FAMILY] == LPORT_INET) {
        return octets;
    }
    return address[LPORT_AT_FAMILY] == LPORT_INET6 && is_mapped(octets) ? octets + MAPPED_PREFIX
                                                                        : NULL;
}

/* Blocks made by hand may have anything in the octets without meaning: those are not compared. */
int64_t lport_address_equal(const uint8_t *a, const uint8_t *b) {
    if (a == NULL || b == NULL || !is_block(a) || !is_block(b)) {
        return lport_status_make(LPORT_INVALID);
    }
    const uint8_t *a_inet = inet_octets(a);
    const uint8_t *b_inet = inet_octets(b);
    bool local = a[LPORT_AT_FAMILY] == LPORT_LOCAL;
    if (!local && lport_address_port(a) != lport_address_port(b)) {
        return 0;
    }
    if (a_inet != NULL && b_inet != NULL) {
        return memcmp(a_inet, b_inet, INET_OCTETS) == 0;
    }
    if (a[LPORT_AT_FAMILY] != b[LPORT_AT_FAMILY]) {
        return 0;
    }
    if (local) {
        return a[LPORT_AT_LENGTH] == b[LPORT_AT_LENGTH] &&
               memcmp(a + LPORT_AT_OCTETS, b + LPORT_AT_OCTETS, a[LPORT_AT_LENGTH]) == 0;
    }
    return a[LPORT_AT_FAMILY] == LPORT_ANY ||
           (get_scope(a) == get_scope(b) &&
            memcmp(a + LPORT_AT_OCTETS, b + LPORT_AT_OCTETS, INET6_OCTETS) == 0);
}
