/* text_x86_avx512 - UTF-8 for x86-64 with AVX-512, 64 octets or 16 characters at a time (layer 1).
 *
 * Stands on text_scalar.c for what is wrong, for the end of the room and for very little.
 * Invariant: what is less than a vector is loaded and stored under a mask, so there are no odd
 * ends.
 *
 * Decoding: every octet meets the three before it, so that where a character ends its code point
 * stands, in three vectors of an octet each; what stands elsewhere is squeezed out of each of them
 * and the rest shuffled together. Encoding: every character is spelled in four octets, and those
 * that it does not need are squeezed out. (After Clausecker and Lemire, "Transcoding Unicode
 * characters with AVX-512 instructions", 2023, though their steps are others.) */
#include "text_x86.h"

#ifdef LPORT_TEXT_X86

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

/* As in text_x86.c: every way out passes _mm256_zeroupper. */
#define AVX512                                                                                     \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi,bmi2,popcnt")))

/* The lowest COUNT bits, 64 at most. */
AVX512 static inline uint64_t lowest(size_t count) {
    return _bzhi_u64(UINT64_MAX, (unsigned)count);
}

/* OCTET everywhere. */
AVX512 static inline __m512i everywhere(uint8_t octet) {
    return _mm512_set1_epi8((char)octet);
}

/* Where MASK has a bit, that of A, else that of B. */
AVX512 static inline __m512i choose(uint8_t mask, __m512i a, __m512i b) {
    return _mm512_ternarylogic_epi32(everywhere(mask), a, b, 0xCA);
}

/* ---- decoding UTF-8 -------------------------------------------------------------------------- */

/* Up to 64 octets, zeros behind them. A mask has a bit for each octet. */
struct block {
    __m512i v;
    uint64_t used;      /* the octets that are there */
    uint64_t leads;     /* those of C0 and above */
    uint64_t continues; /* 80 to BF */
    uint64_t fourth;    /* where by the leads a fourth octet of a character is due, */
    uint64_t third;     /* a third or a fourth one, */
    uint64_t due;       /* any that continues */
};

AVX512 static inline struct block look(__m512i v, uint64_t used) {
    struct block b = {.v = v, .used = used};
    uint64_t threes = _mm512_cmpge_epu8_mask(v, everywhere(0xE0));
    uint64_t fours = _mm512_cmpge_epu8_mask(v, everywhere(0xF0));
    b.continues = _mm512_cmplt_epi8_mask(v, everywhere(0xC0));
    b.leads = _mm512_movepi8_mask(v) & ~b.continues;
    b.fourth = fours << 3;
    b.third = threes << 2 | b.fourth;
    b.due = b.leads << 1 | b.third;
    return b;
}

/* V moved up by COUNT octets, 3 at most; zeros but in KEEP. */
AVX512 static inline __m512i moved(__m512i v, int count, uint64_t keep) {
    static const uint8_t places[] = {
        61, 62, 63, 0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
        20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42,
        43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
    };
    return _mm512_maskz_permutexvar_epi8(keep, _mm512_loadu_si512(places + 3 - count), v);
}

/* The lower six bits of an octet that continues say in which part of the range it is; those of a
 * lead, which parts may not follow it: Unicode, table 3-7. */
enum { LOW = 1, MIDDLE = 2, UPPER = 4, ANY = LOW | MIDDLE | UPPER };

static const uint8_t part[64] = {
    [0x00 ... 0x0F] = LOW,
    [0x10 ... 0x1F] = MIDDLE,
    [0x20 ... 0x3F] = UPPER,
};

static const uint8_t forbidden[64] = {
    [0x00 ... 0x01] = ANY,   /* C0, C1: overlong */
    [0x20] = LOW | MIDDLE,   /* E0: overlong below A0 */
    [0x2D] = UPPER,          /* ED: surrogates from A0 */
    [0x30] = LOW,            /* F0: overlong below 90 */
    [0x34] = MIDDLE | UPPER, /* F4: above U+10FFFF from 90 */
    [0x35 ... 0x3F] = ANY,
};

/* True if B is UTF-8 but for a character that is cut off at its end. BEFORE has at each octet that
 * continues the one before it. */
AVX512 static inline bool good(const struct block *b, __m512i before) {
    __m512i wrong = _mm512_permutexvar_epi8(before, _mm512_loadu_si512(forbidden));
    __m512i found = _mm512_permutexvar_epi8(b->v, _mm512_loadu_si512(part));
    uint64_t pairs = _mm512_test_epi8_mask(wrong, found) & b->leads << 1;
    return ((pairs | (b->continues ^ b->due)) & b->used) == 0;
}

/* How many of LEN octets are left without a character that is cut off at their end; nothing certain
 * where they are not good. They and those before them, which are whole, are 4 at least. */
static inline size_t whole(const uint8_t *octets, size_t len) {
    uint32_t last;
    memcpy(&last, octets + len - 4, 4);
    uint32_t one = (last & 0xC0000000) == 0xC0000000;
    uint32_t two = (last & 0x00E00000) == 0x00E00000;
    uint32_t three = (last & 0x0000F000) == 0x0000F000;
    return len - (one | two * 2 | three * 3);
}

/* Code points by their octets. */
struct planes {
    __m512i low, middle, high;
};

/* Where a character ends stands its code point; BEFORE as above. Shifts are of 16 bits: what comes
 * from the octet beside is not chosen. */
AVX512 static inline struct planes assemble(const struct block *b, __m512i before) {
    __m512i two = moved(b->v, 2, b->third), three = moved(b->v, 3, b->fourth);
    __m512i top = _mm512_and_si512(_mm512_slli_epi16(before, 6), everywhere(0xC0));
    __m512i high = choose(0x03, _mm512_srli_epi16(two, 4), _mm512_slli_epi16(three, 2));
    struct planes p;
    p.low = _mm512_ternarylogic_epi32(everywhere(0x7F), b->v, top, 0xEA); /* 7F & v | top */
    p.middle = choose(0x0F, _mm512_srli_epi16(before, 2), _mm512_slli_epi16(two, 4));
    /* The shift leaves C0 of the mark F0. Of three octets TWO is a lead: nothing of it is high. */
    p.high = _mm512_maskz_sub_epi8(b->fourth, high, everywhere(0xC0));
    return p;
}

AVX512 static inline void store16(uint32_t *chars, __m512i v, uint64_t keep) {
    _mm512_mask_storeu_epi32(chars, (__mmask16)keep, v);
}

/* Writes the COUNT first of the characters that are in P where ENDS says. */
AVX512 static inline void put(struct planes p, uint64_t ends, uint32_t *chars, size_t count) {
    /* A quarter gets the four octets of each vector to be stored that belong in this quarter. */
    const __m512i deal = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i zero = everywhere(0);
    p.low = _mm512_permutexvar_epi32(deal, _mm512_maskz_compress_epi8(ends, p.low));
    p.middle = _mm512_permutexvar_epi32(deal, _mm512_maskz_compress_epi8(ends, p.middle));
    p.high = _mm512_permutexvar_epi32(deal, _mm512_maskz_compress_epi8(ends, p.high));
    uint64_t keep = lowest(count);
    __m512i lower = _mm512_unpacklo_epi8(p.low, p.middle);
    __m512i upper = _mm512_unpacklo_epi8(p.high, zero);
    store16(chars, _mm512_unpacklo_epi16(lower, upper), keep);
    store16(chars + 16, _mm512_unpackhi_epi16(lower, upper), keep >> 16);
    if (count <= 32) {
        return;
    }
    lower = _mm512_unpackhi_epi8(p.low, p.middle);
    upper = _mm512_unpackhi_epi8(p.high, zero);
    store16(chars + 32, _mm512_unpacklo_epi16(lower, upper), keep >> 32);
    store16(chars + 48, _mm512_unpackhi_epi16(lower, upper), keep >> 48);
}

/* The place behind the COUNT-th octet of ENDS, 1 at least. */
AVX512 static inline size_t place(uint64_t ends, size_t count) {
    return (size_t)_tzcnt_u64(_pdep_u64(UINT64_C(1) << (count - 1), ends)) + 1;
}

/* Writes COUNT octets as characters. */
AVX512 static inline void widen(const uint8_t *octets, size_t count, uint32_t *chars) {
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(octets + i));
        _mm512_storeu_si512(chars + i, _mm512_cvtepu8_epi32(v));
    }
    if (i < count) {
        __mmask16 rest = (__mmask16)lowest(count - i);
        __m128i v = _mm_maskz_loadu_epi8(rest, octets + i);
        _mm512_mask_storeu_epi32(chars + i, rest, _mm512_cvtepu8_epi32(v));
    }
}

AVX512 int64_t lport_text_decode_avx512(const uint8_t *octets, size_t len, uint32_t *chars,
                                        size_t cap) {
    size_t in = 0, out = 0;
    while (in < len && out < cap && len >= 4) {
        size_t some = lport_text_smaller(64, len - in);
        uint64_t used = lowest(some);
        __m512i v = _mm512_maskz_loadu_epi8(used, octets + in);
        if (_mm512_movepi8_mask(v) == 0) {
            some = lport_text_smaller(some, cap - out);
            widen(octets + in, some, chars + out);
            in += some;
            out += some;
            continue;
        }
        struct block b = look(v, used);
        __m512i before = moved(v, 1, b.continues);
        some = whole(octets + in, some);
        if (some == 0 || !good(&b, before)) {
            break;
        }
        uint64_t ends = ~(b.continues >> 1) & lowest(some);
        size_t count = lport_text_smaller((size_t)_mm_popcnt_u64(ends), cap - out);
        put(assemble(&b, before), ends, chars + out, count);
        out += count;
        if (out == cap) {
            in += place(ends, count);
            break;
        }
        in += some;
    }
    _mm256_zeroupper();
    if (in == len || out == cap) {
        return lport_text_result(in, out);
    }
    return lport_text_result(in, out) +
           lport_text_decode_plainly(octets + in, len - in, chars + out, cap - out);
}

/* ---- encoding UTF-8 -------------------------------------------------------------------------- */

/* Encodes ASCII from the beginning of CHARS; how many. */
AVX512 static inline size_t narrow(const uint32_t *chars, size_t len, uint8_t *octets) {
    const __m512i limit = _mm512_set1_epi32(0x7F);
    size_t i = 0;
    for (; i + 16 <= len; i += 16) {
        __m512i v = _mm512_loadu_si512(chars + i);
        if (_mm512_cmpgt_epu32_mask(v, limit) != 0) {
            return i;
        }
        _mm_storeu_si128((__m128i *)(octets + i), _mm512_cvtepi32_epi8(v));
    }
    __mmask16 rest = (__mmask16)lowest(len - i);
    __m512i v = _mm512_maskz_loadu_epi32(rest, chars + i);
    if (_mm512_cmpgt_epu32_mask(v, limit) != 0) {
        return i;
    }
    _mm_mask_storeu_epi8(octets + i, rest, _mm512_cvtepi32_epi8(v));
    return len;
}

/* True if all of V are characters. */
AVX512 static inline bool usable(__m512i v) {
    __m512i family = _mm512_and_si512(v, _mm512_set1_epi32(0x1FF800));
    unsigned surrogate = _mm512_cmpeq_epi32_mask(family, _mm512_set1_epi32(0xD800));
    unsigned large = _mm512_cmpgt_epu32_mask(v, _mm512_set1_epi32(0x10FFFF));
    return (surrogate | large) == 0;
}

/* The marks of 16 characters, those in TWO being no ASCII. Each has four octets, is spelled in the
 * last of them, and has zeros where it is ASCII or has no octet. */
AVX512 static inline __m512i marks_of(__m512i v, __mmask16 two) {
    __mmask16 three = _mm512_cmpgt_epu32_mask(v, _mm512_set1_epi32(0x7FF));
    __mmask16 four = _mm512_cmpgt_epu32_mask(v, _mm512_set1_epi32(0xFFFF));
    __m512i marks = _mm512_maskz_set1_epi32(two, (int)0x80C00000);
    marks = _mm512_mask_set1_epi32(marks, three, (int)0x8080E000);
    return _mm512_mask_set1_epi32(marks, four, (int)0x808080F0);
}

/* Spells 16 characters in such places. */
AVX512 static inline __m512i spell(__m512i v, __mmask16 two, __m512i marks) {
    /* For each octet of two lanes the bit from which it has its own: 18, 12, 6, 0. */
    const __m512i from = _mm512_set1_epi64(0x20262C3200060C12);
    v = _mm512_multishift_epi64_epi8(from, v);
    /* ASCII has a seventh bit; the others are v & 3F | marks. */
    return _mm512_mask_ternarylogic_epi32(v, two, everywhere(0x3F), marks, 0xEA);
}

/* Encodes the SOME characters in V; the number of octets, or 0 if there is one that is none or more
 * room than CAP would be needed. */
AVX512 static inline size_t encode16(__m512i v, __mmask16 two, size_t some, uint8_t *octets,
                                     size_t cap) {
    __m512i marks = marks_of(v, two);
    uint64_t last = 0x8888888888888888;
    uint64_t used = (_mm512_movepi8_mask(marks) | last) & lowest(4 * some);
    size_t size = (size_t)_mm_popcnt_u64(used);
    if (!usable(v) || size > cap) {
        return 0;
    }
    v = _mm512_maskz_compress_epi8(used, spell(v, two, marks));
    _mm512_mask_storeu_epi8(octets, lowest(size), v);
    return size;
}

AVX512 int64_t lport_text_encode_avx512(const uint32_t *chars, size_t len, uint8_t *octets,
                                        size_t cap) {
    size_t in = 0, out = 0, size = 1;
    while (size > 0 && in < len && out < cap) {
        size_t some = lport_text_smaller(16, len - in);
        __m512i v = _mm512_maskz_loadu_epi32((__mmask16)lowest(some), chars + in);
        __mmask16 two = _mm512_cmpgt_epu32_mask(v, _mm512_set1_epi32(0x7F));
        if (two == 0) {
            some = size = narrow(chars + in, lport_text_smaller(len - in, cap - out), octets + out);
        } else {
            size = encode16(v, two, some, octets + out, cap - out);
        }
        in += size == 0 ? 0 : some;
        out += size;
    }
    _mm256_zeroupper();
    if (in == len || out == cap) {
        return lport_text_result(in, out);
    }
    return lport_text_result(in, out) +
           lport_text_encode_plainly(chars + in, len - in, octets + out, cap - out);
}

#endif
