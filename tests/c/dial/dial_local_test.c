/* Dials to local names. */
#include "dial/dial_attempt.h"
#include "dialling.h"
#include "faults.h"
#include "libport.h"
#include "socket/socket.h"
#include "support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

DIAL_SUITE(dial_local);

static void local_name(uint8_t *address) {
    char name[64];
    int len = snprintf(name, sizeof name, "@port-dial-test-%ld", (long)getpid());
    cr_assert_eq(lport_address_local(name, (size_t)len, address) >= 0, 1);
}

Test(dial_local, a_local_name_connects_in_one_step) {
    static const int32_t kinds[] = {LPORT_STREAM, LPORT_SEQPACKET, LPORT_DATAGRAM};
    block address;
    local_name(address);
    for (int i = 0; i < 3; i++) {
        int64_t listener = lport_local_listen(address, kinds[i], -1, -1, 0, NULL, 0);
        cr_assert_gt(listener, 0);
        int64_t dial =
            lport_dial_open_addresses(address, 1, kinds[i], NULL, LPORT_NODELAY | LPORT_KEEPALIVE);
        int64_t socket = lport_dial_step(dial);
        cr_assert_gt(socket, 0, "%s", lport_kind_name(kind(socket)));
        lport_dial_close(dial);
        lport_socket_close(socket, 0);
        lport_socket_close(listener, 0);
    }
    check_nothing_left();
}

Test(dial_local, a_full_local_backlog_is_tried_again) {
    faults_watch(); /* polls are counted */
    block address;
    int64_t fillers[FILLERS];
    int filled = 0;
    local_name(address);
    int64_t listener = lport_local_listen(address, LPORT_STREAM, 0, -1, 0, NULL, 0);
    cr_assert_gt(listener, 0);
    for (; filled < FILLERS; filled++) {
        fillers[filled] = lport_socket_open(LPORT_LOCAL, LPORT_STREAM, 0);
        if (lport_socket_connect_start(fillers[filled], address) < 0) {
            break;
        }
    }
    cr_assert_lt(filled, FILLERS);
    int64_t dial = lport_dial_open_addresses(address, 1, LPORT_STREAM, NULL, 0);
    int64_t begin = faults_calls(CALL_PPOLL);
    /* 1, 2, 4, 8, 16, 32, 50, 50 ms: a poll for each, and it does not spin */
    cr_assert_eq(kind(finish(dial, lport_clock_after(150 * MS))), LPORT_TIMED_OUT);
    int64_t polls = faults_calls(CALL_PPOLL) - begin;
    cr_assert_leq(polls, 12, "%lld polls", (long long)polls);
    /* However often the machine has paused meanwhile, it is tried again and again. */
    int64_t limit = lport_clock_after(10 * S);
    while (faults_calls(CALL_PPOLL) - begin < 4 && lport_clock_now() < limit) {
        cr_assert_eq(kind(finish(dial, lport_clock_after(150 * MS))), LPORT_TIMED_OUT);
    }
    cr_assert_geq(faults_calls(CALL_PPOLL) - begin, 4);
    block tried;
    cr_assert_eq(kind(lport_dial_attempt(dial, 0, tried)), LPORT_IN_PROGRESS);
    cr_assert_arr_eq(tried, address, LPORT_ADDRESS_SIZE);
    int64_t peer = lport_socket_accept(listener, NULL);
    int64_t socket = finish_soon(dial);
    cr_assert_gt(socket, 0);
    lport_dial_close(dial);
    lport_socket_close(socket, 0);
    lport_socket_close(peer, 0);
    for (int i = 0; i <= filled; i++) {
        lport_socket_close(fillers[i], 0);
    }
    lport_socket_close(listener, 0);
    check_nothing_left();
}

Test(dial_local, the_pauses_of_a_full_local_backlog_double_up_to_50_ms) {
    static const int64_t pauses[] = {1, 2, 4, 8, 16, 32, 50, 50, 50};
    const struct lport_attempt_plan plan = {.kind = LPORT_STREAM};
    struct lport_attempt attempt;
    int64_t now = lport_clock_now();
    block address;
    local_name(address);
    faults_fail(CALL_CONNECT, 1, 1 + COUNT_OF(pauses), EAGAIN);
    lport_attempt_init(&attempt, address);
    cr_assert_eq(kind(lport_attempt_start(&attempt, &plan, now)), LPORT_IN_PROGRESS);
    for (size_t i = 0; i < COUNT_OF(pauses); i++) {
        cr_assert_eq(attempt.retry_at, now + pauses[i] * MS, "pause %zu", i);
        now = attempt.retry_at;
        cr_assert_eq(kind(lport_attempt_retry(&attempt, &plan, now)), LPORT_IN_PROGRESS);
    }
    faults_resume();
    lport_attempt_close(&attempt, 0);
    check_nothing_left();
}

Test(dial_local, a_wait_ends_with_the_pause_of_a_full_local_backlog) {
    block address;
    local_name(address);
    int64_t dial = lport_dial_open_addresses(address, 1, LPORT_STREAM, NULL, 0);
    faults_fail(CALL_CONNECT, 1, 1, EAGAIN);
    cr_assert_eq(kind(lport_dial_step(dial)), LPORT_IN_PROGRESS);
    faults_resume();
    cr_assert_eq(undisturbed(lport_dial_wait(dial, soon())), 0);
    lport_dial_close(dial);
    check_nothing_left();
}

Test(dial_local, a_local_name_that_nobody_has) {
    block address;
    cr_assert_geq(lport_address_local("/no/such/socket", 15, address), 0);
    int64_t dial = lport_dial_open_addresses(address, 1, LPORT_STREAM, NULL, 0);
    cr_assert_eq(kind(finish_soon(dial)), LPORT_PATH_NOT_FOUND);
    lport_dial_close(dial);
    local_name(address);
    dial = lport_dial_open_addresses(address, 1, LPORT_STREAM, NULL, 0);
    cr_assert_eq(kind(finish_soon(dial)), LPORT_CONNECTION_REFUSED);
    lport_dial_close(dial);
    check_nothing_left();
}
