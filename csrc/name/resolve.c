/* resolve - names to addresses and back on helper threads (layer 3). Stands on os, status,
 * sink, clock, address and pool; what the system is asked is in resolve_answer.c. See libport.h.
 *
 * A query comes from a pool, so a wait may look at it at any time and sees by its name whether it
 * is still the same. It waits on the query's word, which changes with every answer and every close.
 *
 * Invariant: everything in a query but its name, its phase and its word is read and written under
 * the lock of the pool, except the question and the answer while its thread works on them (phase
 * RUNNING), which belong to that thread alone. A query goes back to the pool exactly once: with its
 * close, or, if it was abandoned while it was RUNNING, with the end of its thread's work. */
#include "resolve.h"

#include "address/address.h"
#include "base/os.h"
#include "base/pool.h"
#include "base/sink.h"
#include "base/status.h"
#include "libport.h"
#include "resolve_answer.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_THREADS = 32 };

enum phase { FREE, QUEUED, RUNNING, ANSWERED };

struct query {
    struct lport_pooled pooled; /* first, see pool.h; it has its name while it is open */
    _Atomic uint32_t word;      /* counts answers and closes */
    _Atomic enum phase phase;   /* written under the lock */
    int event;                  /* eventfd to write to, or -1 */
    struct query *next;         /* in the queue */
    struct lport_question question;
    struct lport_answer answer;
};

static struct lport_pool queries = LPORT_POOL(struct query, NULL);

/* The threads and their queue. Guarded by the lock of the queries. */
static struct {
    pthread_cond_t work;       /* the queue is not empty */
    struct query *head, *tail; /* of the queue */
    int32_t threads;           /* that exist */
    int32_t idle;              /* of them, waiting for work */
    int32_t queued;            /* length of the queue */
} workers;

#ifdef LPORT_TEST
struct lport_resolver lport_resolver = {
#else
const struct lport_resolver lport_resolver = {
#endif
    .getaddrinfo = getaddrinfo,
    .freeaddrinfo = freeaddrinfo,
    .gethostbyname2_r = gethostbyname2_r,
    .gethostbyaddr_r = gethostbyaddr_r,
    .thread_create = pthread_create,
    .idle_ns = INT64_C(5000000000),
};

/* The query that HANDLE names if it is not closed, or NULL. */
static struct query *query_of(int64_t handle) {
    return lport_pool_find(&queries, handle);
}

/* query_of, with the lock taken; it stays taken where the result is not NULL. */
static struct query *enter(int64_t handle) {
    pthread_mutex_lock(&queries.lock);
    struct query *query = query_of(handle);
    if (query == NULL) {
        pthread_mutex_unlock(&queries.lock);
    }
    return query;
}

/* Drops the answer of QUERY and gives it back. With the lock held. */
static void give_back_query(struct query *query) {
    lport_answer_drop(&query->answer);
    query->phase = FREE;
    lport_pool_give_back(&queries, query);
}

/* ---- the queue, with the lock held ----------------------------------------------------------- */

static void put_in_queue(struct query *query) {
    query->phase = QUEUED;
    query->next = NULL;
    if (workers.tail != NULL) {
        workers.tail->next = query;
    } else {
        workers.head = query;
    }
    workers.tail = query;
    workers.queued++;
}

/* The first in the queue, or NULL. */
static struct query *take_from_queue(void) {
    struct query *query = workers.head;
    if (query != NULL) {
        workers.head = query->next;
        workers.tail = workers.head == NULL ? NULL : workers.tail;
        workers.queued--;
    }
    return query;
}

/* Takes QUERY out of the queue. */
static void remove_from_queue(struct query *query) {
    struct query *before = NULL;
    struct query **link = &workers.head;
    while (*link != query) {
        before = *link;
        link = &before->next;
    }
    *link = query->next;
    if (workers.tail == query) {
        workers.tail = before;
    }
    workers.queued--;
}

/* ---- the threads ----------------------------------------------------------------------------- */

/* Wakes whoever waits for QUERY. With the lock held. */
static void wake_waits(struct query *query) {
    atomic_fetch_add(&query->word, 1);
    lport_os_wake_word((uint32_t *)&query->word);
}

/* Makes the event of QUERY readable, if it has one and its answer. With the lock held. */
static void signal_answer(const struct query *query) {
    if (query->phase == ANSWERED && query->event >= 0) {
        lport_os_signal(query->event);
    }
}

/* Tells whoever waits for QUERY that it has its answer. With the lock held. */
static void announce(struct query *query) {
    query->phase = ANSWERED;
    wake_waits(query);
    signal_answer(query);
}

/* The next query in the queue, waited for until the thread has been idle for too long: then NULL.
 * With the lock held. */
static struct query *wait_for_work(void) {
    int64_t deadline = lport_clock_after(lport_resolver.idle_ns);
    struct timespec until = {.tv_sec = deadline / 1000000000,
                             .tv_nsec = (long)(deadline % 1000000000)};
    int result = 0;
    workers.idle++;
    while (workers.head == NULL && result != ETIMEDOUT) {
        result = pthread_cond_timedwait(&workers.work, &queries.lock, &until);
    }
    workers.idle--;
    return take_from_queue();
}

/* The answer of QUERY is there: it is announced, or given back if it was abandoned. With the lock
 * held. */
static void finish_query(struct query *query) {
    if (lport_pool_is_named(query)) {
        announce(query);
    } else {
        give_back_query(query);
    }
}

static void *thread_body(void *unused) {
    struct query *query;
    pthread_mutex_lock(&queries.lock);
    while ((query = wait_for_work()) != NULL) {
        query->phase = RUNNING;
        pthread_mutex_unlock(&queries.lock);
        lport_answer_find(&query->question, &query->answer);
        pthread_mutex_lock(&queries.lock);
        finish_query(query);
    }
    workers.threads--;
    pthread_mutex_unlock(&queries.lock);
    return unused;
}

/* A detached thread with every signal blocked: the handlers of the host program must never run on a
 * thread that it does not know. Its stack is as large as the system makes them: the thread-local
 * variables of the whole program are on it, too. 0 or an errno. */
static int create_thread(void) {
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
    int result = pthread_attr_init(&attributes);
    if (result != 0) {
        return result;
    }
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    result = lport_resolver.thread_create(&thread, &attributes, thread_body, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return result;
}

/* Sees to it that somebody takes one query more than are queued; false if there is nobody. With the
 * lock held. */
static bool provide_thread(void) {
    if (workers.idle > workers.queued) {
        pthread_cond_signal(&workers.work);
        return true;
    }
    if (workers.threads < MAX_THREADS && create_thread() == 0) {
        workers.threads++;
    }
    return workers.threads > 0;
}

/* ---- forks: the threads do not cross one, the queries do ------------------------------------- */

static void make_condition(void) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&workers.work, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void before_fork(void) {
    pthread_mutex_lock(&queries.lock);
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&queries.lock);
}

/* Nobody will answer the queries that were open: they fail, for now. The answer that a thread of
 * the parent was at work on may be in any state; it is forgotten, not freed. */
static void after_fork_in_child(void) {
    workers.threads = workers.idle = workers.queued = 0;
    workers.head = workers.tail = NULL;
    make_condition();
    for (uint32_t i = 0; i < queries.used; i++) {
        struct query *query = lport_pool_at(&queries, i);
        if (query->phase != QUEUED && query->phase != RUNNING) {
            continue;
        }
        lport_answer_forget(&query->answer);
        query->event = -1; /* the parent waits on it, and dial.c knows of the fork by itself */
        query->answer.status = lport_status_make(LPORT_RESOLVER_TRY_AGAIN);
        finish_query(query);
    }
    after_fork_in_parent();
}

static void prepare_workers(void) {
    make_condition();
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* ---- exported: names ------------------------------------------------------------------------- */

/* Asks QUESTION: the query. */
static int64_t ask(const struct lport_question *question) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int64_t result = lport_status_make(LPORT_MEMORY_EXHAUSTED);
    pthread_once(&once, prepare_workers);
    pthread_mutex_lock(&queries.lock);
    struct query *query = lport_pool_take(&queries);
    if (query != NULL) {
        query->event = -1;
        query->question = *question;
        if (provide_thread()) {
            put_in_queue(query);
            result = lport_pool_name(query);
        } else {
            give_back_query(query);
            result = lport_status_make(LPORT_THREADS_EXHAUSTED);
        }
    }
    pthread_mutex_unlock(&queries.lock);
    return result;
}

int64_t lport_resolve_open(const char *name, size_t len, int32_t family, int32_t flags) {
    struct lport_question question = {.family = family, .flags = flags};
    if (len == 0 || len > LPORT_NAME_MAX || memchr(name, 0, len) != NULL) {
        return lport_status_make(LPORT_ADDRESS_SYNTAX);
    }
    if ((family != LPORT_ANY && family != LPORT_INET && family != LPORT_INET6) ||
        (flags & ~LPORT_ALIASES) != 0 || lport_address_is_literal(name, len)) {
        return lport_status_make(LPORT_INVALID);
    }
    memcpy(question.name, name, len);
    return ask(&question);
}

int64_t lport_resolve_reverse(const uint8_t *address) {
    struct lport_question question = {.reverse = true};
    uint8_t room[LPORT_ADDRESS_SIZE];
    address = lport_address_plain(address, room);
    if (address[LPORT_AT_FAMILY] != LPORT_INET && address[LPORT_AT_FAMILY] != LPORT_INET6) {
        return lport_status_make(LPORT_INVALID);
    }
    memcpy(question.address, address, LPORT_ADDRESS_SIZE);
    return ask(&question);
}

int64_t lport_resolve_wait(int64_t handle, int64_t deadline) {
    struct query *query = query_of(handle);
    while (query != NULL) {
        uint32_t word = atomic_load(&query->word);
        bool answered = query->phase == ANSWERED;
        if (query_of(handle) == NULL) {
            break;
        }
        if (answered) {
            return 0;
        }
        if (lport_clock_now() >= deadline) {
            return lport_status_make(LPORT_TIMED_OUT);
        }
        lport_os_wait_word((uint32_t *)&query->word, word, deadline);
    }
    return lport_status_make(LPORT_INVALID);
}

/* 0, LPORT_IN_PROGRESS, or the failure of QUERY. With the lock held. */
static int64_t state_of(const struct query *query) {
    return query->phase != ANSWERED ? lport_status_make(LPORT_IN_PROGRESS) : query->answer.status;
}

int64_t lport_resolve_count(int64_t handle) {
    struct query *query = enter(handle);
    if (query == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = state_of(query);
    int64_t result = status < 0 ? status : query->answer.address_count;
    pthread_mutex_unlock(&queries.lock);
    return result;
}

int64_t lport_resolve_address(int64_t handle, int32_t index, uint8_t *address) {
    struct query *query = enter(handle);
    if (query == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t result = state_of(query);
    if (result == 0 && (index < 0 || index >= query->answer.address_count)) {
        result = lport_status_make(LPORT_INVALID);
    } else if (result == 0) {
        memcpy(address, query->answer.addresses + (size_t)index * LPORT_ADDRESS_SIZE,
               LPORT_ADDRESS_SIZE);
        result = address[LPORT_AT_FAMILY];
    }
    pthread_mutex_unlock(&queries.lock);
    return result;
}

int64_t lport_resolve_name(int64_t handle, int32_t index, char *text, size_t cap) {
    struct query *query = enter(handle);
    if (query == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t result = state_of(query);
    if (result == 0 && (index < 0 || index >= query->answer.name_count)) {
        result = lport_status_make(LPORT_INVALID);
    } else if (result == 0) {
        const char *name = query->answer.names;
        for (int32_t i = 0; i < index; i++) {
            name += strlen(name) + 1;
        }
        result = lport_sink_copy(name, text, cap);
    }
    pthread_mutex_unlock(&queries.lock);
    return result;
}

int64_t lport_resolve_close(int64_t handle) {
    struct query *query = enter(handle);
    if (query == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    query->event = -1;
    lport_pool_unname(query);
    wake_waits(query); /* they find it closed */
    if (query->phase == QUEUED) {
        remove_from_queue(query);
    }
    if (query->phase != RUNNING) {
        give_back_query(query);
    }
    pthread_mutex_unlock(&queries.lock);
    return 0;
}

int64_t lport_resolve_notify(int64_t handle, int event) {
    struct query *query = enter(handle);
    if (query == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    query->event = event;
    signal_answer(query);
    pthread_mutex_unlock(&queries.lock);
    return 0;
}

int64_t lport_resolve_threads(void) {
    pthread_mutex_lock(&queries.lock);
    int64_t count = workers.threads;
    pthread_mutex_unlock(&queries.lock);
    return count;
}

int64_t lport_resolve_pending(void) {
    return lport_pool_taken(&queries);
}
