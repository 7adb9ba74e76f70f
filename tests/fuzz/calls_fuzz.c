/* calls_fuzz - a libFuzzer target, see `make fuzz': the functions on sockets, called in any order
 * with any handle: open, closed, of another kind, or no handle at all.
 *
 * An input is a list of calls, each an octet that says which and then the octets that it takes its
 * arguments from. What has to hold: no call blocks, every failure is a status that status.c knows,
 * a call that fails writes no result, and once all is closed nothing is left. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "address/address.h"
#include "libport.h"

enum { HANDLES = 12, WAITS = 3, TURNS = 3, MOST = 700, UNTOUCHED = 0xDB, PAST = 0 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct { const uint8_t *octets, *end; } input;

static int64_t handles[HANDLES]; /* sockets and pollers; closed ones stay until they are replaced */
static int64_t waits[WAITS];
static struct { int64_t poller, turn; } turns[TURNS]; /* no turn: poller 0 */

static void must(bool truth) {
    if (!truth) {
        abort();
    }
}

/* ---- arguments ------------------------------------------------------------------------------- */

/* The next octet of the input; 0 where there is none. */
static uint8_t next(void) {
    return input.octets < input.end ? *input.octets++ : 0;
}

static int64_t pick_handle(void) {
    static const int64_t odd[] = {0, -1, 1, INT64_MIN, INT64_MAX, LPORT_SOCKET_INDEX};
    uint8_t draw = next();
    int64_t handle = handles[draw % HANDLES];
    if (draw < 200) {
        return handle;
    }
    return draw < 228 ? odd[draw % 6] : handle ^ INT64_C(1) << (draw % 32 + 16);
}

static int32_t pick_number(void) {
    static const int32_t odd[] = {-1, INT32_MIN, INT32_MAX, 256};
    uint8_t draw = next();
    return draw < 240 ? draw % 80 : odd[draw % 4];
}

static size_t pick_length(void) {
    return (size_t)next() * (size_t)next() % (MOST + 1);
}

/* A vector of just LEN octets, so that one too many is seen; the caller frees it. */
static uint8_t *vector(size_t len) {
    uint8_t *octets = malloc(len > 0 ? len : 1);
    if (octets == NULL) {
        exit(1);
    }
    if (len > 0) {
        memset(octets, UNTOUCHED, len);
    }
    return octets;
}

static bool is_untouched(const void *octets, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (((const uint8_t *)octets)[i] != UNTOUCHED) {
            return false;
        }
    }
    return true;
}

/* A block that leads to this machine alone, or that is none. */
static uint8_t *pick_address(void) {
    static const char *const texts[] = {"127.0.0.1", "::1", "::ffff:127.0.0.1"};
    uint8_t *address = vector(LPORT_ADDRESS_SIZE), draw = next();
    memset(address, 0, LPORT_ADDRESS_SIZE);
    if (draw < 60) {
        lport_address_parse(texts[draw % 3], strlen(texts[draw % 3]), 0, address);
    } else if (draw < 120) {
        char name[] = "@port-calls-fuzz-x";
        name[sizeof name - 2] = (char)('a' + draw % 4);
        lport_address_local(name, sizeof name - 1, address);
    } else if (draw < 200) {
        lport_socket_name(handles[draw % HANDLES], address);
    } else if (draw < 230) {
        address[LPORT_AT_FAMILY] = LPORT_LOCAL;
        address[LPORT_AT_LENGTH] = next();
    } else {
        address[LPORT_AT_FAMILY] = next() | 8;
    }
    return address;
}

/* At most two settings, COUNT of them, of what may be options, with what may be their values. */
static uint8_t *pick_settings(int32_t *count) {
    *count = next() % 3;
    uint8_t *settings = vector((size_t)*count * LPORT_SETTING_SIZE);
    for (int32_t i = 0; i < *count; i++) {
        uint8_t *row = settings + (size_t)i * LPORT_SETTING_SIZE, draw = next();
        if (draw < 250) {
            memset(row, 0, LPORT_SETTING_SIZE);
        }
        row[3] = draw % 64;
        row[7] = next() % 32;
        row[draw % 2 == 0 ? 8 : 15] = next();
    }
    return settings;
}

/* ---- results --------------------------------------------------------------------------------- */

static int64_t known(int64_t result) {
    int32_t kind = lport_status_kind(result);
    if (result < 0) {
        must(lport_kind_name(kind) != NULL && (-result >> 24 & 0xff) == kind);
    }
    return result;
}

/* RESULT of a call that had the LEN octets at OCTETS to write to, which are freed. */
static int64_t wrote(int64_t result, void *octets, size_t len) {
    must(known(result) >= 0 || is_untouched(octets, len));
    free(octets);
    return result;
}

/* HANDLE, if it is one, takes the place of another, which is closed. */
static void keep(int64_t handle) {
    int64_t *place = &handles[next() % HANDLES];
    if (known(handle) > 0) {
        lport_socket_close(*place, LPORT_RESET);
        *place = handle;
    }
}

/* ---- making ---------------------------------------------------------------------------------- */

static int32_t pick_kind(void) {
    static const int32_t kinds[] = {LPORT_STREAM, LPORT_DATAGRAM, LPORT_SEQPACKET, 0};
    return kinds[next() % 4];
}

static void make_pair(void) {
    int64_t *pair = (int64_t *)(void *)vector(2 * sizeof *pair);
    int64_t ends[2] = {0, 0}, result = lport_socket_pair(pick_kind(), pair);
    if (result == 0) {
        memcpy(ends, pair, sizeof ends);
    }
    wrote(result, pair, sizeof ends);
    keep(ends[0]);
    keep(ends[1]);
}

static void make_listener(void) {
    int32_t count;
    uint8_t *address = pick_address(), *settings = pick_settings(&count);
    keep(address[LPORT_AT_FAMILY] == LPORT_LOCAL
             ? lport_local_listen(address, pick_kind(), pick_number(), pick_number(), LPORT_UNLINK,
                                  settings, count)
             : lport_socket_listen(address, pick_number(), next(), settings, count));
    free(address);
    free(settings);
}

static void make_datagram(void) {
    int32_t count;
    uint8_t *local = pick_address(), *remote = next() % 2 == 0 ? NULL : pick_address();
    uint8_t *settings = pick_settings(&count);
    keep(lport_datagram_open(local, remote, next(), settings, count));
    free(settings);
    free(local);
    free(remote);
}

static void make_connection(void) {
    int32_t count;
    uint8_t *address = pick_address(), tried[LPORT_ADDRESS_SIZE];
    uint8_t *settings = pick_settings(&count);
    int64_t dial = known(lport_dial_open_addresses(address, 1, pick_kind(), NULL, next() % 8));
    known(lport_dial_set(dial, settings, count));
    free(settings);
    if (next() % 2 == 0) {
        known(lport_dial_watch(dial, PAST));
    }
    keep(known(lport_dial_step(dial)));
    known(lport_dial_wait(dial, PAST));
    known(lport_dial_attempt(dial, pick_number(), tried));
    known(lport_dial_attempt_own(dial, pick_number(), tried));
    known(lport_dial_close(dial));
    must(lport_status_kind(lport_dial_close(dial)) == LPORT_INVALID);
    free(address);
}

static void make_poller(void) {
    keep(lport_poller_open(next() % 4));
}

static void accept_one(void) {
    uint8_t *peer = vector(LPORT_ADDRESS_SIZE);
    keep(wrote(lport_socket_accept(pick_handle(), peer), peer, LPORT_ADDRESS_SIZE));
}

/* ---- using ----------------------------------------------------------------------------------- */

static void end(void) {
    int64_t handle = pick_handle();
    known(next() % 2 == 0 ? lport_socket_shutdown(handle, next() % 5)
                          : lport_socket_close(handle, next() % 2));
    known(lport_socket_gone(handle, PAST));
}

static void ask(void) {
    int64_t handle = pick_handle();
    uint8_t *address = vector(LPORT_ADDRESS_SIZE);
    wrote(next() % 2 == 0 ? lport_socket_name(handle, address) : lport_socket_peer(handle, address),
          address, LPORT_ADDRESS_SIZE);
    int64_t *values = (int64_t *)(void *)vector(3 * sizeof *values);
    wrote(next() % 2 == 0 ? lport_local_credentials(handle, values)
                          : lport_info_read(handle, values, 3),
          values, 3 * sizeof *values);
    known(lport_socket_state(handle));
    known(lport_descriptor_inspect((int32_t)known(lport_socket_descriptor(handle))));
}

static void set_option(void) {
    int64_t handle = pick_handle();
    int32_t option = pick_number();
    size_t len = pick_length(), cap = pick_length();
    uint8_t *text = vector(len), *got = vector(cap);
    known(lport_option_get(handle, option));
    known(lport_option_set(handle, option, pick_number()));
    known(lport_option_set_text(handle, option, (char *)text, len));
    wrote(lport_option_get_text(handle, option, (char *)got, cap), got, cap);
    free(text);
}

static void send_octets(void) {
    int64_t handle = pick_handle();
    size_t len = pick_length(), more = pick_length();
    uint8_t *octets = vector(len), *rest = vector(more);
    uint8_t *address = next() % 2 == 0 ? NULL : pick_address();
    must(known(lport_socket_send(handle, octets, len)) <= (int64_t)len);
    must(known(lport_socket_send2(handle, octets, len, rest, more)) <= (int64_t)(len + more));
    must(known(lport_datagram_send(handle, octets, len, address)) <= (int64_t)len);
    free(octets);
    free(rest);
    free(address);
}

static void receive_octets(void) {
    int64_t handle = pick_handle();
    size_t len = pick_length();
    int32_t flags = next() & ~LPORT_PATIENT;
    uint8_t *octets = vector(len);
    int64_t count = lport_socket_receive(handle, octets, len, flags);
    must(count <= (int64_t)len);
    wrote(count, octets, len);
    octets = vector(len);
    uint8_t *sender = vector(LPORT_ADDRESS_SIZE);
    count = lport_datagram_receive(handle, octets, len, sender, flags);
    wrote(count, octets, len);
    wrote(count, sender, LPORT_ADDRESS_SIZE);
}

static void move_batch(void) {
    int64_t handle = pick_handle();
    size_t room = next() % 16, count = 1 + next() % 150;
    uint8_t *octets = vector(count * room), *ends = vector(count * LPORT_ADDRESS_SIZE);
    uint8_t *address = pick_address();
    int64_t *lengths = (int64_t *)(void *)vector(count * sizeof *lengths);
    for (size_t i = 0; i < count; i++) {
        memcpy(ends + i * LPORT_ADDRESS_SIZE, address, LPORT_ADDRESS_SIZE);
        lengths[i] = (int64_t)(i % 20 == 0 ? room / 2 : room);
    }
    if (next() % 4 == 0) {
        lengths[next() % count] = pick_number();
    }
    must(known(lport_datagram_send_batch(handle, octets, room, lengths, ends, (int32_t)count)) <=
         (int64_t)count);
    int64_t got =
        known(lport_datagram_receive_batch(handle, octets, room, lengths, ends, (int32_t)count));
    must(got != 0 && got <= (int64_t)count);
    free(octets);
    free(ends);
    free(lengths);
    free(address);
}

static void pass_descriptors(void) {
    int64_t sender = pick_handle(), receiver = pick_handle();
    int64_t descriptors[4] = {0, 0, pick_number(), 0};
    int32_t most = next() % 5;
    uint8_t octets[8] = {0};
    known(lport_local_send(sender, octets, next() % 9, descriptors, pick_number() % 5));
    int64_t count = known(lport_local_receive(receiver, octets, next() % 9, descriptors, most));
    for (int32_t i = 0; count >= 0 && i < most; i++) {
        if (descriptors[i] >= 0) {
            close((int)descriptors[i]);
        }
    }
    uint8_t from[LPORT_ADDRESS_SIZE];
    int64_t identity[3];
    known(lport_local_receive_from(receiver, octets, next() % 9, next() % 2 == 0 ? from : NULL,
                                   identity));
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void wait_once(void) {
    int64_t *wait = &waits[next() % WAITS], handle = pick_handle();
    if (*wait <= 0) {
        *wait = known(lport_wait_begin(handle, next() % (2 * LPORT_FAILED)));
    } else if (next() % 2 == 0) {
        known(lport_wait_poll(*wait, PAST, 0));
        known(lport_wait_poll2(*wait, waits[next() % WAITS], PAST, 0));
    } else {
        must(lport_wait_end(*wait) == 0);
        must(lport_status_kind(lport_wait_poll(*wait, PAST, 0)) == LPORT_INVALID);
        *wait = 0;
    }
    known(lport_wait_wake(handle, pick_number()));
}

static void change_poller(void) {
    int64_t poller = pick_handle(), socket = pick_handle();
    int32_t interest = next() % 5;
    switch (next() % 5) {
    case 0:
        known(lport_poller_modify(poller, socket, interest));
        break;
    case 1:
        known(lport_poller_remove(poller, socket));
        break;
    case 2:
        known(lport_poller_wake(poller));
        break;
    default:
        known(lport_poller_add(poller, socket, interest));
    }
}

static void end_turn(size_t index) {
    if (turns[index].poller != 0) {
        must(lport_poller_end(turns[index].poller, turns[index].turn) == 0);
    }
    turns[index].poller = 0;
}

static void poll_once(void) {
    int64_t events[4 * LPORT_EVENT_SIZE], poller = pick_handle();
    size_t index = next() % TURNS;
    if (turns[index].poller == 0) {
        int64_t turn = known(lport_poller_begin(poller));
        turns[index].turn = turn;
        turns[index].poller = turn >= 0 ? poller : 0;
        return;
    }
    int64_t count = known(
        lport_poller_wait(turns[index].poller, turns[index].turn, events, next() % 5, PAST, 0));
    for (int64_t i = 0; i < count; i++) {
        must(events[i * LPORT_EVENT_SIZE] > 0 && events[i * LPORT_EVENT_SIZE + 1] > 0);
    }
    if (next() % 2 == 0) {
        end_turn(index);
    }
}

/* ---- the target ------------------------------------------------------------------------------ */

static void close_all(void) {
    for (size_t i = 0; i < WAITS; i++) {
        if (waits[i] > 0) {
            must(lport_wait_end(waits[i]) == 0);
        }
        waits[i] = 0;
    }
    for (size_t i = 0; i < TURNS; i++) {
        end_turn(i);
    }
    for (size_t i = 0; i < HANDLES; i++) {
        known(lport_socket_close(handles[i], LPORT_RESET));
        handles[i] = 0;
    }
    must(lport_socket_count() == 0 && lport_wait_count() == 0);
}

/* The lowest descriptor that is free: a higher one if there is a leak. */
static int free_descriptor(void) {
    int lowest = dup(STDERR_FILENO);
    must(lowest >= 0 && close(lowest) == 0);
    return lowest;
}

/* Waits keep their descriptors for later ones: here all that there will ever be. */
static void fill_pools(void) {
    int64_t pair[2];
    must(lport_socket_pair(LPORT_STREAM, pair) == 0);
    int64_t all[WAITS + TURNS];
    for (size_t i = 0; i < WAITS + TURNS; i++) {
        all[i] = lport_wait_begin(pair[0], 0);
    }
    for (size_t i = 0; i < WAITS + TURNS; i++) {
        must(lport_wait_end(all[i]) == 0);
    }
    lport_socket_close(pair[0], 0);
    lport_socket_close(pair[1], 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const calls[])(void) = {
        make_pair,
        make_listener,
        make_datagram,
        make_connection,
        make_poller,
        accept_one,
        end,
        ask,
        set_option,
        send_octets,
        receive_octets,
        move_batch,
        pass_descriptors,
        wait_once,
        change_poller,
        poll_once,
    };
    static bool filled;
    if (!filled) {
        fill_pools();
    }
    filled = true;
    int before = free_descriptor();
    input.octets = data;
    input.end = data + size;
    while (input.octets < input.end) {
        calls[next() % (sizeof calls / sizeof *calls)]();
    }
    close_all();
    must(free_descriptor() == before);
    return 0;
}
