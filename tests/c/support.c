/* support - see support.h. Everything that may fail an assertion is for the test's own thread. */
#include "support.h"

#include "address.h"
#include "os.h"
#include "socket.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- counts ---------------------------------------------------------------------------------- */

void each_descriptor(void (*visit)(int fd, const char *what, void *data), void *data) {
    DIR *directory = opendir("/proc/self/fd");
    cr_assert_not_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char what[256];
        int fd = atoi(entry->d_name);
        ssize_t len = readlinkat(dirfd(directory), entry->d_name, what, sizeof what - 1);
        if (entry->d_name[0] == '.' || len < 0 || fd == dirfd(directory)) {
            continue;
        }
        what[len] = '\0';
        visit(fd, what, data);
    }
    closedir(directory);
}

static void count_descriptor(int fd, const char *what, void *data) {
    (void)fd;
    if (strcmp(what, "anon_inode:[eventfd]") != 0) {
        ++*(int *)data;
    }
}

struct counts counts_now(void) {
    struct counts counts = {.sockets = lport_socket_count(), .waits = lport_wait_count()};
    each_descriptor(count_descriptor, &counts.descriptors);
    return counts;
}

void counts_assert_same(struct counts before) {
    faults_clear();
    struct counts after = counts_now();
    cr_assert_eq(after.descriptors, before.descriptors, "%d descriptors, %d before",
                 after.descriptors, before.descriptors);
    cr_assert_eq(after.sockets, before.sockets, "%lld sockets, %lld before",
                 (long long)after.sockets, (long long)before.sockets);
    cr_assert_eq(after.waits, before.waits, "%lld waits, %lld before", (long long)after.waits,
                 (long long)before.waits);
}

const char *kind_text(int32_t kind) {
    const char *name = lport_kind_name(kind);
    return name != NULL ? name : "a result";
}

/* ---- ends ------------------------------------------------------------------------------------ */

int64_t soon(void) {
    return lport_clock_after(INT64_C(8000000000));
}

void loopback(int32_t family, int32_t port, uint8_t *address) {
    const char *text = family == LPORT_INET6 ? "::1" : "127.0.0.1";
    cr_assert_gt(lport_address_parse(text, strlen(text), port, address), 0);
}

static int64_t listen_on_abstract(uint8_t *address) {
    static int last;
    char name[64];
    int len = snprintf(name, sizeof name, "@port-test-%d-%d", (int)getpid(), ++last);
    cr_assert_gt(lport_address_local(name, (size_t)len, address), 0);
    return lport_local_listen(address, LPORT_STREAM, -1, -1, 0);
}

int64_t listen_on_loopback(int32_t family, uint8_t *address) {
    uint8_t any[LPORT_ADDRESS_SIZE] = {LPORT_ANY};
    int64_t listener;
    if (family == LPORT_LOCAL) {
        listener = listen_on_abstract(address);
        cr_assert_gt(listener, 0);
        return listener;
    }
    if (family != LPORT_ANY) {
        loopback(family, 0, any);
    }
    listener = lport_socket_listen(any, -1, LPORT_REUSE_ADDRESS);
    cr_assert_gt(listener, 0, "cannot listen: %lld", (long long)listener);
    cr_assert_gt(lport_socket_name(listener, any), 0);
    loopback(family, lport_address_port(any), address);
    return listener;
}

/* Waits for the connect of SOCKET that returned STATUS. */
static int64_t finish_connect(int64_t socket, int64_t status) {
    while (lport_status_kind(status) == LPORT_IN_PROGRESS) {
        int64_t ready = wait_for(socket, LPORT_OUTPUT, soon());
        if (ready < 0) {
            return ready;
        }
        status = lport_socket_connect_finish(socket);
    }
    return status;
}

int64_t connect_to(const uint8_t *address) {
    int64_t socket = lport_socket_open(address[LPORT_AT_FAMILY], LPORT_STREAM, 0);
    if (socket < 0) {
        return socket;
    }
    int64_t status = finish_connect(socket, lport_socket_connect_start(socket, address));
    if (status < 0) {
        lport_socket_close(socket, 0);
        return status;
    }
    return socket;
}

void make_connection(int32_t family, int64_t ends[2]) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t listener = listen_on_loopback(family, address);
    ends[0] = connect_to(address);
    cr_assert_gt(ends[0], 0, "cannot connect: %lld", (long long)ends[0]);
    ends[1] = accept_one(listener, soon());
    cr_assert_gt(ends[1], 0, "cannot accept: %lld", (long long)ends[1]);
    cr_assert_eq(lport_socket_close(listener, 0), 0);
}

void make_datagram_ends(int64_t ends[2]) {
    uint8_t names[2][LPORT_ADDRESS_SIZE];
    for (int i = 0; i < 2; i++) {
        ends[i] = lport_socket_open(LPORT_INET, LPORT_DATAGRAM, 0);
        loopback(LPORT_INET, 0, names[i]);
        cr_assert_eq(lport_socket_bind(ends[i], names[i]), 0);
        cr_assert_eq(lport_socket_name(ends[i], names[i]), LPORT_INET);
    }
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(lport_socket_connect_start(ends[i], names[1 - i]), 0);
    }
}

void close_both(const int64_t ends[2]) {
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(lport_socket_close(ends[i], 0), 0);
    }
}

/* ---- operations that wait -------------------------------------------------------------------- */

int64_t wait_for(int64_t socket, int32_t interest, int64_t deadline) {
    int64_t wait = lport_wait_begin(socket, interest);
    if (wait < 0) {
        return wait;
    }
    int64_t ready = lport_wait_poll(wait, deadline, 0);
    lport_wait_end(wait);
    return ready;
}

int64_t receive_some(int64_t socket, uint8_t *octets, size_t len, int64_t deadline) {
    for (;;) {
        int64_t count = lport_socket_receive(socket, octets, len, 0);
        if (lport_status_kind(count) != LPORT_WOULD_BLOCK) {
            return count;
        }
        int64_t ready = wait_for(socket, LPORT_INPUT, deadline);
        if (ready < 0) {
            return ready;
        }
    }
}

int64_t send_some(int64_t socket, const uint8_t *octets, size_t len, int64_t deadline) {
    for (;;) {
        int64_t count = lport_socket_send(socket, octets, len);
        if (lport_status_kind(count) != LPORT_WOULD_BLOCK) {
            return count;
        }
        int64_t ready = wait_for(socket, LPORT_OUTPUT, deadline);
        if (ready < 0) {
            return ready;
        }
    }
}

int64_t accept_one(int64_t listener, int64_t deadline) {
    for (;;) {
        int64_t socket = lport_socket_accept(listener, NULL);
        if (lport_status_kind(socket) != LPORT_WOULD_BLOCK) {
            return socket;
        }
        int64_t ready = wait_for(listener, LPORT_INPUT, deadline);
        if (ready < 0) {
            return ready;
        }
    }
}

int64_t receive_all(int64_t socket, uint8_t *octets, size_t len, int64_t deadline) {
    size_t done = 0;
    while (done < len) {
        int64_t count = receive_some(socket, octets + done, len - done, deadline);
        if (count < 0) {
            return count;
        }
        if (count == 0) {
            break;
        }
        done += (size_t)count;
    }
    return (int64_t)done;
}

int64_t send_all(int64_t socket, const uint8_t *octets, size_t len, int64_t deadline) {
    size_t done = 0;
    while (done < len) {
        int64_t count = send_some(socket, octets + done, len - done, deadline);
        if (count < 0) {
            return count;
        }
        done += (size_t)count;
    }
    return (int64_t)done;
}

int64_t clog_up(int64_t socket) {
    static const uint8_t octets[65536];
    int64_t count;
    do {
        count = lport_socket_send(socket, octets, sizeof octets);
    } while (count > 0);
    return count;
}

/* One step of SplitMix64: any number becomes one that looks random. */
static uint64_t scramble(uint64_t number) {
    number += UINT64_C(0x9e3779b97f4a7c15);
    number = (number ^ number >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    number = (number ^ number >> 27) * UINT64_C(0x94d049bb133111eb);
    return number ^ number >> 31;
}

void fill(uint8_t *octets, size_t len, uint64_t seed) {
    for (size_t i = 0; i < len; i++) {
        octets[i] = (uint8_t)(scramble(seed * 0x10001 + i / 8) >> i % 8 * 8);
    }
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *run_task(void *data) {
    struct task *task = data;
    atomic_store(&task->id, (pid_t)syscall(SYS_gettid));
    task->result = task->run(task->data);
    return NULL;
}

void task_start(struct task *task, int64_t (*run)(void *data), void *data) {
    atomic_store(&task->id, 0);
    task->run = run;
    task->data = data;
    task->result = 0;
    cr_assert_eq(pthread_create(&task->thread, NULL, run_task, task), 0);
}

int64_t task_join(struct task *task) {
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 9;
    cr_assert_eq(pthread_timedjoin_np(task->thread, NULL, &limit), 0, "a thread does not end");
    return task->result;
}

static int is_asleep(pid_t id) {
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)id);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return 0;
    }
    char *read = fgets(line, sizeof line, file);
    fclose(file);
    char *name_end = read == NULL ? NULL : strrchr(line, ')');
    return name_end != NULL && name_end[1] == ' ' && name_end[2] == 'S';
}

void task_until_asleep(struct task *task, int64_t count) {
    int64_t limit = soon();
    while (lport_wait_count() < count || !is_asleep(atomic_load(&task->id))) {
        cr_assert_lt(lport_clock_now(), limit, "a thread does not come to wait");
        sched_yield();
    }
}

int in_child(int (*run)(void *data), void *data) {
    int status = 0;
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        _exit(run(data));
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- faults ---------------------------------------------------------------------------------- */

static struct {
    int watching;
    struct lport_os real;
    _Atomic int64_t calls[CALL_END];
    int64_t first[CALL_END], last[CALL_END]; /* calls that fail, by number */
    int error[CALL_END];
    size_t cut; /* 0: nothing is */
    uint64_t seed;
    int percent;
    _Atomic int64_t struck;
} faults;

static int strike(int error) {
    atomic_fetch_add(&faults.struck, 1);
    errno = error;
    return 1;
}

/* What a disturbed CALL may fail with; 0: nothing. */
static int disturbance(enum call call, uint64_t draw) {
    switch (call) {
    case CALL_RECV:
    case CALL_RECVFROM:
    case CALL_RECVMSG:
    case CALL_SEND:
    case CALL_SENDTO:
    case CALL_SENDMSG:
    case CALL_RECVMMSG:
    case CALL_SENDMMSG:
    case CALL_SENDFILE:
    case CALL_ACCEPT4:
        return draw % 2 == 0 ? EINTR : EAGAIN;
    case CALL_PPOLL:
    case CALL_EPOLL_WAIT:
    case CALL_READ:
    case CALL_WRITE:
    case CALL_PREAD:
        return EINTR;
    default:
        return 0;
    }
}

/* Counts a CALL: true, with errno, if it is to fail. */
static int fails(enum call call) {
    int64_t all = atomic_fetch_add(&faults.calls[CALL_ANY], 1) + 1;
    int64_t own = atomic_fetch_add(&faults.calls[call], 1) + 1;
    if (own >= faults.first[call] && own <= faults.last[call]) {
        return strike(faults.error[call]);
    }
    if (all >= faults.first[CALL_ANY] && all <= faults.last[CALL_ANY]) {
        return strike(call == CALL_CALLOC ? ENOMEM : faults.error[CALL_ANY]);
    }
    uint64_t draw = scramble(faults.seed + (uint64_t)all);
    int error = disturbance(call, draw >> 32);
    return error != 0 && (int)(draw % 100) < faults.percent && strike(error);
}

static size_t cut(size_t len) {
    return faults.cut != 0 && len > faults.cut ? faults.cut : len;
}

#define WRAP(type, name, call, failure, parameters, ...)                                           \
    static type faulty_##name parameters {                                                         \
        return fails(call) ? (failure) : faults.real.name(__VA_ARGS__);                            \
    }

WRAP(int, socket, CALL_SOCKET, -1, (int domain, int type, int protocol), domain, type, protocol)
WRAP(int, socketpair, CALL_SOCKETPAIR, -1, (int domain, int type, int protocol, int fds[2]), domain,
     type, protocol, fds)
WRAP(int, bind, CALL_BIND, -1, (int fd, const struct sockaddr *address, socklen_t len), fd, address,
     len)
WRAP(int, listen, CALL_LISTEN, -1, (int fd, int backlog), fd, backlog)
WRAP(int, accept4, CALL_ACCEPT4, -1, (int fd, struct sockaddr *address, socklen_t *len, int flags),
     fd, address, len, flags)
WRAP(int, connect, CALL_CONNECT, -1, (int fd, const struct sockaddr *address, socklen_t len), fd,
     address, len)
WRAP(int, shutdown, CALL_SHUTDOWN, -1, (int fd, int how), fd, how)
WRAP(int, getsockname, CALL_GETSOCKNAME, -1, (int fd, struct sockaddr *address, socklen_t *len), fd,
     address, len)
WRAP(int, getpeername, CALL_GETPEERNAME, -1, (int fd, struct sockaddr *address, socklen_t *len), fd,
     address, len)
WRAP(int, getsockopt, CALL_GETSOCKOPT, -1,
     (int fd, int level, int name, void *value, socklen_t *len), fd, level, name, value, len)
WRAP(int, setsockopt, CALL_SETSOCKOPT, -1,
     (int fd, int level, int name, const void *value, socklen_t len), fd, level, name, value, len)
WRAP(ssize_t, recv, CALL_RECV, -1, (int fd, void *octets, size_t len, int flags), fd, octets,
     cut(len), flags)
WRAP(ssize_t, send, CALL_SEND, -1, (int fd, const void *octets, size_t len, int flags), fd, octets,
     cut(len), flags)
WRAP(ssize_t, recvfrom, CALL_RECVFROM, -1,
     (int fd, void *octets, size_t len, int flags, struct sockaddr *address, socklen_t *size), fd,
     octets, cut(len), flags, address, size)
WRAP(ssize_t, recvmsg, CALL_RECVMSG, -1, (int fd, struct msghdr *message, int flags), fd, message,
     flags)
WRAP(int, recvmmsg, CALL_RECVMMSG, -1,
     (int fd, struct mmsghdr *messages, unsigned int count, int flags), fd, messages, count, flags)
WRAP(int, sendmmsg, CALL_SENDMMSG, -1,
     (int fd, struct mmsghdr *messages, unsigned int count, int flags), fd, messages, count, flags)
WRAP(ssize_t, sendto, CALL_SENDTO, -1,
     (int fd, const void *octets, size_t len, int flags, const struct sockaddr *address,
      socklen_t size),
     fd, octets, cut(len), flags, address, size)
WRAP(int, ppoll, CALL_PPOLL, -1,
     (struct pollfd * fds, nfds_t count, const struct timespec *timeout), fds, count, timeout)
#ifdef __linux__
WRAP(ssize_t, sendfile, CALL_SENDFILE, -1, (int fd, int file, off_t *offset, size_t len), fd, file,
     offset, cut(len))
WRAP(int, epoll_create1, CALL_EPOLL_CREATE1, -1, (int flags), flags)
WRAP(int, epoll_ctl, CALL_EPOLL_CTL, -1,
     (int epoll, int operation, int fd, struct epoll_event *event), epoll, operation, fd, event)
WRAP(int, epoll_wait, CALL_EPOLL_WAIT, -1,
     (int epoll, struct epoll_event *events, int cap, int timeout_ms), epoll, events, cap,
     timeout_ms)
#endif
WRAP(int, eventfd, CALL_EVENTFD, -1, (unsigned int value, int flags), value, flags)
WRAP(ssize_t, read, CALL_READ, -1, (int fd, void *octets, size_t len), fd, octets, len)
WRAP(ssize_t, write, CALL_WRITE, -1, (int fd, const void *octets, size_t len), fd, octets, len)
WRAP(ssize_t, pread, CALL_PREAD, -1, (int fd, void *octets, size_t len, off_t offset), fd, octets,
     len, offset)
WRAP(int, lstat, CALL_LSTAT, -1, (const char *path, struct stat *status), path, status)
WRAP(int, unlink, CALL_UNLINK, -1, (const char *path), path)
WRAP(int, chmod, CALL_CHMOD, -1, (const char *path, mode_t mode), path, mode)
WRAP(int, fchmod, CALL_FCHMOD, -1, (int fd, mode_t mode), fd, mode)
WRAP(int, fcntl, CALL_FCNTL, -1, (int fd, int command, int argument), fd, command, argument)
WRAP(int, ioctl, CALL_IOCTL, -1, (int fd, unsigned long request, void *argument), fd, request,
     argument)
WRAP(int, getifaddrs, CALL_GETIFADDRS, -1, (struct ifaddrs * *list), list)
WRAP(int, gethostname, CALL_GETHOSTNAME, -1, (char *name, size_t len), name, len)
WRAP(void *, calloc, CALL_CALLOC, NULL, (size_t count, size_t size), count, size)

/* Only the first piece that is not empty, where octets are cut. */
static ssize_t faulty_sendmsg(int fd, const struct msghdr *message, int flags) {
    struct msghdr shorter = *message;
    struct iovec piece;
    if (fails(CALL_SENDMSG)) {
        return -1;
    }
    for (size_t i = 0; faults.cut != 0 && i < message->msg_iovlen; i++) {
        piece = message->msg_iov[i];
        if (piece.iov_len > 0) {
            piece.iov_len = cut(piece.iov_len);
            shorter.msg_iov = &piece;
            shorter.msg_iovlen = 1;
            break;
        }
    }
    return faults.real.sendmsg(fd, &shorter, flags);
}

static int faulty_close(int fd) {
    int failed = fails(CALL_CLOSE);
    int error = errno;
    int result = faults.real.close(fd);
    if (failed) {
        errno = error;
        return -1;
    }
    return result;
}

void faults_watch(void) {
    if (faults.watching) {
        return;
    }
    faults.watching = 1;
    faults.real = lport_os;
    lport_os = (struct lport_os){
        .socket = faulty_socket,
        .socketpair = faulty_socketpair,
        .bind = faulty_bind,
        .listen = faulty_listen,
        .accept4 = faulty_accept4,
        .connect = faulty_connect,
        .shutdown = faulty_shutdown,
        .getsockname = faulty_getsockname,
        .getpeername = faulty_getpeername,
        .getsockopt = faulty_getsockopt,
        .setsockopt = faulty_setsockopt,
        .recv = faulty_recv,
        .send = faulty_send,
        .recvfrom = faulty_recvfrom,
        .recvmsg = faulty_recvmsg,
        .sendto = faulty_sendto,
        .sendmsg = faulty_sendmsg,
        .recvmmsg = faulty_recvmmsg,
        .sendmmsg = faulty_sendmmsg,
#ifdef __linux__
        .sendfile = faulty_sendfile,
#endif
        .close = faulty_close,
        .ppoll = faulty_ppoll,
#ifdef __linux__
        .epoll_create1 = faulty_epoll_create1,
        .epoll_ctl = faulty_epoll_ctl,
        .epoll_wait = faulty_epoll_wait,
#endif
        .eventfd = faulty_eventfd,
        .read = faulty_read,
        .write = faulty_write,
        .pread = faulty_pread,
        .lstat = faulty_lstat,
        .unlink = faulty_unlink,
        .chmod = faulty_chmod,
        .fchmod = faulty_fchmod,
        .fcntl = faulty_fcntl,
        .ioctl = faulty_ioctl,
        .getifaddrs = faulty_getifaddrs,
        .gethostname = faulty_gethostname,
        .calloc = faulty_calloc,
    };
}

void faults_fail(enum call call, int64_t first, int64_t count, int error) {
    faults_watch();
    int64_t now = atomic_load(&faults.calls[call]);
    faults.first[call] = now + first;
    faults.last[call] = count > INT64_MAX - now - first ? INT64_MAX : now + first + count - 1;
    faults.error[call] = error;
}

void faults_cut(size_t len) {
    faults_watch();
    faults.cut = len;
}

void faults_disturb(uint64_t seed, int percent) {
    faults_watch();
    faults.seed = seed;
    faults.percent = percent;
}

uint64_t faults_seed(void) {
    const char *given = getenv("PORT_TEST_SEED");
    return given != NULL ? strtoull(given, NULL, 0) : scramble((uint64_t)lport_clock_now()) >> 16;
}

int64_t faults_calls(enum call call) {
    return atomic_load(&faults.calls[call]);
}

int64_t faults_struck(void) {
    return atomic_load(&faults.struck);
}

void faults_clear(void) {
    if (faults.watching) {
        lport_os = faults.real;
    }
    memset(&faults, 0, sizeof faults);
}

enum { CALLS_LIMIT = 100 };

void fail_every_call(int64_t (*make)(void *data), void (*after)(void *data, int64_t result),
                     void *data) {
    struct counts before = counts_now();
    for (int64_t n = 1; n < CALLS_LIMIT; n++) {
        faults_fail(CALL_ANY, n, 1, ENOBUFS);
        int64_t result = make(data);
        int64_t struck = faults_struck();
        faults_clear();
        if (result >= 0 && after != NULL) {
            after(data, result);
        }
        if (result >= 0 && struck == 0) {
            cr_assert_gt(n, 1, "no system call was made");
            return;
        }
        if (result < 0) {
            cr_assert_eq(struck, 1, "call %lld: a failure without a fault", (long long)n);
            cr_assert_neq(lport_status_kind(result), 0);
            counts_assert_same(before);
            if (after != NULL) {
                after(data, result);
            }
        }
    }
    cr_assert_fail("it never succeeds");
}
