# SPDX-License-Identifier: BSD-3-Clause
"""Real clients, real servers: balance, big and small transfers, both families, what a VIP answers itself."""
import json
import re

import pytest

import rig as rigs

EXPECTED_DROPS = {"echo_answered", "closed_port", "no_flow", "no_flow_quiet"}


def only_expected(rig, extra=()):
    unexpected = {k: v for k, v in rig.drops().items() if k not in EXPECTED_DROPS | set(extra)}
    assert not unexpected, f"drops that nothing explains: {unexpected}"


def test_requests_are_spread_evenly(web):
    result = web.load("requests", rigs.VIP4, "80", "30000", "32", timeout_s=300)
    assert result["failed"] == 0, result["errors"]
    assert sum(result["backends"].values()) == 30000
    assert sorted(result["backends"]) == ["b1", "b2", "b3"]
    for name, n in result["backends"].items():
        assert abs(n - 10000) <= 1000, f"{name} got {n} of 30000"
    only_expected(web)


def test_requests_over_ipv6(web):
    result = web.load("requests", rigs.VIP6, "80", "3000", "32")
    assert result["failed"] == 0, result["errors"]
    assert sorted(result["backends"]) == ["b1", "b2", "b3"]
    only_expected(web)


@pytest.mark.parametrize("vip", [rigs.VIP4, rigs.VIP6])
def test_a_gigabyte_arrives_whole(web, vip):
    for i in (1, 2, 3):
        with open(f"{web.dir}/b{i}/files/big", "wb") as f:
            f.truncate(1 << 30)
    host = f"[{vip}]" if ":" in vip else vip
    out = web.run_in("client", "curl", "-gsS", "-m", "120", "-o", "/dev/null", "-w", "%{http_code} %{size_download}",
                     f"http://{host}/files/big", timeout=130)
    assert out.stdout.split() == ["200", str(1 << 30)]
    only_expected(web, {"tx_queue_full"})


@pytest.mark.parametrize("vip", [rigs.VIP4, rigs.VIP6])
def test_ten_thousand_short_connections_by_wrk(web, vip):
    host = f"[{vip}]" if ":" in vip else vip
    total = 0
    while total < 10000:
        out = web.run_in("client", "wrk", "-t1", "-c16", "-d3s", "-H", "Connection: close", f"http://{host}/").stdout
        assert "Socket errors" not in out and "Non-2xx" not in out, out
        total += int(re.search(r"(\d+) requests in", out).group(1))
    only_expected(web)


@pytest.mark.parametrize("vip", [rigs.VIP4, rigs.VIP6])
def test_ping_is_answered_by_the_data_path(web, vip):
    before = web.counter("echo_replies")
    out = web.run_in("client", "ping", "-c", "5", "-i", "0.2", "-W", "2", vip).stdout
    assert "5 received" in out
    assert web.counter("echo_replies") == before + 5


@pytest.mark.parametrize("address", ["198.51.100.1", "2001:db8:1::1"])
def test_node_address_belongs_to_the_kernel(web, address):
    before = web.counter("punted")
    out = web.run_in("client", "ping", "-c", "3", "-i", "0.2", "-W", "2", address).stdout
    assert "3 received" in out, out
    assert web.counter("punted") >= before + 3


@pytest.mark.parametrize("vip", [rigs.VIP4, rigs.VIP6])
def test_closed_port_is_refused_at_once(web, vip):
    host = f"[{vip}]" if ":" in vip else vip
    before = web.counter("resets_sent")
    out = web.run_in("client", "curl", "-gsS", "-m", "3", f"http://{host}:81/", check=False)
    assert out.returncode == 7, out.stderr  # could not connect, at once
    assert web.counter("resets_sent") > before


UDP_PROBE = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3); s.connect((sys.argv[1], 9)); s.send(b'x')
try: s.recv(10)
except ConnectionRefusedError: print('refused')
"""


@pytest.mark.parametrize("vip", [rigs.VIP4, rigs.VIP6])
def test_closed_udp_port_is_unreachable(web, vip):
    out = web.run_in("client", rigs.PYTHON, "-c", UDP_PROBE, vip)
    assert out.stdout.strip() == "refused", out.stderr


def test_time_to_live_runs_out_with_a_word(web):
    probe = ("import socket; s = socket.socket(); s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1); s.settimeout(2)\n"
             "try: s.connect(('%s', 80))\nexcept OSError as e: print(e.errno)\n") % rigs.VIP4
    before = web.counter("time_exceeded_sent")
    web.run_in("client", rigs.PYTHON, "-c", probe)
    assert web.counter("time_exceeded_sent") > before


ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 5353))
print('ready', flush=True)
while True:
    text, peer = s.recvfrom(2000)
    s.sendto(sys.argv[2].encode() + b' ' + text, peer)
"""
ASK = """
import socket, sys, json
seen, asked_again = {}, 0
for k in range(200):
    s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(1); s.connect((sys.argv[1], 53))
    for n in range(3):
        for attempt in range(3):
            s.send(b'%d.%d' % (k, n))
            try:
                name, text = s.recv(100).split()
                break
            except TimeoutError:
                asked_again += 1
        assert text == b'%d.%d' % (k, n)
        seen.setdefault(k, set()).add(name.decode())
    s.close()
assert all(len(v) == 1 for v in seen.values())
print(json.dumps([sorted({n for v in seen.values() for n in v}), asked_again]))
"""


@pytest.mark.parametrize("family", [4, 6])
def test_udp_stays_with_its_backend(make_rig, family):
    vip = rigs.VIP4 if family == 4 else rigs.VIP6
    annotations = {"sluice-lb.github.io/health-check": "none"}
    items = [rigs.service("dns", [vip], [("dns", "UDP", 53)], annotations=annotations),
             rigs.slice_of("dns", [rigs.Rig.backend_address(i, family) for i in (1, 2, 3)], [("dns", "UDP", 5353)])]
    rig = make_rig(items=items, start=False)
    for i in (1, 2, 3):
        child = rig.spawn(f"b{i}", rigs.PYTHON, "-c", ECHO, rig.backend_address(i, family), f"b{i}",
                          stdout=-1, text=True)
        assert child.stdout.readline().strip() == "ready"
    rig.start_daemon()
    out = rig.run_in("client", rigs.PYTHON, "-c", ASK, vip)
    names, asked_again = json.loads(out.stdout)
    assert names == ["b1", "b2", "b3"]
    # nothing repeats a lost datagram for its sender: one in 600 may be the machine's, and then says where it went
    assert asked_again <= 1, (asked_again, rig.drops())
    rig.assert_accounted()
    rig.stop_daemon()


def test_partial_checksums_are_named(make_rig):
    """A peer that leaves its checksums to an offload gets no service, and the drop says what to switch off."""
    rig = make_rig(n_backends=1)
    rig.run_in("client", "ethtool", "-K", "eth0", "tx", "on")
    out = rig.run_in("client", "curl", "-s", "-m", "2", f"http://{rigs.VIP4}/", check=False)
    assert out.returncode == 28, "the kernel here finished the checksum by itself"
    assert rig.drops().get("bad_l4_checksum", 0) > 0
    rows = {d["reason"]: d for d in rig.get("/api/v1/drops")["items"]}
    assert "ethtool" in rows["bad_l4_checksum"]["fix"]
    rig.assert_accounted()
    rig.stop_daemon()


def test_source_ranges(make_rig):
    items = rigs.web_items(1, families=(4,))
    items[0]["spec"]["loadBalancerSourceRanges"] = ["198.51.100.0/25"]
    rig = make_rig(n_backends=1, items=items)
    assert rig.load("requests", rigs.VIP4, "80", "10", "2")["failed"] == 0
    items[0]["spec"]["loadBalancerSourceRanges"] = ["203.0.113.0/24"]
    rig.write_services(items)
    rig.daemon.send_signal(1)
    question = {"source": "198.51.100.10", "sourcePort": 1, "destination": rigs.VIP4, "destinationPort": 80,
                "protocol": "TCP", "flags": "S"}
    # the worker's own word: followers of a change are published up to 20 ms later
    rigs.wait_for("the new ranges at the worker", lambda: json.loads(
        rig.request("POST", "/api/v1/explain", question)[1])["verdict"] == "drop")
    out = rig.run_in("client", "curl", "-s", "-m", "2", f"http://{rigs.VIP4}/", check=False)
    assert out.returncode == 28
    assert rig.drops().get("source_range", 0) > 0
    rig.assert_accounted()
    rig.stop_daemon()
