/* tls: a server that is several, by the names that its clients ask for; contexts that are renewed.
 */
#include "sessions.h"
#include "support.h"

#include <string.h>

TestSuite(tls_name, .timeout = 40);

/* The subject that a client, which trusts the authority and expects NAME, is shown by SERVER; NULL:
 * it refuses what it is shown. */
static const char *subject_shown(int64_t server, const char *name) {
    static char subject[LPORT_TEXT_SIZE];
    int64_t contexts[2] = {make_context(NULL), server}, ends[2], results[2] = {0};
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    start_both(ends, contexts, name);
    shake_hands(ends, results);
    cr_assert(results[CLIENT] == 0 ||
              lport_status_kind(results[CLIENT]) == LPORT_CERTIFICATE_REFUSED);
    int64_t len = lport_tls_text(ends[CLIENT], LPORT_TLS_SUBJECT, subject, sizeof subject);
    cr_assert(len >= 0 && (size_t)len < sizeof subject);
    close_both(ends);
    cr_assert_eq(lport_tls_context_close(contexts[CLIENT]), 0);
    return results[CLIENT] == 0 ? subject : NULL;
}

static void assert_shown(int64_t server, const char *name, const char *subject) {
    const char *shown = subject_shown(server, name);
    cr_assert((shown == NULL) == (subject == NULL), "%s: %s", name, shown == NULL ? "" : shown);
    if (shown != NULL) {
        cr_assert_str_eq(shown, subject);
    }
}

SOCKET_TEST(tls_name, a_client_is_shown_the_certificate_for_the_name_that_it_asks_for) {
    int64_t server = make_context("server"), other = make_context("client");
    assert_shown(server, "client.test", NULL);
    cr_assert_eq(lport_tls_context_offer(server, other), 0);
    assert_shown(server, "client.test", "CN=client,O=port");
    assert_shown(server, "good.test", "CN=server,O=port");
    assert_shown(server, "127.0.0.1", "CN=server,O=port"); /* an address is not asked for */
    assert_shown(server, "elsewhere.test", NULL);
    cr_assert_eq(lport_tls_context_close(other), 0);
    assert_shown(server, "client.test", NULL);
    cr_assert_eq(lport_tls_context_close(server), 0);
}

SOCKET_TEST(tls_name, the_first_certificate_that_was_offered_and_is_for_the_name_is_shown) {
    int64_t server = make_context("client");
    int64_t offered[] = {make_context("expired"), make_context("server")};
    cr_assert_eq(lport_tls_context_offer(server, offered[1]), 0);
    cr_assert_eq(lport_tls_context_offer(server, offered[0]), 0);
    assert_shown(server, "good.test", "CN=server,O=port");
    cr_assert_eq(lport_tls_context_close(offered[1]), 0);
    assert_shown(server, "good.test", NULL); /* that which has expired */
    cr_assert_eq(lport_tls_context_close(offered[0]), 0);
    cr_assert_eq(lport_tls_context_close(server), 0);
}

SOCKET_TEST(tls_name, a_certificate_with_another_kind_of_key_is_shown_in_the_place_of_the_own) {
    int64_t elliptic = make_context("server"), rsa = make_context("rsa");
    cr_assert_eq(lport_tls_context_offer(elliptic, rsa), 0);
    cr_assert_eq(lport_tls_context_offer(rsa, elliptic), 0);
    for (int i = 0; i < 2; i++) {
        assert_shown(i == 0 ? elliptic : rsa, "rsa.test", "CN=rsa,O=port");
        assert_shown(i == 0 ? elliptic : rsa, "good.test", "CN=server,O=port");
    }
    cr_assert_eq(lport_tls_context_close(elliptic), 0);
    cr_assert_eq(lport_tls_context_close(rsa), 0);
}

SOCKET_TEST(tls_name, the_chain_to_whom_the_client_trusts_is_that_of_the_file) {
    int64_t server = make_context("server"), below = make_context("below");
    int64_t alone = make_context(NULL);
    assert_shown(below, "below.test", "CN=below,O=port");
    cr_assert_eq(lport_tls_context_offer(server, below), 0);
    assert_shown(server, "below.test", "CN=below,O=port");
    cr_assert_eq(identify(alone, CERTIFICATE("below-alone"), KEY("below")), 0);
    cr_assert_eq(trust(alone, CERTIFICATE("between")), 0);
    assert_shown(alone, "below.test", NULL); /* whom a server trusts it does not show */
    cr_assert_eq(lport_tls_context_close(server), 0);
    cr_assert_eq(lport_tls_context_close(below), 0);
    cr_assert_eq(lport_tls_context_close(alone), 0);
}

SOCKET_TEST(tls_name, what_cannot_be_shown_cannot_be_offered) {
    int64_t server = make_context("server"), bare = make_context(NULL);
    int64_t other = make_context("client");
    assert_kind(lport_tls_context_offer(server, bare), LPORT_INVALID);
    assert_kind(lport_tls_context_offer(server, 0), LPORT_CLOSED);
    assert_kind(lport_tls_context_offer(0, other), LPORT_CLOSED);
    for (int i = 0; i < LPORT_TLS_OFFERED_MAX; i++) {
        cr_assert_eq(lport_tls_context_offer(server, other), 0);
    }
    assert_kind(lport_tls_context_offer(server, other), LPORT_INVALID);
    cr_assert_eq(lport_tls_context_close(bare), 0);
    assert_kind(lport_tls_context_offer(server, bare), LPORT_CLOSED);
    cr_assert_eq(lport_tls_context_close(other), 0);
    cr_assert_eq(lport_tls_context_close(server), 0);
}

SOCKET_TEST(tls_name, a_context_that_is_replaced_keeps_its_name_and_its_sessions) {
    int64_t server = make_context("server"), by = make_context("client"), ends[2];
    int64_t contexts[2] = {make_context(NULL), server}, results[2] = {0};
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    start_both(ends, contexts, "good.test");
    assert_kind(lport_tls_context_replace(server, server), LPORT_INVALID);
    cr_assert_eq(lport_tls_context_replace(server, by), 0);
    assert_kind(lport_tls_context_close(by), LPORT_CLOSED);
    assert_kind(lport_tls_context_replace(server, by), LPORT_CLOSED);
    assert_kind(lport_tls_context_replace(by, server), LPORT_CLOSED);
    shake_hands(ends, results); /* begun before: as it was */
    cr_assert_eq(results[CLIENT], 0);
    send_text(ends[CLIENT], "as before");
    receive_text(ends[SERVER], "as before");
    close_both(ends);
    assert_shown(server, "client.test", "CN=client,O=port");
    assert_shown(server, "good.test", NULL);
    cr_assert_eq(lport_tls_context_close(contexts[CLIENT]), 0);
    cr_assert_eq(lport_tls_context_close(server), 0);
}

SOCKET_TEST(tls_name, what_was_offered_to_the_one_that_replaces_is_shown) {
    int64_t server = make_context("server"), by = make_context("server");
    int64_t other = make_context("client");
    cr_assert_eq(lport_tls_context_offer(by, other), 0);
    cr_assert_eq(lport_tls_context_replace(server, by), 0);
    assert_shown(server, "client.test", "CN=client,O=port");
    assert_shown(server, "good.test", "CN=server,O=port");
    cr_assert_eq(lport_tls_context_close(other), 0);
    cr_assert_eq(lport_tls_context_close(server), 0);
}
