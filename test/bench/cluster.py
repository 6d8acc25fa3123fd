#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""From a change in the cluster to packets, beside kube-proxy in nftables mode on the same API and the same servers, in one run.

cluster.py [--json] [--alone] [--changes N] [--peer-changes N] [--services N] [--seconds S] [CASE ...]

    client eth0 ── p0 [lb: sluiced] p1 ──┐
           eth1 ── c0 [kp: kube-proxy] f0┴ fabric ── b1, b2        UDP servers that say their names

change-1-*     one Service at a real API server (test/cluster/go.mod). change-10k-*, cold-10k, memory-10k: 10,000 Services with ten endpoints
               each from the scripted API server, which both watch (kube-proxy over JSON).
change         the Service's one endpoint is exchanged, b1 for b2 and back. Time from before the write to the sending of the first datagram
               that the new server answers; a datagram of a new flow each millisecond, so a figure is up to 1 ms too large. Changes of sluiced
               come 60 to 160 ms apart, those of kube-proxy at least 1.1 s (its own shortest interval is 1 s), after both are at rest:
               sluiced once it has written the status of every Service.
cold           from exec to the first answer through the VIP of the last Service, with nothing on disk.
memory         VmRSS and huge pages, after all of that.
--alone        without kube-proxy, so without its values; flood-10k asked for by itself goes without it anyway. Only what is asked for is measured.
flood-10k      p99 of a change while 10,000 other endpoints change each second, as slices of ten; refused if the end is not as listed.

`multiple` is the share of what is allowed: value over the bound where there is one (`limit_value`), else over the peer's value; the gate is 1.
Probes of sluiced are off (kube-proxy has none); everything else is as in production, status writing included.
"""
import argparse
import json
import os
import queue
import random
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "cluster"))
import build  # noqa: E402
import cluster as clusters  # noqa: E402
import lab as labs  # noqa: E402
import netns  # noqa: E402
import rig as rigs  # noqa: E402
import scale  # noqa: E402
import scripted  # noqa: E402
from store import encode  # noqa: E402

CASES = ["change-1-p50", "change-1-p99", "change-10k-p50", "change-10k-p99", "cold-10k", "memory-10k", "flood-10k"]
BOUNDS = {"change-10k-p50": 10, "change-10k-p99": 50, "cold-10k": 5, "memory-10k": 500}
UNITS = {"cold-10k": "s", "memory-10k": "MB"}
UDP_PORT, SOURCES = 5353, 100
PEER = f"kube-proxy nftables {build.kubernetes_version()}"
NO_PROBE = {"sluice-lb.github.io/health-check": "none"}
PROXY_CONFIG = """apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: node-kp
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clientConnection: {{ kubeconfig: {kubeconfig}, contentType: application/json, acceptContentTypes: application/json, qps: 100, burst: 200 }}
conntrack: {{ maxPerCore: 0, min: 0 }}
"""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Prober:
    """Who answers at the VIP, as seen through one way out of the client's namespace."""

    def __init__(self, rig, vip, sources, per_second):
        self.child = subprocess.Popen(
            ["ip", "netns", "exec", rig.ns("client"), rigs.PYTHON, os.path.join(HERE, "prober.py"), "ask", vip, str(UDP_PORT),
             str(per_second), *sources], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines, self.name, self.sent = queue.Queue(), None, 0.0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            self.lines.put(line.split())

    def wait(self, name=None, timeout_s=60, programs=()):
        """Until that server (or any) answers; when the first datagram that it answered was sent. programs: must live meanwhile."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            try:
                sent, self.name = self.lines.get(timeout=0.5)
                self.sent = float(sent)
                if name in (None, self.name):
                    return self.sent
            except queue.Empty:
                for child in programs:
                    if child.poll() is not None:
                        raise rigs.RigError(f"{child.args[4]} ended with {child.returncode}") from None
        raise rigs.RigError(f"no answer of {name or 'any server'} within {timeout_s} s, last was {self.name}")

    def stop(self):
        self.child.stdin.close()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Field:
    """The namespaces: a rig, kube-proxy's router beside it, an API's namespace."""

    def __init__(self, prefix):
        self.rig = labs.ClusterRig(prefix=prefix, n_backends=2, idle="adaptive")
        self.rig.kubernetes["node_name"] = "edge-1"
        self.kp, self.proxy = self.rig.ns("kp"), None

    def up(self):
        rig = self.rig
        rig.up()
        run, kp = rigs.run, self.kp
        run("ip", "netns", "add", kp)
        run("ip", "netns", "exec", kp, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0")
        run("ip", "-n", kp, "link", "add", "c0", "type", "veth", "peer", "name", "eth1", "netns", rig.ns("client"))
        run("ip", "-n", kp, "link", "add", "f0", "type", "veth", "peer", "name", "kp", "netns", rig.ns("fabric"))
        run("ip", "-n", kp, "-batch", "-", text_in="link set lo up\naddr add 10.7.0.1/24 dev c0\nlink set c0 up\n"
            "addr add 192.0.2.3/24 dev f0\nlink set f0 up\nroute add default via 192.0.2.2\n")
        run("ip", "-n", rig.ns("fabric"), "-batch", "-", text_in="link set kp master br0\nlink set kp up\n")
        lines = ["link set eth1 up"] + [f"addr add 10.7.0.{100 + i}/24 dev eth1" for i in range(SOURCES)]
        lines += [f"addr add 198.51.100.{100 + i}/24 dev eth0" for i in range(SOURCES)]
        run("ip", "-n", rig.ns("client"), "-batch", "-", text_in="\n".join(lines) + "\n")
        for name in ("b1", "b2"):
            rig.spawn(name, rigs.PYTHON, os.path.join(HERE, "prober.py"), "serve", name, str(UDP_PORT))
        return self

    def prober(self, who, vip, per_second=1000):
        client = self.rig.ns("client")
        rigs.run("ip", "-n", client, "route", "del", f"{vip}/32", check=False)
        if who == "kube-proxy":
            rigs.run("ip", "-n", client, "route", "add", f"{vip}/32", "via", "10.7.0.1", "dev", "eth1")
        prefix = "10.7.0" if who == "kube-proxy" else "198.51.100"
        return Prober(self.rig, vip, [f"{prefix}.{100 + i}" for i in range(SOURCES)], per_second)

    def start(self, who):
        if who == "sluiced":
            return self.rig.start_daemon(wait=False)
        path = os.path.join(self.rig.dir, "kube-proxy.yaml")
        clusters.write_aside(path, PROXY_CONFIG.format(kubeconfig=self.proxy_kubeconfig))
        self.proxy = self.rig.spawn("kp", os.path.join(build.programs(say), "kube-proxy"), f"--config={path}")
        return self.proxy

    def stop(self, who):
        if who == "sluiced":
            self.rig.stop_daemon()
        elif self.proxy is not None:
            self.rig.end(self.proxy)
            self.rig.children = [(c, w) for c, w in self.rig.children if c is not self.proxy]
            self.proxy = None
            for family in ("ip", "ip6"):
                rigs.run("ip", "netns", "exec", self.kp, "nft", "delete", "table", family, "kube-proxy", check=False)

    def memory_mb(self, who):
        pid = self.rig.daemon.pid if who == "sluiced" else self.proxy.pid
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            rows = dict(line.split(":", 1) for line in f if ":" in line)
        return sum(int(rows[k].split()[0]) for k in ("VmRSS", "HugetlbPages")) / 1024

    def down(self):
        self.stop("kube-proxy")
        self.rig.down()
        rigs.run("ip", "netns", "del", self.kp, check=False)


def probe_items(load_balancer_class="sluice-lb.github.io/sluice"):
    """The Service whose endpoint is exchanged, and its slice for each server."""
    service = clusters.load_balancer("probe", None, [("dns", "UDP", UDP_PORT, UDP_PORT)], annotations=NO_PROBE, ipFamilies=["IPv4"])
    del service["spec"]["selector"]
    service["spec"]["loadBalancerClass"] = load_balancer_class
    slices = [rigs.slice_of("probe", [labs.ClusterRig.backend_address(i)], [("dns", "UDP", UDP_PORT)]) for i in (1, 2)]
    return service, slices


def measure(prober, write, n, gap):
    """n changes: milliseconds of each, as they came. write(i) makes server i (1 or 2) the only endpoint; gap() is the pause before each."""
    took, rng = [], random.Random(1)
    now = 1 if prober.name == "b1" else 2
    for _ in range(n):
        time.sleep(gap(rng))
        now = 3 - now
        begun = time.monotonic()
        write(now)
        took.append(max(0.0, prober.wait(f"b{now}") - begun) * 1e3)
    return took


def at(values, q):
    return sorted(values)[min(len(values) - 1, int(len(values) * q))]


def ours(rng):
    return rng.uniform(0.06, 0.16)


def theirs(_):
    return 1.1


class OneService:
    """change-1: a real API server."""

    def __init__(self, args):
        self.args, self.field, self.cluster = args, Field("b1k"), clusters.Cluster("b1k", say=say)

    def run(self):
        try:
            self.field.up()
            self.cluster.up()
            self.cluster.attach(self.field.rig.ns("lb"), 1)
            self.cluster.attach(self.field.kp, 2)
            self.cluster.deploy(labs.DEPLOY)
            self.cluster.add_node("node-kp", "192.0.2.3")
            return self.measure_both()
        finally:
            self.field.down()
            self.cluster.down()

    def write(self, i):
        self.cluster.api.put(self.path, self.slices[i - 1])

    def measure_both(self):
        api, rig = self.cluster.api, self.field.rig
        service, self.slices = probe_items()
        api.post("/api/v1/namespaces/default/services", service)
        api.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", self.slices[0])
        self.path = f"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{self.slices[0]['metadata']['name']}"
        rig.kubeconfig = self.cluster.sluice_kubeconfig(rig.dir)
        self.field.proxy_kubeconfig = os.path.join(rig.dir, "proxy.conf")
        clusters.write_aside(self.field.proxy_kubeconfig, clusters.kubeconfig(
            f"https://{clusters.ADDRESS}:{clusters.PORT}", {"token": clusters.ADMIN_TOKEN}, self.cluster.certificates.path("ca.crt")))
        out = {}
        for who, n, gap in (("sluiced", self.args.changes, ours), ("kube-proxy", self.args.peer_changes, theirs)):
            if self.args.alone and who != "sluiced":
                continue
            say(f"change-1: {who}, {n} changes")
            self.field.start(who)
            vip = clusters.wait_for("a VIP", lambda: self.cluster.vips("probe"))[0]
            prober = self.field.prober(who, vip)
            try:
                prober.wait()
                out[who] = measure(prober, self.write, n, gap)
            finally:
                prober.stop()
                self.field.stop(who)
        return {f"change-1-p{q}": tuple(at(out[who], q / 100) if who in out else None for who in ("sluiced", "kube-proxy")) for q in (50, 99)}


class ManyServices:
    """change-10k, cold-10k, memory-10k, flood-10k: the scripted API server."""

    def __init__(self, args):
        self.args, self.field = args, Field("b10k")
        self.api = self.field.rig.ns("api")
        self.server = scripted.Scripted(host=clusters.ADDRESS, port=8080, listener=netns.listener_in(self.api))
        self.server.compress = False  # as the real server does
        self.vip = "10.63.0.1"

    def run(self):
        try:
            self.field.up()
            clusters.make_network(self.api)
            clusters.attach(self.api, self.field.rig.ns("lb"), 1)
            clusters.attach(self.api, self.field.kp, 2)
            self.fill()
            return self.measure_both()
        finally:
            self.field.down()
            self.server.stop()
            rigs.run("ip", "netns", "del", self.api, check=False)

    def fill(self):
        begun, store = time.monotonic(), self.server.store
        store.put("namespaces", {"metadata": {"name": "default"}})
        store.put("namespaces", {"metadata": {"name": scale.NAMESPACE}})
        store.put("nodes", {"metadata": {"name": "node-kp"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.3"}]}})
        scale.load(store, self.args.services - 1, 10, NO_PROBE)
        service, slices = probe_items()
        service["spec"].update(clusterIP="10.95.0.1", clusterIPs=["10.95.0.1"])
        service["status"] = {"loadBalancer": {"ingress": [{"ip": self.vip, "ipMode": "VIP"}]}}
        store.put("services", service)
        for one in slices:
            one["metadata"].update(uid="00000000-0000-4000-9000-999999999999", creationTimestamp="2026-01-01T00:00:00Z")
        self.slices = [(("default", s["metadata"]["name"]), *encode(s), s["metadata"]["labels"]) for s in slices]
        store.put_text("endpointslices", *self.slices[0])
        self.server.start()
        rig, path = self.field.rig, os.path.join(self.field.rig.dir, "kubeconfig")
        clusters.write_aside(path, clusters.kubeconfig(f"http://{clusters.ADDRESS}:8080", {}))
        rig.kubeconfig = self.field.proxy_kubeconfig = path
        rig.pools = '( { name = "public"; addresses = [ "10.63.0.0/16", "10.64.0.0/12" ]; } )'
        say(f"{self.args.services} services with ten endpoints each in {time.monotonic() - begun:.1f} s")

    def write(self, i):
        self.server.call(self.server.store.put_text, "endpointslices", *self.slices[i - 1])

    def measure_both(self):
        out = {case: [None, None] for case in CASES if not case.startswith("change-1-")}
        wanted, alone = set(self.args.wanted), self.args.alone or set(self.args.wanted) <= set(CASES[:2]) | {"flood-10k"}
        for k, (who, n, gap) in enumerate((("sluiced", self.args.changes, ours), ("kube-proxy", max(3, self.args.peer_changes // 5), theirs))):
            if k and alone:
                continue
            prober = self.field.prober(who, self.vip, 1000 if k == 0 else 200)
            try:
                say(f"cold-10k: {who}")
                begun = time.monotonic()
                child = self.field.start(who)
                out["cold-10k"][k] = prober.wait(timeout_s=300, programs=[child]) - begun
                say(f"  {out['cold-10k'][k]:.2f} s; change-10k: {n} changes")
                self.settle()
                if wanted & {"change-10k-p50", "change-10k-p99"}:
                    took = measure(prober, self.write, n, gap)
                    out["change-10k-p50"][k], out["change-10k-p99"][k] = at(took, 0.5), at(took, 0.99)
                if k == 0 and "flood-10k" in wanted:
                    out["flood-10k"][k] = self.flood(prober)
                out["memory-10k"][k] = self.field.memory_mb(who)
            finally:
                prober.stop()
                self.field.stop(who)
        return {case: tuple(values) for case, values in out.items()}

    def settle(self, limit_s=120):
        """Until nobody writes status any more: the leader says of every Service that it is programmed, once."""
        end, n = time.monotonic() + limit_s, -1
        while time.monotonic() < end:
            seen = len(self.server.requests_of("patch", "services"))
            if seen == n:
                return
            n = seen
            time.sleep(1)

    def flood(self, prober):
        """p99 in ms of changes under 10,000 endpoint updates a second; afterwards the table must be as listed."""
        flood = scale.Flood(self.server, min(1000, self.args.services - 1))
        say(f"flood-10k: 10,000 endpoint updates a second for {self.args.seconds} s")
        result = {}
        thread = threading.Thread(target=lambda: result.update(flood.run(10000, self.args.seconds)))
        thread.start()
        took = measure(prober, self.write, int(self.args.seconds * 4), lambda rng: rng.uniform(0.1, 0.2))
        thread.join()
        say(f"  {result}; p50 {at(took, 0.5):.1f} ms, p99 {at(took, 0.99):.1f} ms")
        for i in range(4):  # does it fall behind?
            part = took[len(took) * i // 4:len(took) * (i + 1) // 4]
            say(f"  quarter {i + 1}: p50 {at(part, 0.5):.1f} ms, p99 {at(part, 0.99):.1f} ms, {len(part)} changes")
        self.check_exact()
        return at(took, 0.99)

    def check_exact(self):
        """Every flooded service has in REST the ready endpoints that the API lists."""
        listed = {key: entry.json() for key, entry in self.server.call(lambda: dict(self.server.store.objects["endpointslices"])).items()}
        for i in range(0, min(1000, self.args.services - 1), 37):
            ready = sorted(e["addresses"][0] for e in listed[scale.key_of(i)]["endpoints"] if e["conditions"]["ready"])
            rigs.wait_for(f"service {i} as listed", lambda n=scale.name_of(i), r=ready: sorted(
                b["address"] for b in self.field.rig.get(f"/api/v1/backends?service={scale.NAMESPACE}/{n}")["items"]
                if b["state"] == "up") == r, 10)


def line_of(case, value, peer):
    bound = BOUNDS.get(case)
    allowed = bound if bound is not None else peer
    multiple = None if not allowed else round(value / allowed, 4)
    return {"bench": "cluster", "goal": None, "case": case, "value": round(value, 3), "unit": UNITS.get(case, "ms"), "peer": PEER,
            "peer_value": None if peer is None else round(peer, 3), "multiple": multiple, "gate": 1.0,
            "met": None if multiple is None else multiple <= 1.0, "limit": None if bound is None else "bound for this case",
            "limit_value": bound}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--peer-changes", type=int, default=30)
    parser.add_argument("--services", type=int, default=10000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    args = parser.parse_args()
    args.wanted = wanted = args.cases or CASES
    reason = rigs.have_namespaces()
    unknown = [c for c in wanted if c not in CASES]
    if reason or unknown:
        say(f"error: no case {' '.join(unknown)}; allowed: {' '.join(CASES)}" if unknown else f"error: cannot run here: {reason}")
        return 2 if unknown else 1
    met = True
    try:
        for part, mine in ((OneService, CASES[:2]), (ManyServices, CASES[2:])):
            if not set(mine) & set(wanted):
                continue
            for case, (value, peer) in part(args).run().items():
                if case not in wanted or value is None:
                    continue
                line = line_of(case, value, peer)
                met = met and line["met"] is not False
                print(json.dumps(line) if args.json else
                      f"{case}: {line['value']} {line['unit']}, {PEER}: {line['peer_value']}, allowed {line['limit_value']}", flush=True)
    except (OSError, rigs.RigError, clusters.ClusterError, build.NoCluster, RuntimeError) as e:
        say(f"error: {e}")
        return 1
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
