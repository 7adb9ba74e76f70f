/* The race, in virtual time: the scripted events of tests/vectors/race.tsv (behaviour 48), and what
 * would make them too long. */
#include "dial/race.h"
#include "libport.h"
#include "vectors.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 64, MANY = 1000 };

#define MS INT64_C(1000000)

TestSuite(race, .timeout = 10);

struct script {
    struct lport_race race;
    struct lport_race_entry entries[ROOM];
    char name[256];
    int steps;
};

/* Tells RACE what one word of the table says: `failed 3`. */
static void tell(struct lport_race *race, const char *event) {
    const char *argument = strchr(event, ' ');
    int32_t index = argument != NULL ? atoi(argument) : -1;
    if (strncmp(event, "arrive ", 7) == 0) {
        for (const char *family = event + 7; *family != 0; family++) {
            cr_assert_geq(lport_race_arrived(race, *family - '0'), 0);
        }
    } else if (strcmp(event, "complete") == 0) {
        lport_race_all_arrived(race);
    } else if (strncmp(event, "failed ", 7) == 0) {
        lport_race_failed(race, index);
    } else if (strncmp(event, "connected ", 10) == 0) {
        lport_race_connected(race, index);
    } else if (strcmp(event, "stop") == 0) {
        lport_race_stop(race);
    } else {
        cr_assert_str_eq(event, "tick", "unknown event %s", event);
    }
}

static void tell_all(struct lport_race *race, const char *events) {
    char copy[VECTORS_LINE];
    snprintf(copy, sizeof copy, "%s", events);
    for (char *next, *event = copy; event != NULL; event = next) {
        next = strstr(event, ", ");
        if (next != NULL) {
            *next = 0;
            next += 2;
        }
        tell(race, event);
    }
}

/* ACTION as the table spells it, after what is in TEXT. True if more actions follow. */
static int describe(struct lport_race_action action, char *text, size_t cap) {
    static const char *const verbs[] = {
        [LPORT_RACE_START] = "start",   [LPORT_RACE_CANCEL] = "cancel",
        [LPORT_RACE_WAIT] = "wait",     [LPORT_RACE_DONE] = "done",
        [LPORT_RACE_FAILED] = "failed", [LPORT_RACE_STOPPED] = "stopped",
    };
    size_t len = strlen(text);
    const char *gap = len > 0 ? " " : "";
    const char *verb = verbs[action.verb];
    if (action.verb == LPORT_RACE_WAIT && action.until == LPORT_NEVER) {
        snprintf(text + len, cap - len, "%s%s never", gap, verb);
    } else if (action.verb == LPORT_RACE_WAIT) {
        snprintf(text + len, cap - len, "%s%s %lld", gap, verb, (long long)(action.until / MS));
    } else if (action.index >= 0) {
        snprintf(text + len, cap - len, "%s%s %d", gap, verb, action.index);
    } else {
        snprintf(text + len, cap - len, "%s%s", gap, verb);
    }
    return action.verb == LPORT_RACE_START || action.verb == LPORT_RACE_CANCEL;
}

static void check_row(struct script *script, const struct vectors *row) {
    char actions[VECTORS_LINE] = "";
    int64_t now = atoll(row->field[0]) * MS;
    tell_all(&script->race, row->field[1]);
    while (describe(lport_race_next(&script->race, now), actions, sizeof actions)) {
    }
    cr_assert_str_eq(actions, row->field[2], "line %d (%s): %s, not %s", row->number, script->name,
                     actions, row->field[2]);
    script->steps++;
}

Test(race, every_case_of_the_table) {
    struct vectors vectors;
    struct script script = {.name = ""};
    int cases = 0;
    cr_assert(vectors_open(&vectors, "race.tsv"));
    while (vectors_next(&vectors)) {
        if (vectors.count == 1) {
            cr_assert(cases == 0 || script.steps > 0, "%s is empty", script.name);
            snprintf(script.name, sizeof script.name, "%.200s", vectors.field[0]);
            lport_race_init(&script.race, script.entries, ROOM);
            script.steps = 0;
            cases++;
        } else {
            cr_assert_eq(vectors.count, 3, "line %d", vectors.number);
            check_row(&script, &vectors);
        }
    }
    cr_assert(vectors_close(&vectors));
    cr_assert_geq(cases, 30);
}

/* A race of MANY addresses, IPv6 first, then IPv4, all of them known. */
static void begin_many(struct lport_race *race, struct lport_race_entry *entries) {
    lport_race_init(race, entries, MANY);
    for (int32_t i = 0; i < MANY; i++) {
        cr_assert_eq(lport_race_arrived(race, i < MANY / 2 ? LPORT_INET6 : LPORT_INET), i);
    }
    lport_race_all_arrived(race);
}

/* The K-th address to be tried of those that begin_many makes. */
static int32_t expected_turn(int32_t k) {
    return k % 2 == 0 ? k / 2 : MANY / 2 + k / 2;
}

Test(race, a_thousand_addresses_that_refuse_take_no_time) { /* behaviour 48 */
    static struct lport_race_entry entries[MANY];
    struct lport_race race;
    begin_many(&race, entries);
    for (int32_t k = 0; k < MANY; k++) {
        struct lport_race_action action = lport_race_next(&race, 5);
        cr_assert_eq(action.verb, LPORT_RACE_START);
        cr_assert_eq(action.index, expected_turn(k));
        lport_race_failed(&race, action.index);
    }
    cr_assert_eq(lport_race_next(&race, 5).verb, LPORT_RACE_FAILED);
}

Test(race, a_thousand_addresses_that_are_silent_and_the_last_wins) { /* behaviour 48 */
    static struct lport_race_entry entries[MANY];
    struct lport_race race;
    struct lport_race_action action;
    begin_many(&race, entries);
    for (int32_t k = 0; k < MANY; k++) {
        action = lport_race_next(&race, k * LPORT_RACE_DELAY);
        cr_assert_eq(action.verb, LPORT_RACE_START);
        cr_assert_eq(action.index, expected_turn(k));
        action = lport_race_next(&race, k * LPORT_RACE_DELAY);
        cr_assert_eq(action.verb, LPORT_RACE_WAIT);
    }
    lport_race_connected(&race, MANY - 1);
    for (int32_t k = 0; k < MANY - 1; k++) {
        action = lport_race_next(&race, MANY * LPORT_RACE_DELAY);
        cr_assert_eq(action.verb, LPORT_RACE_CANCEL);
        cr_assert_eq(action.index, k);
    }
    action = lport_race_next(&race, MANY * LPORT_RACE_DELAY);
    cr_assert_eq(action.verb, LPORT_RACE_DONE);
    cr_assert_eq(action.index, MANY - 1);
}

Test(race, an_address_without_room_is_told) {
    struct lport_race_entry entry;
    struct lport_race race;
    lport_race_init(&race, NULL, 0);
    cr_assert_eq(lport_race_arrived(&race, LPORT_INET), -1);
    lport_race_init(&race, &entry, 1);
    cr_assert_eq(lport_race_arrived(&race, LPORT_INET), 0);
    cr_assert_eq(lport_race_arrived(&race, LPORT_INET), -1);
    lport_race_all_arrived(&race);
    cr_assert_eq(lport_race_next(&race, 0).index, 0);
}

Test(race, the_end_of_time_does_not_overflow) {
    struct lport_race_entry entries[2];
    struct lport_race race;
    lport_race_init(&race, entries, 2);
    lport_race_arrived(&race, LPORT_INET);
    lport_race_arrived(&race, LPORT_INET);
    lport_race_all_arrived(&race);
    cr_assert_eq(lport_race_next(&race, INT64_MAX - 1).verb, LPORT_RACE_START);
    struct lport_race_action action = lport_race_next(&race, INT64_MAX - 1);
    cr_assert_eq(action.verb, LPORT_RACE_WAIT);
    cr_assert_eq(action.until, INT64_MAX);
}

/* Every order of ends of three attempts that run: one winner at most, and as many ends as begins.
 */
Test(race, every_attempt_that_starts_has_one_end) {
    for (int script = 0; script < 64; script++) {
        struct lport_race_entry entries[3];
        struct lport_race race;
        struct lport_race_action action;
        int started = 0, ended = 0;
        lport_race_init(&race, entries, 3);
        for (int i = 0; i < 3; i++) {
            lport_race_arrived(&race, LPORT_INET);
        }
        lport_race_all_arrived(&race);
        for (int64_t at = 0; at < 3; at++) {
            cr_assert_eq(lport_race_next(&race, at * LPORT_RACE_DELAY).verb, LPORT_RACE_START);
            started++;
        }
        for (int32_t i = 0; i < 3; i++) { /* two bits each: nothing, failed, connected, stop */
            int event = script >> (2 * i) & 3;
            event == 1 ? lport_race_failed(&race, i) : (void)0;
            event == 2 ? lport_race_connected(&race, i) : (void)0;
            event == 3 ? lport_race_stop(&race) : (void)0;
            ended += event == 1;
        }
        while ((action = lport_race_next(&race, INT64_MAX - 1)).verb == LPORT_RACE_CANCEL) {
            ended++;
        }
        ended += action.verb == LPORT_RACE_DONE;
        cr_assert_eq(started, ended + race.running, "script %d", script);
        cr_assert(action.verb == LPORT_RACE_WAIT || race.running == 0, "script %d", script);
    }
}
