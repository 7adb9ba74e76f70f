/* sink - texts that are written into a buffer of the caller's (layer 0).
 *
 * As libport.h says of every text: cut off at the CAP octets that there is room for, terminated by
 * a zero octet where there is room for that too; and it is told how long all of it is. */
#ifndef LPORT_SINK_H
#define LPORT_SINK_H

#include <stddef.h>
#include <stdint.h>

/* A text that grows in the CAP octets at TEXT; LEN is what all of it needs. */
struct lport_sink {
    char *text;
    size_t cap, len;
};

/* Appends SOURCE, NUL-terminated; the LEN octets at SOURCE, whatever they are; NUMBER in decimal.
 */
void lport_sink_put(struct lport_sink *sink, const char *source);
void lport_sink_octets(struct lport_sink *sink, const char *source, size_t len);
void lport_sink_number(struct lport_sink *sink, uint32_t number);

/* A text that is SOURCE, NUL-terminated, or the LEN octets there, and nothing else: its length. */
int64_t lport_sink_copy(const char *source, char *text, size_t cap);
int64_t lport_sink_copy_octets(const char *source, size_t len, char *text, size_t cap);

#endif
