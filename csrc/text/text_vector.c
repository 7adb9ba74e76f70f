/* text_vector - drives the passes of a variant, where it has passes, over a whole vector (layer 1).
 *
 * Stands on text_variants.h and, at what is no whole good chunk, on text_scalar.c. Invariant: `in`
 * stands at the beginning of a character, and nothing behind chars + out (octets + out) has been
 * written. */
#include "text_vector.h"

#include <stdbool.h>

enum {                  /* ways in which two octets are wrong together: Unicode, table 3-7 */
       SHORT = 1,       /* a lead without its continuation */
       STRAY = 2,       /* a continuation without a lead */
       OVERLONG_2 = 4,  /* C0, C1 */
       OVERLONG_3 = 8,  /* E0 80 to E0 9F */
       OVERLONG_4 = 16, /* F0 80 to F0 8F, and F5 80 to FF 8F, wrong as well */
       SURROGATE = 32,  /* ED A0 to ED BF */
       LARGE = 64,      /* F4 90 to FF BF without those */
       CONTINUES = LPORT_CONTINUES,
       ANY = SHORT | STRAY | CONTINUES, /* where the low half does not matter */
       ABOVE = ANY | LARGE | OVERLONG_4,
       CONTINUED = STRAY | OVERLONG_2 | CONTINUES,
};

const uint8_t lport_text_first_high[16] = {
    STRAY,
    STRAY,
    STRAY,
    STRAY,
    STRAY,
    STRAY,
    STRAY,
    STRAY,
    CONTINUES,
    CONTINUES,
    CONTINUES,
    CONTINUES,
    SHORT | OVERLONG_2,
    SHORT,
    SHORT | OVERLONG_3 | SURROGATE,
    SHORT | OVERLONG_4 | LARGE,
};

const uint8_t lport_text_first_low[16] = {
    ANY | OVERLONG_2 | OVERLONG_3 | OVERLONG_4,
    ANY | OVERLONG_2,
    ANY,
    ANY,
    ANY | LARGE,
    ABOVE,
    ABOVE,
    ABOVE,
    ABOVE,
    ABOVE,
    ABOVE,
    ABOVE,
    ABOVE,
    ABOVE | SURROGATE,
    ABOVE,
    ABOVE,
};

const uint8_t lport_text_second_high[16] = {
    SHORT,
    SHORT,
    SHORT,
    SHORT,
    SHORT,
    SHORT,
    SHORT,
    SHORT,
    CONTINUED | OVERLONG_3 | OVERLONG_4,
    CONTINUED | OVERLONG_3 | LARGE,
    CONTINUED | SURROGATE | LARGE,
    CONTINUED | SURROGATE | LARGE,
    SHORT,
    SHORT,
    SHORT,
    SHORT,
};

const uint8_t lport_text_payload[16] = {
    0x7F, 0x7F, 0x7F, 0x7F, 0x7F, 0x7F, 0x7F, 0x7F, 0x3F, 0x3F, 0x3F, 0x3F, 0x1F, 0x1F, 0x0F, 0x07,
};

const uint8_t lport_text_excess[16] = {18, 18, 18, 18, 18, 18, 18, 18, 0, 0, 0, 0, 12, 12, 6, 0};

/* ASCII at the beginning is looked for in vectors of at least this length: less is done by the
 * chunk at the same price. */
#define RUN 16

/* How many octets at the end begin a character that they do not complete. */
static size_t cut_off(const uint8_t *octets, size_t len) {
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        uint8_t octet = octets[len - back];
        size_t size = octet < 0xC0 ? 1 : octet < 0xE0 ? 2 : octet < 0xF0 ? 3 : 4;
        if (size > back) {
            return back;
        }
    }
    return 0;
}

/* The length of what is left when what is cut off at the end is taken away. 0 if something is cut
 * off there in its turn: that is wrong, but `sift` would see it only by what follows. */
static size_t whole(const uint8_t *octets, size_t len) {
    len -= cut_off(octets, len);
    return cut_off(octets, len) > 0 ? 0 : len;
}

/* Where character COUNT of the chunk begins. */
static size_t place(const struct lport_text_chunk *chunk, size_t count) {
    size_t at = 0;
    for (;; at++) {
        if (chunk->leads[at / 8] >> at % 8 & 1) {
            if (count == 0) {
                return at;
            }
            count--;
        }
    }
}

/* ASCII at the beginning: worth a look of its own where it is likely to be long enough. */
static bool begins_ascii(uint32_t first, uint32_t later) {
    return (first | later) < 0x80;
}

/* A function of its own: else the frame with its chunk is made for every variant. */
#define APART __attribute__((noinline)) static

APART int64_t decode_by_chunks(const struct lport_text_variant *variant, const uint8_t *octets,
                               size_t len, uint32_t *chars, size_t cap) {
    struct lport_text_chunk chunk;
    size_t in = 0, out = 0;
    while (in < len && out < cap) {
        size_t most = lport_text_smaller(len - in, cap - out);
        if (most >= RUN && begins_ascii(octets[in], octets[in + RUN - 1])) {
            size_t run = variant->ascii(octets + in, most);
            variant->widen(octets + in, run, chars + out);
            in += run;
            out += run;
            if (run == most) {
                continue;
            }
        }
        if (variant->sift == NULL) {
            break;
        }
        most = lport_text_smaller(len - in, lport_text_smaller(LPORT_CHUNK, 4 * (cap - out)));
        size_t some = whole(octets + in, most);
        size_t count = some == 0 ? 0 : variant->sift(octets + in, some, &chunk);
        if (count == 0) {
            break;
        }
        size_t fits = lport_text_smaller(count, cap - out);
        variant->gather(&chunk, chars + out, fits);
        in += fits == count ? some : place(&chunk, fits);
        out += fits;
    }
    if (in == len || out == cap) {
        return lport_text_result(in, out);
    }
    return lport_text_result(in, out) +
           lport_text_decode_plainly(octets + in, len - in, chars + out, cap - out);
}

APART int64_t encode_by_chunks(const struct lport_text_variant *variant, const uint32_t *chars,
                               size_t len, uint8_t *octets, size_t cap) {
    size_t in = 0, out = 0;
    while (in < len && out < cap) {
        size_t most = lport_text_smaller(len - in, cap - out);
        if (most >= RUN && begins_ascii(chars[in], chars[in + RUN - 1])) {
            size_t run = variant->narrow(chars + in, most, octets + out, 0x7F);
            in += run;
            out += run;
            if (run == most) {
                continue;
            }
        }
        if (variant->usable == NULL) {
            break;
        }
        size_t some = variant->usable(chars + in, len - in);
        if (some == 0) {
            return lport_text_result(in, out);
        }
        int64_t done = variant->pack(chars + in, some, octets + out, cap - out);
        in += (size_t)(done / LPORT_TEXT_SCALE);
        out += (size_t)(done % LPORT_TEXT_SCALE);
        if ((size_t)(done / LPORT_TEXT_SCALE) < some) {
            return lport_text_result(in, out);
        }
    }
    if (in == len || out == cap) {
        return lport_text_result(in, out);
    }
    return lport_text_result(in, out) +
           lport_text_encode_plainly(chars + in, len - in, octets + out, cap - out);
}

int64_t lport_text_decode(const struct lport_text_variant *variant, const uint8_t *octets,
                          size_t len, uint32_t *chars, size_t cap) {
    if (variant->decode != NULL) {
        return variant->decode(octets, len, chars, cap);
    }
    return decode_by_chunks(variant, octets, len, chars, cap);
}

int64_t lport_text_encode(const struct lport_text_variant *variant, const uint32_t *chars,
                          size_t len, uint8_t *octets, size_t cap) {
    if (variant->encode != NULL) {
        return variant->encode(chars, len, octets, cap);
    }
    return encode_by_chunks(variant, chars, len, octets, cap);
}
