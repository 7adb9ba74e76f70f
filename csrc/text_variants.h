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

/* As the functions of libport.h, with lengths and rooms from 1 to LPORT_TEXT_MAX. */
struct lport_text_variant {
    const char *name;
    int64_t (*from_utf8)(const uint8_t *octets, size_t len, uint32_t *chars, size_t cap);
    int64_t (*from_latin1)(const uint8_t *octets, size_t len, uint32_t *chars, size_t cap);
    int64_t (*from_ascii)(const uint8_t *octets, size_t len, uint32_t *chars, size_t cap);
    int64_t (*from_ascii8)(const uint8_t *octets, size_t len, uint8_t *chars, size_t cap);
    int64_t (*to_utf8)(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap);
    int64_t (*to_latin1)(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap);
    int64_t (*to_ascii)(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap);
};

/* The longest vector looked at in one call: a result has 31 bits for each count. */
#define LPORT_TEXT_MAX ((size_t)LPORT_TEXT_SCALE - 1)

extern const struct lport_text_variant lport_text_scalar;

/* The variants of this architecture that the running processor has, the fastest first: number INDEX
 * of them, NULL after the last. Defined in the file of the architecture; where there is none, in
 * text_scalar.c. The scalar one is the last of every list. */
const struct lport_text_variant *lport_text_variant(size_t index);

/* lport_text_utf8_problem. */
int64_t lport_text_problem(const uint8_t *octets, size_t len);

static inline int64_t lport_text_result(size_t consumed, size_t produced) {
    return (int64_t)consumed * LPORT_TEXT_SCALE + (int64_t)produced;
}

static inline size_t lport_text_smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

#endif
