# SPDX-License-Identifier: BSD-3-Clause
"""What sluiced writes, read back by kubectl and by the Python client of Kubernetes, types and all."""
import json
import subprocess

import lab as labs
import pytest
import rig as rigs

READER = """
import json, sys
from kubernetes import client, config
config.load_kube_config(sys.argv[1])
core, coordination, events = client.CoreV1Api(), client.CoordinationV1Api(), client.EventsV1Api()
s = core.read_namespaced_service("web", "default")
# Others' Events may have no eventTime, which this client does not read: only our own are read by type.
listed = json.loads(events.list_namespaced_event("default", _preload_content=False).data)["items"]
names = [e["metadata"]["name"] for e in listed if "sluice" in (e.get("reportingController") or "") and e["regarding"]["name"] == "web"]
ours = [events.read_namespaced_event(name, "default") for name in names]
leases = coordination.list_namespaced_lease("sluice-system").items
print(json.dumps({
    "ingress": [i.ip for i in s.status.load_balancer.ingress],
    "conditions": {c.type: [c.status, c.reason, c.message, c.last_transition_time.isoformat(), c.observed_generation] for c in s.status.conditions},
    "finalizers": s.metadata.finalizers,
    "leases": {x.metadata.name: [x.spec.holder_identity, x.spec.lease_duration_seconds, x.spec.renew_time.isoformat()] for x in leases},
    "events": [[e.reason, e.type, e.action, e.note, e.reporting_controller, e.event_time.isoformat()] for e in ours],
}))
"""


def test_read_back(clean):
    lab, cluster = clean, clean.cluster
    if subprocess.run([rigs.PYTHON, "-c", "import kubernetes"], capture_output=True, check=False).returncode != 0:
        pytest.skip("python3-kubernetes is not installed")
    cluster.apply(labs.web(families=["IPv4"]))
    lab.add_web_pods(2)
    rigs.wait_for("conditions", lambda: {t.split("/")[1]: c["status"] for t, c in cluster.conditions("web").items()} == {
        "Allocated": "True", "Programmed": "True", "BackendsHealthy": "True"})
    rigs.wait_for("an Event", lambda: cluster.events("web"))
    out = subprocess.run(["ip", "netns", "exec", cluster.namespace, rigs.PYTHON, "-c", READER, cluster.path("admin.conf")],
                         capture_output=True, text=True, timeout=60, check=False)
    assert out.returncode == 0, out.stderr[-2000:]
    read = json.loads(out.stdout)
    assert read["ingress"] == cluster.vips("web") and read["finalizers"] == ["sluice-lb.github.io/vip"]
    assert set(read["conditions"]) == {f"sluice-lb.github.io/{n}" for n in ("Allocated", "Programmed", "BackendsHealthy")}
    assert all(status == "True" and reason and message for status, reason, message, *_ in read["conditions"].values())
    assert {"leader", "node-edge-1"} <= set(read["leases"]) and read["leases"]["node-edge-1"][0].startswith("edge-1")
    assert read["events"] and all(len(e) == 6 and all(e) for e in read["events"])
    described = cluster.kubectl("describe", "svc", "web")
    assert cluster.vips("web")[0] in described and "AddressAllocated" in described, described
