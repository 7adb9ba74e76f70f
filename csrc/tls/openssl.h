/* openssl - the functions of OpenSSL that tls uses, found when the first of them is wanted
 * (layer 4).
 *
 * The library is loaded then, by name: so libport is built where there are no headers of OpenSSL,
 * and runs, without TLS, where there is no OpenSSL. Invariant: each row has the type that OpenSSL's
 * own headers give it, and each number is theirs; tests/c/tls/openssl_test.c compares them. */
#ifndef LPORT_OPENSSL_H
#define LPORT_OPENSSL_H

#include <stddef.h>
#include <stdint.h>

/* Not spelled as OpenSSL does, so that its headers can be included beside this one. */
struct ssl_st;
struct ssl_ctx_st;
struct ssl_session_st;
struct ssl_method_st;
struct ssl_cipher_st;
struct bio_st;
struct bio_method_st;
struct x509_st;
struct X509_name_st;
struct X509_VERIFY_PARAM_st;
struct x509_store_st;
struct x509_store_ctx_st;
struct x509_lookup_st;
struct x509_lookup_method_st;
struct asn1_string_st;
struct evp_pkey_st;
struct stack_st_X509;
struct stack_st_X509_NAME;
struct ossl_init_settings_st;
struct tm;

typedef int lport_openssl_verify(int, struct x509_store_ctx_st *);
typedef int lport_openssl_password(char *, int, int, void *);
typedef int lport_openssl_not_resumable(struct ssl_st *, int);
typedef int lport_openssl_select(struct ssl_st *, const unsigned char **, unsigned char *,
                                 const unsigned char *, unsigned int, void *);

/* ROW(result, name, arguments) */
/* clang-format off */
#define LPORT_OPENSSL_ROWS(ROW)                                                                    \
    ROW(int, OPENSSL_init_ssl, (uint64_t, const struct ossl_init_settings_st *))                   \
    ROW(unsigned long, ERR_get_error, (void))                                                      \
    ROW(unsigned long, ERR_peek_error, (void))                                                     \
    ROW(unsigned long, ERR_peek_last_error, (void))                                                \
    ROW(void, ERR_clear_error, (void))                                                             \
    ROW(const char *, ERR_reason_error_string, (unsigned long))                                    \
    ROW(struct bio_method_st *, BIO_meth_new, (int, const char *))                                 \
    ROW(int, BIO_meth_set_read, (struct bio_method_st *, int (*)(struct bio_st *, char *, int)))   \
    ROW(int, BIO_meth_set_write,                                                                   \
        (struct bio_method_st *, int (*)(struct bio_st *, const char *, int)))                     \
    ROW(int, BIO_meth_set_ctrl,                                                                    \
        (struct bio_method_st *, long (*)(struct bio_st *, int, long, void *)))                    \
    ROW(struct bio_st *, BIO_new, (const struct bio_method_st *))                                  \
    ROW(int, BIO_free, (struct bio_st *))                                                          \
    ROW(void, BIO_set_data, (struct bio_st *, void *))                                             \
    ROW(void *, BIO_get_data, (struct bio_st *))                                                   \
    ROW(void, BIO_set_init, (struct bio_st *, int))                                                \
    ROW(void, BIO_set_flags, (struct bio_st *, int))                                               \
    ROW(void, BIO_clear_flags, (struct bio_st *, int))                                             \
    ROW(const struct ssl_method_st *, TLS_method, (void))                                          \
    ROW(struct ssl_ctx_st *, SSL_CTX_new, (const struct ssl_method_st *))                          \
    ROW(void, SSL_CTX_free, (struct ssl_ctx_st *))                                                 \
    ROW(int, SSL_CTX_up_ref, (struct ssl_ctx_st *))                                                \
    ROW(long, SSL_CTX_ctrl, (struct ssl_ctx_st *, int, long, void *))                              \
    ROW(long, SSL_CTX_callback_ctrl, (struct ssl_ctx_st *, int, void (*)(void))) \
    ROW(uint64_t, SSL_CTX_set_options, (struct ssl_ctx_st *, uint64_t))                            \
    ROW(void, SSL_CTX_set_default_read_buffer_len, (struct ssl_ctx_st *, size_t)) \
    ROW(int, SSL_CTX_set_num_tickets, (struct ssl_ctx_st *, size_t))                               \
    ROW(long, SSL_CTX_set_timeout, (struct ssl_ctx_st *, long))                                    \
    ROW(void, SSL_CTX_set_default_passwd_cb, (struct ssl_ctx_st *, lport_openssl_password *))      \
    ROW(void, SSL_CTX_set_default_passwd_cb_userdata, (struct ssl_ctx_st *, void *))               \
    ROW(int, SSL_CTX_set_default_verify_paths, (struct ssl_ctx_st *))                              \
    ROW(int, SSL_CTX_load_verify_file, (struct ssl_ctx_st *, const char *))                        \
    ROW(int, SSL_CTX_load_verify_dir, (struct ssl_ctx_st *, const char *))                         \
    ROW(struct x509_store_st *, SSL_CTX_get_cert_store, (const struct ssl_ctx_st *))               \
    ROW(struct x509_lookup_st *, X509_STORE_add_lookup,                                            \
        (struct x509_store_st *, struct x509_lookup_method_st *))                                  \
    ROW(struct x509_lookup_method_st *, X509_LOOKUP_file, (void))                                  \
    ROW(int, X509_load_crl_file, (struct x509_lookup_st *, const char *, int))                     \
    ROW(struct stack_st_X509_NAME *, SSL_load_client_CA_file, (const char *))                      \
    ROW(struct stack_st_X509_NAME *, SSL_CTX_get_client_CA_list, (const struct ssl_ctx_st *))      \
    ROW(int, SSL_add_file_cert_subjects_to_stack, (struct stack_st_X509_NAME *, const char *))     \
    ROW(void, SSL_CTX_set_client_CA_list, (struct ssl_ctx_st *, struct stack_st_X509_NAME *))      \
    ROW(int, SSL_CTX_use_certificate_chain_file, (struct ssl_ctx_st *, const char *))              \
    ROW(int, SSL_CTX_use_PrivateKey_file, (struct ssl_ctx_st *, const char *, int))                \
    ROW(int, SSL_CTX_check_private_key, (const struct ssl_ctx_st *))                               \
    ROW(int, SSL_CTX_set_alpn_protos,                                                              \
        (struct ssl_ctx_st *, const unsigned char *, unsigned int))                                \
    ROW(void, SSL_CTX_set_alpn_select_cb, (struct ssl_ctx_st *, lport_openssl_select *, void *))   \
    ROW(struct x509_st *, SSL_CTX_get0_certificate, (const struct ssl_ctx_st *))                   \
    ROW(struct evp_pkey_st *, SSL_CTX_get0_privatekey, (const struct ssl_ctx_st *))                \
    ROW(struct ssl_st *, SSL_new, (struct ssl_ctx_st *))                                           \
    ROW(void, SSL_free, (struct ssl_st *))                                                         \
    ROW(void, SSL_set_bio, (struct ssl_st *, struct bio_st *, struct bio_st *))                    \
    ROW(void, SSL_certs_clear, (struct ssl_st *))                                                  \
    ROW(int, SSL_use_cert_and_key,                                                                 \
        (struct ssl_st *, struct x509_st *, struct evp_pkey_st *, struct stack_st_X509 *, int))    \
    ROW(void, SSL_set_connect_state, (struct ssl_st *))                                            \
    ROW(void, SSL_set_accept_state, (struct ssl_st *))                                             \
    ROW(void, SSL_set_verify, (struct ssl_st *, int, lport_openssl_verify *))                       \
    ROW(long, SSL_ctrl, (struct ssl_st *, int, long, void *))                                      \
    ROW(int, SSL_set_ex_data, (struct ssl_st *, int, void *))                                      \
    ROW(void *, SSL_get_ex_data, (const struct ssl_st *, int))                                     \
    ROW(struct X509_VERIFY_PARAM_st *, SSL_get0_param, (struct ssl_st *))                          \
    ROW(int, X509_VERIFY_PARAM_set1_host, (struct X509_VERIFY_PARAM_st *, const char *, size_t))   \
    ROW(int, X509_VERIFY_PARAM_set1_ip,                                                            \
        (struct X509_VERIFY_PARAM_st *, const unsigned char *, size_t))                            \
    ROW(int, X509_VERIFY_PARAM_set_flags, (struct X509_VERIFY_PARAM_st *, unsigned long))          \
    ROW(void, X509_VERIFY_PARAM_set_hostflags, (struct X509_VERIFY_PARAM_st *, unsigned int))      \
    ROW(int, SSL_set_session, (struct ssl_st *, struct ssl_session_st *))                          \
    ROW(struct ssl_session_st *, SSL_get_session, (const struct ssl_st *))                         \
    ROW(struct ssl_session_st *, SSL_get1_session, (struct ssl_st *))                              \
    ROW(int, SSL_SESSION_is_resumable, (const struct ssl_session_st *))                            \
    ROW(void, SSL_SESSION_free, (struct ssl_session_st *))                                         \
    ROW(int, SSL_session_reused, (const struct ssl_st *))                                          \
    ROW(int, SSL_set_session_id_context,                                                           \
        (struct ssl_st *, const unsigned char *, unsigned int))                                    \
    ROW(void, SSL_set_not_resumable_session_callback,                                              \
        (struct ssl_st *, lport_openssl_not_resumable *))                                          \
    ROW(int, SSL_new_session_ticket, (struct ssl_st *))                                            \
    ROW(int, SSL_version, (const struct ssl_st *))                                                 \
    ROW(int, SSL_do_handshake, (struct ssl_st *))                                                  \
    ROW(int, SSL_in_init, (const struct ssl_st *))                                                 \
    ROW(int, SSL_read_ex, (struct ssl_st *, void *, size_t, size_t *))                             \
    ROW(int, SSL_peek_ex, (struct ssl_st *, void *, size_t, size_t *))                             \
    ROW(int, SSL_write_ex, (struct ssl_st *, const void *, size_t, size_t *))                      \
    ROW(int, SSL_pending, (const struct ssl_st *))                                                 \
    ROW(int, SSL_has_pending, (const struct ssl_st *))                                                 \
    ROW(int, SSL_shutdown, (struct ssl_st *))                                                      \
    ROW(int, SSL_get_error, (const struct ssl_st *, int))                                          \
    ROW(long, SSL_get_verify_result, (const struct ssl_st *))                                      \
    ROW(const char *, X509_verify_cert_error_string, (long))                                       \
    ROW(const char *, SSL_get_version, (const struct ssl_st *))                                    \
    ROW(const struct ssl_cipher_st *, SSL_get_current_cipher, (const struct ssl_st *))             \
    ROW(const char *, SSL_CIPHER_get_name, (const struct ssl_cipher_st *))                         \
    ROW(void, SSL_get0_alpn_selected,                                                              \
        (const struct ssl_st *, const unsigned char **, unsigned int *))                           \
    ROW(const char *, SSL_get_servername, (const struct ssl_st *, const int))                      \
    ROW(struct x509_st *, SSL_get1_peer_certificate, (const struct ssl_st *))                      \
    ROW(int, X509_check_host, (struct x509_st *, const char *, size_t, unsigned int, char **)) \
    ROW(void, X509_free, (struct x509_st *))                                                       \
    ROW(struct X509_name_st *, X509_get_subject_name, (const struct x509_st *))                    \
    ROW(struct X509_name_st *, X509_get_issuer_name, (const struct x509_st *))                     \
    ROW(int, X509_NAME_print_ex,                                                                   \
        (struct bio_st *, const struct X509_name_st *, int, unsigned long))                        \
    ROW(const struct bio_method_st *, BIO_s_mem, (void))                                           \
    ROW(int, BIO_read, (struct bio_st *, void *, int))                                             \
    ROW(const struct asn1_string_st *, X509_get0_notAfter, (const struct x509_st *))               \
    ROW(int, ASN1_TIME_to_tm, (const struct asn1_string_st *, struct tm *))                        \
    ROW(int, i2d_X509, (const struct x509_st *, unsigned char **))
/* clang-format on */

/* Numbers of OpenSSL's headers. */
enum {
    OPENSSL_NO_ATEXIT = 0x80000,
    OPENSSL_BIO_SOURCE_SINK = 0x400, /* BIO_TYPE_SOURCE_SINK */
    OPENSSL_BIO_READ = 1,            /* BIO_FLAGS_ */
    OPENSSL_BIO_RETRY = 8,           /* BIO_FLAGS_SHOULD_RETRY */
    OPENSSL_BIO_RETRIES = 15,        /* BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY */
    OPENSSL_BIO_FLUSH = 11,          /* BIO_CTRL_FLUSH */
    OPENSSL_CTRL_MODE = 33,
    OPENSSL_CTRL_READ_AHEAD = 41,
    OPENSSL_CTRL_SESSIONS = 42,      /* SSL_CTRL_SET_SESS_CACHE_SIZE */
    OPENSSL_CTRL_SESSION_CACHE = 44, /* SSL_CTRL_SET_SESS_CACHE_MODE */
    OPENSSL_CTRL_NAME_ASKED = 53,    /* SSL_CTRL_SET_TLSEXT_SERVERNAME_CB */
    OPENSSL_CTRL_HOST_NAME = 55,     /* SSL_CTRL_SET_TLSEXT_HOSTNAME */
    OPENSSL_CTRL_CHAIN = 115,        /* SSL_CTRL_GET_CHAIN_CERTS */
    OPENSSL_CTRL_MIN_VERSION = 123,
    OPENSSL_CTRL_MAX_VERSION = 124,
    OPENSSL_PARTIAL_WRITE = 1,    /* SSL_MODE_ENABLE_PARTIAL_WRITE */
    OPENSSL_MOVING_BUFFER = 2,    /* SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER */
    OPENSSL_NO_AUTO_CHAIN = 8,    /* SSL_MODE_NO_AUTO_CHAIN */
    OPENSSL_RELEASE_BUFFERS = 16, /* SSL_MODE_RELEASE_BUFFERS */
    OPENSSL_SERVERS_SESSIONS = 2, /* SSL_SESS_CACHE_SERVER */
    OPENSSL_TLS1_2 = 0x303,
    OPENSSL_TLS1_3 = 0x304,
    OPENSSL_VERIFY_PEER = 1,
    OPENSSL_VERIFY_REQUIRED = 2, /* SSL_VERIFY_FAIL_IF_NO_PEER_CERT */
    OPENSSL_PEM = 1,             /* SSL_FILETYPE_PEM */
    OPENSSL_WANT_READ = 2,       /* SSL_ERROR_ */
    OPENSSL_ZERO_RETURN = 6,
    OPENSSL_VERIFIED = 0,             /* X509_V_OK */
    OPENSSL_KEY_MISMATCH = 116,       /* X509_R_KEY_VALUES_MISMATCH */
    OPENSSL_NO_PARTIAL_WILDCARDS = 4, /* X509_CHECK_FLAG_ */
    OPENSSL_NO_SUBJECT = 32,          /* X509_CHECK_FLAG_NEVER_CHECK_SUBJECT */
    OPENSSL_PARTIAL_CHAIN = 0x80000,  /* X509_V_FLAG_PARTIAL_CHAIN */
    OPENSSL_LISTS = 4,                /* X509_V_FLAG_CRL_CHECK */
    OPENSSL_LISTS_OF_ALL = 8,         /* X509_V_FLAG_CRL_CHECK_ALL */
    OPENSSL_NAME_TAKEN = 0,           /* SSL_TLSEXT_ERR_OK */
    OPENSSL_ALPN_OK = 0,              /* SSL_TLSEXT_ERR_ */
    OPENSSL_ALPN_FATAL = 2,           /* SSL_TLSEXT_ERR_ALERT_FATAL */
    OPENSSL_ALPN_NONE = 3,            /* SSL_TLSEXT_ERR_NOACK */
    OPENSSL_NAME_RFC2253 = 0x1110317, /* XN_FLAG_RFC2253 */
    OPENSSL_REASON_MASK = 0x7fffff,   /* ERR_REASON_MASK */
    OPENSSL_IN_SSL = 20 << 23,        /* what ERR_PACK makes of ERR_LIB_SSL, and of SSL_R_: */
    OPENSSL_VERIFY_FAILED = OPENSSL_IN_SSL | 134,  /* CERTIFICATE_VERIFY_FAILED */
    OPENSSL_NO_CERTIFICATE = OPENSSL_IN_SSL | 199, /* PEER_DID_NOT_RETURN_A_CERTIFICATE */
};
#define OPENSSL_NO_TICKET        (UINT64_C(1) << 14) /* SSL_OP_ */
#define OPENSSL_NO_RENEGOTIATION (UINT64_C(1) << 30)

/* NOLINTNEXTLINE(bugprone-macro-parentheses): types cannot be */
#define LPORT_OPENSSL_MEMBER(result, name, arguments) result(*name) arguments;
struct lport_openssl {
    LPORT_OPENSSL_ROWS(LPORT_OPENSSL_MEMBER)
};

/* [nowait] The functions, or NULL with errno: the library is not to be had. 0 is no reason of this
 * moment. A call loads it, until one has. */
const struct lport_openssl *lport_openssl(void);

/* What is loaded: a name for dlopen(3). A test may change it before the first call. */
extern const char *lport_openssl_library;

#endif
