/* openssl: the table says of OpenSSL what its own headers say, and TLS is not there where OpenSSL
 * is not. */
#include "support.h"
#include "tls/openssl.h"

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <sys/resource.h>

TestSuite(openssl, .timeout = 20);

/* Compared while this is compiled: nothing of it runs. */
#define IS_OF_THE_SAME_TYPE(result, name, arguments)                                               \
    _Static_assert(__builtin_types_compatible_p(                                                   \
                       __typeof__(name), __typeof__(*((struct lport_openssl *)NULL)->name)),       \
                   #name);
LPORT_OPENSSL_ROWS(IS_OF_THE_SAME_TYPE)

#define IS_THE_NUMBER(own, theirs) _Static_assert((own) == (theirs), #own)
IS_THE_NUMBER(OPENSSL_NO_ATEXIT, OPENSSL_INIT_NO_ATEXIT);
IS_THE_NUMBER(OPENSSL_BIO_SOURCE_SINK, BIO_TYPE_SOURCE_SINK);
IS_THE_NUMBER(OPENSSL_BIO_READ, BIO_FLAGS_READ);
IS_THE_NUMBER(OPENSSL_BIO_RETRY, BIO_FLAGS_SHOULD_RETRY);
IS_THE_NUMBER(OPENSSL_BIO_RETRIES, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
IS_THE_NUMBER(OPENSSL_BIO_FLUSH, BIO_CTRL_FLUSH);
IS_THE_NUMBER(OPENSSL_CTRL_MODE, SSL_CTRL_MODE);
IS_THE_NUMBER(OPENSSL_CTRL_SESSION_CACHE, SSL_CTRL_SET_SESS_CACHE_MODE);
IS_THE_NUMBER(OPENSSL_CTRL_SESSIONS, SSL_CTRL_SET_SESS_CACHE_SIZE);
IS_THE_NUMBER(OPENSSL_SERVERS_SESSIONS, SSL_SESS_CACHE_SERVER);
IS_THE_NUMBER(OPENSSL_CTRL_READ_AHEAD, SSL_CTRL_SET_READ_AHEAD);
IS_THE_NUMBER(OPENSSL_CTRL_NAME_ASKED, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB);
IS_THE_NUMBER(OPENSSL_NAME_TAKEN, SSL_TLSEXT_ERR_OK);
IS_THE_NUMBER(OPENSSL_KEY_MISMATCH, X509_R_KEY_VALUES_MISMATCH);
IS_THE_NUMBER(OPENSSL_CTRL_HOST_NAME, SSL_CTRL_SET_TLSEXT_HOSTNAME);
IS_THE_NUMBER(OPENSSL_CTRL_CHAIN, SSL_CTRL_GET_CHAIN_CERTS);
IS_THE_NUMBER(OPENSSL_NO_AUTO_CHAIN, SSL_MODE_NO_AUTO_CHAIN);
IS_THE_NUMBER(OPENSSL_CTRL_MIN_VERSION, SSL_CTRL_SET_MIN_PROTO_VERSION);
IS_THE_NUMBER(OPENSSL_CTRL_MAX_VERSION, SSL_CTRL_SET_MAX_PROTO_VERSION);
IS_THE_NUMBER(OPENSSL_PARTIAL_WRITE, SSL_MODE_ENABLE_PARTIAL_WRITE);
IS_THE_NUMBER(OPENSSL_MOVING_BUFFER, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
IS_THE_NUMBER(OPENSSL_RELEASE_BUFFERS, SSL_MODE_RELEASE_BUFFERS);
IS_THE_NUMBER(OPENSSL_TLS1_2, TLS1_2_VERSION);
IS_THE_NUMBER(OPENSSL_TLS1_3, TLS1_3_VERSION);
IS_THE_NUMBER(OPENSSL_VERIFY_PEER, SSL_VERIFY_PEER);
IS_THE_NUMBER(OPENSSL_VERIFY_REQUIRED, SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
IS_THE_NUMBER(OPENSSL_PEM, SSL_FILETYPE_PEM);
IS_THE_NUMBER(OPENSSL_WANT_READ, SSL_ERROR_WANT_READ);
IS_THE_NUMBER(OPENSSL_ZERO_RETURN, SSL_ERROR_ZERO_RETURN);
IS_THE_NUMBER(OPENSSL_VERIFIED, X509_V_OK);
IS_THE_NUMBER(OPENSSL_VERIFY_FAILED, ERR_PACK(ERR_LIB_SSL, 0, SSL_R_CERTIFICATE_VERIFY_FAILED));
IS_THE_NUMBER(OPENSSL_NO_CERTIFICATE,
              ERR_PACK(ERR_LIB_SSL, 0, SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE));
IS_THE_NUMBER(OPENSSL_NO_PARTIAL_WILDCARDS, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
IS_THE_NUMBER(OPENSSL_NO_SUBJECT, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
IS_THE_NUMBER(OPENSSL_PARTIAL_CHAIN, X509_V_FLAG_PARTIAL_CHAIN);
IS_THE_NUMBER(OPENSSL_NO_TICKET, SSL_OP_NO_TICKET);
IS_THE_NUMBER(OPENSSL_ALPN_OK, SSL_TLSEXT_ERR_OK);
IS_THE_NUMBER(OPENSSL_ALPN_FATAL, SSL_TLSEXT_ERR_ALERT_FATAL);
IS_THE_NUMBER(OPENSSL_ALPN_NONE, SSL_TLSEXT_ERR_NOACK);
IS_THE_NUMBER(OPENSSL_NAME_RFC2253, XN_FLAG_RFC2253);
IS_THE_NUMBER(OPENSSL_REASON_MASK, ERR_REASON_MASK);
IS_THE_NUMBER(OPENSSL_NO_RENEGOTIATION, SSL_OP_NO_RENEGOTIATION);

/* ---- where there is no OpenSSL --------------------------------------------------------------- */

static void assert_there_is_no_tls(const char *library) {
    int64_t ends[2];
    lport_openssl_library = library;
    cr_assert_null(lport_openssl());
    for (int i = 0; i < 2; i++) {
        assert_kind(lport_tls_context_open(), LPORT_NOT_SUPPORTED);
    }
    make_connection(LPORT_INET, ends);
    assert_kind(lport_tls_start(ends[0], 1, LPORT_TLS_CLIENT, NULL, 0, NULL, 0), LPORT_CLOSED);
    assert_kind(lport_tls_step(ends[0]), LPORT_NOT_CONNECTED);
    assert_kind(lport_tls_context_verify(1, LPORT_TLS_VERIFY), LPORT_CLOSED);
    assert_kind(lport_tls_context_close(1), LPORT_CLOSED);
    cr_assert_eq(send_all(ends[0], (const uint8_t *)"plain", 5, soon()), 5);
    uint8_t octets[5];
    cr_assert_eq(receive_all(ends[1], octets, 5, soon()), 5);
    cr_assert_arr_eq(octets, "plain", 5);
    close_both(ends);
}

SOCKET_TEST(openssl, a_library_that_is_not_there_is_no_tls_and_nothing_else) {
    assert_there_is_no_tls("libssl-of-nobody.so.99");
}

SOCKET_TEST(openssl, a_library_that_lacks_a_function_is_no_tls_and_nothing_else) {
    assert_there_is_no_tls("libc.so.6");
}

SOCKET_TEST(openssl, descriptors_that_are_used_up_are_no_lack_of_a_library) {
    struct rlimit before, none;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    int64_t context = lport_tls_context_open();
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_kind(context, LPORT_DESCRIPTORS_EXHAUSTED);
    context = lport_tls_context_open();
    cr_assert_gt(context, 0);
    cr_assert_eq(lport_tls_context_close(context), 0);
}

Test(openssl, the_library_is_looked_for_until_it_is_found) {
    cr_assert_not_null(lport_openssl());
    lport_openssl_library = "libssl-of-nobody.so.99";
    cr_assert_not_null(lport_openssl());
}
