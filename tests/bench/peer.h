/* peer - what the files of this program share; see peer.c. */
#ifndef PEER_H
#define PEER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Ends the program with WHAT and what errno says. */
_Noreturn void fail(const char *what);

/* RESULT, unless it is below 0. */
int check(int result, const char *what);

struct stopwatch {
    int64_t wall, own, both;
};

struct stopwatch start(void);

/* Prints what COUNT operations since FROM took: of the side that calls it, and of all threads. */
void report(const char *name, const struct stopwatch *from, int64_t count);

enum { PIECE = 65536 }; /* octets that are moved at once, where nothing else says how many */

struct sockaddr_in loopback(uint16_t port);

/* A connection to PORT. */
int connect_to(uint16_t port);

void send_all(int fd, const uint8_t *octets, size_t len);
size_t receive_some(int fd, uint8_t *octets, size_t cap);

struct workload {
    const char *name;
    int64_t count; /* of operations, unless the caller says otherwise */
    void (*run)(const struct workload *workload, uint16_t port, int64_t count);
    void (*serve)(int fd); /* the other side, as in struct side */
    const char *kind;      /* of what is sent, or is sent by the other side where SERVE is NULL;
                            * NULL where there is no other side */
    size_t size;           /* octets of an operation, where they are fixed */
};

/* peer_text.c: octets that are sent again and again; for the kinds of text, lines. The caller frees
 * them. */
struct pattern {
    uint8_t *octets;
    size_t len;
    bool lines;
};

struct pattern pattern_of(const char *kind);

/* How many octets COUNT octets or lines are. */
int64_t octets_in(int64_t count, const struct pattern *pattern);

/* Prints the lines of KIND. */
void print_lines(const char *kind);

/* Lines; characters by the thousand; lines the other way. */
void run_read_lines(const struct workload *workload, uint16_t port, int64_t count);
void run_read_text(const struct workload *workload, uint16_t port, int64_t count);
void run_write_lines(const struct workload *workload, uint16_t port, int64_t count);

/* peer_event.c: readiness. */
void run_event(const struct workload *workload, uint16_t port, int64_t count);

/* peer_datagram.c: UDP. The first talks to the server at PORT, the others are both ends. */
void run_datagram_echo(const struct workload *workload, uint16_t port, int64_t count);
void run_datagram_ends(const struct workload *workload, uint16_t port, int64_t count);
void run_datagram_single(const struct workload *workload, uint16_t port, int64_t count);
void run_datagram_batch_mixed(const struct workload *workload, uint16_t port, int64_t count);
void run_datagram_batch(const struct workload *workload, uint16_t port, int64_t count);
void run_datagram_batch_joined(const struct workload *workload, uint16_t port, int64_t count);

/* peer_tls.c: TLS, both ends. */
void run_tls_ping(const struct workload *workload, uint16_t port, int64_t count);
void run_tls_octets(const struct workload *workload, uint16_t port, int64_t count);

/* Prints its port and sends back whatever comes. */
_Noreturn void serve_datagrams(void);

#endif
