/* tls_resume - sessions of TLS 1.3 that are resumed (layer 4). Part of tls; stands on os, address,
 * socket, openssl.
 *
 * A handshake that resumes a session shows no certificate: each side takes the other for whom it
 * was then. So a client keeps a session under the name that it expected, in the context that has
 * verified it as it was at that time, and takes it once and within the hour; at the same port, as
 * at another is another server, on whom a ticket is lost. And who verifies clients has each of them
 * show a certificate again. A server remembers what its tickets are for and needs no key that would
 * open them all. */
#include "tls_resume.h"

#include "address/address.h"
#include "base/os.h"
#include "libport.h"
#include "tls_session.h"

#include <stdlib.h>
#include <string.h>

/* ---- a list of what is kept, the latest first ------------------------------------------------ */

void lport_tls_kept_free(struct lport_tls_kept *kept) {
    while (kept != NULL) {
        struct lport_tls_kept *next = kept->next;
        if (kept->resumable != NULL) {
            lport_openssl()->SSL_SESSION_free(kept->resumable);
        }
        free(kept);
        kept = next;
    }
}

struct lport_tls_kept *lport_tls_kept_put(struct lport_tls_kept **list,
                                          struct lport_tls_kept *kept) {
    struct lport_tls_kept **place = list;
    kept->next = *list;
    *list = kept;
    for (size_t count = 0; *place != NULL && count < LPORT_TLS_KEPT_MAX; count++) {
        place = &(*place)->next;
    }
    struct lport_tls_kept *rest = *place;
    *place = NULL;
    return rest;
}

struct lport_tls_kept *lport_tls_kept_take(struct lport_tls_kept **list, const char *name,
                                           int32_t port) {
    struct lport_tls_kept **place = list;
    while (*place != NULL && ((*place)->port != port || strcmp((*place)->name, name) != 0)) {
        place = &(*place)->next;
    }
    struct lport_tls_kept *found = *place;
    if (found != NULL) {
        *place = found->next;
        found->next = NULL;
    }
    return found;
}

/* ---- a client -------------------------------------------------------------------------------- */

static int32_t port_of_peer(int64_t socket) {
    uint8_t peer[LPORT_ADDRESS_SIZE];
    return lport_socket_peer(socket, peer) < 0 ? 0 : (int32_t)lport_address_port(peer);
}

void lport_tls_resume(struct lport_tls_session *session, int64_t socket, const char *name,
                      size_t len) {
    const struct lport_openssl *openssl = lport_openssl();
    int32_t port = port_of_peer(socket);
    struct lport_tls_kept *kept = lport_tls_take_kept(&session->settings, name, port);
    if (kept == NULL) {
        kept = lport_os.calloc(1, sizeof *kept + len + 1);
        if (kept == NULL) {
            return;
        }
        memcpy(kept->name, name, len);
        kept->port = port;
    }
    if (kept->resumable != NULL && lport_clock_now() < kept->until) {
        (void)openssl->SSL_set_session(session->ssl, kept->resumable);
    }
    session->kept = kept;
}

/* What was resumed is not kept a second time: each ticket is for one connection, or whoever sees
 * two of them could tell that they are of the same client (RFC 8446, C.4). */
void lport_tls_keep_resumable(struct lport_tls_session *session) {
    const struct lport_openssl *openssl = lport_openssl();
    struct lport_tls_kept *kept = session->kept;
    struct ssl_session_st *now;
    if (kept == NULL || !session->established || session->failure != 0) {
        return;
    }
    now = openssl->SSL_get_session(session->ssl);
    if (now == NULL || now == kept->resumable || openssl->SSL_SESSION_is_resumable(now) == 0) {
        return;
    }
    if (kept->resumable != NULL) {
        openssl->SSL_SESSION_free(kept->resumable);
    }
    kept->resumable = openssl->SSL_get1_session(session->ssl);
    kept->until = lport_clock_after(LPORT_TLS_KEPT_FOR * INT64_C(1000000000));
    session->kept = NULL;
    lport_tls_keep(&session->settings, kept);
}

/* ---- a server -------------------------------------------------------------------------------- */

/* Asked by OpenSSL of a session that is new. */
static int is_not_resumable(struct ssl_st *ssl, int forward_secret) {
    const struct lport_openssl *openssl = lport_openssl();
    const struct lport_tls_session *session = openssl->SSL_get_ex_data(ssl, 0);
    (void)forward_secret;
    return !session->ticket_due || openssl->SSL_version(ssl) < OPENSSL_TLS1_3;
}

/* The session's own mark is compared: so one that verifies clients resumes none of another that did
 * not, however its context was changed in between. */
void lport_tls_allow_resumption(struct lport_tls_session *session, bool verifies) {
    const struct lport_openssl *openssl = lport_openssl();
    const unsigned char mark = session->settings.resume && !verifies;
    session->ticket_due = mark;
    (void)openssl->SSL_set_session_id_context(session->ssl, &mark, sizeof mark);
    openssl->SSL_set_not_resumable_session_callback(session->ssl, is_not_resumable);
}

void lport_tls_give_ticket(struct lport_tls_session *session) {
    const struct lport_openssl *openssl = lport_openssl();
    if (session->ticket_due && openssl->SSL_in_init(session->ssl) == 0) {
        session->ticket_due = false;
        if (openssl->SSL_version(session->ssl) >= OPENSSL_TLS1_3) {
            (void)openssl->SSL_new_session_ticket(session->ssl);
        }
    }
}
