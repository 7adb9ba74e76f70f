/* proxy_fuzz - a libFuzzer target, see `make fuzz': lport_proxy_parse on any octets.
 *
 * The octets are given as they are and, so that the fuzzer need not find it, behind the signature
 * of version 2. What has to hold: no prefix of a header is a header or bad, what is bad stays bad
 * whatever follows, the ends are blocks that print, and a header that is made of them is read as
 * them, or, of what it cannot say, as none. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "libport.h"

enum { SIGNATURE = 12 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool truth) {
    if (!truth) {
        abort();
    }
}

/* A header of VERSION for these ends is one. */
static void print_again(int32_t version, const uint8_t *source, const uint8_t *destination) {
    uint8_t octets[LPORT_PROXY_SIZE], ends[2][LPORT_ADDRESS_SIZE];
    int64_t len = lport_proxy_print(version, source, destination, octets, sizeof octets);
    must(len > 0 && len <= LPORT_PROXY_SIZE);
    must(lport_proxy_parse(octets, (size_t)len, ends[0], ends[1]) == len);
    if (version == 2 || source[0] != LPORT_LOCAL) {
        must(lport_address_equal(source, ends[0]) == 1);
        must(lport_address_equal(destination, ends[1]) == 1);
    }
}

/* Parses from a block of exactly LEN octets. */
static int64_t parse(const uint8_t *octets, size_t len) {
    uint8_t source[LPORT_ADDRESS_SIZE], destination[LPORT_ADDRESS_SIZE];
    char text[LPORT_TEXT_SIZE];
    uint8_t *exact = malloc(len ? len : 1);
    if (exact == NULL) {
        exit(1);
    }
    if (len > 0) {
        memcpy(exact, octets, len);
    }
    int64_t result = lport_proxy_parse(exact, len, source, destination);
    free(exact);
    if (result > 0) {
        must(lport_address_print(source, text, sizeof text) >= 0);
        must(lport_address_print(destination, text, sizeof text) >= 0);
        print_again(1, source, destination);
        print_again(2, source, destination);
    }
    return result;
}

static void check(const uint8_t *octets, size_t len) {
    int64_t whole = parse(octets, len);
    must(whole <= (int64_t)len);
    for (size_t cut = 0; cut < len; cut++) {
        int64_t part = parse(octets, cut);
        if (part < 0) {
            must(whole < 0);
        } else if (part > 0) {
            must(whole == part && (size_t)part <= cut);
        } else {
            must(whole <= 0 || (size_t)whole > cut);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *signed_data = malloc(SIGNATURE + size);
    if (signed_data == NULL) {
        exit(1);
    }
    memcpy(signed_data, "\r\n\r\n\0\r\nQUIT\n", SIGNATURE);
    if (size > 0) {
        memcpy(signed_data + SIGNATURE, data, size);
    }
    check(data, size);
    check(signed_data, SIGNATURE + size);
    free(signed_data);
    return 0;
}
