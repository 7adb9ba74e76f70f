/* checking - what holds and what does not, counted by many threads, for the programs beside this.
 */
#ifndef CHECKING_H
#define CHECKING_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Counts whether it HOLDS; else says WHAT does not, and STATUS. */
void check(bool holds, const char *what, int64_t status);

bool is_kind(int64_t status, int32_t kind);

void pause_ns(int64_t ns);

/* Lets the COUNT threads at THREADS run for SECONDS, sets *STOP, and waits for their end. */
void stop_after(int seconds, atomic_bool *stop, const pthread_t *threads, int count);

/* The same for threads that it makes: EACH for every one of the COUNT functions at ROLES, which get
 * NULL. What they draw begins anew. */
void run_roles(int seconds, atomic_bool *stop, void *(*const roles[])(void *), size_t count,
               size_t each);

/* A number that no other call gives about then, of whatever thread. */
uint32_t draw(void);

/* Prints one line, `tsan: N passed, N failed`; the exit status of the program. */
int report(void);

#endif
