# SPDX-License-Identifier: BSD-3-Clause
"""One worker over a null port beside testpmd's csum engine over the same driver (G10): packets a second of processor time.

null.py SLUICE_BENCH [--json] [--rounds N]   sluice-bench and testpmd take turns; medians.
testpmd sees empty frames, whose headers it parses and whose checksums it leaves; ours are TCP and are rewritten.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import testpmd

GATE = 0.55
SECONDS = 1.0


def sluice_ns(program):
    out = subprocess.run([program, "null", "--json", "--rounds", "9"], capture_output=True, text=True, timeout=120,
                         check=False)
    if out.returncode != 0:
        raise RuntimeError(out.stderr[-800:])
    return json.loads(out.stdout.splitlines()[0])


def testpmd_ns(cpus):
    peer = testpmd.Testpmd("net_null0", "csum", cpus[-1], cpus[0])
    try:
        time.sleep(0.3)
        n, cpu = peer.received()
        time.sleep(SECONDS)
        n_after, cpu_after = peer.received()
        return (cpu_after - cpu) / (n_after - n)
    finally:
        peer.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    ours, theirs = [], []
    line = {}
    has_peer = testpmd.is_there()
    for _ in range(args.rounds):
        line = sluice_ns(args.program)
        ours.append(line["value"])
        if has_peer:
            theirs.append(testpmd_ns(cpus))
    line.update(value=round(statistics.median(ours), 3), gate=GATE)
    if has_peer:
        share = statistics.median(t / o for o, t in zip(ours, theirs))
        line.update(peer="testpmd csum", peer_value=round(statistics.median(theirs), 3), multiple=round(share, 3),
                    met=share >= GATE)
    else:
        print("# not measured: null G10: no dpdk-testpmd", file=sys.stderr)
    print(json.dumps(line, separators=(",", ":")) if args.json else
          f"null      G10  {line['case']}: {line['value']} ns, {line['peer']} {line['peer_value']}, share "
          f"{line['multiple']} (gate {GATE})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
