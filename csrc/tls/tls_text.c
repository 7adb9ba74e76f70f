/* tls_text - what is told of a session of TLS, and of the peer's certificate (layer 4). Part of
 * tls; stands on sink, status, openssl. */
#include "base/sink.h"
#include "base/status.h"
#include "libport.h"
#include "tls_session.h"

#include <time.h>

static const char *version_of(const struct lport_tls_session *session) {
    return lport_openssl()->SSL_get_version(session->ssl);
}

static const char *cipher_of(const struct lport_tls_session *session) {
    const struct lport_openssl *openssl = lport_openssl();
    return openssl->SSL_CIPHER_get_name(openssl->SSL_get_current_cipher(session->ssl));
}

static const char *server_name_of(const struct lport_tls_session *session) {
    return lport_openssl()->SSL_get_servername(session->ssl, 0);
}

static int64_t put_protocol(const struct lport_tls_session *session, char *text, size_t cap) {
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
static int64_t put_of_peer(const struct lport_tls_session *session, int32_t what, char *text,
                           size_t cap) {
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

/* Of what has not been agreed on OpenSSL says what it would like, and of a certificate that the
 * peer has shown and not yet, or in vain, that its key is his, what anybody can show. */
static int64_t put_text(const struct lport_tls_session *session, int32_t what, char *text,
                        size_t cap) {
    const char *found;
    if (what == LPORT_TLS_PROBLEM) {
        return lport_sink_copy(session->problem.text, text, cap);
    }
    if (session->ssl == NULL) {
        return session->failure;
    }
    if (!session->established && what != LPORT_TLS_SERVER_NAME) {
        return lport_sink_copy("", text, cap);
    }
    if (what == LPORT_TLS_RESUMED) {
        bool resumed = lport_openssl()->SSL_session_reused(session->ssl) == 1;
        return lport_sink_copy(resumed ? "yes" : "", text, cap);
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
    if (what < LPORT_TLS_VERSION || what > LPORT_TLS_RESUMED) {
        return lport_status_make(LPORT_INVALID);
    }
    struct lport_tls_session *session = lport_tls_enter_socket(socket, &slot, &status);
    return session == NULL
               ? status
               : lport_tls_leave_socket(session, slot, put_text(session, what, text, cap));
}
