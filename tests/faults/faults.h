/* faults - a table of system calls that fail on demand, in place of that of os.c: for the C suite
 * and for build/faults/libport.so.1, a library for tests that exports these functions too.
 *
 * Two uses, and the second stands back while there is the first:
 *   a test asks for faults by the functions below, until faults_resume;
 *   $PORT_FAULTS holds for the whole process, see faults_read. */
#ifndef FAULTS_H
#define FAULTS_H

#include <stddef.h>
#include <stdint.h>

#define FAULTS_API __attribute__((visibility("default")))

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
    CALL_TIMERFD_CREATE,
    CALL_TIMERFD_SETTIME,
    CALL_EVENTFD,
    CALL_READ,
    CALL_WRITE,
    CALL_PREAD,
    CALL_STAT,
    CALL_LSTAT,
    CALL_UNLINK,
    CALL_CHMOD,
    CALL_FCHMOD,
    CALL_FCNTL,
    CALL_IOCTL,
    CALL_GETIFADDRS,
    CALL_GETHOSTNAME,
    CALL_MEMBARRIER,
    CALL_CALLOC,
    CALL_END,
};

/* Puts a table in place that counts calls and does nothing else yet: true if it ends the faults of
 * $PORT_FAULTS, until faults_resume. The functions below do this too; each adds its fault to those
 * that are there. */
FAULTS_API int32_t faults_watch(void);

/* The FIRST-th call of CALL (enum call) from now (1: the next) and the COUNT - 1 after it fail with
 * ERROR. A close that fails has closed all the same, as on Linux. */
FAULTS_API void faults_fail(enum call call, int64_t first, int64_t count, int32_t error);

/* The number of the call "any", "accept4", "calloc" or "eventfd", for who has no enum call. */
FAULTS_API int32_t faults_call(const char *name);

/* No call on a stream moves more than LEN octets; 0: as many as it likes. */
FAULTS_API void faults_cut(size_t len);

/* How many of LEN octets one call on a stream moves at the most, where octets are cut. */
FAULTS_API size_t faults_most(size_t len);

/* PERCENT of the calls that may are interrupted (EINTR) or would block (EAGAIN), by SEED. */
FAULTS_API void faults_disturb(uint64_t seed, int32_t percent);

/* A seed: that of $PORT_TEST_SEED, or a new one. Say it in the message of the assertion. */
FAULTS_API uint64_t faults_seed(void);

/* How often CALL was made since a test asked; how many faults have struck. */
FAULTS_API int64_t faults_calls(enum call call);
FAULTS_API int64_t faults_struck(void);

/* No faults at all from here on. */
FAULTS_API void faults_clear(void);

/* As faults_clear, but those of $PORT_FAULTS are back. */
FAULTS_API void faults_resume(void);

/* Takes the faults of the whole process from TEXT, "cut=1 disturb=30 seed=7", each part optional.
 * This is what happens with $PORT_FAULTS when the program starts: 1, or 0 for a text that is none.
 */
FAULTS_API int32_t faults_read(const char *text);

/* True if $PORT_FAULTS asks for some. */
FAULTS_API int32_t faults_everywhere(void);

/* One step of SplitMix64: any number becomes one that looks random. */
static inline uint64_t faults_scramble(uint64_t number) {
    number += UINT64_C(0x9e3779b97f4a7c15);
    number = (number ^ number >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    number = (number ^ number >> 27) * UINT64_C(0x94d049bb133111eb);
    return number ^ number >> 31;
}

#endif
