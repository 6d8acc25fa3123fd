# SPDX-License-Identifier: BSD-3-Clause
"""Endpoints that vanish from the cluster while sluice's own probes still find them well: most of them at once are held, a replacement is not.

On the real API, with hand-made slices, so that a test is the controller that goes wrong.
"""
import contextlib
import json

import lab as labs
import pytest
import rig as rigs

PREFIX = "sluice-lb.github.io"
SLICE = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/web-ipv4-1"


def backends(*which):
    """As kept(): b1 .. b4."""
    return sorted(rigs.Rig.backend_address(i) for i in which)


@contextlib.contextmanager
def without_server(rig, i):
    """The web server b<i> is down meanwhile."""
    child = next(c for c, what in rig.children if what == f"nginx b{i}")
    rig.end(child)
    rig.children = [(c, what) for c, what in rig.children if c is not child]
    try:
        yield
    finally:
        rig.start_backend(i)


class Guarded:
    """A Service without selector, and the slice that a test writes."""

    def __init__(self, lab):
        self.lab, self.cluster, self.rig = lab, lab.cluster, lab.rig

    def endpoints(self, *which, ending=()):
        """These are ready, those terminate; nothing else is in the slice."""
        made = rigs.slice_of("web", [self.rig.backend_address(i) for i in (*which, *ending)], [("http", "TCP", 8080)])
        for endpoint in made["endpoints"][len(which):]:
            endpoint["conditions"] = {"ready": False, "serving": True, "terminating": True}
        self.cluster.apply(made)

    def in_force(self):
        return sorted(self.rig.backends("default/web"))

    def verdicts(self, source):
        return {b["address"]: b["verdicts"][source] for b in self.rig.get("/api/v1/backends?service=default/web")["items"]}

    def up(self, *which):
        """Found well by the probes, not only said to be ready."""
        wanted = dict.fromkeys(backends(*which), "up")
        rigs.wait_for(f"{which} up", lambda: self.verdicts("active") == wanted)

    def journal(self):
        return [e["text"] for e in self.rig.get("/api/v1/events?kind=shrink-guard")["items"]]

    def held(self):
        return self.rig.get("/api/v1/kubernetes")["guardedServices"]

    def programmed(self):
        return self.cluster.conditions("web").get(f"{PREFIX}/Programmed", {})

    def says(self, status, reason):
        return rigs.wait_for(f"the condition {status} {reason}", lambda: (
            self.programmed().get("status"), self.programmed().get("reason")) == (status, reason) and self.programmed(), 20)


@pytest.fixture
def guarded(clean, request):
    """With four endpoints, or as many as the test says."""
    made, first = Guarded(clean), range(1, 1 + getattr(request, "param", 4))
    bare = labs.web(families=["IPv4"], annotations={
        f"{PREFIX}/health-check-interval": "200ms", f"{PREFIX}/health-check-timeout": "100ms"})
    del bare["spec"]["selector"]
    clean.cluster.apply(bare)
    made.endpoints(*first)
    made.vip = rigs.wait_for("a VIP", lambda: clean.cluster.vips("web"))[0]
    made.up(*first)
    made.told = len(made.journal())
    yield made
    clean.cluster.api.delete(SLICE)


def vanish(guarded):
    """Three of four at once; the one that stays is proof that the change has arrived."""
    guarded.endpoints(4)
    rigs.wait_for("the guard", guarded.held)
    assert guarded.in_force() == backends(1, 2, 3, 4)


def test_most_at_once_are_held(guarded):
    load = guarded.rig.load_start("rate", guarded.vip, "80", "100", "3")
    vanish(guarded)
    told = guarded.journal()[guarded.told:]
    assert len(told) == 1 and "3 of 4 endpoints vanished" in told[0] and "3 healthy" in told[0], told
    message = guarded.says("False", "EndpointsVanished")["message"]
    assert message.startswith("3 of 4 endpoints vanished without terminating; 3 healthy ones"), message
    event = rigs.wait_for("an Event", lambda: [e for e in guarded.cluster.events("web") if "vanished" in e["note"]])[0]
    assert (event["type"], event["reason"], event["action"]) == ("Warning", "Rejected", "Guard"), event
    result = guarded.rig.load_finish(load)
    assert result["failed"] == 0 and sorted(result["backends"]) == ["b1", "b2", "b3", "b4"], result
    guarded.endpoints(1, 2, 3, 4)  # the controller comes to its senses
    guarded.says("True", "Programmed")
    assert not guarded.held() and guarded.in_force() == backends(1, 2, 3, 4)
    assert guarded.journal()[-1].startswith("over")


def test_all_at_once_are_held(guarded):
    guarded.cluster.api.delete(SLICE)
    rigs.wait_for("the guard", guarded.held)
    assert guarded.in_force() == backends(1, 2, 3, 4) and guarded.rig.fetch(guarded.vip).startswith("b")
    assert "4 of 4 endpoints vanished" in guarded.journal()[-1]


def test_an_operator_lets_go(guarded):
    vanish(guarded)
    out = guarded.rig.ctl("release", "default/web").stdout
    assert "as its source says" in out
    rigs.wait_for("what the cluster says", lambda: guarded.in_force() == backends(4))
    guarded.says("True", "Programmed")
    assert not guarded.held()
    assert guarded.rig.ctl("release", "default/web", check=False).returncode == 3, "nothing more to let go"
    guarded.endpoints(1, 2, 3, 4)
    guarded.up(1, 2, 3, 4)
    vanish(guarded)  # the next time it is on guard again


def test_each_goes_with_its_probe(guarded):
    vanish(guarded)
    with without_server(guarded.rig, 1):
        rigs.wait_for("b1 gone by its probe", lambda: guarded.in_force() == backends(2, 3, 4), 20)
        assert guarded.held()
        with without_server(guarded.rig, 2), without_server(guarded.rig, 3):
            rigs.wait_for("none of them left", lambda: guarded.in_force() == backends(4) and not guarded.held(), 20)
            assert guarded.journal()[-1].startswith("over")


@pytest.mark.parametrize("guarded", [3], indirect=True)
def test_what_is_replaced_is_not_held(guarded):
    """Blue and green: the whole set is exchanged for another one, all at once, and the old ones are well."""
    for i in (1, 2, 3):
        guarded.rig.run_in(f"b{i}", "ip", "addr", "add", f"192.0.2.{150 + i}/24", "dev", "eth0", check=False)
    made = rigs.slice_of("web", [f"192.0.2.{150 + i}" for i in (1, 2, 3)], [("http", "TCP", 8080)])
    guarded.cluster.apply(made)
    rigs.wait_for("green alone", lambda: guarded.in_force() == [f"192.0.2.{150 + i}" for i in (1, 2, 3)])
    assert len(guarded.journal()) == guarded.told and not guarded.held()


def test_who_terminates_is_not_held(guarded):
    guarded.endpoints(4, ending=(1, 2, 3))
    rigs.wait_for("none of them takes new flows", lambda: list(guarded.verdicts("cluster").values()).count("terminating") == 3)
    guarded.endpoints(4)
    rigs.wait_for("gone", lambda: guarded.in_force() == backends(4))
    assert len(guarded.journal()) == guarded.told


@pytest.mark.parametrize("guarded", [2], indirect=True)
def test_one_that_comes_and_goes_is_missed_once(guarded):
    """Of two, one flaps: never enough for the guard, however often."""
    for _ in range(4):
        guarded.endpoints(1)
        rigs.wait_for("b2 gone", lambda: guarded.in_force() == backends(1))
        guarded.endpoints(1, 2)
        guarded.up(1, 2)
    assert len(guarded.journal()) == guarded.told, json.dumps(guarded.journal())


def test_a_deleted_service_is_not_held(guarded):
    vanish(guarded)
    guarded.cluster.kubectl("delete", "svc", "web")
    rigs.wait_for("gone", lambda: "default/web" not in guarded.rig.services())
    assert not guarded.held()
