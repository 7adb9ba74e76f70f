/* transport - what may lie between the octets that a connection's user moves and those that its
 * descriptor moves (layer 2); see tls. A slot has one or none, from the moment it is attached until
 * the slot is closed, which frees it.
 *
 * Invariant: whoever calls it has entered the slot; so it is not freed under anybody. */
#ifndef LPORT_TRANSPORT_H
#define LPORT_TRANSPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lport_slot; /* see handle.h */
struct lport_transport;

/* None of these blocks. FD is the descriptor of SLOT. */
struct lport_transport_calls {
    /* As lport_socket_receive; with PEEK what is received stays there to be received. */
    int64_t (*receive)(struct lport_transport *transport, struct lport_slot *slot, int fd,
                       uint8_t *octets, size_t len, bool peek);
    /* As lport_socket_send, a connection's. With LEN 0: hands on what the transport holds of octets
     * that were taken before. 0: it holds nothing; LPORT_WOULD_BLOCK: it does still. */
    int64_t (*send)(struct lport_transport *transport, struct lport_slot *slot, int fd,
                    const uint8_t *octets, size_t len);
    /* Tells the peer that no more octets come, behind those that were taken: 0, or
     * LPORT_WOULD_BLOCK, and then it is to be called again. */
    int64_t (*end)(struct lport_transport *transport, struct lport_slot *slot, int fd);
    /* In the child of a fork, in which no other thread is. */
    void (*forked)(struct lport_transport *transport);
    void (*free)(struct lport_transport *transport);
};

struct lport_transport {
    const struct lport_transport_calls *calls;
    atomic_bool ready; /* a receive finds octets without asking the system */
    atomic_bool stuck; /* a send waits for what the peer has still to send, and not for room */
};

#endif
