# SPDX-License-Identifier: BSD-3-Clause
"""TCP through the VIP beside the same two virtual ports forwarded by testpmd, in one run (goal: at least 80 %).

forward.py [--json] [--rounds N] [--seconds S] [af_packet|af_xdp ...]
client - v0 [sluiced or testpmd] v1 - bridge - one backend with iperf3. Both poll, worker on the second CPU; rounds
alternate; medians of Gbit/s as the receiver saw them.
"""
import argparse
import json
import os
import signal
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "functional"))
import rig as rigs  # noqa: E402

GATE = 0.80


def iperf(rig, address, seconds):
    out = rig.run_in("client", "iperf3", "-c", address, "-t", str(seconds), "-J", timeout=seconds + 30, check=False)
    try:
        return json.loads(out.stdout)["end"]["sum_received"]["bits_per_second"] / 1e9
    except (ValueError, KeyError) as e:
        raise rigs.RigError(f"iperf3 to {address}: {out.stdout[-400:]} {out.stderr[-200:]}") from e


def with_sluiced(rig, seconds):
    rig.start_daemon()
    try:
        rig.run_in("client", "ping", "-c", "1", "-W", "2", rigs.VIP4, check=False)
        value = iperf(rig, rigs.VIP4, seconds)
        rig.assert_accounted()
        return value
    finally:
        rig.stop_daemon()


def with_testpmd(rig, seconds):
    log = open(os.path.join(rig.dir, "testpmd.log"), "ab")
    child = subprocess.Popen(
        ["ip", "netns", "exec", rig.ns("lb"), "dpdk-testpmd", "--lcores", "0@0,1@1", "--no-pci", "--no-huge", "-m", "256",
         "--no-telemetry", f"--file-prefix={rig.prefix}", f"--vdev={rig.device(0)}", f"--vdev={rig.device(1)}", "--",
         "-i", "--auto-start", "--forward-mode=io", "--total-num-mbufs=16384"],
        stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
    try:
        rigs.wait_for("testpmd", lambda: rig.run_in("client", "ping", "-c", "1", "-W", "1", "10.9.0.2",
                                                    check=False).returncode == 0, 20)
        return iperf(rig, "10.9.0.2", seconds)
    finally:
        child.stdin.write(b"quit\n")
        child.stdin.close()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        log.close()


def measure(port, rounds, seconds):
    rig = rigs.Rig(prefix="bf", n_backends=1, port=port, idle="poll")
    try:
        rig.up()
        rig.run_in("client", "ip", "addr", "add", "10.9.0.1/24", "dev", "eth0")
        rig.run_in("b1", "ip", "addr", "add", "10.9.0.2/24", "dev", "eth0")
        rig.spawn("b1", "iperf3", "-s", stdout=subprocess.DEVNULL)
        rig.write_services([
            rigs.service("iperf", [rigs.VIP4], [("iperf", "TCP", 5201)],
                         annotations={"sluice-lb.github.io/health-check": "none"}),
            rigs.slice_of("iperf", [rig.backend_address(1)], [("iperf", "TCP", 5201)])])
        ours, theirs = [], []
        for _ in range(rounds):
            theirs.append(with_testpmd(rig, seconds))
            ours.append(with_sluiced(rig, seconds))
        return statistics.median(ours), statistics.median(theirs)
    finally:
        rig.down()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("ports", nargs="*", default=["af_packet", "af_xdp"])
    args = parser.parse_args()
    reason = rigs.have_namespaces()
    if reason:
        print(f"error: cannot run here: {reason}", file=sys.stderr)
        return 1
    met = True
    for port in args.ports:
        ours, theirs = measure(port, args.rounds, args.seconds)
        share = ours / theirs
        met = met and share >= GATE
        line = {"bench": "forward", "goal": "G9", "case": f"{port}/tcp", "value": round(ours, 3), "unit": "Gbit/s",
                "peer": "testpmd io", "peer_value": round(theirs, 3), "multiple": round(share, 3), "gate": GATE,
                "met": share >= GATE, "limit": "veth and kernel stacks of both ends", "limit_value": round(theirs, 3)}
        print(json.dumps(line) if args.json else
              f"forward {port}: {ours:.2f} Gbit/s, testpmd {theirs:.2f} Gbit/s, share {share:.2f} (gate {GATE})")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
