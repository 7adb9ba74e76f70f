/* sessions - see sessions.h. */
#include "sessions.h"

#include "support.h"

#include <stdio.h>
#include <string.h>

int64_t trust(int64_t context, const char *path) {
    return lport_tls_context_trust(context, LPORT_TLS_FILE, path, strlen(path));
}

int64_t identify(int64_t context, const char *chain, const char *key) {
    return lport_tls_context_identity(context, chain, strlen(chain), key, strlen(key));
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
    } else {
        make_connection(family, ends);
    }
    start_both(ends, contexts, "good.test");
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(lport_tls_context_close(contexts[i]), 0);
    }
    agree(ends);
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
