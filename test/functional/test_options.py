# SPDX-License-Identifier: BSD-3-Clause
"""Options of a service with real sockets: ranges of ports, and the time that a removed backend's connections get."""
import sys
import time

import pytest

import rig as rigs

# Each server says its name and the port that was connected to, and echoes what comes after.
SERVER = """
import asyncio, socket, sys
async def talk(reader, writer):
    writer.write(f"{sys.argv[1]} {writer.get_extra_info('sockname')[1]}\\n".encode())
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()
class Udp(asyncio.DatagramProtocol):
    def __init__(self, port): self.port = port
    def connection_made(self, transport): self.transport = transport
    def datagram_received(self, data, addr): self.transport.sendto(f"{sys.argv[1]} {self.port}".encode(), addr)
async def main():
    loop = asyncio.get_running_loop()
    for port in map(int, sys.argv[2:]):
        await asyncio.start_server(talk, None, port)
        await loop.create_datagram_endpoint(lambda port=port: Udp(port), local_addr=("::", port))
    await asyncio.Event().wait()
asyncio.run(main())
"""

ASK = """
import socket, sys
kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET,
                  socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.settimeout(3)
try:
    s.connect((host, port))
    if kind == "udp":
        s.send(b"?")
    print(s.recv(100).decode().strip())
except OSError as e:
    print(type(e).__name__)
"""

# Says something every 100 ms and notes when that ends; one line: the server's name, seconds, how it ended.
HOLD = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)
s.settimeout(3)
name = s.recv(100).decode().split()[0]
print(name, flush=True)
begun = time.monotonic()
try:
    while time.monotonic() - begun < float(sys.argv[3]):
        s.send(b"x")
        if not s.recv(10):
            raise ConnectionAbortedError
        time.sleep(0.1)
    end = "open"
except OSError as e:
    end = type(e).__name__
print(f"{time.monotonic() - begun:.2f} {end}", flush=True)
"""


def serve(rig, *ports):
    for name in rig.backend_names():
        rig.spawn(name, sys.executable, "-c", SERVER, name, *map(str, ports), what=f"echo {name}")
        rigs.wait_for(f"echo {name}", lambda n=name: "b" in ask(rig, "tcp", "127.0.0.1", ports[-1], ns=n))


def ask(rig, kind, host, port, ns="client"):
    return rig.run_in(ns, sys.executable, "-c", ASK, kind, host, str(port)).stdout.strip()


def put(rig, name, **spec):
    status, text, _ = rig.request("PUT", f"/api/v1/services/default/{name}",
                                  {"metadata": {"namespace": "default", "name": name}, "spec": spec})
    assert status in (200, 201), text


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_of_a_range_keeps_its_port(web, kind, family):
    vip = rigs.VIP4 if family == 4 else rigs.VIP6
    if not getattr(web, "serves_range", False):
        serve(web, 9000, 9001, 9499)
        web.serves_range = True
    put(web, "range", addresses=[vip], healthCheck={"kind": "none"},
        listeners=[{"name": "r", "protocol": kind.upper(), "port": 9000, "portMax": 9499}],
        backends=[{"address": web.backend_address(i, family), "ports": {"r": 9000}} for i in (1, 2, 3)])
    for port in (9000, 9001, 9499):
        answer = ask(web, kind, vip, port)
        assert answer.split()[1:] == [str(port)] and answer[0] == "b", (port, answer)
    assert ask(web, kind, vip, 8999) == "ConnectionRefusedError"
    assert ask(web, kind, vip, 9500) == "ConnectionRefusedError"
    assert ask(web, kind, vip, 9100) == "ConnectionRefusedError"  # nobody listens there on the backend
    assert web.request("DELETE", "/api/v1/services/default/range")[0] == 204
    assert ask(web, kind, vip, 9000) == "ConnectionRefusedError"


def test_a_removed_backend_keeps_its_connections_for_the_drain_timeout(web):
    if not getattr(web, "serves_drain", False):
        serve(web, 9700)
        web.serves_drain = True
    spec = {"addresses": [rigs.VIP4], "listeners": [{"name": "e", "port": 9700}], "drainTimeout": "3s"}
    backends = [{"address": web.backend_address(i), "ports": {"e": 9700}} for i in (1, 2, 3)]
    put(web, "drain", **spec, backends=backends)
    child = web.spawn("client", sys.executable, "-c", HOLD, rigs.VIP4, "9700", "12", what="hold",
                      stdout=-1, text=True)
    name = child.stdout.readline().strip()
    gone = int(name[1:]) - 1
    put(web, "drain", **spec, backends=backends[:gone] + backends[gone + 1:])
    removed_at = time.monotonic()
    assert all(name not in ask(web, "tcp", rigs.VIP4, 9700) for _ in range(10))
    out, _ = child.communicate(timeout=20)
    web.children = [(c, w) for c, w in web.children if c is not child]
    lasted, end = out.split()
    assert end in ("ConnectionResetError", "BrokenPipeError"), out
    assert time.monotonic() - removed_at >= 2.9, out  # not before its time
    assert web.request("DELETE", "/api/v1/services/default/drain")[0] == 204


def test_addresses_of_a_dead_letter(web):
    """A service that cannot work says why in the reason of its backends."""
    put(web, "odd", addresses=[rigs.VIP4], mode="l2dsr", listeners=[{"name": "x", "port": 9800}],
        healthCheck={"kind": "none"}, backends=[{"address": "198.18.7.7", "ports": {"x": 9800}},
                                                {"address": "2001:db8:77::7", "ports": {"x": 9800}}])
    rows = {b["address"]: b for b in web.get("/api/v1/backends?service=default/odd")["items"]}
    assert "on no link of sluice" in rows["198.18.7.7"]["reason"], rows
    assert "no VIP of its family" in rows["2001:db8:77::7"]["reason"], rows
    assert not any(b["eligible"] for b in rows.values())
    assert ask(web, "tcp", rigs.VIP4, 9800) == "ConnectionRefusedError"
    assert web.request("DELETE", "/api/v1/services/default/odd")[0] == 204
