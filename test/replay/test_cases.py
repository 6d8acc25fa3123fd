# SPDX-License-Identifier: BSD-3-Clause
"""Named packet cases, both families: input, verdict, and every byte of what comes out. scapy is the second opinion."""
import random

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, ICMPerror, IPerror, TCPerror, UDPerror  # noqa: F401
from scapy.layers.inet6 import (ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NS,
                                ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
                                IPv6ExtHdrHopByHop, IPv6ExtHdrRouting)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from player import (BACKENDS4, BACKENDS6, CLIENT4, CLIENT6, GATEWAY, LB, SNAT4, SNAT6, START, VIP4, VIP6, play,
                    services)

FAMILIES = [4, 6]


def ether(src=GATEWAY, dst=LB):
    return Ether(src=src, dst=dst)


def ip(family, src=None, dst=None, ttl=64, **kw):
    if family == 4:
        return IP(src=src or CLIENT4, dst=dst or VIP4, ttl=ttl, **kw)
    return IPv6(src=src or CLIENT6, dst=dst or VIP6, hlim=ttl, **kw)


def snat(family):
    return SNAT4 if family == 4 else SNAT6


def backends(family):
    return BACKENDS4 if family == 4 else BACKENDS6


def syn(family, sport=40000, **kw):
    return ether() / ip(family, **kw) / TCP(sport=sport, dport=80, flags="S", seq=1000, options=[("MSS", 1460)])


def rebuilt(frame):
    """The same headers with every checksum and length computed afresh: equal bytes = right checksums."""
    p = Ether(frame)
    layer = p
    while layer and layer.payload is not None and layer.name != "NoPayload":
        for field in ("chksum", "cksum"):
            if field in layer.fields:
                delattr(layer, field)
        layer = layer.payload
    return bytes(p)


def only(frames, **kw):
    played = play(frames, **kw)
    return played.packets, played.frames, played


def one(frame, **kw):
    packets, frames, played = only([frame], **kw)
    return packets[0], (Ether(frames[0]) if frames else None), played


def assert_dropped(frame, reason, **kw):
    packet, out, played = one(frame, **kw)
    assert (packet["verdict"], packet["reason"]) == ("drop", reason), packet
    assert out is None and played.counters["dropped"] == {reason: 1}


def assert_punted(frame, **kw):
    packet, out, _ = one(frame, **kw)
    assert packet["verdict"] == "punt" and out is None, packet


# ---------------------------------------------------------------- forwarding

@pytest.mark.parametrize("family", FAMILIES)
def test_syn_is_forwarded_byte_exact(family):
    frame = syn(family)
    packet, out, _ = one(frame)
    assert packet["verdict"] == "forward" and packet["service"] == "default/web"
    layer = IP if family == 4 else IPv6
    assert out[layer].dst in backends(family) and out[layer].src == snat(family)
    shown = f"[{out[layer].dst}]:8080" if family == 6 else f"{out[layer].dst}:8080"
    assert packet["backend"] == shown
    want = frame.copy()
    want[Ether].src, want[Ether].dst = LB, GATEWAY
    want[layer].src, want[layer].dst = snat(family), out[layer].dst
    if family == 4:
        want[layer].ttl = 63
    else:
        want[layer].hlim = 63
    want[TCP].sport, want[TCP].dport = out[TCP].sport, 8080
    assert bytes(out) == bytes(want)
    assert 1024 <= out[TCP].sport <= 65535


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("payload", [b"", b"x", b"query!", bytes(range(256)) * 4])
def test_udp_there_and_back(family, payload):
    frame = ether() / ip(family) / UDP(sport=40001, dport=53) / Raw(payload)
    first, out, _ = one(frame)
    layer = IP if family == 4 else IPv6
    back = ether() / ip(family, src=out[layer].dst, dst=snat(family)) / \
        UDP(sport=5353, dport=out[UDP].sport) / Raw(payload[::-1])
    packets, frames, _ = only([frame, back])
    assert [p["verdict"] for p in packets] == ["forward", "forward"]
    reply = Ether(frames[1])
    want = ether(LB, GATEWAY) / ip(family, src=VIP4 if family == 4 else VIP6, dst=CLIENT4 if family == 4 else CLIENT6,
                                   ttl=63) / UDP(sport=53, dport=40001) / Raw(payload[::-1])
    assert bytes(reply) == bytes(want)
    assert rebuilt(frames[0]) == frames[0]
    assert first["backend"].endswith(":5353")


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_tcp_life(family):
    layer = IP if family == 4 else IPv6
    _, out, _ = one(syn(family))
    backend, port = out[layer].dst, out[TCP].sport
    c2s = dict(sport=40000, dport=80)
    s2c = dict(sport=8080, dport=port)

    def client(flags, **kw):
        return ether() / ip(family) / TCP(**c2s, flags=flags, **kw)

    def server(flags, **kw):
        return ether() / ip(family, src=backend, dst=snat(family)) / TCP(**s2c, flags=flags, **kw)
    story = [syn(family), server("SA", seq=5000, ack=1001), client("A", seq=1001, ack=5001),
             client("PA", seq=1001, ack=5001) / Raw(b"GET / HTTP/1.0\r\n\r\n"), server("A", seq=5001, ack=1019),
             server("PA", seq=5001, ack=1019) / Raw(b"x" * 1000), client("A", seq=1019, ack=6001),
             client("FA", seq=1019, ack=6001), server("FA", seq=6001, ack=1020), client("A", seq=1020, ack=6002)]
    packets, frames, _ = only(story)
    assert [p["verdict"] for p in packets] == ["forward"] * len(story), packets
    assert len({p["backend"] for p in packets}) == 1
    for before, after in zip(story, frames):
        assert rebuilt(after) == after
        a, b = Ether(after)[TCP], before[TCP]
        assert (a.seq, a.ack, a.flags, a.window, bytes(a.payload)) == (b.seq, b.ack, b.flags, b.window, bytes(b.payload))


@pytest.mark.parametrize("family", FAMILIES)
def test_two_segments_of_one_flow_stay_together(family):
    packets, _, _ = only([syn(family, sport=s) for s in range(41000, 41200) for _ in (0, 1)])
    for k in range(0, len(packets), 2):
        assert packets[k]["backend"] == packets[k + 1]["backend"]
    used = {p["backend"] for p in packets}
    assert len(used) == 3


def test_udp_without_checksum_stays_without():
    frame = ether() / ip(4) / UDP(sport=40002, dport=53, chksum=0) / Raw(b"abc")
    _, out, _ = one(frame)
    assert out[UDP].chksum == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_udp_checksum_that_comes_out_as_zero_is_sent_as_ones(family):
    """Searches a payload whose rewritten checksum would be 0: it must be 0xffff on the wire."""
    layer = IP if family == 4 else IPv6
    probe = ether() / ip(family) / UDP(sport=40003, dport=53) / Raw(b"\0\0")
    _, out, _ = one(probe)
    # the sum is linear in the payload word: add what is missing to 0xffff
    word = out[UDP].chksum
    frame = ether() / ip(family) / UDP(sport=40003, dport=53) / Raw(word.to_bytes(2, "big"))
    _, out, _ = one(frame)
    assert out[UDP].chksum == 0xffff
    assert out[layer].dst in backends(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_ethernet_padding_is_no_lie(family):
    frame = bytes(ether() / ip(family) / UDP(sport=40004, dport=53) / Raw(b"hi")) + b"\0" * 18
    packet, out, _ = one(frame)
    assert packet["verdict"] == "forward"
    assert out[UDP].len == 10


def test_neighbours_are_followed():
    frames = [syn(4, sport=s) for s in range(42000, 42050)]
    macs = {b: f"02:00:00:00:09:0{k}" for k, b in enumerate(BACKENDS4)}
    args = [x for b, m in macs.items() for x in ("--neighbour", f"{b}={m}")]
    _, out, _ = only(frames, args=args)
    for frame in out:
        assert Ether(frame).dst == macs[Ether(frame)[IP].dst]


# ---------------------------------------------------------------- answers of our own

@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ttl", [1, 64])
def test_echo_is_answered_whatever_its_ttl(family, ttl):
    if family == 4:
        frame = ether() / ip(4, ttl=ttl) / ICMP(type=8, id=7, seq=3) / Raw(b"ping" * 5)
        want = ether(LB, GATEWAY) / IP(src=VIP4, dst=CLIENT4, ttl=64, id=frame[IP].id) / ICMP(type=0, id=7, seq=3) / \
            Raw(b"ping" * 5)
    else:
        frame = ether() / ip(6, ttl=ttl) / ICMPv6EchoRequest(id=7, seq=3, data=b"ping" * 5)
        want = ether(LB, GATEWAY) / IPv6(src=VIP6, dst=CLIENT6, hlim=64) / ICMPv6EchoReply(id=7, seq=3, data=b"ping" * 5)
    packet, out, played = one(frame)
    assert packet["verdict"] == "reply"
    assert bytes(out) == bytes(want)
    assert played.counters["generated"] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_closed_tcp_port_is_reset(family):
    frame = ether() / ip(family) / TCP(sport=40005, dport=81, flags="S", seq=77)
    packet, out, _ = one(frame)
    assert packet["verdict"] == "reply" and packet["reason"] == "closed_port"
    assert out[TCP].flags == "RA" and out[TCP].ack == 78 and out[TCP].seq == 0
    assert (out[TCP].sport, out[TCP].dport) == (81, 40005)
    assert rebuilt(bytes(out)) == bytes(out)


@pytest.mark.parametrize("family", FAMILIES)
def test_closed_udp_port_is_unreachable(family):
    frame = ether() / ip(family) / UDP(sport=40006, dport=54) / Raw(b"hello")
    packet, out, _ = one(frame)
    assert packet["verdict"] == "reply" and packet["reason"] == "closed_port"
    if family == 4:
        assert (out[ICMP].type, out[ICMP].code) == (3, 3)
        assert out[IP].src == VIP4 and out[IP].dst == CLIENT4
        assert bytes(out[ICMP].payload)[:28] == bytes(frame[IP])[:28]
    else:
        assert out[ICMPv6DestUnreach].code == 4
        assert bytes(out[ICMPv6DestUnreach].payload)[:48] == bytes(frame[IPv6])[:48]
    assert rebuilt(bytes(out)) == bytes(out)


@pytest.mark.parametrize("family", FAMILIES)
def test_middle_of_an_unknown_flow_is_reset(family):
    frame = ether() / ip(family) / TCP(sport=40007, dport=80, flags="A", seq=5, ack=99)
    packet, out, _ = one(frame)
    assert packet["verdict"] == "reply" and packet["reason"] == "no_flow"
    assert out[TCP].flags == "R" and out[TCP].seq == 99


@pytest.mark.parametrize("family", FAMILIES)
def test_reset_is_never_answered(family):
    assert_dropped(ether() / ip(family) / TCP(sport=40008, dport=81, flags="R", seq=5), "no_flow_quiet")


@pytest.mark.parametrize("family", FAMILIES)
def test_time_exceeded(family):
    packet, out, _ = one(syn(family, ttl=1))
    assert packet["verdict"] == "reply" and packet["reason"] == "ttl_exceeded"
    if family == 4:
        assert (out[ICMP].type, out[ICMP].code) == (11, 0)
    else:
        assert out[ICMPv6TimeExceeded].code == 0
    assert rebuilt(bytes(out)) == bytes(out)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_rate_limited(family):
    frames = [ether() / ip(family) / TCP(sport=1024 + k, dport=81, flags="S") for k in range(2000)]
    played = play(frames, times=[START] * 2000)
    replies = sum(1 for p in played.packets if p["verdict"] == "reply")
    assert 0 < replies <= 200
    assert played.counters["dropped"]["answer_rate_limited"] == 2000 - replies


@pytest.mark.parametrize("family", FAMILIES)
def test_no_backend_is_refused(family):
    files = [services(backends4=[], backends6=[])]
    packet, out, _ = one(syn(family), files=files)
    assert packet["verdict"] == "reply" and packet["reason"] == "no_backend"
    assert out[TCP].flags == "RA"


# ---------------------------------------------------------------- ICMP errors about our flows

def flow_and_error(family, side):
    """A flow, then an error about it from a router: about the packet to the backend, or about the one to the client."""
    layer = IP if family == 4 else IPv6
    frame = ether() / ip(family) / UDP(sport=40010, dport=53) / Raw(b"question")
    _, out, _ = one(frame)
    router = "198.51.100.254" if family == 4 else "2001:db8:c::fe"
    if side == "backend":
        quoted = out[layer]
        to = snat(family)
        story = [frame]
    else:
        back = ether() / ip(family, src=out[layer].dst, dst=snat(family)) / UDP(sport=5353, dport=out[UDP].sport) / \
            Raw(b"answer")
        _, both, _ = only([frame, back])
        quoted = Ether(both[1])[layer]
        to = VIP4 if family == 4 else VIP6
        story = [frame, back]
    kind = ICMP(type=3, code=4, nexthopmtu=1300) if family == 4 else ICMPv6PacketTooBig(mtu=1300)
    story.append(ether() / ip(family, src=router, dst=to) / kind / Raw(bytes(quoted)))
    return story, out, router


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["backend", "client"])
def test_too_big_reaches_the_other_side(family, side):
    layer = IP if family == 4 else IPv6
    story, out, router = flow_and_error(family, side)
    packets, frames, _ = only(story)
    assert packets[-1]["verdict"] == "forward", packets[-1]
    error = Ether(frames[-1])
    assert rebuilt(frames[-1]) == frames[-1] or family == 4
    assert error[layer].src == router
    client, vip = (CLIENT4, VIP4) if family == 4 else (CLIENT6, VIP6)
    inner = error[IPerror] if family == 4 else error[ICMPv6PacketTooBig].payload
    ports = error[UDPerror] if family == 4 else inner[UDPerror]
    if side == "backend":  # told to the client, about the packet the client sent
        assert error[layer].dst == client
        assert (inner.src, inner.dst, ports.sport, ports.dport) == (client, vip, 40010, 53)
    else:
        assert error[layer].dst == out[layer].dst
        assert (inner.src, inner.dst, ports.sport, ports.dport) == (out[layer].dst, snat(family), 5353, out[UDP].sport)
    told = error[ICMP].nexthopmtu if family == 4 else error[ICMPv6PacketTooBig].mtu
    assert told == 1300


@pytest.mark.parametrize("family", FAMILIES)
def test_error_about_no_flow_changes_nothing(family):
    inner = ip(family, src=VIP4 if family == 4 else VIP6, dst=CLIENT4 if family == 4 else CLIENT6) / \
        UDP(sport=53, dport=4444) / Raw(b"never sent")
    kind = ICMP(type=3, code=3) if family == 4 else ICMPv6DestUnreach(code=4)
    router = "198.51.100.254" if family == 4 else "2001:db8:c::fe"
    assert_dropped(ether() / ip(family, src=router) / kind / Raw(bytes(inner)), "icmp_no_flow")


# ---------------------------------------------------------------- the kernel's

def test_arp_is_the_kernels():
    assert_punted(Ether(src=GATEWAY, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, psrc=CLIENT4, pdst=VIP4))


def test_neighbour_solicitation_is_the_kernels():
    assert_punted(ether(dst="33:33:ff:00:00:10") / IPv6(src=CLIENT6, dst="ff02::1:ff00:10") / ICMPv6ND_NS(tgt=VIP6))
    assert_punted(ether() / IPv6(src=CLIENT6, dst=VIP6) / ICMPv6ND_NS(tgt=VIP6))


@pytest.mark.parametrize("family", FAMILIES)
def test_other_addresses_are_the_kernels(family):
    dst = "192.0.2.200" if family == 4 else "2001:db8::c8"
    assert_punted(ether() / ip(family, dst=dst) / TCP(sport=1, dport=22, flags="S"))
    assert_punted(ether() / ip(family, dst=dst) / UDP(sport=1, dport=3784))
    assert_punted(ether() / ip(family, dst=snat(family)) / TCP(sport=1, dport=179, flags="S"))


def test_vlan_is_the_kernels():
    from scapy.layers.l2 import Dot1Q
    assert_punted(ether() / Dot1Q(vlan=5) / ip(4) / UDP(sport=1, dport=53))


# ---------------------------------------------------------------- refused by name

def v4(frame):
    return bytearray(bytes(frame))


def test_other_stations_frame():
    assert_dropped(ether(dst="02:00:00:00:00:99") / ip(4) / UDP(sport=1, dport=53), "not_our_mac")


def test_v4_options():
    from scapy.layers.inet import IPOption_RR
    assert_dropped(ether() / ip(4, options=[IPOption_RR()]) / UDP(sport=1, dport=53), "ipv4_options")


@pytest.mark.parametrize("at,value,reason", [
    (14, 0x65, "ipv4_bad_version"), (14, 0x44, "ipv4_bad_version"), (16, 0x40, "ipv4_bad_length"),
    (24, 0x00, "ipv4_bad_checksum")])
def test_v4_header_lies(at, value, reason):
    frame = v4(ether() / ip(4) / UDP(sport=1, dport=53) / Raw(b"x" * 20))
    if reason == "ipv4_bad_checksum":
        frame[at] ^= 0xff
    else:
        frame[at] = value
    packet, _, _ = one(bytes(frame))
    assert packet["verdict"] in ("drop", "punt")
    if packet["verdict"] == "drop":
        assert packet["reason"] == reason or packet["reason"].startswith("ipv4_"), packet


def datagram_fragments(family, ident=9):
    """A UDP datagram of 40 bytes of payload in three fragments, in order."""
    payload = bytes(range(40))
    whole = UDP(sport=40040, dport=53, len=48) / Raw(payload)
    plain = bytes((ip(family, proto=17) if family == 4 else ip(6, nh=17)) / whole)
    body = plain[20 if family == 4 else 40:]
    out = []
    for at in (0, 16, 32):
        last = at == 32
        if family == 4:
            head = ip(4, flags=0 if last else "MF", frag=at // 8, id=ident, proto=17)
        else:
            head = ip(6) / IPv6ExtHdrFragment(m=0 if last else 1, offset=at // 8, id=ident, nh=17)
        out.append(ether() / head / Raw(body[at:at + 16] if not last else body[at:]))
    return out


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_fragments_go_the_way_of_their_first(family, order):
    frames = datagram_fragments(family)
    packets, out, _ = only([frames[k] for k in order])
    assert [p["verdict"] for p in packets] == ["forward"] * 3, packets
    assert len({p["backend"] for p in packets}) == 1
    assert len(out) == 3
    whole = {}
    for data in out:
        frame = Ether(data)
        if family == 4:
            whole[frame[IP].frag * 8] = bytes(frame[IP].payload)[:frame[IP].len - 20]
            assert rebuilt(data)[14:34] == data[14:34]
        else:
            header = frame[IPv6ExtHdrFragment]
            whole[header.offset * 8] = bytes(header.payload)
    body = b"".join(whole[k] for k in sorted(whole))
    first = Ether(out[0])
    layer = (IP(src=first[IP].src, dst=first[IP].dst, proto=17) if family == 4
             else IPv6(src=first[IPv6].src, dst=first[IPv6].dst, nh=17))
    again = UDP(body)
    given = again.chksum
    del again.chksum
    assert UDP(bytes(layer / again)[20 if family == 4 else 40:]).chksum == given


@pytest.mark.parametrize("family", FAMILIES)
def test_later_fragment_without_its_first(family):
    assert_dropped(datagram_fragments(family)[1], "fragment_no_first")


def test_atomic_fragment_goes_like_a_whole_packet():
    frame = ether() / ip(6) / IPv6ExtHdrFragment(m=0, offset=0, id=9) / UDP(sport=40020, dport=53) / Raw(b"atom")
    packet, out, _ = one(frame)
    assert packet["verdict"] == "forward", packet
    assert rebuilt(bytes(out)) == bytes(out)


def test_extension_headers_are_walked_within_a_bound():
    chain = ether() / ip(6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=40021, dport=53) / Raw(b"x")
    packet, _, _ = one(chain)
    assert packet["verdict"] == "forward", packet
    long_chain = ether() / ip(6)
    for _ in range(9):
        long_chain = long_chain / IPv6ExtHdrDestOpt()
    assert_dropped(long_chain / UDP(sport=1, dport=53), "ipv6_too_many_headers")


def test_routing_header():
    frame = ether() / ip(6) / IPv6ExtHdrRouting(type=0, segleft=1, addresses=["2001:db8::99"]) / UDP(sport=1, dport=53)
    assert_dropped(frame, "ipv6_routing_header")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flags", ["", "SF", "SR", "SFRPAU"])
def test_impossible_tcp_flags(family, flags):
    assert_dropped(ether() / ip(family) / TCP(sport=1, dport=80, flags=flags), "tcp_bad_flags")


@pytest.mark.parametrize("src", ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", VIP4, "::1", "ff02::1", VIP6])
def test_impossible_sources(src):
    family = 6 if ":" in src else 4
    assert_dropped(ether() / ip(family, src=src) / TCP(sport=1, dport=80, flags="S"), "impossible_source")


@pytest.mark.parametrize("family", FAMILIES)
def test_udp_length_lies(family):
    for wrong in (7, 12, 100):
        assert_dropped(ether() / ip(family) / UDP(sport=1, dport=53, len=wrong) / Raw(b"x" * 10), "udp_bad_length")


@pytest.mark.parametrize("family", FAMILIES)
def test_tcp_offset_lies(family):
    for wrong in (4, 15):
        assert_dropped(ether() / ip(family) / TCP(sport=1, dport=80, flags="S", dataofs=wrong), "tcp_bad_offset")


@pytest.mark.parametrize("family", FAMILIES)
def test_partial_checksum_is_named(family):
    frame = ether() / ip(family) / TCP(sport=40030, dport=80, flags="S")
    whole = bytearray(bytes(frame))
    offset = 14 + (20 if family == 4 else 40)
    # what a sender leaves that counts on its NIC: the folded pseudo-header sum
    addresses = bytes(whole[26:34]) if family == 4 else bytes(whole[22:54])
    total = sum(int.from_bytes(addresses[k:k + 2], "big") for k in range(0, len(addresses), 2)) + 6 + 20
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    whole[offset + 16:offset + 18] = total.to_bytes(2, "big")
    assert_dropped(bytes(whole), "bad_l4_checksum")


@pytest.mark.parametrize("family", FAMILIES)
def test_other_protocols_at_a_vip(family):
    frame = ether() / (ip(4, proto=47) if family == 4 else ip(6, nh=47)) / Raw(b"\0" * 20)
    assert_dropped(frame, "unsupported_protocol")


@pytest.mark.parametrize("family", FAMILIES)
def test_reply_of_no_flow(family):
    frame = ether() / ip(family, src=backends(family)[0], dst=snat(family)) / TCP(sport=8080, dport=5000, flags="SA")
    assert_dropped(frame, "no_flow_quiet")


@pytest.mark.parametrize("family", FAMILIES)
def test_cut_short_at_every_byte(family):
    """Whatever is missing: never forwarded as if whole, always accounted for."""
    for frame in (syn(family), ether() / ip(family) / UDP(sport=40040, dport=53) / Raw(b"abcdef")):
        whole = bytes(frame)
        played = play([whole[:n] for n in range(1, len(whole))])
        for packet in played.packets:
            assert packet["verdict"] in ("drop", "punt"), packet
        assert not played.frames


def test_too_big_for_the_way_out():
    config = 'ports = ( { name = "p0"; device = "net_null0"; mtu = 1000; } );\n' \
        f'snat = {{ addresses = [ "{SNAT4}", "{SNAT6}" ]; ports = "1024-65535"; }};\n'
    big = ether() / ip(4, flags="DF") / UDP(sport=40050, dport=53) / Raw(b"x" * 1100)
    packet, out, _ = one(big, config=config)
    assert packet["verdict"] == "reply" and packet["reason"] == "too_big"
    assert (out[ICMP].type, out[ICMP].code, out[ICMP].nexthopmtu) == (3, 4, 1000)
    assert_dropped(ether() / ip(4) / UDP(sport=40050, dport=53) / Raw(b"x" * 1100), "mtu_exceeded", config=config)
    big = ether() / ip(6) / UDP(sport=40050, dport=53) / Raw(b"x" * 1100)
    packet, out, _ = one(big, config=config)
    assert out[ICMPv6PacketTooBig].mtu in (1000, 1280)


# ---------------------------------------------------------------- services that change, time that goes on

@pytest.mark.parametrize("family", FAMILIES)
def test_flows_stay_when_backends_change(family):
    frames, times = [], []
    for k in range(60):
        frames.append(syn(family, sport=45000 + k))
        times.append(START + k * 0.001)
    layer = IP if family == 4 else IPv6
    _, out, _ = only(frames, times=times)
    by_port = {45000 + k: Ether(f)[layer].dst for k, f in enumerate(out)}
    answers = []
    for k, f in enumerate(out):
        p = Ether(f)
        answers.append(ether() / ip(family, src=p[layer].dst, dst=snat(family)) /
                       TCP(sport=8080, dport=p[TCP].sport, flags="SA"))
    more = [ether() / ip(family) / TCP(sport=45000 + k, dport=80, flags="A") for k in range(60)]
    files = [services(), services(backends4=BACKENDS4[1:] + ["10.9.0.9"], backends6=BACKENDS6[1:] + ["2001:db8:9::9"])]
    packets, after, _ = only(frames + answers + more, files=files, args=["--change", f"{START + 1}:{{1}}"],
                             times=times + [START + 0.5] * 60 + [START + 2] * 60)
    assert all(p["verdict"] == "forward" for p in packets)
    for k, f in enumerate(after[120:]):
        assert Ether(f)[layer].dst == by_port[45000 + k]


@pytest.mark.parametrize("family", FAMILIES)
def test_retransmitted_syn_picks_again_when_its_backend_is_gone(family):
    layer = IP if family == 4 else IPv6
    _, out, _ = one(syn(family))
    first = out[layer].dst
    rest = [b for b in backends(family) if b != first]
    changed = services(backends4=rest if family == 4 else None, backends6=rest if family == 6 else None)
    packets, frames, _ = only([syn(family), syn(family), syn(family)], files=[services(), changed],
                              args=["--change", f"{START + 1.5}:{{1}}"], times=[START, START + 1, START + 2])
    got = [Ether(f)[layer].dst for f in frames]
    assert got[0] == got[1] == first and got[2] in rest, (got, packets)


def test_idle_flow_is_gone():
    frame = ether() / ip(4) / UDP(sport=40060, dport=53) / Raw(b"x")
    _, out, _ = one(frame)
    back = ether() / ip(4, src=out[IP].dst, dst=SNAT4) / UDP(sport=5353, dport=out[UDP].sport) / Raw(b"y")
    packets, _, _ = only([frame, back, back, back], times=[START, START + 1, START + 50, START + 50 + 61 + 3600 * 30])
    assert [p["verdict"] for p in packets] == ["forward", "forward", "forward", "drop"]


def test_same_seed_same_bytes():
    frames = [syn(4, sport=s) for s in range(46000, 46100)]
    assert play(frames).frames == play(frames).frames


def test_broken_services_file_is_refused():
    played = play([syn(4)], files=["{"], expect=1)
    assert "services0.json" in played.stderr


def test_layout_of_frames():
    frame = ether() / ip(4) / UDP(sport=40070, dport=53) / Raw(b"x" * 30)
    plain = play([frame] * 5).frames
    layout = ["headroom=0 segments=42", "segments=43,1,2 tailroom=7", "fill=0", "segments=42,5,5,5,5,5,5 headroom=9"]
    played = play([frame] * 5, layout=layout)  # the last line twice
    assert played.frames == plain
    played = play([frame] * 3, layout=["segments=41", "segments=13,29", "segments=34,20"])
    assert played.counters["dropped"] == {"segmented_headers": 3}


@pytest.mark.parametrize("line", ["headroom", "headroom=", "headroom=1025", "segments=0", "segments=1,", "fill=256",
                                  "segments=1,1,1,1,1,1,1,1", "room=1", "headroom=-1", "tailroom=1x"])
def test_layout_errors(line):
    played = play([syn(4)], layout=["headroom=1", line], expect=1)
    assert "layout: line 2" in played.stderr


@pytest.mark.parametrize("args", [["--change", "x:y"], ["--neighbour", "1.2.3.4"], ["--seed", "abc"], ["--what"]])
def test_usage_errors(args):
    played = play([syn(4)], args=args, expect=2)
    assert "usage" in played.stderr


def test_random_frames_are_accounted():
    rng = random.Random(7)
    good = [bytes(syn(f)) for f in FAMILIES] + [bytes(ether() / ip(f) / UDP(sport=9, dport=53) / Raw(b"z" * 30))
                                                for f in FAMILIES]
    frames = []
    for _ in range(3000):
        frame = bytearray(rng.choice(good))
        for _ in range(rng.randint(1, 6)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        frames.append(bytes(frame[:rng.randint(1, len(frame))]))
    played = play(frames)
    assert played.counters["received"] == 3000


@pytest.mark.parametrize("family", FAMILIES)
def test_source_ports_run_out(family):
    """64 ports and one backend: flows that both sides confirmed keep them, one more is refused by name and harms nobody."""
    layer = IP if family == 4 else IPv6
    config = 'ports = ( { name = "p0"; device = "net_null0"; } );\n' \
        f'snat = {{ addresses = [ "{SNAT4}", "{SNAT6}" ]; ports = "1024-1087"; }};\n'
    files = [services(backends4=BACKENDS4[:1], backends6=BACKENDS6[:1])]

    def ask(k):
        return ether() / ip(family) / UDP(sport=20000 + k, dport=53) / Raw(b"question")
    first = [ask(k) for k in range(64)]
    _, out, _ = only(first, files=files, config=config)
    ports = [Ether(f)[UDP].sport for f in out]
    assert sorted(ports) == list(range(1024, 1088))
    answers = [ether() / ip(family, src=backends(family)[0], dst=snat(family)) / UDP(sport=5353, dport=p) / Raw(b"answer")
               for p in ports]
    syn_too = ether() / ip(family) / TCP(sport=20000, dport=80, flags="S")
    packets, out, played = only(first + answers + [ask(64), ask(65), syn_too] + first, files=files, config=config)
    assert [p["reason"] for p in packets if p["verdict"] == "drop"] == ["snat_ports_exhausted"] * 2
    assert packets[130]["verdict"] == "forward", "another protocol has ports of its own"
    assert [Ether(f)[UDP].sport for f in out[-64:]] == ports
    assert Ether(out[-1])[layer].src == snat(family)
    assert played.counters["dropped"] == {"snat_ports_exhausted": 2}


@pytest.mark.parametrize("family", FAMILIES)
def test_tagged_port(family):
    config = 'ports = ( { name = "p0"; device = "net_null0"; vlan = 100; } );\n' \
             'snat = { addresses = [ "192.0.2.1", "2001:db8::1" ]; };\n'
    body = ip(family) / TCP(sport=40060, dport=80, flags="S", seq=1)
    plain, out_plain, _ = one(ether() / body)
    tagged = ether() / Dot1Q(vlan=100, prio=3) / body
    packet, out, _ = one(tagged, config=config)
    assert packet["verdict"] == "forward" and packet["backend"] == plain["backend"], packet
    assert out[Dot1Q].vlan == 100
    assert bytes(out)[18:] == bytes(out_plain)[14:], "the same packet but for its tag"
    assert_dropped(ether() / body, "vlan_untagged", config=config)
    assert_dropped(ether() / Dot1Q(vlan=101) / body, "vlan_mismatch", config=config)
