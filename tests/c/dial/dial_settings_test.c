/* Dials whose sockets have settings. */
#include "../socket/setting.h"
#include "base/os.h"
#include "dialling.h"
#include "support.h"

#include <errno.h>

DIAL_SUITE(dial_settings);

/* A dial to NAME at PORT whose attempts have option OPTION set to VALUE. */
static int64_t dial_with(const char *name, int32_t port, const char *option, int64_t value) {
    uint8_t row[LPORT_SETTING_SIZE];
    int64_t dial = open_dial(name, port);
    put_setting(row, option, value);
    cr_assert_eq(lport_dial_set(dial, row, 1), 0);
    memset(row, 0xff, sizeof row); /* nobody looks at it again */
    return dial;
}

Test(dial_settings, every_attempt_has_them_before_it_connects) {
    static const char *const texts[] = {"127.0.0.2", "127.0.0.3", NULL};
    uint8_t rows[2][LPORT_SETTING_SIZE];
    int64_t listener = listen_at(texts[1], 0, -1);
    int32_t ports[] = {refusing_port(), port_of(listener)};
    put_setting(rows[0], "max-segment", 700);
    put_text_setting(rows[1], "device", "lo", 2);
    int64_t dial = open_list(texts, ports);
    cr_assert_eq(lport_dial_set(dial, rows[0], 2), 0);
    cr_assert_eq(kind(lport_dial_set(dial, rows[0], 2)), LPORT_INVALID);
    int64_t socket = finish_soon(dial);
    check_attempt(dial, 0, texts[0], LPORT_CONNECTION_REFUSED);
    check_peer(socket, texts[1], ports[1]);
    cr_assert_leq(get(socket, "max-segment"), 700); /* of loopback it would be thousands */
    int64_t server = accept_one(listener, soon());
    cr_assert_leq(get(server, "max-segment"), 700);
    lport_socket_close(server, 0);
    end_connected(dial, socket, listener);
}

Test(dial_settings, one_that_cannot_be_set_fails_the_dial_and_sends_nothing) {
    int64_t listener = listen_at("127.0.0.1", 0, -1);
    fake.texts[0] = "127.0.0.1";
    fake.texts[1] = "127.0.0.2";
    static const struct {
        const char *option;
        int64_t value;
        int32_t kind;
    } rows[] = {
        {"v6-only", 1, LPORT_NOT_SUPPORTED},
        {"broadcast", 1, LPORT_NOT_SUPPORTED},
        {"ttl", 1000, LPORT_INVALID},
        {"mtu", 1000, LPORT_INVALID},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        int64_t dial = dial_with("two.test", port_of(listener), rows[i].option, rows[i].value);
        faults_watch();
        int64_t status = finish_soon(dial);
        cr_assert_eq(faults_calls(CALL_CONNECT), 0);
        faults_resume();
        cr_assert_eq(kind(status), rows[i].kind, "%s", rows[i].option);
        cr_assert_eq(lport_status_option(status), index_of(rows[i].option));
        cr_assert_eq(lport_dial_count(dial), 2);
        check_attempt(dial, 1, "127.0.0.2", rows[i].kind);
        lport_dial_close(dial);
    }
    lport_socket_close(listener, 0);
    check_nothing_left();
}

Test(dial_settings, addresses_whose_sockets_cannot_have_one_are_left_to_the_others) {
    NEED_INET6();
    int64_t listener = listen_at("::1", 0, -1);
    fake.texts[0] = "127.0.0.1";
    fake.texts[1] = "::1";
    int64_t dial = dial_with("both.test", port_of(listener), "v6-only", 1);
    int64_t socket = finish_soon(dial);
    check_attempt(dial, 0, "127.0.0.1", LPORT_NOT_SUPPORTED);
    check_peer(socket, "::1", port_of(listener));
    cr_assert_eq(get(socket, "v6-only"), 1);
    end_connected(dial, socket, listener);
}

Test(dial_settings, those_that_find_no_memory_are_told) {
    uint8_t row[LPORT_SETTING_SIZE];
    int64_t dial = open_dial("127.0.0.1", 1);
    put_setting(row, "priority", 5);
    cr_assert_eq(kind(lport_dial_set(dial, row, -1)), LPORT_INVALID);
    cr_assert_eq(lport_dial_set(dial, NULL, 0), 0);
    faults_fail(CALL_CALLOC, 1, 1, ENOMEM);
    cr_assert_eq(kind(lport_dial_set(dial, row, 1)), LPORT_MEMORY_EXHAUSTED);
    faults_clear();
    cr_assert_eq(lport_dial_set(dial, row, 1), 0);
    lport_dial_close(dial);
    check_nothing_left();
}
