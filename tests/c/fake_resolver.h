/* fake_resolver - what the system's resolver would say, as a test has it say: one answer to
 * everybody, at once or when a gate is opened. */
#ifndef FAKE_RESOLVER_H
#define FAKE_RESOLVER_H

#include <netdb.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

extern struct fake_resolver {
    const char *texts[8];  /* the addresses of every name, in order; ended by NULL. Who asks for a
                            * family gets those of it */
    const char *canonical; /* name, of the first of them */
    int result;            /* of getaddrinfo, */
    int error;             /* and the errno that goes with a failure; below 0: that of before */
    bool gated;            /* each call waits for the gate */
    int silent;            /* or those that ask for this family, alone or among all; 0: none */
    sem_t entered, gate;
    atomic_int calls;
    atomic_int lists;      /* made and not freed */
    struct addrinfo hints; /* of the latest call that did not wait, */
    char name[512];        /* its name, */
    sigset_t blocked;      /* and what its thread has blocked */
} fake;

/* Puts getaddrinfo and freeaddrinfo of the fake in place of the system's. */
void use_fake_resolver(void);

#endif
