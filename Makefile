# port: libport.so, its tests and its checks. GNU make. `make help` lists what can be asked for.
#
# Every path here is relative, so that a directory with a space in its name will do. The library is
# one call of the compiler; only `make test`, `check`, `bench`, `demo` and `repl` need more than a C
# compiler, and install what is missing themselves (tests/checks/packages).

VERSION := $(shell tr -d '" ' < version.sexp)

CC     ?= cc
CFLAGS ?= -O2 -g
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
OUT    ?= build
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
SBCL   ?= sbcl
ECL    ?= ecl
CLISP  ?= clisp
export CC OUT SBCL

# In front of each test run; a suite that has not ended by then is stopped, and that is a failure.
WATCHDOG  ?= timeout -k 10 900
# How tests and demo run: with the names of tests/vectors/hosts, so that no name server is asked, and,
# for root, without the privileges whose absence they show (low ports, read-only directories). What is
# asked of a name server all the same, the name of an address, takes a second at most.
DROP      = setpriv --bounding-set=-net_bind_service,-dac_override,-dac_read_search \
            --inh-caps=-net_bind_service,-dac_override,-dac_read_search
DROPPING := $(shell $(DROP) true 2>/dev/null && echo $(DROP))
TEST_ENV ?= env LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_HOSTS="$(CURDIR)/tests/vectors/hosts" \
            RES_OPTIONS="timeout:1 attempts:1" $(DROPPING)
LISP       = $(SBCL) --noinform --non-interactive --no-userinit --no-sysinit --eval '(require :asdf)'
CRITERION  = --color=never --short-filename

# Offsets of files and seconds have 64 bits on machines of 32 too; elsewhere this changes nothing.
WIDE       = -D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64
WARNINGS   = -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes -Wvla
DIALECT    = -std=gnu11 -Icsrc -D_GNU_SOURCE $(WIDE) -DLPORT_VERSION='"$(VERSION)"'
LIB_FLAGS  = $(DIALECT) -Wall -Wextra -fPIC -fvisibility=hidden -pthread -shared \
             -Wl,-soname,libport.so.1 -Wl,--version-script=csrc/libport.map -Wl,-z,defs \
             -Wl,-z,nodelete -Wl,-z,relro -Wl,-z,now -Wl,-Bsymbolic
TEST_FLAGS = $(DIALECT) $(WARNINGS) -Itests/c -Itests/faults -DLPORT_TEST -DLPORT_LIBRARY='"build/libport.so.1"' -pthread
TEST_LIBS  = -lcriterion -lffi -ldl
SANITIZE   = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined

SOURCES   := $(sort $(wildcard csrc/*.c csrc/*/*.c))
INPUTS    := $(sort $(wildcard csrc/*.[ch] csrc/*/*.[ch])) csrc/libport.map version.sexp Makefile
SUITE     := $(sort $(wildcard tests/c/*.c tests/c/*/*.c))
FAULTS    := $(sort $(wildcard tests/faults/*.c))
TSAN      := $(patsubst tests/tsan/%.c,build/tsan/%,$(sort $(wildcard tests/tsan/*_test.c)))
TSAN_MORE := $(filter-out %_test.c,$(sort $(wildcard tests/tsan/*.c)))
# Those that the tests of TLS use, an authority's and others.
CERTIFICATES := build/tls/authority.pem

# Whoever loads the library while it is built sees the old one or the new one, never a half: two
# builds at once each have a file of their own, and the last to finish wins.
BUILD_LIBRARY = mkdir -p "$$OUT" && new="$$OUT/libport.so.1.$$$$" && \
    { $(CC) $(CPPFLAGS) $(CFLAGS) $(LIB_FLAGS) $(LDFLAGS) -o "$$new" $(SOURCES) && \
      mv -f "$$new" "$$OUT/libport.so.1"; } || { rm -f "$$new"; exit 1; }

.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all library writable deps check-deps demo echo chat http socks repl test test-c test-tsan test-lisp \
        test-ecl test-clisp test-browser test-arm64 test-faults stress fuzz check bench docs docs-html install \
        uninstall clean help

## all (the default): the library, build/libport.so.1
all: build/libport.so

build/libport.so: build/libport.so.1
	@ln -sf libport.so.1 $@

# OUT is for `make library`: a value that was given for that does not move this one out of build/.
build/libport.so.1: override export OUT = build
build/libport.so.1: $(INPUTS)
	@$(BUILD_LIBRARY)

## library OUT=dir: the library as dir/libport.so.1; writes nothing anywhere else
library:
	@$(BUILD_LIBRARY)

# ---- what has to be installed ---------------------------------------------------------------------

PACKAGES       = gcc libc6-dev make pkg-config sbcl cl-cffi cl-fiveam cl-babel cl-usocket \
                 libcriterion-dev libffi-dev libnss-wrapper netbase curl dnsmasq-base socat wrk \
                 cl-bordeaux-threads cl-hunchentoot cl-drakma systemd haproxy openssl libssl-dev
CHECK_PACKAGES = iproute2 clang clang-tidy clang-format libclang-rt-dev cppcheck valgrind groff
DOCS_PACKAGES  = pandoc
BENCH_PACKAGES = nodejs cl-plus-ssl
BROWSER_PACKAGES = chromium
ARM64_PACKAGES = gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
ECL_PACKAGES   = ecl
CLISP_PACKAGES = clisp

writable:
	@{ mkdir -p build && [ -w build ]; } 2>/dev/null || \
	    { echo "make: $(CURDIR) cannot be written to: tests, demo and checks build in it. Use a copy" \
	        "(cp -r), or \`make library OUT=directory' for the library alone." >&2; exit 1; }

## deps: installs the packages that demo, repl, test and bench need
deps:
	@tests/checks/packages $(PACKAGES)

## check-deps: installs those that only check needs
check-deps:
	@tests/checks/packages $(CHECK_PACKAGES)

# ---- using it from Lisp ---------------------------------------------------------------------------

# The system $(1), without the compiler's notes on what other systems could do better.
LOADING = --eval '(setf *compile-verbose* nil)' --eval '(push (truename "./") asdf:*central-registry*)' \
    --eval '(handler-bind ((sb-ext:compiler-note (function muffle-warning))) (asdf:load-system "$(1)"))'

## demo: a narrated session: a file server, clients, TLS, errors, a name with several addresses
demo: writable deps
	@$(MAKE) -s --no-print-directory all $(CERTIFICATES)
	@PORT_DEMO_NAME=many.test $(TEST_ENV) $(LISP) $(call LOADING,port/examples) \
	    --eval '(uiop:quit (uiop:symbol-call :port-example/demo :run))'

# The port is that of the example unless PORT is given. The others are for `make http', which serves
# HTTPS where there is a CERTIFICATE; its key is in the same file unless there is a KEY.
EXAMPLE_KEYS = $(if $(PORT),:port $(PORT)) $(if $(DIRECTORY),:directory "$(DIRECTORY)") \
               $(if $(CERTIFICATE),:certificate "$(CERTIFICATE)") $(if $(KEY),:key "$(KEY)")

## echo, chat, http, socks [PORT=8080] [DIRECTORY=docs] [CERTIFICATE=file KEY=file]: the example of
##     that name, until Ctrl-C
echo chat http socks: writable deps
	@$(MAKE) -s --no-print-directory all
	@$(LISP) $(call LOADING,port/examples) \
	    --eval '(port-example/$@:run $(EXAMPLE_KEYS))'

## repl: a Lisp with port loaded
repl: writable deps
	@$(MAKE) -s --no-print-directory all
	@$(SBCL) --noinform --eval '(require :asdf)' $(call LOADING,port) --load examples/repl.lisp

# ---- tests ----------------------------------------------------------------------------------------

## test: every test: test-c, test-tsan, test-lisp
test: writable deps
	@$(MAKE) -s --no-print-directory -j$(JOBS) build/libport.so build/test/suite $(TSAN)
	@$(MAKE) -s --no-print-directory test-c
	@$(MAKE) -s --no-print-directory test-tsan
	@$(MAKE) -s --no-print-directory test-lisp

## test-c: the C suite
test-c: build/libport.so build/test/suite
	@$(TEST_ENV) $(WATCHDOG) build/test/suite $(CRITERION)

## test-tsan: the programs of tests/tsan under the thread sanitizer
test-tsan: $(TSAN)
	@for program in $(TSAN); do \
	    TSAN_OPTIONS="halt_on_error=1 exitcode=66" $(WATCHDOG) $$program || \
	        { echo "$$program: failed" >&2; exit 1; }; \
	done

## test-lisp: the Lisp suite
test-lisp: build/libport.so $(CERTIFICATES)
	@$(TEST_ENV) $(WATCHDOG) tests/lisp/halves $(LISP) --load tests/lisp/run.lisp

$(CERTIFICATES): tests/tls/certificates
	@tests/tls/certificates build/tls

# The Lisp suite on another Lisp, $(1), its command. An error may end that with the status 0, so the
# last line of the suite is looked for.
OTHER_LISP = $(TEST_ENV) timeout -k 10 2400 $(1) 2>&1 | tee build/$@.log && \
             grep -q '^lisp: [0-9]* passed, 0 failed' build/$@.log

# ECL compiles by way of C, which takes minutes when something has changed, and is slower at all else.
## test-ecl: the Lisp suite on ECL, which is installed where it is missing
test-ecl: writable deps
	@tests/checks/packages $(ECL_PACKAGES)
	@$(MAKE) -s --no-print-directory all $(CERTIFICATES)
	@$(call OTHER_LISP,$(ECL) --norc --eval '(setf *compile-verbose* nil *load-verbose* nil)' \
	    --load tests/lisp/run.lisp)

# In the documents there are characters that are not ASCII.
## test-clisp: the Lisp suite on CLISP, which is installed where it is missing
test-clisp: writable deps
	@tests/checks/packages $(CLISP_PACKAGES)
	@$(MAKE) -s --no-print-directory all $(CERTIFICATES)
	@$(call OTHER_LISP,$(CLISP) -q -norc -E UTF-8 -x '(setf *compile-verbose* nil *load-verbose* nil)' \
	    -x '(load "tests/lisp/run.lisp")')

## test-browser: the HTTP example and the real Chromium, 400 MB, which is installed where it is missing
test-browser: writable deps
	@tests/checks/packages $(BROWSER_PACKAGES)
	@$(MAKE) -s --no-print-directory all
	@PORT_TEST=browser. $(TEST_ENV) $(WATCHDOG) $(LISP) --load tests/lisp/run.lisp

## test-arm64: the codec against the plain one, and the races, for 64-bit ARM on an emulated processor
test-arm64: writable
	@tests/checks/packages $(ARM64_PACKAGES)
	@$(MAKE) -s --no-print-directory -j$(JOBS) build/arm64/text build/arm64/races
	@$(WATCHDOG) $(ARM64_RUN) build/arm64/text
	@$(WATCHDOG) $(ARM64_RUN) build/arm64/races

ARM64_RUN  = qemu-aarch64 -L /usr/aarch64-linux-gnu
ARM64_LINK = aarch64-linux-gnu-gcc -O2 -g $(DIALECT) $(WARNINGS) -DLPORT_TEST -Itests/faults -pthread
build/arm64/text: tests/fuzz/replay.c tests/fuzz/text_fuzz.c $(INPUTS)
	@mkdir -p $(@D)
	@$(ARM64_LINK) -o $@ $(filter tests/%,$^) $(SOURCES)
build/arm64/races: tests/tsan/races_test.c $(TSAN_MORE) $(INPUTS)
	@mkdir -p $(@D)
	@$(ARM64_LINK) -o $@ $(filter tests/%,$^) $(SOURCES)

# The weather: each receive and send moves one octet, three in ten calls are interrupted or would
# block, by a seed that is printed. First the tests that make single calls fail themselves.
FAULT_SEED ?= $(or $(PORT_TEST_SEED),$(shell od -An -N4 -tu4 /dev/urandom))
WEATHER     = PORT_FAULTS="cut=1 disturb=30 seed=$(strip $(FAULT_SEED))"
FAULTY_LISP = PORT_LIBRARY="$(CURDIR)/build/faults/libport.so.1" $(TEST_ENV)

## test-faults: both suites while calls fail: single ones, and a third of all, an octet at a time
# Drawn once: the two suites and the line that tells it have the same seed.
test-faults: FAULT_SEED := $(FAULT_SEED)
test-faults: deps
	@$(MAKE) -s --no-print-directory -j$(JOBS) build/libport.so build/test/suite \
	    build/faults/libport.so.1
	@echo "faults: seed $(FAULT_SEED)"
	@$(WEATHER) $(TEST_ENV) $(WATCHDOG) build/test/suite $(CRITERION)
	@PORT_TEST=faults. $(FAULTY_LISP) $(WATCHDOG) $(LISP) --load tests/lisp/run.lisp
	@$(WEATHER) $(FAULTY_LISP) $(WATCHDOG) tests/lisp/halves $(LISP) --load tests/lisp/run.lisp

## fuzz [SECONDS=60]: the targets of tests/fuzz, SECONDS each; what they find is in build/fuzz
fuzz: writable check-deps
	@$(MAKE) -s --no-print-directory -j$(JOBS) $(FUZZ)
	@for target in $(FUZZ); do \
	    log=$$target.log; \
	    $(WATCHDOG) $$target -max_total_time=$(SECONDS) -max_len=1400 -artifact_prefix=$$target. \
	        >$$log 2>&1 || { tail -n 60 $$log >&2; exit 1; }; \
	    echo "$${target##*/}: $$(tail -n 1 $$log)"; \
	done

FUZZ := $(patsubst tests/fuzz/%_fuzz.c,build/fuzz/%,$(sort $(wildcard tests/fuzz/*_fuzz.c)))
$(FUZZ): build/fuzz/%: tests/fuzz/%_fuzz.c $(INPUTS)
	@mkdir -p $(@D)
	@clang -O1 -g $(DIALECT) $(WARNINGS) -DLPORT_TEST -pthread -fsanitize=fuzzer,address,undefined \
	    -fno-sanitize-recover=undefined -o $@ $< $(SOURCES)

## stress [SECONDS=60]: signals, collections, throws, kills and closes at random moments; counts
SECONDS ?= 60
stress: deps
	@$(MAKE) -s --no-print-directory all $(CERTIFICATES)
	@STRESS_SECONDS=$(SECONDS) $(TEST_ENV) timeout -k 10 $$(($(SECONDS) + 300)) \
	    $(LISP) --load tests/stress/run.lisp

# The library's own files are linked into the suite, with LPORT_TEST, so that a test can make any
# system call fail; the shared library is used by tests/c/abi_test.c.
# One flavour of it: $(1) is the directory under build/, $(2) the flags in the place of CFLAGS.
define FLAVOUR
build/$(1)/%.o: %.c Makefile version.sexp
	@mkdir -p $$(@D)
	@$$(CC) $$(CPPFLAGS) $(2) $$(TEST_FLAGS) -MMD -MP -c -o $$@ $$<
build/$(1)/suite: $$(patsubst %.c,build/$(1)/%.o,$$(SOURCES) $$(SUITE) $$(FAULTS)) | $$(CERTIFICATES)
	@$$(CC) $(2) $$(LDFLAGS) -pthread -o $$@ $$^ $$(TEST_LIBS)
endef
$(eval $(call FLAVOUR,test,$(CFLAGS)))
$(eval $(call FLAVOUR,asan,$(SANITIZE)))
$(eval $(call FLAVOUR,tsan,-O1 -g -fsanitize=thread))

$(TSAN): build/tsan/%: build/tsan/tests/tsan/%.o \
        $(patsubst %.c,build/tsan/%.o,$(SOURCES) $(TSAN_MORE)) | $(CERTIFICATES)
	@$(CC) -fsanitize=thread $(LDFLAGS) -pthread -o $@ $^

-include $(wildcard build/*/csrc/*.d build/*/csrc/*/*.d \
    build/*/tests/*/*.d build/*/tests/*/*/*.d)

# The library as the Lisp tests use it to meet faults: its table of system calls can be replaced, and
# it exports the functions of tests/faults/faults.h too.
build/faults/libport.so.1: $(INPUTS) $(FAULTS) tests/faults/faults.h tests/faults/libport.map
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(subst csrc/libport.map,tests/faults/libport.map,$(LIB_FLAGS)) \
	    -DLPORT_TEST $(LDFLAGS) -o $@ $(SOURCES) $(FAULTS)

# ---- checks ---------------------------------------------------------------------------------------

CHECKS ?= format lint cppcheck warnings layers order symbols manifest docs install sanitize fuzz no-inet6

## check: formatting, lint, warnings, layers, exports, installation, and the C suite under sanitizers
check: writable deps check-deps
	@$(MAKE) -s --no-print-directory all
	@MAKE="$(MAKE)" JOBS="$(JOBS)" VERSION="$(VERSION)" CRITERION="$(CRITERION)" \
	    DIALECT="$(subst ",\",$(DIALECT))" WARNINGS="$(WARNINGS)" \
	    WATCHDOG="$(WATCHDOG)" tests/checks/all $(CHECKS)

# ---- benchmarks -----------------------------------------------------------------------------------

# The peers are plain C and need nothing of the library; the others measure its insides.
build/bench/%: tests/bench/%.c $(INPUTS)
	@mkdir -p $(@D)
	@$(CC) -O2 -g $(DIALECT) $(WARNINGS) -pthread -o $@ $< $(SOURCES)
build/bench/server: tests/bench/server.c Makefile
	@mkdir -p $(@D)
	@$(CC) -O2 -g $(DIALECT) $(WARNINGS) -pthread -o $@ $<
build/bench/peer: $(sort $(wildcard tests/bench/peer*.c)) tests/bench/peer.h Makefile | $(CERTIFICATES)
	@mkdir -p $(@D)
	@$(CC) -O2 -g $(DIALECT) $(WARNINGS) -pthread -o $@ $(filter %.c,$^) -lssl -lcrypto

## bench [BENCH=pingpong]: port beside plain C and others, on one processor; writes docs/benchmarks.md
bench: writable deps
	@tests/checks/packages $(BENCH_PACKAGES)
	@$(MAKE) -s --no-print-directory -j$(JOBS) all build/bench/peer build/bench/server
	@processor=$$(taskset -cp $$$$ | sed 's/.*[^0-9]//') && \
	    taskset -c "$$processor" $(LISP) --load tests/bench/run.lisp

# ---- documents ------------------------------------------------------------------------------------

LOAD_DOCS = --eval '(setf *compile-verbose* nil)' --eval '(push (truename "./") asdf:*central-registry*)' \
            --eval '(handler-bind ((warning (function muffle-warning))) (asdf:load-system "port/docs"))'

## docs: writes docs/reference.md, docs/man and docs/pictures anew, from docstrings and libport.h
docs: build/libport.so
	@$(LISP) $(LOAD_DOCS) --eval '(port-docs:write-files)'

## docs-html: guide and reference as web pages, build/html
docs-html: docs
	@tests/checks/packages $(DOCS_PACKAGES)
	@docs/html/build build/html

# ---- installing -----------------------------------------------------------------------------------

# Some characters would mean something to the shell, or to pkg-config, in the name of a directory:
# CHECKED, in a recipe, is an error where one has such a character. A space, and all others, will do.
HASH      := \#
UNFIT     := " ` \ $$
has        = $(strip $(foreach character,$(1),$(findstring $(character),$(2))))
PLACES     = $(PREFIX) $(LIBDIR) $(INCLUDEDIR) $(MANDIR)
CHECKED    = $(if $(call has,$(UNFIT),$(DESTDIR) $(PLACES))$(call has,$(HASH),$(PLACES)),$(error \
             expected a PREFIX, and other directories, without any of $(UNFIT) $(HASH)))
# As the replacement of sed.
replacing  = $(subst |,\|,$(subst &,\&,$(1)))

## install PREFIX=/usr/local DESTDIR=: library, header, pkg-config file, manual pages
install: all
	$(CHECKED)
	@install -d "$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(INCLUDEDIR)" \
	    "$(DESTDIR)$(MANDIR)/man3" "$(DESTDIR)$(MANDIR)/man7"
	@install -m 755 build/libport.so.1 "$(DESTDIR)$(LIBDIR)/libport.so.1"
	@ln -sf libport.so.1 "$(DESTDIR)$(LIBDIR)/libport.so"
	@install -m 644 csrc/libport.h "$(DESTDIR)$(INCLUDEDIR)/libport.h"
	@sed -e "s|@PREFIX@|$(call replacing,$(PREFIX))|" -e "s|@LIBDIR@|$(call replacing,$(LIBDIR))|" \
	    -e "s|@INCLUDEDIR@|$(call replacing,$(INCLUDEDIR))|" -e "s|@VERSION@|$(VERSION)|" \
	    csrc/libport.pc.in > "$(DESTDIR)$(LIBDIR)/pkgconfig/libport.pc"
	@chmod 644 "$(DESTDIR)$(LIBDIR)/pkgconfig/libport.pc"
	@install -m 644 docs/man/*.3 "$(DESTDIR)$(MANDIR)/man3"
	@install -m 644 docs/man/*.7 "$(DESTDIR)$(MANDIR)/man7"
	@docs/man-links docs/man/*.3 | while read -r page name; do \
	    ln -sf "$$page" "$(DESTDIR)$(MANDIR)/man3/$$name.3"; done

## uninstall: removes what install put there
uninstall:
	$(CHECKED)
	@rm -f "$(DESTDIR)$(LIBDIR)/libport.so.1" "$(DESTDIR)$(LIBDIR)/libport.so" \
	    "$(DESTDIR)$(INCLUDEDIR)/libport.h" "$(DESTDIR)$(LIBDIR)/pkgconfig/libport.pc" \
	    "$(DESTDIR)$(MANDIR)"/man3/lport_*.3 "$(DESTDIR)$(MANDIR)/man7/libport.7"

## clean: removes build
clean:
	@rm -rf build

## help: this
help:
	@sed -n 's/^## /  /p' Makefile
