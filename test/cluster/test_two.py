# SPDX-License-Identifier: BSD-3-Clause
"""Two sluiced at one API: one leads, both program the same; the leader dies and nobody outside can tell."""
import os
import signal
import threading

import cluster as clusters
import lab as labs
import pytest
import rig as rigs

LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{clusters.SLUICE_NAMESPACE}/leases"


def holder(cluster):
    return cluster.api.get(f"{LEASES}/leader")["spec"].get("holderIdentity") or ""


class StatusWatch:
    """Every form that a Service's status takes, from its watch."""

    def __init__(self, cluster, name):
        self.client = cluster.client(clusters.ADMIN_TOKEN, timeout=120)
        connection = self.client._open()
        connection.request("GET", f"/api/v1/namespaces/default/services?watch=true&fieldSelector=metadata.name%3D{name}",
                           headers={"Authorization": f"Bearer {clusters.ADMIN_TOKEN}"})
        self.connection, self.answer, self.seen = connection, connection.getresponse(), []
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self):
        try:
            while line := self.answer.readline():
                status = labs.clusters.json.loads(line)["object"]["status"]
                self.seen.append([i.get("ip") for i in (status.get("loadBalancer") or {}).get("ingress") or []])
        except (OSError, ValueError, AttributeError):
            pass

    def close(self):
        try:
            self.connection.sock.shutdown(2)
        except OSError:
            pass
        self.thread.join(5)


@pytest.fixture
def pair(clean):
    second = clean.second()
    try:
        clean.start(second)
        yield clean, second
    finally:
        clean.drop(second)
        if clean.rig.daemon is None:
            clean.start()


def test_one_leader_equal_digests_takeover(pair):
    lab, second = pair
    cluster = lab.cluster
    cluster.apply(labs.web(families=["IPv4"]))
    lab.add_web_pods(3)
    vip = rigs.wait_for("a VIP", lambda: cluster.vips("web"))[0]
    for rig in (lab.rig, second):
        rigs.wait_for("three backends", lambda r=rig: len(r.backends("default/web")) == 3)
        rigs.wait_for("served", lambda r=rig: r.fetch(vip).startswith("b"))
    assert lab.rig.digest() == second.digest()
    leaders = {"edge-1": lab.rig, "edge-2": second}
    first = rigs.wait_for("a leader", lambda: next((n for n in leaders if holder(cluster).startswith(n)), None))
    nodes = {x["metadata"]["name"] for x in cluster.api.get(LEASES)["items"]}
    assert {"leader", "node-edge-1", "node-edge-2"} <= nodes, nodes
    rigs.wait_for("programmed on both", lambda: "2 of 2" in cluster.conditions("web").get("sluice-lb.github.io/Programmed", {})
                  .get("message", ""))
    watch = StatusWatch(cluster, "web")
    os.killpg(leaders[first].daemon.pid, signal.SIGKILL)
    leaders[first].daemon.wait()
    leaders[first].daemon = None
    other = next(n for n in leaders if n != first)
    rigs.wait_for("the other leads", lambda: holder(cluster).startswith(other), 30)
    cluster.apply(labs.web("late", families=["IPv4"]))
    rigs.wait_for("the new leader assigns", lambda: cluster.vips("late"))
    result = leaders[other].load("requests", vip, "80", "60", "4")
    assert result["failed"] == 0, result
    watch.close()
    assert watch.seen and all(seen == [vip] for seen in watch.seen), watch.seen


def test_a_leader_that_stops_hands_over(pair):
    lab, second = pair
    cluster = lab.cluster
    first = rigs.wait_for("a leader", lambda: holder(cluster))
    rig = lab.rig if first.startswith("edge-1") else second
    rig.stop_daemon()
    rigs.wait_for("the other leads", lambda: holder(cluster) and holder(cluster) != first, 30)
