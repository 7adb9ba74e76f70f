/* datagram: messages that arrive whole, cut off and told so, or not at all; who sent them; what
 * ICMP says. */
#include "address/address.h"
#include "base/os.h"
#include "faults.h"
#include "support.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

TestSuite(datagram, .timeout = 10);

static const int32_t families[] = {LPORT_INET, LPORT_INET6};

/* ---- ends ------------------------------------------------------------------------------------ */

/* A UDP socket on loopback, connected to REMOTE unless that is NULL; its address into ADDRESS. */
static int64_t open_udp(int32_t family, const uint8_t *remote, uint8_t *address) {
    loopback(family, 0, address);
    int64_t socket = lport_datagram_open(address, remote, 0, NULL, 0);
    cr_assert_gt(socket, 0, "%s", kind_text(lport_status_kind(socket)));
    cr_assert_eq(lport_socket_name(socket, address), family);
    return socket;
}

/* The next message, waited for. */
static int64_t receive(int64_t socket, void *octets, size_t len, uint8_t *sender) {
    for (;;) {
        int64_t count = lport_datagram_receive(socket, octets, len, sender, 0);
        if (lport_status_kind(count) != LPORT_WOULD_BLOCK) {
            return count;
        }
        int64_t ready = wait_for(socket, LPORT_INPUT, soon());
        if (ready < 0) {
            return ready;
        }
    }
}

static int64_t send_text(int64_t socket, const char *text, const uint8_t *address) {
    return undisturbed(lport_datagram_send(socket, (const uint8_t *)text, strlen(text), address));
}

static void assert_gets(int64_t socket, const char *text, const uint8_t *from) {
    char octets[64] = "";
    uint8_t sender[LPORT_ADDRESS_SIZE] = {99};
    cr_assert_eq(receive(socket, octets, sizeof octets, from == NULL ? NULL : sender),
                 (int64_t)strlen(text));
    cr_assert_str_eq(octets, text);
    cr_assert(from == NULL || lport_address_equal(sender, from) == 1);
}

static void assert_nothing_there(int64_t socket) {
    uint8_t octet;
    assert_kind(undisturbed(lport_datagram_receive(socket, &octet, 1, NULL, 0)), LPORT_WOULD_BLOCK);
}

/* ---- UDP ------------------------------------------------------------------------------------- */

/* Behaviour 63: the exact sender, by an unconnected socket and by a connected one. */
SOCKET_TEST(datagram, messages_go_both_ways_and_tell_their_sender) {
    uint8_t server_at[LPORT_ADDRESS_SIZE], client_at[LPORT_ADDRESS_SIZE];
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t server = open_udp(families[i], NULL, server_at);
        int64_t client = open_udp(families[i], server_at, client_at);
        cr_assert_eq(send_text(client, "question", NULL), 8);
        assert_gets(server, "question", client_at);
        cr_assert_eq(send_text(server, "answer", client_at), 6);
        assert_gets(client, "answer", server_at);
        cr_assert_eq(send_text(server, "more", client_at), 4);
        assert_gets(client, "more", NULL);
        assert_closes(server);
        assert_closes(client);
    }
}

/* A connected socket hears nobody else, and may still send elsewhere. */
SOCKET_TEST(datagram, a_connected_socket_hears_only_its_peer) {
    uint8_t server_at[LPORT_ADDRESS_SIZE], client_at[LPORT_ADDRESS_SIZE], third_at[120];
    int64_t server = open_udp(LPORT_INET, NULL, server_at);
    int64_t client = open_udp(LPORT_INET, server_at, client_at);
    int64_t third = open_udp(LPORT_INET, NULL, third_at);
    cr_assert_eq(send_text(third, "intruder", client_at), 8);
    cr_assert_eq(send_text(server, "peer", client_at), 4);
    assert_gets(client, "peer", server_at);
    assert_nothing_there(client);
    cr_assert_eq(send_text(client, "aside", third_at), 5);
    assert_gets(third, "aside", client_at);
    assert_kind(send_text(third, "nowhere", NULL), LPORT_NOT_CONNECTED);
    assert_closes(server);
    assert_closes(client);
    assert_closes(third);
}

static struct lport_os real;
static int64_t stranger;

/* Connects FD after a stranger has sent something to where it is bound, more than once. */
static int connect_too_late(int fd, const struct sockaddr *address, socklen_t len) {
    struct sockaddr_storage own;
    socklen_t own_len = sizeof own;
    uint8_t at[LPORT_ADDRESS_SIZE];
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&own, &own_len), 0);
    cr_assert_gt(lport_address_from_kernel(&own, own_len, at), 0);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(send_text(stranger, "intruder", at), 8);
    }
    return real.connect(fd, address, len);
}

SOCKET_TEST(datagram, a_connected_socket_has_heard_nobody_before) {
    uint8_t server_at[LPORT_ADDRESS_SIZE], client_at[LPORT_ADDRESS_SIZE], at[LPORT_ADDRESS_SIZE];
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t server = open_udp(families[i], NULL, server_at);
        stranger = open_udp(families[i], NULL, at);
        faults_watch(); /* a call is replaced by its own, and a made-up EAGAIN would end another */
        real = lport_os;
        lport_os.connect = connect_too_late;
        int64_t client = open_udp(families[i], server_at, client_at);
        lport_os = real;
        faults_resume();
        assert_nothing_there(client);
        cr_assert_eq(send_text(server, "peer", client_at), 4);
        assert_gets(client, "peer", server_at);
        assert_closes(server);
        assert_closes(client);
        assert_closes(stranger);
    }
}

SOCKET_TEST(datagram, one_that_cannot_forget_a_stranger_is_not_opened) {
    uint8_t server_at[LPORT_ADDRESS_SIZE], client_at[LPORT_ADDRESS_SIZE];
    int64_t server = open_udp(LPORT_INET, NULL, server_at);
    loopback(LPORT_INET, 0, client_at);
    faults_fail(CALL_RECV, 1, 1, EINTR);
    int64_t client = lport_datagram_open(client_at, server_at, 0, NULL, 0);
    cr_assert_gt(client, 0);
    faults_fail(CALL_RECV, 1, 1, ENOMEM);
    assert_kind(lport_datagram_open(client_at, server_at, 0, NULL, 0), LPORT_MEMORY_EXHAUSTED);
    faults_clear();
    assert_closes(client);
    assert_closes(server);
}

/* One socket for IPv4 and IPv6; IPv4 senders look like IPv4, and answers reach them. */
SOCKET_TEST(datagram, the_wildcard_takes_both_families) {
    uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_ANY}, at[LPORT_ADDRESS_SIZE];
    uint8_t client_at[LPORT_ADDRESS_SIZE];
    int64_t server = lport_datagram_open(any, NULL, 0, NULL, 0);
    cr_assert_gt(server, 0);
    cr_assert_eq(lport_socket_name(server, at), LPORT_INET6);
    int32_t port = lport_address_port(at);
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        loopback(families[i], port, at);
        int64_t client = open_udp(families[i], at, client_at);
        cr_assert_eq(send_text(client, "question", NULL), 8);
        assert_gets(server, "question", client_at);
        cr_assert_eq(send_text(server, "answer", client_at), 6);
        assert_gets(client, "answer", at);
        assert_closes(client);
    }
    assert_closes(server);
}

/* A port without an address beside a remote end is a port of the remote's family. */
/* The wildcard of IPv6 is one family's, that of any family is both's. */
SOCKET_TEST(datagram, the_wildcard_of_ipv6_takes_ipv6_only) {
    static const int32_t wildcards[] = {LPORT_INET6, LPORT_ANY};
    for (int i = 0; i < 2; i++) {
        uint8_t wildcard[LPORT_ADDRESS_SIZE] = {(uint8_t)wildcards[i]};
        int only = -1;
        socklen_t len = sizeof only;
        int64_t socket = lport_datagram_open(wildcard, NULL, 0, NULL, 0);
        cr_assert_gt(socket, 0);
        int fd = (int)lport_socket_descriptor(socket);
        cr_assert_eq(getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &len), 0);
        cr_assert_eq(only, wildcards[i] == LPORT_INET6);
        assert_closes(socket);
    }
}

SOCKET_TEST(datagram, a_port_of_our_own_with_a_remote_end) {
    uint8_t server_at[LPORT_ADDRESS_SIZE], at[LPORT_ADDRESS_SIZE];
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
        int64_t server = open_udp(families[i], NULL, server_at);
        int64_t client = lport_datagram_open(any, server_at, 0, NULL, 0);
        cr_assert_gt(client, 0);
        cr_assert_eq(lport_socket_name(client, at), families[i]);
        cr_assert_gt(lport_address_port(at), 0);
        assert_closes(client);
        assert_closes(server);
    }
}

/* A local end without a family gives a port alone. */
SOCKET_TEST(datagram, a_port_of_our_own_on_any_address) {
    uint8_t remote[LPORT_ADDRESS_SIZE], own[LPORT_ADDRESS_SIZE], name[LPORT_ADDRESS_SIZE];
    int64_t server = open_udp(LPORT_INET, NULL, remote);
    for (int connected = 0; connected < 2; connected++) {
        loopback(LPORT_INET, 0, own);
        int64_t first =
            lport_datagram_open(own, NULL, LPORT_REUSE_ADDRESS, NULL, 0); /* finds a port */
        cr_assert_eq(lport_socket_name(first, own), LPORT_INET);
        own[LPORT_AT_FAMILY] = LPORT_ANY;
        int64_t socket =
            lport_datagram_open(own, connected ? remote : NULL, LPORT_REUSE_ADDRESS, NULL, 0);
        cr_assert_gt(socket, 0, "%s", kind_text(lport_status_kind(socket)));
        cr_assert_gt(lport_socket_name(socket, name), 0);
        cr_assert_eq(lport_address_port(name), lport_address_port(own));
        assert_closes(socket);
        assert_closes(first);
    }
    assert_closes(server);
}

SOCKET_TEST(datagram, a_mapped_address_is_the_ipv4_one) {
    uint8_t any[LPORT_ADDRESS_SIZE] = {0}, mapped[LPORT_ADDRESS_SIZE], octet = 7;
    cr_assert_eq(lport_address_parse("::ffff:127.0.0.1", 16, 0, mapped), LPORT_INET6);
    int64_t receiver = lport_datagram_open(mapped, NULL, 0, NULL, 0);
    cr_assert_gt(receiver, 0, "%lld", (long long)receiver);
    cr_assert_eq(lport_socket_name(receiver, any), LPORT_INET);
    lport_address_set_port(mapped, lport_address_port(any));
    any[0] = LPORT_ANY;
    lport_address_set_port(any, 0);
    int64_t connected = lport_datagram_open(any, mapped, 0, NULL, 0);
    cr_assert_gt(connected, 0, "%lld", (long long)connected);
    cr_assert_eq(undisturbed(lport_datagram_send(connected, &octet, 1, NULL)), 1);
    cr_assert_eq(undisturbed(lport_datagram_send(receiver, &octet, 1, mapped)), 1);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(wait_for(receiver, LPORT_INPUT, soon()), LPORT_INPUT);
        cr_assert_eq(undisturbed(lport_datagram_receive(receiver, &octet, 1, NULL, 0)), 1);
    }
    cr_assert_eq(lport_socket_close(connected, 0), 0);
    cr_assert_eq(lport_socket_close(receiver, 0), 0);
}

SOCKET_TEST(datagram, ends_that_do_not_fit_are_refused) {
    uint8_t inet[LPORT_ADDRESS_SIZE], inet6[LPORT_ADDRESS_SIZE], any[LPORT_ADDRESS_SIZE] = {0};
    loopback(LPORT_INET, 9, inet);
    loopback(LPORT_INET6, 9, inet6);
    assert_kind(lport_datagram_open(inet, inet6, 0, NULL, 0), LPORT_INVALID);
    assert_kind(lport_datagram_open(inet6, inet, 0, NULL, 0), LPORT_INVALID);
    assert_kind(lport_datagram_open(any, any, 0, NULL, 0), LPORT_INVALID);
    any[LPORT_AT_FAMILY] = 99;
    assert_kind(lport_datagram_open(any, NULL, 0, NULL, 0), LPORT_INVALID);
    loopback(LPORT_INET, 0, inet);
    int64_t socket = lport_datagram_open(inet, NULL, 0, NULL, 0);
    assert_kind(send_text(socket, "x", any), LPORT_INVALID);
    assert_kind(send_text(socket, "x", inet6), LPORT_NOT_SUPPORTED);
    cr_assert_gt(lport_socket_name(socket, inet), 0);
    assert_kind(lport_datagram_open(inet, NULL, 0, NULL, 0), LPORT_ADDRESS_IN_USE);
    assert_closes(socket);
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    assert_kind(send_text(ends[0], "x", NULL), LPORT_INVALID);
    assert_kind(lport_datagram_receive(ends[0], any, 1, NULL, 0), LPORT_INVALID);
    close_both(ends);
}

SOCKET_TEST(datagram, which_end_failed_is_told) {
    uint8_t taken[LPORT_ADDRESS_SIZE], other[LPORT_ADDRESS_SIZE], all[LPORT_ADDRESS_SIZE];
    int64_t socket = open_udp(LPORT_INET, NULL, taken);
    loopback(LPORT_INET, 9, other);
    int64_t bound = lport_datagram_open(taken, other, 0, NULL, 0);
    assert_kind(bound, LPORT_ADDRESS_IN_USE);
    cr_assert_eq(lport_status_own(bound), 1);
    loopback(LPORT_INET, 0, taken);
    cr_assert_gt(lport_address_parse("127.255.255.255", 15, 9, all), 0);
    int64_t connected = lport_datagram_open(taken, all, 0, NULL, 0);
    assert_kind(connected, LPORT_CONNECT_DENIED);
    cr_assert_eq(lport_status_own(connected), 0);
    assert_closes(socket);
}

/* Behaviour 63: empty is a message, and what is cut off is told; by name and without. */
SOCKET_TEST(datagram, empty_messages_and_messages_cut_off) {
    uint8_t server_at[LPORT_ADDRESS_SIZE], client_at[LPORT_ADDRESS_SIZE], sender[120];
    char octets[16];
    int64_t server = open_udp(LPORT_INET, NULL, server_at);
    int64_t client = open_udp(LPORT_INET, server_at, client_at);
    for (int named = 0; named < 2; named++) {
        uint8_t *who = named ? sender : NULL;
        cr_assert_eq(send_text(client, "", NULL), 0);
        cr_assert_eq(send_text(client, "a long message", NULL), 14);
        cr_assert_eq(send_text(client, "a third", NULL), 7);
        cr_assert_eq(send_text(client, "next", NULL), 4);
        cr_assert_eq(receive(server, octets, sizeof octets, who), 0);
        memset(octets, '-', sizeof octets);
        cr_assert_eq(
            undisturbed(lport_datagram_receive(server, (uint8_t *)octets, 6, who, LPORT_PEEK)), 14);
        cr_assert_eq(receive(server, octets, 6, who), 14, "the full length is told");
        cr_assert_arr_eq(octets, "a long----------", 16);
        cr_assert_eq(receive(server, NULL, 0, who), 7, "a message may be passed over");
        cr_assert_eq(receive(server, octets, sizeof octets, who), 4);
        assert_nothing_there(server);
    }
    assert_closes(server);
    assert_closes(client);
}

/* Behaviours 63 and 41: too long is an error of that message alone, up to 3 GiB of it. */
SOCKET_TEST(datagram, a_message_that_is_too_long) {
    static uint8_t most[65507];
    const size_t huge = (size_t)3 << 30;
    uint8_t server_at[LPORT_ADDRESS_SIZE], client_at[LPORT_ADDRESS_SIZE];
    uint8_t *room = mmap(NULL, huge, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int64_t server = open_udp(LPORT_INET, NULL, server_at);
    int64_t client = open_udp(LPORT_INET, server_at, client_at);
    cr_assert_neq(room, MAP_FAILED);
    assert_kind(undisturbed(lport_datagram_send(client, room, 65508, NULL)),
                LPORT_MESSAGE_TOO_LONG);
    assert_kind(undisturbed(lport_datagram_send(client, room, huge, NULL)), LPORT_MESSAGE_TOO_LONG);
    assert_kind(undisturbed(lport_datagram_send(server, room, huge, client_at)),
                LPORT_MESSAGE_TOO_LONG);
    fill(most, sizeof most, 3);
    cr_assert_eq(undisturbed(lport_datagram_send(client, most, sizeof most, NULL)),
                 (int64_t)sizeof most);
    cr_assert_eq(receive(server, room, huge, NULL), (int64_t)sizeof most);
    cr_assert_arr_eq(room, most, sizeof most);
    munmap(room, huge);
    assert_closes(server);
    assert_closes(client);
}

/* Behaviour 63: reported once by whatever comes next, and the socket works on. */
SOCKET_TEST(datagram, a_refusal_is_reported_and_the_socket_works_on) {
    uint8_t server_at[LPORT_ADDRESS_SIZE], client_at[LPORT_ADDRESS_SIZE], octet;
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t server = open_udp(families[i], NULL, server_at);
        int64_t client = open_udp(families[i], server_at, client_at);
        assert_closes(server);
        cr_assert_eq(send_text(client, "anybody?", NULL), 8);
        assert_kind(receive(client, &octet, 1, NULL), LPORT_CONNECTION_REFUSED);
        assert_nothing_there(client);
        cr_assert_eq(send_text(client, "really?", NULL), 7);
        cr_assert_gt(wait_for(client, LPORT_INPUT, soon()), 0);
        assert_kind(send_text(client, "then not", NULL), LPORT_CONNECTION_REFUSED);
        cr_assert_eq(lport_socket_state(client), 0);
        server = lport_datagram_open(server_at, NULL, 0, NULL, 0);
        cr_assert_gt(server, 0);
        cr_assert_eq(send_text(client, "good", NULL), 4);
        assert_gets(server, "good", client_at);
        assert_closes(server);
        assert_closes(client);
    }
}

SOCKET_TEST(datagram, a_full_buffer_of_udp_is_waited_for_and_no_full_receiver) {
    uint8_t server_at[LPORT_ADDRESS_SIZE], client_at[LPORT_ADDRESS_SIZE];
    int64_t server = open_udp(LPORT_INET, NULL, server_at);
    int64_t client = open_udp(LPORT_INET, NULL, client_at);
    faults_fail(CALL_SENDTO, 1, 1, EAGAIN);
    assert_kind(lport_datagram_send(client, (const uint8_t *)"x", 1, server_at), LPORT_WOULD_BLOCK);
    faults_clear();
    assert_closes(server);
    assert_closes(client);
}

SOCKET_TEST(datagram, broadcasts_need_the_flag) {
    uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_INET}, all[LPORT_ADDRESS_SIZE];
    uint8_t at[LPORT_ADDRESS_SIZE];
    int64_t server = open_udp(LPORT_INET, NULL, at);
    cr_assert_gt(lport_address_parse("127.255.255.255", 15, lport_address_port(at), all), 0);
    int64_t silent = lport_datagram_open(any, NULL, 0, NULL, 0);
    int64_t loud = lport_datagram_open(any, NULL, LPORT_BROADCAST, NULL, 0);
    assert_kind(send_text(silent, "all", all), LPORT_PERMISSION_DENIED);
    cr_assert_eq(send_text(loud, "all", all), 3);
    assert_closes(server);
    assert_closes(silent);
    assert_closes(loud);
}

static int64_t receiving(void *data) {
    uint8_t octet;
    return receive(*(int64_t *)data, &octet, 1, NULL);
}

/* Behaviour 16. */
SOCKET_TEST(datagram, close_wakes_a_receive) {
    uint8_t at[LPORT_ADDRESS_SIZE];
    struct task task;
    int64_t pair[2];
    int64_t sockets[3] = {open_udp(LPORT_INET, NULL, at), 0, 0};
    cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, pair), 0);
    sockets[1] = pair[0];
    sockets[2] = pair[1];
    for (int i = 0; i < 2; i++) {
        task_start(&task, receiving, &sockets[i]);
        task_until_asleep(&task, 1);
        cr_assert_geq(lport_socket_close(sockets[i], 0), 0);
        assert_kind(task_join(&task), LPORT_CLOSED);
        cr_assert_eq(lport_socket_gone(sockets[i], soon()), 0);
    }
    assert_closes(sockets[2]);
}

static int64_t make_connected(void *data) {
    uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    return lport_datagram_open(any, data, LPORT_BROADCAST | LPORT_REUSE_ADDRESS, NULL, 0);
}

static int64_t make_wildcard(void *data) {
    uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    (void)data;
    return lport_datagram_open(any, NULL, 0, NULL, 0);
}

static void close_result(void *data, int64_t result) {
    (void)data;
    if (result > 0) {
        assert_closes(result);
    }
}

/* Behaviour 64. */
SOCKET_TEST(datagram, every_system_call_may_fail) {
    uint8_t remote[LPORT_ADDRESS_SIZE];
    loopback(have_inet6() ? LPORT_INET6 : LPORT_INET, 9, remote);
    fail_every_call(make_connected, close_result, remote);
    fail_every_call(make_wildcard, close_result, NULL);
}

static int64_t make_without_inet6(int error) {
    faults_fail(CALL_SOCKET, 1, 1, error);
    int64_t socket = make_wildcard(NULL);
    faults_clear();
    return socket;
}

SOCKET_TEST(datagram, without_inet6_the_wildcard_is_inet) {
    uint8_t at[LPORT_ADDRESS_SIZE];
    int64_t socket = make_without_inet6(EAFNOSUPPORT);
    cr_assert_gt(socket, 0);
    cr_assert_eq(lport_socket_name(socket, at), LPORT_INET);
    assert_closes(socket);
    assert_kind(make_without_inet6(EMFILE), LPORT_DESCRIPTORS_EXHAUSTED);
}

/* Behaviour 42: signals surface nowhere. */
SOCKET_TEST(datagram, interruptions_do_not_surface) {
    uint8_t server_at[LPORT_ADDRESS_SIZE], client_at[LPORT_ADDRESS_SIZE];
    int64_t server = open_udp(LPORT_INET, NULL, server_at);
    int64_t client = open_udp(LPORT_INET, server_at, client_at);
    static const enum call calls[] = {CALL_SEND, CALL_SENDTO, CALL_RECV, CALL_RECVFROM};
    for (int i = 0; i < 4; i++) {
        faults_fail(calls[i], 1, 3, EINTR);
    }
    cr_assert_eq(send_text(client, "one", NULL), 3);
    assert_gets(server, "one", client_at);
    cr_assert_eq(send_text(server, "two", client_at), 3);
    assert_gets(client, "two", NULL);
    cr_assert_eq(faults_struck(), 12);
    assert_closes(server);
    assert_closes(client);
}

/* Messages of no octets are messages, and one that was interrupted is one. */
SOCKET_TEST(datagram, an_interrupted_message_of_no_octets_is_one_message) {
    uint8_t server_at[LPORT_ADDRESS_SIZE], client_at[LPORT_ADDRESS_SIZE], sender[120];
    static const enum call calls[] = {CALL_SEND, CALL_SENDTO, CALL_RECV, CALL_RECVFROM};
    int64_t server = open_udp(LPORT_INET, NULL, server_at);
    int64_t client = open_udp(LPORT_INET, server_at, client_at);
    for (int i = 0; i < 4; i++) {
        faults_fail(calls[i], 1, 1, EINTR);
    }
    cr_assert_eq(send_text(client, "", NULL), 0);
    cr_assert_eq(receive(server, NULL, 0, NULL), 0);
    assert_nothing_there(server);
    cr_assert_eq(send_text(client, "", server_at), 0);
    cr_assert_eq(receive(server, NULL, 0, sender), 0);
    cr_assert_eq(lport_address_equal(sender, client_at), 1);
    assert_nothing_there(server);
    cr_assert_eq(faults_struck(), 4);
    faults_resume();
    assert_closes(server);
    assert_closes(client);
}

/* ---- local datagrams ------------------------------------------------------------------------- */

static int64_t bind_abstract(uint8_t *address) {
    char name[64];
    int len = snprintf(name, sizeof name, "@port-test-datagram-%d", (int)getpid());
    cr_assert_gt(lport_address_local(name, (size_t)len, address), 0);
    int64_t socket = lport_local_listen(address, LPORT_DATAGRAM, 0, -1, 0, NULL, 0);
    cr_assert_gt(socket, 0);
    return socket;
}

/* Behaviour 63: the system picks a name, so that the receiver can answer. */
SOCKET_TEST(datagram, local_ends_have_names_to_answer_to) {
    uint8_t server_at[LPORT_ADDRESS_SIZE], client_at[LPORT_ADDRESS_SIZE];
    uint8_t unnamed[LPORT_ADDRESS_SIZE] = {LPORT_LOCAL};
    int64_t server = bind_abstract(server_at);
    int64_t client = lport_datagram_open(unnamed, server_at, 0, NULL, 0);
    cr_assert_gt(client, 0);
    cr_assert_eq(lport_socket_name(client, client_at), LPORT_LOCAL);
    cr_assert_gt(client_at[LPORT_AT_LENGTH], 0);
    cr_assert_eq(send_text(client, "question", NULL), 8);
    cr_assert_eq(send_text(client, "", NULL), 0);
    assert_gets(server, "question", client_at);
    assert_gets(server, "", client_at);
    cr_assert_eq(send_text(server, "answer", client_at), 6);
    assert_gets(client, "answer", server_at);
    assert_closes(server);
    assert_kind(send_text(client, "gone?", NULL), LPORT_CONNECTION_REFUSED);
    assert_closes(client);
    assert_kind(lport_datagram_open(unnamed, server_at, 0, NULL, 0), LPORT_CONNECTION_REFUSED);
}

/* poll says writable while a receiver has no room: that has a status of its own. */
SOCKET_TEST(datagram, a_full_receiver_of_a_name_is_told_apart) {
    uint8_t server_at[LPORT_ADDRESS_SIZE], unnamed[LPORT_ADDRESS_SIZE] = {LPORT_LOCAL};
    int64_t server = bind_abstract(server_at);
    int64_t sender = lport_datagram_open(unnamed, NULL, 0, NULL, 0);
    int64_t connected = lport_datagram_open(unnamed, server_at, 0, NULL, 0);
    int64_t count = 0, status;
    while ((status = send_text(sender, "x", server_at)) == 1) {
        cr_assert_lt(++count, 100000);
    }
    cr_assert_gt(count, 0);
    assert_kind(status, LPORT_BACKLOG_FULL);
    assert_kind(send_text(connected, "x", NULL), LPORT_WOULD_BLOCK);
    assert_kind(wait_for(connected, LPORT_OUTPUT, 0), LPORT_TIMED_OUT);
    for (; count > 0; count--) {
        assert_gets(server, "x", NULL);
    }
    cr_assert_eq(send_text(sender, "y", server_at), 1);
    cr_assert_eq(send_text(connected, "z", NULL), 1);
    assert_closes(server);
    assert_closes(sender);
    assert_closes(connected);
}

/* ---- sequenced packets ----------------------------------------------------------------------- */

/* Behaviour 63: packets keep their boundaries, empty ones are no end of file, and the end is told
 * from them even when they came last. */
SOCKET_TEST(datagram, packets_keep_their_boundaries_and_end) {
    int64_t ends[2];
    char octets[8];
    cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, ends), 0);
    cr_assert_eq(send_text(ends[0], "first", NULL), 5);
    cr_assert_eq(send_text(ends[0], "", NULL), 0);
    cr_assert_eq(send_text(ends[0], "cut off here", NULL), 12);
    cr_assert_eq(send_text(ends[0], "", NULL), 0);
    cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_OUTPUT), 0);
    assert_kind(send_text(ends[0], "x", NULL), LPORT_OUTPUT_SHUT);
    assert_gets(ends[1], "first", NULL);
    cr_assert_eq(receive(ends[1], octets, 8, NULL), 0);
    cr_assert_eq(receive(ends[1], octets, 8, NULL), 12);
    cr_assert_arr_eq(octets, "cut off ", 8);
    cr_assert_eq(receive(ends[1], octets, 8, NULL), 0);
    for (int i = 0; i < 3; i++) { /* behaviour 27 */
        assert_kind(receive(ends[1], octets, 8, NULL), LPORT_END);
    }
    cr_assert_eq(send_text(ends[1], "back", NULL), 4);
    assert_gets(ends[0], "back", NULL);
    cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_INPUT), 0);
    assert_kind(receive(ends[0], octets, 8, NULL), LPORT_END);
    close_both(ends);
}

/* Behaviours 31 and 34. */
SOCKET_TEST(datagram, a_broken_connection_of_packets_stays_broken) {
    int64_t ends[2];
    uint8_t octet;
    cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, ends), 0);
    assert_closes(ends[1]);
    for (int i = 0; i < 3; i++) {
        assert_kind(send_text(ends[0], "x", NULL), LPORT_CONNECTION_RESET);
        assert_kind(receive(ends[0], &octet, 1, NULL), LPORT_CONNECTION_RESET);
    }
    cr_assert_eq(lport_socket_state(ends[0]), LPORT_STATE_BROKEN);
    assert_closes(ends[0]);
}

/* Behaviours 31 and 32: the system tells of the reset first. */
SOCKET_TEST(datagram, packets_that_came_before_a_reset_are_received_before_it) {
    int64_t ends[2], descriptor;
    uint8_t octet;
    cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, ends), 0);
    cr_assert_eq(send_text(ends[0], "unread", NULL), 6);
    cr_assert_eq(send_text(ends[1], "last", NULL), 4);
    cr_assert_eq(send_text(ends[1], "", NULL), 0);
    assert_closes(ends[1]);
    assert_gets(ends[0], "last", NULL);
    cr_assert_eq(receive(ends[0], &octet, 1, NULL), 0);
    for (int i = 0; i < 3; i++) {
        assert_kind(receive(ends[0], &octet, 1, NULL), LPORT_CONNECTION_RESET);
        assert_kind(undisturbed(lport_local_receive(ends[0], &octet, 1, &descriptor, 1)),
                    LPORT_CONNECTION_RESET);
    }
    assert_closes(ends[0]);
}

/* A connection of packets that breaks while a packet of it is received. */
static struct {
    struct lport_os os;
    int64_t ends[2];
} breaking;

/* The packet, and then what two other threads may do meanwhile: the peer closes, and a send meets
 * that. */
static ssize_t breaking_recvmsg(int fd, struct msghdr *message, int flags) {
    ssize_t count = breaking.os.recvmsg(fd, message, flags);
    lport_os = breaking.os;
    assert_closes(breaking.ends[1]);
    assert_kind(send_text(breaking.ends[0], "x", NULL), LPORT_CONNECTION_RESET);
    return count;
}

/* Behaviour 31. */
SOCKET_TEST(datagram, a_packet_is_received_once_whatever_breaks_meanwhile) {
    int64_t descriptor;
    uint8_t octet = 0;
    for (int passing = 0; passing < 2; passing++) {
        cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, breaking.ends), 0);
        faults_watch();
        cr_assert_eq(send_text(breaking.ends[1], "1", NULL), 1);
        cr_assert_eq(send_text(breaking.ends[1], "2", NULL), 1);
        breaking.os = lport_os;
        lport_os.recvmsg = breaking_recvmsg;
        cr_assert_eq(passing ? lport_local_receive(breaking.ends[0], &octet, 1, &descriptor, 1)
                             : lport_datagram_receive(breaking.ends[0], &octet, 1, NULL, 0),
                     1);
        faults_resume();
        cr_assert_eq(octet, '1');
        assert_gets(breaking.ends[0], "2", NULL);
        assert_kind(receive(breaking.ends[0], &octet, 1, NULL), LPORT_CONNECTION_RESET);
        assert_closes(breaking.ends[0]);
    }
}

/* Behaviours 31 and 32: who receives them as octets gets them first, too. */
SOCKET_TEST(datagram, octets_of_packets_that_came_before_a_reset_are_received_before_it) {
    int64_t ends[2];
    uint8_t octet = 0;
    cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, ends), 0);
    cr_assert_eq(send_text(ends[0], "unread", NULL), 6);
    cr_assert_eq(send_text(ends[1], "1", NULL), 1);
    assert_closes(ends[1]);
    cr_assert_eq(undisturbed(lport_socket_receive(ends[0], &octet, 1, 0)), 1);
    cr_assert_eq(octet, '1');
    assert_kind(undisturbed(lport_socket_receive(ends[0], &octet, 1, 0)), LPORT_CONNECTION_RESET);
    assert_closes(ends[0]);
}

/* Behaviours 31 and 32: the system tells of each failure first. */
SOCKET_TEST(datagram, packets_are_received_before_a_second_failure_too) {
    int64_t ends[2], descriptor;
    uint8_t octet = 0;
    cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, ends), 0);
    cr_assert_eq(send_text(ends[0], "unread", NULL), 6);
    cr_assert_eq(lport_socket_shutdown(ends[1], LPORT_INPUT), 0);
    assert_kind(send_text(ends[0], "x", NULL), LPORT_CONNECTION_RESET);
    cr_assert_eq(send_text(ends[1], "1", NULL), 1);
    assert_closes(ends[1]);
    assert_gets(ends[0], "1", NULL);
    assert_kind(receive(ends[0], &octet, 1, NULL), LPORT_CONNECTION_RESET);
    assert_kind(undisturbed(lport_local_receive(ends[0], &octet, 1, &descriptor, 1)),
                LPORT_CONNECTION_RESET);
    assert_closes(ends[0]);
}

/* Behaviour 64: the one call that a receive of packets makes beside its own. */
SOCKET_TEST(datagram, a_failure_while_packets_are_prepared_is_told) {
    int64_t ends[2];
    cr_assert_eq(lport_socket_pair(LPORT_SEQPACKET, ends), 0);
    cr_assert_eq(send_text(ends[0], "x", NULL), 1);
    faults_fail(CALL_SETSOCKOPT, 1, 1, ENOBUFS);
    uint8_t octet;
    assert_kind(lport_datagram_receive(ends[1], &octet, 1, NULL, 0), LPORT_BUFFERS_EXHAUSTED);
    faults_fail(CALL_RECVMSG, 1, 2, EINTR);
    assert_gets(ends[1], "x", NULL);
    close_both(ends);
}
