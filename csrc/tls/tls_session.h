/* tls_session - what the files of tls share of a session (layer 4).
 *
 * Invariant: a session is used under its lock, and never while anybody waits. */
#ifndef LPORT_TLS_SESSION_H
#define LPORT_TLS_SESSION_H

#include "socket/handle.h"
#include "socket/transport.h"
#include "tls.h"
#include "tls_resume.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lport_tls_session {
    struct lport_transport transport; /* first */
    pthread_mutex_t lock;
    struct ssl_st *ssl;
    struct lport_slot *slot; /* of the call that is under way, and its descriptor */
    int fd;
    uint8_t *early; /* what was read ahead of TLS: EARLY_LEN octets, EARLY_AT of them taken */
    size_t early_len, early_at;
    uint8_t *held; /* HELD_LEN octets of records that the system is still to take */
    size_t held_len, held_cap;
    size_t taken;    /* octets of the system, by the call that is under way */
    int64_t said;    /* what the connection said last: 0: its end, or a status; 1: nothing yet */
    int64_t failure; /* what every call gives from now on, or 0 */
    bool drained;    /* the system had no more, and nothing has been read since */
    bool established;
    bool input_ended;            /* the peer has said so */
    bool output_ended;           /* it was told so */
    bool ticket_due;             /* a server's: the client is to be given one */
    struct lport_tls_kept *kept; /* a client's: what it has resumed, until it keeps the next */
    struct lport_tls_settings settings;
    struct lport_tls_problem problem;
};

/* What a slot with TLS calls. */
extern const struct lport_transport_calls lport_tls_calls;

/* [nowait] Gives the session what OpenSSL reads and writes records by; false: no memory. */
bool lport_tls_give_bio(struct lport_tls_session *session);

/* [nowait] Frees a session, whatever it has. */
void lport_tls_free(struct lport_transport *transport);

/* [nowait] Takes the lock of the session of SOCKET, which is entered: NULL, and why into STATUS.
 * The other gives both back, and RESULT. */
struct lport_tls_session *lport_tls_enter_socket(int64_t socket, struct lport_slot **slot,
                                                 int64_t *status);
int64_t lport_tls_leave_socket(struct lport_tls_session *session, struct lport_slot *slot,
                               int64_t result);

/* The status of a call of OpenSSL that gave RESULT; 0: the end of input; 1: a success. */
int64_t lport_tls_status_of(struct lport_tls_session *session, int result);

/* Remembers STATUS, with which the session is over, and PROBLEM, a text, or NULL; STATUS. */
int64_t lport_tls_fail(struct lport_tls_session *session, int64_t status, const char *problem);

/* Hands on what is held: 0 once nothing is; LPORT_WOULD_BLOCK; or what broke the connection. */
int64_t lport_tls_hand_on(struct lport_tls_session *session);

#endif
