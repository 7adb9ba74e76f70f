/* peer_tls - octets through TLS, both ends in one thread over a pair of local sockets: OpenSSL as
 * its manual has it. See peer.c. */
#include "peer.h"

#include <fcntl.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENT, SERVER };

struct ends {
    SSL_CTX *context;
    SSL *ssl[2];
    int fds[2];
};

static void checked(int result, const char *what) {
    if (result != 1) {
        fail(what);
    }
}

/* The two handshakes need each other: by turns, without blocking. */
static void shake_hands(struct ends *ends) {
    int done[2] = {0, 0};
    while (done[CLIENT] != 1 || done[SERVER] != 1) {
        for (int side = CLIENT; side <= SERVER; side++) {
            done[side] = SSL_do_handshake(ends->ssl[side]);
        }
    }
    for (int side = CLIENT; side <= SERVER; side++) {
        int flags = check(fcntl(ends->fds[side], F_GETFL), "fcntl");
        check(fcntl(ends->fds[side], F_SETFL, flags & ~O_NONBLOCK), "fcntl");
    }
}

static struct ends open_ends(void) {
    struct ends ends = {.context = SSL_CTX_new(TLS_method())};
    checked(SSL_CTX_use_certificate_chain_file(ends.context, "build/tls/server.pem"), "server.pem");
    checked(SSL_CTX_use_PrivateKey_file(ends.context, "build/tls/server.key", SSL_FILETYPE_PEM),
            "server.key");
    SSL_CTX_set_num_tickets(ends.context, 0);
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.fds), "socketpair");
    for (int side = CLIENT; side <= SERVER; side++) {
        ends.ssl[side] = SSL_new(ends.context);
        checked(SSL_set_fd(ends.ssl[side], ends.fds[side]), "SSL_set_fd");
    }
    SSL_set_connect_state(ends.ssl[CLIENT]);
    SSL_set_accept_state(ends.ssl[SERVER]);
    shake_hands(&ends);
    return ends;
}

static void close_ends(struct ends *ends) {
    for (int side = CLIENT; side <= SERVER; side++) {
        SSL_free(ends->ssl[side]);
        close(ends->fds[side]);
    }
    SSL_CTX_free(ends->context);
}

/* LEN octets from one side to the other. */
static void pass(struct ends *ends, int from, uint8_t *octets, size_t len) {
    size_t count = 0;
    checked(SSL_write_ex(ends->ssl[from], octets, len, &count), "SSL_write_ex");
    for (size_t have = 0; have < len; have += count) {
        checked(SSL_read_ex(ends->ssl[1 - from], octets + have, len - have, &count), "SSL_read_ex");
    }
}

void run_tls_ping(const struct workload *workload, uint16_t port, int64_t count) {
    struct ends ends = open_ends();
    uint8_t octets[64] = {0};
    (void)port;
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        pass(&ends, CLIENT, octets, sizeof octets);
        pass(&ends, SERVER, octets, sizeof octets);
    }
    report(workload->name, &from, count);
    close_ends(&ends);
}

void run_tls_octets(const struct workload *workload, uint16_t port, int64_t count) {
    struct ends ends = open_ends();
    uint8_t octets[PIECE] = {0};
    (void)port;
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        pass(&ends, CLIENT, octets, sizeof octets);
    }
    report(workload->name, &from, count);
    close_ends(&ends);
}
