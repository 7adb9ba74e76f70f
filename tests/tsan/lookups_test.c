/* lookups - many threads that ask for few names, wait, look at answers, have themselves told and
 * close each other's queries, for some seconds, with answers that say which name was asked for. A
 * program of its own, as races_test.c is, which see. */
#include "libport.h"

#include "address/address.h"
#include "checking.h"
#include "name/resolve.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { PLACES = 8, NAMES = 4, SECONDS = 2, EACH = 3 };

#define MS INT64_C(1000000)

static struct place {
    pthread_mutex_t lock; /* guards the rest; never held while a query is used */
    int64_t query;        /* open, or closed by somebody */
    int name;             /* that it asks for */
} places[PLACES];

static struct {
    atomic_bool stop;
    _Atomic int64_t asked, looked_up, answered, told;
} test;

/* ---- the system's resolver: 127.0.0.N for the name N, after a while; or nothing -------------- */

struct info {
    struct addrinfo info;
    struct sockaddr_in address;
};

static int find(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **result) {
    (void)service, (void)hints;
    atomic_fetch_add(&test.looked_up, 1);
    pause_ns(draw() % (3 * MS));
    if (draw() % 4 == 0) {
        return EAI_NONAME;
    }
    struct info *made = calloc(1, sizeof *made);
    made->address.sin_family = AF_INET;
    made->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + (uint32_t)(name[0] - '0'));
    made->info.ai_family = AF_INET;
    made->info.ai_addr = (struct sockaddr *)&made->address;
    made->info.ai_addrlen = sizeof made->address;
    *result = &made->info;
    return 0;
}

static void drop(struct addrinfo *info) {
    free(info);
}

/* ---- roles ----------------------------------------------------------------------------------- */

static struct place look(void) {
    struct place *place = &places[draw() % PLACES];
    pthread_mutex_lock(&place->lock);
    struct place copy = {.query = place->query, .name = place->name};
    pthread_mutex_unlock(&place->lock);
    return copy;
}

static void close_query(int64_t query) {
    int64_t result = lport_resolve_close(query);
    check(result == 0 || is_kind(result, LPORT_INVALID), "close", result);
}

static void *ask(void *unused) {
    while (!atomic_load(&test.stop)) {
        struct place *place = &places[draw() % PLACES];
        int name = (int)(draw() % NAMES);
        char text[] = {(char)('0' + name), '.', 't'};
        int64_t query = lport_resolve_open(text, sizeof text, LPORT_ANY, 0);
        check(query > 0, "open", query);
        pthread_mutex_lock(&place->lock);
        int64_t before = place->query;
        place->query = query;
        place->name = name;
        pthread_mutex_unlock(&place->lock);
        close_query(before);
        atomic_fetch_add(&test.asked, 1);
        pause_ns(draw() % MS);
    }
    return unused;
}

static void *wait_and_look(void *unused) {
    while (!atomic_load(&test.stop)) {
        uint8_t address[LPORT_ADDRESS_SIZE];
        struct place place = look();
        int64_t result = lport_resolve_wait(place.query, lport_clock_after(draw() % (4 * MS)));
        check(result == 0 || is_kind(result, LPORT_TIMED_OUT) || is_kind(result, LPORT_INVALID),
              "wait", result);
        int64_t count = lport_resolve_count(place.query);
        check(count == 1 || is_kind(count, LPORT_IN_PROGRESS) || is_kind(count, LPORT_INVALID) ||
                  is_kind(count, LPORT_HOST_NOT_FOUND),
              "count", count);
        if (lport_resolve_address(place.query, 0, address) >= 0) {
            int last = address[LPORT_AT_OCTETS + 3];
            check(last == place.name, "an answer to another question", last);
            atomic_fetch_add(&test.answered, 1);
        }
    }
    return unused;
}

static void *be_told(void *unused) {
    while (!atomic_load(&test.stop)) {
        int64_t query = look().query;
        struct pollfd fd = {.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = POLLIN};
        lport_resolve_notify(query, fd.fd);
        bool told = poll(&fd, 1, 2) == 1;
        int64_t result = lport_resolve_notify(query, -1);
        check(result == 0 || is_kind(result, LPORT_INVALID), "notify", result);
        result = lport_resolve_count(query);
        check(!told || !is_kind(result, LPORT_IN_PROGRESS), "told of no answer", result);
        atomic_fetch_add(&test.told, told);
        close(fd.fd);
    }
    return unused;
}

static void *meddle(void *unused) {
    while (!atomic_load(&test.stop)) {
        close_query(look().query);
        pause_ns(draw() % (2 * MS));
    }
    return unused;
}

/* ---- the program ----------------------------------------------------------------------------- */

static void begin(void) {
    lport_resolver.getaddrinfo = find;
    lport_resolver.freeaddrinfo = drop;
    lport_resolver.idle_ns = MS; /* threads end and are made, */
    lport_resolver.join_ns = MS; /* and look-ups are joined and are not */
    for (int i = 0; i < PLACES; i++) {
        pthread_mutex_init(&places[i].lock, NULL);
    }
}

static void end(void) {
    for (int i = 0; i < PLACES; i++) {
        close_query(places[i].query);
        pthread_mutex_destroy(&places[i].lock);
    }
    int64_t deadline = lport_clock_after(5000 * MS);
    while (lport_resolve_pending() + lport_resolve_threads() > 0 && lport_clock_now() < deadline) {
        pause_ns(MS);
    }
    int64_t asked = atomic_load(&test.asked), looked_up = atomic_load(&test.looked_up);
    check(lport_resolve_pending() == 0, "no query is left", lport_resolve_pending());
    check(lport_resolve_threads() == 0, "no thread is left", lport_resolve_threads());
    check(asked > 10 && looked_up > 10, "names were asked for", asked);
    check(looked_up < asked, "look-ups were joined", looked_up);
    check(atomic_load(&test.answered) > 10, "answers came", atomic_load(&test.answered));
    check(atomic_load(&test.told) > 10, "threads were told", atomic_load(&test.told));
}

int main(void) {
    static void *(*const roles[])(void *) = {ask, wait_and_look, be_told, meddle};
    begin();
    run_roles(SECONDS, &test.stop, roles, sizeof roles / sizeof *roles, EACH);
    end();
    return report();
}
