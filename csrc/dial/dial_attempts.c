/* dial_attempts - the addresses of a dial, tried as the race says (layer 3). Part of dial; stands
 * on os, status, local, race and on dial_attempt. See dial_attempts.h.
 *
 * Which failure tells most, once every address has failed: a lack of resources on this machine,
 * which is temporary and makes every other failure doubtful; then the one whose packets came
 * farthest: the host answered (refused; a reset counts as that), something on the way did (denied,
 * host unreachable), nobody did (timed out), nothing left this machine (network unreachable, then
 * what is wrong with our own address). Among equals the first.
 *
 * Invariant: an attempt has its socket to itself from its start to its end, see dial_attempt.h; the
 * winner's goes to the caller, every other is closed where its attempt ends. */
#include "dial_attempts.h"

#include "address/address.h"
#include "base/os.h"
#include "base/status.h"
#include "libport.h"
#include "socket/local.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- the addresses --------------------------------------------------------------------------- */

void lport_attempts_init(struct lport_attempts *attempts, int32_t kind, int32_t flags,
                         const uint8_t *local) {
    struct lport_attempt_plan *plan = &attempts->plan;
    *plan = (struct lport_attempt_plan){.kind = kind, .flags = flags & ~LPORT_TWO_LOCALS};
    for (int i = 0; local != NULL && i < LPORT_ATTEMPT_LOCALS; i++) {
        memcpy(plan->locals[i], local, LPORT_ADDRESS_SIZE);
        lport_address_unmap(plan->locals[i]);
        local += (flags & LPORT_TWO_LOCALS) != 0 ? LPORT_ADDRESS_SIZE : 0;
    }
    lport_race_init(&attempts->race, NULL, 0);
    attempts->in_order = false;
    attempts->memory = NULL;
    attempts->settings = NULL;
    attempts->tried = 0;
    attempts->polling = 0;
}

int64_t lport_attempts_set(struct lport_attempts *attempts, const uint8_t *settings,
                           int32_t count) {
    if (attempts->settings != NULL || count < 0) {
        return lport_status_make(LPORT_INVALID);
    }
    if (count == 0) {
        return 0;
    }
    size_t size = (size_t)count * LPORT_SETTING_SIZE;
    attempts->settings = lport_os.calloc(1, size);
    if (attempts->settings == NULL) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    memcpy(attempts->settings, settings, size);
    attempts->plan.settings = (struct lport_settings){attempts->settings, count};
    return 0;
}

/* Moves what is in the arrays of ATTEMPTS into ROOM, memory for CAP addresses and one descriptor
 * more. They lie in one piece, ordered by what they have to be aligned to. */
static void move_into(struct lport_attempts *attempts, void *room, int32_t cap) {
    struct lport_attempt *all = room;
    struct pollfd *fds = (struct pollfd *)(all + cap);
    int32_t *polled = (int32_t *)(fds + cap + 1);
    int32_t *order = polled + cap;
    struct lport_race_entry *entries = (struct lport_race_entry *)(order + cap);
    size_t count = (size_t)attempts->race.count;
    if (count > 0) {
        memcpy(all, attempts->all, count * sizeof *all);
        memcpy(fds, attempts->fds, attempts->polling * sizeof *fds);
        memcpy(polled, attempts->polled, attempts->polling * sizeof *polled);
        memcpy(order, attempts->order, (size_t)attempts->tried * sizeof *order);
        memcpy(entries, attempts->race.entries, count * sizeof *entries);
    }
    attempts->all = all;
    attempts->fds = fds;
    attempts->polled = polled;
    attempts->order = order;
    lport_race_move(&attempts->race, entries, cap);
}

int64_t lport_attempts_reserve(struct lport_attempts *attempts, int32_t more) {
    int32_t cap = attempts->race.count + more;
    if (attempts->race.cap == 0 && cap <= 1) {
        move_into(attempts, attempts->one, 1);
    } else if (cap > attempts->race.cap) {
        void *room = lport_os.calloc((size_t)cap + 1, sizeof *attempts->one);
        if (room == NULL) {
            return lport_status_make(LPORT_MEMORY_EXHAUSTED);
        }
        move_into(attempts, room, cap);
        free(attempts->memory);
        attempts->memory = room;
    }
    return 0;
}

bool lport_attempts_has(const struct lport_attempts *attempts, const uint8_t *address) {
    uint8_t room[LPORT_ADDRESS_SIZE];
    address = lport_address_plain(address, room);
    for (int32_t i = 0; i < attempts->race.count; i++) {
        if (lport_address_equal(attempts->all[i].address, address) == 1) {
            return true;
        }
    }
    return false;
}

void lport_attempts_free(struct lport_attempts *attempts) {
    free(attempts->memory);
    free(attempts->settings);
}

void lport_attempts_add(struct lport_attempts *attempts, const uint8_t *address) {
    uint8_t room[LPORT_ADDRESS_SIZE];
    address = lport_address_plain(address, room);
    if (lport_attempt_own(&attempts->plan, address) != NULL) {
        int32_t family = attempts->in_order ? LPORT_ANY : address[LPORT_AT_FAMILY];
        int32_t index = lport_race_arrived(&attempts->race, family);
        lport_attempt_init(&attempts->all[index], address);
    }
}

int64_t lport_attempts_all_added(struct lport_attempts *attempts, int64_t found) {
    lport_race_all_arrived(&attempts->race);
    return lport_status_make(attempts->race.count > 0 ? LPORT_IN_PROGRESS
                             : found > 0              ? LPORT_ADDRESS_NOT_AVAILABLE
                                                      : LPORT_HOST_NOT_FOUND);
}

const struct lport_attempt *lport_attempts_at(const struct lport_attempts *attempts,
                                              int32_t index) {
    return &attempts->all[attempts->order[index]];
}

/* ---- the attempts that run ------------------------------------------------------------------- */

/* Takes note of STATUS, with which attempt INDEX has come back. */
static void settle(struct lport_attempts *attempts, int32_t index, int64_t status) {
    struct lport_attempt *attempt = &attempts->all[index];
    if (status == 0) { /* another may have won: the race will tell */
        lport_race_connected(&attempts->race, index);
    } else if (!lport_status_is(status, LPORT_IN_PROGRESS)) {
        attempt->status = status;
        lport_attempt_close(attempt, 0);
        lport_race_failed(&attempts->race, index);
    }
}

static void start_attempt(struct lport_attempts *attempts, int32_t index, int64_t now) {
    attempts->order[attempts->tried++] = index;
    settle(attempts, index, lport_attempt_start(&attempts->all[index], &attempts->plan, now));
}

/* Looks at the attempts that were written down by the latest step: who has an end, whose pause is
 * over. */
static void look_at_attempts(struct lport_attempts *attempts, int64_t now) {
    struct lport_attempt *all = attempts->all;
    bool every = attempts->polling > 0 && lport_os_poll(attempts->fds, attempts->polling, 0) < 0;
    for (nfds_t i = 0; i < attempts->polling; i++) {
        int32_t index = attempts->polled[i];
        if (every || attempts->fds[i].revents != 0) {
            settle(attempts, index, lport_attempt_look(&all[index], &attempts->plan, now));
        }
    }
    for (int32_t i = 0; i < attempts->tried; i++) {
        int32_t index = attempts->order[i];
        if (all[index].retry_at <= now) {
            settle(attempts, index, lport_attempt_retry(&all[index], &attempts->plan, now));
        }
    }
}

static void poll_for(struct lport_attempts *attempts, int32_t index) {
    attempts->fds[attempts->polling] =
        (struct pollfd){.fd = lport_attempt_descriptor(&attempts->all[index]), .events = POLLOUT};
    attempts->polled[attempts->polling++] = index;
}

/* Writes down what to wait for until UNTIL: descriptors, and the end of the earliest pause. */
static void prepare_wait(struct lport_attempts *attempts, int64_t until) {
    attempts->polling = 0;
    attempts->wake_at = until;
    for (int32_t i = 0; i < attempts->tried; i++) {
        const struct lport_attempt *attempt = lport_attempts_at(attempts, i);
        if (attempt->retry_at != LPORT_NEVER) {
            attempts->wake_at =
                attempt->retry_at < attempts->wake_at ? attempt->retry_at : attempts->wake_at;
        } else if (attempt->socket != 0) {
            poll_for(attempts, attempts->order[i]);
        }
    }
}

/* ---- the race -------------------------------------------------------------------------------- */

/* How much a failure of KIND tells; the more the higher. */
static int weight(int32_t kind) {
    static const uint8_t weights[LPORT_KIND_END] = {
        [LPORT_DESCRIPTORS_EXHAUSTED] = 8, [LPORT_MEMORY_EXHAUSTED] = 8,
        [LPORT_BUFFERS_EXHAUSTED] = 8,     [LPORT_CONNECTION_REFUSED] = 7,
        [LPORT_PATH_NOT_FOUND] = 7,        [LPORT_CONNECT_DENIED] = 6,
        [LPORT_HOST_UNREACHABLE] = 5,      [LPORT_CONNECT_TIMED_OUT] = 4,
        [LPORT_NETWORK_UNREACHABLE] = 3,   [LPORT_ADDRESS_IN_USE] = 2,
        [LPORT_PERMISSION_DENIED] = 2,     [LPORT_ADDRESS_NOT_AVAILABLE] = 2,
        [LPORT_PATH_UNUSABLE] = 2,         [LPORT_CONNECT_FAILED] = 1,
    };
    return weights[kind];
}

static int64_t most_telling_failure(const struct lport_attempts *attempts) {
    int64_t most = lport_status_make(LPORT_CONNECT_FAILED);
    int most_weight = -1;
    for (int32_t i = 0; i < attempts->tried; i++) {
        int64_t status = lport_attempts_at(attempts, i)->status;
        if (weight(lport_status_kind(status)) > most_weight) {
            most = status;
            most_weight = weight(lport_status_kind(status));
        }
    }
    return most;
}

/* Takes the socket of the winner ATTEMPT, which is the caller's from here on. */
static int64_t take_socket(struct lport_attempt *attempt) {
    int64_t socket = attempt->socket;
    if (attempt->address[LPORT_AT_FAMILY] == LPORT_LOCAL) {
        lport_local_keep(socket);
    }
    attempt->status = 0;
    attempt->socket = 0;
    return socket;
}

/* Does what the race says, until it says to wait or is over: what lport_attempts_step returns. */
static int64_t run_race(struct lport_attempts *attempts, int64_t now) {
    for (;;) {
        struct lport_race_action action = lport_race_next(&attempts->race, now);
        switch (action.verb) {
        case LPORT_RACE_START:
            start_attempt(attempts, action.index, now);
            break;
        case LPORT_RACE_CANCEL:
            lport_attempt_close(&attempts->all[action.index], 0);
            break;
        case LPORT_RACE_WAIT:
            prepare_wait(attempts, action.until);
            return lport_status_make(LPORT_IN_PROGRESS);
        case LPORT_RACE_DONE:
            return take_socket(&attempts->all[action.index]);
        case LPORT_RACE_FAILED:
            return most_telling_failure(attempts);
        case LPORT_RACE_STOPPED:
            return lport_status_make(LPORT_CLOSED);
        }
    }
}

int64_t lport_attempts_step(struct lport_attempts *attempts, int64_t now) {
    look_at_attempts(attempts, now);
    return run_race(attempts, now);
}

void lport_attempts_stop(struct lport_attempts *attempts) {
    lport_race_stop(&attempts->race);
    (void)run_race(attempts, INT64_MIN);
}
