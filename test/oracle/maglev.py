#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Maglev tables by the loop of the paper (Eisenbud et al., NSDI 2016, section 3.4), the plain way.

An oracle for lib/balance: written from the paper and from balance.h alone, with multiply and modulo where
the C code adds and subtracts, the table itself where it has a bitmap, and fractions where it keeps remainders.

    maglev.py            prints the lines of test/fixtures/maglev_digests.txt
    maglev.py --check    compares them with that file
"""
import os
import sys

MASK = (1 << 64) - 1
EMPTY = 0xffff


def hash_stable(data, seed):
    """net.h: hash_stable."""
    h = 0xcbf29ce484222325 ^ (seed * 0x9e3779b97f4a7c15 & MASK)
    for byte in data:
        h = (h ^ byte) * 0x100000001b3 & MASK
    for _ in range(2):
        h = (h ^ h >> 32) * 0xd6e8feb86659fd93 & MASK
    return h ^ h >> 32


def table(members, m):
    """members: list of (address as 16 bytes, port, weight). Returns m member indices."""
    order = sorted((address + port.to_bytes(2, "big"), idx) for idx, (address, port, _) in enumerate(members))
    turns = []
    for identity, idx in order:
        weight = members[idx][2]
        if weight:
            offset = hash_stable(identity, 1) % m
            skip = hash_stable(identity, 2) % (m - 1) + 1
            turns.append([offset, skip, weight, idx, 0])
    entry = [EMPTY] * m
    if not turns:
        return entry
    heaviest = max(turn[2] for turn in turns)
    filled, r = 0, 0
    while True:
        for turn in turns:
            offset, skip, weight, idx, following = turn
            if (r + 1) * weight // heaviest == r * weight // heaviest:
                continue
            while entry[(offset + following * skip) % m] != EMPTY:
                following += 1
            entry[(offset + following * skip) % m] = idx
            turn[4] = following + 1
            filled += 1
            if filled == m:
                return entry
        r += 1


# ---------------------------------------------------------------- fixed cases, the same as in balance_test.c
def splitmix(state):
    while True:
        state = state + 0x9e3779b97f4a7c15 & MASK
        z = state
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & MASK
        z = (z ^ z >> 27) * 0x94d049bb133111eb & MASK
        yield z ^ z >> 31


def make_members(seed, n, weights, v6):
    """weights: equal, step (1, 2, 3, 1, ...), random (0..1000)."""
    draw = splitmix(seed)
    members = []
    for i in range(n):
        word = next(draw)
        if v6:
            address = bytes.fromhex("20010db8") + bytes(4) + word.to_bytes(8, "big")
        else:
            address = bytes(10) + b"\xff\xff\x0a" + (word & 0xffffff).to_bytes(3, "big")
        port = i + 1
        weight = {"equal": 100, "step": i % 3 + 1, "random": (word >> 32) % 1001}[weights]
        members.append((address, port, weight))
    return members


CASES = [  # seed, members, m, weights, v6
    (1, 1, 251, "equal", 0),
    (2, 2, 251, "equal", 0),
    (3, 3, 307, "equal", 1),
    (4, 10, 1009, "equal", 0),
    (5, 10, 1009, "step", 1),
    (6, 100, 10007, "random", 0),
    (7, 300, 251, "equal", 0),
    (8, 1000, 65537, "equal", 1),
    (9, 1000, 65537, "random", 0),
    (10, 17, 65537, "step", 0),
]


def digest(slots):
    h = 0xcbf29ce484222325
    for slot in slots:
        for byte in (slot & 0xff, slot >> 8):
            h = (h ^ byte) * 0x100000001b3 & MASK
    return h


def lines():
    yield "# SPDX-License-Identifier: BSD-3-Clause"
    yield "# written by test/oracle/maglev.py: seed members m weights v6 FNV-1a of the slots (16 bits, low byte first)"
    for seed, n, m, weights, v6 in CASES:
        slots = table(make_members(seed, n, weights, v6), m)
        yield f"{seed} {n} {m} {weights} {v6} {digest(slots):016x}"


def main():
    if sys.argv[1:] != ["--check"]:
        print("\n".join(lines()))
        return 0
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "..", "fixtures", "maglev_digests.txt"), encoding="ascii") as f:
        stored = f.read().splitlines()
    if stored != list(lines()):
        print("test/fixtures/maglev_digests.txt is not what test/oracle/maglev.py writes", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
