/* Names on helper threads: what is asked, answers and failures. What the system's resolver would
 * say comes from a fake of it; only the last test asks the system, for what every system has. */
#include "libport.h"
#include "resolving.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

TestSuite(resolve, .timeout = 20, .init = use_fake);

/* ---- answers --------------------------------------------------------------------------------- */

Test(resolve, addresses_come_in_the_order_of_the_resolver_once_each) {
    static const char *const rows[] = {"127.0.0.9", "::1", "127.0.0.9", "127.0.0.1", "::1", NULL};
    memcpy(fake.texts, rows, sizeof rows);
    int64_t query = asked("many.test", 0);
    cr_assert_eq(lport_resolve_count(query), 3);
    check_address(query, 0, "127.0.0.9");
    check_address(query, 1, "::1");
    check_address(query, 2, "127.0.0.1");
    uint8_t block[LPORT_ADDRESS_SIZE];
    cr_assert_eq(kind(lport_resolve_address(query, 3, block)), LPORT_INVALID);
    cr_assert_eq(kind(lport_resolve_address(query, -1, block)), LPORT_INVALID);
    cr_assert_eq(lport_resolve_close(query), 0);
    cr_assert_eq(fake.lists, 0);
    cr_assert_eq(lport_resolve_pending(), 0);
}

Test(resolve, the_question_is_put_plainly) {
    static const int32_t families[][2] = {
        {LPORT_ANY, AF_UNSPEC}, {LPORT_INET, AF_INET}, {LPORT_INET6, AF_INET6}};
    for (int i = 0; i < 3; i++) {
        int64_t query = lport_resolve_open("many.test+", 9, families[i][0], 0);
        cr_assert_eq(lport_resolve_wait(query, lport_clock_after(10 * S)), 0);
        cr_assert_str_eq(fake.name, "many.test");
        cr_assert_eq(fake.hints.ai_family, families[i][1]);
        cr_assert_eq(fake.hints.ai_socktype, SOCK_STREAM);
        cr_assert_eq(fake.hints.ai_flags, 0, "AI_ADDRCONFIG hides addresses of loopback");
        lport_resolve_close(query);
    }
}

Test(resolve, names_are_the_canonical_one_and_every_alias_once) {
    int64_t query = asked("many", LPORT_ALIASES);
    cr_assert_eq(fake.hints.ai_flags, AI_CANONNAME);
    cr_assert_eq(lport_resolve_count(query), 3);
    check_name(query, 0, "many.test");
    check_name(query, 1, "alias-0");
    check_name(query, 200, "alias-199");
    check_name(query, 201, "wide.test");
    cr_assert_eq(kind(lport_resolve_name(query, 202, NULL, 0)), LPORT_INVALID);
    cr_assert_eq(kind(lport_resolve_name(query, -1, NULL, 0)), LPORT_INVALID);
    char cut[5];
    cr_assert_eq(lport_resolve_name(query, 1, cut, 5), 7);
    cr_assert_arr_eq(cut, "alias", 5);
    lport_resolve_close(query);
}

/* True if one of the names of QUERY is NAME. */
static bool has_name(int64_t query, const char *name) {
    char text[LPORT_TEXT_SIZE];
    int32_t i = 0;
    while (lport_resolve_name(query, i, text, sizeof text) >= 0 && strcmp(text, name) != 0) {
        i++;
    }
    return lport_resolve_name(query, i, NULL, 0) >= 0;
}

/* The fake has wide.test for IPv6 alone. */
Test(resolve, aliases_are_those_of_the_families_of_the_answer) {
    static const char *const texts[] = {"127.0.0.1", "::1"};
    for (int i = 0; i < 2; i++) {
        fake.texts[0] = texts[i];
        fake.texts[1] = NULL;
        int64_t query = asked("one.test", LPORT_ALIASES);
        cr_assert_eq(has_name(query, "wide.test"), i == 1);
        lport_resolve_close(query);
    }
}

Test(resolve, without_aliases_there_are_no_names) {
    int64_t query = asked("many.test", 0);
    cr_assert_eq(kind(lport_resolve_name(query, 0, NULL, 0)), LPORT_INVALID);
    lport_resolve_close(query);
}

Test(resolve, an_address_has_names) {
    int64_t query = reverse("127.0.0.2");
    cr_assert_eq(lport_resolve_count(query), 1);
    check_address(query, 0, "127.0.0.2");
    check_name(query, 0, "Many.Test");
    check_name(query, 3, "alias-2");
    cr_assert_eq(kind(lport_resolve_name(query, 4, NULL, 0)), LPORT_INVALID);
    lport_resolve_close(query);
}

Test(resolve, a_mapped_address_has_the_names_of_the_ipv4_address) {
    int64_t query = reverse("::ffff:127.0.0.2");
    cr_assert_eq(lport_resolve_count(query), 1);
    check_address(query, 0, "127.0.0.2");
    check_name(query, 0, "Many.Test");
    lport_resolve_close(query);
}

Test(resolve, an_address_without_a_name) {
    static const char *const unknown[] = {"127.0.0.77", "::1"};
    for (int i = 0; i < 2; i++) {
        int64_t query = reverse(unknown[i]);
        cr_assert_eq(kind(lport_resolve_count(query)), LPORT_HOST_NOT_FOUND);
        cr_assert_eq(kind(lport_resolve_name(query, 0, NULL, 0)), LPORT_HOST_NOT_FOUND);
        lport_resolve_close(query);
    }
    uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    cr_assert_eq(kind(lport_resolve_reverse(any)), LPORT_INVALID);
}

Test(resolve, an_address_that_could_not_be_looked_up) {
    static const int32_t rows[][2] = {{EMFILE, LPORT_DESCRIPTORS_EXHAUSTED},
                                      {EIO, LPORT_RESOLVER_FAILURE}};
    for (int i = 0; i < 2; i++) {
        fake.error = rows[i][0];
        int64_t query = reverse("127.0.0.77");
        cr_assert_eq(kind(lport_resolve_count(query)), rows[i][1]);
        cr_assert_eq(lport_status_errno(lport_resolve_count(query)), rows[i][0]);
        lport_resolve_close(query);
    }
}

Test(resolve, a_name_without_an_address_is_not_found) {
    fake.texts[0] = NULL;
    int64_t query = asked("no-address.test", LPORT_ALIASES);
    cr_assert_eq(kind(lport_resolve_count(query)), LPORT_HOST_NOT_FOUND);
    lport_resolve_close(query);
}

Test(resolve, failures_are_told_apart) {
    static const struct {
        int result, error;
        int32_t kind, kept;
    } rows[] = {{EAI_NONAME, ENOENT, LPORT_HOST_NOT_FOUND, 0},
                {EAI_AGAIN, ENOENT, LPORT_RESOLVER_TRY_AGAIN, 0},
                {EAI_FAIL, ENOENT, LPORT_RESOLVER_FAILURE, 0},
                {EAI_SYSTEM, ENOENT, LPORT_RESOLVER_FAILURE, ENOENT},
                /* What glibc says of a name for which it could open no file. */
                {EAI_NONAME, EMFILE, LPORT_DESCRIPTORS_EXHAUSTED, EMFILE},
                {EAI_SYSTEM, ENFILE, LPORT_DESCRIPTORS_EXHAUSTED, ENFILE},
                {EAI_SYSTEM, ENOMEM, LPORT_MEMORY_EXHAUSTED, ENOMEM}};
    uint8_t block[LPORT_ADDRESS_SIZE];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fake.result = rows[i].result;
        fake.error = rows[i].error;
        int64_t query = asked("many.test", LPORT_ALIASES);
        cr_assert_eq(kind(lport_resolve_count(query)), rows[i].kind);
        cr_assert_eq(kind(lport_resolve_address(query, 0, block)), rows[i].kind);
        cr_assert_eq(lport_status_errno(lport_resolve_count(query)), rows[i].kept);
        lport_resolve_close(query);
    }
}

/* The thread is the same; errno says something only where the call has set it. */
Test(resolve, a_failure_is_not_taken_for_that_of_the_query_before) {
    fake.result = EAI_SYSTEM;
    fake.error = EMFILE;
    int64_t query = asked("many.test", 0);
    cr_assert_eq(kind(lport_resolve_count(query)), LPORT_DESCRIPTORS_EXHAUSTED);
    lport_resolve_close(query);
    fake.result = EAI_NONAME;
    fake.error = -1;
    query = asked("many.test", 0);
    cr_assert_eq(kind(lport_resolve_count(query)), LPORT_HOST_NOT_FOUND);
    lport_resolve_close(query);
}

Test(resolve, what_is_no_name_is_not_asked_for) { /* behaviour 56 */
    char large[300];
    memset(large, 'a', sizeof large);
    cr_assert_eq(kind(lport_resolve_open("", 0, LPORT_ANY, 0)), LPORT_ADDRESS_SYNTAX);
    cr_assert_eq(kind(lport_resolve_open(NULL, 0, LPORT_ANY, 0)), LPORT_ADDRESS_SYNTAX);
    cr_assert_eq(kind(lport_resolve_open(large, 256, LPORT_ANY, 0)), LPORT_ADDRESS_SYNTAX);
    cr_assert_eq(kind(lport_resolve_open("a\0b", 3, LPORT_ANY, 0)), LPORT_ADDRESS_SYNTAX);
    static const char *const literals[] = {"127.0.0.1", "010.0.0.1", "127.1", "[::1", "::1", "7"};
    for (size_t i = 0; i < sizeof literals / sizeof literals[0]; i++) {
        cr_assert_eq(kind(lport_resolve_open(literals[i], strlen(literals[i]), LPORT_ANY, 0)),
                     LPORT_INVALID);
    }
    cr_assert_eq(kind(lport_resolve_open("a", 1, LPORT_LOCAL, 0)), LPORT_INVALID);
    cr_assert_eq(kind(lport_resolve_open("a", 1, LPORT_ANY, 64)), LPORT_INVALID);
    cr_assert_eq(lport_resolve_threads(), 0);
    int64_t query = lport_resolve_open(large, 255, LPORT_ANY, 0);
    cr_assert_eq(lport_resolve_wait(query, lport_clock_after(10 * S)), 0);
    cr_assert_eq(strlen(fake.name), 255);
    lport_resolve_close(query);
}

/* ---- the system's own answers ---------------------------------------------------------------- */

Test(resolve, localhost_has_an_address) {
    lport_resolver = system_resolver;
    int64_t query = asked("localhost", LPORT_ALIASES);
    cr_assert_gt(lport_resolve_count(query), 0);
    check_name(query, 0, "localhost");
    lport_resolve_close(query);
}
