# SPDX-License-Identifier: BSD-3-Clause
"""The real API server is killed, frozen, cut off, forgetful, throttling: not one connection fails, and what changed meanwhile is exact."""
import os
import shutil

import cluster as clusters
import lab as labs
import pytest
import rig as rigs

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


def unbroken(lab, vip, trouble):
    """New connections all the time while trouble() lasts; none may fail."""
    load = lab.rig.load_start("rate", vip, "80", "100", "3")
    before = lab.rig.digest()
    trouble()
    result = lab.rig.load_finish(load)
    assert result["failed"] == 0, result["failures"][:5]
    return before


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


def test_killed_and_back(served):
    lab, vip = served
    before = unbroken(lab, vip, lab.cluster.kill_apiserver)
    assert lab.rig.digest() == before
    lab.cluster.start_apiserver()
    recovers(lab, vip)


def test_frozen_and_back(served):
    lab, vip = served
    before = unbroken(lab, vip, lab.cluster.freeze)
    assert lab.rig.digest() == before
    lab.cluster.thaw()
    recovers(lab, vip)


def test_cut_off_and_back(served):
    lab, vip = served
    before = unbroken(lab, vip, lambda: lab.cluster.partition(lab.rig.ns("lb")))
    assert lab.rig.digest() == before
    lab.cluster.heal(lab.rig.ns("lb"))
    recovers(lab, vip)


def test_forgotten_versions(served):
    """sluiced hears nothing while the world changes, and the server that it comes back to has forgotten the version it knew (410)."""
    lab, vip = served

    def trouble():
        lab.cluster.partition(lab.rig.ns("lb"))
        for i in range(20):
            lab.cluster.set_pod("web-1", ready=bool(i % 2))
        lab.cluster.restart_apiserver()
    unbroken(lab, vip, trouble)
    lab.cluster.heal(lab.rig.ns("lb"))
    recovers(lab, vip)


def test_throttled(served):
    lab, vip = served

    def trouble():
        lab.cluster.throttle(USER)
        lab.cluster.restart_apiserver()
    unbroken(lab, vip, trouble)
    lab.cluster.relent()
    recovers(lab, vip)


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
