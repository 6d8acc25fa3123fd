# SPDX-License-Identifier: BSD-3-Clause
"""The REST interface keeps to its own document while a cluster feeds it: schemathesis at a sluiced that follows the scripted API."""
import contract
import lab as labs
import pytest
import rig as rigs
import scale

VIP = "203.0.113.10"


def fill(store):
    store.put("namespaces", {"metadata": {"name": "default"}})
    store.put("nodes", {"metadata": {"name": "node-1"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.101"}]}})
    store.put("services", scale.service(1, {"sluice-lb.github.io/health-check": "none"}, VIP))
    store.put("endpointslices", scale.slice_of(1, ["192.0.2.11", "192.0.2.12"]))
    store.put("services", scale.service(2, {"sluice-lb.github.io/mode": "nonsense"}, "203.0.113.11"))


def test_document_of_a_sluiced_in_a_cluster(make_lab):
    reason = contract.unavailable()
    if reason:
        pytest.skip(reason)
    lab = make_lab(labs.ScriptedLab, n_backends=2).up(fill)
    lab.rig.start_backends()
    lab.rig.start_daemon()
    rigs.wait_for("it serves", lambda: lab.rig.fetch(VIP).startswith("b"))
    print(contract.run(lab.rig, {"path.namespace": scale.NAMESPACE, "path.name": scale.name_of(1), "path.address": "192.0.2.11"}), "cases")
    assert lab.rig.fetch(VIP).startswith("b")
    lab.rig.assert_accounted()
