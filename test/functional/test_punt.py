# SPDX-License-Identifier: BSD-3-Clause
"""The slow path alone (punt-driver: app/punt between fakes): twins, own addresses, frames, routes, neighbours.

    b: eth0, eth1 ── veth ── v0, v1 [lb: punt-driver] twins p0, p1
       10.9.0.2 2001:db8:9::2 on eth0, 10.8.0.2 on eth1
"""
import os
import queue
import re
import signal
import subprocess
import threading
import time

import pytest
import rig as rigs

VIP4, VIP6, SNAT4 = "203.0.113.10", "2001:db8:f::10", "192.0.2.1"
MAC = "02:00:00:00:0a:0%d"


class Slow:
    """Namespaces, and one driver in them."""

    def __init__(self):
        self.prefix = f"pt{os.getpid() % 10000}"
        self.driver, self.lines, self.seen = None, queue.Queue(), []

    def ns(self, name):
        return f"{self.prefix}-{name}"

    def ip(self, name, *lines):
        rigs.run("ip", "-n", self.ns(name), "-force", "-batch", "-", text_in="\n".join(lines) + "\n", check=False)

    def run_in(self, name, *args, check=True):
        return rigs.run("ip", "netns", "exec", self.ns(name), *args, check=check)

    def up(self):
        for name in ("lb", "b"):
            rigs.run("ip", "netns", "add", self.ns(name))
            self.run_in(name, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0",
                        "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
        guard = "table netdev sluice {\n"
        for i in (0, 1):
            rigs.run("ip", "-n", self.ns("lb"), "link", "add", f"v{i}", "type", "veth", "peer", "name", f"eth{i}",
                     "netns", self.ns("b"))
            self.run_in("lb", "sysctl", "-qw", f"net.ipv6.conf.v{i}.disable_ipv6=1")
            self.run_in("b", "ethtool", "-K", f"eth{i}", "tx", "off")
            guard += f' chain v{i} {{ type filter hook ingress device "v{i}" priority -500; policy drop; }}\n'
        rigs.run("ip", "netns", "exec", self.ns("lb"), "nft", "-f", "-", text_in=guard + "}\n")
        self.ip("lb", "link set lo up", "link set v0 up", "link set v1 up")
        self.ip("b", "link set lo up", "link set eth0 up", "link set eth1 up", "addr add 10.9.0.2/24 dev eth0",
                "addr add 2001:db8:9::2/64 dev eth0 nodad", "addr add 10.8.0.2/24 dev eth1",
                "route add 203.0.113.0/24 via 10.9.0.254 onlink dev eth0")
        return self

    def down(self):
        if self.driver is not None and self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()
        for name in ("lb", "b"):
            rigs.run("ip", "netns", "del", self.ns(name), check=False)

    # ------------------------------------------------------------ the driver
    def start(self, *ports, ready=True):
        program = os.path.join(os.environ.get("SLUICE_BUILD", os.path.join(rigs.TOP, "build")), "test", "functional",
                               "punt-driver")
        self.driver = subprocess.Popen(["ip", "netns", "exec", self.ns("lb"), program, *(ports or ("p0=v0",))],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.lines, self.seen = queue.Queue(), []
        threading.Thread(target=self._read, args=(self.driver, self.lines), daemon=True).start()
        if ready:
            self.expect("^ready$")
        return self

    @staticmethod
    def _read(driver, lines):
        for line in driver.stdout:
            lines.put((time.monotonic(), line.rstrip("\n")))

    def say(self, text):
        self.driver.stdin.write(text + "\n")
        self.driver.stdin.flush()

    def drain(self):
        while not self.lines.empty():
            self.seen.append(self.lines.get()[1])

    def expect(self, pattern, timeout_s=5.0):
        """Waits for a line that matches; returns when it came and the match."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                when, line = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line {pattern!r}; there were:\n" + "\n".join(self.seen[-40:])) from None
            self.seen.append(line)
            found = re.search(pattern, line)
            if found:
                return when, found

    def end(self, sig=signal.SIGTERM):
        self.driver.send_signal(sig)
        code = self.driver.wait(5)
        self.driver = None
        return code

    def counters(self):
        self.say("counters")
        text = self.expect("^counters (.*)$")[1].group(1).split()
        return {text[i]: int(text[i + 1]) for i in range(0, len(text), 2)}

    # ------------------------------------------------------------ what the kernel has
    def links(self):
        return re.findall(r"^\d+: ([^:@]+)", self.run_in("lb", "ip", "link").stdout, re.M)

    def addresses(self, dev="p0"):
        out = self.run_in("lb", "ip", "-o", "addr", "show", "dev", dev, check=False).stdout
        return {m for m in re.findall(r"inet6? (\S+)", out) if not m.startswith("fe80")}

    def has_addresses(self, *wanted, dev="p0"):
        rigs.wait_for(f"{wanted} on {dev}", lambda: set(wanted) == self.addresses(dev), 5, 0.02)

    def setting(self, path):
        return self.run_in("lb", "cat", f"/proc/sys/net/{path}").stdout.strip()

    def node(self):
        self.ip("lb", "addr add 10.9.0.254/24 dev p0", "addr add 2001:db8:9::254/64 dev p0 nodad")
        self.expect(r"^route 10.9.0.0/24 via :: port 0")


@pytest.fixture
def slow():
    rig = Slow()
    try:
        yield rig.up()
    finally:
        rig.down()


HOST = (f"{VIP4}/32", f"{VIP6}/128", f"{SNAT4}/32")
OWN = f"own {VIP4} {VIP6} {SNAT4}"


# ---------------------------------------------------------------- twins and who owns them

def test_twin_is_made_and_removed(slow):
    slow.start("p0=v0,1400")
    port = slow.run_in("lb", "cat", "/sys/class/net/v0/address").stdout
    assert slow.run_in("lb", "cat", "/sys/class/net/p0/address").stdout == port
    assert slow.run_in("lb", "cat", "/sys/class/net/p0/mtu").stdout.strip() == "1400"
    assert "UP" in slow.run_in("lb", "ip", "-br", "link", "show", "p0").stdout
    assert slow.setting("ipv4/neigh/p0/base_reachable_time_ms") == "1500"
    assert slow.setting("ipv4/conf/p0/arp_ignore") == "1"
    slow.say(OWN)
    slow.has_addresses(*HOST)
    shown = slow.run_in("lb", "ip", "addr", "show", "dev", "p0").stdout
    assert "tentative" not in shown and re.search(rf"{VIP6}/128 .*deprecated", shown)
    assert slow.end() == 0
    assert "p0" not in slow.links()


def test_twin_of_the_operator_stays(slow):
    slow.ip("lb", "tuntap add dev p0 mode tap", "link set p0 up", "addr add 10.9.0.254/24 dev p0",
            "addr add 10.9.7.7/32 dev p0")
    before = slow.setting("ipv4/neigh/p0/base_reachable_time_ms")
    # one of the own addresses is the operator's already: it serves, and stays
    slow.start()
    slow.say(OWN + " 10.9.7.7")
    slow.has_addresses(*HOST, "10.9.0.254/24", "10.9.7.7/32")
    assert slow.end() == 0
    assert "p0" in slow.links()
    assert slow.addresses() == {"10.9.0.254/24", "10.9.7.7/32"}
    assert slow.setting("ipv4/neigh/p0/base_reachable_time_ms") == before


def test_killed_and_started_again(slow):
    slow.start()
    slow.say(OWN)
    slow.has_addresses(*HOST)
    slow.node()
    slow.end(signal.SIGKILL)
    assert "p0" in slow.links()  # persistent: node addresses and routes survive
    slow.start()
    slow.say(f"own {VIP4} 203.0.113.99")
    # stale ones of ours went, the operator's stayed
    slow.has_addresses(f"{VIP4}/32", "203.0.113.99/32", "10.9.0.254/24", "2001:db8:9::254/64")
    assert slow.end() == 0
    assert "p0" not in slow.links()  # made by sluice, if by an earlier run


@pytest.mark.parametrize("before, why", [
    (("link add p0 type bridge",), "is no TAP"),
    (("tuntap add dev p0 mode tun",), "is no TAP"),
])
def test_refused_twin(slow, before, why):
    slow.ip("lb", *before)
    slow.start(ready=False)
    slow.expect(rf"^refused create: ports\[0\].twin: p0: .*{why}")
    assert slow.driver.wait(5) == 1
    assert "p0" in slow.links()


def test_refused_second(slow):
    """A twin that another one holds is refused by name, and what was made before it is taken back."""
    slow.start()
    other = Slow()
    other.prefix = slow.prefix
    other.start("px=v1", "p0=v1", ready=False)
    other.expect(r"^refused create: ports\[1\].twin: p0: held by another process")
    assert other.driver.wait(5) == 1
    assert "px" not in slow.links() and "p0" in slow.links()
    other.start("p0=v0", "p0=v1", ready=False)
    assert other.driver.wait(5) == 1


# ---------------------------------------------------------------- frames

def test_kernel_answers_once(slow):
    slow.start()
    slow.say(OWN)
    slow.has_addresses(*HOST)
    slow.node()
    for target in (VIP4, "10.9.0.254"):
        out = slow.run_in("b", "arping", "-c", "2", "-I", "eth0", target).stdout
        assert re.search(r"2 packets received,\s+0% unanswered \(0 extra\)", out), out
    for target in ("10.9.0.254", "2001:db8:9::254"):
        assert " 0% packet loss" in slow.run_in("b", "ping", "-c", "3", "-i", "0.1", target).stdout
    # ND for a VIP: resolved by the far kernel
    slow.ip("b", f"route add {VIP6}/128 dev eth0")
    slow.run_in("b", "ping", "-c", "1", "-W", "1", VIP6, check=False)
    assert re.search(rf"{VIP6} .*lladdr", slow.run_in("b", "ip", "-6", "neigh").stdout)


def test_tcp_to_a_node_address(slow):
    """What a BGP session needs: a listener of the host, reached through the twin, both ways, full frames."""
    slow.start()
    slow.node()
    server = subprocess.Popen(["ip", "netns", "exec", slow.ns("lb"), "python3", "-c", (
        "import socket\ns = socket.create_server(('10.9.0.254', 179))\nprint('up', flush=True)\n"
        "c, _ = s.accept()\nn = 0\n"
        "while n < 300000:\n    n += len(c.recv(65536))\nc.sendall(b'x' * 300000)\n")], stdout=subprocess.PIPE)
    assert server.stdout.readline() == b"up\n"
    out = slow.run_in("b", "python3", "-c", (
        "import socket\nc = socket.create_connection(('10.9.0.254', 179), 5)\nc.sendall(b'y' * 300000)\nn = 0\n"
        "while True:\n    d = c.recv(65536)\n    if not d: break\n    n += len(d)\nprint(n)\n"))
    assert out.stdout.strip() == "300000"
    assert server.wait(5) == 0
    assert "inject_tx_failed" not in slow.counters()


def test_several_twins_answer_each_for_itself(slow):
    slow.start("p0=v0", "p1=v1")
    slow.say(OWN)
    slow.has_addresses(*HOST)
    slow.has_addresses(*HOST, dev="p1")
    slow.ip("lb", "addr add 10.9.0.254/24 dev p0", "addr add 10.8.0.254/24 dev p1")
    slow.expect(r"^route 10.8.0.0/24 via :: port 1")
    for i in (0, 1):
        mac = slow.run_in("lb", "cat", f"/sys/class/net/v{i}/address").stdout.strip()
        out = slow.run_in("b", "arping", "-c", "1", "-I", f"eth{i}", VIP4).stdout
        assert mac in out and "(0 extra)" in out, out
    # an address of the other twin is not answered for
    out = slow.run_in("b", "arping", "-c", "1", "-w", "0.5", "-I", "eth0", "10.8.0.254", check=False).stdout
    assert "0 packets received" in out, out


def test_injection_that_fails_is_named(slow):
    slow.start()
    slow.node()
    slow.say("spare")
    slow.run_in("lb", "ping", "-c", "2", "-W", "1", "-i", "0.2", "10.9.0.77", check=False)
    counters = slow.counters()
    assert counters["inject_tx_failed"] > 0


# ---------------------------------------------------------------- routes

def routes_now(slow, marker):
    """The last whole set that control was given, once it holds `marker`."""
    slow.expect(marker)
    time.sleep(0.2)
    slow.drain()
    starts = [i for i, line in enumerate(slow.seen) if line.startswith("routes ")]
    return [line for line in slow.seen[starts[-1] + 1:] if line.startswith("route ")]


def test_routes(slow):
    slow.start()
    slow.node()
    slow.ip("lb", "route add default via 10.9.0.2", "route add 10.50.0.0/16 via 10.9.0.3 metric 7",
            "route add 10.51.0.0/16 nexthop via 10.9.0.4 dev p0 nexthop via 10.9.0.5 dev p0",
            "route add blackhole 10.52.0.0/16", "route add unreachable 10.53.0.0/16", "route add throw 10.54.0.0/16",
            "route add 10.55.0.0/16 dev lo", "route add 10.56.0.0/16 via inet6 2001:db8:9::2 dev p0",
            "route add 10.57.0.0/16 via 10.9.0.6 table 77",
            "route add default via fe80::1 dev p0", "route add 2001:db8:50::/48 via 2001:db8:9::2",
            "route add blackhole 2001:db8:52::/48",
            "route add 2001:db8:51::/48 nexthop via 2001:db8:9::4 dev p0 nexthop via 2001:db8:9::5 dev p0",
            "route add 10.99.0.0/16 via 10.9.0.9")
    got = routes_now(slow, "10.99.0.0/16")
    for line in ("0.0.0.0/0 via 10.9.0.2 port 0 metric 0", "10.9.0.0/24 via :: port 0 metric 0",
                 "10.50.0.0/16 via 10.9.0.3 port 0 metric 7", "10.51.0.0/16 via 10.9.0.4 port 0 metric 0",
                 "10.52.0.0/16 via :: port 255 metric 0", "10.53.0.0/16 via :: port 255 metric 0",
                 "10.56.0.0/16 via 2001:db8:9::2 port 0 metric 0", "::/0 via fe80::1 port 0 metric 1024",
                 "2001:db8:50::/48 via 2001:db8:9::2 port 0 metric 1024",
                 "2001:db8:51::/48 via 2001:db8:9::4 port 0 metric 1024", "2001:db8:9::/64 via :: port 0 metric 256"):
        assert f"route {line}" in got, (line, got)
    text = "\n".join(got)
    assert "route 2001:db8:52::/48 via :: port 255" in text
    for absent in ("10.54.", "10.55.", "10.57.", "fe80::/64", "ff00"):
        assert absent not in text, absent
    # one sibling goes, the other stays; IPv4 routes go in silence with their address
    slow.ip("lb", "route del 2001:db8:51::/48 via 2001:db8:9::4 dev p0", "route add 10.98.0.0/16 via 10.9.0.9")
    got = routes_now(slow, "10.98.0.0/16")
    assert "route 2001:db8:51::/48 via 2001:db8:9::5 port 0 metric 1024" in got
    slow.ip("lb", "addr del 10.9.0.254/24 dev p0")
    slow.expect(r"^routes \d+$")
    time.sleep(0.2)
    slow.drain()
    last = [i for i, line in enumerate(slow.seen) if line.startswith("routes ")][-1]
    assert not any("10.50.0.0/16" in line or " 0.0.0.0/0" in line for line in slow.seen[last:])


# ---------------------------------------------------------------- neighbours

def test_neighbour_is_resolved_and_followed(slow):
    slow.start()
    slow.node()
    slow.say("use 0 10.9.0.2")
    slow.say("use 0 2001:db8:9::2")
    for address in ("10.9.0.2", "2001:db8:9::2"):
        slow.expect(rf"^neighbour 0 {address} \S+ valid")
    # silent: nobody says a word, but the next hop is probed
    slow.drain()
    begun = time.monotonic()
    slow.ip("b", f"link set eth0 address {MAC % 1}")
    wanted = {"10.9.0.2", "2001:db8:9::2"}
    while wanted:
        when, found = slow.expect(rf"^neighbour 0 (\S+) {MAC % 1} valid", 10)
        print(f"silent change of {found.group(1)} followed in {when - begun:.2f} s")
        wanted.discard(found.group(1))
    assert not [line for line in slow.seen if "failed" in line], "the old MAC was given up in between"


def test_gratuitous_arp_and_unsolicited_na(slow):
    """Not in use, so not probed: only the announcement can tell."""
    slow.start()
    slow.node()
    slow.say("resolve 0 10.9.0.2")
    slow.say("resolve 0 2001:db8:9::2")
    seen = set()
    while len(seen) < 2:
        seen.add(slow.expect(r"^neighbour 0 (10.9.0.2|2001:db8:9::2) \S+ valid")[1].group(1))
    mac = MAC % 5
    send = ("import time\nfrom scapy.all import *\nconf.verb = 0\nprint(time.monotonic())\n"
            f"sendp(Ether(src='{mac}', dst='ff:ff:ff:ff:ff:ff')/ARP(op=1, hwsrc='{mac}', psrc='10.9.0.2', "
            "hwdst='00:00:00:00:00:00', pdst='10.9.0.2'), iface='eth0')\n"
            f"sendp(Ether(src='{mac}', dst='33:33:00:00:00:01')/IPv6(src='2001:db8:9::2', dst='ff02::1', hlim=255)/"
            f"ICMPv6ND_NA(R=0, S=0, O=1, tgt='2001:db8:9::2')/ICMPv6NDOptDstLLAddr(lladdr='{mac}'), iface='eth0')\n")
    out = rigs.run("ip", "netns", "exec", slow.ns("b"), rigs.PYTHON, "-c", send)
    sent = float(out.stdout.split()[0])
    seen = set()
    while len(seen) < 2:
        when, found = slow.expect(rf"^neighbour 0 (10.9.0.2|2001:db8:9::2) {mac} valid", 1.0)
        assert when - sent < 1.0
        print(f"announcement of {found.group(1)} followed in {when - sent:.3f} s")
        seen.add(found.group(1))


def test_neighbour_known_before_it_was_of_use(slow):
    """The kernel tells a neighbour once; control may learn only later that it needs it, and asks."""
    slow.start()
    slow.node()
    slow.ip("lb", "neigh add 10.9.0.60 lladdr 02:00:00:00:00:60 nud permanent dev p0")
    slow.expect(r"^neighbour 0 10.9.0.60 02:00:00:00:00:60 valid")
    slow.say("resolve 0 10.9.0.60")
    slow.expect(r"^neighbour 0 10.9.0.60 02:00:00:00:00:60 valid")


def test_dead_neighbour_is_given_up_and_taken_back(slow):
    slow.start()
    slow.node()
    slow.say("use 0 10.9.0.2")
    slow.expect(r"^neighbour 0 10.9.0.2 \S+ valid")
    slow.ip("b", "link set eth0 down")
    slow.expect(r"^neighbour 0 10.9.0.2 \S+ failed")
    slow.ip("b", "link set eth0 up")
    slow.expect(r"^neighbour 0 10.9.0.2 \S+ valid")


# ---------------------------------------------------------------- trouble

def test_twin_deleted_by_hand(slow):
    slow.start()
    slow.say(OWN)
    slow.node()
    slow.ip("lb", "route add default via 10.9.0.2")
    slow.expect(r"^route 0.0.0.0/0 via 10.9.0.2")
    slow.has_addresses(*HOST, "10.9.0.254/24", "2001:db8:9::254/64")
    slow.drain()
    slow.seen.clear()
    slow.ip("lb", "link del p0")
    slow.expect("^note error twin-lost p0")
    slow.expect("^note info twin-made p0")
    slow.has_addresses(*HOST)
    time.sleep(0.5)
    slow.drain()
    # the routes over it are held: flows go on
    assert not [line for line in slow.seen if line.startswith("routes ")], slow.seen
    # as soon as the operator gives it one, the kernel's word counts again
    slow.ip("lb", "addr add 10.9.0.254/24 dev p0")
    assert routes_now(slow, r"^routes 1$") == ["route 10.9.0.0/24 via :: port 0 metric 0"]
    assert slow.end() == 0
    assert "p0" not in slow.links()


def test_twin_set_down(slow):
    slow.start()
    slow.say(OWN)
    slow.node()
    slow.ip("lb", "route add default via 10.9.0.2")
    slow.expect(r"^route 0.0.0.0/0 via 10.9.0.2")
    slow.has_addresses(*HOST, "10.9.0.254/24", "2001:db8:9::254/64")
    time.sleep(0.2)
    slow.drain()
    slow.seen.clear()
    slow.ip("lb", "link set p0 down")
    slow.expect("^note warn twin-down p0")
    slow.run_in("b", "arping", "-c", "1", "-w", "0.5", "-I", "eth0", VIP4, check=False)
    counters = slow.counters()
    assert counters["punt_write_failed"] >= 1
    assert not [line for line in slow.seen if line.startswith("routes ")], slow.seen
    slow.ip("lb", "link set p0 up")
    slow.expect("^note info twin-up p0")
    slow.has_addresses(*HOST, "10.9.0.254/24", "2001:db8:9::254/64")
    out = slow.run_in("b", "arping", "-c", "1", "-I", "eth0", VIP4).stdout
    assert "1 packets received" in out, out


def test_own_address_removed_by_hand_comes_back(slow):
    slow.start()
    slow.say(OWN)
    slow.has_addresses(*HOST)
    slow.ip("lb", f"addr flush dev p0 to {VIP4}/32")
    slow.has_addresses(*HOST)
    slow.ip("lb", "link set p0 address 02:00:00:00:0f:0f")
    slow.expect("^note warn twin-mac p0")
    port = slow.run_in("lb", "cat", "/sys/class/net/v0/address").stdout
    rigs.wait_for("the port's MAC", lambda: slow.run_in("lb", "cat", "/sys/class/net/p0/address").stdout == port)


def test_many_own_addresses(slow):
    """Thousands of VIPs come and go; frames are carried meanwhile."""
    slow.start()
    slow.node()
    many = [f"10.200.{i >> 8}.{i & 255}" for i in range(3000)] + [f"2001:db8:200::{i:x}" for i in range(1000)]
    begun = time.monotonic()
    slow.say("own " + " ".join(many))
    out = slow.run_in("b", "ping", "-c", "10", "-i", "0.1", "-W", "1", "10.9.0.254").stdout
    rigs.wait_for("4,000 addresses", lambda: len(slow.addresses()) == 4002, 30, 0.2)
    print(f"there after {time.monotonic() - begun:.1f} s; {out.strip().splitlines()[-1]}")
    assert " 0% packet loss" in out
    slow.say("own")
    rigs.wait_for("none", lambda: len(slow.addresses()) == 2, 30, 0.2)


def test_overrun_of_the_monitor(slow):
    """Stopped while the kernel has more to tell than its socket holds: the end state is found all the same."""
    slow.start()
    slow.node()
    slow.ip("lb", "neigh add 10.9.0.50 lladdr 02:00:00:00:00:50 dev p0", "neigh add 10.9.0.51 lladdr 02:00:00:00:00:51 dev p0")
    slow.expect(r"^neighbour 0 10.9.0.51 02:00:00:00:00:51 valid")
    slow.driver.send_signal(signal.SIGSTOP)
    flood = []
    for i in range(30000):
        flood += [f"route add 10.210.{i >> 8}.{i & 255}/32 via 10.9.0.2", f"route del 10.210.{i >> 8}.{i & 255}/32 via 10.9.0.2"]
    slow.ip("lb", *flood)
    slow.ip("lb", "neigh replace 10.9.0.50 lladdr 02:00:00:00:00:99 dev p0", "neigh del 10.9.0.51 dev p0",
            "route add 10.211.0.0/16 via 10.9.0.2")
    slow.driver.send_signal(signal.SIGCONT)
    wanted = {r"^note debug netlink-overrun", r"^neighbour 0 10.9.0.50 02:00:00:00:00:99 valid",
              r"^neighbour 0 10.9.0.51 \S+ (gone|failed)", r"^route 10.211.0.0/16"}
    while wanted:
        line = slow.expect("|".join(f"({w})" for w in wanted), 10)[1].string
        wanted = {w for w in wanted if not re.search(w, line)}
