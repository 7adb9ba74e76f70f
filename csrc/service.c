/* service - the system's table of services, services(5) (layer 3). Stands on status and address,
 * and on the getserv functions of libc. See libport.h.
 *
 * Invariant: getservent_r has one cursor for the whole process, so only one thread goes through the
 * table at a time. */
#include "address.h"
#include "libport.h"
#include "status.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <string.h>

static pthread_mutex_t services_lock = PTHREAD_MUTEX_INITIALIZER;

enum { NAME_MAX_OCTETS = 255 /* of a name of a service or a protocol */ };

enum { SERVICE_BUFFER = 8192 }; /* octets for one row of the table */

/* A text of the caller's that grows, as libport.h says of every text. */
struct sink {
    char *text;
    size_t cap, len;
};

static void put(struct sink *sink, const char *source) {
    size_t room = sink->len < sink->cap ? sink->cap - sink->len : 0;
    sink->len += (size_t)lport_text_put(source, room > 0 ? sink->text + sink->len : NULL, room);
}

static void put_number(struct sink *sink, int32_t number) {
    char digits[12];
    size_t at = sizeof digits - 1;
    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    put(sink, digits + at);
}

/* `http 80/tcp www` */
static void put_service(struct sink *sink, const struct servent *service) {
    put(sink, service->s_name);
    put(sink, " ");
    put_number(sink, ntohs((uint16_t)service->s_port));
    put(sink, "/");
    put(sink, service->s_proto);
    for (char **alias = service->s_aliases; *alias != NULL; alias++) {
        put(sink, " ");
        put(sink, *alias);
    }
}

/* A terminated copy of TEXT into COPY of NAME_MAX_OCTETS + 1; false if it can be no name at all. */
static int copy_name(const char *text, size_t len, char *copy) {
    if (len == 0 || len > NAME_MAX_OCTETS || memchr(text, 0, len) != NULL) {
        return 0;
    }
    memcpy(copy, text, len);
    copy[len] = 0;
    return 1;
}

int64_t lport_service_find(const char *name, size_t name_len, const char *protocol,
                           size_t protocol_len, char *text, size_t cap) {
    char name_copy[NAME_MAX_OCTETS + 1], protocol_copy[NAME_MAX_OCTETS + 1];
    char buffer[SERVICE_BUFFER];
    struct servent service, *found = NULL;
    struct sink sink = {.text = text, .cap = cap};
    const char *asked = protocol_len == 0 ? NULL : protocol_copy;
    if (!copy_name(name, name_len, name_copy) ||
        (asked != NULL && !copy_name(protocol, protocol_len, protocol_copy))) {
        return lport_status_make(LPORT_SERVICE_NOT_FOUND);
    }
    int64_t port = lport_port_parse(name, name_len);
    int result =
        port >= 0
            ? getservbyport_r(htons((uint16_t)port), asked, &service, buffer, sizeof buffer, &found)
            : getservbyname_r(name_copy, asked, &service, buffer, sizeof buffer, &found);
    if (found == NULL) {
        return result == ENOMEM ? lport_status_make(LPORT_MEMORY_EXHAUSTED)
                                : lport_status_make(LPORT_SERVICE_NOT_FOUND);
    }
    put_service(&sink, found);
    return (int64_t)sink.len;
}

/* ---- the whole table; forks -------------------------------------------------------------------
 */

static void before_fork(void) {
    pthread_mutex_lock(&services_lock);
}

static void after_fork(void) {
    pthread_mutex_unlock(&services_lock);
}

static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork, after_fork);
}

int64_t lport_service_list(char *text, size_t cap) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    char buffer[SERVICE_BUFFER];
    struct servent service, *found = NULL;
    struct sink sink = {.text = text, .cap = cap};
    put(&sink, "");
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&services_lock);
    setservent(1);
    while (getservent_r(&service, buffer, sizeof buffer, &found) == 0 && found != NULL) {
        put_service(&sink, found);
        put(&sink, "\n");
    }
    endservent();
    pthread_mutex_unlock(&services_lock);
    return (int64_t)sink.len;
}
