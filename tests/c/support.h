/* support - what the tests of sockets share: counts of what is open, ends on loopback, operations
 * that wait, threads with a result, and a table of system calls that fail on demand. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "faults.h"
#include "libport.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
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

/* How many descriptors are open that are WHAT, such as EVENTFD; NULL: of all kinds. */
int count_descriptors(const char *what);
#define EVENTFD "anon_inode:[eventfd]"

/* STATUS is of KIND (0: a result). */
#define assert_kind(status, kind)                                                                  \
    do {                                                                                           \
        int64_t status_ = (status);                                                                \
        cr_assert_eq(lport_status_kind(status_), (kind), "%s: %s (%lld), not %s", #status,         \
                     kind_text(lport_status_kind(status_)), (long long)status_, kind_text(kind));  \
    } while (0)

const char *kind_text(int32_t kind);

/* From here on this thread gets EPERM for the system call of that NUMBER, as old container runtimes
 * have it for calls that they do not know. Source: seccomp(2). */
void forbid_call(long number);

/* ---- ends ------------------------------------------------------------------------------------ */

/* A deadline that a test reaches only when something hangs. */
int64_t soon(void);

/* How long RUN, which tells it, takes at its best, in nanoseconds: it is called until that is less
 * than ENOUGH, ten times at the most. A machine that pauses or is busy makes any single one long.
 */
int64_t at_best(int64_t (*run)(void *data), void *data, int64_t enough);

/* WAIT, called with HANDLE and a deadline that is SPAN nanoseconds away, times out, never earlier
 * and at its best before MOST have passed. */
void assert_times_out(int64_t (*wait)(int64_t handle, int64_t deadline), int64_t handle,
                      int64_t span, int64_t most);

/* True if this machine has an address of IPv6: many containers have none. A test that needs one
 * ends with NEED_INET6, as skipped, where there is none. */
bool have_inet6(void);

#define NEED_INET6()                                                                               \
    do {                                                                                           \
        if (!have_inet6()) {                                                                       \
            cr_skip_test("this machine has no IPv6");                                              \
        }                                                                                          \
    } while (0)

/* How many descriptors this process may have: as many as the system lets it from here on. A test
 * that needs more ends with NEED_DESCRIPTORS, as skipped. */
int descriptors_allowed(void);

#define NEED_DESCRIPTORS(count)                                                                    \
    do {                                                                                           \
        if (descriptors_allowed() < (count)) {                                                     \
            cr_skip_test("more descriptors are not allowed");                                      \
        }                                                                                          \
    } while (0)

/* How many of FAMILIES, an array with LPORT_INET6 last if it has it, this machine has. */
#define FAMILIES_HERE(families)                                                                    \
    (COUNT_OF(families) - ((families)[COUNT_OF(families) - 1] == LPORT_INET6 && !have_inet6()))
#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

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

/* SOCKET, or both ENDS, is open, and gone when it has been closed. */
void assert_closes(int64_t socket);
void close_both(const int64_t ends[2]);

/* ---- operations that wait; they assert nothing, so any thread may call them ------------------ */

int64_t wait_for(int64_t socket, int32_t interest, int64_t deadline);
int64_t receive_some(int64_t socket, uint8_t *octets, size_t len, int64_t deadline);
int64_t send_some(int64_t socket, const uint8_t *octets, size_t len, int64_t deadline);
int64_t accept_one(int64_t listener, int64_t deadline);

/* LEN octets, fewer only at end of file: how many, or a status. */
int64_t receive_all(int64_t socket, uint8_t *octets, size_t len, int64_t deadline);
int64_t send_all(int64_t socket, const uint8_t *octets, size_t len, int64_t deadline);

/* Sends until there is no room: LPORT_WOULD_BLOCK, or what else ended it. In fair weather, since
 * octet by octet no buffer is full in good time. */
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

/* Calls WAIT for OBJECT, without a deadline, on a thread that leaves it again and again by a jump
 * out of a signal handler: what a Lisp does when it unwinds a thread. */
void unwind_waits(int64_t (*wait)(int64_t object, int64_t deadline), int64_t object);

/* The exit status of a child that ran RUN; -1 if it ended in another way. */
int in_child(int (*run)(void *data), void *data);

/* ---- faults ---------------------------------------------------------------------------------- */

/* The result of CALL as it is without faults: CALL is repeated as long as a fault has struck during
 * it and its result is that it would block. Not while other threads meet faults too. */
#define undisturbed(call)                                                                          \
    ({                                                                                             \
        int64_t struck_, result_;                                                                  \
        do {                                                                                       \
            struck_ = faults_struck();                                                             \
            result_ = (call);                                                                      \
        } while (faults_struck() != struck_ && would_block(result_));                              \
        result_;                                                                                   \
    })

/* True if STATUS says that a call would block or was interrupted. */
bool would_block(int64_t status);

/* LEN, or less of it while every octet costs two system calls. */
size_t amount(size_t len);

/* Behaviour 64: runs MAKE with its n-th system call failing, for every n until no fault strikes.
 * Each failure has to be a status and to leave the counts alone, and no slot taken; AFTER (or NULL)
 * then looks for more that could be left, and at last gets the socket that MAKE returned. */
void fail_every_call(int64_t (*make)(void *data), void (*after)(void *data, int64_t result),
                     void *data);

#endif
