/* peer_text - lines and characters: what they are made of, as UTF-32 and as UTF-8, and how they are
 * read and written. See peer.c. */
#include "peer.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LINE_CHARACTERS = 80,
    LINE_MAX_OCTETS = 4 * LINE_CHARACTERS + 1,
    LINES = 800 /* different ones, more than a branch predictor learns by heart */
};

/* ---- what the lines are made of -------------------------------------------------------------- */

/* A character of WIDTH octets, the I-th of its kind. */
static uint32_t letter(uint32_t width, uint32_t i) {
    static const uint32_t first[] = {0, 'a', 0x3b1, 0x4e00, 0x1f600};
    return first[width] + i % 24;
}

/* The next of a fixed sequence of numbers that looks random. */
static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525 + 1013904223;
    return *state >> 16;
}

/* A line of LINE_CHARACTERS: printable ASCII; or MIXED, runs of 1 to 8 characters of 1 to 4 octets.
 */
static void make_line(uint32_t *chars, bool mixed, uint32_t *state) {
    uint32_t left = 0;
    uint32_t width = 1;
    for (size_t i = 0; i < LINE_CHARACTERS; i++) {
        uint32_t random = next_random(state);
        if (left == 0) {
            left = 1 + random % 8;
            width = 1 + random / 8 % 4;
        }
        left--;
        chars[i] = mixed ? letter(width, random / 32) : ' ' + random % 95;
    }
}

static uint8_t *encode_one(uint32_t c, uint8_t *to) {
    if (c < 0x80) {
        *to++ = (uint8_t)c;
    } else if (c < 0x800) {
        *to++ = (uint8_t)(0xc0 | c >> 6);
        *to++ = (uint8_t)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *to++ = (uint8_t)(0xe0 | c >> 12);
        *to++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *to++ = (uint8_t)(0x80 | (c & 0x3f));
    } else {
        *to++ = (uint8_t)(0xf0 | c >> 18);
        *to++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        *to++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *to++ = (uint8_t)(0x80 | (c & 0x3f));
    }
    return to;
}

/* LEN characters as UTF-8, eight at once where all are ASCII; how many octets. */
static size_t encode_utf8(const uint32_t *chars, size_t len, uint8_t *octets) {
    uint8_t *to = octets;
    for (size_t i = 0; i < len;) {
        uint32_t all = 0x80;
        if (len - i >= 8) {
            all = 0;
            for (size_t k = 0; k < 8; k++) {
                all |= chars[i + k];
            }
        }
        if (all < 0x80) {
            for (size_t k = 0; k < 8; k++) {
                to[k] = (uint8_t)chars[i + k];
            }
            to += 8;
            i += 8;
        } else {
            to = encode_one(chars[i++], to);
        }
    }
    return (size_t)(to - octets);
}

/* One character that is not ASCII, validated; its octets, 0 where it is none or is cut off. */
static size_t decode_one(const uint8_t *octets, size_t len, uint32_t *character) {
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    uint32_t first = octets[0];
    size_t more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    uint32_t c = first & 0x3fU >> more;
    if (first < 0xc2 || first > 0xf4 || len <= more) {
        return 0;
    }
    for (size_t k = 1; k <= more; k++) {
        if ((octets[k] & 0xc0) != 0x80) {
            return 0;
        }
        c = c << 6 | (octets[k] & 0x3fU);
    }
    *character = c;
    return c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : more + 1;
}

/* A validating decoder, eight octets at once where all are ASCII; how many of OCTETS it has taken,
 * and in PRODUCED how many characters they are. */
static size_t decode_utf8(const uint8_t *octets, size_t len, uint32_t *chars, size_t *produced) {
    uint32_t *to = chars;
    size_t i = 0;
    while (i < len) {
        uint64_t eight = UINT64_MAX;
        if (len - i >= 8) {
            memcpy(&eight, octets + i, 8);
        }
        if ((eight & 0x8080808080808080U) == 0) {
            for (size_t k = 0; k < 8; k++) {
                to[k] = octets[i + k];
            }
            to += 8;
            i += 8;
        } else if (octets[i] < 0x80) {
            *to++ = octets[i++];
        } else {
            size_t width = decode_one(octets + i, len - i, to);
            if (width == 0) {
                break;
            }
            to++;
            i += width;
        }
    }
    *produced = (size_t)(to - chars);
    return i;
}

struct pattern pattern_of(const char *kind) {
    struct pattern pattern = {calloc(LINES, LINE_MAX_OCTETS), PIECE, strcmp(kind, "octets") != 0};
    uint32_t state = 1;
    if (pattern.octets == NULL) {
        fail("calloc");
    }
    if (pattern.lines) {
        pattern.len = 0;
        for (size_t i = 0; i < LINES; i++) {
            uint32_t chars[LINE_CHARACTERS + 1];
            make_line(chars, strcmp(kind, "mixed") == 0, &state);
            chars[LINE_CHARACTERS] = '\n';
            pattern.len += encode_utf8(chars, LINE_CHARACTERS + 1, pattern.octets + pattern.len);
        }
    }
    return pattern;
}

int64_t octets_in(int64_t count, const struct pattern *pattern) {
    const uint8_t *at = pattern->octets;
    if (!pattern->lines) {
        return count;
    }
    for (int64_t i = 0; i < count % LINES; i++) {
        at = (const uint8_t *)memchr(at, '\n', LINE_MAX_OCTETS) + 1;
    }
    return count / LINES * (int64_t)pattern->len + (at - pattern->octets);
}

void print_lines(const char *kind) {
    struct pattern pattern = pattern_of(kind);
    if (fwrite(pattern.octets, 1, pattern.len, stdout) != pattern.len || fflush(stdout) != 0) {
        fail("stdout");
    }
    free(pattern.octets);
}

/* ---- workloads ------------------------------------------------------------------------------- */

/* The lines in LEN octets at BUFFER, decoded one by one; what is left over moves to the front. */
static size_t take_lines(uint8_t *buffer, size_t len, int64_t *lines) {
    static uint32_t chars[LINE_MAX_OCTETS];
    uint8_t *from = buffer;
    uint8_t *end;
    while ((end = memchr(from, '\n', (size_t)(buffer + len - from))) != NULL) {
        size_t produced;
        (void)decode_utf8(from, (size_t)(end - from), chars, &produced);
        if (produced != LINE_CHARACTERS) {
            fail("characters are missing");
        }
        ++*lines;
        from = end + 1;
    }
    len -= (size_t)(from - buffer);
    memmove(buffer, from, len);
    return len;
}

void run_read_lines(const struct workload *workload, uint16_t port, int64_t count) {
    static uint8_t buffer[PIECE + LINE_MAX_OCTETS];
    int64_t lines = 0;
    size_t kept = 0;
    int fd = connect_to(port);
    struct stopwatch from = start();
    while (lines < count) {
        size_t len = receive_some(fd, buffer + kept, PIECE);
        if (len == 0) {
            fail("lines are missing");
        }
        kept = take_lines(buffer, kept + len, &lines);
    }
    report(workload->name, &from, lines);
    close(fd);
}

/* Characters by the thousand; an operation is a thousand. */
void run_read_text(const struct workload *workload, uint16_t port, int64_t count) {
    static uint8_t buffer[PIECE + 4];
    static uint32_t chars[PIECE + 4];
    int64_t characters = 0;
    size_t kept = 0;
    int fd = connect_to(port);
    struct stopwatch from = start();
    while (characters < count * 1000) {
        size_t produced;
        size_t len = kept + receive_some(fd, buffer + kept, PIECE);
        size_t taken = decode_utf8(buffer, len, chars, &produced);
        if (produced == 0) {
            fail("characters are missing");
        }
        characters += (int64_t)produced;
        kept = len - taken;
        memmove(buffer, buffer + taken, kept);
    }
    report(workload->name, &from, characters / 1000);
    close(fd);
}

/* The lines of a pattern as characters, each of LINE_CHARACTERS. */
static uint32_t *characters_of(const char *kind) {
    struct pattern pattern = pattern_of(kind);
    uint32_t *chars = calloc(LINES * (LINE_CHARACTERS + 1), sizeof *chars);
    size_t produced;
    if (chars == NULL) {
        fail("calloc");
    }
    (void)decode_utf8(pattern.octets, pattern.len, chars, &produced);
    free(pattern.octets);
    return chars;
}

void run_write_lines(const struct workload *workload, uint16_t port, int64_t count) {
    static uint8_t buffer[PIECE];
    uint32_t *chars = characters_of(workload->kind);
    size_t len = 0;
    int fd = connect_to(port);
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        if (len + LINE_MAX_OCTETS > sizeof buffer) {
            send_all(fd, buffer, len);
            len = 0;
        }
        len +=
            encode_utf8(chars + i % LINES * (LINE_CHARACTERS + 1), LINE_CHARACTERS, buffer + len);
        buffer[len++] = '\n';
    }
    send_all(fd, buffer, len);
    report(workload->name, &from, count);
    close(fd);
    free(chars);
}
