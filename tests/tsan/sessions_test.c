/* sessions - many threads that send, receive, look at, wait for, poll, end and close few
 * connections with TLS under each other, for some seconds, with octets that say whose they are. A
 * program of its own, as races_test.c is, which see. What is told is of libport, not of OpenSSL. */
#include "libport.h"

#include "checking.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { PLACES = 4, SECONDS = 3, EACH = 2 };

#define MS INT64_C(1000000)

static struct place {
    pthread_mutex_t lock; /* guards the rest; never held while a socket is used */
    int64_t ends[2];
    uint8_t tag; /* every octet of this connection */
} places[PLACES];

static struct {
    int64_t contexts[2];
    atomic_bool stop;
    _Atomic int64_t moved, peeked, waited, built, resumed, polled;
} test;

/* What a use of a session may say when somebody ends it or closes either side meanwhile. */
static bool is_expected(int64_t status) {
    switch (lport_status_kind(status)) {
    case 0:
    case LPORT_CLOSED:
    case LPORT_WOULD_BLOCK:
    case LPORT_TIMED_OUT:
    case LPORT_CONNECTION_RESET:
    case LPORT_CONNECTION_TRUNCATED:
    case LPORT_OUTPUT_SHUT:
        return true;
    default:
        return false;
    }
}

struct view {
    int64_t end;
    uint8_t tag;
};

static struct view look(void) {
    struct place *place = &places[draw() % PLACES];
    uint32_t side = draw() % 2;
    pthread_mutex_lock(&place->lock);
    struct view view = {place->ends[side], place->tag};
    pthread_mutex_unlock(&place->lock);
    return view;
}

static void wait_for(int64_t socket, int32_t interest) {
    int64_t wait = lport_wait_begin(socket, interest);
    int64_t ready = wait < 0 ? wait : lport_wait_poll(wait, lport_clock_after(2 * MS), 0);
    check(is_expected(ready), "wait", ready);
    if (wait > 0) {
        lport_wait_end(wait);
    }
    atomic_fetch_add(&test.waited, 1);
}

/* ---- builders -------------------------------------------------------------------------------- */

static void make_session(int64_t ends[2]) {
    int64_t status = lport_socket_pair(LPORT_STREAM, ends);
    check(status == 0, "a pair is made", status);
    int64_t client =
        lport_tls_start(ends[0], test.contexts[0], LPORT_TLS_CLIENT, "good.test", 9, NULL, 0);
    int64_t server = lport_tls_start(ends[1], test.contexts[1], LPORT_TLS_SERVER, NULL, 0, NULL, 0);
    check(client == 0 && server == 0, "a session begins", client < 0 ? client : server);
    do {
        client = lport_tls_step(ends[0]);
        server = lport_tls_step(ends[1]);
    } while (client > 0 || server > 0);
    check(client == 0 && server == 0, "both sides agree", client < 0 ? client : server);
    char text[4];
    if (lport_tls_text(ends[0], LPORT_TLS_RESUMED, text, sizeof text) > 0) {
        atomic_fetch_add(&test.resumed, 1);
    }
}

static void *build(void *data) {
    (void)data;
    while (!atomic_load(&test.stop)) {
        int64_t ends[2], old[2];
        struct place *place = &places[draw() % PLACES];
        make_session(ends);
        pthread_mutex_lock(&place->lock);
        memcpy(old, place->ends, sizeof old);
        memcpy(place->ends, ends, sizeof ends);
        place->tag = (uint8_t)(place->tag + PLACES);
        pthread_mutex_unlock(&place->lock);
        for (int i = 0; i < 2; i++) {
            int64_t result = lport_socket_shutdown(old[i], LPORT_OUTPUT); /* or none is resumed */
            check(is_expected(result), "an end is told", result);
            result = lport_socket_close(old[i], 0);
            check(result >= 0 || is_kind(result, LPORT_CLOSED), "close", result);
            result = lport_socket_gone(old[i], lport_clock_after(5000 * MS));
            check(result == 0, "a closed socket goes", result);
        }
        atomic_fetch_add(&test.built, 1);
        pause_ns(draw() % (5 * MS));
    }
    return NULL;
}

/* ---- users ----------------------------------------------------------------------------------- */

static void *send_tags(void *data) {
    (void)data;
    while (!atomic_load(&test.stop)) {
        static _Thread_local uint8_t octets[20000];
        struct view view = look();
        memset(octets, view.tag, sizeof octets);
        int64_t count = lport_socket_send2(view.end, octets, draw() % 64, octets,
                                           draw() % 8 == 0 ? sizeof octets : 1);
        check(is_expected(count), "send", count);
        if (is_kind(count, LPORT_WOULD_BLOCK)) {
            wait_for(view.end, LPORT_OUTPUT);
            count = lport_socket_send(view.end, NULL, 0);
            check(is_expected(count), "hand on", count);
        }
    }
    return NULL;
}

static void receive_some(int32_t flags, _Atomic int64_t *total) {
    uint8_t octets[256];
    struct view view = look();
    int64_t count = lport_socket_receive(view.end, octets, 1 + draw() % sizeof octets, flags);
    check(is_expected(count), "receive", count);
    for (int64_t i = 0; i < count; i++) {
        if (octets[i] != view.tag) {
            check(false, "an octet crossed over", octets[i]);
            break;
        }
    }
    atomic_fetch_add(total, count > 0 ? count : 0);
    if (is_kind(count, LPORT_WOULD_BLOCK)) {
        wait_for(view.end, LPORT_INPUT);
    }
}

static void *receive_tags(void *data) {
    (void)data;
    while (!atomic_load(&test.stop)) {
        receive_some(0, &test.moved);
    }
    return NULL;
}

static void *peek_at_tags(void *data) {
    (void)data;
    while (!atomic_load(&test.stop)) {
        receive_some(LPORT_PEEK, &test.peeked);
    }
    return NULL;
}

/* Asks pollers of either kind for both directions, and for others of what is in them. */
static void *poll_all(void *data) {
    (void)data;
    while (!atomic_load(&test.stop)) {
        int64_t events[LPORT_EVENT_SIZE * PLACES];
        int64_t poller =
            lport_poller_open(draw() % 2 == 0 ? LPORT_POLLER_EPOLL : LPORT_POLLER_POLL);
        check(poller > 0, "a poller is made", poller);
        for (int i = 0; i < PLACES; i++) {
            int64_t socket = look().end;
            int64_t result = lport_poller_add(poller, socket, LPORT_INPUT | LPORT_OUTPUT);
            check(is_expected(result) || is_kind(result, LPORT_INVALID), "add", result);
            result = lport_poller_modify(poller, socket, 1 + (int32_t)(draw() % 3));
            check(is_expected(result) || is_kind(result, LPORT_INVALID), "modify", result);
        }
        int64_t turn = lport_poller_begin(poller);
        int64_t count =
            lport_poller_wait(poller, turn, events, PLACES, lport_clock_after(MS / 10), 0);
        check(count >= 0 || is_expected(count), "wait in a poller", count);
        check(lport_poller_end(poller, turn) == 0, "a turn ends", turn);
        check(lport_socket_close(poller, 0) == 0, "a poller is closed", poller);
        atomic_fetch_add(&test.polled, 1);
    }
    return NULL;
}

/* Waits for what breaks a connection, and asks what that is. */
static void *watch_failures(void *data) {
    (void)data;
    while (!atomic_load(&test.stop)) {
        int64_t socket = look().end;
        wait_for(socket, LPORT_FAILED);
        int64_t failure = lport_socket_failure(socket);
        check(is_expected(failure), "a failure", failure);
    }
    return NULL;
}

/* Ends, closes and asks under everybody. */
static void *meddle(void *data) {
    (void)data;
    while (!atomic_load(&test.stop)) {
        char text[64];
        struct view view = look();
        int64_t result;
        switch (draw() % 64) {
        case 0:
            result = lport_socket_close(view.end, 0);
            break;
        case 1:
            result = lport_socket_shutdown(view.end, LPORT_OUTPUT);
            break;
        case 2:
            result =
                lport_tls_start(view.end, test.contexts[0], LPORT_TLS_CLIENT, "here", 4, NULL, 0);
            result = is_kind(result, LPORT_INVALID) ? 0 : result;
            break;
        case 3:
        case 4:
            result = lport_tls_step(view.end);
            break;
        case 5:
        case 6:
            result = lport_socket_buffered(view.end);
            break;
        default:
            result = lport_tls_text(view.end, LPORT_TLS_VERSION + (int32_t)(draw() % 10), text,
                                    sizeof text);
            break;
        }
        check(is_expected(result), "meddling", result);
        pause_ns(draw() % MS);
    }
    return NULL;
}

/* ---- the program ----------------------------------------------------------------------------- */

static void begin(void) {
    const char *authority = "build/tls/authority.pem", *both = "build/tls/both.pem";
    for (int i = 0; i < 2; i++) {
        test.contexts[i] = lport_tls_context_open();
        check(test.contexts[i] > 0, "a context", test.contexts[i]);
    }
    int64_t status =
        lport_tls_context_trust(test.contexts[0], LPORT_TLS_FILE, authority, strlen(authority));
    check(status == 0, "trust", status);
    status = lport_tls_context_identity(test.contexts[1], both, strlen(both), both, strlen(both),
                                        NULL, 0);
    check(status == 0, "identity", status);
    for (int i = 0; i < PLACES; i++) {
        pthread_mutex_init(&places[i].lock, NULL);
        places[i].tag = (uint8_t)i;
        make_session(places[i].ends);
    }
}

static void end(void) {
    for (int i = 0; i < PLACES; i++) {
        lport_socket_close(places[i].ends[0], 0);
        lport_socket_close(places[i].ends[1], 0);
        pthread_mutex_destroy(&places[i].lock);
    }
    for (int i = 0; i < 2; i++) {
        check(lport_tls_context_close(test.contexts[i]) == 0, "a context is closed", 0);
    }
    check(lport_socket_count() == 0, "no socket is left", lport_socket_count());
    check(lport_wait_count() == 0, "no wait is left", lport_wait_count());
    check(atomic_load(&test.moved) > 1000, "octets were moved", atomic_load(&test.moved));
    check(atomic_load(&test.peeked) > 100, "octets were looked at", atomic_load(&test.peeked));
    check(atomic_load(&test.waited) > 100, "threads waited", atomic_load(&test.waited));
    check(atomic_load(&test.built) > 10, "sessions were made", atomic_load(&test.built));
    check(atomic_load(&test.resumed) > 5, "sessions were resumed", atomic_load(&test.resumed));
    check(atomic_load(&test.polled) > 100, "pollers were used", atomic_load(&test.polled));
}

int main(void) {
    static void *(*const roles[])(void *) = {build,  send_tags, receive_tags,  peek_at_tags,
                                             meddle, poll_all,  watch_failures};
    begin();
    run_roles(SECONDS, &test.stop, roles, sizeof roles / sizeof *roles, EACH);
    end();
    return report();
}
