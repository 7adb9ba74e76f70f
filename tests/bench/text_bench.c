/* text_bench - what the codec costs for a line of 80 characters, per variant.
 *
 *   make build/bench/text_bench && build/bench/text_bench
 *
 * `ascii` lines are ASCII; `mixed` lines are runs of 1 to 8 characters of 1 to 4 octets each. 1,000
 * lines of each kind are gone through again and again, so that nothing can be learned by heart; a
 * figure is the best of several rounds, in nanoseconds per line. */
#include <stdio.h>
#include <time.h>

#include "text/text_variants.h"

enum { LINES = 1000, CHARS = 80, ROUNDS = 15, PASSES = 20 };

struct text {
    uint32_t chars[LINES][CHARS];
    uint8_t octets[LINES][4 * CHARS];
    size_t sizes[LINES];
};

static struct text ascii, mixed;
static uint64_t state = 20261123;
static int64_t sum; /* keeps the calls from being optimised away */

static uint32_t pick(uint32_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % below);
}

static uint32_t pick_char(unsigned size) {
    switch (size) {
    case 1:
        return ' ' + pick(95);
    case 2:
        return 0x80 + pick(0x780);
    case 3:
        return 0x800 + pick(0xD000);
    default:
        return 0x10000 + pick(0x100000);
    }
}

static void make(struct text *text, unsigned longest) {
    for (size_t line = 0; line < LINES; line++) {
        for (size_t i = 0; i < CHARS;) {
            unsigned size = 1 + pick(longest);
            for (uint32_t run = 1 + pick(8); run > 0 && i < CHARS; run--) {
                text->chars[line][i++] = pick_char(size);
            }
        }
        int64_t done = lport_text_encode_plainly(text->chars[line], CHARS, text->octets[line],
                                                 sizeof text->octets[line]);
        text->sizes[line] = (size_t)(done % LPORT_TEXT_SCALE);
    }
}

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* What is measured; the variant it is measured with stands beside it. */
typedef int64_t task(const struct text *text, size_t line);

static const struct lport_text_variant *variant;
static uint32_t chars[4 * CHARS];
static uint8_t octets[4 * CHARS];

static int64_t decode(const struct text *text, size_t line) {
    return lport_text_decode(variant, text->octets[line], text->sizes[line], chars, 4 * CHARS);
}

static int64_t encode(const struct text *text, size_t line) {
    return lport_text_encode(variant, text->chars[line], CHARS, octets, 4 * CHARS);
}

static int64_t widen(const struct text *text, size_t line) {
    variant->widen(text->octets[line], CHARS, chars);
    return 0;
}

static int64_t narrow(const struct text *text, size_t line) {
    return (int64_t)variant->narrow(text->chars[line], CHARS, octets, 0xFF);
}

static int64_t decode_plainly(const struct text *text, size_t line) {
    return lport_text_decode_plainly(text->octets[line], text->sizes[line], chars, 4 * CHARS);
}

static int64_t encode_plainly(const struct text *text, size_t line) {
    return lport_text_encode_plainly(text->chars[line], CHARS, octets, 4 * CHARS);
}

static int64_t from_utf8(const struct text *text, size_t line) {
    return lport_text_from_utf8(text->octets[line], text->sizes[line], chars, 4 * CHARS);
}

static int64_t to_utf8(const struct text *text, size_t line) {
    return lport_text_to_utf8(text->chars[line], CHARS, octets, 4 * CHARS);
}

static int64_t find_line(const struct text *text, size_t line) {
    return lport_text_find_line(text->octets[line], CHARS);
}

static void measure(const char *name, task *work, const struct text *text) {
    double best = 1e18;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now_ns();
        for (int pass = 0; pass < PASSES; pass++) {
            for (size_t i = 0; i < LINES; i++) {
                sum += work(text, i);
            }
        }
        double taken = (now_ns() - start) / (PASSES * LINES);
        best = taken < best ? taken : best;
    }
    printf("  %s %5.1f", name, best);
}

int main(void) {
    make(&ascii, 1);
    make(&mixed, 4);
    for (size_t i = 0; (variant = lport_text_variant(i)) != NULL; i++) {
        printf("%-8s", variant->name);
        measure("decode ascii", decode, &ascii);
        measure("mixed", decode, &mixed);
        measure("encode ascii", encode, &ascii);
        measure("mixed", encode, &mixed);
        measure("widen", widen, &ascii);
        measure("narrow", narrow, &ascii);
        printf("\n");
    }
    printf("%-8s", "plainly");
    measure("decode ascii", decode_plainly, &ascii);
    measure("mixed", decode_plainly, &mixed);
    measure("encode ascii", encode_plainly, &ascii);
    measure("mixed", encode_plainly, &mixed);
    printf("\n%-8s", "exported");
    measure("decode ascii", from_utf8, &ascii);
    measure("mixed", from_utf8, &mixed);
    measure("encode ascii", to_utf8, &ascii);
    measure("mixed", to_utf8, &mixed);
    measure("find_line", find_line, &ascii);
    printf("\n");
    return sum == 42;
}
