/* info: what the system knows of a TCP connection. */
#include "os.h"
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

SOCKET_TEST(info, only_tcp_has_it) {
    int64_t ends[2];
    make_datagram_ends(ends);
    assert_kind(lport_info_read(ends[0], NULL, 0), LPORT_NOT_SUPPORTED);
    close_both(ends);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    assert_kind(lport_info_read(ends[0], NULL, 0), LPORT_NOT_SUPPORTED);
    close_both(ends);
    make_connection(LPORT_INET, ends);
    faults_fail(CALL_GETSOCKOPT, 1, 1, ENOBUFS);
    assert_kind(lport_info_read(ends[0], NULL, 0), LPORT_BUFFERS_EXHAUSTED);
    faults_clear();
    close_both(ends);
}
