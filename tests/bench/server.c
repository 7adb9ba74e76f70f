/* server - what services are compared with, in plain C: an HTTP/1.1 server on epoll with one
 * answer, threads that accept, answer and close, and the cost of a wait for many sockets.
 *
 * usage: server http | server closing THREADS     prints its port and serves until it is killed
 *        server wait SOCKETS READY COUNT          prints the nanoseconds of processor time of one
 *                                                 epoll_wait
 *
 * Invariant: none of this checks more than its clients in the benchmarks need. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 512, ROOM = 65536 };

static const char answer[] = "HTTP/1.1 200 OK\r\n"
                             "Date: Tue, 24 Nov 2026 00:00:00 GMT\r\n"
                             "Content-Type: text/plain; charset=utf-8\r\n"
                             "Content-Length: 13\r\n\r\nhello, world\n";

static const char last_answer[] = "HTTP/1.1 200 OK\r\n"
                                  "Content-Type: text/plain; charset=utf-8\r\n"
                                  "Connection: close\r\n"
                                  "Content-Length: 13\r\n\r\nhello, world\n";

static int checked(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static int start_listening(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int one = 1;
    int listener = checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* inherited */
    checked(bind(listener, (struct sockaddr *)&address, length), "bind");
    checked(listen(listener, 4096), "listen");
    checked(getsockname(listener, (struct sockaddr *)&address, &length), "getsockname");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void add(int epoll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    checked(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

/* Answers each request that has come whole; one that has not is not expected. */
static void serve_http(int fd) {
    static char room[ROOM + 1];
    ssize_t count = recv(fd, room, ROOM, 0);
    if (count <= 0) {
        if (count == 0 || errno != EAGAIN) {
            close(fd);
        }
        return;
    }
    room[count] = '\0';
    for (char *at = room; (at = strstr(at, "\r\n\r\n")) != NULL; at += 4) {
        send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
    }
}

static void http(void) {
    struct epoll_event ready[EVENTS];
    int listener = start_listening();
    int epoll = checked(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    add(epoll, listener);
    for (;;) {
        int found = epoll_wait(epoll, ready, EVENTS, -1);
        for (int i = 0; i < found; i++) {
            if (ready[i].data.fd == listener) {
                add(epoll, checked(accept4(listener, NULL, NULL, SOCK_NONBLOCK), "accept4"));
            } else {
                serve_http(ready[i].data.fd);
            }
        }
    }
}

static void *answer_and_close(void *argument) {
    const int *listener = argument;
    char room[4096];
    for (;;) {
        int fd = accept4(*listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            if (recv(fd, room, sizeof room, 0) > 0) {
                send(fd, last_answer, sizeof last_answer - 1, MSG_NOSIGNAL);
            }
            close(fd);
        }
    }
    return NULL;
}

static void closing(int threads) {
    static int listener;
    pthread_t thread;
    listener = start_listening();
    for (int i = 1; i < threads; i++) {
        checked(-pthread_create(&thread, NULL, answer_and_close, &listener), "pthread_create");
    }
    answer_and_close(&listener);
}

static int64_t processor_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void wait_for_many(int sockets, int with_input, int count) {
    struct epoll_event ready[EVENTS];
    struct rlimit limit;
    int epoll = checked(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (int i = 0; i < sockets / 2; i++) { /* both ends wait */
        int pair[2];
        checked(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), "socketpair");
        add(epoll, pair[0]);
        add(epoll, pair[1]);
        if (i < with_input) {
            checked((int)send(pair[1], "x", 1, 0), "send");
        }
    }
    int64_t start = processor_time();
    for (int i = 0; i < count; i++) {
        if (epoll_wait(epoll, ready, EVENTS, -1) != with_input) {
            checked(-1, "epoll_wait");
        }
    }
    printf("%.1f\n", (double)(processor_time() - start) / count);
}

int main(int count, char **words) {
    if (count == 2 && strcmp(words[1], "http") == 0) {
        http();
    } else if (count == 3 && strcmp(words[1], "closing") == 0) {
        closing(atoi(words[2]));
    } else if (count == 5 && strcmp(words[1], "wait") == 0) {
        wait_for_many(atoi(words[2]), atoi(words[3]), atoi(words[4]));
    } else {
        fprintf(stderr, "usage: server http | closing THREADS | wait SOCKETS READY COUNT\n");
        return 2;
    }
    return 0;
}
