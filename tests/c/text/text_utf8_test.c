/* text: UTF-8, held to the tables of Unicode and to tests/vectors/utf8.tsv. */
#include "libport.h"
#include "text/text_variants.h"
#include "vectors.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- UTF-8 against the standard -------------------------------------------------------------- */

struct range {
    uint8_t low, high;
};

/* Unicode, table 3-7: the well-formed sequences. */
static const struct range well_formed[][4] = {
    {{0x00, 0x7F}, {1, 0}, {1, 0}, {1, 0}},
    {{0xC2, 0xDF}, {0x80, 0xBF}, {1, 0}, {1, 0}},
    {{0xE0, 0xE0}, {0xA0, 0xBF}, {0x80, 0xBF}, {1, 0}},
    {{0xE1, 0xEC}, {0x80, 0xBF}, {0x80, 0xBF}, {1, 0}},
    {{0xED, 0xED}, {0x80, 0x9F}, {0x80, 0xBF}, {1, 0}},
    {{0xEE, 0xEF}, {0x80, 0xBF}, {0x80, 0xBF}, {1, 0}},
    {{0xF0, 0xF0}, {0x90, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}},
    {{0xF1, 0xF3}, {0x80, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}},
    {{0xF4, 0xF4}, {0x80, 0x8F}, {0x80, 0xBF}, {0x80, 0xBF}},
};

/* What lport_text_utf8_problem has to say, from the definition: the longest beginning that is one
 * of a well-formed sequence, or one octet. */
static int64_t defined_problem(const uint8_t *octets, size_t len) {
    int64_t longest = 1;
    if (len == 0) {
        return 0;
    }
    for (size_t row = 0; row < sizeof well_formed / sizeof well_formed[0]; row++) {
        const struct range *r = well_formed[row];
        size_t i = 0;
        while (i < 4 && i < len && octets[i] >= r[i].low && octets[i] <= r[i].high) {
            i++;
        }
        if (i == 4 || (i > 0 && r[i].low > r[i].high)) {
            return -(int64_t)i;
        }
        if (i > 0 && i == len) {
            return 0;
        }
        if ((int64_t)i > longest) {
            longest = (int64_t)i;
        }
    }
    return longest;
}

static const uint8_t edges[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2,
                                0xDF, 0xE0, 0xE1, 0xED, 0xEE, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF};

enum { EDGES = sizeof edges };

/* Behaviour 43. */
Test(text, problem_is_the_maximal_subpart_for_every_pair_of_octets_and_what_may_follow) {
    for (uint32_t pair = 0; pair < 65536; pair++) {
        for (size_t k = 0; k < EDGES * EDGES; k++) {
            uint8_t octets[] = {(uint8_t)(pair >> 8), (uint8_t)pair, edges[k / EDGES],
                                edges[k % EDGES]};
            size_t shortest = k == 0 ? 0 : k % EDGES == 0 ? 3 : 4;
            for (size_t len = shortest; len <= 4; len++) {
                if (lport_text_utf8_problem(octets, len) != defined_problem(octets, len)) {
                    cr_assert_fail("%02X %02X %02X %02X, length %zu", octets[0], octets[1],
                                   octets[2], octets[3], len);
                }
            }
            if (pair >> 8 < 0xE0 && k == EDGES) { /* what follows two octets cannot matter */
                break;
            }
        }
    }
}

/* Four octets of the edges, number K of them. */
static void put_edges(uint8_t *octets, size_t k) {
    for (size_t i = 0; i < 4; i++, k /= EDGES) {
        octets[i] = edges[k % EDGES];
    }
}

static void must_decode_alike(const uint8_t *octets, size_t len) {
    const struct lport_text_variant *v;
    uint32_t chars[144], wanted[144];
    int64_t result = lport_text_decode_plainly(octets, len, wanted, 144);
    for (size_t i = 0; (v = lport_text_variant(i)) != &lport_text_scalar; i++) {
        if (lport_text_decode(v, octets, len, chars, 144) != result ||
            memcmp(chars, wanted, (size_t)(result % LPORT_TEXT_SCALE) * 4) != 0) {
            cr_assert_fail("%s: length %zu, %02X %02X %02X %02X at its end", v->name, len,
                           octets[len - 4], octets[len - 3], octets[len - 2], octets[len - 1]);
        }
    }
}

Test(text, every_four_octets_in_the_middle_decode_as_the_scalar_one_does) {
    uint8_t octets[144];
    for (size_t k = 0; k < EDGES * EDGES * EDGES * EDGES; k++) {
        size_t at = 16 + k % 97;
        memset(octets, 'x', sizeof octets);
        for (size_t i = at % 2; i + 2 <= sizeof octets; i += 2) {
            memcpy(octets + i, "\xC3\xA9", 2);
        }
        put_edges(octets + at, k);
        must_decode_alike(octets, sizeof octets);
    }
}

/* The last octet is that of a vector: what is cut off there has nothing behind it that shows it. */
Test(text, every_four_octets_at_the_end_of_a_vector_decode_as_the_scalar_one_does) {
    uint8_t octets[64];
    for (size_t i = 0; i < sizeof octets; i += 2) {
        memcpy(octets + i, "\xC3\xA9", 2);
    }
    for (size_t k = 0; k < EDGES * EDGES * EDGES * EDGES; k++) {
        put_edges(octets + 60, k);
        must_decode_alike(octets, 64);
        must_decode_alike(octets + 16, 48);
        must_decode_alike(octets + 32, 32);
    }
}

/* What is cut off is taken away, and then the last octet is that of a vector again. */
Test(text, every_four_octets_across_the_end_of_a_vector_decode_as_the_scalar_one_does) {
    uint8_t octets[68];
    for (size_t i = 0; i < sizeof octets; i += 2) {
        memcpy(octets + i, "\xC3\xA9", 2);
    }
    for (size_t k = 0; k < EDGES * EDGES * EDGES * EDGES; k++) {
        for (size_t past = 1; past <= 3; past++) {
            memset(octets + 60, 'x', past);
            put_edges(octets + 60 + past, k);
            must_decode_alike(octets, 64 + past);
            must_decode_alike(octets + 32, 32 + past);
        }
    }
}

/* For every character, in UTF-32 or UTF-8; to be freed. (No vectors of the program: the sanitizer
 * for leaks looks through all of those after each test.) */
enum { ROOM = 4 * 0x110000 };
static uint32_t *make_room(void) {
    uint32_t *room = calloc(1, ROOM);
    cr_assert_not_null(room);
    return room;
}

/* Every code point that is a character, in order; how many. */
static size_t every_char(uint32_t *chars) {
    size_t n = 0;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        if (c < 0xD800 || c > 0xDFFF) {
            chars[n++] = c;
        }
    }
    return n;
}

Test(text, every_character_survives_the_way_there_and_back_in_every_variant) {
    uint32_t *chars = make_room(), *back = make_room();
    uint8_t *octets = (uint8_t *)make_room();
    const struct lport_text_variant *v;
    size_t n = every_char(chars);
    size_t size = 0x80 + 2 * 0x780 + 3 * (0xF800 - 0x800) + 4 * 0x100000;
    for (size_t i = 0; (v = lport_text_variant(i)) != NULL; i++) {
        memset(back, 0, ROOM);
        memset(octets, 0, ROOM);
        cr_assert_eq(lport_text_encode(v, chars, n, octets, ROOM), lport_text_result(n, size), "%s",
                     v->name);
        cr_assert_eq(lport_text_decode(v, octets, size, back, n), lport_text_result(size, n), "%s",
                     v->name);
        cr_assert_arr_eq(back, chars, n * sizeof chars[0], "%s", v->name);
    }
    free(chars);
    free(back);
    free(octets);
}

/* Behaviour 43: what is there of a character is left where it is, and can be completed. */
Test(text, every_character_split_at_every_octet_is_neither_decoded_nor_wrong) {
    uint32_t *chars = make_room();
    size_t n = every_char(chars);
    for (size_t i = 0; i < n; i++) {
        uint8_t octets[4];
        uint32_t back[2];
        int64_t done = lport_text_to_utf8(chars + i, 1, octets, sizeof octets);
        size_t size = (size_t)(done % LPORT_TEXT_SCALE);
        bool good = lport_text_from_utf8(octets, size, back, 2) == lport_text_result(size, 1) &&
                    back[0] == chars[i] && lport_text_utf8_problem(octets, size) == -(int64_t)size;
        for (size_t len = 0; len < size; len++) {
            good = good && lport_text_from_utf8(octets, len, back, 2) == 0 &&
                   lport_text_utf8_problem(octets, len) == 0;
        }
        if (!good) {
            cr_assert_fail("U+%04" PRIX32, chars[i]);
        }
    }
    free(chars);
}

Test(text, what_is_no_character_is_not_encoded) {
    const struct lport_text_variant *v;
    for (size_t i = 0; (v = lport_text_variant(i)) != NULL; i++) {
        for (uint32_t c = 0xD700; c < 0xE100; c++) {
            uint32_t chars[] = {c, c, 0x110000 + c, 0xFFFF0000 + c};
            uint8_t octets[16];
            bool surrogate = c >= 0xD800 && c <= 0xDFFF;
            int64_t done = lport_text_encode(v, chars, 4, octets, sizeof octets);
            cr_assert_eq(done, surrogate ? 0 : lport_text_result(2, 6), "%s %" PRIX32, v->name, c);
            cr_assert_eq(lport_text_encode(v, chars + 2, 2, octets, sizeof octets), 0);
        }
    }
}

/* ---- UTF-8 against the vectors --------------------------------------------------------------- */

enum { MOST = 256 };

static unsigned digits(const char *text, const char **end) {
    char *stop;
    unsigned n = (unsigned)strtoul(text, &stop, 16);
    *end = stop;
    return n;
}

static size_t read_octets(const char *text, uint8_t *octets) {
    size_t n = strlen(text) / 2;
    cr_assert_leq(n, MOST);
    for (size_t i = 0; i < n; i++) {
        char two[] = {text[2 * i], text[2 * i + 1], 0};
        const char *end;
        octets[i] = (uint8_t)digits(two, &end);
        cr_assert_eq(*end, 0);
    }
    return n;
}

static size_t read_chars(const char *text, uint32_t *chars) {
    size_t n = 0;
    while (*text != 0) {
        cr_assert_lt(n, MOST);
        chars[n++] = digits(text, &text);
        text += *text == ' ';
    }
    return n;
}

/* By a variant, or as a caller does. */
static int64_t decode(const struct lport_text_variant *v, const uint8_t *octets, size_t len,
                      uint32_t *chars, size_t cap) {
    if (v == NULL) {
        return lport_text_from_utf8(octets, len, chars, cap);
    }
    return lport_text_decode(v, octets, len, chars, cap);
}

/* Decodes as a stream does: what is wrong becomes U+FFFD, and so does what is cut off at the end.
 */
static size_t decode_with_replacement(const struct lport_text_variant *v, const uint8_t *octets,
                                      size_t len, uint32_t *chars) {
    size_t in = 0, out = 0;
    while (in < len) {
        int64_t done = decode(v, octets + in, len - in, chars + out, MOST - out);
        in += (size_t)(done / LPORT_TEXT_SCALE);
        out += (size_t)(done % LPORT_TEXT_SCALE);
        if (in == len) {
            break;
        }
        int64_t problem = lport_text_utf8_problem(octets + in, len - in);
        cr_assert_geq(problem, 0);
        chars[out++] = 0xFFFD;
        in += problem == 0 ? len - in : (size_t)problem;
    }
    return out;
}

static void check_row(const struct vectors *row, const struct lport_text_variant *v) {
    const char *name = v != NULL ? v->name : "exported";
    uint8_t octets[MOST];
    uint32_t before[MOST], replaced[MOST], chars[MOST] = {0};
    size_t len = read_octets(row->field[0], octets);
    size_t good = read_chars(row->field[1], before);
    size_t all = read_chars(row->field[3], replaced);
    int64_t done = decode(v, octets, len, chars, MOST);
    size_t in = (size_t)(done / LPORT_TEXT_SCALE), out = (size_t)(done % LPORT_TEXT_SCALE);
    cr_assert_eq(out, good, "%s, line %d", name, row->number);
    cr_assert_arr_eq(chars, before, good * sizeof chars[0], "%s, line %d", name, row->number);
    int64_t problem = lport_text_utf8_problem(octets + in, len - in);
    cr_assert_eq(problem, atoi(row->field[2]), "%s, line %d", name, row->number);
    cr_assert_eq(decode_with_replacement(v, octets, len, chars), all, "%s, line %d", name,
                 row->number);
    cr_assert_arr_eq(chars, replaced, all * sizeof chars[0], "%s, line %d", name, row->number);
}

/* Behaviour 43. */
Test(text, utf8_vectors_stop_where_they_say_and_are_replaced_as_they_say) {
    const struct lport_text_variant *v;
    struct vectors row;
    int rows = 0;
    cr_assert(vectors_open(&row, "utf8.tsv"));
    for (; vectors_next(&row); rows++) {
        cr_assert_eq(row.count, 4, "line %d", row.number);
        check_row(&row, NULL);
        for (size_t i = 0; (v = lport_text_variant(i)) != NULL; i++) {
            check_row(&row, v);
        }
    }
    cr_assert(vectors_close(&row));
    cr_assert_gt(rows, 80);
}
