/* checking - see checking.h. */
#include "checking.h"

#include "libport.h"

#include <errno.h>
#include <stdatomic.h>
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

int report(void) {
    printf("tsan: %lld passed, %lld failed\n", (long long)atomic_load(&passed),
           (long long)atomic_load(&failed));
    return atomic_load(&failed) != 0;
}
