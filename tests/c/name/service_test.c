/* Services: rows of the table of services by name and number, the whole table. */
#include "libport.h"
#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static int64_t find(const char *name, const char *protocol, char *text, size_t cap) {
    return lport_service_find(name, strlen(name), protocol, strlen(protocol), text, cap);
}

Test(resolve, a_service_is_found_by_name_and_by_number) {
    char row[LPORT_TEXT_SIZE], again[LPORT_TEXT_SIZE];
    int64_t len = find("http", "tcp", row, sizeof row);
    cr_assert_gt(len, 0);
    cr_assert_eq(strncmp(row, "http 80/tcp", 11), 0, "%s", row);
    cr_assert_eq(strlen(row), (size_t)len);
    cr_assert_eq(find("80", "tcp", again, sizeof again), len);
    cr_assert_str_eq(again, row);
    cr_assert_gt(find("domain", "", row, sizeof row), 0);
    cr_assert_eq(strncmp(row, "domain 53/", 10), 0);
    cr_assert_eq(find("domain", "udp", row, sizeof row), 13);
    cr_assert_str_eq(row, "domain 53/udp");
    memset(row, '-', sizeof row);
    cr_assert_eq(find("domain", "udp", row, 6), 13);
    cr_assert_arr_eq(row, "domain-", 7);
    cr_assert_eq(find("domain", "udp", NULL, 0), 13);
}

/* The row as services(5) has it, from what the system's own function says. */
Test(resolve, a_service_has_its_aliases) {
    char row[512], expected[512];
    const struct servent *service;
    int aliases = 0;
    setservent(1);
    while (aliases == 0 && (service = getservent()) != NULL) {
        int len = snprintf(expected, sizeof expected, "%s %d/%s", service->s_name,
                           ntohs((uint16_t)service->s_port), service->s_proto);
        for (; service->s_aliases[aliases] != NULL; aliases++) {
            len += snprintf(expected + len, sizeof expected - (size_t)len, " %s",
                            service->s_aliases[aliases]);
        }
    }
    cr_assert_gt(aliases, 0, "the system knows no alias");
    cr_assert_gt(find(service->s_name, service->s_proto, row, sizeof row), 0);
    endservent();
    cr_assert_str_eq(row, expected);
}

static int list_in_child(void *len) {
    return lport_service_list(NULL, 0) == *(int64_t *)len ? 0 : 1;
}

Test(resolve, a_child_of_fork_can_list_services) {
    int64_t len = lport_service_list(NULL, 0);
    cr_assert_eq(in_child(list_in_child, &len), 0);
    cr_assert_eq(lport_service_list(NULL, 0), len);
}

/* How many of some lists were not LEN octets long. */
static int64_t list_again_and_again(void *len) {
    int64_t wrong = 0;
    for (int i = 0; i < 50; i++) {
        wrong += lport_service_list(NULL, 0) != *(int64_t *)len;
    }
    return wrong;
}

/* The system's cursor is one for the whole process. */
Test(resolve, threads_that_list_services_at_once_get_all_of_them) {
    struct task tasks[4];
    int64_t len = lport_service_list(NULL, 0);
    for (size_t i = 0; i < COUNT_OF(tasks); i++) {
        task_start(&tasks[i], list_again_and_again, &len);
    }
    for (size_t i = 0; i < COUNT_OF(tasks); i++) {
        cr_assert_eq(task_join(&tasks[i]), 0);
    }
}

Test(resolve, an_unknown_service_is_not_found) {
    static const char *const names[] = {"no-such-service", "", "080", " 80", "65536", "-1", "0"};
    char large[300];
    memset(large, 'a', sizeof large);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        cr_assert_eq(lport_status_kind(find(names[i], "tcp", NULL, 0)), LPORT_SERVICE_NOT_FOUND,
                     "%s", names[i]);
    }
    cr_assert_eq(lport_status_kind(find("http", "no-such", NULL, 0)), LPORT_SERVICE_NOT_FOUND);
    cr_assert_eq(lport_status_kind(lport_service_find("http\0", 5, NULL, 0, NULL, 0)),
                 LPORT_SERVICE_NOT_FOUND);
    cr_assert_eq(lport_status_kind(lport_service_find(large, 300, NULL, 0, NULL, 0)),
                 LPORT_SERVICE_NOT_FOUND);
}

Test(resolve, a_table_of_services_that_cannot_be_opened_is_no_empty_one) {
    struct rlimit limit, low;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    int64_t found = find("http", "tcp", NULL, 0);
    int64_t listed = lport_service_list(NULL, 0);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert_eq(lport_status_kind(found), LPORT_DESCRIPTORS_EXHAUSTED);
    cr_assert_eq(lport_status_kind(listed), LPORT_DESCRIPTORS_EXHAUSTED);
    cr_assert_gt(find("http", "tcp", NULL, 0), 0);
    cr_assert_gt(lport_service_list(NULL, 0), 100);
}

Test(resolve, every_service_stands_in_the_list) {
    char row[LPORT_TEXT_SIZE];
    int64_t len = lport_service_list(NULL, 0);
    cr_assert_gt(len, 100);
    char *list = malloc((size_t)len + 1);
    char *cut = malloc((size_t)len + 1);
    cr_assert_eq(lport_service_list(list, (size_t)len + 1), len);
    cr_assert_eq(strlen(list), (size_t)len);
    cr_assert_eq(list[len - 1], '\n');
    cr_assert_not_null(getservent()); /* the system's cursor is behind the first row */
    struct counts before = counts_now();
    errno = EMFILE; /* from something else */
    cr_assert_eq(lport_service_list(NULL, 0), len);
    cr_assert_lt(counts_now().descriptors, before.descriptors); /* and the table is closed */
    find("http", "tcp", row, sizeof row);
    cr_assert(strstr(list, row) != NULL);
    memset(cut, '-', (size_t)len + 1);
    cr_assert_eq(lport_service_list(cut, 40), len);
    cr_assert_arr_eq(cut, list, 40);
    cr_assert_eq(cut[40], '-');
    free(list);
    free(cut);
}
