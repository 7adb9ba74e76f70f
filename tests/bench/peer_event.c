/* peer_event - readiness: many local sockets in one epoll, both ends of each pair. See peer.c. */
#include "peer.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct crowd {
    int *ends; /* of pair I: 2 I and 2 I + 1 */
    size_t len;
    int epoll;
};

static struct crowd make_crowd(size_t len) {
    struct crowd crowd = {calloc(len, sizeof(int)), len, epoll_create1(EPOLL_CLOEXEC)};
    if (crowd.ends == NULL || crowd.epoll < 0) {
        fail("epoll");
    }
    for (size_t i = 0; i < len; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = i};
        if (i % 2 == 0) {
            check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, crowd.ends + i),
                  "socketpair");
        }
        check(epoll_ctl(crowd.epoll, EPOLL_CTL_ADD, crowd.ends[i], &event), "epoll_ctl");
    }
    return crowd;
}

static void end_crowd(struct crowd *crowd) {
    for (size_t i = 0; i < crowd->len; i++) {
        close(crowd->ends[i]);
    }
    close(crowd->epoll);
    free(crowd->ends);
}

static void make_ready(const struct crowd *crowd, size_t index) {
    if (write(crowd->ends[index ^ 1], "x", 1) != 1) {
        fail("write");
    }
}

/* One octet written, the wait that finds it, and its read. */
void run_event(const struct workload *workload, uint16_t port, int64_t count) {
    struct crowd crowd = make_crowd(workload->size);
    struct epoll_event event;
    uint8_t octet;
    (void)port;
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        make_ready(&crowd, (size_t)(i * 7919) % crowd.len);
        check(epoll_wait(crowd.epoll, &event, 1, -1), "epoll_wait");
        if (read(crowd.ends[event.data.u64], &octet, 1) != 1) {
            fail("read");
        }
    }
    report(workload->name, &from, count);
    end_crowd(&crowd);
}
