/* tls_context - what sessions of TLS have in common: whom they trust, who they are (layer 4). Part
 * of tls; stands on os, status, sink, pool, openssl.
 *
 * Invariant: a context is changed by nobody while a session is made of it, as the header asks; what
 * sessions have of it they keep, so it may be closed any time. */
#include "base/os.h"
#include "base/pool.h"
#include "base/sink.h"
#include "base/status.h"
#include "libport.h"
#include "tls.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { READ_AHEAD = 1 << 16 }; /* octets that a session takes from the system at once */

struct context {
    struct lport_pooled pooled; /* first, see pool.h */
    struct lport_tls_settings settings;
    struct lport_tls_problem problem;
    int64_t
        offered[LPORT_TLS_OFFERED_MAX]; /* other contexts; the certificate of one may be shown */
    size_t offered_count;
};

static struct lport_pool contexts = LPORT_POOL(struct context, NULL);

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

/* A connection of TLS 1.2 at least, which nobody negotiates anew, verifying the peer. No tickets: a
 * client that has sent all it wants to and closes without reading would reset the connection by
 * them, and one that comes back with one to a server that verifies clients would be refused. And no
 * chain but that in the file: OpenSSL would look for one, in each handshake, among those who are
 * trusted. */
static struct ssl_ctx_st *make_context(const struct lport_openssl *openssl) {
    struct ssl_ctx_st *context = openssl->SSL_CTX_new(openssl->TLS_method());
    if (context != NULL) {
        long modes = OPENSSL_PARTIAL_WRITE | OPENSSL_MOVING_BUFFER | OPENSSL_RELEASE_BUFFERS |
                     OPENSSL_NO_AUTO_CHAIN;
        openssl->SSL_CTX_ctrl(context, OPENSSL_CTRL_MODE, modes, NULL);
        openssl->SSL_CTX_ctrl(context, OPENSSL_CTRL_READ_AHEAD, 1, NULL);
        openssl->SSL_CTX_set_default_read_buffer_len(context, READ_AHEAD);
        openssl->SSL_CTX_ctrl(context, OPENSSL_CTRL_MIN_VERSION, OPENSSL_TLS1_2, NULL);
        openssl->SSL_CTX_ctrl(context, OPENSSL_CTRL_SESSION_CACHE, 0, NULL);
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
    pthread_once(&once, watch_forks);
    if (openssl == NULL) {
        return lport_status_make(LPORT_NOT_SUPPORTED);
    }
    struct ssl_ctx_st *made = make_context(openssl);
    int64_t result = lport_status_make(LPORT_MEMORY_EXHAUSTED);
    lock_contexts();
    struct context *context = made == NULL ? NULL : lport_pool_take(&contexts);
    if (context != NULL) {
        context->settings =
            (struct lport_tls_settings){.context = made, .verify = LPORT_TLS_VERIFY_SERVER};
        context->problem.text[0] = '\0';
        context->offered_count = 0;
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

int64_t lport_tls_context_close(int64_t context) {
    struct ssl_ctx_st *made = NULL;
    lock_contexts();
    struct context *found = lport_pool_find(&contexts, context);
    if (found != NULL) {
        made = found->settings.context;
        lport_pool_unname(found);
        lport_pool_give_back(&contexts, found);
    }
    unlock_contexts();
    if (made == NULL) {
        return lport_status_make(LPORT_CLOSED);
    }
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

/* ---- changing them --------------------------------------------------------------------------- */

/* What opens a private key. */
struct passphrase {
    const char *text;
    size_t len;
};

/* A change of a context, by what the call was given. */
struct change {
    const char *path, *more; /* or NULL */
    struct passphrase passphrase;
    int32_t a, b;
    const uint8_t *names;
    uint8_t names_len;
    const char **missing; /* what was not found, for the problem's text, or NULL */
};

/* Makes CHANGE of SETTINGS: true, or false where OpenSSL says in its queue what is wrong. */
typedef bool change_function(const struct lport_openssl *openssl,
                             struct lport_tls_settings *settings, const struct change *change);

/* Begins PROBLEM, OpenSSL's words, with what they are about. */
static void tell_missing(const struct change *change, struct lport_tls_problem *problem) {
    if (change->missing != NULL && *change->missing != NULL) {
        struct lport_tls_problem reason = *problem;
        struct lport_sink sink = {problem->text, sizeof problem->text, 0};
        lport_sink_put(&sink, *change->missing);
        lport_sink_put(&sink, ": ");
        lport_sink_put(&sink, reason.text);
    }
}

/* A reference is held meanwhile, as files may be read, and not the lock. */
static int64_t change_context(int64_t context, change_function *make, const struct change *change) {
    struct lport_tls_settings settings;
    struct lport_tls_problem problem = {""};
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
        found->settings = settings;
    } else if (found != NULL && lport_status_is(status, LPORT_TLS_FAILED)) {
        found->problem = problem;
    }
    unlock_contexts();
    openssl->SSL_CTX_free(settings.context);
    return status;
}

/* The LEN octets at TEXT into PATH, with an end; false where that is the name of no file. */
static bool put_path(const char *text, size_t len, char path[PATH_MAX]) {
    if (len == 0 || len >= PATH_MAX || memchr(text, '\0', len) != NULL) {
        return false;
    }
    memcpy(path, text, len);
    path[len] = '\0';
    return true;
}

static bool trust_system(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                         const struct change *change) {
    (void)change;
    return openssl->SSL_CTX_set_default_verify_paths(settings->context) == 1;
}

static bool trust_directory(const struct lport_openssl *openssl,
                            struct lport_tls_settings *settings, const struct change *change) {
    return openssl->SSL_CTX_load_verify_dir(settings->context, change->path) == 1;
}

/* The names in it are among those that a server tells its clients that it trusts. */
static bool trust_file(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                       const struct change *change) {
    if (openssl->SSL_CTX_load_verify_file(settings->context, change->path) != 1) {
        return false;
    }
    struct stack_st_X509_NAME *names = openssl->SSL_CTX_get_client_CA_list(settings->context);
    if (names != NULL) {
        return openssl->SSL_add_file_cert_subjects_to_stack(names, change->path) == 1;
    }
    names = openssl->SSL_load_client_CA_file(change->path);
    if (names != NULL) {
        openssl->SSL_CTX_set_client_CA_list(settings->context, names);
    }
    return names != NULL;
}

/* What the system says of the directory at PATH: 0: it is there. */
static int64_t look_at_directory(const char path[PATH_MAX]) {
    char within[PATH_MAX + 2];
    struct stat unused;
    (void)snprintf(within, sizeof within, "%s/.", path);
    return lport_os.lstat(within, &unused) == 0 ? 0
                                                : lport_status_from_errno(LPORT_IN_GENERAL, errno);
}

/* What is to be said of PATH before OpenSSL is asked for it: of a directory that is to be a file it
 * says that there is no certificate, and one that is to be there is read when a certificate comes,
 * as an empty one where there is none. */
static int64_t look_at(const char path[PATH_MAX], bool is_directory) {
    int64_t status = look_at_directory(path);
    if (is_directory) {
        return status;
    }
    return status == 0 ? lport_status_from_errno(LPORT_IN_GENERAL, EISDIR) : 0;
}

int64_t lport_tls_context_trust(int64_t context, int32_t source, const char *path, size_t len) {
    static change_function *const changes[] = {
        [LPORT_TLS_SYSTEM] = trust_system,
        [LPORT_TLS_FILE] = trust_file,
        [LPORT_TLS_DIRECTORY] = trust_directory,
    };
    char room[PATH_MAX];
    if (source < LPORT_TLS_SYSTEM || source > LPORT_TLS_DIRECTORY ||
        (source != LPORT_TLS_SYSTEM && !put_path(path, len, room))) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = source == LPORT_TLS_SYSTEM ? 0 : look_at(room, source == LPORT_TLS_DIRECTORY);
    return status < 0 ? status
                      : change_context(context, changes[source], &(struct change){.path = room});
}

/* What OpenSSL asks for a passphrase that does not say whom to ask; of nobody is one asked who has
 * not given it. */
static int give_passphrase(char *text, int size, int writing, void *data) {
    const struct passphrase *passphrase = data;
    (void)writing;
    if (passphrase->len == 0 || passphrase->len > (size_t)size) {
        return -1;
    }
    memcpy(text, passphrase->text, passphrase->len);
    return (int)passphrase->len;
}

/* OpenSSL has one word for a file without a key, and another for one that is not that of the
 * certificate, which needs no more. */
static bool find_key(const struct lport_openssl *openssl, const struct change *change,
                     struct ssl_ctx_st *made) {
    if (openssl->SSL_CTX_use_PrivateKey_file(made, change->more, OPENSSL_PEM) == 1) {
        return true;
    }
    if ((openssl->ERR_peek_error() & OPENSSL_REASON_MASK) != OPENSSL_KEY_MISMATCH) {
        *change->missing = change->passphrase.len > 0 ? "no private key with this passphrase"
                                                      : "no private key without a passphrase";
    }
    return false;
}

static bool find_identity(const struct lport_openssl *openssl, const struct change *change,
                          struct ssl_ctx_st *made) {
    if (openssl->SSL_CTX_use_certificate_chain_file(made, change->path) != 1) {
        *change->missing = "no certificate";
        return false;
    }
    return find_key(openssl, change, made) && openssl->SSL_CTX_check_private_key(made) == 1;
}

static bool identify(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                     const struct change *change) {
    struct ssl_ctx_st *made = settings->context;
    struct passphrase passphrase = change->passphrase;
    openssl->SSL_CTX_set_default_passwd_cb(made, give_passphrase);
    openssl->SSL_CTX_set_default_passwd_cb_userdata(made, &passphrase);
    bool found = find_identity(openssl, change, made);
    openssl->SSL_CTX_set_default_passwd_cb_userdata(made, NULL); /* nothing is read any more */
    return found;
}

int64_t lport_tls_context_identity(int64_t context, const char *chain, size_t chain_len,
                                   const char *key, size_t key_len, const char *passphrase,
                                   size_t passphrase_len) {
    char chain_room[PATH_MAX], key_room[PATH_MAX];
    const char *missing = NULL;
    if (!put_path(chain, chain_len, chain_room) || !put_path(key, key_len, key_room) ||
        passphrase_len > LPORT_TLS_PASSPHRASE_MAX) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = look_at(chain_room, false);
    status = status == 0 ? look_at(key_room, false) : status;
    return status < 0 ? status
                      : change_context(context, identify,
                                       &(struct change){.path = chain_room,
                                                        .more = key_room,
                                                        .passphrase = {passphrase, passphrase_len},
                                                        .missing = &missing});
}

static bool set_verify(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                       const struct change *change) {
    (void)openssl;
    settings->verify = change->a;
    return true;
}

int64_t lport_tls_context_verify(int64_t context, int32_t mode) {
    if (mode < LPORT_TLS_VERIFY_NOBODY || mode > LPORT_TLS_VERIFY) {
        return lport_status_make(LPORT_INVALID);
    }
    return change_context(context, set_verify, &(struct change){.a = mode});
}

static long version_of(int32_t minor) {
    return minor == 2 ? OPENSSL_TLS1_2 : minor == 3 ? OPENSSL_TLS1_3 : 0;
}

static bool set_versions(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                         const struct change *change) {
    struct ssl_ctx_st *made = settings->context;
    return openssl->SSL_CTX_ctrl(made, OPENSSL_CTRL_MIN_VERSION, version_of(change->a), NULL) ==
               1 &&
           openssl->SSL_CTX_ctrl(made, OPENSSL_CTRL_MAX_VERSION, version_of(change->b), NULL) == 1;
}

int64_t lport_tls_context_versions(int64_t context, int32_t lowest, int32_t highest) {
    if (lowest < 2 || highest > 3 || lowest > highest) {
        return lport_status_make(LPORT_INVALID);
    }
    return change_context(context, set_versions, &(struct change){.a = lowest, .b = highest});
}

static bool set_names(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                      const struct change *change) {
    settings->names_len = change->names_len;
    memcpy(settings->names, change->names, change->names_len);
    /* It says 0 where it could. */
    return openssl->SSL_CTX_set_alpn_protos(settings->context, change->names, change->names_len) ==
           0;
}

/* The names at TEXT, with commas between, as the handshake has them, into NAMES; their length, or
 * -1: they are none. */
static int put_names(const char *text, size_t len, uint8_t names[LPORT_TLS_NAMES_MAX]) {
    size_t length = 0; /* where that of the name goes which is being put */
    if (len == 0) {
        return 0;
    }
    if (len >= LPORT_TLS_NAMES_MAX) {
        return -1;
    }
    names[0] = 0;
    for (size_t i = 0; i < len; i++) {
        bool ends = text[i] == ',';
        if (ends && names[length] == 0) {
            return -1;
        }
        names[i + 1] = ends ? 0 : (uint8_t)text[i];
        if (ends) {
            length = i + 1;
        } else {
            names[length]++;
        }
    }
    return names[length] == 0 ? -1 : (int)len + 1;
}

int64_t lport_tls_context_protocols(int64_t context, const char *names, size_t len) {
    uint8_t room[LPORT_TLS_NAMES_MAX];
    int length = put_names(names, len, room);
    if (length < 0) {
        return lport_status_make(LPORT_INVALID);
    }
    return change_context(context, set_names,
                          &(struct change){.names = room, .names_len = (uint8_t)length});
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
    }
    unlock_contexts();
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
