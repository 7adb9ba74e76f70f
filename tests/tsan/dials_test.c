/* dials - watched dials that one thread drives while others wait for them and close them, by either
 * of their numbers. Some lead to a listener, some to one whose queue is full, which never answers.
 * Run under the thread sanitizer; see races_test.c.
 *
 * Each driver has a place, in which others find its dial; what they find may be closed. */
#include "libport.h"

#include "checking.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

enum { PLACES = 8, SECONDS = 3, EACH = 3 };

#define MS INT64_C(1000000)

static struct place { _Atomic int64_t dial, watch; } places[PLACES];

static struct {
    int64_t listeners[2]; /* the second one is never accepted from */
    uint8_t addresses[2][LPORT_ADDRESS_SIZE];
    atomic_bool stop;
    _Atomic int64_t connected, called_off, waited;
} test;

static struct place *pick(void) {
    return &places[draw() % PLACES];
}

/* True if STATUS is of a dial that somebody has closed. */
static bool is_gone(int64_t status) {
    return is_kind(status, LPORT_INVALID) || is_kind(status, LPORT_CLOSED);
}

static int64_t wait_for(int64_t watch, int64_t ns) {
    int64_t wait = lport_wait_begin(watch, LPORT_INPUT);
    int64_t ready = wait < 0 ? wait : lport_wait_poll(wait, lport_clock_after(ns), 0);
    if (wait > 0) {
        lport_wait_end(wait);
    }
    return ready;
}

/* Steps DIAL until it is decided or closed. */
static void drive(int64_t dial, int64_t watch) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t result = lport_dial_step(dial);
    while (is_kind(result, LPORT_IN_PROGRESS) && !atomic_load(&test.stop)) {
        wait_for(watch, 2 * MS);
        lport_dial_watch(dial, lport_clock_after(MS));
        result = lport_dial_step(dial);
    }
    if (result > 0) {
        atomic_fetch_add(&test.connected, 1);
        int64_t status = lport_dial_attempt(dial, 0, address);
        check(status == 0 || is_gone(status), "the attempt that connected", status);
        check(lport_socket_close(result, LPORT_RESET) >= 0, "it was the driver's", result);
    } else if (is_gone(result)) {
        atomic_fetch_add(&test.called_off, 1);
    } else {
        check(is_kind(result, LPORT_IN_PROGRESS), "a step", result);
    }
}

static void *drive_dials(void *unused) {
    struct place *place = pick();
    while (!atomic_load(&test.stop)) {
        int64_t dial = lport_dial_open_addresses(test.addresses[draw() % 2], 1, LPORT_STREAM, NULL,
                                                 LPORT_NODELAY);
        int64_t watch = lport_dial_watch(dial, LPORT_NEVER);
        check(dial > 0 && watch > 0, "a dial and its watch", watch);
        atomic_store(&place->dial, dial);
        atomic_store(&place->watch, watch);
        drive(dial, watch);
        lport_dial_close(dial);
    }
    return unused;
}

static void *wait_for_dials(void *unused) {
    while (!atomic_load(&test.stop)) {
        int64_t ready = wait_for(atomic_load(&pick()->watch), MS);
        check(ready > 0 || is_gone(ready) || is_kind(ready, LPORT_TIMED_OUT), "a wait", ready);
        atomic_fetch_add(&test.waited, 1);
    }
    return unused;
}

static void *close_dials(void *unused) {
    while (!atomic_load(&test.stop)) {
        struct place *place = pick();
        pause_ns(MS);
        int64_t status = draw() % 2 == 0 ? lport_dial_close(atomic_load(&place->dial))
                                         : lport_socket_close(atomic_load(&place->watch), 0);
        check(status >= 0 || is_gone(status), "a close", status);
    }
    return unused;
}

static void *accept_dials(void *unused) {
    while (!atomic_load(&test.stop)) {
        int64_t socket = lport_socket_accept(test.listeners[0], NULL);
        if (socket > 0) {
            lport_socket_close(socket, 0);
        } else {
            wait_for(test.listeners[0], MS);
        }
    }
    return unused;
}

int main(void) {
    static void *(*const roles[])(void *) = {drive_dials, wait_for_dials, close_dials,
                                             accept_dials};
    for (int i = 0; i < 2; i++) {
        uint8_t *address = test.addresses[i];
        lport_address_parse("127.0.0.1", 9, 0, address);
        test.listeners[i] = lport_socket_listen(address, i == 0 ? -1 : 0, 0, NULL, 0);
        check(lport_socket_name(test.listeners[i], address) > 0, "listen", test.listeners[i]);
    }
    run_roles(SECONDS, &test.stop, roles, sizeof roles / sizeof *roles, EACH);
    for (int i = 0; i < 2; i++) {
        lport_socket_close(test.listeners[i], 0);
    }
    check(lport_socket_count() == 0, "no socket is left", lport_socket_count());
    check(lport_wait_count() == 0, "no wait is left", lport_wait_count());
    check(atomic_load(&test.connected) > 5, "dials connected", atomic_load(&test.connected));
    check(atomic_load(&test.called_off) > 5, "dials were closed", atomic_load(&test.called_off));
    check(atomic_load(&test.waited) > 5, "threads waited", atomic_load(&test.waited));
    return report();
}
