/* handle - the table of sockets (layer 2): generation-tagged integers, user counts, closing.
 *
 * A constructor reserves a slot first, makes its descriptor, then publishes both or releases the
 * slot; so nothing can fail after the descriptor exists. An operation enters the slot, uses the
 * descriptor, leaves. */
#ifndef LPORT_HANDLE_H
#define LPORT_HANDLE_H

#include "address/address.h"
#include "base/pool.h"
#include "base/status.h"
#include "transport.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct lport_waiter; /* see wait.c */

/* The name that a socket made in the file system, to be removed with it. */
struct lport_made_path {
    pid_t maker; /* a forked child that closes its copy removes nothing */
    dev_t device;
    ino_t inode;
    char path[LPORT_LOCAL_MAX + 1];
};

struct lport_slot;

/* Somebody who has to know when a socket is closed, see poller_member.c. Whoever holds the lock of
 * the slot may put a watch in its list or take one out. */
struct lport_watch {
    struct lport_watch *next;
    /* Called once, by the closer, with the slot's lock held and the descriptor still open; the
     * watch has been unlinked and is the callee's own. Of other slots it may lock only that of a
     * poller: while one of those is held nobody locks another, so no two wait for each other. */
    void (*closing)(struct lport_watch *watch, struct lport_slot *slot);
    /* Or NULL. Called when what lport_handle_is_stuck says has changed, with the slot's lock held;
     * the watch stays linked. It may lock as much. */
    void (*changed)(struct lport_watch *watch, struct lport_slot *slot);
};

struct lport_slot {
    struct lport_pooled pooled; /* first, see pool.h; the generation is in the state */
    _Atomic uint64_t state;     /* generation << 32 | closing << 31 | users */
    int fd;                     /* valid while the slot is published */
    uint32_t forks;             /* lport_handle_forks when it was published */
    int32_t family, kind;       /* LPORT_INET ..., LPORT_STREAM ...; fixed when published */
    _Atomic uint32_t flags;     /* LPORT_STATE_ and LPORT_SLOT_ bits */
    atomic_bool awaited;        /* somebody has been in lport_socket_gone */
    _Atomic uint32_t epoch;     /* counts the descriptors closed in this slot */
    _Atomic int64_t broken;     /* the status that broke the connection, or 0 */
    pthread_mutex_t lock;       /* guards waiters and watches */
    struct lport_waiter *waiters;
    struct lport_watch *watches;
    void *owner;                               /* what RETIRE frees, or NULL */
    void (*retire)(struct lport_slot *slot);   /* or NULL: called by the last one to leave */
    struct lport_made_path *made_path;         /* or NULL */
    struct lport_transport *_Atomic transport; /* or NULL */
};

enum {
    LPORT_SLOT_RESET = 1 << 16,        /* close with a reset */
    LPORT_SLOT_TIMED = 1 << 17,        /* every packet that comes has a time */
    LPORT_SLOT_UNJOINED = 1 << 18,     /* messages cannot be joined for UDP_SEGMENT here */
    LPORT_SLOT_LINGERS = 1 << 19,      /* SO_LINGER may have a time: close(2) would block for it */
    LPORT_SLOT_BLOCKS = 1 << 20,       /* the descriptor is not O_NONBLOCK now, see patience.c */
    LPORT_SLOT_NEVER_BLOCKS = 1 << 21, /* and never will be */
    LPORT_SLOT_JOINED = 1 << 22,       /* what is received may be several messages, UDP_GRO */
    LPORT_SLOT_QUEUES = 1 << 23,       /* the system may queue errors, IP_RECVERR */
    LPORT_SLOT_UNTOLD = 1 << 24,       /* and may have queued one that no call was told of */
    LPORT_SLOT_PARENTS = 1 << 25,      /* its transport was begun by a parent of this process */
    LPORT_SLOT_DETACHING = 1 << 26,    /* whoever closes it stays inside for its descriptor */
    LPORT_SLOT_DETACHED = 1 << 27,     /* and has it now: nobody closes that here */
};

/* [nowait] A free slot into *SLOT, invisible to everybody else. 0 or LPORT_MEMORY_EXHAUSTED. */
int64_t lport_handle_reserve(struct lport_slot **slot);

/* [nowait] Gives back a slot that was never published. */
void lport_handle_release(struct lport_slot *slot);

/* [nowait] Makes FD, a socket of FAMILY and KIND, the descriptor of SLOT; the socket. */
int64_t lport_handle_publish(struct lport_slot *slot, int fd, int32_t family, int32_t kind);

/* [nowait] Enters the slot of SOCKET: its descriptor, and the slot into *SLOT; or LPORT_CLOSED. */
int64_t lport_handle_enter(int64_t socket, struct lport_slot **slot);

/* [nowait] Leaves it; the last one to leave a closing slot closes its descriptor. */
void lport_handle_leave(struct lport_slot *slot);

/* [nowait] True if FD is the descriptor of a socket here, one that is just being closed included.
 */
bool lport_handle_has(int fd);

/* [nowait] Makes TRANSPORT that of SLOT, a connection that the caller has entered: true unless it
 * has one. */
bool lport_handle_attach(struct lport_slot *slot, struct lport_transport *transport);

/* The transport of SLOT, which the caller has entered, or NULL. */
static inline struct lport_transport *lport_handle_transport(struct lport_slot *slot) {
    return atomic_load_explicit(&slot->transport, memory_order_acquire);
}

/* True if a send on SLOT, which the caller has entered, waits for input, see transport.h. */
static inline bool lport_handle_is_stuck(struct lport_slot *slot) {
    const struct lport_transport *transport = lport_handle_transport(slot);
    return transport != NULL && atomic_load(&transport->stuck);
}

/* [nowait] Tells whoever watches SLOT, which the caller has entered, that this is not as before. */
void lport_handle_tell_changed(struct lport_slot *slot);

/* True once the slot, which the caller has entered, is being closed. */
bool lport_handle_is_closing(struct lport_slot *slot);

/* [nowait] What lport_socket_close is made of. Marks SLOT, which the caller has entered, as closing
 * with its FLAGS: true for the one caller that did. Tells whoever watches SLOT of it. True once the
 * descriptor of SOCKET, whose slot was SLOT, is closed. */
bool lport_handle_mark_closing(struct lport_slot *slot, int32_t flags);
void lport_handle_tell_watches(struct lport_slot *slot);
bool lport_handle_is_gone(struct lport_slot *slot, int64_t socket);

/* [nowait] True if SLOT, which is being closed, has no user but the caller; nobody enters it then.
 */
bool lport_handle_is_alone(struct lport_slot *slot);

/* The slot of SOCKET, which the caller has entered and not yet left, closing or not; NULL where
 * nobody is in it. */
struct lport_slot *lport_handle_entered(int64_t socket);

/* True if SOCKET is open and its connection is known to be broken. Enters nothing, so that whoever
 * waits may ask. */
bool lport_handle_is_broken(int64_t socket);

/* Drops from the COUNT records at RECORDS, SIZE numbers each of which the first is a socket, those
 * whose socket is not open; how many are left. They may be closed at any moment. */
int64_t lport_handle_drop_closed(int64_t *records, size_t size, int64_t count);

/* How many forks lie between this process and the one that loaded the library, as the child of
 * each: what was made at another count belongs to a parent. */
extern uint32_t lport_handle_process;

/* How many forks this process has been in, as the child or the parent: a descriptor that was made
 * at another count is shared with a process that cannot see the flags that its slot has here. */
extern _Atomic uint32_t lport_handle_forks;

#endif
