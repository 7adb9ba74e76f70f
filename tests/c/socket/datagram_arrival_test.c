/* datagram_arrival: the address that a message was sent to, and the one that an answer comes from.
 */
#include "address/address.h"
#include "faults.h"
#include "support.h"

#include <net/if.h>
#include <string.h>

TestSuite(datagram_arrival, .timeout = 10);

static void address_of(const char *text, int32_t port, uint8_t *address) {
    cr_assert_gt(lport_address_parse(text, strlen(text), port, address), 0);
}

/* A server on the wildcard of FAMILY that is told where messages are sent to, and its port. */
static int64_t open_server(int32_t family, int32_t flags, int32_t *port) {
    uint8_t at[LPORT_ADDRESS_SIZE] = {(uint8_t)family};
    int64_t server = lport_datagram_open(at, NULL, flags | LPORT_PACKET_INFO, NULL, 0);
    cr_assert_gt(server, 0, "%s", kind_text(lport_status_kind(server)));
    cr_assert_gt(lport_socket_name(server, at), 0);
    *port = lport_address_port(at);
    return server;
}

/* A client of the family of HOST, on loopback; connected to HOST and PORT unless PORT is 0. */
static int64_t open_client(const char *host, int32_t port, uint8_t *own) {
    uint8_t at[LPORT_ADDRESS_SIZE];
    address_of(host, port, at);
    loopback(at[LPORT_AT_FAMILY], 0, own);
    int64_t client = lport_datagram_open(own, port == 0 ? NULL : at, LPORT_BROADCAST, NULL, 0);
    cr_assert_gt(client, 0);
    cr_assert_gt(lport_socket_name(client, own), 0);
    return client;
}

/* What a server is asked, and by whom, at which of its addresses. */
struct question {
    uint8_t octets[8], sender[LPORT_ADDRESS_SIZE], own[LPORT_ADDRESS_SIZE];
};

static int64_t hear(int64_t server, struct question *question) {
    cr_assert_eq(wait_for(server, LPORT_INPUT, soon()), LPORT_INPUT);
    return undisturbed(lport_datagram_receive_at(server, question->octets, sizeof question->octets,
                                                 question->sender, question->own, 0));
}

static int64_t answer(int64_t server, const struct question *question, const uint8_t *own) {
    return undisturbed(
        lport_datagram_send_from(server, question->octets, 3, question->sender, own));
}

static int64_t ask(int64_t client, const uint8_t *address) {
    return undisturbed(lport_datagram_send(client, (const uint8_t *)"ask", 3, address));
}

/* The next message of CLIENT comes from HOST and PORT. */
static void assert_hears(int64_t client, const char *host, int32_t port) {
    uint8_t octets[8], sender[LPORT_ADDRESS_SIZE], at[LPORT_ADDRESS_SIZE];
    address_of(host, port, at);
    cr_assert_eq(wait_for(client, LPORT_INPUT, soon()), LPORT_INPUT);
    cr_assert_eq(undisturbed(lport_datagram_receive(client, octets, sizeof octets, sender, 0)), 3);
    cr_assert_eq(lport_address_equal(sender, at), 1);
}

/* OWN is HOST, by the loopback interface; one of many if MANY. */
static void assert_is_own(const uint8_t *own, const char *host, int many) {
    uint8_t at[LPORT_ADDRESS_SIZE], scope[4] = {0, 0, 0, (uint8_t)if_nametoindex("lo")};
    address_of(host, 0, at);
    cr_assert_eq(own[LPORT_AT_FAMILY], at[LPORT_AT_FAMILY]);
    cr_assert_arr_eq(own + LPORT_AT_OCTETS, at + LPORT_AT_OCTETS, 16);
    cr_assert_arr_eq(own + LPORT_AT_SCOPE, scope, sizeof scope);
    cr_assert_eq(own[LPORT_AT_LENGTH], many);
    cr_assert_eq(lport_address_port(own), 0);
}

static const struct {
    int32_t family;
    const char *host;
} places[] = {
    {LPORT_INET, "127.0.0.5"}, {LPORT_ANY, "127.0.0.5"}, {LPORT_INET, "127.0.0.1"},
    {LPORT_ANY, "::1"},        {LPORT_INET6, "::1"},
};

static size_t places_here(void) {
    return have_inet6() ? COUNT_OF(places) : 3;
}

/* A connected client hears nobody else than whom it has asked. */
SOCKET_TEST(datagram_arrival, an_answer_comes_from_where_it_was_asked) {
    for (size_t i = 0; i < places_here(); i++) {
        int32_t port;
        uint8_t own[LPORT_ADDRESS_SIZE];
        struct question question;
        int64_t server = open_server(places[i].family, 0, &port);
        int64_t client = open_client(places[i].host, port, own);
        for (int round = 0; round < 2; round++) {
            cr_assert_eq(ask(client, NULL), 3);
            cr_assert_eq(hear(server, &question), 3);
            cr_assert_eq(lport_address_equal(question.sender, own), 1);
            assert_is_own(question.own, places[i].host, 0);
            cr_assert_eq(answer(server, &question, question.own), 3);
            assert_hears(client, places[i].host, port);
        }
        assert_closes(server);
        assert_closes(client);
    }
}

/* What was sent to many is told, and goes back from where the system picks. */
SOCKET_TEST(datagram_arrival, an_address_of_many_is_told_and_is_no_source) {
    static const char *const many[] = {"127.255.255.255", "239.1.2.3"};
    for (int i = 0; i < 4; i++) {
        int32_t port;
        int64_t length = 3;
        uint8_t own[LPORT_ADDRESS_SIZE], at[LPORT_ADDRESS_SIZE];
        struct question question;
        int64_t server = open_server(i < 2 ? LPORT_INET : LPORT_ANY, 0, &port);
        int64_t client = open_client("127.0.0.1", 0, own);
        address_of(many[i % 2], port, at);
        if (i % 2 == 1) {
            int32_t lo = (int32_t)if_nametoindex("lo");
            cr_assert_eq(lport_datagram_join(server, at, lo, NULL), 0);
        }
        cr_assert_eq(ask(client, at), 3);
        cr_assert_eq(hear(server, &question), 3);
        assert_is_own(question.own, many[i % 2], 1);
        assert_kind(answer(server, &question, question.own), LPORT_ADDRESS_NOT_AVAILABLE);
        cr_assert_eq(undisturbed(lport_datagram_send_batch_from(server, question.octets,
                                                                sizeof question.octets, &length,
                                                                question.sender, question.own, 1)),
                     1);
        assert_hears(client, "127.0.0.1", port);
        assert_closes(server);
        assert_closes(client);
    }
}

/* ---- batches --------------------------------------------------------------------------------- */

enum { MESSAGES = 10, PLACES = 1024, ROOM = 100 };

static struct {
    uint8_t octets[PLACES * ROOM], ends[PLACES * LPORT_ADDRESS_SIZE];
    uint8_t owns[PLACES * LPORT_ADDRESS_SIZE];
    int64_t lengths[PLACES];
} batch;

static int64_t receive_batch(int64_t socket) {
    cr_assert_eq(wait_for(socket, LPORT_INPUT, soon()), LPORT_INPUT);
    return undisturbed(lport_datagram_receive_batch_at(socket, batch.octets, ROOM, batch.lengths,
                                                       batch.ends, batch.owns, PLACES));
}

/* Sends the COUNT messages of the batch from where they were sent to. */
static void send_back(int64_t socket, int64_t count) {
    for (int64_t done = 0; done < count;) {
        int64_t sent = undisturbed(lport_datagram_send_batch_from(
            socket, batch.octets + done * ROOM, ROOM, batch.lengths + done,
            batch.ends + done * LPORT_ADDRESS_SIZE, batch.owns + done * LPORT_ADDRESS_SIZE,
            (int32_t)(count - done)));
        cr_assert_gt(sent, 0, "%s", kind_text(lport_status_kind(sent)));
        done += sent;
    }
}

/* Of one length and for one receiver, but from two addresses: in pairs, so that some could go as
 * one. */
static void assert_batch_goes_back(int32_t family, int32_t flags) {
    static const char *const hosts[] = {"127.0.0.5", "127.0.0.6"};
    int32_t port;
    uint8_t own[LPORT_ADDRESS_SIZE], at[LPORT_ADDRESS_SIZE];
    int64_t server = open_server(family, flags, &port), client = open_client("127.0.0.1", 0, own);
    for (int i = 0; i < MESSAGES; i++) {
        address_of(hosts[i / 2 % 2], port, at);
        cr_assert_eq(ask(client, at), 3);
    }
    for (int heard = 0; heard < MESSAGES;) {
        int64_t count = receive_batch(server);
        cr_assert_gt(count, 0);
        for (int64_t i = 0; i < count; i++) {
            assert_is_own(batch.owns + i * LPORT_ADDRESS_SIZE, hosts[(heard + i) / 2 % 2], 0);
        }
        send_back(server, count);
        heard += (int)count;
    }
    for (int i = 0; i < MESSAGES; i++) {
        assert_hears(client, hosts[i / 2 % 2], port);
    }
    assert_closes(server);
    assert_closes(client);
}

SOCKET_TEST(datagram_arrival, a_batch_goes_back_from_where_its_messages_were_sent) {
    assert_batch_goes_back(LPORT_INET, 0);
    assert_batch_goes_back(LPORT_ANY, 0);
    assert_batch_goes_back(LPORT_ANY, LPORT_JOINED);
}

/* What came as one has been sent to one address, and each of its messages says so. */
SOCKET_TEST(datagram_arrival, messages_that_come_as_one_have_one_own_end) {
    int32_t port, heard = 0;
    uint8_t own[LPORT_ADDRESS_SIZE], ends[MESSAGES * LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    static const uint8_t octets[MESSAGES * 3];
    int64_t lengths[MESSAGES], sent = 0;
    int64_t server = open_server(LPORT_ANY, LPORT_JOINED, &port);
    int64_t client = open_client("127.0.0.5", port, own);
    for (int i = 0; i < MESSAGES; i++) {
        lengths[i] = 3;
    }
    while (sent < MESSAGES) {
        sent += undisturbed(
            lport_datagram_send_batch(client, octets, 3, lengths, ends, MESSAGES - (int32_t)sent));
    }
    while (heard < MESSAGES) {
        int64_t count = receive_batch(server);
        for (int64_t i = 0; i < count; i++) {
            assert_is_own(batch.owns + i * LPORT_ADDRESS_SIZE, "127.0.0.5", 0);
        }
        send_back(server, count);
        heard += (int32_t)count;
    }
    for (int i = 0; i < MESSAGES; i++) {
        assert_hears(client, "127.0.0.5", port);
    }
    assert_closes(server);
    assert_closes(client);
}

/* ---- what cannot be -------------------------------------------------------------------------- */

static int64_t send_batch_from(int64_t socket, const uint8_t *address, const uint8_t *own) {
    static const int64_t lengths[2] = {3, 3};
    uint8_t ends[2 * LPORT_ADDRESS_SIZE], owns[2 * LPORT_ADDRESS_SIZE];
    for (size_t i = 0; i < 2; i++) {
        memcpy(ends + i * LPORT_ADDRESS_SIZE, address, LPORT_ADDRESS_SIZE);
        memcpy(owns + i * LPORT_ADDRESS_SIZE, own, LPORT_ADDRESS_SIZE);
    }
    return lport_datagram_send_batch_from(socket, (const uint8_t *)"askask", 3, lengths, ends, owns,
                                          2);
}

SOCKET_TEST(datagram_arrival, an_own_end_that_is_none_is_refused) {
    static const struct {
        const char *to, *own;
        int32_t kind;
    } rows[] = {
        {"127.0.0.1", "192.0.2.77", LPORT_ADDRESS_NOT_AVAILABLE},
        {"127.0.0.1", "239.1.2.3", LPORT_ADDRESS_NOT_AVAILABLE},
        {"127.0.0.1", "127.255.255.255", LPORT_ADDRESS_NOT_AVAILABLE},
        {"127.0.0.1", "::1", LPORT_INVALID},
        {"::1", "127.0.0.1", LPORT_INVALID},
        {"::1", "2001:db8::77", LPORT_ADDRESS_NOT_AVAILABLE},
        {"::1", "ff02::1", LPORT_ADDRESS_NOT_AVAILABLE},
    };
    int32_t port;
    int64_t server = open_server(LPORT_ANY, 0, &port);
    faults_watch(); /* of a call that the library makes to see what was wrong */
    for (size_t i = 0; i < (have_inet6() ? COUNT_OF(rows) : 4); i++) {
        uint8_t to[LPORT_ADDRESS_SIZE], own[LPORT_ADDRESS_SIZE];
        address_of(rows[i].to, 9, to);
        address_of(rows[i].own, 0, own);
        assert_kind(lport_datagram_send_from(server, (const uint8_t *)"ask", 3, to, own),
                    rows[i].kind);
        assert_kind(send_batch_from(server, to, own), rows[i].kind);
    }
    faults_resume();
    assert_closes(server);
}

SOCKET_TEST(datagram_arrival, only_udp_sockets_know_it) {
    struct question question = {.sender = {LPORT_ANY}};
    uint8_t name[LPORT_ADDRESS_SIZE] = {LPORT_LOCAL};
    int32_t port;
    int64_t ends[2];
    loopback(LPORT_INET, 9, question.sender);
    memcpy(question.own, question.sender, LPORT_ADDRESS_SIZE);
    for (int kind = 0; kind < 2; kind++) {
        cr_assert_eq(lport_socket_pair(kind == 0 ? LPORT_DATAGRAM : LPORT_STREAM, ends), 0);
        assert_kind(answer(ends[0], &question, question.own), LPORT_NOT_SUPPORTED);
        assert_kind(lport_datagram_receive_at(ends[0], question.octets, 3, name, question.own, 0),
                    LPORT_NOT_SUPPORTED);
        close_both(ends);
    }
    name[LPORT_AT_FAMILY] = LPORT_LOCAL;
    assert_kind(lport_datagram_open(name, NULL, LPORT_PACKET_INFO, NULL, 0), LPORT_INVALID);
    int64_t joined = open_server(LPORT_INET, LPORT_JOINED, &port);
    assert_kind(lport_datagram_receive_at(joined, question.octets, 3, name, question.own, 0),
                LPORT_NOT_SUPPORTED);
    cr_assert_eq(lport_socket_shutdown(joined, LPORT_INPUT), 0);
    assert_kind(lport_datagram_receive_at(joined, question.octets, 3, name, question.own, 0),
                LPORT_END);
    assert_closes(joined);
}

/* One that was not opened for it knows no own end, and may still send from one. */
SOCKET_TEST(datagram_arrival, where_it_was_not_asked_for_nothing_is_told) {
    uint8_t at[LPORT_ADDRESS_SIZE] = {LPORT_ANY}, own[LPORT_ADDRESS_SIZE];
    struct question question;
    int64_t server = lport_datagram_open(at, NULL, 0, NULL, 0);
    cr_assert_gt(lport_socket_name(server, at), 0);
    int32_t port = lport_address_port(at);
    int64_t client = open_client("127.0.0.5", port, own);
    cr_assert_eq(ask(client, NULL), 3);
    cr_assert_eq(hear(server, &question), 3);
    cr_assert_eq(question.own[LPORT_AT_FAMILY], LPORT_ANY);
    assert_kind(answer(server, &question, question.own), LPORT_INVALID);
    address_of("::ffff:127.0.0.5", 0, own);
    cr_assert_eq(answer(server, &question, own), 3);
    assert_hears(client, "127.0.0.5", port);
    assert_closes(server);
    assert_closes(client);
}

static int64_t make_server(void *data) {
    uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    (void)data;
    return lport_datagram_open(any, NULL, LPORT_PACKET_INFO, NULL, 0);
}

static void close_result(void *data, int64_t result) {
    (void)data;
    if (result > 0) {
        assert_closes(result);
    }
}

/* Behaviour 64. */
SOCKET_TEST(datagram_arrival, every_system_call_may_fail) {
    fail_every_call(make_server, close_result, NULL);
}
