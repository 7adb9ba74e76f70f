/* service - the system's table of services, services(5) (layer 3). Stands on status, sink and
 * address, and on the getserv functions of libc. See libport.h.
 *
 * Invariant: getservent_r has one cursor for the whole process, so only one thread goes through the
 * table at a time. */
#include "address/address.h"
#include "base/sink.h"
#include "base/status.h"
#include "libport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

enum { NAME_MAX_OCTETS = 255 /* of a name of a service or a protocol */ };

enum { SERVICE_BUFFER = 8192 }; /* octets for one row of the table */

/* `http 80/tcp www` */
static void put_service(struct lport_sink *sink, const struct servent *service) {
    lport_sink_put(sink, service->s_name);
    lport_sink_put(sink, " ");
    lport_sink_number(sink, ntohs((uint16_t)service->s_port));
    lport_sink_put(sink, "/");
    lport_sink_put(sink, service->s_proto);
    for (char **alias = service->s_aliases; *alias != NULL; alias++) {
        lport_sink_put(sink, " ");
        lport_sink_put(sink, *alias);
    }
}

/* A terminated copy of TEXT into COPY of NAME_MAX_OCTETS + 1; false if it can be no name at all. */
static bool copy_name(const char *text, size_t len, char *copy) {
    if (len == 0 || len > NAME_MAX_OCTETS || memchr(text, 0, len) != NULL) {
        return false;
    }
    memcpy(copy, text, len);
    copy[len] = 0;
    return true;
}

int64_t lport_service_find(const char *name, size_t name_len, const char *protocol,
                           size_t protocol_len, char *text, size_t cap) {
    char name_copy[NAME_MAX_OCTETS + 1], protocol_copy[NAME_MAX_OCTETS + 1];
    char buffer[SERVICE_BUFFER];
    struct servent service, *found = NULL;
    struct lport_sink sink = {.text = text, .cap = cap};
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
        return lport_status_missing(LPORT_SERVICE_NOT_FOUND, result);
    }
    put_service(&sink, found);
    return (int64_t)sink.len;
}

/* ---- the whole table; forks ------------------------------------------------------------------ */

#ifdef __GLIBC__
static pthread_mutex_t services_lock = PTHREAD_MUTEX_INITIALIZER;

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
    struct lport_sink sink = {.text = text, .cap = cap};
    lport_sink_put(&sink, "");
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&services_lock);
    errno = 0;
    setservent(1);
    while (getservent_r(&service, buffer, sizeof buffer, &found) == 0 && found != NULL) {
        put_service(&sink, found);
        lport_sink_put(&sink, "\n");
    }
    int64_t status = lport_status_exhausted(errno); /* getservent_r calls it an empty table */
    endservent();
    pthread_mutex_unlock(&services_lock);
    return status < 0 ? status : (int64_t)sink.len;
}
#else
/* Other C libraries (musl) can only be asked for one row. */
int64_t lport_service_list(char *text, size_t cap) {
    (void)text;
    (void)cap;
    return lport_status_make(LPORT_NOT_SUPPORTED);
}
#endif
