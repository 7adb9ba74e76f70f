#include "polling.h"

int64_t open_poller(int32_t backend) {
    int64_t poller = lport_poller_open(backend);
    cr_assert_gt(poller, 0, "%s", kind_text(lport_status_kind(poller)));
    return poller;
}

int64_t take(int64_t poller, struct event *events, int32_t cap, int64_t deadline) {
    int64_t result;
    do {
        int64_t turn = lport_poller_begin(poller);
        if (turn < 0) {
            return turn;
        }
        result = lport_poller_wait(poller, turn, (int64_t *)events, cap, deadline, 0);
        lport_poller_end(poller, turn);
    } while (lport_status_kind(result) == LPORT_WOULD_BLOCK);
    return result;
}

void assert_quiet(int64_t poller) {
    struct event event;
    assert_kind(take(poller, &event, 1, 0), LPORT_TIMED_OUT);
}

void assert_ready(int64_t poller, int64_t socket, int64_t flags) {
    struct event events[4];
    int64_t count = take(poller, events, 4, soon());
    cr_assert_eq(count, 1, "%lld", (long long)count);
    cr_assert_eq(events[0].socket, socket);
    cr_assert_eq(events[0].flags, flags, "%lld, not %lld", (long long)events[0].flags,
                 (long long)flags);
}

void say(int64_t socket) {
    uint8_t octet = 7;
    cr_assert_eq(send_all(socket, &octet, 1, soon()), 1);
}

void hear(int64_t socket) {
    uint8_t octet;
    cr_assert_eq(receive_some(socket, &octet, 1, soon()), 1);
}

static int64_t taking(void *data) {
    struct taking *self = data;
    return take(self->poller, self->events, 8, LPORT_NEVER); /* a deadline would hide a lost wake */
}

void start_taking(struct task *task, struct taking *data, int32_t backend) {
    task_start(task, taking, data);
    task_until_asleep(task, backend == LPORT_POLLER_POLL ? 1 : 0);
}
