# SPDX-License-Identifier: BSD-3-Clause
"""A rolling replacement under load: every pod is exchanged for another, and no connection, short or long, fails.

CI exchanges twenty pods once; SLUICE_ROLLS and SLUICE_LONG ask for more rounds and more long connections by hand.
"""
import os

import lab as labs
import rig as rigs

PODS, BATCH, SERVERS = 20, 10, 4
ROLLS = int(os.environ.get("SLUICE_ROLLS", "1"))
LONG = os.environ.get("SLUICE_LONG", "200")
RATE = os.environ.get("SLUICE_RATE", "500")


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
        rigs.wait_for("the old pods idle", lambda s=stale: idle(lab, s), 60)
        for k in stale:
            take(lab, k)


def test_rolling_replacement(clean):
    lab = clean
    lab.cluster.apply(labs.web("roll", app="roll", families=["IPv4"]))
    for k in range(PODS):
        add(lab, k)
    vip = rigs.wait_for("a VIP", lambda: lab.cluster.vips("roll"))[0]
    rigs.wait_for("all up", lambda: [s for _, s in lab.rig.backends("default/roll").values()] == ["up"] * PODS, 30)
    seconds = str(6 + 14 * ROLLS)
    short = lab.rig.load_start("rate", vip, "80", RATE, seconds)
    long_ones = lab.rig.load_start("hold", vip, "80", LONG, "3", seconds)
    for n in range(ROLLS):
        roll(lab, PODS * (n % 2), PODS * ((n + 1) % 2))
    held, result = lab.rig.load_finish(long_ones, 400), lab.rig.load_finish(short, 400)
    for k in range(PODS * (ROLLS % 2), PODS * (ROLLS % 2) + PODS):
        take(lab, k)
    assert result["failed"] == 0, result["failures"][:5]
    assert held["failed"] == 0 and held["requests"] >= int(LONG), held
    lab.rig.assert_accounted()
    print(f"{result['requests']} short, {held['requests']} long connections; p99 {result['p99_ms']} ms")
