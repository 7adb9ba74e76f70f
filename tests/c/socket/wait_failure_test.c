/* wait: for the failure of a connection, and for nothing else that happens to it. */
#include "support.h"

TestSuite(wait_failure, .timeout = 20);

#define MS INT64_C(1000000)

static const int32_t families[] = {LPORT_INET, LPORT_LOCAL, LPORT_INET6};

/* Nothing ends a wait for a failure of SOCKET, and it does not run meanwhile. */
static void assert_no_failure(int64_t socket) {
    int64_t before = faults_calls(CALL_PPOLL);
    assert_kind(wait_for(socket, LPORT_FAILED, lport_clock_after(5 * MS)), LPORT_TIMED_OUT);
    cr_assert_leq(faults_calls(CALL_PPOLL) - before, 2);
    cr_assert_eq(lport_socket_failure(socket), 0);
}

/* Counts calls, so it is not for bad weather. */
SOCKET_TEST(wait_failure, is_neither_what_arrives_nor_an_end) {
    faults_watch();
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_connection(families[i], ends);
        assert_no_failure(ends[0]);
        cr_assert_eq(lport_socket_send(ends[1], (const uint8_t *)"x", 1), 1);
        assert_no_failure(ends[0]);
        cr_assert_eq(lport_socket_shutdown(ends[1], LPORT_OUTPUT), 0);
        assert_no_failure(ends[0]);
        cr_assert_eq(lport_socket_close(ends[1], 0), 0); /* which poll(2) tells of a local one */
        assert_no_failure(ends[0]);
        cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_OUTPUT), 0); /* and now of all */
        assert_no_failure(ends[0]);
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    }
}

/* Has the system tell the other end of ENDS[0] of a reset, behind an octet. */
static void break_connection(int64_t ends[2]) {
    cr_assert_eq(undisturbed(lport_socket_send(ends[0], (const uint8_t *)"x", 1)), 1);
    cr_assert_eq(undisturbed(lport_socket_send(ends[1], (const uint8_t *)"x", 1)), 1);
    cr_assert_eq(wait_for(ends[0], LPORT_INPUT, soon()), LPORT_INPUT);
    cr_assert_eq(lport_socket_close(ends[1], LPORT_RESET), 0);
}

/* What arrived before is there still, as it is without anybody who asks. */
SOCKET_TEST(wait_failure, is_told_before_what_arrived_is_received) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        uint8_t octet;
        make_connection(families[i], ends);
        break_connection(ends);
        for (int again = 0; again < 2; again++) {
            int64_t bits = wait_for(ends[0], LPORT_FAILED, soon());
            cr_assert_eq(bits & LPORT_FAILED, LPORT_FAILED);
            assert_kind(undisturbed(lport_socket_failure(ends[0])), LPORT_CONNECTION_RESET);
        }
        faults_watch(); /* EAGAIN, which no system says here, would be what broke it */
        cr_assert_eq(lport_socket_receive(ends[0], &octet, 1, 0), 1);
        faults_resume();
        assert_kind(undisturbed(lport_socket_receive(ends[0], &octet, 1, 0)),
                    LPORT_CONNECTION_RESET);
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    }
}

/* Has ENDS[1] reset the connection behind an octet and its end. */
static void break_behind_the_end(int64_t ends[2]) {
    cr_assert_eq(lport_socket_shutdown(ends[1], LPORT_OUTPUT), 0);
    cr_assert_eq(undisturbed(lport_socket_send(ends[0], (const uint8_t *)"x", 1)), 1);
    cr_assert_eq(wait_for(ends[1], LPORT_INPUT, soon()), LPORT_INPUT);
    cr_assert_eq(lport_socket_close(ends[1], LPORT_RESET), 0);
}

/* So who hands it on can do so to its end. */
SOCKET_TEST(wait_failure, leaves_what_had_ended_before_whole) {
    int64_t ends[2];
    uint8_t octet;
    make_connection(LPORT_INET, ends);
    cr_assert_eq(undisturbed(lport_socket_send(ends[1], (const uint8_t *)"x", 1)), 1);
    break_behind_the_end(ends);
    cr_assert_eq(wait_for(ends[0], LPORT_FAILED, soon()), LPORT_HANGUP | LPORT_FAILED);
    faults_watch();
    cr_assert_eq(lport_socket_failure(ends[0]), 0);
    assert_no_failure(ends[0]);
    cr_assert_eq(lport_socket_receive(ends[0], &octet, 1, 0), 1);
    cr_assert_eq(lport_socket_receive(ends[0], &octet, 1, 0), 0);
    assert_kind(lport_socket_send(ends[0], &octet, 1), LPORT_CONNECTION_RESET);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
}

/* What lport_wait_poll2 says of new waits, on FAILING for INTEREST and on READABLE for input. */
static int64_t wait_for_both(int64_t failing, int32_t interest, int64_t readable) {
    int64_t first = lport_wait_begin(failing, interest);
    int64_t second = lport_wait_begin(readable, LPORT_INPUT);
    int64_t result = lport_wait_poll2(first, second, soon(), 0);
    cr_assert_eq(lport_wait_end(first), 0);
    cr_assert_eq(lport_wait_end(second), 0);
    return result;
}

SOCKET_TEST(wait_failure, comes_beside_what_else_is_waited_for) {
    int64_t ends[2], others[2], input = LPORT_INPUT * LPORT_SECOND_WAIT;
    make_connection(LPORT_INET, ends);
    make_connection(LPORT_INET, others);
    cr_assert_eq(undisturbed(lport_socket_send(others[1], (const uint8_t *)"x", 1)), 1);
    cr_assert_eq(wait_for_both(ends[0], LPORT_FAILED, others[0]), input);
    break_connection(ends);
    cr_assert_eq(wait_for_both(ends[0], LPORT_FAILED, others[0]),
                 LPORT_HANGUP + LPORT_FAILED + input);
    cr_assert_eq(wait_for_both(ends[0], LPORT_INPUT | LPORT_FAILED, others[0]),
                 LPORT_INPUT + LPORT_HANGUP + LPORT_FAILED + input);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    close_both(others);
}

static int64_t waiting_for_a_failure(void *data) {
    return wait_for(*(int64_t *)data, LPORT_FAILED, soon());
}

/* As one for nothing is. */
SOCKET_TEST(wait_failure, whoever_waits_is_woken_for_either_direction) {
    static const int32_t directions[] = {LPORT_INPUT, LPORT_OUTPUT};
    int64_t ends[2];
    struct task task;
    make_connection(LPORT_INET, ends);
    for (size_t i = 0; i < 2; i++) {
        task_start(&task, waiting_for_a_failure, &ends[0]);
        task_until_asleep(&task, 1);
        cr_assert_eq(lport_wait_wake(ends[0], directions[i]), 1);
        cr_assert_eq(task_join(&task), 0);
    }
    close_both(ends);
}

/* That of a message is for the call that moves one. */
SOCKET_TEST(wait_failure, is_not_of_a_message) {
    int64_t pair[2];
    cr_assert_eq(lport_socket_pair(LPORT_DATAGRAM, pair), 0);
    assert_kind(lport_socket_failure(pair[0]), LPORT_NOT_SUPPORTED);
    close_both(pair);
}
