/* polling - what the tests of pollers share: every test is run with each backend; events are taken
 * and looked at; octets are said and heard. */
#ifndef POLLING_H
#define POLLING_H

#include "support.h"

#include <stdint.h>

#define MS INT64_C(1000000)

static const int32_t both = LPORT_INPUT | LPORT_OUTPUT;

/* A test that is run with each backend. */
#define POLLER_TEST(name)                                                                          \
    static void name##_with(int32_t backend);                                                      \
    SOCKET_TEST(poller, name##_on_epoll) {                                                         \
        name##_with(LPORT_POLLER_EPOLL);                                                           \
    }                                                                                              \
    SOCKET_TEST(poller, name##_on_poll) {                                                          \
        name##_with(LPORT_POLLER_POLL);                                                            \
    }                                                                                              \
    static void name##_with(int32_t backend)

struct event {
    int64_t socket, flags;
};

int64_t open_poller(int32_t backend);

/* At most CAP events by DEADLINE: how many; 0: woken; or a status. */
int64_t take(int64_t poller, struct event *events, int32_t cap, int64_t deadline);

/* Nothing is ready. */
void assert_quiet(int64_t poller);

/* The one socket that is ready is SOCKET, with FLAGS. */
void assert_ready(int64_t poller, int64_t socket, int64_t flags);

/* An octet goes into SOCKET; one comes out of it. */
void say(int64_t socket);
void hear(int64_t socket);

/* A thread that takes what comes, without a deadline. */
struct taking {
    int64_t poller;
    struct event events[8];
};

/* Whatever the backend, a thread that waits in a poller sleeps; poll's is counted as a wait. */
void start_taking(struct task *task, struct taking *data, int32_t backend);

#endif
