# SPDX-License-Identifier: BSD-3-Clause
"""Runs sluice-replay over frames and gives back what it said and what it sent."""
import json
import os
import struct
import subprocess
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("SLUICE_BUILD", os.path.join(TOP, "build"))
PROGRAM = os.path.join(BUILD, "app/replay/sluice-replay")

LB, GATEWAY = "02:00:00:00:00:02", "02:00:00:00:00:01"
VIP4, VIP6 = "203.0.113.10", "2001:db8:f::10"
SNAT4, SNAT6 = "192.0.2.1", "2001:db8::1"
CLIENT4, CLIENT6 = "198.51.100.7", "2001:db8:c::7"
BACKENDS4 = ["10.9.0.2", "10.9.0.3", "10.9.0.4"]
BACKENDS6 = ["2001:db8:9::2", "2001:db8:9::3", "2001:db8:9::4"]
START = 1000000.0


def services(backends4=None, backends6=None, annotations=None, own_ports=False, more=(), **spec):
    """The service every case uses: TCP 80 -> 8080, UDP 53 -> 5353, both families. own_ports: backends serve the listeners' ports, as
    modes need that leave packets as they are. more: further (name, protocol, port, backend's port)."""
    listeners = [("http", "TCP", 80, 8080), ("dns", "UDP", 53, 5353), *more]
    backends4 = BACKENDS4 if backends4 is None else backends4
    backends6 = BACKENDS6 if backends6 is None else backends6
    ports = [{"name": n, "protocol": p, "port": front} for n, p, front, _ in listeners]
    items = [{"apiVersion": "v1", "kind": "Service",
              "metadata": {"name": "web", "namespace": "default", "annotations": annotations or {}},
              "spec": {"type": "LoadBalancer", "ports": ports, **spec},
              "status": {"loadBalancer": {"ingress": [{"ip": VIP4}, {"ip": VIP6}]}}}]
    for family, addresses in (("IPv4", backends4), ("IPv6", backends6)):
        items.append({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                      "metadata": {"name": f"web-{family.lower()}", "namespace": "default",
                                   "labels": {"kubernetes.io/service-name": "web"}},
                      "addressType": family,
                      "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in addresses],
                      "ports": [{"name": n, "protocol": p, "port": front if own_ports else behind}
                                for n, p, front, behind in listeners]})
    return {"apiVersion": "v1", "kind": "List", "items": items}


def write_capture(path, frames, times):
    """Classic pcap in nanoseconds: a capture of scapy's takes longer to write than to play."""
    with open(path, "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xa1b23c4d, 2, 4, 0, 0, 65535, 1))
        for frame, at in zip(frames, times):
            ns = round(at * 10**9)
            f.write(struct.pack("<IIII", ns // 10**9, ns % 10**9, len(frame), len(frame)) + frame)


def read_capture(path):
    with open(path, "rb") as f:
        whole = f.read()
    at, frames = 24, []
    while at < len(whole):
        length, wire = struct.unpack_from("<II", whole, at + 8)
        assert length == wire, "a frame that is shorter than it says"
        frames.append(whole[at + 16:at + 16 + length])
        at += 16 + length
    return frames


class Played:
    def __init__(self, lines, frames, stderr, code):
        self.packets = [line for line in lines if "packet" in line]
        self.counters = next((line["counters"] for line in lines if "counters" in line), None)
        self.frames, self.stderr, self.code = frames, stderr, code

    def assert_identity(self):
        c = self.counters
        assert c["received"] + c["generated"] == c["sent"] + c["punted"] + sum(c["dropped"].values()), c


def play(frames, files=None, args=(), config=None, times=None, expect=0, layout=None):
    """frames: scapy packets or bytes. files: services document(s); the first is in force from the start. layout: lines of
    --layout, how the frames lie in memory."""
    with tempfile.TemporaryDirectory(prefix="sluice-replay-") as home:
        source, target = os.path.join(home, "in.pcap"), os.path.join(home, "out.pcap")
        frames = [bytes(frame) for frame in frames]
        write_capture(source, frames, times or [START + k * 0.001 for k in range(len(frames))])
        paths = []
        for k, document in enumerate(files or [services()]):
            paths.append(os.path.join(home, f"services{k}.json"))
            with open(paths[-1], "w", encoding="utf-8") as f:
                f.write(document if isinstance(document, str) else json.dumps(document))
        extra = [a.replace("{1}", paths[1] if len(paths) > 1 else "").replace("{home}", home) for a in args]
        if config is not None:
            path = os.path.join(home, "sluice.conf")
            with open(path, "w", encoding="utf-8") as f:
                f.write(config)
            extra += ["--config", path]
        if layout is not None:
            path = os.path.join(home, "layout")
            with open(path, "w", encoding="utf-8") as f:
                f.write("".join(line + "\n" for line in layout))
            extra += ["--layout", path]
        out = subprocess.run([PROGRAM, "--services", paths[0], "--in", source, "--out", target, "--seed", "1", "--json",
                              *extra], capture_output=True, text=True, timeout=120, check=False)
        assert out.returncode == expect, f"ended with {out.returncode}: {out.stderr[-3000:]}"
        lines = [json.loads(line) for line in out.stdout.split("\n") if line.strip()]
        sent = read_capture(target) if os.path.exists(target) and out.returncode == 0 else []
        played = Played(lines, sent, out.stderr, out.returncode)
        if played.counters is not None:
            played.assert_identity()
            assert len(sent) == played.counters["sent"]
        return played
