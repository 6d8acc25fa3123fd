# SPDX-License-Identifier: BSD-3-Clause
"""The readiness gate of Pods: sluice's own probe decides, and nobody else is touched. There is no kubelet; this file is one."""
import os

import lab as labs
import pytest
import rig as rigs
from test_guard import without_server

GATE = "sluice-lb.github.io/healthy"
PART = os.path.join(labs.DEPLOY, "readiness-gate")


def condition(cluster, pod, kind=GATE):
    status = cluster.api.get(f"/api/v1/namespaces/default/pods/{pod}")["status"]
    return next((c for c in status.get("conditions") or [] if c["type"] == kind), {})


def turns(lab, pod, status, reason):
    return rigs.wait_for(f"{pod} {status}", lambda: (condition(lab.cluster, pod).get("status"), condition(lab.cluster, pod).get("reason"))
                         == (status, reason) and condition(lab.cluster, pod), 20)


def kubelet(lab, pod):
    """Ready follows the gates; the condition of a gate is not the kubelet's."""
    lab.cluster.set_pod(pod, ready=condition(lab.cluster, pod).get("status") == "True")


def add(lab, i, gate=True):
    lab.cluster.add_pod(f"web-{i}", [lab.rig.backend_address(i)], {"app": "web"}, ports={"http": 8080}, ready=False,
                        **({"readinessGates": [{"conditionType": GATE}]} if gate else {}))


@pytest.fixture
def gated(clean):
    clean.cluster.kubectl("apply", "-k", PART)
    clean.rig.stop_daemon()
    clean.rig.kubernetes["readiness_gate"] = True
    clean.start()
    clean.cluster.apply(labs.web(families=["IPv4"], annotations={
        "sluice-lb.github.io/health-check-interval": "200ms", "sluice-lb.github.io/health-check-timeout": "100ms"}))
    clean.vip = rigs.wait_for("a VIP", lambda: clean.cluster.vips("web"))[0]
    yield clean
    del clean.rig.kubernetes["readiness_gate"]
    clean.rig.stop_daemon()
    clean.cluster.kubectl("delete", "-k", PART)
    clean.start()


def test_a_pod_is_ready_when_the_probe_says_so(gated):
    add(gated, 1)
    add(gated, 2, gate=False)
    passed = turns(gated, "web-1", "True", "ProbePassed")
    assert "1 of 1 checks of edge-1 pass" in passed["message"], passed
    assert condition(gated.cluster, "web-1", "Ready")["status"] == "False", "Ready is not ours to say"
    assert gated.rig.fetch(gated.vip) == "curl 7", "found well, but not ready: nothing new is sent there"
    kubelet(gated, "web-1")
    rigs.wait_for("served", lambda: gated.rig.fetch(gated.vip) == "b1")
    with without_server(gated.rig, 1):
        failed = turns(gated, "web-1", "False", "ProbeFailed")
        assert "0 of 1 checks" in failed["message"], failed
        assert condition(gated.cluster, "web-1", "Ready")["status"] == "True", "the kubelet has not looked yet"
        kubelet(gated, "web-1")
        rigs.wait_for("refused", lambda: gated.rig.fetch(gated.vip) == "curl 7")
    again = turns(gated, "web-1", "True", "ProbePassed")
    assert again["lastTransitionTime"] >= failed["lastTransitionTime"] >= passed["lastTransitionTime"]
    kubelet(gated, "web-1")
    rigs.wait_for("served again", lambda: gated.rig.fetch(gated.vip) == "b1")
    assert condition(gated.cluster, "web-2") == {}, "no gate, no condition"


def test_a_pod_that_is_not_well_is_never_ready(gated):
    with without_server(gated.rig, 1):
        add(gated, 1)
        turns(gated, "web-1", "False", "ProbeFailed")
    turns(gated, "web-1", "True", "ProbePassed")


def test_a_pod_of_no_service_is_left_alone(gated):
    gated.cluster.add_pod("lone", [gated.rig.backend_address(3)], {"app": "lone"}, readinessGates=[{"conditionType": GATE}], ready=False)
    add(gated, 1)
    turns(gated, "web-1", "True", "ProbePassed")  # the look that wrote this has seen the other one, too
    assert condition(gated.cluster, "lone") == {}
