#include "setting.h"

#include "socket/socket.h"
#include "support.h"

#include <string.h>

int32_t index_of(const char *name) {
    for (int32_t i = 0; lport_option_name(i) != NULL; i++) {
        if (strcmp(lport_option_name(i), name) == 0) {
            return i;
        }
    }
    cr_assert_fail("no option %s", name);
    return -1;
}

int64_t get(int64_t socket, const char *name) {
    return lport_option_get(socket, index_of(name));
}

int64_t set(int64_t socket, const char *name, int64_t value) {
    return lport_option_set(socket, index_of(name), value);
}

static void put(uint8_t *octets, uint64_t number, int count) {
    for (int i = 0; i < count; i++) {
        octets[i] = (uint8_t)(number >> (8 * (count - 1 - i)) & 0xff);
    }
}

void put_setting(uint8_t *row, const char *name, int64_t value) {
    memset(row, 0, LPORT_SETTING_SIZE);
    put(row, (uint64_t)index_of(name), 4);
    put(row + 8, (uint64_t)value, 8);
}

void put_text_setting(uint8_t *row, const char *name, const char *text, size_t len) {
    put_setting(row, name, 0);
    put(row + 4, len, 4);
    memcpy(row + 8, text, len < LPORT_SETTING_SIZE - 8 ? len : LPORT_SETTING_SIZE - 8);
}

const struct sort sorts[SORTS] = {
    {TCP4, LPORT_INET, LPORT_STREAM},      {TCP6, LPORT_INET6, LPORT_STREAM},
    {UDP4, LPORT_INET, LPORT_DATAGRAM},    {UDP6, LPORT_INET6, LPORT_DATAGRAM},
    {LOCAL, LPORT_LOCAL, LPORT_STREAM},    {LOCAL, LPORT_LOCAL, LPORT_DATAGRAM},
    {LOCAL, LPORT_LOCAL, LPORT_SEQPACKET},
};

int64_t open_sort(int sort, int32_t flags) {
    int64_t socket = lport_socket_open(sorts[sort].family, sorts[sort].kind, flags);
    cr_assert_gt(socket, 0);
    return socket;
}
