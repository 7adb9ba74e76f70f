/* wait - what the poller on poll(2) needs of a wait (layer 2). The exported part is in libport.h.
 */
#ifndef LPORT_WAIT_H
#define LPORT_WAIT_H

#include <stdint.h>

/* The descriptor of WAIT, under way, that is readable once it has been woken; -1: no such wait. */
int lport_wait_event(int64_t wait);

/* A place for what belongs to WAIT, under way, NULL when it begins; whoever fills it empties it
 * before the end. NULL: no such wait. */
void **lport_wait_data(int64_t wait);

#endif
