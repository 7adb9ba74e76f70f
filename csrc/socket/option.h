/* option - socket options, for the modules above (layer 2). The table itself is in libport.h. */
#ifndef LPORT_OPTION_H
#define LPORT_OPTION_H

#include <stdint.h>

/* Settings as libport.h has them. */
struct lport_settings {
    const uint8_t *rows;
    int32_t count;
};

/* [nowait] Sets what FLAGS (LPORT_NODELAY ...) ask for on the new descriptor FD, of FAMILY and
 * KIND; flags that mean nothing to it are passed over. 0 or a status. */
int64_t lport_option_apply(int fd, int32_t family, int32_t kind, int32_t flags);

/* [nowait] Sets SETTINGS on SOCKET, until one fails. 0 or a status that names its option. */
int64_t lport_option_set_all(int64_t socket, const struct lport_settings *settings);

#endif
