/* text_x86 - what text_x86_utf8.c and text_x86_avx512.c have for text_x86.c (layer 1, private to
 * `text`): the UTF-8 of struct lport_text_variant, for SSE4.1, for AVX2 and for AVX-512. */
#ifndef LPORT_TEXT_X86_H
#define LPORT_TEXT_X86_H

#include "text_variants.h"

size_t lport_text_sift_sse41(const uint8_t *octets, size_t len, struct lport_text_chunk *chunk);
void lport_text_gather_sse41(const struct lport_text_chunk *chunk, uint32_t *chars, size_t count);
size_t lport_text_usable_sse41(const uint32_t *chars, size_t len);
int64_t lport_text_pack_sse41(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap);

size_t lport_text_sift_avx2(const uint8_t *octets, size_t len, struct lport_text_chunk *chunk);
void lport_text_gather_avx2(const struct lport_text_chunk *chunk, uint32_t *chars, size_t count);
size_t lport_text_usable_avx2(const uint32_t *chars, size_t len);
int64_t lport_text_pack_avx2(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap);

int64_t lport_text_decode_avx512(const uint8_t *octets, size_t len, uint32_t *chars, size_t cap);
int64_t lport_text_encode_avx512(const uint32_t *chars, size_t len, uint8_t *octets, size_t cap);

#endif
