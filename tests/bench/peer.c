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
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    PIECE = 65536,
    FILE_OCTETS = 1 << 20,
    LINE_CHARACTERS = 80,
    LINE_MAX_OCTETS = 4 * LINE_CHARACTERS + 1,
    LINES = 800 /* different ones, more than a branch predictor learns by heart */
};

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

static int connect_to(uint16_t port) {
    struct sockaddr_in address = loopback(port);
    int fd = check(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    nodelay(fd);
    check(connect(fd, (struct sockaddr *)&address, sizeof address), "connect");
    return fd;
}

/* False (0) when the other side takes no more. */
static int try_to_send(int fd, const uint8_t *octets, size_t len) {
    while (len > 0) {
        ssize_t sent = send(fd, octets, len, MSG_NOSIGNAL);
        if (sent < 0) {
            return 0;
        }
        octets += sent;
        len -= (size_t)sent;
    }
    return 1;
}

static void send_all(int fd, const uint8_t *octets, size_t len) {
    if (!try_to_send(fd, octets, len)) {
        fail("send");
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

/* A character of WIDTH octets, the I-th of its kind. */
static uint32_t letter(uint32_t width, uint32_t i) {
    static const uint32_t first[] = {0, 'a', 0x3b1, 0x4e00, 0x1f600};
    return first[width] + i % 24;
}

/* The next of a fixed sequence of numbers that looks random. */
static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525 + 1013904223;
    return *state >> 16;
}

/* A line of LINE_CHARACTERS: printable ASCII; or MIXED, runs of 1 to 8 characters of 1 to 4 octets.
 */
static void make_line(uint32_t *chars, bool mixed, uint32_t *state) {
    uint32_t left = 0;
    uint32_t width = 1;
    for (size_t i = 0; i < LINE_CHARACTERS; i++) {
        uint32_t random = next_random(state);
        if (left == 0) {
            left = 1 + random % 8;
            width = 1 + random / 8 % 4;
        }
        left--;
        chars[i] = mixed ? letter(width, random / 32) : ' ' + random % 95;
    }
}

static uint8_t *encode_one(uint32_t c, uint8_t *to) {
    if (c < 0x80) {
        *to++ = (uint8_t)c;
    } else if (c < 0x800) {
        *to++ = (uint8_t)(0xc0 | c >> 6);
        *to++ = (uint8_t)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *to++ = (uint8_t)(0xe0 | c >> 12);
        *to++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *to++ = (uint8_t)(0x80 | (c & 0x3f));
    } else {
        *to++ = (uint8_t)(0xf0 | c >> 18);
        *to++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        *to++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *to++ = (uint8_t)(0x80 | (c & 0x3f));
    }
    return to;
}

/* LEN characters as UTF-8, eight at once where all are ASCII; how many octets. */
static size_t encode_utf8(const uint32_t *chars, size_t len, uint8_t *octets) {
    uint8_t *to = octets;
    for (size_t i = 0; i < len;) {
        uint32_t all = 0x80;
        if (len - i >= 8) {
            all = 0;
            for (size_t k = 0; k < 8; k++) {
                all |= chars[i + k];
            }
        }
        if (all < 0x80) {
            for (size_t k = 0; k < 8; k++) {
                to[k] = (uint8_t)chars[i + k];
            }
            to += 8;
            i += 8;
        } else {
            to = encode_one(chars[i++], to);
        }
    }
    return (size_t)(to - octets);
}

/* One character that is not ASCII, validated; its octets, 0 where it is none or is cut off. */
static size_t decode_one(const uint8_t *octets, size_t len, uint32_t *character) {
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    uint32_t first = octets[0];
    size_t more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    uint32_t c = first & 0x3fU >> more;
    if (first < 0xc2 || first > 0xf4 || len <= more) {
        return 0;
    }
    for (size_t k = 1; k <= more; k++) {
        if ((octets[k] & 0xc0) != 0x80) {
            return 0;
        }
        c = c << 6 | (octets[k] & 0x3fU);
    }
    *character = c;
    return c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : more + 1;
}

/* A validating decoder, eight octets at once where all are ASCII; how many of OCTETS it has taken,
 * and in PRODUCED how many characters they are. */
static size_t decode_utf8(const uint8_t *octets, size_t len, uint32_t *chars, size_t *produced) {
    uint32_t *to = chars;
    size_t i = 0;
    while (i < len) {
        uint64_t eight = UINT64_MAX;
        if (len - i >= 8) {
            memcpy(&eight, octets + i, 8);
        }
        if ((eight & 0x8080808080808080U) == 0) {
            for (size_t k = 0; k < 8; k++) {
                to[k] = octets[i + k];
            }
            to += 8;
            i += 8;
        } else if (octets[i] < 0x80) {
            *to++ = octets[i++];
        } else {
            size_t width = decode_one(octets + i, len - i, to);
            if (width == 0) {
                break;
            }
            to++;
            i += width;
        }
    }
    *produced = (size_t)(to - chars);
    return i;
}

/* Octets that are sent again and again; for the kinds of text, LINES lines. */
struct pattern {
    uint8_t *octets;
    size_t len;
    int lines;
};

static struct pattern pattern_of(const char *kind) {
    struct pattern pattern = {calloc(LINES, LINE_MAX_OCTETS), PIECE, strcmp(kind, "octets") != 0};
    uint32_t state = 1;
    if (pattern.octets == NULL) {
        fail("calloc");
    }
    if (pattern.lines) {
        pattern.len = 0;
        for (size_t i = 0; i < LINES; i++) {
            uint32_t chars[LINE_CHARACTERS + 1];
            make_line(chars, strcmp(kind, "mixed") == 0, &state);
            chars[LINE_CHARACTERS] = '\n';
            pattern.len += encode_utf8(chars, LINE_CHARACTERS + 1, pattern.octets + pattern.len);
        }
    }
    return pattern;
}

/* How many octets COUNT octets or lines are. */
static int64_t octets_in(int64_t count, const struct pattern *pattern) {
    const uint8_t *at = pattern->octets;
    if (!pattern->lines) {
        return count;
    }
    for (int64_t i = 0; i < count % LINES; i++) {
        at = (const uint8_t *)memchr(at, '\n', LINE_MAX_OCTETS) + 1;
    }
    return count / LINES * (int64_t)pattern->len + (at - pattern->octets);
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
    int runs;
} other_side;

static void start_other_side(struct side *side) {
    if (pthread_create(&other_side.thread, NULL, run_side, side) != 0) {
        fail("pthread_create");
    }
    other_side.runs = 1;
}

/* Until it has served all its connections. */
static void await_other_side(void) {
    if (other_side.runs) {
        pthread_join(other_side.thread, NULL);
        other_side.runs = 0;
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

/* The lines in LEN octets at BUFFER, decoded one by one; what is left over moves to the front. */
static size_t take_lines(uint8_t *buffer, size_t len, int64_t *lines) {
    static uint32_t chars[LINE_MAX_OCTETS];
    uint8_t *from = buffer;
    uint8_t *end;
    while ((end = memchr(from, '\n', (size_t)(buffer + len - from))) != NULL) {
        size_t produced;
        (void)decode_utf8(from, (size_t)(end - from), chars, &produced);
        if (produced != LINE_CHARACTERS) {
            fail("characters are missing");
        }
        ++*lines;
        from = end + 1;
    }
    len -= (size_t)(from - buffer);
    memmove(buffer, from, len);
    return len;
}

static void run_read_lines(const struct workload *workload, uint16_t port, int64_t count) {
    static uint8_t buffer[PIECE + LINE_MAX_OCTETS];
    int64_t lines = 0;
    size_t kept = 0;
    int fd = connect_to(port);
    struct stopwatch from = start();
    while (lines < count) {
        size_t len = receive_some(fd, buffer + kept, PIECE);
        if (len == 0) {
            fail("lines are missing");
        }
        kept = take_lines(buffer, kept + len, &lines);
    }
    report(workload->name, &from, lines);
    close(fd);
}

/* Characters by the thousand; an operation is a thousand. */
static void run_read_text(const struct workload *workload, uint16_t port, int64_t count) {
    static uint8_t buffer[PIECE + 4];
    static uint32_t chars[PIECE + 4];
    int64_t characters = 0;
    size_t kept = 0;
    int fd = connect_to(port);
    struct stopwatch from = start();
    while (characters < count * 1000) {
        size_t produced;
        size_t len = kept + receive_some(fd, buffer + kept, PIECE);
        size_t taken = decode_utf8(buffer, len, chars, &produced);
        if (produced == 0) {
            fail("characters are missing");
        }
        characters += (int64_t)produced;
        kept = len - taken;
        memmove(buffer, buffer + taken, kept);
    }
    report(workload->name, &from, characters / 1000);
    close(fd);
}

/* The lines of a pattern as characters, each of LINE_CHARACTERS. */
static uint32_t *characters_of(const char *kind) {
    struct pattern pattern = pattern_of(kind);
    uint32_t *chars = calloc(LINES * (LINE_CHARACTERS + 1), sizeof *chars);
    size_t produced;
    if (chars == NULL) {
        fail("calloc");
    }
    (void)decode_utf8(pattern.octets, pattern.len, chars, &produced);
    free(pattern.octets);
    return chars;
}

static void run_write_lines(const struct workload *workload, uint16_t port, int64_t count) {
    static uint8_t buffer[PIECE];
    uint32_t *chars = characters_of(workload->kind);
    size_t len = 0;
    int fd = connect_to(port);
    struct stopwatch from = start();
    for (int64_t i = 0; i < count; i++) {
        if (len + LINE_MAX_OCTETS > sizeof buffer) {
            send_all(fd, buffer, len);
            len = 0;
        }
        len +=
            encode_utf8(chars + i % LINES * (LINE_CHARACTERS + 1), LINE_CHARACTERS, buffer + len);
        buffer[len++] = '\n';
    }
    send_all(fd, buffer, len);
    report(workload->name, &from, count);
    close(fd);
    free(chars);
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

/* ---- readiness: many local sockets in one epoll, both ends of each pair ---------------------- */

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
static void run_event(const struct workload *workload, uint16_t port, int64_t count) {
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

static void print_lines(const char *kind) {
    struct pattern pattern = pattern_of(kind);
    if (fwrite(pattern.octets, 1, pattern.len, stdout) != pattern.len || fflush(stdout) != 0) {
        fail("stdout");
    }
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
