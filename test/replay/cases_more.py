# SPDX-License-Identifier: BSD-3-Clause
"""Scenes of their own: crossed families, tagged ports, jumbo frames, source ranges, clients that stay, SCTP, and clients told to
backends of fullnat."""
from ipaddress import ip_address

from scapy.packet import Raw

from cases_forward import SYN, down, pieces, sized, up
from headers import inner_of, l4_of
from table import MODES, NAT, TUNNELS, Step, borrow, case, drop, scene
from wants import back, changed_l4, forward, fresh, to_backend, to_client, translated

# ---------------------------------------------------------------- backends of the other family
for mode in ["fullnat", *TUNNELS]:
    scene(f"{mode}-6to4", mode, crosses=True, backends6=[])
    scene(f"{mode}-4to6", mode, crosses=True, backends4=[])
    for which, family in (("6to4", 6), ("4to6", 4)):
        # of fullnat no fragments, and none of the frames whose padding stays elsewhere
        prefixes = ("udp-", "tcp-", "chain-", "closed-", "echo") + (("fragments-", "error-to") if mode != "fullnat" else ())
        but = ("udp-padding", "tcp-padding", "udp-answer-padding", "udp-answer-ttl-1", "udp-ttl-0")
        borrow(f"{mode}-{which}", mode, prefixes, but if mode == "fullnat" else (), families=(family,))
        if mode == "fullnat":
            case("fragments", drop(lambda c: pieces(c, c.up(c.udp() / Raw(b"x" * 200)), (64,), 1)[0], "fragment"),
                 drop(lambda c: pieces(c, c.up(c.udp() / Raw(b"x" * 200)), (64,), 1)[1], "fragment"),
                 scenes=[f"{mode}-{which}"], families=(family,))
            case("tcp-segment-size", *[Step(s.frame, s.want) for s in (
                forward(lambda c: c.up(c.tcp("S", seq=1, options=SYN))),
                back(lambda c: c.down(c.back_tcp("SA", seq=1, ack=2, options=[("MSS", 9000)]))))],
                 scenes=[f"{mode}-{which}"], families=(family,))

# ---------------------------------------------------------------- tagged ports, jumbo frames
for mode in ("fullnat", "ipip", "l2dsr"):
    scene(f"{mode}-vlan", mode, vlan=100)
    borrow(f"{mode}-vlan", mode, ("udp-", "tcp-", "closed-", "echo", "error-", "fragments-", "chain-"))
for mode in MODES:
    scene(f"{mode}-9000", mode, mtu=9000)
    case("jumbo", forward(lambda c: sized(c, 8900)), scenes=[f"{mode}-9000"])
    case("jumbo-tcp", forward(lambda c: c.up(c.tcp("S", seq=1, options=SYN))),
         *([down("SA", seq=9, ack=2)] if mode in NAT else []), up("A", seq=2, ack=10),
         up("PA", bytes(range(256)) * 34, seq=2, ack=10),
         *([down("PA", bytes(range(255)) * 34, seq=10, ack=3)] if mode in NAT else []), scenes=[f"{mode}-9000"])

# ---------------------------------------------------------------- source ranges
RANGES = ["198.18.0.0/15", "203.0.113.200/32", "2001:db8:c::/48", "2001:db8:d::5/128"]
OUTSIDE = {4: "198.17.255.255", 6: "2001:db8:d::6"}
ALONE = {4: "203.0.113.200", 6: "2001:db8:d::5"}
for mode in MODES:
    scene(f"{mode}-ranges", mode, loadBalancerSourceRanges=RANGES)
RANGED = [f"{mode}-ranges" for mode in MODES]
case("inside-udp", forward(lambda c: c.up(c.udp() / Raw(b"in"))), scenes=RANGED)
case("inside-tcp", forward(lambda c: c.up(c.tcp("S", seq=1))), scenes=RANGED)
case("outside-udp", drop(lambda c: c.up(c.udp() / Raw(b"out"), src=OUTSIDE[c.family]), "source_range"), scenes=RANGED)
case("outside-tcp", drop(lambda c: c.up(c.tcp("S", seq=1), src=OUTSIDE[c.family]), "source_range"), scenes=RANGED)
case("outside-ack", drop(lambda c: c.up(c.tcp("A", seq=1, ack=1), src=OUTSIDE[c.family]), "source_range"), scenes=RANGED)


def alone(c, l4):
    c.client = ALONE[c.family]
    return c.up(l4)


case("range-of-one", forward(lambda c: alone(c, c.udp() / Raw(b"one"))), scenes=RANGED)

# ---------------------------------------------------------------- clients that stay
for mode in MODES:
    scene(f"{mode}-affinity", mode, sessionAffinity="ClientIP",
          sessionAffinityConfig={"clientIP": {"timeoutSeconds": 600}})
STAY = [f"{mode}-affinity" for mode in MODES]


def flow(l4, k):
    def frame(c):
        packet = l4(c)
        packet.sport = 20000 + 37 * k
        return c.up(packet)
    return frame


case("stays-udp", *[fresh(flow(lambda c: c.udp() / Raw(b"s"), k)) for k in range(8)], scenes=STAY)
case("stays-tcp", *[fresh(flow(lambda c: c.tcp("S", seq=1), k)) for k in range(8)], scenes=STAY)

# ---------------------------------------------------------------- SCTP
SCTP = [("diameter", "SCTP", 3868, 13868)]
for mode in MODES:
    scene(f"{mode}-sctp", mode, more=SCTP)


def sctp(c, kind, body=b"", tag=0x1234, flags=0, ports=None):
    """One chunk, padded; its CRC is right."""
    sport, dport = ports or (c.sport, 3868)
    chunk = bytes([kind, flags]) + (4 + len(body)).to_bytes(2, "big") + body + b"\0" * (-len(body) % 4)
    l4 = sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + tag.to_bytes(4, "big") + b"\0" * 4 + chunk
    return Raw(changed_l4(l4, 132, (sport, dport), c.client, c.vip))


def sctp_up(kind, body=b"", **kw):
    def frame(c):
        return c.up(sctp(c, kind, body, **kw), **({"proto": 132} if c.family == 4 else {"nh": 132}))
    return frame


def sctp_down(kind, body=b"", **kw):
    def frame(c):
        return c.down(sctp(c, kind, body, ports=(13868, c.face_port()), **kw),
                      **({"proto": 132} if c.family == 4 else {"nh": 132}))
    return frame


INIT = (0x5678).to_bytes(4, "big") + b"\0\1\0\0\0\5\0\5\0\0\0\1"
INIT_UP = forward(sctp_up(1, INIT, tag=0))
ASSOCIATION = [INIT_UP, back(sctp_down(2, INIT + b"\0\7\0\6ab", tag=0x5678)), forward(sctp_up(10, b"cook")),
               back(sctp_down(11, tag=0x5678))]
WITH_SCTP = [f"{mode}-sctp" for mode in MODES]
case("sctp-init", INIT_UP, scenes=WITH_SCTP)
case("sctp-association", *ASSOCIATION, forward(sctp_up(0, b"\0\0\0\1\0\0\0\0\0\0\0\0" + b"payload")),
     back(sctp_down(3, b"\0\0\0\1\0\0\5\0\0\0\0\0", tag=0x5678)),
     back(sctp_down(0, b"\0\0\0\1\0\0\0\0\0\0\0\0" + b"x" * 301, tag=0x5678)), forward(sctp_up(7, b"\0\0\0\1")),
     back(sctp_down(8, tag=0x5678)), forward(sctp_up(14)), scenes=WITH_SCTP[:2])
case("sctp-abort", *ASSOCIATION, forward(sctp_up(6)), scenes=WITH_SCTP[:2])
for name, frame in {"tag-0-data": sctp_up(0, b"\0" * 13, tag=0), "init-tagged": sctp_up(1, INIT, tag=5),
                    "init-short": sctp_up(1, INIT[:12], tag=0)}.items():
    case(f"sctp-{name}", drop(frame, "sctp_bad_chunk"), scenes=WITH_SCTP)
for n in (0, 11, 12, 15):
    case(f"sctp-of-{n}-bytes", drop(lambda c, n=n: c.up(Raw(bytes(sctp(c, 1, INIT, tag=0))[:n]),
                                                        **({"proto": 132} if c.family == 4 else {"nh": 132})),
                                    "sctp_truncated"), scenes=WITH_SCTP)


def sctp_piece(index):
    def frame(c):
        whole = sctp_up(0, b"\0\0\0\1\0\0\0\0\0\0\0\0" + b"p" * 300)(c)
        return pieces(c, whole, (64, 128), 77)[index]
    return frame


case("sctp-fragments", *ASSOCIATION, *[drop(sctp_piece(k), "fragment_sctp") for k in range(3)], scenes=WITH_SCTP[:2])
case("sctp-fragments", INIT_UP, *[forward(sctp_piece(k)) for k in range(3)], scenes=WITH_SCTP[2:])


# ---------------------------------------------------------------- who the client is
def l4_replaced(c, frame, change):
    """A translated packet whose TCP segment was changed: lengths and checksum follow."""
    whole = to_backend(c, frame, None)
    _, at, _ = l4_of(whole)
    l4 = change(whole[at:14 + len(inner_of(whole))])
    head = bytearray(whole[:at])
    n = len(l4) + at - 14 - (40 if c.family == 6 else 0)
    head[16 if c.family == 4 else 18:18 if c.family == 4 else 20] = n.to_bytes(2, "big")
    ports = (c.port, 8080)
    again = translated(c, bytes(head) + l4, c.snat, c.backend, ports)
    # translated takes one more from the TTL
    return rewind_ttl(c, again)


def rewind_ttl(c, frame):
    frame = bytearray(frame)
    if c.family == 6:
        frame[21] += 1
        return bytes(frame)
    frame[22] += 1
    frame[24:26] = b"\0\0"
    total = sum(int.from_bytes(frame[k:k + 2], "big") for k in range(14, 34, 2))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    frame[24:26] = (~total & 0xffff).to_bytes(2, "big")
    return bytes(frame)


def toa_of(c):
    address = ip_address(c.client).packed
    return bytes([254, 4 + len(address)]) + c.sport.to_bytes(2, "big") + address


def with_toa(c, frame, got):
    option = toa_of(c)

    def change(l4):
        return l4[:12] + bytes([l4[12] + (len(option) // 4 << 4)]) + l4[13:20] + option + l4[20:]
    return l4_replaced(c, frame, change)


def toa(flags, load=b"", **kw):
    step = up(flags, load, **kw)
    step.want.out = with_toa
    return step


scene("fullnat-toa", "fullnat", annotations={"client-address": "toa"})
case("toa", up("S", seq=1000), down("SA", seq=5000, ack=1001), toa("A", seq=1001, ack=5001),
     toa("PA", b"GET /", seq=1001, ack=5001), toa("PA", b" HTTP", seq=1006, ack=5001), down("A", seq=5001, ack=1006),
     up("PA", b"/1.0", seq=1011, ack=5001), down("PA", b"200", seq=5001, ack=1015), up("FA", seq=1015, ack=5004),
     scenes=["fullnat-toa"])
case("toa-udp", forward(lambda c: c.up(c.udp() / Raw(b"no option"))), scenes=["fullnat-toa"])
case("toa-no-room-for-options", up("S", seq=1000), down("SA", seq=5000, ack=1001),
     forward(lambda c: c.up(c.tcp("A", seq=1001, ack=5001, dataofs=15) / Raw(b"\1" * 40))), scenes=["fullnat-toa"])


def proxy_of(c):
    client, vip = ip_address(c.client).packed, ip_address(c.vip).packed
    ports = c.sport.to_bytes(2, "big") + (80).to_bytes(2, "big")
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x21, 0x11 if c.family == 4 else 0x21]) + \
        (len(client) * 2 + 4).to_bytes(2, "big") + client + vip + ports


def add32(field, n):
    return ((int.from_bytes(field, "big") + n) & 0xffffffff).to_bytes(4, "big")


def with_proxy(c, frame, got):
    """The header in front of the stream's first byte."""
    return l4_replaced(c, frame, lambda l4: l4[:20] + proxy_of(c) + l4[20:])


def shifted_up(c, frame, got):
    return l4_replaced(c, frame, lambda l4: l4[:4] + add32(l4[4:8], len(proxy_of(c))) + l4[8:])


def shifted_down(c, frame, got):
    frame = bytearray(bytes(frame))
    at = l4_of(bytes(frame))[1] + 8
    frame[at:at + 4] = add32(bytes(frame[at:at + 4]), -len(proxy_of(c)))
    return to_client(c, bytes(frame), got)


def told(step, want):
    step.want.out = want
    return step


scene("fullnat-proxy", "fullnat", annotations={"client-address": "proxy-v2"})
N_PROXY = {4: 28, 6: 52}


def ack_down(flags, load, seq, ack):
    """The backend acknowledges the header too."""
    return told(back(lambda c: c.down(c.back_tcp(flags, seq=seq, ack=ack + N_PROXY[c.family]) / Raw(load))), shifted_down)


case("proxy", up("S", seq=1000), down("SA", seq=5000, ack=1001), told(up("A", seq=1001, ack=5001), with_proxy),
     told(up("PA", b"GET /", seq=1001, ack=5001), with_proxy), ack_down("A", b"", 5001, 1006),
     told(up("PA", b" HTTP", seq=1006, ack=5001), shifted_up), ack_down("PA", b"200", 5001, 1011),
     told(up("FA", seq=1011, ack=5004), shifted_up), ack_down("FA", b"", 5004, 1012),
     told(up("A", seq=1012, ack=5005), shifted_up), scenes=["fullnat-proxy"])
case("proxy-server-first", up("S", seq=1000), down("SA", seq=5000, ack=1001), told(up("A", seq=1001, ack=5001), with_proxy),
     ack_down("PA", b"220 hello", 5001, 1001), told(up("A", seq=1001, ack=5010), shifted_up), scenes=["fullnat-proxy"])
case("proxy-again", up("S", seq=1000), down("SA", seq=5000, ack=1001),
     *[told(up("A", seq=1001, ack=5001), with_proxy) for _ in range(3)], scenes=["fullnat-proxy"])
