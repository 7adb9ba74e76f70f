/* resolve_answer - what the system's resolver says to a question, as blocks and names (layer 3),
 * for resolve.c. No state: the thread that asks has both structures to itself. */
#ifndef LPORT_RESOLVE_ANSWER_H
#define LPORT_RESOLVE_ANSWER_H

#include "address/address.h"

#include <stdbool.h>
#include <stdint.h>

enum { LPORT_NAME_MAX = 255 }; /* octets of a name in text, RFC 1035 section 2.3.4 */

struct lport_question {
    int32_t family; /* LPORT_ANY, LPORT_INET or LPORT_INET6 of a NAME */
    int32_t flags;  /* LPORT_ALIASES or 0 */
    bool reverse;   /* the names of ADDRESS are asked for, not the addresses of NAME */
    uint8_t address[LPORT_ADDRESS_SIZE];
    char name[LPORT_NAME_MAX + 1];
};

struct lport_answer {
    int64_t status;     /* 0 or a failure */
    uint8_t *addresses; /* blocks, one after the other */
    int32_t address_count;
    char *names; /* each with its terminator, one after the other */
    int32_t name_count;
};

/* [waits] Asks the system QUESTION and fills in ANSWER, which is empty. */
void lport_answer_find(const struct lport_question *question, struct lport_answer *answer);

/* [nowait] Makes ANSWER empty: with its memory freed, and without, where another process may be at
 * work on it. */
void lport_answer_drop(struct lport_answer *answer);
void lport_answer_forget(struct lport_answer *answer);

#endif
