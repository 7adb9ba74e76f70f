/* resolving - what the tests of queries share: a fake of the system's resolver, which knows one
 * host with many names; queries that are made, waited for and looked at. */
#ifndef RESOLVING_H
#define RESOLVING_H

#include "fake_resolver.h"
#include "libport.h"
#include "name/resolve.h"

#include <criterion/criterion.h>
#include <stdint.h>

enum { MOST_THREADS = 256 };

#define MS INT64_C(1000000)
#define S  INT64_C(1000000000)

/* ---- the fake -------------------------------------------------------------------------------- */

extern struct lport_resolver system_resolver; /* what was there before */

/* Puts the fake in place of the system's resolver, before each test. */
void use_fake(void);

/* Every call of the fake waits in it from now on, or not any more: then COUNT calls may go on. */
void shut_gate(void);
void open_gate(int count);

/* ---- queries --------------------------------------------------------------------------------- */

static inline int32_t kind(int64_t status) {
    return lport_status_kind(status);
}

/* A query for NAME; for a name that nobody has asked for; one that has its answer; one for the
 * names of TEXT that has its answer. */
int64_t ask(const char *name, int32_t flags);
int64_t ask_slow(int32_t flags);
int64_t asked(const char *name, int32_t flags);
int64_t reverse(const char *text);

/* Address INDEX of QUERY is TEXT, name INDEX is EXPECTED. */
void check_address(int64_t query, int32_t index, const char *text);
void check_name(int64_t query, int32_t index, const char *expected);

/* Waits, without sleeping, until the resolver's COUNT is what it should be. */
void settle(int64_t (*count)(void), int64_t expected);

#endif
