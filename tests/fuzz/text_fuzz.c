/* text_fuzz - a libFuzzer target, see `make fuzz': every variant of the codec against the plain
 * one, on any octets.
 *
 * The first two octets choose the room, the rest is the text: decoded as UTF-8, and encoded as the
 * code points that each four octets of it spell. */
#include <stdlib.h>
#include <string.h>

#include "text/text_variants.h"

enum { CANARY = 0xDB };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the plain one gives, what the variant gives, and beyond: COUNT elements of SIZE octets. */
static void must_be_equal(int64_t a, int64_t b, const void *wanted, const void *got,
                          size_t octets) {
    if (a != b || memcmp(wanted, got, octets) != 0) {
        abort();
    }
}

/* Elements that end where their block ends; the caller frees it. */
static void *filled(size_t octets) {
    void *all = malloc(octets);
    if (all == NULL) {
        exit(1);
    }
    memset(all, CANARY, octets);
    return all;
}

static void decode(const uint8_t *octets, size_t len, size_t cap) {
    const struct lport_text_variant *v;
    uint32_t *wanted = filled(cap * sizeof *wanted), *got = filled(cap * sizeof *got);
    int64_t result = lport_text_decode_plainly(octets, len, wanted, cap);
    for (size_t i = 0; (v = lport_text_variant(i)) != NULL; i++) {
        memset(got, CANARY, cap * sizeof *got);
        int64_t done = lport_text_decode(v, octets, len, got, cap);
        must_be_equal(result, done, wanted, got, cap * sizeof *got);
    }
    size_t in = (size_t)(result / LPORT_TEXT_SCALE), out = (size_t)(result % LPORT_TEXT_SCALE);
    if (out < cap && (lport_text_problem(octets + in, len - in) < 0)) {
        abort(); /* it stopped before a character */
    }
    free(wanted);
    free(got);
}

static void encode(const uint8_t *octets, size_t len, size_t cap) {
    const struct lport_text_variant *v;
    size_t count = len / 4;
    uint32_t *chars = filled((count + 1) * sizeof *chars);
    uint8_t *wanted = filled(cap), *got = filled(cap);
    memcpy(chars, octets, count * 4);
    for (size_t i = 0; i < count; i++) { /* most numbers are none, so make most of them some */
        if (chars[i] % 64 != 0) {
            chars[i] = (chars[i] >> 8) >> (chars[i] % 24);
        }
    }
    int64_t result = lport_text_encode_plainly(chars, count, wanted, cap);
    for (size_t i = 0; (v = lport_text_variant(i)) != NULL; i++) {
        memset(got, CANARY, cap);
        must_be_equal(result, lport_text_encode(v, chars, count, got, cap), wanted, got, cap);
    }
    free(chars);
    free(wanted);
    free(got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3) {
        return 0;
    }
    size_t cap = 1 + (((size_t)data[0] << 8) | data[1]) % 1300;
    decode(data + 2, size - 2, cap);
    encode(data + 2, size - 2, cap);
    return 0;
}
