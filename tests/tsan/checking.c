/* checking - see checking.h. */
#include "checking.h"

#include "libport.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static _Atomic int64_t passed, failed;

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

int report(void) {
    printf("tsan: %lld passed, %lld failed\n", (long long)atomic_load(&passed),
           (long long)atomic_load(&failed));
    return atomic_load(&failed) != 0;
}
