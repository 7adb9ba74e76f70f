/* tls_change - what of a context of TLS a user chooses: whom its sessions trust, who they are, whom
 * they verify, what they speak (layer 4). Part of tls; stands on os, status, openssl. */
#include "tls_change.h"

#include "base/os.h"
#include "base/status.h"
#include "libport.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- files ----------------------------------------------------------------------------------- */

/* The LEN octets at TEXT into PATH, with an end; false where that is the name of no file. */
static bool put_path(const char *text, size_t len, char path[PATH_MAX]) {
    if (len == 0 || len >= PATH_MAX || memchr(text, '\0', len) != NULL) {
        return false;
    }
    memcpy(path, text, len);
    path[len] = '\0';
    return true;
}

/* What is none is refused before OpenSSL opens it: that could block for ever, as of a pipe nobody
 * writes to, or never come to an end; and of a pipe the octets come once, while files are read more
 * than once. Who may put something else there in between may change what is in it, too. */
static bool is_file(const struct lport_tls_change *change, const char *path) {
    struct stat file;
    if (lport_os.stat(path, &file) < 0 || S_ISREG(file.st_mode)) {
        return true; /* OpenSSL says why it cannot be read */
    }
    *change->missing = "not a regular file";
    return false;
}

static bool trust_system(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                         const struct lport_tls_change *change) {
    (void)change;
    return openssl->SSL_CTX_set_default_verify_paths(settings->context) == 1;
}

static bool trust_directory(const struct lport_openssl *openssl,
                            struct lport_tls_settings *settings,
                            const struct lport_tls_change *change) {
    return openssl->SSL_CTX_load_verify_dir(settings->context, change->path) == 1;
}

/* The names in it are among those that a server tells its clients that it trusts. */
static bool trust_file(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                       const struct lport_tls_change *change) {
    if (!is_file(change, change->path) ||
        openssl->SSL_CTX_load_verify_file(settings->context, change->path) != 1) {
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

/* From now on every certificate of a chain needs a list, that of its issuer. */
static bool take_lists(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                       const struct lport_tls_change *change) {
    if (!is_file(change, change->path)) {
        return false;
    }
    struct x509_store_st *store = openssl->SSL_CTX_get_cert_store(settings->context);
    struct x509_lookup_st *files =
        openssl->X509_STORE_add_lookup(store, openssl->X509_LOOKUP_file());
    settings->lists =
        files != NULL && openssl->X509_load_crl_file(files, change->path, OPENSSL_PEM) > 0;
    return settings->lists;
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

/* Changes CONTEXT by MAKE and the LEN octets at PATH. */
static int64_t change_by(int64_t context, lport_tls_change_function *make, const char *path,
                         size_t len, bool is_directory) {
    char room[PATH_MAX];
    const char *missing = NULL;
    if (!put_path(path, len, room)) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = look_at(room, is_directory);
    return status < 0
               ? status
               : lport_tls_change_context(
                     context, make, &(struct lport_tls_change){.path = room, .missing = &missing});
}

int64_t lport_tls_context_trust(int64_t context, int32_t source, const char *path, size_t len) {
    switch (source) {
    case LPORT_TLS_SYSTEM:
        return lport_tls_change_context(context, trust_system, &(struct lport_tls_change){.a = 0});
    case LPORT_TLS_FILE:
        return change_by(context, trust_file, path, len, false);
    case LPORT_TLS_DIRECTORY:
        return change_by(context, trust_directory, path, len, true);
    default:
        return lport_status_make(LPORT_INVALID);
    }
}

int64_t lport_tls_context_revoked(int64_t context, const char *path, size_t len) {
    return change_by(context, take_lists, path, len, false);
}

/* What OpenSSL asks for a passphrase that does not say whom to ask; of nobody is one asked who has
 * not given it. */
static int give_passphrase(char *text, int size, int writing, void *data) {
    const struct lport_tls_passphrase *passphrase = data;
    (void)writing;
    if (passphrase->len == 0 || passphrase->len > (size_t)size) {
        return -1;
    }
    memcpy(text, passphrase->text, passphrase->len);
    return (int)passphrase->len;
}

/* OpenSSL has one word for a file without a key, and another for one that is not that of the
 * certificate, which needs no more. */
static bool find_key(const struct lport_openssl *openssl, const struct lport_tls_change *change,
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

static bool find_identity(const struct lport_openssl *openssl,
                          const struct lport_tls_change *change, struct ssl_ctx_st *made) {
    if (openssl->SSL_CTX_use_certificate_chain_file(made, change->path) != 1) {
        *change->missing = "no certificate";
        return false;
    }
    return find_key(openssl, change, made) && openssl->SSL_CTX_check_private_key(made) == 1;
}

static bool identify(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                     const struct lport_tls_change *change) {
    struct ssl_ctx_st *made = settings->context;
    struct lport_tls_passphrase passphrase = change->passphrase;
    if (!is_file(change, change->path) || !is_file(change, change->more)) {
        return false;
    }
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
                      : lport_tls_change_context(
                            context, identify,
                            &(struct lport_tls_change){.path = chain_room,
                                                       .more = key_room,
                                                       .passphrase = {passphrase, passphrase_len},
                                                       .missing = &missing});
}

/* ---- what else is chosen ----------------------------------------------------------------------
 */

static bool set_verify(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                       const struct lport_tls_change *change) {
    (void)openssl;
    settings->verify = change->a;
    return true;
}

int64_t lport_tls_context_verify(int64_t context, int32_t mode) {
    if (mode < LPORT_TLS_VERIFY_NOBODY || mode > LPORT_TLS_VERIFY) {
        return lport_status_make(LPORT_INVALID);
    }
    return lport_tls_change_context(context, set_verify, &(struct lport_tls_change){.a = mode});
}

static bool set_resume(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                       const struct lport_tls_change *change) {
    (void)openssl;
    settings->resume = change->a != 0;
    return true;
}

int64_t lport_tls_context_resume(int64_t context, int32_t on) {
    return lport_tls_change_context(context, set_resume, &(struct lport_tls_change){.a = on});
}

static long version_of(int32_t minor) {
    return minor == 2 ? OPENSSL_TLS1_2 : minor == 3 ? OPENSSL_TLS1_3 : 0;
}

static bool set_versions(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                         const struct lport_tls_change *change) {
    struct ssl_ctx_st *made = settings->context;
    return openssl->SSL_CTX_ctrl(made, OPENSSL_CTRL_MIN_VERSION, version_of(change->a), NULL) ==
               1 &&
           openssl->SSL_CTX_ctrl(made, OPENSSL_CTRL_MAX_VERSION, version_of(change->b), NULL) == 1;
}

int64_t lport_tls_context_versions(int64_t context, int32_t lowest, int32_t highest) {
    if (lowest < 2 || highest > 3 || lowest > highest) {
        return lport_status_make(LPORT_INVALID);
    }
    return lport_tls_change_context(context, set_versions,
                                    &(struct lport_tls_change){.a = lowest, .b = highest});
}

static bool set_names(const struct lport_openssl *openssl, struct lport_tls_settings *settings,
                      const struct lport_tls_change *change) {
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
    return lport_tls_change_context(
        context, set_names,
        &(struct lport_tls_change){.names = room, .names_len = (uint8_t)length});
}
