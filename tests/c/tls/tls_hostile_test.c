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

/* The server says a ticket in several records, the first of which the client reads: how long they
 * are, and the first of them. */
static size_t say_first_of_ticket(struct hostile *hostile, uint8_t *octets, size_t cap,
                                  size_t *first) {
    enum { LEAST = 512 };
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

static size_t begin_ticket(struct hostile *hostile, uint8_t *octets, size_t cap, size_t *first) {
    make_hostile(hostile);
    agree_with(hostile);
    return say_first_of_ticket(hostile, octets, cap, first);
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

/* ---- pollers --------------------------------------------------------------------------------- */

/* What POLLER, in which there is one socket, reports of it by DEADLINE; 0: nothing. */
static int64_t reported(int64_t poller, int64_t deadline) {
    int64_t event[LPORT_EVENT_SIZE], status;
    do {
        int64_t turn = lport_poller_begin(poller);
        cr_assert_geq(turn, 0);
        status = lport_poller_wait(poller, turn, event, 1, deadline, 0);
        cr_assert_eq(lport_poller_end(poller, turn), 0);
    } while (would_block(status));
    cr_assert(status == 1 || lport_status_kind(status) == LPORT_TIMED_OUT, "%lld",
              (long long)status);
    return status == 1 ? event[1] : 0;
}

/* A poller of BACKEND with the client of HOSTILE, stuck in the midst of a message, in it. */
struct stuck {
    struct hostile hostile;
    uint8_t octets[4096];
    size_t first, len; /* of the message: what has been said, and all of it */
    int64_t poller;
};

static void make_stuck(struct stuck *stuck, int32_t backend, int32_t interest, bool added_before) {
    make_hostile(&stuck->hostile);
    agree_with(&stuck->hostile);
    stuck->poller = lport_poller_open(backend);
    if (added_before) {
        cr_assert_eq(lport_poller_add(stuck->poller, stuck->hostile.end, interest), 0);
        cr_assert_eq(reported(stuck->poller, soon()), interest & LPORT_OUTPUT);
    }
    stuck->len =
        say_first_of_ticket(&stuck->hostile, stuck->octets, sizeof stuck->octets, &stuck->first);
    if (!added_before) {
        cr_assert_eq(lport_poller_add(stuck->poller, stuck->hostile.end, interest), 0);
    }
}

static void say_rest(struct stuck *stuck) {
    say(&stuck->hostile, stuck->octets + stuck->first, stuck->len - stuck->first);
}

static void close_stuck(struct stuck *stuck) {
    assert_closes(stuck->poller);
    close_hostile(&stuck->hostile);
}

/* As a wait for it does. */
static void assert_polls_as_a_wait(int32_t backend, int32_t interest, bool added_before) {
    struct stuck stuck;
    make_stuck(&stuck, backend, interest, added_before);
    int64_t end = stuck.hostile.end;
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(reported(stuck.poller, 0), 0);
        assert_kind(lport_socket_send(end, (const uint8_t *)"hello", 5), LPORT_WOULD_BLOCK);
    }
    cr_assert_eq(lport_poller_modify(stuck.poller, end, 0), 0);
    cr_assert_eq(lport_poller_modify(stuck.poller, end, interest), 0);
    cr_assert_eq(reported(stuck.poller, 0), 0);
    say_rest(&stuck);
    cr_assert_eq(reported(stuck.poller, soon()), interest);
    cr_assert_eq(lport_socket_send(end, (const uint8_t *)"hello", 5), 5);
    cr_assert_eq(reported(stuck.poller, soon()), LPORT_OUTPUT);
    cr_assert_eq(lport_poller_remove(stuck.poller, end), 0);
    close_stuck(&stuck);
}

SOCKET_TEST(tls_hostile, a_poller_waits_for_the_end_of_a_message_before_there_is_room) {
    for (int32_t backend = LPORT_POLLER_EPOLL; backend <= LPORT_POLLER_POLL; backend++) {
        for (int before = 0; before < 2; before++) {
            assert_polls_as_a_wait(backend, LPORT_OUTPUT, before);
            assert_polls_as_a_wait(backend, LPORT_INPUT | LPORT_OUTPUT, before);
        }
    }
}

SOCKET_TEST(tls_hostile, a_poller_that_waits_for_input_alone_hears_of_that) {
    for (int32_t backend = LPORT_POLLER_EPOLL; backend <= LPORT_POLLER_POLL; backend++) {
        struct stuck stuck;
        make_stuck(&stuck, backend, LPORT_INPUT, true);
        cr_assert_eq(reported(stuck.poller, 0), 0);
        say_rest(&stuck);
        cr_assert_eq(reported(stuck.poller, soon()), LPORT_INPUT);
        close_stuck(&stuck);
    }
}

/* By another thread, that is: the system tells of nothing. */
SOCKET_TEST(tls_hostile, a_poller_hears_of_room_when_a_message_has_been_read) {
    for (int32_t backend = LPORT_POLLER_EPOLL; backend <= LPORT_POLLER_POLL; backend++) {
        struct stuck stuck;
        make_stuck(&stuck, backend, LPORT_OUTPUT, true);
        cr_assert_eq(reported(stuck.poller, 0), 0);
        say_rest(&stuck);
        assert_kind(receive_now(stuck.hostile.end), LPORT_WOULD_BLOCK);
        cr_assert_eq(reported(stuck.poller, soon()), LPORT_OUTPUT);
        close_stuck(&stuck);
    }
}

SOCKET_TEST(tls_hostile, what_a_send_waits_for_can_be_asked) {
    struct hostile hostile;
    uint8_t octets[4096];
    size_t first;
    size_t len = begin_ticket(&hostile, octets, sizeof octets, &first);
    cr_assert_eq(lport_socket_buffered(hostile.end), LPORT_OUTPUT);
    say(&hostile, octets + first, len - first);
    assert_kind(receive_now(hostile.end), LPORT_WOULD_BLOCK);
    cr_assert_eq(lport_socket_buffered(hostile.end), 0);
    close_hostile(&hostile);
}
