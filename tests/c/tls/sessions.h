/* sessions - contexts and sessions of TLS, with the certificates of build/tls. */
#ifndef SESSIONS_H
#define SESSIONS_H

#include "libport.h"

#include <stddef.h>
#include <stdint.h>

enum { CLIENT = 0, SERVER = 1 }; /* places in a vector of ends */

#define CERTIFICATE(name) "build/tls/" name ".pem"
#define KEY(name)         "build/tls/" name ".key"

/* The functions of contexts with texts for their vectors. */
int64_t trust(int64_t context, const char *path);
int64_t take_list(int64_t context, const char *path);
int64_t identify(int64_t context, const char *chain, const char *key);
int64_t unlock(int64_t context, const char *chain, const char *key, const char *passphrase);
int64_t speak(int64_t context, const char *names);

/* A context that trusts the authority of the tests; one that is the NAME of the certificates too,
 * NULL for none. */
int64_t make_context(const char *name);

/* lport_tls_start without octets read ahead; NAME may be NULL. */
int64_t start(int64_t socket, int64_t context, int32_t side, const char *name);

/* Puts TLS on both ENDS: one expects NAME and has the first context, the other has the second. */
void start_both(const int64_t ends[2], const int64_t contexts[2], const char *name);

/* Drives the handshake of both ENDS until each is done or has failed: what they said last. */
void shake_hands(const int64_t ends[2], int64_t results[2]);

/* The same, and both are done. */
void agree(const int64_t ends[2]);

/* A connection of FAMILY (LPORT_LOCAL: a pair) with TLS, the server called good.test. */
void make_tls(int32_t family, int64_t ends[2]);

/* What is held of SOCKET goes on; and TEXT is sent so, and received. */
void hand_on(int64_t socket);
void send_text(int64_t socket, const char *text);
void receive_text(int64_t socket, const char *text);

/* Somebody between a client and a server, whose ENDS these are, who sees all that goes by. */
struct between {
    int64_t ends[2], own[2];
    uint8_t seen[2][8192]; /* the first octets from each end */
    size_t seen_len[2];
    size_t
        spoil; /* the octet of the next ones from the client that is changed, from 1 on; 0: none */
};

/* Two pairs without TLS, with somebody between; and the hands of both ends, shaken through that. */
void make_between(struct between *between);
void close_between(const struct between *between);
void agree_through(struct between *between);

/* Hands on what there is from the client (CLIENT), or the server: how many octets. In fair weather,
 * as the other end does not read meanwhile. */
size_t pass_on(struct between *between, int from);

/* lport_tls_text of SOCKET as a string that stays until the next call. */
const char *text_of(int64_t socket, int32_t what);

/* The same of lport_tls_context_problem. */
const char *problem_of(int64_t context);

#endif
