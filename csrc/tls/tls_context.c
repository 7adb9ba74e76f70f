/* tls_context - what sessions of TLS have in common (layer 4). Part of tls; stands on status, sink,
 * pool, openssl. What of it a user chooses is in tls_change.c.
 *
 * Invariant: a context is changed by nobody while a session is made of it, as the header asks; what
 * sessions have of it they keep, so it may be closed any time. */
#include "base/pool.h"
#include "base/sink.h"
#include "base/status.h"
#include "libport.h"
#include "tls.h"
#include "tls_change.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

enum {
    READ_AHEAD = 1 << 16, /* octets that a session takes from the system at once */
    SESSIONS = 4096,      /* that a server remembers at the most */
};

struct context {
    struct lport_pooled pooled; /* first, see pool.h */
    struct lport_tls_settings settings;
    struct lport_tls_problem problem;
    int64_t
        offered[LPORT_TLS_OFFERED_MAX]; /* other contexts; the certificate of one may be shown */
    size_t offered_count;
    struct lport_tls_kept *kept;
};

static struct lport_pool contexts = LPORT_POOL(struct context, NULL);
static uint64_t generations; /* that there have been; under the lock of CONTEXTS */

int64_t lport_tls_failed(const struct lport_openssl *openssl, struct lport_tls_problem *problem) {
    unsigned long error = openssl->ERR_get_error();
    int number = (int)(error & INT_MAX);
    const char *reason = openssl->ERR_reason_error_string(error);
    bool systems = error > INT_MAX; /* ERR_SYSTEM_FLAG: NUMBER is an errno */
    openssl->ERR_clear_error();
    lport_sink_copy(reason == NULL ? "" : reason, problem->text, sizeof problem->text);
    return systems ? lport_status_from_errno(LPORT_IN_GENERAL, number)
                   : lport_status_make(LPORT_TLS_FAILED);
}

/* A connection of TLS 1.2 at least, which nobody negotiates anew, verifying the peer. No tickets
 * but those of tls_resume.c, by number, so that no key opens all of them. And no chain but that in
 * the file: OpenSSL would look for one, in each handshake, among those who are trusted. */
static struct ssl_ctx_st *make_context(const struct lport_openssl *openssl) {
    struct ssl_ctx_st *context = openssl->SSL_CTX_new(openssl->TLS_method());
    if (context != NULL) {
        long modes = OPENSSL_PARTIAL_WRITE | OPENSSL_MOVING_BUFFER | OPENSSL_RELEASE_BUFFERS |
                     OPENSSL_NO_AUTO_CHAIN;
        openssl->SSL_CTX_ctrl(context, OPENSSL_CTRL_MODE, modes, NULL);
        openssl->SSL_CTX_ctrl(context, OPENSSL_CTRL_READ_AHEAD, 1, NULL);
        openssl->SSL_CTX_set_default_read_buffer_len(context, READ_AHEAD);
        openssl->SSL_CTX_ctrl(context, OPENSSL_CTRL_MIN_VERSION, OPENSSL_TLS1_2, NULL);
        openssl->SSL_CTX_ctrl(context, OPENSSL_CTRL_SESSION_CACHE, OPENSSL_SERVERS_SESSIONS, NULL);
        openssl->SSL_CTX_ctrl(context, OPENSSL_CTRL_SESSIONS, SESSIONS, NULL);
        openssl->SSL_CTX_set_timeout(context, LPORT_TLS_KEPT_FOR);
        openssl->SSL_CTX_set_options(context, OPENSSL_NO_RENEGOTIATION | OPENSSL_NO_TICKET);
        openssl->SSL_CTX_set_num_tickets(context, 0);
        openssl->SSL_CTX_set_alpn_select_cb(context, lport_tls_select_name, NULL);
    }
    return context;
}

/* The contexts are the child's too. */
static void lock_contexts(void) {
    pthread_mutex_lock(&contexts.lock);
}

static void unlock_contexts(void) {
    pthread_mutex_unlock(&contexts.lock);
}

static void watch_forks(void) {
    pthread_atfork(lock_contexts, unlock_contexts, unlock_contexts);
}

int64_t lport_tls_context_open(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const struct lport_openssl *openssl = lport_openssl();
    int reason = errno;
    pthread_once(&once, watch_forks);
    if (openssl == NULL) {
        return lport_status_missing(LPORT_NOT_SUPPORTED, reason);
    }
    struct ssl_ctx_st *made = make_context(openssl);
    int64_t result = lport_status_make(LPORT_MEMORY_EXHAUSTED);
    lock_contexts();
    struct context *context = made == NULL ? NULL : lport_pool_take(&contexts);
    if (context != NULL) {
        context->settings = (struct lport_tls_settings){.context = made,
                                                        .generation = ++generations,
                                                        .verify = LPORT_TLS_VERIFY_SERVER,
                                                        .resume = true};
        context->problem.text[0] = '\0';
        context->offered_count = 0;
        context->kept = NULL;
        result = lport_pool_name(context);
        context->settings.owner = result;
    }
    unlock_contexts();
    if (result < 0) {
        openssl->ERR_clear_error();
        openssl->SSL_CTX_free(made);
    }
    return result;
}

/* Of what is kept nothing may be resumed any more. With the lock held. */
static struct lport_tls_kept *take_all_kept(struct context *context) {
    struct lport_tls_kept *kept = context->kept;
    context->kept = NULL;
    return kept;
}

int64_t lport_tls_context_close(int64_t context) {
    struct ssl_ctx_st *made = NULL;
    struct lport_tls_kept *kept = NULL;
    lock_contexts();
    struct context *found = lport_pool_find(&contexts, context);
    if (found != NULL) {
        made = found->settings.context;
        kept = take_all_kept(found);
        lport_pool_unname(found);
        lport_pool_give_back(&contexts, found);
    }
    unlock_contexts();
    if (made == NULL) {
        return lport_status_make(LPORT_CLOSED);
    }
    lport_tls_kept_free(kept);
    lport_openssl()->SSL_CTX_free(made);
    return 0;
}

int64_t lport_tls_settings_of(int64_t context, struct lport_tls_settings *settings) {
    lock_contexts();
    struct context *found = lport_pool_find(&contexts, context);
    if (found != NULL) {
        *settings = found->settings;
        lport_openssl()->SSL_CTX_up_ref(settings->context);
    }
    unlock_contexts();
    return found == NULL ? lport_status_make(LPORT_CLOSED) : 0;
}

/* The context of SETTINGS, if it is as it was then. With the lock held. */
static struct context *context_of(const struct lport_tls_settings *settings) {
    struct context *found = lport_pool_find(&contexts, settings->owner);
    return found != NULL && found->settings.generation == settings->generation ? found : NULL;
}

struct lport_tls_kept *lport_tls_take_kept(const struct lport_tls_settings *settings,
                                           const char *name, int32_t port) {
    lock_contexts();
    struct context *context = context_of(settings);
    struct lport_tls_kept *kept =
        context == NULL ? NULL : lport_tls_kept_take(&context->kept, name, port);
    unlock_contexts();
    return kept;
}

void lport_tls_keep(const struct lport_tls_settings *settings, struct lport_tls_kept *kept) {
    lock_contexts();
    struct context *context = context_of(settings);
    struct lport_tls_kept *rest = context == NULL ? kept : lport_tls_kept_put(&context->kept, kept);
    unlock_contexts();
    lport_tls_kept_free(rest);
}

/* ---- changing them --------------------------------------------------------------------------- */

/* Begins PROBLEM, OpenSSL's words, with what they are about. */
static void tell_missing(const struct lport_tls_change *change, struct lport_tls_problem *problem) {
    if (change->missing != NULL && *change->missing != NULL) {
        struct lport_tls_problem reason = *problem;
        struct lport_sink sink = {problem->text, sizeof problem->text, 0};
        lport_sink_put(&sink, *change->missing);
        lport_sink_put(&sink, reason.text[0] == '\0' ? "" : ": ");
        lport_sink_put(&sink, reason.text);
    }
}

/* A reference is held meanwhile, as files may be read, and not the lock. */
int64_t lport_tls_change_context(int64_t context, lport_tls_change_function *make,
                                 const struct lport_tls_change *change) {
    struct lport_tls_settings settings;
    struct lport_tls_problem problem = {""};
    struct lport_tls_kept *kept = NULL;
    int64_t status = lport_tls_settings_of(context, &settings);
    if (status < 0) {
        return status;
    }
    const struct lport_openssl *openssl = lport_openssl();
    openssl->ERR_clear_error();
    if (!make(openssl, &settings, change)) {
        status = lport_tls_failed(openssl, &problem);
        tell_missing(change, &problem);
    }
    lock_contexts();
    struct context *found = lport_pool_find(&contexts, context);
    if (found != NULL && status == 0) {
        settings.generation = ++generations;
        found->settings = settings;
        kept = take_all_kept(found);
    } else if (found != NULL && lport_status_is(status, LPORT_TLS_FAILED)) {
        found->problem = problem;
    }
    unlock_contexts();
    lport_tls_kept_free(kept);
    openssl->SSL_CTX_free(settings.context);
    return status;
}

/* ---- contexts beside each other -------------------------------------------------------------- */

static int64_t add_offered(struct context *context, int64_t other) {
    if (context == NULL) {
        return lport_status_make(LPORT_CLOSED);
    }
    if (context->offered_count == LPORT_TLS_OFFERED_MAX) {
        return lport_status_make(LPORT_INVALID);
    }
    context->offered[context->offered_count++] = other;
    return 0;
}

int64_t lport_tls_context_offer(int64_t context, int64_t other) {
    struct lport_tls_settings settings, of_other;
    int64_t status = lport_tls_settings_of(context, &settings);
    if (status < 0) {
        return status;
    }
    status = lport_tls_settings_of(other, &of_other);
    if (status == 0) {
        const struct lport_openssl *openssl = lport_openssl();
        bool named = openssl->SSL_CTX_get0_certificate(of_other.context) != NULL;
        openssl->SSL_CTX_free(of_other.context);
        openssl->SSL_CTX_callback_ctrl(settings.context, OPENSSL_CTRL_NAME_ASKED,
                                       (void (*)(void))lport_tls_select_identity);
        lock_contexts();
        status = named ? add_offered(lport_pool_find(&contexts, context), other)
                       : lport_status_make(LPORT_INVALID);
        unlock_contexts();
    }
    lport_openssl()->SSL_CTX_free(settings.context);
    return status;
}

/* The contexts that were offered to CONTEXT, into OFFERED; how many. */
static size_t offered_to(int64_t context, int64_t offered[LPORT_TLS_OFFERED_MAX]) {
    size_t count = 0;
    lock_contexts();
    const struct context *found = lport_pool_find(&contexts, context);
    if (found != NULL) {
        count = found->offered_count;
        memcpy(offered, found->offered, count * sizeof *offered);
    }
    unlock_contexts();
    return count;
}

/* Gives SSL the certificate of CONTEXT, with its key and its chain, in the place of its own, and
 * nothing else: whom SSL verifies, and by whom, is not CONTEXT's business. */
static void show(struct ssl_st *ssl, struct ssl_ctx_st *context) {
    const struct lport_openssl *openssl = lport_openssl();
    struct stack_st_X509 *chain = NULL;
    openssl->SSL_CTX_ctrl(context, OPENSSL_CTRL_CHAIN, 0, &chain);
    openssl->SSL_certs_clear(ssl); /* one of another kind of key would stay beside it */
    (void)openssl->SSL_use_cert_and_key(ssl, openssl->SSL_CTX_get0_certificate(context),
                                        openssl->SSL_CTX_get0_privatekey(context), chain, 1);
}

/* True, and SSL has it, if the certificate of CONTEXT is for NAME. */
static bool show_if_for(struct ssl_st *ssl, int64_t context, const char *name) {
    const struct lport_openssl *openssl = lport_openssl();
    const unsigned int flags = OPENSSL_NO_PARTIAL_WILDCARDS | OPENSSL_NO_SUBJECT;
    struct lport_tls_settings settings;
    if (lport_tls_settings_of(context, &settings) < 0) {
        return false; /* closed since */
    }
    struct x509_st *certificate = openssl->SSL_CTX_get0_certificate(settings.context);
    bool fits = certificate != NULL &&
                openssl->X509_check_host(certificate, name, strlen(name), flags, NULL) == 1;
    if (fits) {
        show(ssl, settings.context);
    }
    openssl->SSL_CTX_free(settings.context);
    return fits;
}

void lport_tls_show_for(struct ssl_st *ssl, int64_t context, const char *name) {
    int64_t offered[LPORT_TLS_OFFERED_MAX];
    size_t count = offered_to(context, offered);
    bool shown = false;
    for (size_t i = 0; i < count && !shown; i++) {
        shown = show_if_for(ssl, offered[i], name);
    }
}

/* Sessions keep what they have, so the old one goes with the name of the new one. */
int64_t lport_tls_context_replace(int64_t context, int64_t by) {
    if (context == by) {
        return lport_status_make(LPORT_INVALID);
    }
    struct lport_tls_kept *kept = NULL;
    lock_contexts();
    struct context *old = lport_pool_find(&contexts, context);
    struct context *new = lport_pool_find(&contexts, by);
    if (old != NULL && new != NULL) {
        struct lport_tls_settings settings = old->settings;
        old->settings = new->settings;
        old->settings.owner = context;
        memcpy(old->offered, new->offered, sizeof old->offered);
        old->offered_count = new->offered_count;
        new->settings = settings;
        kept = take_all_kept(old);
    }
    unlock_contexts();
    lport_tls_kept_free(kept);
    return old != NULL && new != NULL ? lport_tls_context_close(by)
                                      : lport_status_make(LPORT_CLOSED);
}

int64_t lport_tls_context_problem(int64_t context, char *text, size_t cap) {
    struct lport_tls_problem problem;
    lock_contexts();
    struct context *found = lport_pool_find(&contexts, context);
    if (found != NULL) {
        problem = found->problem;
    }
    unlock_contexts();
    return found == NULL ? lport_status_make(LPORT_CLOSED)
                         : lport_sink_copy(problem.text, text, cap);
}
