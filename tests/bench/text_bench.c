/* text_bench - what the codec costs for a line of 80 characters, per variant.
 *
 *   cc -O2 -D_GNU_SOURCE -Icsrc tests/bench/text_bench.c csrc/text*.c -o text_bench && ./text_bench
 *
 * `ascii` lines are ASCII; `mixed` lines are runs of 1 to 8 characters of 1 to 4 octets each. 1,000
 * lines of each kind are gone through again and again, so that nothing can be learned by heart; a
 * figure is the best of several rounds, in nanoseconds per line. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text_variants.h"

enum { LINES = 1000, CHARS = 80, ROUNDS = 15, PASSES = 20 };

struct text {
    uint32_t chars[LINES][CHARS];
    uint8_t octets[LINES][4 * CHARS];
    size_t sizes[LINES];
};

static struct text ascii, mixed, latin;
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
            for (uint32_t run = 1 + pick(8); run > 0 && i < CHARS; run--)
                text->chars[line][i++] = pick_char(size);
        }
        int64_t done = lport_text_scalar.to_utf8(text->chars[line], CHARS, text->octets[line],
                                                 sizeof text->octets[line]);
        text->sizes[line] = (size_t)(done % LPORT_TEXT_SCALE);
    }
}

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

typedef int64_t decoder(const uint8_t *octets, size_t len, uint32_t *chars, size_t cap);
typedef int64_t encoder(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap);

static double decoding(decoder *decode, const struct text *text) {
    static uint32_t chars[8 * CHARS];
    double best = 1e18;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now_ns();
        for (int pass = 0; pass < PASSES; pass++)
            for (size_t i = 0; i < LINES; i++)
                sum += decode(text->octets[i], text->sizes[i], chars, 8 * CHARS);
        double taken = (now_ns() - start) / (PASSES * LINES);
        best = taken < best ? taken : best;
    }
    return best;
}

static double encoding(encoder *encode, const struct text *text) {
    static uint8_t octets[8 * CHARS];
    double best = 1e18;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now_ns();
        for (int pass = 0; pass < PASSES; pass++)
            for (size_t i = 0; i < LINES; i++)
                sum += encode(text->chars[i], CHARS, octets, 8 * CHARS);
        double taken = (now_ns() - start) / (PASSES * LINES);
        best = taken < best ? taken : best;
    }
    return best;
}

static int64_t find(const uint8_t *octets, size_t len, uint32_t *chars, size_t cap) {
    (void)chars;
    (void)cap;
    return lport_text_find_line(octets, len);
}

static void report(const char *name, decoder *from_utf8, encoder *to_utf8, decoder *from_latin1,
                   encoder *to_latin1) {
    printf("%-8s %8.1f %8.1f %8.1f %8.1f %8.1f %8.1f\n", name, decoding(from_utf8, &ascii),
           decoding(from_utf8, &mixed), encoding(to_utf8, &ascii), encoding(to_utf8, &mixed),
           decoding(from_latin1, &ascii), encoding(to_latin1, &ascii));
}

int main(void) {
    const struct lport_text_variant *v;
    make(&ascii, 1);
    make(&mixed, 4);
    make(&latin, 2);
    printf("ns per line of 80 characters\n%-8s %8s %8s %8s %8s %8s %8s\n", "", "dec asc", "dec mix",
           "enc asc", "enc mix", "dec l1", "enc l1");
    for (size_t i = 0; (v = lport_text_variant(i)) != NULL; i++)
        report(v->name, v->from_utf8, v->to_utf8, v->from_latin1, v->to_latin1);
    report("exported", lport_text_from_utf8, lport_text_to_utf8, lport_text_from_latin1,
           lport_text_to_latin1);
    printf("find_line %.1f\n", decoding(find, &ascii));
    return sum == 42;
}
