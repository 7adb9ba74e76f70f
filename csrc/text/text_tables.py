#!/usr/bin/env python3
"""Writes text_tables.c:  python3 text_tables.py > text_tables.c

The result is kept beside this script, so that building needs no Python;
tests/c/text/text_variants_test.c works the tables out again and compares."""

NOTHING = 0x80  # an index that a byte shuffle answers with zero


def gather(leads):
    """LEADS tells for octets 0 to 6 whether a character begins there. Each character that begins in
    octets 0 to 3 gets a lane of four, its octets at the lane's end; lanes left over repeat the first."""
    begins = [at for at in range(7) if leads >> at & 1]
    lanes = []
    for at in [at for at in begins if at < 4]:
        end = min([b for b in begins if b > at] + [7, at + 4])
        lanes.append([NOTHING] * (4 - (end - at)) + list(range(at, end)))
    while len(lanes) < 4:
        lanes.append(lanes[0] if lanes else [NOTHING] * 4)
    return sum(lanes, [])


def order(leads):
    """The numbers of the bits that are set in LEADS; places left over repeat the first."""
    begins = [at for at in range(8) if leads >> at & 1]
    return (begins + (begins[:1] or [0]) * 8)[:8]


def pack(sizes):
    """SIZES has bit I and bit 4 + I for lane I: its size less one, low bit and high bit. The octets
    at the ends of the four lanes, moved together."""
    kept = []
    for lane in range(4):
        size = 1 + (sizes >> lane & 1) + 2 * (sizes >> (4 + lane) & 1)
        kept += range(4 * lane + 4 - size, 4 * lane + 4)
    return kept + [NOTHING] * (16 - len(kept))


def table(name, rows):
    print(f"\nconst uint8_t {name}[{len(rows)}][{len(rows[0])}] = {{")
    for row in rows:
        print("    {" + ", ".join(str(x) for x in row) + "},")
    print("};")


print("""/* text_tables - the byte shuffles of the vector variants (layer 1). Written by text_tables.py:
 * change that, not this. What the tables mean stands in text_vector.h. */
#include "text_vector.h"

/* clang-format off */""")
table("lport_text_gather", [gather(leads) for leads in range(128)])
table("lport_text_order", [order(leads) for leads in range(256)])
table("lport_text_pack", [pack(sizes) for sizes in range(256)])
