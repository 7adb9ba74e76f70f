/* vectors - the reader of tests/vectors. Stands on stdio. See vectors.h.
 *
 * Invariant: a row is handed out whole, or the table counts as broken from there on. */
#include "vectors.h"

#include <string.h>

#ifndef LPORT_VECTORS
#define LPORT_VECTORS "tests/vectors"
#endif

bool vectors_open(struct vectors *vectors, const char *name) {
    char path[VECTORS_LINE];
    memset(vectors, 0, sizeof *vectors);
    int len = snprintf(path, sizeof path, "%s/%s", LPORT_VECTORS, name);
    if (len < 0 || (size_t)len >= sizeof path) {
        return false;
    }
    vectors->file = fopen(path, "re");
    return vectors->file != NULL;
}

/* The octet that C stands for after a backslash, or -1. */
static int unescape(char c) {
    switch (c) {
    case 't':
        return '\t';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case '0':
        return '\0';
    case '\\':
        return '\\';
    default:
        return -1;
    }
}

/* Unescapes the terminated FIELD where it stands; its length, or -1 for an unknown escape. */
static int unescape_field(char *field) {
    int used = 0;
    for (const char *at = field; *at != '\0'; at++) {
        int octet = (unsigned char)*at;
        if (*at == '\\') {
            octet = unescape(at[1]);
            at++;
        }
        if (octet < 0) {
            return -1;
        }
        field[used++] = (char)octet;
    }
    field[used] = '\0';
    return used;
}

static bool split(struct vectors *vectors) {
    char *rest = vectors->line;
    vectors->count = 0;
    for (int i = 0; i < VECTORS_FIELDS; i++) {
        vectors->field[i] = "";
        vectors->len[i] = 0;
    }
    while (rest != NULL) {
        char *field = strsep(&rest, "\t");
        int len = unescape_field(field);
        if (len < 0 || vectors->count == VECTORS_FIELDS) {
            return false;
        }
        vectors->field[vectors->count] = field;
        vectors->len[vectors->count++] = (size_t)len;
    }
    return true;
}

bool vectors_next(struct vectors *vectors) {
    while (!vectors->broken && fgets(vectors->line, sizeof vectors->line, vectors->file)) {
        size_t len = strlen(vectors->line);
        vectors->number++;
        if (len == 0 || vectors->line[len - 1] != '\n') {
            vectors->broken = true;
            return false;
        }
        vectors->line[len - 1] = '\0';
        if (len == 1 || vectors->line[0] == '#') {
            continue;
        }
        vectors->broken = !split(vectors);
        return !vectors->broken;
    }
    return false;
}

bool vectors_close(struct vectors *vectors) {
    bool whole = !vectors->broken && !ferror(vectors->file);
    return fclose(vectors->file) == 0 && whole;
}
