# SPDX-License-Identifier: BSD-3-Clause
"""A backend dies, loudly or silently: it is out within 3 s, nobody else notices, and it comes back."""
import hashlib
import os
import signal
import time

import rig as rigs

GRACE_S = 3.0
FILE_BYTES = 12 << 20


def seed_file(rig):
    """The same long file on every backend; returns its sum."""
    block = hashlib.sha256(b"sluice").digest() * 2048
    whole = block * (FILE_BYTES // len(block))
    for name in rig.backend_names():
        with open(os.path.join(rig.dir, name, "files", "long"), "wb") as f:
            f.write(whole)
    return hashlib.sha256(whole).hexdigest()


def break_and_watch(rig, break_it, mend_it):
    """200 new connections a second while one backend fails; long downloads through the others."""
    digest = seed_file(rig)
    downloads = rig.load_start("download", rigs.VIP4, "80", "/files/long", "9", "1500000")
    load = rig.load_start("rate", rigs.VIP4, "80", "200", "9")
    time.sleep(1.0)  # traffic before the fault; the fault's time is what counts
    broken_at = time.time()
    break_it()
    rigs.wait_for("b1 down", lambda: rig.backend_states()["192.0.2.11"] == "down", GRACE_S + 1)
    noticed_s = time.time() - broken_at
    result = rig.load_finish(load)
    late = [f for f in result["failures"] if f["at"] > broken_at + GRACE_S]
    assert not late, f"{len(late)} requests begun later than {GRACE_S} s after the fault failed: {late[:3]}"
    long_ones = rig.load_finish(downloads)["downloads"]
    others = [d for d in long_ones if d["backend"] != "b1"]
    assert others and all(d["error"] is None and d["sha256"] == digest for d in others), long_ones
    events = rig.get("/api/v1/events?after=0")["items"]
    down = [e for e in events if e["kind"] == "backend-down" and "192.0.2.11" in e["object"]]
    assert down and down[-1]["text"] and down[-1]["time"], events[-5:]
    mend_it()
    rigs.wait_for("b1 up", lambda: rig.backend_states()["192.0.2.11"] == "up", 10)
    after = rig.load("requests", rigs.VIP4, "80", "300", "8")
    assert after["failed"] == 0 and "b1" in after["backends"]
    rig.assert_accounted()
    return noticed_s, result


def test_killed_backend(make_rig):
    rig = make_rig()
    child = rig.children[0][0]
    noticed_s, result = break_and_watch(
        rig, lambda: os.killpg(child.pid, signal.SIGKILL), lambda: rig.start_backend(1))
    print(f"killed: noticed after {noticed_s:.2f} s, {result['failed']} of {result['requests']} failed")
    rig.stop_daemon()


def test_silent_backend(make_rig):
    rig = make_rig()
    rules = "table netdev mute {\n chain c { type filter hook ingress device eth0 priority 0; policy drop; }\n}\n"
    noticed_s, result = break_and_watch(
        rig, lambda: rig.run_in("b1", "nft", "-f", "-", text_in=rules),
        lambda: rig.run_in("b1", "nft", "delete", "table", "netdev", "mute"))
    print(f"silent: noticed after {noticed_s:.2f} s, {result['failed']} of {result['requests']} failed")
    rig.stop_daemon()


def test_http_probe_believes_the_status(make_rig):
    """A server that answers TCP but says 404 on its health path is down; with the right path it is up."""
    items = rigs.web_items(2, families=(4,), annotations={"sluice-lb.github.io/health-check": "http:/files/alive"})
    rig = make_rig(n_backends=2, items=items, start=False)
    with open(os.path.join(rig.dir, "b1", "files", "alive"), "w", encoding="ascii") as f:
        f.write("yes\n")
    rig.start_daemon()
    rigs.wait_for("b2 down", lambda: rig.backend_states() == {"192.0.2.11": "up", "192.0.2.12": "down"})
    rows = {b["address"]: b for b in rig.get("/api/v1/backends?service=default/web")["items"]}
    assert "404" in rows["192.0.2.12"]["reason"], rows["192.0.2.12"]
    result = rig.load("requests", rigs.VIP4, "80", "200", "8")
    assert result["failed"] == 0 and list(result["backends"]) == ["b1"]
    with open(os.path.join(rig.dir, "b2", "files", "alive"), "w", encoding="ascii") as f:
        f.write("yes\n")
    rigs.wait_for("b2 up", lambda: rig.backend_states()["192.0.2.12"] == "up")
    rig.assert_accounted()
    rig.stop_daemon()


def test_all_down_fails_open(make_rig):
    """When every probe fails the traffic still goes to what the cluster calls ready (F5)."""
    items = rigs.web_items(2, families=(4,), annotations={"sluice-lb.github.io/health-check": "http:/files/none"})
    rig = make_rig(n_backends=2, items=items, start=False)
    rig.start_daemon()
    rigs.wait_for("both down", lambda: set(rig.backend_states().values()) == {"down"})
    result = rig.load("requests", rigs.VIP4, "80", "100", "8")
    assert result["failed"] == 0 and sorted(result["backends"]) == ["b1", "b2"]
    rig.assert_accounted()
    rig.stop_daemon()


def test_no_backend_is_refused(make_rig):
    items = rigs.web_items(1, families=(4,))[:1]
    rig = make_rig(n_backends=1, items=items, start=False)
    rig.start_daemon()
    out = rig.run_in("client", "curl", "-sS", "-m", "3", f"http://{rigs.VIP4}/", check=False)
    assert out.returncode == 7, "a service without backends is refused, not black-holed"
    assert rig.drops().get("no_backend", 0) > 0
    rig.assert_accounted()
    rig.stop_daemon()
