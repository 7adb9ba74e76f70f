/* tls_context: whom contexts trust and who they are, and what is no good for that. */
#include "sessions.h"
#include "support.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(tls_context, .timeout = 20);

static void close_context(int64_t context) {
    cr_assert_eq(lport_tls_context_close(context), 0);
}

/* ---- names of contexts ----------------------------------------------------------------------- */

static void assert_names_none(int64_t context) {
    char text[8];
    int64_t ends[2];
    assert_kind(lport_tls_context_trust(context, LPORT_TLS_SYSTEM, NULL, 0), LPORT_CLOSED);
    assert_kind(trust(context, CERTIFICATE("authority")), LPORT_CLOSED);
    assert_kind(take_list(context, "build/tls/authority.crl"), LPORT_CLOSED);
    assert_kind(identify(context, CERTIFICATE("server"), KEY("server")), LPORT_CLOSED);
    assert_kind(lport_tls_context_verify(context, LPORT_TLS_VERIFY), LPORT_CLOSED);
    assert_kind(lport_tls_context_resume(context, 0), LPORT_CLOSED);
    assert_kind(lport_tls_context_versions(context, 2, 3), LPORT_CLOSED);
    assert_kind(speak(context, "words"), LPORT_CLOSED);
    assert_kind(lport_tls_context_problem(context, text, sizeof text), LPORT_CLOSED);
    assert_kind(lport_tls_context_close(context), LPORT_CLOSED);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    assert_kind(start(ends[0], context, LPORT_TLS_CLIENT, NULL), LPORT_CLOSED);
    assert_kind(lport_tls_step(ends[0]), LPORT_NOT_CONNECTED);
    close_both(ends);
}

SOCKET_TEST(tls_context, what_names_none_is_closed) {
    int64_t stale = lport_tls_context_open();
    close_context(stale);
    int64_t next = lport_tls_context_open();
    cr_assert_neq(next, stale);
    const int64_t none[] = {0, -1, 1, INT64_MIN, INT64_MAX, stale, next + 1};
    for (size_t i = 0; i < COUNT_OF(none); i++) {
        assert_names_none(none[i]);
    }
    close_context(next);
}

SOCKET_TEST(tls_context, sessions_go_on_without_their_context) {
    int64_t ends[2];
    make_tls(LPORT_LOCAL, ends); /* which closes both contexts before the handshake */
    send_text(ends[CLIENT], "here");
    receive_text(ends[SERVER], "here");
    close_both(ends);
}

static int64_t open_context(void *unused) {
    (void)unused;
    return lport_tls_context_open();
}

Test(tls_context, without_memory_there_is_none) {
    faults_fail(CALL_CALLOC, 1, 1, ENOMEM);
    assert_kind(open_context(NULL), LPORT_MEMORY_EXHAUSTED);
    faults_clear();
    close_context(open_context(NULL));
}

/* ---- paths ----------------------------------------------------------------------------------- */

SOCKET_TEST(tls_context, a_path_that_can_be_none_is_invalid) {
    static char longest[PATH_MAX + 1];
    const char *good = CERTIFICATE("both");
    int64_t context = lport_tls_context_open();
    memset(longest, 'a', sizeof longest);
    const struct {
        const char *path;
        size_t len;
    } bad[] = {{NULL, 0},          {"", 0}, {"a\0b", 3}, {"a\0", 2}, {longest, PATH_MAX},
               {longest, SIZE_MAX}};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        for (int32_t source = LPORT_TLS_FILE; source <= LPORT_TLS_DIRECTORY; source++) {
            assert_kind(lport_tls_context_trust(context, source, bad[i].path, bad[i].len),
                        LPORT_INVALID);
        }
        assert_kind(lport_tls_context_revoked(context, bad[i].path, bad[i].len), LPORT_INVALID);
        assert_kind(lport_tls_context_identity(context, bad[i].path, bad[i].len, good, strlen(good),
                                               NULL, 0),
                    LPORT_INVALID);
        assert_kind(lport_tls_context_identity(context, good, strlen(good), bad[i].path, bad[i].len,
                                               NULL, 0),
                    LPORT_INVALID);
    }
    for (int32_t source = -1; source <= LPORT_TLS_DIRECTORY + 1; source += 4) {
        assert_kind(lport_tls_context_trust(context, source, good, strlen(good)), LPORT_INVALID);
    }
    /* The longest that a file may have is not too long, but there is none. */
    int64_t status = lport_tls_context_trust(context, LPORT_TLS_FILE, longest, PATH_MAX - 1);
    cr_assert_eq(lport_status_errno(status), ENAMETOOLONG);
    close_context(context);
}

SOCKET_TEST(tls_context, a_file_that_cannot_be_read_has_the_number_of_the_system) {
    int64_t context = lport_tls_context_open();
    const struct {
        const char *path;
        int number;
    } bad[] = {{"build/tls/no-such-file", ENOENT},
               {CERTIFICATE("server") "/within", ENOTDIR},
               {"build/tls", EISDIR}};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        const int64_t statuses[] = {trust(context, bad[i].path), take_list(context, bad[i].path),
                                    identify(context, bad[i].path, KEY("server")),
                                    identify(context, CERTIFICATE("server"), bad[i].path)};
        for (size_t k = 0; k < COUNT_OF(statuses); k++) {
            assert_kind(statuses[k], LPORT_OTHER);
            cr_assert_eq(lport_status_errno(statuses[k]), bad[i].number, "%s, %zu: %d", bad[i].path,
                         k, (int)lport_status_errno(statuses[k]));
        }
    }
    close_context(context);
}

SOCKET_TEST(tls_context, a_directory_that_is_none_has_the_number_of_the_system) {
    int64_t context = lport_tls_context_open();
    const struct {
        const char *path;
        int number;
    } bad[] = {{"build/tls/no-such-directory", ENOENT}, {CERTIFICATE("server"), ENOTDIR}};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        int64_t status =
            lport_tls_context_trust(context, LPORT_TLS_DIRECTORY, bad[i].path, strlen(bad[i].path));
        assert_kind(status, LPORT_OTHER);
        cr_assert_eq(lport_status_errno(status), bad[i].number);
    }
    cr_assert_eq(lport_tls_context_trust(context, LPORT_TLS_DIRECTORY, "build/tls", 9), 0);
    close_context(context);
}

SOCKET_TEST(tls_context, a_file_that_nobody_may_read_is_a_matter_of_permission) {
    char path[] = "/tmp/port-tls-XXXXXX";
    int fd = mkstemp(path);
    int64_t context = lport_tls_context_open();
    cr_assert_geq(fd, 0);
    cr_assert_eq(close(fd), 0);
    cr_assert_eq(chmod(path, 0), 0);
    bool denied = access(path, R_OK) != 0; /* a superuser may read all */
    int64_t status = trust(context, path);
    unlink(path);
    close_context(context);
    if (!denied) {
        assert_kind(status, LPORT_TLS_FAILED); /* it is empty */
        cr_skip_test("this user may read every file");
    }
    assert_kind(status, LPORT_PERMISSION_DENIED);
}

/* To open a pipe that has no writer would block for ever, and what comes out of one comes once. */
SOCKET_TEST(tls_context, what_is_no_file_will_not_do) {
    char pipe_name[] = "/tmp/port-tls-XXXXXX", link_name[sizeof pipe_name + 5];
    int fds[2];
    int64_t context = lport_tls_context_open();
    int fd = mkstemp(pipe_name);
    cr_assert(fd >= 0 && close(fd) == 0 && unlink(pipe_name) == 0);
    cr_assert_eq(mkfifo(pipe_name, 0600), 0);
    snprintf(link_name, sizeof link_name, "%s.link", pipe_name);
    cr_assert_eq(symlink(pipe_name, link_name), 0);
    cr_assert_eq(pipe(fds), 0);
    char end_name[32]; /* as a shell writes <(command) */
    snprintf(end_name, sizeof end_name, "/dev/fd/%d", fds[0]);
    const char *bad[] = {pipe_name, link_name, end_name, "/dev/zero"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        const int64_t statuses[] = {trust(context, bad[i]), take_list(context, bad[i]),
                                    identify(context, bad[i], KEY("server")),
                                    identify(context, CERTIFICATE("server"), bad[i])};
        for (size_t k = 0; k < COUNT_OF(statuses); k++) {
            assert_kind(statuses[k], LPORT_TLS_FAILED);
        }
        cr_assert_str_eq(problem_of(context), "not a regular file");
        assert_kind(trust(context, CERTIFICATE("none")), LPORT_TLS_FAILED);
        cr_assert_str_neq(problem_of(context), "not a regular file");
    }
    unlink(link_name);
    unlink(pipe_name);
    close(fds[0]);
    close(fds[1]);
    close_context(context);
}

/* ---- what files hold ------------------------------------------------------------------------- */

SOCKET_TEST(tls_context, a_file_that_holds_something_else_will_not_do) {
    int64_t context = lport_tls_context_open();
    cr_assert_str_eq(problem_of(context), "");
    const int64_t statuses[] = {
        trust(context, CERTIFICATE("none")),
        trust(context, KEY("server")),
        identify(context, CERTIFICATE("none"), KEY("server")),
        identify(context, KEY("server"), KEY("server")),
        identify(context, CERTIFICATE("server"), CERTIFICATE("none")),
        identify(context, CERTIFICATE("server"), CERTIFICATE("server")),
    };
    for (size_t i = 0; i < COUNT_OF(statuses); i++) {
        assert_kind(statuses[i], LPORT_TLS_FAILED);
        cr_assert_eq(lport_status_errno(statuses[i]), 0);
    }
    close_context(context);
}

SOCKET_TEST(tls_context, the_problem_says_what_will_not_do) {
    int64_t context = lport_tls_context_open();
    char text[4] = "xyz";
    assert_kind(trust(context, CERTIFICATE("none")), LPORT_TLS_FAILED);
    cr_assert_neq(strlen(problem_of(context)), 0);
    assert_kind(identify(context, CERTIFICATE("server"), KEY("client")), LPORT_TLS_FAILED);
    cr_assert_str_eq(problem_of(context), "key values mismatch");
    cr_assert_eq(lport_tls_context_problem(context, text, 3), 19);
    cr_assert_arr_eq(text, "key", 4);
    /* A file that is not there is no problem of TLS: what was said last of one stays. */
    assert_kind(trust(context, "build/tls/no-such-file"), LPORT_OTHER);
    cr_assert_str_eq(problem_of(context), "key values mismatch");
    close_context(context);
}

SOCKET_TEST(tls_context, a_key_is_opened_by_its_passphrase_alone) {
    static char longest[LPORT_TLS_PASSPHRASE_MAX + 2];
    int64_t context = lport_tls_context_open();
    static const struct {
        const char *passphrase, *problem;
    } bad[] = {{"", "no private key without a passphrase: "},
               {"secre", "no private key with this passphrase: "},
               {"secrets", "no private key with this passphrase: "},
               {longest, "no private key with this passphrase: "}};
    memset(longest, 'x', LPORT_TLS_PASSPHRASE_MAX);
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_kind(unlock(context, CERTIFICATE("server"), KEY("locked"), bad[i].passphrase),
                    LPORT_TLS_FAILED);
        cr_assert_eq(strncmp(problem_of(context), bad[i].problem, strlen(bad[i].problem)), 0, "%s",
                     problem_of(context));
    }
    longest[LPORT_TLS_PASSPHRASE_MAX] = 'x';
    assert_kind(unlock(context, CERTIFICATE("server"), KEY("locked"), longest), LPORT_INVALID);
    cr_assert_eq(unlock(context, CERTIFICATE("server"), KEY("locked"), "secret"), 0);
    cr_assert_eq(unlock(context, CERTIFICATE("server"), KEY("server"), "not needed"), 0);
    close_context(context);
}

SOCKET_TEST(tls_context, chain_and_key_may_be_one_file) {
    int64_t contexts[2] = {make_context(NULL), lport_tls_context_open()}, ends[2];
    cr_assert_eq(identify(contexts[SERVER], CERTIFICATE("both"), CERTIFICATE("both")), 0);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    start_both(ends, contexts, "good.test");
    agree(ends);
    close_both(ends);
    close_context(contexts[0]);
    close_context(contexts[1]);
}

/* ---- versions, modes, protocols -------------------------------------------------------------- */

SOCKET_TEST(tls_context, numbers_outside_their_range_are_invalid) {
    int64_t context = lport_tls_context_open();
    static const int32_t versions[][2] = {{1, 3}, {0, 0}, {3, 2}, {2, 4}, {-1, 2}, {2, INT32_MAX}};
    static const int32_t modes[] = {-1, LPORT_TLS_VERIFY + 1, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        assert_kind(lport_tls_context_versions(context, versions[i][0], versions[i][1]),
                    LPORT_INVALID);
    }
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        assert_kind(lport_tls_context_verify(context, modes[i]), LPORT_INVALID);
    }
    close_context(context);
}

SOCKET_TEST(tls_context, the_version_is_among_those_of_both_sides) {
    static const struct {
        int32_t client[2], server[2];
        const char *version; /* NULL: they have none in common */
    } rows[] = {{{2, 3}, {2, 3}, "TLSv1.3"}, {{2, 2}, {2, 3}, "TLSv1.2"},
                {{2, 3}, {2, 2}, "TLSv1.2"}, {{3, 3}, {2, 3}, "TLSv1.3"},
                {{2, 2}, {3, 3}, NULL},      {{3, 3}, {2, 2}, NULL}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        int64_t contexts[2] = {make_context(NULL), make_context("server")}, ends[2], results[2];
        cr_assert_eq(lport_tls_context_versions(contexts[0], rows[i].client[0], rows[i].client[1]),
                     0);
        cr_assert_eq(lport_tls_context_versions(contexts[1], rows[i].server[0], rows[i].server[1]),
                     0);
        cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
        start_both(ends, contexts, "good.test");
        shake_hands(ends, results);
        for (int k = 0; k < 2; k++) {
            assert_kind(results[k], rows[i].version == NULL ? LPORT_TLS_FAILED : 0);
            cr_assert_str_eq(text_of(ends[k], LPORT_TLS_VERSION),
                             rows[i].version == NULL ? "" : rows[i].version);
            cr_assert_eq(strlen(text_of(ends[k], LPORT_TLS_PROBLEM)) > 0, rows[i].version == NULL);
            close_context(contexts[k]);
        }
        close_both(ends);
    }
}

SOCKET_TEST(tls_context, names_of_protocols_are_between_commas) {
    static char longest[256];
    int64_t context = lport_tls_context_open();
    memset(longest, 'a', sizeof longest);
    const char *bad[] = {",", "a,", ",a", "a,,b", ",,"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_kind(speak(context, bad[i]), LPORT_INVALID);
    }
    assert_kind(lport_tls_context_protocols(context, longest, 255), LPORT_INVALID);
    assert_kind(lport_tls_context_protocols(context, longest, SIZE_MAX), LPORT_INVALID);
    cr_assert_eq(lport_tls_context_protocols(context, longest, 254), 0);
    cr_assert_eq(lport_tls_context_protocols(context, longest, 1), 0);
    cr_assert_eq(lport_tls_context_protocols(context, NULL, 0), 0);
    close_context(context);
}

struct speakers {
    const char *client, *server;
    const char *agreed; /* NULL: none in common */
};

static void assert_speaks(const struct speakers *row, int32_t minor) {
    int64_t contexts[2] = {make_context(NULL), make_context("server")}, ends[2], results[2];
    cr_assert_eq(speak(contexts[CLIENT], row->client), 0);
    cr_assert_eq(speak(contexts[SERVER], row->server), 0);
    cr_assert_eq(lport_tls_context_versions(contexts[CLIENT], minor, minor), 0);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    start_both(ends, contexts, "good.test");
    shake_hands(ends, results);
    for (int k = 0; k < 2; k++) {
        assert_kind(results[k], row->agreed == NULL ? LPORT_TLS_FAILED : 0);
        cr_assert_str_eq(text_of(ends[k], LPORT_TLS_PROTOCOL),
                         row->agreed == NULL ? "" : row->agreed);
        close_context(contexts[k]);
    }
    close_both(ends);
}

SOCKET_TEST(tls_context, a_server_takes_the_first_of_its_protocols_that_the_client_has) {
    static char longest[255];
    memset(longest, 'a', 254);
    const struct speakers rows[] = {
        {"h2,http/1.1", "http/1.1,h2", "http/1.1"},
        {"h2", "http/1.1,h2", "h2"},
        {"h2,http/1.1", "http/1.1", "http/1.1"},
        {"a,ab,abc", "abc,a", "abc"},
        {"abc", "ab", NULL},
        {"ab", "abc", NULL},
        {"h2", "H2", NULL},
        {"", "h2", ""},
        {"h2", "", ""},
        {"", "", ""},
        {longest, longest, longest},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        assert_speaks(&rows[i], 2);
        assert_speaks(&rows[i], 3);
    }
}

SOCKET_TEST(tls_context, a_session_keeps_the_protocols_that_it_began_with) {
    const char *later[] = {"", "http/1.1", "h2,http/1.1"};
    for (size_t i = 0; i < COUNT_OF(later); i++) {
        int64_t contexts[2] = {make_context(NULL), make_context("server")}, ends[2];
        cr_assert_eq(speak(contexts[CLIENT], "http/1.1,h2"), 0);
        cr_assert_eq(speak(contexts[SERVER], i == 2 ? "" : "h2"), 0);
        cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
        start_both(ends, contexts, "good.test");
        cr_assert_eq(speak(contexts[SERVER], later[i]), 0);
        agree(ends);
        cr_assert_str_eq(text_of(ends[CLIENT], LPORT_TLS_PROTOCOL), i == 2 ? "" : "h2");
        close_both(ends);
        close_context(contexts[0]);
        close_context(contexts[1]);
    }
}
