/* descriptor - descriptor 0, which a program that has closed its standard input gets for a socket:
 * it is one like any other. Each function that has entered a socket leaves it again, or its close
 * would not return 0. */
#include "socket/local.h"
#include "socket/socket.h"
#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

TestSuite(descriptor, .timeout = 20);

static int saved = -1;

/* What is opened next gets descriptor 0. */
static void free_0(void) {
    saved = fcntl(0, F_DUPFD_CLOEXEC, 3);
    cr_assert_geq(saved, 0);
    cr_assert_eq(close(0), 0);
}

/* Nobody has it any more. */
static void take_0_back(void) {
    cr_assert_eq(fcntl(0, F_GETFD), -1);
    cr_assert_eq(dup2(saved, 0), 0);
    cr_assert_eq(close(saved), 0);
}

/* SOCKET, which has descriptor 0, has been left by everybody, and is closed. */
static void assert_closes_0(int64_t socket) {
    cr_assert_eq(lport_socket_descriptor(socket), 0);
    int64_t wait = lport_wait_begin(socket, 0);
    cr_assert_gt(wait, 0);
    cr_assert_eq(lport_wait_wake(socket, LPORT_INPUT), 1);
    cr_assert_eq(lport_wait_poll(wait, soon(), 0), 0);
    cr_assert_eq(lport_wait_end(wait), 0);
    assert_closes(socket);
    take_0_back();
}

static int32_t option_index(const char *name) {
    int32_t index = 0;
    while (strcmp(lport_option_name(index), name) != 0) {
        index++;
    }
    return index;
}

SOCKET_TEST(descriptor, a_listener_has_number_0) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    free_0();
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    cr_assert_eq(lport_socket_name(listener, address), LPORT_INET);
    cr_assert_eq(lport_socket_state(listener), LPORT_STATE_LISTENING);
    assert_kind(lport_socket_shutdown(listener, LPORT_INPUT), LPORT_NOT_CONNECTED);
    int64_t client = connect_to(address);
    int64_t server = accept_one(listener, soon());
    cr_assert(client > 0 && server > 0);
    close_both((int64_t[]){client, server});
    assert_closes_0(listener);
}

/* Sends and receives an octet each way, and ends both directions, on SOCKET and its PEER. */
static void use_stream(int64_t socket, int64_t peer) {
    uint8_t octets[4] = "abc";
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    cr_assert_eq(fputs("x", file), 1);
    cr_assert_eq(fflush(file), 0);
    cr_assert_eq(send_some(socket, octets, 1, soon()), 1);
    cr_assert_eq(undisturbed(lport_socket_send2(socket, octets + 1, 1, NULL, 0)), 1);
    cr_assert_eq(undisturbed(lport_socket_send_file(socket, fileno(file), 0, 1)), 1);
    cr_assert_eq(receive_all(peer, octets, 3, soon()), 3);
    cr_assert_arr_eq(octets, "abx", 3);
    cr_assert_eq(send_all(peer, octets, 1, soon()), 1);
    cr_assert_eq(receive_some(socket, octets, 1, soon()), 1);
    cr_assert_eq(lport_socket_shutdown(socket, LPORT_OUTPUT), 0);
    cr_assert_eq(receive_some(peer, octets, 1, soon()), 0);
    cr_assert_eq(lport_socket_state(socket), LPORT_STATE_OUTPUT_SHUT);
    (void)fclose(file);
}

SOCKET_TEST(descriptor, a_connection_has_number_0) {
    uint8_t address[LPORT_ADDRESS_SIZE], peer[LPORT_ADDRESS_SIZE];
    for (int accepted = 0; accepted < 2; accepted++) {
        int64_t listener = listen_on_loopback(LPORT_INET, address), value, client, server;
        if (accepted) {
            client = connect_to(address);
            free_0();
            server = accept_one(listener, soon());
        } else {
            free_0();
            client = connect_to(address);
            server = accept_one(listener, soon());
        }
        cr_assert(client > 0 && server > 0);
        int64_t socket = accepted ? server : client;
        cr_assert_eq(lport_socket_peer(socket, peer), LPORT_INET);
        cr_assert_gt(lport_info_read(socket, &value, 1), 1);
        cr_assert_eq(lport_option_set(socket, option_index("keepalive"), 1), 0);
        cr_assert_eq(lport_option_get(socket, option_index("keepalive")), 1);
        char name[64] = "";
        int32_t control = option_index("congestion-control");
        int64_t len = lport_option_get_text(socket, control, name, sizeof name);
        cr_assert_gt(len, 0);
        cr_assert_eq(lport_option_set_text(socket, control, name, (size_t)len), 0);
        use_stream(socket, accepted ? client : server);
        assert_closes(accepted ? client : server);
        assert_closes(listener);
        assert_closes_0(socket);
    }
}

SOCKET_TEST(descriptor, a_local_socket_has_number_0) {
    int64_t ends[2], identity[3], passed = 1, got[1] = {-7};
    uint8_t octet = 'x';
    free_0();
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(lport_local_credentials(ends[0], identity), 0);
    cr_assert_eq(identity[0], getpid());
    cr_assert_eq(undisturbed(lport_local_send(ends[0], &octet, 1, &passed, 1)), 1);
    cr_assert_eq(undisturbed(lport_local_receive(ends[1], &octet, 1, got, 1)), 1);
    cr_assert_gt(got[0], 0);
    close((int)got[0]);
    passed = 0; /* itself */
    cr_assert_eq(undisturbed(lport_local_send(ends[1], &octet, 1, &passed, 1)), 1);
    cr_assert_eq(undisturbed(lport_local_receive(ends[0], &octet, 1, got, 1)), 1);
    cr_assert_gt(got[0], 0);
    close((int)got[0]);
    use_stream(ends[0], ends[1]);
    assert_closes(ends[1]);
    assert_closes_0(ends[0]);
}

SOCKET_TEST(descriptor, what_was_received_has_number_0) {
    int64_t ends[2], passed = 1, got[1] = {-7};
    uint8_t octet = 'x';
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(undisturbed(lport_local_send(ends[0], &octet, 1, &passed, 1)), 1);
    free_0();
    cr_assert_eq(undisturbed(lport_local_receive(ends[1], &octet, 1, got, 1)), 1);
    cr_assert_eq(got[0], 0);
    cr_assert_eq(close(0), 0);
    take_0_back();
    close_both(ends);
}

SOCKET_TEST(descriptor, a_socket_in_the_file_system_has_number_0) {
    char directory[] = "/tmp/port-descriptor-XXXXXX", path[64];
    uint8_t address[LPORT_ADDRESS_SIZE];
    cr_assert_not_null(mkdtemp(directory));
    int len = snprintf(path, sizeof path, "%s/s", directory);
    cr_assert_eq(lport_address_local(path, (size_t)len, address), LPORT_LOCAL);
    free_0();
    int64_t listener = lport_local_listen(address, LPORT_STREAM, -1, 0600, LPORT_UNLINK, NULL, 0);
    cr_assert_gt(listener, 0);
    int64_t client = connect_to(address);
    int64_t server = accept_one(listener, soon());
    cr_assert(client > 0 && server > 0);
    close_both((int64_t[]){client, server});
    assert_closes_0(listener);
    cr_assert_neq(access(path, F_OK), 0, "the close has removed it");
    free_0();
    int64_t bound = lport_datagram_open(address, NULL, 0, NULL, 0);
    cr_assert_gt(bound, 0);
    assert_closes_0(bound);
    cr_assert_eq(unlink(path), 0, "that of a datagram socket stays");
    cr_assert_eq(rmdir(directory), 0);
}

SOCKET_TEST(descriptor, a_datagram_socket_has_number_0) {
    uint8_t at[2][LPORT_ADDRESS_SIZE], sender[LPORT_ADDRESS_SIZE], octet = 'x';
    uint8_t group[LPORT_ADDRESS_SIZE], nobody[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    int64_t ends[2], length = 1;
    cr_assert_eq(lport_address_parse("239.7.7.7", 9, 0, group), LPORT_INET);
    loopback(LPORT_INET, 0, at[1]);
    ends[1] = lport_datagram_open(at[1], NULL, 0, NULL, 0);
    cr_assert_eq(lport_socket_name(ends[1], at[1]), LPORT_INET);
    free_0();
    loopback(LPORT_INET, 0, at[0]);
    ends[0] = lport_datagram_open(at[0], at[1], 0, NULL, 0);
    cr_assert_eq(lport_socket_name(ends[0], at[0]), LPORT_INET);
    cr_assert_eq(undisturbed(lport_datagram_send(ends[0], &octet, 1, NULL)), 1);
    cr_assert_eq(undisturbed(lport_datagram_send(ends[0], &octet, 1, at[1])), 1);
    cr_assert_eq(undisturbed(lport_datagram_send_batch(ends[0], &octet, 1, &length, nobody, 1)), 1);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(undisturbed(lport_datagram_receive(ends[1], &octet, 1, sender, 0)), 1);
        cr_assert_eq(undisturbed(lport_datagram_send(ends[1], &octet, 1, sender)), 1);
    }
    cr_assert_eq(undisturbed(lport_datagram_receive(ends[0], &octet, 1, NULL, 0)), 1);
    cr_assert_eq(undisturbed(lport_datagram_receive(ends[0], &octet, 1, sender, 0)), 1);
    cr_assert_eq(undisturbed(lport_datagram_receive_batch(ends[0], &octet, 1, &length, sender, 1)),
                 1);
    int32_t lo = (int32_t)lport_interface_index("lo", 2);
    cr_assert_eq(lport_datagram_join(ends[0], group, lo, NULL), 0);
    cr_assert_eq(lport_datagram_leave(ends[0], group, lo, NULL), 0);
    assert_closes_0(ends[0]);
    free_0();
    ends[0] = lport_datagram_open(at[0], at[1], LPORT_JOINED, NULL, 0);
    assert_kind(lport_datagram_receive(ends[0], &octet, 1, NULL, 0), LPORT_NOT_SUPPORTED);
    assert_closes_0(ends[0]);
    assert_closes(ends[1]);
}

/* The first wait of the process makes its eventfd, which stays in the pool. */
SOCKET_TEST(descriptor, the_eventfd_of_a_wait_has_number_0) {
    int64_t ends[2];
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    free_0();
    int64_t wait = lport_wait_begin(ends[0], LPORT_INPUT);
    cr_assert_gt(wait, 0);
    cr_assert_geq(fcntl(0, F_GETFD), 0);
    cr_assert_eq(lport_wait_wake(ends[0], LPORT_INPUT), 1);
    cr_assert_eq(lport_wait_poll(wait, soon(), 0), 0);
    cr_assert_eq(lport_wait_end(wait), 0);
    assert_kind(wait_for(ends[0], LPORT_INPUT, 0), LPORT_TIMED_OUT);
    close_both(ends);
    cr_assert_eq(dup2(saved, 0), 0);
    close(saved);
}

SOCKET_TEST(descriptor, pollers_and_what_they_hold_have_number_0) {
    for (int32_t backend = LPORT_POLLER_EPOLL; backend <= LPORT_POLLER_POLL; backend++) {
        int64_t ends[2], event[LPORT_EVENT_SIZE];
        for (int held = 0; held < 2; held++) {
            int64_t poller = 0;
            if (!held) {
                free_0();
                poller = lport_poller_open(backend);
            }
            cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
            if (held) {
                close_both(ends);
                poller = lport_poller_open(backend);
                free_0();
                cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
            }
            cr_assert_gt(poller, 0);
            cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_INPUT), 0);
            cr_assert_eq(lport_poller_modify(poller, ends[0], LPORT_OUTPUT), 0);
            int64_t turn = lport_poller_begin(poller);
            cr_assert_geq(turn, 0);
            cr_assert_eq(lport_poller_wait(poller, turn, event, 1, soon(), 0), 1);
            cr_assert_eq(event[0], ends[0]);
            cr_assert_eq(lport_poller_wake(poller), 0);
            cr_assert_eq(lport_poller_wait(poller, turn, event, 1, soon(), 0), 0);
            cr_assert_eq(lport_poller_end(poller, turn), 0);
            cr_assert_eq(lport_poller_remove(poller, ends[0]), 0);
            close_both(ends);
            assert_closes(poller);
            take_0_back();
        }
    }
}

/* The list asks by a socket of its own. */
SOCKET_TEST(descriptor, interfaces_are_asked_for_by_number_0) {
    free_0();
    cr_assert_gt(lport_interface_list(NULL, 0), 0);
    take_0_back();
}

/* A slot for which no socket could be made has no descriptor, not even that of its memory. */
SOCKET_TEST(descriptor, number_0_can_be_adopted) {
    faults_fail(CALL_SOCKET, 1, 1, EMFILE);
    assert_kind(lport_socket_open(LPORT_INET, LPORT_STREAM, 0), LPORT_DESCRIPTORS_EXHAUSTED);
    faults_resume();
    free_0();
    cr_assert_eq(socket(AF_INET, SOCK_STREAM, 0), 0);
    cr_assert_eq(lport_descriptor_inspect(0), LPORT_INET | LPORT_STREAM << 8);
    int64_t socket = lport_descriptor_adopt(0);
    cr_assert_gt(socket, 0, "%s", kind_text(lport_status_kind(socket)));
    assert_kind(lport_descriptor_inspect(0), LPORT_INVALID);
    assert_closes_0(socket);
}
