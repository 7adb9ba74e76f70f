/* Texts that are written into a buffer, of every size. */
#include "base/sink.h"

#include <criterion/criterion.h>
#include <string.h>

enum { ROOM = 32 };

/* ROOM has the first CAP octets of EXPECTED, its terminator where there is room, no more. */
static void check_room(const char room[ROOM], size_t cap, const char *expected) {
    size_t len = strlen(expected);
    size_t written = len < cap ? len + 1 : cap;
    cr_assert_arr_eq(room, expected, written);
    for (size_t i = written; i < ROOM; i++) {
        cr_assert_eq(room[i], '#', "octet %zu of %zu", i, cap);
    }
}

Test(sink, a_copy_is_cut_off_where_the_room_ends) {
    for (size_t cap = 0; cap < 8; cap++) {
        char room[ROOM];
        memset(room, '#', sizeof room);
        cr_assert_eq(lport_sink_copy("abcde", room, cap), 5);
        check_room(room, cap, "abcde");
    }
    cr_assert_eq(lport_sink_copy("abcde", NULL, 0), 5);
}

Test(sink, octets_are_copied_whatever_they_are) {
    char room[ROOM];
    cr_assert_eq(lport_sink_copy_octets("a\0\xff"
                                        "b",
                                        3, room, sizeof room),
                 3);
    cr_assert_arr_eq(room, "a\0\xff", 4);
}

Test(sink, a_text_grows_and_tells_what_all_of_it_needs) {
    static const char whole[] = "a.0,4294967295!";
    for (size_t cap = 0; cap < sizeof whole + 2; cap++) {
        char room[ROOM];
        memset(room, '#', sizeof room);
        struct lport_sink sink = {.text = cap > 0 ? room : NULL, .cap = cap};
        lport_sink_put(&sink, "a.");
        lport_sink_number(&sink, 0);
        lport_sink_put(&sink, "");
        lport_sink_octets(&sink, ",!", 1);
        lport_sink_number(&sink, UINT32_MAX);
        lport_sink_put(&sink, "!");
        cr_assert_eq(sink.len, strlen(whole));
        check_room(room, cap, whole);
    }
}
