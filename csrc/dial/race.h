/* race - which address to try when, and who has won: RFC 8305, sections 5 and 8 (layer 3).
 *
 * A pure state machine: the caller tells it what happened and at what time, and asks for the next
 * action until that is to wait or the race is over. No clock, no system call, no memory of its own.
 *
 *     lport_race_init(&race, entries, cap);
 *     lport_race_arrived(&race, LPORT_INET6);      once per address, in the resolver's order
 *     lport_race_all_arrived(&race);               no more will come
 *     do the actions of lport_race_next(&race, now) until it says wait, done, failed or stopped;
 *     tell what became of them: lport_race_failed, lport_race_connected. */
#ifndef LPORT_RACE_H
#define LPORT_RACE_H

#include <stdbool.h>
#include <stdint.h>

#define LPORT_RACE_DELAY INT64_C(250000000) /* ns between attempts, RFC 8305 section 8 */

enum lport_race_verb {
    LPORT_RACE_START,   /* begin to connect to address `index` */
    LPORT_RACE_CANCEL,  /* close the attempt at address `index`: it has lost */
    LPORT_RACE_WAIT,    /* nothing to do until something happens or `until` is there */
    LPORT_RACE_DONE,    /* over: address `index` has won */
    LPORT_RACE_FAILED,  /* over: every address has failed, or there was none */
    LPORT_RACE_STOPPED, /* over: stopped by the caller */
};

struct lport_race_action {
    enum lport_race_verb verb;
    int32_t index;
    int64_t until; /* LPORT_NEVER: only an event can change something */
};

/* One address; the caller owns the array and does not touch what is in it. */
struct lport_race_entry {
    int8_t family;
    int8_t phase;
};

struct lport_race {
    struct lport_race_entry *entries;
    int32_t cap;         /* room in entries */
    int32_t count;       /* addresses that have arrived */
    int32_t waiting;     /* of them, not started yet */
    int32_t running;     /* of them, started and without an end */
    int32_t first;       /* every entry below this one has been started */
    int32_t last_family; /* of the latest attempt; 0 before the first */
    int32_t winner;      /* index, or -1 */
    int32_t cancelled;   /* every entry below this one has been cancelled if it had to be */
    int64_t due;         /* when the next attempt may start */
    bool complete;       /* all addresses have arrived */
    bool stopped;
};

/* ENTRIES has room for CAP addresses and stays the caller's; it may be NULL if CAP is 0. */
void lport_race_init(struct lport_race *race, struct lport_race_entry *entries, int32_t cap);

/* ENTRIES, with room for CAP addresses, is the array from now on: it begins with what is in the
 * former one. */
void lport_race_move(struct lport_race *race, struct lport_race_entry *entries, int32_t cap);

/* An address of FAMILY is known: its index, 0, 1, ... in the order of arrival; -1: no room. Where
 * all are told to be of one family they are tried in that order. */
int32_t lport_race_arrived(struct lport_race *race, int32_t family);

/* No more addresses will come. */
void lport_race_all_arrived(struct lport_race *race);

/* The attempt at address INDEX could not start or has failed; it has connected. An attempt that
 * does not run (never started, failed before, cancelled) is left as it is. */
void lport_race_failed(struct lport_race *race, int32_t index);
void lport_race_connected(struct lport_race *race, int32_t index);

/* The caller has lost interest. */
void lport_race_stop(struct lport_race *race);

/* What to do at the time NOW, in nanoseconds of any clock that does not go back. An address counts
 * as started with the action that starts it. */
struct lport_race_action lport_race_next(struct lport_race *race, int64_t now);

#endif
