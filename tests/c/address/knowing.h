/* knowing - a system that knows interface 7, whatever interfaces there are. */
#ifndef KNOWING_H
#define KNOWING_H

#include <net/if.h>

/* For lport_os.ioctl: every name is that of interface 7, and every index has KNOWN_INTERFACE. */
int knowing_ioctl(int fd, unsigned long request, void *argument);

extern char known_interface[IF_NAMESIZE];

#endif
