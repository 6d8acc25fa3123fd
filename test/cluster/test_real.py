# SPDX-License-Identifier: BSD-3-Clause
"""The real API as the helpers make and break it: what the other tests stand on, without sluiced."""
import pytest

import cluster as clusters
import netns
from cluster import wait_for
from conftest import empty

USER = "tester"


@pytest.fixture
def web(cluster):
    """A dual-stack Service in front of two pods, and its slices by the controller."""
    cluster.apply(clusters.load_balancer("web", {"app": "web"}, [("http", "TCP", 80, "http")], ipFamilyPolicy="RequireDualStack"))
    for i in (1, 2):
        cluster.add_pod(f"web-{i}", [f"192.0.2.{10 + i}", f"2001:db8:2::{10 + i}"], {"app": "web"}, ports={"http": 8080},
                        node=f"node-{i}")
    wait_for("two endpoints of each family", lambda: sorted(len(s["endpoints"] or []) for s in cluster.slices("web")) == [2, 2])
    yield cluster
    empty(cluster)


def endpoints(cluster, family="IPv4"):
    return {e["addresses"][0]: e for s in cluster.slices("web") if s["addressType"] == family for e in s["endpoints"] or []}


def test_slices_by_the_controller(web):
    both = endpoints(web)
    assert sorted(both) == ["192.0.2.11", "192.0.2.12"] and sorted(endpoints(web, "IPv6")) == ["2001:db8:2::11", "2001:db8:2::12"]
    assert [both[a]["zone"] for a in sorted(both)] == ["zone-a", "zone-b"]
    assert all(s["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}] for s in web.slices("web"))
    web.set_pod("web-1", ready=False)
    wait_for("not ready", lambda: endpoints(web)["192.0.2.11"]["conditions"] == {"ready": False, "serving": False, "terminating": False})
    web.terminate_pod("web-2")
    wait_for("terminating", lambda: endpoints(web)["192.0.2.12"]["conditions"] == {"ready": False, "serving": True, "terminating": True})
    web.delete_pod("web-2")
    wait_for("gone", lambda: sorted(endpoints(web)) == ["192.0.2.11"])


def test_killed_and_restarted_it_forgets_versions(web):
    before = web.api.get("/api/v1/pods")["metadata"]["resourceVersion"]
    for i in range(3):
        web.set_pod("web-1", ready=bool(i % 2))
    web.kill_apiserver()
    with pytest.raises(OSError):
        web.client(clusters.ADMIN_TOKEN, timeout=2).get("/readyz")
    web.start_apiserver()
    text = web.api.raw("GET", f"/api/v1/pods?watch=true&resourceVersion={before}&timeoutSeconds=1")[1]
    assert '"code":410' in text and '"type":"ERROR"' in text, text[:300]


def test_frozen_it_is_silent(web):
    web.freeze()
    silent = web.client(clusters.ADMIN_TOKEN, timeout=0.5)
    with pytest.raises(OSError):
        silent.get("/readyz")
    web.thaw()
    assert wait_for("an answer", lambda: web.api.raw("GET", "/readyz") == (200, "ok"))


def test_tokens_rights_and_throttling(web):
    web.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": "who"}}, ok=(201, 409))
    web.api.request("POST", "/api/v1/namespaces/who/serviceaccounts", {"metadata": {"name": USER}}, ok=(201, 409))
    made = web.api.post(f"/api/v1/namespaces/who/serviceaccounts/{USER}/token", {"spec": {"expirationSeconds": 600}})
    api = web.client(made["status"]["token"])
    with pytest.raises(netns.ApiError) as refused:
        api.get("/api/v1/services")
    assert refused.value.status == 403
    web.throttle(f"system:serviceaccount:who:{USER}")
    try:
        wait_for("429", lambda: api.raw("GET", "/api/v1/services")[0] == 429)
    finally:
        web.relent()
    wait_for("403 again", lambda: api.raw("GET", "/api/v1/services")[0] == 403)


def test_client_certificates(web):
    pki = web.certificates
    pki.client("someone", "someone", "system:masters")
    context = pki.client_context()
    context.load_cert_chain(pki.path("someone.crt"), pki.path("someone.key"))
    api = netns.Api("127.0.0.1", clusters.PORT, web.namespace, context)
    assert api.get("/api/v1/nodes")["items"][0]["metadata"]["name"] == "node-1"
