/* local - binding to paths, for the modules above (layer 2). The exported part is in libport.h. */
#ifndef LPORT_LOCAL_H
#define LPORT_LOCAL_H

#include <stdint.h>

/* [nowait] Binds SOCKET to ADDRESS, of any family; 0 or a status. The file that this makes is
 * removed with the close of SOCKET, so that an attempt that fails leaves none behind, unless the
 * second function has said before that it stays. */
int64_t lport_local_bind(int64_t socket, const uint8_t *address);
void lport_local_keep(int64_t socket);

#endif
