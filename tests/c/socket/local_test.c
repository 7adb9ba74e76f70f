/* local: sockets named by files. Who may remove a name, and who never does. */
#include "address/address.h"
#include "base/os.h"
#include "socket/socket.h"
#include "support.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

TestSuite(local, .timeout = 10);

/* ---- a directory of the test's own ----------------------------------------------------------- */

static struct {
    char directory[32];
    char path[112];
    uint8_t address[LPORT_ADDRESS_SIZE];
} place;

static void enter_place(const char *name) {
    strcpy(place.directory, "/tmp/port-test-XXXXXX");
    cr_assert_not_null(mkdtemp(place.directory));
    snprintf(place.path, sizeof place.path, "%s/%s", place.directory, name);
    cr_assert_eq(lport_address_local(place.path, strlen(place.path), place.address), LPORT_LOCAL);
}

/* Removes the directory: that works only if nothing is left in it. */
static void leave_place(void) {
    cr_assert_eq(rmdir(place.directory), 0, "%s: %s", place.directory, strerror(errno));
}

static bool exists(void) {
    struct stat file;
    return lstat(place.path, &file) == 0;
}

static mode_t mode_of_path(void) {
    struct stat file;
    cr_assert_eq(lstat(place.path, &file), 0);
    return file.st_mode & 07777;
}

static int64_t listen_here(int32_t kind, int32_t mode, int32_t flags) {
    return lport_local_listen(place.address, kind, -1, mode, flags, NULL, 0);
}

/* A connection can be made to the name, and LISTENER gets it. */
static void assert_serves(int64_t listener) {
    int64_t client = connect_to(place.address);
    cr_assert_gt(client, 0, "%lld", (long long)client);
    int64_t server = accept_one(listener, soon());
    cr_assert_gt(server, 0);
    assert_closes(client);
    assert_closes(server);
}

/* A socket of TYPE that is bound to the path: its descriptor. */
static int bind_here(int type) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    memcpy(un.sun_path, place.path, strlen(place.path));
    cr_assert_eq(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    return fd;
}

/* One that is gone. */
static void leave_stale(int type) {
    close(bind_here(type));
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Behaviour 59: too long, an embedded zero. */
SOCKET_TEST(local, names_that_are_too_long_or_hold_a_zero_are_refused) {
    char name[256];
    uint8_t address[LPORT_ADDRESS_SIZE];
    memset(name, 'x', sizeof name);
    for (size_t len = 109; len < sizeof name; len += 7) {
        assert_kind(lport_address_local(name, len, address), LPORT_ADDRESS_SYNTAX);
    }
    name[4] = '\0';
    assert_kind(lport_address_local(name, 20, address), LPORT_ADDRESS_SYNTAX);
}

/* What comes of a dial to a local name from the own end LOCAL. */
static int64_t dial_from(const uint8_t *local) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    lport_address_local("@port", 5, address);
    int64_t dial = lport_dial_open_addresses(address, 1, LPORT_STREAM, local, 0);
    if (dial < 0) {
        return dial;
    }
    int64_t result = lport_dial_step(dial);
    lport_dial_close(dial);
    return result;
}

/* Blocks made by hand. */
SOCKET_TEST(local, blocks_that_say_they_are_longer_than_they_can_be_are_refused) {
    for (int len = 109; len < 256; len++) {
        uint8_t address[LPORT_ADDRESS_SIZE] = {LPORT_LOCAL, (uint8_t)len};
        memset(address + LPORT_AT_OCTETS, 'x', sizeof address - LPORT_AT_OCTETS);
        assert_kind(lport_local_listen(address, LPORT_STREAM, 0, 0600, LPORT_UNLINK, NULL, 0),
                    LPORT_INVALID);
        assert_kind(lport_datagram_open(address, NULL, 0, NULL, 0), LPORT_INVALID);
        assert_kind(dial_from(address), LPORT_INVALID);
    }
    enter_place("s");
    assert_kind(listen_here(LPORT_STREAM, 010000, 0), LPORT_INVALID);
    assert_kind(listen_here(LPORT_STREAM, INT32_MAX, 0), LPORT_INVALID);
    assert_kind(listen_here(0, -1, 0), LPORT_INVALID);
    loopback(LPORT_INET, 0, place.address);
    assert_kind(listen_here(LPORT_STREAM, -1, 0), LPORT_INVALID);
    leave_place();
}

/* Behaviour 59: the system would take the part before the zero, another file's name. */
SOCKET_TEST(local, blocks_with_a_zero_in_their_path_are_refused) {
    enter_place("s");
    size_t len = strlen(place.path);
    int64_t live = listen_here(LPORT_STREAM, -1, LPORT_UNLINK);
    cr_assert_gt(live, 0);
    uint8_t address[LPORT_ADDRESS_SIZE];
    memcpy(address, place.address, sizeof address);
    address[LPORT_AT_LENGTH] = (uint8_t)(len + 2);
    address[LPORT_AT_OCTETS + len + 1] = 'x';
    char text[LPORT_TEXT_SIZE];
    assert_kind(lport_address_print(address, text, sizeof text), LPORT_INVALID);
    assert_kind(connect_to(address), LPORT_INVALID);
    assert_closes(live);
    assert_kind(lport_local_listen(address, LPORT_STREAM, -1, 0600, LPORT_UNLINK, NULL, 0),
                LPORT_INVALID);
    assert_kind(lport_datagram_open(address, NULL, 0, NULL, 0), LPORT_INVALID);
    cr_assert(!exists());
    leave_place();
}

/* Behaviour 59: 108 octets are the most, and they work: bound, reached, named and removed. */
SOCKET_TEST(local, the_longest_path_works) {
    char name[112], text[LPORT_TEXT_SIZE];
    uint8_t address[LPORT_ADDRESS_SIZE];
    enter_place("x");
    int len = snprintf(name, sizeof name, "%s/", place.directory);
    memset(name + len, 'y', sizeof name - (size_t)len);
    name[108] = '\0';
    memcpy(place.path, name, sizeof name);
    cr_assert_eq(lport_address_local(name, 108, place.address), LPORT_LOCAL);
    for (int round = 0; round < 2; round++) {
        int64_t listener = listen_here(LPORT_STREAM, 0600, LPORT_UNLINK);
        cr_assert_gt(listener, 0);
        cr_assert(exists());
        assert_serves(listener);
        cr_assert_eq(lport_socket_name(listener, address), LPORT_LOCAL);
        cr_assert_eq(lport_address_print(address, text, sizeof text), 108);
        cr_assert_str_eq(text, name);
        assert_closes(listener);
        cr_assert(!exists());
    }
    leave_place();
}

/* Behaviour 59. */
SOCKET_TEST(local, abstract_names_make_no_file_and_end_with_their_socket) {
    uint8_t address[LPORT_ADDRESS_SIZE], name[LPORT_ADDRESS_SIZE];
    char text[32];
    int len = snprintf(text, sizeof text, "@port-test-%d", (int)getpid());
    cr_assert_eq(lport_address_local(text, (size_t)len, address), LPORT_LOCAL);
    for (int round = 0; round < 3; round++) {
        int64_t listener =
            lport_local_listen(address, LPORT_STREAM, -1, 0600, LPORT_UNLINK, NULL, 0);
        cr_assert_gt(listener, 0);
        assert_kind(lport_local_listen(address, LPORT_STREAM, -1, -1, LPORT_UNLINK, NULL, 0),
                    LPORT_ADDRESS_IN_USE);
        cr_assert_neq(access(text, F_OK), 0);
        cr_assert_eq(lport_socket_name(listener, name), LPORT_LOCAL);
        cr_assert_eq(lport_address_equal(name, address), 1);
        int64_t client = connect_to(address);
        cr_assert_gt(client, 0);
        cr_assert_eq(lport_socket_peer(client, name), LPORT_LOCAL);
        cr_assert_eq(lport_address_equal(name, address), 1);
        assert_closes(client);
        assert_closes(listener);
        assert_kind(connect_to(address), LPORT_CONNECTION_REFUSED);
    }
}

/* ---- modes ----------------------------------------------------------------------------------- */

/* Behaviour 59. */
SOCKET_TEST(local, the_mode_is_what_was_asked_for_whatever_the_umask) {
    static const mode_t masks[] = {0, 022, 077, 0777};
    static const int32_t modes[] = {0, 0600, 0660, 0666, 0777, 01777, 02770};
    enter_place("s");
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        mode_t old = umask(masks[i]);
        for (size_t j = 0; j < sizeof modes / sizeof *modes; j++) {
            int64_t listener = listen_here(LPORT_STREAM, modes[j], LPORT_UNLINK);
            cr_assert_gt(listener, 0);
            cr_assert_eq(mode_of_path(), (mode_t)modes[j]);
            assert_closes(listener);
        }
        int64_t listener = listen_here(LPORT_STREAM, -1, LPORT_UNLINK);
        cr_assert_eq(mode_of_path(), 0777 & ~masks[i]);
        assert_closes(listener);
        umask(old);
    }
    leave_place();
}

static struct lport_os real;
static mode_t mode_after_bind;

static int noting_bind(int fd, const struct sockaddr *address, socklen_t len) {
    int result = real.bind(fd, address, len);
    struct stat file;
    mode_after_bind = lstat(place.path, &file) == 0 ? file.st_mode & 07777 : 07777;
    return result;
}

/* Behaviour 59: nobody slips in between the bind and the chmod. */
SOCKET_TEST(local, the_path_is_never_wider_open_than_asked_for) {
    static const int32_t modes[] = {0600, 0};
    enter_place("s");
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        mode_t old = umask(0);
        real = lport_os;
        lport_os.bind = noting_bind;
        int64_t listener = listen_here(LPORT_STREAM, modes[i], LPORT_UNLINK);
        lport_os = real;
        umask(old);
        cr_assert_gt(listener, 0);
        cr_assert_eq(mode_after_bind & ~(mode_t)modes[i], 0, "%o", mode_after_bind);
        assert_closes(listener);
    }
    leave_place();
}

/* ---- stale and live -------------------------------------------------------------------------- */

/* Behaviour 59: a stale one is reclaimed, but only when asked for. */
SOCKET_TEST(local, a_stale_name_is_reclaimed_when_asked_for) {
    static const struct {
        int32_t kind;
        int type;
    } sorts[] = {{LPORT_STREAM, SOCK_STREAM},
                 {LPORT_SEQPACKET, SOCK_SEQPACKET},
                 {LPORT_DATAGRAM, SOCK_DGRAM}};
    enter_place("s");
    for (size_t i = 0; i < sizeof sorts / sizeof *sorts; i++) {
        leave_stale(sorts[i].type);
        assert_kind(listen_here(sorts[i].kind, -1, 0), LPORT_ADDRESS_IN_USE);
        cr_assert(exists());
        int64_t listener = listen_here(sorts[i].kind, -1, LPORT_UNLINK);
        cr_assert_gt(listener, 0, "kind %d: %lld", (int)sorts[i].kind, (long long)listener);
        if (sorts[i].kind == LPORT_STREAM) {
            assert_serves(listener);
        }
        assert_closes(listener);
        cr_assert(!exists());
    }
    leave_place();
}

/* Whether it is stale cannot be found out then, so nobody may be told that it is in use. */
SOCKET_TEST(local, a_stale_name_that_cannot_be_looked_at_is_not_in_use) {
    enter_place("s");
    leave_stale(SOCK_STREAM);
    faults_fail(CALL_SOCKET, 2, 1, EMFILE);
    assert_kind(listen_here(LPORT_STREAM, -1, LPORT_UNLINK), LPORT_DESCRIPTORS_EXHAUSTED);
    faults_clear();
    cr_assert(exists());
    assert_closes(listen_here(LPORT_STREAM, -1, LPORT_UNLINK));
    leave_place();
}

/* Behaviour 59: a live one is never stolen, whatever its kind, and however busy it is; nor does it
 * see that somebody has looked. */
SOCKET_TEST(local, a_live_name_is_never_stolen) {
    static const int32_t kinds[] = {LPORT_STREAM, LPORT_DATAGRAM, LPORT_SEQPACKET};
    enter_place("s");
    for (int i = 0; i < 3; i++) {
        int64_t live = listen_here(kinds[i], -1, LPORT_UNLINK);
        cr_assert_gt(live, 0);
        for (int j = 0; j < 3; j++) {
            assert_kind(listen_here(kinds[j], -1, LPORT_UNLINK), LPORT_ADDRESS_IN_USE);
            cr_assert(exists());
        }
        if (kinds[i] != LPORT_DATAGRAM) {
            assert_kind(undisturbed(lport_socket_accept(live, NULL)), LPORT_WOULD_BLOCK);
        }
        assert_closes(live);
    }
    int64_t busy = lport_local_listen(place.address, LPORT_STREAM, 0, -1, LPORT_UNLINK, NULL, 0);
    int64_t waiting = connect_to(place.address);
    cr_assert(busy > 0 && waiting > 0);
    assert_kind(listen_here(LPORT_STREAM, -1, LPORT_UNLINK), LPORT_ADDRESS_IN_USE);
    int64_t server = undisturbed(lport_socket_accept(busy, NULL));
    cr_assert_gt(server, 0);
    assert_closes(server);
    assert_closes(waiting);
    assert_serves(busy);
    assert_closes(busy);
    leave_place();
}

/* Behaviour 59: nor is one whose server has bound it and is about to listen. */
SOCKET_TEST(local, a_name_that_is_bound_and_not_yet_listened_on_is_live) {
    static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
    enter_place("s");
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        int bound = bind_here(types[i]);
        assert_kind(listen_here(LPORT_STREAM, -1, LPORT_UNLINK), LPORT_ADDRESS_IN_USE);
        cr_assert(exists());
        close(bound);
        unlink(place.path);
    }
    leave_place();
}

/* Behaviour 59: and so is nothing else that is there, and what it is is told. */
SOCKET_TEST(local, other_files_are_never_removed) {
    char target[128];
    enter_place("s");
    snprintf(target, sizeof target, "%s/target", place.directory);
    for (int sort = 0; sort < 5; sort++) {
        switch (sort) {
        case 0:
            fclose(fopen(place.path, "we"));
            break;
        case 1:
            cr_assert_eq(mkdir(place.path, 0700), 0);
            break;
        case 2:
            cr_assert_eq(mkfifo(place.path, 0600), 0);
            break;
        case 3: /* to nowhere */
            cr_assert_eq(symlink(target, place.path), 0);
            break;
        default: /* to a stale socket */
            leave_stale(SOCK_STREAM);
            cr_assert_eq(rename(place.path, target), 0);
            cr_assert_eq(symlink(target, place.path), 0);
            break;
        }
        assert_kind(listen_here(LPORT_STREAM, 0600, LPORT_UNLINK), LPORT_PATH_TAKEN);
        assert_kind(listen_here(LPORT_STREAM, -1, 0), LPORT_PATH_TAKEN);
        cr_assert(exists());
        cr_assert_eq(remove(place.path), 0);
    }
    cr_assert_eq(unlink(target), 0);
    leave_place();
}

/* Behaviour 15: the name can be listened on again at once. */
SOCKET_TEST(local, a_closed_name_is_free_at_once) {
    enter_place("s");
    for (int i = 0; i < 20; i++) {
        int64_t listener = listen_here(LPORT_STREAM, -1, LPORT_UNLINK);
        cr_assert_gt(listener, 0);
        assert_serves(listener);
        assert_closes(listener);
        assert_kind(connect_to(place.address), LPORT_PATH_NOT_FOUND);
    }
    leave_place();
}

static int64_t accepting(void *data) {
    return accept_one(*(int64_t *)data, soon());
}

/* Behaviour 15: with a thread in accept, too. */
SOCKET_TEST(local, close_wakes_an_accept_and_removes_the_name) {
    enter_place("s");
    struct task task;
    int64_t listener = listen_here(LPORT_STREAM, -1, LPORT_UNLINK);
    task_start(&task, accepting, &listener);
    task_until_asleep(&task, 1);
    cr_assert_geq(lport_socket_close(listener, 0), 0);
    assert_kind(task_join(&task), LPORT_CLOSED);
    cr_assert_eq(lport_socket_gone(listener, soon()), 0);
    cr_assert(!exists());
    int64_t again = listen_here(LPORT_STREAM, -1, LPORT_UNLINK);
    assert_serves(again);
    assert_closes(again);
    leave_place();
}

/* ---- whose it is to remove ------------------------------------------------------------------- */

SOCKET_TEST(local, without_the_flag_the_name_stays) {
    enter_place("s");
    int64_t listener = listen_here(LPORT_STREAM, 0600, LPORT_REUSE_ADDRESS); /* another one */
    cr_assert_gt(listener, 0);
    assert_closes(listener);
    cr_assert(exists());
    assert_kind(connect_to(place.address), LPORT_CONNECTION_REFUSED);
    cr_assert_eq(unlink(place.path), 0);
    leave_place();
}

static int close_one(void *data) {
    return lport_socket_close(*(int64_t *)data, 0) == 0 && exists() ? 0 : 1;
}

/* Behaviour 59: a forked child that closes its copy removes nothing. */
SOCKET_TEST(local, a_forked_child_does_not_remove_its_parents_name) {
    enter_place("s");
    int64_t listener = listen_here(LPORT_STREAM, -1, LPORT_UNLINK);
    cr_assert_eq(in_child(close_one, &listener), 0);
    cr_assert(exists());
    assert_serves(listener);
    assert_closes(listener);
    cr_assert(!exists());
    leave_place();
}

/* Behaviour 59: what somebody else has put there meanwhile is theirs. */
SOCKET_TEST(local, a_name_that_was_replaced_is_not_removed) {
    enter_place("s");
    int64_t listener = listen_here(LPORT_STREAM, -1, LPORT_UNLINK);
    cr_assert_eq(unlink(place.path), 0);
    int64_t other = listen_here(LPORT_STREAM, -1, 0);
    cr_assert_gt(other, 0);
    assert_closes(listener);
    cr_assert(exists());
    assert_serves(other);
    assert_closes(other);
    cr_assert_eq(unlink(place.path), 0);
    listener = listen_here(LPORT_STREAM, -1, LPORT_UNLINK);
    cr_assert_eq(unlink(place.path), 0);
    fclose(fopen(place.path, "we"));
    assert_closes(listener);
    cr_assert(exists());
    cr_assert_eq(unlink(place.path), 0);
    listener = listen_here(LPORT_STREAM, -1, LPORT_UNLINK);
    cr_assert_eq(unlink(place.path), 0);
    assert_closes(listener);
    leave_place();
}

/* ---- failures -------------------------------------------------------------------------------- */

/* The end of our own is a file too; it stays where the socket does. */
SOCKET_TEST(local, a_datagram_socket_that_finds_no_peer_leaves_no_file) {
    uint8_t nobody[LPORT_ADDRESS_SIZE];
    enter_place("mine");
    cr_assert_eq(lport_address_local("/nobody/there", 13, nobody), LPORT_LOCAL);
    for (int i = 0; i < 2; i++) {
        assert_kind(undisturbed(lport_datagram_open(place.address, nobody, 0, NULL, 0)),
                    LPORT_PATH_NOT_FOUND);
        cr_assert(!exists());
    }
    int64_t socket = undisturbed(lport_datagram_open(place.address, NULL, 0, NULL, 0));
    assert_closes(socket);
    cr_assert(exists());
    cr_assert_eq(unlink(place.path), 0);
    leave_place();
}

/* Behaviour 59: nobody has asked for that. */
SOCKET_TEST(local, a_datagram_socket_takes_no_stale_name) {
    enter_place("s");
    leave_stale(SOCK_DGRAM);
    assert_kind(undisturbed(lport_datagram_open(place.address, NULL, 0, NULL, 0)),
                LPORT_ADDRESS_IN_USE);
    cr_assert(exists());
    cr_assert_eq(unlink(place.path), 0);
    leave_place();
}

/* Dials what nobody has, then LISTENER's address, both from the path of the place. */
static int64_t dial_from_place(int64_t listener) {
    uint8_t addresses[2 * LPORT_ADDRESS_SIZE];
    cr_assert_eq(lport_address_local("/nobody/there", 13, addresses), LPORT_LOCAL);
    cr_assert_eq(lport_socket_name(listener, addresses + LPORT_ADDRESS_SIZE), LPORT_LOCAL);
    int64_t dial = lport_dial_open_addresses(addresses, 2, LPORT_STREAM, place.address, 0);
    cr_assert_gt(dial, 0);
    return dial;
}

SOCKET_TEST(local, an_attempt_that_fails_frees_the_path_that_it_came_from) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    faults_watch(); /* of the first attempt nothing is there to be waited for */
    enter_place("mine");
    int64_t listener = listen_on_loopback(LPORT_LOCAL, address);
    int64_t dial = dial_from_place(listener);
    int64_t socket = lport_dial_step(dial);
    cr_assert_gt(socket, 0, "%s", kind_text(lport_status_kind(socket)));
    assert_closes(listener);
    cr_assert_eq(lport_dial_close(dial), 0);
    assert_closes(socket);
    cr_assert(exists(), "the winner's stays");
    cr_assert_eq(unlink(place.path), 0);
    leave_place();
    faults_resume();
}

/* One that is given up while its pause goes on: its listener has no room. */
SOCKET_TEST(local, an_attempt_that_is_given_up_leaves_no_file) {
    char name[64];
    uint8_t address[LPORT_ADDRESS_SIZE];
    int64_t fillers[8], listener, dial;
    int count = 0;
    faults_watch(); /* the listener is full at a call of the test's own */
    enter_place("mine");
    int len = snprintf(name, sizeof name, "@port-full-%ld", (long)getpid());
    cr_assert_eq(lport_address_local(name, (size_t)len, address), LPORT_LOCAL);
    listener = lport_local_listen(address, LPORT_STREAM, 0, -1, 0, NULL, 0);
    cr_assert_gt(listener, 0);
    do {
        fillers[count] = lport_socket_open(LPORT_LOCAL, LPORT_STREAM, 0);
    } while (lport_socket_connect_start(fillers[count++], address) == 0 && count < 8);
    dial = lport_dial_open_addresses(address, 1, LPORT_STREAM, place.address, 0);
    assert_kind(lport_dial_step(dial), LPORT_IN_PROGRESS);
    cr_assert(exists());
    cr_assert_eq(lport_dial_close(dial), 0);
    cr_assert(!exists());
    while (count > 0) {
        assert_closes(fillers[--count]);
    }
    assert_closes(listener);
    leave_place();
    faults_resume();
}

SOCKET_TEST(local, paths_that_cannot_hold_a_socket) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    static const char *const unusable[] = {"/nowhere/s", "/dev/null/s"};
    for (int i = 0; i < 2; i++) {
        cr_assert_gt(lport_address_local(unusable[i], strlen(unusable[i]), address), 0);
        assert_kind(lport_local_listen(address, LPORT_STREAM, -1, -1, LPORT_UNLINK, NULL, 0),
                    LPORT_PATH_UNUSABLE);
    }
}

static int listen_without_rights(void *data) {
    (void)data;
    if (setgid(65534) != 0 || setuid(65534) != 0) {
        return 2;
    }
    int64_t status = listen_here(LPORT_STREAM, 0600, LPORT_UNLINK);
    return lport_status_kind(status) == LPORT_PERMISSION_DENIED ? 0 : 1;
}

SOCKET_TEST(local, a_directory_that_may_not_be_written) {
    enter_place("s");
    if (getuid() != 0) {
        leave_place();
        cr_skip("only root can become somebody else");
    }
    cr_assert_eq(in_child(listen_without_rights, NULL), 0);
    leave_place();
}

struct attempt {
    int32_t kind, mode, flags;
    bool stale; /* somebody's stale name is there already */
};

static int64_t make_listener(void *data) {
    struct attempt *attempt = data;
    if (attempt->stale && !exists()) {
        leave_stale(SOCK_STREAM);
    }
    return listen_here(attempt->kind, attempt->mode, attempt->flags);
}

static void check_nothing_left(void *data, int64_t result) {
    struct attempt *attempt = data;
    if (result < 0) {
        cr_assert(!exists() || attempt->stale, "a path is left");
        return;
    }
    assert_closes(result);
    if ((attempt->flags & LPORT_UNLINK) == 0) {
        cr_assert_eq(unlink(place.path), 0);
    }
    cr_assert(!exists());
}

SOCKET_TEST(local, a_mode_that_cannot_be_set_is_no_listener) {
    enter_place("s");
    faults_fail(CALL_CHMOD, 1, 1, EPERM);
    assert_kind(listen_here(LPORT_STREAM, 0666, 0), LPORT_PERMISSION_DENIED);
    faults_clear();
    cr_assert(!exists());
    faults_fail(CALL_FCHMOD, 1, 1, EPERM);
    assert_kind(listen_here(LPORT_STREAM, 0666, 0), LPORT_PERMISSION_DENIED);
    faults_clear();
    cr_assert(!exists());
    leave_place();
}

/* Behaviour 64: no descriptor, no slot and no path is left. */
SOCKET_TEST(local, a_listener_that_cannot_be_made_leaves_nothing) {
    static const struct attempt attempts[] = {
        {LPORT_STREAM, -1, 0, false},
        {LPORT_STREAM, 0600, 0, false},
        {LPORT_STREAM, -1, LPORT_UNLINK, false},
        {LPORT_STREAM, 0600, LPORT_UNLINK, false},
        {LPORT_DATAGRAM, 0600, LPORT_UNLINK, false},
        {LPORT_SEQPACKET, 0600, LPORT_UNLINK, false},
        {LPORT_STREAM, 0600, LPORT_UNLINK, true},
    };
    enter_place("s");
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        struct attempt attempt = attempts[i];
        fail_every_call(make_listener, check_nothing_left, &attempt);
        unlink(place.path);
    }
    leave_place();
}
