# SPDX-License-Identifier: BSD-3-Clause
"""What becomes of the flows of a backend that leaves the desired state, in the capture's time."""
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from player import BACKENDS4, BACKENDS6, CLIENT4, CLIENT6, GATEWAY, LB, SNAT4, SNAT6, START, VIP4, VIP6, play, services

DRAIN = "sluice-lb.github.io/drain-timeout"


def ip(family, src=None, dst=None):
    if family == 4:
        return Ether(src=GATEWAY, dst=LB) / IP(src=src or CLIENT4, dst=dst or VIP4)
    return Ether(src=GATEWAY, dst=LB) / IPv6(src=src or CLIENT6, dst=dst or VIP6)


def addresses_of(frame, family):
    layer = Ether(bytes(frame))[IP if family == 4 else IPv6]
    return layer.src, layer.dst


def established(family, timeout, wait):
    """A TCP connection whose backend is removed one second later; then a packet of the client after each of `wait`."""
    all_of = BACKENDS4 if family == 4 else BACKENDS6
    syn = ip(family) / TCP(sport=40000, dport=80, flags="S", seq=1000)
    first = Ether(play([syn]).frames[0])
    backend, port = addresses_of(first, family)[1], first[TCP].sport
    rest = [b for b in all_of if b != backend]
    files = [services(annotations={DRAIN: timeout}),
             services(annotations={DRAIN: timeout}, **{f"backends{family}": rest})]
    ack = ip(family) / TCP(sport=40000, dport=80, flags="A", seq=1001, ack=501)
    frames = [syn, ip(family, src=backend, dst=SNAT4 if family == 4 else SNAT6) /
              TCP(sport=8080, dport=port, flags="SA", seq=500, ack=1001), ack] + [ack] * len(wait)
    times = [START, START + 0.1, START + 0.2] + [START + 1 + w for w in wait]
    return backend, play(frames, files=files, args=["--change", f"{START + 1}:{{1}}"], times=times)


@pytest.mark.parametrize("family", [4, 6])
def test_flows_go_on_for_the_drain_timeout_and_are_reset(family):
    backend, played = established(family, "5s", [0.5, 4.9, 5.0, 6.0])
    assert [p["verdict"] for p in played.packets] == ["forward"] * 5 + ["reply"] * 2, played.packets
    assert all(addresses_of(f, family)[1] == backend for f in played.frames[3:5])
    assert all("R" in Ether(f)[TCP].flags for f in played.frames[5:])
    assert played.packets[5]["reason"] == "no_flow"
    played.assert_identity()


def test_without_a_drain_timeout_they_are_reset_at_once():
    _, played = established(4, "0s", [0.1])
    assert [p["verdict"] for p in played.packets] == ["forward"] * 3 + ["reply"]


@pytest.mark.parametrize("family", [4, 6])
def test_udp_moves_at_once(family):
    ask = ip(family) / UDP(sport=40000, dport=53) / Raw(b"x")
    backend = addresses_of(play([ask]).frames[0], family)[1]
    rest = [b for b in (BACKENDS4 if family == 4 else BACKENDS6) if b != backend]
    files = [services(), services(**{f"backends{family}": rest})]
    played = play([ask, ask], files=files, args=["--change", f"{START + 1}:{{1}}"], times=[START, START + 2])
    assert addresses_of(played.frames[1], family)[1] in rest, played.packets
