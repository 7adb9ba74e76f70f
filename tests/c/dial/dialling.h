/* dialling - what the tests of dials share: addresses on loopback that answer, that refuse (a port
 * that is only bound) and that are silent (a listener whose queue is full); names that come from a
 * fake of the system's resolver; dials that are made, finished and looked at. */
#ifndef DIALLING_H
#define DIALLING_H

#include "base/os.h"
#include "fake_resolver.h"
#include "libport.h"

#include <criterion/criterion.h>
#include <stdint.h>

#define MS INT64_C(1000000)
#define S  INT64_C(1000000000)

enum { FILLERS = 8 };

typedef uint8_t block[LPORT_ADDRESS_SIZE];

/* ---- before and after ------------------------------------------------------------------------ */

/* A suite whose tests begin with the fake resolver and with counts of what is there. Each test ends
 * with check_nothing_left. */
#define DIAL_SUITE(name) TestSuite(name, .timeout = 30, .init = dial_set_up)

void dial_set_up(void);

extern struct before {
    int64_t sockets;
    int descriptors;
    struct lport_os os; /* the system calls that were there */
} before;

/* Nothing is left of what the test did (behaviour 49). At the end of the body of each test. */
void check_nothing_left(void);

/* Closes what a test of one connection has, which is all there is. */
void end_connected(int64_t dial, int64_t socket, int64_t listener);

/* ---- addresses ------------------------------------------------------------------------------- */

int32_t kind(int64_t status);
void parse(const char *text, int32_t port, uint8_t *address);
int32_t port_of(int64_t socket);

/* A listener on TEXT at PORT, 0 for any. */
int64_t listen_at(const char *text, int32_t port, int32_t backlog);

/* A port that refuses at every address of this machine, until check_nothing_left or release_ports.
 * Who reuses addresses can bind it. */
int32_t refusing_port(void);
void release_ports(void);

/* What becomes of an attempt at ::1, where nobody listens. */
int32_t refusal_of_inet6(void);

/* A socket that has begun to connect to ADDRESS. */
int64_t start_connect(const uint8_t *address);

/* A listener whose queue is full, so that further connects get no answer. */
struct silence {
    int64_t listener;
    int64_t fillers[FILLERS];
};

void keep_silent(struct silence *silence, const char *text, int32_t port);
void end_silence(struct silence *silence);

/* Makes room in the queue. The fillers would try again, too, and could take it before others. */
void break_silence(struct silence *silence);

/* ---- dials ----------------------------------------------------------------------------------- */

int64_t open_dial(const char *name, int32_t port);

/* A dial to the addresses of TEXTS, which ends with NULL, each with the port of PORTS. */
int64_t open_list(const char *const *texts, const int32_t *ports);

/* Steps and waits until DIAL is decided or DEADLINE passes. */
int64_t finish(int64_t dial, int64_t deadline);
int64_t finish_soon(int64_t dial);

/* The attempt INDEX of DIAL went to EXPECTED and came to EXPECTED_KIND. */
void check_attempt(int64_t dial, int32_t index, const char *expected, int32_t expected_kind);

/* SOCKET is connected to PORT of TEXT. */
void check_peer(int64_t socket, const char *text, int32_t port);

#endif
