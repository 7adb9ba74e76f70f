/* poller - what a backend of pollers is (layer 3). The exported part is in libport.h.
 *
 * poller_member.c keeps which socket is in which poller, poller.c wakes and deadlines; a backend
 * only asks the system. Another one is a file like poller_epoll.c and a row in the table of
 * poller.c. */
#ifndef LPORT_POLLER_H
#define LPORT_POLLER_H

#include "socket/handle.h"

#include <stdint.h>

/* One socket in one poller. Guarded by the lock of the socket's slot. */
struct lport_member {
    struct lport_watch watch; /* first: it is how the slot knows the member */
    struct lport_poller *poller;
    struct lport_slot *slot;
    struct lport_member *next, *previous; /* in the poller, under its lock */
    int64_t socket;
    int32_t interest;
    uint32_t place; /* the backend's own, and so is this: what it is asked for now, */
    int64_t number; /* see lport_poller_number */
};

struct lport_poller {
    const struct lport_poller_backend *backend;
    struct lport_slot *slot;  /* of the poller; its descriptor is the eventfd that wakes */
    struct lport_watch watch; /* on that slot */
    pthread_mutex_t lock;     /* guards members and, if it likes, what the backend has */
    struct lport_member *members;
    uint32_t process;   /* lport_handle_process of the one that made it */
    atomic_bool wanted; /* somebody asked for a wake that nobody has got yet */
    int descriptor;     /* the backend's own, or -1 */
    void *data;         /* the backend's own */
};

struct lport_poller_backend {
    /* Fills in DESCRIPTOR and DATA. 0 or a status, and then nothing is left behind. */
    int64_t (*open)(struct lport_poller *poller);
    /* Frees them. Nobody is in the poller any more. */
    void (*close)(struct lport_poller *poller);
    /* The interest of MEMBER changes to INTEREST; 0 or a status, and then nothing has changed. */
    int64_t (*change)(struct lport_poller *poller, struct lport_member *member, int32_t interest);
    /* MEMBER comes in, with no interest yet, or goes. 0 or a status; removing never fails. */
    int64_t (*add)(struct lport_poller *poller, struct lport_member *member);
    void (*remove)(struct lport_poller *poller, struct lport_member *member);
    /* The beginning and the end of a wait, both [nowait]. A turn, or a status; 0, or a status and
     * nothing has ended. */
    int64_t (*begin)(struct lport_poller *poller, int64_t handle);
    int64_t (*end)(struct lport_poller *poller, int64_t turn);
    /* Waits once. How many events; 0: somebody has woken, or nothing; LPORT_TIMED_OUT;
     * LPORT_INTERRUPTED; LPORT_WOULD_BLOCK. Holds nothing. */
    int64_t (*wait)(struct lport_poller *poller, int64_t turn, int64_t *events, int32_t cap,
                    int64_t deadline);
    /* Wakes every wait under way. */
    void (*wake)(struct lport_poller *poller);
};

extern const struct lport_poller_backend lport_poller_on_poll;
#ifdef __linux__
extern const struct lport_poller_backend lport_poller_on_epoll;
#endif

/* Makes the eventfd of POLLER readable. */
void lport_poller_signal(struct lport_poller *poller);

/* All that has to be known of MEMBER with INTEREST at present to ask the system for it, and to make
 * an event of what that says. With the lock of the member's slot held. */
int64_t lport_poller_number(const struct lport_member *member, int32_t interest);

/* What poll(2) is asked for by NUMBER; 0: nothing. */
uint32_t lport_poller_bits(int64_t number);

/* The event by NUMBER of which poll(2) said READY, into EVENT; how many (0 or 1). That of a socket
 * that has been closed is dropped later. */
int32_t lport_poller_event(int64_t number, uint32_t ready, int64_t *event);

#endif
