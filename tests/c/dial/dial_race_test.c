/* Dials to several addresses: who comes when, who wins, and what is told when all have failed. */
#include "base/os.h"
#include "dialling.h"
#include "libport.h"
#include "support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

DIAL_SUITE(dial_race);

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
    if (took < 200 * MS) { /* else the machine stood still, and the refusal was late */
        check_attempt(dial, 0, "127.0.0.2", LPORT_CONNECTION_REFUSED);
    }
    check_attempt(dial, 1, "127.0.0.3", 0);
    end_connected(dial, socket, listener);
    return took;
}

Test(dial_race, the_second_address_follows_a_refusal_at_once) { /* behaviours 48, 51 */
    cr_assert_lt(at_best(dial_behind_a_refusal, NULL, 200 * MS), 200 * MS);
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

Test(dial_race, the_second_address_follows_silence_after_250_ms) { /* behaviours 48, 49 */
    NEED_INET6();
    cr_assert_lt(at_best(dial_behind_silence, NULL, 800 * MS), 800 * MS);
}

Test(dial_race, all_refused_lists_every_address_in_the_order_given) { /* behaviour 51 */
    static const char *const texts[] = {"127.0.0.2", "127.0.0.3", "::1", "127.0.0.4", NULL};
    int32_t port = refusing_port();
    int32_t ports[] = {port, port, port, port};
    int64_t dial = open_list(texts, ports);
    cr_assert_eq(kind(finish_soon(dial)), LPORT_CONNECTION_REFUSED);
    cr_assert_eq(lport_dial_count(dial), 4);
    check_attempt(dial, 0, "127.0.0.2", LPORT_CONNECTION_REFUSED);
    check_attempt(dial, 1, "127.0.0.3", LPORT_CONNECTION_REFUSED);
    check_attempt(dial, 2, "::1", refusal_of_inet6());
    check_attempt(dial, 3, "127.0.0.4", LPORT_CONNECTION_REFUSED);
    lport_dial_close(dial);

    for (int i = 0; i < 4; i++) {
        fake.texts[i] = texts[i];
    }
    dial = open_dial("all.test", port); /* the families of a name take turns */
    cr_assert_eq(kind(finish_soon(dial)), LPORT_CONNECTION_REFUSED);
    check_attempt(dial, 0, "127.0.0.2", LPORT_CONNECTION_REFUSED);
    check_attempt(dial, 1, "::1", refusal_of_inet6());
    check_attempt(dial, 2, "127.0.0.3", LPORT_CONNECTION_REFUSED);
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

Test(dial_race, one_deadline_covers_every_address) { /* behaviour 50 */
    cr_assert_lt(at_best(dial_three_in_vain, NULL, 1100 * MS), 1100 * MS);
}

Test(dial_race, a_late_winner_is_closed_in_order) { /* behaviours 48, 49 */
    static const char *const texts[] = {"127.0.0.2", "127.0.0.3", NULL};
    int64_t first = listen_at("127.0.0.2", 0, -1);
    int64_t second = listen_at("127.0.0.3", 0, -1);
    int32_t ports[] = {port_of(first), port_of(second)};
    faults_fail(CALL_GETPEERNAME, 1, INT32_MAX, ENOTCONN); /* no connect has an end */
    int64_t dial = open_list(texts, ports);
    int64_t deadline = lport_clock_after(10 * S);
    while (lport_dial_count(dial) < 2 && lport_clock_now() < deadline) {
        cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    }
    faults_resume(); /* now both are connected */
    int64_t socket = finish_soon(dial);
    check_peer(socket, "127.0.0.2", ports[0]);
    check_attempt(dial, 0, "127.0.0.2", 0);
    check_attempt(dial, 1, "127.0.0.3", LPORT_IN_PROGRESS);
    int64_t peer = accept_one(second, soon());
    cr_assert_gt(peer, 0);
    uint8_t octet;
    wait_for(peer, LPORT_INPUT, soon());
    cr_assert_eq(undisturbed(lport_socket_receive(peer, &octet, 1, 0)), 0,
                 "the loser's peer sees an end of file");
    lport_dial_close(dial);
    lport_socket_close(peer, 0);
    lport_socket_close(socket, 0);
    lport_socket_close(first, 0);
    lport_socket_close(second, 0);
    check_nothing_left();
}

Test(dial_race, no_address_at_all_is_a_host_without_one) { /* behaviour 48 */
    int64_t dial = lport_dial_open_addresses(NULL, 0, LPORT_STREAM, NULL, 0);
    cr_assert_gt(dial, 0);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_HOST_NOT_FOUND);
    cr_assert_eq(lport_dial_count(dial), 0);
    lport_dial_close(dial);
    check_nothing_left();
}

Test(dial_race, a_thousand_addresses_that_refuse) { /* behaviour 48 */
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

/* ---- failures -------------------------------------------------------------------------------- */

static int errors[4]; /* of the connects, in their order */
static int connects;

static int failing_connect(int fd, const struct sockaddr *address, socklen_t len) {
    (void)fd, (void)address, (void)len;
    errno = errors[connects++];
    return -1;
}

Test(dial_race, the_failure_that_tells_most_is_the_one_returned) {
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
        {{ENOPROTOOPT, EOPNOTSUPP, ENOPROTOOPT}, LPORT_CONNECT_FAILED},
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
    return may(EMFILE) ? before.os.socket(domain, type, protocol) : -1;
}

static int limited_bind(int fd, const struct sockaddr *address, socklen_t len) {
    return may(EADDRINUSE) ? before.os.bind(fd, address, len) : -1;
}

static int limited_connect(int fd, const struct sockaddr *address, socklen_t len) {
    return may(ENETUNREACH) ? before.os.connect(fd, address, len) : -1;
}

static int limited_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    return may(ENOBUFS) ? before.os.getsockopt(fd, level, name, value, len) : -1;
}

static int limited_setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
    return may(ENOMEM) ? before.os.setsockopt(fd, level, name, value, len) : -1;
}

static int limited_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout) {
    return may(ENOMEM) ? before.os.ppoll(fds, count, timeout) : -1;
}

static int limited_eventfd(unsigned int value, int flags) {
    return may(EMFILE) ? before.os.eventfd(value, flags) : -1;
}

static void *limited_calloc(size_t count, size_t size) {
    return may(ENOMEM) ? before.os.calloc(count, size) : NULL;
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

Test(dial_race, every_call_of_the_system_may_fail) { /* behaviour 64 */
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
        lport_os = before.os;
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

Test(dial_race, want_of_descriptors_is_told_before_all_else) { /* behaviour 57, its dialling half */
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
