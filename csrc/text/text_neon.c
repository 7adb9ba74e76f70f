/* text_neon - the codec for 64-bit ARM (layer 1).
 *
 * Stands on text_vector.h, and on text_scalar.c for less than a vector. The methods and the
 * invariant are those of text_x86.c at its SSE4.1. */
#include "text_variants.h"

#ifdef LPORT_TEXT_NEON

#include <arm_neon.h>
#include <string.h>

#include "text_vector.h"

/* ---- ASCII and Latin-1 ----------------------------------------------------------------------- */

static size_t ascii(const uint8_t *octets, size_t len) {
    size_t i = 0;
    while (i + 16 <= len && vmaxvq_u8(vld1q_u8(octets + i)) < 0x80) {
        i += 16;
    }
    while (i < len && octets[i] < 0x80) {
        i++;
    }
    return i;
}

static void widen16(const uint8_t *octets, uint32_t *chars) {
    uint8x16_t v = vld1q_u8(octets);
    uint16x8_t low = vmovl_u8(vget_low_u8(v)), high = vmovl_high_u8(v);
    vst1q_u32(chars, vmovl_u16(vget_low_u16(low)));
    vst1q_u32(chars + 4, vmovl_high_u16(low));
    vst1q_u32(chars + 8, vmovl_u16(vget_low_u16(high)));
    vst1q_u32(chars + 12, vmovl_high_u16(high));
}

static void widen(const uint8_t *octets, size_t len, uint32_t *chars) {
    if (len < 16) {
        for (size_t i = 0; i < len; i++) {
            chars[i] = octets[i];
        }
        return;
    }
    for (size_t i = 0; i + 16 <= len; i += 16) {
        widen16(octets + i, chars + i);
    }
    if (len % 16 != 0) { /* overlaps the step before */
        widen16(octets + len - 16, chars + len - 16);
    }
}

static size_t narrow(const uint32_t *chars, size_t len, uint8_t *octets, uint32_t limit) {
    size_t i = 0;
    for (; i + 16 <= len; i += 16) {
        uint32x4_t a = vld1q_u32(chars + i), b = vld1q_u32(chars + i + 4);
        uint32x4_t c = vld1q_u32(chars + i + 8), d = vld1q_u32(chars + i + 12);
        uint32x4_t all = vorrq_u32(vorrq_u32(a, b), vorrq_u32(c, d));
        if ((vmaxvq_u32(all) & ~limit) != 0) {
            break;
        }
        uint16x8_t low = vmovn_high_u32(vmovn_u32(a), b), high = vmovn_high_u32(vmovn_u32(c), d);
        vst1q_u8(octets + i, vmovn_high_u16(vmovn_u16(low), high));
    }
    for (; i < len && chars[i] <= limit; i++) {
        octets[i] = (uint8_t)chars[i];
    }
    return i;
}

/* ---- decoding UTF-8 -------------------------------------------------------------------------- */

/* The bits that are wrong in V, which BEFORE precedes; text_vector.h tells how. */
static inline uint8x16_t faults16(uint8x16_t v, uint8x16_t before) {
    uint8x16_t one = vextq_u8(before, v, 15);
    uint8x16_t a = vqtbl1q_u8(vld1q_u8(lport_text_first_high), vshrq_n_u8(one, 4));
    uint8x16_t b = vqtbl1q_u8(vld1q_u8(lport_text_first_low), vandq_u8(one, vdupq_n_u8(0x0F)));
    uint8x16_t c = vqtbl1q_u8(vld1q_u8(lport_text_second_high), vshrq_n_u8(v, 4));
    uint8x16_t third = vcgeq_u8(vextq_u8(before, v, 14), vdupq_n_u8(0xE0));
    uint8x16_t fourth = vcgeq_u8(vextq_u8(before, v, 13), vdupq_n_u8(0xF0));
    uint8x16_t due = vandq_u8(vorrq_u8(third, fourth), vdupq_n_u8(LPORT_CONTINUES));
    return veorq_u8(vandq_u8(vandq_u8(a, b), c), due);
}

/* Takes V apart into octets from AT of CHUNK; how many characters begin in it. */
static inline size_t split16(uint8x16_t v, struct lport_text_chunk *chunk, size_t at) {
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t payload = vqtbl1q_u8(vld1q_u8(lport_text_payload), vshrq_n_u8(v, 4));
    vst1q_u8(chunk->payload + at, vandq_u8(v, payload));
    uint8x16_t begins = vcgtq_s8(vreinterpretq_s8_u8(v), vdupq_n_s8((int8_t)-65)); /* 0xBF */
    begins = vandq_u8(begins, vld1q_u8(bits));
    chunk->leads[at / 8] = vaddv_u8(vget_low_u8(begins));
    chunk->leads[at / 8 + 1] = vaddv_u8(vget_high_u8(begins));
    return vaddvq_u8(vcntq_u8(begins));
}

static size_t sift(const uint8_t *octets, size_t len, struct lport_text_chunk *chunk) {
    uint8x16_t before = vdupq_n_u8(0), wrong = vdupq_n_u8(0);
    size_t count = 0, i = 0;
    for (; i + 16 <= len; i += 16) {
        uint8x16_t v = vld1q_u8(octets + i);
        wrong = vorrq_u8(wrong, faults16(v, before));
        count += split16(v, chunk, i);
        before = v;
    }
    if (i < len) {
        uint8_t space[32];
        uint8x16_t v = vld1q_u8(lport_text_last_vector(octets, len, 16, space));
        wrong = vorrq_u8(wrong, faults16(v, before));
        count += split16(v, chunk, i);
        i += 16;
    }
    memset(chunk->leads + i / 8, 0xFF, 2);
    return vmaxvq_u8(wrong) == 0 ? count - (i - len) : 0;
}

/* Writes four characters of which the first are those that begin in four octets; how many. */
static inline size_t gather4(const uint8_t *payload, unsigned leads, uint32_t *chars) {
    uint8x16_t v = vqtbl1q_u8(vld1q_u8(payload), vld1q_u8(lport_text_gather[leads & 0x7F]));
    uint16x8_t octets = vreinterpretq_u16_u8(v); /* 64 * even + odd */
    octets = vsraq_n_u16(vshlq_n_u16(vandq_u16(octets, vdupq_n_u16(0xFF)), 6), octets, 8);
    uint32x4_t pairs = vreinterpretq_u32_u16(octets); /* 4096 * even + odd */
    pairs = vsraq_n_u32(vshlq_n_u32(vandq_u32(pairs, vdupq_n_u32(0xFFFF)), 12), pairs, 16);
    vst1q_u32(chars, pairs);
    return (size_t)__builtin_popcount(leads & 0x0F);
}

/* The characters that begin in the eight octets from 8 * AT; writes eight at most. */
static inline size_t gather8(const struct lport_text_chunk *chunk, size_t at, uint32_t *chars) {
    uint16_t leads;
    memcpy(&leads, chunk->leads + at, 2);
    size_t n = gather4(chunk->payload + 8 * at, leads, chars);
    return n + gather4(chunk->payload + 8 * at + 4, (unsigned)leads >> 4, chars + n);
}

static void gather(const struct lport_text_chunk *chunk, uint32_t *chars, size_t count) {
    uint32_t last[GATHER_LAST + 12];
    size_t at = 0, out = 0, more = 0;
    for (; out + GATHER_LAST < count; at++) {
        out += gather8(chunk, at, chars + out);
    }
    for (; out + more < count; at++) {
        more += gather8(chunk, at, last + more);
    }
    lport_text_last_chars(last, count - out, chars + out);
}

/* ---- encoding UTF-8 -------------------------------------------------------------------------- */

static size_t usable(const uint32_t *chars, size_t len) {
    size_t n = lport_text_smaller(len, USABLE_MOST), i = 0;
    for (; i + 4 <= n; i += 4) {
        uint32x4_t v = vld1q_u32(chars + i);
        uint32x4_t bad = vcgtq_u32(v, vdupq_n_u32(0x10FFFF));
        uint32x4_t family = vandq_u32(v, vdupq_n_u32(0x1FF800));
        bad = vorrq_u32(bad, vceqq_u32(family, vdupq_n_u32(0xD800)));
        if (vmaxvq_u32(bad) != 0) {
            break;
        }
    }
    while (i < n && chars[i] <= 0x10FFFF && (chars[i] & 0x1FF800) != 0xD800) {
        i++;
    }
    return i;
}

/* Spells four characters and writes 16 octets of which the first are theirs; how many are those of
 * the characters in KEEP. */
static inline size_t pack4(const uint32_t *chars, uint8_t *octets, unsigned keep) {
    static const uint32_t even_bits[] = {1, 2, 4, 8}, longer_bits[] = {16, 32, 64, 128};
    uint32x4_t v = vld1q_u32(chars);
    uint32x4_t two = vcgtq_u32(v, vdupq_n_u32(0x7F)); /* takes two octets or more */
    uint32x4_t three = vcgtq_u32(v, vdupq_n_u32(0x7FF));
    uint32x4_t four = vcgtq_u32(v, vdupq_n_u32(0xFFFF));
    /* Twelve bits to each half of a lane, high before low, and six to each octet. */
    uint32x4_t low = vandq_u32(vshlq_n_u32(v, 16), vdupq_n_u32(0x0FFF0000));
    uint16x8_t pairs = vreinterpretq_u16_u32(vsraq_n_u32(low, v, 12));
    uint16x8_t right = vandq_u16(vshlq_n_u16(pairs, 8), vdupq_n_u16(0x3F00));
    uint32x4_t spelled = vreinterpretq_u32_u16(vsraq_n_u16(right, pairs, 6));
    /* The marks of two octets; what three have otherwise; what four have otherwise. */
    uint32x4_t marks = vandq_u32(two, vdupq_n_u32(0x80C00000));
    marks = veorq_u32(marks, vandq_u32(three, vdupq_n_u32(0x0040E000)));
    marks = veorq_u32(marks, vandq_u32(four, vdupq_n_u32(0x000060F0)));
    /* One octet has a seventh bit. */
    uint32x4_t single = vbicq_u32(vshlq_n_u32(v, 24), two);
    spelled = vorrq_u32(vorrq_u32(spelled, marks), single);
    uint32x4_t even = vandq_u32(veorq_u32(veorq_u32(two, three), four), vld1q_u32(even_bits));
    uint32x4_t longer = vandq_u32(three, vld1q_u32(longer_bits));
    unsigned sizes = vaddvq_u32(vorrq_u32(even, longer));
    uint8x16_t shuffle = vld1q_u8(lport_text_pack[sizes]);
    vst1q_u8(octets, vqtbl1q_u8(vreinterpretq_u8_u32(spelled), shuffle));
    return (size_t)__builtin_popcount(keep) + (size_t)__builtin_popcount(sizes & keep) +
           2 * (size_t)__builtin_popcount(sizes >> 4 & keep);
}

/* Less than PACK_LEAST characters. */
static int64_t pack_few(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap) {
    uint32_t few[PACK_LEAST] = {0};
    uint8_t spelled[4 * PACK_LEAST + 16];
    size_t size = 0, i = 0;
    memcpy(few, chars, len * sizeof *chars);
    for (; i < len; i += 4) {
        size += pack4(few + i, spelled + size, 0x0F);
    }
    size -= i - len;
    if (size > cap) {
        return lport_text_encode_plainly(chars, len, octets, cap);
    }
    memcpy(octets, spelled, size);
    return lport_text_result(len, size);
}

static int64_t pack(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap) {
    uint8_t last[4 * PACK_LAST + 16];
    size_t in = len % 4, out = 0, size = 0;
    if (len < PACK_LEAST || cap < PACK_ROOM) {
        return len < PACK_LEAST ? pack_few(chars, len, octets, cap)
                                : lport_text_encode_plainly(chars, len, octets, cap);
    }
    if (in != 0) {
        out = pack4(chars, octets, (1u << in) - 1);
    }
    for (; in + PACK_LAST < len && out + PACK_ROOM <= cap; in += 4) {
        out += pack4(chars + in, octets + out, 0x0F);
    }
    if (in + PACK_LAST == len) {
        for (size_t i = 0; i < PACK_LAST; i += 4) {
            size += pack4(chars + in + i, last + size, 0x0F);
        }
        if (size <= cap - out) {
            lport_text_last_octets(last, size, octets + out);
            return lport_text_result(len, out + size);
        }
    }
    return lport_text_result(in, out) +
           lport_text_encode_plainly(chars + in, len - in, octets + out, cap - out);
}

/* ---- the variant ----------------------------------------------------------------------------- */

static const struct lport_text_variant neon = {
    .name = "neon",
    .ascii = ascii,
    .widen = widen,
    .narrow = narrow,
    .count = lport_text_count,
    .sift = sift,
    .gather = gather,
    .usable = usable,
    .pack = pack,
};

const struct lport_text_variant *lport_text_variant(size_t index) {
    static const struct lport_text_variant *const list[] = {&neon, &lport_text_scalar};
    return index < 2 ? list[index] : NULL;
}

#endif
