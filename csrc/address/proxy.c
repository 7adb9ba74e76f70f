/* proxy - reads the header that a proxy puts in front of a connection's octets (layer 1); the one
 * in proxy_print.c writes it. Stands on status and address. See libport.h, and proxy-protocol.txt
 * of HAProxy, whose sections are named here.
 *
 * Version 1 is a line of text (2.1), version 2 is binary (2.2); their first octets tell which.
 *
 * Invariant: nothing is read past a header, and the beginning of a good header is never taken for a
 * bad one, wherever it was cut. */
#include "address.h"
#include "base/status.h"
#include "libport.h"
#include "proxy.h"

#include <stdbool.h>
#include <string.h>

enum {
    LINE_MAX_OCTETS = 107, /* of a line of version 1 with its CR LF, 2.1 */
    LINE_START = sizeof LPORT_PROXY_LINE_START - 1,
    SIGNATURE = sizeof LPORT_PROXY_SIGNATURE - 1,
    FIELD_START = 3, /* octets of a field before its value: what it is, and how long, 2.2.1 */
    FIELD_CHECKSUM = 0x03,
    CHECKSUM = 4, /* octets of its value */
};

static const char line_start[] = LPORT_PROXY_LINE_START;
static const char signature[] = LPORT_PROXY_SIGNATURE;

static int64_t malformed(void) {
    return lport_status_make(LPORT_PROXY_SYNTAX);
}

/* True if the LEN octets there are so far may go on to be START. */
static bool may_start(const uint8_t *octets, size_t len, const char *start, size_t size) {
    return memcmp(octets, start, len < size ? len : size) == 0;
}

/* ---- version 1 ------------------------------------------------------------------------------- */

struct word {
    const char *text;
    size_t len;
};

/* The words of LINE, which single spaces separate; how many, one more than MAX if there are more.
 */
static size_t split(const char *line, size_t len, struct word *words, size_t max) {
    size_t count = 0;
    for (size_t at = 0; at <= len; count++) {
        if (count == max) {
            return max + 1;
        }
        const char *space = memchr(line + at, ' ', len - at);
        size_t end = space ? (size_t)(space - line) : len;
        words[count] = (struct word){line + at, end - at};
        at = end + 1;
    }
    return count;
}

static bool is_word(struct word word, const char *text) {
    return word.len == strlen(text) && memcmp(word.text, text, word.len) == 0;
}

/* The end that HOST and PORT spell, which have to be of FAMILY, into ADDRESS. */
static bool read_end(struct word host, struct word port, int32_t family, uint8_t *address) {
    int64_t number = lport_port_parse(port.text, port.len);
    /* Brackets and zones are for people. */
    if (number < 0 || memchr(host.text, '[', host.len) || memchr(host.text, '%', host.len) ||
        lport_address_parse(host.text, host.len, (int32_t)number, address) != family) {
        return false;
    }
    lport_address_unmap(address);
    return true;
}

/* The LEN octets of LINE behind `PROXY `, without the CR LF. */
static bool read_line(const char *line, size_t len, uint8_t *source, uint8_t *destination) {
    enum { PROTOCOL, SOURCE, DESTINATION, SOURCE_PORT, DESTINATION_PORT, WORDS };
    struct word words[WORDS];
    size_t count = split(line, len, words, WORDS);
    if (is_word(words[PROTOCOL], "UNKNOWN")) {
        return true; /* whatever follows */
    }
    bool inet = is_word(words[PROTOCOL], "TCP4");
    if (count != WORDS || (!inet && !is_word(words[PROTOCOL], "TCP6"))) {
        return false;
    }
    int32_t family = inet ? LPORT_INET : LPORT_INET6;
    return read_end(words[SOURCE], words[SOURCE_PORT], family, source) &&
           read_end(words[DESTINATION], words[DESTINATION_PORT], family, destination);
}

static int64_t parse_line(const uint8_t *octets, size_t len, uint8_t *source,
                          uint8_t *destination) {
    size_t most = len < LINE_MAX_OCTETS ? len : LINE_MAX_OCTETS;
    const uint8_t *end = memchr(octets, '\n', most);
    if (end == NULL) {
        return len < LINE_MAX_OCTETS ? 0 : malformed();
    }
    /* What came before is line_start: that has no CR, so one in front of the LF is behind it. */
    size_t size = (size_t)(end - octets) + 1, before = LINE_START;
    if (octets[size - 2] != '\r' ||
        !read_line((const char *)octets + before, size - 2 - before, source, destination)) {
        return malformed();
    }
    return (int64_t)size;
}

/* ---- version 2 ------------------------------------------------------------------------------- */

/* Families and protocols, 2.2; any other is to be rejected. SIZE: octets of an address. */
static const struct family {
    uint8_t code;
    uint8_t family;
    uint8_t size;
} families[] = {
    {0x00, LPORT_ANY, 0},
    {0x11, LPORT_INET, 4},
    {0x12, LPORT_INET, 4},
    {0x21, LPORT_INET6, 16},
    {0x22, LPORT_INET6, 16},
    {0x31, LPORT_LOCAL, LPORT_PROXY_PATH},
    {0x32, LPORT_LOCAL, LPORT_PROXY_PATH},
};

static const struct family *find_family(uint8_t code) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (families[i].code == code) {
            return &families[i];
        }
    }
    return NULL;
}

static int32_t number_at(const uint8_t *octets) {
    return octets[0] << 8 | octets[1];
}

/* The octets of the local name at OCTETS, which zeros fill up: a path ends at the first of them, an
 * abstract name, which begins with one, before the last run of them. */
static size_t name_length(const uint8_t *octets) {
    size_t len = LPORT_PROXY_PATH;
    if (octets[0] != '\0') {
        return strnlen((const char *)octets, LPORT_PROXY_PATH);
    }
    while (len > 0 && octets[len - 1] == '\0') {
        len--;
    }
    return len;
}

/* The addresses at OCTETS: both, then both ports. */
static void read_ends(const struct family *row, const uint8_t *octets, uint8_t *source,
                      uint8_t *destination) {
    const uint8_t *second = octets + row->size, *ports = second + row->size;
    if (row->family == LPORT_LOCAL) {
        lport_address_set(source, LPORT_LOCAL, octets, name_length(octets), 0);
        lport_address_set(destination, LPORT_LOCAL, second, name_length(second), 0);
    } else if (row->family != LPORT_ANY) {
        lport_address_set(source, row->family, octets, row->size, number_at(ports));
        lport_address_set(destination, row->family, second, row->size, number_at(ports + 2));
        lport_address_unmap(source);
        lport_address_unmap(destination);
    }
}

/* The CRC32c of LEN more OCTETS, RFC 4960, Appendix B, where CRC is that of those before, 0 for
 * none. */
static uint32_t crc32c(uint32_t crc, const uint8_t *octets, size_t len) {
    static const uint32_t halves[] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc = crc >> 4 ^ halves[(crc ^ octets[i]) & 15];
        crc = crc >> 4 ^ halves[(crc ^ (uint32_t)octets[i] >> 4) & 15];
    }
    return ~crc;
}

/* The value of the checksum among the fields from AT to LEN of HEADER, NULL if there is none that
 * is whole; half a field ends the search. */
static const uint8_t *find_checksum(const uint8_t *header, size_t at, size_t len, size_t *size) {
    while (len - at >= FIELD_START) {
        const uint8_t *value = header + at + FIELD_START;
        size_t more = (size_t)number_at(header + at + 1);
        if (more > len - at - FIELD_START) {
            return NULL;
        }
        if (header[at] == FIELD_CHECKSUM) {
            *size = more;
            return value;
        }
        at += FIELD_START + more;
    }
    return NULL;
}

/* False if there is a checksum among the fields from AT to LEN of HEADER, and it is not that of the
 * header with zeros in its place, 2.2.3. */
static bool checksum_holds(const uint8_t *header, size_t at, size_t len) {
    static const uint8_t zeros[CHECKSUM];
    size_t size = 0;
    const uint8_t *value = find_checksum(header, at, len, &size);
    if (value == NULL) {
        return true;
    }
    if (size != CHECKSUM) {
        return false;
    }
    uint32_t crc = crc32c(0, header, (size_t)(value - header));
    crc = crc32c(crc, zeros, CHECKSUM);
    crc = crc32c(crc, value + CHECKSUM, len - (size_t)(value + CHECKSUM - header));
    return crc == ((uint32_t)value[0] << 24 | (uint32_t)value[1] << 16 | (uint32_t)value[2] << 8 |
                   (uint32_t)value[3]);
}

static int64_t parse_binary(const uint8_t *octets, size_t len, uint8_t *source,
                            uint8_t *destination) {
    if (len < LPORT_PROXY_FIXED) {
        return 0;
    }
    const struct family *row = find_family(octets[LPORT_PROXY_AT_FAMILY]);
    size_t more = (size_t)number_at(octets + LPORT_PROXY_AT_LENGTH);
    bool local =
        octets[LPORT_PROXY_AT_COMMAND] == LPORT_PROXY_LOCAL; /* the family is ignored then */
    if (!local && (octets[LPORT_PROXY_AT_COMMAND] != LPORT_PROXY_PROXY || row == NULL)) {
        return malformed();
    }
    size_t ports = row != NULL && (row->family == LPORT_INET || row->family == LPORT_INET6) ? 4 : 0;
    if (!local && more < 2 * (size_t)row->size + ports) {
        return malformed();
    }
    if (len < LPORT_PROXY_FIXED + more) {
        return 0;
    }
    if (!local && !checksum_holds(octets, LPORT_PROXY_FIXED + 2 * (size_t)row->size + ports,
                                  LPORT_PROXY_FIXED + more)) {
        return malformed();
    }
    if (!local) {
        read_ends(row, octets + LPORT_PROXY_FIXED, source, destination);
    }
    return (int64_t)(LPORT_PROXY_FIXED + more);
}

/* ---- both ------------------------------------------------------------------------------------ */

int64_t lport_proxy_parse(const uint8_t *octets, size_t len, uint8_t *source,
                          uint8_t *destination) {
    uint8_t ends[2][LPORT_ADDRESS_SIZE] = {{LPORT_ANY}};
    int64_t result = 0;
    if ((octets == NULL && len > 0) || source == NULL || destination == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    if (len == 0) {
        return 0;
    }
    if (may_start(octets, len, line_start, LINE_START)) {
        result = parse_line(octets, len, ends[0], ends[1]);
    } else if (may_start(octets, len, signature, SIGNATURE)) {
        result = parse_binary(octets, len, ends[0], ends[1]);
    } else {
        return malformed();
    }
    if (result > 0) {
        memcpy(source, ends[0], LPORT_ADDRESS_SIZE);
        memcpy(destination, ends[1], LPORT_ADDRESS_SIZE);
    }
    return result;
}
