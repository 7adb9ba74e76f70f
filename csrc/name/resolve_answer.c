/* resolve_answer - what the system's resolver says to a question, as blocks and names (layer 3).
 * Stands on os, status and address, and on the system's resolver. See resolve_answer.h. */
#include "resolve_answer.h"

#include "address/address.h"
#include "base/os.h"
#include "base/status.h"
#include "libport.h"
#include "resolve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    HOST_BUFFER = 2048,        /* octets that gethostby..._r begins with, and */
    HOST_BUFFER_MAX = 1 << 20, /* where it ends */
};

/* One answer of gethostby..._r, with the memory it lies in. */
struct host {
    struct hostent entry;
    struct hostent *found; /* &entry, or NULL */
    char *buffer;
    int64_t status; /* 0, or why nothing was found */
};

/* Calls gethostby..._r for what QUESTION asks, an address or a name in the system's FAMILY, with a
 * buffer that is large enough. HOST's buffer is the caller's to free. */
static void look_up_host(const struct lport_question *question, int family, struct host *host) {
    const uint8_t *octets = question->address + LPORT_AT_OCTETS;
    int result = ERANGE;
    int error = 0;
    for (size_t len = HOST_BUFFER; result == ERANGE && len <= HOST_BUFFER_MAX; len *= 2) {
        free(host->buffer);
        host->buffer = lport_os.calloc(1, len);
        if (host->buffer == NULL) {
            host->status = lport_status_make(LPORT_MEMORY_EXHAUSTED);
            return;
        }
        result = question->reverse
                     ? lport_resolver.gethostbyaddr_r(octets, family == AF_INET ? 4 : 16, family,
                                                      &host->entry, host->buffer, len, &host->found,
                                                      &error)
                     : lport_resolver.gethostbyname2_r(question->name, family, &host->entry,
                                                       host->buffer, len, &host->found, &error);
    }
    if (host->found == NULL) {
        int64_t exhausted = lport_status_exhausted(result);
        host->status = exhausted < 0 ? exhausted : lport_status_from_host(error, result);
    }
}

/* Adds NAME to the names of ANSWER unless it is among them, which are compared as the DNS does.
 * There is room for it. */
static void add_name(struct lport_answer *answer, const char *name, size_t *used) {
    const char *known = answer->names;
    for (int32_t i = 0; i < answer->name_count; i++, known += strlen(known) + 1) {
        if (strcasecmp(known, name) == 0) {
            return;
        }
    }
    size_t len = strlen(name) + 1;
    memcpy(answer->names + *used, name, len);
    *used += len;
    answer->name_count++;
}

static size_t names_size(const struct hostent *host) {
    size_t size = 0;
    if (host != NULL) {
        size = strlen(host->h_name) + 1;
        for (char **alias = host->h_aliases; *alias != NULL; alias++) {
            size += strlen(*alias) + 1;
        }
    }
    return size;
}

/* Makes the names of ANSWER: CANONICAL, then what COUNT HOSTS say. */
static void keep_names(struct lport_answer *answer, const char *canonical, const struct host *hosts,
                       int count) {
    size_t size = strlen(canonical) + 1;
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        size += names_size(hosts[i].found);
    }
    answer->names = lport_os.calloc(1, size);
    if (answer->names == NULL) {
        answer->status = lport_status_make(LPORT_MEMORY_EXHAUSTED);
        return;
    }
    add_name(answer, canonical, &used);
    for (int i = 0; i < count; i++) {
        if (hosts[i].found == NULL) {
            continue;
        }
        add_name(answer, hosts[i].found->h_name, &used);
        for (char **alias = hosts[i].found->h_aliases; *alias != NULL; alias++) {
            add_name(answer, *alias, &used);
        }
    }
}

/* The canonical name and the aliases, for each family that the answer has. That a name has no
 * aliases or that they cannot be found out is no failure: it has its addresses. */
static void find_names(const struct lport_question *question, struct lport_answer *answer,
                       const char *canonical) {
    struct host hosts[2] = {{.found = NULL}, {.found = NULL}};
    bool asked[2] = {false, false};
    for (int32_t i = 0; i < answer->address_count; i++) {
        int which = answer->addresses[(size_t)i * LPORT_ADDRESS_SIZE] == LPORT_INET6;
        if (!asked[which]) {
            asked[which] = true;
            look_up_host(question, which ? AF_INET6 : AF_INET, &hosts[which]);
        }
    }
    keep_names(answer, canonical != NULL ? canonical : question->name, hosts, 2);
    free(hosts[0].buffer);
    free(hosts[1].buffer);
}

/* Adds the address of INFO to those of ANSWER, unless it is there or there is no block for it. */
static void add_address(struct lport_answer *answer, const struct addrinfo *info) {
    struct sockaddr_storage storage;
    uint8_t *end = answer->addresses + (size_t)answer->address_count * LPORT_ADDRESS_SIZE;
    if (info->ai_addrlen > sizeof storage) {
        return;
    }
    memset(&storage, 0, sizeof storage);
    memcpy(&storage, info->ai_addr, info->ai_addrlen);
    if (lport_address_from_kernel(&storage, info->ai_addrlen, end) < 0) {
        return;
    }
    lport_address_set_port(end, 0);
    for (const uint8_t *known = answer->addresses; known < end; known += LPORT_ADDRESS_SIZE) {
        if (memcmp(known, end, LPORT_ADDRESS_SIZE) == 0) {
            return;
        }
    }
    answer->address_count++;
}

static void keep_addresses(struct lport_answer *answer, const struct addrinfo *list) {
    size_t count = 0;
    for (const struct addrinfo *info = list; info != NULL; info = info->ai_next) {
        count++;
    }
    answer->addresses = lport_os.calloc(count + 1, LPORT_ADDRESS_SIZE);
    if (answer->addresses == NULL) {
        answer->status = lport_status_make(LPORT_MEMORY_EXHAUSTED);
        return;
    }
    for (const struct addrinfo *info = list; info != NULL; info = info->ai_next) {
        add_address(answer, info);
    }
    if (answer->address_count == 0) {
        answer->status = lport_status_make(LPORT_HOST_NOT_FOUND);
    }
}

static int system_family(int32_t family) {
    return family == LPORT_INET ? AF_INET : family == LPORT_INET6 ? AF_INET6 : AF_UNSPEC;
}

static void find_forward(const struct lport_question *question, struct lport_answer *answer) {
    struct addrinfo hints = {
        .ai_family = system_family(question->family),
        .ai_socktype = SOCK_STREAM, /* one row for each address, not one for each protocol */
        .ai_flags = (question->flags & LPORT_ALIASES) != 0 ? AI_CANONNAME : 0,
    };
    struct addrinfo *list = NULL;
    errno = 0;
    int result = lport_resolver.getaddrinfo(question->name, NULL, &hints, &list);
    if (result != 0) {
        int error = errno;
        answer->status = lport_status_exhausted(error);
        if (answer->status == 0) {
            answer->status = lport_status_from_gai(result, error);
        }
        return;
    }
    keep_addresses(answer, list);
    if (answer->status == 0 && (question->flags & LPORT_ALIASES) != 0) {
        find_names(question, answer, list->ai_canonname);
    }
    lport_resolver.freeaddrinfo(list);
}

/* The answer to a reverse question has the address that was asked for, too: with its names it is
 * what a hostent is. */
static void find_reverse(const struct lport_question *question, struct lport_answer *answer) {
    struct host host = {.found = NULL};
    look_up_host(question, system_family(question->address[LPORT_AT_FAMILY]), &host);
    answer->status = host.status;
    if (host.found != NULL) {
        keep_names(answer, host.found->h_name, &host, 1);
    }
    free(host.buffer);
    if (answer->status != 0) {
        return;
    }
    answer->addresses = lport_os.calloc(1, LPORT_ADDRESS_SIZE);
    if (answer->addresses == NULL) {
        answer->status = lport_status_make(LPORT_MEMORY_EXHAUSTED);
        return;
    }
    memcpy(answer->addresses, question->address, LPORT_ADDRESS_SIZE);
    lport_address_set_port(answer->addresses, 0);
    answer->address_count = 1;
}

void lport_answer_find(const struct lport_question *question, struct lport_answer *answer) {
    if (question->reverse) {
        find_reverse(question, answer);
    } else {
        find_forward(question, answer);
    }
}

void lport_answer_forget(struct lport_answer *answer) {
    *answer = (struct lport_answer){.status = 0};
}

void lport_answer_drop(struct lport_answer *answer) {
    free(answer->addresses);
    free(answer->names);
    lport_answer_forget(answer);
}
