/* races - many threads that open, close, send, receive, wait, poll, wake and close under each
 * other, for some seconds, with octets that say whose they are (behaviour 19). Run under the thread
 * sanitizer, which the runner of the other tests does not bear: so this is a program of its own. It
 * prints one line, `tsan: N passed, N failed`, and what failed before it.
 *
 * A board has a few places. Each place has the two ends of a connection and a number; an octet sent
 * into the connection is that number. Builders close what a place holds and put a new connection
 * there; everybody else takes what is there, stale or not, and uses it. */
#include "libport.h"

#include "address/address.h"
#include "checking.h"
#include "socket/socket.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

enum { PLACES = 12, SECONDS = 3, PAIRS = 2 };

#define MS INT64_C(1000000)

static struct place {
    pthread_mutex_t lock; /* guards the rest; never held while a socket is used */
    int64_t ends[2];
    uint8_t tag;
    int64_t stale; /* an end of an earlier connection: it never works again */
} places[PLACES];

static struct {
    int64_t listener;
    uint8_t address[LPORT_ADDRESS_SIZE];
    int32_t option; /* one that sockets of every family have */
    atomic_bool stop;
    _Atomic int64_t moved, waited, closed, polled;
} test;

/* What a use of a socket may say when its owner closes it meanwhile, or its peer does. */
static bool is_expected(int64_t status) {
    switch (lport_status_kind(status)) {
    case 0:
    case LPORT_CLOSED:
    case LPORT_WOULD_BLOCK:
    case LPORT_TIMED_OUT:
    case LPORT_CONNECTION_RESET:
    case LPORT_OUTPUT_SHUT:
    case LPORT_NOT_CONNECTED: /* of a name query after a reset */
        return true;
    default:
        return false;
    }
}

struct self {
    uint32_t draw;
};

static uint32_t next(struct self *self) {
    self->draw ^= self->draw << 13;
    self->draw ^= self->draw >> 17;
    self->draw ^= self->draw << 5;
    return self->draw;
}

struct view {
    int64_t end, stale;
    uint8_t tag;
};

static struct view look(struct self *self) {
    uint32_t draw = next(self);
    struct place *place = &places[draw % PLACES];
    pthread_mutex_lock(&place->lock);
    struct view view = {place->ends[draw >> 16 & 1], place->stale, place->tag};
    pthread_mutex_unlock(&place->lock);
    return view;
}

/* ---- builders -------------------------------------------------------------------------------- */

static int64_t wait_for(int64_t socket, int32_t interest, int64_t ns) {
    int64_t wait = lport_wait_begin(socket, interest);
    if (wait < 0) {
        return wait;
    }
    int64_t ready = lport_wait_poll(wait, lport_clock_after(ns), 0);
    lport_wait_end(wait);
    int64_t again = lport_wait_end(wait); /* another thread may have it by now, with another name */
    check(is_kind(again, LPORT_INVALID), "a wait was ended twice", again);
    atomic_fetch_add(&test.waited, 1);
    return ready;
}

static int64_t wait_for_two(int64_t first, int64_t second, int64_t ns) {
    int64_t waits[2] = {lport_wait_begin(first, LPORT_INPUT), lport_wait_begin(second, 0)};
    int64_t ready = waits[0] < 0   ? waits[0]
                    : waits[1] < 0 ? waits[1]
                                   : lport_wait_poll2(waits[0], waits[1], lport_clock_after(ns), 0);
    for (int i = 0; i < 2; i++) {
        if (waits[i] > 0) {
            lport_wait_end(waits[i]);
        }
    }
    return ready;
}

/* A connection over TCP through the listener that all builders share, one of them at a time. */
static bool connect_pair(int64_t ends[2]) {
    uint8_t own[LPORT_ADDRESS_SIZE], peer[LPORT_ADDRESS_SIZE];
    static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&turn);
    ends[0] = lport_socket_open(LPORT_INET, LPORT_STREAM, LPORT_NODELAY);
    int64_t status = lport_socket_connect_start(ends[0], test.address);
    while (is_kind(status, LPORT_IN_PROGRESS)) {
        wait_for(ends[0], LPORT_OUTPUT, 1000 * MS);
        status = lport_socket_connect_finish(ends[0]);
    }
    check(status == 0, "connect", status);
    do {
        wait_for(test.listener, LPORT_INPUT, 1000 * MS);
        ends[1] = lport_socket_accept(test.listener, NULL);
    } while (is_kind(ends[1], LPORT_WOULD_BLOCK));
    pthread_mutex_unlock(&turn);
    check(ends[1] > 0, "accept", ends[1]);
    lport_socket_name(ends[0], own);
    lport_socket_peer(ends[1], peer);
    bool same = memcmp(own, peer, sizeof own) == 0;
    check(same, "the ends belong together", same);
    return status == 0 && ends[1] > 0;
}

static void *build(void *data) {
    struct self *self = data;
    while (!atomic_load(&test.stop)) {
        int64_t ends[2] = {0, 0}, old[2];
        struct place *place = &places[next(self) % PLACES];
        int64_t made =
            next(self) % 3 == 0 ? lport_socket_pair(LPORT_STREAM, ends) : !connect_pair(ends);
        check(made == 0, "a pair is made", made);
        pthread_mutex_lock(&place->lock);
        memcpy(old, place->ends, sizeof old);
        memcpy(place->ends, ends, sizeof ends);
        place->tag = (uint8_t)(place->tag + PLACES);
        pthread_mutex_unlock(&place->lock);
        for (int i = 0; i < 2; i++) {
            int64_t result = lport_socket_close(old[i], next(self) % 2 == 0 ? LPORT_RESET : 0);
            check(result >= 0 || is_kind(result, LPORT_CLOSED), "close", result);
            result = lport_socket_gone(old[i], lport_clock_after(5000 * MS));
            check(result == 0, "a closed socket goes", result);
            result = lport_socket_descriptor(old[i]);
            check(is_kind(result, LPORT_CLOSED), "a closed socket is closed", result);
            atomic_fetch_add(&test.closed, 1);
        }
        pthread_mutex_lock(&place->lock);
        place->stale = old[0];
        pthread_mutex_unlock(&place->lock);
    }
    return NULL;
}

/* ---- users ----------------------------------------------------------------------------------- */

static void *send_tags(void *data) {
    struct self *self = data;
    while (!atomic_load(&test.stop)) {
        uint8_t octets[64];
        struct view view = look(self);
        memset(octets, view.tag, sizeof octets);
        int64_t count = next(self) % 2 == 0
                            ? lport_socket_send(view.end, octets, 1 + next(self) % 64)
                            : lport_socket_send2(view.end, octets, 30, octets, 30);
        check(is_expected(count), "send", count);
        if (is_kind(count, LPORT_WOULD_BLOCK)) {
            count = wait_for(view.end, LPORT_OUTPUT, 2 * MS);
            check(is_expected(count), "wait for room", count);
        }
    }
    return NULL;
}

static void *receive_tags(void *data) {
    struct self *self = data;
    while (!atomic_load(&test.stop)) {
        uint8_t octets[256];
        struct view view = look(self);
        int64_t count = lport_socket_receive(view.end, octets, sizeof octets, 0);
        check(is_expected(count), "receive", count);
        for (int64_t i = 0; i < count; i++) {
            if (octets[i] != view.tag) {
                check(0, "an octet crossed over", octets[i]);
                break;
            }
        }
        atomic_fetch_add(&test.moved, count > 0 ? count : 0);
        if (is_kind(count, LPORT_WOULD_BLOCK)) {
            count = wait_for(view.end, LPORT_INPUT, 2 * MS);
            check(is_expected(count), "wait for octets", count);
        }
    }
    return NULL;
}

/* Closes under everybody, wakes, asks, and holds on to sockets that are gone. */
static void *meddle(void *data) {
    struct self *self = data;
    uint8_t address[LPORT_ADDRESS_SIZE], octet = 0;
    while (!atomic_load(&test.stop)) {
        struct view view = look(self);
        int64_t result = 0;
        switch (next(self) % 9) {
        case 0:
            result = lport_socket_close(view.end, 0);
            break;
        case 1:
            result = lport_socket_shutdown(view.end, LPORT_OUTPUT);
            break;
        case 2:
            result = lport_socket_name(view.end, address);
            break;
        case 3:
            result = lport_socket_peer(view.end, address);
            break;
        case 4:
            result = lport_wait_wake(view.end, LPORT_INPUT | LPORT_OUTPUT);
            break;
        case 5:
            result = lport_socket_state(view.end);
            break;
        case 6:
            result = lport_option_get(view.end, test.option);
            break;
        case 7:
            result = wait_for_two(view.end, look(self).end, MS / 10);
            break;
        default:
            result = wait_for(view.end, 0, MS / 10);
            break;
        }
        check(is_expected(result), "meddling", result);
        if (view.stale != 0) {
            result = lport_socket_send(view.stale, &octet, 1);
            check(is_kind(result, LPORT_CLOSED), "sending to a stale socket", result);
            result = lport_socket_close(view.stale, LPORT_RESET);
            check(is_kind(result, LPORT_CLOSED), "closing a stale socket", result);
        }
    }
    return NULL;
}

/* Pollers that end while what they hold is closed and built anew. */
static void *poll_all(void *data) {
    struct self *self = data;
    while (!atomic_load(&test.stop)) {
        int64_t events[PLACES * LPORT_EVENT_SIZE];
        int64_t poller =
            lport_poller_open(next(self) % 2 == 0 ? LPORT_POLLER_EPOLL : LPORT_POLLER_POLL);
        check(poller > 0, "a poller is made", poller);
        for (int i = 0; i < PLACES; i++) {
            int64_t result = lport_poller_add(poller, look(self).end, LPORT_INPUT);
            check(is_expected(result) || is_kind(result, LPORT_INVALID), "add", result);
        }
        int64_t turn = lport_poller_begin(poller);
        check(turn >= 0, "a turn begins", turn);
        int64_t count =
            lport_poller_wait(poller, turn, events, PLACES, lport_clock_after(MS / 10), 0);
        check(is_expected(count), "wait in a poller", count);
        check(lport_poller_end(poller, turn) == 0, "a turn ends", turn);
        for (int64_t i = 0; i < count; i++) {
            int64_t claimed = lport_poller_claim(poller, events[i * LPORT_EVENT_SIZE]);
            check(claimed == LPORT_INPUT || is_kind(claimed, LPORT_CLOSED), "claim", claimed);
        }
        int64_t result = lport_socket_close(poller, 0);
        check(result == 0, "a poller is closed", result);
        atomic_fetch_add(&test.polled, 1);
    }
    return NULL;
}

/* ---- the program ----------------------------------------------------------------------------- */

static int32_t option_of_name(const char *name) {
    int32_t index = 0;
    while (lport_option_name(index) != NULL && strcmp(lport_option_name(index), name) != 0) {
        index++;
    }
    check(lport_option_name(index) != NULL, "the option exists", index);
    return index;
}

static void begin(void) {
    test.option = option_of_name("type");
    lport_address_parse("127.0.0.1", 9, 0, test.address);
    test.listener = lport_socket_listen(test.address, -1, LPORT_REUSE_ADDRESS, NULL, 0);
    check(test.listener > 0, "listen", test.listener);
    lport_socket_name(test.listener, test.address);
    for (int i = 0; i < PLACES; i++) {
        pthread_mutex_init(&places[i].lock, NULL);
        places[i].tag = (uint8_t)i;
        connect_pair(places[i].ends);
    }
}

static void end(void) {
    for (int i = 0; i < PLACES; i++) {
        lport_socket_close(places[i].ends[0], 0);
        lport_socket_close(places[i].ends[1], 0);
        pthread_mutex_destroy(&places[i].lock);
    }
    lport_socket_close(test.listener, 0);
    check(lport_socket_count() == 0, "no socket is left", lport_socket_count());
    check(lport_wait_count() == 0, "no wait is left", lport_wait_count());
    check(atomic_load(&test.moved) > 1000, "octets were moved", atomic_load(&test.moved));
    check(atomic_load(&test.waited) > 100, "threads waited", atomic_load(&test.waited));
    check(atomic_load(&test.closed) > 100, "sockets were closed", atomic_load(&test.closed));
    check(atomic_load(&test.polled) > 100, "pollers were used", atomic_load(&test.polled));
}

int main(void) {
    static void *(*const roles[])(void *) = {build, send_tags, receive_tags, meddle, poll_all};
    enum { ROLES = sizeof roles / sizeof *roles, THREADS = ROLES * PAIRS };
    pthread_t threads[THREADS];
    struct self selves[THREADS];
    begin();
    for (int i = 0; i < THREADS; i++) {
        selves[i] = (struct self){.draw = (uint32_t)lport_clock_now() * 2 + 1 + (uint32_t)i * 7919};
        pthread_create(&threads[i], NULL, roles[i % ROLES], &selves[i]);
    }
    stop_after(SECONDS, &test.stop, threads, THREADS);
    end();
    return report();
}
