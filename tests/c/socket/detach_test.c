/* detach: descriptors that are given away again. */
#include "../poller/polling.h"
#include "socket/handle.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

TestSuite(detach, .timeout = 10);

/* The descriptor of SOCKET, which nobody else is in. */
static int detached(int64_t socket) {
    cr_assert_eq(lport_socket_detach(socket), 0);
    cr_assert_eq(lport_socket_gone(socket, 0), 0);
    int64_t fd = lport_socket_detach_end(socket, 1);
    cr_assert_geq(fd, 0);
    return (int)fd;
}

static void assert_detached(int fd, int64_t socket) {
    int listening = 0;
    struct timeval limit = {.tv_usec = 1};
    socklen_t len = sizeof limit, listening_len = sizeof listening;
    cr_assert_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &len), 0);
    cr_assert(limit.tv_sec == 0 && limit.tv_usec == 0);
    cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &listening_len), 0);
    cr_assert_not(lport_handle_has(fd));
    assert_kind(lport_socket_descriptor(socket), LPORT_CLOSED);
    assert_kind(lport_socket_close(socket, LPORT_RESET), LPORT_CLOSED);
    assert_kind(lport_socket_detach(socket), LPORT_CLOSED);
    assert_kind(lport_socket_detach_end(socket, 0), LPORT_CLOSED);
    cr_assert_geq(fcntl(fd, F_GETFD), 0);
}

SOCKET_TEST(detach, a_connection_goes_on_without_its_socket) {
    const int32_t families[] = {LPORT_LOCAL, LPORT_INET};
    for (size_t i = 0; i < COUNT_OF(families); i++) {
        int64_t ends[2], count = lport_socket_count();
        uint8_t octet = 0;
        make_connection(families[i], ends);
        int number = (int)lport_socket_descriptor(ends[0]);
        int fd = detached(ends[0]);
        cr_assert_eq(fd, number);
        cr_assert_eq(lport_socket_count(), count + 1);
        assert_detached(fd, ends[0]);
        cr_assert_eq(write(fd, "a", 1), 1);
        cr_assert_eq(receive_some(ends[1], &octet, 1, soon()), 1);
        cr_assert_eq(octet, 'a');
        cr_assert_eq(send_some(ends[1], (const uint8_t *)"b", 1, soon()), 1);
        cr_assert_eq(read(fd, &octet, 1), 1); /* which blocks until it has come */
        cr_assert_eq(octet, 'b');
        int64_t again = lport_descriptor_adopt(fd);
        cr_assert_gt(again, 0);
        assert_closes(again);
        assert_closes(ends[1]);
    }
}

/* Neither what SO_LINGER says nor a reset that somebody asks for too late touches the connection.
 */
SOCKET_TEST(detach, nothing_is_said_to_the_peer) {
    int64_t ends[2];
    uint8_t octet = 0;
    struct linger linger = {.l_onoff = 1, .l_linger = 7}, found = {0};
    socklen_t len = sizeof found;
    make_connection(LPORT_INET, ends);
    int number = (int)lport_socket_descriptor(ends[0]);
    cr_assert_eq(setsockopt(number, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    int fd = detached(ends[0]);
    cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_LINGER, &found, &len), 0);
    cr_assert_eq(found.l_linger, 7);
    assert_kind(undisturbed(lport_socket_receive(ends[1], &octet, 1, 0)), LPORT_WOULD_BLOCK);
    close(fd);
    cr_assert_eq(receive_some(ends[1], &octet, 1, soon()), 0);
    assert_closes(ends[1]);
}

SOCKET_TEST(detach, what_a_patient_receive_has_set_is_taken_back) {
    int64_t ends[2];
    uint8_t octet;
    make_connection(LPORT_LOCAL, ends);
    assert_kind(lport_socket_receive(ends[0], &octet, 1, LPORT_PATIENT), LPORT_WOULD_BLOCK);
    int fd = detached(ends[0]);
    assert_detached(fd, ends[0]);
    close(fd);
    assert_closes(ends[1]);
}

SOCKET_TEST(detach, listeners_and_sockets_of_messages_too) {
    uint8_t address[LPORT_ADDRESS_SIZE], octet = 0;
    int64_t ends[2], listener = listen_on_loopback(LPORT_INET, address);
    int fd = detached(listener);
    assert_detached(fd, listener);
    int64_t client = connect_to(address);
    cr_assert_gt(client, 0);
    int accepted = accept(fd, NULL, NULL);
    cr_assert_geq(accepted, 0);
    close(accepted);
    close(fd);
    assert_closes(client);
    make_datagram_ends(ends);
    fd = detached(ends[0]);
    assert_detached(fd, ends[0]);
    cr_assert_eq(write(fd, "m", 1), 1);
    cr_assert_eq(receive_some(ends[1], &octet, 1, soon()), 1);
    close(fd);
    assert_closes(ends[1]);
}

static void new_path(char *path, size_t cap, uint8_t *address) {
    static int count;
    (void)snprintf(path, cap, "/tmp/lport-detach-%d-%d", (int)getpid(), count++);
    cr_assert_geq(lport_address_local(path, strlen(path), address), 0);
}

SOCKET_TEST(detach, the_path_of_a_listener_stays_with_it) {
    char path[64];
    uint8_t address[LPORT_ADDRESS_SIZE];
    struct stat file;
    for (int32_t keep = 0; keep < 2; keep++) {
        new_path(path, sizeof path, address);
        int64_t listener = lport_local_listen(address, LPORT_STREAM, -1, -1, LPORT_UNLINK, NULL, 0);
        cr_assert_gt(listener, 0);
        cr_assert_eq(lport_socket_detach(listener), 0);
        int64_t fd = lport_socket_detach_end(listener, keep);
        cr_assert_geq(fd, 0);
        cr_assert_eq(stat(path, &file), keep - 1);
        if (keep != 0) {
            int64_t client = connect_to(address);
            cr_assert_gt(client, 0);
            assert_closes(client);
            close((int)fd);
            unlink(path);
        }
    }
}

/* The user that stays is another thread's, as one that has entered for a call and is held up. */
SOCKET_TEST(detach, the_descriptor_comes_once_the_last_has_left) {
    int64_t ends[2];
    struct lport_slot *slot;
    make_connection(LPORT_LOCAL, ends);
    int number = (int)lport_handle_enter(ends[0], &slot);
    cr_assert_eq(lport_socket_detach(ends[0]), 0);
    assert_kind(lport_socket_gone(ends[0], lport_clock_after(2000000)), LPORT_TIMED_OUT);
    assert_kind(lport_socket_detach_end(ends[0], 1), LPORT_WOULD_BLOCK);
    cr_assert((fcntl(number, F_GETFL) & O_NONBLOCK) != 0, "who is inside still must not block");
    cr_assert(lport_handle_has(number));
    lport_handle_leave(slot);
    cr_assert_eq(lport_socket_gone(ends[0], 0), 0);
    cr_assert_eq(lport_socket_detach_end(ends[0], 1), number);
    assert_detached(number, ends[0]);
    close(number);
    assert_closes(ends[1]);
}

static int64_t until_alone(void *data) {
    return lport_socket_gone(*(int64_t *)data, LPORT_NEVER);
}

SOCKET_TEST(detach, who_waits_for_the_last_to_leave_is_woken) {
    int64_t ends[2];
    struct lport_slot *slot;
    struct task task;
    make_connection(LPORT_LOCAL, ends);
    cr_assert_geq(lport_handle_enter(ends[0], &slot), 0);
    cr_assert_eq(lport_socket_detach(ends[0]), 0);
    task_start(&task, until_alone, &ends[0]);
    task_until_asleep(&task, 0);
    lport_handle_leave(slot);
    cr_assert_eq(task_join(&task), 0);
    cr_assert_eq(lport_socket_detach_end(ends[0], 0), 0);
    assert_closes(ends[1]);
}

static int64_t wait_for_input(void *data) {
    return wait_for(*(int64_t *)data, LPORT_INPUT, LPORT_NEVER);
}

SOCKET_TEST(detach, who_waits_on_it_is_told_that_it_is_closed) {
    int64_t ends[2];
    struct task task;
    make_connection(LPORT_LOCAL, ends);
    int64_t poller = open_poller(LPORT_POLLER_BEST);
    cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_INPUT), 0);
    task_start(&task, wait_for_input, &ends[0]);
    task_until_asleep(&task, 1);
    cr_assert_eq(lport_socket_detach(ends[0]), 0);
    assert_kind(task_join(&task), LPORT_CLOSED);
    cr_assert_eq(lport_socket_gone(ends[0], soon()), 0);
    int64_t fd = lport_socket_detach_end(ends[0], 1);
    assert_detached((int)fd, ends[0]);
    cr_assert_eq(send_some(ends[1], (const uint8_t *)"x", 1, soon()), 1);
    assert_quiet(poller);
    close((int)fd);
    assert_closes(ends[1]);
    assert_closes(poller);
}

SOCKET_TEST(detach, given_up_it_is_closed_by_the_last_to_leave) {
    int64_t ends[2];
    uint8_t octet;
    struct lport_slot *slot;
    make_connection(LPORT_INET, ends);
    int fd = (int)lport_handle_enter(ends[0], &slot);
    cr_assert_eq(lport_socket_detach(ends[0]), 0);
    cr_assert_eq(lport_socket_detach_end(ends[0], 0), 0);
    cr_assert(lport_handle_has(fd));
    assert_kind(lport_socket_detach_end(ends[0], 1), LPORT_INVALID);
    lport_handle_leave(slot);
    cr_assert_not(lport_handle_has(fd));
    cr_assert_eq(fcntl(fd, F_GETFD), -1);
    cr_assert_eq(receive_some(ends[1], &octet, 1, soon()), 0);
    assert_closes(ends[1]);
}

SOCKET_TEST(detach, a_poller_stays_one) {
    int64_t poller = open_poller(LPORT_POLLER_BEST);
    assert_kind(lport_socket_detach(poller), LPORT_NOT_SUPPORTED);
    assert_closes(poller);
}

SOCKET_TEST(detach, a_failure_of_the_system_is_told_and_can_be_tried_again) {
    int64_t ends[2];
    make_connection(LPORT_LOCAL, ends);
    cr_assert_eq(lport_socket_detach(ends[0]), 0);
    for (int64_t n = 1; n <= 2; n++) {
        faults_fail(CALL_FCNTL, n, 1, ENOBUFS);
        cr_assert_eq(lport_status_errno(lport_socket_detach_end(ends[0], 1)), ENOBUFS);
        faults_clear();
    }
    faults_resume();
    int64_t fd = lport_socket_detach_end(ends[0], 1);
    assert_detached((int)fd, ends[0]);
    close((int)fd);
    assert_closes(ends[1]);
}

static int has_no_copy(void *data) {
    const int64_t *what = data; /* socket, descriptor */
    return lport_socket_detach_end(what[0], 1) < 0 && fcntl((int)what[1], F_GETFD) < 0 ? 0 : 1;
}

/* A child that is forked in between has no thread that would end it. */
SOCKET_TEST(detach, a_child_keeps_nothing_of_what_its_parent_gives_away) {
    int64_t ends[2];
    make_connection(LPORT_LOCAL, ends);
    int64_t what[] = {ends[0], lport_socket_descriptor(ends[0])};
    cr_assert_eq(lport_socket_detach(ends[0]), 0);
    cr_assert_eq(in_child(has_no_copy, what), 0);
    cr_assert_eq(lport_socket_detach_end(ends[0], 0), 0);
    assert_closes(ends[1]);
}
