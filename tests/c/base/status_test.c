/* status: kinds, and the numbers of the system that map to them. */
#include "base/status.h"
#include "libport.h"
#include "vectors.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <string.h>

TestSuite(status, .timeout = 10);

struct number {
    const char *name;
    int value;
};

#define NUMBER(name)                                                                               \
    { #name, name }

static const struct number numbers[] = {
    NUMBER(EAGAIN),          NUMBER(EWOULDBLOCK),     NUMBER(EINPROGRESS),  NUMBER(EALREADY),
    NUMBER(EINTR),           NUMBER(EPIPE),           NUMBER(ECONNRESET),   NUMBER(ECONNABORTED),
    NUMBER(ENETRESET),       NUMBER(ETIMEDOUT),       NUMBER(ECONNREFUSED), NUMBER(EHOSTUNREACH),
    NUMBER(EHOSTDOWN),       NUMBER(ENONET),          NUMBER(ENETUNREACH),  NUMBER(ENETDOWN),
    NUMBER(EACCES),          NUMBER(EPERM),           NUMBER(EROFS),        NUMBER(ENOENT),
    NUMBER(ENOTDIR),         NUMBER(ELOOP),           NUMBER(EPROTOTYPE),   NUMBER(EIO),
    NUMBER(EPROTO),          NUMBER(ESTALE),          NUMBER(EADDRINUSE),   NUMBER(EADDRNOTAVAIL),
    NUMBER(EMFILE),          NUMBER(ENFILE),          NUMBER(ETOOMANYREFS), NUMBER(ENOMEM),
    NUMBER(ENOBUFS),         NUMBER(ENOSPC),          NUMBER(EMSGSIZE),     NUMBER(EAFNOSUPPORT),
    NUMBER(EPFNOSUPPORT),    NUMBER(EOPNOTSUPP),      NUMBER(ENOTSUP),      NUMBER(ENOPROTOOPT),
    NUMBER(EPROTONOSUPPORT), NUMBER(ESOCKTNOSUPPORT), NUMBER(ENOSYS),       NUMBER(ENOTCONN),
    NUMBER(EDESTADDRREQ),    NUMBER(EISCONN),         NUMBER(EINVAL),       NUMBER(EBADF),
    NUMBER(ENOTSOCK),        NUMBER(EFAULT),          NUMBER(EDOM),         NUMBER(ENODEV),
    NUMBER(EAI_NONAME),      NUMBER(EAI_AGAIN),       NUMBER(EAI_FAIL),     NUMBER(EAI_FAMILY),
    NUMBER(EAI_MEMORY),      NUMBER(EAI_SERVICE),     NUMBER(EAI_SOCKTYPE), NUMBER(EAI_BADFLAGS),
    NUMBER(EAI_OVERFLOW),    NUMBER(EAI_SYSTEM),
#ifdef EAI_NODATA
    NUMBER(EAI_NODATA),
#endif
#ifdef EAI_ADDRFAMILY
    NUMBER(EAI_ADDRFAMILY),
#endif
    NUMBER(HOST_NOT_FOUND),  NUMBER(NO_DATA),         NUMBER(TRY_AGAIN),    NUMBER(NO_RECOVERY),
    NUMBER(NETDB_INTERNAL),
#ifdef NETDB_SUCCESS
    NUMBER(NETDB_SUCCESS),
#endif
};

static const struct number *find_number(const char *name) {
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(numbers[i].name, name) == 0) {
            return &numbers[i];
        }
    }
    return NULL;
}

static const char *const contexts[] = {
    [LPORT_IN_GENERAL] = "general",   [LPORT_IN_CONNECT] = "connect", [LPORT_IN_BIND] = "bind",
    [LPORT_IN_TRANSFER] = "transfer", [LPORT_IN_TCP] = "tcp",
};

/* The context that NAME names; -1 if it is none of errnos. */
static int find_context(const char *name) {
    for (int i = 0; i < (int)(sizeof contexts / sizeof contexts[0]); i++) {
        if (strcmp(contexts[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

/* The kind named NAME; 0 if there is none. */
static int32_t find_kind(const char *name) {
    for (int32_t kind = 1; kind < LPORT_KIND_END; kind++) {
        if (strcmp(lport_kind_name(kind), name) == 0) {
            return kind;
        }
    }
    return 0;
}

static const char *text_of(int64_t status) {
    static _Thread_local char text[LPORT_TEXT_SIZE];
    int64_t len = lport_status_text(status, text, sizeof text);
    cr_assert_eq(len, (int64_t)strlen(text));
    return text;
}

/* Every row, and the errno that must come out again. */
static void check_row(const struct vectors *row) {
    int context = find_context(row->field[0]);
    const struct number *number = find_number(row->field[1]);
    cr_assert_not_null(number, "line %d: %s is unknown here", row->number, row->field[1]);
    int64_t status;
    int32_t kept = 0;
    if (context >= 0) {
        status = lport_status_from_errno((enum lport_context)context, number->value);
        kept = number->value;
    } else if (strcmp(row->field[0], "gai") == 0) {
        status = lport_status_from_gai(number->value, EMFILE);
        kept = number->value == EAI_SYSTEM ? EMFILE : 0;
    } else {
        cr_assert_str_eq(row->field[0], "host");
        status = lport_status_from_host(number->value, EMFILE);
        kept = number->value == NETDB_INTERNAL ? EMFILE : 0;
    }
    int32_t kind = lport_status_kind(status);
    cr_assert_lt(status, 0);
    cr_assert_str_eq(lport_kind_name(kind), row->field[2], "line %d: %s", row->number,
                     lport_kind_name(kind));
    cr_assert_str_eq(lport_kind_condition(kind), row->field[3], "line %d", row->number);
    cr_assert_eq(lport_status_errno(status), kept, "line %d", row->number);
}

Test(status, numbers_of_the_system_map_as_the_table_says) {
    struct vectors rows;
    int count = 0;
    cr_assert(vectors_open(&rows, "statuses.tsv"));
    for (; vectors_next(&rows); count++) {
        check_row(&rows);
    }
    cr_assert(vectors_close(&rows));
    cr_assert_geq(count, 4 * 50 + 12 + 5);
}

Test(status, kinds_have_the_names_conditions_and_texts_of_the_table) {
    struct vectors rows;
    int32_t kind = 0;
    cr_assert(vectors_open(&rows, "kinds.tsv"));
    while (vectors_next(&rows)) {
        kind++;
        cr_assert_lt(kind, LPORT_KIND_END);
        cr_assert_str_eq(lport_kind_name(kind), rows.field[0], "line %d", rows.number);
        cr_assert_str_eq(lport_kind_condition(kind), rows.field[1], "line %d", rows.number);
        cr_assert_str_eq(text_of(lport_status_make(kind)), rows.field[2], "line %d", rows.number);
    }
    cr_assert(vectors_close(&rows));
    cr_assert_eq(kind, LPORT_KIND_END - 1);
}

Test(status, names_of_kinds_are_unique) {
    for (int32_t kind = 1; kind < LPORT_KIND_END; kind++) {
        cr_assert_eq(find_kind(lport_kind_name(kind)), kind);
    }
}

/* The constants stand in the header by hand; these tie them to the rows. */
Test(status, constants_and_names_belong_together) {
    cr_assert_eq(find_kind("other"), LPORT_OTHER);
    cr_assert_eq(find_kind("timed-out"), LPORT_TIMED_OUT);
    cr_assert_eq(find_kind("connection-refused"), LPORT_CONNECTION_REFUSED);
    cr_assert_eq(find_kind("backlog-full"), LPORT_BACKLOG_FULL);
    cr_assert_eq(find_kind("path-unusable"), LPORT_PATH_UNUSABLE);
    cr_assert_eq(find_kind("host-not-found"), LPORT_HOST_NOT_FOUND);
    cr_assert_eq(find_kind("message-too-long"), LPORT_MESSAGE_TOO_LONG);
    cr_assert_eq(find_kind("invalid"), LPORT_INVALID);
}

Test(status, numbers_outside_the_kinds_have_no_name) {
    static const int32_t outside[] = {0, -1, LPORT_KIND_END, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        cr_assert_null(lport_kind_name(outside[i]));
        cr_assert_null(lport_kind_condition(outside[i]));
    }
}

Test(status, make_packs_a_kind_without_a_number) {
    for (int32_t kind = 1; kind < LPORT_KIND_END; kind++) {
        int64_t status = lport_status_make(kind);
        cr_assert_lt(status, 0);
        cr_assert_eq(lport_status_kind(status), kind);
        cr_assert_eq(lport_status_errno(status), 0);
    }
}

Test(status, every_errno_survives_in_every_context) {
    for (int number = 0; number <= 4095; number++) {
        for (int context = LPORT_IN_GENERAL; context <= LPORT_IN_TCP; context++) {
            int64_t status = lport_status_from_errno((enum lport_context)context, number);
            cr_assert_lt(status, 0);
            cr_assert_eq(lport_status_errno(status), number);
            cr_assert_not_null(lport_kind_name(lport_status_kind(status)));
        }
    }
}

Test(status, one_of_a_setting_names_its_option_and_is_else_as_it_was) {
    static const int32_t outside[] = {-1, 0xffff, INT32_MAX, INT32_MIN};
    for (int32_t kind = 1; kind < LPORT_KIND_END; kind++) {
        int64_t plain = kind % 2 == 0 ? lport_status_make(kind)
                                      : lport_status_from_errno(LPORT_IN_GENERAL, kind);
        cr_assert_eq(lport_status_option(plain), -1);
        for (int32_t index = 0; index < 0xffff; index += 1 + index) {
            char text[LPORT_TEXT_SIZE] = "", same[LPORT_TEXT_SIZE] = "";
            int64_t status = lport_status_of_option(plain, index);
            cr_assert_lt(status, 0);
            cr_assert_eq(lport_status_option(status), index);
            cr_assert_eq(lport_status_kind(status), lport_status_kind(plain));
            cr_assert_eq(lport_status_errno(status), lport_status_errno(plain));
            cr_assert_gt(lport_status_text(plain, text, sizeof text), 0);
            cr_assert_gt(lport_status_text(status, same, sizeof same), 0);
            cr_assert_str_eq(text, same);
        }
        for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
            cr_assert_eq(lport_status_of_option(plain, outside[i]), plain);
        }
    }
    cr_assert_eq(lport_status_option(0), -1);
    cr_assert_eq(lport_status_option(INT64_MIN), -1);
    cr_assert_eq(lport_status_option(-(INT64_C(1) << 49) - (INT64_C(1) << 24)), -1);
    cr_assert_eq(lport_status_kind(-(INT64_C(1) << 49) - (INT64_C(1) << 24)), LPORT_OTHER);
}

Test(status, one_of_an_own_end_says_so_and_is_else_as_it_was) {
    int64_t plain = lport_status_from_errno(LPORT_IN_BIND, EADDRINUSE);
    int64_t own = lport_status_of_own_end(plain);
    cr_assert_eq(lport_status_own(plain), 0);
    cr_assert_eq(lport_status_own(own), 1);
    cr_assert_eq(lport_status_of_own_end(own), own);
    cr_assert_eq(lport_status_kind(own), LPORT_ADDRESS_IN_USE);
    cr_assert_eq(lport_status_errno(own), EADDRINUSE);
    cr_assert_eq(lport_status_option(own), -1);
    cr_assert_eq(lport_status_own(lport_status_of_option(plain, 0xfffe)), 0);
    for (int64_t result = 0; result < 3; result++) {
        cr_assert_eq(lport_status_of_own_end(result), result);
        cr_assert_eq(lport_status_own(result), 0);
    }
    cr_assert_eq(lport_status_own(INT64_MIN), 0);
}

Test(status, numbers_that_no_row_knows_are_other_or_connect_failed) {
    cr_assert_eq(lport_status_kind(lport_status_from_errno(LPORT_IN_GENERAL, 4000)), LPORT_OTHER);
    cr_assert_eq(lport_status_kind(lport_status_from_errno(LPORT_IN_BIND, 4000)), LPORT_OTHER);
    cr_assert_eq(lport_status_kind(lport_status_from_errno(LPORT_IN_TRANSFER, 4000)), LPORT_OTHER);
    cr_assert_eq(lport_status_kind(lport_status_from_errno(LPORT_IN_TCP, 4000)), LPORT_OTHER);
    cr_assert_eq(lport_status_kind(lport_status_from_errno(LPORT_IN_CONNECT, 4000)),
                 LPORT_CONNECT_FAILED);
}

Test(status, numbers_that_do_not_fit_leave_the_kind_whole) {
    static const int strange[] = {-1, 65536, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++) {
        int64_t status = lport_status_from_errno(LPORT_IN_CONNECT, strange[i]);
        cr_assert_eq(lport_status_kind(status), LPORT_CONNECT_FAILED);
        cr_assert_eq(lport_status_errno(status), 0);
    }
}

Test(status, results_have_no_kind_and_no_errno) {
    static const int64_t results[] = {0, 1, 4, 65536, INT64_MAX};
    char text[LPORT_TEXT_SIZE];
    for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
        cr_assert_eq(lport_status_kind(results[i]), 0);
        cr_assert_eq(lport_status_errno(results[i]), 0);
        cr_assert_eq(lport_status_text(results[i], text, sizeof text),
                     lport_status_make(LPORT_INVALID));
    }
}

/* 0 would be a result, and a kind below 0 would make one too. */
Test(status, of_no_kind_is_invalid) {
    static const int32_t kinds[] = {0, -1, INT32_MIN, LPORT_KIND_END, INT32_MAX};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        cr_assert_eq(lport_status_make(kinds[i]), lport_status_make(LPORT_INVALID));
    }
}

Test(status, negative_numbers_that_are_no_status_are_other) {
    static const int64_t strange[] = {-1, -111, -((int64_t)LPORT_KIND_END << 24), INT64_MIN,
                                      INT64_MIN + 1};
    for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++) {
        cr_assert_eq(lport_status_kind(strange[i]), LPORT_OTHER);
        cr_assert_eq(lport_status_errno(strange[i]), 0);
        cr_assert_str_eq(text_of(strange[i]), "system error");
    }
}

Test(status, texts_are_the_phrase_of_the_kind) {
    cr_assert_str_eq(text_of(lport_status_from_errno(LPORT_IN_CONNECT, ECONNREFUSED)),
                     "connection refused");
    cr_assert_str_eq(text_of(lport_status_from_errno(LPORT_IN_TRANSFER, EPIPE)),
                     "connection reset by peer");
    cr_assert_str_eq(text_of(lport_status_from_gai(EAI_NONAME, 0)), "host not found");
}

Test(status, texts_of_general_kinds_are_those_of_their_errno) {
    cr_assert_str_eq(text_of(lport_status_from_errno(LPORT_IN_GENERAL, EIO)), "input/output error");
    cr_assert_str_eq(text_of(lport_status_from_errno(LPORT_IN_TRANSFER, EHOSTUNREACH)),
                     "no route to host");
    cr_assert_str_eq(text_of(lport_status_from_errno(LPORT_IN_TRANSFER, ETIMEDOUT)),
                     "connection timed out");
    cr_assert_str_eq(text_of(lport_status_from_errno(LPORT_IN_CONNECT, EPROTOTYPE)),
                     "protocol wrong type for socket");
    cr_assert_str_eq(text_of(lport_status_from_errno(LPORT_IN_BIND, ENOSPC)),
                     "no space left on device");
    cr_assert_str_eq(text_of(lport_status_from_errno(LPORT_IN_TRANSFER, ENOBUFS)),
                     "no buffer space available");
    cr_assert_str_eq(text_of(lport_status_from_errno(LPORT_IN_GENERAL, 4000)),
                     "unknown error 4000");
}

Test(status, every_text_fits_and_begins_a_phrase) {
    for (int number = 0; number <= 255; number++) {
        for (int context = LPORT_IN_GENERAL; context <= LPORT_IN_TCP; context++) {
            const char *text =
                text_of(lport_status_from_errno((enum lport_context)context, number));
            cr_assert_gt(strlen(text), 0);
            cr_assert_lt(strlen(text), LPORT_TEXT_SIZE);
            cr_assert_null(strchr(text, '\n'));
            cr_assert(text[0] < 'A' || text[0] > 'Z' || text[1] < 'a', "%s", text);
        }
    }
}

Test(status, a_text_is_cut_off_at_its_cap_and_terminated_where_there_is_room) {
    int64_t status = lport_status_make(LPORT_TIMED_OUT);
    int64_t whole = (int64_t)strlen("timed out");
    for (size_t cap = 0; cap < 16; cap++) {
        char text[16];
        memset(text, '#', sizeof text);
        cr_assert_eq(lport_status_text(status, text, cap), whole);
        size_t kept = cap < (size_t)whole ? cap : (size_t)whole;
        cr_assert_arr_eq(text, "timed out", kept);
        if (cap > (size_t)whole) {
            cr_assert_eq(text[kept++], '\0');
        }
        for (; kept < sizeof text; kept++) {
            cr_assert_eq(text[kept], '#');
        }
    }
    cr_assert_eq(lport_status_text(status, NULL, 0), whole);
    cr_assert_eq(lport_status_text(status, NULL, 1), lport_status_make(LPORT_INVALID));
}

Test(status, a_text_with_an_errno_is_cut_off_too) {
    int64_t status = lport_status_from_errno(LPORT_IN_GENERAL, EIO);
    char text[4] = "####";
    cr_assert_eq(lport_status_text(status, NULL, 0), (int64_t)strlen("input/output error"));
    cr_assert_eq(lport_status_text(status, text, 1), (int64_t)strlen("input/output error"));
    cr_assert_arr_eq(text, "i###", 4);
}

Test(status, a_text_that_begins_with_an_abbreviation_is_as_the_system_has_it) {
    char text[LPORT_TEXT_SIZE];
    lport_status_text(lport_status_from_errno(LPORT_IN_GENERAL, EDOTDOT), text, sizeof text);
    cr_assert_str_eq(text, "RFS specific error");
}

static void *ask_texts(void *wrong) {
    char text[LPORT_TEXT_SIZE];
    for (int i = 0; i < 2000; i++) {
        lport_status_text(lport_status_from_errno(LPORT_IN_GENERAL, EIO), text, sizeof text);
        *(int *)wrong += strcmp(text, "input/output error") != 0;
        lport_status_text(lport_status_from_errno(LPORT_IN_GENERAL, 3000 + i), text, sizeof text);
        *(int *)wrong += strncmp(text, "unknown error 3", 15) != 0 && i < 1000;
    }
    return NULL;
}

Test(status, texts_do_not_mix_between_threads) {
    pthread_t threads[4];
    int wrong[4] = {0};
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, ask_texts, &wrong[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    }
    cr_assert_eq(wrong[0] + wrong[1] + wrong[2] + wrong[3], 0);
}
