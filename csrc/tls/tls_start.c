/* tls_start - how a session of TLS begins: what it is made of, and the handshake (layer 4). Part of
 * tls; stands on os, status, address, handle, openssl. */
#include "address/address.h"
#include "base/os.h"
#include "base/status.h"
#include "libport.h"
#include "tls_session.h"

#include <string.h>

enum { INET_OCTETS = 4, INET6_OCTETS = 16 };

int lport_tls_select_name(struct ssl_st *ssl, const unsigned char **name, unsigned char *name_len,
                          const unsigned char *offered, unsigned int offered_len, void *unused) {
    const struct lport_tls_session *session = lport_openssl()->SSL_get_ex_data(ssl, 0);
    const uint8_t *own = session->settings.names;
    (void)unused;
    for (size_t i = 0; i < session->settings.names_len; i += own[i] + 1u) {
        for (size_t k = 0; k < offered_len; k += offered[k] + 1u) {
            if (own[i] == offered[k] && memcmp(own + i + 1, offered + k + 1, own[i]) == 0) {
                *name = offered + k + 1;
                *name_len = offered[k];
                return OPENSSL_ALPN_OK;
            }
        }
    }
    return session->settings.names_len == 0 ? OPENSSL_ALPN_NONE : OPENSSL_ALPN_FATAL;
}

int lport_tls_select_identity(struct ssl_st *ssl, int *alert, void *unused) {
    const struct lport_openssl *openssl = lport_openssl();
    const struct lport_tls_session *session = openssl->SSL_get_ex_data(ssl, 0);
    const char *name = openssl->SSL_get_servername(ssl, 0);
    (void)alert;
    (void)unused;
    if (name != NULL) {
        lport_tls_show_for(ssl, session->settings.owner, name);
    }
    return OPENSSL_NAME_TAKEN;
}

/* The peer has to be at the address that NAME is a literal of. */
static bool expect_address(struct X509_VERIFY_PARAM_st *param, const char *name, size_t len) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    if (lport_address_parse(name, len, 0, address) < 0) {
        return false;
    }
    lport_address_unmap(address);
    return lport_openssl()->X509_VERIFY_PARAM_set1_ip(
               param, address + LPORT_AT_OCTETS,
               address[LPORT_AT_FAMILY] == LPORT_INET ? INET_OCTETS : INET6_OCTETS) == 1;
}

/* The peer has to be the one of NAME: an address, or a name, which is told to the server too. One
 * that begins with a dot would be any below it. What stands in the subject is no name, RFC 9525, 2.
 */
static bool expect(struct ssl_st *ssl, const char *name, size_t len) {
    const struct lport_openssl *openssl = lport_openssl();
    struct X509_VERIFY_PARAM_st *param = openssl->SSL_get0_param(ssl);
    if (lport_address_is_literal(name, len) == 1) {
        return expect_address(param, name, len);
    }
    openssl->X509_VERIFY_PARAM_set_hostflags(param,
                                             OPENSSL_NO_PARTIAL_WILDCARDS | OPENSSL_NO_SUBJECT);
    return name[0] != '.' && openssl->X509_VERIFY_PARAM_set1_host(param, name, len) == 1 &&
           openssl->SSL_ctrl(ssl, OPENSSL_CTRL_HOST_NAME, 0, (void *)(uintptr_t)name) == 1;
}

/* Whom SESSION verifies, as OpenSSL puts it. */
static int verify_mode(const struct lport_tls_session *session, int32_t side) {
    int32_t verify = session->settings.verify;
    if (verify == LPORT_TLS_VERIFY_NOBODY ||
        (side == LPORT_TLS_SERVER && verify == LPORT_TLS_VERIFY_SERVER)) {
        return 0;
    }
    return verify == LPORT_TLS_VERIFY ? OPENSSL_VERIFY_PEER | OPENSSL_VERIFY_REQUIRED
                                      : OPENSSL_VERIFY_PEER;
}

/* Gives SESSION, which will be on SOCKET, all that it needs. */
static int64_t equip(struct lport_tls_session *session, int64_t socket, int32_t side,
                     const char *name, size_t len) {
    const struct lport_openssl *openssl = lport_openssl();
    session->ssl = openssl->SSL_new(session->settings.context);
    if (session->ssl == NULL || !lport_tls_give_bio(session) ||
        openssl->SSL_set_ex_data(session->ssl, 0, session) != 1) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    int mode = verify_mode(session, side);
    openssl->SSL_set_verify(session->ssl, mode, NULL);
    /* Who is trusted is so at once, and not only where the chain goes on to one without an issuer.
     * But lists are of issuers, and where the chain stops short that of the last is not found. */
    openssl->X509_VERIFY_PARAM_set_flags(
        openssl->SSL_get0_param(session->ssl),
        session->settings.lists ? OPENSSL_LISTS | OPENSSL_LISTS_OF_ALL : OPENSSL_PARTIAL_CHAIN);
    if (side == LPORT_TLS_SERVER) {
        openssl->SSL_set_accept_state(session->ssl);
        lport_tls_allow_resumption(session, mode != 0);
        return 0;
    }
    openssl->SSL_set_connect_state(session->ssl);
    if (len > 0 && !expect(session->ssl, name, len)) {
        return lport_status_make(LPORT_ADDRESS_SYNTAX);
    }
    if (len > 0 && session->settings.resume) {
        lport_tls_resume(session, socket, name, len);
    }
    return 0;
}

static bool keep_early(struct lport_tls_session *session, const uint8_t *early, size_t len) {
    if (len > 0) {
        session->early = lport_os.calloc(1, len);
        if (session->early == NULL) {
            return false;
        }
        memcpy(session->early, early, len);
        session->early_len = len;
        atomic_store(&session->transport.ready, true);
    }
    return true;
}

/* A session of SETTINGS, whose context is its own from now on, or NULL. */
static struct lport_tls_session *make_session(const struct lport_tls_settings *settings) {
    struct lport_tls_session *session = lport_os.calloc(1, sizeof *session);
    if (session == NULL) {
        lport_openssl()->SSL_CTX_free(settings->context);
        return NULL;
    }
    session->transport.calls = &lport_tls_calls;
    pthread_mutex_init(&session->lock, NULL);
    session->settings = *settings;
    session->said = 1;
    return session;
}

/* Puts SESSION on SOCKET. */
static int64_t attach(int64_t socket, struct lport_tls_session *session) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t status = slot->kind != LPORT_STREAM ? lport_status_make(LPORT_NOT_SUPPORTED) : 0;
    if ((atomic_load(&slot->flags) & LPORT_STATE_LISTENING) != 0) {
        status = lport_status_make(LPORT_NOT_CONNECTED);
    }
    if (status == 0 && !lport_handle_attach(slot, &session->transport)) {
        status = lport_status_make(LPORT_INVALID);
    }
    lport_handle_leave(slot);
    return status;
}

int64_t lport_tls_start(int64_t socket, int64_t context, int32_t side, const char *name, size_t len,
                        const uint8_t *early, size_t early_len) {
    char room[LPORT_TLS_NAME_MAX + 1] = "";
    struct lport_tls_settings settings;
    if ((side != LPORT_TLS_CLIENT && side != LPORT_TLS_SERVER) || len > LPORT_TLS_NAME_MAX ||
        (len > 0 && memchr(name, '\0', len) != NULL)) {
        return lport_status_make(LPORT_INVALID);
    }
    if (len > 0) {
        memcpy(room, name, len);
    }
    int64_t status = lport_tls_settings_of(context, &settings);
    if (status < 0) {
        return status;
    }
    struct lport_tls_session *session = make_session(&settings);
    if (session == NULL) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    status = keep_early(session, early, early_len) ? equip(session, socket, side, room, len)
                                                   : lport_status_make(LPORT_MEMORY_EXHAUSTED);
    status = status == 0 ? attach(socket, session) : status;
    if (status < 0) {
        lport_openssl()->ERR_clear_error();
        lport_tls_free(&session->transport);
    }
    return status;
}

/* ---- the handshake --------------------------------------------------------------------------- */

/* Does what can be done now: above 0: it is done; LPORT_WOULD_BLOCK; or why it has failed. */
static int64_t shake_hands(struct lport_tls_session *session) {
    if (session->failure != 0 || session->established) {
        return session->failure != 0 ? session->failure : 1;
    }
    int64_t status = lport_tls_status_of(session, lport_openssl()->SSL_do_handshake(session->ssl));
    session->established = status > 0;
    session->drained = session->drained && status <= 0; /* more may have come with its end */
    return status != 0
               ? status /* the peer has ended what had not begun */
               : lport_tls_fail(session, lport_status_make(LPORT_CONNECTION_TRUNCATED), NULL);
}

/* What the step waits for; 0: nothing, it is done. Where it has failed, the alert that tells the
 * peer why goes as far as the system takes it. Where nothing goes any more, the peer may have said
 * why in the meantime. */
static int64_t step(struct lport_tls_session *session) {
    int64_t status = shake_hands(session);
    int64_t handed = lport_tls_hand_on(session);
    bool broken = handed < 0 && !lport_status_is(handed, LPORT_WOULD_BLOCK);
    if (broken && lport_status_is(status, LPORT_WOULD_BLOCK)) {
        status = shake_hands(session);
    }
    if (status < 0 && !lport_status_is(status, LPORT_WOULD_BLOCK)) {
        return status;
    }
    if (broken) {
        return lport_tls_fail(session, handed, NULL);
    }
    return handed < 0 ? LPORT_OUTPUT : session->established ? 0 : LPORT_INPUT;
}

int64_t lport_tls_step(int64_t socket) {
    struct lport_slot *slot;
    int64_t status = 0;
    struct lport_tls_session *session = lport_tls_enter_socket(socket, &slot, &status);
    return session == NULL ? status : lport_tls_leave_socket(session, slot, step(session));
}
