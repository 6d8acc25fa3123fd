# SPDX-License-Identifier: BSD-3-Clause
"""The demo: the topology of the functional tests, a thousand requests, and what to try next. Called by scripts/demo."""
import argparse
import json
import os
import shutil
import signal
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "test/functional"))
import rig as rigs  # noqa: E402

HOME = "/run/sluice-demo"
STATE = os.path.join(HOME, "demo.json")
REQUESTS, LANES = 1000, 4


def make_rig():
    return rigs.Rig(prefix="demo", n_backends=3, n_spare=1, home=HOME)


def own_pid(pid, started):
    """Is this still the process we started? (start time in ticks, from /proc)"""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rsplit(")", 1)[1].split()[19] == started
    except OSError:
        return False


def start_of(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        return f.read().rsplit(")", 1)[1].split()[19]


def end_pids(entries):
    for sig, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 2.0)):
        left = [e for e in entries if own_pid(*e)]
        for pid, _ in left:
            os.kill(pid, sig)
        end = time.monotonic() + patience
        while time.monotonic() < end and any(own_pid(*e) for e in left):
            time.sleep(0.02)


def down(quiet=False):
    """Ends what an earlier run wrote down, then removes its namespaces and files."""
    there = os.path.isdir(HOME)
    try:
        with open(STATE, encoding="ascii") as f:
            end_pids([tuple(e) for e in json.load(f)["pids"]])
    except (OSError, ValueError, KeyError):
        pass
    rig = make_rig()
    more = [f"b{i}" for i in range(5, 7)] + ["api"]  # of the demo with a cluster
    for name in ["client", "lb", "fabric"] + rig.backend_names() + more:
        if os.path.exists(f"/run/netns/{rig.ns(name)}"):
            there = True
            rigs.run("ip", "netns", "del", rig.ns(name), check=False)
    shutil.rmtree(HOME, ignore_errors=True)
    if not quiet:
        print("demo: removed" if there else "demo: nothing to remove")


class Progress:
    def __init__(self, quiet):
        self.quiet = quiet

    def ok(self, text):
        if not self.quiet:
            print(f"[ok] {text}", flush=True)

    def text(self, text):
        if not self.quiet:
            print(text, flush=True)

    def result(self, result):
        if not self.quiet:
            print_result(result)


def remember(children):
    """What `down` has to end."""
    with open(STATE, "w", encoding="ascii") as f:
        json.dump({"pids": [(c.pid, start_of(c.pid)) for c in children if c.poll() is None]}, f)


def cluster_demo(args):
    import demo_cluster

    def note(lab):
        remember([c for c, _ in lab.rig.children] + list(lab.cluster.children.values()) + ([lab.rig.daemon] if lab.rig.daemon else []))
    down(quiet=True)
    os.makedirs(HOME, mode=0o755, exist_ok=True)
    return demo_cluster.run(args, HOME, Progress(args.json), note, down)


def bring_up(rig, progress):
    os.makedirs(HOME, mode=0o755, exist_ok=True)
    rig.up()
    progress.ok("namespaces: client, lb, 3 web backends, 1 spare (nothing outside them was changed)")
    rig.start_backends(4)
    rig.write_services(rigs.web_items(3))
    begun = time.monotonic()
    rig.start_daemon()
    remember([c for c, _ in rig.children] + [rig.daemon])
    rigs.wait_for("three backends up", lambda: list(rig.backend_states().values()).count("up") >= 3)
    progress.ok(f"sluiced ready in {time.monotonic() - begun:.1f} s: 2 virtual ports, 1 worker, no NIC, no hugepages")
    progress.ok(f"VIP {rigs.VIP4}:80 and [{rigs.VIP6}]:80 -> 3 backends each, Maglev")


def send(rig, n):
    # the first request waits for ARP on both sides: it is part of the demo, and counted like the others
    return rig.load("requests", rigs.VIP4, "80", str(n), str(LANES), timeout_s=300)


def print_result(result):
    share = "  ".join(f"{k} {v}" for k, v in result["backends"].items())
    answered = result["requests"] - result["failed"]
    mark = "ok" if result["failed"] == 0 else "FAILED"
    print(f"[{mark}] {result['requests']} requests: {answered} answered   {share}   "
          f"p50 {result['p50_ms']} ms  p99 {result['p99_ms']} ms")
    for error, n in result["errors"].items():
        print(f"       {n} x {error}")


def print_next(rig):
    ctl = f"{rig.program('sluicectl')} --server {rig.socket}"
    print(f"""
Now try (as root):
  {ctl} status
  {ctl} get backends
  {ctl} explain tcp 198.51.100.10:40000 {rigs.VIP4}:80
  {ctl} drain default/web 192.0.2.12
  ip netns exec demo-client curl -s http://{rigs.VIP4}/ http://[{rigs.VIP6}]/
  {ctl} undrain default/web 192.0.2.12
  {ctl} drops
  {ctl} events
  {TOP}/scripts/demo down""")


def main():
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="run, print, tear down; exit 0 when all was answered")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="how many (default %(default)s)")
    parser.add_argument("--cluster", action="store_true", help="services from a real Kubernetes API (built once, about ten minutes)")
    parser.add_argument("verb", nargs="?", choices=["down"])
    args = parser.parse_args()
    if args.verb == "down":
        down()
        return 0
    if not 1 <= args.requests <= 1000000:
        print(f"error: --requests: {args.requests} not in 1..1000000", file=sys.stderr)
        return 2
    reason = rigs.have_namespaces()
    if reason:
        print(f"error: the demo cannot run here: {reason}", file=sys.stderr)
        return 1
    if args.cluster:
        return cluster_demo(args)
    down(quiet=True)
    rig, code = make_rig(), 1
    try:
        bring_up(rig, Progress(args.json))
        result = send(rig, args.requests)
        code = 0 if result["failed"] == 0 and result["requests"] == args.requests else 1
        if args.json:
            print(json.dumps({k: result[k] for k in ("requests", "failed", "backends", "p50_ms", "p99_ms", "errors")}))
        else:
            print_result(result)
        if not args.once and code == 0:
            if not args.json:
                print_next(rig)
            return code
    except (rigs.RigError, OSError, KeyboardInterrupt) as e:
        print(f"error: {e}", file=sys.stderr)
        print(rig.log_tail() if rig.dir else "", file=sys.stderr)
        code = 1
    finally:
        if args.once or code != 0:
            rig.down()
            down(quiet=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
