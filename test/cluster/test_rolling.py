# SPDX-License-Identifier: BSD-3-Clause
"""A rolling replacement under load: every pod is exchanged for another, and no connection, short or long, fails.

CI exchanges twenty pods once beside 200 long connections; by hand five times beside 2,000 of them that outlive the exchange of a batch:
SLUICE_ROLLS=5 SLUICE_LONG=2000 SLUICE_HOLD=20.
"""
import os
import time

import lab as labs
import rig as rigs

PODS, BATCH, SERVERS = 20, 10, 4
ROLLS = int(os.environ.get("SLUICE_ROLLS", "1"))
LONG = os.environ.get("SLUICE_LONG", "200")
HOLD = os.environ.get("SLUICE_HOLD", "3")     # seconds that a long one is held
RATE = os.environ.get("SLUICE_RATE", "500")   # new connections a second
LIMIT_S = "1200"                              # of the load, should nobody end it


def address_of(k):
    """Address k of the pods: a second address of server 1 + k % SERVERS."""
    return f"192.0.2.{100 + k}"


def add(lab, k):
    lab.rig.run_in(f"b{1 + k % SERVERS}", "ip", "addr", "add", f"{address_of(k)}/24", "dev", "eth0")
    lab.cluster.add_pod(f"roll-{k}", [address_of(k)], {"app": "roll"}, ports={"http": 8080})


def take(lab, k):
    lab.cluster.delete_pod(f"roll-{k}")
    lab.rig.run_in(f"b{1 + k % SERVERS}", "ip", "addr", "del", f"{address_of(k)}/24", "dev", "eth0")


def idle(lab, ks):
    """No flow is left on these pods."""
    rows = {b["address"]: b for b in lab.rig.get("/api/v1/services/default/roll")["status"]["backends"]}
    return all(rows.get(address_of(k), {}).get("flows", 0) == 0 for k in ks)


def roll(lab, old, new):
    """Exchanges batch by batch: the new ones serve, the old ones terminate, drain and go."""
    for begin in range(0, PODS, BATCH):
        fresh, stale = range(new + begin, new + begin + BATCH), range(old + begin, old + begin + BATCH)
        for k in fresh:
            add(lab, k)
        rigs.wait_for("the new pods up", lambda f=fresh: all(
            lab.rig.backends("default/roll").get(address_of(k), ("", ""))[1] == "up" for k in f), 30)
        for k in stale:
            lab.cluster.terminate_pod(f"roll-{k}")
        rigs.wait_for("the old pods idle", lambda s=stale: idle(lab, s), 60 + 2 * float(HOLD))
        for k in stale:
            take(lab, k)


def test_rolling_replacement(clean):
    lab = clean
    lab.cluster.apply(labs.web("roll", app="roll", families=["IPv4"]))
    for k in range(PODS):
        add(lab, k)
    vip = rigs.wait_for("a VIP", lambda: lab.cluster.vips("roll"))[0]
    rigs.wait_for("all up", lambda: [s for _, s in lab.rig.backends("default/roll").values()] == ["up"] * PODS, 30)
    long_ones = lab.rig.load_start("hold", vip, "80", LONG, HOLD, LIMIT_S)
    rigs.wait_for("the long connections", lambda: sum(b["flows"] for b in lab.rig.get(
        "/api/v1/services/default/roll")["status"]["backends"]) >= int(LONG), 60)
    short, begun = lab.rig.load_start("rate", vip, "80", RATE, LIMIT_S), time.monotonic()
    for n in range(ROLLS):
        roll(lab, PODS * (n % 2), PODS * ((n + 1) % 2))
        print(f"exchanged {n + 1} times after {time.monotonic() - begun:.1f} s")
    took_s = time.monotonic() - begun
    held, result = lab.rig.load_stop(long_ones), lab.rig.load_stop(short)
    for k in range(PODS * (ROLLS % 2), PODS * (ROLLS % 2) + PODS):
        take(lab, k)
    assert result["failed"] == 0, result["failures"][:5]
    assert held["failed"] == 0 and held["requests"] >= int(LONG), held
    lab.rig.assert_accounted()
    print(f"{result['requests']} short connections in {took_s:.1f} s ({result['requests'] / took_s:.0f} a second), {held['requests']} long ones "
          f"with {held['exchanges']} requests, none failed; p50 {result['p50_ms']} ms, p99 {result['p99_ms']} ms")
