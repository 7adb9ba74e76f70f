/* faults - see faults.h. Stands on os.h of the library, built with LPORT_TEST.
 *
 * Invariant: a fault is decided by the number of the call and the seed alone, so a run of one
 * thread with the same seed meets the same faults. */
#include "faults.h"

#include "base/os.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Which octets are cut and which calls disturbed. */
struct weather {
    size_t cut; /* 0: nothing is */
    uint64_t seed;
    int32_t percent;
};

static struct {
    atomic_bool watching;
    struct lport_os real;
    struct weather everywhere; /* of $PORT_FAULTS */
    struct weather asked;      /* of a test */
    const struct weather *now; /* the one that holds */
    _Atomic int64_t calls[CALL_END];
    _Atomic int64_t passed;                  /* calls in what is everywhere, before a test asked */
    int64_t first[CALL_END], last[CALL_END]; /* calls that fail, by number */
    int error[CALL_END];
    _Atomic int64_t struck;
} faults = {.now = &faults.everywhere};

static bool strike(int error) {
    atomic_fetch_add(&faults.struck, 1);
    errno = error;
    return true;
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
static bool fails(enum call call) {
    int64_t all = atomic_fetch_add(&faults.calls[CALL_ANY], 1) + 1;
    int64_t own = atomic_fetch_add(&faults.calls[call], 1) + 1;
    if (own >= faults.first[call] && own <= faults.last[call]) {
        return strike(faults.error[call]);
    }
    if (all >= faults.first[CALL_ANY] && all <= faults.last[CALL_ANY]) {
        return strike(call == CALL_CALLOC ? ENOMEM : faults.error[CALL_ANY]);
    }
    /* What is everywhere goes on where it was: whoever stops it again and again would meet the same
     * faults each time. */
    int64_t number = all + (faults.now == &faults.everywhere ? atomic_load(&faults.passed) : 0);
    uint64_t draw = faults_scramble(faults.now->seed + (uint64_t)number);
    int error = disturbance(call, draw >> 32);
    return error != 0 && (int32_t)(draw % 100) < faults.now->percent && strike(error);
}

/* Of streams only: a message is whole or not at all. */
static size_t cut(int fd, size_t len) {
    size_t most = faults.now->cut;
    int type = 0;
    socklen_t size = sizeof type;
    if (most == 0 || len <= most ||
        faults.real.getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM) {
        return len;
    }
    return most;
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
     cut(fd, len), flags)
WRAP(ssize_t, send, CALL_SEND, -1, (int fd, const void *octets, size_t len, int flags), fd, octets,
     cut(fd, len), flags)
WRAP(ssize_t, recvfrom, CALL_RECVFROM, -1,
     (int fd, void *octets, size_t len, int flags, struct sockaddr *address, socklen_t *size), fd,
     octets, cut(fd, len), flags, address, size)
WRAP(ssize_t, recvmsg, CALL_RECVMSG, -1, (int fd, struct msghdr *message, int flags), fd, message,
     flags)
WRAP(int, recvmmsg, CALL_RECVMMSG, -1,
     (int fd, struct mmsghdr *messages, unsigned int count, int flags), fd, messages, count, flags)
WRAP(int, sendmmsg, CALL_SENDMMSG, -1,
     (int fd, struct mmsghdr *messages, unsigned int count, int flags), fd, messages, count, flags)
WRAP(ssize_t, sendto, CALL_SENDTO, -1,
     (int fd, const void *octets, size_t len, int flags, const struct sockaddr *address,
      socklen_t size),
     fd, octets, cut(fd, len), flags, address, size)
WRAP(int, ppoll, CALL_PPOLL, -1,
     (struct pollfd * fds, nfds_t count, const struct timespec *timeout), fds, count, timeout)
#ifdef __linux__
WRAP(ssize_t, sendfile, CALL_SENDFILE, -1, (int fd, int file, off_t *offset, size_t len), fd, file,
     offset, cut(fd, len))
WRAP(int, epoll_create1, CALL_EPOLL_CREATE1, -1, (int flags), flags)
WRAP(int, epoll_ctl, CALL_EPOLL_CTL, -1,
     (int epoll, int operation, int fd, struct epoll_event *event), epoll, operation, fd, event)
WRAP(int, epoll_wait, CALL_EPOLL_WAIT, -1,
     (int epoll, struct epoll_event *events, int cap, int timeout_ms), epoll, events, cap,
     timeout_ms)
WRAP(int, timerfd_create, CALL_TIMERFD_CREATE, -1, (int clock, int flags), clock, flags)
WRAP(int, timerfd_settime, CALL_TIMERFD_SETTIME, -1,
     (int timer, int flags, const struct itimerspec *value, struct itimerspec *before), timer,
     flags, value, before)
#endif
WRAP(int, eventfd, CALL_EVENTFD, -1, (unsigned int value, int flags), value, flags)
WRAP(ssize_t, read, CALL_READ, -1, (int fd, void *octets, size_t len), fd, octets, len)
WRAP(ssize_t, write, CALL_WRITE, -1, (int fd, const void *octets, size_t len), fd, octets, len)
WRAP(ssize_t, pread, CALL_PREAD, -1, (int fd, void *octets, size_t len, off_t offset), fd, octets,
     len, offset)
WRAP(int, stat, CALL_STAT, -1, (const char *path, struct stat *status), path, status)
WRAP(int, lstat, CALL_LSTAT, -1, (const char *path, struct stat *status), path, status)
WRAP(int, unlink, CALL_UNLINK, -1, (const char *path), path)
WRAP(int, chmod, CALL_CHMOD, -1, (const char *path, mode_t mode), path, mode)
WRAP(int, fchmod, CALL_FCHMOD, -1, (int fd, mode_t mode), fd, mode)
WRAP(int, fcntl, CALL_FCNTL, -1, (int fd, int command, int argument), fd, command, argument)
WRAP(int, ioctl, CALL_IOCTL, -1, (int fd, unsigned long request, void *argument), fd, request,
     argument)
WRAP(int, getifaddrs, CALL_GETIFADDRS, -1, (struct ifaddrs * *list), list)
WRAP(int, gethostname, CALL_GETHOSTNAME, -1, (char *name, size_t len), name, len)
WRAP(int, membarrier, CALL_MEMBARRIER, -1, (enum lport_fence_command command), command)
WRAP(void *, calloc, CALL_CALLOC, NULL, (size_t count, size_t size), count, size)

/* Only the first piece that is not empty, where octets are cut. */
static ssize_t faulty_sendmsg(int fd, const struct msghdr *message, int flags) {
    struct msghdr shorter = *message;
    struct iovec piece;
    if (fails(CALL_SENDMSG)) {
        return -1;
    }
    for (size_t i = 0; faults.now->cut != 0 && i < message->msg_iovlen; i++) {
        piece = message->msg_iov[i];
        if (piece.iov_len > 0 && cut(fd, SIZE_MAX) != SIZE_MAX) {
            piece.iov_len = cut(fd, piece.iov_len);
            shorter.msg_iov = &piece;
            shorter.msg_iovlen = 1;
            break;
        }
    }
    return faults.real.sendmsg(fd, &shorter, flags);
}

static int faulty_close(int fd) {
    bool failed = fails(CALL_CLOSE);
    int error = errno;
    int result = faults.real.close(fd);
    if (failed) {
        errno = error;
        return -1;
    }
    return result;
}

/* ---- what tests ask for ---------------------------------------------------------------------- */

/* The table stays once it is in place: other threads may be in it. */
static void put_in_place(void) {
    if (atomic_exchange(&faults.watching, true)) {
        return;
    }
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
        .timerfd_create = faulty_timerfd_create,
        .timerfd_settime = faulty_timerfd_settime,
#endif
        .eventfd = faulty_eventfd,
        .read = faulty_read,
        .write = faulty_write,
        .pread = faulty_pread,
        .stat = faulty_stat,
        .lstat = faulty_lstat,
        .unlink = faulty_unlink,
        .chmod = faulty_chmod,
        .fchmod = faulty_fchmod,
        .fcntl = faulty_fcntl,
        .ioctl = faulty_ioctl,
        .getifaddrs = faulty_getifaddrs,
        .gethostname = faulty_gethostname,
        .membarrier = faulty_membarrier,
        .calloc = faulty_calloc,
    };
}

static void forget_asked(void) {
    memset(faults.first, 0, sizeof faults.first);
    memset(faults.last, 0, sizeof faults.last);
    for (int call = 0; call < CALL_END; call++) {
        atomic_store(&faults.calls[call], 0);
    }
    atomic_store(&faults.struck, 0);
    faults.asked = (struct weather){0};
}

int32_t faults_watch(void) {
    int32_t ends = faults.now == &faults.everywhere;
    put_in_place();
    if (ends) {
        atomic_fetch_add(&faults.passed, atomic_load(&faults.calls[CALL_ANY]));
        forget_asked();
        faults.now = &faults.asked;
    }
    return ends && faults_everywhere();
}

void faults_fail(enum call call, int64_t first, int64_t count, int32_t error) {
    faults_watch();
    int64_t now = atomic_load(&faults.calls[call]);
    faults.first[call] = now + first;
    faults.last[call] = count > INT64_MAX - now - first ? INT64_MAX : now + first + count - 1;
    faults.error[call] = error;
}

void faults_cut(size_t len) {
    faults_watch();
    faults.asked.cut = len;
}

size_t faults_most(size_t len) {
    size_t most = faults.now->cut;
    return most != 0 && most < len ? most : len;
}

void faults_disturb(uint64_t seed, int32_t percent) {
    faults_watch();
    faults.asked.seed = seed;
    faults.asked.percent = percent;
}

int32_t faults_call(const char *name) {
    static const struct {
        const char *name;
        enum call call;
    } calls[] = {
        {"any", CALL_ANY},           {"accept4", CALL_ACCEPT4}, {"calloc", CALL_CALLOC},
        {"connect", CALL_CONNECT},   {"eventfd", CALL_EVENTFD}, {"recvmmsg", CALL_RECVMMSG},
        {"sendmmsg", CALL_SENDMMSG},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (strcmp(name, calls[i].name) == 0) {
            return (int32_t)calls[i].call;
        }
    }
    fprintf(stderr, "faults: no call is named %s\n", name);
    abort();
}

int64_t faults_calls(enum call call) {
    return atomic_load(&faults.calls[call]);
}

int64_t faults_struck(void) {
    return atomic_load(&faults.struck);
}

void faults_clear(void) {
    faults_watch();
    forget_asked();
}

void faults_resume(void) {
    forget_asked();
    faults.now = &faults.everywhere;
}

/* ---- what holds for a whole process ---------------------------------------------------------- */

uint64_t faults_seed(void) {
    const char *given = getenv("PORT_TEST_SEED");
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return given != NULL ? strtoull(given, NULL, 0)
                         : faults_scramble((uint64_t)now.tv_nsec + (uint64_t)now.tv_sec) >> 16;
}

int32_t faults_read(const char *text) {
    struct weather weather = {.seed = faults_seed()};
    int used = 0;
    for (unsigned long long value; *text != '\0'; text += used) {
        if (used = 0, sscanf(text, " cut=%llu %n", &value, &used) == 1 && used > 0) {
            weather.cut = (size_t)value;
        } else if (sscanf(text, " disturb=%llu %n", &value, &used) == 1 && used > 0) {
            weather.percent = (int32_t)value;
        } else if (sscanf(text, " seed=%llu %n", &value, &used) == 1 && used > 0) {
            weather.seed = value;
        } else {
            return 0;
        }
    }
    put_in_place();
    faults.everywhere = weather;
    return 1;
}

int32_t faults_everywhere(void) {
    return faults.everywhere.cut != 0 || faults.everywhere.percent != 0;
}

__attribute__((constructor)) static void read_environment(void) {
    const char *text = getenv("PORT_FAULTS");
    if (text != NULL && !faults_read(text)) {
        fprintf(stderr, "PORT_FAULTS: not understood: %s\n", text);
        exit(2);
    }
}
