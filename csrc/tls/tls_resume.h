/* tls_resume - sessions of TLS 1.3 that are resumed: what a client keeps of one for the next, and
 * the tickets that a server gives for that (layer 4). */
#ifndef LPORT_TLS_RESUME_H
#define LPORT_TLS_RESUME_H

#include "openssl.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lport_tls_session;

enum {
    LPORT_TLS_KEPT_MAX = 128,    /* what a context keeps at the most */
    LPORT_TLS_KEPT_FOR = 60 * 60 /* seconds, on either side */
};

/* What a client keeps of a session, or will. */
struct lport_tls_kept {
    struct lport_tls_kept *next;
    struct ssl_session_st *resumable; /* or NULL: nothing yet */
    int64_t until;                    /* after that it is of no use */
    int32_t port;                     /* of the peer; 0: it has none */
    char name[];                      /* whom the client expects there */
};

/* [nowait] Frees KEPT and those after it; none, where it is NULL. */
void lport_tls_kept_free(struct lport_tls_kept *kept);

/* [nowait] Puts KEPT before those of LIST, and returns what is too much, to be freed. */
struct lport_tls_kept *lport_tls_kept_put(struct lport_tls_kept **list,
                                          struct lport_tls_kept *kept);

/* [nowait] Takes the latest for NAME at PORT out of LIST, to be freed: NULL: there is none. */
struct lport_tls_kept *lport_tls_kept_take(struct lport_tls_kept **list, const char *name,
                                           int32_t port);

/* [nowait] The session of a client on SOCKET that expects NAME resumes what its context has kept,
 * if there is something, and will keep what comes of it. Without memory it does neither. */
void lport_tls_resume(struct lport_tls_session *session, int64_t socket, const char *name,
                      size_t len);

/* [nowait] That of a server, which verifies its client or not, may be resumed, or not. */
void lport_tls_allow_resumption(struct lport_tls_session *session, bool verifies);

/* [nowait] Gives the client a ticket with the octets that follow, where that is due: not before
 * them, or a client that never reads would leave it unread, which resets a connection. */
void lport_tls_give_ticket(struct lport_tls_session *session);

/* [nowait] Keeps what the server has given a ticket for by now. */
void lport_tls_keep_resumable(struct lport_tls_session *session);

#endif
