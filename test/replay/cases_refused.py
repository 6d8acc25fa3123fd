# SPDX-License-Identifier: BSD-3-Clause
"""Cases of packets that are refused by name, or are the kernel's: in every mode, both families where it makes sense."""
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, IPOption_NOP, IPOption_RR, IPOption_Timestamp
from scapy.layers.inet6 import (ICMPv6EchoReply, ICMPv6MLReport, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA, IPv6,
                                IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting)
from scapy.layers.l2 import ARP, Dot1Q, Ether, LLC, STP
from scapy.packet import Raw

from player import SNAT4, SNAT6, VIP4, VIP6
from table import case, drop, punt


def fixed(frame, first=14):
    """The frame with its IPv4 header checksum put right."""
    frame = bytearray(frame)
    n = (frame[first] & 15) * 4
    frame[first + 10:first + 12] = b"\0\0"
    total = sum(int.from_bytes(frame[at:at + 2], "big") for at in range(first, first + n, 2))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    frame[first + 10:first + 12] = (~total & 0xffff).to_bytes(2, "big")
    return bytes(frame)


def edited(frame, **edits):
    """at_<offset>=byte(s) set in the frame; the IPv4 checksum is put right."""
    frame = bytearray(bytes(frame))
    for at, value in edits.items():
        value = value if isinstance(value, bytes) else bytes([value])
        at = int(at[3:])
        frame[at:at + len(value)] = value
    return fixed(frame) if frame[14] >> 4 == 4 and frame[14] & 15 >= 5 else bytes(frame)


def query(c, **kw):
    return c.up(c.udp() / Raw(b"x" * 20), **kw)


# ---------------------------------------------------------------- frames
case("other-station", drop(lambda c: edited(query(c), at_0=b"\x02\x00\x00\x00\x00\x99"), "not_our_mac"))
for n in (1, 6, 13):
    case(f"ethernet-{n}-bytes", drop(lambda c, n=n: bytes(query(c))[:n], "ethernet_truncated"))
case("ethernet-alone", drop(lambda c: bytes(query(c))[:14], "ipv4_truncated"), families=(4,))
case("ethernet-alone", drop(lambda c: bytes(query(c))[:14], "ipv6_truncated"), families=(6,))

# ---------------------------------------------------------------- IPv4 header
V4 = {"version-6": (dict(at_14=0x65), "ipv4_bad_version"), "version-0": (dict(at_14=0x05), "ipv4_bad_version"),
      "header-of-16": (dict(at_14=0x44), "ipv4_bad_version"), "header-of-0": (dict(at_14=0x40), "ipv4_bad_version"),
      "total-beyond-frame": (dict(at_16=b"\x00\x40"), "ipv4_bad_length"),
      "total-far-beyond": (dict(at_16=b"\xff\xff"), "ipv4_bad_length"),
      "total-below-header": (dict(at_16=b"\x00\x13"), "ipv4_bad_length"),
      "total-0": (dict(at_16=b"\x00\x00"), "ipv4_bad_length"),
      "header-beyond-total": (dict(at_14=0x4f), "ipv4_bad_length")}
for name, (edits, reason) in V4.items():
    case(f"ipv4-{name}", drop(lambda c, e=edits: edited(query(c), **e), reason), families=(4,))
for bit in (0x0001, 0x8000, 0x1234):
    def wrong(c, b=bit):
        frame = bytearray(bytes(query(c)))
        frame[24:26] = (int.from_bytes(frame[24:26], "big") ^ b).to_bytes(2, "big")
        return bytes(frame)
    case(f"ipv4-checksum-{bit:04x}", drop(wrong, "ipv4_bad_checksum"), families=(4,))
for name, option in {"record-route": IPOption_RR(routers=["0.0.0.0"]), "source-route": IPOption_LSRR(routers=["10.0.0.1"]),
                     "timestamp": IPOption_Timestamp(), "nop": IPOption_NOP()}.items():
    case(f"ipv4-option-{name}", drop(lambda c, o=option: query(c, options=[o.copy()]), "ipv4_options"), families=(4,))

# ---------------------------------------------------------------- IPv6 headers
V6 = {"version-4": (dict(at_14=0x40), "ipv6_bad_version"), "version-7": (dict(at_14=0x70), "ipv6_bad_version"),
      "payload-beyond-frame": (dict(at_18=b"\x00\x40"), "ipv6_bad_length"),
      "payload-65535": (dict(at_18=b"\xff\xff"), "ipv6_bad_length"),
      "payload-0": (dict(at_18=b"\x00\x00"), "udp_truncated")}
for name, (edits, reason) in V6.items():
    case(f"ipv6-{name}", drop(lambda c, e=edits: edited(query(c), **e), reason), families=(6,))


def nine(c):
    chain = IPv6ExtHdrDestOpt()
    for _ in range(8):
        chain = chain / IPv6ExtHdrDestOpt()
    return c.up(chain / c.udp())


case("ipv6-nine-headers", drop(nine, "ipv6_too_many_headers"), families=(6,))
for kind in (0, 2, 4):
    case(f"ipv6-routing-{kind}", drop(lambda c, k=kind: c.up(IPv6ExtHdrRouting(type=k, segleft=1, addresses=["2001:db8::99"]) /
                                                             c.udp()), "ipv6_routing_header"), families=(6,))
case("ipv6-hop-by-hop-late", drop(lambda c: c.up(IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / c.udp()),
                                  "unsupported_protocol"), families=(6,))
case("ipv6-option-overruns", drop(lambda c: edited(c.up(IPv6ExtHdrDestOpt() / c.udp()), at_55=9), "ipv6_truncated"),
     families=(6,))
case("ipv6-no-next-header", drop(lambda c: edited(query(c), at_20=59), "unsupported_protocol"), families=(6,))
case("ipv6-mapped-source", drop(lambda c: edited(query(c), at_22=b"\0" * 10 + b"\xff\xff" + b"\xc6\x33\x64\x07"),
                                "impossible_source"), families=(6,))

# ---------------------------------------------------------------- sources
SOURCES = {4: {"loopback": "127.0.0.1", "unspecified": "0.0.0.0", "multicast": "224.0.0.1", "broadcast": "255.255.255.255",
               "vip": VIP4, "snat": SNAT4},
           6: {"loopback": "::1", "unspecified": "::", "multicast": "ff02::1", "vip": VIP6, "snat": SNAT6}}
for family, sources in SOURCES.items():
    for name, src in sources.items():
        case(f"source-{name}-syn", drop(lambda c, s=src: c.up(c.tcp("S"), src=s), "impossible_source"), families=(family,))
        case(f"source-{name}-udp", drop(lambda c, s=src: query(c, src=s), "impossible_source"), families=(family,))

# ---------------------------------------------------------------- TCP and UDP headers
for name, flags in {"none": 0, "syn-fin": 3, "syn-rst": 6, "all": 0xff, "ece-cwr-alone": 0xc0, "syn-fin-ack": 0x13}.items():
    case(f"tcp-flags-{name}", drop(lambda c, f=flags: c.up(TCP(sport=c.sport, dport=80, flags=f)), "tcp_bad_flags"))
for words in (0, 4, 6, 15):
    case(f"tcp-header-of-{words * 4}", drop(lambda c, w=words: c.up(TCP(sport=c.sport, dport=80, flags="S", dataofs=w)),
                                            "tcp_bad_offset"))
for n in (0, 1, 7, 12, 19):
    case(f"tcp-of-{n}-bytes", drop(lambda c, n=n: c.up(Raw(bytes(TCP(sport=c.sport, dport=80, flags="S"))[:n]),
                                                       **({"proto": 6} if c.family == 4 else {"nh": 6})), "tcp_truncated"))
for n in (0, 1, 4, 7):
    case(f"udp-of-{n}-bytes", drop(lambda c, n=n: c.up(Raw(bytes(UDP(sport=c.sport, dport=53))[:n]),
                                                       **({"proto": 17} if c.family == 4 else {"nh": 17})), "udp_truncated"))
for length in (0, 7, 8, 27, 29, 65535):
    case(f"udp-length-{length}", drop(lambda c, n=length: c.up(UDP(sport=c.sport, dport=53, len=n) / Raw(b"x" * 20)),
                                      "udp_bad_length"))
case("udp-without-checksum", drop(lambda c: c.up(c.udp(chksum=0) / Raw(b"abc")), "bad_l4_checksum"), families=(6,))

# ---------------------------------------------------------------- what a VIP does not speak
for name, number in {"gre": 47, "esp": 50, "ah-like": 51, "ip-in-ip": 4, "ipv6-in-ip": 41, "unknown": 253}.items():
    case(f"protocol-{name}", drop(lambda c, n=number: c.up(Raw(b"\x45" + b"\0" * 39),
                                                           **({"proto": n} if c.family == 4 else {"nh": n})),
                                  "unsupported_protocol"))
case("echo-reply-to-vip", drop(lambda c: c.up(ICMP(type=0, id=1, seq=1) if c.family == 4 else ICMPv6EchoReply(id=1)),
                               "icmp_unsupported_type"))
case("icmp-timestamp", drop(lambda c: c.up(ICMP(type=13)), "icmp_unsupported_type"), families=(4,))
case("icmp-redirect", drop(lambda c: c.up(ICMP(type=5) / IP(src=c.vip, dst=c.client) / UDP()), "icmp_unsupported_type"),
     families=(4,))
for n in (1, 4, 7):
    case(f"icmp-of-{n}-bytes", drop(lambda c, n=n: c.up(Raw(b"\x08\0\0\0\0\0\0\0"[:n] if c.family == 4 else
                                                            b"\x80\0\0\0\0\0\0\0"[:n]),
                                                        **({"proto": 1} if c.family == 4 else {"nh": 58})),
                                    "icmp_truncated"))


# ---------------------------------------------------------------- the source address's ports
def to_snat(c, l4):
    return c.up(l4, dst=c.snat)


case("snat-no-flow-syn-ack", drop(lambda c: to_snat(c, TCP(sport=8080, dport=5000, flags="SA")), "no_flow_quiet"))
case("snat-no-flow-udp", drop(lambda c: to_snat(c, UDP(sport=5353, dport=5000) / Raw(b"x")), "no_flow_quiet"))
case("snat-ssh", punt(lambda c: to_snat(c, TCP(sport=c.sport, dport=22, flags="S"))))
case("snat-bgp", punt(lambda c: to_snat(c, TCP(sport=c.sport, dport=179, flags="S"))))
case("snat-ping", punt(lambda c: to_snat(c, ICMP() if c.family == 4 else ICMPv6EchoReply(id=1))))
case("snat-gre", punt(lambda c: to_snat(c, Raw(b"\0" * 20)) if c.family == 4 else
                      c.up(Raw(b"\0" * 20), dst=c.snat, nh=47)), families=(6,))

# ---------------------------------------------------------------- the kernel's
OTHER = {4: "192.0.2.200", 6: "2001:db8::c8"}
case("foreign-tcp", punt(lambda c: c.up(TCP(sport=c.sport, dport=80, flags="S"), dst=OTHER[c.family])))
case("foreign-udp", punt(lambda c: c.up(c.udp() / Raw(b"x"), dst=OTHER[c.family])))
case("foreign-ping", punt(lambda c: c.up(ICMP() if c.family == 4 else ICMPv6EchoReply(id=1), dst=OTHER[c.family])))
case("foreign-ip-in-ip", punt(lambda c: c.up(c.ip(c.client, c.vip) / c.udp() / Raw(b"inner"), dst=OTHER[c.family])))
case("foreign-bfd", punt(lambda c: c.up(UDP(sport=49152, dport=3784) / Raw(b"\x20" * 24), dst=OTHER[c.family], ttl=255)))
case("foreign-bgp", punt(lambda c: c.up(TCP(sport=c.sport, dport=179, flags="S"), dst=OTHER[c.family])))
case("foreign-odd-flags", punt(lambda c: c.up(TCP(sport=c.sport, dport=80, flags=0), dst=OTHER[c.family])))
case("foreign-options", punt(lambda c: c.up(c.udp(), dst=OTHER[4], options=[IPOption_RR(routers=["0.0.0.0"])])), families=(4,))
case("foreign-fragment", punt(lambda c: c.up(c.udp() / Raw(b"x" * 24), dst=OTHER[4], flags="MF")), families=(4,))
case("foreign-fragment", punt(lambda c: c.up(IPv6ExtHdrFragment(m=1, id=3) / c.udp() / Raw(b"x" * 24), dst=OTHER[6])),
     families=(6,))
case("arp-request", punt(lambda c: Ether(src=c.ether().src, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, psrc=c.client, pdst=c.vip)),
     families=(4,))
case("arp-reply", punt(lambda c: c.ether() / ARP(op=2, psrc=c.client, pdst=c.vip)), families=(4,))
case("vlan", punt(lambda c: Ether(src=c.ether().src, dst=c.ether().dst) / Dot1Q(vlan=5) / query(c).payload))
case("spanning-tree", punt(lambda c: Ether(src=c.ether().src, dst="01:80:c2:00:00:00", type=0x26) / LLC() / STP()), families=(4,))
case("lldp", punt(lambda c: Ether(src=c.ether().src, dst="01:80:c2:00:00:0e", type=0x88cc) / Raw(b"\x02\x07\x04" + b"\0" * 40)),
     families=(4,))
case("igmp", punt(lambda c: Ether(src=c.ether().src, dst="01:00:5e:00:00:16") / IP(src=c.client, dst="224.0.0.22", proto=2) /
                  Raw(b"\x22\0\xf9\xff\0\0\0\0")), families=(4,))
case("dhcp", punt(lambda c: Ether(src=c.ether().src, dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255") /
                  UDP(sport=68, dport=67) / Raw(b"\1" * 60)), families=(4,))
case("ospf", punt(lambda c: Ether(src=c.ether().src, dst="01:00:5e:00:00:05") / IP(src=c.client, dst="224.0.0.5", proto=89) /
                  Raw(b"\2" * 44)), families=(4,))
case("nd-solicit-group", punt(lambda c: Ether(src=c.ether().src, dst="33:33:ff:00:00:10") /
                              IPv6(src=c.client, dst="ff02::1:ff00:10", hlim=255) / ICMPv6ND_NS(tgt=c.vip)), families=(6,))
for name, message in {"solicit": ICMPv6ND_NS(tgt=VIP6), "advert": ICMPv6ND_NA(tgt=VIP6)}.items():
    case(f"nd-{name}-vip", punt(lambda c, m=message: c.up(m.copy(), ttl=255)), families=(6,))
case("nd-router-advert", punt(lambda c: Ether(src=c.ether().src, dst="33:33:00:00:00:01") /
                              IPv6(src="fe80::1", dst="ff02::1", hlim=255) / ICMPv6ND_RA()), families=(6,))
case("mld-report", punt(lambda c: Ether(src=c.ether().src, dst="33:33:00:00:00:16") /
                        IPv6(src="fe80::1", dst="ff02::16", hlim=1) / IPv6ExtHdrHopByHop() / ICMPv6MLReport()), families=(6,))
case("duplicate-address-detection", punt(lambda c: Ether(src=c.ether().src, dst="33:33:ff:00:00:10") /
                                         IPv6(src="::", dst="ff02::1:ff00:10", hlim=255) / ICMPv6ND_NS(tgt=c.vip)),
     families=(6,))
