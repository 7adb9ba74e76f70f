/* fork - what a forked child inherits while threads of its parent are inside the library. */
#include "support.h"

#include "libport.h"

struct family_of_ends {
    int64_t ends[2];
    int64_t others[2];
    int events; /* eventfds that the library has not made */
};

static int64_t read_one(void *data) {
    uint8_t octet;
    return receive_some(*(const int64_t *)data, &octet, 1, soon()) == 1 ? octet : -1;
}

/* In the child: no thread waits on anything, no eventfd is shared with the parent, waits work, and
 * the descriptor on which a thread of the parent waits goes with the close, as if nobody had ever
 * waited. */
static int use_inherited(void *data) {
    const struct family_of_ends *all = data;
    uint8_t octet = 'x';
    if (count_descriptors(EVENTFD) != all->events) {
        return 6;
    }
    if (lport_wait_count() != 0 || lport_wait_wake(all->ends[1], LPORT_INPUT) != 0) {
        return 1;
    }
    if (lport_status_kind(wait_for(all->others[0], LPORT_INPUT, lport_clock_after(1000000))) !=
        LPORT_TIMED_OUT) {
        return 2;
    }
    if (undisturbed(lport_socket_send(all->others[0], &octet, 1)) != 1 ||
        read_one((void *)&all->others[1]) != 'x') {
        return 3;
    }
    if (lport_socket_close(all->ends[1], 0) != 0 || lport_socket_close(all->ends[0], 0) != 0) {
        return 4;
    }
    return lport_status_kind(lport_socket_descriptor(all->ends[1])) == LPORT_CLOSED ? 0 : 5;
}

SOCKET_TEST(fork, a_child_is_not_held_up_by_waits_of_its_parent) {
    struct family_of_ends all = {.events = count_descriptors(EVENTFD)};
    struct task reader;
    make_connection(LPORT_INET, all.ends);
    make_connection(LPORT_LOCAL, all.others);
    task_start(&reader, read_one, &all.ends[1]);
    task_until_asleep(&reader, 1);
    cr_assert_eq(in_child(use_inherited, &all), 0);
    /* The child's close and its wake reached nobody here. */
    cr_assert_eq(lport_wait_count(), 1);
    cr_assert_eq(undisturbed(lport_socket_send(all.ends[0], (const uint8_t *)"p", 1)), 1);
    cr_assert_eq(task_join(&reader), 'p');
    close_both(all.ends);
    close_both(all.others);
}
