/* text_vector - what the variants with byte shuffles, text_x86_utf8.c and text_neon.c, share (layer
 * 1, private to `text`). */
#ifndef LPORT_TEXT_VECTOR_H
#define LPORT_TEXT_VECTOR_H

#include <string.h>

#include "text_variants.h"

#define LPORT_CHUNK 512 /* octets; a multiple of 64. With its copy it stays in the first cache */

/* Whole characters, taken apart. Behind the last, `leads` says for eight octets that a character
 * begins there: that ends the last one. Behind that the contents mean nothing. */
struct lport_text_chunk {
    uint8_t payload[LPORT_CHUNK + 16];  /* the octets without their marks */
    uint8_t excess[LPORT_CHUNK];        /* of a lead: six bits for each octet short of four */
    uint8_t leads[LPORT_CHUNK / 8 + 4]; /* bit I % 8 of octet I / 8: a character begins at I */
};

/* Shuffles, written by text_tables.py. Decoding: puts every character that begins in the first four
 * of seven octets at the end of a lane of four octets; indexed by the seven bits that say where
 * characters begin. */
extern const uint8_t lport_text_gather[128][16];

/* For processors that move lanes of 32 bits freely: the octets of eight in which characters begin,
 * in order; indexed by the bits that say so. Places left over repeat the first. */
extern const uint8_t lport_text_order[256][8];

/* Encoding: moves the octets at the ends of four lanes together; indexed by the sizes less one,
 * bits 0 to 3 their low bits, bits 4 to 7 their high bits. */
extern const uint8_t lport_text_pack[256][16];

/* Validation: two neighbouring octets are wrong together if the rows that the high half of the
 * first, the low half of the first and the high half of the second choose have a bit in common; or
 * if they both continue, which shows as LPORT_CONTINUES, unless an octet of E0 or more stands two
 * places before the second or one of F0 or more three places before it, and then they must. (Keiser
 * and Lemire, "Validating UTF-8 in less than one instruction per byte", 2021.) */
#define LPORT_CONTINUES 0x80
extern const uint8_t lport_text_first_high[16];
extern const uint8_t lport_text_first_low[16];
extern const uint8_t lport_text_second_high[16];

/* The bits of an octet that belong to the code point, by its high half. */
extern const uint8_t lport_text_payload[16];

/* What `excess` of a chunk holds, by the high half of the octet. */
extern const uint8_t lport_text_excess[16];

/* ---- the ends of vectors, without branches that depend on the text --------------------------- */

/* A vector of SIZE octets that holds the last LEN % SIZE octets and then zeros: in SPACE, which is
 * two vectors long. */
static inline const uint8_t *lport_text_last_vector(const uint8_t *octets, size_t len, size_t size,
                                                    uint8_t *space) {
    size_t part = len % size;
    memset(space + size, 0, size);
    if (len >= size) {
        memcpy(space, octets + len - size, size);
        return space + size - part;
    }
    memset(space, 0, size);
    return memcpy(space, octets, part);
}

/* A step of gathering writes eight characters at most. So the steps up to GATHER_LAST before the
 * end are done in place, and what they write too much is overwritten; the rest goes by way of the
 * stack. */
#define GATHER_LAST 11

/* COUNT characters, GATHER_LAST at most: by three vectors that overlap. */
static inline void lport_text_last_chars(const uint32_t *last, size_t count, uint32_t *chars) {
    if (count >= 4) {
        size_t second = lport_text_smaller(4, count - 4);
        memcpy(chars, last, 16);
        memcpy(chars + second, last + second, 16);
        memcpy(chars + count - 4, last + count - 4, 16);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        chars[i] = last[i];
    }
}

/* A step of packing writes up to 12 octets more than it produces. So the last PACK_LAST characters
 * (12 at least, and whole steps) go by way of the stack, and a first step, which may be for a part
 * of its eight characters only, needs PACK_LEAST. */
#define PACK_LAST  16
#define PACK_LEAST (PACK_LAST + 8)

/* The room a step needs: 32 octets, and three in which there may be no room for a character. */
#define PACK_ROOM (32 + 3)

/* SIZE octets, 16 to 4 * PACK_LAST: by four vectors that overlap. */
static inline void lport_text_last_octets(const uint8_t *last, size_t size, uint8_t *octets) {
    for (size_t i = 0; i < 4 * PACK_LAST; i += 16) {
        size_t at = lport_text_smaller(i, size - 16);
        memcpy(octets + at, last + at, 16);
    }
}

/* The characters that `usable` looks at, at most: they stay in the first cache. */
#define USABLE_MOST 1024

#endif
