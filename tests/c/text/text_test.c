/* text: the exported codec but for its UTF-8: Latin-1 and ASCII, lines, counts, and its limits. */
#include "libport.h"
#include "text/text_variants.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

TestSuite(text, .timeout = 120);

Test(text, latin1_and_ascii_stop_where_they_must_or_where_there_is_no_room) {
    uint8_t octets[256], base[256], back[256];
    uint32_t chars[256];
    for (size_t i = 0; i < 256; i++) {
        octets[i] = (uint8_t)i;
    }
    cr_assert_eq(lport_text_from_latin1(octets, 256, chars, 256), lport_text_result(256, 256));
    for (size_t i = 0; i < 256; i++) {
        cr_assert_eq(chars[i], i);
    }
    cr_assert_eq(lport_text_to_latin1(chars, 256, back, 256), lport_text_result(256, 256));
    cr_assert_arr_eq(back, octets, 256);
    cr_assert_eq(lport_text_from_ascii(octets, 256, chars, 256), lport_text_result(128, 128));
    cr_assert_eq(lport_text_from_ascii8(octets, 256, base, 256), lport_text_result(128, 128));
    cr_assert_arr_eq(base, octets, 128);
    cr_assert_eq(lport_text_to_ascii(chars, 256, back, 256), lport_text_result(128, 128));
    cr_assert_eq(lport_text_from_latin1(octets, 256, chars, 77), lport_text_result(77, 77));
    cr_assert_eq(lport_text_from_ascii(octets, 77, chars, 256), lport_text_result(77, 77));
    cr_assert_eq(lport_text_from_ascii8(octets, 256, base, 1), lport_text_result(1, 1));
    cr_assert_eq(lport_text_to_latin1(chars, 256, back, 33), lport_text_result(33, 33));
    cr_assert_eq(lport_text_to_ascii(chars, 32, back, 256), lport_text_result(32, 32));
}

Test(text, find_line_is_the_first_line_feed_or_the_length) {
    uint8_t octets[200];
    for (size_t len = 0; len <= sizeof octets; len++) {
        memset(octets, '\r', sizeof octets);
        cr_assert_eq(lport_text_find_line(octets, len), (int64_t)len);
        for (size_t at = sizeof octets; at-- > 0;) {
            octets[at] = '\n';
            cr_assert_eq(lport_text_find_line(octets, len), (int64_t)(at < len ? at : len));
        }
    }
}

Test(text, last_line_is_behind_the_last_line_feed_or_0) {
    uint8_t octets[200];
    for (size_t len = 0; len <= sizeof octets; len++) {
        memset(octets, '\r', sizeof octets);
        cr_assert_eq(lport_text_last_line(octets, len), 0);
        for (size_t at = 0; at < sizeof octets; at++) {
            octets[at] = '\n';
            cr_assert_eq(lport_text_last_line(octets, len), (int64_t)(at < len ? at + 1 : len));
        }
    }
}

Test(text, utf8_count_is_the_number_of_characters_that_decoding_gives) {
    static const char pattern[] = "a\303\251\342\202\254z\360\237\230\200";
    uint8_t octets[64];
    uint32_t chars[64];
    for (size_t at = 0; at < sizeof octets; at++) {
        octets[at] = (uint8_t)pattern[at % (sizeof pattern - 1)];
    }
    for (size_t start = 0; start < sizeof pattern - 1; start++) {
        for (size_t len = 0; start + len <= sizeof octets; len++) {
            int64_t decoded = lport_text_from_utf8(octets + start, len, chars, 64);
            if (decoded / LPORT_TEXT_SCALE == (int64_t)len) {
                cr_assert_eq(lport_text_utf8_count(octets + start, len), decoded % LPORT_TEXT_SCALE,
                             "%zu from %zu", len, start);
            }
        }
    }
}

Test(text, a_measured_line_has_the_octets_before_its_end_and_their_characters) {
    uint8_t octets[300];
    for (size_t at = 0; at < sizeof octets; at++) {
        octets[at] = (uint8_t)(at % 3 == 0 ? 0xC3 : at % 3 == 1 ? 0xA9 : 'a');
    }
    for (size_t len = 0; len <= sizeof octets; len++) {
        int64_t none = lport_text_measure_line(octets, len);
        cr_assert_eq(lport_status_kind(none), LPORT_WOULD_BLOCK, "%zu", len);
    }
    for (size_t at = 0; at < sizeof octets; at++) {
        uint8_t before = octets[at];
        octets[at] = '\n';
        cr_assert_eq(lport_text_measure_line(octets, sizeof octets),
                     lport_text_result(at, (size_t)lport_text_utf8_count(octets, at)), "%zu", at);
        octets[at] = before;
    }
}

Test(text, empty_vectors_may_be_null) {
    uint8_t octets[] = "abc";
    uint32_t chars[] = {'a', 'b', 'c'};
    cr_assert_eq(lport_text_find_line(NULL, 0), 0);
    cr_assert_eq(lport_text_last_line(NULL, 0), 0);
    cr_assert_eq(lport_text_utf8_problem(NULL, 0), 0);
    cr_assert_eq(lport_text_utf8_count(NULL, 0), 0);
    cr_assert_eq(lport_text_from_utf8(NULL, 0, chars, 3), 0);
    cr_assert_eq(lport_text_from_utf8(octets, 3, NULL, 0), 0);
    cr_assert_eq(lport_text_from_latin1(NULL, 0, NULL, 0), 0);
    cr_assert_eq(lport_text_from_ascii(octets, 3, NULL, 0), 0);
    cr_assert_eq(lport_text_from_ascii8(NULL, 0, octets, 3), 0);
    cr_assert_eq(lport_text_to_utf8(chars, 3, NULL, 0), 0);
    cr_assert_eq(lport_text_to_latin1(NULL, 0, octets, 3), 0);
    cr_assert_eq(lport_text_to_ascii(NULL, 0, NULL, 0), 0);
}

/* SIZE octets of address space over and over the same few pages. */
static uint8_t *endless(int file, size_t page, size_t size) {
    uint8_t *all = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert_neq(all, MAP_FAILED);
    for (size_t at = 0; at < size; at += page) {
        cr_assert_neq(mmap(all + at, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0),
                      MAP_FAILED);
    }
    return all;
}

/* Behaviour 41: beyond the range of a C int, and of what a result can count. */
Test(text, counts_stay_below_two_to_the_31_in_longer_vectors) {
    enum { PAGE = 1 << 22 };
    size_t size = (size_t)LPORT_TEXT_SCALE + 2 * PAGE;
    int file = memfd_create("text_test", MFD_CLOEXEC);
    cr_assert_geq(file, 0);
    cr_assert_eq(ftruncate(file, PAGE), 0);
    uint8_t *octets = endless(file, PAGE, size), *chars = endless(file, PAGE, size);
    memset(octets, 'x', PAGE);
    cr_assert_eq(lport_text_from_ascii8(octets, size, chars, size),
                 lport_text_result(LPORT_TEXT_MAX, LPORT_TEXT_MAX));
    cr_assert_eq(lport_text_find_line(octets, size), (int64_t)size);
    cr_assert_neq(mmap(octets + size - PAGE, PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                  MAP_FAILED);
    octets[size - 1] = '\n';
    cr_assert_eq(lport_text_find_line(octets, size), (int64_t)size - 1);
    cr_assert_eq(lport_status_kind(lport_text_measure_line(octets, size)), LPORT_WOULD_BLOCK);
    cr_assert_eq(munmap(octets, size), 0);
    cr_assert_eq(munmap(chars, size), 0);
    cr_assert_eq(close(file), 0);
}
