/* checking - see checking.h. */
#include "checking.h"

#include "libport.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

/* A poller on poll(2) is woken, its slot locked, with the lock of a socket's slot held. A slot is a
 * socket's at one time and a poller's at another, which the sanitizer takes for a cycle.
 *
 * OpenSSL, which is not built for the sanitizer, counts the owners of what it shares with atomic
 * operations that the sanitizer does not see: the last owner's free would be a race with what
 * others compared before they let go. What OpenSSL itself calls is left out; what libport does is
 * not, where OpenSSL calls it, too. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "deadlock:lport_wait_wake_slot\n"
           "called_from_lib:libssl.so\n"
           "called_from_lib:libcrypto.so\n";
}

static _Atomic int64_t passed, failed;
static _Atomic uint32_t drawn;

void check(bool holds, const char *what, int64_t status) {
    atomic_fetch_add(holds ? &passed : &failed, 1);
    if (!holds) {
        fprintf(stderr, "%s: %s: %lld\n", program_invocation_short_name, what, (long long)status);
    }
}

bool is_kind(int64_t status, int32_t kind) {
    return lport_status_kind(status) == kind;
}

void pause_ns(int64_t ns) {
    struct timespec pause = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    nanosleep(&pause, NULL);
}

void stop_after(int seconds, atomic_bool *stop, const pthread_t *threads, int count) {
    pause_ns(seconds * INT64_C(1000000000));
    atomic_store(stop, true);
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
}

void run_roles(int seconds, atomic_bool *stop, void *(*const roles[])(void *), size_t count,
               size_t each) {
    enum { THREADS_MAX = 64 };
    pthread_t threads[THREADS_MAX];
    size_t made = 0;
    atomic_store(&drawn, (uint32_t)lport_clock_now());
    check(count * each <= THREADS_MAX, "there is room for the threads", (int64_t)(count * each));
    for (; made < count * each && made < THREADS_MAX; made++) {
        pthread_create(&threads[made], NULL, roles[made % count], NULL);
    }
    stop_after(seconds, stop, threads, (int)made);
}

uint32_t draw(void) {
    uint32_t next = atomic_fetch_add(&drawn, 0x9e3779b9) * UINT32_C(0x85ebca6b);
    return next ^ next >> 15;
}

int report(void) {
    printf("tsan: %lld passed, %lld failed\n", (long long)atomic_load(&passed),
           (long long)atomic_load(&failed));
    return atomic_load(&failed) != 0;
}
