# SPDX-License-Identifier: BSD-3-Clause
"""Addresses on the real API: pools as objects, exhaustion and its end, requests, sharing, selectors; the same after a restart.

Pools made here have addresses apart from those of the configuration (203.0.113.0/26) and, where not said otherwise, give only to who names them.
"""
import json
import re
import time

import cluster as clusters
import pytest
import rig as rigs

POOLS = "/apis/sluice-lb.github.io/v1alpha1/addresspools"
PREFIX = "sluice-lb.github.io/"
ALLOCATED = PREFIX + "Allocated"
NAMESPACES = ("team-a", "team-b")


class Addresses:
    """A lab with three web servers, and what these tests ask of it."""

    def __init__(self, lab):
        self.lab, self.cluster = lab, lab.cluster
        self.made = []

    def pool(self, name, *addresses, **spec):
        body = {"apiVersion": "sluice-lb.github.io/v1alpha1", "kind": "AddressPool", "metadata": {"name": name},
                "spec": {"addresses": list(addresses), "autoAssign": False, **spec}}
        self.cluster.kubectl("apply", "-f", "-", text_in=json.dumps(body))
        self.made.append(name)

    def service(self, name, namespace="default", ports=((80, "TCP"),), families=("IPv4",), **annotations):
        named = [(f"p{port}-{protocol.lower()}", protocol, port, "http") for port, protocol in ports]
        self.cluster.apply(clusters.load_balancer(
            name, {"app": "web"}, named, namespace=namespace, annotations={PREFIX + k.replace("_", "-"): v for k, v in annotations.items()},
            ipFamilies=list(families), ipFamilyPolicy="RequireDualStack" if len(families) > 1 else "SingleStack"))

    def has(self, name, *vips, namespace="default"):
        rigs.wait_for(f"{name} to have {vips}", lambda: sorted(self.cluster.vips(name, namespace)) == sorted(vips), 15)

    def refused(self, name, reason, text, namespace="default"):
        """No address; the condition and an Event say why."""
        def told():
            condition = self.cluster.conditions(name, namespace).get(ALLOCATED, {})
            return (condition.get("status"), condition.get("reason")) == ("False", reason) and text in condition["message"]
        rigs.wait_for(f"{name} to be without address: {reason}, {text}", told, 15)
        assert self.cluster.vips(name, namespace) == []
        rigs.wait_for("an Event", lambda: any(
            e["reason"] == "AddressUnavailable" and e["type"] == "Warning" and text in e["note"] for e in self.cluster.events(name, namespace)), 15)

    def delete(self, name, namespace="default"):
        self.cluster.kubectl("delete", "svc", name, "-n", namespace, "--wait=true")

    def answers(self, vip, port=80):
        rigs.wait_for(f"{vip}:{port} to answer", lambda: self.lab.rig.fetch(vip, port).startswith("b"), 15)


@pytest.fixture
def addresses(clean):
    made = Addresses(clean)
    clean.add_web_pods(3)
    yield made
    for name in sorted(set(made.made)):
        made.cluster.kubectl("delete", "addresspool", name)
    for namespace in NAMESPACES:
        made.cluster.kubectl("delete", "ns", namespace, "--ignore-not-found", "--wait=false")


def test_exhaustion_ends_by_itself(addresses):
    addresses.pool("tiny", "203.0.113.200")
    addresses.service("a", address_pool="tiny")
    addresses.has("a", "203.0.113.200")
    addresses.service("b", address_pool="tiny")
    addresses.refused("b", "Exhausted", "no free IPv4 address in pool tiny")
    addresses.service("c", address_pool="tiny")
    addresses.refused("c", "Exhausted", "no free IPv4 address in pool tiny")
    addresses.delete("a")
    addresses.has("b", "203.0.113.200")
    addresses.answers("203.0.113.200")
    assert addresses.cluster.conditions("b")[ALLOCATED]["status"] == "True"
    addresses.pool("tiny", "203.0.113.200", "203.0.113.201")
    addresses.has("c", "203.0.113.201")
    addresses.answers("203.0.113.201")


def test_asked_for(addresses):
    addresses.pool("asked", "203.0.113.208/29", "2001:db8:f:1::/124")
    addresses.service("a", addresses="203.0.113.213")
    addresses.has("a", "203.0.113.213")
    addresses.service("taken", addresses="203.0.113.213")
    addresses.refused("taken", "AddressInUse", "203.0.113.213 is in use by default/a")
    addresses.service("outside", addresses="198.51.100.9")
    addresses.refused("outside", "AddressOutsidePools", "198.51.100.9 is in no pool; allowed: an address of ")
    addresses.service("typo", address_pool="aksed")
    addresses.refused("typo", "PoolUnknown", "there is no pool aksed; did you mean asked?")
    addresses.service("both", families=("IPv6", "IPv4"), address_pool="asked")
    addresses.has("both", "203.0.113.208", "2001:db8:f:1::")
    addresses.delete("a")
    addresses.has("taken", "203.0.113.213")
    addresses.answers("203.0.113.213")


def test_what_is_nobodys_is_not_given(addresses):
    """Addresses of this machine (its management, its SNAT address, a port's) and of the API server, though a pool has them."""
    mine = ["10.8.0.1", "10.8.0.11", "192.0.2.1", "198.51.100.1"]
    addresses.pool("risky", *mine, "203.0.113.252")
    addresses.service("a", address_pool="risky")
    addresses.has("a", "203.0.113.252")
    addresses.answers("203.0.113.252")
    addresses.service("b", address_pool="risky")
    addresses.refused("b", "Exhausted", "no free IPv4 address in pool risky")
    for i, address in enumerate(mine):
        addresses.service(f"bold-{i}", addresses=address)
        addresses.refused(f"bold-{i}", "AddressOutsidePools", f"{address} is in no pool; allowed: an address of ")


def test_sharing(addresses):
    addresses.pool("shared", "203.0.113.216/29")
    addresses.service("a", ports=((80, "TCP"),), address_pool="shared", sharing_key="k")
    addresses.service("b", ports=((8080, "TCP"),), address_pool="shared", sharing_key="k")
    addresses.has("a", "203.0.113.216")
    addresses.has("b", "203.0.113.216")
    addresses.answers("203.0.113.216", 80)
    addresses.answers("203.0.113.216", 8080)
    addresses.service("alone", ports=((9090, "TCP"),), address_pool="shared")
    addresses.has("alone", "203.0.113.217")
    addresses.service("a", ports=((8080, "TCP"),), address_pool="shared", sharing_key="k")  # the older one, but it is the one that changed
    addresses.has("a", "203.0.113.218")
    addresses.has("b", "203.0.113.216")
    addresses.answers("203.0.113.218", 8080)
    assert addresses.lab.rig.fetch("203.0.113.216", 80).startswith("curl")


def test_who_changed_while_nobody_looked_moves(addresses):
    addresses.pool("shared", "203.0.113.216/29")
    addresses.service("a", ports=((80, "TCP"),), address_pool="shared", sharing_key="k")
    addresses.has("a", "203.0.113.216")
    second = int(time.time())
    rigs.wait_for("another second: a is to be the older one", lambda: int(time.time()) > second + 1)
    addresses.service("b", ports=((8080, "TCP"),), address_pool="shared", sharing_key="k")
    addresses.has("b", "203.0.113.216")
    addresses.lab.rig.stop_daemon()
    addresses.service("a", ports=((8080, "TCP"),), address_pool="shared", sharing_key="k")
    addresses.lab.start()
    addresses.has("a", "203.0.113.217")
    assert addresses.cluster.vips("b") == ["203.0.113.216"]
    addresses.answers("203.0.113.216", 8080)


def test_selectors(addresses):
    cluster = addresses.cluster
    for name in NAMESPACES:
        cluster.api.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": name[-1]}}})
    addresses.pool("of-a", "203.0.113.224/30", autoAssign=True, namespaceSelector={"matchLabels": {"team": "a"}})
    addresses.service("web", "team-a")
    addresses.service("web", "team-b", address_pool="of-a")
    addresses.has("web", "203.0.113.224", namespace="team-a")
    addresses.refused("web", "PoolNotAllowed", "pool of-a leave this Service out", namespace="team-b")
    cluster.kubectl("label", "ns", "team-b", "team=a", "--overwrite")
    addresses.has("web", "203.0.113.225", namespace="team-b")
    cluster.kubectl("label", "ns", "team-a", "team=c", "--overwrite")
    rigs.wait_for("an address of the open pool", lambda: any(v.startswith("203.0.113.") and int(v.split(".")[3]) < 64
                                                             for v in cluster.vips("web", "team-a")), 15)
    for name in NAMESPACES:
        addresses.delete("web", name)


def test_the_same_after_a_restart(addresses):
    addresses.pool("some", "203.0.113.232/29", "2001:db8:f:2::/124")
    names = [f"s{i}" for i in range(6)]
    for name in names:
        addresses.service(name, families=("IPv4", "IPv6"), address_pool="some")
    rigs.wait_for("all", lambda: all(len(addresses.cluster.vips(n)) == 2 for n in names), 20)
    for name in names[:3]:
        addresses.delete(name)
    before = {n: addresses.cluster.service(n)["status"]["loadBalancer"] for n in names[3:]}
    rig = addresses.lab.rig
    rig.stop_daemon()
    addresses.service("later", families=("IPv4", "IPv6"), address_pool="some")
    addresses.lab.start()
    addresses.has("later", "203.0.113.232", "2001:db8:f:2::")
    assert {n: addresses.cluster.service(n)["status"]["loadBalancer"] for n in names[3:]} == before
    for name in names[3:]:
        addresses.answers(addresses.cluster.vips(name)[0])


def test_a_foreign_vip_is_not_served(addresses):
    addresses.pool("own", "203.0.113.240/30")
    addresses.service("web", address_pool="own")
    addresses.has("web", "203.0.113.240")
    path = "/api/v1/namespaces/default/services/web/status"
    addresses.cluster.api.merge(path, {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.77", "ipMode": "VIP"}]}}})
    addresses.has("web", "203.0.113.240")
    addresses.answers("203.0.113.240")
    assert "198.51.100.77" not in json.dumps(addresses.lab.rig.services()["default/web"])


def test_a_foreign_hand_on_the_status_costs_nothing(addresses):
    """Cleared, overwritten, halved, again and again: what was given stays in force until the leader has put it right."""
    addresses.pool("own", "203.0.113.240/30", "2001:db8:f:4::/124")
    addresses.service("web", families=("IPv4", "IPv6"), address_pool="own")
    addresses.has("web", "203.0.113.240", "2001:db8:f:4::")
    for vip in ("203.0.113.240", "2001:db8:f:4::"):
        addresses.answers(vip)
    rig, path = addresses.lab.rig, "/api/v1/namespaces/default/services/web/status"
    loads = [rig.load_start("rate", vip, "80", "200", "4") for vip in ("203.0.113.240", "2001:db8:f:4::")]
    hands = (None, [{"ip": "198.51.100.77"}], [{"ip": "203.0.113.240"}], [{"ip": "203.0.113.241"}, {"ip": "2001:db8:f:4::"}])
    for turn in range(12):
        addresses.cluster.api.merge(path, {"status": {"loadBalancer": {"ingress": hands[turn % len(hands)]}}})
        addresses.has("web", "203.0.113.240", "2001:db8:f:4::")
    for load in loads:
        result = rig.load_finish(load)
        assert result["failed"] == 0, result["failures"][:5]
    rig.assert_accounted()


def pool_row(addresses, name):
    """A row of kubectl get, by its heading."""
    head, row = addresses.cluster.kubectl("get", "addresspool", name).splitlines()
    return dict(zip(re.split(r"\s{2,}", head.strip()), re.split(r"\s{2,}", row.strip())))


def ready(addresses, name):
    conditions = addresses.cluster.api.get(f"{POOLS}/{name}").get("status", {}).get("conditions", [])
    return next(((c["status"], c["reason"], c["message"]) for c in conditions if c["type"] == "Ready"), None)


def test_pools_say_how_they_are(addresses):
    addresses.pool("told", "203.0.113.192/30", "2001:db8:f:3::/120")
    rigs.wait_for("a status", lambda: ready(addresses, "told") == ("True", "Accepted", "gives addresses"), 15)
    for name, families in (("a", ("IPv4", "IPv6")), ("b", ("IPv4",))):
        addresses.service(name, families=families, address_pool="told")
    rigs.wait_for("counts", lambda: [pool_row(addresses, "told").get(k) for k in ("IPV4 USED", "IPV4 FREE", "IPV6 USED", "READY")]
                  == ["2", "2", "1", "True"], 15)
    addresses.delete("a")
    rigs.wait_for("counts again", lambda: addresses.cluster.api.get(f"{POOLS}/told")["status"]["assigned"] == {"ipv4": 1, "ipv6": 0}, 15)
    assert addresses.cluster.api.get(f"{POOLS}/told")["status"]["available"] == {"ipv4": 3, "ipv6": 256}
    addresses.pool("younger", "203.0.113.194-203.0.113.196")
    rigs.wait_for("the overlap", lambda: (ready(addresses, "younger") or ("",) * 3)[:2] == ("False", "Overlapping"), 15)
    assert "203.0.113.192/30 belongs to the pool told" in ready(addresses, "younger")[2]
    assert ready(addresses, "told")[0] == "True"
    addresses.pool("wrong", "203.0.113.197", "127.0.0.1")
    rigs.wait_for("the mistake", lambda: (ready(addresses, "wrong") or ("",) * 3)[:2] == ("False", "Invalid"), 15)
    assert "spec.addresses[1]" in ready(addresses, "wrong")[2] and "127.0.0.0/8" in ready(addresses, "wrong")[2]
    addresses.service("c", addresses="203.0.113.197")
    addresses.has("c", "203.0.113.197")  # what is good of it serves


def test_a_pool_that_goes(addresses):
    addresses.pool("first", "203.0.113.244/30", autoAssign=True, priority=1)
    addresses.service("web")
    addresses.has("web", "203.0.113.244")
    addresses.pool("second", "203.0.113.248/30", autoAssign=True, priority=2)
    addresses.cluster.kubectl("delete", "addresspool", "first")
    addresses.made.remove("first")
    addresses.has("web", "203.0.113.248")
    addresses.answers("203.0.113.248")
