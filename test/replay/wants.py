# SPDX-License-Identifier: BSD-3-Clause
"""What has to leave, byte for byte, computed with scapy: checksums from nothing, headers field by field. Taken from what came out are only the choices
that are sluice's: a backend, a source port, an identification without DF, a tunnel's source port; each is checked for its range."""
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from scapy.layers.dns import DNS as _DNS
from scapy.packet import split_layers

from headers import inner_of
from player import GATEWAY, LB
from table import DNS, HTTP, Step, Want


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


def translated(state, packet, src, dst, ports):
    """A NAT mode's packet: addresses, ports, TTL less one, MACs."""
    packet = afresh(as_packet(packet))
    ip = packet[state.layer]
    packet[Ether].src, packet[Ether].dst = LB, out_mac(state, dst)
    ip.src, ip.dst = src, dst
    if state.family == 4:
        ip.ttl -= 1
    else:
        ip.hlim -= 1
    for l4 in (TCP, UDP):
        if ports and l4 in packet:
            packet[l4].sport, packet[l4].dport = ports
            break
    return bytes(packet)


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


# ---------------------------------------------------------------- what becomes of a frame

def ports_of(packet):
    return HTTP if TCP in as_packet(packet) else DNS


def to_backend(state, frame, got):
    mode = state.scene.mode
    if mode in ("ipip", "gue"):
        return tunnelled(state, frame, got)
    if mode == "l2dsr":
        return bytes.fromhex((out_mac(state, state.backend) + LB).replace(":", "")) + bytes(frame)[12:]
    src = state.snat if mode == "fullnat" else state.client
    sport = state.port if mode == "fullnat" else state.sport
    assert 1024 <= sport <= 65535
    return translated(state, frame, src, state.backend, (sport, ports_of(frame)[1]))


def to_client(state, frame, got):
    return translated(state, frame, state.vip, state.client, (ports_of(frame)[0], state.sport))


def padded(want):
    """NAT modes and l2dsr leave Ethernet padding where it is."""
    return lambda state, frame, got: want(state, frame[:14 + len(inner_of(frame))], got) + \
        (frame[14 + len(inner_of(frame)):] if state.scene.mode in ("fullnat", "dnat", "l2dsr") else b"")


def forward(frame, **kw):
    """The client's frame goes to its backend."""
    return Step(frame, Want("forward", out=to_backend, learns=True, **kw))


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
