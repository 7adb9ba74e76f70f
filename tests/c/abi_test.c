/* The shared library as a foreign language sees it: nothing but its manifest and libffi. Every
 * function of the manifest is called with the signature that the manifest gives; the objects that
 * the other suites are linked with are not used here. */
#include "libport.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <ffi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the manifest, read ---------------------------------------------------------------------- */

enum { FUNCTIONS_MAX = 192, ARGUMENTS_MAX = 8 };

struct function {
    char name[48];
    ffi_type *result;
    ffi_type *types[ARGUMENTS_MAX];
    unsigned count;
    ffi_cif cif;
    void *address;
};

static struct function functions[FUNCTIONS_MAX];
static size_t function_count;
static size_t constant_count;
static void *library;

/* The libffi type of the C type that LEN characters at TEXT spell, or NULL. */
static ffi_type *type_of(const char *text, size_t len) {
    static const struct {
        const char *name;
        ffi_type *type;
    } types[] = {
        {"void", &ffi_type_void},
        {"int32_t", &ffi_type_sint32},
        {"int64_t", &ffi_type_sint64},
        {"size_t", sizeof(size_t) == 8 ? &ffi_type_uint64 : &ffi_type_uint32},
    };
    if (memchr(text, '*', len) != NULL) {
        return &ffi_type_pointer;
    }
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strlen(types[i].name) == len && memcmp(text, types[i].name, len) == 0) {
            return types[i].type;
        }
    }
    return NULL;
}

/* TEXT is "int64_t, const char *)": its types into F. */
static void read_arguments(const char *text, struct function *f) {
    while (*text != ')') {
        size_t len = strcspn(text, ",)");
        ffi_type *type = type_of(text, len);
        cr_assert_not_null(type, "%s: unknown type: %s", f->name, text);
        if (type != &ffi_type_void) {
            cr_assert_lt(f->count, (unsigned)ARGUMENTS_MAX);
            f->types[f->count++] = type;
        }
        text += len;
        text += strspn(text, ", ");
    }
    cr_assert_str_eq(text, ")");
}

/* LINE is "int64_t lport_clock_after(int64_t)". */
static void read_function(const char *line) {
    cr_assert_lt(function_count, (size_t)FUNCTIONS_MAX);
    struct function *f = &functions[function_count++];
    const char *open = strchr(line, '(');
    cr_assert_not_null(open, "no arguments: %s", line);
    const char *name = open;
    while (name > line && name[-1] != ' ' && name[-1] != '*') {
        name--;
    }
    cr_assert_lt((size_t)(open - name), sizeof f->name);
    memcpy(f->name, name, (size_t)(open - name));
    cr_assert(name > line);
    f->result = type_of(line, (size_t)(name - 1 - line));
    cr_assert_not_null(f->result, "unknown result: %s", line);
    read_arguments(open + 1, f);
    f->address = dlsym(library, f->name);
    cr_assert_not_null(f->address, "not exported: %s", f->name);
    cr_assert_eq(ffi_prep_cif(&f->cif, FFI_DEFAULT_ABI, f->count, f->result, f->types), FFI_OK);
}

/* LINE is "LPORT_INET 4". */
static void read_constant(const char *line) {
    const char *space = strchr(line, ' ');
    char *end = NULL;
    cr_assert_eq(strncmp(line, "LPORT_", 6), 0, "odd name: %s", line);
    cr_assert_not_null(space, "no value: %s", line);
    (void)strtoll(space + 1, &end, 10);
    cr_assert(end > space + 1 && *end == '\0', "odd value: %s", line);
    constant_count++;
}

static void read_manifest(void) {
    library = dlopen(LPORT_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(library, "%s: %s", LPORT_LIBRARY, dlerror());
    const char *(*manifest)(void) = (const char *(*)(void))dlsym(library, "lport_manifest");
    cr_assert_not_null(manifest);
    const char *line = manifest();
    while (*line != '\0') {
        char copy[256] = {0};
        size_t len = strcspn(line, "\n");
        cr_assert(len < sizeof copy && line[len] == '\n', "odd line: %s", line);
        memcpy(copy, line, len);
        if (strncmp(copy, "function ", 9) == 0) {
            read_function(copy + 9);
        } else {
            cr_assert_eq(strncmp(copy, "constant ", 9), 0, "odd line: %s", copy);
            read_constant(copy + 9);
        }
        line += len + 1;
    }
}

/* ---- calling --------------------------------------------------------------------------------- */

/* An argument before its type is known: libffi gets the half that the manifest asks for. */
struct cell {
    int64_t number;
    const void *pointer;
    bool is_pointer;
};

#define N(value)                                                                                   \
    { .number = (int64_t)(value) }
#define P(value)                                                                                   \
    { .pointer = (value), .is_pointer = true }

static struct function *find(const char *name) {
    for (size_t i = 0; i < function_count; i++) {
        if (strcmp(functions[i].name, name) == 0) {
            return &functions[i];
        }
    }
    return NULL;
}

static int64_t invoke(const char *name, const struct cell *cells, size_t count) {
    struct function *f = find(name);
    union {
        int32_t int32;
        int64_t int64;
        size_t size;
        const void *pointer;
    } values[ARGUMENTS_MAX] = {{0}};
    void *arguments[ARGUMENTS_MAX] = {0};
    cr_assert_not_null(f, "the manifest lacks %s", name);
    cr_assert_eq(f->count, count, "%s takes %u arguments", name, f->count);
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(f->types[i] == &ffi_type_pointer, cells[i].is_pointer, "%s, argument %zu",
                     name, i);
        if (f->types[i] == &ffi_type_pointer) {
            values[i].pointer = cells[i].pointer;
        } else if (f->types[i] == &ffi_type_sint32) {
            values[i].int32 = (int32_t)cells[i].number;
        } else if (f->types[i] == &ffi_type_sint64) {
            values[i].int64 = cells[i].number;
        } else {
            values[i].size = (size_t)cells[i].number;
        }
        arguments[i] = &values[i];
    }
    union {
        ffi_sarg narrow; /* libffi widens results smaller than a register */
        int64_t wide;
        void *pointer;
    } result = {0};
    ffi_call(&f->cif, FFI_FN(f->address), &result, arguments);
    if (f->result == &ffi_type_pointer) {
        return (int64_t)(intptr_t)result.pointer;
    }
    return f->result == &ffi_type_sint32 ? (int64_t)(int32_t)result.narrow : result.wide;
}

/* The first cell only lets a function without arguments be called the same way. */
#define CALL(name, ...)                                                                            \
    invoke(name, (const struct cell[]){N(0), ##__VA_ARGS__} + 1,                                   \
           sizeof((const struct cell[]){N(0), ##__VA_ARGS__}) / sizeof(struct cell) - 1)

static const char *text_at(int64_t pointer) {
    return (const char *)(intptr_t)pointer;
}

static int64_t kind_of(int64_t status) {
    return CALL("lport_status_kind", N(status));
}

#define assert_kind(status, kind)                                                                  \
    do {                                                                                           \
        int64_t status_ = (status);                                                                \
        cr_assert_eq(kind_of(status_), (kind), "%s is %s", #status,                                \
                     status_ < 0 ? text_at(CALL("lport_kind_name", N(kind_of(status_))))           \
                                 : "a result");                                                    \
    } while (0)

/* Later than anything on loopback takes. */
static int64_t soon(void) {
    return CALL("lport_clock_after", N(20000000000));
}

/* ---- every function once, with arguments whose answer is known ------------------------------- */

enum expectation {
    IS,       /* the number */
    AT_LEAST, /* the number or more */
    FAILS,    /* a status of that kind */
    REFUSES,  /* LPORT_CLOSED or LPORT_INVALID: no such wait, query or dial */
    SPELLS,   /* the text */
    NOTHING,  /* NULL */
};

struct row {
    const char *name;
    enum expectation expectation;
    int64_t number;
    const char *text;
    size_t count;
    struct cell cells[ARGUMENTS_MAX];
};

static uint8_t loopback[LPORT_ADDRESS_SIZE] = {LPORT_INET, 0, 0, 80, 0, 0, 0, 0, 127, 0, 0, 1};
static uint8_t elsewhere[LPORT_ADDRESS_SIZE] = {LPORT_INET, 0, 0, 81, 0, 0, 0, 0, 127, 0, 0, 1};
static uint8_t nonsense[LPORT_ADDRESS_SIZE] = {99};
static uint8_t space[LPORT_ADDRESS_SIZE];
static uint8_t setting[LPORT_SETTING_SIZE] = {0, 0, 0, 99};
static char words[LPORT_TEXT_SIZE];
static uint8_t octets[16] = "ab\ncdefgh";
static uint32_t chars[16] = {'o', 'k'};
static int64_t pair[2];
static int64_t events[2 * LPORT_EVENT_SIZE];
static int64_t numbers[3];

/* Stands for a socket, wait, query or dial that is not there; each row that has it runs once for
 * each number that could be taken for one. */
#define GONE  N(INT64_MIN)
#define STALE N(INT64_MIN + 1) /* one that was there, and was closed */

#define ROW(name, expectation, number, ...)                                                        \
    {                                                                                              \
        name, expectation, number, NULL,                                                           \
            sizeof((struct cell[]){N(0), ##__VA_ARGS__}) / sizeof(struct cell) - 1, {              \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define TEXT_ROW(name, expectation, text, ...)                                                     \
    {                                                                                              \
        name, expectation, 0, text,                                                                \
            sizeof((struct cell[]){N(0), ##__VA_ARGS__}) / sizeof(struct cell) - 1, {              \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

static const struct row rows[] = {
    TEXT_ROW("lport_version", SPELLS, LPORT_VERSION),
    ROW("lport_abi", IS, LPORT_ABI),
    ROW("lport_manifest", AT_LEAST, 1),
    ROW("lport_status_make", FAILS, LPORT_TIMED_OUT, N(LPORT_TIMED_OUT)),
    ROW("lport_status_kind", IS, 0, N(17)),
    ROW("lport_status_errno", IS, 0, N(0)),
    ROW("lport_status_option", IS, -1, N(-1)),
    ROW("lport_status_own", IS, 0, N(-1)),
    ROW("lport_status_text", AT_LEAST, 1, N(-1), P(NULL), N(0)),
    TEXT_ROW("lport_kind_name", SPELLS, "timed-out", N(LPORT_TIMED_OUT)),
    TEXT_ROW("lport_kind_name", NOTHING, NULL, N(LPORT_KIND_END)),
    TEXT_ROW("lport_kind_condition", SPELLS, "timeout", N(LPORT_TIMED_OUT)),
    TEXT_ROW("lport_kind_condition", NOTHING, NULL, N(0)),
    ROW("lport_clock_now", AT_LEAST, 1),
    ROW("lport_clock_after", IS, LPORT_NEVER, N(INT64_MAX)),
    ROW("lport_fence_prepare", IS, 0),
    ROW("lport_fence", IS, 0),
    ROW("lport_address_parse", IS, LPORT_INET, P("127.0.0.1"), N(9), N(65535), P(space)),
    ROW("lport_address_parse", FAILS, LPORT_ADDRESS_SYNTAX, P("127.1"), N(5), N(1), P(space)),
    ROW("lport_address_is_literal", IS, 1, P("127.1"), N(5)),
    ROW("lport_address_is_literal", IS, 0, P("localhost"), N(9)),
    ROW("lport_address_print", IS, 9, P(loopback), P(words), N(sizeof words)),
    ROW("lport_port_parse", IS, 443, P("443"), N(3)),
    ROW("lport_port_parse", FAILS, LPORT_ADDRESS_SYNTAX, P("65536"), N(5)),
    ROW("lport_address_local", IS, LPORT_LOCAL, P("@here"), N(5), P(space)),
    ROW("lport_address_local", FAILS, LPORT_ADDRESS_SYNTAX, P(NULL), N(0), P(space)),
    ROW("lport_address_equal", IS, 1, P(loopback), P(loopback)),
    ROW("lport_address_equal", IS, 0, P(loopback), P(elsewhere)),
    ROW("lport_address_equal", FAILS, LPORT_INVALID, P(loopback), P(nonsense)),
    ROW("lport_proxy_parse", IS, 15, P("PROXY UNKNOWN\r\n"), N(15), P(space), P(space)),
    ROW("lport_proxy_parse", FAILS, LPORT_PROXY_SYNTAX, P("GET"), N(3), P(space), P(space)),
    ROW("lport_proxy_print", IS, 15, N(1), P(NULL), P(NULL), P(words), N(sizeof words)),
    ROW("lport_proxy_print", IS, 28, N(2), P(loopback), P(elsewhere), P(words), N(sizeof words)),
    ROW("lport_proxy_print", FAILS, LPORT_INVALID, N(3), P(NULL), P(NULL), P(words), N(1)),
    ROW("lport_interface_list", AT_LEAST, 1, P(NULL), N(0)),
    ROW("lport_interface_index", AT_LEAST, 1, P("lo"), N(2)),
    ROW("lport_interface_name", FAILS, LPORT_ADDRESS_NOT_AVAILABLE, N(0), P(words),
        N(sizeof words)),
    ROW("lport_host_name", AT_LEAST, 1, P(words), N(sizeof words)),
    ROW("lport_socket_close", FAILS, LPORT_CLOSED, GONE, N(0)),
    ROW("lport_socket_gone", IS, 0, STALE, N(0)),
    ROW("lport_socket_descriptor", FAILS, LPORT_CLOSED, GONE),
    ROW("lport_socket_state", FAILS, LPORT_CLOSED, GONE),
    ROW("lport_socket_count", IS, 0),
    ROW("lport_wait_count", IS, 0),
    ROW("lport_wait_begin", FAILS, LPORT_CLOSED, GONE, N(LPORT_INPUT)),
    ROW("lport_wait_poll", REFUSES, 0, GONE, N(0), N(1)),
    ROW("lport_wait_poll2", REFUSES, 0, GONE, GONE, N(0), N(1)),
    ROW("lport_wait_end", REFUSES, 0, GONE),
    ROW("lport_wait_wake", FAILS, LPORT_CLOSED, GONE, N(LPORT_INPUT | LPORT_OUTPUT)),
    ROW("lport_socket_listen", FAILS, LPORT_INVALID, P(nonsense), N(-1), N(0), P(NULL), N(0)),
    ROW("lport_socket_listen", FAILS, LPORT_INVALID, P(loopback), N(-1), N(0), P(setting), N(1)),
    ROW("lport_socket_accept", FAILS, LPORT_CLOSED, GONE, P(NULL)),
    ROW("lport_socket_pair", FAILS, LPORT_INVALID, N(99), P(pair)),
    ROW("lport_socket_shutdown", FAILS, LPORT_CLOSED, GONE, N(LPORT_OUTPUT)),
    ROW("lport_socket_name", FAILS, LPORT_CLOSED, GONE, P(space)),
    ROW("lport_socket_peer", FAILS, LPORT_CLOSED, GONE, P(space)),
    ROW("lport_datagram_open", FAILS, LPORT_INVALID, P(loopback), P(nonsense), N(0), P(NULL), N(0)),
    ROW("lport_datagram_send", FAILS, LPORT_CLOSED, GONE, P(octets), N(3), P(loopback)),
    ROW("lport_datagram_undelivered", FAILS, LPORT_CLOSED, GONE, P(space)),
    ROW("lport_datagram_receive", FAILS, LPORT_CLOSED, GONE, P(space), N(sizeof space), P(NULL),
        N(0)),
    ROW("lport_datagram_send_batch", FAILS, LPORT_CLOSED, GONE, P(octets), N(16), P(numbers),
        P(loopback), N(1)),
    ROW("lport_datagram_receive_batch", FAILS, LPORT_CLOSED, GONE, P(octets), N(16), P(numbers),
        P(space), N(1)),
    ROW("lport_datagram_send_from", FAILS, LPORT_CLOSED, GONE, P(octets), N(3), P(loopback),
        P(loopback)),
    ROW("lport_datagram_receive_at", FAILS, LPORT_CLOSED, GONE, P(space), N(sizeof space), P(space),
        P(space), N(0)),
    ROW("lport_datagram_send_batch_from", FAILS, LPORT_CLOSED, GONE, P(octets), N(16), P(numbers),
        P(loopback), P(loopback), N(1)),
    ROW("lport_datagram_receive_batch_at", FAILS, LPORT_CLOSED, GONE, P(octets), N(16), P(numbers),
        P(space), P(space), N(1)),
    ROW("lport_datagram_join", FAILS, LPORT_CLOSED, GONE, P(loopback), N(0), P(NULL)),
    ROW("lport_datagram_leave", FAILS, LPORT_CLOSED, GONE, P(loopback), N(0), P(NULL)),
    ROW("lport_local_listen", FAILS, LPORT_INVALID, P(loopback), N(LPORT_STREAM), N(-1), N(-1),
        N(0), P(NULL), N(0)),
    ROW("lport_local_credentials", FAILS, LPORT_CLOSED, GONE, P(numbers)),
    ROW("lport_local_send", FAILS, LPORT_CLOSED, GONE, P(octets), N(3), P(numbers), N(1)),
    ROW("lport_local_receive", FAILS, LPORT_CLOSED, GONE, P(octets), N(3), P(numbers), N(1)),
    ROW("lport_local_receive_from", FAILS, LPORT_CLOSED, GONE, P(space), N(3), P(NULL), P(numbers)),
    TEXT_ROW("lport_option_name", NOTHING, NULL, N(INT32_MAX)),
    TEXT_ROW("lport_option_kind", SPELLS, "choice", N(0)),
    TEXT_ROW("lport_option_unit", NOTHING, NULL, N(-1)),
    TEXT_ROW("lport_option_sockets", SPELLS, "every socket", N(0)),
    TEXT_ROW("lport_option_note", NOTHING, NULL, N(INT32_MIN)),
    TEXT_ROW("lport_option_choice", SPELLS, "stream", N(0), N(0)),
    ROW("lport_option_access", FAILS, LPORT_INVALID, N(-1)),
    ROW("lport_option_get", FAILS, LPORT_CLOSED, GONE, N(0)),
    ROW("lport_option_set", FAILS, LPORT_CLOSED, GONE, N(0), N(1)),
    ROW("lport_option_get_text", FAILS, LPORT_CLOSED, GONE, N(0), P(words), N(sizeof words)),
    ROW("lport_option_set_text", FAILS, LPORT_CLOSED, GONE, N(0), P("lo"), N(2)),
    TEXT_ROW("lport_info_name", SPELLS, "state", N(0)),
    TEXT_ROW("lport_info_kind", SPELLS, "state", N(0)),
    TEXT_ROW("lport_info_note", NOTHING, NULL, N(INT32_MAX)),
    TEXT_ROW("lport_info_state", SPELLS, "established", N(1)),
    ROW("lport_info_read", FAILS, LPORT_CLOSED, GONE, P(NULL), N(0)),
    ROW("lport_descriptor_inspect", FAILS, LPORT_INVALID, N(INT32_MAX)),
    ROW("lport_descriptor_adopt", FAILS, LPORT_INVALID, N(-1)),
    ROW("lport_socket_detach", FAILS, LPORT_CLOSED, GONE),
    ROW("lport_socket_detach_end", FAILS, LPORT_CLOSED, GONE, N(1)),
    ROW("lport_activation_count", IS, 0),
    ROW("lport_activation_name", FAILS, LPORT_INVALID, N(0), P(words), N(sizeof words)),
    ROW("lport_activation_forget", IS, 0),
    ROW("lport_socket_receive", FAILS, LPORT_CLOSED, GONE, P(space), N(sizeof space), N(0)),
    ROW("lport_socket_send", FAILS, LPORT_CLOSED, GONE, P(octets), N(3)),
    ROW("lport_socket_send2", FAILS, LPORT_CLOSED, GONE, P(octets), N(3), P(NULL), N(0)),
    ROW("lport_socket_send_file", FAILS, LPORT_CLOSED, GONE, N(0), N(0), N(1)),
    ROW("lport_socket_buffered", FAILS, LPORT_CLOSED, GONE),
    ROW("lport_socket_failure", FAILS, LPORT_CLOSED, GONE),
    ROW("lport_poller_open", FAILS, LPORT_INVALID, N(99)),
    ROW("lport_poller_add", FAILS, LPORT_CLOSED, GONE, N(1), N(LPORT_INPUT)),
    ROW("lport_poller_modify", FAILS, LPORT_CLOSED, GONE, N(1), N(LPORT_INPUT)),
    ROW("lport_poller_claim", FAILS, LPORT_CLOSED, GONE, N(1)),
    ROW("lport_poller_remove", FAILS, LPORT_CLOSED, GONE, N(1)),
    ROW("lport_poller_begin", FAILS, LPORT_CLOSED, GONE),
    ROW("lport_poller_wait", FAILS, LPORT_INVALID, GONE, N(0), P(events), N(1), N(0), N(0)),
    ROW("lport_poller_end", FAILS, LPORT_INVALID, GONE, N(0)),
    ROW("lport_poller_wake", FAILS, LPORT_CLOSED, GONE),
    ROW("lport_text_find_line", IS, 2, P(octets), N(6)),
    ROW("lport_text_find_line", IS, 2, P(octets), N(2)),
    ROW("lport_text_last_line", IS, 0, P(octets), N(2)),
    ROW("lport_text_last_line", IS, 3, P(octets), N(6)),
    ROW("lport_text_measure_line", FAILS, LPORT_WOULD_BLOCK, P(octets), N(2)),
    ROW("lport_text_measure_line", IS, 3 * LPORT_TEXT_SCALE + 2, P("h\303\251\n"), N(4)),
    ROW("lport_text_from_utf8", IS, 4 * LPORT_TEXT_SCALE + 3, P("h\303\251!"), N(4), P(chars + 8),
        N(8)),
    ROW("lport_text_from_latin1", IS, 4 * LPORT_TEXT_SCALE + 4, P("h\303\251!"), N(4), P(chars + 8),
        N(8)),
    ROW("lport_text_from_ascii", IS, 1 * LPORT_TEXT_SCALE + 1, P("h\303\251!"), N(4), P(chars + 8),
        N(8)),
    ROW("lport_text_from_ascii8", IS, 1 * LPORT_TEXT_SCALE + 1, P("h\303\251!"), N(4), P(words),
        N(8)),
    ROW("lport_text_utf8_problem", IS, 1, P("\377"), N(1)),
    ROW("lport_text_utf8_count", IS, 3, P("h\303\251!"), N(4)),
    ROW("lport_text_to_utf8", IS, 2 * LPORT_TEXT_SCALE + 2, P(chars), N(2), P(words), N(8)),
    ROW("lport_text_to_latin1", IS, 2 * LPORT_TEXT_SCALE + 2, P(chars), N(2), P(words), N(8)),
    ROW("lport_text_to_ascii", IS, 1 * LPORT_TEXT_SCALE + 1, P(chars), N(2), P(words), N(1)),
    ROW("lport_resolve_open", FAILS, LPORT_ADDRESS_SYNTAX, P(NULL), N(0), N(LPORT_ANY), N(0)),
    ROW("lport_resolve_open", FAILS, LPORT_INVALID, P("127.0.0.1"), N(9), N(LPORT_ANY), N(0)),
    ROW("lport_resolve_reverse", FAILS, LPORT_INVALID, P(nonsense)),
    ROW("lport_resolve_wait", REFUSES, 0, GONE, N(0)),
    ROW("lport_resolve_count", REFUSES, 0, GONE),
    ROW("lport_resolve_address", REFUSES, 0, GONE, N(0), P(space)),
    ROW("lport_resolve_name", REFUSES, 0, GONE, N(0), P(words), N(sizeof words)),
    ROW("lport_resolve_close", REFUSES, 0, GONE),
    ROW("lport_service_find", FAILS, LPORT_SERVICE_NOT_FOUND, P("no-such-service"), N(15), P("tcp"),
        N(3), P(words), N(sizeof words)),
    ROW("lport_service_list", AT_LEAST, 1, P(NULL), N(0)),
    ROW("lport_dial_open", FAILS, LPORT_ADDRESS_SYNTAX, P("127.1"), N(5), N(80), N(LPORT_ANY),
        P(NULL), N(0)),
    ROW("lport_dial_open_addresses", FAILS, LPORT_INVALID, P(NULL), N(-1), N(LPORT_STREAM), P(NULL),
        N(0)),
    ROW("lport_dial_set", REFUSES, 0, GONE, P(NULL), N(0)),
    ROW("lport_dial_step", REFUSES, 0, GONE),
    ROW("lport_dial_wait", REFUSES, 0, GONE, N(0)),
    ROW("lport_dial_watch", REFUSES, 0, GONE, N(0)),
    ROW("lport_dial_count", REFUSES, 0, GONE),
    ROW("lport_dial_attempt", REFUSES, 0, GONE, N(0), P(space)),
    ROW("lport_dial_attempt_own", REFUSES, 0, GONE, N(0), P(space)),
    ROW("lport_dial_close", REFUSES, 0, GONE),
    ROW("lport_tls_context_open", AT_LEAST, 1),
    ROW("lport_tls_context_close", FAILS, LPORT_CLOSED, GONE),
    ROW("lport_tls_context_trust", FAILS, LPORT_INVALID, GONE, N(LPORT_TLS_FILE), P(NULL), N(0)),
    ROW("lport_tls_context_trust", FAILS, LPORT_CLOSED, GONE, N(LPORT_TLS_SYSTEM), P(NULL), N(0)),
    ROW("lport_tls_context_revoked", FAILS, LPORT_INVALID, GONE, P(NULL), N(0)),
    ROW("lport_tls_context_identity", FAILS, LPORT_CLOSED, GONE, P("a"), N(1), P("b"), N(1),
        P(NULL), N(0)),
    ROW("lport_tls_context_verify", FAILS, LPORT_CLOSED, GONE, N(LPORT_TLS_VERIFY)),
    ROW("lport_tls_context_resume", FAILS, LPORT_CLOSED, GONE, N(0)),
    ROW("lport_tls_context_versions", FAILS, LPORT_INVALID, GONE, N(3), N(2)),
    ROW("lport_tls_context_versions", FAILS, LPORT_CLOSED, GONE, N(2), N(3)),
    ROW("lport_tls_context_protocols", FAILS, LPORT_INVALID, GONE, P("a,,b"), N(4)),
    ROW("lport_tls_context_protocols", FAILS, LPORT_CLOSED, GONE, P("a,b"), N(3)),
    ROW("lport_tls_context_offer", FAILS, LPORT_CLOSED, GONE, GONE),
    ROW("lport_tls_context_replace", FAILS, LPORT_CLOSED, GONE, GONE),
    ROW("lport_tls_context_problem", FAILS, LPORT_CLOSED, GONE, P(words), N(sizeof words)),
    ROW("lport_tls_start", FAILS, LPORT_CLOSED, GONE, N(0), N(LPORT_TLS_CLIENT), P("here"), N(4),
        P(NULL), N(0)),
    ROW("lport_tls_start", FAILS, LPORT_INVALID, GONE, N(0), N(3), P("here"), N(4), P(NULL), N(0)),
    ROW("lport_tls_step", FAILS, LPORT_CLOSED, GONE),
    ROW("lport_tls_text", FAILS, LPORT_CLOSED, GONE, N(LPORT_TLS_VERSION), P(words),
        N(sizeof words)),
};

static void check_answer(const struct row *row, int64_t answer, int64_t gone) {
    switch (row->expectation) {
    case IS:
        cr_assert_eq(answer, row->number, "%s: %ld", row->name, (long)answer);
        break;
    case AT_LEAST:
        cr_assert_geq(answer, row->number, "%s: %ld", row->name, (long)answer);
        break;
    case FAILS:
        cr_assert_eq(kind_of(answer), row->number, "%s (of %ld): kind %ld", row->name, (long)gone,
                     (long)kind_of(answer));
        break;
    case REFUSES:
        cr_assert(kind_of(answer) == LPORT_CLOSED || kind_of(answer) == LPORT_INVALID,
                  "%s (of %ld): kind %ld", row->name, (long)gone, (long)kind_of(answer));
        break;
    case SPELLS:
        cr_assert_str_eq(text_at(answer), row->text);
        break;
    case NOTHING:
        cr_assert_eq(answer, 0, "%s", row->name);
        break;
    }
}

/* ROW once for each number in GONE if it asks for one, else once. */
static void play(const struct row *row, const int64_t *gone, size_t gone_count) {
    bool asks = row->count > 0 && !row->cells[0].is_pointer && row->cells[0].number == INT64_MIN;
    for (size_t i = 0; i < (asks ? gone_count : 1); i++) {
        struct cell cells[ARGUMENTS_MAX];
        memcpy(cells, row->cells, sizeof cells);
        if (asks) {
            cells[0].number = gone[i];
        } else if (cells[0].number == INT64_MIN + 1) {
            cells[0].number = pair[0];
        }
        check_answer(row, invoke(row->name, cells, row->count), gone[i]);
    }
}

TestSuite(abi, .init = read_manifest, .timeout = 30);

Test(abi, every_function_of_the_manifest_answers_a_foreign_caller) {
    cr_assert_eq(CALL("lport_socket_pair", N(LPORT_STREAM), P(pair)), 0);
    const int64_t gone[] = {0, -1, INT64_MAX, pair[0], pair[1]};
    cr_assert_eq(CALL("lport_socket_close", N(pair[0]), N(0)), 0);
    cr_assert_eq(CALL("lport_socket_close", N(pair[1]), N(LPORT_RESET)), 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        play(&rows[i], gone, sizeof gone / sizeof *gone);
    }
}

Test(abi, no_function_of_the_manifest_lacks_a_row) {
    size_t without = 0;
    for (size_t i = 0; i < function_count; i++) {
        size_t found = 0;
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            found += strcmp(rows[r].name, functions[i].name) == 0;
        }
        if (found == 0) {
            cr_log_error("no row calls %s", functions[i].name);
            without++;
        }
    }
    cr_assert_eq(without, 0);
    cr_assert_gt(function_count, 60);
    cr_assert_gt(constant_count, 60);
}

/* ---- sessions -------------------------------------------------------------------------------- */

static int64_t dial(const uint8_t *address) {
    int64_t dialling = CALL("lport_dial_open_addresses", P(address), N(1), N(LPORT_STREAM), P(NULL),
                            N(LPORT_NODELAY));
    cr_assert_gt(dialling, 0);
    cr_assert_gt(CALL("lport_dial_watch", N(dialling), N(LPORT_NEVER)), 0);
    int64_t socket = CALL("lport_dial_step", N(dialling));
    while (kind_of(socket) == LPORT_IN_PROGRESS) {
        cr_assert_eq(CALL("lport_dial_wait", N(dialling), N(soon())), 0);
        socket = CALL("lport_dial_step", N(dialling));
    }
    assert_kind(socket, 0);
    cr_assert_eq(CALL("lport_dial_count", N(dialling)), 1);
    cr_assert_eq(CALL("lport_dial_attempt", N(dialling), N(0), P(space)), 0);
    cr_assert_eq(CALL("lport_address_equal", P(space), P(address)), 1);
    cr_assert_eq(CALL("lport_dial_attempt_own", N(dialling), N(0), P(space)), 0);
    cr_assert_eq(CALL("lport_dial_close", N(dialling)), 0);
    return socket;
}

static void await(int64_t socket, int32_t interest) {
    int64_t wait = CALL("lport_wait_begin", N(socket), N(interest));
    cr_assert_gt(wait, 0);
    cr_assert_eq(CALL("lport_wait_count"), 1);
    int64_t ready = CALL("lport_wait_poll", N(wait), N(soon()), N(0));
    cr_assert(ready > 0 && (ready & interest) != 0, "ready: %ld", (long)ready);
    cr_assert_eq(CALL("lport_wait_end", N(wait)), 0);
}

static int64_t accept_from(int64_t listener) {
    await(listener, LPORT_INPUT);
    int64_t socket = CALL("lport_socket_accept", N(listener), P(NULL));
    cr_assert_gt(socket, 0);
    return socket;
}

static void close_all(const int64_t *sockets, size_t count) {
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(CALL("lport_socket_close", N(sockets[i]), N(0)), 0);
        cr_assert_eq(CALL("lport_socket_gone", N(sockets[i]), N(soon())), 0);
    }
    cr_assert_eq(CALL("lport_socket_count"), 0);
    cr_assert_eq(CALL("lport_wait_count"), 0);
}

/* SAYS goes from one end to the other, in two pieces, and is looked at before it is taken. */
static void say(int64_t from, int64_t to, const char *says) {
    char heard[64] = {0};
    int64_t len = (int64_t)strlen(says);
    cr_assert_eq(CALL("lport_socket_send2", N(from), P(says), N(2), P(says + 2), N(len - 2)), len);
    await(to, LPORT_INPUT);
    cr_assert_eq(CALL("lport_socket_receive", N(to), P(heard), N(1), N(LPORT_PEEK)), 1);
    cr_assert_eq(CALL("lport_socket_receive", N(to), P(heard), N(sizeof heard), N(0)), len);
    cr_assert_str_eq(heard, says);
    assert_kind(CALL("lport_socket_receive", N(to), P(heard), N(1), N(0)), LPORT_WOULD_BLOCK);
}

Test(abi, a_tcp_session) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    uint8_t peer[LPORT_ADDRESS_SIZE];
    cr_assert_eq(CALL("lport_address_parse", P("127.0.0.1"), N(9), N(0), P(address)), LPORT_INET);
    int64_t listener =
        CALL("lport_socket_listen", P(address), N(-1),
             N(LPORT_REUSE_ADDRESS | LPORT_NODELAY | LPORT_KEEPALIVE), P(NULL), N(0));
    assert_kind(listener, 0);
    assert_kind(CALL("lport_socket_accept", N(listener), P(NULL)), LPORT_WOULD_BLOCK);
    cr_assert_eq(CALL("lport_socket_name", N(listener), P(address)), LPORT_INET);
    int64_t client = dial(address);
    int64_t server = accept_from(listener);

    cr_assert_eq(CALL("lport_socket_count"), 3);
    cr_assert_eq(CALL("lport_socket_state", N(listener)), LPORT_STATE_LISTENING);
    cr_assert_gt(CALL("lport_socket_descriptor", N(client)), 2);
    cr_assert_eq(CALL("lport_socket_name", N(client), P(address)), LPORT_INET);
    cr_assert_eq(CALL("lport_socket_peer", N(server), P(peer)), LPORT_INET);
    cr_assert_eq(CALL("lport_address_equal", P(address), P(peer)), 1);
    say(client, server, "to and");
    say(server, client, "fro");

    cr_assert_eq(CALL("lport_socket_send", N(client), P("last"), N(4)), 4);
    cr_assert_eq(CALL("lport_socket_shutdown", N(client), N(LPORT_OUTPUT)), 0);
    assert_kind(CALL("lport_socket_send", N(client), P("more"), N(4)), LPORT_OUTPUT_SHUT);
    await(server, LPORT_INPUT);
    cr_assert_eq(CALL("lport_socket_receive", N(server), P(peer), N(sizeof peer), N(0)), 4);
    await(server, LPORT_INPUT);
    cr_assert_eq(CALL("lport_socket_receive", N(server), P(peer), N(sizeof peer), N(0)), 0);
    close_all((const int64_t[]){client, server, listener}, 3);
    assert_kind(CALL("lport_socket_send", N(client), P("more"), N(4)), LPORT_CLOSED);
}

static void set_up(int64_t context) {
    const char *chain = "build/tls/server.pem", *key = "build/tls/server.key";
    const char *authority = "build/tls/authority.pem", *revoked = "build/tls/authority.crl";
    cr_assert_eq(CALL("lport_tls_context_identity", N(context), P(chain), N(strlen(chain)), P(key),
                      N(strlen(key)), P(NULL), N(0)),
                 0);
    cr_assert_eq(CALL("lport_tls_context_trust", N(context), N(LPORT_TLS_FILE), P(authority),
                      N(strlen(authority))),
                 0);
    cr_assert_eq(CALL("lport_tls_context_revoked", N(context), P(revoked), N(strlen(revoked))), 0);
    cr_assert_eq(CALL("lport_tls_context_protocols", N(context), P("words"), N(5)), 0);
    cr_assert_eq(CALL("lport_tls_context_resume", N(context), N(0)), 0);
    cr_assert_eq(CALL("lport_tls_context_versions", N(context), N(3), N(3)), 0);
    cr_assert_eq(CALL("lport_tls_context_verify", N(context), N(LPORT_TLS_VERIFY)), 0);
    cr_assert_eq(CALL("lport_tls_context_problem", N(context), P(words), N(sizeof words)), 0);
}

Test(abi, a_tls_session) {
    int64_t context = CALL("lport_tls_context_open");
    cr_assert_gt(context, 0);
    set_up(context);
    cr_assert_eq(CALL("lport_socket_pair", N(LPORT_STREAM), P(pair)), 0);
    cr_assert_eq(CALL("lport_tls_start", N(pair[0]), N(context), N(LPORT_TLS_CLIENT),
                      P("good.test"), N(9), P(NULL), N(0)),
                 0);
    cr_assert_eq(CALL("lport_tls_start", N(pair[1]), N(context), N(LPORT_TLS_SERVER), P(NULL), N(0),
                      P(NULL), N(0)),
                 0);
    int64_t limit = soon(), client, server;
    do {
        cr_assert_lt(CALL("lport_clock_now"), limit);
        client = CALL("lport_tls_step", N(pair[0]));
        server = CALL("lport_tls_step", N(pair[1]));
    } while (client > 0 || server > 0);
    cr_assert_eq(client, 0);
    cr_assert_eq(server, 0);
    cr_assert_eq(CALL("lport_tls_text", N(pair[0]), N(LPORT_TLS_VERSION), P(words), N(128)), 7);
    cr_assert_str_eq(words, "TLSv1.3");
    cr_assert_eq(CALL("lport_socket_send2", N(pair[0]), P("to "), N(3), P("and"), N(3)), 6);
    await(pair[1], LPORT_INPUT);
    cr_assert_eq(CALL("lport_socket_receive", N(pair[1]), P(words), N(1), N(0)), 1);
    cr_assert_eq(CALL("lport_socket_buffered", N(pair[1])), 1);
    await(pair[1], LPORT_INPUT);
    cr_assert_eq(CALL("lport_socket_receive", N(pair[1]), P(words), N(sizeof words), N(0)), 5);
    close_all(pair, 2);
    cr_assert_eq(CALL("lport_tls_context_close", N(context)), 0);
}

Test(abi, a_local_session) {
    uint8_t address[LPORT_ADDRESS_SIZE];
    char name[64];
    int len = snprintf(name, sizeof name, "@lport-abi-%ld", (long)getpid());
    cr_assert_eq(CALL("lport_address_local", P(name), N(len), P(address)), LPORT_LOCAL);
    int64_t listener = CALL("lport_local_listen", P(address), N(LPORT_STREAM), N(-1), N(-1),
                            N(LPORT_UNLINK), P(NULL), N(0));
    assert_kind(listener, 0);
    int64_t client = dial(address);
    int64_t server = accept_from(listener);
    say(client, server, "to and");
    say(server, client, "fro");
    cr_assert_eq(CALL("lport_socket_peer", N(client), P(address)), LPORT_LOCAL);
    cr_assert_eq(CALL("lport_address_print", P(address), P(words), N(sizeof words)), len);
    cr_assert_arr_eq(words, name, (size_t)len);
    close_all((const int64_t[]){client, server, listener}, 3);
}

Test(abi, a_udp_session) {
    uint8_t address[LPORT_ADDRESS_SIZE], own[LPORT_ADDRESS_SIZE], sender[LPORT_ADDRESS_SIZE];
    char heard[8] = "";
    cr_assert_eq(CALL("lport_address_parse", P("127.0.0.1"), N(9), N(0), P(address)), LPORT_INET);
    int64_t server =
        CALL("lport_datagram_open", P(address), P(NULL), N(LPORT_BROADCAST), P(NULL), N(0));
    cr_assert_eq(CALL("lport_socket_name", N(server), P(address)), LPORT_INET);
    memset(own, 0, sizeof own); /* LPORT_ANY */
    int64_t client = CALL("lport_datagram_open", P(own), P(address), N(0), P(NULL), N(0));
    assert_kind(client, 0);
    cr_assert_eq(CALL("lport_socket_name", N(client), P(own)), LPORT_INET);
    cr_assert_eq(CALL("lport_datagram_send", N(client), P("hello"), N(5), P(NULL)), 5);
    await(server, LPORT_INPUT);
    cr_assert_eq(CALL("lport_datagram_receive", N(server), P(heard), N(4), P(sender), N(0)), 5);
    cr_assert_str_eq(heard, "hell");
    cr_assert_eq(CALL("lport_address_equal", P(sender), P(own)), 1);
    cr_assert_eq(CALL("lport_datagram_send", N(server), P("yes"), N(3), P(sender)), 3);
    close_all((const int64_t[]){client, server}, 2);
}

Test(abi, a_descriptor_is_passed) {
    char heard[8] = "";
    cr_assert_eq(CALL("lport_socket_pair", N(LPORT_SEQPACKET), P(pair)), 0);
    cr_assert_eq(CALL("lport_local_credentials", N(pair[0]), P(numbers)), 0);
    cr_assert_eq(numbers[0], getpid());
    numbers[0] = 0;
    cr_assert_eq(CALL("lport_local_send", N(pair[0]), P("this"), N(4), P(numbers), N(1)), 4);
    cr_assert_eq(CALL("lport_local_receive", N(pair[1]), P(heard), N(8), P(numbers), N(3)), 4);
    cr_assert_gt(numbers[0], 0);
    cr_assert_eq(numbers[1], -1);
    cr_assert_eq(close((int)numbers[0]), 0);
    close_all(pair, 2);
    cr_assert_eq(CALL("lport_socket_pair", N(LPORT_DATAGRAM), P(pair)), 0);
    cr_assert_eq(CALL("lport_socket_send", N(pair[0]), P("me"), N(2)), 2);
    cr_assert_eq(CALL("lport_local_receive_from", N(pair[1]), P(heard), N(8), P(NULL), P(numbers)),
                 2);
    cr_assert_eq(numbers[0], -1);
    close_all(pair, 2);
}

Test(abi, a_wait_is_woken_and_times_out) {
    cr_assert_eq(CALL("lport_socket_pair", N(LPORT_DATAGRAM), P(pair)), 0);
    int64_t wait = CALL("lport_wait_begin", N(pair[0]), N(LPORT_INPUT));
    cr_assert_gt(wait, 0);
    assert_kind(CALL("lport_wait_poll", N(wait), N(0), N(1)), LPORT_TIMED_OUT);
    cr_assert_eq(CALL("lport_wait_wake", N(pair[0]), N(LPORT_INPUT)), 1);
    cr_assert_eq(CALL("lport_wait_poll", N(wait), N(soon()), N(0)), 0);
    cr_assert_eq(CALL("lport_wait_end", N(wait)), 0);
    close_all(pair, 2);
}

Test(abi, two_waits_tell_which_is_ready) {
    cr_assert_eq(CALL("lport_socket_pair", N(LPORT_STREAM), P(pair)), 0);
    int64_t first = CALL("lport_wait_begin", N(pair[0]), N(LPORT_INPUT));
    int64_t second = CALL("lport_wait_begin", N(pair[1]), N(LPORT_OUTPUT));
    cr_assert_eq(CALL("lport_wait_poll2", N(first), N(second), N(soon()), N(0)),
                 LPORT_OUTPUT * LPORT_SECOND_WAIT);
    assert_kind(CALL("lport_wait_poll2", N(first), N(0), N(soon()), N(0)), LPORT_INVALID);
    cr_assert_eq(CALL("lport_wait_end", N(first)), 0);
    cr_assert_eq(CALL("lport_wait_end", N(second)), 0);
    close_all(pair, 2);
}

Test(abi, a_wait_tells_of_a_failure) {
    cr_assert_eq(CALL("lport_socket_pair", N(LPORT_STREAM), P(pair)), 0);
    cr_assert_eq(CALL("lport_socket_failure", N(pair[1])), 0);
    cr_assert_eq(CALL("lport_socket_send", N(pair[1]), P(octets), N(3)), 3);
    cr_assert_eq(CALL("lport_socket_close", N(pair[0]), N(0)), 0);
    int64_t wait = CALL("lport_wait_begin", N(pair[1]), N(LPORT_FAILED));
    cr_assert_eq(CALL("lport_wait_poll", N(wait), N(soon()), N(0)), LPORT_HANGUP | LPORT_FAILED);
    cr_assert_eq(CALL("lport_wait_end", N(wait)), 0);
    assert_kind(CALL("lport_socket_failure", N(pair[1])), LPORT_CONNECTION_RESET);
    close_all(&pair[1], 1);
}

Test(abi, a_poller_tells_what_is_ready) {
    cr_assert_eq(CALL("lport_socket_pair", N(LPORT_STREAM), P(pair)), 0);
    int64_t poller = CALL("lport_poller_open", N(LPORT_POLLER_BEST));
    cr_assert_gt(poller, 0);
    cr_assert_eq(CALL("lport_poller_add", N(poller), N(pair[0]), N(0)), 0);
    cr_assert_eq(CALL("lport_poller_modify", N(poller), N(pair[0]), N(LPORT_INPUT)), 0);
    cr_assert_eq(CALL("lport_socket_send", N(pair[1]), P(octets), N(3)), 3);
    int64_t turn = CALL("lport_poller_begin", N(poller));
    cr_assert_geq(turn, 0);
    cr_assert_eq(CALL("lport_poller_wait", N(poller), N(turn), P(events), N(2), N(soon()), N(0)),
                 1);
    cr_assert(events[0] == pair[0] && events[1] == LPORT_INPUT);
    cr_assert_eq(CALL("lport_poller_claim", N(poller), N(pair[0])), LPORT_INPUT);
    cr_assert_eq(CALL("lport_poller_remove", N(poller), N(pair[0])), 0);
    cr_assert_eq(CALL("lport_poller_wake", N(poller)), 0);
    cr_assert_eq(CALL("lport_poller_wait", N(poller), N(turn), P(events), N(2), N(soon()), N(0)),
                 0);
    cr_assert_eq(CALL("lport_poller_end", N(poller), N(turn)), 0);
    cr_assert_eq(CALL("lport_socket_close", N(poller), N(0)), 0);
    close_all(pair, 2);
}

Test(abi, options_are_found_by_name) {
    cr_assert_eq(CALL("lport_socket_pair", N(LPORT_STREAM), P(pair)), 0);
    int32_t found = -1;
    for (int32_t i = 0; CALL("lport_option_name", N(i)) != 0; i++) {
        cr_assert_neq(CALL("lport_option_unit", N(i)), 0);
        if (strcmp(text_at(CALL("lport_option_name", N(i))), "receive-buffer") == 0) {
            found = i;
        }
    }
    cr_assert_geq(found, 0);
    int64_t before = CALL("lport_option_get", N(pair[0]), N(found));
    cr_assert_gt(before, 0);
    cr_assert_eq(CALL("lport_option_set", N(pair[0]), N(found), N(8192)), 0);
    cr_assert_neq(CALL("lport_option_get", N(pair[0]), N(found)), before);
    close_all(pair, 2);
}

Test(abi, text_goes_through_both_ways) {
    const char *line = "gr\303\274\303\237e \342\202\254 \360\237\230\200";
    size_t len = strlen(line);
    char back[64] = {0};
    int64_t produced = CALL("lport_text_from_utf8", P(line), N(len), P(chars), N(16));
    cr_assert_eq(produced, (int64_t)len * LPORT_TEXT_SCALE + 9);
    cr_assert_eq(chars[2], 0xfc);
    cr_assert_eq(chars[8], 0x1f600);
    cr_assert_eq(CALL("lport_text_to_utf8", P(chars), N(9), P(back), N(sizeof back)),
                 9 * LPORT_TEXT_SCALE + (int64_t)len);
    cr_assert_str_eq(back, line);
}

/* The answer is the system's; what is held here is that it comes and can be read. */
Test(abi, a_name_is_looked_up) {
    int64_t query = CALL("lport_resolve_open", P("localhost"), N(9), N(LPORT_INET), N(0));
    cr_assert_gt(query, 0);
    cr_assert_eq(CALL("lport_resolve_wait", N(query), N(soon())), 0);
    cr_assert_geq(CALL("lport_resolve_count", N(query)), 1);
    cr_assert_eq(CALL("lport_resolve_address", N(query), N(0), P(space)), LPORT_INET);
    cr_assert_eq(CALL("lport_address_print", P(space), P(words), N(sizeof words)), 9);
    cr_assert_str_eq(words, "127.0.0.1");
    assert_kind(CALL("lport_resolve_address", N(query), N(1000), P(space)), LPORT_INVALID);
    assert_kind(CALL("lport_resolve_name", N(query), N(1000), P(words), N(8)), LPORT_INVALID);
    cr_assert_eq(CALL("lport_resolve_close", N(query)), 0);
}
