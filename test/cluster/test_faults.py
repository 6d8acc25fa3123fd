# SPDX-License-Identifier: BSD-3-Clause
"""The scripted API server misbehaves in every way it knows: traffic goes on, lists stay within the budget, the state ends exact.

Each case has a sluiced of its own, so that it begins with a whole budget of lists. SLUICE_OUTAGE_S: how long 410, 429 and garbage last
(CI: seconds; by hand 600).
"""
import json
import os
import random
import shutil
import time

import lab as labs
import pytest
import rig as rigs
import scale
import witness as witnesses
from scripted import Fault

BUDGET, BUDGET_S = 4, 30    # reliability: one list in 30 s and resource after a burst of three
VIP = "203.0.113.10"


def fill(store):
    store.put("namespaces", {"metadata": {"name": "default"}})
    store.put("nodes", {"metadata": {"name": "node-1"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.101"}]}})
    store.put("services", scale.service(1, {"sluice-lb.github.io/health-check": "none"}, VIP))
    store.put("endpointslices", scale.slice_of(1, ["192.0.2.11"]))


@pytest.fixture(scope="module")
def world(make_lab):
    made = make_lab(labs.ScriptedLab, n_backends=2).up(fill)
    made.rig.start_backends()
    return made


@pytest.fixture
def calm(world):
    """The world at rest, served by b1."""
    world.server.no_faults()
    world.server.put("endpointslices", scale.slice_of(1, ["192.0.2.11"]))
    world.begun = time.monotonic()
    world.rig.start_daemon()
    rigs.wait_for("b1 serves", lambda: world.rig.fetch(VIP) == "b1")
    yield world
    world.server.no_faults()
    world.rig.stop_daemon()


def point_at(world, i):
    world.server.put("endpointslices", scale.slice_of(1, [f"192.0.2.{10 + i}"]))


def traffic_goes_on(world, backend=None):
    load = world.rig.load("rate", VIP, "80", "50", "1")
    assert load["failed"] == 0, load
    assert backend is None or list(load["backends"]) == [backend], load


def ends_exact(world, what):
    """A change made during the trouble arrives; lists were few."""
    rigs.wait_for(f"exact after {what}", lambda: world.rig.fetch(VIP) == "b2", 90)
    lists = world.server.most_lists("endpointslices", BUDGET_S, world.begun)
    assert lists <= BUDGET, f"{lists} lists within {BUDGET_S} s"
    world.rig.assert_accounted()


def line(obj, kind="MODIFIED"):
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), json.dumps(obj, separators=(",", ":")).encode())


def made(i, addresses=("192.0.2.11",)):
    obj = scale.slice_of(i, list(addresses))
    obj["metadata"]["resourceVersion"] = "1"
    return obj


GARBAGE = [
    b"\x00\xff{{{nonsense\n",
    b'{"type":"MODIFIED","object":{"metadata":{"name":1e999999}}}\n',
    b'{"type":7,"object":[]}\n{"type":"MODIFIED","object":{"metadata":"x"}}\n',
    b'{"type":"MODIFIED","type":"DELETED","object":{"kind":"EndpointSlice","metadata":{"name":"s00001-x7k2p","namespace":"load"}}}\n',
    b'{"type":"DELETED","object":{"kind":"EndpointSlice","metadata":{"name":"s00001-x7k2p","namespace":"load","labels":7}}\n',
    b'{"type":"MODIFIED","object":' + b"[" * 100000 + b"]" * 100000 + b"}\n",
    b'{"type":"MODIFIED","object":{"kind":"EndpointSlice","metad',
]


def test_garbage_on_the_watch(calm):
    """Also what may have been anybody's; a good line behind it is applied, though the list that follows does not have it."""
    calm.server.fault(Fault(verb="watch", resource="endpointslices", frames=[GARBAGE[0], line(made(1, ["192.0.2.12"]))]))
    calm.server.drop_connections()
    rigs.wait_for("the line behind", lambda: calm.rig.fetch(VIP) == "b2")
    calm.server.fault(Fault(verb="watch", resource="endpointslices", frames=GARBAGE),
                      Fault(verb="watch", resource="endpointslices", frames=GARBAGE[-1:], only_frames=True))
    calm.server.drop_connections()
    point_at(calm, 2)
    traffic_goes_on(calm)
    ends_exact(calm, "garbage")


N_CORRUPT, MOST_MB = 10000, 64
GOOD = range(200, 210)      # Services whose slices come between corrupted lines, and from nowhere else


WRONG = [b"1e999999", b"-1", b"99999999999999999999", b'"8080"', b'"\\u0000"', b"[[]]", b'{"a":{}}', b"8080.5", b'8080,"port":80', b'"\xff\xfe"']


def spoiled(rng):
    """A line of which it can be told what object it is about, one that nobody serves, with something wrong in it: refused alone."""
    text = line(made(9000 + rng.randrange(100)), rng.choice(("ADDED", "MODIFIED")))
    field = rng.choice((b"8080", b'["192.0.2.11"]', b'"IPv4"', b"true"))
    return text.replace(field, rng.choice(WRONG))


def flood_of_nonsense():
    """10,000 corrupted lines, among them the worst that is known, and a good one after each thousand."""
    rng = random.Random(11)
    lines = [spoiled(rng) for _ in range(N_CORRUPT)]
    whole = line(made(9000))[:-3] + b',"x":'
    deep = [whole + b"[" * 100000 + b"]" * 100000 + b"}}\n", whole + b'{"a":' * 100000 + b"1" + b"}" * 100002 + b"\n"]
    long = whole + b'"' + b"a" * (64 << 20) + b'"}}\n'
    for k, worst in enumerate((*deep, long, *deep, long, whole + b"1e999999}}\n")):
        lines[700 + 1300 * k] = worst
    for k, i in enumerate(GOOD):
        lines.insert(1001 * (k + 1) - 1, line(made(i), "ADDED"))
    return lines


def memory_mb(rig, row):
    with open(f"/proc/{rig.daemon.pid}/status", encoding="ascii") as f:
        return next(int(words.split()[1]) for words in f if words.startswith(row)) / 1024


def test_nonsense_by_the_ten_thousand(calm):
    """Neither an end nor memory; what is good between the lines is applied, and so is what changes afterwards."""
    rig, server = calm.rig, calm.server
    server.put_all("services", [scale.service(i, {"sluice-lb.github.io/health-check": "none"}, f"203.0.113.{i - 180}") for i in GOOD])
    rigs.wait_for("the Services", lambda: {f"load/{scale.name_of(i)}" for i in GOOD} <= set(rig.services()))
    before, pid = memory_mb(rig, "VmRSS"), rig.daemon.pid
    with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as f:
        f.write("5")  # the high water mark begins anew
    missing = set(GOOD)
    server.fault(Fault(verb="watch", resource="endpointslices", frames=flood_of_nonsense()))
    server.drop_connections()

    def all_applied():
        missing.difference_update(i for i in list(missing) if rig.fetch(f"203.0.113.{i - 180}", timeout=1) == "b1")
        return not missing
    rigs.wait_for("every good line", all_applied, 60)
    point_at(calm, 2)
    ends_exact(calm, "nonsense")
    assert rig.daemon.poll() is None and rig.daemon.pid == pid
    grown = memory_mb(rig, "VmHWM") - before
    print(f"{N_CORRUPT} corrupted lines: {grown:.1f} MB at most above {before:.1f} MB")
    assert grown <= MOST_MB, f"{grown:.1f} MB"


def test_gone_again_and_again(calm):
    calm.server.fault(Fault(verb="watch", resource="endpointslices", event_status=410, times=2))
    calm.server.drop_connections()
    traffic_goes_on(calm)
    point_at(calm, 2)
    ends_exact(calm, "410")


LASTING = {
    "gone": [Fault(verb="watch", event_status=410, times=-1)],
    "throttled": [Fault(status=429, retry_after=1, plain="Too many requests, please try again later.\n", times=-1)],
    "garbage": [Fault(verb="watch", frames=GARBAGE, only_frames=True, times=15), Fault(verb="list", frames=GARBAGE[:1], times=5),
                Fault(verb="watch", frames=GARBAGE[-1:], only_frames=True, times=15), Fault(verb="watch", kind="Potato", times=15),
                Fault(verb="list", kind="Potato", times=5), Fault(status=200, plain="<html>It works!</html>", times=-1)],
}


@pytest.mark.parametrize("faults", LASTING.values(), ids=LASTING.keys())
def test_trouble_that_lasts(calm, faults):
    """Every resource at once, answered like this and nothing else: no table is made anew. What changed last is exact at the end."""
    rig, server = calm.rig, calm.server
    witness = witnesses.Witness(rig, VIP, "load/s00001")
    begun = time.monotonic()
    server.fault(*faults)
    server.drop_connections()
    witness.stay()
    rigs.wait_for("the trouble is met", lambda: sum(f.taken for f in faults) > 0)
    server.put("services", scale.service(3, {"sluice-lb.github.io/health-check": "none"}, "203.0.113.13"))
    server.put("endpointslices", scale.slice_of(3, ["192.0.2.12"]))
    server.put("endpointslices", scale.slice_of(1, ["192.0.2.11", "192.0.2.12"]))
    most = max(server.most_lists(r, BUDGET_S, begun) for r in ("services", "endpointslices", "nodes"))
    server.no_faults()
    ended = time.monotonic()
    rigs.wait_for("the changes made meanwhile", lambda: rig.fetch("203.0.113.13") == "b2" and len(rig.backends("load/s00001")) == 2, 120)
    print(f"exact {time.monotonic() - ended:.1f} s after the end; {sum(f.taken for f in faults)} requests answered so; "
          f"at most {most} lists of a resource within {BUDGET_S} s")
    witness.end(["b1", "b2"])
    assert most <= BUDGET
    rig.assert_accounted()
    digest = rig.digest()
    rig.stop_daemon()
    shutil.rmtree(os.path.join(rig.dir, "state"))
    rig.start_daemon()
    rigs.wait_for("the same digest from nothing", lambda: rig.digest() == digest, 30)
    server.remove("services", scale.NAMESPACE, scale.name_of(3))


def test_throttled_in_plain_text(calm):
    calm.server.fault(Fault(resource="endpointslices", status=429, retry_after=5, plain="Too many requests, please try again later.\n",
                            times=2))  # longer than what it would wait of itself: 0.8 to 1.6 s, then up to 3.2
    calm.server.drop_connections()
    point_at(calm, 2)
    ends_exact(calm, "429")
    asked = [r.at for r in calm.server.requests_of("*", "endpointslices", calm.begun) if r.status == 429]
    assert len(asked) == 2 and all(b - a >= 5 for a, b in zip(asked, asked[1:])), "Retry-After was honoured"


BROKEN = [Fault(verb="watch", resource="endpointslices", cut=40), Fault(verb="watch", resource="endpointslices", reset=True),
          Fault(verb="watch", resource="endpointslices", close=True), Fault(verb="watch", resource="endpointslices", kind="Potato"),
          Fault(verb="watch", resource="endpointslices", after_s=2)]


def test_broken_watches(calm):
    """One after the other, each ended by a change that it does not bring whole, or at all."""
    calm.server.fault(*BROKEN)
    calm.server.drop_connections()
    for turn, fault in enumerate(BROKEN):
        rigs.wait_for(f"fault {turn} taken", lambda f=fault: f.taken, 60)
        point_at(calm, 1 + turn % 2)
        if fault.kind:
            calm.server.drop_connections()
    point_at(calm, 2)
    ends_exact(calm, "broken watches")


def test_stale_replica(calm):
    """A server that answers from before what sluiced has seen takes nothing back."""
    before = calm.server.remember()
    point_at(calm, 2)
    rigs.wait_for("b2", lambda: calm.rig.fetch(VIP) == "b2")
    stale = [Fault(verb=verb, resource="endpointslices", older=before, times=2) for verb in ("list", "watchlist")]
    calm.server.fault(*stale,
                      Fault(verb="watch", resource="endpointslices", event_status=410))
    calm.server.drop_connections()
    rigs.wait_for("an answer from before", lambda: any(fault.taken for fault in stale), 30)
    traffic_goes_on(calm, "b2")
    ends_exact(calm, "stale state")


def test_frozen_server(calm):
    calm.server.freeze()
    point_at(calm, 2)
    traffic_goes_on(calm, "b1")
    calm.server.thaw()
    ends_exact(calm, "silence")


def test_no_compression_and_no_old_first_list(calm):
    asked = [r for r in calm.server.requests if r.resource]
    assert asked and not [r.target for r in asked if "accept-encoding" in r.headers and r.verb in ("watch", "watchlist")]
    assert not [r.target for r in asked if r.query.get("resourceVersion") == "0"]


def test_one_bad_object_is_refused_alone(calm):
    calm.server.put("endpointslices", {**scale.slice_of(2, ["192.0.2.11"]), "endpoints": [{"addresses": ["not-an-address"]}]})
    point_at(calm, 2)
    ends_exact(calm, "a bad object beside it")


def test_flood_of_updates(calm):
    """A thousand slices of ten endpoints change for two seconds; the service beside them changes on time and at the end all is as listed."""
    n = 100
    calm.server.put_all("services", [scale.service(i, {"sluice-lb.github.io/health-check": "none"}, f"203.0.113.{20 + i % 30}")
                                     for i in range(100, 100 + 30)])
    flood = scale.Flood(calm.server, n, first=100)
    result = flood.run(2000, 2)
    point_at(calm, 2)
    ends_exact(calm, json.dumps(result))
