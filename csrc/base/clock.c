/* clock - the one clock that deadlines are measured with (layer 0). Stands on clock_gettime alone.
 * See libport.h.
 *
 * Invariant: no sum of a time and a duration passes LPORT_NEVER. */
#include "libport.h"

#include <time.h>

enum { NS_PER_S = 1000000000 };

int64_t lport_clock_now(void) {
    struct timespec now;
    /* Cannot fail: the clock exists wherever this compiles, and the pointer is ours. */
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t lport_clock_after(int64_t ns) {
    int64_t now = lport_clock_now();
    if (ns <= 0) {
        return now;
    }
    return ns < LPORT_NEVER - now ? now + ns : LPORT_NEVER;
}
