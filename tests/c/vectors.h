/* vectors - reads the tables in tests/vectors; their form is in the README.md there. */
#ifndef VECTORS_H
#define VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { VECTORS_FIELDS = 8, VECTORS_LINE = 4096 };

struct vectors {
    FILE *file;
    int number;  /* of the row's line, from 1, for messages */
    bool broken; /* a line is too long, has too many fields or an unknown escape */
    int count;   /* fields in the row */
    const char *field[VECTORS_FIELDS]; /* unescaped and terminated; "" past COUNT */
    size_t len[VECTORS_FIELDS];
    char line[VECTORS_LINE];
};

/* Opens table NAME, such as "ports.tsv"; false if it cannot. */
bool vectors_open(struct vectors *vectors, const char *name);

/* The next row; false at the end and where the table is broken. The fields stay until the next
 * call. */
bool vectors_next(struct vectors *vectors);

/* Closes the table; false if it was broken, so that a test cannot pass on half of it. */
bool vectors_close(struct vectors *vectors);

#endif
