/* adopt - descriptors that somebody else has made, and those that the system hands over (layer 2).
 * Stands on os, status, sink, address, handle, datagram, patience, socket.
 *
 * Invariant: until a descriptor is adopted nothing about it is changed, and whoever fails to adopt
 * one still has it as it was. */
#include "address/address.h"
#include "base/os.h"
#include "base/sink.h"
#include "datagram.h"
#include "handle.h"
#include "libport.h"
#include "patience.h"
#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- looking at a descriptor ----------------------------------------------------------------- */

/* The number that FD has for option NAME of SOL_SOCKET, into VALUE; 0 or a status. */
static int64_t ask(int fd, int name, int *value) {
    socklen_t len = sizeof *value;
    return lport_os.getsockopt(fd, SOL_SOCKET, name, value, &len) < 0
               ? lport_status_from_errno(LPORT_IN_GENERAL, errno)
               : 0;
}

struct found {
    int32_t family, kind, state;
    bool lingers; /* as of LPORT_SLOT_LINGERS */
    bool joined;  /* as of LPORT_SLOT_JOINED */
    bool queues;  /* as of LPORT_SLOT_QUEUES */
};

/* True if FD has option NAME of LEVEL, as not every socket does, and it is on. */
static bool has_on(int fd, int level, int name) {
    int value = 0;
    socklen_t len = sizeof value;
    return lport_os.getsockopt(fd, level, name, &value, &len) == 0 && value != 0;
}

/* The same of an option that IPv4 and IPv6 have each. */
static bool has_either_on(int fd, int inet, int inet6) {
    return has_on(fd, IPPROTO_IP, inet) || has_on(fd, IPPROTO_IPV6, inet6);
}

/* What FD is, into FOUND; 0 or a status. */
static int64_t look_at(int fd, struct found *found) {
    int domain = 0, type = 0, listening = 0;
    struct linger linger = {0};
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer, linger_len = sizeof linger;
    *found = (struct found){0};
    int64_t status = ask(fd, SO_DOMAIN, &domain);
    status = status < 0 ? status : ask(fd, SO_TYPE, &type);
    status = status < 0 ? status : ask(fd, SO_ACCEPTCONN, &listening);
    if (status < 0) {
        return status;
    }
    found->family = lport_socket_family(domain);
    found->kind = lport_socket_kind(type);
    if (found->family == 0 || found->kind == 0) {
        return lport_status_make(LPORT_NOT_SUPPORTED);
    }
    found->state = listening ? LPORT_STATE_LISTENING : 0;
    if (lport_os.getpeername(fd, (struct sockaddr *)&peer, &len) == 0) {
        found->state |= LPORT_STATE_CONNECTED;
    }
    if (lport_os.getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &linger_len) < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    if (found->kind == LPORT_DATAGRAM && has_either_on(fd, IP_PKTINFO, IPV6_RECVPKTINFO)) {
        found->state |= LPORT_STATE_PACKET_INFO;
    }
    found->lingers = linger.l_onoff && linger.l_linger > 0;
    found->joined = has_on(fd, IPPROTO_UDP, LPORT_DATAGRAM_JOIN);
    found->queues = has_either_on(fd, IP_RECVERR, IPV6_RECVERR);
    return 0;
}

/* The same, unless FD belongs to a socket of ours already. */
static int64_t examine(int fd, struct found *found) {
    int64_t status = look_at(fd, found);
    return status == 0 && lport_handle_has(fd) ? lport_status_make(LPORT_INVALID) : status;
}

int64_t lport_descriptor_inspect(int32_t fd) {
    struct found found;
    int64_t status = examine(fd, &found);
    return status < 0 ? status : found.family | found.kind << 8 | found.state << 16;
}

/* ---- adopting -------------------------------------------------------------------------------- */

/* Makes FD close-on-exec and non-blocking; 0, or a status and FD as it was. */
static int64_t tame(int fd) {
    int descriptor = lport_os.fcntl(fd, F_GETFD, 0);
    int description = lport_os.fcntl(fd, F_GETFL, 0);
    if (descriptor < 0 || description < 0 ||
        lport_os.fcntl(fd, F_SETFD, descriptor | FD_CLOEXEC) < 0) {
        return lport_status_from_errno(LPORT_IN_GENERAL, errno);
    }
    if (lport_os.fcntl(fd, F_SETFL, description | O_NONBLOCK) < 0) {
        int64_t status = lport_status_from_errno(LPORT_IN_GENERAL, errno);
        lport_os.fcntl(fd, F_SETFD, descriptor);
        return status;
    }
    return 0;
}

/* Makes FD, which nobody else adopts at this moment, a socket. */
static int64_t adopt(int32_t fd) {
    struct found found;
    struct lport_slot *slot;
    int64_t status = examine(fd, &found);
    status = status < 0 ? status : lport_handle_reserve(&slot);
    if (status < 0) {
        return status;
    }
    status = tame(fd);
    if (status < 0) {
        lport_handle_release(slot);
        return status;
    }
    int64_t socket = lport_handle_publish(slot, fd, found.family, found.kind);
    atomic_fetch_or(&slot->flags, ((uint32_t)found.state & LPORT_STATE_LISTENING) |
                                      (found.lingers ? LPORT_SLOT_LINGERS : 0) |
                                      (found.joined ? LPORT_SLOT_JOINED : 0) |
                                      (found.queues ? LPORT_SLOT_QUEUES : 0));
    lport_patience_end(slot, fd); /* others may have it too */
    if ((found.state & LPORT_STATE_PACKET_INFO) != 0) {
        /* IPv6 may have been asked alone; then messages of IPv4 would tell nothing. */
        (void)lport_datagram_ask_for_arrivals(socket);
    }
    return socket;
}

/* Held from the look whether a descriptor has an owner until it has one. */
static pthread_mutex_t adopting = PTHREAD_MUTEX_INITIALIZER;

/* A child of fork() must not find it locked by a thread that it does not have. */
static void after_fork_in_child(void) {
    pthread_mutex_init(&adopting, NULL);
}

static void prepare_adopting(void) {
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

int64_t lport_descriptor_adopt(int32_t fd) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare_adopting);
    pthread_mutex_lock(&adopting);
    int64_t socket = adopt(fd);
    pthread_mutex_unlock(&adopting);
    return socket;
}

/* ---- what the system hands over, sd_listen_fds(3) -------------------------------------------- */

/* The decimal number that is all of TEXT, or a status. */
static int64_t number_in(const char *text) {
    int64_t number = 0;
    for (const char *digit = text; *digit != '\0'; digit++) {
        if (*digit < '0' || *digit > '9' || number > INT32_MAX) {
            return lport_status_make(LPORT_INVALID);
        }
        number = number * 10 + (*digit - '0');
    }
    return text[0] == '\0' || number > INT32_MAX ? lport_status_make(LPORT_INVALID) : number;
}

int64_t lport_activation_count(void) {
    const char *pid = getenv("LISTEN_PID");
    const char *count = getenv("LISTEN_FDS");
    if (pid == NULL || count == NULL) {
        return 0;
    }
    int64_t wanted = number_in(pid);
    if (wanted < 0 || wanted != getpid()) {
        return wanted < 0 ? wanted : 0;
    }
    return number_in(count);
}

int64_t lport_activation_name(int32_t index, char *text, size_t cap) {
    const char *names = getenv("LISTEN_FDNAMES");
    int64_t count = lport_activation_count();
    if (count < 0 || index < 0 || index >= count) {
        return lport_status_make(LPORT_INVALID);
    }
    for (; names != NULL && index > 0; index--) {
        names = strchr(names, ':');
        names = names != NULL ? names + 1 : NULL;
    }
    return names == NULL ? lport_sink_copy("", text, cap)
                         : lport_sink_copy_octets(names, strcspn(names, ":"), text, cap);
}

int64_t lport_activation_forget(void) {
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return 0;
}
