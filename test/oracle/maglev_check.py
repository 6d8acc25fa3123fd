#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Compares lib/balance with the oracle, slot by slot, over random cases.

    maglev_check.py PROGRAM [CASES [SEED]]    PROGRAM: the built test/oracle/maglev_table
"""
import ipaddress
import random
import subprocess
import sys

import maglev

PRIMES = [251, 257, 307, 509, 1009, 2003, 4001]


def make_case(rng, large):
    m = 65537 if large else rng.choice(PRIMES)
    n = rng.choice([0, 1, 2, 3, 5, 10, 40, 2 * m // 3 if m < 600 else 100, m + 20 if m < 600 else 7])
    kind = rng.choice(["equal", "small", "any", "mostly zero", "zero", "one heavy"])
    members, seen = [], set()
    while len(members) < n:
        if rng.random() < 0.5:
            raw = bytes(10) + b"\xff\xff" + rng.randbytes(4)
        else:
            raw = b"\x20\x01\x0d\xb8" + rng.randbytes(12)
        port = rng.choice([80, 443, rng.randrange(65536)])
        if (raw, port) in seen:
            continue
        seen.add((raw, port))
        weight = {"equal": 100, "small": rng.randrange(4), "any": rng.randrange(65536),
                  "mostly zero": rng.choice([0, 0, 0, 9]), "zero": 0,
                  "one heavy": rng.randrange(1, 3) if members else 40}[kind]
        members.append((raw, port, weight))
    return members, m


def text(raw):
    if raw[:12] == bytes(10) + b"\xff\xff":
        return str(ipaddress.IPv4Address(raw[12:]))
    return str(ipaddress.IPv6Address(raw))


def main():
    program = sys.argv[1]
    n_cases = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 20160316
    rng = random.Random(seed)
    cases = [make_case(rng, i < 2) for i in range(n_cases)]
    sent = []
    for i, (members, m) in enumerate(cases):
        sent.append(f"{len(members)} {m} {i % 2}")
        sent += [f"{text(raw)} {port} {weight}" for raw, port, weight in members]
    got = subprocess.run([program], input="\n".join(sent) + "\n", capture_output=True, text=True, check=True)
    answers = got.stdout.splitlines()
    failed = 0 if len(answers) == n_cases else 1
    for i, ((members, m), answer) in enumerate(zip(cases, answers)):
        if [int(word) for word in answer.split()] != maglev.table(members, m):
            print(f"case {i}: {len(members)} members, m {m}: tables differ", file=sys.stderr)
            failed += 1
    print(f"maglev: seed {seed}, {n_cases} tables, {failed} wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
