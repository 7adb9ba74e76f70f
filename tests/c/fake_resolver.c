#include "fake_resolver.h"

#include "name/resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct fake_resolver fake;

static int family_of(const char *text) {
    return strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
}

static struct addrinfo *make_info(const char *text) {
    struct info {
        struct addrinfo info;
        struct sockaddr_storage address;
    } *made = calloc(1, sizeof *made);
    struct sockaddr_in *inet = (struct sockaddr_in *)&made->address;
    struct sockaddr_in6 *inet6 = (struct sockaddr_in6 *)&made->address;
    int family = family_of(text);
    bool wide = family == AF_INET6;
    made->info.ai_family = family;
    made->info.ai_addr = (struct sockaddr *)&made->address;
    made->info.ai_addrlen = wide ? sizeof *inet6 : sizeof *inet;
    made->address.ss_family = (sa_family_t)family;
    inet_pton(family, text, wide ? (void *)&inet6->sin6_addr : (void *)&inet->sin_addr);
    return &made->info;
}

static void enter(const char *name, const struct addrinfo *hints) {
    atomic_fetch_add(&fake.calls, 1);
    bool silent =
        fake.silent != 0 && (hints->ai_family == AF_UNSPEC || hints->ai_family == fake.silent);
    if (fake.gated || silent) {
        sem_post(&fake.entered);
        while (sem_wait(&fake.gate) < 0) {
        }
    } else {
        fake.hints = *hints;
        strcpy(fake.name, name);
        pthread_sigmask(SIG_BLOCK, NULL, &fake.blocked);
    }
}

static int fake_getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                            struct addrinfo **result) {
    (void)service;
    enter(name, hints);
    if (fake.result != 0) {
        errno = fake.error < 0 ? errno : fake.error;
        return fake.result;
    }
    for (const char **text = fake.texts; *text != NULL; text++) {
        if (hints->ai_family != AF_UNSPEC && hints->ai_family != family_of(*text)) {
            continue;
        }
        *result = make_info(*text);
        if (text == fake.texts && (hints->ai_flags & AI_CANONNAME) != 0) {
            (*result)->ai_canonname = (char *)(uintptr_t)fake.canonical;
        }
        result = &(*result)->ai_next;
    }
    atomic_fetch_add(&fake.lists, 1);
    return 0;
}

static void fake_freeaddrinfo(struct addrinfo *list) {
    while (list != NULL) {
        struct addrinfo *next = list->ai_next;
        free(list);
        list = next;
    }
    atomic_fetch_sub(&fake.lists, 1);
}

void use_fake_resolver(void) {
    sem_init(&fake.entered, 0, 0);
    sem_init(&fake.gate, 0, 0);
    lport_resolver.getaddrinfo = fake_getaddrinfo;
    lport_resolver.freeaddrinfo = fake_freeaddrinfo;
}
