#include "dialling.h"

#include "address/address.h"
#include "name/resolve.h"
#include "socket/socket.h"
#include "support.h"

#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

/* ---- before and after ------------------------------------------------------------------------ */

struct before before;

/* A wait leaves its eventfd to the next one: there is one before anything is counted. */
static void wait_once(void) {
    int64_t ends[2];
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_geq(lport_wait_end(lport_wait_begin(ends[0], LPORT_INPUT)), 0);
    close_both(ends);
}

void dial_set_up(void) {
    use_fake_resolver();
    wait_once();
    before.os = lport_os;
    before.sockets = lport_socket_count();
    before.descriptors = count_descriptors(NULL);
}

/* Ports that refuse: bound and not listened on, so that nobody else is given them. */
static struct { int fds[8], count; } held;

void release_ports(void) {
    while (held.count > 0) {
        close(held.fds[--held.count]);
    }
}

void check_nothing_left(void) {
    release_ports();
    int64_t deadline = lport_clock_after(10 * S);
    while (lport_resolve_pending() > 0 && lport_clock_now() < deadline) {
        sched_yield();
    }
    cr_assert_eq(lport_resolve_pending(), 0);
    cr_assert_eq(lport_socket_count(), before.sockets);
    cr_assert_eq(count_descriptors(NULL), before.descriptors);
}

/* ---- addresses, dials ------------------------------------------------------------------------ */

int32_t kind(int64_t status) {
    return lport_status_kind(status);
}

void parse(const char *text, int32_t port, uint8_t *address) {
    cr_assert_gt(lport_address_parse(text, strlen(text), port, address), 0, "%s", text);
}

int32_t port_of(int64_t socket) {
    block own;
    cr_assert_gt(lport_socket_name(socket, own), 0);
    return lport_address_port(own);
}

int64_t listen_at(const char *text, int32_t port, int32_t backlog) {
    block address;
    parse(text, port, address);
    int64_t listener = lport_socket_listen(address, backlog, LPORT_REUSE_ADDRESS, NULL, 0);
    cr_assert_gt(listener, 0);
    return listener;
}

void end_connected(int64_t dial, int64_t socket, int64_t listener) {
    lport_dial_close(dial);
    lport_socket_close(socket, 0);
    lport_socket_close(listener, 0);
    check_nothing_left();
}

int32_t refusing_port(void) {
    struct sockaddr_in6 wide = {.sin6_family = AF_INET6};
    struct sockaddr_in narrow = {.sin_family = AF_INET};
    bool inet6 = have_inet6();
    int on = 1;
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

int32_t refusal_of_inet6(void) {
    return have_inet6() ? LPORT_CONNECTION_REFUSED : LPORT_ADDRESS_NOT_AVAILABLE;
}

int64_t start_connect(const uint8_t *address) {
    int64_t socket = lport_socket_open(address[0], LPORT_STREAM, 0);
    cr_assert_gt(socket, 0);
    int64_t status = lport_socket_connect_start(socket, address);
    cr_assert(status == 0 || kind(status) == LPORT_IN_PROGRESS ||
              kind(status) == LPORT_BACKLOG_FULL);
    return socket;
}

void keep_silent(struct silence *silence, const char *text, int32_t port) {
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

void break_silence(struct silence *silence) {
    close_fillers(silence);
    for (int64_t peer; (peer = undisturbed(lport_socket_accept(silence->listener, NULL))) > 0;) {
        lport_socket_close(peer, 0);
    }
}

void end_silence(struct silence *silence) {
    close_fillers(silence);
    lport_socket_close(silence->listener, 0);
}

int64_t finish(int64_t dial, int64_t deadline) {
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

int64_t finish_soon(int64_t dial) {
    return finish(dial, lport_clock_after(10 * S));
}

int64_t open_dial(const char *name, int32_t port) {
    int64_t dial = lport_dial_open(name, strlen(name), port, LPORT_ANY, NULL, 0);
    cr_assert_gt(dial, 0, "%s", name);
    return dial;
}

int64_t open_list(const char *const *texts, const int32_t *ports) {
    uint8_t addresses[8 * LPORT_ADDRESS_SIZE];
    int32_t count = 0;
    for (; texts[count] != NULL; count++) {
        parse(texts[count], ports[count], addresses + count * LPORT_ADDRESS_SIZE);
    }
    int64_t dial = lport_dial_open_addresses(addresses, count, LPORT_STREAM, NULL, 0);
    cr_assert_gt(dial, 0);
    return dial;
}

void check_attempt(int64_t dial, int32_t index, const char *expected, int32_t expected_kind) {
    block address;
    char text[LPORT_TEXT_SIZE];
    int64_t status = lport_dial_attempt(dial, index, address);
    lport_address_print(address, text, sizeof text);
    cr_assert_str_eq(text, expected);
    cr_assert_eq(kind(status), expected_kind, "attempt %d: %s", index,
                 lport_kind_name(kind(status)));
}

void check_peer(int64_t socket, const char *text, int32_t port) {
    block expected, peer;
    cr_assert_gt(socket, 0, "%s", lport_kind_name(kind(socket)));
    parse(text, port, expected);
    cr_assert_gt(lport_socket_peer(socket, peer), 0);
    cr_assert_eq(lport_address_equal(peer, expected), 1);
}
