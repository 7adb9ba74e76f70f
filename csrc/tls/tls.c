/* tls - a transport of TLS for the connections of handle (layer 4). Stands on os, status, sink,
 * address, handle, wait, transfer, openssl.
 *
 * OpenSSL reads and writes records through a BIO of ours, which calls transfer as everybody does,
 * so that what breaks the connection stays known. What the system does not take of a record is held
 * here, and no other is begun before it has gone: so OpenSSL never has to be called again with the
 * same octets, and an octet that was taken is on its way, whatever the caller does next.
 *
 * Invariant: a session is used under its lock, and never while anybody waits. */
#include "tls.h"

#include "address/address.h"
#include "base/os.h"
#include "base/sink.h"
#include "base/status.h"
#include "libport.h"
#include "socket/handle.h"
#include "socket/transfer.h"
#include "socket/transport.h"
#include "socket/wait.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HELD_MAX = 1 << 20 }; /* octets of a handshake's longest part, with room to spare */
enum { INET_OCTETS = 4, INET6_OCTETS = 16 };

struct session {
    struct lport_transport transport; /* first */
    pthread_mutex_t lock;
    struct ssl_st *ssl;
    struct lport_slot *slot; /* of the call that is under way, and its descriptor */
    int fd;
    uint8_t *early; /* what was read ahead of TLS: EARLY_LEN octets, EARLY_AT of them taken */
    size_t early_len, early_at;
    uint8_t *held; /* HELD_LEN octets of records that the system is still to take */
    size_t held_len, held_cap;
    int64_t said;    /* what the connection said last: 0: its end, or a status; 1: nothing yet */
    int64_t failure; /* what every call gives from now on, or 0 */
    bool drained;    /* the system had no more, and nothing has been read since */
    bool established;
    bool input_ended;  /* the peer has said so */
    bool output_ended; /* it was told so */
    struct lport_tls_settings settings;
    struct lport_tls_problem problem;
};

/* ---- under OpenSSL: the connection ----------------------------------------------------------- */

static size_t take_early(struct session *session, void *octets, size_t len) {
    size_t left = session->early_len - session->early_at;
    size_t count = len < left ? len : left;
    memcpy(octets, session->early + session->early_at, count);
    session->early_at += count;
    if (session->early_at == session->early_len) {
        free(session->early);
        session->early = NULL;
        session->early_len = session->early_at = 0;
    }
    return count;
}

static int read_record(struct bio_st *bio, char *octets, int len) {
    const struct lport_openssl *openssl = lport_openssl();
    struct session *session = openssl->BIO_get_data(bio);
    openssl->BIO_clear_flags(bio, OPENSSL_BIO_RETRIES);
    if (session->early_len > 0) {
        return (int)take_early(session, octets, (size_t)len);
    }
    int64_t count =
        lport_transfer_receive(session->slot, session->fd, (uint8_t *)octets, (size_t)len, 0);
    if (count > 0) {
        return (int)count;
    }
    if (lport_status_is(count, LPORT_WOULD_BLOCK)) {
        openssl->BIO_set_flags(bio, OPENSSL_BIO_READ | OPENSSL_BIO_RETRY);
    } else {
        session->said = count;
    }
    return count == 0 ? 0 : -1;
}

/* Makes room for LEN octets more; false: there is no memory, or more is held than anything takes
 * but a peer that wants answers and reads none. */
static bool make_room(struct session *session, size_t len) {
    size_t wanted = session->held_len + len;
    if (wanted <= session->held_cap) {
        return true;
    }
    if (wanted > HELD_MAX) {
        return false;
    }
    uint8_t *room = lport_os.calloc(1, wanted);
    if (room == NULL) {
        return false;
    }
    if (session->held_len > 0) {
        memcpy(room, session->held, session->held_len);
    }
    free(session->held);
    session->held = room;
    session->held_cap = wanted;
    return true;
}

static bool hold(struct session *session, const uint8_t *octets, size_t len) {
    if (!make_room(session, len)) {
        session->said = lport_status_make(LPORT_MEMORY_EXHAUSTED);
        return false;
    }
    memcpy(session->held + session->held_len, octets, len);
    session->held_len += len;
    return true;
}

/* Sends what the system takes of the LEN octets at OCTETS: how many, or a status that says why none
 * go. */
static int64_t send_some(struct session *session, const uint8_t *octets, size_t len) {
    ssize_t count = lport_transfer_send(session->fd, octets, len);
    int64_t result = lport_transfer_sent(session->slot, count);
    return lport_status_is(result, LPORT_WOULD_BLOCK) ? 0 : result;
}

/* OpenSSL is told that all of it went, even where none will go any more: what the peer has said
 * before is to be read still, an alert that says why among it. Whoever hands on what is held here
 * is told. */
static int write_record(struct bio_st *bio, const char *octets, int len) {
    const struct lport_openssl *openssl = lport_openssl();
    struct session *session = openssl->BIO_get_data(bio);
    int64_t count = 0;
    openssl->BIO_clear_flags(bio, OPENSSL_BIO_RETRIES);
    if (session->held_len == 0) {
        count = send_some(session, (const uint8_t *)octets, (size_t)len);
        count = count < 0 ? 0 : count;
    }
    bool kept =
        count == len || hold(session, (const uint8_t *)octets + count, (size_t)(len - count));
    return kept ? len : -1;
}

static long control(struct bio_st *bio, int what, long number, void *pointer) {
    (void)bio;
    (void)number;
    (void)pointer;
    return what == OPENSSL_BIO_FLUSH;
}

/* Hands on what is held: 0 once nothing is; LPORT_WOULD_BLOCK; or what broke the connection. */
static int64_t hand_on(struct session *session) {
    while (session->held_len > 0) {
        int64_t count = send_some(session, session->held, session->held_len);
        if (count <= 0) {
            return count < 0 ? count : lport_status_make(LPORT_WOULD_BLOCK);
        }
        session->held_len -= (size_t)count;
        memmove(session->held, session->held + count, session->held_len);
    }
    free(session->held); /* an idle session has no more memory than it needs */
    session->held = NULL;
    session->held_cap = 0;
    return 0;
}

static pthread_once_t method_once = PTHREAD_ONCE_INIT;
static struct bio_method_st *method; /* or NULL: no memory */

static void make_method(void) {
    const struct lport_openssl *openssl = lport_openssl();
    method = openssl->BIO_meth_new(OPENSSL_BIO_SOURCE_SINK, "libport");
    if (method != NULL) {
        openssl->BIO_meth_set_read(method, read_record);
        openssl->BIO_meth_set_write(method, write_record);
        openssl->BIO_meth_set_ctrl(method, control);
    }
}

/* ---- what OpenSSL says ----------------------------------------------------------------------- */

/* Remembers STATUS, with which the session is over. */
static int64_t fail(struct session *session, int64_t status, const char *problem) {
    session->failure = status;
    if (problem != NULL) {
        lport_sink_copy(problem, session->problem.text, sizeof session->problem.text);
    }
    return status;
}

static int64_t fail_by_openssl(struct session *session) {
    const struct lport_openssl *openssl = lport_openssl();
    unsigned long reason = openssl->ERR_peek_error() & OPENSSL_REASON_MASK;
    int64_t status = lport_tls_failed(openssl, &session->problem);
    long verified = openssl->SSL_get_verify_result(session->ssl);
    if (!session->established && reason == OPENSSL_VERIFY_FAILED && verified != OPENSSL_VERIFIED) {
        return fail(session, lport_status_make(LPORT_CERTIFICATE_REFUSED),
                    openssl->X509_verify_cert_error_string(verified));
    }
    return fail(session, status, NULL);
}

/* The status of a call of OpenSSL that gave RESULT; 0: the end of input; 1: a success. */
static int64_t status_of(struct session *session, int result) {
    const struct lport_openssl *openssl = lport_openssl();
    if (result == 1) {
        return 1;
    }
    switch (openssl->SSL_get_error(session->ssl, result)) {
    case OPENSSL_WANT_READ:
        session->drained = true;
        return lport_status_make(LPORT_WOULD_BLOCK);
    case OPENSSL_ZERO_RETURN:
        session->input_ended = true;
        return 0;
    default:
        if (session->said < 0) {
            openssl->ERR_clear_error();
            return fail(session, session->said, NULL);
        }
        if (session->said == 0) {
            openssl->ERR_clear_error();
            return fail(session, lport_status_make(LPORT_CONNECTION_TRUNCATED), NULL);
        }
        return fail_by_openssl(session);
    }
}

/* ---- calls, each with the lock held ---------------------------------------------------------- */

static struct session *session_of(struct lport_transport *transport) {
    return (struct session *)transport;
}

static void enter(struct session *session, struct lport_slot *slot, int fd) {
    pthread_mutex_lock(&session->lock);
    session->slot = slot;
    session->fd = fd;
    lport_openssl()->ERR_clear_error(); /* what others have left in this thread */
}

static int64_t unfit(const struct session *session) {
    if (session->failure != 0) {
        return session->failure;
    }
    return session->established ? 0 : lport_status_make(LPORT_NOT_CONNECTED);
}

static int64_t peek_at_record(struct session *session, uint8_t *octets, size_t len) {
    size_t count = 0;
    int result = lport_openssl()->SSL_peek_ex(session->ssl, octets, len, &count);
    int64_t status = status_of(session, result);
    return status > 0 ? (int64_t)count : status;
}

/* True if a receive finds something. What OpenSSL has read ahead and not looked at may be for TLS
 * itself, or less than a record: so it is looked at. */
static bool is_ready(struct session *session) {
    const struct lport_openssl *openssl = lport_openssl();
    uint8_t octet;
    if (session->early_len > 0 || session->input_ended || session->failure != 0) {
        return true;
    }
    if (session->established && !session->drained && openssl->SSL_pending(session->ssl) == 0 &&
        openssl->SSL_has_pending(session->ssl) == 1) {
        (void)peek_at_record(session, &octet, 1);
    }
    return session->input_ended || session->failure != 0 || openssl->SSL_pending(session->ssl) > 0;
}

/* Who sleeps on what the system has is woken for what the session has now in its place. */
static int64_t leave(struct session *session, int64_t result) {
    struct lport_slot *slot = session->slot;
    bool there = is_ready(session);
    bool before = atomic_exchange(&session->transport.ready, there);
    pthread_mutex_unlock(&session->lock);
    if (there && !before) {
        lport_wait_wake_slot(slot, LPORT_INPUT);
    }
    return result;
}

/* Fills OCTETS with what has been read from the system: how many, or why there are none. */
static int64_t receive_records(struct session *session, uint8_t *octets, size_t len) {
    const struct lport_openssl *openssl = lport_openssl();
    size_t total = 0;
    int64_t status;
    do {
        size_t count = 0;
        int result = openssl->SSL_read_ex(session->ssl, octets + total, len - total, &count);
        total += count;
        status = status_of(session, result);
        session->drained = session->drained && status <= 0;
    } while (status > 0 && total < len && openssl->SSL_has_pending(session->ssl) == 1);
    return total > 0 ? (int64_t)total : status;
}

static int64_t receive(struct lport_transport *transport, struct lport_slot *slot, int fd,
                       uint8_t *octets, size_t len, bool peek) {
    struct session *session = session_of(transport);
    enter(session, slot, fd);
    int64_t result = unfit(session);
    if (result == 0 && !session->input_ended) {
        (void)hand_on(session); /* what breaks here, breaks the read as well */
        result =
            peek ? peek_at_record(session, octets, len) : receive_records(session, octets, len);
    }
    return leave(session, result);
}

/* Records are begun until one is held. */
static int64_t send_records(struct session *session, const uint8_t *octets, size_t len) {
    size_t total = 0;
    int64_t status = 1;
    while (total < len && session->held_len == 0 && status > 0) {
        size_t count = 0;
        int result =
            lport_openssl()->SSL_write_ex(session->ssl, octets + total, len - total, &count);
        total += count;
        status = status_of(session, result);
    }
    return total > 0 ? (int64_t)total : status;
}

static int64_t send_octets(struct lport_transport *transport, struct lport_slot *slot, int fd,
                           const uint8_t *octets, size_t len) {
    struct session *session = session_of(transport);
    enter(session, slot, fd);
    int64_t result = len == 0 ? 0 : unfit(session);
    if (result == 0 && len > 0 && session->output_ended) { /* the end itself may be held still */
        result = lport_status_make(LPORT_OUTPUT_SHUT);
    }
    result = result == 0 ? hand_on(session) : result;
    if (result == 0 && len > 0) {
        result = send_records(session, octets, len);
    }
    return leave(session, result);
}

/* What has come and is for TLS itself is read first: where it were still there when the descriptor
 * is closed, the system would reset the connection. A connection that is broken needs no end. */
static int64_t end(struct lport_transport *transport, struct lport_slot *slot, int fd) {
    struct session *session = session_of(transport);
    uint8_t octet;
    bool deaf = (atomic_load(&slot->flags) & LPORT_STATE_INPUT_SHUT) != 0;
    enter(session, slot, fd);
    int64_t status = unfit(session);
    if (status == 0 && !session->output_ended) {
        if (!session->input_ended && !deaf) {
            (void)peek_at_record(session, &octet, 1);
        }
        if (session->failure == 0) {
            (void)lport_openssl()->SSL_shutdown(session->ssl);
        }
        session->output_ended = true;
    }
    if (lport_status_is(status, LPORT_NOT_CONNECTED) && session->failure == 0) {
        return leave(session, status);
    }
    status = hand_on(session);
    return leave(session, lport_status_is(status, LPORT_WOULD_BLOCK) ? status : 0);
}

/* A session that another thread was just using cannot be used here, nor freed with what it has. */
static void forked(struct lport_transport *transport) {
    struct session *session = session_of(transport);
    if (pthread_mutex_trylock(&session->lock) == 0) {
        pthread_mutex_unlock(&session->lock);
        return;
    }
    pthread_mutex_init(&session->lock, NULL);
    session->failure = lport_status_make(LPORT_CONNECTION_LOST);
    session->ssl = NULL;
    session->early = session->held = NULL;
    session->early_len = session->held_len = session->held_cap = 0;
    atomic_store(&session->transport.ready, true);
}

static void free_session(struct lport_transport *transport) {
    struct session *session = session_of(transport);
    if (session->ssl != NULL) {
        lport_openssl()->SSL_free(session->ssl);
    }
    if (session->settings.context != NULL) {
        lport_openssl()->SSL_CTX_free(session->settings.context);
    }
    pthread_mutex_destroy(&session->lock);
    free(session->early);
    free(session->held);
    free(session);
}

static const struct lport_transport_calls calls = {
    .receive = receive,
    .send = send_octets,
    .end = end,
    .forked = forked,
    .free = free_session,
};

/* ---- making one ------------------------------------------------------------------------------ */

int lport_tls_select_name(struct ssl_st *ssl, const unsigned char **name, unsigned char *name_len,
                          const unsigned char *offered, unsigned int offered_len, void *unused) {
    const struct session *session = lport_openssl()->SSL_get_ex_data(ssl, 0);
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
    const struct session *session = openssl->SSL_get_ex_data(ssl, 0);
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

static bool give_bio(struct session *session) {
    const struct lport_openssl *openssl = lport_openssl();
    pthread_once(&method_once, make_method);
    struct bio_st *bio = method == NULL ? NULL : openssl->BIO_new(method);
    if (bio != NULL) {
        openssl->BIO_set_data(bio, session);
        openssl->BIO_set_init(bio, 1);
        openssl->SSL_set_bio(session->ssl, bio, bio);
    }
    return bio != NULL;
}

/* Whom SESSION verifies, as OpenSSL puts it. */
static int verify_mode(const struct session *session, int32_t side) {
    int32_t verify = session->settings.verify;
    if (verify == LPORT_TLS_VERIFY_NOBODY ||
        (side == LPORT_TLS_SERVER && verify == LPORT_TLS_VERIFY_SERVER)) {
        return 0;
    }
    return verify == LPORT_TLS_VERIFY ? OPENSSL_VERIFY_PEER | OPENSSL_VERIFY_REQUIRED
                                      : OPENSSL_VERIFY_PEER;
}

/* Gives SESSION all that it needs. */
static int64_t equip(struct session *session, int32_t side, const char *name, size_t len) {
    const struct lport_openssl *openssl = lport_openssl();
    session->ssl = openssl->SSL_new(session->settings.context);
    if (session->ssl == NULL || !give_bio(session) ||
        openssl->SSL_set_ex_data(session->ssl, 0, session) != 1) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    openssl->SSL_set_verify(session->ssl, verify_mode(session, side), NULL);
    if (side == LPORT_TLS_SERVER) {
        openssl->SSL_set_accept_state(session->ssl);
        return 0;
    }
    openssl->SSL_set_connect_state(session->ssl);
    return len == 0 || expect(session->ssl, name, len) ? 0
                                                       : lport_status_make(LPORT_ADDRESS_SYNTAX);
}

static bool keep_early(struct session *session, const uint8_t *early, size_t len) {
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
static struct session *make_session(const struct lport_tls_settings *settings) {
    struct session *session = lport_os.calloc(1, sizeof *session);
    if (session == NULL) {
        lport_openssl()->SSL_CTX_free(settings->context);
        return NULL;
    }
    session->transport.calls = &calls;
    pthread_mutex_init(&session->lock, NULL);
    session->settings = *settings;
    session->said = 1;
    return session;
}

/* Puts SESSION on SOCKET. */
static int64_t attach(int64_t socket, struct session *session) {
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
    struct session *session = make_session(&settings);
    if (session == NULL) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    status = keep_early(session, early, early_len) ? equip(session, side, room, len)
                                                   : lport_status_make(LPORT_MEMORY_EXHAUSTED);
    status = status == 0 ? attach(socket, session) : status;
    if (status < 0) {
        lport_openssl()->ERR_clear_error();
        free_session(&session->transport);
    }
    return status;
}

/* ---- the handshake, and what it has led to --------------------------------------------------- */

/* Enters the session of SOCKET and its slot: NULL, and why into STATUS. */
static struct session *enter_session(int64_t socket, struct lport_slot **slot, int64_t *status) {
    int64_t fd = lport_handle_enter(socket, slot);
    if (fd < 0) {
        *status = fd;
        return NULL;
    }
    struct lport_transport *transport = lport_handle_transport(*slot);
    if (transport == NULL || transport->calls != &calls) {
        *status = lport_status_make(LPORT_NOT_CONNECTED);
        lport_handle_leave(*slot);
        return NULL;
    }
    enter(session_of(transport), *slot, (int)fd);
    return session_of(transport);
}

static int64_t leave_session(struct session *session, struct lport_slot *slot, int64_t result) {
    (void)leave(session, result);
    lport_handle_leave(slot);
    return result;
}

/* Does what can be done now: above 0: it is done; LPORT_WOULD_BLOCK; or why it has failed. */
static int64_t shake_hands(struct session *session) {
    if (session->failure != 0 || session->established) {
        return session->failure != 0 ? session->failure : 1;
    }
    int64_t status = status_of(session, lport_openssl()->SSL_do_handshake(session->ssl));
    session->established = status > 0;
    session->drained = session->drained && status <= 0; /* more may have come with its end */
    return status != 0 ? status                         /* the peer has ended what had not begun */
                       : fail(session, lport_status_make(LPORT_CONNECTION_TRUNCATED), NULL);
}

/* What the step waits for; 0: nothing, it is done. Where it has failed, the alert that tells the
 * peer why goes as far as the system takes it. Where nothing goes any more, the peer may have said
 * why in the meantime. */
static int64_t step(struct session *session) {
    int64_t status = shake_hands(session);
    int64_t handed = hand_on(session);
    bool broken = handed < 0 && !lport_status_is(handed, LPORT_WOULD_BLOCK);
    if (broken && lport_status_is(status, LPORT_WOULD_BLOCK)) {
        status = shake_hands(session);
    }
    if (status < 0 && !lport_status_is(status, LPORT_WOULD_BLOCK)) {
        return status;
    }
    if (broken) {
        return fail(session, handed, NULL);
    }
    return handed < 0 ? LPORT_OUTPUT : session->established ? 0 : LPORT_INPUT;
}

int64_t lport_tls_step(int64_t socket) {
    struct lport_slot *slot;
    int64_t status = 0;
    struct session *session = enter_session(socket, &slot, &status);
    return session == NULL ? status : leave_session(session, slot, step(session));
}

/* ---- texts ----------------------------------------------------------------------------------- */

/* Of what has not been agreed on OpenSSL says what it would like. */
static const char *version_of(const struct session *session) {
    return session->established ? lport_openssl()->SSL_get_version(session->ssl) : NULL;
}

static const char *cipher_of(const struct session *session) {
    const struct lport_openssl *openssl = lport_openssl();
    return session->established
               ? openssl->SSL_CIPHER_get_name(openssl->SSL_get_current_cipher(session->ssl))
               : NULL;
}

static const char *server_name_of(const struct session *session) {
    return lport_openssl()->SSL_get_servername(session->ssl, 0);
}

static int64_t put_protocol(const struct session *session, char *text, size_t cap) {
    const unsigned char *name = NULL;
    unsigned int len = 0;
    lport_openssl()->SSL_get0_alpn_selected(session->ssl, &name, &len);
    return lport_sink_copy_octets((const char *)name, len, text, cap);
}

static int64_t put_name(const struct X509_name_st *name, char *text, size_t cap) {
    const struct lport_openssl *openssl = lport_openssl();
    struct bio_st *bio = openssl->BIO_new(openssl->BIO_s_mem());
    struct lport_sink sink = {text, cap, 0};
    char piece[128];
    int count;
    if (bio == NULL) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    openssl->X509_NAME_print_ex(bio, name, 0, OPENSSL_NAME_RFC2253);
    while ((count = openssl->BIO_read(bio, piece, sizeof piece)) > 0) {
        lport_sink_octets(&sink, piece, (size_t)count);
    }
    openssl->BIO_free(bio);
    return (int64_t)sink.len;
}

/* The certificate as DER. */
static int64_t put_certificate(const struct x509_st *certificate, char *text, size_t cap) {
    const struct lport_openssl *openssl = lport_openssl();
    int len = openssl->i2d_X509(certificate, NULL);
    if (len > 0 && (size_t)len <= cap) {
        unsigned char *end = (unsigned char *)text;
        openssl->i2d_X509(certificate, &end);
    }
    return len < 0 ? lport_status_make(LPORT_MEMORY_EXHAUSTED) : len;
}

static int64_t put_end_of_validity(const struct x509_st *certificate, char *text, size_t cap) {
    const struct lport_openssl *openssl = lport_openssl();
    struct tm moment = {0};
    char room[32] = "";
    if (openssl->ASN1_TIME_to_tm(openssl->X509_get0_notAfter(certificate), &moment) == 1) {
        (void)strftime(room, sizeof room, "%Y-%m-%dT%H:%M:%SZ", &moment);
    }
    return lport_sink_copy(room, text, cap);
}

/* What is told of the peer's certificate; of none, an empty text. */
static int64_t put_of_peer(const struct session *session, int32_t what, char *text, size_t cap) {
    const struct lport_openssl *openssl = lport_openssl();
    struct x509_st *certificate = openssl->SSL_get1_peer_certificate(session->ssl);
    int64_t result = 0;
    if (certificate == NULL) {
        return lport_sink_copy("", text, cap);
    }
    switch (what) {
    case LPORT_TLS_SUBJECT:
        result = put_name(openssl->X509_get_subject_name(certificate), text, cap);
        break;
    case LPORT_TLS_ISSUER:
        result = put_name(openssl->X509_get_issuer_name(certificate), text, cap);
        break;
    case LPORT_TLS_VALID_UNTIL:
        result = put_end_of_validity(certificate, text, cap);
        break;
    default:
        result = put_certificate(certificate, text, cap);
    }
    openssl->X509_free(certificate);
    return result;
}

static int64_t put_text(const struct session *session, int32_t what, char *text, size_t cap) {
    const char *found;
    if (what == LPORT_TLS_PROBLEM) {
        return lport_sink_copy(session->problem.text, text, cap);
    }
    if (session->ssl == NULL) {
        return session->failure;
    }
    if (what >= LPORT_TLS_SUBJECT) {
        return put_of_peer(session, what, text, cap);
    }
    if (what == LPORT_TLS_PROTOCOL) {
        return put_protocol(session, text, cap);
    }
    found = what == LPORT_TLS_VERSION  ? version_of(session)
            : what == LPORT_TLS_CIPHER ? cipher_of(session)
                                       : server_name_of(session);
    return lport_sink_copy(found == NULL ? "" : found, text, cap);
}

int64_t lport_tls_text(int64_t socket, int32_t what, char *text, size_t cap) {
    struct lport_slot *slot;
    int64_t status = 0;
    if (what < LPORT_TLS_VERSION || what > LPORT_TLS_CERTIFICATE) {
        return lport_status_make(LPORT_INVALID);
    }
    struct session *session = enter_session(socket, &slot, &status);
    return session == NULL ? status
                           : leave_session(session, slot, put_text(session, what, text, cap));
}
