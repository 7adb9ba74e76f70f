/* option: closes of sockets that have, or had, a time to linger. */
#include "setting.h"
#include "support.h"

#include <sys/socket.h>
#include <unistd.h>

enum made_by { DIALLED, ACCEPTED, ACCEPTED_LATE, ADOPTED, MADE };

/* Makes a connection whose first end, made by HOW, has 30 seconds to linger. */
static void make_lingering(enum made_by how, int64_t ends[2]) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    if (how == ACCEPTED || how == ACCEPTED_LATE) {
        cr_assert_eq(set(listener, "linger", 30 * SECOND), 0);
    }
    ends[1] = connect_to(address);
    if (how == ACCEPTED_LATE) { /* what waits in the queue has it */
        cr_assert_gt(wait_for(listener, LPORT_INPUT, soon()), 0);
        cr_assert_eq(set(listener, "linger", LPORT_NEVER), 0);
    }
    ends[0] = accept_one(listener, soon());
    if (how == ADOPTED) {
        struct linger linger = {.l_onoff = 1, .l_linger = 30};
        int fd = dup((int)lport_socket_descriptor(ends[0]));
        cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
        ends[0] = lport_descriptor_adopt(fd);
    } else if (how == DIALLED) {
        int64_t accepted = ends[0];
        ends[0] = ends[1];
        ends[1] = accepted;
        cr_assert_eq(set(ends[0], "linger", 30 * SECOND), 0);
    }
    cr_assert_eq(get(ends[0], "linger"), 30 * SECOND);
    cr_assert_eq(lport_socket_close(listener, 0), 0);
}

/* The system's own close would block here until the peer has read. */
SOCKET_TEST(option, a_close_with_a_time_to_linger_does_not_block) {
    static uint8_t octets[65536];
    for (enum made_by how = DIALLED; how < MADE; how++) {
        int64_t ends[2], got;
        make_lingering(how, ends);
        assert_kind(clog_up(ends[0]), LPORT_WOULD_BLOCK);
        int64_t begin = lport_clock_now();
        cr_assert_eq(lport_socket_close(ends[0], 0), 0);
        cr_assert_lt(lport_clock_now() - begin, 5 * SECOND);
        int32_t weather = faults_watch(); /* megabytes do not come octet by octet */
        do {
            got = receive_some(ends[1], octets, sizeof octets, soon());
        } while (got > 0);
        if (weather) {
            faults_resume();
        }
        cr_assert_eq(got, 0, "the rest has not come");
        cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    }
}

/* What is set last counts. */
SOCKET_TEST(option, a_close_resets_after_a_time_to_linger_became_0) {
    uint8_t octet;
    int64_t ends[2];
    make_lingering(DIALLED, ends);
    cr_assert_eq(set(ends[0], "linger", 0), 0);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    assert_kind(receive_some(ends[1], &octet, 1, soon()), LPORT_CONNECTION_RESET);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
}

SOCKET_TEST(option, an_accepted_connection_resets_by_the_time_to_linger_that_it_has) {
    uint8_t octet, address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    cr_assert_eq(set(listener, "linger", 30 * SECOND), 0);
    cr_assert_eq(set(listener, "linger", 0), 0);
    int64_t ends[2] = {connect_to(address), 0};
    ends[1] = accept_one(listener, soon());
    cr_assert_eq(get(ends[1], "linger"), 0);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    assert_kind(receive_some(ends[0], &octet, 1, soon()), LPORT_CONNECTION_RESET);
    cr_assert_eq(lport_socket_close(ends[0], 0), 0);
    cr_assert_eq(lport_socket_close(listener, 0), 0);
}
