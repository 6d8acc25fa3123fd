# SPDX-License-Identifier: BSD-3-Clause
"""Two workers, re-steered returns, idle workers, other kinds of ports, explain against the path taken."""
import json
import os
import re
import signal
import time

import pytest

import rig as rigs
from mode_rig import ModeRig

WALK = """
import json, socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
out = []
for k in range(count):
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    s.settimeout(5); s.connect((host, port))
    s.send(b'GET / HTTP/1.0\\r\\n\\r\\n')
    text = b''
    while True:
        piece = s.recv(4096)
        if not piece: break
        text += piece
    out.append([s.getsockname()[1], text.decode().strip().split()[-1]])
    s.close()
print(json.dumps(out))
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers need two cores")
def test_two_workers(make_rig):
    rig = make_rig(queues=2)
    assert len(rig.workers()) == 2
    for vip in (rigs.VIP4, rigs.VIP6):
        result = rig.load("requests", vip, "80", "4000", "32", timeout_s=120)
        assert result["failed"] == 0, result["errors"]
        assert sorted(result["backends"]) == ["b1", "b2", "b3"]
    workers = rig.workers()
    assert all(w["counters"]["flows_created"] > 0 for w in workers), "one worker got no flow"
    assert rig.counter("resteered_out") > 0, "no return arrived at the wrong worker: nothing was shown"
    rig.assert_accounted()
    assert rig.counter("resteered_out") == rig.counter("resteered_in")
    assert not set(rig.drops()) - {"no_flow_quiet"}, rig.drops()
    rig.stop_daemon()


def config_for(rig, n_workers, n_queues):
    """The same node with other workers and queues; flows in files."""
    rig.queues = n_queues
    text = rig.config_text().replace('file = "none"', f'file = "{rig.dir}/flows"')
    return re.sub(r'cores = "[^"]*"; control', f'cores = "{"1,0" if n_workers == 2 else "1"}"; control', text)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers need two cores")
def test_flows_survive_other_workers(make_rig):
    """Long downloads while sluiced comes back with one worker, with two, with one that polls two queues, with two."""
    rig = make_rig(queues=2, start=False)
    rig.start_daemon(config_for(rig, 2, 2))
    rigs.wait_for("backends up", lambda: all(s == "up" for s in rig.backend_states().values()) and rig.backend_states())
    for name in rig.backend_names():
        with open(os.path.join(rig.dir, name, "files", "long"), "wb") as f:
            f.write(os.urandom(1 << 16) * 160)
    steps = ((1, 1, signal.SIGKILL), (2, 2, signal.SIGTERM), (1, 2, signal.SIGTERM), (2, 2, signal.SIGKILL))
    for vip, n_steps in ((rigs.VIP4, 4), (rigs.VIP6, 2)):
        long_ones = rig.load_start("download", vip, "80", "/files/long", "30", "600000")
        rigs.wait_for("thirty flows", lambda: sum(w["flows"] for w in rig.workers()) >= 30)
        for n_workers, n_queues, sig in steps[:n_steps]:
            rig.stop_daemon(sig)
            rig.start_daemon(config_for(rig, n_workers, n_queues))
            assert len(rig.workers()) == n_workers
            said = re.findall(r"flows-adopted: (\d+) flows go on, (\d+) cannot; (\d+) files", rig.log_tail())
            assert said and int(said[-1][0]) > 0, rig.log_tail(5)
            assert int(said[-1][2]) == (4 if n_workers == 1 else 2), said  # two tables a worker
            names = sorted(n for n in os.listdir(f"{rig.dir}/flows") if "-of-" in n)
            assert names == [f"{kind}.{i}-of-{n_workers}" for kind in ("flows", "oneway") for i in range(n_workers)], names
        result = rig.load_finish(long_ones)
        broken = [d for d in result["downloads"] if d["error"]]
        assert not broken, f"{len(broken)} of 30 broke: {broken[:2]}"
        assert len({d["sha256"] for d in result["downloads"]}) <= 3
        assert rig.counter("resteered_out") == rig.counter("resteered_in") > 0
    rig.assert_accounted()
    rig.stop_daemon()


def stay_items(family, n_backends):
    """A service of mode ipip on port 80 and one whose clients stay on port 81, both over the first backends."""
    vip = rigs.VIP4 if family == 4 else rigs.VIP6
    addresses = [rigs.Rig.backend_address(i, family) for i in range(1, n_backends + 1)]
    none = {"sluice-lb.github.io/health-check": "none"}
    return [rigs.service("web", [vip], [("http", "TCP", 80)], annotations={"sluice-lb.github.io/mode": "ipip", **none}),
            rigs.slice_of("web", addresses, [("http", "TCP", 80)]),
            rigs.service("stay", [vip], [("http", "TCP", 81)], annotations=none, sessionAffinity="ClientIP"),
            rigs.slice_of("stay", addresses, [("http", "TCP", 80)])]


def stays_at(rig, family, hosts):
    """Which backends answer these addresses of the client on port 81."""
    url, net = (f"http://{rigs.VIP4}:81/", "198.51.100.") if family == 4 else (f"http://[{rigs.VIP6}]:81/", "2001:db8:1::")
    return [rig.run_in("client", "curl", "-gsS", "-m", "5", "--interface", f"{net}{h}", url).stdout.strip() for h in hosts]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers need two cores")
@pytest.mark.parametrize("family", [4, 6])
def test_oneway_flows_and_affinity_survive_other_workers(family):
    """Connections of mode ipip and clients that stay, over kills and other numbers of workers. All began when there was one
    backend; by the hash two of three would be another's now."""
    rig = ModeRig(prefix=f"so{family}", queues=2)
    known, others = range(20, 44), range(50, 74)
    try:
        rig.up()
        rig.replies(direct=True)
        rig._batch("client", *[line for h in (*known, *others) for line in (
            f"addr add 198.51.100.{h}/24 dev eth0", f"addr add 2001:db8:1::{h}/64 dev eth0 nodad")])
        for i in (1, 2, 3):
            rig.start_backend(i, port=80)
            with open(os.path.join(rig.dir, f"b{i}", "files", "long"), "wb") as f:
                f.write(os.urandom(1 << 16) * 160)
        rig.write_services(stay_items(family, 1))
        rig.start_daemon(config_for(rig, 2, 2))
        long_ones = rig.load_start("download", rigs.VIP4 if family == 4 else rigs.VIP6, "80", "/files/long", "30", "600000")
        assert set(stays_at(rig, family, known)) == {"b1"}
        rigs.wait_for("thirty flows", lambda: len(rig.get("/api/v1/flows?service=default/web&limit=100")["items"]) >= 30)
        rig.serve(stay_items(family, 3))
        for n_workers, sig in ((1, signal.SIGKILL), (2, signal.SIGKILL), (2, signal.SIGTERM), (1, signal.SIGTERM)):
            rig.stop_daemon(sig)
            rig.start_daemon(config_for(rig, n_workers, n_workers))
            assert len(rig.workers()) == n_workers
            flows = rig.get("/api/v1/flows?service=default/web&limit=100")["items"]
            assert len(flows) >= 30 and {f["backend"] for f in flows} == {rig.backend_address(1, family)}
            assert set(stays_at(rig, family, known)) == {"b1"}
        result = rig.load_finish(long_ones)
        broken = [d for d in result["downloads"] if d["error"]]
        assert not broken, f"{len(broken)} of 30 broke: {broken[:2]}"
        assert set(stays_at(rig, family, others)) == {"b1", "b2", "b3"}, "affinity was the hash's own answer"
        rig.assert_accounted()
        rig.stop_daemon()
    finally:
        rig.down()


def test_af_xdp(make_rig):
    rig = make_rig(port="af_xdp")
    for vip in (rigs.VIP4, rigs.VIP6):
        result = rig.load("requests", vip, "80", "1000", "16")
        assert result["failed"] == 0, result["errors"]
    rig.assert_accounted()
    rig.stop_daemon()


def cpu_ticks(pid):
    """Ticks of each thread, by its name."""
    ticks = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/stat", encoding="ascii", errors="replace") as f:
            head, tail = f.read().rsplit(")", 1)
        fields = tail.split()
        ticks[f"{tid} {head.split('(', 1)[1]}"] = int(fields[11]) + int(fields[12])
    return ticks


def test_idle_worker_sleeps(web):
    """After a second of silence a worker uses under 5 % of a core (a share, over many seconds, not a time)."""
    pid = web.daemon.pid
    web.load("requests", rigs.VIP4, "80", "100", "8")
    time.sleep(2)  # the silence itself is the condition
    before, begun = cpu_ticks(pid), time.monotonic()
    time.sleep(5)
    seconds = time.monotonic() - begun
    hz = os.sysconf("SC_CLK_TCK")
    shares = {k: (v - before.get(k, 0)) / hz / seconds for k, v in cpu_ticks(pid).items()}
    busiest = max(shares.items(), key=lambda kv: kv[1])
    print(f"busiest thread {busiest[0]}: {busiest[1] * 100:.1f} % of a core")
    assert busiest[1] < 0.05, shares


def test_explain_agrees_with_the_path_taken(web):
    """What explain says of a known flow and of a coming one is what real connections do."""
    out = web.run_in("client", rigs.PYTHON, "-c", WALK, rigs.VIP4, "80", "150")
    taken = json.loads(out.stdout)
    names = {f"192.0.2.1{i}": f"b{i}" for i in (1, 2, 3)}
    for port, backend in taken:
        status, text, _ = web.request("POST", "/api/v1/explain", {
            "source": "198.51.100.10", "sourcePort": port, "destination": rigs.VIP4, "destinationPort": 80,
            "protocol": "TCP", "flags": "S"})
        assert status == 200, text
        answer = json.loads(text)
        assert answer["verdict"] == "forward", answer
        assert names[answer["backend"].split(":")[0]] == backend, (port, backend, answer)
        assert len(answer["steps"]) >= 4
