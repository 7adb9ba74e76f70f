/* dial_attempt - one address of a dial and what becomes of it (layer 3). Part of dial; stands on
 * os, status, address, handle, socket, local. See dial_attempt.h. */
#include "dial_attempt.h"

#include "base/os.h"
#include "base/status.h"
#include "libport.h"
#include "socket/handle.h"
#include "socket/local.h"
#include "socket/socket.h"

#include <netinet/in.h>
#include <string.h>

enum { MAX_REDIALS = 2 }; /* after a connection to itself, see socket.h */

/* The pause before a full backlog is tried again: the first one, doubled up to the last. */
#define BACKLOG_FIRST INT64_C(1000000)
#define BACKLOG_LAST  INT64_C(50000000)

void lport_attempt_init(struct lport_attempt *attempt, const uint8_t *address) {
    memcpy(attempt->address, address, LPORT_ADDRESS_SIZE);
    attempt->socket = 0;
    attempt->status = lport_status_make(LPORT_IN_PROGRESS);
    attempt->retry_at = LPORT_NEVER;
    attempt->retry_in = BACKLOG_FIRST;
    attempt->redials = 0;
    attempt->unbound = false;
}

const uint8_t *lport_attempt_own(const struct lport_attempt_plan *plan, const uint8_t *address) {
    for (int i = 0; i < LPORT_ATTEMPT_LOCALS; i++) {
        int32_t family = plan->locals[i][LPORT_AT_FAMILY];
        if (family == LPORT_ANY || family == address[LPORT_AT_FAMILY]) {
            return plan->locals[i];
        }
    }
    return NULL;
}

void lport_attempt_close(struct lport_attempt *attempt, int32_t flags) {
    if (attempt->socket != 0) {
        lport_socket_close(attempt->socket, flags);
        attempt->socket = 0;
    }
    attempt->retry_at = LPORT_NEVER;
}

/* Lets the connect choose the port of ATTEMPT, which is to be bound without one: a bind takes a
 * port for its socket alone, so that there could be no more connections from the address than there
 * are ephemeral ports, to however many peers. ip(7): since Linux 4.2; where it is unknown nothing
 * else is lost. */
static void leave_port_to_connect(const struct lport_attempt *attempt) {
#ifdef IP_BIND_ADDRESS_NO_PORT
    int on = 1; /* of sockets of IPv6, too */
    (void)lport_os.setsockopt(lport_attempt_descriptor(attempt), IPPROTO_IP,
                              IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
#else
    (void)attempt;
#endif
}

/* Binds the socket of ATTEMPT, of FAMILY, to the own end OWN if that is one. 0 or a status. */
static int64_t bind_socket(struct lport_attempt *attempt, int32_t family, const uint8_t *own) {
    uint8_t room[LPORT_ADDRESS_SIZE];
    bool chosen = lport_address_port(own) != 0;
    if (own[LPORT_AT_FAMILY] == LPORT_ANY && !chosen) {
        return 0;
    }
    if (family != LPORT_LOCAL && !chosen) {
        leave_port_to_connect(attempt);
    }
    int64_t status = lport_local_bind(attempt->socket, lport_address_in_family(own, family, room));
    attempt->unbound = status < 0;
    return status;
}

/* Opens the socket of ATTEMPT and binds it as PLAN says. 0 or a status. */
static int64_t open_socket(struct lport_attempt *attempt, const struct lport_attempt_plan *plan) {
    int32_t family = attempt->address[LPORT_AT_FAMILY];
    const uint8_t *own = lport_attempt_own(plan, attempt->address);
    int32_t flags = plan->flags;
    if (lport_address_port(own) != 0) {
        /* Several attempts share the one port, and so do earlier connections in TIME_WAIT. */
        flags |= LPORT_REUSE_ADDRESS;
    }
    int64_t socket = lport_socket_open_with(family, plan->kind, flags, &plan->settings);
    if (socket < 0) {
        return socket;
    }
    attempt->socket = socket;
    return bind_socket(attempt, family, own);
}

/* Connects the socket of ATTEMPT, and looks at once how it went: on loopback the connection is
 * there when the call returns, and nobody should have to wait for it. */
static int64_t connect_socket(struct lport_attempt *attempt, int64_t now) {
    int64_t status = lport_socket_connect_start(attempt->socket, attempt->address);
    attempt->retry_at = LPORT_NEVER;
    if (lport_status_is(status, LPORT_BACKLOG_FULL)) {
        attempt->retry_at = now + attempt->retry_in;
        attempt->retry_in =
            attempt->retry_in < BACKLOG_LAST / 2 ? attempt->retry_in * 2 : BACKLOG_LAST;
        return lport_status_make(LPORT_IN_PROGRESS);
    }
    return status == 0 || lport_status_is(status, LPORT_IN_PROGRESS)
               ? lport_socket_connect_finish(attempt->socket)
               : status;
}

static int64_t open_and_connect(struct lport_attempt *attempt,
                                const struct lport_attempt_plan *plan, int64_t now) {
    int64_t status = open_socket(attempt, plan);
    return status == 0 ? connect_socket(attempt, now) : status;
}

/* True if STATUS says that ATTEMPT was connected to itself and may be made anew: not where the
 * caller gave the port that makes it so, and not for ever. Such a connection is dropped with a
 * reset: an end in order would leave the port it took in TIME_WAIT. */
static bool redial(struct lport_attempt *attempt, const struct lport_attempt_plan *plan,
                   int64_t status) {
    if (!lport_status_is(status, LPORT_CONNECTION_REFUSED) || lport_status_errno(status) != 0) {
        return false;
    }
    lport_attempt_close(attempt, LPORT_RESET);
    bool chosen = lport_address_port(lport_attempt_own(plan, attempt->address)) != 0;
    return !chosen && attempt->redials++ < MAX_REDIALS;
}

/* What becomes of STATUS, with which ATTEMPT has come back: it is begun anew as long as it comes
 * back connected to itself. */
static int64_t settle(struct lport_attempt *attempt, const struct lport_attempt_plan *plan,
                      int64_t status, int64_t now) {
    while (redial(attempt, plan, status)) {
        status = open_and_connect(attempt, plan, now);
    }
    return status;
}

int64_t lport_attempt_start(struct lport_attempt *attempt, const struct lport_attempt_plan *plan,
                            int64_t now) {
    return settle(attempt, plan, open_and_connect(attempt, plan, now), now);
}

int64_t lport_attempt_look(struct lport_attempt *attempt, const struct lport_attempt_plan *plan,
                           int64_t now) {
    return settle(attempt, plan, lport_socket_connect_finish(attempt->socket), now);
}

int64_t lport_attempt_retry(struct lport_attempt *attempt, const struct lport_attempt_plan *plan,
                            int64_t now) {
    return settle(attempt, plan, connect_socket(attempt, now), now);
}

/* Nobody else knows the socket. (lport_socket_descriptor would keep the winner from ever being
 * received from with LPORT_PATIENT.) */
int lport_attempt_descriptor(const struct lport_attempt *attempt) {
    struct lport_slot *slot;
    int64_t fd = lport_handle_enter(attempt->socket, &slot);
    if (fd >= 0) {
        lport_handle_leave(slot);
    }
    return (int)fd;
}
