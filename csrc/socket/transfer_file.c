/* transfer_file - a file's octets onto a connection, past the memory of the program (layer 2). Part
 * of transfer; stands on os, status, handle, patience.
 *
 * sendfile(2) has no MSG_NOSIGNAL: where it would raise SIGPIPE the signal is held back in this
 * thread and taken away again, unless one was pending before, as it can only be where the thread
 * holds it back itself. It raises one too where a part went out before the connection broke, and
 * then it returns that part. What the system cannot send in this way (a file system without page
 * cache, a kind of socket), or does not let be sent so (EPERM of a filter of system calls), is read
 * and sent instead: whoever may not do that either is told by these calls. */
#include "base/os.h"
#include "libport.h"
#include "patience.h"
#include "transfer.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>

enum {
    LONGEST = 1 << 20, /* octets of a call: it has to end soon, a deferred interrupt waits for it */
    PIECE = 1 << 15,   /* octets that are read at once where they are read */
};

/* pread(2) into OCTETS, with room for PIECE. */
static ssize_t read_piece(int file, uint8_t *octets, off_t offset, size_t len) {
    ssize_t count;
    do {
        count = lport_os.pread(file, octets, len < PIECE ? len : PIECE, offset);
    } while (count < 0 && errno == EINTR);
    return count;
}

/* As sendfile, with pread(2) and send(2). */
static ssize_t read_and_send(int fd, int file, off_t offset, size_t len) {
    uint8_t octets[PIECE];
    ssize_t count = read_piece(file, octets, offset, len);
    return count <= 0 ? count : lport_transfer_send(fd, octets, (size_t)count);
}

#ifdef __linux__
static ssize_t send_without_signal(int fd, int file, off_t offset, size_t len) {
    static const struct timespec at_once = {0, 0};
    sigset_t broken_pipe, before, pending;
    ssize_t count;
    sigemptyset(&broken_pipe);
    sigemptyset(&pending);
    sigaddset(&broken_pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, &before);
    if (sigismember(&before, SIGPIPE)) {
        sigpending(&pending);
    }
    do {
        count = lport_os.sendfile(fd, file, &offset, len);
    } while (count < 0 && errno == EINTR);
    int error = errno;
    bool may_have_broken = count < 0 ? error == EPIPE : (size_t)count < len;
    if (may_have_broken && !sigismember(&pending, SIGPIPE)) {
        while (sigtimedwait(&broken_pipe, NULL, &at_once) < 0 && errno == EINTR) {
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return count;
}

static bool is_no_way(int error) {
    return error == EINVAL || error == ENOSYS || error == EOPNOTSUPP || error == EPERM;
}

static ssize_t send_piece(int fd, int file, off_t offset, size_t len) {
    ssize_t count = send_without_signal(fd, file, offset, len);
    return count < 0 && is_no_way(errno) ? read_and_send(fd, file, offset, len) : count;
}
#else
static ssize_t send_piece(int fd, int file, off_t offset, size_t len) {
    return read_and_send(fd, file, offset, len);
}
#endif

/* LEN, or less: a call is not to be longer than LONGEST, and ends where offsets do, as the system
 * insists. */
static size_t length_at(int64_t offset, size_t len) {
    uint64_t most = (uint64_t)INT64_MAX - (uint64_t)offset;
    most = most < LONGEST ? most : LONGEST;
    return len < most ? len : (size_t)most;
}

/* COUNT, with what the system says of the file put as the header does: an offset that no file can
 * have is past its end, and what has no offsets, such as a pipe, is none of those files. */
static ssize_t of_file(ssize_t count) {
    if (count < 0 && errno == EOVERFLOW) {
        return 0;
    }
    if (count < 0 && errno == ESPIPE) {
        errno = EINVAL;
    }
    return count;
}

/* What a call says that gave COUNT of SLOT; the number may be the file's. */
static int64_t file_sent(struct lport_slot *slot, ssize_t count) {
    return count >= 0 ? count
                      : lport_transfer_note_broken(
                            slot, lport_status_from_errno(LPORT_IN_TRANSFER, errno));
}

/* A transport has to see the octets. */
static int64_t send_through(struct lport_transport *transport, struct lport_slot *slot, int fd,
                            int file, int64_t offset, size_t len) {
    uint8_t octets[PIECE];
    ssize_t count = of_file(read_piece(file, octets, (off_t)offset, length_at(offset, len)));
    return count <= 0 ? file_sent(slot, count)
                      : transport->calls->send(transport, slot, fd, octets, (size_t)count);
}

int64_t lport_socket_send_file(int64_t socket, int32_t file, int64_t offset, size_t len) {
    struct lport_slot *slot;
    if (offset < 0) {
        return lport_status_make(LPORT_INVALID);
    }
    int64_t fd = lport_handle_enter(socket, &slot);
    if (fd < 0) {
        return fd;
    }
    int64_t result = slot->kind == LPORT_STREAM ? lport_transfer_forbidden(slot)
                                                : lport_status_make(LPORT_NOT_SUPPORTED);
    if (result == 0 && len > 0) {
        struct lport_transport *transport = lport_handle_transport(slot);
        if (transport != NULL) {
            result = send_through(transport, slot, (int)fd, file, offset, len);
        } else {
            lport_patience_end(slot, (int)fd);
            len = length_at(offset, len);
            result = file_sent(slot, of_file(send_piece((int)fd, file, (off_t)offset, len)));
        }
    }
    lport_handle_leave(slot);
    return result;
}
