/* openssl - finds OpenSSL's libssl and its functions (layer 4). Stands on os.
 *
 * Invariant: either every row of the table has been found, or there is no table. */
#include "openssl.h"

#include "base/os.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>

/* The 3 is the ABI: versions 3.0 and later of OpenSSL have it. */
const char *lport_openssl_library = "libssl.so.3";

static struct lport_openssl functions;
static _Atomic(const struct lport_openssl *) found; /* FUNCTIONS, once all of them are there */

/* Where the pointer to each function belongs. */
static const struct {
    const char *name;
    size_t place;
} rows[] = {
#define ROW(result, name, arguments) {#name, offsetof(struct lport_openssl, name)},
    LPORT_OPENSSL_ROWS(ROW)
#undef ROW
};

/* POSIX gives functions as pointers to objects. */
static bool find_all(void *library) {
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        void *symbol = dlsym(library, rows[i].name);
        if (symbol == NULL) {
            return false;
        }
        memcpy((char *)&functions + rows[i].place, &symbol, sizeof symbol);
    }
    return true;
}

/* Sets errno to what keeps this process from having one more descriptor, 0 if nothing does:
 * dlopen(3) tells it in words alone. */
static void tell_why(void) {
    int fd = lport_os.eventfd(0, EFD_CLOEXEC);
    if (fd >= 0) {
        (void)lport_os.close(fd);
        errno = 0;
    }
}

/* The library is never closed. What it would do at the exit of the process is left out, as other
 * threads may be in it still. */
static void load(void) {
    void *library = dlopen(lport_openssl_library, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return;
    }
    if (!find_all(library)) {
        (void)dlclose(library);
    } else if (functions.OPENSSL_init_ssl(OPENSSL_NO_ATEXIT, NULL) == 1) {
        atomic_store(&found, &functions);
    }
}

/* One attempt that finds too few descriptors or too little memory says nothing of the next. */
const struct lport_openssl *lport_openssl(void) {
    static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
    if (atomic_load(&found) == NULL) {
        pthread_mutex_lock(&loading);
        if (atomic_load(&found) == NULL) {
            load();
        }
        pthread_mutex_unlock(&loading);
        if (atomic_load(&found) == NULL) {
            tell_why();
        }
    }
    return atomic_load(&found);
}
