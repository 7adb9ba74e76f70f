/* os - the only module that makes socket system calls (layer 0).
 *
 * Every call goes through one table of function pointers, so that a test build can replace any of
 * them and make the n-th call fail. In the library the table is constant. */
#ifndef LPORT_OS_H
#define LPORT_OS_H

#include <net/if.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

#ifdef __linux__
#include <sys/epoll.h>
#endif

struct ifaddrs;
struct itimerspec;

/* What membarrier(2) is asked for: to let this process ask, and the barriers themselves. */
enum lport_fence_command { LPORT_FENCE_PREPARE, LPORT_FENCE };

struct lport_os {
    int (*socket)(int domain, int type, int protocol);
    int (*socketpair)(int domain, int type, int protocol, int fds[2]);
    int (*bind)(int fd, const struct sockaddr *address, socklen_t len);
    int (*listen)(int fd, int backlog);
    int (*accept4)(int fd, struct sockaddr *address, socklen_t *len, int flags);
    int (*connect)(int fd, const struct sockaddr *address, socklen_t len);
    int (*shutdown)(int fd, int how);
    int (*getsockname)(int fd, struct sockaddr *address, socklen_t *len);
    int (*getpeername)(int fd, struct sockaddr *address, socklen_t *len);
    int (*getsockopt)(int fd, int level, int name, void *value, socklen_t *len);
    int (*setsockopt)(int fd, int level, int name, const void *value, socklen_t len);
    ssize_t (*recv)(int fd, void *octets, size_t len, int flags);
    ssize_t (*send)(int fd, const void *octets, size_t len, int flags);
    ssize_t (*recvfrom)(int fd, void *octets, size_t len, int flags, struct sockaddr *address,
                        socklen_t *address_len);
    ssize_t (*recvmsg)(int fd, struct msghdr *message, int flags);
    ssize_t (*sendto)(int fd, const void *octets, size_t len, int flags,
                      const struct sockaddr *address, socklen_t address_len);
    ssize_t (*sendmsg)(int fd, const struct msghdr *message, int flags);
    int (*recvmmsg)(int fd, struct mmsghdr *messages, unsigned int count, int flags);
    int (*sendmmsg)(int fd, struct mmsghdr *messages, unsigned int count, int flags);
#ifdef __linux__
    ssize_t (*sendfile)(int fd, int file, off_t *offset, size_t len);
#endif
    int (*close)(int fd);
    int (*ppoll)(struct pollfd *fds, nfds_t count, const struct timespec *timeout);
#ifdef __linux__
    int (*epoll_create1)(int flags);
    int (*epoll_ctl)(int epoll, int operation, int fd, struct epoll_event *event);
    int (*epoll_wait)(int epoll, struct epoll_event *events, int cap, int timeout_ms);
    int (*timerfd_create)(int clock, int flags);
    int (*timerfd_settime)(int timer, int flags, const struct itimerspec *value,
                           struct itimerspec *before);
#endif
    int (*eventfd)(unsigned int value, int flags);
    ssize_t (*read)(int fd, void *octets, size_t len);
    ssize_t (*write)(int fd, const void *octets, size_t len);
    ssize_t (*pread)(int fd, void *octets, size_t len, off_t offset);
    int (*stat)(const char *path, struct stat *status);
    int (*lstat)(const char *path, struct stat *status);
    int (*unlink)(const char *path);
    int (*chmod)(const char *path, mode_t mode);
    int (*fchmod)(int fd, mode_t mode);
    int (*fcntl)(int fd, int command, int argument);
    int (*ioctl)(int fd, unsigned long request, void *argument);
    int (*getifaddrs)(struct ifaddrs **list);
    int (*gethostname)(char *name, size_t len);
    int (*membarrier)(enum lport_fence_command command);
    void *(*calloc)(size_t count, size_t size);
};

#ifdef LPORT_TEST
extern struct lport_os lport_os; /* replaceable by the tests */
#else
extern const struct lport_os lport_os;
#endif

/* [waits] Sleeps while *WORD is EXPECTED, until lport_os_wake_word or the deadline; may also return
 * early. Nothing is held. */
void lport_os_wait_word(uint32_t *word, uint32_t expected, int64_t deadline);
void lport_os_wake_word(uint32_t *word);

/* [nowait] As if_nametoindex(3) and if_indextoname(3): the index of the interface NAME, of LEN
 * characters, or 0; the name of INDEX into NAME, or NULL. Those of libc do not say why they could
 * not ask; errno of these does. */
unsigned int lport_os_interface_index(const char *name, size_t len);
char *lport_os_interface_name(unsigned int index, char name[IF_NAMESIZE]);

/* [nowait] Makes EVENT, a non-blocking eventfd, readable; no longer so. */
void lport_os_signal(int event);
void lport_os_unsignal(int event);

/* [waits] ppoll with an absolute deadline (lport_clock_now; LPORT_NEVER: none): the count that poll
 * returns, 0 once the deadline has passed, -1 with errno. Looks once even when it has passed. */
int lport_os_poll(struct pollfd *fds, nfds_t count, int64_t deadline);

#endif
