/* clock: the monotonic clock and deadlines that cannot overflow. */
#include "libport.h"

#include <criterion/criterion.h>
#include <time.h>

TestSuite(clock, .timeout = 10);

Test(clock, now_never_goes_back) {
    int64_t last = lport_clock_now();
    for (int i = 0; i < 100000; i++) {
        int64_t now = lport_clock_now();
        cr_assert_geq(now, last);
        last = now;
    }
}

Test(clock, now_is_the_systems_monotonic_clock_in_nanoseconds) {
    struct timespec time;
    int64_t before = lport_clock_now();
    cr_assert_eq(clock_gettime(CLOCK_MONOTONIC, &time), 0);
    int64_t after = lport_clock_now();
    int64_t between = (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
    cr_assert(before <= between && between <= after);
}

Test(clock, after_is_now_and_the_duration) {
    static const int64_t durations[] = {1, 999, 1000000, 1000000000, 86400000000000};
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++) {
        int64_t before = lport_clock_now();
        int64_t deadline = lport_clock_after(durations[i]);
        int64_t after = lport_clock_now();
        cr_assert_geq(deadline - durations[i], before);
        cr_assert_leq(deadline - durations[i], after);
    }
}

/* Behaviour 9: 0 means now, and what is less is no earlier than now. */
Test(clock, after_zero_or_less_is_now) {
    static const int64_t durations[] = {0, -1, -1000000000, INT64_MIN + 1, INT64_MIN};
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++) {
        int64_t before = lport_clock_now();
        int64_t deadline = lport_clock_after(durations[i]);
        cr_assert_geq(deadline, before);
        cr_assert_leq(deadline, lport_clock_now());
    }
}

/* Behaviour 9: a huge timeout means never, without overflow. */
Test(clock, after_saturates_at_never) {
    cr_assert_eq(lport_clock_after(LPORT_NEVER), LPORT_NEVER);
    cr_assert_eq(lport_clock_after(LPORT_NEVER - 1), LPORT_NEVER);
    cr_assert_eq(lport_clock_after(LPORT_NEVER - lport_clock_now()), LPORT_NEVER);
}

Test(clock, after_just_below_never_is_exact) {
    int64_t before = lport_clock_now();
    int64_t ns = LPORT_NEVER - before - 3600 * (int64_t)1000000000;
    int64_t deadline = lport_clock_after(ns);
    cr_assert_lt(deadline, LPORT_NEVER);
    cr_assert_geq(deadline, before + ns);
    cr_assert_leq(deadline, lport_clock_now() + ns);
}
