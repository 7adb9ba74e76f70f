/* knowing - see knowing.h. */
#include "knowing.h"

#include <string.h>
#include <sys/ioctl.h>

char known_interface[IF_NAMESIZE];

int knowing_ioctl(int fd, unsigned long request, void *argument) {
    struct ifreq *interface = argument;
    (void)fd;
    if (request == SIOCGIFINDEX) {
        interface->ifr_ifindex = 7;
    } else {
        memcpy(interface->ifr_name, known_interface, IF_NAMESIZE);
    }
    return 0;
}
