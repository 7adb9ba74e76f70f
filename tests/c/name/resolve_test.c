/* Names on helper threads. What the system's resolver would say comes from a fake of it; only the
 * last tests ask the system, for what every system has. */
#include "fake_resolver.h"
#include "libport.h"
#include "base/os.h"
#include "base/pool.h"
#include "name/resolve.h"
#include "support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MS INT64_C(1000000)
#define S  INT64_C(1000000000)

/* ---- the fake -------------------------------------------------------------------------------- */

static struct lport_resolver system_resolver; /* what was there before */

/* A host with so many aliases that the first buffer is too small: alias-0, alias-1 ... */
static int fill_host(struct hostent *host, char *buffer, size_t len, struct hostent **result,
                     int *error, int aliases, int family) {
    size_t need = (size_t)(aliases + 1) * (sizeof(char *) + 16) + 64;
    char **list = (char **)(void *)buffer;
    char *text = buffer + (size_t)(aliases + 1) * sizeof(char *);
    if (need > len) {
        *error = NETDB_INTERNAL;
        *result = NULL;
        return ERANGE;
    }
    for (int i = 0; i < aliases; i++) {
        list[i] = text;
        text += sprintf(text, "alias-%d", i) + 1;
    }
    list[aliases] = NULL;
    strcpy(text, family == AF_INET6 ? "wide.test" : "Many.Test");
    *host = (struct hostent){.h_name = text, .h_aliases = list, .h_addrtype = family};
    *result = host;
    *error = 0;
    return 0;
}

static int fake_gethostbyname2_r(const char *name, int family, struct hostent *host, char *buffer,
                                 size_t len, struct hostent **result, int *error) {
    (void)name;
    return fill_host(host, buffer, len, result, error, family == AF_INET ? 200 : 2, family);
}

/* Knows one address, 127.0.0.2. */
static int fake_gethostbyaddr_r(const void *address, socklen_t address_len, int family,
                                struct hostent *host, char *buffer, size_t len,
                                struct hostent **result, int *error) {
    static const uint8_t known[4] = {127, 0, 0, 2};
    if (family == AF_INET && address_len == 4 && memcmp(address, known, 4) == 0) {
        return fill_host(host, buffer, len, result, error, 3, family);
    }
    *result = NULL;
    *error = fake.error != 0 ? NETDB_INTERNAL : HOST_NOT_FOUND;
    return fake.error;
}

static void use_fake(void) {
    system_resolver = lport_resolver;
    use_fake_resolver();
    fake.canonical = "many.test";
    fake.texts[0] = "127.0.0.2";
    fake.texts[1] = "127.0.0.3";
    fake.texts[2] = "::1";
    lport_resolver.gethostbyname2_r = fake_gethostbyname2_r;
    lport_resolver.gethostbyaddr_r = fake_gethostbyaddr_r;
}

/* Every call of the fake waits in it from now on, or not any more: then COUNT calls may go on. */
static void shut_gate(void) {
    fake.gated = true;
}

static void open_gate(int count) {
    for (int i = 0; i < count; i++) {
        sem_post(&fake.gate);
    }
}

TestSuite(resolve, .timeout = 20, .init = use_fake);

/* ---- helpers --------------------------------------------------------------------------------- */

static int32_t kind(int64_t status) {
    return lport_status_kind(status);
}

static int64_t ask(const char *name, int32_t flags) {
    int64_t query = lport_resolve_open(name, strlen(name), LPORT_ANY, flags);
    cr_assert_gt(query, 0);
    return query;
}

static int64_t asked(const char *name, int32_t flags) {
    int64_t query = ask(name, flags);
    cr_assert_eq(lport_resolve_wait(query, lport_clock_after(10 * S)), 0);
    return query;
}

static void check_address(int64_t query, int32_t index, const char *text) {
    uint8_t block[LPORT_ADDRESS_SIZE];
    char printed[LPORT_TEXT_SIZE];
    int64_t family = lport_resolve_address(query, index, block);
    cr_assert_eq(family, strchr(text, ':') != NULL ? LPORT_INET6 : LPORT_INET);
    lport_address_print(block, printed, sizeof printed);
    cr_assert_str_eq(printed, text);
    cr_assert_eq(block[2] << 8 | block[3], 0, "a port");
}

static void check_name(int64_t query, int32_t index, const char *expected) {
    char name[64];
    cr_assert_eq(lport_resolve_name(query, index, name, sizeof name), (int64_t)strlen(expected));
    cr_assert_str_eq(name, expected);
}

/* Waits, without sleeping, until the resolver's COUNT is what it should be. */
static void settle(int64_t (*count)(void), int64_t expected) {
    int64_t deadline = lport_clock_after(10 * S);
    while (count() != expected && lport_clock_now() < deadline) {
        sched_yield();
    }
    cr_assert_eq(count(), expected);
}

static int64_t reverse(const char *text) {
    uint8_t block[LPORT_ADDRESS_SIZE];
    cr_assert_gt(lport_address_parse(text, strlen(text), 80, block), 0);
    int64_t query = lport_resolve_reverse(block);
    cr_assert_gt(query, 0);
    cr_assert_eq(lport_resolve_wait(query, lport_clock_after(10 * S)), 0);
    return query;
}

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
    char cut[5];
    cr_assert_eq(lport_resolve_name(query, 1, cut, 5), 7);
    cr_assert_arr_eq(cut, "alias", 5);
    lport_resolve_close(query);
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

/* ---- waiting, closing ------------------------------------------------------------------------ */

Test(resolve, a_wait_ends_at_its_deadline_and_can_be_repeated) { /* behaviours 4, 50 */
    shut_gate();
    int64_t query = ask("slow.test", 0);
    cr_assert_eq(kind(lport_resolve_count(query)), LPORT_IN_PROGRESS);
    assert_times_out(lport_resolve_wait, query, 100 * MS, 600 * MS);
    cr_assert_eq(kind(lport_resolve_wait(query, 0)), LPORT_TIMED_OUT);
    open_gate(1);
    cr_assert_eq(lport_resolve_wait(query, LPORT_NEVER), 0);
    cr_assert_eq(lport_resolve_wait(query, 0), 0);
    cr_assert_eq(lport_resolve_count(query), 3);
    lport_resolve_close(query);
}

Test(resolve, a_closed_query_is_stale_for_every_function) {
    uint8_t block[LPORT_ADDRESS_SIZE];
    int64_t query = asked("many.test", 0);
    lport_resolve_close(query);
    int64_t next = asked("many.test", 0); /* in the same memory */
    int64_t wrong[] = {query, 0, -1, INT64_MAX, next + 1};
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(kind(lport_resolve_wait(wrong[i], LPORT_NEVER)), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_count(wrong[i])), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_address(wrong[i], 0, block)), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_name(wrong[i], 0, NULL, 0)), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_notify(wrong[i], -1)), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_close(wrong[i])), LPORT_INVALID);
    }
    cr_assert_eq(lport_resolve_count(next), 3);
    lport_resolve_close(next);
}

/* One that was never opened, and the one that its memory could be taken for next. */
Test(resolve, no_integer_names_a_query_that_is_not_open) {
    int64_t query = asked("many.test", 0);
    lport_resolve_close(query);
    for (int64_t wrong = 0; wrong < 64; wrong++) {
        cr_assert_eq(kind(lport_resolve_close(wrong)), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_close(query + (wrong << LPORT_POOL_INDEX_BITS))),
                     LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_count(wrong)), LPORT_INVALID);
        cr_assert_eq(kind(lport_resolve_wait(wrong, LPORT_NEVER)), LPORT_INVALID);
    }
    cr_assert_eq(lport_resolve_pending(), 0);
    int64_t first = asked("many.test", 0), second = asked("many.test", 0);
    cr_assert_neq(first, second);
    cr_assert_eq(lport_resolve_close(first), 0);
    cr_assert_eq(lport_resolve_close(second), 0);
}

Test(resolve, an_abandoned_query_comes_back_once_its_thread_does) {
    shut_gate();
    for (int i = 0; i < 5; i++) {
        int64_t query = ask("slow.test", LPORT_ALIASES);
        sem_wait(&fake.entered);
        cr_assert_eq(lport_resolve_close(query), 0);
    }
    cr_assert_eq(lport_resolve_pending(), 5);
    open_gate(5);
    settle(lport_resolve_pending, 0);
    cr_assert_eq(fake.lists, 0);
}

/* Their memory comes from the list of free ones, which is not the queue. */
Test(resolve, one_query_after_several_is_one) {
    int64_t queries[3];
    for (int i = 0; i < 3; i++) {
        queries[i] = ask("many.test", 0);
    }
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(lport_resolve_wait(queries[i], LPORT_NEVER), 0);
        lport_resolve_close(queries[i]);
    }
    for (int i = 0; i < 20; i++) {
        lport_resolve_close(asked("many.test", 0));
    }
    settle(lport_resolve_pending, 0);
    for (int i = 0; i < 3; i++) {
        queries[i] = ask("many.test", 0);
        cr_assert(i == 0 || queries[i] != queries[i - 1]);
    }
    settle(lport_resolve_pending, 3);
    for (int i = 0; i < 3; i++) {
        lport_resolve_close(queries[i]);
    }
    settle(lport_resolve_pending, 0);
}

Test(resolve, more_queries_than_threads_queue_up) {
    int64_t queries[40];
    lport_resolver.idle_ns = 60 * S;
    shut_gate();
    for (int i = 0; i < 40; i++) {
        queries[i] = ask("slow.test", 0);
    }
    for (int i = 0; i < 32; i++) {
        sem_wait(&fake.entered);
    }
    cr_assert_eq(lport_resolve_threads(), 32);
    cr_assert_eq(sem_trywait(&fake.entered), -1);
    lport_resolve_close(queries[39]); /* the last in the queue, the first, one in the middle */
    lport_resolve_close(queries[32]);
    lport_resolve_close(queries[35]);
    cr_assert_eq(lport_resolve_pending(), 37);
    queries[39] = ask("slow.test", 0);
    open_gate(38);
    for (int i = 0; i < 40; i++) {
        if (i != 32 && i != 35) {
            cr_assert_eq(lport_resolve_wait(queries[i], lport_clock_after(10 * S)), 0, "%d", i);
            cr_assert_eq(lport_resolve_count(queries[i]), 3);
            lport_resolve_close(queries[i]);
        }
    }
    settle(lport_resolve_pending, 0);
    cr_assert_eq(lport_resolve_threads(), 32);
    for (int i = 0; i < 32; i++) { /* all of them have work again, whatever was closed before */
        queries[i] = ask("slow.test", 0);
    }
    for (int i = 0; i < 32 + 6; i++) { /* six entered that were queued then */
        sem_wait(&fake.entered);
    }
    open_gate(32);
    for (int i = 0; i < 32; i++) {
        cr_assert_eq(lport_resolve_wait(queries[i], LPORT_NEVER), 0);
        lport_resolve_close(queries[i]);
    }
}

/* COUNT queries that are all being answered at once. */
static void answer_at_once(int count) {
    int64_t queries[32];
    shut_gate();
    for (int i = 0; i < count; i++) {
        queries[i] = ask("slow.test", 0);
    }
    for (int i = 0; i < count; i++) {
        sem_wait(&fake.entered);
    }
    open_gate(count);
    for (int i = 0; i < count; i++) {
        cr_assert_eq(lport_resolve_wait(queries[i], LPORT_NEVER), 0);
        lport_resolve_close(queries[i]);
    }
}

/* A thread that is idle is one query's, however many are asked for before it wakes. */
Test(resolve, no_query_waits_for_the_answer_of_another_while_threads_may_be_made) {
    lport_resolver.idle_ns = 60 * S;
    for (int count = 1; count <= 32; count++) {
        answer_at_once(count);
        cr_assert_eq(lport_resolve_threads(), count);
    }
}

static int detached, not_detached;

static int noting_thread(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                         void *argument) {
    int state;
    pthread_attr_getdetachstate(attributes, &state);
    detached += state == PTHREAD_CREATE_DETACHED;
    not_detached += state != PTHREAD_CREATE_DETACHED;
    return pthread_create(thread, attributes, body, argument);
}

/* Nobody joins it: what it has would stay for ever. */
Test(resolve, a_thread_that_ends_leaves_nothing) {
    lport_resolver.thread_create = noting_thread;
    answer_at_once(3);
    cr_assert_eq(detached, 3);
    cr_assert_eq(not_detached, 0);
}

Test(resolve, a_thread_is_used_again_and_ends_when_idle) {
    lport_resolver.idle_ns = 10 * S;
    for (int i = 0; i < 100; i++) {
        lport_resolve_close(asked("many.test", 0));
    }
    /* An answer is given with the lock held until its thread is idle. */
    cr_assert_eq(lport_resolve_threads(), 1);
    lport_resolver.idle_ns = MS;
    answer_at_once(1); /* it waits for the longer time still: give it work */
    settle(lport_resolve_threads, 0);
}

Test(resolve, every_signal_is_blocked_on_the_thread_and_none_here) {
    static const int signals[] = {SIGINT, SIGSEGV, SIGUSR1, SIGUSR2, SIGALRM, SIGPROF, SIGCHLD};
    sigset_t before, after;
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    lport_resolve_close(asked("many.test", 0));
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        cr_assert_eq(sigismember(&fake.blocked, signals[i]), 1, "%d", signals[i]);
        cr_assert_eq(sigismember(&after, signals[i]), sigismember(&before, signals[i]));
    }
}

Test(resolve, an_answer_makes_an_eventfd_readable) {
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct pollfd fd = {.fd = event, .events = POLLIN};
    uint64_t count;
    shut_gate();
    int64_t query = ask("slow.test", 0);
    cr_assert_eq(lport_resolve_notify(query, event), 0);
    cr_assert_eq(poll(&fd, 1, 0), 0);
    open_gate(1);
    cr_assert_eq(poll(&fd, 1, 10000), 1);
    cr_assert_eq(lport_resolve_count(query), 3);
    cr_assert_eq(read(event, &count, sizeof count), sizeof count);
    cr_assert_eq(lport_resolve_notify(query, event), 0, "answered before: at once");
    cr_assert_eq(poll(&fd, 1, 0), 1);
    lport_resolve_close(query);
    cr_assert_eq(read(event, &count, sizeof count), sizeof count);
    query = ask("slow.test", 0);
    lport_resolve_notify(query, event);
    sem_wait(&fake.entered);
    lport_resolve_notify(query, -1);
    open_gate(1);
    cr_assert_eq(lport_resolve_wait(query, LPORT_NEVER), 0);
    cr_assert_eq(poll(&fd, 1, 0), 0, "taken back");
    lport_resolve_close(query);
    close(event);
}

static void *wait_on(void *query) {
    static int64_t result;
    result = lport_resolve_wait(*(int64_t *)query, LPORT_NEVER);
    return &result;
}

Test(resolve, a_close_ends_a_wait_of_another_thread) {
    pthread_t thread;
    void *result;
    shut_gate();
    int64_t query = ask("slow.test", 0);
    sem_wait(&fake.entered);
    pthread_create(&thread, NULL, wait_on, &query);
    lport_resolve_close(query); /* before, in or after the wait: it ends each time */
    pthread_join(thread, &result);
    cr_assert_eq(kind(*(int64_t *)result), LPORT_INVALID);
    open_gate(1);
    settle(lport_resolve_pending, 0);
}

static int64_t wait_for_ever(void *query) {
    return lport_resolve_wait(*(int64_t *)query, LPORT_NEVER);
}

Test(resolve, a_close_wakes_a_wait_that_sleeps) {
    struct task task;
    shut_gate();
    int64_t query = ask("slow.test", 0);
    sem_wait(&fake.entered);
    task_start(&task, wait_for_ever, &query);
    task_until_asleep(&task, 0);
    lport_resolve_close(query);
    cr_assert_eq(kind(task_join(&task)), LPORT_INVALID);
    open_gate(1);
    settle(lport_resolve_pending, 0);
}

Test(resolve, a_wait_can_be_abandoned_at_any_moment) { /* behaviour 26 */
    shut_gate();
    int64_t query = ask("slow.test", 0);
    sem_wait(&fake.entered);
    unwind_waits(lport_resolve_wait, query);
    open_gate(1);
    cr_assert_eq(lport_resolve_wait(query, lport_clock_after(10 * S)), 0);
    cr_assert_eq(lport_resolve_count(query), 3);
    lport_resolve_close(query);
    cr_assert_eq(lport_resolve_pending(), 0);
}

/* ---- forks, failures ------------------------------------------------------------------------- */

/* In a child: the query of the parent has failed, and new ones are answered. 0 if so. */
static int child_of_fork(int64_t query) {
    fake.gated = false;
    if (lport_resolve_wait(query, LPORT_NEVER) != 0 ||
        kind(lport_resolve_count(query)) != LPORT_RESOLVER_TRY_AGAIN ||
        lport_resolve_close(query) != 0 || lport_resolve_pending() != 0) {
        return 1;
    }
    query = lport_resolve_open("many.test", 9, LPORT_ANY, LPORT_ALIASES);
    if (lport_resolve_wait(query, lport_clock_after(10 * S)) != 0) {
        return 2;
    }
    return lport_resolve_count(query) == 3 ? 0 : 3;
}

Test(resolve, a_child_of_fork_can_resolve) {
    int status;
    shut_gate();
    int64_t first[3];
    for (int i = 0; i < 3; i++) { /* three threads, one of them idle when we fork */
        first[i] = ask("slow.test", 0);
    }
    for (int i = 0; i < 3; i++) {
        sem_wait(&fake.entered);
    }
    open_gate(3);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(lport_resolve_wait(first[i], LPORT_NEVER), 0);
        lport_resolve_close(first[i]);
    }
    int64_t abandoned = ask("slow.test", 0);
    int64_t query = ask("slow.test", 0);
    sem_wait(&fake.entered);
    sem_wait(&fake.entered);
    lport_resolve_close(abandoned);
    pid_t child = fork();
    if (child == 0) {
        _exit(child_of_fork(query));
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 0);
    open_gate(2);
    cr_assert_eq(lport_resolve_wait(query, LPORT_NEVER), 0);
    cr_assert_eq(lport_resolve_count(query), 3, "the parent's own is not touched");
    lport_resolve_close(query);
    settle(lport_resolve_pending, 0);
}

/* Returns which query was not answered, 0 if all were. */
static int ask_again_and_again(void *unused) {
    (void)unused;
    for (int i = 1; i <= 10; i++) {
        int64_t query = lport_resolve_open("many.test", 9, LPORT_ANY, 0);
        if (lport_resolve_wait(query, lport_clock_after(10 * S)) != 0) {
            return i;
        }
        lport_resolve_close(query);
    }
    return 0;
}

/* What the child's threads wait on has no memory of the threads that waited there at the fork: one
 * of those would be woken instead. The answer of a query is given with the lock held until its
 * thread is idle. */
Test(resolve, a_child_of_fork_wakes_its_own_threads) {
    lport_resolver.idle_ns = 60 * S;
    shut_gate();
    int64_t queries[3];
    for (int i = 0; i < 3; i++) {
        queries[i] = ask("slow.test", 0);
        sem_wait(&fake.entered);
    }
    open_gate(3);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(lport_resolve_wait(queries[i], LPORT_NEVER), 0);
        lport_resolve_close(queries[i]);
    }
    fake.gated = false;
    cr_assert_eq(in_child(ask_again_and_again, NULL), 0);
}

/* What the parent's queue held is not the child's to wait behind. */
Test(resolve, a_child_of_fork_has_a_queue_of_its_own) {
    int64_t queries[34];
    shut_gate();
    for (int i = 0; i < 34; i++) {
        queries[i] = ask("slow.test", 0);
    }
    for (int i = 0; i < 32; i++) {
        sem_wait(&fake.entered);
    }
    fake.gated = false;
    cr_assert_eq(in_child(ask_again_and_again, NULL), 0);
    open_gate(32);
    for (int i = 0; i < 34; i++) {
        cr_assert_eq(lport_resolve_wait(queries[i], LPORT_NEVER), 0);
        lport_resolve_close(queries[i]);
    }
}

static int do_nothing(void *unused) {
    (void)unused;
    return 0;
}

/* Whoever polls the event would find it readable, and no answer, for as long as there is none. */
Test(resolve, a_child_of_fork_does_not_tell_its_parent_of_an_answer) {
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct pollfd fd = {.fd = event, .events = POLLIN};
    shut_gate();
    int64_t query = ask("slow.test", 0);
    cr_assert_eq(lport_resolve_notify(query, event), 0);
    cr_assert_eq(in_child(do_nothing, NULL), 0);
    cr_assert_eq(poll(&fd, 1, 0), 0);
    open_gate(1);
    cr_assert_eq(poll(&fd, 1, 10000), 1);
    lport_resolve_close(query);
    close(event);
}

static int no_thread(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                     void *argument) {
    (void)thread, (void)attributes, (void)body, (void)argument;
    return EAGAIN;
}

static size_t stack_size;

static int noting_stack(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                        void *argument) {
    pthread_attr_getstacksize(attributes, &stack_size);
    return pthread_create(thread, attributes, body, argument);
}

/* Thread-local variables are on the stack, those of the program as well, and so is what the modules
 * of the system's resolver need. */
Test(resolve, a_thread_has_the_stack_that_every_thread_has) {
    pthread_attr_t usual;
    size_t usual_size = 0;
    cr_assert_eq(pthread_getattr_default_np(&usual), 0);
    cr_assert_eq(pthread_attr_getstacksize(&usual, &usual_size), 0);
    pthread_attr_destroy(&usual);
    lport_resolver.thread_create = noting_stack;
    lport_resolve_close(asked("many.test", 0));
    lport_resolver.thread_create = pthread_create;
    cr_assert_eq(stack_size, usual_size);
}

Test(resolve, without_a_thread_nothing_is_left_behind) {
    lport_resolver.thread_create = no_thread;
    cr_assert_eq(kind(lport_resolve_open("many.test", 9, LPORT_ANY, 0)), LPORT_THREADS_EXHAUSTED);
    cr_assert_eq(lport_resolve_pending(), 0);
    lport_resolver.thread_create = pthread_create;
    shut_gate();
    int64_t first = ask("slow.test", 0);
    sem_wait(&fake.entered);
    lport_resolver.thread_create = no_thread;
    int64_t second = ask("slow.test", 0); /* the one thread will come to it */
    open_gate(2);
    cr_assert_eq(lport_resolve_wait(second, lport_clock_after(10 * S)), 0);
    lport_resolve_close(first);
    lport_resolve_close(second);
    cr_assert_eq(lport_resolve_pending(), 0);
    lport_resolver.thread_create = pthread_create;
    fake.gated = false;
    lport_resolve_close(asked("many.test", 0));
    cr_assert_eq(lport_resolve_threads(), 1, "what failed is not in the queue");
}

/* From here on N allocations go well, and no more. */
static void allow_allocations(int n) {
    faults_clear();
    faults_fail(CALL_CALLOC, n + 1, INT32_MAX, ENOMEM);
}

Test(resolve, every_allocation_may_fail) { /* behaviour 64 */
    int whole = 0;
    for (int n = 0; n < 20; n++) {
        allow_allocations(n);
        int64_t query = lport_resolve_open("many.test", 9, LPORT_ANY, LPORT_ALIASES);
        if (query < 0) {
            cr_assert_eq(kind(query), LPORT_MEMORY_EXHAUSTED);
            continue;
        }
        cr_assert_eq(lport_resolve_wait(query, lport_clock_after(10 * S)), 0);
        int64_t count = lport_resolve_count(query);
        cr_assert(count == 3 || kind(count) == LPORT_MEMORY_EXHAUSTED, "%d", n);
        whole += count == 3;
        lport_resolve_close(query);
        cr_assert_eq(fake.lists, 0);
        cr_assert_eq(lport_resolve_pending(), 0);
    }
    cr_assert(whole > 0 && whole < 20);
}

Test(resolve, every_allocation_for_the_names_of_an_address_may_fail) { /* behaviour 64 */
    uint8_t address[LPORT_ADDRESS_SIZE];
    int whole = 0, n = 0;
    cr_assert_eq(lport_address_parse("127.0.0.2", 9, 0, address), LPORT_INET);
    for (; n < 20; n++) {
        allow_allocations(n);
        int64_t query = lport_resolve_reverse(address);
        if (query < 0) {
            cr_assert_eq(kind(query), LPORT_MEMORY_EXHAUSTED);
            continue;
        }
        cr_assert_eq(lport_resolve_wait(query, lport_clock_after(10 * S)), 0);
        int64_t count = lport_resolve_count(query);
        cr_assert(count == 1 || kind(count) == LPORT_MEMORY_EXHAUSTED, "%d", n);
        whole += count == 1;
        lport_resolve_close(query);
    }
    cr_assert(whole > 0 && whole < n);
}

/* ---- the system's own answers ---------------------------------------------------------------- */

Test(resolve, localhost_has_an_address) {
    lport_resolver = system_resolver;
    int64_t query = asked("localhost", LPORT_ALIASES);
    cr_assert_gt(lport_resolve_count(query), 0);
    check_name(query, 0, "localhost");
    lport_resolve_close(query);
}

static int64_t find(const char *name, const char *protocol, char *text, size_t cap) {
    return lport_service_find(name, strlen(name), protocol, strlen(protocol), text, cap);
}

Test(resolve, a_service_is_found_by_name_and_by_number) {
    char row[LPORT_TEXT_SIZE], again[LPORT_TEXT_SIZE];
    int64_t len = find("http", "tcp", row, sizeof row);
    cr_assert_gt(len, 0);
    cr_assert_eq(strncmp(row, "http 80/tcp", 11), 0, "%s", row);
    cr_assert_eq(strlen(row), (size_t)len);
    cr_assert_eq(find("80", "tcp", again, sizeof again), len);
    cr_assert_str_eq(again, row);
    cr_assert_gt(find("domain", "", row, sizeof row), 0);
    cr_assert_eq(strncmp(row, "domain 53/", 10), 0);
    cr_assert_eq(find("domain", "udp", row, sizeof row), 13);
    cr_assert_str_eq(row, "domain 53/udp");
    memset(row, '-', sizeof row);
    cr_assert_eq(find("domain", "udp", row, 6), 13);
    cr_assert_arr_eq(row, "domain-", 7);
    cr_assert_eq(find("domain", "udp", NULL, 0), 13);
}

/* The row as services(5) has it, from what the system's own function says. */
Test(resolve, a_service_has_its_aliases) {
    char row[512], expected[512];
    const struct servent *service;
    int aliases = 0;
    setservent(1);
    while (aliases == 0 && (service = getservent()) != NULL) {
        int len = snprintf(expected, sizeof expected, "%s %d/%s", service->s_name,
                           ntohs((uint16_t)service->s_port), service->s_proto);
        for (; service->s_aliases[aliases] != NULL; aliases++) {
            len += snprintf(expected + len, sizeof expected - (size_t)len, " %s",
                            service->s_aliases[aliases]);
        }
    }
    cr_assert_gt(aliases, 0, "the system knows no alias");
    cr_assert_gt(find(service->s_name, service->s_proto, row, sizeof row), 0);
    endservent();
    cr_assert_str_eq(row, expected);
}

static int list_in_child(void *len) {
    return lport_service_list(NULL, 0) == *(int64_t *)len ? 0 : 1;
}

Test(resolve, a_child_of_fork_can_list_services) {
    int64_t len = lport_service_list(NULL, 0);
    cr_assert_eq(in_child(list_in_child, &len), 0);
    cr_assert_eq(lport_service_list(NULL, 0), len);
}

/* How many of some lists were not LEN octets long. */
static int64_t list_again_and_again(void *len) {
    int64_t wrong = 0;
    for (int i = 0; i < 50; i++) {
        wrong += lport_service_list(NULL, 0) != *(int64_t *)len;
    }
    return wrong;
}

/* The system's cursor is one for the whole process. */
Test(resolve, threads_that_list_services_at_once_get_all_of_them) {
    struct task tasks[4];
    int64_t len = lport_service_list(NULL, 0);
    for (size_t i = 0; i < COUNT_OF(tasks); i++) {
        task_start(&tasks[i], list_again_and_again, &len);
    }
    for (size_t i = 0; i < COUNT_OF(tasks); i++) {
        cr_assert_eq(task_join(&tasks[i]), 0);
    }
}

Test(resolve, an_unknown_service_is_not_found) {
    static const char *const names[] = {"no-such-service", "", "080", " 80", "65536", "-1", "0"};
    char large[300];
    memset(large, 'a', sizeof large);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        cr_assert_eq(kind(find(names[i], "tcp", NULL, 0)), LPORT_SERVICE_NOT_FOUND, "%s", names[i]);
    }
    cr_assert_eq(kind(find("http", "no-such", NULL, 0)), LPORT_SERVICE_NOT_FOUND);
    cr_assert_eq(kind(lport_service_find("http\0", 5, NULL, 0, NULL, 0)), LPORT_SERVICE_NOT_FOUND);
    cr_assert_eq(kind(lport_service_find(large, 300, NULL, 0, NULL, 0)), LPORT_SERVICE_NOT_FOUND);
}

Test(resolve, a_table_of_services_that_cannot_be_opened_is_no_empty_one) {
    struct rlimit limit, low;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    int64_t found = find("http", "tcp", NULL, 0);
    int64_t listed = lport_service_list(NULL, 0);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert_eq(kind(found), LPORT_DESCRIPTORS_EXHAUSTED);
    cr_assert_eq(kind(listed), LPORT_DESCRIPTORS_EXHAUSTED);
    cr_assert_gt(find("http", "tcp", NULL, 0), 0);
    cr_assert_gt(lport_service_list(NULL, 0), 100);
}

Test(resolve, every_service_stands_in_the_list) {
    char row[LPORT_TEXT_SIZE];
    int64_t len = lport_service_list(NULL, 0);
    cr_assert_gt(len, 100);
    char *list = malloc((size_t)len + 1);
    char *cut = malloc((size_t)len + 1);
    cr_assert_eq(lport_service_list(list, (size_t)len + 1), len);
    cr_assert_eq(strlen(list), (size_t)len);
    cr_assert_eq(list[len - 1], '\n');
    find("http", "tcp", row, sizeof row);
    cr_assert(strstr(list, row) != NULL);
    memset(cut, '-', (size_t)len + 1);
    cr_assert_eq(lport_service_list(cut, 40), len);
    cr_assert_arr_eq(cut, list, 40);
    cr_assert_eq(cut[40], '-');
    free(list);
    free(cut);
}
