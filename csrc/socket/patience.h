/* patience - receives that wait a moment in the call itself (layer 2). */
#ifndef LPORT_PATIENCE_H
#define LPORT_PATIENCE_H

#include "handle.h"

#include <stdbool.h>
#include <sys/types.h>

/* The flags for recv(2) and its kin on FD, the descriptor of SLOT: MSG_DONTWAIT, or nothing where
 * PATIENT and FD can be made to block for LPORT_PATIENCE_NS at the most. Every call that receives
 * or sends has to have the one or the other. */
int lport_patience_flags(struct lport_slot *slot, int fd, bool patient);

/* True if the receive with those flags, HOW, that gave COUNT is to be made again: a signal
 * interrupted it, and it does not wait. One that waits comes back then, as if nothing had come:
 * errno is EAGAIN. */
bool lport_patience_again(ssize_t count, int how);

/* Makes FD non-blocking for good: others will use it, or a call that no flag keeps from blocking.
 */
void lport_patience_end(struct lport_slot *slot, int fd);

#endif
