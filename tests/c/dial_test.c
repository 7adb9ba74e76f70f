/* Dialling on loopback: addresses that answer, that refuse (a port that is only bound) and that
 * are silent (a listener whose queue is full); names come from a fake of the system's resolver. */
#include "address.h"
#include "dial_attempt.h"
#include "faults.h"
#include "libport.h"
#include "os.h"
#include "pool.h"
#include "resolve.h"
#include "socket.h"
#include "support.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MS INT64_C(1000000)
#define S  INT64_C(1000000000)

enum { FILLERS = 8 };

typedef uint8_t block[LPORT_ADDRESS_SIZE];

/* ---- the fake resolver -------------------------------------------------------------------------
 */

static struct {
    const char *texts[8];
    int result;
    int gated;
    atomic_int calls;
    sem_t entered, gate;
    struct lport_os os; /* what was there before */
} fake;

static int fake_getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                            struct addrinfo **result) {
    atomic_fetch_add(&fake.calls, 1);
    if (fake.gated) {
        sem_post(&fake.entered);
        while (sem_wait(&fake.gate) < 0) {
        }
    }
    (void)name, (void)service;
    for (const char **text = fake.texts; fake.result == 0 && *text != NULL; text++) {
        block address;
        int32_t family = (int32_t)lport_address_parse(*text, strlen(*text), 0, address);
        int32_t wanted = hints->ai_family == AF_INET    ? LPORT_INET
                         : hints->ai_family == AF_INET6 ? LPORT_INET6
                                                        : family;
        if (family != wanted) {
            continue;
        }
        struct sockaddr_storage *storage = calloc(1, sizeof *storage);
        *result = calloc(1, sizeof **result);
        (*result)->ai_addrlen = (socklen_t)lport_address_to_kernel(address, 0, storage);
        (*result)->ai_addr = (struct sockaddr *)storage;
        result = &(*result)->ai_next;
    }
    return fake.result;
}

static void fake_freeaddrinfo(struct addrinfo *list) {
    while (list != NULL) {
        struct addrinfo *next = list->ai_next;
        free(list->ai_addr);
        free(list);
        list = next;
    }
}

/* ---- what is there before and after ------------------------------------------------------------
 */

static struct {
    int64_t sockets;
    int descriptors;
} before;

static int count_descriptors(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}

static void set_up(void) {
    sem_init(&fake.entered, 0, 0);
    sem_init(&fake.gate, 0, 0);
    lport_resolver.getaddrinfo = fake_getaddrinfo;
    lport_resolver.freeaddrinfo = fake_freeaddrinfo;
    fake.os = lport_os;
    before.sockets = lport_socket_count();
    before.descriptors = count_descriptors();
}

/* Ports that refuse: bound and not listened on, so that nobody else is given them. */
static struct { int fds[8], count; } held;

static void release_ports(void) {
    while (held.count > 0) {
        close(held.fds[--held.count]);
    }
}

/* Nothing is left of what the test did (behaviour 49). At the end of the body of each test. */
static void check_nothing_left(void) {
    release_ports();
    int64_t deadline = lport_clock_after(10 * S);
    while (lport_resolve_pending() > 0 && lport_clock_now() < deadline) {
        sched_yield();
    }
    cr_assert_eq(lport_resolve_pending(), 0);
    cr_assert_eq(lport_socket_count(), before.sockets);
    cr_assert_eq(count_descriptors(), before.descriptors);
}

TestSuite(dial, .timeout = 30, .init = set_up);

/* ---- helpers ----------------------------------------------------------------------------------
 */

static int32_t kind(int64_t status) {
    return lport_status_kind(status);
}

static void parse(const char *text, int32_t port, uint8_t *address) {
    cr_assert_gt(lport_address_parse(text, strlen(text), port, address), 0, "%s", text);
}

static int32_t port_of(int64_t socket) {
    block own;
    cr_assert_gt(lport_socket_name(socket, own), 0);
    return lport_address_port(own);
}

/* A listener on TEXT at PORT, 0 for any. */
static int64_t listen_at(const char *text, int32_t port, int32_t backlog) {
    block address;
    parse(text, port, address);
    int64_t listener = lport_socket_listen(address, backlog, LPORT_REUSE_ADDRESS);
    cr_assert_gt(listener, 0);
    return listener;
}

/* Closes what a test of one connection has, which is all there is. */
static void end_connected(int64_t dial, int64_t socket, int64_t listener) {
    lport_dial_close(dial);
    lport_socket_close(socket, 0);
    lport_socket_close(listener, 0);
    check_nothing_left();
}

/* A port that refuses at every address of this machine, until check_nothing_left. Who reuses
 * addresses can bind it. */
static int32_t refusing_port(void) {
    struct sockaddr_in6 wide = {.sin6_family = AF_INET6};
    struct sockaddr_in narrow = {.sin_family = AF_INET};
    int inet6 = have_inet6(), on = 1;
    socklen_t len = inet6 ? sizeof wide : sizeof narrow;
    struct sockaddr *own = inet6 ? (struct sockaddr *)&wide : (struct sockaddr *)&narrow;
    int fd = socket(own->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && held.count < (int)COUNT_OF(held.fds));
    held.fds[held.count++] = fd;
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    cr_assert_eq(bind(fd, own, len), 0);
    cr_assert_eq(getsockname(fd, own, &len), 0);
    return ntohs(inet6 ? wide.sin6_port : narrow.sin_port);
}

static int64_t start_connect(const uint8_t *address) {
    int64_t socket = lport_socket_open(address[0], LPORT_STREAM, 0);
    cr_assert_gt(socket, 0);
    int64_t status = lport_socket_connect_start(socket, address);
    cr_assert(status == 0 || kind(status) == LPORT_IN_PROGRESS ||
              kind(status) == LPORT_BACKLOG_FULL);
    return socket;
}

/* A listener whose queue is full, so that further connects get no answer. */
struct silence {
    int64_t listener;
    int64_t fillers[FILLERS];
};

static void keep_silent(struct silence *silence, const char *text, int32_t port) {
    block address;
    silence->listener = listen_at(text, port, 0);
    lport_socket_name(silence->listener, address);
    int descriptor = (int)lport_socket_descriptor(silence->listener);
    for (int i = 0; i < FILLERS; i++) {
        silence->fillers[i] = start_connect(address);
        struct pollfd queue = {.fd = descriptor, .events = POLLIN}; /* the first fills it */
        cr_assert_eq(poll(&queue, 1, 8000), 1);
    }
}

static void close_fillers(struct silence *silence) {
    for (int i = 0; i < FILLERS; i++) {
        lport_socket_close(silence->fillers[i], 0);
    }
}

/* Makes room in the queue. The fillers would try again, too, and could take it before others. */
static void break_silence(struct silence *silence) {
    close_fillers(silence);
    for (int64_t peer; (peer = undisturbed(lport_socket_accept(silence->listener, NULL))) > 0;) {
        lport_socket_close(peer, 0);
    }
}

static void end_silence(struct silence *silence) {
    close_fillers(silence);
    lport_socket_close(silence->listener, 0);
}

/* Steps and waits until DIAL is decided or DEADLINE passes. */
static int64_t finish(int64_t dial, int64_t deadline) {
    for (;;) {
        int64_t result = lport_dial_step(dial);
        if (kind(result) != LPORT_IN_PROGRESS) {
            return result;
        }
        result = lport_dial_wait(dial, deadline);
        if (result < 0) {
            return result;
        }
    }
}

static int64_t finish_soon(int64_t dial) {
    return finish(dial, lport_clock_after(10 * S));
}

static int64_t open_dial(const char *name, int32_t port) {
    int64_t dial = lport_dial_open(name, strlen(name), port, LPORT_ANY, NULL, 0);
    cr_assert_gt(dial, 0, "%s", name);
    return dial;
}

/* A dial to the addresses of TEXTS, which ends with NULL, each with the port of PORTS. */
static int64_t open_list(const char *const *texts, const int32_t *ports) {
    uint8_t addresses[8 * LPORT_ADDRESS_SIZE];
    int32_t count = 0;
    for (; texts[count] != NULL; count++) {
        parse(texts[count], ports[count], addresses + count * LPORT_ADDRESS_SIZE);
    }
    int64_t dial = lport_dial_open_addresses(addresses, count, LPORT_STREAM, NULL, 0);
    cr_assert_gt(dial, 0);
    return dial;
}

static void check_attempt(int64_t dial, int32_t index, const char *expected,
                          int32_t expected_kind) {
    block address;
    char text[LPORT_TEXT_SIZE];
    int64_t status = lport_dial_attempt(dial, index, address);
    lport_address_print(address, text, sizeof text);
    cr_assert_str_eq(text, expected);
    cr_assert_eq(kind(status), expected_kind, "attempt %d: %s", index,
                 lport_kind_name(kind(status)));
}

/* SOCKET is connected to PORT of TEXT. */
static void check_peer(int64_t socket, const char *text, int32_t port) {
    block expected, peer;
    cr_assert_gt(socket, 0, "%s", lport_kind_name(kind(socket)));
    parse(text, port, expected);
    cr_assert_gt(lport_socket_peer(socket, peer), 0);
    cr_assert_eq(lport_address_equal(peer, expected), 1);
}

/* What the accepted PEER reads next: 0 is a clean end. */
static int64_t read_end(int64_t peer) {
    uint8_t octet;
    int64_t wait = lport_wait_begin(peer, LPORT_INPUT);
    lport_wait_poll(wait, lport_clock_after(10 * S), 0);
    lport_wait_end(wait);
    return undisturbed(lport_socket_receive(peer, &octet, 1, 0));
}

/* ---- one address -------------------------------------------------------------------------------
 */

static atomic_int calls;

static int counted_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout) {
    atomic_fetch_add(&calls, 1);
    return fake.os.ppoll(fds, count, timeout);
}

static int counted_eventfd(unsigned int value, int flags) {
    atomic_fetch_add(&calls, 1);
    return fake.os.eventfd(value, flags);
}

static void *counted_calloc(size_t count, size_t size) {
    atomic_fetch_add(&calls, 1);
    return fake.os.calloc(count, size);
}

Test(dial, a_literal_connects_in_one_step_and_costs_nothing_else) {
    static const char *const texts[] = {"127.0.0.1", "::1", "[::1]"};
    for (int i = 0; i < (have_inet6() ? 3 : 1); i++) {
        int64_t listener = listen_at(texts[i], 0, -1);
        for (int round = 0; round < 2; round++) { /* the first fills the pools */
            calls = 0;
            lport_os.ppoll = counted_ppoll;
            lport_os.eventfd = counted_eventfd;
            lport_os.calloc = counted_calloc;
            int64_t dial = open_dial(texts[i], port_of(listener));
            int64_t socket = lport_dial_step(dial);
            lport_os = fake.os;
            cr_assert(round == 0 || calls == 0, "%d polls, eventfds and allocations", calls);
            check_peer(socket, texts[i], port_of(listener));
            cr_assert_eq(lport_dial_wait(dial, 0), 0);
            cr_assert_eq(lport_dial_step(dial), socket);
            cr_assert_eq(lport_dial_count(dial), 1);
            cr_assert_eq(lport_dial_close(dial), 0);
            cr_assert_eq(lport_socket_close(socket, 0), 0, "it was the caller's");
        }
        lport_socket_close(listener, 0);
    }
    cr_assert_eq(fake.calls, 0);
    cr_assert_eq(lport_resolve_threads(), 0);
    check_nothing_left();
}

static int64_t dial_what_refuses(void *data) {
    (void)data;
    int64_t begin = lport_clock_now();
    int64_t dial = open_dial("127.0.0.1", refusing_port());
    int64_t status = finish_soon(dial);
    cr_assert_eq(kind(status), LPORT_CONNECTION_REFUSED);
    cr_assert_eq(lport_status_errno(status), ECONNREFUSED);
    int64_t took = lport_clock_now() - begin;
    cr_assert_eq(lport_dial_step(dial), status, "it repeats");
    check_attempt(dial, 0, "127.0.0.1", LPORT_CONNECTION_REFUSED);
    lport_dial_close(dial);
    check_nothing_left();
    return took;
}

Test(dial, a_refused_literal_fails_at_once) {
    cr_assert_lt(at_best(dial_what_refuses, NULL, 200 * MS), 200 * MS);
}

Test(dial, a_silent_address_is_timed_out_and_can_be_waited_for_again) { /* behaviours 4, 50 */
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int64_t dial = open_dial("127.0.0.1", port_of(silence.listener));
    assert_times_out(finish, dial, 100 * MS, 600 * MS);
    check_attempt(dial, 0, "127.0.0.1", LPORT_IN_PROGRESS);
    break_silence(&silence);
    int64_t socket = finish(dial, lport_clock_after(15 * S)); /* the kernel tries again after 1 s */
    check_peer(socket, "127.0.0.1", port_of(silence.listener));
    lport_socket_close(socket, 0);
    lport_dial_close(dial);
    end_silence(&silence);
    check_nothing_left();
}

/* A connect that is not there at once is polled for, and its descriptor is still nobody else's. */
Test(dial, a_connection_that_was_waited_for_can_be_patient) {
    uint8_t octet;
    block at;
    int64_t listener = listen_on_loopback(LPORT_INET, at);
    int64_t dial = lport_dial_open_addresses(at, 1, LPORT_STREAM, NULL, 0);
    faults_fail(CALL_GETPEERNAME, 1, 1, ENOTCONN);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    int64_t socket = finish_soon(dial);
    cr_assert_gt(socket, 0);
    int64_t calls_before = faults_calls(CALL_FCNTL);
    cr_assert_eq(kind(lport_socket_receive(socket, &octet, 1, LPORT_PATIENT)), LPORT_WOULD_BLOCK);
    cr_assert_eq(faults_calls(CALL_FCNTL), calls_before + 1, "it is made to block");
    faults_resume();
    lport_socket_close(socket, 0);
    lport_socket_close(listener, 0);
    lport_dial_close(dial);
    check_nothing_left();
}

Test(dial, two_at_once_are_two) {
    int64_t listeners[2], dials[2], sockets[2];
    for (int i = 0; i < 2; i++) {
        listeners[i] = listen_at("127.0.0.1", 0, -1);
        dials[i] = open_dial("127.0.0.1", port_of(listeners[i]));
    }
    for (int i = 0; i < 2; i++) {
        sockets[i] = finish_soon(dials[i]);
        check_peer(sockets[i], "127.0.0.1", port_of(listeners[i]));
        lport_dial_close(dials[i]);
    }
    for (int i = 0; i < 2; i++) {
        lport_socket_close(sockets[i], 0);
        lport_socket_close(listeners[i], 0);
    }
    check_nothing_left();
}

/* The second is made in the memory of the first. */
Test(dial, nothing_is_left_to_a_dial_by_one_that_was_given_up) {
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    for (int i = 0; i < 2; i++) {
        int64_t dial = open_dial("127.0.0.1", port_of(silence.listener));
        cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
        check_attempt(dial, 0, "127.0.0.1", LPORT_IN_PROGRESS);
        lport_dial_close(dial);
    }
    end_silence(&silence);
    check_nothing_left();
}

Test(dial, a_deadline_in_the_past_looks_once) { /* behaviour 1 */
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int64_t dial = open_dial("127.0.0.1", port_of(silence.listener));
    cr_assert_eq(lport_dial_wait(dial, 0), 0, "the first step is always worth it");
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    cr_assert_eq(kind(lport_dial_wait(dial, 0)), LPORT_TIMED_OUT);
    cr_assert_eq(lport_dial_close(dial), 0);
    end_silence(&silence);
    check_nothing_left();
}

Test(dial, what_cannot_be_dialled_is_refused_at_the_opening) { /* behaviour 56 */
    static const char *const bad[] = {"010.0.0.1", "127.1", "[::1", "1.2.3.4.5",
                                      "0x7f.1",    "",      "::x"};
    static const int32_t ports[] = {0, -1, 65536, INT32_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_assert_eq(kind(lport_dial_open(bad[i], strlen(bad[i]), 80, LPORT_ANY, NULL, 0)),
                     LPORT_ADDRESS_SYNTAX, "%s", bad[i]);
    }
    for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
        cr_assert_eq(kind(lport_dial_open("::1", 3, ports[i], LPORT_ANY, NULL, 0)),
                     LPORT_ADDRESS_SYNTAX);
    }
    cr_assert_eq(kind(lport_dial_open("a\0b", 3, 80, LPORT_ANY, NULL, 0)), LPORT_ADDRESS_SYNTAX);
    cr_assert_eq(kind(lport_dial_open("::1", 3, 80, LPORT_LOCAL, NULL, 0)), LPORT_INVALID);
    cr_assert_eq(kind(lport_dial_open("::1", 3, 80, LPORT_ANY, NULL, 64)), LPORT_INVALID);
    block address;
    parse("127.0.0.1", 80, address);
    cr_assert_eq(kind(lport_dial_open_addresses(address, -1, LPORT_STREAM, NULL, 0)),
                 LPORT_INVALID);
    cr_assert_eq(kind(lport_dial_open_addresses(address, 1, LPORT_DATAGRAM, NULL, 0)),
                 LPORT_INVALID);
    cr_assert_eq(kind(lport_dial_open_addresses(address, 1, 77, NULL, 0)), LPORT_INVALID);
    lport_address_set_port(address, 0);
    cr_assert_eq(kind(lport_dial_open_addresses(address, 1, LPORT_STREAM, NULL, 0)),
                 LPORT_ADDRESS_SYNTAX);
    address[0] = 77;
    cr_assert_eq(kind(lport_dial_open_addresses(address, 1, LPORT_STREAM, NULL, 0)), LPORT_INVALID);
    check_nothing_left();
}

Test(dial, a_closed_dial_is_stale_for_every_function) {
    block address;
    int64_t dial = open_dial("127.0.0.1", 1);
    lport_dial_close(dial);
    int64_t next = open_dial("127.0.0.1", 1); /* in the same memory */
    int64_t wrong[] = {dial, 0, -1, INT64_MAX, next + 1, next + 1000};
    for (int i = 0; i < 6; i++) {
        cr_assert_eq(kind(lport_dial_step(wrong[i])), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_wait(wrong[i], LPORT_NEVER)), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_count(wrong[i])), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_attempt(wrong[i], 0, address)), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_close(wrong[i])), LPORT_INVALID);
    }
    cr_assert_eq(kind(lport_dial_attempt(next, 0, address)), LPORT_INVALID);
    cr_assert_eq(lport_dial_count(next), 0);
    lport_dial_close(next);
    check_nothing_left();
}

/* One that was never opened, whose memory says that descriptor 0 is its own, and the one that its
 * memory could be taken for next. */
Test(dial, no_integer_names_a_dial_that_is_not_open) {
    int64_t dial = open_dial("127.0.0.1", 1);
    int input = open("/dev/null", O_RDONLY);
    cr_assert_eq(dup2(input, 0), 0);
    lport_dial_close(dial);
    for (int64_t wrong = 0; wrong < 16; wrong++) {
        cr_assert_eq(kind(lport_dial_count(wrong)), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_step(wrong)), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_close(wrong)), LPORT_INVALID);
        cr_assert_eq(kind(lport_dial_close(dial + (wrong << LPORT_POOL_INDEX_BITS))),
                     LPORT_INVALID);
    }
    cr_assert_geq(fcntl(0, F_GETFD), 0, "nobody has closed it");
    if (input != 0) {
        close(input);
    }
    check_nothing_left();
}

/* ---- several addresses -------------------------------------------------------------------------
 */

static int64_t dial_behind_a_refusal(void *data) {
    (void)data;
    static const char *const texts[] = {"127.0.0.2", "127.0.0.3", NULL};
    int64_t listener = listen_at("127.0.0.3", 0, -1);
    int32_t ports[] = {port_of(listener), port_of(listener)};
    int64_t begin = lport_clock_now();
    int64_t dial = open_list(texts, ports);
    int64_t socket = finish_soon(dial);
    int64_t took = lport_clock_now() - begin;
    check_peer(socket, "127.0.0.3", ports[0]);
    cr_assert_eq(lport_dial_count(dial), 2);
    check_attempt(dial, 0, "127.0.0.2", LPORT_CONNECTION_REFUSED);
    check_attempt(dial, 1, "127.0.0.3", 0);
    end_connected(dial, socket, listener);
    return took;
}

Test(dial, the_second_address_follows_a_refusal_at_once) { /* behaviours 48, 51 */
    cr_assert_lt(at_best(dial_behind_a_refusal, NULL, 200 * MS), 200 * MS);
}

/* What becomes of an attempt at ::1, where nobody listens. */
static int32_t refusal_of_inet6(void) {
    return have_inet6() ? LPORT_CONNECTION_REFUSED : LPORT_ADDRESS_NOT_AVAILABLE;
}

static int64_t dial_behind_silence(void *data) {
    (void)data;
    static const char *const texts[] = {"::1", "127.0.0.1", NULL};
    struct silence silence;
    keep_silent(&silence, "::1", 0);
    int64_t listener = listen_at("127.0.0.1", 0, -1);
    int32_t ports[] = {port_of(silence.listener), port_of(listener)};
    int64_t begin = lport_clock_now();
    int64_t dial = open_list(texts, ports);
    int64_t socket = finish_soon(dial);
    int64_t took = lport_clock_now() - begin;
    check_peer(socket, "127.0.0.1", ports[1]);
    cr_assert_geq(took, 250 * MS, "%lld ns", (long long)took);
    check_attempt(dial, 0, "::1", LPORT_IN_PROGRESS);
    check_attempt(dial, 1, "127.0.0.1", 0);
    cr_assert_eq(lport_socket_count() - before.sockets, 3 + FILLERS, "the loser is closed");
    lport_dial_close(dial);
    lport_socket_close(socket, 0);
    lport_socket_close(listener, 0);
    end_silence(&silence);
    check_nothing_left();
    return took;
}

Test(dial, the_second_address_follows_silence_after_250_ms) { /* behaviours 48, 49 */
    NEED_INET6();
    cr_assert_lt(at_best(dial_behind_silence, NULL, 800 * MS), 800 * MS);
}

Test(dial, all_refused_lists_every_address) { /* behaviour 51 */
    static const char *const texts[] = {"127.0.0.2", "127.0.0.3", "::1", "127.0.0.4", NULL};
    int32_t port = refusing_port();
    int32_t ports[] = {port, port, port, port};
    int64_t dial = open_list(texts, ports);
    cr_assert_eq(kind(finish_soon(dial)), LPORT_CONNECTION_REFUSED);
    cr_assert_eq(lport_dial_count(dial), 4);
    check_attempt(dial, 0, "127.0.0.2", LPORT_CONNECTION_REFUSED);
    check_attempt(dial, 1, "::1", refusal_of_inet6());
    check_attempt(dial, 2, "127.0.0.3", LPORT_CONNECTION_REFUSED);
    check_attempt(dial, 3, "127.0.0.4", LPORT_CONNECTION_REFUSED);
    lport_dial_close(dial);
    check_nothing_left();
}

static int64_t dial_three_in_vain(void *data) {
    (void)data;
    static const char *const texts[] = {"127.0.0.2", "127.0.0.3", "127.0.0.4", NULL};
    struct silence silence[3];
    int32_t ports[3];
    for (int i = 0; i < 3; i++) {
        keep_silent(&silence[i], texts[i], 0);
        ports[i] = port_of(silence[i].listener);
    }
    int64_t dial = open_list(texts, ports);
    int64_t begin = lport_clock_now();
    cr_assert_eq(kind(finish(dial, begin + 600 * MS)), LPORT_TIMED_OUT);
    int64_t took = lport_clock_now() - begin;
    cr_assert_geq(took, 600 * MS, "%lld ns", (long long)took);
    while (lport_dial_count(dial) < 3) { /* after a pause, all of them late */
        cr_assert_eq(kind(finish(dial, lport_clock_after(10 * MS))), LPORT_TIMED_OUT);
        cr_assert_lt(lport_clock_now() - begin, 10 * S);
    }
    check_attempt(dial, 2, "127.0.0.4", LPORT_IN_PROGRESS);
    lport_dial_close(dial); /* with three attempts going on */
    for (int i = 0; i < 3; i++) {
        end_silence(&silence[i]);
    }
    check_nothing_left();
    return took;
}

Test(dial, one_deadline_covers_every_address) { /* behaviour 50 */
    cr_assert_lt(at_best(dial_three_in_vain, NULL, 1100 * MS), 1100 * MS);
}

/* While it is set no connect has an end. */
static atomic_int undecided;

static int undecided_getpeername(int fd, struct sockaddr *address, socklen_t *len) {
    if (undecided) {
        errno = ENOTCONN;
        return -1;
    }
    return fake.os.getpeername(fd, address, len);
}

Test(dial, a_late_winner_is_closed_in_order) { /* behaviours 48, 49 */
    static const char *const texts[] = {"127.0.0.2", "127.0.0.3", NULL};
    int64_t first = listen_at("127.0.0.2", 0, -1);
    int64_t second = listen_at("127.0.0.3", 0, -1);
    int32_t ports[] = {port_of(first), port_of(second)};
    lport_os.getpeername = undecided_getpeername;
    undecided = 1;
    int64_t dial = open_list(texts, ports);
    int64_t deadline = lport_clock_after(10 * S);
    while (lport_dial_count(dial) < 2 && lport_clock_now() < deadline) {
        cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    }
    undecided = 0; /* now both are connected */
    int64_t socket = finish_soon(dial);
    check_peer(socket, "127.0.0.2", ports[0]);
    check_attempt(dial, 0, "127.0.0.2", 0);
    check_attempt(dial, 1, "127.0.0.3", LPORT_IN_PROGRESS);
    int64_t peer = accept_one(second, soon());
    cr_assert_gt(peer, 0);
    cr_assert_eq(read_end(peer), 0, "the loser's peer sees an end of file");
    lport_dial_close(dial);
    lport_socket_close(peer, 0);
    lport_socket_close(socket, 0);
    lport_socket_close(first, 0);
    lport_socket_close(second, 0);
    before.descriptors++; /* the eventfd of our wait stays in its pool */
    check_nothing_left();
}

Test(dial, no_address_at_all_is_a_host_without_one) { /* behaviour 48 */
    int64_t dial = lport_dial_open_addresses(NULL, 0, LPORT_STREAM, NULL, 0);
    cr_assert_gt(dial, 0);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_HOST_NOT_FOUND);
    cr_assert_eq(lport_dial_count(dial), 0);
    lport_dial_close(dial);
    check_nothing_left();
}

Test(dial, a_thousand_addresses_that_refuse) { /* behaviour 48 */
    enum { MANY = 1000 };
    uint8_t *addresses = calloc(MANY, LPORT_ADDRESS_SIZE);
    int32_t port = refusing_port();
    block last;
    for (int i = 0; i < MANY; i++) {
        char text[32];
        snprintf(text, sizeof text, "127.0.%d.%d", i / 250 + 1, i % 250 + 1);
        parse(text, port, addresses + (size_t)i * LPORT_ADDRESS_SIZE);
    }
    int64_t dial = lport_dial_open_addresses(addresses, MANY, LPORT_STREAM, NULL, 0);
    cr_assert_eq(kind(finish_soon(dial)), LPORT_CONNECTION_REFUSED);
    cr_assert_eq(lport_dial_count(dial), MANY);
    cr_assert_eq(kind(lport_dial_attempt(dial, MANY - 1, last)), LPORT_CONNECTION_REFUSED);
    cr_assert_arr_eq(last, addresses + (MANY - 1) * LPORT_ADDRESS_SIZE, LPORT_ADDRESS_SIZE);
    lport_dial_close(dial);
    free(addresses);
    check_nothing_left();
}

/* ---- names -------------------------------------------------------------------------------------
 */

Test(dial, a_name_connects_to_the_first_address_that_answers) {
    int64_t listener = listen_at("127.0.0.3", 0, -1);
    fake.texts[0] = "127.0.0.2";
    fake.texts[1] = "::1";
    fake.texts[2] = "127.0.0.3";
    int64_t dial = open_dial("many.test", port_of(listener));
    int64_t socket = finish_soon(dial);
    check_peer(socket, "127.0.0.3", port_of(listener));
    cr_assert_eq(lport_dial_count(dial), 3);
    check_attempt(dial, 1, "::1", refusal_of_inet6());
    end_connected(dial, socket, listener);
}

Test(dial, a_name_with_one_address) {
    int64_t listener = listen_at("127.0.0.2", 0, -1);
    fake.texts[0] = "127.0.0.2";
    int64_t dial = open_dial("one.test", port_of(listener));
    int64_t socket = finish_soon(dial);
    check_peer(socket, "127.0.0.2", port_of(listener));
    end_connected(dial, socket, listener);
}

/* The answer is there and the connection is not: the query is over, whatever comes next. */
Test(dial, a_name_whose_address_takes_its_time) {
    int64_t listener = listen_at("127.0.0.2", 0, -1);
    fake.texts[0] = "127.0.0.2";
    faults_fail(CALL_GETPEERNAME, 1, 2, ENOTCONN);
    int64_t dial = open_dial("one.test", port_of(listener));
    int64_t socket = finish_soon(dial);
    cr_assert_eq(faults_struck(), 2);
    faults_resume();
    check_peer(socket, "127.0.0.2", port_of(listener));
    end_connected(dial, socket, listener);
}

/* What is looked at is the event of the query, which belongs to no address. */
Test(dial, a_look_that_fails_while_a_name_is_asked_for) {
    int64_t listener = listen_at("127.0.0.2", 0, -1);
    fake.gated = 1;
    fake.texts[0] = "127.0.0.2";
    int64_t dial = open_dial("slow.test", port_of(listener));
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    faults_fail(CALL_PPOLL, 1, 1, ENOMEM);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    cr_assert_eq(faults_struck(), 1);
    faults_resume();
    cr_assert_eq(lport_dial_count(dial), 0);
    sem_post(&fake.gate);
    int64_t socket = finish_soon(dial);
    check_peer(socket, "127.0.0.2", port_of(listener));
    end_connected(dial, socket, listener);
}

/* As a program without a standard input gets it. */
Test(dial, descriptor_0_may_tell_of_the_answer) {
    int64_t listener = listen_at("127.0.0.2", 0, -1);
    int input = dup(0);
    close(0);
    fake.texts[0] = "127.0.0.2";
    int64_t dial = open_dial("one.test", port_of(listener));
    cr_assert_geq(fcntl(0, F_GETFD), 0);
    int64_t socket = finish_soon(dial);
    check_peer(socket, "127.0.0.2", port_of(listener));
    lport_dial_close(dial);
    lport_socket_close(socket, 0);
    lport_socket_close(listener, 0);
    cr_assert_eq(fcntl(0, F_GETFD), -1);
    cr_assert_eq(dup2(input, 0), 0);
    close(input);
    check_nothing_left();
}

/* What was waited for before the answer is no descriptor of the attempts. */
Test(dial, a_name_with_several_addresses_needs_no_standard_input) {
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int input = dup(0);
    close(0);
    fake.gated = 1;
    fake.texts[0] = "127.0.0.1";
    fake.texts[1] = "127.0.0.2";
    int64_t dial = open_dial("two.test", port_of(silence.listener));
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    sem_post(&fake.gate);
    cr_assert_eq(lport_dial_wait(dial, lport_clock_after(10 * S)), 0);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    check_attempt(dial, 0, "127.0.0.1", LPORT_IN_PROGRESS);
    lport_dial_close(dial);
    cr_assert_eq(dup2(input, 0), 0);
    close(input);
    end_silence(&silence);
    check_nothing_left();
}

static int strict_eventfd(unsigned int value, int flags) {
    cr_assert((flags & EFD_CLOEXEC) != 0);
    return fake.os.eventfd(value, flags);
}

Test(dial, what_tells_of_the_answer_is_close_on_exec) { /* behaviour 60 */
    fake.texts[0] = "127.0.0.1";
    lport_os.eventfd = strict_eventfd;
    lport_dial_close(open_dial("one.test", 80));
    check_nothing_left();
}

Test(dial, a_name_that_is_not_found) {
    fake.result = EAI_NONAME;
    int64_t dial = open_dial("no.test", 80);
    cr_assert_eq(kind(finish_soon(dial)), LPORT_HOST_NOT_FOUND);
    cr_assert_eq(lport_dial_count(dial), 0);
    lport_dial_close(dial);
    check_nothing_left();
}

Test(dial, a_dial_that_is_decided_is_not_waited_for) {
    fake.gated = 1;
    fake.result = EAI_NONAME;
    int64_t dial = open_dial("slow.test", 80);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    sem_post(&fake.gate);
    cr_assert_eq(kind(finish_soon(dial)), LPORT_HOST_NOT_FOUND);
    cr_assert_eq(lport_dial_wait(dial, lport_clock_after(10 * S)), 0);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_HOST_NOT_FOUND);
    lport_dial_close(dial);
    check_nothing_left();
}

Test(dial, one_deadline_covers_the_resolver_too) { /* behaviour 50 */
    fake.gated = 1;
    fake.texts[0] = "127.0.0.1";
    int64_t dial = open_dial("slow.test", 80);
    assert_times_out(finish, dial, 100 * MS, 600 * MS);
    cr_assert_eq(lport_dial_count(dial), 0);
    cr_assert_eq(lport_dial_close(dial), 0);
    cr_assert_eq(count_descriptors(), before.descriptors, "the eventfd goes with the dial");
    sem_post(&fake.gate); /* the answer comes after all: to nobody */
    check_nothing_left();
}

Test(dial, an_answer_that_races_with_the_close_hurts_nobody) { /* behaviour 26 */
    fake.gated = 1;
    fake.texts[0] = "127.0.0.1";
    for (int i = 0; i < 300; i++) {
        int64_t dial = open_dial("slow.test", 80);
        lport_dial_step(dial);
        sem_post(&fake.gate);
        for (int j = 0; j < i % 7; j++) {
            sched_yield();
        }
        lport_dial_close(dial);
    }
    for (int i = 0; i < 300; i++) { /* for those whose query was dropped from the queue: spare */
        sem_post(&fake.gate);
    }
    check_nothing_left();
}

static int finish_in_child(void *dial) {
    return kind(finish_soon(*(int64_t *)dial)) == LPORT_RESOLVER_TRY_AGAIN ? 0 : 1;
}

/* The event on which the parent waits for the answer is the child's too. */
Test(dial, a_fork_wakes_no_dial_of_the_parent) {
    faults_watch(); /* a wait that is disturbed ends early */
    fake.gated = 1;
    fake.texts[0] = "127.0.0.1";
    int64_t dial = open_dial("slow.test", 80);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    sem_wait(&fake.entered);
    cr_assert_eq(in_child(finish_in_child, &dial), 0);
    cr_assert_eq(kind(lport_dial_wait(dial, lport_clock_after(50 * MS))), LPORT_TIMED_OUT);
    sem_post(&fake.gate);
    cr_assert_eq(lport_dial_wait(dial, lport_clock_after(10 * S)), 0);
    lport_dial_close(dial);
    check_nothing_left();
}

static int wait_in_child(void *dial) {
    return lport_dial_wait(*(int64_t *)dial, lport_clock_after(10 * S)) == 0 ? 0 : 1;
}

/* Nobody answers the child's queries any more: a wait for that would be one for ever. */
Test(dial, a_child_of_fork_does_not_wait_for_an_answer_to_its_parent) {
    fake.gated = 1;
    fake.texts[0] = "127.0.0.1";
    int64_t dial = open_dial("slow.test", 80);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    sem_wait(&fake.entered);
    cr_assert_eq(in_child(wait_in_child, &dial), 0);
    sem_post(&fake.gate);
    lport_dial_close(dial);
    check_nothing_left();
}

static int dial_in_child(void *port) {
    int64_t dial = lport_dial_open("127.0.0.1", 9, *(int32_t *)port, LPORT_ANY, NULL, 0);
    return dial > 0 && finish_soon(dial) > 0 ? 0 : 1;
}

Test(dial, a_child_of_fork_can_dial) {
    int64_t listener = listen_at("127.0.0.1", 0, -1);
    int32_t port = port_of(listener);
    lport_dial_close(open_dial("127.0.0.1", port)); /* who has dialled is who sees to the fork */
    cr_assert_eq(in_child(dial_in_child, &port), 0);
    lport_socket_close(listener, 0);
    check_nothing_left();
}

/* ---- our own address, families ------------------------------------------------------------------
 */

/* Dials NAME at PORT from LOCAL ("" for none, "*" for any family), its port LOCAL_PORT. */
static int64_t dial_from(const char *name, int32_t port, int32_t family, const char *local,
                         int32_t local_port) {
    block own = {LPORT_ANY};
    if (strcmp(local, "*") == 0) {
        lport_address_set_port(own, local_port);
    } else if (*local != 0) {
        parse(local, local_port, own);
    }
    int64_t dial = lport_dial_open(name, strlen(name), port, family, *local != 0 ? own : NULL, 0);
    cr_assert_gt(dial, 0);
    return dial;
}

Test(dial, local_address_and_family_in_every_combination) { /* behaviour 53 */
    NEED_INET6();
    static const struct {
        const char *name;
        int32_t family;
        const char *local;
        const char *expected; /* the peer, or NULL with a failure */
        int32_t failure;
    } rows[] = {
        {"127.0.0.1", LPORT_ANY, "", "127.0.0.1", 0},
        {"127.0.0.1", LPORT_INET, "", "127.0.0.1", 0},
        {"127.0.0.1", LPORT_INET6, "", NULL, LPORT_HOST_NOT_FOUND},
        {"127.0.0.1", LPORT_ANY, "127.0.0.7", "127.0.0.1", 0},
        {"127.0.0.1", LPORT_INET, "127.0.0.7", "127.0.0.1", 0},
        {"127.0.0.1", LPORT_ANY, "::1", NULL, LPORT_ADDRESS_NOT_AVAILABLE},
        {"127.0.0.1", LPORT_ANY, "*", "127.0.0.1", 0},
        {"127.0.0.1", LPORT_ANY, "198.51.100.1", NULL, LPORT_ADDRESS_NOT_AVAILABLE},
        {"::1", LPORT_ANY, "", "::1", 0},
        {"::1", LPORT_INET6, "::1", "::1", 0},
        {"::1", LPORT_INET, "", NULL, LPORT_HOST_NOT_FOUND},
        {"::1", LPORT_ANY, "127.0.0.7", NULL, LPORT_ADDRESS_NOT_AVAILABLE},
        {"::1", LPORT_ANY, "*", "::1", 0},
        {"both.test", LPORT_ANY, "", "::1", 0},
        {"both.test", LPORT_INET, "", "127.0.0.1", 0},
        {"both.test", LPORT_INET6, "", "::1", 0},
        {"both.test", LPORT_ANY, "127.0.0.7", "127.0.0.1", 0},
        {"both.test", LPORT_ANY, "::1", "::1", 0},
        {"both.test", LPORT_ANY, "*", "::1", 0},
        {"both.test", LPORT_INET, "127.0.0.7", "127.0.0.1", 0},
        {"both.test", LPORT_INET, "::1", NULL, LPORT_ADDRESS_NOT_AVAILABLE},
    };
    int64_t wide, narrow;
    int32_t port;
    do { /* until a port is free for both */
        block here;
        wide = listen_at("::1", 0, -1);
        port = port_of(wide);
        parse("127.0.0.1", port, here);
        narrow = lport_socket_listen(here, -1, LPORT_REUSE_ADDRESS);
    } while (kind(narrow) == LPORT_ADDRESS_IN_USE && lport_socket_close(wide, 0) == 0);
    cr_assert_gt(narrow, 0);
    fake.texts[0] = "::1";
    fake.texts[1] = "127.0.0.1";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int32_t own_port = strcmp(rows[i].local, "*") == 0 ? refusing_port() : 0;
        int64_t dial = dial_from(rows[i].name, port, rows[i].family, rows[i].local, own_port);
        int64_t socket = finish_soon(dial);
        lport_dial_close(dial);
        if (rows[i].expected == NULL) {
            cr_assert_eq(kind(socket), rows[i].failure, "row %zu", i);
            continue;
        }
        block own, expected;
        check_peer(socket, rows[i].expected, port);
        lport_socket_name(socket, own);
        if (own_port != 0) {
            cr_assert_eq(lport_address_port(own), own_port, "row %zu", i);
        } else if (*rows[i].local != 0) {
            parse(rows[i].local, lport_address_port(own), expected);
            cr_assert_arr_eq(own, expected, LPORT_ADDRESS_SIZE, "row %zu", i);
        }
        lport_socket_close(socket, LPORT_RESET);
    }
    lport_socket_close(wide, 0);
    lport_socket_close(narrow, 0);
    check_nothing_left();
}

Test(dial, several_attempts_share_one_local_port) {
    static const char *const texts[] = {"127.0.0.2", "127.0.0.3", NULL};
    uint8_t addresses[2 * LPORT_ADDRESS_SIZE];
    block own = {LPORT_ANY};
    struct silence silence;
    keep_silent(&silence, texts[0], 0);
    int64_t listener = listen_at(texts[1], 0, -1);
    parse(texts[0], port_of(silence.listener), addresses);
    parse(texts[1], port_of(listener), addresses + LPORT_ADDRESS_SIZE);
    lport_address_set_port(own, refusing_port());
    int64_t dial = lport_dial_open_addresses(addresses, 2, LPORT_STREAM, own, 0);
    int64_t socket = finish_soon(dial);
    check_peer(socket, texts[1], port_of(listener));
    cr_assert_eq(port_of(socket), lport_address_port(own));
    lport_dial_close(dial);
    lport_socket_close(socket, LPORT_RESET);
    lport_socket_close(listener, 0);
    end_silence(&silence);
    check_nothing_left();
}

/* ---- connections to itself ----------------------------------------------------------------------
 */

Test(dial, a_connection_to_itself_is_a_refusal) { /* behaviour 52 */
    int32_t port = refusing_port();
    int64_t dial = dial_from("127.0.0.1", port, LPORT_ANY, "127.0.0.1", port);
    int64_t status = finish_soon(dial);
    cr_assert_eq(kind(status), LPORT_CONNECTION_REFUSED);
    cr_assert_eq(lport_status_errno(status), 0);
    cr_assert_eq(lport_dial_count(dial), 1);
    lport_dial_close(dial);
    block address;
    parse("127.0.0.1", port, address);
    release_ports();
    int64_t listener = lport_socket_listen(address, 0, 0);
    cr_assert_gt(listener, 0, "the port is not left in TIME_WAIT");
    lport_socket_close(listener, 0);
    check_nothing_left();
}

static atomic_int selves; /* so many connects will look as if they were to themselves */

static int mirrored_getsockname(int fd, struct sockaddr *address, socklen_t *len) {
    return atomic_fetch_sub(&selves, 1) > 0 ? fake.os.getpeername(fd, address, len)
                                            : fake.os.getsockname(fd, address, len);
}

Test(dial, an_address_that_connects_to_itself_is_dialled_twice_more) { /* behaviour 52 */
    int64_t listener = listen_at("127.0.0.1", 0, -1);
    int32_t port = port_of(listener);
    for (int times = 0; times <= 4; times++) {
        int64_t dial = open_dial("127.0.0.1", port);
        lport_os.getsockname = mirrored_getsockname;
        selves = times;
        int64_t result = finish_soon(dial);
        cr_assert_eq(times - (selves > 0 ? selves : 0), times < 3 ? times : 3);
        lport_os.getsockname = fake.os.getsockname;
        cr_assert_eq(lport_dial_count(dial), 1);
        lport_dial_close(dial);
        if (times <= 2) {
            check_peer(result, "127.0.0.1", port);
            lport_socket_close(result, 0);
        } else {
            cr_assert_eq(kind(result), LPORT_CONNECTION_REFUSED);
        }
    }
    lport_socket_close(listener, 0);
    check_nothing_left();
}

/* ---- local names --------------------------------------------------------------------------------
 */

static void local_name(uint8_t *address) {
    char name[64];
    int len = snprintf(name, sizeof name, "@port-dial-test-%ld", (long)getpid());
    cr_assert_eq(lport_address_local(name, (size_t)len, address) >= 0, 1);
}

Test(dial, a_local_name_connects_in_one_step) {
    static const int32_t kinds[] = {LPORT_STREAM, LPORT_SEQPACKET, LPORT_DATAGRAM};
    block address;
    local_name(address);
    for (int i = 0; i < 3; i++) {
        int64_t listener = lport_local_listen(address, kinds[i], -1, -1, 0);
        cr_assert_gt(listener, 0);
        int64_t dial =
            lport_dial_open_addresses(address, 1, kinds[i], NULL, LPORT_NODELAY | LPORT_KEEPALIVE);
        int64_t socket = lport_dial_step(dial);
        cr_assert_gt(socket, 0, "%s", lport_kind_name(kind(socket)));
        lport_dial_close(dial);
        lport_socket_close(socket, 0);
        lport_socket_close(listener, 0);
    }
    check_nothing_left();
}

Test(dial, a_full_local_backlog_is_tried_again) {
    faults_watch(); /* polls are counted */
    block address;
    int64_t fillers[FILLERS];
    int filled = 0;
    local_name(address);
    int64_t listener = lport_local_listen(address, LPORT_STREAM, 0, -1, 0);
    cr_assert_gt(listener, 0);
    for (; filled < FILLERS; filled++) {
        fillers[filled] = lport_socket_open(LPORT_LOCAL, LPORT_STREAM, 0);
        if (lport_socket_connect_start(fillers[filled], address) < 0) {
            break;
        }
    }
    cr_assert_lt(filled, FILLERS);
    int64_t dial = lport_dial_open_addresses(address, 1, LPORT_STREAM, NULL, 0);
    calls = 0;
    lport_os.ppoll = counted_ppoll;
    /* 1, 2, 4, 8, 16, 32, 50, 50 ms: a poll for each, and it does not spin */
    cr_assert_eq(kind(finish(dial, lport_clock_after(150 * MS))), LPORT_TIMED_OUT);
    cr_assert_leq(calls, 12, "%d polls", calls);
    /* However often the machine has paused meanwhile, it is tried again and again. */
    int64_t limit = lport_clock_after(10 * S);
    while (calls < 4 && lport_clock_now() < limit) {
        cr_assert_eq(kind(finish(dial, lport_clock_after(150 * MS))), LPORT_TIMED_OUT);
    }
    cr_assert_geq(calls, 4);
    lport_os.ppoll = fake.os.ppoll;
    block tried;
    cr_assert_eq(kind(lport_dial_attempt(dial, 0, tried)), LPORT_IN_PROGRESS);
    cr_assert_arr_eq(tried, address, LPORT_ADDRESS_SIZE);
    int64_t peer = lport_socket_accept(listener, NULL);
    int64_t socket = finish_soon(dial);
    cr_assert_gt(socket, 0);
    lport_dial_close(dial);
    lport_socket_close(socket, 0);
    lport_socket_close(peer, 0);
    for (int i = 0; i <= filled; i++) {
        lport_socket_close(fillers[i], 0);
    }
    lport_socket_close(listener, 0);
    check_nothing_left();
}

static int full_connect(int fd, const struct sockaddr *address, socklen_t len) {
    (void)fd, (void)address, (void)len;
    errno = EAGAIN;
    return -1;
}

Test(dial, the_pauses_of_a_full_local_backlog_double_up_to_50_ms) {
    static const int64_t pauses[] = {1, 2, 4, 8, 16, 32, 50, 50, 50};
    const struct lport_attempt_plan plan = {.kind = LPORT_STREAM};
    struct lport_attempt attempt;
    int64_t now = lport_clock_now();
    block address;
    local_name(address);
    lport_os.connect = full_connect;
    lport_attempt_init(&attempt, address);
    cr_assert_eq(kind(lport_attempt_start(&attempt, &plan, now)), LPORT_IN_PROGRESS);
    for (size_t i = 0; i < COUNT_OF(pauses); i++) {
        cr_assert_eq(attempt.retry_at, now + pauses[i] * MS, "pause %zu", i);
        now = attempt.retry_at;
        cr_assert_eq(kind(lport_attempt_retry(&attempt, &plan, now)), LPORT_IN_PROGRESS);
    }
    lport_attempt_close(&attempt, 0);
    check_nothing_left();
}

Test(dial, a_local_name_that_nobody_has) {
    block address;
    cr_assert_geq(lport_address_local("/no/such/socket", 15, address), 0);
    int64_t dial = lport_dial_open_addresses(address, 1, LPORT_STREAM, NULL, 0);
    cr_assert_eq(kind(finish_soon(dial)), LPORT_PATH_NOT_FOUND);
    lport_dial_close(dial);
    local_name(address);
    dial = lport_dial_open_addresses(address, 1, LPORT_STREAM, NULL, 0);
    cr_assert_eq(kind(finish_soon(dial)), LPORT_CONNECTION_REFUSED);
    lport_dial_close(dial);
    check_nothing_left();
}

/* ---- failures
 * ------------------------------------------------------------------------------------ */

static int errors[4]; /* of the connects, in their order */
static int connects;

static int failing_connect(int fd, const struct sockaddr *address, socklen_t len) {
    (void)fd, (void)address, (void)len;
    errno = errors[connects++];
    return -1;
}

Test(dial, the_failure_that_tells_most_is_the_one_returned) {
    static const char *const texts[] = {"127.0.0.1", "127.0.0.2", "127.0.0.3", NULL};
    static const int32_t ports[] = {1, 1, 1};
    static const struct {
        int errors[3];
        int32_t kind;
    } rows[] = {
        {{ENETUNREACH, ECONNREFUSED, ETIMEDOUT}, LPORT_CONNECTION_REFUSED},
        {{EADDRINUSE, EACCES, EIO}, LPORT_CONNECT_DENIED},
        {{EACCES, ENOENT, EIO}, LPORT_PATH_NOT_FOUND},
        {{EHOSTUNREACH, EACCES, ECONNRESET}, LPORT_CONNECTION_REFUSED},
        {{EHOSTUNREACH, EACCES, ENETUNREACH}, LPORT_CONNECT_DENIED},
        {{ENETUNREACH, ETIMEDOUT, EHOSTUNREACH}, LPORT_HOST_UNREACHABLE},
        {{ENETUNREACH, EADDRNOTAVAIL, ETIMEDOUT}, LPORT_CONNECT_TIMED_OUT},
        {{EADDRNOTAVAIL, EADDRNOTAVAIL, ENETUNREACH}, LPORT_NETWORK_UNREACHABLE},
        {{EIO, EADDRNOTAVAIL, EIO}, LPORT_ADDRESS_NOT_AVAILABLE},
        {{EIO, EADDRINUSE, EADDRNOTAVAIL}, LPORT_ADDRESS_IN_USE},
        {{ECONNREFUSED, ENOBUFS, ETIMEDOUT}, LPORT_BUFFERS_EXHAUSTED},
        {{ECONNREFUSED, ENOMEM, ENOBUFS}, LPORT_MEMORY_EXHAUSTED},
    };
    lport_os.connect = failing_connect;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        memcpy(errors, rows[i].errors, sizeof rows[i].errors);
        connects = 0;
        int64_t dial = open_list(texts, ports);
        int64_t status = finish_soon(dial);
        cr_assert_eq(kind(status), rows[i].kind, "row %zu: %s", i, lport_kind_name(kind(status)));
        cr_assert_eq(lport_dial_count(dial), 3);
        lport_dial_close(dial);
    }
    check_nothing_left();
}

static atomic_int permitted; /* calls of any kind that still succeed */

static int may(int error) {
    if (atomic_fetch_sub(&permitted, 1) > 0) {
        return 1;
    }
    errno = error;
    return 0;
}

static int limited_socket(int domain, int type, int protocol) {
    return may(EMFILE) ? fake.os.socket(domain, type, protocol) : -1;
}

static int limited_bind(int fd, const struct sockaddr *address, socklen_t len) {
    return may(EADDRINUSE) ? fake.os.bind(fd, address, len) : -1;
}

static int limited_connect(int fd, const struct sockaddr *address, socklen_t len) {
    return may(ENETUNREACH) ? fake.os.connect(fd, address, len) : -1;
}

static int limited_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    return may(ENOBUFS) ? fake.os.getsockopt(fd, level, name, value, len) : -1;
}

static int limited_setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
    return may(ENOMEM) ? fake.os.setsockopt(fd, level, name, value, len) : -1;
}

static int limited_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout) {
    return may(ENOMEM) ? fake.os.ppoll(fds, count, timeout) : -1;
}

static int limited_eventfd(unsigned int value, int flags) {
    return may(EMFILE) ? fake.os.eventfd(value, flags) : -1;
}

static void *limited_calloc(size_t count, size_t size) {
    return may(ENOMEM) ? fake.os.calloc(count, size) : NULL;
}

static void limit_calls(int count) {
    lport_os.socket = limited_socket;
    lport_os.bind = limited_bind;
    lport_os.connect = limited_connect;
    lport_os.getsockopt = limited_getsockopt;
    lport_os.setsockopt = limited_setsockopt;
    lport_os.ppoll = limited_ppoll;
    lport_os.eventfd = limited_eventfd;
    lport_os.calloc = limited_calloc;
    permitted = count;
}

Test(dial, every_call_of_the_system_may_fail) { /* behaviour 64 */
    int connected = 0;
    int64_t listener = listen_at("127.0.0.3", 0, -1);
    int32_t port = port_of(listener);
    fake.texts[0] = "127.0.0.2";
    fake.texts[1] = "127.0.0.3";
    block own;
    parse("127.0.0.7", 0, own);
    for (int n = 0; n < 60; n++) {
        limit_calls(n);
        int64_t result = lport_dial_open("two.test", 8, port, LPORT_ANY, own, LPORT_NODELAY);
        if (result > 0) {
            int64_t dial = result;
            result = finish_soon(dial);
            lport_dial_close(dial);
        }
        lport_os = fake.os;
        cr_assert(result > 0 || result < 0);
        if (result > 0) {
            connected++;
            lport_socket_close(result, 0);
        }
        cr_assert_eq(lport_socket_count() - before.sockets, 1, "call %d", n);
    }
    cr_assert(connected > 10 && connected < 60, "%d", connected);
    lport_socket_close(listener, 0);
    check_nothing_left();
}

Test(dial, want_of_descriptors_is_told_before_all_else) { /* behaviour 57, its dialling half */
    static const char *const texts[] = {"127.0.0.1", "127.0.0.2", NULL};
    int32_t port = refusing_port();
    int32_t ports[] = {port, port};
    lport_os.socket = limited_socket;
    permitted = 1;
    int64_t dial = open_list(texts, ports);
    int64_t status = finish_soon(dial);
    cr_assert_eq(kind(status), LPORT_DESCRIPTORS_EXHAUSTED);
    cr_assert_eq(lport_status_errno(status), EMFILE);
    check_attempt(dial, 0, "127.0.0.1", LPORT_CONNECTION_REFUSED);
    check_attempt(dial, 1, "127.0.0.2", LPORT_DESCRIPTORS_EXHAUSTED);
    lport_dial_close(dial);
    check_nothing_left();
}

/* ---- waiting
 * ------------------------------------------------------------------------------------- */

static atomic_int interruptions;

static int interrupted_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout) {
    if (atomic_fetch_sub(&interruptions, 1) > 0) {
        errno = EINTR;
        return -1;
    }
    return fake.os.ppoll(fds, count, timeout);
}

Test(dial, signals_are_waited_out) { /* behaviours 12, 52 */
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int64_t dial = open_dial("127.0.0.1", port_of(silence.listener));
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    lport_os.ppoll = interrupted_ppoll;
    interruptions = 1000;
    int64_t begin = lport_clock_now();
    cr_assert_eq(kind(lport_dial_wait(dial, begin + 50 * MS)), LPORT_TIMED_OUT);
    cr_assert_geq(lport_clock_now() - begin, 50 * MS);
    interruptions = 1000; /* in a step, too: nothing has failed */
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    lport_os.ppoll = fake.os.ppoll;
    lport_dial_close(dial);
    end_silence(&silence);
    check_nothing_left();
}

Test(dial, a_wait_can_be_abandoned_at_any_moment) { /* behaviour 26 */
    struct silence silence;
    keep_silent(&silence, "127.0.0.1", 0);
    int64_t dial = open_dial("127.0.0.1", port_of(silence.listener));
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    unwind_waits(lport_dial_wait, dial);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    cr_assert_eq(kind(lport_dial_wait(dial, lport_clock_after(10 * MS))), LPORT_TIMED_OUT);
    lport_dial_close(dial);
    end_silence(&silence);
    check_nothing_left();
}

struct waiting {
    int64_t wait, result;
};

static void *wait_for_socket(void *argument) {
    struct waiting *waiting = argument;
    waiting->result = lport_wait_poll(waiting->wait, LPORT_NEVER, 0);
    return NULL;
}

Test(dial, a_close_wakes_a_connect_in_progress) { /* behaviour 17, for sockets */
    struct silence silence;
    struct waiting waiting;
    pthread_t thread;
    block address;
    keep_silent(&silence, "127.0.0.1", 0);
    lport_socket_name(silence.listener, address);
    int64_t socket = start_connect(address);
    cr_assert_eq(kind(lport_socket_connect_finish(socket)), LPORT_IN_PROGRESS);
    waiting.wait = lport_wait_begin(socket, LPORT_OUTPUT);
    pthread_create(&thread, NULL, wait_for_socket, &waiting);
    int64_t begin = lport_clock_now();
    cr_assert_eq(lport_socket_close(socket, 0), 1);
    pthread_join(thread, NULL);
    cr_assert_lt(lport_clock_now() - begin, 1 * S);
    cr_assert_eq(kind(waiting.result), LPORT_CLOSED);
    cr_assert_eq(kind(lport_socket_connect_finish(socket)), LPORT_CLOSED);
    lport_wait_end(waiting.wait);
    cr_assert_eq(lport_socket_gone(socket, 0), 0);
    end_silence(&silence);
    before.descriptors++; /* as above */
    check_nothing_left();
}
