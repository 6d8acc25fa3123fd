# SPDX-License-Identifier: BSD-3-Clause
"""A load balancer and its neighbours in network namespaces: the demo and every functional test use this.

    client 198.51.100.10 ── p0 [lb: sluiced] p1 ── bridge (fabric) ── b1 .. bn 192.0.2.11 ..
           2001:db8:1::10                                              2001:db8:2::11 ..
    twin p0 198.51.100.1, 2001:db8:1::1     twin p1 192.0.2.2, 2001:db8:2::2
    VIPs 203.0.113.10 .., 2001:db8:f::10 ..  SNAT 192.0.2.1, 2001:db8:2::1

Everything has the prefix of the rig in its name; down() removes all of it and ends only what up() started.
"""
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"
VIP4, VIP6 = "203.0.113.10", "2001:db8:f::10"
SNAT4, SNAT6 = "192.0.2.1", "2001:db8:2::1"


class RigError(Exception):
    pass


def run(*args, check=True, text_in=None, timeout=30):
    out = subprocess.run(args, input=text_in, capture_output=True, text=True, timeout=timeout)
    if check and out.returncode != 0:
        raise RigError(f"{' '.join(args)}: {out.stderr.strip() or out.stdout.strip()}")
    return out


def wait_for(what, fn, timeout_s=10.0, step_s=0.05):
    """Waits for an event, never for a time: fn() until it gives something true."""
    end = time.monotonic() + timeout_s
    last = None
    while time.monotonic() < end:
        try:
            value = fn()
            if value:
                return value
        except (OSError, RigError, http.client.HTTPException, ValueError, KeyError) as e:
            last = e
        time.sleep(step_s)
    raise RigError(f"timeout after {timeout_s} s waiting for {what}" + (f": {last}" if last else ""))


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=5):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Rig:
    def __init__(self, prefix="sl", n_backends=3, n_spare=0, port="af_packet", queues=1, mtu=1500,
                 build="build", idle="adaptive", home=None):
        self.prefix, self.n_backends, self.n_spare = prefix, n_backends, n_spare
        self.port, self.queues, self.mtu, self.idle = port, queues, mtu, idle
        self.build = os.environ.get("SLUICE_BUILD", os.path.join(TOP, build))
        self.children = []      # (Popen, what)
        self.daemon = None
        self.dir = home

    # ------------------------------------------------------------ names
    def ns(self, name):
        return f"{self.prefix}-{name}"

    def backend_names(self):
        return [f"b{i}" for i in range(1, self.n_backends + self.n_spare + 1)]

    @staticmethod
    def backend_address(i, family=4):
        return f"192.0.2.{10 + i}" if family == 4 else f"2001:db8:2::{10 + i}"

    def program(self, name):
        where = {"sluiced": "sluiced", "sluicectl": "sluicectl/sluicectl", "sluice-replay": "replay/sluice-replay"}
        return os.path.join(self.build, "app", where[name])

    @property
    def socket(self):
        return os.path.join(self.dir, "sluice.sock")

    # ------------------------------------------------------------ namespaces
    def up(self):
        self.dir = self.dir or tempfile.mkdtemp(prefix=f"{self.prefix}-")
        os.makedirs(self.dir, exist_ok=True)
        for name in ["client", "lb", "fabric"] + self.backend_names():
            run("ip", "netns", "add", self.ns(name))
            sysctls = ["net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0",
                       "net.ipv6.conf.all.accept_ra=0", "net.ipv6.conf.default.accept_ra=0",
                       "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
                       "net.ipv4.tcp_tw_reuse=1", "net.ipv4.ip_local_port_range=10000 65000"]
            run("ip", "netns", "exec", self.ns(name), "sysctl", "-qw", *sysctls)
            run("ip", "-n", self.ns(name), "link", "set", "lo", "up")
        self._veth("lb", "v0", "client", "eth0")
        self._veth("lb", "v1", "fabric", "up0")
        self._fabric()
        self._lb()
        self._client()
        for i, name in enumerate(self.backend_names(), 1):
            self._backend(i, name)
        return self

    def _veth(self, ns_a, a, ns_b, b):
        q = ["numrxqueues", str(self.queues), "numtxqueues", str(self.queues)]
        run("ip", "-n", self.ns(ns_a), "link", "add", a, *q, "type", "veth", "peer", "name", b, "netns",
            self.ns(ns_b), *q)
        for ns, dev in ((ns_a, a), (ns_b, b)):
            run("ip", "-n", self.ns(ns), "link", "set", dev, "mtu", str(self.mtu))
        # a kernel end must finish its checksums before a virtual port sees the frame
        run("ip", "netns", "exec", self.ns(ns_b), "ethtool", "-K", b, "tx", "off", check=False)

    def _batch(self, ns, *lines):
        run("ip", "-n", self.ns(ns), "-batch", "-", text_in="\n".join(lines) + "\n")

    def _fabric(self):
        run("ip", "netns", "exec", self.ns("fabric"), "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0",
            check=False)
        self._batch("fabric", "link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
                    "link set up0 master br0", "link set up0 up", "link set br0 up")

    def _client(self):
        self._batch("client", "link set eth0 up", "addr add 198.51.100.10/24 dev eth0",
                    "addr add 2001:db8:1::10/64 dev eth0 nodad", "route add default via 198.51.100.1",
                    "route add ::/0 via 2001:db8:1::1")

    def _backend(self, i, name):
        run("ip", "-n", self.ns("fabric"), "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns",
            self.ns(name))
        run("ip", "netns", "exec", self.ns(name), "ethtool", "-K", "eth0", "tx", "off")
        self._batch("fabric", f"link set {name} master br0 mtu {self.mtu}", f"link set {name} up")
        self._batch(name, f"link set eth0 mtu {self.mtu}", "link set eth0 up",
                    f"addr add {self.backend_address(i)}/24 dev eth0",
                    f"addr add {self.backend_address(i, 6)}/64 dev eth0 nodad",
                    "route add default via 192.0.2.2", "route add ::/0 via 2001:db8:2::2")

    def _lb(self):
        """The kernel must not see the frames of our virtual ports a second time; the twins carry node addresses."""
        rules = "table netdev sluice {\n" + "".join(
            f' chain {d} {{ type filter hook ingress device "{d}" priority -500; policy drop; }}\n'
            for d in ("v0", "v1")) + "}\n"
        run("ip", "netns", "exec", self.ns("lb"), "sysctl", "-qw", "net.ipv6.conf.v0.disable_ipv6=1",
            "net.ipv6.conf.v1.disable_ipv6=1")
        if self.port == "af_packet":
            run("ip", "netns", "exec", self.ns("lb"), "nft", "-f", "-", text_in=rules)
        self._batch("lb", "link set v0 up", "link set v1 up", "tuntap add dev p0 mode tap", "tuntap add dev p1 mode tap",
                    "link set p0 up", "link set p1 up",
                    "addr add 198.51.100.1/24 dev p0", "addr add 2001:db8:1::1/64 dev p0 nodad",
                    "addr add 192.0.2.2/24 dev p1", "addr add 2001:db8:2::2/64 dev p1 nodad")

    def down(self):
        self.stop_daemon()
        for child, _ in reversed(self.children):
            self.end(child)
        self.children = []
        for name in ["client", "lb", "fabric"] + self.backend_names():
            run("ip", "netns", "del", self.ns(name), check=False)
        if self.dir:
            shutil.rmtree(self.dir, ignore_errors=True)
            self.dir = None

    # ------------------------------------------------------------ processes
    def spawn(self, ns, *args, what="", **kw):
        # never our own stdout: a child that lives on would keep a caller's pipe open
        kw.setdefault("stdin", subprocess.DEVNULL)
        kw.setdefault("stdout", subprocess.DEVNULL)
        with open(os.path.join(self.dir, "children.log"), "ab") as log:
            kw.setdefault("stderr", log)
            child = subprocess.Popen(["ip", "netns", "exec", self.ns(ns), *args], start_new_session=True, **kw)
        self.children.append((child, what or args[0]))
        return child

    @staticmethod
    def end(child, sig=signal.SIGTERM, timeout_s=5):
        """Ends a child and what it started (its own process group)."""
        if child.poll() is None:
            try:
                os.killpg(child.pid, sig)
            except ProcessLookupError:
                pass
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def run_in(self, ns, *args, check=True, timeout=60, **kw):
        return run("ip", "netns", "exec", self.ns(ns), *args, check=check, timeout=timeout, **kw)

    def start_backend(self, i, port=8080):
        """A web server that says its name: nginx as it is packaged."""
        name = f"b{i}"
        home = os.path.join(self.dir, name)
        os.makedirs(os.path.join(home, "files"), exist_ok=True)
        os.chmod(self.dir, 0o755)
        conf = os.path.join(home, "nginx.conf")
        with open(conf, "w", encoding="ascii") as f:
            f.write(NGINX.format(home=home, name=name, port=port))
        child = self.spawn(name, "nginx", "-c", conf, "-e", os.path.join(home, "error.log"), "-p", home,
                           what=f"nginx {name}")
        wait_for(f"nginx {name}", lambda: self.run_in(
            name, "curl", "-gs", "-m", "1", f"http://127.0.0.1:{port}/", check=False).returncode == 0)
        return child

    def start_backends(self, n=None):
        return [self.start_backend(i) for i in range(1, (n or self.n_backends) + 1)]

    # ------------------------------------------------------------ the daemon
    def device(self, idx):
        if self.port == "af_xdp":
            return f"net_af_xdp{idx},iface=v{idx},busy_budget=0"
        q = f",qpairs={self.queues}" if self.queues > 1 else ""
        return f"net_af_packet{idx},iface=v{idx},framecnt=1024,qdisc_bypass=1{q}"

    def cores(self):
        n = os.cpu_count() or 1
        if self.queues == 1:
            return "1" if n > 1 else "0"
        return ",".join(str((1 + k) % n) for k in range(self.queues)) if n >= self.queues else "auto"

    def config_text(self, extra=""):
        ports = ", ".join(f'{{ name = "p{i}"; device = "{self.device(i)}"; mtu = {self.mtu}; twin = "p{i}"; }}'
                          for i in (0, 1))
        return CONFIG.format(ports=ports, dir=self.dir, cores=self.cores(), idle=self.idle, snat4=SNAT4,
                             snat6=SNAT6) + extra

    def services_path(self):
        return os.path.join(self.dir, "services.json")

    def write_services(self, items):
        path = self.services_path()
        with open(path + ".new", "w", encoding="ascii") as f:
            json.dump({"apiVersion": "v1", "kind": "List", "items": items}, f, indent=1)
        os.rename(path + ".new", path)

    def start_daemon(self, config=None, wait=True, args=()):
        path = os.path.join(self.dir, "sluice.conf")
        with open(path, "w", encoding="ascii") as f:
            f.write(config or self.config_text())
        with open(os.path.join(self.dir, "sluiced.log"), "ab") as log:
            self.daemon = subprocess.Popen(
                ["ip", "netns", "exec", self.ns("lb"), self.program("sluiced"), "--config", path, *args],
                start_new_session=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        if wait:
            self.wait_ready()
        return self.daemon

    def wait_ready(self, timeout_s=20):
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if self.daemon and self.daemon.poll() is not None:
                raise RigError(f"sluiced ended with {self.daemon.returncode}:\n{self.log_tail()}")
            try:
                if self.get("/readyz", raw=True)[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.02)
        raise RigError(f"sluiced is not ready after {timeout_s} s:\n{self.log_tail()}")

    def stop_daemon(self, sig=signal.SIGTERM):
        if self.daemon is None:
            return None
        if self.daemon.poll() is None:
            self.daemon.send_signal(sig)
        try:
            self.daemon.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.daemon.pid, signal.SIGKILL)
            self.daemon.wait()
        code = self.daemon.returncode
        self.daemon = None
        return code

    def log_tail(self, n=30):
        try:
            with open(os.path.join(self.dir, "sluiced.log"), encoding="utf-8", errors="replace") as f:
                return "".join(f.readlines()[-n:])
        except OSError:
            return "(no log)"

    # ------------------------------------------------------------ REST
    def request(self, method, path, body=None, headers=None, timeout=5):
        c = UnixConnection(self.socket, timeout)
        try:
            h = dict(headers or {})
            payload = None
            if body is not None:
                payload = body if isinstance(body, (bytes, str)) else json.dumps(body)
                h.setdefault("Content-Type", "application/json")
            c.request(method, path, payload, h)
            r = c.getresponse()
            text = r.read().decode("utf-8", "replace")
            return r.status, text, dict((k.lower(), v) for k, v in r.getheaders())
        finally:
            c.close()

    def get(self, path, raw=False):
        status, text, headers = self.request("GET", path)
        if raw:
            return status, text, headers
        if status != 200:
            raise RigError(f"GET {path}: {status} {text[:300]}")
        return json.loads(text)

    def workers(self):
        return self.get("/api/v1/workers")["items"]

    def counter(self, name):
        return sum(w["counters"].get(name, 0) for w in self.workers())

    def drops(self):
        total = {}
        for w in self.workers():
            for reason, n in w["drops"].items():
                if n:
                    total[reason] = total.get(reason, 0) + n
        return total

    def assert_accounted(self):
        """The accounting identity of every worker, at rest."""
        def balanced():
            first = [(w["imbalance"], w["counters"]["received"]) for w in self.workers()]
            time.sleep(0.05)
            second = [(w["imbalance"], w["counters"]["received"]) for w in self.workers()]
            return first == second and all(i == 0 for i, _ in second)
        wait_for("the accounting identity", balanced, 10)

    def backend_states(self, service="default/web"):
        items = self.get(f"/api/v1/backends?service={service}")["items"]
        return {b["address"]: b["state"] for b in items}

    def generation(self):
        return self.get("/api/v1/services")["metadata"]["generation"]

    def ctl(self, *args, check=True):
        return self.run_in("lb", self.program("sluicectl"), "--server", self.socket, *args, check=check)

    # ------------------------------------------------------------ load
    def load_start(self, *args):
        return self.spawn("client", PYTHON, os.path.join(HERE, "load.py"), *args, what="load",
                          stdout=subprocess.PIPE, text=True)

    def load_finish(self, child, timeout_s=120):
        out, _ = child.communicate(timeout=timeout_s)
        self.children = [(c, w) for c, w in self.children if c is not child]
        if child.returncode != 0:
            raise RigError(f"load ended with {child.returncode}: {out[-500:]}")
        return json.loads(out.strip().split("\n")[-1])

    def load_stop(self, child, timeout_s=30):
        """Ends `rate` or `hold` before their time; everything under way is finished and counted."""
        child.send_signal(signal.SIGTERM)
        return self.load_finish(child, timeout_s)

    def load(self, *args, timeout_s=120):
        return self.load_finish(self.load_start(*args), timeout_s)


def service(name, vips, listeners, namespace="default", annotations=None, **spec):
    """A Service of type LoadBalancer. listeners: [(name, protocol, port)]."""
    return {"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "annotations": dict(annotations or {})},
            "spec": {"type": "LoadBalancer", "ports": [{"name": n, "protocol": p, "port": port} for n, p, port in
                                                       listeners], **spec},
            "status": {"loadBalancer": {"ingress": [{"ip": v} for v in vips]}}}


def slice_of(name, addresses, ports, namespace="default", conditions=None, suffix="1"):
    """An EndpointSlice. ports: [(name, protocol, port)]; one family."""
    family = "IPv6" if ":" in addresses[0] else "IPv4"
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-{family.lower()}-{suffix}", "namespace": namespace,
                         "labels": {"kubernetes.io/service-name": name}},
            "addressType": family,
            "endpoints": [{"addresses": [a], "conditions": dict(conditions or {"ready": True})} for a in addresses],
            "ports": [{"name": n, "protocol": p, "port": port} for n, p, port in ports]}


def web_items(n, families=(4, 6), annotations=None, name="web", vips=(VIP4, VIP6), port=80, target=8080):
    """A dual-stack web service over the first n backends."""
    wanted = [v for v in vips if (6 if ":" in v else 4) in families]
    items = [service(name, wanted, [("http", "TCP", port)], annotations=annotations)]
    for family in families:
        items.append(slice_of(name, [Rig.backend_address(i, family) for i in range(1, n + 1)],
                              [("http", "TCP", target)]))
    return items


CONFIG = """
ports = ( {ports} );
workers = {{ cores = "{cores}"; control_core = "0"; idle = "{idle}"; }};
memory = {{ size = "256M"; hugepages = "off"; }};
flows = {{ capacity = 100000; file = "none"; }};
snat = {{ addresses = [ "{snat4}", "{snat6}" ]; ports = "1024-65535"; }};
services = {{ file = "{dir}/services.json"; mode = "fullnat"; }};
admin = {{ socket = "{dir}/sluice.sock"; }};
state_dir = "{dir}/state";
"""

NGINX = """daemon off; master_process off; worker_processes 1; pid {home}/pid;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3;
  uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5; sendfile on; keepalive_requests 1000000;
  server {{
    listen {port} backlog=4096; listen [::]:{port} backlog=4096 ipv6only=on;
    add_header X-Backend {name};
    location / {{ default_type text/plain; return 200 "{name}\\n"; }}
    location /files/ {{ alias {home}/files/; }}
  }}
}}
"""


def have_namespaces():
    """None, or the reason why namespaces cannot be made here."""
    if os.geteuid() != 0:
        return "needs root"
    probe = subprocess.run(["ip", "netns", "add", "sl-probe"], capture_output=True, text=True)
    if probe.returncode != 0:
        return f"no network namespaces: {probe.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", "sl-probe"], check=False)
    if not os.path.exists("/dev/net/tun"):
        return "no /dev/net/tun"
    return None


if __name__ == "__main__":
    print(__doc__)
    sys.exit(0)
