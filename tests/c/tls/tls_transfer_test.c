/* tls: octets through a session, its end, what is held of them, and who waits for them. */
#include "sessions.h"
#include "support.h"
#include "tls/openssl.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

TestSuite(tls_transfer, .timeout = 40);

static const int32_t families[] = {LPORT_LOCAL, LPORT_INET, LPORT_INET6};

static int64_t receive_octet(int64_t end) {
    uint8_t octet;
    return receive_some(end, &octet, 1, soon());
}

static void tell_end(int64_t end) {
    int64_t limit = soon(), status;
    while (lport_status_kind(status = lport_socket_shutdown(end, LPORT_OUTPUT)) ==
           LPORT_WOULD_BLOCK) {
        cr_assert_geq(wait_for(end, LPORT_OUTPUT, limit), 0);
    }
    cr_assert_eq(status, 0);
}

/* ---- octets ---------------------------------------------------------------------------------- */

SOCKET_TEST(tls_transfer, every_octet_arrives_once_and_in_order) {
    enum { LEN = 300000 };
    static uint8_t sent[LEN], received[LEN];
    size_t len = amount(LEN), out = 0, in = 0;
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2], limit = soon();
        make_tls(families[i], ends);
        fill(sent, len, i);
        for (out = in = 0; in < len;) {
            cr_assert_lt(lport_clock_now(), limit);
            size_t piece = 1 + (out * 7919) % 40000;
            piece = piece < len - out ? piece : len - out;
            int64_t count = lport_socket_send2(ends[CLIENT], sent + out, piece / 3,
                                               sent + out + piece / 3, piece - piece / 3);
            cr_assert(count >= 0 || would_block(count), "%s", kind_text(lport_status_kind(count)));
            out += count > 0 ? (size_t)count : 0;
            count = lport_socket_receive(ends[SERVER], received + in, 1 + (in * 104729) % 30000, 0);
            cr_assert(count > 0 || would_block(count));
            in += count > 0 ? (size_t)count : 0;
        }
        cr_assert_eq(memcmp(sent, received, len), 0);
        close_both(ends);
    }
}

SOCKET_TEST(tls_transfer, a_peek_leaves_octets_where_they_are) {
    int64_t ends[2];
    char octets[8] = "";
    make_tls(LPORT_LOCAL, ends);
    assert_kind(lport_socket_receive(ends[SERVER], (uint8_t *)octets, 8, LPORT_PEEK),
                LPORT_WOULD_BLOCK);
    send_text(ends[CLIENT], "look");
    hand_on(ends[CLIENT]);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(
            undisturbed(lport_socket_receive(ends[SERVER], (uint8_t *)octets, 8, LPORT_PEEK)), 4);
        cr_assert_arr_eq(octets, "look", 4);
        cr_assert_eq(lport_socket_receive(ends[SERVER], (uint8_t *)octets, 2, LPORT_PEEK), 2);
    }
    receive_text(ends[SERVER], "look");
    close_both(ends);
}

SOCKET_TEST(tls_transfer, no_octets_are_no_record) {
    int64_t ends[2];
    uint8_t octet = 'x';
    make_tls(LPORT_LOCAL, ends);
    cr_assert_eq(lport_socket_send(ends[CLIENT], NULL, 0), 0);
    cr_assert_eq(lport_socket_send2(ends[CLIENT], NULL, 0, NULL, 0), 0);
    cr_assert_eq(lport_socket_receive(ends[SERVER], NULL, 0, 0), 0);
    assert_kind(lport_socket_receive(ends[SERVER], &octet, 1, 0), LPORT_WOULD_BLOCK);
    cr_assert_eq(lport_socket_send2(ends[CLIENT], NULL, 0, &octet, 1), 1);
    hand_on(ends[CLIENT]);
    cr_assert_eq(lport_socket_send2(ends[CLIENT], &octet, 1, NULL, 0), 1);
    hand_on(ends[CLIENT]);
    receive_text(ends[SERVER], "xx");
    close_both(ends);
}

static int make_file(const uint8_t *octets, size_t len) {
    int file = memfd_create("port", MFD_CLOEXEC);
    cr_assert_geq(file, 0);
    cr_assert_eq(write(file, octets, len), (ssize_t)len);
    return file;
}

SOCKET_TEST(tls_transfer, a_file_goes_through_from_where_it_is_to_begin) {
    enum { LEN = 100000 };
    static uint8_t octets[LEN], received[LEN];
    int64_t ends[2], limit = soon();
    size_t len = amount(LEN), from = 11, in = 0;
    fill(octets, len, 7);
    int file = make_file(octets, len), pipes[2];
    make_tls(LPORT_LOCAL, ends);
    for (size_t at = from; in < len - from;) {
        cr_assert_lt(lport_clock_now(), limit);
        int64_t count = lport_socket_send_file(ends[CLIENT], file, (int64_t)at, SIZE_MAX);
        cr_assert(count >= 0 || would_block(count));
        at += count > 0 ? (size_t)count : 0;
        (void)lport_socket_send(ends[CLIENT], NULL, 0);
        count = lport_socket_receive(ends[SERVER], received + in, LEN - in, 0);
        cr_assert(count > 0 || would_block(count));
        in += count > 0 ? (size_t)count : 0;
    }
    cr_assert_eq(memcmp(octets + from, received, len - from), 0);
    cr_assert_eq(lport_socket_send_file(ends[CLIENT], file, (int64_t)len, 9), 0);
    cr_assert_eq(lport_socket_send_file(ends[CLIENT], file, INT64_MAX, 9), 0);
    assert_kind(lport_socket_send_file(ends[CLIENT], file, -1, 9), LPORT_INVALID);
    assert_kind(lport_socket_send_file(ends[CLIENT], -1, 0, 9), LPORT_INVALID);
    cr_assert_eq(pipe(pipes), 0);
    assert_kind(lport_socket_send_file(ends[CLIENT], pipes[0], 0, 9), LPORT_INVALID);
    close(pipes[0]);
    close(pipes[1]);
    close(file);
    send_text(ends[CLIENT], "it works on");
    receive_text(ends[SERVER], "it works on");
    close_both(ends);
}

SOCKET_TEST(tls_transfer, no_octet_goes_past_the_session) {
    int64_t ends[2], none[2] = {0};
    uint8_t octets[4] = "abc", address[LPORT_ADDRESS_SIZE];
    make_tls(LPORT_LOCAL, ends);
    none[0] = lport_socket_descriptor(ends[1]);
    assert_kind(lport_local_send(ends[0], octets, 3, none, 1), LPORT_NOT_SUPPORTED);
    assert_kind(lport_local_receive(ends[0], octets, 3, none, 1), LPORT_NOT_SUPPORTED);
    cr_assert_neq(lport_status_kind(lport_datagram_send(ends[0], octets, 3, NULL)), 0);
    cr_assert_neq(lport_status_kind(lport_datagram_receive(ends[0], octets, 3, address, 0)), 0);
    send_text(ends[CLIENT], "untouched");
    receive_text(ends[SERVER], "untouched");
    close_both(ends);
}

/* ---- ends ------------------------------------------------------------------------------------ */

SOCKET_TEST(tls_transfer, an_end_that_was_told_is_an_end_of_file_for_ever) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        uint8_t octet;
        make_tls(families[i], ends);
        send_text(ends[CLIENT], "last");
        for (int k = 0; k < 3; k++) {
            tell_end(ends[CLIENT]);
            assert_kind(lport_socket_send(ends[CLIENT], &octet, 1), LPORT_OUTPUT_SHUT);
            assert_kind(lport_socket_send2(ends[CLIENT], &octet, 1, &octet, 1), LPORT_OUTPUT_SHUT);
        }
        cr_assert_eq(lport_socket_state(ends[CLIENT]), LPORT_STATE_OUTPUT_SHUT);
        receive_text(ends[SERVER], "last");
        for (int k = 0; k < 3; k++) {
            cr_assert_eq(receive_octet(ends[SERVER]), 0);
            cr_assert_eq(lport_socket_receive(ends[SERVER], &octet, 1, LPORT_PEEK), 0);
            cr_assert_eq(wait_for(ends[SERVER], LPORT_INPUT, 0) & LPORT_INPUT, LPORT_INPUT);
        }
        send_text(ends[SERVER], "the other way goes on");
        receive_text(ends[CLIENT], "the other way goes on");
        tell_end(ends[SERVER]);
        cr_assert_eq(receive_octet(ends[CLIENT]), 0);
        close_both(ends);
    }
}

SOCKET_TEST(tls_transfer, an_end_that_was_not_told_truncates_for_ever) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        uint8_t octet;
        make_tls(families[i], ends);
        send_text(ends[CLIENT], "last");
        hand_on(ends[CLIENT]);
        assert_closes(ends[CLIENT]);
        receive_text(ends[SERVER], "last");
        for (int k = 0; k < 3; k++) {
            assert_kind(receive_octet(ends[SERVER]), LPORT_CONNECTION_TRUNCATED);
            assert_kind(lport_socket_receive(ends[SERVER], &octet, 1, LPORT_PEEK),
                        LPORT_CONNECTION_TRUNCATED);
            assert_kind(lport_socket_send(ends[SERVER], &octet, 1), LPORT_CONNECTION_TRUNCATED);
        }
        cr_assert_eq(lport_socket_shutdown(ends[SERVER], LPORT_OUTPUT), 0);
        assert_closes(ends[SERVER]);
    }
}

SOCKET_TEST(tls_transfer, a_reset_is_a_reset_for_ever) {
    int64_t ends[2];
    uint8_t octet = 0;
    make_tls(LPORT_INET, ends);
    cr_assert_eq(lport_socket_close(ends[CLIENT], LPORT_RESET), 0);
    for (int k = 0; k < 3; k++) {
        assert_kind(receive_octet(ends[SERVER]), LPORT_CONNECTION_RESET);
        assert_kind(lport_socket_send(ends[SERVER], &octet, 1), LPORT_CONNECTION_RESET);
    }
    cr_assert_eq(lport_socket_shutdown(ends[SERVER], LPORT_OUTPUT), 0);
    cr_assert(lport_socket_state(ends[SERVER]) & LPORT_STATE_BROKEN);
    assert_closes(ends[SERVER]);
}

SOCKET_TEST(tls_transfer, what_had_arrived_is_read_though_nothing_can_be_sent) {
    int64_t ends[2], limit = soon(), status;
    make_tls(LPORT_LOCAL, ends);
    send_text(ends[SERVER], "the answer");
    tell_end(ends[SERVER]);
    assert_closes(ends[SERVER]);
    do {
        cr_assert_lt(lport_clock_now(), limit);
        status = lport_socket_send(ends[CLIENT], (const uint8_t *)"x", 1);
    } while (status > 0 || would_block(status));
    assert_kind(status, LPORT_CONNECTION_RESET);
    assert_kind(undisturbed(lport_socket_send(ends[CLIENT], NULL, 0)), LPORT_CONNECTION_RESET);
    receive_text(ends[CLIENT], "the answer");
    cr_assert_eq(receive_octet(ends[CLIENT]), 0);
    assert_closes(ends[CLIENT]);
}

SOCKET_TEST(tls_transfer, after_input_is_shut_down_the_end_of_output_is_told) {
    uint8_t octet;
    for (int32_t with = 0; with < 2; with++) {
        int64_t ends[2];
        make_tls(LPORT_LOCAL, ends);
        send_text(ends[SERVER], "unread");
        if (with == 0) {
            cr_assert_eq(lport_socket_shutdown(ends[CLIENT], LPORT_INPUT), 0);
            cr_assert_eq(lport_socket_receive(ends[CLIENT], &octet, 1, 0), 0);
            send_text(ends[CLIENT], "output goes on");
            receive_text(ends[SERVER], "output goes on");
            tell_end(ends[CLIENT]);
        } else {
            cr_assert_eq(
                undisturbed(lport_socket_shutdown(ends[CLIENT], LPORT_INPUT | LPORT_OUTPUT)), 0);
            cr_assert_eq(lport_socket_receive(ends[CLIENT], &octet, 1, 0), 0);
        }
        cr_assert_eq(receive_octet(ends[SERVER]), 0);
        close_both(ends);
    }
}

/* ---- somebody between ------------------------------------------------------------------------ */

static void make_tls_between(struct between *between) {
    int64_t contexts[2] = {make_context(NULL), make_context("server")};
    make_between(between);
    start_both(between->ends, contexts, "good.test");
    agree_through(between);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(lport_tls_context_close(contexts[i]), 0);
    }
}

SOCKET_TEST(tls_transfer, a_record_that_was_changed_on_the_way_is_found_out) {
    struct between between;
    uint8_t octet = 0;
    make_tls_between(&between);
    send_text(between.ends[CLIENT], "as it was");
    pass_on(&between, CLIENT);
    receive_text(between.ends[SERVER], "as it was");
    faults_watch(); /* the place of an octet is counted in one piece */
    send_text(between.ends[CLIENT], "not as it was");
    between.spoil = 9;
    cr_assert_gt(pass_on(&between, CLIENT), 9);
    faults_resume();
    for (int i = 0; i < 3; i++) {
        assert_kind(receive_octet(between.ends[SERVER]), LPORT_TLS_FAILED);
        assert_kind(lport_socket_send(between.ends[SERVER], &octet, 1), LPORT_TLS_FAILED);
        cr_assert_str_eq(text_of(between.ends[SERVER], LPORT_TLS_PROBLEM),
                         "decryption failed or bad record mac");
    }
    hand_on(between.ends[SERVER]);
    pass_on(&between, SERVER); /* the alert */
    assert_kind(receive_octet(between.ends[CLIENT]), LPORT_TLS_FAILED);
    close_between(&between);
}

SOCKET_TEST(tls_transfer, an_end_that_somebody_between_makes_is_none_of_the_peer) {
    struct between between;
    make_tls_between(&between);
    send_text(between.ends[CLIENT], "pay 100");
    pass_on(&between, CLIENT);
    send_text(between.ends[CLIENT], "0000");
    hand_on(between.ends[CLIENT]);
    cr_assert_eq(lport_socket_shutdown(between.own[SERVER], LPORT_OUTPUT), 0);
    receive_text(between.ends[SERVER], "pay 100");
    assert_kind(receive_octet(between.ends[SERVER]), LPORT_CONNECTION_TRUNCATED);
    close_between(&between);
}

/* ---- what is held ---------------------------------------------------------------------------- */

/* Sends octets of SEED, of the size of a record, until END would block: how many were taken. */
static size_t fill_up(int64_t end, uint8_t *octets, size_t cap) {
    size_t taken = 0;
    int64_t count;
    faults_watch();
    while ((count = lport_socket_send(end, octets + taken, 16384)) > 0) {
        taken += (size_t)count;
        cr_assert_leq(taken + 16384, cap);
    }
    faults_resume();
    assert_kind(count, LPORT_WOULD_BLOCK);
    return taken;
}

enum { MOST = 8 << 20 };
static uint8_t *many; /* while a test needs them, as the sanitizer for leaks looks through them */

static void make_many(uint64_t seed) {
    many = calloc(1, MOST);
    cr_assert_not_null(many);
    fill(many, MOST, seed);
}

static void free_many(void) {
    free(many);
    many = NULL;
}

static void assert_drains(int64_t from, int64_t to, size_t taken) {
    static uint8_t received[65536];
    int64_t limit = soon();
    faults_watch();
    for (size_t in = 0; in < taken;) {
        size_t most = taken - in < sizeof received ? taken - in : sizeof received;
        int64_t count = receive_some(to, received, most, limit);
        cr_assert_gt(count, 0);
        cr_assert_eq(memcmp(received, many + in, (size_t)count), 0, "from %zu on", in);
        in += (size_t)count;
        (void)lport_socket_send(from, NULL, 0);
    }
    faults_resume();
}

SOCKET_TEST(tls_transfer, what_was_taken_is_held_until_the_peer_reads) {
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        make_tls(families[i], ends);
        make_many(i + 1);
        size_t taken = fill_up(ends[CLIENT], many, MOST);
        cr_assert_gt(taken, 0);
        for (int k = 0; k < 3; k++) {
            assert_kind(lport_socket_send(ends[CLIENT], NULL, 0), LPORT_WOULD_BLOCK);
            assert_kind(lport_socket_send(ends[CLIENT], many, 1), LPORT_WOULD_BLOCK);
            assert_kind(lport_socket_send2(ends[CLIENT], many, 1, many, 1), LPORT_WOULD_BLOCK);
        }
        send_text(ends[SERVER], "the other way goes on");
        receive_text(ends[CLIENT], "the other way goes on");
        assert_drains(ends[CLIENT], ends[SERVER], taken);
        hand_on(ends[CLIENT]);
        send_text(ends[CLIENT], "and this way too");
        receive_text(ends[SERVER], "and this way too");
        close_both(ends);
        free_many();
    }
}

SOCKET_TEST(tls_transfer, an_end_that_is_held_forbids_to_send) {
    int64_t ends[2];
    make_tls(LPORT_LOCAL, ends);
    make_many(3);
    size_t taken = fill_up(ends[CLIENT], many, MOST);
    assert_kind(lport_socket_shutdown(ends[CLIENT], LPORT_OUTPUT), LPORT_WOULD_BLOCK);
    assert_kind(lport_socket_send(ends[CLIENT], many, 1), LPORT_OUTPUT_SHUT);
    assert_drains(ends[CLIENT], ends[SERVER], taken);
    assert_kind(lport_socket_send(ends[CLIENT], many, 1), LPORT_OUTPUT_SHUT);
    tell_end(ends[CLIENT]);
    cr_assert_eq(receive_octet(ends[SERVER]), 0);
    send_text(ends[SERVER], "the other way goes on");
    receive_text(ends[CLIENT], "the other way goes on");
    close_both(ends);
    free_many();
}

SOCKET_TEST(tls_transfer, a_close_drops_what_is_held) {
    int64_t ends[2];
    make_many(4);
    make_tls(LPORT_LOCAL, ends);
    cr_assert_gt(fill_up(ends[CLIENT], many, MOST), 0);
    close_both(ends);
    free_many();
}

SOCKET_TEST(tls_transfer, what_cannot_be_held_breaks_the_connection) {
    int64_t ends[2];
    make_many(5);
    make_tls(LPORT_LOCAL, ends);
    faults_watch();
    faults_fail(CALL_CALLOC, 1, 1000, ENOMEM);
    int64_t count;
    do {
        count = lport_socket_send(ends[CLIENT], many, 16384);
    } while (count > 0);
    cr_assert_eq(faults_struck(), 1);
    faults_resume();
    assert_kind(count, LPORT_MEMORY_EXHAUSTED);
    assert_kind(lport_socket_send(ends[CLIENT], many, 1), LPORT_MEMORY_EXHAUSTED);
    assert_kind(receive_octet(ends[CLIENT]), LPORT_MEMORY_EXHAUSTED);
    close_both(ends);
    free_many();
}

/* ---- waits ----------------------------------------------------------------------------------- */

SOCKET_TEST(tls_transfer, a_wait_knows_of_what_the_session_has_and_the_system_does_not) {
    int64_t ends[2], others[2], waits[2];
    make_tls(LPORT_LOCAL, ends);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, others), 0);
    send_text(ends[CLIENT], "two");
    hand_on(ends[CLIENT]);
    cr_assert_eq(receive_octet(ends[SERVER]), 1);
    waits[0] = lport_wait_begin(ends[SERVER], LPORT_INPUT);
    waits[1] = lport_wait_begin(others[0], LPORT_INPUT);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(lport_socket_buffered(ends[SERVER]), 1);
        cr_assert_eq(lport_wait_poll(waits[0], soon(), 0), LPORT_INPUT);
        cr_assert_eq(lport_wait_poll(waits[0], 0, 0), LPORT_INPUT);
        cr_assert_eq(lport_wait_poll2(waits[0], waits[1], soon(), 0), LPORT_INPUT);
        cr_assert_eq(lport_wait_poll2(waits[1], waits[0], soon(), 0),
                     LPORT_INPUT * LPORT_SECOND_WAIT);
        cr_assert_eq(wait_for(ends[SERVER], LPORT_INPUT | LPORT_OUTPUT, soon()),
                     LPORT_INPUT | LPORT_OUTPUT);
        cr_assert_eq(wait_for(ends[SERVER], LPORT_OUTPUT, soon()), LPORT_OUTPUT);
        cr_assert_eq(receive_octet(ends[SERVER]), 1);
    }
    cr_assert_eq(lport_socket_buffered(ends[SERVER]), 0);
    assert_kind(lport_wait_poll2(waits[0], waits[1], 0, 0), LPORT_TIMED_OUT);
    assert_kind(wait_for(ends[SERVER], LPORT_INPUT, 0), LPORT_TIMED_OUT);
    cr_assert_eq(lport_wait_end(waits[0]), 0);
    cr_assert_eq(lport_wait_end(waits[1]), 0);
    close_both(ends);
    close_both(others);
}

/* Whoever takes a part of a record has taken all of it from the system, which then has nothing to
 * wake others for. */
SOCKET_TEST(tls_transfer, a_wait_that_goes_on_is_woken_when_a_record_is_taken) {
    int64_t ends[2];
    uint8_t octets[2];
    make_tls(LPORT_LOCAL, ends);
    send_text(ends[CLIENT], "two");
    hand_on(ends[CLIENT]);
    int64_t wait = lport_wait_begin(ends[SERVER], LPORT_INPUT);
    cr_assert_eq(receive_octet(ends[SERVER]), 1);
    cr_assert_eq(lport_socket_receive(ends[SERVER], octets, 2, 0), 2);
    cr_assert_eq(lport_wait_poll(wait, soon(), 0), 0);
    cr_assert_eq(lport_wait_end(wait), 0);
    close_both(ends);
}

/* ---- forks ----------------------------------------------------------------------------------- */

static int close_copies(void *data) {
    const int64_t *ends = data;
    uint8_t octet;
    if (lport_status_kind(lport_socket_receive(ends[0], &octet, 1, 0)) != LPORT_WOULD_BLOCK) {
        return 1;
    }
    return lport_socket_close(ends[0], 0) == 0 && lport_socket_close(ends[1], 0) == 0 ? 0 : 2;
}

/* A connection that a child has inherited and closed by CLOSE_IT, and that goes on. */
static void make_closed_in_child(int (*close_it)(void *), int64_t ends[2]) {
    make_tls(LPORT_INET, ends);
    cr_assert_eq(in_child(close_it, ends), 0);
    send_text(ends[CLIENT], "still here");
    receive_text(ends[SERVER], "still here");
}

SOCKET_TEST(tls_transfer, a_close_in_a_child_tells_the_peer_of_nothing) {
    int64_t ends[2];
    make_closed_in_child(close_copies, ends);
    close_both(ends);
}

static int close_copy_with_reset(void *data) {
    return lport_socket_close(*(const int64_t *)data, LPORT_RESET) == 0 ? 0 : 1;
}

/* Nor would it make a reset of the parent's close. What a child begins itself is its own. */
SOCKET_TEST(tls_transfer, a_close_with_a_reset_in_a_child_leaves_the_connection_as_it_is) {
    int64_t ends[2];
    make_closed_in_child(close_copy_with_reset, ends);
    send_text(ends[SERVER], "here, too");
    receive_text(ends[CLIENT], "here, too");
    assert_closes(ends[CLIENT]);
    assert_kind(receive_octet(ends[SERVER]), LPORT_CONNECTION_TRUNCATED);
    assert_closes(ends[SERVER]);
}

static int reset_own(void *data) {
    uint8_t octet;
    int64_t ends[2];
    close_both(data);
    make_tls(LPORT_INET, ends);
    if (lport_socket_close(ends[CLIENT], LPORT_RESET) != 0) {
        return 1;
    }
    int64_t status = receive_some(ends[SERVER], &octet, 1, soon());
    return lport_status_kind(status) == LPORT_CONNECTION_RESET ? 0 : 2;
}

SOCKET_TEST(tls_transfer, a_close_with_a_reset_of_what_a_child_has_begun_is_one) {
    int64_t ends[2]; /* whose places in the table it has */
    make_tls(LPORT_INET, ends);
    cr_assert_eq(in_child(reset_own, ends), 0);
    close_both(ends);
}

struct busy {
    int64_t ends[2], context;
    atomic_bool stop;
};

static int64_t keep_busy(void *data) {
    struct busy *busy = data;
    static uint8_t octets[40000];
    int64_t moved = 0;
    while (!atomic_load(&busy->stop)) {
        (void)lport_tls_context_verify(busy->context, LPORT_TLS_VERIFY);
        moved += lport_socket_send(busy->ends[CLIENT], octets, sizeof octets) > 0;
        moved += lport_socket_receive(busy->ends[SERVER], octets, 30000, 0) > 0;
    }
    return moved;
}

/* Its parent's thread may have been anywhere in the session: it is as it was, or lost. The octets
 * are the parent's. */
static int use_copies(void *data) {
    const struct busy *busy = data;
    char text[16];
    if (lport_tls_context_verify(busy->context, LPORT_TLS_VERIFY_NOBODY) != 0) {
        return 1;
    }
    for (int i = 0; i < 2; i++) {
        int64_t status = lport_tls_text(busy->ends[i], LPORT_TLS_VERSION, text, sizeof text);
        bool lost = lport_status_kind(status) == LPORT_CONNECTION_LOST;
        if (!lost && status != 7) {
            return 2;
        }
        if (lost && (lport_socket_send(busy->ends[i], NULL, 0) != 0 ||
                     lport_tls_step(busy->ends[i]) != status)) {
            return 3;
        }
    }
    return lport_socket_close(busy->ends[0], 0) == 0 && lport_socket_close(busy->ends[1], 0) == 0
               ? 0
               : 4;
}

SOCKET_TEST(tls_transfer, a_child_is_not_held_up_by_a_thread_of_its_parent_in_a_session) {
    struct busy busy = {.stop = false};
    struct task task;
    make_tls(LPORT_LOCAL, busy.ends);
    busy.context = lport_tls_context_open();
    task_start(&task, keep_busy, &busy);
    for (size_t i = 0; i < 100; i++) {
        cr_assert_eq(in_child(use_copies, &busy), 0);
    }
    atomic_store(&busy.stop, true);
    cr_assert_gt(task_join(&task), 0);
    cr_assert_eq(lport_tls_context_close(busy.context), 0);
    close_both(busy.ends);
}
