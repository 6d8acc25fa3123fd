# SPDX-License-Identifier: BSD-3-Clause
"""config/kubernetes against what the code asks for: rights rule by rule, the CRD's schema on good and bad objects, samples."""
import copy
import functools
import glob
import os
import re

import jsonschema
import pytest
import yaml

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join(TOP, "config/kubernetes")
ACCOUNT = {"kind": "ServiceAccount", "name": "sluice", "namespace": "sluice-system"}


def load(name):
    with open(os.path.join(FOLDER, name), encoding="utf-8") as f:
        return [o for o in yaml.safe_load_all(f) if o]


def read(name):
    with open(os.path.join(TOP, name), encoding="utf-8") as f:
        return f.read()


def table():
    """kube_rules.def: {(scope, need): {(group, resource): verbs}}."""
    rules = {}
    for args in re.findall(r"^KUBE_RULE\((.*)\)$", read("lib/kube/kube_rules.def"), re.M):
        scope, need = [w.strip() for w in args.split(",")[:2]]
        group, resource, without, *verbs = re.findall(r'"([^"]*)"', args)
        assert without and verbs
        rules.setdefault((scope, need), {})[(group, resource)] = sorted(verbs)
    assert sum(map(len, rules.values())) == len(re.findall(r"^KUBE_RULE", read("lib/kube/kube_rules.def"), re.M))
    return rules


def granted(objects, kind):
    """{(group, resource): verbs} of the one role of that kind."""
    (role,) = [o for o in objects if o["kind"] == kind]
    rules = {}
    for rule in role["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                assert (group, resource) not in rules
                rules[(group, resource)] = sorted(rule["verbs"])
    return rules


def test_rights_are_those_of_the_table():
    rules, base, gate = table(), load("rbac.yaml"), load("readiness-gate/rbac.yaml")
    assert granted(base, "ClusterRole") == {**rules[("CLUSTER", "ALWAYS")], **rules[("CLUSTER", "NAMESPACES")]}
    assert granted(base, "Role") == rules[("OWN", "ALWAYS")]
    assert granted(gate, "ClusterRole") == rules[("CLUSTER", "GATE")]
    assert set(rules) == {("CLUSTER", "ALWAYS"), ("CLUSTER", "NAMESPACES"), ("CLUSTER", "GATE"), ("OWN", "ALWAYS")}


def test_rights_are_bound_to_one_account():
    objects = load("rbac.yaml") + load("readiness-gate/rbac.yaml")
    roles = {(o["kind"], o["metadata"]["name"], o["metadata"].get("namespace")) for o in objects if o["kind"].endswith("Role")}
    bound = set()
    for o in objects:
        if not o["kind"].endswith("Binding"):
            continue
        assert o["subjects"] == [ACCOUNT]
        assert o["roleRef"]["apiGroup"] == "rbac.authorization.k8s.io"
        bound.add((o["roleRef"]["kind"], o["roleRef"]["name"], o["metadata"].get("namespace")))
    assert bound == roles
    accounts = [o for o in objects if o["kind"] == "ServiceAccount"]
    assert [(o["metadata"]["name"], o["metadata"]["namespace"]) for o in accounts] == [(ACCOUNT["name"], ACCOUNT["namespace"])]
    assert load("namespace.yaml")[0]["metadata"]["name"] == ACCOUNT["namespace"]


@pytest.mark.parametrize("folder", ["", "readiness-gate", "priority"])
def test_kustomizations_name_what_is_there(folder):
    (kustomization,) = load(os.path.join(folder, "kustomization.yaml"))
    there = {os.path.basename(p) for p in glob.glob(os.path.join(FOLDER, folder, "*.yaml"))} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == there


def test_every_file_is_yaml_with_objects():
    names = glob.glob(os.path.join(FOLDER, "**/*.yaml"), recursive=True)
    assert len(names) >= 10
    for name in names:
        for o in load(os.path.relpath(name, FOLDER)):
            assert o["apiVersion"] and o["kind"]


# ---------------------------------------------------------------- the CRD
def crd():
    return load("addresspools.yaml")[0]


def schema():
    return crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def test_crd_names():
    o = crd()
    assert o["metadata"]["name"] == "addresspools.sluice-lb.github.io"
    assert o["spec"]["scope"] == "Cluster" and o["spec"]["names"]["kind"] == "AddressPool"
    (version,) = o["spec"]["versions"]
    assert version["name"] == "v1alpha1" and version["storage"] and version["served"]
    assert version["subresources"] == {"status": {}}
    assert "x-kubernetes-validations" not in read("config/kubernetes/addresspools.yaml")


def members(node):
    yield node
    for child in [*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])]:
        yield from members(child)


def test_crd_is_structural():
    for node in members(schema()):
        assert node.get("type") in ("object", "array", "string", "integer", "boolean"), node
        for word in ("oneOf", "anyOf", "allOf", "not"):
            for part in node.get(word, []):
                assert not {"type", "description", "default", "additionalProperties"} & set(part), part
    spec = schema()["properties"]["spec"]["properties"]
    assert set(spec) == {"addresses", "priority", "autoAssign", "namespaces", "namespaceSelector", "serviceSelector"}
    assert spec["autoAssign"]["default"] is True and spec["priority"]["default"] == 0


def test_printer_columns_show_what_is_there():
    def find(path):
        node = schema()
        for word in path:
            node = node["properties"][word]
    columns = crd()["spec"]["versions"][0]["additionalPrinterColumns"]
    for column in columns:
        path = column["jsonPath"].lstrip(".").split("[")[0].split(".")
        if path[0] != "metadata":
            find(path)
    assert [c["name"] for c in columns if not c.get("priority")] == [
        "Addresses", "Auto", "Priority", "IPv4 used", "IPv4 free", "IPv6 used", "Ready", "Age"]


GOOD = {"apiVersion": "sluice-lb.github.io/v1alpha1", "kind": "AddressPool", "metadata": {"name": "x"},
        "spec": {"addresses": ["203.0.113.0/24"]}}
GOOD_ADDRESSES = ["203.0.113.0/24", "203.0.113.7", "203.0.113.10-203.0.113.20", "203.0.113.10 - 203.0.113.20", "0.0.0.0/0", "2001:db8::/32",
                  "2001:db8::1", "2001:db8::10-2001:db8::ff", "2001:DB8:1:2:3:4:5:6/128", "::/0"]
BAD_ADDRESSES = ["", "web", "203.0.113.0/33", "203.0.113.256", "203.0.113/24", "203.0.113.01", "203.0.113.0/024", "2001:db8::/129", "2001:db8::g",
                 "203.0.113.1-2001:db8::1", "203.0.113.0/24,203.0.114.0/24", " 203.0.113.1", "203.0.113.1\n", "-", "203.0.113.1-", "::ffff:1.2.3.4",
                 "fe80::1%eth0", "x" * 101]


@functools.cache
def validator():
    rules = schema()
    for node in members(rules):
        if "pattern" in node:   # Python's $ takes a newline at the end, the API server's does not
            node["pattern"] = re.sub(r"\$$", r"\\Z", node["pattern"])
    return jsonschema.Draft4Validator(rules)


def refused(**spec):
    o = copy.deepcopy(GOOD)
    o["spec"].update(spec)
    return list(validator().iter_errors(o))


@pytest.mark.parametrize("address", GOOD_ADDRESSES)
def test_good_addresses(address):
    assert not refused(addresses=[address])


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_bad_addresses(address):
    assert refused(addresses=[address])


@pytest.mark.parametrize("spec", [
    {"addresses": []}, {"addresses": "203.0.113.0/24"}, {"priority": -1}, {"priority": "1"}, {"autoAssign": "yes"}, {"namespaces": ["Team"]},
    {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Is", "values": ["b"]}]}},
    {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
    {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]}},
    {"serviceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
    {"serviceSelector": {"matchLabels": {"a": 1}}},
])
def test_bad_specs(spec):
    assert refused(**spec)


@pytest.mark.parametrize("spec", [
    {"priority": 5, "autoAssign": False, "namespaces": ["team-a", "b"]},
    {"namespaceSelector": {"matchLabels": {"team": "a"}, "matchExpressions": [
        {"key": "a", "operator": "In", "values": ["b"]}, {"key": "c", "operator": "DoesNotExist"}]}},
    {"serviceSelector": {}},
])
def test_good_specs(spec):
    assert not refused(**spec)


# ---------------------------------------------------------------- samples
def test_samples_are_good():
    pools = load("samples/addresspool.yaml")
    assert len(pools) == 3
    for pool in pools:
        assert not refused(**pool["spec"]), pool
    rows = set(re.findall(r'\.key = "([a-z-]+)"', read("lib/kube/kube_annotations.c")))
    rows |= set(re.findall(r'SECONDS_ROW\("([a-z-]+)"', read("lib/kube/kube_annotations.c")))
    for service in load("samples/service.yaml"):
        assert service["spec"]["loadBalancerClass"] == "sluice-lb.github.io/sluice"
        for key in service["metadata"].get("annotations", {}):
            prefix, name = key.split("/")
            assert prefix == "sluice-lb.github.io" and name in rows, key
