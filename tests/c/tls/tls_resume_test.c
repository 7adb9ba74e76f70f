/* tls_resume: sessions of TLS 1.3 are resumed by clients that come back, and by nobody else. */
#include "address/address.h"
#include "sessions.h"
#include "support.h"
#include "tls/tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

TestSuite(tls_resume, .timeout = 40);

static int64_t listener;
static uint8_t address[LPORT_ADDRESS_SIZE]; /* of the listener */

/* Those of a client and of a server. */
static void make_contexts(int64_t contexts[2]) {
    listener = listen_on_loopback(LPORT_INET, address);
    contexts[CLIENT] = make_context("client");
    contexts[SERVER] = make_context("server");
}

static void close_contexts(const int64_t contexts[2]) {
    cr_assert_eq(lport_tls_context_close(contexts[CLIENT]), 0);
    cr_assert_eq(lport_tls_context_close(contexts[SERVER]), 0);
    assert_closes(listener);
}

static void connect_to_server(int64_t ends[2]) {
    ends[CLIENT] = connect_to(address);
    ends[SERVER] = accept_one(listener, soon());
    cr_assert(ends[CLIENT] > 0 && ends[SERVER] > 0);
}

/* A connection to the server under NAME: of TCP, which has room for a ticket in single octets. */
static void connect_as(const int64_t contexts[2], const char *name, int64_t ends[2]) {
    connect_to_server(ends);
    start_both(ends, contexts, name);
    agree(ends);
}

static bool is_resumed(const int64_t ends[2]) {
    cr_assert_str_eq(text_of(ends[CLIENT], LPORT_TLS_RESUMED),
                     text_of(ends[SERVER], LPORT_TLS_RESUMED));
    return strcmp(text_of(ends[CLIENT], LPORT_TLS_RESUMED), "yes") == 0;
}

static void ask(const int64_t ends[2]) {
    send_text(ends[CLIENT], "asked");
    receive_text(ends[SERVER], "asked");
    send_text(ends[SERVER], "answered");
    receive_text(ends[CLIENT], "answered");
}

/* Each side tells the other of the end: what breaks off is not resumed. */
static void end_both(const int64_t ends[2]) {
    for (int i = 0; i < 2; i++) {
        int64_t status, limit = soon();
        while (would_block(status = lport_socket_shutdown(ends[i], LPORT_OUTPUT))) {
            cr_assert_geq(wait_for(ends[i], LPORT_OUTPUT, limit), 0);
        }
        cr_assert_eq(status, 0, "%s", kind_text(lport_status_kind(status)));
    }
    close_both(ends);
}

/* A whole conversation under NAME: true if it resumed another. */
static bool talk_as(const int64_t contexts[2], const char *name) {
    int64_t ends[2];
    connect_as(contexts, name, ends);
    bool resumed = is_resumed(ends);
    ask(ends);
    end_both(ends);
    return resumed;
}

static bool talk(const int64_t contexts[2]) {
    return talk_as(contexts, "good.test");
}

/* ---- who comes back -------------------------------------------------------------------------- */

SOCKET_TEST(tls_resume, a_client_that_comes_back_resumes_its_session) {
    int64_t contexts[2];
    make_contexts(contexts);
    cr_assert_not(talk(contexts));
    for (int i = 0; i < 3; i++) {
        cr_assert(talk(contexts));
    }
    close_contexts(contexts);
}

SOCKET_TEST(tls_resume, what_the_server_has_shown_once_is_known_still) {
    int64_t contexts[2], ends[2];
    uint8_t first[4096], second[4096];
    make_contexts(contexts);
    cr_assert_eq(speak(contexts[CLIENT], "words"), 0);
    cr_assert_eq(speak(contexts[SERVER], "words"), 0);
    connect_as(contexts, "good.test", ends);
    ask(ends);
    int64_t len = lport_tls_text(ends[CLIENT], LPORT_TLS_CERTIFICATE, (char *)first, sizeof first);
    end_both(ends);
    connect_as(contexts, "good.test", ends);
    cr_assert(is_resumed(ends));
    cr_assert_gt(len, 0);
    cr_assert_eq(lport_tls_text(ends[CLIENT], LPORT_TLS_CERTIFICATE, (char *)second, sizeof second),
                 len);
    cr_assert_eq(memcmp(first, second, (size_t)len), 0);
    cr_assert_str_eq(text_of(ends[CLIENT], LPORT_TLS_SUBJECT), "CN=server,O=port");
    cr_assert_str_eq(text_of(ends[CLIENT], LPORT_TLS_VERSION), "TLSv1.3");
    cr_assert_str_eq(text_of(ends[CLIENT], LPORT_TLS_PROTOCOL), "words");
    cr_assert_str_eq(text_of(ends[SERVER], LPORT_TLS_SERVER_NAME), "good.test");
    close_both(ends);
    close_contexts(contexts);
}

SOCKET_TEST(tls_resume, each_ticket_is_for_one_connection) {
    int64_t contexts[2], ends[3][2];
    make_contexts(contexts);
    (void)talk(contexts);
    connect_as(contexts, "good.test", ends[0]);
    cr_assert(is_resumed(ends[0]));
    connect_as(contexts, "good.test", ends[1]);
    cr_assert_not(is_resumed(ends[1]));
    ask(ends[0]); /* each of them brings another one */
    ask(ends[1]);
    for (int i = 0; i < 2; i++) {
        connect_as(contexts, "good.test", ends[2]);
        cr_assert(is_resumed(ends[2]));
        close_both(ends[2]);
    }
    close_both(ends[0]);
    close_both(ends[1]);
    close_contexts(contexts);
}

static int unread(int64_t socket) {
    int count = -1;
    cr_assert_eq(ioctl((int)lport_socket_descriptor(socket), FIONREAD, &count), 0);
    return count;
}

/* Or the close of a client that has sent what it wants to would be a reset, and lose that. */
SOCKET_TEST(tls_resume, who_is_answered_nothing_is_given_no_ticket) {
    int64_t contexts[2], ends[2];
    make_contexts(contexts);
    connect_as(contexts, "good.test", ends);
    send_text(ends[CLIENT], "asked");
    receive_text(ends[SERVER], "asked");
    cr_assert_eq(unread(ends[CLIENT]), 0);
    close_both(ends);
    cr_assert_not(talk(contexts));
    close_contexts(contexts);
}

SOCKET_TEST(tls_resume, a_conversation_that_broke_off_is_not_resumed) {
    int64_t contexts[2], ends[2];
    make_contexts(contexts);
    connect_as(contexts, "good.test", ends);
    ask(ends);
    close_both(ends);
    cr_assert_not(talk(contexts));
    close_contexts(contexts);
}

/* ---- who does not ---------------------------------------------------------------------------- */

SOCKET_TEST(tls_resume, a_session_is_resumed_under_the_name_that_was_expected) {
    int64_t contexts[2];
    make_contexts(contexts);
    (void)talk_as(contexts, "good.test");
    cr_assert_not(talk_as(contexts, "127.0.0.1"));
    cr_assert_not(talk_as(contexts, "a.wild.test"));
    cr_assert(talk_as(contexts, "127.0.0.1"));
    cr_assert(talk_as(contexts, "good.test"));
    close_contexts(contexts);
}

SOCKET_TEST(tls_resume, a_server_at_another_port_uses_up_no_ticket) {
    int64_t contexts[2], others[2];
    make_contexts(contexts);
    (void)talk(contexts);
    int64_t first = listener;
    uint8_t first_address[LPORT_ADDRESS_SIZE];
    memcpy(first_address, address, sizeof address);
    listener = listen_on_loopback(LPORT_INET, address);
    others[CLIENT] = contexts[CLIENT];
    others[SERVER] = make_context("server");
    cr_assert_not(talk(others));
    cr_assert(talk(others));
    assert_closes(listener);
    listener = first;
    memcpy(address, first_address, sizeof address);
    cr_assert(talk(contexts));
    cr_assert_eq(lport_tls_context_close(others[SERVER]), 0);
    close_contexts(contexts);
}

SOCKET_TEST(tls_resume, who_expects_nobody_keeps_nothing) {
    int64_t contexts[2];
    make_contexts(contexts);
    cr_assert_eq(lport_tls_context_verify(contexts[CLIENT], LPORT_TLS_VERIFY_NOBODY), 0);
    cr_assert_not(talk_as(contexts, NULL));
    cr_assert_not(talk_as(contexts, NULL));
    close_contexts(contexts);
}

SOCKET_TEST(tls_resume, where_clients_are_verified_each_shows_its_certificate) {
    static const int32_t modes[] = {LPORT_TLS_VERIFY_GIVEN, LPORT_TLS_VERIFY};
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        int64_t contexts[2];
        make_contexts(contexts);
        cr_assert_eq(lport_tls_context_verify(contexts[SERVER], modes[i]), 0);
        cr_assert_not(talk(contexts));
        cr_assert_not(talk(contexts));
        close_contexts(contexts);
    }
}

SOCKET_TEST(tls_resume, a_server_that_verifies_from_now_on_resumes_nobody_from_before) {
    int64_t contexts[2], ends[2], results[2];
    make_contexts(contexts);
    int64_t nobody = make_context(NULL);
    (void)talk(contexts);
    (void)talk((const int64_t[]){nobody, contexts[SERVER]});
    cr_assert_eq(lport_tls_context_verify(contexts[SERVER], LPORT_TLS_VERIFY), 0);
    connect_as(contexts, "good.test", ends);
    cr_assert_not(is_resumed(ends));
    cr_assert_str_eq(text_of(ends[SERVER], LPORT_TLS_SUBJECT), "CN=client,O=port");
    close_both(ends);
    connect_to_server(ends);
    start_both(ends, (const int64_t[]){nobody, contexts[SERVER]}, "good.test");
    shake_hands(ends, results);
    assert_kind(results[SERVER], LPORT_CERTIFICATE_REFUSED);
    close_both(ends);
    cr_assert_eq(lport_tls_context_close(nobody), 0);
    close_contexts(contexts);
}

SOCKET_TEST(tls_resume, versions_before_1_3_have_whole_handshakes) {
    int64_t contexts[2];
    make_contexts(contexts);
    cr_assert_eq(lport_tls_context_versions(contexts[SERVER], 2, 2), 0);
    cr_assert_not(talk(contexts));
    cr_assert_not(talk(contexts));
    close_contexts(contexts);
}

SOCKET_TEST(tls_resume, either_side_can_do_without) {
    for (int side = CLIENT; side <= SERVER; side++) {
        int64_t contexts[2];
        make_contexts(contexts);
        cr_assert_eq(lport_tls_context_resume(contexts[side], 0), 0);
        cr_assert_not(talk(contexts));
        cr_assert_not(talk(contexts));
        cr_assert_eq(lport_tls_context_resume(contexts[side], 1), 0);
        cr_assert_not(talk(contexts));
        cr_assert(talk(contexts));
        close_contexts(contexts);
    }
}

/* ---- what is kept, and how long -------------------------------------------------------------- */

static void change(int64_t context, int32_t how) {
    switch (how) {
    case 0:
        cr_assert_eq(trust(context, CERTIFICATE("authority")), 0);
        break;
    case 1:
        cr_assert_eq(take_list(context, "build/tls/authority.crl"), 0);
        break;
    case 2:
        cr_assert_eq(lport_tls_context_verify(context, LPORT_TLS_VERIFY_SERVER), 0);
        break;
    default:
        cr_assert_eq(lport_tls_context_replace(context, make_context("client")), 0);
    }
}

SOCKET_TEST(tls_resume, a_context_that_is_changed_has_kept_nothing) {
    for (int how = 0; how <= 3; how++) {
        int64_t contexts[2], ends[2];
        make_contexts(contexts);
        (void)talk(contexts);
        change(contexts[CLIENT], how);
        cr_assert_not(talk(contexts));
        connect_as(contexts, "good.test", ends);
        cr_assert(is_resumed(ends));
        change(contexts[CLIENT], how); /* and what was verified by what it was before is not kept */
        ask(ends);
        end_both(ends);
        cr_assert_not(talk(contexts));
        close_contexts(contexts);
    }
}

SOCKET_TEST(tls_resume, a_server_that_was_replaced_shows_who_it_is_now) {
    int64_t contexts[2], ends[2];
    make_contexts(contexts);
    (void)talk(contexts);
    cr_assert_eq(lport_tls_context_replace(contexts[SERVER], make_context("server")), 0);
    connect_as(contexts, "good.test", ends);
    cr_assert_not(is_resumed(ends));
    ask(ends);
    end_both(ends);
    cr_assert(talk(contexts));
    close_contexts(contexts);
}

SOCKET_TEST(tls_resume, what_is_kept_is_of_use_for_an_hour) {
    int64_t contexts[2];
    struct lport_tls_settings settings;
    make_contexts(contexts);
    int32_t port = lport_address_port(address);
    (void)talk(contexts);
    cr_assert_eq(lport_tls_settings_of(contexts[CLIENT], &settings), 0);
    struct lport_tls_kept *kept = lport_tls_take_kept(&settings, "good.test", port);
    int64_t hour = INT64_C(3600000000000), left = kept->until - lport_clock_now();
    cr_assert(left > hour / 2 && left <= hour, "%lld ns", (long long)left);
    kept->until = lport_clock_now();
    lport_tls_keep(&settings, kept);
    lport_openssl()->SSL_CTX_free(settings.context);
    cr_assert_not(talk(contexts));
    cr_assert(talk(contexts));
    close_contexts(contexts);
}

static struct lport_tls_kept *make_kept(int i) {
    static const char form[] = "a";
    struct lport_tls_kept *kept = calloc(1, sizeof *kept + sizeof form);
    cr_assert_not_null(kept);
    kept->name[0] = (char)(i + 1);
    return kept;
}

static bool is_kept(struct lport_tls_kept **list, int i) {
    struct lport_tls_kept *kept = lport_tls_kept_take(list, (const char[]){(char)(i + 1), '\0'}, 0);
    lport_tls_kept_free(kept);
    return kept != NULL;
}

Test(tls_resume, the_oldest_of_too_many_is_not_kept) {
    struct lport_tls_kept *list = NULL;
    for (int i = 0; i < LPORT_TLS_KEPT_MAX; i++) {
        cr_assert_null(lport_tls_kept_put(&list, make_kept(i)));
    }
    struct lport_tls_kept *rest = lport_tls_kept_put(&list, make_kept(LPORT_TLS_KEPT_MAX));
    cr_assert_not_null(rest);
    cr_assert_eq(rest->name[0], 1);
    lport_tls_kept_free(rest);
    cr_assert_not(is_kept(&list, 0));
    for (int i = LPORT_TLS_KEPT_MAX; i > 0; i -= 2) {
        cr_assert(is_kept(&list, i));
        cr_assert_not(is_kept(&list, i));
    }
    cr_assert(is_kept(&list, 1));
    lport_tls_kept_free(list);
}

SOCKET_TEST(tls_resume, without_memory_nothing_is_kept) {
    int64_t contexts[2], ends[2];
    make_contexts(contexts);
    connect_to_server(ends);
    faults_fail(CALL_CALLOC, 2, 1, ENOMEM); /* the first is for the session */
    start_both(ends, contexts, "good.test");
    faults_clear();
    agree(ends);
    ask(ends);
    end_both(ends);
    cr_assert_not(talk(contexts));
    cr_assert(talk(contexts));
    close_contexts(contexts);
}
