/* resolve - names to addresses and back on helper threads (layer 3). Stands on os, status and
 * address, and on the system's resolver. See libport.h.
 *
 * A query's memory comes from a pool and is never unmapped, so that a stale query is recognised by
 * its generation and a wait may look at its word at any time. The word is generation << 1 |
 * answered; the generation is odd while the query is open, so that no integer names a free one.
 *
 * Invariant: everything in a query but its word is read and written under pool.lock, except what
 * the question is and what the answer will be while its thread works on it (phase RUNNING), which
 * belong to that thread alone. A query goes back to the pool exactly once: with its close, or, if
 * it was abandoned while it was RUNNING, with the end of its thread's work. */
#include "resolve.h"

#include "address.h"
#include "libport.h"
#include "os.h"
#include "status.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    NAME_MAX_OCTETS = 255, /* of a name in text, RFC 1035 section 2.3.4 */
    MAX_THREADS = 32,
    THREAD_STACK = 256 * 1024,
    HOST_BUFFER = 2048,        /* octets that gethostby..._r begins with, and */
    HOST_BUFFER_MAX = 1 << 20, /* where it ends */
    INDEX_BITS = 20,           /* a query is generation << INDEX_BITS | index */
    CHUNK_BITS = 6,
    CHUNK_QUERIES = 1 << CHUNK_BITS,
};

enum phase { FREE, QUEUED, RUNNING, ANSWERED };

struct query {
    _Atomic uint32_t word;
    uint32_t index;
    enum phase phase;
    int event;          /* eventfd to write to, or -1 */
    struct query *next; /* in the queue, or in the list of free ones */
    /* the question */
    int32_t family; /* 0 with `reverse` */
    int32_t flags;
    int reverse;
    uint8_t address[LPORT_ADDRESS_SIZE];
    char name[NAME_MAX_OCTETS + 1];
    /* the answer */
    int64_t status;     /* 0 or a failure */
    uint8_t *addresses; /* blocks, one after the other */
    int32_t address_count;
    char *names; /* each with its terminator, one after the other */
    int32_t name_count;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work;       /* the queue is not empty */
    struct query *head, *tail; /* of the queue */
    struct query *free;
    uint32_t used;   /* queries handed out at least once */
    int32_t threads; /* that exist */
    int32_t idle;    /* of them, waiting for work */
    int32_t queued;  /* length of the queue */
    int64_t pending; /* queries that are not FREE */
    _Atomic(struct query *) chunks[1 << (INDEX_BITS - CHUNK_BITS)];
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

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

/* ---- queries as integers --------------------------------------------------------------------- */

static struct query *query_at(uint32_t index) {
    struct query *chunk =
        atomic_load_explicit(&pool.chunks[index >> CHUNK_BITS], memory_order_acquire);
    return chunk == NULL ? NULL : &chunk[index & (CHUNK_QUERIES - 1)];
}

static uint32_t generation_in(int64_t handle) {
    return (uint32_t)(handle >> INDEX_BITS);
}

static int64_t handle_of(struct query *query) {
    return (int64_t)(atomic_load(&query->word) >> 1) << INDEX_BITS | query->index;
}

/* The query that HANDLE names if it is not closed, or NULL. */
static struct query *query_of(int64_t handle) {
    if (handle <= 0 || (handle >> INDEX_BITS) > (int64_t)(UINT32_MAX >> 1)) {
        return NULL;
    }
    struct query *query = query_at((uint32_t)handle & ((UINT32_C(1) << INDEX_BITS) - 1));
    uint32_t generation = generation_in(handle);
    return query != NULL && generation % 2 == 1 && atomic_load(&query->word) >> 1 == generation
               ? query
               : NULL;
}

/* False once its owner has closed it. */
static int is_open(const struct query *query) {
    return (atomic_load(&query->word) >> 1) % 2 == 1;
}

/* query_of, with the lock taken; it stays taken where the result is not NULL. */
static struct query *enter(int64_t handle) {
    pthread_mutex_lock(&pool.lock);
    struct query *query = query_of(handle);
    if (query == NULL) {
        pthread_mutex_unlock(&pool.lock);
    }
    return query;
}

/* A query that was never used, or NULL. With the lock held. */
static struct query *fresh_query(void) {
    uint32_t index = pool.used;
    if (index >= UINT32_C(1) << INDEX_BITS) {
        return NULL;
    }
    if (query_at(index) == NULL) {
        struct query *chunk = lport_os.calloc(CHUNK_QUERIES, sizeof *chunk);
        if (chunk == NULL) {
            return NULL;
        }
        atomic_store_explicit(&pool.chunks[index >> CHUNK_BITS], chunk, memory_order_release);
    }
    pool.used = index + 1;
    struct query *query = query_at(index);
    query->index = index;
    return query;
}

/* With the lock held. */
static struct query *take_query(void) {
    struct query *query = pool.free;
    if (query != NULL) {
        pool.free = query->next;
    } else {
        query = fresh_query();
    }
    if (query != NULL) {
        pool.pending++;
        query->event = -1;
        query->next = NULL;
        query->status = 0;
    }
    return query;
}

/* Drops the answer of QUERY and gives it back. With the lock held. */
static void give_back_query(struct query *query) {
    free(query->addresses);
    free(query->names);
    query->addresses = NULL;
    query->names = NULL;
    query->address_count = query->name_count = 0;
    query->phase = FREE;
    query->next = pool.free;
    pool.free = query;
    pool.pending--;
}

/* ---- the answer: what the system said, as blocks and names -------------------------------------
 */

/* One answer of gethostby..._r, with the memory it lies in. */
struct host {
    struct hostent entry;
    struct hostent *found; /* &entry, or NULL */
    char *buffer;
    int64_t status; /* 0, or why nothing was found */
};

/* Calls gethostby..._r for QUERY, by its address or by its name in the system's FAMILY, with a
 * buffer that is large enough. HOST's buffer is the caller's to free. */
static void look_up_host(const struct query *query, int family, struct host *host) {
    const uint8_t *octets = query->address + LPORT_AT_OCTETS;
    int result = ERANGE;
    int error = 0;
    for (size_t len = HOST_BUFFER; result == ERANGE && len <= HOST_BUFFER_MAX; len *= 2) {
        free(host->buffer);
        host->buffer = lport_os.calloc(1, len);
        if (host->buffer == NULL) {
            host->status = lport_status_make(LPORT_MEMORY_EXHAUSTED);
            return;
        }
        result = query->reverse
                     ? lport_resolver.gethostbyaddr_r(octets, family == AF_INET ? 4 : 16, family,
                                                      &host->entry, host->buffer, len, &host->found,
                                                      &error)
                     : lport_resolver.gethostbyname2_r(query->name, family, &host->entry,
                                                       host->buffer, len, &host->found, &error);
    }
    if (host->found == NULL) { /* some resolvers find nothing and give no reason: not there */
        host->status = error == NETDB_SUCCESS ? lport_status_make(LPORT_HOST_NOT_FOUND)
                                              : lport_status_from_host(error, result);
    }
}

/* Adds NAME to the names of QUERY unless it is among them, which are compared as the DNS does.
 * There is room for it. */
static void add_name(struct query *query, const char *name, size_t *used) {
    const char *known = query->names;
    for (int32_t i = 0; i < query->name_count; i++, known += strlen(known) + 1) {
        if (strcasecmp(known, name) == 0) {
            return;
        }
    }
    size_t len = strlen(name) + 1;
    memcpy(query->names + *used, name, len);
    *used += len;
    query->name_count++;
}

static size_t names_size(const struct hostent *host) {
    size_t size = 0;
    if (host != NULL) {
        size = strlen(host->h_name) + 1;
        for (char **alias = host->h_aliases; *alias != NULL; alias++) {
            size += strlen(*alias) + 1;
        }
    }
    return size;
}

/* Makes the names of QUERY: CANONICAL, then what COUNT HOSTS say. */
static void keep_names(struct query *query, const char *canonical, const struct host *hosts,
                       int count) {
    size_t size = strlen(canonical) + 1;
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        size += names_size(hosts[i].found);
    }
    query->names = lport_os.calloc(1, size);
    if (query->names == NULL) {
        query->status = lport_status_make(LPORT_MEMORY_EXHAUSTED);
        return;
    }
    add_name(query, canonical, &used);
    for (int i = 0; i < count; i++) {
        if (hosts[i].found == NULL) {
            continue;
        }
        add_name(query, hosts[i].found->h_name, &used);
        for (char **alias = hosts[i].found->h_aliases; *alias != NULL; alias++) {
            add_name(query, *alias, &used);
        }
    }
}

/* The canonical name and the aliases, for each family that the answer has. That a name has no
 * aliases or that they cannot be found out is no failure: it has its addresses. */
static void find_names(struct query *query, const char *canonical) {
    struct host hosts[2] = {{.found = NULL}, {.found = NULL}};
    int asked[2] = {0, 0};
    for (int32_t i = 0; i < query->address_count; i++) {
        int which = query->addresses[(size_t)i * LPORT_ADDRESS_SIZE] == LPORT_INET6;
        if (!asked[which]) {
            asked[which] = 1;
            look_up_host(query, which ? AF_INET6 : AF_INET, &hosts[which]);
        }
    }
    keep_names(query, canonical != NULL ? canonical : query->name, hosts, 2);
    free(hosts[0].buffer);
    free(hosts[1].buffer);
}

/* Adds the address of INFO to those of QUERY, unless it is there or there is no block for it. */
static void add_address(struct query *query, const struct addrinfo *info) {
    struct sockaddr_storage storage;
    uint8_t *end = query->addresses + (size_t)query->address_count * LPORT_ADDRESS_SIZE;
    if (info->ai_addrlen > sizeof storage) {
        return;
    }
    memset(&storage, 0, sizeof storage);
    memcpy(&storage, info->ai_addr, info->ai_addrlen);
    if (lport_address_from_kernel(&storage, info->ai_addrlen, end) < 0) {
        return;
    }
    lport_address_set_port(end, 0);
    for (const uint8_t *known = query->addresses; known < end; known += LPORT_ADDRESS_SIZE) {
        if (memcmp(known, end, LPORT_ADDRESS_SIZE) == 0) {
            return;
        }
    }
    query->address_count++;
}

static void keep_addresses(struct query *query, const struct addrinfo *list) {
    size_t count = 0;
    for (const struct addrinfo *info = list; info != NULL; info = info->ai_next) {
        count++;
    }
    query->addresses = lport_os.calloc(count + 1, LPORT_ADDRESS_SIZE);
    if (query->addresses == NULL) {
        query->status = lport_status_make(LPORT_MEMORY_EXHAUSTED);
        return;
    }
    for (const struct addrinfo *info = list; info != NULL; info = info->ai_next) {
        add_address(query, info);
    }
    if (query->address_count == 0) {
        query->status = lport_status_make(LPORT_HOST_NOT_FOUND);
    }
}

static int system_family(int32_t family) {
    return family == LPORT_INET ? AF_INET : family == LPORT_INET6 ? AF_INET6 : AF_UNSPEC;
}

static void answer_forward(struct query *query) {
    struct addrinfo hints = {
        .ai_family = system_family(query->family),
        .ai_socktype = SOCK_STREAM, /* one row for each address, not one for each protocol */
        .ai_flags = (query->flags & LPORT_ALIASES) != 0 ? AI_CANONNAME : 0,
    };
    struct addrinfo *list = NULL;
    int result = lport_resolver.getaddrinfo(query->name, NULL, &hints, &list);
    if (result != 0) {
        query->status = lport_status_from_gai(result, errno);
        return;
    }
    keep_addresses(query, list);
    if (query->status == 0 && (query->flags & LPORT_ALIASES) != 0) {
        find_names(query, list->ai_canonname);
    }
    lport_resolver.freeaddrinfo(list);
}

/* The answer of a reverse query has the address that was asked for, too: with its names it is what
 * a hostent is. */
static void answer_reverse(struct query *query) {
    struct host host = {.found = NULL};
    look_up_host(query, system_family(query->address[LPORT_AT_FAMILY]), &host);
    query->status = host.status;
    if (host.found != NULL) {
        keep_names(query, host.found->h_name, &host, 1);
    }
    free(host.buffer);
    if (query->status != 0) {
        return;
    }
    query->addresses = lport_os.calloc(1, LPORT_ADDRESS_SIZE);
    if (query->addresses == NULL) {
        query->status = lport_status_make(LPORT_MEMORY_EXHAUSTED);
        return;
    }
    memcpy(query->addresses, query->address, LPORT_ADDRESS_SIZE);
    lport_address_set_port(query->addresses, 0);
    query->address_count = 1;
}

/* ---- the threads ------------------------------------------------------------------------------
 */

static void write_event(int event) {
    static const uint64_t one = 1;
    while (event >= 0 && lport_os.write(event, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

/* Tells whoever waits for QUERY that it has its answer. With the lock held. */
static void announce(struct query *query) {
    query->phase = ANSWERED;
    atomic_fetch_or(&query->word, 1);
    lport_os_wake_word((uint32_t *)&query->word);
    write_event(query->event);
}

static struct query *take_from_queue(void) {
    struct query *query = pool.head;
    if (query != NULL) {
        pool.head = query->next;
        pool.tail = pool.head == NULL ? NULL : pool.tail;
        pool.queued--;
        query->next = NULL;
    }
    return query;
}

/* The next query in the queue, waited for until the thread has been idle for too long: then NULL.
 * With the lock held. */
static struct query *wait_for_work(void) {
    int64_t deadline = lport_clock_after(lport_resolver.idle_ns);
    struct timespec until = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000};
    int result = 0;
    pool.idle++;
    while (pool.head == NULL && result != ETIMEDOUT) {
        result = pthread_cond_timedwait(&pool.work, &pool.lock, &until);
    }
    pool.idle--;
    return take_from_queue();
}

static void *thread_body(void *unused) {
    struct query *query;
    pthread_mutex_lock(&pool.lock);
    while ((query = wait_for_work()) != NULL) {
        query->phase = RUNNING;
        pthread_mutex_unlock(&pool.lock);
        if (query->reverse) {
            answer_reverse(query);
        } else {
            answer_forward(query);
        }
        pthread_mutex_lock(&pool.lock);
        if (is_open(query)) {
            announce(query);
        } else {
            give_back_query(query);
        }
    }
    pool.threads--;
    pthread_mutex_unlock(&pool.lock);
    return unused;
}

/* A detached thread with every signal blocked: the handlers of the host program must never run on a
 * thread that it does not know. 0 or an errno. */
static int create_thread(void) {
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
    int result = pthread_attr_init(&attributes);
    if (result != 0) {
        return result;
    }
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, THREAD_STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    result = lport_resolver.thread_create(&thread, &attributes, thread_body, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return result;
}

/* Sees to it that somebody takes what has just been queued; false if there is nobody. With the lock
 * held. */
static int provide_thread(void) {
    if (pool.idle >= pool.queued) {
        pthread_cond_signal(&pool.work);
        return 1;
    }
    if (pool.threads < MAX_THREADS && create_thread() == 0) {
        pool.threads++;
    }
    return pool.threads > 0;
}

/* ---- forks: the threads do not cross one, the queries do --------------------------------------
 */

static void make_condition(void) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pool.work, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void before_fork(void) {
    pthread_mutex_lock(&pool.lock);
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&pool.lock);
}

/* Nobody will answer the queries that were open: they fail, for now. The answer that a thread of
 * the parent was at work on may be in any state; it is forgotten, not freed. */
static void after_fork_in_child(void) {
    pool.threads = pool.idle = pool.queued = 0;
    pool.head = pool.tail = NULL;
    make_condition();
    for (uint32_t i = 0; i < pool.used; i++) {
        struct query *query = query_at(i);
        if (query->phase != QUEUED && query->phase != RUNNING) {
            continue;
        }
        query->addresses = NULL;
        query->names = NULL;
        query->address_count = query->name_count = 0;
        query->event = -1; /* the parent waits on it, and dial.c knows of the fork by itself */
        query->status = lport_status_make(LPORT_RESOLVER_TRY_AGAIN);
        if (is_open(query)) {
            announce(query);
        } else {
            give_back_query(query);
        }
    }
    after_fork_in_parent();
}

static void prepare_pool(void) {
    make_condition();
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* ---- exported: names --------------------------------------------------------------------------
 */

/* Queues what QUESTION asks; the query. */
static int64_t ask(const struct query *question) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int64_t result = lport_status_make(LPORT_MEMORY_EXHAUSTED);
    pthread_once(&once, prepare_pool);
    pthread_mutex_lock(&pool.lock);
    struct query *query = take_query();
    if (query == NULL) {
        goto unlock;
    }
    query->family = question->family;
    query->flags = question->flags;
    query->reverse = question->reverse;
    memcpy(query->address, question->address, sizeof query->address);
    memcpy(query->name, question->name, sizeof query->name);
    pool.queued++;
    if (!provide_thread()) {
        pool.queued--;
        give_back_query(query);
        goto unlock;
    }
    query->phase = QUEUED;
    if (pool.tail != NULL) {
        pool.tail->next = query;
    } else {
        pool.head = query;
    }
    pool.tail = query;
    atomic_fetch_add(&query->word, 1 << 1);
    result = handle_of(query);
unlock:
    pthread_mutex_unlock(&pool.lock);
    return result;
}

int64_t lport_resolve_open(const char *name, size_t len, int32_t family, int32_t flags) {
    struct query question = {.family = family, .flags = flags};
    if (len == 0 || len > NAME_MAX_OCTETS || memchr(name, 0, len) != NULL) {
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
    struct query question = {.reverse = 1};
    if (address[LPORT_AT_FAMILY] != LPORT_INET && address[LPORT_AT_FAMILY] != LPORT_INET6) {
        return lport_status_make(LPORT_INVALID);
    }
    memcpy(question.address, address, LPORT_ADDRESS_SIZE);
    return ask(&question);
}

int64_t lport_resolve_wait(int64_t handle, int64_t deadline) {
    struct query *query = query_of(handle);
    uint32_t unanswered = generation_in(handle) << 1;
    while (query != NULL && atomic_load(&query->word) == unanswered) {
        if (lport_clock_now() >= deadline) {
            return lport_status_make(LPORT_TIMED_OUT);
        }
        lport_os_wait_word((uint32_t *)&query->word, unanswered, deadline);
    }
    return query_of(handle) != NULL ? 0 : lport_status_make(LPORT_INVALID);
}

/* 0, LPORT_IN_PROGRESS, or the failure of QUERY. With the lock held. */
static int64_t state_of(const struct query *query) {
    return query->phase != ANSWERED ? lport_status_make(LPORT_IN_PROGRESS) : query->status;
}

int64_t lport_resolve_count(int64_t handle) {
    struct query *query = enter(handle);
    if (query == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t status = state_of(query);
    int64_t result = status < 0 ? status : query->address_count;
    pthread_mutex_unlock(&pool.lock);
    return result;
}

int64_t lport_resolve_address(int64_t handle, int32_t index, uint8_t *address) {
    struct query *query = enter(handle);
    if (query == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t result = state_of(query);
    if (result == 0 && (index < 0 || index >= query->address_count)) {
        result = lport_status_make(LPORT_INVALID);
    } else if (result == 0) {
        memcpy(address, query->addresses + (size_t)index * LPORT_ADDRESS_SIZE, LPORT_ADDRESS_SIZE);
        result = address[LPORT_AT_FAMILY];
    }
    pthread_mutex_unlock(&pool.lock);
    return result;
}

int64_t lport_resolve_name(int64_t handle, int32_t index, char *text, size_t cap) {
    struct query *query = enter(handle);
    if (query == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t result = state_of(query);
    if (result == 0 && (index < 0 || index >= query->name_count)) {
        result = lport_status_make(LPORT_INVALID);
    } else if (result == 0) {
        const char *name = query->names;
        for (int32_t i = 0; i < index; i++) {
            name += strlen(name) + 1;
        }
        result = lport_text_put(name, text, cap);
    }
    pthread_mutex_unlock(&pool.lock);
    return result;
}

/* Takes QUERY out of the queue. With the lock held. */
static void remove_from_queue(struct query *query) {
    struct query *before = NULL;
    struct query **link = &pool.head;
    while (*link != query) {
        before = *link;
        link = &before->next;
    }
    *link = query->next;
    if (pool.tail == query) {
        pool.tail = before;
    }
    pool.queued--;
}

int64_t lport_resolve_close(int64_t handle) {
    struct query *query = enter(handle);
    if (query == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    query->event = -1;
    atomic_store(&query->word, (generation_in(handle) + 1) << 1);
    lport_os_wake_word((uint32_t *)&query->word); /* a wait on it finds it stale */
    if (query->phase == QUEUED) {
        remove_from_queue(query);
    }
    if (query->phase != RUNNING) {
        give_back_query(query);
    }
    pthread_mutex_unlock(&pool.lock);
    return 0;
}

int64_t lport_resolve_notify(int64_t handle, int event) {
    struct query *query = enter(handle);
    if (query == NULL) {
        return lport_status_make(LPORT_INVALID);
    }
    query->event = event;
    if (query->phase == ANSWERED) {
        write_event(event);
    }
    pthread_mutex_unlock(&pool.lock);
    return 0;
}

int64_t lport_resolve_threads(void) {
    pthread_mutex_lock(&pool.lock);
    int64_t count = pool.threads;
    pthread_mutex_unlock(&pool.lock);
    return count;
}

int64_t lport_resolve_pending(void) {
    pthread_mutex_lock(&pool.lock);
    int64_t count = pool.pending;
    pthread_mutex_unlock(&pool.lock);
    return count;
}
