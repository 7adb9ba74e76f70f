/* abi - what this library is: its version, its number, its manifest (layer 4).
 *
 * Stands on libport.h alone. Invariant: the manifest is made by the compiler from the rows of
 * manifest.h, and each row is checked against libport.h when this file is compiled, so that the
 * text cannot say anything that the code does not. What libport.h contains and no row names is
 * found by tests/checks/manifest. */
#include "libport.h"

#ifndef LPORT_VERSION
#error "LPORT_VERSION has to be given; the Makefile reads it from version.sexp"
#endif

/* Once as code: each function declared again (another prototype does not compile), each value
 * compared. */
#define FUNCTION(result, name, arguments) result name arguments;
#define CONSTANT(name, value)             _Static_assert((name) == (value), #name " is not " #value);
#include "manifest.h"
#undef FUNCTION
#undef CONSTANT

/* Once as text. */
#define FUNCTION(result, name, arguments) "function " #result " " #name #arguments "\n"
#define CONSTANT(name, value)             "constant " #name " " #value "\n"
static const char manifest[] =
#include "manifest.h"
    ;

const char *lport_version(void) {
    return LPORT_VERSION;
}

int32_t lport_abi(void) {
    return LPORT_ABI;
}

const char *lport_manifest(void) {
    return manifest;
}
