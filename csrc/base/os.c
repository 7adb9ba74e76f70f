/* os - the system calls that the library makes on sockets (layer 0), one table of them.
 *
 * Stands on the kernel and libc. Invariant: no other module calls a function that is in the table
 * directly, so a test that replaces an entry sees every use of it. */
#include "os.h"

#include "libport.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#endif

/* ppoll(2) without its signal mask, which the library never sets. Whole milliseconds are poll(2)'s:
 * where the process is stopped (SIGSTOP, ^Z) and goes on, poll goes on until the end that it had,
 * but ppoll for as long as was left when the stop came. More than poll can be told ends early. */
static int os_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout) {
    if (timeout == NULL) {
        return ppoll(fds, count, NULL, NULL);
    }
    if (timeout->tv_sec >= INT_MAX / 1000) {
        return poll(fds, count, INT_MAX);
    }
    int ms = (int)(timeout->tv_sec * 1000 + timeout->tv_nsec / 1000000);
    struct timespec rest = {.tv_nsec = timeout->tv_nsec % 1000000};
    int ready = ms > 0 ? poll(fds, count, ms) : 0;
    if (ready == 0 && (ms == 0 || rest.tv_nsec > 0)) {
        ready = ppoll(fds, count, &rest, NULL);
    }
    return ready;
}

/* glibc gives some of these functions a transparent union for the address; the table has plain
 * prototypes, and these say the same. */
static int os_bind(int fd, const struct sockaddr *address, socklen_t len) {
    return bind(fd, address, len);
}

static int os_connect(int fd, const struct sockaddr *address, socklen_t len) {
    return connect(fd, address, len);
}

static int os_accept4(int fd, struct sockaddr *address, socklen_t *len, int flags) {
    return accept4(fd, address, len, flags);
}

static int os_getsockname(int fd, struct sockaddr *address, socklen_t *len) {
    return getsockname(fd, address, len);
}

static int os_getpeername(int fd, struct sockaddr *address, socklen_t *len) {
    return getpeername(fd, address, len);
}

static ssize_t os_recvfrom(int fd, void *octets, size_t len, int flags, struct sockaddr *address,
                           socklen_t *address_len) {
    return recvfrom(fd, octets, len, flags, address, address_len);
}

static ssize_t os_sendto(int fd, const void *octets, size_t len, int flags,
                         const struct sockaddr *address, socklen_t address_len) {
    return sendto(fd, octets, len, flags, address, address_len);
}

/* recvmmsg(2) without its timeout, which is none of a deadline (BUGS there). */
static int os_recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags) {
    return recvmmsg(fd, messages, count, flags, NULL);
}

/* C libraries differ in the type of these flags. */
static int os_sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags) {
    return sendmmsg(fd, messages, count, flags);
}

static int os_eventfd(unsigned int value, int flags) {
    return eventfd(value, flags);
}

/* These two take what their second argument says; the library has these forms of them only. */
static int os_fcntl(int fd, int command, int argument) {
    return fcntl(fd, command, argument);
}

static int os_ioctl(int fd, unsigned long request, void *argument) {
    return ioctl(fd, request, argument);
}

/* The C library has no function for it. */
static int os_membarrier(enum lport_fence_command command) {
#ifdef __linux__
    return (int)syscall(SYS_membarrier,
                        command == LPORT_FENCE_PREPARE ? MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED
                                                       : MEMBARRIER_CMD_PRIVATE_EXPEDITED,
                        0, 0);
#else
    (void)command;
    errno = ENOSYS;
    return -1;
#endif
}

#ifdef LPORT_TEST
struct lport_os lport_os = {
#else
const struct lport_os lport_os = {
#endif
    .socket = socket,
    .socketpair = socketpair,
    .bind = os_bind,
    .listen = listen,
    .accept4 = os_accept4,
    .connect = os_connect,
    .shutdown = shutdown,
    .getsockname = os_getsockname,
    .getpeername = os_getpeername,
    .getsockopt = getsockopt,
    .setsockopt = setsockopt,
    .recv = recv,
    .send = send,
    .recvfrom = os_recvfrom,
    .recvmsg = recvmsg,
    .sendto = os_sendto,
    .sendmsg = sendmsg,
    .recvmmsg = os_recvmmsg,
    .sendmmsg = os_sendmmsg,
#ifdef __linux__
    .sendfile = sendfile,
#endif
    .close = close,
    .ppoll = os_ppoll,
#ifdef __linux__
    .epoll_create1 = epoll_create1,
    .epoll_ctl = epoll_ctl,
    .epoll_wait = epoll_wait,
    .timerfd_create = timerfd_create,
    .timerfd_settime = timerfd_settime,
#endif
    .eventfd = os_eventfd,
    .read = read,
    .write = write,
    .pread = pread,
    .stat = stat,
    .lstat = lstat,
    .unlink = unlink,
    .chmod = chmod,
    .fchmod = fchmod,
    .fcntl = os_fcntl,
    .ioctl = os_ioctl,
    .getifaddrs = getifaddrs,
    .gethostname = gethostname,
    .membarrier = os_membarrier,
    .calloc = calloc,
};

_Static_assert(sizeof(time_t) == 8 && sizeof(off_t) == 8, "seconds and offsets are int64_t here");

static struct timespec timespec_of(int64_t ns) {
    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = (long)(ns % 1000000000)};
}

/* Nanoseconds until DEADLINE, not below 0. */
static int64_t time_left(int64_t deadline) {
    int64_t now = lport_clock_now();
    return deadline > now ? deadline - now : 0;
}

int lport_os_poll(struct pollfd *fds, nfds_t count, int64_t deadline) {
    if (deadline == LPORT_NEVER) {
        return lport_os.ppoll(fds, count, NULL);
    }
    for (;;) {
        struct timespec left = timespec_of(time_left(deadline));
        int ready = lport_os.ppoll(fds, count, &left);
        if (ready != 0 || time_left(deadline) == 0) {
            return ready;
        }
    }
}

/* Asks the system REQUEST of netdevice(7) about INTERFACE; 0, or -1 with errno. */
static int ask_of_interface(unsigned long request, struct ifreq *interface) {
    int fd = lport_os.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    int result = lport_os.ioctl(fd, request, interface);
    int error = errno;
    lport_os.close(fd);
    errno = error;
    return result;
}

unsigned int lport_os_interface_index(const char *name, size_t len) {
    struct ifreq interface = {.ifr_ifindex = 0};
    if (len == 0 || len >= sizeof interface.ifr_name || memchr(name, '\0', len) != NULL) {
        errno = ENODEV;
        return 0;
    }
    memcpy(interface.ifr_name, name, len);
    return ask_of_interface(SIOCGIFINDEX, &interface) == 0 ? (unsigned int)interface.ifr_ifindex
                                                           : 0;
}

char *lport_os_interface_name(unsigned int index, char name[IF_NAMESIZE]) {
    struct ifreq interface = {.ifr_ifindex = (int)index};
    return ask_of_interface(SIOCGIFNAME, &interface) == 0
               ? memcpy(name, interface.ifr_name, IF_NAMESIZE)
               : NULL;
}

void lport_os_signal(int event) {
    static const uint64_t one = 1;
    while (lport_os.write(event, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

void lport_os_unsignal(int event) {
    uint64_t count;
    while (lport_os.read(event, &count, sizeof count) < 0 && errno == EINTR) {
    }
}

#ifdef __linux__
/* Where time_t was shorter once, the first call of that name still takes the short one. */
#ifdef SYS_futex_time64
enum { FUTEX = SYS_futex_time64 };
#else
enum { FUTEX = SYS_futex };
#endif

void lport_os_wait_word(uint32_t *word, uint32_t expected, int64_t deadline) {
    struct timespec left;
    struct timespec *timeout = NULL;
    if (deadline != LPORT_NEVER) {
        left = timespec_of(time_left(deadline));
        timeout = &left;
    }
    syscall(FUTEX, word, FUTEX_WAIT_PRIVATE, expected, timeout, NULL, 0);
}

void lport_os_wake_word(uint32_t *word) {
    int saved = errno;
    syscall(FUTEX, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
    errno = saved;
}
#else
/* Without futexes: look again every millisecond. */
void lport_os_wait_word(uint32_t *word, uint32_t expected, int64_t deadline) {
    int64_t left = time_left(deadline);
    struct timespec nap = timespec_of(left < 1000000 ? left : 1000000);
    if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == expected) {
        nanosleep(&nap, NULL);
    }
}

void lport_os_wake_word(uint32_t *word) {
    (void)word;
}
#endif
