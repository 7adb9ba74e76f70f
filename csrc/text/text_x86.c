/* text_x86 - the codec for x86-64: ASCII and Latin-1 with SSE2, which every such processor has, and
 * with AVX2; and the choice of variants (layer 1).
 *
 * Stands on text_x86_utf8.c and text_x86_avx512.c for UTF-8. Invariant: reads stay within the
 * input, writes within what is reported as produced; a last step may overlap the one before. */
#include "text_x86.h"

#ifdef LPORT_TEXT_X86

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

/* Every way out of these functions passes _mm256_zeroupper: gcc leaves it out before calls within a
 * file, and the SSE code of the callers then takes up to three times as long. */
#define AVX2 __attribute__((target("avx2,popcnt")))

/* ---- ASCII and Latin-1 ----------------------------------------------------------------------- */

static __m128i load16(const void *from) {
    return _mm_loadu_si128((const __m128i *)from);
}

static void store16(void *to, __m128i v) {
    _mm_storeu_si128((__m128i *)to, v);
}

/* For at most 15 octets. */
static size_t ascii_few(const uint8_t *octets, size_t len) {
    size_t i = 0;
    for (; i + 4 <= len; i += 4) {
        uint32_t four;
        memcpy(&four, octets + i, 4);
        four &= 0x80808080;
        if (four != 0) {
            return i + (size_t)__builtin_ctz(four) / 8;
        }
    }
    while (i < len && octets[i] < 0x80) {
        i++;
    }
    return i;
}

static size_t ascii_sse2(const uint8_t *octets, size_t len) {
    size_t i = 0;
    if (len < 16) {
        return ascii_few(octets, len);
    }
    for (;;) {
        unsigned high = (unsigned)_mm_movemask_epi8(load16(octets + i));
        if (high != 0) {
            return i + (size_t)__builtin_ctz(high);
        }
        if (i + 16 == len) {
            return len;
        }
        i = lport_text_smaller(i + 16, len - 16); /* the last step overlaps the one before */
    }
}

AVX2 static size_t ascii_avx2(const uint8_t *octets, size_t len) {
    size_t i = 0;
    unsigned high;
    if (len < 32) {
        return ascii_sse2(octets, len);
    }
    for (;;) {
        high = (unsigned)_mm256_movemask_epi8(_mm256_loadu_si256((const __m256i *)(octets + i)));
        if (high != 0 || i + 32 == len) {
            break;
        }
        i = lport_text_smaller(i + 32, len - 32);
    }
    _mm256_zeroupper();
    return high != 0 ? i + (size_t)__builtin_ctz(high) : len;
}

static void widen16(const uint8_t *octets, uint32_t *chars) {
    __m128i zero = _mm_setzero_si128(), v = load16(octets);
    __m128i low = _mm_unpacklo_epi8(v, zero), high = _mm_unpackhi_epi8(v, zero);
    store16(chars, _mm_unpacklo_epi16(low, zero));
    store16(chars + 4, _mm_unpackhi_epi16(low, zero));
    store16(chars + 8, _mm_unpacklo_epi16(high, zero));
    store16(chars + 12, _mm_unpackhi_epi16(high, zero));
}

static void widen4(const uint8_t *octets, uint32_t *chars) {
    int four;
    memcpy(&four, octets, 4);
    __m128i zero = _mm_setzero_si128();
    __m128i v = _mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero);
    store16(chars, _mm_unpacklo_epi16(v, zero));
}

/* For at most 15 octets. */
static void widen_few(const uint8_t *octets, size_t len, uint32_t *chars) {
    if (len < 4) {
        for (size_t i = 0; i < len; i++) {
            chars[i] = octets[i];
        }
        return;
    }
    for (size_t i = 0; i + 4 <= len; i += 4) {
        widen4(octets + i, chars + i);
    }
    widen4(octets + len - 4, chars + len - 4);
}

static void widen_sse2(const uint8_t *octets, size_t len, uint32_t *chars) {
    if (len < 16) {
        widen_few(octets, len, chars);
        return;
    }
    for (size_t i = 0; i + 16 <= len; i += 16) {
        widen16(octets + i, chars + i);
    }
    if (len % 16 != 0) {
        widen16(octets + len - 16, chars + len - 16);
    }
}

AVX2 static void widen16_avx2(const uint8_t *octets, uint32_t *chars) {
    __m128i v = load16(octets);
    _mm256_storeu_si256((__m256i *)chars, _mm256_cvtepu8_epi32(v));
    _mm256_storeu_si256((__m256i *)(chars + 8), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8)));
}

AVX2 static void widen_avx2(const uint8_t *octets, size_t len, uint32_t *chars) {
    if (len < 16) {
        widen_few(octets, len, chars);
        return;
    }
    for (size_t i = 0; i + 16 <= len; i += 16) {
        widen16_avx2(octets + i, chars + i);
    }
    if (len % 16 != 0) {
        widen16_avx2(octets + len - 16, chars + len - 16);
    }
    _mm256_zeroupper();
}

/* For what is less than a vector or has a character that stops it. */
static size_t narrow_few(const uint32_t *chars, size_t len, uint8_t *octets, uint32_t limit) {
    size_t i = 0;
    for (; i < len && chars[i] <= limit; i++) {
        octets[i] = (uint8_t)chars[i];
    }
    return i;
}

/* True if no lane of V has a bit of MASK. */
static bool free_of(__m128i v, __m128i mask) {
    __m128i zero = _mm_setzero_si128();
    return _mm_movemask_epi8(_mm_cmpeq_epi32(_mm_and_si128(v, mask), zero)) == 0xFFFF;
}

static bool narrow16(const uint32_t *chars, uint8_t *octets, __m128i mask) {
    __m128i a = load16(chars), b = load16(chars + 4), c = load16(chars + 8), d = load16(chars + 12);
    if (!free_of(_mm_or_si128(_mm_or_si128(a, b), _mm_or_si128(c, d)), mask)) {
        return false;
    }
    store16(octets, _mm_packus_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d)));
    return true;
}

static bool narrow4(const uint32_t *chars, uint8_t *octets, __m128i mask) {
    __m128i v = load16(chars);
    if (!free_of(v, mask)) {
        return false;
    }
    v = _mm_packs_epi32(v, v);
    int four = _mm_cvtsi128_si32(_mm_packus_epi16(v, v));
    memcpy(octets, &four, 4);
    return true;
}

static size_t narrow_sse2(const uint32_t *chars, size_t len, uint8_t *octets, uint32_t limit) {
    __m128i lanes = _mm_set1_epi32((int)~limit);
    size_t i = 0;
    while (i + 16 <= len && narrow16(chars + i, octets + i, lanes)) {
        i += 16;
    }
    while (i + 4 <= len && narrow4(chars + i, octets + i, lanes)) {
        i += 4;
    }
    return i + narrow_few(chars + i, len - i, octets + i, limit);
}

AVX2 static bool narrow32(const uint32_t *chars, uint8_t *octets, __m256i mask) {
    const __m256i *from = (const __m256i *)chars;
    __m256i a = _mm256_loadu_si256(from), b = _mm256_loadu_si256(from + 1);
    __m256i c = _mm256_loadu_si256(from + 2), d = _mm256_loadu_si256(from + 3);
    __m256i all = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
    if (!_mm256_testz_si256(all, mask)) {
        return false;
    }
    __m256i v = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    v = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)octets, v);
    return true;
}

AVX2 static size_t narrow_avx2(const uint32_t *chars, size_t len, uint8_t *octets, uint32_t limit) {
    __m256i lanes = _mm256_set1_epi32((int)~limit);
    size_t i = 0;
    while (i + 32 <= len && narrow32(chars + i, octets + i, lanes)) {
        i += 32;
    }
    _mm256_zeroupper();
    return i + narrow_sse2(chars + i, len - i, octets + i, limit);
}

/* Octets of 0x80 to 0xBF, -128 to -65, continue. 255 steps at a time fit the sums in octets. */
static size_t count_sse2(const uint8_t *octets, size_t len) {
    const __m128i last = _mm_set1_epi8(-65);
    __m128i sums = _mm_setzero_si128();
    size_t i = 0;
    while (i + 16 <= len) {
        __m128i some = _mm_setzero_si128();
        size_t end = i + lport_text_smaller((len - i) / 16, 255) * 16;
        for (; i < end; i += 16) {
            some = _mm_sub_epi8(some, _mm_cmpgt_epi8(load16(octets + i), last));
        }
        sums = _mm_add_epi64(sums, _mm_sad_epu8(some, _mm_setzero_si128()));
    }
    sums = _mm_add_epi64(sums, _mm_unpackhi_epi64(sums, sums));
    return (size_t)_mm_cvtsi128_si64(sums) + lport_text_count(octets + i, len - i);
}

AVX2 static size_t count_avx2(const uint8_t *octets, size_t len) {
    const __m256i last = _mm256_set1_epi8(-65);
    __m256i sums = _mm256_setzero_si256();
    size_t i = 0;
    while (i + 32 <= len) {
        __m256i some = _mm256_setzero_si256();
        size_t end = i + lport_text_smaller((len - i) / 32, 255) * 32;
        for (; i < end; i += 32) {
            __m256i v = _mm256_loadu_si256((const __m256i *)(octets + i));
            some = _mm256_sub_epi8(some, _mm256_cmpgt_epi8(v, last));
        }
        sums = _mm256_add_epi64(sums, _mm256_sad_epu8(some, _mm256_setzero_si256()));
    }
    __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    _mm256_zeroupper();
    two = _mm_add_epi64(two, _mm_unpackhi_epi64(two, two));
    return (size_t)_mm_cvtsi128_si64(two) + count_sse2(octets + i, len - i);
}

/* ---- the variants ---------------------------------------------------------------------------- */

static const struct lport_text_variant sse2 = {
    .name = "sse2",
    .ascii = ascii_sse2,
    .widen = widen_sse2,
    .narrow = narrow_sse2,
    .count = count_sse2,
};

static const struct lport_text_variant sse41 = {
    .name = "sse4.1",
    .ascii = ascii_sse2,
    .widen = widen_sse2,
    .narrow = narrow_sse2,
    .count = count_sse2,
    .sift = lport_text_sift_sse41,
    .gather = lport_text_gather_sse41,
    .usable = lport_text_usable_sse41,
    .pack = lport_text_pack_sse41,
};

static const struct lport_text_variant avx2 = {
    .name = "avx2",
    .ascii = ascii_avx2,
    .widen = widen_avx2,
    .narrow = narrow_avx2,
    .count = count_avx2,
    .sift = lport_text_sift_avx2,
    .gather = lport_text_gather_avx2,
    .usable = lport_text_usable_avx2,
    .pack = lport_text_pack_avx2,
};

static const struct lport_text_variant avx512 = {
    .name = "avx512",
    .ascii = ascii_avx2,
    .widen = widen_avx2,
    .narrow = narrow_avx2,
    .count = count_avx2,
    .decode = lport_text_decode_avx512,
    .encode = lport_text_encode_avx512,
};

/* All that text_x86_avx512.c is compiled for. As with the others that includes the operating
 * system, which has to save the registers. */
static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
}

const struct lport_text_variant *lport_text_variant(size_t index) {
    const struct lport_text_variant *list[5];
    size_t count = 0;
    bool counts_bits = __builtin_cpu_supports("popcnt");
    if (has_avx512()) {
        list[count++] = &avx512;
    }
    if (counts_bits && __builtin_cpu_supports("avx2")) {
        list[count++] = &avx2;
    }
    if (counts_bits && __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1")) {
        list[count++] = &sse41;
    }
    list[count++] = &sse2;
    list[count++] = &lport_text_scalar;
    return index < count ? list[index] : NULL;
}

#endif
