/* address: blocks, their texts, and the kernel's form. Behaviour 56 is the strictness of the texts,
 * behaviour 59 the names of local sockets. */
#include "address/address.h"
#include "base/os.h"
#include "base/status.h"
#include "knowing.h"
#include "libport.h"
#include "support.h"
#include "vectors.h"

#include <criterion/criterion.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

TestSuite(address, .timeout = 20);

#define INVALID lport_status_make(LPORT_INVALID)
#define SYNTAX  lport_status_make(LPORT_ADDRESS_SYNTAX)

enum { LOCAL_MAX = 108 };

/* Parses TEXT from a vector of exactly its length, so that a sanitizer sees a read past it. */
static int64_t parse(const char *text, size_t len, int32_t port, uint8_t *address) {
    char *exact = malloc(len ? len : 1);
    cr_assert_not_null(exact);
    memcpy(exact, text, len);
    int64_t family = lport_address_parse(exact, len, port, address);
    free(exact);
    return family;
}

static void parse_good(const char *text, int32_t port, uint8_t *address) {
    cr_assert_gt(parse(text, strlen(text), port, address), 0, "%s", text);
}

static const char *print(const uint8_t *address) {
    static char text[LPORT_TEXT_SIZE];
    int64_t len = lport_address_print(address, text, sizeof text);
    cr_assert(len >= 0 && len < LPORT_TEXT_SIZE);
    cr_assert_eq(text[len], '\0');
    return text;
}

/* The block that a row of addresses.tsv describes, with PORT. */
static int64_t expected_block(const struct vectors *row, int32_t port, uint8_t *block) {
    bool inet = strcmp(row->field[1], "inet") == 0;
    unsigned long scope = strtoul(row->field[3], NULL, 10);
    memset(block, 0, LPORT_ADDRESS_SIZE);
    block[0] = inet ? LPORT_INET : LPORT_INET6;
    block[2] = (uint8_t)(port >> 8);
    block[3] = (uint8_t)(port & 0xff);
    for (int i = 0; i < 4; i++) {
        block[4 + i] = (uint8_t)(scope >> (24 - 8 * i) & 0xff);
    }
    cr_assert_eq(row->len[2], inet ? 8 : 32, "line %d", row->number);
    for (size_t i = 0; i < row->len[2] / 2; i++) {
        char octet[3] = {row->field[2][2 * i], row->field[2][2 * i + 1], '\0'};
        block[8 + i] = (uint8_t)strtoul(octet, NULL, 16);
    }
    return block[0];
}

static void check_bad(const struct vectors *row) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    uint8_t before[LPORT_ADDRESS_SIZE];
    memset(address, 0xaa, sizeof address);
    memset(before, 0xaa, sizeof before);
    int64_t status = parse(row->field[0], row->len[0], 80, address);
    cr_assert_eq(status, SYNTAX, "line %d: '%s' gives %lld", row->number, row->field[0],
                 (long long)status);
    cr_assert_arr_eq(address, before, sizeof address, "line %d", row->number);
}

static void check_good(const struct vectors *row) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    uint8_t expected[LPORT_ADDRESS_SIZE];
    memset(address, 0xaa, sizeof address);
    int64_t family = expected_block(row, 0xbeef, expected);
    cr_assert_eq(parse(row->field[0], row->len[0], 0xbeef, address), family, "line %d: %s",
                 row->number, row->field[0]);
    cr_assert_arr_eq(address, expected, sizeof address, "line %d: %s", row->number, row->field[0]);
    cr_assert_str_eq(print(address), row->field[4], "line %d: %s", row->number, print(address));
    cr_assert_eq(lport_address_is_literal(row->field[0], row->len[0]), 1, "line %d", row->number);
}

Test(address, literals_parse_and_print_as_the_table_says) { /* behaviour 56 */
    struct vectors rows;
    int good = 0;
    int bad = 0;
    cr_assert(vectors_open(&rows, "addresses.tsv"));
    while (vectors_next(&rows)) {
        if (strcmp(rows.field[1], "bad") == 0) {
            check_bad(&rows);
            bad++;
        } else {
            check_good(&rows);
            good++;
        }
    }
    cr_assert(vectors_close(&rows));
    cr_assert_geq(good, 60);
    cr_assert_geq(bad, 100);
}

Test(address, canonical_texts_parse_to_the_same_block) {
    struct vectors rows;
    cr_assert(vectors_open(&rows, "addresses.tsv"));
    while (vectors_next(&rows)) {
        uint8_t first[LPORT_ADDRESS_SIZE];
        uint8_t again[LPORT_ADDRESS_SIZE];
        if (parse(rows.field[0], rows.len[0], 7, first) < 0) {
            continue;
        }
        parse_good(print(first), 7, again);
        cr_assert_arr_eq(first, again, sizeof first, "line %d", rows.number);
    }
    cr_assert(vectors_close(&rows));
}

/* Every set of zero groups, so every place and length of the `::`, printed and read back. */
Test(address, every_pattern_of_zero_groups_survives_printing) {
    for (unsigned pattern = 0; pattern < 256; pattern++) {
        uint8_t address[LPORT_ADDRESS_SIZE] = {LPORT_INET6};
        uint8_t again[LPORT_ADDRESS_SIZE];
        for (unsigned group = 0; group < 8; group++) {
            if (pattern >> group & 1) {
                address[8 + 2 * group + 1] = (uint8_t)(group + 1);
            }
        }
        parse_good(print(address), 0, again);
        cr_assert_arr_eq(address, again, sizeof address, "%s", print(address));
    }
}

/* Cut short at any place, a literal is refused or is a shorter literal; nothing is read past its
 * end. */
Test(address, beginnings_of_literals_never_read_past_their_end) {
    static const char *const whole[] = {"[2001:db8:1:2:3:4:5:6]", "fe80::1%4000000001",
                                        "1:2:3:4:5:6:255.254.253.252", "192.168.100.200"};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        for (size_t len = 0; len <= strlen(whole[i]); len++) {
            uint8_t address[LPORT_ADDRESS_SIZE];
            int64_t family = parse(whole[i], len, 0, address);
            cr_assert(family == LPORT_INET || family == LPORT_INET6 || family == SYNTAX);
            if (len == strlen(whole[i])) {
                cr_assert_gt(family, 0, "%s", whole[i]);
            }
        }
    }
}

/* Behaviour 56: zones go in and come out. */
Test(address, a_zone_goes_in_and_comes_out_by_its_name) {
    struct if_nameindex *interfaces = if_nameindex();
    int seen = 0;
    cr_assert_not_null(interfaces);
    for (struct if_nameindex *at = interfaces; at->if_index != 0; at++, seen++) {
        char named[64];
        char numbered[64];
        uint8_t by_name[LPORT_ADDRESS_SIZE];
        uint8_t by_number[LPORT_ADDRESS_SIZE];
        snprintf(named, sizeof named, "fe80::1%%%s", at->if_name);
        snprintf(numbered, sizeof numbered, "[fe80::1%%%u]", at->if_index);
        parse_good(named, 80, by_name);
        parse_good(numbered, 80, by_number);
        cr_assert_eq(by_name[7] | by_name[6] << 8, (int)at->if_index);
        cr_assert_arr_eq(by_name, by_number, sizeof by_name);
        cr_assert_str_eq(print(by_number), named);
    }
    if_freenameindex(interfaces);
    cr_assert_gt(seen, 0);
}

Test(address, zones_that_no_interface_can_have_are_refused) {
    static const struct {
        const char *text;
        size_t len;
    } zones[] = {{"fe80::1%", 8},
                 {"fe80::1%0", 9},
                 {"fe80::1%lo\0", 11},
                 {"fe80::1%\0lo", 11},
                 {"fe80::1%%lo", 11},
                 {"fe80::1%lo]", 11},
                 {"[fe80::1%lo]]", 13},
                 {"fe80::1%[lo", 11},
                 {"fe80::1%fifteen-octets-", 23},
                 {"fe80::1%sixteen-octets--", 24},
                 {"fe80::1%4294967296", 18}};
    for (size_t i = 0; i < sizeof zones / sizeof *zones; i++) {
        uint8_t address[LPORT_ADDRESS_SIZE];
        char *text = malloc(zones[i].len); /* so that a sanitizer sees what is read behind it */
        cr_assert_not_null(text);
        memcpy(text, zones[i].text, zones[i].len);
        cr_assert_eq(lport_status_kind(lport_address_parse(text, zones[i].len, 0, address)),
                     LPORT_ADDRESS_SYNTAX, "%s", zones[i].text);
        free(text);
    }
}

/* Whatever interfaces there are: a name that would not be read back is neither taken nor told. */
SOCKET_TEST(address, a_zone_whose_name_would_not_read_back_goes_by_its_number) {
    static const char *const names[] = {"a%b", "a[b", "a]b", "%", "7", "007", "00"};
    char text[64];
    uint8_t address[LPORT_ADDRESS_SIZE], numbered[LPORT_ADDRESS_SIZE];
    parse_good("fe80::1%7", 80, numbered);
    faults_watch(); /* a call is replaced by our own */
    lport_os.ioctl = knowing_ioctl;
    parse_good("fe80::1%eth0", 80, address);
    cr_assert_arr_eq(address, numbered, sizeof address);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        int len = snprintf(text, sizeof text, "fe80::1%%%s", names[i]);
        (void)snprintf(known_interface, sizeof known_interface, "%s", names[i]);
        cr_assert_str_eq(print(numbered), "fe80::1%7");
        if (strcmp(names[i], "7") != 0) {
            cr_assert_eq(parse(text, (size_t)len, 80, address), SYNTAX, "%s", text);
        }
    }
    faults_resume();
}

Test(address, no_other_octet_is_a_hexadecimal_digit) {
    for (int c = 0; c < 256; c++) {
        bool digit = c != 0 && strchr("0123456789abcdefABCDEF", c) != NULL;
        char text[] = {'1', ':', ':', '1', (char)c};
        char number[] = {'0', 'x', (char)c};
        uint8_t address[LPORT_ADDRESS_SIZE];
        cr_assert_eq(parse(text, sizeof text, 80, address) > 0, digit, "%d", c);
        bool literal = digit || (c != 0 && strchr(":[]%", c) != NULL);
        cr_assert_eq(lport_address_is_literal(number, sizeof number), literal, "%d", c);
    }
}

Test(address, parse_refuses_ports_out_of_range) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    cr_assert_eq(lport_address_parse("::1", 3, -1, address), INVALID);
    cr_assert_eq(lport_address_parse("::1", 3, 65536, address), INVALID);
    cr_assert_eq(lport_address_parse("::1", 3, 65535, address), LPORT_INET6);
    cr_assert_eq(lport_address_port(address), 65535);
}

Test(address, missing_vectors_are_invalid) {
    uint8_t address[LPORT_ADDRESS_SIZE] = {LPORT_INET};
    cr_assert_eq(lport_address_parse(NULL, 1, 0, address), INVALID);
    cr_assert_eq(lport_address_parse(NULL, 0, 0, address), SYNTAX);
    cr_assert_eq(lport_address_parse("::1", 3, 0, NULL), INVALID);
    cr_assert_eq(lport_address_is_literal(NULL, 1), INVALID);
    cr_assert_eq(lport_address_is_literal(NULL, 0), 0);
    cr_assert_eq(lport_address_print(NULL, NULL, 0), INVALID);
    cr_assert_eq(lport_address_print(address, NULL, 1), INVALID);
    cr_assert_eq(lport_port_parse(NULL, 1), INVALID);
    cr_assert_eq(lport_port_parse(NULL, 0), SYNTAX);
    cr_assert_eq(lport_address_local(NULL, 1, address), INVALID);
    cr_assert_eq(lport_address_local(NULL, 0, address), SYNTAX);
    cr_assert_eq(lport_address_local("a", 1, NULL), INVALID);
    cr_assert_eq(lport_address_equal(NULL, address), INVALID);
    cr_assert_eq(lport_address_equal(address, NULL), INVALID);
}

/* Behaviour 56: what can only be a misspelt literal is never looked up as a name. */
Test(address, texts_that_can_only_be_literals_are_told_from_names) {
    static const char *const literals[] = {
        "127.1",         "010.0.0.1",  "1",          "2130706433",
        "0x7f.1",        "0X7F.0.0.1", "0x7f000001", "1.2.3.4",
        "1.2.3.4.",      "1.2.3.4.5",  ".",          "256.1.1.1",
        "[::1",          "::1]",       "::1",        "fe80::1%lo",
        "localhost%",    "[name]",     "a:b",        "017.0x1.3",
        "0xabcdef12345",
    };
    static const char *const names[] = {
        "",          "localhost",   "example.org", "1.2.3.4.example",
        "0x",        "0x.1",        "0xg",         "x7f",
        "1a",        "0x7f.1.",     "a.1",         "-1",
        "1.2.3.4 ",  "0x1.2.3.4.5", "face",        "3com.com",
        "0xabc.org", "1-2",         "1e5",         "dead.beef",
        "0b2",       "1x2",
    };
    for (size_t i = 0; i < sizeof literals / sizeof literals[0]; i++) {
        cr_assert_eq(lport_address_is_literal(literals[i], strlen(literals[i])), 1, "%s",
                     literals[i]);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        cr_assert_eq(lport_address_is_literal(names[i], strlen(names[i])), 0, "%s", names[i]);
    }
    cr_assert_eq(lport_address_is_literal("a\0b", 3), 0);
    cr_assert_eq(lport_address_is_literal("1\0", 2), 0);
    cr_assert_eq(lport_address_is_literal("\0:", 2), 1);
}

Test(address, ports_parse_as_the_table_says) { /* behaviour 56 */
    struct vectors rows;
    int count = 0;
    cr_assert(vectors_open(&rows, "ports.tsv"));
    for (; vectors_next(&rows); count++) {
        bool bad = strcmp(rows.field[1], "bad") == 0;
        int64_t expected = bad ? SYNTAX : strtol(rows.field[1], NULL, 10);
        cr_assert_eq(lport_port_parse(rows.field[0], rows.len[0]), expected, "line %d: '%s'",
                     rows.number, rows.field[0]);
    }
    cr_assert(vectors_close(&rows));
    cr_assert_geq(count, 50);
}

Test(address, every_port_parses) {
    for (int port = 0; port <= 65535; port++) {
        char text[8];
        int len = snprintf(text, sizeof text, "%d", port);
        cr_assert_eq(lport_port_parse(text, (size_t)len), port);
    }
}

Test(address, every_port_goes_in_and_comes_out) {
    uint8_t address[LPORT_ADDRESS_SIZE] = {LPORT_INET};
    for (int port = 0; port <= 65535; port++) {
        lport_address_set_port(address, port);
        cr_assert_eq(lport_address_port(address), port);
    }
    cr_assert_eq(address[LPORT_AT_LENGTH] | address[LPORT_AT_SCOPE], 0);
}

/* ---- local names (behaviour 59) -------------------------------------------------------------- */

Test(address, a_path_becomes_a_block_with_zeros_behind_it) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    uint8_t expected[LPORT_ADDRESS_SIZE] = {LPORT_LOCAL, 6, 0, 0, 0, 0, 0, 0};
    memcpy(expected + 8, "/tmp/s", 6);
    memset(address, 0xaa, sizeof address);
    cr_assert_eq(lport_address_local("/tmp/s", 6, address), LPORT_LOCAL);
    cr_assert_arr_eq(address, expected, sizeof address);
    cr_assert_str_eq(print(address), "/tmp/s");
}

Test(address, an_abstract_name_has_a_zero_octet_for_its_at_sign) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    cr_assert_eq(lport_address_local("@a@b", 4, address), LPORT_LOCAL);
    cr_assert_eq(address[LPORT_AT_LENGTH], 4);
    cr_assert_arr_eq(address + 8, "\0a@b", 5);
    cr_assert_str_eq(print(address), "@a@b");
}

Test(address, a_local_name_of_108_octets_fits_and_109_do_not) { /* behaviour 59 */
    char name[LOCAL_MAX + 1];
    uint8_t address[LPORT_ADDRESS_SIZE];
    for (int abstract = 0; abstract <= 1; abstract++) {
        memset(name, 'x', sizeof name);
        name[0] = abstract ? '@' : 'x';
        cr_assert_eq(lport_address_local(name, LOCAL_MAX, address), LPORT_LOCAL);
        cr_assert_eq(address[LPORT_AT_LENGTH], LOCAL_MAX);
        cr_assert_arr_eq(print(address), name, LOCAL_MAX);
        cr_assert_eq(strlen(print(address)), LOCAL_MAX);
        cr_assert_eq(lport_address_local(name, LOCAL_MAX + 1, address), SYNTAX);
        cr_assert_eq(lport_address_local(name, SIZE_MAX, address), SYNTAX);
    }
}

Test(address, names_that_no_local_socket_can_have_are_refused) { /* behaviour 59 */
    uint8_t address[LPORT_ADDRESS_SIZE];
    cr_assert_eq(lport_address_local("", 0, address), SYNTAX);
    cr_assert_eq(lport_address_local("@", 1, address), SYNTAX);
    cr_assert_eq(lport_address_local("\0", 1, address), SYNTAX);
    cr_assert_eq(lport_address_local("\0name", 5, address), SYNTAX);
    cr_assert_eq(lport_address_local("a\0b", 3, address), SYNTAX);
    cr_assert_eq(lport_address_local("ab\0", 3, address), SYNTAX);
    cr_assert_eq(lport_address_local("@a\0", 3, address), SYNTAX);
}

/* ---- printing -------------------------------------------------------------------------------- */

Test(address, print_cuts_off_at_the_cap_and_tells_the_full_length) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    const char *whole = "2001:db8::1";
    parse_good(whole, 0, address);
    for (size_t cap = 0; cap <= strlen(whole) + 1; cap++) {
        char text[16];
        memset(text, '#', sizeof text);
        cr_assert_eq(lport_address_print(address, text, cap), (int64_t)strlen(whole));
        cr_assert_arr_eq(text, whole, cap <= strlen(whole) ? cap : strlen(whole) + 1);
        cr_assert_eq(text[cap], '#');
    }
    cr_assert_eq(lport_address_print(address, NULL, 0), (int64_t)strlen(whole));
}

Test(address, print_knows_the_wildcard_and_the_unnamed) {
    uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    uint8_t unnamed[LPORT_ADDRESS_SIZE] = {LPORT_LOCAL};
    cr_assert_str_eq(print(any), "*");
    cr_assert_str_eq(print(unnamed), "");
}

Test(address, octets_that_are_no_block_are_invalid) {
    uint8_t good[LPORT_ADDRESS_SIZE] = {LPORT_LOCAL};
    uint8_t bad[LPORT_ADDRESS_SIZE];
    char text[LPORT_TEXT_SIZE];
    struct sockaddr_storage storage;
    for (int family = 0; family < 256; family++) {
        memset(bad, 0xff, sizeof bad); /* for a local name, a length that cannot be */
        bad[0] = (uint8_t)family;
        if (family == LPORT_ANY || family == LPORT_INET || family == LPORT_INET6) {
            continue;
        }
        cr_assert_eq(lport_address_print(bad, text, sizeof text), INVALID);
        cr_assert_eq(lport_address_equal(bad, bad), INVALID);
        cr_assert_eq(lport_address_equal(good, bad), INVALID);
        cr_assert_eq(lport_address_equal(bad, good), INVALID);
        cr_assert_eq(lport_address_to_kernel(bad, 0, &storage), INVALID);
    }
}

Test(address, the_longest_texts_fit_the_size_that_the_header_promises) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    parse_good("fe80:1111:2222:3333:4444:5555:6666:7777%4294967295", 0, address);
    cr_assert_str_eq(print(address), "fe80:1111:2222:3333:4444:5555:6666:7777%4294967295");
}

/* ---- comparing ------------------------------------------------------------------------------- */

static int64_t equal(const char *a, int32_t a_port, const char *b, int32_t b_port) {
    uint8_t first[LPORT_ADDRESS_SIZE];
    uint8_t second[LPORT_ADDRESS_SIZE];
    parse_good(a, a_port, first);
    parse_good(b, b_port, second);
    int64_t result = lport_address_equal(first, second);
    cr_assert_eq(lport_address_equal(second, first), result);
    cr_assert_eq(lport_address_equal(first, first), 1);
    return result;
}

Test(address, equal_compares_the_whole_end) {
    cr_assert_eq(equal("1.2.3.4", 80, "1.2.3.4", 80), 1);
    cr_assert_eq(equal("1.2.3.4", 80, "1.2.3.4", 81), 0);
    cr_assert_eq(equal("1.2.3.4", 80, "1.2.3.4", 80 + 256), 0);
    cr_assert_eq(equal("1.2.3.4", 80, "1.2.3.5", 80), 0);
    cr_assert_eq(equal("::1", 80, "0:0::0:1", 80), 1);
    cr_assert_eq(equal("::1", 80, "::2", 80), 0);
    cr_assert_eq(equal("::1", 80, "::1", 81), 0);
    cr_assert_eq(equal("fe80::1%1", 80, "fe80::1%1", 80), 1);
    cr_assert_eq(equal("fe80::1%1", 80, "fe80::1%2", 80), 0);
    cr_assert_eq(equal("fe80::1%1", 80, "fe80::1", 80), 0);
    cr_assert_eq(equal("0.0.0.0", 80, "::", 80), 0);
}

Test(address, a_mapped_address_is_the_ipv4_one) {
    cr_assert_eq(equal("::ffff:1.2.3.4", 80, "1.2.3.4", 80), 1);
    cr_assert_eq(equal("::ffff:1.2.3.4", 80, "::ffff:102:304", 80), 1);
    cr_assert_eq(equal("::ffff:1.2.3.4", 80, "1.2.3.4", 81), 0);
    cr_assert_eq(equal("::ffff:1.2.3.4", 80, "1.2.3.5", 80), 0);
    cr_assert_eq(equal("::1.2.3.4", 80, "1.2.3.4", 80), 0);
}

Test(address, equal_ignores_octets_without_meaning) {
    uint8_t made[LPORT_ADDRESS_SIZE];
    uint8_t parsed[LPORT_ADDRESS_SIZE];
    memset(made, 0xaa, sizeof made);
    made[0] = LPORT_INET;
    lport_address_set_port(made, 80);
    memcpy(made + 8, "\x01\x02\x03\x04", 4);
    parse_good("1.2.3.4", 80, parsed);
    cr_assert_eq(lport_address_equal(made, parsed), 1);
    made[0] = LPORT_LOCAL;
    made[1] = 4;
    lport_address_local("\x01\x02\x03\x04", 4, parsed);
    cr_assert_eq(lport_address_equal(made, parsed), 1);
    memset(made, 0xaa, sizeof made);
    made[0] = LPORT_ANY;
    memset(parsed, 0, sizeof parsed);
    lport_address_set_port(made, 80);
    lport_address_set_port(parsed, 80);
    cr_assert_eq(lport_address_equal(made, parsed), 1);
}

/* An abstract name may have the octets of a mapped address, and a block made by hand, too. */
Test(address, only_an_ipv6_address_is_a_mapped_one) {
    uint8_t mapped[LPORT_ADDRESS_SIZE], plain[LPORT_ADDRESS_SIZE];
    parse_good("::ffff:1.2.3.4", 0, mapped);
    parse_good("1.2.3.4", 0, plain);
    mapped[0] = LPORT_LOCAL;
    mapped[1] = 16;
    cr_assert_eq(lport_address_equal(mapped, plain), 0);
    cr_assert_eq(lport_address_equal(plain, mapped), 0);
    cr_assert(!lport_address_unmap(mapped));
    mapped[0] = LPORT_INET;
    mapped[1] = 0;
    cr_assert(!lport_address_unmap(mapped));
    cr_assert_eq(mapped[8], 0);
}

Test(address, local_names_are_equal_octet_by_octet) {
    uint8_t path[LPORT_ADDRESS_SIZE];
    uint8_t longer[LPORT_ADDRESS_SIZE];
    uint8_t abstract[LPORT_ADDRESS_SIZE];
    uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    lport_address_local("xname", 5, path);
    lport_address_local("xname2", 6, longer);
    lport_address_local("@name", 5, abstract);
    cr_assert_eq(lport_address_equal(path, path), 1);
    cr_assert_eq(lport_address_equal(path, longer), 0);
    cr_assert_eq(lport_address_equal(path, abstract), 0);
    cr_assert_eq(lport_address_equal(abstract, abstract), 1);
    cr_assert_eq(lport_address_equal(any, path), 0);
    cr_assert_eq(lport_address_equal(any, any), 1);
}

/* ---- the kernel's form ----------------------------------------------------------------------- */

static int64_t round_trip(const uint8_t *address, bool mapped, uint8_t *again) {
    struct sockaddr_storage storage;
    memset(&storage, 0xaa, sizeof storage);
    memset(again, 0xaa, LPORT_ADDRESS_SIZE);
    int64_t len = lport_address_to_kernel(address, mapped, &storage);
    cr_assert_gt(len, 0);
    cr_assert_leq(len, (int64_t)sizeof storage);
    return lport_address_from_kernel(&storage, (socklen_t)len, again);
}

Test(address, literals_survive_the_kernels_form) {
    struct vectors rows;
    cr_assert(vectors_open(&rows, "addresses.tsv"));
    while (vectors_next(&rows)) {
        uint8_t address[LPORT_ADDRESS_SIZE];
        uint8_t again[LPORT_ADDRESS_SIZE];
        int64_t family = parse(rows.field[0], rows.len[0], 0x1234, address);
        if (family < 0 || strncmp(rows.field[4], "::ffff:", 7) == 0) {
            continue;
        }
        cr_assert_eq(round_trip(address, false, again), family, "line %d", rows.number);
        cr_assert_arr_eq(again, address, sizeof again, "line %d", rows.number);
    }
    cr_assert(vectors_close(&rows));
}

Test(address, the_kernel_gets_network_order_and_scope) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    struct sockaddr_storage storage;
    const struct sockaddr_in *in = (const struct sockaddr_in *)&storage;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&storage;
    parse_good("1.2.3.4", 80, address);
    cr_assert_eq(lport_address_to_kernel(address, 0, &storage), (int64_t)sizeof *in);
    cr_assert_eq(in->sin_family, AF_INET);
    cr_assert_eq(ntohs(in->sin_port), 80);
    cr_assert_eq(ntohl(in->sin_addr.s_addr), 0x01020304);
    parse_good("fe80::1%4000000001", 443, address);
    cr_assert_eq(lport_address_to_kernel(address, 0, &storage), (int64_t)sizeof *in6);
    cr_assert_eq(in6->sin6_family, AF_INET6);
    cr_assert_eq(ntohs(in6->sin6_port), 443);
    cr_assert_eq(in6->sin6_scope_id, 4000000001u);
    cr_assert_eq(in6->sin6_flowinfo, 0);
    cr_assert_arr_eq(in6->sin6_addr.s6_addr, address + 8, 16);
}

/* Behaviour 55: IPv4-mapped peers are shown as IPv4. */
Test(address, an_ipv4_address_goes_to_the_kernel_mapped_and_comes_back_plain) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    uint8_t again[LPORT_ADDRESS_SIZE];
    struct sockaddr_storage storage;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&storage;
    parse_good("1.2.3.4", 80, address);
    cr_assert_eq(lport_address_to_kernel(address, 1, &storage), (int64_t)sizeof *in6);
    cr_assert_eq(in6->sin6_family, AF_INET6);
    cr_assert(IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr));
    cr_assert_eq(round_trip(address, true, again), LPORT_INET);
    cr_assert_arr_eq(again, address, sizeof again);
}

Test(address, mapping_leaves_other_families_alone) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    uint8_t again[LPORT_ADDRESS_SIZE];
    parse_good("2001:db8::1", 80, address);
    cr_assert_eq(round_trip(address, true, again), LPORT_INET6);
    cr_assert_arr_eq(again, address, sizeof again);
    lport_address_local("/tmp/s", 6, address);
    cr_assert_eq(round_trip(address, true, again), LPORT_LOCAL);
    cr_assert_arr_eq(again, address, sizeof again);
}

Test(address, the_wildcard_is_the_ipv6_one_for_the_kernel) {
    uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    uint8_t again[LPORT_ADDRESS_SIZE];
    lport_address_set_port(any, 8080);
    cr_assert_eq(round_trip(any, false, again), LPORT_INET6);
    cr_assert_str_eq(print(again), "::");
    cr_assert_eq(lport_address_port(again), 8080);
}

Test(address, only_what_has_no_family_becomes_the_wildcard_of_the_one_asked_for) {
    uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    uint8_t address[LPORT_ADDRESS_SIZE];
    uint8_t room[LPORT_ADDRESS_SIZE];
    lport_address_set_port(any, 8080);
    cr_assert_eq(lport_address_in_family(any, LPORT_INET, room), room);
    cr_assert_str_eq(print(room), "0.0.0.0");
    cr_assert_eq(lport_address_port(room), 8080);
    parse_good("192.0.2.1", 80, address);
    cr_assert_eq(lport_address_in_family(address, LPORT_INET6, room), address);
}

Test(address, local_names_of_every_length_survive_the_kernels_form) {
    char name[LOCAL_MAX];
    memset(name, 'n', sizeof name);
    for (int abstract = 0; abstract <= 1; abstract++) {
        name[0] = abstract ? '@' : 'n';
        for (size_t len = 1 + (size_t)abstract; len <= LOCAL_MAX; len++) {
            uint8_t address[LPORT_ADDRESS_SIZE];
            uint8_t again[LPORT_ADDRESS_SIZE];
            cr_assert_eq(lport_address_local(name, len, address), LPORT_LOCAL);
            cr_assert_eq(round_trip(address, false, again), LPORT_LOCAL);
            cr_assert_arr_eq(again, address, sizeof again);
        }
    }
}

Test(address, lengths_of_local_names_are_those_of_the_kernel) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    struct sockaddr_storage storage;
    int64_t at = offsetof(struct sockaddr_un, sun_path);
    char name[LOCAL_MAX];
    memset(name, 'n', sizeof name);
    lport_address_local(name, 5, address);
    cr_assert_eq(lport_address_to_kernel(address, 0, &storage), at + 6);
    lport_address_local(name, LOCAL_MAX - 1, address);
    cr_assert_eq(lport_address_to_kernel(address, 0, &storage), at + LOCAL_MAX);
    lport_address_local(name, LOCAL_MAX, address);
    cr_assert_eq(lport_address_to_kernel(address, 0, &storage), at + LOCAL_MAX);
    lport_address_local("@name", 5, address);
    cr_assert_eq(lport_address_to_kernel(address, 0, &storage), at + 5);
    memset(address, 0, sizeof address);
    address[0] = LPORT_LOCAL;
    cr_assert_eq(lport_address_to_kernel(address, 0, &storage), at);
}

/* Binds a local socket to NAME and gives the block of what the kernel then says its name is. */
static void bind_and_ask(const char *name, size_t len, uint8_t *told) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    struct sockaddr_storage storage;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(lport_address_local(name, len, address), LPORT_LOCAL);
    int64_t size = lport_address_to_kernel(address, 0, &storage);
    cr_assert_eq(bind(fd, (struct sockaddr *)&storage, (socklen_t)size), 0);
    socklen_t got = sizeof storage;
    memset(&storage, 0xaa, sizeof storage);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&storage, &got), 0);
    cr_assert_eq(lport_address_from_kernel(&storage, got, told), LPORT_LOCAL);
    cr_assert_arr_eq(told, address, LPORT_ADDRESS_SIZE);
    close(fd);
}

/* Behaviour 59. For a path of 108 octets the kernel tells a length that is one past sun_path. */
Test(address, the_kernel_takes_paths_of_up_to_108_octets_and_tells_them_again) {
    char directory[] = "/tmp/port-address-XXXXXX";
    char path[LOCAL_MAX + 1];
    cr_assert_not_null(mkdtemp(directory));
    for (size_t len = LOCAL_MAX - 2; len <= LOCAL_MAX; len++) {
        uint8_t told[LPORT_ADDRESS_SIZE];
        memset(path, 'p', sizeof path);
        memcpy(path, directory, strlen(directory));
        path[strlen(directory)] = '/';
        path[len] = '\0';
        bind_and_ask(path, len, told);
        cr_assert_str_eq(print(told), path);
        cr_assert_eq(unlink(path), 0);
    }
    cr_assert_eq(rmdir(directory), 0);
}

Test(address, the_kernel_takes_abstract_names_and_tells_them_again) { /* behaviour 59 */
    char name[LOCAL_MAX];
    uint8_t told[LPORT_ADDRESS_SIZE];
    memset(name, 'a', sizeof name);
    int used = snprintf(name, sizeof name, "@port-address-%ld", (long)getpid());
    bind_and_ask(name, (size_t)used, told);
    cr_assert_str_eq(print(told), name);
    name[used] = 'a';
    bind_and_ask(name, LOCAL_MAX, told);
}

Test(address, ends_without_a_name_are_local_and_unnamed) {
    uint8_t unnamed[LPORT_ADDRESS_SIZE] = {LPORT_LOCAL};
    uint8_t told[LPORT_ADDRESS_SIZE];
    struct sockaddr_storage storage;
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    socklen_t len = sizeof storage;
    cr_assert_eq(getsockname(pair[0], (struct sockaddr *)&storage, &len), 0);
    cr_assert_eq(lport_address_from_kernel(&storage, len, told), LPORT_LOCAL);
    cr_assert_arr_eq(told, unnamed, sizeof told);
    memset(told, 0xaa, sizeof told);
    memset(&storage, 0xaa, sizeof storage);
    cr_assert_eq(lport_address_from_kernel(&storage, 0, told), LPORT_LOCAL);
    cr_assert_arr_eq(told, unnamed, sizeof told);
    close(pair[0]);
    close(pair[1]);
}

Test(address, what_the_kernel_cannot_mean_is_invalid) {
    struct sockaddr_storage storage;
    uint8_t address[LPORT_ADDRESS_SIZE];
    memset(&storage, 'x', sizeof storage);
    storage.ss_family = AF_INET;
    cr_assert_eq(lport_address_from_kernel(&storage, 1, address), INVALID);
    cr_assert_eq(lport_address_from_kernel(&storage, sizeof(struct sockaddr_in) - 1, address),
                 INVALID);
    storage.ss_family = AF_INET6;
    cr_assert_eq(lport_address_from_kernel(&storage, sizeof(struct sockaddr_in6) - 1, address),
                 INVALID);
    storage.ss_family = AF_UNSPEC;
    cr_assert_eq(lport_address_from_kernel(&storage, sizeof storage, address), INVALID);
    storage.ss_family = AF_UNIX; /* a path that no end stops */
    cr_assert_eq(lport_address_from_kernel(&storage, sizeof storage, address), INVALID);
    cr_assert_eq(lport_address_from_kernel(&storage, sizeof storage + 1, address), INVALID);
}
