/* tls - a transport of TLS for the connections of handle (layer 4). Stands on os, status, sink,
 * handle, wait, transfer, openssl.
 *
 * OpenSSL reads and writes records through a BIO of ours, which calls transfer as everybody does,
 * so that what breaks the connection stays known. What the system does not take of a record is held
 * here, and no other is begun before it has gone: so OpenSSL never has to be called again with the
 * same octets, and an octet that was taken is on its way, whatever the caller does next. */
#include "tls_session.h"

#include "base/os.h"
#include "base/sink.h"
#include "base/status.h"
#include "libport.h"
#include "socket/transfer.h"
#include "socket/wait.h"

#include <stdlib.h>
#include <string.h>

enum {
    HELD_MAX = 1 << 20,  /* octets of a handshake's longest part, with room to spare */
    TAKEN_MAX = 1 << 16, /* octets that a call takes from the system */
    TAKEN_MIN = 1 << 12, /* what the fewest of them count for, as each piece is work of its own */
};

/* ---- under OpenSSL: the connection ----------------------------------------------------------- */

static size_t take_early(struct lport_tls_session *session, void *octets, size_t len) {
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

/* What comes may be for TLS itself, of which OpenSSL reads as much as there is, and then more: that
 * a call ends must not be the peer's to say. So it is told in between that there is no more, and
 * who waits for that finds it at once. */
static int64_t take_from_system(struct lport_tls_session *session, uint8_t *octets, size_t len) {
    if (session->taken >= TAKEN_MAX) {
        return lport_status_make(LPORT_WOULD_BLOCK);
    }
    int64_t count = lport_transfer_receive(session->slot, session->fd, octets, len, 0);
    session->taken += count > TAKEN_MIN ? (size_t)count : TAKEN_MIN;
    return count;
}

static int read_record(struct bio_st *bio, char *octets, int len) {
    const struct lport_openssl *openssl = lport_openssl();
    struct lport_tls_session *session = openssl->BIO_get_data(bio);
    openssl->BIO_clear_flags(bio, OPENSSL_BIO_RETRIES);
    if (session->early_len > 0) {
        return (int)take_early(session, octets, (size_t)len);
    }
    int64_t count = take_from_system(session, (uint8_t *)octets, (size_t)len);
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
static bool make_room(struct lport_tls_session *session, size_t len) {
    size_t wanted = session->held_len + len;
    if (wanted <= session->held_cap) {
        return true;
    }
    if (wanted > HELD_MAX) {
        return false;
    }
    size_t cap = 2 * session->held_cap; /* or what comes in small pieces is copied for each */
    cap = cap < wanted ? wanted : cap < HELD_MAX ? cap : HELD_MAX;
    uint8_t *room = lport_os.calloc(1, cap);
    if (room == NULL) {
        return false;
    }
    if (session->held_len > 0) {
        memcpy(room, session->held, session->held_len);
    }
    free(session->held);
    session->held = room;
    session->held_cap = cap;
    return true;
}

static bool hold(struct lport_tls_session *session, const uint8_t *octets, size_t len) {
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
static int64_t send_some(struct lport_tls_session *session, const uint8_t *octets, size_t len) {
    ssize_t count = lport_transfer_send(session->fd, octets, len);
    int64_t result = lport_transfer_sent(session->slot, count);
    return lport_status_is(result, LPORT_WOULD_BLOCK) ? 0 : result;
}

/* OpenSSL is told that all of it went, even where none will go any more: what the peer has said
 * before is to be read still, an alert that says why among it. Whoever hands on what is held here
 * is told. */
static int write_record(struct bio_st *bio, const char *octets, int len) {
    const struct lport_openssl *openssl = lport_openssl();
    struct lport_tls_session *session = openssl->BIO_get_data(bio);
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

int64_t lport_tls_hand_on(struct lport_tls_session *session) {
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

bool lport_tls_give_bio(struct lport_tls_session *session) {
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

/* ---- what OpenSSL says ----------------------------------------------------------------------- */

int64_t lport_tls_fail(struct lport_tls_session *session, int64_t status, const char *problem) {
    session->failure = status;
    if (problem != NULL) {
        lport_sink_copy(problem, session->problem.text, sizeof session->problem.text);
    }
    return status;
}

/* Why the certificate of the peer is not good, where that is what OpenSSL has said last; else NULL.
 * What it has said before is of files that it has looked into for somebody who has certified it. */
static const char *refusal(const struct lport_tls_session *session) {
    const struct lport_openssl *openssl = lport_openssl();
    unsigned long error = openssl->ERR_peek_last_error();
    long verified = openssl->SSL_get_verify_result(session->ssl);
    if (session->established) {
        return NULL;
    }
    if (error == OPENSSL_NO_CERTIFICATE) {
        return "none was shown";
    }
    return error == OPENSSL_VERIFY_FAILED && verified != OPENSSL_VERIFIED
               ? openssl->X509_verify_cert_error_string(verified)
               : NULL;
}

static int64_t fail_by_openssl(struct lport_tls_session *session) {
    const struct lport_openssl *openssl = lport_openssl();
    const char *refused = refusal(session);
    int64_t status = lport_tls_failed(openssl, &session->problem);
    return refused != NULL
               ? lport_tls_fail(session, lport_status_make(LPORT_CERTIFICATE_REFUSED), refused)
               : lport_tls_fail(session, status, NULL);
}

int64_t lport_tls_status_of(struct lport_tls_session *session, int result) {
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
            return lport_tls_fail(session, session->said, NULL);
        }
        if (session->said == 0) {
            openssl->ERR_clear_error();
            return lport_tls_fail(session, lport_status_make(LPORT_CONNECTION_TRUNCATED), NULL);
        }
        return fail_by_openssl(session);
    }
}

/* ---- calls, each with the lock held ---------------------------------------------------------- */

static struct lport_tls_session *session_of(struct lport_transport *transport) {
    return (struct lport_tls_session *)transport;
}

static void enter(struct lport_tls_session *session, struct lport_slot *slot, int fd) {
    pthread_mutex_lock(&session->lock);
    session->slot = slot;
    session->fd = fd;
    session->taken = 0;
    lport_openssl()->ERR_clear_error(); /* what others have left in this thread */
}

static int64_t unfit(const struct lport_tls_session *session) {
    if (session->failure != 0) {
        return session->failure;
    }
    return session->established ? 0 : lport_status_make(LPORT_NOT_CONNECTED);
}

static int64_t peek_at_record(struct lport_tls_session *session, uint8_t *octets, size_t len) {
    size_t count = 0;
    int result = lport_openssl()->SSL_peek_ex(session->ssl, octets, len, &count);
    int64_t status = lport_tls_status_of(session, result);
    return status > 0 ? (int64_t)count : status;
}

/* True if a receive finds something. What OpenSSL has read ahead and not looked at may be for TLS
 * itself, or less than a record: so it is looked at. */
static bool is_ready(struct lport_tls_session *session) {
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

/* True if a part of a message of TLS itself has come: OpenSSL sends nothing before it has the rest.
 */
static bool is_stuck(const struct lport_tls_session *session) {
    return session->established && session->failure == 0 && session->held_len == 0 &&
           lport_openssl()->SSL_in_init(session->ssl) == 1;
}

/* Who sleeps on what the system has is woken for what the session has now in its place. */
static int64_t leave(struct lport_tls_session *session, int64_t result) {
    struct lport_slot *slot = session->slot;
    bool there = is_ready(session);
    lport_tls_keep_resumable(session);
    bool stuck = is_stuck(session);
    bool was_there = atomic_exchange(&session->transport.ready, there);
    bool was_stuck = atomic_exchange(&session->transport.stuck, stuck);
    int32_t news =
        (there && !was_there ? LPORT_INPUT : 0) | (was_stuck && !stuck ? LPORT_OUTPUT : 0);
    pthread_mutex_unlock(&session->lock);
    if (stuck != was_stuck) {
        lport_handle_tell_changed(slot);
    }
    if (news != 0) {
        lport_wait_wake_slot(slot, news);
    }
    return result;
}

/* Fills OCTETS with what has been read from the system: how many, or why there are none. */
static int64_t receive_records(struct lport_tls_session *session, uint8_t *octets, size_t len) {
    const struct lport_openssl *openssl = lport_openssl();
    size_t total = 0;
    int64_t status;
    do {
        size_t count = 0;
        int result = openssl->SSL_read_ex(session->ssl, octets + total, len - total, &count);
        total += count;
        status = lport_tls_status_of(session, result);
        session->drained = session->drained && status <= 0;
    } while (status > 0 && total < len && openssl->SSL_has_pending(session->ssl) == 1);
    return total > 0 ? (int64_t)total : status;
}

static int64_t receive(struct lport_transport *transport, struct lport_slot *slot, int fd,
                       uint8_t *octets, size_t len, bool peek) {
    struct lport_tls_session *session = session_of(transport);
    enter(session, slot, fd);
    int64_t result = unfit(session);
    if (result == 0 && !session->input_ended) {
        (void)lport_tls_hand_on(session); /* what breaks here, breaks the read as well */
        result =
            peek ? peek_at_record(session, octets, len) : receive_records(session, octets, len);
    }
    return leave(session, result);
}

/* Records are begun until one is held. */
static int64_t send_records(struct lport_tls_session *session, const uint8_t *octets, size_t len) {
    size_t total = 0;
    int64_t status = 1;
    lport_tls_give_ticket(session);
    while (total < len && session->held_len == 0 && status > 0) {
        size_t count = 0;
        int result =
            lport_openssl()->SSL_write_ex(session->ssl, octets + total, len - total, &count);
        total += count;
        status = lport_tls_status_of(session, result);
    }
    return total > 0 ? (int64_t)total : status;
}

static int64_t send_octets(struct lport_transport *transport, struct lport_slot *slot, int fd,
                           const uint8_t *octets, size_t len) {
    struct lport_tls_session *session = session_of(transport);
    enter(session, slot, fd);
    int64_t result = len == 0 ? 0 : unfit(session);
    if (result == 0 && len > 0 && session->output_ended) { /* the end itself may be held still */
        result = lport_status_make(LPORT_OUTPUT_SHUT);
    }
    result = result == 0 ? lport_tls_hand_on(session) : result;
    if (result == 0 && len > 0) {
        result = send_records(session, octets, len);
    }
    return leave(session, result);
}

/* What has come and is for TLS itself is read first: where it were still there when the descriptor
 * is closed, the system would reset the connection. A connection that is broken needs no end. */
static int64_t end(struct lport_transport *transport, struct lport_slot *slot, int fd) {
    struct lport_tls_session *session = session_of(transport);
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
    status = lport_tls_hand_on(session);
    return leave(session, lport_status_is(status, LPORT_WOULD_BLOCK) ? status : 0);
}

/* A session that another thread was just using cannot be used here, nor freed with what it has. */
static void forked(struct lport_transport *transport) {
    struct lport_tls_session *session = session_of(transport);
    if (pthread_mutex_trylock(&session->lock) == 0) {
        pthread_mutex_unlock(&session->lock);
        return;
    }
    pthread_mutex_init(&session->lock, NULL);
    session->failure = lport_status_make(LPORT_CONNECTION_LOST);
    session->ssl = NULL;
    session->kept = NULL;
    session->early = session->held = NULL;
    session->early_len = session->held_len = session->held_cap = 0;
    atomic_store(&session->transport.ready, true);
}

void lport_tls_free(struct lport_transport *transport) {
    struct lport_tls_session *session = session_of(transport);
    if (session->ssl != NULL) {
        lport_openssl()->SSL_free(session->ssl);
    }
    if (session->settings.context != NULL) {
        lport_openssl()->SSL_CTX_free(session->settings.context);
    }
    lport_tls_kept_free(session->kept);
    pthread_mutex_destroy(&session->lock);
    free(session->early);
    free(session->held);
    free(session);
}

const struct lport_transport_calls lport_tls_calls = {
    .receive = receive,
    .send = send_octets,
    .end = end,
    .forked = forked,
    .free = lport_tls_free,
};

/* ---- for who has a socket ------------------------------------------------------------------- */

struct lport_tls_session *lport_tls_enter_socket(int64_t socket, struct lport_slot **slot,
                                                 int64_t *status) {
    int64_t fd = lport_handle_enter(socket, slot);
    if (fd < 0) {
        *status = fd;
        return NULL;
    }
    struct lport_transport *transport = lport_handle_transport(*slot);
    if (transport == NULL || transport->calls != &lport_tls_calls) {
        *status = lport_status_make(LPORT_NOT_CONNECTED);
        lport_handle_leave(*slot);
        return NULL;
    }
    enter(session_of(transport), *slot, (int)fd);
    return session_of(transport);
}

int64_t lport_tls_leave_socket(struct lport_tls_session *session, struct lport_slot *slot,
                               int64_t result) {
    (void)leave(session, result);
    lport_handle_leave(slot);
    return result;
}
