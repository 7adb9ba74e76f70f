/* fence - a memory barrier in every thread of the process at once (layer 0). Stands on os, status.
 * See libport.h.
 *
 * Invariant: nothing is kept; what the process has asked the system for is the system's to know. */
#include "libport.h"
#include "os.h"
#include "status.h"

#include <errno.h>

static int64_t ask(enum lport_fence_command command) {
    if (lport_os.membarrier(command) == 0) {
        return 0;
    }
    /* A system that is too old for the command, and a filter of system calls. */
    return errno == EINVAL || errno == EPERM ? lport_status_make(LPORT_NOT_SUPPORTED)
                                             : lport_status_from_errno(LPORT_IN_GENERAL, errno);
}

int64_t lport_fence_prepare(void) {
    return ask(LPORT_FENCE_PREPARE);
}

int64_t lport_fence(void) {
    return ask(LPORT_FENCE);
}
