/* option - socket options read and written (layer 2). Stands on os, status, sink, handle,
 * interface, and on the rows of option_table.
 *
 * Invariant: what crosses the boundary is what the header says of the option's kind, whatever form
 * the system has for it: times are nanoseconds, enumerations places in their list, none is
 * LPORT_NEVER. An IPv6 socket that sends IPv4 too has one value for both. */
#include "option.h"

#include "address/interface.h"
#include "base/os.h"
#include "base/sink.h"
#include "handle.h"
#include "libport.h"
#include "option_table.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum {
    TEXT_ROOM = 64, /* octets for any text of the system's */
    TEXT_MAX = 15,  /* of a name of an interface (IFNAMSIZ) or an algorithm (TCP_CA_NAME_MAX) */
};

static int bit_of(int32_t family, int32_t kind) {
    if (family == LPORT_LOCAL) {
        return LOCAL;
    }
    if (kind == LPORT_STREAM) {
        return family == LPORT_INET ? TCP4 : TCP6;
    }
    return family == LPORT_INET ? UDP4 : UDP6;
}

/* An option of a socket that the caller has entered. */
struct target {
    const struct lport_option *option;
    struct lport_slot *slot;
    struct place at;
    bool beside; /* it is IPv4's place, beside that of IPv6, of a socket for both */
    int fd;
};

/* True (1) if TARGET is of an IPv6 socket that sends IPv4 too, and both have the option; or a
 * status. */
static int64_t is_for_both(const struct target *target) {
    int only;
    socklen_t len = sizeof only;
    if (target->at.level != IPPROTO_IPV6 || target->option->at6.number == 0) {
        return 0;
    }
    return lport_os.getsockopt(target->fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &len) < 0
               ? lport_status_from_errno(LPORT_IN_GENERAL, errno)
               : only == 0;
}

/* Enters SOCKET for option INDEX; 0, or a status and not entered. */
static int64_t enter_for(int64_t socket, int32_t index, struct target *target) {
    target->option = lport_option_row(index);
    if (target->option == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t fd = lport_handle_enter(socket, &target->slot);
    if (fd < 0) {
        return fd;
    }
    int bit = bit_of(target->slot->family, target->slot->kind);
    if ((target->option->sockets & bit) == 0) {
        lport_handle_leave(target->slot);
        return lport_status_make(LPORT_NOT_SUPPORTED);
    }
    target->fd = (int)fd;
    target->beside = false;
    target->at = (bit & IP6) != 0 && target->option->at6.number != 0 ? target->option->at6
                                                                     : target->option->at;
    return 0;
}

static int64_t read_system(const struct target *target, void *value, socklen_t len) {
    memset(value, 0, len);
    return lport_os.getsockopt(target->fd, target->at.level, target->at.number, value, &len) < 0
               ? lport_status_from_errno(LPORT_IN_GENERAL, errno)
               : (int64_t)len;
}

static int64_t write_system(const struct target *target, const void *value, size_t len) {
    return lport_os.setsockopt(target->fd, target->at.level, target->at.number, value,
                               (socklen_t)len) < 0
               ? lport_status_from_errno(LPORT_IN_GENERAL, errno)
               : 0;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static bool has_none(const struct lport_option *option) {
    return (option->flags & HAS_NONE) != 0;
}

/* Nanoseconds in a unit of time. */
static int64_t step_of(const struct lport_option *option) {
    return strcmp(option->unit, "milliseconds") == 0 ? 1000000 : 1000000000;
}

/* SPAN, not negative, in steps of OPTION, rounded up: half a second must not become 0, which may
 * mean none. */
static int64_t steps_in(const struct lport_option *option, int64_t span) {
    int64_t step = step_of(option);
    return span / step + (span % step != 0);
}

static int64_t place_of(const struct choice *choices, int number) {
    for (int64_t i = 0; choices[i].name != NULL; i++) {
        if (choices[i].number == number) {
            return i;
        }
    }
    return lport_status_make(LPORT_OTHER);
}

/* The system's NUMBER as the header has it. */
static int64_t from_number(const struct lport_option *option, int number) {
    if (has_none(option) && number == option->none) {
        return LPORT_NEVER;
    }
    switch (option->shape) {
    case CHOICE:
        return place_of(option->choices, number);
    case TIME:
        return number * step_of(option);
    case BOOLEAN:
        return number != 0;
    default:
        return number >= 0 ? number : lport_status_make(LPORT_OTHER);
    }
}

/* The system's number of the choice at PLACE, or -1. */
static int number_at(const struct choice *choices, int64_t place) {
    for (int64_t i = 0; choices[i].name != NULL; i++) {
        if (i == place) {
            return choices[i].number;
        }
    }
    return -1;
}

/* The largest value of OPTION that is not for the system to refuse. */
static int64_t largest(const struct lport_option *option) {
    int64_t of_number = (option->flags & IS_OCTET) != 0 ? UINT8_MAX : INT64_MAX;
    return option->shape == BOOLEAN ? 1 : of_number;
}

/* VALUE as the header has it in the system's form, into NUMBER; 0 or LPORT_INVALID. */
static int64_t to_number(const struct lport_option *option, int64_t value, int *number) {
    int64_t result = value;
    if (has_none(option) && value == LPORT_NEVER) {
        *number = option->none;
        return 0;
    }
    if (value >= 0 && option->shape == TIME) {
        result = steps_in(option, value);
    } else if (option->shape == CHOICE) {
        result = number_at(option->choices, value);
    } else if (value > largest(option)) {
        result = -1;
    }
    *number = (int)result;
    /* What stands for none in the system's form has only that one name here. */
    return result < 0 || result > INT32_MAX || (has_none(option) && result == option->none)
               ? lport_status_make(LPORT_INVALID)
               : 0;
}

static int64_t get_number(const struct target *target) {
    int number;
    int64_t status = read_system(target, &number, sizeof number);
    return status < 0 ? status : from_number(target->option, number);
}

static int64_t set_number(const struct target *target, int64_t value) {
    int number;
    int64_t status = to_number(target->option, value, &number);
    status = status < 0 ? status : write_system(target, &number, sizeof number);
    if (status == 0 && (target->option->flags & QUEUES_ERRORS) != 0) {
        atomic_fetch_or(&target->slot->flags, LPORT_SLOT_QUEUES);
    }
    return status;
}

/* ---- what is no number to the system --------------------------------------------------------- */

static int64_t get_linger(const struct target *target) {
    struct linger linger;
    int64_t status = read_system(target, &linger, sizeof linger);
    if (status < 0) {
        return status;
    }
    return linger.l_onoff == 0 ? LPORT_NEVER : linger.l_linger * step_of(target->option);
}

static int64_t set_linger(const struct target *target, int64_t value) {
    struct linger linger = {.l_onoff = value != LPORT_NEVER};
    int64_t seconds = linger.l_onoff ? steps_in(target->option, value) : 0;
    if (value < 0 || seconds > INT32_MAX) {
        return lport_status_make(LPORT_INVALID);
    }
    linger.l_linger = (int)seconds;
    int64_t status = write_system(target, &linger, sizeof linger);
    /* For good: connections that wait to be accepted keep the time that the listener had. */
    if (status == 0 && seconds > 0) {
        atomic_fetch_or(&target->slot->flags, LPORT_SLOT_LINGERS);
    }
    return status;
}

/* IPv4 tells the interface of multicasts by its address only, so that is what it is set by too. */
static int64_t get_interface(const struct target *target) {
    uint32_t value;
    int64_t status = read_system(target, &value, sizeof value);
    if (status < 0 || value == 0) {
        return status < 0 ? status : LPORT_NEVER;
    }
    return target->at.level == IPPROTO_IP ? lport_interface_with(value) : (int64_t)value;
}

static int64_t set_interface(const struct target *target, int64_t value) {
    int64_t index = value == LPORT_NEVER ? 0 : value;
    if (value <= 0 || index > INT32_MAX) {
        return lport_status_make(LPORT_INVALID);
    }
    if (target->at.level != IPPROTO_IP) {
        int number = (int)index;
        return write_system(target, &number, sizeof number);
    }
    struct ip_mreqn request = {.imr_ifindex = (int)index};
    if (index > 0) {
        uint32_t address;
        int64_t status = lport_interface_inet((int32_t)index, &address);
        bool missing = lport_status_kind(status) == LPORT_ADDRESS_NOT_AVAILABLE;
        if (status < 0 && !(target->beside && missing)) {
            return status;
        }
        request.imr_address.s_addr = status < 0 ? 0 : address;
    }
    return write_system(target, &request, sizeof request);
}

/* ---- reading and writing --------------------------------------------------------------------- */

static int64_t get_value(const struct target *target) {
    switch (target->option->shape) {
    case LINGER:
        return get_linger(target);
    case INTERFACE:
        return get_interface(target);
    case TEXT:
        return lport_status_make(LPORT_INVALID);
    default:
        return get_number(target);
    }
}

static int64_t set_value(const struct target *target, int64_t value) {
    switch (target->option->shape) {
    case LINGER:
        return set_linger(target, value);
    case INTERFACE:
        return set_interface(target, value);
    default:
        return set_number(target, value);
    }
}

/* Sets what IPv6 packets of TARGET go by and what IPv4 ones do, or neither. */
static int64_t set_both(const struct target *target, int64_t value) {
    struct target inet = *target;
    inet.at = target->option->at;
    inet.beside = true;
    int64_t before = get_value(target);
    int64_t status = before < 0 ? before : set_value(target, value);
    if (status < 0) {
        return status;
    }
    status = set_value(&inet, value);
    if (status < 0) {
        (void)set_value(target, before);
    }
    return status;
}

static int64_t set_wherever_it_is(const struct target *target, int64_t value) {
    if ((target->option->flags & READ_ONLY) != 0 || target->option->shape == TEXT) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t both = is_for_both(target);
    if (both < 0) {
        return both;
    }
    return both ? set_both(target, value) : set_value(target, value);
}

int64_t lport_option_get(int64_t socket, int32_t index) {
    struct target target;
    int64_t result = enter_for(socket, index, &target);
    if (result < 0) {
        return result;
    }
    result = get_value(&target);
    lport_handle_leave(target.slot);
    return result;
}

int64_t lport_option_set(int64_t socket, int32_t index, int64_t value) {
    struct target target;
    int64_t status = enter_for(socket, index, &target);
    if (status < 0) {
        return status;
    }
    status = set_wherever_it_is(&target, value);
    lport_handle_leave(target.slot);
    return status;
}

int64_t lport_option_get_text(int64_t socket, int32_t index, char *text, size_t cap) {
    struct target target;
    char room[TEXT_ROOM];
    int64_t result = enter_for(socket, index, &target);
    if (result < 0) {
        return result;
    }
    if (target.option->shape != TEXT) {
        result = lport_status_make(LPORT_INVALID);
    } else {
        result = read_system(&target, room, sizeof room);
    }
    lport_handle_leave(target.slot);
    if (result < 0) {
        return result;
    }
    // cppcheck-suppress uninitvar ; a result of 0 and above has filled it
    return lport_sink_copy_octets(room, strnlen(room, (size_t)result), text, cap);
}

/* True if TEXT can be a value of OPTION. Of one with a zero octet the system would take a part, and
 * of one that is too long as well. */
static bool is_text(const struct lport_option *option, const char *text, size_t len) {
    return len == 0 ? has_none(option) : len <= TEXT_MAX && memchr(text, '\0', len) == NULL;
}

int64_t lport_option_set_text(int64_t socket, int32_t index, const char *text, size_t len) {
    struct target target;
    int64_t status = enter_for(socket, index, &target);
    if (status < 0) {
        return status;
    }
    if (target.option->shape != TEXT || !is_text(target.option, text, len)) {
        status = lport_status_make(LPORT_INVALID);
    } else {
        status = write_system(&target, text, len);
    }
    lport_handle_leave(target.slot);
    return status;
}

/* ---- before anything else is done with a socket ---------------------------------------------- */

/* The COUNT octets at OCTETS as a number, most significant first. */
static uint64_t number_in(const uint8_t *octets, int count) {
    uint64_t number = 0;
    for (int i = 0; i < count; i++) {
        number = number << 8 | octets[i];
    }
    return number;
}

static int64_t set_row(int64_t socket, int32_t index, const uint8_t *row) {
    const struct lport_option *option = lport_option_row(index);
    return option != NULL && option->shape == TEXT
               ? lport_option_set_text(socket, index, (const char *)row + 8, number_in(row + 4, 4))
               : lport_option_set(socket, index, (int64_t)number_in(row + 8, 8));
}

int64_t lport_option_set_all(int64_t socket, const struct lport_settings *settings) {
    for (int32_t i = 0; i < settings->count; i++) {
        const uint8_t *row = settings->rows + (size_t)i * LPORT_SETTING_SIZE;
        int32_t index = (int32_t)number_in(row, 4);
        int64_t status = set_row(socket, index, row);
        if (status < 0) {
            return lport_status_of_option(status, index);
        }
    }
    return 0;
}

/* What each flag of libport.h sets. */
static const struct {
    int32_t flag;
    int level, number, value;
    int sockets;
} of_flags[] = {
    {LPORT_NODELAY, IPPROTO_TCP, TCP_NODELAY, 1, TCP},
    {LPORT_KEEPALIVE, SOL_SOCKET, SO_KEEPALIVE, 1, TCP},
    {LPORT_KEEPALIVE, IPPROTO_TCP, TCP_KEEPIDLE, 15, TCP},
    {LPORT_KEEPALIVE, IPPROTO_TCP, TCP_KEEPINTVL, 15, TCP},
    {LPORT_KEEPALIVE, IPPROTO_TCP, TCP_KEEPCNT, 9, TCP},
    {LPORT_REUSE_ADDRESS, SOL_SOCKET, SO_REUSEADDR, 1, IP},
    {LPORT_REUSE_PORT, SOL_SOCKET, SO_REUSEPORT, 1, IP},
    {LPORT_BROADCAST, SOL_SOCKET, SO_BROADCAST, 1, IP},
};

int64_t lport_option_apply(int fd, int32_t family, int32_t kind, int32_t flags) {
    for (size_t i = 0; i < sizeof of_flags / sizeof of_flags[0]; i++) {
        bool wanted =
            (flags & of_flags[i].flag) != 0 && (of_flags[i].sockets & bit_of(family, kind)) != 0;
        if (wanted && lport_os.setsockopt(fd, of_flags[i].level, of_flags[i].number,
                                          &of_flags[i].value, sizeof of_flags[i].value) < 0) {
            return lport_status_from_errno(LPORT_IN_GENERAL, errno);
        }
    }
    /* Written either way: what a new IPv6 socket does by itself is a setting of the system
     * (net.ipv6.bindv6only). */
    int only = (flags & LPORT_V6_ONLY) != 0;
    if (family == LPORT_INET6 &&
        lport_os.setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only) < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    return 0;
}
