# SPDX-License-Identifier: BSD-3-Clause
"""The real API server is killed, frozen, cut off, forgetful, throttling: not one connection fails, and what changed meanwhile is exact.

SLUICE_OUTAGE_S: how long each trouble lasts (CI: seconds; by hand 600).
"""
import os
import shutil
import time

import cluster as clusters
import lab as labs
import pytest
import rig as rigs
import witness as witnesses

USER = f"system:serviceaccount:{clusters.SLUICE_NAMESPACE}:{clusters.SLUICE_ACCOUNT}"


@pytest.fixture
def served(clean):
    """Two backends behind a VIP, up."""
    clean.cluster.apply(labs.web(families=["IPv4"]))
    clean.add_web_pods(2)
    rigs.wait_for("two backends up", lambda: [s for _, s in clean.rig.backends("default/web").values()] == ["up", "up"], 60)
    vip = clean.cluster.vips("web")[0]
    rigs.wait_for("both answer", lambda: clean.rig.load("requests", vip, "80", "40", "4")["backends"].keys() == {"b1", "b2"})
    yield clean, vip
    clean.cluster.mend()


class Trouble:
    """What happens to the server, how it goes on, and how it ends with sluiced still deaf, so that the world may change first."""
    hears_a_little = False

    def __init__(self, lab):
        self.lab, self.cluster, self.deaf = lab, lab.cluster, lab.rig.ns("lb")

    def begin(self):
        raise NotImplementedError

    def tend(self):
        pass

    def end(self):
        """The server works again for everybody but sluiced."""

    def reconcile(self):
        self.cluster.heal(self.deaf)


class Killed(Trouble):
    def begin(self):
        self.cluster.kill_apiserver()

    def end(self):
        self.cluster.partition(self.deaf)
        self.cluster.start_apiserver()


class Frozen(Trouble):
    def begin(self):
        self.cluster.freeze()

    def end(self):
        self.cluster.partition(self.deaf)
        self.cluster.thaw()
        self.cluster.wait_ready()


class CutOff(Trouble):
    def begin(self):
        self.cluster.partition(self.deaf)


class Forgetful(Trouble):
    """sluiced hears nothing while the world changes, and the server that it comes back to has forgotten the version it knew (410)."""

    def begin(self):
        self.cluster.partition(self.deaf)
        for i in range(20):
            self.cluster.set_pod("web-1", ready=bool(i % 2))
        self.cluster.restart_apiserver()


class Throttling(Trouble):
    """429 for what sluiced asks, but for the moments in which the seat is taken anew."""
    hears_a_little = True

    def __init__(self, lab):
        super().__init__(lab)
        self.held = 0.0

    def begin(self):
        self.cluster.throttle(USER)
        self.cluster.restart_apiserver()
        self.tend()
        rigs.wait_for("429", lambda: "429" in self.lab.rig.log_tail(200), 30)

    def tend(self):
        if time.monotonic() - self.held > 30:   # the server gives the request that takes the seat a minute
            self.cluster.hold_seat()
            self.held = time.monotonic()

    def reconcile(self):
        self.cluster.relent()


def world_changes(lab):
    """A pod comes, one begins to go, a Service comes, one goes; the controllers have seen all of it."""
    cluster = lab.cluster
    lab.add_web_pods(1, first=3)
    cluster.terminate_pod("web-1")
    cluster.apply(labs.web("late", families=["IPv4"]))
    cluster.api.delete("/api/v1/namespaces/default/services/gone")

    def listed():
        return {e["addresses"][0]: e["conditions"]["ready"] for s in cluster.slices("web") for e in s["endpoints"]}
    wanted = {lab.rig.backend_address(i): i > 1 for i in (1, 2, 3)}
    rigs.wait_for("the controllers' slices", lambda: listed() == wanted, 60)


def what_is_true_now(lab):
    backends = {a: state for a, (_, state) in lab.rig.backends("default/web").items()}
    wanted = {lab.rig.backend_address(1): "draining", lab.rig.backend_address(2): "up", lab.rig.backend_address(3): "up"}
    return backends == wanted and lab.cluster.vips("late") and lab.rig.services().keys() == {"default/web", "default/late"}


def exact(lab, vip, gone):
    """What changed meanwhile has arrived, and a sluiced that knows nothing of the past comes to the same."""
    cluster, rig = lab.cluster, lab.rig
    assert cluster.vips("web") == [vip]
    late = cluster.vips("late")[0]
    result = rig.load("requests", late, "80", "60", "4")
    assert result["failed"] == 0 and sorted(result["backends"]) == ["b2", "b3"], result
    assert not rig.fetch(gone, timeout=1).startswith("b") or gone == late
    rigs.wait_for("the finalizer of `gone`", lambda: "gone" not in [
        x["metadata"]["name"] for x in cluster.api.get("/api/v1/namespaces/default/services")["items"]], 30)
    cluster.delete_pod("web-1")
    rigs.wait_for("the old pod gone", lambda: len(rig.backends("default/web")) == 2, 30)
    rig.assert_accounted()
    digest = rig.digest()
    rig.stop_daemon()
    shutil.rmtree(os.path.join(rig.dir, "state"))
    lab.start()
    rigs.wait_for("the same digest from nothing", lambda: rig.digest() == digest, 30)


@pytest.mark.parametrize("kind", [Killed, Frozen, CutOff, Forgetful, Throttling], ids=lambda kind: kind.__name__.lower())
def test_trouble(served, kind):
    lab, vip = served
    lab.cluster.apply(labs.web("gone", families=["IPv4"]))
    gone = rigs.wait_for("a VIP of `gone`", lambda: lab.cluster.vips("gone"))[0]
    rigs.wait_for("it serves", lambda: [s for _, s in lab.rig.backends("default/gone").values()] == ["up", "up"])
    trouble = kind(lab)
    witness = witnesses.Witness(lab.rig, vip, "default/web")
    trouble.begin()
    witness.stay(trouble.tend)
    trouble.end()
    world_changes(lab)
    if not trouble.hears_a_little:
        witness.unchanged()
    begun = time.monotonic()
    trouble.reconcile()
    rigs.wait_for("the changes made meanwhile", lambda: what_is_true_now(lab), 120)
    print(f"{kind.__name__}: exact {time.monotonic() - begun:.1f} s after the end")
    witness.end(["b1", "b2", "b3"])
    exact(lab, vip, gone)


def recovers(lab, vip):
    """What changes afterwards arrives: the third pod joins, the first leaves."""
    lab.add_web_pods(1, first=3)
    lab.cluster.delete_pod("web-1")
    rigs.wait_for("the change after the trouble", lambda: sorted(lab.rig.backends("default/web")) == [
        lab.rig.backend_address(2), lab.rig.backend_address(3)], 60)
    result = lab.rig.load("requests", vip, "80", "60", "4")
    assert result["failed"] == 0 and sorted(result["backends"]) == ["b2", "b3"], result
    assert lab.cluster.vips("web") == [vip]
    lab.rig.assert_accounted()


def test_restart_while_the_api_is_down(served):
    lab, vip = served
    digest = lab.rig.digest()
    lab.cluster.kill_apiserver()
    lab.rig.stop_daemon()
    lab.rig.start_daemon(wait=False)
    rigs.wait_for("served from the last good state", lambda: lab.rig.fetch(vip, timeout=1).startswith("b"), 20)
    assert lab.rig.digest() == digest
    lab.cluster.start_apiserver()
    recovers(lab, vip)


def test_without_watch_list(served):
    """An older server: streaming lists are refused, paged ones serve."""
    lab, vip = served
    lab.cluster.kill_apiserver()
    lab.cluster.gates = "WatchList=false"
    try:
        lab.cluster.start_apiserver()
        status, text = lab.cluster.api.raw("GET", "/api/v1/pods?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan")
        assert status == 422 and "sendInitialEvents" in text, text
        recovers(lab, vip)
        lab.rig.stop_daemon()
        shutil.rmtree(os.path.join(lab.rig.dir, "state"))
        lab.start()
        rigs.wait_for("served from a paged list", lambda: lab.rig.fetch(vip).startswith("b"))
    finally:
        lab.cluster.gates = ""
        lab.cluster.restart_apiserver()
