/* text_variants - the codec once per instruction set (layer 1, private to `text`).
 *
 * Every variant gives exactly what the scalar one gives: the same stop, the same elements, and
 * nothing written behind the last element produced. text.c picks one for the processor; the tests
 * run all of them against the scalar one. */
#ifndef LPORT_TEXT_VARIANTS_H
#define LPORT_TEXT_VARIANTS_H

#include <stddef.h>
#include <stdint.h>

#include "libport.h"

#if defined(__x86_64__)
#define LPORT_TEXT_X86 1
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
#define LPORT_TEXT_NEON 1
#endif

struct lport_text_chunk;

struct lport_text_variant {
    const char *name;
    /* The length of the beginning of OCTETS that is ASCII. */
    size_t (*ascii)(const uint8_t *octets, size_t len);
    /* Copies OCTETS to CHARS, one to each. */
    void (*widen)(const uint8_t *octets, size_t len, uint32_t *chars);
    /* Copies CHARS to OCTETS up to the first above LIMIT, 0x7F or 0xFF; how many. */
    size_t (*narrow)(const uint32_t *chars, size_t len, uint8_t *octets, uint32_t limit);
    /* How many of OCTETS do not continue a character. */
    size_t (*count)(const uint8_t *octets, size_t len);

    /* UTF-8, for processors with byte shuffles; else NULL. Decoding goes by chunks, in two passes
     * without a branch on the text: `sift` validates a chunk and takes it apart, `gather` puts its
     * characters together. Encoding likewise: `usable` validates, `pack` spells. See text_vector.h.
     */

    /* Takes LEN octets, 1 to LPORT_CHUNK, apart. The last character is not cut off. The number of
     * characters, or 0 if they are not UTF-8. */
    size_t (*sift)(const uint8_t *octets, size_t len, struct lport_text_chunk *chunk);
    /* The first COUNT characters of CHUNK, which has that many. */
    void (*gather)(const struct lport_text_chunk *chunk, uint32_t *chars, size_t count);
    /* How many of CHARS from the first can be encoded; may look at fewer than LEN, not at none. */
    size_t (*usable)(const uint32_t *chars, size_t len);
    /* Encodes CHARS, usable all of them, as far as there is room; a lport_text_result. */
    int64_t (*pack)(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap);

    /* All of lport_text_decode and lport_text_encode, for processors that need no chunks since they
     * load and store under masks; else NULL. The four above are NULL then. */
    int64_t (*decode)(const uint8_t *octets, size_t len, uint32_t *chars, size_t cap);
    int64_t (*encode)(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap);
};

extern const struct lport_text_variant lport_text_scalar;

/* The variants of this architecture that the running processor has, the fastest first: number INDEX
 * of them, NULL after the last. Defined in the file of the architecture; where there is none, in
 * text_scalar.c. The scalar one is the last of every list. */
const struct lport_text_variant *lport_text_variant(size_t index);

/* lport_text_from_utf8 and lport_text_to_utf8 by a variant: text_vector.c. LEN and CAP are
 * LPORT_TEXT_MAX at most. */
int64_t lport_text_decode(const struct lport_text_variant *variant, const uint8_t *octets,
                          size_t len, uint32_t *chars, size_t cap);
int64_t lport_text_encode(const struct lport_text_variant *variant, const uint32_t *chars,
                          size_t len, uint8_t *octets, size_t cap);

/* The same one character after the other: the definition. And lport_text_utf8_problem. */
int64_t lport_text_decode_plainly(const uint8_t *octets, size_t len, uint32_t *chars, size_t cap);
int64_t lport_text_encode_plainly(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap);
int64_t lport_text_problem(const uint8_t *octets, size_t len);

/* `count` of a variant, eight octets at a time. */
size_t lport_text_count(const uint8_t *octets, size_t len);

/* The longest vector looked at in one call: a result has 31 bits for each count. */
#define LPORT_TEXT_MAX ((size_t)LPORT_TEXT_SCALE - 1)

static inline int64_t lport_text_result(size_t consumed, size_t produced) {
    return (int64_t)consumed * LPORT_TEXT_SCALE + (int64_t)produced;
}

static inline size_t lport_text_smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

#endif
