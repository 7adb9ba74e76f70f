/* resolve - names, for the modules above (layer 3). The exported part is in libport.h. */
#ifndef LPORT_RESOLVE_H
#define LPORT_RESOLVE_H

#include <netdb.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* What resolve.c asks of the system, in one table so that a test build can replace any of it. In
 * the library the table is constant. */
struct lport_resolver {
    int (*getaddrinfo)(const char *name, const char *service, const struct addrinfo *hints,
                       struct addrinfo **result);
    void (*freeaddrinfo)(struct addrinfo *result);
    int (*gethostbyname2_r)(const char *name, int family, struct hostent *host, char *buffer,
                            size_t len, struct hostent **result, int *error);
    int (*gethostbyaddr_r)(const void *address, socklen_t address_len, int family,
                           struct hostent *host, char *buffer, size_t len, struct hostent **result,
                           int *error);
    int (*thread_create)(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                         void *argument);
    int64_t idle_ns; /* a thread without work ends after so long */
    int64_t join_ns; /* who asks the same so long after a look-up began shares its answer */
};

#ifdef LPORT_TEST
extern struct lport_resolver lport_resolver; /* replaceable by the tests */
#else
extern const struct lport_resolver lport_resolver;
#endif

/* [nowait] Has the answer of the query HANDLE written to EVENT, an eventfd of the caller's, so that
 * a poll can wait for it; at once if it is there. EVENT below 0: no longer. Once this or
 * lport_resolve_close has returned nobody writes to the earlier EVENT, which the caller may close.
 * The child of a fork writes to no event of its parent, which shares it. 0 or LPORT_INVALID. */
int64_t lport_resolve_notify(int64_t handle, int event);

/* [nowait] How many threads the resolver has; how many queries are open, and look-ups abandoned by
 * theirs and not yet back from their threads. For tests and for leaks. */
int64_t lport_resolve_threads(void);
int64_t lport_resolve_pending(void);

#endif
