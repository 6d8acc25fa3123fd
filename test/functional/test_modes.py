# SPDX-License-Identifier: BSD-3-Clause
"""Every forwarding mode carries real TCP: small requests over all backends, a download, an upload of full-size segments. Replies of
the one-way modes go straight to the client, over a cable of their own; those of the NAT modes come back through sluice."""
import os

import pytest

import rig as rigs
from mode_rig import ModeRig, items_of

REASON = rigs.have_namespaces()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

FAR4, FAR6 = "10.10.0.2", "2001:db8:a::2"
ONEWAY = ("ipip", "gue", "l2dsr")
EXPECTED_DROPS = {"too_big", "icmp_relayed", "tx_queue_full", "no_flow", "no_flow_quiet", "closed_port"}


@pytest.fixture(scope="module")
def modes():
    rig = ModeRig(prefix="sm", n_backends=3)
    try:
        rig.up()
        for i in (1, 2, 3):
            rig.start_backend(i, port=80)
            with open(f"{rig.dir}/b{i}/files/big", "wb") as f:
                f.truncate(32 << 20)
        with open(f"{rig.dir}/upload", "wb") as f:
            f.truncate(4 << 20)
        rig.write_services(rigs.web_items(3, target=80, annotations={"sluice-lb.github.io/health-check": "none"}))
        rig.start_daemon()
        yield rig
    finally:
        rig.down()


def carry(rig, vip):
    host = f"[{vip}]" if ":" in vip else vip
    before = rig.drops()
    result = rig.load("requests", vip, "80", "300", "16")
    assert result["failed"] == 0, (result["errors"], rig.drops())
    assert sorted(result["backends"]) == ["b1", "b2", "b3"]
    out = rig.run_in("client", "curl", "-gsS", "-m", "60", "-o", "/dev/null", "-w", "%{http_code} %{size_download}",
                     f"http://{host}/files/big", timeout=70).stdout
    assert out.split() == ["200", str(32 << 20)], (out, rig.drops())
    out = rig.run_in("client", "curl", "-gsS", "-m", "60", "-o", "/dev/null", "-w", "%{http_code} %{size_upload}",
                     "--data-binary", f"@{rig.dir}/upload", f"http://{host}/", timeout=70).stdout
    assert out.split() == ["200", str(4 << 20)], (out, rig.drops())
    rig.assert_accounted()
    new = {k: n - before.get(k, 0) for k, n in rig.drops().items() if n > before.get(k, 0)}
    unexpected = {k: n for k, n in new.items() if k not in EXPECTED_DROPS}
    assert not unexpected, f"drops that nothing explains: {unexpected}"
    return new


CASES = [(mode, family, family) for mode in ("fullnat", "dnat", "ipip", "gue", "l2dsr") for family in (4, 6)] + \
        [(mode, 4, 6) for mode in ("fullnat", "ipip", "gue")] + [(mode, 6, 4) for mode in ("fullnat", "ipip", "gue")]


@pytest.mark.parametrize("mode,vip_family,backend_family", CASES)
def test_mode_carries_tcp(modes, mode, vip_family, backend_family):
    vip = rigs.VIP4 if vip_family == 4 else rigs.VIP6
    modes.replies(direct=mode in ONEWAY)
    modes.forget_paths()
    modes.serve(items_of(mode, vip_family, backend_family))
    new = carry(modes, vip)
    if mode in ("ipip", "gue"):
        assert new.get("too_big", 0) > 0, "full-size segments do not fit into a tunnel: the client is told"
    flows = modes.get("/api/v1/flows?service=default/web")["items"]
    assert flows and {f["service"] for f in flows} == {"default/web"}
    client = "198.51.100.10" if vip_family == 4 else "2001:db8:1::10"
    answer = modes.ctl("explain", "tcp", f"{client}:50001" if vip_family == 4 else f"[{client}]:50001",
                       f"{vip}:80" if vip_family == 4 else f"[{vip}]:80").stdout
    assert mode in answer and "forward" in answer, answer


@pytest.mark.parametrize("vip_family", [4, 6])
def test_least_connections_and_affinity_carry_tcp(modes, vip_family):
    vip = rigs.VIP4 if vip_family == 4 else rigs.VIP6
    modes.replies(direct=False)
    modes.forget_paths()
    modes.serve(items_of("fullnat", vip_family, vip_family, scheduler="least-connections"))
    carry(modes, vip)


@pytest.mark.parametrize("vip_family,backend_family", [(4, 4), (6, 6), (4, 6), (6, 4)])
def test_proxy_protocol_tells_nginx_the_client(modes, vip_family, backend_family):
    vip = rigs.VIP4 if vip_family == 4 else rigs.VIP6
    host = f"[{vip}]" if vip_family == 6 else vip
    modes.replies(direct=False)
    modes.forget_paths()
    home = os.path.join(modes.dir, "proxy")
    os.makedirs(home, exist_ok=True)
    conf = os.path.join(home, "nginx.conf")
    with open(conf, "w", encoding="ascii") as f:
        f.write(PROXY_NGINX.format(home=home))
    child = modes.spawn("b1", "nginx", "-c", conf, "-e", os.path.join(home, "error.log"), "-p", home)
    try:
        rigs.wait_for("nginx", lambda: modes.run_in("b1", "ss", "-ltn").stdout.count(":8090") >= 2)
        items = items_of("fullnat", vip_family, backend_family, client_address="proxy-v2")
        items[1] = rigs.slice_of("web", [rigs.Rig.backend_address(1, backend_family)], [("http", "TCP", 8090)])
        modes.serve(items)
        client = "198.51.100.10" if vip_family == 4 else "2001:db8:1::10"
        for _ in range(20):
            out = modes.run_in("client", "curl", "-gsS", "-m", "5", f"http://{host}/").stdout
            assert out.split() == [client, vip], out
        out = modes.run_in("client", "curl", "-gsS", "-m", "60", "-o", "/dev/null", "-w", "%{http_code} %{size_upload}",
                           "--data-binary", f"@{modes.dir}/upload", f"http://{host}/", timeout=70).stdout
        assert out.split() == ["200", str(4 << 20)]
    finally:
        modes.end(child)
    modes.assert_accounted()


@pytest.mark.parametrize("vip_family", [4, 6])
def test_toa_reaches_the_backend(modes, vip_family):
    vip = rigs.VIP4 if vip_family == 4 else rigs.VIP6
    modes.replies(direct=False)
    modes.forget_paths()
    modes.serve(items_of("fullnat", vip_family, vip_family, client_address="toa"))
    seen = "tcp[20] = 254" if vip_family == 4 else "ip6[60] = 254"
    watchers = [modes.spawn(f"b{i}", "tcpdump", "-Z", "root", "-U", "-nn", "-i", "eth0", "-c", "1", "-w", f"{modes.dir}/toa{i}.pcap", seen,
                            what="tcpdump") for i in (1, 2, 3)]
    rigs.wait_for("the captures", lambda: all(os.path.exists(f"{modes.dir}/toa{i}.pcap") and
                                              os.path.getsize(f"{modes.dir}/toa{i}.pcap") >= 24 for i in (1, 2, 3)))
    carry(modes, vip)
    for i, watcher in enumerate(watchers, 1):
        rigs.wait_for("an option", lambda: watcher.poll() is not None)
        with open(f"{modes.dir}/toa{i}.pcap", "rb") as f:
            frame = f.read()[40:]
        at = 14 + (20 if vip_family == 4 else 40) + 20
        client = bytes([198, 51, 100, 10]) if vip_family == 4 else bytes.fromhex("20010db8000100000000000000000010")
        assert frame[at] == 254 and frame[at + 4:at + frame[at + 1]] == client


# ---------------------------------------------------------------- a 1,400-byte hop behind sluice

@pytest.fixture(scope="module")
def far(modes):
    """Backend b1 gets a second address behind a router whose link to it carries 1,400 bytes; it does not say so in its MSS."""
    ns = modes.ns("router")
    rigs.run("ip", "netns", "add", ns)
    try:
        rigs.run("ip", "netns", "exec", ns, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
                 "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0", "net.ipv4.conf.all.rp_filter=0",
                 "net.ipv4.conf.default.rp_filter=0", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        rigs.run("ip", "-n", modes.ns("fabric"), "link", "add", "rt", "type", "veth", "peer", "name", "r0", "netns", ns)
        rigs.run("ip", "-n", ns, "link", "add", "r1", "type", "veth", "peer", "name", "eth2", "netns", modes.ns("b1"))
        for where, dev in (("router", "r0"), ("router", "r1"), ("b1", "eth2")):
            modes.run_in(where, "ethtool", "-K", dev, "tx", "off")
        modes._batch("fabric", "link set rt master br0", "link set rt up")
        modes._batch("router", "link set lo up", "link set r0 up", "link set r1 mtu 1400 up", "addr add 192.0.2.254/24 dev r0",
                     "addr add 2001:db8:2::254/64 dev r0 nodad", "addr add 10.10.0.1/24 dev r1",
                     "addr add 2001:db8:a::1/64 dev r1 nodad")
        modes._batch("b1", "link set eth2 mtu 1400 up", f"addr add {FAR4}/24 dev eth2",
                     f"addr add {FAR6}/64 dev eth2 nodad")
        modes._batch("lb", "route add 10.10.0.0/24 via 192.0.2.254 dev p1", "route add 2001:db8:a::/64 via 2001:db8:2::254 dev p1")
        yield modes
    finally:
        rigs.run("ip", "netns", "del", ns, check=False)


@pytest.mark.parametrize("mode", ["fullnat", "dnat", "ipip", "gue"])
@pytest.mark.parametrize("family", [4, 6])
def test_path_mtu_of_1400_behind(far, mode, family):
    vip = rigs.VIP4 if family == 4 else rigs.VIP6
    host = f"[{vip}]" if family == 6 else vip
    # b1 answers over the router and claims that it takes 1,460; the router sends on directly or through sluice
    far._batch("b1", f"route replace 198.51.100.0/24 via 10.10.0.1 advmss 1460 src {FAR4}",
               f"route replace 2001:db8:1::/64 via 2001:db8:a::1 advmss 1440 src {FAR6}",
               "route replace 192.0.2.1/32 via 10.10.0.1 advmss 1460", f"route replace {rigs.SNAT6}/128 via 2001:db8:a::1 advmss 1440")
    far.replies(direct=mode in ONEWAY, names=["router"])
    if mode == "fullnat":
        far._batch("router", "route replace 192.0.2.1/32 via 192.0.2.2", f"route replace {rigs.SNAT6}/128 via 2001:db8:2::2")
    far.forget_paths()
    items = items_of(mode, family, family)
    items[1] = rigs.slice_of("web", [FAR4 if family == 4 else FAR6], [("http", "TCP", 80)])
    far.serve(items)
    before = far.counter("errors_forwarded")
    for _ in range(3):
        out = far.run_in("client", "curl", "-gsS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code} %{size_upload}",
                         "--data-binary", f"@{far.dir}/upload", f"http://{host}/", timeout=30, check=False)
        assert out.stdout.split() == ["200", str(4 << 20)], (out.stdout, out.stderr, far.drops())
    out = far.run_in("client", "curl", "-gsS", "-m", "60", "-o", "/dev/null", "-w", "%{http_code} %{size_download}",
                     f"http://{host}/files/big", timeout=70).stdout
    assert out.split() == ["200", str(32 << 20)]
    assert far.counter("errors_forwarded") > before, "the router's errors found the client"
    far.assert_accounted()


PROXY_NGINX = """daemon off; master_process off; worker_processes 1; pid {home}/pid;
events {{ worker_connections 512; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3;
  uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5;
  server {{
    listen 8090 proxy_protocol; listen [::]:8090 proxy_protocol ipv6only=on;
    location / {{ default_type text/plain; return 200 "$proxy_protocol_addr $proxy_protocol_server_addr\\n"; }}
  }}
}}
"""
