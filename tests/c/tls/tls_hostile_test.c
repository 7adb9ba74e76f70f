/* tls: peers that say what a good one never would: OpenSSL itself, driven by hand. */
#include "sessions.h"
#include "support.h"
#include "tls/openssl.h"

#include <dlfcn.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

TestSuite(tls_hostile, .timeout = 40);

/* ---- the peer -------------------------------------------------------------------------------- */

/* What such a peer needs besides what the library has of OpenSSL. */
#define PEER_ROWS(ROW)                                                                             \
    ROW(BIO_write)                                                                                 \
    ROW(SSL_key_update)                                                                            \
    ROW(SSL_get_session)                                                                           \
    ROW(SSL_new_session_ticket)                                                                    \
    ROW(SSL_CTX_set_session_ticket_cb)                                                             \
    ROW(SSL_SESSION_set1_ticket_appdata)

#define MEMBER(name) __typeof__(name) *name;
static struct { PEER_ROWS(MEMBER) } peers;

static void find(const char *name, void *place) {
    void *library = dlopen(lport_openssl_library, RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(library);
    void *function = dlsym(library, name);
    cr_assert_not_null(function, "%s", name);
    memcpy(place, &function, sizeof function);
    (void)dlclose(library); /* it stays: the library of the sockets has it too */
}

/* A server, whose octets go through IN and OUT and its OWN end to END, a client with TLS. */
struct hostile {
    SSL *ssl;
    BIO *in, *out;
    int64_t end, own;
};

/* Enough that it takes several records. */
static int make_long(SSL *ssl, void *unused) {
    static const char octets[1000];
    (void)unused;
    return peers.SSL_SESSION_set1_ticket_appdata(peers.SSL_get_session(ssl), octets, sizeof octets);
}

static SSL_CTX *make_server(const struct lport_openssl *openssl) {
    SSL_CTX *made = openssl->SSL_CTX_new(openssl->TLS_method());
    cr_assert_not_null(made);
    cr_assert_eq(openssl->SSL_CTX_use_certificate_chain_file(made, CERTIFICATE("server")), 1);
    cr_assert_eq(openssl->SSL_CTX_use_PrivateKey_file(made, KEY("server"), SSL_FILETYPE_PEM), 1);
    cr_assert_eq(openssl->SSL_CTX_set_num_tickets(made, 0), 1);
    cr_assert_eq(peers.SSL_CTX_set_session_ticket_cb(made, make_long, NULL, NULL), 1);
    return made;
}

/* In fair weather: what the peer says is counted in records and calls. */
static void make_hostile(struct hostile *hostile) {
    faults_watch();
#define FIND(name) find(#name, &peers.name);
    PEER_ROWS(FIND)
    const struct lport_openssl *openssl = lport_openssl();
    int64_t pair[2], context = make_context(NULL);
    SSL_CTX *server = make_server(openssl);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, pair), 0);
    *hostile = (struct hostile){.ssl = openssl->SSL_new(server),
                                .in = openssl->BIO_new(openssl->BIO_s_mem()),
                                .out = openssl->BIO_new(openssl->BIO_s_mem()),
                                .end = pair[0],
                                .own = pair[1]};
    openssl->SSL_set_bio(hostile->ssl, hostile->in, hostile->out);
    openssl->SSL_set_accept_state(hostile->ssl);
    openssl->SSL_CTX_free(server);
    cr_assert_eq(start(hostile->end, context, LPORT_TLS_CLIENT, "good.test"), 0);
    cr_assert_eq(lport_tls_context_close(context), 0);
}

static void close_hostile(struct hostile *hostile) {
    faults_resume();
    lport_openssl()->SSL_free(hostile->ssl);
    assert_closes(hostile->end);
    assert_closes(hostile->own);
}

/* What the server has to say, into OCTETS: its length. */
static size_t take_said(struct hostile *hostile, uint8_t *octets, size_t cap) {
    int count = lport_openssl()->BIO_read(hostile->out, octets, (int)cap);
    return count > 0 ? (size_t)count : 0;
}

static void say(struct hostile *hostile, const uint8_t *octets, size_t len) {
    cr_assert_eq(send_all(hostile->own, octets, len, soon()), (int64_t)len);
}

/* The server hears what the client has sent. */
static void hear(struct hostile *hostile) {
    uint8_t octets[4096];
    int64_t count;
    while ((count = lport_socket_receive(hostile->own, octets, sizeof octets, 0)) > 0) {
        cr_assert_eq(peers.BIO_write(hostile->in, octets, (int)count), (int)count);
    }
}

static size_t record_length(const uint8_t *record) {
    return 5 + (size_t)(record[3] << 8 | record[4]);
}

static void agree_with(struct hostile *hostile) {
    uint8_t octets[8192];
    int64_t limit = soon(), client;
    int server;
    do {
        cr_assert_lt(lport_clock_now(), limit);
        client = lport_tls_step(hostile->end);
        hear(hostile);
        server = lport_openssl()->SSL_do_handshake(hostile->ssl);
        say(hostile, octets, take_said(hostile, octets, sizeof octets));
    } while (client > 0 || server != 1);
    cr_assert_eq(client, 0);
}

static int64_t receive_now(int64_t end) {
    uint8_t octet;
    return lport_socket_receive(end, &octet, 1, 0);
}

/* ---- certificates ---------------------------------------------------------------------------- */

/* Anybody has the certificate of a server; who shows it and leaves it at that has shown nothing. */
SOCKET_TEST(tls_hostile, a_certificate_whose_key_was_not_shown_is_not_told) {
    struct hostile hostile;
    uint8_t octets[8192];
    enum { CERTIFICATE_AT = 3 }; /* the record of it, behind the hello, and the extensions */
    make_hostile(&hostile);
    cr_assert_gt(lport_tls_step(hostile.end), 0);
    hear(&hostile);
    cr_assert_neq(lport_openssl()->SSL_do_handshake(hostile.ssl), 1);
    size_t len = take_said(&hostile, octets, sizeof octets), at = 0;
    for (int i = 0; at < len; i++) {
        cr_assert_leq(at + record_length(octets + at), len);
        say(&hostile, octets + at, record_length(octets + at));
        at += record_length(octets + at);
        int64_t status = lport_tls_step(hostile.end);
        cr_assert_eq(status, at < len ? LPORT_INPUT : 0, "%lld after %d", (long long)status, i);
        cr_assert_eq(strlen(text_of(hostile.end, LPORT_TLS_SUBJECT)) > 0, at == len, "at %d", i);
        cr_assert_eq(lport_tls_text(hostile.end, LPORT_TLS_CERTIFICATE, NULL, 0) > 0, at == len);
        cr_assert(at < len || i > CERTIFICATE_AT);
    }
    close_hostile(&hostile);
}

/* ---- what is for TLS itself ------------------------------------------------------------------ */

enum { UPDATES = 20000, UPDATES_LEN = 40 * UPDATES };

/* A peer that has UPDATES of keys to say, REQUESTED of the other side too or not, and an octet: all
 * of it, to be freed, and how long it is. */
static uint8_t *begin_updates(struct hostile *hostile, int requested, size_t *len) {
    uint8_t *octets = malloc(UPDATES_LEN);
    size_t count;
    make_hostile(hostile);
    agree_with(hostile);
    for (int i = 0; i < UPDATES; i++) {
        cr_assert_eq(peers.SSL_key_update(hostile->ssl, requested), 1);
        cr_assert_eq(lport_openssl()->SSL_do_handshake(hostile->ssl), 1);
    }
    cr_assert_eq(lport_openssl()->SSL_write_ex(hostile->ssl, "x", 1, &count), 1);
    *len = take_said(hostile, octets, UPDATES_LEN);
    return octets;
}

/* Says the LEN octets at OCTETS until the client has the one that is for it. */
static void say_to_reader(struct hostile *hostile, const uint8_t *octets, size_t len) {
    int64_t limit = soon(), count, received;
    do {
        cr_assert_lt(lport_clock_now(), limit);
        count = len == 0 ? 0 : lport_socket_send(hostile->own, octets, len);
        octets += count > 0 ? count : 0;
        len -= count > 0 ? (size_t)count : 0;
        received = receive_now(hostile->end);
        cr_assert(received == 1 || would_block(received));
    } while (received != 1);
    cr_assert_eq(len, 0);
}

/* As long as they come as fast as they are read. */
SOCKET_TEST(tls_hostile, a_receive_ends_though_updates_of_keys_do_not) {
    struct hostile hostile;
    size_t len;
    uint8_t *octets = begin_updates(&hostile, SSL_KEY_UPDATE_NOT_REQUESTED, &len);
    int64_t said = lport_socket_send(hostile.own, octets, len);
    cr_assert_gt(said, 1 << 17, "too few to show it: %lld", (long long)said);
    assert_kind(receive_now(hostile.end), LPORT_WOULD_BLOCK);
    cr_assert_eq(wait_for(hostile.end, LPORT_INPUT, 0), LPORT_INPUT);
    say_to_reader(&hostile, octets + said, len - (size_t)said);
    free(octets);
    close_hostile(&hostile);
}

SOCKET_TEST(tls_hostile, answers_that_nobody_reads_take_few_pieces_of_memory) {
    struct hostile hostile;
    size_t len;
    uint8_t *octets = begin_updates(&hostile, SSL_KEY_UPDATE_REQUESTED, &len);
    int64_t before = faults_calls(CALL_CALLOC);
    say_to_reader(&hostile, octets, len);
    int64_t calls = faults_calls(CALL_CALLOC) - before;
    cr_assert(calls > 0 && calls < 50, "%lld", (long long)calls);
    free(octets);
    close_hostile(&hostile);
}

/* A ticket in several records, the first of which the client has read: how long they are, and the
 * first of them. */
static size_t begin_ticket(struct hostile *hostile, uint8_t *octets, size_t cap, size_t *first) {
    enum { LEAST = 512 };
    make_hostile(hostile);
    agree_with(hostile);
    lport_openssl()->SSL_ctrl(hostile->ssl, SSL_CTRL_SET_MAX_SEND_FRAGMENT, LEAST, NULL);
    cr_assert_eq(peers.SSL_new_session_ticket(hostile->ssl), 1);
    cr_assert_eq(lport_openssl()->SSL_do_handshake(hostile->ssl), 1);
    size_t len = take_said(hostile, octets, cap);
    *first = record_length(octets);
    cr_assert_lt(*first, len);
    say(hostile, octets, *first);
    assert_kind(receive_now(hostile->end), LPORT_WOULD_BLOCK);
    return len;
}

/* OpenSSL sends nothing in the midst of it, though there is room. */
SOCKET_TEST(tls_hostile, who_cannot_send_before_a_message_ends_waits_for_its_end) {
    struct hostile hostile;
    uint8_t octets[4096];
    size_t first, count = 0;
    size_t len = begin_ticket(&hostile, octets, sizeof octets, &first);
    for (int i = 0; i < 3; i++) {
        assert_kind(lport_socket_send(hostile.end, (const uint8_t *)"hello", 5), LPORT_WOULD_BLOCK);
        assert_kind(wait_for(hostile.end, LPORT_OUTPUT, 0), LPORT_TIMED_OUT);
        assert_kind(wait_for(hostile.end, LPORT_INPUT | LPORT_OUTPUT, 0), LPORT_TIMED_OUT);
    }
    say(&hostile, octets + first, len - first);
    cr_assert_eq(wait_for(hostile.end, LPORT_OUTPUT, soon()), LPORT_OUTPUT);
    cr_assert_eq(lport_socket_send(hostile.end, (const uint8_t *)"hello", 5), 5);
    cr_assert_eq(wait_for(hostile.end, LPORT_OUTPUT, soon()), LPORT_OUTPUT);
    hear(&hostile);
    cr_assert_eq(lport_openssl()->SSL_read_ex(hostile.ssl, octets, sizeof octets, &count), 1);
    cr_assert_eq(count, 5);
    cr_assert_arr_eq(octets, "hello", 5);
    close_hostile(&hostile);
}

/* Another thread may read that end. */
SOCKET_TEST(tls_hostile, who_waits_to_send_is_woken_when_a_message_has_been_read) {
    struct hostile hostile;
    uint8_t octets[4096];
    size_t first;
    size_t len = begin_ticket(&hostile, octets, sizeof octets, &first);
    int64_t wait = lport_wait_begin(hostile.end, LPORT_OUTPUT);
    assert_kind(lport_wait_poll(wait, 0, 0), LPORT_TIMED_OUT);
    say(&hostile, octets + first, len - first);
    assert_kind(receive_now(hostile.end), LPORT_WOULD_BLOCK);
    cr_assert_eq(lport_wait_poll(wait, soon(), 0), 0);
    cr_assert_eq(lport_wait_end(wait), 0);
    cr_assert_eq(wait_for(hostile.end, LPORT_OUTPUT, soon()), LPORT_OUTPUT);
    close_hostile(&hostile);
}
