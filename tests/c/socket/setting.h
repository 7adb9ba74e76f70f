/* setting - what the tests of options share: options by their names, and sockets of every sort that
 * options tell apart. */
#ifndef SETTING_H
#define SETTING_H

#include <stddef.h>
#include <stdint.h>

#define SECOND INT64_C(1000000000)

/* Option NAME of SOCKET. */
int32_t index_of(const char *name);
int64_t get(int64_t socket, const char *name);
int64_t set(int64_t socket, const char *name, int64_t value);

/* Makes ROW the setting of option NAME to VALUE, or to the LEN octets at TEXT. */
void put_setting(uint8_t *row, const char *name, int64_t value);
void put_text_setting(uint8_t *row, const char *name, const char *text, size_t len);

/* The sockets that an option may be for; they add up. */
enum {
    TCP4 = 1,
    TCP6 = 2,
    UDP4 = 4,
    UDP6 = 8,
    LOCAL = 16,
    TCP = TCP4 | TCP6,
    UDP = UDP4 | UDP6,
    IP = 15,
    ALL = 31,
};

enum { SORTS = 7 };

extern const struct sort {
    int bit;
    int32_t family, kind;
} sorts[SORTS];

int64_t open_sort(int sort, int32_t flags);

#endif
