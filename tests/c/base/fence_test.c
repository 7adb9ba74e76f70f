/* fence: a barrier in all threads at once. */
#include "base/os.h"
#include "support.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>

TestSuite(fence, .timeout = 60);

enum { ROUNDS = 5000 };

/* What each side stores, and in which rounds it did not see what the other one had stored. */
static atomic_int begun, plain, fenced;
static int plain_missed[ROUNDS + 1], fenced_missed[ROUNDS + 1];

static void await_round(atomic_int *number, int round) {
    while (atomic_load(number) < round) {
        sched_yield();
    }
}

static void pass_time(int steps) {
    for (volatile int left = steps; left > 0; left = left - 1) {
    }
}

/* The side without a barrier: the processor may load before what it stores can be seen. */
static int64_t store_and_load(void *data) {
    (void)data;
    for (int round = 1; round <= ROUNDS; round++) {
        await_round(&begun, round);
        pass_time(round % 64);
        atomic_store_explicit(&plain, round, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
        fenced_missed[round] = atomic_load_explicit(&fenced, memory_order_relaxed) != round;
    }
    return 0;
}

SOCKET_TEST(fence, of_two_threads_one_sees_what_the_other_has_stored) {
    struct task task;
    cr_assert_eq(lport_fence_prepare(), 0);
    task_start(&task, store_and_load, NULL);
    for (int round = 1; round <= ROUNDS; round++) {
        atomic_store(&begun, round);
        pass_time(round % 512);
        atomic_store_explicit(&fenced, round, memory_order_relaxed);
        cr_assert_eq(lport_fence(), 0);
        plain_missed[round] = atomic_load_explicit(&plain, memory_order_relaxed) != round;
        await_round(&plain, round);
    }
    task_join(&task);
    for (int round = 1; round <= ROUNDS; round++) {
        cr_assert_not(plain_missed[round] && fenced_missed[round], "round %d", round);
    }
}

SOCKET_TEST(fence, it_is_prepared_as_often_as_one_likes) {
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(lport_fence_prepare(), 0);
        cr_assert_eq(lport_fence(), 0);
    }
}

static enum lport_fence_command asked;

static int noting_membarrier(enum lport_fence_command command) {
    asked = command;
    return 0;
}

/* What a processor reorders it reorders too seldom to tell these two apart. */
SOCKET_TEST(fence, the_barrier_is_asked_for_and_not_the_leave_to_ask) {
    faults_watch();
    lport_os.membarrier = noting_membarrier;
    cr_assert_eq(lport_fence_prepare(), 0);
    cr_assert_eq(asked, LPORT_FENCE_PREPARE);
    cr_assert_eq(lport_fence(), 0);
    cr_assert_eq(asked, LPORT_FENCE);
    faults_clear();
}

SOCKET_TEST(fence, a_system_that_is_short_of_memory_does_not_say_that_it_has_none) {
    faults_fail(CALL_MEMBARRIER, 1, 2, ENOMEM);
    assert_kind(lport_fence_prepare(), LPORT_MEMORY_EXHAUSTED);
    assert_kind(lport_fence(), LPORT_MEMORY_EXHAUSTED);
    faults_clear();
}

SOCKET_TEST(fence, a_system_without_one_says_so) {
    static const int missing[] = {ENOSYS, EINVAL, EPERM};
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        faults_fail(CALL_MEMBARRIER, 1, 2, missing[i]);
        assert_kind(lport_fence_prepare(), LPORT_NOT_SUPPORTED);
        assert_kind(lport_fence(), LPORT_NOT_SUPPORTED);
        cr_assert_eq(lport_fence_prepare(), 0);
        faults_clear();
    }
}
