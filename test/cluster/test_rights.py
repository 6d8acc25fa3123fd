# SPDX-License-Identifier: BSD-3-Clause
"""Who sluiced is: rights taken away one by one are named, tokens and certificates change while it runs."""
import copy
import os
import re

import cluster as clusters
import lab as labs
import pytest
import rig as rigs

RULES = os.path.join(rigs.TOP, "lib", "kube", "kube_rules.def")
ROLES = "/apis/rbac.authorization.k8s.io/v1"


def roles_of_sluice(cluster):
    """Every role bound to sluice's account: [(path, object)]."""
    subject = {"kind": "ServiceAccount", "name": clusters.SLUICE_ACCOUNT, "namespace": clusters.SLUICE_NAMESPACE}
    found = []
    for kind, roles in (("clusterrolebindings", None), ("rolebindings", None)):
        for binding in cluster.api.get(f"{ROLES}/{kind}")["items"]:
            if not any(all(s.get(k) == v for k, v in subject.items()) for s in binding.get("subjects") or []):
                continue
            ref, space = binding["roleRef"], binding["metadata"].get("namespace")
            roles = f"{ROLES}/clusterroles/{ref['name']}" if ref["kind"] == "ClusterRole" else f"{ROLES}/namespaces/{space}/roles/{ref['name']}"
            found.append((roles, cluster.api.get(roles)))
    return found


def ever_needed():
    """Resources of every rule, those that only a feature wants too."""
    with open(RULES, encoding="ascii") as f:
        return set(re.findall(r'^KUBE_RULE\(\w+,\s*\w+,\s*"[^"]*",\s*"([^"]+)"', f.read(), re.M))


def complains(rig, resource):
    with open(os.path.join(rig.dir, "sluiced.log"), encoding="utf-8") as f:
        return re.search(rf"permission-missing: .*may not \w+ {resource}[.:].*; add to the (ClusterRole|Role) sluice", f.read())


def without(role, idx):
    made = copy.deepcopy(role)
    del made["rules"][idx]
    made["metadata"] = {k: v for k, v in made["metadata"].items() if k in ("name", "namespace", "labels")}
    return made


@pytest.fixture
def wanting_all(clean):
    """Every feature that needs a right of its own: the readiness gate, and a pool that selects namespaces."""
    cluster, part = clean.cluster, os.path.join(labs.DEPLOY, "readiness-gate")
    cluster.kubectl("apply", "-k", part)
    cluster.apply({"apiVersion": "sluice-lb.github.io/v1alpha1", "kind": "AddressPool", "metadata": {"name": "selecting"}, "spec": {
        "addresses": ["203.0.113.64/28"], "namespaceSelector": {"matchLabels": {"may": "have"}}}})
    clean.rig.kubernetes["readiness_gate"] = True
    clean.rig.stop_daemon()
    clean.start()
    yield clean
    del clean.rig.kubernetes["readiness_gate"]
    cluster.kubectl("delete", "addresspool", "selecting")
    cluster.kubectl("delete", "-k", part)
    clean.rig.stop_daemon()
    clean.start()


def test_each_missing_right_is_named(wanting_all):
    lab, cluster = wanting_all, wanting_all.cluster
    cluster.apply(labs.web(families=["IPv4"]))
    lab.add_web_pods(1)
    vip = rigs.wait_for("a VIP", lambda: cluster.vips("web"))[0]
    rigs.wait_for("served", lambda: lab.rig.fetch(vip) == "b1")
    wanted, checked = ever_needed(), set()
    for path, role in roles_of_sluice(cluster):
        for idx, rule in enumerate(role["rules"]):
            cluster.api.put(path, without(role, idx))
            try:
                lab.rig.stop_daemon()
                os.truncate(os.path.join(lab.rig.dir, "sluiced.log"), 0)
                lab.start(wait=False)
                for resource in rule["resources"]:
                    rigs.wait_for(f"a complaint about {resource}", lambda r=resource: complains(lab.rig, r), 20)
                    checked.add(resource)
                rigs.wait_for(f"{vip} served without {rule}", lambda: lab.rig.fetch(vip).startswith("b"), 20)
            finally:
                cluster.api.put(path, {**without(role, idx), "rules": role["rules"]})
    assert checked == wanted


def changes_arrive(lab, vip, i):
    """The one pod is exchanged for pod i; the VIP follows."""
    cluster = lab.cluster
    lab.add_web_pods(1, first=i)
    for pod in cluster.api.get("/api/v1/namespaces/default/pods")["items"]:
        if pod["metadata"]["name"] != f"web-{i}":
            cluster.delete_pod(pod["metadata"]["name"])
    rigs.wait_for(f"b{i} alone", lambda: list(lab.rig.backends("default/web")) == [lab.rig.backend_address(i)], 30)
    rigs.wait_for(f"b{i} answers", lambda: lab.rig.fetch(vip) == f"b{i}")


@pytest.fixture
def one(clean):
    clean.cluster.apply(labs.web(families=["IPv4"]))
    vip = rigs.wait_for("a VIP", lambda: clean.cluster.vips("web"))[0]
    changes_arrive(clean, vip, 1)
    yield clean, vip


def test_token_is_read_again(one):
    """The account is made anew: its old tokens are worth nothing from then on, and the file has another."""
    lab, vip = one
    account = f"/api/v1/namespaces/{clusters.SLUICE_NAMESPACE}/serviceaccounts"
    lab.cluster.api.delete(f"{account}/{clusters.SLUICE_ACCOUNT}")
    lab.cluster.api.post(account, {"metadata": {"name": clusters.SLUICE_ACCOUNT}})
    lab.cluster.write_token(os.path.join(lab.rig.dir, "kubeconfig.token"))
    lab.cluster.restart_apiserver()
    changes_arrive(lab, vip, 2)


def test_client_certificate_is_read_again(clean):
    lab, pki = clean, clean.cluster.certificates
    user = f"system:serviceaccount:{clusters.SLUICE_NAMESPACE}:{clusters.SLUICE_ACCOUNT}"
    pki.client("sluice", user, "system:serviceaccounts")
    path = os.path.join(lab.rig.dir, "certified")
    clusters.write_aside(path, clusters.kubeconfig(f"https://{clusters.ADDRESS}:{clusters.PORT}", {
        "client-certificate": pki.path("sluice.crt"), "client-key": pki.path("sluice.key")}, pki.path("ca.crt")))
    lab.rig.stop_daemon()
    lab.rig.kubeconfig = path
    lab.rig.start_daemon()
    try:
        lab.cluster.apply(labs.web(families=["IPv4"]))
        vip = rigs.wait_for("a VIP", lambda: lab.cluster.vips("web"))[0]
        changes_arrive(lab, vip, 1)
        pki.make_ca("newca")
        pki.client("sluice-new", user, "system:serviceaccounts", ca="newca")
        for kind in ("crt", "key"):
            os.replace(pki.path(f"sluice-new.{kind}"), pki.path(f"sluice.{kind}"))
        lab.cluster.restart_apiserver(client_ca="newca")
        changes_arrive(lab, vip, 2)
    finally:
        lab.rig.stop_daemon()
        lab.cluster.restart_apiserver()
        lab.start()


def test_ca_is_read_again(one):
    lab, vip = one
    pki = lab.cluster.certificates
    pki.make_ca("ca2")
    pki.server("server2", ca="ca2")
    with open(pki.path("ca.crt"), encoding="ascii") as f:
        old = f.read()
    with open(pki.path("ca2.crt"), encoding="ascii") as f:
        clusters.write_aside(pki.path("ca.crt"), old + f.read())
    lab.cluster.reopen()
    try:
        lab.cluster.restart_apiserver(server_certificate="server2")
        changes_arrive(lab, vip, 2)
    finally:
        clusters.write_aside(pki.path("ca.crt"), old)
        lab.cluster.restart_apiserver()
    changes_arrive(lab, vip, 3)


@pytest.mark.parametrize("what, user, ca, says", [
    ("token", {"token": "of-yesterday"}, "ca.crt", 'unauthorized: .*{url} does not accept the token of user "test" in {file}'),
    ("tokenFile", {"tokenFile": "{dir}/stale"}, "ca.crt", "unauthorized: .*{url} does not accept the token of {dir}/stale"),
    ("CA", {"token": "any"}, "stranger.crt", "unreachable: .*{url}: SSL certificate problem: .* \\(certificate-authority .*/stranger.crt\\)"),
], ids=lambda x: x if isinstance(x, str) and " " not in x else "")
def test_what_the_server_does_not_take_is_named(clean, what, user, ca, says):
    """In the log and in REST: the server, and the file or user that is wrong."""
    lab, pki, url = clean, clean.cluster.certificates, f"https://{clusters.ADDRESS}:{clusters.PORT}"
    pki.make_ca("stranger")
    clusters.write_aside(os.path.join(lab.rig.dir, "stale"), "a-token-of-nobody\n")
    path = os.path.join(lab.rig.dir, "wrong")
    fields = {k: v.format(dir=lab.rig.dir) for k, v in user.items()}
    clusters.write_aside(path, clusters.kubeconfig(url, fields, pki.path(ca)))
    pattern = re.compile(says.format(url=re.escape(url), file=re.escape(path), dir=re.escape(lab.rig.dir)))
    lab.rig.stop_daemon()
    os.truncate(os.path.join(lab.rig.dir, "sluiced.log"), 0)
    lab.rig.kubeconfig = path
    lab.rig.start_daemon(wait=False)
    try:
        rigs.wait_for(f"a word about the {what}", lambda: pattern.search(lab.rig.log_tail(200)), 20)
        rigs.wait_for("the same in REST", lambda: any(
            pattern.search(f'{r["trouble"]}: {r["troubleText"]}') for r in lab.rig.get("/api/v1/kubernetes")["resources"]), 20)
    finally:
        lab.rig.stop_daemon()
        lab.start()
