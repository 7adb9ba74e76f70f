/* pool: objects that integers name. */
#include "base/pool.h"

#include "support.h"

#include <errno.h>

TestSuite(pool, .timeout = 20);

struct thing {
    struct lport_pooled pooled;
    int prepared, touched;
};

static int prepared_count;

static void prepare(void *object) {
    struct thing *thing = object;
    thing->prepared = ++prepared_count;
}

static struct lport_pool things = LPORT_POOL(struct thing, prepare);

static struct thing *take(void) {
    pthread_mutex_lock(&things.lock);
    struct thing *thing = lport_pool_take(&things);
    pthread_mutex_unlock(&things.lock);
    return thing;
}

static void give_back(struct thing *thing) {
    pthread_mutex_lock(&things.lock);
    lport_pool_give_back(&things, thing);
    pthread_mutex_unlock(&things.lock);
}

Test(pool, a_name_leads_to_its_object_while_it_has_it) {
    struct thing *thing = take();
    cr_assert_not_null(thing);
    int64_t name = lport_pool_name(thing);
    cr_assert_gt(name, 0);
    cr_assert(lport_pool_is_named(thing));
    cr_assert_eq(lport_pool_find(&things, name), thing);
    lport_pool_unname(thing);
    cr_assert(!lport_pool_is_named(thing));
    cr_assert_null(lport_pool_find(&things, name));
    give_back(thing);
}

Test(pool, an_object_that_comes_again_has_another_name) {
    struct thing *first = take();
    int64_t name = lport_pool_name(first);
    lport_pool_unname(first);
    give_back(first);
    struct thing *again = take();
    cr_assert_eq(again, first);
    int64_t next = lport_pool_name(again);
    cr_assert_neq(next, name);
    cr_assert_null(lport_pool_find(&things, name));
    cr_assert_eq(lport_pool_find(&things, next), again);
    lport_pool_unname(again);
    give_back(again);
}

Test(pool, no_integer_names_an_object_without_a_name) {
    struct thing *thing = take();
    int64_t name = lport_pool_name(thing);
    const int64_t generation = INT64_C(1) << LPORT_POOL_INDEX_BITS;
    const int64_t numbers[] = {0,
                               -1,
                               1,
                               name + 1,
                               name + generation,
                               name - generation,
                               name + (generation << 32), /* the same generation, but for its end */
                               -name,
                               INT64_MAX,
                               INT64_MIN};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        cr_assert_null(lport_pool_find(&things, numbers[i]), "%zu", i);
    }
    lport_pool_unname(thing);
    for (int64_t number = name - 2 * generation; number <= name + 2 * generation;
         number += generation) {
        cr_assert_null(lport_pool_find(&things, number));
    }
    give_back(thing);
}

enum { MANY = 3 * LPORT_POOL_CHUNK + 1 };

Test(pool, each_object_is_one_of_its_own_and_prepared_once) {
    static struct thing *all[MANY];
    static int64_t names[MANY];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < MANY; i++) {
            all[i] = take();
            names[i] = lport_pool_name(all[i]);
            all[i]->touched = i;
        }
        cr_assert_eq(lport_pool_taken(&things), MANY);
        cr_assert_eq(prepared_count, MANY);
        for (int i = 0; i < MANY; i++) {
            struct thing *found = lport_pool_find(&things, names[i]);
            cr_assert_eq(found, all[i]);
            cr_assert_eq(found->touched, i);
            cr_assert_gt(found->prepared, 0);
        }
        for (int i = 0; i < MANY; i++) {
            lport_pool_unname(all[i]);
            give_back(all[i]);
        }
        cr_assert_eq(lport_pool_taken(&things), 0);
    }
}

/* Behaviour 64, here for the memory of a pool. */
Test(pool, a_pool_without_memory_gives_nothing_and_is_as_before) {
    faults_fail(CALL_CALLOC, 1, 1, ENOMEM);
    cr_assert_null(take());
    cr_assert_eq(lport_pool_taken(&things), 0);
    struct thing *thing = take();
    cr_assert_not_null(thing);
    cr_assert_eq(thing->pooled.index, 0);
    give_back(thing);
}

Test(pool, what_is_taken_back_has_no_name_and_is_given_again) {
    struct thing *first = take(), *second = take(), *third = take();
    int64_t name = lport_pool_name(first);
    give_back(third);
    pthread_mutex_lock(&things.lock); /* as a thread that the child of a fork does not have */
    lport_pool_take_back(&things);
    cr_assert_null(lport_pool_find(&things, name));
    cr_assert_eq(lport_pool_taken(&things), 0);
    cr_assert_eq(take(), first);
    cr_assert_eq(take(), second);
    cr_assert_eq(take(), third);
    struct thing *fresh = take();
    cr_assert(fresh != first && fresh != second && fresh != third);
    cr_assert_neq(lport_pool_name(first), name);
    cr_assert(!lport_pool_is_named(second));
}
