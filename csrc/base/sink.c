/* sink - texts that are written into a buffer of the caller's (layer 0). Stands on nothing. See
 * sink.h.
 *
 * Invariant: nothing is written outside of the buffer, and the length of a text does not depend on
 * the room that there is. */
#include "sink.h"

#include <string.h>

int64_t lport_sink_copy_octets(const char *source, size_t len, char *text, size_t cap) {
    size_t copied = len < cap ? len : cap;
    if (copied > 0) {
        memcpy(text, source, copied);
    }
    if (len < cap) {
        text[len] = '\0';
    }
    return (int64_t)len;
}

int64_t lport_sink_copy(const char *source, char *text, size_t cap) {
    return lport_sink_copy_octets(source, strlen(source), text, cap);
}

void lport_sink_octets(struct lport_sink *sink, const char *source, size_t len) {
    size_t room = sink->len < sink->cap ? sink->cap - sink->len : 0;
    char *end = room > 0 ? sink->text + sink->len : NULL;
    sink->len += (size_t)lport_sink_copy_octets(source, len, end, room);
}

void lport_sink_put(struct lport_sink *sink, const char *source) {
    lport_sink_octets(sink, source, strlen(source));
}

void lport_sink_number(struct lport_sink *sink, uint32_t number) {
    char digits[10];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    lport_sink_octets(sink, digits + at, sizeof digits - at);
}
