/* replay - runs a fuzz target where there is no libFuzzer: on text of all scripts, with a fault
 * here and there, by a seed that is printed when a run fails.
 *
 *   replay [SEED [RUNS]] */
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { INPUT = 1400 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state;
static char report[80];
static int report_len;

/* xorshift64*: Marsaglia, "Xorshift RNGs", 2003; Vigna, 2016. */
static uint32_t below(uint32_t limit) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * UINT64_C(2685821657736338717)) >> 32) % limit;
}

/* The character CODE as UTF-8, which has SIZE octets. */
static void put(uint8_t *octets, uint32_t code, uint32_t size) {
    static const uint8_t marks[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (uint32_t i = size; i-- > 1; code >>= 6) {
        octets[i] = (uint8_t)(0x80 | (code & 0x3F));
    }
    octets[0] = (uint8_t)(size == 1 ? code : marks[size] | code);
}

/* Runs of up to 40 characters of one size each; how many octets. */
static size_t make_text(uint8_t *octets, size_t cap) {
    static const uint32_t first[] = {0, 0, 0x80, 0x800, 0x10000};
    static const uint32_t end[] = {0, 0x80, 0x800, 0xD800, 0x110000};
    size_t len = 0;
    while (len + 4 <= cap) {
        uint32_t size = 1 + below(4);
        for (uint32_t run = 1 + below(40); run > 0 && len + 4 <= cap; run--, len += size) {
            put(octets + len, first[size] + below(end[size] - first[size]), size);
        }
    }
    return len;
}

static void say_seed(int number) {
    ssize_t written = write(STDERR_FILENO, report, (size_t)report_len);
    (void)written;
    signal(number, SIG_DFL);
    raise(number);
}

int main(int argc, char **argv) {
    static uint8_t input[2 + INPUT];
    uint64_t seed = (uint64_t)(argc > 1 ? strtoull(argv[1], NULL, 0) : (unsigned)getpid());
    unsigned long runs = argc > 2 ? strtoul(argv[2], NULL, 0) : 20000;
    report_len = snprintf(report, sizeof report, "replay: failed with seed %llu\n",
                          (unsigned long long)seed);
    state = seed * 2 + 1;
    signal(SIGABRT, say_seed);
    signal(SIGSEGV, say_seed);
    for (unsigned long run = 0; run < runs; run++) {
        size_t len = 2 + make_text(input + 2, below(INPUT));
        input[0] = (uint8_t)below(256);
        input[1] = (uint8_t)below(256);
        for (uint32_t faults = below(2) * below(4); faults > 0 && len > 2; faults--) {
            input[2 + below((uint32_t)len - 2)] = (uint8_t)below(256);
        }
        /* The target sees a block of just this size, so that a look beyond is seen too. */
        uint8_t *exact = malloc(len);
        if (exact == NULL) {
            return 1;
        }
        for (size_t i = 0; i < len; i++) {
            exact[i] = input[i];
        }
        LLVMFuzzerTestOneInput(exact, len);
        free(exact);
    }
    printf("replay: %lu passed, 0 failed\n", runs);
    return 0;
}
