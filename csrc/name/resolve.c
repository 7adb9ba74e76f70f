/* resolve - names to addresses and back on helper threads (layer 3). Stands on os, status,
 * sink, clock, address and pool; what the system is asked is in resolve_answer.c. See libport.h.
 *
 * A query is what a caller has; a look-up is a call of the system's resolver, which nothing can
 * end: a thread of one that its queries have abandoned is not free until the resolver is done.
 * There are threads enough for many names that hang; where all are at work a look-up waits in the
 * queue. It serves all queries that ask the same while it is in the queue or has only just begun,
 * abandoned or not: so a name that hangs costs one thread a second, however often it is asked for.
 * A look-up that began earlier is not joined: to ask again then helps where a packet was lost or
 * the network is another one, and no answer is older than its question by more than that second.
 *
 * A query comes from a pool, so a wait may look at it at any time and sees by its name whether it
 * is still the same. It waits on the query's word, which changes with every answer and every close.
 *
 * Invariant: everything in a query but its name, its word and whether it is answered, and
 * everything in a look-up, is read and written under the lock of the pool, except the answer while
 * a thread works on it (in the list RUNNING), which belongs to that thread alone, and the question,
 * which nobody changes. Every query that is open has a look-up. A look-up is freed exactly once:
 * with its last query, or, if it is RUNNING then, with the end of its thread's work. */
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

/* A quarter of the descriptors that a process usually may have, as each look-up has one. */
enum { MAX_THREADS = 256 };

enum phase { QUEUED, RUNNING, ANSWERED };

struct query {
    struct lport_pooled pooled; /* first, see pool.h; it has its name while it is open */
    _Atomic uint32_t word;      /* counts answers and closes */
    _Atomic bool answered;      /* written under the lock */
    int event;                  /* eventfd to write to, or -1 */
    struct lookup *lookup;
    struct query *next; /* of the same look-up */
};

/* In the list of its phase while it is QUEUED or RUNNING. */
struct lookup {
    enum phase phase;
    struct lookup *next;   /* in that list */
    struct query *queries; /* that are open; there may be none while it is RUNNING */
    int64_t begun;         /* when it became RUNNING */
    struct lport_question question;
    struct lport_answer answer;
};

struct list {
    struct lookup *head, *tail;
    int32_t length;
};

static struct lport_pool queries = LPORT_POOL(struct query, NULL);

/* The threads and their work. Guarded by the lock of the queries. */
static struct {
    pthread_cond_t work; /* the queue is not empty */
    struct list queue, running;
    int32_t threads; /* that exist */
    int32_t idle;    /* of them, waiting for work */
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
    .join_ns = INT64_C(1000000000),
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

/* ---- lists of look-ups, with the lock held --------------------------------------------------- */

static void append(struct list *list, struct lookup *lookup) {
    lookup->next = NULL;
    if (list->tail != NULL) {
        list->tail->next = lookup;
    } else {
        list->head = lookup;
    }
    list->tail = lookup;
    list->length++;
}

static void take_out(struct list *list, struct lookup *lookup) {
    struct lookup *before = NULL;
    struct lookup **link = &list->head;
    while (*link != lookup) {
        before = *link;
        link = &before->next;
    }
    *link = lookup->next;
    if (list->tail == lookup) {
        list->tail = before;
    }
    list->length--;
}

/* The first of LIST, or NULL. */
static struct lookup *take_first(struct list *list) {
    struct lookup *lookup = list->head;
    if (lookup != NULL) {
        take_out(list, lookup);
    }
    return lookup;
}

/* ---- look-ups and their queries, with the lock held ------------------------------------------ */

static bool is_same(const struct lport_question *one, const struct lport_question *other) {
    return one->family == other->family && one->flags == other->flags &&
           one->reverse == other->reverse &&
           memcmp(one->address, other->address, sizeof one->address) == 0 &&
           strcmp(one->name, other->name) == 0;
}

/* A look-up in LIST that asks QUESTION and did not begin before SINCE; or NULL. */
static struct lookup *find(const struct list *list, const struct lport_question *question,
                           int64_t since) {
    struct lookup *lookup = list->head;
    while (lookup != NULL && (lookup->begun < since || !is_same(&lookup->question, question))) {
        lookup = lookup->next;
    }
    return lookup;
}

static struct lookup *find_joinable(const struct lport_question *question) {
    int64_t since = lport_clock_now() - lport_resolver.join_ns;
    struct lookup *lookup = find(&workers.queue, question, 0);
    return lookup != NULL ? lookup : find(&workers.running, question, since);
}

/* Frees LOOKUP if nobody has it any more: neither a query nor a thread. */
static void free_if_unused(struct lookup *lookup) {
    if (lookup->queries != NULL || lookup->phase == RUNNING) {
        return;
    }
    if (lookup->phase == QUEUED) {
        take_out(&workers.queue, lookup);
    }
    lport_answer_drop(&lookup->answer);
    free(lookup);
}

static void join(struct query *query, struct lookup *lookup) {
    query->event = -1;
    query->answered = false;
    query->lookup = lookup;
    query->next = lookup->queries;
    lookup->queries = query;
}

static void leave(const struct query *query) {
    struct query **link = &query->lookup->queries;
    while (*link != query) {
        link = &(*link)->next;
    }
    *link = query->next;
    free_if_unused(query->lookup);
}

/* ---- the threads ----------------------------------------------------------------------------- */

/* Wakes whoever waits for QUERY. With the lock held. */
static void wake_waits(struct query *query) {
    atomic_fetch_add(&query->word, 1);
    lport_os_wake_word((uint32_t *)&query->word);
}

/* Makes the event of QUERY readable, if it has one and its answer. With the lock held. */
static void signal_answer(const struct query *query) {
    if (query->answered && query->event >= 0) {
        lport_os_signal(query->event);
    }
}

/* Tells whoever waits for QUERY that it has its answer. With the lock held. */
static void announce(struct query *query) {
    query->answered = true;
    wake_waits(query);
    signal_answer(query);
}

/* LOOKUP, in no list any more, has its answer. With the lock held. */
static void finish(struct lookup *lookup) {
    lookup->phase = ANSWERED;
    for (struct query *query = lookup->queries; query != NULL; query = query->next) {
        announce(query);
    }
    free_if_unused(lookup);
}

/* The next look-up in the queue, waited for until the thread has been idle for too long: then NULL.
 * With the lock held. */
static struct lookup *wait_for_work(void) {
    int64_t deadline = lport_clock_after(lport_resolver.idle_ns);
    struct timespec until = {.tv_sec = deadline / 1000000000,
                             .tv_nsec = (long)(deadline % 1000000000)};
    int result = 0;
    workers.idle++;
    while (workers.queue.head == NULL && result != ETIMEDOUT) {
        result = pthread_cond_timedwait(&workers.work, &queries.lock, &until);
    }
    workers.idle--;
    return take_first(&workers.queue);
}

/* Works on LOOKUP, with the lock held before and after. */
static void run(struct lookup *lookup) {
    lookup->phase = RUNNING;
    lookup->begun = lport_clock_now();
    append(&workers.running, lookup);
    pthread_mutex_unlock(&queries.lock);
    lport_answer_find(&lookup->question, &lookup->answer);
    pthread_mutex_lock(&queries.lock);
    take_out(&workers.running, lookup);
    finish(lookup);
}

static void *thread_body(void *unused) {
    struct lookup *lookup;
    pthread_mutex_lock(&queries.lock);
    while ((lookup = wait_for_work()) != NULL) {
        run(lookup);
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

/* Sees to it that somebody takes one look-up more than are queued, now or, where no further thread
 * can be had, once one is done with its own; false if there is nobody. With the lock held. */
static bool provide_thread(void) {
    if (workers.idle > workers.queue.length) {
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

/* LOOKUP fails, for now. The answer that a thread of the parent was at work on may be in any state;
 * it is forgotten, not freed. */
static void fail_in_child(struct lookup *lookup) {
    lport_answer_forget(&lookup->answer);
    lookup->answer.status = lport_status_make(LPORT_RESOLVER_TRY_AGAIN);
    for (struct query *query = lookup->queries; query != NULL; query = query->next) {
        query->event = -1; /* the parent waits on it, and dial.c knows of the fork by itself */
    }
    finish(lookup);
}

/* Nobody will answer the queries that were open. */
static void after_fork_in_child(void) {
    struct lookup *lookup;
    workers.threads = workers.idle = 0;
    make_condition();
    while ((lookup = take_first(&workers.queue)) != NULL ||
           (lookup = take_first(&workers.running)) != NULL) {
        fail_in_child(lookup);
    }
    after_fork_in_parent();
}

static void prepare_workers(void) {
    make_condition();
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* ---- exported: names ------------------------------------------------------------------------- */

/* A look-up for QUESTION in *LOOKUP, one that there is or a new one; 0, or why there is none. With
 * the lock held. */
static int64_t provide_lookup(const struct lport_question *question, struct lookup **lookup) {
    *lookup = find_joinable(question);
    if (*lookup != NULL) {
        return 0;
    }
    if (!provide_thread()) {
        return lport_status_make(LPORT_THREADS_EXHAUSTED);
    }
    *lookup = lport_os.calloc(1, sizeof **lookup);
    if (*lookup == NULL) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    (*lookup)->question = *question;
    append(&workers.queue, *lookup);
    return 0;
}

/* A query for QUESTION. With the lock held. */
static int64_t ask_locked(const struct lport_question *question) {
    struct lookup *lookup;
    struct query *query = lport_pool_take(&queries);
    if (query == NULL) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    int64_t status = provide_lookup(question, &lookup);
    if (status < 0) {
        lport_pool_give_back(&queries, query);
        return status;
    }
    join(query, lookup);
    return lport_pool_name(query);
}

/* Asks QUESTION: the query. */
static int64_t ask(const struct lport_question *question) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare_workers);
    pthread_mutex_lock(&queries.lock);
    int64_t result = ask_locked(question);
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
        bool answered = query->answered;
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
    return query->answered ? query->lookup->answer.status : lport_status_make(LPORT_IN_PROGRESS);
}

int64_t lport_resolve_count(int64_t handle) {
    struct query *query = enter(handle);
    if (query == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = state_of(query);
    int64_t result = status < 0 ? status : query->lookup->answer.address_count;
    pthread_mutex_unlock(&queries.lock);
    return result;
}

int64_t lport_resolve_address(int64_t handle, int32_t index, uint8_t *address) {
    struct query *query = enter(handle);
    if (query == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t result = state_of(query);
    if (result == 0 && (index < 0 || index >= query->lookup->answer.address_count)) {
        result = lport_status_make(LPORT_INVALID);
    } else if (result == 0) {
        memcpy(address, query->lookup->answer.addresses + (size_t)index * LPORT_ADDRESS_SIZE,
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
    if (result == 0 && (index < 0 || index >= query->lookup->answer.name_count)) {
        result = lport_status_make(LPORT_INVALID);
    } else if (result == 0) {
        const char *name = query->lookup->answer.names;
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
    lport_pool_unname(query);
    wake_waits(query); /* they find it closed */
    leave(query);
    lport_pool_give_back(&queries, query);
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
    pthread_mutex_lock(&queries.lock);
    int64_t count = queries.taken;
    for (struct lookup *lookup = workers.running.head; lookup != NULL; lookup = lookup->next) {
        count += lookup->queries == NULL;
    }
    pthread_mutex_unlock(&queries.lock);
    return count;
}
