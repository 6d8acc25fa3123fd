# SPDX-License-Identifier: BSD-3-Clause
"""Cases of packets that are forwarded or answered: every mode, both families."""
import struct

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6,
                                IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from headers import inner_of
from player import GATEWAY, LB
from table import MODES, NAT, TUNNELS, case, drop, scene
from wants import (afresh, back, echo_of, forward, padded, reply, reset_of, time_exceeded_of, to_backend, to_client,
                   too_big_of, unreachable_of)

ONEWAY = TUNNELS + ["l2dsr"]
for mode in MODES:
    scene(mode, mode)

# ---------------------------------------------------------------- UDP
PAYLOADS = {"query": b"query!", "empty": b"", "odd": b"x", "large": bytes(range(250)) * 5, "zeros": b"\0" * 64,
            "ones": b"\xff" * 33}
for name, payload in PAYLOADS.items():
    case(f"udp-{name}", forward(lambda c, p=payload: c.up(c.udp() / Raw(p))))
for name, fields in {"tos": {"tos": 0xb8}, "ecn": {"tos": 0x03}, "ttl-2": {"ttl": 2}, "ttl-255": {"ttl": 255}}.items():
    case(f"udp-{name}", forward(lambda c, f=fields: c.up(c.udp() / Raw(b"x" * 20), **f)))
case("udp-df", forward(lambda c: c.up(c.udp() / Raw(b"abc"), flags="DF", id=0x1234)), families=(4,))
case("udp-flow-label", forward(lambda c: c.up(c.udp() / Raw(b"abc"), fl=0x12345)), families=(6,))
case("udp-without-checksum", forward(lambda c: c.up(c.udp(chksum=0) / Raw(b"abc"))), families=(4,))
case("udp-twice", *[forward(lambda c, k=k: c.up(c.udp() / Raw(bytes([k] * 9)))) for k in range(3)])


def with_padding(step):
    frame = step.frame
    step.frame = lambda c: bytes(frame(c)) + b"\x5a" * 18
    step.want.out = padded(step.want.out)
    return step


case("udp-padding", with_padding(forward(lambda c: c.up(c.udp() / Raw(b"hi")))))
case("tcp-padding", with_padding(forward(lambda c: c.up(c.tcp("S", seq=7)))))
case("udp-answer", forward(lambda c: c.up(c.udp() / Raw(b"question"))),
     back(lambda c: c.down(c.back_udp() / Raw(b"a longer answer"))),
     back(lambda c: c.down(c.back_udp() / Raw(b""), tos=0x20)),
     forward(lambda c: c.up(c.udp() / Raw(b"again"))), scenes=NAT)
case("udp-answer-padding", forward(lambda c: c.up(c.udp() / Raw(b"question"))),
     with_padding(back(lambda c: c.down(c.back_udp() / Raw(b"yes")))), scenes=NAT)
case("udp-answer-ttl-1", forward(lambda c: c.up(c.udp() / Raw(b"question"))),
     reply(lambda c: c.down(c.back_udp() / Raw(b"answer"), ttl=1), "ttl_exceeded", time_exceeded_of), scenes=NAT)
for ttl in (0, 1):
    case(f"udp-ttl-{ttl}", reply(lambda c, t=ttl: c.up(c.udp() / Raw(b"far"), ttl=t), "ttl_exceeded",
                                 time_exceeded_of), scenes=NAT)
    case(f"udp-ttl-{ttl}", forward(lambda c, t=ttl: c.up(c.udp() / Raw(b"far"), ttl=t)), scenes=ONEWAY)

# ---------------------------------------------------------------- TCP
SYN = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
case("tcp-syn", forward(lambda c: c.up(c.tcp("S", seq=1000, options=SYN))))
case("tcp-syn-bare", forward(lambda c: c.up(c.tcp("S"))))
case("tcp-syn-ecn", forward(lambda c: c.up(c.tcp("SEC", seq=5))))
case("tcp-syn-data", forward(lambda c: c.up(c.tcp("S", seq=9) / Raw(b"early"))))
case("tcp-syn-again", *[forward(lambda c: c.up(c.tcp("S", seq=1000, options=SYN))) for _ in range(3)])
# Options are the backend's to judge: lengths of zero, and beyond the header, pass as they are.
for name, words in {"zero": b"\x08\x00\x00\x00", "overrun": b"\x02\xff\x05\xb4", "one": b"\x02\x01\x00\x00",
                    "end-first": b"\x00\xff\xff\xff", "unknown": b"\xfd\x04\x12\x34"}.items():
    # to scapy they are payload
    case(f"tcp-option-{name}", forward(lambda c, w=words: c.up(c.tcp("S", seq=1, dataofs=6) / Raw(w))))

for flags in ("A", "PA", "FA", "SA"):
    case(f"tcp-unknown-{flags}", reply(lambda c, f=flags: c.up(c.tcp(f, seq=5, ack=99) / Raw(b"zz")), "no_flow",
                                       reset_of), scenes=NAT)
    case(f"tcp-unknown-{flags}", forward(lambda c, f=flags: c.up(c.tcp(f, seq=5, ack=99) / Raw(b"zz"))), scenes=ONEWAY)
case("tcp-unknown-F", reply(lambda c: c.up(c.tcp("F", seq=5)), "no_flow", reset_of), scenes=NAT)
for flags in ("R", "RA"):
    case(f"tcp-unknown-{flags}", drop(lambda c, f=flags: c.up(c.tcp(f, seq=5, ack=99)), "no_flow_quiet"), scenes=NAT)
    case(f"tcp-unknown-{flags}", forward(lambda c, f=flags: c.up(c.tcp(f, seq=5, ack=99))), scenes=ONEWAY)


def up(flags, load=b"", **kw):
    return forward(lambda c: c.up(c.tcp(flags, **kw) / Raw(load)))


def down(flags, load=b"", **kw):
    return back(lambda c: c.down(c.back_tcp(flags, **kw) / Raw(load)))


HANDSHAKE = [up("S", seq=1000), down("SA", seq=5000, ack=1001), up("A", seq=1001, ack=5001)]
case("tcp-whole-life", *HANDSHAKE, up("PA", b"GET / HTTP/1.0\r\n\r\n", seq=1001, ack=5001), down("A", seq=5001, ack=1019),
     down("PA", b"x" * 1000, seq=5001, ack=1019), up("A", seq=1019, ack=6001), up("FA", seq=1019, ack=6001),
     down("FA", seq=6001, ack=1020), up("A", seq=1020, ack=6002), scenes=NAT)
case("tcp-half-open-data", up("S", seq=1000), down("SA", seq=5000, ack=1001), up("PA", b"first", seq=1001, ack=5001),
     scenes=NAT)
case("tcp-half-closed-by-client", *HANDSHAKE, up("FA", seq=1001, ack=5001),
     *[down("PA", b"more", seq=5001 + 4 * k, ack=1002) for k in range(3)], up("A", seq=1002, ack=5013), scenes=NAT)
case("tcp-half-closed-by-backend", *HANDSHAKE, down("FA", seq=5001, ack=1001),
     *[up("PA", b"more", seq=1001 + 4 * k, ack=5002) for k in range(3)], down("A", seq=5002, ack=1013), scenes=NAT)
case("tcp-reset-by-client", *HANDSHAKE, up("R", seq=1001), down("R", seq=5001), scenes=NAT)
case("tcp-reset-by-backend", *HANDSHAKE, down("RA", seq=5001, ack=1001), scenes=NAT)
case("tcp-refused-by-backend", up("S", seq=1), down("RA", seq=0, ack=2), scenes=NAT)
case("tcp-urgent", *HANDSHAKE, up("PAU", b"!", seq=1001, ack=5001, urgptr=1), scenes=NAT)
case("tcp-syn-ack-again", up("S", seq=1000), *[down("SA", seq=5000, ack=1001, options=SYN) for _ in range(2)], scenes=NAT)
case("tcp-client-alone", up("S", seq=1000), up("A", seq=1001, ack=5001), up("PA", b"hello", seq=1001, ack=5001),
     up("FA", seq=1006, ack=5001), up("A", seq=1007, ack=5002), scenes=ONEWAY)
case("tcp-client-resets", up("S", seq=1000), up("A", seq=1001, ack=5001), up("R", seq=1001), up("S", seq=9000),
     scenes=ONEWAY)


# ---------------------------------------------------------------- nobody there
def to_port(c, port, l4):
    l4.sport, l4.dport = c.sport, port
    return c.up(l4)


case("closed-tcp-syn", reply(lambda c: to_port(c, 81, TCP(flags="S", seq=77)), "closed_port", reset_of))
case("closed-tcp-syn-data", reply(lambda c: to_port(c, 81, TCP(flags="S", seq=77) / Raw(b"data")), "closed_port", reset_of))
case("closed-tcp-fin", reply(lambda c: to_port(c, 81, TCP(flags="F", seq=77)), "closed_port", reset_of))
case("closed-tcp-ack", reply(lambda c: to_port(c, 81, TCP(flags="A", seq=77, ack=1234)), "closed_port", reset_of))
case("closed-tcp-options", reply(lambda c: to_port(c, 81, TCP(flags="S", seq=77, options=SYN)), "closed_port", reset_of))
case("closed-tcp-rst", drop(lambda c: to_port(c, 81, TCP(flags="R", seq=77)), "no_flow_quiet"))
for name, size in {"": 5, "-large": 1300, "-empty": 0}.items():
    case(f"closed-udp{name}", reply(lambda c, n=size: to_port(c, 54, UDP() / Raw(b"u" * n)), "closed_port",
                                    unreachable_of))
case("tcp-port-for-udp", reply(lambda c: to_port(c, 80, UDP() / Raw(b"u")), "closed_port", unreachable_of))
case("udp-port-for-tcp", reply(lambda c: to_port(c, 53, TCP(flags="S", seq=1)), "closed_port", reset_of))


# ---------------------------------------------------------------- echo
def ping(c, load=b"abcdefgh", **kw):
    l4 = ICMP(id=c.sport, seq=3) / Raw(load) if c.family == 4 else ICMPv6EchoRequest(id=c.sport, seq=3, data=load)
    return c.up(l4, **kw)


for name, fields in {"": {}, "-ttl-1": {"ttl": 1}, "-tos": {"tos": 0x28}, "-empty": {"load": b""},
                     "-odd": {"load": b"\xff" * 57}, "-large": {"load": bytes(range(256)) * 5}}.items():
    case(f"echo{name}", reply(lambda c, f=fields: ping(c, **f), "echo_answered", echo_of))


def damaged(frame, at):
    frame = bytearray(bytes(frame))
    frame[at] ^= 0x40
    return bytes(frame)


case("echo-damaged", drop(lambda c: damaged(ping(c), -1), "bad_l4_checksum"))

# ---------------------------------------------------------------- IPv6 extension headers
CHAINS = {"hop-by-hop": IPv6ExtHdrHopByHop(), "options": IPv6ExtHdrDestOpt(),
          "both": IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(), "atomic": IPv6ExtHdrFragment(id=7),
          "routing-done": IPv6ExtHdrRouting(type=4, segleft=0, addresses=["2001:db8::99"]),
          "eight": IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() /
          IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt()}
for name, chain in CHAINS.items():
    case(f"chain-{name}-udp", forward(lambda c, h=chain: c.up(h.copy() / c.udp() / Raw(b"chained"))), families=(6,))
    case(f"chain-{name}-syn", forward(lambda c, h=chain: c.up(h.copy() / c.tcp("S", seq=1))), families=(6,))

# ---------------------------------------------------------------- the way out is narrow
for mode in MODES:
    scene(f"{mode}-1300", mode, mtu=1300)
NARROW = [f"{mode}-1300" for mode in MODES]
OVERHEAD = {("ipip", 4): 20, ("ipip", 6): 40, ("gue", 4): 32, ("gue", 6): 52}


def fits(c):
    return 1300 - OVERHEAD.get((c.scene.mode, c.family), 0)


def sized(c, n, **kw):
    """A UDP packet whose IP packet has n bytes."""
    return c.up(c.udp() / Raw(b"m" * (n - (28 if c.family == 4 else 48))), **kw)


def told(c, frame, got, n_here=None):
    return too_big_of(fits(c), max(fits(c), 1280))(c, frame, got, n_here)


DF = {"flags": "DF"}
case("mtu-just-fits", forward(lambda c: sized(c, fits(c))), scenes=NARROW)
case("mtu-one-more-df", reply(lambda c: sized(c, fits(c) + 1, **DF), "too_big", told), scenes=NARROW, families=(4,))
case("mtu-one-more", reply(lambda c: sized(c, fits(c) + 1), "too_big", told), scenes=NARROW, families=(6,))
case("mtu-one-more", drop(lambda c: sized(c, fits(c) + 1), "mtu_exceeded"), scenes=NARROW, families=(4,))
case("mtu-answer", forward(lambda c: c.up(c.udp() / Raw(b"q"))),
     back(lambda c: c.down(c.back_udp() / Raw(b"a" * (1300 - (28 if c.family == 4 else 48))))), scenes=NARROW[:2])
case("mtu-answer-too-big", forward(lambda c: c.up(c.udp() / Raw(b"q"))),
     reply(lambda c: c.down(c.back_udp() / Raw(b"a" * 1400), **(DF if c.family == 4 else {})), "too_big", told),
     scenes=NARROW[:2])


# ---------------------------------------------------------------- ICMP errors
def router(c):
    return "198.51.100.254" if c.family == 4 else "2001:db8:c::fe"


ERRORS = {"unreachable": (ICMP(type=3, code=1), ICMPv6DestUnreach(code=3)),
          "too-big": (ICMP(type=3, code=4, nexthopmtu=1300), ICMPv6PacketTooBig(mtu=1300)),
          "time-exceeded": (ICMP(type=11, code=0), ICMPv6TimeExceeded(code=0))}


def error_about(step, kind, n_l4=None):
    """From a router, about what left at a step; n_l4: of the quoted L4 only that many bytes."""
    def frame(c):
        quoted = inner_of(c.left[step])
        n_ip = 20 if c.family == 4 else 40
        quoted = quoted[:n_ip + n_l4] if n_l4 else quoted
        head = c.ip(router(c), Ether(c.left[step])[c.layer].src)
        return c.ether() / head / ERRORS[kind][c.family == 6].copy() / Raw(quoted)
    return frame


def quoted_back(step, kind, n_l4=None):
    """For who sent it: the same error, about the packet as it came, one hop later."""
    def want(c, frame, got):
        came = afresh(Ether(c.came[step]))
        if c.family == 4:
            came[IP].ttl -= 1
        else:
            came[IPv6].hlim -= 1
        quoted = inner_of(came)
        n_ip = 20 if c.family == 4 else 40
        quoted = quoted[:n_ip + n_l4] if n_l4 else quoted
        head = c.ip(router(c), came[c.layer].src, ttl=63)
        return bytes(Ether(src=LB, dst=GATEWAY) / head / ERRORS[kind][c.family == 6].copy() / Raw(quoted))
    return want


def told_back(step, kind, n_l4=None):
    step_ = back(error_about(step, kind, n_l4))
    step_.want.out = quoted_back(step, kind, n_l4)
    return step_


for kind in ERRORS:
    case(f"error-{kind}-udp-to-client", forward(lambda c: c.up(c.udp() / Raw(b"question"))), told_back(0, kind), scenes=NAT)
    case(f"error-{kind}-udp-to-backend", forward(lambda c: c.up(c.udp() / Raw(b"question"))),
         back(lambda c: c.down(c.back_udp() / Raw(b"answer"))), told_back(1, kind), scenes=NAT)
    case(f"error-{kind}-tcp-to-client", *HANDSHAKE, up("PA", b"data", seq=1001, ack=5001), told_back(3, kind), scenes=NAT)
    case(f"error-{kind}-tcp-8-bytes", *HANDSHAKE, up("PA", b"data", seq=1001, ack=5001), told_back(3, kind, 8), scenes=NAT)


def from_backend_itself(c):
    """What a backend of a one-way mode sends to the client without us, as a router there quotes it."""
    answer = c.ip(c.vip, c.client, ttl=50) / UDP(sport=53, dport=c.sport) / Raw(b"answer")
    head = c.ip(router(c), c.vip)
    return c.ether() / head / ERRORS["too-big"][c.family == 6].copy() / Raw(bytes(answer))


case("error-to-backend", forward(lambda c: c.up(c.udp() / Raw(b"question"))), forward(from_backend_itself), scenes=ONEWAY)
case("error-to-backend-by-hash", forward(from_backend_itself), scenes=ONEWAY)


def error_about_nothing(c, src=None):
    answer = c.ip(src or c.vip, c.client) / UDP(sport=53, dport=c.sport) / Raw(b"never sent")
    return c.ether() / c.ip(router(c), c.vip) / ERRORS["unreachable"][c.family == 6].copy() / Raw(bytes(answer))


case("error-no-flow", drop(error_about_nothing, "icmp_no_flow"), scenes=NAT)
case("error-not-from-us", drop(lambda c: error_about_nothing(c, src=c.client), "icmp_implausible"))
case("error-damaged", forward(lambda c: c.up(c.udp() / Raw(b"question"))),
     drop(lambda c: damaged(error_about(0, "unreachable")(c), -1), "bad_l4_checksum"), scenes=["fullnat"])


# ---------------------------------------------------------------- fragments
def pieces(c, whole, cuts, ident):
    """The IP packet of a frame in pieces that end at the cuts (offsets into its L4 packet)."""
    ip, l4 = Ether(bytes(whole))[c.layer], bytes(Ether(bytes(whole))[c.layer].payload)
    ends = [k for k in cuts if k < len(l4)] + [len(l4)]
    frames, begin = [], 0
    for end in ends:
        more = end < len(l4)
        head = Ether(src=whole.src, dst=whole.dst)
        if c.family == 4:
            head = head / IP(src=ip.src, dst=ip.dst, ttl=ip.ttl, tos=ip.tos, id=ident & 0xffff, proto=ip.proto,
                             flags="MF" if more else 0, frag=begin // 8)
        else:
            head = head / IPv6(src=ip.src, dst=ip.dst, hlim=ip.hlim, tc=ip.tc) / \
                IPv6ExtHdrFragment(nh=ip.nh, id=ident, offset=begin // 8, m=int(more))
        frames.append(bytes(head / Raw(l4[begin:end])))
        begin = end
    return frames


LONG = bytes(range(256)) * 2
CUTS = (64, 128, 304)
UP_UDP = {"whole": lambda c: c.up(c.udp() / Raw(LONG), tos=4), "back": False}
DOWN_UDP = {"whole": lambda c: c.down(c.back_udp() / Raw(LONG)), "back": True}
UP_TCP = {"whole": lambda c: c.up(c.tcp("PA", seq=1001, ack=5001) / Raw(LONG)), "back": False}


def piece(of, index, cuts=CUTS, ident=0x4711, **kw):
    """One piece of a datagram; what leaves is the same piece of the translated datagram, or the piece in a tunnel."""
    def want(c, frame, got):
        if c.scene.mode not in NAT:
            return to_backend(c, frame, got)
        whole = (to_client if of["back"] else to_backend)(c, of["whole"](c), got)
        return pieces(c, Ether(whole), cuts, ident)[index]
    step = forward(lambda c: pieces(c, of["whole"](c), cuts, ident)[index], **kw)
    step.want.out, step.want.learns = want, not of["back"] and index == 0
    return step


def piece_dropped(of, index, reason, cuts=CUTS, ident=0x4711):
    return drop(lambda c: pieces(c, of["whole"](c), cuts, ident)[index], reason)


QUESTION = forward(lambda c: c.up(c.udp() / Raw(b"question")))
case("fragments-in-order", *[piece(UP_UDP, k) for k in range(4)])
case("fragments-reversed", piece(UP_UDP, 3, released_by=3), piece(UP_UDP, 2, released_by=2),
     piece(UP_UDP, 1, released_by=1), piece(UP_UDP, 0))
case("fragments-first-second", piece(UP_UDP, 1, released_by=1), piece(UP_UDP, 0), piece(UP_UDP, 2), piece(UP_UDP, 3))
case("fragments-shuffled", piece(UP_UDP, 0), piece(UP_UDP, 3), piece(UP_UDP, 1), piece(UP_UDP, 2))
case("fragments-two-datagrams", piece(UP_UDP, 0, ident=1), piece(UP_UDP, 0, ident=2), piece(UP_UDP, 1, ident=2),
     piece(UP_UDP, 1, ident=1), piece(UP_UDP, 2, ident=1), piece(UP_UDP, 3, ident=1), piece(UP_UDP, 2, ident=2))
case("fragments-after-whole-packet", QUESTION, *[piece(UP_UDP, k) for k in range(4)])
case("fragments-answer", QUESTION, *[piece(DOWN_UDP, k) for k in range(4)], scenes=NAT)
case("fragments-answer-reversed", QUESTION, piece(DOWN_UDP, 1, (64,), released_by=1), piece(DOWN_UDP, 0, (64,)), scenes=NAT)
case("fragments-tcp", *HANDSHAKE, *[piece(UP_TCP, k) for k in range(4)], scenes=NAT)
case("fragments-tcp", up("S", seq=1000), *[piece(UP_TCP, k) for k in range(4)], scenes=ONEWAY)
case("fragments-duplicate", piece(UP_UDP, 0), piece(UP_UDP, 1), piece_dropped(UP_UDP, 1, "fragment_duplicate"),
     piece(UP_UDP, 2), piece(UP_UDP, 3))
case("fragments-overlap", piece(UP_UDP, 0), piece(UP_UDP, 1),
     piece_dropped(UP_UDP, 1, "fragment_overlap", (120, 200)), piece_dropped(UP_UDP, 2, "fragment_overlap"),
     piece_dropped(UP_UDP, 3, "fragment_overlap"))
case("fragments-teardrop", piece(UP_UDP, 0), piece_dropped(UP_UDP, 1, "fragment_overlap", (24, 32)))
case("fragments-first-longer", piece(UP_UDP, 0), piece_dropped(UP_UDP, 0, "fragment_overlap", (72,)),
     piece_dropped(UP_UDP, 1, "fragment_overlap"))
case("fragments-no-first", piece_dropped(UP_UDP, 1, "fragment_no_first"), piece_dropped(UP_UDP, 3, "fragment_no_first"))
case("fragments-ttl-1", reply(lambda c: pieces(c, c.up(c.udp() / Raw(LONG), ttl=1), CUTS, 9)[0], "ttl_exceeded",
                              time_exceeded_of),
     drop(lambda c: pieces(c, c.up(c.udp() / Raw(LONG), ttl=1), CUTS, 9)[1], "ttl_exceeded"), scenes=NAT)
case("fragments-closed-port", reply(lambda c: pieces(c, to_port(c, 54, UDP() / Raw(LONG)), CUTS, 9)[0], "closed_port",
                                    unreachable_of),
     drop(lambda c: pieces(c, to_port(c, 54, UDP() / Raw(LONG)), CUTS, 9)[1], "closed_port"))
case("fragments-no-ports", drop(lambda c: pieces(c, ping(c, LONG), CUTS, 9)[0], "fragment"))
case("fragments-tiny-tcp", piece_dropped(UP_TCP, 0, "fragment_tiny", (16,)))
case("fragments-tiny-tcp-options", drop(
    lambda c: pieces(c, c.up(c.tcp("S", options=SYN) / Raw(LONG)), (24,), 9)[0], "fragment_tiny"))
case("fragments-tiny-later", drop(lambda c: pieces(c, UP_TCP["whole"](c), (8,), 9)[1], "fragment_tiny"))


def odd_length(c, index, change):
    """A piece with its length changed."""
    frame = bytearray(pieces(c, UP_UDP["whole"](c), CUTS, 9)[index])
    frame = frame + b"\1" * change if change > 0 else frame[:change]
    at = 16 if c.family == 4 else 18
    frame[at:at + 2] = struct.pack(">H", len(frame) - (14 if c.family == 4 else 54))
    return bytes(afresh(Ether(bytes(frame)))) if c.family == 4 else bytes(frame)


case("fragments-odd-length", drop(lambda c: odd_length(c, 1, 3), "fragment_bad_length"))
case("fragments-short-length", drop(lambda c: odd_length(c, 0, -1), "fragment_bad_length"))
