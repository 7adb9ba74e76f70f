/* pool - objects that integers name (layer 0).
 *
 * Every object of a pool has a struct lport_pooled as its first member. Its memory is allocated
 * with that of its neighbours, zeroed, and from then on neither moved nor freed: what a stale name
 * leads to may be looked at any time.
 *
 * A name is generation << LPORT_POOL_INDEX_BITS | index, above 0. The generation of an object
 * changes when it gets its name and when it loses it, and is odd in between; so no integer names an
 * object that has none, and a stale name is one of nothing. (The sockets of handle.c keep their
 * generations beside their users instead.) */
#ifndef LPORT_POOL_H
#define LPORT_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LPORT_POOL_INDEX_BITS = 24,
    LPORT_POOL_CHUNK_BITS = 8, /* objects are allocated so many at a time */
    LPORT_POOL_CHUNK = 1 << LPORT_POOL_CHUNK_BITS,
    LPORT_POOL_CHUNKS = 1 << (LPORT_POOL_INDEX_BITS - LPORT_POOL_CHUNK_BITS),
};

struct lport_pooled {
    _Atomic uint32_t generation;
    uint32_t index;
    struct lport_pooled *next; /* in the list of free ones */
};

struct lport_pool {
    size_t size;                   /* of an object */
    void (*prepare)(void *object); /* called once with each, zeroed, before it is taken; or NULL */
    pthread_mutex_t lock;          /* guards what follows but CHUNKS, and what its owner likes */
    struct lport_pooled *free;
    uint32_t used; /* objects taken at least once */
    int64_t taken; /* and not given back */
    _Atomic(uint8_t *) chunks[LPORT_POOL_CHUNKS];
};

#define LPORT_POOL(TYPE, PREPARE)                                                                  \
    { .size = sizeof(TYPE), .prepare = (PREPARE), .lock = PTHREAD_MUTEX_INITIALIZER }

/* The object at INDEX, below 1 << LPORT_POOL_INDEX_BITS; NULL where none was ever taken. */
static inline void *lport_pool_at(struct lport_pool *pool, uint32_t index) {
    uint8_t *chunk =
        atomic_load_explicit(&pool->chunks[index >> LPORT_POOL_CHUNK_BITS], memory_order_acquire);
    return chunk == NULL ? NULL : chunk + (index & (LPORT_POOL_CHUNK - 1)) * pool->size;
}

static inline uint32_t lport_pool_index(int64_t name) {
    return (uint32_t)name & ((UINT32_C(1) << LPORT_POOL_INDEX_BITS) - 1);
}

static inline int64_t lport_pool_generation(int64_t name) {
    return name >> LPORT_POOL_INDEX_BITS;
}

/* The object that NAME, any integer, names; NULL: none. */
static inline void *lport_pool_find(struct lport_pool *pool, int64_t name) {
    struct lport_pooled *object = lport_pool_at(pool, lport_pool_index(name));
    int64_t generation = lport_pool_generation(name);
    return object != NULL && generation % 2 == 1 && atomic_load(&object->generation) == generation
               ? object
               : NULL;
}

/* [nowait] An object that nothing names and nobody has, or NULL: no memory. With the lock held. */
void *lport_pool_take(struct lport_pool *pool);

/* [nowait] Gives back OBJECT, which nothing names any more. With the lock held. */
void lport_pool_give_back(struct lport_pool *pool, void *object);

/* Whoever has OBJECT gives it a name, or takes that away. The name. */
int64_t lport_pool_name(void *object);
void lport_pool_unname(void *object);

/* True while OBJECT has a name. */
bool lport_pool_is_named(void *object);

/* [nowait] In the child of a fork, where the threads that had objects are not: makes the lock anew,
 * takes away every name and takes every object back. */
void lport_pool_take_back(struct lport_pool *pool);

/* [nowait] How many objects are taken and not given back. */
int64_t lport_pool_taken(struct lport_pool *pool);

#endif
