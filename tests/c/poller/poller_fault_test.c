/* poller: systems that lack something, calls that fail, and forks. */
#include "poller/poller_member.h"
#include "polling.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

static int64_t open_with(void *data) {
    int64_t poller = lport_poller_open(*(int32_t *)data);
    cr_assert_neq(poller, 0, "neither a poller nor a failure");
    if (poller > 0) {
        lport_socket_close(poller, 0);
    }
    return poller;
}

struct adding {
    int64_t poller, socket;
};

static int64_t add_to(void *data) {
    struct adding *self = data;
    return lport_poller_add(self->poller, self->socket, LPORT_INPUT);
}

static void remove_from(void *data, int64_t result) {
    struct adding *self = data;
    int64_t status = lport_poller_remove(self->poller, self->socket);
    assert_kind(status, result < 0 ? LPORT_INVALID : 0);
}

/* The best poller works, although on epoll there is none, with a status of KIND. */
static void assert_best_is_poll(int32_t kind) {
    int64_t ends[2];
    assert_kind(lport_poller_open(LPORT_POLLER_EPOLL), kind);
    int64_t poller = open_poller(LPORT_POLLER_BEST);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_OUTPUT), 0);
    assert_ready(poller, ends[0], LPORT_OUTPUT);
    close_both(ends);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

/* A kernel without epoll. */
SOCKET_TEST(poller, the_best_is_poll_where_the_system_has_no_epoll) {
    faults_fail(CALL_EPOLL_CREATE1, 1, INT64_MAX, ENOSYS);
    assert_best_is_poll(LPORT_NOT_SUPPORTED);
    faults_clear();
}

SOCKET_TEST(poller, the_best_is_poll_where_a_filter_forbids_epoll) {
    forbid_call(SYS_epoll_create1);
    assert_best_is_poll(LPORT_PERMISSION_DENIED);
}

SOCKET_TEST(poller, the_best_is_poll_where_a_filter_forbids_the_wait_alone) {
    faults_fail(CALL_EPOLL_WAIT, 1, INT64_MAX, EPERM);
    assert_best_is_poll(LPORT_PERMISSION_DENIED);
    faults_clear();
}

SOCKET_TEST(poller, the_best_is_none_where_a_filter_forbids_what_each_needs) {
    forbid_call(SYS_eventfd2);
    for (int32_t backend = LPORT_POLLER_BEST; backend <= LPORT_POLLER_POLL; backend++) {
        assert_kind(lport_poller_open(backend), LPORT_PERMISSION_DENIED);
    }
}

/* Behaviour 64. */
SOCKET_TEST(poller, on_poll_without_memory_holds_nothing) {
    int64_t ends[2], poller = open_poller(LPORT_POLLER_POLL);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    cr_assert_eq(lport_poller_end(poller, lport_poller_begin(poller)), 0);
    for (int64_t n = 1; n <= 3; n++) { /* the member, or what the poller has grown to */
        faults_fail(CALL_CALLOC, n, 1, ENOMEM);
        assert_kind(lport_poller_add(poller, ends[0], LPORT_OUTPUT), LPORT_MEMORY_EXHAUSTED);
    }
    faults_fail(CALL_CALLOC, 1, 1, ENOMEM);
    assert_kind(lport_poller_begin(poller), LPORT_MEMORY_EXHAUSTED);
    faults_resume();
    cr_assert_eq(lport_wait_count(), 0);
    close_both(ends);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

/* Behaviour 64. The first turn needs memory for the wait, too. */
SOCKET_TEST(poller, on_poll_without_memory_begins_no_turn) {
    int64_t poller = open_poller(LPORT_POLLER_POLL);
    faults_fail(CALL_CALLOC, 1, 1, ENOMEM);
    assert_kind(lport_poller_begin(poller), LPORT_MEMORY_EXHAUSTED);
    faults_resume();
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

SOCKET_TEST(poller, on_epoll_is_opened_while_signals_come) {
    faults_fail(CALL_EPOLL_WAIT, 1, 1, EINTR);
    int64_t poller = open_poller(LPORT_POLLER_EPOLL);
    faults_resume();
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

/* Behaviour 64. SOCKET_TEST does not count eventfds. */
SOCKET_TEST(poller, without_its_backend_keeps_no_eventfd) {
    int before = count_descriptors(EVENTFD);
    faults_fail(CALL_EPOLL_CREATE1, 1, 1, EMFILE);
    assert_kind(lport_poller_open(LPORT_POLLER_EPOLL), LPORT_DESCRIPTORS_EXHAUSTED);
    faults_resume();
    cr_assert_eq(count_descriptors(EVENTFD), before);
}

/* Behaviour 64, of the limit of epoll(7). */
SOCKET_TEST(poller, on_epoll_tells_that_a_socket_cannot_be_watched) {
    int64_t ends[2], poller = open_poller(LPORT_POLLER_EPOLL);
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    faults_fail(CALL_EPOLL_CTL, 1, 1, ENOSPC);
    assert_kind(lport_poller_add(poller, ends[0], LPORT_INPUT), LPORT_BUFFERS_EXHAUSTED);
    assert_kind(lport_poller_remove(poller, ends[0]), LPORT_INVALID);
    cr_assert_eq(lport_poller_add(poller, ends[0], LPORT_INPUT), 0);
    faults_fail(CALL_EPOLL_CTL, 1, 1, ENOSPC);
    assert_kind(lport_poller_modify(poller, ends[0], both), LPORT_BUFFERS_EXHAUSTED);
    faults_resume();
    assert_quiet(poller);
    cr_assert_eq(lport_poller_modify(poller, ends[0], both), 0);
    assert_ready(poller, ends[0], LPORT_OUTPUT);
    close_both(ends);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

static int members_there;

static int64_t let_in(struct lport_poller *poller, struct lport_member *member) {
    (void)poller, (void)member;
    members_there++;
    return 0;
}

static void let_out(struct lport_poller *poller, struct lport_member *member) {
    (void)poller, (void)member;
    members_there--;
}

static int64_t refuse(struct lport_poller *poller, struct lport_member *member, int32_t interest) {
    (void)poller, (void)member, (void)interest;
    return lport_status_make(LPORT_BUFFERS_EXHAUSTED);
}

/* Whatever a backend does when a member comes in, and epoll does nothing then. */
SOCKET_TEST(poller, takes_out_of_its_backend_what_that_cannot_watch) {
    const struct lport_poller_backend backend = {
        .add = let_in, .remove = let_out, .change = refuse};
    struct lport_poller poller = {.backend = &backend};
    struct lport_slot slot = {.watches = NULL};
    assert_kind(lport_member_add(&poller, &slot, 1, LPORT_INPUT), LPORT_BUFFERS_EXHAUSTED);
    cr_assert_eq(members_there, 0);
    cr_assert_null(slot.watches);
}

SOCKET_TEST(poller, the_best_is_not_poll_where_something_else_is_wrong) {
    faults_fail(CALL_EPOLL_CREATE1, 1, 1, EMFILE);
    assert_kind(lport_poller_open(LPORT_POLLER_BEST), LPORT_DESCRIPTORS_EXHAUSTED);
    faults_resume();
    assert_kind(lport_poller_open(LPORT_POLLER_BEST - 1), LPORT_INVALID);
    assert_kind(lport_poller_open(LPORT_POLLER_POLL + 1), LPORT_INVALID);
}

/* Behaviour 64. */
POLLER_TEST(any_failing_call_leaves_nothing_behind) {
    int64_t ends[2];
    fail_every_call(open_with, NULL, &backend);
    faults_fail(CALL_CALLOC, 1, INT64_MAX, ENOMEM);
    assert_kind(lport_poller_open(backend), LPORT_MEMORY_EXHAUSTED);
    faults_resume();
    struct adding adding = {.poller = open_poller(backend)};
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    adding.socket = ends[0];
    fail_every_call(add_to, remove_from, &adding);
    cr_assert_eq(lport_poller_add(adding.poller, ends[0], LPORT_INPUT), 0);
    faults_fail(CALL_ANY, 1, 1, ENOSPC);
    int64_t status = lport_poller_modify(adding.poller, ends[0], both);
    if (status < 0) { /* it failed, and the interest is as before */
        assert_kind(status, LPORT_BUFFERS_EXHAUSTED);
        faults_clear();
        assert_quiet(adding.poller);
    }
    faults_clear();
    close_both(ends);
    cr_assert_eq(lport_socket_close(adding.poller, 0), 0);
}

static int in_the_child(void *data) {
    struct adding *self = data;
    struct event event;
    bool right =
        lport_status_kind(take(self->poller, &event, 1, 0)) == LPORT_CLOSED &&
        lport_status_kind(lport_poller_add(self->poller, self->socket, 0)) == LPORT_CLOSED &&
        lport_socket_close(self->socket, 0) == 0 && lport_socket_close(self->poller, 0) == 0;
    return right ? 0 : 1;
}

static int close_in_the_child(void *poller) {
    static const char epoll[] = "anon_inode:[eventpoll]";
    int before = count_descriptors(epoll);
    bool closed = lport_socket_close(*(int64_t *)poller, 0) == 0;
    return closed && count_descriptors(epoll) == before - 1 ? 0 : 1;
}

SOCKET_TEST(poller, on_epoll_gives_its_descriptor_back_in_a_forked_child_too) {
    int64_t poller = open_poller(LPORT_POLLER_EPOLL);
    cr_assert_eq(in_child(close_in_the_child, &poller), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

/* Its backend has no descriptor of its own. */
static int keep_input_in_the_child(void *poller) {
    int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
    bool there = dup2(input, 0) == 0 && lport_socket_close(*(int64_t *)poller, 0) == 0 &&
                 fcntl(0, F_GETFD) >= 0;
    return there ? 0 : 1;
}

SOCKET_TEST(poller, on_poll_closes_nothing_of_a_forked_child) {
    int64_t poller = open_poller(LPORT_POLLER_POLL);
    cr_assert_eq(in_child(keep_input_in_the_child, &poller), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

static int poll_in_the_child(void *backend) {
    int64_t ends[2], poller = lport_poller_open(*(int32_t *)backend);
    struct event event;
    bool right = poller > 0 && lport_socket_pair(LPORT_STREAM, ends) == 0 &&
                 lport_poller_add(poller, ends[0], LPORT_OUTPUT) == 0 &&
                 take(poller, &event, 1, soon()) == 1 && event.socket == ends[0] &&
                 lport_socket_close(poller, 0) == 0;
    return right ? 0 : 1;
}

POLLER_TEST(that_a_forked_child_makes_is_its_own) {
    int64_t poller = open_poller(backend);
    cr_assert_eq(in_child(poll_in_the_child, &backend), 0);
    cr_assert_eq(lport_socket_close(poller, 0), 0);
}

POLLER_TEST(a_forked_child_disturbs_nothing) {
    int64_t ends[2];
    struct adding adding = {.poller = open_poller(backend)};
    cr_assert_eq(lport_socket_pair(LPORT_STREAM, ends), 0);
    adding.socket = ends[0];
    cr_assert_eq(lport_poller_add(adding.poller, ends[0], LPORT_INPUT), 0);
    cr_assert_eq(in_child(in_the_child, &adding), 0);
    say(ends[1]);
    assert_ready(adding.poller, ends[0], LPORT_INPUT);
    close_both(ends);
    cr_assert_eq(lport_socket_close(adding.poller, 0), 0);
}
