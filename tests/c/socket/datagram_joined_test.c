/* datagram_joined: messages that the system hands over as one (UDP_GRO) are what was sent. */
#include "address/address.h"
#include "base/os.h"
#include "socket/datagram.h"
#include "support.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

TestSuite(datagram_joined, .timeout = 20);

enum { MOST = 96, ROOM = 1500, PLACES = 1100, OCTETS = PLACES * ROOM };

static struct {
    uint8_t octets[MOST * ROOM];
    int64_t lengths[MOST];
    uint8_t ends[MOST * LPORT_ADDRESS_SIZE];
} out;

static struct {
    uint8_t octets[OCTETS];
    int64_t lengths[PLACES];
    uint8_t ends[PLACES * LPORT_ADDRESS_SIZE];
} in;

/* A receiver that is opened with LPORT_JOINED, and SENDERS[2] that are connected to it. */
struct ends {
    int64_t receiver, senders[2];
    uint8_t from[2][LPORT_ADDRESS_SIZE];
};

static void open_ends(struct ends *ends, int32_t family, int32_t flags) {
    uint8_t own[LPORT_ADDRESS_SIZE], at[LPORT_ADDRESS_SIZE];
    loopback(family, 0, own);
    ends->receiver = lport_datagram_open(own, NULL, flags, NULL, 0);
    cr_assert_gt(ends->receiver, 0);
    cr_assert_eq(lport_socket_name(ends->receiver, at), family);
    for (int i = 0; i < 2; i++) {
        ends->senders[i] = lport_datagram_open(own, at, 0, NULL, 0);
        cr_assert_gt(ends->senders[i], 0);
        cr_assert_eq(lport_socket_name(ends->senders[i], ends->from[i]), family);
    }
}

static void close_ends(const struct ends *ends) {
    cr_assert_eq(lport_socket_close(ends->receiver, 0), 0);
    close_both(ends->senders);
}

/* True if this system joins messages at all. */
static bool is_joining(int64_t socket) {
    int on = 0;
    socklen_t len = sizeof on;
    return getsockopt((int)lport_socket_descriptor(socket), IPPROTO_UDP, LPORT_DATAGRAM_JOIN, &on,
                      &len) == 0 &&
           on == 1;
}

static int64_t send_out(int64_t socket, int32_t first, int32_t count) {
    int32_t sent = 0;
    while (sent < count) {
        int64_t moved = lport_datagram_send_batch(
            socket, out.octets + (first + sent) * ROOM, ROOM, out.lengths + first + sent,
            out.ends + (first + sent) * LPORT_ADDRESS_SIZE, count - sent);
        if (lport_status_kind(moved) == LPORT_WOULD_BLOCK) {
            continue;
        }
        cr_assert_gt(moved, 0, "%s", kind_text(lport_status_kind(moved)));
        sent += (int32_t)moved;
    }
    return sent;
}

static int64_t receive_in(int64_t socket, size_t room, int32_t count) {
    return lport_datagram_receive_batch(socket, in.octets, room, in.lengths, in.ends, count);
}

/* COUNT messages of OUT from FIRST on arrive at ENDS in places of ROOM_IN, from sender WHOSE. */
static void expect(const struct ends *ends, int32_t first, int32_t count, size_t room,
                   const uint8_t *from) {
    for (int32_t got = first; got < first + count;) {
        cr_assert_gt(wait_for(ends->receiver, LPORT_INPUT, soon()), 0);
        int64_t moved =
            receive_in(ends->receiver, room,
                       (int32_t)(OCTETS / room) < PLACES ? (int32_t)(OCTETS / room) : PLACES);
        if (lport_status_kind(moved) == LPORT_WOULD_BLOCK) {
            continue;
        }
        cr_assert_gt(moved, 0, "%s", kind_text(lport_status_kind(moved)));
        for (int64_t i = 0; i < moved; i++, got++) {
            size_t length = (size_t)out.lengths[got];
            cr_assert_eq(in.lengths[i], out.lengths[got], "message %d: %lld", got,
                         (long long)in.lengths[i]);
            cr_assert_arr_eq(in.octets + (size_t)i * room, out.octets + got * ROOM,
                             length < room ? length : room);
            cr_assert_eq(lport_address_equal(in.ends + i * LPORT_ADDRESS_SIZE, from), 1);
        }
    }
}

static int64_t of_one_length(int index) {
    return index < MOST ? 600 : 0;
}

static int64_t short_ones(int index) {
    return index % 9 == 8 ? 3 : 5;
}

static int64_t falling(int index) {
    return MOST - index;
}

static int64_t in_runs(int index) {
    return index % 7 == 6 ? 300 : index % 13 == 0 ? 0 : 700;
}

static void fill_out(uint64_t seed, int64_t (*length)(int index)) {
    fill(out.octets, sizeof out.octets, seed);
    memset(out.ends, 0, sizeof out.ends);
    for (int i = 0; i < MOST; i++) {
        out.lengths[i] = length(i);
    }
}

/* Behaviour 63: boundaries, lengths, empty ones, what was cut off, senders; however they came. */
SOCKET_TEST(datagram_joined, what_goes_in_comes_out) {
    static int64_t (*const lengths[])(int) = {of_one_length, short_ones, falling, in_runs};
    static const int32_t families[] = {LPORT_INET, LPORT_INET6};
    static const size_t rooms[] = {64, 513, ROOM};
    for (size_t f = 0; f < FAMILIES_HERE(families); f++) {
        struct ends ends;
        open_ends(&ends, families[f], LPORT_JOINED);
        for (int i = 0; i < 4; i++) {
            fill_out((uint64_t)i, lengths[i]);
            for (int r = 0; r < 3; r++) {
                send_out(ends.senders[0], 0, MOST);
                expect(&ends, 0, MOST, rooms[r], ends.from[0]);
            }
        }
        close_ends(&ends);
    }
}

/* Joined ones, single ones and those of another sender, all in the queue at once. */
SOCKET_TEST(datagram_joined, each_message_has_its_own_sender) {
    struct ends ends;
    open_ends(&ends, LPORT_INET, LPORT_JOINED);
    fill_out(5, short_ones);
    for (int32_t first = 0; first + 16 <= MOST; first += 16) {
        send_out(ends.senders[first / 16 % 2], first, 16);
    }
    int32_t seen = 0;
    while (seen < MOST) {
        cr_assert_gt(wait_for(ends.receiver, LPORT_INPUT, soon()), 0);
        int64_t moved = receive_in(ends.receiver, ROOM, PLACES);
        for (int64_t i = 0; i < moved; i++, seen++) {
            cr_assert_eq(in.lengths[i], out.lengths[seen]);
            cr_assert_arr_eq(in.octets + i * ROOM, out.octets + seen * ROOM, (size_t)in.lengths[i]);
            cr_assert_eq(
                lport_address_equal(in.ends + i * LPORT_ADDRESS_SIZE, ends.from[seen / 16 % 2]), 1);
        }
    }
    close_ends(&ends);
}

/* 64 messages come by one call that has room for one datagram. */
SOCKET_TEST(datagram_joined, many_come_as_one) {
    faults_watch(); /* what single calls return is looked at */
    struct ends ends;
    open_ends(&ends, LPORT_INET, LPORT_JOINED);
    fill_out(6, of_one_length);
    if (is_joining(ends.receiver)) {
        send_out(ends.senders[0], 0, 64);
        faults_watch();
        cr_assert_eq(receive_in(ends.receiver, ROOM, 128), 64);
        cr_assert_eq(faults_calls(CALL_RECVMMSG), 1);
    }
    close_ends(&ends);
}

/* A receive that could not take apart what comes takes nothing. */
SOCKET_TEST(datagram_joined, nothing_is_received_otherwise) {
    struct ends ends;
    open_ends(&ends, LPORT_INET, LPORT_JOINED);
    fill_out(7, of_one_length);
    send_out(ends.senders[0], 0, 3);
    cr_assert_gt(wait_for(ends.receiver, LPORT_INPUT, soon()), 0);
    assert_kind(lport_datagram_receive(ends.receiver, in.octets, ROOM, NULL, 0),
                LPORT_NOT_SUPPORTED);
    assert_kind(lport_datagram_receive(ends.receiver, in.octets, ROOM, in.ends, LPORT_PEEK),
                LPORT_NOT_SUPPORTED);
    assert_kind(lport_socket_receive(ends.receiver, in.octets, ROOM, 0), LPORT_NOT_SUPPORTED);
    assert_kind(receive_in(ends.receiver, ROOM, 127), LPORT_INVALID);
    assert_kind(receive_in(ends.receiver, 300, 218), LPORT_INVALID);
    assert_kind(receive_in(ends.receiver, 0, PLACES), LPORT_INVALID);
    expect(&ends, 0, 3, ROOM, ends.from[0]);
    assert_kind(undisturbed(receive_in(ends.receiver, 512, 128)), LPORT_WOULD_BLOCK);
    close_ends(&ends);
}

/* More room than one system call is given. */
SOCKET_TEST(datagram_joined, any_number_of_places_will_do) {
    enum { MANY = 70 * 128, LITTLE = 512 };
    struct ends ends;
    uint8_t *octets = malloc((size_t)MANY * LITTLE);
    uint8_t *senders = malloc((size_t)MANY * LPORT_ADDRESS_SIZE);
    int64_t *lengths = malloc(MANY * sizeof *lengths);
    cr_assert(octets != NULL && senders != NULL && lengths != NULL);
    open_ends(&ends, LPORT_INET, LPORT_JOINED);
    fill_out(12, falling);
    send_out(ends.senders[0], 0, MOST);
    for (int32_t got = 0; got < MOST;) {
        cr_assert_gt(wait_for(ends.receiver, LPORT_INPUT, soon()), 0);
        int64_t moved = undisturbed(
            lport_datagram_receive_batch(ends.receiver, octets, LITTLE, lengths, senders, MANY));
        cr_assert_gt(moved, 0);
        cr_assert_arr_eq(lengths, out.lengths + got, (size_t)moved * sizeof *lengths);
        got += (int32_t)moved;
    }
    close_ends(&ends);
    free(octets);
    free(senders);
    free(lengths);
}

/* A system that does not join messages; signals; a failure. */
SOCKET_TEST(datagram_joined, systems_without_it_and_failures) {
    NEED_INET6();
    faults_watch(); /* what single calls return is looked at */
    struct ends ends;
    faults_fail(CALL_SETSOCKOPT, 2, 1, ENOPROTOOPT); /* 1: IPV6_V6ONLY */
    open_ends(&ends, LPORT_INET6, LPORT_JOINED);
    cr_assert_eq(faults_struck(), 1);
    faults_clear();
    cr_assert_eq(is_joining(ends.receiver), 0);
    fill_out(8, in_runs);
    send_out(ends.senders[0], 0, MOST);
    faults_fail(CALL_RECVMMSG, 1, 2, EINTR);
    expect(&ends, 0, MOST, ROOM, ends.from[0]);
    faults_fail(CALL_RECVMMSG, 1, 1, ENOMEM);
    assert_kind(receive_in(ends.receiver, ROOM, 128), LPORT_MEMORY_EXHAUSTED);
    faults_clear();
    assert_kind(receive_in(ends.receiver, ROOM, 128), LPORT_WOULD_BLOCK);
    close_ends(&ends);
}

/* Behaviour 61: a descriptor on which somebody else has asked for it. */
SOCKET_TEST(datagram_joined, an_adopted_descriptor_is_known_for_it) {
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_DGRAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&own, sizeof own), 0);
    bool joining = setsockopt(fd, IPPROTO_UDP, LPORT_DATAGRAM_JOIN, &on, sizeof on) == 0;
    int64_t socket = lport_descriptor_adopt(fd);
    cr_assert_gt(socket, 0);
    assert_kind(lport_datagram_receive(socket, in.octets, ROOM, NULL, 0),
                joining ? LPORT_NOT_SUPPORTED : LPORT_WOULD_BLOCK);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

/* More may come with messages than how long they are, and before that. */
SOCKET_TEST(datagram_joined, what_else_comes_with_messages_hides_nothing) {
    static const struct {
        int level, number;
    } rows[] = {{SOL_SOCKET, SO_TIMESTAMP}, {SOL_SOCKET, SO_RXQ_OVFL}, {IPPROTO_IP, IP_PKTINFO},
                {IPPROTO_IP, IP_RECVTTL},   {IPPROTO_IP, IP_RECVTOS},  {IPPROTO_IP, IP_RETOPTS}};
    static const int on = 1;
    struct ends ends;
    open_ends(&ends, LPORT_INET, LPORT_JOINED);
    int fd = (int)lport_socket_descriptor(ends.receiver);
    fill_out(11, of_one_length);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert_eq(setsockopt(fd, rows[i].level, rows[i].number, &on, sizeof on), 0);
        send_out(ends.senders[0], 0, MOST);
        expect(&ends, 0, MOST, ROOM, ends.from[0]);
    }
    close_ends(&ends);
}

/* Behaviour 60: local messages are never joined, and no descriptor slips in with one. */
SOCKET_TEST(datagram_joined, local_messages_bring_no_descriptor) {
    faults_watch(); /* what single calls return is looked at */
    uint8_t name[LPORT_ADDRESS_SIZE];
    int64_t ends[2], passed = 0;
    uint8_t octet = 7;
    memset(name, 0, sizeof name);
    name[LPORT_AT_FAMILY] = LPORT_LOCAL;
    ends[0] = lport_datagram_open(name, NULL, LPORT_JOINED, NULL, 0);
    cr_assert_gt(ends[0], 0);
    cr_assert_eq(lport_socket_name(ends[0], name), LPORT_LOCAL);
    uint8_t own[LPORT_ADDRESS_SIZE] = {[LPORT_AT_FAMILY] = LPORT_LOCAL};
    ends[1] = lport_datagram_open(own, name, 0, NULL, 0);
    cr_assert_gt(ends[1], 0);
    cr_assert_eq(lport_local_send(ends[1], &octet, 1, &passed, 1), 1);
    cr_assert_eq(receive_in(ends[0], ROOM, 128), 1);
    cr_assert_eq(in.octets[0], 7);
    close_both(ends);
}
