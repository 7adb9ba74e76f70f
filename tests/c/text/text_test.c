/* text: the codec. Every variant of the processor is held to the scalar one, the scalar one to the
 * tables of Unicode and to tests/vectors/utf8.tsv. */
#include "libport.h"
#include "text/text_variants.h"
#include "text/text_vector.h"
#include "vectors.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef LPORT_TEXT_X86
#include <cpuid.h>
#endif

TestSuite(text, .timeout = 120);

static int64_t counts(size_t consumed, size_t produced) {
    return lport_text_result(consumed, produced);
}

/* ---- random text ----------------------------------------------------------------------------- */

static uint64_t seed, state;

/* Another seed: LPORT_SEED in the environment. */
static void start_random(void) {
    const char *given = getenv("LPORT_SEED");
    state = seed = given != NULL ? strtoull(given, NULL, 10) : 20261123;
}

static uint32_t pick(uint32_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % below);
}

static uint32_t pick_char(unsigned size) {
    static const uint32_t first[] = {0, 0, 0x80, 0x800, 0x10000};
    static const uint32_t last[] = {0, 0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
    uint32_t c = first[size] + pick(last[size] - first[size] + 1);
    return c >= 0xD800 && c <= 0xDFFF ? c - 0x1000 : c;
}

/* What there is to make: ASCII, runs of 1 to 8 characters of up to so many octets, one size only.
 */
enum { ASCII, TWO, MIXED, THREES, FOURS, KINDS };

static void make_chars(uint32_t *chars, size_t len, unsigned kind) {
    static const unsigned longest[KINDS] = {1, 2, 4, 0, 0};
    for (size_t i = 0; i < len;) {
        unsigned size = longest[kind] > 0 ? 1 + pick(longest[kind]) : kind == THREES ? 3 : 4;
        for (uint32_t run = 1 + pick(8); run > 0 && i < len; run--) {
            chars[i++] = pick_char(size);
        }
    }
}

/* LEN octets of such text; cut off anywhere, and in a part of the cases damaged somewhere. */
static void make_octets(uint8_t *octets, size_t len, unsigned kind) {
    static uint32_t chars[4096];
    static uint8_t all[4 * 4096];
    make_chars(chars, len, kind);
    lport_text_encode_plainly(chars, len, all, sizeof all);
    memcpy(octets, all, len);
    if (len > 0 && pick(3) == 0) {
        for (uint32_t n = 1 + pick(2); n > 0; n--) {
            octets[pick((uint32_t)len)] = (uint8_t)pick(256);
        }
    }
}

/* A room for what LEN elements could give MOST of: enough, hardly, or anything. */
static size_t pick_room(size_t len, size_t most) {
    uint32_t all = (uint32_t)(len * most);
    switch (pick(3)) {
    case 0:
        return all + 64;
    case 1:
        return len - (len > 8 ? pick(8) : 0);
    default:
        return pick(all + 2);
    }
}

/* ---- a variant and the scalar one, side by side ---------------------------------------------- */

enum { MARGIN = 64, CANARY = 0xDB };

/* A block that ends where the vector of SIZE octets at OFFSET ends, so that the address sanitizer
 * sees an octet too many. */
static uint8_t *block(size_t offset, size_t size, const void *contents) {
    uint8_t *all = malloc(offset + size + 1);
    cr_assert_not_null(all);
    uint8_t *moved = realloc(all, offset + size > 0 ? offset + size : 1);
    cr_assert_not_null(moved);
    if (size > 0) {
        memcpy(moved + offset, contents, size);
    }
    return moved;
}

static uint8_t *canaries(size_t size) {
    uint8_t *all = malloc(size + 2 * MARGIN);
    cr_assert_not_null(all);
    memset(all, CANARY, size + 2 * MARGIN);
    return all;
}

/* What a variant can do, in one form: LEN elements of INPUT to OUTPUT, for which there is room CAP.
 */
struct task {
    const char *name;
    size_t in_size, out_size; /* octets of an element */
    int64_t (*run)(const struct lport_text_variant *v, const void *input, size_t len, void *output,
                   size_t cap);
};

static int64_t run_decode(const struct lport_text_variant *v, const void *input, size_t len,
                          void *output, size_t cap) {
    if (v == &lport_text_scalar) {
        return lport_text_decode_plainly(input, len, output, cap);
    }
    return lport_text_decode(v, input, len, output, cap);
}

static int64_t run_ascii(const struct lport_text_variant *v, const void *input, size_t len,
                         void *output, size_t cap) {
    (void)output;
    (void)cap;
    return (int64_t)v->ascii(input, len);
}

static int64_t run_count(const struct lport_text_variant *v, const void *input, size_t len,
                         void *output, size_t cap) {
    (void)output;
    (void)cap;
    return (int64_t)v->count(input, len);
}

static int64_t run_widen(const struct lport_text_variant *v, const void *input, size_t len,
                         void *output, size_t cap) {
    v->widen(input, lport_text_smaller(len, cap), output);
    return 0;
}

static int64_t run_encode(const struct lport_text_variant *v, const void *input, size_t len,
                          void *output, size_t cap) {
    if (v == &lport_text_scalar) {
        return lport_text_encode_plainly(input, len, output, cap);
    }
    return lport_text_encode(v, input, len, output, cap);
}

static int64_t run_to_latin1(const struct lport_text_variant *v, const void *input, size_t len,
                             void *output, size_t cap) {
    return (int64_t)v->narrow(input, lport_text_smaller(len, cap), output, 0xFF);
}

static int64_t run_to_ascii(const struct lport_text_variant *v, const void *input, size_t len,
                            void *output, size_t cap) {
    return (int64_t)v->narrow(input, lport_text_smaller(len, cap), output, 0x7F);
}

static const struct task decoders[] = {
    {"decode", 1, 4, run_decode},
    {"ascii", 1, 1, run_ascii},
    {"count", 1, 1, run_count},
    {"widen", 1, 4, run_widen},
};

static const struct task encoders[] = {
    {"encode", 4, 1, run_encode},
    {"narrow to Latin-1", 4, 1, run_to_latin1},
    {"narrow to ASCII", 4, 1, run_to_ascii},
};

/* True if V does for LEN elements of INPUT what the scalar one does, down to the octets it leaves
 * alone. */
static bool agrees(const struct lport_text_variant *v, const struct task *t, const void *input,
                   size_t len, size_t cap, size_t offset) {
    uint8_t *in = block(offset * t->in_size, len * t->in_size, input);
    uint8_t *a = canaries(cap * t->out_size), *b = canaries(cap * t->out_size);
    const void *from = in + offset * t->in_size;
    int64_t got = t->run(v, from, len, a + MARGIN, cap);
    int64_t wanted = t->run(&lport_text_scalar, from, len, b + MARGIN, cap);
    bool same = got == wanted && memcmp(a, b, cap * t->out_size + 2 * MARGIN) == 0;
    free(in);
    free(a);
    free(b);
    return same;
}

static void must_agree(const struct lport_text_variant *v, const struct task *t, const void *input,
                       size_t len, size_t cap, size_t offset) {
    if (!agrees(v, t, input, len, cap, offset)) {
        cr_assert_fail("%s: %s differs: length %zu, room %zu, offset %zu, LPORT_SEED=%" PRIu64,
                       v->name, t->name, len, cap, offset, seed);
    }
}

/* The lengths around the vectors, and some that take more than a chunk. */
static size_t pick_length(size_t turn) {
    return turn < 140 ? turn : pick(1800);
}

Test(text, every_variant_decodes_as_the_scalar_one_at_every_alignment) {
    static uint8_t octets[4096];
    const struct lport_text_variant *v;
    start_random();
    for (size_t offset = 0; offset < 64; offset++) {
        for (size_t turn = 0; turn < 160; turn++) {
            size_t len = pick_length(turn);
            make_octets(octets, len, pick(KINDS));
            for (size_t i = 0; (v = lport_text_variant(i)) != &lport_text_scalar; i++) {
                for (int t = 0; t < 4; t++) {
                    must_agree(v, decoders + t, octets, len, pick_room(len, 1), offset);
                }
            }
        }
    }
}

Test(text, every_variant_encodes_as_the_scalar_one_at_every_alignment) {
    static const uint32_t wrong[] = {0xD800, 0xDFFF, 0x110000, 0x80000000, 0xFFFFFFFF, 0x1000D800};
    static uint32_t chars[4096];
    const struct lport_text_variant *v;
    start_random();
    for (size_t offset = 0; offset < 64; offset++) {
        for (size_t turn = 0; turn < 160; turn++) {
            size_t len = pick_length(turn);
            make_chars(chars, len, pick(KINDS));
            if (len > 0 && pick(3) == 0) {
                chars[pick((uint32_t)len)] = wrong[pick(6)];
            }
            for (size_t i = 0; (v = lport_text_variant(i)) != &lport_text_scalar; i++) {
                for (int t = 0; t < 3; t++) {
                    must_agree(v, encoders + t, chars, len, pick_room(len, t == 0 ? 4 : 1), offset);
                }
            }
        }
    }
}

/* Latin-1 hardly occurs in the texts above. */
Test(text, narrow_stops_at_the_first_character_above_its_range) {
    const struct lport_text_variant *v;
    uint32_t chars[100];
    start_random();
    for (size_t i = 0; (v = lport_text_variant(i)) != NULL; i++) {
        for (size_t at = 0; at < 100; at++) {
            for (int t = 1; t < 3; t++) {
                uint32_t limit = t == 1 ? 0xFF : 0x7F;
                uint8_t octets[100];
                for (size_t k = 0; k < 100; k++) {
                    chars[k] = pick(limit + 1);
                }
                chars[at] = at % 2 == 0 ? limit + 1 : 0x80000000 + pick(256);
                cr_assert_eq(v->narrow(chars, 100, octets, limit), at, "%s", v->name);
                must_agree(v, encoders + t, chars, 100, 100, at % 4);
            }
        }
    }
}

Test(text, latin1_and_ascii_stop_where_they_must_or_where_there_is_no_room) {
    uint8_t octets[256], base[256], back[256];
    uint32_t chars[256];
    for (size_t i = 0; i < 256; i++) {
        octets[i] = (uint8_t)i;
    }
    cr_assert_eq(lport_text_from_latin1(octets, 256, chars, 256), counts(256, 256));
    for (size_t i = 0; i < 256; i++) {
        cr_assert_eq(chars[i], i);
    }
    cr_assert_eq(lport_text_to_latin1(chars, 256, back, 256), counts(256, 256));
    cr_assert_arr_eq(back, octets, 256);
    cr_assert_eq(lport_text_from_ascii(octets, 256, chars, 256), counts(128, 128));
    cr_assert_eq(lport_text_from_ascii8(octets, 256, base, 256), counts(128, 128));
    cr_assert_arr_eq(base, octets, 128);
    cr_assert_eq(lport_text_to_ascii(chars, 256, back, 256), counts(128, 128));
    cr_assert_eq(lport_text_from_latin1(octets, 256, chars, 77), counts(77, 77));
    cr_assert_eq(lport_text_from_ascii(octets, 77, chars, 256), counts(77, 77));
    cr_assert_eq(lport_text_from_ascii8(octets, 256, base, 1), counts(1, 1));
    cr_assert_eq(lport_text_to_latin1(chars, 256, back, 33), counts(33, 33));
    cr_assert_eq(lport_text_to_ascii(chars, 32, back, 256), counts(32, 32));
}

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
    static uint32_t chars[0x110000], back[0x110000];
    static uint8_t octets[4 * 0x110000];
    const struct lport_text_variant *v;
    size_t n = every_char(chars);
    size_t size = 0x80 + 2 * 0x780 + 3 * (0xF800 - 0x800) + 4 * 0x100000;
    for (size_t i = 0; (v = lport_text_variant(i)) != NULL; i++) {
        memset(back, 0, sizeof back);
        memset(octets, 0, sizeof octets);
        cr_assert_eq(lport_text_encode(v, chars, n, octets, sizeof octets), counts(n, size), "%s",
                     v->name);
        cr_assert_eq(lport_text_decode(v, octets, size, back, n), counts(size, n), "%s", v->name);
        cr_assert_arr_eq(back, chars, n * sizeof chars[0], "%s", v->name);
    }
}

/* Behaviour 43: what is there of a character is left where it is, and can be completed. */
Test(text, every_character_split_at_every_octet_is_neither_decoded_nor_wrong) {
    static uint32_t chars[0x110000];
    size_t n = every_char(chars);
    for (size_t i = 0; i < n; i++) {
        uint8_t octets[4];
        uint32_t back[2];
        int64_t done = lport_text_to_utf8(chars + i, 1, octets, sizeof octets);
        size_t size = (size_t)(done % LPORT_TEXT_SCALE);
        bool good = lport_text_from_utf8(octets, size, back, 2) == counts(size, 1) &&
                    back[0] == chars[i] && lport_text_utf8_problem(octets, size) == -(int64_t)size;
        for (size_t len = 0; len < size; len++) {
            good = good && lport_text_from_utf8(octets, len, back, 2) == 0 &&
                   lport_text_utf8_problem(octets, len) == 0;
        }
        if (!good) {
            cr_assert_fail("U+%04" PRIX32, chars[i]);
        }
    }
}

Test(text, what_is_no_character_is_not_encoded) {
    const struct lport_text_variant *v;
    for (size_t i = 0; (v = lport_text_variant(i)) != NULL; i++) {
        for (uint32_t c = 0xD700; c < 0xE100; c++) {
            uint32_t chars[] = {c, c, 0x110000 + c, 0xFFFF0000 + c};
            uint8_t octets[16];
            bool surrogate = c >= 0xD800 && c <= 0xDFFF;
            int64_t done = lport_text_encode(v, chars, 4, octets, sizeof octets);
            cr_assert_eq(done, surrogate ? 0 : counts(2, 6), "%s %" PRIX32, v->name, c);
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

/* ---- the rest -------------------------------------------------------------------------------- */

Test(text, find_line_is_the_first_line_feed_or_the_length) {
    uint8_t octets[200];
    for (size_t len = 0; len <= sizeof octets; len++) {
        memset(octets, '\r', sizeof octets);
        cr_assert_eq(lport_text_find_line(octets, len), (int64_t)len);
        for (size_t at = sizeof octets; at-- > 0;) {
            octets[at] = '\n';
            cr_assert_eq(lport_text_find_line(octets, len), (int64_t)(at < len ? at : len));
        }
    }
}

Test(text, last_line_is_behind_the_last_line_feed_or_0) {
    uint8_t octets[200];
    for (size_t len = 0; len <= sizeof octets; len++) {
        memset(octets, '\r', sizeof octets);
        cr_assert_eq(lport_text_last_line(octets, len), 0);
        for (size_t at = 0; at < sizeof octets; at++) {
            octets[at] = '\n';
            cr_assert_eq(lport_text_last_line(octets, len), (int64_t)(at < len ? at + 1 : len));
        }
    }
}

Test(text, utf8_count_is_the_number_of_characters_that_decoding_gives) {
    static const char pattern[] = "a\303\251\342\202\254z\360\237\230\200";
    uint8_t octets[64];
    uint32_t chars[64];
    for (size_t at = 0; at < sizeof octets; at++) {
        octets[at] = (uint8_t)pattern[at % (sizeof pattern - 1)];
    }
    for (size_t start = 0; start < sizeof pattern - 1; start++) {
        for (size_t len = 0; start + len <= sizeof octets; len++) {
            int64_t decoded = lport_text_from_utf8(octets + start, len, chars, 64);
            if (decoded / LPORT_TEXT_SCALE == (int64_t)len) {
                cr_assert_eq(lport_text_utf8_count(octets + start, len), decoded % LPORT_TEXT_SCALE,
                             "%zu from %zu", len, start);
            }
        }
    }
}

/* Longer than what sums in single octets could hold. */
Test(text, every_variant_counts_the_characters_of_long_text) {
    static const char *const patterns[] = {"a", "a\303\251", "\342\202\254",
                                           "aaaa\360\237\230\200"};
    static const size_t characters[] = {1, 2, 1, 5};
    enum { LONG = 30000 };
    static uint8_t octets[LONG];
    const struct lport_text_variant *v;
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
        size_t size = strlen(patterns[p]);
        for (size_t at = 0; at < LONG; at++) {
            octets[at] = (uint8_t)patterns[p][at % size];
        }
        for (size_t len = 0; len <= LONG; len = 2 * len + size) {
            for (size_t i = 0; (v = lport_text_variant(i)) != NULL; i++) {
                cr_assert_eq(v->count(octets, len), len / size * characters[p], "%s, %zu octets",
                             v->name, len);
            }
        }
        cr_assert_eq(lport_text_utf8_count(octets, LONG / size * size),
                     (int64_t)(LONG / size * characters[p]));
    }
}

Test(text, a_measured_line_has_the_octets_before_its_end_and_their_characters) {
    uint8_t octets[300];
    for (size_t at = 0; at < sizeof octets; at++) {
        octets[at] = (uint8_t)(at % 3 == 0 ? 0xC3 : at % 3 == 1 ? 0xA9 : 'a');
    }
    for (size_t len = 0; len <= sizeof octets; len++) {
        int64_t none = lport_text_measure_line(octets, len);
        cr_assert_eq(lport_status_kind(none), LPORT_WOULD_BLOCK, "%zu", len);
    }
    for (size_t at = 0; at < sizeof octets; at++) {
        uint8_t before = octets[at];
        octets[at] = '\n';
        cr_assert_eq(lport_text_measure_line(octets, sizeof octets),
                     counts(at, (size_t)lport_text_utf8_count(octets, at)), "%zu", at);
        octets[at] = before;
    }
}

Test(text, empty_vectors_may_be_null) {
    uint8_t octets[] = "abc";
    uint32_t chars[] = {'a', 'b', 'c'};
    cr_assert_eq(lport_text_find_line(NULL, 0), 0);
    cr_assert_eq(lport_text_last_line(NULL, 0), 0);
    cr_assert_eq(lport_text_utf8_problem(NULL, 0), 0);
    cr_assert_eq(lport_text_utf8_count(NULL, 0), 0);
    cr_assert_eq(lport_text_from_utf8(NULL, 0, chars, 3), 0);
    cr_assert_eq(lport_text_from_utf8(octets, 3, NULL, 0), 0);
    cr_assert_eq(lport_text_from_latin1(NULL, 0, NULL, 0), 0);
    cr_assert_eq(lport_text_from_ascii(octets, 3, NULL, 0), 0);
    cr_assert_eq(lport_text_from_ascii8(NULL, 0, octets, 3), 0);
    cr_assert_eq(lport_text_to_utf8(chars, 3, NULL, 0), 0);
    cr_assert_eq(lport_text_to_latin1(NULL, 0, octets, 3), 0);
    cr_assert_eq(lport_text_to_ascii(NULL, 0, NULL, 0), 0);
}

/* SIZE octets of address space over and over the same few pages. */
static uint8_t *endless(int file, size_t page, size_t size) {
    uint8_t *all = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert_neq(all, MAP_FAILED);
    for (size_t at = 0; at < size; at += page) {
        cr_assert_neq(mmap(all + at, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0),
                      MAP_FAILED);
    }
    return all;
}

/* Behaviour 41: beyond the range of a C int, and of what a result can count. */
Test(text, counts_stay_below_two_to_the_31_in_longer_vectors) {
    enum { PAGE = 1 << 22 };
    size_t size = (size_t)LPORT_TEXT_SCALE + 2 * PAGE;
    int file = memfd_create("text_test", MFD_CLOEXEC);
    cr_assert_geq(file, 0);
    cr_assert_eq(ftruncate(file, PAGE), 0);
    uint8_t *octets = endless(file, PAGE, size), *chars = endless(file, PAGE, size);
    memset(octets, 'x', PAGE);
    cr_assert_eq(lport_text_from_ascii8(octets, size, chars, size),
                 counts(LPORT_TEXT_MAX, LPORT_TEXT_MAX));
    cr_assert_eq(lport_text_find_line(octets, size), (int64_t)size);
    cr_assert_neq(mmap(octets + size - PAGE, PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                  MAP_FAILED);
    octets[size - 1] = '\n';
    cr_assert_eq(lport_text_find_line(octets, size), (int64_t)size - 1);
    cr_assert_eq(lport_status_kind(lport_text_measure_line(octets, size)), LPORT_WOULD_BLOCK);
    cr_assert_eq(munmap(octets, size), 0);
    cr_assert_eq(munmap(chars, size), 0);
    cr_assert_eq(close(file), 0);
}

#ifdef LPORT_TEXT_X86
/* True if the processor can tell whether the upper halves of its 256-bit registers are in use. */
static bool tells_use(void) {
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __get_cpuid_count(0x0D, 1, &a, &b, &c, &d) &&
           (a & 4) != 0;
}

/* Looks (XGETBV, XINUSE) whether they are, and gives them back. */
static bool upper_halves_in_use(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
    __asm__ volatile("vzeroupper" ::: "memory");
    return (low & 4) != 0;
}

/* What a caller without AVX does next would take up to three times as long. */
Test(text, upper_halves_of_registers_are_given_back) {
    const struct lport_text_variant *v = lport_text_variant(0);
    uint32_t chars[300], back[300];
    uint8_t octets[1200];
    if (!tells_use()) {
        return;
    }
    start_random();
    for (size_t len = 1; len < 300; len++) {
        make_chars(chars, len, pick(KINDS));
        upper_halves_in_use();
        int64_t done = lport_text_encode(v, chars, len, octets, sizeof octets);
        bool dirty = upper_halves_in_use();
        lport_text_decode(v, octets, (size_t)(done % LPORT_TEXT_SCALE), back, 300);
        dirty = upper_halves_in_use() || dirty;
        v->ascii(octets, len);
        dirty = upper_halves_in_use() || dirty;
        v->widen(octets, len, back);
        dirty = upper_halves_in_use() || dirty;
        v->narrow(chars, len, octets, 0xFF);
        dirty = upper_halves_in_use() || dirty;
        cr_assert_not(dirty, "%s, length %zu, LPORT_SEED=%" PRIu64, v->name, len, seed);
    }
}
#endif

/* Bit AT of LEADS; behind the seventh octet nothing is known, and nothing needs to be. */
static bool begins(size_t leads, size_t at) {
    return at == 7 || (leads >> at & 1);
}

Test(text, gather_and_order_are_what_their_comments_say) {
    for (size_t leads = 1; leads < 256; leads++) {
        size_t lane = 0, place = 0;
        for (size_t at = 0; at < 8; at++) {
            if ((leads >> at & 1) == 0) {
                continue;
            }
            cr_assert_eq(lport_text_order[leads][place++], at);
            if (leads >= 128 || at >= 4) {
                continue;
            }
            size_t size = 1;
            while (size < 4 && !begins(leads, at + size)) {
                size++;
            }
            for (size_t i = 0; i < 4; i++) {
                cr_assert_eq(lport_text_gather[leads][4 * lane + i],
                             i < 4 - size ? 0x80 : at + i - (4 - size));
            }
            lane++;
        }
        for (; place < 8; place++) {
            cr_assert_eq(lport_text_order[leads][place], lport_text_order[leads][0]);
        }
        for (; leads < 128 && leads % 16 != 0 && lane < 4; lane++) {
            cr_assert_arr_eq(lport_text_gather[leads] + 4 * lane, lport_text_gather[leads], 4);
        }
    }
}

Test(text, pack_is_what_its_comment_says) {
    for (size_t sizes = 0; sizes < 256; sizes++) {
        size_t to = 0;
        for (size_t lane = 0; lane < 4; lane++) {
            size_t size = 1 + (sizes >> lane & 1) + 2 * (sizes >> (lane + 4) & 1);
            for (size_t i = 4 - size; i < 4; i++) {
                cr_assert_eq(lport_text_pack[sizes][to++], 4 * lane + i);
            }
        }
        for (; to < 16; to++) {
            cr_assert_eq(lport_text_pack[sizes][to], 0x80);
        }
    }
}
