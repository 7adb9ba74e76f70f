/* proxy: headers of the PROXY protocol, good, bad and cut off anywhere; the table is proxy.tsv. */
#include "libport.h"
#include "vectors.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(proxy, .timeout = 20);

enum { FIXED = 16, HEADER_MAX = FIXED + 65535 };

static const char signature[] = "0d0a0d0a000d0a515549540a";

/* The octets that a row of the table spells. */
struct header {
    uint8_t octets[VECTORS_LINE];
    size_t len;
};

static void add_hex(struct header *header, const char *hex) {
    for (; hex[0] != '\0' && hex[1] != '\0'; hex += 2) {
        char digits[3] = {hex[0], hex[1], '\0'};
        header->octets[header->len++] = (uint8_t)strtoul(digits, NULL, 16);
    }
    cr_assert_eq(hex[0], '\0', "half an octet");
}

static void read_header(const struct vectors *row, struct header *header) {
    header->len = 0;
    if (strcmp(row->field[0], "text") == 0) {
        memcpy(header->octets, row->field[1], row->len[1]);
        header->len = row->len[1];
        return;
    }
    if (strcmp(row->field[0], "v2") == 0) {
        add_hex(header, signature);
    }
    add_hex(header, row->field[1]);
}

/* Parses from a vector of exactly LEN octets, so that a sanitizer sees a read past them. */
static int64_t parse(const uint8_t *octets, size_t len, uint8_t *source, uint8_t *destination) {
    uint8_t *exact = malloc(len ? len : 1);
    cr_assert_not_null(exact);
    memcpy(exact, octets, len);
    int64_t result = lport_proxy_parse(exact, len, source, destination);
    free(exact);
    return result;
}

/* As parse, and the blocks are written if and only if there is a header. */
static int64_t parse_only(const uint8_t *octets, size_t len) {
    uint8_t source[LPORT_ADDRESS_SIZE], destination[LPORT_ADDRESS_SIZE], before[LPORT_ADDRESS_SIZE];
    memset(before, 0xdb, sizeof before);
    memcpy(source, before, sizeof before);
    memcpy(destination, before, sizeof before);
    int64_t result = parse(octets, len, source, destination);
    cr_assert_eq(memcmp(source, before, sizeof before) != 0, result > 0);
    cr_assert_eq(memcmp(destination, before, sizeof before) != 0, result > 0);
    return result;
}

/* "host port", a local name, or nothing for LPORT_ANY. */
static const char *end_text(const uint8_t *address) {
    static char text[LPORT_TEXT_SIZE + 8];
    if (address[0] == LPORT_ANY) {
        return "";
    }
    int64_t len = lport_address_print(address, text, sizeof text);
    cr_assert(len >= 0 && len < LPORT_TEXT_SIZE);
    if (address[0] != LPORT_LOCAL) {
        snprintf(text + len, 8, " %d", address[2] << 8 | address[3]);
    }
    return text;
}

/* What is said of both ends, in either version, is read as them; of local ends, and of none, in
 * version 1, as none. */
static void check_printed(const uint8_t *source, const uint8_t *destination) {
    for (int32_t version = 1; version <= 2; version++) {
        uint8_t octets[LPORT_PROXY_SIZE], again[2][LPORT_ADDRESS_SIZE];
        bool told = version == 2 || source[0] != LPORT_LOCAL;
        int64_t len = lport_proxy_print(version, source, destination, octets, sizeof octets);
        cr_assert(len > 0 && len <= LPORT_PROXY_SIZE, "%lld", (long long)len);
        cr_assert_eq(parse(octets, (size_t)len, again[0], again[1]), len);
        for (int i = 0; i < 2; i++) {
            char expected[LPORT_TEXT_SIZE + 8];
            const uint8_t *end = i == 0 ? source : destination;
            snprintf(expected, sizeof expected, "%s", told ? end_text(end) : "");
            cr_assert_str_eq(end_text(again[i]), expected);
        }
    }
}

/* Whole, with and without something behind it, and cut off anywhere. */
static void check_good(const struct vectors *row, const struct header *header) {
    uint8_t source[LPORT_ADDRESS_SIZE], destination[LPORT_ADDRESS_SIZE], more[2 * VECTORS_LINE];
    size_t len = header->len;
    int64_t size = (int64_t)len;
    for (size_t cut = 0; cut < len; cut++) {
        cr_assert_eq(parse_only(header->octets, cut), 0, "line %d, %zu octets", row->number, cut);
    }
    cr_assert_eq(parse(header->octets, len, source, destination), size, "line %d", row->number);
    cr_assert_str_eq(end_text(source), row->field[3], "line %d", row->number);
    cr_assert_str_eq(end_text(destination), row->field[4], "line %d", row->number);
    check_printed(source, destination);
    memcpy(more, header->octets, len);
    memcpy(more + len, "\n\0GET\r\n", 7);
    for (size_t extra = 1; extra <= 7; extra++) {
        cr_assert_eq(parse_only(more, len + extra), size, "line %d", row->number);
    }
}

/* Bad as a whole; and what has been found bad stays bad. */
static void check_bad(const struct vectors *row, const struct header *header) {
    bool bad = false;
    for (size_t cut = 0; cut <= header->len; cut++) {
        int64_t result = parse_only(header->octets, cut);
        cr_assert(result == 0 || lport_status_kind(result) == LPORT_PROXY_SYNTAX, "line %d",
                  row->number);
        cr_assert(!bad || result < 0, "line %d, %zu octets", row->number, cut);
        bad = result < 0;
    }
    cr_assert(bad, "line %d", row->number);
}

static void check_more(const struct vectors *row, const struct header *header) {
    for (size_t cut = 0; cut <= header->len; cut++) {
        cr_assert_eq(parse_only(header->octets, cut), 0, "line %d", row->number);
    }
}

Test(proxy, headers_are_read_as_the_table_says) {
    struct vectors row;
    struct header header;
    int rows = 0;
    cr_assert(vectors_open(&row, "proxy.tsv"));
    while (vectors_next(&row)) {
        read_header(&row, &header);
        if (strcmp(row.field[2], "good") == 0) {
            check_good(&row, &header);
        } else if (strcmp(row.field[2], "bad") == 0) {
            check_bad(&row, &header);
        } else {
            check_more(&row, &header);
        }
        rows++;
    }
    cr_assert(vectors_close(&row));
    cr_assert_gt(rows, 80);
}

/* The longest header there is, and one octet less. */
Test(proxy, the_longest_header_is_read_whole) {
    static uint8_t octets[HEADER_MAX] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff\x7f\0\0\1";
    cr_assert_eq(parse_only(octets, sizeof octets), HEADER_MAX);
    cr_assert_eq(parse_only(octets, sizeof octets - 1), 0);
}

/* Version 2: whatever stands in the octets of command and family, the result is what 2.2 says. */
Test(proxy, only_known_commands_and_families_make_a_header) {
    uint8_t octets[FIXED + 216] = "\r\n\r\n\0\r\nQUIT\n";
    octets[15] = 216;
    for (int command = 0; command < 256; command++) {
        for (int family = 0; family < 256; family++) {
            octets[12] = (uint8_t)command;
            octets[13] = (uint8_t)family;
            int high = family >> 4, low = family & 15;
            bool known = family == 0 || (high >= 1 && high <= 3 && low >= 1 && low <= 2);
            bool good = command == 0x20 || (command == 0x21 && known);
            int64_t result = parse_only(octets, sizeof octets);
            cr_assert_eq(good ? (int64_t)sizeof octets : -1, result < 0 ? -1 : result, "%02x %02x",
                         command, family);
        }
    }
}

static void parse_end(const char *host, int32_t port, uint8_t *address) {
    cr_assert_gt(lport_address_parse(host, strlen(host), port, address), 0, "%s", host);
}

/* Version 1 for SOURCE and DESTINATION, hosts, from port 1 to port 65535. */
static const char *line_for(const char *source, const char *destination) {
    static char line[LPORT_PROXY_SIZE + 1];
    uint8_t ends[2][LPORT_ADDRESS_SIZE];
    parse_end(source, 1, ends[0]);
    parse_end(destination, 65535, ends[1]);
    int64_t len = lport_proxy_print(1, ends[0], ends[1], (uint8_t *)line, sizeof line);
    cr_assert_eq(len, (int64_t)strlen(line));
    return line;
}

Test(proxy, a_line_is_spelled_as_the_protocol_has_it) {
    cr_assert_str_eq(line_for("192.0.2.1", "198.51.100.2"),
                     "PROXY TCP4 192.0.2.1 198.51.100.2 1 65535\r\n");
    cr_assert_str_eq(line_for("::ffff:192.0.2.1", "198.51.100.2"),
                     "PROXY TCP4 192.0.2.1 198.51.100.2 1 65535\r\n");
    cr_assert_str_eq(line_for("2001:db8::1", "2001:db8::2"),
                     "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n");
    cr_assert_str_eq(line_for("192.0.2.1", "2001:db8::2"),
                     "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 65535\r\n");
    cr_assert_str_eq(line_for("fe80::1%1", "fe80::2%1"), "PROXY TCP6 fe80::1 fe80::2 1 65535\r\n");
}

Test(proxy, who_speaks_for_himself_says_so) {
    uint8_t octets[LPORT_PROXY_SIZE];
    cr_assert_eq(lport_proxy_print(1, NULL, NULL, octets, sizeof octets), 15);
    cr_assert_str_eq((char *)octets, "PROXY UNKNOWN\r\n");
    cr_assert_eq(lport_proxy_print(2, NULL, NULL, octets, sizeof octets), FIXED);
    cr_assert_eq(memcmp(octets, "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", FIXED), 0);
}

Test(proxy, what_no_header_says_is_invalid) {
    uint8_t end[LPORT_ADDRESS_SIZE], local[LPORT_ADDRESS_SIZE], octets[8];
    const uint8_t none[LPORT_ADDRESS_SIZE] = {99};
    const int64_t invalid = lport_status_make(LPORT_INVALID);
    parse_end("127.0.0.1", 1, end);
    cr_assert_eq(lport_address_local("/there", 6, local), LPORT_LOCAL);
    cr_assert_eq(lport_proxy_print(0, end, end, octets, 8), invalid);
    cr_assert_eq(lport_proxy_print(3, end, end, octets, 8), invalid);
    cr_assert_eq(lport_proxy_print(1, end, NULL, octets, 8), invalid);
    cr_assert_eq(lport_proxy_print(1, NULL, end, octets, 8), invalid);
    cr_assert_eq(lport_proxy_print(1, end, local, octets, 8), invalid);
    cr_assert_eq(lport_proxy_print(2, local, end, octets, 8), invalid);
    cr_assert_eq(lport_proxy_print(2, none, end, octets, 8), invalid);
    cr_assert_eq(lport_proxy_print(2, end, end, NULL, 8), invalid);
    cr_assert_eq(lport_proxy_print(2, end, end, NULL, 0), 28);
    octets[7] = 0xdb;
    cr_assert_eq(lport_proxy_print(2, end, end, octets, 7), 28);
    cr_assert_eq(octets[7], 0xdb);
}

Test(proxy, missing_vectors_are_invalid) {
    uint8_t block[LPORT_ADDRESS_SIZE];
    const uint8_t *text = (const uint8_t *)"PROXY UNKNOWN\r\n";
    const int64_t invalid = lport_status_make(LPORT_INVALID);
    cr_assert_eq(lport_proxy_parse(NULL, 0, block, block), 0);
    cr_assert_eq(lport_proxy_parse(NULL, 1, block, block), invalid);
    cr_assert_eq(lport_proxy_parse(text, 15, NULL, block), invalid);
    cr_assert_eq(lport_proxy_parse(text, 15, block, NULL), invalid);
}
