/* peer_datagram - messages over UDP: round trips, and many in one direction, one by one and in
 * batches. Both ends are in one thread where there is no server: what is measured is the calls, no
 * switch from side to side. See peer.c. */
#include "peer.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    MANY = 64,            /* messages of a batch */
    ROOM = 2048,          /* octets for each */
    TOGETHER_MAX = 65000, /* octets of messages that go as one */
    BUFFER = 1 << 20,     /* octets of a receive buffer, so that a batch fits */
    JOINED = 1 << 16,     /* octets of a datagram that is several */
    REGIONS = 8,          /* of those that one call receives */
    SEGMENT_OPTION = 103, /* UDP_SEGMENT of linux/udp.h */
    JOIN_OPTION = 104,    /* UDP_GRO */
};

/* A receiver, and a sender that is connected to it. */
struct ends {
    int receiver, sender;
};

static int open_end(struct sockaddr_in *address) {
    socklen_t len = sizeof *address;
    int buffer = BUFFER;
    int fd = check(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
    *address = loopback(0);
    check(bind(fd, (struct sockaddr *)address, len), "bind");
    check(getsockname(fd, (struct sockaddr *)address, &len), "getsockname");
    check(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer), "SO_RCVBUF");
    return fd;
}

static int connected_end(const struct sockaddr_in *to) {
    struct sockaddr_in own;
    int fd = open_end(&own);
    check(connect(fd, (const struct sockaddr *)to, sizeof *to), "connect");
    return fd;
}

static struct ends open_ends(void) {
    struct sockaddr_in at;
    struct ends ends = {.receiver = open_end(&at)};
    ends.sender = connected_end(&at);
    return ends;
}

static void close_ends(const struct ends *ends) {
    close(ends->receiver);
    close(ends->sender);
}

static void expect(ssize_t moved, size_t len, const char *what) {
    if (moved != (ssize_t)len) {
        fail(what);
    }
}

/* Receives a message on FD and sends it back. */
static void answer(int fd, uint8_t *octets, size_t cap) {
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    ssize_t received = recvfrom(fd, octets, cap, 0, (struct sockaddr *)&from, &len);
    if (received < 0) {
        fail("recvfrom");
    }
    expect(sendto(fd, octets, (size_t)received, 0, (struct sockaddr *)&from, len), (size_t)received,
           "sendto");
}

_Noreturn void serve_datagrams(void) {
    static uint8_t octets[ROOM];
    struct sockaddr_in at;
    int fd = open_end(&at);
    printf("%u\n", ntohs(at.sin_port));
    if (fflush(stdout) != 0) {
        fail("stdout");
    }
    for (;;) {
        answer(fd, octets, sizeof octets);
    }
}

/* ---- round trips ----------------------------------------------------------------------------- */

void run_datagram_echo(const struct workload *workload, uint16_t port, int64_t count) {
    uint8_t octets[ROOM] = {1};
    struct sockaddr_in to = loopback(port);
    int fd = connected_end(&to);
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        expect(send(fd, octets, workload->size, 0), workload->size, "send");
        expect(recv(fd, octets, sizeof octets, 0), workload->size, "recv");
    }
    report(workload->name, &from, count);
    close(fd);
}

void run_datagram_ends(const struct workload *workload, uint16_t port, int64_t count) {
    uint8_t octets[ROOM] = {1};
    struct ends ends = open_ends();
    (void)port;
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        expect(send(ends.sender, octets, workload->size, 0), workload->size, "send");
        answer(ends.receiver, octets, sizeof octets);
        expect(recv(ends.sender, octets, sizeof octets, 0), workload->size, "recv");
    }
    report(workload->name, &from, count);
    close_ends(&ends);
}

/* ---- many in one direction ------------------------------------------------------------------- */

static uint8_t sent[MANY][ROOM], received[MANY][ROOM];

/* The length of message I of a batch: SIZE, or with MIXED up to that, no two the same in a row. */
static size_t length_of(size_t i, size_t size, bool mixed) {
    return mixed ? size - i : size;
}

void run_datagram_single(const struct workload *workload, uint16_t port, int64_t count) {
    struct ends ends = open_ends();
    (void)port;
    struct stopwatch from = start();
    for (int64_t done = 0; done < count; done += MANY) {
        for (int i = 0; i < MANY; i++) {
            expect(send(ends.sender, sent[i], workload->size, 0), workload->size, "send");
        }
        for (int i = 0; i < MANY; i++) {
            struct sockaddr_in who;
            socklen_t len = sizeof who;
            expect(recvfrom(ends.receiver, received[i], ROOM, 0, (struct sockaddr *)&who, &len),
                   workload->size, "recvfrom");
        }
    }
    report(workload->name, &from, count);
    close_ends(&ends);
}

static void send_many(int fd, size_t size, bool mixed) {
    struct mmsghdr messages[MANY] = {0};
    struct iovec pieces[MANY];
    for (size_t i = 0; i < MANY; i++) {
        pieces[i] = (struct iovec){sent[i], length_of(i, size, mixed)};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
    }
    expect(sendmmsg(fd, messages, MANY, 0), MANY, "sendmmsg");
}

/* The COUNT messages from FIRST on as one that the kernel takes apart. */
static void send_segments(int fd, size_t size, size_t first, size_t count) {
    struct iovec pieces[MANY];
    uint16_t segment = (uint16_t)size;
    union {
        struct cmsghdr header;
        char octets[CMSG_SPACE(sizeof(uint16_t))];
    } control = {.header = {.cmsg_level = IPPROTO_UDP,
                            .cmsg_type = SEGMENT_OPTION,
                            .cmsg_len = CMSG_LEN(sizeof segment)}};
    struct msghdr message = {.msg_iov = pieces,
                             .msg_iovlen = count,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};
    memcpy(CMSG_DATA(&control.header), &segment, sizeof segment);
    for (size_t i = 0; i < count; i++) {
        pieces[i] = (struct iovec){sent[first + i], size};
    }
    expect(sendmsg(fd, &message, 0), size * count, "UDP_SEGMENT");
}

static void send_joined(int fd, size_t size) {
    size_t together = TOGETHER_MAX / size;
    for (size_t done = 0; done < MANY; done += together) {
        send_segments(fd, size, done, MANY - done < together ? MANY - done : together);
    }
}

static void receive_many(int fd, size_t size, bool mixed) {
    for (int done = 0; done < MANY;) {
        struct mmsghdr messages[MANY];
        struct iovec pieces[MANY];
        struct sockaddr_in who[MANY];
        for (int i = 0; i < MANY; i++) {
            pieces[i] = (struct iovec){received[i], ROOM};
            messages[i].msg_hdr = (struct msghdr){.msg_name = &who[i],
                                                  .msg_namelen = sizeof who[i],
                                                  .msg_iov = &pieces[i],
                                                  .msg_iovlen = 1};
        }
        int got = check(recvmmsg(fd, messages, MANY, MSG_WAITFORONE, NULL), "recvmmsg");
        for (int i = 0; i < got; i++, done++) {
            expect((ssize_t)messages[i].msg_len, length_of((size_t)done, size, mixed), "recvmmsg");
        }
    }
}

/* The length of the messages in MESSAGE, of LENGTH octets in all. */
static size_t segment_of(struct msghdr *message, size_t length) {
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    int size = (int)length;
    if (header != NULL && header->cmsg_level == IPPROTO_UDP && header->cmsg_type == JOIN_OPTION) {
        memcpy(&size, CMSG_DATA(header), sizeof size);
    }
    return (size_t)size;
}

/* Receives joined messages and copies them to where single ones would have come. */
static void receive_joined(int fd, size_t size) {
    static uint8_t joined[REGIONS][JOINED];
    for (size_t done = 0; done < MANY;) {
        struct mmsghdr messages[REGIONS];
        struct iovec pieces[REGIONS];
        struct sockaddr_in who[REGIONS];
        union {
            struct cmsghdr header;
            char octets[CMSG_SPACE(sizeof(int))];
        } controls[REGIONS];
        for (int i = 0; i < REGIONS; i++) {
            pieces[i] = (struct iovec){joined[i], JOINED};
            messages[i].msg_hdr = (struct msghdr){.msg_name = &who[i],
                                                  .msg_namelen = sizeof who[i],
                                                  .msg_iov = &pieces[i],
                                                  .msg_iovlen = 1,
                                                  .msg_control = &controls[i],
                                                  .msg_controllen = sizeof controls[i]};
        }
        int got = check(recvmmsg(fd, messages, REGIONS, MSG_WAITFORONE, NULL), "UDP_GRO");
        for (int i = 0; i < got; i++) {
            size_t length = messages[i].msg_len, segment = segment_of(&messages[i].msg_hdr, length);
            expect((ssize_t)segment, size, "UDP_GRO");
            for (size_t at = 0; at < length; at += segment) {
                memcpy(received[done++], joined[i] + at, segment);
            }
        }
    }
}

void run_datagram_batch_mixed(const struct workload *workload, uint16_t port, int64_t count) {
    struct ends ends = open_ends();
    (void)port;
    struct stopwatch from = start();
    for (int64_t done = 0; done < count; done += MANY) {
        send_many(ends.sender, workload->size, true);
        receive_many(ends.receiver, workload->size, true);
    }
    report(workload->name, &from, count);
    close_ends(&ends);
}

void run_datagram_batch(const struct workload *workload, uint16_t port, int64_t count) {
    struct ends ends = open_ends();
    (void)port;
    struct stopwatch from = start();
    for (int64_t done = 0; done < count; done += MANY) {
        send_joined(ends.sender, workload->size);
        receive_many(ends.receiver, workload->size, false);
    }
    report(workload->name, &from, count);
    close_ends(&ends);
}

void run_datagram_batch_joined(const struct workload *workload, uint16_t port, int64_t count) {
    struct ends ends = open_ends();
    int on = 1;
    (void)port;
    check(setsockopt(ends.receiver, IPPROTO_UDP, JOIN_OPTION, &on, sizeof on), "UDP_GRO");
    struct stopwatch from = start();
    for (int64_t done = 0; done < count; done += MANY) {
        send_joined(ends.sender, workload->size);
        receive_joined(ends.receiver, workload->size);
    }
    report(workload->name, &from, count);
    close_ends(&ends);
}
