/* local - sockets named by files (layer 2), unix(7). Stands on os, status, address, handle, socket.
 *
 * Invariant: a path is removed only if nobody listens on it (a connect to it was refused) and it is
 * a socket, or if it is the very file that this process made. */
#include "local.h"

#include "address/address.h"
#include "base/os.h"
#include "handle.h"
#include "libport.h"
#include "socket.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What else a bind to a path does. */
enum {
    RECLAIM = 1, /* a stale file in its place goes before */
    REMEMBER = 2 /* its own file goes with the socket */
};

/* The path that ADDRESS, of any family, names, terminated, into PATH; false if it names no
 * file (abstract, unnamed, too long). */
static bool path_of(const uint8_t *address, char path[LPORT_LOCAL_MAX + 1]) {
    size_t len = address[LPORT_AT_LENGTH];
    memset(path, 0, LPORT_LOCAL_MAX + 1);
    if (address[LPORT_AT_FAMILY] != LPORT_LOCAL || len > LPORT_LOCAL_MAX) {
        return false;
    }
    memcpy(path, address + LPORT_AT_OCTETS, len);
    return path[0] != '\0';
}

/* The S_IF type of the file PATH, links not followed; 0 if there is none. */
static mode_t type_of(const char *path) {
    struct stat file;
    return lport_os.lstat(path, &file) < 0 ? 0 : file.st_mode & S_IFMT;
}

/* 1 if the socket at ADDRESS refuses connections: the process that made it is gone; else 0, or the
 * status of a probe that could not be made. The probe is a datagram socket, so that no live server
 * sees it: one of connections is EPROTOTYPE, one of datagrams is not told of a connect, and
 * ECONNREFUSED is where nobody is. */
static int64_t is_stale(const uint8_t *address, const char *path) {
    if (type_of(path) != S_IFSOCK) {
        return 0;
    }
    int64_t probe = lport_socket_open(LPORT_LOCAL, LPORT_DATAGRAM, 0);
    if (probe < 0) {
        return probe;
    }
    int64_t status = lport_socket_connect_start(probe, address);
    lport_socket_close(probe, 0);
    return lport_status_kind(status) == LPORT_CONNECTION_REFUSED;
}

static int64_t bind_reclaiming(int64_t socket, const uint8_t *address, const char *path) {
    int64_t status = lport_socket_bind(socket, address);
    if (lport_status_kind(status) != LPORT_ADDRESS_IN_USE) {
        return status;
    }
    int64_t stale = is_stale(address, path);
    if (stale <= 0) {
        return stale < 0 ? stale : status;
    }
    lport_os.unlink(path);
    return lport_socket_bind(socket, address);
}

/* Notes in SLOT which file its bind has made, so that the close can remove it. */
static int64_t remember_path(struct lport_slot *slot, const char *path) {
    struct stat file;
    struct lport_made_path *made = lport_os.calloc(1, sizeof *made);
    if (made == NULL) {
        return lport_status_make(LPORT_MEMORY_EXHAUSTED);
    }
    if (lport_os.lstat(path, &file) < 0) {
        int64_t status = lport_status_from_errno(LPORT_IN_BIND, errno);
        free(made);
        return status;
    }
    made->device = file.st_dev;
    made->inode = file.st_ino;
    made->maker = getpid();
    memcpy(made->path, path, sizeof made->path);
    slot->made_path = made;
    return 0;
}

/* Binds SOCKET, whose SLOT and FD the caller has entered. The mode is set before the path exists,
 * so that nobody slips in between, and once more after, since bind applies the umask to it. */
static int64_t bind_path(int64_t socket, struct lport_slot *slot, int fd, const uint8_t *address,
                         const char *path, int32_t mode, int what) {
    if (mode >= 0 && lport_os.fchmod(fd, (mode_t)mode) < 0) {
        return lport_status_from_errno(LPORT_IN_BIND, errno);
    }
    int64_t status = (what & RECLAIM) != 0 ? bind_reclaiming(socket, address, path)
                                           : lport_socket_bind(socket, address);
    if (lport_status_kind(status) == LPORT_ADDRESS_IN_USE && type_of(path) != S_IFSOCK) {
        return lport_status_make(LPORT_PATH_TAKEN);
    }
    if (status < 0) {
        return status;
    }
    status = (what & REMEMBER) != 0 ? remember_path(slot, path) : 0;
    if (status == 0 && mode >= 0 && lport_os.chmod(path, (mode_t)mode) < 0) {
        status = lport_status_from_errno(LPORT_IN_BIND, errno);
    }
    if (status < 0) {
        lport_os.unlink(path);
    }
    return status;
}

static int64_t bind_local(int64_t socket, const uint8_t *address, int32_t mode, int what) {
    struct lport_slot *slot;
    char path[LPORT_LOCAL_MAX + 1];
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t status = path_of(address, path)
                         ? bind_path(socket, slot, (int)fd, address, path, mode, what)
                         : lport_socket_bind(socket, address);
    lport_handle_leave(slot);
    return status;
}

int64_t lport_local_bind(int64_t socket, const uint8_t *address) {
    return bind_local(socket, address, -1, REMEMBER);
}

void lport_local_keep(int64_t socket) {
    struct lport_slot *slot;
    if (lport_handle_enter(socket, &slot) >= 0) {
        free(slot->made_path);
        slot->made_path = NULL;
        lport_handle_leave(slot);
    }
}

/* Removes the path that a bind to ADDRESS has just made. */
static void remove_path(const uint8_t *address) {
    char path[LPORT_LOCAL_MAX + 1];
    if (path_of(address, path)) {
        lport_os.unlink(path);
    }
}

int64_t lport_local_listen(const uint8_t *address, int32_t kind, int32_t backlog, int32_t mode,
                           int32_t flags, const uint8_t *settings, int32_t count) {
    struct lport_settings all = {settings, count};
    if (address[LPORT_AT_FAMILY] != LPORT_LOCAL || address[LPORT_AT_LENGTH] > LPORT_LOCAL_MAX ||
        mode > 07777) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t socket = lport_socket_open_with(LPORT_LOCAL, kind, 0, &all);
    if (socket < 0) {
        return socket;
    }
    int what = (flags & LPORT_UNLINK) != 0 ? RECLAIM | REMEMBER : 0;
    int64_t status = bind_local(socket, address, mode, what);
    if (status == 0 && kind != LPORT_DATAGRAM) {
        status = lport_socket_start_listening(socket, backlog);
        if (status < 0) {
            remove_path(address);
        }
    }
    if (status < 0) {
        lport_socket_close(socket, 0);
        return status;
    }
    return socket;
}
