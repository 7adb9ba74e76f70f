/* socket - create, bind, connect, for the modules above (layer 2). The exported part is in
 * libport.h. */
#ifndef LPORT_SOCKET_H
#define LPORT_SOCKET_H

#include "handle.h"
#include "option.h"

#include <stdbool.h>
#include <stdint.h>

/* The family of DOMAIN, an AF_ number, and the kind of TYPE, a SOCK_ one; 0 for none of ours. */
int32_t lport_socket_family(int domain);
int32_t lport_socket_kind(int type);

/* [nowait] A new unconnected socket of FAMILY (LPORT_INET, LPORT_INET6, LPORT_LOCAL) and KIND with
 * the options that FLAGS ask for; a socket or a status. */
int64_t lport_socket_open(int32_t family, int32_t kind, int32_t flags);

/* [nowait] The same with SETTINGS, as option.h has them; where one cannot be set nothing is left.
 */
int64_t lport_socket_open_with(int32_t family, int32_t kind, int32_t flags,
                               const struct lport_settings *settings);

/* [nowait] Marks SLOT, which the caller has entered, as closing, and tells whoever waits on it or
 * watches it: true for the one caller that did. */
bool lport_socket_begin_close(struct lport_slot *slot, int32_t flags);

/* True for the statuses of a system without IPv6, or with IPv6 switched off on every interface. */
bool lport_socket_lacks_inet6(int64_t status);

/* [nowait] Binds SOCKET to ADDRESS; 0 or a status. */
int64_t lport_socket_bind(int64_t socket, const uint8_t *address);

/* [nowait] Makes SOCKET, which is bound, a listener; BACKLOG below 0: the system's maximum. */
int64_t lport_socket_start_listening(int64_t socket, int32_t backlog);

/* [nowait] Starts to connect SOCKET to ADDRESS. 0: connected. LPORT_IN_PROGRESS: wait for
 * LPORT_OUTPUT, then call lport_socket_connect_finish. LPORT_BACKLOG_FULL (local names): try again
 * a little later, on the same socket. Else the failure; the socket is still the caller's to close.
 */
int64_t lport_socket_connect_start(int64_t socket, const uint8_t *address);

/* [nowait] How the connect ended: 0, LPORT_IN_PROGRESS, or the failure. A connection to itself
 * (both ends the same, which the kernel permits on loopback) is LPORT_CONNECTION_REFUSED with errno
 * 0. */
int64_t lport_socket_connect_finish(int64_t socket);

#endif
