# SPDX-License-Identifier: BSD-3-Clause
"""API object to packet, real parts only: what kubectl applies and the controllers make is what a client gets."""
import json
import signal
import time

import cluster as clusters
import lab as labs
import netns
import rig as rigs

PREFIX = "sluice-lb.github.io"


def both_vips(lab, name="web"):
    return rigs.wait_for("a VIP of each family in status", lambda: len(lab.cluster.vips(name)) == 2 and lab.cluster.vips(name))


def spread(lab, vip, n=60, port=80):
    """The backends that answer n new connections; none may fail."""
    result = lab.rig.load("requests", vip, str(port), str(n), "4")
    assert result["failed"] == 0, result
    return sorted(result["backends"])


def test_service_and_pods_to_packet(clean):
    lab, cluster = clean, clean.cluster
    cluster.apply(labs.web())
    vips = both_vips(lab)
    rigs.wait_for("refused without pods, not black-holed", lambda: lab.rig.fetch(vips[0]) == "curl 7")
    lab.add_web_pods(3)
    lab.wait_for_web(1, 2, 3)
    for vip in vips:
        assert spread(lab, vip) == ["b1", "b2", "b3"]
    shown = cluster.kubectl("get", "svc", "web", "-o", "wide")
    assert vips[0] in shown and vips[1] in shown, shown
    assert cluster.service("web")["metadata"]["finalizers"] == [f"{PREFIX}/vip"]
    assert cluster.ports("web") == [[(80, "TCP", "")], [(80, "TCP", "")]]
    conditions = rigs.wait_for("the Programmed condition", lambda: cluster.conditions("web").get(f"{PREFIX}/Programmed", {})
                               .get("status") == "True" and cluster.conditions("web"))
    assert conditions[f"{PREFIX}/Allocated"]["status"] == "True"
    reasons = rigs.wait_for("an Event", lambda: {e["reason"] for e in cluster.events("web")})
    assert "AddressAllocated" in reasons, reasons
    lab.rig.assert_accounted()


def test_scale_to_zero_and_back(clean):
    lab, cluster = clean, clean.cluster
    cluster.apply(labs.web(families=["IPv4"]))
    lab.add_web_pods(2)
    lab.wait_for_web(1, 2)
    vip = cluster.vips("web")[0]
    assert spread(lab, vip) == ["b1", "b2"]
    cluster.set_pod("web-1", ready=False)
    rigs.wait_for("b1 gone", lambda: spread(lab, vip, 20) == ["b2"])
    cluster.terminate_pod("web-2")
    rigs.wait_for("the endpoint terminating", lambda: any(
        e["conditions"]["terminating"] for s in cluster.slices("web") for e in s["endpoints"]))
    assert spread(lab, vip, 20) == ["b2"], "serving and terminating is used while nothing is ready"
    cluster.delete_pod("web-1")
    cluster.delete_pod("web-2")
    rigs.wait_for("refused", lambda: lab.rig.fetch(vip) == "curl 7")
    assert cluster.vips("web") == [vip], "scaled to zero, the address stays"
    lab.add_web_pods(1, first=3)
    rigs.wait_for("served again", lambda: lab.rig.fetch(vip) == "b3")


def test_ports_change(clean):
    lab, cluster = clean, clean.cluster
    lab.rig.start_backend(4, port=9090)
    cluster.apply(labs.web(families=["IPv4"]))
    lab.add_web_pods(1)
    cluster.add_pod("web-4", [lab.rig.backend_address(4)], {"app": "web"}, ports={"http": 9090})
    rigs.wait_for("two backends", lambda: sorted(p for p, _ in lab.rig.backends("default/web").values()) == [8080, 9090])
    vip = cluster.vips("web")[0]
    assert spread(lab, vip) == ["b1", "b4"], "one name, another number in each pod"

    def port(number, target):
        cluster.kubectl("patch", "svc", "web", "--type", "merge", "-p", json.dumps(
            {"spec": {"ports": [{"name": "http", "protocol": "TCP", "port": number, "targetPort": target}]}}))
    port(8000, "http")  # nothing but the listener changes
    rigs.wait_for("the new port", lambda: lab.rig.fetch(vip, 8000).startswith("b"))
    rigs.wait_for("the old port refused", lambda: lab.rig.fetch(vip, 80) == "curl 7")
    assert spread(lab, vip, port=8000) == ["b1", "b4"]
    port(8000, 9090)

    def b4_alone():  # nobody listens on b1's 9090: refused there until its check fails
        result = lab.rig.load("requests", vip, "8000", "20", "4")
        return result["failed"] == 0 and list(result["backends"]) == ["b4"]
    rigs.wait_for("the new target", b4_alone)
    assert cluster.vips("web") == [vip]
    rigs.wait_for("the new port in status", lambda: cluster.ports("web") == [[(8000, "TCP", "")]])


def test_a_port_that_is_not_served_says_so(clean):
    """Another port at the endpoint than at the VIP cannot be without rewriting: refused, endpoints being there from the start."""
    lab, cluster = clean, clean.cluster
    bare = labs.web(families=["IPv4"], annotations={f"{PREFIX}/mode": "l2dsr"})
    del bare["spec"]["selector"]
    cluster.apply(rigs.slice_of("web", [lab.rig.backend_address(1)], [("http", "TCP", 8080)]), bare)
    rigs.wait_for("the error", lambda: cluster.ports("web") == [[(80, "TCP", f"{PREFIX}/Rejected")]])
    assert cluster.conditions("web")[f"{PREFIX}/Programmed"]["reason"] == "Rejected"
    cluster.kubectl("annotate", "svc", "web", f"{PREFIX}/mode-")
    rigs.wait_for("no error", lambda: cluster.ports("web") == [[(80, "TCP", "")]])
    rigs.wait_for("served", lambda: lab.rig.fetch(cluster.vips("web")[0]) == "b1")


def test_policy_and_family_change(clean):
    lab, cluster = clean, clean.cluster
    cluster.apply(labs.web(families=["IPv4"]))
    lab.add_web_pods(2)
    lab.wait_for_web(1, 2)
    vip = cluster.vips("web")[0]

    def patch(**spec):
        cluster.kubectl("patch", "svc", "web", "--type", "merge", "-p", json.dumps({"spec": spec}))
    patch(externalTrafficPolicy="Local", sessionAffinity="ClientIP")
    rigs.wait_for("affinity", lambda: lab.rig.services()["default/web"]["spec"].get("sessionAffinity"))
    assert len(spread(lab, vip)) == 1 and cluster.vips("web") == [vip]
    patch(externalTrafficPolicy="Cluster", sessionAffinity="None", loadBalancerSourceRanges=["198.51.100.77/32"])
    rigs.wait_for("refused by source", lambda: lab.rig.fetch(vip, timeout=1).startswith("curl"))
    patch(loadBalancerSourceRanges=["198.51.100.0/24"])
    rigs.wait_for("allowed by source", lambda: lab.rig.fetch(vip, timeout=1).startswith("b"))
    patch(loadBalancerSourceRanges=None, ipFamilyPolicy="RequireDualStack", ipFamilies=["IPv4", "IPv6"])
    vips = both_vips(lab)
    assert vips[0] == vip, "the first family keeps its address"
    rigs.wait_for("IPv6 served", lambda: lab.rig.fetch(vips[1]).startswith("b"))


def test_class_decides(clean):
    lab, cluster = clean, clean.cluster
    cluster.apply(labs.web("theirs", families=["IPv4"], load_balancer_class="example.com/other"), labs.web("ours", families=["IPv4"]))
    rigs.wait_for("ours", lambda: cluster.vips("ours"))
    theirs = cluster.service("theirs")
    assert theirs["status"] == {"loadBalancer": {}} and "finalizers" not in theirs["metadata"], "not a condition, not an event"
    assert not cluster.events("theirs") and "default/theirs" not in lab.rig.services()
    vip = cluster.vips("ours")[0]
    cluster.kubectl("patch", "svc", "ours", "--type", "merge", "-p", '{"spec":{"type":"ClusterIP","loadBalancerClass":null}}')
    rigs.wait_for("released", lambda: "default/ours" not in lab.rig.services()
                  and "finalizers" not in cluster.service("ours")["metadata"])
    assert lab.rig.fetch(vip, timeout=1).startswith("curl")


def test_deleted_vip_is_dead_and_reusable(clean):
    lab, cluster = clean, clean.cluster
    cluster.apply(labs.web(families=["IPv4"], annotations={f"{PREFIX}/addresses": "203.0.113.40"}))
    lab.add_web_pods(1)
    rigs.wait_for("served", lambda: lab.rig.fetch("203.0.113.40") == "b1")
    waiting = labs.web("other", families=["IPv4"], annotations={f"{PREFIX}/addresses": "203.0.113.40"})
    cluster.apply(waiting)
    refused = rigs.wait_for("the second claim refused", lambda: cluster.conditions("other").get(f"{PREFIX}/Allocated", {})
                            .get("status") == "False" and cluster.conditions("other"))
    assert "203.0.113.40" in refused[f"{PREFIX}/Allocated"]["message"]
    cluster.kubectl("delete", "svc", "web")
    rigs.wait_for("the address with the one that waited", lambda: cluster.vips("other") == ["203.0.113.40"])
    rigs.wait_for("served for the other", lambda: lab.rig.fetch("203.0.113.40") == "b1")
    cluster.kubectl("delete", "svc", "other")
    rigs.wait_for("dead", lambda: lab.rig.fetch("203.0.113.40", timeout=1).startswith("curl"))
    assert "default/other" not in lab.rig.services()


def connects(lab, vip):
    """Whether a new connection is taken, at once."""
    try:
        netns.connect(lab.rig.ns("client"), vip, 80, 0.5).close()
        return True
    except OSError:
        return False


def test_when_a_service_is_gone_its_vip_is_dead(clean):
    """The finalizer holds the object until nothing is served of it any more; how long that takes is printed."""
    lab, cluster = clean, clean.cluster
    cluster.apply(labs.web(families=["IPv4"]))
    lab.add_web_pods(1)
    vip = rigs.wait_for("a VIP", lambda: cluster.vips("web"))[0]
    rigs.wait_for("served", lambda: connects(lab, vip))
    path, begun = "/api/v1/namespaces/default/services/web", time.monotonic()
    cluster.api.delete(path)
    took = []

    def gone():
        is_gone, tried = cluster.api.raw("GET", path)[0] == 404, time.monotonic()
        if not connects(lab, vip):
            took.append(tried - begun)  # a try that nobody answers has taken its time
        assert took or not is_gone, "the object is gone, and its VIP takes connections"
        return is_gone
    rigs.wait_for("gone", gone, step_s=0.001)
    assert not connects(lab, vip)
    print(f"deleted, and dead {took[0] * 1e3:.0f} ms later")


def test_killed_with_neighbours_and_no_services(clean):
    """Killed, begun anew, and it learns neighbours while there is nothing to serve: then something comes."""
    lab, cluster = clean, clean.cluster
    cluster.apply(labs.web(families=["IPv4"]))
    lab.add_web_pods(2)
    vip = rigs.wait_for("a VIP", lambda: cluster.vips("web"))[0]
    rigs.wait_for("both", lambda: spread(lab, vip, 20) == ["b1", "b2"])
    for _ in range(2):
        cluster.kubectl("delete", "svc", "web")
        rigs.wait_for("nothing served", lambda: not lab.rig.services())
        lab.rig.stop_daemon(signal.SIGKILL)
        lab.start()
        for i in (1, 2):
            lab.rig.run_in("lb", "ping", "-c", "1", "-W", "2", lab.rig.backend_address(i))
        known = lab.rig.run_in("lb", "ip", "neigh", "show", "dev", "p1").stdout
        assert not lab.rig.services() and all(f"{lab.rig.backend_address(i)} lladdr" in known for i in (1, 2)), known
        cluster.apply(labs.web(families=["IPv4"]))
        vip = rigs.wait_for("a VIP", lambda: cluster.vips("web"))[0]
        rigs.wait_for("both again", lambda v=vip: spread(lab, v, 20) == ["b1", "b2"])
        assert lab.rig.daemon.poll() is None
    lab.rig.assert_accounted()


def test_service_without_selector(clean):
    lab, cluster = clean, clean.cluster
    bare = clusters.load_balancer("bare", None, [("http", "TCP", 80, 8080)], ipFamilies=["IPv4"])
    del bare["spec"]["selector"]
    made = rigs.slice_of("bare", [lab.rig.backend_address(2)], [("http", "TCP", 8080)])
    cluster.apply(bare, made)
    vip = rigs.wait_for("a VIP", lambda: cluster.vips("bare"))[0]
    rigs.wait_for("served from a hand-made slice", lambda: lab.rig.fetch(vip) == "b2")


def test_unknown_annotation_is_refused_by_name(clean):
    lab, cluster = clean, clean.cluster
    cluster.apply(labs.web(families=["IPv4"]))
    lab.add_web_pods(1)
    vip = rigs.wait_for("a VIP", lambda: cluster.vips("web"))[0]
    rigs.wait_for("served", lambda: lab.rig.fetch(vip) == "b1")
    cluster.kubectl("annotate", "svc", "web", f"{PREFIX}/mode=sideways")
    event = rigs.wait_for("an Event", lambda: [
        e for e in cluster.events("web") if e["reason"] in ("Rejected", "Unsupported") and "sideways" in e["note"]])[0]
    assert "fullnat" in event["note"], event
    assert lab.rig.fetch(vip) == "b1", "the last good form keeps serving"
