/* support - what the tests of sockets share: counts of what is open, ends on loopback, operations
 * that wait, threads with a result, and a table of system calls that fail on demand. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "libport.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- counts ---------------------------------------------------------------------------------- */

/* A test whose body has to leave no descriptor, no socket, no wait and no replaced system call
 * behind. The counts are compared in the test itself: the runner passes over what fails in .fini.
 */
#define SOCKET_TEST(suite, name)                                                                   \
    static void suite##_##name##_body(void);                                                       \
    Test(suite, name) {                                                                            \
        struct counts before = counts_now();                                                       \
        suite##_##name##_body();                                                                   \
        counts_assert_same(before);                                                                \
    }                                                                                              \
    static void suite##_##name##_body(void)

struct counts {
    int descriptors; /* but for eventfds, which waits keep in a pool */
    int64_t sockets, waits;
};

struct counts counts_now(void);
void counts_assert_same(struct counts before);

/* Calls VISIT with every open descriptor and what it is ("socket:[7]", "anon_inode:[eventfd]"). */
void each_descriptor(void (*visit)(int fd, const char *what, void *data), void *data);

/* STATUS is of KIND (0: a result). */
#define assert_kind(status, kind)                                                                  \
    do {                                                                                           \
        int64_t status_ = (status);                                                                \
        cr_assert_eq(lport_status_kind(status_), (kind), "%s: %s (%lld), not %s", #status,         \
                     kind_text(lport_status_kind(status_)), (long long)status_, kind_text(kind));  \
    } while (0)

const char *kind_text(int32_t kind);

/* ---- ends ------------------------------------------------------------------------------------ */

/* A deadline that a test reaches only when something hangs. */
int64_t soon(void);

/* The loopback address of FAMILY with PORT, into ADDRESS. */
void loopback(int32_t family, int32_t port, uint8_t *address);

/* A listener of FAMILY (_INET, _INET6; _ANY: the wildcard) on a port that the system picks, with
 * LPORT_REUSE_ADDRESS; where to connect to into ADDRESS. LPORT_LOCAL: an abstract name. */
int64_t listen_on_loopback(int32_t family, uint8_t *address);

/* A stream connection to ADDRESS, waited for: the socket, or the failure and nothing left. */
int64_t connect_to(const uint8_t *address);

/* Both ends of a new stream connection of FAMILY: one dialled, one accepted. */
void make_connection(int32_t family, int64_t ends[2]);

/* The same of UDP sockets on 127.0.0.1, connected to each other. */
void make_datagram_ends(int64_t ends[2]);

void close_both(const int64_t ends[2]);

/* ---- operations that wait; they assert nothing, so any thread may call them ------------------ */

int64_t wait_for(int64_t socket, int32_t interest, int64_t deadline);
int64_t receive_some(int64_t socket, uint8_t *octets, size_t len, int64_t deadline);
int64_t send_some(int64_t socket, const uint8_t *octets, size_t len, int64_t deadline);
int64_t accept_one(int64_t listener, int64_t deadline);

/* LEN octets, fewer only at end of file: how many, or a status. */
int64_t receive_all(int64_t socket, uint8_t *octets, size_t len, int64_t deadline);
int64_t send_all(int64_t socket, const uint8_t *octets, size_t len, int64_t deadline);

/* Sends until there is no room: LPORT_WOULD_BLOCK, or what else ended it. */
int64_t clog_up(int64_t socket);

/* Octets that differ from place to place and from seed to seed. */
void fill(uint8_t *octets, size_t len, uint64_t seed);

/* ---- threads --------------------------------------------------------------------------------- */

struct task {
    pthread_t thread;
    _Atomic pid_t id;
    int64_t (*run)(void *data);
    void *data;
    int64_t result;
};

void task_start(struct task *task, int64_t (*run)(void *data), void *data);

/* Its result, once it has ended; a failed assertion if it does not. */
int64_t task_join(struct task *task);

/* Until the system says that the thread sleeps, and COUNT waits are under way. */
void task_until_asleep(struct task *task, int64_t count);

/* The exit status of a child that ran RUN; -1 if it ended in another way. */
int in_child(int (*run)(void *data), void *data);

/* ---- faults ---------------------------------------------------------------------------------- */

/* The entries of the table in os.h, in its order. */
enum call {
    CALL_ANY, /* whichever comes */
    CALL_SOCKET,
    CALL_SOCKETPAIR,
    CALL_BIND,
    CALL_LISTEN,
    CALL_ACCEPT4,
    CALL_CONNECT,
    CALL_SHUTDOWN,
    CALL_GETSOCKNAME,
    CALL_GETPEERNAME,
    CALL_GETSOCKOPT,
    CALL_SETSOCKOPT,
    CALL_RECV,
    CALL_SEND,
    CALL_RECVFROM,
    CALL_RECVMSG,
    CALL_SENDTO,
    CALL_SENDMSG,
    CALL_RECVMMSG,
    CALL_SENDMMSG,
    CALL_SENDFILE,
    CALL_CLOSE,
    CALL_PPOLL,
    CALL_EPOLL_CREATE1,
    CALL_EPOLL_CTL,
    CALL_EPOLL_WAIT,
    CALL_EVENTFD,
    CALL_READ,
    CALL_WRITE,
    CALL_PREAD,
    CALL_LSTAT,
    CALL_UNLINK,
    CALL_CHMOD,
    CALL_FCHMOD,
    CALL_FCNTL,
    CALL_IOCTL,
    CALL_GETIFADDRS,
    CALL_GETHOSTNAME,
    CALL_CALLOC,
    CALL_END,
};

/* Puts a table in place that counts calls and does nothing else yet. The functions below do this
 * too; each adds its fault to those that are there. */
void faults_watch(void);

/* The FIRST-th call of CALL from now (1: the next) and the COUNT - 1 after it fail with ERROR. A
 * close that fails has closed all the same, as on Linux. */
void faults_fail(enum call call, int64_t first, int64_t count, int error);

/* No recv, send or sendmsg moves more than LEN octets. */
void faults_cut(size_t len);

/* PERCENT of the calls that may are interrupted (EINTR) or would block (EAGAIN), by SEED. */
void faults_disturb(uint64_t seed, int percent);

/* A seed: that of $PORT_TEST_SEED, or a new one. Say it in the message of the assertion. */
uint64_t faults_seed(void);

/* How often CALL was made since the table is in place; how many faults have struck. */
int64_t faults_calls(enum call call);
int64_t faults_struck(void);

/* Everything as it was. */
void faults_clear(void);

/* Behaviour 64: runs MAKE with its n-th system call failing, for every n until no fault strikes.
 * Each failure has to be a status and to leave the counts alone; AFTER (or NULL) then looks for
 * more that could be left, and at last gets the socket that MAKE returned. */
void fail_every_call(int64_t (*make)(void *data), void (*after)(void *data, int64_t result),
                     void *data);

#endif
