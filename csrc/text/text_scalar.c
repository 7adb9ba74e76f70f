/* text_scalar - the codec in plain C: the definition that the other variants are held to, and their
 * way out at errors and odd ends (layer 1).
 *
 * Stands on nothing. Invariant: one element is looked at, found good, written; then the next. */
#include <stdbool.h>
#include <string.h>

#include "text_variants.h"

static bool continues(uint8_t octet) {
    return (octet & 0xC0) == 0x80;
}

/* The second octet is where overlong forms, surrogates and numbers above U+10FFFF show: Unicode,
 * table 3-7. */
static bool second_fits(uint8_t first, uint8_t second) {
    switch (first) {
    case 0xE0:
        return second >= 0xA0 && second <= 0xBF;
    case 0xED:
        return second >= 0x80 && second <= 0x9F;
    case 0xF0:
        return second >= 0x90 && second <= 0xBF;
    case 0xF4:
        return second >= 0x80 && second <= 0x8F;
    default:
        return continues(second);
    }
}

int64_t lport_text_problem(const uint8_t *octets, size_t len) {
    if (len == 0) {
        return 0;
    }
    uint8_t first = octets[0];
    if (first < 0x80) {
        return -1;
    }
    if (first < 0xC2 || first > 0xF4) {
        return 1;
    }
    if (len == 1) {
        return 0;
    }
    if (!second_fits(first, octets[1])) {
        return 1;
    }
    size_t whole = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    for (size_t i = 2; i < whole; i++) {
        if (i == len) {
            return 0;
        }
        if (!continues(octets[i])) {
            return (int64_t)i;
        }
    }
    return -(int64_t)whole;
}

/* The code point of a whole character of WHOLE octets. */
static uint32_t assemble(const uint8_t *octets, size_t whole) {
    static const uint8_t payload[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t code = octets[0] & payload[whole];
    for (size_t i = 1; i < whole; i++) {
        code = code << 6 | (octets[i] & 0x3F);
    }
    return code;
}

int64_t lport_text_decode_plainly(const uint8_t *octets, size_t len, uint32_t *chars, size_t cap) {
    size_t in = 0, out = 0;
    while (out < cap) {
        int64_t problem = lport_text_problem(octets + in, len - in);
        if (problem >= 0) {
            break;
        }
        chars[out++] = assemble(octets + in, (size_t)-problem);
        in += (size_t)-problem;
    }
    return lport_text_result(in, out);
}

/* How many octets CODE takes; 0 where it is no character. */
static size_t utf8_size(uint32_t code) {
    if (code < 0x80) {
        return 1;
    }
    if (code < 0x800) {
        return 2;
    }
    if (code < 0x10000) {
        return code >= 0xD800 && code <= 0xDFFF ? 0 : 3;
    }
    return code <= 0x10FFFF ? 4 : 0;
}

static void spell(uint32_t code, uint8_t *octets, size_t size) {
    static const uint8_t mark[] = {0, 0x00, 0xC0, 0xE0, 0xF0};
    for (size_t i = size - 1; i > 0; i--) {
        octets[i] = (uint8_t)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    octets[0] = (uint8_t)(mark[size] | code);
}

int64_t lport_text_encode_plainly(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap) {
    size_t in = 0, out = 0;
    for (; in < len; in++) {
        size_t size = utf8_size(chars[in]);
        if (size == 0 || size > cap - out) {
            break;
        }
        spell(chars[in], octets + out, size);
        out += size;
    }
    return lport_text_result(in, out);
}

/* Of each octet the bit that says that it continues a character, added up by a multiplication. */
size_t lport_text_count(const uint8_t *octets, size_t len) {
    const uint64_t ones = UINT64_C(0x0101010101010101);
    size_t continuing = 0, at = 0;
    for (; at + 8 <= len; at += 8) {
        uint64_t eight;
        memcpy(&eight, octets + at, 8);
        continuing += (size_t)(((eight >> 7 & ~(eight >> 6) & ones) * ones) >> 56);
    }
    for (; at < len; at++) {
        continuing += (size_t)continues(octets[at]);
    }
    return len - continuing;
}

static size_t ascii(const uint8_t *octets, size_t len) {
    size_t i = 0;
    while (i < len && octets[i] < 0x80) {
        i++;
    }
    return i;
}

static void widen(const uint8_t *octets, size_t len, uint32_t *chars) {
    for (size_t i = 0; i < len; i++) {
        chars[i] = octets[i];
    }
}

static size_t narrow(const uint32_t *chars, size_t len, uint8_t *octets, uint32_t limit) {
    size_t i = 0;
    for (; i < len && chars[i] <= limit; i++) {
        octets[i] = (uint8_t)chars[i];
    }
    return i;
}

const struct lport_text_variant lport_text_scalar = {
    .name = "scalar",
    .ascii = ascii,
    .widen = widen,
    .narrow = narrow,
    .count = lport_text_count,
};

#if !defined(LPORT_TEXT_X86) && !defined(LPORT_TEXT_NEON)
const struct lport_text_variant *lport_text_variant(size_t index) {
    return index == 0 ? &lport_text_scalar : NULL;
}
#endif
