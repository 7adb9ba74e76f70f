/* peer - plain C over plain system calls, doing what the benchmarks of port do, for comparison.
 *
 * Stands on the C library alone, blocking calls, one thread for each side. A workload that has both
 * sides runs them on one processor, so that a number does not depend on where the system put them.
 *
 * usage: peer WORKLOAD [COUNT]    runs it and prints one line:
 *            NAME NS CPU BOTH     nanoseconds of one operation by the wall clock, by the processor
 *                                 time of the side that is measured, and by that of both sides
 *        peer SERVER [ARGUMENTS]  prints the port it listens on, serves, ends */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 65536, LINE_CHARACTERS = 80, LINE_MAX_OCTETS = 4 * LINE_CHARACTERS + 1 };

_Noreturn static void fail(const char *what) {
    fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int check(int result, const char *what) {
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

struct stopwatch {
    int64_t wall, own, both;
};

static struct stopwatch start(void) {
    return (struct stopwatch){clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_THREAD_CPUTIME_ID),
                              clock_ns(CLOCK_PROCESS_CPUTIME_ID)};
}

/* Of the side that calls it, since FROM. */
static void report(const char *name, const struct stopwatch *from, int64_t count) {
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

static struct sockaddr_in loopback(uint16_t port) {
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

static int connect_to(uint16_t port) {
    struct sockaddr_in address = loopback(port);
    int fd = check(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    nodelay(fd);
    check(connect(fd, (struct sockaddr *)&address, sizeof address), "connect");
    return fd;
}

static void send_all(int fd, const uint8_t *octets, size_t len) {
    while (len > 0) {
        ssize_t sent = send(fd, octets, len, MSG_NOSIGNAL);
        if (sent < 0) {
            fail("send");
        }
        octets += sent;
        len -= (size_t)sent;
    }
}

static size_t receive_some(int fd, uint8_t *octets, size_t cap) {
    ssize_t received = recv(fd, octets, cap, 0);
    if (received < 0) {
        fail("recv");
    }
    return (size_t)received;
}

/* 0 at the end of the file, else 1 with LEN octets there. */
static int receive_all(int fd, uint8_t *octets, size_t len) {
    while (len > 0) {
        size_t received = receive_some(fd, octets, len);
        if (received == 0) {
            return 0;
        }
        octets += received;
        len -= received;
    }
    return 1;
}

/* ---- what the lines are made of -------------------------------------------------------------- */

/* The octets of LINES lines into TEXT, which has room; how many. Mixed: letters of one to four
 * octets side by side, as in a chat. */
static size_t fill_lines(uint8_t *text, size_t lines, int mixed) {
    static const char *const letters[] = {
        "a", "\303\251", "\316\273", "\320\266", "\346\227\245", "b", "\360\237\230\200", " "};
    size_t len = 0;
    for (size_t line = 0; line < lines; line++) {
        for (size_t i = 0; i < LINE_CHARACTERS; i++) {
            if (mixed) {
                const char *letter = letters[(i + line) % (sizeof letters / sizeof *letters)];
                memcpy(text + len, letter, strlen(letter));
                len += strlen(letter);
            } else {
                text[len++] = (uint8_t)(' ' + (i + line) % 95);
            }
        }
        text[len++] = '\n';
    }
    return len;
}

/* Every octet of a kind of source, again and again. */
struct pattern {
    uint8_t *octets;
    size_t len, lines;
};

static struct pattern pattern_of(const char *kind) {
    struct pattern pattern = {calloc(1, 4 * PIECE), PIECE, 0};
    if (pattern.octets == NULL) {
        fail("calloc");
    }
    if (strcmp(kind, "octets") != 0) {
        pattern.lines = PIECE / LINE_MAX_OCTETS;
        pattern.len = fill_lines(pattern.octets, pattern.lines, strcmp(kind, "mixed") == 0);
    }
    return pattern;
}

/* How many octets COUNT octets or lines are: every line of a kind is as long as the others. */
static int64_t octets_in(int64_t count, const struct pattern *pattern) {
    return pattern->lines == 0 ? count : count * (int64_t)(pattern->len / pattern->lines);
}

static void send_pattern(int fd, const struct pattern *pattern, int64_t octets) {
    while (octets > 0) {
        size_t len = octets < (int64_t)pattern->len ? (size_t)octets : pattern->len;
        send_all(fd, pattern->octets, len);
        octets -= (int64_t)len;
    }
}

/* A validating decoder, one octet at a time, of a whole line; how many characters. */
static size_t decode_utf8(const uint8_t *octets, size_t len, uint32_t *chars) {
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    size_t produced = 0;
    for (size_t i = 0; i < len;) {
        uint32_t c = octets[i++];
        int more = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (more > 0) {
            uint32_t first = c;
            c &= 0x3fU >> more;
            for (int k = 0; k < more; k++) {
                if (i == len || (octets[i] & 0xc0) != 0x80) {
                    return produced;
                }
                c = c << 6 | (octets[i++] & 0x3fU);
            }
            if (first < 0xc2 || first > 0xf4 || c < least[more] || c > 0x10ffff ||
                (c >= 0xd800 && c < 0xe000)) {
                return produced;
            }
        }
        chars[produced++] = c;
    }
    return produced;
}

/* ---- the other side of each workload, on a thread or in a process of its own ------------------
 */

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

/* ---- workloads ------------------------------------------------------------------------------- */

struct workload {
    const char *name;
    int64_t count; /* of operations, unless the caller says otherwise */
    void (*run)(const struct workload *workload, uint16_t port, int64_t count);
    void (*serve)(int fd); /* the other side, as in struct side */
    const char *source;    /* or the kind of pattern it sends */
    size_t size;           /* octets of an operation, where they are fixed */
};

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
    report(workload->name, &from, count);
}

static void run_bulk_send(const struct workload *workload, uint16_t port, int64_t count) {
    struct pattern pattern = pattern_of("octets");
    uint8_t end;
    int fd = connect_to(port);
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        send_all(fd, pattern.octets, workload->size);
    }
    check(shutdown(fd, SHUT_WR), "shutdown");
    (void)receive_all(fd, &end, 1); /* until the other side has it all */
    report(workload->name, &from, count);
    close(fd);
    free(pattern.octets);
}

static void run_bulk_receive(const struct workload *workload, uint16_t port, int64_t count) {
    static uint8_t octets[PIECE];
    int64_t total = 0;
    size_t len;
    int fd = connect_to(port);
    struct stopwatch from = start();
    while ((len = receive_some(fd, octets, sizeof octets)) > 0) {
        total += (int64_t)len;
    }
    report(workload->name, &from, count);
    if (total != count * (int64_t)workload->size) {
        fail("octets are missing");
    }
    close(fd);
}

/* The lines in LEN octets at BUFFER, decoded one by one; what is left over moves to the front. */
static size_t take_lines(uint8_t *buffer, size_t len, int64_t *lines, int64_t *characters) {
    static uint32_t chars[LINE_MAX_OCTETS];
    uint8_t *from = buffer;
    uint8_t *end;
    while ((end = memchr(from, '\n', (size_t)(buffer + len - from))) != NULL) {
        *characters += (int64_t)decode_utf8(from, (size_t)(end - from), chars);
        ++*lines;
        from = end + 1;
    }
    len -= (size_t)(from - buffer);
    memmove(buffer, from, len);
    return len;
}

static void run_lines(const struct workload *workload, uint16_t port, int64_t count) {
    static uint8_t buffer[PIECE + LINE_MAX_OCTETS];
    int64_t lines = 0;
    int64_t characters = 0;
    size_t kept = 0;
    size_t len;
    int fd = connect_to(port);
    struct stopwatch from = start();
    while ((len = receive_some(fd, buffer + kept, PIECE)) > 0) {
        kept = take_lines(buffer, kept + len, &lines, &characters);
    }
    report(workload->name, &from, count);
    if (lines != count || characters != lines * LINE_CHARACTERS) {
        fail("lines are missing");
    }
    close(fd);
}

static const struct workload workloads[] = {
    {"pingpong1", 100000, run_pingpong, echo, NULL, 1},
    {"pingpong64", 100000, run_pingpong, echo, NULL, 64},
    {"connect-send-close", 20000, run_connect, swallow, NULL, 64},
    {"bulk-send", 16384, run_bulk_send, swallow, NULL, PIECE},
    {"bulk-receive", 16384, run_bulk_receive, NULL, "octets", PIECE},
    {"lines-ascii", 2000000, run_lines, NULL, "ascii", 0},
    {"lines-mixed", 1000000, run_lines, NULL, "mixed", 0},
};

static void run_workload(const struct workload *workload, int64_t count) {
    uint16_t port;
    pthread_t thread;
    struct pattern pattern = pattern_of(workload->source == NULL ? "octets" : workload->source);
    struct side side = {.connections = 1, .serve = workload->serve, .pattern = &pattern};
    side.listener = listen_somewhere(&port);
    if (workload->run == run_connect) {
        side.connections = count;
    }
    side.octets = octets_in(count * (int64_t)(workload->size == 0 ? 1 : workload->size), &pattern);
    stay_on_one_processor();
    if (pthread_create(&thread, NULL, run_side, &side) != 0) {
        fail("pthread_create");
    }
    workload->run(workload, port, count);
    pthread_join(thread, NULL);
    close(side.listener);
    free(pattern.octets);
}

/* ---- servers, for a client in another process --------------------------------------------------
 */

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

/* Sends one client COUNT octets or lines. */
static void serve_pattern(const char *kind, int64_t count) {
    struct pattern pattern = pattern_of(kind);
    struct side side = {.connections = 1, .pattern = &pattern};
    side.octets = octets_in(count, &pattern);
    serve(&side);
    free(pattern.octets);
}

static int usage(void) {
    fprintf(stderr, "usage: peer WORKLOAD [COUNT]\n"
                    "       peer echo-server [CONNECTIONS]   one after the other, until each ends\n"
                    "       peer sink [CONNECTIONS]          the same, and answers nothing\n"
                    "       peer source COUNT [KIND]         octets, or lines: ascii, mixed\n"
                    "workloads:");
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++) {
        fprintf(stderr, " %s", workloads[i].name);
    }
    fprintf(stderr, "\n");
    return 2;
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    int64_t count = argc > 2 ? strtoll(argv[2], NULL, 10) : 0;
    struct side side = {.connections = count > 0 ? count : 1};
    for (size_t i = 0; i < sizeof workloads / sizeof *workloads; i++) {
        if (strcmp(name, workloads[i].name) == 0) {
            run_workload(&workloads[i], count > 0 ? count : workloads[i].count);
            return 0;
        }
    }
    if (strcmp(name, "echo-server") == 0) {
        side.serve = echo;
        serve(&side);
    } else if (strcmp(name, "sink") == 0) {
        side.serve = swallow;
        serve(&side);
    } else if (strcmp(name, "source") == 0 && count > 0) {
        serve_pattern(argc > 3 ? argv[3] : "octets", count);
    } else {
        return usage();
    }
    return 0;
}
