/* status - what went wrong, as one integer (layer 0). See libport.h for the kinds. */
#ifndef LPORT_STATUS_H
#define LPORT_STATUS_H

#include <stdbool.h>
#include <stdint.h>

/* What was being done decides what an errno means: EACCES is one thing to a connect and another to
 * a bind. */
enum lport_context {
    LPORT_IN_GENERAL,
    LPORT_IN_CONNECT,
    LPORT_IN_BIND,
    LPORT_IN_TRANSFER, /* on an established connection */
    LPORT_IN_TCP,      /* the same, of TCP */
};

/* True if STATUS, which may be a result, is one of KIND. */
bool lport_status_is(int64_t status, int32_t kind);

/* The status for ERRNO_VALUE in CONTEXT. */
int64_t lport_status_from_errno(enum lport_context context, int errno_value);

/* STATUS, which has none yet, as that of a setting of option INDEX, see lport_status_option. */
int64_t lport_status_of_option(int64_t status, int32_t index);

/* STATUS, if it is none of a result, as that of an own end, see lport_status_own. */
int64_t lport_status_of_own_end(int64_t status);

/* For functions of libc that open descriptors of their own, and report that nothing was found where
 * they could not open them. If ERRNO_VALUE says that descriptors or memory ran out: the status for
 * it. Otherwise the first returns 0, the second the status of KIND. */
int64_t lport_status_exhausted(int errno_value);
int64_t lport_status_missing(int32_t kind, int errno_value);

/* The status for GAI, an EAI_ code of getaddrinfo; ERRNO_VALUE where GAI is EAI_SYSTEM. */
int64_t lport_status_from_gai(int gai, int errno_value);

/* The status for HOST, an h_errno of gethostbyaddr_r; ERRNO_VALUE where HOST is NETDB_INTERNAL. */
int64_t lport_status_from_host(int host, int errno_value);

#endif
