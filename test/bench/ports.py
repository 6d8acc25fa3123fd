# SPDX-License-Identifier: BSD-3-Clause
"""One worker over virtual ports beside testpmd 5tswap over the same ports (G9): ns per packet of turns with packets.

ports.py SLUICE_BENCH [--json] [--rounds N] [memif|vhost|af_packet|af_xdp ...]
far end: testpmd flowgen on the first processor [memif, virtio-user, or the other end of a veth pair] - port - worker, or
testpmd, on the last one. They take turns; medians. af_packet and af_xdp need root (a namespace of their own).
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import testpmd

GATE = 0.80
KINDS = ["memif", "vhost", "af_packet", "af_xdp"]


class Place:
    """Where the two ends of a port meet."""

    def __init__(self, kind):
        self.kind = kind
        self.dir = tempfile.mkdtemp(prefix="sluice-ports-")
        self.before, self.ns = [], None
        self.eal = ["--single-file-segments"] if kind == "vhost" else []
        if kind.startswith("af_"):
            self.ns = f"sbp-{os.getpid()}"
            self.before = ["ip", "netns", "exec", self.ns]
            self.ip("netns", "add", self.ns)
            self.ip("-n", self.ns, "link", "add", "pa", "type", "veth", "peer", "name", "pb")
            for end in ("pa", "pb"):
                self.ip("-n", self.ns, "link", "set", end, "up")

    @staticmethod
    def ip(*args):
        subprocess.run(["ip", *args], check=True, capture_output=True)

    def near(self):
        sock = os.path.join(self.dir, "sock")
        return {"memif": f"net_memif0,role=server,socket={sock},socket-abstract=no,id=0",
                "vhost": f"net_vhost0,iface={sock},queues=1",
                "af_packet": "net_af_packet0,iface=pa",
                "af_xdp": "net_af_xdp0,iface=pa,busy_budget=0"}[self.kind]

    def far(self):
        sock = os.path.join(self.dir, "sock")
        return {"memif": f"net_memif0,role=client,socket={sock},socket-abstract=no,id=0",
                "vhost": f"net_virtio_user0,path={sock},queues=1,queue_size=1024",
                "af_packet": "net_af_packet0,iface=pb",
                "af_xdp": "net_af_packet0,iface=pb"}[self.kind]

    def clear(self):
        """Takes away the socket that the last near end left: memif does not bind to one that is there."""
        sock = os.path.join(self.dir, "sock")
        if os.path.exists(sock):
            os.unlink(sock)

    def wait_near(self):
        """Until the near end listens."""
        end = time.monotonic() + 20
        while self.kind in ("memif", "vhost") and not os.path.exists(os.path.join(self.dir, "sock")):
            if time.monotonic() > end:
                raise RuntimeError(f"{self.kind}: no socket")
            time.sleep(0.05)
        time.sleep(0.3)

    def close(self):
        if self.ns:
            self.ip("netns", "del", self.ns)
        shutil.rmtree(self.dir)


def feed(place, cpus):
    return testpmd.Testpmd(place.far(), "flowgen", cpus[0], cpus[0], place.before, place.eal)


def sluice(place, program, cpus):
    place.clear()
    child = subprocess.Popen([*place.before, program, "ports", "--json", "--rounds", "9", "--device", place.near()],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    far = None
    try:
        place.wait_near()
        far = feed(place, cpus)
        out, errors = child.communicate(timeout=60)
        if child.returncode != 0:
            raise RuntimeError(errors[-800:])
        return json.loads(out.splitlines()[0])
    finally:
        if far:
            far.end()
        if child.poll() is None:
            child.kill()
            child.wait()


def peer_ns(place, cpus):
    place.clear()
    near = testpmd.Testpmd(place.near(), "5tswap", cpus[-1], cpus[0], place.before)
    far = None
    try:
        place.wait_near()
        far = feed(place, cpus)
        end = time.monotonic() + 20
        while near.received()[0] == 0:
            if time.monotonic() > end:
                raise RuntimeError(f"{place.kind}: nothing arrives at testpmd")
            time.sleep(0.2)
        near.clear()
        time.sleep(1)
        return near.busy_ns()
    finally:
        if far:
            far.end()
        near.end()


def measure(kind, args, cpus):
    ours, theirs = [], []
    line = {}
    place = Place(kind)
    try:
        for _ in range(args.rounds):
            theirs.append(peer_ns(place, cpus))
            line = sluice(place, args.program, cpus)
            ours.append(line["value"])
    finally:
        place.close()
    share = statistics.median(t / o for o, t in zip(ours, theirs))
    line.update(case=f"{kind}/fullnat4/1K", value=round(statistics.median(ours), 3), peer="testpmd 5tswap",
                peer_value=round(statistics.median(theirs), 3), multiple=round(share, 3), gate=GATE, met=share >= GATE)
    return line


def skipped(kind, reason):
    print(f"# not measured: ports G9 {kind}: {reason}", file=sys.stderr)
    return dict.fromkeys(["bench", "goal", "case", "value", "unit", "peer", "peer_value", "multiple", "gate", "met", "limit",
                          "limit_value"]) | {"bench": "ports", "goal": "G9", "case": f"{kind}/fullnat4/1K", "unit": "-"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("kinds", nargs="*", default=KINDS)
    args = parser.parse_intermixed_args()
    cpus = sorted(os.sched_getaffinity(0))
    for kind in args.kinds:
        if not testpmd.is_there():
            line = skipped(kind, "no dpdk-testpmd")
        elif len(cpus) < 2:
            line = skipped(kind, "needs two processors")
        elif kind.startswith("af_") and os.geteuid() != 0:
            line = skipped(kind, "needs root")
        else:
            try:
                line = measure(kind, args, cpus)
            except (RuntimeError, subprocess.SubprocessError) as e:
                line = skipped(kind, e)
        print(json.dumps(line, separators=(",", ":")) if args.json else
              f"ports     G9   {line['case']}: {line['value']} ns, {line['peer']} {line['peer_value']}, share "
              f"{line['multiple']} (gate {GATE})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
