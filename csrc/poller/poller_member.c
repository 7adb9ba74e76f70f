/* poller_member - which socket is in which poller (layer 3). Part of poller; stands on os, status,
 * handle. See poller_member.h.
 *
 * Each membership of a socket in a poller is linked to both: to the socket's slot, so that a close
 * takes the socket out while its descriptor is still its own, and to the poller, so that the end of
 * the poller finds what it held. Locks are taken in this order: a socket's slot, then a poller.
 *
 * Invariant: while a member is linked to its slot, the descriptor is that of its socket and the
 * poller is not yet retired. */
#include "poller_member.h"

#include "base/os.h"
#include "libport.h"

#include <stdlib.h>

static void link_member(struct lport_poller *poller, struct lport_member *member) {
    member->watch.next = member->slot->watches;
    member->slot->watches = &member->watch;
    pthread_mutex_lock(&poller->lock);
    member->previous = NULL;
    member->next = poller->members;
    if (member->next != NULL) {
        member->next->previous = member;
    }
    poller->members = member;
    pthread_mutex_unlock(&poller->lock);
}

static void unlink_from_poller(struct lport_poller *poller, struct lport_member *member) {
    pthread_mutex_lock(&poller->lock);
    if (member->previous != NULL) {
        member->previous->next = member->next;
    } else {
        poller->members = member->next;
    }
    if (member->next != NULL) {
        member->next->previous = member->previous;
    }
    pthread_mutex_unlock(&poller->lock);
}

/* The socket of a member is being closed. */
static void member_closing(struct lport_watch *watch, struct lport_slot *slot) {
    struct lport_member *member = (struct lport_member *)watch;
    struct lport_poller *poller = member->poller;
    (void)slot;
    if (lport_poller_is_own(poller)) {
        poller->backend->remove(poller, member);
        unlink_from_poller(poller, member);
        free(member);
    } /* else the child of a fork, where nobody will ask for it again */
}

/* Whether output waits for input has changed. It is the same descriptor that the system is asked
 * for: that takes nothing of which there could be too little. */
static void member_changed(struct lport_watch *watch, struct lport_slot *slot) {
    struct lport_member *member = (struct lport_member *)watch;
    struct lport_poller *poller = member->poller;
    (void)slot;
    if (lport_poller_is_own(poller) && (member->interest & LPORT_OUTPUT) != 0) {
        (void)poller->backend->change(poller, member, member->interest);
    }
}

struct lport_watch **lport_member_find(struct lport_slot *slot, const struct lport_poller *poller) {
    struct lport_watch **place = &slot->watches;
    while (*place != NULL && ((*place)->closing != member_closing ||
                              ((struct lport_member *)*place)->poller != poller)) {
        place = &(*place)->next;
    }
    return *place == NULL ? NULL : place;
}

int64_t lport_member_add(struct lport_poller *poller, struct lport_slot *slot, int64_t socket,
                         int32_t interest) {
    struct lport_member *member = lport_os.calloc(1, sizeof *member);
    if (member == NULL) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    member->watch.closing = member_closing;
    member->watch.changed = member_changed;
    member->poller = poller;
    member->slot = slot;
    member->socket = socket;
    int64_t status = poller->backend->add(poller, member);
    if (status < 0) {
        goto free_member;
    }
    status = poller->backend->change(poller, member, interest);
    if (status < 0) {
        goto remove_member;
    }
    member->interest = interest;
    link_member(poller, member);
    return 0;

remove_member:
    poller->backend->remove(poller, member);
free_member:
    free(member);
    return status;
}

void lport_member_remove(struct lport_poller *poller, struct lport_watch **place) {
    struct lport_member *member = (struct lport_member *)*place;
    *place = member->watch.next;
    poller->backend->remove(poller, member);
    unlink_from_poller(poller, member);
    free(member);
}

int64_t lport_member_change(struct lport_poller *poller, struct lport_member *member,
                            int32_t interest) {
    if (interest == member->interest) {
        return 0;
    }
    int64_t status = poller->backend->change(poller, member, interest);
    if (status == 0) {
        member->interest = interest;
    }
    return status;
}

int64_t lport_member_claim(struct lport_poller *poller, struct lport_member *member) {
    int32_t interest = member->interest;
    int64_t status = lport_member_change(poller, member, 0);
    return status < 0 ? status : interest;
}

/* The first member's slot, or NULL. The member itself may be gone at any moment. */
static struct lport_slot *slot_of_a_member(struct lport_poller *poller) {
    pthread_mutex_lock(&poller->lock);
    struct lport_slot *slot = poller->members == NULL ? NULL : poller->members->slot;
    pthread_mutex_unlock(&poller->lock);
    return slot;
}

void lport_member_remove_all(struct lport_poller *poller) {
    struct lport_slot *slot;
    while ((slot = slot_of_a_member(poller)) != NULL) {
        pthread_mutex_lock(&slot->lock);
        struct lport_watch **place = lport_member_find(slot, poller);
        if (place != NULL) {
            lport_member_remove(poller, place);
        }
        pthread_mutex_unlock(&slot->lock);
    }
}
