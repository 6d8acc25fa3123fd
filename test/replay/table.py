# SPDX-License-Identifier: BSD-3-Clause
"""Named packet cases as a table, and how a whole table is played at once.

A case is a story of one client: steps, each with a frame and what is to become of it, byte for byte. What sluice chose itself (the backend, a
source port) a later step and the expectation take from what came out before; everything else is computed here with scapy.

All cases of a scene (services and configuration) go into one capture, step by step, so that a scene costs a few runs and not one for each
case: the capture of the first n steps is played to learn what the next step's frames must look like. Every case has its own client address.
The last run is the one that is judged. More runs of the same frames, laid out differently in memory or with damaged copies in between, must come to
the same."""
from dataclasses import dataclass, field
from typing import Callable, Optional

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from headers import l4_of
from player import BACKENDS4, BACKENDS6, GATEWAY, LB, SNAT4, SNAT6, START, VIP4, VIP6, play, services

ANNOTATION = "sluice-lb.github.io/"
STEP_S = 0.002  # between frames: no rate limit is met
NEIGHBOURS = {b: f"02:00:00:00:09:{k:02x}" for k, b in enumerate(BACKENDS4 + BACKENDS6)}
NAT, TUNNELS = ["fullnat", "dnat"], ["ipip", "gue"]
MODES = NAT + TUNNELS + ["l2dsr"]


# ---------------------------------------------------------------- scenes

@dataclass
class Scene:
    name: str
    mode: str
    document: dict
    config: Optional[str] = None
    args: tuple = ()
    mtu: int = 1500
    vlan: int = 0            # of the port: every frame that comes and leaves has this tag
    crosses: bool = False    # the backends are of the other family
    neighbours: dict = field(default_factory=dict)  # address to MAC; everything else is behind the gateway
    cases: list = field(default_factory=list)


def config_of(mtu, vlan):
    tag = f" vlan = {vlan};" if vlan else ""
    return f'ports = ( {{ name = "p0"; device = "net_null0"; mtu = {mtu};{tag} }} );\n' \
        f'snat = {{ addresses = [ "{SNAT4}", "{SNAT6}" ]; ports = "1024-65535"; }};\n'


def neighbour_args(neighbours):
    return tuple(word for a, mac in neighbours.items() for word in ("--neighbour", f"{a}={mac}"))


SCENES = {}


def scene(name, mode, mtu=1500, vlan=0, crosses=False, annotations=None, **document):
    on_link = NEIGHBOURS if mode == "l2dsr" else {}
    notes = {ANNOTATION + "mode": mode, **{ANNOTATION + k: v for k, v in (annotations or {}).items()}}
    made = services(annotations=notes, own_ports=mode not in NAT, **document)
    SCENES[name] = Scene(name, mode, made, mtu=mtu, vlan=vlan, crosses=crosses, neighbours=on_link,
                         config=config_of(mtu, vlan), args=neighbour_args(on_link))


# ---------------------------------------------------------------- one case

@dataclass
class Step:
    frame: Callable  # of the client's state: a packet or bytes
    want: "Want"


@dataclass
class Want:
    verdict: str
    reason: str = ""
    out: Optional[Callable] = None  # (state, frame, got) -> the bytes that leave
    released_by: int = 0            # held: by the step that many further on
    learns: bool = False            # what leaves tells the backend's side of the flow


@dataclass
class Case:
    name: str
    scene: Scene
    state: "State"
    steps: list
    frames: list = field(default_factory=list)
    results: list = field(default_factory=list)


class State:
    """One client, and what it knows of its flow."""
    def __init__(self, the_scene, family, number):
        self.scene, self.family = the_scene, family
        self.back_family = (10 - family) if the_scene.crosses else family
        host = number + 1
        self.client = f"198.18.{host >> 8}.{host & 255}" if family == 4 else f"2001:db8:c::{host:x}"
        self.sport = 40000 + number
        self.vip = VIP4 if family == 4 else VIP6
        self.snat, self.backends = (SNAT4, BACKENDS4) if self.back_family == 4 else (SNAT6, BACKENDS6)
        self.layer = IP if family == 4 else IPv6
        self.backend = self.backend_port = self.port = None
        self.came, self.left = [], []  # frames of the steps so far, and what left because of each

    @staticmethod
    def snat4():
        return SNAT4

    @staticmethod
    def snat6():
        return SNAT6

    def ether(self, src=GATEWAY, dst=LB):
        return Ether(src=src, dst=dst)

    @staticmethod
    def ip(src, dst, ttl=64, tos=0, **kw):
        if ":" in src:
            return IPv6(src=src, dst=dst, hlim=ttl, tc=tos, **kw)
        return IP(src=src, dst=dst, ttl=ttl, tos=tos, **kw)

    def up(self, l4, **kw):
        """From the client to the VIP."""
        return self.ether() / self.ip(kw.pop("src", self.client), kw.pop("dst", self.vip), **kw) / l4

    def down(self, l4, **kw):
        """From the backend to who it takes for its client."""
        face = self.client if self.scene.mode == "dnat" else self.snat
        return self.ether() / self.ip(kw.pop("src", self.backend), kw.pop("dst", face), **kw) / l4

    def tcp(self, flags, **kw):
        return TCP(sport=self.sport, dport=80, flags=flags, **kw)

    def udp(self, **kw):
        return UDP(sport=self.sport, dport=53, **kw)

    def back_tcp(self, flags, **kw):
        return TCP(sport=8080, dport=self.face_port(), flags=flags, **kw)

    def back_udp(self, **kw):
        return UDP(sport=5353, dport=self.face_port(), **kw)

    def face_port(self):
        return self.sport if self.scene.mode == "dnat" else self.port

    def learn(self, result, frame):
        address, _, port = result["backend"].rpartition(":")
        self.backend, self.backend_port = address.strip("[]"), int(port)
        assert self.backend in self.backends, f"{self.backend} is no backend"
        if self.scene.mode == "fullnat":
            at = l4_of(frame)[1]
            self.port = int.from_bytes(frame[at:at + 2], "big")


def case(name, *steps, scenes=MODES, families=(4, 6)):
    """Puts a case into scenes, for families."""
    for which in scenes:
        for family in families:
            the_scene = SCENES[which]
            state = State(the_scene, family, len(the_scene.cases))
            full = f"{which}-{name}-{'v4' if family == 4 else 'v6'}"
            assert full not in {c.name for c in the_scene.cases}, full
            the_scene.cases.append(Case(full, the_scene, state, list(steps)))


def borrow(name, of, prefixes, but=(), families=(4, 6)):
    """The same stories in another scene of the same mode."""
    for c in SCENES[of].cases:
        short = c.name[len(of) + 1:-3]
        if c.state.family in families and short.startswith(prefixes) and not short.startswith(but):
            case(short, *c.steps, scenes=[name], families=(c.state.family,))


def drop(frame, reason):
    return Step(frame, Want("drop", reason))


def punt(frame):
    return Step(frame, Want("punt"))


# ---------------------------------------------------------------- playing

@dataclass
class Result:
    packet: dict
    out: Optional[bytes]

    def same(self, other):
        a, b = self.packet, other.packet
        return self.out == other.out and all(a[k] == b[k] for k in ("verdict", "reason", "service", "backend"))


def as_bytes(frame):
    return bytes(frame) if isinstance(frame, Packet) else frame


def tagged(frame, vlan):
    return frame[:12] + b"\x81\x00" + vlan.to_bytes(2, "big") + frame[12:] if vlan else frame


def untagged(frame, vlan):
    if not vlan or frame is None:
        return frame
    assert frame[12:16] == b"\x81\x00" + vlan.to_bytes(2, "big"), "left without its tag"
    return frame[:12] + frame[16:]


@dataclass
class Entry:
    """One frame of the capture. A copy between the steps has no case."""
    frame: bytes
    case: Optional[Case] = None
    step: int = 0
    layout: str = ""


def outputs(entries, packets, sent):
    """Which frame left because of which packet: those that were held leave behind the one that released them."""
    order = []
    at = {(id(e.case), e.step): k for k, e in enumerate(entries) if e.case}
    for k, (entry, packet) in enumerate(zip(entries, packets)):
        later = entry.case.steps[entry.step].want.released_by if entry.case else 0
        behind = at.get((id(entry.case), entry.step + later), k) if later else k
        if packet["out"]:
            order.append((behind, behind != k, k))
    order.sort()
    assert len(order) == len(sent)
    outs = [None] * len(packets)
    for (_, _, k), frame in zip(order, sent):
        outs[k] = frame
    return outs


def layout_tagged(layout, vlan):
    """Segments are told without the tag, which lies in the first one."""
    words = layout.split()
    for k, word in enumerate(words):
        if vlan and word.startswith("segments="):
            first, *rest = word[9:].split(",")
            words[k] = "segments=" + ",".join([str(int(first) + (4 if int(first) > 12 else 0)), *rest])
    return " ".join(words)


def play_entries(the_scene, entries):
    """Copies come at the moment of the step that they belong to."""
    times, now = [], START
    for entry in entries:
        times.append(now)
        now += STEP_S if entry.case else 0
    played = play([tagged(e.frame, the_scene.vlan) for e in entries], files=[the_scene.document], config=the_scene.config,
                  args=the_scene.args, times=times, layout=[layout_tagged(e.layout, the_scene.vlan) for e in entries])
    outs = outputs(entries, played.packets, played.frames)
    return played, [Result(p, untagged(out, the_scene.vlan)) for p, out in zip(played.packets, outs)]


class Batch:
    """A scene's cases, played."""
    def __init__(self, the_scene):
        self.scene, self.entries = the_scene, []
        for step in range(max(len(c.steps) for c in the_scene.cases)):
            fresh = [c for c in the_scene.cases if len(c.steps) > step]
            for c in fresh:
                frame = as_bytes(c.steps[step].frame(c.state))
                self.entries.append(Entry(frame, c, step))
            self.played, self.results = play_entries(the_scene, self.entries)
            for entry, result in zip(self.entries[-len(fresh):], self.results[-len(fresh):]):
                state = entry.case.state
                state.came.append(entry.frame)
                state.left.append(result.out)
                if entry.case.steps[step].want.learns and result.out and state.backend is None:
                    state.learn(result.packet, result.out)
        for entry, result in zip(self.entries, self.results):
            entry.case.frames.append(entry.frame)
            entry.case.results.append(result)

    def again(self, layout=None, copies=None):
        """Plays the same frames with other layouts (a function of the entry), or with copies before each (likewise). Returns
        pairs of entry and result, for the copies and for the steps."""
        entries = []
        for entry in self.entries:
            entries += [Entry(f, None, 0, line) for f, line in (copies(entry) if copies else [])]
            entries.append(Entry(entry.frame, entry.case, entry.step, layout(entry) if layout else ""))
        _, results = play_entries(self.scene, entries)
        pairs = list(zip(entries, results))
        return [p for p in pairs if p[0].case is None], [p for p in pairs if p[0].case is not None]


BATCHES = {}


def batch(name):
    """A scene that cannot be played is not tried again for each of its cases."""
    if name not in BATCHES:
        try:
            BATCHES[name] = Batch(SCENES[name])
        except Exception as why:
            BATCHES[name] = why
    if isinstance(BATCHES[name], Exception):
        raise BATCHES[name]
    return BATCHES[name]
