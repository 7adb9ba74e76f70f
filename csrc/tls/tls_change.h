/* tls_change - how a context of TLS is changed (layer 4). Part of tls.
 *
 * Invariant: a change that fails leaves the settings as they were; what OpenSSL has taken of it by
 * then stays in its context, which is good for nothing but to be closed. */
#ifndef LPORT_TLS_CHANGE_H
#define LPORT_TLS_CHANGE_H

#include "tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What opens a private key. */
struct lport_tls_passphrase {
    const char *text;
    size_t len;
};

/* A change of a context, by what the call was given. */
struct lport_tls_change {
    const char *path, *more; /* or NULL */
    struct lport_tls_passphrase passphrase;
    int32_t a, b;
    const uint8_t *names;
    uint8_t names_len;
    const char **missing; /* what is wrong, to begin the problem's text; or NULL */
};

/* Makes CHANGE of SETTINGS: true, or false where OpenSSL says in its queue what is wrong. */
typedef bool lport_tls_change_function(const struct lport_openssl *openssl,
                                       struct lport_tls_settings *settings,
                                       const struct lport_tls_change *change);

/* [nowait] Makes CHANGE by MAKE of CONTEXT: 0, or a status; of LPORT_TLS_FAILED the context has the
 * problem. */
int64_t lport_tls_change_context(int64_t context, lport_tls_change_function *make,
                                 const struct lport_tls_change *change);

#endif
