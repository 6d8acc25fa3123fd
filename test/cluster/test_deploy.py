# SPDX-License-Identifier: BSD-3-Clause
"""config/kubernetes on the real API: it applies, kubectl shows what a user needs, bad pools are refused, the account may no more than it must."""
import json
import os
import re

import cluster as clusters
import pytest
from cluster import wait_for

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join(TOP, "config/kubernetes")
ACCOUNT = f"system:serviceaccount:{clusters.SLUICE_NAMESPACE}:{clusters.SLUICE_ACCOUNT}"


@pytest.fixture(scope="module")
def deployed(cluster):
    cluster.deploy(FOLDER)
    for part in ("readiness-gate", "priority"):
        cluster.kubectl("apply", "-k", os.path.join(FOLDER, part))
    yield cluster
    for part in ("readiness-gate", "priority"):
        cluster.kubectl("delete", "-k", os.path.join(FOLDER, part))


def test_samples_apply_and_show(deployed):
    deployed.kubectl("apply", "-f", os.path.join(FOLDER, "samples"))
    try:
        head, *rows = deployed.kubectl("get", "addresspools").splitlines()
        assert re.split(r"\s{2,}", head.strip()) == [
            "NAME", "ADDRESSES", "AUTO", "PRIORITY", "IPV4 USED", "IPV4 FREE", "IPV6 USED", "READY", "AGE"]
        assert [re.split(r"\s{2,}", row.strip())[:4] for row in rows] == [
            ["public", '["203.0.113.16/28","2001:db8:0:1::10-2001:db8:0:1::ff"]', "true", "0"],
            ["reserved", '["203.0.113.128/30"]', "false", "0"],
            ["team-a", '["203.0.113.64-203.0.113.79"]', "true", "10"]]
        assert "AddressPool" in deployed.kubectl("explain", "apool.spec.addresses")
        web = deployed.api.get("/api/v1/namespaces/default/services/web")
        assert web["spec"]["loadBalancerClass"] == "sluice-lb.github.io/sluice"
        assert "nodePort" not in web["spec"]["ports"][0]
    finally:
        deployed.kubectl("delete", "-f", os.path.join(FOLDER, "samples"))


@pytest.mark.parametrize("spec, why", [
    ({}, "spec.addresses: Required value"),
    ({"addresses": []}, "at least 1 items"),
    ({"addresses": ["203.0.113.0/33"]}, "spec.addresses[0]"),
    ({"addresses": ["203.0.113.1\n"]}, "spec.addresses[0]"),
    ({"addresses": ["203.0.113.1", "203.0.113.1"]}, "Duplicate value"),
    ({"addresses": ["203.0.113.1"], "priority": -1}, "greater than or equal to 0"),
    ({"addresses": ["203.0.113.1"], "namespaces": ["Team"]}, "spec.namespaces[0]"),
    ({"addresses": ["203.0.113.1"], "serviceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "values: Required value"),
    ({"addresses": ["203.0.113.1"], "serviceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
     "(oneOf)"),
])
def test_bad_pools_are_refused(deployed, spec, why):
    pool = {"apiVersion": "sluice-lb.github.io/v1alpha1", "kind": "AddressPool", "metadata": {"name": "bad"}, "spec": spec}
    out = deployed.kubectl("apply", "-f", "-", text_in=json.dumps(pool), check=False)
    assert out.returncode != 0 and why in out.stderr, out.stderr


def test_defaults(deployed):
    path = "/apis/sluice-lb.github.io/v1alpha1/addresspools"
    deployed.api.post(path, {"apiVersion": "sluice-lb.github.io/v1alpha1", "kind": "AddressPool", "metadata": {"name": "plain"}, "spec": {"addresses": ["203.0.113.1"]}})
    try:
        assert deployed.api.get(f"{path}/plain")["spec"] == {"addresses": ["203.0.113.1"], "autoAssign": True, "priority": 0}
    finally:
        deployed.api.delete(f"{path}/plain")


def may(cluster, verb, group, resource, namespace=""):
    name, _, sub = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": name, "subresource": sub, "namespace": namespace}
    return cluster.api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", {
        "spec": {"user": ACCOUNT, "resourceAttributes": attributes}})["status"]["allowed"]


def rules():
    with open(os.path.join(TOP, "lib/kube/kube_rules.def"), encoding="utf-8") as f:
        for args in re.findall(r"^KUBE_RULE\((.*)\)$", f.read(), re.M):
            group, resource, _, *verbs = re.findall(r'"([^"]*)"', args)
            yield args.split(",")[0].strip(), group, resource, verbs


def test_the_account_may_what_it_must(deployed):
    asked = [(verb, group, resource, clusters.SLUICE_NAMESPACE if scope == "OWN" else "")
             for scope, group, resource, verbs in rules() for verb in verbs]
    assert len(asked) > 20
    wait_for("the authorizer to see the roles", lambda: may(deployed, *asked[0]))
    assert [a for a in asked if not may(deployed, *a)] == []


@pytest.mark.parametrize("verb, group, resource, namespace", [
    ("list", "", "secrets", ""), ("get", "", "secrets", "sluice-system"), ("update", "", "services", ""), ("patch", "", "services", ""),
    ("delete", "", "services", ""), ("update", "", "services/status", ""), ("patch", "", "pods", ""), ("create", "", "pods", ""),
    ("patch", "", "nodes", ""), ("patch", "sluice-lb.github.io", "addresspools", ""), ("create", "coordination.k8s.io", "leases", "kube-system"),
    ("delete", "coordination.k8s.io", "leases", "sluice-system"), ("create", "", "serviceaccounts/token", "sluice-system"),
    ("*", "*", "*", ""),
])
def test_the_account_may_no_more(deployed, verb, group, resource, namespace):
    assert not may(deployed, verb, group, resource, namespace)
