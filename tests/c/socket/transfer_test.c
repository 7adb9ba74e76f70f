/* transfer: octets in and out, ends of file, half-closes, resets. */
#include "base/os.h"
#include "socket/socket.h"
#include "support.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

TestSuite(transfer, .timeout = 20);

static const int32_t inets[] = {LPORT_INET, LPORT_INET6};
static const int32_t families[] = {LPORT_INET, LPORT_LOCAL, LPORT_INET6};

static int64_t receive_octet(int64_t socket) {
    uint8_t octet;
    return receive_some(socket, &octet, 1, soon());
}

static void assert_sends(int64_t socket, const char *text) {
    cr_assert_eq(send_all(socket, (const uint8_t *)text, strlen(text), soon()),
                 (int64_t)strlen(text));
}

static void assert_receives(int64_t socket, const char *text) {
    char octets[64] = "";
    cr_assert_leq(strlen(text), sizeof octets);
    int64_t count = receive_all(socket, (uint8_t *)octets, strlen(text), soon());
    cr_assert_eq(count, (int64_t)strlen(text), "%lld of \"%s\"", (long long)count, text);
    cr_assert_arr_eq(octets, text, strlen(text));
}

/* ---- end of file and half-close -------------------------------------------------------------- */

/* Behaviour 27. */
SOCKET_TEST(transfer, end_of_file_repeats) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_connection(families[i], ends);
        assert_sends(ends[1], "last");
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
        assert_receives(ends[0], "last");
        for (int j = 0; j < 4; j++) {
            cr_assert_eq(receive_octet(ends[0]), 0);
        }
        cr_assert_eq(lport_socket_state(ends[0]), 0);
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    }
}

/* Behaviour 28. */
SOCKET_TEST(transfer, after_a_half_close_the_other_direction_still_works) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_connection(families[i], ends);
        assert_sends(ends[0], "all of it");
        cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_OUTPUT), 0);
        assert_receives(ends[1], "all of it");
        cr_assert_eq(receive_octet(ends[1]), 0);
        for (int j = 0; j < 3; j++) {
            assert_sends(ends[1], "and back");
            assert_receives(ends[0], "and back");
            cr_assert_eq(receive_octet(ends[1]), 0);
        }
        close_both(ends);
    }
}

/* Behaviour 29. */
SOCKET_TEST(transfer, sending_after_our_own_shutdown_is_an_error_of_ours) {
    static const uint8_t octets[2];
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_connection(families[i], ends);
        cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_OUTPUT), 0);
        for (int j = 0; j < 3; j++) {
            assert_kind(lport_socket_send(ends[0], octets, 1), LPORT_OUTPUT_SHUT);
            assert_kind(lport_socket_send2(ends[0], octets, 1, octets, 1), LPORT_OUTPUT_SHUT);
        }
        cr_assert_eq(lport_socket_state(ends[0]), LPORT_STATE_OUTPUT_SHUT);
        assert_sends(ends[1], "not broken");
        assert_receives(ends[0], "not broken");
        close_both(ends);
    }
}

/* Behaviour 30. */
SOCKET_TEST(transfer, after_input_is_shut_down_nothing_is_delivered) {
    uint8_t octet;
    for (size_t i = 0; i < FAMILIES_HERE(inets); i++) {
        int64_t ends[2];
        make_connection(inets[i], ends);
        assert_sends(ends[1], "before");
        cr_assert_eq(wait_for(ends[0], LPORT_INPUT, soon()), LPORT_INPUT);
        cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_INPUT), 0);
        cr_assert_eq(receive_octet(ends[0]), 0);
        assert_sends(ends[1], "after");
        for (int j = 0; j < 3; j++) {
            cr_assert_eq(lport_socket_receive(ends[0], &octet, 1, 0), 0);
            cr_assert_eq(lport_socket_receive(ends[0], &octet, 1, LPORT_PEEK), 0);
        }
        assert_sends(ends[0], "output goes on");
        assert_receives(ends[1], "output goes on");
        close_both(ends);
    }
}

static int64_t receiving(void *data) {
    return receive_octet(*(int64_t *)data);
}

SOCKET_TEST(transfer, shutting_input_down_ends_a_blocked_receive_with_end_of_file) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        struct task task;
        int64_t ends[2];
        make_connection(families[i], ends);
        task_start(&task, receiving, &ends[0]);
        task_until_asleep(&task, 1);
        cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_INPUT), 0);
        cr_assert_eq(task_join(&task), 0);
        close_both(ends);
    }
}

/* ---- resets ---------------------------------------------------------------------------------- */

static void assert_broken(int64_t socket) {
    static uint8_t octets[4];
    for (int i = 0; i < 3; i++) {
        assert_kind(undisturbed(lport_socket_receive(socket, octets, 4, 0)),
                    LPORT_CONNECTION_RESET);
        assert_kind(undisturbed(lport_socket_receive(socket, octets, 4, LPORT_PEEK)),
                    LPORT_CONNECTION_RESET);
        assert_kind(lport_socket_send(socket, octets, 4), LPORT_CONNECTION_RESET);
        assert_kind(lport_socket_send2(socket, octets, 2, octets, 2), LPORT_CONNECTION_RESET);
    }
    cr_assert(lport_socket_state(socket) & LPORT_STATE_BROKEN);
}

/* Behaviours 24, 31, 34, 35 and 18. */
SOCKET_TEST(transfer, an_abortive_close_is_a_reset_at_the_peer_for_ever) {
    for (size_t i = 0; i < FAMILIES_HERE(inets); i++) {
        int64_t ends[2];
        make_connection(inets[i], ends);
        cr_assert_eq(lport_socket_close(ends[0], LPORT_RESET), 0);
        assert_kind(receive_octet(ends[1]), LPORT_CONNECTION_RESET);
        assert_broken(ends[1]);
        for (int32_t direction = LPORT_INPUT; direction <= 3; direction++) {
            cr_assert_eq(lport_socket_shutdown(ends[1], direction), 0, "behaviour 35");
        }
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    }
}

/* Behaviour 24: what was not sent is dropped. */
SOCKET_TEST(transfer, an_abortive_close_sends_nothing_more) {
    int64_t ends[2];
    uint8_t octets[65536];
    int64_t count;
    make_connection(LPORT_INET, ends);
    assert_kind(clog_up(ends[0]), LPORT_WOULD_BLOCK);
    cr_assert_eq(lport_socket_close(ends[0], LPORT_RESET), 0);
    do { /* what had arrived; then the reset, and no end of file as if that had been all */
        count = receive_some(ends[1], octets, sizeof octets, soon());
    } while (count > 0);
    assert_kind(count, LPORT_CONNECTION_RESET);
    assert_broken(ends[1]);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
}

/* Behaviours 31 and 34: found out by sending, kept for receiving. */
SOCKET_TEST(transfer, a_reset_found_by_sending_is_kept_for_receiving) {
    for (size_t i = 0; i < FAMILIES_HERE(inets); i++) {
        int64_t ends[2];
        make_connection(inets[i], ends);
        cr_assert_eq(lport_socket_close(ends[0], LPORT_RESET), 0);
        cr_assert(wait_for(ends[1], LPORT_INPUT, soon()) & LPORT_HANGUP);
        assert_kind(undisturbed(lport_socket_send(ends[1], (const uint8_t *)"x", 1)),
                    LPORT_CONNECTION_RESET);
        assert_broken(ends[1]);
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    }
}

/* Behaviour 32. */
SOCKET_TEST(transfer, what_arrived_before_a_reset_is_read_first) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_connection(families[i], ends);
        assert_sends(ends[0], "never read");
        assert_sends(ends[1], "last words");
        cr_assert_gt(wait_for(ends[1], LPORT_INPUT, soon()), 0);
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
        int64_t waited = 0;
        while (waited >= 0 && (waited & LPORT_HANGUP) == 0) { /* until the reset is here too */
            waited = wait_for(ends[0], LPORT_INPUT, soon());
        }
        assert_receives(ends[0], "last");
        assert_receives(ends[0], " words");
        assert_kind(receive_octet(ends[0]), LPORT_CONNECTION_RESET);
        assert_broken(ends[0]);
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    }
}

/* Behaviour 32, with the reset found out by sending before the octets were read. */
SOCKET_TEST(transfer, a_reset_that_is_known_does_not_hide_octets) {
    int64_t ends[2];
    make_connection(LPORT_LOCAL, ends);
    assert_sends(ends[1], "last words");
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    assert_kind(undisturbed(lport_socket_send(ends[0], (const uint8_t *)"x", 1)),
                LPORT_CONNECTION_RESET);
    cr_assert_eq(lport_socket_state(ends[0]), LPORT_STATE_BROKEN);
    assert_receives(ends[0], "last words");
    assert_broken(ends[0]);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
}

/* Behaviour 33: one class, and no SIGPIPE, which would end this process. */
SOCKET_TEST(transfer, writing_to_a_dead_peer_is_one_status_and_no_signal) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_connection(families[i], ends);
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
        cr_assert_eq(receive_octet(ends[0]), 0);
        int64_t count = send_some(ends[0], (const uint8_t *)"x", 1, soon());
        while (count > 0) { /* TCP takes some until the peer's reset has come */
            cr_assert_geq(wait_for(ends[0], LPORT_INPUT, soon()), 0);
            count = send_some(ends[0], (const uint8_t *)"x", 1, soon());
        }
        assert_kind(count, LPORT_CONNECTION_RESET);
        assert_kind(lport_socket_send2(ends[0], (const uint8_t *)"x", 1, NULL, 0),
                    LPORT_CONNECTION_RESET);
        assert_broken(ends[0]);
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    }
}

SOCKET_TEST(transfer, two_pieces_for_a_dead_peer_are_no_signal) {
    uint8_t octet = 1;
    int64_t ends[2], zero = 0;
    for (int i = 0; i < 2; i++) {
        make_connection(LPORT_LOCAL, ends);
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
        int64_t sent = undisturbed(i == 0 ? lport_socket_send2(ends[0], &octet, 1, &octet, 1)
                                          : lport_local_send(ends[0], &octet, 1, &zero, 1));
        assert_kind(sent, LPORT_CONNECTION_RESET);
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    }
}

/* Its refusal of what we send says nothing of what it sends. */
SOCKET_TEST(transfer, a_local_peer_that_shut_its_input_down_is_received_from_all_the_same) {
    uint8_t octet = 'x';
    int64_t ends[2];
    make_connection(LPORT_LOCAL, ends);
    cr_assert_eq(lport_socket_shutdown(ends[1], LPORT_INPUT), 0);
    assert_kind(send_some(ends[0], &octet, 1, soon()), LPORT_CONNECTION_RESET);
    assert_kind(undisturbed(lport_socket_receive(ends[0], &octet, 1, 0)), LPORT_WOULD_BLOCK);
    cr_assert_eq(send_some(ends[1], &octet, 1, soon()), 1);
    cr_assert_eq(receive_octet(ends[0]), 1);
    close_both(ends);
}

/* Behaviour 33 and the table of status: whatever way a connection dies, it is remembered. */
SOCKET_TEST(transfer, every_way_to_die_is_remembered) {
    static const struct {
        int error;
        int32_t kind;
    } ways[] = {
        {ECONNRESET, LPORT_CONNECTION_RESET},
        {EPIPE, LPORT_CONNECTION_RESET},
        {ECONNABORTED, LPORT_CONNECTION_ABORTED},
        {ETIMEDOUT, LPORT_CONNECTION_LOST},
        {EHOSTUNREACH, LPORT_CONNECTION_LOST},
        {ENETDOWN, LPORT_CONNECTION_LOST},
        /* What ICMP said of a connection that is given up. */
        {ECONNREFUSED, LPORT_CONNECTION_LOST},
        {EACCES, LPORT_CONNECTION_LOST},
        {EPROTO, LPORT_CONNECTION_LOST},
        {ENOPROTOOPT, LPORT_CONNECTION_LOST},
    };
    static const enum call calls[] = {CALL_RECV, CALL_SEND, CALL_SENDMSG};
    uint8_t octet = 1;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        for (size_t j = 0; j < 3; j++) {
            int64_t ends[2];
            make_connection(LPORT_INET, ends);
            faults_fail(calls[j], 1, 1, ways[i].error);
            int64_t status = j == 0   ? lport_socket_receive(ends[0], &octet, 1, 0)
                             : j == 1 ? lport_socket_send(ends[0], &octet, 1)
                                      : lport_socket_send2(ends[0], &octet, 1, NULL, 0);
            faults_clear();
            assert_kind(status, ways[i].kind);
            cr_assert_eq(lport_status_errno(status), ways[i].error);
            cr_assert_eq(lport_socket_receive(ends[0], &octet, 1, 0), status);
            cr_assert_eq(lport_socket_send(ends[0], &octet, 1), status);
            cr_assert_eq(lport_socket_state(ends[0]), LPORT_STATE_BROKEN);
            close_both(ends);
        }
    }
}

/* What passes by itself is no death. */
SOCKET_TEST(transfer, statuses_that_pass_are_not_remembered) {
    static const int errors[] = {EAGAIN, ENOBUFS, ENOMEM, EPERM};
    int64_t ends[2];
    uint8_t octet = 1;
    make_connection(LPORT_INET, ends);
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        faults_fail(CALL_SEND, 1, 1, errors[i]);
        faults_fail(CALL_RECV, 1, 1, errors[i]);
        cr_assert_lt(lport_socket_send(ends[0], &octet, 1), 0);
        cr_assert_lt(lport_socket_receive(ends[1], &octet, 1, 0), 0);
        faults_clear();
        assert_sends(ends[0], "well");
        assert_receives(ends[1], "well");
    }
    cr_assert_eq(lport_socket_state(ends[0]), 0);
    close_both(ends);
}

/* ---- data ------------------------------------------------------------------------------------ */

/* Behaviour 40. */
SOCKET_TEST(transfer, nothing_can_be_moved_at_once_and_is_no_end_of_file) {
    uint8_t octet = 1;
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_connection(families[i], ends);
        for (int j = 0; j < 3; j++) {
            cr_assert_eq(lport_socket_receive(ends[0], NULL, 0, 0), 0);
            cr_assert_eq(lport_socket_receive(ends[0], &octet, 0, LPORT_PEEK), 0);
            cr_assert_eq(lport_socket_send(ends[0], NULL, 0), 0);
            cr_assert_eq(lport_socket_send2(ends[0], NULL, 0, NULL, 0), 0);
        }
        assert_kind(undisturbed(lport_socket_receive(ends[1], &octet, 1, 0)), LPORT_WOULD_BLOCK);
        assert_sends(ends[1], "a");
        cr_assert_eq(lport_socket_receive(ends[0], NULL, 0, 0), 0);
        assert_receives(ends[0], "a");
        assert_kind(clog_up(ends[0]), LPORT_WOULD_BLOCK);
        cr_assert_eq(lport_socket_send(ends[0], NULL, 0), 0);
        close_both(ends);
    }
}

/* Behaviour 42: what an interruption leaves in errno says nothing of the call that follows it. */
SOCKET_TEST(transfer, an_interruption_is_over_with_the_next_call) {
    const uint8_t octet = 'a';
    uint8_t octets[8];
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_connection(families[i], ends);
        faults_fail(CALL_SEND, 1, 1, EINTR);
        cr_assert_eq(lport_socket_send(ends[0], &octet, 1), 1);
        faults_fail(CALL_SENDMSG, 1, 1, EINTR);
        cr_assert_eq(lport_socket_send2(ends[0], &octet, 1, &octet, 1), 2);
        cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_OUTPUT), 0);
        faults_fail(CALL_RECV, 1, 1, EINTR);
        cr_assert_eq(receive_all(ends[1], octets, sizeof octets, soon()), 3);
        faults_fail(CALL_RECV, 1, 1, EINTR);
        cr_assert_eq(lport_socket_receive(ends[1], octets, sizeof octets, 0), 0);
        faults_resume();
        close_both(ends);
    }
}

SOCKET_TEST(transfer, peek_leaves_the_octets) {
    uint8_t octets[8];
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_connection(families[i], ends);
        assert_kind(undisturbed(lport_socket_receive(ends[0], octets, 8, LPORT_PEEK)),
                    LPORT_WOULD_BLOCK);
        assert_sends(ends[1], "abcd");
        cr_assert_eq(wait_for(ends[0], LPORT_INPUT, soon()), LPORT_INPUT);
        for (int j = 0; j < 3; j++) {
            cr_assert_eq(undisturbed(lport_socket_receive(ends[0], octets, 8, LPORT_PEEK)),
                         (int64_t)faults_most(4));
            cr_assert_arr_eq(octets, "abcd", faults_most(4));
        }
        assert_receives(ends[0], "abc");
        assert_receives(ends[0], "d");
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
        cr_assert_eq(wait_for(ends[0], LPORT_INPUT, soon()) & LPORT_INPUT, LPORT_INPUT);
        cr_assert_eq(undisturbed(lport_socket_receive(ends[0], octets, 8, LPORT_PEEK)), 0);
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    }
}

/* Sends A and then B, as much at a time as one call takes. */
static void assert_sends_two(int64_t socket, const char *a, const char *b) {
    size_t a_len = strlen(a), b_len = strlen(b), done = 0;
    while (done < a_len + b_len) {
        size_t a_done = done < a_len ? done : a_len, b_done = done - a_done;
        int64_t count =
            undisturbed(lport_socket_send2(socket, (const uint8_t *)a + a_done, a_len - a_done,
                                           (const uint8_t *)b + b_done, b_len - b_done));
        cr_assert_eq(count, (int64_t)faults_most(a_len + b_len - done));
        done += (size_t)count;
    }
}

SOCKET_TEST(transfer, two_pieces_go_out_in_order) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_connection(families[i], ends);
        assert_sends_two(ends[0], "first", "second");
        assert_receives(ends[1], "firstsecond");
        assert_sends_two(ends[0], "", "second");
        assert_receives(ends[1], "second");
        assert_sends_two(ends[0], "first", "");
        assert_receives(ends[1], "first");
        assert_kind(clog_up(ends[0]), LPORT_WOULD_BLOCK);
        assert_kind(undisturbed(lport_socket_send2(ends[0], (const uint8_t *)"a", 1,
                                                   (const uint8_t *)"b", 1)),
                    LPORT_WOULD_BLOCK);
        close_both(ends);
    }
}

struct stream {
    int64_t socket;
    size_t len, piece; /* PIECE 0: of random lengths from 1 to 16384 */
    uint64_t seed;
};

enum { MEGABYTE = 1 << 20 };

static size_t next_piece(struct stream *stream, uint64_t *draw, size_t left) {
    *draw = *draw * UINT64_C(6364136223846793005) + 1442695040888963407u;
    size_t piece = stream->piece != 0 ? stream->piece : (size_t)(*draw >> 40) % 16384 + 1;
    return piece < left ? piece : left;
}

/* Sends the octets of STREAM in its pieces; 0 or a status. */
static int64_t sending(void *data) {
    struct stream *stream = data;
    uint64_t draw = stream->seed;
    uint8_t *octets = malloc(stream->len);
    int64_t sent = octets == NULL ? -1 : 0;
    fill(octets, octets == NULL ? 0 : stream->len, stream->seed);
    for (size_t done = 0; done < stream->len && sent >= 0; done += (size_t)sent) {
        size_t piece = next_piece(stream, &draw, stream->len - done);
        sent = send_all(stream->socket, octets + done, piece, soon());
    }
    free(octets);
    return sent < 0 ? sent : lport_socket_shutdown(stream->socket, LPORT_OUTPUT);
}

/* Receives the octets of STREAM and the end of file: how many before the first wrong one. */
static int64_t checking(void *data) {
    struct stream *stream = data;
    uint64_t draw = ~stream->seed;
    uint8_t *octets = malloc(stream->len), *right = malloc(stream->len);
    int64_t count = octets != NULL && right != NULL ? 1 : -1;
    size_t done = 0, same = 0;
    while (done < stream->len && count > 0) {
        size_t piece = next_piece(stream, &draw, stream->len - done);
        count = receive_some(stream->socket, octets + done, piece, soon());
        done += count > 0 ? (size_t)count : 0;
    }
    if (count > 0 && receive_octet(stream->socket) == 0) {
        fill(right, stream->len, stream->seed);
        while (same < stream->len && octets[same] == right[same]) {
            same++;
        }
    }
    free(octets);
    free(right);
    return count < 0 ? count : (int64_t)same;
}

/* LEN octets from one end to the other, and where ALSO_BACK the same way back at once. */
static void assert_streams(int32_t family, size_t len, size_t piece, bool also_back,
                           uint64_t seed) {
    int64_t ends[2];
    struct task tasks[4];
    struct stream streams[4];
    int count = also_back ? 4 : 2;
    make_connection(family, ends);
    for (int i = 0; i < count; i++) {
        int from = i / 2; /* tasks 0 and 1: first end to second; 2 and 3: back */
        streams[i] =
            (struct stream){ends[i % 2 == 0 ? from : 1 - from], len, piece, seed + (uint64_t)from};
        task_start(&tasks[i], i % 2 == 0 ? sending : checking, &streams[i]);
    }
    for (int i = 0; i < count; i++) {
        int64_t result = task_join(&tasks[i]);
        cr_assert_eq(result, i % 2 == 0 ? 0 : (int64_t)len, "family %d, seed %llu: %lld",
                     (int)family, (unsigned long long)seed, (long long)result);
    }
    close_both(ends);
}

/* Behaviour 37. */
SOCKET_TEST(transfer, a_megabyte_in_kilobytes_and_then_end_of_file) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        assert_streams(families[i], amount(MEGABYTE), 1024, false, faults_seed());
    }
}

/* Behaviour 39. */
SOCKET_TEST(transfer, a_megabyte_each_way_at_once_in_random_pieces) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        assert_streams(families[i], amount(MEGABYTE), 0, true, faults_seed());
    }
}

/* Behaviour 42: every call cut to one octet, three of ten interrupted or told to wait. */
SOCKET_TEST(transfer, octets_one_by_one_through_signals_and_full_buffers) {
    uint64_t seed = faults_seed();
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        faults_disturb(seed, 30);
        faults_cut(1);
        assert_streams(families[i], 6000, 0, true, seed);
        cr_assert_gt(faults_struck(), 6000, "seed %llu", (unsigned long long)seed);
        faults_clear();
    }
}

static int64_t echoing(void *data) {
    int64_t socket = *(int64_t *)data, count;
    uint8_t octets[64];
    do {
        count = receive_some(socket, octets, sizeof octets, soon());
    } while (count > 0 && send_all(socket, octets, (size_t)count, soon()) == count);
    return count;
}

/* Behaviour 38. */
SOCKET_TEST(transfer, a_thousand_steps_of_ping_pong) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        struct task task;
        make_connection(families[i], ends);
        task_start(&task, echoing, &ends[1]);
        for (int step = 0; step < 1000; step++) {
            uint8_t sent[4], received[4];
            fill(sent, sizeof sent, (uint64_t)step);
            cr_assert_eq(send_all(ends[0], sent, sizeof sent, soon()), 4);
            cr_assert_eq(receive_all(ends[0], received, sizeof received, soon()), 4);
            cr_assert_arr_eq(sent, received, sizeof sent);
        }
        cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_OUTPUT), 0);
        cr_assert_eq(task_join(&task), 0);
        close_both(ends);
    }
}

/* ---- beyond the range of an int -------------------------------------------------------------- */

#define HUGE (((size_t)5) << 30) /* 5 GiB: above INT_MAX and UINT_MAX both */

static uint8_t *map_huge(int protection) {
    void *region = mmap(NULL, HUGE, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert_neq(region, MAP_FAILED);
    return region;
}

/* Receives into one huge vector, over and over, until end of file: how many octets came. */
static int64_t swallowing(void *data) {
    struct stream *stream = data;
    uint8_t *octets = (uint8_t *)(uintptr_t)stream->seed;
    int64_t count, total = 0;
    do {
        count = receive_some(stream->socket, octets, stream->len, soon());
        total += count > 0 ? count : 0;
    } while (count > 0);
    return count < 0 ? count : total;
}

/* Behaviour 41: the length of one call beyond an int, and more octets in all than an int counts. */
SOCKET_TEST(transfer, lengths_beyond_an_int) {
    faults_watch(); /* 2,200 MiB do not go octet by octet */
    uint8_t *source = map_huge(PROT_READ), *target = map_huge(PROT_READ | PROT_WRITE);
    const int64_t total = INT64_C(2200) << 20;
    int64_t ends[2], sent = 0;
    make_connection(LPORT_LOCAL, ends);
    struct stream stream = {.socket = ends[1], .len = HUGE, .seed = (uint64_t)(uintptr_t)target};
    struct task task;
    task_start(&task, swallowing, &stream);
    for (int i = 0; sent < total; i++) {
        int64_t count = i % 2 == 0 ? lport_socket_send(ends[0], source, HUGE)
                                   : lport_socket_send2(ends[0], source, 1, source, HUGE);
        if (lport_status_kind(count) == LPORT_WOULD_BLOCK) {
            count = wait_for(ends[0], LPORT_OUTPUT, soon()) < 0 ? -1 : 0;
        }
        cr_assert(count >= 0 && (uint64_t)count <= HUGE + 1, "%lld", (long long)count);
        sent += count;
    }
    cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_OUTPUT), 0);
    cr_assert_eq(task_join(&task), sent);
    close_both(ends);
    cr_assert_eq(munmap(source, HUGE), 0);
    cr_assert_eq(munmap(target, HUGE), 0);
}

/* Behaviour 41: a result of the system above INT_MAX is told whole. */
static ssize_t huge_result(int fd, const void *octets, size_t len, int flags) {
    (void)fd, (void)octets, (void)flags;
    return (ssize_t)len;
}

static ssize_t huge_receive(int fd, void *octets, size_t len, int flags) {
    (void)fd, (void)octets, (void)flags;
    return (ssize_t)len;
}

SOCKET_TEST(transfer, counts_beyond_an_int_are_told_whole) {
    faults_watch(); /* the two calls are replaced by its own */
    struct lport_os real = lport_os;
    int64_t ends[2];
    uint8_t octet = 0;
    make_connection(LPORT_INET, ends);
    lport_os.send = huge_result;
    lport_os.recv = huge_receive;
    int64_t sent = lport_socket_send(ends[0], &octet, HUGE);
    int64_t received = lport_socket_receive(ends[0], &octet, HUGE, 0);
    lport_os = real;
    cr_assert_eq(sent, (int64_t)HUGE);
    cr_assert_eq(received, (int64_t)HUGE);
    close_both(ends);
}

/* ---- datagrams ------------------------------------------------------------------------------- */

/* Behaviour 63. */
SOCKET_TEST(transfer, a_refused_datagram_is_told_and_the_socket_goes_on) {
    int64_t ends[2];
    uint8_t octet = 1;
    make_datagram_ends(ends);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(undisturbed(lport_socket_send(ends[0], &octet, 1)), 1);
        assert_kind(receive_some(ends[0], &octet, 1, soon()), LPORT_CONNECTION_REFUSED);
        cr_assert_eq(lport_socket_state(ends[0]), 0);
        assert_kind(undisturbed(lport_socket_receive(ends[0], &octet, 1, 0)), LPORT_WOULD_BLOCK);
    }
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
}

/* A listener has no connection that could break either, whatever is tried on it. */
SOCKET_TEST(transfer, a_listener_is_not_connected) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        uint8_t address[LPORT_ADDRESS_SIZE];
        int64_t listener = listen_on_loopback(families[i], address);
        assert_kind(lport_socket_send(listener, address, 1), LPORT_NOT_CONNECTED);
        assert_kind(lport_socket_send2(listener, address, 1, NULL, 0), LPORT_NOT_CONNECTED);
        assert_kind(lport_socket_send_file(listener, 0, 0, 1), LPORT_NOT_CONNECTED);
        cr_assert_eq(lport_socket_state(listener), LPORT_STATE_LISTENING);
        cr_assert_eq(lport_socket_close(listener, 0), 0);
    }
}

/* Datagrams have no connection that could break. */
SOCKET_TEST(transfer, a_datagram_socket_is_never_broken) {
    int64_t ends[2];
    uint8_t octet = 1;
    make_datagram_ends(ends);
    faults_fail(CALL_SEND, 1, 1, ECONNRESET);
    faults_fail(CALL_RECV, 1, 1, ENETDOWN);
    assert_kind(lport_socket_send(ends[0], &octet, 1), LPORT_CONNECTION_RESET);
    assert_kind(lport_socket_receive(ends[1], &octet, 1, 0), LPORT_CONNECTION_LOST);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(lport_socket_state(ends[i]), 0);
        cr_assert_eq(lport_socket_send(ends[i], &octet, 1), 1);
        cr_assert_eq(receive_some(ends[1 - i], &octet, 1, soon()), 1);
    }
    close_both(ends);
}

/* Behaviour 63. */
SOCKET_TEST(transfer, datagrams_that_are_empty_or_too_long) {
    static uint8_t octets[70000];
    int64_t ends[2];
    make_datagram_ends(ends);
    cr_assert_eq(undisturbed(lport_socket_send(ends[0], NULL, 0)), 0);
    cr_assert_eq(wait_for(ends[1], LPORT_INPUT, soon()), LPORT_INPUT, "an empty one is sent too");
    cr_assert_eq(undisturbed(lport_socket_receive(ends[1], octets, 8, 0)), 0);
    cr_assert_eq(undisturbed(lport_socket_send2(ends[0], NULL, 0, NULL, 0)), 0);
    cr_assert_eq(wait_for(ends[1], LPORT_INPUT, soon()), LPORT_INPUT);
    cr_assert_eq(undisturbed(lport_socket_receive(ends[1], octets, 8, 0)), 0);
    assert_kind(undisturbed(lport_socket_receive(ends[1], octets, 8, 0)), LPORT_WOULD_BLOCK);
    assert_kind(undisturbed(lport_socket_send(ends[0], octets, sizeof octets)),
                LPORT_MESSAGE_TOO_LONG);
    cr_assert_eq(undisturbed(lport_socket_send(ends[0], octets, 60000)), 60000);
    cr_assert_eq(receive_some(ends[1], octets, sizeof octets, soon()), 60000);
    close_both(ends);
}
