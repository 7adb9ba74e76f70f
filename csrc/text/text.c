/* text - the exported codec: picks the variant for the processor, clamps what a result can count,
 * and nothing else (layer 1). See libport.h.
 *
 * Stands on text_variants.h. Invariant: a variant never sees an empty vector, nor one above
 * LPORT_TEXT_MAX but to count in. */
#include <stdatomic.h>
#include <string.h>

#include "text_variants.h"

/* The choice is made at the first call. Threads may make it at the same time: they make the same.
 */
static const struct lport_text_variant *variant(void) {
    static _Atomic(const struct lport_text_variant *) chosen;
    const struct lport_text_variant *v = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (v == NULL) {
        v = lport_text_variant(0);
        atomic_store_explicit(&chosen, v, memory_order_relaxed);
    }
    return v;
}

static size_t clamp(size_t len) {
    return lport_text_smaller(len, LPORT_TEXT_MAX);
}

/* The first line feed, or NULL. */
static const uint8_t *find_line_feed(const uint8_t *octets, size_t len) {
    return len == 0 ? NULL : memchr(octets, '\n', len);
}

static size_t count(const uint8_t *octets, size_t len) {
    return len == 0 ? 0 : variant()->count(octets, len);
}

int64_t lport_text_find_line(const uint8_t *octets, size_t len) {
    const uint8_t *found = find_line_feed(octets, len);
    return found == NULL ? (int64_t)len : found - octets;
}

int64_t lport_text_last_line(const uint8_t *octets, size_t len) {
    const uint8_t *found = len == 0 ? NULL : memrchr(octets, '\n', len);
    return found == NULL ? 0 : found - octets + 1;
}

int64_t lport_text_measure_line(const uint8_t *octets, size_t len) {
    const uint8_t *found = find_line_feed(octets, clamp(len));
    if (found == NULL) {
        return lport_status_make(LPORT_WOULD_BLOCK);
    }
    size_t line = (size_t)(found - octets);
    return lport_text_result(line, count(octets, line));
}

int64_t lport_text_from_utf8(const uint8_t *octets, size_t len, uint32_t *chars, size_t cap) {
    return lport_text_decode(variant(), octets, clamp(len), chars, clamp(cap));
}

int64_t lport_text_from_latin1(const uint8_t *octets, size_t len, uint32_t *chars, size_t cap) {
    size_t n = clamp(lport_text_smaller(len, cap));
    if (n == 0) {
        return 0;
    }
    variant()->widen(octets, n, chars);
    return lport_text_result(n, n);
}

int64_t lport_text_from_ascii(const uint8_t *octets, size_t len, uint32_t *chars, size_t cap) {
    size_t n = clamp(lport_text_smaller(len, cap));
    if (n == 0) {
        return 0;
    }
    n = variant()->ascii(octets, n);
    variant()->widen(octets, n, chars);
    return lport_text_result(n, n);
}

int64_t lport_text_from_ascii8(const uint8_t *octets, size_t len, uint8_t *chars, size_t cap) {
    size_t n = clamp(lport_text_smaller(len, cap));
    if (n == 0) {
        return 0;
    }
    n = variant()->ascii(octets, n);
    memcpy(chars, octets, n);
    return lport_text_result(n, n);
}

int64_t lport_text_utf8_problem(const uint8_t *octets, size_t len) {
    return lport_text_problem(octets, len);
}

int64_t lport_text_utf8_count(const uint8_t *octets, size_t len) {
    return (int64_t)count(octets, len);
}

int64_t lport_text_to_utf8(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap) {
    return lport_text_encode(variant(), chars, clamp(len), octets, clamp(cap));
}

int64_t lport_text_to_latin1(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap) {
    size_t n = clamp(lport_text_smaller(len, cap));
    if (n == 0) {
        return 0;
    }
    n = variant()->narrow(chars, n, octets, 0xFF);
    return lport_text_result(n, n);
}

int64_t lport_text_to_ascii(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap) {
    size_t n = clamp(lport_text_smaller(len, cap));
    if (n == 0) {
        return 0;
    }
    n = variant()->narrow(chars, n, octets, 0x7F);
    return lport_text_result(n, n);
}
