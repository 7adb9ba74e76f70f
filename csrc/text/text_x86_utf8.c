/* text_x86_utf8 - UTF-8 for x86-64 with SSE4.1 and with AVX2 (layer 1).
 *
 * Stands on text_vector.h, and on text_scalar.c where room is scarce. Invariant: reads stay within
 * the input; a store that is wider than what is known to follow goes to the stack. */
#include "text_x86.h"

#ifdef LPORT_TEXT_X86

#include <immintrin.h>
#include <string.h>

#include "text_vector.h"

#define SSE41 __attribute__((target("ssse3,sse4.1,popcnt")))
/* As in text_x86.c: every way out passes _mm256_zeroupper. */
#define AVX2 __attribute__((target("avx2,popcnt")))

static __m128i load16(const void *from) {
    return _mm_loadu_si128((const __m128i *)from);
}

static void store16(void *to, __m128i v) {
    _mm_storeu_si128((__m128i *)to, v);
}

/* ---- decoding UTF-8 -------------------------------------------------------------------------- */

/* The bits that are wrong in V, which BEFORE precedes; text_vector.h tells how. */
SSE41 static inline __m128i faults16(__m128i v, __m128i before) {
    const __m128i half = _mm_set1_epi8(0x0F);
    __m128i one = _mm_alignr_epi8(v, before, 15);
    __m128i a = _mm_shuffle_epi8(load16(lport_text_first_high),
                                 _mm_and_si128(_mm_srli_epi16(one, 4), half));
    __m128i b = _mm_shuffle_epi8(load16(lport_text_first_low), _mm_and_si128(one, half));
    __m128i c =
        _mm_shuffle_epi8(load16(lport_text_second_high), _mm_and_si128(_mm_srli_epi16(v, 4), half));
    __m128i third = _mm_subs_epu8(_mm_alignr_epi8(v, before, 14), _mm_set1_epi8(0xE0 - 0x80));
    __m128i fourth = _mm_subs_epu8(_mm_alignr_epi8(v, before, 13), _mm_set1_epi8(0xF0 - 0x80));
    __m128i due = _mm_and_si128(_mm_or_si128(third, fourth), _mm_set1_epi8((char)LPORT_CONTINUES));
    return _mm_xor_si128(_mm_and_si128(_mm_and_si128(a, b), c), due);
}

/* Takes V apart into octets from AT of CHUNK; how many characters begin in it. */
SSE41 static inline size_t split16(__m128i v, struct lport_text_chunk *chunk, size_t at) {
    __m128i high = _mm_and_si128(_mm_srli_epi16(v, 4), _mm_set1_epi8(0x0F));
    __m128i payload = _mm_shuffle_epi8(load16(lport_text_payload), high);
    store16(chunk->payload + at, _mm_and_si128(v, payload));
    __m128i begins = _mm_cmpgt_epi8(v, _mm_set1_epi8((char)0xBF));
    uint16_t leads = (uint16_t)_mm_movemask_epi8(begins);
    memcpy(chunk->leads + at / 8, &leads, 2);
    return (size_t)_mm_popcnt_u32(leads);
}

SSE41 size_t lport_text_sift_sse41(const uint8_t *octets, size_t len,
                                   struct lport_text_chunk *chunk) {
    __m128i before = _mm_setzero_si128(), wrong = _mm_setzero_si128();
    size_t count = 0, i = 0;
    for (; i + 16 <= len; i += 16) {
        __m128i v = load16(octets + i);
        wrong = _mm_or_si128(wrong, faults16(v, before));
        count += split16(v, chunk, i);
        before = v;
    }
    if (i < len) {
        uint8_t space[32];
        __m128i v = load16(lport_text_last_vector(octets, len, 16, space));
        wrong = _mm_or_si128(wrong, faults16(v, before));
        count += split16(v, chunk, i);
        i += 16;
    }
    memset(chunk->leads + i / 8, 0xFF, 2);
    return _mm_testz_si128(wrong, wrong) ? count - (i - len) : 0;
}

AVX2 static inline __m256i both(const uint8_t *row) {
    return _mm256_broadcastsi128_si256(load16(row));
}

/* As faults16. */
AVX2 static inline __m256i faults32(__m256i v, __m256i before) {
    const __m256i half = _mm256_set1_epi8(0x0F);
    __m256i seam = _mm256_permute2x128_si256(before, v, 0x21);
    __m256i one = _mm256_alignr_epi8(v, seam, 15);
    __m256i a = _mm256_shuffle_epi8(both(lport_text_first_high),
                                    _mm256_and_si256(_mm256_srli_epi16(one, 4), half));
    __m256i b = _mm256_shuffle_epi8(both(lport_text_first_low), _mm256_and_si256(one, half));
    __m256i c = _mm256_shuffle_epi8(both(lport_text_second_high),
                                    _mm256_and_si256(_mm256_srli_epi16(v, 4), half));
    __m256i third =
        _mm256_subs_epu8(_mm256_alignr_epi8(v, seam, 14), _mm256_set1_epi8(0xE0 - 0x80));
    __m256i fourth =
        _mm256_subs_epu8(_mm256_alignr_epi8(v, seam, 13), _mm256_set1_epi8(0xF0 - 0x80));
    __m256i due =
        _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8((char)LPORT_CONTINUES));
    return _mm256_xor_si256(_mm256_and_si256(_mm256_and_si256(a, b), c), due);
}

/* As split16. */
AVX2 static inline size_t split32(__m256i v, struct lport_text_chunk *chunk, size_t at) {
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(0x0F));
    __m256i payload = _mm256_shuffle_epi8(both(lport_text_payload), high);
    __m256i excess = _mm256_shuffle_epi8(both(lport_text_excess), high);
    _mm256_storeu_si256((__m256i *)(chunk->payload + at), _mm256_and_si256(v, payload));
    _mm256_storeu_si256((__m256i *)(chunk->excess + at), excess);
    __m256i begins = _mm256_cmpgt_epi8(v, _mm256_set1_epi8((char)0xBF));
    uint32_t leads = (uint32_t)_mm256_movemask_epi8(begins);
    memcpy(chunk->leads + at / 8, &leads, 4);
    return (size_t)_mm_popcnt_u32(leads);
}

AVX2 size_t lport_text_sift_avx2(const uint8_t *octets, size_t len,
                                 struct lport_text_chunk *chunk) {
    __m256i before = _mm256_setzero_si256(), wrong = _mm256_setzero_si256();
    size_t count = 0, i = 0;
    for (; i + 32 <= len; i += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(octets + i));
        wrong = _mm256_or_si256(wrong, faults32(v, before));
        count += split32(v, chunk, i);
        before = v;
    }
    if (i < len) {
        uint8_t space[64];
        __m256i v =
            _mm256_loadu_si256((const __m256i *)lport_text_last_vector(octets, len, 32, space));
        wrong = _mm256_or_si256(wrong, faults32(v, before));
        count += split32(v, chunk, i);
        i += 32;
    }
    memset(chunk->leads + i / 8, 0xFF, 2);
    memset(chunk->payload + i, 0, 16); /* looked at and shifted out, which Valgrind cannot see */
    size_t good = _mm256_testz_si256(wrong, wrong) ? count - (i - len) : 0;
    _mm256_zeroupper();
    return good;
}

/* Writes four characters of which the first are those that begin in four octets; how many. */
SSE41 static inline size_t gather4(const uint8_t *payload, unsigned leads, uint32_t *chars) {
    __m128i v = _mm_shuffle_epi8(load16(payload), load16(lport_text_gather[leads & 0x7F]));
    v = _mm_maddubs_epi16(v, _mm_set1_epi16(0x0140));  /* octets: 64 * even + odd */
    v = _mm_madd_epi16(v, _mm_set1_epi32(0x00011000)); /* pairs: 4096 * even + odd */
    store16(chars, v);
    return (size_t)_mm_popcnt_u32(leads & 0x0F);
}

/* The characters that begin in the eight octets from 8 * AT; writes up to four more. */
SSE41 static inline size_t gather8_sse41(const struct lport_text_chunk *chunk, size_t at,
                                         uint32_t *chars) {
    uint16_t leads;
    memcpy(&leads, chunk->leads + at, 2);
    size_t n = gather4(chunk->payload + 8 * at, leads, chars);
    return n + gather4(chunk->payload + 8 * at + 4, (unsigned)leads >> 4, chars + n);
}

/* The same for AVX2, which can move lanes: every octet is taken for a lead, with a lane of its own,
 * and the lanes that were are kept. Writes eight characters. */
AVX2 static inline size_t gather8_avx2(const struct lport_text_chunk *chunk, size_t at,
                                       uint32_t *chars) {
    const __m256i fours = _mm256_setr_epi8(0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 6, 4, 5, 6,
                                           7, 5, 6, 7, 8, 6, 7, 8, 9, 7, 8, 9, 10);
    unsigned leads = chunk->leads[at];
    __m128i order = _mm_loadl_epi64((const __m128i *)lport_text_order[leads]);
    __m128i excess = _mm_loadl_epi64((const __m128i *)(chunk->excess + 8 * at));
    __m256i v = _mm256_shuffle_epi8(both(chunk->payload + 8 * at), fours);
    v = _mm256_and_si256(v, _mm256_set1_epi32(0x3F3F3F7F)); /* what follows may be ASCII */
    v = _mm256_maddubs_epi16(v, _mm256_set1_epi16(0x0140)); /* see gather4 */
    v = _mm256_madd_epi16(v, _mm256_set1_epi32(0x00011000));
    v = _mm256_srlv_epi32(v, _mm256_cvtepu8_epi32(excess));
    v = _mm256_permutevar8x32_epi32(v, _mm256_cvtepu8_epi32(order));
    _mm256_storeu_si256((__m256i *)chars, v);
    return (size_t)_mm_popcnt_u32(leads);
}

SSE41 void lport_text_gather_sse41(const struct lport_text_chunk *chunk, uint32_t *chars,
                                   size_t count) {
    uint32_t last[GATHER_LAST + 12];
    size_t at = 0, out = 0, more = 0;
    for (; out + GATHER_LAST < count; at++) {
        out += gather8_sse41(chunk, at, chars + out);
    }
    for (; out + more < count; at++) {
        more += gather8_sse41(chunk, at, last + more);
    }
    // cppcheck-suppress uninitvar ; at count = out none of it is read
    lport_text_last_chars(last, count - out, chars + out);
}

AVX2 void lport_text_gather_avx2(const struct lport_text_chunk *chunk, uint32_t *chars,
                                 size_t count) {
    uint32_t last[GATHER_LAST + 12];
    size_t at = 0, out = 0, more = 0;
    for (; out + GATHER_LAST < count; at++) {
        out += gather8_avx2(chunk, at, chars + out);
    }
    for (; out + more < count; at++) {
        more += gather8_avx2(chunk, at, last + more);
    }
    _mm256_zeroupper();
    // cppcheck-suppress uninitvar ; at count = out none of it is read
    lport_text_last_chars(last, count - out, chars + out);
}

/* ---- encoding UTF-8 -------------------------------------------------------------------------- */

SSE41 size_t lport_text_usable_sse41(const uint32_t *chars, size_t len) {
    const __m128i top = _mm_set1_epi32(0x10FFFF), family = _mm_set1_epi32(0x1FF800);
    const __m128i surrogate = _mm_set1_epi32(0xD800);
    size_t n = lport_text_smaller(len, USABLE_MOST), i = 0;
    for (; i + 4 <= n; i += 4) {
        __m128i v = load16(chars + i);
        __m128i good = _mm_cmpeq_epi32(_mm_max_epu32(v, top), top);
        __m128i bad = _mm_cmpeq_epi32(_mm_and_si128(v, family), surrogate);
        if (_mm_movemask_epi8(_mm_andnot_si128(bad, good)) != 0xFFFF) {
            break;
        }
    }
    while (i < n && chars[i] <= 0x10FFFF && (chars[i] & 0x1FF800) != 0xD800) {
        i++;
    }
    return i;
}

AVX2 size_t lport_text_usable_avx2(const uint32_t *chars, size_t len) {
    const __m256i top = _mm256_set1_epi32(0x10FFFF), family = _mm256_set1_epi32(0x1FF800);
    const __m256i surrogate = _mm256_set1_epi32(0xD800);
    size_t n = lport_text_smaller(len, USABLE_MOST), i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(chars + i));
        __m256i good = _mm256_cmpeq_epi32(_mm256_max_epu32(v, top), top);
        __m256i bad = _mm256_cmpeq_epi32(_mm256_and_si256(v, family), surrogate);
        if (_mm256_movemask_epi8(_mm256_andnot_si256(bad, good)) != -1) {
            break;
        }
    }
    _mm256_zeroupper();
    return i + (i < n ? lport_text_usable_sse41(chars + i, n - i) : 0);
}

/* The octets of the characters that KEEP has a bit for, when EVEN has a bit for those of two and
 * four octets and LONGER for those of three and four. */
SSE41 static inline size_t sum_sizes(unsigned even, unsigned longer, unsigned keep) {
    return (size_t)_mm_popcnt_u32(keep) + (size_t)_mm_popcnt_u32(even & keep) +
           2 * (size_t)_mm_popcnt_u32(longer & keep);
}

/* Spells four characters and writes 16 octets of which the first are theirs; how many are those of
 * the characters in KEEP. */
SSE41 static inline size_t pack4(const uint32_t *chars, uint8_t *octets, unsigned keep) {
    __m128i v = load16(chars);
    __m128i two = _mm_cmpgt_epi32(v, _mm_set1_epi32(0x7F)); /* takes two octets or more */
    __m128i three = _mm_cmpgt_epi32(v, _mm_set1_epi32(0x7FF));
    __m128i four = _mm_cmpgt_epi32(v, _mm_set1_epi32(0xFFFF));
    /* Twelve bits to each half of a lane, high before low, and six to each octet. */
    __m128i low = _mm_and_si128(_mm_slli_epi32(v, 16), _mm_set1_epi32(0x0FFF0000));
    __m128i pairs = _mm_or_si128(_mm_srli_epi32(v, 12), low);
    __m128i left = _mm_srli_epi16(pairs, 6);
    __m128i right = _mm_and_si128(_mm_slli_epi16(pairs, 8), _mm_set1_epi32(0x3F003F00));
    __m128i spelled = _mm_or_si128(left, right);
    /* The marks of two octets; what three have otherwise; what four have otherwise. */
    __m128i marks = _mm_and_si128(two, _mm_set1_epi32((int)0x80C00000));
    marks = _mm_xor_si128(marks, _mm_and_si128(three, _mm_set1_epi32(0x0040E000)));
    marks = _mm_xor_si128(marks, _mm_and_si128(four, _mm_set1_epi32(0x000060F0)));
    /* One octet has a seventh bit. */
    __m128i single = _mm_andnot_si128(two, _mm_slli_epi32(v, 24));
    spelled = _mm_or_si128(_mm_or_si128(spelled, marks), single);
    __m128i is_even = _mm_xor_si128(_mm_xor_si128(two, three), four);
    unsigned even = (unsigned)_mm_movemask_ps(_mm_castsi128_ps(is_even));
    unsigned longer = (unsigned)_mm_movemask_ps(_mm_castsi128_ps(three));
    store16(octets, _mm_shuffle_epi8(spelled, load16(lport_text_pack[even | longer << 4])));
    return sum_sizes(even, longer, keep);
}

/* Spells eight characters as pack4 does four; writes 12 octets too many at most. */
AVX2 static inline size_t pack8(const uint32_t *chars, uint8_t *octets, unsigned keep) {
    __m256i v = _mm256_loadu_si256((const __m256i *)chars);
    __m256i two = _mm256_cmpgt_epi32(v, _mm256_set1_epi32(0x7F));
    __m256i three = _mm256_cmpgt_epi32(v, _mm256_set1_epi32(0x7FF));
    __m256i four = _mm256_cmpgt_epi32(v, _mm256_set1_epi32(0xFFFF));
    __m256i low = _mm256_and_si256(_mm256_slli_epi32(v, 16), _mm256_set1_epi32(0x0FFF0000));
    __m256i pairs = _mm256_or_si256(_mm256_srli_epi32(v, 12), low);
    __m256i left = _mm256_srli_epi16(pairs, 6);
    __m256i right = _mm256_and_si256(_mm256_slli_epi16(pairs, 8), _mm256_set1_epi32(0x3F003F00));
    __m256i spelled = _mm256_or_si256(left, right);
    __m256i marks = _mm256_and_si256(two, _mm256_set1_epi32((int)0x80C00000));
    marks = _mm256_xor_si256(marks, _mm256_and_si256(three, _mm256_set1_epi32(0x0040E000)));
    marks = _mm256_xor_si256(marks, _mm256_and_si256(four, _mm256_set1_epi32(0x000060F0)));
    __m256i single = _mm256_andnot_si256(two, _mm256_slli_epi32(v, 24));
    spelled = _mm256_or_si256(_mm256_or_si256(spelled, marks), single);
    __m256i is_even = _mm256_xor_si256(_mm256_xor_si256(two, three), four);
    unsigned even = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(is_even));
    unsigned longer = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(three));
    const uint8_t *first = lport_text_pack[(even & 0x0F) | (longer & 0x0F) << 4];
    const uint8_t *second = lport_text_pack[even >> 4 | (longer & 0xF0)];
    __m256i shuffle =
        _mm256_inserti128_si256(_mm256_castsi128_si256(load16(first)), load16(second), 1);
    spelled = _mm256_shuffle_epi8(spelled, shuffle);
    store16(octets, _mm256_castsi256_si128(spelled));
    store16(octets + sum_sizes(even, longer, 0x0F), _mm256_extracti128_si256(spelled, 1));
    return sum_sizes(even, longer, keep);
}

/* Less than PACK_LEAST characters. */
SSE41 static int64_t pack_few(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap) {
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

SSE41 int64_t lport_text_pack_sse41(const uint32_t *chars, size_t len, uint8_t *octets,
                                    size_t cap) {
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

AVX2 int64_t lport_text_pack_avx2(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap) {
    uint8_t last[4 * PACK_LAST + 16];
    size_t in = len % 8, out = 0, size = 0;
    if (len < PACK_LEAST || cap < PACK_ROOM) {
        return len < PACK_LEAST ? pack_few(chars, len, octets, cap)
                                : lport_text_encode_plainly(chars, len, octets, cap);
    }
    if (in != 0) {
        out = pack8(chars, octets, (1u << in) - 1);
    }
    for (; in + PACK_LAST < len && out + PACK_ROOM <= cap; in += 8) {
        out += pack8(chars + in, octets + out, 0xFF);
    }
    if (in + PACK_LAST == len) {
        for (size_t i = 0; i < PACK_LAST; i += 8) {
            size += pack8(chars + in + i, last + size, 0xFF);
        }
        if (size <= cap - out) {
            _mm256_zeroupper();
            lport_text_last_octets(last, size, octets + out);
            return lport_text_result(len, out + size);
        }
    }
    _mm256_zeroupper();
    return lport_text_result(in, out) +
           lport_text_encode_plainly(chars + in, len - in, octets + out, cap - out);
}

#endif
