/* tls - what contexts and sessions of TLS share (layer 4). The exported part is in libport.h. */
#ifndef LPORT_TLS_H
#define LPORT_TLS_H

#include "openssl.h"
#include "tls_resume.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LPORT_TLS_NAMES_MAX = 255, /* octets of the names of protocols, as the handshake has them */
    LPORT_TLS_NAME_MAX = 255,  /* octets of a host's name */
};

/* What a session takes from its context. */
struct lport_tls_settings {
    int64_t owner;              /* the context */
    struct ssl_ctx_st *context; /* the caller's: SSL_CTX_free */
    uint64_t generation;        /* another one after each change */
    int32_t verify;
    bool resume;
    bool lists; /* each certificate of a chain needs one, of what is revoked */
    uint8_t names_len;
    uint8_t names[LPORT_TLS_NAMES_MAX]; /* each with its length before it */
};

/* [nowait] The settings of CONTEXT into SETTINGS: 0; LPORT_CLOSED: it names none. */
int64_t lport_tls_settings_of(int64_t context, struct lport_tls_settings *settings);

/* [nowait] What the context of SETTINGS keeps for NAME at PORT, which it has no longer then; NULL:
 * nothing, or it has been changed since. The other gives it back; where that cannot be it is freed.
 */
struct lport_tls_kept *lport_tls_take_kept(const struct lport_tls_settings *settings,
                                           const char *name, int32_t port);
void lport_tls_keep(const struct lport_tls_settings *settings, struct lport_tls_kept *kept);

/* What OpenSSL asks a server: the first of the session's names of protocols that the client has
 * too; none where the session has none. */
int lport_tls_select_name(struct ssl_st *ssl, const unsigned char **name, unsigned char *name_len,
                          const unsigned char *offered, unsigned int offered_len, void *unused);

/* And when a client asks a server for a name: SSL takes the certificate of the first context that
 * was offered to the session's and is for that name. */
int lport_tls_select_identity(struct ssl_st *ssl, int *alert, void *unused);

/* [nowait] Does that for NAME, of a session of CONTEXT. */
void lport_tls_show_for(struct ssl_st *ssl, int64_t context, const char *name);

/* A text that says why OpenSSL failed; for good what does not fit is left out. */
struct lport_tls_problem {
    char text[128];
};

/* [nowait] The status of what just failed in this thread, LPORT_TLS_FAILED or that of a number of
 * the system, and its text into PROBLEM. Forgets it. */
int64_t lport_tls_failed(const struct lport_openssl *openssl, struct lport_tls_problem *problem);

#endif
