/* race - RFC 8305 as a pure state machine (layer 3). Stands on nothing. See race.h.
 *
 * The addresses of one family keep their order; the families take turns, the family of the first
 * address first ("First Address Family Count" 1, section 4).
 *
 * Invariant: there is at most one winner, and once there is one, or the race was stopped, nothing
 * starts any more and every attempt that still runs is cancelled before the race says that it is
 * over. */
#include "race.h"

#include "libport.h"

#include <stddef.h>

enum { WAITING, RUNNING, ENDED };

void lport_race_init(struct lport_race *race, struct lport_race_entry *entries, int32_t cap) {
    *race = (struct lport_race){.entries = entries, .cap = cap, .winner = -1, .due = INT64_MIN};
}

void lport_race_move(struct lport_race *race, struct lport_race_entry *entries, int32_t cap) {
    race->entries = entries;
    race->cap = cap;
}

int32_t lport_race_arrived(struct lport_race *race, int32_t family) {
    if (race->count >= race->cap) {
        return -1;
    }
    race->entries[race->count] =
        (struct lport_race_entry){.family = (int8_t)family, .phase = WAITING};
    race->waiting++;
    return race->count++;
}

void lport_race_all_arrived(struct lport_race *race) {
    race->complete = true;
}

/* Takes INDEX out of the attempts that run; false if it was none of them. */
static bool end_attempt(struct lport_race *race, int32_t index) {
    if (index < 0 || index >= race->count || race->entries[index].phase != RUNNING) {
        return false;
    }
    race->entries[index].phase = ENDED;
    race->running--;
    return true;
}

void lport_race_failed(struct lport_race *race, int32_t index) {
    if (end_attempt(race, index)) {
        race->due = INT64_MIN; /* no reason to hold the next one back any longer */
    }
}

void lport_race_connected(struct lport_race *race, int32_t index) {
    /* Whoever comes second still runs, and is cancelled like the others. */
    if (race->winner < 0 && !race->stopped && end_attempt(race, index)) {
        race->winner = index;
    }
}

void lport_race_stop(struct lport_race *race) {
    if (race->winner < 0) {
        race->stopped = true;
    }
}

/* The address whose turn it is: the first one waiting of another family than the latest attempt
 * had, or the first one waiting. There is one. */
static int32_t next_address(struct lport_race *race) {
    while (race->entries[race->first].phase != WAITING) {
        race->first++;
    }
    for (int32_t i = race->first; i < race->count; i++) {
        if (race->entries[i].phase == WAITING && race->entries[i].family != race->last_family) {
            return i;
        }
    }
    return race->first;
}

static struct lport_race_action start_next(struct lport_race *race, int64_t now) {
    int32_t index = next_address(race);
    race->entries[index].phase = RUNNING;
    race->last_family = race->entries[index].family;
    race->waiting--;
    race->running++;
    race->due = now > INT64_MAX - LPORT_RACE_DELAY ? INT64_MAX : now + LPORT_RACE_DELAY;
    return (struct lport_race_action){.verb = LPORT_RACE_START, .index = index};
}

/* The race is decided: the attempts that run are cancelled one by one, then it is over. */
static struct lport_race_action wind_up(struct lport_race *race) {
    for (; race->running > 0; race->cancelled++) {
        if (end_attempt(race, race->cancelled)) {
            return (struct lport_race_action){.verb = LPORT_RACE_CANCEL, .index = race->cancelled};
        }
    }
    return (struct lport_race_action){
        .verb = race->winner >= 0 ? LPORT_RACE_DONE : LPORT_RACE_STOPPED,
        .index = race->winner,
    };
}

struct lport_race_action lport_race_next(struct lport_race *race, int64_t now) {
    if (race->winner >= 0 || race->stopped) {
        return wind_up(race);
    }
    if (race->waiting > 0 && now >= race->due) {
        return start_next(race, now);
    }
    if (race->waiting == 0 && race->running == 0 && race->complete) {
        return (struct lport_race_action){.verb = LPORT_RACE_FAILED, .index = -1};
    }
    return (struct lport_race_action){
        .verb = LPORT_RACE_WAIT,
        .index = -1,
        .until = race->waiting > 0 ? race->due : LPORT_NEVER,
    };
}
