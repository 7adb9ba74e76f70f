/* text: every variant of the processor is held to the scalar one, and the tables of shuffles to
 * what is said of them. */
#include "text/text_variants.h"
#include "text/text_vector.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#ifdef LPORT_TEXT_X86
#include <cpuid.h>
#endif

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

/* ---- the tables ------------------------------------------------------------------------------ */

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
