/* sessions - see sessions.h. */
#include "sessions.h"

#include "support.h"

#include <stdio.h>
#include <string.h>

int64_t trust(int64_t context, const char *path) {
    return lport_tls_context_trust(context, LPORT_TLS_FILE, path, strlen(path));
}

int64_t take_list(int64_t context, const char *path) {
    return lport_tls_context_revoked(context, path, strlen(path));
}

int64_t identify(int64_t context, const char *chain, const char *key) {
    return unlock(context, chain, key, "");
}

int64_t unlock(int64_t context, const char *chain, const char *key, const char *passphrase) {
    return lport_tls_context_identity(context, chain, strlen(chain), key, strlen(key), passphrase,
                                      strlen(passphrase));
}

int64_t speak(int64_t context, const char *names) {
    return lport_tls_context_protocols(context, names, strlen(names));
}

int64_t make_context(const char *name) {
    int64_t context = lport_tls_context_open();
    cr_assert_gt(context, 0);
    cr_assert_eq(trust(context, CERTIFICATE("authority")), 0);
    if (name != NULL) {
        char chain[64], key[64];
        snprintf(chain, sizeof chain, CERTIFICATE("%s"), name);
        snprintf(key, sizeof key, KEY("%s"), name);
        cr_assert_eq(identify(context, chain, key), 0);
    }
    return context;
}

int64_t start(int64_t socket, int64_t context, int32_t side, const char *name) {
    size_t len = name == NULL ? 0 : strlen(name);
    return lport_tls_start(socket, context, side, name, len, NULL, 0);
}

void start_both(const int64_t ends[2], const int64_t contexts[2], const char *name) {
    cr_assert_eq(start(ends[CLIENT], contexts[CLIENT], LPORT_TLS_CLIENT, name), 0);
    cr_assert_eq(start(ends[SERVER], contexts[SERVER], LPORT_TLS_SERVER, NULL), 0);
}

void shake_hands(const int64_t ends[2], int64_t results[2]) {
    int64_t limit = soon();
    do {
        cr_assert_lt(lport_clock_now(), limit, "no end of it: %lld, %lld", (long long)results[0],
                     (long long)results[1]);
        results[CLIENT] = lport_tls_step(ends[CLIENT]);
        results[SERVER] = lport_tls_step(ends[SERVER]);
    } while (results[CLIENT] > 0 || results[SERVER] > 0);
}

void agree(const int64_t ends[2]) {
    int64_t results[2] = {0};
    shake_hands(ends, results);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(results[i], 0, "%s: %s, %s", i == CLIENT ? "client" : "server",
                     kind_text(lport_status_kind(results[i])), text_of(ends[i], LPORT_TLS_PROBLEM));
    }
}

void make_tls(int32_t family, int64_t ends[2]) {
    int64_t contexts[2] = {make_context(NULL), make_context("server")};
    if (family == LPORT_LOCAL) {
        cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
        /* a ticket is more single octets, in bad weather, than there is room for beside a text */
        cr_assert_eq(lport_tls_context_resume(contexts[SERVER], 0), 0);
    } else {
        make_connection(family, ends);
    }
    start_both(ends, contexts, "good.test");
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(lport_tls_context_close(contexts[i]), 0);
    }
    agree(ends);
}

void hand_on(int64_t socket) {
    int64_t limit = soon(), status;
    while (would_block(status = lport_socket_send(socket, NULL, 0))) {
        cr_assert_geq(wait_for(socket, LPORT_OUTPUT, limit), 0);
    }
    cr_assert_eq(status, 0, "%s", kind_text(lport_status_kind(status)));
}

void send_text(int64_t socket, const char *text) {
    int64_t len = (int64_t)strlen(text);
    cr_assert_eq(send_all(socket, (const uint8_t *)text, (size_t)len, soon()), len);
    hand_on(socket);
}

void receive_text(int64_t socket, const char *text) {
    char octets[64] = "";
    int64_t len = (int64_t)strlen(text);
    cr_assert_lt(len, (int64_t)sizeof octets);
    int64_t count = receive_all(socket, (uint8_t *)octets, (size_t)len, soon());
    cr_assert_eq(count, len, "%s of \"%s\"", kind_text(lport_status_kind(count)), text);
    cr_assert_str_eq(octets, text);
}

void make_between(struct between *between) {
    *between = (struct between){.spoil = 0};
    for (int i = 0; i < 2; i++) {
        int64_t pair[2];
        cr_assert_eq(lport_socket_pair(LPORT_STREAM, pair), 0);
        between->ends[i] = pair[0];
        between->own[i] = pair[1];
    }
}

void close_between(const struct between *between) {
    close_both(between->ends);
    close_both(between->own);
}

static void look_at(struct between *between, int from, const uint8_t *octets, size_t len) {
    size_t room = sizeof between->seen[from] - between->seen_len[from];
    size_t count = len < room ? len : room;
    memcpy(between->seen[from] + between->seen_len[from], octets, count);
    between->seen_len[from] += count;
}

size_t pass_on(struct between *between, int from) {
    uint8_t octets[4096];
    size_t total = 0;
    int64_t count;
    int32_t weather = faults_watch();
    while ((count = lport_socket_receive(between->own[from], octets, sizeof octets, 0)) > 0) {
        look_at(between, from, octets, (size_t)count);
        if (from == CLIENT && between->spoil > 0 && (size_t)count >= between->spoil) {
            octets[between->spoil - 1] ^= 1;
            between->spoil = 0;
        }
        cr_assert_eq(send_all(between->own[1 - from], octets, (size_t)count, soon()), count);
        total += (size_t)count;
    }
    if (weather) {
        faults_resume();
    }
    return total;
}

void agree_through(struct between *between) {
    int64_t limit = soon(), client, server;
    do {
        cr_assert_lt(lport_clock_now(), limit);
        client = lport_tls_step(between->ends[CLIENT]);
        pass_on(between, CLIENT);
        server = lport_tls_step(between->ends[SERVER]);
        pass_on(between, SERVER);
    } while (client > 0 || server > 0);
    cr_assert_eq(client, 0);
    cr_assert_eq(server, 0);
}

const char *text_of(int64_t socket, int32_t what) {
    static char text[256];
    int64_t len = lport_tls_text(socket, what, text, sizeof text);
    cr_assert(len >= 0 && len < (int64_t)sizeof text, "%lld", (long long)len);
    cr_assert_eq(strlen(text), (size_t)len);
    return text;
}

const char *problem_of(int64_t context) {
    static char text[256];
    int64_t len = lport_tls_context_problem(context, text, sizeof text);
    cr_assert(len >= 0 && len < (int64_t)sizeof text, "%lld", (long long)len);
    cr_assert_eq(strlen(text), (size_t)len);
    return text;
}
