/* support - see support.h. Everything that may fail an assertion is for the test's own thread. */
#include "support.h"

#include "address/address.h"
#include "base/os.h"
#include "socket/handle.h"
#include "socket/socket.h"

#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
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

struct tally {
    const char *what;
    int count;
};

static void count_one(int fd, const char *what, void *data) {
    struct tally *tally = data;
    (void)fd;
    tally->count += tally->what == NULL || strcmp(what, tally->what) == 0;
}

int count_descriptors(const char *what) {
    struct tally tally = {.what = what};
    each_descriptor(count_one, &tally);
    return tally.count;
}

struct counts counts_now(void) {
    return (struct counts){.descriptors = count_descriptors(NULL) - count_descriptors(EVENTFD),
                           .sockets = lport_socket_count(),
                           .waits = lport_wait_count()};
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

int64_t at_best(int64_t (*run)(void *data), void *data, int64_t enough) {
    int64_t best = INT64_MAX;
    for (int i = 0; i < 10 && best >= enough; i++) {
        int64_t took = run(data);
        best = took < best ? took : best;
    }
    return best;
}

struct vain_wait {
    int64_t (*wait)(int64_t handle, int64_t deadline);
    int64_t handle, span;
};

static int64_t wait_in_vain(void *data) {
    const struct vain_wait *vain = data;
    int64_t begin = lport_clock_now();
    assert_kind(vain->wait(vain->handle, begin + vain->span), LPORT_TIMED_OUT);
    int64_t took = lport_clock_now() - begin;
    cr_assert_geq(took, vain->span, "%lld of %lld ns", (long long)took, (long long)vain->span);
    return took;
}

void assert_times_out(int64_t (*wait)(int64_t handle, int64_t deadline), int64_t handle,
                      int64_t span, int64_t most) {
    struct vain_wait vain = {wait, handle, span};
    int64_t took = at_best(wait_in_vain, &vain, most);
    cr_assert_lt(took, most, "%lld of %lld ns", (long long)took, (long long)span);
}

bool have_inet6(void) {
    const struct sockaddr_in6 own = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool have = fd >= 0 && bind(fd, (const struct sockaddr *)&own, sizeof own) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return have;
}

int descriptors_allowed(void) {
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur > INT32_MAX ? INT32_MAX : (int)limit.rlim_cur;
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
    return lport_local_listen(address, LPORT_STREAM, -1, -1, 0, NULL, 0);
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
    listener = lport_socket_listen(any, -1, LPORT_REUSE_ADDRESS | LPORT_NODELAY, NULL, 0);
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
    int64_t socket = lport_socket_open(address[LPORT_AT_FAMILY], LPORT_STREAM,
                                       address[LPORT_AT_FAMILY] == LPORT_LOCAL ? 0 : LPORT_NODELAY);
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

void assert_closes(int64_t socket) {
    cr_assert_eq(lport_socket_close(socket, 0), 0);
}

void close_both(const int64_t ends[2]) {
    for (int i = 0; i < 2; i++) {
        assert_closes(ends[i]);
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
    int32_t weather = faults_watch();
    int64_t count;
    do {
        count = lport_socket_send(socket, octets, sizeof octets);
    } while (count > 0);
    if (weather) {
        faults_resume();
    }
    return count;
}

void fill(uint8_t *octets, size_t len, uint64_t seed) {
    for (size_t i = 0; i < len; i++) {
        octets[i] = (uint8_t)(faults_scramble(seed * 0x10001 + i / 8) >> i % 8 * 8);
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

static bool is_asleep(pid_t id) {
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)id);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
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

enum { ABANDONED = 200 };

static _Thread_local sigjmp_buf way_out;
static _Thread_local volatile sig_atomic_t inside;

struct unwinding {
    int64_t (*wait)(int64_t object, int64_t deadline);
    int64_t object;
    sem_t entered;
};

static void jump_out(int signal) {
    (void)signal;
    if (inside) {
        siglongjmp(way_out, 1);
    }
}

static void *wait_and_be_unwound(void *data) {
    struct unwinding *unwinding = data;
    for (volatile int i = 0; i < ABANDONED; i++) {
        if (sigsetjmp(way_out, 1) == 0) {
            inside = 1;
            sem_post(&unwinding->entered);
            unwinding->wait(unwinding->object, LPORT_NEVER);
        }
        inside = 0;
    }
    return NULL;
}

void unwind_waits(int64_t (*wait)(int64_t object, int64_t deadline), int64_t object) {
    struct unwinding unwinding = {.wait = wait, .object = object};
    struct sigaction action = {.sa_handler = jump_out}, before;
    pthread_t thread;
    sigaction(SIGUSR1, &action, &before);
    sem_init(&unwinding.entered, 0, 0);
    pthread_create(&thread, NULL, wait_and_be_unwound, &unwinding);
    for (int i = 0; i < ABANDONED; i++) {
        sem_wait(&unwinding.entered);
        for (int j = 0; j < i; j++) {
            sched_yield(); /* so that the signal comes at another moment each time */
        }
        pthread_kill(thread, SIGUSR1);
    }
    pthread_join(thread, NULL);
    sem_destroy(&unwinding.entered);
    sigaction(SIGUSR1, &before, NULL);
}

/* ---- faults ---------------------------------------------------------------------------------- */

bool would_block(int64_t status) {
    int32_t kind = lport_status_kind(status);
    return kind == LPORT_WOULD_BLOCK || kind == LPORT_BACKLOG_FULL || kind == LPORT_INTERRUPTED;
}

size_t amount(size_t len) {
    return faults_everywhere() ? len / 64 : len;
}

void forbid_call(long number) {
    struct sock_filter rows[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof rows / sizeof *rows, rows};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
}

enum { CALLS_LIMIT = 100, SLOTS_AT_ONCE = 8 };

/* How many slots for sockets are free, AT_ONCE at least: some are taken for the first time then. */
static int64_t count_free_slots(int at_once) {
    struct lport_slot *slots[SLOTS_AT_ONCE] = {NULL};
    int64_t count = at_once;
    for (int i = 0; i < at_once; i++) {
        cr_assert_eq(lport_handle_reserve(&slots[i]), 0);
    }
    for (struct lport_pooled *next = slots[at_once - 1]->pooled.next; next != NULL;
         next = next->next) {
        count++;
    }
    for (int i = at_once; i-- > 0;) {
        lport_handle_release(slots[i]);
    }
    return count;
}

void fail_every_call(int64_t (*make)(void *data), void (*after)(void *data, int64_t result),
                     void *data) {
    struct counts before = counts_now();
    int64_t slots = 0;
    /* The first call twice: it may be that for the memory of the slots, before any is counted. */
    for (int64_t n = 0; n < CALLS_LIMIT; n++) {
        faults_fail(CALL_ANY, n > 0 ? n : 1, 1, ENOBUFS);
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
        int64_t left = count_free_slots(n == 0 ? SLOTS_AT_ONCE : 1);
        cr_assert_geq(left, slots, "call %lld: %lld free slots", (long long)n, (long long)left);
        slots = left;
    }
    cr_assert_fail("it never succeeds");
}
