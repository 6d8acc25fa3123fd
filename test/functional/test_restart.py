# SPDX-License-Identifier: BSD-3-Clause
"""The daemon ends, in order or not, and comes back with what operators told it."""
import os
import signal
import subprocess
import time

import pytest

import rig as rigs

BODY = {"metadata": {"namespace": "ops", "name": "extra"},
        "spec": {"addresses": ["203.0.113.50"], "listeners": [{"name": "http", "protocol": "TCP", "port": 8000}],
                 "backends": [{"address": "192.0.2.13", "ports": {"http": 8080}, "weight": 100}]}}


def twins(rig):
    return [line.split()[0] for line in rig.run_in("lb", "ip", "-br", "link", "show", "type", "tun").stdout.split("\n")
            if line.strip()]


def addresses(rig, dev):
    return {w.split("/")[0] for w in rig.run_in("lb", "ip", "-o", "addr", "show", "dev", dev).stdout.split()
            if "/" in w and w[0] in "0123456789abcdef"}


def test_kill_and_start_again(make_rig):
    rig = make_rig()
    for _ in range(3):
        rig.stop_daemon(signal.SIGKILL)
        begun = time.monotonic()
        rig.start_daemon(wait=False)
        # serving = a request through the VIP is answered
        rigs.wait_for("an answer through the VIP", lambda: rig.run_in(
            "client", "curl", "-s", "-m", "0.2", f"http://{rigs.VIP4}/", check=False).returncode == 0, 10, 0.01)
        print(f"serving {time.monotonic() - begun:.2f} s after the start")
        rig.wait_ready()
    result = rig.load("requests", rigs.VIP4, "80", "300", "8")
    assert result["failed"] == 0
    rig.assert_accounted()


def test_term_is_clean(make_rig):
    rig = make_rig()
    rig.load("requests", rigs.VIP4, "80", "100", "8")
    assert rigs.VIP4 in addresses(rig, "p0")
    begun = time.monotonic()
    assert rig.stop_daemon() == 0
    took = time.monotonic() - begun
    print(f"ended in {took:.2f} s")
    assert not os.path.exists(os.path.join(rig.dir, "sluice.sock"))
    # the twins were there before: they stay, with their own addresses and without ours
    assert twins(rig) == ["p0", "p1"]
    assert rigs.VIP4 not in addresses(rig, "p0") and "198.51.100.1" in addresses(rig, "p0")


def test_twins_we_made_are_removed(make_rig):
    rig = make_rig(n_backends=1, start=False)
    for dev in ("p0", "p1"):
        rig.run_in("lb", "ip", "link", "del", dev)
    rig.start_daemon()
    assert twins(rig) == ["p0", "p1"]
    rig.stop_daemon(signal.SIGKILL)
    rig.start_daemon()
    assert rig.stop_daemon() == 0
    assert twins(rig) == []


def test_operator_words_survive(make_rig):
    rig = make_rig()
    status, text, _ = rig.request("PUT", "/api/v1/services/ops/extra", BODY)
    assert status == 201, text
    status, text, _ = rig.request("POST", "/api/v1/services/default/web/backends/192.0.2.12/drain",
                                  {"reason": "maintenance"})
    assert status in (200, 202), text
    rigs.wait_for("draining", lambda: rig.backend_states()["192.0.2.12"] == "draining")
    for sig in (signal.SIGKILL, signal.SIGTERM):
        rig.stop_daemon(sig)
        rig.start_daemon()
        assert rig.get("/api/v1/services/ops/extra")["metadata"]["managedBy"] == "api"
        assert rig.backend_states()["192.0.2.12"] == "draining"
        result = rig.load("requests", "203.0.113.50", "8000", "50", "4")
        assert result["failed"] == 0 and list(result["backends"]) == ["b3"]
        result = rig.load("requests", rigs.VIP4, "80", "200", "8")
        assert result["failed"] == 0 and "b2" not in result["backends"]
    rig.daemon.send_signal(signal.SIGHUP)
    assert rig.backend_states()["192.0.2.12"] == "draining"
    assert rig.request("POST", "/api/v1/services/default/web/backends/192.0.2.12/undrain")[0] in (200, 204)
    rigs.wait_for("up", lambda: rig.backend_states()["192.0.2.12"] == "up")
    assert rig.request("DELETE", "/api/v1/services/ops/extra")[0] == 204
    assert rig.request("DELETE", "/api/v1/services/ops/extra")[0] == 404
    rig.assert_accounted()
    rig.stop_daemon()


def test_drain_ends_no_flow(make_rig):
    rig = make_rig()
    for name in rig.backend_names():
        with open(os.path.join(rig.dir, name, "files", "long"), "wb") as f:
            f.write(b"x" * (6 << 20))
    long_ones = rig.load_start("download", rigs.VIP4, "80", "/files/long", "9", "1500000")
    rigs.wait_for("nine flows", lambda: sum(b["flows"] for b in rig.get(
        "/api/v1/backends?service=default/web")["items"]) >= 9)
    assert rig.request("POST", "/api/v1/services/default/web/backends/192.0.2.11/drain", {})[0] in (200, 202)
    rigs.wait_for("draining", lambda: rig.backend_states()["192.0.2.11"] == "draining")
    new = rig.load("requests", rigs.VIP4, "80", "300", "8")
    assert new["failed"] == 0 and "b1" not in new["backends"]
    result = rig.load_finish(long_ones)
    assert all(d["error"] is None for d in result["downloads"])
    assert any(d["backend"] == "b1" for d in result["downloads"])
    rig.assert_accounted()
    rig.stop_daemon()


def test_second_instance_is_refused(web):
    out = subprocess.run(["ip", "netns", "exec", web.ns("lb"), web.program("sluiced"), "--config",
                          os.path.join(web.dir, "sluice.conf")], capture_output=True, text=True, timeout=20,
                         check=False)
    assert out.returncode == 1 and "E_RUNNING" in out.stdout + out.stderr, out.stderr[-500:]
    assert web.load("requests", rigs.VIP4, "80", "50", "4")["failed"] == 0


def test_port_that_does_not_come_up_is_an_error(make_rig):
    rig = make_rig(n_backends=1, start=False)
    text = rig.config_text().replace("iface=v1", "iface=nosuch")
    rig.start_daemon(text, wait=False)
    assert rig.daemon.wait(20) == 1
    assert "p1" in rig.log_tail() and "nosuch" in rig.log_tail()
    rig.daemon = None


def test_flows_survive_a_kill(make_rig):
    """SIGKILL in the middle of long downloads, and a clean restart too: the next process adopts the flows, none breaks."""
    rig = make_rig()
    text = rig.config_text().replace('file = "none"', f'file = "{rig.dir}/flows"')
    rig.stop_daemon()
    rig.start_daemon(text)
    for name in rig.backend_names():
        with open(os.path.join(rig.dir, name, "files", "long"), "wb") as f:
            f.write(os.urandom(1 << 16) * 160)
    for vip in (rigs.VIP4, rigs.VIP6):
        long_ones = rig.load_start("download", vip, "80", "/files/long", "30", "1500000")
        rigs.wait_for("thirty flows", lambda: rig.get("/api/v1/workers")["items"][0]["flows"] >= 30)
        for sig in (signal.SIGKILL, signal.SIGTERM):
            rig.stop_daemon(sig)
            rig.start_daemon(text)
            assert "flows-adopted" in rig.log_tail()
        result = rig.load_finish(long_ones)
        broken = [d for d in result["downloads"] if d["error"]]
        assert not broken, f"{len(broken)} of 30 broke: {broken[:2]}"
        assert len({d["sha256"] for d in result["downloads"]}) <= 3
    rig.assert_accounted()
    rig.stop_daemon()


@pytest.mark.parametrize("n_workers", [n for n in (1, 2) if n <= (os.cpu_count() or 1)])
def test_little_room_for_files(make_rig, n_workers):
    """Where only the flows' own tables find room, they are kept, and the others lie in memory."""
    rig = make_rig(start=False, queues=n_workers)
    where = f"{rig.dir}/flows"
    os.makedirs(where)
    rigs.run("mount", "-t", "tmpfs", "-o", f"size={10 * n_workers}M", "tmpfs", where)
    kept = [f"flows.{i}-of-{n_workers}" for i in range(n_workers)]
    try:
        text = rig.config_text().replace('file = "none"', f'file = "{where}"')
        for _ in range(2):
            rig.start_daemon(text)
            assert "flows-not-kept" in rig.log_tail() and sorted(os.listdir(where)) == [*kept, "numbers"]
            rigs.wait_for("backends up", lambda: all(s == "up" for s in rig.backend_states().values()) and rig.backend_states())
            assert rig.load("requests", rigs.VIP4, "80", "50", "4")["failed"] == 0
            rig.stop_daemon(signal.SIGKILL)
        assert "flows-adopted" in rig.log_tail()
    finally:
        rig.stop_daemon()
        rigs.run("umount", "-l", where)
