/* tls: who is who, how handshakes go well and fail, and what is told of them. */
#include "sessions.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(tls, .timeout = 40);

static const int32_t families[] = {LPORT_LOCAL, LPORT_INET, LPORT_INET6};

static void close_contexts(const int64_t contexts[2]) {
    cr_assert_eq(lport_tls_context_close(contexts[0]), 0);
    if (contexts[1] != contexts[0]) {
        cr_assert_eq(lport_tls_context_close(contexts[1]), 0);
    }
}

static void assert_say(int64_t from, int64_t to, const char *text) {
    send_text(from, text);
    receive_text(to, text);
}

/* Has END begin, and wait for its peer. In fair weather, as that does not read. */
static void begin(int64_t end) {
    int32_t weather = faults_watch();
    cr_assert_eq(lport_tls_step(end), LPORT_INPUT);
    if (weather) {
        faults_resume();
    }
}

/* ---- that goes well -------------------------------------------------------------------------- */

SOCKET_TEST(tls, both_sides_agree_and_octets_go_both_ways) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_tls(families[i], ends);
        assert_say(ends[CLIENT], ends[SERVER], "to and");
        assert_say(ends[SERVER], ends[CLIENT], "fro");
        cr_assert_eq(lport_tls_step(ends[CLIENT]), 0);
        cr_assert_eq(lport_tls_step(ends[SERVER]), 0);
        close_both(ends);
    }
}

static void assert_time(const char *text) {
    static const char form[] = "0000-00-00T00:00:00Z";
    cr_assert_eq(strlen(text), strlen(form), "%s", text);
    for (size_t i = 0; i < strlen(form); i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';
        cr_assert(form[i] == '0' ? digit : text[i] == form[i], "%s", text);
    }
}

SOCKET_TEST(tls, each_side_is_told_what_is_known_of_the_other) {
    for (int32_t minor = 2; minor <= 3; minor++) {
        int64_t contexts[2] = {make_context("client"), make_context("server")}, ends[2];
        cr_assert_eq(lport_tls_context_versions(contexts[SERVER], 2, minor), 0);
        cr_assert_eq(lport_tls_context_verify(contexts[SERVER], LPORT_TLS_VERIFY), 0);
        cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
        start_both(ends, contexts, "good.test");
        agree(ends);
        for (int k = 0; k < 2; k++) {
            cr_assert_str_eq(text_of(ends[k], LPORT_TLS_VERSION),
                             minor == 2 ? "TLSv1.2" : "TLSv1.3");
            cr_assert_neq(strlen(text_of(ends[k], LPORT_TLS_CIPHER)), 0);
            cr_assert_str_eq(text_of(ends[k], LPORT_TLS_PROTOCOL), "");
            cr_assert_str_eq(text_of(ends[k], LPORT_TLS_SERVER_NAME), "good.test");
            cr_assert_str_eq(text_of(ends[k], LPORT_TLS_PROBLEM), "");
            cr_assert_str_eq(text_of(ends[k], LPORT_TLS_SUBJECT),
                             k == CLIENT ? "CN=server,O=port" : "CN=client,O=port");
            cr_assert_str_eq(text_of(ends[k], LPORT_TLS_ISSUER),
                             "CN=authority of the tests,O=port");
            assert_time(text_of(ends[k], LPORT_TLS_VALID_UNTIL));
        }
        close_both(ends);
        close_contexts(contexts);
    }
}

/* The octets of a certificate's DER in FILE, PEM: how many. */
static size_t read_certificate(const char *path, uint8_t *octets, size_t cap) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char line[128];
    size_t len = 0;
    uint32_t bits = 0, count = 0;
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file);
    while (fgets(line, sizeof line, file) != NULL && strncmp(line, "-----END", 8) != 0) {
        for (const char *c = line; line[0] != '-' && *c != '\0' && *c != '\n' && *c != '='; c++) {
            bits = bits << 6 | (uint32_t)(strchr(digits, *c) - digits);
            count += 6;
            if (count >= 8) {
                count -= 8;
                cr_assert_lt(len, cap);
                octets[len++] = (uint8_t)(bits >> count);
            }
        }
    }
    fclose(file);
    return len;
}

SOCKET_TEST(tls, the_certificate_of_the_peer_is_told_whole_or_not_at_all) {
    static uint8_t expected[4096], told[4096];
    int64_t ends[2];
    size_t len = read_certificate(CERTIFICATE("server"), expected, sizeof expected);
    make_tls(LPORT_LOCAL, ends);
    const size_t caps[] = {0, 1, len - 1, len, sizeof told};
    for (size_t i = 0; i < COUNT_OF(caps); i++) {
        memset(told, 0xee, sizeof told);
        cr_assert_eq(lport_tls_text(ends[CLIENT], LPORT_TLS_CERTIFICATE, (char *)told, caps[i]),
                     (int64_t)len);
        size_t written = caps[i] < len ? 0 : len;
        cr_assert_eq(memcmp(told, expected, written), 0);
        cr_assert_eq(told[written], 0xee);
    }
    cr_assert_eq(lport_tls_text(ends[SERVER], LPORT_TLS_CERTIFICATE, (char *)told, sizeof told), 0);
    for (int32_t what = LPORT_TLS_SUBJECT; what <= LPORT_TLS_VALID_UNTIL; what++) {
        cr_assert_str_eq(text_of(ends[SERVER], what), "");
    }
    assert_kind(lport_tls_text(ends[0], LPORT_TLS_VERSION - 1, (char *)told, 8), LPORT_INVALID);
    assert_kind(lport_tls_text(ends[0], LPORT_TLS_RESUMED + 1, (char *)told, 8), LPORT_INVALID);
    close_both(ends);
}

/* ---- before it is done ----------------------------------------------------------------------- */

SOCKET_TEST(tls, before_the_handshake_is_done_there_is_no_connection) {
    uint8_t octets[4] = "abc";
    int64_t contexts[2] = {make_context(NULL), make_context("server")}, ends[2];
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    start_both(ends, contexts, "good.test");
    for (int round = 0; round < 2; round++) {
        for (int k = 0; k < 2; k++) {
            assert_kind(lport_socket_receive(ends[k], octets, 4, 0), LPORT_NOT_CONNECTED);
            assert_kind(lport_socket_receive(ends[k], octets, 4, LPORT_PEEK), LPORT_NOT_CONNECTED);
            assert_kind(lport_socket_receive(ends[k], octets, 4, LPORT_PATIENT),
                        LPORT_NOT_CONNECTED);
            assert_kind(lport_socket_send(ends[k], octets, 3), LPORT_NOT_CONNECTED);
            assert_kind(lport_socket_send2(ends[k], octets, 1, octets, 2), LPORT_NOT_CONNECTED);
            assert_kind(lport_socket_shutdown(ends[k], LPORT_OUTPUT), LPORT_NOT_CONNECTED);
            for (int32_t what = LPORT_TLS_VERSION; what <= LPORT_TLS_CERTIFICATE; what++) {
                cr_assert(what == LPORT_TLS_SERVER_NAME ||
                              lport_tls_text(ends[k], what, NULL, 0) == 0,
                          "%d: %s", (int)what, text_of(ends[k], what));
            }
        }
        begin(ends[CLIENT]);
    }
    agree(ends);
    assert_say(ends[CLIENT], ends[SERVER], "now");
    close_both(ends);
    close_contexts(contexts);
}

SOCKET_TEST(tls, a_socket_without_tls_has_no_session) {
    int64_t ends[2];
    char text[8];
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    assert_kind(lport_tls_step(ends[0]), LPORT_NOT_CONNECTED);
    assert_kind(lport_tls_text(ends[0], LPORT_TLS_VERSION, text, sizeof text), LPORT_NOT_CONNECTED);
    cr_assert_eq(lport_socket_buffered(ends[0]), 0);
    close_both(ends);
    assert_kind(lport_tls_step(ends[0]), LPORT_CLOSED);
    assert_kind(lport_tls_text(ends[0], LPORT_TLS_VERSION, text, sizeof text), LPORT_CLOSED);
    assert_kind(lport_socket_buffered(ends[0]), LPORT_CLOSED);
}

/* ---- what can have none ---------------------------------------------------------------------- */

SOCKET_TEST(tls, a_connection_has_it_once) {
    int64_t contexts[2] = {make_context(NULL), make_context("server")}, ends[2];
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    start_both(ends, contexts, "good.test");
    for (int32_t side = LPORT_TLS_CLIENT; side <= LPORT_TLS_SERVER; side++) {
        assert_kind(start(ends[0], contexts[1], side, NULL), LPORT_INVALID);
    }
    agree(ends);
    assert_kind(start(ends[0], contexts[1], LPORT_TLS_SERVER, NULL), LPORT_INVALID);
    assert_say(ends[CLIENT], ends[SERVER], "as before");
    close_both(ends);
    close_contexts(contexts);
}

SOCKET_TEST(tls, what_is_no_connection_of_octets_has_none) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t context = make_context(NULL), ends[2];
    static const int32_t kinds[] = {LPORT_DATAGRAM, LPORT_SEQPACKET};
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        cr_assert_eq(lport_socket_pair(kinds[i], ends), 0);
        assert_kind(start(ends[0], context, LPORT_TLS_CLIENT, NULL), LPORT_NOT_SUPPORTED);
        assert_kind(lport_tls_step(ends[0]), LPORT_NOT_CONNECTED);
        close_both(ends);
    }
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    assert_kind(start(listener, context, LPORT_TLS_SERVER, NULL), LPORT_NOT_CONNECTED);
    int64_t poller = lport_poller_open(LPORT_POLLER_BEST);
    assert_kind(start(poller, context, LPORT_TLS_SERVER, NULL), LPORT_NOT_SUPPORTED);
    assert_closes(poller);
    assert_closes(listener);
    assert_kind(start(listener, context, LPORT_TLS_SERVER, NULL), LPORT_CLOSED);
    cr_assert_eq(lport_tls_context_close(context), 0);
}

SOCKET_TEST(tls, sides_and_names_that_are_none_leave_the_connection_as_it_is) {
    static char longest[256];
    int64_t context = make_context(NULL), ends[2];
    memset(longest, 'a', sizeof longest);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    static const int32_t sides[] = {0, 3, -1, INT32_MAX};
    for (size_t i = 0; i < COUNT_OF(sides); i++) {
        assert_kind(start(ends[0], context, sides[i], NULL), LPORT_INVALID);
    }
    static const size_t lengths[] = {256, 4096, SIZE_MAX};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        assert_kind(
            lport_tls_start(ends[0], context, LPORT_TLS_CLIENT, longest, lengths[i], NULL, 0),
            LPORT_INVALID);
    }
    assert_kind(lport_tls_start(ends[0], context, LPORT_TLS_CLIENT, "a\0b", 3, NULL, 0),
                LPORT_INVALID);
    static const char *const none[] = {"127.1", "1.2.3.4.5", ":", ".good.test", "."};
    for (size_t i = 0; i < COUNT_OF(none); i++) {
        int64_t status = start(ends[0], context, LPORT_TLS_CLIENT, none[i]);
        cr_assert_eq(lport_status_kind(status), LPORT_ADDRESS_SYNTAX, "%s", none[i]);
    }
    assert_say(ends[0], ends[1], "still plain");
    cr_assert_eq(lport_tls_start(ends[0], context, LPORT_TLS_CLIENT, longest, 255, NULL, 0), 0);
    close_both(ends);
    cr_assert_eq(lport_tls_context_close(context), 0);
}

static int64_t start_in_need(void *data) {
    const int64_t *given = data;
    return lport_tls_start(given[0], given[1], LPORT_TLS_SERVER, NULL, 0, (const uint8_t *)"x", 1);
}

SOCKET_TEST(tls, without_memory_there_is_none_and_the_connection_stays_as_it_is) {
    int64_t context = make_context("server"), ends[2];
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    int64_t given[2] = {ends[0], context};
    for (int64_t n = 1; n <= 2; n++) {
        faults_fail(CALL_CALLOC, n, 1, 12);
        assert_kind(start_in_need(given), LPORT_MEMORY_EXHAUSTED);
        cr_assert_eq(faults_struck(), 1);
        faults_clear();
        assert_say(ends[0], ends[1], "still plain");
    }
    cr_assert_eq(start_in_need(given), 0);
    faults_resume();
    close_both(ends);
    cr_assert_eq(lport_tls_context_close(context), 0);
}

/* ---- who is who ------------------------------------------------------------------------------ */

struct meeting {
    const char *client, *server; /* their certificates, or NULL */
    int32_t client_verifies, server_verifies;
    const char *name;
    int32_t client_says, server_says; /* kinds */
    const char *problem;              /* of the one that refuses */
};

enum {
    NOBODY = LPORT_TLS_VERIFY_NOBODY,
    OF_SERVER = LPORT_TLS_VERIFY_SERVER,
    GIVEN = LPORT_TLS_VERIFY_GIVEN,
    ALWAYS = LPORT_TLS_VERIFY,
    REFUSED = LPORT_CERTIFICATE_REFUSED,
    TOLD = LPORT_TLS_FAILED, /* by an alert */
};

static void meet(const struct meeting *row, int32_t minor) {
    int64_t contexts[2] = {make_context(row->client), make_context(row->server)}, ends[2];
    int64_t results[2] = {0};
    uint8_t octet;
    cr_assert_eq(lport_tls_context_verify(contexts[CLIENT], row->client_verifies), 0);
    cr_assert_eq(lport_tls_context_verify(contexts[SERVER], row->server_verifies), 0);
    cr_assert_eq(lport_tls_context_versions(contexts[SERVER], 2, minor), 0);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    start_both(ends, contexts, row->name);
    shake_hands(ends, results);
    if (results[CLIENT] == 0 &&
        row->client_says != 0) { /* of TLS 1.3 it has not waited for the answer */
        hand_on(ends[SERVER]);
        results[CLIENT] = receive_some(ends[CLIENT], &octet, 1, soon());
    }
    assert_kind(results[CLIENT], row->client_says);
    assert_kind(results[SERVER], row->server_says);
    for (int k = 0; k < 2; k++) {
        assert_kind(lport_tls_step(ends[k]), lport_status_kind(results[k]));
        bool refuses = (k == CLIENT ? row->client_says : row->server_says) != 0;
        cr_assert_eq(strlen(text_of(ends[k], LPORT_TLS_PROBLEM)) > 0, refuses);
    }
    if (row->problem != NULL) {
        int who = row->client_says == REFUSED ? CLIENT : SERVER;
        cr_assert_str_eq(text_of(ends[who], LPORT_TLS_PROBLEM), row->problem);
    }
    if (row->client_says == 0) {
        assert_say(ends[CLIENT], ends[SERVER], "well met");
    }
    close_both(ends);
    close_contexts(contexts);
}

static void all_meet(const struct meeting *rows, size_t count) {
    for (size_t i = 0; i < count; i++) {
        for (int32_t minor = 2; minor <= 3; minor++) {
            meet(&rows[i], minor);
        }
    }
}

SOCKET_TEST(tls, a_client_verifies_the_server_as_its_context_says) {
    static const char expired[] = "certificate has expired";
    static const char *const stranger = "stranger";
    const struct meeting rows[] = {
        {NULL, "server", OF_SERVER, OF_SERVER, "good.test", 0, 0, NULL},
        {NULL, "server", GIVEN, NOBODY, "good.test", 0, 0, NULL},
        {NULL, "server", ALWAYS, NOBODY, "good.test", 0, 0, NULL},
        {NULL, "server", OF_SERVER, NOBODY, NULL, 0, 0, NULL},
        {NULL, "expired", OF_SERVER, NOBODY, "good.test", REFUSED, TOLD, expired},
        {NULL, "expired", OF_SERVER, NOBODY, NULL, REFUSED, TOLD, expired},
        {NULL, stranger, OF_SERVER, NOBODY, "good.test", REFUSED, TOLD, NULL},
        {NULL, stranger, GIVEN, NOBODY, NULL, REFUSED, TOLD, NULL},
        {NULL, "client", OF_SERVER, NOBODY, "good.test", REFUSED, TOLD, "hostname mismatch"},
        {NULL, "client", NOBODY, NOBODY, "good.test", 0, 0, NULL},
        {NULL, "expired", NOBODY, NOBODY, "good.test", 0, 0, NULL},
        {NULL, stranger, NOBODY, NOBODY, "good.test", 0, 0, NULL},
    };
    all_meet(rows, COUNT_OF(rows));
}

SOCKET_TEST(tls, a_server_verifies_the_client_as_its_context_says) {
    const struct meeting rows[] = {
        {NULL, "server", OF_SERVER, GIVEN, "good.test", 0, 0, NULL},
        {"client", "server", OF_SERVER, GIVEN, "good.test", 0, 0, NULL},
        {"client", "server", OF_SERVER, ALWAYS, "good.test", 0, 0, NULL},
        {"stranger", "server", OF_SERVER, OF_SERVER, "good.test", 0, 0, NULL},
        {"stranger", "server", OF_SERVER, NOBODY, "good.test", 0, 0, NULL},
        {"stranger", "server", OF_SERVER, GIVEN, "good.test", TOLD, REFUSED, NULL},
        {"stranger", "server", OF_SERVER, ALWAYS, "good.test", TOLD, REFUSED, NULL},
        {"expired", "server", OF_SERVER, GIVEN, "good.test", TOLD, REFUSED,
         "certificate has expired"},
        {NULL, "server", OF_SERVER, ALWAYS, "good.test", TOLD, REFUSED, "none was shown"},
    };
    all_meet(rows, COUNT_OF(rows));
}

/* Not only whom an authority without an issuer leads to. */
SOCKET_TEST(tls, who_is_in_the_file_is_trusted_and_whom_those_have_certified) {
    static const struct {
        const char *trusted;
        int32_t status;
    } rows[] = {{CERTIFICATE("between"), 0},
                {CERTIFICATE("below-alone"), 0},
                {CERTIFICATE("server"), LPORT_CERTIFICATE_REFUSED}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        int64_t contexts[2] = {lport_tls_context_open(), lport_tls_context_open()}, ends[2];
        int64_t results[2] = {0};
        cr_assert_eq(trust(contexts[CLIENT], rows[i].trusted), 0);
        cr_assert_eq(identify(contexts[SERVER], CERTIFICATE("below-alone"), KEY("below")), 0);
        cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
        start_both(ends, contexts, "below.test");
        shake_hands(ends, results);
        assert_kind(results[CLIENT], rows[i].status);
        close_both(ends);
        close_contexts(contexts);
    }
}

/* What stands there in the place of a certificate is no other reason. */
SOCKET_TEST(tls, who_is_not_found_in_a_directory_is_refused_whatever_is_found_in_it) {
    static const char garbled[] = "build/tls/garbled";
    int64_t contexts[2] = {lport_tls_context_open(), make_context("server")}, ends[2];
    int64_t results[2] = {0};
    cr_assert_eq(
        lport_tls_context_trust(contexts[CLIENT], LPORT_TLS_DIRECTORY, garbled, strlen(garbled)),
        0);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    start_both(ends, contexts, "good.test");
    shake_hands(ends, results);
    assert_kind(results[CLIENT], LPORT_CERTIFICATE_REFUSED);
    cr_assert_str_eq(text_of(ends[CLIENT], LPORT_TLS_PROBLEM),
                     "unable to get local issuer certificate");
    close_both(ends);
    close_contexts(contexts);
}

SOCKET_TEST(tls, a_server_without_a_certificate_is_nobody) {
    const struct meeting rows[] = {
        {NULL, NULL, OF_SERVER, NOBODY, "good.test", TOLD, TOLD, "no shared cipher"},
        {NULL, NULL, NOBODY, NOBODY, NULL, TOLD, TOLD, NULL},
    };
    meet(&rows[0], 2);
    meet(&rows[1], 3);
}

SOCKET_TEST(tls, the_server_has_to_be_the_one_that_was_expected) {
    static const struct {
        const char *name;
        bool good;
    } rows[] = {{"good.test", true},
                {"GOOD.test", true},
                {"a.wild.test", true},
                {"wild.test", false},
                {"a.b.wild.test", false},
                {"agood.test", false},
                {"good.test.a", false},
                {"127.0.0.1", true},
                {"::1", true},
                {"127.0.0.2", false},
                {"::2", false},
                {"server", false},
                {"0:0:0:0::1", true},
                {"::ffff:127.0.0.1", true}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct meeting row = {NULL, "server", OF_SERVER, NOBODY, rows[i].name, 0, 0, NULL};
        if (!rows[i].good) {
            row.client_says = REFUSED;
            row.server_says = TOLD;
            row.problem = strchr(rows[i].name, ':') != NULL || rows[i].name[0] == '1'
                              ? "IP address mismatch"
                              : "hostname mismatch";
        }
        all_meet(&row, 1);
    }
}

/* RFC 9525, 2: a name in the subject is none of those that count. */
SOCKET_TEST(tls, a_name_in_the_subject_does_not_count) {
    const struct meeting row = {NULL,        "subject", OF_SERVER, NOBODY,
                                "good.test", REFUSED,   TOLD,      "hostname mismatch"};
    all_meet(&row, 1);
}

SOCKET_TEST(tls, an_address_is_not_told_to_the_server) {
    static const char *const names[] = {"127.0.0.1", "::1", "good.test"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        int64_t contexts[2] = {make_context(NULL), make_context("server")}, ends[2];
        cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
        start_both(ends, contexts, names[i]);
        agree(ends);
        cr_assert_str_eq(text_of(ends[SERVER], LPORT_TLS_SERVER_NAME), i < 2 ? "" : names[i]);
        close_both(ends);
        close_contexts(contexts);
    }
}

/* How often the octets of TEXT were seen from the server. */
static int times_seen(const struct between *between, const char *text) {
    int times = 0;
    for (size_t i = 0; i + strlen(text) <= between->seen_len[SERVER]; i++) {
        times += memcmp(between->seen[SERVER] + i, text, strlen(text)) == 0;
    }
    return times;
}

/* How often each of two names is seen where the server VERIFIES. Of TLS 1.2 all of it can be read
 * on the way. */
static void count_names(int32_t verifies, int counts[2]) {
    struct between between;
    int64_t contexts[2] = {make_context("client"), make_context("server")};
    cr_assert_eq(trust(contexts[SERVER], CERTIFICATE("stranger")), 0);
    cr_assert_eq(lport_tls_context_verify(contexts[SERVER], verifies), 0);
    cr_assert_eq(lport_tls_context_versions(contexts[SERVER], 2, 2), 0);
    make_between(&between);
    start_both(between.ends, contexts, "good.test");
    agree_through(&between);
    counts[0] = times_seen(&between, "authority of the tests");
    counts[1] = times_seen(&between, "somebody else");
    close_between(&between);
    close_contexts(contexts);
}

SOCKET_TEST(tls, a_server_tells_its_clients_of_all_that_it_trusts) {
    int without[2], with[2]; /* its own certificate has a name, too */
    count_names(LPORT_TLS_VERIFY_SERVER, without);
    count_names(LPORT_TLS_VERIFY, with);
    cr_assert_eq(with[0], without[0] + 1);
    cr_assert_eq(with[1], without[1] + 1);
}

/* A client that comes back with one would be refused where clients are verified. */
SOCKET_TEST(tls, a_server_gives_no_tickets) {
    struct between between;
    int64_t contexts[2] = {make_context(NULL), make_context("server")};
    enum { CIPHERS_BEGIN = 20, HANDSHAKE = 22, NEW_TICKET = 4 }; /* RFC 5246, A.1, A.4 */
    cr_assert_eq(lport_tls_context_versions(contexts[SERVER], 2, 2), 0);
    make_between(&between);
    start_both(between.ends, contexts, "good.test");
    agree_through(&between);
    const uint8_t *seen = between.seen[SERVER];
    size_t records = 0;
    for (size_t i = 0; seen[i] != CIPHERS_BEGIN; records++) {
        cr_assert_lt(i + 5, between.seen_len[SERVER]);
        cr_assert(seen[i] == HANDSHAKE && seen[i + 5] != NEW_TICKET, "record %zu", records);
        i += 5 + (size_t)(seen[i + 3] << 8 | seen[i + 4]);
    }
    cr_assert_geq(records, 4);
    close_between(&between);
    close_contexts(contexts);
}

/* ---- octets read ahead ----------------------------------------------------------------------- */

/* The first octets of a client, which nobody else has. */
static size_t take_hello(struct between *between, uint8_t *octets, size_t cap) {
    int64_t limit = soon();
    size_t len = 0;
    while (len < 5 || len < 5 + (size_t)(octets[3] << 8 | octets[4])) {
        cr_assert_lt(lport_clock_now(), limit);
        cr_assert_gt(lport_tls_step(between->ends[CLIENT]), 0);
        int64_t count = lport_socket_receive(between->own[CLIENT], octets + len, cap - len, 0);
        cr_assert(count > 0 || would_block(count));
        len += count > 0 ? (size_t)count : 0;
    }
    return len;
}

/* A session whose client's hello was read ahead up to SPLIT; false where it is not so long. */
static bool begin_at(const int64_t contexts[2], size_t split) {
    static uint8_t hello[2048];
    struct between between;
    make_between(&between);
    cr_assert_eq(start(between.ends[CLIENT], contexts[CLIENT], LPORT_TLS_CLIENT, "good.test"), 0);
    size_t len = take_hello(&between, hello, sizeof hello);
    size_t ahead = split < len ? split : len;
    cr_assert_eq(lport_tls_start(between.ends[SERVER], contexts[SERVER], LPORT_TLS_SERVER, NULL, 0,
                                 hello, ahead),
                 0);
    memset(hello, 0, ahead); /* it has been copied */
    cr_assert_eq(lport_socket_buffered(between.ends[SERVER]), ahead > 0);
    int32_t weather = faults_watch();
    cr_assert_eq(send_all(between.own[SERVER], hello + ahead, len - ahead, soon()),
                 (int64_t)(len - ahead));
    if (weather) {
        faults_resume();
    }
    agree_through(&between);
    cr_assert_eq(lport_socket_buffered(between.ends[SERVER]), 0);
    close_between(&between);
    return ahead < len;
}

SOCKET_TEST(tls, octets_read_ahead_are_the_beginning_wherever_they_end) {
    int64_t contexts[2] = {make_context(NULL), make_context("server")};
    size_t step = faults_everywhere() ? 97 : 1, split = 0;
    while (begin_at(contexts, split)) {
        split += step;
    }
    cr_assert_gt(split, 100);
    close_contexts(contexts);
}

SOCKET_TEST(tls, a_wait_knows_of_octets_read_ahead) {
    int64_t context = make_context("server"), ends[2];
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(
        lport_tls_start(ends[0], context, LPORT_TLS_SERVER, NULL, 0, (const uint8_t *)"\26\3\1", 3),
        0);
    cr_assert_eq(wait_for(ends[0], LPORT_INPUT, 0), LPORT_INPUT);
    begin(ends[0]);
    assert_kind(wait_for(ends[0], LPORT_INPUT, 0), LPORT_TIMED_OUT);
    close_both(ends);
    cr_assert_eq(lport_tls_context_close(context), 0);
}

/* ---- handshakes that fail -------------------------------------------------------------------- */

/* Drives END alone until it has failed. */
static int64_t step_alone(int64_t end) {
    int64_t status, limit = soon();
    while ((status = lport_tls_step(end)) >= 0) {
        cr_assert_neq(status, 0);
        cr_assert_geq(wait_for(end, (int32_t)status, limit), 0);
    }
    return status;
}

/* It has failed with KIND, and everything says so from now on. */
static void assert_over(int64_t end, int32_t kind) {
    uint8_t octets[2] = "";
    for (int i = 0; i < 3; i++) {
        assert_kind(lport_tls_step(end), kind);
        assert_kind(lport_socket_receive(end, octets, 2, 0), kind);
        assert_kind(lport_socket_receive(end, octets, 2, LPORT_PEEK), kind);
        assert_kind(lport_socket_send(end, octets, 2), kind);
        assert_kind(lport_socket_send2(end, octets, 1, octets, 1), kind);
        cr_assert_eq(lport_socket_buffered(end), 1);
        cr_assert(wait_for(end, LPORT_INPUT, 0) & LPORT_INPUT);
    }
    cr_assert_eq(lport_socket_shutdown(end, LPORT_OUTPUT), 0);
}

static void assert_fails_before(int32_t side, const char *says, const char *problem) {
    int64_t context = make_context("server"), ends[2];
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(start(ends[0], context, side, NULL), 0);
    begin(ends[0]);
    cr_assert_eq(send_all(ends[1], (const uint8_t *)says, strlen(says), soon()),
                 (int64_t)strlen(says));
    assert_kind(step_alone(ends[0]), LPORT_TLS_FAILED);
    cr_assert_str_eq(text_of(ends[0], LPORT_TLS_PROBLEM), problem);
    assert_over(ends[0], LPORT_TLS_FAILED);
    close_both(ends);
    cr_assert_eq(lport_tls_context_close(context), 0);
}

SOCKET_TEST(tls, a_peer_that_speaks_no_tls_is_found_out) {
    assert_fails_before(LPORT_TLS_SERVER, "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n",
                        "http request");
    assert_fails_before(LPORT_TLS_SERVER, "HELP me if you can", "wrong version number");
    assert_fails_before(LPORT_TLS_CLIENT, "HTTP/1.1 400 Bad Request\r\n\r\n",
                        "wrong version number");
    assert_fails_before(LPORT_TLS_CLIENT, "220 good.test ESMTP\r\n", "wrong version number");
}

SOCKET_TEST(tls, a_peer_that_leaves_before_it_is_done_truncates_the_connection) {
    for (int32_t side = LPORT_TLS_CLIENT; side <= LPORT_TLS_SERVER; side++) {
        for (int begun = 0; begun < 2; begun++) {
            int64_t context = make_context("server"), ends[2];
            cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
            cr_assert_eq(start(ends[0], context, side, NULL), 0);
            begin(ends[0]);
            if (begun) {
                cr_assert_eq(send_all(ends[1], (const uint8_t *)"\26\3\3\1", 4, soon()), 4);
            }
            cr_assert_eq(lport_socket_shutdown(ends[1], LPORT_OUTPUT), 0);
            assert_kind(step_alone(ends[0]), LPORT_CONNECTION_TRUNCATED);
            assert_over(ends[0], LPORT_CONNECTION_TRUNCATED);
            close_both(ends);
            cr_assert_eq(lport_tls_context_close(context), 0);
        }
    }
}

SOCKET_TEST(tls, a_reset_in_the_handshake_is_a_reset) {
    for (int32_t side = LPORT_TLS_CLIENT; side <= LPORT_TLS_SERVER; side++) {
        int64_t context = make_context("server"), ends[2];
        make_connection(LPORT_INET, ends);
        cr_assert_eq(start(ends[0], context, side, NULL), 0);
        begin(ends[0]);
        cr_assert_eq(lport_socket_close(ends[1], LPORT_RESET), 0);
        assert_kind(step_alone(ends[0]), LPORT_CONNECTION_RESET);
        assert_over(ends[0], LPORT_CONNECTION_RESET);
        assert_closes(ends[0]);
        cr_assert_eq(lport_tls_context_close(context), 0);
    }
}

/* In fair weather: a call that is disturbed would hide what is there. */
SOCKET_TEST(tls, an_alert_is_heard_though_nothing_can_be_sent) {
    static const uint8_t alert[] = {21, 3, 3, 0, 2, 2, 40}; /* fatal, handshake_failure */
    int64_t context = make_context(NULL), ends[2];
    faults_watch();
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(start(ends[0], context, LPORT_TLS_CLIENT, "good.test"), 0);
    cr_assert_eq(send_all(ends[1], alert, sizeof alert, soon()), (int64_t)sizeof alert);
    assert_closes(ends[1]);
    assert_kind(step_alone(ends[0]), LPORT_TLS_FAILED);
    cr_assert_neq(strlen(text_of(ends[0], LPORT_TLS_PROBLEM)), 0);
    assert_closes(ends[0]);
    cr_assert_eq(lport_tls_context_close(context), 0);
}
