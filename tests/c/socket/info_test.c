/* info: what the system knows of a TCP connection, and of any socket's memory. */
#include "base/os.h"
#include "support.h"

#include <errno.h>
#include <linux/tcp.h>
#include <string.h>

TestSuite(info, .timeout = 10);

enum { ROOM = 64 };

static int32_t index_of(const char *name) {
    for (int32_t i = 0; lport_info_name(i) != NULL; i++) {
        if (strcmp(lport_info_name(i), name) == 0) {
            return i;
        }
    }
    cr_assert_fail("no field %s", name);
    return -1;
}

static int64_t field(int64_t socket, const char *name) {
    int64_t values[ROOM];
    int64_t count = lport_info_read(socket, values, ROOM);
    cr_assert(count > 0 && count <= ROOM, "%lld fields", (long long)count);
    return values[index_of(name)];
}

SOCKET_TEST(info, fields_have_names_kinds_and_notes) {
    static const char *kinds[] = {"count", "octets", "time", "rate", "state"};
    int32_t count = 0;
    for (; lport_info_name(count) != NULL; count++) {
        int known = 0;
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
            known += strcmp(lport_info_kind(count), kinds[i]) == 0;
        }
        cr_assert_eq(known, 1, "%s", lport_info_name(count));
        cr_assert_not_null(strchr(lport_info_note(count), '.'));
        cr_assert_eq(index_of(lport_info_name(count)), count);
    }
    const int32_t outside[] = {-1, count, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        cr_assert_null(lport_info_name(outside[i]));
        cr_assert_null(lport_info_kind(outside[i]));
        cr_assert_null(lport_info_note(outside[i]));
    }
    static const int64_t no_states[] = {-1, 0, 13, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < sizeof no_states / sizeof *no_states; i++) {
        cr_assert_null(lport_info_state(no_states[i]));
    }
}

SOCKET_TEST(info, a_connection_tells_its_numbers) {
    static const int32_t families[] = {LPORT_INET, LPORT_INET6};
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        uint8_t octets[3000] = {0};
        make_connection(families[i], ends);
        cr_assert_eq(send_all(ends[0], octets, sizeof octets, soon()), (int64_t)sizeof octets);
        cr_assert_eq(receive_all(ends[1], octets, sizeof octets, soon()), (int64_t)sizeof octets);
        cr_assert_str_eq(lport_info_state(field(ends[0], "state")), "established");
        cr_assert_eq(field(ends[1], "octets-received"), (int64_t)sizeof octets);
        /* On a busy machine the system may send again what the peer has had no time to answer. */
        int64_t again = field(ends[0], "octets-retransmitted");
        cr_assert_eq(field(ends[0], "octets-sent"), (int64_t)sizeof octets + again);
        cr_assert_eq(field(ends[0], "retransmits") > 0, again > 0);
        int64_t rtt = field(ends[0], "rtt");
        cr_assert(rtt > 0 && rtt < INT64_C(1000000000), "rtt %lld", (long long)rtt);
        cr_assert_geq(field(ends[0], "retransmission-timeout"), INT64_C(100000000));
        cr_assert_gt(field(ends[0], "congestion-window"), 0);
        cr_assert_gt(field(ends[0], "send-window"), 0);
        cr_assert_gt(field(ends[0], "send-segment"), 500);
        close_both(ends);
    }
}

SOCKET_TEST(info, a_listener_tells_its_queue) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    int64_t clients[2] = {connect_to(address), connect_to(address)};
    cr_assert_str_eq(lport_info_state(field(listener, "state")), "listen");
    cr_assert_eq(field(listener, "unacknowledged"), 2);
    close_both(clients);
    cr_assert_eq(lport_socket_close(listener, 0), 0);
}

SOCKET_TEST(info, no_more_is_written_than_there_is_room_for) {
    int64_t ends[2], values[4] = {-7, -7, -7, -7};
    make_connection(LPORT_INET, ends);
    int64_t all = lport_info_read(ends[0], NULL, 0);
    cr_assert_eq(lport_info_read(ends[0], values, 2), all);
    cr_assert(values[0] == 1 && values[1] >= 0 && values[2] == -7 && values[3] == -7);
    assert_kind(lport_info_read(ends[0], values, -1), LPORT_INVALID);
    close_both(ends);
}

/* A connection of which CALL tells, until faults_clear. */
static void make_connection_told_by(int (*call)(int, int, int, void *, socklen_t *),
                                    int64_t ends[2]) {
    make_connection(LPORT_INET, ends);
    faults_watch();
    lport_os.getsockopt = call;
}

/* An older kernel gives less: that is none, not zero. */
static int short_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    (void)fd, (void)level, (void)name;
    memset(value, 1, 1);
    *len = 1;
    return 0;
}

SOCKET_TEST(info, what_an_older_kernel_does_not_tell_is_none) {
    int64_t ends[2];
    make_connection_told_by(short_getsockopt, ends);
    cr_assert_eq(field(ends[0], "state"), 1);
    cr_assert_eq(field(ends[0], "rtt"), LPORT_NEVER);
    faults_clear();
    close_both(ends);
}

static int known_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    struct tcp_info info = {.tcpi_state = 1, .tcpi_rtt = 7, .tcpi_last_data_sent = 3};
    (void)fd, (void)level, (void)name;
    info.tcpi_lost = 1;
    info.tcpi_retransmits = 5;
    info.tcpi_min_rtt = UINT32_MAX;
    info.tcpi_bytes_sent = UINT64_C(1) << 40;
    info.tcpi_busy_time = UINT64_C(1) << 60;
    info.tcpi_pacing_rate = UINT64_MAX;
    info.tcpi_delivery_rate = UINT64_MAX - 1;
    memcpy(value, &info, sizeof info);
    *len = sizeof info;
    return 0;
}

SOCKET_TEST(info, numbers_come_in_the_units_of_their_kinds) {
    int64_t ends[2];
    make_connection_told_by(known_getsockopt, ends);
    cr_assert_eq(field(ends[0], "rtt"), 7000);
    cr_assert_eq(field(ends[0], "since-sent"), 3000000);
    cr_assert_eq(field(ends[0], "lost"), 1);
    cr_assert_eq(field(ends[0], "retransmitting"), 5);
    cr_assert_eq(field(ends[0], "octets-sent"), INT64_C(1) << 40);
    cr_assert_eq(field(ends[0], "rtt-minimum"), LPORT_NEVER, "it has none");
    cr_assert_eq(field(ends[0], "pacing-rate"), LPORT_NEVER, "there is none");
    cr_assert_eq(field(ends[0], "busy-time"), LPORT_NEVER, "nanoseconds above it");
    cr_assert_eq(field(ends[0], "delivery-rate"), LPORT_NEVER, "as large");
    faults_clear();
    close_both(ends);
}

/* Where the system has each field: struct tcp_info of tcp(7), and SO_MEMINFO, linux/sock_diag.h. */
static const struct {
    const char *name, *kind;
    size_t at, size;
    int64_t step; /* nanoseconds of a unit of time, else 1 */
} places[] = {
#define PLACE(name, kind, member, step)                                                            \
    { name, kind, offsetof(struct tcp_info, member), sizeof(((struct tcp_info *)0)->member), step }
    PLACE("state", "state", tcpi_state, 1),
    PLACE("rtt", "time", tcpi_rtt, 1000),
    PLACE("rtt-variance", "time", tcpi_rttvar, 1000),
    PLACE("rtt-minimum", "time", tcpi_min_rtt, 1000),
    PLACE("retransmission-timeout", "time", tcpi_rto, 1000),
    PLACE("retransmits", "count", tcpi_total_retrans, 1),
    PLACE("retransmitting", "count", tcpi_retransmits, 1),
    PLACE("probes", "count", tcpi_probes, 1),
    PLACE("unacknowledged", "count", tcpi_unacked, 1),
    PLACE("sacked", "count", tcpi_sacked, 1),
    PLACE("lost", "count", tcpi_lost, 1),
    PLACE("reordering", "count", tcpi_reordering, 1),
    PLACE("duplicates", "count", tcpi_dsack_dups, 1),
    PLACE("congestion-window", "count", tcpi_snd_cwnd, 1),
    PLACE("slow-start-threshold", "count", tcpi_snd_ssthresh, 1),
    PLACE("send-window", "octets", tcpi_snd_wnd, 1),
    {"receive-window", "octets", offsetof(struct tcp_info, tcpi_snd_wnd) + 4, 4, 1},
    PLACE("receive-space", "octets", tcpi_rcv_space, 1),
    PLACE("send-segment", "octets", tcpi_snd_mss, 1),
    PLACE("receive-segment", "octets", tcpi_rcv_mss, 1),
    PLACE("path-mtu", "octets", tcpi_pmtu, 1),
    PLACE("since-sent", "time", tcpi_last_data_sent, 1000000),
    PLACE("since-received", "time", tcpi_last_data_recv, 1000000),
    PLACE("octets-acknowledged", "octets", tcpi_bytes_acked, 1),
    PLACE("octets-received", "octets", tcpi_bytes_received, 1),
    PLACE("octets-sent", "octets", tcpi_bytes_sent, 1),
    PLACE("octets-retransmitted", "octets", tcpi_bytes_retrans, 1),
    PLACE("octets-not-sent", "octets", tcpi_notsent_bytes, 1),
    PLACE("segments-sent", "count", tcpi_segs_out, 1),
    PLACE("segments-received", "count", tcpi_segs_in, 1),
    PLACE("pacing-rate", "rate", tcpi_pacing_rate, 1),
    PLACE("delivery-rate", "rate", tcpi_delivery_rate, 1),
    PLACE("busy-time", "time", tcpi_busy_time, 1000),
#undef PLACE
    {"receive-memory", "octets", 0, 4, 1},
    {"receive-memory-limit", "octets", 4, 4, 1},
    {"send-memory", "octets", 8, 4, 1},
    {"send-memory-limit", "octets", 12, 4, 1},
    {"dropped", "count", 32, 4, 1},
};

/* What the system tells: LEN octets, in which octet I is I % 251. */
static socklen_t told;

static int telling_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    uint8_t octets[512];
    (void)fd, (void)level, (void)name;
    for (size_t i = 0; i < sizeof octets; i++) {
        octets[i] = (uint8_t)(i % 251);
    }
    memcpy(value, octets, told < *len ? told : *len);
    *len = told < *len ? told : *len;
    return 0;
}

/* The value of field I, whose octets begin with the lowest or the highest as the machine's do. */
static int64_t number_told(size_t i) {
    uint64_t number = 0;
    for (size_t k = 0; k < places[i].size; k++) {
        size_t at =
            places[i].at + (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? places[i].size - 1 - k : k);
        number = number << 8 | at % 251;
    }
    return number < (uint64_t)(LPORT_NEVER / places[i].step) ? (int64_t)number * places[i].step
                                                             : LPORT_NEVER;
}

/* A kernel that is older ends the structure at any place. */
SOCKET_TEST(info, each_field_is_read_at_its_place_if_all_of_it_is_there) {
    int64_t ends[2], values[ROOM];
    make_connection_told_by(telling_getsockopt, ends);
    for (told = 0; told <= 300; told++) {
        cr_assert_eq(lport_info_read(ends[0], values, ROOM), (int64_t)COUNT_OF(places));
        for (size_t i = 0; i < COUNT_OF(places); i++) {
            int64_t wanted = places[i].at + places[i].size <= told ? number_told(i) : LPORT_NEVER;
            int32_t index = index_of(places[i].name);
            cr_assert_str_eq(lport_info_kind(index), places[i].kind, "%s", places[i].name);
            cr_assert_eq(values[index], wanted, "%s of %u octets", places[i].name, told);
        }
    }
    faults_clear();
    close_both(ends);
}

static struct tcp_info made_up;

static int made_up_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    (void)fd, (void)level, (void)name;
    memcpy(value, &made_up, sizeof made_up);
    *len = sizeof made_up;
    return 0;
}

SOCKET_TEST(info, a_threshold_not_known_yet_and_a_time_that_does_not_fit_are_none) {
    int64_t ends[2];
    uint64_t most = LPORT_NEVER / 1000;
    make_connection_told_by(made_up_getsockopt, ends);
    made_up.tcpi_snd_ssthresh = INT32_MAX;
    made_up.tcpi_busy_time = most - 1;
    cr_assert_eq(field(ends[0], "slow-start-threshold"), LPORT_NEVER);
    cr_assert_eq(field(ends[0], "busy-time"), (int64_t)(most - 1) * 1000);
    made_up.tcpi_snd_ssthresh = INT32_MAX - 1;
    made_up.tcpi_busy_time = most + 1;
    cr_assert_eq(field(ends[0], "slow-start-threshold"), INT32_MAX - 1);
    cr_assert_eq(field(ends[0], "busy-time"), LPORT_NEVER);
    faults_clear();
    close_both(ends);
}

/* By the numbers of the system, linux/tcp_states.h, from TCP_ESTABLISHED to TCP_NEW_SYN_RECV. */
Test(info, states_have_the_names_of_the_standard) {
    static const char *const names[] = {
        NULL,         "established", "syn-sent",     "syn-received", "fin-wait-1",
        "fin-wait-2", "time-wait",   "closed",       "close-wait",   "last-ack",
        "listen",     "closing",     "syn-received",
    };
    for (size_t i = 1; i < COUNT_OF(names); i++) {
        cr_assert_str_eq(lport_info_state((int64_t)i), names[i]);
    }
}

/* An octet from the first of ENDS to the second is in the memory of one of them; closes both. */
static void assert_tell_of_memory(int64_t ends[2], const char *where, int64_t whose) {
    uint8_t octet = 7;
    cr_assert_eq(field(whose, where), 0);
    cr_assert_eq(send_all(ends[0], &octet, 1, soon()), 1);
    cr_assert_gt(wait_for(ends[1], LPORT_INPUT, soon()), 0);
    cr_assert_gt(field(whose, where), 0);
    cr_assert_gt(field(ends[1], "receive-memory-limit"), 1000);
    cr_assert_gt(field(ends[1], "send-memory-limit"), 1000);
    cr_assert_eq(field(ends[1], "dropped"), 0);
    close_both(ends);
}

SOCKET_TEST(info, every_socket_tells_of_its_memory) {
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    assert_tell_of_memory(ends, "receive-memory", ends[1]);
    make_datagram_ends(ends);
    cr_assert_eq(field(ends[0], "rtt"), LPORT_NEVER);
    assert_tell_of_memory(ends, "receive-memory", ends[1]);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    assert_tell_of_memory(ends, "send-memory", ends[0]);
}

SOCKET_TEST(info, messages_without_room_are_counted) {
    int64_t ends[2], sent = 0, received = 0;
    uint8_t octets[1000] = {0};
    faults_watch();
    make_datagram_ends(ends);
    for (; sent < 10000 && field(ends[1], "dropped") == 0; sent++) {
        cr_assert_eq(lport_socket_send(ends[0], octets, sizeof octets), (int64_t)sizeof octets);
    }
    int64_t dropped = field(ends[1], "dropped");
    while (lport_datagram_receive(ends[1], octets, sizeof octets, NULL, 0) > 0) {
        received++;
    }
    cr_assert_gt(dropped, 0);
    cr_assert_eq(received + dropped, sent);
    close_both(ends);
    faults_clear();
}

SOCKET_TEST(info, what_the_system_does_not_know_is_none_and_what_fails_is_told) {
    int64_t ends[2], poller = lport_poller_open(LPORT_POLLER_BEST);
    assert_kind(lport_info_read(poller, NULL, 0), LPORT_NOT_SUPPORTED);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
    make_connection(LPORT_INET, ends);
    faults_fail(CALL_GETSOCKOPT, 2, 1, ENOPROTOOPT);
    cr_assert_eq(field(ends[0], "receive-memory"), LPORT_NEVER);
    faults_clear();
    for (int nth = 1; nth <= 2; nth++) {
        faults_fail(CALL_GETSOCKOPT, nth, 1, ENOBUFS);
        assert_kind(lport_info_read(ends[0], NULL, 0), LPORT_BUFFERS_EXHAUSTED);
        faults_clear();
    }
    close_both(ends);
}
