#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""An oracle of the packet rewriters, mode by mode, byte by byte, over random packets.

    modes_check.py DRIVER [PACKETS_PER_MODE [SEED [SCAPY_SHARE]]]

What a packet is, and what must become of it, is one record of fields each; bytes are made of both by struct and arithmetic of
its own (a checksum is a remainder of division by 65535), as scapy takes milliseconds a packet. Of a share of the packets (SCAPY_SHARE,
default 0.05; 1: of all) scapy makes the bytes of the input and of the expectation too, from the fields, with its own checksums.
"""
import copy
import logging
import random
import socket
import struct
import subprocess
import sys
from collections import Counter

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.layers.inet import IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, PadN, in6_chksum  # noqa: E402
from scapy.layers.l2 import Ether  # noqa: E402
from scapy.layers.sctp import SCTP  # noqa: E402
from scapy.packet import Raw  # noqa: E402
from scapy.utils import checksum as scapy_checksum  # noqa: E402

ICMP4, TCP_NUMBER, UDP_NUMBER, ICMP6, SCTP_NUMBER = 1, 6, 17, 58, 132
# enum mode of the driver
NAT, IPIP, GUE, L2DSR, CROSS, ICMP_ERROR, ICMP_ERROR_CROSS, RELAYED_ERROR, MSS = range(9)
MAC_IN = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")
MAC_OUT = bytes.fromhex("020000000033"), bytes.fromhex("020000000022")
DEST_OPTIONS, FRAGMENT = 60, 44


# ---------------------------------------------------------------- bytes from fields
def ones_sum(data):
    """One's-complement sum of big-endian words: 0 for nothing but zeros, else 1..65535."""
    if len(data) & 1:
        data += b"\0"
    number = int.from_bytes(data, "big")
    return number % 65535 or (65535 if number else 0)


def internet_checksum(data):
    return 65535 - ones_sum(data)


CRC_TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    CRC_TABLE.append(n)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


class Packet:
    """The fields of one IP packet. l4: header and payload behind the ports; `extensions`: list of (number, content bytes)."""
    macs, padding = MAC_IN, b""
    tos, ttl, label, ident, df = 0, 64, 0, 0, True
    extensions = ()
    fragment = 0  # IPv4 offset and more fragments; such a packet's L4 is left as it is
    sport = dport = None
    no_checksum = False

    def __init__(self, v6, src, dst, proto, l4, **fields):
        self.v6, self.src, self.dst, self.proto, self.l4 = v6, src, dst, proto, l4
        self.__dict__.update(fields)

    def but(self, **fields):
        other = copy.copy(self)
        other.__dict__.update(fields)
        return other

    def pseudo(self, n):
        return self.src + self.dst + struct.pack("!II" if self.v6 else "!HH", *((n, self.proto) if self.v6 else (self.proto, n)))

    def l4_bytes(self):
        ports = b"" if self.sport is None else struct.pack("!HH", self.sport, self.dport)
        whole = ports + self.l4
        n = len(whole)
        if self.fragment or self.proto not in CHECKSUM_AT:
            return whole
        at, width = CHECKSUM_AT[self.proto]
        if self.proto == UDP_NUMBER:
            whole = whole[:4] + struct.pack("!HH", n, 0) + whole[8:]
            if self.no_checksum:
                return whole
        before, after = whole[:at], whole[at + width:]
        if self.proto == SCTP_NUMBER:
            return before + struct.pack("<I", crc32c(before + bytes(4) + after)) + after
        pseudo = b"" if self.proto == ICMP4 else self.pseudo(n)
        value = internet_checksum(pseudo + before + b"\0\0" + after)
        if self.proto == UDP_NUMBER and value == 0:
            value = 65535
        return before + struct.pack("!H", value) + after

    def ip_bytes(self):
        l4 = self.l4_bytes()
        if self.v6:
            chain, kind = b"", self.proto
            for number, content in reversed(self.extensions):
                chain, kind = bytes([kind]) + content + chain, number
            return struct.pack("!IHBB", 6 << 28 | self.tos << 20 | self.label, len(chain) + len(l4), kind, self.ttl) + \
                self.src + self.dst + chain + l4
        head = struct.pack("!BBHHHBB", 0x45, self.tos, 20 + len(l4), self.ident, (0x4000 if self.df else 0) | self.fragment,
                           self.ttl, self.proto)
        return head + struct.pack("!H", internet_checksum(head + self.src + self.dst)) + self.src + self.dst + l4

    def frame(self):
        return self.macs[0] + self.macs[1] + (b"\x86\xdd" if self.v6 else b"\x08\x00") + self.ip_bytes() + self.padding

    # ---------------------------------------------------------------- and once more, by scapy
    def scapy_frame(self):
        text = [":".join(f"{b:02x}" for b in mac) for mac in self.macs]
        src, dst = (socket.inet_ntop(socket.AF_INET6 if self.v6 else socket.AF_INET, a) for a in (self.src, self.dst))
        ether = Ether(dst=text[0], src=text[1])
        if self.v6:
            head = ether / IPv6(src=src, dst=dst, tc=self.tos, fl=self.label, hlim=self.ttl)
            for number, content in self.extensions:
                head /= IPv6ExtHdrDestOpt(options=[PadN(optdata=content[3:])]) if number == DEST_OPTIONS else \
                    IPv6ExtHdrFragment(offset=0, m=content[2] & 1, id=int.from_bytes(content[3:], "big"))
            head.lastlayer().nh = self.proto
        else:
            flags = ("DF" if self.df else "") + ("+MF" if self.fragment & 0x2000 else "")
            head = ether / IP(src=src, dst=dst, tos=self.tos, ttl=self.ttl, id=self.ident, flags=flags.strip("+"),
                              frag=self.fragment & 0x1FFF, proto=self.proto)
        return bytes(head / self.scapy_l4(src, dst)) + self.padding

    def scapy_l4(self, src, dst):
        if not self.fragment and self.proto == TCP_NUMBER:
            seq, ack, off, flags, window, _, urgent = struct.unpack("!IIBBHHH", self.l4[:16])
            return TCP(sport=self.sport, dport=self.dport, seq=seq, ack=ack, dataofs=off >> 4, flags=flags, window=window,
                       urgptr=urgent, reserved=0) / Raw(self.l4[16:])
        if not self.fragment and self.proto == UDP_NUMBER:
            chosen = {"chksum": 0} if self.no_checksum else {}
            return UDP(sport=self.sport, dport=self.dport, **chosen) / Raw(self.l4[4:])
        if not self.fragment and self.proto == SCTP_NUMBER:
            return SCTP(sport=self.sport, dport=self.dport, tag=int.from_bytes(self.l4[:4], "big")) / Raw(self.l4[8:])
        raw = (b"" if self.sport is None else struct.pack("!HH", self.sport, self.dport)) + self.l4
        if self.proto == ICMP4 and not self.fragment:
            raw = raw[:2] + b"\0\0" + raw[4:]
            raw = raw[:2] + struct.pack("!H", scapy_checksum(raw)) + raw[4:]
        elif self.proto == ICMP6 and self.v6 and not self.fragment:
            raw = raw[:2] + b"\0\0" + raw[4:]
            raw = raw[:2] + struct.pack("!H", in6_chksum(ICMP6, IPv6(src=src, dst=dst), raw)) + raw[4:]
        return Raw(raw)


CHECKSUM_AT = {TCP_NUMBER: (16, 2), UDP_NUMBER: (6, 2), SCTP_NUMBER: (8, 4), ICMP4: (2, 2), ICMP6: (2, 2)}


# ---------------------------------------------------------------- random packets
class Maker:
    def __init__(self, seed):
        self.rng = random.Random(seed)

    def any_address(self, v6):
        """What a rewrite may put in: words of 0 and ffff are the corners of one's-complement sums."""
        rng = self.rng
        words = [rng.choice((0, 0xFFFF, None, None, None, None, None, None)) for _ in range(8 if v6 else 2)]
        words = [rng.randrange(65536) if w is None else w for w in words]
        if v6:
            words[0] = 0x2000 | words[0] & 0x1FFF
        return struct.pack(f"!{len(words)}H", *words)

    def host(self, v6):
        """What the parser takes for a source."""
        if v6:
            return self.any_address(True)
        return bytes([self.rng.choice((10, 100, 192, 198, 223))]) + self.any_address(False)[1:]

    def payload(self, limit=160):
        rng = self.rng
        kind, n = rng.randrange(8), rng.randrange(limit)
        if kind == 2:
            n = rng.randrange(1400)
        return bytes(n) if kind == 0 else b"\xff" * n if kind == 1 else rng.randbytes(n)

    def tcp(self, options=None, flags=None):
        rng = self.rng
        if options is None:
            options = b"\x01" * (4 * rng.choice((0, 0, 3, 5, 10)))
        return struct.pack("!IIBBHHH", rng.randrange(1 << 32), rng.randrange(1 << 32), (5 + len(options) // 4) << 4,
                           flags or rng.choice((2, 0x10, 0x12, 0x18, 0x11)), rng.randrange(65536), 0,
                           rng.randrange(65536)) + options

    def packet(self, v6, **fields):
        """A packet of a flow."""
        rng = self.rng
        proto = fields.pop("proto", None) or rng.choice((TCP_NUMBER,) * 4 + (UDP_NUMBER,) * 4 + (SCTP_NUMBER,))
        body = self.payload()
        if proto == TCP_NUMBER:
            l4 = self.tcp() + body
        elif proto == UDP_NUMBER:
            l4 = bytes(4) + body
        else:
            l4 = rng.randrange(1, 1 << 32).to_bytes(4, "big") + bytes(4) + struct.pack("!BBH", 0, 3, 4 + len(body)) + body
        extensions = []
        if v6 and rng.random() < 0.15:
            extensions.append((DEST_OPTIONS, b"\0\x01\x04\0\0\0\0"))
        if v6 and rng.random() < 0.15:
            extensions.append((FRAGMENT, b"\0\0\0" + rng.randbytes(4)))
        chosen = dict(sport=rng.randrange(65536), dport=rng.randrange(65536), tos=rng.randrange(256), ttl=rng.randrange(2, 256),
                      label=rng.randrange(1 << 20), ident=rng.randrange(65536), df=rng.random() < 0.5, extensions=extensions,
                      no_checksum=proto == UDP_NUMBER and not v6 and rng.random() < 0.2,
                      padding=b"\xee" * rng.randrange(1, 20) if rng.random() < 0.2 else b"")
        return Packet(v6, self.host(v6), self.any_address(v6) if v6 else self.host(v6), proto, l4, **{**chosen, **fields})

    def any_packet(self, v6):
        """Anything that a one-way mode may carry."""
        kind = self.rng.randrange(10)
        if kind == 0 and not v6:  # a fragment: what it holds is left alone
            p = self.packet(v6, proto=TCP_NUMBER)
            first = self.rng.random() < 0.5
            body = p.l4 + bytes(-(len(p.l4) + 4) % 8 + 8)
            return p.but(df=False, fragment=0x2000 if first else 0x2000 | self.rng.randrange(50, 1000), l4=body)
        if kind == 1:
            proto = ICMP6 if v6 else ICMP4
            return self.packet(v6).but(proto=proto, sport=None, l4=bytes([128 if v6 else 8, 0, 0, 0]) + self.rng.randbytes(4) +
                                       self.payload())
        if kind == 2:
            return self.packet(v6).but(proto=50, sport=None, l4=self.payload())
        return self.packet(v6)

    def steer(self, before, after):
        """A word of payload that makes the UDP checksum of after(packet) come out as 0, that is 0xffff."""
        if before.proto != UDP_NUMBER or before.no_checksum or len(before.l4) < 6 or self.rng.random() < 0.7:
            return before
        blank = before.but(l4=bytes(4) + bytes(2) + before.l4[6:])
        return blank.but(l4=bytes(4) + after(blank).l4_bytes()[6:8] + before.l4[6:])


def mapped(address):
    return address if len(address) == 16 else bytes(10) + b"\xff\xff" + address


class Case:
    """One question to the driver and what must come back; expected None: refused, nothing changed."""

    def __init__(self, given, expected, outer=None, inner=None, **numbers):
        self.given, self.expected = given, expected
        self.outer, self.inner = outer or nat(bytes(16), bytes(16)), inner or nat(bytes(16), bytes(16))
        self.numbers = numbers

    def request(self, mode, place, frame):
        head, tail, first = place
        get = self.numbers.get
        return struct.pack("<BBHHHHHHH", mode, 0, head, tail, first, get("ident", 0), get("entropy", 0),
                           get("mss", 0), len(frame)) + self.outer + self.inner + frame


def nat(src, dst, sport=0, dport=0):
    """struct packet_nat."""
    return mapped(src) + mapped(dst) + struct.pack("!HH", sport, dport) + MAC_OUT[1] + MAC_OUT[0]


# ---------------------------------------------------------------- what must become of them, mode by mode
def case_nat(maker, v6, dnat):
    p = maker.packet(v6)
    ports = maker.rng.randrange(65536), maker.rng.randrange(65536)
    src, dst = maker.any_address(v6), maker.any_address(v6)
    if dnat:  # the client stays
        src, ports = p.src, (p.sport, ports[1])

    def after(packet):
        return packet.but(macs=MAC_OUT, src=src, dst=dst, sport=ports[0], dport=ports[1], ttl=packet.ttl - 1)
    p = maker.steer(p, after)
    return Case(p, after(p), nat(src, dst, *ports))


def outer_fields(p, v6, ident):
    df = p.v6 or p.df
    return dict(macs=MAC_OUT, tos=p.tos, ttl=64, label=0, df=df, ident=0 if df else ident)


def case_ipip(maker, inner_v6, v6):
    p = maker.any_packet(inner_v6)
    src, dst, ident = maker.any_address(v6), maker.any_address(v6), maker.rng.randrange(65536)
    want = Packet(v6, src, dst, 41 if p.v6 else 4, p.ip_bytes(), **outer_fields(p, v6, ident))
    return Case(p, want, nat(src, dst), ident=ident)


def gue(p, v6, src, dst, sport, **fields):
    return Packet(v6, src, dst, UDP_NUMBER, bytes(4) + bytes([0, 41 if p.v6 else 4, 0, 0]) + p.ip_bytes(), sport=sport, dport=6080,
                  no_checksum=not v6, **fields)


def case_gue(maker, inner_v6, v6):
    p = maker.any_packet(inner_v6)
    src, dst, ident, entropy = maker.any_address(v6), maker.any_address(v6), maker.rng.randrange(65536), maker.rng.randrange(65536)
    want = gue(p, v6, src, dst, 49152 + entropy % 16384, **outer_fields(p, v6, ident))
    if v6 and maker.rng.random() < 0.3:  # the source port that makes the checksum come out as 0, if it is one of ours
        blank = want.but(sport=0)
        port = int.from_bytes(blank.l4_bytes()[6:8], "big")
        if port >= 49152:
            entropy, want = port - 49152, want.but(sport=port)
    return Case(p, want, nat(src, dst), ident=ident, entropy=entropy)


def case_l2dsr(maker, v6):
    p = maker.any_packet(v6)
    return Case(p, p.but(macs=MAC_OUT))


def across(p, src, dst, **fields):
    return p.but(v6=not p.v6, src=src, dst=dst, label=0, ident=0, df=True, extensions=(), no_checksum=False, padding=b"", **fields)


def case_cross(maker, v6):
    p = maker.packet(v6)
    src, dst = maker.any_address(not v6), maker.any_address(not v6)
    ports = maker.rng.randrange(65536), maker.rng.randrange(65536)

    def after(packet):
        return across(packet, src, dst, macs=MAC_OUT, sport=ports[0], dport=ports[1], ttl=packet.ttl - 1)
    p = maker.steer(p, after)
    return Case(p, after(p), nat(src, dst, *ports))


def icmp(v6, src, dst, kind, quoted, **fields):
    return Packet(v6, src, dst, ICMP6 if v6 else ICMP4, struct.pack("!BBHI", kind[0], kind[1], 0, kind[2]) + quoted, **fields)


def l4_at(p):
    return (40 if p.v6 else 20) + sum(1 + len(content) for _, content in p.extensions)


def quote_lengths(maker, p):
    """How much of the L4 of p a router quotes; never half a checksum."""
    whole = len(p.ip_bytes()) - l4_at(p)
    n = maker.rng.choice((8, 20, 20, 100, 500, 1400))
    return min(max(n, 8), whole)


def error_base(maker, v6, kind, own):
    """An error from a router to own."""
    return lambda quoted: icmp(v6, maker.host(v6), own, kind, quoted, ttl=maker.rng.randrange(1, 256), tos=maker.rng.randrange(256),
                               label=maker.rng.randrange(1 << 20), ident=maker.rng.randrange(65536), df=False)


ERRORS4 = [(3, 0, 0), (3, 1, 0), (3, 3, 0), (3, 4, 1400), (3, 4, 0), (3, 13, 0), (11, 0, 0), (11, 1, 0)]
ERRORS6 = [(1, 0, 0), (1, 3, 0), (1, 4, 0), (2, 0, 1400), (2, 0, 1280), (3, 0, 0), (4, 1, 6)]


def sent_packet(maker, v6):
    """What we sent and a router complains about: no extensions, 8 bytes of L4 at least."""
    return maker.packet(v6, extensions=(), padding=b"", ttl=maker.rng.randrange(256))


def case_icmp_error(maker, v6):
    sent = sent_packet(maker, v6)
    back_src, back_dst = maker.any_address(v6), maker.any_address(v6)
    ports = maker.rng.randrange(65536), maker.rng.randrange(65536)
    back = sent.but(src=back_src, dst=back_dst, sport=ports[0], dport=ports[1])
    n = l4_at(sent) + quote_lengths(maker, sent)
    error = error_base(maker, v6, maker.rng.choice(ERRORS6 if v6 else ERRORS4), sent.src)(sent.ip_bytes()[:n])
    src, dst = maker.any_address(v6), maker.any_address(v6)
    want = error.but(macs=MAC_OUT, src=src, dst=dst, ttl=error.ttl - 1, l4=error.l4[:8] + back.ip_bytes()[:n])
    return Case(error, want, nat(src, dst), nat(back_src, back_dst, *ports))


# RFC 7915 4.2 and 5.2: what each error is in the other family; None: has none.
def translate4(kind):
    number, code, word = kind
    if number == 3 and code == 4:
        return 2, 0, max(word + 20, 1280)
    return {(3, 0): (1, 0, 0), (3, 1): (1, 0, 0), (3, 2): (4, 1, 6), (3, 3): (1, 4, 0), (3, 5): (1, 0, 0), (3, 6): (1, 0, 0),
            (3, 7): (1, 0, 0), (3, 8): (1, 0, 0), (3, 9): (1, 1, 0), (3, 10): (1, 1, 0), (3, 11): (1, 0, 0), (3, 12): (1, 0, 0),
            (3, 13): (1, 1, 0), (3, 15): (1, 1, 0), (11, 0): (3, 0, 0), (11, 1): (3, 1, 0)}.get((number, code))


def translate6(kind):
    number, code, word = kind
    if number == 2:
        return 3, 4, max(min(word - 20, 65535), 576)
    return {(1, 0): (3, 1, 0), (1, 1): (3, 10, 0), (1, 2): (3, 1, 0), (1, 3): (3, 1, 0), (1, 4): (3, 3, 0), (3, 0): (11, 0, 0),
            (3, 1): (11, 1, 0), (4, 1): (3, 2, 0)}.get((number, code))


def case_icmp_error_cross(maker, v6):
    rng = maker.rng
    sent = sent_packet(maker, v6)
    if v6:
        kind = rng.choice([(1, rng.randrange(8), 0), (2, 0, rng.choice((0, 1280, 1400, rng.randrange(1 << 17)))),
                           (3, rng.randrange(2), 0), (4, 1, rng.randrange(100)), (4, 2, 40)])
    else:
        kind = rng.choice([(3, rng.randrange(18), 0), (3, 4, rng.randrange(65536)), (11, rng.randrange(2), 0), (12, 1, 0)])
    told = (translate6 if v6 else translate4)(kind)
    back_src, back_dst = maker.any_address(not v6), maker.any_address(not v6)
    ports = rng.randrange(65536), rng.randrange(65536)
    n_l4 = quote_lengths(maker, sent)
    back = across(sent, back_src, back_dst, sport=ports[0], dport=ports[1])
    back.no_checksum = sent.no_checksum  # of a part nobody can make one
    error = error_base(maker, v6, kind, sent.src)(sent.ip_bytes()[:l4_at(sent) + n_l4])
    src, dst = maker.any_address(not v6), maker.any_address(not v6)
    outer, inner = nat(src, dst), nat(back_src, back_dst, *ports)
    if told is None:
        return Case(error, None, outer, inner)
    limit = 576 - 48 if v6 else 1280 - 88
    quoted = back.ip_bytes()[:l4_at(back) + min(n_l4, limit)]
    want = icmp(not v6, src, dst, told, quoted, macs=MAC_OUT, ttl=error.ttl - 1, tos=error.tos)
    return Case(error, want, outer, inner)


def case_relayed_error(maker, inner_v6, v6):
    rng = maker.rng
    inner = sent_packet(maker, inner_v6)
    own, backend = maker.any_address(v6), maker.any_address(v6)
    fields = dict(outer_fields(inner, v6, rng.randrange(65536)), macs=MAC_IN)
    is_gue = rng.random() < 0.5
    tunnel = gue(inner, v6, own, backend, rng.randrange(49152, 65536), **fields) if is_gue else \
        Packet(v6, own, backend, 41 if inner.v6 else 4, inner.ip_bytes(), **fields)
    overhead = (40 if v6 else 20) + (12 if is_gue else 0)
    kind = rng.choice(ERRORS6 if v6 else ERRORS4)
    if kind[:2] == ((2, 0) if v6 else (3, 4)):
        kind = (*kind[:2], rng.choice((0, 1280, 1400, rng.randrange(65536))))
    n = overhead + l4_at(inner) + quote_lengths(maker, inner)
    error = error_base(maker, v6, kind, own)(tunnel.ip_bytes()[:n])
    if kind[0] == (4 if v6 else 12) or kind[:2] == ((3, 1) if v6 else (11, 1)):
        return Case(error, None)
    if kind[:2] == ((2, 0) if v6 else (3, 4)):
        told = (2, 0, max(kind[2] - overhead, 1280)) if inner.v6 else (3, 4, max(kind[2] - overhead, 576))
    else:
        told = (1, 3, 0) if inner.v6 else (3, 1, 0)
    quoted = inner.ip_bytes()[:n - overhead][:1280 - 48 if inner.v6 else 576 - 28]
    want = icmp(inner.v6, inner.dst, inner.src, told, quoted, macs=(MAC_IN[1], MAC_IN[0]))
    return Case(error, want)


def case_mss(maker, v6):
    rng = maker.rng
    limit = rng.randrange(500, 9000)
    options, wanted = b"", b""
    for _ in range(rng.randrange(4)):
        option = rng.choice((b"\x01", b"\x03\x03\x07", b"\x04\x02", b"\x08\x0a" + rng.randbytes(8), b"\x02\x04", b"\x02\x04"))
        if option == b"\x02\x04":
            told = rng.choice((limit, limit + 1, rng.randrange(65536)))
            options, wanted = options + option + told.to_bytes(2, "big"), wanted + option + min(told, limit).to_bytes(2, "big")
        else:
            options, wanted = options + option, wanted + option
    fill = bytes(-len(options) % 4)
    p = maker.packet(v6, proto=TCP_NUMBER, no_checksum=False)
    p.l4 = maker.tcp(options + fill, rng.choice((2, 0x12))) + p.l4[-rng.randrange(1, 20):]
    want = p.but(l4=p.l4[:16] + wanted + fill + p.l4[16 + len(wanted + fill):])
    return Case(p, want if wanted != options else None, mss=limit)


FAMILIES = {"4in4": (False, False), "6in6": (True, True), "4in6": (False, True), "6in4": (True, False)}
# name: mode of the driver, what makes a case
CASES = {
    "fullnat4": (NAT, lambda m: case_nat(m, False, False)), "fullnat6": (NAT, lambda m: case_nat(m, True, False)),
    "dnat4": (NAT, lambda m: case_nat(m, False, True)), "dnat6": (NAT, lambda m: case_nat(m, True, True)),
    **{f"ipip-{k}": (IPIP, lambda m, f=f: case_ipip(m, *f)) for k, f in FAMILIES.items()},
    **{f"gue-{k}": (GUE, lambda m, f=f: case_gue(m, *f)) for k, f in FAMILIES.items()},
    "l2dsr4": (L2DSR, lambda m: case_l2dsr(m, False)), "l2dsr6": (L2DSR, lambda m: case_l2dsr(m, True)),
    "cross-4to6": (CROSS, lambda m: case_cross(m, False)), "cross-6to4": (CROSS, lambda m: case_cross(m, True)),
    "error4": (ICMP_ERROR, lambda m: case_icmp_error(m, False)), "error6": (ICMP_ERROR, lambda m: case_icmp_error(m, True)),
    "error-4to6": (ICMP_ERROR_CROSS, lambda m: case_icmp_error_cross(m, False)),
    "error-6to4": (ICMP_ERROR_CROSS, lambda m: case_icmp_error_cross(m, True)),
    **{f"relayed-{k}": (RELAYED_ERROR, lambda m, f=f: case_relayed_error(m, *f)) for k, f in FAMILIES.items()},
    "mss4": (MSS, lambda m: case_mss(m, False)), "mss6": (MSS, lambda m: case_mss(m, True)),
}


# ---------------------------------------------------------------- room
def room(maker, case, frame, want):
    """(headroom, tailroom, first segment): enough, in one of several ways."""
    rng = maker.rng
    grow = max(0, len(want) - len(frame) + len(case.given.padding)) if want else 0
    way = rng.randrange(4)
    if way == 0:
        return grow, 0, 0
    if way == 1:
        return 0, grow, 0
    flow = case.given.sport is not None and not case.given.padding and case.given.proto in (TCP_NUMBER, UDP_NUMBER)
    if way == 2 and flow and len(frame) > 14 + l4_at(case.given) + 61:
        return 128, 0, rng.randrange(14 + l4_at(case.given) + 60, len(frame))
    return 128, 0, 0


def check_mode(driver, name, count, maker, share):
    seen, (mode, make) = Counter(), CASES[name]
    done = 0
    while done < count:
        batch = []
        for _ in range(min(5000, count - done)):
            case = make(maker)
            frame = case.given.frame()
            want = case.expected.frame() if case.expected else None
            if maker.rng.random() < share:
                seen["scapy"] += 1
                for packet, made in ((case.given, frame), (case.expected, want)):
                    if packet and packet.scapy_frame() != made:
                        return report(seen, name, "the oracle and scapy differ", frame, made, packet.scapy_frame())
            batch.append((case.request(mode, room(maker, case, frame, want), frame), frame, want))
        done += len(batch)
        out = subprocess.run([driver], input=b"".join(b[0] for b in batch), capture_output=True, check=True).stdout
        at = 0
        for _, frame, want in batch:
            ok, _, n = struct.unpack_from("<BBH", out, at)
            got = out[at + 4:at + 4 + n]
            at += 4 + n
            seen["refused" if want is None else "rewritten"] += 1
            if bool(ok) != (want is not None) or got != (want or frame):
                return report(seen, name, "the rewriter is wrong" if ok else "the rewriter refused", frame, want or frame, got)
    print(f"{name}: {done} packets, {dict(seen)}, 0 wrong", flush=True)
    return 0


def report(seen, name, what, frame, want, got):
    print(f"{name}: after {dict(seen)}: {what}\n  in   {frame.hex()}\n  want {want.hex()}\n  got  {got.hex()}", file=sys.stderr)
    return 1


def main():
    driver = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 3000
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 7915
    share = float(sys.argv[4]) if len(sys.argv) > 4 else 0.05
    print(f"modes: seed {seed}, {count} packets per mode")
    return 1 if sum(check_mode(driver, name, count, Maker(seed + k), share) for k, name in enumerate(CASES)) else 0


if __name__ == "__main__":
    sys.exit(main())
