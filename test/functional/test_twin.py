# SPDX-License-Identifier: BSD-3-Clause
"""The slow path beside real traffic: sessions of the host through a twin, moved neighbours, floods, a lost twin, and
what preflight says of a rig that is set up wrong."""
import json
import re
import subprocess
import time

import rig as rigs

NODE4, NODE6 = "198.51.100.1", "2001:db8:1::1"
BGP_PEER = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.create_server((sys.argv[1], 179), family=family)
print("up", flush=True)
c, peer = s.accept()
n = 0
while n < 200000:
    piece = c.recv(65536)
    if not piece:
        break
    n += len(piece)
c.sendall(b"k" * 200000)
c.close()
print(n, peer[0])
"""
BGP_CLIENT = """
import socket, sys
c = socket.create_connection((sys.argv[1], 179), 5)
c.sendall(b"o" * 200000)
n = 0
while True:
    piece = c.recv(65536)
    if not piece:
        break
    n += len(piece)
print(n)
"""
FLOOD = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    for _ in range(100):
        s.sendto(b"f" * 64, (sys.argv[1], 9999))
    time.sleep(0.005)
"""


def session(rig, address, timeout=20):
    """Two hundred thousand bytes each way over TCP port 179, to a listener of the load balancer's own host."""
    server = rig.spawn("lb", rigs.PYTHON, "-c", BGP_PEER, address, what="peer", stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "up\n"
    out = rig.run_in("client", rigs.PYTHON, "-c", BGP_CLIENT, address, timeout=timeout)
    assert out.stdout.strip() == "200000"
    assert server.stdout.readline().split() == ["200000", "198.51.100.10" if "." in address else "2001:db8:1::10"]
    rig.end(server)


def test_sessions_of_the_host(web):
    for address in (NODE4, NODE6):
        session(web, address)


def test_one_answer_to_each_question(web):
    """ARP for node address, VIP and SNAT address, on the twin of the port that asks, once."""
    for ns, address in (("client", NODE4), ("client", rigs.VIP4), ("b1", rigs.SNAT4), ("b1", "192.0.2.2")):
        out = web.run_in(ns, "arping", "-c", "2", "-I", "eth0", address).stdout
        assert re.search(r"2 packets received,\s+0% unanswered \(0 extra\)", out), out


def answered(rig, vip):
    host = f"[{vip}]" if ":" in vip else vip
    return rig.run_in("client", "curl", "-gs", "-m", "0.3", f"http://{host}/", check=False).returncode == 0


def moved(rig, mac, allowed_s):
    """Seconds until both VIPs are served by the one backend that has a new MAC."""
    begun = time.monotonic()
    rig.run_in("b1", "ip", "link", "set", "eth0", "address", mac)
    rigs.wait_for("answers of the moved backend", lambda: answered(rig, rigs.VIP4) and answered(rig, rigs.VIP6),
                  allowed_s, 0.01)
    return time.monotonic() - begun


def test_backend_with_a_new_mac(make_rig):
    rig = make_rig(n_backends=1)
    for i in (1, 2):
        took = moved(rig, f"02:00:00:00:0b:0{i}", 10)
        print(f"silent change followed in {took:.2f} s")
    rig.run_in("b1", "sysctl", "-qw", "net.ipv4.conf.eth0.arp_notify=1", "net.ipv6.conf.eth0.ndisc_notify=1")
    for i in (3, 4, 5):
        took = moved(rig, f"02:00:00:00:0b:0{i}", 10)
        print(f"announced change followed in {took:.2f} s")
        # two requests are part of it
        assert took < 1.0 + 0.3
    rig.assert_accounted()
    rig.stop_daemon()


def test_flood_of_the_slow_path(make_rig):
    """Over punt.rate the unimportant goes first, by name; a routing session and ARP pass."""
    rig = make_rig(n_backends=1, start=False)
    rig.start_daemon(config=rig.config_text('punt = { rate = 1000; };\n'))
    rigs.wait_for("an answer", lambda: answered(rig, rigs.VIP4))
    flood = rig.spawn("client", rigs.PYTHON, "-c", FLOOD, NODE4, "6", what="flood")
    rigs.wait_for("drops", lambda: rig.drops().get("punt_rate_limited", 0) > 1000)
    session(rig, NODE4)
    out = rig.run_in("client", "arping", "-c", "3", "-I", "eth0", NODE4).stdout
    assert "3 packets received" in out, out
    assert rig.load("requests", rigs.VIP4, "80", "100", "4")["failed"] == 0
    assert flood.poll() is None, "the flood ended before the questions"
    rig.end(flood)
    drops = rig.drops()
    assert drops["punt_rate_limited"] > 1000
    rig.assert_accounted()
    rig.stop_daemon()


def test_twin_lost_under_traffic(make_rig):
    """Deleted by hand: no request fails, and it is there again with our addresses."""
    rig = make_rig(n_backends=2)
    # the client's way is a gateway on the twin's node address: pinned, for nobody answers ARP for it any more
    mac = rig.run_in("lb", "cat", "/sys/class/net/v0/address").stdout.strip()
    rig.run_in("client", "ip", "neigh", "replace", NODE4, "lladdr", mac, "dev", "eth0", "nud", "permanent")
    load = rig.load_start("rate", rigs.VIP4, "80", "100", "4")
    time.sleep(1)
    rig.run_in("lb", "ip", "link", "del", "p0")
    rig.run_in("lb", "ip", "link", "set", "p1", "down")
    time.sleep(1)
    result = rig.load_finish(load)
    assert result["failed"] == 0 and result["requests"] >= 350, result
    kinds = [(e["kind"], e["object"]) for e in rig.get("/api/v1/events?after=0")["items"]]
    assert ("twin-lost", "p0") in kinds and ("twin-made", "p0") in kinds and ("twin-down", "p1") in kinds, kinds
    assert f"{rigs.VIP4}/32" in rig.run_in("lb", "ip", "-o", "addr", "show", "dev", "p0").stdout
    rig.run_in("lb", "ip", "link", "set", "p1", "up")
    rig.assert_accounted()
    assert rig.stop_daemon() == 0
    links = rig.run_in("lb", "ip", "-br", "link").stdout
    assert not re.search(r"^p0 ", links, re.M) and re.search(r"^p1 ", links, re.M)


def test_routes_decide(make_rig):
    """The kernel's routes are the data path's: a backend behind a gateway, then a blackhole, then none."""
    rig = make_rig(n_backends=1, items=rigs.web_items(1, families=(4,)), start=False)
    rig.run_in("b1", "ip", "addr", "add", "10.44.0.1/32", "dev", "lo")
    items = [rigs.service("web", [rigs.VIP4], [("http", "TCP", 80)],
                          annotations={"sluice-lb.github.io/health-check": "none"}),
             rigs.slice_of("web", ["10.44.0.1"], [("http", "TCP", 8080)])]
    rig.write_services(items)
    rig.start_daemon()
    assert not answered(rig, rigs.VIP4)
    assert rig.drops().get("no_route", 0) > 0
    for family_of_gateway in ("192.0.2.11", "inet6 2001:db8:2::11"):
        rig.run_in("lb", "ip", "route", "replace", "10.44.0.0/16", "via", *family_of_gateway.split(), "dev", "p1")
        rigs.wait_for("the way through a gateway", lambda: answered(rig, rigs.VIP4), 5)
    rig.run_in("lb", "ip", "route", "add", "blackhole", "10.44.0.1/32")
    rigs.wait_for("the blackhole", lambda: not answered(rig, rigs.VIP4), 5)
    rig.run_in("lb", "ip", "route", "del", "blackhole", "10.44.0.1/32")
    rigs.wait_for("the way back", lambda: answered(rig, rigs.VIP4), 5)
    rig.assert_accounted()
    rig.stop_daemon()


def doctor(rig):
    out = rig.run_in("lb", rig.program("sluicectl"), "-o", "json", "doctor", "--config",
                     rig.dir + "/sluice.conf", check=False)
    found = json.loads(out.stdout)
    return {f["id"]: f for f in found["items"] if f["severity"] != "ok"}


def test_preflight_names_what_is_wrong_with_the_rig(make_rig):
    rig = make_rig(n_backends=1, start=False)
    rig.start_daemon()
    rig.stop_daemon()
    assert not {"W_TWIN_GUARD", "W_PARTIAL_CSUM", "W_MTU"} & set(doctor(rig))
    rig.run_in("lb", "nft", "delete", "chain", "netdev", "sluice", "v0")
    rig.run_in("client", "ethtool", "-K", "eth0", "tx", "on")
    rig.run_in("lb", "ip", "link", "set", "v1", "mtu", "1400")
    found = doctor(rig)
    # each command that it prints cures what it names
    for name in ("W_TWIN_GUARD", "W_PARTIAL_CSUM", "W_MTU"):
        command = found[name]["command"].split(" (and")[0]
        rig.run_in("lb", "sh", "-c", command)
    assert not {"W_TWIN_GUARD", "W_PARTIAL_CSUM", "W_MTU"} & set(doctor(rig))


def test_source_address_shared_with_the_host(make_rig):
    """SNAT from a node address: only with its ports kept from the host's own sockets, and then both work."""
    rig = make_rig(n_backends=1, items=rigs.web_items(1, families=(4,)), start=False)
    config = rig.config_text().replace(f'"{rigs.SNAT4}"', '"192.0.2.2"').replace("1024-65535", "40000-41000")
    rig.start_daemon(config=config, wait=False)
    assert rig.daemon.wait(10) != 0
    assert re.search("E_SNAT_PORTS .*port 40000 of 40000-41000", rig.log_tail()), rig.log_tail()
    reserve = re.search(r"try: (sysctl -w \S+)", rig.log_tail()).group(1)
    rig.run_in("lb", *reserve.split())
    rig.start_daemon(config=config)
    rigs.wait_for("backend up", lambda: rig.backend_states() == {"192.0.2.11": "up"})
    assert rig.load("requests", rigs.VIP4, "80", "300", "8")["failed"] == 0
    # probes are sockets of the host, with the same source address
    assert rig.backend_states() == {"192.0.2.11": "up"}
    assert not [e for e in rig.get("/api/v1/events?after=0")["items"] if e["kind"] == "backend-down"]
    rig.assert_accounted()
    assert rig.stop_daemon() == 0
    assert "192.0.2.2/24" in rig.run_in("lb", "ip", "-o", "addr", "show", "dev", "p1").stdout
