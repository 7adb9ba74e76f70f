#include "resolving.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* ---- the fake -------------------------------------------------------------------------------- */

struct lport_resolver system_resolver;

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

void use_fake(void) {
    system_resolver = lport_resolver;
    use_fake_resolver();
    fake.canonical = "many.test";
    fake.texts[0] = "127.0.0.2";
    fake.texts[1] = "127.0.0.3";
    fake.texts[2] = "::1";
    lport_resolver.gethostbyname2_r = fake_gethostbyname2_r;
    lport_resolver.gethostbyaddr_r = fake_gethostbyaddr_r;
}

void shut_gate(void) {
    fake.gated = true;
}

void open_gate(int count) {
    for (int i = 0; i < count; i++) {
        sem_post(&fake.gate);
    }
}

/* ---- queries --------------------------------------------------------------------------------- */

int64_t ask(const char *name, int32_t flags) {
    int64_t query = lport_resolve_open(name, strlen(name), LPORT_ANY, flags);
    cr_assert_gt(query, 0);
    return query;
}

int64_t ask_slow(int32_t flags) {
    static int count;
    char name[32];
    sprintf(name, "slow-%d.test", count++);
    return ask(name, flags);
}

int64_t asked(const char *name, int32_t flags) {
    int64_t query = ask(name, flags);
    cr_assert_eq(lport_resolve_wait(query, lport_clock_after(10 * S)), 0);
    return query;
}

void check_address(int64_t query, int32_t index, const char *text) {
    uint8_t block[LPORT_ADDRESS_SIZE];
    char printed[LPORT_TEXT_SIZE];
    int64_t family = lport_resolve_address(query, index, block);
    cr_assert_eq(family, strchr(text, ':') != NULL ? LPORT_INET6 : LPORT_INET);
    lport_address_print(block, printed, sizeof printed);
    cr_assert_str_eq(printed, text);
    cr_assert_eq(block[2] << 8 | block[3], 0, "a port");
}

void check_name(int64_t query, int32_t index, const char *expected) {
    char name[64];
    cr_assert_eq(lport_resolve_name(query, index, name, sizeof name), (int64_t)strlen(expected));
    cr_assert_str_eq(name, expected);
}

void settle(int64_t (*count)(void), int64_t expected) {
    int64_t deadline = lport_clock_after(10 * S);
    while (count() != expected && lport_clock_now() < deadline) {
        sched_yield();
    }
    cr_assert_eq(count(), expected);
}

int64_t reverse(const char *text) {
    uint8_t block[LPORT_ADDRESS_SIZE];
    cr_assert_gt(lport_address_parse(text, strlen(text), 80, block), 0);
    int64_t query = lport_resolve_reverse(block);
    cr_assert_gt(query, 0);
    cr_assert_eq(lport_resolve_wait(query, lport_clock_after(10 * S)), 0);
    return query;
}
