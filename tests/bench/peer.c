/* peer - plain C over plain system calls, doing what the benchmarks of port do, for comparison.
 *
 * Stands on the C library alone, blocking calls, one thread for each side. A workload that has both
 * sides runs them on one processor, so that a number does not depend on where the system put them.
 * Text is made of, and into, UTF-32, as Lisp strings are.
 *
 * usage: peer WORKLOAD [COUNT [PORT]]   runs it, against the server at PORT or one of its own (for
 *                                       pair-..., no PORT), and prints one line:
 *            NAME NS CPU BOTH     nanoseconds of one operation by the wall clock, by the processor
 *                                 time of the side that is measured, and by that of this process
 *        peer SERVER [ARGUMENTS]  prints the port it listens on, serves, ends
 *        peer text KIND           prints the lines that are sent */
#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FILE_OCTETS = 1 << 20 };

_Noreturn void fail(const char *what) {
    fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

int check(int result, const char *what) {
    if (result < 0) {
        fail(what);
    }
    return result;
}

/* ---- time and place -------------------------------------------------------------------------- */

static int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

struct stopwatch start(void) {
    return (struct stopwatch){clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_THREAD_CPUTIME_ID),
                              clock_ns(CLOCK_PROCESS_CPUTIME_ID)};
}

void report(const char *name, const struct stopwatch *from, int64_t count) {
    struct stopwatch to = start();
    double n = (double)count;
    printf("%s %.1f %.1f %.1f\n", name, (double)(to.wall - from->wall) / n,
           (double)(to.own - from->own) / n, (double)(to.both - from->both) / n);
}

/* Keeps this thread, and those that it makes, on the first processor it may use. */
static void stay_on_one_processor(void) {
    cpu_set_t set;
    check(sched_getaffinity(0, sizeof set, &set), "sched_getaffinity");
    for (size_t i = 0; i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, &set)) {
            CPU_ZERO(&set);
            CPU_SET(i, &set);
            break;
        }
    }
    check(sched_setaffinity(0, sizeof set, &set), "sched_setaffinity");
}

/* ---- sockets --------------------------------------------------------------------------------- */

struct sockaddr_in loopback(uint16_t port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int listen_somewhere(uint16_t *port) {
    struct sockaddr_in address = loopback(0);
    socklen_t len = sizeof address;
    int fd = check(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    check(bind(fd, (struct sockaddr *)&address, len), "bind");
    check(listen(fd, 128), "listen");
    check(getsockname(fd, (struct sockaddr *)&address, &len), "getsockname");
    *port = ntohs(address.sin_port);
    return fd;
}

static void nodelay(int fd) {
    int on = 1;
    check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
}

static int accept_one(int listener) {
    int fd = check(accept4(listener, NULL, NULL, SOCK_CLOEXEC), "accept");
    nodelay(fd);
    return fd;
}

int connect_to(uint16_t port) {
    struct sockaddr_in address = loopback(port);
    int fd = check(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    nodelay(fd);
    check(connect(fd, (struct sockaddr *)&address, sizeof address), "connect");
    return fd;
}

/* False when the other side takes no more. */
static bool try_to_send(int fd, const uint8_t *octets, size_t len) {
    while (len > 0) {
        ssize_t sent = send(fd, octets, len, MSG_NOSIGNAL);
        if (sent < 0) {
            return false;
        }
        octets += sent;
        len -= (size_t)sent;
    }
    return true;
}

void send_all(int fd, const uint8_t *octets, size_t len) {
    if (!try_to_send(fd, octets, len)) {
        fail("send");
    }
}

size_t receive_some(int fd, uint8_t *octets, size_t cap) {
    ssize_t received = recv(fd, octets, cap, 0);
    if (received < 0) {
        fail("recv");
    }
    return (size_t)received;
}

/* False at the end of the file, else there are LEN octets. */
static bool receive_all(int fd, uint8_t *octets, size_t len) {
    while (len > 0) {
        size_t received = receive_some(fd, octets, len);
        if (received == 0) {
            return false;
        }
        octets += received;
        len -= received;
    }
    return true;
}

/* ---- the other side of each workload, on a thread or in a process of its own ----------------- */

static void echo(int fd) {
    uint8_t octets[4096];
    size_t len;
    while ((len = receive_some(fd, octets, sizeof octets)) > 0) {
        send_all(fd, octets, len);
    }
}

static void swallow(int fd) {
    static _Thread_local uint8_t octets[PIECE];
    while (receive_some(fd, octets, sizeof octets) > 0) {
    }
}

/* As much of it as OCTETS says, or until the other side takes no more. */
static void send_pattern(int fd, const struct pattern *pattern, int64_t octets) {
    while (octets > 0) {
        size_t len = octets < (int64_t)pattern->len ? (size_t)octets : pattern->len;
        if (!try_to_send(fd, pattern->octets, len)) {
            return;
        }
        octets -= (int64_t)len;
    }
}

struct side {
    int listener;
    int64_t connections;
    void (*serve)(int fd);         /* or, where NULL: */
    const struct pattern *pattern; /* send this, */
    int64_t octets;                /* so much of it */
};

static void *run_side(void *argument) {
    const struct side *side = argument;
    for (int64_t i = 0; i < side->connections; i++) {
        int fd = accept_one(side->listener);
        if (side->serve != NULL) {
            side->serve(fd);
        } else {
            send_pattern(fd, side->pattern, side->octets);
        }
        close(fd);
    }
    return NULL;
}

/* The thread of the other side, where it is in this process. */
static struct {
    pthread_t thread;
    bool runs;
} other_side;

static void start_other_side(struct side *side) {
    if (pthread_create(&other_side.thread, NULL, run_side, side) != 0) {
        fail("pthread_create");
    }
    other_side.runs = true;
}

/* Until it has served all its connections. */
static void await_other_side(void) {
    if (other_side.runs) {
        pthread_join(other_side.thread, NULL);
        other_side.runs = false;
    }
}

/* ---- workloads ------------------------------------------------------------------------------- */

static void run_pingpong(const struct workload *workload, uint16_t port, int64_t count) {
    uint8_t octets[64] = {1};
    int fd = connect_to(port);
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        send_all(fd, octets, workload->size);
        if (!receive_all(fd, octets, workload->size)) {
            fail("end of file");
        }
    }
    report(workload->name, &from, count);
    close(fd);
}

static void run_connect(const struct workload *workload, uint16_t port, int64_t count) {
    uint8_t octets[64] = {1};
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        int fd = connect_to(port);
        send_all(fd, octets, workload->size);
        close(fd);
    }
    await_other_side();
    report(workload->name, &from, count);
}

static void run_write_octets(const struct workload *workload, uint16_t port, int64_t count) {
    struct pattern pattern = pattern_of("octets");
    int fd = connect_to(port);
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        send_all(fd, pattern.octets, workload->size);
    }
    report(workload->name, &from, count);
    close(fd);
    free(pattern.octets);
}

/* A file of 1 MiB, by sendfile(2). */
static void run_send_file(const struct workload *workload, uint16_t port, int64_t count) {
    static const uint8_t octets[FILE_OCTETS];
    FILE *file = tmpfile();
    int fd = connect_to(port);
    if (file == NULL || fwrite(octets, 1, FILE_OCTETS, file) != FILE_OCTETS || fflush(file) != 0) {
        fail("tmpfile");
    }
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        off_t offset = 0;
        while (offset < FILE_OCTETS) {
            if (sendfile(fd, fileno(file), &offset, (size_t)(FILE_OCTETS - offset)) < 0) {
                fail("sendfile");
            }
        }
    }
    report(workload->name, &from, count);
    close(fd);
    (void)fclose(file);
}

static void run_read_octets(const struct workload *workload, uint16_t port, int64_t count) {
    static uint8_t octets[PIECE];
    int fd = connect_to(port);
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        if (!receive_all(fd, octets, workload->size)) {
            fail("octets are missing");
        }
    }
    report(workload->name, &from, count);
    close(fd);
}

static void run_read_some(const struct workload *workload, uint16_t port, int64_t count) {
    static uint8_t octets[PIECE];
    int64_t left = count * (int64_t)workload->size;
    int fd = connect_to(port);
    struct stopwatch from = start();
    while (left > 0) {
        size_t len = receive_some(fd, octets, sizeof octets);
        if (len == 0) {
            fail("octets are missing");
        }
        left -= (int64_t)len;
    }
    report(workload->name, &from, count);
    close(fd);
}

static FILE *stream_to(uint16_t port, const char *mode) {
    FILE *stream = fdopen(connect_to(port), mode);
    if (stream == NULL || setvbuf(stream, NULL, _IOFBF, PIECE) != 0) {
        fail("fdopen");
    }
    return stream;
}

static void run_read_one(const struct workload *workload, uint16_t port, int64_t count) {
    FILE *stream = stream_to(port, "r");
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        if (getc_unlocked(stream) == EOF) {
            fail("octets are missing");
        }
    }
    report(workload->name, &from, count);
    fclose(stream);
}

static void run_write_one(const struct workload *workload, uint16_t port, int64_t count) {
    FILE *stream = stream_to(port, "w");
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        if (putc_unlocked('a', stream) == EOF) {
            fail("putc");
        }
    }
    check(fflush(stream), "fflush");
    report(workload->name, &from, count);
    fclose(stream);
}

static void run_format(const struct workload *workload, uint16_t port, int64_t count) {
    FILE *stream = stream_to(port, "w");
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        check(fprintf(stream, "%s: %" PRId64 " of %" PRId64 "\n", "progress", i, count), "fprintf");
    }
    check(fflush(stream), "fflush");
    report(workload->name, &from, count);
    fclose(stream);
}

static const struct workload workloads[] = {
    {"pingpong1", 100000, run_pingpong, echo, NULL, 1},
    {"pingpong1-limited", 100000, run_pingpong, echo, NULL, 1},
    {"pingpong64", 100000, run_pingpong, echo, NULL, 64},
    {"connect-send-close", 20000, run_connect, swallow, NULL, 64},
    {"pair-pingpong1", 100000, run_pingpong, echo, NULL, 1},
    {"pair-pingpong64", 100000, run_pingpong, echo, NULL, 64},
    {"pair-connect", 20000, run_connect, swallow, NULL, 64},
    {"read-line-ascii", 2000000, run_read_lines, NULL, "ascii", 0},
    {"read-line-mixed", 1000000, run_read_lines, NULL, "mixed", 0},
    {"write-line-ascii", 2000000, run_write_lines, swallow, "ascii", 0},
    {"write-line-mixed", 1000000, run_write_lines, swallow, "mixed", 0},
    {"read-text-ascii", 100000, run_read_text, NULL, "ascii", 0},
    {"read-text-mixed", 100000, run_read_text, NULL, "mixed", 0},
    {"read-octets", 16384, run_read_octets, NULL, "octets", PIECE},
    {"write-octets", 16384, run_write_octets, swallow, NULL, PIECE},
    {"send-file", 2048, run_send_file, swallow, NULL, FILE_OCTETS},
    {"read-some", 16384, run_read_some, NULL, "octets", PIECE},
    {"format", 1000000, run_format, swallow, NULL, 0},
    {"read-char", 20000000, run_read_one, NULL, "ascii", 0},
    {"read-byte", 20000000, run_read_one, NULL, "ascii", 0},
    {"write-char", 20000000, run_write_one, swallow, NULL, 0},
    {"write-byte", 20000000, run_write_one, swallow, NULL, 0},
    {"event-100", 100000, run_event, NULL, NULL, 100},
    {"event-19000", 100000, run_event, NULL, NULL, 19000},
    {"tls-ping", 100000, run_tls_ping, NULL, NULL, 64},
    {"tls-octets", 4096, run_tls_octets, NULL, NULL, PIECE},
    {"datagram-echo", 100000, run_datagram_echo, swallow, NULL, 64},
    {"datagram-ends", 100000, run_datagram_ends, NULL, NULL, 64},
    {"datagram-single", 100000, run_datagram_single, NULL, NULL, 1200},
    {"datagram-batch-mixed", 100000, run_datagram_batch_mixed, NULL, NULL, 1200},
    {"datagram-batch", 100000, run_datagram_batch, NULL, NULL, 1200},
    {"datagram-batch-joined", 100000, run_datagram_batch_joined, NULL, NULL, 1200},
};

/* Both sides in this process. */
static void run_with_side(const struct workload *workload, int64_t count) {
    uint16_t port;
    struct pattern pattern = pattern_of(workload->serve == NULL ? workload->kind : "octets");
    struct side side = {.connections = 1, .serve = workload->serve, .pattern = &pattern};
    side.listener = listen_somewhere(&port);
    if (workload->run == run_connect) {
        side.connections = count;
    }
    side.octets = INT64_MAX;
    stay_on_one_processor();
    start_other_side(&side);
    workload->run(workload, port, count);
    await_other_side();
    close(side.listener);
    free(pattern.octets);
}

static void run_workload(const struct workload *workload, int64_t count, uint16_t port) {
    if (count <= 0) {
        count = workload->count;
    }
    if (workload->serve == NULL && workload->kind == NULL) {
        stay_on_one_processor();
        workload->run(workload, port, count);
    } else if (port == 0) {
        run_with_side(workload, count);
    } else {
        workload->run(workload, port, count);
    }
}

/* ---- servers, for a client in another process ------------------------------------------------ */

static void serve(struct side *side) {
    uint16_t port;
    side->listener = listen_somewhere(&port);
    printf("%u\n", port);
    if (fflush(stdout) != 0) {
        fail("stdout");
    }
    run_side(side);
    close(side->listener);
}

/* Sends CONNECTIONS clients COUNT octets or lines each; COUNT 0: until they take no more. */
static void serve_pattern(const char *kind, int64_t count, int64_t connections) {
    struct pattern pattern = pattern_of(kind);
    struct side side = {.connections = connections, .pattern = &pattern};
    side.octets = count > 0 ? octets_in(count, &pattern) : INT64_MAX;
    serve(&side);
    free(pattern.octets);
}

static int usage(void) {
    fprintf(stderr, "usage: peer WORKLOAD [COUNT [PORT]]\n"
                    "       peer echo-server [CONNECTIONS]   one after the other, until each ends\n"
                    "       peer sink [CONNECTIONS]          the same, and answers nothing\n"
                    "       peer datagram-echo-server        until it is killed\n"
                    "       peer source COUNT [KIND [CONNECTIONS]]\n"
                    "            octets, or lines: ascii, mixed; COUNT 0: until nobody reads\n"
                    "       peer text KIND                   prints the lines\n"
                    "workloads:");
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++) {
        fprintf(stderr, " %s", workloads[i].name);
    }
    fprintf(stderr, "\n");
    return 2;
}

static int run_server(const char *name, int argc, char **argv) {
    int64_t count = argc > 0 ? strtoll(argv[0], NULL, 10) : 1;
    struct side side = {.connections = count};
    if (strcmp(name, "echo-server") == 0) {
        side.serve = echo;
        serve(&side);
    } else if (strcmp(name, "sink") == 0) {
        side.serve = swallow;
        serve(&side);
    } else if (strcmp(name, "datagram-echo-server") == 0) {
        serve_datagrams();
    } else if (strcmp(name, "source") == 0 && argc > 0) {
        serve_pattern(argc > 1 ? argv[1] : "octets", count,
                      argc > 2 ? strtoll(argv[2], NULL, 10) : 1);
    } else if (strcmp(name, "text") == 0 && argc > 0) {
        print_lines(argv[0]);
    } else {
        return usage();
    }
    return 0;
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++) {
        if (strcmp(name, workloads[i].name) == 0) {
            run_workload(&workloads[i], argc > 2 ? strtoll(argv[2], NULL, 10) : 0,
                         (uint16_t)(argc > 3 ? strtoul(argv[3], NULL, 10) : 0));
            return 0;
        }
    }
    return run_server(name, argc - 2, argv + 2);
}
