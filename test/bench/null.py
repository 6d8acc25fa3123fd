# SPDX-License-Identifier: BSD-3-Clause
"""One worker over a null port beside testpmd's csum engine over the same driver (G10): packets a second of processor time.

null.py SLUICE_BENCH [--json] [--rounds N]   sluice-bench and testpmd take turns; medians.
testpmd sees empty frames, whose headers it parses and whose checksums it leaves; ours are TCP and are rewritten.
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

GATE = 0.55
SECONDS = 1.0


def sluice_ns(program):
    out = subprocess.run([program, "null", "--json", "--rounds", "9"], capture_output=True, text=True, timeout=120,
                         check=False)
    if out.returncode != 0:
        raise RuntimeError(out.stderr[-800:])
    return json.loads(out.stdout.splitlines()[0])


def worker_ns(pid):
    """Processor time of the busiest thread: the one that forwards."""
    times = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
            times.append((int(f.read().split()[0]), task))
    return max(times)[0]


class Testpmd:
    def __init__(self, cpus):
        self.child = subprocess.Popen(
            ["stdbuf", "-oL", "dpdk-testpmd", "--lcores", f"0@{cpus[0]},1@{cpus[-1]}", "--no-pci", "--no-huge", "-m", "128", "--no-telemetry",
             "--no-shconf", "--vdev=net_null0", "--", "-i", "--auto-start", "--forward-mode=csum",
             "--total-num-mbufs=8192"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.received()

    def received(self):
        self.child.stdin.write("show port stats 0\n")
        self.child.stdin.flush()
        seen = []
        for line in self.child.stdout:
            seen.append(line)
            found = re.search(r"RX-packets:\s*(\d+)", line)
            if found:
                return int(found.group(1)), worker_ns(self.child.pid)
        raise RuntimeError("testpmd: " + "".join(seen[-8:]))

    def ns(self):
        n, cpu = self.received()
        time.sleep(SECONDS)
        n_after, cpu_after = self.received()
        return (cpu_after - cpu) / (n_after - n)

    def end(self):
        try:
            self.child.communicate("quit\n", timeout=20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    ours, theirs = [], []
    line = {}
    has_peer = shutil.which("dpdk-testpmd") is not None
    for _ in range(args.rounds):
        line = sluice_ns(args.program)
        ours.append(line["value"])
        if has_peer:
            peer = Testpmd(cpus)
            try:
                time.sleep(0.3)
                theirs.append(peer.ns())
            finally:
                peer.end()
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
