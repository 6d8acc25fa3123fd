# SPDX-License-Identifier: BSD-3-Clause
"""From the annotations of a Service to the kind of packet that leaves: mode, and which family's backends serve which VIP."""
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from player import BACKENDS4, BACKENDS6, CLIENT4, CLIENT6, GATEWAY, LB, SNAT4, SNAT6, VIP4, VIP6, play, services

MODES = ["fullnat", "dnat", "ipip", "gue", "l2dsr"]
PREFIX = "sluice-lb.github.io/"
NEIGHBOURS = {a: f"02:00:00:00:01:{i:02x}" for i, a in enumerate(BACKENDS4 + BACKENDS6)}


def document(mode, families=(4, 6), port=None, **annotations):
    given = {PREFIX + "mode": mode, **{PREFIX + k.replace("_", "-"): v for k, v in annotations.items()}}
    tree = services(annotations=given, backends4=BACKENDS4 if 4 in families else [],
                    backends6=BACKENDS6 if 6 in families else [])
    if port is None:
        port = 8080 if mode in ("fullnat", "dnat") else 80
    for item in tree["items"][1:]:
        item["ports"] = [{"name": "http", "protocol": "TCP", "port": port}]
    return tree


def syn(family):
    ip = IP(src=CLIENT4, dst=VIP4) if family == 4 else IPv6(src=CLIENT6, dst=VIP6)
    return Ether(src=GATEWAY, dst=LB) / ip / TCP(sport=40000, dport=80, flags="S", seq=1)


def ends(layer):
    return layer.src, layer.dst, 6 if layer.name == "IPv6" else 4


def backends(family):
    return BACKENDS4 if family == 4 else BACKENDS6


def check(mode, frame, sent, family):
    """The frame that leaves, for a backend of `family`."""
    out = Ether(frame)
    src, dst, outer = ends(out.payload)
    inner = bytes(sent.payload)
    if mode == "l2dsr":
        assert bytes(out.payload) == inner
        assert out.dst in [NEIGHBOURS[b] for b in backends(family)]
        return
    assert outer == family and dst in backends(family) and out.dst == NEIGHBOURS[dst]
    if mode == "dnat":
        assert (src, out[TCP].sport, out[TCP].dport) == (sent.payload.src, 40000, 8080)
        return
    assert src == (SNAT4 if family == 4 else SNAT6)
    if mode == "fullnat":
        assert out[TCP].dport == 8080
    elif mode == "ipip":
        assert bytes(out.payload.payload) == inner
    else:
        assert out[UDP].dport == 6080 and bytes(out[UDP].payload)[4:] == inner


@pytest.mark.parametrize("served", [(4, 6), (4,), (6,)], ids=["both", "only4", "only6"])
@pytest.mark.parametrize("vip", [4, 6])
@pytest.mark.parametrize("mode", MODES)
def test_mode_and_family(mode, vip, served):
    sent = syn(vip)
    args = [w for a, m in NEIGHBOURS.items() for w in ("--neighbour", f"{a}={m}")]
    played = play([sent], files=[document(mode, served)], args=args)
    packet = played.packets[0]
    if vip not in served and mode in ("dnat", "l2dsr"):
        assert (packet["verdict"], packet["reason"]) == ("reply", "no_backend")
        return
    assert packet["verdict"] == "forward", packet
    check(mode, played.frames[0], sent, vip if vip in served else served[0])
    played.assert_identity()


@pytest.mark.parametrize("mode", ["ipip", "gue", "l2dsr"])
def test_another_port_is_refused_where_packets_keep_theirs(mode):
    said = play([syn(4)], files=[document(mode, port=8080)], expect=1).stderr
    assert f"mode {mode} does not change the packet's port; allowed: 80" in said, said
    assert "10.9.0.2:8080 (and 5 more)" in said and PREFIX + "mode" in said, said


def test_configured_mode_is_for_those_that_name_none():
    tree = document("fullnat", port=80)
    del tree["items"][0]["metadata"]["annotations"][PREFIX + "mode"]
    config = f'snat = {{ addresses = [ "{SNAT4}" ]; }};\nservices = {{ mode = "ipip"; }};\n'
    played = play([syn(4)], files=[tree], config=config)
    assert ends(Ether(played.frames[0]).payload)[1] in BACKENDS4
    assert bytes(Ether(played.frames[0]).payload.payload) == bytes(syn(4).payload)


@pytest.mark.parametrize("option", ["toa", "proxy-v2"])
def test_client_address_goes_with_fullnat_only(option):
    said = play([syn(4)], files=[document("dnat", client_address=option)], expect=1).stderr
    assert f"{option} with mode dnat" in said and "allowed: none, or mode fullnat" in said, said
    assert play([syn(4)], files=[document("fullnat", client_address=option)]).packets[0]["verdict"] == "forward"
