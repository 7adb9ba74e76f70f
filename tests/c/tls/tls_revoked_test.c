/* tls: certificates that their authorities have revoked, and lists of them that will not do. */
#include "sessions.h"
#include "support.h"

#include <string.h>

TestSuite(tls_revoked, .timeout = 40);

#define LIST(name) "build/tls/" name ".crl"

static const struct row {
    const char *certificate;
    const char *lists[2];
    const char *problem; /* NULL: it is taken */
    const char *trusted; /* beside the authority; or NULL */
} rows[] = {
    {"revoked", {NULL}, NULL, NULL},
    {"revoked", {LIST("authority")}, "certificate revoked", NULL},
    {"revoked", {LIST("both")}, "certificate revoked", NULL},
    {"server", {LIST("authority")}, NULL, NULL},
    {"server", {LIST("both"), LIST("authority")}, NULL, NULL},
    {"server", {LIST("stranger")}, "unable to get certificate CRL", NULL},
    {"server", {LIST("stale")}, "CRL has expired", NULL},
    {"server", {LIST("stale"), LIST("authority")}, NULL, NULL},
    {"revoked", {LIST("stale"), LIST("authority")}, "certificate revoked", NULL},
    {"below", {LIST("authority")}, "unable to get certificate CRL", NULL},
    {"below", {LIST("between")}, "unable to get certificate CRL", NULL},
    {"below", {LIST("both")}, NULL, NULL},
    {"below", {LIST("between"), LIST("authority")}, NULL, NULL},
    {"below", {LIST("both")}, NULL, CERTIFICATE("between")},
    {"below", {LIST("between")}, "unable to get certificate CRL", CERTIFICATE("between")},
    {"server", {LIST("authority")}, NULL, CERTIFICATE("server")},
    {"revoked", {LIST("authority")}, "certificate revoked", CERTIFICATE("revoked")},
};

/* What comes of a peer of SIDE that shows the certificate of ROW to one that has its lists. */
static void assert_judged(const struct row *row, int side) {
    int64_t contexts[2], ends[2], results[2] = {0};
    int verifier = side == SERVER ? CLIENT : SERVER;
    contexts[side] = make_context(row->certificate);
    contexts[verifier] = make_context(verifier == SERVER ? "server" : NULL);
    for (int i = 0; i < 2 && row->lists[i] != NULL; i++) {
        cr_assert_eq(take_list(contexts[verifier], row->lists[i]), 0, "%s", row->lists[i]);
    }
    if (row->trusted != NULL) {
        cr_assert_eq(trust(contexts[verifier], row->trusted), 0);
    }
    cr_assert_eq(lport_tls_context_verify(contexts[SERVER], LPORT_TLS_VERIFY), 0);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    if (side == SERVER) {
        cr_assert_eq(lport_tls_context_verify(contexts[SERVER], LPORT_TLS_VERIFY_SERVER), 0);
    }
    start_both(ends, contexts, NULL);
    shake_hands(ends, results);
    assert_kind(results[verifier], row->problem == NULL ? 0 : LPORT_CERTIFICATE_REFUSED);
    cr_assert_str_eq(text_of(ends[verifier], LPORT_TLS_PROBLEM),
                     row->problem == NULL ? "" : row->problem);
    close_both(ends);
    cr_assert_eq(lport_tls_context_close(contexts[CLIENT]), 0);
    cr_assert_eq(lport_tls_context_close(contexts[SERVER]), 0);
}

SOCKET_TEST(tls_revoked, a_server_is_taken_by_whom_no_list_names) {
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        assert_judged(&rows[i], SERVER);
    }
}

SOCKET_TEST(tls_revoked, a_client_is_taken_by_whom_no_list_names) {
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        assert_judged(&rows[i], CLIENT);
    }
}

SOCKET_TEST(tls_revoked, a_file_without_a_list_will_not_do) {
    int64_t context = make_context(NULL);
    const char *none[] = {CERTIFICATE("none"), CERTIFICATE("server"), KEY("server")};
    for (size_t i = 0; i < COUNT_OF(none); i++) {
        assert_kind(take_list(context, none[i]), LPORT_TLS_FAILED);
        cr_assert_neq(strlen(problem_of(context)), 0);
    }
    cr_assert_eq(lport_tls_context_close(context), 0);
}
