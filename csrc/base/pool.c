/* pool - objects that integers name (layer 0). Stands on os. See pool.h. */
#include "pool.h"

#include "os.h"

/* An object that was never taken, its chunk allocated when it is the first of it; or NULL. */
static struct lport_pooled *fresh(struct lport_pool *pool) {
    uint32_t index = pool->used;
    if (index >= UINT32_C(1) << LPORT_POOL_INDEX_BITS) {
        return NULL;
    }
    if (lport_pool_at(pool, index) == NULL) {
        uint8_t *chunk = lport_os.calloc(LPORT_POOL_CHUNK, pool->size);
        if (chunk == NULL) {
            return NULL;
        }
        atomic_store_explicit(&pool->chunks[index >> LPORT_POOL_CHUNK_BITS], chunk,
                              memory_order_release);
    }
    struct lport_pooled *object = lport_pool_at(pool, index);
    object->index = index;
    if (pool->prepare != NULL) {
        pool->prepare(object);
    }
    pool->used = index + 1;
    return object;
}

void *lport_pool_take(struct lport_pool *pool) {
    struct lport_pooled *object = pool->free;
    if (object != NULL) {
        pool->free = object->next;
    } else {
        object = fresh(pool);
    }
    pool->taken += object != NULL;
    return object;
}

void lport_pool_give_back(struct lport_pool *pool, void *object) {
    struct lport_pooled *pooled = object;
    pooled->next = pool->free;
    pool->free = pooled;
    pool->taken--;
}

int64_t lport_pool_name(void *object) {
    struct lport_pooled *pooled = object;
    uint32_t generation = atomic_fetch_add(&pooled->generation, 1) + 1;
    return (int64_t)generation << LPORT_POOL_INDEX_BITS | pooled->index;
}

void lport_pool_unname(void *object) {
    struct lport_pooled *pooled = object;
    atomic_fetch_add(&pooled->generation, 1);
}

bool lport_pool_is_named(void *object) {
    struct lport_pooled *pooled = object;
    return atomic_load(&pooled->generation) % 2 == 1;
}

void lport_pool_take_back(struct lport_pool *pool) {
    pthread_mutex_init(&pool->lock, NULL);
    pool->free = NULL;
    pool->taken = 0;
    for (uint32_t index = pool->used; index-- > 0;) {
        struct lport_pooled *object = lport_pool_at(pool, index);
        if (lport_pool_is_named(object)) {
            lport_pool_unname(object);
        }
        object->next = pool->free;
        pool->free = object;
    }
}

int64_t lport_pool_taken(struct lport_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    int64_t taken = pool->taken;
    pthread_mutex_unlock(&pool->lock);
    return taken;
}
