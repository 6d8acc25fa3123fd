#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""scapy as an independent oracle of rewrites and answers, byte by byte, over random packets.

    rewrite_check.py [PACKETS [SEED]]      SLUICE_BUILD: the build folder (default build)

Drives sluice-replay. A first run shows which source port and backend each flow gets; from then on what must come
out of every packet is known: scapy edits a copy of what went in and computes all checksums afresh. A second run adds the
other half of the traffic: answers of backends, and ICMP errors about packets in both directions.
"""
import logging
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "replay"))

logging.getLogger("scapy").setLevel(logging.ERROR)  # frames are written raw: "inconsistent linktypes"
from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import (ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6PacketTooBig,  # noqa: E402
                                ICMPv6TimeExceeded, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, PadN)
from scapy.layers.l2 import Ether  # noqa: E402
from scapy.packet import Raw  # noqa: E402

from player import GATEWAY, LB, SNAT4, SNAT6, START, VIP4, VIP6, play  # noqa: E402

STEP = 0.002  # answers are limited to 1,000 a second
CHECKSUMS = ("chksum", "cksum", "len", "plen")


def ip_layer(v6):
    return IPv6 if v6 else IP


def vip(v6):
    return VIP6 if v6 else VIP4


def snat(v6):
    return SNAT6 if v6 else SNAT4


def resum(packet):
    """Bytes of a packet with lengths and checksums computed afresh; a UDP/IPv4 checksum of 0 stays."""
    layer = packet
    while layer is not None and layer.name not in ("NoPayload", "Raw", "Padding"):
        if layer.name != "UDP" or layer.chksum != 0:
            for field in CHECKSUMS:
                if field in layer.fields:
                    delattr(layer, field)
        layer = layer.payload
    return bytes(packet)


def edited(frame, src, dst, sport, dport):
    """A forwarded frame: MACs, addresses, ports, TTL less one."""
    packet = Ether(frame)
    packet.src, packet.dst = LB, GATEWAY
    ip = packet.payload
    ip.src, ip.dst = src, dst
    if ip.version == 6:
        ip.hlim -= 1
    else:
        ip.ttl -= 1
    l4 = packet[TCP] if TCP in packet else packet[UDP]
    l4.sport, l4.dport = sport, dport
    return resum(packet)


def answer_base(v6, to):
    ether = Ether(src=LB, dst=GATEWAY)
    if v6:
        return ether / IPv6(src=vip(v6), dst=to, hlim=64)
    return ether / IP(src=vip(v6), dst=to, ttl=64, id=0, flags="DF")


def ip_bytes(frame):
    """The IP packet of a frame, without Ethernet padding."""
    ip = frame[14:]
    n = 40 + int.from_bytes(ip[4:6], "big") if ip[0] >> 4 == 6 else int.from_bytes(ip[2:4], "big")
    return ip[:n]


def l4_offset(ip):
    if ip[0] >> 4 == 4:
        return (ip[0] & 15) * 4
    at, kind = 40, ip[6]
    while kind in (0, 43, 44, 60):
        kind, at = ip[at], at + (8 if kind == 44 else (ip[at + 1] + 1) * 8)
    return at


class Maker:
    """Random packets from clients; each with what must come of it."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.used = set()

    def client(self, v6):
        while True:
            tail = self.rng.randrange(1, 1 << 24)
            host = f"2001:db8:c:{tail >> 16:x}::{tail & 0xffff:x}" if v6 else \
                f"198.{18 + (tail >> 16 & 1)}.{tail >> 8 & 255}.{tail & 255}"
            key = host, self.rng.randrange(1, 65536)
            if key not in self.used:
                self.used.add(key)
                return key

    def payload(self, limit=200):
        kind = self.rng.randrange(6)
        n = self.rng.randrange(limit)
        return bytes(n) if kind == 0 else b"\xff" * n if kind == 1 else self.rng.randbytes(n)

    def head(self, v6, src, dst, ttl=None):
        rng = self.rng
        ether = Ether(src=GATEWAY, dst=LB)
        ttl = rng.randrange(2, 256) if ttl is None else ttl
        if not v6:
            return ether / IP(src=src, dst=dst, ttl=ttl, tos=rng.randrange(256), id=rng.randrange(65536),
                              flags=rng.choice(["", "DF"]))
        head = ether / IPv6(src=src, dst=dst, hlim=ttl, tc=rng.randrange(256), fl=rng.randrange(1 << 20))
        if rng.random() < 0.1:
            head /= IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(rng.choice([4, 12])))])
        if rng.random() < 0.1:
            head /= IPv6ExtHdrFragment(offset=0, m=0, id=rng.randrange(1 << 32))
        return head

    def padded(self, frame):
        frame = bytes(frame)
        return frame + b"\xee" * self.rng.randrange(1, 20) if self.rng.random() < 0.2 else frame

    def tcp(self, flags, sport, dport):
        rng = self.rng
        options = rng.choice([[], [("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("WScale", 7)],
                              [("NOP", None), ("NOP", None), ("Timestamp", (rng.randrange(1 << 32), 0))]])
        return TCP(sport=sport, dport=dport, flags=flags, seq=rng.randrange(1 << 32), ack=rng.randrange(1 << 32),
                   window=rng.randrange(65536), urgptr=rng.randrange(65536), options=options)

    def udp(self, v6, sport, dport):
        none = not v6 and self.rng.random() < 0.2
        return UDP(sport=sport, dport=dport, chksum=0) if none else UDP(sport=sport, dport=dport)

    # -- packets that are answered
    def echo(self, v6):
        host, _ = self.client(v6)
        body = self.payload()
        ident, seq = self.rng.choice([0, self.rng.randrange(65536)]), self.rng.choice([0, self.rng.randrange(65536)])
        head = self.head(v6, host, vip(v6), ttl=self.rng.randrange(1, 256))
        message = ICMPv6EchoRequest(id=ident, seq=seq, data=body) if v6 else ICMP(id=ident, seq=seq) / Raw(body)
        frame = bytes(head / message)
        got = Ether(frame)
        ip = got.payload
        if v6:
            want = Ether(src=LB, dst=GATEWAY) / IPv6(src=vip(v6), dst=host, hlim=64, tc=ip.tc, fl=ip.fl) / \
                ICMPv6EchoReply(id=ident, seq=seq, data=body)
        else:
            want = Ether(src=LB, dst=GATEWAY) / IP(src=vip(v6), dst=host, ttl=64, tos=ip.tos, id=ip.id, flags=ip.flags) / \
                ICMP(type=0, id=ident, seq=seq) / Raw(body)
        return self.padded(frame), bytes(want)

    def closed_tcp(self, v6):
        host, port = self.client(v6)
        flags = self.rng.choice(["S", "SA", "A", "PA", "FA", "F", "FP", "U"])
        frame = bytes(self.head(v6, host, vip(v6)) / self.tcp(flags, port, 81) / Raw(self.payload()))
        tcp = Ether(frame)[TCP]
        n = len(ip_bytes(frame)) - l4_offset(frame[14:]) - tcp.dataofs * 4
        rst = TCP(sport=81, dport=port, flags="R", seq=tcp.ack, ack=0, window=0)
        if "A" not in flags:
            n += ("S" in flags) + ("F" in flags)
            rst = TCP(sport=81, dport=port, flags="RA", seq=0, ack=(tcp.seq + n) & 0xffffffff, window=0)
        return self.padded(frame), bytes(answer_base(v6, host) / rst)

    def error_answer(self, v6, host, frame, kinds):
        quoted = ip_bytes(frame)[:1280 - 48 if v6 else 576 - 28]
        return bytes(answer_base(v6, host) / kinds[v6] / Raw(quoted))

    def closed_udp(self, v6):
        host, port = self.client(v6)
        frame = bytes(self.head(v6, host, vip(v6)) / self.udp(v6, port, 54) / Raw(self.payload(1400)))
        kinds = ICMP(type=3, code=3), ICMPv6DestUnreach(code=4)
        return self.padded(frame), self.error_answer(v6, host, frame, kinds)

    def expired(self, v6):
        host, port = self.client(v6)
        frame = bytes(self.head(v6, host, vip(v6), ttl=1) / self.udp(v6, port, 53) / Raw(self.payload(1400)))
        kinds = ICMP(type=11, code=0), ICMPv6TimeExceeded(code=0)
        return self.padded(frame), self.error_answer(v6, host, frame, kinds)


class Flow:
    """One flow: what the client sends, then what the other side sends, each with the frame that must come out."""

    def __init__(self, maker, v6, is_tcp):
        self.maker, self.v6, self.is_tcp = maker, v6, is_tcp
        self.host, self.port = maker.client(v6)
        self.vip_port, self.backend_port = (80, 8080) if is_tcp else (53, 5353)
        flags = ["S"] + [maker.rng.choice(["A", "PA", "A", "PAU"]) for _ in range(maker.rng.randrange(4))]
        self.sent = [self.client_frame(f) for f in flags]
        self.backend = self.snat_port = None

    def l4(self, flags, sport, dport):
        return self.maker.tcp(flags, sport, dport) if self.is_tcp else self.maker.udp(self.v6, sport, dport)

    def client_frame(self, flags):
        head = self.maker.head(self.v6, self.host, vip(self.v6))
        body = Raw(b"" if flags == "S" else self.maker.payload())
        return self.maker.padded(head / self.l4(flags, self.port, self.vip_port) / body)

    def learn(self, frame):
        packet = Ether(frame)
        l4 = packet[TCP] if self.is_tcp else packet[UDP]
        self.backend, self.snat_port = packet.payload.dst, l4.sport

    def forward(self, frame):
        return edited(frame, snat(self.v6), self.backend, self.snat_port, self.backend_port)

    def backward(self, frame):
        return edited(frame, vip(self.v6), self.host, self.vip_port, self.port)

    def answers(self):
        """(frame, what must come out) from the backend's side, and errors about packets of both directions."""
        flags = ["SA"] + [self.maker.rng.choice(["A", "PA"]) for _ in range(self.maker.rng.randrange(3))]
        for f in flags:
            head = self.maker.head(self.v6, self.backend, snat(self.v6))
            body = Raw(b"" if f == "SA" else self.maker.payload())
            frame = self.maker.padded(head / self.l4(f, self.backend_port, self.snat_port) / body)
            yield frame, self.backward(frame)
            if self.maker.rng.random() < 0.15:  # a router on the client's side complains
                yield self.error(self.backward(frame), frame, vip(self.v6), snat(self.v6), self.backend)
        if self.maker.rng.random() < 0.3:  # a router on the backend's side
            yield self.error(self.forward(self.sent[0]), self.sent[0], snat(self.v6), vip(self.v6), self.host)

    def error(self, wire, original, to, new_src, new_dst):
        """An error from a router about `wire`, which was `original` before we rewrote it (TTL apart)."""
        v6, rng = self.v6, self.maker.rng
        router = "2001:db8:ffff::1" if v6 else "198.51.100.254"
        hops = rng.randrange(3)
        quoted, back = Ether(wire), Ether(original)
        for packet, spent in ((quoted, hops), (back, hops + 1)):  # as a router saw it, some hops later
            if v6:
                packet.payload.hlim = max(packet.payload.hlim - spent, 0) if packet is quoted else quoted.payload.hlim
            else:
                packet.payload.ttl = max(packet.payload.ttl - spent, 0) if packet is quoted else quoted.payload.ttl
        quoted, back = ip_bytes(resum(quoted)), ip_bytes(resum(back))
        start = l4_offset(quoted)
        n = rng.choice([start + 8, start + 20, 200, 500])
        kind = rng.choice([ICMPv6PacketTooBig(mtu=1400), ICMPv6TimeExceeded(), ICMPv6DestUnreach(code=4)] if v6 else
                          [ICMP(type=3, code=4, nexthopmtu=1400), ICMP(type=11), ICMP(type=3, code=3)])
        head = self.maker.head(v6, router, to)
        frame = bytes(head / kind / Raw(quoted[:n]))
        want = Ether(bytes(head / kind / Raw(back[:n])))
        want.src, want.dst = LB, GATEWAY
        want.payload.src, want.payload.dst = router, new_dst
        if v6:
            want.payload.hlim -= 1
        else:
            want.payload.ttl -= 1
        padded = self.maker.padded(frame)
        return padded, self.resum_error(want) + padded[len(frame):]

    @staticmethod
    def resum_error(packet):
        """Sums the outer headers alone: the quoted ones are as the quoted packet had them, and may be cut."""
        ip = packet.payload
        inner = ip.payload
        while inner.name not in ("ICMP",) and not inner.name.startswith("ICMPv6"):
            inner = inner.payload
        body = bytes(inner.payload)
        inner.remove_payload()
        for layer, field in ((ip, "chksum"), (inner, "chksum"), (inner, "cksum")):
            if field in layer.fields:
                delattr(layer, field)
        return bytes(packet / Raw(body))


def build(count, seed):
    maker = Maker(seed)
    story, n = [], 0
    while n < count:
        v6 = maker.rng.random() < 0.5
        kind = maker.rng.choice(["flow"] * 6 + ["echo", "closed_tcp", "closed_udp", "expired"])
        story.append(Flow(maker, v6, maker.rng.random() < 0.6) if kind == "flow" else getattr(maker, kind)(v6))
        n += 5 if kind == "flow" else 1
    return story


def run(frames):
    played = play(frames, times=[START + k * STEP for k in range(len(frames))])
    outs, at = [], 0
    for packet in played.packets:
        outs.append(played.frames[at:at + packet["out"]])
        at += packet["out"]
    return played, outs


def compare(frames, wanted, played, outs):
    n_wrong = 0
    for k, (want, got) in enumerate(zip(wanted, outs)):
        if len(got) == 1 and got[0] == want:
            continue
        n_wrong += 1
        if n_wrong <= 5:
            print(f"packet {k + 1}: {played.packets[k]}\n  in   {frames[k].hex()}\n  want {want.hex()}\n"
                  f"  got  {' '.join(g.hex() for g in got)}", file=sys.stderr)
    return n_wrong


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1624
    story = build(count, seed)
    frames = [f for item in story for f in (item.sent if isinstance(item, Flow) else [item[0]])]
    _, outs = run(frames)
    at = 0
    for item in story:
        if isinstance(item, Flow):
            if len(outs[at]) == 1:
                item.learn(outs[at][0])
            else:
                print(f"packet {at + 1} of the first run was not forwarded: {frames[at].hex()}", file=sys.stderr)
                return 1
        at += len(item.sent) if isinstance(item, Flow) else 1
    pairs = []
    for item in story:
        if isinstance(item, Flow):
            pairs += [(f, item.forward(f)) for f in item.sent] + list(item.answers())
        else:
            pairs.append(item)
    frames, wanted = [p[0] for p in pairs], [p[1] for p in pairs]
    played, outs = run(frames)
    n_wrong = compare(frames, wanted, played, outs)
    flows = [item for item in story if isinstance(item, Flow)]
    ports = {(f.v6, f.is_tcp, f.backend, f.snat_port) for f in flows}
    if len(ports) != len(flows):
        print(f"{len(flows) - len(ports)} flows share a source port towards one backend", file=sys.stderr)
        n_wrong += 1
    print(f"rewrite: seed {seed}, {len(frames)} packets of {len(flows)} flows, {n_wrong} wrong")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
