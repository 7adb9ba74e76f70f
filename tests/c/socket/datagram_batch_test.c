/* datagram_batch: many messages by one call are the same as one by one. */
#include "address/address.h"
#include "base/os.h"
#include "support.h"

#include <errno.h>
#include <string.h>

TestSuite(datagram_batch, .timeout = 10);

enum { MOST = 150, ROOM = 1500 };

static struct {
    uint8_t octets[MOST * ROOM];
    int64_t lengths[MOST];
    uint8_t ends[MOST * LPORT_ADDRESS_SIZE];
} out, in;

static void open_ends(int32_t family, int64_t ends[2], uint8_t at[2][LPORT_ADDRESS_SIZE]) {
    for (int i = 0; i < 2; i++) {
        loopback(family, 0, at[i]);
        ends[i] = lport_datagram_open(at[i], i == 1 ? at[0] : NULL, 0, NULL, 0);
        cr_assert_gt(ends[i], 0);
        cr_assert_eq(lport_socket_name(ends[i], at[i]), family);
    }
}

static int64_t send_out(int64_t socket, int32_t first, int32_t count) {
    return lport_datagram_send_batch(socket, out.octets + first * ROOM, ROOM, out.lengths + first,
                                     out.ends + first * LPORT_ADDRESS_SIZE, count);
}

/* Receives into IN at most COUNT messages, of each the first ROOM octets. */
static int64_t receive_in(int64_t socket, size_t room, int32_t count) {
    return lport_datagram_receive_batch(socket, in.octets, room, in.lengths, in.ends, count);
}

/* Sends COUNT of OUT over ENDS[1] and receives them over ENDS[0], in pieces that fit a buffer. */
static void pass(const int64_t ends[2], int32_t count, const uint8_t *from) {
    for (int32_t sent = 0, got = 0; got < count;) {
        if (sent < count) {
            int32_t piece = count - sent < 70 ? count - sent : 70;
            int64_t moved = undisturbed(send_out(ends[1], sent, piece));
            cr_assert_gt(moved, 0, "%s", kind_text(lport_status_kind(moved)));
            sent += (int32_t)moved;
        }
        while (got < sent) {
            cr_assert_gt(wait_for(ends[0], LPORT_INPUT, soon()), 0);
            int64_t moved = receive_in(ends[0], ROOM, MOST);
            if (would_block(moved)) {
                continue;
            }
            cr_assert_gt(moved, 0);
            for (int64_t i = 0; i < moved; i++, got++) {
                cr_assert_eq(in.lengths[i], out.lengths[got], "message %d", got);
                cr_assert_arr_eq(in.octets + i * ROOM, out.octets + got * ROOM,
                                 (size_t)in.lengths[i]);
                cr_assert_eq(lport_address_equal(in.ends + i * LPORT_ADDRESS_SIZE, from), 1);
            }
        }
    }
}

static void fill_out(uint64_t seed, int64_t (*length)(int index)) {
    fill(out.octets, sizeof out.octets, seed);
    memset(out.ends, 0, sizeof out.ends);
    for (int i = 0; i < MOST; i++) {
        out.lengths[i] = length(i);
    }
}

static int64_t of_one_length(int index) {
    return index >= 0 ? 1000 : 0;
}

static int64_t of_most_octets(int index) {
    return index >= 0 ? ROOM : 0;
}

static int64_t growing(int index) {
    return index;
}

static int64_t falling(int index) {
    return MOST - index;
}

static int64_t in_runs(int index) {
    return index % 7 == 6 ? 300 : index % 13 == 0 ? 0 : 700;
}

/* Behaviour 63: boundaries, lengths, empty ones and senders, however they were joined. */
SOCKET_TEST(datagram_batch, what_goes_in_comes_out) {
    static int64_t (*const lengths[])(int) = {of_one_length, growing, falling, in_runs};
    static const int32_t families[] = {LPORT_INET, LPORT_INET6};
    for (size_t f = 0; f < FAMILIES_HERE(families); f++) {
        int64_t ends[2];
        uint8_t at[2][LPORT_ADDRESS_SIZE];
        open_ends(families[f], ends, at);
        for (int i = 0; i < 4; i++) {
            fill_out((uint64_t)i, lengths[i]);
            pass(ends, MOST, at[1]);
            pass(ends, 2, at[1]);            /* the fewest that can go as one */
            for (int j = 0; j < MOST; j++) { /* the same with a name on each */
                memcpy(out.ends + j * LPORT_ADDRESS_SIZE, at[0], LPORT_ADDRESS_SIZE);
            }
            pass(ends, MOST, at[1]);
        }
        close_both(ends);
    }
}

/* One call for 64 messages, and fewer octets of overhead where they can be joined: of those that
 * would be too long together as well. */
SOCKET_TEST(datagram_batch, one_call_is_enough) {
    int64_t ends[2];
    uint8_t at[2][LPORT_ADDRESS_SIZE];
    open_ends(LPORT_INET, ends, at);
    fill_out(1, of_one_length);
    faults_watch(); /* calls are counted */
    cr_assert_eq(send_out(ends[1], 0, 64), 64);
    cr_assert_eq(receive_in(ends[0], ROOM, 64), 64);
    cr_assert_eq(faults_calls(CALL_SENDMMSG), 1);
    cr_assert_eq(faults_calls(CALL_RECVMMSG), 1);
    fill_out(1, of_most_octets);
    cr_assert_eq(send_out(ends[1], 0, 64), 64);
    cr_assert_eq(receive_in(ends[0], ROOM, 64), 64);
    cr_assert_eq(faults_calls(CALL_SENDMMSG), 2);
    close_both(ends);
}

/* More than one system call is given; fewer are there than there is room for. */
SOCKET_TEST(datagram_batch, a_call_moves_all_that_there_is) {
    int64_t ends[2];
    uint8_t at[2][LPORT_ADDRESS_SIZE];
    open_ends(LPORT_INET, ends, at);
    fill_out(6, growing);
    faults_watch(); /* or a message may be left for the next call */
    cr_assert_eq(send_out(ends[1], 0, 100), 100);
    cr_assert_eq(receive_in(ends[0], ROOM, MOST), 100);
    cr_assert_arr_eq(in.lengths, out.lengths, 100);
    cr_assert_eq(send_out(ends[1], 0, 100), 100);
    memset(&in, '-', sizeof in);
    int64_t untouched = in.lengths[70];
    cr_assert_eq(receive_in(ends[0], ROOM, 70), 70);
    cr_assert_eq(in.lengths[70], untouched);
    cr_assert(in.octets[70 * ROOM] == '-' && in.ends[70 * LPORT_ADDRESS_SIZE] == '-');
    cr_assert_eq(receive_in(ends[0], ROOM, MOST), 30);
    faults_resume();
    close_both(ends);
}

/* One that is not connected, to two that take turns: also where all could go as one. */
SOCKET_TEST(datagram_batch, each_message_goes_to_its_own_address) {
    int64_t ends[2], third;
    uint8_t at[2][LPORT_ADDRESS_SIZE], third_at[LPORT_ADDRESS_SIZE];
    open_ends(LPORT_INET, ends, at);
    loopback(LPORT_INET, 0, third_at);
    third = lport_datagram_open(third_at, NULL, 0, NULL, 0);
    cr_assert_eq(lport_socket_name(third, third_at), LPORT_INET);
    faults_watch(); /* or a message may be left for the next call */
    for (int round = 0; round < 2; round++) {
        fill_out(7, round == 0 ? growing : of_one_length);
        for (int i = 0; i < 10; i++) {
            memcpy(out.ends + i * LPORT_ADDRESS_SIZE, i % 2 == 0 ? at[0] : third_at,
                   LPORT_ADDRESS_SIZE);
        }
        cr_assert_eq(send_out(third, 0, 10), 10);
        for (int i = 0; i < 2; i++) {
            cr_assert_eq(receive_in(i == 0 ? ends[0] : third, ROOM, MOST), 5);
            for (int j = 0; j < 5; j++) {
                cr_assert_eq(in.lengths[j], out.lengths[2 * j + i]);
                cr_assert_arr_eq(in.octets + j * ROOM, out.octets + (2 * j + i) * ROOM,
                                 (size_t)in.lengths[j]);
                cr_assert_eq(lport_address_equal(in.ends + j * LPORT_ADDRESS_SIZE, third_at), 1);
            }
        }
    }
    faults_resume();
    cr_assert_eq(lport_socket_close(third, 0), 0);
    close_both(ends);
}

SOCKET_TEST(datagram_batch, no_more_is_written_than_there_is_room_for) {
    int64_t ends[2];
    uint8_t at[2][LPORT_ADDRESS_SIZE];
    open_ends(LPORT_INET, ends, at);
    fill_out(8, of_one_length);
    cr_assert_eq(undisturbed(send_out(ends[1], 0, 5)), 5);
    memset(&in, '-', sizeof in);
    int64_t untouched = in.lengths[2];
    cr_assert_eq(undisturbed(receive_in(ends[0], ROOM, 2)), 2);
    cr_assert_eq(in.lengths[2], untouched);
    cr_assert(in.octets[2 * ROOM] == '-' && in.ends[2 * LPORT_ADDRESS_SIZE] == '-');
    cr_assert_eq(undisturbed(receive_in(ends[0], ROOM, 9)), 3);
    cr_assert_arr_eq(in.octets, out.octets + 2 * ROOM, 1000);
    close_both(ends);
}

/* Systems and devices that cannot take messages apart: they go one by one, from then on. */
SOCKET_TEST(datagram_batch, without_segmentation) {
    static const int errors[] = {EINVAL, EIO, EMSGSIZE, EOPNOTSUPP};
    for (int i = 0; i < 4; i++) {
        int64_t ends[2];
        uint8_t at[2][LPORT_ADDRESS_SIZE];
        open_ends(LPORT_INET, ends, at);
        fill_out(9, of_one_length);
        faults_fail(CALL_SENDMMSG, 1, 1, errors[i]);
        pass(ends, MOST, at[1]);
        cr_assert_eq(faults_struck(), 1);
        faults_clear();
        pass(ends, MOST, at[1]);
        close_both(ends);
    }
}

static struct lport_os with_segmentation;

static int refusing_sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags) {
    for (unsigned int i = 0; i < count; i++) {
        if (messages[i].msg_hdr.msg_control != NULL) {
            errno = EIO;
            return -1;
        }
    }
    return with_segmentation.sendmmsg(fd, messages, count, flags);
}

SOCKET_TEST(datagram_batch, a_device_that_never_takes_messages_apart_gets_single_ones) {
    int64_t ends[2];
    uint8_t at[2][LPORT_ADDRESS_SIZE];
    open_ends(LPORT_INET, ends, at);
    fill_out(9, of_one_length);
    faults_watch(); /* a call is replaced by our own */
    with_segmentation = lport_os;
    lport_os.sendmmsg = refusing_sendmmsg;
    pass(ends, MOST, at[1]);
    lport_os = with_segmentation;
    faults_resume();
    close_both(ends);
}

/* Behaviour 63: cut off and told; a refusal reported, and the socket works on. */
SOCKET_TEST(datagram_batch, what_goes_wrong_with_messages) {
    int64_t ends[2];
    uint8_t at[2][LPORT_ADDRESS_SIZE];
    open_ends(LPORT_INET, ends, at);
    fill_out(2, in_runs);
    cr_assert_eq(undisturbed(send_out(ends[1], 1, 2)), 2);
    cr_assert_eq(undisturbed(receive_in(ends[0], 10, 9)), 2);
    cr_assert_eq(in.lengths[1], 700);
    cr_assert_arr_eq(in.octets + 10, out.octets + 2 * ROOM, 10);
    assert_kind(undisturbed(receive_in(ends[0], ROOM, 9)), LPORT_WOULD_BLOCK);
    assert_kind(undisturbed(send_out(ends[0], 1, 2)), LPORT_NOT_CONNECTED);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    cr_assert_eq(undisturbed(send_out(ends[1], 1, 1)), 1);
    cr_assert_gt(wait_for(ends[1], LPORT_INPUT, soon()), 0);
    assert_kind(undisturbed(send_out(ends[1], 1, 1)), LPORT_CONNECTION_REFUSED);
    ends[0] = lport_datagram_open(at[0], NULL, 0, NULL, 0);
    pass(ends, 3, at[1]);
    close_both(ends);
}

/* Neither is tried again as if the system could not take messages apart. */
SOCKET_TEST(datagram_batch, messages_that_are_too_long_and_failures_of_joined_ones_are_told) {
    int64_t ends[2];
    uint8_t at[2][LPORT_ADDRESS_SIZE];
    open_ends(LPORT_INET, ends, at);
    fill_out(12, of_one_length);
    faults_fail(CALL_SENDMMSG, 1, 1, ENOBUFS);
    assert_kind(send_out(ends[1], 0, 3), LPORT_BUFFERS_EXHAUSTED);
    faults_resume();
    pass(ends, 3, at[1]);
    out.lengths[0] = 70000;
    assert_kind(undisturbed(lport_datagram_send_batch(ends[1], out.octets, 70000, out.lengths,
                                                      out.ends, 2)),
                LPORT_MESSAGE_TOO_LONG);
    close_both(ends);
}

SOCKET_TEST(datagram_batch, what_is_no_batch) {
    int64_t ends[2];
    uint8_t at[2][LPORT_ADDRESS_SIZE];
    open_ends(LPORT_INET, ends, at);
    fill_out(3, growing);
    assert_kind(send_out(ends[1], 0, 0), LPORT_INVALID);
    assert_kind(send_out(ends[1], 0, -1), LPORT_INVALID);
    out.lengths[1] = ROOM + 1;
    assert_kind(send_out(ends[1], 0, 2), LPORT_INVALID);
    out.lengths[1] = -1;
    assert_kind(send_out(ends[1], 0, 2), LPORT_INVALID);
    out.ends[0] = 99;
    assert_kind(send_out(ends[1], 0, 1), LPORT_INVALID);
    out.ends[5 * LPORT_ADDRESS_SIZE] = 99;
    cr_assert_eq(undisturbed(send_out(ends[1], 3, 4)), 2, "those before it are sent");
    assert_kind(send_out(ends[1], 5, 2), LPORT_INVALID);
    assert_kind(receive_in(ends[0], 1, 0), LPORT_INVALID);
    close_both(ends);
    cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, ends), 0);
    assert_kind(undisturbed(send_out(ends[0], 2, 1)), LPORT_NOT_SUPPORTED);
    assert_kind(undisturbed(receive_in(ends[1], 1, 1)), LPORT_NOT_SUPPORTED);
    close_both(ends);
}

/* A shutdown of one direction does not forbid the other. */
SOCKET_TEST(datagram_batch, each_direction_is_shut_down_by_itself) {
    int64_t ends[2];
    cr_assert_eq(lport_socket_pair(LPORT_DATAGRAM, ends), 0);
    fill_out(5, of_one_length);
    cr_assert_eq(undisturbed(send_out(ends[0], 0, 2)), 2);
    cr_assert_eq(lport_socket_shutdown(ends[1], LPORT_OUTPUT), 0);
    assert_kind(undisturbed(send_out(ends[1], 0, 1)), LPORT_OUTPUT_SHUT);
    cr_assert_eq(undisturbed(receive_in(ends[1], ROOM, 9)), 2);
    cr_assert_eq(lport_socket_shutdown(ends[1], LPORT_INPUT), 0);
    assert_kind(undisturbed(receive_in(ends[1], ROOM, 9)), LPORT_END);
    close_both(ends);
}

/* Behaviours 42 and 64; local datagrams go the same way. */
SOCKET_TEST(datagram_batch, local_messages_signals_and_failures) {
    int64_t ends[2];
    cr_assert_eq(lport_socket_pair(LPORT_DATAGRAM, ends), 0);
    fill_out(4, of_one_length);
    faults_fail(CALL_SENDMMSG, 1, 2, EINTR);
    faults_fail(CALL_RECVMMSG, 1, 2, EINTR);
    cr_assert_eq(send_out(ends[0], 0, 3), 3);
    cr_assert_eq(receive_in(ends[1], ROOM, 9), 3);
    cr_assert_arr_eq(in.octets + 2 * ROOM, out.octets + 2 * ROOM, 1000);
    faults_fail(CALL_SENDMMSG, 1, 1, ENOBUFS);
    assert_kind(send_out(ends[0], 0, 3), LPORT_BUFFERS_EXHAUSTED);
    faults_fail(CALL_RECVMMSG, 1, 1, ENOMEM);
    assert_kind(receive_in(ends[1], ROOM, 9), LPORT_MEMORY_EXHAUSTED);
    close_both(ends);
}
