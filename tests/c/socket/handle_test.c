/* handle: the table of sockets. What is closed stays closed, and nobody's descriptor is anybody
 * else's. */
#include "base/os.h"
#include "socket/handle.h"
#include "socket/socket.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

TestSuite(handle, .timeout = 20);

static int64_t open_one(void) {
    int64_t socket = lport_socket_open(LPORT_INET, LPORT_STREAM, 0);
    cr_assert_gt(socket, 0, "cannot open: %lld", (long long)socket);
    return socket;
}

static int is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0 || errno != EBADF;
}

/* Everything that takes a socket says LPORT_CLOSED to SOCKET. */
static void assert_closed_to_all(int64_t socket) {
    uint8_t address[LPORT_ADDRESS_SIZE] = {LPORT_INET}, octets[1];
    assert_kind(lport_socket_close(socket, 0), LPORT_CLOSED);
    assert_kind(lport_socket_close(socket, LPORT_RESET), LPORT_CLOSED);
    assert_kind(lport_socket_descriptor(socket), LPORT_CLOSED);
    assert_kind(lport_socket_state(socket), LPORT_CLOSED);
    assert_kind(lport_wait_begin(socket, LPORT_INPUT), LPORT_CLOSED);
    assert_kind(lport_wait_wake(socket, LPORT_INPUT), LPORT_CLOSED);
    assert_kind(lport_socket_accept(socket, NULL), LPORT_CLOSED);
    assert_kind(lport_socket_shutdown(socket, LPORT_INPUT), LPORT_CLOSED);
    assert_kind(lport_socket_name(socket, address), LPORT_CLOSED);
    assert_kind(lport_socket_peer(socket, address), LPORT_CLOSED);
    assert_kind(lport_option_get(socket, 0), LPORT_CLOSED);
    assert_kind(lport_option_set(socket, 0, 1), LPORT_CLOSED);
    assert_kind(lport_socket_receive(socket, octets, 1, 0), LPORT_CLOSED);
    assert_kind(lport_socket_receive(socket, NULL, 0, 0), LPORT_CLOSED);
    assert_kind(lport_socket_send(socket, octets, 1), LPORT_CLOSED);
    assert_kind(lport_socket_send(socket, NULL, 0), LPORT_CLOSED);
    assert_kind(lport_socket_send2(socket, octets, 1, NULL, 0), LPORT_CLOSED);
    assert_kind(lport_socket_send2(socket, NULL, 0, NULL, 0), LPORT_CLOSED);
    assert_kind(lport_socket_bind(socket, address), LPORT_CLOSED);
    assert_kind(lport_socket_start_listening(socket, 1), LPORT_CLOSED);
    assert_kind(lport_socket_connect_start(socket, address), LPORT_CLOSED);
    assert_kind(lport_socket_connect_finish(socket), LPORT_CLOSED);
    assert_kind(lport_info_read(socket, NULL, 0), LPORT_CLOSED);
    assert_kind(lport_datagram_join(socket, address, 0, NULL), LPORT_CLOSED);
    assert_kind(lport_datagram_leave(socket, address, 0, NULL), LPORT_CLOSED);
    int64_t length = 1, identity[3] = {0};
    assert_kind(lport_datagram_send(socket, octets, 1, NULL), LPORT_CLOSED);
    assert_kind(lport_datagram_receive(socket, octets, 1, NULL, 0), LPORT_CLOSED);
    assert_kind(lport_datagram_send_batch(socket, octets, 1, &length, address, 1), LPORT_CLOSED);
    assert_kind(lport_datagram_receive_batch(socket, octets, 1, &length, address, 1), LPORT_CLOSED);
    assert_kind(lport_socket_send_file(socket, 0, 0, 1), LPORT_CLOSED);
    assert_kind(lport_local_credentials(socket, identity), LPORT_CLOSED);
    assert_kind(lport_local_send(socket, octets, 1, identity, 1), LPORT_CLOSED);
    assert_kind(lport_local_receive(socket, octets, 1, identity, 1), LPORT_CLOSED);
    assert_kind(lport_local_receive_from(socket, octets, 1, NULL, identity), LPORT_CLOSED);
}

/* Behaviour 22: when close returns 0 the descriptor is gone. */
SOCKET_TEST(handle, close_ends_the_descriptor_before_it_returns) {
    int64_t socket = open_one();
    int fd = (int)lport_socket_descriptor(socket);
    cr_assert(is_open(fd));
    cr_assert_eq(lport_socket_close(socket, 0), 0);
    cr_assert(!is_open(fd));
    cr_assert_eq(lport_socket_gone(socket, 0), 0);
    cr_assert_eq(lport_socket_gone(socket, LPORT_NEVER), 0);
}

/* Behaviours 18 and 40. */
SOCKET_TEST(handle, a_closed_socket_is_closed_to_everything_and_closing_it_again_is_quiet) {
    int64_t socket = open_one();
    cr_assert_eq(lport_socket_close(socket, 0), 0);
    for (int i = 0; i < 3; i++) {
        assert_closed_to_all(socket);
    }
}

/* Behaviour 18: close after any error. */
SOCKET_TEST(handle, close_is_quiet_after_an_error) {
    int64_t ends[2];
    make_connection(LPORT_INET, ends);
    uint8_t octet;
    cr_assert_eq(lport_socket_close(ends[0], LPORT_RESET), 0);
    assert_kind(receive_some(ends[1], &octet, 1, soon()), LPORT_CONNECTION_RESET);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    assert_kind(lport_socket_close(ends[1], 0), LPORT_CLOSED);
}

/* A close(2) that fails has closed on Linux: calling it again would take somebody else's. */
SOCKET_TEST(handle, a_close_that_the_system_fails_is_not_repeated) {
    static const int errors[] = {EINTR, EIO, ENOSPC};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        int64_t socket = open_one();
        faults_clear();
        faults_fail(CALL_CLOSE, 1, 1, errors[i]);
        cr_assert_eq(lport_socket_close(socket, 0), 0);
        cr_assert_eq(faults_calls(CALL_CLOSE), 1);
        assert_closed_to_all(socket);
    }
}

SOCKET_TEST(handle, numbers_that_were_never_sockets_are_closed_ones) {
    int64_t socket = open_one();
    const int64_t numbers[] = {0,
                               -1,
                               1,
                               7,
                               (1 << 24) - 1,
                               INT64_MAX,
                               INT64_MIN,
                               INT64_C(1) << 62,
                               socket + 1,
                               socket - 1,
                               socket + (1 << 24),
                               socket + (1 << 23),
                               -socket,
                               socket | INT64_C(1) << 60};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        assert_closed_to_all(numbers[i]);
        cr_assert_leq(lport_socket_gone(numbers[i], 0), 0);
    }
    assert_kind(lport_socket_gone(-1, 0), LPORT_INVALID);
    cr_assert_eq(lport_socket_state(socket), 0);
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

/* Behaviour 19: the slot and the descriptor come again, the socket never does. */
SOCKET_TEST(handle, a_stale_socket_never_reaches_the_next_one_of_its_slot) {
    int64_t stale[2000];
    for (int i = 0; i < 2000; i++) {
        stale[i] = open_one();
        cr_assert(stale[i] > 0 && stale[i] < INT64_C(1) << 62);
        for (int j = 0; j < i; j += 97) {
            assert_kind(lport_socket_close(stale[j], LPORT_RESET), LPORT_CLOSED);
        }
        cr_assert_eq(lport_socket_state(stale[i]), 0);
        cr_assert_eq(lport_socket_close(stale[i], 0), 0);
        cr_assert(i == 0 || stale[i] != stale[i - 1]);
    }
    int64_t live = open_one();
    for (int i = 0; i < 2000; i++) {
        cr_assert_neq(stale[i], live);
        assert_kind(lport_socket_descriptor(stale[i]), LPORT_CLOSED);
    }
    cr_assert(is_open((int)lport_socket_descriptor(live)));
    cr_assert_eq(lport_socket_close(live, 0), 0);
}

SOCKET_TEST(handle, records_of_closed_sockets_are_dropped_and_the_others_keep_their_order) {
    int64_t ends[2], closed[2], records[2 * 6];
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, closed), 0);
    close_both(closed);
    const int64_t sockets[] = {closed[0], ends[0], closed[1], 0, ends[1], -1};
    for (int i = 0; i < 6; i++) {
        records[2 * i] = sockets[i];
        records[2 * i + 1] = 100 + i;
    }
    cr_assert_eq(lport_handle_drop_closed(records, 2, 6), 2);
    cr_assert(records[0] == ends[0] && records[1] == 101);
    cr_assert(records[2] == ends[1] && records[3] == 104);
    cr_assert_eq(lport_handle_drop_closed(records, 2, 2), 2);
    cr_assert(records[0] == ends[0] && records[2] == ends[1]);
    close_both(ends);
    cr_assert_eq(lport_handle_drop_closed(records, 2, 2), 0);
}

/* Neither one that somebody is still in nor one whose slot is used again is open. */
SOCKET_TEST(handle, a_record_of_a_socket_that_is_closed_is_dropped_whoever_has_its_slot) {
    struct lport_slot *slot;
    int64_t record = open_one();
    cr_assert_geq(lport_handle_enter(record, &slot), 0);
    cr_assert_eq(lport_handle_drop_closed(&record, 1, 1), 1);
    cr_assert_eq(lport_socket_close(record, 0), 1);
    cr_assert_eq(lport_handle_drop_closed(&record, 1, 1), 0);
    lport_handle_leave(slot);
    int64_t next = open_one();
    cr_assert_eq(lport_pool_index(next), lport_pool_index(record));
    cr_assert_eq(lport_handle_drop_closed(&record, 1, 1), 0);
    assert_closes(next);
}

/* Behaviour 34. */
SOCKET_TEST(handle, who_waits_may_ask_whether_a_connection_is_broken) {
    int64_t socket = open_one();
    struct lport_slot *slot;
    cr_assert_geq(lport_handle_enter(socket, &slot), 0);
    atomic_fetch_or(&slot->flags, LPORT_STATE_LISTENING | LPORT_SLOT_LINGERS);
    cr_assert_not(lport_handle_is_broken(socket));
    atomic_fetch_or(&slot->flags, LPORT_STATE_BROKEN);
    cr_assert(lport_handle_is_broken(socket));
    cr_assert_eq(lport_socket_close(socket, 0), 1);
    cr_assert_not(lport_handle_is_broken(socket));
    lport_handle_leave(slot);
    cr_assert_not(lport_handle_is_broken(socket));
    cr_assert_not(lport_handle_is_broken(-1));
    cr_assert_not(lport_handle_is_broken(INT64_MAX));
}

/* What waits for the last one to leave its slot is nobody else's yet. */
SOCKET_TEST(handle, a_descriptor_that_is_being_closed_has_its_owner_still) {
    struct lport_slot *slot;
    int64_t socket = open_one();
    int fd = (int)lport_handle_enter(socket, &slot);
    cr_assert(lport_handle_has(fd));
    cr_assert_eq(lport_socket_close(socket, 0), 1);
    cr_assert(lport_handle_has(fd));
    assert_kind(lport_descriptor_adopt(fd), LPORT_INVALID);
    lport_handle_leave(slot);
    cr_assert_not(lport_handle_has(fd));
}

/* Behaviour 22: with somebody inside, the last one to leave ends the descriptor. */
SOCKET_TEST(handle, the_last_user_to_leave_ends_the_descriptor) {
    struct lport_slot *slot, *again;
    int64_t socket = open_one();
    int fd = (int)lport_handle_enter(socket, &slot);
    cr_assert_eq(lport_handle_enter(socket, &again), fd);
    cr_assert_eq(slot, again);
    assert_kind(lport_socket_gone(socket, 0), LPORT_INVALID);
    cr_assert_not(lport_handle_is_closing(slot));
    cr_assert_eq(lport_socket_close(socket, 0), 1);
    cr_assert(lport_handle_is_closing(slot));
    assert_closed_to_all(socket);
    assert_kind(lport_socket_gone(socket, 0), LPORT_TIMED_OUT);
    assert_kind(lport_socket_gone(socket, lport_clock_after(2000000)), LPORT_TIMED_OUT);
    lport_handle_leave(slot);
    cr_assert(is_open(fd));
    lport_handle_leave(slot);
    cr_assert(!is_open(fd));
    cr_assert_eq(lport_socket_gone(socket, 0), 0);
}

static int64_t until_gone(void *data) {
    return lport_socket_gone(*(int64_t *)data, LPORT_NEVER);
}

SOCKET_TEST(handle, who_waits_for_a_socket_to_be_gone_is_woken) {
    struct lport_slot *slot;
    struct task task;
    int64_t socket = open_one();
    lport_handle_enter(socket, &slot);
    cr_assert_eq(lport_socket_close(socket, 0), 1);
    task_start(&task, until_gone, &socket);
    task_until_asleep(&task, 0);
    lport_handle_leave(slot);
    cr_assert_eq(task_join(&task), 0);
}

/* A reset that is asked for while others are inside happens when the last one leaves. */
SOCKET_TEST(handle, a_reset_waits_for_the_last_user) {
    int64_t ends[2];
    struct lport_slot *slot;
    uint8_t octet;
    make_connection(LPORT_INET, ends);
    lport_handle_enter(ends[0], &slot);
    cr_assert_eq(lport_socket_close(ends[0], LPORT_RESET), 1);
    assert_kind(undisturbed(lport_socket_receive(ends[1], &octet, 1, 0)), LPORT_WOULD_BLOCK);
    lport_handle_leave(slot);
    assert_kind(receive_some(ends[1], &octet, 1, soon()), LPORT_CONNECTION_RESET);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
}

SOCKET_TEST(handle, state_tells_what_happened) {
    uint8_t address[LPORT_ADDRESS_SIZE], octet;
    int64_t ends[2];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    make_connection(LPORT_INET, ends);
    cr_assert_eq(lport_socket_state(listener), LPORT_STATE_LISTENING);
    cr_assert_eq(lport_socket_state(ends[0]), 0);
    cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_INPUT), 0);
    cr_assert_eq(lport_socket_state(ends[0]), LPORT_STATE_INPUT_SHUT);
    cr_assert_eq(lport_socket_shutdown(ends[0], LPORT_OUTPUT), 0);
    cr_assert_eq(lport_socket_state(ends[0]), LPORT_STATE_INPUT_SHUT | LPORT_STATE_OUTPUT_SHUT);
    cr_assert_eq(lport_socket_close(ends[0], LPORT_RESET), 0);
    cr_assert_eq(receive_some(ends[1], &octet, 1, soon()), 0);
    assert_kind(receive_some(ends[1], &octet, 1, soon()), 0);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    cr_assert_eq(lport_socket_close(listener, 0), 0);
    make_connection(LPORT_INET, ends);
    cr_assert_eq(lport_socket_state(ends[1]), 0, "the marks of the slot's last socket are left");
    cr_assert_eq(lport_socket_close(ends[0], LPORT_RESET), 0);
    assert_kind(receive_some(ends[1], &octet, 1, soon()), LPORT_CONNECTION_RESET);
    cr_assert_eq(lport_socket_state(ends[1]), LPORT_STATE_BROKEN);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
}

SOCKET_TEST(handle, what_broke_a_connection_is_forgotten_with_it) {
    int64_t ends[2], next[2];
    uint8_t octet = 1;
    make_connection(LPORT_INET, ends);
    cr_assert_eq(lport_socket_close(ends[0], LPORT_RESET), 0);
    assert_kind(receive_some(ends[1], &octet, 1, soon()), LPORT_CONNECTION_RESET);
    assert_kind(send_some(ends[1], &octet, 1, soon()), LPORT_CONNECTION_RESET);
    cr_assert_eq(lport_socket_close(ends[1], 0), 0);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, next), 0);
    cr_assert_eq(next[0] & LPORT_SOCKET_INDEX, ends[1] & LPORT_SOCKET_INDEX);
    cr_assert_eq(send_some(next[0], &octet, 1, soon()), 1);
    cr_assert_eq(receive_some(next[1], &octet, 1, soon()), 1);
    cr_assert_eq(lport_socket_close(next[1], 0), 0);
    cr_assert_eq(receive_some(next[0], &octet, 1, soon()), 0);
    cr_assert_eq(lport_socket_close(next[0], 0), 0);
}

SOCKET_TEST(handle, thousands_are_open_at_once_and_each_is_its_own) {
    enum { COUNT = 3000 };
    static int64_t sockets[COUNT];
    static char seen[COUNT * 4];
    NEED_DESCRIPTORS(COUNT + 100);
    for (int i = 0; i < COUNT; i++) {
        sockets[i] = open_one();
        int64_t fd = lport_socket_descriptor(sockets[i]);
        cr_assert(fd >= 0 && fd < COUNT * 4 && !seen[fd]);
        seen[fd] = 1;
        cr_assert_eq(lport_socket_count(), i + 1);
    }
    for (int i = 0; i < COUNT; i++) {
        int at = (i * 7) % COUNT; /* 7 does not divide 3000: every one, in another order */
        cr_assert_eq(lport_socket_close(sockets[at], 0), 0);
    }
    cr_assert_eq(lport_socket_count(), 0);
}

enum { RACERS = 6, ROUNDS = 500 };

static struct {
    int64_t sockets[ROUNDS];
    _Atomic int64_t closed, refused;
    pthread_barrier_t barrier;
} contest;

static int64_t close_each(void *data) {
    (void)data;
    pthread_barrier_wait(&contest.barrier);
    for (int i = 0; i < ROUNDS; i++) {
        int64_t result = lport_socket_close(contest.sockets[i], 0);
        if (result >= 0) {
            atomic_fetch_add(&contest.closed, 1);
        } else if (lport_status_kind(result) == LPORT_CLOSED) {
            atomic_fetch_add(&contest.refused, 1);
        }
    }
    return 0;
}

static int64_t reset_each(void *data) {
    (void)data;
    int64_t won = 0;
    pthread_barrier_wait(&contest.barrier);
    for (int i = 0; i < ROUNDS; i++) {
        won += lport_socket_close(contest.sockets[i], LPORT_RESET) >= 0;
    }
    return won;
}

/* Who comes to a close too late does not make a reset of it. Two that close one after the other of
 * many sockets meet at some of them. */
SOCKET_TEST(handle, only_the_close_that_closes_can_be_a_reset) {
    faults_watch(); /* what a reset takes is counted */
    pthread_barrier_init(&contest.barrier, NULL, 2);
    for (int i = 0; i < 50; i++) {
        struct task resets, closes;
        for (int j = 0; j < ROUNDS; j++) {
            contest.sockets[j] = lport_socket_open(LPORT_LOCAL, LPORT_STREAM, 0);
            cr_assert_gt(contest.sockets[j], 0);
        }
        int64_t calls = faults_calls(CALL_SETSOCKOPT);
        task_start(&resets, reset_each, NULL);
        task_start(&closes, close_each, NULL);
        int64_t won = task_join(&resets);
        cr_assert_eq(task_join(&closes), 0);
        cr_assert_eq(faults_calls(CALL_SETSOCKOPT) - calls, won, "round %d", i);
    }
    pthread_barrier_destroy(&contest.barrier);
    faults_resume();
}

/* Behaviours 18 and 25: of many who close one socket exactly one does. */
SOCKET_TEST(handle, threads_that_close_the_same_socket_close_it_once) {
    struct task tasks[RACERS];
    faults_watch(); /* calls are counted */
    for (int i = 0; i < ROUNDS; i++) {
        contest.sockets[i] = open_one();
    }
    pthread_barrier_init(&contest.barrier, NULL, RACERS);
    for (int i = 0; i < RACERS; i++) {
        task_start(&tasks[i], close_each, NULL);
    }
    for (int i = 0; i < RACERS; i++) {
        task_join(&tasks[i]);
    }
    pthread_barrier_destroy(&contest.barrier);
    cr_assert_eq(atomic_load(&contest.closed), ROUNDS);
    cr_assert_eq(atomic_load(&contest.refused), ROUNDS * (RACERS - 1));
    cr_assert_eq(faults_calls(CALL_CLOSE), ROUNDS);
}

static int64_t reserve(void *data) {
    struct lport_slot *slot;
    (void)data;
    int64_t status = lport_handle_reserve(&slot);
    if (status == 0) {
        lport_handle_release(slot);
    }
    return status;
}

/* Behaviour 64, here for the memory of the table. */
SOCKET_TEST(handle, a_table_without_memory_is_a_status) {
    faults_fail(CALL_CALLOC, 1, 3, ENOMEM);
    for (int i = 0; i < 3; i++) {
        assert_kind(reserve(NULL), LPORT_MEMORY_EXHAUSTED);
    }
    cr_assert_eq(reserve(NULL), 0);
    int64_t socket = open_one();
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

static int close_and_exit(void *data) {
    const int64_t *ends = data;
    int64_t first = lport_socket_close(ends[0], 0);
    int64_t second = lport_socket_close(ends[1], 0);
    return first == 0 && second == 0 && lport_socket_count() == 0 ? 0 : 1;
}

/* A plain close in a forked child neither sends nor shuts anything down. */
SOCKET_TEST(handle, a_child_that_closes_what_it_inherited_leaves_the_connection_alone) {
    static const int32_t families[] = {LPORT_INET, LPORT_LOCAL};
    for (size_t i = 0; i < FAMILIES_HERE(families); i++) {
        int64_t ends[2];
        uint8_t octet = 0;
        make_connection(families[i], ends);
        cr_assert_eq(in_child(close_and_exit, ends), 0);
        cr_assert_eq(undisturbed(lport_socket_send(ends[0], (const uint8_t *)"a", 1)), 1);
        cr_assert_eq(receive_some(ends[1], &octet, 1, soon()), 1);
        cr_assert_eq(octet, 'a');
        assert_kind(undisturbed(lport_socket_receive(ends[0], &octet, 1, 0)), LPORT_WOULD_BLOCK);
        close_both(ends);
    }
}

static int is_closed_here(void *data) {
    return is_open(*(int *)data) ? 1 : 0;
}

/* The user that is to leave last is a thread of the parent: the child does not wait for it. */
SOCKET_TEST(handle, a_child_does_not_keep_what_its_parent_is_closing) {
    int64_t socket = open_one();
    int fd = (int)lport_socket_descriptor(socket);
    int64_t wait = lport_wait_begin(socket, LPORT_INPUT);
    cr_assert_eq(in_child(is_closed_here, &fd), 1);
    cr_assert_eq(lport_socket_close(socket, 0), 1);
    cr_assert_eq(in_child(is_closed_here, &fd), 0);
    cr_assert(is_open(fd));
    cr_assert_eq(lport_wait_end(wait), 0);
    cr_assert(!is_open(fd));
}

static int has_closed_nothing(void *data) {
    int fd = *(int *)data;
    int64_t sockets[] = {open_one(), open_one()};
    if (!is_open(fd) || sockets[0] == sockets[1]) {
        return 1;
    }
    return lport_socket_close(sockets[0], 0) == 0 && lport_socket_close(sockets[1], 0) == 0 ? 0 : 2;
}

/* The number that a closed socket had is that of another file by now. */
SOCKET_TEST(handle, a_child_closes_nothing_for_sockets_that_are_gone) {
    int64_t socket = open_one();
    int fd = (int)lport_socket_descriptor(socket);
    assert_closes(socket);
    cr_assert_eq(fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, fd), fd);
    cr_assert_eq(in_child(has_closed_nothing, &fd), 0);
    close(fd);
}

/* ---- in bulk --------------------------------------------------------------------------------- */

static long resident_kib(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    cr_assert_not_null(file);
    cr_assert_eq(fscanf(file, "%*d %ld", &pages), 1);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* One connection, used and closed. The client resets it, so that no port stays taken. */
static void use_one_connection(int64_t listener, const uint8_t *address) {
    uint8_t octet = 1;
    int64_t client = connect_to(address);
    int64_t server = accept_one(listener, soon());
    cr_assert(client > 0 && server > 0, "%lld %lld", (long long)client, (long long)server);
    cr_assert_eq(send_some(client, &octet, 1, soon()), 1);
    cr_assert_eq(receive_some(server, &octet, 1, soon()), 1);
    cr_assert_eq(lport_socket_close(client, LPORT_RESET), 0);
    cr_assert_eq(lport_socket_close(server, 0), 0);
}

SOCKET_TEST(handle, a_hundred_thousand_connections_leave_nothing) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(LPORT_INET, address);
    struct counts before;
    long resident = 0;
    for (int i = 0; i < 100000; i++) {
        if (i == 10000) { /* warm by now: what comes to it from here on is a leak */
            before = counts_now();
            resident = resident_kib();
        }
        use_one_connection(listener, address);
    }
    counts_assert_same(before);
    cr_assert_lt(resident_kib() - resident, 2048, "grew by %ld KiB", resident_kib() - resident);
    cr_assert_eq(lport_socket_close(listener, 0), 0);
}
