# SPDX-License-Identifier: BSD-3-Clause
"""What has to leave, byte for byte, computed with scapy: checksums from nothing, headers field by field. Taken from what came out are only the choices
that are sluice's: a backend, a source port, an identification without DF, a tunnel's source port; each is checked for its range."""
from ipaddress import ip_address

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from scapy.layers.dns import DNS as _DNS
from scapy.packet import split_layers

from headers import inner_of, l4_of, with_checksum, with_crc
from player import GATEWAY, LB
from table import Step, Want


# Payloads of ours are no DNS, and scapy would write what it took for it in its own way.
for _port in ({"sport": 53}, {"dport": 53}, {"sport": 5353}, {"dport": 5353}):
    split_layers(UDP, _DNS, **_port)


def as_packet(frame):
    return frame if isinstance(frame, Ether) else Ether(frame)


def afresh(packet):
    """A copy in which every checksum is to be computed; a UDP checksum of 0 stays."""
    packet = packet.copy()
    layer = packet
    while layer:
        for name in ("chksum", "cksum"):
            if name in layer.fields and not (isinstance(layer, UDP) and layer.fields[name] == 0):
                delattr(layer, name)
        layer = layer.payload if layer.payload and layer.payload.name != "NoPayload" else None
    return packet


def out_mac(state, destination):
    return state.scene.neighbours.get(destination, GATEWAY)


def translated(state, frame, src, dst, ports):
    """A NAT mode's packet: addresses, ports, TTL less one, MACs."""
    frame = bytes(frame)
    protocol, at, _ = l4_of(frame)
    head = afresh(Ether(frame[:at]))
    ip = head[state.layer]
    head[Ether].src, head[Ether].dst = LB, out_mac(state, dst)
    ip.src, ip.dst = src, dst
    if state.family == 4:
        ip.ttl -= 1
    else:
        ip.hlim -= 1
    return bytes(head) + changed_l4(frame[at:14 + len(inner_of(frame))], protocol, ports, src, dst)


def tunnelled(state, frame, got):
    inner, backend, mode = inner_of(frame), state.backend, state.scene.mode
    is_v4 = inner[0] >> 4 == 4
    tos = inner[1] if is_v4 else (inner[0] << 4 | inner[1] >> 4) & 0xff
    df = not is_v4 or bool(inner[6] & 0x40)
    protocol = 4 if is_v4 else 41
    head = Ether(src=LB, dst=out_mac(state, backend))
    if ":" in backend:
        outer = IPv6(src=state.snat6(), dst=backend, hlim=64, tc=tos, fl=0, nh=protocol if mode == "ipip" else 17)
    else:
        ident = 0 if df else int.from_bytes(got[18:20], "big")
        outer = IP(src=state.snat4(), dst=backend, ttl=64, tos=tos, id=ident, flags="DF" if df else 0,
                   proto=protocol if mode == "ipip" else 17)
    if mode == "ipip":
        return bytes(head / outer / Raw(inner))
    at = 14 + (40 if ":" in backend else 20)
    port = int.from_bytes(got[at:at + 2], "big")
    assert 49152 <= port <= 65535, "source port of the tunnel"
    gue = bytes([0, protocol, 0, 0])
    udp = UDP(sport=port, dport=6080) if ":" in backend else UDP(sport=port, dport=6080, chksum=0)
    return bytes(head / outer / udp / Raw(gue + inner))


def packed(address):
    return ip_address(address).packed


def changed_l4(l4, protocol, ports, src, dst):
    """With new ports and the checksum of new addresses. A UDP checksum of 0 stays in IPv4."""
    l4 = b"".join(p.to_bytes(2, "big") for p in ports) + l4[4:]
    if protocol == 132:
        return with_crc(l4)
    if protocol == 17 and l4[6:8] == b"\0\0" and "." in src and "." in dst:
        return l4
    return with_checksum(packed(src), packed(dst), protocol, l4)


def clamped(l4, protocol, mss):
    """The MSS option, where scapy puts it first."""
    if protocol == 6 and l4[13] & 2 and l4[20:22] == b"\x02\x04" and int.from_bytes(l4[22:24], "big") > mss:
        return l4[:22] + mss.to_bytes(2, "big") + l4[24:]
    return l4


def crossed(state, frame, src, dst, ports):
    """The other family's packet, RFC 7915 4.1 and 5.1: TOS is traffic class, no flow label, DF, no identification, no extension headers."""
    frame = bytes(frame)
    protocol, at, _ = l4_of(frame)
    inner = inner_of(frame)
    tos, ttl = (inner[1], inner[8]) if "." not in src else ((inner[0] << 4 | inner[1] >> 4) & 0xff, inner[7])
    head = Ether(src=LB, dst=out_mac(state, dst))
    if "." in src:
        head = head / IP(src=src, dst=dst, ttl=ttl - 1, tos=tos, id=0, flags="DF", proto=protocol)
    else:
        head = head / IPv6(src=src, dst=dst, hlim=ttl - 1, tc=tos, fl=0, nh=protocol)
    l4 = clamped(frame[at:14 + len(inner)], protocol, min(state.scene.mtu - 60, state.scene.mtu - 40))
    l4 = b"".join(p.to_bytes(2, "big") for p in ports) + l4[4:]
    return bytes(head / Raw(with_checksum(packed(src), packed(dst), protocol, l4)))


# ---------------------------------------------------------------- what becomes of a frame

def l4_ports(frame):
    """Protocol, source and destination port."""
    frame = bytes(frame)
    protocol, at, _ = l4_of(frame)
    return protocol, int.from_bytes(frame[at:at + 2], "big"), int.from_bytes(frame[at + 2:at + 4], "big")


BEHIND = {(6, 80): 8080, (17, 53): 5353, (132, 3868): 13868}
FRONT = {(p, behind): front for (p, front), behind in BEHIND.items()}


def to_backend(state, frame, got, port=None):
    """port: the source port towards the backend, where it is another flow's than the story's first."""
    mode = state.scene.mode
    if mode in ("ipip", "gue"):
        return tunnelled(state, frame, got)
    if mode == "l2dsr":
        return bytes.fromhex((out_mac(state, state.backend) + LB).replace(":", "")) + bytes(frame)[12:]
    protocol, sport, dport = l4_ports(frame)
    ports = (sport if mode == "dnat" else port or state.port, BEHIND[protocol, dport])
    assert mode == "dnat" or 1024 <= ports[0] <= 65535
    if state.scene.crosses:
        return crossed(state, frame, state.snat, state.backend, ports)
    return translated(state, frame, state.snat if mode == "fullnat" else state.client, state.backend, ports)


def to_client(state, frame, got):
    protocol, sport, _ = l4_ports(frame)
    ports = (FRONT[protocol, sport], state.sport)
    if state.scene.crosses:
        return crossed(state, frame, state.vip, state.client, ports)
    return translated(state, frame, state.vip, state.client, ports)


def padded(want):
    """NAT modes and l2dsr leave Ethernet padding where it is."""
    return lambda state, frame, got: want(state, frame[:14 + len(inner_of(frame))], got) + \
        (frame[14 + len(inner_of(frame)):] if state.scene.mode in ("fullnat", "dnat", "l2dsr") else b"")


def forward(frame, **kw):
    """The client's frame goes to its backend."""
    return Step(frame, Want("forward", out=to_backend, learns=True, **kw))


def fresh(frame):
    """The first packet of one more flow of the client, to the same backend: with a source port of its own."""
    return Step(frame, Want("forward", learns=True, out=lambda state, frame, got: to_backend(
        state, frame, got, port=l4_ports(got)[1])))


def back(frame, **kw):
    """The backend's frame goes to the client."""
    return Step(frame, Want("forward", out=to_client, **kw))


# ---------------------------------------------------------------- answers

def answer_ip(state, packet, nh):
    ip = packet[state.layer]
    if state.family == 4:
        return Ether(src=LB, dst=GATEWAY) / IP(src=ip.dst, dst=ip.src, ttl=64, id=0, flags="DF", proto=nh)
    return Ether(src=LB, dst=GATEWAY) / IPv6(src=ip.dst, dst=ip.src, hlim=64, nh=nh)


def reset_of(state, frame, got):
    packet = as_packet(frame)
    tcp = packet[TCP]
    if "A" in str(tcp.flags):
        rst = TCP(sport=tcp.dport, dport=tcp.sport, seq=tcp.ack, ack=0, flags="R", window=0)
    else:
        n = len(bytes(tcp.payload)) + ("S" in str(tcp.flags)) + ("F" in str(tcp.flags))
        rst = TCP(sport=tcp.dport, dport=tcp.sport, seq=0, ack=(tcp.seq + n) & 0xffffffff, flags="RA", window=0)
    return bytes(answer_ip(state, packet, 6) / rst)


def error_of(kind4, kind6):
    """n_here: what there is of the frame to quote, when that is not all."""
    def want(state, frame, got, n_here=None):
        packet = as_packet(frame)
        quoted = inner_of(bytes(frame)[:n_here])
        if state.family == 4:
            return bytes(answer_ip(state, packet, 1) / kind4 / Raw(quoted[:576 - 28]))
        return bytes(answer_ip(state, packet, 58) / kind6 / Raw(quoted[:1280 - 48]))
    return want


def too_big_of(mtu4, mtu6):
    return error_of(ICMP(type=3, code=4, nexthopmtu=mtu4), ICMPv6PacketTooBig(mtu=mtu6))


unreachable_of = error_of(ICMP(type=3, code=3), ICMPv6DestUnreach(code=4))
time_exceeded_of = error_of(ICMP(type=11, code=0), ICMPv6TimeExceeded(code=0))


def echo_of(state, frame, got):
    """The request with its type changed and its addresses swapped; IPv4 keeps its other fields."""
    packet = afresh(as_packet(frame))
    ip = packet[state.layer]
    packet[Ether].src, packet[Ether].dst = LB, GATEWAY
    ip.src, ip.dst = ip.dst, ip.src
    if state.family == 4:
        ip.ttl = 64
        packet[ICMP].type = 0
        return bytes(packet)
    ip.hlim = 64
    request = packet[IPv6].payload
    reply = ICMPv6EchoReply(id=request.id, seq=request.seq, data=request.data)
    return bytes(Ether(src=LB, dst=GATEWAY) / IPv6(src=ip.src, dst=ip.dst, hlim=64, tc=ip.tc, fl=ip.fl) / reply)


def reply(frame, reason, out):
    return Step(frame, Want("reply", reason, out=out))
